/*
 * The limits of arithmetic: how fast the execution units do one kind of operation if nothing waits for anything. They
 * tell which unit a kernel saturates. The last one, "exp-sum", has all the operations that a kernel does to 16 logits
 * (docs/numerics.md, sections 1 and 3), as many of each but in no meaningful order: what a forward would take in the
 * first-level cache without dependences, loop and bookkeeping. "column" has besides what is done to a class of 16 rows
 * that are taken by columns (kernels/columns.h): to turn rows into columns, and to find the target among them.
 *
 * Each is a block of instructions, written out because a compiler that is asked for work without a result finds ways to
 * leave it out. They read registers that no instruction writes, and write others: only an accumulator of a fused
 * multiply-add waits for itself, and of those there are enough for 4 cycles' latency on 3 units and more.
 */
#include "bench.h"

#include <string.h>

/* The instructions once for each register r of a list, by the assembler. */
#define EACH(registers, instructions) ".irp r," registers "\n" instructions "\n.endr\n"

/* A function that runs blocks of instructions, each of which does its operation times_per_block times on 16 lanes. */
#define LIMIT(name, isa, times_per_block, block)                                                                       \
    isa##_TARGET static void name(size_t times, float *l1)                                                             \
    {                                                                                                                  \
        __asm__ volatile(isa##_CLEAR ::: isa##_CLOBBERS);                                                              \
        for (size_t i = 0; i < times; i += times_per_block)                                                            \
            __asm__ volatile(block : : "r"(l1) : isa##_CLOBBERS);                                                      \
    }

// clang-format off
#if defined(__x86_64__)

#define AVX2_TARGET __attribute__((target("avx2,fma")))
#define AVX2_CLEAR "vzeroall"
#define AVX2_CLOBBERS                                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",         \
        "xmm13", "xmm14", "xmm15", "memory"
#define TWELVE "4,5,6,7,8,9,10,11,12,13,14,15"
#define YMM(instruction, result) instruction " %%ymm0, %%ymm1, %%ymm" result "\n"

LIMIT(fma_avx2, AVX2, 6, EACH(TWELVE, YMM("vfmadd231ps", "\\r")))
LIMIT(double_add_avx2, AVX2, 3, EACH(TWELVE, YMM("vaddpd", "\\r")))
LIMIT(permute_avx2, AVX2, 6, EACH(TWELVE, YMM("vpermd", "\\r")))
LIMIT(shift_avx2, AVX2, 6, EACH(TWELVE, "vpslld $19, %%ymm0, %%ymm\\r"))
LIMIT(integer_add_avx2, AVX2, 6, EACH(TWELVE, YMM("vpaddd", "\\r")))
LIMIT(load_avx2, AVX2, 6, EACH(TWELVE, "vmovaps 32*\\r(%0), %%ymm2"))
LIMIT(store_avx2, AVX2, 6, EACH(TWELVE, "vmovaps %%ymm0, 32*\\r(%0)"))
LIMIT(fma_double_add_avx2, AVX2, 6, EACH(TWELVE, YMM("vfmadd231ps", "\\r") YMM("vaddpd", "2") YMM("vaddpd", "3")))

/* 8 logits. A table of 16 entries takes two permutations and a choice by a bit. */
#define EXP_SUM_YMM                                                                                                    \
    EACH("4,5,6,7,8,9", YMM("vfmadd231ps", "\\r")) YMM("vmulps", "2") YMM("vsubps", "3")                               \
    YMM("vpermd", "10") YMM("vpermd", "11") "vpslld $28, %%ymm0, %%ymm12\n"                                            \
    "vblendvps %%ymm0, %%ymm1, %%ymm0, %%ymm13\n vpslld $19, %%ymm0, %%ymm14\n" YMM("vpaddd", "15")                    \
    YMM("vpxor", "2") YMM("vpor", "3")                                                                                 \
    YMM("vpmuludq", "10") "vpsrlq $3, %%ymm0, %%ymm11\n" YMM("vpand", "12") YMM("vaddpd", "13") YMM("vaddpd", "14")
LIMIT(exp_sum_avx2, AVX2, 1, EXP_SUM_YMM EXP_SUM_YMM)
/* 8 rows' logits of one class, a quarter of what turns them into four columns, and the target's place among them. */
#define TURN_YMM                                                                                                       \
    "vmovups (%0), %%xmm10\n vinsertf128 $1, 16(%0), %%ymm0, %%ymm11\n" YMM("vunpcklps", "12") YMM("vunpcklpd", "13")    \
    YMM("vpcmpeqd", "14") "vblendvps %%ymm0, %%ymm1, %%ymm0, %%ymm15\n" YMM("vandnps", "2")
LIMIT(column_avx2, AVX2, 1, EXP_SUM_YMM TURN_YMM EXP_SUM_YMM TURN_YMM)

#define AVX512_TARGET __attribute__((target("avx512f")))
#define AVX512_CLEAR AVX2_CLEAR
#define AVX512_CLOBBERS                                                                                                \
    AVX2_CLOBBERS, "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",  \
        "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1"
#define SIXTEEN TWELVE ",16,17,18,19"
#define ZMM(instruction, result) instruction " %%zmm0, %%zmm1, %%zmm" result "\n"

LIMIT(fma_avx512, AVX512, 16, EACH(SIXTEEN, ZMM("vfmadd231ps", "\\r")))
LIMIT(double_add_avx512, AVX512, 8, EACH(SIXTEEN, ZMM("vaddpd", "\\r")))
LIMIT(permute_avx512, AVX512, 16, EACH(SIXTEEN, ZMM("vpermd", "\\r")))
LIMIT(shift_avx512, AVX512, 16, EACH(SIXTEEN, "vpslld $19, %%zmm0, %%zmm\\r"))
LIMIT(integer_add_avx512, AVX512, 16, EACH(SIXTEEN, ZMM("vpaddd", "\\r")))
LIMIT(load_avx512, AVX512, 16, EACH(SIXTEEN, "vmovaps 64*\\r(%0), %%zmm2"))
LIMIT(store_avx512, AVX512, 16, EACH(SIXTEEN, "vmovaps %%zmm0, 64*\\r(%0)"))
LIMIT(fma_double_add_avx512, AVX512, 16, EACH(SIXTEEN, ZMM("vfmadd231ps", "\\r") ZMM("vaddpd", "2") ZMM("vaddpd", "3")))
#define EXP_SUM_ZMM                                                                                                    \
    EACH("4,5,6,7,8,9", ZMM("vfmadd231ps", "\\r")) ZMM("vmulps", "10") ZMM("vsubps", "11")                             \
    ZMM("vpermd", "12") "vpslld $19, %%zmm0, %%zmm13\n" ZMM("vpaddd", "14") ZMM("vpord", "15")                         \
    ZMM("vpmuludq", "16") "vpsrlq $3, %%zmm0, %%zmm17\n" ZMM("vpandq", "18") ZMM("vaddpd", "2") ZMM("vaddpd", "3")
LIMIT(exp_sum_avx512, AVX512, 1, EXP_SUM_ZMM)
LIMIT(column_avx512, AVX512, 1,
    EXP_SUM_ZMM "vmovups (%0), %%xmm20\n vinsertf32x4 $1, 16(%0), %%zmm0, %%zmm21\n"
    "vinsertf32x4 $2, 32(%0), %%zmm0, %%zmm22\n vinsertf32x4 $3, 48(%0), %%zmm0, %%zmm23\n"
    ZMM("vunpcklps", "24") ZMM("vunpcklpd", "25") "vpcmpeqd %%zmm0, %%zmm1, %%k1\n vblendmps %%zmm0, %%zmm1, %%zmm26%{%%k1%}\n")

#elif defined(__aarch64__)

#define NEON_TARGET
#define NEON_CLEAR EACH("0,1,2,3," TWENTY_FOUR, "movi v\\r\\().4s, #0")
#define NEON_CLOBBERS                                                                                                  \
    "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16",       \
        "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31",       \
        "memory"
#define TWENTY_FOUR "4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27"
#define VEC(instruction, result, lanes) instruction " v" result "\\()." lanes ", v0." lanes ", v1." lanes "\n"
#define TABLE(result) "tbl v" result "\\().16b, {v0.16b, v1.16b, v2.16b, v3.16b}, v0.16b\n"

LIMIT(fma_neon, NEON, 6, EACH(TWENTY_FOUR, VEC("fmla", "\\r", "4s")))
LIMIT(double_add_neon, NEON, 3, EACH(TWENTY_FOUR, VEC("fadd", "\\r", "2d")))
LIMIT(permute_neon, NEON, 6, EACH(TWENTY_FOUR, TABLE("\\r")))
LIMIT(shift_neon, NEON, 6, EACH(TWENTY_FOUR, "shl v\\r\\().4s, v0.4s, #19"))
LIMIT(integer_add_neon, NEON, 6, EACH(TWENTY_FOUR, VEC("add", "\\r", "4s")))
LIMIT(load_neon, NEON, 6, EACH(TWENTY_FOUR, "ldr q28, [%0, #(16 * \\r)]"))
LIMIT(store_neon, NEON, 6, EACH(TWENTY_FOUR, "str q0, [%0, #(16 * \\r)]"))
LIMIT(fma_double_add_neon, NEON, 6,
    EACH(TWENTY_FOUR, VEC("fmla", "\\r", "4s") VEC("fadd", "28", "2d") VEC("fadd", "29", "2d")))
/* Four times 4 logits. Two operations find a table entry's bytes. */
LIMIT(exp_sum_neon, NEON, 1,
    EACH("10,11,12,13",
        VEC("fmla", "4", "4s") VEC("fmla", "5", "4s") VEC("fmla", "6", "4s") VEC("fmla", "7", "4s")
        VEC("fmla", "8", "4s") VEC("fmla", "9", "4s") VEC("fmul", "\\r", "4s") VEC("fsub", "14", "4s")
        VEC("and", "15", "16b") VEC("mla", "16", "4s") TABLE("17") "shl v18.4s, v0.4s, #19\n" VEC("add", "19", "4s")
        VEC("eor", "20", "16b") VEC("orr", "21", "16b")
        "ushll v22.2d, v0.2s, #29\n ushll2 v23.2d, v0.4s, #29\n" VEC("fadd", "24", "2d") VEC("fadd", "25", "2d")))

#endif
// clang-format on

static const struct bench_limit limits[] = {
#if defined(__x86_64__)
    {"fma", "avx512", fma_avx512},
    {"double-add", "avx512", double_add_avx512},
    {"permute", "avx512", permute_avx512},
    {"shift", "avx512", shift_avx512},
    {"integer-add", "avx512", integer_add_avx512},
    {"load", "avx512", load_avx512},
    {"store", "avx512", store_avx512},
    {"fma-double-add", "avx512", fma_double_add_avx512},
    {"exp-sum", "avx512", exp_sum_avx512},
    {"column", "avx512", column_avx512},
    {"fma", "avx2", fma_avx2},
    {"double-add", "avx2", double_add_avx2},
    {"permute", "avx2", permute_avx2},
    {"shift", "avx2", shift_avx2},
    {"integer-add", "avx2", integer_add_avx2},
    {"load", "avx2", load_avx2},
    {"store", "avx2", store_avx2},
    {"fma-double-add", "avx2", fma_double_add_avx2},
    {"exp-sum", "avx2", exp_sum_avx2},
    {"column", "avx2", column_avx2},
#elif defined(__aarch64__)
    {"fma", "neon", fma_neon},
    {"double-add", "neon", double_add_neon},
    {"permute", "neon", permute_neon},
    {"shift", "neon", shift_neon},
    {"integer-add", "neon", integer_add_neon},
    {"load", "neon", load_neon},
    {"store", "neon", store_neon},
    {"fma-double-add", "neon", fma_double_add_neon},
    {"exp-sum", "neon", exp_sum_neon},
#endif
    {NULL, NULL, NULL},
};

const struct bench_limit *bench_limits(size_t *count)
{
    *count = sizeof limits / sizeof *limits - 1;
    return limits;
}
