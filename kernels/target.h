/*
 * A row's target distribution, the same text for every kernel.
 *
 * Every target is a distribution t over the classes, of which some classes are named (by labels, or all of them by
 * probabilities) and all may have a share that is even but for their weights:
 *
 *     t_j = n_j + even w_j,   n_j = 0 for classes that are not named
 *
 * Its loss is measured from one class y, which is left out of the row's sum s' of exponentials: with rest the sum of
 * n_j over j != y, moved the sum of n_j (x_y - x_j) over the same, W that of w_j over all classes and D that of w_j
 * x_j,
 *
 *     loss       = (n_y + rest) loss_y + moved + even (W lse - D)
 *     gradient_y = -scale (n_y s'/s + even (w_y - W e_y/s) - rest e_y/s)
 *     gradient_j = scale ((n_y + rest + even W) e_j/s - t_j)
 *
 * with loss_y and the sums of kernels/row.h. So a target that is a single class, or nearly so, costs no cancellation. y
 * is the label of the largest share (the first of them), or the first class whose probability is above a half: no other
 * is needed where the loss is far from 0, and this one is known as soon as it is met. Where there is none, no share is
 * positive, or x_y is -inf (for probabilities: and y is not all there is), there is no y (NO_CLASS): then n_y is 0, and
 * a pivot takes the place of x_y in moved, lse less the pivot that of loss_y. The pivot is 0 but in rows far from 0.
 */
#ifndef XENT_KERNELS_TARGET_H
#define XENT_KERNELS_TARGET_H

#include "kernels/kernel.h"

#include <math.h>

#define NO_CLASS SIZE_MAX

struct distribution {
    size_t y;
    double x_y; /* its logit; of plain labels left to whoever reads the row; -INFINITY if there is no y */
    double own; /* n_y */
    double pivot, rest, moved;
    double even, w_y, W, D;
    double scale; /* of gradients */
};

/* What the exponentials of the row are multiplied by, times s. Never -0, whose sign row_multiplier would take for a
   part of the exponent. */
static inline double distribution_multiplier(const struct distribution *t)
{
    return t->scale * (t->own + t->rest + t->even * t->W) + 0.0;
}

/* Whether exponentials may be multiplied as floats: otherwise, which takes row weights, dloss or a normalizer of such
   size, it is done in double. */
static inline bool multiplier_is_bounded(double multiplier)
{
    return multiplier <= 0x1p61 && multiplier >= -0x1p61;
}

/* e_j of any size times v, where a product may also be infinite. A zero is +0, as it is with a bounded multiplier. */
static inline float multiply_unbounded(double e, double v)
{
    const float g = e == 0 ? 0 : f64_to_f32(e * v);
    return f32_bits(g) << 1 == 0 ? 0 : g;
}

/* lse = ref + log_sum. A share of 0 counts nothing, be the loss infinite. */
static inline double distribution_loss(const struct distribution *t, double loss_y, double ref, double log_sum)
{
    const double share = t->own + t->rest;
    const double named = share == 0 ? 0 : share * (t->y == NO_CLASS ? (ref - t->pivot) + log_sum : loss_y);
    const double own = named + t->moved;
    return t->even == 0 ? own : own + t->even * (t->W * (ref + log_sum) - t->D);
}

/* e is e_y, inverse is 1/s; +0 rather than -0 where nothing is left of it. */
static inline float distribution_target_gradient(const struct distribution *t, double others, double e, double inverse)
{
    const double p = e * inverse;
    const double g = t->own * (others * inverse) + t->even * (t->w_y - t->W * p) - t->rest * p;
    const float rounded = f64_to_f32(0.0 - t->scale * g);
    return f32_bits(rounded) << 1 == 0 ? 0 : f32_canonical(rounded);
}

/* Row i's logit of y, or no y if that is -inf. */
static inline void distribution_find(struct distribution *t, const struct xent_job *job, size_t i)
{
    if (t->y == NO_CLASS)
        return;
    const size_t row = xent_job_at(job, &job->logits_strides, i);
    t->x_y = xent_job_number(job, job->logits, row + t->y * job->logits_strides.classes);
    if (t->x_y == (double)-INFINITY)
        t->y = NO_CLASS;
}

/* What the named shares of row i are multiples of: r (1 - label_smoothing). */
static inline double distribution_named(const struct xent_job *job, size_t i)
{
    return xent_job_row_weight(job, i) * job->target_weight;
}

/* The even share of row i, but for class weights: r (label_smoothing / classes). */
static inline double distribution_even(const struct xent_job *job, size_t i)
{
    return xent_job_row_weight(job, i) * job->smoothing;
}

/* The share that label number k of row i has of its class. */
static inline double distribution_label_share(const struct xent_job *job, size_t i, size_t k)
{
    const double w = xent_job_class_weight(job, (size_t)xent_job_label(job, i, k));
    return distribution_named(job, i) * (xent_job_label_probability(job, i, k) * w);
}

/* The distribution of row i before anything of its targets and D is known. To where it belongs: numbers that are stored
   one by one and copied as vectors are costly while the stores are on their way. */
static inline void distribution_start(struct distribution *t, const struct xent_job *job, size_t i)
{
    *t = (struct distribution){.y = NO_CLASS,
                               .x_y = (double)-INFINITY,
                               .even = distribution_even(job, i),
                               .W = job->weights_sum,
                               .scale = xent_job_scale(job, i)};
}

/* The same with its targets, which are labels. Reads their logits, unless they are plain ones. */
static inline void distribution_of_labels(struct distribution *t, const struct xent_job *job, size_t i)
{
    distribution_start(t, job, i);
    if (xent_job_has_plain_labels(job)) {
        t->y = (size_t)xent_job_target(job, i);
        t->w_y = xent_job_class_weight(job, t->y);
        t->own = distribution_named(job, i) * t->w_y;
        return;
    }
    double largest = 0;
    for (size_t k = 0; k < job->labels; ++k) {
        const int64_t label = xent_job_label(job, i, k);
        if (label == job->ignore_index)
            continue;
        const double w = xent_job_class_weight(job, (size_t)label);
        const double named = xent_job_label_probability(job, i, k) * w;
        if (named > largest) {
            largest = named;
            t->y = (size_t)label;
            t->w_y = w;
        }
    }
    distribution_find(t, job, i);
    const size_t row = xent_job_at(job, &job->logits_strides, i), stride = job->logits_strides.classes;
    for (size_t k = 0; k < job->labels; ++k) {
        const int64_t label = xent_job_label(job, i, k);
        if (label == job->ignore_index)
            continue;
        const double named = distribution_label_share(job, i, k);
        if ((size_t)label == t->y) {
            t->own += named;
        } else if (named != 0) {
            const double x = xent_job_number(job, job->logits, row + (size_t)label * stride);
            t->rest += named;
            t->moved += named * ((t->y == NO_CLASS ? 0 : t->x_y) - x);
        }
    }
}

/* q_j w_j of row i, whose targets are probabilities. */
static inline double distribution_weighted(const struct xent_job *job, size_t i, size_t j)
{
    const xent_strides *strides = &job->targets_strides;
    return xent_job_number(job, job->targets, xent_job_at(job, strides, i) + j * strides->classes) *
           xent_job_class_weight(job, j);
}

/* Of a row whose first logit is x_0. In rows far from 0, where products with logits would be large, differences from
   that are summed; elsewhere the pivot is 0, so that a product of two floats is exact. */
static inline double distribution_pivot(double x_0)
{
    const double size = f64_abs(x_0);
    return size > 1024 && size <= (double)FLT_MAX ? x_0 : 0;
}

/* The distribution of row i, whose targets are probabilities, before these and D are known. */
static inline void distribution_of_probabilities(struct distribution *t, const struct xent_job *job, size_t i)
{
    distribution_start(t, job, i);
    t->pivot = distribution_pivot(xent_job_number(job, job->logits, xent_job_at(job, &job->logits_strides, i)));
}

/* A probability above it makes its class the one that a row is measured from, if it is the first such. */
#define DOMINANT 0.5f

static inline bool is_dominant(double q)
{
    return q > (double)DOMINANT;
}

/* The first dominant class of a row or NO_CLASS, its logit, weight and share of the named ones, q w; 0 if there is
   none. */
struct dominant {
    size_t y;
    double x, w, a;
};

static inline struct dominant distribution_dominant(const struct xent_job *job, size_t i, size_t y, double x)
{
    if (y == NO_CLASS)
        return (struct dominant){.y = NO_CLASS};
    return (struct dominant){y, x, xent_job_class_weight(job, y), distribution_weighted(job, i, y)};
}

/* Adds the probabilities, for named of distribution_named: Q is the sum of q_j w_j over all classes but the dominant
   one, P that of q_j w_j (x_j - pivot). Where the dominant one's logit is -inf and it is not all there is, nothing can
   be measured from it. Without branches, so that it becomes vector code. */
static inline void distribution_add_probabilities(struct distribution *t, double named, struct dominant d, double Q,
                                                  double P)
{
    const bool masked = (d.y != NO_CLASS) & (d.x == (double)-INFINITY), lost = masked & ((Q != 0) | (P != 0));
    const bool found = (d.y != NO_CLASS) & !lost, measured = found & !masked;
    const bool infinite = lost & (d.a != 0);
    t->y = found ? d.y : NO_CLASS;
    t->x_y = found ? d.x : (double)-INFINITY;
    t->w_y = found ? d.w : 0;
    t->own = found ? named * d.a : 0;
    Q += lost ? d.a : 0;
    P += infinite ? d.a * d.x : 0;
    t->rest = named == 0 ? 0 : named * Q;
    t->moved = named == 0 ? 0 : named * ((measured ? d.x - t->pivot : 0) * Q - P);
}

/* What the probabilities of a row take off its gradient, N q_j w_j, with N = scale r (1 - label_smoothing). Where this
   is of a usual size, and there are no class weights, it is taken off as two products that are not rounded. */
struct taken {
    double N;
    bool usual;
    float hi, lo; /* N in 48 bits */
};

/* The even share B = scale even is taken off by products of floats where it is not nearly subnormal or infinite. */
#define EVEN_LEAST 0x1p-100
#define EVEN_MOST 0x1p100

static inline bool even_is_usual(double B)
{
    return f64_abs(B) >= EVEN_LEAST && f64_abs(B) <= EVEN_MOST;
}

/* What a share takes off, in double: nothing if it is 0, be the scale infinite. */
static inline float distribution_share_taken(double scale, double share)
{
    return share == 0 ? 0 : f64_to_f32(scale * share);
}

/* What the even share takes off for weight w. */
static inline float distribution_even_taken(double B, double w)
{
    return even_is_usual(B) ? f64_to_f32((double)f64_to_f32(B) * w) : distribution_share_taken(B, w);
}

/* What is taken off a gradient where it, or both, may be infinite. */
static inline float distribution_less(float g, float taken)
{
    return f32_canonical(g - taken);
}

static inline struct taken distribution_taken(const struct xent_job *job, size_t i)
{
    struct taken t = {.N = xent_job_scale(job, i) * distribution_named(job, i)};
    const double size = f64_abs(t.N);
    t.usual = !job->class_weights && size >= 0x1p-60 && size <= 0x1p60;
    if (t.usual) {
        t.hi = (float)t.N;
        t.lo = (float)(t.N - (double)t.hi);
    }
    return t;
}

#endif
