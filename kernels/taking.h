/*
 * Part of kernels/algorithm.h: what a target distribution takes off gradients, in floats (docs/numerics.md, section 4):
 * an even share B, the same with class weights, B w_j, or probabilities, N q_j.
 */
#ifndef XENT_KERNELS_TAKING_H
#define XENT_KERNELS_TAKING_H

/* One of B, B w_j and N q_j taken off e (hi + lo), or off e if that is a gradient already. */
static ALWAYS_INLINE void take_inline(float *out, size_t count, bool scale, float hi, float lo, float B, const float *w,
                                      const float *q, const struct taken *shares)
{
    const float N_hi = q ? shares->hi : 0, N_lo = q ? shares->lo : 0;
    size_t j = 0;
    for (; j + 2 * SW <= count; j += 2 * SW) {
        for (size_t i = j; i < j + 2 * SW; i += SW) {
            sf g = sload(out + i);
            g = scale ? sfma(g, sset(hi), smul(g, sset(lo))) : g;
            if (q)
                g = sfma(sload(q + i), sset(-N_lo), sfma(sload(q + i), sset(-N_hi), g));
            else
                g = sfma(w ? smul(sload(w + i), sset(B)) : sset(B), sset(-1.0f), g);
            sstore(out + i, g);
        }
    }
    for (; j < count; j += VW) {
        const size_t left = count - j;
        vf g = load_left(out + j, left);
        g = scale ? vfma(g, vset(hi), vmul(g, vset(lo))) : g;
        if (q)
            g = vfnma(load_left(q + j, left), vset(N_lo), vfnma(load_left(q + j, left), vset(N_hi), g));
        else
            g = vsub(g, w ? vmul(load_left(w + j, left), vset(B)) : vset(B));
        store_left(out + j, g, left);
    }
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
