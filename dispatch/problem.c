/* The general call: a description checked once and made a job for the kernel in use. */
#include "problem.h"

#include "arguments.h"
#include "control.h"
#include "kernels/f64.h"
#include "kernels/kernel.h"
#include "run.h"
#include "select.h"
#include "weights.h"

/* An array of a problem as the caller gave it: [outer][extent][inner]. */
struct array {
    const void *data;
    size_t size; /* of an element, in bytes */
    size_t extent;
    xent_strides strides;
    size_t bytes; /* from the first element to the last */
};

/* a * b, or SIZE_MAX if that is more than there can be. Not by a division: twenty of them are a fifth of a short call.
 */
static size_t times(size_t a, size_t b)
{
    size_t product;
    return __builtin_mul_overflow(a, b, &product) || product > PTRDIFF_MAX ? SIZE_MAX : product;
}

static size_t plus(size_t a, size_t b)
{
    return a > PTRDIFF_MAX || b > PTRDIFF_MAX - a ? SIZE_MAX : a + b;
}

/* An array's strides and bytes, or its data NULL; false if it is larger than the address space. There are rows. */
static bool describe(struct array *a, const xent_problem *p, const void *data, size_t size, size_t extent,
                     const xent_strides *given)
{
    *a = (struct array){.data = data, .size = size, .extent = extent};
    if (!data)
        return true;
    const size_t plane = times(extent, p->inner);
    a->strides = given ? *given : (xent_strides){plane, p->inner, 1};
    const size_t last = plus(plus(times(p->outer - 1, a->strides.outer), times(extent - 1, a->strides.classes)),
                             times(p->inner - 1, a->strides.inner));
    a->bytes = times(plus(last, 1), size);
    if (p->outer == 1)
        a->strides.outer = a->strides.inner;
    if (extent == 1)
        a->strides.classes = 1;
    if (p->inner == 1)
        a->strides.inner = a->strides.outer;
    return a->bytes != SIZE_MAX && times(times(plane, p->outer), size) != SIZE_MAX;
}

/* Whether no two elements of an array share an address, for which it is enough that each dimension, by growing strides,
   steps over all that is within. */
static bool is_injective(const struct array *a, const xent_problem *p)
{
    struct dimension {
        size_t stride, count;
    } d[3] = {{a->strides.outer, p->outer}, {a->strides.classes, a->extent}, {a->strides.inner, p->inner}};
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j)
            if (d[j].stride > d[j + 1].stride) {
                const struct dimension swapped = d[j];
                d[j] = d[j + 1];
                d[j + 1] = swapped;
            }
    size_t reach = 0;
    for (int i = 0; i < 3; ++i) {
        if (d[i].count == 1)
            continue;
        if (d[i].stride <= reach)
            return false;
        reach += (d[i].count - 1) * d[i].stride;
    }
    return true;
}

static bool same_strides(const struct array *a, const struct array *b, const xent_problem *p)
{
    return (p->outer == 1 || a->strides.outer == b->strides.outer) &&
           (a->extent == 1 || a->strides.classes == b->strides.classes) &&
           (p->inner == 1 || a->strides.inner == b->strides.inner);
}

static bool arrays_apart(const struct array *a, const struct array *b)
{
    return !a->data || !b->data || apart(a->data, a->bytes, b->data, b->bytes);
}

/* The gradient is the logits themselves, or shares nothing with them. */
static bool grad_fits(const struct array *grad, const struct array *logits, const xent_problem *p)
{
    if (!grad->data || arrays_apart(grad, logits) || (grad->data == logits->data && same_strides(grad, logits, p)))
        return true;
    if (p->inner != 1 || grad->strides.classes != 1 || logits->strides.classes != 1)
        return false;
    const struct matrix g = {grad->data, grad->size, p->outer, grad->extent, grad->strides.outer};
    const struct matrix x = {logits->data, logits->size, p->outer, logits->extent, logits->strides.outer};
    return matrices_apart(&x, &g);
}

/* Every array of a problem: outputs first. */
enum {
    GRAD,
    LOSS,
    LSE,
    KEPT_ROWS,
    DENOMINATOR,
    OUTPUTS,
    LOGITS = OUTPUTS,
    TARGETS,
    PROBABILITIES,
    CLASS_WEIGHTS,
    ROW_WEIGHTS,
    DLOSS,
    ARRAYS
};

static bool outputs_apart(const struct array *arrays, const xent_problem *p)
{
    for (int out = 0; out < OUTPUTS; ++out) {
        if (!arrays[out].data)
            continue;
        for (int other = out + 1; other < ARRAYS; ++other)
            if (out == GRAD && other == LOGITS ? !grad_fits(&arrays[GRAD], &arrays[LOGITS], p)
                                               : !arrays_apart(&arrays[out], &arrays[other]))
                return false;
    }
    return true;
}

static size_t label_size(xent_targets type)
{
    switch (type) {
    case XENT_LABELS_I64:
        return sizeof(int64_t);
    case XENT_LABELS_U8:
        return sizeof(uint8_t);
    case XENT_LABELS_U16:
        return sizeof(uint16_t);
    default:
        return sizeof(int32_t);
    }
}

static bool describe_all(struct array *arrays, const xent_problem *p)
{
    const size_t size = p->dtype == XENT_F64 ? sizeof(double) : sizeof(float);
    const bool labels = p->target_type != XENT_PROBABILITIES;
    const size_t rows = times(p->outer, p->inner);
    bool fits = rows != SIZE_MAX;
    fits &= describe(&arrays[GRAD], p, p->grad, size, p->classes, p->grad_strides);
    fits &= describe(&arrays[LOSS], p, p->loss, size, 1, NULL);
    fits &= describe(&arrays[LSE], p, p->lse, size, 1, NULL);
    fits &= describe(&arrays[LOGITS], p, p->logits, size, p->classes, p->logits_strides);
    fits &= describe(&arrays[TARGETS], p, p->targets, labels ? label_size(p->target_type) : size,
                     labels ? p->labels : p->classes, p->targets_strides);
    fits &= describe(&arrays[PROBABILITIES], p, labels ? p->probabilities : NULL, size, p->labels,
                     p->probabilities_strides);
    fits &= describe(&arrays[ROW_WEIGHTS], p, p->row_weights, size, 1, p->row_weights_strides);
    fits &= describe(&arrays[DLOSS], p, p->dloss, size, 1, p->dloss_strides);
    arrays[KEPT_ROWS] = (struct array){.data = p->kept_rows, .bytes = sizeof *p->kept_rows};
    arrays[DENOMINATOR] = (struct array){.data = p->denominator, .bytes = sizeof *p->denominator};
    arrays[CLASS_WEIGHTS] = (struct array){.data = p->class_weights, .size = size, .bytes = times(p->classes, size)};
    if (p->reduction != XENT_NONE)
        arrays[LOSS].bytes = size;
    return fits;
}

static bool options_are_known(const xent_problem *p)
{
    return (p->dtype == XENT_F32 || p->dtype == XENT_F64) && (unsigned)p->target_type <= (unsigned)XENT_PROBABILITIES &&
           (p->target_type == XENT_PROBABILITIES || p->labels > 0) &&
           (p->reduction == XENT_MEAN || p->reduction == XENT_SUM || p->reduction == XENT_NONE) &&
           p->label_smoothing >= 0 && p->label_smoothing <= 1 &&
           (p->normalizer == 0 || (p->normalizer >= (double)FLT_MIN && p->normalizer <= (double)FLT_MAX)) &&
           (!p->executor || (p->executor->parallel_for && p->executor->threads > 0));
}

/* The job of a problem whose arrays are in order. Where rows lie next to each other they are taken as one dimension. */
static void make_job(struct xent_job *job, const xent_problem *p, const struct array *arrays)
{
    *job = (struct xent_job){
        .dtype = p->dtype,
        .classes = p->classes,
        .inner = p->inner,
        .logits = p->logits,
        .logits_strides = arrays[LOGITS].strides,
        .out = p->grad,
        .out_strides = arrays[GRAD].strides,
        .lse = p->lse,
        .target_type = p->target_type,
        .labels = p->labels,
        .targets = p->targets,
        .targets_strides = arrays[TARGETS].strides,
        .probabilities = arrays[PROBABILITIES].data,
        .probabilities_strides = arrays[PROBABILITIES].strides,
        .ignore_index = p->ignore_index,
        .loss = p->reduction == XENT_NONE ? p->loss : NULL,
        .class_weights = p->class_weights,
        .smoothing = p->label_smoothing / (double)p->classes,
        .target_weight = 1 - p->label_smoothing,
        .row_weights = p->row_weights,
        .row_weights_strides = arrays[ROW_WEIGHTS].strides,
        .dloss = p->dloss,
        .dloss_strides = arrays[DLOSS].strides,
    };
    job->memory = xent_choose_memory(job, arrays[LOGITS].bytes, arrays[GRAD].bytes);
    if (p->outer == 1 && xent_job_is_contiguous(job))
        job->inner = 1;
    const xent_strides *targets = &job->targets_strides;
    const bool packed =
        job->inner == 1 ? targets->outer == 1 : targets->inner == 1 && (p->outer == 1 || targets->outer == job->inner);
    if (packed && xent_job_has_plain_labels(job)) {
        job->targets8 = p->target_type == XENT_LABELS_U8 ? p->targets : NULL;
        job->targets16 = p->target_type == XENT_LABELS_U16 ? p->targets : NULL;
        job->targets32 = p->target_type == XENT_LABELS_I32 ? p->targets : NULL;
        job->targets64 = p->target_type == XENT_LABELS_I64 ? p->targets : NULL;
    }
}

static void store_loss(const xent_problem *p, double loss)
{
    if (p->dtype == XENT_F64)
        *(double *)p->loss = f64_canonical(loss);
    else
        *(float *)p->loss = f32_canonical(f64_to_f32(loss));
}

/* What is left to do once the rows are done, or if there are none. */
static void store_results(const xent_problem *p, const struct kept *kept, double sum)
{
    if (p->kept_rows)
        *p->kept_rows = kept->rows;
    if (p->denominator)
        *p->denominator = f64_canonical(kept->denominator);
    if (!p->loss || p->reduction == XENT_NONE)
        return;
    const double denominator = p->normalizer > 0 ? p->normalizer : kept->denominator;
    const bool empty = kept->rows == 0 && p->empty_mean_is_zero;
    store_loss(p, p->reduction == XENT_SUM || empty ? sum : sum / denominator);
}

NOINLINE xent_status xent_compute(const xent_problem *p, uint64_t control)
{
    if (!options_are_known(p))
        return XENT_ERR_OPTION;
    const bool empty = p->outer == 0 || p->inner == 0;
    if ((!p->loss && !p->grad && !p->lse && (!empty || p->reduction != XENT_NONE)) ||
        (!empty && (!p->logits || !p->targets)))
        return XENT_ERR_NULL;
    if (empty) {
        store_results(p, &(struct kept){0}, 0);
        return XENT_OK;
    }
    if (p->classes == 0)
        return XENT_ERR_CLASSES;
    struct array arrays[ARRAYS];
    if (!describe_all(arrays, p))
        return XENT_ERR_SIZE;
    if (p->grad && !is_injective(&arrays[GRAD], p))
        return XENT_ERR_STRIDE;
    if (!outputs_apart(arrays, p))
        return XENT_ERR_OVERLAP;

    struct xent_job job;
    make_job(&job, p, arrays);
    const size_t rows = p->outer * p->inner;
    if (job.class_weights && !xent_class_weights_are_good(&job))
        return XENT_ERR_OPTION;
    job.weights_sum = xent_class_weights_sum(&job);
    struct kept kept;
    if (!xent_count_kept(&job, rows, &kept)) {
        if (p->error_row)
            *p->error_row = kept.bad;
        return XENT_ERR_TARGET;
    }
    xent_weigh_kept(&job, rows, &kept);
    const double denominator = p->normalizer > 0 ? p->normalizer : kept.denominator;
    job.grad_scale = p->reduction != XENT_MEAN ? 1 : denominator != 0 ? 1 / denominator : 0;
    job.divisor = p->reduction != XENT_MEAN ? 1 : denominator;
    const struct workers workers = {p->executor, control};
    const double sum = xent_run_cross_entropy(xent_active_kernel(), &job, rows, &workers);
    store_results(p, &kept, sum);
    return XENT_OK;
}

xent_status xent_cross_entropy(const xent_problem *given)
{
    static const size_t older[] = {sizeof(xent_problem)};
    xent_problem problem = XENT_PROBLEM_INIT;
    if (!given)
        return XENT_ERR_NULL;
    if (!read_struct(given, given->struct_size, &problem, sizeof problem, older, 1))
        return XENT_ERR_OPTION;
    const uint64_t control = control_put_aside();
    const xent_status status = xent_compute(&problem, control);
    control_restore(control);
    return status;
}
