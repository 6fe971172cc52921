/*
 * See f64_problem.h.
 */
#include "f64_problem.h"

#include <math.h>
#include <stdlib.h>

uint64_t double_bits(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

void expect_double(const char *what, double got, double expected)
{
    if (double_bits(got) != double_bits(expected))
        fail_case("%s: got %a, expected %a", what, got, expected);
}

double double_ulps(double got, long double exact)
{
    int exponent = -1021;
    if ((long double)got == exact)
        return 0;
    if (exact != 0)
        frexpl(exact, &exponent);
    const double distance = (double)ldexpl(fabsl((long double)got - exact), exponent > -1021 ? 53 - exponent : 1074);
    return isnan(distance) ? (double)INFINITY : distance;
}

struct f64 f64_new(size_t outer, size_t classes, size_t inner)
{
    const size_t rows = outer * inner;
    return (struct f64){.outer = outer,
                        .classes = classes,
                        .inner = inner,
                        .labels = 1,
                        .x = allocate(rows * classes * sizeof(double)),
                        .class_weights = allocate(classes * sizeof(double)),
                        .row_weights = allocate(rows * sizeof(double)),
                        .dloss = allocate(rows * sizeof(double)),
                        .targets = allocate(rows * 3 * sizeof(int64_t)),
                        .probabilities = allocate(rows * (classes > 3 ? classes : 3) * sizeof(double))};
}

void f64_free(struct f64 *p)
{
    free(p->x);
    free(p->class_weights);
    free(p->row_weights);
    free(p->dloss);
    free(p->targets);
    free(p->probabilities);
}

struct f64_results f64_results_new(const struct f64 *p)
{
    return (struct f64_results){.grad = allocate(f64_rows(p) * p->classes * sizeof(double)),
                                .loss = allocate(f64_rows(p) * sizeof(double)),
                                .lse = allocate(f64_rows(p) * sizeof(double))};
}

void f64_results_free(struct f64_results *r)
{
    free(r->grad);
    free(r->loss);
    free(r->lse);
}

/* The array, filled, or freed and NULL. */
static double *maybe(struct rng *rng, double *array, size_t count, double low, double high, double zeros)
{
    if (rng_chance(rng, 0.5)) {
        free(array);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        array[i] = rng_chance(rng, zeros) ? 0 : rng_uniform(rng, low, high);
    return array;
}

void f64_fill(struct f64 *p, struct rng *rng, double scale, double offset, bool negative)
{
    const size_t rows = f64_rows(p);
    for (size_t i = 0; i < rows * p->classes; i++)
        p->x[i] = ((double)rng_normal(rng) + rng_uniform(rng, 0, 1e-7)) * scale + offset;
    p->type = (xent_targets)rng_below(rng, 5);
    if (p->classes > 200 && p->type == XENT_LABELS_U8)
        p->type = XENT_LABELS_U16;
    p->labels = rng_chance(rng, 0.5) ? 1 : 1 + rng_below(rng, 3);
    for (size_t i = 0; i < rows * p->labels; i++)
        p->targets[i] = rng_chance(rng, 0.15) ? F64_IGNORED : (int64_t)rng_below(rng, p->classes);
    if (p->type == XENT_PROBABILITIES) {
        for (size_t i = 0; i < rows * p->classes; i++)
            p->probabilities[i] = rng_chance(rng, 0.3) ? 0 : rng_uniform(rng, negative ? -0.5 : 0, 1);
    } else {
        p->probabilities = maybe(rng, p->probabilities, rows * p->labels, negative ? -0.5 : 0, 1, 0.1);
    }
    p->class_weights = maybe(rng, p->class_weights, p->classes, 0, 5, 0.1);
    p->row_weights = maybe(rng, p->row_weights, rows, negative ? -1 : 0, 3, 0.2);
    p->dloss = maybe(rng, p->dloss, rows, -2, 2, 0.1);
    p->smoothing = rng_chance(rng, 0.5) ? 0 : rng_chance(rng, 0.1) ? 1 : rng_uniform(rng, 0, 1);
    p->reduction = (xent_reduction)rng_below(rng, 3);
    p->normalizer = rng_chance(rng, 0.2) ? rng_uniform(rng, 1, 1000) : 0;
}

bool f64_ignores(const struct f64 *p, size_t i)
{
    if (p->row_weights && p->row_weights[i] == 0)
        return true;
    for (size_t k = 0; k < p->labels; k++)
        if (p->type == XENT_PROBABILITIES || p->targets[f64_at(p, i, p->labels, k)] != F64_IGNORED)
            return false;
    return true;
}

static double share(const struct f64 *p, size_t i, size_t j, bool size)
{
    double named = p->type == XENT_PROBABILITIES ? p->probabilities[f64_at(p, i, p->classes, j)] : 0;
    named = size ? fabs(named) : named;
    for (size_t k = 0; p->type != XENT_PROBABILITIES && k < p->labels; k++) {
        const size_t at = f64_at(p, i, p->labels, k);
        if (p->targets[at] == (int64_t)j)
            named += !p->probabilities ? 1 : size ? fabs(p->probabilities[at]) : p->probabilities[at];
    }
    const double r = p->row_weights ? p->row_weights[i] : 1, w = p->class_weights ? p->class_weights[j] : 1;
    return (size ? fabs(r) : r) * w * (p->smoothing / (double)p->classes + (1 - p->smoothing) * named);
}

double f64_share(const struct f64 *p, size_t i, size_t j)
{
    return share(p, i, j, false);
}

double f64_share_size(const struct f64 *p, size_t i, size_t j)
{
    return share(p, i, j, true);
}

/* Strides without collisions: the dimensions in any order, with gaps. Returns how many elements they reach over. */
static size_t random_strides(struct rng *rng, const struct f64 *p, size_t extent, bool strided, xent_strides *s)
{
    *s = (xent_strides){extent * p->inner, p->inner, 1};
    if (strided) {
        const size_t counts[3] = {p->outer, extent, p->inner}, start = rng_below(rng, 3), step = 1 + rng_below(rng, 2);
        size_t strides[3], stride = 1 + rng_below(rng, 2);
        for (size_t k = 0; k < 3; k++) {
            const size_t d = (start + k * step) % 3;
            strides[d] = stride;
            stride *= counts[d] + rng_below(rng, 2);
        }
        *s = (xent_strides){strides[0], strides[1], strides[2]};
    }
    return (p->outer - 1) * s->outer + (extent - 1) * s->classes + (p->inner - 1) * s->inner + 1;
}

/* A packed array in a layout of its own; out of it with the same strides: packed is then written. */
static void move(const struct f64 *p, size_t extent, const xent_strides *s, double *spread, double *packed, bool back)
{
    for (size_t i = 0; i < f64_rows(p); i++)
        for (size_t j = 0; j < extent; j++) {
            double *a = &spread[i / p->inner * s->outer + j * s->classes + i % p->inner * s->inner];
            double *b = &packed[f64_at(p, i, extent, j)];
            *(back ? b : a) = *(back ? a : b);
        }
}

static double *spread(struct rng *rng, const struct f64 *p, size_t extent, bool strided, xent_strides *s,
                      double *packed)
{
    if (!packed)
        return NULL;
    const size_t count = random_strides(rng, p, extent, strided, s);
    double *array = allocate(count * sizeof *array);
    for (size_t i = 0; i < count; i++)
        array[i] = -1e77;
    move(p, extent, s, array, packed, false);
    return array;
}

static void *spread_labels(struct rng *rng, const struct f64 *p, bool strided, xent_strides *s)
{
    const size_t count = random_strides(rng, p, p->labels, strided, s);
    int64_t *wide = allocate(count * sizeof *wide);
    for (size_t i = 0; i < count; i++)
        wide[i] = 0;
    for (size_t i = 0; i < f64_rows(p); i++)
        for (size_t k = 0; k < p->labels; k++)
            wide[i / p->inner * s->outer + k * s->classes + i % p->inner * s->inner] =
                p->targets[f64_at(p, i, p->labels, k)];
    void *labels = allocate(count * sizeof *wide);
    for (size_t i = 0; i < count; i++) {
        if (p->type == XENT_LABELS_I32)
            ((int32_t *)labels)[i] = (int32_t)wide[i];
        else if (p->type == XENT_LABELS_I64)
            ((int64_t *)labels)[i] = wide[i];
        else if (p->type == XENT_LABELS_U8)
            ((uint8_t *)labels)[i] = wide[i] == F64_IGNORED ? 255 : (uint8_t)wide[i];
        else
            ((uint16_t *)labels)[i] = wide[i] == F64_IGNORED ? 65535 : (uint16_t)wide[i];
    }
    free(wide);
    return labels;
}

static double *gaps_of(const double *array, size_t count)
{
    double *copy = allocate(count * sizeof *copy);
    memcpy(copy, array, count * sizeof *copy);
    return copy;
}

void f64_run(const struct f64 *p, const struct f64_layout *layout, struct rng *rng, struct f64_results *results)
{
    const bool labels = p->type != XENT_PROBABILITIES, strided = layout->strided;
    xent_strides x_strides, grad_strides, target_strides, probability_strides, row_strides, dloss_strides;
    double *x = spread(rng, p, p->classes, strided, &x_strides, p->x), *grad = NULL, *before = NULL;
    size_t grad_count = 0;
    if (!layout->forward_only && layout->in_place) {
        grad = x;
        grad_strides = x_strides;
    } else if (!layout->forward_only) {
        grad = spread(rng, p, p->classes, strided, &grad_strides, p->x);
    }
    if (grad) {
        grad_count = (p->outer - 1) * grad_strides.outer + (p->classes - 1) * grad_strides.classes +
                     (p->inner - 1) * grad_strides.inner + 1;
        before = gaps_of(grad, grad_count);
    }
    double *probabilities =
        spread(rng, p, labels ? p->labels : p->classes, strided, &probability_strides, p->probabilities);
    double *row_weights = spread(rng, p, 1, strided, &row_strides, p->row_weights);
    double *dloss = spread(rng, p, 1, strided, &dloss_strides, p->dloss);
    void *targets = labels ? spread_labels(rng, p, strided, &target_strides) : NULL;

    xent_problem problem = XENT_PROBLEM_INIT;
    problem.dtype = XENT_F64;
    problem.outer = p->outer;
    problem.classes = p->classes;
    problem.inner = p->inner;
    problem.logits = x;
    problem.logits_strides = &x_strides;
    problem.grad = grad;
    problem.grad_strides = &grad_strides;
    problem.target_type = p->type;
    problem.labels = p->labels;
    problem.targets = labels ? targets : probabilities;
    problem.targets_strides = labels ? &target_strides : &probability_strides;
    problem.probabilities = labels ? probabilities : NULL;
    problem.probabilities_strides = &probability_strides;
    problem.ignore_index = p->type == XENT_LABELS_U8 ? 255 : p->type == XENT_LABELS_U16 ? 65535 : F64_IGNORED;
    problem.label_smoothing = p->smoothing;
    problem.class_weights = p->class_weights;
    problem.row_weights = row_weights;
    problem.row_weights_strides = &row_strides;
    problem.dloss = dloss;
    problem.dloss_strides = &dloss_strides;
    problem.reduction = p->reduction;
    problem.normalizer = p->normalizer;
    problem.loss = results->loss;
    problem.lse = results->lse;
    problem.kept_rows = &results->kept;
    problem.denominator = &results->denominator;
    problem.executor = layout->executor;
    expect_status("cross entropy of doubles", xent_cross_entropy(&problem), XENT_OK);

    if (grad) {
        move(p, p->classes, &grad_strides, grad, results->grad, true);
        move(p, p->classes, &grad_strides, before, results->grad, false);
        if (memcmp(before, grad, grad_count * sizeof *grad) != 0)
            fail_case("something between the elements of the gradient was written");
    }
    free(before);
    if (grad != x)
        free(grad);
    free(x);
    free(probabilities);
    free(row_weights);
    free(dloss);
    free(targets);
}
