/*
 * Hunts for the worst rows: random ones hardly ever meet two bad exponentials of opposite sign.
 *
 * A probability e_a / (e_a + e_b) is off by p_b times the difference between the relative errors of e_a and e_b. So the
 * logits with the largest errors of either sign are looked for first, and then all pairs of one of each are rows.
 *
 * The error of a single exponential shows in the loss of a row {x, c} with target c far above x: it is log1p(e_x /
 * e_c), and its errors, averaged over several c, are those of e_x but for a constant.
 */
#include "hunt.h"

#include "measure.h"

#include <math.h>
#include <stdlib.h>

enum { COMPANIONS = 8, CAUGHT = 120 };

/* A logit and the relative error of its exponential, in 2^-24. */
struct suspect {
    float x;
    double error;
};

static double exponential_error(float x)
{
    float logits[COMPANIONS * 2], losses[COMPANIONS];
    int32_t targets[COMPANIONS];
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    for (int i = 0; i < COMPANIONS; i++) {
        logits[2 * i] = x;
        logits[2 * i + 1] = 90.0f + (float)i * 0.09f;
        targets[i] = 1;
    }
    expect_status("hunt", xent_fused_f32(logits, targets, COMPANIONS, 2, losses, NULL, &options), XENT_OK);
    double sum = 0.0;
    for (int i = 0; i < COMPANIONS; i++)
        sum += (double)losses[i] / log1p(exp((double)x - (double)logits[2 * i + 1])) - 1.0;
    return sum / COMPANIONS * 0x1p24;
}

/* Keeps the CAUGHT largest times sign, the smallest of them last. */
static void keep_if_worse(struct suspect *caught, struct suspect suspect, double sign)
{
    size_t at = CAUGHT;
    while (at > 0 && sign * suspect.error > sign * caught[at - 1].error)
        at--;
    if (at == CAUGHT)
        return;
    memmove(caught + at + 1, caught + at, (CAUGHT - at - 1) * sizeof *caught);
    caught[at] = suspect;
}

START_TEST(hunted_rows)
{
    struct suspect high[CAUGHT] = {{0}}, low[CAUGHT] = {{0}};
    struct measure m;
    struct rng rng = rng_stream(600);
    measure_init(&m, 3);
    use_kernel(xent_isas()[0]);
    name_case("accuracy of hunted rows");
    for (size_t i = 0; i < scaled(1000000); i++) {
        /* Such that no loss is subnormal. */
        struct suspect suspect = {.x = (float)rng_uniform(&rng, 4.0, 60.0)};
        suspect.error = exponential_error(suspect.x);
        keep_if_worse(high, suspect, 1.0);
        keep_if_worse(low, suspect, -1.0);
    }
    note("hunted: relative errors of exponentials from %.2f to %.2f * 2^-24 but for a constant (at %a and %a)",
         low[0].error, high[0].error, (double)low[0].x, (double)high[0].x);
    for (size_t i = 0; i < CAUGHT; i++) {
        for (size_t j = 0; j < CAUGHT; j++) {
            /* The target is a third class that weighs nothing; then the two change places in the row. */
            m.x[0] = high[i].x;
            m.x[1] = low[j].x;
            m.x[2] = -60.0f;
            measure_row(&m, 3, 2, i * CAUGHT + j);
            m.x[0] = low[j].x;
            m.x[1] = high[i].x;
            measure_row(&m, 2, (i + j) % 2, i * CAUGHT + j);
        }
    }
    measure_judge(&m, "hunted");
    measure_clear(&m);
}
END_TEST

void add_hunt_tests(TCase *test_case)
{
    tcase_add_test(test_case, hunted_rows);
}
