/* test_lut_engine.c - the engine form of the product: the caller's addresses, stream and workspace;
 * nothing allocated, nothing awaited, captured in a graph; arguments that are wrong. */
#include <cuda_runtime_api.h>
#include <math.h>

#include "check_util.h"
#include "emulator.h"
#include "file.h"
#include "ganq/ganq.h"
#include "half.h"

enum { K = 256, M = 3 };
static const int64_t rows[2] = {48, 20};

static ganq_layer *make_layer(ganq_context *ctx, int64_t N, int bits) {
    uint8_t codes[48 * K];
    float lut[48 * 16];
    ganq_layer *layer;
    for (int64_t i = 0; i < N * K; i++)
        codes[i] = (uint8_t)((i * 7 + i / 11) % (1 << bits));
    for (int64_t i = 0; i < N << bits; i++)
        lut[i] = (float)(i % (1 << bits)) / 8 - 0.5f;
    ck_ganq_ok(ganq_layer_import(ctx, bits, &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_U8, N, K, codes),
                                 &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, N, 1 << bits, lut), NULL,
                                 NULL, NULL, NULL, &layer));
    return layer;
}

static ganq_context *open_context(void) {
    const ganq_context_options options = {
        .struct_size = sizeof options, .device = GANQ_DEVICE_CUDA, .numerics = GANQ_NUMERICS_EXACT};
    ganq_context *ctx;
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    return ctx;
}

START_TEST(test_captured) {
    static const int32_t types[] = {GANQ_DTYPE_F16, GANQ_DTYPE_F32, GANQ_DTYPE_BF16};
    const int32_t dtype = types[_i];
    const size_t size = dtype == GANQ_DTYPE_F32 ? 4 : 2;
    ganq_context *ctx = open_context();
    ganq_layer *layers[2] = {make_layer(ctx, rows[0], 4), make_layer(ctx, rows[1], 4)};
    ganq_device_product p = {.struct_size = sizeof p,
                             .count = 2,
                             .layers = {layers[0], layers[1]},
                             .rows = M,
                             .x_dtype = dtype,
                             .y_dtype = GANQ_DTYPE_F32};
    float x[M * K], y[M * 48], expected[M * 48];
    uint16_t halves[M * K];
    int64_t bytes = -1;
    emulator_counts before, after;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t step;
    void *x_device;
    for (int i = 0; i < M * K; i++) { /* exact in each type */
        x[i] = (float)(i % 13 - 6) / 4;
        halves[i] = dtype == GANQ_DTYPE_F16 ? ganq__f32_to_f16(x[i]) : ganq__f32_to_bf16(x[i]);
    }
    ck_assert_int_eq(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    ck_assert_int_eq(cudaMalloc(&x_device, sizeof x), cudaSuccess);
    ck_assert_int_eq(cudaMemcpy(x_device, size == 4 ? (void *)x : (void *)halves, M * K * size,
                                cudaMemcpyHostToDevice),
                     cudaSuccess);
    p.x = x_device;
    p.stream = stream;
    for (int i = 0; i < 2; i++) {
        ck_ganq_fails(ganq_lut_gemm_device_workspace(ctx, &p, &bytes), GANQ_ERR_INVALID_ARG,
                      "ganq_layer_place");
        ck_ganq_ok(ganq_layer_place(ctx, layers[i]));
        ck_assert_int_eq(cudaMalloc(&p.y[i], sizeof y), cudaSuccess);
    }
    ck_ganq_ok(ganq_lut_gemm_device_workspace(ctx, &p, &bytes));
    ck_assert_int_ge(bytes, 0);
    if (dtype == GANQ_DTYPE_F16)
        ck_assert_int_eq(bytes, 0);
    if (bytes)
        ck_assert_int_eq(cudaMalloc(&p.workspace, (size_t)bytes), cudaSuccess);
    p.workspace_bytes = bytes;
    emulator_read_counts(&before);
    ck_assert_int_eq(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    ck_ganq_ok(ganq_lut_gemm_device(ctx, &p));
    ck_assert_int_eq(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    emulator_read_counts(&after);
    ck_assert_int_eq(after.allocations, before.allocations);
    ck_assert_int_eq(after.synchronizations, before.synchronizations);
    ck_assert_int_eq(cudaGraphInstantiate(&step, graph, 0), cudaSuccess);
    for (int turn = 0; turn < 2; turn++) {
        ck_assert_int_eq(cudaGraphLaunch(step, stream), cudaSuccess);
        ck_assert_int_eq(cudaStreamSynchronize(stream), cudaSuccess);
        for (int i = 0; i < 2; i++) {
            const size_t count = (size_t)(M * rows[i]);
            ck_assert_int_eq(cudaMemcpy(y, p.y[i], count * 4, cudaMemcpyDeviceToHost), cudaSuccess);
            ck_ganq_ok(
                ganq_lut_gemm(ctx, layers[i], &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x),
                              &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, M, rows[i], expected)));
            for (size_t j = 0; j < count; j++)
                ck_assert_msg(fabsf(y[j] - expected[j]) < 1e-4f, "%g, expected %g", (double)y[j],
                              (double)expected[j]);
            ck_assert_int_eq(cudaMemsetAsync(p.y[i], 0xff, sizeof y, stream), cudaSuccess);
        }
    }
    cudaGraphExecDestroy(step), cudaGraphDestroy(graph);
    cudaFree(p.y[0]), cudaFree(p.y[1]), cudaFree(p.workspace), cudaFree(x_device);
    cudaStreamDestroy(stream);
    ganq_layer_free(layers[0]);
    ganq_context_free(ctx);
    ganq_layer_free(layers[1]); /* after its context: its copy went with that */
    emulator_read_counts(&after);
    ck_assert_uint_eq(after.bytes_held, 0);
}
END_TEST

/* What ganq_layer_place has put is there for every stream: a bias of 12 numbers, too, which is not waited for by itself. */
START_TEST(test_placed_for_all_streams) {
    ganq_context *ctx = open_context();
    uint8_t codes[12 * K] = {0};
    float lut[12 * 4], bias[12], y[12];
    uint16_t x[K] = {0};
    ganq_layer *layer;
    void *x_device, *y_device;
    cudaStream_t stream;
    for (int i = 0; i < 48; i++)
        lut[i] = (float)(i % 4);
    for (int i = 0; i < 12; i++)
        bias[i] = (float)i;
    ck_ganq_ok(ganq_layer_import(ctx, 2, &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_U8, 12, K, codes),
                                 &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, 12, 4, lut),
                                 &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, 1, 12, bias), NULL, NULL, NULL, &layer));
    ck_assert_int_eq(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    ck_assert_int_eq(cudaMalloc(&x_device, sizeof x), cudaSuccess);
    ck_assert_int_eq(cudaMalloc(&y_device, sizeof y), cudaSuccess);
    ck_assert_int_eq(cudaMemcpy(x_device, x, sizeof x, cudaMemcpyHostToDevice), cudaSuccess);
    ck_ganq_ok(ganq_layer_place(ctx, layer));
    ck_ganq_ok(ganq_lut_gemm_device(ctx, &(ganq_device_product){.struct_size = sizeof(ganq_device_product),
                                                                .count = 1,
                                                                .layers = {layer},
                                                                .rows = 1,
                                                                .x = x_device,
                                                                .x_dtype = GANQ_DTYPE_F16,
                                                                .y_dtype = GANQ_DTYPE_F32,
                                                                .y = {y_device},
                                                                .stream = stream}));
    ck_assert_int_eq(cudaMemcpyAsync(y, y_device, sizeof y, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    ck_assert_int_eq(cudaStreamSynchronize(stream), cudaSuccess);
    ck_assert_mem_eq(y, bias, sizeof y);
    cudaFree(x_device), cudaFree(y_device);
    cudaStreamDestroy(stream);
    ganq_layer_free(layer);
    ganq_context_free(ctx);
}
END_TEST

START_TEST(test_wrong_arguments) {
    ganq_context *ctx = open_context(), *cpu;
    const ganq_context_options on_cpu = {.struct_size = sizeof on_cpu, .device = GANQ_DEVICE_CPU};
    ganq_layer *layer = make_layer(ctx, 48, 3);
    char *x = (char *)4096; /* never read: all of these fail before */
    ganq_device_product good = {.struct_size = sizeof good,
                                .count = 1,
                                .layers = {layer},
                                .rows = 12,
                                .x = x,
                                .x_dtype = GANQ_DTYPE_F32,
                                .y_dtype = GANQ_DTYPE_F32,
                                .y = {x}},
                        p;
    int64_t bytes = 0;
    ck_ganq_ok(ganq_context_create(&on_cpu, &cpu));
    ck_ganq_ok(ganq_layer_place(cpu, layer));
    ck_ganq_fails(ganq_lut_gemm_device(cpu, &good), GANQ_ERR_UNSUPPORTED, "no GPU");
    ck_ganq_fails(ganq_lut_gemm_device(ctx, &good), GANQ_ERR_INVALID_ARG, "ganq_layer_place");
    ck_ganq_ok(ganq_layer_place(ctx, layer));
    ck_ganq_ok(ganq_lut_gemm_device_workspace(ctx, &good, &bytes));
    ck_assert_int_gt(bytes, 0); /* 12 rows of f32 are prepared */
#define FAILS(word, ...)                                                                           \
    do {                                                                                           \
        p = good;                                                                                  \
        __VA_ARGS__;                                                                               \
        ck_ganq_fails(ganq_lut_gemm_device(ctx, &p), GANQ_ERR_INVALID_ARG, word);                  \
    } while (0)
    FAILS("workspace", (void)0);
    FAILS("multiple of 256", (p.workspace = x + 16, p.workspace_bytes = bytes));
    FAILS("workspace", (p.workspace = x, p.workspace_bytes = bytes - 1));
    FAILS("0 layers", p.count = 0);
    FAILS("4 layers", p.count = 4);
    FAILS("layers[1] is NULL", p.count = 2);
    FAILS("rows of x", p.rows = 0);
    FAILS("x is NULL", p.x = NULL);
    FAILS("y[0] is NULL", p.y[0] = NULL);
    FAILS("element type 5", p.x_dtype = GANQ_DTYPE_U8);
    FAILS("element type 99", p.y_dtype = 99);
    FAILS("256 or more", p.x_stride = 255);
    FAILS("48 or more", p.y_strides[0] = 47);
    FAILS("no address", p.x = x + 2);
    FAILS("struct_size", p.struct_size = 0);
    ck_ganq_fails(ganq_lut_gemm_device(ctx, NULL), GANQ_ERR_INVALID_ARG, "NULL");
    ck_ganq_fails(ganq_layer_place(ctx, NULL), GANQ_ERR_INVALID_ARG, "NULL");
    ganq_layer_free(layer);
    ganq_context_free(ctx);
    ganq_context_free(cpu);
}
END_TEST

/* The fastest plan is kept, in the context and in the file; results stay right. Times are the
 * emulator's: not looked at. */
START_TEST(test_tune) {
    char path[600];
    const char *dir = test_dir();
    ganq_context *ctx = open_context(), *cpu;
    const ganq_context_options on_cpu = {.struct_size = sizeof on_cpu, .device = GANQ_DEVICE_CPU};
    ganq_layer *layer = make_layer(ctx, 48, 4);
    double tuned = -1, untuned = -1;
    emulator_counts before, after;
    setenv("GANQ_CACHE_DIR", dir, 1);
    snprintf(path, sizeof path, "%s/lut-tuning.txt", dir);
    ck_ganq_ok(ganq__file_write(path, "damaged\n", 8)); /* no reason to fail, now or for ever */
    ck_ganq_ok(ganq_context_create(&on_cpu, &cpu));
    ck_ganq_fails(ganq_lut_gemm_tune(cpu, layer, 1, GANQ_DTYPE_F32, &tuned, &untuned),
                  GANQ_ERR_UNSUPPORTED, "no GPU");
    ck_ganq_fails(ganq_lut_gemm_tune(ctx, layer, 0, GANQ_DTYPE_F32, &tuned, &untuned),
                  GANQ_ERR_INVALID_ARG, "0 rows");
    ck_ganq_fails(ganq_lut_gemm_tune(ctx, layer, 1, GANQ_DTYPE_U8, &tuned, &untuned),
                  GANQ_ERR_INVALID_ARG, "type 5");
    ck_ganq_ok(ganq_layer_place(ctx, layer));
    ck_ganq_ok(ganq_lut_gemm_tune(ctx, layer, 2, GANQ_DTYPE_F32, &tuned, &untuned));
    emulator_read_counts(&before);
    ck_ganq_ok(ganq_lut_gemm_tune(ctx, layer, 1, GANQ_DTYPE_F16, &tuned, &untuned));
    emulator_read_counts(&after);
    ck_assert_uint_le(after.bytes_held,
                      before.bytes_held); /* copies are given back; workspaces were there */
    ck_assert(tuned >= 0 && tuned <= untuned);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    char line[200];
    int rows_kept = 0;
    while (fgets(line, sizeof line, file))
        rows_kept += strncmp(line, "89 ", 3) == 0;
    fclose(file);
    ck_assert_int_eq(rows_kept, 2);
    ck_ganq_ok(ganq__remove_tree(dir));
    ganq_layer_free(layer);
    ganq_context_free(ctx);
    ganq_context_free(cpu);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lut_engine");
    TCase *tests = tcase_create("engine form");
    setenv("GANQ_CACHE_DIR", "/nonexistent", 1);
    suite_add_tcase(suite, tests);
    tcase_add_loop_test(tests, test_captured, 0, 3);
    tcase_add_test(tests, test_placed_for_all_streams);
    tcase_add_test(tests, test_wrong_arguments);
    tcase_add_test(tests, test_tune);
    return test_run(suite, 0);
}
