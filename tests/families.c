/*
 * See families.h.
 */
#include "families.h"

#include "kernels/f64.h"

#include <float.h>

struct family {
    const char *name;
    void (*fill)(struct rng *rng, float *x, size_t classes, float a, float b);
    float a, b; /* what they mean is the function's affair */
};

/* normal * scale + offset */
static void normal(struct rng *rng, float *x, size_t classes, float scale, float offset)
{
    for (size_t j = 0; j < classes; j++)
        x[j] = rng_normal(rng) * scale + offset;
}

/* All equal, to a value of that size. */
static void ties(struct rng *rng, float *x, size_t classes, float scale, float offset)
{
    normal(rng, x, 1, scale, offset);
    for (size_t j = 1; j < classes; j++)
        x[j] = x[0];
}

/* One class low to high above all others, which are equal. */
static void confident(struct rng *rng, float *x, size_t classes, float low, float high)
{
    ties(rng, x, classes, 3.0f, 0.0f);
    x[rng_below(rng, classes)] += (float)rng_uniform(rng, (double)low, (double)high);
}

/* The same over others that are not equal. */
static void confident_over_normal(struct rng *rng, float *x, size_t classes, float low, float high)
{
    normal(rng, x, classes, 1.0f, 0.0f);
    x[rng_below(rng, classes)] += (float)rng_uniform(rng, (double)low, (double)high);
}

static void two_maxima(struct rng *rng, float *x, size_t classes, float scale, float offset)
{
    normal(rng, x, classes, scale, offset);
    size_t first = rng_below(rng, classes), second = rng_below(rng, classes);
    x[first] = x[second] = 6.0f * scale + offset;
}

/* Logits of that magnitude that differ by a few of their own ulps. */
static void coarse(struct rng *rng, float *x, size_t classes, float magnitude, float steps)
{
    for (size_t j = 0; j < classes; j++)
        x[j] = float_from_bits(float_bits(magnitude) + (uint32_t)rng_below(rng, (size_t)steps));
}

static void uniform(struct rng *rng, float *x, size_t classes, float low, float high)
{
    for (size_t j = 0; j < classes; j++)
        x[j] = (float)rng_uniform(rng, (double)low, (double)high);
}

/* Half of them masked by a large negative number. */
static void masked(struct rng *rng, float *x, size_t classes, float mask, float scale)
{
    normal(rng, x, classes, scale, 0.0f);
    for (size_t j = 1; j < classes; j++)
        if (rng_chance(rng, 0.5))
            x[j] = mask;
}

/* Half of them masked, the others around any magnitude from low to high. */
static void masked_anywhere(struct rng *rng, float *x, size_t classes, float low, float high)
{
    normal(rng, x, classes, 1.0f, (float)rng_uniform(rng, (double)low, (double)high));
    for (size_t j = 1; j < classes; j++)
        if (rng_chance(rng, 0.5))
            x[j] = -1e4f;
}

/* Logits that are themselves log-normal: positive, with a long tail. */
static void log_normal(struct rng *rng, float *x, size_t classes, float sigma, float unused)
{
    (void)unused;
    for (size_t j = 0; j < classes; j++)
        x[j] = (float)f64_exp((double)(rng_normal(rng) * sigma));
}

/* The quotient of two normal numbers: a few logits of any size among ordinary ones. */
static void cauchy(struct rng *rng, float *x, size_t classes, float scale, float unused)
{
    (void)unused;
    for (size_t j = 0; j < classes; j++) {
        float above = rng_normal(rng), below = rng_normal(rng);
        x[j] = scale * (above / (below == 0.0f ? 1.0f : below));
    }
}

static void subnormal(struct rng *rng, float *x, size_t classes, float unused, float unused_too)
{
    (void)unused;
    (void)unused_too;
    for (size_t j = 0; j < classes; j++)
        x[j] = float_from_bits((uint32_t)(rng_next(rng) & 0x807fffff));
}

/* Nearly all the mass in equal classes but for an odd one a little below or above: sums whose terms round alike. */
static void nearly_ties(struct rng *rng, float *x, size_t classes, float scale, float spread)
{
    ties(rng, x, classes, scale, 0.0f);
    for (size_t j = 0; j < classes; j++)
        x[j] += (float)rng_uniform(rng, -(double)spread, (double)spread);
}

static const struct family families[] = {
    {"normal*0.1", normal, 0.1f, 0.0f},
    {"normal", normal, 1.0f, 0.0f},
    {"normal*3", normal, 3.0f, 0.0f},
    {"normal*30", normal, 30.0f, 0.0f},
    {"normal*300", normal, 300.0f, 0.0f},
    {"normal*3+100", normal, 3.0f, 100.0f},
    {"normal*3-300", normal, 3.0f, -300.0f},
    {"normal*3+1e4", normal, 3.0f, 1e4f},
    {"normal*3-1e4", normal, 3.0f, -1e4f},
    {"normal*3+509", normal, 3.0f, 509.0f},
    {"normal*3-255", normal, 3.0f, -255.0f},
    {"1e30 and its neighbours", coarse, 1e30f, 3.0f},
    {"1e6 and its neighbours", coarse, 1e6f, 400.0f},
    {"ties", ties, 3.0f, 0.0f},
    {"ties*30", ties, 30.0f, 0.0f},
    {"ties+1e4", ties, 300.0f, 1e4f},
    {"nearly ties", nearly_ties, 3.0f, 1e-3f},
    {"confident by 5..20", confident, 5.0f, 20.0f},
    {"confident by 20..80", confident, 20.0f, 80.0f},
    {"confident by 80..115", confident, 80.0f, 115.0f},
    {"confident by 0..20 over normal", confident_over_normal, 0.0f, 20.0f},
    {"confident by 80..115 over normal", confident_over_normal, 80.0f, 115.0f},
    {"two maxima", two_maxima, 1.0f, 0.0f},
    {"two maxima*30", two_maxima, 30.0f, 0.0f},
    {"two maxima*100+1e4", two_maxima, 100.0f, 1e4f},
    {"uniform -110..0", uniform, -110.0f, 0.0f},
    {"uniform -33.5..55.6", uniform, -33.5f, 55.6f},
    {"uniform 200..300", uniform, 200.0f, 300.0f},
    {"masked by -1e9", masked, -1e9f, 3.0f},
    {"masked at -260..520", masked_anywhere, -260.0f, 520.0f},
    {"masked by -FLT_MAX", masked, -FLT_MAX, 3.0f},
    {"log-normal", log_normal, 1.5f, 0.0f},
    {"Cauchy", cauchy, 1.0f, 0.0f},
    {"subnormal", subnormal, 0.0f, 0.0f},
};
const size_t family_count = sizeof families / sizeof families[0];

const char *family_name(size_t family)
{
    return families[family].name;
}

size_t family_row(size_t family, size_t classes, size_t row, float *x)
{
    struct rng rng = rng_stream((uint64_t)family << 56 | (uint64_t)classes << 32 | row);
    families[family].fill(&rng, x, classes, families[family].a, families[family].b);
    size_t target = rng_below(&rng, classes);
    for (size_t j = 0; j < classes; j++)
        if ((row % 3 == 0 && x[j] > x[target]) || (row % 3 == 1 && x[j] < x[target]))
            target = j;
    return target;
}
