/*
 * Part of kernels/algorithm.h: rows that are computed together, what their targets are, and how the sums of all are
 * turned into results: in loops that a compiler makes into vector instructions, as a row's logarithm and division
 * would otherwise take longer than 100 of its classes.
 */
#ifndef XENT_KERNELS_BATCH_H
#define XENT_KERNELS_BATCH_H

/* The steps of a row's end wait for each other, so that those of a few vectors of rows are wanted at a time. */
enum { BATCH = VW > 8 ? 2 * VW : 16 };

/* The rows of a batch: with AVX-512 more than 16 are faster, by up to a fifth, where the ends of rows are much of the
   work (and are then few enough for COLUMNS_ROOM); on Zen 4, which overlaps nothing, not with a gradient. */
static ALWAYS_INLINE size_t batch_rows(const struct xent_job *job)
{
    const bool long_ends = job->out ? job->memory.overlap && job->classes <= 16 : job->classes <= 32;
    return long_ends ? BATCH : 16;
}

static ALWAYS_INLINE bool is_early(const struct xent_job *job)
{
    return job->memory.overlap && job->memory.fetch == XENT_FETCH_EARLY;
}

/* How far ahead, in floats, lines of short rows are fetched into the second-level cache, if a batch's are so many that
   several batches do not fit in the first-level one; so many are from a row to one of the next batch. */
static ALWAYS_INLINE size_t short_rows_ahead(bool early, size_t next)
{
    return early ? 2 * PAGE : 4 * next;
}

/* What a row's loss is about: nothing (softmax), its only label, its only label with a share that is not 1, the same
   and an even share of all classes, or any distribution. */
enum target { NO_TARGET, PLAIN_TARGET, SINGLE_TARGET, SMOOTHED_TARGET, DISTRIBUTION };

static ALWAYS_INLINE bool has_one_label(enum target target)
{
    return target == PLAIN_TARGET || target == SINGLE_TARGET || target == SMOOTHED_TARGET;
}

/* Rows that are computed together. Arrays that vectors are read from come first, so that each begins a cache line. */
struct batch {
    size_t row[BATCH]; /* their numbers */
    const float *x[BATCH];
    float *out[BATCH]; /* or NULL, for all */
    int64_t y[BATCH];  /* the class that the loss is measured from; -1: none */
    float x_y[BATCH];  /* its logit */

    /* Their distributions, with the names of struct distribution. */
    double own[BATCH], scale[BATCH], even[BATCH], w_y[BATCH], D[BATCH];
    double pivot[BATCH], rest[BATCH], moved[BATCH]; /* of DISTRIBUTION; 0 for others */
    const float *q[BATCH];                          /* probabilities of all classes, or NULL */

    /* struct summed */
    double others[BATCH];
    size_t zeros[BATCH], kept[BATCH]; /* not of rows that are taken by columns */
    float ref[BATCH], cut[BATCH];

    double loss[BATCH], log_sum[BATCH], v[BATCH]; /* v: what exponentials are multiplied by, with its sign */
    int32_t exponent[BATCH];                      /* of its magnitude, with hi and lo */
    float hi[BATCH], lo[BATCH];
    float target_gradient[BATCH];

    bool bounded[BATCH];                  /* multiplier_is_bounded */
    bool finite[BATCH], in_window[BATCH]; /* struct summed */
    double W;                             /* of their distributions, the same for all */
    size_t count, classes;
} __attribute__((aligned(64)));
_Static_assert(offsetof(struct batch, bounded) % 64 == 0, "an array before it does not begin a cache line");

/* Half a batch of rows is taken by columns, or all of it. */
static ALWAYS_INLINE int columns_rows(const struct batch *b)
{
    return b->count <= BATCH / 2 ? BATCH / 2 : BATCH;
}

/* Rows of a batch whose second pass is taken beside the first one of the next batch, see overlap.h. */
struct behind {
    size_t count;
    struct second second[BATCH];
};

/* The distribution of row i, of SMOOTHED_TARGET or DISTRIBUTION. */
static ALWAYS_INLINE struct distribution distribution_at(const struct batch *b, size_t i, enum target target)
{
    struct distribution t = {
        .own = b->own[i], .even = b->even[i], .w_y = b->w_y[i], .W = b->W, .D = b->D[i], .scale = b->scale[i]};
    if (target == DISTRIBUTION) {
        t.y = (size_t)b->y[i];
        t.x_y = (double)b->x_y[i];
        t.pivot = b->pivot[i];
        t.rest = b->rest[i];
        t.moved = b->moved[i];
    }
    return t;
}

/* The same the other way round; W is the same for all. */
static ALWAYS_INLINE void put_distribution(struct batch *b, size_t i, const struct distribution *t)
{
    b->y[i] = (int64_t)t->y;
    b->x_y[i] = (float)t->x_y;
    b->own[i] = t->own;
    b->scale[i] = t->scale;
    b->even[i] = t->even;
    b->w_y[i] = t->w_y;
    b->D[i] = t->D;
    b->pivot[i] = t->pivot;
    b->rest[i] = t->rest;
    b->moved[i] = t->moved;
    b->bounded[i] = multiplier_is_bounded(distribution_multiplier(t));
}

/* From sums to results, for so many rows. */
static ALWAYS_INLINE void finish_rows(struct batch *b, const struct xent_job *job, int count, enum target target)
{
    const double grad_scale = target == NO_TARGET ? 1 : job->grad_scale; /* where rows have no scale of their own */
    double e[BATCH], z[BATCH], inverse[BATCH], v[BATCH];
    for (int i = 0; i < count; ++i) {
        z[i] = target == NO_TARGET ? 0 : (double)b->x_y[i] - (double)b->ref[i];
        e[i] = target == NO_TARGET ? 0 : row_exponential(z[i], b->cut[i]);
    }
    for (int i = 0; i < count; ++i) {
        const struct row_result row = row_finish(b->others[i], e[i], z[i]);
        b->loss[i] = row.loss;
        b->log_sum[i] = row.log_sum;
        inverse[i] = row.inverse;
    }
    for (int i = 0; target == SINGLE_TARGET && i < count; ++i) {
        const double loss = b->own[i] * b->loss[i];
        b->loss[i] = b->own[i] == 0 ? 0 : loss;
    }
    const bool distributed = target == SMOOTHED_TARGET || target == DISTRIBUTION;
    for (int i = 0; distributed && i < count; ++i) {
        const struct distribution t = distribution_at(b, (size_t)i, target);
        b->loss[i] = distribution_loss(&t, b->loss[i], (double)b->ref[i], b->log_sum[i]);
    }
    if (!b->out[0])
        return;
    for (int i = 0; i < count; ++i) {
        const struct distribution t = distribution_at(b, (size_t)i, target);
        const double multiplier = distributed               ? distribution_multiplier(&t)
                                  : target == SINGLE_TARGET ? b->scale[i] * b->own[i]
                                                            : grad_scale;
        v[i] = multiplier * inverse[i];
    }
    for (int i = 0; target == PLAIN_TARGET && i < count; ++i)
        b->target_gradient[i] = row_target_gradient(grad_scale * (b->others[i] * inverse[i]));
    for (int i = 0; target == SINGLE_TARGET && i < count; ++i)
        b->target_gradient[i] = row_target_gradient(b->scale[i] * (b->own[i] * (b->others[i] * inverse[i])));
    for (int i = 0; distributed && i < count; ++i) {
        const struct distribution t = distribution_at(b, (size_t)i, target);
        b->target_gradient[i] = distribution_target_gradient(&t, b->others[i], e[i], inverse[i]);
    }
    for (int i = 0; target == DISTRIBUTION && i < count; ++i) {
        b->v[i] = v[i];
        v[i] = f64_abs(v[i]);
    }
    for (int i = 0; i < count; ++i) {
        const struct multiplier m = row_multiplier(v[i]);
        b->exponent[i] = m.exponent;
        b->hi[i] = m.hi;
        b->lo[i] = m.lo;
    }
}

/* By constant numbers of rows: loops of known length become straight vector code. Rows that only fill up a vector get
   something harmless. */
static ALWAYS_INLINE void finish_batch_of(struct batch *b, const struct xent_job *job, enum target target)
{
    const size_t count = b->count == 1           ? 1
                         : b->count <= BATCH / 4 ? BATCH / 4
                         : b->count <= BATCH / 2 ? BATCH / 2
                                                 : BATCH;
    for (size_t i = b->count; i < count; ++i) {
        b->x_y[i] = 0;
        b->others[i] = 1;
        b->ref[i] = near_frame.ref;
        b->cut[i] = near_frame.cut;
        b->own[i] = b->scale[i] = 1;
        b->even[i] = b->w_y[i] = b->D[i] = 0;
        b->pivot[i] = b->rest[i] = b->moved[i] = 0;
        b->y[i] = 0;
    }
    if (count == 1)
        finish_rows(b, job, 1, target);
    else if (count == BATCH / 4)
        finish_rows(b, job, BATCH / 4, target);
    else if (count == BATCH / 2)
        finish_rows(b, job, BATCH / 2, target);
    else
        finish_rows(b, job, BATCH, target);
}

static NOINLINE void finish_batch_none(struct batch *b, const struct xent_job *job)
{
    finish_batch_of(b, job, NO_TARGET);
}

static NOINLINE void finish_batch_plain(struct batch *b, const struct xent_job *job)
{
    finish_batch_of(b, job, PLAIN_TARGET);
}

static NOINLINE void finish_batch_single(struct batch *b, const struct xent_job *job)
{
    finish_batch_of(b, job, SINGLE_TARGET);
}

static NOINLINE void finish_batch_smoothed(struct batch *b, const struct xent_job *job)
{
    finish_batch_of(b, job, SMOOTHED_TARGET);
}

static NOINLINE void finish_batch_distribution(struct batch *b, const struct xent_job *job)
{
    finish_batch_of(b, job, DISTRIBUTION);
}

static ALWAYS_INLINE void finish_batch(struct batch *b, const struct xent_job *job, enum target target)
{
    if (target == NO_TARGET)
        finish_batch_none(b, job);
    else if (target == PLAIN_TARGET)
        finish_batch_plain(b, job);
    else if (target == SINGLE_TARGET)
        finish_batch_single(b, job);
    else if (target == SMOOTHED_TARGET)
        finish_batch_smoothed(b, job);
    else
        finish_batch_distribution(b, job);
}

/* Whether the first count rows are, as they mostly are: so that it need not be asked of each. */
static ALWAYS_INLINE bool are_finite(const struct batch *b, size_t count)
{
    const uint64_t trues = UINT64_C(0x0101010101010101);
    uint64_t all = trues;
    size_t i = 0;
    for (uint64_t eight; i + sizeof eight <= count; i += sizeof eight) {
        memcpy(&eight, b->finite + i, sizeof eight);
        all &= eight;
    }
    while (i < count && b->finite[i])
        ++i;
    return all == trues && i == count;
}

/* Adds the losses of count rows, in order, to the sums of their groups. */
static ALWAYS_INLINE void add_losses(const struct batch *b, const struct xent_job *job, size_t count)
{
    double finite[BATCH];
    const double *loss = b->loss;
    if (!are_finite(b, count)) {
        for (size_t i = 0; i < count; ++i)
            finite[i] = b->finite[i] ? b->loss[i] : (double)NAN;
        loss = finite;
    }
    for (size_t i = 0; i < count;) {
        /* A batch is mostly of one group: an addition need not wait for the last one's store. */
        const size_t group = b->row[i] >> job->sums_shift;
        const bool is_last = b->row[count - 1] >> job->sums_shift == group;
        double sum = job->sums[group];
        do
            sum += loss[i++];
        while (i < count && (is_last || b->row[i] >> job->sums_shift == group));
        job->sums[group] = sum;
    }
}

/* Rows that are neighbours by vectors. */
static ALWAYS_INLINE void put_rows(const struct batch *b, float *to, const float *values, size_t count)
{
    if (b->row[count - 1] - b->row[0] == count - 1) {
        memcpy(to + b->row[0], values, count * sizeof *to);
        return;
    }
    for (size_t i = 0; i < count; ++i)
        to[b->row[i]] = values[i];
}

/* A number for each row, NaN where that is NaN or the row is not finite. */
static ALWAYS_INLINE void store_rows(const struct batch *b, float *to, const double *values, size_t count)
{
    float rounded[BATCH];
    for (size_t i = 0; i < count; ++i)
        rounded[i] = f32_canonical(f64_to_f32(values[i]));
    if (!are_finite(b, count))
        for (size_t i = 0; i < count; ++i)
            rounded[i] = b->finite[i] ? rounded[i] : NAN;
    put_rows(b, to, rounded, count);
}

static ALWAYS_INLINE void store_losses_of(const struct batch *b, const struct xent_job *job, size_t count)
{
    if (job->sums)
        add_losses(b, job, count);
    if (job->loss)
        store_rows(b, job->loss, b->loss, count);
    if (job->lse) {
        double lse[BATCH];
        for (size_t i = 0; i < count; ++i)
            lse[i] = (double)b->ref[i] + b->log_sum[i];
        store_rows(b, job->lse, lse, count);
    }
}

static NOINLINE void store_losses(const struct batch *b, const struct xent_job *job)
{
    if (b->count == BATCH)
        store_losses_of(b, job, BATCH);
    else if (b->count == BATCH / 2)
        store_losses_of(b, job, BATCH / 2);
    else
        store_losses_of(b, job, b->count);
}

/* What a target's entry, or a row that is not finite, gets in place of the scaled exponentials. */
static ALWAYS_INLINE void store_exceptions(const struct batch *b, enum target target)
{
    if (has_one_label(target) && are_finite(b, b->count)) {
        for (size_t i = 0; i < b->count; ++i)
            b->out[i][b->y[i]] = b->target_gradient[i];
        return;
    }
    for (size_t i = 0; i < b->count; ++i) {
        if (!b->finite[i] || (target == DISTRIBUTION && b->v[i] != b->v[i]))
            fill(b->out[i], b->classes, NAN);
        else if (has_one_label(target) || (target == DISTRIBUTION && b->y[i] >= 0))
            b->out[i][b->y[i]] = b->target_gradient[i];
    }
}

/* Takes what labels have of their classes off the gradients, where a row has more than its y. */
static void subtract_labels(const struct batch *b, const struct xent_job *job)
{
    for (size_t i = 0; i < b->count; ++i)
        for (size_t k = 0; k < job->labels; ++k) {
            const int64_t label = xent_job_label(job, b->row[i], k);
            if (label != job->ignore_index)
                b->out[i][label] = distribution_less(
                    b->out[i][label],
                    distribution_share_taken(b->scale[i], distribution_label_share(job, b->row[i], k)));
        }
}

/* Whether the distribution of row i, known but for D, can be taken by columns. */
static bool is_usual(const struct batch *b, size_t i, const struct xent_job *job)
{
    const struct distribution t = distribution_at(b, i, DISTRIBUTION);
    const double B = t.scale * t.even;
    return b->bounded[i] && distribution_multiplier(&t) >= 0 &&
           (job->smoothing == 0 || (B >= EVEN_LEAST && B <= EVEN_MOST));
}

/* The distributions of a batch's rows, whose targets are labels. Whether rows like these can be taken by columns. */
static bool find_labels(struct batch *b, const struct xent_job *job)
{
    bool usual = true;
    b->W = job->weights_sum;
    for (size_t i = 0; i < b->count; ++i) {
        struct distribution t;
        distribution_of_labels(&t, job, b->row[i]);
        put_distribution(b, i, &t);
        usual = usual && is_usual(b, i, job);
    }
    return usual;
}

/* The same for probabilities, but for what needs these themselves. */
static void find_pivots(struct batch *b, const struct xent_job *job)
{
    const struct xent_job known = *job; /* so that the loops need not read it again after each store */
    b->W = known.weights_sum;
    for (size_t i = 0; i < b->count; ++i)
        b->y[i] = -1;
    for (size_t i = 0; i < b->count; ++i)
        b->scale[i] = xent_job_scale(&known, b->row[i]);
    for (size_t i = 0; i < b->count; ++i)
        b->even[i] = distribution_even(&known, b->row[i]);
    double x_0[BATCH]; /* first, as what follows becomes vector code */
    for (size_t i = 0; i < b->count; ++i)
        x_0[i] = (double)b->x[i][0];
    for (size_t i = 0; i < b->count; ++i)
        b->pivot[i] = distribution_pivot(x_0[i]);
}

/* What the probabilities of row i come to, see distribution_add_probabilities. */
static void add_probabilities(struct batch *b, size_t i, const struct xent_job *job, size_t y, double x_y, double Q,
                              double P)
{
    struct distribution t = distribution_at(b, i, DISTRIBUTION);
    const size_t row = b->row[i];
    distribution_add_probabilities(&t, distribution_named(job, row), distribution_dominant(job, row, y, x_y), Q, P);
    put_distribution(b, i, &t);
}

/* Finds the shares that rows have of their only labels, and the even ones, if there are any; but for dropped rows
   (NULL: none), which get something harmless. Returns whether their exponentials can be multiplied like those of plain
   rows, and the even shares be taken off as floats. */
static ALWAYS_INLINE bool find_shares(struct batch *b, const struct xent_job *job, const int32_t *dropped)
{
    const struct xent_job known = *job; /* so that the loops need not read it again after each store */
    double r[BATCH];
    b->W = known.weights_sum;
    for (size_t i = 0; i < b->count; ++i)
        r[i] = xent_job_row_weight(&known, b->row[i]);
    for (size_t i = 0; i < b->count; ++i)
        b->scale[i] = xent_job_scale(&known, b->row[i]) + 0.0; /* not -0 */
    for (size_t i = 0; i < b->count; ++i)
        b->w_y[i] = xent_job_class_weight(&known, (size_t)b->y[i]);
    for (size_t i = 0; i < b->count; ++i)
        b->own[i] = r[i] * known.target_weight * b->w_y[i] + 0.0;
    for (size_t i = 0; i < b->count; ++i)
        b->even[i] = r[i] * known.smoothing;
    for (size_t i = 0; dropped && i < b->count; ++i)
        if (dropped[i]) {
            b->own[i] = b->scale[i] = 1;
            b->even[i] = b->w_y[i] = 0;
        }
    /* Without branches, so that it becomes vector code. Of dropped rows only the even shares are unusual. */
    const bool smooth = known.smoothing != 0;
    int64_t unusual = 0;
    for (size_t i = 0; i < b->count; ++i) {
        const double own = b->own[i], scale = b->scale[i], multiplier = scale * (own + b->even[i] * b->W);
        unusual |= !(own >= 0) | !(scale >= 0) | !multiplier_is_bounded(multiplier);
    }
    for (size_t i = 0; smooth && i < b->count; ++i) {
        const double B = b->scale[i] * b->even[i];
        unusual |= (!(B >= EVEN_LEAST) | !(B <= EVEN_MOST)) & !(dropped && dropped[i]);
    }
    return unusual == 0;
}

#endif
