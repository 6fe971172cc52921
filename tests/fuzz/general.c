/* Fuzzes xent_cross_entropy: any description of a problem whose arrays have the bytes that it says. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

/* Few logits, so that there are many inputs a second, but rows of more than one chunk. */
enum { FEW_LOGITS = 5000, MOST_LOGITS = 40000, MOST_ELEMENTS = 1 << 17 };

/* A stride with which a second element is further away than anything can be. */
#define WILD ((size_t)1 << 63)

struct shape {
    size_t outer, extent, inner;
};

static xent_strides packed(const struct shape *s)
{
    return (xent_strides){s->extent * s->inner, s->inner, 1};
}

static xent_strides some_strides(struct fuzz_input *in, const struct shape *s)
{
    const size_t pad = fuzz_below(in, 5);
    switch (fuzz_below(in, 8)) {
    case 0: /* rows that are wider than their classes */
        return (xent_strides){(s->extent + pad) * s->inner, s->inner, 1};
    case 1: /* channels last */
        return (xent_strides){s->inner * (s->extent + pad), 1, s->extent + pad};
    case 2: /* the rows of a class together */
        return (xent_strides){s->inner, s->outer * s->inner + pad, 1};
    case 3: /* nothing together */
        return (xent_strides){s->extent * s->inner * (pad + 1), s->inner * (pad + 1), pad + 1};
    case 4:
        return (xent_strides){0, 0, 0};
    case 5:
        return (xent_strides){fuzz_below(in, 40), fuzz_below(in, 40), fuzz_below(in, 40)};
    case 6: {
        xent_strides strides = packed(s);
        const size_t which = fuzz_below(in, 48);
        if (which == 0)
            strides.outer = WILD;
        else if (which == 1)
            strides.classes = WILD;
        else if (which == 2)
            strides.inner = WILD;
        return strides;
    }
    default:
        return packed(s);
    }
}

static size_t reach(size_t count, size_t stride)
{
    return count > 1 ? (count - 1) * stride : 0;
}

/* How many elements an array of this shape spans: 0 if there is none, and 1 where the library must see that they are
   too many. */
static size_t elements(const struct shape *s, const xent_strides *given)
{
    const xent_strides strides = given ? *given : packed(s);
    if (s->outer == 0 || s->extent == 0 || s->inner == 0)
        return 0;
    if ((s->outer > 1 && strides.outer == WILD) || (s->extent > 1 && strides.classes == WILD) ||
        (s->inner > 1 && strides.inner == WILD))
        return 1;
    return reach(s->outer, strides.outer) + reach(s->extent, strides.classes) + reach(s->inner, strides.inner) + 1;
}

/* An array's strides, or NULL for one without gaps. */
static const xent_strides *choose_strides(struct fuzz_input *in, const struct shape *s, xent_strides *strides)
{
    if (!fuzz_one_in(in, 2))
        return NULL;
    *strides = some_strides(in, s);
    return strides;
}

struct problem {
    xent_problem p;
    xent_strides logits, grad, targets, probabilities, row_weights, dloss;
    void *given; /* what is handed to the library: bytes of p, or more, or fewer */
    size_t given_size;
};

static xent_status call(void *context, const xent_executor *executor)
{
    struct problem *problem = context;
    problem->p.executor = executor;
    const size_t known = problem->given_size < sizeof problem->p ? problem->given_size : sizeof problem->p;
    memcpy(problem->given, &problem->p, known);
    return xent_cross_entropy(problem->given);
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

/* The logits, and the gradient in place, apart, or in the same memory at some distance. False if that is too much. */
static bool add_logits(struct fuzz_input *in, struct fuzz_case *c, struct problem *problem, const struct shape *s,
                       enum fuzz_type type)
{
    xent_problem *p = &problem->p;
    const size_t size = type == FUZZ_F64 ? sizeof(double) : sizeof(float);
    p->logits_strides = choose_strides(in, s, &problem->logits);
    const size_t x = elements(s, p->logits_strides);
    const size_t where = fuzz_below(in, 8);
    if (x > MOST_ELEMENTS)
        return false;
    if (where < 3) { /* in place */
        void *data = fuzz_add(c, type, x * size, true);
        p->logits = p->grad = data;
        p->grad_strides = p->logits_strides;
        fuzz_fill(in, data, type, x, FUZZ_ANY);
    } else if (where == 3) { /* none */
        void *data = fuzz_add(c, type, x * size, false);
        p->logits = data;
        fuzz_fill(in, data, type, x, FUZZ_ANY);
    } else {
        p->grad_strides = choose_strides(in, s, &problem->grad);
        const size_t g = elements(s, p->grad_strides);
        const size_t distance = fuzz_size(in);
        const bool together = where == 7, before = fuzz_one_in(in, 2);
        if (g > MOST_ELEMENTS)
            return false;
        if (together) {
            const size_t most = x > g + distance ? x : g + distance;
            const size_t end = before ? (g > x + distance ? g : x + distance) : most;
            unsigned char *data = fuzz_add(c, type, end * size, true);
            fuzz_fill(in, data, type, end, FUZZ_ANY);
            p->logits = before ? data + distance * size : data;
            p->grad = before ? data : data + distance * size;
        } else {
            void *data = fuzz_add(c, type, x * size, false);
            fuzz_fill(in, data, type, x, FUZZ_ANY);
            p->logits = data;
            p->grad = fuzz_add(c, type, g * size, true);
        }
    }
    if (fuzz_one_in(in, 64))
        p->logits = NULL;
    return true;
}

static bool add_targets(struct fuzz_input *in, struct fuzz_case *c, struct problem *problem, const struct shape *s,
                        enum fuzz_type type)
{
    xent_problem *p = &problem->p;
    const size_t size = type == FUZZ_F64 ? sizeof(double) : sizeof(float);
    static const int64_t ignored[] = {-100, -1, 0, 1, 255, 65535, INT64_MIN, INT64_MAX, (int64_t)1 << 32};
    p->target_type = fuzz_one_in(in, 64) ? (xent_targets)fuzz_byte(in) : (xent_targets)fuzz_below(in, 5);
    p->labels = fuzz_one_in(in, 3) ? fuzz_below(in, 6) : 1;
    p->ignore_index = fuzz_one_in(in, 3) ? ignored[fuzz_below(in, sizeof ignored / sizeof *ignored)] : -100;
    const bool soft = p->target_type == XENT_PROBABILITIES;
    const struct shape t = {s->outer, soft ? s->extent : p->labels, s->inner};
    p->targets_strides = choose_strides(in, &t, &problem->targets);
    const size_t count = elements(&t, p->targets_strides);
    if (count > MOST_ELEMENTS)
        return false;
    void *targets = fuzz_add(c, soft ? type : FUZZ_BYTES, count * (soft ? size : label_size(p->target_type)), false);
    p->targets = targets;
    if (soft)
        fuzz_fill(in, targets, type, count, FUZZ_FINITE);
    else
        fuzz_labels(in, targets, p->target_type, count, s->extent, p->ignore_index,
                    fuzz_one_in(in, 8) ? 1 + (unsigned)fuzz_below(in, 3) : 0);
    if (fuzz_one_in(in, 64))
        p->targets = NULL;
    if (fuzz_one_in(in, 3)) {
        const struct shape k = {s->outer, p->labels, s->inner};
        p->probabilities_strides = choose_strides(in, &k, &problem->probabilities);
        const size_t q = elements(&k, p->probabilities_strides);
        if (q > MOST_ELEMENTS)
            return false;
        void *probabilities = fuzz_add(c, type, q * size, false);
        p->probabilities = probabilities;
        fuzz_fill(in, probabilities, type, q, FUZZ_FINITE);
    }
    return true;
}

static bool add_weights(struct fuzz_input *in, struct fuzz_case *c, struct problem *problem, const struct shape *s,
                        enum fuzz_type type)
{
    xent_problem *p = &problem->p;
    const size_t size = type == FUZZ_F64 ? sizeof(double) : sizeof(float);
    const struct shape rows = {s->outer, 1, s->inner};
    p->label_smoothing = fuzz_one_in(in, 3) ? fuzz_double(in, fuzz_one_in(in, 16)) : 0;
    p->normalizer = fuzz_one_in(in, 8) ? fuzz_double(in, true) : 0;
    p->empty_mean_is_zero = fuzz_one_in(in, 4);
    if (fuzz_one_in(in, 3)) {
        void *weights = fuzz_add(c, type, s->extent * size, false);
        p->class_weights = weights;
        fuzz_fill(in, weights, type, s->extent, fuzz_one_in(in, 16) ? FUZZ_ANY : FUZZ_WEIGHTS);
    }
    if (fuzz_one_in(in, 3)) {
        p->row_weights_strides = choose_strides(in, &rows, &problem->row_weights);
        const size_t count = elements(&rows, p->row_weights_strides);
        if (count > MOST_ELEMENTS)
            return false;
        void *weights = fuzz_add(c, type, count * size, false);
        p->row_weights = weights;
        fuzz_fill(in, weights, type, count, FUZZ_FINITE);
    }
    if (fuzz_one_in(in, 3)) {
        p->dloss_strides = choose_strides(in, &rows, &problem->dloss);
        const size_t count = elements(&rows, p->dloss_strides);
        if (count > MOST_ELEMENTS)
            return false;
        void *dloss = fuzz_add(c, type, count * size, false);
        p->dloss = dloss;
        fuzz_fill(in, dloss, type, count, FUZZ_FINITE);
    }
    return true;
}

static void add_outputs(struct fuzz_input *in, struct fuzz_case *c, struct problem *problem, const struct shape *s,
                        enum fuzz_type type)
{
    xent_problem *p = &problem->p;
    const size_t size = type == FUZZ_F64 ? sizeof(double) : sizeof(float), rows = s->outer * s->inner;
    p->reduction = fuzz_reduction(in);
    if (!fuzz_one_in(in, 8))
        p->loss = fuzz_add(c, type, (p->reduction == XENT_NONE ? rows : 1) * size, true);
    if (fuzz_one_in(in, 2))
        p->lse = fuzz_add(c, type, rows * size, true);
    if (fuzz_one_in(in, 32)) /* an output on top of an input */
        p->lse = (void *)(uintptr_t)p->logits;
    if (fuzz_one_in(in, 2))
        p->kept_rows = fuzz_add(c, FUZZ_BYTES, sizeof *p->kept_rows, true);
    if (fuzz_one_in(in, 2))
        p->denominator = fuzz_add(c, FUZZ_F64, sizeof *p->denominator, true);
}

/* Elements between those that the gradient's strides reach keep what they had. */
static void check_gaps(const struct problem *problem, const struct shape *s, const struct fuzz_array *grad,
                       enum fuzz_type type)
{
    const xent_strides strides = problem->p.grad_strides ? *problem->p.grad_strides : packed(s);
    const size_t size = type == FUZZ_F64 ? sizeof(double) : sizeof(float), count = grad->bytes / size;
    bool *reached = calloc(count + 1, sizeof *reached);
    for (size_t o = 0; o < s->outer; o++)
        for (size_t j = 0; j < s->extent; j++)
            for (size_t i = 0; i < s->inner; i++)
                reached[o * strides.outer + j * strides.classes + i * strides.inner] = true;
    for (size_t k = 0; k < count; k++)
        if (!reached[k] && memcmp(grad->data + k * size, grad->before + k * size, size) != 0)
            fuzz_fail("element %zu lies between those of the gradient, and was written", k);
    free(reached);
}

/* The same problem, in place before, has the same gradient out of place. */
static void check_apart(struct problem *problem, const struct fuzz_array *in_place, enum fuzz_type type)
{
    struct fuzz_case c = {.count = 0};
    xent_problem p = problem->p;
    unsigned char *logits = fuzz_add(&c, type, in_place->bytes, false),
                  *grad = fuzz_add(&c, type, in_place->bytes, true);
    if (in_place->bytes > 0) {
        memcpy(logits, in_place->before, in_place->bytes);
        memcpy(grad, in_place->before, in_place->bytes);
    }
    p.logits = logits;
    p.grad = grad;
    p.executor = NULL;
    if (xent_cross_entropy(&p) != XENT_OK)
        fuzz_fail("a call that succeeds in place fails out of place");
    fuzz_same("out of place", type, grad, in_place->data, in_place->bytes);
    fuzz_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_open(data, size);
    struct fuzz_case c = {.count = 0};
    struct problem problem = {.p = XENT_PROBLEM_INIT};
    xent_problem *p = &problem.p;

    struct shape s = {fuzz_size(&in), fuzz_size(&in), fuzz_one_in(&in, 2) ? fuzz_below(&in, 40) : 1};
    while (s.outer * s.extent * s.inner > (s.extent > 1000 ? MOST_LOGITS : FEW_LOGITS))
        *(s.outer >= s.inner ? &s.outer : &s.inner) /= 2;
    p->dtype = fuzz_one_in(&in, 64) ? (xent_dtype)fuzz_byte(&in) : fuzz_one_in(&in, 4) ? XENT_F64 : XENT_F32;
    p->outer = s.outer;
    p->classes = s.extent;
    p->inner = s.inner;
    const enum fuzz_type type = p->dtype == XENT_F64 ? FUZZ_F64 : FUZZ_F32;
    const size_t threads = 1 + fuzz_below(&in, 20);
    const size_t extra = fuzz_one_in(&in, 32) ? fuzz_below(&in, 32) : 0;
    const bool older = fuzz_one_in(&in, 64), dirty = fuzz_one_in(&in, 4), vast = fuzz_one_in(&in, 64);
    if (!add_logits(&in, &c, &problem, &s, type) || !add_targets(&in, &c, &problem, &s, type) ||
        !add_weights(&in, &c, &problem, &s, type)) {
        fuzz_free(&c);
        return 0;
    }
    add_outputs(&in, &c, &problem, &s, type);
    size_t bad = SIZE_MAX;
    if (fuzz_one_in(&in, 2))
        p->error_row = &bad;
    if (vast && s.inner > 0 && s.extent > 0) /* more rows than there can be, whatever the strides */
        p->outer = SIZE_MAX / 2;

    problem.given_size = older ? sizeof *p - 1 - extra % sizeof(void *) : sizeof *p + extra;
    problem.given = calloc(1, problem.given_size);
    p->struct_size = problem.given_size;
    if (dirty && extra > 0 && !older)
        ((unsigned char *)problem.given)[problem.given_size - 1] = 1;

    const xent_strides x = p->logits_strides ? *p->logits_strides : packed(&s);
    fuzz_describe("dtype %d, %zu x %zu x %zu, strides %zu, %zu, %zu, %s, targets %d, %zu labels%s, smoothing %g, "
                  "class weights %d, row weights %d, dloss %d, normalizer %g, reduction %d, threads %zu",
                  (int)p->dtype, p->outer, s.extent, s.inner, x.outer, x.classes, x.inner,
                  !p->grad               ? "forward"
                  : p->grad == p->logits ? "in place"
                                         : "out of place",
                  (int)p->target_type, p->labels, p->probabilities ? " with probabilities" : "", p->label_smoothing,
                  p->class_weights != NULL, p->row_weights != NULL, p->dloss != NULL, p->normalizer, (int)p->reduction,
                  threads);
    const xent_status status = fuzz_run(&c, call, &problem, threads);
    if (p->error_row && (status == XENT_ERR_TARGET ? bad >= s.outer * s.inner : bad != SIZE_MAX))
        fuzz_fail("status %d, bad row %zu of %zu", (int)status, bad, s.outer * s.inner);

    if (status == XENT_OK && p->grad && s.outer * s.extent * s.inner > 0) {
        if (vast)
            fuzz_fail("no such number of rows can be");
        if (p->grad == p->logits && c.arrays[0].output && c.arrays[0].data == p->grad) {
            if (p->struct_size == sizeof *p && p->grad_strides == p->logits_strides)
                check_apart(&problem, &c.arrays[0], type);
            if (p->grad_strides == p->logits_strides)
                check_gaps(&problem, &s, &c.arrays[0], type);
        }
        if (c.arrays[1].data == p->grad)
            check_gaps(&problem, &s, &c.arrays[1], type);
    }
    free(problem.given);
    fuzz_free(&c);
    return 0;
}
