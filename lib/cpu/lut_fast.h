/* lut_fast.h - the frame of the products in fixed point, Y[M,N] = X[M,K] W~[N,K]^T + bias with
 * 16-bit integers, for GANQ_NUMERICS_FAST: numbers, items, workspace. An instruction set brings the
 * kernels.
 *
 * Numbers  A row's table becomes 16-bit integers up to 16383 with one f32 scale, a piece of a row
 *          of X 16-bit integers with one f32 scale. Products are summed in 32-bit lanes. X's scale
 *          is the least for which no value passes 32700 and no lane's sum of |x| passes 130900,
 *          times 16383 below 2^31: no input overflows. With s columns to a scale, n of them to a
 *          lane, X loses at most the larger of sqrt(s) / 32700 and sqrt(s n) / 130900 of its norm,
 *          over sqrt(12): 2e-4 for s = 256, n = 32.
 * Wide     Rows of W that lose more than 2e-4 of their norm by this (one entry far above the rest,
 *          seldom used) are marked when a layer is made or first used (layer.h: wide); they are
 *          multiplied a second time, with a table of what the first one lacks.
 * M small  X, at most 8 rows at a time: [K/256][M][256], scales [K/256][M]. An item is 12 rows of
 * W, with all rows of X, eight after eight; the kernel takes some of them and X at a time, over as
 * many columns as X has room for in the first-level cache, and adds to vectors of f32 sums:
 *
 *              row 0    |256|256| ...      rows that lie together in the kernel are rows / R apart,
 *              row Q    |256|256| ...      so that each is a long stream of memory
 *
 *          Meanwhile it asks memory for codes some groups of rows ahead: a thread knows its next
 * item before it begins with one, and so what follows the last rows.
 *
 * M large  128 tokens at a time, X in panels of 16 tokens [K/256][panels][128 pairs][16][2], scales
 *          [K/64][panels][16]. An item is some tiles of rows of W; per 256 columns a tile is
 * decoded to integers [tile_rows][256] and multiplied with all panels; see lut_blocked.h.
 *
 * An element's sum depends on K and on which of the two ways is taken, not on threads or place. */
#ifndef GANQ_CPU_LUT_FAST_H
#define GANQ_CPU_LUT_FAST_H

#include "lut_blocked.h"

enum {
    GANQ__FAST_SEGMENT = 256,    /* columns of X with one scale, M small */
    GANQ__FAST_PIECE = 64,       /* the same, M large */
    GANQ__FAST_CHUNK = 256,      /* columns of a decoded piece of W, M large */
    GANQ__FAST_VALUE = 32700,    /* of X */
    GANQ__FAST_SUM = 130900,     /* largest sum of |x| in a lane */
    GANQ__FAST_RESIDUAL = 32000, /* the second table's scale is the first's / this */
    GANQ__FAST_SMALL_M = 8,      /* rows of X at a time, M small */
    GANQ__FAST_MOST_FEW = 32,    /* most rows of X that are `few` */
    GANQ__FAST_WIDTHS = 5, /* numbers of rows of X that there are kernels for: 1, 2, 4, 6, 8 */
    GANQ__FAST_MAX_R = 4   /* rows of W that a kernel takes at a time */
};

/* A row's table; fewer than 16 entries are repeated. */
typedef struct ganq__fast_table {
    _Alignas(32) int16_t entries[16];
    float scale;
} ganq__fast_table;

/* R rows of W with all rows of X, over some columns. */
typedef struct ganq__fast_rows {
    const uint8_t *lanes; /* the first row's first column; a multiple of 256 */
    int64_t lanes_stride; /* bytes from row to row */
    int64_t columns;
    const uint8_t *ahead; /* codes that will be wanted, as many: asked for meanwhile */
    int64_t ahead_stride;
    const ganq__fast_table *tables;
    int64_t tables_stride;
    const int16_t *x;    /* [segments][M][256] */
    const float *scales; /* [segments][M] */
    int fresh;           /* 1: sums are stored, 0: added to */
    float *sums;         /* [R][M][lanes] */
} ganq__fast_rows;

typedef struct ganq__fast_kernels {
    int lanes; /* of a vector of f32: at most 16 */
    int few;   /* M small: up to so many, at most GANQ__FAST_MOST_FEW */
    /* 256 columns of a row of X for M small, in the order that the kernel for `bits` wants, 0: that
     * for less than 256 columns; their scale. */
    float (*convert)(const float *x, int bits, int16_t *values);
    /* 64 columns for M large, in order; their scale. */
    float (*convert_piece)(const float *x, int16_t *values);
    /* Row n's table, or the second one. */
    void (*table)(const ganq_layer *layer, int64_t n, int second, ganq__fast_table *table);
    /* For each number of rows of X: R, and the kernel by [bits - 2]. */
    int R[GANQ__FAST_WIDTHS];
    void (*rows[GANQ__FAST_WIDTHS][3])(const ganq__fast_rows *rows);
    /* out[i] = the sum of vector i. */
    void (*reduce)(const float *vectors, int64_t count, float *out);

    int tile_rows, item_tiles;
    /* Columns [k0, k0 + kc) of row n, rounded up to whole groups, into w; k0 is a multiple of 256.
     */
    void (*decode)(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc,
                   const ganq__fast_table *table, int16_t *w);
    /* sums [panels][tile_rows][16] += factor * scales * (w [tile_rows][256] times x
     * [panels][32 * pieces][16][2]), scales [pieces][panels][16]. */
    void (*multiply)(int64_t pieces, const int16_t *w, int64_t panels, const int16_t *x,
                     const float *scales, float factor, float *sums);
} ganq__fast_kernels;

ganq_status ganq__lut_fast(ganq_context *ctx, const ganq__fast_kernels *kernels,
                           ganq__lut_product product);

#if defined(__x86_64__)
ganq_status ganq__lut_fast_avx2(ganq_context *ctx, ganq__lut_product product);
ganq_status ganq__lut_fast_avx512(ganq_context *ctx, ganq__lut_product product);
#endif

#endif
