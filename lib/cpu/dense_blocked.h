/* dense_blocked.h - the frame of the fast dense products: how a product is cut into blocks, packed
 * and spread over threads. An instruction set brings the kernels and their tile.
 *
 * One element of C is, on every path and for every shape, the same chain of operations:
 *
 *     for each block of GANQ__DENSE_BLOCK_K values of k, in order:
 *         s = 0
 *         for k in the block, in order:  s = fma(A[m,k], B[k,n], s)
 *         C[m,n] = fma(alpha, s, first block ? beta C[m,n] or bias[n] or 0 : C[m,n])
 *
 * Lanes, tiles and threads run along m and n only. So the bits depend on K alone, not on M, N,
 * threads or place. */
#ifndef GANQ_CPU_DENSE_BLOCKED_H
#define GANQ_CPU_DENSE_BLOCKED_H

#include "context.h"

/* A panel of B, [256][16] f32, is half of a first-level cache of 32 KB. */
enum { GANQ__DENSE_BLOCK_K = 256 };

/* C[M,N] = beta C + alpha op(A) op(B) + bias. */
typedef struct ganq__dense_product {
    int64_t M, N, K;
    const float *a; /* [M,K], or [K,M] when a_transposed */
    int64_t lda;
    int a_transposed;
    const void *b; /* [K,N] f32, or [N,K] of b_dtype when b_transposed */
    int64_t ldb;
    int32_t b_dtype;
    int b_transposed;
    float alpha, beta;
    const float *bias; /* [N] or NULL; only with beta 0 */
    float *c;
    int64_t ldc;
    int upper; /* M = N: only tiles that touch the upper triangle (n >= m) are computed */
} ganq__dense_product;

/* How a finished block of sums enters C. */
typedef struct ganq__dense_merge {
    float alpha, beta; /* C = beta C + alpha sum; beta 0 does not read C */
    const float *bias; /* of the panel's columns, or NULL; only with beta 0 */
} ganq__dense_merge;

typedef struct ganq__dense_kernels {
    int tile_rows, tile_cols;
    /* Rows of A, BLOCK_K values of each, that stay in the second-level cache; whole tiles. */
    int block_rows;
    /* Columns [0, cols) of op(B), kc values of k, to f32 panels [kc][tile_cols] one after the
     * other; the last one is padded with zeros. `b` is the address of the first element. */
    void (*pack_b)(float *panels, int64_t kc, int64_t cols, const void *b, int64_t ldb,
                   int32_t dtype, int transposed);
    /* C[rows, cols] from `rows` packed rows of A, in tiles of tile_rows one after the other, each
     * [kc][tile_rows], and one panel of B, whose rows are b_stride apart. */
    void (*multiply)(int64_t rows, int cols, int64_t kc, const float *a, const float *b,
                     int64_t b_stride, const ganq__dense_merge *merge, float *c, int64_t ldc);
    /* y[cols] from one row x [K] and rows of W [cols,K] of `dtype`, leading dimension ldw: reads W
     * in place. */
    void (*stream)(int64_t K, int cols, const float *x, const void *w, int64_t ldw, int32_t dtype,
                   const ganq__dense_merge *merge, float *y);
} ganq__dense_kernels;

ganq_status ganq__dense_multiply(ganq_context *ctx, const ganq__dense_kernels *kernels,
                                 const ganq__dense_product *product);
/* Copies the upper triangle of h [K,K] onto the lower one. */
void ganq__dense_mirror(ganq_context *ctx, int64_t K, float *h);

#endif
