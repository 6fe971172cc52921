/*
 * The second fingerprint of golden.c: the general call with everything that xent_fused_f32 has not, and binary cross
 * entropy.
 */
#include "golden.h"

#include <math.h>
#include <stdlib.h>

enum { OUTER = 3, INNER = 4, ROWS = OUTER * INNER, LABELS = 3, VARIANTS = 10, LAYOUTS = 4 };

static const size_t sizes[] = {1, 2, 3, 5, 10, 16, 33, 64, 100, 257, 1000, 2050};

/* Every array of a problem, in floats and in doubles. */
struct corpus {
    size_t classes, room; /* room: of logits, gradient and probabilities in any layout */
    float *x, *q, *out, *class_weights, *row_weights, *dloss, *label_probabilities, *loss, *lse;
    double *x64, *q64, *out64, *class_weights64, *row_weights64, *dloss64, *label_probabilities64, *loss64, *lse64;
    int32_t *y32;
    int64_t *y64;
    uint8_t *y8;
    uint16_t *y16;
};

static float *floats(const struct way *way, size_t count)
{
    float *memory = allocate((count + 16) * sizeof(float));
    return memory + way->offset;
}

static double *doubles(const struct way *way, size_t count)
{
    double *memory = allocate((count + 16) * sizeof(double));
    return memory + way->offset;
}

/* The same numbers in both types. */
static void fill(struct rng *rng, float *narrow, double *wide, size_t count, enum kind kind, size_t classes)
{
    for (size_t i = 0; i < count; i++) {
        narrow[i] = golden_logit(rng, kind, classes);
        wide[i] = (double)narrow[i];
    }
}

/* Multiples of an eighth from low eighths on. */
static void fill_eighths(struct rng *rng, float *narrow, double *wide, size_t count, int low, uint64_t number)
{
    for (size_t i = 0; i < count; i++) {
        wide[i] = (double)(low + (int)(rng_next(rng) % number)) * 0.125;
        narrow[i] = (float)wide[i];
    }
}

static struct corpus corpus_new(const struct way *way, struct rng *rng, enum kind kind, size_t classes)
{
    const size_t room = ROWS * classes + 64;
    struct corpus c = {classes,
                       room,
                       floats(way, room),
                       floats(way, room),
                       floats(way, room),
                       floats(way, classes),
                       floats(way, ROWS),
                       floats(way, ROWS),
                       floats(way, ROWS * LABELS),
                       floats(way, room),
                       floats(way, ROWS),
                       doubles(way, room),
                       doubles(way, room),
                       doubles(way, room),
                       doubles(way, classes),
                       doubles(way, ROWS),
                       doubles(way, ROWS),
                       doubles(way, ROWS * LABELS),
                       doubles(way, ROWS),
                       doubles(way, ROWS),
                       allocate(ROWS * LABELS * sizeof(int32_t)),
                       allocate(ROWS * LABELS * sizeof(int64_t)),
                       allocate(ROWS * LABELS),
                       allocate(ROWS * LABELS * sizeof(uint16_t))};
    fill(rng, c.x, c.x64, room, kind, classes);
    fill_eighths(rng, c.q, c.q64, room, 0, 9);
    fill_eighths(rng, c.class_weights, c.class_weights64, classes, 0, 16);
    fill_eighths(rng, c.row_weights, c.row_weights64, ROWS, 0, 12);
    fill_eighths(rng, c.dloss, c.dloss64, ROWS, -8, 24);
    fill_eighths(rng, c.label_probabilities, c.label_probabilities64, ROWS * LABELS, 0, 9);
    for (size_t i = 0; i < ROWS * LABELS; i++) {
        const size_t y = rng_below(rng, classes);
        c.y32[i] = rng_next(rng) % 9 == 0 ? -100 : (int32_t)y;
        c.y64[i] = c.y32[i];
        c.y16[i] = (uint16_t)y;
        c.y8[i] = (uint8_t)(y % 256);
    }
    return c;
}

static void corpus_free(const struct way *way, const struct corpus *c)
{
    float *const all[] = {c->x,    c->q,  c->out, c->class_weights, c->row_weights, c->dloss, c->label_probabilities,
                          c->loss, c->lse};
    double *const all64[] = {
        c->x64,    c->q64,  c->out64, c->class_weights64, c->row_weights64, c->dloss64, c->label_probabilities64,
        c->loss64, c->lse64};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i] - way->offset);
    for (size_t i = 0; i < sizeof all64 / sizeof all64[0]; i++)
        free(all64[i] - way->offset);
    free(c->y32);
    free(c->y64);
    free(c->y8);
    free(c->y16);
}

/* Rows, rows with gaps, images, and images with the channels last. */
static void lay_out(xent_problem *p, xent_strides *strides, int layout)
{
    p->outer = layout < 2 ? ROWS : OUTER;
    p->inner = layout < 2 ? 1 : INNER;
    if (layout == 1)
        *strides = (xent_strides){p->classes + 5, 1, 0};
    else if (layout == 3)
        *strides = (xent_strides){INNER * p->classes + 7, 1, p->classes};
    if (layout % 2 == 1)
        p->logits_strides = p->grad_strides = strides;
}

static void describe_targets(xent_problem *p, const struct corpus *c, int variant)
{
    const bool wide = p->dtype == XENT_F64;
    p->targets = c->y32;
    if (variant == 1) {
        p->target_type = XENT_LABELS_I64;
        p->targets = c->y64;
    } else if (variant == 2) {
        p->target_type = XENT_LABELS_U8;
        p->targets = c->y8;
    } else if (variant == 3) {
        p->target_type = XENT_LABELS_U16;
        p->targets = c->y16;
    } else if (variant >= 4 && variant < 7) {
        p->labels = variant == 4 ? LABELS : 2;
        p->probabilities = variant == 6 ? NULL : wide ? (const void *)c->label_probabilities64 : c->label_probabilities;
    } else if (variant == 7 || variant == 8) {
        p->target_type = XENT_PROBABILITIES;
        p->targets = wide ? (const void *)c->q64 : c->q;
        p->targets_strides = p->logits_strides;
    }
}

static void describe_options(xent_problem *p, const struct corpus *c, int variant)
{
    const bool wide = p->dtype == XENT_F64;
    if (variant == 1 || variant == 5 || variant == 8)
        p->label_smoothing = 0.125;
    if (variant == 2 || variant == 5 || variant == 8)
        p->class_weights = wide ? (const void *)c->class_weights64 : c->class_weights;
    if (variant == 3 || variant == 4) {
        p->row_weights = wide ? (const void *)c->row_weights64 : c->row_weights;
        p->dloss = wide ? (const void *)c->dloss64 : c->dloss;
    }
    if (variant == 9)
        p->normalizer = 7;
}

static uint64_t run_general(uint64_t hash, const struct way *way, const struct corpus *c, xent_problem *p)
{
    size_t kept = 0;
    double denominator = 0;
    const bool wide = p->dtype == XENT_F64;
    memset(c->out, 0, c->room * sizeof(float));
    memset(c->out64, 0, c->room * sizeof(double));
    p->logits = wide ? (const void *)c->x64 : c->x;
    p->grad = wide ? (void *)c->out64 : c->out;
    p->loss = wide ? (void *)c->loss64 : c->loss;
    p->lse = wide ? (void *)c->lse64 : c->lse;
    p->kept_rows = &kept;
    p->denominator = &denominator;
    p->executor = way->executor;
    const uint64_t control = way_enter(way);
    const xent_status status = xent_cross_entropy(p);
    way_leave(control);
    expect_status("general call", status, XENT_OK);
    const size_t losses = p->reduction == XENT_NONE ? ROWS : 1;
    hash = golden_mix64(hash ^ kept, &denominator, 1);
    if (wide)
        return golden_mix64(golden_mix64(golden_mix64(hash, c->loss64, losses), c->lse64, ROWS), c->out64, c->room);
    hash = golden_mix(golden_mix(hash, c->loss, losses), c->lse, ROWS);
    return golden_mix(hash, c->out, c->room);
}

static uint64_t run_bce(uint64_t hash, const struct way *way, const struct corpus *c, xent_bce_options options)
{
    const bool may_split = options.reduction == XENT_NONE;
    options.executor = way->executor;
    for (size_t first = 0; first < ROWS;) {
        const size_t rows = may_split ? way_piece(way, ROWS - first) : ROWS, at = first * c->classes;
        const uint64_t control = way_enter(way);
        const xent_status status =
            xent_bce_f32(c->x + at, c->q + at, rows, c->classes, c->loss + at, c->out + at, &options);
        way_leave(control);
        expect_status("bce", status, XENT_OK);
        first += rows;
    }
    hash = golden_mix(hash, c->loss, may_split ? ROWS * c->classes : 1);
    return golden_mix(hash, c->out, ROWS * c->classes);
}

static uint64_t run_size(uint64_t hash, const struct way *way, struct rng *rng, xent_dtype dtype, enum kind kind,
                         size_t classes)
{
    const struct corpus c = corpus_new(way, rng, kind, classes);
    for (int variant = 0; variant < VARIANTS; variant++)
        for (int turn = 0; turn < (classes >= MANY_CLASSES ? 1 : 3); turn++) {
            xent_strides strides;
            xent_problem p = XENT_PROBLEM_INIT;
            p.dtype = dtype;
            p.classes = classes;
            p.reduction = (xent_reduction)rng_below(rng, 3);
            lay_out(&p, &strides, (int)rng_below(rng, LAYOUTS));
            describe_targets(&p, &c, variant);
            describe_options(&p, &c, variant);
            if (variant == 2 && classes < 256)
                for (size_t i = 0; i < ROWS * LABELS; i++)
                    c.y8[i] = (uint8_t)(c.y8[i] % classes);
            hash = run_general(hash, way, &c, &p);
        }
    for (xent_reduction reduction = XENT_MEAN; dtype == XENT_F32 && reduction <= XENT_NONE; reduction++) {
        xent_bce_options options = XENT_BCE_OPTIONS_INIT;
        options.reduction = reduction;
        hash = run_bce(hash, way, &c, options);
        options.weights = c.class_weights;
        options.weight_class_stride = 1;
        options.pos_weight = c.class_weights;
        hash = run_bce(hash, way, &c, options);
    }
    corpus_free(way, &c);
    return hash;
}

uint64_t golden_general(const struct way *way, xent_dtype dtype)
{
    struct rng rng = {UINT64_C(20240301)};
    uint64_t hash = GOLDEN_START;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int kind = 0; kind < KINDS && way_takes(way, sizes[s]); kind++)
            hash = run_size(hash, way, &rng, dtype, (enum kind)kind, sizes[s]);
    return hash;
}
