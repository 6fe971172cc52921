/*
 * Ignored rows are not read: their logits and probabilities lie in pages that cannot be touched. Rows are apart by
 * whole pages, or are neighbours of each other by as many as a page has.
 */
#include "memory.h"

#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ROWS = 21, PAGES_MOST = 6, LABELS = 2 };

enum kind { PLAIN, BY_WEIGHT, SMOOTHED, SEVERAL, SOFT, KINDS };
static const char *const kind_names[KINDS] = {"plain", "weight 0", "smoothed", "two labels", "probabilities"};

/* Numbers in pages of their own: a row for each, or a plane for each class, of which each page is so many rows. */
struct paged {
    unsigned char *data;
    size_t bytes;
};

static struct paged paged_new(struct rng *rng, size_t bytes, size_t size, bool shares)
{
    struct paged p = {.bytes = bytes};
    p.data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(p.data != MAP_FAILED);
    for (size_t i = 0; i < bytes / size; i++) {
        const float v = shares ? 0.01f * (float)(i % 7) : rng_normal(rng);
        if (size == sizeof(double))
            ((double *)(void *)p.data)[i] = (double)v;
        else
            ((float *)(void *)p.data)[i] = v;
    }
    return p;
}

struct test {
    size_t outer, classes, inner, size;
    xent_strides strides;
};

/* Locks the pages of a row that is apart, or of as many neighbours as a page has. */
static void lock(const struct paged *p, const struct test *t, size_t row, size_t page)
{
    if (t->inner == 1) {
        ck_assert_int_eq(mprotect(p->data + row * t->strides.outer * t->size, t->strides.outer * t->size, PROT_NONE),
                         0);
        return;
    }
    for (size_t j = 0; j < t->classes; j++)
        ck_assert_int_eq(mprotect(p->data + (j * t->strides.classes + row) * t->size, page, PROT_NONE), 0);
}

static void check(const struct test *t, enum kind kind, bool forward, struct rng *rng)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), rows = t->outer * t->inner,
                 together = t->inner == 1 ? 1 : page / t->size;
    const size_t bytes = t->inner == 1 ? t->outer * t->strides.outer * t->size : t->classes * t->inner * t->size;
    struct paged x = paged_new(rng, bytes, t->size, false), q = paged_new(rng, bytes, t->size, true);
    int32_t *labels = allocate(rows * LABELS * sizeof *labels);
    unsigned char *weights = allocate(rows * t->size), *grad = allocate(rows * t->classes * t->size);
    double loss[2];
    for (size_t i = 0; i < rows; i++) {
        const bool keep = i / together % 3 != 1;
        for (size_t k = 0; k < LABELS; k++)
            labels[i * LABELS + k] = keep || kind == BY_WEIGHT ? (int32_t)rng_below(rng, t->classes) : -100;
        if (t->size == sizeof(double))
            ((double *)(void *)weights)[i] = keep;
        else
            ((float *)(void *)weights)[i] = keep;
        if (!keep && i % together == 0) {
            lock(&x, t, i, page);
            lock(&q, t, i, page);
        }
    }
    const xent_strides pairs = {t->inner * LABELS, 1, LABELS};
    xent_problem p = XENT_PROBLEM_INIT;
    p.dtype = t->size == sizeof(double) ? XENT_F64 : XENT_F32;
    p.outer = t->outer;
    p.classes = t->classes;
    p.inner = t->inner;
    p.logits = x.data;
    p.logits_strides = &t->strides;
    p.grad = forward ? NULL : grad;
    p.targets = labels;
    p.targets_strides = &pairs;
    p.labels = kind == SEVERAL ? LABELS : 1;
    p.label_smoothing = kind == SMOOTHED ? 0.1 : 0;
    p.row_weights = kind == BY_WEIGHT || kind == SOFT ? weights : NULL;
    if (kind == SOFT) {
        p.target_type = XENT_PROBABILITIES;
        p.targets = q.data;
        p.targets_strides = &t->strides;
    }
    p.loss = loss;
    expect_status("a call", xent_cross_entropy(&p), XENT_OK);
    munmap(x.data, x.bytes);
    munmap(q.data, q.bytes);
    free(labels);
    free(weights);
    free(grad);
}

START_TEST(not_read)
{
    static const size_t sizes[] = {5, 20, 100, 700, 2000};
    struct rng rng = rng_stream(541);
    for (const char *const *isa = xent_isas(); *isa; isa++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (size_t size = sizeof(float); size <= sizeof(double); size *= 2)
                for (int layout = 0; layout < 3; layout++)
                    for (int kind = 0; kind < KINDS; kind++)
                        for (int forward = 0; forward < 2; forward++) {
                            const size_t page = (size_t)sysconf(_SC_PAGESIZE) / size, classes = sizes[s];
                            const size_t inner = layout == 2 ? PAGES_MOST * page : 1;
                            if ((layout == 2 && classes > 100) || !scaled_chance(&rng))
                                continue;
                            struct test t = {
                                .outer = layout == 2 ? 1 : ROWS, .classes = classes, .inner = inner, .size = size};
                            t.strides = layout == 2 ? (xent_strides){0, inner, 1}
                                                    : (xent_strides){(2 * classes + page - 1) / page * page,
                                                                     1 + (size_t)layout, 0};
                            use_kernel(*isa);
                            name_case("%s, %zu classes, %s, layout %d, %s%s", *isa, classes,
                                      size == sizeof(float) ? "floats" : "doubles", layout, kind_names[kind],
                                      forward ? ", forward" : "");
                            check(&t, (enum kind)kind, forward, &rng);
                        }
}
END_TEST

void add_ignored_tests(Suite *suite)
{
    tcase_add_test(add_case(suite, "ignored rows"), not_read);
}
