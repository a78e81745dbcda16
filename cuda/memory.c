/* memory.c - memory of a GPU: allocated and freed in the order of the context's stream. */
#include <string.h>

#include "alloc.h"
#include "cuda.h"
#include "memory_ops.h"

/* Free on the device, and free in the context's pool. */
static void measure(const ganq__cuda *cuda, size_t *left, size_t *total) {
    uint64_t reserved = 0, used = 0;
    *left = *total = 0;
    if (cudaMemGetInfo(left, total) != cudaSuccess ||
        cudaMemPoolGetAttribute(cuda->pool, cudaMemPoolAttrReservedMemCurrent, &reserved) != cudaSuccess ||
        cudaMemPoolGetAttribute(cuda->pool, cudaMemPoolAttrUsedMemCurrent, &used) != cudaSuccess)
        (void)cudaGetLastError();
    *left += (size_t)(reserved - used);
}

static ganq_status cuda_allocate(ganq_context *ctx, size_t bytes, void **out) {
    ganq__cuda *cuda = ganq__cuda_of(ctx);
    void *memory = NULL;
    int entered;
    ganq_status status;
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    cudaError_t error = cudaMallocFromPoolAsync(&memory, bytes, cuda->pool, cuda->stream);
    if (error == cudaErrorMemoryAllocation) {
        /* What the pool keeps may lie in pieces that are too small: give them back and try again. */
        (void)cudaGetLastError();
        (void)cudaStreamSynchronize(cuda->stream);
        (void)cudaMemPoolTrimTo(cuda->pool, 0);
        error = cudaMallocFromPoolAsync(&memory, bytes, cuda->pool, cuda->stream);
    }
    status = ganq__cuda_status(error, "cudaMallocFromPoolAsync");
    if (status == GANQ_ERR_NO_MEMORY) {
        size_t left, total;
        measure(cuda, &left, &total);
        ganq__fail("%s: %zu bytes of its memory were asked for; %zu of %zu are free", ctx->device_name, bytes,
                   left, total);
    }
    if (status == GANQ_OK)
        *out = memory;
    ganq__cuda_leave(entered);
    return status;
}

/* Keeps `memory` to be freed when the recording has ended; the guard is held. */
static ganq_status postpone(ganq__cuda *cuda, void *memory) {
    if (cuda->released_count == cuda->released_capacity) {
        const int64_t capacity = 2 * cuda->released_capacity + 16;
        void **grown = ganq__realloc(cuda->released, (size_t)capacity, sizeof *grown);
        if (!grown)
            return GANQ_ERR_NO_MEMORY;
        cuda->released = grown;
        cuda->released_capacity = capacity;
    }
    cuda->released[cuda->released_count++] = memory;
    return GANQ_OK;
}

static void cuda_release(ganq_context *ctx, void *memory) {
    ganq__cuda *cuda = ganq__cuda_of(ctx);
    int entered;
    if (!memory)
        return;
    pthread_mutex_lock(&cuda->guard);
    /* Without room to remember it, it is lost until the context ends and its pool with it. */
    if (cuda->recording)
        (void)postpone(cuda, memory);
    else if (ganq__cuda_enter(ctx, &entered) == GANQ_OK) {
        (void)cudaFreeAsync(memory, cuda->stream);
        ganq__cuda_leave(entered);
    }
    pthread_mutex_unlock(&cuda->guard);
}

ganq_status ganq__cuda_record_begin(ganq_context *ctx) {
    ganq__cuda *cuda = ganq__cuda_of(ctx);
    int entered;
    ganq_status status;
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    pthread_mutex_lock(&cuda->guard);
    status = ganq__cuda_status(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
                               "cudaStreamBeginCapture");
    cuda->recording = status == GANQ_OK;
    pthread_mutex_unlock(&cuda->guard);
    ganq__cuda_leave(entered);
    return status;
}

ganq_status ganq__cuda_record_end(ganq_context *ctx, cudaGraph_t *out) {
    ganq__cuda *cuda = ganq__cuda_of(ctx);
    int entered;
    ganq_status status;
    *out = NULL;
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    pthread_mutex_lock(&cuda->guard);
    status = ganq__cuda_status(cudaStreamEndCapture(cuda->stream, out), "cudaStreamEndCapture");
    cuda->recording = 0;
    for (int64_t i = 0; i < cuda->released_count; i++)
        (void)cudaFreeAsync(cuda->released[i], cuda->stream);
    cuda->released_count = 0;
    pthread_mutex_unlock(&cuda->guard);
    ganq__cuda_leave(entered);
    return status;
}

/* wait: until the bytes have arrived. */
static ganq_status transfer(ganq_context *ctx, void *to, const void *from, size_t bytes,
                            enum cudaMemcpyKind kind, int wait) {
    ganq__cuda *cuda = ganq__cuda_of(ctx);
    int entered;
    ganq_status status = GANQ_OK;
    if (!bytes)
        return GANQ_OK;
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    GANQ_CUDA_TRY_GOTO(leave, cudaMemcpyAsync(to, from, bytes, kind, cuda->stream));
    if (wait)
        GANQ_CUDA_TRY_GOTO(leave, cudaStreamSynchronize(cuda->stream));
leave:
    ganq__cuda_leave(entered);
    return status;
}

/* A step's inputs go without waiting: the runtime has taken pageable bytes when it returns, and what
 * lies on this stack is pageable. Larger arrays may be the caller's pinned memory, which it reads later, as it does
 * pageable memory where the device reads that itself. */
static ganq_status cuda_upload(ganq_context *ctx, void *to, const void *from, size_t bytes) {
    char staged[64];
    if (bytes > sizeof staged || ganq__cuda_of(ctx)->reads_pageable)
        return transfer(ctx, to, from, bytes, cudaMemcpyHostToDevice, 1);
    memcpy(staged, from, bytes);
    return transfer(ctx, to, staged, bytes, cudaMemcpyHostToDevice, 0);
}
static ganq_status cuda_download(ganq_context *ctx, void *to, const void *from, size_t bytes) {
    return transfer(ctx, to, from, bytes, cudaMemcpyDeviceToHost, 1);
}
static ganq_status cuda_copy(ganq_context *ctx, void *to, const void *from, size_t bytes) {
    return transfer(ctx, to, from, bytes, cudaMemcpyDeviceToDevice, 0);
}

static int64_t cuda_available(ganq_context *ctx) {
    size_t left, total;
    int entered;
    if (ganq__cuda_enter(ctx, &entered) != GANQ_OK)
        return 0;
    measure(ganq__cuda_of(ctx), &left, &total);
    ganq__cuda_leave(entered);
    return (int64_t)left;
}

ganq_status ganq__cuda_workspace(ganq_context *ctx, ganq__cuda_purpose purpose, size_t bytes, void **out) {
    ganq__cuda *cuda = ganq__cuda_of(ctx);
    if (cuda->workspaces[purpose].bytes < bytes) {
        void *memory;
        if (cuda->recording)
            GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: a recorded step asks for %zu bytes of workspace, and has %zu",
                      ctx->device_name, bytes, cuda->workspaces[purpose].bytes);
        GANQ_TRY(cuda_allocate(ctx, bytes, &memory));
        cuda_release(ctx, cuda->workspaces[purpose].memory);
        cuda->workspaces[purpose].memory = memory;
        cuda->workspaces[purpose].bytes = bytes;
        cuda->generation++;
    }
    *out = cuda->workspaces[purpose].memory;
    return GANQ_OK;
}

const ganq__memory_ops ganq__memory_ops_cuda = {
    .allocate = cuda_allocate,
    .release = cuda_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .available = cuda_available,
};
