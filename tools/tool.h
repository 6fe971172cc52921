/* What the parts of the xent command line program share. */
#ifndef XENT_TOOLS_TOOL_H
#define XENT_TOOLS_TOOL_H

#include <stdint.h>
#include <stdlib.h>

#include <xent/xent.h>

/* Exit statuses: EXIT_SUCCESS, EXIT_FAILURE, and this one for a command line that makes no sense. */
enum { EXIT_USAGE = 2 };

/* The commands. argv[0] is the command's name; they return the exit status. */
int info_command(int argc, char **argv);
int demo_command(int argc, char **argv);

/* Print "xent: ..." and a newline on standard error; usage_error adds a pointer to --help and returns EXIT_USAGE. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
void complain(const char *format, ...);
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
int usage_error(const char *format, ...);

/* Ends the program with a message if a call of the library failed, which these uses of it never should. */
void require(xent_status status);

/* Bring what was printed so far to the reader; ends the program with a message if it cannot be written. */
void show_output(void);

/* Seconds on a clock that only goes forward. */
double seconds_now(void);

/* SplitMix64 (Steele, Lea & Flood 2014): small, fast, and the same everywhere for the same seed. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform in [0, 1). */
static inline float random_uniform(uint64_t *state)
{
    return (float)(random_next(state) >> 40) * 0x1p-24f;
}

#endif
