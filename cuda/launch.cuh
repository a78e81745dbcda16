// launch.cuh - how kernels are launched and shared memory of a size known at launch is declared, in a way that
// both nvcc and the emulator of the tests (tests/cuda/emulator) understand.
#ifndef GANQ_CUDA_LAUNCH_CUH
#define GANQ_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#include "queue.h"

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

// Dependent launches (queue.h). The next kernel may start its preamble; this one waits until the one before it has
// ended and its writes are seen: before it reads what others wrote, and before it writes. Every kernel that ganq_start
// launches does both, so that one that waits has waited for all before it. Both do nothing in a kernel that was launched
// without the attribute.
static __device__ __forceinline__ void ganq_allow_next() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
static __device__ __forceinline__ void ganq_wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ganq_launch as a dependent launch where the queue says so, with more than 48 KB of shared memory where it takes that. What is
// allowed holds for the kernel on the device, in all threads: always the same number, so that none lowers another's. Such
// kernels have no shared memory but the dynamic one.
template <typename... P>
static cudaError_t ganq_start(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, ganq__cuda_queue queue,
                              std::common_type_t<P>... args) {
    if (shared > 48 * 1024) {
        const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, queue.most_shared);
        if (error != cudaSuccess)
            return error;
    }
#if defined(__CUDACC__)
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = queue.stream;
    config.attrs = &attribute;
    config.numAttrs = queue.dependent ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, args...);
#else
    return ganq_launch(kernel, grid, block, shared, queue.stream, args...);
#endif
}
#endif
