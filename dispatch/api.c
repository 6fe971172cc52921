/* The public calls: arguments checked once, then rows handed to the kernel in use. */
#include "xent/xent.h"

#include "arguments.h"
#include "kernels/f64.h"
#include "run.h"
#include "select.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static xent_status read_options(const xent_options *given, xent_options *options)
{
    static const xent_options defaults = XENT_OPTIONS_INIT;
    *options = defaults;
    if (!given)
        return XENT_OK;
    /* An older struct ends where the next field begins. */
    static const size_t older[] = {
        offsetof(xent_options, ignore_index),    offsetof(xent_options, logits_stride),
        offsetof(xent_options, grad_stride),     offsetof(xent_options, label_smoothing),
        offsetof(xent_options, class_weights),   offsetof(xent_options, lse),
        offsetof(xent_options, error_row),       offsetof(xent_options, executor),
    };
    if (!read_struct(given, given->struct_size, options, sizeof *options, older, sizeof older / sizeof *older))
        return XENT_ERR_OPTION;
    if (options->reduction != XENT_MEAN && options->reduction != XENT_SUM && options->reduction != XENT_NONE)
        return XENT_ERR_OPTION;
    if (!(options->label_smoothing >= 0.0f && options->label_smoothing <= 1.0f))
        return XENT_ERR_OPTION;
    if (options->executor && (!options->executor->parallel_for || options->executor->threads == 0))
        return XENT_ERR_OPTION;
    return XENT_OK;
}

/* How many rows of a block to keep, and whether any target is bad, in loops for the vectorizer: no way out, no mixed
   widths. */
static bool count_block32(const int32_t *targets, size_t count, int64_t ignore_index, size_t classes, size_t *kept)
{
    const bool ignores = ignore_index >= INT32_MIN && ignore_index <= INT32_MAX;
    const int32_t ignore = ignores ? (int32_t)ignore_index : 0, always = !ignores;
    const uint32_t bound = classes < INT32_MAX ? (uint32_t)classes : (uint32_t)INT32_MAX + 1;
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

/* Counts the rows to keep, or finds the first with a bad target. */
static bool count_kept(const struct xent_job *job, size_t rows, size_t *kept, size_t *bad)
{
    enum { BLOCK = 1024 };
    *kept = 0;
    for (size_t first = 0; first < rows; first += BLOCK) {
        const size_t count = rows - first < BLOCK ? rows - first : BLOCK;
        const bool good = job->targets32
                              ? count_block32(job->targets32 + first, count, job->ignore_index, job->classes, kept)
                              : count_block64(job->targets64 + first, count, job->ignore_index, job->classes, kept);
        if (good)
            continue;
        for (*bad = first;; ++*bad) {
            const int64_t target = xent_job_target(job, *bad);
            if (target != job->ignore_index && (uint64_t)target >= job->classes)
                return false;
        }
    }
    return true;
}

/* Reads the class weights and their sum into the job; false if one is not allowed. */
static bool read_weights(struct xent_job *job, const float *weights)
{
    job->class_weights = weights;
    job->weights_sum = (double)job->classes;
    if (!weights)
        return true;
    job->weights_sum = 0;
    for (size_t j = 0; j < job->classes; ++j) {
        if (!(weights[j] >= 0.0f && weights[j] <= XENT_MAX_CLASS_WEIGHT))
            return false;
        job->weights_sum += (double)weights[j];
    }
    return true;
}

/* What a mean divides by: the weights of the kept rows' targets, in order. */
static double kept_weight(const struct xent_job *job, size_t rows, size_t kept)
{
    if (!job->class_weights)
        return (double)kept;
    double sum = 0;
    for (size_t i = 0; i < rows; ++i) {
        const int64_t target = xent_job_target(job, i);
        if (target != job->ignore_index)
            sum += (double)job->class_weights[target];
    }
    return sum;
}

/* logits, classes, targets and out of the job are the caller's; the rest is filled in here. */
static xent_status fused(struct xent_job *job, size_t rows, float *loss, const xent_options *given)
{
    xent_options options;
    xent_status status = read_options(given, &options);
    if (status != XENT_OK)
        return status;
    const size_t target_size = job->targets64 ? sizeof *job->targets64 : sizeof *job->targets32;
    const void *targets = job->targets64 ? (const void *)job->targets64 : (const void *)job->targets32;
    const size_t losses = options.reduction == XENT_NONE ? rows : 1;
    if ((losses > 0 && !loss) || (rows > 0 && (!job->logits || !targets)))
        return XENT_ERR_NULL;
    if (rows > 0 && job->classes == 0)
        return XENT_ERR_CLASSES;

    const struct matrix logits = {job->logits, rows, job->classes,
                                  options.logits_stride ? options.logits_stride : job->classes};
    const struct matrix grad = {job->out, job->out ? rows : 0, job->classes,
                                options.grad_stride ? options.grad_stride : job->classes};
    if ((status = check_matrix(&logits)) != XENT_OK || (job->out && (status = check_matrix(&grad)) != XENT_OK))
        return status;
    if (rows > PTRDIFF_MAX / sizeof(int64_t))
        return XENT_ERR_SIZE;

    const size_t target_bytes = rows * target_size, loss_bytes = losses * sizeof *loss;
    const size_t lse_bytes = options.lse ? rows * sizeof *options.lse : 0;
    const size_t logits_bytes = span(&logits), grad_bytes = span(&grad);
    const size_t weights_bytes = options.class_weights ? job->classes * sizeof *options.class_weights : 0;
    if ((job->out && !in_place_or_apart(&logits, &grad)) || !apart(job->out, grad_bytes, targets, target_bytes) ||
        !apart(loss, loss_bytes, job->logits, logits_bytes) || !apart(loss, loss_bytes, job->out, grad_bytes) ||
        !apart(loss, loss_bytes, targets, target_bytes) || !apart(options.lse, lse_bytes, job->logits, logits_bytes) ||
        !apart(options.lse, lse_bytes, job->out, grad_bytes) ||
        !apart(options.lse, lse_bytes, targets, target_bytes) || !apart(options.lse, lse_bytes, loss, loss_bytes) ||
        !apart(options.class_weights, weights_bytes, job->out, grad_bytes) ||
        !apart(options.class_weights, weights_bytes, loss, loss_bytes) ||
        !apart(options.class_weights, weights_bytes, options.lse, lse_bytes))
        return XENT_ERR_OVERLAP;

    job->logits_stride = logits.stride;
    job->out_stride = job->out == job->logits ? logits.stride : grad.stride;
    job->ignore_index = options.ignore_index;
    if (!read_weights(job, options.class_weights))
        return XENT_ERR_OPTION;
    size_t kept, bad;
    if (!count_kept(job, rows, &kept, &bad)) {
        if (options.error_row)
            *options.error_row = bad;
        return XENT_ERR_TARGET;
    }
    job->lse = options.lse;
    job->loss = options.reduction == XENT_NONE ? loss : NULL;
    job->target_weight = 1 - (double)options.label_smoothing;
    job->smoothing = rows > 0 ? (double)options.label_smoothing / (double)job->classes : 0;
    const double weight = kept_weight(job, rows, kept);
    job->grad_scale = options.reduction == XENT_MEAN ? (weight > 0 ? 1 / weight : 0) : 1;
    const double sum = xent_run_cross_entropy(xent_active_kernel(), job, rows, options.executor);
    if (options.reduction != XENT_NONE) {
        const double reduced = options.reduction == XENT_MEAN ? sum / weight : sum;
        *loss = reduced == reduced ? f64_to_f32(reduced) : NAN;
    }
    return XENT_OK;
}

xent_status xent_fused_f32(const float *logits, const int32_t *targets, size_t rows, size_t classes, float *loss,
                           float *grad, const xent_options *options)
{
    struct xent_job job;
    job.logits = logits;
    job.classes = classes;
    job.out = grad;
    job.targets32 = targets;
    job.targets64 = NULL;
    return fused(&job, rows, loss, options);
}

xent_status xent_fused_f32_i64(const float *logits, const int64_t *targets, size_t rows, size_t classes, float *loss,
                               float *grad, const xent_options *options)
{
    struct xent_job job;
    job.logits = logits;
    job.classes = classes;
    job.out = grad;
    job.targets32 = NULL;
    job.targets64 = targets;
    return fused(&job, rows, loss, options);
}

/* The checks that the calls without targets share; the strides in job become the effective ones. out or lse is NULL. */
static xent_status prepare(struct xent_job *job, size_t rows)
{
    if (rows == 0)
        return XENT_OK;
    if (!job->logits || (!job->out && !job->lse))
        return XENT_ERR_NULL;
    if (job->classes == 0)
        return XENT_ERR_CLASSES;
    job->logits_stride = job->logits_stride ? job->logits_stride : job->classes;
    job->out_stride = job->out_stride ? job->out_stride : job->classes;
    const struct matrix logits = {job->logits, rows, job->classes, job->logits_stride};
    const struct matrix out = {job->out, job->out ? rows : 0, job->classes, job->out_stride};
    xent_status status = check_matrix(&logits);
    if (status == XENT_OK && job->out)
        status = check_matrix(&out);
    if (status != XENT_OK)
        return status;
    if ((job->out && !in_place_or_apart(&logits, &out)) ||
        (job->lse && !apart(job->lse, rows * sizeof *job->lse, job->logits, span(&logits))))
        return XENT_ERR_OVERLAP;
    return XENT_OK;
}

xent_status xent_logsumexp_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride, float *lse)
{
    struct xent_job job = {.logits = logits, .logits_stride = logits_stride, .classes = classes, .lse = lse};
    const xent_status status = prepare(&job, rows);
    if (status == XENT_OK)
        xent_active_kernel()->softmax(&job, 0, rows);
    return status;
}

xent_status xent_softmax_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride, float *probs,
                             size_t probs_stride)
{
    struct xent_job job = {.logits = logits,
                           .logits_stride = logits_stride,
                           .classes = classes,
                           .out = probs,
                           .out_stride = probs_stride};
    const xent_status status = prepare(&job, rows);
    if (status == XENT_OK)
        xent_active_kernel()->softmax(&job, 0, rows);
    return status;
}

xent_status xent_log_softmax_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride,
                                 float *log_probs, size_t log_probs_stride)
{
    struct xent_job job = {.logits = logits,
                           .logits_stride = logits_stride,
                           .classes = classes,
                           .out = log_probs,
                           .out_stride = log_probs_stride};
    const xent_status status = prepare(&job, rows);
    if (status == XENT_OK)
        xent_active_kernel()->log_softmax(&job, 0, rows);
    return status;
}

const char *xent_status_string(xent_status status)
{
    switch (status) {
    case XENT_OK:
        return "success";
    case XENT_ERR_NULL:
        return "a required pointer is NULL";
    case XENT_ERR_CLASSES:
        return "classes is 0 while there are rows";
    case XENT_ERR_STRIDE:
        return "a row stride is smaller than the number of classes";
    case XENT_ERR_SIZE:
        return "rows times stride is larger than the address space";
    case XENT_ERR_OVERLAP:
        return "an output overlaps another array without being exactly in place";
    case XENT_ERR_TARGET:
        return "a target is neither a class index nor ignore_index";
    case XENT_ERR_OPTION:
        return "an option has a value outside its range, or struct_size is wrong";
    case XENT_ERR_ISA_UNKNOWN:
        return "this build has no kernel of that name";
    case XENT_ERR_ISA_UNAVAILABLE:
        return "this CPU or its operating system cannot run that kernel";
    }
    return "unknown status";
}

int xent_version(void)
{
    return XENT_VERSION_MAJOR * 10000 + XENT_VERSION_MINOR * 100 + XENT_VERSION_PATCH;
}

int xent_numerics_version(void)
{
    return XENT_NUMERICS_VERSION;
}
