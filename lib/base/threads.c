/* threads.c - the pool. One loop at a time: the caller publishes it, workers and caller draw items from an atomic
 * counter, the caller waits until the last worker has left the loop.
 *
 * Bounded spinning before sleep: the loops of a decode step follow each other within microseconds, and waking a sleeping
 * thread costs more than that; a worker that finds nothing for SPIN_SECONDS sleeps, so an idle process burns nothing. */
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "alloc.h"

#define SPIN_SECONDS 100e-6

struct ganq__pool {
    int threads; /* caller included */
    int running; /* workers started in this process */
    pid_t pid;   /* the process they run in */
    pthread_t *workers;            /* [threads] */
    struct worker_start *starts;   /* [threads] */
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    /* The current loop. `generation` grows by one per loop and is what sleepers and spinners watch. */
    atomic_ulong generation;
    atomic_int active;  /* workers that have not left the current loop */
    atomic_llong next;  /* next item */
    int64_t items;
    ganq__item_fn fn;
    void *user;
    int sleeping, waiting, quit; /* under mutex: workers asleep, caller asleep, the end */
    atomic_int busy;             /* a loop is running: a nested one runs serially */
};

/* What a worker is told when it starts. */
typedef struct worker_start {
    ganq__pool *pool;
    int index;
    unsigned long generation;
} worker_start;

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

double ganq__now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int ganq__cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

static void run_items(ganq__pool *pool, int worker) {
    const int64_t items = pool->items;
    for (;;) {
        const int64_t item = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (item >= items)
            return;
        pool->fn(pool->user, item, worker);
    }
}

/* Waits until the generation differs from `seen` or the pool ends; 0 when it ends. */
static int wait_for_work(ganq__pool *pool, unsigned long seen) {
    const double until = ganq__now() + SPIN_SECONDS;
    do {
        for (int i = 0; i < 64; i++) {
            if (atomic_load_explicit(&pool->generation, memory_order_acquire) != seen)
                return 1;
            relax();
        }
    } while (ganq__now() < until);
    pthread_mutex_lock(&pool->mutex);
    pool->sleeping++;
    while (atomic_load_explicit(&pool->generation, memory_order_acquire) == seen && !pool->quit)
        pthread_cond_wait(&pool->wake, &pool->mutex);
    pool->sleeping--;
    const int more = atomic_load_explicit(&pool->generation, memory_order_acquire) != seen;
    pthread_mutex_unlock(&pool->mutex);
    return more;
}

static void *worker_main(void *argument) {
    const worker_start start = *(const worker_start *)argument;
    ganq__pool *pool = start.pool;
    unsigned long seen = start.generation;
    while (wait_for_work(pool, seen)) {
        seen++; /* one loop at a time: the caller waits for every worker before the next */
        run_items(pool, start.index);
        if (atomic_fetch_sub_explicit(&pool->active, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool->mutex);
            if (pool->waiting)
                pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
    return NULL;
}

ganq_status ganq__pool_create(int threads, ganq__pool **out) {
    if (threads < 0 || threads > 4096)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "threads is %d; 0 (all CPUs) to 4096 are possible", threads);
    ganq__pool *pool = ganq__calloc(1, sizeof *pool);
    if (!pool)
        return GANQ_ERR_NO_MEMORY;
    pool->threads = threads ? threads : ganq__cpu_count();
    pool->workers = ganq__calloc((size_t)pool->threads, sizeof *pool->workers);
    pool->starts = ganq__calloc((size_t)pool->threads, sizeof *pool->starts);
    if (!pool->workers || !pool->starts) {
        ganq__free(pool->workers);
        ganq__free(pool->starts);
        ganq__free(pool);
        return GANQ_ERR_NO_MEMORY;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    *out = pool;
    return GANQ_OK;
}

static void stop_workers(ganq__pool *pool) {
    if (pool->pid != getpid())
        return; /* they live in the parent process */
    pthread_mutex_lock(&pool->mutex);
    pool->quit = 1;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->running; i++)
        pthread_join(pool->workers[i], NULL);
}

void ganq__pool_free(ganq__pool *pool) {
    if (!pool)
        return;
    if (pool->running)
        stop_workers(pool);
    if (!pool->pid || pool->pid == getpid()) { /* a child's copies may be in use by threads it has not got */
        pthread_mutex_destroy(&pool->mutex);
        pthread_cond_destroy(&pool->wake);
        pthread_cond_destroy(&pool->done);
    }
    ganq__free(pool->workers);
    ganq__free(pool->starts);
    ganq__free(pool);
}

int ganq__pool_threads(const ganq__pool *pool) { return pool ? pool->threads : 1; }

/* Starts the workers, again in a forked child. Fewer than asked for (a thread limit) is fine: the caller works as
 * well. */
static void ensure_workers(ganq__pool *pool) {
    if (pool->pid == getpid())
        return;
    pool->pid = getpid();
    pool->running = 0;
    pool->sleeping = pool->waiting = pool->quit = 0;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    for (int i = 0; i + 1 < pool->threads; i++) {
        pool->starts[i] = (worker_start){pool, i + 1, atomic_load(&pool->generation)};
        if (pthread_create(&pool->workers[i], NULL, worker_main, &pool->starts[i]) != 0)
            return;
        pool->running++;
    }
}

static void run_serially(int64_t items, ganq__item_fn fn, void *user) {
    for (int64_t item = 0; item < items; item++)
        fn(user, item, 0);
}

void ganq__parallel_for(ganq__pool *pool, int64_t items, ganq__item_fn fn, void *user) {
    if (!pool || pool->threads == 1 || items <= 1 ||
        atomic_exchange_explicit(&pool->busy, 1, memory_order_acquire)) {
        run_serially(items, fn, user);
        return;
    }
    ensure_workers(pool);
    pool->items = items;
    pool->fn = fn;
    pool->user = user;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->active, pool->running, memory_order_relaxed);
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    if (pool->sleeping)
        pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);

    run_items(pool, 0);

    const double until = ganq__now() + SPIN_SECONDS;
    while (atomic_load_explicit(&pool->active, memory_order_acquire) > 0 && ganq__now() < until)
        relax();
    if (atomic_load_explicit(&pool->active, memory_order_acquire) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pool->waiting = 1;
        while (atomic_load_explicit(&pool->active, memory_order_acquire) > 0)
            pthread_cond_wait(&pool->done, &pool->mutex);
        pool->waiting = 0;
        pthread_mutex_unlock(&pool->mutex);
    }
    atomic_store_explicit(&pool->busy, 0, memory_order_release);
}
