// lut_launch.cuh - what the launchers of the product share.
#ifndef GANQ_CUDA_LUT_LAUNCH_CUH
#define GANQ_CUDA_LUT_LAUNCH_CUH

#include "launch.cuh"
#include "lut_kernels.h"

namespace lut {

// Where each layer's blocks of `rows` rows begin in the grid.
static inline void count_blocks(ganq__lut_args &args, int rows) {
    args.blocks = 0;
    args.block_rows = rows;
    for (int p = 0; p < args.parts; p++) {
        args.part[p].first_block = args.blocks;
        args.blocks += (args.part[p].N + rows - 1) / rows;
    }
}

// Puts a kernel into the stream, with more than 48 KB of shared memory where it asks for that, and
// as a dependent launch.
template <typename... P>
static cudaError_t start(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared,
                         cudaStream_t stream, int dependent, std::common_type_t<P>... args) {
    if (shared > 48 * 1024) {
        const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (error != cudaSuccess)
            return error;
    }
#if defined(__CUDACC__)
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = dependent ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, args...);
#else
    (void)dependent;
    return ganq_launch(kernel, grid, dim3(threads), shared, stream, args...);
#endif
}

} // namespace lut

// One per number of bits, in lut_mma*.cu.
cudaError_t ganq__lut_launch_mma4(cudaStream_t, const ganq__lut_args &, const ganq__lut_plan *,
                                  int dependent);
cudaError_t ganq__lut_launch_mma3(cudaStream_t, const ganq__lut_args &, const ganq__lut_plan *,
                                  int dependent);
cudaError_t ganq__lut_launch_mma2(cudaStream_t, const ganq__lut_args &, const ganq__lut_plan *,
                                  int dependent);

#endif
