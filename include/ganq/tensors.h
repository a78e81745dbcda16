/* ganq/tensors.h - looking into safetensors files: names, shapes, values, checksums. */
#ifndef GANQ_TENSORS_H
#define GANQ_TENSORS_H

#include "ganq/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One file, or all files of a checkpoint seen as one. Mapped, not read. Immutable; many threads may
 * read it. */
typedef struct ganq_tensors ganq_tensors;

/* path: a safetensors file, or a directory with model.safetensors or model.safetensors.index.json
 * and its shards. NOT_FOUND, or FORMAT when the header cannot be trusted; a tensor of an unknown
 * type is listed all the same. */
GANQ_NODISCARD GANQ_API ganq_status ganq_tensors_open(const char *path, ganq_tensors **out);
GANQ_API void ganq_tensors_free(ganq_tensors *tensors);
GANQ_API int64_t ganq_tensors_count(const ganq_tensors *tensors);
/* The index of a tensor, or -1. */
GANQ_API int64_t ganq_tensors_find(const ganq_tensors *tensors, const char *name);
/* A value of __metadata__, borrowed; NULL when absent. */
GANQ_API const char *ganq_tensors_meta(const ganq_tensors *tensors, const char *key);

typedef struct ganq_tensor_info {
    uint32_t struct_size;
    int32_t dtype;          /* ganq_dtype, or 0 for a type that is not one (I32, ...)     */
    const char *name;       /* this and the next two are borrowed from the handle         */
    const char *dtype_name; /* as the file says: "F16", "I32"                              */
    const char *file;       /* path of the file that holds it                              */
    int32_t rank;
    int32_t has_crc; /* 1: the file holds a CRC-32 of the stored bytes              */
    int64_t shape[8];
    int64_t size_bytes;
} ganq_tensor_info;
/* info->struct_size must be set by the caller. */
GANQ_NODISCARD GANQ_API ganq_status ganq_tensors_get(const ganq_tensors *tensors, int64_t i,
                                                     ganq_tensor_info *info);
/* Rows [first_row, first_row + out->rows) of a matrix [rows, out->cols] of floats, or a vector as
 * one row, converted to out's type: F32, or F64. */
GANQ_NODISCARD GANQ_API ganq_status ganq_tensors_read(const ganq_tensors *tensors, int64_t i,
                                                      int64_t first_row, ganq_matrix *out);
/* FORMAT when the bytes do not match the CRC-32 in the file; OK when there is none. */
GANQ_NODISCARD GANQ_API ganq_status ganq_tensors_verify(const ganq_tensors *tensors, int64_t i);

#ifdef __cplusplus
}
#endif
#endif
