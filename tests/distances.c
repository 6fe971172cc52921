/*
 * Rows and classes more than 2^31 elements apart, and batches of more than 2^32 elements: in memory that is reserved
 * only where it is touched. What is there twice, here and close together, must have the same results.
 */
#include "memory.h"

#include <stdlib.h>
#include <sys/mman.h>

#define APART (((size_t)1 << 31) + 1)

enum { ROWS = 3, CLASSES = 300 };

/* Zeros, of which only those that are touched take memory. NULL if the system does not give so many. */
static void *reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED)
        return memory;
    note("skipped: %zu bytes of addresses are not to be had", bytes);
    return NULL;
}

static size_t distant_bytes(size_t size)
{
    return ((ROWS - 1) * APART + CLASSES) * size;
}

struct near {
    float x[ROWS * CLASSES], grad[ROWS * CLASSES], weights[ROWS * CLASSES], loss[ROWS * CLASSES], lse[ROWS];
    int32_t targets[ROWS];
};

static void near_fill(struct near *near, struct rng *rng, size_t classes)
{
    for (size_t i = 0; i < ROWS * classes; i++) {
        near->x[i] = rng_normal(rng) * 3.0f;
        near->weights[i] = (float)rng_uniform(rng, 0.0, 1.0);
    }
    for (size_t i = 0; i < ROWS; i++)
        near->targets[i] = (int32_t)rng_below(rng, classes);
}

static void spread(float *far_away, const float *near, size_t classes)
{
    for (size_t i = 0; i < ROWS; i++)
        memcpy(far_away + i * APART, near + i * classes, classes * sizeof(float));
}

static void expect_spread(const char *what, const float *far_away, const float *near, size_t classes)
{
    for (size_t i = 0; i < ROWS; i++)
        if (memcmp(far_away + i * APART, near + i * classes, classes * sizeof(float)) != 0)
            fail_case("%s: row %zu has other bits", what, i);
}

/* Every function on rows that are far apart. x and out are of distant_bytes. */
static void run_rows(float *x, float *out, size_t classes, struct rng *rng)
{
    static struct near near, got;
    near_fill(&near, rng, classes);
    spread(x, near.x, classes);
    name_detail("%zu classes", classes);
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.lse = near.lse;
    expect_status("near", xent_fused_f32(near.x, near.targets, ROWS, classes, near.loss, near.grad, &options), XENT_OK);
    options.lse = got.lse;
    options.logits_stride = options.grad_stride = APART;
    expect_status("far", xent_fused_f32(x, near.targets, ROWS, classes, got.loss, out, &options), XENT_OK);
    expect_spread("gradient", out, near.grad, classes);
    if (memcmp(got.loss, near.loss, ROWS * sizeof(float)) != 0 || memcmp(got.lse, near.lse, sizeof got.lse) != 0)
        fail_case("loss or lse have other bits");
    expect_status("far in place", xent_fused_f32(x, near.targets, ROWS, classes, got.loss, x, &options), XENT_OK);
    expect_spread("gradient in place", x, near.grad, classes);

    spread(x, near.x, classes);
    expect_status("near", xent_softmax_f32(near.x, ROWS, classes, 0, near.grad, 0), XENT_OK);
    expect_status("far", xent_softmax_f32(x, ROWS, classes, APART, out, APART), XENT_OK);
    expect_spread("softmax", out, near.grad, classes);
    expect_status("near", xent_log_softmax_f32(near.x, ROWS, classes, 0, near.grad, 0), XENT_OK);
    expect_status("far", xent_log_softmax_f32(x, ROWS, classes, APART, out, APART), XENT_OK);
    expect_spread("log-softmax", out, near.grad, classes);
    expect_status("near", xent_logsumexp_f32(near.x, ROWS, classes, 0, near.lse), XENT_OK);
    expect_status("far", xent_logsumexp_f32(x, ROWS, classes, APART, got.lse), XENT_OK);
    if (memcmp(got.lse, near.lse, sizeof got.lse) != 0)
        fail_case("logsumexp has other bits");
}

static void run_bce(float *x, float *t, size_t classes, struct rng *rng)
{
    static struct near near, got;
    near_fill(&near, rng, classes);
    spread(x, near.x, classes);
    spread(t, near.weights, classes);
    name_detail("binary, %zu classes", classes);
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    expect_status("near", xent_bce_f32(near.x, near.weights, ROWS, classes, near.loss, near.grad, &options), XENT_OK);
    options.logits_stride = options.targets_stride = options.grad_stride = APART;
    expect_status("far", xent_bce_f32(x, t, ROWS, classes, got.loss, x, &options), XENT_OK);
    expect_spread("gradient", x, near.grad, classes);
    if (memcmp(got.loss, near.loss, ROWS * classes * sizeof(float)) != 0)
        fail_case("losses have other bits");
}

START_TEST(rows_far_apart)
{
    static const size_t sizes[] = {1, 2, 10, 33, 64, 97, 300};
    struct rng rng = rng_stream(520);
    float *x = reserve(distant_bytes(sizeof *x)), *out = reserve(distant_bytes(sizeof *out));
    for (const char *const *isa = xent_isas(); x && out && *isa; isa++) {
        use_kernel(*isa);
        name_case("rows far apart, %s", *isa);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            run_rows(x, out, sizes[i], &rng);
            run_bce(x, out, sizes[i], &rng);
        }
    }
}
END_TEST

/* Classes, or the inner dimension, or the targets and weights of rows, that far apart in a general call. */
START_TEST(dimensions_far_apart)
{
    struct rng rng = rng_stream(521);
    float *x = reserve(distant_bytes(sizeof *x)), *grad = reserve(distant_bytes(sizeof *grad));
    float *weights = reserve(distant_bytes(sizeof *weights));
    int32_t *targets = reserve(distant_bytes(sizeof *targets));
    enum { OTHERS = 17 };
    for (const char *const *isa = xent_isas(); x && grad && weights && targets && *isa; isa++) {
        use_kernel(*isa);
        for (int way = 0; way < 3; way++) {
            const size_t outer = way == 0 ? ROWS : OTHERS, classes = way == 1 ? ROWS : OTHERS,
                         inner = way == 2 ? ROWS : 1;
            const xent_strides strides = {way == 0 ? APART : classes * inner, way == 1 ? APART : 1, APART};
            /* One number a row: as far apart as the rows are, or as there is room for. */
            const xent_strides numbers = {way == 0 ? APART : 1, 1, way == 2 ? APART : 1};
            const size_t rows = outer * inner;
            static float near_x[ROWS * OTHERS * OTHERS], near_grad[ROWS * OTHERS * OTHERS], near_weights[ROWS * OTHERS];
            static int32_t near_targets[ROWS * OTHERS];
            float losses[2][ROWS * OTHERS];
            name_case("dimension %d far apart, %s", way, *isa);
            for (size_t i = 0; i < outer; i++)
                for (size_t k = 0; k < inner; k++) {
                    const size_t row = i * inner + k, at = i * numbers.outer + k * numbers.inner;
                    weights[at] = near_weights[row] = (float)rng_uniform(&rng, 0.1, 1.0);
                    targets[at] = near_targets[row] = (int32_t)rng_below(&rng, classes);
                    for (size_t j = 0; j < classes; j++)
                        x[i * strides.outer + j * strides.classes + k * strides.inner] =
                            near_x[(i * classes + j) * inner + k] = rng_normal(&rng);
                }
            xent_problem p = XENT_PROBLEM_INIT;
            p.outer = outer;
            p.classes = classes;
            p.inner = inner;
            p.reduction = XENT_NONE;
            p.logits = near_x;
            p.grad = near_grad;
            p.targets = near_targets;
            p.row_weights = p.dloss = near_weights;
            p.loss = losses[0];
            expect_status("near", xent_cross_entropy(&p), XENT_OK);
            p.logits = x;
            p.grad = grad;
            p.logits_strides = p.grad_strides = &strides;
            p.targets = targets;
            p.row_weights = p.dloss = weights;
            p.targets_strides = p.row_weights_strides = p.dloss_strides = &numbers;
            p.loss = losses[1];
            expect_status("far", xent_cross_entropy(&p), XENT_OK);
            if (memcmp(losses[0], losses[1], rows * sizeof(float)) != 0)
                fail_case("losses have other bits");
            for (size_t i = 0; i < outer; i++)
                for (size_t j = 0; j < classes; j++)
                    for (size_t k = 0; k < inner; k++)
                        expect_bits("gradient", grad[i * strides.outer + j * strides.classes + k * strides.inner],
                                    near_grad[(i * classes + j) * inner + k]);
        }
    }
}
END_TEST

/* More than 2^32 logits without gaps; all rows but five are ignored, and so never read. */
START_TEST(many_elements)
{
    enum { KEPT = 5, WIDTH = 4099 };
    const size_t rows = ((size_t)1 << 20) + 3;
    const size_t kept[KEPT] = {0, 1, ((size_t)1 << 31) / WIDTH + 1, ((size_t)1 << 32) / WIDTH + 1, rows - 1};
    ck_assert(rows * WIDTH > (size_t)1 << 32);
    struct rng rng = rng_stream(522);
    float *x = reserve(rows * WIDTH * sizeof *x), *loss = reserve(rows * sizeof *loss);
    int32_t *targets = reserve(rows * sizeof *targets);
    for (size_t i = 0; targets && i < rows; i++)
        targets[i] = -100;
    for (const char *const *isa = xent_isas(); x && loss && targets && *isa; isa++) {
        use_kernel(*isa);
        name_case("many elements, %s", *isa);
        static float near_x[KEPT * WIDTH];
        int32_t near_targets[KEPT];
        float near_loss[KEPT];
        size_t counted = 0;
        for (size_t i = 0; i < KEPT; i++) {
            near_targets[i] = targets[kept[i]] = (int32_t)rng_below(&rng, WIDTH);
            for (size_t j = 0; j < WIDTH; j++)
                x[kept[i] * WIDTH + j] = near_x[i * WIDTH + j] = rng_normal(&rng);
        }
        xent_options options = XENT_OPTIONS_INIT;
        options.reduction = XENT_NONE;
        expect_status("near", xent_fused_f32(near_x, near_targets, KEPT, WIDTH, near_loss, NULL, &options), XENT_OK);
        expect_status("far", xent_fused_f32(x, targets, rows, WIDTH, loss, NULL, &options), XENT_OK);
        for (size_t i = 0; i < rows; i++) {
            const bool is_kept = counted < KEPT && kept[counted] == i;
            if (float_bits(loss[i]) != (is_kept ? float_bits(near_loss[counted]) : 0))
                fail_case("loss of row %zu: %a", i, (double)loss[i]);
            counted += is_kept;
        }
        ck_assert_uint_eq(counted, KEPT);
        xent_problem p = XENT_PROBLEM_INIT;
        float mean, near_mean = 0;
        size_t kept_rows = 0;
        p.outer = rows;
        p.classes = WIDTH;
        p.logits = x;
        p.targets = targets;
        p.loss = &mean;
        p.kept_rows = &kept_rows;
        expect_status("mean", xent_cross_entropy(&p), XENT_OK);
        for (size_t i = 0; i < KEPT; i++)
            near_mean += near_loss[i] / KEPT;
        ck_assert_uint_eq(kept_rows, KEPT);
        expect_within("mean", mean, (double)near_mean, 8.0);
    }
}
END_TEST

void add_distance_tests(Suite *suite)
{
    TCase *distances = add_case(suite, "distances");
    tcase_add_test(distances, rows_far_apart);
    tcase_add_test(distances, dimensions_far_apart);
    tcase_add_test(distances, many_elements);
}
