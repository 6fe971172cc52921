/*
 * Softmax cross entropy of doubles, the same text for every kernel: section 8 of docs/numerics.md.
 *
 * As in bce.h the bits are those of + - * / on doubles in the order of this text, in loops over blocks that a compiler
 * turns into vector instructions. What must be better than a double is a pair of doubles (kernels/pair.h).
 *
 * With m the largest logit, z_j = x_j - m (a pair), e_j = 2^960 exp(z_j), y the class of kernels/target.h and s' the
 * sum of the others' e_j, so that s = s' + e_y, for a distribution t_j = n_j + even w_j:
 *
 *     log s  = log1p(s'/e_y) where s' < 0.4142 e_y (then z_y = 0), log(s) elsewhere, both without the 2^960
 *     loss   = n_y (log s - z_y) + sum_j!=y n_j (log s + (m - x_j)) + even (W log s + sum_j w_j (m - x_j))
 *     lse    = m + log s
 *
 * and gradients as in kernels/target.h. No term of the loss is negative unless a share is.
 */
#ifndef XENT_KERNELS_DOUBLE_H
#define XENT_KERNELS_DOUBLE_H

#include "kernels/kernel.h"
#include "kernels/pair.h"
#include "kernels/target.h"

#include <math.h>

enum {
    DOUBLE_BLOCK = XENT_LANES, /* classes: number i of a block is added to lane i */
    DOUBLE_FEW = 8,            /* so many at a time where a row ends within a block */
    DOUBLE_BIAS = 960          /* exponentials are 2^960 times as large, so that nothing is subnormal */
};

/* exp of less counts as 0: less than 2^-1803. */
#define DOUBLE_CUT (-1250.0)

struct double_row {
    const double *p;
    size_t stride;
};

/* 32 sums, and what their roundings have lost. */
struct double_lanes {
    double sum[DOUBLE_BLOCK], rest[DOUBLE_BLOCK];
};

/* A block's numbers where they are, if they are all there and together, and else collected, with others after them. */
static const double *double_read(struct double_row x, size_t begin, size_t count, double after, double *buffer)
{
    if (x.stride == 1 && count == DOUBLE_BLOCK)
        return x.p + begin;
    for (size_t i = 0; i < count; ++i)
        buffer[i] = x.p[(begin + i) * x.stride];
    for (size_t i = count; i < DOUBLE_BLOCK; ++i)
        buffer[i] = after;
    return buffer;
}

/* The same for the next few, which may be fewer. */
static ALWAYS_INLINE const double *double_read_few(struct double_row x, size_t begin, size_t classes, double *buffer)
{
    if (x.stride == 1 && classes - begin >= DOUBLE_FEW)
        return x.p + begin;
    for (size_t i = 0; i < DOUBLE_FEW; ++i)
        buffer[i] = begin + i < classes ? x.p[(begin + i) * x.stride] : (double)-INFINITY;
    return buffer;
}

static void double_write(double *out, size_t stride, size_t begin, size_t count, const double *v)
{
    if (stride == 1 && count == DOUBLE_BLOCK)
        memcpy(out + begin, v, DOUBLE_BLOCK * sizeof *v);
    else if (stride == 1 && count == DOUBLE_FEW)
        memcpy(out + begin, v, DOUBLE_FEW * sizeof *v);
    else
        for (size_t i = 0; i < count; ++i)
            out[(begin + i) * stride] = v[i];
}

static size_t double_count(size_t classes, size_t begin)
{
    return classes - begin < DOUBLE_BLOCK ? classes - begin : DOUBLE_BLOCK;
}

/* Raises the largest numbers so far by count more, and notes NaNs among these: lane i gets number i. */
static ALWAYS_INLINE void double_raise(size_t count, double *max, uint64_t *nan, const double *v)
{
    for (size_t i = 0; i < count; ++i)
        max[i] = v[i] > max[i] ? v[i] : max[i];
    for (size_t i = 0; i < count; ++i)
        nan[i] |= v[i] != v[i];
}

/* Of whole blocks, down to the first few lanes. */
static NOINLINE void double_raise_blocks(struct double_row x, size_t end, double *max, uint64_t *nan)
{
    double buffer[DOUBLE_BLOCK], largest[DOUBLE_BLOCK];
    uint64_t bad[DOUBLE_BLOCK] = {0};
    for (size_t i = 0; i < DOUBLE_BLOCK; ++i)
        largest[i] = (double)-INFINITY;
    for (size_t begin = 0; begin < end; begin += DOUBLE_BLOCK)
        double_raise(DOUBLE_BLOCK, largest, bad, double_read(x, begin, DOUBLE_BLOCK, 0, buffer));
    for (size_t i = 0; i < DOUBLE_BLOCK; i += DOUBLE_FEW) {
        double_raise(DOUBLE_FEW, max, nan, largest + i);
        for (size_t k = 0; k < DOUBLE_FEW; ++k)
            nan[k] |= bad[i + k];
    }
}

/* The largest logit, NaN if there is one. */
static NOINLINE double double_max(struct double_row x, size_t classes)
{
    const size_t blocks = classes / DOUBLE_BLOCK * DOUBLE_BLOCK;
    double buffer[DOUBLE_FEW], max[DOUBLE_FEW];
    uint64_t nan[DOUBLE_FEW] = {0};
    for (size_t i = 0; i < DOUBLE_FEW; ++i)
        max[i] = (double)-INFINITY;
    if (blocks > 0)
        double_raise_blocks(x, blocks, max, nan);
    for (size_t begin = blocks; begin < classes; begin += DOUBLE_FEW)
        double_raise(DOUBLE_FEW, max, nan, double_read_few(x, begin, classes, buffer));
    for (size_t i = 1; i < DOUBLE_FEW; ++i) {
        max[0] = max[i] > max[0] ? max[i] : max[0];
        nan[0] |= nan[i];
    }
    return nan[0] ? (double)NAN : max[0];
}

/* v where the mask is all ones, +0 where it is 0. */
static ALWAYS_INLINE double double_keep(uint64_t mask, double v)
{
    return f64_from_bits(f64_bits(v) & mask);
}

/* The block's exponentials as pairs. In several loops, each with few operations that wait for each other: a processor
   then has many elements under way at once. */
static ALWAYS_INLINE void double_exponentials_of(size_t count, const double *restrict x, double m, double *restrict e,
                                                 double *restrict e_rest)
{
    double r[DOUBLE_BLOCK], r_lo[DOUBLE_BLOCK], p[DOUBLE_BLOCK], power[DOUBLE_BLOCK];
    for (size_t i = 0; i < count; ++i) {
        const double z = x[i] - m, m_part = z - x[i];
        const double rest = (x[i] - (z - m_part)) - (m + m_part);
        const uint64_t counts = z > DOUBLE_CUT ? UINT64_MAX : 0;
        const struct reduced reduced = pair_exp_reduce(double_keep(counts, z), double_keep(counts, rest));
        r[i] = reduced.r;
        r_lo[i] = reduced.r_lo;
        power[i] = double_keep(counts, pair_exp_power(reduced.n, DOUBLE_BIAS));
    }
    for (size_t i = 0; i < count; ++i)
        p[i] = pair_exp_series(r[i]);
    for (size_t i = 0; i < count; ++i) {
        const struct pair v = pair_exp_sum(r[i], r_lo[i], p[i]);
        e[i] = v.hi * power[i];
        e_rest[i] = v.lo * power[i];
    }
}

static NOINLINE void double_exponentials(const double *x, double m, double *e, double *e_rest)
{
    double_exponentials_of(DOUBLE_BLOCK, x, m, e, e_rest);
}

static NOINLINE void double_few_exponentials(const double *x, double m, double *e, double *e_rest)
{
    double_exponentials_of(DOUBLE_FEW, x, m, e, e_rest);
}

/* No sums yet of so many classes. */
static ALWAYS_INLINE void double_start(struct double_lanes *lanes, size_t classes)
{
    for (size_t i = 0; i < DOUBLE_FEW; ++i)
        lanes->sum[i] = lanes->rest[i] = 0;
    for (size_t i = DOUBLE_FEW; classes > DOUBLE_FEW && i < 2 * DOUBLE_FEW; ++i)
        lanes->sum[i] = lanes->rest[i] = 0;
    for (size_t i = 2 * DOUBLE_FEW; classes > 2 * DOUBLE_FEW && i < DOUBLE_BLOCK; ++i)
        lanes->sum[i] = lanes->rest[i] = 0;
}

/* Adds pairs to count lanes from first on. */
static ALWAYS_INLINE void double_add_of(struct double_lanes *restrict lanes, size_t first, size_t count,
                                        const double *restrict v, const double *restrict v_rest)
{
    double *sum = lanes->sum + first, *rest = lanes->rest + first;
    for (size_t i = 0; i < count; ++i) {
        const double before = sum[i], both = before + v[i], v_part = both - before;
        rest[i] += ((before - (both - v_part)) + (v[i] - v_part)) + v_rest[i];
        sum[i] = both;
    }
}

static NOINLINE void double_add(struct double_lanes *lanes, const double *v, const double *v_rest)
{
    double_add_of(lanes, 0, DOUBLE_BLOCK, v, v_rest);
}

static NOINLINE void double_add_few(struct double_lanes *lanes, size_t first, const double *v, const double *v_rest)
{
    double_add_of(lanes, first, DOUBLE_FEW, v, v_rest);
}

/* Adds to lane i what lane i + half has. */
static ALWAYS_INLINE void double_fold_half(struct double_lanes *lanes, size_t half)
{
    double *sum = lanes->sum, *rest = lanes->rest;
    for (size_t i = 0; i < half; ++i) {
        const double a = sum[i], b = sum[i + half], both = a + b, b_part = both - a;
        rest[i] = (rest[i] + rest[i + half]) + ((a - (both - b_part)) + (b - b_part));
        sum[i] = both;
    }
}

/* The sum of all lanes, for so many classes: lanes that nothing was added to change nothing. */
static NOINLINE struct pair double_fold(struct double_lanes *lanes, size_t classes)
{
    if (classes > 16)
        double_fold_half(lanes, 16);
    if (classes > 8)
        double_fold_half(lanes, 8);
    if (classes > 4)
        double_fold_half(lanes, 4);
    if (classes > 2)
        double_fold_half(lanes, 2);
    if (classes > 1)
        double_fold_half(lanes, 1);
    const double sum = lanes->sum[0];
    return f64_is_finite(sum) ? pair_sum(sum, lanes->rest[0]) : (struct pair){sum, 0};
}

/* A row's target distribution as the results need it. */
struct double_target {
    size_t y;
    struct pair own, total; /* n_y; the sum of all t_j */
    double rest, apart;     /* the sums over j != y of n_j, and of n_j (m - x_j) */
    double even, w_y, W;
    double spread; /* the sum of w_j (m - x_j) */
    bool single;   /* whether y has all of it */
};

/* A term whose factor is 0 is 0. */
static double double_term(double factor, double v)
{
    return factor == 0 ? 0 : factor * v;
}

/* What a probability q of a class of weight w is of its row's target. */
static struct pair double_named(const struct xent_job *job, double r, double w, double q)
{
    return pair_times(pair_product(r, job->target_weight), pair_product(w, q));
}

/* The share of class j in row i, whose targets are probabilities; smoothing is part of it. */
static struct pair double_share(const struct xent_job *job, size_t i, size_t j)
{
    const size_t at = xent_job_at(job, &job->targets_strides, i) + j * job->targets_strides.classes;
    const double r = xent_job_row_weight(job, i), w = xent_job_class_weight(job, j);
    const double q = xent_job_number(job, job->targets, at);
    return job->smoothing == 0 ? double_named(job, r, w, q)
                               : (struct pair){r * (w * (job->smoothing + job->target_weight * q)), 0};
}

/* The share that label number k of row i has of its class. */
static struct pair double_label_share(const struct xent_job *job, size_t i, size_t k)
{
    return double_named(job, xent_job_row_weight(job, i), xent_job_class_weight(job, (size_t)xent_job_label(job, i, k)),
                        xent_job_label_probability(job, i, k));
}

/* The sum of w_j (m - x_j). */
static double double_spread(const struct xent_job *job, struct double_row x, double m)
{
    static const double none[DOUBLE_BLOCK];
    struct double_lanes lanes = {{0}, {0}};
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_count(job->classes, begin);
        double buffer[DOUBLE_BLOCK], term[DOUBLE_BLOCK];
        const double *v = double_read(x, begin, count, m, buffer);
        for (size_t k = 0; k < DOUBLE_BLOCK; ++k)
            term[k] = k < count ? double_term(xent_job_class_weight(job, begin + k), m - v[k]) : 0;
        double_add(&lanes, term, none);
    }
    return double_fold(&lanes, job->classes).hi;
}

static void double_add_shares(struct double_target *t, const struct xent_job *job, size_t i, struct double_row x,
                              double m)
{
    static const double none[DOUBLE_BLOCK];
    struct double_lanes rest = {{0}, {0}}, apart = {{0}, {0}};
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_count(job->classes, begin);
        double share[DOUBLE_BLOCK] = {0}, share_rest[DOUBLE_BLOCK] = {0}, term[DOUBLE_BLOCK] = {0};
        for (size_t k = 0; k < count; ++k) {
            const struct pair t_j = double_share(job, i, begin + k);
            if (begin + k == t->y) {
                t->own = t_j;
            } else {
                share[k] = t_j.hi;
                share_rest[k] = t_j.lo;
                term[k] = double_term(t_j.hi, m - x.p[(begin + k) * x.stride]);
            }
        }
        double_add(&rest, share, share_rest);
        double_add(&apart, term, none);
    }
    const struct pair sum = double_fold(&rest, job->classes);
    t->rest = sum.hi;
    t->apart = double_fold(&apart, job->classes).hi;
    t->total = pair_plus(t->own, sum);
}

/* What labels have that are not all. */
static void double_add_labels(struct double_target *t, const struct xent_job *job, size_t i, struct double_row x,
                              double m)
{
    struct pair own = {0, 0}, rest = {0, 0};
    for (size_t k = 0; k < job->labels; ++k) {
        const int64_t label = xent_job_label(job, i, k);
        if (label == job->ignore_index)
            continue;
        const struct pair share = double_label_share(job, i, k);
        if ((size_t)label == t->y) {
            own = pair_plus(own, share);
        } else {
            rest = pair_plus(rest, share);
            t->apart += double_term(share.hi, m - x.p[(size_t)label * x.stride]);
        }
    }
    t->own = own;
    t->rest = rest.hi;
    t->total = pair_plus(pair_plus(own, rest), pair_product(t->even, t->W));
}

/* The class that a row of probabilities is measured from: the first of the largest q_j w_j; NO_CLASS if that is not
   positive, or its logit is -inf. */
static size_t double_largest_share(const struct xent_job *job, size_t i, struct double_row x)
{
    const size_t row = xent_job_at(job, &job->targets_strides, i);
    double largest = 0;
    size_t y = NO_CLASS;
    for (size_t j = 0; j < job->classes; ++j) {
        const double q = xent_job_number(job, job->targets, row + j * job->targets_strides.classes);
        const double share = q * xent_job_class_weight(job, j);
        if (share > largest) {
            largest = share;
            y = j;
        }
    }
    return y != NO_CLASS && x.p[y * x.stride] == (double)-INFINITY ? NO_CLASS : y;
}

static struct double_target double_distribution(const struct xent_job *job, size_t i, struct double_row x, double m)
{
    if (!xent_job_has_labels(job)) {
        struct double_target t = {.y = double_largest_share(job, i, x)};
        double_add_shares(&t, job, i, x, m);
        return t;
    }
    if (xent_job_has_whole_labels(job))
        return (struct double_target){
            .y = (size_t)xent_job_target(job, i), .own = {1, 0}, .total = {1, 0}, .single = true};
    struct distribution d;
    distribution_of_labels(&d, job, i);
    struct double_target t = {.y = d.y, .even = d.even, .w_y = d.w_y, .W = d.W};
    if (xent_job_has_plain_labels(job)) {
        t.own = double_named(job, xent_job_row_weight(job, i), d.w_y, 1);
        t.single = d.even == 0;
        t.total = t.single ? t.own : pair_plus(t.own, pair_product(t.even, t.W));
    } else {
        double_add_labels(&t, job, i, x, m);
    }
    if (t.even != 0)
        t.spread = double_spread(job, x, m);
    return t;
}

/* The first pass over a row: the sum of all exponentials but y's, which is stored apart. They are left in out if there
   is one. */
static struct pair double_sum_others(const struct xent_job *job, struct double_row x, double *out, double m, size_t y,
                                     struct pair *e_y)
{
    double buffer[DOUBLE_BLOCK], e[DOUBLE_BLOCK], e_rest[DOUBLE_BLOCK];
    struct double_lanes lanes;
    double_start(&lanes, job->classes);
    *e_y = (struct pair){0, 0};
    for (size_t begin = 0, count; begin < job->classes; begin += count) {
        const size_t left = job->classes - begin, skip = y - begin;
        const bool few = left < DOUBLE_BLOCK;
        count = !few ? DOUBLE_BLOCK : left < DOUBLE_FEW ? left : DOUBLE_FEW;
        if (few)
            double_few_exponentials(double_read_few(x, begin, job->classes, buffer), m, e, e_rest);
        else
            double_exponentials(double_read(x, begin, count, (double)-INFINITY, buffer), m, e, e_rest);
        if (out)
            double_write(out, job->out_strides.classes, begin, count, e);
        if (skip < count) {
            *e_y = (struct pair){e[skip], e_rest[skip]};
            e[skip] = e_rest[skip] = 0;
        }
        if (few)
            double_add_few(&lanes, begin % DOUBLE_BLOCK, e, e_rest);
        else
            double_add(&lanes, e, e_rest);
    }
    return double_fold(&lanes, job->classes);
}

/* From sums to results: log s, and what a share of y costs: a multiple of 2^tiny where that is not 0. */
struct double_result {
    struct pair sum, log_sum, loss_y;
    int tiny;
};

static struct double_result double_finish(struct pair others, struct pair e_y, double x_y, double m)
{
    const double unit = f64_pow2(-DOUBLE_BIAS);
    struct double_result result = {.sum = pair_plus(others, e_y)};
    if (others.hi < 1) { /* log1p(v) is v */
        result.loss_y = others;
        result.tiny = -DOUBLE_BIAS;
        return result;
    }
    if (others.hi < 0.4142 * e_y.hi) {
        result.log_sum = pair_log1p((struct pair){others.hi * unit, others.lo * unit});
        result.loss_y = result.log_sum;
        return result;
    }
    result.log_sum = pair_log((struct pair){result.sum.hi * unit, result.sum.lo * unit});
    result.loss_y = pair_plus(result.log_sum, pair_sum(m, -x_y));
    return result;
}

/* +0 for a zero, and always the same NaN. */
static double double_canonical(double v)
{
    return v != v ? (double)NAN : f64_bits(v) == UINT64_C(1) << 63 ? 0 : v;
}

static struct pair double_loss(const struct double_target *t, const struct double_result *result)
{
    struct pair loss = {0, 0};
    if (t->own.hi != 0 && result->tiny && f64_is_finite(t->own.hi)) {
        struct wide product = wide_times(wide_from(t->own), wide_from(result->loss_y));
        product.exponent += result->tiny;
        loss.hi = wide_round(product);
    } else if (t->own.hi != 0) {
        loss = pair_times(t->own, result->loss_y);
    }
    if (!t->single) {
        const double named = t->rest * result->log_sum.hi + t->apart;
        const double spread = t->even == 0 ? 0 : t->even * (t->W * result->log_sum.hi + t->spread);
        if (f64_bits(named + spread) << 1 != 0) /* as in double_subtract */
            loss = pair_plus(loss, (struct pair){named + spread, 0});
    }
    return (struct pair){double_canonical(loss.hi), f64_is_finite(loss.hi) ? loss.lo : 0};
}

/* What every entry of a row's gradient is multiplied by: dloss / divisor, as a pair or, where it is not finite, as IEEE
   arithmetic has it. */
struct double_scale {
    bool finite;
    struct wide v;
    double any;
};

static struct double_scale double_scale(const struct xent_job *job, double dloss)
{
    struct double_scale scale = {.any = double_term(job->grad_scale, dloss)};
    scale.finite = f64_is_finite(dloss) && f64_is_finite(job->divisor);
    if (scale.finite && job->grad_scale != 0)
        scale.v = wide_over(wide_from((struct pair){dloss, 0}), wide_from((struct pair){job->divisor, 0}));
    return scale;
}

/* scale v */
static double double_scaled(const struct double_scale *scale, struct pair v)
{
    if (scale->finite && f64_is_finite(v.hi))
        return wide_round(wide_times(scale->v, wide_from(v)));
    return scale->any * v.hi;
}

/* The block's exponentials e as gradients, e (hi + lo) 2^exponent: hi has 26 bits, so that its products with 27 of e
   are exact. */
static ALWAYS_INLINE void double_multiply_of(size_t count, double *e, double hi, double lo, const struct power *of)
{
    const struct power power = *of;
    for (size_t i = 0; i < count; ++i) {
        const double upper = f64_from_bits(f64_bits(e[i]) & ~((UINT64_C(1) << 26) - 1)), lower = e[i] - upper;
        e[i] = f64_scaled(upper * hi + (lower * hi + e[i] * lo), &power);
    }
}

static NOINLINE void double_multiply(double *e, double hi, double lo, const struct power *power)
{
    double_multiply_of(DOUBLE_BLOCK, e, hi, lo, power);
}

static NOINLINE void double_multiply_few(double *e, double hi, double lo, const struct power *power)
{
    double_multiply_of(DOUBLE_FEW, e, hi, lo, power);
}

/* The second pass: exponentials times v, or times any where that is not finite. */
static void double_scale_row(const struct xent_job *job, double *out, struct wide v, double any)
{
    const size_t stride = job->out_strides.classes;
    const double hi = f64_upper(v.v.hi), lo = (v.v.hi - hi) + v.v.lo;
    const struct power power = f64_power(v.exponent);
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_count(job->classes, begin);
        if (f64_is_finite(any) && stride == 1 && count == DOUBLE_BLOCK) {
            double_multiply(out + begin, hi, lo, &power);
            continue;
        }
        double e[DOUBLE_BLOCK] = {0};
        for (size_t i = 0; i < count; ++i)
            e[i] = out[(begin + i) * stride];
        if (f64_is_finite(any))
            for (size_t i = 0; i < count; i += DOUBLE_FEW)
                double_multiply_few(e + i, hi, lo, &power);
        else
            for (size_t i = 0; i < count; ++i)
                e[i] = double_canonical(double_term(e[i], any));
        double_write(out, stride, begin, count, e);
    }
}

/* By the bits of v: of a comparison compilers make a subtraction of 0, which may flush a subnormal. */
static void double_subtract(double *g, double v)
{
    if (f64_bits(v) << 1 != 0)
        *g = double_canonical(*g - v);
}

/* Takes what the target distribution has of a class off its gradient. */
static void double_subtract_targets(const struct xent_job *job, size_t i, const struct double_target *t, double *out,
                                    const struct double_scale *scale)
{
    const size_t stride = job->out_strides.classes;
    if (!xent_job_has_labels(job)) {
        for (size_t j = 0; j < job->classes; ++j) {
            const struct pair share = double_share(job, i, j);
            if (share.hi != 0)
                double_subtract(&out[j * stride], double_scaled(scale, share));
        }
        return;
    }
    const double even = t->even == 0 ? 0 : double_scaled(scale, (struct pair){t->even, 0});
    if (t->even != 0)
        for (size_t j = 0; j < job->classes; ++j)
            double_subtract(&out[j * stride], double_term(xent_job_class_weight(job, j), even));
    for (size_t k = 0; !xent_job_has_plain_labels(job) && k < job->labels; ++k) {
        const int64_t label = xent_job_label(job, i, k);
        if (label != job->ignore_index && double_label_share(job, i, k).hi != 0)
            double_subtract(&out[(size_t)label * stride], double_scaled(scale, double_label_share(job, i, k)));
    }
}

/* The gradient of y. */
static double double_own_gradient(const struct double_target *t, const struct double_scale *scale, struct pair others,
                                  struct pair e_y, struct pair sum)
{
    const struct wide s = wide_from(sum), missed = wide_over(wide_from(others), s);
    if (t->even == 0 && t->rest == 0) {
        if (scale->finite && f64_is_finite(t->own.hi))
            return double_canonical(-wide_round(wide_times(wide_times(scale->v, wide_from(t->own)), missed)));
        return double_canonical(-double_term(others.hi, scale->any * t->own.hi));
    }
    const double p = wide_round(wide_over(wide_from(e_y), s));
    const double g = (t->own.hi * wide_round(missed) - t->rest * p) + t->even * (t->w_y - t->W * p);
    return double_canonical(-double_scaled(scale, (struct pair){g, 0}));
}

static void double_gradient(const struct xent_job *job, size_t i, const struct double_target *t,
                            const struct double_scale *scale, struct pair others, struct pair e_y, struct pair sum,
                            double *out)
{
    struct wide v = {{0, 0}, 0};
    const bool finite = scale->finite && f64_is_finite(t->total.hi);
    if (finite)
        v = wide_over(wide_times(scale->v, wide_from(t->total)), wide_from(sum));
    double_scale_row(job, out, v, finite ? 0 : scale->any * t->total.hi);
    if (!t->single)
        double_subtract_targets(job, i, t, out, scale);
    const bool has_share = t->own.hi != 0 || (t->even != 0 && t->w_y != 0);
    if (t->y != NO_CLASS && has_share) /* else its gradient is already there, as for any class */
        out[t->y * job->out_strides.classes] = double_own_gradient(t, scale, others, e_y, sum);
}

static void double_fill(const struct xent_job *job, double *out, double value)
{
    for (size_t j = 0; j < job->classes; ++j)
        out[j * job->out_strides.classes] = value;
}

/* Adds to the sum of the row's group. */
static void double_add_loss(const struct xent_job *job, size_t i, struct pair loss)
{
    if (!job->sums)
        return;
    const struct pair sum = pair_sum(job->sums[i >> job->sums_shift], loss.hi);
    job->sums[i >> job->sums_shift] = sum.hi;
    job->sums_rest[i >> job->sums_shift] += sum.lo + loss.lo;
}

static void double_store(const struct xent_job *job, size_t i, double loss, double lse)
{
    if (job->loss)
        ((double *)job->loss)[i] = loss;
    if (job->lse)
        ((double *)job->lse)[i] = lse;
}

/* Everything of the row's logits is read before any of out is written but by double_sum_others, block by block. */
static void double_row(const struct xent_job *job, size_t i, struct double_row x, double *out,
                       const struct double_scale *scale)
{
    const double m = double_max(x, job->classes);
    if (!f64_is_finite(m)) {
        double_add_loss(job, i, (struct pair){(double)NAN, 0});
        double_store(job, i, (double)NAN, (double)NAN);
        if (out)
            double_fill(job, out, (double)NAN);
        return;
    }
    const struct double_target t = double_distribution(job, i, x, m);
    const double x_y = t.y == NO_CLASS ? m : x.p[t.y * x.stride];
    struct pair e_y;
    const struct pair others = double_sum_others(job, x, out, m, t.y, &e_y);
    const struct double_result result = double_finish(others, e_y, x_y, m);
    const struct pair loss = double_loss(&t, &result), lse = pair_plus((struct pair){m, 0}, result.log_sum);
    double_add_loss(job, i, loss);
    double_store(job, i, loss.hi, lse.hi);
    if (out)
        double_gradient(job, i, &t, scale, others, e_y, result.sum, out);
}

static void cross_entropy_f64(const struct xent_job *job, size_t first, size_t last)
{
    struct double_scale scale = double_scale(job, 1);
    for (size_t i = first; i < last; ++i) {
        const struct double_row x = {(const double *)job->logits + xent_job_at(job, &job->logits_strides, i),
                                     job->logits_strides.classes};
        double *out = job->out ? (double *)job->out + xent_job_at(job, &job->out_strides, i) : NULL;
        if (!xent_job_ignores(job, i)) {
            if (job->dloss && out)
                scale = double_scale(job, xent_job_number(job, job->dloss, xent_job_at(job, &job->dloss_strides, i)));
            double_row(job, i, x, out, &scale);
            continue;
        }
        double_store(job, i, 0, 0);
        if (out)
            double_fill(job, out, 0);
    }
}

#endif
