/*
 * Double-precision exp and log, built from + - * / alone, for binary cross entropy. A row of floats has shorter series
 * (row.h); of doubles, parts of the logarithm (pair.h).
 *
 * Bits are the contract, and the libm of two systems differs in the last of them; these do not. Relative errors are
 * below 2^-50, which is nothing beside the 2^-24 that their results are rounded to. There are no branches and no
 * conversions to integers, so that a compiler can make a loop over rows into vector instructions.
 */
#ifndef XENT_KERNELS_F64_H
#define XENT_KERNELS_F64_H

#include "kernels/constants.h"

#include <float.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "xent needs float and double arithmetic without excess precision (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

static inline uint64_t f64_bits(double v)
{
    uint64_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static inline double f64_from_bits(uint64_t u)
{
    double v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static inline uint32_t f32_bits(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static inline float f32_from_bits(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static ALWAYS_INLINE void f64_fold_half(double *lane, int half)
{
    for (int l = 0; l < half; ++l)
        lane[l] += lane[l + half];
}

/* The sum of 32 or 16 lanes: lane l + 16 is added to l, then l + 8, l + 4, l + 2, l + 1. By loops of known length,
   which become vector code. */
static ALWAYS_INLINE double f64_fold(double *lane, int lanes)
{
    if (lanes == 32)
        f64_fold_half(lane, 16);
    f64_fold_half(lane, 8);
    f64_fold_half(lane, 4);
    f64_fold_half(lane, 2);
    f64_fold_half(lane, 1);
    return lane[0];
}

/* 2^n for -1022 <= n <= 1023. */
static inline double f64_pow2(int n)
{
    return f64_from_bits((uint64_t)(n + 1023) << 52);
}

/* 2^n for -126 <= n <= 127. */
static inline float f32_pow2(int n)
{
    return f32_from_bits((uint32_t)(n + 127) << 23);
}

/* A NaN as 0x7fc00000: processors give one that arithmetic makes different signs. */
static inline float f32_canonical(float v)
{
    return v == v ? v : f32_from_bits(0x7fc00000);
}

/* The same of a double. */
static inline double f64_canonical(double v)
{
    return v == v ? v : f64_from_bits(UINT64_C(0x7ff8000000000000));
}

static inline double f64_abs(double v)
{
    return f64_from_bits(f64_bits(v) & ~(UINT64_C(1) << 63));
}

/* v rounded once to float; below FLT_MIN by integers, as subnormal arithmetic takes some processors 100 cycles. */
static inline float f64_to_f32(double v)
{
    const double a = v < 0 ? -v : v;
    const double units = a * 0x1p149 + 0x1p52; /* rounds to a whole number of 2^-149 */
    const float tiny = f32_from_bits((uint32_t)(f64_bits(units) & 0x1ffffff) | (v < 0 ? 0x80000000u : 0));
    return a < 0x1p-126 ? tiny : (float)v;
}

#define F64_LN2_HI 0x1.62e42feep-1 /* 32 bits: exact when multiplied by an exponent */
#define F64_LN2_LO 0x1.a39ef35793c76p-33
#define F64_LN2 0x1.62e42fefa39efp-1

/* exp(z) for |z| <= 700 within 2^-50: z = n ln2 + r. */
static inline double f64_exp(double z)
{
    const double shifted = z * 0x1.71547652b82fep+0 + 0x1.8p52; /* n, in the low bits */
    const double n = shifted - 0x1.8p52;
    const double r = (z - n * F64_LN2_HI) - n * F64_LN2_LO;
    const double r2 = r * r, r4 = r2 * r2;
    const double p23 = XENT_F2 + r * XENT_F3, p45 = XENT_F4 + r * XENT_F5, p67 = XENT_F6 + r * XENT_F7;
    const double p89 = XENT_F8 + r * XENT_F9;
    const double low = (1.0 + r) + r2 * p23, mid = p45 + r2 * p67, high = p89 + r2 * XENT_F10;
    return (low + r4 * (mid + r4 * high)) * f64_from_bits((f64_bits(shifted) + 1023) << 52);
}

/* 2 atanh(f) - 2 f for |f| <= 0.1716: the series to f^21. */
static inline double f64_2atanh_rest(double f)
{
    const double w = f * f, w2 = w * w, w4 = w2 * w2;
    const double p01 = 2.0 / 3 + w * (2.0 / 5), p23 = 2.0 / 7 + w * (2.0 / 9);
    const double p45 = 2.0 / 11 + w * (2.0 / 13), p67 = 2.0 / 15 + w * (2.0 / 17);
    const double p89 = 2.0 / 19 + w * (2.0 / 21);
    return f * (w * ((p01 + w2 * p23) + w4 * ((p45 + w2 * p67) + w4 * p89)));
}

/* 2 atanh(f) = log((1 + f) / (1 - f)) for |f| <= 0.1716, within 2^-50. */
static inline double f64_2atanh(double f)
{
    const double w = f * f, w2 = w * w;
    const double p35 = XENT_B3 + w * XENT_B5, p79 = XENT_B7 + w * XENT_B9, pbd = XENT_B11 + w * XENT_B13;
    return 2 * f + f * (w * (p35 + w2 * (p79 + w2 * pbd)));
}

/*
 * For u in [0, 1]: log(1 + u), and 1 / (1 + u), from the same division. log(1 + u) = 2 atanh(u / (2 + u)) where that
 * argument is within the series' reach, and elsewhere ln2 + log((1 + u) / 2) = ln2 + 2 atanh((u - 1) / (u + 3)), a
 * difference that leaves at least half of ln2. Both results have relative errors below 2^-50, however small u is:
 * where it is below 2^-60 it is its own logarithm, and no square of it is formed that could be subnormal. (So the
 * choices stay nested as they are: with one for the quotient as a whole gcc computes the series of every u, and takes
 * twice the time where squares are subnormal.)
 */
struct f64_log1p {
    double log, inverse;
};

static inline struct f64_log1p f64_log1p(double u)
{
    const int big = u > 0.4142, tiny = u < 0x1p-60;
    const double whole = 1 + u, denominator = u + (big ? 3.0 : 2.0);
    const double both = 1 / (whole * denominator);
    const double f = (tiny ? 0 : big ? u - 1 : u) * (both * whole);
    const double base = big ? F64_LN2 : tiny ? u : 0;
    return (struct f64_log1p){base + f64_2atanh(f), both * denominator};
}

/* A normal s > 0 as 2^n * m with m in [0.7, 1.42), so that log(s) = n ln2 + 2 atanh((m - 1) / (m + 1)), |f| <= 0.1716;
   and 2^-n, for |n| <= 1000. */
struct f64_parts {
    double n, m, unit;
};

static inline struct f64_parts f64_split(double s)
{
    const uint64_t sqrt_half = UINT64_C(0x3fe6a09e00000000), exponent_one = UINT64_C(1023) << 52;
    const uint64_t shifted = f64_bits(s) - sqrt_half + exponent_one;
    const uint64_t significand = shifted & ((UINT64_C(1) << 52) - 1), exponent = shifted - significand;
    const double biased = f64_from_bits(shifted >> 52 | UINT64_C(0x4330000000000000)); /* 2^52 + 1023 + n */
    return (struct f64_parts){.n = biased - (0x1p52 + 1023),
                              .m = f64_from_bits(significand + sqrt_half),
                              .unit = f64_from_bits(2 * exponent_one - exponent)};
}

#endif
