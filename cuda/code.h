/* code.h - which of the builds that the library carries runs on a device. */
#ifndef GANQ_CUDA_CODE_H
#define GANQ_CUDA_CODE_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* *capability: what the current device's code was compiled for, 10 * major + minor: __CUDA_ARCH__ / 10. It is less than the
 * device's where the driver made the code from PTX. Fails where nothing runs there. */
cudaError_t ganq__cuda_code(int *capability);

#ifdef __cplusplus
}
#endif
#endif
