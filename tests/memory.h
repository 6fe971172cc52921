/*
 * What the files of the memory suite share.
 */
#ifndef XENT_TESTS_MEMORY_H
#define XENT_TESTS_MEMORY_H

#include "support.h"

void add_layout_tests(Suite *suite);   /* layouts.c */
void add_distance_tests(Suite *suite); /* distances.c */
void add_ignored_tests(Suite *suite);  /* ignored.c */

#endif
