/*
 * Part of kernels/double.h: the target distribution of a row of doubles.
 */
#ifndef XENT_KERNELS_DOUBLE_TARGET_H
#define XENT_KERNELS_DOUBLE_TARGET_H

/* A row's target distribution as the results need it. */
struct double_target {
    size_t y;
    struct pair own, total; /* n_y; the sum of all t_j */
    double rest, apart;     /* the sums over j != y of n_j, and of n_j (m - x_j) */
    double even, w_y;
};

/* What a probability q of a class of weight w is of its row's target. */
static ALWAYS_INLINE struct pair double_named(double r, double target_weight, double w, double q)
{
    return pair_times(pair_product(r, target_weight), pair_product(w, q));
}

/* The same with label smoothing, all that it has of the class. */
static ALWAYS_INLINE double double_smoothed(double r, double smoothing, double target_weight, double w, double q)
{
    return r * (w * (smoothing + target_weight * q));
}

/* The share that label number k of row i has of its class. */
static struct pair double_label_share(const struct xent_job *job, size_t i, size_t k)
{
    const double w = xent_job_class_weight(job, (size_t)xent_job_label(job, i, k));
    return double_named(xent_job_row_weight(job, i), job->target_weight, w, xent_job_label_probability(job, i, k));
}

/* The weights of step classes from begin on; after the last one anything. */
static ALWAYS_INLINE const double *double_weights(const struct xent_job *job, size_t begin, size_t step, double *buffer)
{
    static const double ones[DOUBLE_BLOCK] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                              1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const struct double_row w = {job->class_weights, 1};
    return w.p ? double_read(w, begin, job->classes, step, 0, buffer) : ones;
}

/* Adds w_j (m - x_j). */
static ALWAYS_INLINE void double_spread_step(struct double_lanes *lanes, const struct xent_job *job,
                                             struct double_row x, double m, size_t begin, size_t step)
{
    double buffer[DOUBLE_BLOCK], w_buffer[DOUBLE_BLOCK], term[DOUBLE_BLOCK], none[DOUBLE_BLOCK];
    const double *v = double_read(x, begin, job->classes, step, m, buffer);
    const double *w = double_weights(job, begin, step, w_buffer);
    for (size_t k = 0; k < step; ++k) {
        term[k] = double_term(w[k], m - v[k]);
        none[k] = 0;
    }
    double_add_step(lanes, begin, step, term, none);
}

/* The sum of w_j (m - x_j). */
static NOINLINE double double_spread(const struct xent_job *job, struct double_row x, double m)
{
    struct double_lanes lanes;
    size_t begin = 0;
    double_start(&lanes, job->classes);
    for (; job->classes - begin >= DOUBLE_BLOCK; begin += DOUBLE_BLOCK)
        double_spread_step(&lanes, job, x, m, begin, DOUBLE_BLOCK);
    for (; begin < job->classes; begin += DOUBLE_FEW)
        double_spread_step(&lanes, job, x, m, begin, DOUBLE_FEW);
    return double_fold(&lanes, job->classes).hi;
}

static struct double_row double_probabilities(const struct xent_job *job, size_t i)
{
    return (struct double_row){(const double *)job->targets + xent_job_at(job, &job->targets_strides, i),
                               job->targets_strides.classes};
}

/* Whether probabilities are shares as they are. */
static bool double_are_shares(const struct xent_job *job)
{
    return !job->class_weights && !job->row_weights && job->smoothing == 0;
}

/* The shares of step classes from begin on in a row of weight r and probabilities q_row; smoothing is part of them. */
static ALWAYS_INLINE void double_shares(const struct xent_job *job, double r, struct double_row q_row, size_t begin,
                                        size_t step, double *hi, double *lo)
{
    double q_buffer[DOUBLE_BLOCK], w_buffer[DOUBLE_BLOCK];
    const double *q = double_read(q_row, begin, job->classes, step, 0, q_buffer);
    if (double_are_shares(job)) {
        for (size_t k = 0; k < step; ++k) {
            hi[k] = q[k];
            lo[k] = 0;
        }
        return;
    }
    const double *w = double_weights(job, begin, step, w_buffer);
    const double target_weight = job->target_weight, smoothing = job->smoothing;
    for (size_t k = 0; smoothing == 0 && k < step; ++k) {
        const struct pair share = double_named(r, target_weight, w[k], q[k]);
        hi[k] = share.hi;
        lo[k] = share.lo;
    }
    for (size_t k = 0; smoothing != 0 && k < step; ++k) {
        hi[k] = double_smoothed(r, smoothing, target_weight, w[k], q[k]);
        lo[k] = 0;
    }
    for (size_t k = job->classes - begin; k < step; ++k)
        hi[k] = lo[k] = 0;
}

static NOINLINE void double_share_block(const struct xent_job *job, double r, struct double_row q, size_t begin,
                                        double *hi, double *lo)
{
    double_shares(job, r, q, begin, DOUBLE_BLOCK, hi, lo);
}

static NOINLINE void double_share_few(const struct xent_job *job, double r, struct double_row q, size_t begin,
                                      double *hi, double *lo)
{
    double_shares(job, r, q, begin, DOUBLE_FEW, hi, lo);
}

static ALWAYS_INLINE void double_share_step(const struct xent_job *job, double r, struct double_row q, size_t begin,
                                            size_t step, double *hi, double *lo)
{
    if (step == DOUBLE_BLOCK)
        double_share_block(job, r, q, begin, hi, lo);
    else
        double_share_few(job, r, q, begin, hi, lo);
}

/* Adds the shares of a step, and what they are times m - x_j, but for y's. */
static ALWAYS_INLINE void double_add_share_step(struct double_target *t, struct double_lanes *rest,
                                                struct double_lanes *apart, const struct xent_job *job, double r,
                                                struct double_row q, struct double_row x, double m, size_t begin,
                                                size_t step)
{
    double buffer[DOUBLE_BLOCK], hi[DOUBLE_BLOCK], lo[DOUBLE_BLOCK], term[DOUBLE_BLOCK], none[DOUBLE_BLOCK];
    const size_t skip = t->y - begin;
    double_share_step(job, r, q, begin, step, hi, lo);
    if (skip < step) {
        t->own = (struct pair){hi[skip], lo[skip]};
        hi[skip] = lo[skip] = 0;
    }
    const double *v = double_read(x, begin, job->classes, step, m, buffer);
    for (size_t k = 0; k < step; ++k) {
        term[k] = double_term(hi[k], m - v[k]);
        none[k] = 0;
    }
    double_add_step(rest, begin, step, hi, lo);
    double_add_step(apart, begin, step, term, none);
}

static NOINLINE void double_add_shares(struct double_target *t, const struct xent_job *job, size_t i,
                                       struct double_row x, double m)
{
    const struct double_row q = double_probabilities(job, i);
    const double r = xent_job_row_weight(job, i);
    struct double_lanes rest, apart;
    size_t begin = 0;
    double_start(&rest, job->classes);
    double_start(&apart, job->classes);
    for (; job->classes - begin >= DOUBLE_BLOCK; begin += DOUBLE_BLOCK)
        double_add_share_step(t, &rest, &apart, job, r, q, x, m, begin, DOUBLE_BLOCK);
    for (; begin < job->classes; begin += DOUBLE_FEW)
        double_add_share_step(t, &rest, &apart, job, r, q, x, m, begin, DOUBLE_FEW);
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
    t->total = pair_plus(pair_plus(own, rest), pair_product(t->even, job->weights_sum));
}

/* Class j has the largest share so far, if it is larger. */
static ALWAYS_INLINE void double_raise_share(double *largest, uint64_t *at, double share, uint64_t j)
{
    const uint64_t larger = (uint64_t)0 - (uint64_t)(share > *largest);
    *at = (*at & ~larger) | (j & larger);
    *largest = double_choose(share > *largest, share, *largest);
}

static ALWAYS_INLINE void double_raise_shares(double *largest, uint64_t *at, const struct xent_job *job,
                                              struct double_row row, size_t begin, size_t step)
{
    double q_buffer[DOUBLE_BLOCK], w_buffer[DOUBLE_BLOCK];
    const double *q = double_read(row, begin, job->classes, step, 0, q_buffer);
    const double *w = double_weights(job, begin, step, w_buffer);
    for (size_t k = 0; k < step; ++k)
        double_raise_share(&largest[k], &at[k], q[k] * w[k], begin + k);
}

/* The class that a row of probabilities is measured from: the first of the largest q_j w_j; NO_CLASS if that is not
   positive, or its logit is -inf. */
static NOINLINE size_t double_largest_share(const struct xent_job *job, size_t i, struct double_row x)
{
    const struct double_row q = double_probabilities(job, i);
    double largest[DOUBLE_BLOCK];
    uint64_t at[DOUBLE_BLOCK];
    for (size_t k = 0; k < DOUBLE_BLOCK; ++k) {
        largest[k] = 0;
        at[k] = 0;
    }
    size_t begin = 0;
    for (; job->classes - begin >= DOUBLE_BLOCK; begin += DOUBLE_BLOCK)
        double_raise_shares(largest, at, job, q, begin, DOUBLE_BLOCK);
    for (; begin < job->classes; begin += DOUBLE_FEW)
        double_raise_shares(largest, at, job, q, begin, DOUBLE_FEW);
    for (size_t k = 1; k < DOUBLE_BLOCK; ++k)
        if (largest[k] > largest[0] || (largest[k] == largest[0] && at[k] < at[0])) {
            largest[0] = largest[k];
            at[0] = at[k];
        }
    return largest[0] > 0 && x.p[at[0] * x.stride] != (double)-INFINITY ? (size_t)at[0] : NO_CLASS;
}

/* Row i's distribution but for the sum of w_j (m - x_j). */
static struct double_target double_distribution(const struct xent_job *job, size_t i, struct double_row x, double m)
{
    if (!xent_job_has_labels(job)) {
        struct double_target t = {.y = double_largest_share(job, i, x)};
        double_add_shares(&t, job, i, x, m);
        return t;
    }
    struct distribution d;
    distribution_of_labels(&d, job, i);
    struct double_target t = {.y = d.y, .even = d.even, .w_y = d.w_y};
    if (xent_job_has_plain_labels(job)) {
        t.own = double_named(xent_job_row_weight(job, i), job->target_weight, d.w_y, 1);
        t.total = d.even == 0 ? t.own : pair_plus(t.own, pair_product(t.even, job->weights_sum));
    } else {
        double_add_labels(&t, job, i, x, m);
    }
    return t;
}

#endif
