/* layer_matrix.h - layers from and to the caller's matrices (accepted by ganq__matrix_read before).
 */
#ifndef GANQ_GEMM_LAYER_MATRIX_H
#define GANQ_GEMM_LAYER_MATRIX_H

#include "quantize_layer.h"

/* weight [N,K]; bias [1,N] or NULL. Reports progress as one piece. */
ganq_status ganq__layer_quantize_matrix(ganq_context *ctx, const ganq_matrix *weight,
                                        const ganq_hessian *hessian, const ganq_matrix *bias,
                                        const ganq_quantize_options *options, ganq_layer **out);
/* codes [N,K] u8, lut [N,2^bits], bias [1,N] or NULL, CSR outliers or NULL. Tables are stored as
 * F16 if that is exact, else as F32. */
ganq_status ganq__layer_import_matrix(ganq_context *ctx, int bits, const ganq_matrix *codes,
                                      const ganq_matrix *lut, const ganq_matrix *bias,
                                      const int32_t *rowptr, const int32_t *cols, const float *vals,
                                      ganq_layer **out);
/* out [N,K] f32, f16 or bf16. */
ganq_status ganq__layer_dequantize_matrix(ganq_context *ctx, const ganq_layer *layer,
                                          ganq_matrix *out);
/* codes [N,K] u8, lut [N,L] f32; either NULL. */
ganq_status ganq__layer_export_matrix(const ganq_layer *layer, ganq_matrix *codes,
                                      ganq_matrix *lut);
/* weight [N,K]; hessian NULL: identity. In pieces of rows. */
ganq_status ganq__layer_objective_matrix(ganq_context *ctx, const ganq_layer *layer,
                                         const ganq_matrix *weight, const ganq_hessian *hessian,
                                         double *error, double *norm);

#endif
