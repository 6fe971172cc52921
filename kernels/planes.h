/*
 * Part of kernels/algorithm.h: a batch of rows that are neighbours of each other, as those of images [N][C][H][W]. They
 * are taken by columns, straight from the planes of their classes.
 */
#ifndef XENT_KERNELS_PLANES_H
#define XENT_KERNELS_PLANES_H

enum {
    SHORTEST_LINE = BATCH / 4, /* fewer neighbours than this are better mixed with others in a tile */
    ROWS_AHEAD = 32            /* planes are fetched so many rows ahead */
};

/* A batch of neighbours, each in its lane, also those that are ignored. */
struct planes {
    struct batch b;
    const float *x;
    float *out;
    bool is_streamed; /* whether gradients go past the caches */
    size_t kept;
    int32_t y[BATCH], dropped[BATCH];   /* an ignored row has no y: -1 */
    float B[BATCH];                     /* of smoothed targets: struct column_taking */
    const struct column_shares *shares; /* of DISTRIBUTION: for each block */
};

static ALWAYS_INLINE struct column_place columns_of_planes(struct planes *p, const struct xent_job *job, size_t at,
                                                           bool is_whole)
{
    const size_t left = at < p->b.count ? p->b.count - at : 0;
    return (struct column_place){.x_plane = p->x + at,
                                 .out_plane = p->out ? p->out + at : NULL,
                                 .x_stride = job->logits_strides.classes,
                                 .out_stride = job->out_strides.classes,
                                 .is_whole = is_whole,
                                 .rows = left < VW ? left : VW,
                                 .dropped = p->dropped + at,
                                 .x_y = p->b.x_y + at,
                                 .target_gradient = p->b.target_gradient + at};
}

static ALWAYS_INLINE struct ahead planes_ahead(const struct planes *p)
{
    return (struct ahead){.next = ROWS_AHEAD, .out_plane = p->out && p->out != p->x && !p->is_streamed};
}

static NOINLINE bool sum_whole_planes(struct planes *p, const struct xent_job *job, int at, struct columns *c,
                                      int *framed)
{
    const struct column_place place = columns_of_planes(p, job, (size_t)at, true);
    return sum_block(&p->b, at, place, p->y, planes_ahead(p), c, NULL, framed);
}

static NOINLINE bool sum_planes(struct planes *p, const struct xent_job *job, int at, struct columns *c, int *framed)
{
    const struct column_place place = columns_of_planes(p, job, (size_t)at, false);
    return sum_block(&p->b, at, place, p->y, planes_ahead(p), c, NULL, framed);
}

/* With the sums that smoothing needs. */
static NOINLINE bool sum_planes_even(struct planes *p, const struct xent_job *job, int at, struct columns *c,
                                     int *framed)
{
    const struct column_place place = columns_of_planes(p, job, (size_t)at, false);
    struct batch *b = &p->b;
    if (!job->class_weights)
        return sum_block(b, at, place, p->y, planes_ahead(p), c, b->D, framed);
    const bool in_window = sum_planes(p, job, at, c, framed);
    columns_dot(place, b->classes, job->class_weights, b->D + at);
    return in_window;
}

static ALWAYS_INLINE struct column_taking planes_taking(const struct planes *p, const struct xent_job *job, int at,
                                                        enum target target)
{
    struct column_taking take = {.B = NULL};
    if (is_smoothed(job, target)) {
        take.B = p->B + at;
        take.w = job->class_weights;
    }
    if (target == DISTRIBUTION)
        take_probabilities(&take, &p->shares[at / VW], job);
    return take;
}

static NOINLINE void scale_planes(struct planes *p, const struct xent_job *job, int at, bool plain, enum target target,
                                  const struct columns *c)
{
    scale_block(&p->b, at, columns_of_planes(p, job, (size_t)at, false), p->y, plain, planes_taking(p, job, at, target),
                c);
}

/* Takes the labels of count rows from first on. */
static ALWAYS_INLINE void read_labels(struct planes *p, const struct xent_job *job, size_t first, size_t count)
{
    size_t kept = 0;
    if (xent_job_has_packed_labels(job) && count == BATCH) {
        int64_t labels[BATCH];
        int32_t dropped = 0;
        xent_job_read_labels(job, first, BATCH, labels);
        for (size_t i = 0; i < BATCH; ++i) {
            const int32_t drop = labels[i] == job->ignore_index;
            p->y[i] = drop ? -1 : (int32_t)labels[i];
            p->dropped[i] = drop;
            dropped += drop;
        }
        kept = BATCH - (size_t)dropped;
    } else {
        for (size_t i = 0; i < BATCH; ++i) {
            const int64_t y = i < count ? xent_job_target(job, first + i) : job->ignore_index;
            const bool keep = y != job->ignore_index;
            p->y[i] = keep ? (int32_t)y : -1;
            p->dropped[i] = !keep;
            kept += keep;
        }
    }
    p->kept = kept;
}

/* Leaves out rows of weight 0, and finds the shares of the others. Returns whether columns can take them. */
static bool read_shares(struct planes *p, const struct xent_job *job, size_t first)
{
    struct batch *b = &p->b;
    for (size_t i = 0; job->row_weights && i < BATCH; ++i)
        if (!p->dropped[i] && xent_job_row_weight(job, first + i) == 0) {
            p->y[i] = -1;
            p->dropped[i] = 1;
            --p->kept;
        }
    for (size_t i = 0; i < BATCH; ++i)
        b->y[i] = p->dropped[i] ? 0 : p->y[i];
    for (size_t i = b->count; i < BATCH; ++i) {
        b->own[i] = b->scale[i] = 1;
        b->even[i] = b->w_y[i] = 0;
    }
    return find_shares(b, job, p->dropped);
}

/* Whether gradients go past the caches: by whole lines, which in the planes of all classes begin alike. */
static ALWAYS_INLINE bool planes_are_streamed(const struct xent_job *job)
{
    return job->memory.stream && job->out != job->logits && job->out_strides.classes % LINE == 0;
}

/* Begins with count rows from first on. */
static ALWAYS_INLINE void start_planes(struct planes *p, const struct xent_job *job, size_t first, size_t count)
{
    struct batch *b = &p->b;
    for (size_t i = 0; i < BATCH; ++i) {
        b->row[i] = first + i;
        b->ref[i] = near_frame.ref;
        b->cut[i] = near_frame.cut;
        b->finite[i] = true;
        b->x_y[i] = 0;
    }
    b->count = count;
    b->classes = job->classes;
    p->x = xent_job_logits(job, first);
    p->out = b->out[0] = job->out ? xent_job_out(job, first) : NULL;
}

/* Takes count rows from first on. */
static NOINLINE bool fill_planes(struct planes *p, const struct xent_job *job, size_t first, size_t count,
                                 enum target target)
{
    start_planes(p, job, first, count);
    p->is_streamed = count == BATCH && planes_are_streamed(job);
    read_labels(p, job, first, count);
    return target == PLAIN_TARGET || read_shares(p, job, first);
}

/* Takes a batch of rows from first on, whose targets are probabilities. Returns whether columns can take them, and none
   is ignored. */
static NOINLINE bool fill_soft_planes(struct planes *p, const struct xent_job *job, size_t first,
                                      struct column_shares *shares)
{
    struct batch *b = &p->b;
    const xent_strides *x_strides = &job->logits_strides, *q_strides = &job->targets_strides;
    const float *q = (const float *)job->targets + xent_job_at(job, q_strides, first);
    for (size_t i = 0; job->row_weights && i < BATCH; ++i)
        if (xent_job_row_weight(job, first + i) == 0)
            return false;
    start_planes(p, job, first, BATCH);
    p->is_streamed = false;
    p->kept = BATCH;
    p->shares = shares;
    for (size_t i = 0; i < BATCH; ++i) {
        p->dropped[i] = 0;
        b->x[i] = p->x + i;
        b->q[i] = q + i;
    }
    find_pivots(b, job);
    bool usual = true;
    for (int k = 0; k < BATCH / VW; ++k) {
        const int at = k * VW;
        columns_shares_of_planes(p->x + at, x_strides->classes, q + at, q_strides->classes, ROWS_AHEAD, job->classes,
                                 job->class_weights, b->pivot + at, &shares[k]);
        usual = find_taken(b, at, job, &shares[k]) &&
                add_block_probabilities(b, at, job, x_strides->classes, q_strides->classes, &shares[k]) && usual;
    }
    for (int k = 0; job->class_weights && k < BATCH / VW; ++k)
        columns_take_general(&shares[k], job->classes, job->class_weights);
    for (size_t i = 0; i < BATCH; ++i)
        p->y[i] = (int32_t)b->y[i];
    return usual;
}

/* Ignored rows have come along as if their logits were 0. */
static void drop_ignored(struct planes *p)
{
    struct batch *b = &p->b;
    for (size_t i = 0; i < BATCH; ++i)
        if (p->dropped[i]) {
            b->loss[i] = b->log_sum[i] = 0;
            b->exponent[i] = 0;
            b->hi[i] = b->lo[i] = 0;
        }
}

static void ignore_planes(const struct planes *p, const struct xent_job *job)
{
    for (size_t i = 0; i < p->b.count; ++i)
        store_ignored(job, p->b.row[i]);
    for (size_t j = 0; p->out && j < job->classes; ++j)
        if (p->is_streamed)
            fill_stream(p->out + j * job->out_strides.classes, BATCH, 0.0f);
        else
            fill(p->out + j * job->out_strides.classes, p->b.count, 0.0f);
}

/* From sums to results, and what of them is no gradient. Returns false for rows that are all ignored, and done with. */
static ALWAYS_INLINE bool finish_planes(struct planes *p, const struct xent_job *job, enum target target)
{
    if (p->kept == 0) {
        ignore_planes(p, job);
        return false;
    }
    finish_rows(&p->b, job, BATCH, target);
    if (p->kept < BATCH)
        drop_ignored(p);
    store_losses(&p->b, job);
    return true;
}

#endif
