/*
 * What the order takes in which kernels go through memory, without arithmetic: the same lines read, written and fetched
 * ahead as kernels/overlap.h and kernels/strips.h do, where they do so. What a call takes beyond it is arithmetic that
 * memory did not cover; what it takes beyond a floor is the price of an order that gives every row its sum before its
 * gradient is written. But a call may also take less: with nothing to compute between them fetches come in bursts,
 * which costs more than arithmetic that memory covers.
 *
 * Rows, of 8 MB and more together: each is read (or, in place, read and written) while the one before it, which lies in
 * the second-level cache, is scaled (or copied past the caches). Images: 64 pixels of one class after the other, read
 * and then written.
 *
 * That is how kernels go on Intel's processors, or with XENT_OVERLAP=2.
 */
#include "bench.h"

#if defined(__x86_64__)
#include <immintrin.h>

enum { STEP = 64, LINE = 16, AHEAD_L1 = 384, SECOND_AHEAD = 64, PLANES_AHEAD = 20 };

#define AVX2 __attribute__((target("avx2")))

static _Thread_local volatile float sink;

AVX2 static inline void fetch(const float *x)
{
    for (size_t i = 0; i < STEP; i += LINE)
        _mm_prefetch((const char *)(x + AHEAD_L1 + i), _MM_HINT_T0);
    bench_fetch_pages(x, STEP);
}

AVX2 static inline void scale(float *x)
{
    for (size_t i = 0; i < STEP; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(0.75f)));
}

AVX2 static inline __m256 sum(const float *x, __m256 sums)
{
    for (size_t i = 0; i < STEP; i += 8)
        sums = _mm256_add_ps(sums, _mm256_loadu_ps(x + i));
    return sums;
}

/* To whole lines from to on, or just before. */
AVX2 static inline void stream(const float *from, float *to)
{
    to -= (uintptr_t)to / sizeof *to % LINE;
    for (size_t i = 0; i < STEP; i += 8)
        _mm256_stream_ps(to + i, _mm256_loadu_ps(from + i));
}

AVX2 static void read_rows(struct bench_shape shape, const float *from, float *to, size_t first, size_t last)
{
    (void)to;
    __m256 sums = _mm256_setzero_ps();
    for (size_t row = first; row < last; row++)
        for (size_t j = 0; j + STEP <= shape.classes; j += STEP) {
            fetch(from + row * shape.classes + j);
            sums = sum(from + row * shape.classes + j, sums);
        }
    sink = _mm256_cvtss_f32(sums);
}

AVX2 static void scale_rows(struct bench_shape shape, const float *from, float *to, size_t first, size_t last)
{
    (void)from;
    for (size_t row = first; row < last; row++)
        for (size_t j = 0; j + STEP <= shape.classes; j += STEP) {
            float *x = to + row * shape.classes + j;
            fetch(x);
            scale(x);
            if (row == first)
                continue;
            for (size_t i = 0; i < STEP; i += LINE)
                _mm_prefetch((const char *)(x - shape.classes + SECOND_AHEAD + i), _MM_HINT_T0);
            scale(x - shape.classes);
        }
}

AVX2 static void copy_rows(struct bench_shape shape, const float *from, float *to, size_t first, size_t last)
{
    __m256 sums = _mm256_setzero_ps();
    for (size_t row = first; row < last; row++)
        for (size_t j = 0; j + STEP <= shape.classes; j += STEP) {
            const size_t at = row * shape.classes + j;
            fetch(from + at);
            sums = sum(from + at, sums);
            if (row > first)
                stream(from + at - shape.classes, to + at - shape.classes);
        }
    _mm_sfence();
    sink = _mm256_cvtss_f32(sums);
}

/* A class of a strip, with the line that is so many classes ahead. */
AVX2 static inline __m256 sum_plane(struct bench_shape shape, const float *strip, size_t j, __m256 sums)
{
    const size_t most = shape.classes < PLANES_AHEAD ? shape.classes : PLANES_AHEAD, ahead = j + most;
    const float *next =
        ahead < shape.classes ? strip + ahead * shape.inner : strip + STEP + (ahead - shape.classes) * shape.inner;
    for (size_t i = 0; i < STEP; i += LINE)
        _mm_prefetch((const char *)(next + i), _MM_HINT_T1);
    return sum(strip + j * shape.inner, sums);
}

enum way { READ, SCALE, COPY };

AVX2 static inline void images(struct bench_shape shape, const float *from, float *to, size_t first, size_t last,
                               enum way way)
{
    __m256 sums = _mm256_setzero_ps();
    for (size_t row = first / STEP * STEP; row + STEP <= last; row += STEP) {
        const size_t at = bench_row_start(shape, row);
        const float *strip = (way == SCALE ? to : from) + at;
        for (size_t j = 0; j < shape.classes; j++)
            sums = sum_plane(shape, strip, j, sums);
        for (size_t j = 0; way != READ && j < shape.classes; j++)
            if (way == SCALE)
                scale(to + at + j * shape.inner);
            else
                stream(strip + j * shape.inner, to + at + j * shape.inner);
    }
    _mm_sfence();
    sink = _mm256_cvtss_f32(sums);
}

AVX2 static void read_images(struct bench_shape shape, const float *from, float *to, size_t first, size_t last)
{
    images(shape, from, to, first, last, READ);
}

AVX2 static void scale_images(struct bench_shape shape, const float *from, float *to, size_t first, size_t last)
{
    images(shape, from, to, first, last, SCALE);
}

AVX2 static void copy_images(struct bench_shape shape, const float *from, float *to, size_t first, size_t last)
{
    images(shape, from, to, first, last, COPY);
}

static const struct bench_order rows[] = {{"forward", BENCH_READS, read_rows},
                                          {"in-place", BENCH_IN_PLACE, scale_rows},
                                          {"out-of-place", BENCH_COPIES, copy_rows}},
                                of_images[] = {{"forward", BENCH_READS, read_images},
                                               {"in-place", BENCH_IN_PLACE, scale_images},
                                               {"out-of-place", BENCH_COPIES, copy_images}};

/* Rows that kernels take several at a time, small outputs, and images that are not of whole strips go otherwise. */
static const size_t least_classes = 1000, streamed_bytes = 8u << 20;

const struct bench_order *bench_orders(struct bench_shape shape, size_t *count)
{
    const bool streamed = shape.rows * shape.classes * sizeof(float) >= streamed_bytes;
    const bool known = shape.inner ? shape.inner % STEP == 0 : shape.classes >= least_classes;
    *count = !known || !__builtin_cpu_supports("avx2") ? 0 : streamed ? 3 : 2;
    return shape.inner ? of_images : rows;
}

#else

const struct bench_order *bench_orders(struct bench_shape shape, size_t *count)
{
    (void)shape;
    *count = 0;
    return NULL;
}

#endif
