/* Fuzzes the simple calls: xent_fused_f32 with both types of target, softmax, log-softmax, log-sum-exp. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

enum operation { FUSED, FUSED_I64, SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, OPERATIONS };

struct problem {
    enum operation operation;
    size_t rows, classes, stride, out_stride;
    const float *logits;
    const void *targets;
    float *out, *loss, *lse;
    xent_options options;
    bool no_options;
};

static xent_status call(void *context, const xent_executor *executor)
{
    struct problem *p = context;
    p->options.executor = executor;
    const xent_options *options = p->no_options ? NULL : &p->options;
    switch (p->operation) {
    case FUSED:
        return xent_fused_f32(p->logits, p->targets, p->rows, p->classes, p->loss, p->out, options);
    case FUSED_I64:
        return xent_fused_f32_i64(p->logits, p->targets, p->rows, p->classes, p->loss, p->out, options);
    case SOFTMAX:
        return xent_softmax_f32(p->logits, p->rows, p->classes, p->stride, p->out, p->out_stride);
    case LOG_SOFTMAX:
        return xent_log_softmax_f32(p->logits, p->rows, p->classes, p->stride, p->out, p->out_stride);
    default:
        return xent_logsumexp_f32(p->logits, p->rows, p->classes, p->stride, p->lse);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t ignored[] = {-100, -1, 0, 1, INT32_MIN, INT32_MAX, INT64_MIN, INT64_MAX, (int64_t)1 << 32};
    struct fuzz_input in = fuzz_open(data, size);
    struct fuzz_case c = {.count = 0};
    struct problem p = {.operation = (enum operation)fuzz_below(&in, OPERATIONS),
                        .rows = fuzz_size(&in),
                        .classes = fuzz_size(&in),
                        .options = XENT_OPTIONS_INIT};
    const size_t threads = 1 + fuzz_below(&in, 20), offset = fuzz_below(&in, 16);
    p.stride = fuzz_row_stride(&in, p.classes);
    const bool in_place = fuzz_one_in(&in, 3), no_out = fuzz_one_in(&in, 8), vast = fuzz_one_in(&in, 64);
    p.out_stride = in_place ? p.stride : fuzz_row_stride(&in, p.classes);
    while (fuzz_row_elements(p.rows, p.classes, p.stride) > 40000 ||
           fuzz_row_elements(p.rows, p.classes, p.out_stride) > 40000)
        p.rows /= 2;

    const size_t count = offset + fuzz_row_elements(p.rows, p.classes, p.stride);
    float *logits = fuzz_add(&c, FUZZ_F32, count * sizeof(float), in_place);
    fuzz_fill(&in, logits, FUZZ_F32, count, FUZZ_ANY);
    p.logits = logits + offset;
    if (in_place)
        p.out = logits + (fuzz_one_in(&in, 32) ? 0 : offset);
    else if (!no_out)
        p.out = fuzz_add(&c, FUZZ_F32, fuzz_row_elements(p.rows, p.classes, p.out_stride) * sizeof(float), true);

    size_t bad = SIZE_MAX;
    if (p.operation <= FUSED_I64) {
        const bool wide = p.operation == FUSED_I64;
        xent_options *o = &p.options;
        o->reduction = fuzz_reduction(&in);
        o->ignore_index = fuzz_one_in(&in, 3) ? ignored[fuzz_below(&in, sizeof ignored / sizeof *ignored)] : -100;
        o->logits_stride = p.stride;
        o->grad_stride = p.out_stride;
        o->label_smoothing = fuzz_one_in(&in, 3) ? (float)fuzz_double(&in, false) * (fuzz_one_in(&in, 32) ? 2 : 1) : 0;
        if (fuzz_one_in(&in, 3)) {
            float *weights = fuzz_add(&c, FUZZ_F32, p.classes * sizeof(float), false);
            fuzz_fill(&in, weights, FUZZ_F32, p.classes, fuzz_one_in(&in, 16) ? FUZZ_ANY : FUZZ_WEIGHTS);
            o->class_weights = weights;
        }
        if (fuzz_one_in(&in, 2))
            o->lse = fuzz_add(&c, FUZZ_F32, p.rows * sizeof(float), true);
        if (fuzz_one_in(&in, 2))
            o->error_row = &bad;
        p.loss = fuzz_add(&c, FUZZ_F32, (o->reduction == XENT_NONE ? p.rows : 1) * sizeof(float), true);
        void *targets = fuzz_add(&c, FUZZ_BYTES, p.rows * (wide ? sizeof(int64_t) : sizeof(int32_t)), false);
        fuzz_labels(&in, targets, wide ? XENT_LABELS_I64 : XENT_LABELS_I32, p.rows, p.classes, o->ignore_index,
                    fuzz_one_in(&in, 8) ? 1 + (unsigned)fuzz_below(&in, 3) : 0);
        p.targets = targets;
        p.no_options = o->reduction == XENT_MEAN && p.stride == 0 && p.out_stride == 0 && fuzz_one_in(&in, 4);
    } else if (p.operation == LOGSUMEXP) {
        p.lse = fuzz_add(&c, FUZZ_F32, p.rows * sizeof(float), true);
        if (fuzz_one_in(&in, 32)) { /* on top of the logits, or before them */
            p.lse = logits;
            c.arrays[0].output = true;
        }
    }
    if (fuzz_one_in(&in, 64))
        p.logits = NULL;
    if (vast && p.classes > 0)
        p.rows = SIZE_MAX / 2;

    fuzz_describe("operation %d, %zu x %zu, strides %zu and %zu, in place %d, reduction %d, smoothing %g, weights %d",
                  (int)p.operation, p.rows, p.classes, p.stride, p.out_stride, p.out == p.logits,
                  (int)p.options.reduction, (double)p.options.label_smoothing, p.options.class_weights != NULL);
    const xent_status status = fuzz_run(&c, call, &p, threads);
    if (vast && p.classes > 0 && status == XENT_OK)
        fuzz_fail("no such number of rows can be");
    if (status == XENT_ERR_TARGET && p.options.error_row && !p.no_options && bad >= p.rows)
        fuzz_fail("bad row %zu of %zu", bad, p.rows);
    fuzz_free(&c);
    return 0;
}
