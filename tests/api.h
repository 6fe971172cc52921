/*
 * What the files of the api suite share: a small problem whose every byte is watched.
 */
#ifndef XENT_TESTS_API_H
#define XENT_TESTS_API_H

#include "support.h"

enum { ROWS = 3, CLASSES = 4, STRIDE = 6, ROOM = ROWS * STRIDE + 8, NO_ROW = 12345 };

/* The arrays of a problem, and room after each that nothing may touch. */
struct arrays {
    float logits[ROOM], grad[ROOM], loss[ROOM], lse[ROOM];
    int32_t targets[ROOM];
    int64_t wide_targets[ROOM];
};

/* A call that is valid until a test spoils something. */
struct problem {
    struct arrays arrays;
    const float *logits;
    const int32_t *targets;
    const int64_t *wide_targets;
    size_t rows, classes;
    float *loss, *grad;
    xent_options options;
    const xent_options *options_given; /* &options */
    size_t error_row;
};

/* Fills in a valid problem. It must stay where it is. */
void problem_init(struct problem *problem);

xent_status problem_call(struct problem *problem);
xent_status problem_call_wide(struct problem *problem);

/* Both calls return this error, write nothing to the arrays, and error_row only if the error is XENT_ERR_TARGET. */
void expect_refused(struct problem *problem, const char *what, xent_status expected);

/* Both calls succeed. */
void expect_accepted(struct problem *problem, const char *what);

void add_overlap_tests(TCase *test_case); /* overlap.c */
void add_option_tests(TCase *test_case);  /* options.c */

#endif
