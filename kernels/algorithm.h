/*
 * The algorithm of docs/numerics.md, written once over the vector operations that the including file defines.
 *
 * A row is summed in one pass and its results are formed in a second one, from cache. While every logit lies in the
 * *window* (about [-33.2, 55.4]: |8 z log2 e| stays in [-384, 639]) its exponential is a normal float, needs no frame
 * and no maximum, and is kept in the output row for the second pass to scale. The first block that leaves the window
 * turns the rest of the row *wide*: exponents and significands apart, sums in full double range, nothing kept. Both ways
 * give the same bits, because every factor between them is a power of two.
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
 *   vf  vtable(table, t)              the float whose bits are table[bits(t) & 7] + (bits(t) << 20), modulo 2^32; table
 *                                     has 8 entries, twice
 *   vi  vbits(v), vf vfrom_bits(w)    the lanes' bits
 *   vi  viset(int), viadd, visub      32-bit integers
 *   vi  vishl(w, c), visar(w, c)      shifts by a constant: left, arithmetic right
 *   vf  vkeep_int_ge(v, w, c)         v where the integer w >= c, +0 elsewhere
 *   vf  vkeep_ge(v, q, c)             v where q >= c, +0 elsewhere
 *   vi  vstray(acc, t, base)          acc | (bits(t) ^ base), lane by lane
 *   bool vstrayed(acc, mask)          whether any lane of acc & mask is not 0
 *   float vmax_lanes(v)               the largest lane (unspecified if there is a NaN)
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
    WINDOW_LOW = -384,
    WINDOW_SIZE = 1024,
    PREFETCH = 1024 /* floats ahead; 3-5 % on rows from memory */
};

/* What the first pass does with the exponentials: nothing, or keeps them in the output row, which may be the logits. */
enum keep { KEEP_NOTHING, KEEP_APART, KEEP_IN_PLACE };

#define ROUNDER 0x1.8p23f
static const int32_t rounder_bits = 0x4b400000;

/* The bits of T[k], less what k and the low end of the window add to them when shifted left by 20. */
#define ENTRY(k, bits) (int32_t)((bits) - ((k) << 20) - ((uint32_t)-WINDOW_LOW << 20))
static const int32_t table[16] = {XENT_TABLE(ENTRY), XENT_TABLE(ENTRY)};
#undef ENTRY

static ALWAYS_INLINE vf exp_reduce(vf z, vf *t)
{
    const vf rounder = vset(ROUNDER - WINDOW_LOW);
    *t = vfma(z, vset(XENT_8LOG2E), rounder);
    const vf n8 = vsub(*t, rounder);
    return vfnma(n8, vset(XENT_LN2_8_LO), vfnma(n8, vset(XENT_LN2_8_HI), z));
}

/* S (1 + r + C2 r^2 + C3 r^3) */
static ALWAYS_INLINE vf exp_polynomial(vf S, vf r)
{
    const vf p = vfma(vfma(vset(XENT_C3), r, vset(XENT_C2)), r, vset(1.0f));
    return vfma(vmul(S, r), p, S);
}

/* e[i] = K exp(x[i]), provided that no lane strays from the window. Two at a time, step by step, keep the multipliers
   busier than one after the other: 2 to 5 % of a forward. */
static ALWAYS_INLINE void exp_window(const vf *x, vf *e, int count, vi *stray)
{
    vf t[2], r[2];
    for (int i = 0; i < count; ++i)
        r[i] = exp_reduce(x[i], &t[i]);
    for (int i = 0; i < count; ++i)
        *stray = vstray(*stray, t[i], rounder_bits);
    for (int i = 0; i < count; ++i)
        e[i] = exp_polynomial(vtable(table, t[i]), r[i]);
}

/* K exp(x - ref) = result * 2^n for any x; 0 * 2^n at or below the cut. */
static ALWAYS_INLINE vf exp_wide(vf x, struct frame frame, vi *n)
{
    const vf cut = vset(frame.cut);
    const vf z = vmax(cut, vsub(x, vset(frame.ref)));
    vf t;
    const vf r = exp_reduce(z, &t);
    *n = visar(visub(vbits(t), viset(rounder_bits - WINDOW_LOW)), 3);
    const vf T = vfrom_bits(visub(vbits(vtable(table, t)), vishl(*n, 23)));
    return vkeep_above(exp_polynomial(T, r), z, cut);
}

/* One group of 32 classes, or its first count: exponentials to *lanes, and to keep unless that is NULL. */
static ALWAYS_INLINE void group_window(const float *x, float *keep, size_t count, size_t skip, vd *lanes, vi *stray)
{
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        const size_t left = count - v * VW;
        const bool whole = left >= VW;
        const vf logits = whole ? vload(x + v * VW) : vload_first(x + v * VW, left);
        vf e;
        exp_window(&logits, &e, 1, stray);
        if (!whole)
            e = vkeep_first(e, left);
        if (keep && whole)
            vstore(keep + v * VW, e);
        else if (keep)
            vstore_first(keep + v * VW, e, left);
        vd_add(&lanes[v], vdrop_lane(e, skip - v * VW));
    }
}

/* The same for whole groups without a class to skip: the loop that everything else exists to reach. The logits go to
   save, unless that is NULL. */
static ALWAYS_INLINE void groups_window(const float *x, size_t count, float *keep, float *save, vd *lanes, vi *stray)
{
    vd sum[VECTORS];
    vi strayed = *stray;
    memcpy(sum, lanes, sizeof sum);
    for (size_t j = 0; j < count; j += XENT_LANES) {
        prefetch(x + j + PREFETCH);
        prefetch(x + j + PREFETCH + XENT_LANES / 2);
        for (int v = 0; v < VECTORS; v += 2) {
            const vf logits[2] = {vload(x + j + v * VW), vload(x + j + (v + 1) * VW)};
            vf e[2];
            exp_window(logits, e, 2, &strayed);
            for (int i = 0; i < 2; ++i) {
                if (save)
                    vstore(save + j + (v + i) * VW, logits[i]);
                if (keep)
                    vstore(keep + j + (v + i) * VW, e[i]);
                vd_add(&sum[v + i], e[i]);
            }
        }
    }
    memcpy(lanes, sum, sizeof sum);
    *stray = strayed;
}

static ALWAYS_INLINE void copy_group(float *to, const float *from, size_t count)
{
    for (size_t j = 0; j < count; j += VW) {
        if (count - j >= VW)
            vstore(to + j, vload(from + j));
        else
            vstore_first(to + j, vload_first(from + j, count - j), count - j);
    }
}

/* Adds up to XENT_BLOCK classes to the lanes, unless one strays from the window: then it only leaves anything in keep,
   where that is not the logits themselves. */
static ALWAYS_INLINE bool block_window(const float *x, float *keep, enum keep how, size_t count, size_t skip, vd *lanes)
{
    float original[XENT_BLOCK];
    float *save = how == KEEP_IN_PLACE ? original : NULL;
    vd sum[VECTORS];
    memcpy(sum, lanes, sizeof sum);
    vi stray = viset(0);
    const size_t whole = count / XENT_LANES * XENT_LANES;
    size_t j = 0;
    if (skip < whole) {
        j = skip / XENT_LANES * XENT_LANES;
        groups_window(x, j, keep, save, sum, &stray);
        if (save)
            copy_group(save + j, x + j, XENT_LANES);
        group_window(x + j, keep ? keep + j : NULL, XENT_LANES, skip - j, sum, &stray);
        j += XENT_LANES;
    }
    groups_window(x + j, whole - j, keep ? keep + j : NULL, save ? save + j : NULL, sum, &stray);
    if (save && whole < count)
        copy_group(save + whole, x + whole, count - whole);
    if (whole < count)
        group_window(x + whole, keep ? keep + whole : NULL, count - whole, skip - whole, sum, &stray);
    if (vstrayed(stray, ~(WINDOW_SIZE - 1))) {
        if (save)
            memcpy(keep, save, count * sizeof *x);
        return false;
    }
    memcpy(lanes, sum, sizeof sum);
    return true;
}

/* Adds count classes to the 32 doubles; returns the largest of max and the logits, leaving out any NaN. */
static float span_wide(const float *x, size_t count, size_t skip, struct frame frame, double *lanes, float max)
{
    vf largest = vset(max);
    for (size_t j = 0; j < count; j += VW) {
        const size_t left = count - j;
        vi n;
        vf f;
        if (left >= VW) {
            const vf logits = vload(x + j);
            f = exp_wide(logits, frame, &n);
            largest = vmax(logits, largest);
        } else {
            f = vkeep_first(exp_wide(vload_first(x + j, left), frame, &n), left);
            n = vbits(vkeep_first(vfrom_bits(n), left)); /* 2^n may be infinite for a 0 that is no logit of a far row */
            for (size_t i = j; i < count; ++i)
                max = x[i] > max ? x[i] : max;
        }
        vd_add_wide(lanes + j % XENT_LANES, vdrop_lane(f, skip - j), n);
    }
    const float lanes_max = vmax_lanes(largest);
    return lanes_max > max ? lanes_max : max;
}

static double fold(double *lane)
{
    for (int half = XENT_LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l)
            lane[l] += lane[l + half];
    return lane[0];
}

/* A row being summed. */
struct sum {
    double others; /* the sum over all classes but the one to skip */
    size_t kept;   /* the exponentials of the classes below this are normal floats, and in the output row if kept */
    float max;     /* the largest logit from there on; -INFINITY if there is none but NaN */
};

/* Sums a row as if it were near. keep: the output row, x itself or disjoint. */
static ALWAYS_INLINE struct sum sum_near(const float *x, float *keep, enum keep how, size_t classes, size_t skip)
{
    struct sum row = {0, 0, -INFINITY};
    bool window = true;
    for (size_t chunk = 0; chunk < classes; chunk += XENT_CHUNK) {
        const size_t end = classes - chunk < XENT_CHUNK ? classes : chunk + XENT_CHUNK;
        vd sum[VECTORS];
        for (int v = 0; v < VECTORS; ++v)
            vd_zero(&sum[v]);
        size_t j = chunk;
        while (window && j < end) {
            const size_t count = end - j < XENT_BLOCK ? end - j : XENT_BLOCK;
            window = block_window(x + j, how == KEEP_NOTHING ? NULL : keep + j, how, count, skip - j, sum);
            if (window)
                row.kept = j += count;
        }
        if (window) {
            row.others += vd_fold(sum) * 0x1p896;
            continue;
        }
        double lane[XENT_LANES];
        for (int v = 0; v < VECTORS; ++v)
            vd_get(&sum[v], lane + v * VW);
        for (int l = 0; l < XENT_LANES; ++l)
            lane[l] *= 0x1p896;
        row.max = span_wide(x + j, end - j, skip - j, (struct frame){0.0f, XENT_NEAR_CUT}, lane, row.max);
        row.others += fold(lane);
    }
    return row;
}

/* Sums a row from class first on (a multiple of XENT_BLOCK) in any frame; the classes before it are below the cut. */
static double sum_far(const float *x, size_t first, size_t classes, size_t skip, struct frame frame)
{
    double total = 0;
    for (size_t j = first, end; j < classes; j = end) {
        const size_t chunk = j / XENT_CHUNK * XENT_CHUNK;
        end = classes - chunk < XENT_CHUNK ? classes : chunk + XENT_CHUNK;
        double lane[XENT_LANES] = {0};
        span_wide(x + j, end - j, skip - j, frame, lane, -INFINITY);
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

static ALWAYS_INLINE struct summed sum_row(const float *x, float *keep, enum keep how, size_t classes, size_t skip)
{
    const struct sum near = sum_near(x, keep, how, classes, skip);
    struct summed row = {near.others, near.kept, {0.0f, XENT_NEAR_CUT}, true};
    if (near.kept == classes)
        return row;
    /* What lies in the window cannot make a row far above, and keeps it from being far below. */
    const bool far = near.kept > 0 ? near.max >= XENT_NEAR_MAX : !row_is_near(near.max);
    if (far) {
        row.frame = row_frame(near.max);
        row.finite = row_is_finite(near.max);
        if (row.finite)
            row.others = sum_far(x, near.kept, classes, skip, row.frame);
    }
    /* A NaN is in the sum by now, unless it is the class to skip. */
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
        const size_t left = count - j < VW ? count - j : VW;
        const vf e = vload_first(out + j, left);
        vstore_first(out + j, vfma(e, vset(hi), vmul(e, vset(lo))), left);
    }
}

/* q (hi + lo), where q is 2^(exponent + 64) too large for a multiplier of 1: the general form. */
static ALWAYS_INLINE vf multiply(vf q, struct multiplier m)
{
    return vfma(q, vset(m.hi), vkeep_ge(vmul(q, vset(m.lo)), q, XENT_CORRECTION_MIN));
}

static void scale_kept(float *out, size_t count, struct multiplier m)
{
    /* In two exact steps, or else to nothing: a window's exponential is below 2^80. */
    const int power = m.exponent < -250 ? -250 + XENT_BIAS : m.exponent + XENT_BIAS;
    const vf first = vset(f32_pow2(power / 2)), second = vset(f32_pow2(power - power / 2));
    for (size_t j = 0; j < count; j += VW) {
        const size_t left = count - j < VW ? count - j : VW;
        const vf q = vmul(vmul(vload_first(out + j, left), first), second);
        vstore_first(out + j, multiply(q, m), left);
    }
}

static void scale_wide(const float *x, float *out, size_t count, struct frame frame, struct multiplier m)
{
    for (size_t j = 0; j < count; j += VW) {
        const size_t left = count - j < VW ? count - j : VW;
        vi n;
        const vf f = exp_wide(vload_first(x + j, left), frame, &n);
        const vi power = viadd(n, viset(m.exponent + XENT_BIAS));
        const vf q = vmul(f, vfrom_bits(vishl(viadd(power, viset(127)), 23)));
        vstore_first(out + j, multiply(vkeep_int_ge(q, power, -126), m), left);
    }
}

static void fill(float *out, size_t count, float value)
{
    size_t j = 0;
    for (; j + VW <= count; j += VW)
        vstore(out + j, vset(value));
    if (j < count)
        vstore_first(out + j, vset(value), count - j);
}

/* The second pass: out_j = e_j v. */
static ALWAYS_INLINE void scale_row(const float *x, float *out, size_t classes, struct summed row, double v)
{
    const struct multiplier m = row_multiplier(v);
    if (row.frame.cut == XENT_FAR_CUT) {
        fill(out, row.kept, 0.0f);
    } else if (m.exponent >= -46 && m.exponent <= 40) {
        const float power = f32_pow2(m.exponent + XENT_BIAS);
        scale_plain(out, row.kept, m.hi * power, m.lo * power);
    } else {
        scale_kept(out, row.kept, m);
    }
    if (row.kept < classes)
        scale_wide(x + row.kept, out + row.kept, classes - row.kept, row.frame, m);
}

/* One kept row; returns its loss. */
static ALWAYS_INLINE double cross_entropy_row(const float *x, size_t y, float *grad, enum keep how, size_t classes,
                                              double grad_scale, float *lse)
{
    const float x_y = x[y];
    /* Begun before the sum, so that it is done by the end of it; a far row needs another. */
    const struct frame near = {0.0f, XENT_NEAR_CUT};
    const double near_e = row_exponential(x_y, near);
    const struct summed sums = sum_row(x, grad, how, classes, y);
    if (!sums.finite) {
        if (how != KEEP_NOTHING)
            fill(grad, classes, NAN);
        *lse = NAN;
        return (double)NAN;
    }
    const double e = sums.frame.cut == XENT_NEAR_CUT ? near_e : row_exponential(x_y, sums.frame);
    const struct row_result row = row_finish(sums.others, e, x_y, sums.frame);
    *lse = f64_to_f32((double)sums.frame.ref + row.log_sum);
    if (how != KEEP_NOTHING) {
        scale_row(x, grad, classes, sums, grad_scale / row.sum);
        grad[y] = row_target_gradient(sums.others, row.sum, grad_scale);
    }
    return row.loss;
}

static double cross_entropy(const struct xent_job *job, size_t first, size_t last, double loss_sum)
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
            loss = cross_entropy_row(x, (size_t)target, NULL, KEEP_NOTHING, job->classes, 0, &lse);
        } else if (grad == x) {
            loss = cross_entropy_row(x, (size_t)target, grad, KEEP_IN_PLACE, job->classes, job->grad_scale, &lse);
        } else {
            loss = cross_entropy_row(x, (size_t)target, grad, KEEP_APART, job->classes, job->grad_scale, &lse);
        }
        loss_sum += loss;
        if (job->loss)
            job->loss[i] = f64_to_f32(loss);
        if (job->lse)
            job->lse[i] = lse;
    }
    return loss_sum;
}

static void softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *out = job->out ? job->out + i * job->out_stride : NULL;
        const struct summed row = !out       ? sum_row(x, NULL, KEEP_NOTHING, job->classes, SIZE_MAX)
                                  : out == x ? sum_row(x, out, KEEP_IN_PLACE, job->classes, SIZE_MAX)
                                             : sum_row(x, out, KEEP_APART, job->classes, SIZE_MAX);
        if (job->lse)
            job->lse[i] = row.finite ? f64_to_f32((double)row.frame.ref + (f64_log(row.others) - XENT_LN_K)) : NAN;
        if (out && row.finite)
            scale_row(x, out, job->classes, row, 1 / row.others);
        else if (out)
            fill(out, job->classes, NAN);
    }
}

/* The first class with the largest logit, leaving out any NaN; classes if there is none. */
static size_t row_argmax(const float *x, size_t classes)
{
    vf largest = vset(-INFINITY);
    size_t j = 0;
    for (; j + VW <= classes; j += VW)
        largest = vmax(vload(x + j), largest);
    float max = vmax_lanes(largest);
    for (; j < classes; ++j)
        max = x[j] > max ? x[j] : max;
    for (j = 0; j < classes && x[j] != max; ++j)
        continue;
    return j;
}

static void log_softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *out = job->out + i * job->out_stride;
        const size_t y = row_argmax(x, job->classes);
        const struct summed sums = sum_row(x, NULL, KEEP_NOTHING, job->classes, y);
        if (!sums.finite) {
            fill(out, job->classes, NAN);
            continue;
        }
        const struct row_result row = row_finish(sums.others, row_exponential(x[y], sums.frame), x[y], sums.frame);
        const float hi = (float)row.log_sum;
        const float lo = (float)(row.log_sum - (double)hi);
        for (size_t j = 0; j < job->classes; j += VW) {
            const size_t left = job->classes - j < VW ? job->classes - j : VW;
            const vf z = vsub(vload_first(x + j, left), vset(sums.frame.ref));
            vstore_first(out + j, vsub(vsub(z, vset(hi)), vset(lo)), left);
        }
        out[y] = -f64_to_f32(row.loss);
    }
}
