/*
 * The double-precision functions of kernels/f64.h and row.h against MPFR, on dense samples: 2^16 points each (a tenth
 * in an emulator), or 2^23 with --all.
 */
#include "kernels/row.h"

#include "run.h"

#include <check.h>
#include <math.h>
#include <mpfr.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t points = (uint64_t)((1 << 16) * XENT_TEST_DEFAULT_SCALE) & ~UINT64_C(1), random_state;

static double uniform(double low, double high)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return low + (high - low) * ((double)(random_state >> 11) * 0x1p-53);
}

/* Every other point at random, the others in even steps from end to end. */
static double point(uint64_t i, double low, double high)
{
    return i % 2 ? uniform(low, high) : low + (high - low) * ((double)i / (double)(points - 2));
}

struct worst {
    double error, at;
};

static mpfr_t exact, other;

static void exact_init(void)
{
    mpfr_inits2(140, exact, other, (mpfr_ptr)NULL);
}

static void exact_clear(void)
{
    mpfr_clears(exact, other, (mpfr_ptr)NULL);
    mpfr_free_cache();
}

/* The distance of got from exact, in units of unit or, if that is 0, of the exact value. */
static void compare(struct worst *worst, double got, double unit, double at)
{
    const double size = unit != 0 ? unit : fabs(mpfr_get_d(exact, MPFR_RNDN));
    mpfr_d_sub(other, got, exact, MPFR_RNDN);
    const double distance = fabs(mpfr_get_d(other, MPFR_RNDN));
    const double error = distance == 0 ? 0 : distance / size;
    if (!(error <= worst->error))
        *worst = (struct worst){error, at};
}

static void judge(const char *name, const struct worst *worst, double bound)
{
    printf("# %s: within 2^%.2f (at %a)\n", name, log2(worst->error), worst->at);
    fflush(stdout);
    ck_assert_msg(worst->error <= bound, "%s: error %a at %a, bound %a", name, worst->error, worst->at, bound);
}

static void exp_at(struct worst *worst, struct worst *row_worst, double z)
{
    mpfr_set_d(exact, z, MPFR_RNDN);
    mpfr_exp(exact, exact, MPFR_RNDN);
    compare(worst, f64_exp(z), 0, z);
    compare(row_worst, row_exp(z), 0, z);
}

START_TEST(exponential)
{
    static const double ends[] = {1, 20, 512, 700};
    exact_init();
    struct worst worst = {0, 0}, row_worst = {0, 0};
    for (uint64_t i = 0; i < points; ++i)
        exp_at(&worst, &row_worst, point(i, -ends[i / 2 % 4], ends[i / 2 % 4]));
    /* Where n changes. */
    for (int n = -1009; n < 1009; ++n)
        for (int k = -2; k <= 2; ++k)
            exp_at(&worst, &row_worst, (n + 0.5) * F64_LN2 * (1 + k * 0x1p-52));
    judge("f64_exp", &worst, 0x1p-50);
    judge("row_exp", &row_worst, 0x1p-39);
    ck_assert(f64_exp(0) == 1 && row_exp(0) == 1);
    exact_clear();
}
END_TEST

static void atanh_at(struct worst *worst, struct worst *row_worst, struct worst *full, double f)
{
    mpfr_set_d(exact, f, MPFR_RNDN);
    mpfr_atanh(exact, exact, MPFR_RNDN);
    mpfr_mul_2ui(exact, exact, 1, MPFR_RNDN);
    compare(worst, f64_2atanh(f), 0, f);
    compare(row_worst, row_2atanh(f), 0, f);
    compare(full, 2 * f + f64_2atanh_rest(f), 0, f);
}

START_TEST(inverse_hyperbolic_tangent)
{
    exact_init();
    struct worst worst = {0, 0}, row_worst = {0, 0}, full = {0, 0};
    for (uint64_t i = 0; i < points; ++i) {
        const double f = point(i, -0.1716, 0.1716);
        atanh_at(&worst, &row_worst, &full, f);
        atanh_at(&worst, &row_worst, &full, f * exp2(uniform(-500, 0)));
    }
    judge("f64_2atanh", &worst, 0x1p-50);
    judge("row_2atanh", &row_worst, 0x1p-37);
    judge("2 f + f64_2atanh_rest", &full, 0x1p-50);
    ck_assert(f64_2atanh(0) == 0 && row_2atanh(0) == 0);
    exact_clear();
}
END_TEST

/* log(m) for the m of f64_split, and log(s) and 1/s as kernels/row.h has them. Near s = 1 the error of log(s) is absolute,
   which is all that is asked of it. */
struct log_worst {
    struct worst parts, log, inverse;
};

static void log_at(struct log_worst *worst, double s)
{
    const struct f64_parts parts = f64_split(s);
    const double f = (parts.m - 1) / (parts.m + 1);
    if (ldexp(parts.m, (int)parts.n) != s || parts.m != s * parts.unit ||
        !(parts.m >= 0.7 && parts.m < 1.4143 && fabs(f) <= 0.1716))
        ck_abort_msg("%a is split into %a * 2^%g", s, parts.m, parts.n);
    mpfr_set_d(exact, parts.m, MPFR_RNDN);
    mpfr_log(exact, exact, MPFR_RNDN);
    compare(&worst->parts, f64_2atanh(f), 0, s);
    mpfr_set_d(exact, s, MPFR_RNDN);
    mpfr_log(exact, exact, MPFR_RNDN);
    const struct row_result row = row_finish(s, 0, 0);
    compare(&worst->log, row.log_sum + XENT_LN_K, fmax(fabs(mpfr_get_d(exact, MPFR_RNDN)), 0.34), s);
    mpfr_set_d(exact, s, MPFR_RNDN);
    mpfr_ui_div(exact, 1, exact, MPFR_RNDN);
    compare(&worst->inverse, row.inverse, 0, s);
}

START_TEST(logarithm)
{
    exact_init();
    struct log_worst worst = {{0, 0}, {0, 0}, {0, 0}};
    for (uint64_t i = 0; i < points; ++i)
        log_at(&worst, point(i, 1, 2) * exp2(rint(uniform(-1000, 1000))));
    for (uint64_t i = 0; i < points; ++i)
        log_at(&worst, point(i, 0.5, 3));
    for (int k = -1000; k <= 1000; ++k) { /* around sqrt(1/2), where n changes, and around 1 */
        log_at(&worst, 0x1.6a09e6p-1 * (1 + k * 0x1p-52));
        log_at(&worst, 0x1.6a09e6p0 * (1 + k * 0x1p-52));
        log_at(&worst, 1 + k * 0x1p-52);
    }
    judge("log of what f64_split leaves", &worst.parts, 0x1p-50);
    judge("a row's log, of max(|log s|, 0.34)", &worst.log, 0x1p-37);
    judge("a row's 1 / s", &worst.inverse, 0x1p-51);
    exact_clear();
}
END_TEST

static void log1p_at(struct worst *log, struct worst *inverse, double u)
{
    const struct f64_log1p got = f64_log1p(u);
    mpfr_set_d(exact, u, MPFR_RNDN);
    mpfr_log1p(exact, exact, MPFR_RNDN);
    compare(log, got.log, 0, u);
    mpfr_set_d(exact, u, MPFR_RNDN);
    mpfr_add_ui(exact, exact, 1, MPFR_RNDN);
    mpfr_ui_div(exact, 1, exact, MPFR_RNDN);
    compare(inverse, got.inverse, 0, u);
}

START_TEST(logarithm_of_one_plus)
{
    exact_init();
    struct worst log = {0, 0}, inverse = {0, 0};
    for (uint64_t i = 0; i < points; ++i) {
        log1p_at(&log, &inverse, point(i, 0, 1));
        log1p_at(&log, &inverse, exp2(uniform(-600, 0)));
        log1p_at(&log, &inverse, exp2(uniform(-62, -58)));
    }
    for (int k = -1000; k <= 1000; ++k) {
        log1p_at(&log, &inverse, 0.4142 * (1 + k * 0x1p-52));
        log1p_at(&log, &inverse, 0x1p-60 * (1 + k * 0x1p-53));
    }
    log1p_at(&log, &inverse, 1);
    log1p_at(&log, &inverse, 0);
    judge("f64_log1p", &log, 0x1p-50);
    judge("1 / (1 + u) of f64_log1p", &inverse, 0x1p-50);
    exact_clear();
}
END_TEST

static void loss_at(struct worst *small, struct worst *large, double z, double u)
{
    const double e = XENT_K * row_exp(z), others = u * e;
    mpfr_set_d(exact, others, MPFR_RNDN);
    mpfr_div_d(exact, exact, e, MPFR_RNDN);
    mpfr_log1p(exact, exact, MPFR_RNDN);
    compare(u < 0.4142 ? small : large, row_finish(others, e, z).loss, 0, u);
}

/* A loss whose target has most of the sum is as exact as its log1p, wherever the row's logits are; any other one is a
   difference of numbers up to 512, each rounded to 2^-44, and has the error of e_y, too. */
START_TEST(losses)
{
    exact_init();
    struct worst small = {0, 0}, large = {0, 0};
    for (uint64_t i = 0; i < points; ++i) {
        loss_at(&small, &large, uniform(-512, 512), point(i, 0, 0.4142 * (1 - 0x1p-50)));
        loss_at(&small, &large, uniform(-512, 512), exp2(uniform(-100, 100)));
    }
    judge("losses up to 0.34", &small, 0x1p-37);
    judge("losses above", &large, 0x1p-36);
    exact_clear();
}
END_TEST

/* Rounding to float as the language does it, which with the usual control bits is gradual too. */
START_TEST(conversions)
{
    for (uint64_t i = 0; i < points; ++i) {
        double v = uniform(-2, 2) * exp2(uniform(-160, 127));
        if (i % 3 == 0) /* ties, and their neighbours */
            v = (double)(float)v * (1 + 0x1p-24 * rint(uniform(0, 4)) + 0x1p-52 * rint(uniform(-1, 1)));
        if (i % 7 == 0)
            v = (rint(uniform(-300, 300)) + 0.5) * 0x1p-149;
        const float f = v == 0 ? 0 : (float)v; /* a zero is +0 */
        if (f32_bits(f64_to_f32(v)) != f32_bits(f))
            ck_abort_msg("%a becomes %a", v, (double)f64_to_f32(v));
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--all") == 0)
        points = 1 << 23;
    const char *seed = getenv("XENT_TEST_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : 88172645463325252u;
    printf("# seed %llu, %llu points\n", (unsigned long long)random_state, (unsigned long long)points);
    fflush(stdout);

    TCase *tests = tcase_create("f64");
    tcase_add_test(tests, exponential);
    tcase_add_test(tests, inverse_hyperbolic_tangent);
    tcase_add_test(tests, logarithm);
    tcase_add_test(tests, logarithm_of_one_plus);
    tcase_add_test(tests, losses);
    tcase_add_test(tests, conversions);
    return run_case("f64", tests);
}
