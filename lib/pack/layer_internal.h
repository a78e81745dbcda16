/* layer_internal.h - what layer.c and layer_file.c share. */
#ifndef GANQ_PACK_LAYER_INTERNAL_H
#define GANQ_PACK_LAYER_INTERNAL_H

#include "layer.h"

/* An empty layer: shape and guard are set, no codes, no tables. UNSUPPORTED, INVALID_ARG,
 * NO_MEMORY. */
ganq_status ganq__layer_alloc(int bits, int64_t N, int64_t K, ganq_layer **out);
/* CSR of an N x K matrix: rowptr [N+1] begins with 0 and does not fall, columns ascend and are in
 * range, values are finite. INVALID_ARG says where not. */
ganq_status ganq__layer_check_outliers(int64_t N, int64_t K, const int32_t *rowptr,
                                       const int32_t *cols, const float *vals);
/* The pages of a mapped file that hold nothing but this tensor go back to the system; touched again,
 * they are read from the file. */
void ganq__layer_drop_pages(const ganq__tensor *tensor);
/* The bit planes of row n [row_bytes], codes is scratch [K]. */
void ganq__layer_planes_row(const ganq_layer *layer, int64_t n, uint8_t *codes, uint8_t *planes);

#endif
