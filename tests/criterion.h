/*
 * What the files of the criterion suite share: problems of the general call in either type of numbers.
 */
#ifndef XENT_TESTS_CRITERION_H
#define XENT_TESTS_CRITERION_H

#include "support.h"

/* Whether the library takes this type of numbers. */
bool dtype_accepted(xent_dtype dtype);
const char *dtype_name(xent_dtype dtype);
size_t dtype_size(xent_dtype dtype);

/* Number i of an array of that type. */
double number_get(xent_dtype dtype, const void *array, size_t i);
void number_put(xent_dtype dtype, void *array, size_t i, double value);

/* Neighbours of value in that type are so far apart. */
double number_ulp(xent_dtype dtype, double value);

/* Calls test for each kernel and each type of numbers that there is. */
void for_each_kernel(void (*test)(const char *isa, xent_dtype dtype));

void add_golden_tests(TCase *test_case);   /* criterion_golden.c */
void add_property_tests(TCase *test_case); /* criterion_properties.c */
void add_status_tests(TCase *test_case);   /* criterion_status.c */
void add_large_tests(TCase *test_case);    /* criterion_large.c */

#endif
