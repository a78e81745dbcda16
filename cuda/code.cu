// code.cu - which of the builds that the library carries runs on a device: that of one kernel is that of all.
#include "code.h"

#include <cuda_runtime.h>

static __global__ void probe() {}

cudaError_t ganq__cuda_code(int *capability) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, probe);
    if (error == cudaSuccess)
        *capability = attributes.ptxVersion; // binaryVersion is the device's, even of code made from older PTX
    return error;
}
