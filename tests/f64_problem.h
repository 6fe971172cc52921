/*
 * Random problems of double logits with every option of the general call: packed arrays that say what a problem is, and
 * calls of it in any layout.
 */
#ifndef XENT_TESTS_F64_PROBLEM_H
#define XENT_TESTS_F64_PROBLEM_H

#include "support.h"

/* A problem in packed arrays: [outer][classes][inner] or [outer][labels][inner], or [outer][inner]. */
struct f64 {
    size_t outer, classes, inner, labels;
    xent_targets type;
    double *x, *class_weights, *row_weights, *dloss; /* the last three: NULL if there are none */
    int64_t *targets;                                /* labels, or NULL */
    double *probabilities;                           /* of labels, or NULL; of classes with XENT_PROBABILITIES */
    double smoothing, normalizer;
    xent_reduction reduction;
};

/* Results in packed arrays. */
struct f64_results {
    double *grad, *loss, *lse; /* loss: one number unless the reduction is XENT_NONE */
    size_t kept;
    double denominator;
};

struct f64_layout {
    bool strided, in_place, forward_only;
    const xent_executor *executor;
};

enum { F64_IGNORED = -7 };

struct f64 f64_new(size_t outer, size_t classes, size_t inner);
void f64_free(struct f64 *p);
struct f64_results f64_results_new(const struct f64 *p);
void f64_results_free(struct f64_results *r);

/* Every option at random, logits normal * scale + offset. negative: shares and row weights of both signs. */
void f64_fill(struct f64 *p, struct rng *rng, double scale, double offset, bool negative);

/* Calls it with the kernel in use. In a strided layout strides are random, and what lies between elements of the
   gradient must be as it was. */
void f64_run(const struct f64 *p, const struct f64_layout *layout, struct rng *rng, struct f64_results *results);

static inline size_t f64_rows(const struct f64 *p)
{
    return p->outer * p->inner;
}

/* Class j of row number i in a packed array. */
static inline size_t f64_at(const struct f64 *p, size_t i, size_t extent, size_t j)
{
    return (i / p->inner * extent + j) * p->inner + i % p->inner;
}

/* Whether row number i is left out; what its class j has of its target. */
bool f64_ignores(const struct f64 *p, size_t i);
double f64_share(const struct f64 *p, size_t i, size_t j);
/* The same with all that it is made of taken as positive. */
double f64_share_size(const struct f64 *p, size_t i, size_t j);

uint64_t double_bits(double v);
/* Fails unless the bits are the same. */
void expect_double(const char *what, double got, double expected);
/* Distance in ULP of the double binade of exact. */
double double_ulps(double got, long double exact);

#endif
