/* save.c - the list of what is written, its files, and the writing.
 *
 * Native: tensors outside the blocks' linears and dense linears byte for byte as they were stored,
 * quantized linears as layers. Dense: everything as one element type. Both are built in a staging
 * directory; the index comes last. */
#include "save.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "alloc.h"
#include "dtype.h"
#include "half.h"
#include "json.h"
#include "safetensors.h"
#include "save_config.h"
#include "staging.h"

enum { CHUNK_ELEMENTS = 1 << 18, CHUNK_BYTES = 1 << 22 };
static const int64_t default_shard_bytes = 5000000000;

/* One thing to write: exactly one of the four sources is set. */
typedef struct item {
    const ganq__tensor *stored;    /* its bytes as they are                                   */
    const ganq_layer *layer;       /* all tensors of a layer                                  */
    const ganq__tensor *converted; /* its values in another type                              */
    const ganq__linear *rows;      /* W~ of a quantized linear, or its bias (values)          */
    const float *values;
    const char *name; /* of the tensor; of the linear for a layer                        */
    char *owned_name; /* what `name` points to, where it was made here                   */
    int rank;
    int64_t shape[GANQ__MAX_RANK], count, bytes;
    int file;
} item;

typedef struct save {
    ganq_context *ctx;
    const ganq_model *model;
    const char *dir;
    int32_t dtype; /* of a dense export; 0: native */
    int64_t shard_bytes;
    item *items;
    int64_t item_count;
    int file_count;
    int64_t total_bytes;
    int64_t written_bytes; /* of the items before the one at hand */
    int64_t item_bytes, item_written;
    float *chunk; /* [CHUNK_ELEMENTS], or a row if that is longer */
    int64_t chunk_elements;
    void *narrow; /* the same in the target type */
} save;

/* ---- the list ---- */

static void add_tensor(save *s, const ganq__tensor *tensor) {
    item *it = &s->items[s->item_count++];
    it->name = tensor->name;
    it->rank = tensor->rank;
    it->count = tensor->count;
    for (int d = 0; d < tensor->rank; d++)
        it->shape[d] = tensor->shape[d];
    if (s->dtype) {
        it->converted = tensor;
        it->bytes = tensor->count * (int64_t)ganq__dtype_size(s->dtype);
    } else {
        it->stored = tensor;
        it->bytes = (int64_t)tensor->size_bytes;
    }
}

/* "X.weight" or "X.bias" of a quantized linear, dense again. */
static ganq_status add_dequantized(save *s, const ganq__linear *linear, const char *part) {
    item *it = &s->items[s->item_count++];
    it->owned_name = ganq__format("%s.%s", linear->name, part);
    if (!it->owned_name)
        return GANQ_ERR_NO_MEMORY;
    const int is_bias = part[0] == 'b';
    it->name = it->owned_name;
    it->rows = linear;
    it->values = is_bias ? linear->layer->bias : NULL;
    it->rank = is_bias ? 1 : 2;
    it->shape[0] = linear->N;
    it->shape[1] = linear->K;
    it->count = is_bias ? linear->N : linear->N * linear->K;
    it->bytes = it->count * (int64_t)ganq__dtype_size(s->dtype);
    return GANQ_OK;
}

static ganq_status add_linear(save *s, const ganq__linear *linear) {
    if (!linear->layer) {
        add_tensor(s, linear->weight_tensor);
        if (linear->bias_tensor)
            add_tensor(s, linear->bias_tensor);
        return GANQ_OK;
    }
    if (s->dtype) {
        GANQ_TRY(add_dequantized(s, linear, "weight"));
        return linear->layer->bias ? add_dequantized(s, linear, "bias") : GANQ_OK;
    }
    item *it = &s->items[s->item_count++];
    it->name = linear->name;
    it->layer = linear->layer;
    it->bytes = ganq__layer_stored_bytes(linear->layer);
    return GANQ_OK;
}

static ganq_status make_list(save *s) {
    const ganq_model *model = s->model;
    const int64_t most = model->store->other_count + 2 * (model->linear_count + 1);
    s->items = ganq__calloc((size_t)most, sizeof *s->items);
    if (!s->items)
        return GANQ_ERR_NO_MEMORY;
    for (int64_t i = 0; i < model->store->other_count; i++)
        add_tensor(s, model->store->others[i]);
    for (int64_t i = 0; i < model->linear_count; i++)
        GANQ_TRY(add_linear(s, ganq__model_linear(model, i)));
    if (model->head.layer) /* a dense head is one of the others */
        GANQ_TRY(add_linear(s, &model->head));
    int64_t filled = 0;
    s->file_count = 1;
    for (int64_t i = 0; i < s->item_count; i++) {
        item *it = &s->items[i];
        if (filled && it->bytes > s->shard_bytes - filled) {
            s->file_count++;
            filled = 0;
        }
        it->file = s->file_count - 1;
        filled += it->bytes;
        s->total_bytes += it->bytes;
    }
    return GANQ_OK;
}

/* ---- writing ---- */

static ganq_status begin_item(save *s, int64_t i) {
    const double total = s->total_bytes > 0 ? (double)s->total_bytes : 1;
    s->written_bytes += s->item_bytes;
    s->item_bytes = s->items[i].bytes;
    s->item_written = 0;
    return ganq__progress_at(s->ctx, GANQ_STAGE_SAVE, s->items[i].name, i, s->item_count,
                             (double)s->written_bytes / total,
                             (double)(s->written_bytes + s->item_bytes) / total);
}

static ganq_status advance(save *s, int64_t bytes) {
    s->item_written += bytes;
    return ganq__progress_tick(s->ctx, (double)s->item_written / (double)s->item_bytes);
}

static ganq_status declare(const save *s, const item *it, ganq__st_writer *writer) {
    if (it->layer)
        return ganq__layer_declare(it->layer, it->name, writer);
    const ganq__st_dtype dtype = it->stored ? it->stored->dtype : ganq__st_from_dtype(s->dtype);
    return ganq__st_writer_declare(writer, it->name, dtype, it->rank, it->shape);
}

static ganq_status write_stored(save *s, const item *it, ganq__st_writer *writer) {
    const char *bytes = it->stored->data;
    /* A damaged tensor must not get a checksum that says it is sound. */
    GANQ_TRY(ganq__tensor_verify(it->stored));
    for (int64_t at = 0; at < it->bytes; at += CHUNK_BYTES) {
        const int64_t size = it->bytes - at < CHUNK_BYTES ? it->bytes - at : CHUNK_BYTES;
        GANQ_TRY(ganq__st_writer_data(writer, bytes + at, (size_t)size));
        GANQ_TRY(advance(s, size));
    }
    return GANQ_OK;
}

/* Values that are finite and would not be in F16 or BF16. */
static ganq_status check_range(const save *s, const item *it, int64_t first, int64_t count) {
    if (s->dtype == GANQ_DTYPE_F32)
        return GANQ_OK;
    for (int64_t i = 0; i < count; i++) {
        const float value = s->chunk[i];
        if (!isfinite(value))
            continue;
        const float back = s->dtype == GANQ_DTYPE_F16 ? ganq__f16_to_f32(ganq__f32_to_f16(value))
                                                      : ganq__bf16_to_f32(ganq__f32_to_bf16(value));
        if (!isfinite(back))
            GANQ_FAIL(GANQ_ERR_NUMERIC, "tensor %s: element %" PRId64 " is %g, too large for %s",
                      it->name, first + i, (double)value, ganq__dtype_name(s->dtype));
    }
    return GANQ_OK;
}

/* Elements [first, first + count) of an item as f32. */
static void fetch(const save *s, const item *it, int64_t first, int64_t count) {
    if (it->values) {
        ganq__to_f32(s->chunk, it->values + first, GANQ_DTYPE_F32, count);
    } else if (it->rows) {
        ganq__linear_rows(it->rows, first / it->rows->K, count / it->rows->K, s->chunk);
    } else {
        const int32_t dtype = ganq__st_to_dtype(it->converted->dtype);
        const char *data = it->converted->data;
        ganq__to_f32(s->chunk, data + (size_t)first * ganq__dtype_size(dtype), dtype, count);
    }
}

static ganq_status write_converted(save *s, const item *it, ganq__st_writer *writer) {
    const int64_t element = (int64_t)ganq__dtype_size(s->dtype);
    int64_t step = s->chunk_elements;
    if (it->converted)
        GANQ_TRY(ganq__tensor_verify(it->converted));
    if (it->rows) {
        GANQ_TRY(ganq__layer_prepare(it->rows->layer));
        if (!it->values)
            step -= step % it->rows->K; /* whole rows */
    }
    for (int64_t at = 0; at < it->count; at += step) {
        const int64_t count = it->count - at < step ? it->count - at : step;
        fetch(s, it, at, count);
        GANQ_TRY(check_range(s, it, at, count));
        ganq__from_f32(s->narrow, s->chunk, s->dtype, count);
        GANQ_TRY(ganq__st_writer_data(writer, s->narrow, (size_t)(count * element)));
        GANQ_TRY(advance(s, count * element));
    }
    return GANQ_OK;
}

static ganq_status write_item(save *s, const item *it, ganq__st_writer *writer) {
    if (it->stored)
        return write_stored(s, it, writer);
    if (!it->layer)
        return write_converted(s, it, writer);
    GANQ_TRY(ganq__layer_write(it->layer, writer));
    return advance(s, it->bytes);
}

static void file_name(const save *s, int file, char *out, size_t size) {
    if (s->file_count == 1)
        snprintf(out, size, "model.safetensors");
    else
        snprintf(out, size, "model-%05d-of-%05d.safetensors", file + 1, s->file_count);
}

static ganq_status write_file(save *s, int file) {
    char name[64];
    ganq__st_writer *writer = NULL;
    ganq_status status;
    file_name(s, file, name, sizeof name);
    char *path = ganq__path_join(s->dir, name);
    if (!path)
        return GANQ_ERR_NO_MEMORY;
    GANQ_TRY_GOTO(abort_writer, ganq__st_writer_open(path, &writer));
    for (int64_t i = 0; i < s->item_count; i++)
        if (s->items[i].file == file)
            GANQ_TRY_GOTO(abort_writer, declare(s, &s->items[i], writer));
    for (int64_t i = 0; i < s->item_count; i++) {
        if (s->items[i].file != file)
            continue;
        GANQ_TRY_GOTO(abort_writer, begin_item(s, i));
        GANQ_TRY_GOTO(abort_writer, write_item(s, &s->items[i], writer));
    }
    status = ganq__st_writer_commit(writer);
    writer = NULL;
abort_writer:
    ganq__st_writer_abort(writer);
    ganq__free(path);
    return status;
}

/* ---- the index ---- */

static int map_name(json_t *map, const char *prefix, const char *part, const char *file) {
    char *name = part ? ganq__format("%s.%s", prefix, part) : ganq__strdup(prefix);
    const int failed = !name || json_object_set_new(map, name, json_string(file)) != 0;
    ganq__free(name);
    return failed;
}

static ganq_status write_index(const save *s) {
    json_t *map = json_object();
    int failed = !map;
    for (int64_t i = 0; i < s->item_count; i++) {
        const item *it = &s->items[i];
        char file[64];
        file_name(s, it->file, file, sizeof file);
        if (!it->layer) {
            failed |= map_name(map, it->name, NULL, file);
            continue;
        }
        failed |= map_name(map, it->name, "qweight", file) | map_name(map, it->name, "lut", file);
        if (it->layer->outlier_rowptr)
            failed |= map_name(map, it->name, "outlier_rowptr", file) |
                      map_name(map, it->name, "outlier_cols", file) |
                      map_name(map, it->name, "outlier_vals", file);
        if (it->layer->bias)
            failed |= map_name(map, it->name, "bias", file);
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size",
                              (json_int_t)s->total_bytes, "weight_map", map);
    char *path = ganq__path_join(s->dir, "model.safetensors.index.json");
    ganq_status status = GANQ_ERR_NO_MEMORY;
    if (index && path && !failed)
        status = ganq__json_save(path, index);
    else
        ganq__fail("no memory for the index of %" PRId64 " tensors", s->item_count);
    ganq__free(path);
    json_decref(index);
    return status;
}

/* ---- the directory ---- */

static ganq_status write_config(const save *s, const char *calibration) {
    json_t *config = NULL;
    GANQ_TRY(s->dtype ? ganq__config_dense(s->model, (ganq_dtype)s->dtype, &config)
                      : ganq__config_native(s->model, calibration, &config));
    char *path = ganq__path_join(s->dir, "config.json");
    const ganq_status status = path ? ganq__json_save(path, config) : GANQ_ERR_NO_MEMORY;
    ganq__free(path);
    json_decref(config);
    return status;
}

static ganq_status open_chunks(save *s) {
    if (!s->dtype)
        return GANQ_OK;
    s->chunk_elements = CHUNK_ELEMENTS;
    for (int64_t i = 0; i < s->item_count; i++)
        if (s->items[i].rows && s->items[i].rows->K > s->chunk_elements)
            s->chunk_elements = s->items[i].rows->K;
    s->chunk = ganq__malloc_aligned((size_t)s->chunk_elements, sizeof *s->chunk);
    s->narrow = ganq__malloc_aligned((size_t)s->chunk_elements, sizeof *s->chunk);
    return s->chunk && s->narrow ? GANQ_OK : GANQ_ERR_NO_MEMORY;
}

static ganq_status write_all(save *s, const ganq__staging *staging, const char *calibration) {
    GANQ_TRY(make_list(s));
    GANQ_TRY(open_chunks(s));
    GANQ_TRY(ganq__staging_copy_companions(staging, s->model->store->dir));
    GANQ_TRY(write_config(s, calibration));
    for (int file = 0; file < s->file_count; file++)
        GANQ_TRY(write_file(s, file));
    return s->file_count > 1 ? write_index(s) : GANQ_OK;
}

static ganq_status save_dir(ganq_context *ctx, const ganq_model *model, const char *dir,
                            int32_t dtype, const ganq_save_options *options) {
    save s = {.ctx = ctx,
              .model = model,
              .dtype = dtype,
              .shard_bytes = options->shard_bytes ? options->shard_bytes : default_shard_bytes};
    ganq__staging staging;
    if (options->force < GANQ_SWITCH_DEFAULT || options->force > GANQ_SWITCH_ON)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_save_options: force %d is none of ganq_switch",
                  (int)options->force);
    if (options->shard_bytes < 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_save_options: shard_bytes is %" PRId64,
                  options->shard_bytes);
    GANQ_TRY(
        ganq__staging_open(dir, options->force == GANQ_SWITCH_ON, model->store->dir, &staging));
    s.dir = staging.dir;
    ganq__progress_enter(ctx, GANQ_STAGE_SAVE);
    ganq_status status = write_all(&s, &staging, options->calibration);
    ganq__progress_leave(ctx);
    for (int64_t i = 0; i < s.item_count; i++)
        ganq__free(s.items[i].owned_name);
    ganq__free(s.items);
    ganq__free(s.chunk);
    ganq__free(s.narrow);
    if (status != GANQ_OK) {
        ganq__staging_abort(&staging);
        return status;
    }
    int in_place;
    status = ganq__staging_commit(&staging, &in_place);
    if (status == GANQ_OK || !in_place)
        return status;
    ganq__log(ctx, GANQ_LOG_WARNING, "%s", ganq_last_error());
    return GANQ_OK;
}

ganq_status ganq__model_save(ganq_context *ctx, const ganq_model *model, const char *dir,
                             const ganq_save_options *options) {
    return save_dir(ctx, model, dir, 0, options);
}

ganq_status ganq__model_export_dense(ganq_context *ctx, const ganq_model *model, const char *dir,
                                     ganq_dtype dtype, const ganq_save_options *options) {
    if (dtype != GANQ_DTYPE_F32 && dtype != GANQ_DTYPE_F16 && dtype != GANQ_DTYPE_BF16)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "a dense export is of F32, F16 or BF16, not of %s (%d)",
                  ganq__dtype_name(dtype), (int)dtype);
    return save_dir(ctx, model, dir, dtype, options);
}
