/*
 * The general call and binary cross entropy between pages that cannot be touched: every length from 1 to 300, at every
 * offset of 64 bytes from either page, in every kind of layout, with every type of target. All that is not an element
 * of an output must keep its bits, inputs and the gaps of strided outputs too, and every element of an output is
 * written.
 *
 * At a scale of 60 or more every combination is tried, at 1 one in sixty.
 */
#include "memory.h"

#include "guard.h"
#include "rows.h"

#include <stdlib.h>

enum { CLASSES = 300, OFFSETS = 64, MAX_OUTER = 2, MAX_INNER = 3, MAX_LABELS = 3, ONE_IN = 60 };

enum { LOGITS, GRAD, TARGETS, PROBABILITIES, CLASS_WEIGHTS, ROW_WEIGHTS, DLOSS, LOSS, LSE, ARRAYS };
static const char *const array_names[ARRAYS] = {
    "logits", "grad", "targets", "probabilities", "class weights", "row weights", "dloss", "loss", "lse"};

enum form { CONTIGUOUS, PADDED, CLASS_STRIDED, CHANNELS_LAST, SCATTERED, FORMS };
static const char *const form_names[FORMS] = {"contiguous", "padded", "class-strided", "channels-last", "scattered"};

enum place { FORWARD, IN_PLACE, OUT_OF_PLACE, PLACES };
static const char *const place_names[PLACES] = {"forward", "in place", "out of place"};

/* One array of a case: [outer][extent][inner] elements of that size. */
struct array {
    struct guarded pages;
    unsigned char *data, *copy; /* copy: of the pages, from before the call */
    size_t size, extent, bytes;
    xent_strides strides;
};

struct arena {
    struct array arrays[ARRAYS];
    size_t outer, inner;
};

static struct arena arena_new(void)
{
    struct arena arena = {0};
    const size_t row = (CLASSES + 8) * sizeof(double) * 2;
    for (size_t i = 0; i < ARRAYS; i++) {
        arena.arrays[i].pages = guard_new(MAX_OUTER * (MAX_INNER + 4) * row + OFFSETS);
        arena.arrays[i].copy = allocate(arena.arrays[i].pages.bytes);
    }
    return arena;
}

static void arena_free(struct arena *arena)
{
    for (size_t i = 0; i < ARRAYS; i++) {
        guard_free(&arena->arrays[i].pages);
        free(arena->arrays[i].copy);
    }
}

static xent_strides form_strides(enum form form, size_t extent, size_t inner, size_t gap)
{
    switch (form) {
    case PADDED:
        return (xent_strides){inner * extent + gap, inner, 1};
    case CLASS_STRIDED:
        return (xent_strides){extent * (inner + gap), inner + gap, 1};
    case CHANNELS_LAST:
        return (xent_strides){inner * (extent + gap), 1, extent + gap};
    case SCATTERED:
        return (xent_strides){2 * inner * extent + gap, 2 * inner, 2};
    default:
        return (xent_strides){inner * extent, inner, 1};
    }
}

static size_t at(const struct array *a, size_t i, size_t j, size_t k)
{
    return (i * a->strides.outer + j * a->strides.classes + k * a->strides.inner) * a->size;
}

static void place_array(struct arena *arena, int which, size_t size, size_t extent, enum form form, size_t gap,
                        enum guard_edge edge, size_t offset)
{
    struct array *a = &arena->arrays[which];
    a->size = size;
    a->extent = extent;
    a->strides = form_strides(form, extent, arena->inner, gap);
    a->bytes = at(a, arena->outer - 1, extent - 1, arena->inner - 1) + size;
    /* The last of the pages' bytes are aligned as the first ones are. */
    a->data = guard_place_at(&a->pages, a->bytes, edge, offset / size * size);
}

static void put_float(struct array *a, size_t i, size_t j, size_t k, double value)
{
    if (a->size == sizeof(double)) {
        memcpy(a->data + at(a, i, j, k), &value, sizeof value);
    } else {
        const float single = (float)value;
        memcpy(a->data + at(a, i, j, k), &single, sizeof single);
    }
}

static void put_label(struct array *a, size_t i, size_t j, size_t k, int64_t value)
{
    unsigned char *to = a->data + at(a, i, j, k);
    const int32_t v32 = (int32_t)value;
    const uint16_t v16 = (uint16_t)value;
    switch (a->size) {
    case 8:
        memcpy(to, &value, 8);
        break;
    case 4:
        memcpy(to, &v32, 4);
        break;
    case 2:
        memcpy(to, &v16, 2);
        break;
    default:
        *to = (unsigned char)value;
    }
}

static void fill_uniform(const struct arena *arena, struct array *a, struct rng *rng)
{
    for (size_t i = 0; i < arena->outer; i++)
        for (size_t j = 0; j < a->extent; j++)
            for (size_t k = 0; k < arena->inner; k++)
                put_float(a, i, j, k, rng_uniform(rng, 0.0, 1.0));
}

static void fill_logits(struct arena *arena, struct rng *rng)
{
    struct array *a = &arena->arrays[LOGITS];
    float row[CLASSES];
    for (size_t i = 0; i < arena->outer; i++)
        for (size_t k = 0; k < arena->inner; k++) {
            row_fill(rng, rng_chance(rng, 0.7) ? 0 : rng_below(rng, row_kinds), row, a->extent, 0);
            for (size_t j = 0; j < a->extent; j++)
                put_float(a, i, j, k, (double)row[j]);
        }
}

static void snapshot(struct arena *arena)
{
    for (size_t i = 0; i < ARRAYS; i++)
        memcpy(arena->arrays[i].copy, arena->arrays[i].pages.first, arena->arrays[i].pages.bytes);
}

/* Takes the elements of an output over into the copy. */
static void accept(const struct arena *arena, int which)
{
    const struct array *a = &arena->arrays[which];
    unsigned char *copy = a->copy + (a->data - a->pages.first);
    for (size_t i = 0; i < arena->outer; i++)
        for (size_t j = 0; j < a->extent; j++)
            for (size_t k = 0; k < arena->inner; k++) {
                if (guard_is_canary(a->data + at(a, i, j, k), a->size))
                    fail_case("%s: element (%zu, %zu, %zu) was not written", array_names[which], i, j, k);
                memcpy(copy + at(a, i, j, k), a->data + at(a, i, j, k), a->size);
            }
}

static void expect_unchanged(const struct arena *arena)
{
    for (size_t i = 0; i < ARRAYS; i++) {
        const struct array *a = &arena->arrays[i];
        if (memcmp(a->copy, a->pages.first, a->pages.bytes) == 0)
            continue;
        size_t byte = 0;
        while (a->copy[byte] == a->pages.first[byte])
            byte++;
        fail_case("%s: byte %td of %zu changed", array_names[i], (a->pages.first + byte) - a->data, a->bytes);
    }
}

struct sight {
    size_t classes, offset;
    enum form form;
    enum place place;
    enum guard_edge edge;
    xent_dtype dtype;
};

static const size_t label_sizes[] = {
    [XENT_LABELS_I32] = 4, [XENT_LABELS_I64] = 8, [XENT_LABELS_U8] = 1, [XENT_LABELS_U16] = 2};

/* Labels, some of them to be ignored. */
static void fill_labels(struct arena *arena, xent_problem *p, struct rng *rng)
{
    struct array *a = &arena->arrays[TARGETS];
    const bool narrow = a->size < 4;
    p->ignore_index = narrow ? (a->size == 1 ? 255 : 65535) : -100;
    const size_t most = a->size == 1 && p->classes > 255 ? 255 : p->classes;
    for (size_t i = 0; i < arena->outer; i++)
        for (size_t j = 0; j < a->extent; j++)
            for (size_t k = 0; k < arena->inner; k++)
                put_label(a, i, j, k, rng_chance(rng, 0.15) ? p->ignore_index : (int64_t)rng_below(rng, most));
}

static void add_targets(struct arena *arena, xent_problem *p, const struct sight *sight, struct rng *rng)
{
    const size_t number = sight->dtype == XENT_F64 ? sizeof(double) : sizeof(float), gap = rng_below(rng, 4);
    const enum form form = (enum form)rng_below(rng, FORMS);
    p->target_type = (xent_targets)rng_below(rng, 5);
    if (p->target_type == XENT_PROBABILITIES) {
        place_array(arena, TARGETS, number, sight->classes, form, gap, sight->edge, sight->offset);
        fill_uniform(arena, &arena->arrays[TARGETS], rng);
    } else {
        p->labels = rng_chance(rng, 0.6) ? 1 : 1 + rng_below(rng, MAX_LABELS);
        place_array(arena, TARGETS, label_sizes[p->target_type], p->labels, form, gap, sight->edge, sight->offset);
        fill_labels(arena, p, rng);
        if (rng_chance(rng, 0.3)) {
            place_array(arena, PROBABILITIES, number, p->labels, form, gap, sight->edge, sight->offset);
            fill_uniform(arena, &arena->arrays[PROBABILITIES], rng);
            p->probabilities = arena->arrays[PROBABILITIES].data;
            p->probabilities_strides = &arena->arrays[PROBABILITIES].strides;
        }
    }
    p->targets = arena->arrays[TARGETS].data;
    p->targets_strides = &arena->arrays[TARGETS].strides;
}

/* An array with one number a row, or none. */
static const void *add_numbers(struct arena *arena, int which, size_t size, const struct sight *sight, struct rng *rng)
{
    if (rng_chance(rng, 0.7))
        return NULL;
    place_array(arena, which, size, 1, (enum form)rng_below(rng, FORMS), rng_below(rng, 4), sight->edge, sight->offset);
    fill_uniform(arena, &arena->arrays[which], rng);
    return arena->arrays[which].data;
}

static void run(struct arena *arena, const struct sight *sight, struct rng *rng)
{
    const size_t size = sight->dtype == XENT_F64 ? sizeof(double) : sizeof(float);
    const size_t classes = sight->classes, offset = sight->offset;
    xent_problem p = XENT_PROBLEM_INIT;
    p.dtype = sight->dtype;
    p.classes = classes;
    p.outer = arena->outer = 1 + rng_below(rng, MAX_OUTER);
    p.inner = arena->inner = sight->form <= PADDED && rng_chance(rng, 0.8) ? 1 : 1 + rng_below(rng, MAX_INNER);
    for (int i = 0; i < ARRAYS; i++)
        place_array(arena, i, size, 1, CONTIGUOUS, 0, sight->edge, 0);
    place_array(arena, LOGITS, size, classes, sight->form, rng_below(rng, 6), sight->edge, offset);
    place_array(arena, GRAD, size, classes, sight->form, rng_below(rng, 6), sight->edge, offset);
    place_array(arena, LOSS, size, 1, CONTIGUOUS, 0, sight->edge, offset);
    place_array(arena, LSE, size, 1, CONTIGUOUS, 0, sight->edge, offset);
    struct array *arrays = arena->arrays;
    fill_logits(arena, rng);
    add_targets(arena, &p, sight, rng);
    p.row_weights = add_numbers(arena, ROW_WEIGHTS, size, sight, rng);
    p.row_weights_strides = &arrays[ROW_WEIGHTS].strides;
    p.dloss = add_numbers(arena, DLOSS, size, sight, rng);
    p.dloss_strides = &arrays[DLOSS].strides;
    if (rng_chance(rng, 0.3)) {
        const size_t outer = arena->outer, inner = arena->inner;
        arena->outer = arena->inner = 1;
        place_array(arena, CLASS_WEIGHTS, size, classes, CONTIGUOUS, 0, sight->edge, offset);
        fill_uniform(arena, &arrays[CLASS_WEIGHTS], rng);
        arena->outer = outer;
        arena->inner = inner;
        p.class_weights = arrays[CLASS_WEIGHTS].data;
    }
    p.label_smoothing = rng_chance(rng, 0.3) ? 0.1 : 0.0;
    p.reduction = XENT_NONE;
    p.logits = arrays[LOGITS].data;
    p.logits_strides = &arrays[LOGITS].strides;
    const int written = sight->place == IN_PLACE ? LOGITS : GRAD;
    if (sight->place != FORWARD) {
        p.grad = arrays[written].data;
        p.grad_strides = &arrays[written].strides;
    }
    p.loss = arrays[LOSS].data;
    p.lse = rng_chance(rng, 0.5) ? arrays[LSE].data : NULL;
    name_detail("%s, %zu rows, %zu inner, %zu classes, %s, %s, offset %zu from the page %s, target type %d, %zu labels",
                sight->dtype == XENT_F64 ? "double" : "float", p.outer, p.inner, classes, form_names[sight->form],
                place_names[sight->place], offset, sight->edge == GUARD_AFTER ? "after" : "before", (int)p.target_type,
                p.labels);
    snapshot(arena);
    expect_status("xent_cross_entropy", xent_cross_entropy(&p), XENT_OK);
    if (sight->place != FORWARD)
        accept(arena, written);
    accept(arena, LOSS);
    if (p.lse)
        accept(arena, LSE);
    expect_unchanged(arena);
}

/* How often one of the cases is to be tried. */
static double case_chance(void)
{
    return test_scale() / ONE_IN;
}

static bool has_doubles(void)
{
    double x = 0.0, loss;
    const int32_t target = 0;
    xent_problem p = XENT_PROBLEM_INIT;
    p.dtype = XENT_F64;
    p.outer = p.classes = 1;
    p.logits = &x;
    p.targets = &target;
    p.loss = &loss;
    return xent_cross_entropy(&p) == XENT_OK;
}

START_TEST(general_call)
{
    struct rng rng = rng_stream(510);
    struct arena arena = arena_new();
    size_t cases = 0;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("layouts, %s", *isa);
        const bool doubles = has_doubles();
        for (size_t classes = 1; classes <= CLASSES; classes++)
            for (size_t i = 0; i < OFFSETS * FORMS * PLACES * 2; i++) {
                if (!rng_chance(&rng, case_chance()))
                    continue;
                const struct sight sight = {.classes = classes,
                                            .offset = i % OFFSETS,
                                            .form = (enum form)(i / OFFSETS % FORMS),
                                            .place = (enum place)(i / OFFSETS / FORMS % PLACES),
                                            .edge = i / OFFSETS / FORMS / PLACES ? GUARD_AFTER : GUARD_BEFORE,
                                            .dtype = doubles && rng_chance(&rng, 0.3) ? XENT_F64 : XENT_F32};
                run(&arena, &sight, &rng);
                cases++;
            }
    }
    note("%zu layouts of the general call", cases);
    arena_free(&arena);
}
END_TEST

/* The arrays of binary cross entropy, by the names of those above: weights are the row weights, positive weights those
   of classes. Rows are what outer counts. */
static void run_bce(struct arena *arena, const struct sight *sight, struct rng *rng)
{
    const size_t size = sizeof(float), classes = sight->classes, offset = sight->offset;
    static const int matrices[] = {LOGITS, GRAD, TARGETS, ROW_WEIGHTS};
    struct array *arrays = arena->arrays;
    arena->outer = 1 + rng_below(rng, MAX_OUTER);
    arena->inner = 1;
    for (int i = 0; i < ARRAYS; i++)
        place_array(arena, i, size, 1, CONTIGUOUS, 0, sight->edge, offset);
    for (size_t i = 0; i < 4; i++)
        place_array(arena, matrices[i], size, classes, PADDED, rng_below(rng, 2) * rng_below(rng, 6), sight->edge,
                    offset);
    place_array(arena, LOSS, size, classes, CONTIGUOUS, 0, sight->edge, offset);
    fill_logits(arena, rng);
    fill_uniform(arena, &arrays[TARGETS], rng);
    fill_uniform(arena, &arrays[ROW_WEIGHTS], rng);
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.logits_stride = arrays[LOGITS].strides.outer;
    options.targets_stride = arrays[TARGETS].strides.outer;
    options.grad_stride = sight->place == IN_PLACE ? options.logits_stride : arrays[GRAD].strides.outer;
    if (rng_chance(rng, 0.5)) {
        options.weights = (const float *)(const void *)arrays[ROW_WEIGHTS].data;
        options.weight_row_stride = arrays[ROW_WEIGHTS].strides.outer;
        options.weight_class_stride = 1;
    }
    if (rng_chance(rng, 0.5)) {
        const size_t outer = arena->outer;
        arena->outer = 1;
        place_array(arena, CLASS_WEIGHTS, size, classes, CONTIGUOUS, 0, sight->edge, offset);
        fill_uniform(arena, &arrays[CLASS_WEIGHTS], rng);
        arena->outer = outer;
        options.pos_weight = (const float *)(const void *)arrays[CLASS_WEIGHTS].data;
    }
    const int written = sight->place == IN_PLACE ? LOGITS : GRAD;
    name_detail("%zu rows of %zu classes, %s, offset %zu from the page %s", arena->outer, classes,
                place_names[sight->place], offset, sight->edge == GUARD_AFTER ? "after" : "before");
    snapshot(arena);
    expect_status("xent_bce_f32",
                  xent_bce_f32((const float *)(const void *)arrays[LOGITS].data,
                               (const float *)(const void *)arrays[TARGETS].data, arena->outer, classes,
                               (float *)(void *)arrays[LOSS].data,
                               sight->place == FORWARD ? NULL : (float *)(void *)arrays[written].data, &options),
                  XENT_OK);
    if (sight->place != FORWARD)
        accept(arena, written);
    accept(arena, LOSS);
    expect_unchanged(arena);
}

START_TEST(binary)
{
    struct rng rng = rng_stream(511);
    struct arena arena = arena_new();
    size_t cases = 0;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("layouts of binary cross entropy, %s", *isa);
        for (size_t classes = 1; classes <= CLASSES; classes++)
            for (size_t i = 0; i < OFFSETS / sizeof(float) * PLACES * 2; i++) {
                if (!rng_chance(&rng, case_chance()))
                    continue;
                const struct sight sight = {.classes = classes,
                                            .offset = i % (OFFSETS / sizeof(float)) * sizeof(float),
                                            .place = (enum place)(i / (OFFSETS / sizeof(float)) % PLACES),
                                            .edge =
                                                i / (OFFSETS / sizeof(float)) / PLACES ? GUARD_AFTER : GUARD_BEFORE};
                run_bce(&arena, &sight, &rng);
                cases++;
            }
    }
    note("%zu layouts of binary cross entropy", cases);
    arena_free(&arena);
}
END_TEST

void add_layout_tests(Suite *suite)
{
    TCase *layouts = add_case(suite, "layouts");
    tcase_add_test(layouts, general_call);
    tcase_add_test(layouts, binary);
}
