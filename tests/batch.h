/*
 * A batch of rows, everything that the library computes from it, and the ways to lay it out in memory: the results
 * must not depend on the layout or the kernel by a bit.
 */
#ifndef XENT_TESTS_BATCH_H
#define XENT_TESTS_BATCH_H

#include "support.h"

struct batch {
    size_t rows, classes;
    float *logits; /* [rows][classes] */
    int32_t *targets;
    int64_t ignore_index;
};

struct batch batch_new(size_t rows, size_t classes);
void batch_free(struct batch *batch);
float *batch_row(const struct batch *batch, size_t row);

/* Every row of a random kind, with a random target; one in sixteen is ignored. */
void batch_fill(struct batch *batch, struct rng *rng);

/* How a call sees the batch. */
struct layout {
    size_t logits_offset, out_offset; /* elements past a cache line */
    size_t logits_gap, out_gap;       /* elements between rows */
    bool in_place, row_by_row, wide_targets;
};

/* Out of place, contiguous, aligned and row by row: the plainest. */
extern const struct layout plain_layout;
struct layout random_layout(struct rng *rng);

/* What a call or a set of calls returned, rows packed. */
struct results {
    float *loss, *lse;        /* [rows] */
    float *logsumexp;         /* [rows] */
    float *grad, *mean_grad;  /* [rows][classes] */
    float *probs, *log_probs; /* [rows][classes] */
    float mean, sum;
};

struct results results_new(const struct batch *batch);
void results_free(struct results *results);

/* Room for a batch in any layout. */
struct scratch {
    float *logits, *out;
    int64_t *targets;
};
struct scratch scratch_new(const struct batch *batch);
void scratch_free(struct scratch *scratch);

/* Calls every function with the kernel in use. Fails if a call does, or if calls that must agree with each other do
   not: forward only and with gradient, sum and none. */
void batch_run(const struct batch *batch, const struct layout *layout, struct scratch *scratch,
               struct results *results);

/* One fused call per row or for all, as the layout says. grad, lse: whether to ask for them. */
void batch_fused(const struct batch *batch, const struct layout *layout, struct scratch *scratch,
                 xent_reduction reduction, float *loss, float *grad, float *lse);

/* What the scalar kernel makes of it in the plain layout. */
void batch_oracle(const struct batch *batch, struct scratch *scratch, struct results *expected);

/* Runs in this layout with kernel isa and compares with expected, bit by bit. */
void batch_compare(const struct batch *batch, const char *isa, const struct layout *layout, struct scratch *scratch,
                   const struct results *expected, struct results *got);

/* Fails unless all results have the same bits. */
void batch_expect(const struct batch *batch, const struct results *got, const struct results *expected);

/* Fails unless all rows * width values have the same bits. */
void expect_same(const struct batch *batch, const char *what, const float *got, const float *expected, size_t width);

/* The scalar kernel in the plain layout against every kernel: in that layout, in place and out of place in random
   layouts. */
void batch_check(const struct batch *batch, struct rng *rng);

#endif
