/*
 * Defects that users of other libraries have met, each named by its thread, and what xent does in its place. References
 * are the definition in long double, of the floats as they are.
 */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

enum { MOST_CLASSES = 32000 };

static long double largest(const float *x, size_t classes)
{
    long double max = (long double)x[0];
    for (size_t j = 1; j < classes; j++)
        max = (long double)x[j] > max ? (long double)x[j] : max;
    return max;
}

/* The sum of exp(x_j - from) but for one class. */
static long double others(const float *x, size_t classes, size_t skip, long double from)
{
    long double sum = 0;
    for (size_t j = 0; j < classes; j++)
        sum += j == skip ? 0 : expl((long double)x[j] - from);
    return sum;
}

static double exact_loss(const float *x, size_t classes, size_t y)
{
    const long double max = largest(x, classes), x_y = (long double)x[y];
    if (max == x_y)
        return (double)log1pl(others(x, classes, y, x_y));
    return (double)(max - x_y + logl(others(x, classes, SIZE_MAX, max)));
}

static double exact_gradient(const float *x, size_t classes, size_t y, size_t j)
{
    const long double max = largest(x, classes), sum = others(x, classes, SIZE_MAX, max);
    return (double)(j == y ? -others(x, classes, y, max) / sum : expl((long double)x[j] - max) / sum);
}

/* One row's loss, gradient and log-probabilities within the header's bounds; the target's class is y. */
static void expect_row(const float *x, size_t classes, size_t y)
{
    static float grad[MOST_CLASSES], log_probs[MOST_CLASSES];
    const int32_t target = (int32_t)y;
    float loss = -1;
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    expect_status("fused", xent_fused_f32(x, &target, 1, classes, &loss, grad, &options), XENT_OK);
    expect_status("log-softmax", xent_log_softmax_f32(x, 1, classes, 0, log_probs, 0), XENT_OK);
    expect_within("loss", loss, exact_loss(x, classes, y), 2);
    expect_within("target's log-probability", log_probs[y], -exact_loss(x, classes, y), 3);
    for (size_t j = 0; j < classes && j < 64; j++) {
        expect_within("gradient", grad[j], exact_gradient(x, classes, y, j), 3);
        expect_within("log-probability", log_probs[j], -exact_loss(x, classes, j), 3);
    }
}

/* A problem of the general call, one loss a row. */
static xent_problem general(size_t outer, size_t classes, size_t inner, const float *logits, const void *targets,
                            float *loss, float *grad)
{
    xent_problem p = XENT_PROBLEM_INIT;
    p.outer = outer;
    p.classes = classes;
    p.inner = inner;
    p.logits = logits;
    p.targets = targets;
    p.loss = loss;
    p.grad = grad;
    p.reduction = XENT_NONE;
    return p;
}

static void expect_same(const char *what, const float *got, const float *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        expect_bits(what, got[i], expected[i]);
}

/* Every test runs on every kernel: CASE is the kernel's name. */
#define EACH_KERNEL(isa)                                                                                               \
    for (const char *const *isa = xent_isas(); *isa && (use_kernel(*isa), name_case("%s", *isa), true); isa++)

/* log(sum exp) after the maximum's own 1 is in the sum cannot say how small the rest is: the largest class's
   log-probability came out 0 where it is as small as -2^-126. */
START_TEST(pytorch_113708)
{
    static const float epsilons[] = {2 * FLT_EPSILON, FLT_EPSILON, FLT_MIN};
    EACH_KERNEL(isa)
    {
        for (size_t i = 0; i < sizeof epsilons / sizeof *epsilons; i++) {
            const float x[] = {1 - logf(epsilons[i]), 0};
            float log_probs[2];
            expect_row(x, 2, 0);
            expect_status("log-softmax", xent_log_softmax_f32(x, 1, 2, 0, log_probs, 0), XENT_OK);
            ck_assert(log_probs[0] < 0);
        }
    }
}
END_TEST

/* The same in another library: from a gap of 17 on every confident prediction had the same loss, 0. */
START_TEST(tensorflow_62400)
{
    EACH_KERNEL(isa)
    {
        float before = INFINITY;
        for (float gap = 0.5f; gap < 103.0f; gap += 0.5f) {
            const float x[] = {gap, 0}, far[] = {gap + 1024, 1024};
            const int32_t target = 0;
            float loss;
            expect_row(x, 2, 0);
            expect_row(far, 2, 0);
            expect_status("fused", xent_fused_f32(x, &target, 1, 2, &loss, NULL, NULL), XENT_OK);
            if (!(loss > 0 && loss < before))
                fail_case("at a gap of %g the loss is %a, and was %a", (double)gap, (double)loss, (double)before);
            before = loss;
        }
    }
}
END_TEST

/* The target's gradient as p_y - 1 is 0 once p_y rounds to 1, while the other class keeps its own: the row's gradient
   no longer sums to 0. There the logits were doubles. */
START_TEST(pytorch_195678)
{
    EACH_KERNEL(isa)
    {
        for (float x_0 = 10.0f; x_0 < 80.0f; x_0 += 3.42994775023705f) {
            const float x[] = {x_0, 0};
            const int32_t target = 0;
            float loss, grad[2];
            expect_status("fused", xent_fused_f32(x, &target, 1, 2, &loss, grad, NULL), XENT_OK);
            expect_within("the target's gradient", grad[0], exact_gradient(x, 2, 0, 0), 3);
            expect_within("the other gradient", grad[1], exact_gradient(x, 2, 0, 1), 3);
            ck_assert(grad[0] < 0 && fabsf(grad[0] + grad[1]) <= 4 * FLT_EPSILON * grad[1]);
        }
        const double wide[] = {37.42994775023705, 0};
        const int32_t target = 0;
        double loss, grad[2];
        xent_problem p = general(1, 2, 1, NULL, &target, NULL, NULL);
        p.dtype = XENT_F64;
        p.logits = wide;
        p.loss = &loss;
        p.grad = grad;
        expect_status("doubles", xent_cross_entropy(&p), XENT_OK);
        ck_assert_double_eq_tol(grad[0], -5.551115123125776e-17, 2e-32);
        ck_assert_double_eq_tol(grad[1], 5.551115123125776e-17, 2e-32);
    }
}
END_TEST

/* lse - x_y of two equal logits of 10^8 was 0 and not ln 2, the log of the sum being lost beside 10^8. */
START_TEST(pytorch_11752)
{
    static const float values[] = {1, 1e4f, 1e8f, -1e8f, 1e16f, 3e38f, -3e38f};
    EACH_KERNEL(isa)
    {
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            const float x[] = {values[i], values[i]};
            const int32_t target = 1;
            float loss;
            expect_row(x, 2, 1);
            expect_status("fused", xent_fused_f32(x, &target, 1, 2, &loss, NULL, NULL), XENT_OK);
            expect_within("loss", loss, 0x1.62e42fefa39efp-1, 2);
        }
    }
}
END_TEST

/* Log-probabilities of logits near -10^7 were whole numbers, because the maximum and the log of the sum were added
   before they were subtracted. */
START_TEST(pytorch_38839)
{
    EACH_KERNEL(isa)
    {
        struct rng rng = rng_stream(38839);
        for (int i = 0; i < 200; i++) {
            float x[3];
            for (int j = 0; j < 3; j++)
                x[j] = (float)rng_uniform(&rng, 0, 1) - 1e7f;
            for (size_t y = 0; y < 3; y++)
                expect_row(x, 3, y);
        }
        const float x[] = {-1e7f, -1e7f, -1e7f + 1};
        float log_probs[3];
        expect_status("log-softmax", xent_log_softmax_f32(x, 1, 3, 0, log_probs, 0), XENT_OK);
        expect_within("log-probability", log_probs[0], -1.5514447139320511, 3);
        expect_within("log-probability", log_probs[2], -0.5514447139320511, 3);
    }
}
END_TEST

/* A shared offset changed the loss and at last made it 0, with a gradient of 0: logsumexp is right, and rounded to a
   place where the gaps between logits are lost. */
START_TEST(mlx_4188)
{
    static const float offsets[] = {0, 1e4f, -1e4f, 1e6f, -1e6f};
    EACH_KERNEL(isa)
    {
        float first[3] = {0};
        for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
            const float x[] = {2 + offsets[i], -1 + offsets[i]}; /* exact */
            const int32_t target = 0;
            float got[3];
            expect_row(x, 2, 0);
            expect_status("fused", xent_fused_f32(x, &target, 1, 2, got, got + 1, NULL), XENT_OK);
            expect_within("loss", got[0], 0.04858735157374196, 2);
            if (i == 0)
                memcpy(first, got, sizeof first);
            for (int k = 0; k < 3; k++)
                expect_within("against no offset", got[k], (double)first[k], 4);
        }
    }
}
END_TEST

/* Backward through a row that ignore_index leaves out made its gradient, and then every weight, NaN where the row's
   logits were -inf. */
START_TEST(pytorch_11551)
{
    enum { ROWS = 5, CLASSES = 40 };
    static const float poison[] = {-INFINITY, INFINITY, NAN};
    EACH_KERNEL(isa)
    {
        for (int kind = 0; kind < 3; kind++)
            for (int in_place = 0; in_place < 2; in_place++) {
                struct rng rng = rng_stream(11551);
                float x[ROWS * CLASSES], grad[ROWS * CLASSES], kept[2 * CLASSES], kept_grad[2 * CLASSES];
                const int32_t targets[ROWS] = {-100, 7, -100, 12, -100}, kept_targets[2] = {7, 12};
                float loss, kept_loss;
                for (size_t i = 0; i < ROWS * CLASSES; i++)
                    x[i] = i / CLASSES % 2 ? rng_normal(&rng) : poison[kind];
                memcpy(kept, x + CLASSES, CLASSES * sizeof(float));
                memcpy(kept + CLASSES, x + 3 * CLASSES, CLASSES * sizeof(float));
                expect_status("kept rows", xent_fused_f32(kept, kept_targets, 2, CLASSES, &kept_loss, kept_grad, NULL),
                              XENT_OK);
                float *out = in_place ? x : grad;
                expect_status("all rows", xent_fused_f32(x, targets, ROWS, CLASSES, &loss, out, NULL), XENT_OK);
                expect_bits("mean", loss, kept_loss);
                expect_finite("mean", loss);
                for (size_t j = 0; j < CLASSES; j++) {
                    expect_bits("an ignored row's gradient", out[j], 0.0f);
                    expect_bits("an ignored row's gradient", out[2 * CLASSES + j], 0.0f);
                    expect_bits("an ignored row's gradient", out[4 * CLASSES + j], 0.0f);
                    expect_bits("a kept row's gradient", out[CLASSES + j], kept_grad[j]);
                    expect_bits("a kept row's gradient", out[3 * CLASSES + j], kept_grad[CLASSES + j]);
                }
            }
    }
}
END_TEST

/* Three rows of a few classes, so many elements apart that an index of the last one has more bits than a narrow one can
   hold, in pages that are never touched but for theirs. */
static void expect_far_apart_rows(size_t stride)
{
    enum { ROWS = 3, CLASSES = 37 };
    const size_t bytes = (2 * stride + CLASSES) * sizeof(float);
    float *memory[2];
    for (int k = 0; k < 2; k++) {
        memory[k] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory[k] == MAP_FAILED) {
            note("skipped: no address space for %zu bytes", bytes);
            if (k == 1)
                munmap(memory[0], bytes);
            return;
        }
    }
    float *x = memory[0], *grad = memory[1];
    EACH_KERNEL(isa)
    {
        struct rng rng = rng_stream(85786);
        float packed[ROWS * CLASSES], expected[ROWS], packed_grad[ROWS * CLASSES], loss[ROWS];
        const int64_t targets[ROWS] = {36, 0, 17};
        for (size_t i = 0; i < ROWS; i++)
            for (size_t j = 0; j < CLASSES; j++)
                packed[i * CLASSES + j] = x[i * stride + j] = rng_normal(&rng);
        xent_options options = XENT_OPTIONS_INIT;
        options.reduction = XENT_NONE;
        expect_status("packed", xent_fused_f32_i64(packed, targets, ROWS, CLASSES, expected, packed_grad, &options),
                      XENT_OK);
        options.logits_stride = options.grad_stride = stride;
        expect_status("far apart", xent_fused_f32_i64(x, targets, ROWS, CLASSES, loss, grad, &options), XENT_OK);
        expect_same("loss", loss, expected, ROWS);
        for (size_t i = 0; i < ROWS; i++)
            expect_same("gradient", grad + i * stride, packed_grad + i * CLASSES, CLASSES);
        /* The same memory with its classes far apart and its rows together. */
        xent_problem p = general(CLASSES, ROWS, 1, x, targets + 1, loss, grad);
        int32_t class_targets[CLASSES] = {0};
        const xent_strides strides = {1, stride, 0};
        float class_loss[CLASSES];
        p.targets = class_targets;
        p.loss = class_loss;
        p.logits_strides = p.grad_strides = &strides;
        expect_status("classes far apart", xent_cross_entropy(&p), XENT_OK);
        for (size_t i = 0; i < CLASSES; i++) {
            const float row[] = {packed[i], packed[CLASSES + i], packed[2 * CLASSES + i]};
            expect_within("loss", class_loss[i], exact_loss(row, ROWS, 0), 2);
            expect_within("gradient", grad[i + 2 * stride], exact_gradient(row, ROWS, 0, 2), 3);
        }
    }
    munmap(x, bytes);
    munmap(grad, bytes);
}

/* 65536 rows of 50257 classes, more than 2^31 logits, read memory that was not theirs: an index had 32 bits. */
START_TEST(pytorch_85786)
{
    expect_far_apart_rows((size_t)1 << 30 | 5); /* the last row begins past 2^31 */
}
END_TEST

/* Past 2^32 logits the losses of the last rows were silently those of other places. */
START_TEST(pytorch_111484)
{
    expect_far_apart_rows((size_t)1 << 31 | 5);
}
END_TEST

/* The normalizer of 16-bit logits was rounded to 16 bits, so that losses came in steps of 2^-5. There are no 16-bit
   logits here: but floats that are such numbers get a loss of 24 bits. */
START_TEST(optax_1020)
{
    enum { CLASSES = 100 };
    EACH_KERNEL(isa)
    {
        struct rng rng = rng_stream(1020);
        for (int i = 0; i < 50; i++) {
            float x[CLASSES];
            for (size_t j = 0; j < CLASSES; j++)
                x[j] = float_from_bits(float_bits((float)rng_uniform(&rng, 0, 1)) & 0xffff0000u);
            expect_row(x, CLASSES, rng_below(&rng, CLASSES));
        }
    }
}
END_TEST

/* logsumexp([0, -40]) was 0 instead of 4.248e-18. Here xent_logsumexp_f32 promises an absolute error, but what a loss
   and a log-probability are made of, and the lse that comes with a loss, have all their bits. */
START_TEST(scipy_18295)
{
    const float x[] = {0, -40};
    const int32_t target = 0;
    const double exact = 4.248354255291589e-18;
    EACH_KERNEL(isa)
    {
        float loss, lse, alone, log_probs[2];
        xent_options options = XENT_OPTIONS_INIT;
        options.lse = &lse;
        expect_status("fused", xent_fused_f32(x, &target, 1, 2, &loss, NULL, &options), XENT_OK);
        expect_status("logsumexp", xent_logsumexp_f32(x, 1, 2, 0, &alone), XENT_OK);
        expect_status("log-softmax", xent_log_softmax_f32(x, 1, 2, 0, log_probs, 0), XENT_OK);
        expect_within("loss", loss, exact, 2);
        expect_within("lse", lse, exact, 2);
        expect_within("log-probability", log_probs[0], -exact, 3);
        if (!(fabs((double)alone - exact) <= 1.5 * 0x1p-24))
            fail_case("logsumexp is %a", (double)alone);
    }
}
END_TEST

/* Labels were used as indices unread: a model file with a label of C, or a negative one, read the heap. */
START_TEST(onnxruntime_28004)
{
    enum { ROWS = 4, CLASSES = 10 };
    static const int64_t bad[] = {CLASSES, -1, -100, INT64_MIN, INT64_MAX, (int64_t)1 << 32, ((int64_t)1 << 32) + 1};
    float x[ROWS * CLASSES] = {0}, loss[ROWS], grad[ROWS * CLASSES], lse[ROWS];
    EACH_KERNEL(isa)
    {
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            const int64_t targets[ROWS] = {1, 255, bad[k], 2};
            size_t row = SIZE_MAX;
            xent_problem p = general(ROWS, CLASSES, 1, x, targets, loss, grad);
            p.target_type = XENT_LABELS_I64;
            p.ignore_index = 255;
            p.lse = lse;
            p.error_row = &row;
            memset(loss, 0xa5, sizeof loss);
            memset(grad, 0xa5, sizeof grad);
            memset(lse, 0xa5, sizeof lse);
            expect_status("bad target", xent_cross_entropy(&p), XENT_ERR_TARGET);
            ck_assert_uint_eq(row, 2);
            float untouched;
            memset(&untouched, 0xa5, sizeof untouched);
            for (size_t i = 0; i < ROWS * CLASSES; i++)
                expect_bits("gradient", grad[i], untouched);
            for (size_t i = 0; i < ROWS; i++) {
                expect_bits("loss", loss[i], untouched);
                expect_bits("lse", lse[i], untouched);
            }
        }
        const uint8_t narrow[ROWS] = {9, 10, 0, 0};
        const uint16_t short_targets[ROWS] = {9, 9, 9, 65535};
        size_t row = SIZE_MAX;
        xent_problem p = general(ROWS, CLASSES, 1, x, narrow, loss, grad);
        p.error_row = &row;
        p.target_type = XENT_LABELS_U8;
        expect_status("bad uint8", xent_cross_entropy(&p), XENT_ERR_TARGET);
        ck_assert_uint_eq(row, 1);
        p.target_type = XENT_LABELS_U16;
        p.targets = short_targets;
        expect_status("bad uint16", xent_cross_entropy(&p), XENT_ERR_TARGET);
        ck_assert_uint_eq(row, 3);
    }
}
END_TEST

/* The target's p_y / N was stored and rounded before 1 / N was taken off it: for a confident row nothing was left of
   its gradient. Here that gradient is -s'/s, in place too, and never a difference. */
START_TEST(liger_1329)
{
    enum { ROWS = 4 };
    static const double confidences[] = {0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-9};
    float *x = allocate(ROWS * MOST_CLASSES * sizeof(float)), *row = allocate(MOST_CLASSES * sizeof(float));
    EACH_KERNEL(isa)
    {
        for (size_t k = 0; k < sizeof confidences / sizeof *confidences; k++) {
            struct rng rng = rng_stream(1329);
            int32_t targets[ROWS];
            float loss;
            for (size_t j = 0; j < MOST_CLASSES; j++)
                row[j] = rng_normal(&rng);
            row[17] = -INFINITY;
            const double rest = (double)logl(others(row, MOST_CLASSES, 17, 0));
            row[17] = (float)(rest + log(confidences[k] / (1 - confidences[k])));
            for (size_t i = 0; i < ROWS; i++) {
                memcpy(x + i * MOST_CLASSES, row, MOST_CLASSES * sizeof(float));
                targets[i] = 17;
            }
            expect_status("fused", xent_fused_f32(x, targets, ROWS, MOST_CLASSES, &loss, x, NULL), XENT_OK);
            const double exact = exact_gradient(row, MOST_CLASSES, 17, 17) / ROWS;
            for (size_t i = 0; i < ROWS; i++)
                expect_within("the target's gradient", x[i * MOST_CLASSES + 17], exact, 3);
        }
    }
    free(x);
    free(row);
}
END_TEST

/* The backward pass took a transposed or expanded gradient of the losses for one without gaps: of the wrong rows, or
   from past the end of its only element. */
START_TEST(transformer_engine_2402)
{
    enum { SEQUENCE = 6, BATCH = 5, CLASSES = 33, ROWS = SEQUENCE * BATCH };
    EACH_KERNEL(isa)
    {
        struct rng rng = rng_stream(2402);
        float x[ROWS * CLASSES], grad[ROWS * CLASSES], expected[ROWS * CLASSES], dloss[ROWS], turned[ROWS];
        int32_t targets[ROWS];
        for (size_t i = 0; i < ROWS * CLASSES; i++)
            x[i] = rng_normal(&rng);
        for (size_t i = 0; i < ROWS; i++) {
            targets[i] = (int32_t)rng_below(&rng, CLASSES);
            dloss[i] = rng_normal(&rng);
        }
        for (size_t s = 0; s < SEQUENCE; s++)
            for (size_t b = 0; b < BATCH; b++)
                turned[b * SEQUENCE + s] = dloss[s * BATCH + b];
        xent_problem p = general(SEQUENCE * BATCH, CLASSES, 1, x, targets, NULL, expected);
        p.dloss = dloss;
        expect_status("without gaps", xent_cross_entropy(&p), XENT_OK);
        for (size_t i = 0; i < ROWS; i++) /* and right */
            expect_within(
                "gradient", expected[i * CLASSES + (size_t)targets[i]],
                (double)dloss[i] * exact_gradient(x + i * CLASSES, CLASSES, (size_t)targets[i], (size_t)targets[i]), 3);

        /* [sequence][batch] rows as outer and inner, logits of row (s, b) where they are; dloss is [batch][sequence].
         */
        const xent_strides rows = {BATCH * CLASSES, 1, CLASSES}, transposed = {1, 0, SEQUENCE};
        p = general(SEQUENCE, CLASSES, BATCH, x, targets, NULL, grad);
        p.logits_strides = p.grad_strides = &rows;
        p.dloss = turned;
        p.dloss_strides = &transposed;
        expect_status("transposed", xent_cross_entropy(&p), XENT_OK);
        expect_same("transposed", grad, expected, ROWS * CLASSES);

        const xent_strides same_for_all = {0, 0, 0};
        float *one = malloc(sizeof *one);
        ck_assert_ptr_nonnull(one);
        *one = 0.37f;
        for (size_t i = 0; i < ROWS; i++)
            dloss[i] = *one;
        p = general(SEQUENCE * BATCH, CLASSES, 1, x, targets, NULL, expected);
        p.dloss = dloss;
        expect_status("one for each", xent_cross_entropy(&p), XENT_OK);
        p.grad = grad;
        p.dloss = one;
        p.dloss_strides = &same_for_all;
        expect_status("one for all", xent_cross_entropy(&p), XENT_OK);
        expect_same("one for all", grad, expected, ROWS * CLASSES);
        free(one);
    }
}
END_TEST

/* A transposed view, [batch][sequence][classes] of memory in the order [sequence][batch][classes], passed the test for
   gaps because its classes were neighbours, and its rows were read where they are not. */
START_TEST(transformer_engine_2734)
{
    enum { SEQUENCE = 4, BATCH = 2, CLASSES = 8, ROWS = SEQUENCE * BATCH };
    EACH_KERNEL(isa)
    {
        struct rng rng = rng_stream(2734);
        float x[ROWS * CLASSES], copy[ROWS * CLASSES], loss[ROWS], expected[ROWS], grad[ROWS * CLASSES];
        float copy_grad[ROWS * CLASSES];
        int32_t targets[ROWS];
        for (size_t i = 0; i < ROWS * CLASSES; i++)
            x[i] = 3 * rng_normal(&rng);
        for (size_t i = 0; i < ROWS; i++)
            targets[i] = (int32_t)rng_below(&rng, CLASSES);
        for (size_t b = 0; b < BATCH; b++)
            for (size_t s = 0; s < SEQUENCE; s++)
                memcpy(copy + (b * SEQUENCE + s) * CLASSES, x + (s * BATCH + b) * CLASSES, CLASSES * sizeof(float));
        xent_options options = XENT_OPTIONS_INIT;
        options.reduction = XENT_NONE;
        expect_status("copy", xent_fused_f32(copy, targets, ROWS, CLASSES, expected, copy_grad, &options), XENT_OK);
        const xent_strides view = {CLASSES, 1, BATCH * CLASSES};
        xent_problem p = general(BATCH, CLASSES, SEQUENCE, x, targets, loss, grad);
        p.logits_strides = p.grad_strides = &view;
        expect_status("view", xent_cross_entropy(&p), XENT_OK);
        expect_same("loss", loss, expected, ROWS);
        for (size_t b = 0; b < BATCH; b++)
            for (size_t s = 0; s < SEQUENCE; s++)
                expect_same("gradient", grad + (s * BATCH + b) * CLASSES, copy_grad + (b * SEQUENCE + s) * CLASSES,
                            CLASSES);
        for (size_t i = 0; i < ROWS; i++)
            expect_within("loss", loss[i], exact_loss(copy + i * CLASSES, CLASSES, (size_t)targets[i]), 2);
    }
}
END_TEST

/* The search for the maximum started from -10000, which is above every logit of some rows: all their exponentials are
 * 0. */
START_TEST(llmc_maxval)
{
    static const float offsets[] = {-9990, -10010, -20000, -1e6f, -3e38f};
    EACH_KERNEL(isa)
    {
        struct rng rng = rng_stream(10000);
        for (size_t k = 0; k < sizeof offsets / sizeof *offsets; k++) {
            float x[50];
            for (size_t j = 0; j < 50; j++)
                x[j] = offsets[k] + 3 * rng_normal(&rng);
            for (size_t y = 0; y < 50; y += 7)
                expect_row(x, 50, y);
        }
    }
}
END_TEST

/* The loss as -logf(p) is infinite once p is too small for a float, and 0 once p rounds to 1. */
START_TEST(llmc_logf_of_p)
{
    static const float gaps[] = {20, 50, 88, 104, 150, 200, 1000, 1e30f};
    EACH_KERNEL(isa)
    {
        for (size_t k = 0; k < sizeof gaps / sizeof *gaps; k++) {
            const float x[] = {0, gaps[k], 0.5f};
            const int32_t wrong = 0, right = 1;
            float loss;
            expect_row(x, 3, 0);
            expect_status("wrong", xent_fused_f32(x, &wrong, 1, 3, &loss, NULL, NULL), XENT_OK);
            expect_finite("wrong", loss);
            expect_status("right", xent_fused_f32(x, &right, 1, 3, &loss, NULL, NULL), XENT_OK);
            expect_within("right", loss, exact_loss(x, 3, 1), 2);
            if (gaps[k] < 103)
                ck_assert(loss > 0);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("field");
    TCase *cases = add_case(suite, "field");
    tcase_add_test(cases, pytorch_113708);
    tcase_add_test(cases, pytorch_195678);
    tcase_add_test(cases, pytorch_11752);
    tcase_add_test(cases, pytorch_38839);
    tcase_add_test(cases, pytorch_11551);
    tcase_add_test(cases, pytorch_85786);
    tcase_add_test(cases, pytorch_111484);
    tcase_add_test(cases, tensorflow_62400);
    tcase_add_test(cases, mlx_4188);
    tcase_add_test(cases, optax_1020);
    tcase_add_test(cases, scipy_18295);
    tcase_add_test(cases, onnxruntime_28004);
    tcase_add_test(cases, liger_1329);
    tcase_add_test(cases, transformer_engine_2402);
    tcase_add_test(cases, transformer_engine_2734);
    tcase_add_test(cases, llmc_maxval);
    tcase_add_test(cases, llmc_logf_of_p);
    return run_suite(suite);
}
