/*
 * Part of kernels/algorithm.h: the functions of a kernel. Rows are taken in batches: all are summed, then all sums are
 * turned into results (in loops that a compiler makes into vector instructions: a row's logarithm and divisions would
 * otherwise take longer than 100 of its classes), then all rows are scaled.
 */
#ifndef XENT_KERNELS_ROWS_H
#define XENT_KERNELS_ROWS_H

enum {
    BATCH = 16,
    BATCH_LOGITS = 4096, /* a batch of more than one row stays in the first-level cache */
    COLUMNS_ROWS = 3     /* fewer short rows than this are faster one by one */
};

/* Rows that are computed together. */
struct batch {
    size_t count, classes;
    size_t row[BATCH]; /* their numbers */
    const float *x[BATCH];
    float *out[BATCH]; /* or NULL, for all */
    int64_t y[BATCH];  /* the target; -1: none, for all */
    float x_y[BATCH];  /* its logit */

    double others[BATCH];
    struct frame frame[BATCH];
    bool finite[BATCH];

    double loss[BATCH], log_sum[BATCH];
    struct multiplier multiplier[BATCH]; /* of the exponentials */
    float target_gradient[BATCH];
};

/* From sums to results, for so many rows. */
static ALWAYS_INLINE void finish_rows(struct batch *b, int count, bool targets, double grad_scale)
{
    double e[BATCH] = {0}, z[BATCH] = {0}, sum[BATCH], multiplier[BATCH];
    for (int i = 0; targets && i < count; ++i) {
        z[i] = (double)b->x_y[i] - (double)b->frame[i].ref;
        e[i] = row_exponential(z[i], b->frame[i].cut);
    }
    for (int i = 0; i < count; ++i) {
        const struct row_result row = row_finish(b->others[i], e[i], z[i]);
        b->loss[i] = row.loss;
        b->log_sum[i] = row.log_sum;
        sum[i] = row.sum;
    }
    if (!b->out[0])
        return;
    for (int i = 0; i < count; ++i)
        multiplier[i] = grad_scale / sum[i];
    for (int i = 0; targets && i < count; ++i)
        b->target_gradient[i] = row_target_gradient(b->others[i], sum[i], grad_scale);
    for (int i = 0; i < count; ++i)
        b->multiplier[i] = row_multiplier(multiplier[i]);
}

/* By constant numbers of rows: loops of known length become straight vector code. Rows that only fill up a vector get
   something harmless. */
static void finish_batch(struct batch *b, bool targets, double grad_scale)
{
    const size_t count = b->count == 1 ? 1 : b->count <= BATCH / 2 ? BATCH / 2 : BATCH;
    for (size_t i = b->count; i < count; ++i) {
        b->x_y[i] = 0;
        b->others[i] = 1;
        b->frame[i] = near_frame;
    }
    if (count == 1)
        finish_rows(b, 1, targets, grad_scale);
    else if (count == BATCH / 2)
        finish_rows(b, BATCH / 2, targets, grad_scale);
    else
        finish_rows(b, BATCH, targets, grad_scale);
}

static void store_losses(const struct batch *b, const struct xent_job *job)
{
    for (size_t i = 0; i < b->count; ++i) {
        const double loss = b->finite[i] ? b->loss[i] : (double)NAN;
        const double lse = (double)b->frame[i].ref + b->log_sum[i];
        xent_job_add_loss(job, b->row[i], loss);
        if (job->loss)
            job->loss[b->row[i]] = f64_to_f32(loss);
        if (job->lse)
            job->lse[b->row[i]] = b->finite[i] ? f64_to_f32(lse) : NAN;
    }
}

/* What a target's entry, or a row that is not finite, gets in place of the scaled exponentials. */
static void store_exceptions(const struct batch *b, bool targets)
{
    for (size_t i = 0; i < b->count; ++i) {
        if (!b->finite[i])
            fill(b->out[i], b->classes, NAN);
        else if (targets)
            b->out[i][b->y[i]] = b->target_gradient[i];
    }
}

/* Every row by itself. */
static ALWAYS_INLINE void run_batch(struct batch *b, const struct xent_job *job, bool targets, double grad_scale)
{
    size_t zeros[BATCH], kept[BATCH];
    for (size_t i = 0; i < b->count; ++i) {
        struct pass pass = {b->x[i], b->out[i], (size_t)b->y[i], true};
        struct summed row;
        if (!pass.keep) {
            pass.keep = NULL;
            row = sum_row(pass, b->classes);
        } else if (pass.keep == pass.x) {
            row = sum_row(pass, b->classes);
        } else {
            pass.ahead = false;
            row = sum_row(pass, b->classes);
        }
        b->others[i] = row.others;
        b->frame[i] = row.frame;
        b->finite[i] = row.finite;
        zeros[i] = row.zeros;
        kept[i] = row.kept;
    }
    finish_batch(b, targets, grad_scale);
    store_losses(b, job);
    if (!b->out[0])
        return;
    for (size_t i = 0; i < b->count; ++i)
        if (b->finite[i])
            scale_span(b->x[i], b->out[i], 0, b->classes, zeros[i], kept[i], b->frame[i], b->multiplier[i]);
    store_exceptions(b, targets);
}

/* Rows of few classes by columns. Everything is read before anything is written: rows that only pad the batch are the
   first one again. */
static void run_columns(struct batch *b, const struct xent_job *job, bool targets, double grad_scale)
{
    enum { BLOCKS = BATCH / VW };
    struct columns columns[BLOCKS];
    bool in_window[BLOCKS];
    int32_t y[BATCH], exponent[BATCH];
    float ref[BATCH], cut[BATCH], hi[BATCH], lo[BATCH];
    for (size_t i = b->count; i < BATCH; ++i) {
        b->x[i] = b->x[0];
        b->out[i] = b->out[0];
        b->y[i] = b->y[0];
        b->x_y[i] = b->x_y[0];
    }
    for (int i = 0; i < BATCH; ++i)
        y[i] = (int32_t)b->y[i];
    for (int k = 0; k < BLOCKS; ++k) {
        const int at = k * VW;
        in_window[k] = columns_exp(b->x + at, b->classes, y + at, &columns[k]);
        if (in_window[k]) {
            columns_sum(&columns[k], b->classes, b->others + at);
            for (int i = at; i < at + VW; ++i) {
                b->frame[i] = near_frame;
                b->finite[i] = true;
            }
            continue;
        }
        columns_max(b->x + at, b->classes, ref + at);
        for (int i = at; i < at + VW; ++i) {
            b->finite[i] = row_is_finite(ref[i]);
            b->frame[i] = row_frame(ref[i]);
            ref[i] = b->frame[i].ref;
            cut[i] = b->frame[i].cut;
        }
        columns_exp_wide(b->x + at, b->classes, y + at, ref + at, cut + at, &columns[k]);
        columns_sum_wide(&columns[k], b->classes, b->others + at);
        for (int i = at; i < at + VW; ++i)
            b->finite[i] = b->finite[i] && b->others[i] == b->others[i] && b->x_y[i] == b->x_y[i];
    }
    finish_rows(b, BATCH, targets, grad_scale);
    store_losses(b, job);
    if (!b->out[0])
        return;
    for (int k = 0; k < BLOCKS; ++k) {
        bool plain = in_window[k];
        for (int i = k * VW; i < k * VW + VW; ++i) {
            exponent[i] = b->multiplier[i].exponent;
            hi[i] = b->multiplier[i].hi;
            lo[i] = b->multiplier[i].lo;
            plain = plain && is_plain(exponent[i]);
        }
        for (int i = k * VW; plain && i < k * VW + VW; ++i) {
            hi[i] *= f32_pow2(exponent[i]);
            lo[i] *= f32_pow2(exponent[i]);
        }
        if (in_window[k] && !plain) {
            for (int i = k * VW; i < k * VW + VW; ++i) {
                ref[i] = near_frame.ref;
                cut[i] = near_frame.cut;
            }
            columns_exp_wide(b->x + k * VW, b->classes, y + k * VW, ref + k * VW, cut + k * VW, &columns[k]);
            in_window[k] = false;
        }
    }
    for (int k = 0; k < BLOCKS; ++k) {
        const int at = k * VW;
        if (in_window[k])
            columns_scale(&columns[k], b->classes, hi + at, lo + at, b->out + at);
        else
            columns_scale_wide(&columns[k], b->classes, exponent + at, hi + at, lo + at, b->out + at);
    }
    store_exceptions(b, targets);
}

static void ignore_row(const struct xent_job *job, size_t row)
{
    if (job->out)
        fill(job->out + row * job->out_stride, job->classes, 0.0f);
    if (job->loss)
        job->loss[row] = 0;
    if (job->lse)
        job->lse[row] = 0;
}

static ALWAYS_INLINE void run_rows(const struct xent_job *job, size_t first, size_t last, bool targets,
                                   double grad_scale)
{
    const size_t fitting = job->classes > 0 ? BATCH_LOGITS / job->classes : 1;
    const size_t limit = fitting < 1 ? 1 : fitting < BATCH ? fitting : BATCH;
    struct batch b;
    b.classes = job->classes;
    for (size_t i = first; i < last;) {
        for (b.count = 0; i < last && b.count < limit; ++i) {
            const int64_t target = targets ? xent_job_target(job, i) : -1;
            if (targets && target == job->ignore_index) {
                ignore_row(job, i);
                continue;
            }
            b.row[b.count] = i;
            b.x[b.count] = job->logits + i * job->logits_stride;
            b.out[b.count] = job->out ? job->out + i * job->out_stride : NULL;
            b.y[b.count] = target;
            b.x_y[b.count] = targets ? b.x[b.count][target] : 0;
            ++b.count;
        }
        if (b.count >= COLUMNS_ROWS && b.classes <= COLUMNS_MAX)
            run_columns(&b, job, targets, grad_scale);
        else if (b.count > 0)
            run_batch(&b, job, targets, grad_scale);
    }
}

static void cross_entropy(const struct xent_job *job, size_t first, size_t last)
{
    run_rows(job, first, last, true, job->grad_scale);
}

static void softmax(const struct xent_job *job, size_t first, size_t last)
{
    run_rows(job, first, last, false, 1);
}

/* The first class with the largest logit, leaving out any NaN; classes if there is none. */
static size_t row_argmax(const float *x, size_t classes)
{
    const float max = span_max(x, 0, classes);
    size_t j = 0;
    while (j < classes && x[j] != max)
        ++j;
    return j;
}

static void log_softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *out = job->out + i * job->out_stride;
        const size_t y = row_argmax(x, job->classes);
        const struct summed sums = sum_row((struct pass){x, NULL, y, true}, job->classes);
        if (!sums.finite) {
            fill(out, job->classes, NAN);
            continue;
        }
        const double target_z = (double)x[y] - (double)sums.frame.ref;
        const struct row_result row =
            row_finish(sums.others, row_exponential(target_z, sums.frame.cut), target_z);
        const float hi = (float)row.log_sum;
        const float lo = (float)(row.log_sum - (double)hi);
        for (size_t j = 0; j < job->classes; j += VW) {
            const vf z = vsub(load_left(x + j, job->classes - j), vset(sums.frame.ref));
            store_left(out + j, vsub(vsub(z, vset(hi)), vset(lo)), job->classes - j);
        }
        out[y] = -f64_to_f32(row.loss);
    }
}

#endif
