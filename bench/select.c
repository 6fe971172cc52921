/* The command line of xent-bench: what to run. tools/bench writes it; --help of Google Benchmark does not list it. */
#include "bench.h"

#include <xent/xent.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char default_shapes[] = "65536x10,4096x128,4096x1000,1024x32000,512x50257,256x128256,128x262144,L1";

static bool select_shape(struct bench_selection *selection, const char *word)
{
    struct bench_shape shape = {0};
    size_t side[4] = {0};
    int end[3] = {0};
    if (strcmp(word, "L1") == 0) {
        selection->l1 = true;
        return true;
    }
    int numbers =
        sscanf(word, "%zux%zu%nx%zu%nx%zu%n", &side[0], &side[1], &end[0], &side[2], &end[1], &side[3], &end[2]);
    size_t all = 1;
    for (int i = 0; i < numbers; i++)
        all = side[i] && all <= SIZE_MAX / 64 / side[i] ? all * side[i] : 0;
    if (word[0] == '-' || strstr(word, "x-") || numbers < 2 || word[end[numbers - 2]] || !all || side[1] > INT32_MAX) {
        fprintf(
            stderr,
            "xent-bench: no shape: '%s'. A shape is ROWSxCLASSES such as 1024x32000, images such as 8x21x512x512, or "
            "L1\n",
            word);
        return false;
    }
    shape.classes = side[1];
    shape.rows = all / side[1];
    shape.inner = numbers > 2 ? shape.rows / side[0] : 0;
    if (selection->shape_count == BENCH_MAX_SHAPES) {
        fprintf(stderr, "xent-bench: more than %d shapes\n", BENCH_MAX_SHAPES);
        return false;
    }
    selection->shapes[selection->shape_count++] = shape;
    return true;
}

static bool select_isa(struct bench_selection *selection, const char *word)
{
    const char *const *isas = xent_isas();
    for (size_t i = 0; isas[i]; i++)
        if (strcmp(isas[i], word) == 0 && selection->isa_count < BENCH_MAX_ISAS) {
            selection->isas[selection->isa_count++] = isas[i];
            return true;
        }
    fprintf(stderr, "xent-bench: no kernel '%s' that this build and CPU can run. There are:", word);
    for (size_t i = 0; isas[i]; i++)
        fprintf(stderr, " %s", isas[i]);
    fputc('\n', stderr);
    return false;
}

static bool select_threads(struct bench_selection *selection, const char *word)
{
    char *end;
    long threads = strtol(word, &end, 10);
    if (end == word || *end || threads < 1 || threads > BENCH_MAX_THREADS) {
        fprintf(stderr, "xent-bench: no number of threads from 1 to %d: '%s'\n", BENCH_MAX_THREADS, word);
        return false;
    }
    if (selection->thread_count == BENCH_MAX_THREAD_COUNTS) {
        fprintf(stderr, "xent-bench: more than %d numbers of threads\n", BENCH_MAX_THREAD_COUNTS);
        return false;
    }
    selection->threads[selection->thread_count++] = (size_t)threads;
    return true;
}

const char *bench_kind_name(enum bench_kind kind)
{
    static const char *const names[BENCH_KINDS] = {
        [BENCH_NORMAL] = "normal",   [BENCH_OFFSET] = "offset", [BENCH_MASKED] = "masked",
        [BENCH_IGNORED] = "ignored", [BENCH_WIDE] = "wide",
    };
    return names[kind];
}

static bool select_kind(struct bench_selection *selection, const char *word)
{
    for (int kind = 0; kind < BENCH_KINDS; kind++)
        if (strcmp(bench_kind_name((enum bench_kind)kind), word) == 0 && selection->kind_count < BENCH_KINDS) {
            selection->kinds[selection->kind_count++] = (enum bench_kind)kind;
            return true;
        }
    fprintf(stderr, "xent-bench: no kind of data: '%s'. There are:", word);
    for (int kind = 0; kind < BENCH_KINDS; kind++)
        fprintf(stderr, " %s", bench_kind_name((enum bench_kind)kind));
    fputc('\n', stderr);
    return false;
}

static bool select_each(struct bench_selection *selection, const char *list,
                        bool (*select_one)(struct bench_selection *, const char *))
{
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)strcspn(at, ","), at);
        if (!select_one(selection, word))
            return false;
    }
    return true;
}

/* The value of an argument "--name=value", or NULL. */
static const char *value_of(const char *argument, const char *name)
{
    size_t length = strlen(name);
    return strncmp(argument, name, length) == 0 && argument[length] == '=' ? argument + length + 1 : NULL;
}

bool bench_select(struct bench_selection *selection, int *argc, char **argv)
{
    const char *shapes = default_shapes, *isas = NULL, *threads = "1", *kinds = "normal";
    int kept = 1;
    *selection = (struct bench_selection){0};
    for (int i = 1; i < *argc; i++) {
        const char *value;
        if ((value = value_of(argv[i], "--shapes")))
            shapes = value;
        else if ((value = value_of(argv[i], "--isas")))
            isas = value;
        else if ((value = value_of(argv[i], "--threads")))
            threads = value;
        else if ((value = value_of(argv[i], "--data")))
            kinds = value;
        else if (strcmp(argv[i], "--cold") == 0)
            selection->placement = BENCH_COLD;
        else if (strcmp(argv[i], "--resident") == 0)
            selection->placement = BENCH_RESIDENT;
        else if (strcmp(argv[i], "--options") == 0)
            selection->options = true;
        else if (strcmp(argv[i], "--errors") == 0)
            selection->errors = true;
        else
            argv[kept++] = argv[i];
    }
    *argc = kept;
    if (!isas)
        for (const char *const *isa = xent_isas(); *isa && selection->isa_count < BENCH_MAX_ISAS; isa++)
            selection->isas[selection->isa_count++] = *isa;
    return select_each(selection, shapes, select_shape) && (!isas || select_each(selection, isas, select_isa)) &&
           select_each(selection, threads, select_threads) && select_each(selection, kinds, select_kind);
}
