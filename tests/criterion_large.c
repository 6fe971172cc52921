/*
 * Arrays past 2^31 and 2^32 elements, in memory of which only the few pages that are touched exist.
 */
#define _GNU_SOURCE
#include "criterion.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { CLASSES = 5, INNER = 3, OUTER = 2, ROWS = OUTER * INNER, COUNT = ROWS * CLASSES };

/* NULL if there is not so much address space, as under an emulator. */
static void *sparse_new(size_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        note("no address space for %zu bytes", bytes);
        return NULL;
    }
    return map;
}

static size_t place_of(const xent_strides *s, size_t i, size_t j, size_t k)
{
    return i * s->outer + j * s->classes + k * s->inner;
}

/* A problem with one stride so large that its last elements are past 2^32 gives what a packed one does. */
static void check_far_strides(const char *isa, xent_dtype dtype)
{
    const size_t far = ((size_t)1 << 32) + 7; /* where 32 bits, of either kind, have wrapped */
    const xent_strides packed = {CLASSES * INNER, INNER, 1};
    const xent_strides strides[] = {{far, INNER, 1}, {INNER, far / 2, 1}, {CLASSES, 1, far}, {far, 1, CLASSES}};
    const size_t room = 3 * far * dtype_size(dtype);
    struct rng rng = rng_stream(0x8000);
    double logits[COUNT];
    char x[COUNT * sizeof(double)], loss[ROWS * sizeof(double)], expected_loss[ROWS * sizeof(double)];
    char grad[COUNT * sizeof(double)];
    const int32_t targets[ROWS] = {0, 4, -100, 2, 3, 1};
    xent_problem p = XENT_PROBLEM_INIT;
    p.dtype = dtype;
    p.outer = OUTER;
    p.classes = CLASSES;
    p.inner = INNER;
    p.targets = targets;
    p.reduction = XENT_NONE;
    for (size_t i = 0; i < COUNT; i++) {
        logits[i] = (double)rng_normal(&rng);
        number_put(dtype, x, i, logits[i]);
    }
    p.logits = x;
    p.loss = expected_loss;
    p.grad = grad;
    name_case("packed, %s, %s", isa, dtype_name(dtype));
    expect_status("status", xent_cross_entropy(&p), XENT_OK);
    for (size_t n = 0; n < sizeof strides / sizeof strides[0]; n++)
        for (int in_place = 0; in_place < 2; in_place++) {
            const xent_strides *s = &strides[n];
            void *far_x = sparse_new(room), *far_grad = in_place ? far_x : sparse_new(room);
            name_case("strides %zu, %s, %s, in place %d", n, isa, dtype_name(dtype), in_place);
            if (far_x && far_grad) {
                for (size_t at = 0; at < COUNT; at++)
                    number_put(dtype, far_x, place_of(s, at / packed.outer, at / INNER % CLASSES, at % INNER),
                               logits[at]);
                p.logits = far_x;
                p.grad = far_grad;
                p.logits_strides = p.grad_strides = s;
                p.loss = loss;
                expect_status("status", xent_cross_entropy(&p), XENT_OK);
                ck_assert_mem_eq(loss, expected_loss, ROWS * dtype_size(dtype));
                for (size_t at = 0; at < COUNT; at++) {
                    const size_t place = place_of(s, at / packed.outer, at / INNER % CLASSES, at % INNER);
                    const double got = number_get(dtype, far_grad, place), expected = number_get(dtype, grad, at);
                    if (memcmp(&got, &expected, sizeof got) != 0)
                        fail_case("gradient[%zu] is %a instead of %a", at, got, expected);
                }
            }
            if (far_grad && !in_place)
                munmap(far_grad, room);
            if (far_x)
                munmap(far_x, room);
        }
}

START_TEST(far_strides)
{
    if (test_scale() < 0.05) {
        note("left out: for so much address space an emulator takes minutes");
        return;
    }
    for_each_kernel(check_far_strides);
}
END_TEST

/* More than 2^32 logits, of which all rows but the last are ignored, and so never read. */
static void check_many(const char *isa, xent_dtype dtype)
{
    enum { MANY_CLASSES = 1 << 20, MANY_ROWS = (1 << 12) + 3 };
    const size_t bytes = (size_t)MANY_ROWS * MANY_CLASSES * dtype_size(dtype);
    const size_t last = (size_t)(MANY_ROWS - 1) * MANY_CLASSES;
    name_case("2^32 logits, %s, %s", isa, dtype_name(dtype));
    void *logits = sparse_new(bytes);
    if (!logits)
        return;
    int32_t *targets = allocate(MANY_ROWS * sizeof *targets);
    for (size_t i = 0; i < MANY_ROWS; i++)
        targets[i] = -100;
    targets[MANY_ROWS - 1] = 17;
    number_put(dtype, logits, last + 17, 3);
    char loss[sizeof(double)], expected[sizeof(double)];
    size_t kept_rows = 0, error_row = 0;
    xent_problem p = XENT_PROBLEM_INIT;
    p.dtype = dtype;
    p.outer = MANY_ROWS;
    p.classes = MANY_CLASSES;
    p.logits = logits;
    p.targets = targets;
    p.loss = loss;
    p.kept_rows = &kept_rows;
    p.error_row = &error_row;
    expect_status("status", xent_cross_entropy(&p), XENT_OK);
    ck_assert_uint_eq(kept_rows, 1);
    xent_problem one = p;
    one.outer = 1;
    one.logits = (const char *)logits + last * dtype_size(dtype);
    one.targets = targets + MANY_ROWS - 1;
    one.loss = expected;
    expect_status("the last row alone", xent_cross_entropy(&one), XENT_OK);
    ck_assert_mem_eq(loss, expected, dtype_size(dtype));
    targets[MANY_ROWS - 1] = MANY_CLASSES;
    expect_status("a bad target in the last row", xent_cross_entropy(&p), XENT_ERR_TARGET);
    ck_assert_uint_eq(error_row, MANY_ROWS - 1);
    free(targets);
    munmap(logits, bytes);
}

START_TEST(many)
{
    for_each_kernel(check_many);
}
END_TEST

void add_large_tests(TCase *test_case)
{
    tcase_add_test(test_case, far_strides);
    tcase_add_test(test_case, many);
}
