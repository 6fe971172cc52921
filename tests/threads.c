/*
 * Calls with an executor: the same bits as without one, whatever the order of the tasks, the number of threads, and the
 * place where the work is cut. What an executor is asked to do is the subject of a file of its own.
 */
#include "threads.h"

#include "calls.h"
#include "executors.h"
#include "fpcontrol.h"
#include "guard.h"
#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t thread_counts[] = {1, 2, 3, 7, 16};
enum { THREAD_COUNTS = sizeof thread_counts / sizeof thread_counts[0], COMBINATIONS = ORDERS * THREAD_COUNTS };

/* One call by this executor, which is as expected. */
static void expect_by(const struct call *call, struct watched *watched, struct call_memory *got,
                      const struct call_memory *expected)
{
    name_detail("%s, %s", call_describe(call).text, watched_describe(watched).text);
    call_run(call, &watched->executor, got);
    watched_expect_sane(watched);
    call_expect(call, got, expected);
}

/* Every order with every number of threads, and executors that are anything, by turns over the kinds of call. */
static void check_kernel(const struct batch *batch, struct rng *rng)
{
    static const xent_reduction reductions[] = {XENT_MEAN, XENT_SUM, XENT_NONE};
    enum { KINDS = 3 * PLACES };
    struct call_memory expected = call_memory_new(batch), got = call_memory_new(batch);
    size_t first = rng_below(rng, KINDS);
    for (size_t kind = 0; kind < KINDS; kind++) {
        struct call call = random_call(batch, rng);
        call.reduction = reductions[kind % 3];
        call.place = (enum place)(kind / 3);
        name_detail("%s, without an executor", call_describe(&call).text);
        call_run(&call, NULL, &expected);
        struct watched watched;
        for (size_t i = (first + kind) % KINDS; i < COMBINATIONS; i += KINDS) {
            watched_init(&watched, (enum order)(i % ORDERS), thread_counts[i / ORDERS], rng_next(rng));
            expect_by(&call, &watched, &got, &expected);
        }
        watched_init_any(&watched, rng);
        expect_by(&call, &watched, &got, &expected);
    }
    call_memory_free(&got);
    call_memory_free(&expected);
}

static void check_kernels(const struct batch *batch, struct rng *rng)
{
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        check_kernel(batch, rng);
    }
}

/* A random call by a random executor, for each kernel: for the many batches that are too many for all of the above. */
static void check_once(const struct batch *batch, struct rng *rng)
{
    struct call_memory expected = call_memory_new(batch), got = call_memory_new(batch);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        struct call call = random_call(batch, rng);
        struct watched watched;
        watched_init_any(&watched, rng);
        name_detail("%s, without an executor", call_describe(&call).text);
        call_run(&call, NULL, &expected);
        expect_by(&call, &watched, &got, &expected);
    }
    call_memory_free(&got);
    call_memory_free(&expected);
}

START_TEST(shapes)
{
    /* Few long rows, which are worth cutting up themselves; many short ones, which are taken in batches; row counts
       around those at which the groups of the sum grow; and what is neither. */
    static const struct {
        size_t rows, classes;
    } cases[] = {
        {1, 262144}, {2, 131073}, {3, 100003}, {5, 32768}, {7, 16385}, {8, 20000}, {65536, 10}, {5000, 3},
        {70001, 1},  {255, 700},  {256, 512},  {257, 600}, {512, 64},  {513, 65},  {300, 129},  {17, 4097},
        {16, 2048},  {4099, 33},  {1, 1},      {15, 7},    {33, 1025}, {40, 9000}, {1025, 150},
    };
    struct rng rng = rng_stream(1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (!scaled_chance(&rng))
            continue;
        struct batch batch = batch_new(cases[i].rows, cases[i].classes);
        name_case("shapes: %zu rows of %zu classes", batch.rows, batch.classes);
        batch_fill(&batch, &rng);
        check_kernels(&batch, &rng);
        batch_free(&batch);
    }
}
END_TEST

/* Any shape of up to so many logits. */
static struct batch random_batch(struct rng *rng, size_t logits)
{
    size_t longest = (size_t)1 << rng_below(rng, 18), classes = 1 + rng_below(rng, longest);
    size_t most = logits / classes + 1;
    struct batch batch = batch_new(1 + rng_below(rng, most < 5000 ? most : 5000), classes);
    if (rng_chance(rng, 0.2))
        batch.ignore_index = (int64_t)rng_below(rng, classes);
    batch_fill(&batch, rng);
    return batch;
}

/* Long rows with what those that tasks share have not: a weight of 0, a negative factor. */
START_TEST(weights_of_long_rows)
{
    enum { ROWS = 2, CLASSES = 20000 };
    const float factors[ROWS] = {0, -2};
    struct rng rng = rng_stream(9);
    struct batch batch = batch_new(ROWS, CLASSES);
    float *grad = allocate(2 * ROWS * CLASSES * sizeof *grad), loss[2][ROWS];
    for (size_t i = 0; i < ROWS * CLASSES; i++)
        batch.logits[i] = rng_normal(&rng);
    batch.targets[0] = 5;
    batch.targets[1] = 6;
    for (const char *const *isa = xent_isas(); *isa; isa++)
        for (int weights = 0; weights < 2; weights++) {
            struct watched watched;
            watched_init(&watched, IN_ORDER, 4, 0);
            use_kernel(*isa);
            name_case("weights of long rows, %s, %s", *isa, weights ? "row weights" : "dloss");
            for (int k = 0; k < 2; k++) {
                xent_problem p = XENT_PROBLEM_INIT;
                p.outer = ROWS;
                p.classes = CLASSES;
                p.logits = batch.logits;
                p.targets = batch.targets;
                p.row_weights = weights ? factors : NULL;
                p.dloss = weights ? NULL : factors;
                p.reduction = XENT_NONE;
                p.loss = loss[k];
                p.grad = grad + k * ROWS * CLASSES;
                p.executor = k ? &watched.executor : NULL;
                expect_status("status", xent_cross_entropy(&p), XENT_OK);
            }
            expect_same(&batch, "loss", loss[1], loss[0], 1);
            expect_same(&batch, "gradient", grad + ROWS * CLASSES, grad, CLASSES);
        }
    free(grad);
    batch_free(&batch);
}
END_TEST

START_TEST(anything)
{
    struct rng rng = rng_stream(2);
    for (size_t repeat = 0; repeat < scaled(200); repeat++) {
        struct batch batch = random_batch(&rng, 150000);
        name_case("anything: repeat %zu: %zu rows of %zu classes", repeat, batch.rows, batch.classes);
        check_once(&batch, &rng);
        batch_free(&batch);
    }
}
END_TEST

/* Classes of rows that are long enough to be cut up. */
static size_t long_row(struct rng *rng)
{
    return 20000 + rng_below(rng, rng_chance(rng, 0.2) ? 100000 : 20000);
}

START_TEST(long_rows_of_every_kind)
{
    struct rng rng = rng_stream(3);
    for (size_t kind = 0; kind < row_kinds; kind++) {
        for (size_t repeat = 0; repeat < scaled(8); repeat++) {
            struct batch batch = batch_new(1 + rng_below(&rng, 3), long_row(&rng));
            name_case("long rows: %s, %zu rows of %zu classes, repeat %zu", row_kind_name(kind), batch.rows,
                      batch.classes, repeat);
            batch_fill(&batch, &rng);
            for (size_t i = 0; i < batch.rows; i++)
                row_fill(&rng, kind, batch_row(&batch, i), batch.classes,
                         batch.targets[i] < 0 ? 0 : (size_t)batch.targets[i]);
            check_once(&batch, &rng);
            batch_free(&batch);
        }
    }
}
END_TEST

/* A place in a row: anywhere, or beside one where a block, a chunk or a thread's part is likely to end. */
static size_t random_place(struct rng *rng, size_t classes)
{
    size_t place = rng_below(rng, classes);
    if (rng_chance(rng, 0.3))
        return place;
    size_t unit = (size_t)512 << rng_below(rng, 6), edge = place / unit * unit + rng_below(rng, 4);
    return edge < 2 ? edge : edge - 2 < classes ? edge - 2 : classes - 1;
}

/* Parts of a row that are done at the same time cannot know of each other what the last of them meets. */
START_TEST(late_trouble)
{
    struct rng rng = rng_stream(4);
    for (size_t special = 0; special < row_specials; special++) {
        for (size_t repeat = 0; repeat < scaled(4); repeat++) {
            struct batch batch = batch_new(1 + rng_below(&rng, 4), long_row(&rng));
            name_case("late trouble: special %zu, %zu rows of %zu classes, repeat %zu", special, batch.rows,
                      batch.classes, repeat);
            for (size_t i = 0; i < batch.rows; i++) {
                size_t from = random_place(&rng, batch.classes);
                row_fill_late(&rng, batch_row(&batch, i), batch.classes, from, row_special(special));
                batch.targets[i] = (int32_t)(rng_chance(&rng, 0.3) ? from : random_place(&rng, batch.classes));
            }
            check_once(&batch, &rng);
            batch_free(&batch);
        }
    }
}
END_TEST

/* Which rows are ignored. */
enum pattern { ALL, ALL_BUT_FIRST, ALL_BUT_LAST, FIRST_HALF, SECOND_HALF, EVEN, LONG_RUNS, PATTERNS };

static bool ignores(enum pattern pattern, size_t row, size_t rows)
{
    switch (pattern) {
    case ALL:
        return true;
    case ALL_BUT_FIRST:
        return row != 0;
    case ALL_BUT_LAST:
        return row != rows - 1;
    case FIRST_HALF:
        return row < rows / 2;
    case SECOND_HALF:
        return row >= rows / 2;
    case EVEN:
        return row % 2 == 0;
    default:
        return row / 100 % 3 != 1;
    }
}

START_TEST(ignored_rows)
{
    static const struct {
        size_t rows, classes;
    } cases[] = {{1, 50000}, {4, 40000}, {600, 200}, {20000, 7}};
    struct rng rng = rng_stream(5);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int pattern = ALL; pattern < PATTERNS; pattern++) {
            if (!scaled_chance(&rng))
                continue;
            struct batch batch = batch_new(cases[i].rows, cases[i].classes);
            name_case("ignored rows: pattern %d, %zu rows of %zu classes", pattern, batch.rows, batch.classes);
            batch_fill(&batch, &rng);
            for (size_t row = 0; row < batch.rows; row++)
                if (ignores((enum pattern)pattern, row, batch.rows))
                    batch.targets[row] = (int32_t)batch.ignore_index;
            for (size_t repeat = 0; repeat < 3; repeat++)
                check_once(&batch, &rng);
            batch_free(&batch);
        }
    }
}
END_TEST

/* Rows of which each has pages of its own, starts or ends with them, and is inaccessible if it is ignored; and room for
   the gradients between two pages that cannot be written. */
static void check_bounds(struct rng *rng, size_t rows, size_t classes)
{
    enum { MAX_ROWS = 4 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE), row_bytes = (classes * sizeof(float) + page - 1) / page * page;
    size_t stride = row_bytes / sizeof(float), grad_bytes = rows * classes * sizeof(float);
    enum guard_edge edge = rng_chance(rng, 0.5) ? GUARD_BEFORE : GUARD_AFTER;
    struct guarded logits_room = guard_new(rows * row_bytes), grad_room = guard_new(grad_bytes);
    float *logits = guard_place(&logits_room, rows * row_bytes - (stride - classes) * sizeof(float), edge);
    float *grad = guard_place(&grad_room, grad_bytes, edge), *expected = allocate(grad_bytes);
    int32_t targets[MAX_ROWS];
    for (size_t i = 0; i < rows; i++) {
        targets[i] = rng_chance(rng, 0.4) ? -100 : (int32_t)rng_below(rng, classes);
        row_fill(rng, rng_below(rng, row_kinds), logits + i * stride, classes, 0);
        if (targets[i] < 0)
            ck_assert_int_eq(mprotect(logits_room.first + i * row_bytes, row_bytes, PROT_NONE), 0);
    }

    float losses[2][MAX_ROWS] = {{0}};
    struct watched watched;
    watched_init_any(&watched, rng);
    name_detail("%s, %zu rows of %zu classes, %s", xent_isa(), rows, classes, watched_describe(&watched).text);
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    options.logits_stride = stride;
    expect_status("without an executor", xent_fused_f32(logits, targets, rows, classes, losses[0], expected, &options),
                  XENT_OK);
    options.executor = &watched.executor;
    expect_status("status", xent_fused_f32(logits, targets, rows, classes, losses[1], grad, &options), XENT_OK);
    watched_expect_sane(&watched);
    if (memcmp(losses[0], losses[1], sizeof losses[0]) != 0 || memcmp(grad, expected, grad_bytes) != 0)
        fail_case("other bits");
    if (!guard_intact(&grad_room, grad, grad_bytes))
        fail_case("something was written beside the gradients");
    guard_free(&logits_room);
    guard_free(&grad_room);
    free(expected);
}

START_TEST(bounds)
{
    struct rng rng = rng_stream(9);
    for (size_t repeat = 0; repeat < scaled(60); repeat++) {
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            name_case("bounds: repeat %zu", repeat);
            use_kernel(*isa);
            check_bounds(&rng, 1 + rng_below(&rng, 4), long_row(&rng));
        }
    }
}
END_TEST

/* A batch in consecutive calls, cut anywhere, each by another executor or none. */
static void run_in_pieces(const struct call *call, struct rng *rng, struct call_memory *got)
{
    size_t rows = call->batch->rows, longest = 1 + rng_below(rng, rows);
    call_prepare(call, got);
    for (size_t first = 0; first < rows;) {
        size_t left = rows - first, some = 1 + rng_below(rng, longest), last = first + (some < left ? some : left);
        struct watched watched;
        watched_init_any(&watched, rng);
        name_detail("%s, rows %zu to %zu, %s", call_describe(call).text, first, last, watched_describe(&watched).text);
        call_run_rows(call, rng_chance(rng, 0.2) ? NULL : &watched.executor, got, first, last);
        watched_expect_sane(&watched);
        first = last;
    }
}

START_TEST(pieces)
{
    struct rng rng = rng_stream(6);
    for (size_t repeat = 0; repeat < scaled(150); repeat++) {
        struct batch batch = random_batch(&rng, 100000);
        struct call_memory expected = call_memory_new(&batch), got = call_memory_new(&batch);
        name_case("pieces: repeat %zu: %zu rows of %zu classes", repeat, batch.rows, batch.classes);
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            use_kernel(*isa);
            struct call call = random_call(&batch, &rng);
            call.reduction = XENT_NONE;
            call_run(&call, NULL, &expected);
            run_in_pieces(&call, &rng, &got);
            call_expect(&call, &got, &expected);
        }
        call_memory_free(&got);
        call_memory_free(&expected);
        batch_free(&batch);
    }
}
END_TEST

/* A thread that makes calls with executors of its own while others do. */
struct caller {
    struct batch batch;
    struct call call;
    struct call_memory expected, got;
    uint64_t stream;
    size_t repeats, wrong;
};

/* Only counts what is wrong: Check's assertions are for one thread. */
static void *make_calls(void *argument)
{
    struct caller *caller = argument;
    for (size_t repeat = 0; repeat < caller->repeats; repeat++) {
        struct watched watched;
        watched_init(&watched, AT_ONCE, 2 + repeat % 3, caller->stream + repeat);
        call_run(&caller->call, &watched.executor, &caller->got);
        caller->wrong += watched.complaint || !call_same(&caller->got, &caller->expected);
    }
    return NULL;
}

static void check_callers(struct rng *rng, const char *isa)
{
    enum { CALLERS = 4 };
    struct caller callers[CALLERS];
    pthread_t ids[CALLERS];
    use_kernel(isa);
    for (size_t i = 0; i < CALLERS; i++) {
        struct caller *caller = &callers[i];
        *caller = (struct caller){.stream = rng_next(rng), .repeats = scaled(30)};
        if (i % 2 == 0) {
            caller->batch = batch_new(2, long_row(rng));
            batch_fill(&caller->batch, rng);
        } else {
            caller->batch = random_batch(rng, 100000);
        }
        caller->call = random_call(&caller->batch, rng);
        caller->expected = call_memory_new(&caller->batch);
        caller->got = call_memory_new(&caller->batch);
        call_run(&caller->call, NULL, &caller->expected);
    }
    for (size_t i = 0; i < CALLERS; i++)
        ck_assert_int_eq(pthread_create(&ids[i], NULL, make_calls, &callers[i]), 0);
    for (size_t i = 0; i < CALLERS; i++)
        ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
    for (size_t i = 0; i < CALLERS; i++) {
        if (callers[i].wrong > 0)
            fail_case("caller %zu: %zu of %zu calls were wrong", i, callers[i].wrong, callers[i].repeats);
        call_memory_free(&callers[i].got);
        call_memory_free(&callers[i].expected);
        batch_free(&callers[i].batch);
    }
}

START_TEST(callers_at_once)
{
    struct rng rng = rng_stream(7);
    for (size_t repeat = 0; repeat < scaled(5); repeat++) {
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            name_case("callers at once: %s, repeat %zu", *isa, repeat);
            check_callers(&rng, *isa);
        }
    }
}
END_TEST

/* Runs tasks by turns with control bits of their own and without, as the threads of a pool may have them; is called
   with those of the caller, which threads that it starts inherit. */
struct turns {
    uint64_t caller;
    bool kept;
};

static void control_by_turns(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    struct turns *turns = context;
    const uint64_t control = fp_control_get();
    turns->kept &= (control & fp_control_mask) == (turns->caller & fp_control_mask);
    for (size_t i = 0; i < tasks; i++) {
        const uint64_t turn = i % 2 == 0 ? control : control ^ (fp_control_flush | fp_control_round_up);
        fp_control_set(turn);
        task(argument, i);
        turns->kept &= (fp_control_get() & fp_control_mask) == (turn & fp_control_mask);
    }
    fp_control_set(control);
}

START_TEST(threads_control_bits)
{
    struct rng rng = rng_stream(8);
    const uint64_t control = fp_control_get();
    for (size_t repeat = 0; repeat < scaled(100); repeat++) {
        struct batch batch = random_batch(&rng, 80000);
        struct call_memory expected = call_memory_new(&batch), got = call_memory_new(&batch);
        name_case("control bits: repeat %zu: %zu rows of %zu classes", repeat, batch.rows, batch.classes);
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            use_kernel(*isa);
            struct call call = random_call(&batch, &rng);
            struct turns turns = {control | (repeat % 2 ? fp_control_flush | fp_control_round_up : 0), true};
            xent_executor executor = {control_by_turns, &turns, 1 + rng_below(&rng, 9)};
            name_detail("%s, %zu threads", call_describe(&call).text, executor.threads);
            call_run(&call, NULL, &expected);
            fp_control_set(turns.caller);
            call_run(&call, &executor, &got);
            turns.kept &= (fp_control_get() & fp_control_mask) == (turns.caller & fp_control_mask);
            fp_control_set(control);
            if (!turns.kept)
                fail_case("a thread's control bits were changed");
            call_expect(&call, &got, &expected);
        }
        call_memory_free(&got);
        call_memory_free(&expected);
        batch_free(&batch);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("threads");
    tcase_add_test(add_case(suite, "shapes"), shapes);
    tcase_add_test(add_case(suite, "weights of long rows"), weights_of_long_rows);
    tcase_add_test(add_case(suite, "anything"), anything);
    tcase_add_test(add_case(suite, "long rows"), long_rows_of_every_kind);
    tcase_add_test(add_case(suite, "late trouble"), late_trouble);
    tcase_add_test(add_case(suite, "ignored rows"), ignored_rows);
    tcase_add_test(add_case(suite, "bounds"), bounds);
    tcase_add_test(add_case(suite, "pieces"), pieces);
    tcase_add_test(add_case(suite, "callers at once"), callers_at_once);
    tcase_add_test(add_case(suite, "control bits"), threads_control_bits);
    add_task_tests(add_case(suite, "tasks"));
    return run_suite(suite);
}
