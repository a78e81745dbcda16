// lut_mma4.cu - the tensor-core kernels for 4-bit codes.
#include "lut_mma_launch.cuh"

cudaError_t ganq__lut_launch_mma4(cudaStream_t stream, const ganq__lut_args &args,
                                  const ganq__lut_plan *plan, int dependent) {
    return lut::launch_mma<4>(stream, args, plan, dependent);
}
