/* Target distributions: single rows, and shares and factors at their ends. */
#include "soft.h"

#include "support.h"

#include <math.h>

/* What must come out where a factor is 0, or a probability meets a masked class. */
START_TEST(corners)
{
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        enum { CLASSES = 100 };
        float x[CLASSES], q[CLASSES], w[CLASSES], grad[CLASSES], loss, dloss = 1;
        xent_problem p = XENT_PROBLEM_INIT;
        p.outer = 1;
        p.classes = CLASSES;
        p.logits = x;
        p.grad = grad;
        p.loss = &loss;
        p.target_type = XENT_PROBABILITIES;
        p.targets = q;
        p.dloss = &dloss;
        p.reduction = XENT_SUM;
        use_kernel(*isa);
        for (int j = 0; j < CLASSES; j++) {
            x[j] = 0;
            q[j] = j < 2 ? 0.5f : 0;
            w[j] = 1;
        }
        x[70] = -INFINITY;
        name_case("%s, a masked class of probability 0", *isa);
        expect_status("call", xent_cross_entropy(&p), XENT_OK);
        expect_within("loss", loss, log(99), 2.0);
        expect_bits("its gradient", grad[70], 0.0f);

        name_case("%s, a masked class of a subnormal probability", *isa);
        q[70] = 1e-40f;
        expect_status("call", xent_cross_entropy(&p), XENT_OK);
        expect_bits("loss", loss, INFINITY);
        expect_bits("its gradient", grad[70], -1e-40f);

        name_case("%s, the same without weight", *isa);
        w[70] = 0;
        p.class_weights = w;
        expect_status("call", xent_cross_entropy(&p), XENT_OK);
        expect_within("loss", loss, log(99), 2.0);
        expect_bits("its gradient", grad[70], 0.0f);

        for (int k = 0; k < 2; k++) {
            name_case("%s, a gradient times %g", *isa, k ? -0.0 : 0.0);
            dloss = k ? -0.0f : 0.0f;
            expect_status("call", xent_cross_entropy(&p), XENT_OK);
            for (int j = 0; j < CLASSES; j++)
                ck_assert_msg(grad[j] == 0, "gradient %d is %a", j, (double)grad[j]);
        }

        name_case("%s, a gradient times NaN", *isa);
        dloss = NAN;
        expect_status("call", xent_cross_entropy(&p), XENT_OK);
        for (int j = 0; j < CLASSES; j++)
            expect_nan("gradient", grad[j]);

        name_case("%s, nothing times a huge negative number", *isa);
        dloss = -0x1p70f;
        x[71] = -300;
        expect_status("call", xent_cross_entropy(&p), XENT_OK);
        expect_bits("a gradient of nothing", grad[71], 0.0f);

        name_case("%s, a probability that is no number, of which smoothing leaves nothing", *isa);
        p.label_smoothing = 1;
        q[3] = NAN;
        x[70] = x[71] = 0;
        w[70] = 1;
        expect_status("call", xent_cross_entropy(&p), XENT_OK);
        expect_within("loss", loss, log(100), 2.0);
        q[3] = 0;
    }
}
END_TEST

/* Factors so large or small that what probabilities take off is no pair of floats: of all rows, or of one. Rows are
   apart, or neighbours. */
START_TEST(unusual_factors)
{
    enum { ROWS = 40, MOST = 60, FACTORS = 9 };
    static float x[ROWS * MOST], q[ROWS * MOST], grad[2][ROWS * MOST];
    static const float factors[FACTORS] = {1e-37f, 1e-30f, 0x1p-61f, 0x1p-60f, 0x1p60f, 0x1.8p60f, 0x1p61f, 1e37f, -1};
    struct rng rng = rng_stream(63);
    for (size_t repeat = 0; repeat < scaled(120); repeat++) {
        const float factor = factors[repeat % FACTORS];
        const bool neighbours = repeat / FACTORS % 2, all = repeat / FACTORS / 2 % 2;
        const size_t classes = 1 + rng_below(&rng, MOST);
        float dloss[ROWS];
        for (size_t i = 0; i < ROWS; i++)
            dloss[i] = all || i == repeat * 7 % ROWS ? factor : 1;
        for (size_t i = 0; i < ROWS * classes; i++) {
            x[i] = 3 * rng_normal(&rng);
            q[i] = (float)rng_uniform(&rng, 0, 2 / (double)classes);
        }
        xent_problem p = XENT_PROBLEM_INIT;
        p.outer = neighbours ? 1 : ROWS;
        p.inner = neighbours ? ROWS : 1;
        p.classes = classes;
        p.logits = x;
        p.target_type = XENT_PROBABILITIES;
        p.targets = q;
        if (all && factor > 0 && repeat % 3 == 0) /* without a dloss for each row */
            p.normalizer = 1 / (double)factor;
        else
            p.dloss = dloss;
        if (p.dloss)
            p.reduction = XENT_NONE;
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            name_case("factor %a, %zu classes, %s, repeat %zu, %s", (double)factor, classes,
                      neighbours ? "neighbours" : "rows", repeat, *isa);
            for (int k = 0; k < 2; k++) {
                use_kernel(k ? *isa : "scalar");
                p.grad = grad[k];
                expect_status("call", xent_cross_entropy(&p), XENT_OK);
            }
            for (size_t i = 0; i < ROWS * classes; i++)
                expect_bits("gradient", grad[1][i], grad[0][i]);
        }
    }
}
END_TEST

/* An even share that is no float, of classes that weigh little, or nothing. */
START_TEST(huge_even_shares)
{
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        enum { CLASSES = 4, ROWS = 16 };
        const float w[CLASSES] = {0x1p-100f, 0, 0, 0x1p-100f}, x[CLASSES] = {0, -100, -100, -300};
        float logits[ROWS * CLASSES], grad[ROWS * CLASSES], loss[ROWS];
        const float row_weight = 0x1p20f, dloss = 0x1p125f;
        const int32_t targets[ROWS] = {0};
        const xent_strides same = {0, 0, 0};
        xent_problem p = XENT_PROBLEM_INIT;
        p.classes = CLASSES;
        p.logits = logits;
        p.grad = grad;
        p.targets = targets;
        p.class_weights = w;
        p.label_smoothing = 0.5;
        p.row_weights = &row_weight;
        p.row_weights_strides = p.dloss_strides = &same;
        p.dloss = &dloss;
        p.reduction = XENT_NONE;
        p.loss = loss;
        for (size_t i = 0; i < ROWS * CLASSES; i++)
            logits[i] = x[i % CLASSES];
        use_kernel(*isa);
        for (p.outer = 1; p.outer <= ROWS; p.outer += ROWS - 1) {
            name_case("%s, %zu rows", *isa, p.outer);
            expect_status("call", xent_cross_entropy(&p), XENT_OK);
            for (size_t i = 0; i < p.outer; i++) {
                const float *g = grad + i * CLASSES;
                expect_within("gradient of the label", g[0], 0x1p42, 8.0);
                expect_within("gradient of a class without weight", g[1], 0x1p45 * 0.75 * exp(-100), 8.0);
                expect_within("gradient of a class", g[3], -0x1p42, 8.0);
            }
        }
    }
}
END_TEST

void add_soft_corners(Suite *suite)
{
    tcase_add_test(add_case(suite, "corners"), corners);
    tcase_add_test(add_case(suite, "unusual factors"), unusual_factors);
    tcase_add_test(add_case(suite, "huge even shares"), huge_even_shares);
}
