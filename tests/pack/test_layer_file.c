/* test_layer_file.c - layers in files: golden file, round trips, every refusal on a damaged file,
 * first use. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "alloc.h"
#include "check_util.h"
#include "dtype.h"
#include "half.h"
#include "layer.h"

static char dir[256];

static const char *in_dir(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static ganq__tensors *open_file(const char *path) {
    ganq__tensors *tensors;
    ck_ganq_ok(ganq__tensors_open_file(path, &tensors));
    return tensors;
}

/* ---- golden file: tests/pack/golden/make_golden.py ---- */

static const char golden_layers[] = GANQ_SOURCE_DIR "/tests/pack/golden/layers.safetensors";
static const char golden_dense[] = GANQ_SOURCE_DIR "/tests/pack/golden/dense.safetensors";
static const char *const golden_names[] = {"two", "three", "four", "wide"};

START_TEST(golden_layers_give_their_dense_values) {
    const char *name = golden_names[_i];
    ganq__tensors *dense = open_file(golden_dense);
    const ganq__tensor *expected = ganq__tensors_find(dense, name);
    ganq_layer *layer;
    ck_ganq_ok(ganq__layer_load(golden_layers, name, &layer));
    ck_assert_int_eq(expected->shape[0], layer->N);
    ck_assert_int_eq(expected->shape[1], layer->K);
    float *w = malloc((size_t)expected->size_bytes);
    ck_assert_ptr_nonnull(w);
    ganq__layer_dequantize_rows(layer, 0, layer->N, w, layer->K);
    ck_assert_mem_eq(w, expected->data, (size_t)expected->size_bytes);
    free(w);
    ganq__layer_release(layer);
    ganq__tensors_free(dense);
}
END_TEST

/* Written again, every tensor has the golden file's bytes. */
START_TEST(golden_layers_are_written_back_byte_for_byte) {
    static const char *const parts[] = {"qweight",      "lut",          "outlier_rowptr",
                                        "outlier_cols", "outlier_vals", "bias"};
    const char *name = golden_names[_i];
    ganq_layer *layer;
    ck_ganq_ok(ganq__layer_load(golden_layers, name, &layer));
    ck_ganq_ok(ganq__layer_save(layer, in_dir("again.safetensors"), name));
    ganq__layer_release(layer);
    ganq__tensors *golden = open_file(golden_layers),
                  *again = open_file(in_dir("again.safetensors"));
    int64_t same = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char tensor[64];
        snprintf(tensor, sizeof tensor, "%s.%s", name, parts[i]);
        const ganq__tensor *a = ganq__tensors_find(golden, tensor),
                           *b = ganq__tensors_find(again, tensor);
        ck_assert_msg(!a == !b, "%s is in one file only", tensor);
        if (!a)
            continue;
        ck_assert_int_eq(a->dtype, b->dtype);
        ck_assert_mem_eq(a->data, b->data, (size_t)a->size_bytes);
        ck_assert(b->has_crc && a->crc32 == b->crc32);
        same++;
    }
    ck_assert_int_eq(same, ganq__tensors_count(again));
    ganq__tensors_free(golden);
    ganq__tensors_free(again);
}
END_TEST

/* ---- damage: a file is described, one thing about it is wrong ---- */

enum { N = 3, K = 70, L = 16, GROUPS = 3, BITS = 4, OUTLIERS = 4, TENSORS = 6 };

typedef struct described {
    const char *name;
    ganq__st_dtype dtype;
    int rank;
    int64_t shape[2];
    void *data;
} described;

typedef struct description {
    uint32_t codes[N][GROUPS * BITS];
    uint16_t lut[N][L];
    int32_t rowptr[N + 1], cols[OUTLIERS];
    uint16_t vals[OUTLIERS], bias[N];
    char meta[64]; /* "": none */
    described tensors[TENSORS];
} description;

enum { QWEIGHT, LUT, ROWPTR, COLS, VALS, BIAS };

static void describe(description *d) {
    *d = (description){.rowptr = {0, 1, 1, 4}, .cols = {69, 0, 31, 32}, .meta = "3,70,4"};
    for (int n = 0; n < N; n++) {
        for (int i = 0; i < GROUPS * BITS; i++)
            d->codes[n][i] =
                (0x9e3779b9u * (uint32_t)(n * 100 + i + 1)) >> (i >= 8 ? 26 : 0); /* 70 = 64 + 6 */
        for (int s = 0; s < L; s++)
            d->lut[n][s] = ganq__f32_to_f16((float)(s - 7) / 16 + (float)n);
        d->bias[n] = ganq__f32_to_bf16((float)n - 1);
    }
    for (int i = 0; i < OUTLIERS; i++)
        d->vals[i] = ganq__f32_to_f16((float)i - 1.5f);
    const described tensors[TENSORS] = {
        {"X.qweight", GANQ__ST_I32, 2, {N, GROUPS * BITS}, d->codes},
        {"X.lut", GANQ__ST_F16, 2, {N, L}, d->lut},
        {"X.outlier_rowptr", GANQ__ST_I32, 1, {N + 1}, d->rowptr},
        {"X.outlier_cols", GANQ__ST_I32, 1, {OUTLIERS}, d->cols},
        {"X.outlier_vals", GANQ__ST_F16, 1, {OUTLIERS}, d->vals},
        {"X.bias", GANQ__ST_BF16, 1, {N}, d->bias},
    };
    memcpy(d->tensors, tensors, sizeof tensors);
}

static size_t bytes_of(const described *t) {
    size_t bytes = ganq__st_dtype_size(t->dtype);
    for (int i = 0; i < t->rank; i++)
        bytes *= (size_t)t->shape[i];
    return bytes;
}

/* Tensors whose name was set to NULL are left out. */
static void write_description(const description *d, const char *path) {
    ganq__st_writer *writer;
    ck_ganq_ok(ganq__st_writer_open(path, &writer));
    if (d->meta[0])
        ck_ganq_ok(ganq__st_writer_meta(writer, "ganq.X", d->meta));
    for (int i = 0; i < TENSORS; i++)
        if (d->tensors[i].name)
            ck_ganq_ok(ganq__st_writer_declare(writer, d->tensors[i].name, d->tensors[i].dtype,
                                               d->tensors[i].rank, d->tensors[i].shape));
    for (int i = 0; i < TENSORS; i++)
        if (d->tensors[i].name)
            ck_ganq_ok(ganq__st_writer_data(writer, d->tensors[i].data, bytes_of(&d->tensors[i])));
    ck_ganq_ok(ganq__st_writer_commit(writer));
}

static ganq_status load_description(const description *d, ganq_layer **layer) {
    write_description(d, in_dir("x.safetensors"));
    *layer = NULL;
    return ganq__layer_load(in_dir("x.safetensors"), NULL, layer);
}

START_TEST(the_description_itself_is_fine) {
    description d;
    ganq_layer *layer;
    float w[N * K];
    describe(&d);
    ck_ganq_ok(load_description(&d, &layer));
    ganq__layer_dequantize_rows(layer, 0, N, w, K);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) {
            int code = 0;
            for (int b = 0; b < BITS; b++)
                code |= (int)(d.codes[n][k / 32 * BITS + b] >> (k % 32) & 1) << b;
            float expected = ganq__f16_to_f32(d.lut[n][code]);
            for (int32_t i = d.rowptr[n]; i < d.rowptr[n + 1]; i++)
                if (d.cols[i] == k)
                    expected += ganq__f16_to_f32(d.vals[i]);
            ck_assert(w[n * K + k] == expected);
        }
    ck_assert(layer->bias[2] == 1 && layer->bias_dtype == GANQ_DTYPE_BF16);
    ganq__layer_release(layer);
}
END_TEST

/* Damages the description; *status and the words returned are what reading must answer. */
static const char *damage(description *d, int kind, ganq_status *status) {
    *status = GANQ_ERR_FORMAT;
    switch (kind) {
    case 0:
        d->tensors[QWEIGHT].name = NULL;
        *status = GANQ_ERR_NOT_FOUND;
        return "qweight";
    case 1:
        d->tensors[QWEIGHT].shape[1] = 11;
        return "X.qweight";
    case 2:
        d->tensors[QWEIGHT].shape[0] = 2;
        return "X.qweight";
    case 3:
        d->tensors[QWEIGHT].dtype = GANQ__ST_F32;
        return "X.qweight";
    case 4:
        d->tensors[LUT].name = NULL;
        *status = GANQ_ERR_NOT_FOUND;
        return "X.lut";
    case 5:
        d->tensors[LUT].shape[1] = 8;
        return "X.lut";
    case 6:
        d->tensors[LUT].dtype = GANQ__ST_BF16;
        return "X.lut";
    case 7:
        d->lut[1][4] = ganq__f32_to_f16(-5);
        return "X.lut: element [1,4] is -5 after 0.75, expected ascending";
    case 8:
        d->lut[2][15] = 0x7e00; /* NaN */
        return "X.lut: element [2,15] is nan";
    case 9:
        d->lut[0][15] = 0x7c00; /* infinity */
        return "X.lut: element [0,15] is inf";
    case 10:
        d->tensors[ROWPTR].name = NULL;
        *status = GANQ_ERR_NOT_FOUND;
        return "X.outlier_rowptr";
    case 11:
        d->tensors[VALS].name = NULL;
        *status = GANQ_ERR_NOT_FOUND;
        return "X.outlier_vals";
    case 12:
        d->tensors[VALS].shape[0] = 3;
        return "X.outlier_vals";
    case 13:
        d->rowptr[3] = 5;
        return "X.outlier_rowptr ends with 5, expected 4";
    case 14:
        d->rowptr[1] = 2;
        d->rowptr[2] = 1;
        return "outlier_rowptr[2] is 1 after 2";
    case 15:
        d->rowptr[0] = -1;
        return "outlier_rowptr[0] is -1, expected 0";
    case 16:
        d->cols[3] = 70;
        return "outlier_cols[3] is 70 in row 2, expected 32 to 69";
    case 17:
        d->cols[2] = 33;
        return "outlier_cols[3] is 32 in row 2, expected 34 to 69";
    case 18:
        d->vals[0] = 0x7c00;
        return "outlier_vals[0] at row 0, column 69 is inf";
    case 19:
        d->tensors[BIAS].shape[0] = 2;
        return "X.bias";
    case 20:
        d->tensors[BIAS].dtype = GANQ__ST_I16;
        return "X.bias";
    case 21:
        d->bias[1] = 0x7fc0;
        return "X.bias: element 1 is nan";
    case 22:
        strcpy(d->meta, "3,70");
        return "\"ganq.X\" is \"3,70\"";
    case 23:
        strcpy(d->meta, "3,70,4x");
        return "\"ganq.X\" is \"3,70,4x\"";
    case 24:
        strcpy(d->meta, "3,-70,4");
        return "\"ganq.X\" is \"3,-70,4\"";
    case 25:
        strcpy(d->meta, "3,70,5");
        *status = GANQ_ERR_UNSUPPORTED;
        return "5 bits";
    case 26:
        strcpy(d->meta, "3,97,4");
        return "X.qweight";
    case 27:
        d->meta[0] = '\0';
        return "\"ganq.X\" (\"N,K,bits\") is missing";
    case 28:
        d->codes[1][2 * BITS + 3] |= 1u << 6; /* column 70 */
        return "X.qweight: row 1 has a bit set for column 70";
    case 29:
        strcpy(d->meta, "4000000000,70,4");
        return "4000000000";
    case 30:
        d->tensors[LUT].rank = 1;
        return "X.lut";
    }
    return NULL;
}
enum { DAMAGES = 31 };

START_TEST(damage_is_refused_with_file_and_tensor) {
    description d;
    ganq_layer *layer;
    describe(&d);
    ganq_status status;
    const char *words = damage(&d, _i, &status);
    ck_assert_ptr_nonnull(words);
    ck_ganq_fails(load_description(&d, &layer), status, words);
    ck_assert_msg(strstr(ganq_last_error(), "x.safetensors") != NULL, "no file in \"%s\"",
                  ganq_last_error());
    ck_assert_ptr_null(layer);
}
END_TEST

/* Flips a bit of a tensor's bytes in the file. */
static void flip(const char *path, const char *tensor, int64_t byte) {
    ganq__tensors *tensors = open_file(path);
    const ganq__tensor *t = ganq__tensors_find(tensors, tensor);
    const off_t at = (off_t)((const uint8_t *)t->data - t->map->data) + byte;
    uint8_t value = ((const uint8_t *)t->data)[byte];
    ganq__tensors_free(tensors);
    const int fd = open(path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    value ^= 1;
    ck_assert_int_eq(pwrite(fd, &value, 1, at), 1);
    close(fd);
}

START_TEST(a_wrong_crc_is_found) {
    static const char *const names[] = {"X.qweight",      "X.lut",          "X.outlier_rowptr",
                                        "X.outlier_cols", "X.outlier_vals", "X.bias"};
    description d;
    ganq_layer *layer = NULL;
    describe(&d);
    write_description(&d, in_dir("x.safetensors"));
    flip(in_dir("x.safetensors"), names[_i], 2);
    ck_ganq_fails(ganq__layer_load(in_dir("x.safetensors"), "X", &layer), GANQ_ERR_FORMAT,
                  "CRC-32");
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), names[_i]));
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "x.safetensors"));
}
END_TEST

/* Reading a layer of a whole model leaves the codes alone; they are checked when they are first
 * used, or written. */
START_TEST(codes_are_checked_at_first_use) {
    description d;
    ganq_layer *layer;
    describe(&d);
    write_description(&d, in_dir("x.safetensors"));
    flip(in_dir("x.safetensors"), "X.qweight", 5);
    ganq__tensors *tensors = open_file(in_dir("x.safetensors"));
    ck_ganq_ok(ganq__layer_read(tensors, "X", N, K, BITS, &layer));
    ganq__tensors_free(tensors); /* the map lives on with the layer */
    for (int i = 0; i < 2; i++)  /* a failure is not forgotten, nor does it block */
        ck_ganq_fails(ganq__layer_prepare(layer), GANQ_ERR_FORMAT, "X.qweight");
    ck_ganq_fails(ganq__layer_save(layer, in_dir("y.safetensors"), "X"), GANQ_ERR_FORMAT,
                  "X.qweight");
    ck_assert(!ganq__path_exists(in_dir("y.safetensors")));
    ganq__layer_release(layer);
}
END_TEST

START_TEST(the_stated_shape_must_agree_with_the_file) {
    description d;
    ganq_layer *layer = NULL;
    describe(&d);
    write_description(&d, in_dir("x.safetensors"));
    ganq__tensors *tensors = open_file(in_dir("x.safetensors"));
    ck_ganq_fails(ganq__layer_read(tensors, "X", N, K - 1, BITS, &layer), GANQ_ERR_FORMAT,
                  "is \"3,70,4\", expected \"3,69,4\"");
    ck_ganq_fails(ganq__layer_read(tensors, "Y", N, K, BITS, &layer), GANQ_ERR_NOT_FOUND,
                  "Y.qweight");
    ganq__tensors_free(tensors);
    d.meta[0] = '\0'; /* dropped by another tool: the caller's word counts */
    write_description(&d, in_dir("x.safetensors"));
    tensors = open_file(in_dir("x.safetensors"));
    ck_ganq_ok(ganq__layer_read(tensors, "X", N, K, BITS, &layer));
    ck_ganq_ok(ganq__layer_prepare(layer));
    ganq__layer_release(layer);
    ck_ganq_fails(ganq__layer_read(tensors, "X", N, K, 3, &layer), GANQ_ERR_FORMAT, "X.qweight");
    ck_ganq_fails(ganq__layer_read(tensors, "X", N, 128, BITS, &layer), GANQ_ERR_FORMAT,
                  "X.qweight");
    ganq__tensors_free(tensors);
}
END_TEST

START_TEST(a_lone_layer_needs_no_name) {
    ganq_layer *layer = NULL;
    description d;
    ck_ganq_fails(ganq__layer_load(golden_layers, NULL, &layer), GANQ_ERR_INVALID_ARG,
                  "several layers");
    ck_ganq_fails(ganq__layer_load(golden_dense, NULL, &layer), GANQ_ERR_NOT_FOUND,
                  "<layer>.qweight");
    ck_ganq_fails(ganq__layer_load(in_dir("none.safetensors"), NULL, &layer), GANQ_ERR_NOT_FOUND,
                  "none");
    ck_assert_ptr_null(layer);
    describe(&d);
    ck_ganq_ok(load_description(&d, &layer));
    ganq__layer_release(layer);
}
END_TEST

START_TEST(round_trips_over_shapes_and_bits) {
    static const int64_t sizes[] = {1, 7, 31, 32, 33, 64, 65, 257};
    const int64_t n_rows = sizes[_i / 8 % 8], n_cols = sizes[_i % 8],
                  entries = (int64_t)4 << (_i / 64);
    const int bits = _i / 64 + 2, outliers = _i % 3 == 0;
    uint8_t *codes = malloc((size_t)(n_rows * n_cols)), *back = malloc((size_t)n_cols);
    float *lut = malloc((size_t)(n_rows * entries) * sizeof *lut);
    int32_t *rowptr = calloc((size_t)n_rows + 1, sizeof *rowptr), col = (int32_t)n_cols - 1;
    const float val = 3;
    ganq_layer *made, *loaded;
    ck_assert(codes && back && lut && rowptr);
    for (int64_t i = 0; i < n_rows * n_cols; i++)
        codes[i] = (uint8_t)(i * 7919 / 13 % entries);
    for (int64_t i = 0; i < n_rows * entries; i++)
        lut[i] = (float)(i % entries) * 0.125f - 0.3f;
    for (int64_t n = 0; n < n_rows; n++)
        rowptr[n + 1] = 1; /* one outlier, in row 0 */
    ck_ganq_ok(ganq__layer_create(bits, n_rows, n_cols, codes, lut,
                                  _i % 2 ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16,
                                  outliers ? rowptr : NULL, outliers ? &col : NULL,
                                  outliers ? &val : NULL, NULL, GANQ_DTYPE_F32, &made));
    ck_ganq_ok(ganq__layer_save(made, in_dir("r.safetensors"), "a.b"));
    ck_ganq_ok(ganq__layer_load(in_dir("r.safetensors"), "a.b", &loaded));
    ck_assert_int_eq(loaded->bits, bits);
    ck_assert_int_eq(loaded->N, n_rows);
    ck_assert_int_eq(loaded->K, n_cols);
    ck_assert_int_eq(loaded->lut_dtype, made->lut_dtype);
    ck_assert_int_eq(ganq__layer_stored_bytes(loaded), ganq__layer_stored_bytes(made));
    ck_assert_mem_eq(loaded->lut, made->lut,
                     (size_t)(n_rows * entries) * ganq__dtype_size(made->lut_dtype));
    ck_assert_mem_eq(ganq__layer_lanes(loaded, 0), ganq__layer_lanes(made, 0),
                     (size_t)(n_rows * made->row_bytes));
    ck_assert(!outliers == !loaded->outlier_rowptr);
    for (int64_t n = 0; n < n_rows; n++) {
        ganq__layer_codes_row(loaded, n, back);
        ck_assert_mem_eq(back, codes + n * n_cols, (size_t)n_cols);
    }
    ganq__layer_release(made);
    ganq__layer_release(loaded);
    free(codes);
    free(back);
    free(lut);
    free(rowptr);
}
END_TEST

/* ---- first use by several threads ---- */

enum { THREADS = 8 };

typedef struct first_use {
    const ganq_layer *layer;
    pthread_barrier_t *barrier;
    const float *expected;
    int failures;
} first_use;

static void *use(void *user) {
    first_use *u = user;
    float w[300];
    pthread_barrier_wait(u->barrier);
    if (ganq__layer_prepare(u->layer) != GANQ_OK)
        u->failures++;
    for (int64_t n = 0; n < u->layer->N; n++) {
        ganq__layer_dequantize_rows(u->layer, n, 1, w, 300);
        if (memcmp(w, u->expected + n * u->layer->K, (size_t)u->layer->K * sizeof *w) != 0)
            u->failures++;
    }
    return NULL;
}

START_TEST(eight_threads_may_be_first_at_once) {
    ganq__tensors *tensors = open_file(golden_layers), *dense = open_file(golden_dense);
    float *expected;
    ganq_layer *layer;
    pthread_t threads[THREADS];
    first_use uses[THREADS];
    pthread_barrier_t barrier;
    ck_ganq_ok(ganq__layer_read(tensors, "three", 0, 0, 0, &layer));
    ck_ganq_ok(ganq__tensor_to_f32(ganq__tensors_find(dense, "three"), &expected));
    ganq__tensors_free(tensors);
    ganq__tensors_free(dense);
    const int64_t before = ganq__layer_resident_bytes(layer);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        uses[i] = (first_use){layer, &barrier, expected, 0};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use, &uses[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(uses[i].failures, 0);
    }
    ck_assert_int_eq(ganq__layer_resident_bytes(layer), before + layer->N * layer->row_bytes);
    pthread_barrier_destroy(&barrier);
    ganq__free(expected);
    ganq__layer_release(layer);
}
END_TEST

START_TEST(every_failed_allocation_is_survived) {
    int64_t fail = 1;
    for (;; fail++) {
        ganq_layer *layer = NULL;
        ganq__alloc_fail_after(fail);
        ganq_status status = ganq__layer_load(golden_layers, "four", &layer);
        if (status == GANQ_OK) {
            status = ganq__layer_save(layer, in_dir("again.safetensors"), "four");
            ganq__layer_release(layer);
        }
        ganq__alloc_fail_after(0);
        if (status == GANQ_OK)
            break;
        ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
    }
    ck_assert_int_gt(fail, 10);
}
END_TEST

int main(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
    Suite *suite = suite_create("layer file");
    TCase *tests = tcase_create("layer file");
    tcase_add_loop_test(tests, golden_layers_give_their_dense_values, 0, 4);
    tcase_add_loop_test(tests, golden_layers_are_written_back_byte_for_byte, 0, 4);
    tcase_add_test(tests, the_description_itself_is_fine);
    tcase_add_loop_test(tests, damage_is_refused_with_file_and_tensor, 0, DAMAGES);
    tcase_add_loop_test(tests, a_wrong_crc_is_found, 0, TENSORS);
    tcase_add_test(tests, codes_are_checked_at_first_use);
    tcase_add_test(tests, the_stated_shape_must_agree_with_the_file);
    tcase_add_test(tests, a_lone_layer_needs_no_name);
    tcase_add_loop_test(tests, round_trips_over_shapes_and_bits, 0, 192);
    tcase_add_test(tests, eight_threads_may_be_first_at_once);
    tcase_add_test(tests, every_failed_allocation_is_survived);
    suite_add_tcase(suite, tests);
    const int result = test_run(suite, 0);
    if (ganq__remove_tree(dir) != GANQ_OK)
        return 1;
    return result;
}
