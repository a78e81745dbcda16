/* lut_blocked.h - the frame of the fast products with a quantized layer, Y[M,N] = X[M,K] W~[N,K]^T
 * + bias: how one is cut into items, packed and spread over threads. An instruction set brings the
 * kernels.
 *
 * M small  (up to the kernels' small_m) An item is 16 rows of W; the kernel decodes in registers.
 * M large  128 tokens at a time. X is packed once in panels [256 k][16 tokens]. An item is some
 *          tiles of rows of W; per 256 columns it decodes a tile into w [tile_rows][256] and
 *          multiplies it with every panel:
 *
 *              w: first-level cache     128 tokens x 256 columns, 128 KB: second level
 *
 *          adding to the item's sums, [item_tiles][panels][tile_rows][16].
 *
 * An element's sum depends on K and on which of the two ways is taken, not on threads or place. */
#ifndef GANQ_CPU_LUT_BLOCKED_H
#define GANQ_CPU_LUT_BLOCKED_H

#include "context.h"
#include "lanes.h"
#include "layer.h"

enum {
    GANQ__LUT_CHUNK = GANQ__LANES_CHUNK, /* columns of a decoded piece */
    GANQ__LUT_PANEL = 16,                /* tokens */
    GANQ__LUT_MAX_TILE_ROWS = 14,
    GANQ__LUT_MAX_ITEM_ROWS = 56
};

typedef struct ganq__lut_product {
    const ganq_layer *layer;
    int64_t M, ldx, ldy;
    const float *x;
    float *y;
} ganq__lut_product;

typedef struct ganq__lut_kernels {
    int small_m;
    int tile_rows, item_tiles;
    /* Rows [first, end) of W for all rows of X, at most small_m, with outliers and bias. */
    void (*small)(const ganq__lut_product *product, int64_t first, int64_t end);
    /* kc columns of `rows` <= 16 rows of x into a panel [kc][16], the rest zeros. */
    void (*pack)(float *panel, int64_t kc, int64_t rows, const float *x, int64_t ldx);
    /* Columns [k0, k0 + kc) of row n, rounded up to whole groups, without outliers, into w (64-byte
     * aligned); k0 is a multiple of the chunk. */
    void (*decode)(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, float *w);
    /* sums [panels][tile_rows][16] (+)= w [tile_rows][chunk], kc columns, times x [panels][kc][16].
     */
    void (*multiply)(int64_t kc, const float *w, int64_t panels, const float *x, float *sums,
                     int add);
} ganq__lut_kernels;

ganq_status ganq__lut_multiply(ganq_context *ctx, const ganq__lut_kernels *kernels,
                               ganq__lut_product product);

/* y[m][n]: the sum over the codes, the outliers and the bias of row n. */
static inline float ganq__lut_finish(const ganq__lut_product *product, int64_t n, int64_t m,
                                     float sum) {
    const ganq_layer *layer = product->layer;
    if (layer->outlier_rowptr)
        for (int32_t i = layer->outlier_rowptr[n]; i < layer->outlier_rowptr[n + 1]; i++)
            sum += layer->outlier_vals[i] * product->x[m * product->ldx + layer->outlier_cols[i]];
    return layer->bias ? sum + layer->bias[n] : sum;
}

#endif
