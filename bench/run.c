/*
 * One run of a case: on the buffer whose turn it is, with the logits back in place, timed.
 */
#include "bench.h"

#include <xent/xent.h>

#include <time.h>

/* The first buffers of the case that was prepared last. */
static struct bench_data first;

/* The buffer whose turn it is in arrays whose logits no run overwrites. Cases share the turns: what counts is how much
   memory has been gone through since a buffer was last in use. */
static size_t turn;

/* The work arrays' buffers from next on hold logits that no run has overwritten. */
static struct {
    const float *logits; /* of the layout's first buffer */
    size_t floats, buffers, next;
} fresh;

void bench_prepare(const struct bench_case *self)
{
    first = bench_make_data(&self->layout, self->kind);
    if (self->option)
        bench_add_options(&first, &self->layout);
    if (self->option && self->option->doubles)
        bench_add_doubles(&first, &self->layout);
    bench_executor(self->threads);
    xent_status status = self->isa ? xent_select(self->isa) : XENT_OK;
    if (status != XENT_OK)
        bench_fail("%s: %s", self->name, xent_status_string(status));
}

/* All buffers are restored before the first one of them is used, and in the order of their use: by then a buffer has
   left the caches. A layout's only buffer is restored before each run. */
static size_t next_fresh_buffer(const struct bench_case *self)
{
    const struct bench_layout *layout = &self->layout;
    if (fresh.logits != first.logits || fresh.floats != layout->floats || fresh.buffers != layout->buffers ||
        fresh.next == fresh.buffers) {
        bench_restore(&first, layout, layout->buffers, self->threads);
        fresh.logits = first.logits;
        fresh.floats = layout->floats;
        fresh.buffers = layout->buffers;
        fresh.next = 0;
    }
    return fresh.next++;
}

static size_t next_buffer(const struct bench_case *self)
{
    if (self->access == BENCH_IN_PLACE)
        return next_fresh_buffer(self);
    if (self->layout.buffers > 1)
        turn++;
    return turn % self->layout.buffers;
}

static void do_nothing(void *argument, size_t index)
{
    (void)argument;
    (void)index;
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench_seconds bench_time(const struct bench_case *self)
{
    struct bench_data at = bench_data_at(&first, &self->layout, next_buffer(self));
    bench_parallel(self->threads, do_nothing, NULL, self->threads); /* wakes the threads */
    clockid_t cpu_clock = self->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_PROCESS_CPUTIME_ID;
    double cpu_start = seconds(cpu_clock), start = seconds(CLOCK_MONOTONIC);
    self->run(self, &at);
    double end = seconds(CLOCK_MONOTONIC), cpu_end = seconds(cpu_clock);
    return (struct bench_seconds){.wall = end - start, .on_cpu = (cpu_end - cpu_start) / (double)self->threads};
}
