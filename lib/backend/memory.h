/* memory.h - arrays in the memory of a context. */
#ifndef GANQ_BACKEND_MEMORY_H
#define GANQ_BACKEND_MEMORY_H

#include <stddef.h>

#include "memory_ops.h"

/* rows * width elements; contents undefined. */
ganq_status ganq__memory_elements(ganq_context *ctx, int64_t rows, int64_t width, int32_t dtype,
                                  void **out);
ganq_status ganq__memory_floats(ganq_context *ctx, int64_t rows, int64_t width, float **out);
/* A copy of an array of the process. */
ganq_status ganq__memory_copy_of(ganq_context *ctx, const void *data, size_t bytes, void **out);
/* NULL is fine, also for ctx when memory is NULL. */
void ganq__memory_release(ganq_context *ctx, void *memory);
int ganq__memory_is_host(const ganq_context *ctx);

#endif
