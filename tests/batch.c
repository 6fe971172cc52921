/*
 * See batch.h.
 */
#include "batch.h"

#include "rows.h"

#include <inttypes.h>
#include <stdlib.h>

enum { MAX_OFFSET = 16, MAX_GAP = 40 };

const struct layout plain_layout = {.row_by_row = true};

struct batch batch_new(size_t rows, size_t classes)
{
    struct batch batch = {.rows = rows, .classes = classes, .ignore_index = -100};
    batch.logits = allocate(rows * classes * sizeof *batch.logits);
    batch.targets = allocate(rows * sizeof *batch.targets);
    return batch;
}

void batch_free(struct batch *batch)
{
    free(batch->logits);
    free(batch->targets);
}

float *batch_row(const struct batch *batch, size_t row)
{
    return batch->logits + row * batch->classes;
}

static size_t random_class(struct rng *rng, size_t classes)
{
    size_t roll = rng_below(rng, 8);
    if (roll == 0)
        return 0;
    return roll == 1 ? classes - 1 : rng_below(rng, classes);
}

void batch_fill(struct batch *batch, struct rng *rng)
{
    for (size_t i = 0; i < batch->rows; i++) {
        size_t target = random_class(rng, batch->classes);
        row_fill(rng, rng_below(rng, row_kinds), batch_row(batch, i), batch->classes, target);
        batch->targets[i] = rng_below(rng, 16) == 0 ? (int32_t)batch->ignore_index : (int32_t)target;
    }
}

struct layout random_layout(struct rng *rng)
{
    return (struct layout){
        .logits_offset = rng_below(rng, MAX_OFFSET),
        .out_offset = rng_below(rng, MAX_OFFSET),
        .logits_gap = rng_chance(rng, 0.4) ? rng_below(rng, MAX_GAP) : 0,
        .out_gap = rng_chance(rng, 0.4) ? rng_below(rng, MAX_GAP) : 0,
        .in_place = rng_chance(rng, 0.5),
        .row_by_row = rng_chance(rng, 0.25),
        .wide_targets = rng_chance(rng, 0.25),
    };
}

struct results results_new(const struct batch *batch)
{
    size_t rows = batch->rows * sizeof(float), all = rows * batch->classes;
    return (struct results){
        .loss = allocate(rows),
        .lse = allocate(rows),
        .logsumexp = allocate(rows),
        .grad = allocate(all),
        .mean_grad = allocate(all),
        .probs = allocate(all),
        .log_probs = allocate(all),
    };
}

void results_free(struct results *results)
{
    free(results->loss);
    free(results->lse);
    free(results->logsumexp);
    free(results->grad);
    free(results->mean_grad);
    free(results->probs);
    free(results->log_probs);
}

struct scratch scratch_new(const struct batch *batch)
{
    size_t bytes = (MAX_OFFSET + batch->rows * (batch->classes + MAX_GAP)) * sizeof(float);
    return (struct scratch){allocate(bytes), allocate(bytes), allocate(batch->rows * sizeof(int64_t))};
}

void scratch_free(struct scratch *scratch)
{
    free(scratch->logits);
    free(scratch->out);
    free(scratch->targets);
}

/* The arrays of one call. */
struct arrays {
    float *logits, *out;
    size_t logits_stride, out_stride;
};

static struct arrays lay_out(const struct batch *batch, const struct layout *layout, struct scratch *scratch)
{
    struct arrays arrays = {
        .logits = scratch->logits + layout->logits_offset,
        .logits_stride = batch->classes + layout->logits_gap,
        .out = scratch->out + layout->out_offset,
        .out_stride = batch->classes + layout->out_gap,
    };
    for (size_t i = 0; i < batch->rows; i++)
        memcpy(arrays.logits + i * arrays.logits_stride, batch_row(batch, i), batch->classes * sizeof(float));
    if (layout->in_place) {
        arrays.out = arrays.logits;
        arrays.out_stride = arrays.logits_stride;
    }
    return arrays;
}

static void collect(const struct batch *batch, const struct arrays *arrays, float *packed)
{
    for (size_t i = 0; i < batch->rows; i++)
        memcpy(packed + i * batch->classes, arrays->out + i * arrays->out_stride, batch->classes * sizeof(float));
}

void batch_fused(const struct batch *batch, const struct layout *layout, struct scratch *scratch,
                 xent_reduction reduction, float *loss, float *grad, float *lse)
{
    struct arrays a = lay_out(batch, layout, scratch);
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = reduction;
    options.ignore_index = batch->ignore_index;
    options.logits_stride = a.logits_stride;
    options.grad_stride = a.out_stride;
    for (size_t i = 0; i < batch->rows; i++)
        scratch->targets[i] = batch->targets[i];
    size_t rows_per_call = layout->row_by_row && reduction == XENT_NONE ? 1 : batch->rows;
    for (size_t i = 0; i < batch->rows; i += rows_per_call) {
        const float *logits = a.logits + i * a.logits_stride;
        float *out = grad ? a.out + i * a.out_stride : NULL;
        options.lse = lse ? lse + i : NULL;
        xent_status status = layout->wide_targets ? xent_fused_f32_i64(logits, scratch->targets + i, rows_per_call,
                                                                       batch->classes, loss + i, out, &options)
                                                  : xent_fused_f32(logits, batch->targets + i, rows_per_call,
                                                                   batch->classes, loss + i, out, &options);
        expect_status("xent_fused", status, XENT_OK);
    }
    if (grad)
        collect(batch, &a, grad);
}

typedef xent_status row_function(const float *logits, size_t rows, size_t classes, size_t logits_stride, float *out,
                                 size_t out_stride);

static void each_row(const struct batch *batch, const struct layout *layout, struct scratch *scratch,
                     row_function *function, float *packed)
{
    struct arrays a = lay_out(batch, layout, scratch);
    size_t rows_per_call = layout->row_by_row ? 1 : batch->rows;
    for (size_t i = 0; i < batch->rows; i += rows_per_call) {
        xent_status status = function(a.logits + i * a.logits_stride, rows_per_call, batch->classes, a.logits_stride,
                                      a.out + i * a.out_stride, a.out_stride);
        expect_status("a row function", status, XENT_OK);
    }
    collect(batch, &a, packed);
}

static void logsumexp(const struct batch *batch, const struct layout *layout, struct scratch *scratch, float *lse)
{
    struct arrays a = lay_out(batch, layout, scratch);
    size_t rows_per_call = layout->row_by_row ? 1 : batch->rows;
    for (size_t i = 0; i < batch->rows; i += rows_per_call)
        expect_status(
            "xent_logsumexp",
            xent_logsumexp_f32(a.logits + i * a.logits_stride, rows_per_call, batch->classes, a.logits_stride, lse + i),
            XENT_OK);
}

void expect_same(const struct batch *batch, const char *what, const float *got, const float *expected, size_t width)
{
    if (memcmp(got, expected, batch->rows * width * sizeof *got) == 0)
        return;
    size_t at = 0;
    while (float_bits(got[at]) == float_bits(expected[at]))
        at++;
    size_t row = at / width;
    int32_t target = batch->targets[row];
    const float *x = batch_row(batch, row);
    fail_case("%s: row %zu index %zu: got %a (%08" PRIx32 "), expected %a (%08" PRIx32 "); %zu rows of %zu classes, "
              "target %" PRId32 " (logit %a), logit there %a, first logit %a",
              what, row, at % width, (double)got[at], float_bits(got[at]), (double)expected[at],
              float_bits(expected[at]), batch->rows, batch->classes, target, target >= 0 ? (double)x[target] : 0.0,
              (double)x[width == 1 ? 0 : at % width], (double)x[0]);
}

void batch_run(const struct batch *batch, const struct layout *layout, struct scratch *scratch, struct results *results)
{
    size_t classes = batch->classes;
    /* These two take their turn as room for results that must equal another one. */
    float *other_loss = results->logsumexp, *other_grad = results->probs;

    batch_fused(batch, layout, scratch, XENT_NONE, results->loss, results->grad, results->lse);
    batch_fused(batch, layout, scratch, XENT_NONE, other_loss, NULL, NULL);
    expect_same(batch, "loss, forward only against fused", other_loss, results->loss, 1);
    batch_fused(batch, layout, scratch, XENT_SUM, &results->sum, other_grad, NULL);
    expect_same(batch, "gradient, sum against none", other_grad, results->grad, classes);
    batch_fused(batch, layout, scratch, XENT_MEAN, &results->mean, results->mean_grad, NULL);
    each_row(batch, layout, scratch, xent_softmax_f32, results->probs);
    each_row(batch, layout, scratch, xent_log_softmax_f32, results->log_probs);
    logsumexp(batch, layout, scratch, results->logsumexp);
}

void batch_expect(const struct batch *batch, const struct results *got, const struct results *expected)
{
    expect_same(batch, "loss", got->loss, expected->loss, 1);
    expect_same(batch, "lse", got->lse, expected->lse, 1);
    expect_same(batch, "gradient", got->grad, expected->grad, batch->classes);
    expect_same(batch, "gradient of the mean", got->mean_grad, expected->mean_grad, batch->classes);
    expect_same(batch, "softmax", got->probs, expected->probs, batch->classes);
    expect_same(batch, "log-softmax", got->log_probs, expected->log_probs, batch->classes);
    expect_same(batch, "logsumexp", got->logsumexp, expected->logsumexp, 1);
    expect_bits("mean", got->mean, expected->mean);
    expect_bits("sum", got->sum, expected->sum);
}

static void name_layout(const char *isa, const struct layout *layout)
{
    name_detail("%s, %s, %s, %d-bit targets, offsets %zu and %zu, gaps %zu and %zu", isa,
                layout->in_place ? "in place" : "out of place", layout->row_by_row ? "row by row" : "at once",
                layout->wide_targets ? 64 : 32, layout->logits_offset, layout->out_offset, layout->logits_gap,
                layout->out_gap);
}

void batch_compare(const struct batch *batch, const char *isa, const struct layout *layout, struct scratch *scratch,
                   const struct results *expected, struct results *got)
{
    name_layout(isa, layout);
    use_kernel(isa);
    batch_run(batch, layout, scratch, got);
    batch_expect(batch, got, expected);
}

void batch_oracle(const struct batch *batch, struct scratch *scratch, struct results *expected)
{
    name_layout("scalar", &plain_layout);
    use_kernel("scalar");
    batch_run(batch, &plain_layout, scratch, expected);
}

void batch_check(const struct batch *batch, struct rng *rng)
{
    struct scratch scratch = scratch_new(batch);
    struct results expected = results_new(batch), got = results_new(batch);
    batch_oracle(batch, &scratch, &expected);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        struct layout layout = random_layout(rng);
        batch_compare(batch, *isa, &layout, &scratch, &expected, &got);
        layout.in_place = !layout.in_place;
        batch_compare(batch, *isa, &layout, &scratch, &expected, &got);
    }
    results_free(&got);
    results_free(&expected);
    scratch_free(&scratch);
}
