/*
 * xent on OpenMP's threads:
 *
 *     const xent_executor executor = xent_openmp_executor(0);
 *     options.executor = &executor;
 *
 * For files that are compiled and linked with -fopenmp. The library itself was built without OpenMP and needs none of
 * it: which runtime the threads come from (libgomp, libomp) is decided by the compiler of the file that includes this.
 *
 * Lifetime. An executor is a plain value with nothing behind it: copy it, keep it, forget it. The threads are OpenMP's,
 * which starts them when they are first needed and keeps them.
 *
 * Threads. One executor serves any number of threads at once; each of their calls then has a team of its own, so that
 * together they run threads times as many. A call made inside a parallel region runs its tasks on the calling thread
 * alone, unless nested regions are allowed (omp_set_max_active_levels). With an executor, a call is as little fit for
 * signal handlers as OpenMP is, and for a forked child whose parent had already used OpenMP: with libgomp it would wait
 * for threads that the child does not have.
 *
 * Floating-point environment. OpenMP's threads keep their own control bits, which change no result: xent.h.
 */
#ifndef XENT_OPENMP_H
#define XENT_OPENMP_H

#ifndef _OPENMP
#error "xent/openmp.h needs OpenMP: compile and link this file with -fopenmp"
#else

#include "xent.h"

#include <omp.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The parallel_for of these executors: their number of threads is the value of context, which points to nothing. */
static inline void xent_openmp_parallel_for(void *context, void (*task)(void *argument, size_t index), void *argument,
                                            size_t tasks)
{
    /* The same number for however few tasks: a runtime may end threads that a smaller team does without. */
    const int threads = (int)(intptr_t)context;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (size_t i = 0; i < tasks; ++i)
        task(argument, i);
}

/*
 * An executor of that many threads, the calling one among them. 0 (or less): as many as OpenMP would use now,
 * omp_get_max_threads(), which follows OMP_NUM_THREADS and the number of processors. OpenMP may provide fewer
 * (OMP_DYNAMIC, OMP_THREAD_LIMIT); every task runs all the same.
 */
static inline xent_executor xent_openmp_executor(int threads)
{
    xent_executor executor;
    const int team = threads > 0 ? threads : omp_get_max_threads();
    executor.parallel_for = xent_openmp_parallel_for;
    executor.context = (void *)(intptr_t)team;
    executor.threads = (size_t)team;
    return executor;
}

#ifdef __cplusplus
}
#endif

#endif
#endif
