/*
 * See exact.h.
 */
#include "exact.h"

#include "kernels/f64.h"

#include <math.h>
#include <mpfr.h>

enum { ENTRIES = 64, PRECISION = 200 };

/* 2^(k/64), filled once; the same values whoever fills it. */
static long double powers[ENTRIES];

__attribute__((constructor)) static void fill_powers(void)
{
    for (int k = 0; k < ENTRIES; k++)
        powers[k] = exp2l((long double)k / ENTRIES);
}

/* z = n ln(2)/64 + r, |r| < 0.0055; the series to r^7 / 7!, of which the next term is below 2^-75. n ln2_hi is exact.
 */
long double exact_exp(long double z)
{
    static const long double ln2_hi = 0x1.62e42fefa38p-1L / ENTRIES, ln2_lo = 0x1.ef35793c7673007ep-45L / ENTRIES;
    if (z < -395)
        return 0;
    const double shifted = (double)z * (ENTRIES * 0x1.71547652b82fep0) + 0x1.8p52;
    const double n = shifted - 0x1.8p52;
    const int whole = (int)n, k = whole & (ENTRIES - 1);
    const long double r = (z - (long double)n * ln2_hi) - (long double)n * ln2_lo, r2 = r * r;
    const long double low = 1.0L / 2 + r * (1.0L / 6), mid = 1.0L / 24 + r * (1.0L / 120);
    const long double high = 1.0L / 720 + r * (1.0L / 5040);
    const long double p = r + r2 * (low + r2 * (mid + r2 * high));
    return (powers[k] + powers[k] * p) * (long double)f64_pow2((whole - k) / ENTRIES);
}

void exact_row(struct exact_row *row, const float *x, size_t classes, const struct exact_targets *targets,
               long double *e)
{
    *row = (struct exact_row){.x = x, .classes = classes, .e = e};
    for (size_t j = 1; j < classes; j++)
        if (x[j] > x[row->max_at])
            row->max_at = j;
    const long double max = (long double)x[row->max_at];
    for (size_t j = 0; j < classes; j++) {
        e[j] = exact_exp((long double)x[j] - max);
        if (j != row->max_at)
            row->others += e[j];
    }
    row->sum = 1 + row->others;
    row->log_sum = log1pl(row->others);
    if (!targets->shares) {
        row->shares = targets->share;
        row->size = fabsl(targets->share);
        row->loss = targets->share * ((max - (long double)x[targets->target]) + row->log_sum);
        return;
    }
    for (size_t j = 0; j < classes; j++) {
        row->shares += targets->shares[j];
        row->size += fabsl(targets->shares[j]);
        row->loss += targets->shares[j] * ((max - (long double)x[j]) + row->log_sum);
    }
}

long double exact_lse(const struct exact_row *row)
{
    return (long double)row->x[row->max_at] + row->log_sum;
}

long double exact_gradient(const struct exact_row *row, const struct exact_targets *targets, size_t index,
                           long double *larger)
{
    const long double p = row->e[index] / row->sum;
    if (!targets->shares) {
        const bool is_target = index == targets->target;
        /* All but the target: nothing cancels, e being at most 1 where the maximum is another class. */
        const long double others = index == row->max_at ? row->others : 1 + (row->others - row->e[index]);
        const long double g = targets->scale * targets->share * (is_target ? -others / row->sum : p);
        *larger = fabsl(g);
        return g;
    }
    const long double first = targets->scale * row->shares * p, second = targets->scale * targets->shares[index];
    *larger = fmaxl(fabsl(first), fabsl(second));
    return first - second;
}

long double exact_ulp(long double v)
{
    const int exponent = (int)(f64_bits((double)v) >> 52 & 0x7ff) - 1023;
    return (long double)f64_pow2(exponent < -126 ? -149 : exponent - 23);
}

double exact_distance(float got, long double exact, long double unit)
{
    if (isinf(got) || isnan(got))
        return (float)exact == got ? 0 : (double)INFINITY;
    return (double)(fabsl((long double)got - exact) / unit);
}

struct exact_check exact_check(const float *x, size_t classes, const struct exact_targets *targets, size_t index)
{
    size_t max_at = 0;
    for (size_t j = 1; j < classes; j++)
        if (x[j] > x[max_at])
            max_at = j;
    mpfr_t e, own, others, skipped, log_sum, loss, shares, t, d;
    mpfr_inits2(PRECISION, e, own, others, skipped, log_sum, loss, shares, t, d, (mpfr_ptr)NULL);
    mpfr_set_zero(others, 1);  /* all but the maximum */
    mpfr_set_zero(skipped, 1); /* all but the index */
    for (size_t j = 0; j < classes; j++) {
        mpfr_set_flt(d, x[j], MPFR_RNDN);
        mpfr_set_flt(t, x[max_at], MPFR_RNDN);
        mpfr_sub(d, d, t, MPFR_RNDN);
        mpfr_exp(e, d, MPFR_RNDN);
        if (j != max_at)
            mpfr_add(others, others, e, MPFR_RNDN);
        if (j != index)
            mpfr_add(skipped, skipped, e, MPFR_RNDN);
        else
            mpfr_set(own, e, MPFR_RNDN);
    }
    mpfr_log1p(log_sum, others, MPFR_RNDN);
    mpfr_set_zero(loss, 1);
    mpfr_set_zero(shares, 1);
    for (size_t j = 0; j < classes; j++) {
        if (!targets->shares && j != targets->target)
            continue;
        mpfr_set_flt(d, x[max_at], MPFR_RNDN);
        mpfr_set_flt(t, x[j], MPFR_RNDN);
        mpfr_sub(d, d, t, MPFR_RNDN);
        mpfr_add(d, d, log_sum, MPFR_RNDN);
        mpfr_set_ld(t, targets->shares ? targets->shares[j] : targets->share, MPFR_RNDN);
        mpfr_add(shares, shares, t, MPFR_RNDN);
        mpfr_mul(d, d, t, MPFR_RNDN);
        mpfr_add(loss, loss, d, MPFR_RNDN);
    }
    struct exact_check check = {.loss = mpfr_get_ld(loss, MPFR_RNDN)};
    mpfr_set_flt(t, x[max_at], MPFR_RNDN);
    mpfr_add(t, t, log_sum, MPFR_RNDN);
    check.lse = mpfr_get_ld(t, MPFR_RNDN);
    mpfr_add_ui(others, others, 1, MPFR_RNDN);
    if (!targets->shares && index == targets->target) {
        mpfr_mul(t, shares, skipped, MPFR_RNDN);
        mpfr_div(t, t, others, MPFR_RNDN);
        mpfr_neg(t, t, MPFR_RNDN);
    } else {
        mpfr_mul(t, shares, own, MPFR_RNDN);
        mpfr_div(t, t, others, MPFR_RNDN);
        mpfr_set_ld(d, targets->shares ? targets->shares[index] : 0, MPFR_RNDN);
        mpfr_sub(t, t, d, MPFR_RNDN);
    }
    mpfr_set_ld(d, targets->scale, MPFR_RNDN);
    mpfr_mul(t, t, d, MPFR_RNDN);
    check.gradient = mpfr_get_ld(t, MPFR_RNDN);
    mpfr_clears(e, own, others, skipped, log_sum, loss, shares, t, d, (mpfr_ptr)NULL);
    return check;
}
