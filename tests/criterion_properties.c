/*
 * What must hold between calls of xent_cross_entropy, whatever the numbers are: in every kernel and either type.
 */
#include "criterion.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_ROWS = 40, MAX_CLASSES = 300, MAX_NUMBERS = MAX_ROWS * MAX_CLASSES };

/* A random problem of [rows][classes], and room for what comes of it. The arrays have gaps nowhere. */
struct random_problem {
    xent_problem p;
    size_t rows, classes;
    void *logits, *class_weights, *row_weights, *dloss, *probabilities;
    int32_t targets[MAX_ROWS];
};

struct outcome {
    void *loss, *lse, *grad; /* [rows], [rows], [rows][classes] */
    void *reduced;           /* 1 */
    size_t kept_rows;
    double denominator;
};

static void *numbers_new(xent_dtype dtype, size_t count)
{
    return allocate(count * dtype_size(dtype));
}

static struct outcome outcome_new(xent_dtype dtype)
{
    return (struct outcome){.loss = numbers_new(dtype, MAX_ROWS),
                            .lse = numbers_new(dtype, MAX_ROWS),
                            .grad = numbers_new(dtype, MAX_NUMBERS),
                            .reduced = numbers_new(dtype, 1)};
}

static void outcome_free(struct outcome *o)
{
    free(o->loss);
    free(o->lse);
    free(o->grad);
    free(o->reduced);
}

static void fill_uniform(struct rng *rng, xent_dtype dtype, void *array, size_t count, double low, double high)
{
    for (size_t i = 0; i < count; i++)
        number_put(dtype, array, i, rng_uniform(rng, low, high));
}

static struct random_problem problem_new(struct rng *rng, xent_dtype dtype)
{
    struct random_problem r = {.rows = 1 + rng_below(rng, MAX_ROWS),
                               .classes =
                                   rng_chance(rng, 0.5) ? 1 + rng_below(rng, 12) : 1 + rng_below(rng, MAX_CLASSES),
                               .logits = numbers_new(dtype, MAX_NUMBERS),
                               .class_weights = numbers_new(dtype, MAX_CLASSES),
                               .row_weights = numbers_new(dtype, MAX_ROWS),
                               .dloss = numbers_new(dtype, MAX_ROWS),
                               .probabilities = numbers_new(dtype, MAX_NUMBERS)};
    const double spread = rng_chance(rng, 0.5) ? 2 : 12, offset = rng_chance(rng, 0.2) ? 1000 : 0;
    for (size_t i = 0; i < r.rows * r.classes; i++)
        number_put(dtype, r.logits, i, (double)rng_normal(rng) * spread + offset);
    fill_uniform(rng, dtype, r.class_weights, r.classes, 0.1, 3);
    fill_uniform(rng, dtype, r.row_weights, r.rows, 0.1, 2);
    fill_uniform(rng, dtype, r.dloss, r.rows, -2, 2);
    fill_uniform(rng, dtype, r.probabilities, r.rows * r.classes, 0, 2 / (double)r.classes);
    for (size_t i = 0; i < r.rows; i++)
        r.targets[i] = rng_chance(rng, 0.15) ? -100 : (int32_t)rng_below(rng, r.classes);
    r.p = (xent_problem)XENT_PROBLEM_INIT;
    r.p.dtype = dtype;
    r.p.outer = r.rows;
    r.p.classes = r.classes;
    r.p.logits = r.logits;
    r.p.reduction = XENT_NONE;
    return r;
}

/* targets stay where they are. */
static void use_targets(struct random_problem *r)
{
    r->p.target_type = XENT_LABELS_I32;
    r->p.targets = r->targets;
}

static void use_probabilities(struct random_problem *r)
{
    r->p.target_type = XENT_PROBABILITIES;
    r->p.targets = r->probabilities;
}

/* Any options that a row's results depend on. */
static void use_random_options(struct rng *rng, struct random_problem *r)
{
    r->p.class_weights = rng_chance(rng, 0.5) ? r->class_weights : NULL;
    r->p.row_weights = rng_chance(rng, 0.4) ? r->row_weights : NULL;
    r->p.dloss = rng_chance(rng, 0.4) ? r->dloss : NULL;
    r->p.label_smoothing = rng_chance(rng, 0.5) ? 0 : rng_uniform(rng, 0, 1);
    if (rng_chance(rng, 0.3))
        use_probabilities(r);
    else
        use_targets(r);
}

static void problem_free(struct random_problem *r)
{
    free(r->logits);
    free(r->class_weights);
    free(r->row_weights);
    free(r->dloss);
    free(r->probabilities);
}

static void compute(const xent_problem *p, const char *what)
{
    const xent_status status = xent_cross_entropy(p);
    if (status != XENT_OK)
        fail_case("%s: %s", what, xent_status_string(status));
}

/* Everything, with the reduction of the problem. */
static void run(const struct random_problem *r, struct outcome *o)
{
    xent_problem p = r->p;
    p.loss = p.reduction == XENT_NONE ? o->loss : o->reduced;
    p.lse = o->lse;
    p.grad = o->grad;
    p.kept_rows = &o->kept_rows;
    p.denominator = &o->denominator;
    compute(&p, "the call");
}

static void expect_same_numbers(xent_dtype dtype, const char *what, const void *got, const void *expected, size_t count)
{
    const size_t size = dtype_size(dtype);
    for (size_t i = 0; i < count; i++)
        if (memcmp((const char *)got + i * size, (const char *)expected + i * size, size) != 0)
            fail_case("%s[%zu]: %a instead of %a", what, i, number_get(dtype, got, i), number_get(dtype, expected, i));
}

static void expect_same_outcome(const struct random_problem *r, const struct outcome *got,
                                const struct outcome *expected)
{
    const xent_dtype dtype = r->p.dtype;
    if (r->p.reduction == XENT_NONE)
        expect_same_numbers(dtype, "loss", got->loss, expected->loss, r->rows);
    else
        expect_same_numbers(dtype, "reduced loss", got->reduced, expected->reduced, 1);
    expect_same_numbers(dtype, "lse", got->lse, expected->lse, r->rows);
    expect_same_numbers(dtype, "gradient", got->grad, expected->grad, r->rows * r->classes);
    if (got->kept_rows != expected->kept_rows || got->denominator != expected->denominator)
        fail_case("%zu rows kept, denominator %a instead of %zu and %a", got->kept_rows, got->denominator,
                  expected->kept_rows, expected->denominator);
}

/* t_j of a row by the header's formula, in double. Returns whether the row is kept. */
static bool row_distribution(const struct random_problem *r, size_t row, double *t)
{
    const xent_problem *p = &r->p;
    const double factor = p->row_weights ? number_get(p->dtype, p->row_weights, row) : 1;
    const bool labels = p->target_type != XENT_PROBABILITIES;
    for (size_t j = 0; j < r->classes; j++) {
        const double w = p->class_weights ? number_get(p->dtype, p->class_weights, j) : 1;
        const double q =
            labels ? (size_t)r->targets[row] == j : number_get(p->dtype, r->probabilities, row * r->classes + j);
        t[j] = factor * w * (p->label_smoothing / (double)r->classes + (1 - p->label_smoothing) * q);
    }
    return factor != 0 && !(labels && r->targets[row] == p->ignore_index);
}

static double sum_of(const double *t, size_t count)
{
    double sum = 0;
    for (size_t j = 0; j < count; j++)
        sum += t[j];
    return sum;
}

static double factor_of_gradient(const struct random_problem *r, size_t row)
{
    return r->p.dloss ? number_get(r->p.dtype, r->p.dloss, row) : 1;
}

static void gradients_sum_to_zero(const char *isa, xent_dtype dtype)
{
    struct outcome o = outcome_new(dtype);
    for (size_t n = 0; n < scaled(40); n++) {
        struct rng rng = rng_stream(0x7000 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_random_options(&rng, &r);
        name_case("gradients sum to zero, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        run(&r, &o);
        for (size_t i = 0; i < r.rows; i++) {
            double t[MAX_CLASSES], sum = 0;
            if (!row_distribution(&r, i, t))
                continue;
            for (size_t j = 0; j < r.classes; j++)
                sum += number_get(dtype, o.grad, i * r.classes + j);
            /* Of each entry three units of the larger term, which add up to twice the target's sum at most. */
            const double unit = number_ulp(dtype, 1),
                         terms = 2 * sum_of(t, r.classes) * fabs(factor_of_gradient(&r, i));
            if (!(fabs(sum) <= 3 * unit * terms))
                fail_case("row %zu: the gradient's sum is %g, its terms' %g", i, sum, terms);
        }
        problem_free(&r);
    }
    outcome_free(&o);
}

/* sum_j t_j (lse - x_j), with x_k moved by h. */
static double loss_near(const struct random_problem *r, size_t row, const double *t, size_t k, double h)
{
    double x[MAX_CLASSES], max = (double)-INFINITY, sum = 0, loss = 0;
    for (size_t j = 0; j < r->classes; j++) {
        x[j] = number_get(r->p.dtype, r->logits, row * r->classes + j) + (j == k ? h : 0);
        max = x[j] > max ? x[j] : max;
    }
    for (size_t j = 0; j < r->classes; j++)
        sum += exp(x[j] - max);
    for (size_t j = 0; j < r->classes; j++)
        loss += t[j] * (log(sum) + (max - x[j]));
    return loss;
}

static void gradient_is_the_derivative(const char *isa, xent_dtype dtype)
{
    struct outcome o = outcome_new(dtype), moved = outcome_new(dtype);
    for (size_t n = 0; n < scaled(12); n++) {
        struct rng rng = rng_stream(0x7100 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_random_options(&rng, &r);
        name_case("finite differences, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        run(&r, &o);
        for (size_t i = 0; i < r.rows; i++) {
            double t[MAX_CLASSES];
            if (!row_distribution(&r, i, t))
                continue;
            const double sum = sum_of(t, r.classes), factor = factor_of_gradient(&r, i), h = 0x1p-13;
            const size_t k = rng_below(&rng, r.classes), at = i * r.classes + k;
            double difference = loss_near(&r, i, t, k, h) - loss_near(&r, i, t, k, -h);
            const double got = number_get(dtype, o.grad, at);
            if (fabs(got - factor * difference / (2 * h)) > 2e-7 * sum * (fabs(factor) + 1))
                fail_case("row %zu: derivative by class %zu is %g, %g by the definition", i, k, got,
                          factor * difference / (2 * h));
            if (dtype != XENT_F64)
                continue;
            /* Here the library's own losses are fine enough. */
            const double x = number_get(dtype, r.logits, at);
            number_put(dtype, r.logits, at, x + h);
            run(&r, &moved);
            difference = number_get(dtype, moved.loss, i);
            number_put(dtype, r.logits, at, x - h);
            run(&r, &moved);
            difference -= number_get(dtype, moved.loss, i);
            number_put(dtype, r.logits, at, x);
            if (fabs(got - factor * difference / (2 * h)) > 2e-7 * sum * (fabs(factor) + 1))
                fail_case("row %zu: derivative by class %zu is %g, %g by finite differences", i, k, got,
                          factor * difference / (2 * h));
        }
        problem_free(&r);
    }
    outcome_free(&o);
    outcome_free(&moved);
}

/* As long as there is no smoothing and the mean's denominators agree. */
static void one_hot_is_an_index(const char *isa, xent_dtype dtype)
{
    struct outcome by_index = outcome_new(dtype), by_probability = outcome_new(dtype);
    for (size_t n = 0; n < scaled(60); n++) {
        struct rng rng = rng_stream(0x7200 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_random_options(&rng, &r);
        r.p.label_smoothing = 0;
        r.p.reduction = (xent_reduction)(n % 3);
        if (r.p.reduction == XENT_MEAN)
            r.p.class_weights = NULL;
        name_case("one-hot probabilities, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        for (size_t i = 0; i < r.rows; i++) {
            r.targets[i] = (int32_t)rng_below(&rng, r.classes);
            if (rng_chance(&rng, 0.1)) /* a masked target */
                number_put(dtype, r.logits, i * r.classes + (size_t)r.targets[i], r.classes > 1 ? (double)-INFINITY : 1);
            for (size_t j = 0; j < r.classes; j++)
                number_put(dtype, r.probabilities, i * r.classes + j, (size_t)r.targets[i] == j);
        }
        use_targets(&r);
        run(&r, &by_index);
        use_probabilities(&r);
        run(&r, &by_probability);
        if (r.p.class_weights) /* not part of the denominator of probabilities */
            by_probability.denominator = by_index.denominator;
        expect_same_outcome(&r, &by_probability, &by_index);
        /* And a single label of probability 1. */
        void *ones = numbers_new(dtype, MAX_ROWS);
        for (size_t i = 0; i < r.rows; i++)
            number_put(dtype, ones, i, 1);
        use_targets(&r);
        r.p.probabilities = ones;
        run(&r, &by_probability);
        if (r.p.class_weights)
            by_probability.denominator = by_index.denominator;
        expect_same_outcome(&r, &by_probability, &by_index);
        free(ones);
        problem_free(&r);
    }
    outcome_free(&by_index);
    outcome_free(&by_probability);
}

static void permute(struct rng *rng, size_t *order, size_t count)
{
    for (size_t j = 0; j < count; j++)
        order[j] = j;
    for (size_t j = count; j > 1; j--) {
        const size_t k = rng_below(rng, j), kept = order[j - 1];
        order[j - 1] = order[k];
        order[k] = kept;
    }
}

static void permute_rows(xent_dtype dtype, const size_t *order, void *array, size_t rows, size_t classes)
{
    double row[MAX_CLASSES];
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < classes; j++)
            row[j] = number_get(dtype, array, i * classes + order[j]);
        for (size_t j = 0; j < classes; j++)
            number_put(dtype, array, i * classes + j, row[j]);
    }
}

static void permuted_classes(const char *isa, xent_dtype dtype)
{
    struct outcome before = outcome_new(dtype), after = outcome_new(dtype);
    for (size_t n = 0; n < scaled(40); n++) {
        struct rng rng = rng_stream(0x7300 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_random_options(&rng, &r);
        name_case("permuted classes, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        run(&r, &before);
        double sums[MAX_ROWS], largest = 0;
        for (size_t i = 0; i < r.rows; i++) {
            double t[MAX_CLASSES];
            sums[i] = row_distribution(&r, i, t) ? sum_of(t, r.classes) : 0;
        }
        for (size_t i = 0; i < r.rows * r.classes; i++)
            largest = fmax(largest, fabs(number_get(dtype, r.logits, i)));
        size_t order[MAX_CLASSES];
        permute(&rng, order, r.classes);
        permute_rows(dtype, order, r.logits, r.rows, r.classes);
        permute_rows(dtype, order, r.probabilities, r.rows, r.classes);
        permute_rows(dtype, order, r.class_weights, 1, r.classes);
        for (size_t i = 0; i < r.rows; i++)
            for (size_t j = 0; r.targets[i] >= 0 && j < r.classes; j++)
                if (order[j] == (size_t)r.targets[i]) {
                    r.targets[i] = (int32_t)j;
                    break;
                }
        run(&r, &after);
        permute_rows(dtype, order, before.grad, r.rows, r.classes);
        for (size_t i = 0; i < r.rows; i++) {
            const double unit = number_ulp(dtype, 1), loss = number_get(dtype, before.loss, i);
            const double bound = 4 * number_ulp(dtype, loss) + 2 * (unit + 0x1p-48 * largest) * sums[i];
            if (!(fabs(number_get(dtype, after.loss, i) - loss) <= bound))
                fail_case("row %zu: loss %a, %a before", i, number_get(dtype, after.loss, i), loss);
            for (size_t j = 0; j < r.classes; j++) {
                const double g = number_get(dtype, after.grad, i * r.classes + j);
                const double expected = number_get(dtype, before.grad, i * r.classes + j);
                const double term = sums[i] * fabs(factor_of_gradient(&r, i));
                if (!(fabs(g - expected) <= 6 * number_ulp(dtype, fmax(fabs(expected), term))))
                    fail_case("row %zu: gradient of class %zu is %a, %a before", i, j, g, expected);
            }
        }
        problem_free(&r);
    }
    outcome_free(&before);
    outcome_free(&after);
}

/* An option at a value that asks for nothing is as if it were not there. */
static void neutral_options(const char *isa, xent_dtype dtype)
{
    struct outcome plain = outcome_new(dtype), with = outcome_new(dtype);
    void *ones = numbers_new(dtype, MAX_NUMBERS);
    for (size_t i = 0; i < MAX_NUMBERS; i++)
        number_put(dtype, ones, i, 1);
    for (size_t n = 0; n < scaled(30); n++) {
        struct rng rng = rng_stream(0x7400 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_targets(&r);
        r.p.reduction = (xent_reduction)(n % 3);
        name_case("neutral options, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        run(&r, &plain);
        const struct random_problem bare = r;
        for (int option = 0; option < 6; option++) {
            r = bare;
            name_detail("option %d", option);
            r.p.label_smoothing = option == 0 ? -0.0 : 0;
            r.p.class_weights = option == 1 ? ones : NULL;
            r.p.row_weights = option == 2 ? ones : NULL;
            r.p.dloss = option == 3 ? ones : NULL;
            r.p.probabilities = option == 4 ? ones : NULL;
            r.p.normalizer = option == 5 ? plain.denominator : 0;
            run(&r, &with);
            expect_same_outcome(&r, &with, &plain);
        }
        r = bare;
        problem_free(&r);
    }
    free(ones);
    outcome_free(&plain);
    outcome_free(&with);
}

/* Rows [first, last) of a problem without gaps. */
static void take_rows(const struct random_problem *r, xent_problem *p, size_t first, size_t last)
{
    const size_t size = dtype_size(p->dtype);
    p->outer = last - first;
    p->logits = (const char *)p->logits + first * r->classes * size;
    p->targets = p->target_type == XENT_PROBABILITIES
                     ? (const void *)((const char *)p->targets + first * r->classes * size)
                     : (const void *)((const int32_t *)p->targets + first);
    p->row_weights = p->row_weights ? (const char *)p->row_weights + first * size : NULL;
    p->dloss = p->dloss ? (const char *)p->dloss + first * size : NULL;
}

static void split_batches(const char *isa, xent_dtype dtype)
{
    struct outcome whole = outcome_new(dtype), parts = outcome_new(dtype);
    const size_t size = dtype_size(dtype);
    for (size_t n = 0; n < scaled(40); n++) {
        struct rng rng = rng_stream(0x7500 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_random_options(&rng, &r);
        /* A mean by the same number everywhere is the one reduction whose gradient can be split. */
        const double normalizer = rng_chance(&rng, 0.5) ? 37 : 0;
        name_case("split batches, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        run(&r, &whole);
        if (normalizer > 0) {
            r.p.reduction = XENT_MEAN;
            r.p.normalizer = normalizer;
            run(&r, &whole);
        }
        size_t kept = 0;
        for (size_t first = 0, last; first < r.rows; first = last) {
            last = first + 1 + rng_below(&rng, r.rows - first);
            xent_problem p = r.p;
            take_rows(&r, &p, first, last);
            size_t kept_here;
            p.reduction = r.p.reduction;
            p.loss = p.reduction == XENT_NONE ? (void *)((char *)parts.loss + first * size) : parts.reduced;
            p.lse = (char *)parts.lse + first * size;
            p.grad = (char *)parts.grad + first * r.classes * size;
            p.kept_rows = &kept_here;
            compute(&p, "a part");
            kept += kept_here;
        }
        if (kept != whole.kept_rows)
            fail_case("the parts kept %zu rows, the whole %zu", kept, whole.kept_rows);
        if (r.p.reduction == XENT_NONE)
            expect_same_numbers(dtype, "loss", parts.loss, whole.loss, r.rows);
        expect_same_numbers(dtype, "lse", parts.lse, whole.lse, r.rows);
        expect_same_numbers(dtype, "gradient", parts.grad, whole.grad, r.rows * r.classes);
        problem_free(&r);
    }
    outcome_free(&whole);
    outcome_free(&parts);
}

static void forward_and_backward_apart(const char *isa, xent_dtype dtype)
{
    struct outcome fused = outcome_new(dtype), apart = outcome_new(dtype);
    for (size_t n = 0; n < scaled(60); n++) {
        struct rng rng = rng_stream(0x7600 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_random_options(&rng, &r);
        r.p.reduction = (xent_reduction)(n % 3);
        name_case("forward and backward apart, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        run(&r, &fused);
        apart.kept_rows = fused.kept_rows;
        apart.denominator = fused.denominator;
        xent_problem forward = r.p;
        forward.dloss = NULL;
        forward.loss = r.p.reduction == XENT_NONE ? apart.loss : apart.reduced;
        forward.lse = apart.lse;
        compute(&forward, "forward");
        xent_problem backward = r.p;
        backward.grad = apart.grad;
        compute(&backward, "backward");
        expect_same_outcome(&r, &apart, &fused);
        /* The log-sum-exp alone, and the backward in place. */
        xent_problem only = r.p;
        only.lse = apart.lse;
        compute(&only, "the log-sum-exp alone");
        memcpy(apart.grad, r.logits, r.rows * r.classes * dtype_size(dtype));
        backward.logits = apart.grad;
        compute(&backward, "backward in place");
        expect_same_outcome(&r, &apart, &fused);
        problem_free(&r);
    }
    outcome_free(&fused);
    outcome_free(&apart);
}

static void types_of_labels(const char *isa, xent_dtype dtype)
{
    struct outcome expected = outcome_new(dtype), got = outcome_new(dtype);
    for (size_t n = 0; n < scaled(40); n++) {
        struct rng rng = rng_stream(0x7700 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_random_options(&rng, &r);
        if (r.classes > 250)
            r.classes = r.p.classes = 250;
        use_targets(&r);
        r.p.ignore_index = 251;
        r.p.reduction = (xent_reduction)(n % 3);
        name_case("types of labels, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        int64_t i64[MAX_ROWS];
        uint8_t u8[MAX_ROWS];
        uint16_t u16[MAX_ROWS];
        const size_t only = rng_below(&rng, r.rows / 8 + 1) * 8; /* a batch is taken as a whole if it ignores nothing */
        for (size_t i = 0; i < r.rows; i++) {
            const bool ignored = n % 2 == 0 ? i == only : rng_chance(&rng, 0.2);
            r.targets[i] = ignored ? 251 : (int32_t)rng_below(&rng, r.classes);
            i64[i] = r.targets[i];
            u8[i] = (uint8_t)r.targets[i];
            u16[i] = (uint16_t)r.targets[i];
        }
        run(&r, &expected);
        const void *const arrays[] = {i64, u8, u16};
        const xent_targets types[] = {XENT_LABELS_I64, XENT_LABELS_U8, XENT_LABELS_U16};
        for (size_t k = 0; k < 3; k++) {
            name_detail("type %d", (int)types[k]);
            r.p.target_type = types[k];
            r.p.targets = arrays[k];
            run(&r, &got);
            expect_same_outcome(&r, &got, &expected);
        }
        problem_free(&r);
    }
    outcome_free(&expected);
    outcome_free(&got);
}

/* A row that counts nothing has no gradient, whatever the sign of what comes after. */
static void nothing_has_no_gradient(const char *isa, xent_dtype dtype)
{
    struct outcome o = outcome_new(dtype);
    for (size_t n = 0; n < scaled(40); n++) {
        struct rng rng = rng_stream(0x7800 + n);
        struct random_problem r = problem_new(&rng, dtype);
        use_targets(&r);
        name_case("rows that count nothing, %s, %s, problem %zu", isa, dtype_name(dtype), n);
        for (size_t j = 0; j < r.classes; j++)
            number_put(dtype, r.class_weights, j, 0);
        for (size_t i = 0; i < r.rows * r.classes; i++)
            number_put(dtype, r.probabilities, i, 0);
        r.p.dloss = r.dloss;
        if (n % 2 == 0)
            r.p.class_weights = r.class_weights;
        else
            use_probabilities(&r);
        r.p.reduction = n % 4 < 2 ? XENT_NONE : XENT_SUM;
        run(&r, &o);
        for (size_t i = 0; i < r.rows * r.classes; i++)
            if (number_get(dtype, o.grad, i) != 0)
                fail_case("gradient[%zu] is %a", i, number_get(dtype, o.grad, i));
        problem_free(&r);
    }
    outcome_free(&o);
}

static void (*const properties[])(const char *isa, xent_dtype dtype) = {
    gradients_sum_to_zero, gradient_is_the_derivative, one_hot_is_an_index, permuted_classes,        neutral_options,
    split_batches,         forward_and_backward_apart, types_of_labels,     nothing_has_no_gradient,
};

START_TEST(property)
{
    for_each_kernel(properties[_i]);
}
END_TEST

void add_property_tests(TCase *test_case)
{
    tcase_add_loop_test(test_case, property, 0, (int)(sizeof properties / sizeof properties[0]));
}
