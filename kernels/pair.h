/*
 * Numbers of twice the precision of a double, as unevaluated sums hi + lo with |lo| at most half an ULP of hi, and the
 * exp and log of a row of doubles. Built from + - * / alone: no fma, so that every kernel has the same bits.
 *
 * A product of pairs drops what is below 2^-104 of it; a quotient and a sum of positive numbers what is below 2^-100.
 */
#ifndef XENT_KERNELS_PAIR_H
#define XENT_KERNELS_PAIR_H

#include "kernels/f64.h"

#include <stdbool.h>

struct pair {
    double hi, lo;
};

static ALWAYS_INLINE bool f64_is_finite(double v)
{
    return v - v == 0;
}

/* a + b for |a| >= |b| or a = 0 (Dekker). An infinite sum has no rest. */
static ALWAYS_INLINE struct pair pair_ordered(double a, double b)
{
    const double hi = a + b, lo = b - (hi - a);
    return (struct pair){hi, f64_is_finite(hi) ? lo : 0};
}

/* a + b (Knuth). An infinite sum has no rest. */
static ALWAYS_INLINE struct pair pair_sum(double a, double b)
{
    const double hi = a + b, b_part = hi - a;
    const double lo = (a - (hi - b_part)) + (b - b_part);
    return (struct pair){hi, f64_is_finite(hi) ? lo : 0};
}

/* The upper 26 bits of a significand; what they leave has 27. */
static ALWAYS_INLINE double f64_upper(double v)
{
    return f64_from_bits(f64_bits(v) & ~((UINT64_C(1) << 27) - 1));
}

/* a b (Dekker). An infinite product has no rest. */
static ALWAYS_INLINE struct pair pair_product(double a, double b)
{
    const double a_hi = f64_upper(a), a_lo = a - a_hi, b_hi = f64_upper(b), b_lo = b - b_hi;
    const double hi = a * b;
    const double lo = (((a_hi * b_hi - hi) + a_hi * b_lo) + a_lo * b_hi) + a_lo * b_lo;
    return (struct pair){hi, f64_is_finite(hi) ? lo : 0};
}

static ALWAYS_INLINE struct pair pair_plus(struct pair a, struct pair b)
{
    const struct pair sum = pair_sum(a.hi, b.hi);
    return pair_ordered(sum.hi, sum.lo + (a.lo + b.lo));
}

static ALWAYS_INLINE struct pair pair_times(struct pair a, struct pair b)
{
    const struct pair product = pair_product(a.hi, b.hi);
    const double rest = product.lo + (a.hi * b.lo + a.lo * b.hi);
    return f64_is_finite(product.hi) ? pair_ordered(product.hi, rest) : product;
}

static ALWAYS_INLINE struct pair pair_over(struct pair a, struct pair b)
{
    const double q = a.hi / b.hi;
    const struct pair product = pair_product(q, b.hi);
    const double rest = ((a.hi - product.hi) - product.lo) + (a.lo - q * b.lo);
    return pair_ordered(q, rest / b.hi);
}

/* 2^exponent as two factors, for v 2^exponent with |v| < 2^963 rounded once; and what makes units of 2^-1074 of it. */
struct power {
    double first, second, first_unit, second_unit;
};

/* Exponents are as wide as doubles, or compilers do not find the vectors for loops over both. */
static ALWAYS_INLINE double pair_pow2(int64_t n)
{
    return f64_from_bits((uint64_t)(n + 1023) << 52);
}

/* Half of it, rounded down, for exponents of up to 4096: AVX2 has no arithmetic shift of 64 bits. */
static ALWAYS_INLINE int64_t pair_half(int64_t exponent)
{
    return (int64_t)((uint64_t)(exponent + 4096) >> 1) - 2048;
}

static ALWAYS_INLINE int64_t pair_clamp(int64_t exponent)
{
    return exponent < -2044 ? -2044 : exponent > 2044 ? 2044 : exponent;
}

static ALWAYS_INLINE struct power pair_power(int64_t exponent)
{
    const int64_t e = pair_clamp(exponent), u = pair_clamp(exponent + 1074);
    const int64_t half_e = pair_half(e), half_u = pair_half(u);
    return (struct power){pair_pow2(half_e), pair_pow2(e - half_e), pair_pow2(half_u), pair_pow2(u - half_u)};
}

/* v 2^exponent; what is subnormal of it as whole units, by integers. Zeros are +0. */
static ALWAYS_INLINE double pair_scaled(double v, const struct power *power)
{
    const double units = (v < 0 ? -v : v) * power->first_unit * power->second_unit;
    const uint64_t magnitude = f64_bits(units + 0x1p52) - f64_bits(0x1p52);
    const uint64_t subnormal = magnitude | (v < 0 && units > 0.5 ? UINT64_C(1) << 63 : 0);
    return units < 0x1p52 ? f64_from_bits(subnormal) : v * power->first * power->second;
}

/* (hi + lo) 2^exponent, |hi| in [1/4, 4] or 0: a number of any size, whose parts are never subnormal. */
struct wide {
    struct pair v;
    int64_t exponent;
};

/* Of 0 the exponent is whatever comes out. */
static ALWAYS_INLINE struct wide wide_from(struct pair a)
{
    const bool tiny = f64_abs(a.hi) < 0x1p-900;
    const double lift = tiny ? 0x1p120 : 1;
    const double hi = a.hi * lift, lo = a.lo * lift;
    const int64_t exponent = (int64_t)(f64_bits(hi) >> 52 & 0x7ff) - 1023, half = pair_half(exponent);
    const double first = pair_pow2(-half), second = pair_pow2(half - exponent);
    return (struct wide){{hi * first * second, lo * first * second}, exponent - (tiny ? 120 : 0)};
}

static ALWAYS_INLINE struct wide wide_times(struct wide a, struct wide b)
{
    const struct wide product = wide_from(pair_times(a.v, b.v));
    return (struct wide){product.v, product.exponent + a.exponent + b.exponent};
}

static ALWAYS_INLINE struct wide wide_over(struct wide a, struct wide b)
{
    const struct wide quotient = wide_from(pair_over(a.v, b.v));
    return (struct wide){quotient.v, quotient.exponent + a.exponent - b.exponent};
}

static ALWAYS_INLINE double wide_round(struct wide a)
{
    const struct power power = pair_power(a.exponent);
    return pair_scaled(a.v.hi + a.v.lo, &power);
}

#define PAIR_LN2_HI 0x1.62e42fefa4p-1 /* 39 bits: exact when multiplied by an exponent of up to 14 */
#define PAIR_LN2_LO -0x1.8432a1b0e2634p-43

/*
 * exp(z + rest), for -1500 <= z <= 0 and a rest below an ULP of z, in three steps for loops over many: n ln2 + r +
 * r_lo, r exact, the rest p of the series, and the sum of them all.
 *
 * 1 + r is exact as a pair; the rest p = exp(r) - 1 - r, to r^13 / 13! < 2^-57, is at most 0.07, and r_lo, which has
 * what is behind the first bits of ln2, 2^-32, so that its square does not count. The roundings of p are the error, 0.3
 * 2^-53 of the result.
 */
struct reduced {
    double r, r_lo;
    uint64_t n; /* in the low bits */
};

static ALWAYS_INLINE struct reduced pair_exp_reduce(double z, double rest)
{
    const double shifted = z * 0x1.71547652b82fep+0 + 0x1.8p52;
    const double n = shifted - 0x1.8p52;
    return (struct reduced){z - n * PAIR_LN2_HI, rest - n * PAIR_LN2_LO, f64_bits(shifted)};
}

static ALWAYS_INLINE double pair_exp_series(double r)
{
    const double r2 = r * r, r4 = r2 * r2;
    const double p01 = 1.0 / 2 + r * (1.0 / 6), p23 = 1.0 / 24 + r * (1.0 / 120);
    const double p45 = 1.0 / 720 + r * (1.0 / 5040), p67 = 1.0 / 40320 + r * (1.0 / 362880);
    const double p89 = 1.0 / 3628800 + r * (1.0 / 39916800), pab = 1.0 / 479001600 + r * (1.0 / 6227020800.0);
    const double high = p45 + r2 * p67 + r4 * (p89 + r2 * pab);
    return r2 * (p01 + (r2 * p23 + r4 * high));
}

static ALWAYS_INLINE struct pair pair_exp_sum(double r, double r_lo, double p)
{
    const double h = 1 + r, l = r - (h - 1);
    const double tail = p + (l + r_lo * (h + p));
    const double hi = h + tail;
    return (struct pair){hi, tail - (hi - h)};
}

/* 2^(n + bias), for the n of a reduction. */
static ALWAYS_INLINE double pair_exp_power(uint64_t n, int bias)
{
    return f64_from_bits((n + (uint64_t)(1023 + bias)) << 52);
}

/* 2 atanh(f) = log((1 + f) / (1 - f)) for |f| <= 0.1716. */
static ALWAYS_INLINE struct pair pair_2atanh(struct pair f)
{
    return pair_ordered(2 * f.hi, 2 * f.lo + f64_2atanh_rest(f.hi));
}

/* The logarithm of a sum as n ln2 + 2 atanh(upper / lower). */
struct logarithm {
    struct pair upper, lower;
    double n;
};

/* log(1 + v) for v in [0, 0.4143]. */
static ALWAYS_INLINE struct logarithm pair_log1p_of(struct pair v)
{
    return (struct logarithm){v, pair_plus((struct pair){2, 0}, v), 0};
}

/* log(s) for s in [1, 2^1000], relatively as good near 1. */
static ALWAYS_INLINE struct logarithm pair_log_of(struct pair s)
{
    const struct f64_parts parts = f64_split(s.hi);
    const double lo = s.lo * parts.unit;
    return (struct logarithm){pair_ordered(parts.m - 1, lo), pair_plus((struct pair){1, 0}, (struct pair){parts.m, lo}),
                              parts.n};
}

/* The same from the quotient. */
static ALWAYS_INLINE struct pair pair_log_sum(struct pair f, double n)
{
    const struct pair log_m = pair_2atanh(f), whole = pair_sum(n * F64_LN2_HI, log_m.hi);
    return pair_ordered(whole.hi, whole.lo + (n * F64_LN2_LO + log_m.lo));
}

#endif
