/* Part of kernels/algorithm.h: the first pass over a row, the sum of docs/numerics.md, section 3. */
#ifndef XENT_KERNELS_ROW_SUM_H
#define XENT_KERNELS_ROW_SUM_H

/* What sum_steps (row_steps.h) does, for one group at class j, of which only the first count classes exist. Returns
   whether all logits fit the mode; otherwise nothing has happened. */
static ALWAYS_INLINE bool sum_group(struct pass pass, size_t j, size_t count, vd *lanes, enum mode mode,
                                    struct frame frame)
{
    const vf ref = vset(frame.ref), cut = vset(frame.cut);
    vf e[VECTORS], t[VECTORS], r[VECTORS];
    for (size_t v = 0; v < VECTORS; ++v)
        e[v] = t[v] = r[v] = vset(0.0f);
    vi stray = viset(0);
    if (pass.overlap)
        fetch_ahead(pass.x + j, count, overlapping);
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        const size_t left = count - v * VW;
        vf z = measured(load_left(pass.x + j + v * VW, left), mode, ref);
        if (mode == FAR || mode == FAR_MASKED)
            z = vkeep_first(z, left); /* -ref where there is no class */
        const vf in_window = unmask(z, mode, cut);
        t[v] = exp_round(in_window);
        r[v] = exp_reduce(in_window, t[v]);
        stray = vior(stray, vstray(t[v], t[v], rounder_bits));
        e[v] = remask(exp_polynomial(vtable(table, t[v]), r[v]), z, mode, cut);
        e[v] = vkeep_first(e[v], left);
    }
    if (vany(stray, ~(WINDOW_SIZE - 1)))
        return false;
    for (size_t v = 0; pass.even && mode == WINDOW && v < VECTORS && v * VW < count; ++v)
        logit_sum_add(pass.even, (j / VW + v) % SLICE_VECTORS, t[v], r[v]);
    if (pass.even && mode == WINDOW)
        logit_sum_advance(pass.even, j + count);
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        if (pass.keep)
            store_left(pass.keep + j + v * VW, e[v], count - v * VW);
        vd_add(&lanes[v], vdrop_lane(e[v], pass.skip - j - v * VW));
    }
    return true;
}

/* All classes from begin (a multiple of 32) to end, but the one to skip; stops at a step or group with a logit that
   does not fit the mode, and returns where. */
static ALWAYS_INLINE size_t sum_span(struct pass pass, size_t begin, size_t end, vd *lanes, enum mode mode,
                                     struct frame frame)
{
    size_t j = begin;
    while (j < end) {
        const size_t stop = pass.skip >= j && pass.skip < end ? pass.skip / XENT_LANES * XENT_LANES : end;
        const size_t steps_end = j + (stop - j) / STEP * STEP;
        j = sum_steps(pass, j, steps_end, lanes, mode, frame);
        const size_t count = end - j < XENT_LANES ? end - j : XENT_LANES;
        if (j < steps_end)
            return j;
        /* Not earlier: it would come from memory, out of turn, and all that follows would wait for it. */
        if (pass.x_skip && pass.skip - j < count)
            *pass.x_skip = pass.x[pass.skip];
        /* A whole group by code that knows it: a twentieth of the instructions of a row of 128 classes less. */
        const bool fits = count == XENT_LANES ? sum_group(pass, j, XENT_LANES, lanes, mode, frame)
                                              : sum_group(pass, j, count, lanes, mode, frame);
        if (!fits)
            return j;
        j += count;
    }
    return end;
}

static size_t sum_span_masked(struct pass pass, size_t begin, size_t end, vd *lanes)
{
    return sum_span(pass, begin, end, lanes, MASKED, near_frame);
}

static size_t sum_span_far(struct pass pass, size_t begin, size_t end, vd *lanes, struct frame frame)
{
    return sum_span(pass, begin, end, lanes, FAR, frame);
}

static size_t sum_span_far_masked(struct pass pass, size_t begin, size_t end, vd *lanes, struct frame frame)
{
    return sum_span(pass, begin, end, lanes, FAR_MASKED, frame);
}

/* Whether one of the first classes of a span lies well in the window. Then the row is near, unless far above. */
static bool starts_in_window(const float *x, size_t begin, size_t end)
{
    const size_t count = end - begin < STEP ? end - begin : STEP;
    int inside = 0;
    for (size_t j = begin; j < begin + count; ++j)
        inside |= (x[j] > -32.0f) & (x[j] < 32.0f);
    return inside;
}

/* Adds the classes from begin (a multiple of 32) to end, wherever their logits lie, to the lanes so far, which are
   2^-896 times too small, and folds all. */
static double sum_rest(struct pass pass, size_t begin, size_t end, const vd *lanes, struct frame frame)
{
    double lane[XENT_LANES];
    for (int v = 0; v < VECTORS; ++v)
        vd_get(&lanes[v], lane + v * VW);
    for (int l = 0; l < XENT_LANES; ++l)
        lane[l] *= 0x1p896;
    vw sum[VECTORS];
    for (int v = 0; v < VECTORS; ++v)
        sum[v] = vw_load(lane + v * VW);
    const vf ref = vset(frame.ref), cut = vset(frame.cut);
    for (size_t j = begin; j < end; j += XENT_LANES) {
        if (end - j >= XENT_LANES && pass.skip - j >= XENT_LANES) {
            for (int v = 0; v < VECTORS; ++v) {
                vi n;
                const vf f = exp_wide(vload(pass.x + j + v * VW), ref, cut, &n);
                vw_add(&sum[v], f, n);
            }
            continue;
        }
        for (size_t v = 0; v < VECTORS && v * VW < end - j; ++v) {
            const size_t left = end - j - v * VW;
            vi n;
            const vf f = vkeep_first(exp_wide(load_left(pass.x + j + v * VW, left), ref, cut, &n), left);
            n = vbits(vkeep_first(vfrom_bits(n), left)); /* 2^n may be infinite for a 0 that is no logit of a far row */
            vw_add(&sum[v], vdrop_lane(f, pass.skip - j - v * VW), n);
        }
    }
    for (int v = 0; v < VECTORS; ++v)
        vw_store(lane + v * VW, &sum[v]);
    return f64_fold(lane, XENT_LANES);
}

/* The largest lane; lanes that are NaN do not count, unless all are. */
static float max_lanes(vf v)
{
    float lane[VW];
    vstore(lane, v);
    float max = lane[0];
    for (int l = 1; l < VW; ++l)
        max = lane[l] > max || max != max ? lane[l] : max;
    return max;
}

/* The largest logit from begin to end, leaving out any NaN; -INFINITY if there is no other. */
static float span_max(const float *x, size_t begin, size_t end)
{
    vf largest[4];
    for (int v = 0; v < 4; ++v)
        largest[v] = vset(-INFINITY);
    size_t j = begin;
    for (; end - j >= 4 * VW; j += 4 * VW)
        for (int v = 0; v < 4; ++v)
            largest[v] = vmax(vload(x + j + v * VW), largest[v]);
    float max = max_lanes(vmax(vmax(largest[0], largest[1]), vmax(largest[2], largest[3])));
    for (; j < end; ++j)
        max = x[j] > max ? x[j] : max;
    return max;
}

/* The first pass over a chunk in a near frame, as far as window and masks go; the mode becomes what the rest of the row
   needs. in_window: whether a class before the chunk is known to lie in the window. */
static ALWAYS_INLINE size_t sum_narrow(struct pass pass, size_t begin, size_t end, bool in_window, vd *lanes,
                                       enum mode *mode)
{
    size_t kept = begin;
    if (*mode == WINDOW) {
        kept = sum_span(pass, begin, end, lanes, WINDOW, near_frame);
        if (kept < end)
            *mode = in_window || kept > begin || starts_in_window(pass.x, begin, end) ? MASKED : WIDE;
    }
    if (pass.even)
        logit_sum_until(pass.even, pass.x, end);
    if (*mode == MASKED) {
        kept = sum_span_masked(pass, kept, end, lanes);
        if (kept < end)
            *mode = WIDE;
    }
    return kept;
}

/* The same with the pass's other sums, a slice at a time: they are taken before its logits may be overwritten. */
static ALWAYS_INLINE size_t sum_narrow_in_slices(struct pass pass, size_t begin, size_t end, bool in_window, vd *lanes,
                                                 enum mode *mode)
{
    size_t kept = begin;
    for (size_t slice = begin, next; slice < end; slice = next) {
        next = end - slice < SLICE ? end : slice + SLICE;
        if (pass.dot) {
            dot_span(pass.dot, pass.x, slice, next);
            pass.skip = pass.dot->y;
        }
        if (kept == slice)
            kept = sum_narrow(pass, slice, next, in_window || slice > begin, lanes, mode);
        else if (pass.even)
            logit_sum_until(pass.even, pass.x, next);
    }
    if (pass.dot)
        dot_fold(pass.dot);
    return kept;
}

/* A row after the first pass. */
struct summed {
    double others;      /* the sum over all classes but the one to skip */
    size_t zeros, kept; /* exponentials are +0 up to zeros, and from there to kept what the pass has kept */
    struct frame frame;
    bool finite;    /* whether the row has a finite log-sum-exp */
    bool in_window; /* whether all of its logits lie in the window */
};

static ALWAYS_INLINE void zero_lanes(vd *lanes)
{
    for (int v = 0; v < VECTORS; ++v)
        vd_zero(&lanes[v]);
}

static ALWAYS_INLINE size_t chunk_end(size_t begin, size_t classes)
{
    const size_t chunk = xent_chunk(classes), end = (begin | (chunk - 1)) + 1;
    return end < classes ? end : classes;
}

/* A NaN that is not in the sum is that of the class to skip. */
static bool sum_is_finite(struct pass pass, size_t kept, size_t classes, double sum)
{
    return sum == sum && !(pass.skip >= kept && pass.skip < classes && pass.x[pass.skip] != pass.x[pass.skip]);
}

/* A row whose largest logit makes it far; the classes before first (a multiple of 32) are below its cut. */
static struct summed sum_row_far(struct pass pass, size_t first, size_t classes, float max)
{
    struct summed row = {0, first, first, row_frame(max), row_is_finite(max), false};
    enum mode mode = row.finite ? FAR : WIDE;
    for (size_t begin = first, end; row.finite && begin < classes; begin = end) {
        end = chunk_end(begin, classes);
        vd lanes[VECTORS];
        zero_lanes(lanes);
        size_t kept = begin;
        if (mode == FAR) {
            row.kept = kept = sum_span_far(pass, begin, end, lanes, row.frame);
            mode = kept < end ? FAR_MASKED : FAR;
        }
        if (mode == FAR_MASKED) {
            row.kept = kept = sum_span_far_masked(pass, kept, end, lanes, row.frame);
            mode = kept < end ? WIDE : FAR_MASKED;
        }
        row.others += kept < end ? sum_rest(pass, kept, end, lanes, row.frame) : vd_fold(lanes) * 0x1p896;
    }
    row.finite = row.finite && sum_is_finite(pass, row.kept, classes, row.others);
    return row;
}

static ALWAYS_INLINE struct summed sum_row(struct pass pass, size_t classes)
{
    struct summed row = {0, 0, 0, near_frame, true, true};
    enum mode mode = WINDOW;
    for (size_t begin = 0, end; begin < classes; begin = end) {
        end = chunk_end(begin, classes);
        vd lanes[VECTORS];
        zero_lanes(lanes);
        const bool narrow = mode != WIDE;
        const size_t kept = pass.dot || pass.even ? sum_narrow_in_slices(pass, begin, end, begin > 0, lanes, &mode)
                                                  : sum_narrow(pass, begin, end, begin > 0, lanes, &mode);
        if (pass.dot)
            pass.skip = pass.dot->y;
        if (kept == end) {
            row.others += vd_fold(lanes) * 0x1p896;
            row.kept = end;
            continue;
        }
        if (narrow) {
            /* Keeping anything takes a logit in the window, and none above is kept: only the rest can make it far. */
            const float max = span_max(pass.x, kept, classes);
            if (kept > 0 ? max >= XENT_NEAR_MAX : !row_is_near(max)) {
                for (size_t rest = end; pass.dot && rest < classes; rest = chunk_end(rest, classes)) {
                    dot_span(pass.dot, pass.x, rest, chunk_end(rest, classes));
                    dot_fold(pass.dot);
                    pass.skip = pass.dot->y;
                }
                if (pass.even)
                    logit_sum_until(pass.even, pass.x, classes);
                return sum_row_far(pass, kept, classes, max);
            }
            row.kept = kept;
        }
        row.others += sum_rest(pass, kept, end, lanes, near_frame);
    }
    if (row.kept < classes)
        row.finite = sum_is_finite(pass, row.kept, classes, row.others);
    row.in_window = mode == WINDOW;
    return row;
}

/* One chunk of a row that several tasks share, as if the row were near. */
static void sum_part(const float *x, float *keep, size_t begin, size_t end, size_t skip, enum xent_memory memory,
                     struct xent_part *part)
{
    const struct pass pass = {.x = x, .keep = keep, .skip = skip, .overlap = memory != XENT_MEMORY_PLAIN};
    enum mode mode = WINDOW;
    vd lanes[VECTORS];
    zero_lanes(lanes);
    part->zeros = begin;
    part->kept = sum_narrow(pass, begin, end, false, lanes, &mode);
    part->max = span_max(x, part->kept, end);
    part->sum = 0;
    if (part->kept == end)
        part->sum = vd_fold(lanes) * 0x1p896;
    else if (part->max < XENT_NEAR_MAX) /* else the row is far */
        part->sum = sum_rest(pass, part->kept, end, lanes, near_frame);
    part->finite = sum_is_finite(pass, part->kept, end, part->sum);
}

/* The same again, for a row that has turned out far. */
static void sum_part_far(const float *x, size_t end, size_t skip, struct frame frame, struct xent_part *part)
{
    const struct pass pass = {.x = x, .skip = skip};
    vd lanes[VECTORS];
    zero_lanes(lanes);
    part->zeros = part->kept;
    part->sum = sum_rest(pass, part->kept, end, lanes, frame);
    part->finite = sum_is_finite(pass, part->kept, end, part->sum);
}

#endif
