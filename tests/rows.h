/*
 * Hostile rows of logits: every kind that an implementation treats apart, and the mixtures between them.
 */
#ifndef XENT_TESTS_ROWS_H
#define XENT_TESTS_ROWS_H

#include "support.h"

/* Kinds of row that row_fill knows. */
extern const size_t row_kinds;
const char *row_kind_name(size_t kind);

/* target: the class that a caller is going to ask for; some kinds put something there or spare it. */
void row_fill(struct rng *rng, size_t kind, float *row, size_t classes, size_t target);

/* Single logits on which implementations disagree: NaNs of every make, infinities, edges of every range. */
extern const size_t row_specials;
float row_special(size_t index);

/* A row whose first blocks are ordinary and in which something out of the ordinary starts at class from. */
void row_fill_late(struct rng *rng, float *row, size_t classes, size_t from, float late);

/* The class counts worth a visit: around every multiple that a vector, a block or a chunk may have. */
extern const size_t row_sizes[];
extern const size_t row_size_count;

#endif
