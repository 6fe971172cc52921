/*
 * A call of every public function, of every shape that the library treats apart, for tests of what surrounds a call:
 * its floating-point environment, the registers, memory and signals. tools/hygiene checks that no function is missing.
 */
#ifndef XENT_TESTS_EVERY_H
#define XENT_TESTS_EVERY_H

#include "support.h"

enum { EVERY_ELEMENTS = 1 << 15, EVERY_ROWS = 64 };

/* Inputs, and room for the outputs of one call at a time. */
struct every {
    float x[EVERY_ELEMENTS], t[EVERY_ELEMENTS], w[EVERY_ELEMENTS];
    float out[EVERY_ELEMENTS], loss[EVERY_ELEMENTS], lse[EVERY_ROWS];
    double x64[EVERY_ELEMENTS], w64[EVERY_ELEMENTS], out64[EVERY_ELEMENTS], loss64[EVERY_ROWS];
    int32_t y32[EVERY_ROWS * 2];
    int64_t y64[EVERY_ROWS * 2];
    uint8_t y8[EVERY_ROWS * 2];
    uint16_t y16[EVERY_ROWS * 2];
    size_t rows, classes;
};

/* The same inputs every time; calls leave them alone. */
struct every *every_new(void);

extern const size_t every_count;

/* Makes call number i by the kernel in use, and nothing else: no memory, no failure, no output. */
void every_run(struct every *every, size_t i);

/* What that call has returned and written, as one number. */
uint64_t every_hash(const struct every *every);

/* Clears the outputs and makes the call. */
uint64_t every_result(struct every *every, size_t i);

/* For the name of a case. */
struct every_text {
    char text[96];
};
struct every_text every_describe(size_t i);

#endif
