/*
 * xent: fused, numerically stable softmax cross entropy and log-sum-exp.
 *
 * For a row x of C logits with target class y,
 *
 *     lse(x) = log(sum_j exp(x_j))
 *     loss   = lse(x) - x_y
 *     dloss/dx_j = softmax(x)_j - [j == y]
 *
 * What every function here promises
 *
 * Accuracy. A row's loss is within 2 ULP of the exact value and every gradient entry within 3 ULP, for every finite
 * input: neither is computed as a difference of two large numbers. A loss or gradient of 0 means that the exact value
 * rounds to 0 (or lies within those bounds of it). docs/numerics.md derives the bounds, 1.6 and 2.7 ULP. Where a target
 * has several classes (label smoothing, probabilities) terms may cancel, and the bounds are relative to them: see each
 * function.
 *
 * Bits. The bits of a row's results depend on that row's logits, its target and the options (a mean's gradient also on
 * its denominator), and on nothing else: not on the instruction set, the batch the row came in, its address, its
 * strides, the number of threads, or whether the gradient goes in place. Every NaN is 0x7fc00000.
 * XENT_NUMERICS_VERSION changes whenever any of these bits do.
 *
 * Special values. A logit of -inf is a masked class: probability 0, and where its share t of the target is 0 gradient 0
 * and no part in the loss; else the loss is +inf and its gradient -t, as with label smoothing in PyTorch. A row
 * that holds a NaN or +inf, or nothing but -inf, has a NaN loss and a NaN gradient; other rows are untouched by it.
 * An ignored row's loss is 0 and its gradient +0, whatever its logits hold: they are not read, unless rows are
 * neighbours of each other, as in images, and kept ones are near.
 *
 * Errors. A call either succeeds whole or returns a status having written no output (error_row aside). Nothing is
 * read outside the rows, no errno is set, nothing is printed, nothing is allocated.
 *
 * Threads and signals. Every function may be called from many threads at once, after fork and from a signal handler.
 * The only shared state is which kernel is in use, and what the environment said at the first call.
 *
 * Floating-point environment. The control bits (MXCSR, FPCR) are the caller's, and are left as they are. They change no
 * bit of any result, and no exception is a trap: flush-to-zero, denormals-are-zero, the rounding mode and enabled traps
 * are put aside while a call computes, by an executor's threads for each task. Exception flags may be raised, whatever
 * the input.
 */
#ifndef XENT_XENT_H
#define XENT_XENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef XENT_NAMESPACE
#include "namespace.h"
#endif

#define XENT_VERSION_MAJOR 0
#define XENT_VERSION_MINOR 1
#define XENT_VERSION_PATCH 0

/* Changes whenever any result changes by a bit. */
#define XENT_NUMERICS_VERSION 4

#if defined(__GNUC__) && !defined(XENT_API)
#define XENT_API __attribute__((visibility("default")))
#elif !defined(XENT_API)
#define XENT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum xent_status {
    XENT_OK = 0,
    XENT_ERR_NULL = 1,           /* a required pointer is NULL */
    XENT_ERR_CLASSES = 2,        /* classes is 0 while there are rows */
    XENT_ERR_STRIDE = 3,         /* a row stride is smaller than classes, or dimensions of a gradient interlock */
    XENT_ERR_SIZE = 4,           /* the array would be larger than the address space */
    XENT_ERR_OVERLAP = 5,        /* an output overlaps another array without being exactly in place */
    XENT_ERR_TARGET = 6,         /* a target is neither in [0, classes) nor ignore_index; see error_row */
    XENT_ERR_OPTION = 7,         /* an option has a value outside its range, or struct_size is wrong */
    XENT_ERR_ISA_UNKNOWN = 8,    /* xent_select: no kernel of that name in this build */
    XENT_ERR_ISA_UNAVAILABLE = 9 /* xent_select: this CPU or its operating system cannot run that kernel */
} xent_status;

typedef enum xent_reduction {
    XENT_MEAN = 0, /* sum of the kept rows' losses / their number; NaN if no row is kept, as in PyTorch */
    XENT_SUM = 1,  /* sum of the kept rows' losses */
    XENT_NONE = 2  /* one loss per row, 0 for an ignored row */
} xent_reduction;

#define XENT_MAX_CLASS_WEIGHT 1152921504606846976.0f /* 2^60 */

/*
 * Where a call may run its tasks: the caller's own thread pool. xent/openmp.h and xent/pthreadpool.h are two of them.
 *
 * parallel_for(context, task, argument, tasks) calls task(argument, i) once for every i in [0, tasks), in any order, on
 * any threads, at once or one after the other, and returns when all have returned. A call to this library uses it from
 * the thread that made the call, once, or, where threads share the classes of long rows, up to three times for each
 * group of rows, and keeps nothing of it. Results never depend on it. It must not throw.
 */
typedef struct xent_executor {
    void (*parallel_for)(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks);
    void *context;
    size_t threads; /* how many tasks can run at once, at least 1: work is cut into a few times as many */
} xent_executor;

/*
 * Start from XENT_OPTIONS_INIT and set what you need; a field added by a later version is then at its default.
 */
typedef struct xent_options {
    size_t struct_size;         /* sizeof(xent_options): lets the struct grow without breaking callers */
    xent_reduction reduction;   /* XENT_MEAN */
    int64_t ignore_index;       /* -100. Rows with this target are left out; compared before the range check, so it may
                                   also lie inside [0, classes) */
    size_t logits_stride;       /* elements from one row of logits to the next; 0: classes */
    size_t grad_stride;         /* the same for grad; 0: classes */
    float label_smoothing;      /* 0. In [0, 1]: the part of a target that is spread evenly over all classes */
    const float *class_weights; /* [classes] in [0, XENT_MAX_CLASS_WEIGHT], or NULL: all 1. See "targets" below */
    float *lse;                 /* [rows] or NULL: receives the log-sum-exp of every kept row, +0 for an ignored row */
    size_t *error_row;          /* NULL, or receives the first bad row when the status is XENT_ERR_TARGET; otherwise
                                   not written */
    const xent_executor *executor; /* NULL: all work is done by the calling thread */
} xent_options;

#ifdef __cplusplus
#define XENT_OPTIONS_INIT                                                                                              \
    {                                                                                                                  \
        sizeof(xent_options), XENT_MEAN, -100, 0, 0, 0.0f, nullptr, nullptr, nullptr, nullptr                          \
    }
#else
#define XENT_OPTIONS_INIT                                                                                              \
    {                                                                                                                  \
        sizeof(xent_options), XENT_MEAN, -100, 0, 0, 0.0f, NULL, NULL, NULL, NULL                                      \
    }
#endif

/*
 * Cross entropy of each row with its target class, and the gradient with respect to the logits.
 *
 *   logits   [rows][classes], rows logits_stride elements apart; may be NULL only if rows is 0
 *   targets  [rows], class indices or ignore_index; may be NULL only if rows is 0
 *   loss     1 value for XENT_MEAN and XENT_SUM, rows values for XENT_NONE
 *   grad     [rows][classes], rows grad_stride elements apart: d loss / d logits. With mean and sum it is the gradient
 *            of the reduced loss, with none that of each row's own loss. NULL: forward only. It may be the logits
 *            themselves with the same stride (in place: the fastest); otherwise disjoint from every input. Elements
 *            between the rows of a strided grad are not touched.
 *   options  NULL: XENT_OPTIONS_INIT, which is PyTorch's defaults
 *
 * Targets. With label smoothing a and class weights w a row's target distribution is t_j = w_j (a/classes + (1 - a) [j
 * == y]), and
 *
 *     loss = sum_j t_j (lse - x_j),      dloss/dx_j = (sum_k t_k) softmax(x)_j - t_j
 *
 * as in torch.nn.CrossEntropyLoss; a mean divides the sum of the losses by the sum of w_y over the kept rows. Where
 * that sum is 0 the mean is NaN or infinite, and the gradient of its finite rows 0 (PyTorch's is NaN). A class of
 * weight 0 counts nothing, also if its logit is -inf.
 *
 * Any element-aligned address does. rows may be 0: the sum is 0, the mean NaN, nothing else is written.
 *
 * Error bounds: loss 2 ULP, gradient 3 ULP, a reduced loss 2 ULP of the exact sum or mean; lse 1.5 * 2^-24 absolute
 * plus half an ULP. With label smoothing, where terms may cancel: loss (2^-23 + 2^-48 max_j |x_j|) sum_j t_j more, a
 * gradient entry 4.2 ULP of the larger of its two terms. Sums over rows are accumulated in double in an order that only
 * the number of rows decides.
 *
 * Cost: one read of the logits from memory for a forward; for a fused call in place one read and one write.
 */
XENT_API xent_status xent_fused_f32(const float *logits, const int32_t *targets, size_t rows, size_t classes,
                                    float *loss, float *grad, const xent_options *options);

/* The same with 64-bit targets. */
XENT_API xent_status xent_fused_f32_i64(const float *logits, const int64_t *targets, size_t rows, size_t classes,
                                        float *loss, float *grad, const xent_options *options);

/*
 * The general call: one description of a softmax cross entropy, whatever its layout, its targets and the outputs
 * wanted. xent_fused_f32 fills in a part of it.
 *
 * Shape. A problem has outer * inner rows of so many classes; row number i * inner + k is (i, k). [N][C] is outer = N,
 * inner = 1; a single row [C] is outer = inner = 1; images [N][C][H][W] are outer = N, inner = H * W, in place.
 *
 * Strides, in elements. Element (i, j, k) of an array, j being a class, is at i * outer + j * classes + k * inner of
 * its strides. NULL: an array without gaps in the order [outer][classes][inner], or [outer][inner] if it has one number
 * a row. Examples: a vocabulary padded to P: {P, 1, 0}; channels-last images: {H * W * C, 1, C}; one number for all
 * rows: {0, 0, 0}. A stride of a dimension of size 1 does not matter.
 */
typedef struct xent_strides {
    size_t outer, classes, inner;
} xent_strides;

/* The type of logits, gradient, loss, lse, probabilities, weights and dloss, which is one and the same. */
typedef enum xent_dtype {
    XENT_F32 = 0, /* float */
    XENT_F64 = 1  /* double */
} xent_dtype;

/*
 * What the targets of a row are.
 *
 * With one or more labels a row's target is a distribution over them: probability i of a row, 1 if probabilities is
 * NULL, goes to the class whose index is label i. The same class may come twice; a label equal to ignore_index is left
 * out; a row of which all labels are left out is ignored. Labels are plain targets where there is one and no
 * probabilities.
 */
typedef enum xent_targets {
    XENT_LABELS_I32 = 0,   /* int32_t class indices, [outer][inner] or [outer][labels][inner] */
    XENT_LABELS_I64 = 1,   /* int64_t */
    XENT_LABELS_U8 = 2,    /* uint8_t */
    XENT_LABELS_U16 = 3,   /* uint16_t */
    XENT_PROBABILITIES = 4 /* a probability for every class, of type dtype, in the shape of the logits. They need not
                              sum to 1; any finite numbers do */
} xent_targets;

/* Start from XENT_PROBLEM_INIT and set what you need. */
typedef struct xent_problem {
    size_t struct_size; /* sizeof(xent_problem) */
    xent_dtype dtype;   /* XENT_F32 */

    size_t outer, classes, inner; /* 0, 0, 1 */
    const void *logits;
    const xent_strides *logits_strides;
    void *grad; /* or NULL. d loss / d logits; may be the logits with the same strides (in place), else apart from every
                   input. Elements between those that its strides reach are not touched */
    const xent_strides *grad_strides;

    xent_targets target_type;            /* XENT_LABELS_I32 */
    size_t labels;                       /* 1. How many labels a row has. XENT_PROBABILITIES: not looked at */
    const void *targets;                 /* labels or probabilities */
    const xent_strides *targets_strides; /* of labels, classes is the stride from one label of a row to the next */
    const void *probabilities;           /* NULL, or those of the labels, of type dtype */
    const xent_strides *probabilities_strides; /* classes is again that from one label to the next */

    int64_t ignore_index;      /* -100. Labels only */
    double label_smoothing;    /* 0. In [0, 1] */
    const void *class_weights; /* NULL, or [classes] in [0, XENT_MAX_CLASS_WEIGHT] */
    const void *row_weights;   /* NULL, or a factor r for each row's loss. A row of weight 0 is ignored, but its labels
                                  must be good */
    const xent_strides *row_weights_strides;
    const void *dloss; /* NULL, or a factor for each row's gradient: the derivative of what comes after by this loss.
                          Finite; NaN makes the gradient of a row NaN, an infinite one infinite, NaN or 0 */
    const xent_strides *dloss_strides;

    xent_reduction reduction; /* XENT_MEAN */
    double normalizer;        /* 0, or what a mean divides by in place of its own denominator: a global count of tokens.
                                 In [FLT_MIN, FLT_MAX] */
    int empty_mean_is_zero;   /* 0. Otherwise: the mean of no rows is 0, not NaN. (With a normalizer it is 0 anyway) */

    void *loss;        /* 1 value for XENT_MEAN and XENT_SUM; [outer][inner] for XENT_NONE. NULL: not wanted */
    void *lse;         /* NULL, or receives [outer][inner]: the log-sum-exp of every kept row, +0 for an ignored one */
    size_t *kept_rows; /* NULL, or receives the number of rows that are not ignored */
    double *denominator; /* NULL, or receives what a mean divides by if there is no normalizer */
    size_t
        *error_row; /* NULL, or receives the first bad row when the status is XENT_ERR_TARGET; otherwise not written */

    const xent_executor *executor; /* NULL: all work is done by the calling thread */
} xent_problem;

#ifdef __cplusplus
#define XENT_NULL nullptr
#else
#define XENT_NULL NULL
#endif

#define XENT_PROBLEM_INIT                                                                                              \
    {                                                                                                                  \
        sizeof(xent_problem), XENT_F32, 0, 0, 1, XENT_NULL, XENT_NULL, XENT_NULL, XENT_NULL, XENT_LABELS_I32, 1,       \
            XENT_NULL, XENT_NULL, XENT_NULL, XENT_NULL, -100, 0.0, XENT_NULL, XENT_NULL, XENT_NULL, XENT_NULL,         \
            XENT_NULL, XENT_MEAN, 0.0, 0, XENT_NULL, XENT_NULL, XENT_NULL, XENT_NULL, XENT_NULL, XENT_NULL             \
    }

/*
 * Computes what the problem asks for: loss, gradient, or both.
 *
 * A kept row has a distribution t over the classes. With label smoothing a, class weights w, its row weight r and its
 * probabilities q (those of its labels, or of all classes),
 *
 *     t_j = r w_j (a/classes + (1 - a) q_j)
 *     loss = sum_j t_j (lse - x_j)
 *     gradient_j = dloss (sum_k t_k softmax(x)_j - t_j)
 *
 * A term with t_j = 0 is 0, also if x_j is -inf. A mean divides loss and gradient by its denominator: for plain labels
 * (one a row, without probabilities) the sum of r w_y over the kept rows, and otherwise the sum of their r, as in
 * PyTorch. Where the denominator is 0 the mean is what IEEE arithmetic makes of it, and its gradient 0.
 *
 * Backward and forward apart: a call without grad is the forward, one without loss and with dloss the backward; its
 * gradient has the bits of a fused call's. It computes the log-sum-exp again, from the logits: lse in 24 bits would be
 * too coarse for gradients within 3 ULP.
 *
 * Errors. As for xent_fused_f32, and: XENT_ERR_NULL if neither loss, grad nor lse is wanted (unless there are no rows
 * and no reduction), XENT_ERR_OPTION for unknown types and for no labels. XENT_ERR_STRIDE: two elements of grad could
 * share an address; by growing strides, each dimension must step over all that is within it. Inputs may overlap
 * themselves.
 * XENT_ERR_OVERLAP is decided from the first to the last element of an array (but with inner 1, neighbouring classes
 * and equal row strides rows of grad may lie in the gaps between those of logits).
 *
 * Error bounds. Those of xent_fused_f32; with row weights of both signs a reduced loss is relative to the sum of the
 * rows' magnitudes. With more than one class in t, or XENT_PROBABILITIES of which none is above 1/2, terms may cancel:
 * loss (2^-23 + 2^-48 max_j |x_j|) sum_j |t_j| more, which can make it less than 0, a gradient entry 4.2 ULP of the
 * larger of its two terms (with t_j of both signs, of the sum of |t_k softmax(x)_j| and |t_j|). The parts of t_j, those
 * of labels and of smoothing, are taken one by one: if a probability is negative, |t_j| is the sum of their magnitudes,
 * and where they have both signs and x_j is -inf, the loss is NaN. A softmax(x)_j below 2^-276 may count as 0, however
 * large t is; r a/classes and r (1 - a) must not be subnormal doubles.
 *
 * XENT_F64. For plain labels, with or without class weights, row weights and dloss, the same numbers in ULP of double:
 * loss 2 (also a sum or mean), gradient 3; lse 2^-53 absolute plus half an ULP. Where t has more than one class: loss
 * 8 * 2^-53 sum_j |t_j| (lse - x_j), so 8 ULP unless t_j are negative, a gradient entry 8 * 2^-53 of the larger of its
 * two terms; with t_j made of terms of both signs, of the sums of these terms' absolute values. A mean is relative to
 * its denominator, which is rounded itself where it is a sum of weights. A softmax(x)_j below 2^-1803 counts as 0;
 * where the largest logit's class has no positive share by a label or probability, an lse - x_j below 2^-1022 is in
 * subnormal numbers. Losses, and sums of them, must not overflow before they are weighted or divided. With
 * XENT_PROBABILITIES and smoothing t_j is one number, whose sign decides what an x_j of -inf makes of the loss. All
 * else is as for floats.
 *
 * Cost. Rows take the time of memory and of arithmetic
 *   - where the classes of a row are neighbours (several labels cost some 30 to 100 ns a row more);
 *   - where rows are neighbours for each class, as in images, if targets are plain labels: up to 96 classes with every
 *     option, more without label smoothing, whose gradients form exponentials a second time;
 *   - where they are, and there is a probability for each of up to 64 classes, stored likewise.
 * All others are copied, a few at a time, to where classes are neighbours, and take two to seven times as long; of more
 * than 12272 classes (XENT_PROBABILITIES: 6128) they are taken number by number, at some 20 to 50 ns for a forward and
 * 40 to 110 with a gradient. XENT_F64 takes five to ten times as long as floats, and collects numbers one by one where
 * neither classes nor rows are neighbours. Up to 64 KB of stack are needed, 120 KB where classes are not neighbours.
 */
XENT_API xent_status xent_cross_entropy(const xent_problem *problem);

/*
 * lse[i] = log(sum_j exp(logits[i * logits_stride + j])). logits_stride 0: classes. lse [rows], disjoint from logits.
 * Within 1.5 * 2^-24 absolute plus half an ULP. A row of only -inf gives NaN here too, not -inf.
 */
XENT_API xent_status xent_logsumexp_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride,
                                        float *lse);

/*
 * Probabilities exp(x_j - lse(x)), within 3 ULP. probs may be logits with the same stride (in place), else disjoint.
 * A stride of 0 means classes.
 */
XENT_API xent_status xent_softmax_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride,
                                      float *probs, size_t probs_stride);

/*
 * Log-probabilities x_j - lse(x), within 3 ULP, also for the class whose probability is nearly 1. log_probs may be
 * logits with the same stride (in place), else disjoint. A stride of 0 means classes.
 */
XENT_API xent_status xent_log_softmax_f32(const float *logits, size_t rows, size_t classes, size_t logits_stride,
                                          float *log_probs, size_t log_probs_stride);

/*
 * Options of xent_bce_f32: start from XENT_BCE_OPTIONS_INIT and set what you need.
 */
typedef struct xent_bce_options {
    size_t struct_size;         /* sizeof(xent_bce_options) */
    xent_reduction reduction;   /* XENT_MEAN: over all rows * classes elements, whatever their weights */
    size_t logits_stride;       /* elements from one row of logits to the next; 0: classes */
    size_t targets_stride;      /* the same for targets; 0: classes */
    size_t grad_stride;         /* the same for grad; 0: classes */
    const float *weights;       /* NULL, or w_ij = weights[i * weight_row_stride + j * weight_class_stride] */
    size_t weight_row_stride;   /* 0: the same weights in every row */
    size_t weight_class_stride; /* 0: the same weight for every class. So [classes] has strides 0 and 1, [rows] 1 and 0,
                                   [rows][classes] classes and 1, a single weight 0 and 0 */
    const float *pos_weight;    /* NULL, or [classes]: p_j, the weight of a class's positive targets */
    const xent_executor *executor; /* NULL: all work is done by the calling thread */
} xent_bce_options;

#ifdef __cplusplus
#define XENT_BCE_OPTIONS_INIT                                                                                          \
    {                                                                                                                  \
        sizeof(xent_bce_options), XENT_MEAN, 0, 0, 0, nullptr, 0, 0, nullptr, nullptr                                  \
    }
#else
#define XENT_BCE_OPTIONS_INIT                                                                                          \
    {                                                                                                                  \
        sizeof(xent_bce_options), XENT_MEAN, 0, 0, 0, NULL, 0, 0, NULL, NULL                                           \
    }
#endif

/*
 * Binary cross entropy of each logit with a target of its own, and the gradient with respect to the logits: as many
 * yes-or-no questions as there are elements. It is what torch.nn.BCEWithLogitsLoss computes. With
 * softplus(x) = log(1 + exp(x)) and sigmoid(x) = 1 / (1 + exp(-x)),
 *
 *     loss_ij     = w_ij (p_j t_ij softplus(-x_ij) + (1 - t_ij) softplus(x_ij))
 *     dloss/dx_ij = w_ij ((1 - t_ij) sigmoid(x_ij) - p_j t_ij sigmoid(-x_ij))
 *
 *   logits   [rows][classes], rows logits_stride elements apart; may be NULL only if rows is 0
 *   targets  [rows][classes], rows targets_stride elements apart: 0, 1 or any number between, or beyond (the formula is
 *            linear in t and is applied to whatever is there); may be NULL only if rows is 0
 *   loss     1 value for XENT_MEAN and XENT_SUM; [rows][classes] without gaps for XENT_NONE, whatever the strides
 *   grad     [rows][classes], rows grad_stride elements apart: d loss / d logits. With mean and sum it is the gradient
 *            of the reduced loss, with none that of each element's own loss. NULL: forward only. It may be the logits
 *            themselves with the same stride (in place); otherwise disjoint from every input. Elements between the
 *            rows of a strided grad are not touched.
 *   options  NULL: XENT_BCE_OPTIONS_INIT, which is PyTorch's defaults
 *
 * No output may overlap another array but grad the logits; inputs may overlap each other. From weights everything
 * between the first and the last one used counts as theirs. Any element-aligned address does. rows may be 0: the sum is
 * 0, the mean NaN, nothing else is written. Statuses are those of xent_fused_f32, but no target is ever bad.
 *
 * n elements may be one row of n classes, n rows of one class or anything between: results and cost are the same.
 *
 * Error bounds, for targets in [0, 1] and weights that are not negative: loss 2 ULP, gradient 3 ULP, a reduced loss
 * 2 ULP of the exact sum or mean. The gradient of a soft target is a difference a - b of the two terms above, and 0
 * where sigmoid(x) = p t / (1 - t + p t): its bound holds where |a - b| >= 2^-26 (a + b), and so everywhere for t = 0
 * and t = 1; closer to that zero the error is at most 2^-49 (a + b) and half an ULP. Other targets and weights of both
 * signs make such a difference of the loss and of the reduced loss too, and bounds of the same kind hold.
 *
 * Special values. A term whose coefficient, w p t or w (1 - t), is exactly 0 is 0 even if its softplus is infinite. A
 * logit of +inf has loss 0 and gradient 0 for t = 1, loss +inf and gradient w for t = 0; -inf has loss 0 and gradient 0
 * for t = 0, loss +inf and gradient -w p for t = 1. A loss or gradient of zero is always +0. An element with a NaN for
 * its logit, target or a weight has a NaN loss and a NaN gradient and makes the reduced loss NaN; no other element
 * notices. Infinite targets and weights give what IEEE arithmetic makes of the formula, mostly NaN.
 *
 * Bits. The bits of an element's results depend on its logit, target and weights, the gradient's with XENT_MEAN on
 * rows * classes too, and those of a reduced loss on the elements in their order, row by row. Nothing else matters: not
 * the instruction set, strides, addresses, the executor, the division into rows, or whether the gradient goes in place
 * or is asked for. A weight of 1 is the same as none.
 *
 * Threads and signals: as for every function here. Cost: one read of each array and one write of grad; the arithmetic,
 * in double, takes longer than they do.
 */
XENT_API xent_status xent_bce_f32(const float *logits, const float *targets, size_t rows, size_t classes, float *loss,
                                  float *grad, const xent_bce_options *options);

/* A sentence for a status; never NULL. */
XENT_API const char *xent_status_string(xent_status status);

/* The name of the kernel in use: "avx512", "avx2", "neon" or "scalar". */
XENT_API const char *xent_isa(void);

/*
 * Use the named kernel for all later calls of the process. Without this call the first use picks the fastest one that
 * this CPU can run; the environment variable XENT_ISA, read once at that moment, can only lower that choice (an
 * unknown or unavailable name there has no effect).
 *
 * Another variable, XENT_OVERLAP, read once by the first call, changes no result but how data moves:
 *
 *     0  nothing: the CPU's prefetchers and caches see to it
 *     1  (Zen 3's default) rows of 160 and more classes, or 512 where the gradient goes over the logits, are fetched
 *        ahead, and the second pass over a row goes beside the first one over the next; images whose planes are a
 *        multiple of 4 KB apart are read plane by plane
 *     2  (Intel's) as 1, for all rows and images where it pays; logits of 8 MB and more are fetched from eight pages at
 *        once, and gradients and probabilities of as much, if not in place, go past the caches
 *     3  as 2 at any size: for tests
 *     4  (Zen 4's) as 0, but such gradients of images and of rows of up to 127 classes go past the caches
 *     5  (Zen 5's) as 2, but lines are fetched two to four pages before they are used, and in no other way
 *     6  as 5 at any size: for tests
 *
 * All other CPUs have 0.
 */
XENT_API xent_status xent_select(const char *isa);

/* NULL-terminated names of the kernels that this build and this CPU can run, fastest first. Ends with "scalar". */
XENT_API const char *const *xent_isas(void);

/* NULL-terminated names of every kernel in this build, whether or not this CPU can run it, fastest first. */
XENT_API const char *const *xent_built_isas(void);

/* The first feature that a kernel needs and this CPU or its operating system lacks ("avx512f"); "" if the kernel can
   run. NULL: no such kernel in this build. */
XENT_API const char *xent_isa_missing(const char *isa);

/* The version of the library in use: XENT_VERSION_MAJOR * 10000 + XENT_VERSION_MINOR * 100 + XENT_VERSION_PATCH. */
XENT_API int xent_version(void);

/* The XENT_NUMERICS_VERSION of the library in use. */
XENT_API int xent_numerics_version(void);

#ifdef __cplusplus
}
#endif

#endif
