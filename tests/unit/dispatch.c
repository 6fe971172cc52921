/*
 * The choice of kernel on processors that are not here: made-up CPUID and XCR0 answers, and what the dispatcher must
 * make of them.
 */
#include "cpu.h"

#include "kernels/kernel.h"
#include "xent/xent.h"

#include "run.h"
#include "select.h"

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FMA = 1 << 12,
    OSXSAVE = 1 << 27,
    AVX = 1 << 28,
    AVX2 = 1 << 5,
    AVX512F = 1 << 16,
    AVX512DQ = 1 << 17,
    AVX512BW = 1 << 30
};
#define AVX512VL (UINT32_C(1) << 31)
#define LEAF1_FULL (FMA | OSXSAVE | AVX)
#define LEAF7_FULL (AVX2 | AVX512F | AVX512DQ | AVX512BW | AVX512VL)

static const struct machine {
    const char *description;
    uint32_t max_leaf, leaf1_ecx, leaf7_ebx;
    uint64_t xcr0;
    const char *best; /* the kernel that must be chosen */
} machines[] = {
    {"AVX-512 server, everything enabled", 0x20, LEAF1_FULL, LEAF7_FULL, 0xe7, "avx512"},
    {"the same with AMX and PKRU state too", 0x20, LEAF1_FULL, LEAF7_FULL, 0x602e7, "avx512"},
    {"AVX-512 bits, but the system saves no zmm state", 0x20, LEAF1_FULL, LEAF7_FULL, 0x07, "avx2"},
    {"AVX-512 bits, mask registers not saved", 0x20, LEAF1_FULL, LEAF7_FULL, 0xc7, "avx2"},
    {"AVX-512 bits, upper 16 zmm not saved", 0x20, LEAF1_FULL, LEAF7_FULL, 0x67, "avx2"},
    {"AVX-512 bits, upper halves not saved", 0x20, LEAF1_FULL, LEAF7_FULL, 0xa7, "avx2"},
    {"Knights Landing: F without BW, DQ, VL", 0x0d, LEAF1_FULL, AVX2 | AVX512F, 0xe7, "avx2"},
    {"AVX-512 without VL", 0x16, LEAF1_FULL, LEAF7_FULL & ~AVX512VL, 0xe7, "avx2"},
    {"AVX-512 without DQ", 0x16, LEAF1_FULL, LEAF7_FULL & ~(uint32_t)AVX512DQ, 0xe7, "avx2"},
    {"AVX-512 without BW", 0x16, LEAF1_FULL, LEAF7_FULL & ~(uint32_t)AVX512BW, 0xe7, "avx2"},
    {"hypervisor that masks F and leaves the rest", 0x16, LEAF1_FULL, LEAF7_FULL & ~(uint32_t)AVX512F, 0xe7, "avx2"},
    {"AVX10/256: VL and no 512-bit state", 0x24, LEAF1_FULL, LEAF7_FULL & ~(uint32_t)AVX512F, 0x67, "avx2"},
    {"hypervisor that masks AVX2 only", 0x16, LEAF1_FULL, LEAF7_FULL & ~(uint32_t)AVX2, 0xe7, "scalar"},
    {"hypervisor that masks FMA only", 0x16, LEAF1_FULL & ~(uint32_t)FMA, LEAF7_FULL, 0xe7, "scalar"},
    {"Haswell", 0x0d, LEAF1_FULL, AVX2, 0x07, "avx2"},
    {"Haswell with OSXSAVE off", 0x0d, LEAF1_FULL & ~(uint32_t)OSXSAVE, AVX2, 0x07, "scalar"},
    {"Haswell, system saves only xmm", 0x0d, LEAF1_FULL, AVX2, 0x03, "scalar"},
    {"Haswell, system saves only x87", 0x0d, LEAF1_FULL, AVX2, 0x01, "scalar"},
    {"Haswell with the CPUID leaves cut at 6", 0x06, LEAF1_FULL, AVX2, 0x07, "scalar"},
    {"Haswell with the CPUID leaves cut at 3 (a firmware switch)", 0x03, LEAF1_FULL, AVX2, 0x07, "scalar"},
    {"Sandy Bridge: AVX alone", 0x0d, OSXSAVE | AVX, 0, 0x07, "scalar"},
    {"Piledriver: AVX and FMA, no AVX2", 0x0d, LEAF1_FULL, 0, 0x07, "scalar"},
    {"VIA-like: AVX2 without FMA", 0x0d, OSXSAVE | AVX, AVX2, 0x07, "scalar"},
    {"Nehalem", 0x0b, 0, 0, 0, "scalar"},
    {"Rosetta-like: OSXSAVE, no AVX", 0x0d, OSXSAVE, 0, 0x03, "scalar"},
    {"leaf 0 answers 0", 0, LEAF1_FULL, LEAF7_FULL, 0xe7, "scalar"},
};

static const struct machine *machine;
static const char *vendor; /* its 12 letters */
static uint32_t leaf1_eax; /* its family and model */

static void fake_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    memset(regs, 0, 4 * sizeof *regs);
    ck_assert_msg(leaf <= machine->max_leaf, "%s: leaf %u asked past the last, %u", machine->description, leaf,
                  machine->max_leaf);
    ck_assert_uint_eq(subleaf, 0);
    if (leaf == 0) {
        regs[0] = machine->max_leaf;
        memcpy(&regs[1], vendor, 4);
        memcpy(&regs[3], vendor + 4, 4);
        memcpy(&regs[2], vendor + 8, 4);
    }
    if (leaf == 1) {
        regs[0] = leaf1_eax;
        regs[2] = machine->leaf1_ecx;
    }
    if (leaf == 7)
        regs[1] = machine->leaf7_ebx;
}

static uint64_t fake_xgetbv(void)
{
    ck_assert_msg(machine->leaf1_ecx & OSXSAVE, "%s: xgetbv without OSXSAVE is an illegal instruction",
                  machine->description);
    return machine->xcr0;
}

/* What each x86 kernel needs, fastest first; the table of meson.build in miniature. */
static const struct {
    const char *name;
    uint32_t needs;
} x86_kernels[] = {
    {"avx512", XENT_CPU_AVX | XENT_CPU_AVX2 | XENT_CPU_FMA | XENT_CPU_AVX512F | XENT_CPU_AVX512BW | XENT_CPU_AVX512DQ |
                   XENT_CPU_AVX512VL},
    {"avx2", XENT_CPU_AVX | XENT_CPU_AVX2 | XENT_CPU_FMA},
    {"scalar", 0},
};

START_TEST(made_up_machines)
{
    const struct cpuid_source source = {fake_cpuid, fake_xgetbv};
    machine = &machines[_i];
    vendor = "GenuineIntel";
    const uint32_t features = xent_x86_features(&source);
    size_t k = 0;
    while (x86_kernels[k].needs & ~features)
        ++k;
    ck_assert_msg(strcmp(x86_kernels[k].name, machine->best) == 0, "%s: %s chosen, not %s", machine->description,
                  x86_kernels[k].name, machine->best);
}
END_TEST

/* xent_isas() hands out a tail of the table, which is right only if no kernel needs more than one before it. */
#define XENT_ISA(isa) extern const struct xent_kernel XENT_KERNEL(isa);
#include "isas.inc"
#undef XENT_ISA

START_TEST(needs_are_nested)
{
    static const struct xent_kernel *const kernels[] = {
#define XENT_ISA(isa) &XENT_KERNEL(isa),
#include "isas.inc"
#undef XENT_ISA
    };
    const size_t count = sizeof kernels / sizeof *kernels;
    for (size_t i = 0; i < count; ++i) {
        ck_assert_str_eq(kernels[i]->name, xent_built_isas()[i]);
        const uint32_t x86_bits = XENT_CPU_NEON - 1;
        for (size_t later = i + 1; later < count; ++later)
            if ((kernels[later]->needs & x86_bits) == kernels[later]->needs)
                ck_assert_msg((kernels[later]->needs & ~kernels[i]->needs) == 0 || kernels[i]->needs == XENT_CPU_NEON,
                              "%s needs what the faster %s does not", kernels[later]->name, kernels[i]->name);
        if (strcmp(kernels[i]->name, "avx512") == 0)
            ck_assert_uint_eq(kernels[i]->needs, x86_kernels[0].needs);
        if (strcmp(kernels[i]->name, "avx2") == 0)
            ck_assert_uint_eq(kernels[i]->needs, x86_kernels[1].needs);
    }
    ck_assert_uint_eq(kernels[count - 1]->needs, 0);
}
END_TEST

/* Family and model of real CPUs, as CPUID has them. */
static const struct {
    const char *description, *vendor;
    uint32_t leaf1_eax;
    enum xent_overlap overlap;
} overlapping[] = {
    {"Granite Rapids", "GenuineIntel", 0x000a06d1, XENT_OVERLAP_STREAM},
    {"Haswell", "GenuineIntel", 0x000306c3, XENT_OVERLAP_STREAM},
    {"Milan", "AuthenticAMD", 0x00a00f11, XENT_OVERLAP_LONG},
    {"Zen 3, its last model of the first block", "AuthenticAMD", 0x00a00ff1, XENT_OVERLAP_LONG},
    {"Vermeer", "AuthenticAMD", 0x00a20f10, XENT_OVERLAP_LONG},
    {"Rembrandt", "AuthenticAMD", 0x00a40f41, XENT_OVERLAP_LONG},
    {"Cezanne", "AuthenticAMD", 0x00a50f00, XENT_OVERLAP_LONG},
    {"Vermeer, the first model of its block", "AuthenticAMD", 0x00a20f00, XENT_OVERLAP_LONG},
    {"Genoa, the first model of its block", "AuthenticAMD", 0x00a10f00, XENT_OVERLAP_SHORT},
    {"Raphael, the first model of its block", "AuthenticAMD", 0x00a60f00, XENT_OVERLAP_SHORT},
    {"Granite Ridge, the first model of its block", "AuthenticAMD", 0x00b40f00, XENT_OVERLAP_EARLY},
    {"a family with the low bits of Zen 3's", "AuthenticAMD", 0x01a00f11, XENT_OVERLAP_NEVER},
    {"a name with its first letters wrong", "XXXXineIntel", 0x000a06d1, XENT_OVERLAP_NEVER},
    {"Genoa", "AuthenticAMD", 0x00a10f11, XENT_OVERLAP_SHORT},
    {"Raphael", "AuthenticAMD", 0x00a60f12, XENT_OVERLAP_SHORT},
    {"Bergamo", "AuthenticAMD", 0x00aa0f02, XENT_OVERLAP_SHORT},
    {"Rome", "AuthenticAMD", 0x00830f10, XENT_OVERLAP_NEVER},
    {"Turin", "AuthenticAMD", 0x00b00f21, XENT_OVERLAP_EARLY},
    {"Strix Point", "AuthenticAMD", 0x00b20f40, XENT_OVERLAP_EARLY},
    {"Zen 5, the last model of the first block", "AuthenticAMD", 0x00b20ff0, XENT_OVERLAP_EARLY},
    {"Zen 5, a model between its blocks", "AuthenticAMD", 0x00b30f00, XENT_OVERLAP_NEVER},
    {"Granite Ridge", "AuthenticAMD", 0x00b40f40, XENT_OVERLAP_EARLY},
    {"Zen 6, its first model", "AuthenticAMD", 0x00b50f00, XENT_OVERLAP_NEVER},
    {"Krackan Point", "AuthenticAMD", 0x00b60f00, XENT_OVERLAP_EARLY},
    {"Strix Halo", "AuthenticAMD", 0x00b70f00, XENT_OVERLAP_EARLY},
    {"Zen 6, another", "AuthenticAMD", 0x00b80f00, XENT_OVERLAP_NEVER},
    {"Milan's numbers, another's name", "HygonGenuine", 0x00a00f11, XENT_OVERLAP_NEVER},
    {"a name with one letter wrong", "GenuineIotel", 0x000a06d1, XENT_OVERLAP_NEVER},
    {"a name with one letter wrong", "Genuine?ntel", 0x000a06d1, XENT_OVERLAP_NEVER},
    {"a name with letters wrong", "GenuXXXXntel", 0x000a06d1, XENT_OVERLAP_NEVER},
    {"small letters", "genuineintel", 0x000a06d1, XENT_OVERLAP_NEVER},
    {"a name with one letter wrong", "AuthenticAND", 0x00a00f11, XENT_OVERLAP_NEVER},
};

START_TEST(overlapping_cpus)
{
    const struct cpuid_source source = {fake_cpuid, fake_xgetbv};
    machine = &machines[0];
    vendor = overlapping[_i].vendor;
    leaf1_eax = overlapping[_i].leaf1_eax;
    const enum xent_overlap overlap = xent_x86_overlap(&source);
    ck_assert_msg(overlap == overlapping[_i].overlap, "%s, %s: %d", vendor, overlapping[_i].description, (int)overlap);
}
END_TEST

START_TEST(overlap_without_leaf_1)
{
    const struct cpuid_source source = {fake_cpuid, fake_xgetbv};
    machine = &machines[sizeof machines / sizeof *machines - 1];
    ck_assert_uint_eq(machine->max_leaf, 0);
    vendor = "AuthenticAMD";
    ck_assert(xent_x86_overlap(&source) == XENT_OVERLAP_NEVER);
}
END_TEST

/* What XENT_OVERLAP makes of a job without output, and of jobs with outputs of one byte, a little less than 8 MB, and
   that: of rows of 159 classes, in place 511; of one class more; of planes a float more than 4 KB apart, as of rows of
   127 classes, and 8 KB. By letters: plain, overlap, stream, both. */
static const struct {
    const char *value;
    const char *short_rows, *long_rows, *planes, *paged_planes; /* NULL: as on this CPU */
} overlaps[] = {
    {"0", "pppp", "pppp", "pppp", "pppp"}, {"1", "pppp", "oooo", "pppp", "oooo"}, {"2", "ooob", "ooob", "ooob", "ooob"},
    {"3", "obbb", "obbb", "obbb", "obbb"}, {"4", "pppp", "pppp", "ppps", "ppps"}, {"5", "ooob", "ooob", "ooob", "ooob"},
    {"6", "obbb", "obbb", "obbb", "obbb"}, {NULL, NULL, NULL, NULL, NULL},        {"", NULL, NULL, NULL, NULL},
    {"7", NULL, NULL, NULL, NULL},         {"/", NULL, NULL, NULL, NULL},         {"10", NULL, NULL, NULL, NULL},
};

static struct xent_memory chosen_from(const void *logits, size_t classes, size_t class_stride, const void *out,
                                      size_t bytes)
{
    const struct xent_job job = {
        .classes = classes,
        .inner = 1,
        .logits = logits,
        .logits_strides = {classes, class_stride, 0},
        .out = (void *)out,
        .out_strides = {classes, class_stride, 0},
    };
    return xent_choose_memory(&job, 0, bytes);
}

static struct xent_memory chosen(size_t classes, size_t class_stride, const void *out, size_t bytes)
{
    static const float logits[1];
    return chosen_from(logits, classes, class_stride, out, bytes);
}

static bool is(struct xent_memory memory, char way)
{
    return memory.overlap == (way == 'o' || way == 'b') && memory.stream == (way == 's' || way == 'b');
}

static bool by_pages(size_t classes, size_t row_stride, size_t class_stride, size_t bytes)
{
    const struct xent_job job = {.classes = classes, .inner = 1, .logits_strides = {row_stride, class_stride, 0}};
    return xent_choose_memory(&job, bytes, 0).fetch == XENT_FETCH_PAGES;
}

/* Of any job. */
static bool early(void)
{
    const struct xent_job job = {.classes = 2, .inner = 1, .logits_strides = {2, 1, 0}};
    return xent_choose_memory(&job, 1, 0).fetch == XENT_FETCH_EARLY;
}

/* least: the logits that come from memory, or 0: lines are never fetched by pages. */
static bool pages_are_right(size_t least)
{
    const size_t some = least ? least : SIZE_MAX;
    return by_pages(800, 800, 1, some) == (least > 0) && (least <= 1 || !by_pages(800, 800, 1, least - 1)) &&
           by_pages(800, 900, 1, some) == (least > 0) && !by_pages(800, 901, 1, some) && !by_pages(800, 1, 800, some) &&
           by_pages(65536, 1u << 20, 1, some) == (least > 0) && !by_pages(65535, 1u << 20, 1, some);
}

static bool overlap_is_right(size_t i)
{
    static const size_t bytes[] = {8u << 20, 1, (8u << 20) - 1, 8u << 20};
    static const float output[2];
    const size_t row = overlaps[i].long_rows ? i : (size_t)xent_cpu_overlap();
    const char *short_rows = overlaps[row].short_rows, *long_rows = overlaps[row].long_rows;
    for (size_t k = 0; k < sizeof bytes / sizeof *bytes; ++k) {
        const void *out = k == 0 ? NULL : output;
        if (!is(chosen(159, 1, out, bytes[k]), short_rows[k]) || !is(chosen(160, 1, out, bytes[k]), long_rows[k]) ||
            (out && !is(chosen_from(out, 511, 1, out, bytes[k]), short_rows[k])) ||
            (out && !is(chosen_from(out, 512, 1, out, bytes[k]), long_rows[k])) ||
            !is(chosen(127, 1, out, bytes[k]), overlaps[row].planes[k]) ||
            !is(chosen(160, 1025, out, bytes[k]), overlaps[row].planes[k]) ||
            !is(chosen(159, 2048, out, bytes[k]), overlaps[row].paged_planes[k]))
            return false;
    }
    const char way = overlaps[row].value[0];
    const bool is_early = way == '5' || way == '6';
    const size_t cached = way == '3' || way == '6' ? 0 : way == '2' || way == '5' ? 8u << 20 : 1u << 20;
    if ((cached && !chosen(160, 1, output, cached - 1).cached) || chosen(160, 1, output, cached).cached)
        return false;
    if (!pages_are_right(way == '3' ? 1 : way == '2' ? 8u << 20 : 0) || early() != is_early)
        return false;
    /* Not an address of a float. */
    if (!is(chosen(160, 2048, (const char *)output + 1, 8u << 20), overlaps[row].paged_planes[0]))
        return false;
    /* Read once. */
    setenv("XENT_OVERLAP", long_rows[0] == 'p' ? "3" : "0", 1);
    return is(chosen(160, 1, output, 1), long_rows[1]);
}

/* Each in a process of its own, as the choice is made once in a process. */
START_TEST(environment)
{
    const pid_t child = fork();
    ck_assert(child >= 0);
    if (child == 0) {
        if (overlaps[_i].value)
            setenv("XENT_OVERLAP", overlaps[_i].value, 1);
        else
            unsetenv("XENT_OVERLAP");
        _exit(overlap_is_right((size_t)_i) ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(status == 0, "XENT_OVERLAP=%s", overlaps[_i].value ? overlaps[_i].value : "(unset)");
}
END_TEST

START_TEST(feature_names)
{
    for (uint32_t feature = 1; feature <= XENT_CPU_NEON; feature <<= 1)
        ck_assert_str_ne(xent_cpu_feature_name(feature), "unknown");
    ck_assert_str_eq(xent_cpu_feature_name(UINT32_C(1) << 31), "unknown");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("dispatch");
    tcase_add_loop_test(tests, made_up_machines, 0, sizeof machines / sizeof *machines);
    tcase_add_test(tests, needs_are_nested);
    tcase_add_loop_test(tests, overlapping_cpus, 0, sizeof overlapping / sizeof *overlapping);
    tcase_add_test(tests, overlap_without_leaf_1);
    tcase_add_loop_test(tests, environment, 0, sizeof overlaps / sizeof *overlaps);
    tcase_add_test(tests, feature_names);
    return run_case("dispatch", tests);
}
