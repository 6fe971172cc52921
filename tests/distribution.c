/*
 * Targets that are not all in one class: label smoothing and class weights, against their definition in double and with
 * the same bits from every kernel, in place and out of place, on one thread and in tasks.
 */
#include "plain.h"
#include "rows.h"
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_ROWS = 40, MAX_CLASSES = 20000 };

struct problem {
    size_t rows, classes;
    float *logits, *weights; /* weights: NULL, or [classes] */
    int32_t *targets;
    float smoothing;
};

struct outcome {
    float loss[MAX_ROWS], lse[MAX_ROWS], reduced;
    float *grad;
};

static const float smoothings[] = {0.0f, 0.1f, 0.5f, 1.0f, 1e-3f};

static struct problem problem_new(size_t rows, size_t classes)
{
    return (struct problem){.rows = rows,
                            .classes = classes,
                            .logits = allocate(rows * classes * sizeof(float)),
                            .weights = allocate(classes * sizeof(float)),
                            .targets = allocate(rows * sizeof(int32_t))};
}

static void problem_free(struct problem *p)
{
    free(p->logits);
    free(p->weights);
    free(p->targets);
}

/* Weights over three orders of magnitude, one in five of them 0; one row in six ignored. */
static void problem_fill(struct problem *p, struct rng *rng, float spread, float offset)
{
    for (size_t i = 0; i < p->rows * p->classes; i++)
        p->logits[i] = rng_normal(rng) * spread + offset;
    for (size_t j = 0; j < p->classes; j++)
        p->weights[j] = rng_chance(rng, 0.2) ? 0.0f : (float)exp(rng_uniform(rng, -4.0, 3.0));
    for (size_t i = 0; i < p->rows; i++)
        p->targets[i] = rng_chance(rng, 1.0 / 6) ? -100 : (int32_t)rng_below(rng, p->classes);
}

static void run_backwards(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context;
    while (tasks-- > 0)
        task(argument, tasks);
}

static xent_options options_of(const struct problem *p, xent_reduction reduction, bool weighted)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = reduction;
    options.label_smoothing = p->smoothing;
    options.class_weights = weighted ? p->weights : NULL;
    return options;
}

static void run(const struct problem *p, xent_reduction reduction, bool weighted, bool in_place,
                const xent_executor *executor, struct outcome *out)
{
    xent_options options = options_of(p, reduction, weighted);
    options.executor = executor;
    options.lse = out->lse;
    const float *logits = p->logits;
    if (in_place) {
        memcpy(out->grad, p->logits, p->rows * p->classes * sizeof(float));
        logits = out->grad;
    }
    float *loss = reduction == XENT_NONE ? out->loss : &out->reduced;
    expect_status("fused", xent_fused_f32(logits, p->targets, p->rows, p->classes, loss, out->grad, &options), XENT_OK);
}

static double weight(const struct problem *p, bool weighted, size_t j)
{
    return weighted ? (double)p->weights[j] : 1.0;
}

/* One row against the definition; loss may be NULL. The gradient's two terms are compared apart, as they may cancel. */
static void expect_row(const struct problem *p, size_t i, bool weighted, double scale, const float *loss,
                       const float *grad)
{
    const float *x = p->logits + i * p->classes;
    if (p->targets[i] == -100) {
        if (loss)
            expect_bits("an ignored row's loss", *loss, 0.0f);
        for (size_t j = 0; j < p->classes; j++)
            expect_bits("an ignored row's gradient", grad[j], 0.0f);
        return;
    }
    const size_t y = (size_t)p->targets[i];
    struct plain row = plain_row(x, p->classes);
    const double smoothing = (double)p->smoothing, share = smoothing / (double)p->classes, lse = plain_lse(&row);
    const double own = (1 - smoothing) * weight(p, weighted, y);
    double total = own, exact = own * plain_loss(&row, y), largest = 0;
    for (size_t j = 0; j < p->classes; j++) {
        const double w = weight(p, weighted, j);
        total += share * w;
        if (share * w > 0)
            exact += share * w * (lse - (double)x[j]);
        largest = fmax(largest, fabs((double)x[j]));
    }
    const double slack = p->smoothing > 0 ? total * (0x1p-23 + largest * 0x1p-48) : 0;
    if (loss && !(fabs((double)*loss - exact) <= slack))
        expect_within("loss", *loss, exact, 2.0);
    for (size_t j = 0; j < p->classes; j++) {
        const double taken = share * weight(p, weighted, j) + (j == y ? own : 0);
        const double given = total * plain_prob(&row, j), value = scale * (given - taken);
        const double unit = fmax(given, taken) * scale * 0x1p-23;
        if (j == y && p->smoothing == 0)
            expect_within("target's gradient", grad[j], scale * own * plain_gradient(&row, y, y), 3.0);
        else if (fabs((double)grad[j] - value) > 3 * fmax(unit, 0x1p-149))
            fail_case("gradient %zu: got %a, exact %a, in units of the larger term %.2f", j, (double)grad[j], value,
                      fabs((double)grad[j] - value) / unit);
    }
}

static void expect_same_floats(const char *what, const float *got, const float *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (float_bits(got[i]) != float_bits(expected[i]) && !(got[i] != got[i] && expected[i] != expected[i]))
            fail_case("%s %zu: got %a, expected %a", what, i, (double)got[i], (double)expected[i]);
}

static void expect_same_outcome(const struct problem *p, xent_reduction reduction, const struct outcome *got,
                                const struct outcome *expected)
{
    if (reduction == XENT_NONE)
        expect_same_floats("loss", got->loss, expected->loss, p->rows);
    else
        expect_same_floats("reduced loss", &got->reduced, &expected->reduced, 1);
    expect_same_floats("lse", got->lse, expected->lse, p->rows);
    expect_same_floats("gradient", got->grad, expected->grad, p->rows * p->classes);
}

/* Every kernel, place and number of threads against the scalar kernel out of place. */
static void check_bits(const struct problem *p, xent_reduction reduction, bool weighted, struct outcome *expected,
                       struct outcome *got)
{
    static const size_t threads[] = {0, 1, 2, 3, 16};
    use_kernel("scalar");
    run(p, reduction, weighted, false, NULL, expected);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
            const xent_executor executor = {run_backwards, NULL, threads[t]};
            name_detail("%s, %zu threads", *isa, threads[t]);
            run(p, reduction, weighted, t % 2 == 1, threads[t] ? &executor : NULL, got);
            expect_same_outcome(p, reduction, got, expected);
        }
    }
}

START_TEST(definition)
{
    static const size_t sizes[] = {1, 2, 3, 10, 27, 31, 32, 33, 64, 65, 100, 128, 500, 513, 1000, 8192, 8200, 16400};
    static const float spreads[] = {1, 3, 30, 3, 3}, offsets[] = {0, 0, 0, 10000, -700};
    struct rng rng = rng_stream(40);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t rows = sizes[s] > 1000 ? 3 : 19;
        struct problem p = problem_new(rows, sizes[s]);
        struct outcome expected = {.grad = allocate(rows * sizes[s] * sizeof(float))}, got = expected;
        got.grad = allocate(rows * sizes[s] * sizeof(float));
        for (size_t k = 0; k < 5 * 5 * 2; k++) {
            if (!scaled_chance(&rng))
                continue;
            const bool weighted = k % 2;
            p.smoothing = smoothings[k / 2 % 5];
            problem_fill(&p, &rng, spreads[k / 10], offsets[k / 10]);
            name_case("%zu rows of %zu classes, smoothing %g, %s, normal * %g + %g", rows, sizes[s],
                      (double)p.smoothing, weighted ? "weighted" : "no weights", (double)spreads[k / 10],
                      (double)offsets[k / 10]);
            check_bits(&p, XENT_NONE, weighted, &expected, &got);
            for (size_t i = 0; i < rows; i++)
                expect_row(&p, i, weighted, 1, &expected.loss[i], expected.grad + i * p.classes);

            double losses = 0, weights = 0;
            for (size_t i = 0; i < rows; i++) {
                losses += (double)expected.loss[i];
                weights += p.targets[i] == -100 ? 0 : weight(&p, weighted, (size_t)p.targets[i]);
            }
            check_bits(&p, XENT_SUM, weighted, &expected, &got);
            expect_within("sum", expected.reduced, losses, 4.0);
            check_bits(&p, XENT_MEAN, weighted, &expected, &got);
            if (weights > 0) {
                expect_within("mean", expected.reduced, losses / weights, 4.0);
                for (size_t i = 0; i < rows; i++)
                    if (p.targets[i] != -100)
                        expect_row(&p, i, weighted, 1 / weights, NULL, expected.grad + i * p.classes);
            }
        }
        free(expected.grad);
        free(got.grad);
        problem_free(&p);
    }
}
END_TEST

/* Hostile rows: masks, infinities, NaN; the bits must agree whatever they come to. */
START_TEST(hostile_rows)
{
    struct rng rng = rng_stream(41);
    for (size_t repeat = 0; repeat < scaled(60); repeat++) {
        const size_t classes = 1 + rng_below(&rng, repeat % 10 == 0 ? 20000 : 600), rows = 1 + rng_below(&rng, 20);
        struct problem p = problem_new(rows, classes);
        struct outcome expected = {.grad = allocate(rows * classes * sizeof(float))}, got = expected;
        got.grad = allocate(rows * classes * sizeof(float));
        problem_fill(&p, &rng, 1, 0);
        for (size_t i = 0; i < rows; i++)
            row_fill(&rng, rng_below(&rng, row_kinds), p.logits + i * classes, classes,
                     p.targets[i] < 0 ? 0 : (size_t)p.targets[i]);
        p.smoothing = smoothings[repeat % 5];
        name_case("hostile rows: %zu rows of %zu classes, repeat %zu", rows, classes, repeat);
        check_bits(&p, repeat % 2 ? XENT_NONE : XENT_MEAN, repeat % 3 > 0, &expected, &got);
        free(expected.grad);
        free(got.grad);
        problem_free(&p);
    }
}
END_TEST

/* Weights of 1 and smoothing of 0 change no bit. */
START_TEST(nothing_special)
{
    struct rng rng = rng_stream(42);
    struct problem p = problem_new(30, 50);
    struct outcome plain = {.grad = allocate(30 * 50 * sizeof(float))}, ones = plain;
    ones.grad = allocate(30 * 50 * sizeof(float));
    problem_fill(&p, &rng, 3, 0);
    for (size_t j = 0; j < p.classes; j++)
        p.weights[j] = 1;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (xent_reduction reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
            name_case("weights of 1, %s, reduction %d", *isa, (int)reduction);
            run(&p, reduction, false, false, NULL, &plain);
            run(&p, reduction, true, false, NULL, &ones);
            expect_same_outcome(&p, reduction, &ones, &plain);
        }
    }
    free(plain.grad);
    free(ones.grad);
    problem_free(&p);
}
END_TEST

/* The corners of the definition, from the formulas of torch.nn.CrossEntropyLoss. */
START_TEST(corners)
{
    const float x[3] = {1.0f, 2.0f, 3.0f}, weights[3] = {2.0f, 0.0f, 0.5f};
    const float masked[3] = {1.0f, -INFINITY, 3.0f};
    const int32_t first = 0, second = 1;
    const double lse = log(exp(1.0) + exp(2.0) + exp(3.0)), lse_masked = log(exp(1.0) + exp(3.0));
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        float loss, grad[3];
        xent_options options = XENT_OPTIONS_INIT;
        use_kernel(*isa);
        name_case("corners, %s", *isa);
        options.class_weights = weights;
        options.label_smoothing = 0.3f;
        const double s = (double)options.label_smoothing;
        const double spread = s / 3 * (2 * (lse - 1) + 0.5 * (lse - 3));
        expect_status("fused", xent_fused_f32(x, &first, 1, 3, &loss, grad, &options), XENT_OK);
        expect_within("a mean divides both terms by the target's weight", loss, ((1 - s) * 2 * (lse - 1) + spread) / 2,
                      2.0);
        expect_within("gradients add up to 0", (float)((double)grad[0] + (double)grad[1] + (double)grad[2] + 1), 1,
                      1.0);

        options.reduction = XENT_SUM;
        expect_status("fused", xent_fused_f32(masked, &first, 1, 3, &loss, grad, &options), XENT_OK);
        expect_within("a masked class without weight counts nothing", loss,
                      (1 - s) * 2 * (lse_masked - 1) + s / 3 * (2 * (lse_masked - 1) + 0.5 * (lse_masked - 3)), 2.0);
        expect_bits("its gradient", grad[1], 0.0f);
        options.class_weights = NULL;
        expect_status("fused", xent_fused_f32(masked, &first, 1, 3, &loss, grad, &options), XENT_OK);
        expect_bits("a masked class with weight", loss, INFINITY);
        expect_within("its gradient is what smoothing asks for", grad[1], -s / 3, 3.0);

        /* A target without weight. */
        options.class_weights = weights;
        options.label_smoothing = 0;
        expect_status("fused", xent_fused_f32(masked, &second, 1, 3, &loss, grad, &options), XENT_OK);
        expect_bits("no weight, no loss", loss, 0.0f);
        for (int j = 0; j < 3; j++)
            expect_bits("no weight, no gradient", grad[j], 0.0f);
        options.reduction = XENT_MEAN;
        expect_status("fused", xent_fused_f32(x, &second, 1, 3, &loss, grad, &options), XENT_OK);
        expect_nan("a mean over no weight", loss);
        for (int j = 0; j < 3; j++)
            expect_bits("its gradient", grad[j], 0.0f);
    }
}
END_TEST

/* What is left of a gradient whose multiplier is -0 or infinite, and of one that no float can hold, also where several
   tasks share a row. */
START_TEST(multipliers_of_any_size)
{
    static const size_t sizes[] = {5, 100, 20000};
    const xent_executor executor = {run_backwards, NULL, 8};
    for (const char *const *isa = xent_isas(); *isa; isa++)
        for (size_t s = 0; s < 3; s++)
            for (int parallel = 0; parallel < 2; parallel++)
                for (int labels = 1; labels < 3; labels++) {
                    enum { ROWS = 4 };
                    const size_t classes = sizes[s];
                    struct rng rng = rng_stream(61);
                    float *x = allocate(ROWS * classes * sizeof(float)),
                          *grad = allocate(ROWS * classes * sizeof(float)),
                          *tiny = allocate(ROWS * classes * sizeof(float));
                    const float weights[ROWS] = {-0.0f, -0.0f, -0.0f, -0.0f};
                    const int32_t targets[2 * ROWS] = {1, 2, 3, 4, 4, 3, 2, 1};
                    for (size_t i = 0; i < ROWS * classes; i++)
                        x[i] = rng_normal(&rng) * 3;
                    xent_problem p = XENT_PROBLEM_INIT;
                    p.outer = ROWS;
                    p.classes = classes;
                    p.logits = x;
                    p.grad = grad;
                    p.targets = targets;
                    p.labels = (size_t)labels;
                    p.executor = parallel ? &executor : NULL;
                    use_kernel(*isa);
                    name_case("%s, %zu classes, %d labels, executor %d", *isa, classes, labels, parallel);

                    p.dloss = weights;
                    expect_status("dloss of -0", xent_cross_entropy(&p), XENT_OK);
                    for (size_t i = 0; i < ROWS * classes; i++)
                        expect_bits("gradient", grad[i], 0.0f);

                    const float infinite[ROWS] = {INFINITY, -INFINITY, -INFINITY, INFINITY};
                    p.dloss = infinite;
                    expect_status("infinite dloss", xent_cross_entropy(&p), XENT_OK);
                    for (size_t i = 0; labels == 1 && i < ROWS; i++)
                        for (size_t j = 0; j < classes; j++)
                            expect_bits("gradient", grad[i * classes + j],
                                        (size_t)targets[i] == j ? -infinite[i] : infinite[i]);

                    /* Nearly as with a normalizer of 1, times a power of two: products are in double then. */
                    p.dloss = NULL;
                    p.normalizer = 1;
                    expect_status("usual normalizer", xent_cross_entropy(&p), XENT_OK);
                    p.grad = tiny;
                    p.normalizer = 0x1p-126;
                    expect_status("tiny normalizer", xent_cross_entropy(&p), XENT_OK);
                    for (size_t e = 0; e < ROWS * classes; e++)
                        expect_within("gradient", tiny[e], ldexp((double)grad[e], 126), 3);
                    free(x);
                    free(grad);
                    free(tiny);
                }
}
END_TEST

/* Row weights of which stretches are negative, so that kernels take some batches of a call in one way and some in
   another: each row must have the bits it has alone. */
START_TEST(kinds_of_rows)
{
    enum { ROWS = 128, MOST = 700, STRETCHES = 4 };
    static float x[ROWS * MOST], grad[ROWS * MOST], weights[MOST], row_weights[ROWS], alone[MOST];
    static int32_t targets[ROWS];
    struct rng rng = rng_stream(62);
    for (int round = 0; round < 12; round++) {
        const size_t classes = (size_t[]){97, 160, 513, MOST}[round % 4];
        for (size_t i = 0; i < ROWS * classes; i++)
            x[i] = 3 * rng_normal(&rng);
        for (size_t j = 0; j < classes; j++)
            weights[j] = (float)rng_uniform(&rng, 0.5, 1.5);
        for (size_t i = 0; i < ROWS; i++) {
            targets[i] = (int32_t)rng_below(&rng, classes);
            row_weights[i] = i * STRETCHES / ROWS % 2 == (size_t)round % 2 ? 1.5f : -0.75f;
        }
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            use_kernel(*isa);
            name_case("%s, round %d, %zu classes", *isa, round, classes);
            xent_problem p = XENT_PROBLEM_INIT;
            p.reduction = XENT_SUM;
            p.classes = classes;
            p.label_smoothing = round / 4 == 1 ? 0.1 : 0;
            p.class_weights = round / 4 == 2 ? weights : NULL;
            p.outer = ROWS;
            p.logits = x;
            p.grad = grad;
            p.targets = targets;
            p.row_weights = row_weights;
            expect_status("all rows", xent_cross_entropy(&p), XENT_OK);
            p.outer = 1;
            p.grad = alone;
            for (size_t i = 0; i < ROWS; i++) {
                p.logits = x + i * classes;
                p.targets = &targets[i];
                p.row_weights = &row_weights[i];
                expect_status("one row", xent_cross_entropy(&p), XENT_OK);
                for (size_t j = 0; j < classes; j++)
                    expect_bits("gradient", grad[i * classes + j], alone[j]);
            }
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("distribution");
    tcase_add_test(add_case(suite, "definition"), definition);
    tcase_add_test(add_case(suite, "hostile rows"), hostile_rows);
    tcase_add_test(add_case(suite, "nothing special"), nothing_special);
    tcase_add_test(add_case(suite, "corners"), corners);
    tcase_add_test(add_case(suite, "multipliers"), multipliers_of_any_size);
    tcase_add_test(add_case(suite, "kinds of rows"), kinds_of_rows);
    return run_suite(suite);
}
