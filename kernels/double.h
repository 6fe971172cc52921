/*
 * Softmax cross entropy of doubles, the same text for every kernel: section 8 of docs/numerics.md.
 *
 * As in bce.h the bits are those of + - * / on doubles in the order of this text, in loops over blocks that a compiler
 * turns into vector instructions. What must be better than a double is a pair of doubles (kernels/pair.h).
 *
 * With m the largest logit, z_j = x_j - m (a pair), e_j = 2^960 exp(z_j), y the class of kernels/target.h, but for
 * probabilities the first of the largest q_j w_j, and s' the sum of the others' e_j, so that s = s' + e_y, for a
 * distribution t_j = n_j + even w_j:
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

/* Rows of up to so many classes are taken DOUBLE_ROWS at a time: they stay in cache until the second pass. Of up to so
   many by columns, also where rows are no neighbours. */
enum { DOUBLE_BATCH_CLASSES = 2048, DOUBLE_COLUMNS_CLASSES = 48 };

/* exp of less counts as 0: less than 2^-1803. */
#define DOUBLE_CUT (-1250.0)

/* One of two numbers that both are computed: of ?: compilers make jumps. */
static ALWAYS_INLINE double double_choose(bool first, double a, double b)
{
    const uint64_t mask = (uint64_t)0 - (uint64_t)first;
    return f64_from_bits((f64_bits(a) & mask) | (f64_bits(b) & ~mask));
}

/* A term whose factor is 0 is 0. */
static ALWAYS_INLINE double double_term(double factor, double v)
{
    return double_choose(factor == 0, 0, factor * v);
}

/* The same for a v that is not finite: NaN makes NaN of a 0, too. */
static ALWAYS_INLINE double double_by_any(double factor, double v)
{
    return double_choose((factor == 0) & (v == v), 0, factor * v);
}

/* +0 for a zero, and always the same NaN. */
static ALWAYS_INLINE double double_canonical(double v)
{
    return double_choose(v != v, (double)NAN, double_choose(f64_bits(v) << 1 == 0, 0, v));
}

/* clang-format off */
#include "kernels/double_row.h"
#include "kernels/double_target.h"
#include "kernels/double_batch.h"
#include "kernels/double_columns.h"
/* clang-format on */

/* Takes up to limit rows from first on, but ignored ones, which are done with. Returns the first row that is left. */
static size_t double_fill_batch(struct double_batch *b, const struct xent_job *job, size_t first, size_t last,
                                size_t limit)
{
    size_t i = first, count = 0, outer = first / job->inner, inner = first % job->inner;
    for (; i < last && count < limit; ++i) {
        const xent_strides *in = &job->logits_strides, *to = &job->out_strides;
        double *out = job->out ? (double *)job->out + outer * to->outer + inner * to->inner : NULL;
        if (!xent_job_ignores(job, i)) {
            b->row[count] = i;
            b->x[count] = (const double *)job->logits + outer * in->outer + inner * in->inner;
            b->out[count] = out;
            ++count;
        } else {
            double_store(job, i, 0, 0);
            if (out)
                double_fill(job, out, 0);
        }
        if (++inner == job->inner) {
            inner = 0;
            ++outer;
        }
    }
    b->count = count;
    return i;
}

static struct double_row double_row_at(const struct double_batch *b, size_t i, const struct xent_job *job)
{
    return (struct double_row){b->x[i], job->logits_strides.classes};
}

/* The target of row i, unless that is a whole label, but for the sum of w_j (m - x_j). */
static void double_find_target(struct double_batch *b, size_t i, const struct xent_job *job)
{
    struct double_target t = {.y = NO_CLASS};
    if (b->is_finite[i])
        t = double_distribution(job, b->row[i], double_row_at(b, i, job), b->m[i]);
    b->y[i] = t.y == NO_CLASS ? -1 : (int64_t)t.y;
    double_put(&b->own, i, t.own);
    double_put(&b->total, i, t.total);
    b->rest[i] = t.rest;
    b->apart[i] = t.apart;
    b->even[i] = t.even;
    b->w_y[i] = t.w_y;
    b->spread[i] = 0;
}

/* The targets of rows whose largest logits are known. c is NULL but where rows are taken by columns. */
static void double_find_targets(struct double_batch *b, const struct xent_job *job, bool whole,
                                struct double_columns *c)
{
    const bool by_columns = c && !xent_job_has_labels(job);
    bool has_even = false;
    b->W = job->weights_sum;
    for (size_t i = 0; i < b->count; ++i)
        b->is_finite[i] = f64_is_finite(b->m[i]);
    for (size_t i = 0; whole && i < b->count; ++i)
        b->y[i] = xent_job_target(job, b->row[i]);
    if (by_columns)
        double_columns_probabilities(b, job, c);
    for (size_t i = 0; !whole && !by_columns && i < b->count; ++i) {
        double_find_target(b, i, job);
        has_even |= b->even[i] != 0;
    }
    if (c) {
        c->has_even = has_even;
        if (has_even)
            double_columns_spread(b, job, c);
    }
    for (size_t i = 0; !c && has_even && i < b->count; ++i)
        if (b->even[i] != 0)
            b->spread[i] = double_spread(job, double_row_at(b, i, job), b->m[i]);
    for (size_t i = 0; i < b->count; ++i)
        b->x_y[i] = b->y[i] < 0 ? b->m[i] : b->x[i][(size_t)b->y[i] * job->logits_strides.classes];
}

/* The second pass over row i, and what shares take off its gradients. */
static void double_scale(const struct double_batch *b, size_t i, const struct xent_job *job, bool whole)
{
    const struct power power = double_power(b, i);
    double_scale_row(job, b->out[i], b->v.hi[i], b->v.lo[i], &power, b->any[i]);
    if (whole)
        return;
    if (!xent_job_has_labels(job)) {
        double_subtract_shares(b, i, job, NULL);
    } else if (b->even[i] != 0) {
        const double even = double_scaled(b, i, (struct pair){b->even[i], 0});
        double_subtract_shares(b, i, job, &even);
    }
}

/* Whether a batch is better taken by columns; how its rows lie, if it is. */
static bool double_has_columns(const struct double_batch *b, const struct xent_job *job, struct double_columns *c)
{
    c->x_is_packed = double_are_packed(b, b->x);
    c->out_is_packed = b->out[0] && double_are_packed(b, (const double *const *)b->out);
    return b->count >= DOUBLE_ROWS / 2 && (job->classes <= DOUBLE_COLUMNS_CLASSES || c->x_is_packed);
}

/* The first pass. Of a row's logits everything else is read before its exponentials are left in out. */
static void double_sum_batch(struct double_batch *b, const struct xent_job *job, bool whole, struct double_columns *c)
{
    if (c) {
        double_columns_max(b, job, c);
        double_find_targets(b, job, whole, c);
        double_columns_sum(b, job, c);
        return;
    }
    for (size_t i = 0; i < b->count; ++i)
        b->m[i] = double_max(double_row_at(b, i, job), job->classes);
    double_find_targets(b, job, whole, NULL);
    for (size_t i = 0; i < b->count; ++i) {
        const struct double_row x = double_row_at(b, i, job);
        struct pair e_y = {0, 0}, others = {0, 0};
        if (b->is_finite[i])
            others = double_sum_others(job, x, b->out[i], b->m[i], (size_t)b->y[i], &e_y);
        double_put(&b->others, i, others);
        double_put(&b->e_y, i, e_y);
    }
}

/* The second pass. */
static void double_scale_batch(const struct double_batch *b, const struct xent_job *job, bool whole,
                               struct double_columns *c)
{
    if (c)
        double_columns_scale(b, job, c);
    for (size_t i = 0; i < b->count; ++i) {
        if (!b->is_finite[i]) {
            double_fill(job, b->out[i], (double)NAN);
            continue;
        }
        if (!c)
            double_scale(b, i, job, whole);
        if (xent_job_has_labels(job) && !xent_job_has_plain_labels(job))
            double_subtract_labels(b, i, job);
        const bool has_share = whole || b->own.hi[i] != 0 || (b->even[i] != 0 && b->w_y[i] != 0);
        if (b->y[i] >= 0 && has_share) /* else its gradient is already there, as for any class */
            b->out[i][(size_t)b->y[i] * job->out_strides.classes] = b->own_gradient[i];
    }
}

static void double_do_batch(struct double_batch *b, const struct xent_job *job, bool whole)
{
    struct double_columns columns, *c = double_has_columns(b, job, &columns) ? &columns : NULL;
    double_sum_batch(b, job, whole, c);
    double_finish(b, whole);
    if (job->sums)
        double_add_losses(b, job);
    for (size_t i = 0; i < b->count; ++i)
        double_store(job, b->row[i], b->is_finite[i] ? b->loss.hi[i] : (double)NAN,
                     b->is_finite[i] ? b->lse[i] : (double)NAN);
    if (job->out)
        double_scale_batch(b, job, whole, c);
}

static void cross_entropy_f64(const struct xent_job *job, size_t first, size_t last)
{
    struct double_batch b;
    const bool whole = xent_job_has_whole_labels(job);
    const size_t limit = job->classes <= DOUBLE_BATCH_CLASSES || job->inner > 1 ? DOUBLE_ROWS : 1;
    if (job->out && !job->dloss)
        double_find_scales(&b, job);
    while (first < last) {
        first = double_fill_batch(&b, job, first, last, limit);
        if (b.count == 0)
            continue;
        if (job->out && job->dloss)
            double_find_scales(&b, job);
        double_do_batch(&b, job, whole);
    }
}

#endif
