/*
 * Executors for tests: they run tasks in every order that an executor may, on this thread or on many, and watch what
 * the library asks of them.
 */
#ifndef XENT_TESTS_EXECUTORS_H
#define XENT_TESTS_EXECUTORS_H

#include "support.h"

#include <pthread.h>

enum order { IN_ORDER, REVERSED, SHUFFLED, AT_ONCE, ORDERS };

enum { MAX_WORKERS = 16 };

/* An executor for one call to the library, and what it has seen. It must stay where it is, and belongs to the thread
   that made it. */
struct watched {
    xent_executor executor;
    enum order order;
    size_t workers; /* for AT_ONCE: threads that run tasks, at most MAX_WORKERS */
    struct rng rng;
    pthread_t owner;
    bool running;
    size_t calls, most_tasks; /* how often parallel_for was called, and for how many tasks at most */
    const char *complaint;    /* the first thing that the library must not do, or NULL */
};

/* threads is what the executor claims; for AT_ONCE it has as many up to MAX_WORKERS. */
void watched_init(struct watched *watched, enum order order, size_t threads, uint64_t stream);

/* Any order, any number of threads, among them numbers past every processor's, and workers that are more or fewer. */
void watched_init_any(struct watched *watched, struct rng *rng);

/* For the name of a case. */
struct watched_text {
    char text[64];
};
struct watched_text watched_describe(const struct watched *watched);

/* Fails if the library has asked for something that it must not. */
void watched_expect_sane(const struct watched *watched);

/* Fails if it was used at all. */
void watched_expect_unused(const struct watched *watched);

#endif
