/*
 * Gradual underflow for a while: the caller's flush-to-zero and denormals-are-zero bits put aside.
 *
 * Plain targets are computed without subnormal arithmetic, so that those bits change nothing. Target distributions may
 * hold anything (a probability of 10^-40, a weight as small), and are computed with the bits off.
 */
#ifndef XENT_KERNELS_CONTROL_H
#define XENT_KERNELS_CONTROL_H

#include <stdint.h>

#if defined(__x86_64__) || defined(__SSE2__)
#include <xmmintrin.h>

/* Turns the bits off, and returns what to give to control_restore. */
static inline uint64_t control_gradual(void)
{
    const unsigned flush = 0x8040, saved = _mm_getcsr();
    if (saved & flush)
        _mm_setcsr(saved & ~flush);
    return saved & flush;
}

/* The exception flags that were raised meanwhile stay. */
static inline void control_restore(uint64_t saved)
{
    if (saved)
        _mm_setcsr(_mm_getcsr() | (unsigned)saved);
}

#elif defined(__aarch64__)

static inline uint64_t control_gradual(void)
{
    const uint64_t flush = UINT64_C(1) << 24;
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved) : : "memory");
    if (saved & flush)
        __asm__ volatile("msr fpcr, %0" : : "r"(saved & ~flush) : "memory");
    return saved & flush;
}

static inline void control_restore(uint64_t saved)
{
    uint64_t now;
    __asm__ volatile("mrs %0, fpcr" : "=r"(now) : : "memory");
    if (saved)
        __asm__ volatile("msr fpcr, %0" : : "r"(now | saved) : "memory");
}

#else

static inline uint64_t control_gradual(void)
{
    return 0;
}

static inline void control_restore(uint64_t saved)
{
    (void)saved;
}

#endif

#endif
