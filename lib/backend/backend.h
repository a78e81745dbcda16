/* backend.h - the seam: what a device is to the rest of the library. One table per device kind; the list of them is
 * filled by lib/api/backends.c, the one file that names them all. */
#ifndef GANQ_BACKEND_BACKEND_H
#define GANQ_BACKEND_BACKEND_H

#include "ganq/context.h"

typedef struct ganq__backend {
    const char *name; /* "cpu" */
    int32_t kind;     /* ganq_device_kind */
    /* Sets the context's operations (dense, lut, solver, model), device_state and device_name; the pool exists already.
     * NO_DEVICE with the reason when the device is not there. */
    ganq_status (*open)(ganq_context *ctx);
    void (*close)(ganq_context *ctx);
} ganq__backend;

#endif
