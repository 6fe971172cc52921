/*
 * See survey.h.
 */
#include "survey.h"

#include "exact.h"
#include "families.h"
#include "support.h"

#include <math.h>
#include <mpfr.h>
#include <stdlib.h>

enum { LABELS = 3, BATCH = 1 << 16 };

/* Rows with their targets of a kind, and room for results and for the reference. */
struct work {
    enum survey_kind kind;
    size_t family, classes, rows;
    float *x, *grad, *loss, *lse;
    int32_t *labels;      /* [rows], or [rows][LABELS] */
    float *probabilities; /* of the labels, or of all classes */
    float *weights, *row_weights, *dloss;
    long double *e, *shares;
};

static bool has(enum survey_kind kind, enum survey_kind a, enum survey_kind b)
{
    return kind == a || kind == b || kind == SURVEY_EVERYTHING;
}

static bool has_weights(enum survey_kind kind)
{
    return has(kind, SURVEY_WEIGHTS, SURVEY_SMOOTHING_WEIGHTS);
}

static double smoothing(enum survey_kind kind)
{
    return has(kind, SURVEY_SMOOTHING, SURVEY_SMOOTHING_WEIGHTS) ? 0.1 : 0.0;
}

static struct work work_new(size_t family, size_t classes, size_t rows, enum survey_kind kind)
{
    const size_t elements = rows * classes * sizeof(float), width = classes > LABELS ? classes : LABELS;
    struct work w = {.kind = kind, .family = family, .classes = classes, .rows = rows};
    w.x = allocate(elements);
    w.grad = allocate(elements);
    w.probabilities = allocate(rows * width * sizeof(float));
    w.loss = allocate(rows * sizeof(float));
    w.lse = allocate(rows * sizeof(float));
    w.row_weights = allocate(rows * sizeof(float));
    w.dloss = allocate(rows * sizeof(float));
    w.labels = allocate(rows * LABELS * sizeof(int32_t));
    w.weights = allocate(classes * sizeof(float));
    w.e = allocate(classes * sizeof(long double));
    w.shares = allocate(classes * sizeof(long double));
    struct rng rng = rng_stream(1000000 + classes);
    for (size_t j = 0; j < classes; j++)
        w.weights[j] = rng_chance(&rng, 0.2) ? 0.0f : (float)exp(rng_uniform(&rng, -4.0, 3.0));
    return w;
}

static void work_free(struct work *w)
{
    void *const all[] = {w->x,     w->grad,   w->probabilities, w->loss, w->lse,   w->row_weights,
                         w->dloss, w->labels, w->weights,       w->e,    w->shares};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* Row number row of the family, with its targets, as number i. */
static void work_fill(struct work *w, size_t i, size_t row)
{
    const size_t C = w->classes;
    struct rng rng = rng_stream((uint64_t)(w->kind + 100) << 56 | (uint64_t)C << 32 | row);
    const size_t target = family_row(w->family, C, row, w->x + i * C);
    w->row_weights[i] = (float)rng_uniform(&rng, 0.1, 2.0);
    w->dloss[i] = (float)rng_uniform(&rng, -2.0, 2.0);
    if (w->kind == SURVEY_LABELS) {
        for (size_t k = 0; k < LABELS; k++) {
            w->labels[i * LABELS + k] = (int32_t)(k == 0 ? target : rng_below(&rng, C));
            w->probabilities[i * LABELS + k] = (float)rng_uniform(&rng, 0.0, 1.0);
        }
        return;
    }
    w->labels[i] = (int32_t)target;
    if (w->kind == SURVEY_PROBABILITIES || w->kind == SURVEY_EVERYTHING) {
        for (size_t j = 0; j < C; j++) {
            const double u = rng_uniform(&rng, 0.0, 1.0);
            w->probabilities[i * C + j] = (float)(u * u * u * 4.0 / (double)C);
        }
    }
}

/* The target distribution of row i; shares are written to w->shares. */
static struct exact_targets work_targets(const struct work *w, size_t i)
{
    const size_t C = w->classes;
    struct exact_targets t = {.target = (size_t)w->labels[i], .share = 1, .scale = 1};
    if (w->kind == SURVEY_PLAIN)
        return t;
    if (w->kind == SURVEY_WEIGHTS) {
        t.share = (long double)w->weights[t.target];
        return t;
    }
    const bool everything = w->kind == SURVEY_EVERYTHING;
    const long double a = (long double)smoothing(w->kind), r = everything ? (long double)w->row_weights[i] : 1;
    t.shares = w->shares;
    t.scale = everything ? (long double)w->dloss[i] : 1;
    for (size_t j = 0; j < C; j++)
        w->shares[j] = w->kind == SURVEY_PROBABILITIES || everything ? (long double)w->probabilities[i * C + j] : 0;
    if (w->kind == SURVEY_LABELS)
        for (size_t k = 0; k < LABELS; k++)
            w->shares[w->labels[i * LABELS + k]] += (long double)w->probabilities[i * LABELS + k];
    else if (w->kind == SURVEY_SMOOTHING || w->kind == SURVEY_SMOOTHING_WEIGHTS)
        w->shares[w->labels[i]] = 1;
    for (size_t j = 0; j < C; j++)
        w->shares[j] =
            r * (has_weights(w->kind) ? (long double)w->weights[j] : 1) * (a / (long double)C + (1 - a) * w->shares[j]);
    return t;
}

static xent_status work_call(const struct work *w, size_t rows)
{
    const bool probabilities = w->kind == SURVEY_PROBABILITIES || w->kind == SURVEY_EVERYTHING;
    xent_problem p = XENT_PROBLEM_INIT;
    p.outer = rows;
    p.classes = w->classes;
    p.logits = w->x;
    p.grad = w->grad;
    p.reduction = XENT_NONE;
    p.loss = w->loss;
    p.lse = w->lse;
    p.targets = probabilities ? (const void *)w->probabilities : w->labels;
    p.target_type = probabilities ? XENT_PROBABILITIES : XENT_LABELS_I32;
    p.label_smoothing = smoothing(w->kind);
    p.class_weights = has_weights(w->kind) ? w->weights : NULL;
    if (w->kind == SURVEY_LABELS) {
        p.labels = LABELS;
        p.probabilities = w->probabilities;
    }
    if (w->kind == SURVEY_EVERYTHING) {
        p.row_weights = w->row_weights;
        p.dloss = w->dloss;
    }
    return xent_cross_entropy(&p);
}

static void take(struct survey_worst *worst, double error, float got, long double exact, size_t row, size_t index)
{
    if (error > worst->error)
        *worst = (struct survey_worst){error, (double)got, (double)exact, row, index};
}

static long double loss_unit(const struct exact_row *row, const struct exact_targets *targets, long double loss)
{
    if (!targets->shares)
        return exact_ulp(loss);
    long double largest = 0;
    for (size_t j = 0; j < row->classes; j++)
        largest = fmaxl(largest, fabsl((long double)row->x[j]));
    return 2 * exact_ulp(loss) + (0x1p-23L + 0x1p-48L * largest) * row->size;
}

static long double lse_unit(long double lse)
{
    return 1.5L * 0x1p-24L + 0.5L * exact_ulp(lse);
}

/* lse may be NULL. */
static void measure(const struct exact_row *row, const struct exact_targets *targets, size_t number, float loss,
                    const float *lse, const float *grad, struct survey_worst *worst)
{
    take(&worst[SURVEY_LOSS], exact_distance(loss, row->loss, loss_unit(row, targets, row->loss)), loss, row->loss,
         number, targets->target);
    if (lse)
        take(&worst[SURVEY_LSE], exact_distance(*lse, exact_lse(row), lse_unit(exact_lse(row))), *lse, exact_lse(row),
             number, 0);
    for (size_t j = 0; j < row->classes; j++) {
        long double larger;
        const long double exact = exact_gradient(row, targets, j, &larger);
        const bool own = !targets->shares && j == targets->target;
        take(&worst[own ? SURVEY_TARGET : SURVEY_GRADIENT], exact_distance(grad[j], exact, exact_ulp(larger)), grad[j],
             exact, number, j);
    }
}

int survey_family(const char *name)
{
    for (size_t i = 0; i < family_count; i++)
        if (strcmp(family_name(i), name) == 0)
            return (int)i;
    return -1;
}

void survey_rows(size_t family, size_t classes, size_t first, size_t count, float *x, int32_t *targets)
{
    for (size_t i = 0; i < count; i++)
        targets[i] = (int32_t)family_row(family, classes, first + i, x + i * classes);
}

int survey_run(size_t family, size_t classes, size_t first, size_t count, int kind, struct survey_worst *worst)
{
    const size_t most = classes < BATCH ? BATCH / classes : 1;
    struct work w = work_new(family, classes, most < count ? most : count, (enum survey_kind)kind);
    xent_status status = XENT_OK;
    for (size_t done = 0; done < count && status == XENT_OK; done += w.rows) {
        const size_t rows = count - done < w.rows ? count - done : w.rows;
        for (size_t i = 0; i < rows; i++)
            work_fill(&w, i, first + done + i);
        status = work_call(&w, rows);
        for (size_t i = 0; i < rows && status == XENT_OK; i++) {
            const struct exact_targets targets = work_targets(&w, i);
            struct exact_row row;
            exact_row(&row, w.x + i * classes, classes, &targets, w.e);
            measure(&row, &targets, first + done + i, w.loss[i], &w.lse[i], w.grad + i * classes, worst);
        }
    }
    work_free(&w);
    return (int)status;
}

void survey_judge(size_t classes, size_t first, size_t count, const float *x, const int32_t *targets,
                  const float *losses, const float *gradients, struct survey_worst *worst)
{
    long double *e = allocate(classes * sizeof *e);
    for (size_t i = 0; i < count; i++) {
        const struct exact_targets t = {.target = (size_t)targets[i], .share = 1, .scale = 1};
        struct exact_row row;
        exact_row(&row, x + i * classes, classes, &t, e);
        measure(&row, &t, first + i, losses[i], NULL, gradients + i * classes, worst);
    }
    free(e);
}

double survey_verify(size_t family, size_t classes, int kind, int quantity, const struct survey_worst *worst)
{
    struct work w = work_new(family, classes, 1, (enum survey_kind)kind);
    work_fill(&w, 0, worst->row);
    const struct exact_targets targets = work_targets(&w, 0);
    struct exact_row row;
    exact_row(&row, w.x, classes, &targets, w.e);
    const struct exact_check check = exact_check(w.x, classes, &targets, worst->index);
    const float got = (float)worst->got;
    long double larger, unit;
    exact_gradient(&row, &targets, worst->index, &larger);
    if (quantity == SURVEY_LOSS)
        unit = loss_unit(&row, &targets, check.loss);
    else
        unit = quantity == SURVEY_LSE ? lse_unit(check.lse) : exact_ulp(larger);
    const long double exact = quantity == SURVEY_LOSS  ? check.loss
                              : quantity == SURVEY_LSE ? check.lse
                                                       : check.gradient;
    work_free(&w);
    mpfr_free_cache();
    return exact_distance(got, exact, unit);
}

/* Elements, in rows of this many. */
enum { ELEMENTS = 1000 };

int survey_bce(size_t family, size_t first, size_t count, int soft, struct survey_worst *worst)
{
    float x[ELEMENTS], t[ELEMENTS], loss[ELEMENTS], grad[ELEMENTS];
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    for (size_t done = 0; done < count; done += ELEMENTS) {
        const size_t number = (first + done) / ELEMENTS;
        struct rng rng = rng_stream((uint64_t)99 << 56 | number);
        family_row(family, ELEMENTS, number, x);
        for (size_t i = 0; i < ELEMENTS; i++)
            t[i] = soft ? (float)rng_uniform(&rng, 0.0, 1.0) : (float)rng_below(&rng, 2);
        const xent_status status = xent_bce_f32(x, t, 1, ELEMENTS, loss, grad, &options);
        if (status != XENT_OK)
            return (int)status;
        for (size_t i = 0; i < ELEMENTS; i++) {
            const long double a = fabsl((long double)x[i]), u = exact_exp(-a), log = log1pl(u);
            const long double k1 = (long double)t[i], k0 = 1 - k1;
            const bool positive = x[i] > 0.0f;
            const long double exact = (positive ? k0 : k1) * a + log;
            const long double grows = (positive ? k0 : k1) / (1 + u), vanishes = (positive ? k1 : k0) * u / (1 + u);
            const long double gradient = positive ? grows - vanishes : vanishes - grows;
            take(&worst[SURVEY_LOSS], exact_distance(loss[i], exact, exact_ulp(exact)), loss[i], exact, number, i);
            if (fabsl(gradient) >= 0x1p-26L * (grows + vanishes))
                take(&worst[SURVEY_GRADIENT], exact_distance(grad[i], gradient, exact_ulp(gradient)), grad[i], gradient,
                     number, i);
            else
                take(&worst[SURVEY_LSE],
                     exact_distance(grad[i], gradient, 0x1p-49L * (grows + vanishes) + 0.5L * exact_ulp(gradient)),
                     grad[i], gradient, number, i);
        }
    }
    return 0;
}

double survey_check_exp(size_t points)
{
    mpfr_t exact, got;
    mpfr_inits2(200, exact, got, (mpfr_ptr)NULL);
    double worst = 0;
    struct rng rng = rng_stream(1);
    for (size_t i = 0; i < points; i++) {
        const long double z = (long double)rng_uniform(&rng, i % 2 ? -390.0 : -1.0, 0.0);
        mpfr_set_ld(exact, z, MPFR_RNDN);
        mpfr_exp(exact, exact, MPFR_RNDN);
        mpfr_set_ld(got, exact_exp(z), MPFR_RNDN);
        mpfr_div(got, got, exact, MPFR_RNDN);
        mpfr_sub_ui(got, got, 1, MPFR_RNDN);
        worst = fmax(worst, fabs(mpfr_get_d(got, MPFR_RNDN)) * 0x1p64);
    }
    mpfr_clears(exact, got, (mpfr_ptr)NULL);
    mpfr_free_cache();
    return worst;
}
