/* Which kernel is in use. */
#ifndef XENT_DISPATCH_SELECT_H
#define XENT_DISPATCH_SELECT_H

#include "kernels/kernel.h"

/* One atomic load, but for the first call of the process. */
const struct xent_kernel *xent_active_kernel(void);

/* How a call is to move its data, whose gradients or probabilities have so many bytes, if they may go past the caches
   (else NULL). The same cost. */
enum xent_memory xent_choose_memory(const void *output, size_t bytes);

#endif
