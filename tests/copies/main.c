/*
 * Two copies of the library in one program: each has a kernel of its own in use, and both give the same bits.
 */
#include <stdio.h>
#include <string.h>

const char *one_run(const char *isa, float loss[2]);
const char *two_run(const char *isa, float loss[2]);

int main(void)
{
    float first[2], second[2];
    const char *fastest = one_run(NULL, first), *chosen = two_run("scalar", second);
    if (!fastest || !chosen || strcmp(chosen, "scalar") != 0)
        return 1;
    if (strcmp(one_run(NULL, first), fastest) != 0) /* the other copy's choice has not changed this one's */
        return 2;
    if (memcmp(first, second, sizeof first) != 0)
        return 3;
    printf("two copies in one program: %s and %s\n", fastest, chosen);
    return 0;
}
