/* Runs every kernel on the same rows: how fast, next to only reading the rows, and whether the bits are the same. */
#include "compare.h"

#include "tool.h"

#include <stdio.h>
#include <string.h>

#include <xent/xent.h>

struct shape {
    size_t rows, classes;
};

static const struct shape shapes[] = {{4096, 27}, {512, 32000}};

enum { SHAPES = sizeof shapes / sizeof shapes[0], MOST_REPETITIONS = 31 };

/* A measurement is repeated until it has taken this long, or MOST_REPETITIONS times. */
static const double seconds_enough = 0.2;

/* The rows of one shape, and what the kernels make of them. */
struct arena {
    struct shape shape;
    size_t bytes; /* of one copy of the rows */
    float *logits, *grad, *first_grad;
    float *loss, *first_loss; /* [rows] */
    int32_t *targets;         /* [rows] */
    volatile uint64_t sum;    /* of all that run_read read */
};

static void *allocate(size_t bytes)
{
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void arena_free(struct arena *arena)
{
    free(arena->logits);
    free(arena->grad);
    free(arena->first_grad);
    free(arena->loss);
    free(arena->first_loss);
    free(arena->targets);
}

static bool arena_init(struct arena *arena, struct shape shape)
{
    uint64_t random = 1;
    size_t count = shape.rows * shape.classes;
    arena->sum = 0;
    arena->shape = shape;
    arena->bytes = count * sizeof(float);
    arena->logits = allocate(arena->bytes);
    arena->grad = allocate(arena->bytes);
    arena->first_grad = allocate(arena->bytes);
    arena->loss = allocate(shape.rows * sizeof(float));
    arena->first_loss = allocate(shape.rows * sizeof(float));
    arena->targets = allocate(shape.rows * sizeof(int32_t));
    if (!arena->logits || !arena->grad || !arena->first_grad || !arena->loss || !arena->first_loss || !arena->targets) {
        complain("out of memory for %zu x %zu logits", shape.rows, shape.classes);
        arena_free(arena);
        return false;
    }
    for (size_t i = 0; i < count; i++)
        arena->logits[i] = 16.0f * random_uniform(&random) - 8.0f;
    for (size_t i = 0; i < shape.rows; i++)
        arena->targets[i] = (int32_t)(random_next(&random) % shape.classes);
    return true;
}

static void restore_grad(struct arena *arena)
{
    memcpy(arena->grad, arena->logits, arena->bytes);
}

/* What is timed. Eight sums, so that reading is all that takes time. */
static void run_read(struct arena *arena)
{
    uint64_t sums[8] = {0}, block[8];
    for (size_t at = 0; at + sizeof block <= arena->bytes; at += sizeof block) {
        memcpy(block, (const char *)arena->logits + at, sizeof block);
        for (size_t i = 0; i < 8; i++)
            sums[i] += block[i];
    }
    for (size_t i = 0; i < 8; i++)
        arena->sum += sums[i];
}

static void run_xent(struct arena *arena, float *grad)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    require(xent_fused_f32(grad ? grad : arena->logits, arena->targets, arena->shape.rows, arena->shape.classes,
                           arena->loss, grad, &options));
}

static void run_forward(struct arena *arena)
{
    run_xent(arena, NULL);
}

static void run_fused(struct arena *arena)
{
    run_xent(arena, arena->grad);
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The median in ns per logit, of run after an untimed prepare. */
static double time_median(struct arena *arena, void (*prepare)(struct arena *), void (*run)(struct arena *))
{
    double taken[MOST_REPETITIONS], total = 0.0;
    int count = 0;
    while (count < MOST_REPETITIONS && total < seconds_enough) {
        if (prepare)
            prepare(arena);
        double start = seconds_now();
        run(arena);
        taken[count] = seconds_now() - start;
        total += taken[count++];
    }
    qsort(taken, (size_t)count, sizeof taken[0], by_value);
    return taken[count / 2] * 1e9 / (double)(arena->shape.rows * arena->shape.classes);
}

/* Print the line of a kernel; first_grad and first_loss are the first kernel's. False if the bits are not the same. */
static bool compare_kernel(struct arena *arena, const char *isa, bool first, double floor)
{
    size_t loss_bytes = arena->shape.rows * sizeof(float);
    require(xent_select(isa));
    double forward = time_median(arena, NULL, run_forward);
    double fused = time_median(arena, restore_grad, run_fused);
    if (first) {
        memcpy(arena->first_grad, arena->grad, arena->bytes);
        memcpy(arena->first_loss, arena->loss, loss_bytes);
    }
    bool same = memcmp(arena->grad, arena->first_grad, arena->bytes) == 0 &&
                memcmp(arena->loss, arena->first_loss, loss_bytes) == 0;
    printf("%15s  %-9s  %7.3f %7.1fx   %7.3f %7.1fx   %s\n", "", isa, forward, forward / floor, fused, fused / floor,
           first  ? "reference"
           : same ? "equal"
                  : "DIFFERENT");
    show_output();
    return same;
}

static bool compare_shape(struct shape shape)
{
    struct arena arena;
    bool same = true;
    if (!arena_init(&arena, shape))
        return false;
    double floor = time_median(&arena, NULL, run_read);
    printf("%6zu x %-6zu  %-9s  %7.3f\n", shape.rows, shape.classes, "read only", floor);
    const char *const *isas = xent_isas();
    for (size_t k = 0; isas[k]; k++)
        same = compare_kernel(&arena, isas[k], k == 0, floor) && same;
    if (!same)
        complain("the kernels do not give the same bits");
    arena_free(&arena);
    return same;
}

bool compare_kernels(void)
{
    const char *chosen = xent_isa();
    bool ok = true;
    printf("The kernels on this machine: ns per logit, and how many times as long as only reading the logits.\n\n");
    printf("%15s  %-9s  %-16s   %-16s   %s\n", "rows x classes", "kernel", "forward", "fused, in place", "bits");
    for (size_t s = 0; s < SHAPES; s++)
        ok = compare_shape(shapes[s]) && ok;
    require(xent_select(chosen));
    return ok;
}
