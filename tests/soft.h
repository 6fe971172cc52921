/* The parts of the suite soft. */
#ifndef XENT_TESTS_SOFT_H
#define XENT_TESTS_SOFT_H

#include <check.h>

void add_soft_corners(Suite *suite);

#endif
