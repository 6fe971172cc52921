/*
 * Part of kernels/algorithm.h: the hot loop of the first pass over a row, over whole steps of classes, and the code for
 * each of its uses.
 */
#ifndef XENT_KERNELS_ROW_STEPS_H
#define XENT_KERNELS_ROW_STEPS_H

enum { VECTORS = XENT_LANES / VW /* that hold one element of each lane: a group */ };

/* What a pass over a row reads and leaves. */
struct pass {
    const float *x;
    float *keep;            /* NULL, or receives the exponentials that are kept: x itself, or disjoint */
    size_t skip;            /* the class to leave out of the sum; none if not below the number of classes */
    float *x_skip;          /* NULL, or receives that class's logit before anything is kept in its place */
    struct dot *dot;        /* NULL, or receives the sums that a target distribution needs; its y is the one to skip */
    const float *beside;    /* NULL, or what is read along with the logits and brought nearer with them */
    struct logit_sum *even; /* NULL, or receives the sum of the logits; in the window along with the exponentials */
    bool overlap;           /* whether lines are to be fetched ahead by instructions */
    struct second *second;  /* NULL, or the second pass over another row, to be taken beside */
    enum second_kind kind;  /* its kind, in code that is for one kind only */
};

/* Adds the exponentials of whole steps of classes, from begin (a multiple of 32) to end, to their lanes. Stops before
   the first step with a logit that does not fit the mode, and returns how far it came. This is the loop that everything
   else exists to reach. */
static ALWAYS_INLINE size_t sum_steps_inline(struct pass pass, size_t begin, size_t end, vd *lanes,
                                             struct distance ahead, enum mode mode, struct frame frame)
{
    const vf ref = vset(frame.ref), cut = vset(frame.cut);
    vd sum[VECTORS];
    memcpy(sum, lanes, sizeof sum);
    vi even_n = viset(0);
    vf even_r[SLICE_VECTORS];
    for (int v = 0; v < SLICE_VECTORS; ++v)
        even_r[v] = pass.even ? pass.even->r[v] : vset(0.0f);
    const struct second *other = pass.second;
    float *out = other ? other->out : NULL;
    const float *along = other ? other->along : NULL;
    const float hi = other ? other->hi : 0, lo = other ? other->lo : 0, B = other ? other->B : 0;
    const struct taken shares = other ? other->shares : (struct taken){0};
    size_t j = begin;
    for (; j != end; j += STEP) {
        const float *x = pass.x + j;
        fetch_ahead(x, STEP, ahead);
        if (ahead.l2 && pass.keep && pass.keep != pass.x)
            fetch_ahead(pass.keep + j, STEP, writing);
        if (pass.beside)
            fetch_ahead(pass.beside + j, STEP, ahead);
        vf t[STEP / VW];
        for (int v = 0; v < STEP / VW; ++v)
            t[v] = exp_round(unmask(measured(vload(x + v * VW), mode, ref), mode, cut));
        vi stray = vstray(t[0], t[1], rounder_bits);
        for (int v = 2; v < STEP / VW; v += 2)
            stray = vior(stray, vstray(t[v], t[v + 1], rounder_bits));
        if (vany(stray, ~(WINDOW_SIZE - 1)))
            break;
        /* Four vectors side by side keep the multipliers busier than one after the other: 4 to 9 % of a forward. Stores
           between the additions, which the compiler must leave in order, would cost 14 % in place. */
        for (int v = 0; v < STEP / VW; v += 4) {
            vf z[4], r[4], e[4];
            for (int i = 0; i < 4; ++i) {
                z[i] = measured(vload(x + (v + i) * VW), mode, ref);
                r[i] = exp_reduce(unmask(z[i], mode, cut), t[v + i]);
            }
            for (int i = 0; pass.even && i < 4; ++i) {
                even_n = viadd(even_n, vbits(t[v + i]));
                even_r[(v + i) % SLICE_VECTORS] = vsub(even_r[(v + i) % SLICE_VECTORS], r[i]);
            }
            for (int i = 0; i < 4; ++i)
                e[i] = remask(exp_polynomial(vtable(table, t[v + i]), r[i]), z[i], mode, cut);
            for (int i = 0; i < 4; ++i)
                vd_add(&sum[(v + i) % VECTORS], e[i]);
            for (int i = 0; i < 4; ++i)
                if (pass.keep)
                    vstore(pass.keep + j + (v + i) * VW, e[i]);
        }
        if (other) {
            second_step(out, along, pass.kind, hi, lo, B, &shares);
            out += STEP;
            along = along ? along + STEP : NULL;
        }
    }
    memcpy(lanes, sum, sizeof sum);
    if (other)
        second_advance(pass.second, j - begin);
    if (pass.even) {
        pass.even->n = viadd(pass.even->n, even_n);
        pass.even->vectors += (uint32_t)((j - begin) / VW);
        for (int v = 0; v < SLICE_VECTORS; ++v)
            pass.even->r[v] = even_r[v];
        logit_sum_advance(pass.even, j);
    }
    return j;
}

/* Compiled apart for each use, so that nothing around it decides which registers it gets. */
static NOINLINE size_t sum_steps_forward(const float *x, size_t begin, size_t end, vd *lanes)
{
    return sum_steps_inline((struct pass){.x = x}, begin, end, lanes, no_fetch, WINDOW, near_frame);
}

static NOINLINE size_t sum_steps_in_place(float *x, size_t begin, size_t end, vd *lanes)
{
    return sum_steps_inline((struct pass){.x = x, .keep = x}, begin, end, lanes, in_place_fetch, WINDOW, near_frame);
}

static NOINLINE size_t sum_steps_apart(const float *x, float *keep, size_t begin, size_t end, vd *lanes)
{
    return sum_steps_inline((struct pass){.x = x, .keep = keep}, begin, end, lanes, no_fetch, WINDOW, near_frame);
}

/* With lines fetched ahead. */
static NOINLINE size_t sum_steps_ahead(const float *x, float *keep, size_t begin, size_t end, vd *lanes)
{
    if (!keep)
        return sum_steps_inline((struct pass){.x = x}, begin, end, lanes, overlapping, WINDOW, near_frame);
    if (keep == x)
        return sum_steps_inline((struct pass){.x = keep, .keep = keep}, begin, end, lanes, overlapping, WINDOW,
                                near_frame);
    return sum_steps_inline((struct pass){.x = x, .keep = keep}, begin, end, lanes, overlapping, WINDOW, near_frame);
}

/* With the sum of the logits. */
static NOINLINE size_t sum_steps_even(const float *x, float *keep, size_t begin, size_t end, vd *lanes,
                                      struct logit_sum *even, bool overlap)
{
    const struct distance ahead = overlap ? overlapping_even : keep == x ? in_place_fetch : no_fetch;
    if (!keep)
        return sum_steps_inline((struct pass){.x = x, .even = even}, begin, end, lanes, ahead, WINDOW, near_frame);
    if (keep == x)
        return sum_steps_inline((struct pass){.x = keep, .keep = keep, .even = even}, begin, end, lanes, ahead, WINDOW,
                                near_frame);
    return sum_steps_inline((struct pass){.x = x, .keep = keep, .even = even}, begin, end, lanes, ahead, WINDOW,
                            near_frame);
}

/* With other sums, which are the first to read a slice: while this one's exponentials are computed the next one comes
   from memory. */
static const struct distance slice_fetch = {SLICE, 0, false}, slice_overlapping = {SLICE, SLICE + 256, false};

static NOINLINE size_t sum_steps_slice(const float *x, float *keep, const float *beside, size_t begin, size_t end,
                                       vd *lanes, bool overlap)
{
    const struct distance ahead = overlap ? slice_overlapping : slice_fetch;
    if (!keep)
        return sum_steps_inline((struct pass){.x = x, .beside = beside}, begin, end, lanes, ahead, WINDOW, near_frame);
    return sum_steps_inline((struct pass){.x = x, .keep = keep, .beside = beside}, begin, end, lanes, ahead, WINDOW,
                            near_frame);
}

/* Each of these beside a second pass of its kind over another row, of which there is as much. */
static NOINLINE size_t sum_steps_beside(const float *x, float *keep, size_t begin, size_t end, vd *lanes,
                                        struct second *second)
{
    if (second->kind == AGAIN)
        return sum_steps_inline((struct pass){.x = x, .second = second, .kind = AGAIN}, begin, end, lanes, overlapping,
                                WINDOW, near_frame);
    if (keep == x)
        return sum_steps_inline((struct pass){.x = keep, .keep = keep, .second = second, .kind = SCALE}, begin, end,
                                lanes, overlapping, WINDOW, near_frame);
    return sum_steps_inline((struct pass){.x = x, .keep = keep, .second = second, .kind = SCALE}, begin, end, lanes,
                            overlapping, WINDOW, near_frame);
}

static NOINLINE size_t sum_steps_even_beside(const float *x, float *keep, size_t begin, size_t end, vd *lanes,
                                             struct logit_sum *even, struct second *second)
{
    return sum_steps_inline((struct pass){.x = x, .keep = keep, .even = even, .second = second, .kind = TAKE_EVEN},
                            begin, end, lanes, overlapping_even, WINDOW, near_frame);
}

static NOINLINE size_t sum_steps_slice_beside(const float *x, float *keep, const float *beside, size_t begin,
                                              size_t end, vd *lanes, struct second *second)
{
    if (second->kind == TAKE_WEIGHTED)
        return sum_steps_inline(
            (struct pass){.x = x, .keep = keep, .beside = beside, .second = second, .kind = TAKE_WEIGHTED}, begin, end,
            lanes, slice_overlapping, WINDOW, near_frame);
    return sum_steps_inline(
        (struct pass){.x = x, .keep = keep, .beside = beside, .second = second, .kind = TAKE_SHARES}, begin, end, lanes,
        slice_overlapping, WINDOW, near_frame);
}

/* Whether a second pass is one of those. Batches of one call may be of different kinds. */
static ALWAYS_INLINE bool goes_beside(struct pass pass)
{
    const enum second_kind kind = pass.second->kind;
    if (pass.even)
        return kind == TAKE_EVEN;
    if (pass.dot)
        return kind == TAKE_WEIGHTED || kind == TAKE_SHARES;
    return kind == (pass.keep ? SCALE : AGAIN);
}

static ALWAYS_INLINE size_t sum_steps(struct pass pass, size_t begin, size_t end, vd *lanes, enum mode mode,
                                      struct frame frame)
{
    if (begin == end)
        return end;
    if (mode != WINDOW)
        return sum_steps_inline((struct pass){.x = pass.x, .keep = pass.keep}, begin, end, lanes,
                                pass.overlap ? overlapping : no_fetch, mode, frame);
    const float *beside = !pass.dot ? NULL : pass.dot->q ? pass.dot->q : pass.dot->w;
    size_t j = begin;
    while (pass.second && goes_beside(pass) && pass.second->left >= STEP && j < end) {
        const size_t most = pass.second->left / STEP * STEP, stop = end - j < most ? end : j + most;
        j = pass.even  ? sum_steps_even_beside(pass.x, pass.keep, j, stop, lanes, pass.even, pass.second)
            : pass.dot ? sum_steps_slice_beside(pass.x, pass.keep, beside, j, stop, lanes, pass.second)
                       : sum_steps_beside(pass.x, pass.keep, j, stop, lanes, pass.second);
        if (j < stop)
            return j;
        if (pass.second->left < STEP && pass.second->parted)
            second_target(pass.second);
    }
    if (j == end)
        return end;
    if (pass.even)
        return sum_steps_even(pass.x, pass.keep, j, end, lanes, pass.even, pass.overlap);
    if (pass.dot)
        return sum_steps_slice(pass.x, pass.keep, beside, j, end, lanes, pass.overlap);
    if (pass.overlap)
        return sum_steps_ahead(pass.x, pass.keep, j, end, lanes);
    if (!pass.keep)
        return sum_steps_forward(pass.x, j, end, lanes);
    return pass.keep == pass.x ? sum_steps_in_place(pass.keep, j, end, lanes)
                               : sum_steps_apart(pass.x, pass.keep, j, end, lanes);
}

#endif
