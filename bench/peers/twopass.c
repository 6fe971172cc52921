/*
 * The two-pass softmax of Dukhan and Ablavatski (2020), the algorithm of XNNPACK's fastest softmax kernels, written out
 * for AVX-512: exp(x) is kept as m * 2^n with n a float, so that no exponential overflows and no pass over the row has
 * to find the maximum first. The second pass computes the exponentials again rather than reading them.
 */
#include "rows.h"

#include <math.h>

#if !defined(__AVX512F__)
#error "written for AVX-512, which this CPU lacks"
#endif
#include <immintrin.h>

enum {
    LANES = 16,
    STREAMS = 4 /* sums that are kept side by side, so that none waits for the one before */
};

/* Each lane is m * 2^n. */
struct extended {
    __m512 m, n;
};

static struct peer_setup open_setup;

static inline struct extended extended_zero(void)
{
    return (struct extended){_mm512_setzero_ps(), _mm512_set1_ps(-1e30f)};
}

/* exp(x) in 1 to 2 ULP: 2^n by its exponent, the rest by a polynomial over [-log(2) / 2, log(2) / 2]. */
static inline struct extended extended_exp(__m512 x)
{
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)), 0);
    __m512 t = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e43p-1f), x);
    t = _mm512_fnmadd_ps(n, _mm512_set1_ps(-0x1.05c61p-29f), t);
    __m512 p = _mm512_set1_ps(0x1.0fa832p-7f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.573a54p-5f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.555a6ap-3f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.fffdc6p-2f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.fffff6p-1f));
    return (struct extended){_mm512_fmadd_ps(p, t, _mm512_set1_ps(1.0f)), n};
}

static inline struct extended add(struct extended a, struct extended b)
{
    __m512 n = _mm512_max_ps(a.n, b.n);
    __m512 m = _mm512_scalef_ps(a.m, _mm512_sub_ps(a.n, n));
    return (struct extended){_mm512_add_ps(m, _mm512_scalef_ps(b.m, _mm512_sub_ps(b.n, n))), n};
}

static inline __mmask16 first_lanes(size_t count)
{
    return (__mmask16)((1u << count) - 1);
}

/* The sum of the row's exponentials, as *m * 2^*n. */
static void sum_row(const float *x, size_t classes, float *m, float *n)
{
    struct extended sums[STREAMS];
    for (size_t k = 0; k < STREAMS; k++)
        sums[k] = extended_zero();
    size_t j = 0;
    for (; j + STREAMS * LANES <= classes; j += STREAMS * LANES)
        for (size_t k = 0; k < STREAMS; k++)
            sums[k] = add(sums[k], extended_exp(_mm512_loadu_ps(x + j + k * LANES)));
    for (; j + LANES <= classes; j += LANES)
        sums[0] = add(sums[0], extended_exp(_mm512_loadu_ps(x + j)));
    if (j < classes) {
        __mmask16 first = first_lanes(classes - j);
        struct extended e = extended_exp(_mm512_maskz_loadu_ps(first, x + j)), zero = extended_zero();
        e.m = _mm512_mask_mov_ps(zero.m, first, e.m);
        e.n = _mm512_mask_mov_ps(zero.n, first, e.n);
        sums[1] = add(sums[1], e);
    }
    struct extended sum = add(add(sums[0], sums[1]), add(sums[2], sums[3]));
    *n = _mm512_reduce_max_ps(sum.n);
    *m = _mm512_reduce_add_ps(_mm512_scalef_ps(sum.m, _mm512_sub_ps(sum.n, _mm512_set1_ps(*n))));
}

static inline __m512 scaled(__m512 x, __m512 factor, __m512 n)
{
    struct extended e = extended_exp(x);
    return _mm512_scalef_ps(_mm512_mul_ps(e.m, factor), _mm512_sub_ps(e.n, n));
}

/* to[j] = factor * exp(x[j]) * 2^-n */
static void scale_row(const float *x, float *to, size_t classes, float factor, float n)
{
    const __m512 factors = _mm512_set1_ps(factor), ns = _mm512_set1_ps(n);
    size_t j = 0;
    for (; j + STREAMS * LANES <= classes; j += STREAMS * LANES)
        for (size_t k = 0; k < STREAMS; k++)
            _mm512_storeu_ps(to + j + k * LANES, scaled(_mm512_loadu_ps(x + j + k * LANES), factors, ns));
    for (; j + LANES <= classes; j += LANES)
        _mm512_storeu_ps(to + j, scaled(_mm512_loadu_ps(x + j), factors, ns));
    if (j < classes) {
        __mmask16 first = first_lanes(classes - j);
        _mm512_mask_storeu_ps(to + j, first, scaled(_mm512_maskz_loadu_ps(first, x + j), factors, ns));
    }
}

static void run_rows(const struct peer_call *call, size_t first, size_t last, size_t task)
{
    (void)task;
    size_t classes = open_setup.classes;
    float scale = rows_scale(&open_setup, call);
    for (size_t i = first; i < last; i++) {
        const float *x = call->logits + i * classes;
        size_t target = (size_t)call->targets[i];
        float m, n;
        sum_row(x, classes, &m, &n);
        call->losses[i] = n * 0x1.62e43p-1f + (logf(m) - x[target]);
        if (call->grad) {
            float *grad = call->grad + i * classes;
            scale_row(x, grad, classes, scale / m, n);
            grad[target] -= scale;
        }
    }
}

PEER_API const char *peer_version(void)
{
    return "two-pass softmax, AVX-512";
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
