/* memory_ops.h - memory of a device.
 *
 * Arrays that the operations of a context take (dense, lut, model) lie in that context's memory: on a CPU any memory of
 * the process, on a GPU what `allocate` gave out. Host code never dereferences it there; `upload`, `download` and
 * `copy` go between. ctx->host_dense and ctx->solver always work on memory of the process.
 *
 * Work on a device runs in order: an operation may return before it has finished, whatever is called next on the same
 * context sees its results. */
#ifndef GANQ_BACKEND_MEMORY_OPS_H
#define GANQ_BACKEND_MEMORY_OPS_H

#include <stddef.h>

#include "ganq/context.h"

typedef struct ganq__memory_ops {
    int is_host; /* pointers are the process's own: upload and download are plain copies */
    /* bytes > 0, contents undefined, at least 64-byte aligned; NO_MEMORY says how much was asked for and how much
     * there is. */
    ganq_status (*allocate)(ganq_context *ctx, size_t bytes, void **out);
    /* NULL is fine. May be called from any thread, also while the context works: its work that was begun before may
     * still use the memory. */
    void (*release)(ganq_context *ctx, void *memory);
    ganq_status (*upload)(ganq_context *ctx, void *to, const void *from, size_t bytes); /* `from` may be reused then */
    ganq_status (*download)(ganq_context *ctx, void *to, const void *from, size_t bytes); /* waits for the result */
    ganq_status (*copy)(ganq_context *ctx, void *to, const void *from, size_t bytes);     /* inside the device */
    /* Bytes that allocate could still give out, about; NULL where nobody knows (hosts). */
    int64_t (*available)(ganq_context *ctx);
} ganq__memory_ops;

#endif
