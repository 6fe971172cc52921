/*
 * Double logits: the same bits from every kernel, layout, place and executor, results by their definition.
 * f64_corners.c has special values and statuses, f64_accuracy.c the errors to a fraction of an ULP.
 */
#include "f64.h"
#include "f64_problem.h"
#include "fpcontrol.h"
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

static void backwards(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context;
    while (tasks-- > 0)
        task(argument, tasks);
}

static void expect_same(const char *what, const double *got, const double *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (double_bits(got[i]) != double_bits(expected[i]))
            fail_case("%s %zu: got %a, expected %a", what, i, got[i], expected[i]);
}

static void expect_same_results(const struct f64 *p, const struct f64_results *got, const struct f64_results *expected,
                                bool gradients)
{
    expect_same("loss", got->loss, expected->loss, p->reduction == XENT_NONE ? f64_rows(p) : 1);
    expect_same("lse", got->lse, expected->lse, f64_rows(p));
    expect_double("denominator", got->denominator, expected->denominator);
    ck_assert_uint_eq(got->kept, expected->kept);
    if (gradients)
        expect_same("gradient", got->grad, expected->grad, f64_rows(p) * p->classes);
}

static void name_problem(const char *what, size_t repeat, const struct f64 *p)
{
    name_case("%s, repeat %zu: %zu x %zu x %zu, targets %d, %zu labels%s, smoothing %g%s%s%s, reduction %d", what,
              repeat, p->outer, p->classes, p->inner, (int)p->type, p->labels,
              p->probabilities ? " with probabilities" : "", p->smoothing, p->class_weights ? ", class weights" : "",
              p->row_weights ? ", row weights" : "", p->dloss ? ", dloss" : "", (int)p->reduction);
}

/* The scalar kernel with packed arrays on one thread, then every kernel in layouts of all kinds. */
static void check_bits(const struct f64 *p, struct rng *rng, struct f64_results *expected)
{
    struct f64_results got = f64_results_new(p);
    const uint64_t control = fp_control_get();
    use_kernel("scalar");
    f64_run(p, &(struct f64_layout){0}, rng, expected);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (int turn = 0; turn < 4; turn++) {
            const xent_executor executor = {backwards, NULL, 1 + rng_below(rng, 20)};
            const struct f64_layout layout = {.strided = rng_chance(rng, 0.6),
                                              .in_place = turn % 2 == 1,
                                              .forward_only = turn == 2,
                                              .executor = rng_chance(rng, 0.5) ? &executor : NULL};
            const uint64_t own = control | (rng_chance(rng, 0.5) ? fp_control_flush : 0) |
                                 (rng_chance(rng, 0.2) ? fp_control_round_up : 0);
            name_detail("%s%s%s%s%s%s", *isa, layout.strided ? ", strided" : "", layout.in_place ? ", in place" : "",
                        layout.forward_only ? ", forward" : "", layout.executor ? ", on an executor" : "",
                        own != control ? ", control bits" : "");
            fp_control_set(own);
            f64_run(p, &layout, rng, &got);
            const uint64_t after = fp_control_get();
            fp_control_set(control);
            if ((after & fp_control_mask) != (own & fp_control_mask))
                fail_case("the control bits were changed");
            expect_same_results(p, &got, expected, !layout.forward_only);
        }
    }
    f64_results_free(&got);
}

/* The formulas of the header in long double, with no term negative unless a share is. */
static void check_row(const struct f64 *p, size_t i, const struct f64_results *r, double divisor, bool negative)
{
    size_t top = 0;
    for (size_t j = 1; j < p->classes; j++)
        top = p->x[f64_at(p, i, p->classes, j)] > p->x[f64_at(p, i, p->classes, top)] ? j : top;
    const long double m = (long double)p->x[f64_at(p, i, p->classes, top)];
    long double others = 0, total = 0, loss = 0, size = 0, parts = 0;
    for (size_t j = 0; j < p->classes; j++)
        others += j == top ? 0 : expl((long double)p->x[f64_at(p, i, p->classes, j)] - m);
    const long double log_sum = log1pl(others);
    for (size_t j = 0; j < p->classes; j++) {
        const long double t = (long double)f64_share(p, i, j);
        const long double term = t * (log_sum + (m - (long double)p->x[f64_at(p, i, p->classes, j)]));
        total += t;
        loss += term;
        size += t == 0 ? 0 : fabsl(term) * (long double)f64_share_size(p, i, j) / fabsl(t);
        parts += (long double)f64_share_size(p, i, j);
    }
    const double lse_error = fabs((double)((long double)r->lse[i] - (m + log_sum)));
    if (!(lse_error <= 0x1p-53 + 0.5 * DBL_EPSILON * fabs((double)(m + log_sum))))
        fail_case("lse of row %zu: got %a, exact %La", i, r->lse[i], m + log_sum);
    if (p->reduction == XENT_NONE && !(fabsl((long double)r->loss[i] - loss) <= 8 * (0x1p-53L * size + 0x1p-1074L)))
        fail_case("loss of row %zu: got %a, exact %La", i, r->loss[i], loss);
    const long double scale = (p->dloss ? (long double)p->dloss[i] : 1) / (long double)divisor;
    for (size_t j = 0; j < p->classes; j++) {
        const long double e = expl((long double)p->x[f64_at(p, i, p->classes, j)] - m);
        const long double given = scale * total * e / (1 + others), taken = scale * (long double)f64_share(p, i, j);
        const double got = r->grad[f64_at(p, i, p->classes, j)];
        long double unit = fabsl(given) > fabsl(taken) ? fabsl(given) : fabsl(taken);
        if (negative) /* sums of both signs are no better than their terms */
            unit = fabsl(scale) * ((long double)f64_share_size(p, i, j) + parts * e / (1 + others));
        if (!(fabsl((long double)got - (given - taken)) <= 8 * (0x1p-53L * unit + 0x1p-1074L)))
            fail_case("gradient of class %zu of row %zu: got %a, exact %La - %La", j, i, got, given, taken);
    }
}

static void check_definition(const struct f64 *p, const struct f64_results *r, bool negative)
{
    double denominator = 0;
    size_t kept = 0;
    for (size_t i = 0; i < f64_rows(p); i++) {
        if (f64_ignores(p, i)) {
            expect_double("an ignored row's lse", r->lse[i], 0);
            if (p->reduction == XENT_NONE)
                expect_double("an ignored row's loss", r->loss[i], 0);
            for (size_t j = 0; j < p->classes; j++)
                expect_double("an ignored row's gradient", r->grad[f64_at(p, i, p->classes, j)], 0);
            continue;
        }
        ++kept;
        const bool by_class = p->class_weights && p->type != XENT_PROBABILITIES && p->labels == 1 && !p->probabilities;
        denominator += (p->row_weights ? p->row_weights[i] : 1) *
                       (by_class ? p->class_weights[p->targets[f64_at(p, i, 1, 0)]] : 1);
    }
    ck_assert_uint_eq(r->kept, kept);
    if (!(fabs(r->denominator - denominator) <= 1e-12 * (1 + fabs(denominator))))
        fail_case("denominator: got %a, expected %a", r->denominator, denominator);
    const double divisor = p->reduction != XENT_MEAN ? 1 : p->normalizer > 0 ? p->normalizer : r->denominator;
    for (size_t i = 0; i < f64_rows(p); i++)
        if (!f64_ignores(p, i) && divisor != 0)
            check_row(p, i, r, divisor, negative);
}

static struct f64 random_problem(struct rng *rng, size_t repeat)
{
    const size_t classes = repeat % 20 == 19 ? 2000 + rng_below(rng, 7000) : 1 + rng_below(rng, repeat % 2 ? 40 : 300);
    const size_t outer = classes > 1000 ? 1 + rng_below(rng, 3) : 1 + rng_below(rng, repeat % 3 ? 12 : 40);
    const size_t inner = rng_chance(rng, 0.5)   ? 1
                         : rng_chance(rng, 0.5) ? 1 + rng_below(rng, 5)
                                                : 20 + rng_below(rng, 30);
    return f64_new(inner > 5 ? 1 + outer % 3 : outer, classes, inner);
}

START_TEST(definition)
{
    static const double scales[] = {0.1, 1, 3, 30, 3, 300}, offsets[] = {0, 0, 0, 0, 1e4, -700};
    struct rng rng = rng_stream(1100);
    for (size_t repeat = 0; repeat < scaled(1200); repeat++) {
        struct f64 p = random_problem(&rng, repeat);
        struct f64_results r = f64_results_new(&p);
        const bool negative = rng_chance(&rng, 0.2);
        f64_fill(&p, &rng, scales[repeat % 6], offsets[repeat % 6], negative);
        name_problem("definition", repeat, &p);
        check_bits(&p, &rng, &r);
        check_definition(&p, &r, negative);
        f64_free(&p);
        f64_results_free(&r);
    }
}
END_TEST

static const double edges[] = {0.0,
                               -0.0,
                               0x1p-1074,
                               -0x1p-1074,
                               DBL_MIN,
                               -1e-310,
                               1e-20,
                               1.0,
                               -1.0,
                               0.5,
                               708.3,
                               -708.5,
                               -745.2,
                               709.9,
                               -1249.9,
                               -1250.1,
                               1e4,
                               -1e10,
                               1e300,
                               -1e300,
                               DBL_MAX,
                               -DBL_MAX,
                               (double)INFINITY,
                               (double)-INFINITY,
                               (double)NAN,
                               1e308,
                               -1e308};

enum { EDGES = sizeof edges / sizeof edges[0] };

static void put_edges(struct rng *rng, double *array, size_t count, double chance)
{
    for (size_t i = 0; array && i < count; i++)
        if (rng_chance(rng, chance))
            array[i] = edges[rng_below(rng, EDGES)];
}

/* A problem whose logits, weights, factors and probabilities are of any kind. */
static struct f64 strange_problem(struct rng *rng, size_t repeat)
{
    struct f64 p = random_problem(rng, repeat);
    const double strange = rng_chance(rng, 0.3) ? 0.5 : 0.02, masked = rng_chance(rng, 0.3) ? 0.5 : 0;
    f64_fill(&p, rng, 3, 0, rng_chance(rng, 0.5));
    for (size_t i = 0; i < f64_rows(&p) * p.classes; i++)
        if (rng_chance(rng, strange))
            p.x[i] = rng_chance(rng, 0.3) ? rng_uniform(rng, -1300, 0) : edges[rng_below(rng, EDGES)];
        else if (rng_chance(rng, masked))
            p.x[i] = (double)-INFINITY;
    for (size_t i = 0; i < f64_rows(&p); i++)
        if (rng_chance(rng, 0.1))
            p.x[f64_at(&p, i, p.classes, 0)] = (double)NAN;
    put_edges(rng, p.row_weights, f64_rows(&p), 0.2);
    put_edges(rng, p.dloss, f64_rows(&p), 0.2);
    put_edges(rng, p.probabilities, f64_rows(&p) * (p.type == XENT_PROBABILITIES ? p.classes : p.labels),
              rng_chance(rng, 0.5) ? 0.05 : 0);
    return p;
}

/* Of those no result is promised but that all kernels have the same. */
START_TEST(anything)
{
    struct rng rng = rng_stream(1101);
    for (size_t repeat = 0; repeat < scaled(1200); repeat++) {
        struct f64 p = strange_problem(&rng, repeat);
        struct f64_results r = f64_results_new(&p);
        name_problem("anything", repeat, &p);
        check_bits(&p, &rng, &r);
        f64_free(&p);
        f64_results_free(&r);
    }
}
END_TEST

/* Classes that count nothing, labels among them: of these the gradient is what smoothing leaves. */
START_TEST(weightless)
{
    struct rng rng = rng_stream(1106);
    for (size_t repeat = 0; repeat < scaled(60); repeat++) {
        struct f64 p = f64_new(20, 1 + rng_below(&rng, repeat % 2 ? 12 : 60), 1);
        struct f64_results r = f64_results_new(&p);
        f64_fill(&p, &rng, 3, 0, false);
        if (!p.class_weights)
            p.class_weights = allocate(p.classes * sizeof(double));
        for (size_t j = 0; j < p.classes; j++)
            p.class_weights[j] = rng_chance(&rng, 0.5) ? 0 : rng_uniform(&rng, 0, 5);
        if (p.type == XENT_PROBABILITIES)
            p.type = XENT_LABELS_I32;
        free(p.probabilities);
        p.probabilities = NULL;
        p.labels = 1;
        p.smoothing = 0.3;
        name_problem("weightless", repeat, &p);
        check_bits(&p, &rng, &r);
        check_definition(&p, &r, false);
        f64_free(&p);
        f64_results_free(&r);
    }
}
END_TEST

/* What an ignored row holds makes no difference, and neither do the rows around a row. */
START_TEST(apart)
{
    struct rng rng = rng_stream(1103);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        for (size_t repeat = 0; repeat < scaled(200); repeat++) {
            struct f64 p = repeat % 2 ? strange_problem(&rng, repeat / 2) : random_problem(&rng, repeat / 2);
            struct f64_results whole = f64_results_new(&p), other = f64_results_new(&p);
            if (repeat % 2 == 0)
                f64_fill(&p, &rng, 3, 0, false);
            p.reduction = XENT_NONE;
            use_kernel(*isa);
            name_problem("rows apart", repeat, &p);
            f64_run(&p, &(struct f64_layout){0}, &rng, &whole);
            for (size_t i = 0; i < f64_rows(&p); i++)
                for (size_t j = 0; f64_ignores(&p, i) && j < p.classes; j++)
                    p.x[f64_at(&p, i, p.classes, j)] = (double)NAN;
            f64_run(&p, &(struct f64_layout){0}, &rng, &other);
            expect_same_results(&p, &other, &whole, true);
            struct f64 part = p;
            part.outer = 1;
            for (size_t o = 0; o < p.outer; o++) {
                struct f64_results one = f64_results_new(&part);
                const size_t rows = p.inner, first = o * rows;
                part.x = p.x + first * p.classes;
                part.targets = p.targets + first * p.labels;
                part.probabilities =
                    p.probabilities ? p.probabilities + first * (p.type == XENT_PROBABILITIES ? p.classes : p.labels)
                                    : NULL;
                part.row_weights = p.row_weights ? p.row_weights + first : NULL;
                part.dloss = p.dloss ? p.dloss + first : NULL;
                f64_run(&part, &(struct f64_layout){0}, &rng, &one);
                expect_same("loss of a part", one.loss, whole.loss + first, rows);
                expect_same("lse of a part", one.lse, whole.lse + first, rows);
                expect_same("gradient of a part", one.grad, whole.grad + first * p.classes, rows * p.classes);
                f64_results_free(&one);
            }
            f64_results_free(&whole);
            f64_results_free(&other);
            f64_free(&p);
        }
    }
}
END_TEST

/* (loss(x + h) - loss(x - h)) / 2h is the gradient to h^2. */
START_TEST(finite_differences)
{
    const double h = 1e-5;
    struct rng rng = rng_stream(1104);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        for (size_t repeat = 0; repeat < scaled(100); repeat++) {
            struct f64 p = f64_new(1 + rng_below(&rng, 3), 1 + rng_below(&rng, 12), 1 + rng_below(&rng, 2));
            struct f64_results r = f64_results_new(&p), side = f64_results_new(&p);
            f64_fill(&p, &rng, 2, 0, false);
            free(p.dloss);
            p.dloss = NULL;
            p.reduction = rng_chance(&rng, 0.5) ? XENT_SUM : XENT_MEAN;
            use_kernel(*isa);
            name_problem("finite differences", repeat, &p);
            f64_run(&p, &(struct f64_layout){0}, &rng, &r);
            const size_t count = r.denominator > 0 ? f64_rows(&p) * p.classes : 0;
            for (size_t e = 0; e < count; e++) {
                const double x = p.x[e];
                double loss[2];
                for (int up = 0; up < 2; up++) {
                    p.x[e] = x + (up ? h : -h);
                    f64_run(&p, &(struct f64_layout){.forward_only = true}, &rng, &side);
                    loss[up] = side.loss[0];
                }
                p.x[e] = x;
                const double slope = (loss[1] - loss[0]) / (2 * h);
                if (!(fabs(slope - r.grad[e]) <= 1e-8))
                    fail_case("element %zu: gradient %.12g, slope %.12g", e, r.grad[e], slope);
            }
            f64_results_free(&r);
            f64_results_free(&side);
            f64_free(&p);
        }
    }
}
END_TEST

/* The same logits as floats: results within the bounds that those have. */
START_TEST(as_floats)
{
    enum { ROWS = 20, CLASSES = 300 };
    static const float scales[] = {0.1f, 1, 3, 30}, offsets[] = {0, 1e4f};
    struct rng rng = rng_stream(1105);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        for (size_t repeat = 0; repeat < scaled(80); repeat++) {
            float x[ROWS * CLASSES], grad[ROWS * CLASSES], loss[ROWS];
            double wide[ROWS * CLASSES], wide_grad[ROWS * CLASSES], wide_loss[ROWS];
            int32_t targets[ROWS];
            const size_t classes = 1 + rng_below(&rng, CLASSES);
            for (size_t e = 0; e < ROWS * classes; e++)
                wide[e] = (double)(x[e] = rng_normal(&rng) * scales[repeat % 4] + offsets[repeat / 4 % 2]);
            for (size_t i = 0; i < ROWS; i++)
                targets[i] = (int32_t)rng_below(&rng, classes);
            use_kernel(*isa);
            name_case("as floats, %s, repeat %zu, %zu classes", *isa, repeat, classes);
            xent_problem problem = XENT_PROBLEM_INIT;
            problem.outer = ROWS;
            problem.classes = classes;
            problem.targets = targets;
            problem.logits = x;
            problem.grad = grad;
            problem.loss = loss;
            problem.reduction = XENT_NONE;
            expect_status("floats", xent_cross_entropy(&problem), XENT_OK);
            problem.dtype = XENT_F64;
            problem.logits = wide;
            problem.grad = wide_grad;
            problem.loss = wide_loss;
            expect_status("doubles", xent_cross_entropy(&problem), XENT_OK);
            for (size_t i = 0; i < ROWS; i++)
                expect_within("loss", loss[i], wide_loss[i], 2);
            for (size_t e = 0; e < ROWS * classes; e++)
                expect_within("gradient", grad[e], wide_grad[e], 3);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("f64");
    tcase_add_test(add_case(suite, "definition"), definition);
    tcase_add_test(add_case(suite, "anything"), anything);
    tcase_add_test(add_case(suite, "weightless classes"), weightless);
    tcase_add_test(add_case(suite, "rows apart"), apart);
    tcase_add_test(add_case(suite, "finite differences"), finite_differences);
    tcase_add_test(add_case(suite, "as floats"), as_floats);
    add_f64_corners(suite);
    return run_suite(suite);
}
