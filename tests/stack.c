/*
 * The stack that a call needs, which the header promises to be little: calls run on a painted one, and what has lost
 * its paint is counted.
 */
#include "support.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    STACK = 1 << 20,
    PROMISED = 64 << 10, /* by xent.h, where classes are neighbours, and where not */
    PROMISED_APART = 120 << 10,
    ROWS = 200,
    MAX_CLASSES = 700,
    PAINT = 0xa5
};

static void *run(void *problem)
{
    if (problem)
        expect_status("xent_cross_entropy", xent_cross_entropy(problem), XENT_OK);
    return NULL;
}

/* The bytes that a thread uses which makes this call and nothing else; or not even that (NULL). */
static size_t stack_of(xent_problem *problem, unsigned char *stack)
{
    pthread_attr_t attributes;
    pthread_t thread;
    memset(stack, PAINT, STACK);
    if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, STACK) ||
        pthread_create(&thread, &attributes, run, problem) || pthread_join(thread, NULL))
        fail_case("no thread");
    pthread_attr_destroy(&attributes);
    size_t left = 0;
    while (left < STACK && stack[left] == PAINT)
        left++;
    return STACK - left;
}

/* Where logits lie: in the window of exponentials, far from it, and everywhere. */
static const struct {
    float scale, offset;
} data[] = {{3, 0}, {3, 10000}, {120, 0}};

static const size_t class_counts[] = {4, 10, 64, 96, 127, 128, MAX_CLASSES};

/* A problem's arrays of floats, and of doubles. */
struct arrays {
    float logits[ROWS * MAX_CLASSES], grad[ROWS * MAX_CLASSES], probabilities[ROWS * MAX_CLASSES], weights[MAX_CLASSES];
    double logits64[ROWS * MAX_CLASSES], grad64[ROWS * MAX_CLASSES], probabilities64[ROWS * MAX_CLASSES];
    double weights64[MAX_CLASSES];
    int32_t targets[ROWS];
};

static void check_kernel(const char *isa)
{
    struct rng rng = rng_stream(1);
    unsigned char *stack = aligned_alloc(4096, STACK);
    struct arrays *a = allocate(sizeof *a);
    double loss;
    size_t most[2][2] = {{0}}, most64 = 0; /* by where classes are, and by whether targets are probabilities */
    use_kernel(isa);
    const size_t thread = stack_of(NULL, stack);
    for (size_t i = 0; i < ROWS * MAX_CLASSES; i++)
        a->probabilities64[i] = (double)(a->probabilities[i] = 1.0f / MAX_CLASSES);
    for (size_t j = 0; j < MAX_CLASSES; j++)
        a->weights64[j] = (double)(a->weights[j] = 1 + (float)(j % 3));
    memset(a->targets, 0, sizeof a->targets);
    for (size_t d = 0; d < sizeof data / sizeof *data; d++) {
        for (size_t i = 0; i < ROWS * MAX_CLASSES; i++)
            a->logits64[i] = (double)(a->logits[i] = data[d].scale * rng_normal(&rng) + data[d].offset);
        for (size_t c = 0; c < sizeof class_counts / sizeof *class_counts; c++)
            for (unsigned kind = 0; kind < 32; kind++) {
                const bool planes = kind & 1, weighted = kind & 2, smooth = kind & 4, soft = kind & 8, wide = kind & 16;
                xent_problem problem = XENT_PROBLEM_INIT;
                problem.classes = class_counts[c];
                problem.outer = planes ? 1 : ROWS;
                problem.inner = planes ? ROWS : 1;
                problem.dtype = wide ? XENT_F64 : XENT_F32;
                problem.logits = wide ? (void *)a->logits64 : a->logits;
                problem.grad = wide ? (void *)a->grad64 : a->grad;
                problem.loss = &loss;
                if (weighted)
                    problem.class_weights = wide ? (void *)a->weights64 : a->weights;
                problem.label_smoothing = smooth ? 0.1 : 0;
                problem.targets = !soft ? (void *)a->targets : wide ? (void *)a->probabilities64 : a->probabilities;
                problem.target_type = soft ? XENT_PROBABILITIES : XENT_LABELS_I32;
                name_case("%s, %zu classes, data %zu, kind %u", isa, problem.classes, d, kind);
                const size_t used = stack_of(&problem, stack) - thread;
                size_t *of = wide ? &most64 : &most[planes][soft];
                *of = used > *of ? used : *of;
                if (used > (size_t)(planes && !wide ? PROMISED_APART : PROMISED))
                    fail_case("%zu bytes of stack", used);
            }
    }
    note("%s: %zu bytes of stack, %zu with probabilities; where classes are not neighbours %zu and %zu; doubles %zu",
         isa, most[0][0], most[0][1], most[1][0], most[1][1], most64);
    free(stack);
    free(a);
}

START_TEST(promised)
{
    for (const char *const *isa = xent_isas(); *isa; isa++)
        check_kernel(*isa);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stack");
    tcase_add_test(add_case(suite, "stack"), promised);
    return run_suite(suite);
}
