/*
 * The constants of docs/numerics.md. Any change of value here changes results and so bumps XENT_NUMERICS_VERSION.
 *
 *     exp(z) * XENT_K = T[k] * 2^n * (1 + r + C2 r^2 + C3 r^3),   8n + k = rint(8 z log2(e)),   r = z - (8n + k) ln(2)/8
 *
 * tools/constants.py derives them all and prints this table.
 */
#ifndef XENT_KERNELS_CONSTANTS_H
#define XENT_KERNELS_CONSTANTS_H

enum {
    XENT_LANES = 32,  /* class j is added to lane j mod 32 */
    XENT_CHUNK = 8192 /* the lanes are folded, and start again from zero, every so many classes */
};

/*
 * T[k] = T[0] * 2^(k/8), rounded to float. The common factor of all exponentials cancels from every result, so T[0]
 * was chosen, among all floats in [1, 2^(1/8)), as the one whose eight products are closest to floats: no entry is off
 * by more than 0.047 * 2^-24 relative to their common centre, where T[0] = 1 would cost 0.48 * 2^-24.
 */
/* ENTRY(k, the bits of T[k]): 0x1.16747c, 0x1.2fa848, 0x1.4b2404, 0x1.691c8a,
   0x1.89cb7c, 0x1.ad6fb4, 0x1.d44dbc, 0x1.feb052. */
#define XENT_TABLE(ENTRY)                                                                                                \
    ENTRY(0, 0x3f8b3a3eu), ENTRY(1, 0x3f97d424u), ENTRY(2, 0x3fa59202u), ENTRY(3, 0x3fb48e45u), \
    ENTRY(4, 0x3fc4e5beu), ENTRY(5, 0x3fd6b7dau), ENTRY(6, 0x3fea26deu), ENTRY(7, 0x3fff5829u)

/* The common factor, at the centre of the errors, and its logarithm. */
#define XENT_K 0x1.16747c48ddb1ap+0
#define XENT_LN_K 0x1.586353419c652p-4

#define XENT_8LOG2E 0x1.715476p+3f
#define XENT_LN2_8_HI 0x1.62e43p-4f    /* ln(2)/8 to 24 bits ... */
#define XENT_LN2_8_LO -0x1.05c61p-32f  /* ... and the rest */

/* Minimax for the relative error on |r| <= ln(2)/16 with the constant term free: 0.31 * 2^-24. C1 rounds to 1. */
#define XENT_C2 0x1.000a44p-1f
#define XENT_C3 0x1.554d1ep-3f

/* Rows whose largest logit lies in [XENT_NEAR_MIN, XENT_NEAR_MAX) are near: exponentials of the logits themselves.
   Other rows are far: exponentials of the logits less the largest one, an exact difference where it matters. */
#define XENT_NEAR_MIN -256.0f
#define XENT_NEAR_MAX 512.0f

/* At or below its cut an exponent counts as -inf: its exponential is +0. */
#define XENT_NEAR_CUT -512.0f
#define XENT_FAR_CUT -192.0f

/* Gradient entries are formed as (2^64 too large) times (2^-64 too small), and their last correction is left out where
   the first factor is below this. */
enum { XENT_BIAS = 64 };
#define XENT_CORRECTION_MIN 0x1p-30f

#endif
