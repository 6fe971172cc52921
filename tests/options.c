/*
 * The options struct: values out of range, capabilities to come, and structs of older and newer versions.
 */
#include "api.h"

#include "guard.h"

#include <float.h>
#include <limits.h>
#include <math.h>

START_TEST(reductions)
{
    static const int bad[] = {-1, 3, 4, 1000, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct problem p;
        problem_init(&p);
        memcpy(&p.options.reduction, &bad[i], sizeof p.options.reduction);
        expect_refused(&p, "an unknown reduction", XENT_ERR_OPTION);
    }
}
END_TEST

START_TEST(label_smoothing)
{
    static const float bad[] = {-0.1f, 1.0001f, 2.0f, NAN, INFINITY, -INFINITY, -1e-45f};
    static const float good[] = {0.1f, 1.0f, 0.5f, 1e-45f};
    struct problem p;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        problem_init(&p);
        p.options.label_smoothing = bad[i];
        expect_refused(&p, "label smoothing outside its range", XENT_ERR_OPTION);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        problem_init(&p);
        p.options.label_smoothing = good[i];
        expect_accepted(&p, "label smoothing");
    }
    problem_init(&p);
    p.options.label_smoothing = -0.0f;
    expect_accepted(&p, "label smoothing of -0");
}
END_TEST

START_TEST(class_weights)
{
    static const float bad[] = {-1, -1e-45f, NAN, INFINITY, -INFINITY, 0x1.000002p60f, FLT_MAX};
    float weights[CLASSES] = {1, 0, XENT_MAX_CLASS_WEIGHT, 1e-45f};
    struct problem p;
    problem_init(&p);
    p.options.class_weights = weights;
    expect_accepted(&p, "class weights");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        problem_init(&p);
        weights[i % CLASSES] = bad[i];
        p.options.class_weights = weights;
        expect_refused(&p, "a bad class weight", XENT_ERR_OPTION);
        weights[i % CLASSES] = 1;
    }
}
END_TEST

START_TEST(struct_sizes)
{
    static const size_t bad[] = {0, 1, sizeof(size_t) - 1, 4097, SIZE_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct problem p;
        problem_init(&p);
        p.options.struct_size = bad[i];
        expect_refused(&p, "a struct_size that is none", XENT_ERR_OPTION);
    }
    /* Nor is what such a size reaches looked at: zeros up to a page that cannot be read. */
    struct guarded room = guard_new(4096);
    struct problem p;
    problem_init(&p);
    p.options.struct_size = 4096 * 4;
    unsigned char *given = guard_place(&room, 4096, GUARD_AFTER);
    memset(given, 0, 4096);
    memcpy(given, &p.options, sizeof p.options);
    p.options_given = (const xent_options *)(const void *)given;
    expect_refused(&p, "a struct_size past what can be read", XENT_ERR_OPTION);
    guard_free(&room);
}
END_TEST

/* A caller compiled with an older header has a shorter struct: what it lacks is at its default and is not read. */
START_TEST(older_struct)
{
    static const size_t ends[] = {offsetof(xent_options, label_smoothing), offsetof(xent_options, class_weights),
                                  offsetof(xent_options, lse), offsetof(xent_options, error_row)};
    struct guarded room = guard_new(sizeof(xent_options));
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct problem p;
        problem_init(&p);
        p.options.struct_size = ends[i];
        p.options.ignore_index = 1;
        p.options.logits_stride = STRIDE;
        p.options.grad_stride = STRIDE;
        void *older = guard_place(&room, ends[i], GUARD_AFTER);
        memcpy(older, &p.options, ends[i]);
        p.options_given = older;
        expect_accepted(&p, "an older struct");
        expect_bits("ignored by its field", p.loss[1], 0.0f);
        expect_bits("grad_stride by its field", p.grad[CLASSES], float_from_bits(0xffffffff));
        expect_finite("loss[2]", p.loss[2]);
        expect_finite("grad[2 * STRIDE + CLASSES - 1]", p.grad[2 * STRIDE + CLASSES - 1]);
        if (ends[i] <= offsetof(xent_options, lse))
            expect_bits("no lse", p.arrays.lse[0], float_from_bits(0xffffffff));
        p.arrays.targets[2] = CLASSES;
        struct arrays before = p.arrays;
        expect_status("a bad target", problem_call(&p), XENT_ERR_TARGET);
        ck_assert_mem_eq(&before, &p.arrays, sizeof before);
        ck_assert_uint_eq(p.error_row, NO_ROW);
    }
    guard_free(&room);
}
END_TEST

/* A newer struct is understood as long as what this version does not know is zero, wherever it ends. */
START_TEST(newer_struct)
{
    enum { EXTRA = 48 };
    struct guarded room = guard_new(sizeof(xent_options) + EXTRA);
    for (size_t extra = 8; extra <= EXTRA; extra += 8) {
        struct problem p;
        problem_init(&p);
        size_t bytes = sizeof(xent_options) + extra;
        p.options.struct_size = bytes;
        unsigned char *newer = guard_place(&room, bytes, GUARD_AFTER);
        memset(newer, 0, bytes);
        memcpy(newer, &p.options, sizeof p.options);
        p.options_given = (const xent_options *)(const void *)newer;
        for (size_t i = sizeof p.options; i < bytes; i++) {
            newer[i] = (unsigned char)(1u << i % 8);
            expect_refused(&p, "a newer struct that wants something", XENT_ERR_OPTION);
            newer[i] = 0;
        }
        expect_accepted(&p, "a newer struct that wants nothing new");
        expect_finite("lse[0]", p.arrays.lse[0]);
    }
    guard_free(&room);
}
END_TEST

void add_option_tests(TCase *test_case)
{
    tcase_add_test(test_case, reductions);
    tcase_add_test(test_case, label_smoothing);
    tcase_add_test(test_case, class_weights);
    tcase_add_test(test_case, struct_sizes);
    tcase_add_test(test_case, older_struct);
    tcase_add_test(test_case, newer_struct);
}
