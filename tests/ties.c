/*
 * Rows of equal logits: exp's own constant factor and error cancel, so that every probability is the same and 1/classes
 * rounded. The multiplier has 32 bits: what it rounds off can decide a rounding that is nearly a tie, as that of
 * 1/4095.
 */
#include "support.h"

#include <math.h>
#include <stdlib.h>

static const float logits[] = {0.0f,   -0.0f,   1.0f,   -0x1.8p-3f, 31.25f, -40.0f,   87.0f,
                               300.0f, -255.0f, 600.0f, 1e4f,       -1e30f, 0x1p-140f};
enum { LOGITS = sizeof logits / sizeof logits[0], MAX_CLASSES = 40000 };

static const size_t sizes[] = {1,  2,  3,  4,   5,   6,   7,   9,    10,   11,   13,   16,   17,   27,    33,    49,
                               64, 65, 97, 100, 127, 255, 256, 1000, 1024, 3001, 4095, 8192, 8193, 10007, 32768, 40000};

static void compare(const float *x, size_t classes, float *out, float logit)
{
    const float share = (float)(1.0 / (double)classes), others = -(float)(1.0 - 1.0 / (double)classes);
    name_detail("%zu classes of %a", classes, (double)logit);
    expect_status("softmax", xent_softmax_f32(x, 1, classes, 0, out, 0), XENT_OK);
    for (size_t j = 1; j < classes; j++)
        expect_bits("probability, of equal ones", out[j], out[0]);
    expect_within("probability", out[0], 1.0 / (double)classes, 0.504);
    if (classes <= 256)
        expect_bits("probability", out[0], share);

    /* The target's exponential is computed apart, in double: entries are off by less than an exponential's error. */
    float loss;
    const int32_t target = (int32_t)(classes / 2);
    xent_options options = XENT_OPTIONS_INIT;
    expect_status("fused", xent_fused_f32(x, &target, 1, classes, &loss, out, &options), XENT_OK);
    for (size_t j = 0; j < classes; j++)
        if (j != (size_t)target && (j > 0 || classes == 1))
            expect_bits("gradient, of equal ones", out[j], out[target == 0 ? classes - 1 : 0]);
    if (classes > 1)
        expect_within("gradient", out[target == 0 ? classes - 1 : 0], 1.0 / (double)classes, 1.6);
    expect_within("target's gradient", out[target], classes > 1 ? (double)others : 0.0, 1.6);
    expect_within("loss", loss, log((double)classes), 1.6);
    if (logit == 0.0f && classes > 1)
        expect_within("gradient of zeros", out[target == 0 ? classes - 1 : 0], 1.0 / (double)classes, 0.55);
}

START_TEST(equal_logits)
{
    float *x = allocate(MAX_CLASSES * sizeof *x), *out = allocate(MAX_CLASSES * sizeof *out);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("ties, %s", *isa);
        for (size_t i = 0; i < LOGITS; i++) {
            for (size_t j = 0; j < MAX_CLASSES; j++)
                x[j] = logits[i];
            for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
                compare(x, sizes[k], out, logits[i]);
        }
    }
    free(x);
    free(out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ties");
    tcase_add_test(add_case(suite, "ties"), equal_logits);
    return run_suite(suite);
}
