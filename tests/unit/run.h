/* Runs one test case as a program of its own, with TAP on standard output. */
#ifndef XENT_TESTS_UNIT_RUN_H
#define XENT_TESTS_UNIT_RUN_H

#include <check.h>
#include <stdlib.h>

static inline int run_case(const char *name, TCase *tests)
{
    tcase_set_timeout(tests, 0);
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
