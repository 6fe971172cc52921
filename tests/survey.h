/*
 * Accuracy at scale: the worst cases among millions of rows of a family, of xent's results and of anybody else's. Built
 * as a shared object for tools/accuracy. Every function may be called from several threads.
 */
#ifndef XENT_TESTS_SURVEY_H
#define XENT_TESTS_SURVEY_H

#include <stddef.h>
#include <stdint.h>

/*
 * What the errors are measured in. Of plain targets: in ULP, and for lse in parts of its bound. Of targets with more
 * than one class terms may cancel: the loss in parts of its bound, the gradient in ULP of the larger of its two terms.
 */
enum survey_quantity { SURVEY_LOSS, SURVEY_TARGET, SURVEY_GRADIENT, SURVEY_LSE, SURVEY_QUANTITIES };

enum survey_kind {
    SURVEY_PLAIN,
    SURVEY_SMOOTHING,         /* 0.1 */
    SURVEY_WEIGHTS,           /* of classes: from e^-4 to e^3, one in five 0 */
    SURVEY_SMOOTHING_WEIGHTS, /* both */
    SURVEY_LABELS,            /* three labels with probabilities */
    SURVEY_PROBABILITIES,     /* of all classes */
    SURVEY_EVERYTHING,        /* probabilities, smoothing, weights of classes and rows, dloss */
    SURVEY_KINDS
};

struct survey_worst {
    double error; /* -1: nothing measured */
    double got, exact;
    uint64_t row, index;
};

/* The number of a family, or -1. */
int survey_family(const char *name);

/* Rows [first, first + count) of a family, one after the other, and their targets. */
void survey_rows(size_t family, size_t classes, size_t first, size_t count, float *x, int32_t *targets);

/* Runs xent on them and keeps worse cases in worst[SURVEY_QUANTITIES]. 0, or a status. */
int survey_run(size_t family, size_t classes, size_t first, size_t count, int kind, struct survey_worst *worst);

/* Measures somebody's losses and gradients of these rows, with plain targets. */
void survey_judge(size_t classes, size_t first, size_t count, const float *x, const int32_t *targets,
                  const float *losses, const float *gradients, struct survey_worst *worst);

/* The error of a worst case of plain or other targets with the exact value by MPFR. */
double survey_verify(size_t family, size_t classes, int kind, int quantity, const struct survey_worst *worst);

/* Binary cross entropy of elements, taken from rows of the family: soft targets or hard ones. worst[SURVEY_GRADIENT] is
   of gradients that are at least 2^-26 of their terms, SURVEY_LSE of the others, in parts of their bound. */
int survey_bce(size_t family, size_t first, size_t count, int soft, struct survey_worst *worst);

/* The worst relative error of the reference's exp, in 2^-64, by MPFR. */
double survey_check_exp(size_t points);

#endif
