/*
 * The contract between the kernels and their callers: what a kernel is, and what it is asked to do.
 *
 * A kernel is one instruction set's implementation of docs/numerics.md. All kernels give the same bits. A kernel
 * allocates nothing, locks nothing, keeps no state, sets no errno and checks no argument: its caller has.
 */
#ifndef XENT_KERNELS_KERNEL_H
#define XENT_KERNELS_KERNEL_H

#include "kernels/names.h"
#include "kernels/row.h"
#include "xent/xent.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "-ffast-math, or a part of it, would change results"
#endif

#define NOINLINE __attribute__((noinline))

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

/* How lines are fetched before their use where kernels overlap (kernels/overlap.h). */
enum xent_fetch {
    XENT_FETCH_NEXT_PAGE, /* a little ahead, and a page ahead */
    XENT_FETCH_PAGES,     /* from several pages at once: logits are so many, and close enough */
    XENT_FETCH_EARLY      /* several pages ahead */
};

/* How a kernel is to move what is not in cache: a matter of the CPU and of sizes, which changes no bit. */
struct xent_memory {
    bool overlap; /* the CPU's own prefetchers do not keep memory busy while arithmetic goes on: kernels/overlap.h */
    bool stream;  /* what is written without having been read goes past the caches, where rows are neighbours or short,
                     or, with overlap, classes are neighbours */
    bool cached;  /* what is written is small enough to be in a cache already */
    enum xent_fetch fetch;
};

/*
 * A validated problem. Numbers are floats, or doubles for cross_entropy_f64. Class j of row i is at
 * xent_job_at(job, &strides, i) + j * strides.classes of an array. out may be NULL, equal to logits with the same
 * strides, or disjoint from it. The functions without targets take rows whose classes are neighbours, and inner is 1.
 */
struct xent_job {
    xent_dtype dtype;
    size_t classes, inner;
    const void *logits;
    xent_strides logits_strides;
    void *out; /* gradient, probabilities or log-probabilities */
    xent_strides out_strides;
    void *lse; /* [rows] or NULL */
    struct xent_memory memory;

    /* For cross_entropy only, from here on. Plain labels without gaps are targets8 to targets64, too. */
    xent_targets target_type;
    const uint8_t *targets8;
    const uint16_t *targets16;
    const int32_t *targets32;
    const int64_t *targets64;
    size_t labels;
    const void *targets;
    xent_strides targets_strides;
    const void *probabilities; /* of labels, or NULL */
    xent_strides probabilities_strides;
    int64_t ignore_index;
    void *loss;        /* [rows] or NULL */
    double grad_scale; /* every gradient entry is multiplied by it */
    double divisor;    /* for doubles: grad_scale is 0, or 1 / divisor rounded */

    /* The target distribution of a kept row: t_j = r w_j (smoothing + target_weight q_j), q_j a target's probability.
     */
    const void *class_weights; /* w, [classes]; NULL: all 1 */
    double weights_sum;        /* of w over all classes; only for smoothing */
    double smoothing;          /* label_smoothing / classes */
    double target_weight;      /* 1 - label_smoothing */
    const void *row_weights;   /* r; NULL: all 1 */
    xent_strides row_weights_strides;
    const void *dloss; /* a factor for a row's gradient; NULL: all 1 */
    xent_strides dloss_strides;

    /* Or NULL: row i's unrounded loss is added to sums[i >> sums_shift], so 2^sums_shift rows to a group. */
    double *sums;
    double *sums_rest; /* for doubles: what the roundings of the sums have lost */
    unsigned sums_shift;
};

/* Where a row is in an array: the index of its first number. */
static inline size_t xent_job_at(const struct xent_job *job, const xent_strides *strides, size_t row)
{
    if (job->inner == 1)
        return row * strides->outer;
    return row / job->inner * strides->outer + row % job->inner * strides->inner;
}

static inline const float *xent_job_logits(const struct xent_job *job, size_t row)
{
    return (const float *)job->logits + xent_job_at(job, &job->logits_strides, row);
}

/* The row's place in out, which there must be. */
static inline float *xent_job_out(const struct xent_job *job, size_t row)
{
    return (float *)job->out + xent_job_at(job, &job->out_strides, row);
}

/* Whether targets are classes by their number; else they are a probability for every class. */
static inline bool xent_job_has_labels(const struct xent_job *job)
{
    return job->target_type != XENT_PROBABILITIES;
}

/* Whether every row's classes are neighbours, in logits, probabilities and out. */
static inline bool xent_job_is_contiguous(const struct xent_job *job)
{
    return job->logits_strides.classes == 1 && (!job->out || job->out_strides.classes == 1) &&
           (xent_job_has_labels(job) || job->targets_strides.classes == 1);
}

/* Number i of an array of floats or doubles. */
static inline double xent_job_number(const struct xent_job *job, const void *array, size_t i)
{
    return job->dtype == XENT_F64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

static inline double xent_job_class_weight(const struct xent_job *job, size_t j)
{
    return job->class_weights ? xent_job_number(job, job->class_weights, j) : 1;
}

static inline double xent_job_row_weight(const struct xent_job *job, size_t row)
{
    return job->row_weights ? xent_job_number(job, job->row_weights, xent_job_at(job, &job->row_weights_strides, row))
                            : 1;
}

/* What every entry of a row's gradient is multiplied by. */
static inline double xent_job_scale(const struct xent_job *job, size_t row)
{
    if (!job->dloss)
        return job->grad_scale;
    return job->grad_scale * xent_job_number(job, job->dloss, xent_job_at(job, &job->dloss_strides, row));
}

/* Whether a row's target is one class. */
static inline bool xent_job_has_plain_labels(const struct xent_job *job)
{
    return xent_job_has_labels(job) && job->labels == 1 && !job->probabilities;
}

/* Whether every row's distribution is all its target's, and 1. */
static inline bool xent_job_has_whole_labels(const struct xent_job *job)
{
    return xent_job_has_plain_labels(job) && !job->class_weights && job->smoothing == 0 && !job->row_weights;
}

/* The same, and every row's gradient has the same factor. */
static inline bool xent_job_is_plain(const struct xent_job *job)
{
    return xent_job_has_whole_labels(job) && !job->dloss;
}

/* Adds the unrounded loss of a kept row to its group's sum. Rows come in order. */
static inline void xent_job_add_loss(const struct xent_job *job, size_t row, double loss)
{
    if (job->sums)
        job->sums[row >> job->sums_shift] += loss;
}

/* Label number i of a row. */
static inline int64_t xent_job_label(const struct xent_job *job, size_t row, size_t i)
{
    const size_t at = xent_job_at(job, &job->targets_strides, row) + i * job->targets_strides.classes;
    switch (job->target_type) {
    case XENT_LABELS_I64:
        return ((const int64_t *)job->targets)[at];
    case XENT_LABELS_U8:
        return ((const uint8_t *)job->targets)[at];
    case XENT_LABELS_U16:
        return ((const uint16_t *)job->targets)[at];
    default:
        return ((const int32_t *)job->targets)[at];
    }
}

/* The probability of a row's label number i. */
static inline double xent_job_label_probability(const struct xent_job *job, size_t row, size_t i)
{
    if (!job->probabilities)
        return 1;
    const xent_strides *strides = &job->probabilities_strides;
    return xent_job_number(job, job->probabilities, xent_job_at(job, strides, row) + i * strides->classes);
}

/* A row's only label. */
static inline int64_t xent_job_target(const struct xent_job *job, size_t row)
{
    if (job->targets32)
        return job->targets32[row];
    return job->targets64 ? job->targets64[row] : xent_job_label(job, row, 0);
}

static inline bool xent_job_has_packed_labels(const struct xent_job *job)
{
    return job->targets8 || job->targets16 || job->targets32 || job->targets64;
}

/* The only labels of count rows from first on, where these are packed: by loops that become vector code. Returns
   whether one of them is ignore_index. */
static inline bool xent_job_read_labels(const struct xent_job *job, size_t first, size_t count, int64_t *labels)
{
    const uint8_t *targets8 = job->targets8;
    const uint16_t *targets16 = job->targets16;
    const int32_t *targets32 = job->targets32;
    const int64_t *targets64 = job->targets64, ignore_index = job->ignore_index;
    int64_t ignored = 0;
    for (size_t i = 0; targets8 && i < count; ++i) {
        const int64_t y = targets8[first + i];
        labels[i] = y;
        ignored |= y == ignore_index;
    }
    for (size_t i = 0; targets16 && i < count; ++i) {
        const int64_t y = targets16[first + i];
        labels[i] = y;
        ignored |= y == ignore_index;
    }
    for (size_t i = 0; targets32 && i < count; ++i) {
        const int64_t y = targets32[first + i];
        labels[i] = y;
        ignored |= y == ignore_index;
    }
    for (size_t i = 0; targets64 && i < count; ++i) {
        const int64_t y = targets64[first + i];
        labels[i] = y;
        ignored |= y == ignore_index;
    }
    return ignored != 0;
}

/* Whether a row is left out. */
static inline bool xent_job_ignores(const struct xent_job *job, size_t row)
{
    if (xent_job_row_weight(job, row) == 0)
        return true;
    if (xent_job_has_plain_labels(job))
        return xent_job_target(job, row) == job->ignore_index;
    size_t left_out = 0;
    if (!xent_job_has_labels(job))
        return false;
    while (left_out < job->labels && xent_job_label(job, row, left_out) == job->ignore_index)
        ++left_out;
    return left_out == job->labels;
}

/* The classes of a row's chunk: a power of two. */
static inline size_t xent_chunk(size_t classes)
{
    size_t chunk = XENT_CHUNK;
    while (chunk * XENT_CHUNKS < classes)
        chunk *= 2;
    return chunk;
}

/* What the first pass over one chunk of a row leaves. */
struct xent_part {
    double sum; /* of the exponentials of all classes but the one to skip */
    size_t zeros,
        kept;    /* up to zeros exponentials are +0; those from there to kept are in the output row, if there is one */
    float max;   /* the largest logit from kept on, leaving out any NaN; -INFINITY if there is none */
    bool finite; /* whether there is no NaN */
};

/* Numbers in memory: element [i][j] is data[i * row_stride + j * class_stride]. Either stride may be 0. */
struct xent_plane {
    const float *data;
    size_t row_stride, class_stride;
};

/*
 * A validated problem of binary cross entropy. Element [i][j] has the number i * classes + j. A plane with
 * row_stride == classes * class_stride is read as one long row. The gradient, if there is one, is written to the logits
 * themselves or to memory that is apart from every plane.
 */
struct xent_bce_job {
    size_t classes;
    struct xent_plane logits, targets;
    struct xent_plane weights, pos_weight; /* data NULL: 1 */
    float *grad; /* or NULL; element [i][j] is grad[i * grad_row_stride + j * grad_class_stride] */
    size_t grad_row_stride, grad_class_stride;
    float *loss;       /* by the elements' numbers, or NULL */
    double grad_scale; /* every gradient entry is multiplied by it: in [2^-63, 1] */
    double *sums;      /* the sum of the unrounded losses of elements [c * chunk, (c + 1) * chunk) goes to sums[c] */
    size_t chunk;      /* a multiple of XENT_CHUNK */
};

struct xent_kernel {
    const char *name;
    uint32_t needs; /* enum xent_cpu_feature bits */

    /* Rows [first, last): gradients to out, losses to loss and to the groups' sums, log-sum-exps to lse. */
    void (*cross_entropy)(const struct xent_job *job, size_t first, size_t last);

    /* Rows [first, last): probabilities to out, log-sum-exps to lse. */
    void (*softmax)(const struct xent_job *job, size_t first, size_t last);

    /* Rows [first, last): log-probabilities to out. */
    void (*log_softmax)(const struct xent_job *job, size_t first, size_t last);

    /* For a row x that several tasks share, chunk by chunk: the first pass over classes [begin, end), whole chunks but
       for the end of the row, as if the row were near; the same again for a row that has turned out far; and the second
       pass, out_j = e_j v. out is NULL, x itself or disjoint. */
    void (*sum_part)(const float *x, float *out, size_t begin, size_t end, size_t skip, struct xent_memory memory,
                     struct xent_part *part);
    void (*sum_part_far)(const float *x, size_t end, size_t skip, struct frame frame, struct xent_part *part);
    void (*scale_part)(const float *x, float *out, size_t begin, size_t end, const struct xent_part *part,
                       struct frame frame, double v);

    /* Rows [first, last) of cross_entropy for doubles. */
    void (*cross_entropy_f64)(const struct xent_job *job, size_t first, size_t last);

    /* Elements [first, last) of a binary cross entropy: whole chunks but for the end of the problem. */
    void (*bce)(const struct xent_bce_job *job, size_t first, size_t last);
};

/* Kernel sources name their one external symbol with this, so that it is the same everywhere. */
#define XENT_KERNEL(isa) xent_kernel_##isa

#endif
