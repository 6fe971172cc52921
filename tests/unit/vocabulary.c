/*
 * The vector operations of one kernel against their written meaning (kernels/algorithm.h), lane by lane in plain C.
 *
 * Compiled once per kernel with its flags and KERNEL_SOURCE naming its source. Runs only where the CPU can.
 */
#include KERNEL_SOURCE

#include "cpu.h"

#include "run.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 10000 };

static uint64_t random_state;

static uint32_t random32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

/* Bit patterns of every kind: random ones, small integers, and the values that comparisons get wrong. */
static float random_float(void)
{
    static const uint32_t special[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000,
                                       0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff,
                                       0x3f800000, 0xbf800000, 0xc4000000, 0xc3400000};
    const uint32_t r = random32();
    if (r % 4 == 0)
        return f32_from_bits(special[random32() % (sizeof special / sizeof *special)]);
    return r % 4 == 1 ? f32_from_bits(random32()) : (float)((int32_t)random32()) * 0x1p-24f;
}

static void random_lanes(float *lane)
{
    for (int i = 0; i < VW; ++i)
        lane[i] = random_float();
}

/* Equal bits, or both NaN (whose payloads no result depends on). */
static void same(const char *operation, int lane, float got, float want)
{
    if (f32_bits(got) != f32_bits(want) && (got == got || want == want))
        ck_abort_msg("%s lane %d: got %a (%08x), want %a (%08x)", operation, lane, (double)got, f32_bits(got),
                     (double)want, f32_bits(want));
}

static void all_same(const char *operation, vf v, const float *want)
{
    float got[VW];
    vstore(got, v);
    for (int i = 0; i < VW; ++i)
        same(operation, i, got[i], want[i]);
}

START_TEST(arithmetic_and_selection)
{
    for (int round = 0; round < ROUNDS; ++round) {
        float a[VW], b[VW], c[VW], want[VW];
        random_lanes(a);
        random_lanes(b);
        random_lanes(c);
        const vf va = vload(a), vb = vload(b), vc = vload(c);
        const size_t count = random32() % (VW + 3);
        const float bound = c[0];
#define CHECK(operation, call, expression)                                                                             \
    for (int i = 0; i < VW; ++i)                                                                                       \
        want[i] = (expression);                                                                                        \
    all_same(operation, call, want)
        CHECK("vset", vset(bound), bound);
        float streamed[VW] __attribute__((aligned(64)));
        vstream(streamed, va);
        vstream_end();
        CHECK("vstream", vload(streamed), a[i]);
        CHECK("vsub", vsub(va, vb), a[i] - b[i]);
        CHECK("vmul", vmul(va, vb), a[i] * b[i]);
        CHECK("vfma", vfma(va, vb, vc), fmaf(a[i], b[i], c[i]));
        CHECK("vfnma", vfnma(va, vb, vc), fmaf(-a[i], b[i], c[i]));
        CHECK("vmax", vmax(va, vb), a[i] > b[i] ? a[i] : b[i]);
        CHECK("vkeep_first", vkeep_first(va, count), (size_t)i < count ? a[i] : 0.0f);
        CHECK("vkeep_above", vkeep_above(va, vb, vset(bound)), b[i] <= bound ? 0.0f : a[i]);
    }
}
END_TEST

START_TEST(integers)
{
    for (int round = 0; round < ROUNDS; ++round) {
        float a[VW], b[VW], want[VW];
        random_lanes(a);
        random_lanes(b);
        const vi wa = vbits(vload(a)), wb = vbits(vload(b));
        const int c = (int32_t)random32() >> random32() % 31;
        int32_t words[VW], stored[VW], lanes[VW];
        for (int i = 0; i < VW; ++i)
            words[i] = (int32_t)(random32() % 5) - 2;
        for (int i = 0; i < VW; ++i)
            lanes[i] = (int32_t)(random32() % VW);
        vistore(stored, viload(words));
        ck_assert_msg(memcmp(words, stored, sizeof words) == 0, "vistore of viload");
        CHECK("viset", vfrom_bits(viset(c)), f32_from_bits((uint32_t)c));
        CHECK("viadd", vfrom_bits(viadd(wa, wb)), f32_from_bits(f32_bits(a[i]) + f32_bits(b[i])));
        CHECK("visub", vfrom_bits(visub(wa, wb)), f32_from_bits(f32_bits(a[i]) - f32_bits(b[i])));
        CHECK("vishl", vfrom_bits(vishl(wa, 23)), f32_from_bits(f32_bits(a[i]) << 23));
        CHECK("visar", vfrom_bits(visar(wa, 3)), f32_from_bits((uint32_t)((int32_t)f32_bits(a[i]) >> 3)));
        CHECK("vand", vand(vload(a), words), f32_from_bits(f32_bits(a[i]) & (uint32_t)words[i]));
        CHECK("vpermute", vpermute(vload(a), viload(lanes)), a[lanes[i]]);
        CHECK("vdrop_where", vdrop_where(vload(a), viload(words), words[round % VW]),
              words[i] == words[round % VW] ? 0.0f : a[i]);
        CHECK("vreplace_where", vreplace_where(vload(a), viload(words), words[round % VW], vload(b)),
              words[i] == words[round % VW] ? b[i] : a[i]);
        CHECK("vkeep_int_ge", vkeep_int_ge(vload(b), wa, -126), (int32_t)f32_bits(a[i]) >= -126 ? b[i] : 0.0f);
        CHECK("vtable", vtable(vt_load(table), vload(a)),
              f32_from_bits((uint32_t)table[f32_bits(a[i]) & 15] + (f32_bits(a[i]) << 19)));
        CHECK("vstray", vfrom_bits(vstray(vload(a), vload(b), c)),
              f32_from_bits((f32_bits(a[i]) ^ (uint32_t)c) | (f32_bits(b[i]) ^ (uint32_t)c)));
        CHECK("vior", vfrom_bits(vior(wa, wb)), f32_from_bits(f32_bits(a[i]) | f32_bits(b[i])));
        bool any = false;
        for (int i = 0; i < VW; ++i)
            any |= (f32_bits(a[i]) & (uint32_t)c) != 0;
        ck_assert_msg(vany(wa, c) == any, "vany with mask %08x", (unsigned)c);
        ck_assert_msg(!vany(viset(0), c), "vany of zeros");
    }
}
END_TEST

START_TEST(partial_memory)
{
    for (size_t count = 0; count <= VW + 1; ++count) {
        float in[VW + 2], out[VW + 2], want[VW];
        for (int i = 0; i < VW + 2; ++i) {
            in[i] = random_float();
            out[i] = -7.0f;
        }
        CHECK("vload_first", vload_first(in, count), (size_t)i < count ? in[i] : 0.0f);
        vstore_first(out, vload(in), count);
        for (size_t i = 0; i < VW + 2; ++i)
            same("vstore_first", (int)i, out[i], i < count && i < VW ? in[i] : -7.0f);
    }
}
END_TEST

/* Four classes of a vector's worth of rows, whose other elements neither are read nor written. */
START_TEST(columns)
{
    for (size_t count = 1; count <= 4; ++count) {
        for (size_t j = 0; j < 3; ++j) {
            float in[VW][8], out[VW][8];
            const float *from[VW];
            float *to[VW];
            for (int l = 0; l < VW; ++l) {
                from[l] = in[l];
                to[l] = out[l];
                for (int i = 0; i < 8; ++i) {
                    in[l][i] = random_float();
                    out[l][i] = -7.0f;
                }
            }
            vf column[4];
            vload_columns(from, j, count, column);
            for (size_t k = 0; k < 4; ++k) {
                float want[VW];
                for (int l = 0; l < VW; ++l)
                    want[l] = k < count ? in[l][j + k] : 0.0f;
                all_same("vload_columns", column[k], want);
            }
            vstore_columns(to, j, count, column);
            for (int l = 0; l < VW; ++l)
                for (size_t i = 0; i < 8; ++i)
                    same("vstore_columns", l, out[l][i], i >= j && i < j + count ? in[l][i] : -7.0f);
        }
    }
}
END_TEST

/* Sums are exact here (few bits, near exponents), so that only the lanes and the scale are tested. */
START_TEST(double_sums)
{
    for (int round = 0; round < ROUNDS; ++round) {
        vd sum;
        vd_zero(&sum);
        double want[VW] = {0}, wide[VW] = {0}, want_wide[VW] = {0}, got[VW];
        vw wide_sum = vw_load(want);
        for (int k = 0; k < 5; ++k) {
            float e[VW];
            int32_t n[VW];
            float n_bits[VW];
            for (int i = 0; i < VW; ++i) {
                e[i] = random32() % 5 == 0 ? 0.0f : (float)(random32() % 0xffffff + 1) * 0x1p-20f;
                n[i] = (int32_t)(random32() % 9) + (round % 3 - 1) * 700;
                n_bits[i] = f32_from_bits((uint32_t)n[i]);
                want[i] += (double)e[i] * 0x1p-896;
                want_wide[i] += (double)e[i] * f64_pow2(n[i]);
            }
            vd_add(&sum, vload(e));
            vw_add(&wide_sum, vload(e), vbits(vload(n_bits)));
        }
        vw_store(wide, &wide_sum);
        vd_get(&sum, got);
        const vd twice = vd_plus(sum, sum);
        vd_get(&twice, got);
        for (int i = 0; i < VW; ++i)
            ck_assert_msg(got[i] == 2 * want[i], "vd_plus lane %d: got %a, want %a", i, got[i], 2 * want[i]);
        vd_get(&sum, got);
        for (int i = 0; i < VW; ++i) {
            ck_assert_msg(got[i] == want[i], "vd_add lane %d: got %a, want %a", i, got[i], want[i]);
            ck_assert_msg(wide[i] == want_wide[i], "vw_add lane %d: got %a, want %a", i, wide[i], want_wide[i]);
        }
    }
    for (int round = 0; round < ROUNDS; ++round) {
        float a[VW], b[VW];
        double start[VW], got[VW];
        for (int i = 0; i < VW; ++i) {
            a[i] = (float)(int32_t)random32() * 0x1p-10f;
            b[i] = random32() % 8 == 0 ? 0x1p-140f : (float)(int32_t)random32() * 0x1p-70f;
            start[i] = (double)(int32_t)random32();
        }
        const vw wide = vw_widen(a);
        vw_store(got, &wide);
        for (int i = 0; i < VW; ++i)
            ck_assert_msg(got[i] == (double)a[i], "vw_widen lane %d: got %a, want %a", i, got[i], (double)a[i]);
        const vw both = vw_plus(vw_load(start), wide), fused = vw_plus_exact(vw_load(start), wide, vw_widen(b));
        vw_store(got, &both);
        for (int i = 0; i < VW; ++i)
            ck_assert_msg(got[i] == start[i] + (double)a[i], "vw_plus lane %d", i);
        vw_store(got, &fused);
        for (int i = 0; i < VW; ++i)
            ck_assert_msg(got[i] == start[i] + (double)a[i] * (double)b[i], "vw_plus_exact lane %d", i);
    }
    double lane[VW] = {0};
    vw sum = vw_load(lane);
    vw_add(&sum, vset(NAN), viset(0));
    vw_store(lane, &sum);
    ck_assert_msg(lane[0] != lane[0], "vw_add must let NaN through");
}
END_TEST

int main(void)
{
    const struct xent_kernel *kernel = &KERNEL_UNDER_TEST;
    if (kernel->needs & ~xent_cpu_features()) {
        printf("1..0 # SKIP this CPU cannot run %s\n", kernel->name);
        return EXIT_SUCCESS;
    }
    const char *seed = getenv("XENT_TEST_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : 88172645463325252u;
    printf("# %s, seed %llu\n", kernel->name, (unsigned long long)random_state);
    fflush(stdout);

    TCase *tests = tcase_create(kernel->name);
    tcase_add_test(tests, arithmetic_and_selection);
    tcase_add_test(tests, integers);
    tcase_add_test(tests, partial_memory);
    tcase_add_test(tests, columns);
    tcase_add_test(tests, double_sums);
    return run_case("vocabulary", tests);
}
