/*
 * What the files of the binary cross entropy suites share: a problem with every array packed, and the ways to lay it
 * out in memory.
 */
#ifndef XENT_TESTS_BCE_H
#define XENT_TESTS_BCE_H

#include "support.h"

struct bce {
    size_t rows, classes;
    float *x, *t, *w;        /* [rows][classes] */
    float *p;                /* [classes] */
    bool weighted, positive; /* whether w and p are given to the call */
};

struct bce bce_new(size_t rows, size_t classes);
void bce_free(struct bce *problem);

/* Ordinary logits and weights, hard and soft targets. */
void bce_fill(struct bce *problem, struct rng *rng);

/* How a call sees the problem. */
struct bce_layout {
    size_t offsets[5];  /* elements past a cache line: logits, targets, weights, grad, loss */
    size_t gaps[4];     /* elements between rows: logits, targets, weights, grad */
    size_t weight_step; /* elements from one class's weight to the next */
    bool in_place, forward_only;
    const xent_executor *executor;
};

extern const struct bce_layout bce_plain;
struct bce_layout bce_random_layout(struct rng *rng);

/* What calls return, packed. */
struct bce_results {
    float *loss, *grad, *mean_grad; /* [rows][classes] */
    float mean, sum;
};

struct bce_results bce_results_new(const struct bce *problem);
void bce_results_free(struct bce_results *results);

/* Mean, sum and none by the kernel in use. grad and mean_grad are left alone where the layout is forward only. */
void bce_run(const struct bce *problem, const struct bce_layout *layout, struct bce_results *results);

/* One call with packed arrays, NULL where not wanted. */
void bce_call(const struct bce *problem, xent_reduction reduction, float *loss, float *grad);

/* The definition in double arithmetic. */
double bce_plain_loss(double x, double t, double w, double p);
double bce_plain_gradient(double x, double t, double w, double p);

void add_bce_bits_tests(Suite *suite);   /* bce_bits.c */
void add_bce_status_tests(Suite *suite); /* bce_status.c */

#endif
