/* A few rows of many classes on many threads. */
#ifndef XENT_DISPATCH_SPLIT_H
#define XENT_DISPATCH_SPLIT_H

#include "kernels/kernel.h"
#include "workers.h"

/* Computes all rows of a job of floats with plain labels, neighbouring classes, and neither smoothing, row weights nor
   dloss: each row by several tasks, about as many at a time as tasks says. Losses are added to the job's sums. */
void xent_split_rows(const struct xent_kernel *kernel, const struct xent_job *job, size_t rows,
                     const struct workers *workers, size_t tasks);

#endif
