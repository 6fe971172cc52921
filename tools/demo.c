/* xent demo: trains the character model most people meet this loss with, and checks it against counting. */
#include "compare.h"
#include "plot.h"
#include "text.h"
#include "tool.h"
#include "train.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <xent/xent.h>

/* The check: the loss within 1% of the entropy. A text with almost no entropy (one word over and over) has a loss that
   only endless training brings to 0, so no less than 0.005 nats are allowed. */
static const double allowed_share = 0.01, allowed_least = 0.005;

enum { SAMPLES = 8, LONGEST_SAMPLE = 12 };

struct arguments {
    const char *path;
    uint64_t seed;
};

static bool parse_seed(const char *word, uint64_t *seed)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(word, &end, 10);
    if (errno != 0 || *end != '\0' || word[strspn(word, "0123456789")] != '\0' || word[0] == '\0')
        return false;
    *seed = value;
    return true;
}

/* 0, or the exit status of a usage error. */
static int parse(int argc, char **argv, struct arguments *arguments)
{
    bool options_over = false, has_path = false;
    *arguments = (struct arguments){"/usr/share/dict/words", 1};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *seed = NULL;
        if (!options_over && strcmp(word, "--") == 0) {
            options_over = true;
            continue;
        }
        if (!options_over && strcmp(word, "--seed") == 0) {
            if (++i == argc)
                return usage_error("--seed needs a number");
            seed = argv[i];
        } else if (!options_over && strncmp(word, "--seed=", 7) == 0) {
            seed = word + 7;
        } else if (!options_over && word[0] == '-' && word[1] != '\0') {
            return usage_error("unknown option '%s'", word);
        }
        if (seed) {
            if (!parse_seed(seed, &arguments->seed))
                return usage_error("'%s' is not a seed: it must be a whole number from 0 to 2^64 - 1", seed);
            continue;
        }
        if (has_path)
            return usage_error("demo takes one file, but got '%s' and '%s'", arguments->path, word);
        arguments->path = word;
        has_path = true;
    }
    return EXIT_SUCCESS;
}

static void print_text(const char *path, const struct text *text, const struct trainer *trainer)
{
    printf("%s: %zu words, %zu pairs of neighbours (27 classes: a-z and the boundary between words).\n", path,
           text->words, trainer->pairs);
    printf("A 27 x 27 table of logits, from zeros; %zu steps of plain SGD on batches of %zu; kernel %s.\n\n",
           trainer->steps, trainer->batch, xent_isa());
}

/* Train to the end. Fills points, one for each column that has a step; returns how many. */
static size_t train(struct trainer *trainer, const struct bigrams *bigrams, struct curve_point points[PLOT_COLUMNS])
{
    size_t count = 0, next_line = 1;
    double start = seconds_now();

    points[count++] = (struct curve_point){0, bigrams_loss(bigrams, &trainer->table)};
    printf("%6s  %8s  %11s  %11s  %8s\n", "step", "epoch", "batch loss", "whole loss", "seconds");
    printf("%6d  %8.2f  %11s  %11.4f  %8.2f\n", 0, 0.0, "", points[0].loss, 0.0);
    for (size_t step = 1; step <= trainer->steps; step++) {
        float batch_loss = trainer_step(trainer, step - 1);
        bool in_line = step == next_line || step == trainer->steps;
        bool in_plot =
            step == trainer->steps || plot_column(step, trainer->steps) != plot_column(step + 1, trainer->steps);
        if (!in_line && !in_plot)
            continue;
        double loss = bigrams_loss(bigrams, &trainer->table);
        if (in_plot)
            points[count++] = (struct curve_point){step, loss};
        if (in_line) {
            printf("%6zu  %8.2f  %11.4f  %11.4f  %8.2f\n", step,
                   (double)step * (double)trainer->batch / (double)trainer->pairs, (double)batch_loss, loss,
                   seconds_now() - start);
            show_output();
            next_line *= 2;
        }
    }
    return count;
}

/* Print the loss next to the entropy; false if they are not close. */
static bool check(double loss, double entropy)
{
    bool by_share = allowed_share * entropy >= allowed_least;
    bool close = fabs(loss - entropy) <= (by_share ? allowed_share * entropy : allowed_least);
    printf("loss over the whole text   %.6f nats\n", loss);
    printf("entropy, from the counts   %.6f nats\n", entropy);
    if (by_share)
        printf("ratio                      %.6f", loss / entropy);
    else
        printf("difference                 %.6f nats", loss - entropy);
    printf(" (%s %s)\n\n", close ? "ok: within" : "NOT OK: not within",
           by_share ? "1%" : "0.005 nats; 1% is even less");
    if (!close)
        complain("the loss %.6f is too far from the entropy %.6f", loss, entropy);
    return close;
}

/* Print words drawn from the model, letter after letter. */
static void sample_words(const struct trainer *trainer, uint64_t seed)
{
    struct table probs;
    uint64_t random = ~seed;
    require(xent_softmax_f32(trainer->table.row[0], SYMBOLS, SYMBOLS, 0, probs.row[0], 0));
    printf("It writes:");
    for (int i = 0; i < SAMPLES; i++) {
        unsigned symbol = BOUNDARY;
        int length = 0;
        putchar(' ');
        do {
            float left = random_uniform(&random);
            const float *row = probs.row[symbol];
            symbol = 0;
            while (symbol < SYMBOLS - 1 && left >= row[symbol])
                left -= row[symbol++];
            if (symbol != BOUNDARY)
                putchar(symbol_letter(symbol));
        } while (symbol != BOUNDARY && ++length < LONGEST_SAMPLE);
        if (symbol != BOUNDARY)
            printf("...");
    }
    printf("\n\n");
}

static bool run(const char *path, const struct text *text, uint64_t seed)
{
    struct bigrams bigrams;
    struct trainer trainer;
    struct curve_point points[PLOT_COLUMNS];

    bigrams_count(&bigrams, text);
    if (!trainer_init(&trainer, text, &bigrams, seed))
        return false;
    double entropy = bigrams_entropy(&bigrams);
    print_text(path, text, &trainer);
    size_t count = train(&trainer, &bigrams, points);
    printf("\nLoss over the whole text, in nats; the dots are its entropy, which no such model goes below.\n\n");
    plot_curve(points, count, entropy);
    printf("\n");
    bool ok = check(points[count - 1].loss, entropy);
    sample_words(&trainer, seed);
    trainer_free(&trainer);
    return compare_kernels() && ok;
}

int demo_command(int argc, char **argv)
{
    struct arguments arguments;
    struct text text;

    int status = parse(argc, argv, &arguments);
    if (status != EXIT_SUCCESS)
        return status;
    if (!text_read(&text, arguments.path))
        return EXIT_FAILURE;
    bool ok = run(arguments.path, &text, arguments.seed);
    text_free(&text);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
