/*
 * The control bits of the floating-point environment, which are the caller's: MXCSR on x86, FPCR on aarch64.
 */
#ifndef XENT_TESTS_FPCONTROL_H
#define XENT_TESTS_FPCONTROL_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>

/* Everything but the six sticky exception flags. */
static const uint64_t fp_control_mask = 0xffc0;
/* Flush to zero and denormals are zero. */
static const uint64_t fp_control_flush = 0x8040;
/* Flush to zero, and denormals are zero, each by itself. */
static const uint64_t fp_control_flushes[] = {0x8000, 0x0040};
static const uint64_t fp_control_round_up = 0x4000;
/* Both bits: all four modes. */
static const uint64_t fp_control_rounding = 0x6000;
/* The masks of all exceptions but the inexact one, which any program raises: 0 makes traps of them. */
static const uint64_t fp_control_masks = 0xf80, fp_control_traps = 0;

static inline uint64_t fp_control_get(void)
{
    return _mm_getcsr();
}

static inline void fp_control_set(uint64_t control)
{
    _mm_setcsr((unsigned)control);
}

#elif defined(__aarch64__)

static const uint64_t fp_control_mask = 0xffffffff;
/* FZ: flushes inputs and results. */
static const uint64_t fp_control_flush = 1u << 24;
static const uint64_t fp_control_flushes[] = {1u << 24, 1u << 19}; /* FZ and FZ16 */
static const uint64_t fp_control_round_up = 1u << 22;
static const uint64_t fp_control_rounding = 3u << 22;
/* Traps of all exceptions but the inexact one, on processors that have them. */
static const uint64_t fp_control_masks = 0, fp_control_traps = 0x8f00;

static inline uint64_t fp_control_get(void)
{
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return control;
}

static inline void fp_control_set(uint64_t control)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(control) : "memory");
}

#else

static const uint64_t fp_control_mask = 0;
static const uint64_t fp_control_flush = 0;
static const uint64_t fp_control_flushes[] = {0, 0};
static const uint64_t fp_control_round_up = 0;
static const uint64_t fp_control_rounding = 0;
static const uint64_t fp_control_masks = 0, fp_control_traps = 0;

static inline uint64_t fp_control_get(void)
{
    return 0;
}

static inline void fp_control_set(uint64_t control)
{
    (void)control;
}

#endif

#endif
