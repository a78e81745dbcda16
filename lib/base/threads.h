/* threads.h - the library's own pool: parallel loops over independent items.
 *
 * Workers start at the first parallel call, spin for a bounded time between loops and then sleep. The pool remembers
 * its process id and rebuilds itself in a forked child. Which worker gets an item is not fixed: results must depend on
 * the item alone. A loop inside a loop on the same pool runs serially, as worker 0. */
#ifndef GANQ_BASE_THREADS_H
#define GANQ_BASE_THREADS_H

#include "status.h"

typedef struct ganq__pool ganq__pool;

/* item in [0, items), worker in [0, threads). */
typedef void (*ganq__item_fn)(void *user, int64_t item, int worker);

/* threads 0: the CPUs this process may use. */
ganq_status ganq__pool_create(int threads, ganq__pool **out);
void ganq__pool_free(ganq__pool *pool);
/* At least 1; NULL pool: 1. */
int ganq__pool_threads(const ganq__pool *pool);
/* Runs every item once and returns when all are done; the calling thread works too. NULL pool: serially. */
void ganq__parallel_for(ganq__pool *pool, int64_t items, ganq__item_fn fn, void *user);

/* CPUs this process may use (affinity), at least 1. */
int ganq__cpu_count(void);
/* Monotonic clock, seconds. */
double ganq__now(void);

#endif
