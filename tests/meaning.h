/*
 * What the files of the meaning suite share.
 */
#ifndef XENT_TESTS_MEANING_H
#define XENT_TESTS_MEANING_H

#include "support.h"

/* Selects kernel number kernel of xent_isas() and names the case. */
void begin_meaning(const char *name, int kernel);
int kernel_count(void);

/* The loss of one row, and its gradient unless that is NULL. */
float one_loss(const float *logits, size_t classes, int32_t target, float *grad);

/* special.c: infinities, NaN, masked classes, single classes, results at the ends of the float range. */
void add_special_tests(TCase *test_case);

#endif
