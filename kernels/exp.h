/* Part of kernels/algorithm.h: the exponential of docs/numerics.md, section 1, and the ways to take a row's logits. */
#ifndef XENT_KERNELS_EXP_H
#define XENT_KERNELS_EXP_H

enum { WINDOW_LOW = XENT_WINDOW_LOW, WINDOW_SIZE = XENT_WINDOW_SIZE, WINDOW_BITS = XENT_WINDOW_BITS };

#define ROUNDER 0x1.8p23f
static const int32_t rounder_bits = 0x4b400000;

/* The bits of T[k], less what k and the low end of the window add to them when shifted left by 19. */
#define ENTRY(k, bits) (int32_t)((bits) - ((uint32_t)(k) << 19) - ((uint32_t)-WINDOW_LOW << 19))
static const int32_t table[16] = {XENT_TABLE(ENTRY)};
#undef ENTRY

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
static ALWAYS_INLINE vf exp_wide(vf x, vf ref, vf cut, vi *n)
{
    const vf z = vmax(cut, vsub(x, ref));
    const vf t = exp_round(z);
    *n = visar(visub(vbits(t), viset(rounder_bits - WINDOW_LOW)), 4);
    const vf T = vfrom_bits(visub(vbits(vtable(vt_load(table), t)), vishl(*n, 23)));
    return vkeep_above(exp_polynomial(T, exp_reduce(z, t)), z, cut);
}

/* How logits are taken: as they are, while all lie in the window; less the ref of a far row, in the same window; in
   either way with masked classes among them, at or below the frame's cut, whose exponential is +0; or any, without a
   window. */
enum mode { WINDOW, MASKED, FAR, FAR_MASKED, WIDE };

/* What the window is about: the logits less the frame's ref. */
static ALWAYS_INLINE vf measured(vf logits, enum mode mode, vf ref)
{
    return mode == FAR || mode == FAR_MASKED ? vsub(logits, ref) : logits;
}

/* Masked ones become a 0 that lies in the window ... */
static ALWAYS_INLINE vf unmask(vf z, enum mode mode, vf cut)
{
    return mode == MASKED || mode == FAR_MASKED ? vkeep_above(z, z, cut) : z;
}

/* ... and their exponentials +0. */
static ALWAYS_INLINE vf remask(vf e, vf z, enum mode mode, vf cut)
{
    return mode == MASKED || mode == FAR_MASKED ? vkeep_above(e, z, cut) : e;
}

#endif
