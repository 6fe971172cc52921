/*
 * See executors.h.
 */
#include "executors.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MOST_TASKS_PER_THREAD = 16, /* more would cost an executor more than it gains */
    MOST_CALLS = 16             /* of parallel_for by one call, for any shape that the tests have */
};

typedef void task_function(void *argument, size_t index);

/* A call of parallel_for. */
struct loop {
    task_function *task;
    void *argument;
    size_t tasks;
    atomic_size_t next;
};

static void run_in_order(struct watched *watched, struct loop *loop)
{
    (void)watched;
    for (size_t i = 0; i < loop->tasks; i++)
        loop->task(loop->argument, i);
}

static void run_reversed(struct watched *watched, struct loop *loop)
{
    (void)watched;
    for (size_t i = loop->tasks; i > 0; i--)
        loop->task(loop->argument, i - 1);
}

static void run_shuffled(struct watched *watched, struct loop *loop)
{
    size_t *indices = allocate(loop->tasks * sizeof *indices);
    for (size_t i = 0; i < loop->tasks; i++)
        indices[i] = i;
    for (size_t i = loop->tasks; i > 1; i--) {
        size_t other = rng_below(&watched->rng, i), index = indices[other];
        indices[other] = indices[i - 1];
        indices[i - 1] = index;
    }
    for (size_t i = 0; i < loop->tasks; i++)
        loop->task(loop->argument, indices[i]);
    free(indices);
}

static void *work(void *argument)
{
    struct loop *loop = argument;
    size_t i;
    while ((i = atomic_fetch_add(&loop->next, 1)) < loop->tasks)
        loop->task(loop->argument, i);
    return NULL;
}

/* Threads of their own for every loop, so that nothing but the loop orders what they do. */
static void run_at_once(struct watched *watched, struct loop *loop)
{
    pthread_t ids[MAX_WORKERS];
    size_t others = 0;
    while (others + 1 < watched->workers && pthread_create(&ids[others], NULL, work, loop) == 0)
        others++;
    work(loop);
    while (others > 0)
        pthread_join(ids[--others], NULL);
}

static void complain(struct watched *watched, bool wrong, const char *complaint)
{
    if (wrong && !watched->complaint)
        watched->complaint = complaint;
}

static void parallel_for(void *context, task_function *task, void *argument, size_t tasks)
{
    static void (*const runners[ORDERS])(struct watched *, struct loop *) = {run_in_order, run_reversed, run_shuffled,
                                                                             run_at_once};
    struct watched *watched = context;
    complain(watched, !pthread_equal(watched->owner, pthread_self()), "parallel_for called from another thread");
    complain(watched, watched->running, "parallel_for called from a task");
    complain(watched, !task, "no function to call");
    complain(watched, tasks == 0, "parallel_for called for no tasks");
    complain(watched, tasks > 0 && (tasks - 1) / MOST_TASKS_PER_THREAD >= watched->executor.threads,
             "far more tasks than threads");
    complain(watched, ++watched->calls > MOST_CALLS, "parallel_for called more than a few times");
    if (watched->most_tasks < tasks)
        watched->most_tasks = tasks;
    watched->running = true;
    struct loop loop = {.task = task, .argument = argument, .tasks = tasks};
    runners[watched->order](watched, &loop);
    watched->running = false;
}

void watched_init(struct watched *watched, enum order order, size_t threads, uint64_t stream)
{
    *watched = (struct watched){.executor = {parallel_for, watched, threads},
                                .order = order,
                                .workers = threads < MAX_WORKERS ? threads : MAX_WORKERS,
                                .rng = rng_stream(stream),
                                .owner = pthread_self()};
}

void watched_init_any(struct watched *watched, struct rng *rng)
{
    static const size_t odd[] = {1, 64, 1000, SIZE_MAX / 16, SIZE_MAX / 4, SIZE_MAX / 4 + 1, SIZE_MAX - 1, SIZE_MAX};
    size_t threads = rng_chance(rng, 0.2) ? odd[rng_below(rng, sizeof odd / sizeof odd[0])] : 1 + rng_below(rng, 20);
    watched_init(watched, (enum order)rng_below(rng, ORDERS), threads, rng_next(rng));
    watched->workers = 1 + rng_below(rng, 8);
}

struct watched_text watched_describe(const struct watched *watched)
{
    static const char *const orders[ORDERS] = {"in order", "reversed", "shuffled", "at once"};
    struct watched_text description;
    snprintf(description.text, sizeof description.text, "tasks %s, %zu threads, %zu workers", orders[watched->order],
             watched->executor.threads, watched->workers);
    return description;
}

void watched_expect_sane(const struct watched *watched)
{
    if (watched->complaint)
        fail_case("%s (%zu calls of up to %zu tasks)", watched->complaint, watched->calls, watched->most_tasks);
}

void watched_expect_unused(const struct watched *watched)
{
    if (watched->calls > 0)
        fail_case("the executor was called %zu times, for up to %zu tasks", watched->calls, watched->most_tasks);
}
