/*
 * What an executor is asked to do: to share large work out, in few tasks, and nothing at all for calls that fail or
 * have nothing to compute.
 */
#include "threads.h"

#include "calls.h"
#include "executors.h"
#include "guard.h"

#include <stdlib.h>

/* A call of many rows with everything in it, until a test spoils something: valid for both widths of targets. */
enum { ROWS = 3000, CLASSES = 60, NO_ROW = 12345 };

struct arrays {
    float logits[ROWS * CLASSES], grad[ROWS * CLASSES], loss[ROWS], lse[ROWS];
    int32_t targets[ROWS];
    int64_t wide_targets[ROWS];
};

struct fixture {
    struct arrays arrays, before;
    const float *logits;
    size_t rows, classes;
    float *loss, *grad;
    xent_options options;
    struct watched watched;
    size_t error_row;
};

static struct fixture *fixture_new(void)
{
    struct fixture *f = allocate(sizeof *f);
    memset(f, 0xff, sizeof *f);
    for (size_t i = 0; i < ROWS * CLASSES; i++)
        f->arrays.logits[i] = (float)(i % 97) * 0.125f;
    for (size_t i = 0; i < ROWS; i++)
        f->arrays.wide_targets[i] = f->arrays.targets[i] = (int32_t)(i % CLASSES);
    f->logits = f->arrays.logits;
    f->rows = ROWS;
    f->classes = CLASSES;
    f->loss = f->arrays.loss;
    f->grad = f->arrays.grad;
    f->error_row = NO_ROW;
    watched_init(&f->watched, IN_ORDER, 4, 0);
    f->options = (xent_options)XENT_OPTIONS_INIT;
    f->options.reduction = XENT_NONE;
    f->options.lse = f->arrays.lse;
    f->options.error_row = &f->error_row;
    f->options.executor = &f->watched.executor;
    return f;
}

static xent_status call_32(const struct fixture *f)
{
    return xent_fused_f32(f->logits, f->arrays.targets, f->rows, f->classes, f->loss, f->grad, &f->options);
}

static xent_status call_64(const struct fixture *f)
{
    return xent_fused_f32_i64(f->logits, f->arrays.wide_targets, f->rows, f->classes, f->loss, f->grad, &f->options);
}

/* Both calls return this status, use no executor and write nothing. Frees the fixture. */
static void expect_idle(struct fixture *f, const char *what, xent_status expected)
{
    f->before = f->arrays;
    name_case("%s, 32-bit targets", what);
    expect_status("status", call_32(f), expected);
    watched_expect_unused(&f->watched);
    name_case("%s, 64-bit targets", what);
    expect_status("status", call_64(f), expected);
    watched_expect_unused(&f->watched);
    if (memcmp(&f->arrays, &f->before, sizeof f->before) != 0)
        fail_case("an array was written to");
    free(f);
}

START_TEST(valid)
{
    /* Or else the tests below would prove nothing. */
    struct fixture *f = fixture_new();
    name_case("a valid call");
    expect_status("status", call_32(f), XENT_OK);
    watched_expect_sane(&f->watched);
    if (f->watched.most_tasks < 4)
        fail_case("4 threads got %zu tasks", f->watched.most_tasks);
    free(f);
}
END_TEST

START_TEST(no_rows)
{
    for (int reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
        struct fixture *f = fixture_new();
        float one;
        f->rows = 0;
        f->loss = &one;
        f->options.reduction = (xent_reduction)reduction;
        expect_idle(f, "no rows", XENT_OK);
    }
    struct fixture *f = fixture_new();
    f->rows = f->classes = 0;
    expect_idle(f, "no rows and no classes", XENT_OK);
}
END_TEST

START_TEST(bad_executors)
{
    struct fixture *f = fixture_new();
    f->watched.executor.parallel_for = NULL;
    expect_idle(f, "no parallel_for", XENT_ERR_OPTION);
    f = fixture_new();
    f->watched.executor.threads = 0;
    expect_idle(f, "no threads", XENT_ERR_OPTION);
    f = fixture_new();
    f->watched.executor.threads = 0;
    f->rows = 0;
    expect_idle(f, "no threads and no rows", XENT_ERR_OPTION);
    f = fixture_new();
    f->watched.executor.parallel_for = NULL;
    f->rows = 1;
    expect_idle(f, "no parallel_for for a call that would not use it", XENT_ERR_OPTION);
}
END_TEST

START_TEST(refused_calls)
{
    struct fixture *f = fixture_new();
    f->logits = NULL;
    expect_idle(f, "no logits", XENT_ERR_NULL);
    f = fixture_new();
    f->loss = NULL;
    expect_idle(f, "no loss", XENT_ERR_NULL);
    f = fixture_new();
    f->classes = 0;
    expect_idle(f, "no classes", XENT_ERR_CLASSES);
    f = fixture_new();
    f->options.logits_stride = CLASSES - 1;
    expect_idle(f, "logits stride below classes", XENT_ERR_STRIDE);
    f = fixture_new();
    f->options.grad_stride = SIZE_MAX / 8;
    expect_idle(f, "too large", XENT_ERR_SIZE);
    f = fixture_new();
    f->grad = f->arrays.logits + 1;
    expect_idle(f, "overlap", XENT_ERR_OVERLAP);
    f = fixture_new();
    f->options.reduction = (xent_reduction)3;
    expect_idle(f, "an unknown reduction", XENT_ERR_OPTION);
    f = fixture_new();
    f->options.label_smoothing = 1.5f;
    expect_idle(f, "label smoothing outside its range", XENT_ERR_OPTION);
}
END_TEST

/* Wherever the bad target is, no row before it has been computed. */
START_TEST(bad_targets)
{
    static const size_t rows[] = {0, 1, ROWS / 2, ROWS - 1};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture *f = fixture_new();
        f->arrays.wide_targets[rows[i]] = f->arrays.targets[rows[i]] = CLASSES;
        f->grad = f->arrays.logits;
        f->options.reduction = XENT_SUM;
        size_t error_row = NO_ROW;
        f->options.error_row = &error_row;
        expect_idle(f, "a bad target", XENT_ERR_TARGET);
        ck_assert_uint_eq(error_row, rows[i]);
    }
}
END_TEST

/* A caller compiled before there were executors has none, whatever lies after its options. */
START_TEST(older_struct)
{
    struct fixture *f = fixture_new();
    size_t bytes = offsetof(xent_options, executor);
    f->options.struct_size = bytes;
    struct guarded room = guard_new(bytes);
    void *older = guard_place(&room, bytes, GUARD_AFTER);
    memcpy(older, &f->options, bytes);
    name_case("options without an executor");
    expect_status("status", xent_fused_f32(f->logits, f->arrays.targets, f->rows, f->classes, f->loss, f->grad, older),
                  XENT_OK);
    watched_expect_unused(&f->watched);
    expect_finite("the last lse", f->arrays.lse[ROWS - 1]);
    guard_free(&room);
    free(f);
}
END_TEST

/* Work that is worth it is cut into at least as many tasks as there are threads. */
START_TEST(large_work_is_shared)
{
    static const struct {
        size_t rows, classes;
    } cases[] = {{65536, 10}, {4000, 100}, {600, 1000}, {64, 16384}, {9, 20000}, {2, 131072}, {1, 262144}};
    static const size_t threads[] = {2, 3, 7, 16};
    struct rng rng = rng_stream(20);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct batch batch = batch_new(cases[i].rows, cases[i].classes);
        struct call_memory memory = call_memory_new(&batch);
        batch_fill(&batch, &rng);
        for (size_t j = 0; j < sizeof threads / sizeof threads[0]; j++) {
            struct watched watched;
            struct call call = random_call(&batch, &rng);
            watched_init(&watched, SHUFFLED, threads[j], rng_next(&rng));
            name_case("large work: %zu rows of %zu classes, %s", batch.rows, batch.classes,
                      watched_describe(&watched).text);
            call_run(&call, &watched.executor, &memory);
            watched_expect_sane(&watched);
            if (watched.most_tasks < threads[j])
                fail_case("only %zu tasks", watched.most_tasks);
        }
        call_memory_free(&memory);
        batch_free(&batch);
    }
}
END_TEST

/* Rows that are left out do not part those around them, which are computed together. */
START_TEST(ignored_rows_part_nothing)
{
    enum { LM_ROWS = 60, LM_CLASSES = 16400 };
    struct rng rng = rng_stream(21);
    struct batch batch = batch_new(LM_ROWS, LM_CLASSES);
    struct call_memory memory = call_memory_new(&batch);
    batch_fill(&batch, &rng);
    size_t calls[2];
    for (int ignored = 0; ignored < 2; ignored++) {
        struct watched watched;
        struct call call = {.batch = &batch};
        watched_init(&watched, IN_ORDER, 16, 0);
        name_case("%d of 4 rows ignored", ignored * 3);
        for (size_t i = 0; ignored && i < LM_ROWS; i++)
            if (i % 4 != 0)
                batch.targets[i] = -100;
        call_run(&call, &watched.executor, &memory);
        watched_expect_sane(&watched);
        calls[ignored] = watched.calls;
    }
    if (calls[0] == 0 || calls[1] > calls[0] / 2)
        fail_case("the executor was called %zu times without, and %zu times", calls[0], calls[1]);
    call_memory_free(&memory);
    batch_free(&batch);
}
END_TEST

void add_task_tests(TCase *test_case)
{
    tcase_add_test(test_case, valid);
    tcase_add_test(test_case, no_rows);
    tcase_add_test(test_case, bad_executors);
    tcase_add_test(test_case, refused_calls);
    tcase_add_test(test_case, bad_targets);
    tcase_add_test(test_case, older_struct);
    tcase_add_test(test_case, large_work_is_shared);
    tcase_add_test(test_case, ignored_rows_part_nothing);
}
