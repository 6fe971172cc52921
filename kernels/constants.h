/*
 * The constants of docs/numerics.md. Any change of value here changes results and so bumps XENT_NUMERICS_VERSION.
 *
 *     exp(z) * XENT_K = T[k] * 2^n * (1 + r + C2 r^2 + C3 r^3),  16n + k = rint(16 z log2(e)),  r = z - (16n + k) ln(2)/16
 *
 * tools/constants.py derives them all and prints this table.
 */
#ifndef XENT_KERNELS_CONSTANTS_H
#define XENT_KERNELS_CONSTANTS_H

enum {
    XENT_LANES = 32,  /* class j is added to lane j mod 32 */
    XENT_CHUNK = 8192, /* the lanes are folded, and start again from zero, every so many classes, or twice, 4 times ... */
    XENT_CHUNKS = 256, /* as many, so that a row has at most this number of chunks */
    XENT_SLICE = 1024, /* classes whose logits are added up together: a divisor of XENT_CHUNK */
    XENT_SLICE_LANES = 16 /* what of class j's logit is a float is added to lane j mod 16 */
};

/*
 * T[k] is c 2^(k/16) rounded to float, as bits: ENTRY(k, bits). The factor c cancels from every result, so it was chosen,
 * among 6 million candidates in [1, 2^(1/16)), to make the worst sum of an entry's own error and the last rounding of the
 * exponentials made from it smallest: 1.02 * 2^-24, where the last rounding alone can take 1 and c = 1 costs 1.5.
 */
#define XENT_TABLE(ENTRY)                                                                                              \
    ENTRY(0, 0x3f8275a8u), ENTRY(1, 0x3f883c4cu), ENTRY(2, 0x3f8e4467u), ENTRY(3, 0x3f9490dfu),                        \
    ENTRY(4, 0x3f9b24bbu), ENTRY(5, 0x3fa20324u), ENTRY(6, 0x3fa92f67u), ENTRY(7, 0x3fb0acf6u),                        \
    ENTRY(8, 0x3fb87f6bu), ENTRY(9, 0x3fc0aa88u), ENTRY(10, 0x3fc9323au), ENTRY(11, 0x3fd21a9au),                      \
    ENTRY(12, 0x3fdb67f0u), ENTRY(13, 0x3fe51eb5u), ENTRY(14, 0x3fef4392u), ENTRY(15, 0x3ff9db69u)

/* c at the centre of all errors, and its logarithm. Over every float z in (-512, 512) the exponentials' relative error
   is at most 1.0664 * 2^-24: -1.06630 at 0x1.6add8ep+4, 1.06630 at 0x1.9ed6dep+2, and beyond the window 1.06631 at
   -0x1.a4f278p+7 (tests/unit/exp.c). */
#define XENT_K 0x1.04eb5009959dep+0
#define XENT_LN_K 0x1.37d7704233602p-6

#define XENT_16LOG2E 0x1.715476p+4f
#define XENT_LN2_16_HI 0x1.62e43p-5f   /* ln(2)/16 to 24 bits ... */
#define XENT_LN2_16_LO -0x1.05c61p-33f /* ... and the rest */
#define XENT_LN2_16 ((double)XENT_LN2_16_HI + (double)XENT_LN2_16_LO)

/* The window: exponents 16 n + k whose exponentials are kept as floats, all normal, and multiplied as they are. */
enum { XENT_WINDOW_LOW = -768, XENT_WINDOW_BITS = 11, XENT_WINDOW_SIZE = 1 << XENT_WINDOW_BITS };

/* Minimax for the relative error on |r| <= ln(2)/32 with the constant term free: 0.02 * 2^-24. C1 rounds to 1. */
#define XENT_C2 0x1.00029p-1f
#define XENT_C3 0x1.555348p-3f

/* A row's target and logarithm: exp(r) = 1 + r + E2 r^2 + ... + E8 r^8 within 2^-39.6 for |r| <= ln(2)/2, and 2 atanh(f) =
   2 f + A3 f^3 + ... + A9 f^9 within 2^-37.6 for |f| <= 0.1716: minimax for the relative error with the first terms fixed. */
#define XENT_E2 0x1.000000005e955p-1
#define XENT_E3 0x1.5555557e0a133p-3
#define XENT_E4 0x1.5555541cbae91p-5
#define XENT_E5 0x1.1110a1fb0b4f9p-7
#define XENT_E6 0x1.6c18d4eb11e8bp-10
#define XENT_E7 0x1.a186050eb3a08p-13
#define XENT_E8 0x1.9e88af2400a88p-16
#define XENT_A3 0x1.555554fdc6fe7p-1
#define XENT_A5 0x1.999a7a50f2ba2p-2
#define XENT_A7 0x1.2438e2a8778a5p-2
#define XENT_A9 0x1.e2f527c19dacdp-3

/* Those of an element of binary cross entropy, likewise: 1 + r + F2 r^2 + ... + F10 r^10 within 2^-51.6, 2 f + B3 f^3 +
   ... + B13 f^13 within 2^-52.2. */
#define XENT_F2 0x1.ffffffffffecfp-2
#define XENT_F3 0x1.5555555550729p-3
#define XENT_F4 0x1.555555558971fp-5
#define XENT_F5 0x1.11111125d331bp-7
#define XENT_F6 0x1.6c16c0c742171p-10
#define XENT_F7 0x1.a0198ce2a88f6p-13
#define XENT_F8 0x1.a01b7db629b95p-16
#define XENT_F9 0x1.72e9a21b71923p-19
#define XENT_F10 0x1.27074b3539704p-22
#define XENT_B3 0x1.555555555396dp-1
#define XENT_B5 0x1.999999a2921dcp-2
#define XENT_B7 0x1.2492417829ca9p-2
#define XENT_B9 0x1.c722780a3fa0bp-3
#define XENT_B11 0x1.732c20bdca0ccp-3
#define XENT_B13 0x1.5877ffe89a905p-3

/* Rows whose largest logit lies in [XENT_NEAR_MIN, XENT_NEAR_MAX) are near: exponentials of the logits themselves.
   Other rows are far: exponentials of the logits less the largest one, an exact difference where it matters. */
#define XENT_NEAR_MIN -256.0f
#define XENT_NEAR_MAX 512.0f

/* At or below its cut an exponent counts as -inf: its exponential is +0. */
#define XENT_NEAR_CUT -512.0f
#define XENT_FAR_CUT -192.0f

/* Gradient entries are formed 2^64 too large, so that nothing can be subnormal on the way; those with an exponent below
   XENT_VANISHED are less than 2^-150 when done, and so nothing. */
enum { XENT_BIAS = 64, XENT_VANISHED = -88 };

#endif
