/* safetensors.h - tensors in files: read one file or a sharded checkpoint, write a file with CRC-32
 * per tensor.
 *
 * A tensor that is malformed (unknown dtype, lying shape) is an error for that tensor when it is
 * asked for; a header that cannot be trusted (overlaps, holes, out of file) is an error for the
 * file. Messages name file, tensor, expected and found. */
#ifndef GANQ_IO_SAFETENSORS_H
#define GANQ_IO_SAFETENSORS_H

#include "file.h"
#include "status.h"

enum { GANQ__MAX_RANK = 8 };

typedef enum ganq__st_dtype {
    GANQ__ST_UNKNOWN = 0, /* named in the tensor's dtype_name; also every tensor with a fault */
    GANQ__ST_F64,
    GANQ__ST_F32,
    GANQ__ST_F16,
    GANQ__ST_BF16,
    GANQ__ST_I64,
    GANQ__ST_I32,
    GANQ__ST_I16,
    GANQ__ST_I8,
    GANQ__ST_U8,
    GANQ__ST_BOOL
} ganq__st_dtype;
size_t ganq__st_dtype_size(ganq__st_dtype dtype);
const char *ganq__st_dtype_name(ganq__st_dtype dtype);
/* ganq_dtype of F64/F32/F16/BF16/U8, else 0; and back. */
int32_t ganq__st_to_dtype(ganq__st_dtype dtype);
ganq__st_dtype ganq__st_from_dtype(int32_t dtype);

typedef struct ganq__tensor {
    const char *name;
    ganq__st_dtype dtype;
    char dtype_name[16];
    int rank;
    int64_t shape[GANQ__MAX_RANK];
    int64_t count; /* elements */
    uint64_t size_bytes;
    const void *data; /* into the map; any alignment */
    uint32_t crc32;   /* of the stored bytes, where has_crc */
    int has_crc;
    ganq__map *map;    /* borrowed; retain it to outlive the file */
    const char *fault; /* what is wrong with this tensor (unknown dtype, lying shape), or NULL */
} ganq__tensor;

/* One file, or all files of a checkpoint seen as one. */
typedef struct ganq__tensors ganq__tensors;
ganq_status ganq__tensors_open_file(const char *path, ganq__tensors **out);
/* A directory: model.safetensors, or model.safetensors.index.json and its shards (each tensor of
 * the index must be in the file it names). */
ganq_status ganq__tensors_open_dir(const char *dir, ganq__tensors **out);
void ganq__tensors_free(ganq__tensors *tensors); /* maps live on while retained */
int64_t ganq__tensors_count(const ganq__tensors *tensors);
const ganq__tensor *ganq__tensors_at(const ganq__tensors *tensors, int64_t i); /* file order */
/* NULL when absent. O(1) or O(log n). */
const ganq__tensor *ganq__tensors_find(const ganq__tensors *tensors, const char *name);
/* __metadata__ of the (first) file that has the key; NULL when absent. */
const char *ganq__tensors_meta(const ganq__tensors *tensors, const char *key);
/* "model-00002-of-00003.safetensors" for messages: path of the file that holds the tensor. */
const char *ganq__tensor_file(const ganq__tensor *tensor);

/* Finds a tensor and checks dtype (bit set of 1u << ganq__st_dtype) and shape (rank, dims; a
 * negative dim: any). NOT_FOUND / FORMAT with file, tensor, expected, found. */
ganq_status ganq__tensors_require(const ganq__tensors *tensors, const char *name, uint32_t dtypes,
                                  int rank, const int64_t *shape, const ganq__tensor **out);
/* FORMAT when the tensor has a CRC and its bytes do not match. */
ganq_status ganq__tensor_verify(const ganq__tensor *tensor);
/* New f32 array (64-byte aligned, ganq__free) of a float tensor. NUMERIC is not checked. */
ganq_status ganq__tensor_to_f32(const ganq__tensor *tensor, float **out);

/* Writing: metadata and tensors are declared first, then their bytes streamed in the order of
 * declaration. Data begins at a multiple of 64 bytes. The CRC-32 of each tensor goes to
 * __metadata__ as "ganq.crc32.<name>" (patched in at commit), beside "format": "pt". */
typedef struct ganq__st_writer ganq__st_writer;
ganq_status ganq__st_writer_open(const char *path, ganq__st_writer **out);
ganq_status ganq__st_writer_meta(ganq__st_writer *writer, const char *key, const char *value);
ganq_status ganq__st_writer_declare(ganq__st_writer *writer, const char *name, ganq__st_dtype dtype,
                                    int rank, const int64_t *shape);
/* Fills the declared tensors one after the other; a call may end inside a tensor but not cross into
 * the next. */
ganq_status ganq__st_writer_data(ganq__st_writer *writer, const void *data, size_t size);
/* Patches CRCs, fsync, rename. INTERNAL if a tensor is incomplete. Frees the writer, also on
 * failure. */
ganq_status ganq__st_writer_commit(ganq__st_writer *writer);
void ganq__st_writer_abort(
    ganq__st_writer *writer); /* removes the temporary file, frees; NULL is fine */

#endif
