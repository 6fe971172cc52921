/*
 * What a peer in C is: a shared object with the four functions below. The harness calls them from one thread.
 *
 * A peer has at most one batch shape open at a time. It does its work on the executor that it was opened with, and
 * nowhere else, so that every peer runs on the same threads.
 */
#ifndef XENT_BENCH_PEERS_PEER_H
#define XENT_BENCH_PEERS_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_API __attribute__((visibility("default")))

enum {
    PEER_ALIGNMENT = 64, /* of every array's first element */
    PEER_SLACK = 64      /* bytes that may be read, but not written, beyond an array's last element */
};

/* Calls task(argument, i) for every i in [0, tasks) on its threads, and returns when all have returned. */
struct peer_executor {
    void (*parallel_for)(void *context, void (*task)(void *argument, size_t index), void *argument, size_t tasks);
    void *context;
    size_t threads;
};

struct peer_setup {
    size_t rows, classes;
    const struct peer_executor *executor; /* outlives the peer */
};

/* One call on a batch of the shape that was opened. */
struct peer_call {
    const float *logits;    /* [rows][classes] */
    const int32_t *targets; /* [rows], all valid */
    float *grad;            /* [rows][classes] or NULL (loss only); may be the logits */
    float *losses;          /* [rows]: always written, each row's own loss */
    float *mean;            /* the mean of the losses; not needed if each */
    bool each;              /* the gradient is that of each row's own loss, instead of the mean's */
};

/* The name and version of the library that does the work. */
PEER_API const char *peer_version(void);

/* Makes ready for batches of one shape: everything that is allocated is allocated here. NULL, or the reason why not. */
PEER_API const char *peer_open(const struct peer_setup *setup);

PEER_API void peer_run(const struct peer_call *call);

/* Frees what peer_open made. */
PEER_API void peer_close(void);

#endif
