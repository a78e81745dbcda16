/* model_ops.h - what a transformer block does besides its linears, on a device.
 *
 * Contract of all: arrays lie in the context's memory; f32; a token's output depends on its own
 * inputs alone (for attention: on its keys), not on M nor on the number of threads. No allocation.
 *
 * A decode step may be recorded once and replayed (a CUDA graph): see step_begin. What changes from
 * step to step is then read from the context's memory: the token id, and the position through
 * `counter`. */
#ifndef GANQ_BACKEND_MODEL_OPS_H
#define GANQ_BACKEND_MODEL_OPS_H

#include "ganq/context.h"

/* From the products q, k, v of M tokens to what attention reads: RMSNorm over each head of q and k
 * (where the model has one), RoPE on both, k and v into the cache.
 *
 * RoPE in the rotate-half convention: for d < half = head_dim/2 the pair (d, d + half) of a head is
 * turned by the angle whose cosine and sine are cosines[p,d], sines[p,d], p the token's position.
 */
typedef struct ganq__heads {
    int64_t M, position;    /* of the first token */
    const int32_t *counter; /* NULL, or in the context's memory: position again */
    int64_t heads, kv_heads, head_dim;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float eps;                    /* of the norms */
    int32_t cache_dtype; /* of keys and values: F32, or F16, rounded to nearest and, beyond its
                            range, to its largest number; NaN and infinity stay */
    const float *cosines, *sines; /* [positions, half], from position 0 on */
    float *q;                     /* [M, heads * head_dim], in place */
    float *k;                     /* [M, kv_heads * head_dim]; undefined afterwards */
    const float *v;               /* the same */
    void *keys, *values;          /* [kv_heads, capacity, head_dim] */
    int64_t capacity;
} ganq__heads;

/* Causal attention with grouped heads: the query at `position + m` sees keys 0 .. position + m, the
 * last `window` of them if window > 0; query head i reads key head i / (heads / kv_heads). */
typedef struct ganq__attention {
    int64_t M, position, window;
    const int32_t *counter; /* NULL, or in the context's memory: position again */
    int64_t heads, kv_heads, head_dim;
    float scale;         /* of q.k, usually 1/sqrt(head_dim)       */
    int32_t cache_dtype; /* of keys and values: F32 or F16         */
    const float *q;      /* [M, heads * head_dim], after RoPE      */
    const void *keys;    /* [kv_heads, capacity, head_dim]         */
    const void *values;  /* the same                               */
    int64_t capacity;
    float *out; /* [M, heads * head_dim]                  */
} ganq__attention;

typedef struct ganq__model_ops {
    /* h[m,:] = row ids[m] of weight [vocab, D], of dtype f32, f16 or bf16, any alignment on hosts.
     * ids in the context's memory; they are in range. */
    ganq_status (*embed)(ganq_context *ctx, int64_t M, int64_t D, const int32_t *ids,
                         const void *weight, int32_t dtype, float *h);
    /* y[m,d] = x[m,d] / sqrt(mean_d(x[m,:]^2) + eps) * weight[d]; y may be x. */
    ganq_status (*rms_norm)(ganq_context *ctx, int64_t M, int64_t D, const float *x, int64_t ldx,
                            const float *weight, float eps, float *y, int64_t ldy);
    /* sum = a + b, y = rms_norm(sum); all [M, D], contiguous; sum may be a or b, y may be b. The
     * bits of add and rms_norm. */
    ganq_status (*add_norm)(ganq_context *ctx, int64_t M, int64_t D, const float *a, const float *b,
                            float *sum, const float *weight, float eps, float *y);
    /* y[m,d] = (x[m,d] - mean) / sqrt(variance + eps) * weight[d] + bias[d], mean and variance (over D,
     * not D - 1) of x[m,:]; contiguous, y may be x. */
    ganq_status (*layer_norm)(ganq_context *ctx, int64_t M, int64_t D, const float *x,
                              const float *weight, const float *bias, float eps, float *y);
    ganq_status (*heads)(ganq_context *ctx, const ganq__heads *heads);
    ganq_status (*attention)(ganq_context *ctx, const ganq__attention *attention);
    /* Optional (NULL: one after the other): both, of the same tokens; the bits of both. q is undefined afterwards. */
    ganq_status (*heads_attention)(ganq_context *ctx, const ganq__heads *heads, const ganq__attention *attention);
    /* gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)). */
    ganq_status (*swiglu)(ganq_context *ctx, int64_t count, float *gate, const float *up);
    /* x[i] = max(x[i], 0); NaN stays. */
    ganq_status (*relu)(ganq_context *ctx, int64_t count, float *x);
    /* y[i] = a[i] + b[i]; y may be a or b. */
    ganq_status (*add)(ganq_context *ctx, int64_t count, const float *a, const float *b, float *y);
    /* Optional, for devices: *best, in the context's memory, is the index of the largest of x, of
     * equals the lowest; -1 where one is NaN or infinity, or all are -infinity. */
    ganq_status (*argmax)(ganq_context *ctx, int64_t count, const float *x, int32_t *best);

    /* Optional, all or none (NULL: none). A session brackets each step of one token, from embed to
     * logits, with step_begin and step_end. Between the two it calls the same operations on the
     * same arrays at every step, with M = 1 and counter set; only ids, *counter and the values
     * `position` differ, and no memory is asked for, uploaded or downloaded.
     * *recording is the session's own slot for what the backend keeps, NULL at first. step_begin
     * sets *replayed to 1 when it has put the whole step to work from a recording: the session then
     * calls neither the operations nor step_end. `position` is this step's. */
    ganq_status (*step_begin)(ganq_context *ctx, void **recording, int64_t position, int *replayed);
    /* status: of the operations since step_begin; not OK: what was recorded is of no use. Returns
     * that status, or its own failure. *again 1, with OK: the step could not be recorded, and nothing of it
     * was put to work; the session calls the operations once more, and not step_end. */
    ganq_status (*step_end)(ganq_context *ctx, void **recording, ganq_status status, int *again);
    void (*step_forget)(ganq_context *ctx, void *recording); /* the session ends; NULL is fine */
} ganq__model_ops;

#endif
