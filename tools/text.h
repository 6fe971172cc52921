/* A text as the demo's model sees it: its words in the letters a-z, with a boundary between them. */
#ifndef XENT_TOOLS_TEXT_H
#define XENT_TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* A symbol is BOUNDARY or 1..26 for a letter. */
enum { BOUNDARY = 0, SYMBOLS = 27 };

struct text {
    unsigned char *symbols; /* begins and ends with BOUNDARY, and never has two of them in a row */
    size_t length;
    size_t words;
};

/*
 * Read a file: its words are the longest runs of ASCII letters, lower-cased; every other byte separates. On failure
 * says why on standard error and returns false; on success the caller owes text_free.
 */
bool text_read(struct text *text, const char *path);
void text_free(struct text *text);

static inline char symbol_letter(unsigned symbol)
{
    return "_abcdefghijklmnopqrstuvwxyz"[symbol];
}

#endif
