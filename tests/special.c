/*
 * What a call means for infinities, NaN, masked classes, single classes and results at the ends of the float range.
 */
#include "meaning.h"
#include "plain.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* Rows long enough that special values can be far from the start, and short ones. */
static const size_t sizes[] = {2, 5, 16, 33, 100, 600, 1100, 8300};
enum { SIZES = sizeof sizes / sizeof sizes[0], MAX_CLASSES = 8300 };

/* Positions to put something at: ends, middle, either side of a block's end. */
static size_t position(size_t classes, size_t which)
{
    const size_t positions[] = {0, classes - 1, classes / 2, classes > 512 ? 511 : 1, classes > 512 ? 512 : 1};
    return positions[which % 5];
}

static void ordinary(struct rng *rng, float *x, size_t classes)
{
    for (size_t j = 0; j < classes; j++)
        x[j] = rng_normal(rng);
}

START_TEST(single_class)
{
    begin_meaning("a single class", _i);
    static const float values[] = {0.0f,     1.0f,   -1.0f,   1e30f,   -1e30f, FLT_MAX,
                                   -FLT_MAX, 300.0f, -300.0f, FLT_MIN, 1e-40f};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        float grad, prob, log_prob, lse;
        name_detail("logit %a", (double)values[i]);
        expect_bits("loss", one_loss(&values[i], 1, 0, &grad), 0.0f);
        ck_assert(grad == 0.0f);
        expect_status("softmax", xent_softmax_f32(&values[i], 1, 1, 0, &prob, 0), XENT_OK);
        expect_within("probability", prob, 1.0, 3.0);
        expect_status("log-softmax", xent_log_softmax_f32(&values[i], 1, 1, 0, &log_prob, 0), XENT_OK);
        ck_assert(log_prob == 0.0f);
        expect_status("logsumexp", xent_logsumexp_f32(&values[i], 1, 1, 0, &lse), XENT_OK);
        ck_assert_double_eq_tol((double)lse, (double)values[i], 1.5 * 0x1p-24 + 0x1p-25 * fabs((double)values[i]));
    }
}
END_TEST

/* Masked classes count as if they were not there. */
START_TEST(masked_classes)
{
    begin_meaning("masked classes", _i);
    struct rng rng = rng_stream(110);
    float x[MAX_CLASSES], grad[MAX_CLASSES], probs[MAX_CLASSES], log_probs[MAX_CLASSES];
    for (size_t i = 0; i < SIZES; i++) {
        size_t classes = sizes[i];
        ordinary(&rng, x, classes);
        size_t target = rng_below(&rng, classes);
        for (size_t j = 0; j < classes; j++)
            if (j != target && rng_chance(&rng, 0.5))
                x[j] = -INFINITY;
        name_detail("%zu classes, target %zu", classes, target);
        struct plain row = plain_row(x, classes);
        expect_within("loss", one_loss(x, classes, (int32_t)target, grad), plain_loss(&row, target), 2.0);
        expect_status("softmax", xent_softmax_f32(x, 1, classes, 0, probs, 0), XENT_OK);
        expect_status("log-softmax", xent_log_softmax_f32(x, 1, classes, 0, log_probs, 0), XENT_OK);
        for (size_t j = 0; j < classes; j++) {
            if (x[j] == -INFINITY) {
                expect_bits("gradient of a masked class", grad[j], 0.0f);
                expect_bits("probability of a masked class", probs[j], 0.0f);
                expect_bits("log-probability of a masked class", log_probs[j], -INFINITY);
            } else {
                expect_within("gradient", grad[j], plain_gradient(&row, target, j), 3.0);
                expect_within("probability", probs[j], plain_prob(&row, j), 3.0);
                expect_within("log-probability", log_probs[j], -plain_loss(&row, j), 3.0);
            }
        }
    }
}
END_TEST

START_TEST(masked_target)
{
    begin_meaning("a masked target", _i);
    struct rng rng = rng_stream(111);
    float x[MAX_CLASSES], grad[MAX_CLASSES];
    for (size_t i = 0; i < SIZES * 5; i++) {
        size_t classes = sizes[i / 5], target = position(classes, i);
        ordinary(&rng, x, classes);
        x[target] = -INFINITY;
        name_detail("%zu classes, target %zu", classes, target);
        struct plain row = plain_row(x, classes);
        expect_bits("loss", one_loss(x, classes, (int32_t)target, grad), INFINITY);
        /* It has no probability to take away: all that is left of p - 1 there. */
        expect_within("gradient of the target", grad[target], -1.0, 3.0);
        for (size_t j = 0; j < classes; j++)
            if (j != target)
                expect_within("gradient", grad[j], plain_prob(&row, j), 3.0);
    }
}
END_TEST

/* Everything of the row is NaN, and nothing of the rows around it changes. */
static void expect_nan_row(struct rng *rng, size_t classes, const float *bad, size_t target)
{
    enum { ROWS = 3 };
    float *x = allocate(ROWS * classes * sizeof *x), *grad = allocate(ROWS * classes * sizeof *grad);
    float *clean_grad = allocate(ROWS * classes * sizeof *clean_grad),
          *other = allocate(ROWS * classes * sizeof *other);
    int32_t targets[ROWS] = {0, (int32_t)target, (int32_t)(classes - 1)};
    float loss[ROWS], lse[ROWS], clean_loss[ROWS], clean_lse[ROWS], only_lse[ROWS], mean;
    ordinary(rng, x, ROWS * classes);
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.lse = clean_lse;
    expect_status("clean", xent_fused_f32(x, targets, ROWS, classes, clean_loss, clean_grad, &options), XENT_OK);

    memcpy(x + classes, bad, classes * sizeof *x);
    options.lse = lse;
    expect_status("none", xent_fused_f32(x, targets, ROWS, classes, loss, grad, &options), XENT_OK);
    expect_nan("loss[1]", loss[1]);
    expect_nan("lse[1]", lse[1]);
    for (size_t j = 0; j < classes; j++)
        if (!isnan(grad[classes + j]))
            fail_case("gradient %zu is %a", j, (double)grad[classes + j]);
    for (size_t i = 0; i < ROWS; i += 2) {
        expect_bits("loss of another row", loss[i], clean_loss[i]);
        expect_bits("lse of another row", lse[i], clean_lse[i]);
        if (memcmp(grad + i * classes, clean_grad + i * classes, classes * sizeof *grad) != 0)
            fail_case("the gradient of row %zu changed", i);
    }
    expect_status("softmax", xent_softmax_f32(x, ROWS, classes, 0, other, 0), XENT_OK);
    for (size_t j = 0; j < classes; j++)
        if (!isnan(other[classes + j]) || isnan(other[j]) || isnan(other[2 * classes + j]))
            fail_case("probabilities %zu are %a, %a, %a", j, (double)other[j], (double)other[classes + j],
                      (double)other[2 * classes + j]);
    expect_status("log-softmax", xent_log_softmax_f32(x, ROWS, classes, 0, other, 0), XENT_OK);
    for (size_t j = 0; j < classes; j++)
        if (!isnan(other[classes + j]) || isnan(other[j]) || isnan(other[2 * classes + j]))
            fail_case("log-probabilities %zu are %a, %a, %a", j, (double)other[j], (double)other[classes + j],
                      (double)other[2 * classes + j]);
    expect_status("logsumexp", xent_logsumexp_f32(x, ROWS, classes, 0, only_lse), XENT_OK);
    expect_nan("only_lse[1]", only_lse[1]);
    expect_finite("only_lse[0]", only_lse[0]);
    expect_finite("only_lse[2]", only_lse[2]);
    expect_status("mean", xent_fused_f32(x, targets, ROWS, classes, &mean, NULL, NULL), XENT_OK);
    expect_nan("mean", mean);
    free(other);
    free(clean_grad);
    free(grad);
    free(x);
}

START_TEST(not_a_number)
{
    begin_meaning("rows with NaN or +inf", _i);
    struct rng rng = rng_stream(112);
    float bad[MAX_CLASSES];
    for (size_t i = 0; i < SIZES * 5; i++) {
        size_t classes = sizes[i / 5], at = position(classes, i);
        static const float values[] = {NAN, INFINITY};
        for (size_t v = 0; v < 2; v++) {
            for (size_t mode = 0; mode < 3; mode++) {
                size_t target = mode == 0 ? at : (at + mode) % classes;
                name_detail("%zu classes, target %zu, %g at %zu", classes, target, (double)values[v], at);
                ordinary(&rng, bad, classes);
                /* Not even a row of which nothing else is left, or next to it, hides it. */
                for (size_t j = 0; mode == 2 && j < classes; j++)
                    bad[j] = v == 0 ? -INFINITY : 1e30f;
                bad[at] = values[v];
                expect_nan_row(&rng, classes, bad, target);
            }
        }
    }
}
END_TEST

START_TEST(all_masked)
{
    begin_meaning("rows of -inf", _i);
    struct rng rng = rng_stream(113);
    float bad[MAX_CLASSES];
    for (size_t i = 0; i < SIZES; i++) {
        name_detail("%zu classes", sizes[i]);
        for (size_t j = 0; j < sizes[i]; j++)
            bad[j] = -INFINITY;
        expect_nan_row(&rng, sizes[i], bad, rng_below(&rng, sizes[i]));
    }
}
END_TEST

/* The dominant class's log-probability and loss are tiny, not 0; at last they round to 0. */
START_TEST(dominant_class)
{
    begin_meaning("a dominant class", _i);
    for (float gap = 0.5f; gap < 130.0f; gap += 0.5f) {
        float x[4] = {-gap, -gap, 0.0f, -gap}, log_probs[4], grad[4];
        name_detail("gap %g", (double)gap);
        struct plain row = plain_row(x, 4);
        expect_within("loss", one_loss(x, 4, 2, grad), plain_loss(&row, 2), 2.0);
        expect_within("gradient", grad[2], plain_gradient(&row, 2, 2), 3.0);
        expect_within("gradient", grad[0], plain_prob(&row, 0), 3.0);
        expect_status("log-softmax", xent_log_softmax_f32(x, 1, 4, 0, log_probs, 0), XENT_OK);
        expect_within("log-probability", log_probs[2], -plain_loss(&row, 2), 3.0);
        expect_within("log-probability", log_probs[0], -plain_loss(&row, 0), 3.0);
        if (gap >= 106.0f) {
            expect_bits("nothing left of the target's gradient", grad[2], 0.0f);
            expect_bits("nothing left of another one", grad[0], 0.0f);
        }
    }
}
END_TEST

START_TEST(huge_logits)
{
    begin_meaning("huge logits", _i);
    float grad[3];
    expect_within("equal", one_loss((const float[]){1e30f, 1e30f}, 2, 0, grad), log(2.0), 2.0);
    expect_within("gradient", grad[0], -0.5, 3.0);
    expect_within("gradient", grad[1], 0.5, 3.0);
    expect_within("far below", one_loss((const float[]){1e30f, 0.0f, -1e30f}, 3, 1, grad), (double)1e30f, 2.0);
    expect_within("gradient", grad[0], 1.0, 3.0);
    expect_within("gradient", grad[1], -1.0, 3.0);
    expect_bits("gradient", grad[2], 0.0f);
    expect_bits("at the top", one_loss((const float[]){1e30f, 0.0f, -1e30f}, 3, 0, grad), 0.0f);
    expect_within("largest", one_loss((const float[]){FLT_MAX, 0.0f}, 2, 1, NULL), (double)FLT_MAX, 2.0);
    expect_within("two largest", one_loss((const float[]){FLT_MAX, FLT_MAX}, 2, 1, NULL), log(2.0), 2.0);
    expect_within("two smallest", one_loss((const float[]){-FLT_MAX, -FLT_MAX}, 2, 1, NULL), log(2.0), 2.0);
    /* 2 FLT_MAX is past the float range. */
    expect_bits("past the range", one_loss((const float[]){FLT_MAX, -FLT_MAX}, 2, 1, grad), INFINITY);
    expect_within("its gradient", grad[0], 1.0, 3.0);
    expect_within("its gradient", grad[1], -1.0, 3.0);
}
END_TEST

/* Two equal classes and a masked one are the same at any magnitude, in steps finer than a factor of two of exp. */
START_TEST(every_magnitude)
{
    begin_meaning("two equal classes", _i);
    const double step = 1e-4 / fmin(1, test_scale());
    for (double magnitude = -3000.0; magnitude < 3e38; magnitude += fmax(0.3, fabs(magnitude) * step)) {
        float x[3] = {(float)magnitude, -INFINITY, (float)magnitude}, grad[3], probs[3];
        name_detail("magnitude %a", magnitude);
        expect_within("loss", one_loss(x, 3, 0, grad), log(2.0), 2.0);
        expect_status("softmax", xent_softmax_f32(x, 1, 3, 0, probs, 0), XENT_OK);
        for (int j = 0; j < 3; j++) {
            double prob = j == 1 ? 0.0 : 0.5;
            expect_within("gradient", grad[j], j == 0 ? -prob : prob, 3.0);
            expect_within("softmax", probs[j], prob, 3.0);
        }
        expect_within("loss of a pair", one_loss((const float[]){x[0], x[0]}, 2, 1, NULL), log(2.0), 2.0);
    }
}
END_TEST

void add_special_tests(TCase *test_case)
{
    static const TTest *const *const tests[] = {&single_class, &masked_classes, &masked_target, &not_a_number,
                                                &all_masked,   &dominant_class, &huge_logits,   &every_magnitude};
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_loop_test(test_case, *tests[i], 0, kernel_count());
}
