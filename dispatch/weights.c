/* What the rows of a job count, by their labels and weights. */
#include "weights.h"

#include "kernels/pair.h"

/* A sum of doubles, with what its roundings have lost where results are doubles: that takes six times as long. */
struct long_sum {
    double sum, lost;
};

static void add_long(struct long_sum *to, double v, xent_dtype dtype)
{
    if (dtype != XENT_F64) {
        to->sum += v;
        return;
    }
    const struct pair sum = pair_sum(to->sum, v);
    to->sum = sum.hi;
    to->lost += sum.lo;
}

/* As integers, by vectors. */
bool xent_class_weights_are_good(const struct xent_job *job)
{
    const uint32_t most32 = f32_bits(XENT_MAX_CLASS_WEIGHT);
    const uint64_t most64 = f64_bits((double)XENT_MAX_CLASS_WEIGHT);
    int bad = 0;
    for (size_t j = 0; job->dtype == XENT_F32 && j < job->classes; ++j) {
        const uint32_t bits = f32_bits(((const float *)job->class_weights)[j]);
        bad |= bits > most32 && bits != UINT32_C(1) << 31;
    }
    for (size_t j = 0; job->dtype == XENT_F64 && j < job->classes; ++j) {
        const uint64_t bits = f64_bits(((const double *)job->class_weights)[j]);
        bad |= bits > most64 && bits != UINT64_C(1) << 63;
    }
    return !bad;
}

/* The sum of one chunk of class weights that are floats, in the lanes of docs/numerics.md, section 3. */
static double class_weights_chunk(const float *w, size_t count)
{
    double lane[XENT_LANES] = {0};
    size_t j = 0;
    for (; count - j >= XENT_LANES; j += XENT_LANES)
        for (size_t l = 0; l < XENT_LANES; ++l)
            lane[l] += (double)w[j + l];
    for (size_t l = 0; l < count - j; ++l)
        lane[l] += (double)w[j + l];
    return f64_fold(lane, XENT_LANES);
}

double xent_class_weights_sum(const struct xent_job *job)
{
    if (!job->class_weights || job->smoothing == 0)
        return (double)job->classes;
    struct long_sum sum = {0, 0};
    const size_t chunk = xent_chunk(job->classes);
    for (size_t j = 0; job->dtype == XENT_F32 && j < job->classes; j += chunk)
        sum.sum += class_weights_chunk((const float *)job->class_weights + j,
                                       job->classes - j < chunk ? job->classes - j : chunk);
    for (size_t j = 0; job->dtype == XENT_F64 && j < job->classes; ++j)
        add_long(&sum, xent_job_class_weight(job, j), XENT_F64);
    return sum.sum + sum.lost;
}

/* Labels are taken so many at a time. */
enum { BLOCK = 1024 };

/* How many rows of a block to keep, and whether any target is bad, in loops for the vectorizer: no way out, no mixed
   widths. */
static bool count_block32(const int32_t *targets, size_t count, int64_t ignore_index, size_t classes, size_t *kept)
{
    const bool ignores = ignore_index >= INT32_MIN && ignore_index <= INT32_MAX;
    const int32_t ignore = ignores ? (int32_t)ignore_index : 0, always = !ignores;
    const uint32_t bound = classes <= INT32_MAX ? (uint32_t)classes : (uint32_t)INT32_MAX + 1;
    int32_t here = 0, bad = 0;
    for (size_t i = 0; i < count; ++i) {
        const int32_t keep = always | (targets[i] != ignore);
        here += keep;
        bad |= keep & ((uint32_t)targets[i] >= bound);
    }
    *kept += (size_t)here;
    return !bad;
}

static bool count_block64(const int64_t *targets, size_t count, int64_t ignore_index, size_t classes, size_t *kept)
{
    int64_t here = 0, bad = 0;
    for (size_t i = 0; i < count; ++i) {
        const int64_t keep = targets[i] != ignore_index;
        here += keep;
        bad |= keep & ((uint64_t)targets[i] >= classes);
    }
    *kept += (size_t)here;
    return !bad;
}

static bool row_is_good(const struct xent_job *job, size_t row)
{
    for (size_t k = 0; xent_job_has_labels(job) && k < job->labels; ++k) {
        const int64_t label = xent_job_label(job, row, k);
        if (label != job->ignore_index && (uint64_t)label >= job->classes)
            return false;
    }
    return true;
}

/* Not inlined, so that its labels take no room on the stack while rows are computed. */
static NOINLINE bool count_block(const struct xent_job *job, size_t first, size_t count, struct kept *kept)
{
    if (job->targets32)
        return count_block32(job->targets32 + first, count, job->ignore_index, job->classes, &kept->rows);
    if (job->targets64)
        return count_block64(job->targets64 + first, count, job->ignore_index, job->classes, &kept->rows);
    if (xent_job_has_packed_labels(job)) {
        int64_t labels[BLOCK];
        xent_job_read_labels(job, first, count, labels);
        return count_block64(labels, count, job->ignore_index, job->classes, &kept->rows);
    }
    for (size_t i = first; i < first + count; ++i) {
        if (!row_is_good(job, i))
            return false;
        kept->rows += !xent_job_ignores(job, i);
    }
    return true;
}

/* Whether the labels of all rows, several or with probabilities, are numbers of 32 or 64 bits without gaps. */
static bool has_dense_labels(const struct xent_job *job, size_t rows)
{
    const xent_strides *strides = &job->targets_strides;
    const size_t row_labels = job->labels * job->inner;
    return (job->target_type == XENT_LABELS_I32 || job->target_type == XENT_LABELS_I64) &&
           !xent_job_has_plain_labels(job) && (job->labels == 1 || strides->classes == job->inner) &&
           (job->inner == 1 || strides->inner == 1) && (rows == job->inner || strides->outer == row_labels);
}

/* Whether none of so many labels without gaps is bad or left out. */
static NOINLINE bool dense_labels_are_good(const struct xent_job *job, size_t labels)
{
    const int32_t *labels32 = job->target_type == XENT_LABELS_I32 ? job->targets : NULL;
    const int64_t *labels64 = job->targets;
    size_t kept = 0;
    bool good = true;
    for (size_t first = 0; good && first < labels; first += BLOCK) {
        const size_t count = labels - first < BLOCK ? labels - first : BLOCK;
        good = labels32 ? count_block32(labels32 + first, count, job->ignore_index, job->classes, &kept)
                        : count_block64(labels64 + first, count, job->ignore_index, job->classes, &kept);
        good = good && kept == first + count;
    }
    return good;
}

bool xent_count_kept(const struct xent_job *job, size_t rows, struct kept *kept)
{
    *kept = (struct kept){.rows = rows};
    if (has_dense_labels(job, rows) && dense_labels_are_good(job, rows * job->labels))
        return true;
    kept->rows = 0;
    for (size_t first = 0; first < rows; first += BLOCK) {
        const size_t count = rows - first < BLOCK ? rows - first : BLOCK;
        if (count_block(job, first, count, kept))
            continue;
        for (kept->bad = first; row_is_good(job, kept->bad);)
            ++kept->bad;
        return false;
    }
    return true;
}

/* xent_weigh_kept where labels are packed and results floats: for many short rows it takes as long as all else if each
   row is asked what it may have. */
static NOINLINE void weigh_labels(const struct xent_job *job, size_t rows, struct kept *kept)
{
    double sum = 0;
    size_t count = job->row_weights ? 0 : kept->rows;
    for (size_t first = 0; first < rows; first += BLOCK) {
        int64_t labels[BLOCK];
        const size_t here = rows - first < BLOCK ? rows - first : BLOCK;
        xent_job_read_labels(job, first, here, labels);
        for (size_t i = 0; !job->row_weights && i < here; ++i)
            if (labels[i] != job->ignore_index)
                sum += xent_job_class_weight(job, (size_t)labels[i]);
        for (size_t i = 0; job->row_weights && i < here; ++i) {
            const double r = xent_job_row_weight(job, first + i);
            if (labels[i] == job->ignore_index || r == 0)
                continue;
            sum += xent_job_class_weight(job, (size_t)labels[i]) * r;
            ++count;
        }
    }
    kept->rows = count;
    kept->denominator = sum;
}

void xent_weigh_kept(const struct xent_job *job, size_t rows, struct kept *kept)
{
    kept->denominator = (double)kept->rows;
    const bool by_class = job->class_weights && xent_job_has_plain_labels(job);
    if (!by_class && !job->row_weights)
        return;
    if (job->dtype == XENT_F32 && xent_job_has_packed_labels(job)) {
        weigh_labels(job, rows, kept);
        return;
    }
    *kept = (struct kept){0};
    struct long_sum sum = {0, 0};
    for (size_t i = 0; i < rows; ++i) {
        if (xent_job_ignores(job, i))
            continue;
        const double w = by_class ? xent_job_class_weight(job, (size_t)xent_job_target(job, i)) : 1;
        add_long(&sum, w * xent_job_row_weight(job, i), job->dtype);
        ++kept->rows;
    }
    kept->denominator = sum.sum + sum.lost;
}
