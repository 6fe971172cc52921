/*
 * See every.h.
 */
#include "every.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
    size_t rows, classes;
} shapes[] = {{1, 1}, {1, 7}, {5, 3}, {19, 10}, {64, 33}, {3, 100}, {9, 256}, {5, 1000}, {2, 8225}, {1, 32768}};

enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void in_order(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context;
    for (size_t i = 0; i < tasks; i++)
        task(argument, i);
}

static const xent_executor executor = {in_order, NULL, 4};

static int fused_with(struct every *e, xent_options options)
{
    options.lse = e->lse;
    return (int)xent_fused_f32(e->x, e->y32, e->rows, e->classes, e->loss, e->out, &options);
}

static int fused(struct every *e)
{
    return fused_with(e, (xent_options)XENT_OPTIONS_INIT);
}

static void copy_logits(struct every *e)
{
    for (size_t i = 0; i < e->rows * e->classes; i++)
        e->out[i] = e->x[i];
}

static int fused_in_place(struct every *e)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    copy_logits(e);
    return (int)xent_fused_f32(e->out, e->y32, e->rows, e->classes, e->loss, e->out, &options);
}

static int fused_forward(struct every *e)
{
    return (int)xent_fused_f32(e->x, e->y32, e->rows, e->classes, e->loss, NULL, NULL);
}

static int fused_smooth(struct every *e)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.label_smoothing = 0.125f;
    options.class_weights = e->w;
    return fused_with(e, options);
}

static int fused_tasks(struct every *e)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.executor = &executor;
    return fused_with(e, options);
}

static int fused_wide(struct every *e)
{
    return (int)xent_fused_f32_i64(e->x, e->y64, e->rows, e->classes, e->loss, e->out, NULL);
}

static int refused(struct every *e)
{
    const int32_t bad = -1;
    size_t row;
    xent_options options = XENT_OPTIONS_INIT;
    options.error_row = &row;
    return (int)xent_fused_f32(e->x, &bad, 1, e->classes, e->loss, e->out, &options);
}

static xent_problem general_problem(struct every *e)
{
    xent_problem p = XENT_PROBLEM_INIT;
    p.outer = e->rows;
    p.classes = e->classes;
    p.logits = e->x;
    p.targets = e->y32;
    p.grad = e->out;
    p.loss = e->loss;
    p.lse = e->lse;
    return p;
}

static int general(struct every *e)
{
    xent_problem p = general_problem(e);
    p.target_type = XENT_LABELS_U16;
    p.targets = e->y16;
    p.row_weights = e->w;
    p.dloss = e->t;
    return (int)xent_cross_entropy(&p);
}

static int general_images(struct every *e)
{
    xent_problem p = general_problem(e);
    p.outer = 1;
    p.inner = e->rows;
    p.target_type = XENT_LABELS_U8;
    p.targets = e->y8;
    p.label_smoothing = 0.25;
    p.class_weights = e->w;
    p.reduction = XENT_SUM;
    return (int)xent_cross_entropy(&p);
}

static int general_labels(struct every *e)
{
    xent_problem p = general_problem(e);
    p.target_type = XENT_LABELS_I64;
    p.targets = e->y64;
    p.labels = 2;
    p.probabilities = e->t;
    p.executor = &executor;
    return (int)xent_cross_entropy(&p);
}

static int general_probabilities(struct every *e)
{
    xent_problem p = general_problem(e);
    p.target_type = XENT_PROBABILITIES;
    p.targets = e->t;
    p.reduction = XENT_NONE;
    return (int)xent_cross_entropy(&p);
}

static int general_f64(struct every *e)
{
    xent_problem p = general_problem(e);
    p.dtype = XENT_F64;
    p.logits = e->x64;
    p.grad = e->out64;
    p.loss = e->loss64;
    p.lse = NULL;
    p.row_weights = e->w64;
    return (int)xent_cross_entropy(&p);
}

static int logsumexp(struct every *e)
{
    return (int)xent_logsumexp_f32(e->x, e->rows, e->classes, 0, e->lse);
}

static int softmax(struct every *e)
{
    return (int)xent_softmax_f32(e->x, e->rows, e->classes, 0, e->out, 0);
}

static int softmax_in_place(struct every *e)
{
    copy_logits(e);
    return (int)xent_softmax_f32(e->out, e->rows, e->classes, 0, e->out, 0);
}

static int log_softmax(struct every *e)
{
    return (int)xent_log_softmax_f32(e->x, e->rows, e->classes, 0, e->out, 0);
}

static int bce(struct every *e)
{
    return (int)xent_bce_f32(e->x, e->t, e->rows, e->classes, e->loss, e->out, NULL);
}

static int bce_weighted(struct every *e)
{
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.weights = e->w;
    options.weight_class_stride = 1;
    options.pos_weight = e->w;
    options.executor = &executor;
    return (int)xent_bce_f32(e->x, e->t, e->rows, e->classes, e->loss, e->out, &options);
}

static int names(struct every *e)
{
    (void)e;
    const char *isa = xent_isa();
    const int known = xent_isas()[0] && xent_built_isas()[0] && xent_isa_missing(isa) && xent_status_string(XENT_OK);
    return (int)xent_select(isa) + xent_version() + xent_numerics_version() + known;
}

static const struct {
    const char *name;
    int (*call)(struct every *every);
} calls[] = {
    {"fused", fused},
    {"fused in place", fused_in_place},
    {"forward", fused_forward},
    {"smoothing and weights", fused_smooth},
    {"fused, in tasks", fused_tasks},
    {"wide targets", fused_wide},
    {"a refused call", refused},
    {"general: row weights and dloss", general},
    {"general: images", general_images},
    {"general: labels with probabilities", general_labels},
    {"general: probabilities", general_probabilities},
    {"general: doubles", general_f64},
    {"logsumexp", logsumexp},
    {"softmax", softmax},
    {"softmax in place", softmax_in_place},
    {"log-softmax", log_softmax},
    {"bce", bce},
    {"bce, weighted, in tasks", bce_weighted},
    {"names and versions", names},
};

const size_t every_count = sizeof calls / sizeof calls[0] * SHAPES;

struct every *every_new(void)
{
    struct every *e = allocate(sizeof *e);
    struct rng rng = {1};
    memset(e, 0, sizeof *e);
    for (size_t i = 0; i < EVERY_ELEMENTS; i++) {
        e->x[i] = rng_normal(&rng) * 4 + (i % 5 == 0 && i > EVERY_ELEMENTS / 2 ? 2000.0f : 0.0f);
        e->x64[i] = (double)e->x[i];
        e->t[i] = (float)(rng_below(&rng, 9)) * 0.125f;
        e->w[i] = (float)(1 + rng_below(&rng, 15)) * 0.125f;
        e->w64[i] = (double)e->w[i];
    }
    return e;
}

void every_run(struct every *e, size_t i)
{
    const size_t shape = i % SHAPES, labels = sizeof e->y32 / sizeof e->y32[0];
    e->rows = shapes[shape].rows;
    e->classes = shapes[shape].classes;
    for (size_t k = 0; k < labels; k++) {
        const size_t y = k * 31 % e->classes;
        e->y32[k] = k % 7 == 6 ? -100 : (int32_t)y;
        e->y64[k] = e->y32[k];
        e->y16[k] = (uint16_t)y;
        e->y8[k] = (uint8_t)(y % 256);
    }
    const int returned = calls[i / SHAPES].call(e);
    e->lse[EVERY_ROWS - 1] += (float)returned;
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
    const uint32_t *words = bytes;
    for (size_t i = 0; i < size / sizeof *words; i++)
        hash = (hash ^ words[i]) * UINT64_C(0x100000001b3);
    return hash;
}

uint64_t every_hash(const struct every *e)
{
    const size_t n = e->rows * e->classes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    hash = hash_bytes(hash, e->out, n * sizeof(float));
    hash = hash_bytes(hash, e->loss, n * sizeof(float));
    hash = hash_bytes(hash, e->lse, sizeof e->lse);
    hash = hash_bytes(hash, e->out64, n * sizeof(double));
    return hash_bytes(hash, e->loss64, sizeof e->loss64);
}

uint64_t every_result(struct every *e, size_t i)
{
    memset(e->out, 0, sizeof e->out);
    memset(e->out64, 0, sizeof e->out64);
    memset(e->loss, 0, sizeof e->loss);
    memset(e->lse, 0, sizeof e->lse);
    memset(e->loss64, 0, sizeof e->loss64);
    every_run(e, i);
    return every_hash(e);
}

struct every_text every_describe(size_t i)
{
    struct every_text description;
    snprintf(description.text, sizeof description.text, "%s, %zu x %zu", calls[i / SHAPES].name,
             shapes[i % SHAPES].rows, shapes[i % SHAPES].classes);
    return description;
}
