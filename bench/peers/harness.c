/*
 * What the driver needs of C: a pool of threads, a clock around calls of a peer or a floor, and writes that leave the
 * caches without what they wrote.
 */
#include "peer.h"

#include "../bench.h"

#include <fenv.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum {
    MAX_THREADS = 64,
    SPIN_NANOSECONDS = 200000 /* threads wait so long for the next call before they sleep, like OpenMP's */
};

/* One parallel_for. Threads take the tasks in turn. */
struct job {
    void (*task)(void *argument, size_t index);
    void *argument;
    size_t tasks;
    atomic_size_t next;
};

static struct job job;
static pthread_t workers[MAX_THREADS];
static size_t worker_count;
static atomic_uint generation; /* of the job: workers wait for it to change */
static atomic_size_t running;  /* workers that have not finished the job */
static atomic_bool stopping;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static int64_t nanoseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(void)
{
    for (size_t i; (i = atomic_fetch_add(&job.next, 1)) < job.tasks;)
        job.task(job.argument, i);
}

static unsigned next_generation(unsigned seen)
{
    int64_t end = nanoseconds(CLOCK_MONOTONIC) + SPIN_NANOSECONDS;
    do {
        for (size_t i = 0; i < 100; i++) {
            unsigned now = atomic_load(&generation);
            if (now != seen)
                return now;
            relax();
        }
    } while (nanoseconds(CLOCK_MONOTONIC) < end);
    pthread_mutex_lock(&lock);
    while (atomic_load(&generation) == seen)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return atomic_load(&generation);
}

static void *worker(void *argument)
{
    (void)argument;
    unsigned seen = 0;
    for (;;) {
        seen = next_generation(seen);
        if (atomic_load(&stopping))
            return NULL;
        work();
        atomic_fetch_sub(&running, 1);
    }
}

static void announce(void)
{
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&generation, 1);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void parallel_for(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context;
    job.task = task;
    job.argument = argument;
    job.tasks = tasks;
    atomic_store(&job.next, 0);
    if (worker_count > 0 && tasks > 1) {
        atomic_store(&running, worker_count);
        announce();
    }
    work();
    while (atomic_load(&running) > 0)
        relax();
}

static struct peer_executor executor = {parallel_for, NULL, 1};

/* The executor of every peer: the calling thread and threads - 1 others. NULL if they cannot be had. */
PEER_API const struct peer_executor *harness_start(size_t threads)
{
    if (threads < 1 || threads > MAX_THREADS)
        return NULL;
    while (worker_count + 1 < threads && pthread_create(&workers[worker_count], NULL, worker, NULL) == 0)
        worker_count++;
    executor.threads = worker_count + 1;
    return executor.threads == threads ? &executor : NULL;
}

PEER_API void harness_stop(void)
{
    atomic_store(&stopping, true);
    announce();
    for (size_t i = 0; i < worker_count; i++)
        pthread_join(workers[i], NULL);
    worker_count = 0;
}

/* What the clock showed around some calls. */
struct harness_times {
    double wall, on_cpu; /* seconds; the latter of all threads together */
};

/* Makes some calls, and then others that are timed. */
PEER_API void harness_time(void (*run)(const struct peer_call *call), const struct peer_call *const *calls,
                           size_t untimed, size_t count, struct harness_times *times)
{
    for (size_t i = 0; i < untimed; i++)
        run(*calls++);
    int64_t on_cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), wall = nanoseconds(CLOCK_MONOTONIC);
    for (size_t i = 0; i < count; i++)
        run(calls[i]);
    times->wall = 1e-9 * (double)(nanoseconds(CLOCK_MONOTONIC) - wall);
    times->on_cpu = 1e-9 * (double)(nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - on_cpu);
}

/* Takes back what a library may have done to the calling thread's rounding and subnormal numbers. */
PEER_API void harness_default_floating_point(void)
{
    fesetenv(FE_DFL_ENV);
}

/* The name "operation/variant" of a floor, or NULL if there are not so many. */
PEER_API const char *harness_floor(size_t index)
{
    static char name[64];
    size_t count;
    const struct bench_floor *floors = bench_floors(&count);
    if (index >= count)
        return NULL;
    snprintf(name, sizeof name, "%s/%s", floors[index].operation, floors[index].variant);
    return name;
}

/* A floor of a whole array, which every thread runs on its own part. */
struct floor_job {
    const struct bench_floor *floor;
    const float *from;
    float *to;
    size_t count;
};

static void floor_part(void *argument, size_t index)
{
    const struct floor_job *part = argument;
    size_t blocks = part->count / BENCH_BLOCK;
    size_t first = blocks * index / executor.threads * BENCH_BLOCK;
    size_t last = blocks * (index + 1) / executor.threads * BENCH_BLOCK;
    part->floor->run(part->from + first, part->to + first, last - first, part->floor->walk);
}

static void run_floor(const struct bench_floor *floor, const float *from, float *to, size_t count)
{
    struct floor_job part = {floor, from, to, count};
    parallel_for(NULL, floor_part, &part, executor.threads);
}

/* The same for floor number index, on arrays of count floats. */
PEER_API void harness_time_floor(size_t index, const float *const *from, float *const *to, size_t count, size_t untimed,
                                 size_t calls, struct harness_times *times)
{
    size_t floor_count;
    const struct bench_floor *floor = bench_floors(&floor_count) + index;
    for (size_t i = 0; i < untimed; i++)
        run_floor(floor, *from++, *to++, count);
    int64_t on_cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), wall = nanoseconds(CLOCK_MONOTONIC);
    for (size_t i = 0; i < calls; i++)
        run_floor(floor, from[i], to[i], count);
    times->wall = 1e-9 * (double)(nanoseconds(CLOCK_MONOTONIC) - wall);
    times->on_cpu = 1e-9 * (double)(nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - on_cpu);
}

/*
 * Copies an array and leaves the copy in memory, not in the caches, where the processor has stores that do so. Both
 * arrays are aligned to 64 bytes.
 */
PEER_API void harness_restore(float *to, const float *from, size_t count)
{
#if defined(__x86_64__)
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        _mm_stream_ps(to + i, _mm_load_ps(from + i));
    _mm_sfence();
    memcpy(to + i, from + i, (count - i) * sizeof(float));
#else
    memcpy(to, from, count * sizeof(float));
#endif
}

/* The same, leaving in the caches what fits there. In pieces, because a large memcpy takes streaming stores too. */
PEER_API void harness_restore_cached(float *to, const float *from, size_t count)
{
    const size_t piece = 16384;
    for (size_t i = 0; i < count; i += piece)
        memcpy(to + i, from + i, (count - i < piece ? count - i : piece) * sizeof(float));
}
