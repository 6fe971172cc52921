/* Fuzzes xent_bce_f32. */
#include "fuzz.h"

struct problem {
    size_t rows, classes;
    const float *logits, *targets;
    float *loss, *grad;
    xent_bce_options options;
};

static xent_status call(void *context, const xent_executor *executor)
{
    struct problem *p = context;
    p->options.executor = executor;
    return xent_bce_f32(p->logits, p->targets, p->rows, p->classes, p->loss, p->grad, &p->options);
}

/* Weights of any strides, or of one with which they cannot be. */
static void add_weights(struct fuzz_input *in, struct fuzz_case *c, struct problem *p)
{
    xent_bce_options *o = &p->options;
    static const size_t strides[] = {0, 1, 2, 7, (size_t)1 << 63};
    const size_t wild = fuzz_one_in(in, 32) ? 5 : 4;
    o->weight_class_stride = strides[fuzz_below(in, wild)];
    o->weight_row_stride = fuzz_one_in(in, 2) ? p->classes * o->weight_class_stride : strides[fuzz_below(in, wild)];
    size_t count = 1;
    if (o->weight_row_stride >> 62 == 0 && o->weight_class_stride >> 62 == 0 && p->rows > 0 && p->classes > 0)
        count = (p->rows - 1) * o->weight_row_stride + (p->classes - 1) * o->weight_class_stride + 1;
    else if (p->rows < 2 || p->classes < 2) /* such a stride may not matter */
        o->weight_row_stride = o->weight_class_stride = 0;
    float *weights = fuzz_add(c, FUZZ_F32, count * sizeof(float), false);
    fuzz_fill(in, weights, FUZZ_F32, count, FUZZ_ANY);
    o->weights = weights;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_open(data, size);
    struct fuzz_case c = {.count = 0};
    struct problem p = {.rows = fuzz_size(&in), .classes = fuzz_size(&in), .options = XENT_BCE_OPTIONS_INIT};
    xent_bce_options *o = &p.options;
    const size_t threads = 1 + fuzz_below(&in, 20), offset = fuzz_below(&in, 16);
    o->logits_stride = fuzz_row_stride(&in, p.classes);
    o->targets_stride = fuzz_row_stride(&in, p.classes);
    const bool in_place = fuzz_one_in(&in, 3), no_grad = fuzz_one_in(&in, 4), vast = fuzz_one_in(&in, 64);
    o->grad_stride = in_place ? o->logits_stride : fuzz_row_stride(&in, p.classes);
    while (fuzz_row_elements(p.rows, p.classes, o->logits_stride) +
               fuzz_row_elements(p.rows, p.classes, o->targets_stride) +
               fuzz_row_elements(p.rows, p.classes, o->grad_stride) >
           60000)
        p.rows /= 2;
    o->reduction = fuzz_reduction(&in);

    const size_t count = offset + fuzz_row_elements(p.rows, p.classes, o->logits_stride);
    float *logits = fuzz_add(&c, FUZZ_F32, count * sizeof(float), in_place);
    fuzz_fill(&in, logits, FUZZ_F32, count, FUZZ_ANY);
    p.logits = logits + offset;
    if (in_place)
        p.grad = logits + (fuzz_one_in(&in, 32) ? 0 : offset);
    else if (!no_grad)
        p.grad = fuzz_add(&c, FUZZ_F32, fuzz_row_elements(p.rows, p.classes, o->grad_stride) * sizeof(float), true);
    const size_t t = fuzz_row_elements(p.rows, p.classes, o->targets_stride);
    float *targets = fuzz_add(&c, FUZZ_F32, t * sizeof(float), false);
    fuzz_fill(&in, targets, FUZZ_F32, t, FUZZ_ANY);
    p.targets = targets;
    if (fuzz_one_in(&in, 2))
        add_weights(&in, &c, &p);
    if (fuzz_one_in(&in, 2)) {
        float *pos_weight = fuzz_add(&c, FUZZ_F32, p.classes * sizeof(float), false);
        fuzz_fill(&in, pos_weight, FUZZ_F32, p.classes, FUZZ_ANY);
        o->pos_weight = pos_weight;
    }
    p.loss = fuzz_add(&c, FUZZ_F32, (o->reduction == XENT_NONE ? p.rows * p.classes : 1) * sizeof(float), true);
    if (fuzz_one_in(&in, 64))
        p.logits = NULL;
    if (vast && p.classes > 0)
        p.rows = SIZE_MAX / 2;

    fuzz_describe(
        "%zu x %zu, strides %zu, %zu, %zu, in place %d, weights %d (%zu, %zu), positive weights %d, reduction %d",
        p.rows, p.classes, o->logits_stride, o->targets_stride, o->grad_stride, p.grad == p.logits, o->weights != NULL,
        o->weight_row_stride, o->weight_class_stride, o->pos_weight != NULL, (int)o->reduction);
    const xent_status status = fuzz_run(&c, call, &p, threads);
    if (vast && p.classes > 0 && status == XENT_OK)
        fuzz_fail("no such number of rows can be");
    fuzz_free(&c);
    return 0;
}
