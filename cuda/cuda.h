/* cuda.h - what the host files of this folder share: a context's state on its device, and how calls
 * of the CUDA runtime fail.
 *
 * How the folder is cut: *.cu are kernels and their launchers (C functions declared in kernels.h,
 * which both languages read); *.c is all else. Nothing here touches CUDA before a context is opened. */
#ifndef GANQ_CUDA_CUDA_H
#define GANQ_CUDA_CUDA_H

#include <cuda_runtime_api.h>
#include <pthread.h>

#include "context.h"
#include "queue.h"

extern const ganq__backend ganq__cuda_backend;

extern const struct ganq__memory_ops ganq__memory_ops_cuda;
extern const struct ganq__dense_ops ganq__dense_ops_cuda;
extern const struct ganq__model_ops ganq__model_ops_cuda;
extern const struct ganq__device_solver_ops ganq__device_solver_ops_cuda;

/* Memory that operations use between their kernels, one piece per purpose; see ganq__cuda_workspace. */
typedef enum ganq__cuda_purpose {
    GANQ__CUDA_ATTENTION = 0,
    GANQ__CUDA_LUT = 1,
    GANQ__CUDA_LIBRARY = 2, /* cuBLASLt's */
    GANQ__CUDA_PURPOSES = 3
} ganq__cuda_purpose;

/* ctx->device_state. */
typedef struct ganq__cuda {
    int device;          /* index of the CUDA runtime */
    void *context;       /* its primary one, a CUcontext */
    int sm;              /* compute capability, 10 * major + minor */
    int multiprocessors;
    int dependent, most_shared; /* see queue.h */
    int reads_pageable;         /* by the host's page tables, when a copy runs */
    int fuse; /* $GANQ_CUDA_FUSE, for measurements: 0, each operation a kernel of its own; all, 2: products also make
                 SwiGLU, each block for itself; else 1: what pays by the model */
    cudaStream_t stream; /* all work of the context, in order */
    cudaMemPool_t pool;  /* the context's own: it keeps what was freed until the context ends */
    struct {
        void *memory;
        size_t bytes;
    } workspaces[GANQ__CUDA_PURPOSES];
    struct ganq__lut_state *lut; /* of lut_gemm.c */
    int64_t generation; /* of the workspaces: recorded steps of an older one hold stale addresses */
    /* Memory may be released from any thread. While a step is recorded the stream must not be
     * touched by others: what is released then waits here. */
    pthread_mutex_t guard;
    int recording;
    void **released;
    int64_t released_count, released_capacity;
} ganq__cuda;

static inline ganq__cuda *ganq__cuda_of(const ganq_context *ctx) {
    return (ganq__cuda *)ctx->device_state;
}

static inline ganq__cuda_queue ganq__cuda_queue_of(const ganq_context *ctx) {
    const ganq__cuda *cuda = ganq__cuda_of(ctx);
    return (ganq__cuda_queue){cuda->stream, cuda->dependent, cuda->most_shared};
}

/* Makes the context's device the thread's, between enter and leave: the caller's current one, or none, is
 * left as it was found. *entered goes to leave. */
ganq_status ganq__cuda_enter(const ganq_context *ctx, int *entered);
void ganq__cuda_leave(int entered);

/* GANQ_OK, or the error in words: "cudaMemcpyAsync: out of memory (cudaErrorMemoryAllocation)". */
ganq_status ganq__cuda_status(cudaError_t error, const char *call);

/* At least `bytes` of device memory, 256-byte aligned, the caller's until the next call for the same
 * purpose; what is put into the context's stream later may overwrite it. It grows where it is too
 * small, but not while a step is recorded: a step runs once before it is recorded. */
ganq_status ganq__cuda_workspace(ganq_context *ctx, ganq__cuda_purpose purpose, size_t bytes,
                                 void **out);
/* From here to _end the stream is recorded into a graph; *out is NULL unless all went well. */
ganq_status ganq__cuda_record_begin(ganq_context *ctx);
ganq_status ganq__cuda_record_end(ganq_context *ctx, cudaGraph_t *out);

/* Returns unless the call of a launcher, on the context's device, succeeds. */
#define GANQ_CUDA_RUN(ctx, call)                                                                   \
    do {                                                                                           \
        int entered_;                                                                              \
        GANQ_TRY(ganq__cuda_enter((ctx), &entered_));                                              \
        const ganq_status run_status_ = ganq__cuda_status((call), #call);                          \
        ganq__cuda_leave(entered_);                                                                \
        if (run_status_ != GANQ_OK)                                                                \
            return run_status_;                                                                    \
    } while (0)

#define GANQ_CUDA_TRY(call) GANQ_TRY(ganq__cuda_status((call), #call))
#define GANQ_CUDA_TRY_GOTO(label, call) GANQ_TRY_GOTO(label, ganq__cuda_status((call), #call))

#endif
