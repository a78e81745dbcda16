/* lut_gemm.h - products with quantized layers on a GPU: the operations of a context, and the engine
 * form. */
#ifndef GANQ_CUDA_LUT_GEMM_H
#define GANQ_CUDA_LUT_GEMM_H

#include "cuda.h"
#include "lut_kernels.h"
#include "lut_ops.h"

/* C[M,N] = X[M,K] W[N,K]^T: see ganq__cublaslt_product. */
typedef ganq_status (*ganq__lut_product)(void *handle, cudaStream_t stream, int64_t M, int64_t N,
                                         int64_t K, const void *x, int64_t ldx, const void *w,
                                         int64_t ldw, void *c, int32_t dtype, int64_t ldc,
                                         void *workspace, size_t bytes);

/* What a context keeps for products: measured plans, read at the first product, and cuBLASLt's
 * handle. */
typedef struct ganq__lut_state {
    ganq__lut_tuning tuning;
    void *cublaslt;
    int settings_read, no_cublaslt; /* no_cublaslt: it was looked for and is not there */
    int64_t inputs_taken;         /* products that made theirs on the way */
    const ganq__lut_plan *forced; /* while plans are measured, and in tests */
    ganq__lut_product product;    /* ganq__cublaslt_product; tests have their own */
} ganq__lut_state;

/* A layer in the memory of a device: one piece, see place. */
typedef struct ganq__lut_placed {
    ganq__lut_part part; /* y, ldy and first_block are those of a call */
    int64_t N, K;
    int32_t bits, table_f32;
    void *memory;
} ganq__lut_placed;

/* One product for up to GANQ__LUT_PARTS layers of equal K. */
typedef struct ganq__lut_call {
    int count;
    const ganq__lut_placed *layers[GANQ__LUT_PARTS];
    int64_t M;
    const void *x;
    int64_t ldx;
    int32_t x_dtype, y_dtype;
    ganq__lut_input input; /* where not plain: what x is made from; x is its a, then, f32 and contiguous */
    void *y[GANQ__LUT_PARTS];
    int64_t ldy[GANQ__LUT_PARTS];
    void *workspace; /* ganq__lut_workspace_bytes, 256-byte aligned */
    cudaStream_t stream;
} ganq__lut_call;

extern const ganq__lut_ops ganq__lut_ops_cuda;
/* Ends ctx->device_state->lut; the context's device is the thread's, and its stream empty. */
void ganq__lut_close(ganq_context *ctx);

/* Of the workspace that ganq__lut_run takes for the call (its y, workspace and stream are not
 * looked at; x and ldx decide whether X must be prepared: NULL counts as that). Opens cuBLASLt
 * where the plan needs it. */
ganq_status ganq__lut_workspace_bytes(ganq_context *ctx, const ganq__lut_call *call, size_t *bytes);
/* What decides on the plan of the call's first launch. */
ganq_status ganq__lut_shape_of(ganq_context *ctx, const ganq__lut_call *call, ganq__lut_shape *out);
/* Puts the product into call->stream; the context's device is the thread's. No allocation, no
 * synchronization. */
ganq_status ganq__lut_run(ganq_context *ctx, const ganq__lut_call *call);

#endif
