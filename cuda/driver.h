/* driver.h - what only CUDA's driver can do, found at run time: nothing depends on libcuda at load. */
#ifndef GANQ_CUDA_DRIVER_H
#define GANQ_CUDA_DRIVER_H

#include "cuda.h"

/* The primary context of a device, made where there is none yet. It is never given back: the runtime keeps what it has
 * made in it until the process ends, as after cudaSetDevice. */
ganq_status ganq__cuda_primary_context(int device, void **context);

#endif
