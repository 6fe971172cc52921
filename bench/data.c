/*
 * The data of the bench: logits of every kind, random targets, and arrays of the same size to write to.
 */
#include "bench.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t seed = 20260401;

/* So many logits are drawn; larger arrays repeat them. */
static const size_t most_drawn = 4u << 20;

/* What the largest layout needs, and the arrays, each made at its first use. */
static size_t most_floats, most_rows;
static float *logits_of[BENCH_KINDS], *work, *grad, *loss;

/* The targets belong to one layout and kind at a time. */
static int32_t *targets;
static struct bench_layout targets_layout;
static enum bench_kind targets_kind;

uint64_t bench_seed(void)
{
    return seed;
}

void bench_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("xent-bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* splitmix64 (Steele, Lea & Flood 2014): any state gives a well-mixed 64-bit value. */
static uint64_t next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Two normal deviates by Box and Muller from two uniforms of 32 bits. The first is never 0, for the logarithm's sake.
 */
static void normal_pair(uint64_t *state, float pair[2])
{
    uint64_t bits = next(state);
    float u = ((float)(uint32_t)bits + 1.0f) * 0x1p-32f;
    float angle = (float)(uint32_t)(bits >> 32) * (0x1p-32f * 6.2831853f);
    float radius = sqrtf(-2.0f * logf(u));
    pair[0] = radius * cosf(angle);
    pair[1] = radius * sinf(angle);
}

/* Every page is written to once, so that no timed run meets one that is not there yet. */
static void *allocate(size_t size)
{
    /* Cache lines keep vectors from straddling two of them; ordinary pages are what an engine's buffers have. Each
       array begins at another place of a page: on Zen 4 some distances between two that begin alike are slow
       (33554x1000 out of place: .48 ns per logit, and not .34). */
    enum { CACHE_LINE = 64, PAGE = 4096 };
    static size_t arrays;
    const size_t offset = arrays++ * 9 * CACHE_LINE % PAGE;
    size = (size + PAGE + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    char *memory = aligned_alloc(CACHE_LINE, size);
    if (!memory)
        bench_fail("no memory for %zu MB", size >> 20);
    memset(memory, 0, size);
    return memory + offset;
}

struct bench_shape_text bench_shape_name(struct bench_shape shape)
{
    struct bench_shape_text name;
    size_t side = 1;
    while (side * side < shape.inner)
        side++;
    if (!shape.inner)
        snprintf(name.text, sizeof name.text, "%zux%zu", shape.rows, shape.classes);
    else if (side * side == shape.inner)
        snprintf(name.text, sizeof name.text, "%zux%zux%zux%zu", shape.rows / shape.inner, shape.classes, side, side);
    else
        snprintf(name.text, sizeof name.text, "%zux%zux%zu", shape.rows / shape.inner, shape.classes, shape.inner);
    return name;
}

size_t bench_class_stride(struct bench_shape shape)
{
    return shape.inner ? shape.inner : 1;
}

size_t bench_row_start(struct bench_shape shape, size_t row)
{
    if (!shape.inner)
        return row * shape.classes;
    return row / shape.inner * shape.inner * shape.classes + row % shape.inner;
}

struct bench_layout bench_lay_out(struct bench_shape shape, size_t bytes)
{
    struct bench_layout layout = {.shape = shape};
    layout.floats = (shape.rows * shape.classes + BENCH_BLOCK - 1) / BENCH_BLOCK * BENCH_BLOCK;
    layout.buffers = bytes / (layout.floats * sizeof(float)) + (bytes % (layout.floats * sizeof(float)) != 0);
    if (layout.buffers < 1)
        layout.buffers = 1;
    return layout;
}

void bench_reserve(const struct bench_layout *layout)
{
    size_t floats = layout->floats * layout->buffers, rows = layout->shape.rows * layout->buffers;
    most_floats = floats > most_floats ? floats : most_floats;
    most_rows = rows > most_rows ? rows : most_rows;
}

static float *normal_logits(void)
{
    float *logits = allocate(most_floats * sizeof(float));
    size_t drawn = most_floats < most_drawn ? most_floats : most_drawn;
    uint64_t state = seed;
    for (size_t i = 0; i < drawn; i += 2) {
        normal_pair(&state, logits + i);
        logits[i] *= 3.0f;
        logits[i + 1] *= 3.0f;
    }
    for (size_t i = drawn; i < most_floats; i += drawn)
        memcpy(logits + i, logits, (most_floats - i < drawn ? most_floats - i : drawn) * sizeof(float));
    return logits;
}

static const float *logits_of_kind(enum bench_kind kind)
{
    if (kind == BENCH_IGNORED)
        kind = BENCH_NORMAL;
    if (logits_of[kind])
        return logits_of[kind];
    if (kind == BENCH_NORMAL)
        return logits_of[kind] = normal_logits();
    const float *normal = logits_of_kind(BENCH_NORMAL);
    float *logits = logits_of[kind] = allocate(most_floats * sizeof(float));
    uint64_t state = seed + 1;
    for (size_t i = 0; i < most_floats; i++)
        logits[i] = kind == BENCH_OFFSET                            ? normal[i] + 1e4f
                    : kind == BENCH_WIDE                            ? normal[i] * 10.0f
                    : kind == BENCH_MASKED && next(&state) % 3 == 0 ? -INFINITY
                                                                    : normal[i];
    return logits;
}

/* The first class from the drawn one on, in a circle, that is not masked. */
static size_t unmasked(const float *row, size_t stride, size_t classes, size_t drawn)
{
    size_t target = drawn;
    while (row[target * stride] == -INFINITY) {
        target = target + 1 < classes ? target + 1 : 0;
        if (target == drawn)
            break;
    }
    return target;
}

static void make_targets(const struct bench_layout *layout, enum bench_kind kind, const float *logits)
{
    struct bench_layout *made = &targets_layout;
    if (made->shape.rows == layout->shape.rows && made->shape.classes == layout->shape.classes &&
        made->shape.inner == layout->shape.inner && made->buffers == layout->buffers && targets_kind == kind)
        return;
    *made = *layout;
    targets_kind = kind;
    size_t rows = layout->shape.rows, classes = layout->shape.classes;
    const int32_t ignored = -100;
    uint64_t state = seed ^ classes;
    for (size_t i = 0; i < rows * layout->buffers; i++) {
        uint64_t bits = next(&state);
        size_t target = bits % classes;
        if (kind == BENCH_MASKED)
            target = unmasked(logits + i / rows * layout->floats + bench_row_start(layout->shape, i % rows),
                              bench_class_stride(layout->shape), classes, target);
        targets[i] = kind == BENCH_IGNORED && bits >> 63 ? ignored : (int32_t)target;
    }
    targets[rows * layout->buffers] = 0;
}

struct bench_data bench_make_data(const struct bench_layout *layout, enum bench_kind kind)
{
    if (!work) {
        work = allocate(most_floats * sizeof(float));
        grad = allocate(most_floats * sizeof(float));
        loss = allocate(most_rows * sizeof(float));
        targets = allocate((most_rows + 1) * sizeof(int32_t));
    }
    const float *logits = logits_of_kind(kind);
    make_targets(layout, kind, logits);
    return (struct bench_data){.logits = logits, .work = work, .grad = grad, .loss = loss, .targets = targets};
}

void bench_add_options(struct bench_data *data, const struct bench_layout *layout)
{
    static float *weights, *probabilities;
    if (!weights) {
        weights = allocate(most_floats * sizeof(float));
        probabilities = allocate(most_floats * sizeof(float));
    }
    uint64_t state = seed + 2;
    const size_t classes = layout->shape.classes, drawn = layout->floats < most_drawn ? layout->floats : most_drawn;
    for (size_t j = 0; j < classes; j++)
        weights[j] = (float)(next(&state) >> 40) * 0x1p-24f + 0.5f;
    for (size_t i = 0; i < drawn; i++)
        probabilities[i] = (float)(next(&state) >> 40) * 0x1p-23f / (float)classes;
    for (size_t i = drawn; i < layout->floats * layout->buffers; i++)
        probabilities[i] = probabilities[i - drawn];
    data->weights = weights;
    data->probabilities = probabilities;
}

void bench_add_doubles(struct bench_data *data, const struct bench_layout *layout)
{
    static double *doubles, *double_loss;
    if (!doubles) {
        doubles = allocate(most_floats * sizeof(double));
        double_loss = allocate(most_rows * sizeof(double));
    }
    for (size_t i = 0; i < layout->floats * layout->buffers; i++)
        doubles[i] = (double)data->logits[i];
    data->doubles = doubles;
    data->double_loss = double_loss;
}

struct bench_data bench_data_at(const struct bench_data *first, const struct bench_layout *layout, size_t index)
{
    size_t floats = index * layout->floats, rows = index * layout->shape.rows;
    return (struct bench_data){.logits = first->logits + floats,
                               .work = first->work + floats,
                               .grad = first->grad + floats,
                               .loss = first->loss + rows,
                               .targets = first->targets + rows,
                               .weights = first->weights,
                               .probabilities = first->probabilities ? first->probabilities + floats : NULL,
                               .doubles = first->doubles ? first->doubles + floats : NULL,
                               .double_loss = first->double_loss ? first->double_loss + rows : NULL};
}

/* In pieces, because a large memcpy takes streaming stores on some systems, and would leave the caches without the
   array that a small shape is to find there. */
enum { PIECE = 16384 };

struct restoring {
    const struct bench_data *at;
    size_t floats;
};

static void restore_piece(void *argument, size_t index)
{
    const struct restoring *r = argument;
    size_t begin = index * PIECE, left = r->floats - begin;
    memcpy(r->at->work + begin, r->at->logits + begin, (left < PIECE ? left : PIECE) * sizeof(float));
}

void bench_restore(const struct bench_data *at, const struct bench_layout *layout, size_t count, size_t threads)
{
    struct restoring r = {.at = at, .floats = count * layout->floats};
    bench_parallel(threads, restore_piece, &r, (r.floats + PIECE - 1) / PIECE);
}
