/* The threads that compute a call. */
#ifndef XENT_DISPATCH_WORKERS_H
#define XENT_DISPATCH_WORKERS_H

#include "kernels/names.h"
#include "xent/xent.h"

struct workers {
    const xent_executor *executor; /* NULL: the thread of the call alone */
    uint64_t control;              /* what that thread has put aside: dispatch/control.h */
};

/* Runs task(argument, i) for every i below tasks on the executor, which there is. Its threads put their control bits
   aside for each task; the thread of the call has its own back meanwhile, as it may start threads, which inherit them.
 */
void xent_in_parallel(const struct workers *workers, void (*task)(void *argument, size_t index), void *argument,
                      size_t tasks);

#endif
