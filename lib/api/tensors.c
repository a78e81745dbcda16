/* tensors.c - the public functions of ganq/tensors.h. */
#include "ganq/tensors.h"

#include <inttypes.h>
#include <string.h>

#include "alloc.h"
#include "dtype.h"
#include "file.h"
#include "safetensors.h"

struct ganq_tensors {
    ganq__tensors *files;
};

ganq_status ganq_tensors_open(const char *path, ganq_tensors **out) {
    if (!path || !out)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_tensors_open: %s is NULL", path ? "out" : "path");
    GANQ_TRY(ganq__path_check(path, "ganq_tensors_open: path"));
    ganq_tensors *tensors;
    GANQ_ALLOC(tensors, 1);
    const ganq_status status = ganq__path_is_dir(path)
                                   ? ganq__tensors_open_dir(path, &tensors->files)
                                   : ganq__tensors_open_file(path, &tensors->files);
    if (status != GANQ_OK) {
        ganq__free(tensors);
        return status;
    }
    *out = tensors;
    return GANQ_OK;
}

void ganq_tensors_free(ganq_tensors *tensors) {
    if (!tensors)
        return;
    ganq__tensors_free(tensors->files);
    ganq__free(tensors);
}

int64_t ganq_tensors_count(const ganq_tensors *tensors) {
    return tensors ? ganq__tensors_count(tensors->files) : 0;
}

int64_t ganq_tensors_find(const ganq_tensors *tensors, const char *name) {
    if (!tensors || !name)
        return -1;
    const ganq__tensor *found = ganq__tensors_find(tensors->files, name);
    for (int64_t i = 0; found && i < ganq__tensors_count(tensors->files); i++)
        if (ganq__tensors_at(tensors->files, i) == found)
            return i;
    return -1;
}

const char *ganq_tensors_meta(const ganq_tensors *tensors, const char *key) {
    return tensors && key ? ganq__tensors_meta(tensors->files, key) : NULL;
}

static ganq_status get(const ganq_tensors *tensors, int64_t i, const char *function,
                       const ganq__tensor **out) {
    if (!tensors)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: tensors is NULL", function);
    const int64_t count = ganq__tensors_count(tensors->files);
    if (i < 0 || i >= count)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: tensor %" PRId64 " of %" PRId64, function, i, count);
    *out = ganq__tensors_at(tensors->files, i);
    return GANQ_OK;
}

ganq_status ganq_tensors_get(const ganq_tensors *tensors, int64_t i, ganq_tensor_info *info) {
    const ganq__tensor *tensor;
    GANQ_TRY(get(tensors, i, "ganq_tensors_get", &tensor));
    ganq_tensor_info ours = {
        .dtype = ganq__st_to_dtype(tensor->dtype),
        .name = tensor->name,
        .dtype_name = tensor->dtype_name,
        .file = ganq__tensor_file(tensor),
        .rank = tensor->rank,
        .has_crc = tensor->has_crc,
        .size_bytes = (int64_t)tensor->size_bytes,
    };
    for (int d = 0; d < tensor->rank && d < 8; d++)
        ours.shape[d] = tensor->shape[d];
    return ganq__struct_write(info, &ours, sizeof ours, "ganq_tensor_info");
}

ganq_status ganq_tensors_read(const ganq_tensors *tensors, int64_t i, int64_t first_row,
                              ganq_matrix *out) {
    const ganq__tensor *tensor;
    ganq_matrix m;
    GANQ_TRY(get(tensors, i, "ganq_tensors_read", &tensor));
    GANQ_TRY(ganq__matrix_read(
        &m, out, GANQ__DTYPE_BIT(GANQ_DTYPE_F32) | GANQ__DTYPE_BIT(GANQ_DTYPE_F64), -1, -1, "out"));
    if (tensor->fault)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: tensor %s: %s", ganq__tensor_file(tensor), tensor->name,
                  tensor->fault);
    const int32_t dtype = ganq__st_to_dtype(tensor->dtype);
    if (!dtype || dtype == GANQ_DTYPE_U8 || tensor->rank < 1 || tensor->rank > 2)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: tensor %s: expected a matrix of F64, F32, F16 or BF16, found %s of rank %d",
                  ganq__tensor_file(tensor), tensor->name, tensor->dtype_name, tensor->rank);
    const int64_t rows = tensor->rank == 2 ? tensor->shape[0] : 1;
    const int64_t cols = tensor->shape[tensor->rank - 1];
    if (m.cols != cols || first_row < 0 || m.rows > rows || first_row > rows - m.rows)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "%s: tensor %s is [%" PRId64 ",%" PRId64 "]; asked for %" PRId64
                  " rows of %" PRId64 " columns from row %" PRId64,
                  ganq__tensor_file(tensor), tensor->name, rows, cols, m.rows, m.cols, first_row);
    const size_t row_bytes = (size_t)cols * ganq__dtype_size(dtype);
    for (int64_t r = 0; r < m.rows; r++) {
        const char *row = (const char *)tensor->data + (size_t)(first_row + r) * row_bytes;
        void *to = ganq__matrix_row_mut(&m, r);
        if (dtype == GANQ_DTYPE_F64 && m.dtype == GANQ_DTYPE_F64) {
            memcpy(to, row, row_bytes);
        } else if (m.dtype == GANQ_DTYPE_F32) {
            ganq__to_f32(to, row, dtype, cols);
        } else {
            double *wide = to;
            for (int64_t k = 0; k < cols; k++) {
                float value;
                ganq__to_f32(&value, row + (size_t)k * ganq__dtype_size(dtype), dtype, 1);
                wide[k] = value;
            }
        }
    }
    return GANQ_OK;
}

ganq_status ganq_tensors_verify(const ganq_tensors *tensors, int64_t i) {
    const ganq__tensor *tensor;
    GANQ_TRY(get(tensors, i, "ganq_tensors_verify", &tensor));
    return ganq__tensor_verify(tensor);
}
