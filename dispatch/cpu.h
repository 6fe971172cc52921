/* What the CPU and its operating system offer the kernels. */
#ifndef XENT_DISPATCH_CPU_H
#define XENT_DISPATCH_CPU_H

#include "kernels/names.h"

#include <stdint.h>

/* How to ask an x86 CPU, so that tests can answer in its place. */
struct cpuid_source {
    void (*cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t regs[4]); /* eax, ebx, ecx, edx */
    uint64_t (*xgetbv)(void);                                         /* XCR0; asked only if OSXSAVE is set */
};

/* enum xent_cpu_feature bits. A feature counts only if the operating system saves the registers it works on. */
uint32_t xent_x86_features(const struct cpuid_source *source);

/* The same for the CPU this runs on, of any family. */
uint32_t xent_cpu_features(void);

/* What kernels should do on a CPU to keep memory busy by themselves. The numbers are those of XENT_OVERLAP; the first
   four are each more than the one before. */
enum xent_overlap {
    XENT_OVERLAP_NEVER,      /* nothing */
    XENT_OVERLAP_LONG,       /* overlap of struct xent_memory, for long rows and planes that share places in a cache */
    XENT_OVERLAP_STREAM,     /* for all, and its stream for large outputs */
    XENT_OVERLAP_STREAM_ALL, /* and small ones, for tests */
    XENT_OVERLAP_SHORT,      /* nothing but stream, for large outputs of short rows and of classes in planes */
    XENT_OVERLAP_EARLY,      /* as XENT_OVERLAP_STREAM, but lines are fetched early */
    XENT_OVERLAP_EARLY_ALL   /* and small outputs streamed, for tests */
};

enum xent_overlap xent_x86_overlap(const struct cpuid_source *source);
enum xent_overlap xent_cpu_overlap(void);

/* The name of one feature bit. */
const char *xent_cpu_feature_name(uint32_t feature);

#endif
