/*
 * The caller's control bits put aside for as long as a call computes, so that they change no result, and end no
 * program: those that flush subnormal numbers or take them for zero, the rounding mode, and which exceptions are traps.
 *
 * What lies between the two functions must be one that is not inlined, or compilers may move arithmetic out of it.
 */
#ifndef XENT_DISPATCH_CONTROL_H
#define XENT_DISPATCH_CONTROL_H

#include <stdint.h>

#if defined(__x86_64__) || defined(__SSE2__)
#include <xmmintrin.h>

static inline uint64_t control_get(void)
{
    return _mm_getcsr();
}

static inline void control_set(uint64_t control)
{
    _mm_setcsr((unsigned)control);
}

#define CONTROL_BITS 0xffc0  /* flush to zero, the rounding mode, masks of exceptions, denormals are zero */
#define CONTROL_USUAL 0x1f80 /* no exception is a trap */

#elif defined(__aarch64__)

static inline uint64_t control_get(void)
{
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control) : : "memory");
    return control;
}

static inline void control_set(uint64_t control)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(control) : "memory");
}

#define CONTROL_BITS 0x1c09f07 /* FZ, RMode, traps of exceptions; FIZ, AH and NEP, which are 0 without FEAT_AFP */
#define CONTROL_USUAL 0

#else

static inline uint64_t control_get(void)
{
    return 0;
}

static inline void control_set(uint64_t control)
{
    (void)control;
}

#define CONTROL_BITS 0
#define CONTROL_USUAL 0

#endif

/* Sets the bits as they usually are, and returns what to give to control_restore. */
static inline uint64_t control_put_aside(void)
{
    const uint64_t control = control_get(), bits = CONTROL_BITS;
    if ((control & bits) != CONTROL_USUAL)
        control_set((control & ~bits) | CONTROL_USUAL);
    return control & bits;
}

/* The exception flags that were raised meanwhile stay. */
static inline void control_restore(uint64_t saved)
{
    const uint64_t bits = CONTROL_BITS;
    if (saved != CONTROL_USUAL)
        control_set((control_get() & ~bits) | saved);
}

#endif
