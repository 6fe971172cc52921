/*
 * The scalar kernel: docs/numerics.md word for word in plain C, written apart from the SIMD text. It is the fallback
 * for any CPU and the oracle that the bits of every other kernel are compared with.
 */
#include "kernels/bce.h"
#include "kernels/double.h"
#include "kernels/kernel.h"
#include "kernels/row.h"
#include "kernels/target.h"

#include <math.h>

/* a * b + c rounded once, for floats a, b and c, from plain double arithmetic. Rounding the double sum to float is
   rounding twice, which can only be wrong where the first one lands halfway between two floats; there, and where floats
   are subnormal and lie elsewhere, the sum is rounded to odd first (Boldo & Melquiond 2008, Emulation of FMA and
   correctly rounded sums). */
static float fma_of(double a, double b, double c)
{
    const double p = a * b; /* exact: 48 bits */
    const double s = p + c;
    uint64_t bits = f64_bits(s);
    if (s == 0 || ((bits & 0x1fffffff) != 0x10000000 && (s >= 0x1p-126 || s <= -0x1p-126)))
        return (float)s;
    const double c_part = s - p;
    const double error = (p - (s - c_part)) + (c - c_part);
    if (error != 0 && (bits & 1) == 0)
        bits = (error > 0) == (s > 0) ? bits + 1 : bits - 1;
    return f64_to_f32(f64_from_bits(bits));
}

static float fma32(float a, float b, float c)
{
    return fma_of((double)a, (double)b, (double)c);
}

/* K exp(x - ref) = f * 2^n, f in [0.99, 2.00]; f = 0 at or below the cut. */
struct scaled {
    float f;
    int n;
};

/* 16 n + k */
static float round_exponent(float z)
{
    const float rounder = 0x1.8p23f;
    return fma32(z, XENT_16LOG2E, rounder) - rounder;
}

/* r */
static float reduce(float z, float n16)
{
    return fma32(n16, -XENT_LN2_16_LO, fma32(n16, -XENT_LN2_16_HI, z));
}

static struct scaled exponential(float x, struct frame frame)
{
#define ENTRY(k, bits) bits
    static const uint32_t table[16] = {XENT_TABLE(ENTRY)};
#undef ENTRY
    const float z = x - frame.ref;
    if (z <= frame.cut)
        return (struct scaled){0, 0};
    const float n16 = round_exponent(z), r = reduce(z, n16);
    const int k = (int)n16 & 15;
    const float p = fma32(fma32(XENT_C3, r, XENT_C2), r, 1.0f);
    const float T = f32_from_bits(table[k]);
    return (struct scaled){fma32(T * r, p, T), ((int)n16 - k) / 16};
}

/* A row of an array: class j is at p[j * stride]. */
struct row {
    const float *p;
    size_t stride;
};

static float row_at(struct row row, size_t j)
{
    return row.p[j * row.stride];
}

/* The largest logit, NaN if there is one. */
static float row_max(struct row x, size_t classes)
{
    float max = -INFINITY;
    for (size_t j = 0; j < classes; ++j) {
        if (row_at(x, j) != row_at(x, j))
            return NAN;
        if (row_at(x, j) > max)
            max = row_at(x, j);
    }
    return max;
}

static double fold(double *lane, int lanes)
{
    for (int half = lanes / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l)
            lane[l] += lane[l + half];
    return lane[0];
}

/* The sum of a chunk's e_j but that of class skip, in the order of the contract. */
static double sum_chunk(struct row x, size_t begin, size_t end, size_t skip, struct frame frame)
{
    double lane[XENT_LANES] = {0};
    for (size_t j = begin; j < end; ++j) {
        if (j == skip)
            continue;
        const struct scaled e = exponential(row_at(x, j), frame);
        lane[j % XENT_LANES] += (double)e.f * f64_pow2(e.n);
    }
    return fold(lane, XENT_LANES);
}

static double sum_others(struct row x, size_t classes, size_t skip, struct frame frame)
{
    const size_t chunk = xent_chunk(classes);
    double total = 0;
    for (size_t begin = 0; begin < classes; begin += chunk)
        total += sum_chunk(x, begin, classes - begin < chunk ? classes : begin + chunk, skip, frame);
    return total;
}

/* The sum of w_j x_j. */
static double weighted_sum(const struct xent_job *job, struct row x)
{
    const size_t chunk = xent_chunk(job->classes);
    double sum = 0;
    for (size_t begin = 0; begin < job->classes; begin += chunk) {
        double lane[XENT_LANES] = {0};
        for (size_t j = begin; j < job->classes && j < begin + chunk; ++j) {
            const double w = xent_job_class_weight(job, j);
            if (w != 0)
                lane[j % XENT_LANES] += w * (double)row_at(x, j);
        }
        sum += fold(lane, XENT_LANES);
    }
    return sum;
}

/* The first class of row i that is_dominant, or NO_CLASS. */
static size_t dominant_class(const struct xent_job *job, size_t i)
{
    const xent_strides *strides = &job->targets_strides;
    const float *q = (const float *)job->targets + xent_job_at(job, strides, i);
    for (size_t j = 0; j < job->classes; ++j)
        if (is_dominant((double)q[j * strides->classes]))
            return j;
    return NO_CLASS;
}

/* Adds the shares of all classes. */
static void add_shares(struct distribution *t, const struct xent_job *job, size_t i, struct row x)
{
    const size_t chunk = xent_chunk(job->classes), y = dominant_class(job, i);
    double Q = 0, P = 0;
    for (size_t begin = 0; begin < job->classes; begin += chunk) {
        double q_lane[XENT_LANES] = {0}, p_lane[XENT_LANES] = {0};
        for (size_t j = begin; j < job->classes && j < begin + chunk; ++j) {
            const double a = j == y ? 0 : distribution_weighted(job, i, j);
            if (a != 0) {
                q_lane[j % XENT_LANES] += a;
                p_lane[j % XENT_LANES] += a * ((double)row_at(x, j) - t->pivot);
            }
        }
        Q += fold(q_lane, XENT_LANES);
        P += fold(p_lane, XENT_LANES);
    }
    const double x_y = y == NO_CLASS ? 0 : (double)row_at(x, y);
    distribution_add_probabilities(t, distribution_named(job, i), distribution_dominant(job, i, y, x_y), Q, P);
}

/* The sum of x_j: without class weights, of n_j ln(2)/16 + r_j for logits in the window. */
static double logit_sum(struct row x, size_t classes)
{
    double sum = 0;
    for (size_t begin = 0; begin < classes; begin += XENT_SLICE) {
        int32_t n = 0;
        float r[XENT_SLICE_LANES] = {0};
        double r_lane[XENT_SLICE_LANES], rest[XENT_SLICE_LANES] = {0};
        for (size_t j = begin; j < classes && j < begin + XENT_SLICE; ++j) {
            const float x_j = row_at(x, j), n16 = round_exponent(x_j);
            const size_t l = j % XENT_SLICE_LANES;
            if (n16 >= (float)XENT_WINDOW_LOW && n16 < (float)(XENT_WINDOW_LOW + XENT_WINDOW_SIZE)) {
                n += (int32_t)n16;
                r[l] += reduce(x_j, n16);
            } else {
                rest[l] += (double)x_j;
            }
        }
        for (int l = 0; l < XENT_SLICE_LANES; ++l)
            r_lane[l] = (double)r[l];
        sum += ((double)n * XENT_LN2_16 + fold(r_lane, XENT_SLICE_LANES)) + fold(rest, XENT_SLICE_LANES);
    }
    return sum;
}

static struct distribution row_distribution(const struct xent_job *job, size_t i, struct row x)
{
    struct distribution t;
    if (xent_job_has_labels(job)) {
        distribution_of_labels(&t, job, i);
        if (t.y != NO_CLASS)
            t.x_y = (double)row_at(x, t.y);
    } else {
        distribution_of_probabilities(&t, job, i);
        add_shares(&t, job, i, x);
    }
    if (t.even != 0)
        t.D = job->class_weights ? weighted_sum(job, x) : logit_sum(x, job->classes);
    return t;
}

/* Where a row's results go, one class after the other. */
struct out {
    float *p;
    size_t stride;
};

/* out_j = e_j * v for every class. */
static void scale_row(struct row x, struct out out, size_t classes, struct frame frame, double v, bool bounded)
{
    const struct multiplier m = row_multiplier(f64_abs(v));
    for (size_t j = 0; j < classes; ++j) {
        const struct scaled e = exponential(row_at(x, j), frame);
        if (!bounded) {
            out.p[j * out.stride] = multiply_unbounded((double)e.f * f64_pow2(e.n), v);
            continue;
        }
        const int n = e.n + m.exponent + XENT_BIAS;
        const float q = e.f == 0 || n < XENT_VANISHED ? 0.0f : e.f * f32_pow2(n);
        const float g = f64_to_f32((double)fma32(q, m.hi, q * m.lo) * f64_pow2(-XENT_BIAS));
        out.p[j * out.stride] = v < 0 ? 0 - g : g;
    }
}

static void fill(struct out out, size_t classes, float value)
{
    for (size_t j = 0; j < classes; ++j)
        out.p[j * out.stride] = value;
}

/* Takes what the target distribution has of a class off its gradient. */
static void subtract_targets(const struct xent_job *job, size_t i, const struct distribution *t, struct out out)
{
    if (t->even != 0) {
        const double B = t->scale * t->even;
        for (size_t j = 0; j < job->classes; ++j) {
            float *g = &out.p[j * out.stride];
            *g = distribution_less(*g, distribution_even_taken(B, xent_job_class_weight(job, j)));
        }
    }
    const struct taken taken = distribution_taken(job, i);
    for (size_t j = 0; !xent_job_has_labels(job) && j < job->classes; ++j) {
        float *g = &out.p[j * out.stride];
        const double a = distribution_weighted(job, i, j);
        if (taken.usual)
            *g = f32_canonical(fma_of(-a, (double)taken.lo, (double)fma_of(-a, (double)taken.hi, (double)*g)));
        else
            *g = distribution_less(*g, distribution_share_taken(taken.N, a));
    }
    for (size_t k = 0; xent_job_has_labels(job) && !xent_job_has_plain_labels(job) && k < job->labels; ++k)
        if (xent_job_label(job, i, k) != job->ignore_index) {
            float *g = &out.p[(size_t)xent_job_label(job, i, k) * out.stride];
            *g = distribution_less(*g, distribution_share_taken(t->scale, distribution_label_share(job, i, k)));
        }
}

/* Everything of the row's logits is read before any gradient is written but by scale_row, class by class. */
static void cross_entropy_row(const struct xent_job *job, size_t i, struct row x, struct out grad)
{
    float *loss = job->loss ? (float *)job->loss + i : NULL, *lse = job->lse ? (float *)job->lse + i : NULL;
    const float max = row_max(x, job->classes);
    if (!row_is_finite(max)) {
        xent_job_add_loss(job, i, (double)NAN);
        if (grad.p)
            fill(grad, job->classes, NAN);
        if (loss)
            *loss = NAN;
        if (lse)
            *lse = NAN;
        return;
    }
    const struct frame frame = row_frame(max);
    const struct distribution t = row_distribution(job, i, x);
    const double others = sum_others(x, job->classes, t.y, frame);
    const double z = t.x_y - (double)frame.ref;
    const double e = row_exponential(z, frame.cut);
    const struct row_result row = row_finish(others, e, z);
    const double row_loss = distribution_loss(&t, row.loss, (double)frame.ref, row.log_sum);
    xent_job_add_loss(job, i, row_loss);
    if (loss)
        *loss = f32_canonical(f64_to_f32(row_loss));
    if (lse)
        *lse = f64_to_f32((double)frame.ref + row.log_sum);
    if (!grad.p)
        return;
    const double multiplier = distribution_multiplier(&t);
    if (multiplier != multiplier) {
        fill(grad, job->classes, NAN);
        return;
    }
    scale_row(x, grad, job->classes, frame, multiplier * row.inverse, multiplier_is_bounded(multiplier));
    subtract_targets(job, i, &t, grad);
    if (t.y != NO_CLASS)
        grad.p[t.y * grad.stride] = distribution_target_gradient(&t, others, e, row.inverse);
}

static void cross_entropy(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const struct row x = {xent_job_logits(job, i), job->logits_strides.classes};
        const struct out grad = {job->out ? xent_job_out(job, i) : NULL, job->out_strides.classes};
        if (!xent_job_ignores(job, i)) {
            cross_entropy_row(job, i, x, grad);
            continue;
        }
        if (grad.p)
            fill(grad, job->classes, 0.0f);
        if (job->loss)
            ((float *)job->loss)[i] = 0;
        if (job->lse)
            ((float *)job->lse)[i] = 0;
    }
}

static void softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const struct row x = {xent_job_logits(job, i), 1};
        const struct out out = {job->out ? xent_job_out(job, i) : NULL, 1};
        const float max = row_max(x, job->classes);
        float lse = NAN;
        if (row_is_finite(max)) {
            const struct frame frame = row_frame(max);
            const double sum = sum_others(x, job->classes, SIZE_MAX, frame);
            const struct row_result row = row_finish(sum, 0, 0);
            lse = f64_to_f32((double)frame.ref + row.log_sum);
            if (out.p)
                scale_row(x, out, job->classes, frame, row.inverse, true);
        } else if (out.p) {
            fill(out, job->classes, NAN);
        }
        if (job->lse)
            ((float *)job->lse)[i] = lse;
    }
}

static void log_softmax(const struct xent_job *job, size_t first, size_t last)
{
    for (size_t i = first; i < last; ++i) {
        const float *x = xent_job_logits(job, i);
        float *out = xent_job_out(job, i);
        const struct row row_x = {x, 1};
        const float max = row_max(row_x, job->classes);
        if (!row_is_finite(max)) {
            fill((struct out){out, 1}, job->classes, NAN);
            continue;
        }
        size_t y = 0;
        while (x[y] != max)
            ++y;
        const struct frame frame = row_frame(max);
        const double z = (double)max - (double)frame.ref;
        const double others = sum_others(row_x, job->classes, y, frame);
        const struct row_result row = row_finish(others, row_exponential(z, frame.cut), z);
        const float hi = (float)row.log_sum;
        const float lo = (float)(row.log_sum - (double)hi);
        for (size_t j = 0; j < job->classes; ++j)
            out[j] = ((x[j] - frame.ref) - hi) - lo;
        out[y] = -f64_to_f32(row.loss);
    }
}

/* Nothing is kept: exponentials are computed again for the second pass. */
static void sum_part(const float *x, float *out, size_t begin, size_t end, size_t skip, struct xent_memory memory,
                     struct xent_part *part)
{
    (void)out;
    (void)memory;
    part->zeros = part->kept = begin;
    part->max = -INFINITY;
    part->finite = true;
    part->sum = 0;
    for (size_t j = begin; j < end; ++j) {
        part->finite = part->finite && x[j] == x[j];
        part->max = x[j] > part->max ? x[j] : part->max;
    }
    if (part->finite && part->max < XENT_NEAR_MAX) /* else the row is far */
        part->sum = sum_chunk((struct row){x, 1}, begin, end, skip, near_frame);
}

static void sum_part_far(const float *x, size_t end, size_t skip, struct frame frame, struct xent_part *part)
{
    part->sum = part->finite ? sum_chunk((struct row){x, 1}, part->kept, end, skip, frame) : 0;
}

static void scale_part(const float *x, float *out, size_t begin, size_t end, const struct xent_part *part,
                       struct frame frame, double v)
{
    (void)part;
    scale_row((struct row){x + begin, 1}, (struct out){out + begin, 1}, end - begin, frame, v, true);
}

extern const struct xent_kernel XENT_KERNEL(scalar);
const struct xent_kernel XENT_KERNEL(scalar) = {
    .name = "scalar",
    .needs = 0,
    .cross_entropy = cross_entropy,
    .softmax = softmax,
    .log_softmax = log_softmax,
    .sum_part = sum_part,
    .sum_part_far = sum_part_far,
    .scale_part = scale_part,
    .cross_entropy_f64 = cross_entropy_f64,
    .bce = bce,
};
