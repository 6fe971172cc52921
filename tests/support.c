/*
 * See support.h.
 */
#include "support.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The name and, after it, the detail. */
static char case_name[512] = "(no case named)";
static size_t case_name_length;

uint64_t test_seed(void)
{
    const char *text = getenv("XENT_TEST_SEED");
    return text ? strtoull(text, NULL, 0) : 20240229;
}

double test_scale(void)
{
    const char *text = getenv("XENT_TEST_SCALE");
    double scale = text ? strtod(text, NULL) : XENT_TEST_DEFAULT_SCALE;
    return scale > 0.0 ? scale : XENT_TEST_DEFAULT_SCALE;
}

size_t scaled(size_t n)
{
    double count = (double)n * test_scale();
    return count < 1.0 ? 1 : (size_t)count;
}

bool scaled_chance(struct rng *rng)
{
    return rng_chance(rng, test_scale());
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct rng rng_stream(uint64_t stream)
{
    return (struct rng){mix(mix(test_seed()) + stream)};
}

uint64_t rng_next(struct rng *rng)
{
    rng->state += 0x9e3779b97f4a7c15u;
    return mix(rng->state);
}

size_t rng_below(struct rng *rng, size_t bound)
{
    return (size_t)(rng_next(rng) % bound);
}

double rng_uniform(struct rng *rng, double low, double high)
{
    return low + (high - low) * ((double)(rng_next(rng) >> 11) * 0x1p-53);
}

bool rng_chance(struct rng *rng, double chance)
{
    return rng_uniform(rng, 0.0, 1.0) < chance;
}

float rng_normal(struct rng *rng)
{
    /* A sum of twelve uniform numbers in integers: no libm, whose last bits differ between systems. */
    uint64_t sum = 0;
    for (int i = 0; i < 6; i++) {
        uint64_t pair = rng_next(rng);
        sum += (pair >> 32) + (pair & 0xffffffffu);
    }
    return (float)((double)sum * 0x1p-32 - 6.0);
}

void name_case(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(case_name, sizeof case_name, format, arguments);
    case_name_length = strlen(case_name);
    va_end(arguments);
}

void name_detail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = case_name_length;
    if (length + 2 < sizeof case_name) {
        memcpy(case_name + length, "; ", 2);
        vsnprintf(case_name + length + 2, sizeof case_name - length - 2, format, arguments);
    }
    va_end(arguments);
}

void fail_case(const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    ck_abort_msg("%s [%s; XENT_TEST_SEED=%" PRIu64 " XENT_TEST_SCALE=%g]", message, case_name, test_seed(),
                 test_scale());
}

void note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("# ", stdout);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
    va_end(arguments);
}

void expect_bits(const char *what, float got, float expected)
{
    if (float_bits(got) != float_bits(expected))
        fail_case("%s: got %a (%08" PRIx32 "), expected %a (%08" PRIx32 ")", what, (double)got, float_bits(got),
                  (double)expected, float_bits(expected));
}

void expect_nan(const char *what, float got)
{
    if (!isnan(got))
        fail_case("%s: got %a, expected NaN", what, (double)got);
}

void expect_finite(const char *what, float got)
{
    if (!isfinite(got))
        fail_case("%s: got %a, expected a finite value", what, (double)got);
}

void expect_status(const char *what, xent_status got, xent_status expected)
{
    if (got != expected)
        fail_case("%s: got status %d (%s), expected %d (%s)", what, (int)got, xent_status_string(got), (int)expected,
                  xent_status_string(expected));
}

double ulps(float got, double exact)
{
    if ((double)got == exact)
        return 0.0;
    int exponent = -125;
    if (exact != 0.0)
        frexp(exact, &exponent);
    double ulp = ldexp(1.0, exponent > -125 ? exponent - 24 : -149);
    double distance = fabs((double)got - exact) / ulp;
    return isnan(distance) ? (double)INFINITY : distance;
}

void expect_within(const char *what, float got, double exact, double max_ulps)
{
    double distance = ulps(got, exact);
    if (distance > max_ulps)
        fail_case("%s: got %a, exact %a: %.3f ULP, at most %.1f expected", what, (double)got, exact, distance,
                  max_ulps);
}

void use_kernel(const char *isa)
{
    xent_status status = xent_select(isa);
    if (status != XENT_OK)
        fail_case("xent_select(\"%s\"): %s", isa, xent_status_string(status));
}

void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!memory)
        ck_abort_msg("no memory for %zu bytes", bytes);
    return memory;
}

/* A fault would otherwise be reported without the case that it happened in. */
static void report_fault(int signal_number)
{
    static const char before[] = "# fault in case: ";
    static const char after[] = "\n";
    ssize_t written = write(STDOUT_FILENO, before, sizeof before - 1);
    written += write(STDOUT_FILENO, case_name, strlen(case_name));
    written += write(STDOUT_FILENO, after, sizeof after - 1);
    (void)written;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

TCase *add_case(Suite *suite, const char *name)
{
    TCase *test_case = tcase_create(name);
    tcase_set_timeout(test_case, 0);
    suite_add_tcase(suite, test_case);
    return test_case;
}

int run_suite(Suite *suite)
{
    struct sigaction action = {.sa_handler = report_fault};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGFPE, &action, NULL);

    note("XENT_TEST_SEED=%" PRIu64 " XENT_TEST_SCALE=%g", test_seed(), test_scale());
    for (const char *const *isa = xent_isas(); *isa; isa++)
        note("kernel: %s", *isa);

    SRunner *runner = srunner_create(suite);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
