/* dense_kernels.h - dense products in f32: launchers, for the C files. Pointers are the device's. */
#ifndef GANQ_CUDA_DENSE_KERNELS_H
#define GANQ_CUDA_DENSE_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "queue.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GANQ__DENSE_FEW = 8 }; /* most rows of X for which the weights are streamed */

/* C[M,N] = beta C + alpha op(A) op(B) + bias. op(A) is A[M,K], or A[K,M]^T; op(B) is B[K,N], or B[N,K]^T, of dtype f32,
 * f16 or bf16. bias [N] or NULL. lower: only tiles that touch the lower triangle are computed (M = N). */
typedef struct ganq__cuda_gemm_args {
    int64_t M, N, K;
    const float *a;
    int64_t lda;
    int32_t a_transposed;
    int32_t b_transposed;
    const void *b;
    int64_t ldb;
    int32_t b_dtype;
    int32_t lower;
    const float *bias;
    float alpha, beta;
    float *c;
    int64_t ldc;
} ganq__cuda_gemm_args;
cudaError_t ganq__cuda_gemm(cudaStream_t stream, const ganq__cuda_gemm_args *args);

/* Y[M,N] = X[M,K] W[N,K]^T + bias for M <= GANQ__DENSE_FEW; W contiguous. */
cudaError_t ganq__cuda_linear_few(ganq__cuda_queue queue, int64_t M, int64_t N, int64_t K, const float *x, int64_t ldx, const void *w,
                                  int32_t dtype, const float *bias, float *y, int64_t ldy);

/* h[j,i] = h[i,j] for i > j. */
cudaError_t ganq__cuda_mirror(cudaStream_t stream, int64_t K, float *h);

#ifdef __cplusplus
}
#endif
#endif
