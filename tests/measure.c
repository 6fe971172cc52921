/*
 * See measure.h.
 */
#include "measure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name, *unit;
    double bound;
} quantities[QUANTITIES] = {
    [LOSS] = {"loss", "ULP", 2.0},
    [TARGET_GRADIENT] = {"target's gradient", "ULP", 3.0},
    [GRADIENT] = {"gradient", "ULP", 3.0},
    [SOFTMAX] = {"softmax", "ULP", 3.0},
    [LOG_SOFTMAX] = {"log-softmax", "ULP", 3.0},
    [LSE] = {"lse", "of its bound", 1.0},
};

void measure_init(struct measure *measure, size_t max_classes)
{
    size_t bytes = max_classes * sizeof(float);
    memset(measure, 0, sizeof *measure);
    measure->x = allocate(bytes);
    measure->grad = allocate(bytes);
    measure->probs = allocate(bytes);
    measure->log_probs = allocate(bytes);
    reference_init(&measure->reference, max_classes);
    for (int q = 0; q < QUANTITIES; q++)
        measure->worst[q].distance.ulps = -1.0;
}

void measure_clear(struct measure *measure)
{
    free(measure->x);
    free(measure->grad);
    free(measure->probs);
    free(measure->log_probs);
    reference_clear(&measure->reference);
}

static void count(struct measure *measure, enum quantity quantity, struct distance distance, struct worst where,
                  float got)
{
    struct worst *worst = &measure->worst[quantity];
    if (distance.ulps > worst->distance.ulps) {
        *worst = where;
        worst->distance = distance;
        worst->got = got;
    }
}

void measure_row(struct measure *measure, size_t classes, size_t target, size_t row)
{
    const float *x = measure->x;
    struct worst at = {.classes = classes, .row = row, .target = target};
    for (size_t j = 0; j < 3 && j < classes; j++)
        at.first[j] = x[j];
    int32_t index = (int32_t)target;
    float loss, lse;
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.lse = &lse;
    expect_status("xent_fused_f32", xent_fused_f32(x, &index, 1, classes, &loss, measure->grad, &options), XENT_OK);
    expect_status("xent_softmax_f32", xent_softmax_f32(x, 1, classes, 0, measure->probs, 0), XENT_OK);
    expect_status("xent_log_softmax_f32", xent_log_softmax_f32(x, 1, classes, 0, measure->log_probs, 0), XENT_OK);

    struct reference *reference = &measure->reference;
    reference_row(reference, x, classes);
    at.index = target;
    count(measure, LOSS, reference_loss(reference, target, loss), at, loss);
    count(measure, LSE, reference_lse(reference, lse), at, lse);
    for (size_t j = 0; j < classes; j++) {
        at.index = j;
        float g = measure->grad[j], p = measure->probs[j], lp = measure->log_probs[j];
        count(measure, j == target ? TARGET_GRADIENT : GRADIENT, reference_gradient(reference, target, j, 1, g), at, g);
        count(measure, SOFTMAX, reference_prob(reference, j, p), at, p);
        count(measure, LOG_SOFTMAX, reference_log_prob(reference, j, lp), at, lp);
    }
}

static void describe(const struct measure *measure, int quantity, const char *family, char *text, size_t size)
{
    const struct worst *w = &measure->worst[quantity];
    char logits[100] = "";
    if (w->classes <= 3)
        snprintf(logits, sizeof logits, " logits %a %a %a", (double)w->first[0], (double)w->first[1],
                 (double)w->first[2]);
    snprintf(text, size,
             "%s: %s %.3f %s (seed %" PRIu64 " classes %zu row %zu target %zu index %zu%s: got %a, exact %a)", family,
             quantities[quantity].name, w->distance.ulps, quantities[quantity].unit, test_seed(), w->classes, w->row,
             w->target, w->index, logits, (double)w->got, w->distance.exact);
}

void measure_judge(const struct measure *measure, const char *family)
{
    char text[400];
    for (int q = 0; q < QUANTITIES; q++) {
        if (measure->worst[q].distance.ulps < 0.0)
            continue;
        describe(measure, q, family, text, sizeof text);
        note("%s", text);
    }
    for (int q = 0; q < QUANTITIES; q++) {
        if (measure->worst[q].distance.ulps > quantities[q].bound) {
            describe(measure, q, family, text, sizeof text);
            fail_case("%s", text);
        }
    }
}
