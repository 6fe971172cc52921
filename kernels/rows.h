/*
 * Part of kernels/algorithm.h: the functions of a kernel. Rows are taken in batches: all are summed, then all sums are
 * turned into results, then all rows are scaled.
 */
#ifndef XENT_KERNELS_ROWS_H
#define XENT_KERNELS_ROWS_H

enum {
    /* AVX2 as measured on Zen 3, others on Zen 4; 128 classes are faster by rows, which have no tail then. */
    COLUMNS_IN_PLACE = 127,
    COLUMNS_APART = VW == 8 ? 127 : 63,
    COLUMNS_APART_SMOOTHED = VW == 8 ? COLUMNS_MAX : 100,
    /* Fewer rows than COLUMNS_ROWS + classes / COLUMNS_CLASSES_A_ROW are faster one by one, as measured on Emerald
       Rapids: columns take as long for one row as for a vector of them. */
    COLUMNS_ROWS = 3,
    COLUMNS_CLASSES_A_ROW = VW == 16 ? 12 : 20,
    STAGED_LEAST = VW == 8 ? 80 : 40,
    /* As measured on Ice Lake: classes of a row whose second pass is left for later, and where its output is elsewhere
       and in no cache; and for which exponentials are formed a second time, to go past the caches. */
    LEFT_LEAST = 320,
    LEFT_LEAST_APART = 160,
    AGAIN_LEAST = 384,
    /* As measured on Zen 5, where lines are fetched early. */
    EARLY_LEFT_LEAST = 512,
    EARLY_AGAIN_LEAST = 1536
};

/* On Zen 5 128 classes are a fifth faster by columns with AVX-512. */
static ALWAYS_INLINE size_t columns_in_place(const struct xent_job *job)
{
    return VW == 16 && is_early(job) ? COLUMNS_MAX : COLUMNS_IN_PLACE;
}

static ALWAYS_INLINE size_t columns_limit_in_place(const struct xent_job *job)
{
    return job->smoothing > 0 ? COLUMNS_MAX : columns_in_place(job);
}

/* Up to so many classes columns are faster than rows: where the output is elsewhere, in no cache, and does not go past
   them, stores to many rows wait for memory; but smoothing costs rows more. */
static ALWAYS_INLINE size_t columns_limit(const struct xent_job *job)
{
    if (!job->out)
        return COLUMNS_MAX;
    if (job->out == job->logits)
        return columns_limit_in_place(job);
    if (job->smoothing > 0)
        return COLUMNS_APART_SMOOTHED;
    if (job->memory.cached)
        return columns_in_place(job);
    return job->memory.stream ? COLUMNS_IN_PLACE : COLUMNS_APART;
}

static ALWAYS_INLINE bool has_columns(const struct batch *b)
{
    return b->count >= COLUMNS_ROWS + b->classes / COLUMNS_CLASSES_A_ROW;
}

/* Whether gradients that may go past the caches do. With AVX2 those of rows do not where kernels overlap: on Ice Lake
   they gain nothing by way of a stage, and take up to 1.7 times as long if they are formed again. */
static ALWAYS_INLINE bool rows_may_stream(const struct xent_job *job)
{
    return job->memory.stream && job->out != job->logits && !(VW == 8 && job->memory.overlap);
}

/* Whether gradients go past the caches by way of a stage, where all of a batch's are put in order first: of rows that
   columns take, with labels and without gaps. Shorter ones are as fast without. */
static ALWAYS_INLINE bool is_staged(const struct xent_job *job)
{
    return rows_may_stream(job) && job->inner == 1 && xent_job_is_contiguous(job) && xent_job_has_labels(job) &&
           job->out_strides.outer == job->classes && job->classes >= STAGED_LEAST && job->classes <= columns_limit(job);
}

/* Where the output is elsewhere and in no cache, the second pass over rows of up to a page is better not far behind the
   first, whose stores wait for memory: longer ones are as fast together, 16 to 24 % faster for 2000 to 4000 classes on
   Zen 4. (With AVX2, on Zen 3, fewer than 160 classes are 2 to 10 % faster by 16 rows.) Where kernels overlap, only on
   Zen 5, with AVX-512: rows that a batch of 1024 logits has one of, up to those whose exponentials are formed again. */
static ALWAYS_INLINE bool has_close_passes(const struct xent_job *job)
{
    if (job->out == job->logits || job->memory.cached)
        return false;
    if (is_early(job))
        return VW == 16 && job->classes > 512 && job->classes < EARLY_AGAIN_LEAST;
    return !job->memory.overlap && job->classes <= 1024 && (VW != 8 || job->classes >= 160);
}

/* Rows that end together share the work of it. For the sake of the second pass, a batch of more than one stays in the
   second-level cache; lines that are fetched ahead want it in the first. Without a second pass nothing speaks against
   rows of any length, but that on Zen 4 16 rows of 500 classes took a tenth longer with AVX2 than 8. */
static ALWAYS_INLINE size_t batch_limit(const struct xent_job *job)
{
    const size_t least = job->out ? 1 : VW, most = batch_rows(job);
    if (job->classes <= columns_limit(job))
        return most;
    const size_t logits = !job->out               ? 4096
                          : has_close_passes(job) ? 1024
                          : is_early(job)         ? 16384
                          : job->memory.overlap   ? 8192
                                                  : 32768;
    const size_t rows = logits / job->classes;
    return rows < least ? least : rows < most ? rows : most;
}

static ALWAYS_INLINE size_t again_least(const struct xent_job *job)
{
    return is_early(job) ? EARLY_AGAIN_LEAST : AGAIN_LEAST;
}

/* Whether gradients go past the caches, with exponentials formed a second time. */
static ALWAYS_INLINE bool is_streamed(const struct xent_job *job, enum target target)
{
    return rows_may_stream(job) && job->memory.overlap && job->classes >= again_least(job) &&
           xent_job_is_contiguous(job) && (target == NO_TARGET || target == PLAIN_TARGET || target == SINGLE_TARGET);
}

/* The first pass over row i of a batch, with the sums that its target needs. Stored where they belong: a struct that is
   handed from function to function is stored number by number and copied as vectors, which wait for the stores. */
static ALWAYS_INLINE void sum_one(struct batch *b, size_t i, const struct xent_job *job, enum target target,
                                  struct second *second)
{
    const size_t y = (size_t)b->y[i];
    const bool known = has_one_label(target) || (target == DISTRIBUTION && y != NO_CLASS);
    const float *w = job->class_weights, *q = target == DISTRIBUTION ? b->q[i] : NULL;
    const bool even = target == SMOOTHED_TARGET || (target == DISTRIBUTION && b->even[i] != 0);
    float unwanted;
    struct pass pass = {.x = b->x[i],
                        .keep = is_streamed(job, target) ? NULL : b->out[i],
                        .skip = y,
                        .x_skip = known ? &b->x_y[i] : &unwanted,
                        .overlap = job->memory.overlap,
                        .fetch = job->memory.fetch,
                        .second = second};
    struct logit_sum logits;
    struct weighted_sum weighted;
    struct dot dot;
    if (even && !w) {
        logit_sum_start(&logits);
        pass.even = &logits;
    }
    if (even && w) {
        weighted_sum_start(&weighted, w, b->classes);
        pass.weighted = &weighted;
        pass.beside = WEIGHTED_ALONG ? NULL : w;
    }
    if (q) {
        dot_start(&dot, w, q, b->pivot[i]);
        pass.dot = &dot;
        pass.beside = q;
    }
    if (is_streamed(job, target))
        fetch_part_lines(b->out[i], b->classes);
    const struct summed row = sum_row(pass, b->classes);
    b->others[i] = row.others;
    b->zeros[i] = row.zeros;
    b->kept[i] = row.kept;
    b->ref[i] = row.frame.ref;
    b->cut[i] = row.frame.cut;
    b->finite[i] = row.finite;
    b->in_window[i] = row.in_window;
    if (known && y >= row.kept)
        b->x_y[i] = b->x[i][y];
    if (target == SMOOTHED_TARGET || target == DISTRIBUTION)
        b->D[i] = !even ? 0 : w ? weighted_sum_end(&weighted) : logit_sum_end(&logits);
    if (q)
        add_probabilities(b, i, job, dot.y, (double)dot.x_y, dot.Q.sum, dot.P.sum);
}

static NOINLINE void sum_smoothed(struct batch *b, size_t i, const struct xent_job *job, struct second *second)
{
    sum_one(b, i, job, SMOOTHED_TARGET, second);
}

static NOINLINE void sum_distribution(struct batch *b, size_t i, const struct xent_job *job, struct second *second)
{
    sum_one(b, i, job, DISTRIBUTION, second);
}

/* The gradient of row i of a batch but for the labels' entries. */
static NOINLINE void scale_smoothed(const struct batch *b, size_t i, const struct xent_job *job)
{
    const struct taking take = {.B = b->scale[i] * b->even[i], .w = job->class_weights};
    scale_and_take(b->x[i], b->out[i], b->classes, b->zeros[i], b->kept[i], (struct frame){b->ref[i], b->cut[i]}, 0,
                   (struct multiplier){b->exponent[i], b->hi[i], b->lo[i]}, true, &take);
}

static NOINLINE void scale_distribution(const struct batch *b, size_t i, const struct xent_job *job)
{
    struct taking take = {.w = job->class_weights, .q = b->q[i]};
    if (b->even[i] != 0) /* or the scale may be infinite */
        take.B = b->scale[i] * b->even[i];
    if (take.q)
        take.shares = distribution_taken(job, b->row[i]);
    scale_and_take(b->x[i], b->out[i], b->classes, b->zeros[i], b->kept[i], (struct frame){b->ref[i], b->cut[i]},
                   b->v[i], (struct multiplier){b->exponent[i], b->hi[i], b->lo[i]}, b->bounded[i], &take);
}

static ALWAYS_INLINE void end_behind(struct behind *behind, size_t first)
{
    for (size_t i = first; i < behind->count; ++i)
        second_end(&behind->second[i]);
    behind->count = 0;
}

/* Whether second passes are left for later at all: beside those over short rows, which only multiply, first ones take
   longer. */
static ALWAYS_INLINE bool may_leave(const struct xent_job *job, enum target target)
{
    const bool multiplies = target != SMOOTHED_TARGET && target != DISTRIBUTION;
    const bool waits = job->out != job->logits && !job->memory.cached;
    const size_t least =
        is_early(job) ? (waits ? EARLY_AGAIN_LEAST : EARLY_LEFT_LEAST) : (waits ? LEFT_LEAST_APART : LEFT_LEAST);
    return job->memory.overlap && !(VW == 8 && is_early(job)) && (!multiplies || job->classes >= least);
}

/* What the second pass over row i of a batch is, if it is of the kind that can be left for later. */
static ALWAYS_INLINE bool find_second(struct second *second, const struct batch *b, size_t i,
                                      const struct xent_job *job, enum target target)
{
    second->kind = is_streamed(job, target) ? AGAIN : SCALE;
    second->along = second->kind == AGAIN ? b->x[i] : NULL;
    if (target == SMOOTHED_TARGET) {
        second->kind = job->class_weights ? TAKE_WEIGHTED : TAKE_EVEN;
        second->along = job->class_weights;
        second->B = f64_to_f32(b->scale[i] * b->even[i]);
    }
    if (target == DISTRIBUTION) {
        second->kind = TAKE_SHARES;
        second->along = b->q[i];
        if (!b->q[i] || b->even[i] != 0 || !b->bounded[i] || !(b->v[i] >= 0))
            return false;
        second->shares = distribution_taken(job, b->row[i]);
        if (!second->shares.usual)
            return false;
    }
    return is_plain(b->exponent[i]) &&
           (second->kind == AGAIN ? b->in_window[i] : b->zeros[i] == 0 && b->kept[i] == b->classes);
}

static ALWAYS_INLINE bool put_behind(struct behind *behind, const struct batch *b, size_t i, const struct xent_job *job,
                                     enum target target)
{
    struct second *second = &behind->second[behind->count];
    if (!find_second(second, b, i, job, target))
        return false;
    const float unit = f32_pow2(b->exponent[i]);
    second->hi = b->hi[i] * unit;
    second->lo = b->lo[i] * unit;
    second->out = b->out[i];
    second->left = b->classes;
    second->target = b->y[i] < 0 ? NULL : b->out[i] + b->y[i];
    second->target_gradient = b->target_gradient[i];
    second->parted = false;
    if (second->kind == AGAIN)
        second_begin_again(second);
    ++behind->count;
    return true;
}

/* The second pass over a row whose exponentials may have been kept. */
static ALWAYS_INLINE void scale_one(const struct batch *b, size_t i, bool streamed)
{
    const struct frame frame = {b->ref[i], b->cut[i]};
    const struct multiplier m = {b->exponent[i], b->hi[i], b->lo[i]};
    if (!streamed)
        scale_span(b->x[i], b->out[i], 0, b->classes, b->zeros[i], b->kept[i], frame, m);
    else if (b->kept[i] == b->classes && is_plain(m.exponent))
        scale_again(b->x[i], b->out[i], b->classes, frame, m.hi * f32_pow2(m.exponent), m.lo * f32_pow2(m.exponent));
    else
        scale_wide(b->x[i], b->out[i], b->classes, frame, m);
}

/* Every row by itself, beside what is left of the batch before it. behind NULL: nothing is left for later. */
static ALWAYS_INLINE void run_batch(struct batch *b, const struct xent_job *job, enum target target,
                                    struct behind *behind)
{
    for (size_t i = 0; i < b->count; ++i) {
        struct second *second = behind && i < behind->count ? &behind->second[i] : NULL;
        if (target == SMOOTHED_TARGET)
            sum_smoothed(b, i, job, second);
        else if (target == DISTRIBUTION)
            sum_distribution(b, i, job, second);
        else
            sum_one(b, i, job, target, second);
        if (second)
            second_end(second);
    }
    if (behind)
        end_behind(behind, b->count);
    finish_batch(b, job, target);
    store_losses(b, job);
    if (!b->out[0])
        return;
    for (size_t i = 0; i < b->count; ++i) {
        if (!b->finite[i])
            continue;
        if (behind && may_leave(job, target) && put_behind(behind, b, i, job, target))
            continue;
        if (target == SMOOTHED_TARGET)
            scale_smoothed(b, i, job);
        else if (target == DISTRIBUTION)
            scale_distribution(b, i, job);
        else
            scale_one(b, i, is_streamed(job, target));
    }
    if (target == DISTRIBUTION && xent_job_has_labels(job) && !xent_job_has_plain_labels(job))
        subtract_labels(b, job);
    for (size_t i = 0; target == DISTRIBUTION && i < b->count; ++i)
        for (size_t j = 0; b->finite[i] && !b->bounded[i] && j < b->classes; ++j)
            b->out[i][j] = f32_canonical(b->out[i][j]);
    if (!behind || behind->count < b->count) /* those behind get theirs when they are done */
        store_exceptions(b, target);
}

/* A function of its own, so that short rows, which are taken otherwise, have the registers to themselves. */
static NOINLINE void run_batch_plain(struct batch *b, const struct xent_job *job, struct behind *behind)
{
    run_batch(b, job, PLAIN_TARGET, behind);
}

static ALWAYS_INLINE void run_filled_of(struct batch *b, const struct xent_job *job, size_t most_columns,
                                        enum target target, int *framed, struct behind *behind)
{
    const bool probabilities = target == DISTRIBUTION && !xent_job_has_labels(job);
    const size_t most = probabilities && COLUMNS_PROBABILITIES < most_columns ? COLUMNS_PROBABILITIES : most_columns;
    const bool usual = target != DISTRIBUTION || probabilities || find_labels(b, job);
    const bool short_rows = usual && has_columns(b) && b->classes <= most;
    if (probabilities)
        find_pivots(b, job);
    if (short_rows && probabilities && run_columns_probabilities(b, job, framed))
        return;
    if (short_rows && !probabilities)
        run_columns(b, job, target, framed);
    else if (target == PLAIN_TARGET)
        run_batch_plain(b, job, behind);
    else
        run_batch(b, job, target, behind);
}

/* An only label is an easy kind of distribution. */
static ALWAYS_INLINE void run_filled(struct batch *b, const struct xent_job *job, size_t most_columns,
                                     enum target target, int *framed, struct behind *behind)
{
    if (target != DISTRIBUTION || !xent_job_has_plain_labels(job) || !find_shares(b, job, NULL))
        run_filled_of(b, job, most_columns, target, framed, behind);
    else if (job->smoothing == 0)
        run_filled_of(b, job, most_columns, SINGLE_TARGET, framed, behind);
    else
        run_filled_of(b, job, most_columns, SMOOTHED_TARGET, framed, behind);
}

/* Whether a batch's rows follow each other without gaps in the gradient, if a job's do. */
static ALWAYS_INLINE bool leaves_none_out(const struct batch *b)
{
    return b->out[b->count - 1] - b->out[0] == (ptrdiff_t)((b->count - 1) * b->classes);
}

/* The gradients of a batch in whole lines, once all are there: a target's must not be put into a line that has gone. */
static NOINLINE void run_staged(struct batch *b, const struct xent_job *job, enum target target, int *framed)
{
    float stage[16 * COLUMNS_MAX] __attribute__((aligned(64)));
    float *out = b->out[0];
    fetch_part_lines(out, b->count * b->classes);
    for (size_t i = 0; i < b->count; ++i)
        b->out[i] = stage + i * b->classes;
    run_filled(b, job, columns_limit(job), target, framed, NULL);
    copy_stream(out, b->count * b->classes, stage);
}

/* A batch is filled before the one before it is run: numbers that are stored one by one and read as vectors are costly
   while the stores are on their way. */
static ALWAYS_INLINE void run_rows(const struct xent_job *job, size_t first, size_t last, enum target target)
{
    const size_t limit = batch_limit(job);
    const bool staged = is_staged(job);
    struct batch batches[2];
    struct behind behind;
    behind.count = 0;
    int framed = 0;
    size_t next = fill_batch(&batches[0], job, first, last, limit, target);
    for (int turn = 0; batches[turn].count > 0; turn = 1 - turn) {
        struct batch *b = &batches[turn];
        next = fill_batch(&batches[1 - turn], job, next, last, limit, target);
        if (staged && has_columns(b) && leaves_none_out(b))
            run_staged(b, job, target, &framed);
        else
            run_filled(b, job, columns_limit(job), target, &framed, &behind);
    }
    end_behind(&behind, 0);
    if (job->memory.stream)
        vstream_end();
    vend();
}

/* In strided.h: rows whose classes are not neighbours. */
static void cross_entropy_strided(const struct xent_job *job, size_t first, size_t last, enum target target);

/* Functions of their own, so that neither has the other's batches on its stack. */
static NOINLINE void run_plain_rows(const struct xent_job *job, size_t first, size_t last)
{
    run_rows(job, first, last, PLAIN_TARGET);
}

static NOINLINE void run_rows_of_distributions(const struct xent_job *job, size_t first, size_t last)
{
    run_rows(job, first, last, DISTRIBUTION);
}

static void cross_entropy(const struct xent_job *job, size_t first, size_t last)
{
    const bool plain = xent_job_is_plain(job) && multiplier_is_bounded(job->grad_scale);
    if (!xent_job_is_contiguous(job))
        cross_entropy_strided(job, first, last, plain ? PLAIN_TARGET : DISTRIBUTION);
    else if (plain)
        run_plain_rows(job, first, last);
    else
        run_rows_of_distributions(job, first, last);
}

static void softmax(const struct xent_job *job, size_t first, size_t last)
{
    run_rows(job, first, last, NO_TARGET);
}

#endif
