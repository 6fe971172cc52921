/* Trains the demo's bigram model by plain stochastic gradient descent, every batch in one call of xent_fused_f32. */
#include "train.h"

#include "tool.h"

#include <math.h>
#include <string.h>

#include <xent/xent.h>

enum { MAX_BATCH = 256, STEPS = 12000 };

/*
 * Learning rates, for the most frequent symbol: its share of the pairs divides them, since a symbol's row of the table
 * gets its share of the mean gradient. The curvature of softmax cross entropy is at most 1/2, so descent is stable
 * below 4. It starts above that, as the gradient is bounded and an overshoot comes back, to reach the rows of rare
 * symbols; it ends below, for the noise of the batches to die down.
 */
#define FIRST_RATE 8.0f
#define LAST_RATE 0.2f

void bigrams_count(struct bigrams *bigrams, const struct text *text)
{
    memset(bigrams, 0, sizeof *bigrams);
    bigrams->pairs = text->length - 1;
    for (size_t i = 0; i + 1 < text->length; i++)
        bigrams->of[text->symbols[i]][text->symbols[i + 1]]++;
    for (size_t a = 0; a < SYMBOLS; a++)
        for (size_t b = 0; b < SYMBOLS; b++)
            bigrams->of_first[a] += bigrams->of[a][b];
}

double bigrams_entropy(const struct bigrams *bigrams)
{
    double sum = 0.0;
    for (size_t a = 0; a < SYMBOLS; a++)
        for (size_t b = 0; b < SYMBOLS; b++) {
            double count = (double)bigrams->of[a][b];
            if (count > 0.0)
                sum += count * log((double)bigrams->of_first[a] / count);
        }
    return sum / (double)bigrams->pairs;
}

double bigrams_loss(const struct bigrams *bigrams, const struct table *table)
{
    /* One row for each of the pairs that a text can have, weighted by how often this text has it. */
    float logits[SYMBOLS * SYMBOLS][SYMBOLS], loss[SYMBOLS * SYMBOLS];
    int32_t targets[SYMBOLS * SYMBOLS];
    for (size_t a = 0; a < SYMBOLS; a++)
        for (size_t b = 0; b < SYMBOLS; b++) {
            memcpy(logits[a * SYMBOLS + b], table->row[a], sizeof table->row[a]);
            targets[a * SYMBOLS + b] = (int32_t)b;
        }
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = XENT_NONE;
    require(xent_fused_f32(logits[0], targets, SYMBOLS * SYMBOLS, SYMBOLS, loss, NULL, &options));

    double sum = 0.0;
    for (size_t a = 0; a < SYMBOLS; a++)
        for (size_t b = 0; b < SYMBOLS; b++)
            sum += (double)bigrams->of[a][b] * (double)loss[a * SYMBOLS + b];
    return sum / (double)bigrams->pairs;
}

bool trainer_init(struct trainer *trainer, const struct text *text, const struct bigrams *bigrams, uint64_t seed)
{
    uint64_t most = 0;
    for (size_t a = 0; a < SYMBOLS; a++)
        if (bigrams->of_first[a] > most)
            most = bigrams->of_first[a];
    float share = (float)((double)most / (double)bigrams->pairs);

    memset(trainer, 0, sizeof *trainer);
    trainer->text = text;
    trainer->random = seed;
    trainer->pairs = text->length - 1;
    trainer->batch = trainer->pairs < MAX_BATCH ? trainer->pairs : MAX_BATCH;
    trainer->steps = STEPS;
    trainer->first_rate = FIRST_RATE / share;
    trainer->last_rate = LAST_RATE / share;
    trainer->logits = malloc(trainer->batch * SYMBOLS * sizeof *trainer->logits);
    trainer->firsts = malloc(trainer->batch * sizeof *trainer->firsts);
    trainer->targets = malloc(trainer->batch * sizeof *trainer->targets);
    if (!trainer->logits || !trainer->firsts || !trainer->targets) {
        complain("out of memory for a batch of %zu", trainer->batch);
        trainer_free(trainer);
        return false;
    }
    return true;
}

void trainer_free(struct trainer *trainer)
{
    free(trainer->logits);
    free(trainer->firsts);
    free(trainer->targets);
}

float trainer_step(struct trainer *trainer, size_t step)
{
    float *logits = trainer->logits;
    bool whole = trainer->batch == trainer->pairs;

    /* Gather: a pair of neighbours is a row of logits and its target. */
    for (size_t i = 0; i < trainer->batch; i++) {
        size_t at = whole ? i : (size_t)(random_next(&trainer->random) % trainer->pairs);
        trainer->firsts[i] = trainer->text->symbols[at];
        trainer->targets[i] = trainer->text->symbols[at + 1];
        memcpy(logits + i * SYMBOLS, trainer->table.row[trainer->firsts[i]], sizeof trainer->table.row[0]);
    }

    /* Loss and gradient, in place of the logits. */
    float loss;
    require(xent_fused_f32(logits, trainer->targets, trainer->batch, SYMBOLS, &loss, logits, NULL));

    /* Scatter the gradient back onto the rows it came from, and go down it. */
    struct table gradient = {{{0.0f}}};
    for (size_t i = 0; i < trainer->batch; i++)
        for (size_t b = 0; b < SYMBOLS; b++)
            gradient.row[trainer->firsts[i]][b] += logits[i * SYMBOLS + b];
    float fall = (float)step / (float)trainer->steps;
    float rate = trainer->first_rate * powf(trainer->last_rate / trainer->first_rate, fall);
    for (size_t a = 0; a < SYMBOLS; a++)
        for (size_t b = 0; b < SYMBOLS; b++)
            trainer->table.row[a][b] -= rate * gradient.row[a][b];
    return loss;
}
