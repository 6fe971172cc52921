/* Which kernel is in use. */
#ifndef XENT_DISPATCH_SELECT_H
#define XENT_DISPATCH_SELECT_H

#include "kernels/kernel.h"

/* One atomic load, but for the first call of the process. */
const struct xent_kernel *xent_active_kernel(void);

/* How a job whose layout and output are known is to move its data; both arrays span so many bytes. The same cost. */
struct xent_memory xent_choose_memory(const struct xent_job *job, size_t logits_bytes, size_t out_bytes);

#endif
