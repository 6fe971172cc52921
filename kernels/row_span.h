/*
 * Part of kernels/algorithm.h: the first pass over a part of a row: the hot loop over whole steps of classes, the
 * groups that it leaves out, and the code for each of their uses.
 */
#ifndef XENT_KERNELS_ROW_SPAN_H
#define XENT_KERNELS_ROW_SPAN_H

enum {
    VECTORS = XENT_LANES / VW, /* that hold one element of each lane: a group */
    SUMS_IN_MEMORY = VW == 8,  /* 16 registers are too few for them, and a compiler would copy them to and fro */
    WEIGHTED_ALONG = VW == 16  /* there are registers for sums of w_j x_j beside them */
};

/* What a pass over a row reads and leaves. */
struct pass {
    const float *x;
    float *keep;            /* NULL, or receives the exponentials that are kept: x itself, or disjoint */
    size_t skip;            /* the class to leave out of the sum; none if not below the number of classes */
    float *x_skip;          /* receives that class's logit before anything is kept in its place */
    struct dot *dot;        /* NULL, or receives the sums that probabilities need; its y is the one to skip */
    const float *beside;    /* NULL, or what is read along with the logits and brought nearer with them */
    struct logit_sum *even; /* NULL, or receives the sum of the logits; in the window along with the exponentials */
    struct weighted_sum *weighted; /* NULL, or receives that of the logits times class weights */
    bool overlap;                  /* whether lines are to be fetched ahead by instructions */
    enum xent_fetch fetch;         /* and how */
    struct second *second;         /* NULL, or the second pass over another row, to be taken beside */
    enum second_kind kind;         /* its kind, in code that is for one kind only */
};

static ALWAYS_INLINE void zero_lanes(vd *lanes)
{
    for (int v = 0; v < VECTORS; ++v)
        vd_zero(&lanes[v]);
}

/* Bits of 32 lanes that leave out one of them, or none if that is 32 or more. */
static ALWAYS_INLINE const int32_t *all_lanes_but(size_t lane)
{
#define ONES -1, -1, -1, -1, -1, -1, -1
    static const int32_t bits[2 * XENT_LANES] = {ONES, ONES, ONES, ONES, -1,   -1, -1, -1,
                                                 0,    ONES, ONES, ONES, ONES, -1, -1, -1};
#undef ONES
    return bits + XENT_LANES - (lane < XENT_LANES ? lane : XENT_LANES);
}

/* Adds the exponentials of so many classes from j on, whole groups, to their lanes; but that of the class to skip, if
   it may be among them. Returns whether all logits fit the mode; otherwise nothing has happened. */
static ALWAYS_INLINE bool sum_step(struct pass pass, size_t j, size_t classes, const int32_t *lanes, vt powers, vd *sum,
                                   struct logit_lanes *even, vw *D, enum mode mode, struct frame frame)
{
    const vf ref = vset(frame.ref), cut = vset(frame.cut);
    const float *x = pass.x + j;
    const size_t vectors = classes / VW, abreast = vectors < 4 ? vectors : 4;
    vf t[STEP / VW];
    for (size_t v = 0; v < vectors; ++v)
        t[v] = exp_round(unmask(measured(vload(x + v * VW), mode, ref), mode, cut));
    vi stray = vstray(t[0], t[1], rounder_bits);
    for (size_t v = 2; v < vectors; v += 2)
        stray = vior(stray, vstray(t[v], t[v + 1], rounder_bits));
    if (vany(stray, ~(WINDOW_SIZE - 1)))
        return false;
    /* Four vectors side by side keep the multipliers busier than one after the other: 4 to 9 % of a forward. Stores
       between the additions, which the compiler must leave in order, would cost 14 % in place. */
    for (size_t v = 0; v < vectors; v += abreast) {
        vf z[4], r[4], e[4];
        for (size_t i = 0; i < abreast; ++i) {
            z[i] = measured(vload(x + (v + i) * VW), mode, ref);
            r[i] = exp_reduce(unmask(z[i], mode, cut), t[v + i]);
        }
        for (size_t i = 0; pass.even && i < abreast; ++i)
            logit_lanes_add(even, v + i, t[v + i], r[i]);
        for (size_t i = 0; pass.weighted && i < abreast; ++i)
            D[(v + i) % VECTORS] = vw_plus_exact(D[(v + i) % VECTORS], vw_widen(pass.weighted->w + j + (v + i) * VW),
                                                 vw_widen(x + (v + i) * VW));
        for (size_t i = 0; i < abreast; ++i)
            e[i] = remask(exp_polynomial(vtable(powers, t[v + i]), r[i]), z[i], mode, cut);
        for (size_t i = 0; i < abreast; ++i)
            vd_add(&sum[(v + i) % VECTORS], lanes ? vand(e[i], lanes + (v + i) * VW) : e[i]);
        for (size_t i = 0; i < abreast; ++i)
            if (pass.keep)
                vstore(pass.keep + j + (v + i) * VW, e[i]);
    }
    return true;
}

/* The same for a last group, of which only the first count classes exist, or all. */
static ALWAYS_INLINE bool sum_tail(struct pass pass, size_t j, size_t count, vt powers, vd *sum,
                                   struct logit_lanes *even, vw *D, enum mode mode, struct frame frame)
{
    const vf ref = vset(frame.ref), cut = vset(frame.cut);
    vf e[VECTORS], t[VECTORS], r[VECTORS];
    for (size_t v = 0; v < VECTORS; ++v)
        e[v] = t[v] = r[v] = vset(0.0f);
    vi stray = viset(0);
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        const size_t left = count - v * VW;
        vf z = measured(load_left(pass.x + j + v * VW, left), mode, ref);
        if (mode == FAR || mode == FAR_MASKED)
            z = vkeep_first(z, left); /* -ref where there is no class */
        const vf in_window = unmask(z, mode, cut);
        t[v] = exp_round(in_window);
        r[v] = exp_reduce(in_window, t[v]);
        stray = vior(stray, vstray(t[v], t[v], rounder_bits));
        e[v] = remask(exp_polynomial(vtable(powers, t[v]), r[v]), z, mode, cut);
        e[v] = vkeep_first(e[v], left);
    }
    if (vany(stray, ~(WINDOW_SIZE - 1)))
        return false;
    for (size_t v = 0; pass.even && v < VECTORS && v * VW < count; ++v)
        logit_lanes_add(even, v, t[v], r[v]);
    for (size_t v = 0; pass.weighted && v < VECTORS && v * VW < count; ++v) {
        float x[VW], w[VW];
        vstore(x, load_left(pass.x + j + v * VW, count - v * VW));
        vstore(w, load_left(pass.weighted->w + j + v * VW, count - v * VW));
        D[v] = vw_plus_exact(D[v], vw_widen(w), vw_widen(x));
    }
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        if (pass.keep)
            store_left(pass.keep + j + v * VW, e[v], count - v * VW);
        vd_add(&sum[v], vand(e[v], all_lanes_but(pass.skip - j) + v * VW));
    }
    return true;
}

/* Whole steps from begin to end, none with the class to skip. Stops before the first one with a logit that does not fit
   the mode, and returns how far it came. This is the loop that everything else exists to reach. */
static ALWAYS_INLINE size_t sum_steps(struct pass pass, size_t begin, size_t end, vt powers, vd *sum,
                                      struct logit_lanes *even, vw *D, struct second *other, struct distance ahead,
                                      enum mode mode, struct frame frame)
{
    size_t j = begin;
    for (; j != end; j += STEP) {
        fetch_ahead(pass.x + j, STEP, ahead);
        for (size_t i = 0; ahead.written && pass.keep && pass.keep != pass.x && i < STEP; i += LINE)
            prefetch(pass.keep + j + ahead.written + i);
        if (pass.beside)
            fetch_ahead(pass.beside + j, STEP, ahead);
        if (!sum_step(pass, j, STEP, NULL, powers, sum, even, D, mode, frame))
            break;
        if (pass.second) {
            second_step(other->out, other->along, pass.kind, other->hi, other->lo, other->B, &other->shares, ahead);
            second_advance(other, STEP);
        }
    }
    return j;
}

/* Whole groups from begin to end, both multiples of 32. Stops before the first step or group with a logit that does not
   fit the mode, or where the second pass beside has no whole step left, and returns how far it came. */
static ALWAYS_INLINE size_t sum_groups(struct pass pass, size_t begin, size_t end, vt powers, vd *sum,
                                       struct logit_lanes *even, vw *D, struct second *other, struct distance ahead,
                                       enum mode mode, struct frame frame)
{
    size_t target = pass.skip >= begin && pass.skip < end ? pass.skip / XENT_LANES * XENT_LANES : end;
    size_t j = begin;
    for (;;) {
        const size_t steps = (target - j) / STEP * STEP, most = pass.second ? other->left / STEP * STEP : steps;
        const size_t stop = j + (steps < most ? steps : most);
        if (j < stop)
            j = sum_steps(pass, j, stop, powers, sum, even, D, other, ahead, mode, frame);
        if (j < stop || most < steps || j == end)
            return j;
        const bool here = (size_t)STEP == (size_t)XENT_LANES || j == target;
        if (pass.overlap)
            fetch_ahead(pass.x + j, XENT_LANES, ahead);
        /* Not earlier: it would come from memory, out of turn, and all that follows would wait for it. */
        if (here)
            *pass.x_skip = pass.x[pass.skip];
        if (!sum_step(pass, j, XENT_LANES, all_lanes_but(here ? pass.skip % XENT_LANES : XENT_LANES), powers, sum, even,
                      D, mode, frame))
            return j;
        j += XENT_LANES;
        target = here ? end : target;
    }
}

/* So many of count classes are left to sum_tail. With AVX-512 and the sum of the logits a last group that is whole is
   faster there, too, but in place: on Zen 4 by up to 15 %, for 160 classes without a gradient. */
static ALWAYS_INLINE size_t tail_classes(const struct pass *p, size_t count)
{
    const bool of_whole = VW == 16 && p->even && p->keep != p->x && count > 0;
    return of_whole ? (count - 1) % XENT_LANES + 1 : count % XENT_LANES;
}

/* Adds the exponentials from begin (a multiple of 32) to end, but that of the class to skip, to their lanes. Stops
   before the first step or group with a logit that does not fit the mode, or where a second pass has no whole step
   left, and returns where. All of it in one function, whose sums stay where they are: rows of 128 classes, which are
   the loop, the group of their label, and the loop again, took a fifth longer on Zen 3 with functions for each. */
static ALWAYS_INLINE size_t sum_span_inline(struct pass pass, size_t begin, size_t end, vd *lanes,
                                            struct distance ahead, enum mode mode, struct frame frame)
{
    vd registers[VECTORS];
    vd *const sum = SUMS_IN_MEMORY ? lanes : registers;
    if (!SUMS_IN_MEMORY)
        memcpy(sum, lanes, sizeof registers);
    struct logit_lanes even;
    logit_lanes_start(&even);
    if (pass.even)
        logit_lanes_move(&even, &pass.even->lanes);
    vw D[VECTORS];
    for (int v = 0; pass.weighted && v < VECTORS; ++v)
        D[v] = vw_load(pass.weighted->D.lane + v * VW);
    struct second other = pass.second ? *pass.second : (struct second){0};
    vt powers = vt_load(table);
    vt_pin(&powers);
    const size_t tail = tail_classes(&pass, end - begin);
    size_t j = sum_groups(pass, begin, end - tail, powers, sum, &even, D, &other, ahead, mode, frame);
    if (!SUMS_IN_MEMORY)
        memcpy(lanes, sum, sizeof registers);
    if (tail && j == end - tail) {
        if (pass.overlap)
            fetch_ahead(pass.x + j, XENT_LANES, ahead);
        if (pass.skip - j < tail)
            *pass.x_skip = pass.x[pass.skip];
        if (sum_tail(pass, j, tail, powers, lanes, &even, D, mode, frame))
            j = end;
    }
    if (pass.even && j > begin) {
        logit_lanes_move(&pass.even->lanes, &even);
        pass.even->vectors += (uint32_t)((j - begin + VW - 1) / VW);
        logit_sum_advance(pass.even, j);
    }
    for (int v = 0; pass.weighted && v < VECTORS; ++v)
        vw_store(pass.weighted->D.lane + v * VW, &D[v]);
    if (pass.weighted && j > begin)
        weighted_sum_advance(pass.weighted, j);
    if (pass.second)
        second_advance(pass.second, pass.second->left - other.left);
    return j;
}

/* In the window, by where exponentials are kept: nowhere, in the logits' place, elsewhere. */
static ALWAYS_INLINE size_t sum_in_window(struct pass pass, size_t begin, size_t end, vd *lanes, struct distance ahead)
{
    if (!pass.keep)
        return sum_span_inline(pass, begin, end, lanes, ahead, WINDOW, near_frame);
    if (pass.keep == pass.x) {
        pass.x = pass.keep;
        return sum_span_inline(pass, begin, end, lanes, ahead, WINDOW, near_frame);
    }
    return sum_span_inline(pass, begin, end, lanes, ahead, WINDOW, near_frame);
}

/* Compiled apart for each use, so that nothing around it decides which registers it gets. These are of count classes,
   with as many arguments as there are registers for. */
static NOINLINE size_t sum_span_forward(const float *x, size_t count, size_t skip, float *x_skip, vd *lanes)
{
    return sum_span_inline((struct pass){.x = x, .skip = skip, .x_skip = x_skip}, 0, count, lanes, no_fetch, WINDOW,
                           near_frame);
}

static NOINLINE size_t sum_span_forward_fetching(const float *x, size_t count, size_t skip, float *x_skip, vd *lanes)
{
    return sum_span_inline((struct pass){.x = x, .skip = skip, .x_skip = x_skip}, 0, count, lanes, page_fetch, WINDOW,
                           near_frame);
}

static NOINLINE size_t sum_span_in_place(float *x, size_t count, size_t skip, float *x_skip, vd *lanes)
{
    return sum_span_inline((struct pass){.x = x, .keep = x, .skip = skip, .x_skip = x_skip}, 0, count, lanes,
                           page_fetch, WINDOW, near_frame);
}

static NOINLINE size_t sum_span_apart(const float *x, float *keep, size_t count, size_t skip, float *x_skip, vd *lanes)
{
    return sum_span_inline((struct pass){.x = x, .keep = keep, .skip = skip, .x_skip = x_skip}, 0, count, lanes,
                           no_fetch, WINDOW, near_frame);
}

/* What every pass has: its places and the class to skip. */
static ALWAYS_INLINE struct pass plain_pass(const struct pass *p)
{
    return (struct pass){
        .x = p->x, .keep = p->keep, .skip = p->skip, .x_skip = p->x_skip, .overlap = p->overlap, .fetch = p->fetch};
}

/* The same pointer, of which a compiler may assume that it is not NULL. */
static ALWAYS_INLINE void *known(void *p)
{
    if (!p)
        __builtin_unreachable();
    return p;
}

static ALWAYS_INLINE size_t sum_beside(const struct pass *p, size_t begin, size_t end, vd *lanes, struct distance ahead)
{
    struct pass pass = plain_pass(p);
    pass.overlap = true;
    pass.second = known(p->second);
    pass.kind = SCALE;
    if (pass.second->kind == SCALE)
        return sum_in_window(pass, begin, end, lanes, ahead);
    pass.keep = NULL;
    pass.kind = AGAIN;
    return sum_span_inline(pass, begin, end, lanes, ahead, WINDOW, near_frame);
}

/* With lines fetched ahead, by the way they are. */
#define SUM_SPAN(ahead)                                                                                                \
    static NOINLINE size_t sum_span_##ahead(const float *x, float *keep, size_t count, size_t skip, float *x_skip,     \
                                            vd *lanes)                                                                 \
    {                                                                                                                  \
        return sum_in_window((struct pass){.x = x, .keep = keep, .skip = skip, .x_skip = x_skip, .overlap = true}, 0,  \
                             count, lanes, ahead);                                                                     \
    }
SUM_SPAN(overlapping)
SUM_SPAN(overlapping_pages)
SUM_SPAN(early_short)
SUM_SPAN(early_long)
#undef SUM_SPAN

/* The same beside a second pass over another row. */
#define SUM_SPAN_BESIDE(ahead)                                                                                         \
    static NOINLINE size_t sum_span_beside_##ahead(const struct pass *p, size_t begin, size_t end, vd *lanes)          \
    {                                                                                                                  \
        return sum_beside(p, begin, end, lanes, ahead);                                                                \
    }
SUM_SPAN_BESIDE(overlapping)
SUM_SPAN_BESIDE(overlapping_pages)
SUM_SPAN_BESIDE(early_long)
#undef SUM_SPAN_BESIDE

/* With the sum of the logits, without class weights or with them. */
static ALWAYS_INLINE struct distance logits_ahead(const struct pass *p)
{
    if (p->overlap)
        return overlapping_even(p->fetch);
    return p->keep == p->x ? page_fetch : no_fetch;
}

static ALWAYS_INLINE size_t sum_logits_beside(struct pass pass, struct second *second, enum second_kind kind,
                                              size_t begin, size_t end, vd *lanes)
{
    pass.overlap = true;
    pass.second = known(second);
    pass.kind = kind;
    return sum_span_inline(pass, begin, end, lanes, overlapping_even(pass.fetch), WINDOW, near_frame);
}

static NOINLINE size_t sum_span_even(const struct pass *p, size_t begin, size_t end, vd *lanes)
{
    struct pass pass = plain_pass(p);
    pass.even = known(p->even);
    return sum_in_window(pass, begin, end, lanes, logits_ahead(p));
}

static NOINLINE size_t sum_span_even_beside(const struct pass *p, size_t begin, size_t end, vd *lanes)
{
    struct pass pass = plain_pass(p);
    pass.even = known(p->even);
    return sum_logits_beside(pass, p->second, TAKE_EVEN, begin, end, lanes);
}

static NOINLINE size_t sum_span_weighted(const struct pass *p, size_t begin, size_t end, vd *lanes)
{
    struct pass pass = plain_pass(p);
    pass.weighted = known(p->weighted);
    return sum_in_window(pass, begin, end, lanes, logits_ahead(p));
}

static NOINLINE size_t sum_span_weighted_beside(const struct pass *p, size_t begin, size_t end, vd *lanes)
{
    struct pass pass = plain_pass(p);
    pass.weighted = known(p->weighted);
    return sum_logits_beside(pass, p->second, TAKE_WEIGHTED, begin, end, lanes);
}

/* Whether a pass has other sums that come before its exponentials, a slice at a time. */
static ALWAYS_INLINE bool has_slices(const struct pass *p)
{
    return p->dot || (p->weighted && !WEIGHTED_ALONG);
}

/* With other sums, which are the first to read a slice: while this one's exponentials are computed the next one comes
   from memory. */
static const struct distance slice_fetch = {.l1 = SLICE},
                             slice_overlapping = {.l1 = SLICE, .l2 = SLICE + 256, .written = 256},
                             slice_early = {.l1 = 2 * SLICE},
                             slice_early_apart = {.l1 = 3 * SLICE / 2, .written = PAGE / 2};

static ALWAYS_INLINE struct distance slice_ahead(const struct pass *p)
{
    if (!p->overlap)
        return slice_fetch;
    if (p->fetch != XENT_FETCH_EARLY)
        return slice_overlapping;
    return p->keep && p->keep != p->x ? slice_early_apart : slice_early;
}

static NOINLINE size_t sum_span_slice(const struct pass *p, size_t begin, size_t end, vd *lanes)
{
    struct pass pass = plain_pass(p);
    pass.beside = p->beside;
    /* Twice, so that a forward has code of its own: 6 % fewer instructions for 1000 classes with AVX2. */
    if (!pass.keep)
        return sum_span_inline(pass, begin, end, lanes, slice_ahead(p), WINDOW, near_frame);
    return sum_span_inline(pass, begin, end, lanes, slice_ahead(p), WINDOW, near_frame);
}

static NOINLINE size_t sum_span_slice_beside(const struct pass *p, size_t begin, size_t end, vd *lanes)
{
    struct pass pass = plain_pass(p);
    pass.beside = p->beside;
    pass.overlap = true;
    pass.second = known(p->second);
    pass.kind = TAKE_SHARES;
    if (pass.second->kind == TAKE_SHARES)
        return sum_span_inline(pass, begin, end, lanes, slice_ahead(p), WINDOW, near_frame);
    pass.kind = TAKE_WEIGHTED;
    return sum_span_inline(pass, begin, end, lanes, slice_ahead(p), WINDOW, near_frame);
}

/* Whether a pass can be taken beside its second, as far as there is one. Batches of one call may be of different
   kinds. */
static ALWAYS_INLINE bool goes_beside(const struct pass *p)
{
    if (!p->second || p->second->left < STEP)
        return false;
    const enum second_kind kind = p->second->kind;
    if (p->even)
        return kind == TAKE_EVEN;
    if (has_slices(p))
        return kind == TAKE_WEIGHTED || kind == TAKE_SHARES;
    if (p->weighted)
        return kind == TAKE_WEIGHTED;
    return kind == (p->keep ? SCALE : AGAIN);
}

static ALWAYS_INLINE size_t sum_span_alone(struct pass pass, size_t begin, size_t end, vd *lanes)
{
    if (pass.even)
        return sum_span_even(&pass, begin, end, lanes);
    if (pass.weighted && WEIGHTED_ALONG)
        return sum_span_weighted(&pass, begin, end, lanes);
    if (has_slices(&pass))
        return sum_span_slice(&pass, begin, end, lanes);
    const size_t count = end - begin, skip = pass.skip - begin;
    const float *x = pass.x + begin;
    float *keep = pass.keep ? pass.keep + begin : NULL;
    if (pass.overlap && pass.fetch == XENT_FETCH_EARLY)
        return begin + (count < EARLY_LONG ? sum_span_early_short(x, keep, count, skip, pass.x_skip, lanes)
                                           : sum_span_early_long(x, keep, count, skip, pass.x_skip, lanes));
    if (pass.overlap && pass.fetch == XENT_FETCH_PAGES)
        return begin + sum_span_overlapping_pages(x, keep, count, skip, pass.x_skip, lanes);
    if (pass.overlap)
        return begin + sum_span_overlapping(x, keep, count, skip, pass.x_skip, lanes);
    if (!keep && fetches_forward(count))
        return begin + sum_span_forward_fetching(x, count, skip, pass.x_skip, lanes);
    if (!keep)
        return begin + sum_span_forward(x, count, skip, pass.x_skip, lanes);
    return begin + (keep == x ? sum_span_in_place(keep, count, skip, pass.x_skip, lanes)
                              : sum_span_apart(x, keep, count, skip, pass.x_skip, lanes));
}

/* Beside what is left of the second pass over another row, and then alone. */
static NOINLINE size_t sum_span_with_second(const struct pass *p, size_t begin, size_t end, vd *lanes)
{
    size_t j = begin;
    while (goes_beside(p)) {
        j = p->even                        ? sum_span_even_beside(p, j, end, lanes)
            : has_slices(p)                ? sum_span_slice_beside(p, j, end, lanes)
            : p->weighted                  ? sum_span_weighted_beside(p, j, end, lanes)
            : p->fetch == XENT_FETCH_EARLY ? sum_span_beside_early_long(p, j, end, lanes)
            : p->fetch == XENT_FETCH_PAGES ? sum_span_beside_overlapping_pages(p, j, end, lanes)
                                           : sum_span_beside_overlapping(p, j, end, lanes);
        if (j == end || p->second->left >= STEP)
            return j;
        if (p->second->parted)
            second_target(p->second);
    }
    return sum_span_alone(*p, j, end, lanes);
}

/* sum_span_inline in the window. */
static ALWAYS_INLINE size_t sum_span(struct pass pass, size_t begin, size_t end, vd *lanes)
{
    if (!pass.second)
        return sum_span_alone(pass, begin, end, lanes);
    const struct pass copy = pass; /* or it would lie in memory for the other way as well */
    return sum_span_with_second(&copy, begin, end, lanes);
}

/* Modes other than the window. */
static ALWAYS_INLINE size_t sum_span_elsewhere(struct pass pass, size_t begin, size_t end, vd *lanes, enum mode mode,
                                               struct frame frame)
{
    return sum_span_inline(plain_pass(&pass), begin, end, lanes,
                           !pass.overlap                    ? no_fetch
                           : pass.fetch == XENT_FETCH_EARLY ? early_long
                           : pass.fetch == XENT_FETCH_PAGES ? overlapping_pages
                                                            : overlapping,
                           mode, frame);
}

static size_t sum_span_masked(struct pass pass, size_t begin, size_t end, vd *lanes)
{
    return sum_span_elsewhere(pass, begin, end, lanes, MASKED, near_frame);
}

static size_t sum_span_far(struct pass pass, size_t begin, size_t end, vd *lanes, struct frame frame)
{
    return sum_span_elsewhere(pass, begin, end, lanes, FAR, frame);
}

static size_t sum_span_far_masked(struct pass pass, size_t begin, size_t end, vd *lanes, struct frame frame)
{
    return sum_span_elsewhere(pass, begin, end, lanes, FAR_MASKED, frame);
}

#endif
