/*
 * Part of kernels/double.h: rows of doubles that are computed together, and how their sums are turned into results: in
 * loops without branches that become vector code, as a row's logarithm and quotients take longer than 50 of its
 * classes.
 */
#ifndef XENT_KERNELS_DOUBLE_BATCH_H
#define XENT_KERNELS_DOUBLE_BATCH_H

enum { DOUBLE_ROWS = 16 };

struct double_pairs {
    double hi[DOUBLE_ROWS], lo[DOUBLE_ROWS];
};

static ALWAYS_INLINE struct pair double_pair(const struct double_pairs *pairs, size_t i)
{
    return (struct pair){pairs->hi[i], pairs->lo[i]};
}

static ALWAYS_INLINE void double_put(struct double_pairs *pairs, size_t i, struct pair v)
{
    pairs->hi[i] = v.hi;
    pairs->lo[i] = v.lo;
}

struct double_batch {
    double m[DOUBLE_ROWS];   /* the largest logit */
    int64_t y[DOUBLE_ROWS];  /* the class that the loss is measured from; -1: none */
    double x_y[DOUBLE_ROWS]; /* its logit; m if there is none */

    /* struct double_target, unless all labels are whole */
    struct double_pairs own, total;
    double rest[DOUBLE_ROWS], apart[DOUBLE_ROWS], even[DOUBLE_ROWS], w_y[DOUBLE_ROWS], spread[DOUBLE_ROWS];

    /* What every entry of a row's gradient is multiplied by: dloss / divisor, as a pair and an exponent or, where it is
       not finite, as IEEE arithmetic has it. */
    struct double_pairs scale;
    int64_t scale_exponent[DOUBLE_ROWS];
    int64_t scale_is_finite[DOUBLE_ROWS];
    double scale_any[DOUBLE_ROWS];

    struct double_pairs others, e_y, sum; /* of the exponentials */
    struct double_pairs loss;
    double lse[DOUBLE_ROWS];

    /* What exponentials are multiplied by: v times a struct power, or any where that is not finite. */
    struct double_pairs v;
    double first[DOUBLE_ROWS], second[DOUBLE_ROWS], first_unit[DOUBLE_ROWS], second_unit[DOUBLE_ROWS];
    double any[DOUBLE_ROWS];
    double own_gradient[DOUBLE_ROWS];

    size_t row[DOUBLE_ROWS]; /* their numbers */
    const double *x[DOUBLE_ROWS];
    double *out[DOUBLE_ROWS];
    bool is_finite[DOUBLE_ROWS]; /* m */
    double W;                    /* of their targets, the same for all */
    size_t count;
} __attribute__((aligned(64)));
_Static_assert(offsetof(struct double_batch, is_finite) % 64 == 0, "an array before it does not begin a cache line");

static ALWAYS_INLINE struct power double_power(const struct double_batch *b, size_t i)
{
    return (struct power){b->first[i], b->second[i], b->first_unit[i], b->second_unit[i]};
}

/* scale v of row i. */
static ALWAYS_INLINE double double_scaled(const struct double_batch *b, size_t i, struct pair v)
{
    const struct wide scale = {double_pair(&b->scale, i), b->scale_exponent[i]};
    const double product = wide_round(wide_times(scale, wide_from(v)));
    return double_choose((b->scale_is_finite[i] != 0) & f64_is_finite(v.hi), product, b->scale_any[i] * v.hi);
}

/* Whether no product of the scale of row i with a usual number needs an exponent of its own. */
static ALWAYS_INLINE bool double_scale_is_usual(const struct double_batch *b, size_t i)
{
    return b->scale_is_finite[i] && b->scale_exponent[i] >= -300 && b->scale_exponent[i] <= 300;
}

/* Whether all numbers are usual. */
static ALWAYS_INLINE bool double_are_usual(const double *v, size_t count)
{
    int64_t unusual = 0;
    for (size_t k = 0; k < count; ++k) {
        const double size = f64_abs(v[k]);
        unusual |= (size != size) | (size > 0x1p300) | ((size < 0x1p-300) & (size != 0));
    }
    return unusual == 0;
}

/* double_scaled where both are usual: the same bits by fewer operations. */
static ALWAYS_INLINE double double_scaled_usual(const struct double_batch *b, size_t i, struct pair v)
{
    return pair_times(double_pair(&b->scale, i), v).hi * pair_pow2(b->scale_exponent[i]);
}

/* The scale of a row whose factor is dloss. */
static ALWAYS_INLINE void double_find_scale(struct double_batch *b, size_t i, const struct xent_job *job, double dloss)
{
    const bool finite = f64_is_finite(dloss) && f64_is_finite(job->divisor), zero = !finite || job->grad_scale == 0;
    const struct wide v = wide_over(wide_from((struct pair){dloss, 0}), wide_from((struct pair){job->divisor, 0}));
    double_put(&b->scale, i, (struct pair){zero ? 0 : v.v.hi, zero ? 0 : v.v.lo});
    b->scale_exponent[i] = zero ? 0 : v.exponent;
    b->scale_is_finite[i] = finite;
    b->scale_any[i] = double_term(job->grad_scale, dloss);
}

static ALWAYS_INLINE void double_copy_scale(struct double_batch *b, size_t to, size_t from)
{
    double_put(&b->scale, to, double_pair(&b->scale, from));
    b->scale_exponent[to] = b->scale_exponent[from];
    b->scale_is_finite[to] = b->scale_is_finite[from];
    b->scale_any[to] = b->scale_any[from];
}

/* The scales of all rows: the same, or each its own. */
static void double_find_scales(struct double_batch *b, const struct xent_job *job)
{
    const size_t own = job->dloss ? b->count : 1;
    for (size_t i = 0; i < own; ++i) {
        const size_t at = job->dloss ? xent_job_at(job, &job->dloss_strides, b->row[i]) : 0;
        double_find_scale(b, i, job, job->dloss ? xent_job_number(job, job->dloss, at) : 1);
    }
    for (size_t i = own; i < DOUBLE_ROWS; ++i)
        double_copy_scale(b, i, 0);
}

/* Beside an e_y of 2^960 a smaller sum of the others is its own log1p; one below 1 keeps an exponent of its own. */
#define DOUBLE_TINY 0x1p850

/* Sums, losses and log-sum-exps of rows from first on. */
static ALWAYS_INLINE void double_find_losses(struct double_batch *b, size_t first, size_t rows, bool whole)
{
    const double unit = f64_pow2(-DOUBLE_BIAS);
    struct double_pairs f, log_sum, loss_y;
    double n[DOUBLE_ROWS];
    for (size_t i = first; i < first + rows; ++i) {
        const struct pair others = double_pair(&b->others, i), e_y = double_pair(&b->e_y, i);
        const struct pair sum = pair_plus(others, e_y);
        const bool near = others.hi < 0.4142 * e_y.hi, tiny = others.hi < DOUBLE_TINY;
        /* Of a tiny quotient the square would be subnormal. */
        const struct logarithm small =
            pair_log1p_of((struct pair){(tiny ? 0 : others.hi) * unit, (tiny ? 0 : others.lo) * unit});
        const struct logarithm large = pair_log_of((struct pair){sum.hi * unit, sum.lo * unit});
        const struct pair upper = {near ? small.upper.hi : large.upper.hi, near ? small.upper.lo : large.upper.lo};
        const struct pair lower = {near ? small.lower.hi : large.lower.hi, near ? small.lower.lo : large.lower.lo};
        double_put(&f, i, pair_over(upper, lower));
        double_put(&b->sum, i, sum);
        n[i] = near ? small.n : large.n;
    }
    for (size_t i = first; i < first + rows; ++i) {
        const struct pair others = double_pair(&b->others, i);
        const bool near = others.hi < 0.4142 * b->e_y.hi[i], tiny = others.hi < DOUBLE_TINY, sure = others.hi < 1;
        const struct pair log = pair_log_sum(double_pair(&f, i), n[i]);
        const struct pair own = {tiny ? others.hi * (sure ? 1 : unit) : log.hi,
                                 tiny ? others.lo * (sure ? 1 : unit) : log.lo};
        const struct pair far = pair_plus(log, pair_sum(b->m[i], -b->x_y[i]));
        double_put(&log_sum, i, (struct pair){sure ? 0 : own.hi, sure ? 0 : own.lo});
        double_put(&loss_y, i, (struct pair){near ? own.hi : far.hi, near ? own.lo : far.lo});
    }
    int64_t any_sure = 0;
    for (size_t i = first; i < first + rows; ++i) {
        const struct pair own = whole ? (struct pair){1, 0} : double_pair(&b->own, i);
        const struct pair loss = pair_times(own, double_pair(&loss_y, i));
        double_put(&b->loss, i, (struct pair){own.hi == 0 ? 0 : loss.hi, own.hi == 0 ? 0 : loss.lo});
        any_sure |= b->others.hi[i] < 1;
    }
    /* A log s with an exponent of its own, which all shares have here at once. (An infinite one of them adds later.) */
    for (size_t i = first; any_sure && i < first + rows; ++i) {
        const struct pair total = whole ? (struct pair){1, 0} : double_pair(&b->total, i);
        const struct pair own = whole ? (struct pair){1, 0} : double_pair(&b->own, i);
        const bool all = f64_is_finite(total.hi), sure = (b->others.hi[i] < 1) & (all | f64_is_finite(own.hi));
        const struct pair share = {double_choose(all, total.hi, own.hi), double_choose(all, total.lo, own.lo)};
        struct wide loss = wide_times(wide_from(share), wide_from(double_pair(&loss_y, i)));
        loss.exponent -= DOUBLE_BIAS;
        b->loss.hi[i] = double_choose(sure, wide_round(loss), b->loss.hi[i]);
        b->loss.lo[i] = double_choose(sure, 0, b->loss.lo[i]);
    }
    for (size_t i = first; !whole && i < first + rows; ++i) {
        const struct pair loss = double_pair(&b->loss, i);
        const double named = b->rest[i] * log_sum.hi[i] + b->apart[i];
        const double even = b->even[i], spread = double_term(even, b->W * log_sum.hi[i] + b->spread[i]);
        const bool more = named + spread != 0;
        const struct pair both = pair_plus(loss, (struct pair){named + spread, 0});
        double_put(&b->loss, i, (struct pair){more ? both.hi : loss.hi, more ? both.lo : loss.lo});
    }
    for (size_t i = first; i < first + rows; ++i) {
        const struct pair loss = double_pair(&b->loss, i);
        double_put(&b->loss, i, (struct pair){double_canonical(loss.hi), f64_is_finite(loss.hi) ? loss.lo : 0});
        b->lse[i] = pair_plus((struct pair){b->m[i], 0}, double_pair(&log_sum, i)).hi;
    }
}

/* What exponentials are multiplied by, and the gradients of y. */
static ALWAYS_INLINE void double_find_multipliers(struct double_batch *b, size_t first, size_t rows, bool whole)
{
    struct double_pairs missed_v;
    int64_t exponent[DOUBLE_ROWS], missed_exponent[DOUBLE_ROWS];
    for (size_t i = first; i < first + rows; ++i) {
        const struct pair total = whole ? (struct pair){1, 0} : double_pair(&b->total, i);
        const struct wide scale = {double_pair(&b->scale, i), b->scale_exponent[i]};
        const struct wide s = wide_from(double_pair(&b->sum, i));
        const struct wide v = wide_over(wide_times(scale, wide_from(total)), s);
        const struct wide missed = wide_over(wide_from(double_pair(&b->others, i)), s);
        const bool finite = b->scale_is_finite[i] && f64_is_finite(total.hi);
        const double hi = f64_upper(v.v.hi), lo = (v.v.hi - hi) + v.v.lo;
        double_put(&b->v, i, (struct pair){finite ? hi : 0, finite ? lo : 0});
        exponent[i] = finite ? v.exponent : 0;
        b->any[i] = finite ? 0 : b->scale_any[i] * total.hi;
        double_put(&missed_v, i, missed.v);
        missed_exponent[i] = missed.exponent;
    }
    for (size_t i = first; i < first + rows; ++i) {
        const struct power power = pair_power(exponent[i]);
        b->first[i] = power.first;
        b->second[i] = power.second;
        b->first_unit[i] = power.first_unit;
        b->second_unit[i] = power.second_unit;
    }
    for (size_t i = first; i < first + rows; ++i) {
        const struct pair own = whole ? (struct pair){1, 0} : double_pair(&b->own, i);
        const struct wide scale = {double_pair(&b->scale, i), b->scale_exponent[i]};
        const struct wide missed = {double_pair(&missed_v, i), missed_exponent[i]};
        const double g = wide_round(wide_times(wide_times(scale, wide_from(own)), missed));
        const double any = double_by_any(b->others.hi[i], b->scale_any[i] * own.hi);
        const bool finite = (b->scale_is_finite[i] != 0) & f64_is_finite(own.hi);
        b->own_gradient[i] = double_canonical(-double_choose(finite, g, any));
    }
    for (size_t i = first; !whole && i < first + rows; ++i) {
        const struct wide missed = {double_pair(&missed_v, i), missed_exponent[i]};
        const struct wide s = wide_from(double_pair(&b->sum, i));
        const double p = wide_round(wide_over(wide_from(double_pair(&b->e_y, i)), s));
        const double g = (b->own.hi[i] * wide_round(missed) - b->rest[i] * p) + b->even[i] * (b->w_y[i] - b->W * p);
        const bool alone = b->even[i] == 0 && b->rest[i] == 0;
        const double shared = double_canonical(-double_scaled(b, i, (struct pair){g, 0}));
        b->own_gradient[i] = alone ? b->own_gradient[i] : shared;
    }
}

static ALWAYS_INLINE void double_finish_of(struct double_batch *b, size_t first, size_t rows, bool whole)
{
    double_find_losses(b, first, rows, whole);
    if (b->out[0])
        double_find_multipliers(b, first, rows, whole);
}

static NOINLINE void double_finish_row(struct double_batch *b, size_t i, bool whole)
{
    double_finish_of(b, i, 1, whole);
}

/* By constant numbers of rows: loops of known length become straight vector code. */
static NOINLINE void double_finish_whole(struct double_batch *b)
{
    double_finish_of(b, 0, DOUBLE_ROWS, true);
}

static NOINLINE void double_finish_any(struct double_batch *b)
{
    double_finish_of(b, 0, DOUBLE_ROWS, false);
}

/* From sums to results. Rows that only fill up a batch get something harmless. */
static void double_finish(struct double_batch *b, bool whole)
{
    for (size_t i = 0; b->count < DOUBLE_ROWS / 2 && i < b->count; ++i)
        double_finish_row(b, i, whole);
    if (b->count < DOUBLE_ROWS / 2)
        return;
    for (size_t i = b->count; i < DOUBLE_ROWS; ++i) {
        const struct pair one = {1, 0}, e = {0x1p960, 0};
        b->m[i] = b->x_y[i] = 0;
        double_put(&b->own, i, one);
        double_put(&b->total, i, one);
        b->rest[i] = b->apart[i] = b->even[i] = b->w_y[i] = b->spread[i] = 0;
        double_put(&b->others, i, e);
        double_put(&b->e_y, i, e);
    }
    if (whole)
        double_finish_whole(b);
    else
        double_finish_any(b);
}

/* Adds losses, in order, to the sums of their groups. */
static void double_add_losses(const struct double_batch *b, const struct xent_job *job)
{
    for (size_t i = 0; i < b->count;) {
        const size_t group = b->row[i] >> job->sums_shift;
        double sum = job->sums[group], rest = job->sums_rest[group];
        do {
            const struct pair loss = b->is_finite[i] ? double_pair(&b->loss, i) : (struct pair){(double)NAN, 0};
            const struct pair both = pair_sum(sum, loss.hi);
            sum = both.hi;
            rest += both.lo + loss.lo;
            ++i;
        } while (i < b->count && b->row[i] >> job->sums_shift == group);
        job->sums[group] = sum;
        job->sums_rest[group] = rest;
    }
}

static void double_store(const struct xent_job *job, size_t row, double loss, double lse)
{
    if (job->loss)
        ((double *)job->loss)[row] = loss;
    if (job->lse)
        ((double *)job->lse)[row] = lse;
}

static void double_fill(const struct xent_job *job, double *out, double value)
{
    for (size_t j = 0; j < job->classes; ++j)
        out[j * job->out_strides.classes] = value;
}

/* g less what a share comes to: g where that is 0, whatever it is multiplied by. */
static ALWAYS_INLINE double double_less_share(double g, double share, double v)
{
    return double_choose(share == 0, g, double_canonical(g - v));
}

/* Takes the shares of step classes, or the even ones if there is a number that these are multiples of, off gradients.
 */
static ALWAYS_INLINE void double_subtract_step(const struct double_batch *b, size_t i, const struct xent_job *job,
                                               const double *even, size_t begin, size_t step)
{
    double g[DOUBLE_BLOCK], hi[DOUBLE_BLOCK], lo[DOUBLE_BLOCK];
    const struct double_row out = {b->out[i], job->out_strides.classes};
    const double *given = double_read(out, begin, job->classes, step, 0, g);
    if (even) {
        const double *w = double_weights(job, begin, step, hi);
        for (size_t k = 0; k < step; ++k)
            g[k] = double_canonical(given[k] - double_term(w[k], *even));
    } else {
        double_share_step(job, xent_job_row_weight(job, b->row[i]), double_probabilities(job, b->row[i]), begin, step,
                          hi, lo);
        const bool usual = double_scale_is_usual(b, i) && double_are_usual(hi, step);
        for (size_t k = 0; usual && k < step; ++k)
            g[k] = double_less_share(given[k], hi[k], double_scaled_usual(b, i, (struct pair){hi[k], lo[k]}));
        for (size_t k = 0; !usual && k < step; ++k)
            g[k] = double_less_share(given[k], hi[k], double_scaled(b, i, (struct pair){hi[k], lo[k]}));
    }
    double_write(b->out[i], out.stride, begin, job->classes, step, g);
}

static NOINLINE void double_subtract_shares(const struct double_batch *b, size_t i, const struct xent_job *job,
                                            const double *even)
{
    size_t begin = 0;
    for (; job->classes - begin >= DOUBLE_BLOCK; begin += DOUBLE_BLOCK)
        double_subtract_step(b, i, job, even, begin, DOUBLE_BLOCK);
    for (; begin < job->classes; begin += DOUBLE_FEW)
        double_subtract_step(b, i, job, even, begin, DOUBLE_FEW);
}

/* Takes what a row's labels have of their classes off its gradients, if that is not all y's. */
static void double_subtract_labels(const struct double_batch *b, size_t i, const struct xent_job *job)
{
    for (size_t k = 0; k < job->labels; ++k) {
        const int64_t label = xent_job_label(job, b->row[i], k);
        if (label == job->ignore_index)
            continue;
        const struct pair share = double_label_share(job, b->row[i], k);
        double *g = b->out[i] + (size_t)label * job->out_strides.classes;
        *g = double_less_share(*g, share.hi, double_scaled(b, i, share));
    }
}

#endif
