/* dense_ops.h - dense products on a device.
 *
 * Contract of all of them: the same bits for any thread count; a row of the output depends on its own row of A and on
 * B alone, not on M, not on the row's place, so that shards of rows and prefill against step agree. That is why no BLAS
 * is behind them: its sums change with threads, row count and place in a tile. */
#ifndef GANQ_BACKEND_DENSE_OPS_H
#define GANQ_BACKEND_DENSE_OPS_H

#include "ganq/context.h"

typedef struct ganq__dense_ops {
    /* C[M,N] = beta C + alpha A[M,K] op(B), f32; op(B) is B[K,N], or B[N,K]^T when b_transposed. Leading dimensions in
     * elements. beta 0 ignores what C held (NaN too). K = 0 scales C. */
    ganq_status (*gemm)(ganq_context *ctx, int64_t M, int64_t N, int64_t K, float alpha, const float *a,
                        int64_t lda, const float *b, int64_t ldb, int b_transposed, float beta, float *c,
                        int64_t ldc);
    /* Y[M,N] = X[M,K] W[N,K]^T + bias: a dense linear layer. W is f32, f16 or bf16 (wdtype), rows contiguous, maybe
     * unaligned (it is a mapped file); bias [N] or NULL. Reads W once for small M. */
    ganq_status (*linear)(ganq_context *ctx, int64_t M, int64_t N, int64_t K, const float *x, int64_t ldx,
                          const void *w, int32_t wdtype, const float *bias, float *y, int64_t ldy);
    /* H[K,K] += X[M,K]^T X; both triangles of H are kept equal. */
    ganq_status (*syrk)(ganq_context *ctx, int64_t M, int64_t K, const float *x, int64_t ldx, float *h);
    /* count elements of dtype (f32, f16, bf16; any alignment) to f32 and back, serial. */
    void (*to_f32)(float *dst, const void *src, int32_t dtype, int64_t count);
    void (*from_f32)(void *dst, const float *src, int32_t dtype, int64_t count);
} ganq__dense_ops;

#endif
