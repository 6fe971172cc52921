/*
 * The exponential of one kernel (docs/numerics.md, section 1) at every float that it is applied to, or at a sample of
 * 2^22 of them: its error, its two forms (with the exponent apart, and in the window), and whether it grows.
 *
 * The reference is the libm's exp in double, which is compared with MPFR on the way: its error is below 2^-51, and what
 * is measured here is 2^-24. Compiled once per kernel with its flags and KERNEL_SOURCE naming its source.
 */
#include KERNEL_SOURCE

#include "cpu.h"

#include "run.h"

#include <check.h>
#include <math.h>
#include <mpfr.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024, SAMPLE = 1 << 22, SEAMS = 11817 };

/* The largest error found among all floats is 1.06630 in the window and 1.06631 beyond it, in units of 2^-24. */
static const double bound = 1.0664;

static bool exhaustive;

/* Floats in (-512, 512) by increasing numbers, those below 0 before 0 (-0 has -1, +0 has 0). */
static const int64_t numbers_end = 0x44000000;

static float number(int64_t i)
{
    return f32_from_bits(i >= 0 ? (uint32_t)i : (uint32_t)(-1 - i) | 0x80000000u);
}

static int64_t number_of(float z)
{
    const uint32_t bits = f32_bits(z);
    return bits >> 31 ? -1 - (int64_t)(bits & 0x7fffffff) : (int64_t)bits;
}

/* K exp(z) = f * 2^n, and the same as a float e of the window, if it lies there. */
struct block {
    float z[BLOCK], f[BLOCK], e[BLOCK];
    int32_t n[BLOCK];
    bool in_window[BLOCK];
};

#ifdef KERNEL_IS_SCALAR

/* The scalar kernel knows no window: e is f * 2^n by definition. */
static void block_run(struct block *b, struct frame frame)
{
    for (int i = 0; i < BLOCK; ++i) {
        const struct scaled e = exponential(b->z[i], frame);
        const float n16 = rintf(b->z[i] * XENT_16LOG2E);
        b->f[i] = e.f;
        b->n[i] = e.n;
        b->in_window[i] = n16 >= -768 && n16 < 1280;
        b->e[i] = (float)((double)e.f * f64_pow2(e.n));
    }
}

#else

static void block_run(struct block *b, struct frame frame)
{
    for (int i = 0; i < BLOCK; i += VW) {
        vi n;
        const vf z = vload(b->z + i);
        vstore(b->f + i, exp_wide(z, vset(frame.ref), vset(frame.cut), &n));
        vistore(b->n + i, n);
        float t[VW];
        const vf rounded = exp_round(z);
        vstore(t, rounded);
        vstore(b->e + i, exp_polynomial(vtable(vt_load(table), rounded), exp_reduce(z, rounded)));
        for (int l = 0; l < VW; ++l)
            b->in_window[i + l] = ((f32_bits(t[l]) ^ (uint32_t)rounder_bits) & ~(uint32_t)(WINDOW_SIZE - 1)) == 0;
    }
}

#endif

/* The worst cases of one region. */
struct extremes {
    uint64_t count;
    double least, most; /* e / (K exp z) - 1 in 2^-24 */
    float least_at, most_at;
};

struct scan {
    struct extremes window, beyond;
    uint64_t falls, falls_at_seams; /* how often the next float has a smaller exponential */
    double deepest;                 /* the largest of these steps, in units in the last place of f */
    float deepest_at;
};

static void extremes_take(struct extremes *x, double error, float z)
{
    ++x->count;
    if (error < x->least) {
        x->least = error;
        x->least_at = z;
    }
    if (error > x->most) {
        x->most = error;
        x->most_at = z;
    }
}

static double value(const struct block *b, int i)
{
    return (double)b->f[i] * f64_pow2(b->n[i]);
}

static void scan_block(struct scan *scan, const struct block *b)
{
    for (int i = 0; i < BLOCK; ++i) {
        if (!(b->f[i] > 0.98f && b->f[i] < 2.02f))
            ck_abort_msg("z %a: f is %a", (double)b->z[i], (double)b->f[i]);
        if (b->in_window[i] && (double)b->e[i] != value(b, i))
            ck_abort_msg("z %a: %a in the window, %a apart", (double)b->z[i], (double)b->e[i], value(b, i));
        const double error = (value(b, i) / (XENT_K * exp((double)b->z[i])) - 1) * 0x1p24;
        extremes_take(b->in_window[i] ? &scan->window : &scan->beyond, error, b->z[i]);
    }
}

/* The only float that has another entry of the table than the one before it, and a smaller exponential. */
static const float only_fall = -0x1.bb9d3cp-4f;

/* Whether the entry of the table changes between two neighbouring floats. */
static bool is_seam(float z, float next)
{
    return fmaf(z, XENT_16LOG2E, 0x1.8p23f) != fmaf(next, XENT_16LOG2E, 0x1.8p23f);
}

/* Compares the exponentials of neighbouring floats; before is that of the float before the block's first. */
static double scan_growth(struct scan *scan, const struct block *b, double before)
{
    for (int i = 0; i < BLOCK; ++i) {
        const double e = value(b, i);
        if (e < before) {
            ++scan->falls;
            scan->falls_at_seams += is_seam(number(number_of(b->z[i]) - 1), b->z[i]);
            if (fabsf(b->z[i]) >= 1)
                ck_abort_msg("exp falls from %a to %a at z = %a", before, e, (double)b->z[i]);
            const double depth = (before - e) / ldexp(1, ilogb(e) - 23);
            if (depth > scan->deepest) {
                scan->deepest = depth;
                scan->deepest_at = b->z[i];
            }
        }
        before = e;
    }
    return before;
}

static void extremes_print(const char *region, const struct extremes *x)
{
    printf("# %s: %llu floats, e / (K exp z) - 1 from %.5f * 2^-24 at %a to %.5f * 2^-24 at %a\n", region,
           (unsigned long long)x->count, x->least, (double)x->least_at, x->most, (double)x->most_at);
}

START_TEST(every_float)
{
    static struct block b;
    struct scan scan = {.deepest = 0};
    double before = 0;
    /* An odd step, so that a sample meets every low bit; its last block goes over the end, and repeats the last float.
     */
    const int64_t step = exhaustive ? 1 : (2 * numbers_end / SAMPLE - 1) | 1;
    for (int64_t i = -numbers_end; i < numbers_end;) {
        for (int k = 0; k < BLOCK; ++k, i += step)
            b.z[k] = number(i < numbers_end ? i : numbers_end - 1);
        block_run(&b, near_frame);
        scan_block(&scan, &b);
        if (exhaustive)
            before = scan_growth(&scan, &b, before);
    }
    extremes_print("in the window", &scan.window);
    extremes_print("beyond it", &scan.beyond);
    if (exhaustive)
        printf("# %llu floats have a smaller exponential than the one before, %llu of them at seams, by at most %g ULP "
               "(at %a)\n",
               (unsigned long long)scan.falls, (unsigned long long)scan.falls_at_seams, scan.deepest,
               (double)scan.deepest_at);
    fflush(stdout);
    ck_assert(scan.window.count + scan.beyond.count >= SAMPLE);
    ck_assert_msg(scan.window.most <= bound && scan.window.least >= -bound, "errors in the window are larger");
    ck_assert_msg(scan.beyond.most <= bound && scan.beyond.least >= -bound, "errors beyond the window are larger");
    ck_assert_msg(scan.falls_at_seams == exhaustive, "exponentials fall where the entry of the table changes");
    ck_assert_msg(scan.deepest <= 1, "an exponential is more than an ULP larger than that of the next float");
}
END_TEST

/* At or below a cut the exponential is 0, whatever n is, and a NaN stays one. In exhaustive runs: of every float. */
START_TEST(at_the_cut)
{
    static struct block b;
    static const struct frame frames[] = {{0.0f, XENT_NEAR_CUT}, {0.0f, XENT_FAR_CUT}};
    for (size_t k = 0; k < 2; ++k) {
        const int64_t below = number_of(-INFINITY), cut = number_of(frames[k].cut);
        const int64_t step = exhaustive ? 1 : 4099;
        for (int64_t i = cut; i >= below;) {
            for (int l = 0; l < BLOCK; ++l, i -= step)
                b.z[l] = number(i >= below ? i : below);
            block_run(&b, frames[k]);
            for (int l = 0; l < BLOCK; ++l)
                if (f32_bits(b.f[l]) != 0 || b.n[l] < -1000 || b.n[l] > 1000)
                    ck_abort_msg("z %a, cut %a: %a * 2^%d", (double)b.z[l], (double)frames[k].cut, (double)b.f[l],
                                 (int)b.n[l]);
        }
        for (int l = 0; l < BLOCK; ++l)
            b.z[l] = number(cut + 1);
        block_run(&b, frames[k]);
        for (int l = 0; l < BLOCK; ++l)
            ck_assert_msg(b.f[l] > 0, "the exponential of the first float above %a is 0", (double)frames[k].cut);
    }
#ifndef KERNEL_IS_SCALAR /* which looks for NaN elsewhere */
    for (int l = 0; l < BLOCK; ++l)
        b.z[l] = f32_from_bits((l % 2 ? 0xff800001u : 0x7f800001u) + (uint32_t)l * 8191);
    block_run(&b, near_frame);
    for (int l = 0; l < BLOCK; ++l)
        ck_assert_msg(b.f[l] != b.f[l], "exp(NaN) is %a", (double)b.f[l]);
#endif
}
END_TEST

/* From the last float with one entry of the table to the first with the next exponentials do not fall, but once. Around
   these seams, and wherever floats are denser than their exponentials, roundings may make them fall, by one ULP at
   most. */
START_TEST(seams)
{
    static struct block b;
    enum { AROUND = 32, TOGETHER = BLOCK / AROUND };
    for (int seam = -SEAMS; seam < SEAMS; seam += TOGETHER) {
        for (int s = 0; s < TOGETHER; ++s) {
            const double last = seam + s < SEAMS ? seam + s : SEAMS - 1;
            const int64_t centre = number_of((float)((last + 0.5) * 0x1.62e42fefa39efp-5));
            for (int i = 0; i < AROUND; ++i)
                b.z[s * AROUND + i] = number(centre - AROUND / 2 + i);
        }
        block_run(&b, near_frame);
        for (int s = 0; s < TOGETHER; ++s)
            for (int i = s * AROUND + 1; i < (s + 1) * AROUND; ++i)
                if (value(&b, i - 1) - value(&b, i) > ldexp(1, ilogb(value(&b, i)) - 23) ||
                    (is_seam(b.z[i - 1], b.z[i]) && b.z[i] != only_fall && value(&b, i) < value(&b, i - 1)))
                    ck_abort_msg("exp falls from %a to %a at z = %a", value(&b, i - 1), value(&b, i), (double)b.z[i]);
    }
}
END_TEST

/* exp(0) is c, not 1: it cancels. K differs from it by less than 2^-28. */
START_TEST(of_zero)
{
#define ENTRY(k, bits) bits
    static const uint32_t entries[16] = {XENT_TABLE(ENTRY)};
#undef ENTRY
    static const float zeros[] = {0.0f, -0.0f, 0x1p-149f, -0x1p-149f, 0x1p-27f, -0x1p-27f};
    static struct block b;
    for (int i = 0; i < BLOCK; ++i)
        b.z[i] = zeros[i % 6];
    block_run(&b, near_frame);
    for (int i = 0; i < BLOCK; ++i) {
        ck_assert_msg(f32_bits(b.f[i]) == entries[0] && b.n[i] == 0, "exp(%a) = %a * 2^%d", (double)b.z[i],
                      (double)b.f[i], (int)b.n[i]);
        ck_assert(b.in_window[i] && b.e[i] == b.f[i]);
    }
    ck_assert(fabs((double)f32_from_bits(entries[0]) / XENT_K - 1) < 0x1p-28);
}
END_TEST

/* The reference against MPFR. */
START_TEST(of_the_libm)
{
    mpfr_t exact, got;
    mpfr_inits2(120, exact, got, (mpfr_ptr)NULL);
    double worst = 0;
    for (int64_t i = -numbers_end; i < numbers_end; i += exhaustive ? 2111 : 131071) {
        const float z = number(i);
        mpfr_set_flt(exact, z, MPFR_RNDN);
        mpfr_exp(exact, exact, MPFR_RNDN);
        mpfr_set_d(got, exp((double)z), MPFR_RNDN);
        mpfr_div(got, got, exact, MPFR_RNDN);
        mpfr_sub_ui(got, got, 1, MPFR_RNDN);
        worst = fmax(worst, fabs(mpfr_get_d(got, MPFR_RNDN)));
    }
    printf("# the libm's exp in double: within 2^%.2f\n", log2(worst));
    fflush(stdout);
    mpfr_clears(exact, got, (mpfr_ptr)NULL);
    mpfr_free_cache();
    ck_assert_double_lt(worst, 0x1p-50);
}
END_TEST

int main(int argc, char **argv)
{
    const struct xent_kernel *kernel = &KERNEL_UNDER_TEST;
    if (kernel->needs & ~xent_cpu_features()) {
        printf("1..0 # SKIP this CPU cannot run %s\n", kernel->name);
        return EXIT_SUCCESS;
    }
    exhaustive = argc > 1 && strcmp(argv[1], "--all") == 0;
    printf("# %s, %s\n", kernel->name, exhaustive ? "every float" : "a sample of 2^22 floats");
    fflush(stdout);

    TCase *tests = tcase_create(kernel->name);
    tcase_add_test(tests, every_float);
    tcase_add_test(tests, at_the_cut);
    tcase_add_test(tests, seams);
    tcase_add_test(tests, of_zero);
    tcase_add_test(tests, of_the_libm);
    return run_case("exp", tests);
}
