/*
 * Binary cross entropy: arguments checked, then elements handed to the kernel in use. Tasks take whole chunks of the
 * sum of docs/numerics.md, section 7, so that nothing that is computed depends on the cut.
 */
#include "xent/xent.h"

#include "arguments.h"
#include "control.h"
#include "kernels/f64.h"
#include "select.h"
#include "workers.h"

#include <math.h>
#include <stdbool.h>

enum {
    TASKS_PER_THREAD = 4 /* so that a slow thread does not leave the others waiting */
};

static xent_status read_options(const xent_bce_options *given, xent_bce_options *options)
{
    static const xent_bce_options defaults = XENT_BCE_OPTIONS_INIT;
    *options = defaults;
    if (!given)
        return XENT_OK;
    static const size_t older[] = {
        offsetof(xent_bce_options, logits_stride),     offsetof(xent_bce_options, targets_stride),
        offsetof(xent_bce_options, grad_stride),       offsetof(xent_bce_options, weights),
        offsetof(xent_bce_options, weight_row_stride), offsetof(xent_bce_options, weight_class_stride),
        offsetof(xent_bce_options, pos_weight),        offsetof(xent_bce_options, executor),
    };
    if (!read_struct(given, given->struct_size, options, sizeof *options, older, sizeof older / sizeof *older))
        return XENT_ERR_OPTION;
    if (options->reduction != XENT_MEAN && options->reduction != XENT_SUM && options->reduction != XENT_NONE)
        return XENT_ERR_OPTION;
    if (options->executor && (!options->executor->parallel_for || options->executor->threads == 0))
        return XENT_ERR_OPTION;
    return XENT_OK;
}

/* The bytes from the first weight to the last one; 0 if they are more than there can be. There is at least one. */
static size_t weight_bytes(const xent_bce_options *options, size_t rows, size_t classes)
{
    const size_t most = PTRDIFF_MAX / sizeof(float) - 1;
    const size_t row_stride = options->weight_row_stride, class_stride = options->weight_class_stride;
    if ((row_stride > 0 && rows - 1 > most / row_stride) || (class_stride > 0 && classes - 1 > most / class_stride))
        return 0;
    const size_t last = (rows - 1) * row_stride + (classes - 1) * class_stride;
    return last > most ? 0 : (last + 1) * sizeof(float);
}

/* A matrix with a single row or a single class may be taken as one row, whatever the stride that it does not use. */
static struct xent_plane plane(const float *data, size_t row_stride, size_t class_stride, size_t rows, size_t classes)
{
    if (classes == 1)
        class_stride = row_stride;
    if (rows == 1)
        row_stride = classes * class_stride;
    return (struct xent_plane){data, row_stride, class_stride};
}

struct tasks {
    const struct xent_kernel *kernel;
    const struct xent_bce_job *job;
    size_t elements, elements_per_task;
};

static void run_task(void *argument, size_t index)
{
    const struct tasks *tasks = argument;
    const size_t first = index * tasks->elements_per_task, left = tasks->elements - first;
    const size_t last = left < tasks->elements_per_task ? tasks->elements : first + tasks->elements_per_task;
    tasks->kernel->bce(tasks->job, first, last);
}

/* The sum of the unrounded losses. */
static double run(struct xent_bce_job *job, size_t elements, const struct workers *workers)
{
    const xent_executor *executor = workers->executor;
    double sums[XENT_CHUNKS];
    job->sums = sums;
    job->chunk = xent_chunk(elements);
    const size_t chunks = (elements - 1) / job->chunk + 1;
    size_t wanted = 1;
    if (executor)
        wanted = executor->threads < XENT_CHUNKS ? executor->threads * TASKS_PER_THREAD : XENT_CHUNKS;
    struct tasks tasks = {xent_active_kernel(), job, elements, ((chunks - 1) / wanted + 1) * job->chunk};
    if (tasks.elements_per_task < elements)
        xent_in_parallel(workers, run_task, &tasks, (elements - 1) / tasks.elements_per_task + 1);
    else
        tasks.kernel->bce(job, 0, elements);
    double sum = 0;
    for (size_t c = 0; c < chunks; ++c)
        sum += sums[c];
    return sum;
}

static float rounded(double v)
{
    const float result = f32_canonical(f64_to_f32(v));
    return result == 0 ? 0 : result;
}

static NOINLINE xent_status compute(const float *logits, const float *targets, size_t rows, size_t classes, float *loss,
                                    float *grad, const xent_bce_options *given, uint64_t control)
{
    xent_bce_options options;
    xent_status status = read_options(given, &options);
    if (status != XENT_OK)
        return status;
    const bool none = options.reduction == XENT_NONE;
    if ((!loss && (!none || rows > 0)) || (rows > 0 && (!logits || !targets)))
        return XENT_ERR_NULL;
    if (rows == 0) {
        if (!none)
            *loss = options.reduction == XENT_MEAN ? NAN : 0;
        return XENT_OK;
    }
    if (classes == 0)
        return XENT_ERR_CLASSES;

    const struct matrix x = {logits, sizeof(float), rows, classes,
                             options.logits_stride ? options.logits_stride : classes};
    const struct matrix t = {targets, sizeof(float), rows, classes,
                             options.targets_stride ? options.targets_stride : classes};
    const struct matrix g = {grad, sizeof(float), grad ? rows : 0, classes,
                             options.grad_stride ? options.grad_stride : classes};
    if ((status = check_matrix(&x)) != XENT_OK || (status = check_matrix(&t)) != XENT_OK ||
        (grad && (status = check_matrix(&g)) != XENT_OK))
        return status;
    const size_t w_bytes = options.weights ? weight_bytes(&options, rows, classes) : 0;
    if (options.weights && w_bytes == 0)
        return XENT_ERR_SIZE;

    const size_t elements = rows * classes, p_bytes = options.pos_weight ? classes * sizeof(float) : 0;
    const size_t g_bytes = span(&g), loss_bytes = (none ? elements : 1) * sizeof *loss;
    if ((grad && (!in_place_or_apart(&x, &g) || !matrices_apart(&t, &g))) ||
        !apart(grad, g_bytes, options.weights, w_bytes) || !apart(grad, g_bytes, options.pos_weight, p_bytes) ||
        !apart(loss, loss_bytes, grad, g_bytes) || !apart(loss, loss_bytes, logits, span(&x)) ||
        !apart(loss, loss_bytes, targets, span(&t)) || !apart(loss, loss_bytes, options.weights, w_bytes) ||
        !apart(loss, loss_bytes, options.pos_weight, p_bytes))
        return XENT_ERR_OVERLAP;

    const struct xent_plane out = plane(grad, g.stride, 1, rows, classes);
    struct xent_bce_job job = {
        .classes = classes,
        .logits = plane(logits, x.stride, 1, rows, classes),
        .targets = plane(targets, t.stride, 1, rows, classes),
        .weights = plane(options.weights, options.weight_row_stride, options.weight_class_stride, rows, classes),
        .pos_weight = plane(options.pos_weight, 0, 1, rows, classes),
        .grad = grad,
        .grad_row_stride = out.row_stride,
        .grad_class_stride = out.class_stride,
        .loss = none ? loss : NULL,
        .grad_scale = options.reduction == XENT_MEAN ? 1 / (double)elements : 1,
    };
    const struct workers workers = {options.executor, control};
    const double sum = run(&job, elements, &workers);
    if (!none)
        *loss = rounded(options.reduction == XENT_MEAN ? sum / (double)elements : sum);
    return XENT_OK;
}

xent_status xent_bce_f32(const float *logits, const float *targets, size_t rows, size_t classes, float *loss,
                         float *grad, const xent_bce_options *options)
{
    const uint64_t control = control_put_aside();
    const xent_status status = compute(logits, targets, rows, classes, loss, grad, options, control);
    control_restore(control);
    return status;
}
