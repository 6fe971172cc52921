/* Part of kernels/algorithm.h: taking rows into a batch, but ignored ones, which are done with here. */
#ifndef XENT_KERNELS_FILL_BATCH_H
#define XENT_KERNELS_FILL_BATCH_H

static void store_ignored(const struct xent_job *job, size_t row)
{
    if (job->loss)
        ((float *)job->loss)[row] = 0;
    if (job->lse)
        ((float *)job->lse)[row] = 0;
}

static void ignore_row(const struct xent_job *job, size_t row)
{
    if (job->memory.overlap && job->memory.stream)
        fill_stream(xent_job_out(job, row), job->classes, 0.0f);
    else if (job->out)
        fill(xent_job_out(job, row), job->classes, 0.0f);
    store_ignored(job, row);
}

/* The first 8 lines of a row after an ignored one, which is not where a processor's prefetchers look for it. */
static NOINLINE void prefetch_after_ignored(const struct xent_job *job, size_t row)
{
    if (xent_job_ignores(job, row))
        return;
    const float *x = xent_job_logits(job, row);
    for (size_t j = 0; j < 8 * LINE && j < job->classes; j += LINE)
        prefetch(x + j);
    __asm__ volatile(""); /* or gcc takes a call of this for one without effect, and leaves it out */
}

/* Takes rows from first on, which lie in a matrix, if none of them is ignored: by loops that become vector stores, for
   which a compiler must see no multiplication, and not their length, or it unrolls them. */
static NOINLINE bool fill_known(struct batch *b, const struct xent_job *job, size_t first, size_t rows,
                                enum target target)
{
    const float *q = target == NO_TARGET || xent_job_has_labels(job) ? NULL : job->targets;
    const bool labels = target != NO_TARGET && !q;
    for (size_t i = 0; !labels && i < rows; ++i)
        b->y[i] = -1;
    if (labels && xent_job_read_labels(job, first, rows, b->y))
        return false;
    for (size_t i = 0; target == DISTRIBUTION && job->row_weights && i < rows; ++i)
        if (xent_job_row_weight(job, first + i) == 0)
            return false;
    size_t row = first;
    for (size_t i = 0; i < rows; ++i, ++row)
        b->row[i] = row;
    const float *logits = job->logits;
    const size_t logits_stride = job->logits_strides.outer;
    size_t at = first * logits_stride;
    for (size_t i = 0; i < rows; ++i, at += logits_stride)
        b->x[i] = logits + at;
    float *out = job->out;
    const size_t out_stride = job->out_strides.outer;
    at = first * out_stride;
    for (size_t i = 0; i < rows; ++i, at += out_stride)
        b->out[i] = out ? out + at : NULL;
    const size_t q_stride = job->targets_strides.outer;
    at = first * q_stride;
    for (size_t i = 0; target == DISTRIBUTION && i < rows; ++i, at += q_stride)
        b->q[i] = q ? q + at : NULL;
    b->count = rows;
    b->classes = job->classes;
    return true;
}

/* Takes up to limit rows from first on, but ignored ones, which are done with. Returns the first row that is left. */
static ALWAYS_INLINE size_t fill_batch(struct batch *b, const struct xent_job *job, size_t first, size_t last,
                                       size_t limit, enum target target)
{
    const size_t most = last - first < limit ? last - first : limit;
    const bool described = target == NO_TARGET || xent_job_has_packed_labels(job) || !xent_job_has_labels(job);
    const size_t known = most >= BATCH ? BATCH : most >= BATCH / 2 ? BATCH / 2 : 0;
    if (known > 0 && job->inner == 1 && described && fill_known(b, job, first, known, target))
        return first + known;
    /* Read once: nothing that is stored here changes them, which a compiler cannot know. */
    const bool matrix = job->inner == 1;
    const float *logits = job->logits;
    float *out = job->out;
    const size_t logits_stride = job->logits_strides.outer, out_stride = job->out_strides.outer;
    const float *probabilities = xent_job_has_labels(job) ? NULL : job->targets;
    const bool one_label = target == PLAIN_TARGET || (target == DISTRIBUTION && xent_job_has_plain_labels(job));
    size_t i = first;
    size_t count = 0;
    for (; i < last && count < limit; ++i) {
        const int64_t y = one_label ? xent_job_target(job, i) : -1;
        if (target == PLAIN_TARGET ? y == job->ignore_index : target == DISTRIBUTION && xent_job_ignores(job, i)) {
            ignore_row(job, i);
            if (job->classes > COLUMNS_MAX && i + 1 < last)
                prefetch_after_ignored(job, i + 1);
            continue;
        }
        b->row[count] = i;
        b->x[count] = matrix ? logits + i * logits_stride : xent_job_logits(job, i);
        b->out[count] = !out ? NULL : matrix ? out + i * out_stride : xent_job_out(job, i);
        b->y[count] = y;
        if (target == DISTRIBUTION)
            b->q[count] = probabilities ? probabilities + xent_job_at(job, &job->targets_strides, i) : NULL;
        ++count;
    }
    b->count = count;
    b->classes = job->classes;
    return i;
}

#endif
