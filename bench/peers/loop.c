/*
 * The three loops that one would write, in float: the maximum, the exponentials and their sum, the scaling. It is built
 * twice: with -ffast-math, so that the compiler calls the vector functions of libmvec, and without.
 *
 * The exponentials are kept in the gradient's array between the second loop and the third.
 */
#include "rows.h"

#include <math.h>

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static struct peer_setup open_setup;

static float largest(const float *x, size_t classes)
{
    float m = x[0];
    for (size_t j = 1; j < classes; j++)
        m = x[j] > m ? x[j] : m;
    return m;
}

static float sum_exp(const float *x, float m, size_t classes)
{
    float sum = 0;
    for (size_t j = 0; j < classes; j++)
        sum += expf(x[j] - m);
    return sum;
}

/* The arrays are the same or apart, which the compiler has no need to check. */
static float store_exp(const float *x, float m, float *e, size_t classes)
{
    float sum = 0;
#if defined(__clang__) && defined(__FAST_MATH__)
#pragma clang loop vectorize(assume_safety)
#elif !defined(__clang__)
#pragma GCC ivdep
#endif
    for (size_t j = 0; j < classes; j++) {
        float value = expf(x[j] - m);
        e[j] = value;
        sum += value;
    }
    return sum;
}

static void run_rows(const struct peer_call *call, size_t first, size_t last, size_t task)
{
    (void)task;
    size_t classes = open_setup.classes;
    float scale = rows_scale(&open_setup, call);
    for (size_t i = first; i < last; i++) {
        const float *x = call->logits + i * classes;
        size_t target = (size_t)call->targets[i];
        float m = largest(x, classes), difference = m - x[target];
        if (!call->grad) {
            call->losses[i] = logf(sum_exp(x, m, classes)) + difference;
            continue;
        }
        float *grad = call->grad + i * classes;
        float sum = store_exp(x, m, grad, classes), factor = scale / sum;
        for (size_t j = 0; j < classes; j++)
            grad[j] *= factor;
        grad[target] -= scale;
        call->losses[i] = logf(sum) + difference;
    }
}

PEER_API const char *peer_version(void)
{
#if defined(__FAST_MATH__)
    return COMPILER " -O3 -ffast-math";
#else
    return COMPILER " -O3";
#endif
}

PEER_API const char *peer_open(const struct peer_setup *setup)
{
    open_setup = *setup;
    return NULL;
}

PEER_API void peer_run(const struct peer_call *call)
{
    rows_run(&open_setup, call, run_rows);
}

PEER_API void peer_close(void)
{
}
