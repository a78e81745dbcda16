/* test_safetensors.c - reading and writing safetensors: round trips, real checkpoints, and every
 * way to lie. */
#include "check_util.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"
#include "dtype.h"
#include "safetensors.h"

static char dir[256];

static void make_dir(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
}
static void remove_dir(void) {
    ck_ganq_ok(ganq__remove_tree(dir));
}

static const char *in_dir(const char *name) {
    static char path[2][512];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static void write_bytes(const char *name, const void *data, size_t size) {
    FILE *file = fopen(in_dir(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

/* A file with this header and data_size bytes 0, 1, 2, ... of data. */
static void write_file(const char *name, const char *header, size_t data_size) {
    size_t length = strlen(header), size = 8 + length + data_size;
    unsigned char *bytes = malloc(size);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_size; i++)
        bytes[8 + length + i] = (unsigned char)i;
    write_bytes(name, bytes, size);
    free(bytes);
}

static int entries_in_dir(void) {
    DIR *stream = opendir(dir);
    int count = -2; /* . and .. */
    while (readdir(stream))
        count++;
    closedir(stream);
    return count;
}

/* ---- round trip ---- */

static const float small[6] = {0, 1.5f, -2, 1e-30f, 3e30f, -0.0f};

static ganq_status write_sample(const char *path) {
    ganq__st_writer *writer;
    GANQ_TRY(ganq__st_writer_open(path, &writer));
    ganq_status status;
    GANQ_TRY_GOTO(abort, ganq__st_writer_meta(writer, "ganq.lay\"er", "2,3,4"));
    GANQ_TRY_GOTO(abort, ganq__st_writer_declare(writer, "odd", GANQ__ST_U8, 1, (int64_t[]){5}));
    GANQ_TRY_GOTO(abort,
                  ganq__st_writer_declare(writer, "empty", GANQ__ST_F16, 2, (int64_t[]){0, 7}));
    GANQ_TRY_GOTO(abort, ganq__st_writer_declare(writer, "w\xc3\xa9\"\\\n", GANQ__ST_F32, 2,
                                                 (int64_t[]){2, 3}));
    GANQ_TRY_GOTO(abort, ganq__st_writer_declare(writer, "scalar", GANQ__ST_F64, 0, NULL));
    GANQ_TRY_GOTO(abort, ganq__st_writer_declare(writer, "last", GANQ__ST_BF16, 1, (int64_t[]){0}));
    GANQ_TRY_GOTO(abort, ganq__st_writer_data(writer, "ab", 2));
    GANQ_TRY_GOTO(abort, ganq__st_writer_data(writer, "cde", 3));
    GANQ_TRY_GOTO(abort, ganq__st_writer_data(writer, small, 9));
    GANQ_TRY_GOTO(abort, ganq__st_writer_data(writer, (const char *)small + 9, 15));
    GANQ_TRY_GOTO(abort, ganq__st_writer_data(writer, &(double){0.125}, 8));
    return ganq__st_writer_commit(writer);
abort:
    ganq__st_writer_abort(writer);
    return status;
}

START_TEST(writer_and_reader_agree) {
    ganq__tensors *tensors;
    const ganq__tensor *tensor;
    ck_ganq_ok(write_sample(in_dir("a.safetensors")));
    ck_assert_int_eq(entries_in_dir(), 1);
    ck_ganq_ok(ganq__tensors_open_file(in_dir("a.safetensors"), &tensors));
    ck_assert_int_eq(ganq__tensors_count(tensors), 5);
    ck_assert_str_eq(ganq__tensors_meta(tensors, "format"), "pt");
    ck_assert_str_eq(ganq__tensors_meta(tensors, "ganq.lay\"er"), "2,3,4");
    ck_assert_ptr_null(ganq__tensors_meta(tensors, "nothing"));
    ck_assert_str_eq(ganq__tensors_at(tensors, 0)->name, "odd");
    ck_assert_ptr_null(ganq__tensors_at(tensors, 5));
    ck_assert_ptr_null(ganq__tensors_at(tensors, -1));
    ck_assert_ptr_null(ganq__tensors_find(tensors, "od"));

    ck_ganq_ok(
        ganq__tensors_require(tensors, "odd", 1u << GANQ__ST_U8, 1, (int64_t[]){5}, &tensor));
    const uint8_t *start = (const uint8_t *)tensor->data;
    ck_assert_int_eq((start - tensor->map->data) % 64, 0);
    ck_assert_mem_eq(tensor->data, "abcde", 5);
    ck_assert_int_eq(tensor->has_crc, 1);
    ck_assert_uint_eq(tensor->crc32, 0x8587d865u); /* zlib.crc32(b"abcde") */

    ck_ganq_ok(ganq__tensors_require(tensors, "w\xc3\xa9\"\\\n", 1u << GANQ__ST_F32, 2,
                                     (int64_t[]){2, -1}, &tensor));
    ck_assert_int_eq(tensor->count, 6);
    ck_assert_mem_eq(tensor->data, small, sizeof small);
    ck_assert_str_eq(ganq__tensor_file(tensor), in_dir("a.safetensors"));
    float *values;
    ck_ganq_ok(ganq__tensor_to_f32(tensor, &values)); /* from an address that is no multiple of 4 */
    ck_assert_mem_eq(values, small, sizeof small);
    ganq__free(values);

    ck_ganq_ok(ganq__tensors_require(tensors, "scalar", 1u << GANQ__ST_F64, 0, NULL, &tensor));
    ck_assert_int_eq(tensor->count, 1);
    ck_ganq_ok(ganq__tensor_to_f32(tensor, &values));
    ck_assert(values[0] == 0.125f);
    ganq__free(values);

    ck_ganq_ok(
        ganq__tensors_require(tensors, "empty", 1u << GANQ__ST_F16, 2, (int64_t[]){0, 7}, &tensor));
    ck_assert_uint_eq(tensor->size_bytes, 0);
    ck_ganq_ok(ganq__tensor_to_f32(tensor, &values));
    ganq__free(values);
    for (int64_t i = 0; i < 5; i++)
        ck_ganq_ok(ganq__tensor_verify(ganq__tensors_at(tensors, i)));

    ganq__map *map = ganq__map_retain(tensor->map);
    ganq__tensors_free(tensors);
    ck_assert_mem_eq(map->data + (start - map->data), "abcde",
                     5); /* the map lives while it is held */
    ganq__map_release(map);
}
END_TEST

START_TEST(half_types_become_f32) {
    ganq__st_writer *writer;
    ganq__tensors *tensors;
    uint16_t f16[3] = {0x3c00, 0xc000, 0x0001}, bf16[2] = {0x3f80, 0xc040};
    float *values;
    ck_ganq_ok(ganq__st_writer_open(in_dir("h.safetensors"), &writer));
    ck_ganq_ok(ganq__st_writer_declare(writer, "f16", GANQ__ST_F16, 1, (int64_t[]){3}));
    ck_ganq_ok(ganq__st_writer_declare(writer, "bf16", GANQ__ST_BF16, 1, (int64_t[]){2}));
    ck_ganq_ok(ganq__st_writer_data(writer, f16, sizeof f16));
    ck_ganq_ok(ganq__st_writer_data(writer, bf16, sizeof bf16));
    ck_ganq_ok(ganq__st_writer_commit(writer));
    ck_ganq_ok(ganq__tensors_open_file(in_dir("h.safetensors"), &tensors));
    ck_ganq_ok(ganq__tensor_to_f32(ganq__tensors_find(tensors, "f16"), &values));
    ck_assert(values[0] == 1 && values[1] == -2 && values[2] == 0x1p-24f);
    ganq__free(values);
    ck_ganq_ok(ganq__tensor_to_f32(ganq__tensors_find(tensors, "bf16"), &values));
    ck_assert(values[0] == 1 && values[1] == -3);
    ganq__free(values);
    ganq__tensors_free(tensors);
}
END_TEST

START_TEST(file_without_tensors) {
    ganq__st_writer *writer;
    ganq__tensors *tensors;
    ck_ganq_ok(ganq__st_writer_open(in_dir("none.safetensors"), &writer));
    ck_ganq_ok(ganq__st_writer_commit(writer));
    ck_ganq_ok(ganq__tensors_open_file(in_dir("none.safetensors"), &tensors));
    ck_assert_int_eq(ganq__tensors_count(tensors), 0);
    ck_assert_ptr_null(ganq__tensors_find(tensors, "x"));
    ganq__tensors_free(tensors);
}
END_TEST

START_TEST(white_space_around_the_header) {
    ganq__tensors *tensors;
    write_file("pad.safetensors",
               " \n\t{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}   ", 2);
    ck_ganq_ok(ganq__tensors_open_file(in_dir("pad.safetensors"), &tensors));
    ck_assert_int_eq(ganq__tensors_find(tensors, "x")->has_crc, 0);
    ck_ganq_ok(
        ganq__tensor_verify(ganq__tensors_find(tensors, "x"))); /* a missing CRC is accepted */
    ganq__tensors_free(tensors);
}
END_TEST

/* ---- the writer's refusals ---- */

START_TEST(writer_misuse) {
    ganq__st_writer *writer;
    ck_ganq_ok(ganq__st_writer_open(in_dir("m.safetensors"), &writer));
    ck_ganq_ok(ganq__st_writer_declare(writer, "x", GANQ__ST_U8, 1, (int64_t[]){4}));
    ck_ganq_fails(ganq__st_writer_declare(writer, "n", GANQ__ST_F32, 1, (int64_t[]){-1}),
                  GANQ_ERR_INTERNAL, "shape[0] = -1");
    ck_ganq_fails(ganq__st_writer_declare(writer, "u", GANQ__ST_UNKNOWN, 0, NULL),
                  GANQ_ERR_INTERNAL, "tensor u");
    ck_ganq_fails(
        ganq__st_writer_declare(writer, "big", GANQ__ST_F64, 2, (int64_t[]){INT64_MAX, 2}),
        GANQ_ERR_INTERNAL, "tensor big");
    ck_ganq_fails(ganq__st_writer_declare(writer, "\xff", GANQ__ST_U8, 0, NULL),
                  GANQ_ERR_INVALID_ARG, "UTF-8");
    ck_ganq_fails(ganq__st_writer_data(writer, "12345", 5), GANQ_ERR_INTERNAL, "4 are left");
    ck_ganq_ok(ganq__st_writer_data(writer, "123", 3));
    ck_ganq_fails(ganq__st_writer_meta(writer, "k", "v"), GANQ_ERR_INTERNAL,
                  "after the first data");
    ck_ganq_fails(ganq__st_writer_commit(writer), GANQ_ERR_INTERNAL, "3 of 4 bytes");
    ck_assert_int_eq(entries_in_dir(), 0);

    ck_ganq_ok(ganq__st_writer_open(in_dir("m.safetensors"), &writer));
    ck_ganq_ok(ganq__st_writer_declare(writer, "x", GANQ__ST_U8, 1, (int64_t[]){1}));
    ck_ganq_ok(ganq__st_writer_declare(writer, "x", GANQ__ST_U8, 1, (int64_t[]){1}));
    ck_ganq_ok(ganq__st_writer_data(writer, "1", 1));
    ck_ganq_ok(ganq__st_writer_data(writer, "1", 1));
    ck_ganq_fails(ganq__st_writer_data(writer, "1", 1), GANQ_ERR_INTERNAL, "after the last tensor");
    ck_ganq_fails(ganq__st_writer_commit(writer), GANQ_ERR_INTERNAL, "declared twice");

    ck_ganq_ok(ganq__st_writer_open(in_dir("m.safetensors"), &writer));
    ck_ganq_ok(ganq__st_writer_meta(writer, "k", "1"));
    ck_ganq_ok(ganq__st_writer_meta(writer, "k", "2"));
    ck_ganq_fails(ganq__st_writer_commit(writer), GANQ_ERR_INTERNAL, "given twice");

    ck_ganq_ok(ganq__st_writer_open(in_dir("m.safetensors"), &writer));
    ck_assert_int_eq(entries_in_dir(), 1);
    ganq__st_writer_abort(writer);
    ganq__st_writer_abort(NULL);
    ck_assert_int_eq(entries_in_dir(), 0);
}
END_TEST

START_TEST(unwritable_output) {
    ganq__st_writer *writer = (ganq__st_writer *)1;
    ck_ganq_fails(ganq__st_writer_open(in_dir("no/such/dir.safetensors"), &writer),
                  GANQ_ERR_NOT_FOUND, "no/such/dir.safetensors");
    ck_ganq_fails(ganq__st_writer_open("/proc/x.safetensors", &writer), GANQ_ERR_NOT_FOUND,
                  "/proc/x.safetensors");
    ck_assert_ptr_eq(writer, (void *)1);
    ck_assert_int_eq(mkdir(in_dir("taken"), 0777), 0); /* a directory where the file should go */
    ck_ganq_fails(write_sample(in_dir("taken")), GANQ_ERR_IO, "taken");
    ck_assert_int_eq(entries_in_dir(), 1);
}
END_TEST

/* A full disk, played by a limit on the size of files. */
START_TEST(disk_full_leaves_nothing) {
    struct rlimit old;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    char *data = calloc(1, 1 << 20);
    for (rlim_t limit = 0; limit <= 1 << 20; limit = limit ? limit * 32 : 16) {
        ganq__st_writer *writer;
        struct rlimit tiny = {limit, old.rlim_max};
        ck_ganq_ok(ganq__st_writer_open(in_dir("full.safetensors"), &writer));
        ck_ganq_ok(ganq__st_writer_declare(writer, "x", GANQ__ST_U8, 1, (int64_t[]){1 << 20}));
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &tiny), 0);
        ganq_status status = ganq__st_writer_data(writer, data, 1000);
        for (int rest = (1 << 20) - 1000; status == GANQ_OK && rest > 0; rest -= 4096)
            status = ganq__st_writer_data(writer, data, rest < 4096 ? (size_t)rest : 4096);
        if (status == GANQ_OK)
            status = ganq__st_writer_commit(writer);
        else
            ganq__st_writer_abort(writer);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
        ck_assert_int_eq(status, GANQ_ERR_IO);
        ck_assert_ptr_nonnull(strstr(ganq_last_error(), "full.safetensors"));
        ck_assert_int_eq(entries_in_dir(), 0);
    }
    free(data);
    signal(SIGXFSZ, handler);
}
END_TEST

/* ---- malformed files ---- */

#define X "\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}"

static const struct {
    const char *header;
    size_t data_size;
    const char *words[2]; /* in the message, beside the file's name */
} malformed[] = {
    {"", 0, {"header", "line 1"}},
    {"{" X, 4, {"header", "line 1"}},
    {"[1,2]", 0, {"not a JSON object", ""}},
    {"{" X "} x", 4, {"header", "end of file expected"}},
    {"{" X "," X "}", 4, {"duplicate", "\"x\""}},
    {"{\"x\":3}", 0, {"tensor x", "not an object"}},
    {"{\"x\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4, {"tensor x", "dtype is missing"}},
    {"{\"x\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,4]}}",
     4,
     {"tensor x", "dtype is missing or not"}},
    {"{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, {"tensor x", "shape is missing"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]}}",
     4,
     {"tensor x", "not a list"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[2,-2],\"data_offsets\":[0,4]}}",
     4,
     {"tensor x", "shape[1]"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4.0],\"data_offsets\":[0,4]}}",
     4,
     {"tensor x", "shape[0]"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}",
     4,
     {"tensor x", "shape[0]"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, {"tensor x", "data_offsets is not a pair"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0]}}",
     4,
     {"tensor x", "data_offsets is not a pair"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,8]}}",
     4,
     {"tensor x", "data_offsets is not a pair"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[-4,0]}}",
     4,
     {"tensor x", "non-negative"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4.5]}}",
     4,
     {"tensor x", "integers"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[\"0\",\"4\"]}}",
     4,
     {"tensor x", "integers"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}",
     4,
     {"tensor x", "end before they begin"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,18446744073709551620]}}",
     4,
     {"tensor x", "integers"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]}}",
     4,
     {"[0, 9]", "4 bytes of data"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9223372036854775806,"
     "9223372036854775807]}}",
     4,
     {"tensor x", "4 bytes of data"}},
    {"{\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}," X "}",
     5,
     {"tensor y", "overlaps tensor x, which ends at 4"}},
    {"{\"y\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}," X "}",
     4,
     {"tensor y", "overlaps tensor x"}},
    {"{\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[5,7]}," X "}",
     7,
     {"tensor y", "expected to begin at offset 4, found 5"}},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}", 5, {"tensor x", "hole"}},
    {"{" X "}", 7, {"take 4 bytes", "found 7"}},
    {"{}", 1, {"take 0 bytes", "found 1"}},
    {"{\"__metadata__\":[]," X "}", 4, {"__metadata__", "not an object"}},
    {"{\"__metadata__\":{\"format\":\"pt\",\"n\":3}," X "}",
     4,
     {"__metadata__", "\"n\" is not a string"}},
    {"{\"__metadata__\":{\"ganq.crc32.x\":\"12zz5678\"}," X "}",
     4,
     {"tensor x", "8 hexadecimal digits"}},
    {"{\"__metadata__\":{\"ganq.crc32.x\":\"-1234567\"}," X "}",
     4,
     {"tensor x", "8 hexadecimal digits"}},
    {"{\"\\ud800\":{}}", 0, {"header", ""}},
    {"{\"a\\u0000b\":{}}", 0, {"header", ""}},
};

START_TEST(malformed_headers) {
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        ganq__tensors *tensors = (ganq__tensors *)1;
        write_file("bad.safetensors", malformed[i].header, malformed[i].data_size);
        for (int w = 0; w < 2; w++)
            ck_ganq_fails(ganq__tensors_open_file(in_dir("bad.safetensors"), &tensors),
                          GANQ_ERR_FORMAT, malformed[i].words[w]);
        ck_assert_ptr_nonnull(strstr(ganq_last_error(), "bad.safetensors: "));
        ck_assert_ptr_eq(tensors, (void *)1);
    }
}
END_TEST

START_TEST(lying_header_lengths) {
    ganq__tensors *tensors;
    unsigned char bytes[128] = {0};
    write_bytes("l.safetensors", bytes, 0);
    ck_ganq_fails(ganq__tensors_open_file(in_dir("l.safetensors"), &tensors), GANQ_ERR_FORMAT,
                  "0 bytes, a safetensors file has at least 8");
    write_bytes("l.safetensors", bytes, 7);
    ck_ganq_fails(ganq__tensors_open_file(in_dir("l.safetensors"), &tensors), GANQ_ERR_FORMAT,
                  "7 bytes");
    bytes[0] = 9999 & 255, bytes[1] = 9999 >> 8;
    write_bytes("l.safetensors", bytes, 120);
    ck_ganq_fails(ganq__tensors_open_file(in_dir("l.safetensors"), &tensors), GANQ_ERR_FORMAT,
                  "l.safetensors: header of 9999 bytes in a file of 120");
    memset(bytes, 255, 8);
    write_bytes("l.safetensors", bytes, 120);
    ck_ganq_fails(ganq__tensors_open_file(in_dir("l.safetensors"), &tensors), GANQ_ERR_FORMAT,
                  "header of 18446744073709551615 bytes");
    /* a header above the format's limit in a (sparse) file that could hold it */
    memcpy(bytes, "\x01\xe1\xf5\x05\0\0\0\0", 8); /* 100,000,001 */
    write_bytes("l.safetensors", bytes, 8);
    ck_assert_int_eq(truncate(in_dir("l.safetensors"), 100000100), 0);
    ck_ganq_fails(ganq__tensors_open_file(in_dir("l.safetensors"), &tensors), GANQ_ERR_FORMAT,
                  "expected at most 100000000");
}
END_TEST

/* Every file that is cut short is refused. */
START_TEST(truncated_at_every_byte) {
    ganq__tensors *tensors;
    char *bytes;
    size_t size;
    ck_ganq_ok(write_sample(in_dir("t.safetensors")));
    ck_ganq_ok(ganq__file_read(in_dir("t.safetensors"), 1 << 20, &bytes, &size));
    for (size_t cut = 0; cut < size; cut++) {
        write_bytes("t.safetensors", bytes, cut);
        ck_ganq_fails(ganq__tensors_open_file(in_dir("t.safetensors"), &tensors), GANQ_ERR_FORMAT,
                      "t.safetensors: ");
    }
    ganq__free(bytes);
}
END_TEST

static const struct {
    const char *entry;
    size_t data_size;
    const char *words;
} faults[] = {
    {"{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}", 4,
     "dtype F8_E4M3 is not known"},
    {"{\"dtype\":\"AVeryLongNameOfADtype\",\"shape\":[4],\"data_offsets\":[0,4]}", 4,
     "dtype AVeryLongNameOf is not known"},
    {"{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,20]}", 20,
     "6 elements of F32, but data_offsets [0, 20] hold 20 bytes"},
    {"{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,0]}", 0, "1 elements of F32"},
    {"{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}", 0,
     "more than 2^63 elements"},
    {"{\"dtype\":\"F64\",\"shape\":[4611686018427387904,1],\"data_offsets\":[0,0]}", 0,
     "4611686018427387904 elements"},
    {"{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}", 1,
     "rank 9, expected at most 8"},
};

/* A tensor that cannot be read does not take its neighbours with it. */
START_TEST(faulty_tensor_fails_when_asked_for) {
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        char header[512];
        ganq__tensors *tensors;
        const ganq__tensor *tensor = NULL, *none = NULL;
        float *values;
        size_t size = faults[i].data_size;
        snprintf(
            header, sizeof header,
            "{\"bad\":%s,\"good\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}}",
            faults[i].entry, size, size + 1);
        write_file("f.safetensors", header, size + 1);
        ck_ganq_ok(ganq__tensors_open_file(in_dir("f.safetensors"), &tensors));
        ck_ganq_ok(
            ganq__tensors_require(tensors, "good", 1u << GANQ__ST_U8, 1, (int64_t[]){1}, &tensor));
        ck_ganq_fails(ganq__tensors_require(tensors, "bad", ~0u, 0, NULL, &none), GANQ_ERR_FORMAT,
                      faults[i].words);
        ck_assert_ptr_nonnull(strstr(ganq_last_error(), "f.safetensors: tensor bad: "));
        ck_assert_ptr_null(none);
        tensor = ganq__tensors_find(tensors, "bad");
        ck_assert_int_eq(tensor->dtype, GANQ__ST_UNKNOWN);
        ck_ganq_fails(ganq__tensor_to_f32(tensor, &values), GANQ_ERR_FORMAT, faults[i].words);
        ck_ganq_fails(ganq__tensor_verify(tensor), GANQ_ERR_FORMAT, faults[i].words);
        ganq__tensors_free(tensors);
    }
}
END_TEST

START_TEST(require_says_expected_and_found) {
    ganq__tensors *tensors;
    const ganq__tensor *tensor = NULL;
    float *values;
    write_file("r.safetensors",
               "{\"x\":{\"dtype\":\"I32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}", 24);
    ck_ganq_ok(ganq__tensors_open_file(in_dir("r.safetensors"), &tensors));
    ck_ganq_fails(ganq__tensors_require(tensors, "y", ~0u, 0, NULL, &tensor), GANQ_ERR_NOT_FOUND,
                  "r.safetensors: tensor y is missing");
    ck_ganq_fails(ganq__tensors_require(tensors, "x", 1u << GANQ__ST_F16 | 1u << GANQ__ST_F32, 2,
                                        (int64_t[]){2, 3}, &tensor),
                  GANQ_ERR_FORMAT, "r.safetensors: tensor x: expected F32 or F16, found I32");
    ck_ganq_fails(
        ganq__tensors_require(tensors, "x", 1u << GANQ__ST_I32, 2, (int64_t[]){-1, 4}, &tensor),
        GANQ_ERR_FORMAT, "r.safetensors: tensor x: expected shape [any, 4], found [2, 3]");
    ck_ganq_fails(
        ganq__tensors_require(tensors, "x", 1u << GANQ__ST_I32, 1, (int64_t[]){6}, &tensor),
        GANQ_ERR_FORMAT, "expected shape [6], found [2, 3]");
    ck_ganq_fails(ganq__tensors_require(tensors, "x", 1u << GANQ__ST_I32, 0, NULL, &tensor),
                  GANQ_ERR_FORMAT, "expected shape [], found [2, 3]");
    ck_ganq_fails(ganq__tensor_to_f32(ganq__tensors_find(tensors, "x"), &values), GANQ_ERR_FORMAT,
                  "expected F64 or F32 or F16 or BF16, found I32");
    ck_assert_ptr_null(tensor);
    ganq__tensors_free(tensors);
}
END_TEST

START_TEST(damaged_bytes_are_noticed) {
    ganq__tensors *tensors;
    char *bytes;
    size_t size;
    ck_ganq_ok(write_sample(in_dir("d.safetensors")));
    ck_ganq_ok(ganq__file_read(in_dir("d.safetensors"), 1 << 20, &bytes, &size));
    *(char *)memmem(bytes, size, "abcde", 5) = 'A';
    write_bytes("d.safetensors", bytes, size);
    ganq__free(bytes);
    ck_ganq_ok(ganq__tensors_open_file(in_dir("d.safetensors"), &tensors));
    ck_ganq_fails(ganq__tensor_verify(ganq__tensors_find(tensors, "odd")), GANQ_ERR_FORMAT,
                  "d.safetensors: tensor odd: expected CRC-32 8587d865, found 4446f761");
    ck_ganq_ok(ganq__tensor_verify(ganq__tensors_find(tensors, "scalar")));
    ganq__tensors_free(tensors);
}
END_TEST

/* ---- shards ---- */

static void write_shards(void) {
    write_file("s1.safetensors", "{\"__metadata__\":{\"k\":\"one\"}," X "}", 4);
    write_file("s2.safetensors",
               "{\"y\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"x\":{\"dtype\":"
               "\"U8\",\"shape\":[1],\"data_offsets\":[3,4]}}",
               4);
}

static void write_index(const char *text) {
    write_bytes("model.safetensors.index.json", text, strlen(text));
}

START_TEST(shards_are_seen_as_one) {
    ganq__tensors *tensors;
    write_shards();
    write_index("{\"metadata\":{\"total_size\":7},\"weight_map\":{\"x\":\"s1.safetensors\",\"y\":"
                "\"s2.safetensors\"}}");
    ck_ganq_ok(ganq__tensors_open_dir(dir, &tensors));
    ck_assert_int_eq(ganq__tensors_count(tensors), 2);
    ck_assert_int_eq(ganq__tensors_find(tensors, "x")->count,
                     4); /* the index decides, s2 has another x */
    ck_assert_ptr_nonnull(
        strstr(ganq__tensor_file(ganq__tensors_find(tensors, "y")), "/s2.safetensors"));
    ck_assert_str_eq(ganq__tensors_meta(tensors, "k"), "one");
    ganq__tensors_free(tensors);
    /* a single file comes first */
    write_file("model.safetensors", "{}", 0);
    ck_ganq_ok(ganq__tensors_open_dir(dir, &tensors));
    ck_assert_int_eq(ganq__tensors_count(tensors), 0);
    ganq__tensors_free(tensors);
}
END_TEST

START_TEST(broken_shards) {
    ganq__tensors *tensors = (ganq__tensors *)1;
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_NOT_FOUND,
                  "neither model.safetensors nor");
    ck_ganq_ok(ganq__file_write(in_dir("pytorch_model.bin"), "x", 1));
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_NOT_FOUND, "save_pretrained");
    ck_assert_int_eq(remove(in_dir("pytorch_model.bin")), 0);
    ck_ganq_fails(ganq__tensors_open_dir(in_dir("nowhere"), &tensors), GANQ_ERR_NOT_FOUND,
                  "nowhere");
    write_shards();
    write_index("{\"weight_map\":{\"x\":\"s1.safetensors\",\"lost\":\"s3.safetensors\"}}");
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_NOT_FOUND,
                  "index.json: tensor lost is in file s3.safetensors");
    write_index("{\"weight_map\":{\"x\":\"s1.safetensors\",\"z\":\"s2.safetensors\"}}");
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_NOT_FOUND,
                  "tensor z is not in file s2.safetensors");
    write_index("{\"weight_map\":{\"y\":\"s1.safetensors\"}}");
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_NOT_FOUND,
                  "tensor y is not in file s1.safetensors");
    static const char *const names[] = {"\"../s1.safetensors\"",
                                        "\"/etc/passwd\"",
                                        "\"a/b\"",
                                        "\"..\"",
                                        "\".\"",
                                        "\"\"",
                                        "7",
                                        "null",
                                        "\"a\\\\b\""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"weight_map\":{\"x\":%s}}", names[i]);
        write_index(text);
        ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_FORMAT,
                      "index.json: tensor x: expected the name of a file");
    }
    write_index("{\"weight_map\":[]}");
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_FORMAT, "weight_map");
    write_index("{}");
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_FORMAT, "weight_map");
    write_index("{\"weight_map\":");
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_FORMAT, "index.json: line 1");
    write_index("{\"weight_map\":{\"x\":\"s1.safetensors\",\"y\":\"s2.safetensors\"}}");
    write_bytes("s2.safetensors", "short", 5);
    ck_ganq_fails(ganq__tensors_open_dir(dir, &tensors), GANQ_ERR_FORMAT,
                  "s2.safetensors: 5 bytes");
    ck_assert_ptr_eq(tensors, (void *)1);
}
END_TEST

START_TEST(not_a_file) {
    ganq__tensors *tensors;
    ck_ganq_fails(ganq__tensors_open_file(in_dir("missing.safetensors"), &tensors),
                  GANQ_ERR_NOT_FOUND, "missing.safetensors");
    ck_ganq_fails(ganq__tensors_open_file(dir, &tensors), GANQ_ERR_IO, "directory");
}
END_TEST

/* ---- allocation failures ---- */

START_TEST(every_allocation_may_fail) {
    write_shards();
    write_file("s2.safetensors",
               "{\"__metadata__\":{\"ganq.crc32.y\":\"01234567\"},\"bad\":{\"dtype\":\"F4\","
               "\"shape\":[3],\"data_offsets\":[3,6]},"
               "\"y\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}",
               6);
    write_index("{\"weight_map\":{\"x\":\"s1.safetensors\",\"y\":\"s2.safetensors\"}}");
    for (int64_t n = 1;; n++) {
        ganq__tensors *tensors = (ganq__tensors *)1;
        ganq__alloc_fail_after(n);
        ganq_status status = ganq__tensors_open_dir(dir, &tensors);
        int64_t made = ganq__alloc_count();
        ganq__alloc_fail_after(0);
        if (status == GANQ_OK) {
            ck_assert_int_gt(n, 10);
            ck_assert_int_lt(made, n);
            ganq__tensors_free(tensors);
            break;
        }
        ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
        ck_assert_ptr_eq(tensors, (void *)1);
    }
    int count = entries_in_dir();
    for (int64_t n = 1;; n++) {
        ganq__alloc_fail_after(n);
        ganq_status status = write_sample(in_dir("new.safetensors"));
        ganq__alloc_fail_after(0);
        if (status == GANQ_OK) {
            ck_assert_int_gt(n, 10);
            break;
        }
        ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
        ck_assert_int_eq(entries_in_dir(), count);
    }
}
END_TEST

/* ---- real files ---- */

START_TEST(real_files) {
    static const char *const names[] = {"models/stories260K/model.safetensors",
                                        "layers/stories260K.safetensors",
                                        "layers/whisper_tiny_encoder_0_2.safetensors"};
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        ganq__tensors *tensors;
        const char *path = test_data(names[f]);
        if (!path)
            continue;
        ck_ganq_ok(ganq__tensors_open_file(path, &tensors));
        ck_assert_int_gt(ganq__tensors_count(tensors), 3);
        for (int64_t i = 0; i < ganq__tensors_count(tensors); i++) {
            const ganq__tensor *tensor = ganq__tensors_at(tensors, i);
            float *values;
            ck_assert_ptr_null(tensor->fault);
            ck_assert_ptr_eq(ganq__tensors_find(tensors, tensor->name), tensor);
            ck_ganq_ok(ganq__tensor_verify(tensor));
            if (ganq__st_to_dtype(tensor->dtype)) {
                ck_ganq_ok(ganq__tensor_to_f32(tensor, &values));
                ck_assert_int_eq(ganq__find_nonfinite(values, tensor->count), -1);
                ganq__free(values);
            }
        }
        ganq__tensors_free(tensors);
    }
}
END_TEST

START_TEST(dtype_names) {
    ck_assert_uint_eq(ganq__st_dtype_size(GANQ__ST_BF16), 2);
    ck_assert_uint_eq(ganq__st_dtype_size((ganq__st_dtype)99), 0);
    ck_assert_str_eq(ganq__st_dtype_name(GANQ__ST_BOOL), "BOOL");
    ck_assert_str_eq(ganq__st_dtype_name((ganq__st_dtype)-1), "unknown");
    ck_assert_int_eq(ganq__st_to_dtype(GANQ__ST_F16), GANQ_DTYPE_F16);
    ck_assert_int_eq(ganq__st_to_dtype(GANQ__ST_I64), 0);
    ck_assert_int_eq(ganq__st_from_dtype(GANQ_DTYPE_U8), GANQ__ST_U8);
    ck_assert_int_eq(ganq__st_from_dtype(0), GANQ__ST_UNKNOWN);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("safetensors");
    TCase *tcase = tcase_create("files");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, make_dir, remove_dir);
    tcase_add_test(tcase, writer_and_reader_agree);
    tcase_add_test(tcase, half_types_become_f32);
    tcase_add_test(tcase, file_without_tensors);
    tcase_add_test(tcase, white_space_around_the_header);
    tcase_add_test(tcase, writer_misuse);
    tcase_add_test(tcase, unwritable_output);
    tcase_add_test(tcase, disk_full_leaves_nothing);
    tcase_add_test(tcase, malformed_headers);
    tcase_add_test(tcase, lying_header_lengths);
    tcase_add_test(tcase, truncated_at_every_byte);
    tcase_add_test(tcase, faulty_tensor_fails_when_asked_for);
    tcase_add_test(tcase, require_says_expected_and_found);
    tcase_add_test(tcase, damaged_bytes_are_noticed);
    tcase_add_test(tcase, shards_are_seen_as_one);
    tcase_add_test(tcase, broken_shards);
    tcase_add_test(tcase, not_a_file);
    tcase_add_test(tcase, every_allocation_may_fail);
    tcase_add_test(tcase, real_files);
    tcase_add_test(tcase, dtype_names);
    suite_add_tcase(suite, tcase);
    return test_run(suite, !test_data("models/stories260K/model.safetensors"));
}
