/* registry.c - choosing a backend for a context. */
#include "registry.h"

#include "context.h"

ganq_status ganq__backend_open(ganq_context *ctx, const ganq__backend_list *list) {
    const int32_t wanted = ctx->options.device;
    ganq__message before;
    ganq__message_keep(&before);
    for (int i = 0; list->entries[i]; i++) {
        const ganq__backend *backend = list->entries[i];
        if (wanted != GANQ_DEVICE_AUTO && wanted != backend->kind)
            continue;
        const ganq_status status = backend->open(ctx);
        if (status == GANQ_OK) {
            ctx->backend = backend;
            return GANQ_OK;
        }
        if (wanted != GANQ_DEVICE_AUTO || status != GANQ_ERR_NO_DEVICE)
            return status;
        ganq__log(ctx, GANQ_LOG_INFO, "%s is not used: %s", backend->name, ganq_last_error());
        ganq__message_restore(&before);
    }
    if (wanted == GANQ_DEVICE_CUDA)
        GANQ_FAIL(GANQ_ERR_NO_DEVICE, "CUDA was asked for, but this library was built without it");
    GANQ_FAIL(GANQ_ERR_NO_DEVICE, "no device of kind %d", (int)wanted);
}
