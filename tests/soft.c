/*
 * Target distributions: probabilities for every class, several labels with probabilities, smoothing, class and row
 * weights and dloss. Every kernel against the scalar kernel, bit by bit, and the scalar kernel against the definition
 * in long double. soft_corners.c has single rows and factors at their ends.
 */
#include "soft.h"

#include "fpcontrol.h"
#include "rows.h"
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_ROWS = 40, MAX_LABELS = 4 };

enum kind { PROBABILITIES, ONE_HOT, LABELS, PLAIN, KINDS };
enum place { FORWARD, IN_PLACE, OUT_OF_PLACE, PLACES };

/* A problem with all its arrays; the pointers that are not wanted are NULL in problem. */
struct soft {
    enum kind kind;
    xent_problem problem;
    float *logits, *targets, *class_weights, *copy;
    float row_weights[MAX_ROWS], dloss[MAX_ROWS], probabilities[MAX_ROWS * MAX_LABELS];
    int32_t labels[MAX_ROWS * MAX_LABELS];
    xent_strides targets_strides;
};

struct results {
    float loss[MAX_ROWS], lse[MAX_ROWS], reduced;
    float *grad;
};

static struct soft *soft_new(size_t rows, size_t classes)
{
    struct soft *s = allocate(sizeof *s);
    *s = (struct soft){.logits = allocate(rows * classes * sizeof(float)),
                       .targets = allocate(rows * (classes + 3) * sizeof(float)),
                       .class_weights = allocate(classes * sizeof(float)),
                       .copy = allocate(rows * classes * sizeof(float))};
    s->problem = (xent_problem)XENT_PROBLEM_INIT;
    s->problem.outer = rows;
    s->problem.classes = classes;
    s->problem.logits = s->logits;
    return s;
}

static void soft_free(struct soft *s)
{
    free(s->logits);
    free(s->targets);
    free(s->class_weights);
    free(s->copy);
    free(s);
}

static float any_of(struct rng *rng, const float *values, size_t count)
{
    return values[rng_below(rng, count)];
}

#define ANY_OF(rng, ...) any_of(rng, (const float[]){__VA_ARGS__}, sizeof((const float[]){__VA_ARGS__}) / sizeof(float))

/* A row of probabilities: like a softmax's, most of them 0, one nearly 1, far from adding up to 1, or tiny. */
static void fill_probabilities(float *q, size_t classes, struct rng *rng, bool negative)
{
    const size_t style = rng_below(rng, 6);
    const float size = style == 4 ? 1e-39f : style == 5 ? 1e-25f : 1;
    for (size_t j = 0; j < classes; j++) {
        q[j] = (float)exp((double)rng_normal(rng) * (style == 3 ? 20.0 : 1.0)) * size / (float)classes;
        if (style == 1 && !rng_chance(rng, 0.05))
            q[j] = 0;
        if (style == 2)
            q[j] *= 1e-6f;
        if (negative && rng_chance(rng, 0.2))
            q[j] = -q[j];
    }
    if (style == 2)
        q[rng_below(rng, classes)] = 0.999f;
}

/* usual: only what the bounds of the definition hold for without further ado. */
static void soft_fill(struct soft *s, struct rng *rng, enum kind kind, bool usual)
{
    xent_problem *p = &s->problem;
    const size_t rows = p->outer, classes = p->classes;
    const float spread = ANY_OF(rng, 1, 3, 3, 3, 30),
                offset = usual ? ANY_OF(rng, 0, 0, 0, 1e4f, -700) : ANY_OF(rng, 0, 0, 0, 1e4f, 1e30f);
    for (size_t i = 0; i < rows * classes; i++)
        s->logits[i] = rng_normal(rng) * spread + offset;
    for (size_t i = 0; i < rows && !usual; i++)
        if (rng_chance(rng, 0.4))
            row_fill(rng, rng_below(rng, row_kinds), s->logits + i * classes, classes, rng_below(rng, classes));
    for (size_t j = 0; j < classes; j++)
        s->class_weights[j] =
            rng_chance(rng, 0.2) ? 0.0f : (float)exp(rng_uniform(rng, usual ? -4.0 : -95.0, usual ? 3.0 : 41.0));

    s->kind = kind;
    s->targets_strides = (xent_strides){classes + rng_below(rng, 3), 1, 0};
    const bool labels = kind == LABELS || kind == PLAIN;
    p->labels = kind == LABELS ? 1 + rng_below(rng, MAX_LABELS) : 1;
    p->target_type = labels ? XENT_LABELS_I32 : XENT_PROBABILITIES;
    p->targets = labels ? (const void *)s->labels : s->targets;
    p->targets_strides = labels ? NULL : &s->targets_strides;
    p->probabilities = kind == LABELS && !rng_chance(rng, 0.2) ? s->probabilities : NULL;
    for (size_t i = 0; i < rows * p->labels; i++) {
        s->labels[i] = (int32_t)rng_below(rng, classes);
        if (labels && rng_chance(rng, 0.15))
            s->labels[i] = -100;
        s->probabilities[i] = rng_chance(rng, 0.1) ? 0 : (float)rng_uniform(rng, usual ? 0 : -0.5, 1);
    }
    for (size_t i = 0; i < rows; i++) {
        float *q = s->targets + i * s->targets_strides.outer;
        if (kind == ONE_HOT)
            for (size_t j = 0; j < classes; j++)
                q[j] = (size_t)s->labels[i] == j;
        else
            fill_probabilities(q, classes, rng, !usual && rng_chance(rng, 0.3));
        if (!usual && kind == PROBABILITIES && rng_chance(rng, 0.05))
            q[rng_below(rng, classes)] = ANY_OF(rng, NAN, -NAN, INFINITY, -INFINITY, 3e38f, -3e38f);
        s->row_weights[i] = usual ? ANY_OF(rng, 0, 1, 0.3f, 7) : ANY_OF(rng, 0, 1, 1, -2.5f, 1e-30f, 1e25f, 3e38f);
        s->dloss[i] = usual ? ANY_OF(rng, 1, -1, 0.7f, 0)
                            : ANY_OF(rng, 1, -1, 0, -0.0f, 3e38f, 1e-30f, -3e-7f, NAN, INFINITY, -1e30f);
    }
    p->label_smoothing = rng_chance(rng, 0.5) ? 0 : (double)ANY_OF(rng, 0.1f, 0.5f, 1e-3f, 1, 1e-36f);
    p->class_weights = rng_chance(rng, 0.3) ? s->class_weights : NULL;
    p->row_weights = rng_chance(rng, 0.3) ? s->row_weights : NULL;
    p->dloss = rng_chance(rng, 0.3) ? s->dloss : NULL;
    p->reduction = (xent_reduction)rng_below(rng, 3);
}

static void run(struct soft *s, enum place place, const xent_executor *executor, struct results *r)
{
    xent_problem p = s->problem;
    const size_t floats = p.outer * p.classes;
    memset(r->grad, 0x55, floats * sizeof(float));
    p.lse = r->lse;
    p.loss = p.reduction == XENT_NONE ? r->loss : &r->reduced;
    p.executor = executor;
    if (place == IN_PLACE) {
        memcpy(r->grad, s->logits, floats * sizeof(float));
        p.logits = r->grad;
    }
    p.grad = place == FORWARD ? NULL : r->grad;
    expect_status("xent_cross_entropy", xent_cross_entropy(&p), XENT_OK);
}

/* The same bits, and of NaNs those that no processor's arithmetic decides. */
static void expect_same_floats(const char *what, const float *got, const float *expected, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (float_bits(got[i]) != float_bits(expected[i]))
            fail_case("%s %zu: got %a, expected %a", what, i, (double)got[i], (double)expected[i]);
        if (got[i] != got[i] && float_bits(got[i]) != 0x7fc00000)
            fail_case("%s %zu: a NaN of %08x", what, i, (unsigned)float_bits(got[i]));
    }
}

static void expect_same(const struct soft *s, const struct results *got, const struct results *expected, bool grad)
{
    const xent_problem *p = &s->problem;
    expect_same_floats("lse", got->lse, expected->lse, p->outer);
    if (p->reduction == XENT_NONE)
        expect_same_floats("loss", got->loss, expected->loss, p->outer);
    else
        expect_same_floats("reduced loss", &got->reduced, &expected->reduced, 1);
    if (grad)
        expect_same_floats("gradient", got->grad, expected->grad, p->outer * p->classes);
}

static void name_problem(const struct soft *s, size_t repeat)
{
    static const char *const names[] = {"probabilities", "one-hot probabilities", "labels", "plain labels"};
    const xent_problem *p = &s->problem;
    name_case("repeat %zu: %zu rows of %zu classes, %s, smoothing %g,%s%s%s reduction %d", repeat, p->outer, p->classes,
              names[s->kind], p->label_smoothing, p->class_weights ? " class weights," : "",
              p->row_weights ? " row weights," : "", p->dloss ? " dloss," : "", (int)p->reduction);
}

static void run_backwards(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context;
    while (tasks-- > 0)
        task(argument, tasks);
}

/* The sizes that matter: anything up to 300, and past two chunks. */
static size_t any_classes(struct rng *rng, size_t repeat)
{
    if (repeat % 25 == 24)
        return 2 * 8192 + rng_below(rng, 100);
    return repeat % 10 == 9 ? 900 + rng_below(rng, 1400) : 1 + rng_below(rng, repeat % 3 ? 300 : 70);
}

static struct results results_new(const struct soft *s)
{
    return (struct results){.grad = allocate(s->problem.outer * s->problem.classes * sizeof(float))};
}

/* With control bits of the caller, which are left as they were. */
static void run_with_control_bits(struct soft *s, enum place place, struct results *r)
{
    const uint64_t control = fp_control_get();
    fp_control_set(control | fp_control_flush | fp_control_round_up);
    run(s, place, NULL, r);
    const uint64_t after = fp_control_get();
    fp_control_set(control);
    if ((after & fp_control_mask) != ((control | fp_control_flush | fp_control_round_up) & fp_control_mask))
        fail_case("the caller's control bits were changed");
}

START_TEST(same_bits)
{
    struct rng rng = rng_stream(60);
    for (size_t repeat = 0; repeat < scaled(1500); repeat++) {
        const size_t classes = any_classes(&rng, repeat);
        struct soft *s = soft_new(classes > 300 ? 2 : 1 + rng_below(&rng, MAX_ROWS), classes);
        soft_fill(s, &rng, (enum kind)rng_below(&rng, KINDS), repeat % 3 == 0);
        struct results expected = results_new(s), got = results_new(s);
        name_problem(s, repeat);
        use_kernel("scalar");
        run(s, OUT_OF_PLACE, NULL, &expected);
        for (const char *const *isa = xent_isas(); *isa; isa++)
            for (int place = 0; place < PLACES; place++) {
                const xent_executor executor = {run_backwards, NULL, 2};
                use_kernel(*isa);
                name_detail("%s, place %d", *isa, place);
                run(s, (enum place)place, repeat % 4 == 0 ? &executor : NULL, &got);
                expect_same(s, &got, &expected, place != FORWARD);
                if (repeat % 2 == 0) {
                    name_detail("%s, place %d, control bits", *isa, place);
                    run_with_control_bits(s, (enum place)place, &got);
                    expect_same(s, &got, &expected, place != FORWARD);
                }
            }
        free(expected.grad);
        free(got.grad);
        soft_free(s);
    }
}
END_TEST

/* t_j over r, of row i. */
static long double share_of(const struct soft *s, size_t i, size_t j)
{
    const xent_problem *p = &s->problem;
    const long double a = (long double)p->label_smoothing, w = p->class_weights ? (long double)s->class_weights[j] : 1;
    long double q = 0;
    if (p->target_type == XENT_PROBABILITIES)
        q = (long double)s->targets[i * s->targets_strides.outer + j];
    else
        for (size_t k = 0; k < p->labels; k++)
            if ((size_t)s->labels[i * p->labels + k] == j)
                q += p->probabilities ? (long double)s->probabilities[i * p->labels + k] : 1;
    return w * (a / (long double)p->classes + (1 - a) * q);
}

static bool is_ignored(const struct soft *s, size_t i)
{
    const xent_problem *p = &s->problem;
    bool ignored = p->target_type != XENT_PROBABILITIES;
    for (size_t k = 0; ignored && k < p->labels; k++)
        ignored = s->labels[i * p->labels + k] == -100;
    return ignored || (p->row_weights && s->row_weights[i] == 0);
}

/* One row without a reduction against the definition. */
static void expect_row(const struct soft *s, size_t i, const struct results *r)
{
    const xent_problem *p = &s->problem;
    const float *x = s->logits + i * p->classes, *grad = r->grad + i * p->classes;
    if (is_ignored(s, i)) {
        expect_bits("an ignored row's loss", r->loss[i], 0.0f);
        for (size_t j = 0; j < p->classes; j++)
            expect_bits("an ignored row's gradient", grad[j], 0.0f);
        return;
    }
    const long double weight = p->row_weights ? (long double)s->row_weights[i] : 1;
    const long double dloss = p->dloss ? (long double)s->dloss[i] : 1;
    long double max = (long double)-INFINITY, sum = 0, total = 0, size = 0, loss = 0, largest = 0;
    for (size_t j = 0; j < p->classes; j++)
        max = (long double)x[j] > max ? (long double)x[j] : max;
    for (size_t j = 0; j < p->classes; j++)
        sum += expl((long double)x[j] - max);
    const long double lse = max + logl(sum);
    for (size_t j = 0; j < p->classes; j++) {
        const long double t = weight * share_of(s, i, j);
        total += t;
        size += fabsl(t);
        loss += t * (lse - (long double)x[j]);
        largest = fmaxl(largest, fabsl((long double)x[j]));
    }
    const long double slack = size * (0x1p-23L + 0x1p-48L * largest);
    if (!(fabsl((long double)r->loss[i] - loss) <= slack))
        expect_within("loss", r->loss[i], (double)loss,
                      2.0 + (double)(slack / fmaxl(fabsl(loss) * 0x1p-24L, 0x1p-149L)));
    for (size_t j = 0; j < p->classes; j++) {
        const long double given = dloss * total * expl((long double)x[j] - lse);
        const long double taken = dloss * weight * share_of(s, i, j);
        const long double unit = fmaxl(fmaxl(fabsl(given), fabsl(taken)) * 0x1p-23L, 0x1p-149L);
        if (!(fabsl((long double)grad[j] - (given - taken)) <= 3 * unit))
            fail_case("gradient %zu: got %a, exact %a, in units of the larger term %.2f", j, (double)grad[j],
                      (double)(given - taken), (double)(fabsl((long double)grad[j] - (given - taken)) / unit));
    }
}

START_TEST(definition)
{
    struct rng rng = rng_stream(61);
    use_kernel("scalar");
    for (size_t repeat = 0; repeat < scaled(400); repeat++) {
        const size_t classes = any_classes(&rng, repeat);
        struct soft *s = soft_new(classes > 300 ? 2 : 1 + rng_below(&rng, 8), classes);
        soft_fill(s, &rng, (enum kind)rng_below(&rng, KINDS), true);
        s->problem.reduction = XENT_NONE;
        struct results r = results_new(s);
        name_problem(s, repeat);
        run(s, OUT_OF_PLACE, NULL, &r);
        for (size_t i = 0; i < s->problem.outer; i++) {
            name_detail("row %zu", i);
            expect_row(s, i, &r);
        }
        free(r.grad);
        soft_free(s);
    }
}
END_TEST

/* One-hot probabilities are index targets, a batch is its rows, and smoothing of 0 is none: to the bit. */
START_TEST(equivalences)
{
    struct rng rng = rng_stream(62);
    for (size_t repeat = 0; repeat < scaled(300); repeat++) {
        const size_t classes = any_classes(&rng, repeat);
        struct soft *s = soft_new(classes > 300 ? 2 : 1 + rng_below(&rng, MAX_ROWS), classes);
        struct results hot = results_new(s), got = results_new(s);
        soft_fill(s, &rng, ONE_HOT, repeat % 2 == 0);
        if (s->problem.reduction == XENT_MEAN) /* whose denominator differs with class weights */
            s->problem.reduction = XENT_SUM;
        name_problem(s, repeat);
        const struct soft probabilities = *s;
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            use_kernel(*isa);
            *s = probabilities;
            run(s, IN_PLACE, NULL, &hot);
            name_detail("%s against labels", *isa);
            s->problem.target_type = XENT_LABELS_I32;
            s->problem.targets = s->labels;
            s->problem.targets_strides = NULL;
            run(s, OUT_OF_PLACE, NULL, &got);
            expect_same(s, &got, &hot, true);

            name_detail("%s, row by row", *isa);
            *s = probabilities;
            s->problem.reduction = XENT_NONE;
            run(s, OUT_OF_PLACE, NULL, &hot);
            s->problem.outer = 1;
            const size_t rows = probabilities.problem.outer;
            for (size_t i = 0; i < rows; i++) {
                struct results row = {.grad = got.grad + i * classes};
                s->logits = probabilities.logits + i * classes;
                s->problem.logits = s->logits;
                s->problem.targets = s->targets + i * s->targets_strides.outer;
                s->problem.row_weights = probabilities.problem.row_weights ? &s->row_weights[i] : NULL;
                s->problem.dloss = probabilities.problem.dloss ? &s->dloss[i] : NULL;
                run(s, OUT_OF_PLACE, NULL, &row);
                got.loss[i] = row.loss[0];
                got.lse[i] = row.lse[0];
            }
            *s = probabilities;
            s->problem.reduction = XENT_NONE;
            expect_same(s, &got, &hot, true);
        }
        *s = probabilities;
        free(hot.grad);
        free(got.grad);
        soft_free(s);
    }
}
END_TEST

/* Every kernel against the scalar one, out of place. */
static void expect_kernels_agree(struct soft *s)
{
    struct results expected = results_new(s), got = results_new(s);
    use_kernel("scalar");
    run(s, OUT_OF_PLACE, NULL, &expected);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_detail("%s", *isa);
        run(s, OUT_OF_PLACE, NULL, &got);
        expect_same(s, &got, &expected, true);
    }
    free(expected.grad);
    free(got.grad);
}

/* Probabilities that smoothing leaves nothing of, be they no numbers: kernels agree on what that does. */
START_TEST(smoothed_away)
{
    struct rng rng = rng_stream(61);
    for (size_t repeat = 0; repeat < scaled(200); repeat++) {
        const size_t classes = 2 + rng_below(&rng, 70);
        struct soft *s = soft_new(1 + rng_below(&rng, MAX_ROWS), classes);
        soft_fill(s, &rng, PROBABILITIES, true);
        s->problem.label_smoothing = 1;
        s->problem.class_weights = s->class_weights;
        for (size_t i = 0; i < s->problem.outer; i++) {
            const size_t j = rng_below(&rng, classes);
            if (rng_chance(&rng, 0.3))
                s->targets[i * s->targets_strides.outer + j] = ANY_OF(&rng, NAN, INFINITY, -INFINITY, 3e38f);
            if (rng_chance(&rng, 0.5))
                s->logits[i * classes + j] = -INFINITY;
        }
        name_problem(s, repeat);
        expect_kernels_agree(s);
        soft_free(s);
    }
}
END_TEST

/* Rows far from 0 whose dominant class is in a later chunk than the one that finds them far. */
START_TEST(far_and_dominant)
{
    struct rng rng = rng_stream(65);
    for (size_t repeat = 0; repeat < 4; repeat++) {
        struct soft *s = soft_new(2, 20000);
        soft_fill(s, &rng, PROBABILITIES, true);
        s->problem.reduction = XENT_NONE;
        s->problem.class_weights = s->problem.row_weights = s->problem.dloss = NULL;
        for (size_t i = 0; i < 2; i++) {
            for (size_t j = 0; j < 20000; j++) {
                s->logits[i * 20000 + j] = 1e4f + rng_normal(&rng);
                s->targets[i * s->targets_strides.outer + j] = 1e-5f;
            }
            s->targets[i * s->targets_strides.outer + 9000 + rng_below(&rng, 11000)] = 0.9f;
        }
        name_case("far and dominant, repeat %zu", repeat);
        expect_kernels_agree(s);
        soft_free(s);
    }
}
END_TEST

/* Probabilities that add up to 8 under a factor of 2^59: what is taken off is usual, and the multiplier is not. */
START_TEST(large_sums_of_shares)
{
    struct rng rng = rng_stream(66);
    struct soft *s = soft_new(MAX_ROWS, 700);
    soft_fill(s, &rng, PROBABILITIES, true);
    s->problem.reduction = XENT_NONE;
    s->problem.label_smoothing = 0;
    s->problem.class_weights = s->problem.row_weights = NULL;
    s->problem.dloss = s->dloss;
    for (size_t i = 0; i < MAX_ROWS; i++) {
        s->dloss[i] = 0x1p59f;
        for (size_t j = 0; j < 700; j++) {
            s->logits[i * 700 + j] = (float)rng_uniform(&rng, 20, 24);
            s->targets[i * s->targets_strides.outer + j] = (float)rng_uniform(&rng, 4.0 / 700, 12.0 / 700);
        }
    }
    name_case("large sums of shares");
    expect_kernels_agree(s);
    soft_free(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("soft");
    tcase_add_test(add_case(suite, "same bits"), same_bits);
    tcase_add_test(add_case(suite, "definition"), definition);
    tcase_add_test(add_case(suite, "equivalences"), equivalences);
    tcase_add_test(add_case(suite, "smoothed away"), smoothed_away);
    tcase_add_test(add_case(suite, "far and dominant"), far_and_dominant);
    tcase_add_test(add_case(suite, "large sums of shares"), large_sums_of_shares);
    add_soft_corners(suite);
    return run_suite(suite);
}
