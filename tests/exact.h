/*
 * The exact results of a row in long double, fast enough for millions of rows, for any target distribution; and the
 * same by MPFR, for the few rows that are worth it. With the 64 significant bits of x86 a result is within some 2^-58
 * of its terms: nothing beside the ULP of a float. (Where long double is double this cannot be used.)
 */
#ifndef XENT_TESTS_EXACT_H
#define XENT_TESTS_EXACT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The target distribution t of a row: t_j = shares[j], or, if shares is NULL, t is share for class target and else 0.
 *
 *     loss = sum_j t_j (lse - x_j),      gradient_j = scale (sum_k t_k p_j - t_j)
 */
struct exact_targets {
    const long double *shares;
    size_t target;
    long double share, scale;
};

struct exact_row {
    const float *x;
    size_t classes, max_at;
    long double *e;           /* exp(x_j - max) */
    long double others, sum;  /* of all of these but that of the maximum; of all */
    long double log_sum;      /* lse - max */
    long double loss, shares; /* shares: sum_j t_j */
    long double size;         /* sum_j |t_j| */
};

/* exp(z) for z <= 0; 0 below 2^-570. */
long double exact_exp(long double z);

/* Computes everything but the gradient. e has room for the row. */
void exact_row(struct exact_row *row, const float *x, size_t classes, const struct exact_targets *targets,
               long double *e);
long double exact_lse(const struct exact_row *row);

/* An entry of the gradient, and the larger magnitude of its two terms. */
long double exact_gradient(const struct exact_row *row, const struct exact_targets *targets, size_t index,
                           long double *larger);

/* A float's last place in the binade of v, 2^-149 at least. */
long double exact_ulp(long double v);

/* The distance of a float from the exact value in that unit; of infinities 0 where the exact value is rounded to one.
 */
double exact_distance(float got, long double exact, long double unit);

/* The same quantities by MPFR, rounded to long double. */
struct exact_check {
    long double loss, lse, gradient;
};
struct exact_check exact_check(const float *x, size_t classes, const struct exact_targets *targets, size_t index);

#endif
