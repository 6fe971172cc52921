/*
 * What every adapter is tested for.
 */
#ifndef XENT_TESTS_ADAPTERS_H
#define XENT_TESTS_ADAPTERS_H

#include "../support.h"

#include <xent/xent.h>

/* The numbers of threads to try. */
extern const size_t adapter_threads[];
extern const size_t adapter_thread_counts;

/* Calls of a few shapes have the same bits with this executor as without one. */
void check_adapter(const char *name, const xent_executor *executor);

/* Two threads at once that make calls with this executor get what they would get without it. */
void check_adapter_shared(const char *name, const xent_executor *executor);

/* All threads of this executor are really used: tasks can wait for each other. */
void check_tasks_at_once(const char *name, const xent_executor *executor);

/* parallel_for runs every task once, whether there are none, one or many. */
void check_parallel_for(const char *name, const xent_executor *executor);

#endif
