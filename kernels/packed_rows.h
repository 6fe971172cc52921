/*
 * Part of kernels/algorithm.h: blocks of short rows without gaps between them, by whole vectors in the order of memory,
 * for gradients: rows are no whole vectors, and by columns they are stored in pieces. Only their sums are taken by
 * columns, those of the exponentials.
 */
#ifndef XENT_KERNELS_PACKED_ROWS_H
#define XENT_KERNELS_PACKED_ROWS_H

enum {
    /* Fewer classes are no faster than by columns, on Zen 4; with vectors of 4 it has not been measured. */
    PACKED_LEAST = VW == 4 ? COLUMNS_MAX + 1 : 17,
    PACKED_FAR = 48 /* from as many classes on lines are fetched into the second-level cache as well */
};

/* Whether the rows of a job, and of its gradients, follow each other without gaps, and are not too short. */
static ALWAYS_INLINE bool has_packed_rows(const struct xent_job *job)
{
    return job->out && job->inner == 1 && job->logits_strides.outer == job->classes &&
           job->out_strides.outer == job->classes && job->classes >= PACKED_LEAST;
}

/* Whether so do VW rows of a batch from at on: none is left out among them, or there twice. */
static ALWAYS_INLINE bool is_packed(const struct batch *b, int at)
{
    return b->count >= (size_t)at + VW && b->x[at + VW - 1] - b->x[at] == (VW - 1) * (ptrdiff_t)b->classes;
}

/* Exponentials of count vectors, a constant <= 4, from vector k on. */
static ALWAYS_INLINE void packed_exp_some(const float *x, size_t k, size_t count, vt powers, float *e, vi *stray)
{
    vf z[4], t[4];
    for (size_t i = 0; i < count; ++i) {
        z[i] = vload(x + (k + i) * VW);
        t[i] = exp_round(z[i]);
    }
    for (size_t i = 0; i < count; i += 2)
        *stray = vior(*stray, vstray(t[i], t[i + 1 < count ? i + 1 : i], rounder_bits));
    for (size_t i = 0; i < count; ++i)
        vstore(e + (k + i) * VW, exp_polynomial(vtable(powers, t[i]), exp_reduce(z[i], t[i])));
}

/* Whether lines of the next batch are fetched along with a block's exponentials and again along with its gradients:
   where they are fetched early, and by AVX-512, not all of as many as a batch then has come at once. */
static ALWAYS_INLINE bool fetches_twice(const struct batch *b, bool early)
{
    return VW == 16 && early && b->classes >= PACKED_FAR;
}

/* A block's exponentials, in the order of its rows. Returns whether all are in the window. */
static ALWAYS_INLINE bool packed_exp(const struct batch *b, int at, bool early, float *e)
{
    const float *x = b->x[at], *out = b->out[at] == x ? NULL : b->out[at];
    const size_t next = (size_t)columns_rows(b) * b->classes;
    const size_t far = b->classes >= PACKED_FAR && !fetches_twice(b, early) ? short_rows_ahead(early, next) : 0;
    const vt powers = vt_load(table);
    vi stray = viset(0);
    size_t k = 0;
    for (; k + 4 <= b->classes; k += 4) {
        for (size_t i = 0; i < 4 * VW; i += LINE)
            prefetch(x + next + k * VW + i);
        for (size_t i = 0; far > 0 && i < 4 * VW; i += LINE)
            prefetch_l2(x + far + k * VW + i);
        for (size_t i = 0; out && i < 4 * VW; i += LINE)
            __builtin_prefetch(out + k * VW + i, 1);
        packed_exp_some(x, k, 4, powers, e, &stray);
    }
    for (; k < b->classes; ++k)
        packed_exp_some(x, k, 1, powers, e, &stray);
    return !vany(stray, ~(WINDOW_SIZE - 1));
}

/* The exponentials of a block in e, and their sums. Returns whether all logits lie in the window; otherwise nothing has
   happened but to e. */
static NOINLINE bool sum_packed(struct batch *b, int at, const int32_t *y, bool early, struct columns *c, float *e)
{
    if (!packed_exp(b, at, early, e))
        return false;
    const float *rows[VW];
    for (size_t i = 0; i < VW; ++i)
        rows[i] = e + i * b->classes;
    for (size_t i = (size_t)at; i < (size_t)at + VW; ++i)
        b->x_y[i] = y[i] < 0 ? 0 : b->x[i][y[i]];
    const vi target = viload(y + at);
    for (size_t j = 0; j < b->classes; j += 4) {
        vf column[4];
        vload_columns(rows, j, 4, column); /* those after the last are of other rows, and in nobody's sum */
        for (size_t i = 0; i < 4; ++i)
            vstore(c->f[j + i], vdrop_where(column[i], target, (int)(j + i)));
    }
    columns_sum(c, b->classes, b->others + at);
    return true;
}

/* Gradients e (hi + lo), but for the targets', with multipliers that prepare_scale found plain. */
static NOINLINE void scale_packed(const struct batch *b, int at, bool early, const float *e)
{
    enum { POINT = 20 }; /* bits after the binary point of an entry's place / classes, whose integer is its row */
    const int32_t inverse = (int32_t)((((size_t)1 << POINT) + b->classes - 1) / b->classes);
    int32_t places[VW];
    for (int i = 0; i < VW; ++i)
        places[i] = i * inverse;
    vi place = viload(places);
    const vi step = viset(VW * inverse);
    const vf hi = vload(b->hi + at), lo = vload(b->lo + at);
    float *out = b->out[at];
    const float *next = b->x[at] + (size_t)columns_rows(b) * b->classes;
    const bool fetch = fetches_twice(b, early);
    for (size_t k = 0; k < b->classes; ++k) {
        if (fetch)
            prefetch(next + k * VW);
        const vi row = visar(place, POINT);
        const vf v = vload(e + k * VW);
        vstore(out + k * VW, vfma(v, vpermute(hi, row), vmul(v, vpermute(lo, row))));
        place = viadd(place, step);
    }
}

#endif
