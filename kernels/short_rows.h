/*
 * Part of kernels/algorithm.h: rows of few classes, a whole batch of them by the columns of columns.h, a block being a
 * vector's worth of rows.
 */
#ifndef XENT_KERNELS_SHORT_ROWS_H
#define XENT_KERNELS_SHORT_ROWS_H

enum { FRAMED_BLOCKS = 32 }; /* so many are not tried in the window after one that did not fit */

/* Finds the frames of a block of rows from at on. */
static ALWAYS_INLINE void find_frames(struct batch *b, int at, struct column_place place)
{
    float max[VW];
    columns_max(place, b->classes, max);
    for (int i = 0; i < VW; ++i) {
        b->finite[at + i] = row_is_finite(max[i]);
        const struct frame frame = b->finite[at + i] ? row_frame(max[i]) : near_frame;
        b->ref[at + i] = frame.ref;
        b->cut[at + i] = frame.cut;
    }
}

/* The exponentials and sums of a block of rows from at on. Returns whether all are in the window. D: NULL, or receives
   the sums of the logits. framed: whether rows like these have lately needed their frames. */
static ALWAYS_INLINE bool sum_block(struct batch *b, int at, struct column_place place, const int32_t *y,
                                    struct ahead ahead, struct columns *c, double *D, int *framed)
{
    const float *ref = b->ref + at, *cut = b->cut + at;
    struct column_logits logits;
    if (*framed == 0 && columns_exp(place, b->classes, y + at, WINDOW, ref, cut, ahead, c, D ? &logits : NULL)) {
        columns_sum(c, b->classes, b->others + at);
        if (D)
            column_logits_end(&logits, b->classes, D + at);
        return true;
    }
    *framed = *framed == 0 ? FRAMED_BLOCKS : *framed - 1;
    find_frames(b, at, place);
    if (D)
        columns_logit_sum(place, b->classes, D + at);
    if (columns_exp(place, b->classes, y + at, FAR_MASKED, ref, cut, ahead, c, NULL)) {
        columns_sum(c, b->classes, b->others + at);
        return true;
    }
    columns_exp_wide(place, b->classes, y + at, ref, cut, c);
    columns_sum_wide(c, b->classes, b->others + at);
    for (int i = at; i < at + VW; ++i)
        b->finite[i] = b->finite[i] && b->others[i] == b->others[i] && b->x_y[i] == b->x_y[i];
    return false;
}

/* Gives hi and lo of a block the powers of two of their plain exponents. */
static ALWAYS_INLINE void put_powers(struct batch *b, int at)
{
    const vf unit = vfrom_bits(vishl(viadd(viload(b->exponent + at), viset(127)), 23));
    vstore(b->hi + at, vmul(vload(b->hi + at), unit));
    vstore(b->lo + at, vmul(vload(b->lo + at), unit));
}

/* Whether the exponentials of a block, which sum_block left in the window or not, can be multiplied plainly: then hi
   and lo get their powers of two; otherwise exponentials from the window are formed again, apart from theirs. */
static ALWAYS_INLINE bool prepare_scale(struct batch *b, int at, struct column_place place, const int32_t *y,
                                        bool in_window, struct columns *c)
{
    const bool plain = in_window && are_plain(viload(b->exponent + at));
    if (plain)
        put_powers(b, at);
    if (in_window && !plain)
        columns_exp_wide(place, b->classes, y + at, b->ref + at, b->cut + at, c);
    return plain;
}

static ALWAYS_INLINE void scale_block(const struct batch *b, int at, struct column_place place, const int32_t *y,
                                      bool plain, struct column_taking take, const struct columns *c)
{
    if (plain)
        columns_scale(c, b->classes, y + at, b->hi + at, b->lo + at, take, place);
    else
        columns_scale_wide(c, b->classes, y + at, b->exponent + at, b->hi + at, b->lo + at, take, place);
}

/* Whether a batch's rows, as far as its first two can tell, have no wider gaps than they are long. */
static ALWAYS_INLINE bool are_close(const struct batch *b)
{
    const size_t most = 2 * b->classes;
    return (size_t)(b->x[1] - b->x[0]) <= most && (!b->out[0] || (size_t)(b->out[1] - b->out[0]) <= most);
}

/* usual: of up to 64 classes and close, by code that knows it. */
static ALWAYS_INLINE bool sum_block_of_rows_inline(struct batch *b, int at, const int32_t *y, struct columns *c,
                                                   double *D, bool usual, bool early, int *framed)
{
    const bool apart = b->out[0] && b->out[0] != b->x[0];
    const bool in_order = usual || are_close(b);
    const size_t rows = in_order ? (size_t)columns_rows(b) : BATCH;
    /* The second row may lie before the first one; and then there is nothing to expect of the next. */
    const size_t next = b->x[1] > b->x[0] ? rows * (size_t)(b->x[1] - b->x[0]) : 0;
    const struct ahead ahead = {
        .next = next,
        .far = usual || b->classes <= 64 || next == 0 ? 0 : short_rows_ahead(early, next),
        .in_order = in_order,
        .out = apart ? b->out + at : NULL,
    };
    struct column_place place = columns_of_rows(b->x + at, b->out + at);
    place.x_y = b->x_y + at;
    return sum_block(b, at, place, y, ahead, c, D, framed);
}

static NOINLINE bool sum_block_of_usual_rows(struct batch *b, int at, const int32_t *y, struct columns *c, int *framed)
{
    return sum_block_of_rows_inline(b, at, y, c, NULL, true, false, framed);
}

static NOINLINE bool sum_block_of_other_rows(struct batch *b, int at, const int32_t *y, struct columns *c, bool early,
                                             int *framed)
{
    return sum_block_of_rows_inline(b, at, y, c, NULL, false, early, framed);
}

static NOINLINE bool sum_block_of_rows_even(struct batch *b, int at, const int32_t *y, struct columns *c, bool early,
                                            int *framed)
{
    return sum_block_of_rows_inline(b, at, y, c, b->D, false, early, framed);
}

static ALWAYS_INLINE bool sum_block_of_rows(struct batch *b, int at, const int32_t *y, struct columns *c, bool even,
                                            bool early, int *framed)
{
    if (even)
        return sum_block_of_rows_even(b, at, y, c, early, framed);
    return b->classes <= 64 && are_close(b) ? sum_block_of_usual_rows(b, at, y, c, framed)
                                            : sum_block_of_other_rows(b, at, y, c, early, framed);
}

/* Rows that only fill it up are the first one again. */
static ALWAYS_INLINE void fill_up(struct batch *b, enum target target)
{
    const size_t rows = (size_t)columns_rows(b);
    for (size_t i = b->count; i < rows; ++i) {
        b->row[i] = b->row[0];
        b->x[i] = b->x[0];
        b->out[i] = b->out[0];
        b->y[i] = b->y[0];
        b->own[i] = b->own[0];
        b->scale[i] = b->scale[0];
        b->even[i] = b->even[0];
        b->w_y[i] = b->w_y[0];
        if (target == DISTRIBUTION) {
            b->x_y[i] = b->x_y[0];
            b->q[i] = b->q[0];
            b->pivot[i] = b->pivot[0];
            b->rest[i] = b->rest[0];
            b->moved[i] = b->moved[0];
        }
    }
}

struct column_room {
    float f[COLUMNS_ROOM];
    union {
        int32_t n[COLUMNS_ROOM];
        float packed[COLUMNS_ROOM]; /* exponentials of packed_rows.h, which need no n */
    };
} __attribute__((aligned(64)));

static ALWAYS_INLINE float *packed_of_block(struct column_room *room, size_t classes, size_t block)
{
    return room->packed + VW * columns_at(classes, block);
}

/* Whether what is taken off gradients has an even share in it. */
static ALWAYS_INLINE bool is_smoothed(const struct xent_job *job, enum target target)
{
    return target == SMOOTHED_TARGET || (target == DISTRIBUTION && job->smoothing > 0);
}

static ALWAYS_INLINE void take_probabilities(struct column_taking *take, const struct column_shares *shares,
                                             const struct xent_job *job)
{
    take->q = (const float(*)[VW])shares->q;
    take->N_hi = job->class_weights ? NULL : shares->N_hi;
    take->N_lo = shares->N_lo;
}

/* Rows of few classes by columns, a constant number of them. Everything is read before anything is written. shares
   NULL: no probabilities. */
static ALWAYS_INLINE void run_columns_of(struct batch *b, const struct xent_job *job, enum target target, int rows,
                                         struct column_shares *shares, int *framed, struct column_room *room)
{
    const int blocks = rows / VW;
    struct columns columns[BATCH / VW];
    bool packed[BATCH / VW], plain[BATCH / VW];
    int32_t y[BATCH];
    for (int k = 0; k < blocks; ++k)
        columns[k] = columns_of_block(room->f, room->n, b->classes, (size_t)k);
    /* A loop for each array becomes vector stores. */
    for (int i = 0; i < rows; ++i)
        y[i] = (int32_t)b->y[i];
    for (int i = 0; target != DISTRIBUTION && i < rows; ++i)
        b->x_y[i] = 0; /* until it is found */
    for (int i = 0; i < rows; ++i)
        b->ref[i] = near_frame.ref;
    for (int i = 0; i < rows; ++i)
        b->cut[i] = near_frame.cut;
    for (int i = 0; i < rows; ++i)
        b->finite[i] = true;
    const bool smooth = is_smoothed(job, target);
    const bool may_pack = !smooth && target != DISTRIBUTION && has_packed_rows(job);
    for (int k = 0; k < blocks; ++k) {
        packed[k] = may_pack && *framed == 0 && is_packed(b, k * VW) &&
                    sum_packed(b, k * VW, y, is_early(job), &columns[k], packed_of_block(room, b->classes, (size_t)k));
        plain[k] = packed[k] ||
                   sum_block_of_rows(b, k * VW, y, &columns[k], smooth && !job->class_weights, is_early(job), framed);
    }
    for (int k = 0; smooth && job->class_weights && k < blocks; ++k)
        columns_dot(columns_of_rows(b->x + k * VW, b->out + k * VW), b->classes, job->class_weights, b->D + k * VW);
    finish_rows(b, job, rows, target);
    store_losses(b, job);
    if (!b->out[0])
        return;
    for (int k = 0; k < blocks; ++k)
        plain[k] = prepare_scale(b, k * VW, columns_of_rows(b->x + k * VW, b->out + k * VW), y, plain[k], &columns[k]);
    float B[BATCH];
    for (int i = 0; smooth && i < rows; ++i)
        B[i] = f64_to_f32(b->scale[i] * b->even[i]);
    for (int k = 0; k < blocks; ++k) {
        if (packed[k] && plain[k]) {
            scale_packed(b, k * VW, is_early(job), packed_of_block(room, b->classes, (size_t)k));
            continue;
        }
        const struct column_place place = columns_of_rows(b->x + k * VW, b->out + k * VW);
        struct column_taking take = {.B = NULL};
        if (smooth) {
            take.B = B + k * VW;
            take.w = job->class_weights;
        }
        if (shares)
            take_probabilities(&take, &shares[k], job);
        scale_block(b, k * VW, place, y, plain[k], take, &columns[k]);
    }
    if (target == DISTRIBUTION && xent_job_has_labels(job) && !xent_job_has_plain_labels(job))
        subtract_labels(b, job);
    store_exceptions(b, target);
}

/* By code that knows how many. */
static ALWAYS_INLINE void run_some_columns(struct batch *b, const struct xent_job *job, enum target target,
                                           struct column_shares *shares, int *framed)
{
    struct column_room room;
    if (columns_rows(b) == BATCH / 2)
        run_columns_of(b, job, target, BATCH / 2, shares, framed, &room);
    else
        run_columns_of(b, job, target, BATCH, shares, framed, &room);
}

/* A function for each kind of target, so that none pays for another: a fifth of the time of 10 classes with AVX2. */
static NOINLINE void run_columns_none(struct batch *b, const struct xent_job *job, int *framed)
{
    fill_up(b, NO_TARGET);
    run_some_columns(b, job, NO_TARGET, NULL, framed);
}

static NOINLINE void run_columns_plain(struct batch *b, const struct xent_job *job, int *framed)
{
    fill_up(b, PLAIN_TARGET);
    run_some_columns(b, job, PLAIN_TARGET, NULL, framed);
}

static NOINLINE void run_columns_single(struct batch *b, const struct xent_job *job, int *framed)
{
    fill_up(b, SINGLE_TARGET);
    run_some_columns(b, job, SINGLE_TARGET, NULL, framed);
}

static NOINLINE void run_columns_smoothed(struct batch *b, const struct xent_job *job, int *framed)
{
    fill_up(b, SMOOTHED_TARGET);
    run_some_columns(b, job, SMOOTHED_TARGET, NULL, framed);
}

static NOINLINE void run_columns_distribution(struct batch *b, const struct xent_job *job, int *framed)
{
    fill_up(b, DISTRIBUTION);
    run_some_columns(b, job, DISTRIBUTION, NULL, framed);
}

/* What probabilities take off a block of rows from at on. Returns whether it is of a usual kind. */
static ALWAYS_INLINE bool find_taken(const struct batch *b, int at, const struct xent_job *job, struct column_shares *s)
{
    const struct taken alike = distribution_taken(job, b->row[at]);
    bool usual = alike.usual || job->class_weights;
    for (int i = 0; i < VW; ++i)
        s->N[i] = alike.N;
    vstore(s->N_hi, vset(alike.hi));
    vstore(s->N_lo, vset(alike.lo));
    for (int i = 0; (job->dloss || job->row_weights) && i < VW; ++i) {
        const struct taken taken = distribution_taken(job, b->row[at + i]);
        s->N[i] = taken.N;
        s->N_hi[i] = taken.hi;
        s->N_lo[i] = taken.lo;
        usual = usual && (taken.usual || job->class_weights);
    }
    return usual;
}

/* Adds probabilities to the distributions of a block of rows from at on, as add_probabilities does to one; from one
   class to the next it is x_stride, and for probabilities q_stride. Returns whether columns can take them. */
static ALWAYS_INLINE bool add_block_probabilities(struct batch *b, int at, const struct xent_job *job, size_t x_stride,
                                                  size_t q_stride, const struct column_shares *s)
{
    const struct xent_job known = *job; /* so that the loops need not read it again after each store */
    double named[VW], x[VW], w[VW], a[VW];
    for (int i = 0; i < VW; ++i)
        named[i] = distribution_named(&known, b->row[at + i]);
    for (int i = 0; i < VW; ++i) {
        const int32_t y = s->y[i];
        x[i] = y < 0 ? 0 : (double)b->x[at + i][(size_t)y * x_stride];
        w[i] = y < 0 ? 0 : xent_job_class_weight(&known, (size_t)y);
        a[i] = y < 0 ? 0 : (double)b->q[at + i][(size_t)y * q_stride] * w[i];
    }
    /* Without branches, so that it becomes vector code. */
    int64_t unusual = 0;
    for (int i = 0; i < VW; ++i) {
        const size_t row = (size_t)(at + i);
        struct distribution t = distribution_at(b, row, DISTRIBUTION);
        const struct dominant d = {(size_t)(int64_t)s->y[i], x[i], w[i], a[i]};
        distribution_add_probabilities(&t, named[i], d, s->Q[i], s->P[i]);
        const double multiplier = distribution_multiplier(&t);
        b->y[row] = (int64_t)t.y;
        b->x_y[row] = (float)t.x_y;
        b->w_y[row] = t.w_y;
        b->own[row] = t.own;
        b->rest[row] = t.rest;
        b->moved[row] = t.moved;
        const double size = f64_abs(a[i]) + f64_abs(s->Q[i]); /* also where named is 0 */
        unusual |= !(multiplier >= 0) | !multiplier_is_bounded(multiplier) | !(size < (double)INFINITY);
    }
    /* Nothing of B w_j is infinite, as what probabilities take off may be, too. */
    const bool smooth = known.smoothing != 0;
    for (int i = 0; smooth && i < VW; ++i) {
        const double B = b->scale[at + i] * b->even[at + i];
        unusual |= !(B >= EVEN_LEAST) | !(B <= EVEN_MOST) | !(B * known.weights_sum <= EVEN_MOST);
    }
    return unusual == 0;
}

/* Rows of probabilities, whose distributions are known only now. Returns whether they can be taken by columns;
   otherwise nothing has happened. */
static NOINLINE bool run_columns_probabilities(struct batch *b, const struct xent_job *job, int *framed)
{
    const int rows = columns_rows(b), blocks = rows / VW;
    float q[PROBABILITIES_ROOM] __attribute__((aligned(64)));
    struct column_shares shares[BATCH / VW];
    fill_up(b, DISTRIBUTION);
    for (int k = 0; k < blocks; ++k)
        shares[k].q = (float(*)[VW])q + columns_at(b->classes, (size_t)k);
    bool usual = true;
    for (int k = 0; k < blocks; ++k) {
        const int at = k * VW;
        columns_shares_of_rows(b->x + at, b->q + at, b->classes, job->class_weights, b->pivot + at, &shares[k]);
        usual = find_taken(b, at, job, &shares[k]) && add_block_probabilities(b, at, job, 1, 1, &shares[k]) && usual;
    }
    if (!usual) {
        find_pivots(b, job);
        return false;
    }
    for (int k = 0; job->class_weights && k < blocks; ++k)
        columns_take_general(&shares[k], b->classes, job->class_weights);
    run_some_columns(b, job, DISTRIBUTION, shares, framed);
    return true;
}

static ALWAYS_INLINE void run_columns(struct batch *b, const struct xent_job *job, enum target target, int *framed)
{
    if (target == NO_TARGET)
        run_columns_none(b, job, framed);
    else if (target == PLAIN_TARGET)
        run_columns_plain(b, job, framed);
    else if (target == SINGLE_TARGET)
        run_columns_single(b, job, framed);
    else if (target == SMOOTHED_TARGET)
        run_columns_smoothed(b, job, framed);
    else
        run_columns_distribution(b, job, framed);
}

#endif
