/* memory.c - arrays in the memory of a context. */
#include "memory.h"

#include "context.h"
#include "dtype.h"

ganq_status ganq__memory_elements(ganq_context *ctx, int64_t rows, int64_t width, int32_t dtype,
                                  void **out) {
    size_t count, bytes;
    if (__builtin_mul_overflow((size_t)rows, (size_t)width, &count) ||
        __builtin_mul_overflow(count, ganq__dtype_size(dtype), &bytes))
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "out of memory: %lld x %lld elements of %s", (long long)rows,
                  (long long)width, ganq__dtype_name(dtype));
    return ctx->memory->allocate(ctx, bytes ? bytes : 1, out);
}

ganq_status ganq__memory_floats(ganq_context *ctx, int64_t rows, int64_t width, float **out) {
    void *memory;
    GANQ_TRY(ganq__memory_elements(ctx, rows, width, GANQ_DTYPE_F32, &memory));
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
