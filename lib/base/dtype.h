/* dtype.h - element types and the caller's matrices: sizes, checks, conversion row by row. */
#ifndef GANQ_BASE_DTYPE_H
#define GANQ_BASE_DTYPE_H

#include "status.h"

/* Bytes per element; 0 for an unknown type. */
size_t ganq__dtype_size(int32_t dtype);
/* "F32"; "unknown" for an unknown type. */
const char *ganq__dtype_name(int32_t dtype);

#define GANQ__DTYPE_BIT(dtype) (1u << (dtype))
/* f32, f16, bf16: what weights and activations may be. */
#define GANQ__DTYPES_FLOAT                                                                         \
    (GANQ__DTYPE_BIT(GANQ_DTYPE_F32) | GANQ__DTYPE_BIT(GANQ_DTYPE_F16) |                           \
     GANQ__DTYPE_BIT(GANQ_DTYPE_BF16))

/* Checks pointer, struct_size, type (one of the set), shape, stride, device; `what` names the argument. rows or cols
 * negative: any. Copies the matrix to *ours with row_stride filled in. */
ganq_status ganq__matrix_read(ganq_matrix *ours, const ganq_matrix *theirs, uint32_t dtypes, int64_t rows,
                              int64_t cols, const char *what);
/* count elements to f32 / f64; src is of `dtype` (F32, F16, BF16, F64), possibly unaligned. */
void ganq__to_f32(float *dst, const void *src, int32_t dtype, int64_t count);
/* f32 to `dtype`, rounding to nearest even. */
void ganq__from_f32(void *dst, const float *src, int32_t dtype, int64_t count);
/* The address of row r. */
static inline const void *ganq__matrix_row(const ganq_matrix *m, int64_t r) {
    return (const char *)m->data + (size_t)(r * m->row_stride) * ganq__dtype_size(m->dtype);
}
static inline void *ganq__matrix_row_mut(ganq_matrix *m, int64_t r) {
    return (char *)m->data + (size_t)(r * m->row_stride) * ganq__dtype_size(m->dtype);
}
/* Index of the first NaN or infinity, or -1. */
int64_t ganq__find_nonfinite(const float *values, int64_t count);

#endif
