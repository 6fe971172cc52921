/*
 * Binary cross entropy with logits, the same text for every kernel: section 7 of docs/numerics.md.
 *
 * The bits are defined by IEEE double arithmetic without contraction: there is no fma, no vector operation and no libm
 * here, only + - * / and comparisons in a fixed order, in loops over the elements of a block that a compiler turns into
 * vector instructions of whatever the including file is compiled for.
 *
 * With a = |x| and u = exp(-a), for an element of logit x, and its terms' coefficients k1 = w p t and k0 = w (1 - t),
 *
 *     softplus(a) = a + log1p(u),    softplus(-a) = log1p(u),
 *     sigmoid(a)  = 1 / (1 + u),     sigmoid(-a)  = u / (1 + u),
 *
 *     loss     = k1 softplus(-x) + k0 softplus(x) = a k + (k0 + k1) log1p(u)
 *     gradient = k0 sigmoid(x) - k1 sigmoid(-x)   = (k - u k') / (1 + u), negated if x <= 0
 *
 * where k is the coefficient of the term that grows with a, k0 if x > 0 and else k1, and k' is the other one. With
 * coefficients that are not negative the loss is a sum of terms that are not negative. The gradient is a difference
 * only of what is a difference in exact arithmetic; a hard target makes one of k and k' 0.
 */
#ifndef XENT_KERNELS_BCE_H
#define XENT_KERNELS_BCE_H

#include "kernels/f64.h"
#include "kernels/kernel.h"

enum { BCE_BLOCK = 64 }; /* elements: a multiple of XENT_LANES and a divisor of XENT_CHUNK */

/* exp(-a) stays what it is here for any larger a: less than 2^-577, of which even the largest coefficient, 2^384, makes
   nothing that a float could tell from 0. */
#define BCE_FARTHEST 400.0

/* A loss that is smaller counts as 0, so that no sum of losses of both signs is subnormal on the way. */
#define BCE_NEGLIGIBLE 0x1p-300

struct bce_block {
    double x[BCE_BLOCK], k0[BCE_BLOCK], k1[BCE_BLOCK]; /* logits, coefficients */
    double loss[BCE_BLOCK], gradient[BCE_BLOCK];
};

/* Where a block begins, and how many elements it has. */
struct bce_at {
    size_t row, column, count;
};

/* How many elements from [row][column] on, up to count, are neighbours in a plane of these strides. */
static ALWAYS_INLINE size_t bce_run(size_t classes, size_t row_stride, size_t class_stride, size_t column, size_t count)
{
    const bool one_row = row_stride == classes * class_stride;
    return one_row || count <= classes - column ? count : classes - column;
}

/* The block's numbers in a plane: where they are, if they are together, and else collected, zeros after the last. */
static const float *bce_read(const struct xent_plane *plane, size_t classes, const struct bce_at *at, float *buffer)
{
    size_t row = at->row, column = at->column;
    for (size_t k = 0; k < at->count; column = 0, ++row) {
        const float *from = plane->data + row * plane->row_stride + column * plane->class_stride;
        const size_t run = bce_run(classes, plane->row_stride, plane->class_stride, column, at->count - k);
        if (run == BCE_BLOCK && plane->class_stride == 1)
            return from;
        for (size_t i = 0; i < run; ++i)
            buffer[k++] = from[i * plane->class_stride];
    }
    for (size_t k = at->count; k < BCE_BLOCK; ++k)
        buffer[k] = 0;
    return buffer;
}

/* Rounded to float; 0 and NaN are always the same ones. */
static ALWAYS_INLINE float bce_round(double v)
{
    const uint32_t bits = f32_bits(f64_to_f32(v));
    return f32_from_bits(v != v ? 0x7fc00000u : bits == 0x80000000u ? 0 : bits);
}

static void bce_write(const struct xent_bce_job *job, const struct bce_at *at, const double *gradient)
{
    size_t row = at->row, column = at->column;
    for (size_t k = 0; k < at->count; column = 0, ++row) {
        float *to = job->grad + row * job->grad_row_stride + column * job->grad_class_stride;
        const size_t run = bce_run(job->classes, job->grad_row_stride, job->grad_class_stride, column, at->count - k);
        if (run == BCE_BLOCK && job->grad_class_stride == 1) {
            for (size_t i = 0; i < BCE_BLOCK; ++i)
                to[i] = bce_round(gradient[i]);
            return;
        }
        for (size_t i = 0; i < run; ++i)
            to[i * job->grad_class_stride] = bce_round(gradient[k++]);
    }
}

/* In several loops: where more hangs on the same comparison compilers make branches of it, and no vectors. */
static ALWAYS_INLINE void bce_results(struct bce_block *b, double scale, bool gradients)
{
    double u[BCE_BLOCK], log[BCE_BLOCK], inverse[BCE_BLOCK];
    for (size_t i = 0; i < BCE_BLOCK; ++i) {
        const double a = f64_abs(b->x[i]);
        u[i] = f64_exp(-(a > BCE_FARTHEST ? BCE_FARTHEST : a));
    }
    for (size_t i = 0; i < BCE_BLOCK; ++i) {
        const struct f64_log1p one_plus_u = f64_log1p(u[i]);
        log[i] = one_plus_u.log;
        inverse[i] = one_plus_u.inverse;
    }
    for (size_t i = 0; i < BCE_BLOCK; ++i) {
        const double x = b->x[i], k0 = b->k0[i], k1 = b->k1[i];
        const double a = f64_abs(x);
        const double growing = x > 0 ? k0 : k1, vanishing = x > 0 ? k1 : k0;
        b->loss[i] = (growing == 0 ? 0 : growing * a) + (k0 + k1) * log[i];
        if (gradients)
            b->gradient[i] = (growing - vanishing * u[i]) * inverse[i];
    }
    for (size_t i = 0; i < BCE_BLOCK; ++i) {
        const double loss = b->loss[i];
        b->loss[i] = f64_abs(loss) < BCE_NEGLIGIBLE ? 0 : loss;
        if (gradients)
            b->gradient[i] = scale * (b->x[i] > 0 ? b->gradient[i] : -b->gradient[i]);
    }
}

/* The two kinds of block as functions of their own, each with registers of its own. */
static NOINLINE void bce_forward(struct bce_block *b)
{
    bce_results(b, 1, false);
}

static NOINLINE void bce_fused(struct bce_block *b, double scale)
{
    bce_results(b, scale, true);
}

static void bce_load(const struct xent_bce_job *job, const struct bce_at *at, struct bce_block *b)
{
    float buffer[BCE_BLOCK];
    const float *v = bce_read(&job->logits, job->classes, at, buffer);
    for (size_t i = 0; i < BCE_BLOCK; ++i)
        b->x[i] = (double)v[i];
    v = bce_read(&job->targets, job->classes, at, buffer);
    for (size_t i = 0; i < BCE_BLOCK; ++i) {
        b->k1[i] = (double)v[i];
        b->k0[i] = 1 - b->k1[i];
    }
    if (job->pos_weight.data) {
        v = bce_read(&job->pos_weight, job->classes, at, buffer);
        for (size_t i = 0; i < BCE_BLOCK; ++i)
            b->k1[i] *= (double)v[i];
    }
    if (job->weights.data) {
        v = bce_read(&job->weights, job->classes, at, buffer);
        for (size_t i = 0; i < BCE_BLOCK; ++i) {
            const double w = (double)v[i];
            b->k1[i] *= w;
            b->k0[i] *= w;
        }
    }
}

/* All is read of a block before anything of it is written. */
static void bce(const struct xent_bce_job *job, size_t first, size_t last)
{
    double lane[XENT_LANES] = {0};
    struct bce_block b;
    struct bce_at at = {first / job->classes, first % job->classes, BCE_BLOCK};
    for (size_t i = first; i < last;) {
        at.count = last - i < BCE_BLOCK ? last - i : BCE_BLOCK;
        bce_load(job, &at, &b);
        if (job->grad) {
            bce_fused(&b, job->grad_scale);
            bce_write(job, &at, b.gradient);
        } else {
            bce_forward(&b);
        }
        for (size_t k = 0; job->loss && k < at.count; ++k)
            job->loss[i + k] = bce_round(b.loss[k]);
        for (size_t k = at.count; k < BCE_BLOCK; ++k)
            b.loss[k] = 0;
        for (size_t k = 0; k < BCE_BLOCK; k += XENT_LANES)
            for (size_t l = 0; l < XENT_LANES; ++l)
                lane[l] += b.loss[k + l];
        i += at.count;
        if (i % job->chunk == 0 || i == last) {
            job->sums[(i - 1) / job->chunk] = f64_fold(lane, XENT_LANES);
            memset(lane, 0, sizeof lane);
        }
        at.column += at.count;
        if (at.column >= job->classes) {
            at.row += at.column / job->classes;
            at.column %= job->classes;
        }
    }
}

#endif
