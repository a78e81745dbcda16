/* sample_safetensors.c - the library's half of check_safetensors.py:
 *   sample write FILE   writes a file of known tensors
 *   sample read FILE    prints "name dtype rank dims... size crc" of each tensor, with the CRC of its bytes */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "ganq/common.h"
#include "safetensors.h"

static ganq_status write_sample(const char *path) {
    ganq__st_writer *writer;
    uint8_t bytes[3 * 5 * 4];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + 11);
    GANQ_TRY(ganq__st_writer_open(path, &writer));
    ganq_status status;
    GANQ_TRY_GOTO(abort, ganq__st_writer_meta(writer, "ganq.block.\xc3\xbc", "5,96,4 \"quoted\"\n"));
    GANQ_TRY_GOTO(abort, ganq__st_writer_declare(writer, "z.weight", GANQ__ST_F32, 2, (int64_t[]){3, 5}));
    GANQ_TRY_GOTO(abort, ganq__st_writer_declare(writer, "a \"b\\c\"\t\xe2\x82\xac", GANQ__ST_BF16, 1, (int64_t[]){7}));
    GANQ_TRY_GOTO(abort, ganq__st_writer_declare(writer, "nothing", GANQ__ST_I64, 3, (int64_t[]){2, 0, 3}));
    GANQ_TRY_GOTO(abort, ganq__st_writer_declare(writer, "scalar", GANQ__ST_I32, 0, NULL));
    GANQ_TRY_GOTO(abort, ganq__st_writer_data(writer, bytes, 60));
    GANQ_TRY_GOTO(abort, ganq__st_writer_data(writer, bytes, 14));
    GANQ_TRY_GOTO(abort, ganq__st_writer_data(writer, bytes, 4));
    return ganq__st_writer_commit(writer);
abort:
    ganq__st_writer_abort(writer);
    return status;
}

static ganq_status read_file(const char *path) {
    ganq__tensors *tensors;
    GANQ_TRY(ganq__tensors_open_file(path, &tensors));
    for (int64_t i = 0; i < ganq__tensors_count(tensors); i++) {
        const ganq__tensor *tensor = ganq__tensors_at(tensors, i);
        printf("%s %s %d", tensor->name, tensor->dtype_name, tensor->rank);
        for (int d = 0; d < tensor->rank; d++)
            printf(" %" PRId64, tensor->shape[d]);
        printf(" %" PRIu64 " %08lx\n", tensor->size_bytes,
               crc32_z(0, tensor->data, (z_size_t)tensor->size_bytes));
    }
    ganq__tensors_free(tensors);
    return GANQ_OK;
}

int main(int argc, char **argv) {
    if (argc != 3 || (strcmp(argv[1], "write") && strcmp(argv[1], "read")))
        return 2;
    ganq_status status = strcmp(argv[1], "write") ? read_file(argv[2]) : write_sample(argv[2]);
    if (status != GANQ_OK)
        fprintf(stderr, "%s: %s\n", ganq_status_string(status), ganq_last_error());
    return status != GANQ_OK;
}
