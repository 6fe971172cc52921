/*
 * Every way to call xent_cross_entropy wrong has its status and leaves every output as it was.
 */
#include "criterion.h"
#include "guard.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

enum { OUTER = 2, CLASSES = 4, INNER = 2, ROWS = OUTER * INNER, LABELS = 2, ALL = ROWS * CLASSES, NO_ROW = 12345 };

/* Every array that a problem may have; outputs first. */
enum array {
    GRAD,
    LOSS,
    LSE,
    KEPT_ROWS,
    DENOMINATOR,
    OUTPUTS,
    LOGITS = OUTPUTS,
    TARGETS,
    PROBABILITIES,
    CLASS_WEIGHTS,
    ROW_WEIGHTS,
    DLOSS,
    ARRAYS
};

static const char *const array_names[ARRAYS] = {"grad",          "loss",        "lse",     "kept_rows",
                                                "denominator",   "logits",      "targets", "probabilities",
                                                "class_weights", "row_weights", "dloss"};

/* In bytes: multiples of 8, so that arrays can be moved by that. Targets are 64-bit labels. */
static const size_t array_bytes[ARRAYS] = {ALL * 4,          ROWS * 4,         ROWS * 4,    8,        8,       ALL * 4,
                                           ROWS *LABELS * 8, ROWS *LABELS * 4, CLASSES * 4, ROWS * 4, ROWS * 4};

enum { APART = 512, BLOCK = (ARRAYS + 2) * APART, MIDDLE = ARRAYS * APART + APART };

/* A valid problem that uses every array, somewhere in one block of memory whose every byte is watched. */
struct call {
    unsigned char *block, *before;
    size_t at[ARRAYS];
    xent_problem p;
    size_t error_row;
};

static struct call call_new(void)
{
    struct call c = {.block = allocate(BLOCK), .before = allocate(BLOCK), .p = XENT_PROBLEM_INIT};
    for (size_t i = 0; i < ARRAYS; i++)
        c.at[i] = i * APART;
    c.p.outer = OUTER;
    c.p.classes = CLASSES;
    c.p.inner = INNER;
    c.p.target_type = XENT_LABELS_I64;
    c.p.labels = LABELS;
    c.p.reduction = XENT_NONE;
    return c;
}

static void call_free(struct call *c)
{
    free(c->block);
    free(c->before);
}

/* Puts the inputs where they should be and points the problem to all arrays. Overlapping inputs hold what comes last,
   the targets. */
static void call_prepare(struct call *c)
{
    memset(c->block, 0xa5, BLOCK);
    for (int input = LOGITS; input < ARRAYS; input++)
        for (size_t i = 0; input != TARGETS && i < array_bytes[input] / 4; i++)
            memcpy(c->block + c->at[input] + 4 * i, &(float){0.25f * (float)(1 + i % 5)}, 4);
    for (size_t i = 0; i < ROWS * LABELS; i++)
        memcpy(c->block + c->at[TARGETS] + 8 * i, &(int64_t){(int64_t)(i % CLASSES)}, 8);
    void *at[ARRAYS];
    for (size_t i = 0; i < ARRAYS; i++)
        at[i] = c->block + c->at[i];
    c->p.grad = at[GRAD];
    c->p.loss = at[LOSS];
    c->p.lse = at[LSE];
    c->p.kept_rows = at[KEPT_ROWS];
    c->p.denominator = at[DENOMINATOR];
    c->p.logits = at[LOGITS];
    c->p.targets = at[TARGETS];
    c->p.probabilities = at[PROBABILITIES];
    c->p.class_weights = at[CLASS_WEIGHTS];
    c->p.row_weights = at[ROW_WEIGHTS];
    c->p.dloss = at[DLOSS];
    c->p.error_row = &c->error_row;
    c->error_row = NO_ROW;
    memcpy(c->before, c->block, BLOCK);
}

static void expect_call(struct call *c, const void *given, const char *what, xent_status expected)
{
    expect_status(what, xent_cross_entropy(given), expected);
    if (expected != XENT_OK && memcmp(c->before, c->block, BLOCK) != 0)
        fail_case("%s: an array was written to", what);
    if ((c->error_row == NO_ROW) != (expected != XENT_ERR_TARGET))
        fail_case("%s: error_row is %zu", what, c->error_row);
}

/* One change to a valid problem, and the status that it must have. */
#define CHECK(what, expected, ...)                                                                                     \
    do {                                                                                                               \
        struct call c = call_new();                                                                                    \
        name_case("%s", what);                                                                                         \
        call_prepare(&c);                                                                                              \
        xent_problem *p = &c.p;                                                                                        \
        __VA_ARGS__;                                                                                                   \
        memcpy(c.before, c.block, BLOCK);                                                                              \
        expect_call(&c, p, what, expected);                                                                            \
        call_free(&c);                                                                                                 \
    } while (0)

#define EACH(type, name, ...)                                                                                          \
    static const type name[] = {__VA_ARGS__};                                                                          \
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)

START_TEST(pointers)
{
    CHECK("valid", XENT_OK, (void)p);
    expect_status("no problem", xent_cross_entropy(NULL), XENT_ERR_NULL);
    CHECK("no logits", XENT_ERR_NULL, p->logits = NULL);
    CHECK("no targets", XENT_ERR_NULL, p->targets = NULL);
    for (int reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
        CHECK("no output", XENT_ERR_NULL, p->loss = p->grad = p->lse = NULL, p->reduction = (xent_reduction)reduction);
        CHECK("only loss", XENT_OK, p->grad = p->lse = NULL, p->reduction = (xent_reduction)reduction);
        CHECK("only gradient", XENT_OK, p->loss = p->lse = NULL, p->reduction = (xent_reduction)reduction);
        CHECK("only log-sum-exp", XENT_OK, p->loss = p->grad = NULL, p->reduction = (xent_reduction)reduction);
    }
    CHECK("nothing optional", XENT_OK, p->probabilities = p->class_weights = p->row_weights = p->dloss = NULL,
          p->kept_rows = NULL, p->denominator = NULL);
    CHECK("no output for no rows", XENT_ERR_NULL, p->outer = 0, p->reduction = XENT_SUM,
          p->loss = p->grad = p->lse = NULL);
    CHECK("no arrays for no rows", XENT_OK, p->inner = 0, p->logits = p->targets = NULL);
    CHECK("no output for no rows, and nothing reduced", XENT_OK, p->outer = 0, p->loss = p->grad = p->lse = NULL);
}
END_TEST

static void never(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context, (void)task, (void)argument, (void)tasks;
    fail_case("the executor was used");
}

START_TEST(options)
{
    /* In variables of their type, since a compiler may know what an enum can be. */
    EACH(int, unknown, -1, 2, 5, 1000, INT_MAX, INT_MIN)
    {
        CHECK("dtype", XENT_ERR_OPTION, memcpy(&p->dtype, &unknown[i], sizeof p->dtype));
        if (unknown[i] != 2) {
            CHECK("target_type", XENT_ERR_OPTION, memcpy(&p->target_type, &unknown[i], sizeof p->target_type));
            CHECK("reduction", XENT_ERR_OPTION, memcpy(&p->reduction, &unknown[i], sizeof p->reduction));
            CHECK("target_type of no rows", XENT_ERR_OPTION, p->outer = 0,
                  memcpy(&p->target_type, &unknown[i], sizeof p->target_type));
        }
    }
    CHECK("reduction", XENT_ERR_OPTION, memcpy(&p->reduction, &(int){3}, sizeof p->reduction));
    EACH(double, smoothing, -0.1, -0x1p-1074, 1 + 0x1p-52, 2, (double)NAN, HUGE_VAL, -HUGE_VAL)
    CHECK("label_smoothing", XENT_ERR_OPTION, p->label_smoothing = smoothing[i]);
    EACH(double, good_smoothing, -0.0, 0x1p-1074, 0.5, 1)
    CHECK("good label_smoothing", XENT_OK, p->label_smoothing = good_smoothing[i]);
    EACH(double, normalizer, -1, -0x1p-1074, 0x1p-1074, 0x1.fffffffffffffp-127, 0x1p128, (double)NAN, HUGE_VAL,
         -HUGE_VAL)
    {
        CHECK("normalizer", XENT_ERR_OPTION, p->normalizer = normalizer[i]);
        CHECK("normalizer of a mean", XENT_ERR_OPTION, p->normalizer = normalizer[i], p->reduction = XENT_MEAN);
    }
    EACH(double, good_normalizer, -0.0, 0x1p-126, 0x1p40, 0x1.fffffep127)
    CHECK("good normalizer", XENT_OK, p->normalizer = good_normalizer[i], p->reduction = XENT_MEAN);
    CHECK("no labels", XENT_ERR_OPTION, p->labels = 0);
    CHECK("no labels, but probabilities of classes", XENT_OK, p->labels = 0, p->target_type = XENT_PROBABILITIES,
          p->targets = p->logits);
    EACH(float, weight, -1, -0x1p-149f, NAN, INFINITY, -INFINITY, 0x1.000002p60f, FLT_MAX)
    for (size_t j = 0; j < CLASSES; j++)
        CHECK("class weight", XENT_ERR_OPTION, memcpy(c.block + c.at[CLASS_WEIGHTS] + 4 * j, &weight[i], 4));
    EACH(float, good_weight, 0, -0.0f, 0x1p-149f, XENT_MAX_CLASS_WEIGHT)
    CHECK("good class weight", XENT_OK, memcpy(c.block + c.at[CLASS_WEIGHTS], &good_weight[i], 4));
    static const xent_executor lacking[] = {{NULL, NULL, 1}, {never, NULL, 0}, {NULL, NULL, 0}};
    for (size_t i = 0; i < 3; i++)
        CHECK("executor", XENT_ERR_OPTION, p->executor = &lacking[i]);
}
END_TEST

START_TEST(struct_sizes)
{
    struct guarded room = guard_new(sizeof(xent_problem) + 64);
    EACH(size_t, bad, 0, 1, sizeof(size_t), offsetof(xent_problem, executor), sizeof(xent_problem) - 1)
    {
        struct call c = call_new();
        call_prepare(&c);
        c.p.struct_size = bad[i];
        name_case("struct_size %zu", bad[i]);
        /* Not more than struct_size is read, or the struct_size itself. */
        const size_t bytes = bad[i] > sizeof(size_t) ? bad[i] : sizeof(size_t);
        void *given = guard_place(&room, bytes, GUARD_AFTER);
        if ((uintptr_t)given % sizeof(size_t) == 0) {
            memcpy(given, &c.p, bytes);
            expect_call(&c, given, "a shorter struct", XENT_ERR_OPTION);
        }
        expect_call(&c, &c.p, "a struct_size too small", XENT_ERR_OPTION);
        call_free(&c);
    }
    for (size_t extra = 8; extra <= 64; extra += 8) {
        struct call c = call_new();
        call_prepare(&c);
        c.p.struct_size = sizeof c.p + extra;
        name_case("a struct with %zu bytes more", extra);
        unsigned char *given = guard_place(&room, c.p.struct_size, GUARD_AFTER);
        memset(given, 0, c.p.struct_size);
        memcpy(given, &c.p, sizeof c.p);
        for (size_t i = sizeof c.p; i < c.p.struct_size; i++) {
            given[i] = 1;
            expect_call(&c, given, "that want something", XENT_ERR_OPTION);
            given[i] = 0;
        }
        expect_call(&c, given, "that want nothing", XENT_OK);
        call_free(&c);
    }
    guard_free(&room);
}
END_TEST

START_TEST(shapes_and_sizes)
{
    const size_t half = (size_t)1 << (sizeof(size_t) * 4), most = SIZE_MAX;
    CHECK("no classes", XENT_ERR_CLASSES, p->classes = 0);
    CHECK("no classes, probabilities", XENT_ERR_CLASSES, p->classes = 0, p->target_type = XENT_PROBABILITIES);
    EACH(xent_strides, aliasing, {0, 2, 1}, {8, 0, 1}, {8, 2, 0}, {8, 1, 1}, {1, 1, 1}, {8, 1, 3}, {4, 1, 4}, {7, 2, 1},
         {6, 1, 4}, {0, 0, 0})
    {
        CHECK("grad strides that alias", XENT_ERR_STRIDE, p->grad_strides = &aliasing[i]);
        CHECK("the same in logits", XENT_OK, p->logits_strides = &aliasing[i]);
        CHECK("in place", XENT_ERR_STRIDE, p->grad_strides = p->logits_strides = &aliasing[i],
              p->grad = c.block + c.at[LOGITS]);
    }
    EACH(xent_strides, apart, {8, 2, 1}, {8, 1, 4}, {1, 4, 2}, {1, 2, 8}, {9, 2, 1}, {4, 8, 32}, {2, 4, 1})
    CHECK("grad strides that do not", XENT_OK, p->grad_strides = &apart[i]);
    EACH(xent_strides, huge, {SIZE_MAX, 2, 1}, {SIZE_MAX / 4 + 9, 2, 1}, {8, SIZE_MAX / 3, 1}, {8, 2, SIZE_MAX},
         {SIZE_MAX / 8, SIZE_MAX / 8, SIZE_MAX / 8}, {PTRDIFF_MAX / 4, 2, 1}, {8, 2, PTRDIFF_MAX / 4})
    {
        CHECK("grad strides", XENT_ERR_SIZE, p->grad_strides = &huge[i]);
        CHECK("logits strides", XENT_ERR_SIZE, p->logits_strides = &huge[i]);
        CHECK("targets strides", XENT_ERR_SIZE, p->targets_strides = &huge[i]);
        CHECK("probabilities strides", XENT_ERR_SIZE, p->probabilities_strides = &huge[i]);
        if (huge[i].outer > 8 || huge[i].inner > 1) {
            CHECK("row_weights strides", XENT_ERR_SIZE, p->row_weights_strides = &huge[i]);
            CHECK("dloss strides", XENT_ERR_SIZE, p->dloss_strides = &huge[i]);
        }
    }
    const xent_strides unused = {most, most, most}, none = {0, 0, 0};
    CHECK("strides of dimensions of 1", XENT_OK, p->outer = p->inner = p->classes = p->labels = 1,
          memset(c.block + c.at[TARGETS], 0, 8),
          p->logits_strides = p->grad_strides = p->targets_strides = p->dloss_strides = &unused);
    EACH(size_t, rows, most, (size_t)1 << (sizeof(size_t) * 8 - 2), (size_t)PTRDIFF_MAX / 16 + 1, most / 16 + 2)
    {
        CHECK("outer", XENT_ERR_SIZE, p->outer = rows[i]);
        CHECK("inner", XENT_ERR_SIZE, p->inner = rows[i]);
        CHECK("classes", XENT_ERR_SIZE, p->classes = rows[i]);
        CHECK("labels", XENT_ERR_SIZE, p->labels = rows[i]);
        CHECK("outer, of one address", XENT_ERR_SIZE, p->outer = rows[i], p->reduction = XENT_SUM,
              p->logits_strides = p->targets_strides = p->probabilities_strides = p->row_weights_strides =
                  p->dloss_strides = &none,
              p->grad = p->lse = NULL);
    }
    CHECK("rows that wrap", XENT_ERR_SIZE, p->outer = p->inner = half);
    CHECK("rows times classes that wrap", XENT_ERR_SIZE, p->outer = half, p->classes = half);
    CHECK("inner times classes that wrap", XENT_ERR_SIZE, p->inner = half, p->classes = half);
    CHECK("all that wraps", XENT_ERR_SIZE, p->outer = p->inner = p->classes = most);
}
END_TEST

START_TEST(overlaps)
{
    for (size_t out = 0; out < OUTPUTS; out++)
        for (size_t other = 0; other < ARRAYS; other++) {
            if (other == out)
                continue;
            const size_t bytes = array_bytes[out], others = array_bytes[other];
            const struct {
                const char *name;
                size_t at;
                xent_status expected;
            } places[] = {{"right before", MIDDLE - bytes, XENT_OK},
                          {"right after", MIDDLE + others, XENT_OK},
                          {"its last on the first of", MIDDLE - bytes + 8, XENT_ERR_OVERLAP},
                          {"its first on the last of", MIDDLE + others - 8, XENT_ERR_OVERLAP},
                          {"on", MIDDLE, out == GRAD && other == LOGITS ? XENT_OK : XENT_ERR_OVERLAP}};
            for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
                struct call c = call_new();
                c.at[other] = MIDDLE;
                c.at[out] = places[i].at;
                name_case("%s %s %s", array_names[out], places[i].name, array_names[other]);
                call_prepare(&c);
                expect_call(&c, &c.p, "status", places[i].expected);
                call_free(&c);
            }
        }
    for (size_t number = KEPT_ROWS; number <= DENOMINATOR; number++) {
        struct call c = call_new();
        c.at[LOSS] = c.at[number] + 4;
        name_case("loss in the middle of %s", array_names[number]);
        call_prepare(&c);
        c.p.reduction = XENT_SUM;
        expect_call(&c, &c.p, "status", XENT_ERR_OVERLAP);
        call_free(&c);
    }
    /* Every second number of a row reaches into the next one of the other array, whichever of them it is. */
    for (int swapped = 0; swapped < 2; swapped++) {
        struct call c = call_new();
        const xent_strides close = {16, 1, 0}, wide = {16, 2, 0};
        c.at[swapped ? LOGITS : GRAD] = MIDDLE + 12 * sizeof(float);
        c.at[swapped ? GRAD : LOGITS] = MIDDLE;
        name_case("classes apart between the rows of the other array, swapped %d", swapped);
        call_prepare(&c);
        c.p.inner = 1;
        c.p.logits_strides = swapped ? &wide : &close;
        c.p.grad_strides = swapped ? &close : &wide;
        memcpy(c.before, c.block, BLOCK);
        expect_call(&c, &c.p, "status", XENT_ERR_OVERLAP);
        call_free(&c);
    }
    for (size_t i = LOGITS; i < ARRAYS; i++)
        for (size_t j = LOGITS; j < i; j++) {
            struct call c = call_new();
            c.at[i] = c.at[j];
            name_case("inputs %s and %s", array_names[i], array_names[j]);
            call_prepare(&c);
            /* What one of them takes as a weight may be no weight. */
            if (i == TARGETS || j == TARGETS)
                c.p.class_weights = NULL;
            expect_call(&c, &c.p, "status", XENT_OK);
            call_free(&c);
        }
}
END_TEST

static void put_label(struct call *c, size_t at, int64_t label)
{
    unsigned char *targets = c->block + c->at[TARGETS];
    switch (c->p.target_type) {
    case XENT_LABELS_U8:
        targets[at] = (uint8_t)label;
        break;
    case XENT_LABELS_U16:
        memcpy(targets + 2 * at, &(uint16_t){(uint16_t)label}, 2);
        break;
    case XENT_LABELS_I32:
        memcpy(targets + 4 * at, &(int32_t){(int32_t)label}, 4);
        break;
    default:
        memcpy(targets + 8 * at, &(int64_t){label}, 8);
    }
}

/* The first bad row is named, whichever of its labels is bad; no row is computed. */
START_TEST(bad_labels)
{
    static const struct {
        xent_targets type;
        int64_t label;
    } bad[] = {{XENT_LABELS_U8, CLASSES},
               {XENT_LABELS_U8, 255},
               {XENT_LABELS_U16, CLASSES},
               {XENT_LABELS_U16, 65535},
               {XENT_LABELS_U16, 256},
               {XENT_LABELS_I32, CLASSES},
               {XENT_LABELS_I32, -1},
               {XENT_LABELS_I32, INT32_MIN},
               {XENT_LABELS_I32, INT32_MAX},
               {XENT_LABELS_I64, CLASSES},
               {XENT_LABELS_I64, -1},
               {XENT_LABELS_I64, INT64_MIN},
               {XENT_LABELS_I64, INT64_MAX},
               {XENT_LABELS_I64, INT64_C(1) << 32},
               {XENT_LABELS_I64, (INT64_C(1) << 32) - 100}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (size_t row = 0; row < ROWS; row++)
            for (size_t labels = 1; labels <= LABELS; labels++)
                for (size_t which = 0; which < labels; which++) {
                    struct call c = call_new();
                    name_case("label %lld of type %d at %zu of %zu in row %zu", (long long)bad[i].label,
                              (int)bad[i].type, which, labels, row);
                    call_prepare(&c);
                    c.p.target_type = bad[i].type;
                    c.p.labels = labels;
                    if (labels == 1)
                        c.p.probabilities = NULL;
                    c.p.ignore_index = 1;
                    for (size_t l = 0; l < ROWS * labels; l++)
                        put_label(&c, l, (int64_t)(l % 3)); /* of which 1 is ignored */
                    for (size_t later = row; later < ROWS; later++)
                        put_label(&c, (later / INNER * labels + which) * INNER + later % INNER, bad[i].label);
                    memcpy(c.before, c.block, BLOCK);
                    expect_call(&c, &c.p, "status", XENT_ERR_TARGET);
                    ck_assert_uint_eq(c.error_row, row);
                    c.error_row = NO_ROW;
                    c.p.grad = c.block + c.at[LOGITS];
                    expect_call(&c, &c.p, "in place", XENT_ERR_TARGET);
                    c.p.error_row = NULL;
                    c.error_row = row;
                    expect_call(&c, &c.p, "without error_row", XENT_ERR_TARGET);
                    call_free(&c);
                }
}
END_TEST

/* A bad label is one even in a row that counts nothing, so that whether a batch is valid does not hang on weights. */
START_TEST(bad_label_of_weight_0)
{
    CHECK("a bad label in a row of weight 0", XENT_ERR_TARGET, put_label(&c, 0, CLASSES),
          memset(c.block + c.at[ROW_WEIGHTS], 0, 4));
    CHECK("an ignored label past the classes", XENT_OK, put_label(&c, 0, 99), p->ignore_index = 99);
}
END_TEST

/* One bad row, and one or none that is left out, among labels with and without gaps, more than are looked at at once:
   by the definition of strides. */
START_TEST(labels_anywhere)
{
    enum { MOST_ROWS = 1600, MOST_LABELS = 3, MOST = 4 * MOST_ROWS * MOST_LABELS };
    static float logits[MOST_ROWS * CLASSES], shares[MOST_ROWS * MOST_LABELS];
    static int32_t targets32[MOST];
    static int64_t targets64[MOST];
    struct rng rng = rng_stream(17);
    for (size_t repeat = 0; repeat < scaled(600); repeat++) {
        const size_t inner = repeat % 3 ? 1 : 1 + rng_below(&rng, 40),
                     outer = 1 + rng_below(&rng, repeat % 2 ? 4 : MOST_ROWS / inner);
        const size_t rows = outer * inner, labels = 1 + rng_below(&rng, MOST_LABELS), gap = rng_below(&rng, 4);
        const size_t step = gap == 3 ? 2 : 1, row_labels = labels * (inner + (gap == 2));
        const xent_strides strides = {row_labels + (gap == 1), inner + (gap == 2), step};
        const size_t bad = rng_below(&rng, rows), ignored = rng_below(&rng, 2 * rows);
        const bool is_wide = rng_below(&rng, 2);
        xent_problem p = XENT_PROBLEM_INIT;
        size_t kept = 0, first_bad = rows, error_row = NO_ROW, kept_rows = NO_ROW;
        float loss = -1;
        memset(targets32, 0, sizeof targets32);
        memset(targets64, 0, sizeof targets64);
        name_case("%zu rows by %zu, %zu labels of %d bits, gap %zu, bad row %zu, ignored %zu, repeat %zu", outer, inner,
                  labels, is_wide ? 64 : 32, gap, bad, ignored, repeat);
        p.outer = outer;
        p.inner = inner;
        p.classes = CLASSES;
        p.logits = logits;
        p.target_type = is_wide ? XENT_LABELS_I64 : XENT_LABELS_I32;
        p.labels = labels;
        p.targets = is_wide ? (const void *)targets64 : targets32;
        p.targets_strides = gap == 0 && repeat % 2 ? NULL : &strides;
        p.probabilities = shares;
        p.loss = &loss;
        p.kept_rows = &kept_rows;
        p.error_row = &error_row;
#define AT(row, l) ((row) / inner * strides.outer + (l)*strides.classes + (row) % inner * strides.inner)
        for (size_t l = 0; l < labels && ignored < rows; l++)
            targets32[AT(ignored, l)] = -100;
        for (size_t i = 0; i < MOST; i++)
            targets64[i] = targets32[i];
        for (size_t row = 0; row < rows; row++) {
            size_t left_out = 0;
            for (size_t l = 0; l < labels; l++)
                left_out += targets32[AT(row, l)] == -100;
            kept += left_out < labels;
        }
        expect_status("good labels", xent_cross_entropy(&p), XENT_OK);
        ck_assert_uint_eq(kept_rows, kept);
        const size_t at = AT(bad, rng_below(&rng, labels));
        targets64[at] = targets32[at] = CLASSES;
        for (size_t row = rows; row-- > 0;)
            for (size_t l = 0; l < labels; l++)
                first_bad = AT(row, l) == at ? row : first_bad;
#undef AT
        loss = -1;
        expect_status("a bad label", xent_cross_entropy(&p), XENT_ERR_TARGET);
        ck_assert_uint_eq(error_row, first_bad);
        ck_assert(loss == -1);
    }
}
END_TEST

void add_status_tests(TCase *test_case)
{
    tcase_add_test(test_case, pointers);
    tcase_add_test(test_case, options);
    tcase_add_test(test_case, struct_sizes);
    tcase_add_test(test_case, shapes_and_sizes);
    tcase_add_test(test_case, overlaps);
    tcase_add_test(test_case, bad_labels);
    tcase_add_test(test_case, bad_label_of_weight_0);
    tcase_add_test(test_case, labels_anywhere);
}
