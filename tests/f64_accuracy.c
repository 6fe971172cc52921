/*
 * The errors of doubles against MPFR: of the exponential and logarithms that the kernels use, and of loss, gradient and
 * log-sum-exp. Prints the worst case of each family; what a kernel's rows have, all kernels have (suite f64).
 */
#include "f64_problem.h"
#include "kernels/pair.h"
#include "support.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <mpfr.h>
#include <stdlib.h>

enum { PRECISION = 320 };

/* |got - exact| in units of the ULP of exact, 2^-1074 at least; exact is overwritten. */
static double distance(double got, mpfr_t exact)
{
    const int exponent = mpfr_regular_p(exact) && mpfr_get_exp(exact) > -1021 ? (int)mpfr_get_exp(exact) - 53 : -1074;
    if (!isfinite(got))
        return mpfr_get_d(exact, MPFR_RNDN) == got ? 0 : (double)INFINITY;
    mpfr_sub_d(exact, exact, got, MPFR_RNDN);
    mpfr_mul_2si(exact, exact, -exponent, MPFR_RNDN);
    return fabs(mpfr_get_d(exact, MPFR_RNDN));
}

/* |hi + lo - exact| / |exact| in units of 2^-53; exact is overwritten. */
static double relative(struct pair got, mpfr_t exact, mpfr_t scratch)
{
    mpfr_set(scratch, exact, MPFR_RNDN);
    mpfr_sub_d(exact, exact, got.hi, MPFR_RNDN);
    mpfr_sub_d(exact, exact, got.lo, MPFR_RNDN);
    mpfr_div(exact, exact, scratch, MPFR_RNDN);
    return fabs(mpfr_get_d(exact, MPFR_RNDN)) * 0x1p53;
}

static void expect_below(const char *what, double worst, double bound, double at, double rest)
{
    note("%s: %.4f 2^-53 at %a + %a, at most %g promised", what, worst, at, rest, bound);
    if (!(worst <= bound))
        fail_case("%s: %.4f 2^-53 at %a + %a", what, worst, at, rest);
}

/* Over [-1250, 0] evenly, near 0, and around where n changes; with a rest of half an ULP either way or none. */
START_TEST(exponential)
{
    struct rng rng = rng_stream(1110);
    mpfr_t exact, scratch;
    double worst = 0, at = 0, at_rest = 0;
    mpfr_inits2(PRECISION, exact, scratch, (mpfr_ptr)NULL);
    name_case("the exponential");
    for (size_t repeat = 0; repeat < scaled(65536); repeat++) {
        double z = rng_uniform(&rng, -1250, 0);
        if (repeat % 4 == 1)
            z = -rng_uniform(&rng, 0, 1) * exp2(rng_uniform(&rng, -60, 0));
        else if (repeat % 4 == 2)
            z = -((double)rng_below(&rng, 1800) + 0.5) * 0x1.62e42fefa39efp-1 * (1 + rng_uniform(&rng, -1e-9, 1e-9));
        else if (repeat % 4 == 3)
            z = rng_uniform(&rng, -1, 0);
        const double half = z == 0 ? 0 : ldexp(0.5, ilogb(z) - 52), rest = half * ((double)rng_below(&rng, 3) - 1);
        const struct reduced reduced = pair_exp_reduce(z, rest);
        const struct pair e = pair_exp_sum(reduced.r, reduced.r_lo, pair_exp_series(reduced.r));
        const double power = pair_exp_power(reduced.n, 900);
        mpfr_set_d(exact, z, MPFR_RNDN);
        mpfr_add_d(exact, exact, rest, MPFR_RNDN);
        mpfr_exp(exact, exact, MPFR_RNDN);
        mpfr_mul_2si(exact, exact, 900, MPFR_RNDN);
        const double error = relative((struct pair){e.hi * power, e.lo * power}, exact, scratch);
        if (error > worst) {
            worst = error;
            at = z;
            at_rest = rest;
        }
    }
    expect_below("exp", worst, 0.35, at, at_rest);
    mpfr_clears(exact, scratch, (mpfr_ptr)NULL);
}
END_TEST

static void logarithm(const char *name, bool log1p, double low, double high, uint64_t stream)
{
    struct rng rng = rng_stream(stream);
    mpfr_t exact, scratch;
    double worst = 0, at = 0, at_rest = 0;
    mpfr_inits2(PRECISION, exact, scratch, (mpfr_ptr)NULL);
    name_case("%s", name);
    for (size_t repeat = 0; repeat < scaled(65536); repeat++) {
        const double magnitude = exp2(rng_uniform(&rng, low, high));
        const double v = log1p ? magnitude : repeat % 2 ? 1 + magnitude * 0x1p-55 : rng_uniform(&rng, 1, 1 + magnitude);
        const double half = ldexp(0.5, ilogb(v) - 52);
        const struct pair s = pair_ordered(v, half * (v == 1 ? rng_uniform(&rng, 0, 0.9) : rng_uniform(&rng, -1, 1)));
        const struct logarithm of = log1p ? pair_log1p_of(s) : pair_log_of(s);
        const struct pair got = pair_log_sum(pair_over(of.upper, of.lower), of.n);
        mpfr_set_d(exact, s.hi, MPFR_RNDN);
        mpfr_add_d(exact, exact, s.lo, MPFR_RNDN);
        if (log1p)
            mpfr_log1p(exact, exact, MPFR_RNDN);
        else
            mpfr_log(exact, exact, MPFR_RNDN);
        if (mpfr_zero_p(exact) ? got.hi == 0 && got.lo == 0 : 0)
            continue;
        const double error = relative(got, exact, scratch);
        if (!(error <= worst)) {
            worst = error;
            at = s.hi;
            at_rest = s.lo;
        }
    }
    expect_below(name, worst, 0.05, at, at_rest);
    mpfr_clears(exact, scratch, (mpfr_ptr)NULL);
}

START_TEST(logarithms)
{
    logarithm("log1p", true, -900, -1.2735, 1111);
    logarithm("log", false, -3, 60, 1112);
}
END_TEST

enum kind { NORMAL, TIES, CONFIDENT, TWO_MAXIMA, UNIFORM, MASKED };

static const struct family {
    const char *name;
    enum kind kind;
    double scale, offset;
} families[] = {
    {"normal*0.1", NORMAL, 0.1, 0},
    {"normal", NORMAL, 1, 0},
    {"normal*3", NORMAL, 3, 0},
    {"normal*30", NORMAL, 30, 0},
    {"normal*300", NORMAL, 300, 0},
    {"normal + 1e4", NORMAL, 1, 1e4},
    {"normal*3 - 1e4", NORMAL, 3, -1e4},
    {"normal*1e285 + 1e300", NORMAL, 1e285, 1e300},
    {"ties", TIES, 3, 0},
    {"ties at 1e300", TIES, 1, 1e300},
    {"confident by 1 to 40", CONFIDENT, 1, 40},
    {"confident by 30 to 760", CONFIDENT, 30, 760},
    {"two maxima", TWO_MAXIMA, 3, 0},
    {"uniform in +-1250", UNIFORM, 1250, 0},
    {"half masked", MASKED, 3, 0},
};

static void fill(const struct family *f, struct rng *rng, double *x, size_t classes)
{
    for (size_t j = 0; j < classes; j++) {
        const double normal = (double)rng_normal(rng) + rng_uniform(rng, -1e-7, 1e-7);
        x[j] = f->kind == UNIFORM ? rng_uniform(rng, -f->scale, f->scale) : normal * f->scale + f->offset;
        if (f->kind == CONFIDENT)
            x[j] = 0.3;
        if (j > 0 && f->kind == TIES)
            x[j] = x[0];
        if (j > 0 && f->kind == MASKED && rng_chance(rng, 0.5))
            x[j] = (double)-INFINITY;
    }
    if (f->kind == CONFIDENT)
        x[rng_below(rng, classes)] += rng_uniform(rng, f->scale, f->offset);
    if (f->kind == TWO_MAXIMA)
        x[rng_below(rng, classes)] = x[rng_below(rng, classes)] = 20.1;
}

/* Exact exponentials of a row. */
struct exact {
    size_t classes, top;
    const double *x;
    mpfr_t *e, s, log_s, t, u;
};

static void exact_row(struct exact *r, const double *x, size_t classes)
{
    r->classes = classes;
    r->x = x;
    r->top = 0;
    for (size_t j = 1; j < classes; j++)
        r->top = x[j] > x[r->top] ? j : r->top;
    mpfr_set_zero(r->t, 1);
    for (size_t j = 0; j < classes; j++) {
        if (j > 0 && x[j] == x[j - 1]) {
            mpfr_set(r->e[j], r->e[j - 1], MPFR_RNDN);
        } else {
            mpfr_set_d(r->e[j], x[j], MPFR_RNDN);
            mpfr_sub_d(r->e[j], r->e[j], x[r->top], MPFR_RNDN);
            mpfr_exp(r->e[j], r->e[j], MPFR_RNDN);
        }
        if (j != r->top)
            mpfr_add(r->t, r->t, r->e[j], MPFR_RNDN);
    }
    mpfr_log1p(r->log_s, r->t, MPFR_RNDN);
    mpfr_add_ui(r->s, r->t, 1, MPFR_RNDN);
}

/* factor * loss / divisor into t */
static void exact_loss(struct exact *r, size_t y)
{
    mpfr_set_d(r->t, r->x[r->top], MPFR_RNDN);
    mpfr_sub_d(r->t, r->t, r->x[y], MPFR_RNDN);
    mpfr_add(r->t, r->t, r->log_s, MPFR_RNDN);
}

static void exact_gradient(struct exact *r, size_t y, size_t j)
{
    if (j != y) {
        mpfr_div(r->t, r->e[j], r->s, MPFR_RNDN);
        return;
    }
    mpfr_set_zero(r->t, 1);
    for (size_t k = 0; k < r->classes; k++)
        if (k != y)
            mpfr_add(r->t, r->t, r->e[k], MPFR_RNDN);
    mpfr_div(r->t, r->t, r->s, MPFR_RNDN);
    mpfr_neg(r->t, r->t, MPFR_RNDN);
}

struct worst {
    double ulps, got;
    size_t classes, j;
};

static void meet(struct worst *worst, double ulps, double got, size_t classes, size_t j)
{
    if (!(ulps <= worst->ulps))
        *worst = (struct worst){ulps, got, classes, j};
}

enum { MAX_CLASSES = 20000 };
static const size_t sizes[] = {1, 2, 3, 5, 10, 27, 32, 33, 64, 100, 257, 1000};

/* A row of weight r and class weight w, with dloss, as a sum, and as one of three rows of a mean. */
START_TEST(rows)
{
    const struct family *f = &families[_i];
    struct rng rng = rng_stream(1120 + (uint64_t)_i);
    struct exact r = {.e = allocate(MAX_CLASSES * sizeof(mpfr_t))};
    struct worst loss_worst = {0}, gradient_worst = {0}, target_worst = {0}, lse_worst = {0};
    double *x = allocate(MAX_CLASSES * sizeof *x), *grad = allocate(MAX_CLASSES * sizeof *grad);
    double *weights = allocate(MAX_CLASSES * sizeof *weights);
    for (size_t j = 0; j < MAX_CLASSES; j++)
        mpfr_init2(r.e[j], PRECISION);
    mpfr_inits2(PRECISION, r.s, r.log_s, r.t, r.u, (mpfr_ptr)NULL);
    use_kernel(xent_isas()[0]);
    const size_t repeats = scaled(100);
    for (size_t repeat = 0; repeat <= repeats; repeat++) {
        const size_t classes = repeat == repeats ? MAX_CLASSES : sizes[rng_below(&rng, sizeof sizes / sizeof *sizes)];
        fill(f, &rng, x, classes);
        for (size_t j = 0; j < classes; j++)
            weights[j] = rng_uniform(&rng, 0, 3);
        const int32_t y = (int32_t)(rng_chance(&rng, 0.5) ? rng_below(&rng, classes) : 0);
        const bool weighted = rng_chance(&rng, 0.5);
        const double factor = weighted ? rng_uniform(&rng, 0.1, 2) : 1, dloss = weighted ? rng_uniform(&rng, -2, 2) : 1;
        const double divisor = rng_chance(&rng, 0.5) ? 3 : 0;
        double loss, lse;
        name_case("accuracy of doubles, %s, repeat %zu: %zu classes, target %d", f->name, repeat, classes, (int)y);
        xent_problem problem = XENT_PROBLEM_INIT;
        problem.dtype = XENT_F64;
        problem.outer = 1;
        problem.classes = classes;
        problem.logits = x;
        problem.targets = &y;
        problem.class_weights = weighted ? weights : NULL;
        problem.row_weights = weighted ? &factor : NULL;
        problem.dloss = weighted ? &dloss : NULL;
        problem.normalizer = divisor;
        problem.reduction = divisor > 0 ? XENT_MEAN : XENT_SUM;
        problem.loss = &loss;
        problem.lse = &lse;
        problem.grad = grad;
        expect_status("a row", xent_cross_entropy(&problem), XENT_OK);

        exact_row(&r, x, classes);
        mpfr_set_d(r.u, factor, MPFR_RNDN);
        mpfr_mul_d(r.u, r.u, weighted ? weights[y] : 1, MPFR_RNDN);
        mpfr_div_d(r.u, r.u, divisor > 0 ? divisor : 1, MPFR_RNDN);
        if (isfinite(x[y])) {
            exact_loss(&r, (size_t)y);
            mpfr_mul(r.t, r.t, r.u, MPFR_RNDN);
            meet(&loss_worst, distance(loss, r.t), loss, classes, (size_t)y);
        }
        mpfr_mul_d(r.u, r.u, dloss, MPFR_RNDN);
        for (size_t j = 0; j < classes; j++) {
            exact_gradient(&r, (size_t)y, j);
            mpfr_mul(r.t, r.t, r.u, MPFR_RNDN);
            meet(j == (size_t)y ? &target_worst : &gradient_worst, distance(grad[j], r.t), grad[j], classes, j);
        }
        /* In ULP of the lse, or 2^-53 where that is larger. */
        mpfr_add_d(r.t, r.log_s, x[r.top], MPFR_RNDN);
        mpfr_sub_d(r.u, r.t, lse, MPFR_RNDN);
        const double unit = fmax(0x1p-53, fabs(lse) * DBL_EPSILON / 2);
        meet(&lse_worst, fabs(mpfr_get_d(r.u, MPFR_RNDN)) / unit, lse, classes, 0);
    }
    note("%s: loss %.4f, target's gradient %.4f, other gradients %.4f ULP (seed %" PRIu64
         ": loss %a of %zu classes; gradients %a, number %zu of %zu, and %a, number %zu of %zu); lse %.4f",
         f->name, loss_worst.ulps, target_worst.ulps, gradient_worst.ulps, test_seed(), loss_worst.got,
         loss_worst.classes, target_worst.got, target_worst.j, target_worst.classes, gradient_worst.got,
         gradient_worst.j, gradient_worst.classes, lse_worst.ulps);
    if (!(loss_worst.ulps <= 2 && target_worst.ulps <= 3 && gradient_worst.ulps <= 3 && lse_worst.ulps <= 1.5))
        fail_case("loss %.4f, target's gradient %.4f, other gradients %.4f ULP, lse %.4f", loss_worst.ulps,
                  target_worst.ulps, gradient_worst.ulps, lse_worst.ulps);
    for (size_t j = 0; j < MAX_CLASSES; j++)
        mpfr_clear(r.e[j]);
    mpfr_clears(r.s, r.log_s, r.t, r.u, (mpfr_ptr)NULL);
    free(r.e);
    free(x);
    free(grad);
    free(weights);
}
END_TEST

/* Sums and means of many rows: their exact losses are added up. */
START_TEST(reduced)
{
    enum { ROWS = 40000, DIFFERENT = 400, CLASSES = 4 };
    struct rng rng = rng_stream(1150);
    struct exact r = {.e = allocate(CLASSES * sizeof(mpfr_t))};
    double *x = allocate(ROWS * CLASSES * sizeof *x), worst[2] = {0};
    int32_t *targets = allocate(ROWS * sizeof *targets);
    mpfr_t sum;
    for (size_t j = 0; j < CLASSES; j++)
        mpfr_init2(r.e[j], PRECISION);
    mpfr_inits2(PRECISION, sum, r.s, r.log_s, r.t, r.u, (mpfr_ptr)NULL);
    use_kernel(xent_isas()[0]);
    name_case("accuracy of reduced losses of doubles");
    for (size_t repeat = 0; repeat < scaled(10); repeat++) {
        const size_t count = DIFFERENT + rng_below(&rng, ROWS - DIFFERENT);
        mpfr_set_zero(sum, 1);
        for (size_t i = 0; i < count; i++) {
            double *row = x + i * CLASSES;
            if (i >= DIFFERENT) { /* the same rows again */
                memcpy(row, row - DIFFERENT * CLASSES, CLASSES * sizeof *row);
                targets[i] = targets[i - DIFFERENT];
                continue;
            }
            targets[i] = (int32_t)rng_below(&rng, CLASSES);
            fill(&families[2], &rng, row, CLASSES);
            exact_row(&r, row, CLASSES);
            exact_loss(&r, (size_t)targets[i]);
            mpfr_mul_ui(r.t, r.t, (unsigned long)((count - i - 1) / DIFFERENT + 1), MPFR_RNDN);
            mpfr_add(sum, sum, r.t, MPFR_RNDN);
        }
        xent_problem problem = XENT_PROBLEM_INIT;
        double loss;
        problem.dtype = XENT_F64;
        problem.outer = count;
        problem.classes = CLASSES;
        problem.logits = x;
        problem.targets = targets;
        problem.loss = &loss;
        expect_status("mean", xent_cross_entropy(&problem), XENT_OK);
        mpfr_div_ui(r.t, sum, (unsigned long)count, MPFR_RNDN);
        worst[0] = fmax(worst[0], distance(loss, r.t));
        problem.reduction = XENT_SUM;
        expect_status("sum", xent_cross_entropy(&problem), XENT_OK);
        worst[1] = fmax(worst[1], distance(loss, sum));
    }
    note("mean %.4f, sum %.4f ULP", worst[0], worst[1]);
    if (!(worst[0] <= 2 && worst[1] <= 0.6))
        fail_case("mean %.4f, sum %.4f ULP", worst[0], worst[1]);
    for (size_t j = 0; j < CLASSES; j++)
        mpfr_clear(r.e[j]);
    mpfr_clears(sum, r.s, r.log_s, r.t, r.u, (mpfr_ptr)NULL);
    free(r.e);
    free(x);
    free(targets);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("f64_accuracy");
    tcase_add_test(add_case(suite, "exponential"), exponential);
    tcase_add_test(add_case(suite, "logarithms"), logarithms);
    tcase_add_loop_test(add_case(suite, "rows"), rows, 0, (int)(sizeof families / sizeof families[0]));
    tcase_add_test(add_case(suite, "reduced"), reduced);
    return run_suite(suite);
}
