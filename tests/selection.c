/*
 * Which kernel runs: the names, the choice by call and by environment, and what no call may touch: errno, the
 * floating-point control bits, other threads.
 */
#include "batch.h"
#include "fpcontrol.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* What XENT_ISA is tried with, and the kernel that a new process then used. NULL: not set. */
static struct wish {
    const char *value;
    char used[32];
} wishes[16];
static size_t wish_count;

/* The choice is made once in a process, so each wish has a process of its own, made before this one has chosen. */
static void try_wish(const char *value)
{
    struct wish *wish = &wishes[wish_count++];
    wish->value = value;
    int ends[2];
    if (pipe(ends) != 0)
        return;
    pid_t child = fork();
    if (child == 0) {
        if (value)
            setenv("XENT_ISA", value, 1);
        else
            unsetenv("XENT_ISA");
        const char *used = xent_isa();
        _exit(write(ends[1], used, strlen(used)) > 0 ? 0 : 1);
    }
    close(ends[1]);
    ssize_t bytes = read(ends[0], wish->used, sizeof wish->used - 1);
    wish->used[bytes > 0 ? bytes : 0] = '\0';
    close(ends[0]);
    waitpid(child, NULL, 0);
}

static bool listed(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

START_TEST(environment)
{
    for (size_t i = 0; i < wish_count; i++) {
        const char *value = wishes[i].value;
        const char *expected = value && listed(xent_isas(), value) ? value : xent_isas()[0];
        ck_assert_msg(strcmp(wishes[i].used, expected) == 0, "XENT_ISA=%s: uses \"%s\", expected \"%s\"",
                      value ? value : "(unset)", wishes[i].used, expected);
    }
}
END_TEST

START_TEST(lists)
{
    const char *const *isas = xent_isas(), *const *built = xent_built_isas();
    size_t count = 0, built_count = 0;
    while (isas[count])
        count++;
    while (built[built_count])
        built_count++;
    ck_assert_uint_gt(count, 0);
    ck_assert_str_eq(isas[count - 1], "scalar");
    ck_assert_str_eq(built[built_count - 1], "scalar");
    for (size_t i = 0; i < count; i++) {
        ck_assert(listed(built, isas[i]));
        for (size_t j = 0; j < i; j++)
            ck_assert_str_ne(isas[i], isas[j]);
    }
    /* What can run is in the same order in both lists. */
    size_t at = 0;
    for (size_t i = 0; i < built_count; i++)
        if (listed(isas, built[i]))
            ck_assert_str_eq(built[i], isas[at++]);
    ck_assert_uint_eq(at, count);
}
END_TEST

START_TEST(missing_features)
{
    for (const char *const *name = xent_built_isas(); *name; name++) {
        const char *missing = xent_isa_missing(*name);
        ck_assert_ptr_nonnull(missing);
        ck_assert_msg((missing[0] == '\0') == listed(xent_isas(), *name), "%s misses \"%s\"", *name, missing);
    }
    ck_assert_ptr_null(xent_isa_missing("nonsense"));
    ck_assert_ptr_null(xent_isa_missing(""));
    ck_assert_ptr_null(xent_isa_missing(NULL));
}
END_TEST

START_TEST(selection)
{
    static const char *const unknown[] = {"", "nonsense", "AVX2", "avx", "avx2 ", "scala", "scalarr", "avx5120"};
    for (const char *const *name = xent_built_isas(); *name; name++) {
        const char *before = xent_isa();
        bool available = listed(xent_isas(), *name);
        name_case("xent_select(\"%s\")", *name);
        expect_status("status", xent_select(*name), available ? XENT_OK : XENT_ERR_ISA_UNAVAILABLE);
        ck_assert_str_eq(xent_isa(), available ? *name : before);
        for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
            name_case("xent_select(\"%s\")", unknown[i]);
            expect_status("status", xent_select(unknown[i]), XENT_ERR_ISA_UNKNOWN);
            ck_assert_str_eq(xent_isa(), available ? *name : before);
        }
        name_case("xent_select(NULL)");
        expect_status("status", xent_select(NULL), XENT_ERR_NULL);
        ck_assert_str_eq(xent_isa(), available ? *name : before);
    }
}
END_TEST

/* A batch with everything in it, and room for all results. */
struct work {
    struct batch batch;
    struct scratch scratch;
    struct results expected, got;
};

static struct work work_new(uint64_t stream, size_t rows, size_t classes)
{
    struct rng rng = rng_stream(stream);
    struct work work = {.batch = batch_new(rows, classes)};
    batch_fill(&work.batch, &rng);
    work.scratch = scratch_new(&work.batch);
    work.expected = results_new(&work.batch);
    work.got = results_new(&work.batch);
    return work;
}

static void work_free(struct work *work)
{
    results_free(&work->got);
    results_free(&work->expected);
    scratch_free(&work->scratch);
    batch_free(&work->batch);
}

START_TEST(errno_is_untouched)
{
    for (size_t classes = 1; classes < 1200; classes += 113) {
        struct work work = work_new(200 + classes, 12, classes);
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            name_case("errno, %s, %zu classes", *isa, classes);
            errno = 0x5eed;
            use_kernel(*isa);
            batch_run(&work.batch, &plain_layout, &work.scratch, &work.got);
            expect_status("a refused call", xent_fused_f32(NULL, NULL, 1, 1, NULL, NULL, NULL), XENT_ERR_NULL);
            if (errno != 0x5eed)
                fail_case("errno is %d", errno);
        }
        work_free(&work);
    }
}
END_TEST

START_TEST(control_bits_are_kept)
{
    const uint64_t control = fp_control_get();
    const uint64_t tried[] = {control, control | fp_control_flush, control | fp_control_round_up,
                              control | fp_control_round_up | fp_control_flush};
    struct work work = work_new(300, 12, 700);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t i = 0; i < sizeof tried / sizeof tried[0]; i++) {
            name_case("control bits %#llx, %s", (unsigned long long)tried[i], *isa);
            fp_control_set(tried[i]);
            batch_run(&work.batch, &plain_layout, &work.scratch, &work.got);
            uint64_t after = fp_control_get();
            fp_control_set(control);
            if ((after & fp_control_mask) != (tried[i] & fp_control_mask))
                fail_case("control bits became %#llx", (unsigned long long)after);
        }
    }
    work_free(&work);
}
END_TEST

enum { THREADS = 4 };

struct thread {
    struct work work;
    size_t repeats, wrong;
};

/* Computes while the kernel in use changes under it. Only counts what is wrong: Check's assertions are for one thread.
 */
static void *compute(void *argument)
{
    struct thread *thread = argument;
    const struct batch *batch = &thread->work.batch;
    const struct results *expected = &thread->work.expected, *got = &thread->work.got;
    size_t bytes = batch->rows * batch->classes * sizeof(float);
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    for (size_t repeat = 0; repeat < thread->repeats; repeat++) {
        float *x = thread->work.scratch.logits, *grad = repeat % 2 ? x : got->grad;
        memcpy(x, batch->logits, bytes);
        xent_status status = xent_fused_f32(x, batch->targets, batch->rows, batch->classes, got->loss, grad, &options);
        if (status != XENT_OK || memcmp(got->loss, expected->loss, batch->rows * sizeof(float)) != 0 ||
            memcmp(grad, expected->grad, bytes) != 0)
            thread->wrong++;
    }
    return NULL;
}

START_TEST(threads)
{
    struct thread workers[THREADS];
    pthread_t ids[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        name_case("threads: thread %zu", i);
        workers[i] = (struct thread){.work = work_new(400 + i, 16, 700 + 300 * i), .repeats = scaled(2000)};
        batch_oracle(&workers[i].work.batch, &workers[i].work.scratch, &workers[i].work.expected);
    }
    name_case("threads");
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&ids[i], NULL, compute, &workers[i]), 0);
    for (size_t repeat = 0; repeat < scaled(50000); repeat++)
        for (const char *const *isa = xent_isas(); *isa; isa++)
            use_kernel(*isa);
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
    for (size_t i = 0; i < THREADS; i++) {
        if (workers[i].wrong > 0)
            fail_case("thread %zu: %zu of %zu calls gave other bits", i, workers[i].wrong, workers[i].repeats);
        work_free(&workers[i].work);
    }
}
END_TEST

int main(void)
{
    static const char *const values[] = {NULL, "", "nonsense", "SCALAR", "scalar ", "avx512", "avx2", "neon", "scalar"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        try_wish(values[i]);

    Suite *suite = suite_create("selection");
    TCase *choice = add_case(suite, "choice");
    tcase_add_test(choice, environment);
    tcase_add_test(choice, lists);
    tcase_add_test(choice, missing_features);
    tcase_add_test(choice, selection);
    TCase *surroundings = add_case(suite, "surroundings");
    tcase_add_test(surroundings, errno_is_untouched);
    tcase_add_test(surroundings, control_bits_are_kept);
    tcase_add_test(surroundings, threads);
    return run_suite(suite);
}
