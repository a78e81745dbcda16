/* lut_gemm.h - Y = X W~^T with a quantized layer: checks, first use, element types; the work is the
 * backend's. */
#ifndef GANQ_GEMM_LUT_GEMM_H
#define GANQ_GEMM_LUT_GEMM_H

#include "context.h"
#include "layer.h"

/* y[M,N] = x[M,K] W~^T + bias, f32, rows ldx and ldy apart; x and y do not overlap. M >= 1. The
 * first call with a layer makes its compute layout and may fail with FORMAT (damaged codes) or
 * NO_MEMORY. */
ganq_status ganq__lut_gemm(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                           int64_t ldx, float *y, int64_t ldy);
/* The same for matrices that ganq__matrix_read has accepted, f32, f16 or bf16 each. INVALID_ARG
 * when they overlap. */
ganq_status ganq__lut_gemm_matrix(ganq_context *ctx, const ganq_layer *layer, const ganq_matrix *x,
                                  ganq_matrix *y);

#endif
