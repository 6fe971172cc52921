/* The AVX2 kernel: the operations of kernels/algorithm.h on 8 lanes, four registers to a group of 32 classes. */
#include "kernels/kernel.h"
#include "kernels/x86.h"

#include <stdbool.h>

#if !defined(XENT_SIMDE) && !(defined(__AVX2__) && defined(__FMA__))
#error "avx2.c needs -mavx2 -mfma"
#endif

enum { VW = 8 };
typedef __m256 vf;
typedef __m256i vi;

/* All bits of lane i set where i < count. */
static ALWAYS_INLINE __m256i first_lanes(size_t count)
{
    static const int32_t mask[2 * VW] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(mask + VW - (count < VW ? count : VW)));
}

static ALWAYS_INLINE vf vset(float v)
{
    return _mm256_set1_ps(v);
}

static ALWAYS_INLINE vf vload(const float *p)
{
    return _mm256_loadu_ps(p);
}

static ALWAYS_INLINE void vstore(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}

static ALWAYS_INLINE void vstream(float *p, vf v)
{
    _mm256_stream_ps(p, v);
}

static ALWAYS_INLINE vf vload_first(const float *p, size_t count)
{
    return _mm256_maskload_ps(p, first_lanes(count));
}

static ALWAYS_INLINE void vstore_first(float *p, vf v, size_t count)
{
    _mm256_maskstore_ps(p, first_lanes(count), v);
}

static ALWAYS_INLINE vf vsub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

static ALWAYS_INLINE vf vmul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

static ALWAYS_INLINE vf vfma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static ALWAYS_INLINE vf vfnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

static ALWAYS_INLINE vf vmax(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}

static ALWAYS_INLINE vf vkeep_first(vf v, size_t count)
{
    return _mm256_and_ps(v, _mm256_castsi256_ps(first_lanes(count)));
}

static ALWAYS_INLINE vf vand(vf v, const int32_t *p)
{
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)p)));
}

static ALWAYS_INLINE vf vkeep_above(vf v, vf z, vf cut)
{
    return _mm256_andnot_ps(_mm256_cmp_ps(z, cut, _CMP_LE_OQ), v);
}

static ALWAYS_INLINE vf vkeep_int_ge(vf v, vi w, int c)
{
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpgt_epi32(w, _mm256_set1_epi32(c - 1))));
}

static ALWAYS_INLINE vi vbits(vf v)
{
    return _mm256_castps_si256(v);
}

static ALWAYS_INLINE vf vfrom_bits(vi w)
{
    return _mm256_castsi256_ps(w);
}

static ALWAYS_INLINE vi viset(int v)
{
    return _mm256_set1_epi32(v);
}

static ALWAYS_INLINE vi viload(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static ALWAYS_INLINE void vistore(int32_t *p, vi w)
{
    _mm256_storeu_si256((__m256i *)p, w);
}

static ALWAYS_INLINE vf vpermute(vf v, vi w)
{
    return _mm256_permutevar8x32_ps(v, w);
}

static ALWAYS_INLINE vf vdrop_where(vf v, vi w, int c)
{
    return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(w, _mm256_set1_epi32(c))), v);
}

static ALWAYS_INLINE vf vreplace_where(vf v, vi w, int c, vf u)
{
    return _mm256_blendv_ps(v, u, _mm256_castsi256_ps(_mm256_cmpeq_epi32(w, _mm256_set1_epi32(c))));
}

static ALWAYS_INLINE vi viadd(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}

static ALWAYS_INLINE vi visub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}

#define vishl(w, c) _mm256_slli_epi32(w, c)
#define visar(w, c) _mm256_srai_epi32(w, c)

/* The two halves of a table. */
typedef struct {
    vi low, high;
} vt;

static ALWAYS_INLINE vt vt_load(const int32_t *table)
{
    return (vt){viload(table), viload(table + 8)};
}

static ALWAYS_INLINE void vt_pin(vt *halves)
{
#ifdef XENT_SIMDE
    (void)halves;
#else
    __asm__("" : "+x"(halves->low), "+x"(halves->high));
#endif
}

/* The permutation looks at three bits of an index; the fourth, moved to the sign, picks the half of the table. */
static ALWAYS_INLINE vf vtable(vt table, vf t)
{
    const vi low = _mm256_permutevar8x32_epi32(table.low, vbits(t));
    const vi high = _mm256_permutevar8x32_epi32(table.high, vbits(t));
    const vf entry = _mm256_blendv_ps(vfrom_bits(low), vfrom_bits(high), vfrom_bits(vishl(vbits(t), 28)));
    return vfrom_bits(viadd(vbits(entry), vishl(vbits(t), 19)));
}

static ALWAYS_INLINE vi vstray(vf a, vf b, int base)
{
    const vi vbase = _mm256_set1_epi32(base);
    return _mm256_or_si256(_mm256_xor_si256(vbits(a), vbase), _mm256_xor_si256(vbits(b), vbase));
}

static ALWAYS_INLINE vi vior(vi w, vi x)
{
    return _mm256_or_si256(w, x);
}

static ALWAYS_INLINE bool vany(vi w, int mask)
{
    return !_mm256_testz_si256(w, _mm256_set1_epi32(mask));
}

/* The sums of the even and of the odd lanes. A float's bits moved up by 29 are a double 2^-896 times as large. */
typedef struct {
    __m256d even, odd;
} vd;

static ALWAYS_INLINE void vd_zero(vd *d)
{
    d->even = d->odd = _mm256_setzero_pd();
}

static ALWAYS_INLINE vd vd_widen(vf v)
{
    /* A multiplication moves the even lanes up and drops the odd ones in one operation. */
    const __m256i even = _mm256_mul_epu32(vbits(v), _mm256_set1_epi64x(1 << 29));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi64(vbits(v), 3), _mm256_set1_epi64x(-(1LL << 29)));
    return (vd){_mm256_castsi256_pd(even), _mm256_castsi256_pd(odd)};
}

static ALWAYS_INLINE vd vd_plus(vd a, vd b)
{
    return (vd){_mm256_add_pd(a.even, b.even), _mm256_add_pd(a.odd, b.odd)};
}

static ALWAYS_INLINE void vd_get(const vd *d, double *lane)
{
    const __m256d low = _mm256_unpacklo_pd(d->even, d->odd), high = _mm256_unpackhi_pd(d->even, d->odd);
    _mm256_storeu_pd(lane, _mm256_permute2f128_pd(low, high, 0x20));
    _mm256_storeu_pd(lane + 4, _mm256_permute2f128_pd(low, high, 0x31));
}

static ALWAYS_INLINE double vd_fold(const vd sum[4])
{
    const __m256d even0 = _mm256_add_pd(sum[0].even, sum[2].even), even1 = _mm256_add_pd(sum[1].even, sum[3].even);
    const __m256d odd0 = _mm256_add_pd(sum[0].odd, sum[2].odd), odd1 = _mm256_add_pd(sum[1].odd, sum[3].odd);
    const __m256d even8 = _mm256_add_pd(even0, even1), odd8 = _mm256_add_pd(odd0, odd1);
    const __m128d even4 = _mm_add_pd(_mm256_castpd256_pd128(even8), _mm256_extractf128_pd(even8, 1));
    const __m128d odd4 = _mm_add_pd(_mm256_castpd256_pd128(odd8), _mm256_extractf128_pd(odd8, 1));
    const __m128d two = _mm_add_pd(_mm_unpacklo_pd(even4, odd4), _mm_unpackhi_pd(even4, odd4));
    return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

/* The double sums of lanes 0 to 3 and 4 to 7. */
typedef struct {
    __m256d low, high;
} vw;

static ALWAYS_INLINE vw vw_load(const double *lane)
{
    return (vw){_mm256_loadu_pd(lane), _mm256_loadu_pd(lane + 4)};
}

static ALWAYS_INLINE void vw_store(double *lane, const vw *d)
{
    _mm256_storeu_pd(lane, d->low);
    _mm256_storeu_pd(lane + 4, d->high);
}

static ALWAYS_INLINE vw vw_widen(const float *p)
{
    return (vw){_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))};
}

static ALWAYS_INLINE vw vw_plus(vw a, vw b)
{
    return (vw){_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
}

static ALWAYS_INLINE vw vw_plus_exact(vw sum, vw a, vw b)
{
    return (vw){_mm256_fmadd_pd(a.low, b.low, sum.low), _mm256_fmadd_pd(a.high, b.high, sum.high)};
}

/* The high half of a double 2^n is that of an integer. */
static ALWAYS_INLINE __m256d pow2_pd(__m128i high_half)
{
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_cvtepu32_epi64(high_half), 32));
}

static ALWAYS_INLINE void vw_add(vw *d, vf f, vi n)
{
    const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(f));
    const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(f, 1));
    const vi power = _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(1023)), 20);
    d->low = _mm256_add_pd(d->low, _mm256_mul_pd(low, pow2_pd(_mm256_castsi256_si128(power))));
    d->high = _mm256_add_pd(d->high, _mm256_mul_pd(high, pow2_pd(_mm256_extracti128_si256(power, 1))));
}

/* In each half of four registers, rows become columns and the other way round. */
static ALWAYS_INLINE void transpose4(vf v[4])
{
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(v[0], v[1])),
                  b = _mm256_castps_pd(_mm256_unpackhi_ps(v[0], v[1]));
    const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(v[2], v[3])),
                  d = _mm256_castps_pd(_mm256_unpackhi_ps(v[2], v[3]));
    v[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
    v[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
    v[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
    v[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
}

static ALWAYS_INLINE __m128 load4(const float *p, size_t count)
{
    return count == 4 ? _mm_loadu_ps(p) : _mm256_castps256_ps128(vload_first(p, count));
}

/* Two classes of two rows. */
static ALWAYS_INLINE __m128 load_pairs(const float *const *x, size_t j)
{
    return _mm_loadh_pi(_mm_loadl_pi(_mm_setzero_ps(), (const __m64 *)(x[0] + j)), (const __m64 *)(x[1] + j));
}

static ALWAYS_INLINE void vload_columns(const float *const *x, size_t j, size_t count, vf column[4])
{
    if (count == 2) {
        const vf low = _mm256_insertf128_ps(_mm256_castps128_ps256(load_pairs(x, j)), load_pairs(x + 4, j), 1);
        const vf high = _mm256_insertf128_ps(_mm256_castps128_ps256(load_pairs(x + 2, j)), load_pairs(x + 6, j), 1);
        column[0] = _mm256_shuffle_ps(low, high, 0x88);
        column[1] = _mm256_shuffle_ps(low, high, 0xdd);
        column[2] = column[3] = vset(0.0f);
        return;
    }
    for (int i = 0; i < 4; ++i) {
        const __m256 low = _mm256_castps128_ps256(load4(x[i] + j, count));
        column[i] = _mm256_insertf128_ps(low, load4(x[i + 4] + j, count), 1);
    }
    transpose4(column);
}

static ALWAYS_INLINE void vstore_columns(float *const *x, size_t j, size_t count, const vf column[4])
{
    vf v[4] = {column[0], column[1], column[2], column[3]};
    transpose4(v);
    for (int i = 0; i < 4; ++i) {
        store4(x[i] + j, count, _mm256_castps256_ps128(v[i]));
        store4(x[i + 4] + j, count, _mm256_extractf128_ps(v[i], 1));
    }
}

#include "kernels/algorithm.h"

extern const struct xent_kernel XENT_KERNEL(avx2);
const struct xent_kernel XENT_KERNEL(avx2) = {
    .name = "avx2",
    .needs = XENT_CPU_AVX | XENT_CPU_AVX2 | XENT_CPU_FMA,
    KERNEL_FUNCTIONS,
};
