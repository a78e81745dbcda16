/* compensate.h - fitting a linear to inputs that went through quantized layers.
 *
 * With X the inputs of the dense model and Z those behind the quantized layers, what should be
 * small is
 *   || X W^T - Z W~^T ||^2 = (w' - w~) H (w' - w~)^T + const per row,   H = Z^T Z,
 *   w' = w + w (X - Z)^T Z H^-1:
 * the ordinary problem for a weight that makes up for the inputs' error as far as it is linear in
 * them. The correction is fitted to few directions of noisy data, so H is damped and only a part of
 * it is taken. */
#ifndef GANQ_PIPELINE_COMPENSATE_H
#define GANQ_PIPELINE_COMPENSATE_H

#include "hessian.h"

typedef struct ganq__compensation {
    int64_t K;
    int64_t chunk;     /* most tokens in one call of _add      */
    float *cross;      /* [K,K] (X - Z)^T Z; the correction after _solve */
    float *transposed; /* [K, chunk] scratch                   */
} ganq__compensation;

ganq_status ganq__compensation_open(int64_t K, int64_t chunk, ganq__compensation *out);
void ganq__compensation_close(ganq__compensation *c); /* and zeroes it */
/* x, z [M,K]: the same tokens of both; M <= chunk. `what` names the inputs in the message on NaN or
 * infinity; `progress` is the fraction of the current piece to tick with. */
ganq_status ganq__compensation_add(ganq_context *ctx, ganq__compensation *c, int64_t M,
                                   const float *x, int64_t ldx, const float *z, int64_t ldz,
                                   const char *what, double progress);
/* cross becomes strength * cross (H + damping)^-1, zero where H has no usable factor. */
ganq_status ganq__compensation_solve(ganq_context *ctx, ganq__compensation *c,
                                     const ganq_hessian *hessian, float strength);
/* out [N,K] = w + w cross. */
ganq_status ganq__compensation_apply(ganq_context *ctx, const ganq__compensation *c, int64_t N,
                                     const float *w, float *out);
/* Bytes that _open and _solve hold. */
int64_t ganq__compensation_bytes(int64_t K);

#endif
