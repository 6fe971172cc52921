/*
 * Measuring the accuracy of a row's results, and keeping the worst case of each quantity with the row that attains it.
 */
#ifndef XENT_TESTS_MEASURE_H
#define XENT_TESTS_MEASURE_H

#include "reference.h"
#include "support.h"

enum quantity { LOSS, TARGET_GRADIENT, GRADIENT, SOFTMAX, LOG_SOFTMAX, LSE, QUANTITIES };

/* The worst case so far and where it was met. */
struct worst {
    struct distance distance;
    size_t classes, row, target, index;
    float got, first[3]; /* the first logits: for the shortest rows all of them */
};

/* A row, its results and their worst cases. */
struct measure {
    float *x, *grad, *probs, *log_probs;
    struct reference reference;
    struct worst worst[QUANTITIES];
};

void measure_init(struct measure *measure, size_t max_classes);
void measure_clear(struct measure *measure);

/* Runs the kernel in use on the row in x. row is the number it is reported by. */
void measure_row(struct measure *measure, size_t classes, size_t target, size_t row);

/* Prints the worst case of every quantity, then fails if one is past its bound. */
void measure_judge(const struct measure *measure, const char *family);

#endif
