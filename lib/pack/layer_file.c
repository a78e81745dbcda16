/* layer_file.c - layers in safetensors files (docs/format.md). */
#include "layer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "dtype.h"
#include "layer_internal.h"
#include "planes.h"

enum {
    ST_I32 = 1u << GANQ__ST_I32,
    ST_TABLE = 1u << GANQ__ST_F16 | 1u << GANQ__ST_F32,
    ST_FLOAT = ST_TABLE | 1u << GANQ__ST_BF16
};

/* "<layer>.<part>" in a buffer that lives as long as a read or a declaration. */
typedef struct names {
    char *text;
    size_t length; /* of the layer's name */
} names;

static ganq_status names_init(names *n, const char *layer) {
    n->length = strlen(layer);
    n->text = ganq__format("%s.outlier_rowptr", layer); /* the longest */
    return n->text ? GANQ_OK : GANQ_ERR_NO_MEMORY;
}

static const char *part(names *n, const char *suffix) {
    strcpy(n->text + n->length + 1, suffix);
    return n->text;
}

/* ---- shape ---- */

/* "N,K,bits" of the metadata; *found = 0 when the key is absent. */
static ganq_status read_meta(const ganq__tensors *tensors, const char *name, int64_t shape[3],
                             int *found) {
    char *key = ganq__format("ganq.%s", name);
    if (!key)
        return GANQ_ERR_NO_MEMORY;
    const char *text = ganq__tensors_meta(tensors, key);
    ganq__free(key);
    *found = text != NULL;
    const char *at = text;
    for (int i = 0; text && i < 3; i++) {
        char *end;
        errno = 0;
        shape[i] = strtoll(at, &end, 10);
        if (end == at || errno || shape[i] < 1 || *end != (i < 2 ? ',' : '\0'))
            GANQ_FAIL(GANQ_ERR_FORMAT, "metadata \"ganq.%s\" is \"%s\", expected \"N,K,bits\"",
                      name, text);
        at = end + 1;
    }
    return GANQ_OK;
}

/* Fills in a shape that is all 0, and holds one that is not against the metadata. */
static ganq_status settle_shape(const ganq__tensors *tensors, const ganq__tensor *codes,
                                const char *name, int64_t shape[3]) {
    int64_t meta[3];
    int found;
    GANQ_TRY(read_meta(tensors, name, meta, &found));
    if (shape[0] == 0 && shape[1] == 0 && shape[2] == 0) {
        if (!found)
            GANQ_FAIL(
                GANQ_ERR_FORMAT,
                "metadata \"ganq.%s\" (\"N,K,bits\") is missing, and nothing else states the shape",
                name);
        memcpy(shape, meta, sizeof meta);
    } else if (found && memcmp(shape, meta, sizeof meta) != 0) {
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "metadata \"ganq.%s\" is \"%lld,%lld,%lld\", expected \"%lld,%lld,%lld\"", name,
                  (long long)meta[0], (long long)meta[1], (long long)meta[2], (long long)shape[0],
                  (long long)shape[1], (long long)shape[2]);
    }
    if (shape[0] > INT32_MAX || shape[1] > INT32_MAX || shape[2] < 2 || shape[2] > 4)
        GANQ_FAIL(shape[2] < 2 || shape[2] > 4 ? GANQ_ERR_UNSUPPORTED : GANQ_ERR_FORMAT,
                  "tensor %s: a layer of %lld x %lld with %lld bits, expected 2 to 4 bits and at "
                  "most 2147483647 "
                  "rows and columns",
                  codes->name, (long long)shape[0], (long long)shape[1], (long long)shape[2]);
    return GANQ_OK;
}

/* ---- reading ---- */

static ganq_status read_codes(ganq_layer *layer, const ganq__tensors *tensors, const char *name) {
    const int64_t shape[2] = {layer->N, layer->row_bytes / 4};
    const ganq__tensor *tensor;
    GANQ_TRY(ganq__tensors_require(tensors, name, ST_I32, 2, shape, &tensor));
    char *copy = ganq__strdup(name);
    if (!copy)
        return GANQ_ERR_NO_MEMORY;
    layer->planes = *tensor;
    layer->planes.name = copy;
    layer->planes.map = ganq__map_retain(tensor->map);
    return GANQ_OK;
}

static ganq_status read_lut(ganq_layer *layer, const ganq__tensors *tensors, const char *name) {
    const int64_t shape[2] = {layer->N, layer->L};
    const ganq__tensor *tensor;
    GANQ_TRY(ganq__tensors_require(tensors, name, ST_TABLE, 2, shape, &tensor));
    GANQ_TRY(ganq__tensor_verify(tensor));
    layer->lut_dtype = ganq__st_to_dtype(tensor->dtype);
    layer->lut = ganq__malloc_aligned((size_t)tensor->count, ganq__dtype_size(layer->lut_dtype));
    if (!layer->lut)
        return GANQ_ERR_NO_MEMORY;
    memcpy(layer->lut, tensor->data, (size_t)tensor->count * ganq__dtype_size(layer->lut_dtype));
    ganq__layer_drop_pages(tensor);
    float table[16];
    for (int64_t i = 0; i < layer->N * layer->L; i++) {
        const float *t = table + i % layer->L;
        if (i % layer->L == 0)
            ganq__layer_table(layer, i / layer->L, table);
        if (!isfinite(t[0]))
            GANQ_FAIL(GANQ_ERR_FORMAT,
                      "%s: tensor %s: element [%lld,%lld] is %g, expected a finite number",
                      ganq__tensor_file(tensor), name, (long long)(i / layer->L),
                      (long long)(i % layer->L), (double)t[0]);
        if (i % layer->L != 0 && t[-1] > t[0])
            GANQ_FAIL(
                GANQ_ERR_FORMAT,
                "%s: tensor %s: element [%lld,%lld] is %g after %g, expected ascending tables",
                ganq__tensor_file(tensor), name, (long long)(i / layer->L),
                (long long)(i % layer->L), (double)t[0], (double)t[-1]);
    }
    return GANQ_OK;
}

/* A copy of an I32 tensor: the map may hold it at any alignment. */
static ganq_status copy_i32(const ganq__tensor *tensor, int32_t **out) {
    GANQ_TRY(ganq__tensor_verify(tensor));
    GANQ_ALLOC(*out, (size_t)tensor->count);
    memcpy(*out, tensor->data, (size_t)tensor->count * sizeof **out);
    return GANQ_OK;
}

static ganq_status read_outliers(ganq_layer *layer, const ganq__tensors *tensors, names *n) {
    const int has_rowptr = ganq__tensors_find(tensors, part(n, "outlier_rowptr")) != NULL;
    const int has_cols = ganq__tensors_find(tensors, part(n, "outlier_cols")) != NULL;
    const int has_vals = ganq__tensors_find(tensors, part(n, "outlier_vals")) != NULL;
    if (!has_rowptr && !has_cols && !has_vals)
        return GANQ_OK;
    const ganq__tensor *rowptr, *cols, *vals;
    const int64_t rows = layer->N + 1;
    int64_t count = -1;
    GANQ_TRY(ganq__tensors_require(tensors, part(n, "outlier_rowptr"), ST_I32, 1, &rows, &rowptr));
    GANQ_TRY(ganq__tensors_require(tensors, part(n, "outlier_cols"), ST_I32, 1, &count, &cols));
    count = cols->count;
    GANQ_TRY(ganq__tensors_require(tensors, part(n, "outlier_vals"), ST_TABLE, 1, &count, &vals));
    GANQ_TRY(copy_i32(rowptr, &layer->outlier_rowptr));
    GANQ_TRY(copy_i32(cols, &layer->outlier_cols));
    GANQ_TRY(ganq__tensor_verify(vals));
    GANQ_TRY(ganq__tensor_to_f32(vals, &layer->outlier_vals));
    layer->outlier_dtype = ganq__st_to_dtype(vals->dtype);
    const int32_t stated = layer->outlier_rowptr[layer->N];
    if (stated != count)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: tensor %s ends with %d, expected %lld, the length of outlier_cols",
                  ganq__tensor_file(rowptr), rowptr->name, (int)stated, (long long)count);
    if (ganq__layer_check_outliers(layer->N, layer->K, layer->outlier_rowptr, layer->outlier_cols,
                                   layer->outlier_vals) != GANQ_OK) {
        n->text[n->length] = 0;
        ganq__fail_prefix("%s: layer %s", ganq__tensor_file(rowptr), n->text);
        return GANQ_ERR_FORMAT;
    }
    return GANQ_OK;
}

static ganq_status read_bias(ganq_layer *layer, const ganq__tensors *tensors, const char *name) {
    const ganq__tensor *tensor;
    if (!ganq__tensors_find(tensors, name))
        return GANQ_OK;
    GANQ_TRY(ganq__tensors_require(tensors, name, ST_FLOAT, 1, &layer->N, &tensor));
    GANQ_TRY(ganq__tensor_verify(tensor));
    GANQ_TRY(ganq__tensor_to_f32(tensor, &layer->bias));
    layer->bias_dtype = ganq__st_to_dtype(tensor->dtype);
    const int64_t bad = ganq__find_nonfinite(layer->bias, layer->N);
    if (bad >= 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: tensor %s: element %lld is %g, expected a finite number",
                  ganq__tensor_file(tensor), name, (long long)bad, (double)layer->bias[bad]);
    return GANQ_OK;
}

ganq_status ganq__layer_read(const ganq__tensors *tensors, const char *name, int64_t N, int64_t K,
                             int bits, ganq_layer **out) {
    ganq_layer *layer = NULL;
    ganq_status status;
    const ganq__tensor *codes;
    int64_t shape[3] = {N, K, bits};
    const int64_t any[2] = {-1, -1};
    names n = {0};
    GANQ_TRY(names_init(&n, name));
    GANQ_TRY_GOTO(release,
                  ganq__tensors_require(tensors, part(&n, "qweight"), ST_I32, 2, any, &codes));
    status = settle_shape(tensors, codes, name, shape);
    if (status != GANQ_OK) {
        if (status != GANQ_ERR_NO_MEMORY)
            ganq__fail_prefix("%s", ganq__tensor_file(codes));
        goto release;
    }
    GANQ_TRY_GOTO(release, ganq__layer_alloc((int)shape[2], shape[0], shape[1], &layer));
    GANQ_TRY_GOTO(release, read_codes(layer, tensors, part(&n, "qweight")));
    GANQ_TRY_GOTO(release, read_lut(layer, tensors, part(&n, "lut")));
    GANQ_TRY_GOTO(release, read_outliers(layer, tensors, &n));
    GANQ_TRY_GOTO(release, read_bias(layer, tensors, part(&n, "bias")));
    ganq__free(n.text);
    *out = layer;
    return GANQ_OK;
release:
    ganq__free(n.text);
    ganq__layer_release(layer);
    return status;
}

/* ---- writing ---- */

ganq_status ganq__layer_declare(const ganq_layer *layer, const char *name,
                                ganq__st_writer *writer) {
    names n;
    ganq_status status;
    const ganq__st_dtype lut_dtype = ganq__st_from_dtype(layer->lut_dtype);
    const int64_t codes[2] = {layer->N, layer->row_bytes / 4}, lut[2] = {layer->N, layer->L};
    char *key = NULL, *value = NULL;
    GANQ_TRY(names_init(&n, name));
    key = ganq__format("ganq.%s", name);
    value = ganq__format("%lld,%lld,%d", (long long)layer->N, (long long)layer->K, layer->bits);
    if (!key || !value) {
        status = GANQ_ERR_NO_MEMORY;
        goto free_names;
    }
    GANQ_TRY_GOTO(free_names, ganq__st_writer_meta(writer, key, value));
    GANQ_TRY_GOTO(free_names,
                  ganq__st_writer_declare(writer, part(&n, "qweight"), GANQ__ST_I32, 2, codes));
    GANQ_TRY_GOTO(free_names, ganq__st_writer_declare(writer, part(&n, "lut"), lut_dtype, 2, lut));
    if (layer->outlier_rowptr) {
        const int64_t rows = layer->N + 1, count = layer->outlier_rowptr[layer->N];
        const ganq__st_dtype dtype = ganq__st_from_dtype(layer->outlier_dtype);
        GANQ_TRY_GOTO(free_names, ganq__st_writer_declare(writer, part(&n, "outlier_rowptr"),
                                                          GANQ__ST_I32, 1, &rows));
        GANQ_TRY_GOTO(free_names, ganq__st_writer_declare(writer, part(&n, "outlier_cols"),
                                                          GANQ__ST_I32, 1, &count));
        GANQ_TRY_GOTO(free_names,
                      ganq__st_writer_declare(writer, part(&n, "outlier_vals"), dtype, 1, &count));
    }
    if (layer->bias)
        GANQ_TRY_GOTO(free_names, ganq__st_writer_declare(writer, part(&n, "bias"),
                                                          ganq__st_from_dtype(layer->bias_dtype), 1,
                                                          &layer->N));
    status = GANQ_OK;
free_names:
    ganq__free(n.text);
    ganq__free(key);
    ganq__free(value);
    return status;
}

static ganq_status write_codes(const ganq_layer *layer, ganq__st_writer *writer) {
    ganq_status status = GANQ_OK;
    GANQ_TRY(ganq__layer_check(layer));
    uint8_t *scratch = ganq__malloc((size_t)(layer->K + layer->row_bytes), 1);
    if (!scratch)
        return GANQ_ERR_NO_MEMORY;
    uint8_t *row = scratch + layer->K;
    for (int64_t n = 0; n < layer->N && status == GANQ_OK; n++) {
        ganq__layer_planes_row(layer, n, scratch, row);
        status = ganq__st_writer_data(writer, row, (size_t)layer->row_bytes);
    }
    ganq__free(scratch);
    return status;
}

static ganq_status write_floats(const float *values, int64_t count, int32_t dtype,
                                ganq__st_writer *writer) {
    enum { PIECE = 1024 };
    for (int64_t i = 0; i < count; i += PIECE) {
        float stored[PIECE];
        const int64_t piece = count - i < PIECE ? count - i : PIECE;
        ganq__from_f32(stored, values + i, dtype, piece);
        GANQ_TRY(ganq__st_writer_data(writer, stored, (size_t)piece * ganq__dtype_size(dtype)));
    }
    return GANQ_OK;
}

ganq_status ganq__layer_write(const ganq_layer *layer, ganq__st_writer *writer) {
    GANQ_TRY(write_codes(layer, writer));
    GANQ_TRY(ganq__st_writer_data(
        writer, layer->lut, (size_t)(layer->N * layer->L) * ganq__dtype_size(layer->lut_dtype)));
    if (layer->outlier_rowptr) {
        const int32_t count = layer->outlier_rowptr[layer->N];
        GANQ_TRY(ganq__st_writer_data(writer, layer->outlier_rowptr, (size_t)(layer->N + 1) * 4));
        GANQ_TRY(ganq__st_writer_data(writer, layer->outlier_cols, (size_t)count * 4));
        GANQ_TRY(write_floats(layer->outlier_vals, count, layer->outlier_dtype, writer));
    }
    return layer->bias ? write_floats(layer->bias, layer->N, layer->bias_dtype, writer) : GANQ_OK;
}

ganq_status ganq__layer_save(const ganq_layer *layer, const char *path, const char *name) {
    ganq__st_writer *writer;
    ganq_status status;
    GANQ_TRY(ganq__st_writer_open(path, &writer));
    GANQ_TRY_GOTO(abort_writer, ganq__layer_declare(layer, name, writer));
    GANQ_TRY_GOTO(abort_writer, ganq__layer_write(layer, writer));
    return ganq__st_writer_commit(writer);
abort_writer:
    ganq__st_writer_abort(writer);
    return status;
}

/* The name of the only layer in the file, ganq__free. */
static ganq_status only_name(const ganq__tensors *tensors, const char *path, char **name) {
    static const char suffix[] = ".qweight";
    const size_t suffix_length = sizeof suffix - 1;
    const char *only = NULL;
    for (int64_t i = 0; i < ganq__tensors_count(tensors); i++) {
        const char *tensor = ganq__tensors_at(tensors, i)->name;
        const size_t length = strlen(tensor);
        if (length <= suffix_length || strcmp(tensor + length - suffix_length, suffix) != 0)
            continue;
        if (only)
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "%s: holds several layers (%s, %s): the name of one must be given", path,
                      only, tensor);
        only = tensor;
    }
    if (!only)
        GANQ_FAIL(GANQ_ERR_NOT_FOUND, "%s: no tensor is called <layer>.qweight", path);
    *name = ganq__strndup(only, strlen(only) - suffix_length);
    return *name ? GANQ_OK : GANQ_ERR_NO_MEMORY;
}

ganq_status ganq__layer_load(const char *path, const char *name, ganq_layer **out) {
    ganq__tensors *tensors;
    ganq_layer *layer = NULL;
    char *only = NULL;
    ganq_status status;
    GANQ_TRY(ganq__tensors_open_file(path, &tensors));
    if (!name)
        GANQ_TRY_GOTO(free_tensors, only_name(tensors, path, &only));
    GANQ_TRY_GOTO(free_tensors, ganq__layer_read(tensors, name ? name : only, 0, 0, 0, &layer));
    status = ganq__layer_prepare(layer);
    if (status == GANQ_OK)
        *out = layer;
    else
        ganq__layer_release(layer);
free_tensors:
    ganq__free(only);
    ganq__tensors_free(tensors);
    return status;
}
