/* Reads any file as words: in chunks, so that neither long lines nor zero bytes nor size matter. */
#include "text.h"

#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK = 1 << 16 };

static unsigned symbol_of(unsigned char byte)
{
    unsigned letter = (byte | 0x20u) - 'a'; /* wraps around for what lies before 'a' */
    return letter < 26 ? letter + 1 : BOUNDARY;
}

/* Make room for as many more symbols. */
static bool reserve(struct text *text, size_t *capacity, size_t more)
{
    if (*capacity - text->length >= more)
        return true;
    size_t grown_capacity = 2 * *capacity + more;
    unsigned char *grown = realloc(text->symbols, grown_capacity);
    if (!grown)
        return false;
    text->symbols = grown;
    *capacity = grown_capacity;
    return true;
}

static void append(struct text *text, const unsigned char *bytes, size_t count)
{
    unsigned last = text->symbols[text->length - 1];
    for (size_t i = 0; i < count; i++) {
        unsigned symbol = symbol_of(bytes[i]);
        if (symbol == BOUNDARY && last == BOUNDARY)
            continue;
        text->words += last == BOUNDARY;
        text->symbols[text->length++] = (unsigned char)symbol;
        last = symbol;
    }
}

static bool read_stream(struct text *text, FILE *file, const char *path)
{
    static unsigned char chunk[CHUNK];
    size_t capacity = 0, bytes = 0, count;

    if (!reserve(text, &capacity, 1))
        goto no_memory;
    text->symbols[text->length++] = BOUNDARY;
    while ((count = fread(chunk, 1, sizeof chunk, file)) > 0) {
        if (!reserve(text, &capacity, count + 1)) /* one for the boundary at the end */
            goto no_memory;
        append(text, chunk, count);
        bytes += count;
    }
    if (ferror(file)) {
        complain("cannot read '%s': %s", path, strerror(errno));
        return false;
    }
    if (text->words == 0) {
        complain("cannot learn from '%s': %s", path, bytes == 0 ? "the file is empty" : "it holds no ASCII letter");
        return false;
    }
    if (text->symbols[text->length - 1] != BOUNDARY)
        text->symbols[text->length++] = BOUNDARY;
    return true;

no_memory:
    complain("cannot read '%s': out of memory after %zu bytes", path, bytes);
    return false;
}

bool text_read(struct text *text, const char *path)
{
    *text = (struct text){NULL, 0, 0};
    FILE *file = fopen(path, "rb");
    if (!file) {
        complain("cannot open '%s': %s", path, strerror(errno));
        return false;
    }
    bool ok = read_stream(text, file, path);
    fclose(file);
    if (!ok)
        text_free(text);
    return ok;
}

void text_free(struct text *text)
{
    free(text->symbols);
    *text = (struct text){NULL, 0, 0};
}
