/*
 * What the files of the threads suite share.
 */
#ifndef XENT_TESTS_THREADS_H
#define XENT_TESTS_THREADS_H

#include <check.h>

/* tasks.c: what an executor is asked to do, and when it is not asked. */
void add_task_tests(TCase *test_case);

#endif
