/* Part of kernels/algorithm.h: the choice among all ways to take rows whose classes are not neighbours. */
#ifndef XENT_KERNELS_STRIDED_H
#define XENT_KERNELS_STRIDED_H

static bool fits_tile(const struct xent_job *job)
{
    return tile_pitch(job->classes) <= TILE / tiles(job);
}

/* By tiles; rows that are too long for one are left to the scalar kernel. */
static void run_unlike_planes(const struct xent_job *job, size_t first, size_t last, enum target target)
{
    if (fits_tile(job))
        run_tiles(job, first, last, target);
    else
        XENT_KERNEL(scalar).cross_entropy(job, first, last);
}

/* Whether probabilities are taken by planes: batches of neighbours, of few classes. */
static bool has_soft_planes(const struct xent_job *job)
{
    return !xent_job_has_labels(job) && job->classes <= SOFT_PLANES_MAX &&
           row_stride(job, &job->targets_strides) == 1 && (job->inner == 1 || job->inner >= BATCH);
}

/* Whether rows of any number of classes are taken by planes: not with label smoothing. */
static bool is_long_plain(const struct xent_job *job)
{
    return job->smoothing == 0 && job->classes <= INT32_MAX;
}

static bool has_label_planes(const struct xent_job *job)
{
    const bool is_line = job->inner == 1 || job->inner >= SHORTEST_LINE;
    return xent_job_has_plain_labels(job) &&
           (job->classes <= PLANES_MAX ? is_line : is_long_plain(job) && (is_line || !fits_tile(job)));
}

static bool has_planes(const struct xent_job *job)
{
    if (row_stride(job, &job->logits_strides) != 1 || (job->out && row_stride(job, &job->out_strides) != 1))
        return false;
    return has_soft_planes(job) || has_label_planes(job);
}

/* As many rows from one on as are taken at once, at most. */
static size_t planes_rows(const struct xent_job *job, size_t row, size_t left)
{
    const bool has_strips = job->classes <= PLANES_MAX && xent_job_has_labels(job);
    const size_t most = has_strips ? strip_rows(job, row) : STRIP * BATCH;
    const size_t count = line_left(job, row, left < most ? left : most);
    /* Of probabilities whole batches, and what is left of a line after these. */
    return xent_job_has_labels(job) || count < BATCH ? count : count - count % BATCH;
}

static bool run_some_planes(const struct xent_job *job, size_t first, size_t count, enum target target, int *framed)
{
    if (!xent_job_has_labels(job))
        return count % BATCH == 0 && run_strip_soft(job, first, count, framed);
    if (job->classes > PLANES_MAX)
        return target == PLAIN_TARGET ? run_long_strip_plain(job, first, count)
                                      : run_long_strip_single(job, first, count);
    return target == PLAIN_TARGET ? run_strip_plain(job, first, count, framed)
           : job->smoothing == 0  ? run_strip_single(job, first, count, framed)
                                  : run_strip_smoothed(job, first, count, framed);
}

static void run_planes(const struct xent_job *job, size_t first, size_t last, enum target target)
{
    int framed = 0;
    for (size_t i = first, count; i < last; i += count) {
        count = planes_rows(job, i, last - i);
        if (!run_some_planes(job, i, count, target, &framed))
            run_unlike_planes(job, i, i + count, target);
    }
    if (planes_are_streamed(job))
        vstream_end();
}

static void cross_entropy_strided(const struct xent_job *job, size_t first, size_t last, enum target target)
{
    if (has_planes(job))
        run_planes(job, first, last, target);
    else
        run_unlike_planes(job, first, last, target);
}

#endif
