/*
 * Stands in for <arm_neon.h> on the include path, so that the NEON kernel compiles unchanged on any CPU.
 *
 * SIMDe supplies the types and most intrinsics; the fused operations are written lane by lane, because SIMDe 0.7.4
 * rounds twice without FMA hardware and lacks vfmsq_f32.
 */
#ifndef XENT_TESTS_SIMDE_ARM_NEON_H
#define XENT_TESTS_SIMDE_ARM_NEON_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <math.h>
#include <simde/arm/neon.h>

static inline __attribute__((unused)) simde_float32x4_t shim_vfmaq_f32(simde_float32x4_t c, simde_float32x4_t a,
                                                                       simde_float32x4_t b)
{
    float x[4], y[4], z[4];
    simde_vst1q_f32(x, a);
    simde_vst1q_f32(y, b);
    simde_vst1q_f32(z, c);
    for (int l = 0; l < 4; ++l)
        z[l] = fmaf(x[l], y[l], z[l]);
    return simde_vld1q_f32(z);
}

static inline __attribute__((unused)) simde_float32x4_t shim_vfmsq_f32(simde_float32x4_t c, simde_float32x4_t a,
                                                                       simde_float32x4_t b)
{
    return shim_vfmaq_f32(c, simde_vnegq_f32(a), b);
}

#undef vfmaq_f32
#undef vfmsq_f32
#define vfmaq_f32 shim_vfmaq_f32
#define vfmsq_f32 shim_vfmsq_f32

#endif
