/*
 * The same three loops over SLEEF's expf (1.0 ULP), in the widest vectors of this build, two at a time. A row's end is
 * filled up to a vector with logits whose exponential is 0.
 */
#include "rows.h"

#include <math.h>
#include <sleef.h>
#include <stdio.h>
#include <string.h>

/* The operations that vector extensions of C lack: load_part and store_part take the first count lanes, count < LANES.
 */
#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 vector;
#define LANES 16
#define VECTOR_EXP Sleef_expf16_u10avx512f
#define VECTOR_NAME "AVX-512"

static inline vector vector_max(vector a, vector b)
{
    return _mm512_max_ps(a, b);
}

static inline vector load_part(const float *from, size_t count, vector rest)
{
    return _mm512_mask_loadu_ps(rest, (__mmask16)((1u << count) - 1), from);
}

static inline void store_part(float *to, vector v, size_t count)
{
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), v);
}

static inline float lanes_max(vector v)
{
    return _mm512_reduce_max_ps(v);
}

static inline float lanes_sum(vector v)
{
    return _mm512_reduce_add_ps(v);
}

#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
typedef __m256 vector;
#define LANES 8
#define VECTOR_EXP Sleef_expf8_u10avx2
#define VECTOR_NAME "AVX2"

static inline vector vector_max(vector a, vector b)
{
    return _mm256_max_ps(a, b);
}

static inline __m256i first_lanes(size_t count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vector load_part(const float *from, size_t count, vector rest)
{
    __m256i first = first_lanes(count);
    return _mm256_blendv_ps(rest, _mm256_maskload_ps(from, first), _mm256_castsi256_ps(first));
}

static inline void store_part(float *to, vector v, size_t count)
{
    _mm256_maskstore_ps(to, first_lanes(count), v);
}

static inline float lanes_max(vector v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline float lanes_sum(vector v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#elif defined(__aarch64__)
#include <arm_neon.h>
typedef float32x4_t vector;
#define LANES 4
#define VECTOR_EXP Sleef_expf4_u10advsimd
#define VECTOR_NAME "NEON"

static inline vector vector_max(vector a, vector b)
{
    return vmaxq_f32(a, b);
}

static inline vector load_part(const float *from, size_t count, vector rest)
{
    for (size_t k = 0; k < count; k++)
        rest[k] = from[k];
    return rest;
}

static inline void store_part(float *to, vector v, size_t count)
{
    for (size_t k = 0; k < count; k++)
        to[k] = v[k];
}

static inline float lanes_max(vector v)
{
    return vmaxvq_f32(v);
}

static inline float lanes_sum(vector v)
{
    return vaddvq_f32(v);
}

#else
#error "SLEEF is called with AVX-512, AVX2 or NEON vectors, and this build has none of them"
#endif

static struct peer_setup open_setup;

static inline vector load(const float *from)
{
    vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(float *to, vector v)
{
    memcpy(to, &v, sizeof v);
}

static inline vector broadcast(float value)
{
    return value - (vector){0};
}

static float largest(const float *x, size_t classes)
{
    vector a = broadcast(-INFINITY), b = a, c = a, d = a;
    size_t j = 0;
    for (; j + 4 * LANES <= classes; j += 4 * LANES) {
        a = vector_max(a, load(x + j));
        b = vector_max(b, load(x + j + LANES));
        c = vector_max(c, load(x + j + 2 * LANES));
        d = vector_max(d, load(x + j + 3 * LANES));
    }
    for (; j + LANES <= classes; j += LANES)
        a = vector_max(a, load(x + j));
    if (j < classes)
        b = vector_max(b, load_part(x + j, classes - j, b));
    return lanes_max(vector_max(vector_max(a, b), vector_max(c, d)));
}

static float sum_exp(const float *x, float largest_logit, size_t classes)
{
    const vector m = broadcast(largest_logit);
    vector a = {0}, b = {0};
    size_t j = 0;
    for (; j + 2 * LANES <= classes; j += 2 * LANES) {
        a += VECTOR_EXP(load(x + j) - m);
        b += VECTOR_EXP(load(x + j + LANES) - m);
    }
    for (; j + LANES <= classes; j += LANES)
        a += VECTOR_EXP(load(x + j) - m);
    if (j < classes)
        b += VECTOR_EXP(load_part(x + j, classes - j, broadcast(-INFINITY)) - m);
    return lanes_sum(a + b);
}

static float store_exp(const float *x, float largest_logit, float *to, size_t classes)
{
    const vector m = broadcast(largest_logit);
    vector a = {0}, b = {0};
    size_t j = 0;
    for (; j + 2 * LANES <= classes; j += 2 * LANES) {
        vector e = VECTOR_EXP(load(x + j) - m), f = VECTOR_EXP(load(x + j + LANES) - m);
        store(to + j, e);
        store(to + j + LANES, f);
        a += e;
        b += f;
    }
    for (; j + LANES <= classes; j += LANES) {
        vector e = VECTOR_EXP(load(x + j) - m);
        store(to + j, e);
        a += e;
    }
    if (j < classes) {
        vector e = VECTOR_EXP(load_part(x + j, classes - j, broadcast(-INFINITY)) - m);
        store_part(to + j, e, classes - j);
        b += e;
    }
    return lanes_sum(a + b);
}

static void scale_row(float *row, float factor, size_t classes)
{
    size_t j = 0;
    for (; j + LANES <= classes; j += LANES)
        store(row + j, load(row + j) * factor);
    if (j < classes)
        store_part(row + j, load_part(row + j, classes - j, broadcast(0)) * factor, classes - j);
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
        float sum = store_exp(x, m, grad, classes);
        scale_row(grad, scale / sum, classes);
        grad[target] -= scale;
        call->losses[i] = logf(sum) + difference;
    }
}

PEER_API const char *peer_version(void)
{
    static char text[64];
    snprintf(text, sizeof text, "SLEEF %d.%d.%d, %s", SLEEF_VERSION_MAJOR, SLEEF_VERSION_MINOR,
             SLEEF_VERSION_PATCHLEVEL, VECTOR_NAME);
    return text;
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
