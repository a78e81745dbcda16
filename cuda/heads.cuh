// heads.cuh - a head of a query or key on its way to attention: RMSNorm where the model has one, RoPE; and storing into the
// key/value cache. By a warp. For model.cu, which does it for all heads, and attention.cu, whose blocks do it for their own.
#ifndef GANQ_CUDA_HEADS_CUH
#define GANQ_CUDA_HEADS_CUH

#include <cuda_fp16.h>

#include "model_kernels.h"
#include "reduce.cuh"

// An element of the cache; beyond the range of f16 its largest number, NaN and infinity stay.
static __device__ __forceinline__ void ganq_store_cached(float *at, float x) {
    *at = x;
}
static __device__ __forceinline__ void ganq_store_cached(__half *at, float x) {
    const float largest = 65504;
    *at = __float2half_rn(isinf(x) ? x : x > largest ? largest : x < -largest ? -largest : x);
}

// store(d, value) for each element of the head at `from`, normed with weight (NULL: not) and turned for its position.
template <typename Store>
static __device__ __forceinline__ void ganq_turn_head(const ganq__cuda_heads_args &a, const float *from, const float *weight,
                                                      int64_t position, int lane, Store store) {
    const int dim = a.dim, half = dim / 2;
    float scale = 1;
    if (weight) {
        float squares = 0;
#pragma unroll 2
        for (int d = lane; d < dim; d += 32)
            squares = fmaf(from[d], from[d], squares);
        scale = 1 / sqrtf(ganq_warp_sum(squares) / (float)dim + a.eps);
    }
#pragma unroll 2 // heads of 128 in one go
    for (int d = lane; d < half; d += 32) {
        float low = from[d], high = from[d + half];
        if (weight) {
            low *= scale * weight[d];
            high *= scale * weight[d + half];
        }
        const float c = a.cosines[position * half + d], s = a.sines[position * half + d];
        store(d, low * c - high * s);
        store(d + half, high * c + low * s);
    }
}

// A value head to the cache.
template <typename T>
static __device__ __forceinline__ void ganq_store_head(const float *from, T *cached, int dim, int lane) {
#pragma unroll 2
    for (int d = lane; d < dim; d += 32)
        ganq_store_cached(cached + d, from[d]);
}

#endif
