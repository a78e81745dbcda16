/* test_backend.c - the CUDA backend's beginning and end, and its memory: what is said where there is
 * no device, that the caller's device and other threads are left alone, that all memory is given back. */
#include "check_util.h"

#include <cuda_runtime_api.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda.h"
#include "emulator.h"
#include "ganq/ganq.h"
#include "memory_ops.h"
#include "model_kernels.h"
#include "model_ops.h"

static ganq_context_options on_cuda(int index) {
    return (ganq_context_options){
        .struct_size = sizeof(ganq_context_options), .device = GANQ_DEVICE_CUDA, .device_index = index};
}

static char logged[1024];
static void keep_log(ganq_log_level level, const char *message, void *user) {
    (void)level, (void)user;
    snprintf(logged, sizeof logged, "%s", message);
}

static void expect_no_device(const emulator_machine *machine, int index, const char *word) {
    ganq_context_options options = on_cuda(index);
    ganq_context *ctx = NULL;
    emulator_set_machine(machine);
    ck_ganq_fails(ganq_context_create(&options, &ctx), GANQ_ERR_NO_DEVICE, word);
    ck_assert_ptr_null(ctx);
    /* AUTO goes on with the CPU and says why, but not as an error. */
    ck_ganq_fails(ganq_context_create(NULL, NULL), GANQ_ERR_INVALID_ARG, "out is NULL");
    options.device = GANQ_DEVICE_AUTO;
    options.log = keep_log;
    options.log_level = GANQ_LOG_INFO;
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    ck_assert_ptr_nonnull(strstr(ganq_context_device_name(ctx), "cpu"));
    ck_assert_ptr_nonnull(strstr(logged, word));
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "out is NULL"));
    ganq_context_free(ctx);
}

START_TEST(test_no_device) {
    expect_no_device(&(emulator_machine){0, 0, 89, 1 << 20}, 0, "no NVIDIA driver");
    expect_no_device(&(emulator_machine){12040, 1, 89, 1 << 20}, 0, "runs CUDA 12.4");
    expect_no_device(&(emulator_machine){12040, 1, 89, 1 << 20}, 0, "built with CUDA 13.0");
    expect_no_device(&(emulator_machine){13000, 0, 89, 1 << 20}, 0, "no NVIDIA GPU");
    expect_no_device(&(emulator_machine){13000, 1, 75, 1 << 20}, 0, "7.5");
    expect_no_device(&(emulator_machine){13000, 2, 89, 1 << 20}, 2, "there are 2 (0..1)");
    expect_no_device(&(emulator_machine){13000, 1, 89, 1 << 20, .no_pools = 1}, 0, "no memory pools");
}
END_TEST

START_TEST(test_open_and_close) {
    ganq_context_options options = on_cuda(1);
    ganq_context *ctx, *other;
    emulator_counts before, after;
    int device = -1;
    cudaSetDevice(0);
    emulator_read_counts(&before);
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    ck_assert_str_eq(ganq_context_device_name(ctx), "cuda:1 (emulated device 1, sm_89)");
    options.device_index = 0;
    ck_ganq_ok(ganq_context_create(&options, &other));
    ck_assert_str_eq(ganq_context_device_name(other), "cuda:0 (emulated device 0, sm_89)");
    cudaGetDevice(&device);
    ck_assert_int_eq(device, 0);
    ganq_context_free(ctx);
    ganq_context_free(other);
    emulator_read_counts(&after);
    ck_assert_uint_eq(after.bytes_held, before.bytes_held);
    cudaGetDevice(&device);
    ck_assert_int_eq(device, 0);
}
END_TEST

START_TEST(test_memory) {
    ganq_context_options options = on_cuda(1);
    ganq_context *ctx;
    emulator_counts counts;
    char text[1000], back[1000];
    void *a = NULL, *b = NULL, *c = NULL;
    int device = -1;
    for (int i = 0; i < 1000; i++)
        text[i] = (char)(i * 7);
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    const ganq__memory_ops *memory = ctx->memory;
    ck_assert(!memory->is_host);
    ck_ganq_ok(memory->allocate(ctx, 1000, &a));
    ck_ganq_ok(memory->allocate(ctx, 1000, &b));
    ck_assert_uint_eq((uintptr_t)a % 64, 0);
    ck_ganq_ok(memory->upload(ctx, a, text, sizeof text));
    memset(text, 0, 10); /* upload is done with it */
    ck_ganq_ok(memory->copy(ctx, b, a, 1000));
    ck_ganq_ok(memory->download(ctx, back, b, 1000));
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(back[i], (char)(i * 7));
    ck_ganq_fails(memory->allocate(ctx, (size_t)9 << 30, &c), GANQ_ERR_NO_MEMORY, "9663676416 bytes");
    ck_assert_ptr_null(c);
    emulator_fail_allocation(1);
    ck_ganq_fails(memory->allocate(ctx, 10, &c), GANQ_ERR_NO_MEMORY, "10 bytes");
    ck_ganq_ok(memory->allocate(ctx, 10, &c));
    if (memory->available)
        ck_assert_int_gt(memory->available(ctx), 0);
    memory->release(ctx, a);
    memory->release(ctx, b);
    memory->release(ctx, c);
    memory->release(ctx, NULL);
    cudaGetDevice(&device);
    ck_assert_int_eq(device, 0);
    ganq_context_free(ctx);
    emulator_read_counts(&counts);
    ck_assert_uint_eq(counts.bytes_held, 0);
}
END_TEST

/* What a device runs, and how it is launched, follows the code that is loaded for it. */
START_TEST(test_code) {
    ganq_context_options options = on_cuda(0);
    ganq_context *ctx;
    expect_no_device(&(emulator_machine){13000, 1, 80, 1 << 20, .code = -1}, 0, "built for compute capability the emulator");
    expect_no_device(&(emulator_machine){13000, 1, 80, 1 << 20, .code = -1}, 0, "sm_80");
    static const struct {
        int sm, code, dependent;
    } cases[] = {{89, 89, 0}, {90, 90, 1}, {90, 80, 0}, {120, 89, 0}, {120, 90, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        emulator_set_machine(&(emulator_machine){13000, 1, cases[i].sm, 1 << 20, .code = cases[i].code});
        ck_ganq_ok(ganq_context_create(&options, &ctx));
        ck_assert_int_eq(ganq__cuda_queue_of(ctx).dependent, cases[i].dependent);
        ganq_context_free(ctx);
    }
    emulator_set_machine(NULL);
}
END_TEST

/* Attention of more tokens than decode steps have, by a kernel whose shared memory grows with dim. */
static ganq_status attend(ganq_context *ctx, int64_t dim) {
    enum { M = GANQ__ATTENTION_DECODE + 1 };
    static const float zeros[M * 256];
    void *in = NULL, *out = NULL;
    ck_ganq_ok(ctx->memory->allocate(ctx, sizeof zeros, &in));
    ck_ganq_ok(ctx->memory->allocate(ctx, sizeof zeros, &out));
    ck_ganq_ok(ctx->memory->upload(ctx, in, zeros, sizeof zeros));
    const ganq_status status = ctx->model->attention(ctx, &(ganq__attention){.M = M,
                                                                             .heads = 1,
                                                                             .kv_heads = 1,
                                                                             .head_dim = dim,
                                                                             .scale = 1,
                                                                             .cache_dtype = GANQ_DTYPE_F32,
                                                                             .q = in,
                                                                             .keys = in,
                                                                             .values = in,
                                                                             .capacity = M,
                                                                             .out = out});
    ctx->memory->release(ctx, in);
    ctx->memory->release(ctx, out);
    return status;
}
static void attend_with_less(void *user) {
    ck_ganq_ok(attend(user, 192));
}

/* A kernel with much shared memory, while another thread launches the same one with less. */
START_TEST(test_shared_memory) {
    ganq_context_options options = on_cuda(0);
    ganq_context *ctx, *other;
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    ck_ganq_ok(ganq_context_create(&options, &other));
    emulator_interrupt("cudaFuncSetAttribute", attend_with_less, other);
    ck_ganq_ok(attend(ctx, 256));
    ganq_context_free(ctx);
    ganq_context_free(other);
}
END_TEST

static void quantize_and_multiply(ganq_context *ctx) {
    enum { N = 16, K = 8 };
    float w[N * K], y[N];
    ganq_layer *layer;
    for (int i = 0; i < N * K; i++)
        w[i] = (float)(i * 7 % 31) / 31;
    const ganq_quantize_options options = {.struct_size = sizeof options, .recipe = GANQ_RECIPE_PAPER, .iterations = 1};
    ck_ganq_ok(ganq_layer_quantize(ctx, &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w), NULL, NULL, &options, &layer));
    ck_ganq_ok(ganq_lut_gemm(ctx, layer, &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, 1, K, w),
                             &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, 1, N, y)));
    ganq_layer_free(layer);
}

/* What contexts do on device 1, going well and failing. */
static void use_device_1(void) {
    ganq_context_options options = on_cuda(1);
    ganq_context *ctx = NULL;
    void *memory;
    emulator_fail_call("cudaStreamCreateWithFlags", cudaErrorMemoryAllocation);
    ck_ganq_fails(ganq_context_create(&options, &ctx), GANQ_ERR_NO_MEMORY, "cudaStreamCreateWithFlags");
    emulator_fail_call("cudaMemPoolCreate", cudaErrorMemoryAllocation);
    ck_ganq_fails(ganq_context_create(&options, &ctx), GANQ_ERR_NO_MEMORY, "cudaMemPoolCreate");
    emulator_fail_call("cuDevicePrimaryCtxRetain", cudaErrorDevicesUnavailable);
    ck_ganq_fails(ganq_context_create(&options, &ctx), GANQ_ERR_NO_DEVICE, "busy");
    emulator_fail_call("cudaFuncGetAttributes", cudaErrorMemoryAllocation);
    ck_ganq_fails(ganq_context_create(&options, &ctx), GANQ_ERR_NO_MEMORY, "cudaFuncGetAttributes");
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    ck_ganq_ok(attend(ctx, 256));
    quantize_and_multiply(ctx);
    ck_ganq_fails(ctx->memory->allocate(ctx, (size_t)9 << 30, &memory), GANQ_ERR_NO_MEMORY, "bytes");
    emulator_fail_call("cuCtxPushCurrent", cudaErrorDeviceUninitialized);
    ck_ganq_fails(ctx->memory->allocate(ctx, 10, &memory), GANQ_ERR_DEVICE, "cuCtxPushCurrent");
    ganq_context_free(ctx);
}

/* The caller's context is as it was, none or one of its own, and no device but the one asked for gets one. */
START_TEST(test_leaves_contexts_alone) {
    const int before = emulator_contexts(0);
    void *const found = emulator_current_context();
    use_device_1();
    ck_assert_ptr_eq(emulator_current_context(), found);
    ck_assert_int_eq(emulator_contexts(0), before);
    ck_assert_int_eq(emulator_contexts(1), 1);
    void *const own = emulator_make_context(1);
    use_device_1();
    ck_assert_ptr_eq(emulator_current_context(), own);
    ck_assert_int_eq(emulator_contexts(1), 2);
}
END_TEST

static void overwrite_stack(void) {
    volatile char junk[4096];
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = 0x55;
}

/* A device that reads the process's memory itself does so when the copy runs: not after the call. */
START_TEST(test_small_upload) {
    ganq_context_options options = on_cuda(0);
    ganq_context *ctx;
    char text[8] = "0123456", back[8] = "";
    void *memory;
    emulator_set_machine(&(emulator_machine){13000, 1, 89, 1 << 20, .host_page_tables = _i});
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    ck_ganq_ok(ctx->memory->allocate(ctx, sizeof text, &memory));
    ck_ganq_ok(ctx->memory->upload(ctx, memory, text, sizeof text));
    memset(text, 0, sizeof text);
    overwrite_stack();
    ck_ganq_ok(ctx->memory->download(ctx, back, memory, sizeof back));
    ck_assert_str_eq(back, "0123456");
    ctx->memory->release(ctx, memory);
    ganq_context_free(ctx);
    emulator_set_machine(NULL);
}
END_TEST

/* A process that works on the CPU calls nothing of CUDA, and may fork. */
START_TEST(test_cpu_does_not_touch_cuda) {
    const pid_t child = fork();
    if (child == 0) {
        const ganq_context_options options = {.struct_size = sizeof options, .device = GANQ_DEVICE_CPU};
        ganq_context *ctx;
        emulator_counts counts;
        if (ganq_context_create(&options, &ctx) != GANQ_OK)
            _exit(1);
        ganq_context_free(ctx);
        emulator_read_counts(&counts);
        _exit(counts.api_calls ? 2 : 0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cuda_backend");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, test_cpu_does_not_touch_cuda);
    tcase_add_test(tc, test_no_device);
    tcase_add_test(tc, test_code);
    tcase_add_test(tc, test_shared_memory);
    tcase_add_test(tc, test_leaves_contexts_alone);
    tcase_add_test(tc, test_open_and_close);
    tcase_add_test(tc, test_memory);
    tcase_add_loop_test(tc, test_small_upload, 0, 2);
    suite_add_tcase(suite, tc);
    return test_run(suite, 0);
}
