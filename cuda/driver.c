/* driver.c - which context is the thread's. The runtime could only tell which device: to set that back would replace a
 * context of the caller's own, and make one on device 0 in a thread that had none. */
#include "driver.h"

#include <stddef.h>

/* As cuda.h of the toolkit has them; a context is a pointer, and a CUresult has the number of its cudaError_t. */
typedef struct functions {
    cudaError_t (*retain)(void **context, int device);
    cudaError_t (*current)(void **context);
    cudaError_t (*push)(void *context);
    cudaError_t (*pop)(void **context);
} functions;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static functions loaded;
static int is_loaded;

static ganq_status find(const char *name, void *function) {
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    GANQ_CUDA_TRY(cudaGetDriverEntryPointByVersion(name, function, 12000, cudaEnableDefault, &found));
#else
    GANQ_CUDA_TRY(cudaGetDriverEntryPoint(name, function, cudaEnableDefault, &found));
#endif
    return ganq__cuda_status(found == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorSymbolNotFound, name);
}

static ganq_status load(void) {
    functions f;
    GANQ_TRY(find("cuDevicePrimaryCtxRetain", &f.retain));
    GANQ_TRY(find("cuCtxGetCurrent", &f.current));
    GANQ_TRY(find("cuCtxPushCurrent", &f.push));
    GANQ_TRY(find("cuCtxPopCurrent", &f.pop));
    loaded = f;
    is_loaded = 1;
    return GANQ_OK;
}

ganq_status ganq__cuda_primary_context(int device, void **context) {
    ganq_status status = GANQ_OK;
    pthread_mutex_lock(&guard);
    if (!is_loaded)
        status = load();
    pthread_mutex_unlock(&guard);
    GANQ_TRY(status);
    return ganq__cuda_status(loaded.retain(context, device), "cuDevicePrimaryCtxRetain");
}

ganq_status ganq__cuda_enter(const ganq_context *ctx, int *entered) {
    void *const context = ganq__cuda_of(ctx)->context;
    void *current = NULL;
    GANQ_TRY(ganq__cuda_status(loaded.current(&current), "cuCtxGetCurrent"));
    *entered = current != context;
    return *entered ? ganq__cuda_status(loaded.push(context), "cuCtxPushCurrent") : GANQ_OK;
}

void ganq__cuda_leave(int entered) {
    void *left;
    if (entered)
        (void)loaded.pop(&left);
}
