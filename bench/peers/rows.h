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
    double sums[ROWS_MAX_TASKS]; /* of each task's losses */
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
    struct rows_job *job = argument;
    size_t rows = job->setup->rows, first = rows * index / job->tasks, last = rows * (index + 1) / job->tasks;
    job->function(job->call, first, last, index);
    /* Several sums, on the thread that has the losses in cache: a single one would take as long as 3 to 4 cycles' wait
       for every row, up to a tenth of what a fast peer takes for 10 classes. */
    double sums[8] = {0};
    for (; first + 8 <= last; first += 8)
        for (size_t k = 0; k < 8; k++)
            sums[k] += (double)job->call->losses[first + k];
    for (; first < last; first++)
        sums[0] += (double)job->call->losses[first];
    job->sums[index] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* What a gradient has to be multiplied with: one over the number of rows for the mean. */
static inline float rows_scale(const struct peer_setup *setup, const struct peer_call *call)
{
    return call->each ? 1.0f : 1.0f / (float)setup->rows;
}

static inline void rows_run(const struct peer_setup *setup, const struct peer_call *call, rows_function *function)
{
    struct rows_job job;
    job.setup = setup;
    job.call = call;
    job.function = function;
    job.tasks = rows_tasks(setup);
    setup->executor->parallel_for(setup->executor->context, rows_task, &job, job.tasks);
    double sum = 0;
    for (size_t i = 0; i < job.tasks; i++)
        sum += job.sums[i];
    *call->mean = (float)(sum / (double)setup->rows);
}

#endif
