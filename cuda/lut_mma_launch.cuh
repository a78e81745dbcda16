// lut_mma_launch.cuh - from a plan to an instance of the kernel. One .cu per number of bits, so
// that they compile side by side.
#ifndef GANQ_CUDA_LUT_MMA_LAUNCH_CUH
#define GANQ_CUDA_LUT_MMA_LAUNCH_CUH

#include "lut_launch.cuh"
#include "lut_mma.cuh"

namespace lut {

template <int BITS, int COPIES, int ROW_TILES, int NT>
static cudaError_t start_mma(cudaStream_t stream, ganq__lut_args &args, const ganq__lut_plan *plan,
                             int dependent) {
    const int threads = 32 * plan->warps, most = mma_threads(BITS, ROW_TILES, NT);
    if (threads > most)
        return cudaErrorInvalidConfiguration;
    count_blocks(args, 16 * ROW_TILES);
    return start(mma_kernel<BITS, COPIES, ROW_TILES, NT>,
                 dim3((unsigned)args.blocks, (unsigned)args.splits), (unsigned)threads,
                 (size_t)ganq__lut_mma_shared(BITS, args.columns, plan), stream, dependent, args);
}

template <int BITS, int COPIES>
static cudaError_t launch_mma_copies(cudaStream_t stream, ganq__lut_args args,
                                     const ganq__lut_plan *plan, int dependent) {
    if (plan->row_tiles == 1 && args.columns <= 8)
        return start_mma<BITS, COPIES, 1, 1>(stream, args, plan, dependent);
    if (args.columns <= 8)
        return start_mma<BITS, COPIES, 2, 1>(stream, args, plan, dependent);
    if (args.columns <= 16)
        return start_mma<BITS, COPIES, 2, 2>(stream, args, plan, dependent);
    if (args.columns <= GANQ__LUT_MMA_COLUMNS)
        return start_mma<BITS, COPIES, 2, 4>(stream, args, plan, dependent);
    return cudaErrorInvalidValue;
}

template <int BITS>
static cudaError_t launch_mma(cudaStream_t stream, const ganq__lut_args &args,
                              const ganq__lut_plan *plan, int dependent) {
    if (BITS == 4 && plan->copies == 1)
        return launch_mma_copies < BITS, BITS == 4 ? 1 : 4 > (stream, args, plan, dependent);
    return launch_mma_copies<BITS, 4>(stream, args, plan, dependent);
}

} // namespace lut

#endif
