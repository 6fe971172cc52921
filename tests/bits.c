/*
 * Every kernel gives the bits of the scalar one, for any row, and whatever the batch, the addresses, the strides, the
 * place of the gradient and the control bits are.
 */
#include "batch.h"
#include "fpcontrol.h"
#include "rows.h"

#include <math.h>
#include <stdlib.h>

enum { SMALL_CLASSES = 300 };

/* Any class count: mostly small, at times one of the sizes worth a visit. */
static size_t random_classes(struct rng *rng)
{
    size_t roll = rng_below(rng, 16);
    if (roll == 0)
        return row_sizes[rng_below(rng, row_size_count)];
    return 1 + rng_below(rng, roll < 8 ? 70 : 1200);
}

START_TEST(every_size)
{
    struct rng rng = rng_stream(1);
    for (size_t i = 0; i < SMALL_CLASSES + row_size_count; i++) {
        bool small = i < SMALL_CLASSES;
        size_t classes = small ? i + 1 : row_sizes[i - SMALL_CLASSES];
        if (!scaled_chance(&rng))
            continue;
        struct batch batch = batch_new(small ? 24 : 6, classes);
        for (size_t repeat = 0; repeat < (small ? 4u : 2u); repeat++) {
            name_case("every size: %zu classes, repeat %zu", classes, repeat);
            batch_fill(&batch, &rng);
            batch_check(&batch, &rng);
        }
        batch_free(&batch);
    }
}
END_TEST

START_TEST(every_kind)
{
    struct rng rng = rng_stream(2);
    for (size_t kind = 0; kind < row_kinds; kind++) {
        for (size_t repeat = 0; repeat < scaled(30); repeat++) {
            struct batch batch = batch_new(8, random_classes(&rng));
            name_case("every kind: %s, %zu classes, repeat %zu", row_kind_name(kind), batch.classes, repeat);
            batch_fill(&batch, &rng);
            for (size_t i = 0; i < batch.rows; i++)
                row_fill(&rng, kind, batch_row(&batch, i), batch.classes,
                         batch.targets[i] < 0 ? 0 : (size_t)batch.targets[i]);
            batch_check(&batch, &rng);
            batch_free(&batch);
        }
    }
}
END_TEST

START_TEST(every_offset)
{
    static const size_t sizes[] = {1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 129, 513, 1041};
    struct rng rng = rng_stream(3);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct batch batch = batch_new(3, sizes[i]);
        struct scratch scratch = scratch_new(&batch);
        struct results expected = results_new(&batch), got = results_new(&batch);
        name_case("every offset: %zu classes", batch.classes);
        batch_fill(&batch, &rng);
        batch_oracle(&batch, &scratch, &expected);
        for (size_t offsets = 0; offsets < 256; offsets++) {
            if (!scaled_chance(&rng))
                continue;
            struct layout layout = {.logits_offset = offsets % 16, .out_offset = offsets / 16, .logits_gap = i % 3};
            layout.in_place = layout.out_offset == layout.logits_offset;
            for (const char *const *isa = xent_isas(); *isa; isa++)
                batch_compare(&batch, *isa, &layout, &scratch, &expected, &got);
        }
        results_free(&expected);
        results_free(&got);
        scratch_free(&scratch);
        batch_free(&batch);
    }
}
END_TEST

/* Short rows around every magnitude, in steps finer than a power of two of exp, and the same with a masked class: what
   fills up a vector past the end of a row, and what stands in for a masked class, must not matter however far from the
   row they are. */
START_TEST(every_magnitude)
{
    enum { ROWS = 64 };
    struct rng rng = rng_stream(9);
    double magnitude = -6000.0;
    for (size_t batch_number = 0; magnitude < 3e38; batch_number++) {
        struct batch batch = batch_new(ROWS, 1 + rng_below(&rng, 40));
        name_case("every magnitude: batch %zu from %g on: %zu classes", batch_number, magnitude, batch.classes);
        for (size_t i = 0; i < ROWS; i++) {
            float *row = batch_row(&batch, i);
            batch.targets[i] = (int32_t)rng_below(&rng, batch.classes);
            float sign = magnitude > 6000.0 && rng_chance(&rng, 0.5) ? -1.0f : 1.0f;
            for (size_t j = 0; j < batch.classes; j++)
                row[j] = sign * (float)(magnitude * (1.0 + (double)rng_normal(&rng) * 1e-4));
            if (i % 2 == 1 && batch.classes > 1)
                row[rng_below(&rng, batch.classes)] = rng_chance(&rng, 0.5) ? -INFINITY : row[0] - 1000.0f;
            if (i % 2 == 1 && magnitude < 3e38)
                magnitude += magnitude < 6000.0 ? 0.45 : magnitude * rng_uniform(&rng, 0.0, 0.02);
        }
        if (scaled_chance(&rng))
            batch_check(&batch, &rng);
        batch_free(&batch);
    }
}
END_TEST

/* One row for each special logit, at the same position in all of them. */
static void specials_at(struct rng *rng, size_t classes, size_t position)
{
    struct batch batch = batch_new(row_specials, classes);
    name_case("special logits: %zu classes, position %zu (rows are in the order of row_special)", classes, position);
    batch_fill(&batch, rng);
    float scale = rng_chance(rng, 0.7) ? 1.0f : 30.0f;
    for (size_t i = 0; i < batch.rows; i++) {
        float *row = batch_row(&batch, i);
        for (size_t j = 0; j < classes; j++)
            row[j] = rng_normal(rng) * scale;
        row[position] = row_special(i);
        if (rng_chance(rng, 0.3))
            batch.targets[i] = (int32_t)position;
    }
    batch_check(&batch, rng);
    batch_free(&batch);
}

START_TEST(specials)
{
    struct rng rng = rng_stream(4);
    for (size_t classes = 1; classes <= 68; classes++)
        for (size_t position = 0; position < classes; position++)
            if (scaled_chance(&rng) && (classes < 20 || rng_chance(&rng, 0.3)))
                specials_at(&rng, classes, position);
    for (size_t repeat = 0; repeat < scaled(12); repeat++) {
        size_t classes = 500 + rng_below(&rng, 1100);
        specials_at(&rng, classes, rng_below(&rng, classes));
    }
    for (size_t repeat = 0; repeat < scaled(2); repeat++) {
        size_t classes = 8190 + rng_below(&rng, 600);
        specials_at(&rng, classes, classes - 1 - rng_below(&rng, 610));
    }
}
END_TEST

/* The same row with every class as the target. */
static void check_targets(struct rng *rng, size_t classes, size_t first, size_t last)
{
    struct batch batch = batch_new(last - first, classes);
    name_case("every target: %zu classes, targets %zu to %zu", classes, first, last);
    size_t kind = rng_below(rng, row_kinds);
    for (size_t i = 0; i < batch.rows; i++) {
        batch.targets[i] = (int32_t)(first + i);
        if (i == 0)
            row_fill(rng, kind, batch.logits, classes, first);
        else
            memcpy(batch_row(&batch, i), batch.logits, classes * sizeof(float));
    }
    batch_check(&batch, rng);
    batch_free(&batch);
}

START_TEST(every_target)
{
    struct rng rng = rng_stream(5);
    for (size_t classes = 1; classes <= 140; classes++)
        if (scaled_chance(&rng))
            check_targets(&rng, classes, 0, classes);
    for (size_t i = 0; i < row_size_count; i++) {
        size_t classes = row_sizes[i];
        if (classes > 9000 || !scaled_chance(&rng))
            continue;
        size_t edge = (classes - 1) / 512 * 512;
        check_targets(&rng, classes, 0, 4);
        check_targets(&rng, classes, edge > 4 ? edge - 4 : 0, edge + 4 < classes ? edge + 4 : classes);
        check_targets(&rng, classes, classes - 40, classes);
    }
}
END_TEST

/* In-place code has stored something for the early blocks of a row by the time it meets what comes later. */
START_TEST(late_trouble)
{
    struct rng rng = rng_stream(6);
    for (size_t special = 0; special < row_specials; special++) {
        for (size_t repeat = 0; repeat < scaled(8); repeat++) {
            size_t blocks = 1 + rng_below(&rng, repeat == 0 ? 17 : 4);
            size_t classes = blocks * 512 + 1 + rng_below(&rng, 600);
            struct batch batch = batch_new(4, classes);
            name_case("late trouble: %zu classes, special %zu, repeat %zu", classes, special, repeat);
            batch_fill(&batch, &rng);
            for (size_t i = 0; i < batch.rows; i++) {
                size_t from = i == 0 ? blocks * 512 : i == 1 ? classes - 1 : rng_below(&rng, classes);
                row_fill_late(&rng, batch_row(&batch, i), classes, from, row_special(special));
                if (rng_chance(&rng, 0.3))
                    batch.targets[i] = (int32_t)(rng_chance(&rng, 0.5) ? from : rng_below(&rng, from + 1));
            }
            batch_check(&batch, &rng);
            batch_free(&batch);
        }
    }
}
END_TEST

/* Logits at both ends of the window, so that gradients are subnormal. */
START_TEST(ends_of_the_window)
{
    struct rng rng = rng_stream(10);
    for (size_t repeat = 0; repeat < scaled(60); repeat++) {
        struct batch batch = batch_new(1 + rng_below(&rng, 40), 2 + rng_below(&rng, repeat % 4 ? 40 : 300));
        name_case("ends of the window: repeat %zu: %zu rows of %zu classes", repeat, batch.rows, batch.classes);
        for (size_t i = 0; i < batch.rows; i++) {
            batch.targets[i] = (int32_t)rng_below(&rng, batch.classes);
            for (size_t j = 0; j < batch.classes; j++)
                batch_row(&batch, i)[j] =
                    (float)(rng_chance(&rng, 0.3) ? rng_uniform(&rng, 53, 55.4) : rng_uniform(&rng, -33, -30));
        }
        batch_check(&batch, &rng);
        batch_free(&batch);
    }
}
END_TEST

/* Rows so far below 0 that 0, which fills up their last vector, would have an infinite power of two: 2^1024 from them.
 */
START_TEST(far_below)
{
    struct rng rng = rng_stream(11);
    for (size_t classes = 1; classes < 140; classes += 3) {
        struct batch batch = batch_new(3, classes);
        name_case("far below: %zu classes", classes);
        for (size_t i = 0; i < batch.rows; i++) {
            batch.targets[i] = (int32_t)rng_below(&rng, classes);
            for (size_t j = 0; j < classes; j++)
                batch_row(&batch, i)[j] = j == 0 ? -709.8f : -810.0f;
        }
        batch_check(&batch, &rng);
        batch_free(&batch);
    }
}
END_TEST

START_TEST(anything)
{
    struct rng rng = rng_stream(7);
    for (size_t repeat = 0; repeat < scaled(400); repeat++) {
        struct batch batch = batch_new(1 + rng_below(&rng, 12), random_classes(&rng));
        name_case("anything: repeat %zu: %zu rows of %zu classes", repeat, batch.rows, batch.classes);
        if (rng_chance(&rng, 0.2))
            batch.ignore_index = (int64_t)rng_below(&rng, batch.classes);
        batch_fill(&batch, &rng);
        batch_check(&batch, &rng);
        batch_free(&batch);
    }
}
END_TEST

START_TEST(control_bits)
{
    struct rng rng = rng_stream(8);
    uint64_t control = fp_control_get();
    for (size_t repeat = 0; repeat < scaled(800); repeat++) {
        struct batch batch = batch_new(6, random_classes(&rng));
        struct scratch scratch = scratch_new(&batch);
        struct results expected = results_new(&batch), got = results_new(&batch);
        name_case("control bits: repeat %zu: %zu classes", repeat, batch.classes);
        batch_fill(&batch, &rng);
        batch_oracle(&batch, &scratch, &expected);
        for (const char *const *isa = xent_isas(); *isa; isa++) {
            struct layout layout = random_layout(&rng);
            name_detail("%s, %s", *isa, layout.in_place ? "in place" : "out of place");
            use_kernel(*isa);
            const uint64_t own = control | fp_control_flush | (repeat % 2 ? fp_control_round_up : 0);
            fp_control_set(own);
            batch_run(&batch, &layout, &scratch, &got);
            uint64_t after = fp_control_get();
            fp_control_set(control);
            if ((after & fp_control_mask) != (own & fp_control_mask))
                fail_case("the control bits were changed");
            expect_same(&batch, "loss", got.loss, expected.loss, 1);
            expect_same(&batch, "lse", got.lse, expected.lse, 1);
            expect_same(&batch, "logsumexp", got.logsumexp, expected.logsumexp, 1);
            expect_bits("mean", got.mean, expected.mean);
            expect_bits("sum", got.sum, expected.sum);
            expect_same(&batch, "gradient", got.grad, expected.grad, batch.classes);
            expect_same(&batch, "gradient of the mean", got.mean_grad, expected.mean_grad, batch.classes);
            expect_same(&batch, "softmax", got.probs, expected.probs, batch.classes);
            expect_same(&batch, "log-softmax", got.log_probs, expected.log_probs, batch.classes);
        }
        results_free(&expected);
        results_free(&got);
        scratch_free(&scratch);
        batch_free(&batch);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bits");
    tcase_add_test(add_case(suite, "sizes"), every_size);
    tcase_add_test(add_case(suite, "kinds"), every_kind);
    tcase_add_test(add_case(suite, "offsets"), every_offset);
    tcase_add_test(add_case(suite, "magnitudes"), every_magnitude);
    tcase_add_test(add_case(suite, "specials"), specials);
    tcase_add_test(add_case(suite, "targets"), every_target);
    tcase_add_test(add_case(suite, "late trouble"), late_trouble);
    tcase_add_test(add_case(suite, "ends of the window"), ends_of_the_window);
    tcase_add_test(add_case(suite, "far below"), far_below);
    tcase_add_test(add_case(suite, "anything"), anything);
    tcase_add_test(add_case(suite, "control bits"), control_bits);
    return run_suite(suite);
}
