/*
 * See reference.h.
 *
 * 160 bits: the differences x_j - max are then exact wherever exp of them is not negligible, and the worst relative
 * error of a result is some 2^-140, of which nothing is seen in the ULP of a float.
 */
#include "reference.h"

#include "support.h"

#include <math.h>
#include <stdlib.h>

enum { PRECISION = 160 };

void reference_init(struct reference *r, size_t max_classes)
{
    *r = (struct reference){.room = max_classes, .e = allocate(max_classes * sizeof(mpfr_t))};
    for (size_t j = 0; j < max_classes; j++)
        mpfr_init2(r->e[j], PRECISION);
    mpfr_inits2(PRECISION, r->s, r->log_s, r->t, r->u, (mpfr_ptr)NULL);
}

void reference_clear(struct reference *r)
{
    for (size_t j = 0; j < r->room; j++)
        mpfr_clear(r->e[j]);
    free(r->e);
    mpfr_clears(r->s, r->log_s, r->t, r->u, (mpfr_ptr)NULL);
    mpfr_free_cache();
}

/* The sum of all e but that of one class. */
static void sum_without(struct reference *r, size_t skip, mpfr_t sum)
{
    mpfr_set_zero(sum, 1);
    for (size_t j = 0; j < r->classes; j++)
        if (j != skip)
            mpfr_add(sum, sum, r->e[j], MPFR_RNDN);
}

void reference_row(struct reference *r, const float *x, size_t classes)
{
    ck_assert_uint_le(classes, r->room);
    r->x = x;
    r->classes = classes;
    r->max_at = 0;
    for (size_t j = 1; j < classes; j++)
        if (x[j] > x[r->max_at])
            r->max_at = j;
    for (size_t j = 0; j < classes; j++) {
        /* Rows of equal logits are frequent and exp is what takes the time. */
        if (j > 0 && x[j] == x[j - 1]) {
            mpfr_set(r->e[j], r->e[j - 1], MPFR_RNDN);
            continue;
        }
        mpfr_set_flt(r->t, x[j], MPFR_RNDN);
        mpfr_set_flt(r->u, x[r->max_at], MPFR_RNDN);
        mpfr_sub(r->t, r->t, r->u, MPFR_RNDN);
        mpfr_exp(r->e[j], r->t, MPFR_RNDN);
    }
    sum_without(r, r->max_at, r->t);
    mpfr_log1p(r->log_s, r->t, MPFR_RNDN);
    mpfr_add_ui(r->s, r->t, 1, MPFR_RNDN);
}

/* log s + (max - x_j): both parts are positive, so nothing cancels here either. */
static void minus_log_prob(struct reference *r, size_t index, mpfr_t result)
{
    mpfr_set_flt(r->t, r->x[r->max_at], MPFR_RNDN);
    mpfr_set_flt(r->u, r->x[index], MPFR_RNDN);
    mpfr_sub(r->t, r->t, r->u, MPFR_RNDN);
    mpfr_add(result, r->t, r->log_s, MPFR_RNDN);
}

/* exact is overwritten. */
static struct distance distance_in(mpfr_t exact, float got, double unit)
{
    struct distance distance = {.exact = mpfr_get_d(exact, MPFR_RNDN)};
    if (isnan(got) || isinf(got)) {
        /* Infinite is right for what is past the float range, and nothing else is. */
        distance.ulps = mpfr_get_flt(exact, MPFR_RNDN) == got ? 0.0 : (double)INFINITY;
        return distance;
    }
    mpfr_d_sub(exact, (double)got, exact, MPFR_RNDN);
    distance.ulps = fabs(mpfr_get_d(exact, MPFR_RNDN)) / unit;
    return distance;
}

static double ulp_of(mpfr_t exact)
{
    /* The exponent is that of a significand in [1/2, 1). */
    bool normal = mpfr_regular_p(exact) && mpfr_get_exp(exact) > -125;
    return ldexp(1.0, normal ? (int)mpfr_get_exp(exact) - 24 : -149);
}

struct distance reference_distance(mpfr_t exact, float got)
{
    return distance_in(exact, got, ulp_of(exact));
}

struct distance reference_loss(struct reference *r, size_t target, float got)
{
    minus_log_prob(r, target, r->t);
    return reference_distance(r->t, got);
}

void reference_add_loss(struct reference *r, size_t target, mpfr_t sum)
{
    minus_log_prob(r, target, r->t);
    mpfr_add(sum, sum, r->t, MPFR_RNDN);
}

struct distance reference_gradient(struct reference *r, size_t target, size_t index, size_t divisor, float got)
{
    if (index == target) {
        sum_without(r, target, r->t);
        mpfr_neg(r->t, r->t, MPFR_RNDN);
        mpfr_div(r->t, r->t, r->s, MPFR_RNDN);
    } else {
        mpfr_div(r->t, r->e[index], r->s, MPFR_RNDN);
    }
    mpfr_div_ui(r->t, r->t, (unsigned long)divisor, MPFR_RNDN);
    return reference_distance(r->t, got);
}

struct distance reference_prob(struct reference *r, size_t index, float got)
{
    mpfr_div(r->t, r->e[index], r->s, MPFR_RNDN);
    return reference_distance(r->t, got);
}

struct distance reference_log_prob(struct reference *r, size_t index, float got)
{
    minus_log_prob(r, index, r->t);
    mpfr_neg(r->t, r->t, MPFR_RNDN);
    return reference_distance(r->t, got);
}

struct distance reference_lse(struct reference *r, float got)
{
    mpfr_set_flt(r->t, r->x[r->max_at], MPFR_RNDN);
    mpfr_add(r->t, r->t, r->log_s, MPFR_RNDN);
    return distance_in(r->t, got, 1.5 * 0x1p-24 + 0.5 * ulp_of(r->t));
}
