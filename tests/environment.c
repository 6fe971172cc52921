/*
 * What a call must leave as it was, and where it may come from: the control bits of the floating-point environment, the
 * upper halves of the vector registers, signal handlers that interrupt a call, and forked processes.
 */
#include "every.h"
#include "fpcontrol.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* Four rounding modes, each of the two flushes on or off, and exceptions as traps or not. */
enum { ENTRY_STATES = 32 };

static uint64_t entry_state(uint64_t control, unsigned state)
{
    const uint64_t mode = fp_control_rounding / 3 * (state & 3);
    control &= ~(fp_control_rounding | fp_control_flushes[0] | fp_control_flushes[1]);
    control = state & 16 ? (control & ~fp_control_masks) | fp_control_traps : control;
    return control | mode | (state & 4 ? fp_control_flushes[0] : 0) | (state & 8 ? fp_control_flushes[1] : 0);
}

/* Every entry state is kept by every call, and changes no result. */
START_TEST(control_bits)
{
    struct every *every = every_new();
    const uint64_t usual = fp_control_get();
    struct rng rng = rng_stream(3);
    size_t calls = 0;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t i = 0; i < every_count; i++) {
            const uint64_t expected = every_result(every, i);
            for (unsigned state = 0; state < ENTRY_STATES; state++) {
                if (strcmp(*isa, "scalar") == 0 && !scaled_chance(&rng)) /* slow in an emulator */
                    continue;
                name_case("%s: %s, entry state %u", *isa, every_describe(i).text, state);
                fp_control_set(entry_state(usual, state));
                const uint64_t before = fp_control_get(); /* without the bits that this CPU does not have */
                const uint64_t hash = every_result(every, i), after = fp_control_get();
                fp_control_set(usual);
                if ((after & fp_control_mask) != (before & fp_control_mask))
                    fail_case("control bits were %llx and are %llx", (unsigned long long)before,
                              (unsigned long long)after);
                if (hash != expected)
                    fail_case("results are not those of the usual state");
                calls++;
            }
        }
    }
    note("%zu calls in %d entry states", calls, ENTRY_STATES);
    free(every);
}
END_TEST

#if defined(__x86_64__) && defined(__GNUC__)

/* The upper parts of the first sixteen vector registers: whether all are zero. They are what slows legacy SSE down. */
static bool uppers_clean(bool zmm)
{
    uint64_t state[16 * 8] = {0};
    if (zmm)
        __asm__ volatile("vmovdqu64 %%zmm0, (%0)\n\tvmovdqu64 %%zmm1, 64(%0)\n\tvmovdqu64 %%zmm2, 128(%0)\n\t"
                         "vmovdqu64 %%zmm3, 192(%0)\n\tvmovdqu64 %%zmm4, 256(%0)\n\tvmovdqu64 %%zmm5, 320(%0)\n\t"
                         "vmovdqu64 %%zmm6, 384(%0)\n\tvmovdqu64 %%zmm7, 448(%0)\n\tvmovdqu64 %%zmm8, 512(%0)\n\t"
                         "vmovdqu64 %%zmm9, 576(%0)\n\tvmovdqu64 %%zmm10, 640(%0)\n\tvmovdqu64 %%zmm11, 704(%0)\n\t"
                         "vmovdqu64 %%zmm12, 768(%0)\n\tvmovdqu64 %%zmm13, 832(%0)\n\tvmovdqu64 %%zmm14, 896(%0)\n\t"
                         "vmovdqu64 %%zmm15, 960(%0)"
                         :
                         : "r"(state)
                         : "memory");
    else
        __asm__ volatile("vmovdqu %%ymm0, (%0)\n\tvmovdqu %%ymm1, 64(%0)\n\tvmovdqu %%ymm2, 128(%0)\n\t"
                         "vmovdqu %%ymm3, 192(%0)\n\tvmovdqu %%ymm4, 256(%0)\n\tvmovdqu %%ymm5, 320(%0)\n\t"
                         "vmovdqu %%ymm6, 384(%0)\n\tvmovdqu %%ymm7, 448(%0)\n\tvmovdqu %%ymm8, 512(%0)\n\t"
                         "vmovdqu %%ymm9, 576(%0)\n\tvmovdqu %%ymm10, 640(%0)\n\tvmovdqu %%ymm11, 704(%0)\n\t"
                         "vmovdqu %%ymm12, 768(%0)\n\tvmovdqu %%ymm13, 832(%0)\n\tvmovdqu %%ymm14, 896(%0)\n\t"
                         "vmovdqu %%ymm15, 960(%0)"
                         :
                         : "r"(state)
                         : "memory");
    uint64_t dirt = 0;
    for (size_t i = 0; i < 16 * 8; i++)
        dirt |= i % 8 >= 2 ? state[i] : 0;
    return dirt == 0;
}

/* A kernel that returns without vzeroupper makes the caller's SSE code slow, which no result shows. */
START_TEST(upper_halves)
{
    const bool ymm = __builtin_cpu_supports("avx"), zmm = __builtin_cpu_supports("avx512f");
    struct every *every = every_new();
    size_t calls = 0;
    for (const char *const *isa = xent_isas(); *isa && ymm; isa++) {
        use_kernel(*isa);
        for (size_t i = 0; i < every_count; i++) {
            name_case("%s: %s", *isa, every_describe(i).text);
            __asm__ volatile("vzeroupper" : : : "xmm0", "memory");
            every_run(every, i);
            if (!uppers_clean(zmm))
                fail_case("the upper halves of vector registers were left in use");
            calls++;
        }
    }
    note("%zu calls with the registers looked at", calls);
    free(every);
}
END_TEST

#endif

/* For signal handlers and children, which cannot fail a test by themselves. */
struct shared {
    struct every main, other;
    uint64_t *expected;                               /* [every_count] */
    volatile sig_atomic_t left, interruptions, wrong; /* left: the handler's calls within the call that is going on */
};

static struct shared *shared;

static struct shared *shared_new(void)
{
    struct every *every = every_new();
    shared = allocate(sizeof *shared);
    memset(shared, 0, sizeof *shared);
    shared->main = *every;
    shared->other = *every;
    shared->expected = allocate(every_count * sizeof(uint64_t));
    free(every);
    return shared;
}

static void find_expected(void)
{
    for (size_t i = 0; i < every_count; i++)
        shared->expected[i] = every_result(&shared->main, i);
}

static void call_from_handler(int signal_number)
{
    static size_t next;
    (void)signal_number;
    if (shared->left == 0)
        return;
    shared->left--;
    shared->interruptions++;
    const size_t i = next++ % every_count;
    if (every_result(&shared->other, i) != shared->expected[i])
        shared->wrong++;
}

/* Calls are interrupted wherever a timer happens to strike, by a handler that makes calls of its own: two at most, as
   an emulator takes so long that it would be in the handler for ever. */
START_TEST(signals)
{
    const sig_atomic_t enough = (sig_atomic_t)scaled(200);
    const struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    shared_new();
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        find_expected();
        shared->interruptions = 0;
        struct sigaction action = {.sa_handler = call_from_handler, .sa_flags = SA_RESTART}, old;
        sigaction(SIGALRM, &action, &old);
        setitimer(ITIMER_REAL, &often, NULL);
        size_t calls = 0, wrong = 0;
        for (; shared->interruptions < enough || calls < every_count; calls++) {
            shared->left = 2;
            wrong += every_result(&shared->main, calls % every_count) != shared->expected[calls % every_count];
            shared->left = 0;
        }
        setitimer(ITIMER_REAL, &never, NULL);
        sigaction(SIGALRM, &old, NULL);
        name_case("%s", *isa);
        if (wrong || shared->wrong)
            fail_case("%zu interrupted calls and %d from handlers gave other results", wrong, (int)shared->wrong);
        note("%s: %d calls from a handler, in the middle of %zu others", *isa, (int)shared->interruptions, calls);
    }
    free(shared->expected);
    free(shared);
}
END_TEST

/* Makes every call in a child, and tells by its status whether all results are the expected ones. */
static void call_in_child(void)
{
    const pid_t child = fork();
    if (child == 0) {
        for (size_t i = 0; i < every_count; i++)
            if (every_result(&shared->other, i) != shared->expected[i])
                _exit(1);
        _exit(0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        fail_case("the child ended with status %#x", (unsigned)status);
}

/* The first call of all happens in a child; the parent's own first call is not disturbed. */
START_TEST(first_call_after_fork)
{
    uint64_t *results =
        mmap(NULL, every_count * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(results, MAP_FAILED);
    shared_new();
    name_case("the first call in a child");
    const pid_t child = fork();
    if (child == 0) {
        for (size_t i = 0; i < every_count; i++)
            results[i] = every_result(&shared->other, i);
        _exit(0);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    find_expected();
    for (size_t i = 0; i < every_count; i++) {
        name_case("the first call in a child: %s", every_describe(i).text);
        if (results[i] != shared->expected[i])
            fail_case("parent and child disagree");
    }
    name_case("later calls in a child");
    call_in_child();
    munmap(results, every_count * sizeof(uint64_t));
    free(shared->expected);
    free(shared);
}
END_TEST

static atomic_bool stop;

static void *keep_calling(void *argument)
{
    struct every *every = argument;
    for (size_t i = 0; !atomic_load(&stop); i = (i + 1) % every_count)
        every_run(every, i);
    return NULL;
}

/* A child of a process whose other threads are in the middle of calls. */
START_TEST(fork_amid_calls)
{
    shared_new();
    find_expected();
    name_case("forks amid calls of another thread");
    pthread_t thread;
    atomic_store(&stop, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, keep_calling, &shared->main), 0);
    for (size_t i = 0; i < scaled(20); i++)
        call_in_child();
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    free(shared->expected);
    free(shared);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("environment");
    tcase_add_test(add_case(suite, "control bits"), control_bits);
#if defined(__x86_64__) && defined(__GNUC__)
    tcase_add_test(add_case(suite, "upper halves"), upper_halves);
#endif
    tcase_add_test(add_case(suite, "signals"), signals);
    tcase_add_test(add_case(suite, "first call after fork"), first_call_after_fork);
    tcase_add_test(add_case(suite, "fork amid calls"), fork_amid_calls);
    return run_suite(suite);
}
