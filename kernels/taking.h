/*
 * Part of kernels/algorithm.h: what a target distribution takes off gradients, in floats (docs/numerics.md, section 4):
 * an even share B, the same with class weights, B w_j, or probabilities, N q_j.
 */
#ifndef XENT_KERNELS_TAKING_H
#define XENT_KERNELS_TAKING_H

/* One of B, B w_j and N q_j taken off e (hi + lo), or off e if that is a gradient already, of the first left classes
   of a vector, or of all. */
static ALWAYS_INLINE void take_vector(float *out, size_t left, bool scale, float hi, float lo, float B, const float *w,
                                      const float *q, const struct taken *shares)
{
    vf g = load_left(out, left);
    g = scale ? vfma(g, vset(hi), vmul(g, vset(lo))) : g;
    if (q)
        g = vfnma(load_left(q, left), vset(shares->lo), vfnma(load_left(q, left), vset(shares->hi), g));
    else
        g = vsub(g, w ? vmul(load_left(w, left), vset(B)) : vset(B));
    store_left(out, g, left);
}

/* The same of count classes. */
static ALWAYS_INLINE void take_inline(float *out, size_t count, bool scale, float hi, float lo, float B, const float *w,
                                      const float *q, const struct taken *shares)
{
    size_t j = 0;
    for (; j + 2 * VW <= count; j += 2 * VW)
        for (size_t i = j; i < j + 2 * VW; i += VW)
            take_vector(out + i, VW, scale, hi, lo, B, w ? w + i : NULL, q ? q + i : NULL, shares);
    for (; j < count; j += VW)
        take_vector(out + j, count - j, scale, hi, lo, B, w ? w + j : NULL, q ? q + j : NULL, shares);
}

static NOINLINE void take_even(float *out, size_t count, bool scale, float hi, float lo, float B, const float *w)
{
    if (scale && w)
        take_inline(out, count, true, hi, lo, B, w, NULL, NULL);
    else if (scale)
        take_inline(out, count, true, hi, lo, B, NULL, NULL, NULL);
    else if (w)
        take_inline(out, count, false, hi, lo, B, w, NULL, NULL);
    else
        take_inline(out, count, false, hi, lo, B, NULL, NULL, NULL);
}

static NOINLINE void take_shares(float *out, size_t count, bool scale, float hi, float lo, const float *q,
                                 const struct taken *shares)
{
    if (scale)
        take_inline(out, count, true, hi, lo, 0, NULL, q, shares);
    else
        take_inline(out, count, false, hi, lo, 0, NULL, q, shares);
}

#endif
