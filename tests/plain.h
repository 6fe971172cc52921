/*
 * The definition of the library's results in plain double arithmetic: some 2^-50 from the exact value for rows of
 * moderate size, which is enough to tell what a result means. The accuracy suite has the exact reference.
 */
#ifndef XENT_TESTS_PLAIN_H
#define XENT_TESTS_PLAIN_H

#include <stddef.h>

struct plain {
    const float *x;
    size_t classes, max_at;
    double others; /* sum of exp(x_j - max) without the maximum itself */
};

struct plain plain_row(const float *x, size_t classes);
double plain_lse(const struct plain *row);
double plain_loss(const struct plain *row, size_t target);
double plain_prob(const struct plain *row, size_t index);
double plain_gradient(const struct plain *row, size_t target, size_t index);

#endif
