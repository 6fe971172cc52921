/*
 * How a validated problem is cut into tasks. Nothing that is computed depends on the cut: a row's results are its own,
 * and its loss is added to the sum of its group, of which no two tasks share one.
 */
#include "run.h"

#include <stdbool.h>

enum {
    GROUPS = 256,         /* at most so many sums of losses */
    BATCH = 16,           /* kernels take short rows by so many at once */
    TASKS_PER_THREAD = 4, /* so that a slow thread does not leave the others waiting */
    TASK_LOGITS = 16384   /* less work than so many logits is not worth a task */
};

struct tasks {
    const struct xent_kernel *kernel;
    const struct xent_job *job;
    size_t rows, rows_per_task;
};

static void run_task(void *argument, size_t index)
{
    const struct tasks *tasks = argument;
    const size_t first = index * tasks->rows_per_task, left = tasks->rows - first;
    tasks->kernel->cross_entropy(tasks->job, first, left < tasks->rows_per_task ? tasks->rows : first + tasks->rows_per_task);
}

/* The rows of a task: whole batches and whole groups. */
static size_t rows_per_task(size_t rows, size_t classes, unsigned shift, size_t threads)
{
    const size_t tasks = threads > SIZE_MAX / TASKS_PER_THREAD ? SIZE_MAX : threads * TASKS_PER_THREAD;
    const size_t group = (size_t)1 << shift;
    size_t unit = group;
    if (unit < BATCH && classes < TASK_LOGITS / BATCH)
        unit = BATCH;
    size_t least = TASK_LOGITS / classes + 1;
    const size_t even = rows / tasks + (rows % tasks != 0);
    if (least < even)
        least = even;
    return (least + unit - 1) / unit * unit;
}

double xent_run_cross_entropy(const struct xent_kernel *kernel, const struct xent_job *job, size_t rows,
                              const xent_executor *executor)
{
    double sums[GROUPS] = {0};
    struct xent_job with_sums = *job;
    with_sums.sums = sums;
    with_sums.sums_shift = 0;
    while (rows > 0 && (rows - 1) >> with_sums.sums_shift >= GROUPS)
        ++with_sums.sums_shift;
    struct tasks tasks = {kernel, &with_sums, rows, rows};
    if (executor && rows > 0)
        tasks.rows_per_task = rows_per_task(rows, job->classes, with_sums.sums_shift, executor->threads);
    if (tasks.rows_per_task < rows)
        executor->parallel_for(executor->context, run_task, &tasks, (rows - 1) / tasks.rows_per_task + 1);
    else
        kernel->cross_entropy(&with_sums, 0, rows);
    double sum = 0;
    for (size_t group = 0; group < GROUPS; ++group)
        sum += sums[group];
    return sum;
}
