/*
 * Part of kernels/algorithm.h: what target distributions need of a row beside its exponentials: the sum of w_j x_j, and
 * those over its probabilities. The latter are formed a slice at a time, while its logits are in the first-level cache
 * and not overwritten yet; the former along with the exponentials, where a kernel has the registers for it. Without
 * class weights it comes from what exponentials are made of.
 */
#ifndef XENT_KERNELS_SOFT_H
#define XENT_KERNELS_SOFT_H

enum { SLICE = XENT_SLICE, SLICE_VECTORS = XENT_SLICE_LANES / VW };

/* Sums over the classes so far, in the same lanes and chunks as that of the exponentials. */
struct lanes {
    double lane[XENT_LANES];
    double sum; /* of whole chunks */
};

static void lanes_fold(struct lanes *lanes)
{
    lanes->sum += f64_fold(lanes->lane, XENT_LANES);
    memset(lanes->lane, 0, sizeof lanes->lane);
}

/* D, the sum of w_j x_j, for class weights w. */
struct weighted_sum {
    const float *w;
    size_t chunk; /* classes */
    size_t next;  /* classes before it have been added */
    struct lanes D;
};

static void weighted_sum_start(struct weighted_sum *s, const float *w, size_t classes)
{
    static const struct lanes none;
    s->w = w;
    s->chunk = xent_chunk(classes);
    s->next = 0;
    s->D = none;
}

static ALWAYS_INLINE void weighted_sum_advance(struct weighted_sum *s, size_t next)
{
    s->next = next;
    if (next % s->chunk == 0)
        lanes_fold(&s->D);
}

static double weighted_sum_end(struct weighted_sum *s)
{
    if (s->next % s->chunk != 0)
        lanes_fold(&s->D);
    return s->D.sum;
}

/* What is summed over a row's logits with a probability each. */
struct dot {
    const float *w; /* class weights; NULL: all 1 */
    const float *q; /* a probability for every class */
    size_t y;       /* which is left out of the next two: the first dominant class so far, or NO_CLASS */
    float x_y;
    double pivot;
    struct lanes Q, P; /* of q_j w_j, and of q_j w_j (x_j - pivot) */
};

static void dot_start(struct dot *dot, const float *w, const float *q, double pivot)
{
    static const struct lanes none;
    dot->w = w;
    dot->q = q;
    dot->y = NO_CLASS;
    dot->pivot = pivot;
    dot->Q = dot->P = none;
}

/* Two vectors at a time, so that all sums stay in registers. */
enum { PAIR = 2 * VW };

/* Adds products of floats to their lanes, for whole groups of classes, and the factors to theirs. */
static ALWAYS_INLINE void sum_products_inline(double *lane, double *factor_lane, const float *x, const float *factor,
                                              size_t begin, size_t end)
{
    for (size_t first = 0; first < XENT_LANES; first += PAIR) {
        vw sum[2], factors[2];
        for (int v = 0; v < 2; ++v) {
            sum[v] = vw_load(lane + first + v * VW);
            if (factor_lane)
                factors[v] = vw_load(factor_lane + first + v * VW);
        }
        for (size_t j = begin + first; j < end; j += XENT_LANES)
            for (int v = 0; v < 2; ++v) {
                const vw f = vw_widen(factor + j + v * VW);
                sum[v] = vw_plus_exact(sum[v], f, vw_widen(x + j + v * VW));
                if (factor_lane)
                    factors[v] = vw_plus(factors[v], f);
            }
        for (int v = 0; v < 2; ++v) {
            vw_store(lane + first + v * VW, &sum[v]);
            if (factor_lane)
                vw_store(factor_lane + first + v * VW, &factors[v]);
        }
    }
}

static NOINLINE void sum_products(double *lane, const float *x, const float *factor, size_t begin, size_t end)
{
    sum_products_inline(lane, NULL, x, factor, begin, end);
}

static NOINLINE void sum_shares(double *lane, double *factor_lane, const float *x, const float *factor, size_t begin,
                                size_t end)
{
    sum_products_inline(lane, factor_lane, x, factor, begin, end);
}

/* A factor of 0 makes a NaN of a logit of -inf. */
static bool has_nan(const double *lane)
{
    int nan = 0;
    for (int l = 0; l < XENT_LANES; ++l)
        nan |= lane[l] != lane[l];
    return nan;
}

/* add_weighted in every case: a weight of 0 makes nothing of any logit. */
static NOINLINE void add_weighted_general(double *lane, const float *w, const float *x, size_t begin, size_t end)
{
    for (size_t j = begin; j < end; j += XENT_LANES)
        for (size_t l = 0; l < XENT_LANES && l < end - j; ++l) {
            const double w_l = (double)w[j + l];
            lane[l] += w_l != 0 ? w_l * (double)x[j + l] : 0;
        }
}

static ALWAYS_INLINE size_t whole_groups(size_t begin, size_t end)
{
    return begin + (end - begin) / XENT_LANES * XENT_LANES;
}

/* Adds w_j x_j for classes from begin (a multiple of 32) to end to their lanes. */
static void add_weighted(double *lane, const float *w, const float *x, size_t begin, size_t end)
{
    const size_t whole = whole_groups(begin, end);
    double before[XENT_LANES];
    memcpy(before, lane, sizeof before);
    sum_products(lane, x, w, begin, whole);
    if (has_nan(lane)) {
        memcpy(lane, before, sizeof before);
        add_weighted_general(lane, w, x, begin, whole);
    }
    add_weighted_general(lane, w, x, whole, end);
}

/* Adds the classes up to end that have not been added yet, wherever their logits lie. */
static NOINLINE void weighted_sum_until(struct weighted_sum *s, const float *x, size_t end)
{
    while (s->next < end) {
        const size_t chunk = (s->next | (s->chunk - 1)) + 1, stop = chunk < end ? chunk : end;
        add_weighted(s->D.lane, s->w, x, s->next, stop);
        weighted_sum_advance(s, stop);
    }
}

/* Q and P in every case: with class weights, or far from 0, and where a probability of 0 makes nothing of any logit. */
static NOINLINE void dot_span_general(struct dot *dot, const float *x, size_t begin, size_t end)
{
    double Q[XENT_LANES], P[XENT_LANES];
    memcpy(Q, dot->Q.lane, sizeof Q);
    memcpy(P, dot->P.lane, sizeof P);
    for (size_t j = begin; j < end; j += XENT_LANES) {
        const size_t count = end - j < XENT_LANES ? end - j : XENT_LANES;
        double a[XENT_LANES] = {0}, x_j[XENT_LANES] = {0};
        for (size_t l = 0; l < count; ++l) {
            a[l] = (double)dot->q[j + l] * (dot->w ? (double)dot->w[j + l] : 1);
            x_j[l] = (double)x[j + l];
        }
        if (dot->y - j < XENT_LANES)
            a[dot->y - j] = 0;
        for (size_t l = 0; l < XENT_LANES; ++l) {
            Q[l] += a[l];
            P[l] += a[l] != 0 ? a[l] * (x_j[l] - dot->pivot) : 0;
        }
    }
    memcpy(dot->Q.lane, Q, sizeof Q);
    memcpy(dot->P.lane, P, sizeof P);
}

static ALWAYS_INLINE bool any_dominant(vf q)
{
    return vany(vbits(vkeep_above(q, q, vset(DOMINANT))), -1);
}

/* Looks for the first dominant class, if that is not known yet. */
static void dot_find(struct dot *dot, const float *x, size_t begin, size_t end)
{
    if (dot->y != NO_CLASS)
        return;
    const float *q = dot->q;
    vf largest[4];
    for (int v = 0; v < 4; ++v)
        largest[v] = vset(0.0f);
    size_t j = begin;
    for (; end - j >= 4 * VW; j += 4 * VW)
        for (int v = 0; v < 4; ++v)
            largest[v] = vmax(vload(q + j + v * VW), largest[v]);
    for (; j < end; j += VW)
        largest[0] = vmax(load_left(q + j, end - j), largest[0]);
    if (!any_dominant(vmax(vmax(largest[0], largest[1]), vmax(largest[2], largest[3]))))
        return;
    for (j = begin; end - j >= VW && !any_dominant(vmax(vload(q + j), vset(0.0f))); j += VW)
        continue;
    while (!is_dominant((double)q[j]))
        ++j;
    dot->y = j;
    dot->x_y = x[j];
}

/* A group with y in it, or the end of one, as a group with zeros in it. */
static ALWAYS_INLINE void dot_padded(struct dot *dot, const float *x, size_t begin, size_t end)
{
    float logits[XENT_LANES] = {0}, q[XENT_LANES] = {0};
    memcpy(logits, x + begin, (end - begin) * sizeof *x);
    memcpy(q, dot->q + begin, (end - begin) * sizeof *q);
    if (dot->y - begin < XENT_LANES)
        logits[dot->y - begin] = q[dot->y - begin] = 0;
    sum_shares(dot->P.lane, dot->Q.lane, logits, q, 0, XENT_LANES);
}

/* Adds classes from begin (a multiple of 32) to end of one chunk to their lanes. */
static void dot_span(struct dot *dot, const float *x, size_t begin, size_t end)
{
    dot_find(dot, x, begin, end);
    if (dot->w || dot->pivot != 0) {
        dot_span_general(dot, x, begin, end);
        return;
    }
    const struct lanes Q = dot->Q, P = dot->P;
    const size_t whole = whole_groups(begin, end);
    const size_t group = dot->y >= begin && dot->y < whole ? whole_groups(begin, dot->y) : whole;
    sum_shares(dot->P.lane, dot->Q.lane, x, dot->q, begin, group);
    if (group < whole) {
        dot_padded(dot, x, group, group + XENT_LANES);
        sum_shares(dot->P.lane, dot->Q.lane, x, dot->q, group + XENT_LANES, whole);
    }
    if (whole < end)
        dot_padded(dot, x, whole, end);
    if (has_nan(dot->P.lane)) {
        dot->Q = Q;
        dot->P = P;
        dot_span_general(dot, x, begin, end);
    }
}

static void dot_fold(struct dot *dot)
{
    lanes_fold(&dot->Q);
    lanes_fold(&dot->P);
}

/* The sum of a row's logits, without class weights. A logit in the window is n ln(2)/16 + r with the n and r of its
   exponential: the n are added as integers, the r as floats, a slice at a time; only other logits as doubles. */
struct logit_lanes {
    vi n;                /* the sum of the bits of exp_round */
    vf r[SLICE_VECTORS]; /* the sum of -r: there is no addition of floats */
};

struct logit_sum {
    double sum;               /* of whole slices */
    size_t next;              /* classes before it have been added */
    struct logit_lanes lanes; /* of logits in the window ... */
    uint32_t vectors;         /* ... in so many vectors */
    vw rest[SLICE_VECTORS];   /* of other logits */
};

static ALWAYS_INLINE void logit_lanes_start(struct logit_lanes *lanes)
{
    lanes->n = viset(0);
    for (int v = 0; v < SLICE_VECTORS; ++v)
        lanes->r[v] = vset(0.0f);
}

/* Vector by vector: a struct may be copied in other parts, which would wait for the stores of these. */
static ALWAYS_INLINE void logit_lanes_move(struct logit_lanes *to, const struct logit_lanes *from)
{
    to->n = from->n;
    for (int v = 0; v < SLICE_VECTORS; ++v)
        to->r[v] = from->r[v];
}

/* Adds VW logits in the window, by the t and r of their exponentials, to lanes v VW and on. */
static ALWAYS_INLINE void logit_lanes_add(struct logit_lanes *lanes, size_t v, vf t, vf r)
{
    lanes->n = viadd(lanes->n, vbits(t));
    lanes->r[v % SLICE_VECTORS] = vsub(lanes->r[v % SLICE_VECTORS], r);
}

static void logit_sum_start_slice(struct logit_sum *s)
{
    static const double zeros[VW];
    s->vectors = 0;
    logit_lanes_start(&s->lanes);
    for (int v = 0; v < SLICE_VECTORS; ++v)
        s->rest[v] = vw_load(zeros);
}

static void logit_sum_start(struct logit_sum *s)
{
    s->sum = 0;
    s->next = 0;
    logit_sum_start_slice(s);
}

static NOINLINE void logit_sum_end_slice(struct logit_sum *s)
{
    int32_t n[VW];
    float r[XENT_SLICE_LANES];
    double r_lane[XENT_SLICE_LANES], rest[XENT_SLICE_LANES];
    vistore(n, s->lanes.n);
    for (int v = 0; v < SLICE_VECTORS; ++v) {
        vstore(r + v * VW, s->lanes.r[v]);
        vw_store(rest + v * VW, &s->rest[v]);
    }
    for (int l = 0; l < XENT_SLICE_LANES; ++l)
        r_lane[l] = (double)r[l];
    int32_t sum = 0;
    for (int l = 0; l < VW; ++l)
        sum += (int32_t)((uint32_t)n[l] - s->vectors * (uint32_t)(rounder_bits - WINDOW_LOW));
    s->sum += ((double)sum * XENT_LN2_16 - f64_fold(r_lane, XENT_SLICE_LANES)) + f64_fold(rest, XENT_SLICE_LANES);
    logit_sum_start_slice(s);
}

static ALWAYS_INLINE void logit_sum_advance(struct logit_sum *s, size_t next)
{
    s->next = next;
    if (next % SLICE == 0)
        logit_sum_end_slice(s);
}

/* Adds VW logits, or the first left of them, to lanes v VW and on. */
static ALWAYS_INLINE void logit_sum_vector(struct logit_sum *s, const float *x, size_t left, size_t v)
{
    vf z = load_left(x, left);
    vf t = exp_round(z);
    const vi stray = vstray(t, t, rounder_bits);
    if (vany(stray, ~(WINDOW_SIZE - 1))) {
        float rest[VW];
        const vi where = visar(stray, WINDOW_BITS);
        vstore(rest, vdrop_where(z, where, 0));
        s->rest[v % SLICE_VECTORS] = vw_plus(s->rest[v % SLICE_VECTORS], vw_widen(rest));
        z = vreplace_where(vset(0.0f), where, 0, z);
        t = exp_round(z);
    }
    logit_lanes_add(&s->lanes, v, t, exp_reduce(z, t));
    ++s->vectors;
}

/* Adds the classes up to end that have not been added yet, wherever their logits lie. */
static NOINLINE void logit_sum_until(struct logit_sum *s, const float *x, size_t end)
{
    while (s->next < end) {
        const size_t slice = (s->next | (SLICE - 1)) + 1, stop = slice < end ? slice : end;
        for (size_t j = s->next; j < stop; j += VW)
            logit_sum_vector(s, x + j, stop - j, j / VW);
        logit_sum_advance(s, stop);
    }
}

static double logit_sum_end(struct logit_sum *s)
{
    if (s->next % SLICE != 0)
        logit_sum_end_slice(s);
    return s->sum;
}

#endif
