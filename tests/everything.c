/*
 * Calls everything on every kernel, without a test library: for MemorySanitizer, which must have compiled all that it
 * watches. Arrays are exactly as large as they have to be, gaps between rows are not initialised, and every result is
 * looked at. Run by itself it shows that results of all kernels have the same checksum.
 *
 * MemorySanitizer does not follow all of AVX2's and AVX-512's masked stores: it takes what they write for
 * uninitialised.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xent/xent.h>

#ifdef __has_feature
#if __has_feature(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#define EXPECT_INITIALIZED(memory, bytes) __msan_check_mem_is_initialized(memory, bytes)
#endif
#endif
#ifndef EXPECT_INITIALIZED
#define EXPECT_INITIALIZED(memory, bytes) ((void)(memory), (void)(bytes))
#endif

enum { ROWS = 19, GAP = 3 };

static uint32_t state = 1;

static uint32_t random_below(uint32_t bound)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(state >> 8) * bound) >> 24);
}

static float random_logit(uint32_t kind)
{
    const float x = (float)random_below(20000) * 1e-3f - 10.0f;
    if (kind == 1)
        return x * 30.0f; /* beyond the window */
    if (kind == 2)
        return x + 1e4f;                                   /* far */
    return kind == 3 && random_below(3) == 0 ? -3e38f : x; /* masked */
}

static void *allocate(size_t count, size_t size)
{
    void *memory = malloc(count * size);
    if (!memory)
        exit(EXIT_FAILURE);
    return memory;
}

static void require(xent_status status)
{
    if (status != XENT_OK) {
        printf("%s\n", xent_status_string(status));
        exit(EXIT_FAILURE);
    }
}

/* Adds the bits of each number, which must be initialised. */
static uint64_t add(uint64_t sum, const float *v, size_t count)
{
    EXPECT_INITIALIZED(v, count * sizeof *v);
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        sum = sum * 31 + bits;
    }
    return sum;
}

static uint64_t add_rows(uint64_t sum, const float *v, size_t rows, size_t classes, size_t stride)
{
    for (size_t i = 0; i < rows; ++i)
        sum = add(sum, v + i * stride, classes);
    return sum;
}

static void run_backwards(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context;
    while (tasks-- > 0)
        task(argument, tasks);
}

static const xent_executor executor = {run_backwards, NULL, 3};

struct arrays {
    size_t classes, stride;
    float *x, *out, *loss, *lse, *numbers; /* numbers: [ROWS][classes] in (0, 1] */
    int32_t *targets;
    uint8_t *bytes;
};

static struct arrays arrays_new(size_t classes, size_t gap, uint32_t kind)
{
    struct arrays a = {.classes = classes, .stride = classes + gap};
    const size_t span = (ROWS - 1) * a.stride + classes;
    a.x = allocate(span, sizeof(float));
    a.out = allocate(span, sizeof(float));
    a.loss = allocate(ROWS * classes, sizeof(float));
    a.lse = allocate(ROWS, sizeof(float));
    a.numbers = allocate(ROWS * classes, sizeof(float));
    a.targets = allocate(ROWS, sizeof(int32_t));
    a.bytes = allocate(ROWS * 2, 1);
    for (size_t i = 0; i < ROWS; ++i) {
        for (size_t j = 0; j < classes; ++j) {
            a.x[i * a.stride + j] = random_logit(kind);
            a.numbers[i * classes + j] = (float)(1 + random_below(1000)) * 1e-3f;
        }
        a.targets[i] = i % 7 == 3 ? -100 : (int32_t)random_below((uint32_t)classes);
        a.bytes[2 * i] = (uint8_t)random_below(classes < 256 ? (uint32_t)classes : 256);
        a.bytes[2 * i + 1] = (uint8_t)random_below(classes < 256 ? (uint32_t)classes : 256);
    }
    return a;
}

static void arrays_free(struct arrays *a)
{
    void *const all[] = {a->x, a->out, a->loss, a->lse, a->numbers, a->targets, a->bytes};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        free(all[i]);
}

static uint64_t run_simple(const struct arrays *a, uint64_t sum)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.logits_stride = options.grad_stride = a->stride;
    for (int way = 0; way < 8; ++way) {
        options.reduction = way & 1 ? XENT_NONE : XENT_MEAN;
        options.label_smoothing = way & 2 ? 0.1f : 0.0f;
        options.class_weights = way & 2 ? a->numbers : NULL;
        options.executor = way & 4 ? &executor : NULL;
        options.lse = a->lse;
        require(xent_fused_f32(a->x, a->targets, ROWS, a->classes, a->loss, NULL, &options));
        require(xent_fused_f32(a->x, a->targets, ROWS, a->classes, a->loss, a->out, &options));
        sum = add_rows(sum, a->out, ROWS, a->classes, a->stride);
        sum = add(add(sum, a->loss, way & 1 ? ROWS : 1), a->lse, ROWS);
    }
    require(xent_softmax_f32(a->x, ROWS, a->classes, a->stride, a->out, a->stride));
    sum = add_rows(sum, a->out, ROWS, a->classes, a->stride);
    require(xent_log_softmax_f32(a->x, ROWS, a->classes, a->stride, a->out, a->stride));
    sum = add_rows(sum, a->out, ROWS, a->classes, a->stride);
    require(xent_logsumexp_f32(a->x, ROWS, a->classes, a->stride, a->lse));
    return add(sum, a->lse, ROWS);
}

static uint64_t run_general(const struct arrays *a, uint64_t sum)
{
    const xent_strides padded = {a->stride, 1, 0}, packed = {a->classes, 1, 0}, columns = {1, ROWS, 0};
    for (int way = 0; way < 6; ++way) {
        xent_problem p = XENT_PROBLEM_INIT;
        p.outer = ROWS;
        p.classes = a->classes;
        p.reduction = XENT_NONE;
        p.logits = way < 3 ? a->x : a->numbers;
        p.logits_strides = way < 3 ? &padded : &columns;
        p.grad = a->out;
        p.grad_strides = way < 3 ? &padded : &columns;
        p.target_type = way % 3 == 0 ? XENT_LABELS_I32 : way % 3 == 1 ? XENT_LABELS_U8 : XENT_PROBABILITIES;
        p.targets = way % 3 == 0 ? (const void *)a->targets : way % 3 == 1 ? (const void *)a->bytes : a->numbers;
        p.targets_strides = way % 3 == 2 ? &packed : NULL;
        p.labels = way % 3 == 1 ? 2 : 1;
        p.row_weights = a->numbers;
        p.dloss = way % 2 ? a->numbers : NULL;
        p.loss = a->loss;
        p.executor = way % 2 ? &executor : NULL;
        require(xent_cross_entropy(&p));
        if (way < 3)
            sum = add_rows(sum, a->out, ROWS, a->classes, a->stride);
        else
            sum = add(sum, a->out, ROWS * a->classes);
        sum = add(sum, a->loss, ROWS);
    }
    return sum;
}

static uint64_t run_bce(const struct arrays *a, uint64_t sum)
{
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.logits_stride = options.grad_stride = a->stride;
    require(xent_bce_f32(a->x, a->numbers, ROWS, a->classes, a->loss, NULL, &options));
    options.weights = options.pos_weight = a->numbers;
    options.weight_class_stride = 1;
    require(xent_bce_f32(a->x, a->numbers, ROWS, a->classes, a->loss, a->out, &options));
    return add(add_rows(sum, a->out, ROWS, a->classes, a->stride), a->loss, ROWS * a->classes);
}

/* Few rows of many classes, which tasks share. */
static uint64_t run_split(uint64_t sum)
{
    enum { CLASSES = 70001 };
    float *x = allocate(CLASSES, sizeof *x), *grad = allocate(CLASSES, sizeof *grad), loss;
    const int32_t target = 12345;
    xent_options options = XENT_OPTIONS_INIT;
    options.executor = &executor;
    for (uint32_t kind = 0; kind < 4; ++kind) {
        for (size_t j = 0; j < CLASSES; ++j)
            x[j] = random_logit(kind);
        require(xent_fused_f32(x, &target, 1, CLASSES, &loss, grad, &options));
        sum = add(add(sum, grad, CLASSES), &loss, 1);
    }
    free(x);
    free(grad);
    return sum;
}

static uint64_t run_all(void)
{
    static const size_t sizes[] = {1, 2, 3, 5, 7, 10, 16, 31, 32, 33, 63, 64, 65, 97, 100, 300, 1041, 8200};
    uint64_t sum = 0;
    state = 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
        for (uint32_t kind = 0; kind < 4; ++kind) {
            struct arrays a = arrays_new(sizes[i], kind % 2 ? GAP : 0, kind);
            sum = run_bce(&a, run_general(&a, run_simple(&a, sum)));
            arrays_free(&a);
        }
    return run_split(sum);
}

/* With an argument: on that kernel alone, or, after a hyphen, on all but that one. */
int main(int argc, char **argv)
{
    uint64_t first = 0;
    size_t count = 0;
    for (const char *const *isa = xent_isas(); *isa; ++isa) {
        if (argc > 1 && (argv[1][0] == '-' ? strcmp(argv[1] + 1, *isa) == 0 : strcmp(argv[1], *isa) != 0))
            continue;
        require(xent_select(*isa));
        const uint64_t sum = run_all();
        printf("%s: %016llx\n", *isa, (unsigned long long)sum);
        if (count++ == 0)
            first = sum;
        if (sum != first)
            return EXIT_FAILURE;
    }
    return count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
