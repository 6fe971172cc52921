/*
 * Binary cross entropy gives the bits of the scalar kernel with packed arrays on one thread, whatever the kernel, the
 * strides and addresses, the executor, the division into rows and the control bits are.
 */
#include "bce.h"
#include "fpcontrol.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

/* Tasks one by one from the last to the first. */
static void backwards(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    *(size_t *)context += tasks;
    for (size_t i = tasks; i-- > 0;)
        task(argument, i);
}

struct half {
    void (*task)(void *argument, size_t index);
    void *argument;
    size_t first, tasks;
};

static void *run_half(void *argument)
{
    const struct half *half = argument;
    for (size_t i = half->first; i < half->tasks; i += 2)
        half->task(half->argument, i);
    return NULL;
}

/* Even tasks on this thread, odd ones on another. */
static void two_threads(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    struct half even = {task, argument, 0, tasks}, odd = {task, argument, 1, tasks};
    pthread_t thread;
    *(size_t *)context += tasks;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_half, &odd), 0);
    run_half(&even);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

static const float edges[] = {0.0f,     -0.0f,    0x1p-149f, -0x1p-149f, 1e-40f,     -1e-40f,        FLT_MIN,  -FLT_MIN,
                              1e-20f,   0.5f,     1.0f,      -1.0f,      2.0f,       0.8813736f,     -0.8814f, 41.588f,
                              -41.589f, 87.3f,    -87.4f,    88.8f,      103.27893f, -103.98f,       104.0f,   -150.0f,
                              395.78f,  -395.79f, 400.0f,    -401.0f,    700.0f,     -800.0f,        1e10f,    -1e10f,
                              FLT_MAX,  -FLT_MAX, INFINITY,  -INFINITY,  (float)NAN, 0x1.fffffep-1f, 1e30f,    -1e30f};
enum { EDGES = sizeof edges / sizeof edges[0] };

static float any_float(struct rng *rng)
{
    const size_t roll = rng_below(rng, 4);
    if (roll == 0)
        return edges[rng_below(rng, EDGES)];
    return roll == 1 ? float_from_bits((uint32_t)rng_next(rng)) : rng_normal(rng) * (roll == 2 ? 100.0f : 1.0f);
}

/* Ordinary, or anything at all. */
static void fill(struct bce *b, struct rng *rng)
{
    bce_fill(b, rng);
    const double strange = rng_chance(rng, 0.5) ? 0.0 : rng_chance(rng, 0.5) ? 0.02 : 0.7;
    for (size_t e = 0; strange > 0.0 && e < b->rows * b->classes; e++) {
        b->x[e] = rng_chance(rng, strange) ? any_float(rng) : b->x[e];
        b->t[e] = rng_chance(rng, strange * 0.3) ? any_float(rng) : b->t[e];
        b->w[e] = rng_chance(rng, strange * 0.3) ? any_float(rng) : b->w[e];
        b->p[e % b->classes] = rng_chance(rng, strange * 0.1) ? any_float(rng) : b->p[e % b->classes];
    }
}

static void expect_same(const struct bce *b, const char *what, const float *got, const float *expected)
{
    for (size_t e = 0; e < b->rows * b->classes; e++)
        if (float_bits(got[e]) != float_bits(expected[e]))
            fail_case("%s of element %zu: got %a, expected %a (x %a, t %a, w %a, p %a)", what, e, (double)got[e],
                      (double)expected[e], (double)b->x[e], (double)b->t[e], b->weighted ? (double)b->w[e] : 1.0,
                      b->positive ? (double)b->p[e % b->classes] : 1.0);
}

static void expect_results(const struct bce *b, const struct bce_results *got, const struct bce_results *expected,
                           bool gradients)
{
    expect_same(b, "loss", got->loss, expected->loss);
    expect_bits("mean", got->mean, expected->mean);
    expect_bits("sum", got->sum, expected->sum);
    if (gradients) {
        expect_same(b, "gradient", got->grad, expected->grad);
        expect_same(b, "gradient of the mean", got->mean_grad, expected->mean_grad);
    }
}

/* Each kernel in a layout and on an executor of its own; half of the time with other control bits. */
static void check(const struct bce *b, struct rng *rng)
{
    struct bce_results expected = bce_results_new(b), got = bce_results_new(b);
    size_t tasks = 0;
    const uint64_t control = fp_control_get();
    use_kernel("scalar");
    bce_run(b, &bce_plain, &expected);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        for (int repeat = 0; repeat < 2; repeat++) {
            struct bce_layout layout = bce_random_layout(rng);
            const bool flushed = rng_chance(rng, 0.5);
            xent_executor executor = {rng_chance(rng, 0.2) ? two_threads : backwards, &tasks, 1 + rng_below(rng, 70)};
            if (rng_chance(rng, 0.5))
                layout.executor = &executor;
            name_detail("%s, %s%s%s", *isa,
                        layout.in_place       ? "in place"
                        : layout.forward_only ? "forward"
                                              : "apart",
                        flushed ? ", flushed" : "", layout.executor ? ", on an executor" : "");
            use_kernel(*isa);
            if (flushed)
                fp_control_set(control | fp_control_flush | fp_control_round_up);
            bce_run(b, &layout, &got);
            const uint64_t after = fp_control_get();
            fp_control_set(control);
            if ((after & fp_control_mask) !=
                ((flushed ? control | fp_control_flush | fp_control_round_up : control) & fp_control_mask))
                fail_case("the control bits were changed");
            expect_results(b, &got, &expected, !layout.forward_only);
        }
    }
    bce_results_free(&got);
    bce_results_free(&expected);
}

START_TEST(sizes)
{
    struct rng rng = rng_stream(910);
    for (size_t n = 1; n <= 300; n++) {
        struct bce b = bce_new(1 + rng_below(&rng, 5), n);
        struct bce column = bce_new(n, 1 + rng_below(&rng, 3));
        name_case("bits of %zu classes", n);
        fill(&b, &rng);
        check(&b, &rng);
        name_case("bits of %zu rows", n);
        fill(&column, &rng);
        check(&column, &rng);
        bce_free(&column);
        bce_free(&b);
    }
}
END_TEST

START_TEST(anything)
{
    struct rng rng = rng_stream(911);
    for (size_t repeat = 0; repeat < scaled(600); repeat++) {
        struct bce b = bce_new(1 + rng_below(&rng, 20), 1 + rng_below(&rng, repeat % 10 == 0 ? 4000 : 200));
        name_case("anything, repeat %zu: %zu rows of %zu classes", repeat, b.rows, b.classes);
        fill(&b, &rng);
        check(&b, &rng);
        bce_free(&b);
    }
}
END_TEST

/* Every edge as logit with every edge as target, then as weight and pos_weight. */
START_TEST(every_edge)
{
    struct rng rng = rng_stream(912);
    struct bce b = bce_new(EDGES, EDGES);
    for (int turn = 0; turn < 12; turn++) {
        for (size_t i = 0; i < EDGES; i++) {
            for (size_t j = 0; j < EDGES; j++) {
                const size_t e = i * EDGES + j;
                b.x[e] = edges[i];
                b.t[e] = turn % 3 == 0 ? edges[j] : turn % 3 == 1 ? (float)(j % 2) : 0.25f;
                b.w[e] = turn % 3 == 1 ? edges[j] : edges[(j + (size_t)turn) % EDGES];
                b.p[j] = edges[(j * 7 + (size_t)turn) % EDGES];
            }
        }
        b.weighted = turn % 3 == 1 || turn >= 6;
        b.positive = turn % 3 == 2 || turn >= 9;
        name_case("edges, turn %d", turn);
        check(&b, &rng);
    }
    bce_free(&b);
}
END_TEST

/* Losses that cancel each other, far apart: of their sum nothing is left but the roundings on the way, which show in a
   float the order of the additions. */
static void make_cancelling(struct bce *b)
{
    const size_t half = b->rows * b->classes / 2;
    b->weighted = true;
    for (size_t e = 0; e < half; e++) {
        b->x[half + e] = b->x[e];
        b->t[half + e] = b->t[e];
        b->w[half + e] = -b->w[e];
    }
}

/* Several chunks of the sum, all ways to divide the elements into rows, and more tasks than one. */
START_TEST(divisions)
{
    enum { ELEMENTS = 5 * 8192 + 1000 * 8 };
    struct rng rng = rng_stream(913);
    struct bce b = bce_new(1, ELEMENTS);
    struct bce_results expected = bce_results_new(&b), got = bce_results_new(&b);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        b.rows = 1;
        b.classes = ELEMENTS;
        bce_fill(&b, &rng);
        make_cancelling(&b);
        b.positive = false;
        use_kernel(*isa);
        bce_run(&b, &bce_plain, &expected);
        ck_assert(expected.sum != 0.0f && fabsf(expected.sum) < 1e-6f);
        for (size_t rows = 1; rows <= ELEMENTS; rows *= 2) {
            if (ELEMENTS % rows)
                break;
            size_t tasks = 0;
            xent_executor executor = {rows % 3 == 1 ? two_threads : backwards, &tasks, 1 + rng_below(&rng, 8)};
            struct bce_layout layout = bce_random_layout(&rng);
            layout.executor = &executor;
            b.rows = rows;
            b.classes = ELEMENTS / rows;
            name_case("divisions, %s: %zu rows of %zu", *isa, b.rows, b.classes);
            bce_run(&b, &layout, &got);
            ck_assert_uint_gt(tasks, 3);
            expect_results(&b, &got, &expected, !layout.forward_only);
        }
        b.rows = ELEMENTS;
        b.classes = 1;
        bce_run(&b, &bce_plain, &got);
        expect_results(&b, &got, &expected, true);
    }
    bce_results_free(&got);
    bce_results_free(&expected);
    bce_free(&b);
}
END_TEST

/* The order of docs/numerics.md, section 7, by itself: logits so large that a loss is their product with the weight,
   exact in double, and weights of both signs, so that the order of the additions shows. */
START_TEST(order)
{
    static const size_t counts[] = {1, 31, 32, 33, 64, 65, 1000, 8191, 8192, 8193, 20000, 256 * 8192 + 1};
    struct rng rng = rng_stream(915);
    for (size_t s = 0; s < sizeof counts / sizeof counts[0]; s++) {
        struct bce b = bce_new(1, counts[s]);
        const size_t chunk = counts[s] > 256 * 8192 ? 2 * 8192 : 8192;
        double sum = 0.0, lane[32] = {0};
        b.weighted = true;
        for (size_t e = 0; e < counts[s]; e++) {
            b.x[e] = (float)rng_uniform(&rng, 500.0, 1000.0);
            b.t[e] = 0.0f;
            b.w[e] = (float)(rng_uniform(&rng, -1.0, 1.0) * exp2((double)rng_below(&rng, 60)));
            if (e >= counts[s] / 2 && counts[s] > 1) {
                b.x[e] = b.x[e - counts[s] / 2];
                b.w[e] = -b.w[e - counts[s] / 2];
            }
            lane[e % 32] += (double)b.x[e] * (double)b.w[e];
            if ((e + 1) % chunk == 0 || e + 1 == counts[s]) {
                for (size_t half = 16; half > 0; half /= 2)
                    for (size_t l = 0; l < half; l++)
                        lane[l] += lane[l + half];
                sum += lane[0];
                memset(lane, 0, sizeof lane);
            }
        }
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            float got;
            name_case("order of %zu elements, %s", counts[s], *isa);
            use_kernel(*isa);
            bce_call(&b, XENT_SUM, &got, NULL);
            expect_bits("sum", got, (float)sum == 0.0f ? 0.0f : (float)sum);
        }
        bce_free(&b);
    }
}
END_TEST

/* A problem of more chunks than are kept apart: chunks are longer then. */
START_TEST(long_chunks)
{
    const size_t elements = 256 * 8192 + 12345;
    struct rng rng = rng_stream(914);
    if (!scaled_chance(&rng))
        return;
    float *x = allocate(elements * sizeof *x), *t = allocate(elements * sizeof *t);
    double sum = 0.0;
    for (size_t e = 0; e < elements; e++) {
        x[e] = rng_normal(&rng) * 5.0f;
        t[e] = (float)(rng_next(&rng) & 1);
        sum += bce_plain_loss((double)x[e], (double)t[e], 1.0, 1.0);
    }
    size_t tasks = 0;
    const xent_executor executor = {backwards, &tasks, 3};
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = XENT_SUM;
    float expected = 0, got;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        name_case("long chunks, %s", *isa);
        use_kernel(*isa);
        options.executor = NULL;
        expect_status("sum", xent_bce_f32(x, t, 1, elements, &got, NULL, &options), XENT_OK);
        expect_within("sum", got, sum, 2.0);
        if (isa == xent_isas())
            expected = got;
        expect_bits("sum", got, expected);
        options.executor = &executor;
        expect_status("sum", xent_bce_f32(x, t, elements, 1, &got, NULL, &options), XENT_OK);
        expect_bits("sum on an executor", got, expected);
    }
    ck_assert_uint_gt(tasks, 3);
    free(x);
    free(t);
}
END_TEST

void add_bce_bits_tests(Suite *suite)
{
    TCase *bits = add_case(suite, "bits");
    tcase_add_test(bits, sizes);
    tcase_add_test(bits, anything);
    tcase_add_test(bits, every_edge);
    tcase_add_test(bits, divisions);
    tcase_add_test(bits, order);
    tcase_add_test(bits, long_chunks);
}
