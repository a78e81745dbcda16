// lut_mma_launch.cuh - from a plan to an instance of the kernel. One .cu per number of bits, so
// that they compile side by side.
#ifndef GANQ_CUDA_LUT_MMA_LAUNCH_CUH
#define GANQ_CUDA_LUT_MMA_LAUNCH_CUH

#include "lut_launch.cuh"
#include "lut_mma.cuh"

namespace lut {

template <int BITS, int COPIES, int ROW_TILES, int NT>
static cudaError_t start_mma(ganq__cuda_queue queue, ganq__lut_args &args, const ganq__lut_plan *plan,
                             int64_t slots) {
    static_assert(mma_threads(BITS, COPIES, ROW_TILES, NT) % 32 == 0, "whole warps");
    if (32 * plan->warps > mma_threads(BITS, COPIES, ROW_TILES, NT))
        return cudaErrorInvalidConfiguration;
    count_blocks(args, 16 * ROW_TILES);
    args.ahead = plan->ahead;
    args.shared = ganq__lut_mma_layout(BITS, args.most_columns, args.K, plan);
    int64_t blocks = slots / args.splits > 0 ? slots / args.splits : 1;
    blocks = blocks < args.blocks ? blocks : args.blocks;
    return ganq_start(mma_kernel<BITS, COPIES, ROW_TILES, NT>, dim3((unsigned)blocks, (unsigned)args.splits),
                      dim3(32u * (unsigned)plan->warps), (size_t)args.shared.total, queue, args);
}

template <int BITS, int COPIES>
static cudaError_t launch_mma_copies(ganq__cuda_queue queue, ganq__lut_args args, const ganq__lut_plan *plan,
                                     int64_t slots) {
    if (plan->row_tiles == 1 && args.most_columns <= 8)
        return start_mma<BITS, COPIES, 1, 1>(queue, args, plan, slots);
    if (args.most_columns <= 8)
        return start_mma<BITS, COPIES, 2, 1>(queue, args, plan, slots);
    if (args.most_columns <= 16)
        return start_mma<BITS, COPIES, 2, 2>(queue, args, plan, slots);
    if (args.most_columns <= GANQ__LUT_MMA_COLUMNS)
        return start_mma<BITS, COPIES, 2, 4>(queue, args, plan, slots);
    return cudaErrorInvalidValue;
}

template <int BITS>
static cudaError_t launch_mma(ganq__cuda_queue queue, const ganq__lut_args &args, const ganq__lut_plan *plan,
                              int64_t slots) {
    if (plan->copies == 0)
        return launch_mma_copies<BITS, 0>(queue, args, plan, slots);
    if (plan->copies == 2)
        return launch_mma_copies<BITS, 2>(queue, args, plan, slots);
    if (BITS == 4 && plan->copies == 1)
        return launch_mma_copies < BITS, BITS == 4 ? 1 : 4 > (queue, args, plan, slots);
    return launch_mma_copies<BITS, 4>(queue, args, plan, slots);
}

} // namespace lut

#endif
