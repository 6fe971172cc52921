/* Part of kernels/algorithm.h: the first pass over a row, the sum of docs/numerics.md, section 3. */
#ifndef XENT_KERNELS_ROW_SUM_H
#define XENT_KERNELS_ROW_SUM_H

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
            vw_add(&sum[v], vand(f, all_lanes_but(pass.skip - j) + v * VW), n);
        }
    }
    for (int v = 0; v < VECTORS; ++v)
        vw_store(lane + v * VW, &sum[v]);
    return f64_fold(lane, XENT_LANES);
}

/* The largest lane; none is a NaN. */
static float max_lanes(vf v)
{
    float lane[VW];
    vstore(lane, v);
    float max = lane[0];
    for (int l = 1; l < VW; ++l)
        max = lane[l] > max ? lane[l] : max;
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
    for (; end - j >= VW; j += VW)
        largest[0] = vmax(vload(x + j), largest[0]);
    if (j < end && end - begin >= VW) {
        largest[1] = vmax(vload(x + end - VW), largest[1]);
        j = end;
    }
    float max = max_lanes(vmax(vmax(largest[0], largest[1]), vmax(largest[2], largest[3])));
    for (; j < end; ++j)
        max = x[j] > max ? x[j] : max;
    return max;
}

/* What fits the rest of a row that has left the window. in_window: whether a class of it is known to lie there. */
static ALWAYS_INLINE enum mode after_window(const float *x, size_t begin, size_t end, bool in_window)
{
    return in_window || starts_in_window(x, begin, end) ? MASKED : WIDE;
}

/* Adds the logits up to end that have not been added yet to their sum, if it is wanted. */
static ALWAYS_INLINE void sum_logits_until(const struct pass *p, size_t end)
{
    if (p->even)
        logit_sum_until(p->even, p->x, end);
    if (p->weighted)
        weighted_sum_until(p->weighted, p->x, end);
}

/* The first pass over a chunk in a near frame from a class on, as far as window and masks go; what comes before that
   class is in the lanes. The mode becomes what the rest of the row needs. in_window: whether a class before the chunk
   is known to lie in the window. */
static ALWAYS_INLINE size_t sum_narrow(struct pass pass, size_t begin, size_t from, size_t end, bool in_window,
                                       vd *lanes, enum mode *mode)
{
    size_t kept = from;
    if (*mode == WINDOW) {
        kept = sum_span(pass, from, end, lanes);
        if (kept < end)
            *mode = after_window(pass.x, begin, end, in_window || kept > begin);
    }
    sum_logits_until(&pass, end);
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
        if (pass.weighted && !WEIGHTED_ALONG)
            weighted_sum_until(pass.weighted, pass.x, next);
        if (kept == slice)
            kept = sum_narrow(pass, slice, slice, next, in_window || slice > begin, lanes, mode);
        else
            sum_logits_until(&pass, next);
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

/* The first pass over a row from the chunk on that begins at begin. What comes before it is in others, and what it has
   before kept in the lanes. */
static ALWAYS_INLINE struct summed sum_row_from(struct pass pass, size_t begin, size_t kept, size_t classes, vd *lanes,
                                                double others, enum mode mode)
{
    struct summed row = {others, 0, classes, near_frame, true, true};
    bool narrow = true;
    for (size_t end; begin < classes; kept = begin = end) {
        end = chunk_end(begin, classes);
        if (kept == begin)
            zero_lanes(lanes);
        kept = has_slices(&pass) || (pass.even && end - begin > SLICE)
                   ? sum_narrow_in_slices(pass, begin, end, begin > 0, lanes, &mode)
                   : sum_narrow(pass, begin, kept, end, begin > 0, lanes, &mode);
        if (pass.dot)
            pass.skip = pass.dot->y;
        if (kept == end) {
            row.others += vd_fold(lanes) * 0x1p896;
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
                sum_logits_until(&pass, classes);
                return sum_row_far(pass, kept, classes, max);
            }
            row.kept = kept;
            narrow = false;
        }
        row.others += sum_rest(pass, kept, end, lanes, near_frame);
    }
    if (row.kept < classes)
        row.finite = sum_is_finite(pass, row.kept, classes, row.others);
    row.in_window = mode == WINDOW;
    return row;
}

/* Out of line, for what few rows need. */
static NOINLINE struct summed sum_row_rest(const struct pass *p, size_t begin, size_t kept, size_t classes, vd *lanes,
                                           double others, enum mode mode)
{
    return sum_row_from(*p, begin, kept, classes, lanes, others, mode);
}

/* The first pass over a row. Most have no other sums, or but that of a slice of logits, and lie in the window from end
   to end. */
static ALWAYS_INLINE struct summed sum_row(struct pass pass, size_t classes)
{
    vd lanes[VECTORS];
    zero_lanes(lanes);
    if (pass.dot || pass.weighted || (pass.even && classes > SLICE))
        return sum_row_from(pass, 0, 0, classes, lanes, 0, WINDOW);
    if (classes <= XENT_CHUNK) {
        const size_t kept = sum_span(pass, 0, classes, lanes);
        if (kept == classes)
            return (struct summed){vd_fold(lanes) * 0x1p896, 0, classes, near_frame, true, true};
        const struct pass copy = pass; /* or it would lie in memory for the other way as well */
        return sum_row_rest(&copy, 0, kept, classes, lanes, 0, after_window(pass.x, 0, classes, kept > 0));
    }
    double others = 0;
    for (size_t begin = 0, end; begin < classes; begin = end) {
        end = chunk_end(begin, classes);
        const size_t kept = sum_span(pass, begin, end, lanes);
        if (kept < end) {
            const struct pass copy = pass; /* or it would lie in memory for the other way as well */
            return sum_row_rest(&copy, begin, kept, classes, lanes, others, after_window(pass.x, 0, end, kept > 0));
        }
        others += vd_fold(lanes) * 0x1p896;
        if (end < classes)
            zero_lanes(lanes);
    }
    return (struct summed){others, 0, classes, near_frame, true, true};
}

/* One chunk of a row that several tasks share, as if the row were near. */
static void sum_part(const float *x, float *keep, size_t begin, size_t end, size_t skip, struct xent_memory memory,
                     struct xent_part *part)
{
    float x_skip;
    const struct pass pass = {
        .x = x, .keep = keep, .skip = skip, .x_skip = &x_skip, .overlap = memory.overlap, .fetch = memory.fetch};
    enum mode mode = WINDOW;
    vd lanes[VECTORS];
    zero_lanes(lanes);
    part->zeros = begin;
    part->kept = sum_narrow(pass, begin, begin, end, false, lanes, &mode);
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
