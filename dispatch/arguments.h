/* What the public calls check their arguments with. */
#ifndef XENT_DISPATCH_ARGUMENTS_H
#define XENT_DISPATCH_ARGUMENTS_H

#include "xent/xent.h"

#include <stdbool.h>
#include <string.h>

/* An array of rows as the caller gave it. */
struct matrix {
    const void *data;
    size_t size; /* of an element, in bytes */
    size_t rows, classes, stride;
};

static inline xent_status check_matrix(const struct matrix *m)
{
    if (m->stride < m->classes)
        return XENT_ERR_STRIDE;
    const size_t most = PTRDIFF_MAX / m->size;
    if (m->rows > 0 && (m->classes > most || (m->rows > 1 && m->stride > (most - m->classes) / (m->rows - 1))))
        return XENT_ERR_SIZE;
    return XENT_OK;
}

static inline bool apart(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const uintptr_t p = (uintptr_t)a, q = (uintptr_t)b;
    return a_bytes == 0 || b_bytes == 0 || (p < q ? q - p >= a_bytes : p - q >= b_bytes);
}

/* The bytes from a matrix's first element to its last. */
static inline size_t span(const struct matrix *m)
{
    return m->rows == 0 ? 0 : ((m->rows - 1) * m->stride + m->classes) * m->size;
}

/* Whether two matrices of the same shape share no element: apart as a whole, or rows of one in the gaps of the other.
 */
static inline bool matrices_apart(const struct matrix *a, const struct matrix *b)
{
    if (apart(a->data, span(a), b->data, span(b)))
        return true;
    if (a->rows == 1 || a->stride != b->stride || a->stride < a->classes)
        return false;
    const size_t pitch = a->stride * a->size, row = a->classes * a->size;
    const uintptr_t p = (uintptr_t)a->data, q = (uintptr_t)b->data;
    const size_t offset = (size_t)(p < q ? q - p : p - q) % pitch;
    return offset >= row && pitch - offset >= row;
}

/* The output is the input itself, or shares nothing with it. */
static inline bool in_place_or_apart(const struct matrix *in, const struct matrix *out)
{
    return (in->data == out->data && (in->stride == out->stride || in->rows == 1)) || matrices_apart(in, out);
}

enum { MOST_STRUCT = 4096 }; /* a larger struct_size is no size: nothing is read */

/* A caller's struct into one of this version, which holds the defaults: an older one ends at one of so many offsets, a
   newer one is zero past what is known here. Returns whether it is either, or of this version. */
static inline bool read_struct(const void *given, size_t given_size, void *known, size_t size, const size_t *older,
                               size_t older_count)
{
    bool plausible = given_size >= size && given_size <= MOST_STRUCT;
    for (size_t i = 0; i < older_count; ++i)
        plausible |= given_size == older[i];
    if (!plausible)
        return false;
    const unsigned char *bytes = given;
    for (size_t i = size; i < given_size; ++i)
        if (bytes[i] != 0)
            return false;
    memcpy(known, given, given_size < size ? given_size : size);
    return true;
}

#endif
