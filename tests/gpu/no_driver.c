/* no_driver.c - the library that was built with CUDA, where there is no driver (or whatever this machine has): asking for
 * CUDA is an error in words, AUTO falls back and says why, and a process that worked on the CPU may fork. */
#include "check_util.h"

#include <sys/wait.h>
#include <unistd.h>

#include "ganq/ganq.h"

static char logged[1024];
static void keep_log(ganq_log_level level, const char *message, void *user) {
    (void)level, (void)user;
    snprintf(logged, sizeof logged, "%s", message);
}

START_TEST(no_device) {
    ganq_context_options options = {.struct_size = sizeof options, .device = GANQ_DEVICE_CUDA, .device_index = 99};
    ganq_context *ctx = NULL;
    /* no driver, or no such device: both name what is missing */
    ck_ganq_fails(ganq_context_create(&options, &ctx), GANQ_ERR_NO_DEVICE, "CUDA");
    ck_assert_ptr_null(ctx);
    options.device = GANQ_DEVICE_AUTO;
    options.log = keep_log;
    options.log_level = GANQ_LOG_INFO;
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    ck_assert_ptr_nonnull(strstr(ganq_context_device_name(ctx), "cpu"));
    ck_assert_ptr_nonnull(strstr(logged, "cuda is not used"));
    ganq_context_free(ctx);
}
END_TEST

/* Multiplies on the CPU; 0 when the result is right. */
static int work(void) {
    const ganq_context_options options = {.struct_size = sizeof options, .device = GANQ_DEVICE_CPU};
    ganq_context *ctx;
    ganq_layer *layer;
    uint8_t codes[64];
    float lut[4] = {-1, 0, 1, 2}, x[32], y[2];
    ganq_matrix c = GANQ_MATRIX(GANQ_DTYPE_U8, 2, 32, codes), l = GANQ_MATRIX(GANQ_DTYPE_F32, 2, 4, NULL);
    ganq_matrix xm = GANQ_MATRIX(GANQ_DTYPE_F32, 1, 32, x), ym = GANQ_MATRIX(GANQ_DTYPE_F32, 1, 2, y);
    float tables[8];
    float expected = 0;
    memcpy(tables, lut, sizeof lut);
    memcpy(tables + 4, lut, sizeof lut);
    l.data = tables;
    for (int i = 0; i < 64; i++)
        codes[i] = (uint8_t)(i % 4);
    for (int i = 0; i < 32; i++) {
        x[i] = (float)i;
        expected += x[i] * lut[i % 4];
    }
    if (ganq_context_create(&options, &ctx) != GANQ_OK ||
        ganq_layer_import(ctx, 2, &c, &l, NULL, NULL, NULL, NULL, &layer) != GANQ_OK ||
        ganq_lut_gemm(ctx, layer, &xm, &ym) != GANQ_OK)
        return 1;
    ganq_layer_free(layer);
    ganq_context_free(ctx);
    return y[0] > expected - 1 && y[0] < expected + 1 ? 0 : 2;
}

START_TEST(fork_after_work) {
    int status = -1;
    ck_assert_int_eq(work(), 0);
    const pid_t child = fork();
    if (child == 0)
        _exit(work());
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gpu_no_driver");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, no_device);
    tcase_add_test(tc, fork_after_work);
    suite_add_tcase(suite, tc);
    return test_run(suite, 0);
}
