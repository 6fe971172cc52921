/*
 * xent on a pthreadpool (https://github.com/Maratyszcza/pthreadpool; libpthreadpool-dev on Debian):
 *
 *     pthreadpool_t pool = pthreadpool_create(0);
 *     const xent_executor executor = xent_pthreadpool_executor(pool);
 *     options.executor = &executor;
 *
 * For files that are linked with -lpthreadpool. The library itself does not link it.
 *
 * Lifetime. An executor is a plain value that refers to the pool: copy it, keep it, forget it, but do not use it after
 * pthreadpool_destroy(pool). The pool stays the caller's, for other work too.
 *
 * Threads. One pool, by one executor or several, serves any number of threads; those that need it at once take turns.
 * A task that is itself running on the pool must not use it: it would wait for its own end. With an executor, a call is
 * as little fit for signal handlers as the pool is, and for a forked child, which has none of the pool's threads. The
 * pool's threads spin for a while before they sleep, so let it have no more of them than there are processors for it.
 *
 * Floating-point environment. The pool's threads keep their own control bits, which change no result: xent.h.
 */
#ifndef XENT_PTHREADPOOL_H
#define XENT_PTHREADPOOL_H

#include "xent.h"

#include <pthreadpool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The parallel_for of these executors: context is the pool. */
static inline void xent_pthreadpool_parallel_for(void *context, void (*task)(void *argument, size_t index),
                                                 void *argument, size_t tasks)
{
    pthreadpool_parallelize_1d((pthreadpool_t)context, task, argument, tasks, 0 /* the control bits as they are */);
}

/* An executor of all threads of the pool, the calling one among them. NULL, as for pthreadpool itself, is a pool of the
   calling thread alone; so pthreadpool_create's failure need not be one. */
static inline xent_executor xent_pthreadpool_executor(pthreadpool_t pool)
{
    xent_executor executor;
    executor.parallel_for = xent_pthreadpool_parallel_for;
    executor.context = pool;
    executor.threads = pool ? pthreadpool_get_threads_count(pool) : 1;
    return executor;
}

#ifdef __cplusplus
}
#endif

#endif
