/*
 * The sum of the losses in double, of which a call shows only the first 24 bits: on every executor it has the bits of
 * the order that docs/numerics.md prescribes.
 */
#include "dispatch/run.h"
#include "dispatch/select.h"

#include "../executors.h"
#include "../support.h"

#include <stdlib.h>

enum { MOST_GROUPS = 256 };

static double run(const struct xent_job *job, size_t rows, const xent_executor *executor)
{
    struct xent_job own = *job; /* whose sums are the call's */
    const struct workers workers = {executor, 0};
    return xent_run_cross_entropy(xent_active_kernel(), &own, rows, &workers);
}

/* Each row by itself, added group by group. */
static double sum_in_order(const struct xent_job *job, size_t rows)
{
    size_t group_rows = 1;
    while ((rows + group_rows - 1) / group_rows > MOST_GROUPS)
        group_rows *= 2;
    double sum = 0;
    for (size_t first = 0; first < rows; first += group_rows) {
        double group = 0;
        for (size_t i = first; i < rows && i < first + group_rows; i++) {
            struct xent_job row = *job;
            row.logits = (const float *)job->logits + i * job->classes;
            row.targets32 += i;
            row.targets = row.targets32;
            group += run(&row, 1, NULL);
        }
        sum += group;
    }
    return sum;
}

static void expect_sum(double got, double expected)
{
    if (memcmp(&got, &expected, sizeof got) != 0)
        fail_case("got %a, expected %a", got, expected);
}

static void check_sum(struct rng *rng, const struct xent_job *job, size_t rows)
{
    double expected = sum_in_order(job, rows);
    if (!(expected > 0))
        fail_case("there is nothing to sum: %a", expected);
    expect_sum(run(job, rows, NULL), expected);
    for (int order = IN_ORDER; order < ORDERS; order++) {
        for (size_t threads = 1; threads <= 16; threads += 1 + rng_below(rng, 8)) {
            struct watched watched;
            watched_init(&watched, (enum order)order, threads, rng_next(rng));
            name_detail("%s, %s", xent_isa(), watched_describe(&watched).text);
            expect_sum(run(job, rows, &watched.executor), expected);
            watched_expect_sane(&watched);
        }
    }
}

/* Losses of all sizes, so that hardly any two orders have the same sum; no NaN, which would have no order at all. If
   rows are confident, the last bits of their losses are those of the sum within the row: its terms are floats, which a
   double adds exactly unless they are of all sizes, too. */
static void fill(struct rng *rng, float *logits, int32_t *targets, size_t rows, size_t classes, bool confident)
{
    for (size_t i = 0; i < rows; i++) {
        float scale = confident ? 9.0f : rng_chance(rng, 0.1) ? 30.0f : 1.0f;
        for (size_t j = 0; j < classes; j++)
            logits[i * classes + j] = scale * rng_normal(rng);
        targets[i] = i > 0 && rng_chance(rng, 0.05) ? -100 : (int32_t)rng_below(rng, classes);
        if (confident && targets[i] >= 0)
            logits[i * classes + (size_t)targets[i]] = 50.0f;
    }
}

static struct xent_job job_of(const float *logits, const int32_t *targets, size_t classes)
{
    return (struct xent_job){.logits = logits,
                             .logits_strides = {classes, 1, 0},
                             .classes = classes,
                             .inner = 1,
                             .labels = 1,
                             .targets32 = targets,
                             .targets = targets,
                             .targets_strides = {1, 1, 0},
                             .ignore_index = -100,
                             .grad_scale = 1,
                             .target_weight = 1,
                             .weights_sum = (double)classes};
}

static void check_shape(struct rng *rng, size_t rows, size_t classes, bool confident)
{
    float *logits = allocate(rows * classes * sizeof *logits);
    int32_t *targets = allocate(rows * sizeof *targets);
    fill(rng, logits, targets, rows, classes, confident);
    const struct xent_job job = job_of(logits, targets, classes);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("%zu rows of %zu classes, %s", rows, classes, confident ? "confident" : "any");
        check_sum(rng, &job, rows);
    }
    free(logits);
    free(targets);
}

START_TEST(order_of_sums)
{
    static const struct {
        size_t rows, classes;
    } cases[] = {
        {1, 3},      {15, 9},     {255, 700},  {256, 700},  {257, 400}, {300, 600},  {511, 300},
        {512, 300},  {513, 300},  {1000, 40},  {1025, 150}, {2049, 20}, {4096, 100}, {4097, 10},
        {20000, 30}, {65536, 10}, {65537, 10}, {70001, 2},  {1, 50000}, {1, 90000},  {1, 140000},
        {1, 262144}, {2, 66000},  {3, 40000},  {8, 20000},  {17, 9000}, {39, 8200},
    };
    struct rng rng = rng_stream(1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (scaled_chance(&rng))
            check_shape(&rng, cases[i].rows, cases[i].classes, false);
        if (scaled_chance(&rng))
            check_shape(&rng, cases[i].rows, cases[i].classes, true);
    }
}
END_TEST

/* A few rows at a time, so that the last bits of each are seen: short ones together have the sums that each has alone.
 */
START_TEST(short_rows_together)
{
    enum { ROWS = 5, CLASSES = 100, TIMES = 20 };
    struct rng rng = rng_stream(4);
    float logits[ROWS * CLASSES];
    int32_t targets[ROWS];
    for (size_t classes = 2; classes <= CLASSES; classes++) {
        for (int time = 0; time < TIMES; time++) {
            fill(&rng, logits, targets, ROWS, classes, true);
            const struct xent_job job = job_of(logits, targets, classes);
            for (const char *const *isa = xent_isas(); *isa; isa++) {
                use_kernel(*isa);
                name_case("%d rows of %zu classes, %s", ROWS, classes, *isa);
                expect_sum(run(&job, ROWS, NULL), sum_in_order(&job, ROWS));
            }
        }
    }
}
END_TEST

/* No two tasks add to one group: with all of the sum in any one group of rows, it has the same bits whichever task
   comes first. */
START_TEST(groups_of_tasks)
{
    enum { ROWS = 1025, CLASSES = 150, GROUP = 8 };
    struct rng rng = rng_stream(3);
    float *logits = allocate(ROWS * CLASSES * sizeof *logits);
    int32_t targets[ROWS], confident[ROWS];
    fill(&rng, logits, confident, ROWS, CLASSES, true);
    memcpy(targets, confident, sizeof targets);
    const struct xent_job job = job_of(logits, targets, CLASSES);
    /* Every group twice: two orders may round to the same. */
    for (size_t k = 0; k < 2 * ((ROWS - 1) / GROUP + 1); k++) {
        const size_t first = k / 2 * GROUP, last = first + GROUP < ROWS ? first + GROUP : ROWS;
        for (size_t i = first; i < last; i++)
            targets[i] = (int32_t)rng_below(&rng, CLASSES);
        const double expected = run(&job, ROWS, NULL);
        for (size_t threads = 2; threads <= 8; threads *= 2) {
            struct watched watched;
            watched_init(&watched, REVERSED, threads, 0);
            name_case("rows %zu to %zu, %s", first, last, watched_describe(&watched).text);
            expect_sum(run(&job, ROWS, &watched.executor), expected);
        }
        memcpy(targets, confident, sizeof targets);
    }
    free(logits);
}
END_TEST

/* Rows so long that their chunks are longer than others' (docs/numerics.md, section 3): the same order in every kernel,
   and where a row is cut up. */
START_TEST(long_chunks)
{
    struct rng rng = rng_stream(2);
    const size_t classes = (size_t)XENT_CHUNK * XENT_CHUNKS + 1 + rng_below(&rng, 100000);
    float *logits = allocate(classes * sizeof *logits);
    for (size_t repeat = 0; repeat < 1 + scaled(3); repeat++) {
        int32_t target;
        fill(&rng, logits, &target, 1, classes, true);
        const struct xent_job job = job_of(logits, &target, classes);
        struct watched watched;
        watched_init(&watched, IN_ORDER, 3, rng_next(&rng));
        use_kernel("scalar");
        const double expected = run(&job, 1, NULL);
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            use_kernel(*isa);
            name_case("%zu classes, %s, repeat %zu", classes, *isa, repeat);
            expect_sum(run(&job, 1, NULL), expected);
            expect_sum(run(&job, 1, &watched.executor), expected);
        }
    }
    free(logits);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sums");
    tcase_add_test(add_case(suite, "order"), order_of_sums);
    tcase_add_test(add_case(suite, "short rows"), short_rows_together);
    tcase_add_test(add_case(suite, "groups"), groups_of_tasks);
    tcase_add_test(add_case(suite, "long chunks"), long_chunks);
    return run_suite(suite);
}
