/*
 * The contract between the kernels and their callers: what a kernel is, and what it is asked to do.
 *
 * A kernel is one instruction set's implementation of docs/numerics.md. All kernels give the same bits. A kernel
 * allocates nothing, locks nothing, keeps no state, sets no errno and checks no argument: its caller has.
 */
#ifndef XENT_KERNELS_KERNEL_H
#define XENT_KERNELS_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* What a kernel may need from the CPU and its operating system. dispatch/cpu.c finds them and names them. */
enum xent_cpu_feature {
    XENT_CPU_AVX = 1 << 0, /* with the operating system saving ymm registers */
    XENT_CPU_AVX2 = 1 << 1,
    XENT_CPU_FMA = 1 << 2,
    XENT_CPU_AVX512F = 1 << 3, /* with the operating system saving zmm and mask registers */
    XENT_CPU_AVX512BW = 1 << 4,
    XENT_CPU_AVX512DQ = 1 << 5,
    XENT_CPU_AVX512VL = 1 << 6,
    XENT_CPU_NEON = 1 << 7
};

/*
 * A validated problem. Row i's logits are logits[i * logits_stride ...][classes]; likewise out with out_stride. out may
 * be NULL, equal to logits with the same stride, or disjoint from it.
 */
struct xent_job {
    const float *logits;
    size_t logits_stride;
    size_t classes;
    float *out; /* gradient, probabilities or log-probabilities */
    size_t out_stride;
    float *lse; /* [rows] or NULL */

    /* For cross_entropy only. Exactly one of targets32 and targets64 is set. */
    const int32_t *targets32;
    const int64_t *targets64;
    int64_t ignore_index;
    float *loss;       /* [rows] or NULL */
    double grad_scale; /* every gradient entry is multiplied by it: in [2^-63, 1] */

    /* Or NULL: row i's unrounded loss is added to sums[i >> sums_shift], so 2^sums_shift rows to a group. */
    double *sums;
    unsigned sums_shift;
};

/* Adds the unrounded loss of a kept row to its group's sum. Rows come in order. */
static inline void xent_job_add_loss(const struct xent_job *job, size_t row, double loss)
{
    if (job->sums)
        job->sums[row >> job->sums_shift] += loss;
}

static inline int64_t xent_job_target(const struct xent_job *job, size_t row)
{
    return job->targets32 ? job->targets32[row] : job->targets64[row];
}

struct xent_kernel {
    const char *name;
    uint32_t needs; /* enum xent_cpu_feature bits */

    /* Rows [first, last): gradients to out, losses to loss and to the groups' sums, log-sum-exps to lse. */
    void (*cross_entropy)(const struct xent_job *job, size_t first, size_t last);

    /* Rows [first, last): probabilities to out, log-sum-exps to lse. */
    void (*softmax)(const struct xent_job *job, size_t first, size_t last);

    /* Rows [first, last): log-probabilities to out. */
    void (*log_softmax)(const struct xent_job *job, size_t first, size_t last);
};

/* Kernel sources name their one external symbol with this, so that it is the same everywhere. */
#define XENT_KERNEL(isa) xent_kernel_##isa

#endif
