/*
 * Part of kernels/double.h: the two passes over a row of doubles.
 */
#ifndef XENT_KERNELS_DOUBLE_ROW_H
#define XENT_KERNELS_DOUBLE_ROW_H

struct double_row {
    const double *p;
    size_t stride;
};

/* 32 sums, and what their roundings have lost. */
struct double_lanes {
    double sum[DOUBLE_BLOCK], rest[DOUBLE_BLOCK];
};

/* How many classes are next: a block, or a few where less than a block is left. */
static ALWAYS_INLINE size_t double_step(size_t classes, size_t begin)
{
    return classes - begin >= DOUBLE_BLOCK ? DOUBLE_BLOCK : DOUBLE_FEW;
}

/* The numbers of step classes from begin on where they are, if they are all there and together, and else collected,
   with others after them. */
static ALWAYS_INLINE const double *double_read(struct double_row x, size_t begin, size_t classes, size_t step,
                                               double after, double *buffer)
{
    if (x.stride == 1 && classes - begin >= step)
        return x.p + begin;
    for (size_t i = 0; i < step; ++i)
        buffer[i] = begin + i < classes ? x.p[(begin + i) * x.stride] : after;
    return buffer;
}

/* Writes them, but what is after the last class. */
static void double_write(double *out, size_t stride, size_t begin, size_t classes, size_t step, const double *v)
{
    if (stride == 1 && step == DOUBLE_BLOCK)
        memcpy(out + begin, v, DOUBLE_BLOCK * sizeof *v);
    else if (stride == 1 && classes - begin >= DOUBLE_FEW)
        memcpy(out + begin, v, DOUBLE_FEW * sizeof *v);
    else
        for (size_t i = 0; i < step && begin + i < classes; ++i)
            out[(begin + i) * stride] = v[i];
}

/* Raises the largest numbers so far by count more, and notes NaNs among these: lane i gets number i. */
static ALWAYS_INLINE void double_raise(size_t count, double *max, uint64_t *nan, const double *v)
{
    for (size_t i = 0; i < count; ++i)
        max[i] = v[i] > max[i] ? v[i] : max[i];
    for (size_t i = 0; i < count; ++i)
        nan[i] |= v[i] != v[i];
}

/* Of whole blocks, down to the first few lanes. */
static NOINLINE void double_raise_blocks(struct double_row x, size_t end, double *max, uint64_t *nan)
{
    double buffer[DOUBLE_BLOCK], largest[DOUBLE_BLOCK];
    uint64_t bad[DOUBLE_BLOCK] = {0};
    for (size_t i = 0; i < DOUBLE_BLOCK; ++i)
        largest[i] = (double)-INFINITY;
    for (size_t begin = 0; begin < end; begin += DOUBLE_BLOCK)
        double_raise(DOUBLE_BLOCK, largest, bad, double_read(x, begin, end, DOUBLE_BLOCK, 0, buffer));
    for (size_t i = 0; i < DOUBLE_BLOCK; i += DOUBLE_FEW) {
        double_raise(DOUBLE_FEW, max, nan, largest + i);
        for (size_t k = 0; k < DOUBLE_FEW; ++k)
            nan[k] |= bad[i + k];
    }
}

/* The largest logit, NaN if there is one. */
static NOINLINE double double_max(struct double_row x, size_t classes)
{
    const size_t blocks = classes / DOUBLE_BLOCK * DOUBLE_BLOCK;
    double buffer[DOUBLE_FEW], max[DOUBLE_FEW];
    uint64_t nan[DOUBLE_FEW] = {0};
    for (size_t i = 0; i < DOUBLE_FEW; ++i)
        max[i] = (double)-INFINITY;
    if (blocks > 0)
        double_raise_blocks(x, blocks, max, nan);
    for (size_t begin = blocks; begin < classes; begin += DOUBLE_FEW)
        double_raise(DOUBLE_FEW, max, nan, double_read(x, begin, classes, DOUBLE_FEW, (double)-INFINITY, buffer));
    for (size_t i = 1; i < DOUBLE_FEW; ++i) {
        max[0] = max[i] > max[0] ? max[i] : max[0];
        nan[0] |= nan[i];
    }
    return nan[0] ? (double)NAN : max[0];
}

/* v where the mask is all ones, +0 where it is 0. */
static ALWAYS_INLINE double double_keep(uint64_t mask, double v)
{
    return f64_from_bits(f64_bits(v) & mask);
}

/* Exponentials as pairs, of each x_i less its row's largest logit m_i. In several loops, each with few operations that
   wait for each other: a processor then has many elements under way at once. */
static ALWAYS_INLINE void double_exponentials_of(size_t count, const double *restrict x, const double *restrict m,
                                                 double *restrict e, double *restrict e_rest)
{
    double r[DOUBLE_BLOCK], r_lo[DOUBLE_BLOCK], p[DOUBLE_BLOCK], power[DOUBLE_BLOCK];
    for (size_t i = 0; i < count; ++i) {
        const double z = x[i] - m[i], m_part = z - x[i];
        const double rest = (x[i] - (z - m_part)) - (m[i] + m_part);
        const uint64_t counts = z > DOUBLE_CUT ? UINT64_MAX : 0;
        const struct reduced reduced = pair_exp_reduce(double_keep(counts, z), double_keep(counts, rest));
        r[i] = reduced.r;
        r_lo[i] = reduced.r_lo;
        power[i] = double_keep(counts, pair_exp_power(reduced.n, DOUBLE_BIAS));
    }
    for (size_t i = 0; i < count; ++i)
        p[i] = pair_exp_series(r[i]);
    for (size_t i = 0; i < count; ++i) {
        const struct pair v = pair_exp_sum(r[i], r_lo[i], p[i]);
        e[i] = v.hi * power[i];
        e_rest[i] = v.lo * power[i];
    }
}

static NOINLINE void double_exponentials(const double *x, const double *m, double *e, double *e_rest)
{
    double_exponentials_of(DOUBLE_BLOCK, x, m, e, e_rest);
}

static NOINLINE void double_few_exponentials(const double *x, const double *m, double *e, double *e_rest)
{
    double_exponentials_of(DOUBLE_FEW, x, m, e, e_rest);
}

/* No sums yet of so many classes. */
static ALWAYS_INLINE void double_start(struct double_lanes *lanes, size_t classes)
{
    for (size_t i = 0; i < DOUBLE_FEW; ++i)
        lanes->sum[i] = lanes->rest[i] = 0;
    for (size_t i = DOUBLE_FEW; classes > DOUBLE_FEW && i < 2 * DOUBLE_FEW; ++i)
        lanes->sum[i] = lanes->rest[i] = 0;
    for (size_t i = 2 * DOUBLE_FEW; classes > 2 * DOUBLE_FEW && i < DOUBLE_BLOCK; ++i)
        lanes->sum[i] = lanes->rest[i] = 0;
}

/* Adds pairs to count sums. */
static ALWAYS_INLINE void double_add_of(size_t count, double *restrict sum, double *restrict rest,
                                        const double *restrict v, const double *restrict v_rest)
{
    for (size_t i = 0; i < count; ++i) {
        const double before = sum[i], both = before + v[i], v_part = both - before;
        rest[i] += ((before - (both - v_part)) + (v[i] - v_part)) + v_rest[i];
        sum[i] = both;
    }
}

static NOINLINE void double_add_block(struct double_lanes *lanes, const double *v, const double *v_rest)
{
    double_add_of(DOUBLE_BLOCK, lanes->sum, lanes->rest, v, v_rest);
}

static NOINLINE void double_add_few(double *sum, double *rest, const double *v, const double *v_rest)
{
    double_add_of(DOUBLE_FEW, sum, rest, v, v_rest);
}

/* Adds the pairs of step classes from begin on to their lanes. */
static ALWAYS_INLINE void double_add_step(struct double_lanes *lanes, size_t begin, size_t step, const double *v,
                                          const double *v_rest)
{
    const size_t lane = begin % DOUBLE_BLOCK;
    if (step == DOUBLE_BLOCK)
        double_add_block(lanes, v, v_rest);
    else
        double_add_few(lanes->sum + lane, lanes->rest + lane, v, v_rest);
}

/* What a sum comes to with what its roundings have lost. */
static ALWAYS_INLINE struct pair double_sum(double sum, double rest)
{
    const struct pair both = pair_sum(sum, rest);
    return (struct pair){f64_is_finite(sum) ? both.hi : sum, f64_is_finite(sum) ? both.lo : 0};
}

/* Adds to count sums as many others. */
static ALWAYS_INLINE void double_add_sums(size_t count, double *restrict sum, double *restrict rest,
                                          const double *restrict other, const double *restrict other_rest)
{
    for (size_t i = 0; i < count; ++i) {
        const double a = sum[i], b = other[i], both = a + b, b_part = both - a;
        rest[i] = (rest[i] + other_rest[i]) + ((a - (both - b_part)) + (b - b_part));
        sum[i] = both;
    }
}

/* Adds to lane i what lane i + half has. */
static ALWAYS_INLINE void double_fold_half(struct double_lanes *lanes, size_t half)
{
    double_add_sums(half, lanes->sum, lanes->rest, lanes->sum + half, lanes->rest + half);
}

/* The sum of all lanes, for so many classes: lanes that nothing was added to change nothing. */
static NOINLINE struct pair double_fold(struct double_lanes *lanes, size_t classes)
{
    if (classes > 16)
        double_fold_half(lanes, 16);
    if (classes > 8)
        double_fold_half(lanes, 8);
    if (classes > 4)
        double_fold_half(lanes, 4);
    if (classes > 2)
        double_fold_half(lanes, 2);
    if (classes > 1)
        double_fold_half(lanes, 1);
    return double_sum(lanes->sum[0], lanes->rest[0]);
}

/* The first pass over a row: the sum of all exponentials but y's, which is stored apart. They are left in out if there
   is one. */
static struct pair double_sum_others(const struct xent_job *job, struct double_row x, double *out, double m, size_t y,
                                     struct pair *e_y)
{
    double buffer[DOUBLE_BLOCK], max[DOUBLE_BLOCK], e[DOUBLE_BLOCK], e_rest[DOUBLE_BLOCK];
    struct double_lanes lanes;
    double_start(&lanes, job->classes);
    for (size_t i = 0; i < DOUBLE_BLOCK; ++i)
        max[i] = m;
    *e_y = (struct pair){0, 0};
    for (size_t begin = 0, step; begin < job->classes; begin += step) {
        step = double_step(job->classes, begin);
        if (step == DOUBLE_BLOCK)
            double_exponentials(double_read(x, begin, job->classes, DOUBLE_BLOCK, 0, buffer), max, e, e_rest);
        else
            double_few_exponentials(double_read(x, begin, job->classes, DOUBLE_FEW, (double)-INFINITY, buffer), max, e,
                                    e_rest);
        if (out)
            double_write(out, job->out_strides.classes, begin, job->classes, step, e);
        const size_t skip = y - begin;
        if (skip < step) {
            *e_y = (struct pair){e[skip], e_rest[skip]};
            e[skip] = e_rest[skip] = 0;
        }
        double_add_step(&lanes, begin, step, e, e_rest);
    }
    return double_fold(&lanes, job->classes);
}

/* An exponential as a gradient, e (hi + lo) 2^exponent: hi has 26 bits, so that its product with 27 of e is exact. */
static ALWAYS_INLINE double double_multiplied(double e, double hi, double lo, const struct power *power)
{
    const double upper = f64_from_bits(f64_bits(e) & ~((UINT64_C(1) << 26) - 1)), lower = e - upper;
    return pair_scaled(upper * hi + (lower * hi + e * lo), power);
}

static ALWAYS_INLINE void double_multiply_of(size_t count, double *e, double hi, double lo, const struct power *of)
{
    const struct power power = *of;
    for (size_t i = 0; i < count; ++i)
        e[i] = double_multiplied(e[i], hi, lo, &power);
}

static NOINLINE void double_multiply(double *e, double hi, double lo, const struct power *power)
{
    double_multiply_of(DOUBLE_BLOCK, e, hi, lo, power);
}

static NOINLINE void double_multiply_few(double *e, double hi, double lo, const struct power *power)
{
    double_multiply_of(DOUBLE_FEW, e, hi, lo, power);
}

/* The second pass: exponentials times (hi + lo) 2^exponent, or times any where that is not finite. */
static void double_scale_row(const struct xent_job *job, double *out, double hi, double lo, const struct power *power,
                             double any)
{
    const size_t stride = job->out_strides.classes, classes = job->classes;
    const bool usual = f64_is_finite(any);
    for (size_t begin = 0, step; begin < classes; begin += step) {
        step = double_step(classes, begin);
        if (usual && stride == 1 && step == DOUBLE_BLOCK) {
            double_multiply(out + begin, hi, lo, power);
            continue;
        }
        double e[DOUBLE_BLOCK];
        for (size_t i = 0; i < step; ++i)
            e[i] = begin + i < classes ? out[(begin + i) * stride] : 0;
        if (!usual)
            for (size_t i = 0; i < step; ++i)
                e[i] = double_canonical(double_by_any(e[i], any));
        else if (step == DOUBLE_BLOCK)
            double_multiply(e, hi, lo, power);
        else
            double_multiply_few(e, hi, lo, power);
        double_write(out, stride, begin, classes, step, e);
    }
}

#endif
