/*
 * The bench in plain C: a table of cases, each timed beside the floors of memory on the same data, and the errors of
 * the same calls. main.cpp hands the cases to Google Benchmark.
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
    BENCH_BLOCK = 128 /* floors work on whole blocks of so many floats: buffers end with slack for the last one */
};

struct bench_shape {
    size_t rows, classes;
};

/* What to run. The name of a shape is "1024x32000"; "L1" stands for the cases that never leave the first-level cache.
 */
struct bench_selection {
    struct bench_shape shapes[BENCH_MAX_SHAPES];
    size_t shape_count;
    bool l1;
    const char *isas[BENCH_MAX_ISAS];
    size_t isa_count;
    bool errors; /* print the errors of the calls instead of timing them */
};

/*
 * The least work that any call has to do, in one way of doing it: "read" sums the logits, "scale" multiplies them in
 * place, "stream" copies them with streaming stores, "copy" with ordinary ones.
 */
struct bench_floor {
    const char *operation;
    const char *variant;
    size_t bytes_per_logit;
    bool in_place;
    bool halves; /* walk both halves of the array at once */
    void (*run)(const float *from, float *to, size_t count, bool halves);
};

struct bench_case {
    char name[96]; /* shape/mode/isa, or shape/floor-operation/variant */
    size_t rows, classes;
    size_t calls;      /* per run, so that a run is long beside the clock's resolution */
    size_t iterations; /* runs per repetition */
    double logits;     /* per run */
    double bytes;      /* moved per run if the caches hold nothing */
    bool restore;      /* the run overwrites its input: put the logits back before the next one, untimed */
    const char *isa;   /* the kernel to select, or NULL */
    const struct bench_floor *floor;
    void (*run)(const struct bench_case *self);
};

/* The buffers of every case: as many floats as the largest selected shape, shared by all. */
struct bench_data {
    float *logits; /* normal * 3, never written after they are made */
    float *work;   /* in place: a copy of the logits; out of place: the gradient */
    float *loss;
    int32_t *targets; /* of the case that was prepared last */
};

/* Takes the options above out of argv. False, with a message on stderr, if one is wrong. */
bool bench_select(struct bench_selection *selection, int *argc, char **argv);

/* The cases of a selection, in memory that lives as long as the process. */
const struct bench_case *bench_cases(const struct bench_selection *selection, size_t *count);

/* Selects the case's kernel and gives its rows targets; the first call makes the logits. */
void bench_prepare(const struct bench_case *self);

/* Seconds that one run takes, and how many of them the thread had a CPU. */
struct bench_seconds {
    double wall, on_cpu;
};

/* One run. The logits are restored first where needed, outside of the timed region. */
struct bench_seconds bench_time(const struct bench_case *self);

/* Every floor that this CPU can run. */
const struct bench_floor *bench_floors(size_t *count);

/* Prints "isa shape mode rows-checked loss-ulp gradient-ulp" for each kernel and shape, tab-separated. */
void bench_errors(const struct bench_selection *selection);

/* Room for count logits and rows rows; what was there before is kept if it suffices. */
const struct bench_data *bench_reserve(size_t count, size_t rows);
void bench_targets(size_t rows, size_t classes);
void bench_restore(size_t count);
uint64_t bench_seed(void);

/* Prints a message and ends the process: a bench that cannot run has no result worth keeping. */
void bench_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif

#endif
