/* Part of kernels/algorithm.h: the second pass over a row, from exponentials to gradients or probabilities. */
#ifndef XENT_KERNELS_ROW_SCALE_H
#define XENT_KERNELS_ROW_SCALE_H

/* q (hi + lo) 2^-64: the general form, for q 2^64 too large so that everything but the result is normal. What would be
   subnormal is rounded to a whole number of 2^-149 by an addition, which is faster than subnormal arithmetic on many
   processors. */
static ALWAYS_INLINE vf multiply(vf q, vf hi, vf lo)
{
    const vf large = vfma(q, hi, vmul(q, lo));
    const vf normal = vkeep_above(large, large, vset(0x1.fffffep-63f));
    const vf units = vfma(vsub(large, normal), vset(f32_pow2(149 - XENT_BIAS)), vset(0x1p23f));
    return vfrom_bits(vior(vbits(vmul(normal, vset(f32_pow2(-XENT_BIAS)))), visub(vbits(units), vbits(vset(0x1p23f)))));
}

/* The same for f 2^n and a multiplier 2^exponent (hi + lo). */
static ALWAYS_INLINE vf multiply_wide(vf f, vi n, vi exponent, vf hi, vf lo)
{
    const vi power = viadd(viadd(n, exponent), viset(XENT_BIAS));
    const vf q = vmul(f, vfrom_bits(vishl(viadd(power, viset(127)), 23)));
    return multiply(vkeep_int_ge(q, power, XENT_VANISHED), hi, lo);
}

enum { PLAIN_LEAST = -46, PLAIN_MOST = 40 };

/* Whether window exponentials can be multiplied as they are. */
static ALWAYS_INLINE bool is_plain(int exponent)
{
    return exponent >= PLAIN_LEAST && exponent <= PLAIN_MOST;
}

/* The same of VW rows. */
static ALWAYS_INLINE bool are_plain(vi exponents)
{
    const vi signs = vior(visub(exponents, viset(PLAIN_LEAST)), visub(viset(PLAIN_MOST), exponents));
    return !vany(signs, INT32_MIN);
}

static void scale_kept(float *out, size_t count, struct multiplier m)
{
    /* In two exact steps, or else to nothing: a window's exponential is below 2^80. */
    const int power = m.exponent < -250 ? -250 + XENT_BIAS : m.exponent + XENT_BIAS;
    const vf first = vset(f32_pow2(power / 2)), second = vset(f32_pow2(power - power / 2));
    for (size_t j = 0; j < count; j += VW) {
        const vf q = vmul(vmul(load_left(out + j, count - j), first), second);
        store_left(out + j, multiply(q, vset(m.hi), vset(m.lo)), count - j);
    }
}

static ALWAYS_INLINE vf scale_one_wide(vf x, struct frame frame, struct multiplier m)
{
    vi n;
    const vf f = exp_wide(x, vset(frame.ref), vset(frame.cut), &n);
    return multiply_wide(f, n, viset(m.exponent), vset(m.hi), vset(m.lo));
}

static void scale_wide(const float *x, float *out, size_t count, struct frame frame, struct multiplier m)
{
    size_t j = 0;
    for (; count - j >= 4 * VW; j += 4 * VW) {
        vf g[4];
        for (int i = 0; i < 4; ++i)
            g[i] = scale_one_wide(vload(x + j + i * VW), frame, m);
        for (int i = 0; i < 4; ++i)
            vstore(out + j + i * VW, g[i]);
    }
    for (; j < count; j += VW)
        store_left(out + j, scale_one_wide(load_left(x + j, count - j), frame, m), count - j);
}

/* The same past the caches, for a row whose logits, but for masked ones, all lie in the window of its frame, and a
   plain multiplier. */
static NOINLINE void scale_again(const float *x, float *out, size_t count, struct frame frame, float hi, float lo)
{
    const vf vhi = vset(hi), vlo = vset(lo);
    size_t j = 0;
    for (const size_t head = to_line(out, count); j < head; j += VW)
        store_left(out + j, gradient_again(load_left(x + j, head - j), FAR_MASKED, frame, vhi, vlo), head - j);
    for (j = to_line(out, count); count - j >= LINE; j += LINE)
        for (size_t i = j; i < j + LINE; i += VW)
            vstream(out + i, gradient_again(vload(x + i), FAR_MASKED, frame, vhi, vlo));
    for (; j < count; j += VW)
        store_left(out + j, gradient_again(load_left(x + j, count - j), FAR_MASKED, frame, vhi, vlo), count - j);
}

static void fill(float *out, size_t count, float value)
{
    for (size_t j = 0; j < count; j += VW)
        store_left(out + j, vset(value), count - j);
}

/* Past the caches. */
static void fill_stream(float *out, size_t count, float value)
{
    const size_t head = to_line(out, count), lines = (count - head) / LINE * LINE;
    fill(out, head, value);
    for (size_t j = head; j < head + lines; j += VW)
        vstream(out + j, vset(value));
    fill(out + head + lines, count - head - lines, value);
}

/* The same with what is in an array. */
static void copy_stream(float *out, size_t count, const float *from)
{
    const size_t head = to_line(out, count), lines = (count - head) / LINE * LINE;
    memcpy(out, from, head * sizeof *out);
    for (size_t j = head; j < head + lines; j += VW)
        vstream(out + j, vload(from + j));
    memcpy(out + head + lines, from + head + lines, (count - head - lines) * sizeof *out);
}

/* Classes from begin to end of a row, times m: +0 before zeros, then what the first pass has kept in out, then the
 * rest. */
static ALWAYS_INLINE void scale_span(const float *x, float *out, size_t begin, size_t end, size_t zeros, size_t kept,
                                     struct frame frame, struct multiplier m)
{
    fill(out + begin, zeros - begin, 0.0f);
    if (is_plain(m.exponent))
        scale_plain(out + zeros, kept - zeros, m.hi * f32_pow2(m.exponent), m.lo * f32_pow2(m.exponent));
    else
        scale_kept(out + zeros, kept - zeros, m);
    if (kept < end)
        scale_wide(x + kept, out + kept, end - kept, frame, m);
}

/* The same with products in double, for a multiplier that may make anything of an exponential. */
static void scale_unbounded(const float *x, float *out, size_t begin, size_t end, size_t zeros, size_t kept,
                            struct frame frame, double v)
{
    for (size_t j = begin; j < kept; ++j)
        out[j] = multiply_unbounded(j < zeros ? 0 : (double)out[j], v);
    for (size_t j = kept; j < end; j += VW) {
        const size_t left = end - j;
        float f[VW];
        int32_t power[VW];
        vi n;
        vstore(f, exp_wide(load_left(x + j, left), vset(frame.ref), vset(frame.cut), &n));
        vistore(power, n);
        for (size_t i = 0; i < VW && i < left; ++i)
            out[j + i] = multiply_unbounded((double)f[i] * f64_pow2(power[i]), v);
    }
}

/* What a row's distribution takes off its gradient: B w_j and N q_j w_j. */
struct taking {
    double B;       /* scale even; 0 if even is */
    const float *w; /* NULL: all 1 */
    const float *q; /* NULL: none of it */
    struct taken shares;
};

/* N q_j w_j in double. */
static NOINLINE void take_shares_general(float *out, size_t count, const float *w, const float *q, double N)
{
    if (w)
        for (size_t j = 0; j < count; ++j)
            out[j] = distribution_less(out[j], distribution_share_taken(N, (double)q[j] * (double)w[j]));
    else
        for (size_t j = 0; j < count; ++j)
            out[j] = distribution_less(out[j], distribution_share_taken(N, (double)q[j]));
}

/* All that is taken off classes from begin to end, whose gradients are in out, or, with scale, exponentials that are
   still to be multiplied by hi + lo. */
static void take_span(float *out, size_t begin, size_t end, bool scale, float hi, float lo, const struct taking *take)
{
    const size_t count = end - begin;
    const float *q = take->q ? take->q + begin : NULL, *w = take->w ? take->w + begin : NULL;
    const double B = take->B;
    bool left = scale;
    if (even_is_usual(B)) {
        take_even(out + begin, count, left, hi, lo, f64_to_f32(B), w);
        left = false;
    } else if (B != 0 || B != B) {
        if (left)
            scale_plain(out + begin, count, hi, lo);
        left = false;
        for (size_t j = 0; j < count; ++j)
            out[begin + j] = distribution_less(out[begin + j], distribution_even_taken(B, w ? (double)w[j] : 1));
    }
    if (q && take->shares.usual) {
        take_shares(out + begin, count, left, hi, lo, q, &take->shares);
        left = false;
    }
    if (left)
        scale_plain(out + begin, count, hi, lo);
    if (q && !take->shares.usual)
        take_shares_general(out + begin, count, w, q, take->shares.N);
}

static size_t clamp(size_t j, size_t low, size_t high)
{
    return j < low ? low : j < high ? j : high;
}

/* A row whose targets are not all in one class, a slice at a time. v is the multiplier, m its magnitude. */
static ALWAYS_INLINE void scale_and_take(const float *x, float *out, size_t classes, size_t zeros, size_t kept,
                                         struct frame frame, double v, struct multiplier m, bool bounded,
                                         const struct taking *take)
{
    const bool plain = bounded && is_plain(m.exponent) && !(v < 0);
    const float unit = plain ? f32_pow2(m.exponent) : 0;
    for (size_t begin = 0, end; begin < classes; begin = end) {
        end = classes - begin < SLICE ? classes : begin + SLICE;
        const size_t from = clamp(zeros, begin, end), to = clamp(kept, begin, end);
        if (plain && from == begin && to == end) {
            take_span(out, begin, end, true, m.hi * unit, m.lo * unit, take);
            continue;
        }
        if (bounded)
            scale_span(x, out, begin, end, from, to, frame, m);
        else
            scale_unbounded(x, out, begin, end, from, to, frame, v);
        for (size_t j = begin; bounded && v < 0 && j < end; ++j)
            out[j] = 0 - out[j];
        take_span(out, begin, end, false, 0, 0, take);
    }
}

static void scale_part(const float *x, float *out, size_t begin, size_t end, const struct xent_part *part,
                       struct frame frame, double v)
{
    scale_span(x, out, begin, end, part->zeros, part->kept, frame, row_multiplier(v));
}

#endif
