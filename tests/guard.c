/*
 * See guard.h.
 */
#include "guard.h"

#include <check.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* As a float a NaN, as an index -1: if it is read, that shows. */
static const unsigned char canary = 0xff;

struct guarded guard_new(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t usable = (bytes + page - 1) / page * page;
    struct guarded guarded = {.map_bytes = usable + 2 * page, .bytes = usable};
    void *map = mmap(NULL, guarded.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(map != MAP_FAILED);
    guarded.map = map;
    guarded.first = guarded.map + page;
    guard_unlock(&guarded);
    return guarded;
}

void guard_free(struct guarded *guarded)
{
    ck_assert_int_eq(munmap(guarded->map, guarded->map_bytes), 0);
}

void guard_fill(void *memory, size_t bytes)
{
    memset(memory, canary, bytes);
}

bool guard_is_canary(const void *memory, size_t bytes)
{
    const unsigned char *byte = memory;
    return bytes == 0 || (byte[0] == canary && memcmp(byte, byte + 1, bytes - 1) == 0);
}

void *guard_place_at(const struct guarded *guarded, size_t bytes, enum guard_edge edge, size_t offset)
{
    ck_assert_uint_le(bytes + offset, guarded->bytes);
    guard_fill(guarded->first, guarded->bytes);
    return edge == GUARD_BEFORE ? guarded->first + offset : guarded->first + (guarded->bytes - bytes - offset);
}

void *guard_place(const struct guarded *guarded, size_t bytes, enum guard_edge edge)
{
    return guard_place_at(guarded, bytes, edge, 0);
}

bool guard_intact(const struct guarded *guarded, const void *array, size_t bytes)
{
    size_t before = (size_t)((const unsigned char *)array - guarded->first);
    const unsigned char *after = guarded->first + before + bytes;
    return guard_is_canary(guarded->first, before) && guard_is_canary(after, guarded->bytes - before - bytes);
}

void guard_lock(const struct guarded *guarded)
{
    ck_assert_int_eq(mprotect(guarded->first, guarded->bytes, PROT_NONE), 0);
}

void guard_unlock(const struct guarded *guarded)
{
    ck_assert_int_eq(mprotect(guarded->first, guarded->bytes, PROT_READ | PROT_WRITE), 0);
}
