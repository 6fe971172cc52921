/*
 * The demo's model: one row of logits for each symbol, for the symbol that follows it.
 *
 *     p(b after a) = softmax(row[a])_b        loss = mean over the text's pairs of -log p(b after a)
 *
 * The least loss that any such table has is the text's conditional entropy, which counting gives exactly.
 */
#ifndef XENT_TOOLS_TRAIN_H
#define XENT_TOOLS_TRAIN_H

#include <stdint.h>

#include "text.h"

struct bigrams {
    uint64_t pairs;
    uint64_t of[SYMBOLS][SYMBOLS]; /* [first][second] */
    uint64_t of_first[SYMBOLS];
};

void bigrams_count(struct bigrams *bigrams, const struct text *text);

/* In nats: -sum over pairs (a, b) of p(a, b) log p(b after a). */
double bigrams_entropy(const struct bigrams *bigrams);

struct table {
    float row[SYMBOLS][SYMBOLS];
};

/* The mean loss over all pairs of the model whose logits are table. */
double bigrams_loss(const struct bigrams *bigrams, const struct table *table);

struct trainer {
    const struct text *text;
    uint64_t random;
    size_t pairs;
    size_t batch; /* pairs in a step: all of them, in order, when they are few */
    size_t steps;
    float first_rate, last_rate; /* the learning rate falls from one to the other by the same factor each step */

    struct table table;
    float *logits;         /* [batch][SYMBOLS], and then their gradient */
    unsigned char *firsts; /* [batch] */
    int32_t *targets;      /* [batch] */
};

/* A trainer with a table of zeros. On failure says why and returns false; on success the caller owes trainer_free. */
bool trainer_init(struct trainer *trainer, const struct text *text, const struct bigrams *bigrams, uint64_t seed);
void trainer_free(struct trainer *trainer);

/* Take the given step, from 0 to steps - 1; returns the loss of its batch before it. */
float trainer_step(struct trainer *trainer, size_t step);

#endif
