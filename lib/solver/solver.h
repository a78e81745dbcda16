/* solver.h - one layer: weights and Hessian in, codes and tables out. Knows no file, no model, no
 * layer handle. */
#ifndef GANQ_SOLVER_SOLVER_H
#define GANQ_SOLVER_SOLVER_H

#include "context.h"
#include "ganq/layer.h"
#include "solver_ops.h"

/* Everything allocated with ganq__malloc*; freed with ganq__solution_free. */
typedef struct ganq__solution {
    int bits;
    int64_t N, K;
    uint8_t *codes;    /* [N,K], column order of W                                            */
    float *lut;        /* [N,2^bits] ascending; exactly representable in lut_dtype            */
    int32_t lut_dtype; /* GANQ_DTYPE_F16 or F32                                               */
    int32_t *outlier_rowptr, *outlier_cols; /* CSR [N+1], columns ascending; NULL: none          */
    float *outlier_vals; /* added to the table's value; representable in F16, or F32 where F16
                            overflows */
    ganq_step *steps;
    int64_t step_count;
    double error, norm; /* of the layer as stored, float64                                      */
    double damping;     /* used */
    double seconds;
    int32_t recipe;
    char note[160];
    ganq_cost costs[GANQ_COST_FINISH]; /* one of each stage */
} ganq__solution;
void ganq__solution_free(ganq__solution *solution);

/* Fills in the defaults and checks ranges: ours are options that ganq__solve accepts. theirs NULL:
 * all defaults. */
ganq_status ganq__solver_options(ganq_quantize_options *ours, const ganq_quantize_options *theirs);

/* w [N,K] f32 contiguous, finite (NUMERIC with row and column otherwise); h [K,K] f32 or NULL
 * (identity), not modified; tokens: that it was summed over, 0: not known. options checked and with
 * defaults applied here. Ticks progress, can be canceled. */
ganq_status ganq__solve(ganq_context *ctx, int64_t N, int64_t K, const float *w, const float *h,
                        int64_t tokens, const ganq_quantize_options *options,
                        ganq__solution *out);

/* error = sum over rows of (w-w~) H (w-w~)^T and norm = sum w H w^T in float64; h NULL: identity.
 */
ganq_status ganq__objective(ganq_context *ctx, int64_t N, int64_t K, const float *w,
                            const float *w_quantized, const float *h, double *error, double *norm);

/* L L^T = A [n, lda], in place, lower triangle, float64; lda, and the rows that `a` has, are at
 * least n rounded up to 8. The same bits for any number of threads. *definite 0: A is not positive
 * definite. Ticks with `progress`, a fraction of the current piece. */
ganq_status ganq__cholesky(ganq_context *ctx, const ganq__solver_ops *ops, int64_t n, double *a,
                           int64_t lda, double progress, int *definite);

#endif
