/*
 * For peers that compute a row or a few of them at a time on one thread: the batch is cut into runs of rows, a few per
 * thread so that none waits long for another.
 */
#ifndef XENT_BENCH_PEERS_ROWS_H
#define XENT_BENCH_PEERS_ROWS_H

#include "peer.h"

enum { ROWS_TASKS_PER_THREAD = 4, ROWS_MAX_TASKS = 256 };

/* Computes the losses and gradients of the rows in [first, last). The task says whose scratch memory to use. */
typedef void rows_function(const struct peer_call *call, size_t first, size_t last, size_t task);

struct rows_job {
    const struct peer_setup *setup;
    const struct peer_call *call;
    rows_function *function;
    size_t tasks;
};

static inline size_t rows_tasks(const struct peer_setup *setup)
{
    size_t threads = setup->executor->threads;
    size_t tasks = threads > 1 ? threads * ROWS_TASKS_PER_THREAD : 1;
    if (tasks > ROWS_MAX_TASKS)
        tasks = ROWS_MAX_TASKS;
    return tasks < setup->rows ? tasks : setup->rows;
}

static inline void rows_task(void *argument, size_t index)
{
    const struct rows_job *job = argument;
    size_t rows = job->setup->rows;
    job->function(job->call, rows * index / job->tasks, rows * (index + 1) / job->tasks, index);
}

/* What a gradient has to be multiplied with: one over the number of rows for the mean. */
static inline float rows_scale(const struct peer_setup *setup, const struct peer_call *call)
{
    return call->each ? 1.0f : 1.0f / (float)setup->rows;
}

static inline void rows_run(const struct peer_setup *setup, const struct peer_call *call, rows_function *function)
{
    struct rows_job job = {setup, call, function, rows_tasks(setup)};
    setup->executor->parallel_for(setup->executor->context, rows_task, &job, job.tasks);
    double sum = 0;
    for (size_t i = 0; i < setup->rows; i++)
        sum += (double)call->losses[i];
    *call->mean = (float)(sum / (double)setup->rows);
}

#endif
