/*
 * A fused call on a batch, to be made with and without an executor, and everything that it writes.
 */
#ifndef XENT_TESTS_CALLS_H
#define XENT_TESTS_CALLS_H

#include "batch.h"

enum place { FORWARD, IN_PLACE, OUT_OF_PLACE, PLACES };

struct call {
    const struct batch *batch;
    xent_reduction reduction;
    enum place place;
    bool wide_targets;
    size_t logits_gap, grad_gap; /* elements between rows; grad_gap for OUT_OF_PLACE only */
};

enum { MAX_CALL_GAP = 5 };

/* Any of them but for the batch. */
struct call random_call(const struct batch *batch, struct rng *rng);

/* One memory with the arrays of a call in it, which it is compared by. */
struct call_memory {
    size_t floats;
    float *loss, *lse;    /* [rows] */
    float *logits, *grad; /* [rows] with gaps; the call's own copy of the logits */
    int64_t *wide_targets;
};
struct call_memory call_memory_new(const struct batch *batch);
void call_memory_free(struct call_memory *memory);

/* Fresh memory and one call, which must succeed. executor may be NULL. */
void call_run(const struct call *call, const xent_executor *executor, struct call_memory *memory);

/* The same for rows [first, last), in memory that call_prepare has made ready. The reduction is XENT_NONE. */
void call_prepare(const struct call *call, struct call_memory *memory);
void call_run_rows(const struct call *call, const xent_executor *executor, struct call_memory *memory, size_t first,
                   size_t last);

/* Whether everything in memory is the same, to the bit, gaps and inputs included. */
bool call_same(const struct call_memory *got, const struct call_memory *expected);

/* Fails if it is not. */
void call_expect(const struct call *call, const struct call_memory *got, const struct call_memory *expected);

/* Every reduction in every place, with the kernel in use: without an executor and with this one. */
void call_compare_all(const struct batch *batch, const xent_executor *executor);

/* With the kernel in use, for the name of a case. */
struct call_text {
    char text[128];
};
struct call_text call_describe(const struct call *call);

#endif
