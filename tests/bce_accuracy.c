/*
 * Binary cross entropy against the exact values by MPFR: the bounds of the header hold, and the worst case of each
 * family of elements is printed with the element that attains it.
 */
#include "bce.h"
#include "reference.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PRECISION = 400, ELEMENTS = 512 }; /* 1 - t is exact then, and differences cost nothing that matters */

enum quantity { LOSS, GRADIENT, NEAR_ZERO, QUANTITIES };

static const struct {
    const char *name, *unit;
    double bound;
} quantities[QUANTITIES] = {
    [LOSS] = {"loss", "ULP", 2.0},
    [GRADIENT] = {"gradient", "ULP", 3.0},
    [NEAR_ZERO] = {"near a zero", "of its bound", 1.0},
};

struct worst {
    double error, exact;
    float x, t, w, p, got;
};

struct exact {
    mpfr_t x, one_minus_t, pt, u, log, a, b, sum, result;
};

static void exact_init(struct exact *e)
{
    mpfr_inits2(PRECISION, e->x, e->one_minus_t, e->pt, e->u, e->log, e->a, e->b, e->sum, e->result, (mpfr_ptr)NULL);
}

static void exact_clear(struct exact *e)
{
    mpfr_clears(e->x, e->one_minus_t, e->pt, e->u, e->log, e->a, e->b, e->sum, e->result, (mpfr_ptr)NULL);
    mpfr_free_cache();
}

/* The coefficients, exp(-|x|) and log1p of it. */
static void exact_element(struct exact *e, float x, float t, float w, float p)
{
    mpfr_set_flt(e->x, x, MPFR_RNDN);
    mpfr_set_flt(e->pt, t, MPFR_RNDN);
    mpfr_ui_sub(e->one_minus_t, 1, e->pt, MPFR_RNDN);
    mpfr_mul_d(e->pt, e->pt, (double)p, MPFR_RNDN);
    mpfr_mul_d(e->pt, e->pt, (double)w, MPFR_RNDN);
    mpfr_mul_d(e->one_minus_t, e->one_minus_t, (double)w, MPFR_RNDN);
    mpfr_abs(e->u, e->x, MPFR_RNDN);
    mpfr_neg(e->u, e->u, MPFR_RNDN);
    mpfr_exp(e->u, e->u, MPFR_RNDN);
    mpfr_log1p(e->log, e->u, MPFR_RNDN);
}

/* result = a + b of the loss, and the sum of their magnitudes. */
static void finish(struct exact *e)
{
    mpfr_add(e->result, e->a, e->b, MPFR_RNDN);
    mpfr_abs(e->a, e->a, MPFR_RNDN);
    mpfr_abs(e->b, e->b, MPFR_RNDN);
    mpfr_add(e->sum, e->a, e->b, MPFR_RNDN);
}

static void exact_loss(struct exact *e)
{
    const bool positive = mpfr_sgn(e->x) > 0;
    mpfr_abs(e->a, e->x, MPFR_RNDN);
    mpfr_add(e->a, e->a, e->log, MPFR_RNDN);
    mpfr_mul(e->a, e->a, positive ? e->one_minus_t : e->pt, MPFR_RNDN);
    mpfr_mul(e->b, e->log, positive ? e->pt : e->one_minus_t, MPFR_RNDN);
    finish(e);
}

static void exact_gradient(struct exact *e)
{
    const bool positive = mpfr_sgn(e->x) > 0;
    mpfr_add_ui(e->sum, e->u, 1, MPFR_RNDN);
    mpfr_div(e->a, e->one_minus_t, e->sum, MPFR_RNDN);
    mpfr_div(e->b, e->pt, e->sum, MPFR_RNDN);
    if (positive)
        mpfr_mul(e->b, e->b, e->u, MPFR_RNDN);
    else
        mpfr_mul(e->a, e->a, e->u, MPFR_RNDN);
    mpfr_neg(e->b, e->b, MPFR_RNDN);
    finish(e);
}

/* In ULP where the terms' magnitudes are less than 2^26 times the result, elsewhere in fractions of 2^-49 of them and
   half an ULP. */
static void measure(struct exact *e, float got, enum quantity quantity, struct worst where, struct worst *worst)
{
    const double exact = mpfr_get_d(e->result, MPFR_RNDN), sum = mpfr_get_d(e->sum, MPFR_RNDN);
    double error;
    if (fabs(exact) >= 0x1p-26 * sum) {
        error = reference_distance(e->result, got).ulps;
    } else {
        quantity = NEAR_ZERO;
        const double ulp = fmax(ldexp(1.0, ilogb(fabs(exact) + 0x1p-200) - 23), 0x1p-149);
        mpfr_d_sub(e->result, (double)got, e->result, MPFR_RNDN);
        error = fabs(mpfr_get_d(e->result, MPFR_RNDN)) / (0x1p-49 * sum + 0.5 * ulp);
    }
    if (!(error <= worst[quantity].error)) {
        where.error = error;
        where.exact = exact;
        where.got = got;
        worst[quantity] = where;
    }
}

static void judge(const char *family, const struct worst *worst)
{
    char text[QUANTITIES][300];
    for (int q = 0; q < QUANTITIES; q++) {
        const struct worst *w = &worst[q];
        if (w->error < 0.0)
            continue;
        snprintf(text[q], sizeof text[q], "%s: %s %.4f %s (seed %" PRIu64 ": x %a t %a w %a p %a: got %a, exact %a)",
                 family, quantities[q].name, w->error, quantities[q].unit, test_seed(), (double)w->x, (double)w->t,
                 (double)w->w, (double)w->p, (double)w->got, w->exact);
        note("%s", text[q]);
    }
    for (int q = 0; q < QUANTITIES; q++)
        if (!(worst[q].error <= quantities[q].bound))
            fail_case("%s", text[q]);
}

enum target { HARD, SOFT, ANY_TARGET, CROSSING, LOSS_CROSSING, MIDDLE };

static const struct family {
    const char *name;
    double scale; /* of normal logits; 0: of every magnitude, -1: uniform in [-110, 110] */
    enum target target;
    bool signs; /* weights of both signs */
} families[] = {
    {"normal*0.1, hard", 0.1, HARD, false},
    {"normal, hard", 1, HARD, false},
    {"normal*3, hard", 3, HARD, false},
    {"normal*30, hard", 30, HARD, false},
    {"uniform in +-110, hard", -1, HARD, false},
    {"every magnitude, hard", 0, HARD, false},
    {"normal*0.1, soft", 0.1, SOFT, false},
    {"normal, soft", 1, SOFT, false},
    {"normal*3, soft", 3, SOFT, false},
    {"normal*30, soft", 30, SOFT, false},
    {"uniform in +-110, soft", -1, SOFT, false},
    {"every magnitude, soft", 0, SOFT, false},
    {"sigmoid(x) = t, nearly", 3, CROSSING, false},
    {"loss of 0, nearly", 3, LOSS_CROSSING, false},
    {"t = 1/2, every magnitude", 0, MIDDLE, false},
    {"normal*3, any target", 3, ANY_TARGET, false},
    {"every magnitude, any target, any sign", 0, ANY_TARGET, true},
    {"normal*3, hard, any sign", 3, HARD, true},
};

static float every_magnitude(struct rng *rng, double low, double high)
{
    const double magnitude = exp2(rng_uniform(rng, low, high));
    return (float)(rng_chance(rng, 0.5) ? magnitude : -magnitude);
}

static float draw_target(struct rng *rng, enum target target, float x)
{
    if (target == HARD)
        return (float)rng_below(rng, 2);
    if (target == MIDDLE)
        return 0.5f;
    /* The gradient is 0 for t = sigmoid(x), the loss for t = softplus(x) / x. */
    const double off = 1.0 + rng_uniform(rng, -1.0, 1.0) * exp2(rng_uniform(rng, -45.0, 0.0));
    if (target == CROSSING)
        return (float)(off / (1.0 + exp(-(double)x)));
    if (target == LOSS_CROSSING)
        return (float)(off * (fmax((double)x, 0.0) + log1p(exp(-fabs((double)x)))) / (double)x);
    if (target == ANY_TARGET && rng_chance(rng, 0.5))
        return every_magnitude(rng, -30.0, 30.0);
    if (rng_chance(rng, 0.3)) /* near 0 or 1 */
        return rng_chance(rng, 0.5) ? fabsf(every_magnitude(rng, -149.0, 0.0))
                                    : (float)(1.0 - exp2(rng_uniform(rng, -25.0, 0.0)));
    return (float)rng_uniform(rng, 0.0, 1.0);
}

static void draw(struct bce *b, struct rng *rng, const struct family *f)
{
    b->weighted = rng_chance(rng, 0.5);
    b->positive = rng_chance(rng, 0.5) && f->target != CROSSING && f->target != LOSS_CROSSING;
    for (size_t e = 0; e < ELEMENTS; e++) {
        const float x = f->scale > 0.0   ? rng_normal(rng) * (float)f->scale
                        : f->scale < 0.0 ? (float)rng_uniform(rng, -110.0, 110.0)
                                         : every_magnitude(rng, -149.0, 128.0);
        b->x[e] = x;
        b->t[e] = draw_target(rng, f->target, x);
        b->w[e] = rng_chance(rng, 0.5) ? (float)rng_uniform(rng, 0.0, 3.0) : every_magnitude(rng, -60.0, 60.0);
        b->p[e] = rng_chance(rng, 0.5) ? (float)rng_uniform(rng, 0.0, 100.0) : every_magnitude(rng, -20.0, 20.0);
        b->w[e] = f->signs ? b->w[e] : fabsf(b->w[e]);
        b->p[e] = f->signs ? b->p[e] : fabsf(b->p[e]);
    }
}

/* On the fastest kernel; the bits suite makes that hold for all. */
START_TEST(bounds)
{
    const struct family *f = &families[_i];
    struct rng rng = rng_stream(930 + (uint64_t)_i);
    struct bce b = bce_new(1, ELEMENTS);
    struct exact e;
    struct worst worst[QUANTITIES] = {{.error = -1.0}, {.error = -1.0}, {.error = -1.0}};
    float loss[ELEMENTS], grad[ELEMENTS];
    use_kernel(xent_isas()[0]);
    name_case("accuracy of binary cross entropy, %s", f->name);
    exact_init(&e);
    for (size_t repeat = 0; repeat < scaled(60); repeat++) {
        draw(&b, &rng, f);
        bce_call(&b, XENT_NONE, loss, grad);
        for (size_t i = 0; i < ELEMENTS; i++) {
            const struct worst where = {
                .x = b.x[i], .t = b.t[i], .w = b.weighted ? b.w[i] : 1, .p = b.positive ? b.p[i] : 1};
            exact_element(&e, where.x, where.t, where.w, where.p);
            exact_loss(&e);
            measure(&e, loss[i], LOSS, where, worst);
            exact_gradient(&e);
            measure(&e, grad[i], GRADIENT, where, worst);
        }
    }
    judge(f->name, worst);
    /* Hard targets and weights of one sign are never near a zero, and neither is any loss there. */
    if (f->target == HARD)
        ck_assert(worst[NEAR_ZERO].error < 0.0);
    exact_clear(&e);
    bce_free(&b);
}
END_TEST

START_TEST(reduced)
{
    static const size_t shapes[][2] = {{1, 1}, {1, 7}, {5, 20}, {40, 30}, {3, 9000}};
    double worst[3] = {0};
    struct exact e;
    mpfr_t sum;
    exact_init(&e);
    mpfr_init2(sum, PRECISION);
    use_kernel(xent_isas()[0]);
    name_case("accuracy of reduced binary cross entropy");
    struct rng rng = rng_stream(990);
    for (size_t repeat = 0; repeat < scaled(40); repeat++) {
        const size_t *shape = shapes[repeat % 10 == 0 ? 4 : repeat % 4];
        struct bce b = bce_new(shape[0], shape[1]);
        const size_t elements = b.rows * b.classes;
        float *grad = allocate(elements * sizeof *grad), total, mean;
        bce_fill(&b, &rng);
        bce_call(&b, XENT_SUM, &total, NULL);
        bce_call(&b, XENT_MEAN, &mean, grad);
        mpfr_set_zero(sum, 1);
        for (size_t i = 0; i < elements; i++) {
            exact_element(&e, b.x[i], b.t[i], b.weighted ? b.w[i] : 1, b.positive ? b.p[i % b.classes] : 1);
            exact_loss(&e);
            mpfr_add(sum, sum, e.result, MPFR_RNDN);
            exact_gradient(&e);
            if (mpfr_get_d(e.sum, MPFR_RNDN) * 0x1p-26 > fabs(mpfr_get_d(e.result, MPFR_RNDN)))
                continue;
            mpfr_div_ui(e.result, e.result, (unsigned long)elements, MPFR_RNDN);
            worst[2] = fmax(worst[2], reference_distance(e.result, grad[i]).ulps);
        }
        mpfr_div_ui(e.result, sum, (unsigned long)elements, MPFR_RNDN);
        worst[0] = fmax(worst[0], reference_distance(e.result, mean).ulps);
        worst[1] = fmax(worst[1], reference_distance(sum, total).ulps);
        free(grad);
        bce_free(&b);
    }
    note("mean %.4f ULP, sum %.4f ULP, gradient of the mean %.4f ULP", worst[0], worst[1], worst[2]);
    if (!(worst[0] <= 2.0 && worst[1] <= 2.0 && worst[2] <= 3.0))
        fail_case("mean %.4f ULP, sum %.4f ULP, gradient of the mean %.4f ULP", worst[0], worst[1], worst[2]);
    mpfr_clear(sum);
    exact_clear(&e);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bce_accuracy");
    tcase_add_loop_test(add_case(suite, "families"), bounds, 0, (int)(sizeof families / sizeof families[0]));
    tcase_add_test(add_case(suite, "reduced"), reduced);
    return run_suite(suite);
}
