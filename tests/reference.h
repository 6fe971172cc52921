/*
 * The exact results of a row, by MPFR, and how far a float is from them in units in the last place.
 */
#ifndef XENT_TESTS_REFERENCE_H
#define XENT_TESTS_REFERENCE_H

#include <mpfr.h>
#include <stddef.h>

struct reference {
    size_t room, classes;
    const float *x;
    size_t max_at;
    mpfr_t *e;    /* exp(x_j - max) */
    mpfr_t s;     /* their sum */
    mpfr_t log_s; /* log s = log1p(s - 1): positive terms only, so nothing cancels */
    mpfr_t t, u;  /* scratch */
};

/* A float against the exact value: the distance in ULP (of the binade of the exact value, 2^-149 at least), and that
   value rounded for printing. */
struct distance {
    double ulps, exact;
};

void reference_init(struct reference *reference, size_t max_classes);
void reference_clear(struct reference *reference);

/* Takes a row of finite logits, which must stay where it is. */
void reference_row(struct reference *reference, const float *x, size_t classes);

struct distance reference_loss(struct reference *reference, size_t target, float got);

/* Of the loss divided by divisor. */
struct distance reference_gradient(struct reference *reference, size_t target, size_t index, size_t divisor, float got);

struct distance reference_prob(struct reference *reference, size_t index, float got);
struct distance reference_log_prob(struct reference *reference, size_t index, float got);

/* In fractions of the bound: 1.5 * 2^-24 absolute plus half an ULP. */
struct distance reference_lse(struct reference *reference, float got);

/* The exact loss, to add up. */
void reference_add_loss(struct reference *reference, size_t target, mpfr_t sum);
struct distance reference_distance(mpfr_t exact, float got);

#endif
