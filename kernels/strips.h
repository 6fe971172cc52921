/*
 * Part of kernels/algorithm.h: 64 neighbours of few classes, so many batches of planes.h, at once: read class by class
 * where kernels overlap, and written class by class.
 */
#ifndef XENT_KERNELS_STRIPS_H
#define XENT_KERNELS_STRIPS_H

enum {
    STRIP = 64 / BATCH,  /* batches */
    BLOCKS = BATCH / VW, /* of a batch */
    PLANES_MAX = 96,
    SOFT_PLANES_MAX = 64, /* with a probability for every class, for the stack's sake */
    /* Where kernels overlap, planes are fetched so many ahead, on Granite Rapids or on Zen 3. */
    PLANES_AHEAD = VW == 16 ? 20 : 16,
    GROUP = 4 /* strips that are fetched together, where lines are fetched early */
};

struct strip {
    struct planes p[STRIP];
    size_t batches; /* so many of them have rows */
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

/* Whether all rows of a batch are there, and kept. */
static ALWAYS_INLINE bool is_whole(const struct planes *p)
{
    return p->kept == BATCH;
}

/* Whether all are there, and some are kept: the gradients of the others come to 0. */
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

/* Takes count rows from first on, soft: of probabilities, for whole batches. Returns whether columns can take them. */
static ALWAYS_INLINE bool fill_strip(struct strip *s, const struct xent_job *job, size_t first, size_t count,
                                     enum target target, struct soft_strip *soft)
{
    s->batches = 0;
    for (size_t at = 0; at < count; at += BATCH, ++s->batches) {
        struct planes *p = &s->p[s->batches];
        if (!(soft ? fill_soft_planes(p, job, first + at, soft->shares[s->batches])
                   : fill_planes(p, job, first + at, count - at < BATCH ? count - at : BATCH, target)))
            return false;
    }
    for (size_t i = 0; i < s->batches * BLOCKS; ++i)
        s->columns[i / BLOCKS][i % BLOCKS] = columns_of_block(s->f, s->n, job->classes, i);
    return true;
}

/* Exponentials and sums, batch after batch. */
static ALWAYS_INLINE void sum_batches(struct strip *s, const struct xent_job *job, bool smooth, int *framed)
{
    for (size_t i = 0; i < s->batches; ++i) {
        struct planes *p = &s->p[i];
        for (int k = 0; p->kept > 0 && k < BLOCKS; ++k)
            s->plain[i][k] = smooth        ? sum_planes_even(p, job, k * VW, &s->columns[i][k], framed)
                             : is_whole(p) ? sum_whole_planes(p, job, k * VW, &s->columns[i][k], framed)
                                           : sum_planes(p, job, k * VW, &s->columns[i][k], framed);
    }
}

/* All but gradients, which it prepares. */
static ALWAYS_INLINE void finish_strip(struct strip *s, const struct xent_job *job, enum target target)
{
    for (size_t i = 0; i < s->batches; ++i) {
        struct planes *p = &s->p[i];
        if (!finish_planes(p, job, target))
            continue;
        for (int n = 0; is_smoothed(job, target) && n < BATCH; ++n)
            p->B[n] = f64_to_f32(p->b.scale[n] * p->b.even[n]);
        for (int k = 0; p->out && k < BLOCKS; ++k)
            s->plain[i][k] = prepare_scale(&p->b, k * VW, columns_of_planes(p, job, (size_t)k * VW, false), p->y,
                                           s->plain[i][k], &s->columns[i][k]);
    }
}

/* Gradients, class by class if all batches are full and all multipliers plain, else batch after batch. */
static ALWAYS_INLINE void store_gradients(struct strip *s, const struct xent_job *job, enum target target, bool full)
{
    const bool streamed = target != DISTRIBUTION && planes_are_streamed(job);
    for (size_t i = 0; i < s->batches; ++i)
        for (int k = 0; k < BLOCKS; ++k)
            full = full && s->plain[i][k];
    if (full && target == DISTRIBUTION)
        scale_strip_soft(s, job);
    else if (full && target == SMOOTHED_TARGET && streamed)
        scale_strip_smoothed_streamed(s, job);
    else if (full && target == SMOOTHED_TARGET)
        scale_strip_smoothed(s, job);
    else if (full && streamed)
        scale_strip_streamed(s, job);
    else if (full)
        scale_strip(s, job);
    for (size_t i = 0; i < s->batches; ++i) {
        struct planes *p = &s->p[i];
        if (p->kept == 0)
            continue;
        for (int k = 0; !full && k < BLOCKS; ++k)
            scale_planes(p, job, k * VW, s->plain[i][k], target, &s->columns[i][k]);
        if (are_finite(&p->b, BATCH))
            continue;
        for (size_t n = 0; n < p->b.count; ++n)
            for (size_t j = 0; !p->b.finite[n] && j < job->classes; ++j)
                p->out[n + j * job->out_strides.classes] = NAN;
    }
}

static ALWAYS_INLINE bool run_strip(const struct xent_job *job, size_t first, size_t count, enum target target,
                                    struct soft_strip *soft, int *framed)
{
    struct strip s;
    if (!fill_strip(&s, job, first, count, target, soft))
        return false;
    bool whole = true, full = s.batches == STRIP;
    for (size_t i = 0; i < s.batches; ++i) {
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
    else
        sum_batches(&s, job, smooth, framed);
    finish_strip(&s, job, target);
    if (job->out)
        store_gradients(&s, job, target, full);
    return true;
}

static NOINLINE bool run_strip_plain(const struct xent_job *job, size_t first, size_t count, int *framed)
{
    return run_strip(job, first, count, PLAIN_TARGET, NULL, framed);
}

static NOINLINE bool run_strip_single(const struct xent_job *job, size_t first, size_t count, int *framed)
{
    return run_strip(job, first, count, SINGLE_TARGET, NULL, framed);
}

static NOINLINE bool run_strip_smoothed(const struct xent_job *job, size_t first, size_t count, int *framed)
{
    return run_strip(job, first, count, SMOOTHED_TARGET, NULL, framed);
}

static NOINLINE bool run_strip_soft(const struct xent_job *job, size_t first, size_t count, int *framed)
{
    struct soft_strip soft;
    for (size_t i = 0; i < STRIP * BLOCKS; ++i)
        soft.shares[i / BLOCKS][i % BLOCKS].q = (float(*)[VW])soft.q + columns_at(job->classes, i);
    return run_strip(job, first, count, DISTRIBUTION, &soft, framed);
}

/* So many rows from one on make a strip: as many as it has room for, or fewer after which gradients begin a line. So
   what goes past the caches, of strips of full batches, begins one. */
static size_t strip_rows(const struct xent_job *job, size_t row)
{
    const size_t head = planes_are_streamed(job) ? to_line(xent_job_out(job, row), LINE) : 0;
    return head == 0 ? STRIP * BATCH : STRIP * BATCH - LINE + head;
}

#endif
