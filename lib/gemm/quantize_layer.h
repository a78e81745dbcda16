/* quantize_layer.h - one layer: solve, then pack. What ganq_layer_quantize and the pipeline share.
 */
#ifndef GANQ_GEMM_QUANTIZE_LAYER_H
#define GANQ_GEMM_QUANTIZE_LAYER_H

#include "context.h"
#include "hessian.h"
#include "layer.h"

/* w [N,K] f32 contiguous; hessian NULL: identity; bias [N] f32, representable in bias_dtype, or
 * NULL; options NULL: all defaults. The layer carries its report. Ticks progress; INVALID_ARG,
 * NUMERIC, UNSUPPORTED, CANCELED, NO_MEMORY. */
ganq_status ganq__layer_quantize(ganq_context *ctx, int64_t N, int64_t K, const float *w,
                                 const ganq_hessian *hessian, const float *bias, int32_t bias_dtype,
                                 const ganq_quantize_options *options, ganq_layer **out);

#endif
