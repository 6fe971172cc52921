/*
 * Binary cross entropy with logits: what a call means. bce_status.c has the errors, bce_bits.c what the results must
 * not depend on.
 */
#include "bce.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* Every test here runs once per kernel: its loop index is that of the kernel. */
static void begin(const char *name, int kernel)
{
    use_kernel(xent_isas()[kernel]);
    name_case("%s, %s", name, xent_isas()[kernel]);
}

/* One element; its gradient too. */
static float one(float x, float t, float w, float p, float *grad)
{
    const struct bce problem = {1, 1, &x, &t, &w, &p, true, true};
    float loss, forward;
    bce_call(&problem, XENT_NONE, &loss, grad);
    bce_call(&problem, XENT_NONE, &forward, NULL);
    expect_bits("loss of a forward", forward, loss);
    return loss;
}

/*
 * What torch.nn.BCEWithLogitsLoss gives in float64, by its formula in Python:
 *
 *     loss = w * ((1 - t) * x + (1 + (p - 1) * t) * (log1p(exp(-abs(x))) + max(-x, 0)))
 *     grad = w * ((1 - t) * s - p * t * (1 - s)),  s = 1 / (1 + exp(-x))
 */
START_TEST(pytorch)
{
    static float x[] = {0.5f, -1.25f, 2.0f, -3.5f, 0.0f, 6.75f}, t[] = {1, 0, 0.25f, 0, 0.5f, 1};
    static float w[] = {1, 2, 0.5f, 0.25f, 4, 1}, p[] = {1.5f, 0.75f, 3};
    static const struct {
        const char *name;
        bool weighted, positive;
        double loss[6], grad[6];
    } cases[] = {
        {"no weights",
         false,
         false,
         {0.4740769841801067, 0.25192908134537295, 1.6269280110429725, 0.029750418272620482, 0.6931471805599453,
          0.0011701946758545584},
         {-0.3775406687981454, 0.22270013882530884, 0.6307970779778823, 0.02931223075135632, 0.0,
          -0.0011695102650555178}},
        {"weight",
         true,
         false,
         {0.4740769841801067, 0.5038581626907459, 0.8134640055214862, 0.007437604568155121, 2.772588722239781,
          0.0011701946758545584},
         {-0.3775406687981454, 0.4454002776506177, 0.31539853898894116, 0.00732805768783908, 0.0,
          -0.0011695102650555178}},
        {"pos_weight",
         false,
         true,
         {0.71111547627016, 0.25192908134537295, 1.6903920165644588, 0.029750418272620482, 0.6065037829899521,
          0.003510584027563675},
         {-0.566311003197218, 0.22270013882530884, 0.5711956169668235, 0.02931223075135632, 0.0625,
          -0.0035085307951665534}},
        {"both",
         true,
         true,
         {0.71111547627016, 0.5038581626907459, 0.8451960082822294, 0.007437604568155121, 2.4260151319598084,
          0.003510584027563675},
         {-0.566311003197218, 0.4454002776506177, 0.28559780848341176, 0.00732805768783908, 0.25,
          -0.0035085307951665534}},
    };
    begin("PyTorch's values", _i);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const struct bce problem = {2, 3, x, t, w, p, cases[c].weighted, cases[c].positive};
        float loss[6], grad[6], reduced;
        double sum = 0.0;
        name_detail("%s", cases[c].name);
        bce_call(&problem, XENT_NONE, loss, grad);
        for (size_t e = 0; e < 6; e++) {
            expect_within("loss", loss[e], cases[c].loss[e], 2.0);
            expect_within("gradient", grad[e], cases[c].grad[e], 3.0);
            sum += cases[c].loss[e];
        }
        bce_call(&problem, XENT_SUM, &reduced, grad);
        expect_within("sum", reduced, sum, 2.0);
        for (size_t e = 0; e < 6; e++)
            expect_within("gradient of the sum", grad[e], cases[c].grad[e], 3.0);
        bce_call(&problem, XENT_MEAN, &reduced, grad);
        expect_within("mean", reduced, sum / 6.0, 2.0);
        for (size_t e = 0; e < 6; e++)
            expect_within("gradient of the mean", grad[e], cases[c].grad[e] / 6.0, 3.0);
    }
    /* The example of PyTorch's manual: [10, 64] logits of 1.5, all targets 1, pos_weight 1. */
    struct bce example = bce_new(10, 64);
    for (size_t e = 0; e < 640; e++) {
        example.x[e] = 1.5f;
        example.t[e] = example.p[e % 64] = 1.0f;
    }
    example.positive = true;
    float mean;
    bce_call(&example, XENT_MEAN, &mean, NULL);
    expect_within("the manual's example", mean, 0.2014132779827524, 2.0);
    bce_free(&example);
}
END_TEST

START_TEST(defaults)
{
    begin("no options are PyTorch's", _i);
    static const float x[] = {1, -2, 3, -4}, t[] = {1, 0, 0, 1};
    float loss, expected, grad[4], expected_grad[4];
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    ck_assert_uint_eq(options.struct_size, sizeof options);
    expect_status("NULL", xent_bce_f32(x, t, 2, 2, &loss, grad, NULL), XENT_OK);
    expect_status("defaults", xent_bce_f32(x, t, 2, 2, &expected, expected_grad, &options), XENT_OK);
    expect_bits("loss", loss, expected);
    ck_assert_mem_eq(grad, expected_grad, sizeof grad);
    double sum = 0.0;
    for (size_t e = 0; e < 4; e++)
        sum += bce_plain_loss((double)x[e], (double)t[e], 1.0, 1.0);
    expect_within("mean", loss, sum / 4.0, 2.0);
}
END_TEST

/* Weights by row, by class, by both and one for all are the same as written out. */
START_TEST(weight_strides)
{
    enum { ROWS = 7, CLASSES = 70 };
    static const size_t strides[][2] = {{0, 0}, {0, 1}, {1, 0}, {CLASSES, 1}, {3, 2}, {1, ROWS}, {0, 5}, {200, 0}};
    begin("weight strides", _i);
    struct rng rng = rng_stream(900);
    struct bce b = bce_new(ROWS, CLASSES);
    struct bce_results written = bce_results_new(&b), got = bce_results_new(&b);
    float weights[ROWS * 200 + CLASSES * 5];
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++)
        weights[i] = (float)rng_uniform(&rng, 0.0, 3.0);
    for (size_t s = 0; s < sizeof strides / sizeof strides[0]; s++) {
        name_detail("strides %zu and %zu", strides[s][0], strides[s][1]);
        bce_fill(&b, &rng);
        b.weighted = true;
        for (size_t i = 0; i < ROWS; i++)
            for (size_t j = 0; j < CLASSES; j++)
                b.w[i * CLASSES + j] = weights[i * strides[s][0] + j * strides[s][1]];
        bce_call(&b, XENT_NONE, written.loss, written.grad);
        xent_bce_options options = XENT_BCE_OPTIONS_INIT;
        options.reduction = XENT_NONE;
        options.weights = weights;
        options.weight_row_stride = strides[s][0];
        options.weight_class_stride = strides[s][1];
        options.pos_weight = b.positive ? b.p : NULL;
        expect_status("none", xent_bce_f32(b.x, b.t, ROWS, CLASSES, got.loss, got.grad, &options), XENT_OK);
        ck_assert_mem_eq(got.loss, written.loss, sizeof(float) * ROWS * CLASSES);
        ck_assert_mem_eq(got.grad, written.grad, sizeof(float) * ROWS * CLASSES);
    }
    bce_results_free(&got);
    bce_results_free(&written);
    bce_free(&b);
}
END_TEST

/* What is infinite, NaN or nothing. w and p are ordinary numbers or 0. */
START_TEST(special_values)
{
    const float inf = INFINITY;
    const struct {
        float x, t, w, p, loss, grad;
    } cases[] = {
        {inf, 1, 1, 1, 0, 0},
        {inf, 0, 1, 1, inf, 1},
        {-inf, 0, 1, 1, 0, 0},
        {-inf, 1, 1, 1, inf, -1},
        {inf, 0, 3, 5, inf, 3},
        {-inf, 1, 3, 5, inf, -15},
        {inf, 1, 3, 5, 0, 0},
        {-inf, 0, 3, 5, 0, 0},
        {inf, 0.25f, 1, 1, inf, 0.75f},
        {-inf, 0.25f, 1, 1, inf, -0.25f},
        {-inf, 0.25f, 2, 3, inf, -1.5f},
        {inf, 0, 0, 1, 0, 0}, /* weight 0 */
        {-inf, 1, 0, 1, 0, 0},
        {-inf, 1, 1, 0, 0, 0}, /* pos_weight 0 */
        {-inf, 0.5f, 1, 0, 0, 0},
        {inf, 0.5f, 1, 0, inf, 0.5f},
        {inf, 0, -1, 1, -inf, -1}, /* negative weights */
        {inf, 1, -1, 1, 0, 0},
        {inf, 2, 1, 1, -inf, -1}, /* targets outside [0, 1] */
        {-inf, -1, 1, 1, -inf, 1},
        {0, 0.5f, 1, 1, 0x1.62e43p-1f, 0},
        {0, 1, 1, 1, 0x1.62e43p-1f, -0.5f},
        {-0.0f, 0, 1, 1, 0x1.62e43p-1f, 0.5f},
        {FLT_MAX, 0, 1, 1, FLT_MAX, 1},
        {-FLT_MAX, 1, 1, 1, FLT_MAX, -1},
        {FLT_MAX, 1, 1, 1, 0, 0},
        {-FLT_MAX, 0, 1, 1, 0, 0},
        {FLT_MAX, 0, 2, 1, inf, 2}, /* past the float range */
        {1000, 0, 0x1p-149f, 1, 0x1.f4p-140f, 0x1p-149f},
        {0x1p100f, 0x1p-100f, 1, 1, 0x1p100f, 1},
        {-0x1p100f, 0x1p-100f, 1, 1, 1, -0x1p-100f},
        {-inf, 0x1p-149f, 1, 1, inf, -0x1p-149f},
        {-103, 0, 1, 1, 0x1p-149f, 0x1p-149f}, /* exp(-103) = 1.3 2^-149 */
        {103, 1, 1, 1, 0x1p-149f, -0x1p-149f},
        {104, 1, 1, 1, 0, 0}, /* 0.49 2^-149 */
        {-395, 0, FLT_MAX, 1, 0, 0},
        {-104, 0, FLT_MAX, 1, 0x1.f1e6b4p-23f, 0x1.f1e6b4p-23f},
        {0x1p-149f, 1, 1, 1, 0x1.62e43p-1f, -0.5f},
        {FLT_MIN, 0.5f, 1, 1, 0x1.62e43p-1f, 0},
        {NAN, 1, 1, 1, NAN, NAN},
        {NAN, 0, 1, 1, NAN, NAN},
        {NAN, 0.5f, 0, 0, NAN, NAN},
        {1, NAN, 1, 1, NAN, NAN},
        {inf, NAN, 0, 1, NAN, NAN},
        {0, NAN, 1, 1, NAN, NAN},
        {1, 0, NAN, 1, NAN, NAN},
        {1, 0, 1, NAN, NAN, NAN},
        {1, 1, 1, NAN, NAN, NAN},
    };
    begin("special values", _i);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        float grad;
        name_detail("x %g, t %g, w %g, p %g", (double)cases[c].x, (double)cases[c].t, (double)cases[c].w,
                    (double)cases[c].p);
        const float loss = one(cases[c].x, cases[c].t, cases[c].w, cases[c].p, &grad);
        if (isnan(cases[c].loss)) {
            expect_bits("loss", loss, float_from_bits(0x7fc00000));
            expect_bits("gradient", grad, float_from_bits(0x7fc00000));
        } else {
            expect_bits("loss", loss, cases[c].loss);
            expect_bits("gradient", grad, cases[c].grad);
        }
    }
}
END_TEST

/* One NaN, of whichever array, is NaN for its element and for the reduced loss, and changes nothing else. */
START_TEST(nan_elements)
{
    enum { ROWS = 5, CLASSES = 40, ELEMENTS = ROWS * CLASSES };
    begin("a NaN among others", _i);
    struct rng rng = rng_stream(901);
    struct bce b = bce_new(ROWS, CLASSES);
    struct bce_results clean = bce_results_new(&b), got = bce_results_new(&b);
    for (size_t repeat = 0; repeat < 60; repeat++) {
        bce_fill(&b, &rng);
        b.weighted = true;
        bce_run(&b, &bce_plain, &clean);
        const size_t at = rng_below(&rng, ELEMENTS);
        float *const arrays[] = {b.x, b.t, b.w};
        arrays[repeat % 3][at] = float_from_bits(rng_chance(&rng, 0.5) ? 0xffc12345 : 0x7fa00001);
        name_detail("array %zu, element %zu", repeat % 3, at);
        bce_run(&b, &bce_plain, &got);
        expect_nan("mean", got.mean);
        expect_nan("sum", got.sum);
        for (size_t e = 0; e < ELEMENTS; e++) {
            expect_bits("loss", got.loss[e], e == at ? float_from_bits(0x7fc00000) : clean.loss[e]);
            expect_bits("gradient", got.grad[e], e == at ? float_from_bits(0x7fc00000) : clean.grad[e]);
        }
    }
    bce_results_free(&got);
    bce_results_free(&clean);
    bce_free(&b);
}
END_TEST

/* Infinite losses: of one sign they add up to that infinity, of both to NaN. No sum is -0. */
START_TEST(infinite_sums)
{
    begin("infinite sums", _i);
    float x[] = {INFINITY, 1, -INFINITY}, t[] = {0, 1, 1}, w[] = {1, 1, 1}, loss;
    struct bce b = {1, 3, x, t, w, NULL, true, false};
    bce_call(&b, XENT_SUM, &loss, NULL);
    expect_bits("sum", loss, INFINITY);
    bce_call(&b, XENT_MEAN, &loss, NULL);
    expect_bits("mean", loss, INFINITY);
    w[0] = w[2] = -1;
    bce_call(&b, XENT_SUM, &loss, NULL);
    expect_bits("sum", loss, -INFINITY);
    w[0] = 1;
    bce_call(&b, XENT_SUM, &loss, NULL);
    expect_nan("sum of both", loss);
    for (size_t e = 0; e < 3; e++) {
        x[e] = -120;
        t[e] = 0;
        w[e] = -1;
    }
    bce_call(&b, XENT_SUM, &loss, NULL);
    expect_bits("a sum that rounds to -0", loss, 0.0f);
}
END_TEST

/* Many elements: sum and mean against the definition, in several chunks of the sum's order. */
START_TEST(reductions)
{
    begin("reductions", _i);
    static const size_t shapes[][2] = {{1, 1}, {3, 5}, {1, 31}, {33, 1}, {64, 65}, {1, 8192}, {8193, 1}, {90, 1000}};
    struct rng rng = rng_stream(902);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        struct bce b = bce_new(shapes[s][0], shapes[s][1]);
        struct bce_results r = bce_results_new(&b);
        const size_t elements = b.rows * b.classes;
        bce_fill(&b, &rng);
        name_detail("%zu rows of %zu classes", b.rows, b.classes);
        bce_run(&b, &bce_plain, &r);
        double sum = 0.0;
        for (size_t e = 0; e < elements; e++) {
            const double w = b.weighted ? (double)b.w[e] : 1.0, p = b.positive ? (double)b.p[e % b.classes] : 1.0;
            const double loss = bce_plain_loss((double)b.x[e], (double)b.t[e], w, p);
            const double gradient = bce_plain_gradient((double)b.x[e], (double)b.t[e], w, p);
            expect_within("loss", r.loss[e], loss, 2.0);
            if (fabs(gradient) > 1e-6) /* no cancellation that this formula does not survive */
                expect_within("gradient of the mean", r.mean_grad[e], gradient / (double)elements, 3.0);
            sum += loss;
        }
        expect_within("sum", r.sum, sum, 2.0);
        expect_within("mean", r.mean, sum / (double)elements, 2.0);
        bce_results_free(&r);
        bce_free(&b);
    }
}
END_TEST

/* Losses that are no floats, and a sum of them that is one. */
START_TEST(sum_of_tiny)
{
    begin("sum of tiny losses", _i);
    float x[64], t[64] = {0}, loss;
    for (size_t i = 0; i < 64; i++)
        x[i] = -105;
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = XENT_SUM;
    expect_status("sum", xent_bce_f32(x, t, 1, 64, &loss, NULL, &options), XENT_OK);
    expect_within("sum", loss, 64 * exp(-105), 1.0);
}
END_TEST

START_TEST(no_rows)
{
    begin("no rows", _i);
    float loss = 5, canary = 6;
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    expect_status("mean", xent_bce_f32(NULL, NULL, 0, 3, &loss, NULL, NULL), XENT_OK);
    expect_nan("mean", loss);
    options.reduction = XENT_SUM;
    expect_status("sum", xent_bce_f32(NULL, NULL, 0, 0, &loss, &canary, &options), XENT_OK);
    expect_bits("sum", loss, 0.0f);
    options.reduction = XENT_NONE;
    loss = 5;
    expect_status("none", xent_bce_f32(NULL, NULL, 0, 3, &loss, &canary, &options), XENT_OK);
    expect_status("none", xent_bce_f32(NULL, NULL, 0, 3, NULL, &canary, &options), XENT_OK);
    expect_bits("none", loss, 5.0f);
    expect_bits("grad", canary, 6.0f);
}
END_TEST

int main(void)
{
    static const TTest *const *const tests[] = {&pytorch,        &defaults,     &weight_strides,
                                                &special_values, &nan_elements, &infinite_sums,
                                                &reductions,     &sum_of_tiny,  &no_rows};
    int kernels = 0;
    while (xent_isas()[kernels])
        kernels++;
    Suite *suite = suite_create("bce");
    TCase *meaning = add_case(suite, "meaning");
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_loop_test(meaning, *tests[i], 0, kernels);
    add_bce_status_tests(suite);
    add_bce_bits_tests(suite);
    return run_suite(suite);
}
