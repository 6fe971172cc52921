/*
 * The table of cases: every shape with every floor and with every mode of every kernel, on every number of threads, and
 * the cases in cache that show arithmetic alone.
 */
#include "bench.h"

#include <xent/xent.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A repetition runs a small shape so often that it takes about as many logits as this, within reason. */
static const size_t logits_per_repetition = 4u << 20, cold_logits_per_repetition = 16u << 20, most_iterations = 4096;

/* Of a shape that is up to so large, the layer that made the logits may well have left them in cache. */
static const size_t resident_bytes = 8u << 20;

/* Buffers in turn are together so many times as large as the last-level cache. */
static const size_t cold_caches = 4;

/* The plain-C kernel is bound by arithmetic wherever its data lies: a part of the rows, run once, tells as much. */
static const size_t scalar_logits = 1u << 18;

/* In L1. Shorter rows are another matter: a kernel may take several at once. */
static const size_t shortest_l1_row = 128, l1_logits_per_run = 1u << 18;

/* So many times 16 lanes to a run. */
static const size_t limit_times = 1u << 18;

static xent_problem problem_of(struct bench_shape shape, const struct bench_data *at, const float *logits, float *grad,
                               const xent_executor *executor)
{
    const size_t inner = shape.inner ? shape.inner : 1;
    xent_problem problem = XENT_PROBLEM_INIT;
    problem.outer = shape.rows / inner;
    problem.classes = shape.classes;
    problem.inner = inner;
    problem.logits = logits;
    problem.targets = at->targets;
    problem.grad = grad;
    problem.loss = at->loss;
    problem.reduction = XENT_NONE;
    problem.executor = executor;
    return problem;
}

void bench_call(struct bench_shape shape, const struct bench_data *at, const float *logits, float *grad, size_t threads)
{
    const xent_executor *executor = bench_executor(threads);
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.executor = executor;
    const xent_problem images = problem_of(shape, at, logits, grad, executor);
    xent_status status = shape.inner
                             ? xent_cross_entropy(&images)
                             : xent_fused_f32(logits, at->targets, shape.rows, shape.classes, at->loss, grad, &options);
    if (status != XENT_OK)
        bench_fail("%s, %s: %s", xent_isa(), bench_shape_name(shape).text, xent_status_string(status));
}

static void call_xent(const struct bench_case *self, const struct bench_data *at, const float *logits, float *grad)
{
    for (size_t i = 0; i < self->calls; i++)
        bench_call(self->layout.shape, at, logits, grad, self->threads);
}

static void run_forward(const struct bench_case *self, const struct bench_data *at)
{
    call_xent(self, at, at->logits, NULL);
}

/* A second call takes the gradient of the first for its logits, which is as much work. */
static void run_in_place(const struct bench_case *self, const struct bench_data *at)
{
    call_xent(self, at, at->work, at->work);
}

static void run_out_of_place(const struct bench_case *self, const struct bench_data *at)
{
    call_xent(self, at, at->logits, at->grad);
}

static const struct bench_option options[] = {{.name = "plain"},
                                              {.name = "weights", .weights = true},
                                              {.name = "smoothing", .smoothing = 0.1},
                                              {.name = "both", .weights = true, .smoothing = 0.1},
                                              {.name = "probabilities", .probabilities = true},
                                              {.name = "mixup", .mixup = true},
                                              {.name = "bce", .bce = true},
                                              {.name = "doubles", .doubles = true},
                                              {.name = "doubles-forward", .doubles = true, .forward = true}};

static void run_bce(const struct bench_case *self, const struct bench_data *at)
{
    const struct bench_shape shape = self->layout.shape;
    xent_bce_options bce = XENT_BCE_OPTIONS_INIT;
    bce.executor = bench_executor(self->threads);
    xent_status status = xent_bce_f32(at->work, at->probabilities, shape.rows, shape.classes, at->loss, at->work, &bce);
    if (status != XENT_OK)
        bench_fail("%s: %s", self->name, xent_status_string(status));
}

static void run_option(const struct bench_case *self, const struct bench_data *at)
{
    static const float shares[] = {0.7f, 0.3f};
    static const xent_strides shared = {0, 1, 0};
    xent_problem problem = problem_of(self->layout.shape, at, at->work, at->work, bench_executor(self->threads));
    const xent_strides with_next = {problem.inner, 1, 1};
    if (self->option->bce) {
        run_bce(self, at);
        return;
    }
    if (self->option->probabilities) {
        problem.target_type = XENT_PROBABILITIES;
        problem.targets = at->probabilities;
    }
    if (self->option->mixup) {
        problem.labels = 2;
        problem.targets_strides = &with_next;
        problem.probabilities = shares;
        problem.probabilities_strides = &shared;
    }
    if (self->option->doubles) {
        problem.dtype = XENT_F64;
        problem.logits = problem.grad = at->doubles;
        problem.loss = at->double_loss;
    }
    if (self->option->forward)
        problem.grad = NULL;
    problem.class_weights = self->option->weights ? at->weights : NULL;
    problem.label_smoothing = self->option->smoothing;
    xent_status status = xent_cross_entropy(&problem);
    if (status != XENT_OK)
        bench_fail("%s: %s", self->name, xent_status_string(status));
}

/* The least that a gradient in place takes with probabilities: two arrays read, one of them written. */
static void add_arrays(const float *restrict from, float *restrict to, size_t count, enum bench_walk walk)
{
    (void)walk;
    for (size_t i = 0; i < count; i++)
        to[i] = to[i] * 0.999f + from[i];
}

static const struct bench_floor floor_of_probabilities = {"add", "c", 12, true, BENCH_IN_ORDER, add_arrays};

/* A floor's array, cut into a part for each thread. */
struct parts {
    const struct bench_floor *floor;
    const float *from;
    float *to;
    size_t blocks, count;
};

static void run_part(void *argument, size_t index)
{
    const struct parts *p = argument;
    size_t begin = p->blocks * index / p->count * BENCH_BLOCK, end = p->blocks * (index + 1) / p->count * BENCH_BLOCK;
    p->floor->run(p->from + begin, p->to + begin, end - begin, p->floor->walk);
}

static void run_floor(const struct bench_case *self, const struct bench_data *at)
{
    struct parts parts = {.floor = self->floor,
                          .from = self->option ? at->probabilities : at->logits,
                          .to = self->access == BENCH_IN_PLACE ? at->work : at->grad,
                          .blocks = self->layout.floats / BENCH_BLOCK,
                          .count = self->threads};
    bench_parallel(self->threads, run_part, &parts, self->threads);
}

/* The same of an order, cut into whole rows. */
struct order_parts {
    const struct bench_case *self;
    const float *from;
    float *to;
};

static void run_order_part(void *argument, size_t index)
{
    const struct order_parts *p = argument;
    const struct bench_shape shape = p->self->layout.shape;
    const size_t threads = p->self->threads;
    p->self->order->run(shape, p->from, p->to, shape.rows * index / threads, shape.rows * (index + 1) / threads);
}

static void run_order(const struct bench_case *self, const struct bench_data *at)
{
    struct order_parts parts = {self, at->logits, self->access == BENCH_IN_PLACE ? at->work : at->grad};
    bench_parallel(self->threads, run_order_part, &parts, self->threads);
}

static void run_limit(const struct bench_case *self, const struct bench_data *at)
{
    self->limit->run(self->calls, at->grad);
}

/* A chain of exclusive ors, each of which takes one cycle on every CPU: its time per step is the clock's period. */
static void run_clock(const struct bench_case *self, const struct bench_data *at)
{
    (void)at;
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
    enum bench_access access;
    size_t l1_logits; /* 16 KB of data, which is half of the smallest first-level cache in use */
    void (*run)(const struct bench_case *self, const struct bench_data *at);
} modes[] = {
    {"forward", 4, BENCH_READS, 4096, run_forward},
    {"in-place", 8, BENCH_IN_PLACE, 4096, run_in_place},
    {"out-of-place", 8, BENCH_COPIES, 2048, run_out_of_place},
};

enum { MODES = sizeof modes / sizeof *modes };

static struct bench_case *cases;
static size_t case_count, case_capacity;

static void add(struct bench_case c, const char *shape, const char *what, const char *how)
{
    if (case_count == case_capacity) {
        case_capacity = 2 * case_capacity + 64;
        cases = realloc(cases, case_capacity * sizeof *cases);
        if (!cases)
            bench_fail("no memory for the cases");
    }
    struct bench_case *added = &cases[case_count++];
    *added = c;
    bool normal = c.kind == BENCH_NORMAL;
    snprintf(added->name, sizeof added->name, "%s/%s/%s/threads:%zu%s%s", shape, what, how, c.threads,
             normal ? "" : "/data:", normal ? "" : bench_kind_name(c.kind));
    bench_reserve(&c.layout);
}

static bool is_scalar(const char *isa)
{
    return isa && strcmp(isa, "scalar") == 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How often to run it: often enough for the clock, and for the caches to be as the case itself leaves them. */
static void set_counts(struct bench_case *c, size_t last_level_cache)
{
    size_t logits = c->layout.shape.rows * c->layout.shape.classes * c->calls;
    bool cold = c->layout.buffers > 1;
    size_t enough = cold ? cold_logits_per_repetition : logits_per_repetition;
    c->logits = (double)logits;
    c->iterations = logits < enough && !is_scalar(c->isa) ? least(enough / logits, most_iterations) : 1;
    c->warm_ups = cold ? 2 * last_level_cache / (logits * sizeof(float)) + 1 : 1;
}

static void add_call(struct bench_case c, const char *name, const struct bench_mode *mode, const char *isa,
                     size_t last_level_cache)
{
    if (is_scalar(isa)) {
        struct bench_shape part = c.layout.shape;
        part.rows = least(part.rows, part.classes < scalar_logits ? scalar_logits / part.classes : 1);
        part.inner = part.inner ? part.rows : 0;
        c.layout = bench_lay_out(part, 0);
    }
    c.isa = isa;
    c.run = mode->run;
    c.access = mode->access;
    set_counts(&c, last_level_cache);
    c.bytes = c.logits * (double)mode->bytes_per_logit;
    add(c, name, mode->name, isa);
}

static void add_floor(struct bench_case c, const char *name, const struct bench_floor *floor, size_t last_level_cache)
{
    char operation[32];
    snprintf(operation, sizeof operation, "floor-%s", floor->operation);
    c.floor = floor;
    c.run = run_floor;
    c.access = floor->in_place ? BENCH_IN_PLACE : floor->bytes_per_logit > 4 ? BENCH_COPIES : BENCH_READS;
    set_counts(&c, last_level_cache);
    c.bytes = c.logits * (double)floor->bytes_per_logit;
    add(c, name, operation, floor->variant);
}

static void add_order(struct bench_case c, const char *name, const struct bench_order *order, size_t last_level_cache)
{
    char operation[32];
    snprintf(operation, sizeof operation, "order-%s", order->mode);
    c.order = order;
    c.run = run_order;
    c.access = order->access;
    set_counts(&c, last_level_cache);
    c.bytes = c.logits * (order->access == BENCH_READS ? 4 : 8);
    add(c, name, operation, "avx2");
}

static void add_options(struct bench_case c, const char *name, const struct bench_selection *selection)
{
    for (size_t o = 0; o < sizeof options / sizeof *options; o++)
        for (size_t i = 0; i < selection->isa_count; i++) {
            c.option = &options[o];
            const size_t bytes = c.option->doubles                          ? (c.option->forward ? 8 : 16)
                                 : c.option->probabilities || c.option->bce ? 12
                                                                            : 8;
            const struct bench_mode mode = {options[o].name, bytes, BENCH_IN_PLACE, 0, run_option};
            add_call(c, name, &mode, selection->isas[i], selection->last_level_cache);
        }
    c.option = &options[0]; /* any: their data have probabilities, from which this floor reads */
    add_floor(c, name, &floor_of_probabilities, selection->last_level_cache);
}

static size_t pool_bytes(struct bench_shape shape, const struct bench_selection *selection)
{
    bool resident = shape.rows * shape.classes * sizeof(float) <= resident_bytes;
    if (selection->placement != BENCH_BY_SIZE)
        resident = selection->placement == BENCH_RESIDENT;
    return resident ? 0 : cold_caches * selection->last_level_cache;
}

static void add_shape(struct bench_shape shape, size_t threads, const struct bench_selection *selection)
{
    struct bench_case c = {
        .layout = bench_lay_out(shape, pool_bytes(shape, selection)), .threads = threads, .calls = 1};
    const struct bench_shape_text text = bench_shape_name(shape);
    const char *name = text.text;
    if (selection->options) {
        add_options(c, name, selection);
        return;
    }
    size_t floor_count;
    const struct bench_floor *floors = bench_floors(&floor_count);
    for (size_t i = 0; i < floor_count; i++)
        add_floor(c, name, &floors[i], selection->last_level_cache);
    size_t order_count;
    const struct bench_order *orders = bench_orders(shape, &order_count);
    for (size_t i = 0; i < order_count; i++)
        add_order(c, name, &orders[i], selection->last_level_cache);
    for (size_t k = 0; k < selection->kind_count; k++)
        for (size_t i = 0; i < selection->isa_count; i++)
            for (size_t m = 0; m < MODES; m++) {
                c.kind = selection->kinds[k];
                add_call(c, name, &modes[m], selection->isas[i], selection->last_level_cache);
            }
}

static void add_l1_call(const char *isa, const struct bench_mode *mode, struct bench_shape shape)
{
    struct bench_case c = {
        .layout = bench_lay_out(shape, 0), .threads = 1, .calls = l1_logits_per_run / (shape.rows * shape.classes)};
    char name[48];
    snprintf(name, sizeof name, "L1:%zux%zu", shape.rows, shape.classes);
    add_call(c, name, mode, isa, 0);
}

/* Batches that fill the first-level cache, and a quarter of it, with ever longer rows: what a row costs beside its
   logits shows in the shorter ones, and what a call costs beside its rows in the smaller ones. */
static void add_l1_calls(const char *isa)
{
    for (size_t m = 0; m < MODES; m++)
        for (size_t logits = modes[m].l1_logits; logits >= modes[m].l1_logits / 4; logits /= 4)
            for (size_t classes = shortest_l1_row; classes <= logits; classes *= 2)
                add_l1_call(isa, &modes[m], (struct bench_shape){logits / classes, classes, 0});
}

static void add_limit(const struct bench_limit *limit)
{
    char operation[32];
    snprintf(operation, sizeof operation, "limit-%s", limit->operation);
    struct bench_case c = {.layout = bench_lay_out((struct bench_shape){1, BENCH_L1_FLOATS, 0}, 0),
                           .threads = 1,
                           .calls = limit_times,
                           .limit = limit,
                           .run = run_limit};
    set_counts(&c, 0);
    c.logits = (double)(limit_times * 16);
    add(c, "L1", operation, limit->isa);
}

static void add_l1(const struct bench_selection *selection)
{
    struct bench_case clock = {
        .layout = bench_lay_out((struct bench_shape){1, 1, 0}, 0), .threads = 1, .calls = 1u << 21, .run = run_clock};
    set_counts(&clock, 0);
    add(clock, "L1", "clock", "cycles");
    size_t limit_count;
    const struct bench_limit *limits = bench_limits(&limit_count);
    for (size_t i = 0; i < selection->isa_count; i++) {
        if (!is_scalar(selection->isas[i]))
            add_l1_calls(selection->isas[i]);
        for (size_t k = 0; k < limit_count; k++)
            if (strcmp(limits[k].isa, selection->isas[i]) == 0)
                add_limit(&limits[k]);
    }
}

const struct bench_case *bench_cases(const struct bench_selection *selection, size_t *count)
{
    for (size_t i = 0; i < selection->shape_count; i++)
        for (size_t t = 0; t < selection->thread_count; t++)
            add_shape(selection->shapes[i], selection->threads[t], selection);
    if (selection->l1)
        add_l1(selection);
    *count = case_count;
    return cases;
}
