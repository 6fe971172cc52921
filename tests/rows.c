/*
 * See rows.h.
 */
#include "rows.h"

#include <float.h>
#include <math.h>

const size_t row_sizes[] = {511,  512,  513,  767,  1023, 1024, 1025, 1100,  1535,  1537,  2047, 2048,
                            2049, 4096, 4097, 8191, 8192, 8193, 9000, 16384, 16385, 20000, 50257};
const size_t row_size_count = sizeof row_sizes / sizeof row_sizes[0];

static const uint32_t special_bits[] = {
    0x7fc00000, 0xffc00000, 0x7fc12345, 0xffffffff, /* quiet NaNs: both signs, with payloads */
    0x7f800001, 0xffbfffff,                         /* signalling NaNs */
    0x7f800000, 0xff800000,                         /* infinities */
    0x7f7fffff, 0xff7fffff,                         /* +-FLT_MAX */
    0x00000000, 0x80000000,                         /* zeros */
    0x00000001, 0x80000001, 0x007fffff, 0x807fffff, /* subnormal */
    0x00800000, 0x80800000,                         /* the smallest normal numbers */
};
static const float special_values[] = {
    1e4f,    -1e4f,   1e30f,   -1e30f,   -1e9f,     55.4f,   -33.3f,   88.8f,  -87.4f,  255.9f,  -255.9f,
    256.0f,  -256.0f, 511.9f,  512.0f,   -512.0f,   -512.1f, -600.0f,  600.0f, 103.9f,  -103.9f, 104.1f,
    -104.1f, 127.5f,  -127.5f, -149.5f,  150.5f,    40.0f,   -40.0f,   0.5f,   0x1p22f, 0x1p23f, 0x1p31f,
    0x1p32f, 0x1p63f, 1e-4f,   0x1p-24f, -0x1p-24f, 354.89f, -354.89f, 360.0f, 2.5f,
};
enum { BITS_COUNT = sizeof special_bits / sizeof special_bits[0] };
const size_t row_specials = BITS_COUNT + sizeof special_values / sizeof special_values[0];

float row_special(size_t index)
{
    return index < BITS_COUNT ? float_from_bits(special_bits[index]) : special_values[index - BITS_COUNT];
}

static void fill_normal(struct rng *rng, float *row, size_t classes, float scale, float offset)
{
    for (size_t j = 0; j < classes; j++)
        row[j] = rng_normal(rng) * scale + offset;
}

static float pick(struct rng *rng, const float *values, size_t count)
{
    return values[rng_below(rng, count)];
}

/* A scale of the order that the fixed families have, or between them. */
static float any_scale(struct rng *rng)
{
    static const float scales[] = {0.1f, 1.0f, 3.0f, 30.0f, 300.0f};
    return pick(rng, scales, 5);
}

static void fill_scaled(struct rng *rng, float *row, size_t classes, size_t target)
{
    (void)target;
    fill_normal(rng, row, classes, any_scale(rng), 0.0f);
}

static void fill_offset(struct rng *rng, float *row, size_t classes, size_t target)
{
    static const float offsets[] = {1e4f, -1e4f, 1e30f, -300.0f, 300.0f, 100.0f, -100.0f, 255.0f, -255.0f, 60.0f};
    (void)target;
    fill_normal(rng, row, classes, any_scale(rng), pick(rng, offsets, 10));
}

/* Around 1e30 the logits' own ulp is 7.6e22: only multiples of it make logits differ. */
static void fill_coarse(struct rng *rng, float *row, size_t classes, size_t target)
{
    float magnitude = pick(rng, (const float[]){1e4f, 1e30f, -1e30f, 3e38f, 1e8f}, 5);
    (void)target;
    for (size_t j = 0; j < classes; j++)
        row[j] = float_from_bits(float_bits(magnitude) - (uint32_t)rng_below(rng, 4));
}

static void fill_equal(struct rng *rng, float *row, size_t classes, size_t target)
{
    float value = rng_chance(rng, 0.5) ? row_special(rng_below(rng, row_specials)) : rng_normal(rng) * any_scale(rng);
    (void)target;
    for (size_t j = 0; j < classes; j++)
        row[j] = value;
}

static void fill_minus_infinity(struct rng *rng, float *row, size_t classes, size_t target)
{
    (void)rng, (void)target;
    for (size_t j = 0; j < classes; j++)
        row[j] = -INFINITY;
}

static void fill_masked(struct rng *rng, float *row, size_t classes, size_t target)
{
    float mask = pick(rng, (const float[]){-INFINITY, -INFINITY, -1e9f, -FLT_MAX, -1e4f}, 5);
    double density = (double)pick(rng, (const float[]){0.02f, 0.5f, 0.98f}, 3);
    float kept = rng_normal(rng);
    fill_scaled(rng, row, classes, target);
    for (size_t j = 0; j < classes; j++)
        if (rng_chance(rng, density))
            row[j] = mask;
    if (rng_chance(rng, 0.5))
        row[target] = rng_chance(rng, 0.5) ? mask : kept;
}

/* Few classes that are not masked, at any magnitude that leaves them exponentials of their own. */
static void fill_sparse(struct rng *rng, float *row, size_t classes, size_t target)
{
    float magnitude = (float)rng_uniform(rng, -260.0, 520.0);
    fill_minus_infinity(rng, row, classes, target);
    for (size_t j = 0; j < classes; j++)
        if (rng_chance(rng, 0.5))
            row[j] = -1e4f;
    for (size_t count = 1 + rng_below(rng, 4); count > 0; count--)
        row[rng_chance(rng, 0.3) ? target : rng_below(rng, classes)] = magnitude + rng_normal(rng);
}

/* Log-probabilities as logits: their log-sum-exp is nearly 0, so it shows the last bits of the sum of exponentials,
   which other results round away. */
static void fill_normalised(struct rng *rng, float *row, size_t classes, size_t target)
{
    fill_scaled(rng, row, classes, target);
    expect_status("log-softmax", xent_log_softmax_f32(row, 1, classes, 0, row, 0), XENT_OK);
}

/* Scales change within the row, so that running maxima move by a lot and often, and masked classes come and go. */
static void fill_mixed(struct rng *rng, float *row, size_t classes, size_t target)
{
    (void)target;
    for (size_t j = 0; j < classes;) {
        size_t run = 1 + rng_below(rng, rng_chance(rng, 0.5) ? 40 : 700);
        float scale = any_scale(rng);
        float offset = rng_chance(rng, 0.5) ? 0.0f : rng_normal(rng) * any_scale(rng);
        float mask = pick(rng, (const float[]){-INFINITY, -1e9f, -513.0f}, 3);
        double density = (double)pick(rng, (const float[]){0.0f, 0.0f, 0.02f, 0.5f, 1.0f}, 5);
        for (size_t end = j + run; j < end && j < classes; j++)
            row[j] = rng_chance(rng, density) ? mask : rng_normal(rng) * scale + offset;
    }
}

static void fill_sprinkled(struct rng *rng, float *row, size_t classes, size_t target)
{
    fill_scaled(rng, row, classes, target);
    for (size_t count = 1 + rng_below(rng, 3); count > 0; count--)
        row[rng_chance(rng, 0.2) ? target : rng_below(rng, classes)] = row_special(rng_below(rng, row_specials));
}

static void fill_specials(struct rng *rng, float *row, size_t classes, size_t target)
{
    /* Past the first ones, which are NaN and infinite, or else every long row would be NaN. */
    size_t first = rng_chance(rng, 0.2) ? 0 : 9;
    (void)target;
    for (size_t j = 0; j < classes; j++)
        row[j] = row_special(first + rng_below(rng, row_specials - first));
}

static void fill_ramp(struct rng *rng, float *row, size_t classes, size_t target)
{
    float low = (float)rng_uniform(rng, -700.0, 300.0);
    float high = (float)rng_uniform(rng, -300.0, 700.0);
    (void)target;
    for (size_t j = 0; j < classes; j++)
        row[j] = low + (high - low) * ((float)j / (float)classes);
}

/* A value a few steps to either side of a place where implementations change their way: the ends of the ranges in
   which exponentials or probabilities are normal, subnormal or nothing, and points near them where exp(x) takes another
   entry of a table of 2^(k/16), or another exponent. */
static float any_edge(struct rng *rng)
{
    static const float ends[] = {256.0f,      -256.0f,    512.0f,  -512.0f, 104.0f, -104.0f, 88.72284f, -87.33655f,
                                 -103.97208f, -192.0f,    355.5f,  -355.5f, 40.0f,  -40.0f,  255.65f,   -110.0f,
                                 0.34657359f, 1.0397208f, -126.5f, 22.18f,  55.45f, -33.27f, -266.1f,   443.6f};
    const double half_step = 0.021660849392498290; /* ln 2 / 32 */
    float edge = pick(rng, ends, sizeof ends / sizeof ends[0]);
    if (rng_chance(rng, 0.5))
        edge = (float)((rint((double)edge / half_step) + (double)rng_below(rng, 17) - 8.0) * half_step);
    return float_from_bits(float_bits(edge) + (uint32_t)rng_below(rng, 9) - 4);
}

static void fill_edges(struct rng *rng, float *row, size_t classes, size_t target)
{
    float shift = rng_chance(rng, 0.5) ? 0.0f : any_edge(rng);
    double density = (double)pick(rng, (const float[]){0.01f, 0.3f, 1.0f}, 3);
    (void)target;
    for (size_t j = 0; j < classes; j++)
        row[j] = rng_chance(rng, density) ? any_edge(rng) + shift : rng_normal(rng) + shift;
}

/* One far above the others: what is left of the others is at the end of the float range. */
static void fill_confident(struct rng *rng, float *row, size_t classes, size_t target)
{
    float gap = (float)rng_uniform(rng, 0.0, 125.0);
    float offset = rng_chance(rng, 0.5) ? 0.0f : rng_normal(rng) * any_scale(rng);
    float scale = rng_chance(rng, 0.5) ? 0.0f : 1.0f;
    fill_normal(rng, row, classes, scale, offset);
    row[rng_chance(rng, 0.5) ? target : rng_below(rng, classes)] = offset + gap;
}

static void fill_any_bits(struct rng *rng, float *row, size_t classes, size_t target)
{
    (void)target;
    for (size_t j = 0; j < classes; j++)
        row[j] = float_from_bits((uint32_t)rng_next(rng));
}

/* Any bits but with exponents of 2^-20 to 2^10, where all of them matter. */
static void fill_middling_bits(struct rng *rng, float *row, size_t classes, size_t target)
{
    size_t top = 3 + rng_below(rng, 9);
    (void)target;
    for (size_t j = 0; j < classes; j++) {
        uint32_t exponent = 127 - 20 + (uint32_t)rng_below(rng, 18 + top);
        row[j] = float_from_bits(((uint32_t)rng_next(rng) & 0x807fffffu) | exponent << 23);
    }
}

static void fill_late(struct rng *rng, float *row, size_t classes, size_t target)
{
    float late = rng_chance(rng, 0.5) ? row_special(rng_below(rng, row_specials)) : rng_normal(rng) * any_scale(rng);
    (void)target;
    row_fill_late(rng, row, classes, rng_below(rng, classes), late);
}

void row_fill_late(struct rng *rng, float *row, size_t classes, size_t from, float late)
{
    bool once = rng_chance(rng, 0.5);
    fill_normal(rng, row, classes, rng_chance(rng, 0.5) ? 1.0f : 5.0f, 0.0f);
    row[from] = late;
    for (size_t j = from + 1; j < classes && !once; j++)
        row[j] = rng_chance(rng, 0.5) ? late : rng_normal(rng) * 30.0f;
}

static const struct {
    const char *name;
    void (*fill)(struct rng *rng, float *row, size_t classes, size_t target);
} kinds[] = {
    {"normal", fill_scaled},
    {"offset", fill_offset},
    {"coarse", fill_coarse},
    {"equal", fill_equal},
    {"minus infinity", fill_minus_infinity},
    {"masked", fill_masked},
    {"sparse", fill_sparse},
    {"normalised", fill_normalised},
    {"mixed scales", fill_mixed},
    {"sprinkled with specials", fill_sprinkled},
    {"specials", fill_specials},
    {"ramp", fill_ramp},
    {"edges", fill_edges},
    {"confident", fill_confident},
    {"any bits", fill_any_bits},
    {"middling bits", fill_middling_bits},
    {"late", fill_late},
};
const size_t row_kinds = sizeof kinds / sizeof kinds[0];

const char *row_kind_name(size_t kind)
{
    return kinds[kind].name;
}

void row_fill(struct rng *rng, size_t kind, float *row, size_t classes, size_t target)
{
    kinds[kind].fill(rng, row, classes, target);
}
