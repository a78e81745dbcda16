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

} // namespace lut

// One per number of bits, in lut_mma*.cu.
cudaError_t ganq__lut_launch_mma4(ganq__cuda_queue, const ganq__lut_args &, const ganq__lut_plan *,
                                  int64_t slots);
cudaError_t ganq__lut_launch_mma3(ganq__cuda_queue, const ganq__lut_args &, const ganq__lut_plan *,
                                  int64_t slots);
cudaError_t ganq__lut_launch_mma2(ganq__cuda_queue, const ganq__lut_args &, const ganq__lut_plan *,
                                  int64_t slots);
#if defined(GANQ_HAS_WGMMA) // in lut_wgmma*.cu
cudaError_t ganq__lut_launch_wgmma4(ganq__cuda_queue, const ganq__lut_args &, const ganq__lut_plan *);
cudaError_t ganq__lut_launch_wgmma3(ganq__cuda_queue, const ganq__lut_args &, const ganq__lut_plan *);
cudaError_t ganq__lut_launch_wgmma2(ganq__cuda_queue, const ganq__lut_args &, const ganq__lut_plan *);
#endif

#endif
