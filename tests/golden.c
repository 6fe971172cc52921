/*
 * Three committed numbers for all results: the fingerprints of what a fixed set of problems comes to, which every
 * kernel, compiler, machine and way of making the calls must give. They change only with XENT_NUMERICS_VERSION. Other
 * suites allow what the accuracy contract allows, and compare kernels with each other; a change of the contract that
 * all kernels share is seen here alone. tools/fingerprints builds this program in many ways.
 */
#include "golden.h"

#include "executors.h"
#include "fpcontrol.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Of XENT_NUMERICS_VERSION 2, 3 and 4. To change one: change the version, docs/numerics.md and these, in one commit. */
static const uint64_t expected_fingerprint = UINT64_C(0x19e1655322466a17); /* fused calls and the softmax family */
static const uint64_t expected_general = UINT64_C(0x72ab94b4808d6836);     /* golden_general.c */
static const uint64_t expected_doubles = UINT64_C(0xf263965a68ed6802);     /* the same with doubles */
/* The same of a sample, way_takes. */
static const uint64_t expected_sample[] = {UINT64_C(0xd48876b812a2fed9), UINT64_C(0x450b353420670dee),
                                           UINT64_C(0xccdb450b08a6f0ea)};

static const size_t sizes[] = {1,  2,  3,  4,  5,  7,  8,  10,  13,  16,   21,   27,   31,   32,
                               33, 48, 63, 64, 65, 96, 97, 128, 257, 1000, 8191, 8225, 16400};

uint64_t way_enter(const struct way *way)
{
    const uint64_t control = fp_control_get();
    if (way->control_bits)
        fp_control_set(control | fp_control_flush | fp_control_round_up);
    return control;
}

void way_leave(uint64_t control)
{
    fp_control_set(control);
}

size_t way_piece(const struct way *way, size_t left)
{
    return way->split ? 1 + rng_below(way->split, left) : left;
}

uint64_t golden_mix(uint64_t hash, const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = values[i] != values[i] ? 0x7fc00000 : float_bits(values[i]);
        hash = (hash ^ bits) * UINT64_C(0x100000001b3);
    }
    return hash;
}

uint64_t golden_mix64(uint64_t hash, const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        if (values[i] != values[i])
            bits = UINT64_C(0x7ff8000000000000);
        hash = (hash ^ (bits & 0xffffffff)) * UINT64_C(0x100000001b3);
        hash = (hash ^ bits >> 32) * UINT64_C(0x100000001b3);
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

float golden_logit(struct rng *rng, enum kind kind, size_t classes)
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

/* A problem of the corpus, and room for its results. */
struct fused {
    size_t rows, classes;
    float *logits, *loss, *lse, *out;
    int32_t *targets;
};

static void call_fused(const struct way *way, const struct fused *f, const float *logits, xent_options options,
                       float *grad, const char *what)
{
    const bool may_split = options.reduction == XENT_NONE;
    float *lse = options.lse;
    options.executor = way->executor;
    for (size_t first = 0; first < f->rows;) {
        const size_t rows = may_split ? way_piece(way, f->rows - first) : f->rows, at = first * f->classes;
        if (lse)
            options.lse = lse + first;
        const uint64_t control = way_enter(way);
        const xent_status status =
            xent_fused_f32(logits + at, f->targets + first, rows, f->classes, f->loss + first, grad + at, &options);
        way_leave(control);
        expect_status(what, status, XENT_OK);
        first += rows;
    }
}

static uint64_t run_fused(uint64_t hash, const struct way *way, const struct fused *f, xent_options options)
{
    const size_t losses = options.reduction == XENT_NONE ? f->rows : 1, count = f->rows * f->classes;
    options.lse = f->lse;
    call_fused(way, f, f->logits, options, f->out, "fused");
    hash = golden_mix(golden_mix(hash, f->loss, losses), f->lse, f->rows);
    hash = golden_mix(hash, f->out, count);
    memcpy(f->out, f->logits, count * sizeof(float));
    call_fused(way, f, f->out, options, f->out, "fused in place");
    return golden_mix(golden_mix(hash, f->loss, losses), f->out, count);
}

/* The functions without targets. */
static uint64_t run_rows(uint64_t hash, const struct way *way, const struct fused *f)
{
    for (int function = 0; function < 3; function++) {
        for (size_t first = 0; first < f->rows;) {
            const size_t rows = way_piece(way, f->rows - first), at = first * f->classes;
            const float *x = f->logits + at;
            const uint64_t control = way_enter(way);
            const xent_status status = function == 0   ? xent_logsumexp_f32(x, rows, f->classes, 0, f->lse + first)
                                       : function == 1 ? xent_softmax_f32(x, rows, f->classes, 0, f->out + at, 0)
                                                       : xent_log_softmax_f32(x, rows, f->classes, 0, f->out + at, 0);
            way_leave(control);
            expect_status("softmax, logsumexp or log-softmax", status, XENT_OK);
            first += rows;
        }
        hash = golden_mix(hash, function == 0 ? f->lse : f->out, function == 0 ? f->rows : f->rows * f->classes);
    }
    return hash;
}

static uint64_t run_problem(uint64_t hash, const struct way *way, struct rng *rng, enum kind kind, size_t classes)
{
    const size_t rows = classes < 100 ? 19 : classes < 2000 ? 5 : 1, room = rows * classes + 16;
    float *memory = allocate((2 * room + classes + 2 * rows + 48) * sizeof(float)), *logits = memory + way->offset;
    float *out = logits + room, *weights = out + room, *loss = weights + classes, *lse = loss + rows;
    int32_t *targets = allocate((rows + 16) * sizeof(int32_t));
    const struct fused f = {rows, classes, logits, loss, lse, out, targets + way->offset};
    for (size_t i = 0; i < rows * classes; i++)
        logits[i] = golden_logit(rng, kind, classes);
    for (size_t i = 0; i < rows; i++) {
        f.targets[i] = rng_next(rng) % 9 == 0 && rows > 1 ? -100 : (int32_t)rng_below(rng, classes);
        if (kind == CONFIDENT && f.targets[i] >= 0)
            logits[i * classes + (size_t)f.targets[i]] += 15.0f;
    }
    for (size_t j = 0; j < classes; j++)
        weights[j] = (float)(rng_next(rng) % 16) * 0.125f;

    for (xent_reduction reduction = XENT_MEAN; reduction <= XENT_NONE; reduction++) {
        if (classes >= MANY_CLASSES && (int)reduction != (int)kind % 3)
            continue;
        xent_options options = XENT_OPTIONS_INIT;
        options.reduction = reduction;
        hash = run_fused(hash, way, &f, options);
        options.class_weights = weights;
        hash = run_fused(hash, way, &f, options);
        options.label_smoothing = 0.125f;
        hash = run_fused(hash, way, &f, options);
    }
    hash = run_rows(hash, way, &f);
    free(memory);
    free(targets);
    return hash;
}

static uint64_t golden_fused(const struct way *way)
{
    struct rng rng = {UINT64_C(20240229)};
    uint64_t hash = GOLDEN_START;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int kind = 0; kind < KINDS && way_takes(way, sizes[s]); kind++)
            hash = run_problem(hash, way, &rng, (enum kind)kind, sizes[s]);
    return hash;
}

static void expect_fused(const struct way *way)
{
    const uint64_t hash = golden_fused(way);
    if (hash != expected_fingerprint)
        fail_case("fused calls: %016" PRIx64 ", expected %016" PRIx64, hash, expected_fingerprint);
}

static void expect_general(const struct way *way)
{
    const uint64_t hash = golden_general(way, XENT_F32);
    if (hash != expected_general)
        fail_case("general calls: %016" PRIx64 ", expected %016" PRIx64, hash, expected_general);
}

static void expect_doubles(const struct way *way)
{
    const uint64_t hash = golden_general(way, XENT_F64);
    if (hash != expected_doubles)
        fail_case("calls with doubles: %016" PRIx64 ", expected %016" PRIx64, hash, expected_doubles);
}

START_TEST(fingerprint)
{
    const struct way plain = {0};
    ck_assert_int_eq(xent_numerics_version(), 4);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("fingerprint, %s", *isa);
        expect_fused(&plain);
        expect_general(&plain);
        expect_doubles(&plain);
        note("%s: %016" PRIx64 " %016" PRIx64 " %016" PRIx64, *isa, expected_fingerprint, expected_general,
             expected_doubles);
    }
}
END_TEST

/* For where the corpus would take minutes, tools/processors. */
START_TEST(sample)
{
    const struct way few = {.sample = true};
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        name_case("sample, %s", *isa);
        const uint64_t hash[] = {golden_fused(&few), golden_general(&few, XENT_F32), golden_general(&few, XENT_F64)};
        if (memcmp(hash, expected_sample, sizeof hash) != 0)
            fail_case("sample: %016" PRIx64 " %016" PRIx64 " %016" PRIx64, hash[0], hash[1], hash[2]);
        note("%s: %016" PRIx64 " %016" PRIx64 " %016" PRIx64, *isa, hash[0], hash[1], hash[2]);
    }
}
END_TEST

/* Where near rows end (docs/numerics.md, section 2): a row whose largest logit is exactly there is taken as its
   definition says, which shows only in the last bits of its probabilities. */
START_TEST(frame_bounds)
{
    static const struct {
        float largest;
        uint64_t expected;
    } rows[] = {{-256.0f, UINT64_C(0xc49441cf6acb70b9)},
                {-0x1.000002p8f, UINT64_C(0xaeb285184f166bc6)},
                {0x1.fffffep8f, UINT64_C(0xa3a0646d765edd34)},
                {512.0f, UINT64_C(0xaeb285184f166bc6)}};
    enum { CLASSES = 200 };
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            struct rng rng = {UINT64_C(20240302)}; /* not the test's seed */
            name_case("%s", *isa);
            float x[CLASSES], p[CLASSES];
            for (size_t j = 0; j < CLASSES; j++) {
                const float z = bell(&rng);
                x[j] = rows[i].largest - (z < 0 ? -z : z);
            }
            x[CLASSES / 2] = rows[i].largest;
            ck_assert_int_eq(xent_softmax_f32(x, 1, CLASSES, CLASSES, p, CLASSES), XENT_OK);
            const uint64_t got = golden_mix(GOLDEN_START, p, CLASSES);
            if (got != rows[i].expected)
                fail_case("largest logit %a: fingerprint %016" PRIx64 ", not %016" PRIx64, (double)rows[i].largest, got,
                          rows[i].expected);
        }
    }
}
END_TEST

/* The kernels that a test of ways goes through. The scalar one takes so long that it is left to a larger scale. */
static bool takes_ways(const char *isa)
{
    return strcmp(isa, "scalar") != 0 || !xent_isas()[1] || test_scale() > 1;
}

START_TEST(thread_counts)
{
    static const size_t threads[] = {1, 2, 3, 7, 16};
    struct rng rng = rng_stream(1);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t i = 0; takes_ways(*isa) && i < sizeof threads / sizeof threads[0]; i++) {
            if (!scaled_chance(&rng))
                continue;
            struct watched watched;
            watched_init(&watched, AT_ONCE, threads[i], i);
            const struct way way = {.executor = &watched.executor};
            name_case("%s, %zu threads", *isa, threads[i]);
            expect_fused(&way);
            expect_general(&way);
        }
    }
}
END_TEST

START_TEST(offsets)
{
    struct rng rng = rng_stream(2);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t offset = 1; takes_ways(*isa) && offset < 16; offset++) {
            const struct way way = {.offset = offset};
            name_case("%s, arrays %zu numbers past a cache line", *isa, offset);
            if (!scaled_chance(&rng))
                continue;
            expect_fused(&way);
            if (offset % 5 == 0 || test_scale() > 1)
                expect_general(&way);
        }
    }
}
END_TEST

START_TEST(control_bits)
{
    const struct way other = {.control_bits = true};
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        if (!takes_ways(*isa) && test_scale() < 1)
            continue;
        use_kernel(*isa);
        name_case("%s, other control bits", *isa);
        expect_fused(&other);
        expect_general(&other);
        expect_doubles(&other);
    }
}
END_TEST

START_TEST(splits)
{
    struct rng rng = rng_stream(3);
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t i = 0; takes_ways(*isa) && i < scaled(2); i++) {
            const struct way way = {.split = &rng};
            name_case("%s, batches in pieces", *isa);
            expect_fused(&way);
            expect_general(&way);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("golden");
    tcase_add_test(add_case(suite, "fingerprint"), fingerprint);
    tcase_add_test(add_case(suite, "sample"), sample);
    tcase_add_test(add_case(suite, "frames"), frame_bounds);
    tcase_add_test(add_case(suite, "threads"), thread_counts);
    tcase_add_test(add_case(suite, "offsets"), offsets);
    tcase_add_test(add_case(suite, "control bits"), control_bits);
    tcase_add_test(add_case(suite, "splits"), splits);
    return run_suite(suite);
}
