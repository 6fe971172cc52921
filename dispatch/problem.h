/* The general call on a description whose struct is of this version. */
#ifndef XENT_DISPATCH_PROBLEM_H
#define XENT_DISPATCH_PROBLEM_H

#include "kernels/names.h"
#include "xent/xent.h"

/* control: what the caller's thread has put aside (control.h). */
xent_status xent_compute(const xent_problem *problem, uint64_t control);

#endif
