/* safetensors.c - reading safetensors: one file, or the shards of a checkpoint seen as one.
 *
 * A file is 8 bytes of header length (little-endian), a JSON header, and the data, which the
 * tensors must cover without gaps or overlaps. Everything is checked when the file is opened;
 * tensors point into the map. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "buffer.h"
#include "dtype.h"
#include "json.h"
#include "safetensors.h"

static const uint64_t max_header_bytes = 100000000; /* the format's own limit */
#define CRC_PREFIX "ganq.crc32."

static const struct {
    const char *name;
    size_t size;
    int32_t dtype; /* ganq_dtype, or 0 */
} dtypes[] = {
    [GANQ__ST_UNKNOWN] = {"unknown", 0, 0},
    [GANQ__ST_F64] = {"F64", 8, GANQ_DTYPE_F64},
    [GANQ__ST_F32] = {"F32", 4, GANQ_DTYPE_F32},
    [GANQ__ST_F16] = {"F16", 2, GANQ_DTYPE_F16},
    [GANQ__ST_BF16] = {"BF16", 2, GANQ_DTYPE_BF16},
    [GANQ__ST_I64] = {"I64", 8, 0},
    [GANQ__ST_I32] = {"I32", 4, 0},
    [GANQ__ST_I16] = {"I16", 2, 0},
    [GANQ__ST_I8] = {"I8", 1, 0},
    [GANQ__ST_U8] = {"U8", 1, GANQ_DTYPE_U8},
    [GANQ__ST_BOOL] = {"BOOL", 1, 0},
};
enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };

size_t ganq__st_dtype_size(ganq__st_dtype dtype) {
    return (unsigned)dtype < DTYPE_COUNT ? dtypes[dtype].size : 0;
}

const char *ganq__st_dtype_name(ganq__st_dtype dtype) {
    return dtypes[(unsigned)dtype < DTYPE_COUNT ? dtype : GANQ__ST_UNKNOWN].name;
}

int32_t ganq__st_to_dtype(ganq__st_dtype dtype) {
    return (unsigned)dtype < DTYPE_COUNT ? dtypes[dtype].dtype : 0;
}

ganq__st_dtype ganq__st_from_dtype(int32_t dtype) {
    for (int i = 1; i < DTYPE_COUNT; i++)
        if (dtypes[i].dtype == dtype && dtype)
            return (ganq__st_dtype)i;
    return GANQ__ST_UNKNOWN;
}

/* One safetensors file. */
typedef struct file {
    ganq__map *map;
    json_t *metadata; /* __metadata__, or NULL */
    char *names;      /* the tensors' names, one after the other */
    ganq__tensor *tensors;
    int64_t count;
} file;

struct ganq__tensors {
    char *path; /* what was asked for */
    file *files;
    int64_t file_count;
    const ganq__tensor **in_order; /* file after file, by offset */
    const ganq__tensor **by_name;
    int64_t count;
};

static void file_close(file *f) {
    for (int64_t i = 0; i < f->count; i++)
        ganq__free((char *)f->tensors[i].fault);
    ganq__free(f->tensors);
    ganq__free(f->names);
    json_decref(f->metadata);
    ganq__map_release(f->map);
    memset(f, 0, sizeof *f);
}

/* The fault of one tensor, in words; the tensor then has no usable type. */
static ganq_status set_fault(ganq__tensor *tensor, char *fault) {
    if (!fault)
        return GANQ_ERR_NO_MEMORY;
    tensor->fault = fault;
    tensor->dtype = GANQ__ST_UNKNOWN;
    return GANQ_OK;
}

/* ---- the header ---- */

static ganq_status parse_dtype(const char *path, const json_t *entry, ganq__tensor *tensor) {
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: tensor %s: dtype is missing or not a string", path,
                  tensor->name);
    snprintf(tensor->dtype_name, sizeof tensor->dtype_name, "%s", name);
    for (int i = 1; i < DTYPE_COUNT; i++)
        if (!strcmp(name, dtypes[i].name))
            tensor->dtype = (ganq__st_dtype)i;
    if (tensor->dtype == GANQ__ST_UNKNOWN)
        return set_fault(tensor, ganq__format("dtype %s is not known", tensor->dtype_name));
    return GANQ_OK;
}

static ganq_status parse_shape(const char *path, const json_t *entry, ganq__tensor *tensor) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: tensor %s: shape is missing or not a list", path,
                  tensor->name);
    size_t rank = json_array_size(shape);
    int64_t count = 1;
    int overflow = 0;
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: tensor %s: shape[%zu] is not a non-negative integer",
                      path, tensor->name, i);
        int64_t size = (int64_t)json_integer_value(dim);
        if (i < GANQ__MAX_RANK)
            tensor->shape[i] = size;
        overflow |= __builtin_mul_overflow(count, size, &count);
    }
    tensor->rank = rank < GANQ__MAX_RANK ? (int)rank : GANQ__MAX_RANK;
    tensor->count = overflow ? 0 : count;
    if (tensor->fault)
        return GANQ_OK;
    if (rank > GANQ__MAX_RANK)
        return set_fault(tensor,
                         ganq__format("rank %zu, expected at most %d", rank, GANQ__MAX_RANK));
    if (overflow)
        return set_fault(tensor, ganq__format("its shape has more than 2^63 elements"));
    return GANQ_OK;
}

static ganq_status parse_offsets(const char *path, const json_t *entry, uint64_t data_size,
                                 const uint8_t *data, ganq__tensor *tensor) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second) ||
        json_integer_value(first) < 0 || json_integer_value(second) < 0)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: tensor %s: data_offsets is not a pair of non-negative integers", path,
                  tensor->name);
    uint64_t begin = (uint64_t)json_integer_value(first),
             end = (uint64_t)json_integer_value(second);
    if (begin > end)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: tensor %s: data_offsets [%" PRIu64 ", %" PRIu64 "] end before they begin",
                  path, tensor->name, begin, end);
    if (end > data_size)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: tensor %s: data_offsets [%" PRIu64 ", %" PRIu64 "] in a file with %" PRIu64
                  " bytes of data",
                  path, tensor->name, begin, end, data_size);
    tensor->data = data + begin;
    tensor->size_bytes = end - begin;
    uint64_t needed;
    if (!tensor->fault &&
        (__builtin_mul_overflow((uint64_t)tensor->count, dtypes[tensor->dtype].size, &needed) ||
         needed != tensor->size_bytes))
        return set_fault(tensor,
                         ganq__format("its shape has %" PRId64 " elements of %s, but data_offsets "
                                      "[%" PRIu64 ", %" PRIu64 "] hold %" PRIu64 " bytes",
                                      tensor->count, tensor->dtype_name, begin, end,
                                      tensor->size_bytes));
    return GANQ_OK;
}

static ganq_status parse_crc(const char *path, const json_t *metadata, ganq__buffer *key,
                             ganq__tensor *tensor) {
    key->size = 0;
    GANQ_TRY(ganq__buffer_printf(key, CRC_PREFIX "%s", tensor->name));
    const char *text = json_string_value(json_object_get(metadata, key->data));
    if (!text)
        return GANQ_OK;
    if (strlen(text) != 8 || strspn(text, "0123456789abcdefABCDEF") != 8)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: tensor %s: CRC-32 of 8 hexadecimal digits expected, found \"%.20s\"", path,
                  tensor->name, text);
    tensor->crc32 = (uint32_t)strtoul(text, NULL, 16);
    tensor->has_crc = 1;
    return GANQ_OK;
}

static ganq_status check_metadata(const char *path, json_t *metadata) {
    if (metadata && !json_is_object(metadata))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: __metadata__ is not an object", path);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: __metadata__: the value of \"%s\" is not a string",
                      path, key);
    }
    return GANQ_OK;
}

static int compare_offsets(const void *a, const void *b) {
    const ganq__tensor *x = a, *y = b;
    uintptr_t x_begin = (uintptr_t)x->data, y_begin = (uintptr_t)y->data;
    if (x_begin != y_begin)
        return x_begin < y_begin ? -1 : 1;
    if (x->size_bytes != y->size_bytes)
        return x->size_bytes < y->size_bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The tensors, by offset, follow each other and fill the data exactly. */
static ganq_status check_coverage(const file *f, const uint8_t *data, uint64_t data_size) {
    const char *path = f->map->path;
    uint64_t expected = 0;
    for (int64_t i = 0; i < f->count; i++) {
        const ganq__tensor *tensor = &f->tensors[i];
        uint64_t begin = (uint64_t)((const uint8_t *)tensor->data - data);
        if (begin < expected)
            GANQ_FAIL(GANQ_ERR_FORMAT,
                      "%s: tensor %s: begins at offset %" PRIu64
                      " and overlaps tensor %s, which ends at %" PRIu64,
                      path, tensor->name, begin, f->tensors[i - 1].name, expected);
        if (begin > expected)
            GANQ_FAIL(GANQ_ERR_FORMAT,
                      "%s: tensor %s: expected to begin at offset %" PRIu64 ", found %" PRIu64
                      ": a hole in the data",
                      path, tensor->name, expected, begin);
        expected = begin + tensor->size_bytes;
    }
    if (expected != data_size)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: the tensors take %" PRIu64 " bytes of data, found %" PRIu64,
                  path, expected, data_size);
    return GANQ_OK;
}

/* Fills f->tensors from the parsed header. */
static ganq_status read_tensors(file *f, json_t *header, const uint8_t *data, uint64_t data_size) {
    const char *path = f->map->path, *key;
    json_t *entry;
    GANQ_TRY(check_metadata(path, json_object_get(header, "__metadata__")));
    f->metadata = json_incref(json_object_get(header, "__metadata__"));

    size_t names_size = 0;
    json_object_foreach(header, key, entry) {
        names_size += strlen(key) + 1;
    }
    GANQ_ALLOC(f->names, names_size);
    f->tensors = ganq__calloc(json_object_size(header), sizeof *f->tensors);
    if (!f->tensors)
        return GANQ_ERR_NO_MEMORY;

    ganq__buffer crc_key = {0};
    char *name = f->names;
    ganq_status status = GANQ_OK;
    json_object_foreach(header, key, entry) {
        if (!strcmp(key, "__metadata__"))
            continue;
        ganq__tensor *tensor = &f->tensors[f->count++];
        strcpy(name, key);
        tensor->name = name;
        tensor->map = f->map;
        name += strlen(key) + 1;
        if (!json_is_object(entry))
            GANQ_FAIL_GOTO(free_key, GANQ_ERR_FORMAT,
                           "%s: tensor %s: its header entry is not an object", path, key);
        GANQ_TRY_GOTO(free_key, parse_dtype(path, entry, tensor));
        GANQ_TRY_GOTO(free_key, parse_shape(path, entry, tensor));
        GANQ_TRY_GOTO(free_key, parse_offsets(path, entry, data_size, data, tensor));
        GANQ_TRY_GOTO(free_key, parse_crc(path, f->metadata, &crc_key, tensor));
    }
    qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, compare_offsets);
    status = check_coverage(f, data, data_size);
free_key:
    ganq__buffer_free(&crc_key);
    return status;
}

static ganq_status file_open(const char *path, file *f) {
    json_t *header = NULL;
    memset(f, 0, sizeof *f);
    GANQ_TRY(ganq__map_open(path, &f->map));
    const uint8_t *bytes = f->map->data;
    uint64_t size = f->map->size, header_size = 0;
    ganq_status status;
    if (size < 8)
        GANQ_FAIL_GOTO(close_file, GANQ_ERR_FORMAT,
                       "%s: %" PRIu64 " bytes, a safetensors file has at least 8", path, size);
    for (int i = 7; i >= 0; i--)
        header_size = header_size << 8 | bytes[i];
    if (header_size > size - 8)
        GANQ_FAIL_GOTO(close_file, GANQ_ERR_FORMAT,
                       "%s: header of %" PRIu64 " bytes in a file of %" PRIu64, path, header_size,
                       size);
    if (header_size > max_header_bytes)
        GANQ_FAIL_GOTO(close_file, GANQ_ERR_FORMAT,
                       "%s: header of %" PRIu64 " bytes, expected at most %" PRIu64, path,
                       header_size, max_header_bytes);
    status = ganq__json_parse((const char *)bytes + 8, header_size, "header", &header);
    if (status != GANQ_OK) {
        ganq__fail_prefix("%s", path);
        goto close_file;
    }
    if (!json_is_object(header))
        GANQ_FAIL_GOTO(close_file, GANQ_ERR_FORMAT, "%s: the header is not a JSON object", path);
    GANQ_TRY_GOTO(close_file,
                  read_tensors(f, header, bytes + 8 + header_size, size - 8 - header_size));
    json_decref(header);
    return GANQ_OK;
close_file:
    json_decref(header);
    file_close(f);
    return status;
}

/* ---- one file or many ---- */

static int compare_names(const void *a, const void *b) {
    const ganq__tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static ganq_status tensors_new(const char *path, int64_t file_count, ganq__tensors **out) {
    ganq__tensors *tensors = ganq__calloc(1, sizeof *tensors);
    if (!tensors)
        return GANQ_ERR_NO_MEMORY;
    tensors->path = ganq__strdup(path);
    tensors->files = ganq__calloc((size_t)file_count, sizeof *tensors->files);
    if (!tensors->path || !tensors->files) {
        ganq__tensors_free(tensors);
        return GANQ_ERR_NO_MEMORY;
    }
    *out = tensors;
    return GANQ_OK;
}

/* Lists the tensors of all files; where there is an index (name -> file name), only those that it
 * sends to the file they are in. */
static ganq_status list_tensors(ganq__tensors *tensors, const json_t *index,
                                const char *const *file_names) {
    size_t most = 0;
    for (int64_t f = 0; f < tensors->file_count; f++)
        most += (size_t)tensors->files[f].count;
    tensors->in_order = ganq__malloc(most, sizeof *tensors->in_order);
    tensors->by_name = ganq__malloc(most, sizeof *tensors->by_name);
    if (!tensors->in_order || !tensors->by_name)
        return GANQ_ERR_NO_MEMORY;
    for (int64_t f = 0; f < tensors->file_count; f++)
        for (int64_t i = 0; i < tensors->files[f].count; i++) {
            const ganq__tensor *tensor = &tensors->files[f].tensors[i];
            const char *home = json_string_value(json_object_get(index, tensor->name));
            if (!index || (home && !strcmp(home, file_names[f])))
                tensors->in_order[tensors->count++] = tensor;
        }
    memcpy(tensors->by_name, tensors->in_order, (size_t)tensors->count * sizeof *tensors->by_name);
    qsort(tensors->by_name, (size_t)tensors->count, sizeof *tensors->by_name, compare_names);
    return GANQ_OK;
}

ganq_status ganq__tensors_open_file(const char *path, ganq__tensors **out) {
    ganq__tensors *tensors;
    GANQ_TRY(tensors_new(path, 1, &tensors));
    ganq_status status = file_open(path, &tensors->files[0]);
    tensors->file_count = status == GANQ_OK;
    if (status == GANQ_OK)
        status = list_tensors(tensors, NULL, NULL);
    if (status != GANQ_OK) {
        ganq__tensors_free(tensors);
        return status;
    }
    *out = tensors;
    return GANQ_OK;
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of a weight_map, sorted; the array is the caller's, the names are the
 * map's. */
static ganq_status index_files(const char *path, json_t *weight_map, const char ***out,
                               int64_t *out_count) {
    if (!json_is_object(weight_map))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"weight_map\" is missing or not an object", path);
    const char **names = ganq__malloc(json_object_size(weight_map), sizeof *names), *tensor;
    if (!names)
        return GANQ_ERR_NO_MEMORY;
    json_t *value;
    int64_t count = 0, distinct = 0;
    json_object_foreach(weight_map, tensor, value) {
        const char *name = json_string_value(value);
        /* a checkpoint's shards lie beside its index; anything else could reach any file of the
         * reader's */
        if (!name || !*name || strchr(name, '/') || strchr(name, '\\') || !strcmp(name, ".") ||
            strstr(name, "..")) {
            ganq__fail(
                "%s: tensor %s: expected the name of a file beside the index, found \"%.100s\"",
                path, tensor, name ? name : "(not a string)");
            ganq__free(names);
            return GANQ_ERR_FORMAT;
        }
        names[count++] = name;
    }
    qsort(names, (size_t)count, sizeof *names, compare_strings);
    for (int64_t i = 0; i < count; i++)
        if (!i || strcmp(names[i], names[distinct - 1]))
            names[distinct++] = names[i];
    *out = names;
    *out_count = distinct;
    return GANQ_OK;
}

/* Some tensor that the index sends to a file: for messages. */
static const char *a_tensor_of(json_t *weight_map, const char *file_name) {
    const char *tensor;
    json_t *value;
    json_object_foreach(weight_map, tensor, value) {
        if (!strcmp(json_string_value(value), file_name))
            return tensor;
    }
    return "";
}

static ganq_status open_shards(const char *dir, const char *index_path, json_t *weight_map,
                               const char *const *names, ganq__tensors *tensors, int64_t count) {
    for (int64_t f = 0; f < count; f++) {
        char *path = ganq__path_join(dir, names[f]);
        if (!path)
            return GANQ_ERR_NO_MEMORY;
        ganq_status status = file_open(path, &tensors->files[f]);
        ganq__free(path);
        if (status == GANQ_ERR_NOT_FOUND)
            ganq__fail_prefix("%s: tensor %s is in file %s", index_path,
                              a_tensor_of(weight_map, names[f]), names[f]);
        GANQ_TRY(status);
        tensors->file_count++;
    }
    GANQ_TRY(list_tensors(tensors, weight_map, names));
    const char *tensor;
    json_t *value;
    json_object_foreach(weight_map, tensor, value) {
        if (!ganq__tensors_find(tensors, tensor))
            GANQ_FAIL(GANQ_ERR_NOT_FOUND, "%s: tensor %s is not in file %s, where the index has it",
                      index_path, tensor, json_string_value(value));
    }
    return GANQ_OK;
}

static ganq_status open_index(const char *dir, const char *index_path, ganq__tensors **out) {
    json_t *index;
    const char **names = NULL;
    int64_t count = 0;
    ganq__tensors *tensors = NULL;
    GANQ_TRY(ganq__json_load(index_path, &index));
    json_t *weight_map = json_object_get(index, "weight_map");
    ganq_status status;
    GANQ_TRY_GOTO(free_index, index_files(index_path, weight_map, &names, &count));
    GANQ_TRY_GOTO(free_index, tensors_new(dir, count, &tensors));
    GANQ_TRY_GOTO(free_index, open_shards(dir, index_path, weight_map, names, tensors, count));
    *out = tensors;
    tensors = NULL;
free_index:
    ganq__tensors_free(tensors);
    ganq__free(names);
    json_decref(index);
    return status;
}

/* Pickled weights run code when they are read, so that reading them is left to the program that wrote them. */
static const char *pickle_hint(const char *dir) {
    static const char *const names[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = ganq__path_join(dir, names[i]);
        const int exists = path && ganq__path_exists(path);
        ganq__free(path);
        if (exists)
            return "; pytorch_model.bin is not read: load it with the transformers package and save_pretrained() it, which "
                   "writes safetensors";
    }
    return "";
}

ganq_status ganq__tensors_open_dir(const char *dir, ganq__tensors **out) {
    char *single = ganq__path_join(dir, "model.safetensors");
    char *index = ganq__path_join(dir, "model.safetensors.index.json");
    ganq_status status = GANQ_ERR_NO_MEMORY;
    if (!single || !index)
        goto free_paths;
    if (ganq__path_exists(single))
        status = ganq__tensors_open_file(single, out);
    else if (ganq__path_exists(index))
        status = open_index(dir, index, out);
    else
        GANQ_FAIL_GOTO(free_paths, GANQ_ERR_NOT_FOUND,
                       "%s: neither model.safetensors nor model.safetensors.index.json is there%s",
                       dir, pickle_hint(dir));
free_paths:
    ganq__free(single);
    ganq__free(index);
    return status;
}

void ganq__tensors_free(ganq__tensors *tensors) {
    if (!tensors)
        return;
    for (int64_t i = 0; i < tensors->file_count; i++)
        file_close(&tensors->files[i]);
    ganq__free(tensors->files);
    ganq__free(tensors->in_order);
    ganq__free(tensors->by_name);
    ganq__free(tensors->path);
    ganq__free(tensors);
}

int64_t ganq__tensors_count(const ganq__tensors *tensors) {
    return tensors->count;
}

const ganq__tensor *ganq__tensors_at(const ganq__tensors *tensors, int64_t i) {
    return i >= 0 && i < tensors->count ? tensors->in_order[i] : NULL;
}

const ganq__tensor *ganq__tensors_find(const ganq__tensors *tensors, const char *name) {
    int64_t low = 0, high = tensors->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(name, tensors->by_name[middle]->name);
        if (!order)
            return tensors->by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *ganq__tensors_meta(const ganq__tensors *tensors, const char *key) {
    for (int64_t i = 0; i < tensors->file_count; i++) {
        const char *value = json_string_value(json_object_get(tensors->files[i].metadata, key));
        if (value)
            return value;
    }
    return NULL;
}

const char *ganq__tensor_file(const ganq__tensor *tensor) {
    return tensor->map->path;
}

/* ---- one tensor ---- */

/* "[256, any]" */
static ganq_status append_shape(ganq__buffer *text, int rank, const int64_t *shape) {
    GANQ_TRY(ganq__buffer_append(text, "[", 1));
    for (int i = 0; i < rank; i++) {
        GANQ_TRY(ganq__buffer_append(text, ", ", i ? 2 : 0));
        if (shape[i] < 0)
            GANQ_TRY(ganq__buffer_append(text, "any", 3));
        else
            GANQ_TRY(ganq__buffer_printf(text, "%" PRId64, shape[i]));
    }
    return ganq__buffer_append(text, "]", 1);
}

static ganq_status fail_shape(const ganq__tensor *tensor, int rank, const int64_t *shape) {
    ganq__buffer expected = {0}, found = {0};
    ganq_status status = append_shape(&expected, rank, shape);
    if (status == GANQ_OK)
        status = append_shape(&found, tensor->rank, tensor->shape);
    if (status == GANQ_OK) {
        ganq__fail("%s: tensor %s: expected shape %s, found %s", ganq__tensor_file(tensor),
                   tensor->name, expected.data, found.data);
        status = GANQ_ERR_FORMAT;
    }
    ganq__buffer_free(&expected);
    ganq__buffer_free(&found);
    return status;
}

static ganq_status fail_dtype(const ganq__tensor *tensor, uint32_t expected) {
    char list[DTYPE_COUNT * 8] = "";
    for (int i = 1; i < DTYPE_COUNT; i++)
        if (expected & 1u << i)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", *list ? " or " : "",
                     dtypes[i].name);
    GANQ_FAIL(GANQ_ERR_FORMAT, "%s: tensor %s: expected %s, found %s", ganq__tensor_file(tensor),
              tensor->name, list, tensor->dtype_name);
}

static ganq_status check_fault(const ganq__tensor *tensor) {
    if (tensor->fault)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: tensor %s: %s", ganq__tensor_file(tensor), tensor->name,
                  tensor->fault);
    return GANQ_OK;
}

ganq_status ganq__tensors_require(const ganq__tensors *tensors, const char *name, uint32_t expected,
                                  int rank, const int64_t *shape, const ganq__tensor **out) {
    const ganq__tensor *tensor = ganq__tensors_find(tensors, name);
    if (!tensor)
        GANQ_FAIL(GANQ_ERR_NOT_FOUND, "%s: tensor %s is missing", tensors->path, name);
    GANQ_TRY(check_fault(tensor));
    if (!(expected & 1u << tensor->dtype))
        return fail_dtype(tensor, expected);
    int fits = tensor->rank == rank;
    for (int i = 0; fits && i < rank; i++)
        fits = shape[i] < 0 || shape[i] == tensor->shape[i];
    if (!fits)
        return fail_shape(tensor, rank, shape);
    *out = tensor;
    return GANQ_OK;
}

ganq_status ganq__tensor_verify(const ganq__tensor *tensor) {
    GANQ_TRY(check_fault(tensor));
    if (!tensor->has_crc)
        return GANQ_OK;
    uint32_t crc = (uint32_t)crc32_z(0, tensor->data, (z_size_t)tensor->size_bytes);
    if (crc != tensor->crc32)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: tensor %s: expected CRC-32 %08" PRIx32 ", found %08" PRIx32,
                  ganq__tensor_file(tensor), tensor->name, tensor->crc32, crc);
    return GANQ_OK;
}

ganq_status ganq__tensor_to_f32(const ganq__tensor *tensor, float **out) {
    const uint32_t floats =
        1u << GANQ__ST_F64 | 1u << GANQ__ST_F32 | 1u << GANQ__ST_F16 | 1u << GANQ__ST_BF16;
    GANQ_TRY(check_fault(tensor));
    if (!(floats & 1u << tensor->dtype))
        return fail_dtype(tensor, floats);
    float *values = ganq__malloc_aligned((size_t)tensor->count, sizeof *values);
    if (!values)
        return GANQ_ERR_NO_MEMORY;
    ganq__to_f32(values, tensor->data, ganq__st_to_dtype(tensor->dtype), tensor->count);
    *out = values;
    return GANQ_OK;
}
