// lut_wgmma3.cu - the kernels of warpgroups for 3-bit codes.
#include "lut_wgmma_launch.cuh"

cudaError_t ganq__lut_launch_wgmma3(ganq__cuda_queue queue, const ganq__lut_args &args, const ganq__lut_plan *plan) {
    return lut::launch_wgmma<3>(queue, args, plan);
}
