/* lut_ops.h - products with a quantized layer on a device. */
#ifndef GANQ_BACKEND_LUT_OPS_H
#define GANQ_BACKEND_LUT_OPS_H

#include "ganq/layer.h"

/* The input x [M,K] of products, as it is or as what it is made from; arrays are contiguous. */
typedef enum ganq__lut_input_kind {
    GANQ__LUT_PLAIN = 0, /* x = a                                                        */
    GANQ__LUT_NORMED = 1, /* x = rms_norm(a + b) * weight, without b rms_norm(a) * weight */
    GANQ__LUT_SWIGLU = 2  /* x = silu(a) * b                                              */
} ganq__lut_input_kind;
typedef struct ganq__lut_input {
    ganq__lut_input_kind kind;
    const float *a, *b; /* [M,K]; b NULL where there is none */
    /* of NORMED: */
    const float *weight; /* [K]                                                              */
    const float *bias;   /* [K]: LayerNorm, not RMSNorm; no product makes that on the way     */
    float eps;
    float *sum; /* [M,K]: gets a + b where there is a b; overlaps neither a nor b */
} ganq__lut_input;

typedef struct ganq__lut_ops {
    /* Y[M,N] = X[M,K] W~[N,K]^T + bias, f32; N, K and bias are the layer's, which was prepared
     * (ganq__layer_ready). x and y do not overlap. The same bits for any thread count; nothing is
     * read or written outside the rows given. NO_MEMORY when a workspace cannot be had. */
    ganq_status (*gemm)(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                        int64_t ldx, float *y, int64_t ldy);
    /* Optional (NULL: one gemm after the other). Layers of the same K with the same input, q k v or
     * gate up: ys[i] [M, layers[i]->N] with ldys[i], 1 <= count <= GANQ__LUT_MANY. Bits and tables
     * may differ. On the CPU the same bits as gemm gives; on a GPU where both choose the same plan. */
    ganq_status (*gemm_many)(ganq_context *ctx, int count, const ganq_layer *const *layers,
                             int64_t M, const float *x, int64_t ldx, float *const *ys,
                             const int64_t *ldys);
    /* Optional (NULL: never). gemm_many with an input that is made on the way; overlaps no output.
     * *taken 0: not for these layers and this M, nothing was done. The input's values are those of
     * the operations in model_ops.h but for the order of roundings. */
    ganq_status (*gemm_input)(ganq_context *ctx, int count, const ganq_layer *const *layers,
                              int64_t M, const ganq__lut_input *input, float *const *ys,
                              const int64_t *ldys, int *taken);
    /* Devices with memory of their own; NULL on hosts. What gemm reads of a layer, once per layer
     * and context: *out is kept by the caller, who attaches it to the layer
     * (ganq__attachment_find(&layer->attachments, ctx) gives it back). The codes were checked; they
     * are read with ganq__layer_codes_row, from lanes or from the mapped file. The layer's lut,
     * outliers and bias are host memory, and stay alive longer than *out. */
    ganq_status (*place)(ganq_context *ctx, const ganq_layer *layer, void **out);
    /* May be called from any thread, also while the context works: its work that was begun before
     * may still read what is given up. */
    void (*unplace)(ganq_context *ctx, void *placed);
    /* About the bytes of device memory that place takes. */
    int64_t (*placed_bytes)(const ganq_layer *layer);
    /* GPUs: the engine form, as ganq/layer.h has it; the struct was read, its contents were not checked. */
    ganq_status (*device_workspace)(ganq_context *ctx, const ganq_device_product *product, int64_t *bytes);
    ganq_status (*device_product)(ganq_context *ctx, const ganq_device_product *product);
    /* GPUs: ganq_lut_gemm_tune for a layer that was placed. */
    ganq_status (*tune)(ganq_context *ctx, const ganq_layer *layer, int64_t rows, int32_t x_dtype, double *microseconds,
                        double *untuned);
} ganq__lut_ops;

enum { GANQ__LUT_MANY = 3 }; /* most layers of one gemm_many */

#endif
