/* test_libraries.c - what the backend asks of cuBLASLt and cuSOLVER, and what it makes of their answers; fakes stand in
 * for them (fake_libraries.h). */
#include "check_util.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "alloc.h"
#include "cuda.h"
#include "cusolver.h"
#include "emulator.h"
#include "fake_libraries.h"
#include "ganq/ganq.h"
#include "lut_gemm.h"
#include "memory_ops.h"

enum { N = 48, K = 256, M = 100 }; /* so many rows go to cuBLASLt */

static fake_cublaslt_state *cublaslt;
static fake_cusolver_state *cusolver;
static ganq_context *ctx;
static ganq_layer *layer;

static void *state_of(const char *file, const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", GANQ_FAKE_CUDA, file);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    return dlsym(library, name);
}

static ganq_context *open_context(int index) {
    const ganq_context_options options = {
        .struct_size = sizeof options, .device = GANQ_DEVICE_CUDA, .device_index = index, .numerics = GANQ_NUMERICS_FAST};
    ganq_context *made;
    ck_ganq_ok(ganq_context_create(&options, &made));
    return made;
}

static ganq_layer *make_layer(void) {
    static uint8_t codes[N * K];
    float lut[N * 16];
    ganq_layer *made;
    for (int i = 0; i < N * K; i++)
        codes[i] = (uint8_t)(i * 7 % 16);
    for (int i = 0; i < N * 16; i++)
        lut[i] = (float)(i % 16) / 8 - 0.5f;
    ck_ganq_ok(ganq_layer_import(ctx, 4, &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_U8, N, K, codes),
                                 &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, N, 16, lut), NULL, NULL, NULL, NULL, &made));
    return made;
}

static void setup(void) {
    cublaslt = state_of("libcublasLt.so.13", "fake_cublaslt");
    cusolver = state_of("libcusolver.so.12", "fake_cusolver");
    *cublaslt = (fake_cublaslt_state){0};
    unsetenv("GANQ_CACHE_DIR"), unsetenv("XDG_CACHE_HOME"), unsetenv("HOME"); /* no measured plans, and no error */
    setenv("GANQ_CUDA_LIB_DIR", GANQ_FAKE_CUDA, 1);
    ctx = open_context(1);
    layer = make_layer();
}
static void teardown(void) {
    ganq_layer_free(layer);
    ganq_context_free(ctx);
}

static void multiply(ganq_context *with, float *y) {
    static float x[M * K];
    for (int i = 0; i < M * K; i++)
        x[i] = (float)(i % 13 - 6) / 4;
    ck_ganq_ok(ganq_lut_gemm(with, layer, &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x),
                             &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, M, N, y)));
}

/* Kernels are chosen for the addresses as they are. */
START_TEST(alignment) {
    ganq_device_product p = {.struct_size = sizeof p,
                             .count = 1,
                             .layers = {layer},
                             .rows = M,
                             .x_dtype = GANQ_DTYPE_F16,
                             .y_dtype = GANQ_DTYPE_F32,
                             .stream = ganq__cuda_of(ctx)->stream};
    void *x, *y;
    ck_ganq_ok(ganq_layer_place(ctx, layer));
    ck_ganq_ok(ctx->memory->allocate(ctx, M * K * 2 + 256, &x));
    ck_ganq_ok(ctx->memory->allocate(ctx, M * N * 4 + 256, &y));
    for (uint32_t at = 16; at <= 256; at *= 2) {
        p.x = (char *)x + at;
        p.y[0] = (char *)y + 2 * at % 256;
        ck_ganq_ok(ganq_lut_gemm_device_workspace(ctx, &p, &p.workspace_bytes));
        ck_ganq_ok(ctx->memory->allocate(ctx, (size_t)p.workspace_bytes, &p.workspace));
        ck_ganq_ok(ganq_lut_gemm_device(ctx, &p));
        const uint32_t of_y = at < 128 ? 2 * at : 256;
        ck_assert_uint_eq(cublaslt->alignments[0], 256);
        ck_assert_uint_eq(cublaslt->alignments[1], at);
        ck_assert_uint_eq(cublaslt->alignments[2], of_y);
        ck_assert_uint_eq(cublaslt->alignments[3], of_y);
        ctx->memory->release(ctx, p.workspace);
    }
    ck_assert_int_eq(cublaslt->products, 5);
    ctx->memory->release(ctx, x);
    ctx->memory->release(ctx, y);
}
END_TEST

/* A product that cuBLASLt has no kernel for is made as where there is no cuBLASLt, and that is no error. */
START_TEST(no_kernel) {
    static float y[M * N], expected[M * N];
    ganq__lut_state *state = ganq__cuda_of(ctx)->lut = ganq__calloc(1, sizeof *state);
    ck_assert_ptr_nonnull(state);
    state->no_cublaslt = 1;
    multiply(ctx, expected);
    ck_ganq_fails(ganq_context_create(NULL, NULL), GANQ_ERR_INVALID_ARG, "out is NULL");
    for (cublaslt->refuse = 1; cublaslt->refuse <= 2; cublaslt->refuse++) {
        ganq_context *other = open_context(0);
        memset(y, 0xff, sizeof y);
        multiply(other, y);
        ck_assert_mem_eq(y, expected, sizeof y);
        ck_assert_int_eq(cublaslt->products, 0);
        ck_assert_ptr_nonnull(strstr(ganq_last_error(), "out is NULL"));
        ganq_context_free(other);
    }
}
END_TEST

static ganq_context *opened;
static volatile int32_t *arrived;
static int destroyed;
static void expect_idle_device(void) {
    destroyed++;
    ck_assert_ptr_eq(emulator_current_context(), ganq__cuda_of(opened)->context);
    ck_assert_int_eq(*arrived, 0x01010101);
}

/* A handle is given back on its device, when nothing is left to do there. */
START_TEST(handle_is_given_back) {
    static float y[M * N];
    void *pinned, *word;
    opened = open_context(1);
    ck_assert_int_eq(cudaHostAlloc(&pinned, sizeof *arrived, 0), cudaSuccess);
    arrived = pinned;
    multiply(opened, y);
    ck_assert_int_gt(cublaslt->products, 0);
    ck_ganq_ok(opened->memory->allocate(opened, sizeof *arrived, &word));
    cudaStream_t stream = ganq__cuda_of(opened)->stream;
    ck_assert_int_eq(cudaMemsetAsync(word, 1, sizeof *arrived, stream), cudaSuccess);
    ck_assert_int_eq(cudaMemcpyAsync(pinned, word, sizeof *arrived, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    opened->memory->release(opened, word);
    cublaslt->at_destroy = expect_idle_device;
    ganq_context_free(opened);
    ck_assert_int_eq(destroyed, 1);
    cublaslt->at_destroy = NULL;
    cudaFreeHost(pinned);
}
END_TEST

static int info;
static void factor(int *device_info) {
    ck_assert_int_eq(cudaMemcpy(device_info, &info, sizeof info, cudaMemcpyHostToDevice), cudaSuccess);
}

/* A matrix that is not positive definite is an answer, a wrong argument is not. */
START_TEST(factorization) {
    double a[4] = {1, 0, 0, 1};
    int definite = -1;
    cusolver->factor = factor;
    ck_ganq_ok(ganq__cusolver_cholesky(ctx, 2, a, 2, &definite));
    ck_assert_int_eq(definite, 1);
    info = 2;
    ck_ganq_ok(ganq__cusolver_cholesky(ctx, 2, a, 2, &definite));
    ck_assert_int_eq(definite, 0);
    info = -4;
    ck_ganq_fails(ganq__cusolver_cholesky(ctx, 2, a, 2, &definite), GANQ_ERR_INTERNAL, "argument 4");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cuda_libraries");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, alignment);
    tcase_add_test(tc, no_kernel);
    tcase_add_test(tc, handle_is_given_back);
    tcase_add_test(tc, factorization);
    suite_add_tcase(suite, tc);
    return test_run(suite, 0);
}
