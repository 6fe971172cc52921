/*
 * The names that the library's own files know each other by, which a namespace (xent/namespace.h) applies to as well.
 * tools/hygiene tells if one is missing.
 */
#ifndef XENT_KERNELS_NAMES_H
#define XENT_KERNELS_NAMES_H

#ifdef XENT_NAMESPACE

#include "xent/namespace.h"

#define xent_active_kernel XENT_NAME(xent_active_kernel)
#define xent_choose_memory XENT_NAME(xent_choose_memory)
#define xent_class_weights_are_good XENT_NAME(xent_class_weights_are_good)
#define xent_class_weights_sum XENT_NAME(xent_class_weights_sum)
#define xent_compute XENT_NAME(xent_compute)
#define xent_count_kept XENT_NAME(xent_count_kept)
#define xent_cpu_feature_name XENT_NAME(xent_cpu_feature_name)
#define xent_cpu_features XENT_NAME(xent_cpu_features)
#define xent_cpu_overlap XENT_NAME(xent_cpu_overlap)
#define xent_kernel_avx2 XENT_NAME(xent_kernel_avx2)
#define xent_kernel_avx512 XENT_NAME(xent_kernel_avx512)
#define xent_kernel_neon XENT_NAME(xent_kernel_neon)
#define xent_kernel_scalar XENT_NAME(xent_kernel_scalar)
#define xent_run_cross_entropy XENT_NAME(xent_run_cross_entropy)
#define xent_split_rows XENT_NAME(xent_split_rows)
#define xent_in_parallel XENT_NAME(xent_in_parallel)
#define xent_weigh_kept XENT_NAME(xent_weigh_kept)
#define xent_x86_features XENT_NAME(xent_x86_features)
#define xent_x86_overlap XENT_NAME(xent_x86_overlap)

#endif

#endif
