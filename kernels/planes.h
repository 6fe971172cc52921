/*
 * Part of kernels/algorithm.h: rows of few classes that are neighbours of each other, as those of images [N][C][H][W].
 * They are taken by columns, straight from the planes of their classes.
 */
#ifndef XENT_KERNELS_PLANES_H
#define XENT_KERNELS_PLANES_H

enum {
    SHORTEST_LINE = BATCH / 4, /* fewer neighbours than this are better mixed with others in a tile */
    ROWS_AHEAD = 32,           /* planes are fetched so many rows ahead */
    /* Or, where kernels overlap, so many planes ahead: on Granite Rapids, or on Zen 3. */
    PLANES_AHEAD = VW == 16 ? 20 : 16
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
    const bool in_window = sum_block(b, at, place, p->y, planes_ahead(p), c, NULL, framed);
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
static ALWAYS_INLINE bool finish_planes(struct planes *p, const struct xent_job *job, enum target target,
                                        double grad_scale)
{
    if (p->kept == 0) {
        ignore_planes(p, job);
        return false;
    }
    finish_rows(&p->b, BATCH, target, grad_scale);
    if (p->kept < BATCH)
        drop_ignored(p);
    store_losses(&p->b, job);
    return true;
}

enum {
    STRIP = 64 / BATCH,
    BLOCKS = BATCH / VW,
    PLANES_MAX = 96,
    SOFT_PLANES_MAX = 64, /* with a probability for every class, for the stack's sake */
    GROUP = 4
};

/* Neighbours, as many batches of them as a strip has. */
struct strip {
    struct planes p[STRIP];
    float f[STRIP * BATCH * PLANES_MAX] __attribute__((aligned(64)));
    int32_t n[STRIP * BATCH * PLANES_MAX] __attribute__((aligned(64)));
    struct columns columns[STRIP][BLOCKS];
    bool plain[STRIP][BLOCKS];
    const float *group; /* where lines are fetched early: where the first plane of the next GROUP of strips begins */
    size_t fetched;     /* and how many strips of a plane have been fetched of it */
};

/* The probabilities of a strip's rows. */
struct soft_strip {
    struct column_shares shares[STRIP][BLOCKS];
    float q[STRIP * BATCH * SOFT_PLANES_MAX] __attribute__((aligned(64)));
};

static ALWAYS_INLINE bool is_whole(const struct planes *p)
{
    return p->kept == BATCH;
}

/* The same with some of its rows ignored, but not all: their gradients come to 0. */
static ALWAYS_INLINE bool is_full(const struct planes *p)
{
    return p->kept > 0 && p->b.count == BATCH;
}

/* Whether lines are fetched by groups of strips, plane by plane: memory delivers 1 KB of a plane faster than pieces of
   256 bytes. (With AVX2, which arithmetic binds, it is up to 5 % slower in place.) */
static ALWAYS_INLINE bool has_groups(const struct xent_job *job)
{
    return VW == 16 && is_early(job);
}

/* Finds what a strip of full batches from a row on has to fetch of the next group, which may be in the next image. */
static ALWAYS_INLINE void find_group(struct strip *s, const struct xent_job *job, size_t first)
{
    const size_t pixels = GROUP * STRIP * BATCH, pixel = job->inner == 1 ? first : first % job->inner;
    const size_t part = pixel % pixels, next = pixel - part + pixels;
    const bool same_image = job->inner == 1 || next < job->inner;
    s->group = s->p[0].x - pixel + (same_image ? next : job->logits_strides.outer);
    s->fetched = part / (STRIP * BATCH) * job->classes;
}

/* The lines of a strip that are to be fetched along with its class j: those of the class that is so many planes ahead,
   be it of the next strip; or the same number of the next group. */
static ALWAYS_INLINE const float *strip_ahead(const struct strip *s, const struct xent_job *job, size_t j)
{
    const size_t x_stride = job->logits_strides.classes;
    if (has_groups(job)) {
        const size_t at = s->fetched + j;
        return s->group + at / GROUP * x_stride + at % GROUP * (STRIP * BATCH);
    }
    const size_t ahead = j + (job->classes < PLANES_AHEAD ? job->classes : PLANES_AHEAD);
    const float *x = s->p[0].x;
    return ahead < job->classes ? x + ahead * x_stride : x + STRIP * BATCH + (ahead - job->classes) * x_stride;
}

/* Fetches them, and the lines of class j that are to be written to: by their ends, as of a strip that does not begin
   with a line the first one is the last of the strip before it. */
static ALWAYS_INLINE void fetch_planes(const struct strip *s, const struct xent_job *job, size_t j)
{
    const struct planes *p = &s->p[0];
    const float *x = strip_ahead(s, job, j);
    for (size_t i = 0; i < STRIP * BATCH; i += LINE)
        prefetch_l2(x + i + LINE - 1);
    for (size_t i = 0; planes_ahead(p).out_plane && i < STRIP * BATCH; i += LINE)
        __builtin_prefetch(p->out + j * job->out_strides.classes + i + LINE - 1, 1);
}

/* Columns j to j + count - 1, a constant number of them, of all blocks of a strip. */
static ALWAYS_INLINE void exp_strip_some(struct strip *s, const struct xent_job *job, size_t j, size_t count,
                                         bool whole, struct found *found)
{
    const vt powers = vt_load(table);
    for (size_t i = 0; i < count; ++i)
        fetch_planes(s, job, j + i);
    for (size_t i = 0; i < STRIP; ++i)
        for (int k = 0; k < BLOCKS; ++k)
            columns_exp_some(columns_of_planes(&s->p[i], job, (size_t)k * VW, whole), j, count,
                             viload(s->p[i].y + k * VW), powers, WINDOW, vset(near_frame.ref), vset(near_frame.cut),
                             &s->columns[i][k], &found[i * BLOCKS + (size_t)k], NULL);
}

/* The exponentials and sums of a strip of full batches, class by class: where planes are a power of two apart, lines of
   many of them have few places in a cache, and would be gone before they are used. whole: whether all batches are. */
static ALWAYS_INLINE void sum_strip(struct strip *s, const struct xent_job *job, bool whole, int *framed)
{
    struct found found[STRIP * BLOCKS];
    for (size_t i = 0; i < STRIP * BLOCKS; ++i)
        found[i] = (struct found){viset(0), vset(0)};
    size_t j = 0;
    for (; j + 4 <= job->classes; j += 4)
        exp_strip_some(s, job, j, 4, whole, found);
    if (job->classes - j == 3)
        exp_strip_some(s, job, j, 3, whole, found);
    else if (job->classes - j == 2)
        exp_strip_some(s, job, j, 2, whole, found);
    else if (job->classes - j == 1)
        exp_strip_some(s, job, j, 1, whole, found);
    for (size_t i = 0; i < STRIP; ++i)
        for (int k = 0; k < BLOCKS; ++k) {
            struct batch *b = &s->p[i].b;
            const struct found *f = &found[i * BLOCKS + (size_t)k];
            s->plain[i][k] = is_found_in_window(f);
            if (s->plain[i][k]) {
                vstore(b->x_y + k * VW, f->x_y);
                columns_sum(&s->columns[i][k], b->classes, b->others + k * VW);
            } else {
                *framed = FRAMED_BLOCKS;
                s->plain[i][k] = sum_planes(&s->p[i], job, k * VW, &s->columns[i][k], framed);
            }
        }
}

static NOINLINE void sum_whole_strip(struct strip *s, const struct xent_job *job, int *framed)
{
    sum_strip(s, job, true, framed);
}

static NOINLINE void sum_full_strip(struct strip *s, const struct xent_job *job, int *framed)
{
    sum_strip(s, job, false, framed);
}

/* Columns j to j + count - 1, a constant number of them, of all blocks of a strip. */
static ALWAYS_INLINE void scale_strip_some(struct strip *s, const struct xent_job *job, size_t j, size_t count,
                                           enum target target, bool streamed)
{
    for (size_t i = 0; i < STRIP; ++i)
        for (int k = 0; k < BLOCKS; ++k) {
            struct planes *p = &s->p[i];
            const int at = k * VW;
            struct column_place place = columns_of_planes(p, job, (size_t)at, true);
            place.is_streamed = streamed;
            columns_scale_some(&s->columns[i][k], j, count, p->y + at, vload(p->b.hi + at), vload(p->b.lo + at),
                               planes_taking(p, job, at, target), place);
        }
}

/* The gradients of a strip of full batches, whose exponentials can all be multiplied plainly, class by class. */
static ALWAYS_INLINE void scale_full_strip(struct strip *s, const struct xent_job *job, enum target target,
                                           bool streamed)
{
    size_t j = 0;
    for (; j + 4 <= job->classes; j += 4)
        scale_strip_some(s, job, j, 4, target, streamed);
    if (job->classes - j == 3)
        scale_strip_some(s, job, j, 3, target, streamed);
    else if (job->classes - j == 2)
        scale_strip_some(s, job, j, 2, target, streamed);
    else if (job->classes - j == 1)
        scale_strip_some(s, job, j, 1, target, streamed);
}

static NOINLINE void scale_strip(struct strip *s, const struct xent_job *job)
{
    scale_full_strip(s, job, PLAIN_TARGET, false);
}

static NOINLINE void scale_strip_streamed(struct strip *s, const struct xent_job *job)
{
    scale_full_strip(s, job, PLAIN_TARGET, true);
}

static NOINLINE void scale_strip_smoothed(struct strip *s, const struct xent_job *job)
{
    scale_full_strip(s, job, SMOOTHED_TARGET, false);
}

static NOINLINE void scale_strip_smoothed_streamed(struct strip *s, const struct xent_job *job)
{
    scale_full_strip(s, job, SMOOTHED_TARGET, true);
}

static NOINLINE void scale_strip_soft(struct strip *s, const struct xent_job *job)
{
    scale_full_strip(s, job, DISTRIBUTION, false);
}

/* soft: of probabilities, for whole batches. */
static ALWAYS_INLINE bool run_strip(const struct xent_job *job, size_t first, size_t count, enum target target,
                                    double grad_scale, struct soft_strip *soft, int *framed)
{
    struct strip s;
    size_t batches = 0;
    for (size_t at = 0; at < count; at += BATCH, ++batches) {
        struct planes *p = &s.p[batches];
        if (!(soft ? fill_soft_planes(p, job, first + at, soft->shares[batches])
                   : fill_planes(p, job, first + at, count - at < BATCH ? count - at : BATCH, target)))
            return false;
    }
    for (size_t i = 0; i < batches * BLOCKS; ++i)
        s.columns[i / BLOCKS][i % BLOCKS] = columns_of_block(s.f, s.n, job->classes, i);
    bool whole = true, full = batches == STRIP;
    for (size_t i = 0; i < batches; ++i) {
        whole = whole && is_whole(&s.p[i]);
        full = full && is_full(&s.p[i]);
    }
    const bool smooth = is_smoothed(job, target);
    const bool by_classes = full && !smooth && !soft && job->memory.overlap && *framed == 0;
    if (by_classes && has_groups(job))
        find_group(&s, job, first);
    if (by_classes && whole)
        sum_whole_strip(&s, job, framed);
    else if (by_classes)
        sum_full_strip(&s, job, framed);
    for (size_t i = 0; !by_classes && i < batches; ++i) {
        struct planes *p = &s.p[i];
        for (int k = 0; p->kept > 0 && k < BLOCKS; ++k)
            s.plain[i][k] = smooth        ? sum_planes_even(p, job, k * VW, &s.columns[i][k], framed)
                            : is_whole(p) ? sum_whole_planes(p, job, k * VW, &s.columns[i][k], framed)
                                          : sum_planes(p, job, k * VW, &s.columns[i][k], framed);
    }
    for (size_t i = 0; i < batches; ++i) {
        struct planes *p = &s.p[i];
        if (!finish_planes(p, job, target, grad_scale))
            continue;
        for (int n = 0; smooth && n < BATCH; ++n)
            p->B[n] = f64_to_f32(p->b.scale[n] * p->b.even[n]);
        for (int k = 0; p->out && k < BLOCKS; ++k)
            s.plain[i][k] = prepare_scale(&p->b, k * VW, columns_of_planes(p, job, (size_t)k * VW, false), p->y,
                                          s.plain[i][k], &s.columns[i][k]);
    }
    if (!job->out)
        return true;
    const bool streamed = !soft && planes_are_streamed(job);
    for (size_t i = 0; i < batches; ++i)
        for (int k = 0; k < BLOCKS; ++k)
            full = full && s.plain[i][k];
    if (full && soft)
        scale_strip_soft(&s, job);
    else if (full && target == SMOOTHED_TARGET && streamed)
        scale_strip_smoothed_streamed(&s, job);
    else if (full && target == SMOOTHED_TARGET)
        scale_strip_smoothed(&s, job);
    else if (full && streamed)
        scale_strip_streamed(&s, job);
    else if (full)
        scale_strip(&s, job);
    for (size_t i = 0; i < batches; ++i) {
        struct planes *p = &s.p[i];
        if (p->kept == 0)
            continue;
        for (int k = 0; !full && k < BLOCKS; ++k)
            scale_planes(p, job, k * VW, s.plain[i][k], target, &s.columns[i][k]);
        if (are_finite(&p->b, BATCH))
            continue;
        for (size_t n = 0; n < p->b.count; ++n)
            for (size_t j = 0; !p->b.finite[n] && j < job->classes; ++j)
                p->out[n + j * job->out_strides.classes] = NAN;
    }
    return true;
}

static NOINLINE bool run_strip_plain(const struct xent_job *job, size_t first, size_t count, int *framed)
{
    return run_strip(job, first, count, PLAIN_TARGET, job->grad_scale, NULL, framed);
}

static NOINLINE bool run_strip_single(const struct xent_job *job, size_t first, size_t count, int *framed)
{
    return run_strip(job, first, count, SINGLE_TARGET, 0, NULL, framed);
}

static NOINLINE bool run_strip_smoothed(const struct xent_job *job, size_t first, size_t count, int *framed)
{
    return run_strip(job, first, count, SMOOTHED_TARGET, 0, NULL, framed);
}

static NOINLINE bool run_strip_soft(const struct xent_job *job, size_t first, size_t count, int *framed)
{
    struct soft_strip soft;
    for (size_t i = 0; i < STRIP * BLOCKS; ++i)
        soft.shares[i / BLOCKS][i % BLOCKS].q = (float(*)[VW])soft.q + columns_at(job->classes, i);
    return run_strip(job, first, count, DISTRIBUTION, 0, &soft, framed);
}

/* So many rows from one on make a strip: as many as it has room for, or fewer after which gradients begin a line. So
   what goes past the caches, of strips of full batches, begins one. */
static size_t strip_rows(const struct xent_job *job, size_t row)
{
    const size_t head = planes_are_streamed(job) ? to_line(xent_job_out(job, row), LINE) : 0;
    return head == 0 ? STRIP * BATCH : STRIP * BATCH - LINE + head;
}

#endif
