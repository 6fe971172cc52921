/*
 * What every corner of the criterion means: PyTorch's results in float64, committed by tests/golden_vectors.py, for
 * every kernel, both types of numbers, all types of labels, and packed and strided arrays. Where PyTorch and the header
 * differ, the numbers are those of the header.
 */
#include "criterion.h"

#include <math.h>
#include <stdlib.h>

/* A problem of the general call: labels, [outer][labels][inner] in index, or 0 and probabilities for every class. */
struct golden {
    const char *name;
    size_t outer, classes, inner, labels;
    const float *logits;
    const int64_t *index;
    const float *probabilities; /* of the labels or of all classes */
    int64_t ignore_index;
    double smoothing, normalizer;
    const float *class_weights, *row_weights;
    size_t kept_rows;
    double denominator;
    const double *loss;
    double sum, mean;
    const float *dloss; /* for grad only */
    const double *grad, *grad_sum, *grad_mean;
};

struct golden_bce {
    const char *name;
    size_t rows, classes;
    const float *logits, *targets, *weights;
    size_t weight_row_stride, weight_class_stride;
    const float *pos_weight;
    const double *loss;
    double sum, mean;
    const double *grad_sum, *grad_mean;
};

#include "golden_vectors.h"

enum { MAX_NUMBERS = 256, MAX_CLASSES = 80, ROOM = 3 * MAX_NUMBERS };

/* Where an array's elements are: without gaps, or classes innermost and a gap of one after every row. */
static xent_strides strides_for(const struct golden *g, size_t extent, bool strided)
{
    if (!strided)
        return (xent_strides){extent * g->inner, g->inner, 1};
    return (xent_strides){g->inner * (extent + 1), 1, extent + 1};
}

static size_t place_of(const xent_strides *s, size_t i, size_t j, size_t k)
{
    return i * s->outer + j * s->classes + k * s->inner;
}

/* An array [outer][extent][inner] of floats into one of the type and the layout. */
static void *place_numbers(const struct golden *g, xent_dtype dtype, const float *values, size_t extent, bool strided)
{
    const xent_strides s = strides_for(g, extent, strided);
    void *array = allocate(ROOM * dtype_size(dtype));
    memset(array, 0xff, ROOM * dtype_size(dtype));
    for (size_t i = 0; i < g->outer; i++)
        for (size_t j = 0; j < extent; j++)
            for (size_t k = 0; k < g->inner; k++)
                number_put(dtype, array, place_of(&s, i, j, k), (double)values[(i * extent + j) * g->inner + k]);
    return array;
}

static bool label_fits(xent_targets type, int64_t label)
{
    switch (type) {
    case XENT_LABELS_U8:
        return label >= 0 && label <= UINT8_MAX;
    case XENT_LABELS_U16:
        return label >= 0 && label <= UINT16_MAX;
    case XENT_LABELS_I32:
        return label >= INT32_MIN && label <= INT32_MAX;
    default:
        return true;
    }
}

static void put_label(xent_targets type, void *array, size_t at, int64_t label)
{
    switch (type) {
    case XENT_LABELS_U8:
        ((uint8_t *)array)[at] = (uint8_t)label;
        break;
    case XENT_LABELS_U16:
        ((uint16_t *)array)[at] = (uint16_t)label;
        break;
    case XENT_LABELS_I32:
        ((int32_t *)array)[at] = (int32_t)label;
        break;
    default:
        ((int64_t *)array)[at] = label;
    }
}

/* NULL if one does not fit into the type. */
static void *place_labels(const struct golden *g, xent_targets type, bool strided)
{
    const xent_strides s = strides_for(g, g->labels, strided);
    const size_t count = g->outer * g->labels * g->inner;
    for (size_t i = 0; i < count; i++)
        if (!label_fits(type, g->index[i]))
            return NULL;
    void *array = allocate(ROOM * sizeof(int64_t));
    memset(array, 0xff, ROOM * sizeof(int64_t));
    for (size_t i = 0; i < g->outer; i++)
        for (size_t j = 0; j < g->labels; j++)
            for (size_t k = 0; k < g->inner; k++)
                put_label(type, array, place_of(&s, i, j, k), g->index[(i * g->labels + j) * g->inner + k]);
    return array;
}

/* A row's target distribution by the header's formula, the exponentials' share of its gradient, and how far from the
   committed numbers a result may be. */
struct row {
    bool kept, one_class;
    double t[MAX_CLASSES], p[MAX_CLASSES], sum, largest, spread;
};

static double logit(const struct golden *g, size_t row, size_t j)
{
    return (double)g->logits[(row / g->inner * g->classes + j) * g->inner + row % g->inner];
}

static struct row row_of(const struct golden *g, size_t row)
{
    struct row r = {.kept = g->labels == 0, .one_class = g->labels == 1 && !g->probabilities && g->smoothing == 0};
    const size_t i = row / g->inner, k = row % g->inner;
    const double factor = g->row_weights ? (double)g->row_weights[row] : 1;
    double q[MAX_CLASSES] = {0};
    for (size_t j = 0; j < g->classes && g->labels == 0; j++)
        q[j] = (double)g->probabilities[(i * g->classes + j) * g->inner + k];
    for (size_t l = 0; l < g->labels; l++) {
        const size_t at = (i * g->labels + l) * g->inner + k;
        if (g->index[at] == g->ignore_index)
            continue;
        r.kept = true;
        q[g->index[at]] += g->probabilities ? (double)g->probabilities[at] : 1;
    }
    r.kept = r.kept && factor != 0;
    double max = (double)-INFINITY, min = (double)INFINITY, exponentials = 0;
    for (size_t j = 0; j < g->classes; j++) {
        const double x = logit(g, row, j), w = g->class_weights ? (double)g->class_weights[j] : 1;
        r.t[j] = factor * w * (g->smoothing / (double)g->classes + (1 - g->smoothing) * q[j]);
        r.sum += fabs(r.t[j]);
        if (isfinite(x)) {
            max = fmax(max, x);
            min = fmin(min, x);
        }
    }
    r.largest = max >= min ? fmax(fabs(max), fabs(min)) : 0;
    r.spread = max >= min ? max - min : 0;
    for (size_t j = 0; j < g->classes; j++)
        exponentials += exp(logit(g, row, j) - max);
    for (size_t j = 0; j < g->classes; j++)
        r.p[j] = exp(logit(g, row, j) - max) / exponentials;
    return r;
}

/* PyTorch's own rounding errors, in double. */
static double referee_error(const struct row *r)
{
    return 0x1p-48 * (1 + r->spread) * r->sum;
}

static double loss_bound(xent_dtype dtype, const struct row *r)
{
    const double unit = dtype == XENT_F64 ? 0x1p-52 + 0x1p-49 * r->largest : 0x1p-23 + 0x1p-48 * r->largest;
    return referee_error(r) + (r->one_class ? 0 : unit * r->sum);
}

static double gradient_bound(xent_dtype dtype, const struct row *r, size_t j, double scale, double exact)
{
    const double multiplied = fabs(scale) * r->sum * r->p[j], taken = fabs(scale * r->t[j]);
    const double larger = r->one_class ? 0 : fmax(multiplied, taken);
    return 3 * number_ulp(dtype, fmax(larger, fabs(exact))) + fabs(scale) * referee_error(r);
}

static void expect_near(const char *what, size_t i, double got, double exact, double bound)
{
    if (isnan(exact) ? !isnan(got) : got != exact && !(fabs(got - exact) <= bound))
        fail_case("%s[%zu] is %.17g, should be %.17g within %g", what, i, got, exact, bound);
}

static void check_reduction(const struct golden *g, xent_problem p, xent_reduction reduction, bool strided, void *dloss)
{
    const xent_dtype dtype = p.dtype;
    const xent_strides s = strides_for(g, g->classes, strided);
    const size_t rows = g->outer * g->inner;
    char loss[ROOM * sizeof(double)], grad[ROOM * sizeof(double)];
    size_t kept_rows = 12345;
    double denominator = 12345;
    name_detail("reduction %d", (int)reduction);
    memset(grad, 0, sizeof grad);
    p.reduction = reduction;
    p.dloss = reduction == XENT_NONE ? dloss : NULL;
    p.loss = loss;
    p.grad = grad;
    p.kept_rows = &kept_rows;
    p.denominator = &denominator;
    expect_status("status", xent_cross_entropy(&p), XENT_OK);
    ck_assert_uint_eq(kept_rows, g->kept_rows);
    expect_near("denominator", 0, denominator, g->denominator, 1e-14 * g->denominator);
    const double divisor = reduction != XENT_MEAN ? 1 : g->normalizer > 0 ? g->normalizer : g->denominator;
    double bound = 0, all = 0;
    for (size_t row = 0; row < rows; row++) {
        const struct row r = row_of(g, row);
        const size_t i = row / g->inner, k = row % g->inner;
        if (reduction == XENT_NONE)
            expect_near("loss", row, number_get(dtype, loss, row), g->loss[row],
                        loss_bound(dtype, &r) + 2 * number_ulp(dtype, g->loss[row]));
        bound += r.kept ? loss_bound(dtype, &r) : 0;
        all += fabs(g->loss[row]);
        const double scale = (reduction == XENT_NONE ? (double)g->dloss[row] : 1) / (divisor != 0 ? divisor : 1);
        const double *exact = reduction == XENT_NONE ? g->grad : reduction == XENT_SUM ? g->grad_sum : g->grad_mean;
        for (size_t j = 0; j < g->classes; j++) {
            const size_t at = (i * g->classes + j) * g->inner + k;
            const double got = number_get(dtype, grad, place_of(&s, i, j, k));
            expect_near("gradient", at, got, exact[at], gradient_bound(dtype, &r, j, scale, exact[at]));
            if (!r.kept && (got != 0 || signbit(got)))
                fail_case("gradient[%zu] of an ignored row is %g, not +0", at, got);
        }
    }
    if (reduction == XENT_NONE)
        return;
    const double exact = reduction == XENT_SUM ? g->sum : g->mean;
    expect_near("reduced loss", 0, number_get(dtype, loss, 0), exact,
                divisor != 0 ? bound / divisor + 2 * number_ulp(dtype, all / divisor) : 0);
    /* The option that PyTorch does not have. */
    p.empty_mean_is_zero = 1;
    expect_status("with empty_mean_is_zero", xent_cross_entropy(&p), XENT_OK);
    if (g->kept_rows == 0)
        expect_near("empty mean", 0, number_get(dtype, loss, 0), 0, 0);
    else
        expect_near("reduced loss", 0, number_get(dtype, loss, 0), exact,
                    divisor != 0 ? bound / divisor + 2 * number_ulp(dtype, all / divisor) : 0);
}

static void check_golden(const struct golden *g, const char *isa, xent_dtype dtype, xent_targets type, bool strided)
{
    name_case("%s, %s, %s, type %d, %s", g->name, isa, dtype_name(dtype), (int)type, strided ? "strided" : "packed");
    ck_assert_uint_le(g->outer * (g->classes + 1) * g->inner, ROOM);
    ck_assert_uint_le(g->classes, MAX_CLASSES);
    const bool labels = type != XENT_PROBABILITIES;
    if (labels != (g->labels > 0))
        return;
    const xent_strides s = strides_for(g, g->classes, strided), of_labels = strides_for(g, g->labels, strided);
    const xent_strides of_rows = strides_for(g, 1, strided);
    void *targets =
        labels ? place_labels(g, type, strided) : place_numbers(g, dtype, g->probabilities, g->classes, strided);
    if (!targets)
        return;
    void *logits = place_numbers(g, dtype, g->logits, g->classes, strided);
    void *probabilities =
        labels && g->probabilities ? place_numbers(g, dtype, g->probabilities, g->labels, strided) : NULL;
    void *row_weights = g->row_weights ? place_numbers(g, dtype, g->row_weights, 1, strided) : NULL;
    void *dloss = place_numbers(g, dtype, g->dloss, 1, strided);
    char class_weights[MAX_CLASSES * sizeof(double)];
    for (size_t j = 0; g->class_weights && j < g->classes; j++)
        number_put(dtype, class_weights, j, (double)g->class_weights[j]);
    xent_problem p = XENT_PROBLEM_INIT;
    p.dtype = dtype;
    p.outer = g->outer;
    p.classes = g->classes;
    p.inner = g->inner;
    p.logits = logits;
    p.target_type = type;
    p.labels = labels ? g->labels : 0;
    p.targets = targets;
    p.probabilities = probabilities;
    p.ignore_index = g->ignore_index;
    p.label_smoothing = g->smoothing;
    p.normalizer = g->normalizer;
    p.class_weights = g->class_weights ? class_weights : NULL;
    p.row_weights = row_weights;
    if (strided) {
        p.logits_strides = p.grad_strides = &s;
        p.targets_strides = labels ? &of_labels : &s;
        p.probabilities_strides = &of_labels;
        p.row_weights_strides = p.dloss_strides = &of_rows;
    }
    for (int reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
        name_case("%s, %s, %s, type %d, %s", g->name, isa, dtype_name(dtype), (int)type,
                  strided ? "strided" : "packed");
        check_reduction(g, p, (xent_reduction)reduction, strided, dloss);
    }
    free(logits);
    free(targets);
    free(probabilities);
    free(row_weights);
    free(dloss);
}

static void check_goldens(const char *isa, xent_dtype dtype)
{
    for (size_t i = 0; i < sizeof goldens / sizeof goldens[0]; i++)
        for (int type = XENT_LABELS_I32; type <= XENT_PROBABILITIES; type++)
            for (int strided = 0; strided < 2; strided++)
                check_golden(&goldens[i], isa, dtype, (xent_targets)type, strided);
}

START_TEST(cross_entropy_goldens)
{
    for_each_kernel(check_goldens);
}
END_TEST

/* The difference of the two terms of a gradient may cancel; PyTorch's own errors are those of a logit in double. */
static double bce_bound(const struct golden_bce *g, size_t at, double exact, double units)
{
    const double x = (double)g->logits[at], p = g->pos_weight ? (double)g->pos_weight[at % g->classes] : 1;
    return units * number_ulp(XENT_F32, exact) + 0x1p-46 * (isfinite(x) ? fabs(x) + 1 : 1) * (p + 1);
}

static void check_bce(const struct golden_bce *g, xent_reduction reduction)
{
    const size_t count = g->rows * g->classes;
    float loss[MAX_NUMBERS], grad[MAX_NUMBERS] = {0};
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = reduction;
    options.weights = g->weights;
    options.weight_row_stride = g->weight_row_stride;
    options.weight_class_stride = g->weight_class_stride;
    options.pos_weight = g->pos_weight;
    expect_status("status", xent_bce_f32(g->logits, g->targets, g->rows, g->classes, loss, grad, &options), XENT_OK);
    const double *exact = reduction == XENT_MEAN ? g->grad_mean : g->grad_sum;
    for (size_t i = 0; i < count; i++) {
        if (reduction == XENT_NONE)
            expect_near("loss", i, (double)loss[i], g->loss[i], bce_bound(g, i, g->loss[i], 2));
        expect_near("gradient", i, (double)grad[i], exact[i], bce_bound(g, i, exact[i], 3));
    }
    const double reduced = reduction == XENT_MEAN ? g->mean : g->sum;
    if (reduction != XENT_NONE)
        expect_near("reduced loss", 0, (double)loss[0], reduced, 2 * number_ulp(XENT_F32, reduced) + 0x1p-40);
}

START_TEST(bce_vectors)
{
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t i = 0; i < sizeof bce_goldens / sizeof bce_goldens[0]; i++)
            for (int reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
                name_case("bce, %s, %s, reduction %d", bce_goldens[i].name, *isa, reduction);
                check_bce(&bce_goldens[i], (xent_reduction)reduction);
            }
    }
}
END_TEST

void add_golden_tests(TCase *test_case)
{
    tcase_add_test(test_case, cross_entropy_goldens);
    tcase_add_test(test_case, bce_vectors);
}
