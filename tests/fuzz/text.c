/* Fuzzes the reader of the demo's text: any file is words of a-z or an error, and nothing else. */
#include "tools/text.h"
#include "fuzz.h"
#include "tools/tool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void complain(const char *format, ...)
{
    (void)format; /* the reader's messages are its caller's business */
}

/* A new file of the bytes, so many times over, under the name that path, a template of mkstemp, becomes. */
static void write_file(char *path, const uint8_t *data, size_t size, size_t times)
{
    const int descriptor = mkstemp(path);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "wb");
    if (!file)
        fuzz_fail("cannot write %s", path);
    for (size_t i = 0; i < times; i++)
        if (fwrite(data, 1, size, file) != size)
            fuzz_fail("cannot write %s", path);
    if (fclose(file) != 0)
        fuzz_fail("cannot write %s", path);
}

static bool is_letter(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* The text again, byte by byte, in the plainest way. */
static void check(const struct text *text, const uint8_t *data, size_t size, size_t times)
{
    size_t at = 0, words = 0;
    bool in_word = false;
    if (text->length == 0 || text->symbols[at++] != BOUNDARY)
        fuzz_fail("the text does not begin with a boundary");
    for (size_t i = 0; i < size * times; i++) {
        const uint8_t byte = data[i % size];
        if (is_letter(byte) || in_word) {
            const unsigned expected = is_letter(byte) ? (byte & 31u) : BOUNDARY;
            if (at >= text->length || text->symbols[at++] != expected)
                fuzz_fail("symbol %zu is not %u", at - 1, expected);
            words += is_letter(byte) && !in_word;
        }
        in_word = is_letter(byte);
    }
    if (in_word && (at >= text->length || text->symbols[at++] != BOUNDARY))
        fuzz_fail("the text does not end with a boundary");
    if (at != text->length || words != text->words)
        fuzz_fail("%zu symbols and %zu words, not %zu and %zu", text->length, text->words, at, words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    /* Repeated, so that a short input can fill more than one of the reader's chunks. */
    size_t times = 1 + (data[0] >= 224 ? (size_t)data[1] * 256 : data[0] % 4);
    data += 2;
    size -= 2;
    if (size * times > 1 << 19)
        times = 1;
    const char *directory = getenv("TMPDIR");
    char path[256];
    snprintf(path, sizeof path, "%.200s/xent-fuzz-text-XXXXXX", directory ? directory : P_tmpdir);
    write_file(path, data, size, times);
    struct text text;
    const bool ok = text_read(&text, path);
    unlink(path);
    bool any = false;
    for (size_t i = 0; i < size; i++)
        any |= is_letter(data[i]);
    if (ok != any)
        fuzz_fail("a file %s letters %s", any ? "with" : "without", ok ? "was taken" : "was refused");
    if (ok)
        check(&text, data, size, times);
    else if (text.symbols || text.length > 0)
        fuzz_fail("a refused file left a text");
    text_free(&text);
    return 0;
}
