/*
 * The double-precision end of a row, the same text for every kernel: from the sum of exponentials to the results.
 *
 * With z_j = x_j - ref, e_j = K exp(z_j), s' the sum of e_j over j != y, and s = s' + e_y,
 *
 *     loss = log1p(s'/e_y) = 2 atanh(s' / (s' + 2 e_y))   where s' is the smaller part,
 *     loss = log(s/K) - z_y                               elsewhere: then loss > 0.34 and nothing cancels,
 *     lse  = ref + log(s/K),      gradient_y = -scale s'/s,      gradient_j = e_j (scale/s).
 *
 * The quotient of the logarithm and 1/s come from one division: divisions are most of what a short row would wait for.
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

static const struct frame near_frame = {0.0f, XENT_NEAR_CUT};

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
    return row_is_near(max) ? near_frame : (struct frame){max, XENT_FAR_CUT};
}

struct row_result {
    double loss;
    double log_sum; /* log(s/K) = lse - ref */
    double inverse; /* 1/s */
};

/* exp(z) for |z| <= 700: z = n ln2 + r. */
static inline double row_exp(double z)
{
    const double shifted = z * 0x1.71547652b82fep+0 + 0x1.8p52; /* n, in the low bits */
    const double r = z - (shifted - 0x1.8p52) * F64_LN2;
    const double r2 = r * r, r4 = r2 * r2;
    const double p23 = XENT_E2 + r * XENT_E3, p45 = XENT_E4 + r * XENT_E5, p67 = XENT_E6 + r * XENT_E7;
    const double low = (1.0 + r) + r2 * p23, high = (p45 + r2 * p67) + r4 * XENT_E8;
    return (low + r4 * high) * f64_from_bits((f64_bits(shifted) + 1023) << 52);
}

/* 2 atanh(f) for |f| <= 0.1716. */
static inline double row_2atanh(double f)
{
    const double w = f * f;
    return 2 * f + f * (w * ((XENT_A3 + w * XENT_A5) + (w * w) * (XENT_A7 + w * XENT_A9)));
}

/* e_y for a target whose logit lies z above the frame's ref. */
static inline double row_exponential(double z, float cut)
{
    const bool counts = z > (double)cut && z < (double)XENT_NEAR_MAX;
    const double e = XENT_K * row_exp(counts ? z : 0);
    return counts ? e : 0;
}

/* others is s', the sum over every class but y; e is e_y, for a logit z above ref. */
static inline struct row_result row_finish(double others, double e, double z)
{
    /* log1p(s'/e_y) or log(s): both are n ln2 + 2 atanh(f), f = part / whole. s = m / unit. */
    const bool small = others < 0.4142 * e;
    const struct f64_parts s = f64_split(others + e);
    const double n = small ? 0 : s.n;
    const double part = small ? others * s.unit : s.m - 1;
    const double whole = s.m + (small ? e * s.unit : 1);
    const double both = 1 / (whole * s.m);
    const double log = n * F64_LN2 + row_2atanh(part * (both * s.m));
    const double log_sum = small ? z + log : log - XENT_LN_K;
    return (struct row_result){small ? log : log_sum - z, log_sum, both * whole * s.unit};
}

/* A multiplier as 2^exponent * (hi + lo), hi in [1, 2], hi + lo rounded to 32 bits. With so few bits in lo, e * lo is
   exact, or too small to count. hi is rounded to 24 bits by additions: gcc 12 takes a
   conversion to float and back for nothing where it makes vectors of eight of them (AVX-512), and lo is 0. */
struct multiplier {
    int exponent;
    float hi, lo;
};

/* v has no sign, not even that of -0. */
static inline struct multiplier row_multiplier(double v)
{
    const uint64_t rounded = (f64_bits(v) + (UINT64_C(1) << 20)) & ~((UINT64_C(1) << 21) - 1);
    const uint64_t one = UINT64_C(1023) << 52, significand_bits = (UINT64_C(1) << 52) - 1;
    const double significand = f64_from_bits((rounded & significand_bits) | one);
    const double hi = (significand + 0x1p29) - 0x1p29;
    return (struct multiplier){(int)(rounded >> 52) - 1023, (float)hi, (float)(significand - hi)};
}

/* The target's gradient, which is never above 0; +0 rather than -0 where nothing is left of it. */
static inline float row_target_gradient(double magnitude)
{
    const uint32_t bits = f32_bits(f64_to_f32(magnitude));
    return f32_from_bits(bits == 0 ? 0 : bits | 0x80000000u);
}

#endif
