/*
 * Part of xent.h where XENT_NAMESPACE is defined: every function's name gets that prefix, so that one program can hold
 * several copies of the library, each with a namespace of its own. Library and callers must be compiled with the same
 * one: "meson setup -Dnamespace=app_", and -DXENT_NAMESPACE=app_, which the library's pkg-config file and meson's
 * dependency then add. Copies are static libraries: shared ones would have one file name. A shared library that holds a
 * copy exports its functions, unless it is linked with -Wl,--exclude-libs,libxent.a.
 */
#ifndef XENT_NAMESPACE_H
#define XENT_NAMESPACE_H

#define XENT_NAME_PASTED(prefix, name) prefix##name
#define XENT_NAME_IN(prefix, name) XENT_NAME_PASTED(prefix, name)
#define XENT_NAME(name) XENT_NAME_IN(XENT_NAMESPACE, name)

#define xent_bce_f32 XENT_NAME(xent_bce_f32)
#define xent_built_isas XENT_NAME(xent_built_isas)
#define xent_cross_entropy XENT_NAME(xent_cross_entropy)
#define xent_fused_f32 XENT_NAME(xent_fused_f32)
#define xent_fused_f32_i64 XENT_NAME(xent_fused_f32_i64)
#define xent_isa XENT_NAME(xent_isa)
#define xent_isa_missing XENT_NAME(xent_isa_missing)
#define xent_isas XENT_NAME(xent_isas)
#define xent_log_softmax_f32 XENT_NAME(xent_log_softmax_f32)
#define xent_logsumexp_f32 XENT_NAME(xent_logsumexp_f32)
#define xent_numerics_version XENT_NAME(xent_numerics_version)
#define xent_select XENT_NAME(xent_select)
#define xent_softmax_f32 XENT_NAME(xent_softmax_f32)
#define xent_status_string XENT_NAME(xent_status_string)
#define xent_version XENT_NAME(xent_version)

#endif
