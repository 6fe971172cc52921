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
 * with loss_y and the sums of kernels/row.h. So a target that is a single class costs no cancellation. y is the named
 * class of the largest share; where that share is not positive, or x_y is -inf, there is none (NO_CLASS): then x_y in
 * moved is 0, n_y is 0, and lse takes the place of loss_y.
 */
#ifndef XENT_KERNELS_TARGET_H
#define XENT_KERNELS_TARGET_H

#include "kernels/kernel.h"

#include <math.h>

#define NO_CLASS SIZE_MAX

struct distribution {
    size_t y;
    double x_y; /* its logit; -INFINITY if there is no y */
    double own; /* n_y */
    double rest, moved;
    double even, w_y, W, D;
    double scale; /* of gradients */
};

/* What the exponentials of the row are multiplied by, times s. Never -0, whose sign row_multiplier would take for a part
   of the exponent. */
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

/* e_j of any size times v, where a product may also be infinite. */
static inline float multiply_unbounded(double e, double v)
{
    return e == 0 ? 0 : f64_to_f32(e * v);
}

/* A share of 0 counts nothing, be the loss infinite. */
static inline double distribution_loss(const struct distribution *t, double loss_y, double lse)
{
    const double share = t->own + t->rest;
    const double named = share == 0 ? 0 : share * (t->y == NO_CLASS ? lse : loss_y);
    const double own = named + t->moved;
    return t->even == 0 ? own : own + t->even * (t->W * lse - t->D);
}

/* e is e_y, sum is s; +0 rather than -0 where nothing is left of it. */
static inline float distribution_target_gradient(const struct distribution *t, double others, double e, double sum)
{
    const double p = e / sum;
    const double g = t->own * (others / sum) + t->even * (t->w_y - t->W * p) - t->rest * p;
    const float rounded = f64_to_f32(0.0 - t->scale * g);
    return f32_bits(rounded) << 1 == 0 ? 0 : rounded;
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

/* The share that label number k of row i has of its class. */
static inline double distribution_label_share(const struct xent_job *job, size_t i, size_t k)
{
    const double w = xent_job_class_weight(job, (size_t)xent_job_label(job, i, k));
    return xent_job_row_weight(job, i) * job->target_weight * (xent_job_label_probability(job, i, k) * w);
}

/* The distribution of row i, whose targets are labels, before D is known. Reads the logits of its labels. */
static inline struct distribution distribution_of_labels(const struct xent_job *job, size_t i)
{
    const double r = xent_job_row_weight(job, i), share = r * job->target_weight;
    struct distribution t = {.y = NO_CLASS,
                             .x_y = (double)-INFINITY,
                             .even = r * job->smoothing,
                             .W = job->weights_sum,
                             .scale = xent_job_scale(job, i)};
    const size_t row = xent_job_at(job, &job->logits_strides, i), stride = job->logits_strides.classes;
    if (xent_job_has_plain_labels(job)) {
        t.y = (size_t)xent_job_target(job, i);
        t.w_y = xent_job_class_weight(job, t.y);
        t.own = share * t.w_y;
        t.x_y = xent_job_number(job, job->logits, row + t.y * stride);
        return t;
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
            t.y = (size_t)label;
            t.w_y = w;
        }
    }
    distribution_find(&t, job, i);
    for (size_t k = 0; k < job->labels; ++k) {
        const int64_t label = xent_job_label(job, i, k);
        if (label == job->ignore_index)
            continue;
        const double named = distribution_label_share(job, i, k);
        if ((size_t)label == t.y) {
            t.own += named;
        } else if (named != 0) {
            const double x = xent_job_number(job, job->logits, row + (size_t)label * stride);
            t.rest += named;
            t.moved += named * ((t.y == NO_CLASS ? 0 : t.x_y) - x);
        }
    }
    return t;
}

/* The distribution of row i before D is known, with y: shares of the probabilities' classes are still to be added. */
static inline struct distribution distribution_of_probabilities(const struct xent_job *job, size_t i)
{
    struct distribution t = {.y = NO_CLASS, .x_y = (double)-INFINITY, .scale = xent_job_scale(job, i)};
    const size_t targets = xent_job_at(job, &job->targets_strides, i);
    double largest = 0;
    for (size_t j = 0; j < job->classes; ++j) {
        const double q = xent_job_number(job, job->targets, targets + j * job->targets_strides.classes);
        const double share = q * xent_job_class_weight(job, j);
        if (share > largest) {
            largest = share;
            t.y = j;
        }
    }
    distribution_find(&t, job, i);
    return t;
}

/* t_j of a class of probability q and weight w, in a row of weight r: smoothing is part of it. */
static inline double distribution_share(const struct xent_job *job, double r, double w, double q)
{
    return r * (w * (job->smoothing + job->target_weight * q));
}

#endif
