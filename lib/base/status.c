/* status.c - the thread's message, and size-first structs. */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_CAPACITY = sizeof(ganq__message) };
/* Far above any struct of this interface: a larger struct_size was never set. */
enum { MAX_STRUCT_SIZE = 4096 };

static _Thread_local char message[MESSAGE_CAPACITY];

void ganq__fail(const char *format, ...) {
    /* The arguments may point into the old message. */
    char text[MESSAGE_CAPACITY];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, sizeof text);
}

void ganq__fail_prefix(const char *format, ...) {
    char text[MESSAGE_CAPACITY];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0 || length + 3 > MESSAGE_CAPACITY)
        return;
    size_t rest = strlen(message), room = MESSAGE_CAPACITY - 3 - (size_t)length;
    if (rest > room)
        rest = room;
    memcpy(text + length, ": ", 2);
    memcpy(text + length + 2, message, rest);
    text[(size_t)length + 2 + rest] = 0;
    memcpy(message, text, sizeof text);
}

void ganq__message_keep(ganq__message *kept) { memcpy(kept->text, message, sizeof message); }
void ganq__message_restore(const ganq__message *kept) { memcpy(message, kept->text, sizeof message); }

const char *ganq_last_error(void) { return message; }

const char *ganq_status_string(ganq_status status) {
    switch (status) {
    case GANQ_OK:
        return "ok";
    case GANQ_ERR_INVALID_ARG:
        return "invalid argument";
    case GANQ_ERR_NO_MEMORY:
        return "out of memory";
    case GANQ_ERR_IO:
        return "input/output error";
    case GANQ_ERR_FORMAT:
        return "malformed file";
    case GANQ_ERR_UNSUPPORTED:
        return "unsupported";
    case GANQ_ERR_NUMERIC:
        return "numeric error";
    case GANQ_ERR_CANCELED:
        return "canceled";
    case GANQ_ERR_NO_DEVICE:
        return "no device";
    case GANQ_ERR_DEVICE:
        return "device error";
    case GANQ_ERR_NOT_FOUND:
        return "not found";
    case GANQ_ERR_EXISTS:
        return "already exists";
    case GANQ_ERR_INTERNAL:
        return "internal error";
    }
    return "unknown status";
}

ganq_status ganq__options_read(void *ours, size_t size, const void *theirs, const char *what) {
    memset(ours, 0, size);
    if (theirs) {
        uint32_t their_size;
        memcpy(&their_size, theirs, sizeof their_size);
        if (their_size < sizeof their_size || their_size > MAX_STRUCT_SIZE)
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: struct_size is %u; set it to sizeof(%s)", what,
                      (unsigned)their_size, what);
        const unsigned char *bytes = theirs;
        for (size_t i = size; i < their_size; i++)
            if (bytes[i])
                GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                          "%s: byte %zu is set, but this library (%s) knows only %zu bytes of it", what,
                          i, ganq_version(), size);
        memcpy(ours, theirs, their_size < size ? their_size : size);
    }
    const uint32_t our_size = (uint32_t)size;
    memcpy(ours, &our_size, sizeof our_size);
    return GANQ_OK;
}

ganq_status ganq__struct_write(void *theirs, const void *ours, size_t size, const char *what) {
    uint32_t their_size;
    if (!theirs)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s is NULL", what);
    memcpy(&their_size, theirs, sizeof their_size);
    if (their_size < sizeof their_size || their_size > MAX_STRUCT_SIZE)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: struct_size is %u; set it to sizeof(%s)", what,
                  (unsigned)their_size, what);
    const size_t common = their_size < size ? their_size : size;
    memcpy((char *)theirs + sizeof their_size, (const char *)ours + sizeof their_size,
           common - sizeof their_size);
    return GANQ_OK;
}
