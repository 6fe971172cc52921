/*
 * The statuses: every invalid call is refused with the right one, and without a byte written. Overlapping arrays and
 * options are in files of their own.
 */
#include "api.h"

#include <math.h>
#include <sys/mman.h>

void problem_init(struct problem *p)
{
    memset(p, 0xff, sizeof *p);
    for (size_t i = 0; i < ROOM; i++) {
        p->arrays.logits[i] = (float)i * 0.5f;
        p->arrays.targets[i] = (int32_t)(i % CLASSES);
        p->arrays.wide_targets[i] = (int64_t)(i % CLASSES);
    }
    p->logits = p->arrays.logits;
    p->targets = p->arrays.targets;
    p->wide_targets = p->arrays.wide_targets;
    p->rows = ROWS;
    p->classes = CLASSES;
    p->loss = p->arrays.loss;
    p->grad = p->arrays.grad;
    p->options = (xent_options)XENT_OPTIONS_INIT;
    p->options.reduction = XENT_NONE;
    p->options.lse = p->arrays.lse;
    p->options.error_row = &p->error_row;
    p->options_given = &p->options;
    p->error_row = NO_ROW;
}

xent_status problem_call(struct problem *p)
{
    return xent_fused_f32(p->logits, p->targets, p->rows, p->classes, p->loss, p->grad, p->options_given);
}

xent_status problem_call_wide(struct problem *p)
{
    return xent_fused_f32_i64(p->logits, p->wide_targets, p->rows, p->classes, p->loss, p->grad, p->options_given);
}

void expect_refused(struct problem *p, const char *what, xent_status expected)
{
    struct arrays before = p->arrays;
    for (int wide = 0; wide < 2; wide++) {
        name_case("%s, %d-bit targets", what, wide ? 64 : 32);
        p->error_row = NO_ROW;
        expect_status("status", wide ? problem_call_wide(p) : problem_call(p), expected);
        if (memcmp(&before, &p->arrays, sizeof before) != 0)
            fail_case("an array was written to");
        if ((p->error_row == NO_ROW) != (expected != XENT_ERR_TARGET))
            fail_case("error_row is %zu", p->error_row);
    }
}

void expect_accepted(struct problem *p, const char *what)
{
    struct arrays before = p->arrays;
    for (int wide = 0; wide < 2; wide++) {
        p->arrays = before;
        name_case("%s, %d-bit targets", what, wide ? 64 : 32);
        p->error_row = NO_ROW;
        expect_status("status", wide ? problem_call_wide(p) : problem_call(p), XENT_OK);
        ck_assert_uint_eq(p->error_row, NO_ROW);
    }
}

START_TEST(valid)
{
    struct problem p;
    problem_init(&p);
    expect_accepted(&p, "a valid problem");
    for (size_t i = 0; i < ROWS; i++) {
        expect_finite("loss[i]", p.loss[i]);
        expect_finite("lse[i]", p.options.lse[i]);
    }
    expect_bits("loss past the end", p.loss[ROWS], float_from_bits(0xffffffff));
    expect_bits("lse past the end", p.options.lse[ROWS], float_from_bits(0xffffffff));
    expect_bits("gradient past the end", p.grad[ROWS * CLASSES], float_from_bits(0xffffffff));
    p.grad = NULL;
    p.options.lse = NULL;
    p.options.error_row = NULL;
    expect_accepted(&p, "without optional outputs");
}
END_TEST

START_TEST(null_pointers)
{
    struct problem p;
    problem_init(&p);
    p.logits = NULL;
    expect_refused(&p, "no logits", XENT_ERR_NULL);
    problem_init(&p);
    p.targets = NULL;
    p.wide_targets = NULL;
    expect_refused(&p, "no targets", XENT_ERR_NULL);
    for (int reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
        problem_init(&p);
        p.loss = NULL;
        p.options.reduction = (xent_reduction)reduction;
        expect_refused(&p, "no loss", XENT_ERR_NULL);
    }
    problem_init(&p);
    p.rows = 0;
    p.loss = NULL;
    p.options.reduction = XENT_SUM;
    expect_refused(&p, "no loss for the sum of no rows", XENT_ERR_NULL);
    p.options.reduction = XENT_NONE;
    expect_status("no loss for no rows", problem_call(&p), XENT_OK);
}
END_TEST

START_TEST(shapes)
{
    struct problem p;
    problem_init(&p);
    p.classes = 0;
    expect_refused(&p, "no classes", XENT_ERR_CLASSES);
    problem_init(&p);
    p.options.logits_stride = CLASSES - 1;
    expect_refused(&p, "logits stride below classes", XENT_ERR_STRIDE);
    problem_init(&p);
    p.options.grad_stride = CLASSES - 1;
    expect_refused(&p, "grad stride below classes", XENT_ERR_STRIDE);
    problem_init(&p);
    p.options.logits_stride = 1;
    p.options.grad_stride = 1;
    expect_refused(&p, "strides of 1", XENT_ERR_STRIDE);
    problem_init(&p);
    p.options.grad_stride = 1;
    p.rows = 1;
    expect_refused(&p, "a grad stride of 1 for one row", XENT_ERR_STRIDE);
    p.rows = 0;
    p.options.logits_stride = 1;
    expect_status("strides of no rows", problem_call(&p), XENT_OK);
    problem_init(&p);
    p.grad = NULL;
    p.options.grad_stride = STRIDE;
    expect_accepted(&p, "a grad stride without a grad");
    problem_init(&p);
    p.options.logits_stride = CLASSES;
    p.options.grad_stride = STRIDE;
    expect_accepted(&p, "different strides");
}
END_TEST

START_TEST(sizes)
{
    static const struct {
        const char *name;
        size_t rows, classes, logits_stride, grad_stride;
    } cases[] = {
        {"all of the address space", SIZE_MAX, SIZE_MAX, 0, 0},
        {"rows overflow size_t in bytes", SIZE_MAX / 4 + 1, 1, 0, 0},
        {"rows wrap to 0 bytes", SIZE_MAX / 8 + 1, 4, 0, 0},
        {"rows overflow ptrdiff_t in bytes", (size_t)PTRDIFF_MAX / 4 + 1, 1, 0, 0},
        {"classes overflow size_t in bytes", 1, SIZE_MAX, 0, 0},
        {"classes overflow ptrdiff_t in bytes", 1, (size_t)PTRDIFF_MAX / 4 + 1, 0, 0},
        {"rows times classes overflows", (size_t)1 << (sizeof(size_t) * 4), (size_t)1 << (sizeof(size_t) * 4), 0, 0},
        {"rows times classes in bytes overflows", (size_t)1 << (sizeof(size_t) * 4),
         (size_t)1 << (sizeof(size_t) * 4 - 2), 0, 0},
        {"logits stride overflows", 3, 4, SIZE_MAX, 0},
        {"logits stride wraps to classes", 5, 4, SIZE_MAX / 4 + 2, 0},
        {"grad stride overflows", 3, 4, 0, SIZE_MAX / 8},
        {"grad stride wraps", 3, 4, 0, SIZE_MAX / 4 + 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problem p;
        problem_init(&p);
        p.rows = cases[i].rows;
        p.classes = cases[i].classes;
        p.options.logits_stride = cases[i].logits_stride;
        p.options.grad_stride = cases[i].grad_stride;
        expect_refused(&p, cases[i].name, XENT_ERR_SIZE);
    }
}
END_TEST

/* Of 8 GB of logits that nobody may read none is read. */
START_TEST(targets_of_most_classes)
{
    const size_t bytes = (size_t)INT32_MAX * sizeof(float);
    float *logits = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(logits, MAP_FAILED);
    float loss = 7;
    xent_options options = XENT_OPTIONS_INIT;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("%s: the target INT32_MAX of INT32_MAX classes", *isa);
        expect_status("32 bits", xent_fused_f32(logits, &(int32_t){INT32_MAX}, 1, INT32_MAX, &loss, NULL, &options),
                      XENT_ERR_TARGET);
        expect_status("64 bits", xent_fused_f32_i64(logits, &(int64_t){INT32_MAX}, 1, INT32_MAX, &loss, NULL, &options),
                      XENT_ERR_TARGET);
    }
    munmap(logits, bytes);
}
END_TEST

START_TEST(bad_targets)
{
    static const int64_t bad[] = {-1,
                                  CLASSES,
                                  CLASSES + 1,
                                  INT32_MIN,
                                  INT32_MAX,
                                  -99,
                                  -101,
                                  INT64_MIN,
                                  INT64_MAX,
                                  INT64_C(1) << 32,
                                  (INT64_C(1) << 32) + 2,
                                  (INT64_C(1) << 32) - 100,
                                  INT64_MIN + 1};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (size_t row = 0; row < ROWS; row++) {
            struct problem p;
            problem_init(&p);
            p.wide_targets = p.arrays.wide_targets;
            /* Rows after the first bad one do not matter, ignored ones before it do not either. */
            for (size_t later = row; later < ROWS; later++)
                p.arrays.wide_targets[later] = bad[i];
            if (row > 0)
                p.arrays.wide_targets[0] = -100;
            for (size_t j = 0; j < ROWS; j++) {
                int64_t target = p.arrays.wide_targets[j];
                /* What does not fit into 32 bits is tried in 64 only. */
                p.arrays.targets[j] = target >= INT32_MIN && target <= INT32_MAX ? (int32_t)target : CLASSES;
            }
            expect_refused(&p, "a target out of range", XENT_ERR_TARGET);
            if (p.error_row != row)
                fail_case("error_row is %zu instead of %zu for target %lld", p.error_row, row, (long long)bad[i]);
            p.grad = p.arrays.logits;
            expect_refused(&p, "a target out of range, in place", XENT_ERR_TARGET);
            p.options.reduction = XENT_MEAN;
            expect_refused(&p, "a target out of range, mean", XENT_ERR_TARGET);
            p.options.error_row = NULL;
            struct arrays before = p.arrays;
            expect_status("without error_row", problem_call(&p), XENT_ERR_TARGET);
            ck_assert_mem_eq(&before, &p.arrays, sizeof before);
        }
    }
}
END_TEST

/* ignore_index is compared before the range check, and as a 64-bit number. */
START_TEST(ignore_index)
{
    struct problem p;
    problem_init(&p);
    p.options.ignore_index = 77;
    p.arrays.targets[1] = 77;
    p.arrays.wide_targets[1] = 77;
    expect_accepted(&p, "ignore_index past the classes");
    problem_init(&p);
    p.options.ignore_index = 0;
    expect_accepted(&p, "ignore_index among the classes");
    expect_bits("loss of the ignored row", p.loss[0], 0.0f);
    problem_init(&p);
    p.options.ignore_index = 0;
    p.arrays.targets[1] = -100;
    p.arrays.wide_targets[1] = -100;
    expect_refused(&p, "-100 when something else is ignored", XENT_ERR_TARGET);
    ck_assert_uint_eq(p.error_row, 1);
    problem_init(&p);
    p.options.ignore_index = INT64_C(1) << 32;
    p.arrays.wide_targets[0] = INT64_C(1) << 32;
    expect_accepted(&p, "an ignore_index that is no 32-bit number");
    expect_bits("the wide target is ignored", p.loss[0], 0.0f);
    expect_status("32-bit targets", problem_call(&p), XENT_OK);
    ck_assert(p.loss[0] > 0.0f);
    /* Its low half is a target that is none. */
    static const int64_t halves[] = {(INT64_C(1) << 32) + CLASSES, CLASSES - (INT64_C(1) << 32)};
    for (size_t i = 0; i < 2; i++) {
        problem_init(&p);
        p.options.ignore_index = halves[i];
        p.arrays.targets[1] = CLASSES;
        p.arrays.wide_targets[1] = CLASSES;
        expect_refused(&p, "a bad target that is half of ignore_index", XENT_ERR_TARGET);
    }
}
END_TEST

typedef xent_status row_function(const float *logits, size_t rows, size_t classes, size_t logits_stride, float *out,
                                 size_t out_stride);

static xent_status logsumexp(const float *logits, size_t rows, size_t classes, size_t logits_stride, float *out,
                             size_t out_stride)
{
    (void)out_stride;
    return xent_logsumexp_f32(logits, rows, classes, logits_stride, out);
}

START_TEST(row_functions)
{
    static row_function *const functions[] = {xent_softmax_f32, xent_log_softmax_f32, logsumexp};
    for (size_t i = 0; i < 3; i++) {
        row_function *f = functions[i];
        struct problem p;
        problem_init(&p);
        struct arrays before = p.arrays;
        const float *x = p.arrays.logits;
        float *out = p.arrays.grad;
        name_case("row function %zu", i);
        expect_status("no logits", f(NULL, ROWS, CLASSES, 0, out, 0), XENT_ERR_NULL);
        expect_status("no output", f(x, ROWS, CLASSES, 0, NULL, 0), XENT_ERR_NULL);
        expect_status("no classes", f(x, ROWS, 0, 0, out, 0), XENT_ERR_CLASSES);
        expect_status("logits stride", f(x, ROWS, CLASSES, CLASSES - 1, out, 0), XENT_ERR_STRIDE);
        expect_status("size of rows", f(x, SIZE_MAX / 4 + 1, 1, 0, out, 0), XENT_ERR_SIZE);
        expect_status("size of rows", f(x, SIZE_MAX / 8 + 1, CLASSES, 0, out, 0), XENT_ERR_SIZE);
        expect_status("size of a row", f(x, 1, SIZE_MAX, 0, out, 0), XENT_ERR_SIZE);
        expect_status("logits stride", f(x, ROWS, CLASSES, SIZE_MAX / 4, out, 0), XENT_ERR_SIZE);
        expect_status("logits stride", f(x, 2, CLASSES, SIZE_MAX / 4, out, 0), XENT_ERR_SIZE);
        expect_status("the last class", f(x, 2, CLASSES, PTRDIFF_MAX / 4 - 1, out, 0), XENT_ERR_SIZE);
        float one[CLASSES];
        expect_status("a stride that an only row does not use", f(x, 1, CLASSES, SIZE_MAX, one, SIZE_MAX), XENT_OK);
        expect_status("overlap", f(x, ROWS, CLASSES, 0, p.arrays.logits + 1, 0), XENT_ERR_OVERLAP);
        expect_status("overlap", f(x + 5, ROWS, CLASSES, 0, p.arrays.logits + 4, 0), XENT_ERR_OVERLAP);
        expect_status("overlap", f(x, ROWS, CLASSES, 0, p.arrays.logits + ROWS * CLASSES - 1, 0), XENT_ERR_OVERLAP);
        if (f != logsumexp) {
            expect_status("output stride", f(x, ROWS, CLASSES, 0, out, CLASSES - 1), XENT_ERR_STRIDE);
            expect_status("output stride", f(x, ROWS, CLASSES, 0, out, SIZE_MAX / 4), XENT_ERR_SIZE);
            expect_status("other strides in place", f(x, ROWS, CLASSES, STRIDE, p.arrays.logits, CLASSES),
                          XENT_ERR_OVERLAP);
        } else {
            expect_status("overlap", f(x, ROWS, CLASSES, 0, p.arrays.logits, 0), XENT_ERR_OVERLAP);
        }
        ck_assert_mem_eq(&before, &p.arrays, sizeof before);
        expect_status("touching", f(x, 2, CLASSES, 0, p.arrays.logits + 2 * CLASSES, 0), XENT_OK);
        expect_status("apart", f(x, ROWS, CLASSES, STRIDE, out, STRIDE), XENT_OK);
        if (f != logsumexp)
            expect_status("in place", f(x, ROWS, CLASSES, STRIDE, p.arrays.logits, STRIDE), XENT_OK);
    }
}
END_TEST

START_TEST(status_strings)
{
    const char *seen[XENT_ERR_ISA_UNAVAILABLE + 1];
    for (int status = 0; status <= XENT_ERR_ISA_UNAVAILABLE; status++) {
        seen[status] = xent_status_string((xent_status)status);
        ck_assert_ptr_nonnull(seen[status]);
        ck_assert_uint_gt(strlen(seen[status]), 0);
        for (int other = 0; other < status; other++)
            ck_assert_str_ne(seen[status], seen[other]);
    }
    const int unknown[] = {-1, XENT_ERR_ISA_UNAVAILABLE + 1, 1000};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        const char *text = xent_status_string((xent_status)unknown[i]);
        ck_assert_ptr_nonnull(text);
        ck_assert_uint_gt(strlen(text), 0);
        for (int status = 0; status <= XENT_ERR_ISA_UNAVAILABLE; status++)
            ck_assert_str_ne(text, seen[status]);
    }
}
END_TEST

START_TEST(versions)
{
    ck_assert_int_eq(xent_version(), XENT_VERSION_MAJOR * 10000 + XENT_VERSION_MINOR * 100 + XENT_VERSION_PATCH);
    ck_assert_int_eq(xent_numerics_version(), XENT_NUMERICS_VERSION);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("api");
    TCase *statuses = add_case(suite, "statuses");
    tcase_add_test(statuses, valid);
    tcase_add_test(statuses, null_pointers);
    tcase_add_test(statuses, shapes);
    tcase_add_test(statuses, sizes);
    tcase_add_test(statuses, targets_of_most_classes);
    tcase_add_test(statuses, bad_targets);
    tcase_add_test(statuses, ignore_index);
    tcase_add_test(statuses, row_functions);
    tcase_add_test(statuses, status_strings);
    tcase_add_test(statuses, versions);
    add_overlap_tests(add_case(suite, "overlap"));
    add_option_tests(add_case(suite, "options"));
    return run_suite(suite);
}
