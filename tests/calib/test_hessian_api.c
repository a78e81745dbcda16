/* test_hessian_api.c - ganq/hessian.h through the shared library: sane arguments accepted, insane
 * ones refused. */
#include <math.h>
#include <unistd.h>

#include "check_util.h"
#include "ganq/ganq.h"

enum { M = 3, K = 4 };
/* X^T X by hand, in integers. */
static const float x[M][K] = {{1, 2, 0, -1}, {0, 3, 0, 1}, {2, -1, 0, 4}};
static const float expected[K][K] = {{5, 0, 0, 7}, {0, 14, 0, -3}, {0, 0, 0, 0}, {7, -3, 0, 18}};

static ganq_context *ctx;
static char dir[256], path[300];

static void setup(void) {
    ck_ganq_ok(ganq_context_create(NULL, &ctx));
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/h.safetensors", dir);
}

static void teardown(void) {
    unlink(path);
    rmdir(dir);
    ganq_context_free(ctx);
}

static void check_values(const ganq_hessian *h, float factor) {
    float values[K][K + 2];
    double wide[K][K];
    ganq_matrix strided = GANQ_MATRIX(GANQ_DTYPE_F32, K, K, values);
    ganq_matrix dense = GANQ_MATRIX(GANQ_DTYPE_F64, K, K, wide);
    strided.row_stride = K + 2;
    values[0][K] = 77;
    ck_ganq_ok(ganq_hessian_export(h, &strided));
    ck_ganq_ok(ganq_hessian_export(h, &dense));
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) {
            ck_assert_float_eq(values[i][j], factor * expected[i][j]);
            ck_assert_double_eq(wide[i][j], (double)(factor * expected[i][j]));
        }
    ck_assert_float_eq(values[0][K], 77);
}

static ganq_hessian *hessian_of_x(void) {
    ganq_hessian *h;
    ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x);
    ck_ganq_ok(ganq_hessian_create(ctx, K, &h));
    ck_ganq_ok(ganq_hessian_add(ctx, h, &matrix));
    return h;
}

START_TEST(create_and_free) {
    ganq_hessian *h = NULL;
    ck_ganq_fails(ganq_hessian_create(NULL, K, &h), GANQ_ERR_INVALID_ARG, "ctx");
    ck_ganq_fails(ganq_hessian_create(ctx, K, NULL), GANQ_ERR_INVALID_ARG, "out");
    ck_ganq_fails(ganq_hessian_create(ctx, 0, &h), GANQ_ERR_INVALID_ARG, "dimension 0");
    ck_ganq_fails(ganq_hessian_create(ctx, -1, &h), GANQ_ERR_INVALID_ARG, "dimension -1");
    ck_ganq_fails(ganq_hessian_create(ctx, INT64_C(1) << 31, &h), GANQ_ERR_NO_MEMORY, "");
    ck_ganq_fails(ganq_hessian_create(ctx, INT64_MAX, &h), GANQ_ERR_NO_MEMORY, "memory");
    ck_assert_ptr_null(h);
    ck_ganq_ok(ganq_hessian_create(ctx, 1, &h));
    ck_assert_int_eq(ganq_hessian_dim(h), 1);
    ck_assert_int_eq(ganq_hessian_tokens(h), 0);
    ganq_hessian_free(h);
    ganq_hessian_free(NULL);
    ck_assert_int_eq(ganq_hessian_dim(NULL), 0);
    ck_assert_int_eq(ganq_hessian_tokens(NULL), 0);
}
END_TEST

START_TEST(add_and_merge) {
    ganq_hessian *h = hessian_of_x(), *other = hessian_of_x(), *wide;
    check_values(h, 1);
    ck_assert_int_eq(ganq_hessian_tokens(h), M);
    ck_ganq_ok(ganq_hessian_merge(h, other));
    check_values(h, 2);
    ck_assert_int_eq(ganq_hessian_tokens(h), 2 * M);
    ck_ganq_ok(ganq_hessian_merge(h, h));
    check_values(h, 4);
    ck_assert_int_eq(ganq_hessian_tokens(h), 4 * M);
    ck_ganq_ok(ganq_hessian_create(ctx, K + 1, &wide));
    ck_ganq_fails(ganq_hessian_merge(h, wide), GANQ_ERR_INVALID_ARG, "dimension 5");
    ck_ganq_fails(ganq_hessian_merge(NULL, h), GANQ_ERR_INVALID_ARG, "into");
    ck_ganq_fails(ganq_hessian_merge(h, NULL), GANQ_ERR_INVALID_ARG, "from");
    check_values(h, 4);
    ganq_hessian_free(wide);
    ganq_hessian_free(other);
    ganq_hessian_free(h);
}
END_TEST

START_TEST(add_refuses) {
    ganq_hessian *h = hessian_of_x();
    float bad[2][K] = {{0}};
    ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F32, 2, K, bad), wrong;
    ck_ganq_fails(ganq_hessian_add(NULL, h, &matrix), GANQ_ERR_INVALID_ARG, "ctx");
    ck_ganq_fails(ganq_hessian_add(ctx, NULL, &matrix), GANQ_ERR_INVALID_ARG, "hessian");
    ck_ganq_fails(ganq_hessian_add(ctx, h, NULL), GANQ_ERR_INVALID_ARG, "x");
    wrong = matrix;
    wrong.cols = K - 1;
    ck_ganq_fails(ganq_hessian_add(ctx, h, &wrong), GANQ_ERR_INVALID_ARG, "expected");
    wrong = matrix;
    wrong.dtype = GANQ_DTYPE_F64;
    ck_ganq_fails(ganq_hessian_add(ctx, h, &wrong), GANQ_ERR_INVALID_ARG, "F64");
    wrong = matrix;
    wrong.struct_size = 0;
    ck_ganq_fails(ganq_hessian_add(ctx, h, &wrong), GANQ_ERR_INVALID_ARG,
                  "ganq_hessian_add: x: ganq_matrix: struct_size is 0; set it to sizeof(ganq_matrix)");
    bad[1][2] = NAN;
    ck_ganq_fails(ganq_hessian_add(ctx, h, &matrix), GANQ_ERR_NUMERIC, "row 1, column 2 is NaN");
    uint16_t half[K] = {0, 0x7c00, 0, 0};
    ganq_matrix f16 = GANQ_MATRIX(GANQ_DTYPE_F16, 1, K, half);
    ck_ganq_fails(ganq_hessian_add(ctx, h, &f16), GANQ_ERR_NUMERIC, "row 0, column 1 is infinite");
    check_values(h, 1);
    ck_assert_int_eq(ganq_hessian_tokens(h), M);
    ganq_hessian_free(h);
}
END_TEST

/* Finite values whose squares f32 cannot hold: neither a call nor a sum of calls puts an infinity into H. */
START_TEST(sums_stay_in_range) {
    ganq_hessian *h = hessian_of_x(), *other;
    float big[2][K] = {{0}}, values[K][K];
    uint16_t narrow[K] = {0, 0, 0x7149, 0}; /* 1e30 in bf16 */
    ganq_matrix f32 = GANQ_MATRIX(GANQ_DTYPE_F32, 2, K, big), bf16 = GANQ_MATRIX(GANQ_DTYPE_BF16, 1, K, narrow);
    ganq_matrix out = GANQ_MATRIX(GANQ_DTYPE_F32, K, K, values);
    big[1][3] = 1e30f;
    ck_ganq_fails(ganq_hessian_add(ctx, h, &f32), GANQ_ERR_NUMERIC, "column 3: the squares add up to 1e+60");
    ck_ganq_fails(ganq_hessian_add(ctx, h, &bf16), GANQ_ERR_NUMERIC, "column 2");
    big[0][3] = big[1][3] = 1e19f; /* each alone is within the range */
    ck_ganq_fails(ganq_hessian_add(ctx, h, &f32), GANQ_ERR_NUMERIC, "column 3");
    check_values(h, 1);
    ck_assert_int_eq(ganq_hessian_tokens(h), M);
    ck_ganq_ok(ganq_hessian_create(ctx, K, &other));
    big[0][3] = 0;
    ck_ganq_ok(ganq_hessian_add(ctx, other, &f32));
    ck_ganq_fails(ganq_hessian_add(ctx, other, &f32), GANQ_ERR_NUMERIC, "column 3");
    ck_ganq_fails(ganq_hessian_merge(other, other), GANQ_ERR_NUMERIC, "row 3, column 3");
    ck_assert_int_eq(ganq_hessian_tokens(other), 2);
    ck_ganq_ok(ganq_hessian_export(other, &out));
    ck_assert_float_eq(values[3][3], 1e19f * 1e19f);
    big[1][3] = 0;
    big[0][0] = 1e19f; /* another column may be as large */
    ck_ganq_ok(ganq_hessian_add(ctx, other, &f32));
    ck_ganq_ok(ganq_hessian_export(other, &out));
    ck_assert_float_eq(values[0][0], 1e19f * 1e19f);
    ganq_hessian_free(other);
    ganq_hessian_free(h);
}
END_TEST

START_TEST(import_checks_and_averages) {
    double values[K][K];
    ganq_hessian *h = NULL;
    ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F64, K, K, values), wrong = matrix;
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++)
            values[i][j] = expected[i][j];
    ck_ganq_ok(ganq_hessian_import(ctx, &matrix, 9, &h));
    check_values(h, 1);
    ck_assert_int_eq(ganq_hessian_tokens(h), 9);
    ganq_hessian_free(h);
    h = NULL;
    values[0][3] = 7.001; /* within 1e-3 of sqrt(5 * 18) */
    ck_ganq_ok(ganq_hessian_import(ctx, &matrix, 0, &h));
    float out[K][K];
    ganq_matrix exported = GANQ_MATRIX(GANQ_DTYPE_F32, K, K, out);
    ck_ganq_ok(ganq_hessian_export(h, &exported));
    ck_assert_float_eq(out[0][3], 7.0005f);
    ck_assert_float_eq(out[3][0], 7.0005f);
    ganq_hessian_free(h);
    h = NULL;
    values[0][3] = 7.02;
    ck_ganq_fails(ganq_hessian_import(ctx, &matrix, 1, &h), GANQ_ERR_INVALID_ARG, "not symmetric");
    values[0][3] = 7;
    values[1][1] = -1;
    ck_ganq_fails(ganq_hessian_import(ctx, &matrix, 1, &h), GANQ_ERR_NUMERIC, "diagonal element 1");
    values[1][1] = NAN;
    ck_ganq_fails(ganq_hessian_import(ctx, &matrix, 1, &h), GANQ_ERR_NUMERIC,
                  "row 1, column 1 is NaN");
    values[1][1] = 14;
    values[2][3] = INFINITY;
    ck_ganq_fails(ganq_hessian_import(ctx, &matrix, 1, &h), GANQ_ERR_NUMERIC,
                  "row 2, column 3 is infinite");
    values[2][3] = 0;
    values[0][0] = 1e39;
    ck_ganq_fails(ganq_hessian_import(ctx, &matrix, 1, &h), GANQ_ERR_NUMERIC, "too large");
    values[0][0] = 5;
    ck_ganq_fails(ganq_hessian_import(ctx, &matrix, -1, &h), GANQ_ERR_INVALID_ARG, "-1 tokens");
    wrong.cols = K - 1;
    wrong.row_stride = K;
    ck_ganq_fails(ganq_hessian_import(ctx, &wrong, 1, &h), GANQ_ERR_INVALID_ARG, "square");
    wrong = matrix;
    wrong.dtype = GANQ_DTYPE_F16;
    ck_ganq_fails(ganq_hessian_import(ctx, &wrong, 1, &h), GANQ_ERR_INVALID_ARG, "F16");
    ck_ganq_fails(ganq_hessian_import(NULL, &matrix, 1, &h), GANQ_ERR_INVALID_ARG, "ctx");
    ck_ganq_fails(ganq_hessian_import(ctx, NULL, 1, &h), GANQ_ERR_INVALID_ARG, "H");
    ck_ganq_fails(ganq_hessian_import(ctx, &matrix, 1, NULL), GANQ_ERR_INVALID_ARG, "out");
    ck_assert_ptr_null(h);
}
END_TEST

START_TEST(export_refuses) {
    ganq_hessian *h = hessian_of_x();
    float out[K][K];
    ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F32, K, K - 1, out);
    ck_ganq_fails(ganq_hessian_export(h, &matrix), GANQ_ERR_INVALID_ARG, "expected [4,4]");
    ck_ganq_fails(ganq_hessian_export(h, NULL), GANQ_ERR_INVALID_ARG, "H");
    ck_ganq_fails(ganq_hessian_export(NULL, &matrix), GANQ_ERR_INVALID_ARG, "hessian");
    ganq_hessian_free(h);
}
END_TEST

START_TEST(save_and_load) {
    ganq_hessian *h = hessian_of_x(), *loaded = NULL;
    ck_ganq_ok(ganq_hessian_save(h, path));
    ck_ganq_ok(ganq_hessian_load(ctx, path, &loaded));
    check_values(loaded, 1);
    ck_assert_int_eq(ganq_hessian_tokens(loaded), M);
    ganq_hessian_free(loaded);
    loaded = NULL;
    ck_ganq_fails(ganq_hessian_save(NULL, path), GANQ_ERR_INVALID_ARG, "hessian");
    ck_ganq_fails(ganq_hessian_save(h, NULL), GANQ_ERR_INVALID_ARG, "path");
    ck_ganq_fails(ganq_hessian_load(NULL, path, &loaded), GANQ_ERR_INVALID_ARG, "ctx");
    ck_ganq_fails(ganq_hessian_load(ctx, NULL, &loaded), GANQ_ERR_INVALID_ARG, "path");
    ck_ganq_fails(ganq_hessian_load(ctx, path, NULL), GANQ_ERR_INVALID_ARG, "out");
    ck_ganq_fails(ganq_hessian_save(h, ""), GANQ_ERR_INVALID_ARG, "path is empty");
    ck_ganq_fails(ganq_hessian_load(ctx, "", &loaded), GANQ_ERR_INVALID_ARG, "path is empty");
    ck_ganq_fails(ganq_hessian_load(ctx, "/no/such/h.safetensors", &loaded), GANQ_ERR_NOT_FOUND,
                  "/no/such/h");
    ck_ganq_fails(ganq_hessian_save(h, "/no/such/dir/h.safetensors"), GANQ_ERR_NOT_FOUND,
                  "/no/such/dir");
    ck_assert_ptr_null(loaded);
    ganq_hessian_free(h);
}
END_TEST

/* A file made by hand: 8 bytes of length, the header, the data. */
static void write_file(const char *header, const float *values, size_t count) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    uint64_t size = strlen(header);
    fwrite(&size, 1, 8, file);
    fwrite(header, 1, size, file);
    fwrite(values, sizeof *values, count, file);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(files_from_elsewhere) {
    const float values[4] = {2, 1, 1, 3}, skewed[4] = {2, 1, 0, 3}, negative[4] = {2, 1, 1, -3};
    const char good[] = "{\"__metadata__\":{\"ganq.tokens\":\"12\"},"
                        "\"hessian\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}";
    ganq_hessian *h = NULL;
    write_file(good, values, 4); /* whose data begin at an odd place */
    ck_ganq_ok(ganq_hessian_load(ctx, path, &h));
    ck_assert_int_eq(ganq_hessian_tokens(h), 12);
    ck_assert_int_eq(ganq_hessian_dim(h), 2);
    ganq_hessian_free(h);
    h = NULL;
    write_file(good, skewed, 4);
    ck_ganq_fails(ganq_hessian_load(ctx, path, &h), GANQ_ERR_FORMAT, "not symmetric");
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), path));
    write_file(good, negative, 4);
    ck_ganq_fails(ganq_hessian_load(ctx, path, &h), GANQ_ERR_NUMERIC, "diagonal element 1");
    write_file("{\"hessian\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", values,
               4);
    ck_ganq_fails(ganq_hessian_load(ctx, path, &h), GANQ_ERR_FORMAT, "ganq.tokens");
    write_file("{\"__metadata__\":{\"ganq.tokens\":\"many\"},"
               "\"hessian\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}",
               values, 4);
    ck_ganq_fails(ganq_hessian_load(ctx, path, &h), GANQ_ERR_FORMAT, "many");
    write_file("{\"__metadata__\":{\"ganq.tokens\":\"1\"},"
               "\"hessian\":{\"dtype\":\"F32\",\"shape\":[4,1],\"data_offsets\":[0,16]}}",
               values, 4);
    ck_ganq_fails(ganq_hessian_load(ctx, path, &h), GANQ_ERR_FORMAT, "[4,1]");
    write_file("{\"__metadata__\":{\"ganq.tokens\":\"1\"},"
               "\"weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}",
               values, 4);
    ck_ganq_fails(ganq_hessian_load(ctx, path, &h), GANQ_ERR_NOT_FOUND, "hessian");
    ck_assert_ptr_null(h);
}
END_TEST

/* A flipped bit is found by the CRC that the library writes. */
START_TEST(damaged_file) {
    ganq_hessian *h = hessian_of_x(), *loaded = NULL;
    ck_ganq_ok(ganq_hessian_save(h, path));
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, -4, SEEK_END), 0);
    int byte = fgetc(file);
    ck_assert_int_eq(fseek(file, -4, SEEK_END), 0);
    fputc(byte ^ 1, file);
    ck_assert_int_eq(fclose(file), 0);
    ck_ganq_fails(ganq_hessian_load(ctx, path, &loaded), GANQ_ERR_FORMAT, "hessian");
    ck_assert_ptr_null(loaded);
    ganq_hessian_free(h);
}
END_TEST

/* What was made with a context may outlive it. */
START_TEST(hessian_outlives_its_context) {
    ganq_context *first;
    ganq_hessian *h;
    ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x);
    ck_ganq_ok(ganq_context_create(NULL, &first));
    ck_ganq_ok(ganq_hessian_create(first, K, &h));
    ganq_context_free(first);
    ck_ganq_ok(ganq_hessian_add(ctx, h, &matrix));
    check_values(h, 1);
    ganq_hessian_free(h);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("calib_hessian_api");
    TCase *tests = tcase_create("calib_hessian_api");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, create_and_free);
    tcase_add_test(tests, add_and_merge);
    tcase_add_test(tests, add_refuses);
    tcase_add_test(tests, sums_stay_in_range);
    tcase_add_test(tests, import_checks_and_averages);
    tcase_add_test(tests, export_refuses);
    tcase_add_test(tests, save_and_load);
    tcase_add_test(tests, files_from_elsewhere);
    tcase_add_test(tests, damaged_file);
    tcase_add_test(tests, hessian_outlives_its_context);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
