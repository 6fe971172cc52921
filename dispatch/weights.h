/* What the rows of a job count: labels checked, weights checked and added up. */
#ifndef XENT_DISPATCH_WEIGHTS_H
#define XENT_DISPATCH_WEIGHTS_H

#include "kernels/kernel.h"

#include <stdbool.h>

/* What the rows to keep come to. */
struct kept {
    size_t rows;
    double denominator; /* of a mean */
    size_t bad;         /* the first row with a bad target, if there is one */
};

/* Whether every class weight is in [0, XENT_MAX_CLASS_WEIGHT]. */
bool xent_class_weights_are_good(const struct xent_job *job);

/* The sum of the class weights, for label smoothing. */
double xent_class_weights_sum(const struct xent_job *job);

/* Counts the rows to keep, perhaps with some of weight 0 among them, or finds the first with a bad target and returns
   false. */
bool xent_count_kept(const struct xent_job *job, size_t rows, struct kept *kept);

/* The mean's denominator, in the order of rows, and how many are kept if rows have weights: of rows that have been
   counted. */
void xent_weigh_kept(const struct xent_job *job, size_t rows, struct kept *kept);

#endif
