/*
 * See calls.h.
 */
#include "calls.h"

#include "guard.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const reduction_names[] = {[XENT_MEAN] = "mean", [XENT_SUM] = "sum", [XENT_NONE] = "none"};
static const char *const place_names[PLACES] = {"forward", "in place", "out of place"};

struct call random_call(const struct batch *batch, struct rng *rng)
{
    static const xent_reduction reductions[] = {XENT_MEAN, XENT_SUM, XENT_NONE};
    bool gaps = rng_chance(rng, 0.3);
    return (struct call){
        .batch = batch,
        .reduction = reductions[rng_below(rng, 3)],
        .place = (enum place)rng_below(rng, PLACES),
        .wide_targets = rng_chance(rng, 0.25),
        .logits_gap = gaps ? rng_below(rng, MAX_CALL_GAP + 1) : 0,
        .grad_gap = gaps ? rng_below(rng, MAX_CALL_GAP + 1) : 0,
    };
}

struct call_text call_describe(const struct call *call)
{
    struct call_text description;
    snprintf(description.text, sizeof description.text, "%s, %s, %s, %d-bit targets, gaps %zu and %zu", xent_isa(),
             reduction_names[call->reduction], place_names[call->place], call->wide_targets ? 64 : 32, call->logits_gap,
             call->grad_gap);
    return description;
}

struct call_memory call_memory_new(const struct batch *batch)
{
    size_t rows = batch->rows, matrix = rows * (batch->classes + MAX_CALL_GAP);
    struct call_memory memory = {.floats = 2 * rows + 2 * matrix};
    memory.loss = allocate(memory.floats * sizeof(float));
    memory.lse = memory.loss + rows;
    memory.logits = memory.lse + rows;
    memory.grad = memory.logits + matrix;
    memory.wide_targets = allocate(rows * sizeof *memory.wide_targets);
    return memory;
}

void call_memory_free(struct call_memory *memory)
{
    free(memory->loss);
    free(memory->wide_targets);
}

static size_t logits_stride(const struct call *call)
{
    return call->batch->classes + call->logits_gap;
}

static size_t grad_stride(const struct call *call)
{
    return call->place == IN_PLACE ? logits_stride(call) : call->batch->classes + call->grad_gap;
}

void call_prepare(const struct call *call, struct call_memory *memory)
{
    const struct batch *batch = call->batch;
    guard_fill(memory->loss, memory->floats * sizeof(float));
    for (size_t i = 0; i < batch->rows; i++) {
        memcpy(memory->logits + i * logits_stride(call), batch_row(batch, i), batch->classes * sizeof(float));
        memory->wide_targets[i] = batch->targets[i];
    }
}

void call_run_rows(const struct call *call, const xent_executor *executor, struct call_memory *memory, size_t first,
                   size_t last)
{
    const struct batch *batch = call->batch;
    float *logits = memory->logits + first * logits_stride(call);
    float *out_of_place = memory->grad + first * grad_stride(call);
    float *grad = call->place == FORWARD ? NULL : call->place == IN_PLACE ? logits : out_of_place;
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = call->reduction;
    options.ignore_index = batch->ignore_index;
    options.logits_stride = logits_stride(call);
    options.grad_stride = grad_stride(call);
    options.lse = memory->lse + first;
    options.executor = executor;
    xent_status status = call->wide_targets ? xent_fused_f32_i64(logits, memory->wide_targets + first, last - first,
                                                                 batch->classes, memory->loss + first, grad, &options)
                                            : xent_fused_f32(logits, batch->targets + first, last - first,
                                                             batch->classes, memory->loss + first, grad, &options);
    expect_status("xent_fused", status, XENT_OK);
}

void call_run(const struct call *call, const xent_executor *executor, struct call_memory *memory)
{
    call_prepare(call, memory);
    call_run_rows(call, executor, memory, 0, call->batch->rows);
}

bool call_same(const struct call_memory *got, const struct call_memory *expected)
{
    return memcmp(got->loss, expected->loss, got->floats * sizeof(float)) == 0;
}

/* The first different value of an array with rows. */
static void find_difference(const char *what, const struct batch *batch, const float *got, const float *expected,
                            size_t count, size_t stride)
{
    for (size_t at = 0; at < count; at++) {
        if (float_bits(got[at]) != float_bits(expected[at])) {
            size_t row = at / stride;
            fail_case("%s: row %zu index %zu: got %a (%08" PRIx32 "), expected %a (%08" PRIx32 "); %zu rows of %zu "
                      "classes, target %" PRId32,
                      what, row, at % stride, (double)got[at], float_bits(got[at]), (double)expected[at],
                      float_bits(expected[at]), batch->rows, batch->classes,
                      row < batch->rows ? batch->targets[row] : -1);
        }
    }
}

void call_expect(const struct call *call, const struct call_memory *got, const struct call_memory *expected)
{
    if (call_same(got, expected))
        return;
    const struct batch *batch = call->batch;
    size_t rows = batch->rows, matrix = rows * (batch->classes + MAX_CALL_GAP);
    find_difference("loss", batch, got->loss, expected->loss, rows, 1);
    find_difference("lse", batch, got->lse, expected->lse, rows, 1);
    find_difference(call->place == IN_PLACE ? "gradient in place" : "logits, which are only read", batch, got->logits,
                    expected->logits, matrix, logits_stride(call));
    find_difference("gradient", batch, got->grad, expected->grad, matrix, grad_stride(call));
}

void call_compare_all(const struct batch *batch, const xent_executor *executor)
{
    static const xent_reduction reductions[] = {XENT_MEAN, XENT_SUM, XENT_NONE};
    struct call_memory expected = call_memory_new(batch), got = call_memory_new(batch);
    for (size_t i = 0; i < PLACES * 3; i++) {
        struct call call = {.batch = batch, .reduction = reductions[i % 3], .place = (enum place)(i / 3)};
        name_detail("%s", call_describe(&call).text);
        call_run(&call, NULL, &expected);
        call_run(&call, executor, &got);
        call_expect(&call, &got, &expected);
    }
    call_memory_free(&got);
    call_memory_free(&expected);
}
