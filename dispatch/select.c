/* The table of kernels, and the choice among them: lazy, atomic, without an initialisation call. */
#include "select.h"

#include "cpu.h"
#include "xent/xent.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Fastest first. Each kernel needs at least what those after it need, so those that a CPU can run are a tail of the
   table (tests/unit/dispatch.c checks it) and their names need no storage of their own. */
#define XENT_ISA(isa) extern const struct xent_kernel XENT_KERNEL(isa);
#include "isas.inc"
#undef XENT_ISA

static const struct xent_kernel *const kernels[] = {
#define XENT_ISA(isa) &XENT_KERNEL(isa),
#include "isas.inc"
#undef XENT_ISA
};

static const char *const names[] = {
#define XENT_ISA(isa) #isa,
#include "isas.inc"
#undef XENT_ISA
    NULL};

enum { KERNELS = sizeof kernels / sizeof *kernels };

static _Atomic(const struct xent_kernel *) active;

static uint32_t missing(const struct xent_kernel *kernel)
{
    return kernel->needs & ~xent_cpu_features();
}

static int first_available(void)
{
    int i = 0;
    while (missing(kernels[i]))
        ++i;
    return i; /* scalar needs nothing */
}

static int find(const char *isa)
{
    for (int i = 0; i < KERNELS; ++i)
        if (strcmp(names[i], isa) == 0)
            return i;
    return -1;
}

const struct xent_kernel *xent_active_kernel(void)
{
    const struct xent_kernel *kernel = atomic_load_explicit(&active, memory_order_acquire);
    if (kernel)
        return kernel;
    int choice = first_available();
    const char *wish = getenv("XENT_ISA");
    if (wish && find(wish) > choice)
        choice = find(wish);
    /* Two first calls at once agree; a xent_select in between wins. */
    const struct xent_kernel *expected = NULL;
    if (atomic_compare_exchange_strong_explicit(&active, &expected, kernels[choice], memory_order_acq_rel,
                                                memory_order_acquire))
        return kernels[choice];
    return expected;
}

/* Logits of that size come from memory, and an output does not stay in a cache until it is used. */
static const size_t large_bytes = 8u << 20;

/* An output of less probably comes from a cache. (Where kernels overlap it is better to take all for such that is not
   as large as the above.) */
static const size_t cached_bytes = 1u << 20;

/*
 * Where XENT_OVERLAP_LONG pays: rows of 160 and more classes, in place of 512 (shorter ones take up to 14 % longer with
 * it), and classes in planes that share their places in a first-level cache, being a multiple of 4 KB apart (others up
 * to 38 % longer).
 */
static bool is_long(const struct xent_job *job)
{
    if (xent_job_is_contiguous(job))
        return job->classes >= (job->out && job->out == job->logits ? 512 : 160);
    return job->logits_strides.classes * sizeof(float) % 4096 == 0;
}

/* Where XENT_OVERLAP_SHORT pays: rows that kernels take several at a time, and pixels. */
static bool is_short(const struct xent_job *job)
{
    return job->classes <= 127 || !xent_job_is_contiguous(job);
}

/* Whether rows, which are so large together that they come from memory, follow each other closely enough to be fetched
   by pages, or are long enough by themselves. */
static bool are_pages(const struct xent_job *job)
{
    const size_t gap = job->classes >> 3, long_row = 1u << 16;
    return xent_job_is_contiguous(job) && (job->classes >= long_row || job->logits_strides.outer <= job->classes + gap);
}

static enum xent_overlap overlap(void)
{
    enum { UNKNOWN = -1 };
    static _Atomic(int) setting = UNKNOWN;
    int known = atomic_load_explicit(&setting, memory_order_relaxed);
    if (known == UNKNOWN) {
        const char *wish = getenv("XENT_OVERLAP");
        const bool usable = wish && wish[0] >= '0' && wish[0] <= '0' + XENT_OVERLAP_EARLY_ALL && !wish[1];
        known = usable ? wish[0] - '0' : (int)xent_cpu_overlap();
        atomic_store_explicit(&setting, known, memory_order_relaxed); /* a constant of the process */
    }
    return (enum xent_overlap)known;
}

struct xent_memory xent_choose_memory(const struct xent_job *job, size_t logits_bytes, size_t out_bytes)
{
    const enum xent_overlap way = overlap();
    const bool early = way == XENT_OVERLAP_EARLY || way == XENT_OVERLAP_EARLY_ALL;
    const bool all_overlap = way == XENT_OVERLAP_STREAM || way == XENT_OVERLAP_STREAM_ALL || early;
    const bool all_large = way == XENT_OVERLAP_STREAM_ALL || way == XENT_OVERLAP_EARLY_ALL;
    const bool by_pages = all_overlap && (logits_bytes >= large_bytes || all_large) && are_pages(job);
    const bool is_large = out_bytes >= large_bytes || all_large;
    /* An address that no float should have would be one fault more. */
    const bool may_stream = job->out && (uintptr_t)job->out % sizeof(float) == 0;
    return (struct xent_memory){
        .overlap = all_overlap || (way == XENT_OVERLAP_LONG && is_long(job)),
        .stream = may_stream && is_large && (all_overlap || (way == XENT_OVERLAP_SHORT && is_short(job))),
        .cached = !is_large && (all_overlap || out_bytes < cached_bytes),
        .fetch = early      ? XENT_FETCH_EARLY
                 : by_pages ? XENT_FETCH_PAGES
                            : XENT_FETCH_NEXT_PAGE,
    };
}

const char *xent_isa(void)
{
    return xent_active_kernel()->name;
}

xent_status xent_select(const char *isa)
{
    if (!isa)
        return XENT_ERR_NULL;
    const int i = find(isa);
    if (i < 0)
        return XENT_ERR_ISA_UNKNOWN;
    if (missing(kernels[i]))
        return XENT_ERR_ISA_UNAVAILABLE;
    atomic_store_explicit(&active, kernels[i], memory_order_release);
    return XENT_OK;
}

const char *const *xent_isas(void)
{
    return names + first_available();
}

const char *const *xent_built_isas(void)
{
    return names;
}

const char *xent_isa_missing(const char *isa)
{
    const int i = isa ? find(isa) : -1;
    if (i < 0)
        return NULL;
    const uint32_t lacking = missing(kernels[i]);
    return lacking ? xent_cpu_feature_name(lacking & ~(lacking - 1)) : "";
}
