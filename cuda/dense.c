/* dense.c - dense products as operations of a context. */
#include "cuda.h"
#include "dense_kernels.h"
#include "dense_ops.h"
#include "dtype.h"

static cudaStream_t stream_of(const ganq_context *ctx) {
    return ganq__cuda_of(ctx)->stream;
}

static ganq_status cuda_gemm(ganq_context *ctx, int64_t M, int64_t N, int64_t K, float alpha,
                             const float *a, int64_t lda, const float *b, int64_t ldb,
                             int b_transposed, float beta, float *c, int64_t ldc) {
    const ganq__cuda_gemm_args args = {
        .M = M,
        .N = N,
        .K = K,
        .a = a,
        .lda = lda,
        .b_transposed = b_transposed,
        .b = b,
        .ldb = ldb,
        .b_dtype = GANQ_DTYPE_F32,
        .alpha = alpha,
        .beta = beta,
        .c = c,
        .ldc = ldc,
    };
    if (M > 0 && N > 0)
        GANQ_CUDA_RUN(ctx, ganq__cuda_gemm(stream_of(ctx), &args));
    return GANQ_OK;
}

static ganq_status cuda_linear(ganq_context *ctx, int64_t M, int64_t N, int64_t K, const float *x,
                               int64_t ldx, const void *w, int32_t wdtype, const float *bias,
                               float *y, int64_t ldy) {
    if (M <= GANQ__DENSE_FEW) {
        GANQ_CUDA_RUN(ctx, ganq__cuda_linear_few(ganq__cuda_queue_of(ctx), M, N, K, x, ldx, w, wdtype, bias, y,
                                             ldy));
        return GANQ_OK;
    }
    const ganq__cuda_gemm_args args = {
        .M = M,
        .N = N,
        .K = K,
        .a = x,
        .lda = ldx,
        .b_transposed = 1,
        .b = w,
        .ldb = K,
        .b_dtype = wdtype,
        .bias = bias,
        .alpha = 1,
        .c = y,
        .ldc = ldy,
    };
    GANQ_CUDA_RUN(ctx, ganq__cuda_gemm(stream_of(ctx), &args));
    return GANQ_OK;
}

static ganq_status cuda_syrk(ganq_context *ctx, int64_t M, int64_t K, const float *x, int64_t ldx,
                             float *h) {
    const ganq__cuda_gemm_args args = {
        .M = K,
        .N = K,
        .K = M,
        .a = x,
        .lda = ldx,
        .a_transposed = 1,
        .b = x,
        .ldb = ldx,
        .b_dtype = GANQ_DTYPE_F32,
        .lower = 1,
        .alpha = 1,
        .beta = 1,
        .c = h,
        .ldc = K,
    };
    GANQ_CUDA_RUN(ctx, ganq__cuda_gemm(stream_of(ctx), &args));
    GANQ_CUDA_RUN(ctx, ganq__cuda_mirror(stream_of(ctx), K, h));
    return GANQ_OK;
}

/* to_f32 and from_f32 work on memory of the process wherever they are called: the portable ones. */
const ganq__dense_ops ganq__dense_ops_cuda = {
    .gemm = cuda_gemm,
    .linear = cuda_linear,
    .syrk = cuda_syrk,
    .to_f32 = ganq__to_f32,
    .from_f32 = ganq__from_f32,
};
