/*
 * What every suite shares: reproducible random numbers, the bits of floats, the name of the running case for failure
 * messages, a shorthand for picking kernels, and the start of a test program.
 *
 * XENT_TEST_SEED chooses the random numbers (a fixed default makes runs repeatable), XENT_TEST_SCALE how much work is
 * done: 1 takes seconds, 0.1 suits an emulator, 100 a night.
 */
#ifndef XENT_TESTS_SUPPORT_H
#define XENT_TESTS_SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xent/xent.h>

/* SplitMix64: the same numbers on every system, and any two streams of a seed are independent. */
struct rng {
    uint64_t state;
};

struct rng rng_stream(uint64_t stream);
uint64_t rng_next(struct rng *rng);
size_t rng_below(struct rng *rng, size_t bound); /* [0, bound) */
bool rng_chance(struct rng *rng, double chance); /* true that often */
double rng_uniform(struct rng *rng, double low, double high);
float rng_normal(struct rng *rng); /* mean 0, variance 1, within +-6 */

uint64_t test_seed(void);
double test_scale(void);
/* How many of n random cases to do: n times the scale, at least 1. */
size_t scaled(size_t n);
/* Whether to do one of many enumerated cases: always at a scale of 1 or more, else that often. */
bool scaled_chance(struct rng *rng);

/* Names what runs now, for failure messages and for the report of a fault. */
void name_case(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Adds to that name, until the next of either. */
void name_detail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the test: the message, the case and the seed. */
_Noreturn void fail_case(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A comment line of the TAP output. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Fails unless the bits are the same; what names the value. */
void expect_bits(const char *what, float got, float expected);
void expect_nan(const char *what, float got);
void expect_finite(const char *what, float got);
void expect_status(const char *what, xent_status got, xent_status expected);

/* Distance in units in the last place of the float binade of exact (2^-149 at least). */
double ulps(float got, double exact);
void expect_within(const char *what, float got, double exact, double max_ulps);

/* The named kernel from here on; it is one of xent_isas(). */
void use_kernel(const char *isa);

/* malloc that cannot fail, aligned to a cache line. */
void *allocate(size_t bytes);

/* Adds a test case without Check's own time limit (Meson has one) to a suite. */
TCase *add_case(Suite *suite, const char *name);

/* Runs a suite, TAP on stdout. Returns what main returns. */
int run_suite(Suite *suite);

#endif
