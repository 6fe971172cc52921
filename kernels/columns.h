/*
 * Part of kernels/algorithm.h: rows of few classes, a vector's worth of them at once, one row in each lane.
 *
 * What is done to a row is the same, to the bit; only the place of its numbers differs. A column is one class of VW
 * rows. Columns come and go four at a time. Where rows are contiguous they are turned by vload_columns and
 * vstore_columns; where the rows are neighbours of each other (pixels, say) each class has a plane of its own, and a
 * column is a vector of it.
 */
#ifndef XENT_KERNELS_COLUMNS_H
#define XENT_KERNELS_COLUMNS_H

enum {
    COLUMNS_MAX = 128,
    COLUMNS_PROBABILITIES = 127, /* more classes with a probability each are faster by rows (AVX-512) */
    /* Numbers of all blocks of a batch together, of which more than 16 rows have up to 32 classes. */
    COLUMNS_ROOM = 16 * COLUMNS_MAX,
    PROBABILITIES_ROOM = 16 * (COLUMNS_PROBABILITIES + 1)
};

/* The exponentials of a block of rows, but those of the targets, which are 0: f 2^n. */
struct columns {
    float (*f)[VW];
    int32_t (*n)[VW]; /* not in use while all logits lie in the window and f is the exponential itself */
};

/* Where the columns of a block begin in the room for all. */
static ALWAYS_INLINE size_t columns_at(size_t classes, size_t block)
{
    return block * ((classes + 3) / 4 * 4);
}

static ALWAYS_INLINE struct columns columns_of_block(float *f, int32_t *n, size_t classes, size_t block)
{
    return (struct columns){(float(*)[VW])f + columns_at(classes, block),
                            (int32_t(*)[VW])n + columns_at(classes, block)};
}

static ALWAYS_INLINE size_t columns_left(size_t classes, size_t j)
{
    return classes - j < 4 ? classes - j : 4;
}

/* Where columns come from, and where they go. */
struct column_place {
    /* Rows, or else planes; where that is constant, only the code for it is left. */
    bool is_rows;
    float *x_y;            /* [VW]: receives the targets' logits, and keeps what it has where there is no target */
    const float *const *x; /* the rows */
    float *const *out;     /* the same or others; also NULL */

    const float *x_plane;         /* class 0 of the first row */
    float *out_plane;             /* or NULL */
    size_t x_stride, out_stride;  /* from one class to the next */
    bool is_whole;                /* VW rows, none of which is dropped */
    bool is_streamed;             /* VW rows whose columns are written past the caches */
    size_t rows;                  /* at most VW: nothing beyond them is read or written */
    const int32_t *dropped;       /* [VW]: 1 for a row whose logits are taken for 0 */
    const float *target_gradient; /* [VW] */
};

static ALWAYS_INLINE struct column_place columns_of_rows(const float *const *x, float *const *out)
{
    return (struct column_place){.is_rows = true, .x = x, .out = out};
}

/* Columns j to j + 3, of which only the first count exist. */
static ALWAYS_INLINE void load_columns(struct column_place at, size_t j, size_t count, vf column[4])
{
    if (at.is_rows) {
        vload_columns(at.x, j, count, column);
        return;
    }
    for (size_t i = 0; i < 4; ++i) {
        if (i >= count) {
            column[i] = vset(0.0f);
        } else if (at.is_whole) {
            column[i] = vload(at.x_plane + (j + i) * at.x_stride);
        } else {
            column[i] = load_left(at.x_plane + (j + i) * at.x_stride, at.rows);
            column[i] = vdrop_where(column[i], viload(at.dropped), 1);
        }
    }
}

/* Entry i of column j. */
static ALWAYS_INLINE float column_entry(struct column_place at, size_t i, size_t j)
{
    if (at.is_rows)
        return at.x[i][j];
    return at.is_whole || (i < at.rows && !at.dropped[i]) ? at.x_plane[i + j * at.x_stride] : 0.0f;
}

static ALWAYS_INLINE void store_columns(struct column_place at, size_t j, size_t count, const vf column[4])
{
    if (at.is_rows) {
        vstore_columns(at.out, j, count, column);
        return;
    }
    for (size_t i = 0; i < count; ++i) {
        float *out = at.out_plane + (j + i) * at.out_stride;
        if (at.is_streamed)
            vstream(out, column[i]);
        else if (at.is_whole)
            vstore(out, column[i]);
        else
            store_left(out, column[i], at.rows);
    }
}

/* What to prefetch: four classes of many rows at a time are not what a processor expects. */
struct ahead {
    size_t next, far;  /* elements from a row to that of a block to come, into the first-level cache and, if not 0, into
                          the second */
    bool in_order;     /* whether to go by the order of memory, which a processor's own prefetchers then follow */
    float *const *out; /* NULL, or the rows that are written to, where they are others than are read */
    bool out_plane;    /* whether the planes that are written to are others than are read, too */
};

/* Each line once, and never many at once. */
static ALWAYS_INLINE void prefetch_rows(struct column_place at, size_t j, size_t count, struct ahead ahead)
{
    if (ahead.in_order) {
        for (size_t i = 0; i < count * VW; i += LINE)
            prefetch(at.x[0] + ahead.next + j * VW + i);
        for (size_t i = 0; ahead.far > 0 && i < count * VW; i += LINE)
            prefetch_l2(at.x[0] + ahead.far + j * VW + i);
        for (size_t i = 0; ahead.out && i < count * VW; i += LINE)
            __builtin_prefetch(ahead.out[0] + j * VW + i, 1);
        return;
    }
    for (size_t i = j / 4 % 4; i < VW; i += 4) {
        prefetch(at.x[i] + ahead.next + j);
        if (ahead.out)
            __builtin_prefetch(ahead.out[i] + j, 1);
    }
}

static ALWAYS_INLINE void prefetch_columns(struct column_place at, size_t j, size_t count, struct ahead ahead)
{
    if (at.is_rows)
        prefetch_rows(at, j, count, ahead);
    for (size_t i = 0; !at.is_rows && i < count; ++i)
        prefetch(at.x_plane + (j + i) * at.x_stride + ahead.next);
    for (size_t i = 0; !at.is_rows && ahead.out_plane && i < count; ++i)
        __builtin_prefetch(at.out_plane + (j + i) * at.out_stride, 1);
}

/* The sums of a block's logits, as struct logit_sum has them: of 16 n + k, and of -r by lanes. */
struct column_logits {
    vi n;
    vf r[XENT_SLICE_LANES];
};

static ALWAYS_INLINE size_t column_logits_lanes(size_t classes)
{
    return classes < XENT_SLICE_LANES ? classes : XENT_SLICE_LANES;
}

/* Adds class j, by the t and r of its exponentials. The first of a lane is stored: to clear them all before took 7 % of
   10 classes. */
static ALWAYS_INLINE void column_logits_add(struct column_logits *sums, size_t j, vf t, vf r)
{
    vf *lane = &sums->r[j % XENT_SLICE_LANES];
    sums->n = viadd(sums->n, visub(vbits(t), viset(rounder_bits - WINDOW_LOW)));
    *lane = vsub(j < XENT_SLICE_LANES ? vset(0.0f) : *lane, r);
}

static ALWAYS_INLINE void column_logits_end(const struct column_logits *sums, size_t classes, double *D)
{
    const size_t lanes = column_logits_lanes(classes);
    vw sum[XENT_SLICE_LANES];
    for (size_t l = 0; l < lanes; ++l) {
        float lane[VW];
        vstore(lane, sums->r[l]);
        sum[l] = vw_widen(lane);
    }
    for (size_t half = XENT_SLICE_LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half && l + half < lanes; ++l)
            sum[l] = vw_plus(sum[l], sum[l + half]);
    int32_t n[VW];
    vistore(n, sums->n);
    vw_store(D, &sum[0]);
    for (int i = 0; i < VW; ++i)
        D[i] = (double)n[i] * XENT_LN2_16 - D[i];
}

/* What a pass over columns looks for: logits outside of the window, and those of the targets. */
struct found {
    vi stray;
    vf x_y;
};

/* The exponentials of columns j to j + count - 1, for a constant count <= 4. logits: NULL, or to be added to. */
static ALWAYS_INLINE void columns_exp_vectors(struct column_place at, size_t j, size_t count, vi target, vt powers,
                                              enum mode mode, vf ref, vf cut, vf e[4], struct found *found,
                                              struct column_logits *logits)
{
    vf z[4], t[4], r[4];
    load_columns(at, j, count, z);
    for (size_t i = 0; i < count; ++i) {
        found->x_y = vreplace_where(found->x_y, target, (int)(j + i), z[i]);
        z[i] = measured(z[i], mode, ref);
        t[i] = exp_round(unmask(z[i], mode, cut));
    }
    for (size_t i = 0; i < count; i += 2)
        found->stray = vior(found->stray, vstray(t[i], t[i + 1 < count ? i + 1 : i], rounder_bits));
    for (size_t i = 0; i < count; ++i)
        r[i] = exp_reduce(unmask(z[i], mode, cut), t[i]);
    for (size_t i = 0; logits && i < count; ++i)
        column_logits_add(logits, j + i, t[i], r[i]);
    for (size_t i = 0; i < count; ++i)
        e[i] = remask(exp_polynomial(vtable(powers, t[i]), r[i]), z[i], mode, cut);
    for (size_t i = 0; i < count; ++i)
        e[i] = vdrop_where(e[i], target, (int)(j + i));
}

/* The same to where they are kept. */
static ALWAYS_INLINE void columns_exp_some(struct column_place at, size_t j, size_t count, vi target, vt powers,
                                           enum mode mode, vf ref, vf cut, struct columns *c, struct found *found,
                                           struct column_logits *logits)
{
    vf e[4];
    columns_exp_vectors(at, j, count, target, powers, mode, ref, cut, e, found, logits);
    for (size_t i = 0; i < count; ++i)
        vstore(c->f[j + i], e[i]);
}

static ALWAYS_INLINE bool is_found_in_window(const struct found *found)
{
    return !vany(found->stray, ~(WINDOW_SIZE - 1));
}

/* The exponentials themselves, of the logits as they are (WINDOW) or in each row's frame (FAR_MASKED). False if one
   does not lie in the window; then there are none. logits: NULL, or, in the window, receives their sums. */
static ALWAYS_INLINE bool columns_exp(struct column_place at, size_t classes, const int32_t *y, enum mode mode,
                                      const float *ref, const float *cut, struct ahead ahead, struct columns *c,
                                      struct column_logits *logits)
{
    if (logits)
        logits->n = viset(0);
    const vi target = viload(y);
    const vt powers = vt_load(table);
    const vf vref = vload(ref), vcut = vload(cut);
    struct found found = {viset(0), vload(at.x_y)};
    size_t j = 0;
    for (; j + 4 <= classes; j += 4) {
        prefetch_columns(at, j, 4, ahead);
        columns_exp_some(at, j, 4, target, powers, mode, vref, vcut, c, &found, logits);
    }
    prefetch_columns(at, j, classes - j, ahead);
    if (classes - j == 3)
        columns_exp_some(at, j, 3, target, powers, mode, vref, vcut, c, &found, logits);
    else if (classes - j == 2)
        columns_exp_some(at, j, 2, target, powers, mode, vref, vcut, c, &found, logits);
    else if (classes - j == 1)
        columns_exp_some(at, j, 1, target, powers, mode, vref, vcut, c, &found, logits);
    vstore(at.x_y, found.x_y);
    return is_found_in_window(&found);
}

/* What lane l < classes of a row comes to, in all rows: classes l, l + 32, ... */
static ALWAYS_INLINE vd columns_lane(const struct columns *c, size_t classes, size_t l)
{
    vd lane = vd_widen(vload(c->f[l]));
    for (size_t j = l + XENT_LANES; j < classes; j += XENT_LANES)
        vd_add(&lane, vload(c->f[j]));
    return lane;
}

/* Lanes l, l + 8, l + 16 and l + 24, for l < 8, folded as ever. Lanes without a class add nothing. */
static ALWAYS_INLINE vd columns_four_lanes(const struct columns *c, size_t classes, size_t l)
{
    vd sum = columns_lane(c, classes, l);
    if (l + 16 < classes)
        sum = vd_plus(sum, columns_lane(c, classes, l + 16));
    if (l + 24 < classes)
        return vd_plus(sum, vd_plus(columns_lane(c, classes, l + 8), columns_lane(c, classes, l + 24)));
    return l + 8 < classes ? vd_plus(sum, columns_lane(c, classes, l + 8)) : sum;
}

/* Of these, l and l + 4. */
static ALWAYS_INLINE vd columns_eight_lanes(const struct columns *c, size_t classes, size_t l)
{
    const vd sum = columns_four_lanes(c, classes, l);
    return l + 4 < classes ? vd_plus(sum, columns_four_lanes(c, classes, l + 4)) : sum;
}

/* The sums, folded lane l + 16 to l, then l + 8, l + 4, l + 2, l + 1: by no array, so that all stays in registers. */
static ALWAYS_INLINE void columns_sum(const struct columns *c, size_t classes, double *others)
{
    vd sum = columns_eight_lanes(c, classes, 0);
    if (classes > 2)
        sum = vd_plus(sum, columns_eight_lanes(c, classes, 2));
    if (classes > 1) {
        vd odd = columns_eight_lanes(c, classes, 1);
        if (classes > 3)
            odd = vd_plus(odd, columns_eight_lanes(c, classes, 3));
        sum = vd_plus(sum, odd);
    }
    vd_get(&sum, others);
    for (int i = 0; i < VW; ++i)
        others[i] *= 0x1p896;
}

/* What is taken off each row's gradients: B w_j, and N q_j. B NULL: not the former; w NULL: all 1; q NULL: not the
   latter; N_hi NULL: q_j itself. */
struct column_taking {
    const float *B, *w;
    const float *N_hi, *N_lo;
    const float (*q)[VW];
};

static ALWAYS_INLINE void take_columns(struct column_taking take, size_t j, size_t count, vf *g)
{
    for (size_t i = 0; take.B && i < count; ++i)
        g[i] = vsub(g[i], take.w ? vmul(vset(take.w[j + i]), vload(take.B)) : vload(take.B));
    for (size_t i = 0; take.q && i < count; ++i) {
        const vf q = vload(take.q[j + i]);
        g[i] = take.N_hi ? vfnma(q, vload(take.N_lo), vfnma(q, vload(take.N_hi), g[i])) : vsub(g[i], q);
    }
}

/* In planes a target's gradient is put where it belongs while its column is at hand: a store to a plane that has left
   the first-level cache, as the many that lie a power of two apart drive each other out of it, takes longer than all
   else. */
static ALWAYS_INLINE vf with_target(vf g, const int32_t *y, size_t j, struct column_place at)
{
    return at.is_rows ? g : vreplace_where(g, viload(y), (int)j, vload(at.target_gradient));
}

/* Columns j to j + count - 1 of columns_scale, for a constant count <= 4. */
static ALWAYS_INLINE void columns_scale_some(const struct columns *c, size_t j, size_t count, const int32_t *y, vf hi,
                                             vf lo, struct column_taking take, struct column_place at)
{
    vf g[4];
    for (size_t i = 0; i < count; ++i) {
        const vf e = vload(c->f[j + i]);
        g[i] = vfma(e, hi, vmul(e, lo));
    }
    take_columns(take, j, count, g);
    for (size_t i = 0; i < count; ++i)
        g[i] = with_target(g[i], y, j + i, at);
    for (size_t i = count; i < 4; ++i)
        g[i] = g[0];
    store_columns(at, j, count, g);
}

/* g = e (hi + lo) 2^exponent, for is_plain(exponent) in every lane; hi and lo have the power of two in them. */
static ALWAYS_INLINE void columns_scale(const struct columns *c, size_t classes, const int32_t *y, const float *hi,
                                        const float *lo, struct column_taking take, struct column_place at)
{
    const vf vhi = vload(hi), vlo = vload(lo);
    size_t j = 0;
    for (; j + 4 <= classes; j += 4)
        columns_scale_some(c, j, 4, y, vhi, vlo, take, at);
    if (classes - j == 3)
        columns_scale_some(c, j, 3, y, vhi, vlo, take, at);
    else if (classes - j == 2)
        columns_scale_some(c, j, 2, y, vhi, vlo, take, at);
    else if (classes - j == 1)
        columns_scale_some(c, j, 1, y, vhi, vlo, take, at);
}

/* The largest logit of each row, leaving out any NaN. */
static ALWAYS_INLINE void columns_max(struct column_place at, size_t classes, float *max)
{
    vf largest = vset(-INFINITY);
    for (size_t j = 0; j < classes; j += 4) {
        vf z[4];
        load_columns(at, j, columns_left(classes, j), z);
        for (size_t i = 0; i < columns_left(classes, j); ++i)
            largest = vmax(z[i], largest);
    }
    vstore(max, largest);
}

/* Exponentials in any frame. */
static NOINLINE void columns_exp_wide(struct column_place at, size_t classes, const int32_t *y, const float *ref,
                                      const float *cut, struct columns *c)
{
    const vi target = viload(y);
    for (size_t j = 0; j < classes; j += 4) {
        vf z[4];
        load_columns(at, j, columns_left(classes, j), z);
        for (int i = 0; i < 4; ++i) {
            vi n;
            const vf f = exp_wide(z[i], vload(ref), vload(cut), &n);
            vstore(c->f[j + (size_t)i], vdrop_where(f, target, (int)j + i));
            vistore(c->n[j + (size_t)i], n);
        }
    }
}

/* The sums of rows from their lanes, of which so many have a class. */
static ALWAYS_INLINE void fold_column_lanes(double (*lane)[VW], size_t lanes, double *result)
{
    for (size_t half = XENT_LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half && l + half < lanes; ++l) {
            const vw sum = vw_plus(vw_load(lane[l]), vw_load(lane[l + half]));
            vw_store(lane[l], &sum);
        }
    memcpy(result, lane[0], sizeof lane[0]);
}

static void columns_sum_wide(const struct columns *c, size_t classes, double *others)
{
    double lane[XENT_LANES][VW];
    for (size_t j = 0; j < classes; ++j)
        for (int i = 0; i < VW; ++i) {
            const double e = (double)c->f[j][i] * f64_pow2(c->n[j][i]);
            lane[j % XENT_LANES][i] = (j < XENT_LANES ? 0 : lane[j % XENT_LANES][i]) + e;
        }
    fold_column_lanes(lane, classes, others);
}

static NOINLINE void columns_scale_wide(const struct columns *c, size_t classes, const int32_t *y,
                                        const int32_t *exponent, const float *hi, const float *lo,
                                        struct column_taking take, struct column_place at)
{
    for (size_t j = 0; j < classes; j += 4) {
        vf g[4];
        for (size_t i = 0; i < 4; ++i)
            g[i] = multiply_wide(vload(c->f[j + i]), viload(c->n[j + i]), viload(exponent), vload(hi), vload(lo));
        take_columns(take, j, columns_left(classes, j), g);
        for (size_t i = 0; i < 4; ++i)
            g[i] = with_target(g[i], y, j + i, at);
        store_columns(at, j, columns_left(classes, j), g);
    }
}

#endif
