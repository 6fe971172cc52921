/* See fuzz.h. */
#include "fuzz.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fuzz_input fuzz_open(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size, 0};
    in.state = fuzz_word(&in);
    return in;
}

uint8_t fuzz_byte(struct fuzz_input *in)
{
    if (in->left == 0)
        return 0;
    --in->left;
    return *in->at++;
}

uint32_t fuzz_word(struct fuzz_input *in)
{
    uint32_t word = 0;
    for (int i = 0; i < 4; i++)
        word = word << 8 | fuzz_byte(in);
    return word;
}

size_t fuzz_below(struct fuzz_input *in, size_t bound)
{
    const size_t value = fuzz_byte(in);
    return (bound <= 256 ? value : value << 8 | fuzz_byte(in)) % bound;
}

bool fuzz_one_in(struct fuzz_input *in, unsigned n)
{
    const unsigned value = fuzz_byte(in);
    return value >= 256 - 256 / n;
}

size_t fuzz_size(struct fuzz_input *in)
{
    const size_t size = fuzz_below(in, 120);
    if (size < 100)
        return size;
    return size < 115 ? fuzz_below(in, 1100) : fuzz_below(in, 17001);
}

double fuzz_double(struct fuzz_input *in, bool any)
{
    if (!any)
        return (double)fuzz_byte(in) / 255;
    const uint64_t bits = (uint64_t)fuzz_word(in) << 32 | fuzz_word(in);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

xent_reduction fuzz_reduction(struct fuzz_input *in)
{
    static const xent_reduction reductions[] = {XENT_MEAN, XENT_SUM, XENT_NONE};
    return fuzz_one_in(in, 32) ? (xent_reduction)fuzz_byte(in) : reductions[fuzz_below(in, 3)];
}

static uint64_t next(struct fuzz_input *in)
{
    uint64_t z = in->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* In [-1, 1). */
static float unit(struct fuzz_input *in)
{
    return (float)((double)(next(in) >> 11) * 0x1p-52 - 1);
}

enum { KINDS = 12 };

static float number(struct fuzz_input *in, unsigned kind)
{
    static const float edges[] = {-33.25f, 55.4f, -256.0f, 512.0f,  -512.0f, -192.0f,
                                  0.0f,    -0.0f, 88.7f,   -103.9f, 1e9f,    -1e9f};
    switch (kind % KINDS) {
    case 0:
        return unit(in) * 4;
    case 1:
        return unit(in) * 60;
    case 2:
        return 1e4f + unit(in) * 30;
    case 3:
        return -700.0f + unit(in) * 300;
    case 4:
        return unit(in) * 3e38f;
    case 5:
        return next(in) % 3 ? unit(in) * 8 : next(in) % 2 ? -INFINITY : -1e9f;
    case 6: {
        const float edge = edges[next(in) % (sizeof edges / sizeof *edges)];
        return next(in) % 2 ? nextafterf(edge, unit(in) > 0 ? INFINITY : -INFINITY) : edge;
    }
    case 7:
        return from_bits((uint32_t)next(in) & 0x807fffff); /* 0 or subnormal */
    case 8:
        return from_bits((uint32_t)next(in));
    case 9:
        return next(in) % 16 ? unit(in) * 5 : NAN;
    case 10:
        return next(in) % 16 ? unit(in) * 5 : INFINITY;
    default:
        return next(in) % 8 ? unit(in) : 200 * unit(in);
    }
}

static float allowed(float value, enum fuzz_range range)
{
    if (range == FUZZ_ANY)
        return value;
    if (!(value - value == 0))
        value = 1;
    return range == FUZZ_WEIGHTS ? fminf(fabsf(value), XENT_MAX_CLASS_WEIGHT) : value;
}

void fuzz_fill(struct fuzz_input *in, void *data, enum fuzz_type type, size_t count, enum fuzz_range range)
{
    const unsigned kind = fuzz_byte(in), stray = fuzz_byte(in);
    const size_t given = fuzz_below(in, 16);
    for (size_t i = 0; i < count; i++) {
        const bool is_stray = stray >= 128 && next(in) % 32 == 0;
        float value = i < given ? from_bits(fuzz_word(in)) : number(in, is_stray ? stray : kind);
        value = allowed(value, range);
        if (type == FUZZ_F64) {
            /* bits that a float does not have, too */
            const double wide = (double)value * (1 + (double)(next(in) >> 40) * 0x1p-50);
            ((double *)data)[i] = range == FUZZ_WEIGHTS ? fmin(wide, (double)XENT_MAX_CLASS_WEIGHT) : wide;
        } else {
            ((float *)data)[i] = value;
        }
    }
}

static char description[512];

void fuzz_describe(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(description, sizeof description, format, arguments);
    va_end(arguments);
}

void fuzz_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("fuzz: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, " [%s]\n", description);
    va_end(arguments);
    abort();
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    if (!memory && bytes > 0)
        fuzz_fail("no memory for %zu bytes", bytes);
    return memory;
}

void *fuzz_add(struct fuzz_case *c, enum fuzz_type type, size_t bytes, bool output)
{
    if (c->count == sizeof c->arrays / sizeof *c->arrays)
        fuzz_fail("too many arrays");
    struct fuzz_array *a = &c->arrays[c->count++];
    *a = (struct fuzz_array){type, output, bytes, allocate(bytes), allocate(bytes), allocate(bytes)};
    if (bytes > 0)
        memset(a->data, FUZZ_CANARY, bytes);
    return a->data;
}

void fuzz_free(struct fuzz_case *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->arrays[i].data);
        free(c->arrays[i].before);
        free(c->arrays[i].first);
    }
    c->count = 0;
}

static bool same_f32(const void *a, const void *b)
{
    float x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x != x && y != y;
}

static bool same_f64(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x != x && y != y;
}

void fuzz_same(const char *what, enum fuzz_type type, const void *a, const void *b, size_t bytes)
{
    if (bytes == 0 || memcmp(a, b, bytes) == 0)
        return;
    const unsigned char *x = a, *y = b;
    const size_t size = type == FUZZ_F64 ? sizeof(double) : type == FUZZ_F32 ? sizeof(float) : 1;
    for (size_t i = 0; i < bytes; i += size)
        if (memcmp(x + i, y + i, size) != 0 && !(type == FUZZ_F32 && same_f32(x + i, y + i)) &&
            !(type == FUZZ_F64 && same_f64(x + i, y + i))) {
            if (type == FUZZ_F32) {
                float got, expected;
                memcpy(&got, x + i, sizeof got);
                memcpy(&expected, y + i, sizeof expected);
                fuzz_fail("%s: element %zu is %a, not %a", what, i / size, (double)got, (double)expected);
            }
            if (type == FUZZ_F64) {
                double got, expected;
                memcpy(&got, x + i, sizeof got);
                memcpy(&expected, y + i, sizeof expected);
                fuzz_fail("%s: element %zu is %a, not %a", what, i / size, got, expected);
            }
            fuzz_fail("%s: byte %zu is %02x, not %02x", what, i, x[i], y[i]);
        }
}

/* The last task first. */
static void run_backwards(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks)
{
    (void)context;
    while (tasks-- > 0)
        task(argument, tasks);
}

static void copy(void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
}

/* One run and all that can be said of it alone. */
static xent_status run_once(struct fuzz_case *c, fuzz_call call, void *context, const xent_executor *executor)
{
    for (size_t i = 0; i < c->count; i++)
        copy(c->arrays[i].data, c->arrays[i].before, c->arrays[i].bytes);
    const xent_status status = call(context, executor);
    for (size_t i = 0; i < c->count; i++) {
        const struct fuzz_array *a = &c->arrays[i];
        if ((status != XENT_OK || !a->output) && a->bytes > 0 && memcmp(a->data, a->before, a->bytes) != 0)
            fuzz_fail("%s wrote to %s %zu with status %d", xent_isa(), a->output ? "output" : "input", i, (int)status);
    }
    return status;
}

xent_status fuzz_run(struct fuzz_case *c, fuzz_call call, void *context, size_t threads)
{
    const xent_executor executor = {run_backwards, NULL, threads};
    for (size_t i = 0; i < c->count; i++)
        copy(c->arrays[i].before, c->arrays[i].data, c->arrays[i].bytes);
    if (xent_select("scalar") != XENT_OK)
        fuzz_fail("no scalar kernel");
    const xent_status expected = run_once(c, call, context, NULL);
    for (size_t i = 0; i < c->count; i++)
        copy(c->arrays[i].first, c->arrays[i].data, c->arrays[i].bytes);
    for (const char *const *isa = xent_isas(); *isa; isa++)
        for (int parallel = 0; parallel < 2; parallel++) {
            if (xent_select(*isa) != XENT_OK)
                fuzz_fail("%s is listed, but cannot be selected", *isa);
            const xent_status status = run_once(c, call, context, parallel ? &executor : NULL);
            if (status != expected)
                fuzz_fail("%s: status %d, scalar: %d", *isa, (int)status, (int)expected);
            for (size_t i = 0; i < c->count; i++) {
                char what[64];
                snprintf(what, sizeof what, "%s%s, array %zu", *isa, parallel ? " in tasks" : "", i);
                fuzz_same(what, c->arrays[i].type, c->arrays[i].data, c->arrays[i].first, c->arrays[i].bytes);
            }
        }
    for (size_t i = 0; i < c->count; i++)
        copy(c->arrays[i].data, c->arrays[i].first, c->arrays[i].bytes);
    if (xent_select("scalar") != XENT_OK)
        fuzz_fail("no scalar kernel");
    return expected;
}

size_t fuzz_row_stride(struct fuzz_input *in, size_t classes)
{
    const size_t pad = fuzz_below(in, 64);
    switch (fuzz_below(in, 4)) {
    case 0:
        return classes + pad;
    case 1:
        return pad < 4 ? pad : classes;
    default:
        return 0;
    }
}

size_t fuzz_row_elements(size_t rows, size_t classes, size_t stride)
{
    return rows == 0 ? 0 : (rows - 1) * (stride ? stride : classes) + classes;
}

void fuzz_labels(struct fuzz_input *in, void *data, xent_targets type, size_t count, size_t classes,
                 int64_t ignore_index, unsigned bad)
{
    for (size_t i = 0; i < count; i++) {
        in->state = in->state * 6364136223846793005u + 1442695040888963407u;
        const uint32_t die = (uint32_t)(in->state >> 32);
        int64_t label = classes > 0 ? (int64_t)(die / 64 % classes) : 0;
        const int64_t most = type == XENT_LABELS_U8 ? UINT8_MAX : type == XENT_LABELS_U16 ? UINT16_MAX : INT64_MAX;
        if (die % 8 == 0 && (most == INT64_MAX || (ignore_index >= 0 && ignore_index <= most)))
            label = ignore_index;
        if (bad > 0 && die % 64 == 1)
            label = bad == 1 ? (int64_t)classes : bad == 2 ? -1 : (int64_t)((uint64_t)die << 33 | die);
        if (type == XENT_LABELS_I64)
            ((int64_t *)data)[i] = label;
        else if (type == XENT_LABELS_U8)
            ((uint8_t *)data)[i] = (uint8_t)label;
        else if (type == XENT_LABELS_U16)
            ((uint16_t *)data)[i] = (uint16_t)label;
        else
            ((int32_t *)data)[i] = (int32_t)label;
    }
}
