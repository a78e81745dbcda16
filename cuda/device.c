/* device.c - NVIDIA GPUs as a backend: which devices there are, opening and closing one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "code.h"
#include "cpu.h"
#include "cuda.h"
#include "driver.h"
#include "lut_gemm.h"
#include "memory_ops.h"

enum {
    OLDEST_SM = 80,         /* that the kernels run on: bf16 and asynchronous copies */
    DEPENDENT_SM = 90,      /* code from there on has what dependent launches need */
    DEPENDENT_CUDA = 12030, /* graphs hold dependent launches from here on */
};

ganq_status ganq__cuda_status(cudaError_t error, const char *call) {
    if (error == cudaSuccess)
        return GANQ_OK;
    /* Errors that do not break the device are taken back, so that the next call starts clean. */
    (void)cudaGetLastError();
    const int length = (int)strcspn(call, "(");
    ganq__fail("%.*s: %s (%s)", length, call, cudaGetErrorString(error), cudaGetErrorName(error));
    switch (error) {
    case cudaErrorMemoryAllocation:
        return GANQ_ERR_NO_MEMORY;
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorDevicesUnavailable:
        return GANQ_ERR_NO_DEVICE;
    default:
        return GANQ_ERR_DEVICE;
    }
}

/* "12.4" of 12040. */
static const char *version_text(int version, char text[16]) {
    snprintf(text, 16, "%d.%d", version / 1000, version % 1000 / 10);
    return text;
}

/* How many devices there are; none is NO_DEVICE with the reason. The runtime answers "driver
 * insufficient" also where there is no driver at all; the driver's version tells them apart. */
static ganq_status count_devices(int *count) {
    int driver = 0, runtime = 0;
    char have[16], need[16];
    const cudaError_t error = cudaGetDeviceCount(count);
    (void)cudaGetLastError();
    if (error == cudaSuccess && *count > 0)
        return GANQ_OK;
    if (error == cudaSuccess || error == cudaErrorNoDevice)
        GANQ_FAIL(GANQ_ERR_NO_DEVICE, "no NVIDIA GPU is visible to this process (the driver is there; "
                                      "CUDA_VISIBLE_DEVICES may hide devices)");
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (error == cudaErrorInsufficientDriver && driver == 0)
        GANQ_FAIL(GANQ_ERR_NO_DEVICE, "no NVIDIA driver was found (libcuda.so.1); this library needs one for "
                                      "CUDA %s or later",
                  version_text(runtime / 1000 * 1000, need));
    if (error == cudaErrorInsufficientDriver)
        GANQ_FAIL(GANQ_ERR_NO_DEVICE,
                  "the NVIDIA driver is too old: it runs CUDA %s, this library was built with CUDA %s",
                  version_text(driver, have), version_text(runtime, need));
    GANQ_FAIL(GANQ_ERR_NO_DEVICE, "CUDA cannot start: %s (%s)", cudaGetErrorString(error),
              cudaGetErrorName(error));
}

/* Whether the error says that nothing of what was built runs on the device. */
static int is_no_code(cudaError_t error) {
    switch (error) {
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidPtx:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilationDisabled:
        return 1;
    default:
        return 0;
    }
}

/* What runs on the device, which may be made from PTX that is older than it. */
static ganq_status open_code(const ganq_context *ctx, ganq__cuda *cuda) {
    int code = 0, driver = 0, entered;
    GANQ_CUDA_TRY(cudaDriverGetVersion(&driver));
    GANQ_TRY(ganq__cuda_primary_context(cuda->device, &cuda->context));
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    const cudaError_t error = ganq__cuda_code(&code);
    const ganq_status status = ganq__cuda_status(error, "cudaFuncGetAttributes");
    ganq__cuda_leave(entered);
    if (is_no_code(error))
        GANQ_FAIL(GANQ_ERR_NO_DEVICE,
                  "%s: nothing of this library runs there; it was built for compute capability %s: %s (%s)",
                  ctx->device_name, GANQ_BUILT_FOR, cudaGetErrorString(error), cudaGetErrorName(error));
    cuda->dependent = code >= DEPENDENT_SM && CUDART_VERSION >= DEPENDENT_CUDA && driver >= DEPENDENT_CUDA;
    return status;
}

/* Fills in the state and the context's name for its device. */
static ganq_status open_device(ganq_context *ctx, ganq__cuda *cuda) {
    struct cudaDeviceProp prop;
    int count = 0, pools = 0;
    GANQ_TRY(count_devices(&count));
    if (ctx->options.device_index >= count)
        GANQ_FAIL(GANQ_ERR_NO_DEVICE, "CUDA device %d was asked for; there %s %d (0..%d)",
                  (int)ctx->options.device_index, count == 1 ? "is" : "are", count, count - 1);
    cuda->device = ctx->options.device_index;
    GANQ_CUDA_TRY(cudaGetDeviceProperties(&prop, cuda->device));
    cuda->sm = 10 * prop.major + prop.minor;
    cuda->multiprocessors = prop.multiProcessorCount;
    cuda->most_shared = (int)prop.sharedMemPerBlockOptin;
    const char *fuse = getenv("GANQ_CUDA_FUSE");
    cuda->fuse = !fuse ? 1 : !strcmp(fuse, "0") ? 0 : !strcmp(fuse, "all") ? 2 : 1;
    if (cuda->sm < OLDEST_SM)
        GANQ_FAIL(GANQ_ERR_NO_DEVICE,
                  "CUDA device %d (%s) has compute capability %d.%d; %d.%d or later is needed",
                  cuda->device, prop.name, prop.major, prop.minor, OLDEST_SM / 10, OLDEST_SM % 10);
    GANQ_CUDA_TRY(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, cuda->device));
    if (!pools)
        GANQ_FAIL(GANQ_ERR_NO_DEVICE, "CUDA device %d (%s) has no memory pools (cudaMallocAsync), which are needed",
                  cuda->device, prop.name);
    GANQ_CUDA_TRY(cudaDeviceGetAttribute(&cuda->reads_pageable, cudaDevAttrPageableMemoryAccessUsesHostPageTables,
                                         cuda->device));
    snprintf(ctx->device_name, sizeof ctx->device_name, "cuda:%d (%.90s, sm_%d)", cuda->device,
             prop.name, cuda->sm);
    return GANQ_OK;
}

/* The stream, and a pool of the context's own that keeps what was freed: sessions and layers come
 * and go, and other users of the device do not see a pool changed. */
static ganq_status open_stream(const ganq_context *ctx, ganq__cuda *cuda) {
    const struct cudaMemPoolProps props = {
        .allocType = cudaMemAllocationTypePinned,
        .location = {.type = cudaMemLocationTypeDevice, .id = cuda->device},
    };
    uint64_t keep = UINT64_MAX;
    int entered;
    ganq_status status;
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    GANQ_CUDA_TRY_GOTO(leave, cudaMemPoolCreate(&cuda->pool, &props));
    GANQ_CUDA_TRY_GOTO(
        leave, cudaMemPoolSetAttribute(cuda->pool, cudaMemPoolAttrReleaseThreshold, &keep));
    GANQ_CUDA_TRY_GOTO(leave, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
leave:
    ganq__cuda_leave(entered);
    return status;
}

static void close_stream(ganq_context *ctx, ganq__cuda *cuda) {
    for (int i = 0; i < GANQ__CUDA_PURPOSES; i++)
        ganq__memory_ops_cuda.release(ctx, cuda->workspaces[i].memory);
    if (cuda->stream)
        (void)cudaStreamSynchronize(cuda->stream);
    ganq__lut_close(ctx);
    if (cuda->stream)
        (void)cudaStreamDestroy(cuda->stream);
    if (cuda->pool)
        (void)cudaMemPoolDestroy(cuda->pool);
}

static void cuda_close(ganq_context *ctx) {
    ganq__cuda *cuda = ganq__cuda_of(ctx);
    int entered;
    if (cuda->context && ganq__cuda_enter(ctx, &entered) == GANQ_OK) {
        close_stream(ctx, cuda);
        ganq__cuda_leave(entered);
    }
    pthread_mutex_destroy(&cuda->guard);
    ctx->device_state = NULL;
    ganq__free(cuda->released);
    ganq__free(cuda);
}

static ganq_status cuda_open(ganq_context *ctx) {
    char name[sizeof ctx->device_name];
    ganq__cuda *cuda = ganq__calloc(1, sizeof *cuda);
    if (!cuda)
        return GANQ_ERR_NO_MEMORY;
    ganq_status status;
    ctx->device_state = cuda;
    pthread_mutex_init(&cuda->guard, NULL);
    GANQ_TRY_GOTO(close, open_device(ctx, cuda));
    GANQ_TRY_GOTO(close, open_code(ctx, cuda));
    GANQ_TRY_GOTO(close, open_stream(ctx, cuda));
    /* What works on memory of the process stays the CPU's. */
    memcpy(name, ctx->device_name, sizeof name);
    GANQ_TRY_GOTO(close, ganq__cpu_backend.open(ctx));
    memcpy(ctx->device_name, name, sizeof name);
    ctx->memory = &ganq__memory_ops_cuda;
    ctx->solver_device = &ganq__device_solver_ops_cuda;
    ctx->dense = &ganq__dense_ops_cuda;
    ctx->lut = &ganq__lut_ops_cuda;
    ctx->model = &ganq__model_ops_cuda;
    return GANQ_OK;
close:
    cuda_close(ctx);
    return status;
}

const ganq__backend ganq__cuda_backend = {
    .name = "cuda", .kind = GANQ_DEVICE_CUDA, .open = cuda_open, .close = cuda_close};
