/*
 * Families of finite rows over which the accuracy is measured: the usual ones and the ones that hurt.
 */
#ifndef XENT_TESTS_FAMILIES_H
#define XENT_TESTS_FAMILIES_H

#include "support.h"

extern const size_t family_count;
const char *family_name(size_t family);

/* The row of that number, the same for the same seed, and its target: the largest logit, the smallest or any, by turns.
 */
size_t family_row(size_t family, size_t classes, size_t row, float *x);

#endif
