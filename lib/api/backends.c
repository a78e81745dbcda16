/* backends.c - the one file that names the devices, best first. */
#include "backends.h"

#include "cpu.h"

#if defined(GANQ_HAS_CUDA)
extern const ganq__backend ganq__cuda_backend;
#endif

const ganq__backend_list ganq__backends = {{
#if defined(GANQ_HAS_CUDA)
    &ganq__cuda_backend,
#endif
    &ganq__cpu_backend,
    NULL,
}};
