/* alloc.c - checked allocation, with a hook that makes the n-th allocation fail. */
#include "alloc.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

static atomic_llong fail_countdown; /* 0: never */
static atomic_llong allocations;

void ganq__alloc_fail_after(int64_t n) {
    atomic_store(&fail_countdown, n);
    atomic_store(&allocations, 0);
}

int64_t ganq__alloc_count(void) { return atomic_load(&allocations); }

/* Bytes to ask for, or 0 when the request fails; never 0 for an empty request. */
static size_t checked_bytes(size_t count, size_t size) {
    size_t bytes;
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) > 0 &&
        atomic_fetch_sub(&fail_countdown, 1) == 1) {
        ganq__fail("out of memory (simulated)");
        return 0;
    }
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > (size_t)PTRDIFF_MAX - 64) {
        ganq__fail("out of memory: %zu elements of %zu bytes do not fit the address space", count, size);
        return 0;
    }
    return bytes ? bytes : 1;
}

static void *checked_result(void *memory, size_t bytes) {
    if (!memory)
        ganq__fail("out of memory: %zu bytes", bytes);
    return memory;
}

void *ganq__malloc(size_t count, size_t size) {
    const size_t bytes = checked_bytes(count, size);
    return bytes ? checked_result(malloc(bytes), bytes) : NULL;
}

void *ganq__calloc(size_t count, size_t size) {
    const size_t bytes = checked_bytes(count, size);
    return bytes ? checked_result(calloc(1, bytes), bytes) : NULL;
}

void *ganq__realloc(void *old, size_t count, size_t size) {
    const size_t bytes = checked_bytes(count, size);
    return bytes ? checked_result(realloc(old, bytes), bytes) : NULL;
}

void *ganq__malloc_aligned(size_t count, size_t size) {
    const size_t bytes = checked_bytes(count, size);
    if (!bytes)
        return NULL;
    void *memory = NULL;
    if (posix_memalign(&memory, bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64, bytes) != 0)
        memory = NULL;
#if defined(MADV_HUGEPAGE)
    /* Of whole pages only, so that nothing is resident that was not asked for. Reading 8 MB once takes
     * 0.26 ms from huge pages, 0.30 from small ones (Zen 4, 2 threads). Advice: may be refused. */
    if (memory && bytes >= 2 * HUGE_PAGE)
        (void)madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return checked_result(memory, bytes);
}

char *ganq__strndup(const char *text, size_t length) {
    char *copy = ganq__malloc(length + 1, 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = 0;
    }
    return copy;
}

char *ganq__strdup(const char *text) { return ganq__strndup(text, strlen(text)); }

char *ganq__format(const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : ganq__malloc((size_t)length + 1, 1);
    if (text)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void ganq__free(void *memory) { free(memory); }
