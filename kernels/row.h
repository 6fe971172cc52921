/*
 * The double-precision end of a row, the same text for every kernel: from the sum of exponentials to the results.
 *
 * With z_j = x_j - ref, e_j = K exp(z_j), s' the sum of e_j over j != y, and s = s' + e_y,
 *
 *     loss = log1p(s'/e_y) = 2 atanh(s' / (s' + 2 e_y))   where s' is the smaller part,
 *     loss = log(s/K) - z_y                               elsewhere: then loss > 0.34 and nothing cancels,
 *     lse  = ref + log(s/K),      gradient_y = -scale s'/s,      gradient_j = e_j (scale/s).
 */
#ifndef XENT_KERNELS_ROW_H
#define XENT_KERNELS_ROW_H

#include "kernels/constants.h"
#include "kernels/f64.h"

#include <stdbool.h>

/* What the logits of a row are measured from. */
struct frame {
    float ref; /* 0 for a near row, the largest logit for a far one */
    float cut; /* z <= cut: e = +0 */
};

/* A row with a maximum of NaN, +inf or -inf has no finite log-sum-exp, and no frame. */
static inline bool row_is_finite(float max)
{
    return max - max == 0;
}

static inline bool row_is_near(float max)
{
    return max >= XENT_NEAR_MIN && max < XENT_NEAR_MAX;
}

static inline struct frame row_frame(float max)
{
    return row_is_near(max) ? (struct frame){0.0f, XENT_NEAR_CUT} : (struct frame){max, XENT_FAR_CUT};
}

struct row_result {
    double loss;
    double log_sum; /* log(s/K) = lse - ref */
    double sum;     /* s */
};

/* e_y for the target's logit x. */
static inline double row_exponential(float x, struct frame frame)
{
    const double z = (double)x - (double)frame.ref;
    return z > (double)frame.cut && z < (double)XENT_NEAR_MAX ? XENT_K * f64_exp(z) : 0;
}

/* others is s', the sum over every class but y; e is e_y and x the logit of y. */
static inline struct row_result row_finish(double others, double e, float x, struct frame frame)
{
    const double z = (double)x - (double)frame.ref;
    struct row_result row = {.sum = others + e};
    if (others < 0.4142 * e) {
        row.loss = f64_2atanh(others / (others + 2 * e));
        row.log_sum = z + row.loss;
    } else {
        row.log_sum = f64_log(row.sum) - XENT_LN_K;
        row.loss = row.log_sum - z;
    }
    return row;
}

/* A positive multiplier as 2^exponent * (hi + lo), hi in [1, 2], hi + lo rounded to 32 bits. With so few bits in lo,
   e * lo is not a subnormal that the caller's control bits could flush. */
struct multiplier {
    int exponent;
    float hi, lo;
};

static inline struct multiplier row_multiplier(double v)
{
    const double rounded = f64_from_bits((f64_bits(v) + (UINT64_C(1) << 20)) & ~((UINT64_C(1) << 21) - 1));
    const int exponent = f64_exponent(rounded);
    const double significand = rounded * f64_pow2(-exponent);
    const float hi = (float)significand;
    const float lo = (float)(significand - (double)hi);
    return (struct multiplier){exponent, hi, lo};
}

/* The target's gradient; +0 rather than -0 where nothing is left of it. */
static inline float row_target_gradient(double others, double sum, double scale)
{
    return 0.0f - (float)(scale * (others / sum));
}

#endif
