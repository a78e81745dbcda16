/* test_lut_gemm.c - every kernel of the product with quantized layers on the emulated device,
 * against a float64 product of the dequantized layer: bits x M x odd N, K x types x outliers x bias
 * x plans. Each in both orders of threads: the same bits. */
#include <math.h>

#include "check_util.h"
#include "alloc.h"
#include "attachment.h"
#include "emulator.h"
#include "ganq/ganq.h"
#include "half.h"
#include "layer.h"
#include "dtype.h"
#include "lut_gemm.h"
#include "memory_ops.h"
#include "model_ops.h"

static uint32_t random_state = 1;
static uint32_t random_u32(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}
static float random_float(void) {
    return (float)random_u32() / (1 << 23) - 1;
}

static ganq_context *open_context(ganq_numerics numerics) {
    const ganq_context_options options = {.struct_size = sizeof options,
                                          .device = GANQ_DEVICE_CUDA,
                                          .threads = 2,
                                          .numerics = numerics};
    ganq_context *ctx;
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    return ctx;
}

/* Tables in f32 have values that f16 does not. */
static ganq_layer *random_layer(int bits, int64_t N, int64_t K, int f32_tables, int outliers,
                                int bias) {
    const int64_t L = (int64_t)1 << bits;
    uint8_t *codes = malloc((size_t)(N * K));
    float *lut = malloc((size_t)(N * L) * 4), *b = malloc((size_t)N * 4),
          *vals = malloc((size_t)N * 20);
    int32_t *rowptr = calloc((size_t)N + 1, 4), *cols = malloc((size_t)N * 20);
    ganq_layer *layer;
    for (int64_t i = 0; i < N * K; i++)
        codes[i] = (uint8_t)(random_u32() % (uint32_t)L);
    for (int64_t i = 0; i < N * L; i++)
        lut[i] = f32_tables ? random_float() : ganq__f16_to_f32(ganq__f32_to_f16(random_float()));
    for (int64_t n = 0; n < N; n++) {
        int32_t count = rowptr[n];
        b[n] = random_float();
        for (int64_t k = 0; outliers && k < K && count < rowptr[n] + (n % 7 == 3 ? 0 : 5);
             k += 1 + random_u32() % 9) {
            cols[count] = (int32_t)k;
            vals[count++] = 2 * random_float();
        }
        rowptr[n + 1] = count;
    }
    ck_ganq_ok(ganq__layer_create(bits, N, K, codes, lut,
                                  f32_tables ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16,
                                  outliers ? rowptr : NULL, outliers ? cols : NULL,
                                  outliers ? vals : NULL, bias ? b : NULL, GANQ_DTYPE_F32, &layer));
    free(codes), free(lut), free(b), free(vals), free(rowptr), free(cols);
    return layer;
}

static size_t size_of(int32_t dtype) {
    return dtype == GANQ_DTYPE_F32 ? 4 : 2;
}

/* One call with one layer: `offset` elements before x and y in their arrays, so that addresses are
 * odd. */
typedef struct run_case {
    int64_t M, ldx, ldy, offset;
    int32_t x_dtype, y_dtype;
    float magnitude;
} run_case;

static float *random_x(const run_case *c, int64_t K) {
    float *x = malloc((size_t)(c->M * c->ldx) * 4);
    for (int64_t i = 0; i < c->M * c->ldx; i++) {
        const float value = i % c->ldx < K ? random_float() * c->magnitude
                                           : NAN; /* what lies between rows is not read */
        x[i] = c->x_dtype == GANQ_DTYPE_F16    ? ganq__f16_to_f32(ganq__f32_to_f16(value))
               : c->x_dtype == GANQ_DTYPE_BF16 ? ganq__bf16_to_f32(ganq__f32_to_bf16(value))
                                               : value;
    }
    return x;
}

/* y [M, ldy] as f32; what lies between rows was left as it was. */
static float *run(ganq_context *ctx, const ganq_layer *layer, const ganq__lut_plan *plan,
                  const run_case *c, const float *x) {
    const size_t xs = size_of(c->x_dtype), ys = size_of(c->y_dtype), before = (size_t)c->offset;
    const int64_t x_count = c->M * c->ldx, y_count = c->M * c->ldy;
    uint8_t *x_host = malloc((size_t)x_count * xs), *y_host = malloc((size_t)y_count * ys);
    float *y = malloc((size_t)y_count * 4);
    void *x_device, *y_device, *workspace = NULL, *placed;
    size_t bytes = 0;
    ganq__from_f32(x_host, x, c->x_dtype, x_count);
    memset(y_host, 0x5a, (size_t)y_count * ys);
    ck_ganq_ok(ctx->memory->allocate(ctx, (size_t)x_count * xs + before * xs, &x_device));
    ck_ganq_ok(ctx->memory->allocate(ctx, (size_t)y_count * ys + before * ys, &y_device));
    ck_ganq_ok(
        ctx->memory->upload(ctx, (char *)x_device + before * xs, x_host, (size_t)x_count * xs));
    ck_ganq_ok(
        ctx->memory->upload(ctx, (char *)y_device + before * ys, y_host, (size_t)y_count * ys));
    ck_ganq_ok(ganq__lut_ops_cuda.place(ctx, layer, &placed));
    ganq__lut_call call = {
        .count = 1,
        .layers = {placed},
        .M = c->M,
        .x = (char *)x_device + before * xs,
        .ldx = c->ldx,
        .x_dtype = c->x_dtype,
        .y_dtype = c->y_dtype,
        .y = {(char *)y_device + before * ys},
        .ldy = {c->ldy},
        .stream = ganq__cuda_of(ctx)->stream,
    };
    ck_ganq_ok(ganq__lut_workspace_bytes(ctx, &call, &bytes)); /* makes the state */
    ganq__cuda_of(ctx)->lut->forced = plan;
    ck_ganq_ok(ganq__lut_workspace_bytes(ctx, &call, &bytes));
    if (bytes)
        ck_ganq_ok(ctx->memory->allocate(ctx, bytes, &call.workspace));
    workspace = call.workspace;
    ck_ganq_ok(ganq__lut_run(ctx, &call));
    ganq__cuda_of(ctx)->lut->forced = NULL;
    ck_ganq_ok(
        ctx->memory->download(ctx, y_host, (char *)y_device + before * ys, (size_t)y_count * ys));
    for (int64_t m = 0; m < c->M; m++)
        for (size_t i = (size_t)layer->N * ys; i < (size_t)c->ldy * ys; i++)
            ck_assert_msg(y_host[(size_t)(m * c->ldy) * ys + i] == 0x5a, "written between rows");
    ganq__to_f32(y, y_host, c->y_dtype, y_count);
    ctx->memory->release(ctx, x_device);
    ctx->memory->release(ctx, y_device);
    ctx->memory->release(ctx, workspace);
    ganq__lut_ops_cuda.unplace(ctx, placed);
    free(x_host), free(y_host);
    return y;
}

/* Largest error of an element relative to the sum of |x| |w| over its products, plus half a step of
 * y's type. */
static void expect_near(const ganq_layer *layer, const run_case *c, const float *x, const float *y,
                        double bound, const char *what) {
    float *w = malloc((size_t)layer->K * 4);
    const double step = c->y_dtype == GANQ_DTYPE_F16    ? 0x1p-11
                        : c->y_dtype == GANQ_DTYPE_BF16 ? 0x1p-8
                                                        : 0x1p-23;
    for (int64_t n = 0; n < layer->N; n++) {
        ganq__layer_dequantize_rows(layer, n, 1, w, layer->K);
        for (int64_t m = 0; m < c->M; m++) {
            double sum = layer->bias ? layer->bias[n] : 0, all = fabs(sum);
            for (int64_t k = 0; k < layer->K; k++) {
                sum += (double)x[m * c->ldx + k] * w[k];
                all += fabs((double)x[m * c->ldx + k] * w[k]);
            }
            const double error = fabs(y[m * c->ldy + n] - sum);
            ck_assert_msg(error <= bound * all + step * fabs(sum) + 1e-7,
                          "%s: y[%d,%d] is %.9g, expected %.9g", what, (int)m, (int)n,
                          (double)y[m * c->ldy + n], sum);
        }
    }
    free(w);
}

static void check(ganq_context *ctx, const ganq_layer *layer, const ganq__lut_plan *plan,
                  const run_case *c, double bound) {
    static const ganq__lut_plan none = {0};
    const ganq__lut_plan *p = plan ? plan : &none;
    char what[256];
    snprintf(what, sizeof what,
             "%d bits, %dx%d, M %d, x %d, y %d, variant %d, %d warps, %d row tiles, %d copies, %d "
             "splits, ahead %d",
             layer->bits, (int)layer->N, (int)layer->K, (int)c->M, (int)c->x_dtype, (int)c->y_dtype,
             p->variant, p->warps, p->row_tiles, p->copies, p->splits, p->ahead);
    float *x = random_x(c, layer->K), *y, *again;
    emulator_set_order(0);
    y = run(ctx, layer, plan, c, x);
    expect_near(layer, c, x, y, bound, what);
    emulator_set_order(1);
    again = run(ctx, layer, plan, c, x);
    emulator_set_order(0);
    for (int64_t m = 0; m < c->M; m++)
        ck_assert_msg(!memcmp(y + m * c->ldy, again + m * c->ldy, (size_t)layer->N * 4),
                      "%s: other bits the second time", what);
    free(x), free(y), free(again);
}

/* Elements of f32 rows of X, prepared as upper and lower part of f16, and fp32 sums. */
static const double exact = 1e-6;
/* Rows of f32 rounded to f16. */
static const double fast = 0x1p-11;

START_TEST(test_simt) {
    static const int64_t shapes[][2] = {{1, 1}, {17, 65}, {33, 200}, {16, 520}};
    static const int32_t types[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};
    ganq_context *ctx = open_context(GANQ_NUMERICS_EXACT);
    const int bits = _i;
    for (int s = 0; s < 4; s++)
        for (int t = 0; t < 3; t++)
            for (int variant = 0; variant < 2; variant++) {
                const int64_t N = shapes[s][0], K = shapes[s][1],
                              M = (int64_t[]){1, 2, 3, 8, 11, 5}[(s + 2 * t + 3 * variant) % 6];
                const ganq__lut_plan plan = {GANQ__LUT_SIMT, variant ? 8 : 3, 1, 4,
                                             variant ? 2 : 1};
                /* aligned rows, then rows at odd addresses */
                const run_case c = {M,
                                    variant ? K + 3 : (K + 7) / 8 * 8,
                                    N + variant,
                                    variant,
                                    types[t],
                                    types[(t + variant) % 3],
                                    1};
                ganq_layer *layer = random_layer(bits, N, K, t == 1, variant, s % 2);
                check(ctx, layer, &plan, &c, exact);
                ganq_layer_free(layer);
            }
    ganq_context_free(ctx);
}
END_TEST

static void check_mma(ganq_context *ctx, int bits, const ganq__lut_plan *plan, int64_t N, int64_t K,
                      int64_t M, int type, int odd, double bound) {
    static const int32_t types[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};
    const run_case c = {M,           odd ? K + 1 : (K + 7) / 8 * 8, N + 2, odd,
                        types[type], types[(type + odd) % 3],       1};
    ganq_layer *layer = random_layer(bits, N, K, 0, odd, !odd);
    check(ctx, layer, plan, &c, bound);
    ganq_layer_free(layer);
}

/* Each plan with each number of column tiles; f16 rows as they are and prepared; f32 in two parts;
 * bf16. */
START_TEST(test_mma) {
    const int bits = _i % 3 + 2, copies = (int[]){4, 1, 0, 2}[_i / 3];
    if (bits != 4 && copies == 1)
        return;
    ganq_context *ctx = open_context(GANQ_NUMERICS_EXACT);
    for (int i = 0; i < 12; i++) {
        const int64_t M = (int64_t[]){1, 3, 8, 9, 16, 17, 32, 5, 1, 12, 24, 40}[i];
        const int row_tiles = i % 2 == 0 && M <= 4 ? 1 : 2,
                  type = (int[]){1, 1, 1, 1, 1, 1, 1, 0, 2, 0, 2, 1}[i];
        const ganq__lut_plan plan = {GANQ__LUT_MMA, i % 3 == 0 ? 2 : 8, row_tiles, copies,
                                     i % 4 == 3 ? 3 : 1, i % 2};
        const int64_t N = (int64_t[]){16, 33, 50, 15}[i % 4],
                      K = (int64_t[]){64, 136, 264, 1032, 2056}[i % 5];
        check_mma(ctx, bits, &plan, N, K, M, type, 0, exact);
        if (i % 2)
            check_mma(ctx, bits, &plan, N, K - 3, M, type, 1, exact);
    }
    ganq_context_free(ctx);
}
END_TEST

/* Long rows: the loop without checks, and magnitudes beyond f16. */
START_TEST(test_long_rows) {
    const int bits = _i;
    ganq_context *ctx = open_context(GANQ_NUMERICS_EXACT);
    ganq_layer *layer = random_layer(bits, 16, 5000, 0, 1, 1);
    const float magnitudes[] = {1, 1e30f, 1e-30f};
    for (int i = 0; i < 6; i++) { /* converted by the kernel, then by one before it */
        const ganq__lut_plan plan = {GANQ__LUT_MMA, 2, 1, 4, 1 + i / 3};
        const run_case c = {
            2, 5000, 16, 0, i % 3 ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16, GANQ_DTYPE_F32, magnitudes[i % 3]};
        check(ctx, layer, &plan, &c, 3 * exact);
    }
    ganq_layer_free(layer);
    ganq_context_free(ctx);
}
END_TEST

/* More rows than the GPU has room for at once: blocks take some, one after the other, the last ones fewer. */
START_TEST(test_many_rows) {
    const int bits = _i;
    ganq_context *ctx = open_context(GANQ_NUMERICS_EXACT);
    const int64_t rows = 180;
    ganq__cuda_of(ctx)->multiprocessors = 2; /* what the GPU has room for is counted with this */
    for (int i = 0; i < 6; i++) {
        /* units of a warp: as many as a turn takes, more, fewer, none */
        const int64_t K = (int64_t[]){1024, 640, 2048, 136, 1600, 72}[i];
        const ganq__lut_plan plan = {GANQ__LUT_MMA, (int[]){2, 4, 1, 3, 2, 4}[i], 1 + i % 2, (int[]){bits == 4 ? 1 : 4, 2, 0}[i % 3],
                                     i == 4 ? 2 : 1, i % 3 != 1};
        const run_case c = {(int64_t[]){1, 5, 2, 8, 9, 3}[i] / (2 - i % 2) + (i == 0), K + 8, rows + 5, 0,
                            i % 2 ? GANQ_DTYPE_F16 : GANQ_DTYPE_F32, GANQ_DTYPE_F32, 1};
        ganq_layer *layer = random_layer(bits, rows + 5, K, 0, i % 3 == 1, 1);
        check(ctx, layer, &plan, &c, exact);
        ganq_layer_free(layer);
    }
    ganq_context_free(ctx);
}
END_TEST

START_TEST(test_fast_and_built_in) {
    ganq_context *ctx = open_context(GANQ_NUMERICS_FAST);
    for (int bits = 2; bits <= 4; bits++)
        for (int64_t M = 1; M <= 70; M = M * 3 + 1) {
            /* no plan is forced: one that does not fit is not taken */
            const ganq__lut_plan none = {0};
            const run_case c = {M, 300, 21, 0, GANQ_DTYPE_F32, GANQ_DTYPE_F32, 1};
            ganq_layer *layer = random_layer(bits, 21, 300, 0, 1, 1);
            check(ctx, layer, &none, &c, fast);
            ganq_layer_free(layer);
        }
    ganq_context_free(ctx);
}
END_TEST

/* A context on compute capability 9.0; NULL where the device at hand has another. */
static ganq_context *open_context_90(ganq_numerics numerics) {
    const emulator_machine machine = {13000, 2, 90, (size_t)8 << 30};
    emulator_set_machine(&machine);
    ganq_context *ctx = open_context(numerics);
    if (ganq__cuda_of(ctx)->sm == 90)
        return ctx;
    ganq_context_free(ctx);
    return NULL;
}

/* Warpgroups: columns to a tile x tiles x rows around a block's 128 x parts of K, more than there are turns, too x types. */
START_TEST(test_wgmma) {
    const int bits = _i;
    ganq_context *ctx = open_context_90(GANQ_NUMERICS_FAST);
    for (int i = 0; ctx && i < 36; i++) {
        static const int32_t wide[] = {2, 4, 8, 16, 24, 32};
        const ganq__lut_plan plan = {GANQ__LUT_WGMMA, 8, wide[i % 6], 0, (int[]){1, 1, 3, 8, 1}[i % 5]};
        const int64_t K = (int64_t[]){64, 1032, 264, 2056, 520, 1600, 136}[i % 7], N = (int64_t[]){16, 130, 128, 255, 7}[i % 5],
                      NT = 8 * plan.row_tiles, M = (int64_t[]){1, NT - 3, NT / 2, NT + 1, NT, 5}[(i + i / 6) % 6];
        const int type = (i + i / 3) % 3, odd = i % 4 == 3;
        static const int32_t types[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};
        const run_case c = {M, odd ? K - 2 : (K + 7) / 8 * 8, N + 2, odd, types[type], types[(type + i / 6) % 3], 1};
        ganq_layer *layer = random_layer(bits, N, K - 3 * odd, 0, i % 3 == 1 && M < 100, i % 2);
        const ganq__lut_shape shape = {.sm = 90, .bits = bits, .N = N, .K = K, .M = M, .columns = M};
        ck_assert(ganq__lut_plan_fits(&plan, &shape));
        check(ctx, layer, &plan, &c, types[type] == GANQ_DTYPE_F32 ? 2 * fast : 2 * exact); /* others are f16 as they are */
        ganq_layer_free(layer);
    }
    if (ctx)
        ganq_context_free(ctx);
    emulator_set_machine(NULL);
}
END_TEST

/* In cuBLASLt's place: waits, and multiplies on the host. */
static int products;
static ganq_status product_on_host(void *handle, cudaStream_t stream, int64_t M, int64_t N,
                                   int64_t K, const void *x, int64_t ldx, const void *w,
                                   int64_t ldw, void *c, int32_t dtype, int64_t ldc,
                                   void *workspace, size_t bytes) {
    uint16_t *xs = malloc((size_t)(M * ldx) * 2), *ws = malloc((size_t)(N * ldw) * 2);
    (void)handle, (void)workspace, (void)bytes;
    products++;
    ck_assert(ldx % 8 == 0 && ldw % 8 == 0 && ldc >= N && bytes > 0);
    ck_assert_int_eq(cudaStreamSynchronize(stream), cudaSuccess);
    ck_assert_int_eq(cudaMemcpy(xs, x, (size_t)((M - 1) * ldx + K) * 2, cudaMemcpyDeviceToHost),
                     cudaSuccess);
    ck_assert_int_eq(cudaMemcpy(ws, w, (size_t)((N - 1) * ldw + K) * 2, cudaMemcpyDeviceToHost),
                     cudaSuccess);
    for (int64_t m = 0; m < M; m++) {
        float *row = malloc((size_t)N * 4);
        uint16_t *halves = malloc((size_t)N * 2);
        for (int64_t n = 0; n < N; n++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++)
                sum +=
                    (double)ganq__f16_to_f32(xs[m * ldx + k]) * ganq__f16_to_f32(ws[n * ldw + k]);
            row[n] = (float)sum;
            halves[n] = ganq__f32_to_f16(row[n]);
        }
        const size_t size = size_of(dtype);
        ck_assert_int_eq(cudaMemcpy((char *)c + (size_t)(m * ldc) * size,
                                    size == 4 ? (void *)row : (void *)halves, (size_t)N * size,
                                    cudaMemcpyHostToDevice),
                         cudaSuccess);
        free(row), free(halves);
    }
    free(xs), free(ws);
    return GANQ_OK;
}

/* Rows of W~ written out: f16 rows straight into y and through a sum with bias, f32 in two parts,
 * rows at odd addresses. */
START_TEST(test_tiles) {
    static const ganq__lut_plan plan = {GANQ__LUT_TILES, 8, 1, 4, 1};
    const int bits = _i;
    ganq_context *ctx = open_context(GANQ_NUMERICS_EXACT);
    ganq__lut_state *state = ganq__cuda_of(ctx)->lut = ganq__calloc(1, sizeof *state);
    ck_assert_ptr_nonnull(state);
    state->product = product_on_host;
    for (int i = 0; i < 5; i++) {
        const int64_t K = (int64_t[]){136, 72, 201, 330, 64}[i],
                      N = (int64_t[]){270, 16, 37, 300, 50}[i];
        const int32_t x_dtype = (int32_t[]){GANQ_DTYPE_F16, GANQ_DTYPE_F16, GANQ_DTYPE_F32,
                                            GANQ_DTYPE_BF16, GANQ_DTYPE_F32}[i];
        const run_case c = {7, (K + 7) / 8 * 8, (N + 7) / 8 * 8,
                            0, x_dtype,         i == 0 ? GANQ_DTYPE_F16 : GANQ_DTYPE_F32,
                            1};
        ganq_layer *layer = random_layer(bits, N, K, 0, 0, i > 0);
        products = 0;
        check(ctx, layer, &plan, &c, exact);
        ck_assert_int_gt(products, 0);
        ganq_layer_free(layer);
    }
    /* Exact numerics do not round outliers: another kernel takes that. */
    ganq_layer *layer = random_layer(bits, 20, 72, 0, 1, 0);
    const run_case c = {40, 72, 20, 0, GANQ_DTYPE_F32, GANQ_DTYPE_F32, 1};
    products = 0;
    check(ctx, layer, &plan, &c, exact);
    ck_assert_int_eq(products, 0);
    ganq_layer_free(layer);
    ganq_context_free(ctx);
    ctx = open_context(GANQ_NUMERICS_FAST);
    state = ganq__cuda_of(ctx)->lut = ganq__calloc(1, sizeof *state);
    state->product = product_on_host;
    layer = random_layer(bits, 20, 70, 0, 1, 0);
    const run_case odd = {9, 71, 21, 1, GANQ_DTYPE_F32, GANQ_DTYPE_F32, 1};
    check(ctx, layer, &plan, &odd, 2 * fast);
    ck_assert_int_gt(products, 0);
    ganq_layer_free(layer);
    ganq_context_free(ctx);
}
END_TEST

/* A tuned plan of warpgroups is taken, but not with outliers for many rows of X. */
START_TEST(test_wgmma_tuned) {
    enum { N = 150, K = 192, M = 100 };
    ganq_context *ctx = open_context_90(GANQ_NUMERICS_FAST);
    if (!ctx)
        return;
    ganq__lut_state *state = ganq__cuda_of(ctx)->lut = ganq__calloc(1, sizeof *state);
    state->settings_read = 1;
    state->product = product_on_host;
    const ganq__lut_tuned row = {.sm = 90,
                                 .multiprocessors = ganq__cuda_of(ctx)->multiprocessors,
                                 .bits = 3,
                                 .columns = 128,
                                 .N = N,
                                 .K = K,
                                 .plan = {GANQ__LUT_WGMMA, 8, 16, 0, 1}};
    ck_ganq_ok(ganq__lut_tuning_set(&state->tuning, &row));
    for (int outliers = 0; outliers < 2; outliers++) {
        ganq_layer *layer = random_layer(3, N, K, 0, outliers, 1);
        const run_case c = {M, K, N, 0, GANQ_DTYPE_F32, GANQ_DTYPE_F32, 1};
        products = 0;
        check(ctx, layer, NULL, &c, 2 * fast);
        ck_assert_int_eq(products > 0, outliers);
        ganq_layer_free(layer);
    }
    ganq_context_free(ctx);
    emulator_set_machine(NULL);
}
END_TEST

/* NaN in a row of X makes that row NaN and no other. */
START_TEST(test_nan) {
    ganq_context *ctx = open_context(GANQ_NUMERICS_EXACT);
    ganq_layer *layer = random_layer(4, 20, 130, 0, 0, 0);
    const run_case c = {3, 136, 20, 0, GANQ_DTYPE_F32, GANQ_DTYPE_F32, 1};
    float *x = random_x(&c, 130);
    x[136 + 7] = NAN;
    for (int i = 0; i < 3; i++) {
        const ganq__lut_plan plan = {i ? GANQ__LUT_MMA : GANQ__LUT_SIMT, 4, 1, 4, 1 + i / 2};
        float *y = run(ctx, layer, &plan, &c, x);
        for (int j = 0; j < 60; j++)
            ck_assert_int_eq(isnan(y[j]) != 0, j / 20 == 1);
        free(y);
    }
    free(x);
    ganq_layer_free(layer);
    ganq_context_free(ctx);
}
END_TEST

/* Three layers in one call, of two widths of codes: the bits of single calls. And the public
 * function, with matrices of the process. */
START_TEST(test_many_and_public) {
    enum { K = 200, M = 2 };
    ganq_context *ctx = open_context(GANQ_NUMERICS_EXACT);
    ganq_layer *layers[3] = {random_layer(4, 40, K, 0, 1, 1), random_layer(4, 17, K, 0, 0, 0),
                             random_layer(_i ? 3 : 4, 33, K, 0, 0, 1)};
    const run_case c = {M, K, 0, 0, GANQ_DTYPE_F32, GANQ_DTYPE_F32, 1};
    float *x = random_x(&c, K), *y[3], many[M * 40], single[M * 40];
    const int64_t ldys[3] = {40, 17, 33};
    void *x_device;
    emulator_counts before, after;
    ck_ganq_ok(ctx->memory->allocate(ctx, M * K * 4, &x_device));
    ck_ganq_ok(ctx->memory->upload(ctx, x_device, x, M * K * 4));
    for (int i = 0; i < 3; i++) {
        ck_ganq_ok(ctx->memory->allocate(ctx, sizeof many, (void **)&y[i]));
        ck_ganq_ok(ganq_lut_gemm(ctx, layers[i], &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x),
                                 &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, M, ldys[i], single)));
        run_case one = c;
        one.ldy = ldys[i];
        expect_near(layers[i], &one, x, single, exact, "public");
    }
    emulator_read_counts(&before);
    ck_ganq_ok(
        ctx->lut->gemm_many(ctx, 3, (const ganq_layer *const *)layers, M, x_device, K, y, ldys));
    ck_ganq_ok(ctx->memory->download(ctx, many, y[0], (size_t)(M * ldys[0]) * 4));
    emulator_read_counts(&after);
    if (emulator_present())
        ck_assert_int_eq(after.launches - before.launches, _i ? 2 : 1);
    for (int i = 0; i < 3; i++) {
        const size_t bytes = (size_t)(M * ldys[i]) * 4;
        ck_ganq_ok(ctx->memory->download(ctx, many, y[i], bytes));
        ck_ganq_ok(ctx->lut->gemm(ctx, layers[i], M, x_device, K, y[i], ldys[i]));
        ck_ganq_ok(ctx->memory->download(ctx, single, y[i], bytes));
        ck_assert_mem_eq(many, single, bytes);
        ctx->memory->release(ctx, y[i]);
        ganq_layer_free(layers[i]);
    }
    ctx->memory->release(ctx, x_device);
    free(x);
    ganq_context_free(ctx);
}
END_TEST

/* ---- inputs that the product makes on the way ---- */

/* What x is made from, on the host and on the device, and x itself as it should be. */
typedef struct input_case {
    int kind, with_b, odd; /* odd: arrays 4 bytes beside 16-byte addresses */
    int64_t M, K;
    float *host[4]; /* a, b, weight, sum as it should be */
    void *memory[4];
    ganq__lut_input input;
    float *x;
} input_case;

static void make_input(ganq_context *ctx, input_case *c) {
    const int64_t count = c->M * c->K;
    float *device[4];
    for (int i = 0; i < 4; i++) {
        const size_t bytes = (size_t)(i == 2 ? c->K : count) * 4;
        c->host[i] = malloc(bytes);
        for (size_t j = 0; j < bytes / 4; j++)
            c->host[i][j] = 4 * random_float();
        ck_ganq_ok(ctx->memory->allocate(ctx, bytes + 4, &c->memory[i]));
        device[i] = (float *)c->memory[i] + c->odd;
        ck_ganq_ok(ctx->memory->upload(ctx, device[i], c->host[i], bytes));
    }
    c->input = (ganq__lut_input){.kind = c->kind, .a = device[0], .b = c->with_b ? device[1] : NULL};
    if (c->kind == GANQ__LUT_NORMED) {
        c->input.weight = device[2];
        c->input.eps = 1e-3f;
        c->input.sum = device[3];
    }
    c->x = malloc((size_t)count * 4);
    for (int64_t m = 0; m < c->M; m++) {
        const float *a = c->host[0] + m * c->K, *b = c->host[1] + m * c->K;
        float *sum = c->host[3] + m * c->K, *x = c->x + m * c->K;
        double squares = 0;
        for (int64_t k = 0; k < c->K; k++) {
            const float v = c->with_b ? a[k] + b[k] : a[k];
            x[k] = (float)(a[k] / (1 + exp(-(double)a[k])) * b[k]);
            if (c->kind == GANQ__LUT_SWIGLU)
                continue;
            sum[k] = c->with_b ? v : sum[k];
            squares += (double)v * v;
            x[k] = v;
        }
        for (int64_t k = 0; k < c->K && c->kind == GANQ__LUT_NORMED; k++)
            x[k] = (float)(x[k] / sqrt(squares / (double)c->K + (double)c->input.eps) * (double)c->host[2][k]);
    }
}
static void free_input(ganq_context *ctx, input_case *c) {
    for (int i = 0; i < 4; i++) {
        ctx->memory->release(ctx, c->memory[i]);
        free(c->host[i]);
    }
    free(c->x);
}

/* Both layers' products, one after the other in one array; NULL when it was not taken. sum is checked. */
static float *run_input(ganq_context *ctx, const ganq_layer *const *layers, const ganq__lut_plan *plan, input_case *c) {
    const int64_t ns[2] = {layers[0]->N, layers[1]->N}, total = c->M * (ns[0] + ns[1]);
    float *y = malloc((size_t)total * 4), *sum = malloc((size_t)(c->M * c->K) * 4), *device, *ys[2];
    int taken;
    ck_ganq_ok(ctx->memory->allocate(ctx, (size_t)total * 4, (void **)&device));
    ys[0] = device;
    ys[1] = device + c->M * ns[0];
    ganq__cuda_of(ctx)->lut->forced = plan;
    ck_ganq_ok(ctx->lut->gemm_input(ctx, 2, layers, c->M, &c->input, ys, ns, &taken));
    ganq__cuda_of(ctx)->lut->forced = NULL;
    ck_ganq_ok(ctx->memory->download(ctx, y, device, (size_t)total * 4));
    if (taken && c->kind == GANQ__LUT_NORMED) {
        ck_ganq_ok(ctx->memory->download(ctx, sum, c->input.sum, (size_t)(c->M * c->K) * 4));
        ck_assert_msg(!memcmp(sum, c->host[3], (size_t)(c->M * c->K) * 4), "the sum is not a + b");
    }
    ctx->memory->release(ctx, device);
    free(sum);
    if (!taken) {
        free(y);
        return NULL;
    }
    return y;
}

/* SwiGLU apart, then the plain product: the same bits. */
static void expect_swiglu_apart(ganq_context *ctx, const ganq_layer *const *layers, const ganq__lut_plan *plan,
                                const input_case *c, const float *fused) {
    const int64_t ns[2] = {layers[0]->N, layers[1]->N}, total = c->M * (ns[0] + ns[1]);
    float *y = malloc((size_t)total * 4), *device, *ys[2];
    ck_ganq_ok(ctx->memory->allocate(ctx, (size_t)total * 4, (void **)&device));
    ys[0] = device;
    ys[1] = device + c->M * ns[0];
    ck_ganq_ok(ctx->model->swiglu(ctx, c->M * c->K, (float *)(uintptr_t)c->input.a, c->input.b));
    ganq__cuda_of(ctx)->lut->forced = plan;
    ck_ganq_ok(ctx->lut->gemm_many(ctx, 2, layers, c->M, c->input.a, c->K, ys, ns));
    ganq__cuda_of(ctx)->lut->forced = NULL;
    ck_ganq_ok(ctx->memory->download(ctx, y, device, (size_t)total * 4));
    ck_assert_msg(!memcmp(y, fused, (size_t)total * 4), "not the bits of SwiGLU apart");
    ctx->memory->release(ctx, device);
    free(y);
}

/* Kinds x rows of X x odd K x plans (converted by the product's blocks, then by a kernel before it: parts of K, two row
 * tiles) x addresses x numerics x outliers and bias; two layers, at times of two widths of codes. */
START_TEST(test_inputs) {
    static const ganq__lut_plan plans[] = {
        {GANQ__LUT_MMA, 2, 1, 4, 1},   {GANQ__LUT_MMA, 8, 1, 0, 1},   {GANQ__LUT_MMA, 4, 1, 4, 3},   {GANQ__LUT_MMA, 4, 2, 4, 1},
        {GANQ__LUT_WGMMA, 8, 2, 0, 1}, {GANQ__LUT_WGMMA, 8, 4, 0, 3}, {GANQ__LUT_WGMMA, 8, 2, 0, 2}, {GANQ__LUT_WGMMA, 8, 16, 0, 1}};
    const int bits = _i % 3 + 2, is_fast = _i >= 3, warpgroups = _i >= 6;
    setenv("GANQ_CUDA_FUSE", "all", 1);
    const ganq_numerics numerics = is_fast ? GANQ_NUMERICS_FAST : GANQ_NUMERICS_EXACT;
    ganq_context *ctx = warpgroups ? open_context_90(numerics) : open_context(numerics);
    if (!ctx)
        return;
    ganq__lut_state *state = ganq__cuda_of(ctx)->lut = ganq__calloc(1, sizeof *state);
    for (int i = 0; i < 36; i++) {
        const int kind = i % 3 == 2 ? GANQ__LUT_SWIGLU : GANQ__LUT_NORMED, with_b = i % 3 != 1;
        const int64_t K = (int64_t[]){136, 64, 201, 1032, 2056, 333, 8}[i % 7], M = i % 5 == 4 ? 9 : i % 4 + 1;
        ganq__lut_plan plan = plans[i / 3 % 4 + 4 * warpgroups];
        const int two_widths = i % 4 == 1 && plan.row_tiles == 1;
        input_case c = {.kind = kind, .with_b = with_b, .odd = i % 5 == 3, .M = M, .K = K};
        const ganq_layer *layers[2] = {random_layer(bits, 33, K, 0, i % 2, i / 2 % 2),
                                       random_layer(two_widths ? (bits + 1) % 3 + 2 : bits, 16, K, 0, i % 3 == 0, 1)};
        const int64_t before = state->inputs_taken;
        char what[256];
        if (bits == 4 && plan.row_tiles == 2) /* so that two tables find room */
            plan.copies = 1;
        snprintf(what, sizeof what, "%d bits, kind %d, b %d, M %d, K %d, odd %d, %d warps, %d row tiles, %d splits", bits, kind,
                 with_b, (int)M, (int)K, c.odd, plan.warps, plan.row_tiles, plan.splits);
        ck_ganq_ok(ganq_layer_place(ctx, layers[0]));
        ck_ganq_ok(ganq_layer_place(ctx, layers[1]));
        make_input(ctx, &c);
        float *y = run_input(ctx, layers, &plan, &c);
        ck_assert_msg(y != NULL, "%s: was not taken", what);
        ck_assert_int_eq(state->inputs_taken, before + 1);
        emulator_set_order(1);
        float *again = run_input(ctx, layers, &plan, &c);
        emulator_set_order(0);
        ck_assert_msg(!memcmp(y, again, (size_t)(M * 49) * 4), "%s: other bits the second time", what);
        for (int l = 0; l < 2; l++) {
            const run_case r = {M, K, layers[l]->N, 0, GANQ_DTYPE_F32, GANQ_DTYPE_F32, 1};
            expect_near(layers[l], &r, c.x, y + (l ? M * 33 : 0), is_fast ? 1.01 * fast : 2 * exact, what);
        }
        if (kind == GANQ__LUT_SWIGLU)
            expect_swiglu_apart(ctx, layers, &plan, &c, y);
        free(y), free(again);
        free_input(ctx, &c);
        ganq_layer_free((ganq_layer *)(uintptr_t)layers[0]);
        ganq_layer_free((ganq_layer *)(uintptr_t)layers[1]);
    }
    ganq_context_free(ctx);
    unsetenv("GANQ_CUDA_FUSE");
    emulator_set_machine(NULL);
}
END_TEST

/* Not where a kernel in fp32 multiplies, not where the environment says so, and SwiGLU not in each block; a row with NaN is NaN, a row of zeros 0. */
START_TEST(test_inputs_refused) {
    static const ganq__lut_plan simt = {GANQ__LUT_SIMT, 8, 1, 4, 1}, mma = {GANQ__LUT_MMA, 8, 1, 4, 1};
    const int64_t K = 136;
    for (int i = 0; i < 4; i++) {
        setenv("GANQ_CUDA_FUSE", (const char *[]){"all", "all", "0", "1"}[i], 1);
        ganq_context *ctx = open_context(GANQ_NUMERICS_EXACT);
        ganq_layer *layer = random_layer(4, 20, K, i == 1, 0, 0);
        const ganq_layer *layers[2] = {layer, layer};
        input_case c = {.kind = i == 3 ? GANQ__LUT_SWIGLU : GANQ__LUT_NORMED, .with_b = 1, .M = 3, .K = K};
        emulator_counts before, after;
        float x[3 * 136], *y;
        const ganq_matrix rows = GANQ_MATRIX(GANQ_DTYPE_F32, 1, K, x);
        ganq_matrix out = GANQ_MATRIX(GANQ_DTYPE_F32, 1, 20, x + K);
        memset(x, 0, sizeof x);
        ck_ganq_ok(ganq_lut_gemm(ctx, layer, &rows, &out)); /* reads the environment */
        make_input(ctx, &c);
        emulator_read_counts(&before);
        ck_assert_ptr_null(run_input(ctx, layers, i == 0 ? &simt : &mma, &c));
        emulator_read_counts(&after);
        ck_assert_int_eq(after.launches, before.launches);
        if (i == 0) {
            memset(x, 0, sizeof x);
            x[K + 7] = NAN;
            ck_ganq_ok(ctx->memory->upload(ctx, c.memory[0], x, sizeof x));
            c.input.b = NULL;
            memset(c.host[3], 0, sizeof x); /* without b sum is left as it is */
            ck_ganq_ok(ctx->memory->upload(ctx, c.memory[3], c.host[3], sizeof x));
            y = run_input(ctx, layers, &mma, &c);
            for (int j = 0; j < 60; j++)
                ck_assert(j / 20 == 1 ? isnan(y[j]) : y[j] == 0);
            free(y);
        }
        free_input(ctx, &c);
        ganq_layer_free(layer);
        ganq_context_free(ctx);
    }
    unsetenv("GANQ_CUDA_FUSE");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lut_gemm");
    TCase *tests = tcase_create("kernels");
    setenv("GANQ_CACHE_DIR", "/nonexistent", 1);
    suite_add_tcase(suite, tests);
    tcase_add_loop_test(tests, test_simt, 2, 5);
    tcase_add_loop_test(tests, test_mma, 0, 12);
    tcase_add_loop_test(tests, test_long_rows, 2, 5);
    tcase_add_loop_test(tests, test_many_rows, 2, 5);
    tcase_add_loop_test(tests, test_wgmma, 2, 5);
    tcase_add_test(tests, test_wgmma_tuned);
    tcase_add_test(tests, test_fast_and_built_in);
    tcase_add_loop_test(tests, test_tiles, 2, 5);
    tcase_add_test(tests, test_nan);
    tcase_add_loop_test(tests, test_many_and_public, 0, 2);
    tcase_add_loop_test(tests, test_inputs, 0, 9);
    tcase_add_test(tests, test_inputs_refused);
    return test_run(suite, 0);
}
