/* read_floor.c - threads that sum their part of a buffer, as fast as memory gives it. Between two
 * reads they sleep: what is measured in between has the processor to itself. */
#include "read_floor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cli.h"

typedef struct worker {
    read_floor *owner;
    int index;
    pthread_t thread;
} worker;

struct read_floor {
    int threads;
    const uint64_t *data;
    size_t words;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    long generation;      /* under the mutex: counts the reads asked for; negative: end */
    atomic_int ready;     /* workers that are awake for the next read                   */
    atomic_int begun;     /* the read may begin: its generation                         */
    atomic_int waiting;   /* workers that have not finished the current read            */
    _Atomic uint64_t sum; /* keeps the loads alive */
    worker *workers;      /* [threads], the first is the caller */
};

void *read_floor_allocate(size_t bytes) {
    const size_t huge = (size_t)2 << 20;
    void *memory = NULL;
    if (posix_memalign(&memory, bytes >= 2 * huge ? huge : 64, bytes) != 0) {
        cli_message("out of memory: %zu bytes", bytes);
        return NULL;
    }
#if defined(MADV_HUGEPAGE)
    if (bytes >= 2 * huge)
        (void)madvise(memory, bytes / huge * huge, MADV_HUGEPAGE);
#endif
    return memory;
}

static void read_part(read_floor *f, int index) {
    size_t begin = f->words * (size_t)index / (size_t)f->threads;
    size_t end = f->words * (size_t)(index + 1) / (size_t)f->threads;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    size_t i = begin;
    for (; i + 4 <= end; i += 4) {
        a += f->data[i];
        b += f->data[i + 1];
        c += f->data[i + 2];
        d += f->data[i + 3];
    }
    for (; i < end; i++)
        a += f->data[i];
    atomic_fetch_add(&f->sum, a + b + c + d);
}

static void *worker_main(void *user) {
    worker *self = user;
    read_floor *f = self->owner;
    for (long seen = 0;;) {
        pthread_mutex_lock(&f->mutex);
        while (f->generation == seen)
            pthread_cond_wait(&f->wake, &f->mutex);
        seen = f->generation;
        pthread_mutex_unlock(&f->mutex);
        if (seen < 0)
            return NULL;
        atomic_fetch_add(&f->ready, 1);
        while (atomic_load(&f->begun) != (int)seen)
            ;
        read_part(f, self->index);
        atomic_fetch_sub(&f->waiting, 1);
    }
}

/* Returns the number of the read. */
static long wake_workers(read_floor *f, int end) {
    pthread_mutex_lock(&f->mutex);
    f->generation = end ? -1 : f->generation + 1;
    const long now = f->generation;
    pthread_cond_broadcast(&f->wake);
    pthread_mutex_unlock(&f->mutex);
    return now;
}

void read_floor_close(read_floor *f) {
    if (!f)
        return;
    wake_workers(f, 1);
    for (int i = 1; i < f->threads; i++)
        pthread_join(f->workers[i].thread, NULL);
    pthread_cond_destroy(&f->wake);
    pthread_mutex_destroy(&f->mutex);
    free(f->workers);
    free(f);
}

read_floor *read_floor_open(int threads) {
    read_floor *f = calloc(1, sizeof *f);
    worker *workers = calloc((size_t)threads, sizeof *workers);
    if (!f || !workers) {
        cli_message("out of memory");
        free(workers);
        free(f);
        return NULL;
    }
    f->workers = workers;
    pthread_mutex_init(&f->mutex, NULL);
    pthread_cond_init(&f->wake, NULL);
    for (f->threads = 1; f->threads < threads; f->threads++) {
        worker *w = &workers[f->threads];
        w->owner = f;
        w->index = f->threads;
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            cli_message("cannot start threads");
            read_floor_close(f);
            return NULL;
        }
    }
    return f;
}

double read_floor_time(read_floor *f, const void *data, size_t bytes) {
    f->data = data;
    f->words = bytes / sizeof *f->data;
    atomic_store(&f->waiting, f->threads - 1);
    atomic_store(&f->ready, 0);
    const long now = wake_workers(f, 0);
    while (atomic_load(&f->ready) < f->threads - 1)
        ;
    double started = cli_now(); /* waking up is not reading */
    atomic_store(&f->begun, (int)now);
    read_part(f, 0);
    while (atomic_load(&f->waiting) > 0)
        ;
    return cli_now() - started;
}

/* ---- caches ---- */

typedef uint64_t line __attribute__((vector_size(64)));

typedef struct cache_reader {
    pthread_t thread;
    const line *data;
    size_t lines;
    double bytes, seconds;
    uint64_t sum; /* keeps the loads alive */
} cache_reader;

#if defined(__x86_64__) && defined(__GLIBC__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t
read_lines(const line *data, size_t lines) {
    line a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 4 <= lines; i += 4) {
        a ^= data[i];
        b ^= data[i + 1];
        c ^= data[i + 2];
        d ^= data[i + 3];
    }
    a ^= b ^ c ^ d;
    return a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}

static void *read_again(void *user) {
    cache_reader *r = user;
    const double started = cli_now();
    do {
        for (int i = 0; i < 64; i++)
            r->sum += read_lines(r->data, r->lines);
        r->bytes += 64.0 * 64.0 * (double)(r->lines / 4 * 4);
        r->seconds = cli_now() - started;
    } while (r->seconds < 0.2);
    return NULL;
}

double read_floor_cache_rate(int threads, size_t bytes) {
    cache_reader *readers = calloc((size_t)threads, sizeof *readers);
    const size_t lines = (bytes + sizeof(line) - 1) / sizeof(line);
    line *data = read_floor_allocate((size_t)threads * lines * sizeof(line));
    double rate = 0;
    int started = 0;
    if (readers && data) {
        memset(data, 1, (size_t)threads * lines * sizeof(line));
        for (; started < threads; started++) {
            readers[started].data = data + (size_t)started * lines;
            readers[started].lines = lines;
            if (pthread_create(&readers[started].thread, NULL, read_again, &readers[started]) != 0)
                break;
        }
        if (started < threads)
            cli_message("cannot start threads");
        for (int i = 0; i < started; i++) {
            pthread_join(readers[i].thread, NULL);
            rate += readers[i].bytes / readers[i].seconds;
        }
    }
    free(readers);
    free(data);
    return started == threads ? rate : 0;
}
