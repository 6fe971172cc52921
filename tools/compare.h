/* The demo's comparison of the kernels that this machine can run. */
#ifndef XENT_TOOLS_COMPARE_H
#define XENT_TOOLS_COMPARE_H

#include <stdbool.h>

/* Time every kernel and compare their bits; prints a table. False if bits differ or something went wrong. */
bool compare_kernels(void);

#endif
