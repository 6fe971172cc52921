/*
 * The table of cases: every shape with every floor and with every mode of every kernel, and the cases in cache that
 * show arithmetic alone.
 */
#include "bench.h"

#include <xent/xent.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char default_shapes[] = "65536x10,4096x128,4096x1000,1024x32000,512x50257,256x128256,128x262144,L1";

/* A repetition runs a small shape so often that it takes about as many logits as this, within reason. */
static const size_t logits_per_repetition = 4u << 20, most_iterations = 4096;

/* The plain-C kernel is bound by arithmetic wherever its data lies: a part of the rows, run once, tells as much. */
static const size_t scalar_logits = 1u << 18;

static const struct bench_data *data;
static size_t most_logits, most_rows;

static void call_xent(const struct bench_case *self, const float *logits, float *grad)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    for (size_t i = 0; i < self->calls; i++) {
        xent_status status =
            xent_fused_f32(logits, data->targets, self->rows, self->classes, data->loss, grad, &options);
        if (status != XENT_OK)
            bench_fail("%s: %s", self->name, xent_status_string(status));
    }
}

static void run_forward(const struct bench_case *self)
{
    call_xent(self, data->logits, NULL);
}

static void run_in_place(const struct bench_case *self)
{
    call_xent(self, data->work, data->work);
}

static void run_out_of_place(const struct bench_case *self)
{
    call_xent(self, data->logits, data->work);
}

static void run_floor(const struct bench_case *self)
{
    size_t count = (self->rows * self->classes + BENCH_BLOCK - 1) / BENCH_BLOCK * BENCH_BLOCK;
    self->floor->run(data->logits, data->work, count, self->floor->halves);
}

/* A chain of exclusive ors, each of which takes one cycle on every CPU: its time per step is the clock's period. */
static void run_clock(const struct bench_case *self)
{
    uint64_t x = 1, y = self->calls;
    for (size_t i = 0; i < self->calls; i += 8)
        for (int step = 0; step < 8; step++) {
            x ^= y;
            __asm__ volatile("" : "+r"(x), "+r"(y));
        }
}

static const struct bench_mode {
    const char *name;
    size_t bytes_per_logit;
    bool restore;
    void (*run)(const struct bench_case *self);
} modes[] = {
    {"forward", 4, false, run_forward},
    {"in-place", 8, true, run_in_place},
    {"out-of-place", 8, false, run_out_of_place},
};

/* 16 KB of data each, which is half of the smallest first-level cache in use. */
static const struct bench_l1_case {
    const char *mode;
    size_t classes;
    void (*run)(const struct bench_case *self);
} l1_cases[] = {
    {"forward", 4096, run_forward},
    {"out-of-place", 2048, run_out_of_place},
};

static struct bench_case *cases;
static size_t case_count, case_capacity;

static struct bench_case *add(const char *isa, size_t rows, size_t classes, size_t calls)
{
    if (case_count == case_capacity) {
        case_capacity = 2 * case_capacity + 64;
        cases = realloc(cases, case_capacity * sizeof *cases);
        if (!cases)
            bench_fail("no memory for the cases");
    }
    struct bench_case *c = &cases[case_count++];
    size_t logits = rows * classes * calls;
    *c = (struct bench_case){.rows = rows, .classes = classes, .calls = calls, .logits = (double)logits, .isa = isa};
    bool scalar = isa && strcmp(isa, "scalar") == 0;
    c->iterations = logits < logits_per_repetition && !scalar ? logits_per_repetition / logits : 1;
    if (c->iterations > most_iterations)
        c->iterations = most_iterations;
    if (rows * classes > most_logits)
        most_logits = rows * classes;
    if (rows > most_rows)
        most_rows = rows;
    return c;
}

static size_t timed_rows(const char *isa, struct bench_shape shape)
{
    size_t enough = shape.classes < scalar_logits ? scalar_logits / shape.classes : 1;
    return strcmp(isa, "scalar") == 0 && enough < shape.rows ? enough : shape.rows;
}

static void add_shape(struct bench_shape shape, const struct bench_selection *selection)
{
    size_t floor_count;
    const struct bench_floor *floors = bench_floors(&floor_count);
    for (size_t i = 0; i < floor_count; i++) {
        struct bench_case *c = add(NULL, shape.rows, shape.classes, 1);
        c->floor = &floors[i];
        c->run = run_floor;
        c->restore = floors[i].in_place;
        c->bytes = c->logits * (double)floors[i].bytes_per_logit;
        snprintf(c->name, sizeof c->name, "%zux%zu/floor-%s/%s", shape.rows, shape.classes, floors[i].operation,
                 floors[i].variant);
    }
    for (size_t i = 0; i < selection->isa_count; i++)
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
            const char *isa = selection->isas[i];
            struct bench_case *c = add(isa, timed_rows(isa, shape), shape.classes, 1);
            c->run = modes[m].run;
            c->restore = modes[m].restore;
            c->bytes = c->logits * (double)modes[m].bytes_per_logit;
            snprintf(c->name, sizeof c->name, "%zux%zu/%s/%s", shape.rows, shape.classes, modes[m].name, isa);
        }
}

static void add_l1(const struct bench_selection *selection)
{
    struct bench_case *clock = add(NULL, 1, 1, 1u << 21);
    clock->run = run_clock;
    snprintf(clock->name, sizeof clock->name, "L1/clock/cycles");
    for (size_t i = 0; i < selection->isa_count; i++)
        for (size_t k = 0; k < sizeof l1_cases / sizeof *l1_cases; k++) {
            size_t calls = scalar_logits / l1_cases[k].classes;
            struct bench_case *c = add(selection->isas[i], 1, l1_cases[k].classes, calls);
            c->run = l1_cases[k].run;
            snprintf(c->name, sizeof c->name, "L1/%s/%s", l1_cases[k].mode, c->isa);
        }
}

const struct bench_case *bench_cases(const struct bench_selection *selection, size_t *count)
{
    for (size_t i = 0; i < selection->shape_count; i++)
        add_shape(selection->shapes[i], selection);
    if (selection->l1)
        add_l1(selection);
    *count = case_count;
    return cases;
}

void bench_prepare(const struct bench_case *self)
{
    data = bench_reserve(most_logits, most_rows);
    bench_targets(self->rows, self->classes);
    xent_status status = self->isa ? xent_select(self->isa) : XENT_OK;
    if (status != XENT_OK)
        bench_fail("%s: %s", self->name, xent_status_string(status));
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench_seconds bench_time(const struct bench_case *self)
{
    if (self->restore)
        bench_restore(self->rows * self->classes);
    double cpu_start = seconds(CLOCK_THREAD_CPUTIME_ID), start = seconds(CLOCK_MONOTONIC);
    self->run(self);
    double end = seconds(CLOCK_MONOTONIC), cpu_end = seconds(CLOCK_THREAD_CPUTIME_ID);
    return (struct bench_seconds){.wall = end - start, .on_cpu = cpu_end - cpu_start};
}

static bool select_shape(struct bench_selection *selection, const char *word)
{
    struct bench_shape shape;
    int end = 0;
    if (strcmp(word, "L1") == 0) {
        selection->l1 = true;
        return true;
    }
    if (word[0] == '-' || strstr(word, "x-") || sscanf(word, "%zux%zu%n", &shape.rows, &shape.classes, &end) != 2 ||
        word[end] || !shape.rows || !shape.classes || shape.classes > INT32_MAX ||
        shape.rows > SIZE_MAX / 64 / shape.classes) {
        fprintf(stderr, "xent-bench: no shape: '%s'. A shape is ROWSxCLASSES such as 1024x32000, or L1\n", word);
        return false;
    }
    if (selection->shape_count == BENCH_MAX_SHAPES) {
        fprintf(stderr, "xent-bench: more than %d shapes\n", BENCH_MAX_SHAPES);
        return false;
    }
    selection->shapes[selection->shape_count++] = shape;
    return true;
}

static bool select_isa(struct bench_selection *selection, const char *word)
{
    const char *const *isas = xent_isas();
    for (size_t i = 0; isas[i]; i++)
        if (strcmp(isas[i], word) == 0 && selection->isa_count < BENCH_MAX_ISAS) {
            selection->isas[selection->isa_count++] = isas[i];
            return true;
        }
    fprintf(stderr, "xent-bench: no kernel '%s' that this build and CPU can run. There are:", word);
    for (size_t i = 0; isas[i]; i++)
        fprintf(stderr, " %s", isas[i]);
    fputc('\n', stderr);
    return false;
}

static bool select_each(struct bench_selection *selection, const char *list,
                        bool (*select_one)(struct bench_selection *, const char *))
{
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)strcspn(at, ","), at);
        if (!select_one(selection, word))
            return false;
    }
    return true;
}

bool bench_select(struct bench_selection *selection, int *argc, char **argv)
{
    static const char shapes_option[] = "--shapes=", isas_option[] = "--isas=";
    const char *shapes = default_shapes, *isas = NULL;
    int kept = 1;
    *selection = (struct bench_selection){0};
    for (int i = 1; i < *argc; i++) {
        if (strncmp(argv[i], shapes_option, sizeof shapes_option - 1) == 0)
            shapes = argv[i] + sizeof shapes_option - 1;
        else if (strncmp(argv[i], isas_option, sizeof isas_option - 1) == 0)
            isas = argv[i] + sizeof isas_option - 1;
        else if (strcmp(argv[i], "--errors") == 0)
            selection->errors = true;
        else
            argv[kept++] = argv[i];
    }
    *argc = kept;
    if (!isas)
        for (const char *const *isa = xent_isas(); *isa && selection->isa_count < BENCH_MAX_ISAS; isa++)
            selection->isas[selection->isa_count++] = *isa;
    return select_each(selection, shapes, select_shape) && (!isas || select_each(selection, isas, select_isa));
}
