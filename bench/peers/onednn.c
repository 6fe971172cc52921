/*
 * oneDNN's log-softmax and its backward pass, with the loss composed around them.
 *
 * The backward primitive wants the gradient of every log-probability: zeros but for the target's, kept in an array that
 * is zero outside of the calls. The primitives run on a few rows at a time, so that the log-probabilities and this
 * array stay in cache: only the logits and their gradient are in memory. That is faster than whole batches, and makes
 * room for the gradient in the logits' place.
 */
#include "rows.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if DNNL_VERSION_MAJOR != 2
#error "written for the interface of oneDNN 2"
#endif

/* About what the second-level cache holds. */
static const size_t block_logits = 1u << 18;

enum { MAX_KINDS = 24 };

/* The primitives for so many rows at once: a power of 2. */
struct block {
    size_t rows;
    dnnl_memory_desc_t shape;
    dnnl_primitive_t forward, backward;
};

/* A task's memory objects for one kind of block. The first and the last are pointed at each block in turn. */
struct memories {
    dnnl_memory_t logits, log_probabilities, output_gradient, gradient;
};

struct task {
    float *log_probabilities, *output_gradient;
    dnnl_stream_t stream;
    struct memories memories[MAX_KINDS];
};

static struct peer_setup open_setup;
static dnnl_engine_t engine;
static struct block blocks[MAX_KINDS]; /* the largest first, each half of the one before; the last is a single row */
static size_t kinds;
static struct task tasks[ROWS_MAX_TASKS];

PEER_API const char *peer_version(void)
{
    static char text[48];
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
    return text;
}

static void close_block(struct block *block)
{
    if (block->forward)
        dnnl_primitive_destroy(block->forward);
    if (block->backward)
        dnnl_primitive_destroy(block->backward);
    memset(block, 0, sizeof *block);
}

static void close_memory(dnnl_memory_t memory)
{
    if (memory)
        dnnl_memory_destroy(memory);
}

static void close_task(struct task *task)
{
    for (size_t k = 0; k < MAX_KINDS; k++) {
        close_memory(task->memories[k].logits);
        close_memory(task->memories[k].log_probabilities);
        close_memory(task->memories[k].output_gradient);
        close_memory(task->memories[k].gradient);
    }
    if (task->stream)
        dnnl_stream_destroy(task->stream);
    free(task->log_probabilities);
    free(task->output_gradient);
    memset(task, 0, sizeof *task);
}

PEER_API void peer_close(void)
{
    for (size_t i = 0; i < ROWS_MAX_TASKS; i++)
        close_task(&tasks[i]);
    for (size_t k = 0; k < MAX_KINDS; k++)
        close_block(&blocks[k]);
    if (engine)
        dnnl_engine_destroy(engine);
    engine = NULL;
}

static bool make_primitive(dnnl_primitive_t *primitive, const void *description, dnnl_primitive_desc_t hint,
                           dnnl_primitive_desc_t *kept)
{
    dnnl_primitive_desc_t made;
    if (dnnl_primitive_desc_create(&made, description, NULL, engine, hint) != dnnl_success)
        return false;
    bool good = dnnl_primitive_create(primitive, made) == dnnl_success;
    if (good && kept)
        *kept = made;
    else
        dnnl_primitive_desc_destroy(made);
    return good;
}

static bool open_block(struct block *block, size_t rows)
{
    const dnnl_dims_t dimensions = {(dnnl_dim_t)rows, (dnnl_dim_t)open_setup.classes};
    dnnl_softmax_v2_desc_t forward, backward;
    dnnl_primitive_desc_t hint;
    block->rows = rows;
    const dnnl_memory_desc_t *shape = &block->shape;
    if (dnnl_memory_desc_init_by_tag(&block->shape, 2, dimensions, dnnl_f32, dnnl_ab) != dnnl_success ||
        dnnl_softmax_v2_forward_desc_init(&forward, dnnl_forward_training, dnnl_softmax_log, shape, shape, 1) !=
            dnnl_success ||
        dnnl_softmax_v2_backward_desc_init(&backward, dnnl_softmax_log, shape, shape, shape, 1) != dnnl_success ||
        !make_primitive(&block->forward, &forward, NULL, &hint))
        return false;
    bool good = make_primitive(&block->backward, &backward, hint, NULL);
    dnnl_primitive_desc_destroy(hint);
    return good;
}

static float *zeros(size_t count)
{
    size_t size = (count * sizeof(float) + PEER_ALIGNMENT - 1) / PEER_ALIGNMENT * PEER_ALIGNMENT;
    float *memory = aligned_alloc(PEER_ALIGNMENT, size);
    if (memory)
        memset(memory, 0, size);
    return memory;
}

static bool open_memories(struct memories *memories, const dnnl_memory_desc_t *shape, const struct task *task)
{
    return dnnl_memory_create(&memories->logits, shape, engine, DNNL_MEMORY_NONE) == dnnl_success &&
           dnnl_memory_create(&memories->log_probabilities, shape, engine, task->log_probabilities) == dnnl_success &&
           dnnl_memory_create(&memories->output_gradient, shape, engine, task->output_gradient) == dnnl_success &&
           dnnl_memory_create(&memories->gradient, shape, engine, DNNL_MEMORY_NONE) == dnnl_success;
}

static bool open_task(struct task *task)
{
    size_t count = blocks[0].rows * open_setup.classes;
    task->log_probabilities = zeros(count);
    task->output_gradient = zeros(count);
    bool good = task->log_probabilities && task->output_gradient &&
                dnnl_stream_create(&task->stream, engine, dnnl_stream_default_flags) == dnnl_success;
    for (size_t k = 0; good && k < kinds; k++)
        good = open_memories(&task->memories[k], &blocks[k].shape, task);
    return good;
}

static bool open_all(void)
{
    size_t task_rows = open_setup.rows / rows_tasks(&open_setup), rows = 1;
    while (2 * rows * open_setup.classes <= block_logits && 2 * rows <= task_rows)
        rows *= 2;
    bool good = dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success;
    for (kinds = 0; good && rows > 0; rows /= 2)
        good = kinds < MAX_KINDS && open_block(&blocks[kinds++], rows);
    for (size_t i = 0; good && i < rows_tasks(&open_setup); i++)
        good = open_task(&tasks[i]);
    return good;
}

/*
 * Makes oneDNN work in the calling thread alone: the rows are already spread over the executor's threads, and OpenMP is
 * to start no others. Returns what it was before. A primitive keeps to the number that it was created with.
 */
static int set_openmp_threads(int threads)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    return before;
}

PEER_API const char *peer_open(const struct peer_setup *setup)
{
    open_setup = *setup;
    int threads = set_openmp_threads(1);
    bool good = open_all();
    set_openmp_threads(threads);
    if (good)
        return NULL;
    peer_close();
    return "its log-softmax cannot be created";
}

static void check(dnnl_status_t status)
{
    if (status != dnnl_success) {
        fprintf(stderr, "oneDNN: status %d\n", (int)status);
        abort();
    }
}

static void execute(dnnl_primitive_t primitive, const struct task *task, int count, const dnnl_exec_arg_t *arguments)
{
    check(dnnl_primitive_execute(primitive, task->stream, count, arguments));
    check(dnnl_stream_wait(task->stream));
}

static void forward(const struct task *task, size_t k, const float *logits)
{
    const struct memories *memories = &task->memories[k];
    check(dnnl_memory_set_data_handle(memories->logits, (void *)logits));
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, memories->logits}, {DNNL_ARG_DST, memories->log_probabilities}};
    execute(blocks[k].forward, task, 2, arguments);
}

static void backward(const struct task *task, size_t k, float *grad)
{
    const struct memories *memories = &task->memories[k];
    check(dnnl_memory_set_data_handle(memories->gradient, grad));
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_DST, memories->log_probabilities},
                                         {DNNL_ARG_DIFF_DST, memories->output_gradient},
                                         {DNNL_ARG_DIFF_SRC, memories->gradient}};
    execute(blocks[k].backward, task, 3, arguments);
}

static void set_targets(const struct task *task, const int32_t *targets, size_t rows, float value)
{
    for (size_t i = 0; i < rows; i++)
        task->output_gradient[i * open_setup.classes + (size_t)targets[i]] = value;
}

static void run_block(const struct peer_call *call, const struct task *task, size_t k, size_t row)
{
    size_t classes = open_setup.classes, rows = blocks[k].rows;
    const int32_t *targets = call->targets + row;
    float scale = rows_scale(&open_setup, call);
    forward(task, k, call->logits + row * classes);
    for (size_t i = 0; i < rows; i++)
        call->losses[row + i] = -task->log_probabilities[i * classes + (size_t)targets[i]];
    if (call->grad) {
        set_targets(task, targets, rows, -scale);
        backward(task, k, call->grad + row * classes);
        set_targets(task, targets, rows, 0);
    }
}

static void run_rows(const struct peer_call *call, size_t first, size_t last, size_t index)
{
    int threads = set_openmp_threads(1);
    for (size_t row = first, k = 0; row < last; row += blocks[k].rows) {
        while (blocks[k].rows > last - row)
            k++;
        run_block(call, &tasks[index], k, row);
    }
    set_openmp_threads(threads);
}

PEER_API void peer_run(const struct peer_call *call)
{
    rows_run(&open_setup, call, run_rows);
}
