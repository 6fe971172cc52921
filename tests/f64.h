/* The parts of the suite f64. */
#ifndef XENT_TESTS_F64_H
#define XENT_TESTS_F64_H

#include <check.h>

void add_f64_corners(Suite *suite);

#endif
