/* The public calls: arguments checked once, then rows handed to the kernel in use. */
#include "xent/xent.h"

#include "arguments.h"
#include "control.h"
#include "kernels/kernel.h"
#include "problem.h"
#include "select.h"

static xent_status read_options(const xent_options *given, xent_options *options)
{
    static const xent_options defaults = XENT_OPTIONS_INIT;
    *options = defaults;
    if (!given)
        return XENT_OK;
    /* An older struct ends where the next field begins. */
    static const size_t older[] = {
        offsetof(xent_options, ignore_index),  offsetof(xent_options, logits_stride),
        offsetof(xent_options, grad_stride),   offsetof(xent_options, label_smoothing),
        offsetof(xent_options, class_weights), offsetof(xent_options, lse),
        offsetof(xent_options, error_row),     offsetof(xent_options, executor),
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

/* The general call for rows that are neighbours of each other but for their strides. */
static NOINLINE xent_status fused(const void *logits, const void *targets, xent_targets type, size_t rows,
                                  size_t classes, float *loss, float *grad, const xent_options *given, uint64_t control)
{
    xent_options options;
    const xent_status status = read_options(given, &options);
    if (status != XENT_OK)
        return status;
    if (!loss && (rows > 0 || options.reduction != XENT_NONE))
        return XENT_ERR_NULL;
    const xent_strides logits_strides = {options.logits_stride ? options.logits_stride : classes, 1, 0};
    const xent_strides grad_strides = {options.grad_stride ? options.grad_stride : classes, 1, 0};
    if (rows > 0 && logits && targets && classes > 0 &&
        (logits_strides.outer < classes || (grad && grad_strides.outer < classes)))
        return XENT_ERR_STRIDE;
    xent_problem problem = XENT_PROBLEM_INIT;
    problem.outer = rows;
    problem.classes = classes;
    problem.logits = logits;
    problem.logits_strides = &logits_strides;
    problem.grad = grad;
    problem.grad_strides = &grad_strides;
    problem.target_type = type;
    problem.targets = targets;
    problem.ignore_index = options.ignore_index;
    problem.label_smoothing = (double)options.label_smoothing;
    problem.class_weights = options.class_weights;
    problem.reduction = options.reduction;
    problem.loss = loss;
    problem.lse = options.lse;
    problem.error_row = options.error_row;
    problem.executor = options.executor;
    return xent_compute(&problem, control);
}

xent_status xent_fused_f32(const float *logits, const int32_t *targets, size_t rows, size_t classes, float *loss,
                           float *grad, const xent_options *options)
{
    const uint64_t control = control_put_aside();
    const xent_status status = fused(logits, targets, XENT_LABELS_I32, rows, classes, loss, grad, options, control);
    control_restore(control);
    return status;
}

xent_status xent_fused_f32_i64(const float *logits, const int64_t *targets, size_t rows, size_t classes, float *loss,
                               float *grad, const xent_options *options)
{
    const uint64_t control = control_put_aside();
    const xent_status status = fused(logits, targets, XENT_LABELS_I64, rows, classes, loss, grad, options, control);
    control_restore(control);
    return status;
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
    if (job->logits_strides.outer == 0)
        job->logits_strides.outer = job->classes;
    if (job->out_strides.outer == 0)
        job->out_strides.outer = job->classes;
    const struct matrix logits = {job->logits, sizeof(float), rows, job->classes, job->logits_strides.outer};
    const struct matrix out = {job->out, sizeof(float), job->out ? rows : 0, job->classes, job->out_strides.outer};
    xent_status status = check_matrix(&logits);
    if (status == XENT_OK && job->out)
        status = check_matrix(&out);
    if (status != XENT_OK)
        return status;
    if ((job->out && !in_place_or_apart(&logits, &out)) ||
        (job->lse && !apart(job->lse, rows * sizeof(float), job->logits, span(&logits))))
        return XENT_ERR_OVERLAP;
    job->memory = xent_choose_memory(job, span(&logits), span(&out));
    return XENT_OK;
}

/* Checks a call without targets, and has a kernel's function compute its rows. */
static xent_status run(void (*compute)(const struct xent_job *job, size_t first, size_t last), struct xent_job *job,
                       size_t rows)
{
    const xent_status status = prepare(job, rows);
    if (status != XENT_OK)
        return status;
    const uint64_t control = control_put_aside();
    compute(job, 0, rows);
    control_restore(control);
    return XENT_OK;
}

xent_status xent_logsumexp_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride, float *lse)
{
    struct xent_job job = {
        .classes = classes, .inner = 1, .logits = logits, .logits_strides = {logits_stride, 1, 0}, .lse = lse};
    return run(xent_active_kernel()->softmax, &job, rows);
}

xent_status xent_softmax_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride, float *probs,
                             size_t probs_stride)
{
    struct xent_job job = {.classes = classes,
                           .inner = 1,
                           .logits = logits,
                           .logits_strides = {logits_stride, 1, 0},
                           .out = probs,
                           .out_strides = {probs_stride, 1, 0}};
    return run(xent_active_kernel()->softmax, &job, rows);
}

xent_status xent_log_softmax_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride,
                                 float *log_probs, size_t log_probs_stride)
{
    struct xent_job job = {.classes = classes,
                           .inner = 1,
                           .logits = logits,
                           .logits_strides = {logits_stride, 1, 0},
                           .out = log_probs,
                           .out_strides = {log_probs_stride, 1, 0}};
    return run(xent_active_kernel()->log_softmax, &job, rows);
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
        return "a row stride is smaller than the number of classes, or dimensions of the gradient interlock";
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
