/* Finds the CPU features that kernels need: CPUID with XCR0 on x86, the architecture's baseline on aarch64. */
#include "cpu.h"

#include "kernels/kernel.h"

#include <stdbool.h>
#include <string.h>

enum {
    LEAF1_ECX_FMA = 1 << 12,
    LEAF1_ECX_OSXSAVE = 1 << 27,
    LEAF1_ECX_AVX = 1 << 28,
    LEAF7_EBX_AVX2 = 1 << 5,
    LEAF7_EBX_AVX512F = 1 << 16,
    LEAF7_EBX_AVX512DQ = 1 << 17,
    LEAF7_EBX_AVX512BW = 1 << 30,
    XCR0_YMM = 0x06, /* xmm and ymm state */
    XCR0_ZMM = 0xe6  /* and mask registers, upper zmm halves, upper 16 zmm */
};
#define LEAF7_EBX_AVX512VL (UINT32_C(1) << 31)

uint32_t xent_x86_features(const struct cpuid_source *source)
{
    uint32_t leaf0[4], leaf1[4], leaf7[4];
    source->cpuid(0, 0, leaf0);
    if (leaf0[0] < 1)
        return 0;
    source->cpuid(1, 0, leaf1);
    const uint32_t avx = LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX;
    if ((leaf1[2] & avx) != avx)
        return 0;
    const uint64_t xcr0 = source->xgetbv();
    if ((xcr0 & XCR0_YMM) != XCR0_YMM)
        return 0;
    uint32_t features = XENT_CPU_AVX;
    if (leaf1[2] & LEAF1_ECX_FMA)
        features |= XENT_CPU_FMA;
    if (leaf0[0] < 7)
        return features;
    source->cpuid(7, 0, leaf7);
    const uint32_t ebx = leaf7[1];
    if (ebx & LEAF7_EBX_AVX2)
        features |= XENT_CPU_AVX2;
    if ((xcr0 & XCR0_ZMM) != XCR0_ZMM || !(ebx & LEAF7_EBX_AVX512F))
        return features;
    features |= XENT_CPU_AVX512F;
    if (ebx & LEAF7_EBX_AVX512BW)
        features |= XENT_CPU_AVX512BW;
    if (ebx & LEAF7_EBX_AVX512DQ)
        features |= XENT_CPU_AVX512DQ;
    if (ebx & LEAF7_EBX_AVX512VL)
        features |= XENT_CPU_AVX512VL;
    return features;
}

static bool is_vendor(const uint32_t leaf0[4], const char name[12])
{
    return memcmp(&leaf0[1], name, 4) == 0 && memcmp(&leaf0[3], name + 4, 4) == 0 &&
           memcmp(&leaf0[2], name + 8, 4) == 0;
}

/* Family 25 is Zen 3 and Zen 4; of family 26 these models are Zen 5. */
static enum xent_overlap amd_overlap(uint32_t leaf1_eax)
{
    const uint32_t family = (leaf1_eax >> 8 & 0xf) + (leaf1_eax >> 20 & 0xff);
    const uint32_t model = (leaf1_eax >> 4 & 0xf) | (leaf1_eax >> 12 & 0xf0);
    const bool is_zen5 =
        family == 26 && (model < 0x30 || (model >= 0x40 && model < 0x50) || (model >= 0x60 && model < 0x80));
    if (is_zen5)
        return XENT_OVERLAP_EARLY;
    if (family != 25)
        return XENT_OVERLAP_NEVER;
    const bool is_zen3 = model < 0x10 || (model >= 0x20 && model < 0x60);
    return is_zen3 ? XENT_OVERLAP_LONG : XENT_OVERLAP_SHORT;
}

/* Measured on Intel's Granite Rapids and Ice Lake, where all of it together takes 20 to 50 % off rows that come from
   memory; on AMD's Zen 3, where going past the caches loses 12 to 40 % of rows, and the rest takes 8 to 20 % off
   forwards and outputs elsewhere; on Zen 4, where each part of it costs rows time, and images and short rows elsewhere
   take up to 30 % less past the caches; and on Zen 5, where it takes 10 to 30 % off if lines are fetched early, and
   costs as much if they are fetched as for Intel's (docs/performance.md). Not measured anywhere else. */
enum xent_overlap xent_x86_overlap(const struct cpuid_source *source)
{
    uint32_t leaf0[4], leaf1[4];
    source->cpuid(0, 0, leaf0);
    if (is_vendor(leaf0, "GenuineIntel"))
        return XENT_OVERLAP_STREAM;
    if (!is_vendor(leaf0, "AuthenticAMD") || leaf0[0] < 1)
        return XENT_OVERLAP_NEVER;
    source->cpuid(1, 0, leaf1);
    return amd_overlap(leaf1[0]);
}

const char *xent_cpu_feature_name(uint32_t feature)
{
    switch (feature) {
    case XENT_CPU_AVX:
        return "avx";
    case XENT_CPU_AVX2:
        return "avx2";
    case XENT_CPU_FMA:
        return "fma";
    case XENT_CPU_AVX512F:
        return "avx512f";
    case XENT_CPU_AVX512BW:
        return "avx512bw";
    case XENT_CPU_AVX512DQ:
        return "avx512dq";
    case XENT_CPU_AVX512VL:
        return "avx512vl";
    case XENT_CPU_NEON:
        return "neon";
    default:
        return "unknown";
    }
}

#if defined(XENT_SIMDE)

/* Every kernel is emulated. */
uint32_t xent_cpu_features(void)
{
    return UINT32_MAX;
}

enum xent_overlap xent_cpu_overlap(void)
{
    return XENT_OVERLAP_NEVER;
}

#elif defined(__x86_64__) || defined(__i386__)

#include <cpuid.h>

static void native_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    __cpuid_count(leaf, subleaf, regs[0], regs[1], regs[2], regs[3]);
}

static uint64_t native_xgetbv(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static const struct cpuid_source native = {native_cpuid, native_xgetbv};

uint32_t xent_cpu_features(void)
{
    return xent_x86_features(&native);
}

enum xent_overlap xent_cpu_overlap(void)
{
    return xent_x86_overlap(&native);
}

#elif defined(__aarch64__)

/* Advanced SIMD with fused multiply-add is part of every ARMv8-A profile that runs a hosted C program. */
uint32_t xent_cpu_features(void)
{
    return XENT_CPU_NEON;
}

enum xent_overlap xent_cpu_overlap(void)
{
    return XENT_OVERLAP_NEVER;
}

#else

uint32_t xent_cpu_features(void)
{
    return 0;
}

enum xent_overlap xent_cpu_overlap(void)
{
    return XENT_OVERLAP_NEVER;
}

#endif
