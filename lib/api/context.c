/* context.c - creating and freeing contexts. */
#include "ganq/context.h"

#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "backends.h"
#include "context.h"

/* FAST or EXACT; the environment decides where the caller does not. */
static ganq_status choose_numerics(int32_t *numerics) {
    const char *word = getenv("GANQ_NUMERICS");
    const int is_exact = word && !strcmp(word, "exact");
    if (word && *word && !is_exact && strcmp(word, "fast") != 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "GANQ_NUMERICS=%s is unknown (known: fast, exact)", word);
    if (*numerics == GANQ_NUMERICS_DEFAULT)
        *numerics = is_exact ? GANQ_NUMERICS_EXACT : GANQ_NUMERICS_FAST;
    return GANQ_OK;
}

ganq_status ganq_context_create(const ganq_context_options *options, ganq_context **out) {
    ganq_context_options o;
    if (!out)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_context_create: out is NULL");
    GANQ_TRY(ganq__options_read(&o, sizeof o, options, "ganq_context_options"));
    if (o.device < GANQ_DEVICE_AUTO || o.device > GANQ_DEVICE_CUDA)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_context_options: device %d is none of ganq_device_kind",
                  (int)o.device);
    if (o.device_index < 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_context_options: device_index is %d", (int)o.device_index);
    if (o.numerics < GANQ_NUMERICS_DEFAULT || o.numerics > GANQ_NUMERICS_EXACT)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_context_options: numerics %d is none of ganq_numerics",
                  (int)o.numerics);
    if (o.log_level < 0 || o.log_level > GANQ_LOG_DEBUG)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_context_options: log_level %d is none of ganq_log_level",
                  (int)o.log_level);
    if (o.memory_budget_bytes < 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_context_options: memory_budget_bytes is %lld",
                  (long long)o.memory_budget_bytes);
    GANQ_TRY(choose_numerics(&o.numerics));
    if (!o.log_level)
        o.log_level = GANQ_LOG_WARNING;

    ganq_context *ctx = ganq__calloc(1, sizeof *ctx);
    if (!ctx)
        return GANQ_ERR_NO_MEMORY;
    atomic_init(&ctx->references, 1);
    ctx->options = o;
    ctx->progress.name = "";
    ganq_status status = ganq__pool_create(o.threads, &ctx->pool);
    if (status == GANQ_OK)
        status = ganq__backend_open(ctx, &ganq__backends);
    if (status != GANQ_OK) {
        ganq__context_release(ctx);
        return status;
    }
    *out = ctx;
    return GANQ_OK;
}

void ganq_context_free(ganq_context *ctx) {
    if (!ctx)
        return;
    /* What was made from it may live on, but the caller's pointers may not. */
    ctx->options.log = NULL;
    ctx->options.progress = NULL;
    ganq__context_release(ctx);
}

const char *ganq_context_device_name(const ganq_context *ctx) { return ctx ? ctx->device_name : ""; }

int32_t ganq_context_threads(const ganq_context *ctx) { return ctx ? ganq__pool_threads(ctx->pool) : 0; }

int32_t ganq_context_numerics(const ganq_context *ctx) { return ctx ? ctx->options.numerics : 0; }
