/*
 * What a call means: the worked examples, the definitions of loss, gradient and reductions, and ignored rows.
 */
#include "meaning.h"

#include "guard.h"
#include "plain.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Every test of the suite runs once per kernel: its loop index is that of the kernel. */
void begin_meaning(const char *name, int kernel)
{
    const char *isa = xent_isas()[kernel];
    use_kernel(isa);
    name_case("%s, %s", name, isa);
}

int kernel_count(void)
{
    int count = 0;
    while (xent_isas()[count])
        count++;
    return count;
}

float one_loss(const float *logits, size_t classes, int32_t target, float *grad)
{
    float loss;
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    expect_status("xent_fused_f32", xent_fused_f32(logits, &target, 1, classes, &loss, grad, &options), XENT_OK);
    return loss;
}

/* Fails unless text, which has some 8 digits, is the exact value, and the library's result is within 2 ULP of it. */
static void expect_example(const float *logits, size_t classes, int32_t target, double text)
{
    struct plain row = plain_row(logits, classes);
    double exact = plain_loss(&row, (size_t)target);
    ck_assert_double_eq_tol(exact / text, 1.0, 5e-8);
    expect_within("worked example", one_loss(logits, classes, target, NULL), exact, 2.0);
}

START_TEST(worked_examples)
{
    begin_meaning("worked examples", _i);
    expect_example((const float[]){4, 3, 2, 10}, 4, 3, 0.0037191721);
    expect_example((const float[]){20, 2, 3, 4}, 4, 3, 16.000000169);
    expect_example((const float[]){4, 3, 2, 20}, 4, 3, 1.6916452e-07);

    /* The positions of the (2, 4, 2) batch, a row each. */
    expect_example((const float[]){4, 3, 2, 2}, 4, 3, 2.4938117);
    expect_example((const float[]){4, 3, 2, 20}, 4, 3, 1.6916452e-07);
    expect_example((const float[]){20, 10, 3, 2}, 4, 0, 4.5455526e-05);
}
END_TEST

START_TEST(example_gradient)
{
    begin_meaning("gradient of p = (0.1, 0.7, 0.2)", _i);
    static const double expected[] = {-0.9, 0.7, 0.2};
    float logits[3] = {logf(0.1f), logf(0.7f), logf(0.2f)}, grad[3];
    float loss = one_loss(logits, 3, 0, grad);
    ck_assert_double_eq_tol((double)loss, -log(0.1), 1e-6);
    for (int j = 0; j < 3; j++)
        ck_assert_double_eq_tol((double)grad[j], expected[j], 3e-7);
}
END_TEST

/* A batch of 4 rows over 27 classes, each of whose results is also what the definition says. */
START_TEST(small_batch)
{
    enum { ROWS = 4, CLASSES = 27 };
    begin_meaning("4 rows of 27 classes", _i);
    struct rng rng = rng_stream(100);
    float logits[ROWS * CLASSES], probs[ROWS * CLASSES], log_probs[ROWS * CLASSES], grad[ROWS * CLASSES];
    float loss[ROWS], lse[ROWS], only_lse[ROWS], sum, mean;
    int32_t targets[ROWS];
    for (size_t j = 0; j < ROWS * CLASSES; j++)
        logits[j] = rng_normal(&rng) * 2.0f;
    for (size_t i = 0; i < ROWS; i++)
        targets[i] = (int32_t)rng_below(&rng, CLASSES);
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.lse = lse;
    expect_status("none", xent_fused_f32(logits, targets, ROWS, CLASSES, loss, grad, &options), XENT_OK);
    expect_status("softmax", xent_softmax_f32(logits, ROWS, CLASSES, 0, probs, 0), XENT_OK);
    expect_status("log-softmax", xent_log_softmax_f32(logits, ROWS, CLASSES, 0, log_probs, 0), XENT_OK);
    expect_status("logsumexp", xent_logsumexp_f32(logits, ROWS, CLASSES, 0, only_lse), XENT_OK);

    double exact_sum = 0.0;
    for (size_t i = 0; i < ROWS; i++) {
        size_t target = (size_t)targets[i], first = i * CLASSES;
        struct plain row = plain_row(logits + first, CLASSES);
        exact_sum += plain_loss(&row, target);
        expect_within("loss", loss[i], plain_loss(&row, target), 2.0);
        ck_assert_double_eq_tol((double)lse[i], plain_lse(&row), 3e-7);
        ck_assert_double_eq_tol((double)only_lse[i], plain_lse(&row), 3e-7);
        double prob_sum = 0.0, grad_sum = 0.0;
        for (size_t j = 0; j < CLASSES; j++) {
            prob_sum += (double)probs[first + j];
            grad_sum += (double)grad[first + j];
            expect_within("softmax", probs[first + j], plain_prob(&row, j), 3.0);
            expect_within("log-softmax", log_probs[first + j], -plain_loss(&row, j), 3.0);
            expect_within("gradient", grad[first + j], plain_gradient(&row, target, j), 3.0);
        }
        ck_assert_double_eq_tol(prob_sum, 1.0, 3.0 * 0x1p-23);
        ck_assert_double_eq_tol(grad_sum, 0.0, 6.0 * 0x1p-23);
    }

    options = (xent_options)XENT_OPTIONS_INIT;
    expect_status("mean", xent_fused_f32(logits, targets, ROWS, CLASSES, &mean, grad, &options), XENT_OK);
    expect_within("mean", mean, exact_sum / ROWS, 2.0);
    struct plain row = plain_row(logits, CLASSES);
    for (size_t j = 0; j < CLASSES; j++)
        expect_within("gradient of the mean", grad[j], plain_gradient(&row, (size_t)targets[0], j) / ROWS, 3.0);
    options.reduction = XENT_SUM;
    expect_status("sum", xent_fused_f32(logits, targets, ROWS, CLASSES, &sum, grad, &options), XENT_OK);
    expect_within("sum", sum, exact_sum, 2.0);
}
END_TEST

START_TEST(defaults)
{
    begin_meaning("no options are PyTorch's", _i);
    const float logits[] = {1, 2, 3, 3, 2, 1, 5, 5, 5};
    const int32_t targets[] = {0, -100, 2};
    float loss, expected, grad[9], expected_grad[9];
    xent_options options = XENT_OPTIONS_INIT;
    ck_assert_int_eq(options.reduction, XENT_MEAN);
    ck_assert_int_eq(options.ignore_index, -100);
    expect_status("NULL", xent_fused_f32(logits, targets, 3, 3, &loss, grad, NULL), XENT_OK);
    expect_status("defaults", xent_fused_f32(logits, targets, 3, 3, &expected, expected_grad, &options), XENT_OK);
    expect_bits("loss", loss, expected);
    ck_assert_mem_eq(grad, expected_grad, sizeof grad);
    struct plain first = plain_row(logits, 3), last = plain_row(logits + 6, 3);
    expect_within("mean of the two kept rows", loss, (plain_loss(&first, 0) + plain_loss(&last, 2)) / 2.0, 2.0);
}
END_TEST

/* Adding a constant to all logits changes nothing of loss and gradient as long as the sums are exact. */
START_TEST(shift_invariance)
{
    enum { CLASSES = 200 };
    static const float shifts[] = {1,   -1,   64,    -64,   100,    -100,    250,     -260,
                                   300, 1024, -1024, 10000, -10000, 0x1p17f, -0x1p17f};
    begin_meaning("shift invariance", _i);
    struct rng rng = rng_stream(101);
    for (size_t repeat = 0; repeat < scaled(60); repeat++) {
        size_t classes = 1 + rng_below(&rng, CLASSES), target = rng_below(&rng, classes);
        float logits[CLASSES], shifted[CLASSES], grad[CLASSES];
        for (size_t j = 0; j < classes; j++)
            logits[j] = (float)((double)rng_below(&rng, 1024) / 64.0 - 8.0);
        struct plain row = plain_row(logits, classes);
        for (size_t s = 0; s < sizeof shifts / sizeof shifts[0]; s++) {
            name_detail("repeat %zu: %zu classes, target %zu, shifted by %g", repeat, classes, target,
                        (double)shifts[s]);
            for (size_t j = 0; j < classes; j++) {
                shifted[j] = logits[j] + shifts[s];
                ck_assert(shifted[j] - shifts[s] == logits[j]);
            }
            expect_within("loss", one_loss(shifted, classes, (int32_t)target, grad), plain_loss(&row, target), 2.0);
            for (size_t j = 0; j < classes; j++)
                expect_within("gradient", grad[j], plain_gradient(&row, target, j), 3.0);
        }
    }
}
END_TEST

/* The gradient of any row adds up to nothing. */
START_TEST(gradient_sum)
{
    begin_meaning("gradient sums", _i);
    struct rng rng = rng_stream(102);
    for (size_t repeat = 0; repeat < scaled(300); repeat++) {
        size_t classes = 1 + rng_below(&rng, 1500), target = rng_below(&rng, classes);
        float scale = (const float[]){0.1f, 1.0f, 3.0f, 30.0f, 300.0f}[rng_below(&rng, 5)];
        name_detail("repeat %zu: %zu classes, target %zu, normal*%g", repeat, classes, target, (double)scale);
        float *x = allocate(classes * sizeof *x);
        for (size_t j = 0; j < classes; j++)
            x[j] = rng_normal(&rng) * scale;
        one_loss(x, classes, (int32_t)target, x);
        double sum = 0.0, absolute = 0.0;
        for (size_t j = 0; j < classes; j++) {
            sum += (double)x[j];
            absolute += fabs((double)x[j]);
            if ((j == target) != (x[j] < 0.0f) && x[j] != 0.0f)
                fail_case("class %zu has the wrong sign: %a", j, (double)x[j]);
        }
        if (!(fabs(sum) <= absolute * 3.0 * 0x1p-23))
            fail_case("the gradient sums to %a", sum);
        free(x);
    }
}
END_TEST

/* Rows of 5 in pages of their own; those ignored are unreadable. */
START_TEST(ignored_rows_are_not_read)
{
    enum { ROWS = 6, CLASSES = 5, STRIDE = 1 << 16 };
    static const int64_t ignore_indices[] = {-100, 3, 0, INT32_MIN, INT32_MAX};
    begin_meaning("ignored rows", _i);
    struct guarded pages = guard_new(ROWS * STRIDE * sizeof(float));
    float *logits = (float *)(void *)pages.first;
    for (size_t n = 0; n < sizeof ignore_indices / sizeof ignore_indices[0]; n++) {
        int64_t ignore_index = ignore_indices[n];
        name_detail("ignore_index %" PRId64, ignore_index);
        int32_t targets[ROWS];
        guard_unlock(&pages);
        for (size_t i = 0; i < ROWS; i++) {
            targets[i] = i % 2 ? (int32_t)ignore_index : 2;
            for (size_t j = 0; j < CLASSES; j++)
                logits[i * STRIDE + j] = (float)(i + j);
        }
        for (size_t i = 1; i < ROWS; i += 2) {
            struct guarded row = {.first = (unsigned char *)(logits + i * STRIDE), .bytes = STRIDE * sizeof(float)};
            guard_lock(&row);
        }
        float loss[ROWS], lse[ROWS], grad[ROWS * CLASSES], mean;
        xent_options options = XENT_OPTIONS_INIT;
        options.reduction = XENT_NONE;
        options.ignore_index = ignore_index;
        options.logits_stride = STRIDE;
        options.lse = lse;
        memset(grad, 0xff, sizeof grad);
        expect_status("none", xent_fused_f32(logits, targets, ROWS, CLASSES, loss, grad, &options), XENT_OK);
        struct plain row = plain_row(logits, CLASSES);
        for (size_t i = 0; i < ROWS; i++) {
            if (i % 2 == 0) {
                expect_within("kept loss", loss[i], plain_loss(&row, 2), 2.0);
                continue;
            }
            expect_bits("ignored loss", loss[i], 0.0f);
            expect_bits("ignored lse", lse[i], 0.0f);
            for (size_t j = 0; j < CLASSES; j++)
                expect_bits("ignored gradient", grad[i * CLASSES + j], 0.0f);
        }
        options.reduction = XENT_MEAN;
        expect_status("mean", xent_fused_f32(logits, targets, ROWS, CLASSES, &mean, grad, &options), XENT_OK);
        expect_within("mean over the kept rows", mean, plain_loss(&row, 2), 2.0);
        for (size_t j = 0; j < CLASSES; j++)
            expect_within("its gradient", grad[j], plain_gradient(&row, 2, j) / 3.0, 3.0);
    }
    guard_free(&pages);
}
END_TEST

START_TEST(ignored_nan_in_place)
{
    begin_meaning("ignored rows of NaN, in place", _i);
    float x[] = {NAN, INFINITY, NAN, 1, 2, 3, -INFINITY, -INFINITY, NAN};
    float loss[3] = {1, 1, 1};
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    expect_status("none", xent_fused_f32(x, (const int32_t[]){-100, 0, -100}, 3, 3, loss, x, &options), XENT_OK);
    for (size_t j = 0; j < 3; j++) {
        expect_bits("ignored gradient", x[j], 0.0f);
        expect_bits("ignored gradient", x[6 + j], 0.0f);
    }
    expect_bits("ignored loss", loss[0], 0.0f);
    expect_bits("ignored loss", loss[2], 0.0f);
    expect_finite("loss[1]", loss[1]);
}
END_TEST

START_TEST(all_ignored)
{
    begin_meaning("all rows ignored", _i);
    const float logits[] = {1, 2, NAN, 4, 5, 6};
    const int32_t targets[] = {7, 7};
    float loss[2] = {9, 9}, grad[6], lse[2];
    xent_options options = XENT_OPTIONS_INIT;
    options.ignore_index = 7;
    options.lse = lse;
    for (int reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
        options.reduction = (xent_reduction)reduction;
        memset(grad, 0xff, sizeof grad);
        memset(lse, 0xff, sizeof lse);
        expect_status("all ignored", xent_fused_f32(logits, targets, 2, 3, loss, grad, &options), XENT_OK);
        if (reduction == XENT_MEAN)
            expect_nan("loss[0]", loss[0]);
        else
            expect_bits("loss", loss[0], 0.0f);
        for (size_t j = 0; j < 6; j++)
            expect_bits("gradient", grad[j], 0.0f);
        expect_bits("lse", lse[0], 0.0f);
        expect_bits("lse", lse[1], 0.0f);
    }
    expect_bits("loss", loss[1], 0.0f);
}
END_TEST

START_TEST(no_rows)
{
    begin_meaning("no rows", _i);
    float loss = 5, canary = 6;
    xent_options options = XENT_OPTIONS_INIT;
    expect_status("mean", xent_fused_f32(NULL, NULL, 0, 3, &loss, NULL, NULL), XENT_OK);
    expect_nan("loss", loss);
    options.reduction = XENT_SUM;
    expect_status("sum", xent_fused_f32(NULL, NULL, 0, 3, &loss, &canary, &options), XENT_OK);
    expect_bits("sum", loss, 0.0f);
    options.reduction = XENT_NONE;
    options.lse = &canary;
    loss = 5;
    expect_status("none", xent_fused_f32(NULL, NULL, 0, 0, &loss, &canary, &options), XENT_OK);
    expect_bits("none", loss, 5.0f);
    expect_status("none, 64-bit", xent_fused_f32_i64(NULL, NULL, 0, 0, &loss, NULL, &options), XENT_OK);
    expect_status("softmax", xent_softmax_f32(NULL, 0, 3, 0, &canary, 0), XENT_OK);
    expect_status("log-softmax", xent_log_softmax_f32(NULL, 0, 3, 0, &canary, 0), XENT_OK);
    expect_status("logsumexp", xent_logsumexp_f32(NULL, 0, 3, 0, &canary), XENT_OK);
    expect_bits("other outputs", canary, 6.0f);
}
END_TEST

START_TEST(wide_targets)
{
    begin_meaning("64-bit targets", _i);
    const float logits[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    const int64_t ignore = INT64_C(1) << 40;
    const int64_t targets[] = {2, ignore, 0};
    float loss[3], grad[9];
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.ignore_index = ignore;
    expect_status("none", xent_fused_f32_i64(logits, targets, 3, 3, loss, grad, &options), XENT_OK);
    struct plain row = plain_row(logits, 3);
    expect_within("loss", loss[0], plain_loss(&row, 2), 2.0);
    expect_bits("ignored loss", loss[1], 0.0f);
    expect_within("loss", loss[2], plain_loss(&row, 0), 2.0);
    expect_within("gradient", grad[2], plain_gradient(&row, 2, 2), 3.0);
    expect_bits("ignored gradient", grad[3], 0.0f);
}
END_TEST

int main(void)
{
    static const TTest *const *const tests[] = {
        &worked_examples,           &example_gradient,     &small_batch, &defaults, &shift_invariance, &gradient_sum,
        &ignored_rows_are_not_read, &ignored_nan_in_place, &all_ignored, &no_rows,  &wide_targets};
    Suite *suite = suite_create("meaning");
    TCase *definitions = add_case(suite, "definitions");
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_loop_test(definitions, *tests[i], 0, kernel_count());
    add_special_tests(add_case(suite, "special values"));
    return run_suite(suite);
}
