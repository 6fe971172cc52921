/*
 * Buffers between two pages that cannot be touched, so that one byte read or written outside faults.
 */
#ifndef XENT_TESTS_GUARD_H
#define XENT_TESTS_GUARD_H

#include <stdbool.h>
#include <stddef.h>

struct guarded {
    unsigned char *map;
    size_t map_bytes;
    unsigned char *first; /* the bytes that may be touched */
    size_t bytes;
};

enum guard_edge { GUARD_BEFORE, GUARD_AFTER };

/* Room for anything of up to bytes bytes. */
struct guarded guard_new(size_t bytes);
void guard_free(struct guarded *guarded);

/* Fills everything with a canary and returns an array of that size that touches the page before or after. */
void *guard_place(const struct guarded *guarded, size_t bytes, enum guard_edge edge);

/* The same at so many bytes from that page. */
void *guard_place_at(const struct guarded *guarded, size_t bytes, enum guard_edge edge, size_t offset);

/* Whether all but the array that guard_place returned still holds the canary. */
bool guard_intact(const struct guarded *guarded, const void *array, size_t bytes);

/* Makes everything unreadable and unwritable, or usable again. */
void guard_lock(const struct guarded *guarded);
void guard_unlock(const struct guarded *guarded);

/* Whether size bytes all hold the canary. */
bool guard_is_canary(const void *memory, size_t bytes);
void guard_fill(void *memory, size_t bytes);

#endif
