/* guard.h - memory that ends where the next page cannot be touched: reading one byte too far is a
 * fault. */
#ifndef GANQ_TESTS_GUARD_H
#define GANQ_TESTS_GUARD_H

#include <check.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct guarded {
    void *map;
    size_t map_size;
    void *data; /* size bytes that end at the forbidden page */
} guarded;

static inline guarded guard_new(size_t size) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (size + page - 1) / page * page;
    guarded g = {NULL, body + page, NULL};
    g.map = mmap(NULL, g.map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(g.map, MAP_FAILED);
    ck_assert_int_eq(mprotect((char *)g.map + body, page, PROT_NONE), 0);
    g.data = (char *)g.map + body - size;
    return g;
}

static inline void guard_free(guarded *g) {
    munmap(g->map, g->map_size);
}

#endif
