/* buffer.h - a growing run of bytes. */
#ifndef GANQ_BASE_BUFFER_H
#define GANQ_BASE_BUFFER_H

#include "alloc.h"

typedef struct ganq__buffer {
    char *data; /* always followed by a NUL once something was appended */
    size_t size, capacity;
} ganq__buffer;

ganq_status ganq__buffer_append(ganq__buffer *buffer, const void *data, size_t size);
ganq_status ganq__buffer_printf(ganq__buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void ganq__buffer_free(ganq__buffer *buffer); /* and zeroes it */

#endif
