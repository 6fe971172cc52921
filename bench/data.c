/*
 * The data of the bench: logits that are normal * 3, random targets, and a scratch array of the same size.
 */
#include "bench.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t seed = 20260401;
static struct bench_data data;
static size_t capacity, row_capacity;

uint64_t bench_seed(void)
{
    return seed;
}

void bench_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("xent-bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* splitmix64 (Steele, Lea & Flood 2014): any state gives a well-mixed 64-bit value. */
static uint64_t next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Two normal deviates by Box and Muller from two uniforms of 32 bits. The first is never 0, for the logarithm's sake.
 */
static void normal_pair(uint64_t *state, float pair[2])
{
    uint64_t bits = next(state);
    float u = ((float)(uint32_t)bits + 1.0f) * 0x1p-32f;
    float angle = (float)(uint32_t)(bits >> 32) * (0x1p-32f * 6.2831853f);
    float radius = sqrtf(-2.0f * logf(u));
    pair[0] = radius * cosf(angle);
    pair[1] = radius * sinf(angle);
}

static void *allocate(size_t size)
{
    /* Cache lines keep vectors from straddling two of them; ordinary pages are what an engine's buffers have. */
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!memory)
        bench_fail("no memory for %zu MB", size >> 20);
    return memory;
}

const struct bench_data *bench_reserve(size_t count, size_t rows)
{
    count = (count + BENCH_BLOCK - 1) / BENCH_BLOCK * BENCH_BLOCK;
    if (count > capacity) {
        free(data.logits);
        free(data.work);
        data.logits = allocate(count * sizeof(float));
        data.work = allocate(count * sizeof(float));
        uint64_t state = seed;
        for (size_t i = 0; i < count; i += 2) {
            normal_pair(&state, data.logits + i);
            data.logits[i] *= 3.0f;
            data.logits[i + 1] *= 3.0f;
        }
        capacity = count;
        bench_restore(count);
    }
    if (rows > row_capacity) {
        free(data.loss);
        free(data.targets);
        data.loss = allocate(rows * sizeof(float));
        data.targets = allocate(rows * sizeof(int32_t));
        memset(data.loss, 0, rows * sizeof(float));
        row_capacity = rows;
    }
    return &data;
}

void bench_targets(size_t rows, size_t classes)
{
    uint64_t state = seed ^ classes;
    for (size_t i = 0; i < rows; i++)
        data.targets[i] = (int32_t)(next(&state) % classes);
}

/* In pieces, because a large memcpy takes streaming stores on some systems, and would leave the caches without the
   array that a small shape is to find there. */
void bench_restore(size_t count)
{
    const size_t piece = 16384;
    for (size_t i = 0; i < count; i += piece)
        memcpy(data.work + i, data.logits + i, (count - i < piece ? count - i : piece) * sizeof(float));
}
