/*
 * Part of kernels/algorithm.h: log-probabilities. Those of a row come from the loss of its largest class: from sums as
 * of plain targets, whose exponentials nobody keeps.
 */
#ifndef XENT_KERNELS_LOG_SOFTMAX_H
#define XENT_KERNELS_LOG_SOFTMAX_H

enum { LOGS_BY_COLUMNS = 2 * VW }; /* up to so many classes VW rows at a time */

/* Whether a vector has a logit of max, the largest of its row. A NaN is none. */
static ALWAYS_INLINE bool has_largest(vf x, vf max)
{
    const vf one = vset(1.0f), is_less = vkeep_above(one, max, x);
    return vany(visub(vbits(one), vbits(is_less)), -1);
}

/* The first class with the largest logit; of a row with a NaN, whose results do not depend on it, any class. */
static size_t row_argmax(const float *x, size_t classes)
{
    const float max = span_max(x, 0, classes);
    const vf largest = vset(max);
    size_t j = 0;
    while (classes - j >= 4 * VW &&
           !has_largest(vmax(vmax(vload(x + j), vload(x + j + VW)), vmax(vload(x + j + 2 * VW), vload(x + j + 3 * VW))),
                        largest))
        j += 4 * VW;
    while (classes - j >= VW && !has_largest(vload(x + j), largest))
        j += VW;
    while (j < classes && x[j] != max)
        ++j;
    return j < classes ? j : 0;
}

/* x - lse for a row of a batch whose sums are known, but for class y, which is the loss without its sign. */
static ALWAYS_INLINE void store_log_probabilities(const struct batch *b, size_t i, float *out)
{
    const float *x = b->x[i], hi = (float)b->log_sum[i], lo = (float)(b->log_sum[i] - (double)hi);
    const vf ref = vset(b->ref[i]);
    for (size_t j = 0; j < b->classes; j += VW) {
        const vf z = vsub(load_left(x + j, b->classes - j), ref);
        store_left(out + j, vsub(vsub(z, vset(hi)), vset(lo)), b->classes - j);
    }
    out[b->y[i]] = -f64_to_f32(b->loss[i]);
}

/* The largest classes of VW rows. */
static NOINLINE void columns_argmax(struct column_place at, size_t classes, int64_t *y)
{
    float max[VW], first[VW];
    columns_max(at, classes, max);
    const vf one = vset(1.0f), largest = vload(max);
    vf found = vset(0.0f);
    for (size_t j = (classes - 1) / 4 * 4 + 4; j > 0;) {
        vf z[4];
        j -= 4;
        const size_t count = columns_left(classes, j);
        load_columns(at, j, count, z);
        for (size_t i = count; i-- > 0;) {
            const vf is_less = vkeep_above(one, largest, z[i]);
            found = vreplace_where(found, vbits(is_less), 0, vset((float)(j + i)));
        }
    }
    vstore(first, found);
    for (int i = 0; i < VW; ++i)
        y[i] = (int32_t)first[i];
}

/* store_log_probabilities for VW rows of a batch from at on. */
static NOINLINE void columns_log_probabilities(const struct batch *b, int at, float *const *out)
{
    float hi[VW], lo[VW], loss[VW];
    int32_t y[VW];
    for (int i = 0; i < VW; ++i)
        hi[i] = (float)b->log_sum[at + i];
    __asm__("" : "+m"(hi)); /* or gcc 12 takes what follows, made into vectors of 8, for 0 */
    for (int i = 0; i < VW; ++i)
        lo[i] = (float)(b->log_sum[at + i] - (double)hi[i]);
    for (int i = 0; i < VW; ++i)
        loss[i] = -f64_to_f32(b->loss[at + i]);
    for (int i = 0; i < VW; ++i)
        y[i] = (int32_t)b->y[at + i];
    const struct column_place place = columns_of_rows(b->x + at, out);
    const vf ref = vload(b->ref + at);
    for (size_t j = 0; j < b->classes; j += 4) {
        const size_t count = columns_left(b->classes, j);
        vf z[4];
        load_columns(place, j, count, z);
        for (size_t i = 0; i < count; ++i) {
            const vf log_probability = vsub(vsub(vsub(z[i], ref), vload(hi)), vload(lo));
            z[i] = vreplace_where(log_probability, viload(y), (int)(j + i), vload(loss));
        }
        store_columns(place, j, count, z);
    }
}

static void log_softmax(const struct xent_job *job, size_t first, size_t last)
{
    struct xent_job sums = *job;
    sums.out = NULL;
    sums.memory.stream = false;
    const size_t limit = batch_limit(job);
    const bool by_columns = job->classes <= LOGS_BY_COLUMNS;
    int framed = 0;
    struct batch b;
    b.classes = job->classes;
    for (size_t i = first; i < last; i += b.count) {
        float *out[BATCH];
        b.count = last - i < limit ? last - i : limit;
        for (size_t k = 0; k < b.count; ++k) {
            b.row[k] = i + k;
            b.x[k] = xent_job_logits(job, i + k);
            b.out[k] = NULL;
            out[k] = xent_job_out(job, i + k);
        }
        const size_t columns = by_columns ? b.count / VW * VW : 0;
        for (size_t k = 0; k < columns; k += VW)
            columns_argmax(columns_of_rows(b.x + k, NULL), b.classes, b.y + k);
        for (size_t k = columns; k < b.count; ++k)
            b.y[k] = (int64_t)row_argmax(b.x[k], b.classes);
        run_filled(&b, &sums, columns_limit(&sums), PLAIN_TARGET, &framed, NULL);
        for (size_t k = 0; k < columns; k += VW)
            columns_log_probabilities(&b, (int)k, out + k);
        for (size_t k = columns; k < b.count; ++k)
            store_log_probabilities(&b, k, out[k]);
        for (size_t k = 0; k < b.count; ++k)
            if (!b.finite[k])
                fill(out[k], b.classes, NAN);
    }
    vend();
}

#endif
