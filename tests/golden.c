/*
 * One committed number for all results: the fingerprint of what a fixed set of problems comes to, which every kernel, compiler
 * and machine must give. It changes only with XENT_NUMERICS_VERSION. Other suites allow what the accuracy contract
 * allows, and compare kernels with each other; a change of the contract that all kernels share is seen here alone.
 */
#include "support.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Of XENT_NUMERICS_VERSION 1. To change it: change the version, docs/numerics.md and this, in one commit. */
static const uint64_t expected_fingerprint = UINT64_C(0x67eef9435c9f58cb);

static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 10, 13, 16, 21, 27, 31, 32, 33, 48, 63, 64, 65, 96, 97, 128, 257, 1000, 8191, 8225, 16400};

enum kind { NARROW, USUAL, WIDE_SPREAD, OFFSET_UP, OFFSET_DOWN, HUGE_SPREAD, MASKED_THIRD, CONFIDENT, STRAY, NOT_FINITE, KINDS };

/* FNV-1a over words; every NaN counts as the same one. */
static uint64_t mix(uint64_t hash, const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = values[i] != values[i] ? 0x7fc00000 : float_bits(values[i]);
        hash = (hash ^ bits) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* About normal, from additions and multiplications alone, so that it is the same everywhere. */
static float bell(struct rng *rng)
{
    double sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (double)(rng_next(rng) >> 40) * 0x1p-24 - 0.5;
    return (float)(sum * 1.75);
}

static float logit(struct rng *rng, enum kind kind, size_t classes)
{
    static const float spread[KINDS] = {0.1f, 3, 30, 3, 3, 1e30f, 3, 3, 3, 3};
    float x = bell(rng) * spread[kind];
    const uint64_t die = rng_next(rng);
    if (kind == OFFSET_UP)
        x += 10000.0f;
    if (kind == OFFSET_DOWN)
        x -= 700.0f;
    if (kind == MASKED_THIRD && die % 3 == 0)
        x = die % 2 ? -INFINITY : -1e9f;
    if (kind == STRAY && die % (classes / 4 + 1) == 0)
        x = die % 2 ? 90.0f : -200.0f;
    if (kind == NOT_FINITE && die % (4 * classes) == 0)
        x = die % 3 ? NAN : INFINITY;
    return x;
}

static uint64_t run_fused(uint64_t hash, const float *logits, const int32_t *targets, size_t rows, size_t classes,
                          xent_options options, float *work)
{
    float *loss = work, *lse = loss + rows, *grad = lse + rows;
    const size_t losses = options.reduction == XENT_NONE ? rows : 1;
    options.lse = lse;
    expect_status("fused", xent_fused_f32(logits, targets, rows, classes, loss, grad, &options), XENT_OK);
    hash = mix(mix(mix(hash, loss, losses), lse, rows), grad, rows * classes);
    memcpy(grad, logits, rows * classes * sizeof(float));
    expect_status("fused in place", xent_fused_f32(grad, targets, rows, classes, loss, grad, &options), XENT_OK);
    return mix(mix(hash, loss, losses), grad, rows * classes);
}

static uint64_t run_problem(uint64_t hash, struct rng *rng, enum kind kind, size_t classes)
{
    const size_t rows = classes < 100 ? 19 : classes < 2000 ? 5 : 1;
    float *logits = allocate(rows * classes * sizeof(float)), *weights = allocate(classes * sizeof(float));
    float *work = allocate((rows * classes + 2 * rows) * sizeof(float));
    int32_t *targets = allocate(rows * sizeof(int32_t));
    for (size_t i = 0; i < rows * classes; i++)
        logits[i] = logit(rng, kind, classes);
    for (size_t i = 0; i < rows; i++) {
        targets[i] = rng_next(rng) % 9 == 0 && rows > 1 ? -100 : (int32_t)rng_below(rng, classes);
        if (kind == CONFIDENT && targets[i] >= 0)
            logits[i * classes + (size_t)targets[i]] += 15.0f;
    }
    for (size_t j = 0; j < classes; j++)
        weights[j] = (float)(rng_next(rng) % 16) * 0.125f;

    for (xent_reduction reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
        xent_options options = XENT_OPTIONS_INIT;
        options.reduction = reduction;
        hash = run_fused(hash, logits, targets, rows, classes, options, work);
        options.class_weights = weights;
        hash = run_fused(hash, logits, targets, rows, classes, options, work);
        options.label_smoothing = 0.125f;
        hash = run_fused(hash, logits, targets, rows, classes, options, work);
    }
    expect_status("logsumexp", xent_logsumexp_f32(logits, rows, classes, 0, work), XENT_OK);
    hash = mix(hash, work, rows);
    expect_status("softmax", xent_softmax_f32(logits, rows, classes, 0, work, 0), XENT_OK);
    hash = mix(hash, work, rows * classes);
    expect_status("log-softmax", xent_log_softmax_f32(logits, rows, classes, 0, work, 0), XENT_OK);
    hash = mix(hash, work, rows * classes);
    free(logits);
    free(weights);
    free(work);
    free(targets);
    return hash;
}

START_TEST(fingerprint)
{
    ck_assert_int_eq(xent_numerics_version(), 1);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        struct rng rng = {UINT64_C(20240229)};
        uint64_t hash = UINT64_C(0xcbf29ce484222325);
        use_kernel(*isa);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (int kind = 0; kind < KINDS; kind++)
                hash = run_problem(hash, &rng, (enum kind)kind, sizes[s]);
        note("%s: %016" PRIx64, *isa, hash);
        name_case("fingerprint, %s", *isa);
        if (hash != expected_fingerprint)
            fail_case("%016" PRIx64 ", expected %016" PRIx64, hash, expected_fingerprint);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("golden");
    tcase_add_test(add_case(suite, "fingerprint"), fingerprint);
    return run_suite(suite);
}
