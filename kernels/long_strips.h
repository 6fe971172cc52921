/*
 * Part of kernels/algorithm.h: 64 neighbours, as those of strips.h, of more classes than a strip keeps the exponentials
 * of: their sums are in lanes for each vector of rows, and the exponentials of the gradient are formed again.
 */
#ifndef XENT_KERNELS_LONG_STRIPS_H
#define XENT_KERNELS_LONG_STRIPS_H

enum { STRIP_BLOCKS = STRIP * BLOCKS, LONG_AHEAD = 16 /* planes are fetched so many ahead */ };

struct long_strip {
    struct planes p[STRIP];
    union {
        vd narrow[STRIP_BLOCKS][XENT_LANES];
        vw wide[XENT_LANES];
    } lane;
    struct found found[STRIP_BLOCKS];
    enum mode mode[STRIP_BLOCKS]; /* in which a block's exponentials are formed */
    bool is_done[STRIP_BLOCKS];   /* of ignored rows, or none */
};

/* A block of a strip: which rows of which batch. */
static ALWAYS_INLINE struct planes *planes_of(struct long_strip *s, size_t block)
{
    return &s->p[block / BLOCKS];
}

static ALWAYS_INLINE int block_at(size_t block)
{
    return (int)(block % BLOCKS) * VW;
}

static ALWAYS_INLINE struct column_place long_place(struct long_strip *s, const struct xent_job *job, size_t block,
                                                    bool whole)
{
    return columns_of_planes(planes_of(s, block), job, (size_t)block_at(block), whole);
}

static ALWAYS_INLINE void fetch_long(const struct long_strip *s, const struct xent_job *job, size_t j, size_t count)
{
    const float *x = s->p[0].x + (j + LONG_AHEAD) * job->logits_strides.classes;
    for (size_t c = 0; c < count && j + LONG_AHEAD + c < job->classes; ++c, x += job->logits_strides.classes)
        for (size_t i = 0; i < STRIP * BATCH; i += LINE)
            prefetch_l2(x + i);
}

/* Adds classes j to j + count - 1, for a constant count <= 4, of blocks first to last - 1 to their lanes. */
static ALWAYS_INLINE void sum_long_some(struct long_strip *s, const struct xent_job *job, size_t first, size_t last,
                                        size_t j, size_t count, bool whole, enum mode mode)
{
    const vt powers = vt_load(table);
    fetch_long(s, job, j, count);
    for (size_t k = first; k < last; ++k) {
        const struct planes *p = planes_of(s, k);
        const int at = block_at(k);
        vf e[4];
        if (s->is_done[k])
            continue;
        columns_exp_vectors(long_place(s, job, k, whole), j, count, viload(p->y + at), powers, mode,
                            vload(p->b.ref + at), vload(p->b.cut + at), e, &s->found[k], NULL);
        for (size_t i = 0; i < count; ++i)
            vd_add(&s->lane.narrow[k][(j + i) % XENT_LANES], e[i]);
    }
}

/* Adds the lanes of a chunk to the sums of blocks first to last - 1. */
static ALWAYS_INLINE void fold_long(struct long_strip *s, size_t first, size_t last)
{
    for (size_t k = first; k < last; ++k) {
        vd *lane = s->lane.narrow[k];
        double sum[VW], *others = planes_of(s, k)->b.others + block_at(k);
        for (size_t half = XENT_LANES / 2; half > 0; half /= 2)
            for (size_t l = 0; l < half; ++l)
                lane[l] = vd_plus(lane[l], lane[l + half]);
        vd_get(&lane[0], sum);
        for (int i = 0; i < VW; ++i)
            others[i] += sum[i] * 0x1p896;
    }
}

/* The sums of blocks first to last - 1, if all logits lie in the window. */
static ALWAYS_INLINE void sum_long(struct long_strip *s, const struct xent_job *job, size_t first, size_t last,
                                   bool whole, enum mode mode)
{
    const size_t chunk = xent_chunk(job->classes);
    for (size_t k = first; k < last; ++k) {
        double *others = planes_of(s, k)->b.others + block_at(k);
        for (int i = 0; i < VW; ++i)
            others[i] = 0;
        s->found[k] = (struct found){viset(0), vset(0.0f)};
        s->mode[k] = mode;
    }
    for (size_t begin = 0; begin < job->classes; begin += chunk) {
        const size_t end = job->classes - begin < chunk ? job->classes : begin + chunk;
        size_t j = begin;
        for (size_t k = first; k < last; ++k)
            for (size_t l = 0; l < XENT_LANES; ++l)
                vd_zero(&s->lane.narrow[k][l]);
        for (; j + 4 <= end; j += 4)
            sum_long_some(s, job, first, last, j, 4, whole, mode);
        for (; j < end; ++j)
            sum_long_some(s, job, first, last, j, 1, whole, mode);
        fold_long(s, first, last);
    }
    for (size_t k = first; k < last; ++k)
        vstore(planes_of(s, k)->b.x_y + block_at(k), s->found[k].x_y);
}

static NOINLINE void sum_long_whole(struct long_strip *s, const struct xent_job *job)
{
    sum_long(s, job, 0, STRIP_BLOCKS, true, WINDOW);
}

static NOINLINE void sum_long_part(struct long_strip *s, const struct xent_job *job)
{
    sum_long(s, job, 0, STRIP_BLOCKS, false, WINDOW);
}

static NOINLINE void sum_long_far(struct long_strip *s, const struct xent_job *job, size_t block)
{
    sum_long(s, job, block, block + 1, false, FAR_MASKED);
}

/* The sums of a block in any frames. */
static NOINLINE void sum_long_wide(struct long_strip *s, const struct xent_job *job, size_t block)
{
    static const double zeros[VW];
    struct batch *b = &planes_of(s, block)->b;
    const int at = block_at(block);
    const vi target = viload(planes_of(s, block)->y + at);
    const size_t chunk = xent_chunk(job->classes);
    double others[VW] = {0};
    vw *lane = s->lane.wide;
    s->mode[block] = WIDE;
    for (size_t begin = 0; begin < job->classes; begin += chunk) {
        double sum[VW];
        for (size_t l = 0; l < XENT_LANES; ++l)
            lane[l] = vw_load(zeros);
        for (size_t j = begin; j < job->classes && j < begin + chunk; ++j) {
            vf z[4];
            vi n;
            load_columns(long_place(s, job, block, false), j, 1, z);
            const vf f = exp_wide(z[0], vload(b->ref + at), vload(b->cut + at), &n);
            vw_add(&lane[j % XENT_LANES], vdrop_where(f, target, (int)j), n);
        }
        for (size_t half = XENT_LANES / 2; half > 0; half /= 2)
            for (size_t l = 0; l < half; ++l)
                lane[l] = vw_plus(lane[l], lane[l + half]);
        vw_store(sum, &lane[0]);
        for (int i = 0; i < VW; ++i)
            others[i] += sum[i];
    }
    memcpy(b->others + at, others, sizeof others);
    for (int i = at; i < at + VW; ++i)
        b->finite[i] = b->finite[i] && b->others[i] == b->others[i] && b->x_y[i] == b->x_y[i];
}

/* The sums of a strip, whose blocks may need frames of their own. */
static void sum_long_strip(struct long_strip *s, const struct xent_job *job, bool whole)
{
    if (whole)
        sum_long_whole(s, job);
    else
        sum_long_part(s, job);
    for (size_t k = 0; k < STRIP_BLOCKS; ++k) {
        if (s->is_done[k] || is_found_in_window(&s->found[k]))
            continue;
        find_frames(&planes_of(s, k)->b, block_at(k), long_place(s, job, k, false));
        sum_long_far(s, job, k);
        if (!is_found_in_window(&s->found[k]))
            sum_long_wide(s, job, k);
    }
}

/* The gradients of classes j to j + count - 1, for a constant count <= 4, of blocks first to last - 1, whose
   multipliers are plain and have their powers of two in them. */
static ALWAYS_INLINE void scale_long_some(struct long_strip *s, const struct xent_job *job, size_t first, size_t last,
                                          size_t j, size_t count, bool whole, enum mode mode)
{
    const vt powers = vt_load(table);
    fetch_long(s, job, j, count);
    for (size_t k = first; k < last; ++k) {
        const struct planes *p = planes_of(s, k);
        const int at = block_at(k);
        struct found unwanted = {viset(0), vset(0.0f)};
        vf g[4];
        if (s->is_done[k])
            continue;
        const struct column_place place = long_place(s, job, k, whole);
        columns_exp_vectors(place, j, count, viload(p->y + at), powers, mode, vload(p->b.ref + at),
                            vload(p->b.cut + at), g, &unwanted, NULL);
        for (size_t i = 0; i < count; ++i) {
            g[i] = vfma(g[i], vload(p->b.hi + at), vmul(g[i], vload(p->b.lo + at)));
            g[i] = with_target(g[i], p->y + at, j + i, place);
        }
        store_columns(place, j, count, g);
    }
}

static ALWAYS_INLINE void scale_long(struct long_strip *s, const struct xent_job *job, size_t first, size_t last,
                                     bool whole, enum mode mode)
{
    size_t j = 0;
    for (; j + 4 <= job->classes; j += 4)
        scale_long_some(s, job, first, last, j, 4, whole, mode);
    for (; j < job->classes; ++j)
        scale_long_some(s, job, first, last, j, 1, whole, mode);
}

static NOINLINE void scale_long_whole(struct long_strip *s, const struct xent_job *job)
{
    scale_long(s, job, 0, STRIP_BLOCKS, true, WINDOW);
}

static NOINLINE void scale_long_part(struct long_strip *s, const struct xent_job *job)
{
    scale_long(s, job, 0, STRIP_BLOCKS, false, WINDOW);
}

static NOINLINE void scale_long_far(struct long_strip *s, const struct xent_job *job, size_t block)
{
    scale_long(s, job, block, block + 1, false, FAR_MASKED);
}

static NOINLINE void scale_long_wide(struct long_strip *s, const struct xent_job *job, size_t block)
{
    const struct planes *p = planes_of(s, block);
    const int at = block_at(block);
    const struct column_place place = long_place(s, job, block, false);
    for (size_t j = 0; j < job->classes; ++j) {
        vf g[4];
        vi n;
        load_columns(place, j, 1, g);
        const vf f = exp_wide(g[0], vload(p->b.ref + at), vload(p->b.cut + at), &n);
        g[0] = multiply_wide(f, n, viload(p->b.exponent + at), vload(p->b.hi + at), vload(p->b.lo + at));
        g[0] = with_target(g[0], p->y + at, j, place);
        store_columns(place, j, 1, g);
    }
}

/* The gradients of a strip. whole: all of its rows are there, and none is ignored. */
static void scale_long_strip(struct long_strip *s, const struct xent_job *job, bool whole)
{
    bool in_window = true;
    for (size_t k = 0; k < STRIP_BLOCKS; ++k) {
        struct batch *b = &planes_of(s, k)->b;
        const int at = block_at(k);
        if (s->is_done[k])
            continue;
        if (!are_plain(viload(b->exponent + at)))
            s->mode[k] = WIDE;
        if (s->mode[k] != WIDE)
            put_powers(b, at);
        in_window = in_window && s->mode[k] == WINDOW;
    }
    if (in_window && whole)
        scale_long_whole(s, job);
    else if (in_window)
        scale_long_part(s, job);
    for (size_t k = 0; !in_window && k < STRIP_BLOCKS; ++k) {
        if (s->is_done[k])
            continue;
        if (s->mode[k] == WIDE)
            scale_long_wide(s, job, k);
        else
            scale_long_far(s, job, k);
        const struct planes *p = planes_of(s, k);
        for (size_t i = (size_t)block_at(k); i < (size_t)block_at(k) + VW && i < p->b.count; ++i)
            for (size_t j = 0; !p->b.finite[i] && j < job->classes; ++j)
                p->out[i + j * job->out_strides.classes] = NAN;
    }
}

static ALWAYS_INLINE bool run_long_strip(const struct xent_job *job, size_t first, size_t count, enum target target)
{
    struct long_strip s;
    size_t batches = 0;
    for (size_t at = 0; at < count; at += BATCH, ++batches) {
        if (!fill_planes(&s.p[batches], job, first + at, count - at < BATCH ? count - at : BATCH, target))
            return false;
        s.p[batches].is_streamed = false;
    }
    bool whole = batches == STRIP;
    for (size_t k = 0; k < STRIP_BLOCKS; ++k) {
        const struct planes *p = planes_of(&s, k);
        s.is_done[k] = k / BLOCKS >= batches || p->kept == 0 || (size_t)block_at(k) >= p->b.count;
        whole = whole && !s.is_done[k] && is_whole(p);
    }
    sum_long_strip(&s, job, whole);
    for (size_t i = 0; i < batches; ++i)
        finish_planes(&s.p[i], job, target);
    if (job->out)
        scale_long_strip(&s, job, whole);
    return true;
}

static NOINLINE bool run_long_strip_plain(const struct xent_job *job, size_t first, size_t count)
{
    return run_long_strip(job, first, count, PLAIN_TARGET);
}

static NOINLINE bool run_long_strip_single(const struct xent_job *job, size_t first, size_t count)
{
    return run_long_strip(job, first, count, SINGLE_TARGET);
}

#endif
