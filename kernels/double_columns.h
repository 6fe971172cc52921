/*
 * Part of kernels/double.h: a batch of rows of doubles by columns, one class of all rows after the other, where rows
 * are short, or are neighbours, as the positions of images are. The functions are those of double_row.h and
 * double_target.h, with a row in each lane of a vector.
 */
#ifndef XENT_KERNELS_DOUBLE_COLUMNS_H
#define XENT_KERNELS_DOUBLE_COLUMNS_H

/* Of a block of classes: number i of its class j is at j * DOUBLE_ROWS + i. Some lines more than a page, which its like
   would else be apart: processors take addresses that far apart for the same for a while. */
enum { DOUBLE_COLUMNS = DOUBLE_BLOCK * DOUBLE_ROWS + 40 };

/* A sum over the classes for each row. */
struct double_column_lanes {
    double sum[DOUBLE_COLUMNS], rest[DOUBLE_COLUMNS];
};

struct double_columns {
    double x[DOUBLE_COLUMNS], q[DOUBLE_COLUMNS]; /* logits and probabilities */
    double e[DOUBLE_COLUMNS], e_rest[DOUBLE_COLUMNS];
    struct double_column_lanes lanes, apart;
    const double *targets[DOUBLE_ROWS];                  /* the rows' probabilities, if there are any */
    double r[DOUBLE_ROWS];                               /* and weights */
    bool x_is_packed, out_is_packed, targets_are_packed; /* whether all rows of the batch are neighbours there */
    bool has_even;                                       /* whether any row has an even share */
} __attribute__((aligned(64)));

/* The classes of the block that begins there. */
static ALWAYS_INLINE size_t double_columns_count(size_t classes, size_t begin)
{
    return classes - begin < DOUBLE_BLOCK ? classes - begin : DOUBLE_BLOCK;
}

/* Whether a batch is full, and its rows are neighbours. */
static bool double_are_packed(const struct double_batch *b, const double *const *rows)
{
    bool all = b->count == DOUBLE_ROWS;
    for (size_t i = 0; i < b->count; ++i)
        all &= rows[i] == rows[0] + i;
    return all;
}

/* Reads count classes from begin on. A batch of fewer rows has its first one again. */
static void double_columns_read(const struct double_batch *b, bool packed, const double *const *rows, size_t stride,
                                size_t begin, size_t count, double *to)
{
    for (size_t j = 0; packed && j < count; ++j)
        memcpy(to + j * DOUBLE_ROWS, rows[0] + (begin + j) * stride, DOUBLE_ROWS * sizeof *to);
    for (size_t i = 0; !packed && i < DOUBLE_ROWS; ++i) {
        const double *row = rows[i < b->count ? i : 0] + begin * stride;
        for (size_t j = 0; j < count; ++j)
            to[j * DOUBLE_ROWS + i] = row[j * stride];
    }
}

static void double_columns_write(const struct double_batch *b, bool packed, size_t stride, size_t begin, size_t count,
                                 const double *v)
{
    for (size_t j = 0; packed && j < count; ++j)
        memcpy(b->out[0] + (begin + j) * stride, v + j * DOUBLE_ROWS, DOUBLE_ROWS * sizeof *v);
    for (size_t i = 0; !packed && i < b->count; ++i) {
        double *row = b->out[i] + begin * stride;
        for (size_t j = 0; j < count; ++j)
            row[j * stride] = v[j * DOUBLE_ROWS + i];
    }
}

/* Adds count classes from begin on to their lanes. */
static ALWAYS_INLINE void double_columns_add(struct double_column_lanes *lanes, size_t begin, size_t count,
                                             const double *v, const double *v_rest)
{
    double *sum = lanes->sum, *rest = lanes->rest;
    for (size_t j = 0; j < count; ++j, sum += DOUBLE_ROWS, rest += DOUBLE_ROWS, v += DOUBLE_ROWS) {
        if (begin > 0) {
            double_add_of(DOUBLE_ROWS, sum, rest, v, v_rest);
        } else {
            memcpy(sum, v, DOUBLE_ROWS * sizeof *v);
            memcpy(rest, v_rest, DOUBLE_ROWS * sizeof *v);
        }
        v_rest += DOUBLE_ROWS;
    }
}

/* The sums of all lanes, to the first one. */
static NOINLINE void double_columns_fold(struct double_column_lanes *lanes, size_t classes)
{
    size_t left = classes < DOUBLE_BLOCK ? classes : DOUBLE_BLOCK;
    for (size_t half = DOUBLE_BLOCK / 2; half > 0; half /= 2) {
        double *sum = lanes->sum, *rest = lanes->rest;
        for (; left > half; --left, sum += DOUBLE_ROWS, rest += DOUBLE_ROWS)
            double_add_sums(DOUBLE_ROWS, sum, rest, sum + half * DOUBLE_ROWS, rest + half * DOUBLE_ROWS);
    }
    for (size_t i = 0; i < DOUBLE_ROWS; ++i) {
        const struct pair sum = double_sum(lanes->sum[i], lanes->rest[i]);
        lanes->sum[i] = sum.hi;
        lanes->rest[i] = sum.lo;
    }
}

/* Takes the numbers of the rows' y, if they are among count classes from begin on, out of these: leaves 0 there. */
static void double_columns_take(const struct double_batch *b, size_t begin, size_t count, double *v, double *v_rest,
                                struct double_pairs *taken)
{
    for (size_t i = 0; i < b->count; ++i) {
        const size_t skip = (size_t)b->y[i] - begin, k = skip * DOUBLE_ROWS + i;
        if (skip < count) {
            double_put(taken, i, (struct pair){v[k], v_rest[k]});
            v[k] = v_rest[k] = 0;
        }
    }
}

/* The largest logits, NaN where there is one. Of a single block c->x keeps the logits. */
static NOINLINE void double_columns_max(struct double_batch *b, const struct xent_job *job, struct double_columns *c)
{
    double max[DOUBLE_ROWS];
    uint64_t nan[DOUBLE_ROWS] = {0};
    for (size_t i = 0; i < DOUBLE_ROWS; ++i)
        max[i] = (double)-INFINITY;
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_columns_count(job->classes, begin);
        double_columns_read(b, c->x_is_packed, b->x, job->logits_strides.classes, begin, count, c->x);
        for (size_t j = 0; j < count; ++j)
            double_raise(DOUBLE_ROWS, max, nan, c->x + j * DOUBLE_ROWS);
    }
    for (size_t i = 0; i < DOUBLE_ROWS; ++i)
        b->m[i] = nan[i] ? (double)NAN : max[i];
}

/* Reads a block's logits unless they are still there, as those of a single block are. */
static void double_columns_read_again(const struct double_batch *b, const struct xent_job *job, size_t begin,
                                      size_t count, struct double_columns *c)
{
    if (job->classes <= DOUBLE_BLOCK)
        return;
    double_columns_read(b, c->x_is_packed, b->x, job->logits_strides.classes, begin, count, c->x);
}

/* The same for probabilities. */
static void double_columns_read_targets(const struct double_batch *b, const struct xent_job *job, size_t begin,
                                        size_t count, struct double_columns *c)
{
    if (job->classes <= DOUBLE_BLOCK)
        return;
    double_columns_read(b, c->targets_are_packed, c->targets, job->targets_strides.classes, begin, count, c->q);
}

/* The sums of w_j (m - x_j). */
static NOINLINE void double_columns_spread(struct double_batch *b, const struct xent_job *job, struct double_columns *c)
{
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_columns_count(job->classes, begin);
        double_columns_read_again(b, job, begin, count, c);
        for (size_t j = 0, k = 0; j < count; ++j, k += DOUBLE_ROWS) {
            const double w = xent_job_class_weight(job, begin + j);
            for (size_t i = 0; i < DOUBLE_ROWS; ++i) {
                c->e[k + i] = double_term(w, b->m[i] - c->x[k + i]);
                c->e_rest[k + i] = 0;
            }
        }
        double_columns_add(&c->lanes, begin, count, c->e, c->e_rest);
    }
    double_columns_fold(&c->lanes, job->classes);
    for (size_t i = 0; i < b->count; ++i)
        b->spread[i] = b->even[i] == 0 ? 0 : c->lanes.sum[i];
}

/* The classes that rows of probabilities are measured from, as double_largest_share finds them. */
static NOINLINE void double_columns_largest_share(struct double_batch *b, const struct xent_job *job,
                                                  struct double_columns *c)
{
    double largest[DOUBLE_ROWS] = {0};
    uint64_t y[DOUBLE_ROWS] = {0};
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_columns_count(job->classes, begin);
        double_columns_read(b, c->targets_are_packed, c->targets, job->targets_strides.classes, begin, count, c->q);
        for (size_t j = 0; j < count; ++j) {
            const double w = xent_job_class_weight(job, begin + j);
            for (size_t i = 0; i < DOUBLE_ROWS; ++i)
                double_raise_share(&largest[i], &y[i], c->q[j * DOUBLE_ROWS + i] * w, begin + j);
        }
    }
    for (size_t i = 0; i < b->count; ++i) {
        const bool found = largest[i] > 0 && b->x[i][y[i] * job->logits_strides.classes] != (double)-INFINITY;
        b->y[i] = found ? (int64_t)y[i] : -1;
    }
}

/* The shares of a block's classes. */
static NOINLINE void double_columns_shares(const struct xent_job *job, size_t begin, size_t count,
                                           const struct double_columns *c, double *hi, double *lo)
{
    const double target_weight = job->target_weight, smoothing = job->smoothing;
    const double *q = c->q;
    if (double_are_shares(job)) {
        memcpy(hi, q, count * DOUBLE_ROWS * sizeof *hi);
        memset(lo, 0, count * DOUBLE_ROWS * sizeof *lo);
        return;
    }
    for (size_t j = 0; j < count; ++j, q += DOUBLE_ROWS, hi += DOUBLE_ROWS, lo += DOUBLE_ROWS) {
        const double w = xent_job_class_weight(job, begin + j);
        for (size_t i = 0; smoothing == 0 && i < DOUBLE_ROWS; ++i) {
            const struct pair share = double_named(c->r[i], target_weight, w, q[i]);
            hi[i] = share.hi;
            lo[i] = share.lo;
        }
        for (size_t i = 0; smoothing != 0 && i < DOUBLE_ROWS; ++i) {
            hi[i] = double_smoothed(c->r[i], smoothing, target_weight, w, q[i]);
            lo[i] = 0;
        }
    }
}

/* What probabilities come to, after double_columns_max. */
static NOINLINE void double_columns_probabilities(struct double_batch *b, const struct xent_job *job,
                                                  struct double_columns *c)
{
    for (size_t i = 0; i < b->count; ++i) {
        c->targets[i] = double_probabilities(job, b->row[i]).p;
        c->r[i] = xent_job_row_weight(job, b->row[i]);
    }
    for (size_t i = b->count; i < DOUBLE_ROWS; ++i)
        c->r[i] = 1;
    c->targets_are_packed = double_are_packed(b, c->targets);
    double_columns_largest_share(b, job, c);
    for (size_t i = 0; i < DOUBLE_ROWS; ++i)
        double_put(&b->own, i, (struct pair){0, 0});
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_columns_count(job->classes, begin);
        double_columns_read_again(b, job, begin, count, c);
        double_columns_read_targets(b, job, begin, count, c);
        double_columns_shares(job, begin, count, c, c->e, c->e_rest);
        double_columns_take(b, begin, count, c->e, c->e_rest, &b->own);
        double_columns_add(&c->lanes, begin, count, c->e, c->e_rest);
        for (size_t k = 0; k < count * DOUBLE_ROWS; k += DOUBLE_ROWS)
            for (size_t i = 0; i < DOUBLE_ROWS; ++i) {
                c->e[k + i] = double_term(c->e[k + i], b->m[i] - c->x[k + i]);
                c->e_rest[k + i] = 0;
            }
        double_columns_add(&c->apart, begin, count, c->e, c->e_rest);
    }
    double_columns_fold(&c->lanes, job->classes);
    double_columns_fold(&c->apart, job->classes);
    for (size_t i = 0; i < DOUBLE_ROWS; ++i) {
        b->rest[i] = c->lanes.sum[i];
        b->apart[i] = c->apart.sum[i];
        double_put(&b->total, i, pair_plus(double_pair(&b->own, i), (struct pair){c->lanes.sum[i], c->lanes.rest[i]}));
        b->even[i] = b->w_y[i] = b->spread[i] = 0;
    }
}

static NOINLINE void double_column_exponentials(const double *x, const double *m, double *e, double *e_rest)
{
    double_exponentials_of(DOUBLE_ROWS, x, m, e, e_rest);
}

/* The first pass. Exponentials are left in c->e or, of more than a block, in out. */
static NOINLINE void double_columns_sum(struct double_batch *b, const struct xent_job *job, struct double_columns *c)
{
    const bool many = job->classes > DOUBLE_BLOCK;
    double m[DOUBLE_BLOCK];
    for (size_t i = 0; i < DOUBLE_ROWS; ++i) {
        m[i] = m[i + DOUBLE_ROWS] = b->m[i];
        double_put(&b->e_y, i, (struct pair){0, 0});
    }
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_columns_count(job->classes, begin), end = count * DOUBLE_ROWS;
        double_columns_read_again(b, job, begin, count, c);
        size_t k = 0;
        for (; k + DOUBLE_BLOCK <= end; k += DOUBLE_BLOCK)
            double_exponentials(c->x + k, m, c->e + k, c->e_rest + k);
        if (k < end)
            double_column_exponentials(c->x + k, m, c->e + k, c->e_rest + k);
        if (b->out[0] && many)
            double_columns_write(b, c->out_is_packed, job->out_strides.classes, begin, count, c->e);
        double_columns_take(b, begin, count, c->e, c->e_rest, &b->e_y);
        double_columns_add(&c->lanes, begin, count, c->e, c->e_rest);
    }
    for (size_t i = 0; !many && i < b->count; ++i)
        if (b->y[i] >= 0)
            c->e[(size_t)b->y[i] * DOUBLE_ROWS + i] = b->e_y.hi[i];
    double_columns_fold(&c->lanes, job->classes);
    for (size_t i = 0; i < DOUBLE_ROWS; ++i)
        double_put(&b->others, i, (struct pair){c->lanes.sum[i], c->lanes.rest[i]});
}

/* The second pass: exponentials of a block as gradients, as double_scale_row has them. */
static NOINLINE void double_columns_multiply(const struct double_batch *b, size_t count, double *restrict e)
{
    bool usual = true;
    for (size_t i = 0; i < b->count; ++i)
        usual &= f64_is_finite(b->any[i]);
    for (size_t j = 0; j < count; ++j, e += DOUBLE_ROWS) {
        double any[DOUBLE_ROWS];
        for (size_t i = 0; !usual && i < DOUBLE_ROWS; ++i)
            any[i] = double_canonical(double_by_any(e[i], b->any[i]));
        for (size_t i = 0; i < DOUBLE_ROWS; ++i) {
            const struct power power = double_power(b, i);
            e[i] = double_multiplied(e[i], b->v.hi[i], b->v.lo[i], &power);
        }
        for (size_t i = 0; !usual && i < DOUBLE_ROWS; ++i)
            e[i] = f64_is_finite(b->any[i]) ? e[i] : any[i];
    }
}

/* Takes even shares, or those of probabilities, off a block's gradients. */
static NOINLINE void double_columns_subtract(const struct double_batch *b, const struct xent_job *job, size_t begin,
                                             size_t count, struct double_columns *c)
{
    double *e = c->e, *hi = c->x, *lo = c->e_rest;
    if (xent_job_has_labels(job)) {
        double even[DOUBLE_ROWS];
        for (size_t i = 0; i < DOUBLE_ROWS; ++i)
            even[i] = double_choose(b->even[i] == 0, 0, double_scaled(b, i, (struct pair){b->even[i], 0}));
        for (size_t j = 0; j < count; ++j, e += DOUBLE_ROWS) {
            const double w = xent_job_class_weight(job, begin + j);
            for (size_t i = 0; i < DOUBLE_ROWS; ++i)
                e[i] = double_canonical(e[i] - double_term(w, even[i]));
        }
        return;
    }
    double_columns_shares(job, begin, count, c, hi, lo);
    bool usual = double_are_usual(hi, count * DOUBLE_ROWS);
    for (size_t i = 0; i < b->count; ++i)
        usual &= double_scale_is_usual(b, i);
    for (size_t j = 0; j < count; ++j, e += DOUBLE_ROWS, hi += DOUBLE_ROWS, lo += DOUBLE_ROWS) {
        for (size_t i = 0; usual && i < DOUBLE_ROWS; ++i)
            e[i] = double_less_share(e[i], hi[i], double_scaled_usual(b, i, (struct pair){hi[i], lo[i]}));
        for (size_t i = 0; !usual && i < DOUBLE_ROWS; ++i)
            e[i] = double_less_share(e[i], hi[i], double_scaled(b, i, (struct pair){hi[i], lo[i]}));
    }
}

/* Gradients but for those of y, and for what several labels have. */
static void double_columns_scale(const struct double_batch *b, const struct xent_job *job, struct double_columns *c)
{
    const bool many = job->classes > DOUBLE_BLOCK;
    for (size_t begin = 0; begin < job->classes; begin += DOUBLE_BLOCK) {
        const size_t count = double_columns_count(job->classes, begin);
        if (many)
            double_columns_read(b, c->out_is_packed, (const double *const *)b->out, job->out_strides.classes, begin,
                                count, c->e);
        if (!xent_job_has_labels(job))
            double_columns_read_targets(b, job, begin, count, c);
        double_columns_multiply(b, count, c->e);
        if (c->has_even || !xent_job_has_labels(job))
            double_columns_subtract(b, job, begin, count, c);
        double_columns_write(b, c->out_is_packed, job->out_strides.classes, begin, count, c->e);
    }
}

#endif
