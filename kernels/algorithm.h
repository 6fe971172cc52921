/*
 * The algorithm of docs/numerics.md, written once over the vector operations that the including file defines.
 *
 * A row is summed in one pass and its results are formed in a second one, from cache. While every logit lies in the
 * *window* (about [-33.2, 55.4]: rint(16 z log2 e) in [-768, 1279]) its exponential is a normal float, needs no frame and
 * no maximum, and is kept in the output row for the second pass to scale; masked classes (-inf, -1e9) among them are
 * kept as +0. The first step with any other logit turns the rest of the row *wide*: exponents and significands apart,
 * sums in full double range, nothing kept. Both ways give the same bits, because every factor between them is a power
 * of two.
 *
 * The operations, each with one meaning on every ISA (VW lanes; i is a lane's number):
 *
 *   vf  vset(float)                   the same value in each lane
 *   vf  vload(p), vstore(p, v)        VW floats, any alignment
 *   vf  vload_first(p, count)         lanes i < count from p, the others 0; reads nothing else
 *   void vstore_first(p, v, count)    lanes i < count; writes nothing else
 *   vf  vsub, vmul (a, b)             rounded to nearest
 *   vf  vfma(a, b, c), vfnma(a, b, c) c + a b and c - a b, rounded once
 *   vf  vmax(a, b)                    a > b ? a : b, so b if either is NaN
 *   vf  vkeep_first(v, count)         lanes i < count, the others +0 (any count)
 *   vf  vdrop_lane(v, lane)           lane zeroed, the others kept (any lane, also none of these)
 *   vf  vkeep_above(v, z, cut)        +0 where z <= cut, v elsewhere, also where z is NaN
 *   vf  vtable(table, t)              the float whose bits are table[bits(t) & 15] + (bits(t) << 19), modulo 2^32
 *   vi  vbits(v), vf vfrom_bits(w)    the lanes' bits
 *   vi  viset(int), viadd, visub      32-bit integers
 *   vi  vishl(w, c), visar(w, c)      shifts by a constant: left, arithmetic right
 *   vf  vkeep_int_ge(v, w, c)         v where the integer w >= c, +0 elsewhere
 *   vi  vstray(a, b, base)            (bits(a) ^ base) | (bits(b) ^ base)
 *   vi  vior(w, x)                    bitwise or
 *   bool vany(w, mask)                whether any lane of w & mask is not 0
 *   vd                                the double sums of VW neighbouring lanes
 *   void vd_zero(vd *)                all 0
 *   void vd_add(vd *, v)              adds 2^-896 v, for v = 0 or normal and positive: the lanes' bits moved to double
 *   void vd_get(const vd *, double *) the sums, in lane order
 *   double vd_fold(const vd *)        all 32 lanes as one: i + 16 to i, then i + 8, i + 4, i + 2, i + 1
 *   void vd_add_wide(double *, f, n)  adds f 2^n to VW doubles, for |n| <= 1000; anything for other n
 *   sf, SW, sload, sstore, sset, smul, sfma   the same for the second pass, where stores are the limit and an ISA may
 *                                     prefer another width
 */
#include "kernels/kernel.h"
#include "kernels/row.h"

#include <math.h>

enum {
    VECTORS = XENT_LANES / VW, /* that hold one element of each lane: a group */
    STEP = VW == 16 ? 64 : 32, /* classes that are checked against the window before any of them is final */
    WINDOW_LOW = -768,
    WINDOW_SIZE = 2048,
    PREFETCH = 1024 /* floats ahead: 3 % for rows from memory, but 15 % slower where the output is elsewhere */
};

#define ROUNDER 0x1.8p23f
static const int32_t rounder_bits = 0x4b400000;

/* The bits of T[k], less what k and the low end of the window add to them when shifted left by 19. */
#define ENTRY(k, bits) (int32_t)((bits) - ((uint32_t)(k) << 19) - ((uint32_t)-WINDOW_LOW << 19))
static const int32_t table[16] = {XENT_TABLE(ENTRY)};
#undef ENTRY

/* Whole vectors where there are left classes or more, the first lanes otherwise: masked stores are slow on AVX2. */
static ALWAYS_INLINE vf load_left(const float *p, size_t left)
{
    return left >= VW ? vload(p) : vload_first(p, left);
}

static ALWAYS_INLINE void store_left(float *p, vf v, size_t left)
{
    if (left >= VW)
        vstore(p, v);
    else
        vstore_first(p, v, left);
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

/* 16 n + k, in the low bits of a float. */
static ALWAYS_INLINE vf exp_round(vf z)
{
    return vfma(z, vset(XENT_16LOG2E), vset(ROUNDER - WINDOW_LOW));
}

/* r */
static ALWAYS_INLINE vf exp_reduce(vf z, vf t)
{
    const vf n16 = vsub(t, vset(ROUNDER - WINDOW_LOW));
    return vfnma(n16, vset(XENT_LN2_16_LO), vfnma(n16, vset(XENT_LN2_16_HI), z));
}

/* S (1 + r + C2 r^2 + C3 r^3) */
static ALWAYS_INLINE vf exp_polynomial(vf S, vf r)
{
    const vf p = vfma(vfma(vset(XENT_C3), r, vset(XENT_C2)), r, vset(1.0f));
    return vfma(vmul(S, r), p, S);
}

/* K exp(x - ref) = result * 2^n for any x; 0 * 2^n at or below the cut. */
static ALWAYS_INLINE vf exp_wide(vf x, struct frame frame, vi *n)
{
    const vf cut = vset(frame.cut);
    const vf z = vmax(cut, vsub(x, vset(frame.ref)));
    const vf t = exp_round(z);
    *n = visar(visub(vbits(t), viset(rounder_bits - WINDOW_LOW)), 4);
    const vf T = vfrom_bits(visub(vbits(vtable(table, t)), vishl(*n, 23)));
    return vkeep_above(exp_polynomial(T, exp_reduce(z, t)), z, cut);
}

/* How the logits of a row are taken until one does not fit. */
enum mode {
    WINDOW, /* all lie in the window */
    MASKED, /* or are at or below the cut of a near row: masked classes, exponential +0 */
    WIDE    /* anything */
};

/* In mode MASKED, masked logits become a 0 that lies in the window. */
static ALWAYS_INLINE vf unmask(vf logits, enum mode mode)
{
    return mode == MASKED ? vkeep_above(logits, logits, vset(XENT_NEAR_CUT)) : logits;
}

/* And their exponentials +0. */
static ALWAYS_INLINE vf remask(vf e, vf logits, enum mode mode)
{
    return mode == MASKED ? vkeep_above(e, logits, vset(XENT_NEAR_CUT)) : e;
}

/* Adds the exponentials of whole steps of classes, from begin (a multiple of 32) to end, to their lanes; keep, unless it
   is NULL, receives them. Prefetches if ahead. Stops before the first step with a logit that does not fit the mode, and
   returns how far it came. This is the loop that everything else exists to reach. */
static ALWAYS_INLINE size_t sum_steps(const float *x, size_t begin, size_t end, float *keep, vd *lanes, bool ahead,
                                      enum mode mode)
{
    vd sum[VECTORS];
    memcpy(sum, lanes, sizeof sum);
    size_t j = begin;
    for (; j != end; j += STEP) {
        for (int i = 0; ahead && i < STEP; i += 16)
            prefetch(x + j + PREFETCH + i);
        vf t[STEP / VW];
        for (int v = 0; v < STEP / VW; ++v)
            t[v] = exp_round(unmask(vload(x + j + v * VW), mode));
        vi stray = vstray(t[0], t[1], rounder_bits);
        for (int v = 2; v < STEP / VW; v += 2)
            stray = vior(stray, vstray(t[v], t[v + 1], rounder_bits));
        if (vany(stray, ~(WINDOW_SIZE - 1)))
            break;
        /* Four vectors side by side keep the multipliers busier than one after the other: 4 to 9 % of a forward. Stores
           between the additions, which the compiler must leave in order, would cost 14 % in place. */
        for (int v = 0; v < STEP / VW; v += 4) {
            vf logits[4], r[4], e[4];
            for (int i = 0; i < 4; ++i) {
                logits[i] = vload(x + j + (v + i) * VW);
                r[i] = exp_reduce(unmask(logits[i], mode), t[v + i]);
            }
            for (int i = 0; i < 4; ++i)
                e[i] = remask(exp_polynomial(vtable(table, t[v + i]), r[i]), logits[i], mode);
            for (int i = 0; i < 4; ++i)
                vd_add(&sum[(v + i) % VECTORS], e[i]);
            for (int i = 0; i < 4; ++i)
                if (keep)
                    vstore(keep + j + (v + i) * VW, e[i]);
        }
    }
    memcpy(lanes, sum, sizeof sum);
    return j;
}

/* The same for one group, of which only the first count classes exist and skip is left out of the lanes. Returns whether
   all logits fit the mode; otherwise nothing has happened. */
static ALWAYS_INLINE bool sum_group(const float *x, size_t count, size_t skip, float *keep, vd *lanes, enum mode mode)
{
    vf e[VECTORS];
    for (size_t v = 0; v < VECTORS; ++v)
        e[v] = vset(0.0f);
    vi stray = viset(0);
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        const size_t left = count - v * VW;
        const vf logits = load_left(x + v * VW, left);
        const vf t = exp_round(unmask(logits, mode));
        stray = vior(stray, vstray(t, t, rounder_bits));
        e[v] = remask(exp_polynomial(vtable(table, t), exp_reduce(unmask(logits, mode), t)), logits, mode);
        e[v] = vkeep_first(e[v], left);
    }
    if (vany(stray, ~(WINDOW_SIZE - 1)))
        return false;
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        if (keep)
            store_left(keep + v * VW, e[v], count - v * VW);
        vd_add(&lanes[v], vdrop_lane(e[v], skip - v * VW));
    }
    return true;
}

/* All classes from begin (a multiple of 32) to end, but skip; stops where one does not fit the mode, returns where. */
static ALWAYS_INLINE size_t sum_span(const float *x, size_t begin, size_t end, size_t skip, float *keep, vd *lanes,
                                     bool ahead, enum mode mode)
{
    size_t j = begin;
    while (j < end) {
        const size_t stop = skip >= j && skip < end ? skip / XENT_LANES * XENT_LANES : end;
        const size_t steps_end = j + (stop - j) / STEP * STEP;
        j = sum_steps(x, j, steps_end, keep, lanes, ahead, mode);
        const size_t count = end - j < XENT_LANES ? end - j : XENT_LANES;
        if (j < steps_end || !sum_group(x + j, count, skip - j, keep ? keep + j : NULL, lanes, mode))
            return j;
        j += count;
    }
    return end;
}

static size_t sum_span_masked(const float *x, size_t begin, size_t end, size_t skip, float *keep, vd *lanes)
{
    return sum_span(x, begin, end, skip, keep, lanes, true, MASKED);
}

/* Whether one of the first classes lies well in the window. Then the row is near, unless far above. */
static bool starts_in_window(const float *x, size_t classes)
{
    for (size_t j = 0; j < classes && j < STEP; ++j)
        if (x[j] > -32.0f && x[j] < 32.0f)
            return true;
    return false;
}

/* Adds the classes from begin (a multiple of 32) to end, but skip, to the 32 doubles; returns the largest of max and
   the logits, leaving out any NaN. */
static float sum_span_wide(const float *x, size_t begin, size_t end, size_t skip, struct frame frame, double *lanes,
                           float max)
{
    vf largest = vset(max);
    for (size_t j = begin; j < end; j += VW) {
        const size_t left = end - j;
        vi n;
        vf f;
        if (left >= VW) {
            const vf logits = vload(x + j);
            f = exp_wide(logits, frame, &n);
            largest = vmax(logits, largest);
        } else {
            f = vkeep_first(exp_wide(vload_first(x + j, left), frame, &n), left);
            n = vbits(vkeep_first(vfrom_bits(n), left)); /* 2^n may be infinite for a 0 that is no logit of a far row */
            for (size_t i = j; i < end; ++i)
                max = x[i] > max ? x[i] : max;
        }
        vd_add_wide(lanes + j % XENT_LANES, vdrop_lane(f, skip - j), n);
    }
    const float lanes_max = max_lanes(largest);
    return lanes_max > max ? lanes_max : max;
}

static double fold(double *lane)
{
    for (int half = XENT_LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l)
            lane[l] += lane[l + half];
    return lane[0];
}

/* The largest of max and the logits from begin to end, leaving out any NaN. */
static float span_max(const float *x, size_t begin, size_t end, float max)
{
    vf largest = vset(max);
    size_t j = begin;
    for (; end - j >= VW; j += VW)
        largest = vmax(vload(x + j), largest);
    max = max_lanes(largest);
    for (; j < end; ++j)
        max = x[j] > max ? x[j] : max;
    return max;
}

/* A row being summed. */
struct sum {
    double others; /* the sum over all classes but the one to skip */
    size_t kept;   /* the exponentials of the classes below this are 0 or normal floats, and in the output row if kept */
    float max;     /* the largest logit from there on; -INFINITY if there is none but NaN */
};

/* Sums a row as if it were near, and at least finds out whether it is. keep: NULL, x itself, or disjoint. */
static ALWAYS_INLINE struct sum sum_near(const float *x, float *keep, bool ahead, size_t classes, size_t skip)
{
    struct sum row = {0, 0, -INFINITY};
    enum mode mode = WINDOW;
    for (size_t chunk = 0; chunk < classes; chunk += XENT_CHUNK) {
        const size_t end = classes - chunk < XENT_CHUNK ? classes : chunk + XENT_CHUNK;
        vd sum[VECTORS];
        for (int v = 0; v < VECTORS; ++v)
            vd_zero(&sum[v]);
        if (mode == WINDOW) {
            row.kept = sum_span(x, chunk, end, skip, keep, sum, ahead, WINDOW);
            if (row.kept < end)
                mode = row.kept > 0 || starts_in_window(x, classes) ? MASKED : WIDE;
        }
        if (mode == MASKED) {
            row.kept = sum_span_masked(x, row.kept, end, skip, keep, sum);
            if (row.kept < end)
                mode = WIDE;
        }
        if (mode != WIDE) {
            row.others += vd_fold(sum) * 0x1p896;
            continue;
        }
        double lane[XENT_LANES];
        for (int v = 0; v < VECTORS; ++v)
            vd_get(&sum[v], lane + v * VW);
        for (int l = 0; l < XENT_LANES; ++l)
            lane[l] *= 0x1p896;
        const size_t begin = row.kept > chunk ? row.kept : chunk;
        row.max = sum_span_wide(x, begin, end, skip, (struct frame){0.0f, XENT_NEAR_CUT}, lane, row.max);
        row.others += fold(lane);
        if (row.max >= XENT_NEAR_MAX) {
            row.max = span_max(x, end, classes, row.max);
            break;
        }
    }
    return row;
}

/* Sums a row from class first on (a multiple of 32) in any frame; the classes before it are below the cut. */
static double sum_far(const float *x, size_t first, size_t classes, size_t skip, struct frame frame)
{
    double total = 0;
    for (size_t begin = first, end; begin < classes; begin = end) {
        const size_t chunk = begin / XENT_CHUNK * XENT_CHUNK;
        end = classes - chunk < XENT_CHUNK ? classes : chunk + XENT_CHUNK;
        double lane[XENT_LANES] = {0};
        sum_span_wide(x, begin, end, skip, frame, lane, -INFINITY);
        total += fold(lane);
    }
    return total;
}

/* A row after the first pass. */
struct summed {
    double others;
    size_t kept;
    struct frame frame;
    bool finite; /* whether the row has a finite log-sum-exp */
};

static ALWAYS_INLINE struct summed sum_row(const float *x, float *keep, bool ahead, size_t classes, size_t skip)
{
    const struct sum near = sum_near(x, keep, ahead, classes, skip);
    struct summed row = {near.others, near.kept, {0.0f, XENT_NEAR_CUT}, true};
    if (near.kept == classes)
        return row;
    /* Keeping anything takes a logit in the window, and none above is kept: only what came after can make the row far. */
    const bool far = near.kept > 0 ? near.max >= XENT_NEAR_MAX : !row_is_near(near.max);
    if (far) {
        row.frame = row_frame(near.max);
        row.finite = row_is_finite(near.max);
        if (row.finite)
            row.others = sum_far(x, near.kept, classes, skip, row.frame);
    }
    /* A NaN is in the sum by now, unless it is the class to skip (and then not kept). */
    if (row.others != row.others || (skip < classes && skip >= row.kept && x[skip] != x[skip]))
        row.finite = false;
    return row;
}

/* e (hi + lo) for exponentials e in the window and a multiplier that keeps every product and correction normal. */
static ALWAYS_INLINE void scale_plain(float *out, size_t count, float hi, float lo)
{
    size_t j = 0;
    for (; j + SW <= count; j += SW) {
        const sf e = sload(out + j);
        sstore(out + j, sfma(e, sset(hi), smul(e, sset(lo))));
    }
    for (; j < count; j += VW) {
        const vf e = load_left(out + j, count - j);
        store_left(out + j, vfma(e, vset(hi), vmul(e, vset(lo))), count - j);
    }
}

/* q (hi + lo) 2^-64: the general form, for q 2^64 too large so that everything but the result is normal. */
static ALWAYS_INLINE vf multiply(vf q, struct multiplier m)
{
    return vmul(vfma(q, vset(m.hi), vmul(q, vset(m.lo))), vset(f32_pow2(-XENT_BIAS)));
}

static void scale_kept(float *out, size_t count, struct multiplier m)
{
    /* In two exact steps, or else to nothing: a window's exponential is below 2^80. */
    const int power = m.exponent < -250 ? -250 + XENT_BIAS : m.exponent + XENT_BIAS;
    const vf first = vset(f32_pow2(power / 2)), second = vset(f32_pow2(power - power / 2));
    for (size_t j = 0; j < count; j += VW) {
        const vf q = vmul(vmul(load_left(out + j, count - j), first), second);
        store_left(out + j, multiply(q, m), count - j);
    }
}

static void scale_wide(const float *x, float *out, size_t count, struct frame frame, struct multiplier m)
{
    for (size_t j = 0; j < count; j += VW) {
        vi n;
        const vf f = exp_wide(load_left(x + j, count - j), frame, &n);
        const vi power = viadd(n, viset(m.exponent + XENT_BIAS));
        const vf q = vmul(f, vfrom_bits(vishl(viadd(power, viset(127)), 23)));
        store_left(out + j, multiply(vkeep_int_ge(q, power, -126), m), count - j);
    }
}

static void fill(float *out, size_t count, float value)
{
    for (size_t j = 0; j < count; j += VW)
        store_left(out + j, vset(value), count - j);
}

/* The second pass: out_j = e_j v. */
static ALWAYS_INLINE void scale_row(const float *x, float *out, size_t classes, struct summed row, double v)
{
    const struct multiplier m = row_multiplier(v);
    if (row.frame.cut == XENT_FAR_CUT) {
        fill(out, row.kept, 0.0f);
    } else if (m.exponent >= -46 && m.exponent <= 40) {
        const float power = f32_pow2(m.exponent);
        scale_plain(out, row.kept, m.hi * power, m.lo * power);
    } else {
        scale_kept(out, row.kept, m);
    }
    if (row.kept < classes)
        scale_wide(x + row.kept, out + row.kept, classes - row.kept, row.frame, m);
}

/* One kept row; returns its loss. */
static ALWAYS_INLINE double cross_entropy_row(const float *x, size_t y, float *grad, bool ahead, size_t classes,
                                              double grad_scale, float *lse)
{
    const float x_y = x[y];
    /* Begun before the sum, so that it is done by the end of it; a far row needs another. */
    const struct frame near = {0.0f, XENT_NEAR_CUT};
    const double near_e = row_exponential((double)x_y, near.cut);
    const struct summed sums = sum_row(x, grad, ahead, classes, y);
    if (!sums.finite) {
        if (grad)
            fill(grad, classes, NAN);
        *lse = NAN;
        return (double)NAN;
    }
    const double z = (double)x_y - (double)sums.frame.ref;
    const double e = sums.frame.cut == XENT_NEAR_CUT ? near_e : row_exponential(z, sums.frame.cut);
    const struct row_result row = row_finish(sums.others, e, z);
    *lse = f64_to_f32((double)sums.frame.ref + row.log_sum);
    if (grad) {
        scale_row(x, grad, classes, sums, grad_scale / row.sum);
        grad[y] = row_target_gradient(sums.others, row.sum, grad_scale);
    }
    return row.loss;
}

static void cross_entropy(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *grad = job->out ? job->out + i * job->out_stride : NULL;
        const int64_t target = xent_job_target(job, i);
        double loss = 0;
        float lse = 0;
        if (target == job->ignore_index) {
            if (grad)
                fill(grad, job->classes, 0.0f);
        } else if (!grad) {
            loss = cross_entropy_row(x, (size_t)target, NULL, true, job->classes, 0, &lse);
        } else if (grad == x) {
            loss = cross_entropy_row(x, (size_t)target, grad, true, job->classes, job->grad_scale, &lse);
        } else {
            loss = cross_entropy_row(x, (size_t)target, grad, false, job->classes, job->grad_scale, &lse);
        }
        xent_job_add_loss(job, i, loss);
        if (job->loss)
            job->loss[i] = f64_to_f32(loss);
        if (job->lse)
            job->lse[i] = lse;
    }
}

static void softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *out = job->out ? job->out + i * job->out_stride : NULL;
        const struct summed row =
            out ? sum_row(x, out, false, job->classes, SIZE_MAX) : sum_row(x, NULL, true, job->classes, SIZE_MAX);
        if (job->lse)
            job->lse[i] = row.finite ? f64_to_f32((double)row.frame.ref + row_finish(row.others, 0, 0).log_sum) : NAN;
        if (out && row.finite)
            scale_row(x, out, job->classes, row, 1 / row.others);
        else if (out)
            fill(out, job->classes, NAN);
    }
}

/* The first class with the largest logit, leaving out any NaN; classes if there is none. */
static size_t row_argmax(const float *x, size_t classes)
{
    const float max = span_max(x, 0, classes, -INFINITY);
    size_t j = 0;
    while (j < classes && x[j] != max)
        ++j;
    return j;
}

static void log_softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *out = job->out + i * job->out_stride;
        const size_t y = row_argmax(x, job->classes);
        const struct summed sums = sum_row(x, NULL, true, job->classes, y);
        if (!sums.finite) {
            fill(out, job->classes, NAN);
            continue;
        }
        const double target_z = (double)x[y] - (double)sums.frame.ref;
        const struct row_result row =
            row_finish(sums.others, row_exponential(target_z, sums.frame.cut), target_z);
        const float hi = (float)row.log_sum;
        const float lo = (float)(row.log_sum - (double)hi);
        for (size_t j = 0; j < job->classes; j += VW) {
            const vf z = vsub(load_left(x + j, job->classes - j), vset(sums.frame.ref));
            store_left(out + j, vsub(vsub(z, vset(hi)), vset(lo)), job->classes - j);
        }
        out[y] = -f64_to_f32(row.loss);
    }
}
