/* ganq/hessian.h - H = X^T X over calibration activations X [tokens, K] (paper, section 3). */
#ifndef GANQ_HESSIAN_H
#define GANQ_HESSIAN_H

#include "ganq/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A [K,K] symmetric sum in f32 and a token count. Sums over parts of the data add up: see _merge. */
typedef struct ganq_hessian ganq_hessian;

/* H = 0, no tokens. K >= 1. NO_MEMORY if K*K floats do not fit. */
GANQ_NODISCARD GANQ_API ganq_status ganq_hessian_create(ganq_context *ctx, int64_t K,
                                                        ganq_hessian **out);
/* H += x^T x, tokens += rows.  x [M,K] f32/f16/bf16. NUMERIC, naming row and column, if x has a NaN or
 * infinity, or the column whose element of H's diagonal would leave the range of f32 (half of it: sums
 * round); then H is unchanged. The same bits for any number of threads. */
GANQ_NODISCARD GANQ_API ganq_status ganq_hessian_add(ganq_context *ctx, ganq_hessian *hessian,
                                                     const ganq_matrix *x);
/* into += from, tokens too. NUMERIC if an element would leave the range of f32, as above; then `into` is
 * unchanged. */
GANQ_NODISCARD GANQ_API ganq_status ganq_hessian_merge(ganq_hessian *into, const ganq_hessian *from);
/* A caller's own H [K,K] (f32 or f64), e.g. weighted by gradients. tokens: that it was summed over, which
 * says how far it is to be trusted (ganq_quantize_options.damping); 0: not known, as it is. NUMERIC if it has a NaN or infinity or
 * a negative diagonal element, INVALID_ARG if it is not symmetric (relative to sqrt(H_ii H_jj), 1e-3). */
GANQ_NODISCARD GANQ_API ganq_status ganq_hessian_import(ganq_context *ctx, const ganq_matrix *H,
                                                        int64_t tokens, ganq_hessian **out);
/* Writes H into a caller's [K,K] f32 or f64 matrix. */
GANQ_NODISCARD GANQ_API ganq_status ganq_hessian_export(const ganq_hessian *hessian,
                                                        ganq_matrix *H);
GANQ_API int64_t ganq_hessian_dim(const ganq_hessian *hessian);
GANQ_API int64_t ganq_hessian_tokens(const ganq_hessian *hessian);
/* A safetensors file with one F32 tensor "hessian" [K,K] and metadata "ganq.tokens". Written atomically. */
GANQ_NODISCARD GANQ_API ganq_status ganq_hessian_save(const ganq_hessian *hessian, const char *path);
GANQ_NODISCARD GANQ_API ganq_status ganq_hessian_load(ganq_context *ctx, const char *path,
                                                      ganq_hessian **out);
GANQ_API void ganq_hessian_free(ganq_hessian *hessian);

#ifdef __cplusplus
}
#endif
#endif
