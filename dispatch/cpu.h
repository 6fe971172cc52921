/* What the CPU and its operating system offer the kernels. */
#ifndef XENT_DISPATCH_CPU_H
#define XENT_DISPATCH_CPU_H

#include "kernels/names.h"

#include <stdbool.h>
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

/* Whether kernels should keep memory busy by themselves on this CPU: enum xent_memory. */
bool xent_x86_overlaps(const struct cpuid_source *source);
bool xent_cpu_overlaps(void);

/* The name of one feature bit. */
const char *xent_cpu_feature_name(uint32_t feature);

#endif
