/*
 * Part of kernels/algorithm.h: rows whose classes are not neighbours, in any layout, through a tile: a batch of rows,
 * and of their probabilities, is copied to where classes are neighbours, computed there in place, and its gradient
 * copied back.
 */
#ifndef XENT_KERNELS_TILES_H
#define XENT_KERNELS_TILES_H

enum { TILE = 12288 /* floats: as much stack as any thread should have */ };

/* Rows up to the next one that is not evenly spaced with them, but at most limit. */
static ALWAYS_INLINE size_t line_left(const struct xent_job *job, size_t row, size_t limit)
{
    if (job->inner == 1)
        return limit;
    const size_t left = job->inner - row % job->inner;
    return left < limit ? left : limit;
}

static size_t row_stride(const struct xent_job *job, const xent_strides *strides)
{
    return job->inner == 1 ? strides->outer : strides->inner;
}

/* From one row of a tile to the next: not a power of two, for the caches' sake. */
static size_t tile_pitch(size_t classes)
{
    return (classes + LINE - 1) / LINE * LINE + LINE;
}

/* to[i * to_slow + j * to_fast] = from[i * from_slow + j * from_fast] for i < slow, j < fast. */
static void copy_grid(float *to, size_t to_slow, size_t to_fast, const float *from, size_t from_slow, size_t from_fast,
                      size_t slow, size_t fast)
{
    for (size_t i = 0; i < slow; ++i)
        for (size_t j = 0; j < fast; ++j)
            to[i * to_slow + j * to_fast] = from[i * from_slow + j * from_fast];
}

/* Copies count evenly spaced rows of an array, from row on, into a tile. */
static void fetch_line(const struct xent_job *job, const float *array, const xent_strides *strides, size_t row,
                       size_t count, float *tile, size_t pitch)
{
    const float *x = array + xent_job_at(job, strides, row);
    const size_t step = row_stride(job, strides), stride = strides->classes;
    size_t i = 0;
    for (; step == 1 && count - i >= VW; i += VW) {
        const struct column_place at = {.is_whole = true, .x_plane = x + i, .x_stride = stride};
        float *rows[VW];
        for (size_t k = 0; k < VW; ++k)
            rows[k] = tile + (i + k) * pitch;
        for (size_t j = 0; j < job->classes; j += 4) {
            vf column[4];
            load_columns(at, j, columns_left(job->classes, j), column);
            vstore_columns(rows, j, columns_left(job->classes, j), column);
        }
    }
    if (stride < step)
        copy_grid(tile + i * pitch, pitch, 1, x + i * step, step, stride, count - i, job->classes);
    else
        copy_grid(tile + i * pitch, 1, pitch, x + i * step, stride, step, job->classes, count - i);
}

/* Copies as many rows from a tile to the gradient. */
static void leave_line(const struct xent_job *job, size_t row, size_t count, const float *tile, size_t pitch)
{
    float *out = xent_job_out(job, row);
    const size_t step = row_stride(job, &job->out_strides), stride = job->out_strides.classes;
    size_t i = 0;
    for (; step == 1 && count - i >= VW; i += VW) {
        const struct column_place at = {.is_whole = true, .out_plane = out + i, .out_stride = stride};
        const float *rows[VW];
        for (size_t k = 0; k < VW; ++k)
            rows[k] = tile + (i + k) * pitch;
        for (size_t j = 0; j < job->classes; j += 4) {
            vf column[4];
            vload_columns(rows, j, columns_left(job->classes, j), column);
            store_columns(at, j, columns_left(job->classes, j), column);
        }
    }
    if (stride < step)
        copy_grid(out + i * step, step, stride, tile + i * pitch, pitch, 1, count - i, job->classes);
    else
        copy_grid(out + i * step, stride, step, tile + i * pitch, 1, pitch, job->classes, count - i);
}

/* So many rows from i on, which is kept, to the last kept one, or to an ignored one that is no neighbour: those among
   neighbours come along. */
static ALWAYS_INLINE size_t kept_left(const bool *ignored, size_t i, size_t count, bool neighbours)
{
    size_t end = i + 1;
    for (size_t k = end; k < count && (neighbours || !ignored[k]); ++k)
        end = ignored[k] ? end : k + 1;
    return end - i;
}

/* Copies count rows of an array from first on, but not those that are ignored. */
static void fetch_tile(const struct xent_job *job, const float *array, const xent_strides *strides, size_t first,
                       size_t count, const bool *ignored, float *tile)
{
    const size_t pitch = tile_pitch(job->classes);
    const bool neighbours = row_stride(job, strides) == 1;
    for (size_t i = 0, line; i < count; i += line) {
        line = ignored[i] ? 1 : line_left(job, first + i, kept_left(ignored, i, count, neighbours));
        if (!ignored[i])
            fetch_line(job, array, strides, first + i, line, tile + i * pitch, pitch);
    }
}

/* How many tiles a call needs: one for logits and gradients, one for probabilities. */
static size_t tiles(const struct xent_job *job)
{
    return xent_job_has_labels(job) ? 1 : 2;
}

/* A tile of count rows from first on, with that of their probabilities behind it. */
static void run_tile(const struct xent_job *job, size_t first, size_t count, float *tile, enum target target,
                     int *framed)
{
    const size_t pitch = tile_pitch(job->classes);
    float *q = xent_job_has_labels(job) ? NULL : tile + TILE / 2;
    struct batch b = {.classes = job->classes};
    bool ignored[BATCH];
    for (size_t i = 0; i < count; ++i) {
        ignored[i] = xent_job_ignores(job, first + i);
        if (ignored[i])
            continue;
        b.row[b.count] = first + i;
        b.x[b.count] = tile + i * pitch;
        b.out[b.count] = job->out ? tile + i * pitch : NULL;
        b.y[b.count] = xent_job_has_plain_labels(job) ? xent_job_target(job, first + i) : -1;
        b.q[b.count] = q ? q + i * pitch : NULL;
        ++b.count;
    }
    if (b.count > 0)
        fetch_tile(job, job->logits, &job->logits_strides, first, count, ignored, tile);
    if (b.count > 0 && q)
        fetch_tile(job, job->targets, &job->targets_strides, first, count, ignored, q);
    for (size_t i = 0; i < count; ++i) {
        if (!ignored[i])
            continue;
        if (job->out)
            fill(tile + i * pitch, job->classes, 0.0f);
        store_ignored(job, first + i);
    }
    const size_t most_columns = job->out ? columns_limit_in_place(job) : COLUMNS_MAX;
    if (b.count > 0 && target == PLAIN_TARGET)
        run_filled(&b, job, most_columns, PLAIN_TARGET, framed, NULL);
    else if (b.count > 0)
        run_filled(&b, job, most_columns, DISTRIBUTION, framed, NULL);
    for (size_t i = 0, line; job->out && i < count; i += line) {
        line = line_left(job, first + i, count - i);
        leave_line(job, first + i, line, tile + i * pitch, pitch);
    }
}

static NOINLINE void run_tiles(const struct xent_job *job, size_t first, size_t last, enum target target)
{
    float tile[TILE] __attribute__((aligned(64)));
    const size_t fitting = TILE / tiles(job) / tile_pitch(job->classes), most = batch_rows(job);
    const size_t limit = fitting < most ? fitting : most;
    int framed = 0;
    for (size_t i = first, count; i < last; i += count) {
        count = last - i < limit ? last - i : limit;
        run_tile(job, i, count, tile, target, &framed);
    }
}

#endif
