/*
 * See bce.h.
 */
#include "bce.h"

#include <math.h>
#include <stdlib.h>

const struct bce_layout bce_plain = {.weight_step = 1};

struct bce bce_new(size_t rows, size_t classes)
{
    const size_t bytes = rows * classes * sizeof(float);
    return (struct bce){.rows = rows,
                        .classes = classes,
                        .x = allocate(bytes),
                        .t = allocate(bytes),
                        .w = allocate(bytes),
                        .p = allocate(classes * sizeof(float))};
}

void bce_free(struct bce *b)
{
    free(b->x);
    free(b->t);
    free(b->w);
    free(b->p);
}

void bce_fill(struct bce *b, struct rng *rng)
{
    static const float scales[] = {0.1f, 1.0f, 3.0f, 30.0f};
    b->weighted = rng_chance(rng, 0.5);
    b->positive = rng_chance(rng, 0.5);
    for (size_t e = 0; e < b->rows * b->classes; e++) {
        b->x[e] = rng_normal(rng) * scales[rng_below(rng, 4)];
        b->t[e] = rng_chance(rng, 0.3) ? (float)rng_uniform(rng, 0.0, 1.0) : (float)rng_below(rng, 2);
        b->w[e] = (float)rng_uniform(rng, 0.0, 4.0);
    }
    for (size_t j = 0; j < b->classes; j++)
        b->p[j] = (float)rng_uniform(rng, 0.0, 10.0);
}

struct bce_layout bce_random_layout(struct rng *rng)
{
    struct bce_layout layout = {.weight_step = 1 + rng_below(rng, 3), .in_place = rng_chance(rng, 0.4)};
    for (int i = 0; i < 5; i++)
        layout.offsets[i] = rng_below(rng, 16);
    for (int i = 0; i < 4; i++)
        layout.gaps[i] = rng_chance(rng, 0.5) ? 0 : rng_below(rng, 40);
    layout.forward_only = !layout.in_place && rng_chance(rng, 0.3);
    return layout;
}

struct bce_results bce_results_new(const struct bce *b)
{
    const size_t bytes = b->rows * b->classes * sizeof(float);
    return (struct bce_results){.loss = allocate(bytes), .grad = allocate(bytes), .mean_grad = allocate(bytes)};
}

void bce_results_free(struct bce_results *r)
{
    free(r->loss);
    free(r->grad);
    free(r->mean_grad);
}

static float *lay_out(const struct bce *b, const float *packed, float *to, size_t row_stride, size_t step)
{
    for (size_t i = 0; i < b->rows; i++)
        for (size_t j = 0; j < b->classes; j++)
            to[i * row_stride + j * step] = packed[i * b->classes + j];
    return to;
}

static void run_one(const struct bce *b, const struct bce_layout *l, xent_reduction reduction, float *loss, float *grad)
{
    enum { LOGITS, TARGETS, WEIGHTS, GRAD };
    size_t strides[4];
    float *room[4];
    for (int i = 0; i < 4; i++) {
        strides[i] = b->classes * (i == WEIGHTS ? l->weight_step : 1) + l->gaps[i];
        room[i] = allocate((b->rows * strides[i] + 16) * sizeof(float));
    }
    float *losses = allocate((b->rows * b->classes + 16) * sizeof(float));
    float *x = lay_out(b, b->x, room[LOGITS] + l->offsets[LOGITS], strides[LOGITS], 1);
    const float *t = lay_out(b, b->t, room[TARGETS] + l->offsets[TARGETS], strides[TARGETS], 1);
    const float *w = lay_out(b, b->w, room[WEIGHTS] + l->offsets[WEIGHTS], strides[WEIGHTS], l->weight_step);
    float *g = l->in_place ? x : room[GRAD] + l->offsets[GRAD], *out = losses + l->offsets[4];
    const size_t grad_stride = l->in_place ? strides[LOGITS] : strides[GRAD];
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = reduction;
    options.logits_stride = strides[LOGITS];
    options.targets_stride = strides[TARGETS];
    options.grad_stride = grad_stride;
    options.weights = b->weighted ? w : NULL;
    options.weight_row_stride = strides[WEIGHTS];
    options.weight_class_stride = l->weight_step;
    options.pos_weight = b->positive ? b->p : NULL;
    options.executor = l->executor;
    expect_status("xent_bce_f32", xent_bce_f32(x, t, b->rows, b->classes, out, l->forward_only ? NULL : g, &options),
                  XENT_OK);
    memcpy(loss, out, (reduction == XENT_NONE ? b->rows * b->classes : 1) * sizeof(float));
    for (size_t i = 0; !l->forward_only && i < b->rows; i++)
        memcpy(grad + i * b->classes, g + i * grad_stride, b->classes * sizeof(float));
    for (int i = 0; i < 4; i++)
        free(room[i]);
    free(losses);
}

void bce_run(const struct bce *b, const struct bce_layout *l, struct bce_results *r)
{
    run_one(b, l, XENT_MEAN, &r->mean, r->mean_grad);
    run_one(b, l, XENT_SUM, &r->sum, r->grad);
    run_one(b, l, XENT_NONE, r->loss, r->grad);
}

void bce_call(const struct bce *b, xent_reduction reduction, float *loss, float *grad)
{
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = reduction;
    options.weights = b->weighted ? b->w : NULL;
    options.weight_row_stride = b->classes;
    options.weight_class_stride = 1;
    options.pos_weight = b->positive ? b->p : NULL;
    expect_status("xent_bce_f32", xent_bce_f32(b->x, b->t, b->rows, b->classes, loss, grad, &options), XENT_OK);
}

double bce_plain_loss(double x, double t, double w, double p)
{
    const double log1p_u = log1p(exp(-fabs(x)));
    return w * (p * t * (fmax(-x, 0.0) + log1p_u) + (1.0 - t) * (fmax(x, 0.0) + log1p_u));
}

double bce_plain_gradient(double x, double t, double w, double p)
{
    return w * ((1.0 - t) / (1.0 + exp(-x)) - p * t / (1.0 + exp(x)));
}
