/* registry.h - the list of backends. lib/api/backends.c fills it; nothing below names a device. */
#ifndef GANQ_BACKEND_REGISTRY_H
#define GANQ_BACKEND_REGISTRY_H

#include "backend.h"

enum { GANQ__MAX_BACKENDS = 4 };

/* Best first, ends with NULL. */
typedef struct ganq__backend_list {
    const ganq__backend *entries[GANQ__MAX_BACKENDS + 1];
} ganq__backend_list;

/* The context's backend and operations for options.device: AUTO takes the first that opens and logs each one that does
 * not, any other kind must open. */
ganq_status ganq__backend_open(ganq_context *ctx, const ganq__backend_list *list);

#endif
