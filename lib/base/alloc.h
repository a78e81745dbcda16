/* alloc.h - memory: sizes are checked for overflow, failures become GANQ_ERR_NO_MEMORY with the size in words. */
#ifndef GANQ_BASE_ALLOC_H
#define GANQ_BASE_ALLOC_H

#include "status.h"

/* All of these set the message when they return NULL. count 0 gives a valid pointer. Freed with ganq__free. */
void *ganq__malloc(size_t count, size_t size);
void *ganq__calloc(size_t count, size_t size);
/* NULL leaves `old` as it was. */
void *ganq__realloc(void *old, size_t count, size_t size);
/* 64-byte aligned, not zeroed; from 4 MB on in huge pages where the system has them. Freed with ganq__free, too. */
void *ganq__malloc_aligned(size_t count, size_t size);
char *ganq__strdup(const char *text);
/* length bytes and a closing NUL. */
char *ganq__strndup(const char *text, size_t length);
char *ganq__format(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ganq__free(void *memory);

/* Tests: the n-th allocation from now fails (1 = the next one), once; 0: never. Process-wide. */
void ganq__alloc_fail_after(int64_t n);
/* Tests: allocations made since the last call of ganq__alloc_fail_after. */
int64_t ganq__alloc_count(void);

/* p = ganq__malloc(...) or return NO_MEMORY. */
#define GANQ_ALLOC(p, count)                                                                       \
    do {                                                                                           \
        (p) = ganq__malloc((count), sizeof *(p));                                                  \
        if (!(p))                                                                                  \
            return GANQ_ERR_NO_MEMORY;                                                             \
    } while (0)
/* The same, 64-byte aligned or zeroed, leaving through a label. */
#define GANQ_ALLOC_GOTO(label, p, count)                                                           \
    do {                                                                                           \
        (p) = ganq__malloc_aligned((count), sizeof *(p));                                          \
        if (!(p)) {                                                                                \
            status = GANQ_ERR_NO_MEMORY;                                                           \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)
#define GANQ_CALLOC_GOTO(label, p, count)                                                          \
    do {                                                                                           \
        (p) = ganq__calloc((count), sizeof *(p));                                                  \
        if (!(p)) {                                                                                \
            status = GANQ_ERR_NO_MEMORY;                                                           \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)

#endif
