/*
 * The examples of README.md, word for word, each run once and checked. tests/readme.py compares the two.
 */
#include "support.h"

#include <math.h>
#include <stdio.h>

enum { N = 2, C = 3, HW = 4 };

static const float scores[N * C * HW] = {1, 2, 0, -1, 3, 0.5f, 1, 1, -2, 0, 0, 4, 2, 0, 1, 1, 0, 0, 5, -3, 1, 1, 2, 0};

/* -log softmax(x)[y], for a row x of which each element is stride from the next. */
static double row_loss(const float *x, size_t classes, size_t stride, size_t y)
{
    double sum = 0;
    for (size_t j = 0; j < classes; j++)
        sum += exp((double)x[j * stride]);
    return log(sum) - (double)x[y * stride];
}

START_TEST(classification)
{
    enum { rows = 8, classes = 3 };
    float logits[rows * classes];
    memcpy(logits, scores, sizeof logits);
    const int32_t targets[rows] = {0, 1, 2, 0, 1, 2, 0, 1};
    double expected = 0;
    for (size_t i = 0; i < rows; i++)
        expected += row_loss(logits + i * classes, classes, 1, (size_t)targets[i]) / rows;
    /* classification */
    float loss; /* mean over the batch */
    xent_status status =
        xent_fused_f32(logits, targets, rows, classes, &loss, logits /* gradient in place; NULL: loss only */, NULL);
    if (status != XENT_OK)
        puts(xent_status_string(status));
    /* end */
    expect_within("loss", loss, expected, 2);
    ck_assert(logits[0] < 0);
}
END_TEST

START_TEST(language_model)
{
    enum { tokens = 3, vocabulary = 5, padded_vocabulary = 8 };
    float logits[tokens * padded_vocabulary], loss;
    memcpy(logits, scores, sizeof logits);
    const int32_t next_tokens[tokens] = {4, -100, 0};
    const double tokens_of_all_ranks = 100;
    const double expected =
        (row_loss(logits, vocabulary, 1, 4) + row_loss(logits + 2 * padded_vocabulary, vocabulary, 1, 0)) /
        tokens_of_all_ranks;
    const xent_executor *executor = NULL;
    xent_status status;
    /* language model */
    const xent_strides padded = {.outer = padded_vocabulary, .classes = 1};
    xent_problem lm = XENT_PROBLEM_INIT;
    lm.outer = tokens;
    lm.classes = vocabulary;
    lm.logits = lm.grad = logits; /* in place */
    lm.logits_strides = lm.grad_strides = &padded;
    lm.targets = next_tokens; /* int32; -100: left out */
    lm.normalizer = tokens_of_all_ranks;
    lm.loss = &loss;
    lm.executor = executor; /* your threads: xent/openmp.h, xent/pthreadpool.h, or a callback */
    status = xent_cross_entropy(&lm);
    /* end */
    expect_status("language model", status, XENT_OK);
    expect_within("loss", loss, expected, 2);
    expect_bits("padding", logits[vocabulary], scores[vocabulary]);
    expect_bits("a row that is left out", logits[padded_vocabulary], 0);
}
END_TEST

START_TEST(segmentation)
{
    enum { images = N, classes = C, height = 2, width = 2 };
    float grad[N * C * HW], loss;
    const float *logits = scores;
    const uint8_t masks[images * height * width] = {0, 1, 255, 2, 2, 255, 0, 1};
    const float class_weights[classes] = {1, 0.5f, 2};
    double expected = 0, denominator = 0;
    for (size_t i = 0; i < images * HW; i++) {
        if (masks[i] == 255)
            continue;
        const double w = (double)class_weights[masks[i]];
        expected += w * row_loss(logits + i / HW * C * HW + i % HW, classes, HW, masks[i]);
        denominator += w;
    }
    xent_status status;
    /* segmentation */
    xent_problem image = XENT_PROBLEM_INIT; /* logits [images][classes][height][width], as they are */
    image.outer = images;
    image.classes = classes;
    image.inner = height * width;
    image.logits = logits;
    image.grad = grad;
    image.target_type = XENT_LABELS_U8;
    image.targets = masks; /* [images][height][width] */
    image.ignore_index = 255;
    image.class_weights = class_weights;
    image.loss = &loss;
    status = xent_cross_entropy(&image);
    /* end */
    expect_status("segmentation", status, XENT_OK);
    expect_within("loss", loss, expected / denominator, 2);
    expect_bits("a position that is left out", grad[2], 0);
}
END_TEST

START_TEST(distillation)
{
    enum { rows = 4, classes = 6 };
    float grad[rows * classes], loss, teacher[rows * classes];
    const float *logits = scores;
    double expected = 0;
    for (size_t i = 0; i < rows * classes; i++) {
        teacher[i] = 1.0f / classes;
        expected += (double)teacher[i] * row_loss(logits + i / classes * classes, classes, 1, i % classes) / rows;
    }
    xent_status status;
    /* distillation */
    xent_problem student = XENT_PROBLEM_INIT;
    student.outer = rows;
    student.classes = classes;
    student.logits = logits;
    student.grad = grad;
    student.target_type = XENT_PROBABILITIES;
    student.targets = teacher; /* [rows][classes] */
    student.loss = &loss;
    status = xent_cross_entropy(&student);
    /* end */
    expect_status("distillation", status, XENT_OK);
    ck_assert_double_le(fabs((double)loss - expected), 1e-6);
}
END_TEST

START_TEST(mixup)
{
    enum { rows = 4, classes = 6 };
    float grad[rows * classes], loss;
    const float *logits = scores;
    const int32_t pairs[rows * 2] = {0, 1, 2, 2, 5, 0, 3, 4};
    const float shares[rows * 2] = {0.25f, 0.75f, 0.5f, 0.5f, 1, 0, 0.125f, 0.875f};
    double expected = 0;
    for (size_t i = 0; i < rows * 2; i++)
        expected += (double)shares[i] * row_loss(logits + i / 2 * classes, classes, 1, (size_t)pairs[i]) / rows;
    xent_status status;
    /* mixup */
    xent_problem mixed = XENT_PROBLEM_INIT;
    mixed.outer = rows;
    mixed.classes = classes;
    mixed.logits = logits;
    mixed.grad = grad;
    mixed.labels = 2;
    mixed.targets = pairs;        /* int32 [rows][2] */
    mixed.probabilities = shares; /* float [rows][2] */
    mixed.loss = &loss;
    status = xent_cross_entropy(&mixed);
    /* end */
    expect_status("mixup", status, XENT_OK);
    ck_assert_double_le(fabs((double)loss - expected), 1e-6);
}
END_TEST

START_TEST(multi_label)
{
    enum { rows = 2, labels = 3 };
    float grad[rows * labels], loss;
    const float *logits = scores;
    const float answers[rows * labels] = {1, 0, 0, 1, 1, 0}, pos_weight[labels] = {1, 3, 0.5f};
    double expected = 0;
    for (size_t i = 0; i < rows * labels; i++) {
        const double x = (double)logits[i], p = (double)pos_weight[i % labels];
        expected += (answers[i] > 0 ? p * log1p(exp(-x)) : log1p(exp(x))) / (rows * labels);
    }
    xent_status status;
    /* multi-label */
    xent_bce_options options = XENT_BCE_OPTIONS_INIT;
    options.pos_weight = pos_weight; /* [labels] */
    status = xent_bce_f32(logits, answers, rows, labels, &loss, grad, &options);
    /* end */
    expect_status("multi-label", status, XENT_OK);
    expect_within("loss", loss, expected, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("examples");
    TCase *test_case = add_case(suite, "examples");
    tcase_add_test(test_case, classification);
    tcase_add_test(test_case, language_model);
    tcase_add_test(test_case, segmentation);
    tcase_add_test(test_case, distillation);
    tcase_add_test(test_case, mixup);
    tcase_add_test(test_case, multi_label);
    return run_suite(suite);
}
