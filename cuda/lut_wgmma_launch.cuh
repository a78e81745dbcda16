// lut_wgmma_launch.cuh - from a plan to an instance of the kernel. One .cu per number of bits, so that they compile side by
// side.
#ifndef GANQ_CUDA_LUT_WGMMA_LAUNCH_CUH
#define GANQ_CUDA_LUT_WGMMA_LAUNCH_CUH

#include "lut_launch.cuh"
#include "lut_wgmma.cuh"

namespace lut {

template <int BITS, int NT>
static cudaError_t start_wgmma(ganq__cuda_queue queue, ganq__lut_args &args) {
    static_assert((int)WGMMA_ROWS == (int)GANQ__LUT_WGMMA_ROWS, "the host counts rows, too");
    static_assert(wgmma_sizes<BITS, NT>::TOTAL <= 227 * 1024 / (NT <= 64 ? 2 : 1) - (NT <= 64 ? 1024 : 0), "one or two to a multiprocessor");
    count_blocks(args, WGMMA_ROWS);
    const int tiles = (args.columns + NT - 1) / NT;
    return ganq_start(wgmma_kernel<BITS, NT>, dim3((unsigned)(args.blocks * tiles), (unsigned)args.splits), dim3(WGMMA_THREADS),
                      wgmma_sizes<BITS, NT>::TOTAL, queue, args);
}

template <int BITS> static cudaError_t launch_wgmma(ganq__cuda_queue queue, ganq__lut_args args, const ganq__lut_plan *plan) {
    switch (8 * plan->row_tiles) {
    case 16:
        return start_wgmma<BITS, 16>(queue, args);
    case 32:
        return start_wgmma<BITS, 32>(queue, args);
    case 64:
        return start_wgmma<BITS, 64>(queue, args);
    case 128:
        return start_wgmma<BITS, 128>(queue, args);
    case 192:
        return start_wgmma<BITS, 192>(queue, args);
    case 256:
        return start_wgmma<BITS, 256>(queue, args);
    default:
        return cudaErrorInvalidConfiguration;
    }
}

} // namespace lut

#endif
