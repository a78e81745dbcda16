/* model_ref.h - entries of the reference table that other instruction sets take over: operations
 * bound by memory, which the compiler vectorizes well enough. */
#ifndef GANQ_CPU_MODEL_REF_H
#define GANQ_CPU_MODEL_REF_H

#include "context.h"

ganq_status ganq__model_embed__ref(ganq_context *ctx, int64_t M, int64_t D, const int32_t *ids,
                                   const void *weight, int32_t dtype, float *h);
ganq_status ganq__model_layer_norm__ref(ganq_context *ctx, int64_t M, int64_t D, const float *x,
                                        const float *weight, const float *bias, float eps, float *y);
ganq_status ganq__model_relu__ref(ganq_context *ctx, int64_t count, float *x);
ganq_status ganq__model_add__ref(ganq_context *ctx, int64_t count, const float *a, const float *b,
                                 float *y);

#endif
