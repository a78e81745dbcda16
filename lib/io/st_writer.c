/* st_writer.c - writing a safetensors file: declare, stream the bytes, commit.
 *
 * The header is written first with CRCs of zero, and written again over itself at the end, when
 * they are known. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "buffer.h"
#include "json.h"
#include "safetensors.h"

enum { ALIGNMENT = 64, FILE_BUFFER = 1 << 18 };

typedef struct declared {
    char *quoted; /* the name as a JSON string, with its quotes */
    ganq__st_dtype dtype;
    int rank;
    int64_t shape[GANQ__MAX_RANK];
    uint64_t size_bytes;
    uint32_t crc32;
} declared;

typedef struct pair {
    char *key, *value; /* quoted */
} pair;

struct ganq__st_writer {
    ganq__writer out;
    pair *meta;
    size_t meta_count, meta_capacity;
    declared *tensors;
    size_t count, capacity;
    size_t current;       /* the tensor that is being filled */
    uint64_t filled;      /* its bytes so far */
    uint64_t header_size; /* with its 8 bytes of length and its padding; 0 until it is written */
};

/* A JSON string with its quotes. */
static ganq_status quote(const char *text, char **out) {
    json_t *string = json_string(text); /* NULL when the text is not UTF-8 */
    if (!string)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "the name \"%.100s\" is not UTF-8", text);
    char *dump = json_dumps(string, JSON_ENCODE_ANY);
    json_decref(string);
    char *copy = dump ? ganq__strdup(dump) : NULL;
    free(dump);
    if (!copy)
        return GANQ_ERR_NO_MEMORY;
    *out = copy;
    return GANQ_OK;
}

/* Makes room for one more element. */
static ganq_status grow(void **array, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity)
        return GANQ_OK;
    size_t wanted = *capacity ? *capacity * 2 : 16;
    void *larger = ganq__realloc(*array, wanted, size);
    if (!larger)
        return GANQ_ERR_NO_MEMORY;
    *array = larger;
    *capacity = wanted;
    return GANQ_OK;
}

ganq_status ganq__st_writer_open(const char *path, ganq__st_writer **out) {
    ganq__st_writer *writer = ganq__calloc(1, sizeof *writer);
    if (!writer)
        return GANQ_ERR_NO_MEMORY;
    ganq_status status = ganq__writer_open(&writer->out, path);
    if (status != GANQ_OK) {
        ganq__free(writer);
        return status;
    }
    setvbuf(writer->out.file, NULL, _IOFBF, FILE_BUFFER);
    *out = writer;
    return GANQ_OK;
}

static ganq_status check_declaring(const ganq__st_writer *writer) {
    if (writer->header_size)
        GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: declared after the first data", writer->out.path);
    return GANQ_OK;
}

ganq_status ganq__st_writer_meta(ganq__st_writer *writer, const char *key, const char *value) {
    pair added = {0};
    GANQ_TRY(check_declaring(writer));
    GANQ_TRY(grow((void **)&writer->meta, writer->meta_count, &writer->meta_capacity,
                  sizeof *writer->meta));
    ganq_status status;
    GANQ_TRY_GOTO(free_pair, quote(key, &added.key));
    GANQ_TRY_GOTO(free_pair, quote(value, &added.value));
    writer->meta[writer->meta_count++] = added;
    return GANQ_OK;
free_pair:
    ganq__free(added.key);
    return status;
}

ganq_status ganq__st_writer_declare(ganq__st_writer *writer, const char *name, ganq__st_dtype dtype,
                                    int rank, const int64_t *shape) {
    declared tensor = {.dtype = dtype, .rank = rank, .size_bytes = ganq__st_dtype_size(dtype)};
    GANQ_TRY(check_declaring(writer));
    if (!tensor.size_bytes || rank < 0 || rank > GANQ__MAX_RANK)
        GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: tensor %s: dtype %d and rank %d cannot be written",
                  writer->out.path, name, (int)dtype, rank);
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 ||
            __builtin_mul_overflow(tensor.size_bytes, (uint64_t)shape[i], &tensor.size_bytes))
            GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: tensor %s: shape[%d] = %" PRId64 " cannot be written",
                      writer->out.path, name, i, shape[i]);
        tensor.shape[i] = shape[i];
    }
    GANQ_TRY(
        grow((void **)&writer->tensors, writer->count, &writer->capacity, sizeof *writer->tensors));
    GANQ_TRY(quote(name, &tensor.quoted));
    writer->tensors[writer->count++] = tensor;
    return GANQ_OK;
}

/* The whole head of the file: length, JSON, spaces up to the alignment. The CRCs have a fixed
 * width, so that its size does not depend on them. */
static ganq_status build_header(const ganq__st_writer *writer, ganq__buffer *head) {
    uint64_t offset = 0;
    GANQ_TRY(ganq__buffer_append(head, "\0\0\0\0\0\0\0\0", 8));
    GANQ_TRY(ganq__buffer_printf(head, "{\"__metadata__\":{\"format\":\"pt\""));
    for (size_t i = 0; i < writer->meta_count; i++)
        GANQ_TRY(ganq__buffer_printf(head, ",%s:%s", writer->meta[i].key, writer->meta[i].value));
    for (size_t i = 0; i < writer->count; i++) /* quoted + 1: without the opening quote */
        GANQ_TRY(ganq__buffer_printf(head, ",\"ganq.crc32.%s:\"%08" PRIx32 "\"",
                                     writer->tensors[i].quoted + 1, writer->tensors[i].crc32));
    GANQ_TRY(ganq__buffer_append(head, "}", 1));
    for (size_t i = 0; i < writer->count; i++) {
        const declared *tensor = &writer->tensors[i];
        GANQ_TRY(ganq__buffer_printf(head, ",%s:{\"dtype\":\"%s\",\"shape\":[", tensor->quoted,
                                     ganq__st_dtype_name(tensor->dtype)));
        for (int d = 0; d < tensor->rank; d++)
            GANQ_TRY(ganq__buffer_printf(head, "%s%" PRId64, d ? "," : "", tensor->shape[d]));
        GANQ_TRY(ganq__buffer_printf(head, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", offset,
                                     offset + tensor->size_bytes));
        offset += tensor->size_bytes;
    }
    GANQ_TRY(ganq__buffer_append(head, "}", 1));
    while (head->size % ALIGNMENT)
        GANQ_TRY(ganq__buffer_append(head, " ", 1));
    uint64_t length = head->size - 8;
    for (int i = 0; i < 8; i++)
        head->data[i] = (char)(length >> 8 * i & 0xff);
    return GANQ_OK;
}

static ganq_status write_header(ganq__st_writer *writer) {
    ganq__buffer head = {0};
    ganq_status status = build_header(writer, &head);
    if (status == GANQ_OK)
        status = ganq__writer_write(&writer->out, head.data, head.size);
    if (status == GANQ_OK)
        writer->header_size = head.size;
    ganq__buffer_free(&head);
    return status;
}

static void skip_full_tensors(ganq__st_writer *writer) {
    while (writer->current < writer->count &&
           writer->filled == writer->tensors[writer->current].size_bytes) {
        writer->current++;
        writer->filled = 0;
    }
}

ganq_status ganq__st_writer_data(ganq__st_writer *writer, const void *data, size_t size) {
    if (!writer->header_size)
        GANQ_TRY(write_header(writer));
    skip_full_tensors(writer);
    if (!size)
        return GANQ_OK;
    if (writer->current == writer->count)
        GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: %zu bytes of data after the last tensor",
                  writer->out.path, size);
    declared *tensor = &writer->tensors[writer->current];
    if (size > tensor->size_bytes - writer->filled)
        GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: tensor %s: %zu bytes of data where %" PRIu64 " are left",
                  writer->out.path, tensor->quoted, size, tensor->size_bytes - writer->filled);
    GANQ_TRY(ganq__writer_write(&writer->out, data, size));
    tensor->crc32 = (uint32_t)crc32_z(tensor->crc32, data, size);
    writer->filled += size;
    skip_full_tensors(writer);
    return GANQ_OK;
}

static int compare_quoted(const void *a, const void *b) {
    return strcmp(((const declared *)a)->quoted, ((const declared *)b)->quoted);
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(((const pair *)a)->key, ((const pair *)b)->key);
}

/* Readers refuse duplicate keys. Sorts, so this comes after the last use of the order. */
static ganq_status check_distinct(ganq__st_writer *writer) {
    if (writer->count)
        qsort(writer->tensors, writer->count, sizeof *writer->tensors, compare_quoted);
    for (size_t i = 1; i < writer->count; i++)
        if (!compare_quoted(&writer->tensors[i - 1], &writer->tensors[i]))
            GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: tensor %s was declared twice", writer->out.path,
                      writer->tensors[i].quoted);
    if (writer->meta_count)
        qsort(writer->meta, writer->meta_count, sizeof *writer->meta, compare_keys);
    for (size_t i = 1; i < writer->meta_count; i++)
        if (!compare_keys(&writer->meta[i - 1], &writer->meta[i]))
            GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: metadata key %s was given twice", writer->out.path,
                      writer->meta[i].key);
    return GANQ_OK;
}

static void writer_free(ganq__st_writer *writer) {
    for (size_t i = 0; i < writer->count; i++)
        ganq__free(writer->tensors[i].quoted);
    for (size_t i = 0; i < writer->meta_count; i++) {
        ganq__free(writer->meta[i].key);
        ganq__free(writer->meta[i].value);
    }
    ganq__free(writer->tensors);
    ganq__free(writer->meta);
    ganq__free(writer);
}

static ganq_status finish(ganq__st_writer *writer) {
    GANQ_TRY(ganq__st_writer_data(writer, "", 0)); /* the header, if there was no data at all */
    if (writer->current < writer->count)
        GANQ_FAIL(GANQ_ERR_INTERNAL,
                  "%s: tensor %s is incomplete: %" PRIu64 " of %" PRIu64 " bytes", writer->out.path,
                  writer->tensors[writer->current].quoted, writer->filled,
                  writer->tensors[writer->current].size_bytes);
    if (fseeko(writer->out.file, 0, SEEK_SET))
        GANQ_FAIL(GANQ_ERR_IO, "%s: cannot go back to the header", writer->out.path);
    GANQ_TRY(write_header(writer));
    return check_distinct(writer);
}

ganq_status ganq__st_writer_commit(ganq__st_writer *writer) {
    ganq_status status = finish(writer);
    if (status == GANQ_OK)
        status = ganq__writer_commit(&writer->out);
    else
        ganq__writer_abort(&writer->out);
    writer_free(writer);
    return status;
}

void ganq__st_writer_abort(ganq__st_writer *writer) {
    if (!writer)
        return;
    ganq__writer_abort(&writer->out);
    writer_free(writer);
}
