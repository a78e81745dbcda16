/* lut_gemm.h - Y = X W~^T with a quantized layer: checks, first use, element types; the work is the
 * backend's. */
#ifndef GANQ_GEMM_LUT_GEMM_H
#define GANQ_GEMM_LUT_GEMM_H

#include "context.h"
#include "layer.h"
#include "lut_ops.h"

/* Everything that the product needs of a layer in this context: the compute layout on hosts, the
 * device's copy elsewhere. Made once, here or in the first product; cheap when that is done. FORMAT
 * (damaged codes), NO_MEMORY. */
ganq_status ganq__layer_ready(ganq_context *ctx, const ganq_layer *layer);
/* Gives up the device's copy; nothing on hosts. */
void ganq__layer_unplace(ganq_context *ctx, const ganq_layer *layer);

/* In the context's memory: y[M,N] = x[M,K] W~^T + bias, f32, rows ldx and ldy apart; x and y do not
 * overlap. M >= 1. */
ganq_status ganq__lut_gemm(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                           int64_t ldx, float *y, int64_t ldy);
/* The same for up to GANQ__LUT_MANY layers of the same K with the same input: ys[i] [M,
 * layers[i]->N]. */
ganq_status ganq__lut_gemm_many(ganq_context *ctx, int count, const ganq_layer *const *layers,
                                int64_t M, const float *x, int64_t ldx, float *const *ys,
                                const int64_t *ldys);
/* The same with an input that the product makes on the way, of kind NORMED or SWIGLU. *taken 0: the
 * backend does not, and nothing was done. */
ganq_status ganq__lut_gemm_input(ganq_context *ctx, int count, const ganq_layer *const *layers,
                                 int64_t M, const ganq__lut_input *input, float *const *ys,
                                 const int64_t *ldys, int *taken);
/* ganq__lut_gemm for matrices that ganq__matrix_read has accepted, f32, f16 or bf16 each, in memory of
 * the process. INVALID_ARG when they overlap. */
ganq_status ganq__lut_gemm_matrix(ganq_context *ctx, const ganq_layer *layer, const ganq_matrix *x,
                                  ganq_matrix *y);

#endif
