/* memory.c - arrays in the memory of a context. */
#include "memory.h"

#include "context.h"

ganq_status ganq__memory_floats(ganq_context *ctx, int64_t rows, int64_t width, float **out) {
    size_t count, bytes;
    void *memory;
    if (__builtin_mul_overflow((size_t)rows, (size_t)width, &count) ||
        __builtin_mul_overflow(count, sizeof(float), &bytes))
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "out of memory: %lld x %lld floats", (long long)rows,
                  (long long)width);
    GANQ_TRY(ctx->memory->allocate(ctx, bytes ? bytes : 1, &memory));
    *out = memory;
    return GANQ_OK;
}

ganq_status ganq__memory_copy_of(ganq_context *ctx, const void *data, size_t bytes, void **out) {
    void *memory;
    GANQ_TRY(ctx->memory->allocate(ctx, bytes, &memory));
    const ganq_status status = ctx->memory->upload(ctx, memory, data, bytes);
    if (status != GANQ_OK) {
        ctx->memory->release(ctx, memory);
        return status;
    }
    *out = memory;
    return GANQ_OK;
}

void ganq__memory_release(ganq_context *ctx, void *memory) {
    if (memory)
        ctx->memory->release(ctx, memory);
}

int ganq__memory_is_host(const ganq_context *ctx) {
    return ctx->memory->is_host;
}
