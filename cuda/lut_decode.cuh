// lut_decode.cuh - what the kernels of the product share: finding a block's layer, loading units of
// codes, the values of X, the sums of outliers, storing results.
#ifndef GANQ_CUDA_LUT_DECODE_CUH
#define GANQ_CUDA_LUT_DECODE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "ganq/common.h"
#include "lut_kernels.h"
#include "lut_layout.h"
#include "ptx.cuh"

#if !defined(__CUDACC__)
#define __grid_constant__
#endif

namespace lut {

// Which layer the rows `block` are of.
static __device__ __forceinline__ int part_of_block(const ganq__lut_args &args, int block) {
    int p = 0;
    while (p + 1 < args.parts && block >= args.part[p + 1].first_block)
        p++;
    return p;
}

// The units of K that a warp works on: of the block's part of K, its own part, in one piece.
static __device__ __forceinline__ void unit_range(const ganq__lut_args &args, int units, int warp,
                                                  int warps, int *first, int *count) {
    const int begin = (int)((int64_t)units * blockIdx.y / args.splits);
    const int block = (int)((int64_t)units * (blockIdx.y + 1) / args.splits) - begin;
    *first = begin + block * warp / warps;
    *count = begin + block * (warp + 1) / warps - *first;
}

// Pair words of tile q of a unit that a lane has loaded.
template <int BITS>
static __device__ __forceinline__ void tile_words(const uint4 *loaded, int q,
                                                  uint32_t (&words)[4]) {
    uint32_t stored[4 * (BITS == 3 ? 3 : 1)];
#pragma unroll
    for (int v = 0; v < (BITS == 3 ? 3 : 1); v++) {
        stored[4 * v] = loaded[v].x;
        stored[4 * v + 1] = loaded[v].y;
        stored[4 * v + 2] = loaded[v].z;
        stored[4 * v + 3] = loaded[v].w;
    }
    ganq__pair_words(BITS, stored + BITS * q, words);
}

static __device__ __forceinline__ float value_at(const void *x, int32_t dtype, int64_t i) {
    if (dtype == GANQ_DTYPE_F32)
        return ((const float *)x)[i];
    if (dtype == GANQ_DTYPE_F16)
        return __half2float(((const __half *)x)[i]);
    return __bfloat162float(((const __nv_bfloat16 *)x)[i]);
}
static __device__ __forceinline__ void store_at(void *y, int32_t dtype, int64_t i, float value) {
    if (dtype == GANQ_DTYPE_F32)
        ((float *)y)[i] = value;
    else if (dtype == GANQ_DTYPE_F16)
        ((__half *)y)[i] = __float2half_rn(value);
    else
        ((__nv_bfloat16 *)y)[i] = __float2bfloat16_rn(value);
}

// A power of two that brings `most` to 2^14..2^15, and its inverse; 1 for 0, infinity and NaN.
static __device__ __forceinline__ void scale_of(float most, float *factor, float *inverse) {
    const int exponent = (int)(__float_as_uint(most) >> 23) - 127;
    *factor = *inverse = 1;
    if (most > 0 && exponent < 128) {
        const int e = max(exponent, -100); // both powers of two are normal numbers
        *factor = __uint_as_float((uint32_t)(127 + 14 - e) << 23);
        *inverse = __uint_as_float((uint32_t)(127 - 14 + e) << 23);
    }
}

// sums[r][c] = sum over the outliers of row first_row + r of value * x(c, column), r < rows, c <
// columns; rows beyond N and columns up to `width`, a multiple of 8, get 0. A warp takes a row; its
// lanes are 4 runs of outliers x 8 columns, so that the order of a sum depends on the row alone.
template <typename X>
static __device__ __forceinline__ void outlier_sums(const ganq__lut_part &part, int first_row,
                                                    int rows, int columns, int width, X x,
                                                    float *sums) {
    const int thread = ganq_anew((int)threadIdx.x), lane = thread % 32, warp = thread / 32,
              warps = (int)blockDim.x / 32;
#pragma unroll 1
    for (int r = warp; r < rows; r += warps) {
        const int n = first_row + r;
        const int begin = n < part.N ? part.rowptr[n] : 0,
                  end = n < part.N ? part.rowptr[n + 1] : 0;
#pragma unroll 1
        for (int c = lane % 8; c < width; c += 8) {
            float sum = 0;
            if (c < columns)
#pragma unroll 4
                for (int i = begin + lane / 8; i < end; i += 4)
                    sum = fmaf(part.values[i], x(c, part.columns[i]), sum);
            sum += __shfl_xor_sync(0xffffffffu, sum, 8);
            sum += __shfl_xor_sync(0xffffffffu, sum, 16);
            if (lane < 8)
                sums[r * width + c] = sum;
        }
    }
}

// What follows a sum: the upper and lower parts of X together, scale (NULL: none), bias, the
// caller's type. sum(c) gives the sum of column c.
template <typename Sum>
static __device__ __forceinline__ void finish(const ganq__lut_args &args,
                                              const ganq__lut_part &part, int n, int m,
                                              const float *scales, Sum sum) {
    float value = sum(m);
    if (args.columns > args.M)
        value += sum(args.M + m);
    if (scales)
        value *= scales[m];
    if (part.bias)
        value += part.bias[n];
    store_at(part.y, args.y_dtype, m * part.ldy + n, value);
}

} // namespace lut

#endif
