/* The xent command line program: picks the command, and makes sure that what it printed has arrived. */
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <xent/xent.h>

static const char usage_text[] =
    "Usage: xent info                    what this library can run on this CPU, what it chose and why\n"
    "       xent demo [--seed N] [FILE]  train a character model with it, and compare its kernels\n"
    "       xent help | --help | --version\n"
    "\n"
    "demo learns which letter follows which in the words of FILE (any text; default /usr/share/dict/words),\n"
    "checks the loss it reaches against the entropy counted from the text, and fails if they differ by over 1%\n"
    "(or 0.005 nats, where 1% is even less).\n"
    "\n"
    "XENT_ISA=NAME in the environment lowers the choice of kernel to NAME; XENT_OVERLAP=N says how much kernels do to\n"
    "keep memory busy (xent.h has its values).\n";

static void complain_with(const char *format, va_list arguments)
{
    fputs("xent: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain_with(format, arguments);
    va_end(arguments);
}

int usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain_with(format, arguments);
    va_end(arguments);
    fputs("Try 'xent --help'.\n", stderr);
    return EXIT_USAGE;
}

void require(xent_status status)
{
    if (status == XENT_OK)
        return;
    complain("the library failed: %s", xent_status_string(status));
    exit(EXIT_FAILURE);
}

void show_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return;
    complain("cannot write to standard output: %s", strerror(errno));
    exit(EXIT_FAILURE);
}

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int version_command(void)
{
    int version = xent_version();
    printf("xent %d.%d.%d, numerics version %d\n", version / 10000, version / 100 % 100, version % 100,
           xent_numerics_version());
    return EXIT_SUCCESS;
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        fputs(usage_text, stderr);
        return EXIT_USAGE;
    }
    const char *command = argv[1];
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage_text, stdout);
            return EXIT_SUCCESS;
        }
    }
    if (strcmp(command, "help") == 0) {
        fputs(usage_text, stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(command, "--version") == 0)
        return version_command();
    if (strcmp(command, "info") == 0)
        return info_command(argc - 1, argv + 1);
    if (strcmp(command, "demo") == 0)
        return demo_command(argc - 1, argv + 1);
    return usage_error(command[0] == '-' ? "unknown option '%s'" : "unknown command '%s'", command);
}

int main(int argc, char **argv)
{
    int status = run(argc, argv);
    show_output();
    return status;
}
