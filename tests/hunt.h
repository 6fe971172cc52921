/*
 * The part of the accuracy suite that hunts for the rows with the largest errors.
 */
#ifndef XENT_TESTS_HUNT_H
#define XENT_TESTS_HUNT_H

#include <check.h>

void add_hunt_tests(TCase *test_case);

#endif
