/*
 * See adapters.h.
 */
#include "adapters.h"

#include "../calls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

const size_t adapter_threads[] = {1, 2, 3, 7, 16};
const size_t adapter_thread_counts = sizeof adapter_threads / sizeof adapter_threads[0];

static const struct {
    size_t rows, classes;
} shapes[] = {{2, 60000}, {300, 150}, {10000, 7}};

void check_adapter(const char *name, const xent_executor *executor)
{
    struct rng rng = rng_stream(1);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct batch batch = batch_new(shapes[i].rows, shapes[i].classes);
        batch_fill(&batch, &rng);
        name_case("%s, %zu threads: %zu rows of %zu classes", name, executor->threads, batch.rows, batch.classes);
        call_compare_all(&batch, executor);
        batch_free(&batch);
    }
}

/* A thread that makes the same call again and again. */
struct user {
    const xent_executor *executor;
    struct batch batch;
    struct call call;
    struct call_memory expected, got;
    size_t wrong;
};

static void *use(void *argument)
{
    struct user *user = argument;
    for (size_t repeat = 0; repeat < 20; repeat++) {
        call_run(&user->call, user->executor, &user->got);
        user->wrong += !call_same(&user->got, &user->expected);
    }
    return NULL;
}

void check_adapter_shared(const char *name, const xent_executor *executor)
{
    enum { USERS = 2 };
    struct user users[USERS];
    pthread_t ids[USERS];
    struct rng rng = rng_stream(2);
    name_case("%s, %zu threads, used by %d threads at once", name, executor->threads, USERS);
    for (size_t i = 0; i < USERS; i++) {
        users[i] = (struct user){.executor = executor, .batch = batch_new(400, 150 + i)};
        batch_fill(&users[i].batch, &rng);
        users[i].call = (struct call){.batch = &users[i].batch, .place = IN_PLACE};
        users[i].expected = call_memory_new(&users[i].batch);
        users[i].got = call_memory_new(&users[i].batch);
        call_run(&users[i].call, NULL, &users[i].expected);
    }
    for (size_t i = 0; i < USERS; i++)
        ck_assert_int_eq(pthread_create(&ids[i], NULL, use, &users[i]), 0);
    for (size_t i = 0; i < USERS; i++)
        ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
    for (size_t i = 0; i < USERS; i++) {
        if (users[i].wrong > 0)
            fail_case("thread %zu: %zu calls were wrong", i, users[i].wrong);
        call_memory_free(&users[i].got);
        call_memory_free(&users[i].expected);
        batch_free(&users[i].batch);
    }
}

/* Tasks that each wait for all others, but not for ever. */
struct meeting {
    atomic_size_t arrived, met;
    size_t tasks;
    time_t deadline;
};

static void meet(void *argument, size_t index)
{
    struct meeting *meeting = argument;
    (void)index;
    atomic_fetch_add(&meeting->arrived, 1);
    while (atomic_load(&meeting->arrived) < meeting->tasks && time(NULL) < meeting->deadline)
        ;
    if (atomic_load(&meeting->arrived) == meeting->tasks)
        atomic_fetch_add(&meeting->met, 1);
}

void check_tasks_at_once(const char *name, const xent_executor *executor)
{
    struct meeting meeting = {.tasks = executor->threads, .deadline = time(NULL) + 20};
    name_case("%s, as many tasks at once as threads", name);
    executor->parallel_for(executor->context, meet, &meeting, meeting.tasks);
    if (atomic_load(&meeting.met) != meeting.tasks)
        fail_case("only %zu of %zu tasks met all others", atomic_load(&meeting.met), meeting.tasks);
}

enum { MOST_TASKS = 1000 };

static void count_task(void *argument, size_t index)
{
    atomic_int *counts = argument;
    atomic_fetch_add(&counts[index], 1);
}

void check_parallel_for(const char *name, const xent_executor *executor)
{
    static const size_t tasks[] = {0, 1, 2, 3, 15, 16, 17, 100, MOST_TASKS};
    for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++) {
        atomic_int counts[MOST_TASKS + 1];
        for (size_t j = 0; j <= MOST_TASKS; j++)
            atomic_init(&counts[j], 0);
        name_case("%s, %zu threads, %zu tasks", name, executor->threads, tasks[i]);
        executor->parallel_for(executor->context, count_task, counts, tasks[i]);
        for (size_t j = 0; j <= MOST_TASKS; j++)
            if (atomic_load(&counts[j]) != (j < tasks[i]))
                fail_case("task %zu ran %d times", j, atomic_load(&counts[j]));
    }
}
