/*
 * Hunts for the worst rows: random ones hardly ever meet two bad exponentials of opposite sign.
 *
 * A probability e_a / (e_a + e_b) with b far above a is off by the difference between the relative errors of e_a and
 * e_b. So logits with the largest errors of either sign are looked for first, low and high ones, and all pairs of a low
 * one and a high one of the other sign are rows: probabilities from a tenth to the end of the float range.
 *
 * The error of a single exponential shows in the loss of a row {x, c} with target c far above x: it is log1p(e_x /
 * e_c), where e_c is very nearly exact, and its errors, averaged over several c, are those of e_x.
 */
#include "hunt.h"

#include "measure.h"

#include <math.h>
#include <stdlib.h>

enum { COMPANIONS = 8, CAUGHT = 100 };

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
        logits[2 * i + 1] = x + 30.0f + (float)i * 0.09f;
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

/* The logits in a range with the largest errors of either sign. */
struct prey {
    struct suspect above[CAUGHT], below[CAUGHT];
};

static struct prey hunt(struct rng *rng, double low, double high)
{
    struct prey prey = {.above = {{0.0f, 0.0}}};
    for (size_t i = 0; i < scaled(500000); i++) {
        struct suspect suspect = {.x = (float)rng_uniform(rng, low, high)};
        suspect.error = exponential_error(suspect.x);
        keep_if_worse(prey.above, suspect, 1.0);
        keep_if_worse(prey.below, suspect, -1.0);
    }
    note("hunted: relative errors of exp(x) for x in %g..%g from %.2f to %.2f * 2^-24 (at %a and %a)", low, high,
         prey.below[0].error, prey.above[0].error, (double)prey.below[0].x, (double)prey.above[0].x);
    return prey;
}

static void measure_pairs(struct measure *m, const struct suspect *low, const struct suspect *high)
{
    for (size_t i = 0; i < CAUGHT; i++) {
        for (size_t j = 0; j < CAUGHT; j++) {
            /* The target is a third class that weighs nothing; then the two change places in the row. */
            m->x[0] = low[i].x;
            m->x[1] = high[j].x;
            m->x[2] = -150.0f;
            measure_row(m, 3, 2, i * CAUGHT + j);
            m->x[0] = high[j].x;
            m->x[1] = low[i].x;
            measure_row(m, 2, (i + j) % 2, i * CAUGHT + j);
        }
    }
}

START_TEST(hunted_rows)
{
    struct measure m;
    struct rng rng = rng_stream(600);
    measure_init(&m, 3);
    use_kernel(xent_isas()[0]);
    name_case("accuracy of hunted rows");
    struct prey low = hunt(&rng, -50.0, 20.0), high = hunt(&rng, 20.0, 60.0);
    measure_pairs(&m, low.above, high.below);
    measure_pairs(&m, low.below, high.above);
    measure_judge(&m, "hunted");
    measure_clear(&m);
}
END_TEST

void add_hunt_tests(TCase *test_case)
{
    tcase_add_test(test_case, hunted_rows);
}
