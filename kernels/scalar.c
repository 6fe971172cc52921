/*
 * The scalar kernel: docs/numerics.md word for word in plain C, written apart from the SIMD text. It is the fallback
 * for any CPU and the oracle that the bits of every other kernel are compared with.
 */
#include "kernels/bce.h"
#include "kernels/kernel.h"
#include "kernels/row.h"

#include <math.h>

/* a * b + c rounded once, from plain double arithmetic. Rounding the double sum to float is rounding twice, which can
   only be wrong where the first one lands halfway between two floats; there, and where floats are subnormal and lie
   elsewhere, the sum is rounded to odd first (Boldo & Melquiond 2008, Emulation of FMA and correctly rounded sums). */
static float fma32(float a, float b, float c)
{
    const double p = (double)a * (double)b; /* exact: 48 bits */
    const double s = p + (double)c;
    uint64_t bits = f64_bits(s);
    if ((bits & 0x1fffffff) != 0x10000000 && (s >= 0x1p-126 || s <= -0x1p-126))
        return (float)s;
    const double c_part = s - p;
    const double error = (p - (s - c_part)) + ((double)c - c_part);
    if (error != 0 && (bits & 1) == 0)
        bits = (error > 0) == (s > 0) ? bits + 1 : bits - 1;
    return (float)f64_from_bits(bits);
}

/* K exp(x - ref) = f * 2^n, f in [0.99, 2.00]; f = 0 at or below the cut. */
struct scaled {
    float f;
    int n;
};

static struct scaled exponential(float x, struct frame frame)
{
#define ENTRY(k, bits) bits
    static const uint32_t table[16] = {XENT_TABLE(ENTRY)};
#undef ENTRY
    const float z = x - frame.ref;
    if (z <= frame.cut)
        return (struct scaled){0, 0};
    const float rounder = 0x1.8p23f;
    const float n16 = fma32(z, XENT_16LOG2E, rounder) - rounder;
    float r = fma32(n16, -XENT_LN2_16_HI, z);
    r = fma32(n16, -XENT_LN2_16_LO, r);
    const int k = (int)n16 & 15;
    const float p = fma32(fma32(XENT_C3, r, XENT_C2), r, 1.0f);
    const float T = f32_from_bits(table[k]);
    return (struct scaled){fma32(T * r, p, T), ((int)n16 - k) / 16};
}

/* The largest logit, NaN if there is one. */
static float row_max(const float *x, size_t classes)
{
    float max = -INFINITY;
    for (size_t j = 0; j < classes; ++j) {
        if (x[j] != x[j])
            return NAN;
        if (x[j] > max)
            max = x[j];
    }
    return max;
}

/* The sum of a chunk's e_j but that of class skip, in the order of the contract. */
static double sum_chunk(const float *x, size_t begin, size_t end, size_t skip, struct frame frame)
{
    double lane[XENT_LANES] = {0};
    for (size_t j = begin; j < end; ++j) {
        if (j == skip)
            continue;
        const struct scaled e = exponential(x[j], frame);
        lane[j % XENT_LANES] += (double)e.f * f64_pow2(e.n);
    }
    for (int half = XENT_LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l)
            lane[l] += lane[l + half];
    return lane[0];
}

static double sum_others(const float *x, size_t classes, size_t skip, struct frame frame)
{
    const size_t chunk = xent_chunk(classes);
    double total = 0;
    for (size_t begin = 0; begin < classes; begin += chunk)
        total += sum_chunk(x, begin, classes - begin < chunk ? classes : begin + chunk, skip, frame);
    return total;
}

static struct distribution row_distribution(const struct xent_job *job, const float *x, size_t y)
{
    const double w_y = xent_job_class_weight(job, y);
    struct distribution t = {job->target_weight * w_y, job->smoothing, w_y, job->weights_sum, 0};
    const size_t chunk = xent_chunk(job->classes);
    for (size_t begin = 0; t.b > 0 && begin < job->classes; begin += chunk) {
        double lane[XENT_LANES] = {0};
        for (size_t j = begin; j < job->classes && j < begin + chunk; ++j) {
            const double w = xent_job_class_weight(job, j);
            if (w != 0)
                lane[j % XENT_LANES] += w * (double)x[j];
        }
        for (int half = XENT_LANES / 2; half > 0; half /= 2)
            for (int l = 0; l < half; ++l)
                lane[l] += lane[l + half];
        t.D += lane[0];
    }
    return t;
}

/* out_j = e_j * v for every class. */
static void scale_row(const float *x, float *out, size_t classes, struct frame frame, double v)
{
    const struct multiplier m = row_multiplier(v);
    for (size_t j = 0; j < classes; ++j) {
        const struct scaled e = exponential(x[j], frame);
        const int n = e.n + m.exponent + XENT_BIAS;
        const float q = e.f == 0 || n < XENT_VANISHED ? 0.0f : e.f * f32_pow2(n);
        out[j] = f64_to_f32((double)fma32(q, m.hi, q * m.lo) * f64_pow2(-XENT_BIAS));
    }
}

static void fill(float *out, size_t classes, float value)
{
    for (size_t j = 0; j < classes; ++j)
        out[j] = value;
}

static void cross_entropy(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *grad = job->out ? job->out + i * job->out_stride : NULL;
        const int64_t target = xent_job_target(job, i);
        float loss = 0, lse = 0;
        if (target == job->ignore_index) {
            if (grad)
                fill(grad, job->classes, 0.0f);
        } else {
            const size_t y = (size_t)target;
            const float max = row_max(x, job->classes);
            if (row_is_finite(max)) {
                const struct frame frame = row_frame(max);
                const double others = sum_others(x, job->classes, y, frame);
                const double z = (double)x[y] - (double)frame.ref;
                const double e = row_exponential(z, frame.cut);
                const struct row_result row = row_finish(others, e, z);
                const double log_sum_exp = (double)frame.ref + row.log_sum;
                const struct distribution t = row_distribution(job, x, y);
                const double row_loss = distribution_loss(t, row.loss, log_sum_exp);
                xent_job_add_loss(job, i, row_loss);
                loss = f64_to_f32(row_loss);
                lse = f64_to_f32(log_sum_exp);
                if (grad) {
                    scale_row(x, grad, job->classes, frame, job->grad_scale * distribution_total(t) / row.sum);
                    const float B = f64_to_f32(job->grad_scale * t.b);
                    for (size_t j = 0; t.b > 0 && j < job->classes; ++j)
                        grad[j] -= B * (job->class_weights ? job->class_weights[j] : 1);
                    grad[y] = distribution_target_gradient(t, others, e, row.sum, job->grad_scale);
                }
            } else {
                loss = lse = NAN;
                xent_job_add_loss(job, i, (double)NAN);
                if (grad)
                    fill(grad, job->classes, NAN);
            }
        }
        if (job->loss)
            job->loss[i] = loss;
        if (job->lse)
            job->lse[i] = lse;
    }
}

static void softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *out = job->out ? job->out + i * job->out_stride : NULL;
        const float max = row_max(x, job->classes);
        float lse = NAN;
        if (row_is_finite(max)) {
            const struct frame frame = row_frame(max);
            const double sum = sum_others(x, job->classes, SIZE_MAX, frame);
            lse = f64_to_f32((double)frame.ref + row_finish(sum, 0, 0).log_sum);
            if (out)
                scale_row(x, out, job->classes, frame, 1 / sum);
        } else if (out) {
            fill(out, job->classes, NAN);
        }
        if (job->lse)
            job->lse[i] = lse;
    }
}

static void log_softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = job->logits + i * job->logits_stride;
        float *out = job->out + i * job->out_stride;
        const float max = row_max(x, job->classes);
        if (!row_is_finite(max)) {
            fill(out, job->classes, NAN);
            continue;
        }
        size_t y = 0;
        while (x[y] != max)
            ++y;
        const struct frame frame = row_frame(max);
        const double z = (double)max - (double)frame.ref;
        const double others = sum_others(x, job->classes, y, frame);
        const struct row_result row = row_finish(others, row_exponential(z, frame.cut), z);
        const float hi = (float)row.log_sum;
        const float lo = (float)(row.log_sum - (double)hi);
        for (size_t j = 0; j < job->classes; ++j)
            out[j] = ((x[j] - frame.ref) - hi) - lo;
        out[y] = -f64_to_f32(row.loss);
    }
}

/* Nothing is kept: exponentials are computed again for the second pass. */
static void sum_part(const float *x, float *out, size_t begin, size_t end, size_t skip, struct xent_part *part)
{
    (void)out;
    part->zeros = part->kept = begin;
    part->max = -INFINITY;
    part->finite = true;
    part->sum = 0;
    for (size_t j = begin; j < end; ++j) {
        part->finite = part->finite && x[j] == x[j];
        part->max = x[j] > part->max ? x[j] : part->max;
    }
    if (part->finite && part->max < XENT_NEAR_MAX) /* else the row is far */
        part->sum = sum_chunk(x, begin, end, skip, near_frame);
}

static void sum_part_far(const float *x, size_t end, size_t skip, struct frame frame, struct xent_part *part)
{
    part->sum = part->finite ? sum_chunk(x, part->kept, end, skip, frame) : 0;
}

static void scale_part(const float *x, float *out, size_t begin, size_t end, const struct xent_part *part,
                       struct frame frame, double v)
{
    (void)part;
    scale_row(x + begin, out + begin, end - begin, frame, v);
}

extern const struct xent_kernel XENT_KERNEL(scalar);
const struct xent_kernel XENT_KERNEL(scalar) = {
    "scalar", 0, cross_entropy, softmax, log_softmax, sum_part, sum_part_far, scale_part, .bce = bce,
};
