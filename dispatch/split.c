/*
 * A few rows of many classes on many threads: tasks take chunks of rows. A chunk's sum is the same whoever computes it,
 * and chunks are added in order, so that the bits are those of one thread (docs/numerics.md, sections 3 and 5).
 */
#include "split.h"

#include "kernels/target.h"

#include <math.h>

enum {
    WAVE_ROWS = 16, /* rows, and parts of rows, that are computed at once */
    WAVE_PARTS = XENT_CHUNKS
};

struct shared_row {
    size_t index;
    const float *x;
    float *out;
    struct distribution t;
    bool finite, far;
    struct frame frame;
    double multiplier; /* of the exponentials */
};

struct wave {
    const struct xent_kernel *kernel;
    size_t classes, chunk, parts_per_row;
    struct xent_memory memory;
    size_t rows, parts_per_task;
    struct shared_row row[WAVE_ROWS];
    struct xent_part part[WAVE_PARTS];
    void (*work)(struct wave *wave, struct shared_row *row, struct xent_part *part, size_t begin, size_t end);
};

static void sum(struct wave *wave, struct shared_row *row, struct xent_part *part, size_t begin, size_t end)
{
    wave->kernel->sum_part(row->x, row->out, begin, end, row->t.y, wave->memory, part);
}

static void sum_far(struct wave *wave, struct shared_row *row, struct xent_part *part, size_t begin, size_t end)
{
    (void)begin;
    if (row->far && row->finite)
        wave->kernel->sum_part_far(row->x, end, row->t.y, row->frame, part);
}

static void scale(struct wave *wave, struct shared_row *row, struct xent_part *part, size_t begin, size_t end)
{
    if (row->finite)
        wave->kernel->scale_part(row->x, row->out, begin, end, part, row->frame, row->multiplier);
    else
        for (size_t j = begin; j < end; ++j)
            row->out[j] = NAN;
}

static void wave_task(void *argument, size_t index)
{
    struct wave *wave = argument;
    const size_t parts = wave->rows * wave->parts_per_row, first = index * wave->parts_per_task;
    for (size_t p = first; p < parts && p < first + wave->parts_per_task; ++p) {
        const size_t begin = p % wave->parts_per_row * wave->chunk;
        const size_t end = wave->classes - begin < wave->chunk ? wave->classes : begin + wave->chunk;
        wave->work(wave, &wave->row[p / wave->parts_per_row], &wave->part[p], begin, end);
    }
}

static void on_all_parts(struct wave *wave, const struct workers *workers,
                         void (*work)(struct wave *, struct shared_row *, struct xent_part *, size_t, size_t))
{
    wave->work = work;
    const size_t parts = wave->rows * wave->parts_per_row;
    xent_in_parallel(workers, wave_task, wave, (parts - 1) / wave->parts_per_task + 1);
}

/* Whether a row is near or far, from its parts. Where anything was kept there is a logit in the window. */
static void find_frame(const struct wave *wave, struct shared_row *row, const struct xent_part *part)
{
    float max = -INFINITY;
    bool kept = false;
    row->finite = true;
    for (size_t p = 0; p < wave->parts_per_row; ++p) {
        max = part[p].max > max ? part[p].max : max;
        kept = kept || part[p].kept > part[p].zeros;
        row->finite = row->finite && part[p].finite;
    }
    row->far = kept ? max >= XENT_NEAR_MAX : !row_is_near(max);
    row->frame = row->far ? row_frame(max) : near_frame;
    row->finite = row->finite && (!row->far || row_is_finite(max));
}

/* The row's results from its sums, but for the gradient. Returns the target's gradient. */
static float finish(const struct wave *wave, const struct xent_job *job, struct shared_row *row,
                    const struct xent_part *part)
{
    double others = 0;
    for (size_t p = 0; p < wave->parts_per_row; ++p) {
        others += part[p].sum;
        row->finite = row->finite && part[p].finite;
    }
    const double z = row->t.x_y - (double)row->frame.ref;
    const double e = row_exponential(z, row->frame.cut);
    const struct row_result result = row_finish(others, e, z);
    row->multiplier = distribution_multiplier(&row->t) * result.inverse;
    const double loss = row->finite ? distribution_loss(&row->t, result.loss, 0, 0) : (double)NAN;
    xent_job_add_loss(job, row->index, loss);
    if (job->loss)
        ((float *)job->loss)[row->index] = row->finite ? f64_to_f32(loss) : NAN;
    if (job->lse)
        ((float *)job->lse)[row->index] = row->finite ? f64_to_f32((double)row->frame.ref + result.log_sum) : NAN;
    return distribution_target_gradient(&row->t, others, e, result.inverse);
}

static void run_wave(struct wave *wave, const struct xent_job *job, const struct workers *workers)
{
    float target_gradient[WAVE_ROWS];
    on_all_parts(wave, workers, sum);
    bool far = false;
    for (size_t i = 0; i < wave->rows; ++i) {
        find_frame(wave, &wave->row[i], &wave->part[i * wave->parts_per_row]);
        far = far || (wave->row[i].far && wave->row[i].finite);
    }
    if (far)
        on_all_parts(wave, workers, sum_far);
    for (size_t i = 0; i < wave->rows; ++i)
        target_gradient[i] = finish(wave, job, &wave->row[i], &wave->part[i * wave->parts_per_row]);
    if (!job->out)
        return;
    on_all_parts(wave, workers, scale);
    for (size_t i = 0; i < wave->rows; ++i)
        if (wave->row[i].finite)
            wave->row[i].out[wave->row[i].t.y] = target_gradient[i];
}

void xent_split_rows(const struct xent_kernel *kernel, const struct xent_job *job, size_t rows,
                     const struct workers *workers, size_t tasks)
{
    struct wave wave = {
        .kernel = kernel, .classes = job->classes, .chunk = xent_chunk(job->classes), .memory = job->memory};
    wave.parts_per_row = (job->classes - 1) / wave.chunk + 1;
    const size_t fitting = WAVE_PARTS / wave.parts_per_row, limit = fitting < WAVE_ROWS ? fitting : WAVE_ROWS;
    for (size_t i = 0; i < rows; ++i) {
        const bool ignored = xent_job_target(job, i) == job->ignore_index;
        struct distribution t = {0};
        if (!ignored)
            distribution_of_labels(&t, job, i);
        const bool alone = !ignored && !multiplier_is_bounded(distribution_multiplier(&t));
        if (ignored) {
            kernel->cross_entropy(job, i, i + 1);
        } else if (!alone) {
            struct shared_row *row = &wave.row[wave.rows++];
            row->index = i;
            row->x = xent_job_logits(job, i);
            row->out = job->out ? xent_job_out(job, i) : NULL;
            row->t = t;
            row->t.x_y = (double)row->x[t.y];
        }
        /* Rows are added to sums in order: one alone after those before it. */
        if (wave.rows > 0 && (alone || wave.rows == limit || i + 1 == rows)) {
            wave.parts_per_task = (wave.rows * wave.parts_per_row - 1) / tasks + 1;
            run_wave(&wave, job, workers);
            wave.rows = 0;
        }
        if (alone)
            kernel->cross_entropy(job, i, i + 1);
    }
}
