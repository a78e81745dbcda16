/* buffer.c - a growing run of bytes. */
#include "buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static ganq_status reserve(ganq__buffer *buffer, size_t more) {
    size_t needed;
    if (__builtin_add_overflow(buffer->size, more, &needed) || needed > PTRDIFF_MAX / 2)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "out of memory: a buffer of %zu bytes cannot grow by %zu",
                  buffer->size, more);
    needed++; /* the closing NUL */
    if (needed <= buffer->capacity)
        return GANQ_OK;
    size_t capacity = buffer->capacity ? 2 * buffer->capacity : 64;
    if (capacity < needed)
        capacity = needed;
    char *data = ganq__realloc(buffer->data, capacity, 1);
    if (!data)
        return GANQ_ERR_NO_MEMORY;
    buffer->data = data;
    buffer->capacity = capacity;
    return GANQ_OK;
}

ganq_status ganq__buffer_append(ganq__buffer *buffer, const void *data, size_t size) {
    GANQ_TRY(reserve(buffer, size));
    if (size)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = 0;
    return GANQ_OK;
}

ganq_status ganq__buffer_printf(ganq__buffer *buffer, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ganq_status status = length < 0 ? GANQ_ERR_INTERNAL : reserve(buffer, (size_t)length);
    if (status == GANQ_OK) {
        vsnprintf(buffer->data + buffer->size, (size_t)length + 1, format, again);
        buffer->size += (size_t)length;
    }
    va_end(again);
    return status;
}

void ganq__buffer_free(ganq__buffer *buffer) {
    ganq__free(buffer->data);
    *buffer = (ganq__buffer){0};
}
