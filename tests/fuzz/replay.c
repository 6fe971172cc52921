/*
 * A fuzz target without libFuzzer: replay CORPUS runs it on every file of a directory, then on random inputs, so that
 * what fuzzing has found stays found wherever the tests run.
 */
#include "../support.h"
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_BYTES = 1 << 16, RANDOM_INPUTS = 1500, RANDOM_BYTES = 400 };

static const char *corpus;

START_TEST(committed_inputs)
{
    static uint8_t bytes[MOST_BYTES];
    DIR *directory = opendir(corpus);
    ck_assert_msg(directory != NULL, "cannot open %s", corpus);
    size_t files = 0;
    for (const struct dirent *entry; (entry = readdir(directory));) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", corpus, entry->d_name);
        name_case("%s", path);
        FILE *file = fopen(path, "rb");
        ck_assert_msg(file != NULL, "cannot open %s", path);
        const size_t size = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        uint8_t *exact = malloc(size);
        ck_assert(exact || size == 0);
        if (size > 0)
            memcpy(exact, bytes, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        files++;
    }
    closedir(directory);
    note("%zu files", files);
    ck_assert_uint_gt(files, 0);
}
END_TEST

START_TEST(random_inputs)
{
    struct rng rng = rng_stream(77);
    for (size_t i = 0; i < scaled(RANDOM_INPUTS); i++) {
        uint8_t bytes[RANDOM_BYTES];
        const size_t size = rng_below(&rng, sizeof bytes);
        for (size_t k = 0; k < size; k++)
            bytes[k] = (uint8_t)rng_next(&rng);
        name_case("random input %zu", i);
        LLVMFuzzerTestOneInput(bytes, size);
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
        return 2;
    }
    corpus = argv[1];
    Suite *suite = suite_create("fuzz");
    tcase_add_test(add_case(suite, "corpus"), committed_inputs);
    tcase_add_test(add_case(suite, "random"), random_inputs);
    return run_suite(suite);
}
