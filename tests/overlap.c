/*
 * Which arrays may overlap: only grad with the logits, and then exactly.
 */
#include "api.h"

#include <stdlib.h>

/* Where the arrays start in one block of memory, in units of 4 bytes: the first five are apart from each other and from
   whatever is around AT. ABSENT: not given. */
enum {
    LOGITS = 0,
    GRAD = 100,
    TARGETS = 150,
    LOSS = 170,
    LSE = 180,
    BLOCK = 200,
    AT = 40,
    ABSENT = -1,
    ROW = CLASSES,
    ALL = ROWS * CLASSES
};

struct placing {
    const char *name;
    int logits, grad, targets, loss, lse;
    size_t logits_stride, grad_stride;
    xent_status expected;
};

static const struct placing placings[] = {
    {"all apart", LOGITS, GRAD, TARGETS, LOSS, LSE, 0, 0, XENT_OK},
    {"in place", AT, AT, TARGETS, LOSS, LSE, 0, 0, XENT_OK},
    {"in place, strided", AT, AT, TARGETS, LOSS, LSE, STRIDE, STRIDE, XENT_OK},
    {"in place, a stride given once", AT, AT, TARGETS, LOSS, LSE, CLASSES, 0, XENT_OK},
    {"grad right after logits", AT, AT + ALL, TARGETS, LOSS, LSE, 0, 0, XENT_OK},
    {"grad right before logits", AT, AT - ALL, TARGETS, LOSS, LSE, 0, 0, XENT_OK},
    {"interleaved, grad second", AT, AT + ROW, TARGETS, LOSS, LSE, 2 * ROW, 2 * ROW, XENT_OK},
    {"interleaved, grad first", AT, AT - ROW, TARGETS, LOSS, LSE, 2 * ROW, 2 * ROW, XENT_OK},
    {"interleaved, a row on", AT, AT + 3 * ROW, TARGETS, LOSS, LSE, 2 * ROW, 2 * ROW, XENT_OK},
    {"interleaved with a gap", AT, AT + ROW + 1, TARGETS, LOSS, LSE, 2 * ROW + 2, 2 * ROW + 2, XENT_OK},
    {"loss right after logits", AT, GRAD, TARGETS, AT + ALL, LSE, 0, 0, XENT_OK},
    {"loss right before logits", AT, GRAD, TARGETS, AT - ROWS, LSE, 0, 0, XENT_OK},
    {"loss, lse and targets side by side", AT, GRAD, TARGETS, TARGETS + ROWS, TARGETS + 2 * ROWS, 0, 0, XENT_OK},

    {"grad one element on", AT, AT + 1, TARGETS, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"grad one element back", AT, AT - 1, TARGETS, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"grad one row on", AT, AT + ROW, TARGETS, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"grad's first element is the last logit", AT, AT + ALL - 1, TARGETS, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"grad's last element is the first logit", AT, AT - ALL + 1, TARGETS, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"in place, another stride", AT, AT, TARGETS, LOSS, LSE, STRIDE, CLASSES, XENT_ERR_OVERLAP},
    {"in place, another stride", AT, AT, TARGETS, LOSS, LSE, CLASSES, STRIDE, XENT_ERR_OVERLAP},
    {"interleaved too closely", AT, AT + ROW - 1, TARGETS, LOSS, LSE, 2 * ROW, 2 * ROW, XENT_ERR_OVERLAP},
    {"interleaved too far", AT, AT + ROW + 1, TARGETS, LOSS, LSE, 2 * ROW, 2 * ROW, XENT_ERR_OVERLAP},
    {"interleaved, a later row collides", AT, AT + ROW, TARGETS, LOSS, LSE, 2 * ROW, ROW, XENT_ERR_OVERLAP},
    {"strided, a row on", AT, AT + STRIDE, TARGETS, LOSS, LSE, STRIDE, STRIDE, XENT_ERR_OVERLAP},
    {"grad over targets", LOGITS, AT, AT, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"grad's last element over targets", LOGITS, AT, AT + ALL - 1, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"grad's first element over targets", LOGITS, AT, AT - ROWS + 1, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"in place over targets", AT, AT, AT + 5, LOSS, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"loss over logits", AT, GRAD, TARGETS, AT + 3, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"loss's first over the last logit", AT, GRAD, TARGETS, AT + ALL - 1, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"loss's last over the first logit", AT, GRAD, TARGETS, AT - ROWS + 1, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"loss over logits, forward only", AT, ABSENT, TARGETS, AT + 3, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"loss over grad", LOGITS, AT, TARGETS, AT, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"loss's first over grad's last", LOGITS, AT, TARGETS, AT + ALL - 1, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"loss over targets", LOGITS, GRAD, AT, AT, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"loss's last over the first target", LOGITS, GRAD, AT, AT - ROWS + 1, LSE, 0, 0, XENT_ERR_OVERLAP},
    {"lse over logits", AT, GRAD, TARGETS, LOSS, AT + ALL - 1, 0, 0, XENT_ERR_OVERLAP},
    {"lse over grad", LOGITS, AT, TARGETS, LOSS, AT - ROWS + 1, 0, 0, XENT_ERR_OVERLAP},
    {"lse over targets", LOGITS, GRAD, AT, LOSS, AT + ROWS - 1, 0, 0, XENT_ERR_OVERLAP},
    {"lse is loss", LOGITS, GRAD, TARGETS, AT, AT, 0, 0, XENT_ERR_OVERLAP},
    {"lse over loss", LOGITS, GRAD, TARGETS, AT, AT + ROWS - 1, 0, 0, XENT_ERR_OVERLAP},
};

/* The elements of a block that the call may write. */
static void mark(bool *writable, int first, size_t count)
{
    for (size_t j = 0; first != ABSENT && j < count; j++)
        writable[(size_t)first + j] = true;
}

static xent_status call(const struct placing *p, float *block, xent_reduction reduction)
{
    xent_options options = XENT_OPTIONS_INIT;
    options.reduction = reduction;
    options.logits_stride = p->logits_stride;
    options.grad_stride = p->grad_stride;
    options.lse = block + p->lse;
    float *grad = p->grad == ABSENT ? NULL : block + p->grad;
    return xent_fused_f32(block + p->logits, (const int32_t *)(const void *)(block + p->targets), ROWS, CLASSES,
                          block + p->loss, grad, &options);
}

static void fill_block(const struct placing *p, float *block, bool with_targets)
{
    const size_t stride = p->logits_stride ? p->logits_stride : CLASSES;
    memset(block, 0xff, BLOCK * sizeof *block);
    for (size_t i = 0; i < ROWS * CLASSES; i++)
        block[(size_t)p->logits + i / CLASSES * stride + i % CLASSES] = (float)((i * 5) % 7) - 3.0f;
    for (size_t i = 0; with_targets && i < ROWS; i++)
        memcpy(block + (size_t)p->targets + i, &(int32_t){(int32_t)i}, sizeof(int32_t));
}

static void check_placing(const struct placing *p, xent_reduction reduction)
{
    float *block = allocate(BLOCK * sizeof *block), *before = allocate(BLOCK * sizeof *before);
    bool writable[BLOCK] = {false};
    bool accepted = p->expected == XENT_OK;
    name_case("overlap: %s, reduction %d", p->name, (int)reduction);
    fill_block(p, block, true);
    memcpy(before, block, BLOCK * sizeof *block);
    expect_status("status", call(p, block, reduction), p->expected);
    if (accepted) {
        const size_t stride = p->grad_stride ? p->grad_stride : CLASSES;
        for (size_t i = 0; i < ROWS; i++)
            mark(writable, p->grad + (int)(i * stride), CLASSES);
        mark(writable, p->loss, reduction == XENT_NONE ? ROWS : 1);
        mark(writable, p->lse, ROWS);
    }
    for (size_t i = 0; i < BLOCK; i++)
        if (!writable[i] && float_bits(block[i]) != float_bits(before[i]))
            fail_case("element %zu was written to", i);
    if (accepted) {
        /* The same call with everything apart has the same results. */
        float loss[ROWS] = {0}, lse[ROWS], grad[ROWS * CLASSES];
        float *logits = before + p->logits;
        const int32_t targets[ROWS] = {0, 1, 2};
        xent_options options = XENT_OPTIONS_INIT;
        options.reduction = reduction;
        options.logits_stride = p->logits_stride;
        options.lse = lse;
        expect_status("apart", xent_fused_f32(logits, targets, ROWS, CLASSES, loss, grad, &options), XENT_OK);
        const size_t stride = p->grad_stride ? p->grad_stride : CLASSES;
        ck_assert_mem_eq(block + p->loss, loss, (reduction == XENT_NONE ? ROWS : 1) * sizeof *loss);
        ck_assert_mem_eq(block + p->lse, lse, sizeof lse);
        for (size_t i = 0; i < ROWS; i++)
            ck_assert_mem_eq(block + (size_t)p->grad + i * stride, grad + i * CLASSES, CLASSES * sizeof *grad);
    }
    free(before);
    free(block);
}

START_TEST(placings_of_arrays)
{
    const struct placing *p = &placings[_i];
    check_placing(p, XENT_NONE);
    if (p->expected == XENT_OK)
        check_placing(p, XENT_MEAN);
}
END_TEST

/* Of a reduced loss only the one value counts. */
START_TEST(single_loss)
{
    struct placing beside = {"loss just before logits", AT, GRAD, TARGETS, AT - 1, LSE, 0, 0, XENT_OK};
    struct placing over = {"loss on the first logit", AT, GRAD, TARGETS, AT, LSE, 0, 0, XENT_ERR_OVERLAP};
    for (int reduction = XENT_MEAN; reduction <= XENT_SUM; reduction++) {
        check_placing(&beside, (xent_reduction)reduction);
        check_placing(&over, (xent_reduction)reduction);
    }
}
END_TEST

/* 64-bit targets are twice as long. */
START_TEST(wide_targets)
{
    float *block = allocate(BLOCK * sizeof *block);
    int64_t *targets = (int64_t *)(void *)(block + AT);
    for (int at = AT - ALL + 1; at < AT + 2 * ROWS; at++) {
        float loss, before[BLOCK], logits[ROWS * CLASSES] = {0};
        name_case("grad over 64-bit targets, %d elements on", at - AT);
        memset(block, 0, BLOCK * sizeof *block);
        memcpy(targets, (const int64_t[ROWS]){0, 1, 2}, ROWS * sizeof *targets);
        memcpy(before, block, sizeof before);
        expect_status("status", xent_fused_f32_i64(logits, targets, ROWS, CLASSES, &loss, block + at, NULL),
                      XENT_ERR_OVERLAP);
        ck_assert_mem_eq(block, before, sizeof before);
    }
    free(block);
}
END_TEST

/* A single row has no gaps that another could lie in, whatever its stride. */
START_TEST(single_row)
{
    float block[BLOCK], before[BLOCK], loss;
    const int32_t target = 1;
    const xent_strides strides[] = {{0, 1, 0}, {CLASSES, 1, 1}, {1, 1, CLASSES}, {4 * CLASSES, 1, 0}};
    for (int at = AT - ROW + 1; at < AT + ROW; at++) {
        if (at == AT)
            continue;
        name_case("one row, grad %d elements on", at - AT);
        for (int i = 0; i < BLOCK; i++)
            before[i] = block[i] = (float)(i % 5);
        float *x = block + AT, *grad = block + at;
        expect_status("fused", xent_fused_f32(x, &target, 1, CLASSES, &loss, grad, NULL), XENT_ERR_OVERLAP);
        expect_status("softmax", xent_softmax_f32(x, 1, CLASSES, 0, grad, 0), XENT_ERR_OVERLAP);
        expect_status("log_softmax", xent_log_softmax_f32(x, 1, CLASSES, 0, grad, 0), XENT_ERR_OVERLAP);
        expect_status("bce", xent_bce_f32(x, before, 1, CLASSES, &loss, grad, NULL), XENT_ERR_OVERLAP);
        for (size_t s = 0; s < sizeof strides / sizeof strides[0]; s++) {
            xent_problem p = XENT_PROBLEM_INIT;
            p.outer = 1;
            p.classes = CLASSES;
            p.logits = x;
            p.grad = grad;
            p.logits_strides = p.grad_strides = &strides[s];
            p.targets = &target;
            p.loss = &loss;
            expect_status("general", xent_cross_entropy(&p), XENT_ERR_OVERLAP);
        }
        ck_assert_mem_eq(block, before, sizeof before);
    }
}
END_TEST

void add_overlap_tests(TCase *test_case)
{
    tcase_add_loop_test(test_case, placings_of_arrays, 0, (int)(sizeof placings / sizeof placings[0]));
    tcase_add_test(test_case, single_loss);
    tcase_add_test(test_case, wide_targets);
    tcase_add_test(test_case, single_row);
}
