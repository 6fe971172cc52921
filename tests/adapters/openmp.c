/*
 * xent/openmp.h: OpenMP's threads change no bit.
 */
#include <xent/openmp.h>

#include "adapters.h"

START_TEST(threads)
{
    xent_executor executor = xent_openmp_executor((int)adapter_threads[_i]);
    ck_assert_uint_eq(executor.threads, adapter_threads[_i]);
    check_parallel_for("OpenMP", &executor);
    check_adapter("OpenMP", &executor);
}
END_TEST

START_TEST(default_threads)
{
    static const int limits[] = {5, 2, 1};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        omp_set_num_threads(limits[i]);
        xent_executor none = xent_openmp_executor(0), negative = xent_openmp_executor(-3);
        ck_assert_uint_eq(none.threads, (size_t)limits[i]);
        ck_assert_uint_eq(negative.threads, (size_t)limits[i]);
        check_parallel_for("OpenMP by default", &none);
    }
}
END_TEST

START_TEST(tasks_at_once)
{
    omp_set_dynamic(0);
    xent_executor executor = xent_openmp_executor(3);
    check_tasks_at_once("OpenMP", &executor);
}
END_TEST

START_TEST(shared)
{
    xent_executor executor = xent_openmp_executor(3);
    check_adapter_shared("OpenMP", &executor);
}
END_TEST

/* A parallel region inside another one has, by default, one thread. */
START_TEST(inside_a_region)
{
    xent_executor executor = xent_openmp_executor(2);
    int wrong = 0;
    name_case("OpenMP, inside a region");
#pragma omp parallel num_threads(3) reduction(+ : wrong)
    {
        float logits[3 * 5000], loss, expected;
        int32_t targets[5000];
        for (size_t i = 0; i < 3 * 5000; i++)
            logits[i] = (float)(i % 11);
        for (size_t i = 0; i < 5000; i++)
            targets[i] = (int32_t)(i % 3);
        xent_options options = XENT_OPTIONS_INIT;
        wrong += xent_fused_f32(logits, targets, 5000, 3, &expected, NULL, &options) != XENT_OK;
        options.executor = &executor;
        wrong += xent_fused_f32(logits, targets, 5000, 3, &loss, NULL, &options) != XENT_OK;
        wrong += float_bits(loss) != float_bits(expected);
    }
    ck_assert_int_eq(wrong, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("openmp");
    TCase *test_case = add_case(suite, "openmp");
    tcase_add_loop_test(test_case, threads, 0, (int)adapter_thread_counts);
    tcase_add_test(test_case, default_threads);
    tcase_add_test(test_case, tasks_at_once);
    tcase_add_test(test_case, shared);
    tcase_add_test(test_case, inside_a_region);
    return run_suite(suite);
}
