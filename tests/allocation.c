/*
 * No call allocates or frees: this program's malloc and free end it while a call runs. A program of its own, since it
 * puts them in place of the C library's.
 */
#include "every.h"

#include <stdlib.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void __libc_free(void *memory);

static volatile bool calling;
static volatile size_t allocations; /* of this program: shows that its malloc is the one in use */

static void count(void)
{
    static const char message[] = "# memory was allocated or freed during a call\n";
    allocations = allocations + 1;
    if (!calling)
        return;
    if (write(STDOUT_FILENO, message, sizeof message - 1) < 0)
        _exit(2);
    abort();
}

void *malloc(size_t bytes)
{
    count();
    return __libc_malloc(bytes);
}

void *calloc(size_t number, size_t bytes)
{
    count();
    return __libc_calloc(number, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    count();
    return __libc_realloc(memory, bytes);
}

void free(void *memory)
{
    count();
    __libc_free(memory);
}

START_TEST(no_allocation)
{
    struct every *every = every_new();
    const size_t before = allocations;
    void *volatile memory = malloc(1);
    free(memory);
    ck_assert_msg(allocations == before + 2, "this program's malloc is not in use");
    /* Before any other call of the process: the choice of kernel is part of the first one. */
    for (size_t i = 0; i < every_count; i++) {
        name_case("first: %s", every_describe(i).text);
        calling = true;
        every_run(every, i);
        calling = false;
    }
    size_t calls = every_count;
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        for (size_t i = 0; i < every_count; i++, calls++) {
            name_case("%s: %s", *isa, every_describe(i).text);
            calling = true;
            every_run(every, i);
            calling = false;
        }
    }
    note("%zu calls without an allocation", calls);
    free(every);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("allocation");
    tcase_add_test(add_case(suite, "allocation"), no_allocation);
    return run_suite(suite);
}
