/*
 * Stands in for <immintrin.h> on the include path, so that the AVX2 and AVX-512 kernels compile unchanged on any CPU.
 *
 * SIMDe supplies the types and most intrinsics. Those below are written lane by lane because SIMDe 0.7.4 lacks them or
 * is not faithful: without FMA hardware its fused multiply-add rounds twice, and its masked loads and stores touch
 * lanes that the mask leaves out, and its _mm256_testz_si256 is wrong on bits of the upper lanes.
 */
#ifndef XENT_TESTS_SIMDE_IMMINTRIN_H
#define XENT_TESTS_SIMDE_IMMINTRIN_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <math.h>
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#include <stdint.h>
#include <string.h>

#define SHIM static inline __attribute__((unused))

#ifndef __mmask16
#define __mmask16 simde__mmask16
#endif
#ifndef __mmask8
#define __mmask8 simde__mmask8
#endif

typedef struct {
    float f[16];
} shim_f16;
typedef struct {
    float f[8];
} shim_f8;
typedef struct {
    double d[8];
} shim_d8;
typedef struct {
    int64_t q[8];
} shim_q8;
typedef struct {
    int32_t i[8];
} shim_i8;
typedef struct {
    int32_t i[16];
} shim_i16;

/* A value's bytes as an array, and back. */
#define LANES_OF(type, lanes, value)                                                                                   \
    type lanes;                                                                                                        \
    memcpy(&lanes, &(value), sizeof lanes)
#define VALUE_OF(vector, lanes)                                                                                        \
    vector lanes##_value;                                                                                              \
    memcpy(&lanes##_value, &lanes, sizeof lanes);                                                                      \
    return lanes##_value

SHIM simde__m512 shim_mm512_fmadd_ps(simde__m512 a, simde__m512 b, simde__m512 c)
{
    LANES_OF(shim_f16, x, a);
    LANES_OF(shim_f16, y, b);
    LANES_OF(shim_f16, z, c);
    for (int l = 0; l < 16; ++l)
        z.f[l] = fmaf(x.f[l], y.f[l], z.f[l]);
    VALUE_OF(simde__m512, z);
}

SHIM simde__m512 shim_mm512_fnmadd_ps(simde__m512 a, simde__m512 b, simde__m512 c)
{
    LANES_OF(shim_f16, x, a);
    LANES_OF(shim_f16, y, b);
    LANES_OF(shim_f16, z, c);
    for (int l = 0; l < 16; ++l)
        z.f[l] = fmaf(-x.f[l], y.f[l], z.f[l]);
    VALUE_OF(simde__m512, z);
}

SHIM simde__m256 shim_mm256_fmadd_ps(simde__m256 a, simde__m256 b, simde__m256 c)
{
    LANES_OF(shim_f8, x, a);
    LANES_OF(shim_f8, y, b);
    LANES_OF(shim_f8, z, c);
    for (int l = 0; l < 8; ++l)
        z.f[l] = fmaf(x.f[l], y.f[l], z.f[l]);
    VALUE_OF(simde__m256, z);
}

SHIM simde__m256 shim_mm256_fnmadd_ps(simde__m256 a, simde__m256 b, simde__m256 c)
{
    LANES_OF(shim_f8, x, a);
    LANES_OF(shim_f8, y, b);
    LANES_OF(shim_f8, z, c);
    for (int l = 0; l < 8; ++l)
        z.f[l] = fmaf(-x.f[l], y.f[l], z.f[l]);
    VALUE_OF(simde__m256, z);
}

SHIM simde__m512 shim_mm512_maskz_loadu_ps(simde__mmask16 mask, const float *p)
{
    shim_f16 r = {{0}};
    for (int l = 0; l < 16; ++l)
        if (mask >> l & 1)
            r.f[l] = p[l];
    VALUE_OF(simde__m512, r);
}

/* Faults where the instruction does. */
SHIM void shim_mm512_stream_ps(float *p, simde__m512 v)
{
    if ((uintptr_t)p % sizeof v != 0)
        __builtin_trap();
    memcpy(p, &v, sizeof v);
}

SHIM simde__mmask16 shim_mm512_cmpneq_epi32_mask(simde__m512i a, simde__m512i b)
{
    return (simde__mmask16)~simde_mm512_cmpeq_epi32_mask(a, b);
}

SHIM void shim_mm512_mask_storeu_ps(float *p, simde__mmask16 mask, simde__m512 v)
{
    LANES_OF(shim_f16, r, v);
    for (int l = 0; l < 16; ++l)
        if (mask >> l & 1)
            p[l] = r.f[l];
}

SHIM simde__m256 shim_mm256_maskload_ps(const float *p, simde__m256i mask)
{
    LANES_OF(shim_i8, m, mask);
    shim_f8 r = {{0}};
    for (int l = 0; l < 8; ++l)
        if (m.i[l] < 0)
            r.f[l] = p[l];
    VALUE_OF(simde__m256, r);
}

SHIM void shim_mm256_maskstore_ps(float *p, simde__m256i mask, simde__m256 v)
{
    LANES_OF(shim_i8, m, mask);
    LANES_OF(shim_f8, r, v);
    for (int l = 0; l < 8; ++l)
        if (m.i[l] < 0)
            p[l] = r.f[l];
}

SHIM simde__m512i shim_mm512_permutexvar_epi32(simde__m512i index, simde__m512i v)
{
    LANES_OF(shim_i16, i, index);
    LANES_OF(shim_i16, x, v);
    shim_i16 r;
    for (int l = 0; l < 16; ++l)
        r.i[l] = x.i[i.i[l] & 15];
    VALUE_OF(simde__m512i, r);
}

SHIM simde__m512i shim_mm512_srai_epi32(simde__m512i v, int count)
{
    LANES_OF(shim_i16, x, v);
    for (int l = 0; l < 16; ++l)
        x.i[l] >>= count;
    VALUE_OF(simde__m512i, x);
}

SHIM simde__m512i shim_mm512_cvtepi32_epi64(simde__m256i v)
{
    LANES_OF(shim_i8, x, v);
    shim_q8 r;
    for (int l = 0; l < 8; ++l)
        r.q[l] = x.i[l];
    VALUE_OF(simde__m512i, r);
}

SHIM simde__m512d shim_mm512_cvtps_pd(simde__m256 v)
{
    LANES_OF(shim_f8, x, v);
    shim_d8 r;
    for (int l = 0; l < 8; ++l)
        r.d[l] = (double)x.f[l];
    VALUE_OF(simde__m512d, r);
}

SHIM simde__m256 shim_mm512_extractf32x8_ps(simde__m512 v, int half)
{
    LANES_OF(shim_f16, x, v);
    shim_f8 r;
    memcpy(&r, x.f + 8 * half, sizeof r);
    VALUE_OF(simde__m256, r);
}

SHIM simde__m256i shim_mm512_extracti32x8_epi32(simde__m512i v, int half)
{
    LANES_OF(shim_i16, x, v);
    shim_i8 r;
    memcpy(&r, x.i + 8 * half, sizeof r);
    VALUE_OF(simde__m256i, r);
}

SHIM int shim_mm256_testz_si256(simde__m256i a, simde__m256i b)
{
    LANES_OF(shim_i8, x, a);
    LANES_OF(shim_i8, y, b);
    int32_t any = 0;
    for (int l = 0; l < 8; ++l)
        any |= x.i[l] & y.i[l];
    return any == 0;
}

/* a > b ? a : b in every lane, so b where either is NaN. */
SHIM simde__m512 shim_mm512_max_ps(simde__m512 a, simde__m512 b)
{
    LANES_OF(shim_f16, x, a);
    LANES_OF(shim_f16, y, b);
    for (int l = 0; l < 16; ++l)
        y.f[l] = x.f[l] > y.f[l] ? x.f[l] : y.f[l];
    VALUE_OF(simde__m512, y);
}

SHIM simde__m256 shim_mm256_max_ps(simde__m256 a, simde__m256 b)
{
    LANES_OF(shim_f8, x, a);
    LANES_OF(shim_f8, y, b);
    for (int l = 0; l < 8; ++l)
        y.f[l] = x.f[l] > y.f[l] ? x.f[l] : y.f[l];
    VALUE_OF(simde__m256, y);
}

#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#undef _mm256_fmadd_ps
#undef _mm256_fnmadd_ps
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_stream_ps
#undef _mm256_maskload_ps
#undef _mm256_maskstore_ps
#undef _mm512_permutexvar_epi32
#undef _mm512_max_ps
#undef _mm256_max_ps
#undef _mm256_testz_si256
#undef _mm512_srai_epi32
#undef _mm512_cvtepi32_epi64
#undef _mm512_cvtps_pd
#undef _mm512_extractf32x8_ps
#undef _mm512_extracti32x8_epi32
#define _mm512_fmadd_ps shim_mm512_fmadd_ps
#define _mm512_fnmadd_ps shim_mm512_fnmadd_ps
#define _mm256_fmadd_ps shim_mm256_fmadd_ps
#define _mm256_fnmadd_ps shim_mm256_fnmadd_ps
#define _mm512_maskz_loadu_ps shim_mm512_maskz_loadu_ps
#define _mm512_mask_storeu_ps shim_mm512_mask_storeu_ps
#define _mm512_cmpneq_epi32_mask shim_mm512_cmpneq_epi32_mask
#define _mm512_stream_ps shim_mm512_stream_ps
#define _mm256_maskload_ps shim_mm256_maskload_ps
#define _mm256_maskstore_ps shim_mm256_maskstore_ps
#define _mm512_permutexvar_epi32 shim_mm512_permutexvar_epi32
#define _mm512_max_ps shim_mm512_max_ps
#define _mm256_max_ps shim_mm256_max_ps
#define _mm256_testz_si256 shim_mm256_testz_si256
#define _mm512_srai_epi32 shim_mm512_srai_epi32
#define _mm512_cvtepi32_epi64 shim_mm512_cvtepi32_epi64
#define _mm512_cvtps_pd shim_mm512_cvtps_pd
#define _mm512_extractf32x8_ps shim_mm512_extractf32x8_ps
#define _mm512_extracti32x8_epi32 shim_mm512_extracti32x8_epi32

#endif
