/*
 * Every way to call xent_bce_f32 wrong has its status and writes nothing; nothing outside an array is ever touched.
 */
#include "bce.h"
#include "guard.h"

#include <limits.h>
#include <stdlib.h>

/* Where the arrays start in one block of memory, in floats, far from each other and from whatever is around AT. */
enum { ROWS = 3, CLASSES = 4, STRIDE = 6, ALL = ROWS * CLASSES };
enum { LOGITS = 0, TARGETS = 60, GRAD = 120, LOSS = 180, WEIGHTS = 240, POSITIVE = 300, AT = 400, BLOCK = 480 };

struct call {
    const char *name;
    int logits, targets, grad, loss, weights, positive;  /* -1: NULL */
    size_t rows, classes, strides[3], weight_strides[2]; /* logits, targets, grad */
    int reduction;
    xent_status expected;
};

static const struct call valid = {"valid", LOGITS,  TARGETS,   GRAD,         LOSS,      WEIGHTS, POSITIVE,
                                  ROWS,    CLASSES, {0, 0, 0}, {CLASSES, 1}, XENT_NONE, XENT_OK};

static float *place(float *block, int at)
{
    return at < 0 ? NULL : block + at;
}

static xent_status run(const struct call *c, float *block, xent_bce_options *options)
{
    options->reduction = (xent_reduction)c->reduction;
    options->logits_stride = c->strides[0];
    options->targets_stride = c->strides[1];
    options->grad_stride = c->strides[2];
    options->weights = place(block, c->weights);
    options->weight_row_stride = c->weight_strides[0];
    options->weight_class_stride = c->weight_strides[1];
    options->pos_weight = place(block, c->positive);
    return xent_bce_f32(place(block, c->logits), place(block, c->targets), c->rows, c->classes, place(block, c->loss),
                        place(block, c->grad), options);
}

/* The status is the one expected; an error changes nothing, a success only grad and loss. */
static void check(struct call c, const char *name, xent_status expected)
{
    float *block = allocate(BLOCK * sizeof *block), *before = allocate(BLOCK * sizeof *before);
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    name_case("%s", name);
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = (float)(i * 5 % 7) - 3.0f;
    memcpy(before, block, BLOCK * sizeof *block);
    expect_status("status", run(&c, block, &options), expected);
    if (expected == XENT_OK) {
        const size_t stride = c.strides[2] ? c.strides[2] : c.classes;
        for (size_t i = 0; c.grad >= 0 && i < c.rows; i++)
            memcpy(before + (size_t)c.grad + i * stride, block + (size_t)c.grad + i * stride,
                   c.classes * sizeof *block);
        memcpy(before + c.loss, block + c.loss, (c.reduction == XENT_NONE ? c.rows * c.classes : 1) * sizeof *block);
    }
    for (size_t i = 0; i < BLOCK; i++)
        if (float_bits(block[i]) != float_bits(before[i]))
            fail_case("element %zu was written to", i);
    free(before);
    free(block);
}

#define CHECK(name, expected, ...)                                                                                     \
    do {                                                                                                               \
        struct call c = valid;                                                                                         \
        __VA_ARGS__;                                                                                                   \
        check(c, name, expected);                                                                                      \
    } while (0)

START_TEST(pointers_and_shapes)
{
    CHECK("valid", XENT_OK, (void)c);
    CHECK("valid, mean", XENT_OK, c.reduction = XENT_MEAN);
    CHECK("without optional arrays", XENT_OK, c.grad = c.weights = c.positive = -1);
    CHECK("no logits", XENT_ERR_NULL, c.logits = -1);
    CHECK("no targets", XENT_ERR_NULL, c.targets = -1);
    for (int reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++)
        CHECK("no loss", XENT_ERR_NULL, c.reduction = reduction, c.loss = -1);
    CHECK("no loss for the sum of no rows", XENT_ERR_NULL, c.reduction = XENT_SUM, c.rows = 0, c.loss = -1);
    CHECK("no classes", XENT_ERR_CLASSES, c.classes = 0);
    for (int i = 0; i < 3; i++) {
        CHECK("a stride below classes", XENT_ERR_STRIDE, c.strides[i] = CLASSES - 1);
        CHECK("a stride of its own", XENT_OK, c.strides[i] = STRIDE);
        CHECK("a stride past the address space", XENT_ERR_SIZE, c.strides[i] = SIZE_MAX / 4);
        CHECK("a stride that wraps", XENT_ERR_SIZE, c.strides[i] = SIZE_MAX / 4 + 2, c.rows = 5);
    }
    CHECK("a grad stride without a grad", XENT_OK, c.grad = -1, c.strides[2] = 1);
    CHECK("rows past the address space", XENT_ERR_SIZE, c.rows = SIZE_MAX / 4 + 1, c.classes = 1);
    CHECK("rows that wrap", XENT_ERR_SIZE, c.rows = SIZE_MAX / 8 + 1);
    CHECK("classes past the address space", XENT_ERR_SIZE, c.rows = 1, c.classes = (size_t)PTRDIFF_MAX / 4 + 1);
    CHECK("weight rows past the address space", XENT_ERR_SIZE, c.weight_strides[0] = SIZE_MAX / 4);
    CHECK("weight rows that wrap", XENT_ERR_SIZE, c.weight_strides[0] = SIZE_MAX / 2 + 1);
    CHECK("weight classes past the address space", XENT_ERR_SIZE, c.weight_strides[1] = SIZE_MAX / 4);
    CHECK("weight classes that wrap", XENT_ERR_SIZE, c.weight_strides[0] = 0, c.weight_strides[1] = SIZE_MAX / 2 + 1,
          c.classes = 3);
    CHECK("weights past it together", XENT_ERR_SIZE, c.weight_strides[0] = SIZE_MAX / 20,
          c.weight_strides[1] = SIZE_MAX / 30);
    CHECK("weight strides without weights", XENT_OK, c.weights = -1, c.weight_strides[0] = SIZE_MAX,
          c.weight_strides[1] = SIZE_MAX);
    CHECK("an unused weight stride", XENT_OK, c.rows = 1, c.weight_strides[0] = SIZE_MAX);
}
END_TEST

START_TEST(overlaps)
{
    CHECK("in place", XENT_OK, c.logits = c.grad = AT);
    CHECK("in place, strided", XENT_OK, c.logits = c.grad = AT, c.strides[0] = c.strides[2] = STRIDE);
    CHECK("in place, other strides", XENT_ERR_OVERLAP, c.logits = c.grad = AT, c.strides[0] = STRIDE);
    CHECK("in place, other strides, one row", XENT_OK, c.logits = c.grad = AT, c.strides[0] = STRIDE, c.rows = 1);
    CHECK("grad one on", XENT_ERR_OVERLAP, c.logits = AT, c.grad = AT + 1);
    CHECK("grad one back", XENT_ERR_OVERLAP, c.logits = AT, c.grad = AT - 1);
    CHECK("grad right after logits", XENT_OK, c.logits = AT, c.grad = AT + ALL);
    CHECK("interleaved", XENT_OK, c.logits = AT, c.grad = AT + CLASSES, c.strides[0] = c.strides[2] = 2 * CLASSES);
    CHECK("grad on targets", XENT_ERR_OVERLAP, c.grad = c.targets = AT);
    CHECK("grad's last on the first target", XENT_ERR_OVERLAP, c.targets = AT, c.grad = AT - ALL + 1);
    CHECK("grad's first on the last target", XENT_ERR_OVERLAP, c.targets = AT, c.grad = AT + ALL - 1);
    CHECK("grad between targets", XENT_OK, c.targets = AT, c.grad = AT + CLASSES,
          c.strides[1] = c.strides[2] = 2 * CLASSES);
    CHECK("in place on targets", XENT_ERR_OVERLAP, c.logits = c.grad = c.targets = AT);
    CHECK("logits are targets", XENT_OK, c.logits = c.targets = AT);
    CHECK("grad on weights", XENT_ERR_OVERLAP, c.grad = AT, c.weights = AT + ALL - 1);
    CHECK("grad on the last weight", XENT_ERR_OVERLAP, c.grad = AT, c.weights = AT - ALL + 1);
    CHECK("grad after weights", XENT_OK, c.grad = AT, c.weights = AT - ALL);
    CHECK("grad on the last of strided weights", XENT_ERR_OVERLAP, c.grad = AT, c.weights = AT - 2 * 20 - 3 * 2,
          c.weight_strides[0] = 20, c.weight_strides[1] = 2);
    CHECK("grad after the last of strided weights", XENT_OK, c.grad = AT, c.weights = AT - 2 * 20 - 3 * 2 - 1,
          c.weight_strides[0] = 20, c.weight_strides[1] = 2);
    CHECK("grad on the single weight", XENT_ERR_OVERLAP, c.grad = AT, c.weights = AT + 5,
          c.weight_strides[0] = c.weight_strides[1] = 0);
    CHECK("grad on pos_weight", XENT_ERR_OVERLAP, c.grad = AT, c.positive = AT - CLASSES + 1);
    CHECK("grad after pos_weight", XENT_OK, c.grad = AT, c.positive = AT - CLASSES);
    CHECK("loss on logits", XENT_ERR_OVERLAP, c.logits = AT, c.loss = AT + ALL - 1);
    CHECK("loss on logits, in place", XENT_ERR_OVERLAP, c.logits = c.grad = c.loss = AT);
    CHECK("all losses count", XENT_ERR_OVERLAP, c.logits = AT, c.loss = AT - ALL + 1);
    CHECK("loss before logits", XENT_OK, c.logits = AT, c.loss = AT - ALL);
    CHECK("one loss before logits", XENT_OK, c.logits = AT, c.loss = AT - 1, c.reduction = XENT_MEAN);
    CHECK("loss on targets", XENT_ERR_OVERLAP, c.targets = AT, c.loss = AT + 3);
    CHECK("loss on grad", XENT_ERR_OVERLAP, c.grad = AT, c.loss = AT + ALL - 1);
    CHECK("loss on weights", XENT_ERR_OVERLAP, c.weights = AT, c.loss = AT - ALL + 1);
    CHECK("loss on pos_weight", XENT_ERR_OVERLAP, c.positive = AT, c.loss = AT + 3);
}
END_TEST

static void never(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context, (void)task, (void)argument, (void)tasks;
    fail_case("the executor was used");
}

/* Options that are refused, structs of other versions. */
START_TEST(options)
{
    static const xent_executor lacking[] = {{NULL, NULL, 1}, {never, NULL, 0}};
    static const size_t bad_sizes[] = {0, 1, sizeof(size_t) - 1, offsetof(xent_bce_options, weights) + 1, SIZE_MAX};
    static const int bad_reductions[] = {-1, 3, INT_MAX, INT_MIN};
    static const float x[4] = {1, 2, 3, 4}, t[4] = {0, 1, 0, 1};
    float loss = 7, grad[4] = {7, 7, 7, 7};
    const float untouched[4] = {7, 7, 7, 7};
    struct {
        xent_bce_options options;
        unsigned char more[16];
    } newer = {XENT_BCE_OPTIONS_INIT, {0}};
    xent_bce_options *o = &newer.options;
    for (size_t i = 0; i < sizeof bad_reductions / sizeof bad_reductions[0]; i++) {
        memcpy(&o->reduction, &bad_reductions[i], sizeof o->reduction);
        expect_status("reduction", xent_bce_f32(x, t, 2, 2, &loss, grad, o), XENT_ERR_OPTION);
    }
    o->reduction = XENT_SUM;
    for (size_t i = 0; i < 2; i++) {
        o->executor = &lacking[i];
        expect_status("executor", xent_bce_f32(x, t, 2, 2, &loss, grad, o), XENT_ERR_OPTION);
    }
    o->executor = NULL;
    for (size_t i = 0; i < sizeof bad_sizes / sizeof bad_sizes[0]; i++) {
        o->struct_size = bad_sizes[i];
        expect_status("struct_size", xent_bce_f32(x, t, 2, 2, &loss, grad, o), XENT_ERR_OPTION);
    }
    o->struct_size = sizeof newer;
    newer.more[9] = 1;
    expect_status("a newer struct that wants something", xent_bce_f32(x, t, 2, 2, &loss, grad, o), XENT_ERR_OPTION);
    expect_bits("loss", loss, 7.0f);
    ck_assert_mem_eq(grad, untouched, sizeof grad);
    newer.more[9] = 0;
    expect_status("a newer struct that does not", xent_bce_f32(x, t, 2, 2, &loss, grad, o), XENT_OK);
    float sum = loss, first = grad[0];
    /* An older struct lacks the weights: they are not read. */
    o->weights = t;
    o->struct_size = offsetof(xent_bce_options, weights);
    expect_status("an older struct", xent_bce_f32(x, t, 2, 2, &loss, grad, o), XENT_OK);
    expect_bits("loss", loss, sum);
    expect_bits("gradient", grad[0], first);
    o->weights = NULL;
    o->executor = &(const xent_executor){never, NULL, 1};
    o->struct_size = offsetof(xent_bce_options, executor);
    expect_status("a struct without an executor", xent_bce_f32(x, t, 2, 2, &loss, grad, o), XENT_OK);
    o->struct_size = sizeof *o;
    o->executor = &(const xent_executor){never, NULL, SIZE_MAX / 4 + 1};
    expect_status("more threads than there can be", xent_bce_f32(x, t, 2, 2, &loss, grad, o), XENT_OK);
}
END_TEST

/* Every array against a page that cannot be touched, on either side, and canaries in the gaps of grad. */
START_TEST(memory)
{
    enum { MAX = 300, GAP = 20, ARRAYS = 6 };
    static const char *const names[ARRAYS] = {"logits", "targets", "grad", "loss", "weights", "pos_weight"};
    struct rng rng = rng_stream(920);
    struct guarded pages[ARRAYS];
    for (size_t i = 0; i < ARRAYS; i++)
        pages[i] = guard_new(4 * (MAX + GAP) * 3 * sizeof(float));
    for (size_t repeat = 0; repeat < scaled(3000); repeat++) {
        use_kernel(xent_isas()[repeat % 2 == 0 ? 0 : rng_below(&rng, 9) % 3 && xent_isas()[1] ? 1 : 0]);
        const size_t rows = 1 + rng_below(&rng, 4), classes = 1 + rng_below(&rng, rng_chance(&rng, 0.5) ? 70 : MAX);
        const bool in_place = rng_chance(&rng, 0.3), forward = !in_place && rng_chance(&rng, 0.2);
        const enum guard_edge edge = repeat % 2 ? GUARD_AFTER : GUARD_BEFORE;
        xent_bce_options o = XENT_BCE_OPTIONS_INIT;
        o.reduction = XENT_NONE;
        o.logits_stride = classes + rng_below(&rng, GAP);
        o.targets_stride = classes + (rng_chance(&rng, 0.5) ? 0 : rng_below(&rng, GAP));
        o.grad_stride = in_place ? o.logits_stride : classes + rng_below(&rng, GAP);
        o.weight_class_stride = rng_below(&rng, 3);
        o.weight_row_stride = rng_chance(&rng, 0.5) ? classes * o.weight_class_stride : rng_below(&rng, GAP);
        const size_t floats[ARRAYS] = {
            (rows - 1) * o.logits_stride + classes,
            (rows - 1) * o.targets_stride + classes,
            (rows - 1) * o.grad_stride + classes,
            rows * classes,
            (rows - 1) * o.weight_row_stride + (classes - 1) * o.weight_class_stride + 1,
            classes,
        };
        float *array[ARRAYS];
        for (size_t i = 0; i < ARRAYS; i++) {
            array[i] = guard_place(&pages[i], floats[i] * sizeof(float), edge);
            for (size_t j = 0; i != 2 && i != 3 && j < floats[i]; j++)
                array[i][j] = (float)rng_below(&rng, 9) * 0.25f;
        }
        o.weights = array[4];
        o.pos_weight = array[5];
        name_case("memory, %s: %zu rows of %zu classes, edge %d", xent_isa(), rows, classes, (int)edge);
        float *grad = forward ? NULL : in_place ? array[0] : array[2];
        expect_status("call", xent_bce_f32(array[0], array[1], rows, classes, array[3], grad, &o), XENT_OK);
        for (size_t i = 0; i < ARRAYS; i++)
            if (!guard_intact(&pages[i], array[i], floats[i] * sizeof(float)))
                fail_case("wrote outside %s", names[i]);
        for (size_t i = 0; i + 1 < rows; i++)
            if (!guard_is_canary(array[2] + i * o.grad_stride + classes, (o.grad_stride - classes) * sizeof(float)))
                fail_case("wrote between rows %zu and %zu of grad", i, i + 1);
        if (grad != array[2] && !guard_is_canary(array[2], floats[2] * sizeof(float)))
            fail_case("wrote to a grad that was not given");
    }
    for (size_t i = 0; i < ARRAYS; i++)
        guard_free(&pages[i]);
}
END_TEST

void add_bce_status_tests(Suite *suite)
{
    TCase *statuses = add_case(suite, "statuses");
    tcase_add_test(statuses, pointers_and_shapes);
    tcase_add_test(statuses, overlaps);
    tcase_add_test(statuses, options);
    tcase_add_test(add_case(suite, "memory"), memory);
}
