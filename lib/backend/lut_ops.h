/* lut_ops.h - products with a quantized layer on a device. */
#ifndef GANQ_BACKEND_LUT_OPS_H
#define GANQ_BACKEND_LUT_OPS_H

#include "ganq/layer.h"

typedef struct ganq__lut_ops {
    /* Y[M,N] = X[M,K] W~[N,K]^T + bias, f32; N, K and bias are the layer's, which was prepared
     * (ganq__layer_prepare). x and y do not overlap. The same bits for any thread count; nothing is
     * read or written outside the rows given. NO_MEMORY when a workspace cannot be had. */
    ganq_status (*gemm)(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                        int64_t ldx, float *y, int64_t ldy);
} ganq__lut_ops;

#endif
