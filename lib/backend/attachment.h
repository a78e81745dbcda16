/* attachment.h - what a context made of an object: the copy of a layer or of a model's weights in
 * the memory of a device.
 *
 * Object and context are freed independently, from any threads; the attachment goes with the first
 * of the two. At most one per object and context; it is made and looked up by the thread that uses
 * the context. */
#ifndef GANQ_BACKEND_ATTACHMENT_H
#define GANQ_BACKEND_ATTACHMENT_H

#include "ganq/context.h"

/* In each object and each context; zero: none. */
typedef struct ganq__attachments {
    struct ganq__attachment *first;
} ganq__attachments;

/* Frees data. Called with the attachments locked: it must not end an object that has any. */
typedef void (*ganq__detach_fn)(ganq_context *ctx, void *data);

/* What is attached for ctx; NULL: nothing. */
void *ganq__attachment_find(const ganq__attachments *object, const ganq_context *ctx);
/* data is not NULL; on failure (NO_MEMORY) it stays the caller's. */
ganq_status ganq__attach(ganq__attachments *object, ganq_context *ctx, void *data,
                         ganq__detach_fn detach);
/* Gives up what is attached for ctx, if anything. */
void ganq__detach(ganq__attachments *object, ganq_context *ctx);
/* The object's end, the context's end. */
void ganq__detach_all(ganq__attachments *object);
void ganq__context_detach_all(ganq_context *ctx);

#endif
