/*
 * The bench in plain C: a table of cases, each timed beside the floors of memory on the same data, and the errors of
 * the same calls. main.cpp hands the cases to Google Benchmark.
 *
 *   select.c  the command line             data.c   the arrays         floors.c  the least that memory takes
 *   cases.c   the table of cases           pool.c   threads            limits.c  the least that arithmetic takes
 *   run.c     one run of a case, timed     errors.c errors in ULP     orders.c the least that an order of memory takes
 */
#ifndef XENT_BENCH_BENCH_H
#define XENT_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    BENCH_MAX_SHAPES = 64,
    BENCH_MAX_ISAS = 16,
    BENCH_MAX_THREAD_COUNTS = 16,
    BENCH_MAX_THREADS = 1024,
    BENCH_BLOCK = 128 /* floors work on whole blocks of so many floats: buffers end with slack for the last one */
};

/* Rows one after the other, or those of images [outer][classes][inner]: then inner is not 0 and divides rows. */
struct bench_shape {
    size_t rows, classes, inner;
};

/* "1024x32000", or "8x21x512x512": an image's inner in two parts where it is a square. */
struct bench_shape_text {
    char text[48];
};
struct bench_shape_text bench_shape_name(struct bench_shape shape);

/* From one class of a row to the next, and where a row starts. */
size_t bench_class_stride(struct bench_shape shape);
size_t bench_row_start(struct bench_shape shape, size_t row);

/* The logits, all drawn from the same normal deviates. */
enum bench_kind {
    BENCH_NORMAL,  /* normal * 3 */
    BENCH_OFFSET,  /* normal * 3 + 1e4 */
    BENCH_MASKED,  /* normal * 3, a third of them -inf */
    BENCH_IGNORED, /* normal * 3, half of the rows ignored */
    BENCH_WIDE,    /* normal * 30 */
    BENCH_KINDS
};

const char *bench_kind_name(enum bench_kind kind);

/* Where a run finds its logits. */
enum bench_placement {
    BENCH_BY_SIZE,  /* small shapes in cache, others in memory */
    BENCH_RESIDENT, /* every run takes the same buffers */
    BENCH_COLD      /* successive runs take buffers in turn, which together are much larger than the caches */
};

/* What to run. The name of a shape is "1024x32000" or "8x21x512x512"; "L1" stands for the cases that never leave the
 * first-level cache.
 */
struct bench_selection {
    struct bench_shape shapes[BENCH_MAX_SHAPES];
    size_t shape_count;
    bool l1;
    const char *isas[BENCH_MAX_ISAS];
    size_t isa_count;
    size_t threads[BENCH_MAX_THREAD_COUNTS];
    size_t thread_count;
    enum bench_kind kinds[BENCH_KINDS];
    size_t kind_count;
    enum bench_placement placement;
    size_t last_level_cache; /* bytes, of all that the threads can reach together */
    bool options;            /* options of a call, in place, beside the plain call, instead of floors and modes */
    bool errors;             /* print the errors of the calls instead of timing them */
};

enum bench_access {
    BENCH_READS,
    BENCH_IN_PLACE, /* overwrites its input: the logits are put back before it, untimed */
    BENCH_COPIES
};

/* How a floor goes through an array: from beginning to end, by both halves of it at once, or from beginning to end
   while lines of several pages are fetched. */
enum bench_walk { BENCH_IN_ORDER, BENCH_HALVES, BENCH_PAGES };

/* Fetches into the second-level cache, for each line of count floats, that of the next eight pages whose turn it then
   is: the first eight lines of eight pages stand for the first one of each of the next, as in kernels/overlap.h. */
static inline void bench_fetch_pages(const float *x, size_t count)
{
    enum { LINE = 64, LINES = 4096 / LINE, PAGES = 8, BLOCK = LINES * PAGES };
    for (size_t i = 0; i < count; i += LINE / sizeof *x) {
        const uintptr_t line = (uintptr_t)(x + i) / LINE, n = line % BLOCK;
        const uintptr_t fetched = (line / BLOCK + 1) * BLOCK + n % PAGES * LINES + n / PAGES;
        __builtin_prefetch((const void *)(fetched * LINE), 0, 2);
    }
}

/*
 * The least work that any call has to do, in one way of doing it: "read" sums the logits, "scale" multiplies them in
 * place, "stream" copies them with streaming stores, "copy" with ordinary ones.
 */
struct bench_floor {
    const char *operation;
    const char *variant;
    size_t bytes_per_logit;
    bool in_place;
    enum bench_walk walk;
    void (*run)(const float *from, float *to, size_t count, enum bench_walk walk);
};

/* What a kernel does to rows from first to last, in its order, without arithmetic. */
struct bench_order {
    const char *mode;
    enum bench_access access;
    void (*run)(struct bench_shape shape, const float *from, float *to, size_t first, size_t last);
};

/* Instructions that do one thing on 16 lanes again and again, on registers that do not wait for one another. */
struct bench_limit {
    const char *operation;
    const char *isa;
    void (*run)(size_t times, float *l1);
};

/* Buffers of a shape, one after the other in each array. */
struct bench_layout {
    struct bench_shape shape;
    size_t floats; /* from one buffer to the next */
    size_t buffers;
};

/* What a run works on. */
struct bench_data {
    const float *logits;
    float *work; /* in place: a copy of the logits */
    float *grad; /* out of place */
    float *loss;
    const int32_t *targets; /* and one more */
    const float *weights;       /* of the classes */
    const float *probabilities; /* in the shape of the logits */
    double *doubles;            /* the logits, once; then what calls in place have left */
    double *double_loss;
};

struct bench_case {
    char name[112]; /* shape/mode/isa/threads:N, or shape/floor-operation/variant/threads:N; more where data differs */
    struct bench_layout layout;
    enum bench_kind kind;
    enum bench_access access;
    size_t threads;    /* 1: the call runs on the calling thread, without an executor */
    size_t calls;      /* per run, so that a run is long beside the clock's resolution */
    size_t warm_ups;   /* runs before those that count, so that caches are as this case leaves them */
    size_t iterations; /* runs per repetition */
    double logits;     /* per run */
    double bytes;      /* moved per run if the caches hold nothing */
    const char *isa;   /* the kernel to select, or NULL */
    const struct bench_floor *floor;
    const struct bench_order *order;
    const struct bench_limit *limit;
    const struct bench_option *option; /* or NULL */
    void (*run)(const struct bench_case *self, const struct bench_data *at);
};

/* What a call is asked for beside the plain one. */
struct bench_option {
    const char *name;
    bool weights, probabilities, doubles, forward;
    bool mixup; /* two labels a row: its own and the next row's */
    bool bce;   /* xent_bce_f32 of as many elements */
    double smoothing;
};

/* Takes the options above out of argv. False, with a message on stderr, if one is wrong. */
bool bench_select(struct bench_selection *selection, int *argc, char **argv);

/* The cases of a selection, in memory that lives as long as the process. */
const struct bench_case *bench_cases(const struct bench_selection *selection, size_t *count);

/* Selects the case's kernel, starts its threads and makes its data. */
void bench_prepare(const struct bench_case *self);

/* Seconds that one run takes, and how many of them its threads had a CPU, on average. */
struct bench_seconds {
    double wall, on_cpu;
};

/* One run of the case that was prepared last. The logits are restored first where needed, outside of the timed region.
 */
struct bench_seconds bench_time(const struct bench_case *self);

/* The loss of every row, and the gradient unless that is NULL. Ends the process if that fails. */
void bench_call(struct bench_shape shape, const struct bench_data *at, const float *logits, float *grad,
                size_t threads);

/* Every floor that this CPU can run. */
const struct bench_floor *bench_floors(size_t *count);

/* The orders of a shape that this CPU can run, if kernels take it in one of them. */
const struct bench_order *bench_orders(struct bench_shape shape, size_t *count);

/* Every limit of this CPU family, to run on a CPU that has the ISA. They need BENCH_L1_FLOATS floats, aligned to 64
 * bytes. */
enum { BENCH_L1_FLOATS = 1024 };
const struct bench_limit *bench_limits(size_t *count);

/* Prints "isa shape data mode rows-checked loss-ulp gradient-ulp" for each kernel and shape, tab-separated. */
void bench_errors(const struct bench_selection *selection);

/* The buffers of a shape that are together at least so many bytes of logits, and at least one. */
struct bench_layout bench_lay_out(struct bench_shape shape, size_t bytes);

/* Says what the arrays have to hold, before the first call of the next two. */
void bench_reserve(const struct bench_layout *layout);

/* The first buffers of a layout with logits of a kind, and targets to them. */
struct bench_data bench_make_data(const struct bench_layout *layout, enum bench_kind kind);

/* Adds class weights and probabilities to them. */
void bench_add_options(struct bench_data *data, const struct bench_layout *layout);

/* Adds the same logits as doubles. */
void bench_add_doubles(struct bench_data *data, const struct bench_layout *layout);

/* The buffers at an index below layout->buffers, given the first ones. */
struct bench_data bench_data_at(const struct bench_data *first, const struct bench_layout *layout, size_t index);

/* Makes count buffers' work a copy of their logits. */
void bench_restore(const struct bench_data *at, const struct bench_layout *layout, size_t count, size_t threads);

uint64_t bench_seed(void);

/* A pool of so many threads, of which the caller is one: made when first asked for. NULL for one thread. */
const struct xent_executor *bench_executor(size_t threads);

/* Calls task(argument, i) for every i < tasks, on the pool or, for one thread, here. */
void bench_parallel(size_t threads, void (*task)(void *argument, size_t index), void *argument, size_t tasks);

/* Prints a message and ends the process: a bench that cannot run has no result worth keeping. */
void bench_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif

#endif
