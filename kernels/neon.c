/* The NEON kernel: the operations of kernels/algorithm.h on 4 lanes, eight registers to a group of 32 classes. */
#include "kernels/kernel.h"

#include <arm_neon.h>
#include <stdbool.h>

#if !defined(XENT_SIMDE) && !(defined(__aarch64__) && defined(__ARM_NEON))
#error "neon.c needs aarch64 with Advanced SIMD"
#endif

enum { VW = 4 };
typedef float32x4_t vf;
typedef int32x4_t vi;

static ALWAYS_INLINE void prefetch(const float *p)
{
    __builtin_prefetch(p);
}

static ALWAYS_INLINE void prefetch_l2(const float *p)
{
    __builtin_prefetch(p, 0, 2);
}

static ALWAYS_INLINE uint32x4_t index_below(size_t count)
{
    static const uint32_t index[VW] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(index), vdupq_n_u32(count < VW ? (uint32_t)count : VW));
}

/* v where mask is set, +0 elsewhere. */
static ALWAYS_INLINE vf keep_where(vf v, uint32x4_t mask)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), mask));
}

static ALWAYS_INLINE vf vset(float v)
{
    return vdupq_n_f32(v);
}

static ALWAYS_INLINE vf vload(const float *p)
{
    return vld1q_f32(p);
}

static ALWAYS_INLINE void vstore(float *p, vf v)
{
    vst1q_f32(p, v);
}

/* Plain stores: the pair of them that hints at streaming has no intrinsic. */
static ALWAYS_INLINE void vstream(float *p, vf v)
{
    vst1q_f32(p, v);
}

static ALWAYS_INLINE void vstream_end(void)
{
}

static ALWAYS_INLINE void vend(void)
{
}

/* NEON has no masked load or store; a short row's few tail elements go one by one. */
static ALWAYS_INLINE vf vload_first(const float *p, size_t count)
{
    if (count >= VW)
        return vld1q_f32(p);
    float lane[VW] = {0};
    for (size_t i = 0; i < count; ++i)
        lane[i] = p[i];
    return vld1q_f32(lane);
}

static ALWAYS_INLINE void vstore_first(float *p, vf v, size_t count)
{
    if (count >= VW) {
        vst1q_f32(p, v);
        return;
    }
    float lane[VW];
    vst1q_f32(lane, v);
    for (size_t i = 0; i < count; ++i)
        p[i] = lane[i];
}

static ALWAYS_INLINE vf vsub(vf a, vf b)
{
    return vsubq_f32(a, b);
}

static ALWAYS_INLINE vf vmul(vf a, vf b)
{
    return vmulq_f32(a, b);
}

static ALWAYS_INLINE vf vfma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}

static ALWAYS_INLINE vf vfnma(vf a, vf b, vf c)
{
    return vfmsq_f32(c, a, b);
}

/* vmaxq would return NaN if either operand is one. */
static ALWAYS_INLINE vf vmax(vf a, vf b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

static ALWAYS_INLINE vf vkeep_first(vf v, size_t count)
{
    return keep_where(v, index_below(count));
}

static ALWAYS_INLINE vf vand(vf v, const int32_t *p)
{
    return vreinterpretq_f32_s32(vandq_s32(vreinterpretq_s32_f32(v), vld1q_s32(p)));
}

static ALWAYS_INLINE vf vkeep_above(vf v, vf z, vf cut)
{
    return keep_where(v, vmvnq_u32(vcleq_f32(z, cut)));
}

static ALWAYS_INLINE vf vkeep_int_ge(vf v, vi w, int c)
{
    return keep_where(v, vcgtq_s32(w, vdupq_n_s32(c - 1)));
}

static ALWAYS_INLINE vi vbits(vf v)
{
    return vreinterpretq_s32_f32(v);
}

static ALWAYS_INLINE vf vfrom_bits(vi w)
{
    return vreinterpretq_f32_s32(w);
}

static ALWAYS_INLINE vi viset(int v)
{
    return vdupq_n_s32(v);
}

static ALWAYS_INLINE vi viload(const int32_t *p)
{
    return vld1q_s32(p);
}

static ALWAYS_INLINE void vistore(int32_t *p, vi w)
{
    vst1q_s32(p, w);
}

static ALWAYS_INLINE vf vpermute(vf v, vi w)
{
    const uint32x4_t bytes = vmlaq_n_u32(vdupq_n_u32(0x03020100), vreinterpretq_u32_s32(w), 0x04040404);
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(v), vreinterpretq_u8_u32(bytes)));
}

static ALWAYS_INLINE vf vdrop_where(vf v, vi w, int c)
{
    return keep_where(v, vmvnq_u32(vceqq_s32(w, vdupq_n_s32(c))));
}

static ALWAYS_INLINE vf vreplace_where(vf v, vi w, int c, vf u)
{
    return vbslq_f32(vceqq_s32(w, vdupq_n_s32(c)), u, v);
}

static ALWAYS_INLINE vi viadd(vi a, vi b)
{
    return vaddq_s32(a, b);
}

static ALWAYS_INLINE vi visub(vi a, vi b)
{
    return vsubq_s32(a, b);
}

#define vishl(w, c) vshlq_n_s32(w, c)
#define visar(w, c) vshrq_n_s32(w, c)

/* The table's 64 bytes are looked up by byte: index k becomes bytes 4k, 4k + 1, 4k + 2, 4k + 3. */
typedef uint8x16x4_t vt;

static ALWAYS_INLINE vt vt_load(const int32_t *table)
{
    const uint8_t *p = (const uint8_t *)table;
    return (vt){{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
}

#define vt_pin(t) (void)(t)

static ALWAYS_INLINE vf vtable(vt table, vf t)
{
    const uint32x4_t k = vandq_u32(vreinterpretq_u32_f32(t), vdupq_n_u32(15));
    const uint32x4_t byte = vmlaq_u32(vdupq_n_u32(0x03020100), k, vdupq_n_u32(0x04040404));
    const vi entry = vreinterpretq_s32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(byte)));
    return vfrom_bits(viadd(entry, vishl(vbits(t), 19)));
}

static ALWAYS_INLINE vi vstray(vf a, vf b, int base)
{
    const vi vbase = vdupq_n_s32(base);
    return vorrq_s32(veorq_s32(vbits(a), vbase), veorq_s32(vbits(b), vbase));
}

static ALWAYS_INLINE vi vior(vi w, vi x)
{
    return vorrq_s32(w, x);
}

static ALWAYS_INLINE bool vany(vi w, int mask)
{
    return vmaxvq_u32(vreinterpretq_u32_s32(vandq_s32(w, vdupq_n_s32(mask)))) != 0;
}

/* The sums of lanes 0, 1 and of lanes 2, 3. A float's bits moved up by 29 are a double 2^-896 times as large. */
typedef struct {
    float64x2_t low, high;
} vd;

static ALWAYS_INLINE void vd_zero(vd *d)
{
    d->low = d->high = vdupq_n_f64(0);
}

static ALWAYS_INLINE vd vd_widen(vf v)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint64x2_t low = vshll_n_u32(vget_low_u32(bits), 29), high = vshll_n_u32(vget_high_u32(bits), 29);
    return (vd){vreinterpretq_f64_u64(low), vreinterpretq_f64_u64(high)};
}

static ALWAYS_INLINE vd vd_plus(vd a, vd b)
{
    return (vd){vaddq_f64(a.low, b.low), vaddq_f64(a.high, b.high)};
}

static ALWAYS_INLINE void vd_get(const vd *d, double *lane)
{
    vst1q_f64(lane, d->low);
    vst1q_f64(lane + 2, d->high);
}

static ALWAYS_INLINE double vd_fold(const vd sum[8])
{
    float64x2_t low[4], high[4];
    for (int v = 0; v < 4; ++v) {
        low[v] = vaddq_f64(sum[v].low, sum[v + 4].low);
        high[v] = vaddq_f64(sum[v].high, sum[v + 4].high);
    }
    const float64x2_t low4 = vaddq_f64(vaddq_f64(low[0], low[2]), vaddq_f64(low[1], low[3]));
    const float64x2_t high4 = vaddq_f64(vaddq_f64(high[0], high[2]), vaddq_f64(high[1], high[3]));
    const float64x2_t two = vaddq_f64(low4, high4);
    return vgetq_lane_f64(two, 0) + vgetq_lane_f64(two, 1);
}

/* Any frame's sums need no other form. */
typedef vd vw;

static ALWAYS_INLINE vw vw_load(const double *lane)
{
    return (vw){vld1q_f64(lane), vld1q_f64(lane + 2)};
}

static ALWAYS_INLINE void vw_store(double *lane, const vw *d)
{
    vst1q_f64(lane, d->low);
    vst1q_f64(lane + 2, d->high);
}

static ALWAYS_INLINE vw vw_widen(const float *p)
{
    return (vw){vcvt_f64_f32(vld1_f32(p)), vcvt_f64_f32(vld1_f32(p + 2))};
}

#define vw_plus vd_plus

static ALWAYS_INLINE vw vw_plus_exact(vw sum, vw a, vw b)
{
    return (vw){vfmaq_f64(sum.low, a.low, b.low), vfmaq_f64(sum.high, a.high, b.high)};
}

static ALWAYS_INLINE float64x2_t pow2_f64(int32x2_t n)
{
    const int64x2_t biased = vaddq_s64(vmovl_s32(n), vdupq_n_s64(1023));
    return vreinterpretq_f64_s64(vshlq_n_s64(biased, 52));
}

static ALWAYS_INLINE void vw_add(vw *d, vf f, vi n)
{
    d->low = vaddq_f64(d->low, vmulq_f64(vcvt_f64_f32(vget_low_f32(f)), pow2_f64(vget_low_s32(n))));
    d->high = vaddq_f64(d->high, vmulq_f64(vcvt_f64_f32(vget_high_f32(f)), pow2_f64(vget_high_s32(n))));
}

/* Rows become columns and the other way round. */
static ALWAYS_INLINE void transpose4(vf v[4])
{
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(v[0], v[1])),
                      b = vreinterpretq_f64_f32(vtrn2q_f32(v[0], v[1]));
    const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(v[2], v[3])),
                      d = vreinterpretq_f64_f32(vtrn2q_f32(v[2], v[3]));
    v[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    v[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    v[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    v[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

static ALWAYS_INLINE void vload_columns(const float *const *x, size_t j, size_t count, vf column[4])
{
    for (int i = 0; i < 4; ++i)
        column[i] = vload_first(x[i] + j, count);
    transpose4(column);
}

static ALWAYS_INLINE void vstore_columns(float *const *x, size_t j, size_t count, const vf column[4])
{
    vf v[4] = {column[0], column[1], column[2], column[3]};
    transpose4(v);
    for (int i = 0; i < 4; ++i)
        vstore_first(x[i] + j, v[i], count);
}

#include "kernels/algorithm.h"

extern const struct xent_kernel XENT_KERNEL(neon);
const struct xent_kernel XENT_KERNEL(neon) = {
    .name = "neon",
    .needs = XENT_CPU_NEON,
    KERNEL_FUNCTIONS,
};
