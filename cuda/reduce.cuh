// reduce.cuh - sums over a warp and over a block, in a fixed order.
#ifndef GANQ_CUDA_REDUCE_CUH
#define GANQ_CUDA_REDUCE_CUH

#include "launch.cuh"

// Sum over groups of `width` neighbouring lanes, in each of them.
template <typename T> static __device__ __forceinline__ T ganq_warp_sum(T x, int width = 32) {
    for (int i = width / 2; i; i /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}
static __device__ __forceinline__ float ganq_warp_max(float x, int width = 32) {
    for (int i = width / 2; i; i /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

// Sum over the block's threads (a multiple of 32, one dimension), in each of them. `box` is shared memory for 32 T.
template <typename T> static __device__ __forceinline__ T ganq_block_sum(T x, T *box) {
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, warps = (int)blockDim.x >> 5;
    x = ganq_warp_sum(x);
    if (lane == 0)
        box[warp] = x;
    __syncthreads();
    x = lane < warps ? box[lane] : T(0);
    return ganq_warp_sum(x);
}

#endif
