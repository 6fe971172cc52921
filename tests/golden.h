/*
 * What the files of the golden suite share: the corpus, its fingerprint, and the ways to make the same calls, which
 * must not change it.
 */
#ifndef XENT_TESTS_GOLDEN_H
#define XENT_TESTS_GOLDEN_H

#include "support.h"

/* How calls are made. */
struct way {
    const xent_executor *executor; /* or NULL */
    size_t offset;                 /* elements past a cache line, of every array of numbers */
    bool control_bits;             /* flush-to-zero and denormals-are-zero on, rounding up */
    struct rng *split;             /* or NULL: rows of one problem come in several calls */
    bool sample;                   /* only a tenth of the corpus, which has fingerprints of its own */
};

/* Whether problems with so many classes are done. */
static inline bool way_takes(const struct way *way, size_t classes)
{
    return !way->sample || classes <= 16 || classes == 257;
}

/* The control bits that a way asks for, until way_leave. Returns what way_leave takes. */
uint64_t way_enter(const struct way *way);
void way_leave(uint64_t control);

/* How many rows to compute next of so many. */
size_t way_piece(const struct way *way, size_t left);

/* Problems with so many classes are most of the work, so that each comes with one reduction only. */
enum { MANY_CLASSES = 1000 };

enum kind {
    NARROW,
    USUAL,
    WIDE_SPREAD,
    OFFSET_UP,
    OFFSET_DOWN,
    HUGE_SPREAD,
    MASKED_THIRD,
    CONFIDENT,
    STRAY,
    NOT_FINITE,
    KINDS
};

/* One logit of a row, from additions and multiplications alone, so that it is the same everywhere. */
float golden_logit(struct rng *rng, enum kind kind, size_t classes);

/* FNV-1a over words; every NaN counts as the same one. */
uint64_t golden_mix(uint64_t hash, const float *values, size_t count);
uint64_t golden_mix64(uint64_t hash, const double *values, size_t count);

#define GOLDEN_START UINT64_C(0xcbf29ce484222325)

/* The fingerprint of the general call for a type, and for floats of binary cross entropy, by the kernel in use.
   golden_general.c */
uint64_t golden_general(const struct way *way, xent_dtype dtype);

#endif
