/* How a validated problem is cut into tasks. */
#ifndef XENT_DISPATCH_RUN_H
#define XENT_DISPATCH_RUN_H

#include "kernels/kernel.h"
#include "workers.h"

/* Computes all rows of the job, of which there are some, by the kernel. Returns the sum of the unrounded losses of the
   kept rows, in the order of docs/numerics.md. The job's sums are this function's. */
double xent_run_cross_entropy(const struct xent_kernel *kernel, struct xent_job *job, size_t rows,
                              const struct workers *workers);

#endif
