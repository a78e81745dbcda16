/* model_kernels.h - what a transformer block does besides its linears: launchers, for the C files.
 * Pointers are the device's; meaning of the operations: model_ops.h. */
#ifndef GANQ_CUDA_MODEL_KERNELS_H
#define GANQ_CUDA_MODEL_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "queue.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    GANQ__ATTENTION_CHUNK = 128,  /* keys per block of the decode kernel; cut at multiples of it   */
    GANQ__ATTENTION_DECODE = 8,   /* most queries for which it is used                             */
    GANQ__ATTENTION_MAX_DIM = 256 /* largest head                                                  */
};

cudaError_t ganq__cuda_embed(ganq__cuda_queue queue, int64_t M, int64_t D, const int32_t *ids, const void *weight,
                             int32_t dtype, float *h);
/* y = rms_norm(x + added), x + added to sum; added and sum NULL: of x alone. y NULL: the sum alone. */
cudaError_t ganq__cuda_norm(ganq__cuda_queue queue, int64_t M, int64_t D, const float *x, int64_t ldx, const float *added,
                            float *sum, const float *weight, float eps, float *y, int64_t ldy);
cudaError_t ganq__cuda_layer_norm(ganq__cuda_queue queue, int64_t M, int64_t D, const float *x, const float *weight,
                                  const float *bias, float eps, float *y);
cudaError_t ganq__cuda_relu(ganq__cuda_queue queue, int64_t count, float *x);
cudaError_t ganq__cuda_swiglu(ganq__cuda_queue queue, int64_t count, float *gate, const float *up);
cudaError_t ganq__cuda_add(ganq__cuda_queue queue, int64_t count, const float *a, const float *b, float *y);

/* As argmax in model_ops.h. */
cudaError_t ganq__cuda_argmax(ganq__cuda_queue queue, int64_t count, const float *x, int32_t *best);

/* As ganq__heads. */
typedef struct ganq__cuda_heads_args {
    int32_t M, heads, kv_heads, dim;
    int64_t position, capacity;
    const int32_t *counter;
    const float *q_norm, *k_norm, *cosines, *sines;
    float eps;
    float *q;
    const float *k, *v;
    void *keys, *values;
    int32_t cache_dtype; /* F32 or F16 */
} ganq__cuda_heads_args;
cudaError_t ganq__cuda_heads(ganq__cuda_queue queue, const ganq__cuda_heads_args *args);

/* As ganq__attention. */
typedef struct ganq__cuda_attention_args {
    int32_t M, heads, kv_heads, dim;
    int64_t position, window, capacity;
    const int32_t *counter;
    float scale;
    const float *q;
    const void *keys, *values;
    int32_t cache_dtype; /* F32 or F16 */
    float *out;
    /* of the decode kernel: */
    int32_t chunks;  /* that the grid has: enough for the last position it may be launched with */
    float *partial;  /* [M * heads, chunks, dim]: sums of exp(score - maximum) * value          */
    float *extremes; /* [M * heads, chunks, 2]: maximum, sum of exp(score - maximum)            */
    int32_t turns;   /* one token, q and k as the products left them: what `heads` says is done here */
    ganq__cuda_heads_args heads_args;
} ganq__cuda_attention_args;
cudaError_t ganq__cuda_attention_decode(ganq__cuda_queue queue, const ganq__cuda_attention_args *args);
cudaError_t ganq__cuda_attention_prefill(ganq__cuda_queue queue, const ganq__cuda_attention_args *args);

#ifdef __cplusplus
}
#endif
#endif
