/* lut_engine.h - ganq_lut_gemm_device, its workspace, and measuring plans, as operations of a
 * context. */
#ifndef GANQ_CUDA_LUT_ENGINE_H
#define GANQ_CUDA_LUT_ENGINE_H

#include "lut_gemm.h"

ganq_status ganq__lut_device_workspace(ganq_context *ctx, const ganq_device_product *product,
                                       int64_t *bytes);
ganq_status ganq__lut_device_product(ganq_context *ctx, const ganq_device_product *product);
/* ganq_lut_gemm_tune, for a layer that was placed. */
ganq_status ganq__lut_tune(ganq_context *ctx, const ganq_layer *layer, int64_t rows,
                           int32_t x_dtype, double *microseconds, double *untuned);

#endif
