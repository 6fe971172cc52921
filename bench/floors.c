/*
 * The floors: the fastest ways we know to read, scale and copy an array, with which every call is compared.
 *
 * Which way is fastest depends on the CPU and on where the array lies, so that each floor has variants and the fastest
 * of one run counts. Measured on Zen 4 with arrays in DRAM: 256-bit loads read 10 % faster than 512-bit ones, and two
 * streams (both halves of the array at once) another 10 %; four streams and software prefetch did not help. On Intel's
 * Ice Lake lines fetched from eight pages at once (kernels/overlap.h) read another 5 to 15 % faster.
 */
#include "bench.h"

#include <string.h>

/* Keeps the compiler from dropping a sum that nobody uses. */
static _Thread_local volatile float sink;

/*
 * A walk takes block floats at a time, half a block each from two places: side by side, or a half of the array apart.
 */
struct walk {
    size_t blocks;
    size_t step;    /* from one block's first place to the next one's */
    size_t second;  /* from a block's first place to its second */
    size_t fetched; /* floats of a block that stand for others to be fetched */
};

static inline struct walk walk_by(size_t count, size_t block, enum bench_walk way)
{
    const bool halves = way == BENCH_HALVES;
    return (struct walk){count / block, halves ? block / 2 : block, halves ? count / 2 : block / 2,
                         way == BENCH_PAGES ? block : 0};
}

static void read_c(const float *from, float *to, size_t count, enum bench_walk way)
{
    (void)to;
    float sums[32] = {0};
    struct walk w = walk_by(count, 32, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step)
        for (size_t k = 0; k < 16; k++) {
            sums[k] += from[k];
            sums[16 + k] += from[w.second + k];
        }
    for (size_t k = 1; k < 32; k++)
        sums[0] += sums[k];
    sink = sums[0];
}

static void scale_c(const float *from, float *to, size_t count, enum bench_walk way)
{
    (void)from;
    (void)way;
    for (size_t i = 0; i < count; i++)
        to[i] *= 0.75f;
}

static void copy_c(const float *from, float *to, size_t count, enum bench_walk way)
{
    (void)way;
    memcpy(to, from, count * sizeof(float));
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx512f"))) static void read_avx512(const float *from, float *to, size_t count,
                                                           enum bench_walk way)
{
    (void)to;
    __m512 a[4], b[4];
    for (size_t k = 0; k < 4; k++)
        a[k] = b[k] = _mm512_setzero_ps();
    struct walk w = walk_by(count, 128, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 4; k++) {
            a[k] = _mm512_add_ps(a[k], _mm512_load_ps(from + 16 * k));
            b[k] = _mm512_add_ps(b[k], _mm512_load_ps(from + w.second + 16 * k));
        }
    }
    for (size_t k = 0; k < 4; k++)
        a[k] = _mm512_add_ps(a[k], b[k]);
    sink = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a[0], a[1]), _mm512_add_ps(a[2], a[3])));
}

__attribute__((target("avx512f"))) static void scale_avx512(const float *from, float *to, size_t count,
                                                            enum bench_walk way)
{
    (void)from;
    const __m512 factor = _mm512_set1_ps(0.75f);
    struct walk w = walk_by(count, 64, way);
    for (size_t i = 0; i < w.blocks; i++, to += w.step) {
        bench_fetch_pages(to, w.fetched);
        for (size_t k = 0; k < 2; k++) {
            float *a = to + 16 * k, *b = to + w.second + 16 * k;
            _mm512_store_ps(a, _mm512_mul_ps(_mm512_load_ps(a), factor));
            _mm512_store_ps(b, _mm512_mul_ps(_mm512_load_ps(b), factor));
        }
    }
}

__attribute__((target("avx512f"))) static void stream_avx512(const float *from, float *to, size_t count,
                                                             enum bench_walk way)
{
    struct walk w = walk_by(count, 64, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step, to += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 2; k++) {
            _mm512_stream_ps(to + 16 * k, _mm512_load_ps(from + 16 * k));
            _mm512_stream_ps(to + w.second + 16 * k, _mm512_load_ps(from + w.second + 16 * k));
        }
    }
    _mm_sfence();
}

__attribute__((target("avx512f"))) static void copy_avx512(const float *from, float *to, size_t count,
                                                           enum bench_walk way)
{
    struct walk w = walk_by(count, 64, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step, to += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 2; k++) {
            _mm512_store_ps(to + 16 * k, _mm512_load_ps(from + 16 * k));
            _mm512_store_ps(to + w.second + 16 * k, _mm512_load_ps(from + w.second + 16 * k));
        }
    }
}

__attribute__((target("avx2"))) static void read_avx2(const float *from, float *to, size_t count, enum bench_walk way)
{
    (void)to;
    __m256 a[4], b[4];
    for (size_t k = 0; k < 4; k++)
        a[k] = b[k] = _mm256_setzero_ps();
    struct walk w = walk_by(count, 64, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 4; k++) {
            a[k] = _mm256_add_ps(a[k], _mm256_load_ps(from + 8 * k));
            b[k] = _mm256_add_ps(b[k], _mm256_load_ps(from + w.second + 8 * k));
        }
    }
    for (size_t k = 0; k < 4; k++)
        a[k] = _mm256_add_ps(a[k], b[k]);
    float lanes[8];
    _mm256_storeu_ps(lanes, _mm256_add_ps(_mm256_add_ps(a[0], a[1]), _mm256_add_ps(a[2], a[3])));
    sink = lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] + lanes[6] + lanes[7];
}

__attribute__((target("avx2"))) static void scale_avx2(const float *from, float *to, size_t count, enum bench_walk way)
{
    (void)from;
    const __m256 factor = _mm256_set1_ps(0.75f);
    struct walk w = walk_by(count, 64, way);
    for (size_t i = 0; i < w.blocks; i++, to += w.step) {
        bench_fetch_pages(to, w.fetched);
        for (size_t k = 0; k < 4; k++) {
            float *a = to + 8 * k, *b = to + w.second + 8 * k;
            _mm256_store_ps(a, _mm256_mul_ps(_mm256_load_ps(a), factor));
            _mm256_store_ps(b, _mm256_mul_ps(_mm256_load_ps(b), factor));
        }
    }
}

__attribute__((target("avx2"))) static void stream_avx2(const float *from, float *to, size_t count, enum bench_walk way)
{
    struct walk w = walk_by(count, 64, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step, to += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 4; k++) {
            _mm256_stream_ps(to + 8 * k, _mm256_load_ps(from + 8 * k));
            _mm256_stream_ps(to + w.second + 8 * k, _mm256_load_ps(from + w.second + 8 * k));
        }
    }
    _mm_sfence();
}

__attribute__((target("avx2"))) static void copy_avx2(const float *from, float *to, size_t count, enum bench_walk way)
{
    struct walk w = walk_by(count, 64, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step, to += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 4; k++) {
            _mm256_store_ps(to + 8 * k, _mm256_load_ps(from + 8 * k));
            _mm256_store_ps(to + w.second + 8 * k, _mm256_load_ps(from + w.second + 8 * k));
        }
    }
}

#elif defined(__aarch64__)
#include <arm_neon.h>

static void read_neon(const float *from, float *to, size_t count, enum bench_walk way)
{
    (void)to;
    float32x4_t a[4], b[4];
    for (size_t k = 0; k < 4; k++)
        a[k] = b[k] = vdupq_n_f32(0.0f);
    struct walk w = walk_by(count, 32, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 4; k++) {
            a[k] = vaddq_f32(a[k], vld1q_f32(from + 4 * k));
            b[k] = vaddq_f32(b[k], vld1q_f32(from + w.second + 4 * k));
        }
    }
    for (size_t k = 0; k < 4; k++)
        a[k] = vaddq_f32(a[k], b[k]);
    sink = vaddvq_f32(vaddq_f32(vaddq_f32(a[0], a[1]), vaddq_f32(a[2], a[3])));
}

static void scale_neon(const float *from, float *to, size_t count, enum bench_walk way)
{
    (void)from;
    struct walk w = walk_by(count, 32, way);
    for (size_t i = 0; i < w.blocks; i++, to += w.step) {
        bench_fetch_pages(to, w.fetched);
        for (size_t k = 0; k < 4; k++) {
            float *a = to + 4 * k, *b = to + w.second + 4 * k;
            vst1q_f32(a, vmulq_n_f32(vld1q_f32(a), 0.75f));
            vst1q_f32(b, vmulq_n_f32(vld1q_f32(b), 0.75f));
        }
    }
}

/* gcc has no intrinsic for STNP, the store pair that hints at streaming. */
static inline void stream_pair(float *to, float32x4_t low, float32x4_t high)
{
    __asm__ volatile("stnp %q0, %q1, [%2]" : : "w"(low), "w"(high), "r"(to) : "memory");
}

static void stream_neon(const float *from, float *to, size_t count, enum bench_walk way)
{
    struct walk w = walk_by(count, 32, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step, to += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 16; k += 8) {
            const float *second = from + w.second;
            stream_pair(to + k, vld1q_f32(from + k), vld1q_f32(from + k + 4));
            stream_pair(to + w.second + k, vld1q_f32(second + k), vld1q_f32(second + k + 4));
        }
    }
}

static void copy_neon(const float *from, float *to, size_t count, enum bench_walk way)
{
    struct walk w = walk_by(count, 32, way);
    for (size_t i = 0; i < w.blocks; i++, from += w.step, to += w.step) {
        bench_fetch_pages(from, w.fetched);
        for (size_t k = 0; k < 4; k++) {
            vst1q_f32(to + 4 * k, vld1q_f32(from + 4 * k));
            vst1q_f32(to + w.second + 4 * k, vld1q_f32(from + w.second + 4 * k));
        }
    }
}
#endif

/* The widest come first, and plain C last: a CPU runs the tail of the table from the first entry that it can run. */
static const struct bench_floor floors[] = {
#if defined(__x86_64__)
    {"read", "avx512", 4, false, BENCH_IN_ORDER, read_avx512},
    {"read", "avx512-halves", 4, false, BENCH_HALVES, read_avx512},
    {"read", "avx512-pages", 4, false, BENCH_PAGES, read_avx512},
    {"scale", "avx512", 8, true, BENCH_IN_ORDER, scale_avx512},
    {"scale", "avx512-halves", 8, true, BENCH_HALVES, scale_avx512},
    {"scale", "avx512-pages", 8, true, BENCH_PAGES, scale_avx512},
    {"stream", "avx512", 8, false, BENCH_IN_ORDER, stream_avx512},
    {"stream", "avx512-halves", 8, false, BENCH_HALVES, stream_avx512},
    {"stream", "avx512-pages", 8, false, BENCH_PAGES, stream_avx512},
    {"copy", "avx512", 8, false, BENCH_IN_ORDER, copy_avx512},
    {"read", "avx2", 4, false, BENCH_IN_ORDER, read_avx2},
    {"read", "avx2-halves", 4, false, BENCH_HALVES, read_avx2},
    {"read", "avx2-pages", 4, false, BENCH_PAGES, read_avx2},
    {"scale", "avx2", 8, true, BENCH_IN_ORDER, scale_avx2},
    {"scale", "avx2-halves", 8, true, BENCH_HALVES, scale_avx2},
    {"scale", "avx2-pages", 8, true, BENCH_PAGES, scale_avx2},
    {"stream", "avx2", 8, false, BENCH_IN_ORDER, stream_avx2},
    {"stream", "avx2-halves", 8, false, BENCH_HALVES, stream_avx2},
    {"stream", "avx2-pages", 8, false, BENCH_PAGES, stream_avx2},
    {"copy", "avx2", 8, false, BENCH_IN_ORDER, copy_avx2},
#elif defined(__aarch64__)
    {"read", "neon", 4, false, BENCH_IN_ORDER, read_neon},
    {"read", "neon-halves", 4, false, BENCH_HALVES, read_neon},
    {"read", "neon-pages", 4, false, BENCH_PAGES, read_neon},
    {"scale", "neon", 8, true, BENCH_IN_ORDER, scale_neon},
    {"scale", "neon-halves", 8, true, BENCH_HALVES, scale_neon},
    {"scale", "neon-pages", 8, true, BENCH_PAGES, scale_neon},
    {"stream", "neon", 8, false, BENCH_IN_ORDER, stream_neon},
    {"stream", "neon-halves", 8, false, BENCH_HALVES, stream_neon},
    {"stream", "neon-pages", 8, false, BENCH_PAGES, stream_neon},
    {"copy", "neon", 8, false, BENCH_IN_ORDER, copy_neon},
#endif
    {"read", "c", 4, false, BENCH_IN_ORDER, read_c},
    {"read", "c-halves", 4, false, BENCH_HALVES, read_c},
    {"scale", "c", 8, true, BENCH_IN_ORDER, scale_c},
    {"copy", "c", 8, false, BENCH_IN_ORDER, copy_c},
};

static bool can_run(const struct bench_floor *floor)
{
#if defined(__x86_64__)
    if (strncmp(floor->variant, "avx512", 6) == 0)
        return __builtin_cpu_supports("avx512f");
    if (strncmp(floor->variant, "avx2", 4) == 0)
        return __builtin_cpu_supports("avx2");
#endif
    (void)floor;
    return true;
}

const struct bench_floor *bench_floors(size_t *count)
{
    const struct bench_floor *first = floors;
    while (!can_run(first))
        first++;
    *count = (size_t)(floors + sizeof floors / sizeof *floors - first);
    return first;
}
