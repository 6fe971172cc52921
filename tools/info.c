/* xent info: what this library can run on this CPU, which kernel it chose and why. */
#include "tool.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include <xent/xent.h>

enum { NAME_SIZE = 128 };

#if defined(__x86_64__) || defined(__i386__)

/* The 48 bytes of the brand string, or "" if this CPU has none. */
static void find_cpu_name(char name[NAME_SIZE])
{
    unsigned words[12], most = (unsigned)__get_cpuid_max(0x80000000, NULL);
    name[0] = '\0';
    if (most < 0x80000004)
        return;
    for (unsigned i = 0; i < 3; i++)
        __cpuid(0x80000002 + i, words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
    memcpy(name, words, sizeof words);
    name[sizeof words] = '\0';
}

#else

/* The value of a "key : value" line of Linux's /proc/cpuinfo, or "". */
static void find_in_cpuinfo(const char *key, char value[NAME_SIZE])
{
    char line[NAME_SIZE];
    value[0] = '\0';
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return;
    while (value[0] == '\0' && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) == 0 && colon) {
            line[strcspn(line, "\n")] = '\0';
            strcpy(value, colon + 1);
        }
    }
    fclose(file);
}

static void find_cpu_name(char name[NAME_SIZE])
{
    char implementer[NAME_SIZE], part[NAME_SIZE];
    find_in_cpuinfo("model name", name);
    if (name[0] != '\0')
        return;
    find_in_cpuinfo("CPU implementer", implementer);
    find_in_cpuinfo("CPU part", part);
    if (part[0] != '\0')
        snprintf(name, NAME_SIZE, "implementer%.40s, part%.40s", implementer, part);
}

#endif

static void print_cpu(void)
{
    char name[NAME_SIZE];
    find_cpu_name(name);
    const char *start = name + strspn(name, " \t");
    printf("CPU: %s\n", *start ? start : "of unknown name");
}

static void print_kernels(const char *wish)
{
    const char *chosen = xent_isa(), *fastest = xent_isas()[0];
    bool before_chosen = true;

    printf("\n%-8s  %-9s  %-6s  %s\n", "kernel", "runs here", "chosen", "why");
    for (const char *const *isa = xent_built_isas(); *isa; isa++) {
        const char *missing = xent_isa_missing(*isa);
        bool runs = missing[0] == '\0', is_chosen = strcmp(*isa, chosen) == 0;
        printf("%-8s  %-9s  %-6s  ", *isa, runs ? "yes" : "no", is_chosen ? "yes" : "no");
        if (!runs)
            printf("this CPU or its operating system lacks %s\n", missing);
        else if (is_chosen && strcmp(chosen, fastest) == 0)
            printf("the fastest that runs here\n");
        else if (is_chosen || before_chosen)
            printf("XENT_ISA=%s in the environment asks for %s\n", wish, is_chosen ? "it" : "less");
        else
            printf("%s is faster\n", chosen);
        if (is_chosen)
            before_chosen = false;
    }
}

/* XENT_ISA has an effect only if it names a kernel that runs here. */
static void print_wish(const char *wish)
{
    const char *missing = xent_isa_missing(wish);
    if (!missing)
        printf("\nXENT_ISA=%s in the environment names no kernel of this build and changes nothing.\n", wish);
    else if (missing[0] != '\0')
        printf("\nXENT_ISA=%s in the environment names a kernel that cannot run here and changes nothing.\n", wish);
}

int info_command(int argc, char **argv)
{
    if (argc > 1)
        return usage_error("info takes no argument, but got '%s'", argv[1]);
    const char *wish = getenv("XENT_ISA");
    int version = xent_version();
    printf("xent %d.%d.%d, numerics version %d\n", version / 10000, version / 100 % 100, version % 100,
           xent_numerics_version());
    print_cpu();
    print_kernels(wish);
    if (wish)
        print_wish(wish);
    return EXIT_SUCCESS;
}
