/* lut_kernels.h - the kernels of the product with quantized layers: what they are given, and their
 * launchers, for the C files. Pointers are the device's. Layout of codes: lut_layout.h; what each
 * kernel does: its file. */
#ifndef GANQ_CUDA_LUT_KERNELS_H
#define GANQ_CUDA_LUT_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "lut_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    GANQ__LUT_PARTS = 3,        /* layers in one launch */
    GANQ__LUT_MMA_COLUMNS = 32, /* most columns of X in a launch of the tensor-core kernel, */
    GANQ__LUT_SIMT_ROWS = 8     /* and most rows of X in one of the other */
};

/* One layer of a launch, and where its output goes. */
typedef struct ganq__lut_part {
    const void *codes;     /* tile16, 16-byte aligned */
    const void *tables;    /* [16 groups, L] f16 or f32, rows beyond N zero; 16-byte aligned */
    const float *bias;     /* [N] or NULL */
    const int32_t *rowptr; /* [N+1] or NULL: no outliers */
    const int32_t *columns;
    const float *values;
    void *y; /* [M, N], rows ldy elements apart */
    int64_t ldy;
    int32_t N;
    int32_t first_block; /* of the launch; the launcher fills it in */
} ganq__lut_part;

/* Y = X W~^T + bias for all parts. What the kernels multiply are columns: a column is a row of X in
 * f16, or its upper or lower part; see ganq__lut_prepare. */
typedef struct ganq__lut_args {
    ganq__lut_part part[GANQ__LUT_PARTS];
    int32_t parts, bits, table_f32, K;
    const void *x;
    int64_t ldx;         /* elements */
    const float *scales; /* [columns] or NULL: what a column is to be multiplied with */
    int32_t x_dtype;
    int32_t y_dtype;
    int32_t x_vectors; /* rows of x may be read 16 bytes at a time: aligned, and K % 8 == 0 */
    int32_t M;         /* rows of y */
    int32_t columns;   /* of the mma kernels: M, or 2 M with lower parts */
    int32_t splits;    /* of K, over blockIdx.y */
    float *partial; /* splits > 1: [splits][columns][blocks * block_rows]; the launcher fills in the
                       two below */
    int32_t blocks; /* of all parts */
    int32_t block_rows;
} ganq__lut_args;

/* Each puts one kernel into the stream. `dependent`: it may begin before the kernel in front of it
 * has ended, and waits for that one itself before it reads x or writes (compute capability 9.0 and
 * later). */
cudaError_t ganq__lut_launch_simt(cudaStream_t stream, const ganq__lut_args *args,
                                  const ganq__lut_plan *plan, int dependent);
cudaError_t ganq__lut_launch_mma(cudaStream_t stream, const ganq__lut_args *args,
                                 const ganq__lut_plan *plan, int dependent);
/* After one of them with splits > 1: sums the parts in order, and does what follows a sum.
 * block_rows: 16 * row_tiles. */
cudaError_t ganq__lut_launch_finish(cudaStream_t stream, const ganq__lut_args *args, int block_rows,
                                    int dependent);

/* Rows of X [M, K] to columns [parts * M, ld] in f16, zero from K to ld: row m becomes column m
 * and, with parts 2, M + m, the upper and the lower part of x * f, f the power of two that brings
 * the row's largest magnitude to 2^14..2^15; scales[m] = scales[M + m] = 1 / f. f16 rows are copied
 * as they are, scale 1. */
cudaError_t ganq__lut_launch_prepare(cudaStream_t stream, int64_t M, int64_t K, const void *x,
                                     int32_t dtype, int64_t ldx, int parts, void *columns,
                                     int64_t ld, float *scales, int dependent);

/* Rows [first, first + count) of W~ to w [count, ld] in f16, zero from K to ld; first is a multiple
 * of 16, ld of 8, w aligned to 16 bytes. Outliers are added unless part->rowptr is NULL. */
cudaError_t ganq__lut_launch_dequantize(cudaStream_t stream, const ganq__lut_part *part, int bits,
                                        int table_f32, int64_t K, int64_t first, int64_t count,
                                        void *w, int64_t ld, int dependent);

/* Bytes of shared memory of the mma kernel: the tables, or the warps' sums in their place, and the
 * sums of outliers. */
static inline int64_t ganq__lut_mma_shared(int bits, int columns, const ganq__lut_plan *plan) {
    const int64_t width = columns <= 8 ? 8 : columns <= 16 ? 16 : 32, rows = 16 * plan->row_tiles;
    const int64_t tables = plan->row_tiles * (bits == 4   ? 16384 * plan->copies
                                              : bits == 3 ? 16384
                                                          : 4096);
    const int64_t sums = plan->warps * rows * width * 4;
    return (tables > sums ? tables : sums) + rows * width * 4;
}

#ifdef __cplusplus
}
#endif
#endif
