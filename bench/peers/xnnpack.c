/*
 * XNNPACK's softmax operator, which takes whole rows and gives probabilities. The rest is composed around it: the loss
 * is -log of the target's probability, and the gradient is the probabilities, minus 1 at the target.
 *
 * The operator runs on a few rows at a time, so that the probability of the target is still in cache when it is read,
 * and so that a call for the loss alone, which has no use for the other probabilities, writes them to a scratch that
 * never leaves the cache. That is faster than one run over the whole batch.
 *
 * The gradient is that of each row's own loss also when the mean's is asked for: to divide it by the number of rows
 * would take another pass, which nobody has to make who divides elsewhere.
 */
#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <xnnpack.h>

/* About what the second-level cache holds. The same rows over and over in a scratch of the first level's size take up
   to a third longer. */
static const size_t block_logits = 1u << 18;

static struct peer_setup open_setup;
static size_t block_rows;

/* Each task has its own operator, because setting one up changes it. */
static xnn_operator_t operators[ROWS_MAX_TASKS];
static float *scratch[ROWS_MAX_TASKS];

PEER_API const char *peer_version(void)
{
    return "XNNPACK";
}

PEER_API void peer_close(void)
{
    for (size_t i = 0; i < ROWS_MAX_TASKS; i++) {
        if (operators[i])
            xnn_delete_operator(operators[i]);
        free(scratch[i]);
        operators[i] = NULL;
        scratch[i] = NULL;
    }
}

static bool open_task(size_t task)
{
    size_t classes = open_setup.classes, size = block_rows * classes * sizeof(float) + XNN_EXTRA_BYTES;
    scratch[task] = aligned_alloc(PEER_ALIGNMENT, (size + PEER_ALIGNMENT - 1) / PEER_ALIGNMENT * PEER_ALIGNMENT);
    return scratch[task] &&
           xnn_create_softmax_nc_f32(classes, classes, classes, 0, &operators[task]) == xnn_status_success;
}

PEER_API const char *peer_open(const struct peer_setup *setup)
{
    if (xnn_initialize(NULL) != xnn_status_success)
        return "XNNPACK does not run on this CPU";
    open_setup = *setup;
    block_rows = block_logits / setup->classes > 0 ? block_logits / setup->classes : 1;
    for (size_t i = 0; i < rows_tasks(setup); i++)
        if (!open_task(i)) {
            peer_close();
            return "its softmax operator cannot be created";
        }
    return NULL;
}

static void softmax(xnn_operator_t operator, size_t rows, const float *x, float *p)
{
    if (xnn_setup_softmax_nc_f32(operator, rows, x, p, NULL) != xnn_status_success ||
        xnn_run_operator(operator, NULL) != xnn_status_success)
        abort();
}

static void run_rows(const struct peer_call *call, size_t first, size_t last, size_t task)
{
    size_t classes = open_setup.classes;
    for (size_t block = first, count; block < last; block += count) {
        count = last - block < block_rows ? last - block : block_rows;
        float *p = call->grad ? call->grad + block * classes : scratch[task];
        softmax(operators[task], count, call->logits + block * classes, p);
        for (size_t i = 0; i < count; i++) {
            float *target = p + i * classes + call->targets[block + i];
            call->losses[block + i] = -logf(*target);
            if (call->grad)
                *target -= 1.0f;
        }
    }
}

PEER_API void peer_run(const struct peer_call *call)
{
    rows_run(&open_setup, call, run_rows);
}
