/*
 * Rows whose classes are not neighbours: every kernel must give them the bits that the scalar kernel gives the same
 * rows one after the other, and touch nothing between what their strides reach.
 */
#include "executors.h"
#include "guard.h"
#include "rows.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_NUMBERS = 40000, MOST_LABELS = 3 };

/* A problem's numbers, row by row. */
struct rows {
    size_t outer, classes, inner, count;
    float *logits, *shares; /* shares: [count][classes], of XENT_PROBABILITIES */
    int64_t *targets;       /* [count][labels] */
    float *probabilities, *class_weights, *row_weights, *dloss;
    xent_problem options; /* all but arrays and strides of logits and gradient */
};

/* Loss, lse and gradient of every row. */
struct results {
    float *loss, *lse, *grad;
    size_t kept;
    double denominator;
};

/* An array of [outer][classes][inner] between guard pages. */
struct strided {
    xent_strides strides;
    size_t bytes;
    struct guarded memory;
    float *data;
};

static struct rows rows_new(size_t outer, size_t classes, size_t inner)
{
    struct rows r = {.outer = outer, .classes = classes, .inner = inner, .count = outer * inner};
    const size_t numbers = r.count * classes * sizeof(float), of_row = r.count * sizeof(float);
    r.logits = allocate(numbers);
    r.shares = allocate(numbers);
    r.targets = allocate(r.count * MOST_LABELS * sizeof(int64_t));
    r.probabilities = allocate(of_row * MOST_LABELS);
    r.class_weights = allocate(classes * sizeof(float));
    r.row_weights = allocate(of_row);
    r.dloss = allocate(of_row);
    return r;
}

static void rows_free(struct rows *r)
{
    free(r->logits);
    free(r->shares);
    free(r->targets);
    free(r->probabilities);
    free(r->class_weights);
    free(r->row_weights);
    free(r->dloss);
}

static bool is_ignored(const struct rows *r, size_t i)
{
    const size_t labels = r->options.labels;
    if (r->options.row_weights && r->row_weights[i] == 0)
        return true;
    for (size_t k = 0; k < labels && r->options.target_type != XENT_PROBABILITIES; k++)
        if (r->targets[i * labels + k] != r->options.ignore_index)
            return false;
    return r->options.target_type != XENT_PROBABILITIES;
}

static float factor(struct rng *rng, bool tame)
{
    if (!tame && rng_chance(rng, 0.02))
        return rng_chance(rng, 0.5) ? 0x1p70f : -0x1p100f;
    if (rng_chance(rng, 0.2))
        return 0;
    const float size = (float)exp(rng_uniform(rng, -5.0, 3.0));
    return tame || rng_chance(rng, 0.8) ? size : -size;
}

/* What is asked for: plain targets in a third of all cases, which have a way of their own. */
static void choose_options(struct rows *r, struct rng *rng)
{
    xent_problem *p = &r->options;
    *p = (xent_problem)XENT_PROBLEM_INIT;
    p->reduction = rng_chance(rng, 0.7) ? XENT_NONE : XENT_MEAN;
    p->ignore_index = rng_chance(rng, 0.5) ? -100 : (int64_t)rng_below(rng, r->classes);
    p->target_type = rng_chance(rng, 0.5) ? XENT_LABELS_I32 : XENT_LABELS_I64;
    if (rng_chance(rng, 0.33))
        return;
    if (rng_chance(rng, 0.1))
        p->target_type = XENT_PROBABILITIES;
    else if (rng_chance(rng, 0.2))
        p->labels = 1 + rng_below(rng, MOST_LABELS);
    p->probabilities = p->labels > 1 && rng_chance(rng, 0.7) ? r->probabilities : NULL;
    p->class_weights = rng_chance(rng, 0.4) ? r->class_weights : NULL;
    p->row_weights = rng_chance(rng, 0.3) ? r->row_weights : NULL;
    p->dloss = rng_chance(rng, 0.3) ? r->dloss : NULL;
    p->label_smoothing = rng_chance(rng, 0.3) ? 0.1 : 0;
}

static void fill_rows(struct rows *r, struct rng *rng)
{
    const bool tame = rng_chance(rng, 0.7), hostile = rng_chance(rng, 0.4);
    const double left_out = rng_chance(rng, 0.3) ? 0 : rng_chance(rng, 0.5) ? 0.1 : 0.9;
    const float spread = rng_chance(rng, 0.8) ? 3 : 30, offset = rng_chance(rng, 0.8) ? 0 : rng_normal(rng) * 3000;
    choose_options(r, rng);
    for (size_t j = 0; j < r->classes; j++)
        r->class_weights[j] = rng_chance(rng, 0.1) ? 0 : (float)exp(rng_uniform(rng, -4.0, 3.0));
    bool run_left_out = false;
    for (size_t i = 0; i < r->count; i++) {
        const size_t labels = r->options.labels;
        run_left_out = rng_chance(rng, 0.02) ? rng_chance(rng, left_out) : run_left_out;
        r->row_weights[i] = factor(rng, tame);
        r->dloss[i] = factor(rng, tame);
        for (size_t k = 0; k < labels; k++) {
            const bool ignored = run_left_out || rng_chance(rng, left_out / 4);
            r->targets[i * labels + k] = ignored ? r->options.ignore_index : (int64_t)rng_below(rng, r->classes);
            r->probabilities[i * labels + k] = factor(rng, true);
        }
        float *x = r->logits + i * r->classes;
        for (size_t j = 0; j < r->classes; j++) {
            x[j] = rng_normal(rng) * spread + offset;
            r->shares[i * r->classes + j] = factor(rng, true);
        }
        const int64_t target = r->targets[i * labels];
        if (hostile && rng_chance(rng, 0.1))
            row_fill(rng, rng_below(rng, row_kinds), x, r->classes, target < 0 ? 0 : (size_t)target);
        for (size_t j = 0; is_ignored(r, i) && j < r->classes; j++)
            x[j] = NAN;
    }
}

enum {
    IMAGES,
    PADDED_PLANES,
    PLANES_OF_LINES,
    CHANNELS_LAST,
    EVERY_SECOND_ROW,
    EVERY_SECOND_CLASS,
    PLANES_OF_ALL,
    OUTER_FIRST,
    LAYOUTS
};
static const char *const layouts[LAYOUTS] = {"images",        "padded planes",    "planes of whole lines",
                                             "channels last", "every second row", "every second class",
                                             "planes of all", "outer first"};
enum { KINDS_OF_IMAGES = PLANES_OF_LINES + 1, LINE = 64 / sizeof(float) };

static xent_strides strides_of(const struct rows *r, size_t layout)
{
    const size_t C = r->classes, I = r->inner, O = r->outer, lines = (I + LINE - 1) / LINE * LINE;
    switch (layout) {
    case IMAGES:
        return (xent_strides){C * I, I, 1};
    case PADDED_PLANES:
        return (xent_strides){C * (I + 5) + 3, I + 5, 1};
    case PLANES_OF_LINES:
        return (xent_strides){C * lines, lines, 1};
    case CHANNELS_LAST:
        return (xent_strides){C * I, 1, C};
    case EVERY_SECOND_ROW:
        return (xent_strides){2 * C * I, 2 * I, 2};
    case EVERY_SECOND_CLASS:
        return (xent_strides){2 * C * I, 2, 2 * C};
    case PLANES_OF_ALL:
        return (xent_strides){I, O * I, 1};
    default:
        return (xent_strides){1, O, O * C};
    }
}

static struct strided strided_new(const struct rows *r, size_t layout, bool at_end)
{
    struct strided s = {.strides = strides_of(r, layout)};
    s.bytes = ((r->outer - 1) * s.strides.outer + (r->classes - 1) * s.strides.classes +
               (r->inner - 1) * s.strides.inner + 1) *
              sizeof(float);
    s.memory = guard_new(s.bytes);
    s.data = guard_place(&s.memory, s.bytes, at_end ? GUARD_AFTER : GUARD_BEFORE);
    return s;
}

static float *element(const struct rows *r, const struct strided *s, size_t i, size_t j)
{
    return s->data + i / r->inner * s->strides.outer + j * s->strides.classes + i % r->inner * s->strides.inner;
}

static void scatter(const struct rows *r, const float *from, struct strided *to)
{
    for (size_t i = 0; i < r->count; i++)
        for (size_t j = 0; j < r->classes; j++)
            *element(r, to, i, j) = from[i * r->classes + j];
}

/* Labels of the type that is asked for, row by row as they are in r; of that type, so that they lie without gaps. */
static void *typed_targets(const struct rows *r)
{
    const size_t count = r->count * r->options.labels;
    int32_t *narrow = allocate(count * sizeof(int32_t));
    for (size_t i = 0; i < count; i++)
        narrow[i] = (int32_t)r->targets[i];
    return narrow;
}

/* targets: labels; shares, as they lie, are for XENT_PROBABILITIES. */
static void compute(const struct rows *r, const void *targets, const float *shares, const xent_strides *shares_strides,
                    const float *logits, const xent_strides *logits_strides, float *grad,
                    const xent_strides *grad_strides, const xent_executor *executor, struct results *out)
{
    const bool soft = r->options.target_type == XENT_PROBABILITIES;
    const size_t labels = r->options.labels;
    const xent_strides label_strides = {r->inner * labels, 1, labels};
    xent_problem p = r->options;
    p.outer = r->outer;
    p.classes = r->classes;
    p.inner = r->inner;
    p.logits = logits;
    p.logits_strides = logits_strides;
    p.grad = grad;
    p.grad_strides = grad_strides;
    p.targets = soft ? (const void *)shares : targets;
    p.targets_strides = soft ? shares_strides : &label_strides;
    p.probabilities_strides = &label_strides;
    p.loss = out->loss;
    p.lse = out->lse;
    p.kept_rows = &out->kept;
    p.denominator = &out->denominator;
    p.executor = executor;
    expect_status("cross entropy", xent_cross_entropy(&p), XENT_OK);
}

static struct results results_new(const struct rows *r)
{
    struct results out = {.loss = allocate(r->count * sizeof(float)),
                          .lse = allocate(r->count * sizeof(float)),
                          .grad = allocate(r->count * r->classes * sizeof(float))};
    memset(out.loss, 0, r->count * sizeof(float));
    return out;
}

static void results_free(struct results *out)
{
    free(out->loss);
    free(out->lse);
    free(out->grad);
}

static void expect_same(const char *what, const float *got, const float *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (float_bits(got[i]) != float_bits(expected[i]))
            fail_case("%s %zu: got %a, expected %a", what, i, (double)got[i], (double)expected[i]);
}

/* The whole array, gaps and all: before is what it held, expected the rows' gradients. */
static void expect_array(const struct rows *r, const struct strided *got, const float *before, const float *expected)
{
    struct strided image = *got;
    image.data = allocate(got->bytes);
    memcpy(image.data, before, got->bytes);
    scatter(r, expected, &image);
    for (size_t i = 0; i < r->count; i++)
        for (size_t j = 0; j < r->classes; j++)
            if (float_bits(*element(r, got, i, j)) != float_bits(*element(r, &image, i, j)))
                fail_case("gradient of row %zu, class %zu: got %a, expected %a", i, j, (double)*element(r, got, i, j),
                          (double)*element(r, &image, i, j));
    if (memcmp(got->data, image.data, got->bytes) != 0)
        fail_case("something between the gradients was written");
    if (!guard_intact(&got->memory, got->data, got->bytes))
        fail_case("something beside the gradients was written");
    free(image.data);
}

enum place { FORWARD, IN_PLACE, APART, PLACES };

/* One layout of the logits, one of the gradient, one of probabilities, by the kernel in use. */
static void check_layout(const struct rows *r, const void *targets, enum place place, const size_t layout[3],
                         const xent_executor *executor, const struct results *expected)
{
    struct strided x = strided_new(r, layout[0], layout[1] % 2), g = strided_new(r, layout[1], layout[0] % 2);
    struct strided q = strided_new(r, layout[2], layout[0] % 2);
    struct results got = results_new(r);
    float *before = allocate(x.bytes > g.bytes ? x.bytes : g.bytes);
    scatter(r, r->logits, &x);
    scatter(r, r->shares, &q);
    const struct strided *to = place == IN_PLACE ? &x : &g;
    memcpy(before, to->data, to->bytes);
    compute(r, targets, q.data, &q.strides, x.data, &x.strides, place == FORWARD ? NULL : to->data, &to->strides,
            executor, &got);
    expect_same("loss", got.loss, expected->loss, r->options.reduction == XENT_NONE ? r->count : 1);
    expect_same("lse", got.lse, expected->lse, r->count);
    if (got.kept != expected->kept || got.denominator != expected->denominator)
        fail_case("kept %zu rows, expected %zu", got.kept, expected->kept);
    if (place != FORWARD)
        expect_array(r, to, before, expected->grad);
    free(before);
    results_free(&got);
    guard_free(&x.memory);
    guard_free(&g.memory);
    guard_free(&q.memory);
}

static void check_rows(const struct rows *r, struct rng *rng)
{
    const xent_strides contiguous = strides_of(r, CHANNELS_LAST);
    void *narrow = typed_targets(r);
    const void *targets = r->options.target_type == XENT_LABELS_I32 ? narrow : r->targets;
    struct results expected = results_new(r), same = results_new(r);
    use_kernel("scalar");
    compute(r, targets, r->shares, &contiguous, r->logits, &contiguous, expected.grad, &contiguous, NULL, &expected);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_detail("%s, contiguous", *isa);
        compute(r, targets, r->shares, &contiguous, r->logits, &contiguous, same.grad, &contiguous, NULL, &same);
        expect_same("loss", same.loss, expected.loss, r->options.reduction == XENT_NONE ? r->count : 1);
        expect_same("gradient", same.grad, expected.grad, r->count * r->classes);
        for (int place = FORWARD; place < PLACES; place++) {
            struct watched watched;
            watched_init_any(&watched, rng);
            const bool threads = rng_chance(rng, 0.5);
            const size_t images = rng_below(rng, KINDS_OF_IMAGES);
            size_t layout[3] = {rng_below(rng, LAYOUTS), rng_below(rng, LAYOUTS), rng_below(rng, LAYOUTS)};
            if (rng_chance(rng, 0.4))
                layout[0] = layout[1] = images;
            if (layout[0] < KINDS_OF_IMAGES && rng_chance(rng, 0.7))
                layout[2] = rng_below(rng, KINDS_OF_IMAGES);
            name_detail("%s, logits as %s, gradient as %s, probabilities as %s, place %d, %s", *isa, layouts[layout[0]],
                        layouts[layout[1]], layouts[layout[2]], place,
                        threads ? watched_describe(&watched).text : "no executor");
            check_layout(r, targets, (enum place)place, layout, threads ? &watched.executor : NULL, &expected);
            watched_expect_sane(&watched);
        }
    }
    free(narrow);
    results_free(&expected);
    results_free(&same);
}

/* Sizes around those of vectors, batches, columns and tiles. */
static size_t random_classes(struct rng *rng)
{
    static const size_t edges[] = {1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65, 95, 96, 97, 98, 255, 256, 300};
    if (rng_chance(rng, 0.4))
        return edges[rng_below(rng, sizeof edges / sizeof *edges)];
    return 1 + rng_below(rng, rng_chance(rng, 0.5) ? 30 : 300);
}

static size_t random_inner(struct rng *rng, size_t most)
{
    static const size_t bounds[] = {4, 20, 70, 2000};
    const size_t inner = 1 + rng_below(rng, bounds[rng_below(rng, 4)]);
    return inner < most ? inner : most;
}

START_TEST(shapes)
{
    struct rng rng = rng_stream(60);
    for (size_t repeat = 0; repeat < scaled(400); repeat++) {
        const size_t classes = random_classes(&rng), outer = 1 + rng_below(&rng, 4);
        const size_t inner = random_inner(&rng, MOST_NUMBERS / classes / outer);
        struct rows r = rows_new(outer, classes, inner);
        fill_rows(&r, &rng);
        name_case("case %zu: %zux%zux%zu, %zu labels, type %d, smoothing %g%s%s%s%s", repeat, outer, classes, inner,
                  r.options.labels, (int)r.options.target_type, r.options.label_smoothing,
                  r.options.class_weights ? ", class weights" : "", r.options.row_weights ? ", row weights" : "",
                  r.options.dloss ? ", dloss" : "", r.options.reduction == XENT_NONE ? "" : ", mean");
        check_rows(&r, &rng);
        rows_free(&r);
    }
}
END_TEST

/* Rows of so many classes that a tile holds fewer of them than a batch, one, or none. */
START_TEST(long_rows)
{
    static const size_t sizes[] = {752, 753, 1520, 1521, 4080, 4081, 6000, 6128, 6129, 12272, 12273};
    struct rng rng = rng_stream(61);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct rows r = rows_new(1 + s % 2, sizes[s], sizes[s] > 5000 ? 3 : 19);
        fill_rows(&r, &rng);
        name_case("%zux%zux%zu", r.outer, r.classes, r.inner);
        check_rows(&r, &rng);
        rows_free(&r);
    }
}
END_TEST

/* Neighbours, a batch of them and more, with a probability for every class. */
START_TEST(soft_neighbours)
{
    struct rng rng = rng_stream(64);
    for (size_t repeat = 0; repeat < scaled(80); repeat++) {
        const size_t classes = 1 + rng_below(&rng, repeat % 4 ? 30 : 66);
        struct rows r = rows_new(1 + rng_below(&rng, 2), classes, 20 + rng_below(&rng, 150));
        do
            fill_rows(&r, &rng);
        while (r.options.target_type != XENT_PROBABILITIES);
        name_case("soft neighbours %zu: %zux%zux%zu, smoothing %g%s%s%s%s", repeat, r.outer, classes, r.inner,
                  r.options.label_smoothing, r.options.class_weights ? ", class weights" : "",
                  r.options.row_weights ? ", row weights" : "", r.options.dloss ? ", dloss" : "",
                  r.options.reduction == XENT_NONE ? "" : ", mean");
        check_rows(&r, &rng);
        rows_free(&r);
    }
}
END_TEST

static bool is_plain(const struct rows *r)
{
    const xent_problem *p = &r->options;
    return p->target_type != XENT_PROBABILITIES && p->labels == 1 && p->label_smoothing == 0 && !p->row_weights &&
           !p->class_weights && !p->dloss;
}

/* Neighbours of more classes than a strip keeps the exponentials of, or than a chunk has; every second time of plain
   targets. */
START_TEST(neighbours)
{
    static const size_t sizes[] = {97, 98, 99, 100, 128, 257, 8191, 8192, 8193, 16385, 20001};
    struct rng rng = rng_stream(63);
    for (size_t repeat = 0; repeat < scaled(4); repeat++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const size_t classes = sizes[s],
                         inner = classes < 1000 ? 8 + rng_below(&rng, 130) : 5 + rng_below(&rng, 30);
            struct rows r = rows_new(classes < 1000 ? 1 + rng_below(&rng, 3) : 1, classes, inner);
            do
                fill_rows(&r, &rng);
            while ((repeat + s) % 2 == 0 && !is_plain(&r));
            name_case("%zux%zux%zu, repeat %zu, smoothing %g", r.outer, r.classes, r.inner, repeat,
                      r.options.label_smoothing);
            check_rows(&r, &rng);
            rows_free(&r);
        }
}
END_TEST

/* A gradient of more than 8 MB, which some CPUs write past the caches, at the beginning of a line and elsewhere; not
   where kernels are emulated. */
START_TEST(large_images)
{
    const size_t apart[2][3] = {{IMAGES, PLANES_OF_LINES}, {PADDED_PLANES, PLANES_OF_LINES}};
    struct rng rng = rng_stream(62);
    for (size_t smooth = 0; smooth < scaled(2); smooth++) {
        struct rows r = rows_new(1, 21, 102403);
        fill_rows(&r, &rng);
        r.options = (xent_problem)XENT_PROBLEM_INIT;
        r.options.reduction = XENT_NONE;
        r.options.label_smoothing = smooth ? 0.1 : 0;
        const xent_strides contiguous = strides_of(&r, CHANNELS_LAST);
        struct results expected = results_new(&r);
        int32_t *targets = typed_targets(&r);
        use_kernel("scalar");
        compute(&r, targets, r.shares, &contiguous, r.logits, &contiguous, expected.grad, &contiguous, NULL, &expected);
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            use_kernel(*isa);
            name_case("%s, smoothing %g", *isa, r.options.label_smoothing);
            for (size_t k = 0; k < 2; k++)
                check_layout(&r, targets, APART, apart[k], NULL, &expected);
        }
        free(targets);
        results_free(&expected);
        rows_free(&r);
    }
}
END_TEST

/* A position that is left out may lie on memory that cannot even be read, if its neighbours do too. */
START_TEST(unreadable)
{
    enum { CLASSES = 21, INNER = 4096 };
    struct guarded memory = guard_new(CLASSES * INNER * sizeof(float));
    float *logits = guard_place(&memory, CLASSES * INNER * sizeof(float), GUARD_BEFORE), loss[INNER];
    int32_t *targets = allocate(INNER * sizeof(int32_t));
    for (size_t i = 0; i < INNER; i++)
        targets[i] = -100;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("all left out, %s", *isa);
        xent_problem p = XENT_PROBLEM_INIT;
        p.outer = 1;
        p.classes = CLASSES;
        p.inner = INNER;
        p.logits = logits;
        p.targets = targets;
        p.reduction = XENT_NONE;
        p.loss = loss;
        guard_lock(&memory);
        expect_status("cross entropy", xent_cross_entropy(&p), XENT_OK);
        guard_unlock(&memory);
        for (size_t i = 0; i < INNER; i++)
            expect_bits("loss", loss[i], 0.0f);
    }
    free(targets);
    guard_free(&memory);
}
END_TEST

/* Neighbours of more than a chunk of classes that fit no window, and NaNs that only a target has. */
START_TEST(long_and_wide)
{
    struct rng rng = rng_stream(66);
    for (size_t classes = 100; classes <= 9000; classes += 8900) {
        struct rows r = rows_new(1, classes, 20);
        fill_rows(&r, &rng);
        r.options = (xent_problem)XENT_PROBLEM_INIT;
        r.options.reduction = XENT_NONE;
        for (size_t i = 0; i < r.count; i++) {
            float *x = r.logits + i * classes;
            for (size_t j = 0; j < classes; j++)
                x[j] = j == 3 ? -150 : rng_normal(&rng);
            r.targets[i] = (int64_t)rng_below(&rng, classes);
            if (i % 7 == 5)
                x[r.targets[i]] = NAN;
        }
        name_case("long and wide: %zu classes", classes);
        check_rows(&r, &rng);
        rows_free(&r);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strided");
    tcase_add_test(add_case(suite, "shapes"), shapes);
    tcase_add_test(add_case(suite, "long rows"), long_rows);
    tcase_add_test(add_case(suite, "neighbours"), neighbours);
    tcase_add_test(add_case(suite, "soft neighbours"), soft_neighbours);
    tcase_add_test(add_case(suite, "long and wide"), long_and_wide);
    tcase_add_test(add_case(suite, "large images"), large_images);
    tcase_add_test(add_case(suite, "unreadable"), unreadable);
    return run_suite(suite);
}
