/*
 * Pools of threads, one for each number of threads that is asked for. Workers wait for the next job by spinning for a
 * while, as engines' pools do, and then asleep, so that a pool that is not in use takes no CPU.
 */
#include "bench.h"

#include <xent/xent.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum {
    WORKER_SPINS = 2000, /* some 100 microseconds */
    CALLER_SPINS = 200   /* then it lets others have its CPU, one of which may be what it waits for */
};

struct pool {
    xent_executor executor;
    pthread_mutex_t mutex; /* of a change of round */
    pthread_cond_t changed;
    atomic_uint round;  /* one more for every job */
    atomic_size_t next; /* the first task that nobody has taken */
    atomic_size_t busy; /* workers that may still touch the job */
    void (*task)(void *argument, size_t index);
    void *argument;
    size_t tasks;
};

static struct pool *pools[BENCH_MAX_THREADS + 1];

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static void take_tasks(struct pool *pool)
{
    for (;;) {
        size_t index = atomic_fetch_add(&pool->next, 1);
        if (index >= pool->tasks)
            return;
        pool->task(pool->argument, index);
    }
}

static unsigned await_round_after(struct pool *pool, unsigned last)
{
    for (int i = 0; i < WORKER_SPINS && atomic_load(&pool->round) == last; i++)
        relax();
    if (atomic_load(&pool->round) == last) {
        pthread_mutex_lock(&pool->mutex);
        while (atomic_load(&pool->round) == last)
            pthread_cond_wait(&pool->changed, &pool->mutex);
        pthread_mutex_unlock(&pool->mutex);
    }
    return last + 1; /* the next round waits for this worker */
}

static void *work(void *argument)
{
    struct pool *pool = argument;
    for (unsigned round = 0;;) {
        round = await_round_after(pool, round);
        take_tasks(pool);
        atomic_fetch_sub(&pool->busy, 1);
    }
    return NULL;
}

static void parallel_for(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    struct pool *pool = context;
    pool->task = task;
    pool->argument = argument;
    pool->tasks = tasks;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->busy, pool->executor.threads - 1);
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->round, 1);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->mutex);
    take_tasks(pool);
    for (int i = 0; atomic_load(&pool->busy) > 0; i++) {
        if (i < CALLER_SPINS)
            relax();
        else
            sched_yield();
    }
}

static struct pool *make_pool(size_t threads)
{
    static struct pool made[BENCH_MAX_THREAD_COUNTS];
    static size_t count;
    if (count == BENCH_MAX_THREAD_COUNTS)
        bench_fail("more than %d numbers of threads", BENCH_MAX_THREAD_COUNTS);
    struct pool *pool = &made[count++];
    pool->executor = (xent_executor){.parallel_for = parallel_for, .context = pool, .threads = threads};
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->changed, NULL);
    for (size_t i = 1; i < threads; i++) {
        pthread_t thread;
        int error = pthread_create(&thread, NULL, work, pool);
        if (error)
            bench_fail("no thread %zu of %zu: %s", i + 1, threads, strerror(error));
        pthread_detach(thread);
    }
    return pool;
}

const xent_executor *bench_executor(size_t threads)
{
    if (threads == 1)
        return NULL;
    if (!pools[threads])
        pools[threads] = make_pool(threads);
    return &pools[threads]->executor;
}

void bench_parallel(size_t threads, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    const xent_executor *executor = bench_executor(threads);
    if (executor)
        executor->parallel_for(executor->context, task, argument, tasks);
    else
        for (size_t i = 0; i < tasks; i++)
            task(argument, i);
}
