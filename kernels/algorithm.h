/*
 * The algorithm of docs/numerics.md, written once over the vector operations that the including file defines.
 *
 * A row is summed in one pass and its results are formed in a second one, from cache. While every logit lies in the
 * *window* (about [-33.2, 55.4]: rint(8 z log2 e) in [-384, 639]) its exponential is a normal float, needs no frame
 * and no maximum, and is kept in the output row for the second pass to scale. The first step that leaves the window
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
 *   vi  vstray(a, b, base)            (bits(a) ^ base) | (bits(b) ^ base)
 *   vi  vior(w, x)                    bitwise or
 *   bool vany(w, mask)                whether any lane of w & mask is not 0
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
    STEP = VW == 16 ? 64 : 32, /* classes that are checked against the window before any of them is final */
    WINDOW_LOW = -384,
    WINDOW_SIZE = 1024,
    PREFETCH = 1024 /* floats ahead; 3-5 % on rows from memory */
};

#define ROUNDER 0x1.8p23f
static const int32_t rounder_bits = 0x4b400000;

/* The bits of T[k], less what k and the low end of the window add to them when shifted left by 20. */
#define ENTRY(k, bits) (int32_t)((bits) - ((k) << 20) - ((uint32_t)-WINDOW_LOW << 20))
static const int32_t table[16] = {XENT_TABLE(ENTRY), XENT_TABLE(ENTRY)};
#undef ENTRY

/* 8 n + k, in the low bits of a float. */
static ALWAYS_INLINE vf exp_round(vf z)
{
    return vfma(z, vset(XENT_8LOG2E), vset(ROUNDER - WINDOW_LOW));
}

/* r */
static ALWAYS_INLINE vf exp_reduce(vf z, vf t)
{
    const vf n8 = vsub(t, vset(ROUNDER - WINDOW_LOW));
    return vfnma(n8, vset(XENT_LN2_8_LO), vfnma(n8, vset(XENT_LN2_8_HI), z));
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
    *n = visar(visub(vbits(t), viset(rounder_bits - WINDOW_LOW)), 3);
    const vf T = vfrom_bits(visub(vbits(vtable(table, t)), vishl(*n, 23)));
    return vkeep_above(exp_polynomial(T, exp_reduce(z, t)), z, cut);
}

/* Adds the exponentials of whole steps of classes, from begin (a multiple of 32) to end, to their lanes; keep, unless it
   is NULL, receives them. Stops before the first step with a logit outside the window, and returns how far it came.
   This is the loop that everything else exists to reach. */
static ALWAYS_INLINE size_t steps_window(const float *x, size_t begin, size_t end, float *keep, vd *lanes)
{
    vd sum[VECTORS];
    memcpy(sum, lanes, sizeof sum);
    size_t j = begin;
    for (; j != end; j += STEP) {
        for (int i = 0; i < STEP; i += 16)
            prefetch(x + j + PREFETCH + i);
        vf t[STEP / VW];
        for (int v = 0; v < STEP / VW; ++v)
            t[v] = exp_round(vload(x + j + v * VW));
        vi stray = vstray(t[0], t[1], rounder_bits);
        for (int v = 2; v < STEP / VW; v += 2)
            stray = vior(stray, vstray(t[v], t[v + 1], rounder_bits));
        if (vany(stray, ~(WINDOW_SIZE - 1)))
            break;
        /* Two vectors side by side keep the multipliers busier than one after the other: 2 to 5 % of a forward. */
        for (int v = 0; v < STEP / VW; v += 2) {
            vf r[2], e[2];
            for (int i = 0; i < 2; ++i)
                r[i] = exp_reduce(vload(x + j + (v + i) * VW), t[v + i]);
            for (int i = 0; i < 2; ++i)
                e[i] = exp_polynomial(vtable(table, t[v + i]), r[i]);
            for (int i = 0; i < 2; ++i) {
                if (keep)
                    vstore(keep + j + (v + i) * VW, e[i]);
                vd_add(&sum[(v + i) % VECTORS], e[i]);
            }
        }
    }
    memcpy(lanes, sum, sizeof sum);
    return j;
}

/* The same for one group, of which only the first count classes exist and skip is left out of the lanes. Returns whether
   all logits lie in the window; otherwise nothing has happened. */
static ALWAYS_INLINE bool group_window(const float *x, size_t count, size_t skip, float *keep, vd *lanes)
{
    vf e[VECTORS];
    for (size_t v = 0; v < VECTORS; ++v)
        e[v] = vset(0.0f);
    vi stray = viset(0);
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        const size_t left = count - v * VW;
        const vf logits = left >= VW ? vload(x + v * VW) : vload_first(x + v * VW, left);
        const vf t = exp_round(logits);
        stray = vior(stray, vstray(t, t, rounder_bits));
        e[v] = vkeep_first(exp_polynomial(vtable(table, t), exp_reduce(logits, t)), left);
    }
    if (vany(stray, ~(WINDOW_SIZE - 1)))
        return false;
    for (size_t v = 0; v < VECTORS && v * VW < count; ++v) {
        if (keep && count - v * VW >= VW)
            vstore(keep + v * VW, e[v]);
        else if (keep)
            vstore_first(keep + v * VW, e[v], count - v * VW);
        vd_add(&lanes[v], vdrop_lane(e[v], skip - v * VW));
    }
    return true;
}

/* All classes from begin (a multiple of 32) to end, but skip; stops where the row leaves the window, and returns where. */
static ALWAYS_INLINE size_t span_window(const float *x, size_t begin, size_t end, size_t skip, float *keep, vd *lanes)
{
    size_t j = begin;
    while (j < end) {
        const size_t stop = skip >= j && skip < end ? skip / XENT_LANES * XENT_LANES : end;
        const size_t steps_end = j + (stop - j) / STEP * STEP;
        j = steps_window(x, j, steps_end, keep, lanes);
        const size_t count = end - j < XENT_LANES ? end - j : XENT_LANES;
        if (j < steps_end || !group_window(x + j, count, skip - j, keep ? keep + j : NULL, lanes))
            return j;
        j += count;
    }
    return end;
}

/* Adds the classes from begin (a multiple of 32) to end, but skip, to the 32 doubles; returns the largest of max and
   the logits, leaving out any NaN. */
static float span_wide(const float *x, size_t begin, size_t end, size_t skip, struct frame frame, double *lanes,
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

/* Sums a row as if it were near. keep: NULL, x itself, or disjoint. */
static ALWAYS_INLINE struct sum sum_near(const float *x, float *keep, size_t classes, size_t skip)
{
    struct sum row = {0, 0, -INFINITY};
    for (size_t chunk = 0; chunk < classes; chunk += XENT_CHUNK) {
        const size_t end = classes - chunk < XENT_CHUNK ? classes : chunk + XENT_CHUNK;
        vd sum[VECTORS];
        for (int v = 0; v < VECTORS; ++v)
            vd_zero(&sum[v]);
        if (row.kept == chunk)
            row.kept = span_window(x, chunk, end, skip, keep, sum);
        if (row.kept == end) {
            row.others += vd_fold(sum) * 0x1p896;
            continue;
        }
        double lane[XENT_LANES];
        for (int v = 0; v < VECTORS; ++v)
            vd_get(&sum[v], lane + v * VW);
        for (int l = 0; l < XENT_LANES; ++l)
            lane[l] *= 0x1p896;
        const size_t begin = row.kept > chunk ? row.kept : chunk;
        row.max = span_wide(x, begin, end, skip, (struct frame){0.0f, XENT_NEAR_CUT}, lane, row.max);
        row.others += fold(lane);
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
        span_wide(x, begin, end, skip, frame, lane, -INFINITY);
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

static ALWAYS_INLINE struct summed sum_row(const float *x, float *keep, size_t classes, size_t skip)
{
    const struct sum near = sum_near(x, keep, classes, skip);
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
static ALWAYS_INLINE double cross_entropy_row(const float *x, size_t y, float *grad, size_t classes,
                                              double grad_scale, float *lse)
{
    const float x_y = x[y];
    /* Begun before the sum, so that it is done by the end of it; a far row needs another. */
    const struct frame near = {0.0f, XENT_NEAR_CUT};
    const double near_e = row_exponential(x_y, near);
    const struct summed sums = sum_row(x, grad, classes, y);
    if (!sums.finite) {
        if (grad)
            fill(grad, classes, NAN);
        *lse = NAN;
        return (double)NAN;
    }
    const double e = sums.frame.cut == XENT_NEAR_CUT ? near_e : row_exponential(x_y, sums.frame);
    const struct row_result row = row_finish(sums.others, e, x_y, sums.frame);
    *lse = f64_to_f32((double)sums.frame.ref + row.log_sum);
    if (grad) {
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
            loss = cross_entropy_row(x, (size_t)target, NULL, job->classes, 0, &lse);
        } else {
            loss = cross_entropy_row(x, (size_t)target, grad, job->classes, job->grad_scale, &lse);
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
        const struct summed row =
            out ? sum_row(x, out, job->classes, SIZE_MAX) : sum_row(x, NULL, job->classes, SIZE_MAX);
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
        const struct summed sums = sum_row(x, NULL, job->classes, y);
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
