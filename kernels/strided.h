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

static void run_planes(const struct xent_job *job, size_t first, size_t last, enum target target)
{
    const bool is_long = job->classes > PLANES_MAX;
    int framed = 0;
    for (size_t i = first, count; i < last; i += count) {
        const size_t most = is_long ? STRIP * BATCH : strip_rows(job, i);
        count = line_left(job, i, last - i < most ? last - i : most);
        if (!(is_long && target == PLAIN_TARGET ? run_long_strip_plain(job, i, count)
              : is_long                         ? run_long_strip_single(job, i, count)
              : target == PLAIN_TARGET          ? run_strip_plain(job, i, count, &framed)
              : job->smoothing == 0             ? run_strip_single(job, i, count, &framed)
                                                : run_strip_smoothed(job, i, count, &framed)))
            run_unlike_planes(job, i, i + count, target);
    }
    if (planes_are_streamed(job))
        vstream_end();
}

/* Whether rows of any number of classes are taken by planes: not with label smoothing. */
static bool is_long_plain(const struct xent_job *job)
{
    return job->smoothing == 0 && job->classes <= INT32_MAX;
}

static bool has_planes(const struct xent_job *job)
{
    if (!xent_job_has_plain_labels(job) || row_stride(job, &job->logits_strides) != 1 ||
        (job->out && row_stride(job, &job->out_strides) != 1))
        return false;
    const bool is_line = job->inner == 1 || job->inner >= SHORTEST_LINE;
    return job->classes <= PLANES_MAX ? is_line : is_long_plain(job) && (is_line || !fits_tile(job));
}

static void cross_entropy_strided(const struct xent_job *job, size_t first, size_t last)
{
    const bool plain = xent_job_is_plain(job) && multiplier_is_bounded(job->grad_scale);
    const enum target target = plain ? PLAIN_TARGET : DISTRIBUTION;
    if (has_planes(job))
        run_planes(job, first, last, target);
    else
        run_unlike_planes(job, first, last, target);
}

#endif
