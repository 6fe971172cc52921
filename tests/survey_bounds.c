/*
 * The quick level of tools/accuracy: a few rows of every family with every kind of target, against the header's bounds.
 */
#include "families.h"
#include "support.h"
#include "survey.h"

#include <inttypes.h>

static const char *const kind_names[SURVEY_KINDS] = {"plain",  "smoothing",     "weights",   "smoothing and weights",
                                                     "labels", "probabilities", "everything"};
static const char *const quantity_names[SURVEY_QUANTITIES] = {"loss", "target's gradient", "gradient", "lse"};

static void begin(struct survey_worst *worst)
{
    for (int q = 0; q < SURVEY_QUANTITIES; q++)
        worst[q] = (struct survey_worst){.error = -1.0};
}

static void judge(const struct survey_worst *worst, const double *bounds, size_t family, size_t classes)
{
    for (int q = 0; q < SURVEY_QUANTITIES; q++)
        if (!(worst[q].error <= bounds[q]))
            fail_case("%s of \"%s\", %zu classes, row %" PRIu64 ", entry %" PRIu64 ": %g, got %a, exact %a",
                      quantity_names[q], family_name(family), classes, worst[q].row, worst[q].index, worst[q].error,
                      worst[q].got, worst[q].exact);
}

START_TEST(kinds)
{
    static const size_t sizes[] = {1, 2, 3, 10, 100, 1000};
    const bool one_class = _i == SURVEY_PLAIN || _i == SURVEY_WEIGHTS;
    const double bounds[SURVEY_QUANTITIES] = {one_class ? 2.0 : 1.0, 3.0, one_class ? 3.0 : 4.2, 1.0};
    struct survey_worst all = {.error = -1.0};
    struct rng rng = rng_stream(600 + (uint64_t)_i);
    use_kernel(xent_isas()[0]);
    name_case("accuracy, %s", kind_names[_i]);
    for (size_t family = 0; family < family_count; family++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct survey_worst worst[SURVEY_QUANTITIES];
            if (sizes[i] > 3 && !scaled_chance(&rng))
                continue;
            begin(worst);
            expect_status("survey", (xent_status)survey_run(family, sizes[i], 0, 1 + scaled(300 / sizes[i]), _i, worst),
                          XENT_OK);
            judge(worst, bounds, family, sizes[i]);
            for (int q = SURVEY_TARGET; q <= SURVEY_GRADIENT; q++)
                if (worst[q].error > all.error)
                    all = worst[q];
            /* The reference itself, by MPFR. */
            for (int q = 0; sizes[i] <= 100 && q < SURVEY_QUANTITIES; q++)
                if (worst[q].error >= 0.0)
                    ck_assert_double_le(survey_verify(family, sizes[i], _i, q, &worst[q]), worst[q].error + 1e-6);
        }
    note("%s: gradients within %.3f ULP", kind_names[_i], all.error);
}
END_TEST

/* Rows that millions of others showed, by the default seed: more than 3 ULP of the larger term, which was once
 * promised. */
START_TEST(worst_rows)
{
    static const struct {
        const char *family;
        size_t classes, row;
        enum survey_kind kind;
    } rows[] = {{"normal*3", 3, 1480081, SURVEY_SMOOTHING_WEIGHTS}, {"Cauchy", 3, 1197685, SURVEY_SMOOTHING_WEIGHTS}};
    const double bounds[SURVEY_QUANTITIES] = {1.0, 3.0, 4.2, 1.0};
    for (const char *const *isa = xent_isas(); *isa; isa++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            const size_t family = (size_t)survey_family(rows[i].family);
            struct survey_worst worst[SURVEY_QUANTITIES];
            begin(worst);
            use_kernel(*isa);
            name_case("accuracy, %s", *isa);
            expect_status("survey",
                          (xent_status)survey_run(family, rows[i].classes, rows[i].row, 1, (int)rows[i].kind, worst),
                          XENT_OK);
            judge(worst, bounds, family, rows[i].classes);
            note("%s, row %zu: %.3f ULP", rows[i].family, rows[i].row, worst[SURVEY_GRADIENT].error);
        }
}
END_TEST

START_TEST(binary)
{
    const double bounds[SURVEY_QUANTITIES] = {2.0, 3.0, 3.0, 1.0};
    use_kernel(xent_isas()[0]);
    name_case("accuracy of binary cross entropy");
    for (size_t family = 0; family < family_count; family++)
        for (int soft = 0; soft < 2; soft++) {
            struct survey_worst worst[SURVEY_QUANTITIES];
            begin(worst);
            expect_status("survey", (xent_status)survey_bce(family, 0, scaled(1000), soft, worst), XENT_OK);
            judge(worst, bounds, family, 1000);
        }
}
END_TEST

START_TEST(reference)
{
    /* 64 significant bits, or 113 where long double is software's. */
    ck_assert_double_lt(survey_check_exp(scaled(5000)), 4.0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("survey");
    tcase_add_loop_test(add_case(suite, "kinds of targets"), kinds, 0, SURVEY_KINDS);
    tcase_add_test(add_case(suite, "worst rows"), worst_rows);
    tcase_add_test(add_case(suite, "binary"), binary);
    tcase_add_test(add_case(suite, "reference"), reference);
    return run_suite(suite);
}
