/*
 * The first call of a process, by 64 threads at once, a thousand times: the choice of kernel is forgotten between
 * rounds. All threads must get the right results and end with the same kernel, and a xent_select that comes between
 * must win.
 *
 * dispatch/select.c is part of this file, so that what it keeps can be reset; the library's own is then not linked.
 */
#include "dispatch/select.c"

#include "run.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 64, CLASSES = 40 };

static size_t rounds;
static pthread_barrier_t start, end;
static float logits[CLASSES], loss, grad[CLASSES];

struct caller {
    bool selects; /* by name, rather than by a first call */
    size_t wrong;
    const struct xent_kernel *got;
};

/* Check's assertions are for one thread: only counts what is wrong. */
static void call(struct caller *caller)
{
    if (caller->selects) {
        caller->wrong += xent_select("scalar") != XENT_OK;
        caller->got = NULL;
        return;
    }
    float here, here_grad[CLASSES];
    const int32_t target = 7;
    const xent_status status = xent_fused_f32(logits, &target, 1, CLASSES, &here, here_grad, NULL);
    caller->wrong +=
        status != XENT_OK || memcmp(&here, &loss, sizeof loss) != 0 || memcmp(here_grad, grad, sizeof grad) != 0;
    caller->got = xent_active_kernel();
}

static void *work(void *argument)
{
    struct caller *caller = argument;
    for (size_t round = 0; round < rounds; ++round) {
        pthread_barrier_wait(&start);
        call(caller);
        pthread_barrier_wait(&end);
    }
    return NULL;
}

/* selectors: how many of the threads select. */
static void race(size_t selectors)
{
    static struct caller callers[THREADS];
    pthread_t ids[THREADS];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 18);
    pthread_barrier_init(&start, NULL, THREADS + 1);
    pthread_barrier_init(&end, NULL, THREADS + 1);
    for (size_t i = 0; i < THREADS; ++i) {
        callers[i] = (struct caller){.selects = i < selectors};
        ck_assert_int_eq(pthread_create(&ids[i], &attributes, work, &callers[i]), 0);
    }
    size_t differing = 0, lost = 0;
    for (size_t round = 0; round < rounds; ++round) {
        atomic_store(&active, NULL);
        pthread_barrier_wait(&start);
        pthread_barrier_wait(&end);
        const struct xent_kernel *chosen = atomic_load(&active);
        lost += selectors > 0 && strcmp(chosen->name, "scalar") != 0;
        for (size_t i = 0; selectors == 0 && i < THREADS; ++i)
            differing += callers[i].got != chosen;
    }
    for (size_t i = 0; i < THREADS; ++i)
        ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
    pthread_barrier_destroy(&start);
    pthread_barrier_destroy(&end);
    pthread_attr_destroy(&attributes);
    for (size_t i = 0; i < THREADS; ++i)
        ck_assert_msg(callers[i].wrong == 0, "thread %zu: %zu of %zu calls were wrong", i, callers[i].wrong, rounds);
    ck_assert_msg(differing == 0, "%zu threads saw another kernel than was chosen", differing);
    ck_assert_msg(lost == 0, "a choice by name was lost in %zu of %zu rounds", lost, rounds);
}

START_TEST(first_calls)
{
    race(0);
    ck_assert_str_eq(xent_isa(), xent_isas()[0]);
}
END_TEST

START_TEST(first_calls_and_a_choice)
{
    race(1);
}
END_TEST

int main(void)
{
    const char *scale = getenv("XENT_TEST_SCALE");
    rounds = (size_t)(1000 * (scale ? strtod(scale, NULL) : XENT_TEST_DEFAULT_SCALE));
    rounds = rounds < 1 ? 1 : rounds;
    printf("# %zu rounds of %d threads\n", rounds, THREADS);
    fflush(stdout);
    unsetenv("XENT_ISA");
    for (int j = 0; j < CLASSES; ++j)
        logits[j] = (float)(j * j % 11) - 5.0f;
    const int32_t target = 7;
    if (xent_fused_f32(logits, &target, 1, CLASSES, &loss, grad, NULL) != XENT_OK)
        return EXIT_FAILURE;

    TCase *tests = tcase_create("first calls");
    tcase_add_test(tests, first_calls);
    tcase_add_test(tests, first_calls_and_a_choice);
    return run_case("first calls", tests);
}
