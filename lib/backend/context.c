/* context.c - references, log, progress. */
#include "context.h"

#include <stdarg.h>
#include <stdio.h>

#include "alloc.h"

ganq_context *ganq__context_retain(ganq_context *ctx) {
    atomic_fetch_add_explicit(&ctx->references, 1, memory_order_relaxed);
    return ctx;
}

void ganq__context_release(ganq_context *ctx) {
    if (!ctx || atomic_fetch_sub_explicit(&ctx->references, 1, memory_order_acq_rel) > 1)
        return;
    ganq__context_detach_all(ctx);
    if (ctx->backend && ctx->backend->close)
        ctx->backend->close(ctx);
    ganq__pool_free(ctx->pool);
    ganq__free(ctx->workspace);
    ganq__free(ctx);
}

ganq_status ganq__context_workspace(ganq_context *ctx, size_t bytes, void **out) {
    if (bytes > ctx->workspace_bytes) {
        void *larger = ganq__malloc_aligned(bytes, 1);
        if (!larger)
            return GANQ_ERR_NO_MEMORY;
        ganq__free(ctx->workspace);
        ctx->workspace = larger;
        ctx->workspace_bytes = bytes;
    }
    *out = ctx->workspace;
    return GANQ_OK;
}

void ganq__log(ganq_context *ctx, ganq_log_level level, const char *format, ...) {
    if (!ctx->options.log || (int32_t)level > ctx->options.log_level)
        return;
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ctx->options.log(level, line, ctx->options.log_user);
}

void ganq__progress_enter(ganq_context *ctx, ganq_stage stage) {
    ganq__progress_state *p = &ctx->progress;
    if (p->depth++ > 0)
        return;
    p->stage = stage;
    p->name = "";
    p->done = p->total = 0;
    p->from = 0;
    p->to = 1;
    p->started = ganq__now();
    p->last_tick = 0;
}

void ganq__progress_leave(ganq_context *ctx) { ctx->progress.depth--; }

static ganq_status report(ganq_context *ctx, double fraction, double error) {
    ganq__progress_state *p = &ctx->progress;
    p->last_tick = ganq__now();
    if (!ctx->options.progress)
        return GANQ_OK;
    const double seconds = p->last_tick - p->started;
    const ganq_progress told = {
        .struct_size = sizeof told,
        .stage = p->stage,
        .name = p->name,
        .done = p->done,
        .total = p->total,
        .fraction = fraction,
        .seconds = seconds,
        .seconds_left = fraction > 0.005 ? seconds * (1 - fraction) / fraction : -1,
        .error = error,
    };
    if (ctx->options.progress(&told, ctx->options.progress_user))
        GANQ_FAIL(GANQ_ERR_CANCELED, "canceled by the progress callback%s%s", *p->name ? " at " : "", p->name);
    return GANQ_OK;
}

ganq_status ganq__progress_at(ganq_context *ctx, ganq_stage stage, const char *name, int64_t done,
                              int64_t total, double from, double to) {
    ganq__progress_state *p = &ctx->progress;
    p->stage = stage;
    p->name = name;
    p->done = done;
    p->total = total;
    p->from = from;
    p->to = to;
    return report(ctx, from, -1);
}

ganq_status ganq__progress_tick(ganq_context *ctx, double fraction) {
    ganq__progress_state *p = &ctx->progress;
    if (p->depth == 0 || ganq__now() - p->last_tick < 0.05)
        return GANQ_OK;
    return report(ctx, p->from + (p->to - p->from) * fraction, -1);
}

ganq_status ganq__progress_layer_done(ganq_context *ctx, int64_t done, double error) {
    ctx->progress.done = done;
    return report(ctx, ctx->progress.to, error);
}
