#include "workers.h"

#include "control.h"

struct work {
    void (*task)(void *argument, size_t index);
    void *argument;
};

static void run_task(void *argument, size_t index)
{
    const struct work *work = argument;
    const uint64_t control = control_put_aside();
    work->task(work->argument, index);
    control_restore(control);
}

void xent_in_parallel(const struct workers *workers, void (*task)(void *argument, size_t index), void *argument,
                      size_t tasks)
{
    struct work work = {task, argument};
    control_restore(workers->control);
    workers->executor->parallel_for(workers->executor->context, run_task, &work, tasks);
    (void)control_put_aside();
}
