/*
 * Numbers of twice the precision of a double, as unevaluated sums hi + lo with |lo| at most half an ULP of hi, and the
 * exp and log of a row of doubles. Built from + - * / alone: no fma, so that every kernel has the same bits.
 *
 * A product of pairs drops what is below 2^-104 of it; a quotient and a sum of positive numbers what is below 2^-100.
 */
#ifndef XENT_KERNELS_PAIR_H
#define XENT_KERNELS_PAIR_H

#include "kernels/f64.h"

#include <math.h>
#include <stdbool.h>

struct pair {
    double hi, lo;
};

static inline bool f64_is_finite(double v)
{
    return v - v == 0;
}

/* a + b for |a| >= |b| or a = 0 (Dekker). An infinite sum has no rest. */
static inline struct pair pair_ordered(double a, double b)
{
    const double hi = a + b, lo = b - (hi - a);
    return (struct pair){hi, f64_is_finite(hi) ? lo : 0};
}

/* a + b (Knuth). An infinite sum has no rest. */
static inline struct pair pair_sum(double a, double b)
{
    const double hi = a + b, b_part = hi - a;
    const double lo = (a - (hi - b_part)) + (b - b_part);
    return (struct pair){hi, f64_is_finite(hi) ? lo : 0};
}

/* The upper 26 bits of a significand; what they leave has 27. */
static inline double f64_upper(double v)
{
    return f64_from_bits(f64_bits(v) & ~((UINT64_C(1) << 27) - 1));
}

/* a b (Dekker). An infinite product has no rest. */
static inline struct pair pair_product(double a, double b)
{
    const double a_hi = f64_upper(a), a_lo = a - a_hi, b_hi = f64_upper(b), b_lo = b - b_hi;
    const double hi = a * b;
    const double lo = (((a_hi * b_hi - hi) + a_hi * b_lo) + a_lo * b_hi) + a_lo * b_lo;
    return (struct pair){hi, f64_is_finite(hi) ? lo : 0};
}

static inline struct pair pair_plus(struct pair a, struct pair b)
{
    const struct pair sum = pair_sum(a.hi, b.hi);
    return pair_ordered(sum.hi, sum.lo + (a.lo + b.lo));
}

static inline struct pair pair_times(struct pair a, struct pair b)
{
    const struct pair product = pair_product(a.hi, b.hi);
    const double rest = product.lo + (a.hi * b.lo + a.lo * b.hi);
    return f64_is_finite(product.hi) ? pair_ordered(product.hi, rest) : product;
}

static inline struct pair pair_over(struct pair a, struct pair b)
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

static inline int f64_clamp_exponent(int exponent)
{
    return exponent < -2044 ? -2044 : exponent > 2044 ? 2044 : exponent;
}

static inline struct power f64_power(int exponent)
{
    const int e = f64_clamp_exponent(exponent), u = f64_clamp_exponent(exponent + 1074);
    return (struct power){f64_pow2(e / 2), f64_pow2(e - e / 2), f64_pow2(u / 2), f64_pow2(u - u / 2)};
}

/* v 2^exponent; what is subnormal of it as whole units, by integers, so that no control bit flushes it. Zeros are +0.
 */
static inline double f64_scaled(double v, const struct power *power)
{
    const double units = (v < 0 ? -v : v) * power->first_unit * power->second_unit;
    const uint64_t magnitude = f64_bits(units + 0x1p52) - f64_bits(0x1p52);
    const uint64_t subnormal = magnitude | (v < 0 && units > 0.5 ? UINT64_C(1) << 63 : 0);
    return units < 0x1p52 ? f64_from_bits(subnormal) : v * power->first * power->second;
}

/* (hi + lo) 2^exponent, |hi| in [1/4, 4] or 0: a number of any size, whose parts nothing flushes to zero. */
struct wide {
    struct pair v;
    int exponent;
};

static inline struct wide wide_from(struct pair a)
{
    if (a.hi == 0)
        return (struct wide){{0, 0}, 0};
    const double magnitude = a.hi < 0 ? -a.hi : a.hi;
    const int lift = magnitude < 0x1p-900 ? 120 : 0;
    const double hi = a.hi * f64_pow2(lift), lo = a.lo * f64_pow2(lift);
    const int exponent = (int)(f64_bits(hi) >> 52 & 0x7ff) - 1023, half = exponent / 2;
    const double first = f64_pow2(-half), second = f64_pow2(half - exponent);
    return (struct wide){{hi * first * second, lo * first * second}, exponent - lift};
}

static inline struct wide wide_times(struct wide a, struct wide b)
{
    const struct wide product = wide_from(pair_times(a.v, b.v));
    return (struct wide){product.v, product.exponent + a.exponent + b.exponent};
}

static inline struct wide wide_over(struct wide a, struct wide b)
{
    const struct wide quotient = wide_from(pair_over(a.v, b.v));
    return (struct wide){quotient.v, quotient.exponent + a.exponent - b.exponent};
}

static inline double wide_round(struct wide a)
{
    const struct power power = f64_power(a.exponent);
    return f64_scaled(a.v.hi + a.v.lo, &power);
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

static inline struct reduced pair_exp_reduce(double z, double rest)
{
    const double shifted = z * 0x1.71547652b82fep+0 + 0x1.8p52;
    const double n = shifted - 0x1.8p52;
    return (struct reduced){z - n * PAIR_LN2_HI, rest - n * PAIR_LN2_LO, f64_bits(shifted)};
}

static inline double pair_exp_series(double r)
{
    const double r2 = r * r, r4 = r2 * r2;
    const double p01 = 1.0 / 2 + r * (1.0 / 6), p23 = 1.0 / 24 + r * (1.0 / 120);
    const double p45 = 1.0 / 720 + r * (1.0 / 5040), p67 = 1.0 / 40320 + r * (1.0 / 362880);
    const double p89 = 1.0 / 3628800 + r * (1.0 / 39916800), pab = 1.0 / 479001600 + r * (1.0 / 6227020800.0);
    const double high = p45 + r2 * p67 + r4 * (p89 + r2 * pab);
    return r2 * (p01 + (r2 * p23 + r4 * high));
}

static inline struct pair pair_exp_sum(double r, double r_lo, double p)
{
    const double h = 1 + r, l = r - (h - 1);
    const double tail = p + (l + r_lo * (h + p));
    const double hi = h + tail;
    return (struct pair){hi, tail - (hi - h)};
}

/* 2^(n + bias), for the n of a reduction. */
static inline double pair_exp_power(uint64_t n, int bias)
{
    return f64_from_bits((n + (uint64_t)(1023 + bias)) << 52);
}

/* 2 atanh(f) = log((1 + f) / (1 - f)) for |f| <= 0.1716. */
static inline struct pair pair_2atanh(struct pair f)
{
    return pair_ordered(2 * f.hi, 2 * f.lo + f64_2atanh_rest(f.hi));
}

/* log(1 + v) for v in [0, 0.4143]. */
static inline struct pair pair_log1p(struct pair v)
{
    if (v.hi < 0x1p-110)
        return v;
    return pair_2atanh(pair_over(v, pair_plus((struct pair){2, 0}, v)));
}

/* log(s) for s in [1, 2^1000], relatively as good near 1. */
static inline struct pair pair_log(struct pair s)
{
    const struct f64_parts parts = f64_split(s.hi);
    const double lo = s.lo * f64_pow2(-(int)parts.n);
    const struct pair f =
        pair_over(pair_ordered(parts.m - 1, lo), pair_plus((struct pair){1, 0}, (struct pair){parts.m, lo}));
    const struct pair log_m = pair_2atanh(f);
    const struct pair whole = pair_sum(parts.n * F64_LN2_HI, log_m.hi);
    return pair_ordered(whole.hi, whole.lo + (parts.n * F64_LN2_LO + log_m.lo));
}

#endif
