/* cusolver.h - Cholesky factorization by cuSOLVER, opened on first use. */
#ifndef GANQ_CUDA_CUSOLVER_H
#define GANQ_CUDA_CUSOLVER_H

#include "context.h"

/* L L^T = A [n, lda] in place, lower triangle of a row-major A in the process's memory, float64. *definite 0: A is not
 * positive definite. UNSUPPORTED (with the reason) where there is no cuSOLVER of the CUDA that this was built with. */
ganq_status ganq__cusolver_cholesky(ganq_context *ctx, int64_t n, double *a, int64_t lda, int *definite);
/* Whether the lower triangle of a row-major A [n, n] can be factored in float32; UNSUPPORTED as above. */
ganq_status ganq__cusolver_definite_f32(ganq_context *ctx, int64_t n, const float *a, int *definite);

#endif
