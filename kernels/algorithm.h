/*
 * The algorithm of docs/numerics.md, written once over the vector operations that the including file defines.
 *
 * exp.h has the exponential; row_span.h, row_sum.h and row_scale.h the two passes over a row; overlap.h what they do to
 * keep memory busy; taking.h and soft.h what targets in more than one class add to them; columns.h and soft_columns.h
 * the same for a vector's worth of short rows at a time, packed_rows.h for those without gaps; batch.h what becomes of
 * a batch's sums; short_rows.h batches by columns; fill_batch.h which rows a batch has; rows.h the functions of a
 * kernel, log_softmax.h one of them; tiles.h, planes.h, strips.h and long_strips.h rows whose classes are not
 * neighbours, strided.h the choice among these.
 *
 * A row is summed in one pass and its results are formed in a second one, from cache. While every logit lies in the
 * *window* (about [-33.2, 55.4]: rint(16 z log2 e) in [-768, 1279]) its exponential is a normal float, needs no frame
 * and no maximum, and is kept in the output row for the second pass to scale; masked classes (-inf, -1e9) among them
 * are kept as +0. The first step with any other logit makes the pass look for the largest of what is left: if the row
 * turns out far, logits are taken less that one, in the same window. The first step that fits neither way turns the
 * rest of the row *wide*: exponents and significands apart, sums in full double range, nothing kept. All ways give the
 * same bits, because every factor between them is a power of two.
 *
 * The operations, each with one meaning on every ISA (VW lanes; i is a lane's number):
 *
 *   vf  vset(float)                   the same value in each lane
 *   vf  vload(p), vstore(p, v)        VW floats, any alignment
 *   vf  vload_first(p, count)         lanes i < count from p, the others 0; reads nothing else
 *   void vstore_first(p, v, count)    lanes i < count; writes nothing else
 *   void prefetch(p), prefetch_l2(p)  the line of p into the first-level cache, into the second
 *   void vstream(p, v)                VW floats, p a multiple of their size; past the caches, if the ISA can
 *   void vstream_end()                what was so written comes before all that is written later
 *   void vend()                       registers as callers want them: compilers see to that, but gcc 12 forgets it
 *                                     after a call of a function that it knows not to use their upper halves
 *   vf  vsub, vmul (a, b)             rounded to nearest
 *   vf  vfma(a, b, c), vfnma(a, b, c) c + a b and c - a b, rounded once
 *   vf  vmax(a, b)                    a > b ? a : b, so b if either is NaN
 *   vf  vkeep_first(v, count)         lanes i < count, the others +0 (any count)
 *   vf  vand(v, p)                    the lanes' bits and those of VW integers, any alignment
 *   vf  vkeep_above(v, z, cut)        +0 where z <= cut, v elsewhere, also where z is NaN
 *   vt  vt_load(table)                16 integers
 *   void vt_pin(vt *)                 nothing, but a compiler then keeps them in registers where it has few
 *   vf  vtable(vt, t)                 the float whose bits are table[bits(t) & 15] + (bits(t) << 19), modulo 2^32
 *   vi  vbits(v), vf vfrom_bits(w)    the lanes' bits
 *   vi  viset(int), viadd, visub      32-bit integers
 *   vi  vishl(w, c), visar(w, c)      shifts by a constant: left, arithmetic right
 *   vf  vkeep_int_ge(v, w, c)         v where the integer w >= c, +0 elsewhere
 *   vi  vstray(a, b, base)            (bits(a) ^ base) | (bits(b) ^ base)
 *   vi  vior(w, x)                    bitwise or
 *   vi  viload(p), vistore(p, w)      VW integers, any alignment
 *   vf  vdrop_where(v, w, c)          +0 where the integer w == c, v elsewhere
 *   vf  vreplace_where(v, w, c, u)    u where the integer w == c, v elsewhere
 *   vf  vpermute(v, w)                lane w of v in each lane, for integers w < VW
 *   void vload_columns(x, j, n, c)    c[i] lane l = x[l][j + i] for i < n <= 4, 0 for n <= i < 4; reads nothing else
 *   void vstore_columns(x, j, n, c)   x[l][j + i] = c[i] lane l for i < n <= 4; writes nothing else
 *   bool vany(w, mask)                whether any lane of w & mask is not 0
 *   vd                                the double sums of VW neighbouring lanes
 *   void vd_zero(vd *)                all 0
 *   vd  vd_widen(v)                   2^-896 v, for v = 0 or normal and positive: the lanes' bits moved to double
 *   vd  vd_plus(a, b)                 the sums added
 *   void vd_get(const vd *, double *) the sums, in lane order
 *   double vd_fold(const vd *)        all 32 lanes as one: i + 16 to i, then i + 8, i + 4, i + 2, i + 1
 *   vw                                the same again, for any frame, with the lanes in order
 *   vw  vw_load(const double *), void vw_store(double *, const vw *)
 *   void vw_add(vw *, f, n)           adds f 2^n, for |n| <= 1000; anything for other n
 *   vw  vw_widen(p)                   VW floats as doubles, any alignment
 *   vw  vw_plus(a, b)                 the sums added
 *   vw  vw_plus_exact(sum, a, b)      sum + a b, where a and b are floats, so that their product is exact
 */
#include "kernels/kernel.h"
#include "kernels/target.h"

#include <math.h>

_Static_assert(SIZE_MAX == UINT64_MAX, "classes are kept as int64_t, NO_CLASS as -1");

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

static ALWAYS_INLINE void vd_add(vd *sum, vf v)
{
    *sum = vd_plus(*sum, vd_widen(v));
}

#include "kernels/exp.h"

/* For tests of the operations and of the exponential: a kernel without its functions compiles ten times as fast. */
#ifdef XENT_OPERATIONS_ONLY

#define KERNEL_FUNCTIONS .bce = NULL

#else

extern const struct xent_kernel XENT_KERNEL(scalar);

/* In the order of need. */
/* clang-format off */
#include "kernels/taking.h"
#include "kernels/overlap.h"
#include "kernels/soft.h"
#include "kernels/row_span.h"
#include "kernels/row_sum.h"
#include "kernels/row_scale.h"
#include "kernels/columns.h"
#include "kernels/soft_columns.h"
#include "kernels/batch.h"
#include "kernels/packed_rows.h"
#include "kernels/short_rows.h"
#include "kernels/fill_batch.h"
#include "kernels/rows.h"
#include "kernels/log_softmax.h"
#include "kernels/tiles.h"
#include "kernels/planes.h"
#include "kernels/strips.h"
#include "kernels/long_strips.h"
#include "kernels/strided.h"
/* clang-format on */
#include "kernels/bce.h"
#include "kernels/double.h"

/* For the initializer of a kernel. */
#define KERNEL_FUNCTIONS                                                                                               \
    .cross_entropy = cross_entropy, .softmax = softmax, .log_softmax = log_softmax, .sum_part = sum_part,              \
    .sum_part_far = sum_part_far, .scale_part = scale_part, .cross_entropy_f64 = cross_entropy_f64, .bce = bce

#endif
