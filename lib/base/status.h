/* status.h - how a call fails inside the library: one message, written once, at the deepest place that knows. */
#ifndef GANQ_BASE_STATUS_H
#define GANQ_BASE_STATUS_H

#include "ganq/common.h"

/* Sets this thread's message. */
void ganq__fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Puts "prefix: " in front of this thread's message: for callers that know the file or the layer, where the
 * deepest place only knew the detail. */
void ganq__fail_prefix(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* This thread's message, put back after an attempt whose failure is not the call's. */
typedef struct ganq__message {
    char text[1024];
} ganq__message;
void ganq__message_keep(ganq__message *kept);
void ganq__message_restore(const ganq__message *kept);

#define GANQ_FAIL(code, ...)                                                                       \
    do {                                                                                           \
        ganq__fail(__VA_ARGS__);                                                                   \
        return (code);                                                                             \
    } while (0)
#define GANQ_FAIL_GOTO(label, code, ...)                                                           \
    do {                                                                                           \
        ganq__fail(__VA_ARGS__);                                                                   \
        status = (code);                                                                           \
        goto label;                                                                                \
    } while (0)
#define GANQ_TRY(expr)                                                                             \
    do {                                                                                           \
        ganq_status try_status_ = (expr);                                                          \
        if (try_status_ != GANQ_OK)                                                                \
            return try_status_;                                                                    \
    } while (0)
/* Needs a variable `ganq_status status`. Labels are named for what they undo. */
#define GANQ_TRY_GOTO(label, expr)                                                                 \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (status != GANQ_OK)                                                                     \
            goto label;                                                                            \
    } while (0)

/* Copies a caller's size-first struct into `ours` (size bytes, zeroed first): an older caller's is padded with zeros,
 * a newer caller's unknown tail must be zero. theirs NULL: all zeros. `what` names the struct in messages. */
ganq_status ganq__options_read(void *ours, size_t size, const void *theirs, const char *what);
/* Writes min(theirs, ours) bytes of an output struct whose struct_size the caller has set, and leaves struct_size. */
ganq_status ganq__struct_write(void *theirs, const void *ours, size_t size, const char *what);

#endif
