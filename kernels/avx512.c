/* The AVX-512 kernel: the operations of kernels/algorithm.h on 16 lanes, two registers to a group of 32 classes. */
#include "kernels/kernel.h"
#include "kernels/x86.h"

#include <stdbool.h>

#if !defined(XENT_SIMDE) && !(defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) &&                \
                              defined(__AVX512VL__) && defined(__AVX2__) && defined(__FMA__))
#error "avx512.c needs -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma"
#endif

enum { VW = 16 };
typedef __m512 vf;
typedef __m512i vi;

static ALWAYS_INLINE __mmask16 first_lanes(size_t count)
{
    return count >= VW ? 0xffff : (__mmask16)((1u << count) - 1);
}

static ALWAYS_INLINE vf vset(float v)
{
    return _mm512_set1_ps(v);
}

static ALWAYS_INLINE vf vload(const float *p)
{
    return _mm512_loadu_ps(p);
}

static ALWAYS_INLINE void vstore(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}

static ALWAYS_INLINE void vstream(float *p, vf v)
{
    _mm512_stream_ps(p, v);
}

static ALWAYS_INLINE vf vload_first(const float *p, size_t count)
{
    return _mm512_maskz_loadu_ps(first_lanes(count), p);
}

static ALWAYS_INLINE void vstore_first(float *p, vf v, size_t count)
{
    _mm512_mask_storeu_ps(p, first_lanes(count), v);
}

static ALWAYS_INLINE vf vsub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

static ALWAYS_INLINE vf vmul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

static ALWAYS_INLINE vf vfma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static ALWAYS_INLINE vf vfnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

static ALWAYS_INLINE vf vmax(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}

static ALWAYS_INLINE vf vkeep_first(vf v, size_t count)
{
    return _mm512_maskz_mov_ps(first_lanes(count), v);
}

static ALWAYS_INLINE vf vand(vf v, const int32_t *p)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), _mm512_loadu_si512(p)));
}

static ALWAYS_INLINE vf vkeep_above(vf v, vf z, vf cut)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(z, cut, _CMP_NLE_UQ), v);
}

static ALWAYS_INLINE vf vkeep_int_ge(vf v, vi w, int c)
{
    return _mm512_maskz_mov_ps(_mm512_cmpgt_epi32_mask(w, _mm512_set1_epi32(c - 1)), v);
}

static ALWAYS_INLINE vi vbits(vf v)
{
    return _mm512_castps_si512(v);
}

static ALWAYS_INLINE vf vfrom_bits(vi w)
{
    return _mm512_castsi512_ps(w);
}

static ALWAYS_INLINE vi viset(int v)
{
    return _mm512_set1_epi32(v);
}

static ALWAYS_INLINE vi viload(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}

static ALWAYS_INLINE void vistore(int32_t *p, vi w)
{
    _mm512_storeu_si512(p, w);
}

static ALWAYS_INLINE vf vpermute(vf v, vi w)
{
    return _mm512_permutexvar_ps(w, v);
}

static ALWAYS_INLINE vf vdrop_where(vf v, vi w, int c)
{
    return _mm512_maskz_mov_ps(_mm512_cmpneq_epi32_mask(w, _mm512_set1_epi32(c)), v);
}

static ALWAYS_INLINE vf vreplace_where(vf v, vi w, int c, vf u)
{
    return _mm512_mask_mov_ps(u, _mm512_cmpneq_epi32_mask(w, _mm512_set1_epi32(c)), v);
}

static ALWAYS_INLINE vi viadd(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}

static ALWAYS_INLINE vi visub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}

#define vishl(w, c) _mm512_slli_epi32(w, c)
#define visar(w, c) _mm512_srai_epi32(w, c)

typedef vi vt;
#define vt_load viload

#define vt_pin(t) (void)(t)

static ALWAYS_INLINE vf vtable(vt table, vf t)
{
    return vfrom_bits(viadd(_mm512_permutexvar_epi32(vbits(t), table), vishl(vbits(t), 19)));
}

static ALWAYS_INLINE vi vstray(vf a, vf b, int base)
{
    return _mm512_ternarylogic_epi32(vbits(a), vbits(b), _mm512_set1_epi32(base), 0x7e);
}

static ALWAYS_INLINE vi vior(vi w, vi x)
{
    return _mm512_or_si512(w, x);
}

static ALWAYS_INLINE bool vany(vi w, int mask)
{
    return _mm512_test_epi32_mask(w, _mm512_set1_epi32(mask)) != 0;
}

/* The sums of the even and of the odd lanes. A float's bits moved up by 29 are a double 2^-896 times as large. */
typedef struct {
    __m512d even, odd;
} vd;

static ALWAYS_INLINE void vd_zero(vd *d)
{
    d->even = d->odd = _mm512_setzero_pd();
}

static ALWAYS_INLINE vd vd_widen(vf v)
{
    /* A multiplication moves the even lanes up and drops the odd ones in one operation; conversion (two, and a
       shuffle) was a fifth slower in all. */
    const __m512i even = _mm512_mul_epu32(vbits(v), _mm512_set1_epi64(1 << 29));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi64(vbits(v), 3), _mm512_set1_epi64(-(1LL << 29)));
    return (vd){_mm512_castsi512_pd(even), _mm512_castsi512_pd(odd)};
}

static ALWAYS_INLINE vd vd_plus(vd a, vd b)
{
    return (vd){_mm512_add_pd(a.even, b.even), _mm512_add_pd(a.odd, b.odd)};
}

static ALWAYS_INLINE void vd_get(const vd *d, double *lane)
{
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11),
                  high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    _mm512_storeu_pd(lane, _mm512_permutex2var_pd(d->even, low, d->odd));
    _mm512_storeu_pd(lane + 8, _mm512_permutex2var_pd(d->even, high, d->odd));
}

static ALWAYS_INLINE double vd_fold(const vd sum[2])
{
    const __m512d even = _mm512_add_pd(sum[0].even, sum[1].even), odd = _mm512_add_pd(sum[0].odd, sum[1].odd);
    const __m256d even8 = _mm256_add_pd(_mm512_castpd512_pd256(even), _mm512_extractf64x4_pd(even, 1));
    const __m256d odd8 = _mm256_add_pd(_mm512_castpd512_pd256(odd), _mm512_extractf64x4_pd(odd, 1));
    const __m128d even4 = _mm_add_pd(_mm256_castpd256_pd128(even8), _mm256_extractf128_pd(even8, 1));
    const __m128d odd4 = _mm_add_pd(_mm256_castpd256_pd128(odd8), _mm256_extractf128_pd(odd8, 1));
    const __m128d two = _mm_add_pd(_mm_unpacklo_pd(even4, odd4), _mm_unpackhi_pd(even4, odd4));
    return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

/* The double sums of lanes 0 to 7 and 8 to 15. */
typedef struct {
    __m512d low, high;
} vw;

static ALWAYS_INLINE vw vw_load(const double *lane)
{
    return (vw){_mm512_loadu_pd(lane), _mm512_loadu_pd(lane + 8)};
}

static ALWAYS_INLINE void vw_store(double *lane, const vw *d)
{
    _mm512_storeu_pd(lane, d->low);
    _mm512_storeu_pd(lane + 8, d->high);
}

static ALWAYS_INLINE vw vw_widen(const float *p)
{
    return (vw){_mm512_cvtps_pd(_mm256_loadu_ps(p)), _mm512_cvtps_pd(_mm256_loadu_ps(p + 8))};
}

static ALWAYS_INLINE vw vw_plus(vw a, vw b)
{
    return (vw){_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)};
}

static ALWAYS_INLINE vw vw_plus_exact(vw sum, vw a, vw b)
{
    return (vw){_mm512_fmadd_pd(a.low, b.low, sum.low), _mm512_fmadd_pd(a.high, b.high, sum.high)};
}

/* The high half of a double 2^n is that of an integer. */
static ALWAYS_INLINE __m512d pow2_pd(__m256i high_half)
{
    return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_cvtepi32_epi64(high_half), 32));
}

static ALWAYS_INLINE void vw_add(vw *d, vf f, vi n)
{
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(f));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(f, 1));
    const vi power = _mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(1023)), 20);
    d->low = _mm512_add_pd(d->low, _mm512_mul_pd(low, pow2_pd(_mm512_castsi512_si256(power))));
    d->high = _mm512_add_pd(d->high, _mm512_mul_pd(high, pow2_pd(_mm512_extracti32x8_epi32(power, 1))));
}

/* Up to four classes of a row. */
static ALWAYS_INLINE __m128 load4(const float *p, size_t count)
{
    return count == 4 ? _mm_loadu_ps(p) : _mm512_castps512_ps128(vload_first(p, count));
}

/* In each quarter of four registers, rows become columns and the other way round. */
static ALWAYS_INLINE void transpose4(vf v[4])
{
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[0], v[1])),
                  b = _mm512_castps_pd(_mm512_unpackhi_ps(v[0], v[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(v[2], v[3])),
                  d = _mm512_castps_pd(_mm512_unpackhi_ps(v[2], v[3]));
    v[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    v[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    v[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    v[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
}

/* Two classes of eight rows. */
static ALWAYS_INLINE vf load_pairs(const float *const *x, size_t j)
{
    vi pairs = _mm512_castsi128_si512(_mm_loadl_epi64((const __m128i *)(x[0] + j)));
    for (int i = 1; i < 8; ++i)
        pairs = _mm512_mask_broadcastq_epi64(pairs, (__mmask8)(1u << i), _mm_loadl_epi64((const __m128i *)(x[i] + j)));
    return vfrom_bits(pairs);
}

static ALWAYS_INLINE void vload_columns(const float *const *x, size_t j, size_t count, vf column[4])
{
    if (count == 2) {
        const vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const vf low = load_pairs(x, j), high = load_pairs(x + 8, j);
        column[0] = _mm512_permutex2var_ps(low, even, high);
        column[1] = _mm512_permutex2var_ps(low, viadd(even, viset(1)), high);
        column[2] = column[3] = vset(0.0f);
        return;
    }
    for (int i = 0; i < 4; ++i) {
        vf rows = _mm512_castps128_ps512(load4(x[i] + j, count));
        rows = _mm512_insertf32x4(rows, load4(x[i + 4] + j, count), 1);
        rows = _mm512_insertf32x4(rows, load4(x[i + 8] + j, count), 2);
        column[i] = _mm512_insertf32x4(rows, load4(x[i + 12] + j, count), 3);
    }
    transpose4(column);
}

static ALWAYS_INLINE void vstore_columns(float *const *x, size_t j, size_t count, const vf column[4])
{
    vf v[4] = {column[0], column[1], column[2], column[3]};
    transpose4(v);
    for (int i = 0; i < 4; ++i) {
        store4(x[i] + j, count, _mm512_castps512_ps128(v[i]));
        store4(x[i + 4] + j, count, _mm512_extractf32x4_ps(v[i], 1));
        store4(x[i + 8] + j, count, _mm512_extractf32x4_ps(v[i], 2));
        store4(x[i + 12] + j, count, _mm512_extractf32x4_ps(v[i], 3));
    }
}

#include "kernels/algorithm.h"

extern const struct xent_kernel XENT_KERNEL(avx512);
const struct xent_kernel XENT_KERNEL(avx512) = {
    .name = "avx512",
    .needs = XENT_CPU_AVX | XENT_CPU_AVX2 | XENT_CPU_FMA | XENT_CPU_AVX512F | XENT_CPU_AVX512BW | XENT_CPU_AVX512DQ |
             XENT_CPU_AVX512VL,
    KERNEL_FUNCTIONS,
};
