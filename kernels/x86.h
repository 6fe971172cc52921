/* What the AVX2 and the AVX-512 kernel have in common: operations of kernels/algorithm.h, and a part of others. */
#ifndef XENT_KERNELS_X86_H
#define XENT_KERNELS_X86_H

#include "kernels/f64.h"

#include <immintrin.h>
#include <stddef.h>

static ALWAYS_INLINE void prefetch(const float *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

static ALWAYS_INLINE void prefetch_l2(const float *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T1);
}

static ALWAYS_INLINE void vstream_end(void)
{
    _mm_sfence();
}

static ALWAYS_INLINE void vend(void)
{
#ifndef XENT_SIMDE /* which has none */
    _mm256_zeroupper();
#endif
}

/* Up to four classes of a row. Not by a masked store: gcc joins it with the extraction before it, and that instruction
   touches all four. */
static ALWAYS_INLINE void store4(float *p, size_t count, __m128 v)
{
    if (count == 4) {
        _mm_storeu_ps(p, v);
        return;
    }
    if (count & 2) {
        _mm_storel_pi((__m64 *)p, v);
        v = _mm_movehl_ps(v, v);
    }
    if (count & 1)
        _mm_store_ss(p + (count & 2), v);
}

#endif
