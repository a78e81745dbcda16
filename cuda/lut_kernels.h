/* lut_kernels.h - the kernels of the product with quantized layers: what they are given, and their
 * launchers, for the C files. Pointers are the device's. Layout of codes: lut_layout.h; what each
 * kernel does: its file. */
#ifndef GANQ_CUDA_LUT_KERNELS_H
#define GANQ_CUDA_LUT_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "lut_layout.h"
#include "lut_ops.h"
#include "lut_plan.h"
#include "queue.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    GANQ__LUT_PARTS = 3,        /* layers in one launch */
    GANQ__LUT_MMA_COLUMNS = 32, /* most columns of X in a launch of the tensor-core kernel, */
    GANQ__LUT_CONVERT_ROWS = 4, /* most rows of X that its blocks convert themselves, */
    GANQ__LUT_SIMT_ROWS = 8,    /* most rows of X in a launch of the fp32 kernel */
    GANQ__LUT_WGMMA_ROWS = 128  /* rows of W of a block of warpgroups */
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

/* Where things lie in the shared memory of a block of the tensor-core kernel, in bytes from its beginning; the pair
 * tables come first. */
typedef struct ganq__lut_shared {
    int32_t raw;      /* [row tiles][16][L] f16: tables of the next rows                */
    int32_t sums;     /* [warps][rows][columns] f32                                     */
    int32_t outliers; /* [rows][columns of the kernel's instance: 8, 16 or 32] f32      */
    int32_t scales;   /* [columns] f32, where X is converted                            */
    int32_t x;        /* [columns][x_ld] f16: the block's part of X, with one row tile   */
    int32_t x_ld;     /* elements                                                       */
    int32_t total;
} ganq__lut_shared;

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
    int32_t x_vectors; /* rows of x may be read 16 bytes at a time: aligned, and K % 8 == 0; those of input, too */
    ganq__lut_input input; /* where not plain, of what is converted or prepared: x is its a, then */
    int32_t M;         /* rows of y */
    int32_t columns;   /* of the mma kernels: M, or 2 M with lower parts */
    int32_t most_columns; /* of all launches of a call: they use the same kernel */
    int32_t splits;    /* of K, over blockIdx.y */
    float *partial; /* splits > 1: [splits][columns][blocks * block_rows]; the launcher fills in the
                       two below */
    int32_t blocks; /* of all parts: what the grid's blocks share */
    int32_t block_rows;
    /* of the mma kernel: */
    int32_t convert; /* staged from rows of x as they are, not from columns in f16; one split only */
    int32_t ahead;   /* codes are asked to L2 before they are read */
    ganq__lut_shared shared; /* the launcher fills it in */
} ganq__lut_args;

/* Each puts one kernel into the queue. */
cudaError_t ganq__lut_launch_simt(ganq__cuda_queue queue, const ganq__lut_args *args,
                                  const ganq__lut_plan *plan);
/* slots: blocks that the GPU has room for at once; rows beyond are taken in turn. */
cudaError_t ganq__lut_launch_mma(ganq__cuda_queue queue, const ganq__lut_args *args,
                                 const ganq__lut_plan *plan, int64_t slots);
#if defined(GANQ_HAS_WGMMA)
/* x is an image of 8 plan->row_tiles columns to a tile, one column per row; sm_90 alone. */
cudaError_t ganq__lut_launch_wgmma(ganq__cuda_queue queue, const ganq__lut_args *args, const ganq__lut_plan *plan);
#endif
/* After one of them with splits > 1: sums the parts in order, and does what follows a sum.
 * block_rows: 16 * row_tiles. */
cudaError_t ganq__lut_launch_finish(ganq__cuda_queue queue, const ganq__lut_args *args, int block_rows);

/* The rows of X of args, as they are or made from its input, to columns [args->columns, ld] in f16, zero
 * from K to ld: row m becomes column m and, with two columns per row, M + m, the upper and the lower
 * part of x * f; scales[m] = 1 / f. f16 rows are copied as they are, scale 1. See lut_input.cuh. With wide not 0 an image with so
 * many columns to a tile instead (lut_layout.h); ld is its K. */
cudaError_t ganq__lut_launch_prepare(ganq__cuda_queue queue, const ganq__lut_args *args, void *columns,
                                     int64_t ld, int wide, float *scales);

/* Rows [first, first + count) of W~ to w [count, ld] in f16, zero from K to ld; first is a multiple
 * of 16, ld of 8, w aligned to 16 bytes. Outliers are added unless part->rowptr is NULL. */
cudaError_t ganq__lut_launch_dequantize(ganq__cuda_queue queue, const ganq__lut_part *part, int bits,
                                        int table_f32, int64_t K, int64_t first, int64_t count,
                                        void *w, int64_t ld);

/* Bytes of the pair tables of 16 rows; copies 0: in registers. */
#if defined(__cplusplus)
constexpr
#endif
GANQ__HD int ganq__pair_table_bytes(int bits, int copies) {
    return copies == 0 ? 0 : bits == 4 ? (copies == 1 ? 16384 : 65536) : bits == 3 ? 16384 : 4096;
}

/* Shared memory of the mma kernel for that many columns. */
static inline ganq__lut_shared ganq__lut_mma_layout(int bits, int columns, int64_t K, const ganq__lut_plan *plan) {
    ganq__lut_shared s;
    const int32_t rows = 16 * plan->row_tiles, wide = columns <= 8 ? 8 : columns <= 16 ? 16 : 32;
    const int64_t units = ganq__lut_units(K, bits), slice = (units + plan->splits - 1) / plan->splits;
    const int64_t ld = plan->row_tiles == 1 ? slice * ganq__unit_columns(bits) + 32 : 0;
    s.raw = plan->row_tiles * ganq__pair_table_bytes(bits, plan->copies);
    s.sums = s.raw + rows * 2 * (1 << bits);
    s.outliers = s.sums + (plan->warps * rows * columns * 4 + 15) / 16 * 16;
    s.scales = s.outliers + rows * wide * 4;
    s.x = s.scales + (columns * 4 + 15) / 16 * 16;
    s.x_ld = (int32_t)(ld < INT32_MAX / 256 ? ld : INT32_MAX / 256); /* more does not fit anywhere */
    s.total = s.x + columns * s.x_ld * 2;
    return s;
}
/* Most warps of a block of the mma kernel: what its registers leave room for. */
static inline int32_t ganq__lut_mma_warps(int bits, int copies, int columns, int row_tiles) {
    if (row_tiles == 1)
        return bits != 4 || copies != 4 ? 8 : 12;
    return columns <= 8 && copies != 0 ? 16 : columns <= 16 ? 12 : 8;
}
/* Blocks of the mma kernel that a multiprocessor has room for: registers are cut for two full ones with one row tile, one
 * with two. shared: bytes of a multiprocessor. */
static inline int32_t ganq__lut_mma_slots(int bits, int columns, const ganq__lut_plan *plan, int32_t bytes,
                                          int32_t shared) {
    const int32_t warps = (plan->row_tiles == 1 ? 2 : 1) * ganq__lut_mma_warps(bits, plan->copies, columns, plan->row_tiles);
    const int32_t by_warps = warps / plan->warps, by_shared = shared / (bytes + 1024);
    const int32_t slots = by_warps < by_shared ? by_warps : by_shared;
    return slots > 1 ? slots : 1;
}

#ifdef __cplusplus
}
#endif
#endif
