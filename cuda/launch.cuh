// launch.cuh - how kernels are launched and shared memory of a size known at launch is declared, in a way that
// both nvcc and the emulator of the tests (tests/cuda/emulator) understand.
#ifndef GANQ_CUDA_LAUNCH_CUH
#define GANQ_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#if defined(__CUDACC__)

#include <type_traits>

template <typename... P>
static inline cudaError_t ganq_launch_kernel(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                             cudaStream_t stream, std::common_type_t<P>... args) {
    void *pointers[] = {(void *)&args...};
    return cudaLaunchKernel((const void *)kernel, grid, block, pointers, shared_bytes, stream);
}
// ganq_launch(kernel, grid, block, shared bytes, stream, arguments...): cudaSuccess or why it was not launched.
#define ganq_launch(...) ganq_launch_kernel(__VA_ARGS__)

// In a kernel: T *name = the dynamic shared memory.
#define GANQ_DYNAMIC_SHARED(T, name)                                                                           \
    extern __shared__ __align__(128) unsigned char ganq_dynamic_shared[];                                      \
    T *name = reinterpret_cast<T *>(ganq_dynamic_shared)

#else

#define ganq_launch(...) ganq_launch_named(#__VA_ARGS__, __VA_ARGS__)
#define GANQ_DYNAMIC_SHARED(T, name) T *name = reinterpret_cast<T *>(emulator::dynamic_shared())

#endif
#endif
