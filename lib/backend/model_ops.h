/* model_ops.h - what a transformer block does besides its linears, on a device.
 *
 * Contract of all: f32; a token's output depends on its own inputs alone (for attention: on its
 * keys), not on M nor on the number of threads. No allocation. */
#ifndef GANQ_BACKEND_MODEL_OPS_H
#define GANQ_BACKEND_MODEL_OPS_H

#include "ganq/context.h"

/* Causal attention with grouped heads: the query at `position + m` sees keys 0 .. position + m, the
 * last `window` of them if window > 0; query head i reads key head i / (heads / kv_heads). */
typedef struct ganq__attention {
    int64_t M, position, window;
    int64_t heads, kv_heads, head_dim;
    float scale;         /* of q.k, usually 1/sqrt(head_dim)       */
    const float *q;      /* [M, heads * head_dim], after RoPE      */
    const float *keys;   /* [kv_heads, capacity, head_dim]         */
    const float *values; /* the same                               */
    int64_t capacity;
    float *out; /* [M, heads * head_dim]                  */
} ganq__attention;

typedef struct ganq__model_ops {
    /* y[m,d] = x[m,d] / sqrt(mean_d(x[m,:]^2) + eps) * weight[d]; y may be x. */
    ganq_status (*rms_norm)(ganq_context *ctx, int64_t M, int64_t D, const float *x, int64_t ldx,
                            const float *weight, float eps, float *y, int64_t ldy);
    /* RoPE in the rotate-half convention, in place: x [M, heads, 2*half]; for d < half the pair (d,
     * d + half) of token m is turned by the angle whose cosine and sine are cosines[m,d],
     * sines[m,d] ([M, half], contiguous). */
    ganq_status (*rope)(ganq_context *ctx, int64_t M, int64_t heads, int64_t half,
                        const float *cosines, const float *sines, float *x, int64_t ldx);
    ganq_status (*attention)(ganq_context *ctx, const ganq__attention *attention);
    /* gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)). */
    ganq_status (*swiglu)(ganq_context *ctx, int64_t count, float *gate, const float *up);
    /* y[i] = a[i] + b[i]; y may be a or b. */
    ganq_status (*add)(ganq_context *ctx, int64_t count, const float *a, const float *b, float *y);
} ganq__model_ops;

#endif
