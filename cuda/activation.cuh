// activation.cuh - SwiGLU of one element: the same bits wherever it is computed.
#ifndef GANQ_CUDA_ACTIVATION_CUH
#define GANQ_CUDA_ACTIVATION_CUH

#include "ptx.cuh"

// silu(gate) * up, silu(x) = x / (1 + exp(-x)), within a few roundings.
static __device__ __forceinline__ float ganq_swiglu(float gate, float up) {
    return gate * ganq_reciprocal(1 + expf(-gate)) * up;
}

#endif
