/* Which kernel is in use. */
#ifndef XENT_DISPATCH_SELECT_H
#define XENT_DISPATCH_SELECT_H

#include "kernels/kernel.h"

/* One atomic load, but for the first call of the process. */
const struct xent_kernel *xent_active_kernel(void);

#endif
