/*
 * Nothing outside an array is read or written: every array lies against a page that cannot be touched, on either side,
 * and what is left of its own pages keeps its canary. So do the elements between strided rows.
 */
#include "memory.h"

#include "guard.h"
#include "rows.h"

#include <stdlib.h>

enum { SMALL_CLASSES = 300, MAX_ROWS = 3, MAX_CLASSES = 16385, MAX_GAP = 20, LINE = 64 };

enum { LOGITS, GRAD, TARGETS, LOSS, LSE, ARRAYS };
static const char *const array_names[ARRAYS] = {"logits", "grad", "targets", "loss", "lse"};

/* The guarded pages of all arrays, and where the arrays of the running case are in them. */
struct arena {
    struct guarded pages[ARRAYS];
    void *array[ARRAYS];
    size_t bytes[ARRAYS];
};

struct shape {
    size_t rows, classes, logits_stride, grad_stride, offset;
    enum guard_edge edge;
    bool in_place, forward_only, wide;
};

static struct arena arena_new(size_t max_classes)
{
    struct arena arena = {0};
    for (size_t i = 0; i < ARRAYS; i++)
        arena.pages[i] = guard_new(i <= GRAD ? MAX_ROWS * (max_classes + MAX_GAP) * sizeof(float) + LINE : 4096);
    return arena;
}

static void arena_free(struct arena *arena)
{
    for (size_t i = 0; i < ARRAYS; i++)
        guard_free(&arena->pages[i]);
}

static void place(struct arena *arena, const struct shape *shape)
{
    arena->bytes[LOGITS] = ((shape->rows - 1) * shape->logits_stride + shape->classes) * sizeof(float);
    arena->bytes[GRAD] = ((shape->rows - 1) * shape->grad_stride + shape->classes) * sizeof(float);
    arena->bytes[TARGETS] = shape->rows * (shape->wide ? sizeof(int64_t) : sizeof(int32_t));
    arena->bytes[LOSS] = arena->bytes[LSE] = shape->rows * sizeof(float);
    for (size_t i = 0; i < ARRAYS; i++)
        arena->array[i] = guard_place_at(&arena->pages[i], arena->bytes[i], shape->edge, shape->offset);
}

/* Mostly ordinary logits, sometimes such as make a kernel take its other ways. */
static void fill(struct arena *arena, const struct shape *shape, struct rng *rng)
{
    float *logits = arena->array[LOGITS];
    for (size_t i = 0; i < shape->rows; i++) {
        float *row = logits + i * shape->logits_stride;
        size_t target = rng_below(rng, shape->classes);
        row_fill(rng, rng_chance(rng, 0.6) ? 0 : rng_below(rng, row_kinds), row, shape->classes, target);
        int64_t index = rng_below(rng, 8) == 0 ? -100 : (int64_t)target;
        if (shape->wide)
            ((int64_t *)arena->array[TARGETS])[i] = index;
        else
            ((int32_t *)arena->array[TARGETS])[i] = (int32_t)index;
    }
}

static void check(const struct arena *arena, const struct shape *shape, const char *call, bool grad_written)
{
    for (size_t i = 0; i < ARRAYS; i++)
        if (!guard_intact(&arena->pages[i], arena->array[i], arena->bytes[i]))
            fail_case("%s wrote outside %s", call, array_names[i]);
    for (size_t i = 0; i + 1 < shape->rows; i++) {
        const float *grad = arena->array[GRAD], *logits = arena->array[LOGITS];
        if (!guard_is_canary(logits + i * shape->logits_stride + shape->classes,
                             (shape->logits_stride - shape->classes) * sizeof(float)))
            fail_case("%s wrote between rows %zu and %zu of the logits", call, i, i + 1);
        if (!guard_is_canary(grad + i * shape->grad_stride + shape->classes,
                             (shape->grad_stride - shape->classes) * sizeof(float)))
            fail_case("%s wrote between rows %zu and %zu of grad", call, i, i + 1);
    }
    if (!grad_written && !guard_is_canary(arena->array[GRAD], arena->bytes[GRAD]))
        fail_case("%s wrote to a grad it was not given", call);
}

static void run_fused(struct arena *arena, const struct shape *shape, struct rng *rng, float *copy)
{
    place(arena, shape);
    fill(arena, shape, rng);
    memcpy(copy, arena->array[LOGITS], arena->bytes[LOGITS]);
    float *logits = arena->array[LOGITS];
    float *grad = shape->forward_only ? NULL : shape->in_place ? logits : arena->array[GRAD];
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.logits_stride = shape->logits_stride;
    options.grad_stride = shape->in_place ? shape->logits_stride : shape->grad_stride;
    options.lse = arena->array[LSE];
    xent_status status = shape->wide ? xent_fused_f32_i64(logits, arena->array[TARGETS], shape->rows, shape->classes,
                                                          arena->array[LOSS], grad, &options)
                                     : xent_fused_f32(logits, arena->array[TARGETS], shape->rows, shape->classes,
                                                      arena->array[LOSS], grad, &options);
    expect_status("xent_fused", status, XENT_OK);
    check(arena, shape, "xent_fused", grad != NULL && !shape->in_place);
    if (grad != logits && memcmp(copy, logits, arena->bytes[LOGITS]) != 0)
        fail_case("xent_fused wrote to the logits");
}

typedef xent_status row_function(const float *logits, size_t rows, size_t classes, size_t logits_stride, float *out,
                                 size_t out_stride);

static void run_row_function(struct arena *arena, const struct shape *shape, struct rng *rng, const char *name,
                             row_function *function, float *copy)
{
    place(arena, shape);
    fill(arena, shape, rng);
    memcpy(copy, arena->array[LOGITS], arena->bytes[LOGITS]);
    float *logits = arena->array[LOGITS], *out = shape->in_place ? logits : arena->array[GRAD];
    expect_status(name,
                  function(logits, shape->rows, shape->classes, shape->logits_stride, out,
                           shape->in_place ? shape->logits_stride : shape->grad_stride),
                  XENT_OK);
    check(arena, shape, name, !shape->in_place);
    if (!shape->in_place && memcmp(copy, logits, arena->bytes[LOGITS]) != 0)
        fail_case("%s wrote to the logits", name);
}

static void run_logsumexp(struct arena *arena, const struct shape *shape, struct rng *rng)
{
    place(arena, shape);
    fill(arena, shape, rng);
    expect_status(
        "xent_logsumexp",
        xent_logsumexp_f32(arena->array[LOGITS], shape->rows, shape->classes, shape->logits_stride, arena->array[LSE]),
        XENT_OK);
    check(arena, shape, "xent_logsumexp", false);
}

/* Every function, on either edge, in place and out of place. */
static void run_all(struct arena *arena, size_t rows, size_t classes, struct rng *rng, float *copy)
{
    for (int way = 0; way < 6; way++) {
        struct shape shape = {.rows = rows, .classes = classes, .edge = way % 2 ? GUARD_AFTER : GUARD_BEFORE};
        shape.in_place = way / 2 == 1;
        shape.forward_only = way / 2 == 2;
        shape.wide = rng_chance(rng, 0.3);
        shape.logits_stride = classes + (rng_chance(rng, 0.5) ? 0 : rng_below(rng, MAX_GAP));
        shape.grad_stride = classes + (rng_chance(rng, 0.5) ? 0 : rng_below(rng, MAX_GAP));
        shape.offset = rng_chance(rng, 0.5) ? 0 : rng_below(rng, LINE / sizeof(int64_t)) * sizeof(int64_t);
        if (!shape.wide && shape.offset > 0)
            shape.offset -= rng_below(rng, 2) * sizeof(float);
        name_detail("%zu rows of %zu classes, strides %zu and %zu, %zu bytes from the page %s, %s, %d-bit targets",
                    rows, classes, shape.logits_stride, shape.grad_stride, shape.offset,
                    shape.edge == GUARD_AFTER ? "after" : "before",
                    shape.in_place       ? "in place"
                    : shape.forward_only ? "forward only"
                                         : "out of place",
                    shape.wide ? 64 : 32);
        run_fused(arena, &shape, rng, copy);
        if (shape.forward_only) {
            run_logsumexp(arena, &shape, rng);
        } else {
            run_row_function(arena, &shape, rng, "xent_softmax", xent_softmax_f32, copy);
            run_row_function(arena, &shape, rng, "xent_log_softmax", xent_log_softmax_f32, copy);
        }
    }
}

START_TEST(small)
{
    struct rng rng = rng_stream(500);
    struct arena arena = arena_new(SMALL_CLASSES);
    float *copy = allocate(arena.pages[LOGITS].bytes);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("memory, %s", *isa);
        for (size_t classes = 1; classes <= SMALL_CLASSES; classes++)
            for (size_t rows = 1; rows <= MAX_ROWS; rows++)
                if (scaled_chance(&rng))
                    run_all(&arena, rows, classes, &rng, copy);
    }
    free(copy);
    arena_free(&arena);
}
END_TEST

START_TEST(large)
{
    struct rng rng = rng_stream(501);
    struct arena arena = arena_new(MAX_CLASSES);
    float *copy = allocate(arena.pages[LOGITS].bytes);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("memory, %s", *isa);
        for (size_t i = 0; i < row_size_count; i++)
            if (row_sizes[i] <= MAX_CLASSES && scaled_chance(&rng))
                run_all(&arena, 1 + rng_below(&rng, MAX_ROWS), row_sizes[i], &rng, copy);
        for (size_t repeat = 0; repeat < scaled(100); repeat++)
            run_all(&arena, 1 + rng_below(&rng, MAX_ROWS), 301 + rng_below(&rng, 2500), &rng, copy);
    }
    free(copy);
    arena_free(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    tcase_add_test(add_case(suite, "small"), small);
    tcase_add_test(add_case(suite, "large"), large);
    add_layout_tests(suite);
    add_distance_tests(suite);
    add_ignored_tests(suite);
    return run_suite(suite);
}
