/*
 * What the fuzz targets share. A target makes a call of its input: bytes decide shape, strides, options and numbers.
 * The call runs on every kernel, with and without an executor, on buffers of exactly the bytes that it may touch, so
 * that an address sanitizer sees one too many. It must give the status and the bits that the scalar kernel gives, leave
 * every input as it was, and every output too if it fails.
 *
 * LLVMFuzzerTestOneInput is libFuzzer's entry point; replay.c calls it with the committed corpus and random bytes.
 */
#ifndef XENT_TESTS_FUZZ_FUZZ_H
#define XENT_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xent/xent.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input, from its front. What is read past its end is 0. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
    uint64_t state; /* of the numbers that the input only seeds */
};

struct fuzz_input fuzz_open(const uint8_t *data, size_t size);
uint8_t fuzz_byte(struct fuzz_input *in);
uint32_t fuzz_word(struct fuzz_input *in);              /* four bytes */
size_t fuzz_below(struct fuzz_input *in, size_t bound); /* one byte of input if bound <= 256, else two */
bool fuzz_one_in(struct fuzz_input *in, unsigned n);    /* of 256; false at the end of the input */
size_t fuzz_size(struct fuzz_input *in);                /* [0, 17000], mostly small */
double fuzz_double(struct fuzz_input *in, bool any);    /* in [0, 1], or anything if any */
xent_reduction fuzz_reduction(struct fuzz_input *in);   /* once in a while none at all */

enum fuzz_type { FUZZ_BYTES, FUZZ_F32, FUZZ_F64 };

/* Numbers of every kind that matters to a kernel, the first few of them straight from the input. */
enum fuzz_range { FUZZ_ANY, FUZZ_FINITE, FUZZ_WEIGHTS };
void fuzz_fill(struct fuzz_input *in, void *data, enum fuzz_type type, size_t count, enum fuzz_range range);

/* Labels of such a type, some of them ignored; bad: of which kind one in 64 is not allowed (0: none is). */
void fuzz_labels(struct fuzz_input *in, void *data, xent_targets type, size_t count, size_t classes,
                 int64_t ignore_index, unsigned bad);

/* Usually 0, which means no gap, or as many elements as there are classes or more; sometimes too few. */
size_t fuzz_row_stride(struct fuzz_input *in, size_t classes);
/* From the first to the last element of rows with such a stride. */
size_t fuzz_row_elements(size_t rows, size_t classes, size_t stride);

/* The arrays of a call. */
struct fuzz_array {
    enum fuzz_type type;
    bool output;
    size_t bytes;
    unsigned char *data, *before, *first; /* as the call sees it, as it was, as the first run left it */
};

struct fuzz_case {
    struct fuzz_array arrays[16];
    size_t count;
};

enum { FUZZ_CANARY = 0xa5 }; /* what outputs are filled with */

/* Memory of exactly so many bytes, which the case owns. */
void *fuzz_add(struct fuzz_case *c, enum fuzz_type type, size_t bytes, bool output);

/* Runs the call on every kernel and compares. Returns the status that all of them gave; each array's data is then what
   the scalar kernel has left. */
typedef xent_status (*fuzz_call)(void *context, const xent_executor *executor);
xent_status fuzz_run(struct fuzz_case *c, fuzz_call call, void *context, size_t threads);

void fuzz_free(struct fuzz_case *c);

/* Ends the program unless the bits are the same; any NaN is like any other. */
void fuzz_same(const char *what, enum fuzz_type type, const void *a, const void *b, size_t bytes);
/* What the call is, for the message of a failure. */
void fuzz_describe(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fuzz_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
