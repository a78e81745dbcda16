/* test_tensors.c - ganq/tensors.h on a file written by hand. */
#include <unistd.h>

#include "check_util.h"
#include "tiny_model.h"

static char model_dir[512];

static void setup(void) {
    snprintf(model_dir, sizeof model_dir, "%s/model", test_dir());
    tiny_model_write(model_dir, &(tiny_model){0});
}

START_TEST(lists_and_reads) {
    ganq_tensors *tensors = NULL;
    ck_ganq_ok(ganq_tensors_open(model_dir, &tensors));
    ck_assert_int_eq(ganq_tensors_count(tensors), 1 + 2 * 9 + 1);
    int64_t i = ganq_tensors_find(tensors, "model.layers.1.mlp.down_proj.weight");
    ck_assert_int_ge(i, 0);
    ganq_tensor_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_tensors_get(tensors, i, &info));
    ck_assert_str_eq(info.name, "model.layers.1.mlp.down_proj.weight");
    ck_assert_str_eq(info.dtype_name, "F32");
    ck_assert_int_eq(info.dtype, GANQ_DTYPE_F32);
    ck_assert_int_eq(info.rank, 2);
    ck_assert_int_eq(info.shape[0], TINY_HIDDEN);
    ck_assert_int_eq(info.shape[1], TINY_INTER);
    ck_assert_int_eq(info.has_crc, 0);
    ck_assert_ptr_nonnull(strstr(info.file, "model.safetensors"));

    float all[TINY_HIDDEN * TINY_INTER], some[3 * TINY_INTER];
    double wide[3 * TINY_INTER];
    ganq_matrix m_all = GANQ_MATRIX(GANQ_DTYPE_F32, TINY_HIDDEN, TINY_INTER, all);
    ganq_matrix m_some = GANQ_MATRIX(GANQ_DTYPE_F32, 3, TINY_INTER, some);
    ganq_matrix m_wide = GANQ_MATRIX(GANQ_DTYPE_F64, 3, TINY_INTER, wide);
    ck_ganq_ok(ganq_tensors_read(tensors, i, 0, &m_all));
    ck_ganq_ok(ganq_tensors_read(tensors, i, 5, &m_some));
    ck_ganq_ok(ganq_tensors_read(tensors, i, 5, &m_wide));
    ck_assert_mem_eq(some, all + 5 * TINY_INTER, sizeof some);
    for (int k = 0; k < 3 * TINY_INTER; k++)
        ck_assert_double_eq(wide[k], some[k]);
    ck_ganq_fails(ganq_tensors_read(tensors, i, TINY_HIDDEN - 2, &m_some), GANQ_ERR_INVALID_ARG,
                  "down_proj");
    ck_ganq_fails(ganq_tensors_read(tensors, i, INT64_MAX, &m_some), GANQ_ERR_INVALID_ARG,
                  "down_proj");
    ck_ganq_ok(ganq_tensors_verify(tensors, i));
    ganq_tensors_free(tensors);
}
END_TEST

START_TEST(refuses) {
    ganq_tensors *tensors = NULL;
    ganq_tensor_info info = {.struct_size = sizeof info};
    ck_ganq_fails(ganq_tensors_open(NULL, &tensors), GANQ_ERR_INVALID_ARG, "path");
    ck_ganq_fails(ganq_tensors_open("", &tensors), GANQ_ERR_INVALID_ARG, "path is empty");
    ck_ganq_fails(ganq_tensors_open("/nowhere/x.safetensors", &tensors), GANQ_ERR_NOT_FOUND,
                  "nowhere");
    ck_assert_ptr_null(tensors);
    ck_ganq_ok(ganq_tensors_open(model_dir, &tensors));
    ck_assert_int_eq(ganq_tensors_find(tensors, "no such"), -1);
    ck_assert_ptr_null(ganq_tensors_meta(tensors, "no such"));
    ck_ganq_fails(ganq_tensors_get(tensors, -1, &info), GANQ_ERR_INVALID_ARG, "-1");
    ck_ganq_fails(ganq_tensors_get(tensors, 1000, &info), GANQ_ERR_INVALID_ARG, "1000");
    ck_ganq_fails(ganq_tensors_verify(NULL, 0), GANQ_ERR_INVALID_ARG, "NULL");
    ganq_tensors_free(tensors);
    ganq_tensors_free(NULL);
}
END_TEST

START_TEST(finds_damage) {
    char path[600];
    snprintf(path, sizeof path, "%s/h.safetensors", model_dir);
    ganq_context *ctx = NULL;
    ganq_hessian *hessian = NULL;
    float x[4] = {1, 2, 3, 4};
    ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F32, 1, 4, x);
    ck_ganq_ok(ganq_context_create(NULL, &ctx));
    ck_ganq_ok(ganq_hessian_create(ctx, 4, &hessian));
    ck_ganq_ok(ganq_hessian_add(ctx, hessian, &matrix));
    ck_ganq_ok(ganq_hessian_save(hessian, path));
    ganq_hessian_free(hessian);
    ganq_context_free(ctx);

    ganq_tensors *tensors = NULL;
    ganq_tensor_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_tensors_open(path, &tensors));
    ck_assert_str_eq(ganq_tensors_meta(tensors, "format"), "pt");
    ck_ganq_ok(ganq_tensors_get(tensors, 0, &info));
    ck_assert_int_eq(info.has_crc, 1);
    ck_ganq_ok(ganq_tensors_verify(tensors, 0));
    ganq_tensors_free(tensors);

    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, -3, SEEK_END), 0);
    fputc(0x55, file);
    ck_assert_int_eq(fclose(file), 0);
    ck_ganq_ok(ganq_tensors_open(path, &tensors));
    ck_ganq_fails(ganq_tensors_verify(tensors, 0), GANQ_ERR_FORMAT, "hessian");
    ganq_tensors_free(tensors);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tensors");
    TCase *tests = tcase_create("tensors");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, lists_and_reads);
    tcase_add_test(tests, refuses);
    tcase_add_test(tests, finds_damage);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
