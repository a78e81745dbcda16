/* queue.h - where kernels are put, and how. */
#ifndef GANQ_CUDA_QUEUE_H
#define GANQ_CUDA_QUEUE_H

#include <cuda_runtime_api.h>

/* dependent: a kernel may begin before the one in front of it has ended, and waits for that one itself (code for compute
 * capability 9.0 and later: programmatic dependent launch). */
typedef struct ganq__cuda_queue {
    cudaStream_t stream;
    int dependent;
    int most_shared; /* bytes of shared memory of a block of the device */
} ganq__cuda_queue;

#endif
