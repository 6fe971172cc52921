/*
 * Every result against the exact one by MPFR: the bounds of the header hold, and the worst case of each family of rows
 * is printed with the row that attains it.
 */
#include "families.h"
#include "hunt.h"
#include "measure.h"

#include <inttypes.h>
#include <stdlib.h>

enum { MAX_CLASSES = 50257 };

static void measure_family_row(struct measure *measure, size_t family, size_t classes, size_t row)
{
    size_t target = family_row(family, classes, row, measure->x);
    measure_row(measure, classes, target, row);
}

/* On the fastest kernel; the bits suite makes that hold for all. */
START_TEST(family_bounds)
{
    static const struct {
        size_t classes, rows;
    } sizes[] = {{1, 6},    {2, 1500}, {3, 1500}, {5, 900},  {10, 600},
                 {27, 200}, {100, 60}, {1000, 6}, {5000, 2}, {50257, 1}};
    size_t family = (size_t)_i;
    struct rng rng = rng_stream(700 + family);
    struct measure m;
    measure_init(&m, MAX_CLASSES);
    use_kernel(xent_isas()[0]);
    name_case("accuracy of %s", family_name(family));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        /* The single long row has another target mode from family to family. */
        size_t first = sizes[i].rows == 1 ? family : 0;
        if (sizes[i].classes > 1000 && !scaled_chance(&rng))
            continue;
        for (size_t row = 0; row < scaled(sizes[i].rows); row++)
            measure_family_row(&m, family, sizes[i].classes, first + row);
    }
    measure_judge(&m, family_name(family));
    measure_clear(&m);
}
END_TEST

START_TEST(all_kernels)
{
    static const size_t sizes[] = {3, 27, 100, 1000};
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        struct measure m;
        measure_init(&m, 1000);
        use_kernel(*isa);
        name_case("accuracy of %s", *isa);
        for (size_t family = 0; family < family_count; family++)
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
                measure_family_row(&m, family, sizes[i], rng_below(&(struct rng){family * 8 + i}, 1000));
        measure_judge(&m, *isa);
        measure_clear(&m);
    }
}
END_TEST

/* The reduced loss of a batch, and its gradient, against the exact ones. Every seventh row is ignored. */
static void measure_reduced(struct reference *reference, size_t family, size_t classes, size_t rows,
                            struct worst worst[3])
{
    size_t kept = 0;
    float *grad = allocate(rows * classes * sizeof *grad), *logits = allocate(rows * classes * sizeof *logits);
    int32_t *targets = allocate(rows * sizeof *targets);
    mpfr_t exact, mean;
    mpfr_inits2(160, exact, mean, (mpfr_ptr)NULL);
    mpfr_set_zero(exact, 1);
    for (size_t i = 0; i < rows; i++) {
        targets[i] = (int32_t)family_row(family, classes, i, logits + i * classes);
        if (i % 7 == 3) {
            targets[i] = -100;
            continue;
        }
        kept++;
        reference_row(reference, logits + i * classes, classes);
        reference_add_loss(reference, (size_t)targets[i], exact);
    }
    mpfr_div_ui(mean, exact, (unsigned long)kept, MPFR_RNDN);

    float sum, average;
    xent_options options = XENT_OPTIONS_INIT;
    expect_status("mean", xent_fused_f32(logits, targets, rows, classes, &average, grad, &options), XENT_OK);
    options.reduction = XENT_SUM;
    expect_status("sum", xent_fused_f32(logits, targets, rows, classes, &sum, NULL, &options), XENT_OK);

    struct distance distances[] = {reference_distance(mean, average), reference_distance(exact, sum), {-1.0, 0.0}};
    size_t row = rows - 1;
    if (targets[row] >= 0) {
        reference_row(reference, logits + row * classes, classes);
        for (size_t j = 0; j < classes; j++) {
            struct distance d = reference_gradient(reference, (size_t)targets[row], j, kept, grad[row * classes + j]);
            if (d.ulps > distances[2].ulps)
                distances[2] = d;
        }
    }
    for (int i = 0; i < 3; i++)
        if (distances[i].ulps > worst[i].distance.ulps)
            worst[i] = (struct worst){.distance = distances[i], .classes = classes, .row = rows, .target = family};
    mpfr_clears(exact, mean, (mpfr_ptr)NULL);
    free(grad);
    free(logits);
    free(targets);
}

START_TEST(reduced)
{
    static const size_t sizes[] = {2, 10, 27, 100}, row_counts[] = {1, 2, 3, 10, 100};
    static const char *const names[] = {"mean", "sum", "gradient of the mean"};
    static const double bounds[] = {2.0, 2.0, 3.0};
    struct measure m;
    measure_init(&m, 100);
    struct worst worst[3] = {{.distance = {-1.0, 0.0}}, {.distance = {-1.0, 0.0}}, {.distance = {-1.0, 0.0}}};
    use_kernel(xent_isas()[0]);
    name_case("accuracy of reduced results");
    for (size_t family = 0; family < family_count; family++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            for (size_t j = 0; j < sizeof row_counts / sizeof row_counts[0]; j++)
                measure_reduced(&m.reference, family, sizes[i], row_counts[j], worst);
    for (int i = 0; i < 3; i++)
        note("%s: %.3f ULP (seed %" PRIu64 " family \"%s\" classes %zu rows %zu: exact %a)", names[i],
             worst[i].distance.ulps, test_seed(), family_name(worst[i].target), worst[i].classes, worst[i].row,
             worst[i].distance.exact);
    for (int i = 0; i < 3; i++)
        if (worst[i].distance.ulps > bounds[i])
            fail_case("%s: %.3f ULP: family \"%s\" classes %zu rows %zu: exact %a", names[i], worst[i].distance.ulps,
                      family_name(worst[i].target), worst[i].classes, worst[i].row, worst[i].distance.exact);
    measure_clear(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("accuracy");
    tcase_add_loop_test(add_case(suite, "families"), family_bounds, 0, (int)family_count);
    add_hunt_tests(add_case(suite, "hunted"));
    tcase_add_test(add_case(suite, "all kernels"), all_kernels);
    tcase_add_test(add_case(suite, "reduced"), reduced);
    return run_suite(suite);
}
