/*
 * See plain.h.
 */
#include "plain.h"

#include <math.h>

static double exp_from_max(const struct plain *row, size_t index)
{
    return exp((double)row->x[index] - (double)row->x[row->max_at]);
}

struct plain plain_row(const float *x, size_t classes)
{
    struct plain row = {.x = x, .classes = classes};
    for (size_t j = 1; j < classes; j++)
        if (x[j] > x[row.max_at])
            row.max_at = j;
    for (size_t j = 0; j < classes; j++)
        if (j != row.max_at)
            row.others += exp_from_max(&row, j);
    return row;
}

double plain_lse(const struct plain *row)
{
    return (double)row->x[row->max_at] + log1p(row->others);
}

double plain_loss(const struct plain *row, size_t target)
{
    return ((double)row->x[row->max_at] - (double)row->x[target]) + log1p(row->others);
}

double plain_prob(const struct plain *row, size_t index)
{
    return exp_from_max(row, index) / (1.0 + row->others);
}

double plain_gradient(const struct plain *row, size_t target, size_t index)
{
    if (index != target)
        return plain_prob(row, index);
    /* Not p - 1, which cancels. */
    double others = 0.0;
    for (size_t j = 0; j < row->classes; j++)
        if (j != target)
            others += exp_from_max(row, j);
    return -others / (1.0 + row->others);
}
