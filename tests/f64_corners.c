/* Double logits: what is about single rows and small calls, rather than about random problems: special values, shares
   and factors near what a double holds, statuses. */
#include "f64.h"

#include "f64_problem.h"
#include "support.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Smoothed labels whose class has nearly all of the probability and all of the weight: a loss of 10^-290 is no 0. */
START_TEST(sure_and_smoothed)
{
    struct rng rng = rng_stream(1107);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t repeat = 0; repeat < 60; repeat++) {
            enum { SURE_ROWS = 16, SURE_CLASSES = 5 };
            double x[SURE_ROWS * SURE_CLASSES], loss[SURE_ROWS], grad[SURE_ROWS * SURE_CLASSES];
            const double w[SURE_CLASSES] = {rng_uniform(&rng, 0.5, 2), 0, 0, 0, 0};
            const int32_t targets[SURE_ROWS] = {0};
            xent_problem p = XENT_PROBLEM_INIT;
            p.dtype = XENT_F64;
            p.outer = 1 + rng_below(&rng, SURE_ROWS);
            p.classes = SURE_CLASSES;
            p.logits = x;
            p.grad = grad;
            p.targets = targets;
            p.class_weights = w;
            p.label_smoothing = repeat % 3 == 0 ? 1 : rng_uniform(&rng, 0, 1);
            p.reduction = XENT_NONE;
            p.loss = loss;
            for (size_t i = 0; i < SURE_ROWS * SURE_CLASSES; i++)
                x[i] = i % SURE_CLASSES == 0 ? 0 : rng_uniform(&rng, -705, -640);
            name_case("%s: sure and smoothed, repeat %zu: %zu rows, smoothing %g", *isa, repeat, p.outer,
                      p.label_smoothing);
            expect_status("call", xent_cross_entropy(&p), XENT_OK);
            const long double a = (long double)p.label_smoothing;
            const long double share = (long double)w[0] * (a / SURE_CLASSES + (1 - a));
            for (size_t i = 0; i < p.outer; i++) {
                long double others = 0;
                for (size_t j = 1; j < SURE_CLASSES; j++)
                    others += expl((long double)x[i * SURE_CLASSES + j]);
                const long double exact = share * log1pl(others);
                if (!(fabsl((long double)loss[i] - exact) <= 8 * 0x1p-53L * exact))
                    fail_case("loss %zu: got %a, exact %La", i, loss[i], exact);
            }
        }
    }
}
END_TEST

/* Huge probabilities under a factor that is no double: gradients are those under a factor of 1, times that. */
START_TEST(factors_of_no_double)
{
    struct rng rng = rng_stream(1108);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t repeat = 0; repeat < 40; repeat++) {
            enum { FACTOR_ROWS = 16, FACTOR_CLASSES = 70 };
            static double x[FACTOR_ROWS * FACTOR_CLASSES], q[FACTOR_ROWS * FACTOR_CLASSES],
                usual[FACTOR_ROWS * FACTOR_CLASSES], tiny[FACTOR_ROWS * FACTOR_CLASSES];
            const double one = 1, dloss = 0x1p-1000;
            const xent_strides same = {0, 0, 0};
            xent_problem p = XENT_PROBLEM_INIT;
            p.dtype = XENT_F64;
            p.outer = 1 + rng_below(&rng, FACTOR_ROWS);
            p.classes = 1 + rng_below(&rng, FACTOR_CLASSES);
            p.logits = x;
            p.grad = usual;
            p.target_type = XENT_PROBABILITIES;
            p.targets = q;
            p.dloss = &one;
            p.dloss_strides = &same;
            p.normalizer = 1;
            const size_t numbers = p.outer * p.classes;
            for (size_t i = 0; i < numbers; i++) {
                x[i] = (double)rng_normal(&rng);
                q[i] = rng_uniform(&rng, 0.1, 1) * 0x1p200;
            }
            name_case("%s: factors, repeat %zu: %zu rows of %zu classes", *isa, repeat, p.outer, p.classes);
            expect_status("a factor of 1", xent_cross_entropy(&p), XENT_OK);
            p.grad = tiny;
            p.dloss = &dloss;
            p.normalizer = 0x1p127;
            expect_status("a factor of 2^-1127", xent_cross_entropy(&p), XENT_OK);
            for (size_t i = 0; i < numbers; i++)
                expect_double("gradient", tiny[i], ldexp(usual[i], -1127));
        }
    }
}
END_TEST

/* One row of plain labels, summed: its loss, gradient and lse. */
static double one_row(const double *x, size_t classes, int32_t target, double *grad, double *lse)
{
    xent_problem problem = XENT_PROBLEM_INIT;
    double loss = -1;
    problem.dtype = XENT_F64;
    problem.outer = 1;
    problem.classes = classes;
    problem.logits = x;
    problem.grad = grad;
    problem.targets = &target;
    problem.reduction = XENT_SUM;
    problem.loss = &loss;
    problem.lse = lse;
    expect_status("one row", xent_cross_entropy(&problem), XENT_OK);
    return loss;
}

START_TEST(special_values)
{
    const double inf = (double)INFINITY;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        double grad[4], lse;
        use_kernel(*isa);
        name_case("special values, %s", *isa);
        const double bad[][4] = {{0, 1, (double)NAN, 2}, {0, inf, 2, 3}, {-inf, -inf, -inf, -inf}, {inf, -inf, 0, 0}};
        for (size_t k = 0; k < 4; k++) {
            expect_double("a bad row's loss", one_row(bad[k], 4, 1, grad, &lse), (double)NAN);
            expect_double("a bad row's lse", lse, (double)NAN);
            for (int j = 0; j < 4; j++)
                expect_double("a bad row's gradient", grad[j], (double)NAN);
        }
        const double masked[4] = {1, -inf, -inf, 1};
        ck_assert(double_ulps(one_row(masked, 4, 0, grad, &lse), logl(2.0L)) <= 1);
        expect_double("the target's gradient", grad[0], -0.5);
        expect_double("a masked class's gradient", grad[1], 0);
        expect_double("the other class's gradient", grad[3], 0.5);
        expect_double("a masked target's loss", one_row(masked, 4, 1, grad, &lse), inf);
        expect_double("a masked target's gradient", grad[1], -1);
        const double only[1] = {-DBL_MAX};
        expect_double("the loss of the only class", one_row(only, 1, 0, grad, &lse), 0);
        expect_double("the gradient of the only class", grad[0], 0);
        expect_double("its lse", lse, -DBL_MAX);
        /* Losses far below an ULP of 1, down to the smallest. */
        const double sure[2] = {0, 700};
        ck_assert(double_ulps(one_row(sure, 2, 1, grad, &lse), expl(-700.0L)) <= 1);
        ck_assert(double_ulps(grad[1], -expl(-700.0L)) <= 1);
        const double surest[2] = {0, 744.4};
        expect_double("the smallest loss", one_row(surest, 2, 1, grad, &lse), 0x1p-1074);
        expect_double("the smallest gradient", grad[0], 0x1p-1074);
        /* Shares whose products with a scale are beyond what a double holds before the scale's exponent comes to them.
         */
        for (size_t rows = 3; rows <= 12; rows += 9) {
            double huge[12][3], huge_grad[12][3], huge_loss;
            xent_problem problem = XENT_PROBLEM_INIT;
            for (size_t i = 0; i < rows * 3; i++) {
                huge[i / 3][i % 3] = i % 3 == 0 ? 1.7e308 : i % 3 == 1 ? -1.6e308 : 0;
                huge_grad[i / 3][i % 3] = 0;
            }
            problem.dtype = XENT_F64;
            problem.outer = rows;
            problem.classes = 3;
            problem.logits = problem.grad = huge_grad;
            problem.targets = huge;
            problem.target_type = XENT_PROBABILITIES;
            problem.loss = &huge_loss;
            expect_status("huge shares", xent_cross_entropy(&problem), XENT_OK);
            const long double exact = ((1.7e308L - 1.6e308L) / 3 + 1.6e308L) / (long double)rows;
            for (size_t i = 0; i < rows; i++)
                ck_assert(double_ulps(huge_grad[i][1], exact) <= 4);
        }
        /* A difference that no double has: 1e16 - 1.5 is between two. */
        const double coarse[2] = {1e16, 1.5};
        expect_double("the loss of a distant target", one_row(coarse, 2, 1, grad, &lse), 1e16 - 2);
    }
}
END_TEST

/* A dloss of NaN makes NaN of a row's gradient, also of entries that would be 0: of the only class, masked ones, and a
   target that has all of the probability. */
START_TEST(factors_of_nan)
{
    const double inf = (double)INFINITY, rows[][3] = {{5}, {1, -inf}, {-inf, 1}, {1, 2, -inf}, {900, 0, -inf}};
    const size_t classes[] = {1, 2, 2, 3, 3};
    const int32_t labels[] = {0, 0, 1, 0, 0};
    const double dloss = (double)NAN;
    const xent_strides same = {0, 0, 0};
    for (const char *const *isa = xent_isas(); *isa; isa++)
        for (size_t k = 0; k < sizeof labels / sizeof labels[0]; k++)
            for (size_t count = 1; count <= 17; count += 8)
                for (int soft = 0; soft < 2; soft++) {
                    double x[17 * 3], q[17 * 3] = {0}, grad[17 * 3];
                    int32_t targets[17];
                    for (size_t i = 0; i < count; i++) {
                        memcpy(x + i * classes[k], rows[k], classes[k] * sizeof(double));
                        targets[i] = labels[k];
                        q[i * classes[k] + (size_t)labels[k]] = 1;
                    }
                    use_kernel(*isa);
                    name_case("%s, row %zu, %zu times%s", *isa, k, count, soft ? ", probabilities" : "");
                    xent_problem problem = XENT_PROBLEM_INIT;
                    problem.dtype = XENT_F64;
                    problem.outer = count;
                    problem.classes = classes[k];
                    problem.logits = x;
                    problem.grad = grad;
                    problem.target_type = soft ? XENT_PROBABILITIES : XENT_LABELS_I32;
                    problem.targets = soft ? (const void *)q : targets;
                    problem.dloss = &dloss;
                    problem.dloss_strides = &same;
                    expect_status("a dloss of NaN", xent_cross_entropy(&problem), XENT_OK);
                    for (size_t e = 0; e < count * classes[k]; e++)
                        expect_double("a gradient", grad[e], (double)NAN);
                }
}
END_TEST

START_TEST(statuses)
{
    double x[12] = {0}, loss = 5, lse[3] = {5, 5, 5};
    const int32_t targets[3] = {0, 4, 1};
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        size_t bad = 77;
        use_kernel(*isa);
        name_case("statuses, %s", *isa);
        xent_problem problem = XENT_PROBLEM_INIT;
        problem.dtype = XENT_F64;
        problem.outer = 3;
        problem.classes = 4;
        problem.logits = x;
        problem.targets = targets;
        problem.loss = &loss;
        problem.lse = lse;
        problem.error_row = &bad;
        expect_status("a bad target", xent_cross_entropy(&problem), XENT_ERR_TARGET);
        ck_assert_uint_eq(bad, 1);
        problem.lse = x + 11; /* the last element, which only doubles reach */
        expect_status("lse in the logits", xent_cross_entropy(&problem), XENT_ERR_OVERLAP);
        problem.lse = NULL;
        problem.outer = 1;
        problem.grad = x + 3;
        expect_status("grad in the logits", xent_cross_entropy(&problem), XENT_ERR_OVERLAP);
        problem.grad = NULL;
        problem.outer = PTRDIFF_MAX / 4 / 4;
        expect_status("more than there can be", xent_cross_entropy(&problem), XENT_ERR_SIZE);
        problem.outer = 1;
        problem.dtype = (xent_dtype)2;
        expect_status("an unknown type", xent_cross_entropy(&problem), XENT_ERR_OPTION);
        problem.dtype = XENT_F64;
        problem.outer = 0;
        expect_double("nothing written", loss, 5);
        expect_double("nothing written", lse[0], 5);
        expect_status("no rows", xent_cross_entropy(&problem), XENT_OK);
        ck_assert(isnan(loss));
        loss = 5;
    }
}
END_TEST

/* A weight of a class, or of a row, of which nothing may get lost: half of the smallest number has no sign, a sure row
   of a huge weight has a loss, and what is 0 before an infinite factor stays 0. */
START_TEST(ends_of_doubles)
{
    const double inf = (double)INFINITY;
    const double even[2] = {0, 0}, far[2] = {0, -1100}, masked[2] = {0, -inf}, three[3] = {0, 0.5, 1};
    const double hot[3] = {1, 0, 0}, weights[3] = {-0.0, 1, 1}, small = -0x1p-1074, weight = 1e308;
    const int32_t first = 0;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        double grad[3], loss;
        xent_problem p = XENT_PROBLEM_INIT;
        use_kernel(*isa);
        name_case("ends of doubles, %s", *isa);
        p.dtype = XENT_F64;
        p.outer = 1;
        p.classes = 2;
        p.logits = even;
        p.grad = grad;
        p.targets = &first;
        p.dloss = &small;
        p.reduction = XENT_NONE;
        p.loss = &loss;
        expect_status("half of the smallest", xent_cross_entropy(&p), XENT_OK);
        expect_double("the label's gradient", grad[0], 0);
        expect_double("the other's gradient", grad[1], 0);
        p.dloss = NULL;
        p.logits = far;
        p.row_weights = &weight;
        expect_status("a sure row", xent_cross_entropy(&p), XENT_OK);
        ck_assert(double_ulps(loss, 1e308L * expl(-1100.0L)) <= 4);
        ck_assert(double_ulps(grad[1], 1e308L * expl(-1100.0L)) <= 4);
        p.row_weights = NULL;
        p.dloss = &inf;
        p.logits = masked;
        expect_status("all of a row, times infinity", xent_cross_entropy(&p), XENT_OK);
        expect_double("the label's gradient", grad[0], 0);
        p.classes = 3;
        p.logits = three;
        p.class_weights = weights;
        p.reduction = XENT_MEAN;
        expect_status("a mean over no weight, times infinity", xent_cross_entropy(&p), XENT_OK);
        for (int j = 0; j < 3; j++)
            expect_double("its gradient", grad[j], 0);
        p.reduction = XENT_NONE;
        p.class_weights = NULL;
        p.target_type = XENT_PROBABILITIES;
        p.targets = hot;
        expect_status("one-hot, times infinity", xent_cross_entropy(&p), XENT_OK);
        expect_double("the gradient of the class", grad[0], -inf);
        expect_double("the gradient of another", grad[1], inf);
    }
}
END_TEST

/* What a sum of weights loses counts. */
START_TEST(small_weights_add_up)
{
    enum { ROWS = 1000 };
    static double x[ROWS * 2];
    static int32_t targets[ROWS];
    const double halves[2] = {1, 0x1p-53};
    double denominator, loss;
    for (size_t i = 0; i < ROWS; i++)
        targets[i] = i > 0;
    xent_problem p = XENT_PROBLEM_INIT;
    p.dtype = XENT_F64;
    p.outer = ROWS;
    p.classes = 2;
    p.logits = x;
    p.targets = targets;
    p.class_weights = halves;
    p.loss = &loss;
    p.denominator = &denominator;
    name_case("1 and 999 times half an ULP of it");
    expect_status("mean", xent_cross_entropy(&p), XENT_OK);
    expect_double("denominator", denominator, 1 + 999 * 0x1p-53);
}
END_TEST

void add_f64_corners(Suite *suite)
{
    tcase_add_test(add_case(suite, "sure and smoothed"), sure_and_smoothed);
    tcase_add_test(add_case(suite, "factors of no double"), factors_of_no_double);
    tcase_add_test(add_case(suite, "special values"), special_values);
    tcase_add_test(add_case(suite, "factors of NaN"), factors_of_nan);
    tcase_add_test(add_case(suite, "ends of doubles"), ends_of_doubles);
    tcase_add_test(add_case(suite, "small weights"), small_weights_add_up);
    tcase_add_test(add_case(suite, "statuses"), statuses);
}
