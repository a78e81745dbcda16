/* attachment.c - attachments stand in two lists, their object's and their context's. */
#include "attachment.h"

#include <pthread.h>

#include "alloc.h"
#include "context.h"

typedef struct ganq__attachment {
    ganq__attachments *object;
    ganq_context *ctx;
    void *data;
    ganq__detach_fn detach;
    struct ganq__attachment *next_of_object, *next_of_context;
} attachment;

/* Of all lists: one that is changed belongs to two owners who know nothing of each other. */
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

static attachment *find(const ganq__attachments *object, const ganq_context *ctx) {
    attachment *a = object->first;
    while (a && a->ctx != ctx)
        a = a->next_of_object;
    return a;
}

void *ganq__attachment_find(const ganq__attachments *object, const ganq_context *ctx) {
    pthread_mutex_lock(&guard);
    const attachment *a = find(object, ctx);
    pthread_mutex_unlock(&guard);
    return a ? a->data : NULL;
}

ganq_status ganq__attach(ganq__attachments *object, ganq_context *ctx, void *data,
                         ganq__detach_fn detach) {
    attachment *a;
    GANQ_ALLOC(a, 1);
    pthread_mutex_lock(&guard);
    *a = (attachment){object, ctx, data, detach, object->first, ctx->attachments.first};
    object->first = a;
    ctx->attachments.first = a;
    pthread_mutex_unlock(&guard);
    return GANQ_OK;
}

/* Out of both lists, data and itself freed; the caller holds the guard. */
static void remove_locked(attachment *a) {
    attachment **at = &a->object->first;
    while (*at != a)
        at = &(*at)->next_of_object;
    *at = a->next_of_object;
    at = &a->ctx->attachments.first;
    while (*at != a)
        at = &(*at)->next_of_context;
    *at = a->next_of_context;
    a->detach(a->ctx, a->data);
    ganq__free(a);
}

void ganq__detach(ganq__attachments *object, ganq_context *ctx) {
    pthread_mutex_lock(&guard);
    attachment *a = find(object, ctx);
    if (a)
        remove_locked(a);
    pthread_mutex_unlock(&guard);
}

void ganq__detach_all(ganq__attachments *object) {
    pthread_mutex_lock(&guard);
    while (object->first)
        remove_locked(object->first);
    pthread_mutex_unlock(&guard);
}

void ganq__context_detach_all(ganq_context *ctx) {
    pthread_mutex_lock(&guard);
    while (ctx->attachments.first)
        remove_locked(ctx->attachments.first);
    pthread_mutex_unlock(&guard);
}
