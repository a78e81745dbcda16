/* cublaslt.h - products of f16 matrices by cuBLASLt, opened on first use. */
#ifndef GANQ_CUDA_CUBLASLT_H
#define GANQ_CUDA_CUBLASLT_H

#include "cuda.h"

/* A handle on the context's device, to be given back. UNSUPPORTED (with the reason) where there is
 * no cuBLASLt of the CUDA that this was built with. */
ganq_status ganq__cublaslt_open(ganq_context *ctx, void **handle);
/* The context's device is the thread's. NULL is fine. */
void ganq__cublaslt_close(void *handle);

/* C[M,N] = X[M,K] W[N,K]^T, X and W f16, fp32 sums, C of dtype f32 or f16; leading dimensions in
 * elements, of X and W multiples of 8; pointers aligned to 16 bytes. No allocation; fine in a
 * capture. UNSUPPORTED, with nothing put into the stream, where cuBLASLt has no kernel for it. */
ganq_status ganq__cublaslt_product(void *handle, cudaStream_t stream, int64_t M, int64_t N,
                                   int64_t K, const void *x, int64_t ldx, const void *w,
                                   int64_t ldw, void *c, int32_t dtype, int64_t ldc,
                                   void *workspace, size_t bytes);

#endif
