/*
 * xent/pthreadpool.h: a pool's threads change no bit.
 */
#include <xent/pthreadpool.h>

#include "adapters.h"

START_TEST(threads)
{
    pthreadpool_t pool = pthreadpool_create(adapter_threads[_i]);
    ck_assert_ptr_nonnull(pool);
    xent_executor executor = xent_pthreadpool_executor(pool);
    ck_assert_uint_eq(executor.threads, adapter_threads[_i]);
    check_parallel_for("pthreadpool", &executor);
    check_adapter("pthreadpool", &executor);
    pthreadpool_destroy(pool);
}
END_TEST

START_TEST(no_pool)
{
    xent_executor executor = xent_pthreadpool_executor(NULL);
    ck_assert_uint_eq(executor.threads, 1);
    check_parallel_for("no pthreadpool", &executor);
    check_adapter("no pthreadpool", &executor);
}
END_TEST

START_TEST(tasks_at_once)
{
    pthreadpool_t pool = pthreadpool_create(3);
    ck_assert_ptr_nonnull(pool);
    xent_executor executor = xent_pthreadpool_executor(pool);
    check_tasks_at_once("pthreadpool", &executor);
    pthreadpool_destroy(pool);
}
END_TEST

START_TEST(shared)
{
    pthreadpool_t pool = pthreadpool_create(3);
    ck_assert_ptr_nonnull(pool);
    xent_executor executor = xent_pthreadpool_executor(pool);
    check_adapter_shared("pthreadpool", &executor);
    pthreadpool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pthreadpool");
    TCase *test_case = add_case(suite, "pthreadpool");
    tcase_add_loop_test(test_case, threads, 0, (int)adapter_thread_counts);
    tcase_add_test(test_case, no_pool);
    tcase_add_test(test_case, tasks_at_once);
    tcase_add_test(test_case, shared);
    return run_suite(suite);
}
