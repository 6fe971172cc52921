/*
 * How a validated problem is cut into tasks. Nothing that is computed depends on the cut: a row's results are its own,
 * and its loss is added to the sum of its group, of which no two tasks share one.
 */
#include "run.h"

#include "kernels/pair.h"
#include "split.h"

#include <stdbool.h>

enum {
    GROUPS_SHIFT = 8,
    GROUPS = 1 << GROUPS_SHIFT, /* at most so many sums of losses */
    BATCH = 32,                 /* kernels take short rows, and neighbours, by so many at once, or half as many */
    TASKS_PER_THREAD = 4,       /* so that a slow thread does not leave the others waiting */
    MOST_TASKS = 1 << 16,
    TASK_LOGITS = 16384 /* less work than so many logits is not worth a task */
};

struct tasks {
    void (*compute)(const struct xent_job *job, size_t first, size_t last);
    const struct xent_job *job;
    size_t rows, rows_per_task;
};

static void run_task(void *argument, size_t index)
{
    const struct tasks *tasks = argument;
    const size_t first = index * tasks->rows_per_task, left = tasks->rows - first;
    tasks->compute(tasks->job, first, left < tasks->rows_per_task ? tasks->rows : first + tasks->rows_per_task);
}

/* So many tasks are good for an executor. */
static size_t wanted_tasks(const xent_executor *executor)
{
    return executor->threads < MOST_TASKS / TASKS_PER_THREAD ? executor->threads * TASKS_PER_THREAD : MOST_TASKS;
}

/* The rows of a task: whole batches and whole groups. */
static size_t rows_per_task(const struct xent_job *job, size_t rows, size_t tasks)
{
    const bool neighbours = job->dtype == XENT_F32 && !xent_job_is_contiguous(job);
    const size_t least_unit = job->classes < TASK_LOGITS / BATCH ? BATCH : neighbours ? BATCH / 2 : 1;
    const size_t group = (size_t)1 << job->sums_shift, unit = group < least_unit ? least_unit : group;
    const size_t worthwhile = TASK_LOGITS / job->classes + 1, even = (rows - 1) / tasks + 1;
    const size_t least = worthwhile > even ? worthwhile : even;
    return (least + unit - 1) / unit * unit;
}

/* A few rows, each worth more than one task. */
static bool is_split(size_t rows, size_t classes, const xent_executor *executor)
{
    return executor->threads > 1 && rows < wanted_tasks(executor) && classes > xent_chunk(classes);
}

/* Whether a job's rows can be split at all. Other jobs run row by row. */
static bool can_split(const struct xent_job *job)
{
    return job->dtype == XENT_F32 && xent_job_has_plain_labels(job) && xent_job_is_contiguous(job) &&
           job->smoothing == 0 && !job->row_weights && !job->dloss;
}

static void run(const struct xent_kernel *kernel, const struct xent_job *job, size_t rows,
                const struct workers *workers)
{
    const xent_executor *executor = workers->executor;
    if (executor && can_split(job) && is_split(rows, job->classes, executor)) {
        xent_split_rows(kernel, job, rows, workers, wanted_tasks(executor));
        return;
    }
    struct tasks tasks = {job->dtype == XENT_F64 ? kernel->cross_entropy_f64 : kernel->cross_entropy, job, rows, rows};
    if (executor)
        tasks.rows_per_task = rows_per_task(job, rows, wanted_tasks(executor));
    if (tasks.rows_per_task < rows)
        xent_in_parallel(workers, run_task, &tasks, (rows - 1) / tasks.rows_per_task + 1);
    else
        tasks.compute(job, 0, rows);
}

/* The least power of two of rows with which there are at most GROUPS groups. Groups of one row are added in order like
   the rows of one group, which is faster where no tasks share them. */
static unsigned rows_per_group_shift(size_t rows, const xent_executor *executor)
{
    unsigned shift = 0;
    while ((rows - 1) >> shift >= GROUPS)
        ++shift;
    return shift == 0 && !executor ? GROUPS_SHIFT : shift;
}

double xent_run_cross_entropy(const struct xent_kernel *kernel, struct xent_job *job, size_t rows,
                              const struct workers *workers)
{
    double sums[GROUPS], rests[GROUPS];
    job->sums = sums;
    job->sums_rest = rests;
    job->sums_shift = rows_per_group_shift(rows, workers->executor);
    const size_t groups = ((rows - 1) >> job->sums_shift) + 1;
    for (size_t group = 0; group < groups; ++group)
        sums[group] = rests[group] = 0;
    run(kernel, job, rows, workers);
    struct pair total = {0, 0};
    for (size_t group = 0; group < groups; ++group) {
        const struct pair sum = pair_sum(total.hi, sums[group]);
        total = (struct pair){sum.hi, total.lo + (sum.lo + rests[group])};
    }
    job->sums = job->sums_rest = NULL;
    return job->dtype == XENT_F64 ? total.hi + total.lo : total.hi;
}
