/* test_model_ops.c - the dense products and the model's operations on the (emulated) GPU against the
 * CPU's, over odd shapes; the same bits whatever the order in which threads and blocks run. */
#include <math.h>

#include "check_util.h"
#include "context.h"
#include "dense_ops.h"
#include "dtype.h"
#include "emulator.h"
#include "ganq/ganq.h"
#include "memory_ops.h"
#include "model_ops.h"
#include "random.h"

static ganq_context *cpu, *gpu;

static void setup(void) {
    ganq_context_options options = {
        .struct_size = sizeof options, .device = GANQ_DEVICE_CPU, .threads = 1, .numerics = GANQ_NUMERICS_EXACT};
    ck_ganq_ok(ganq_context_create(&options, &cpu));
    options.device = GANQ_DEVICE_CUDA;
    ck_ganq_ok(ganq_context_create(&options, &gpu));
}
static void teardown(void) {
    emulator_counts counts;
    ganq_context_free(cpu);
    ganq_context_free(gpu);
    emulator_read_counts(&counts);
    ck_assert_uint_eq(counts.bytes_held, 0);
}

/* An array of one test: the same values in the memory of whichever context runs. */
typedef struct array {
    int64_t count;
    float *host;   /* what it holds at first, rounded to dtype */
    int32_t dtype; /* F32 or F16 */
    void *there;
} array;
enum { MOST_ARRAYS = 12 };
static array arrays[MOST_ARRAYS];
static int array_count;

static float *fresh(int64_t count, double scale, uint64_t seed) {
    ganq__random random;
    float *values = malloc((size_t)count * sizeof *values);
    ganq__random_seed(&random, seed);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(scale * (2 * ganq__random_double(&random) - 1));
    arrays[array_count++] = (array){.count = count, .host = values, .dtype = GANQ_DTYPE_F32};
    return values;
}
static void forget(void) {
    for (int i = 0; i < array_count; i++)
        free(arrays[i].host);
    array_count = 0;
}

typedef void (*operation)(ganq_context *ctx, const void *shape);

#define AT(i) ((float *)arrays[i].there)

/* What array `result` holds after the operation on ctx, in f32. */
static float *run(ganq_context *ctx, operation op, const void *shape, int result) {
    for (int i = 0; i < array_count; i++) {
        const size_t bytes = (size_t)arrays[i].count * ganq__dtype_size(arrays[i].dtype);
        void *data = malloc(bytes);
        ganq__from_f32(data, arrays[i].host, arrays[i].dtype, arrays[i].count);
        ck_ganq_ok(ctx->memory->allocate(ctx, bytes, &arrays[i].there));
        ck_ganq_ok(ctx->memory->upload(ctx, arrays[i].there, data, bytes));
        free(data);
    }
    op(ctx, shape);
    const array *a = &arrays[result];
    float *out = malloc((size_t)a->count * sizeof *out);
    void *stored = malloc((size_t)a->count * ganq__dtype_size(a->dtype));
    ck_ganq_ok(ctx->memory->download(ctx, stored, a->there, (size_t)a->count * ganq__dtype_size(a->dtype)));
    ganq__to_f32(out, stored, a->dtype, a->count);
    free(stored);
    for (int i = 0; i < array_count; i++)
        ctx->memory->release(ctx, arrays[i].there);
    return out;
}

/* The CPU's result within tolerance x its largest element, and the same bits in either order. */
static void compare(operation op, const void *shape, int result, double tolerance) {
    float *expected = run(cpu, op, shape, result), *found = run(gpu, op, shape, result);
    double largest = 0;
    for (int64_t i = 0; i < arrays[result].count; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (int64_t i = 0; i < arrays[result].count; i++)
        if (!(fabs((double)found[i] - expected[i]) <= tolerance * largest))
            ck_abort_msg("array %d, element %lld: %.9g, expected %.9g", result, (long long)i, found[i], expected[i]);
    emulator_set_order(1);
    float *reversed = run(gpu, op, shape, result);
    emulator_set_order(0);
    ck_assert_msg(!memcmp(found, reversed, (size_t)arrays[result].count * sizeof *found), "the order shows");
    free(expected);
    free(found);
    free(reversed);
}

/* ---- dense ---- */

typedef struct dense_shape {
    int64_t M, N, K, lda, ldb, ldc;
    int transposed, dtype, bias;
    float alpha, beta;
} dense_shape;

static void op_gemm(ganq_context *ctx, const void *shape) {
    const dense_shape *s = shape;
    ck_ganq_ok(ctx->dense->gemm(ctx, s->M, s->N, s->K, s->alpha, AT(0), s->lda, AT(1), s->ldb, s->transposed, s->beta,
                                AT(2), s->ldc));
}
START_TEST(gemm) {
    static const dense_shape shapes[] = {
        {1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0},          {5, 7, 3, 4, 9, 8, 0, 0, 0, 0.5f, 0},
        {65, 70, 33, 40, 40, 71, 1, 0, 0, -1, 1},   {130, 140, 17, 17, 141, 140, 0, 0, 0, 1, 0.25f},
        {3, 200, 64, 64, 64, 200, 1, 0, 0, 2, -1},  {9, 8, 0, 1, 8, 8, 0, 0, 0, 1, 0.5f},
        {1030, 1020, 5, 5, 5, 1020, 1, 0, 0, 1, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const dense_shape *s = &shapes[i];
        fresh(s->M * s->lda, 1, 1);
        fresh((s->transposed ? s->N : s->K ? s->K : 1) * s->ldb, 1, 2);
        fresh(s->M * s->ldc, 1, 3);
        compare(op_gemm, s, 2, 4e-6);
        forget();
    }
}
END_TEST

static void op_linear(ganq_context *ctx, const void *shape) {
    const dense_shape *s = shape;
    ck_ganq_ok(ctx->dense->linear(ctx, s->M, s->N, s->K, AT(0), s->lda, AT(1), s->dtype, s->bias ? AT(3) : NULL, AT(2),
                                  s->ldc));
}
START_TEST(linear) {
    static const int64_t sizes[][2] = {{1, 1}, {9, 40}, {64, 256}, {33, 259}, {17, 1032}};
    static const int64_t rows[] = {1, 2, 3, 8, 9, 70};
    static const int32_t dtypes[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};
    for (int i = 0; i < 5; i++)
        for (int r = 0; r < 6; r++) {
            const int64_t N = sizes[i][0], K = sizes[i][1], M = rows[r];
            const int32_t dtype = dtypes[(i + r) % 3];
            const dense_shape s = {M, N, K, K + 4 * (i % 2), 0, N + 1, 0, dtype, r % 2, 0, 0};
            fresh(M * s.lda, 1, 1);
            float *w = fresh(N * K, 1, 2);
            fresh(M * s.ldc, 1, 3);
            fresh(N, 1, 4);
            uint16_t *halves = malloc((size_t)(N * K) * 2);
            if (dtype != GANQ_DTYPE_F32) {
                ganq__from_f32(halves, w, dtype, N * K);
                memcpy(w, halves, (size_t)(N * K) * 2);
            }
            free(halves);
            compare(op_linear, &s, 2, 4e-6);
            forget();
        }
}
END_TEST

/* A row's bits do not depend on how many others there are, as long as the kernel is the same. */
START_TEST(linear_rows_stand_alone) {
    const int64_t N = 21, K = 520;
    float *x = fresh(8 * K, 1, 1);
    fresh(N * K, 1, 2);
    fresh(8 * N, 1, 3);
    fresh(N, 1, 4);
    dense_shape s = {8, N, K, K, 0, N, 0, GANQ_DTYPE_F32, 1, 0, 0};
    float *all = run(gpu, op_linear, &s, 2);
    for (int m = 0; m < 8; m++) {
        memmove(x, x + (m ? K : 0), (size_t)((8 - m) * K) * sizeof *x);
        s.M = 1;
        float *one = run(gpu, op_linear, &s, 2);
        ck_assert(!memcmp(one, all + m * N, (size_t)N * sizeof *one));
        free(one);
    }
    free(all);
    forget();
}
END_TEST

static void op_syrk(ganq_context *ctx, const void *shape) {
    const dense_shape *s = shape;
    ck_ganq_ok(ctx->dense->syrk(ctx, s->M, s->K, AT(0), s->lda, AT(1)));
}
START_TEST(syrk) {
    static const int64_t sizes[][2] = {{1, 1}, {40, 20}, {7, 70}, {33, 200}};
    for (int i = 0; i < 4; i++) {
        const dense_shape s = {.M = sizes[i][0], .K = sizes[i][1], .lda = sizes[i][1] + 2};
        const int64_t K = s.K;
        fresh(s.M * s.lda, 1, 1);
        float *h = fresh(K * K, 1, 2);
        for (int64_t a = 0; a < K; a++)
            for (int64_t b = 0; b < a; b++)
                h[b * K + a] = h[a * K + b];
        compare(op_syrk, &s, 1, 4e-6);
        float *found = run(gpu, op_syrk, &s, 1);
        for (int64_t a = 0; a < K; a++)
            for (int64_t b = 0; b < a; b++)
                ck_assert(found[b * K + a] == found[a * K + b]);
        free(found);
        forget();
    }
}
END_TEST

/* ---- model ---- */

typedef struct rows_shape {
    int64_t M, D, ldx;
    int dtype;
} rows_shape;

static void op_norm(ganq_context *ctx, const void *shape) {
    const rows_shape *s = shape;
    ck_ganq_ok(ctx->model->rms_norm(ctx, s->M, s->D, AT(0), s->ldx, AT(1), 1e-5f, AT(2), s->D));
}
static void op_norm_in_place(ganq_context *ctx, const void *shape) {
    const rows_shape *s = shape;
    ck_ganq_ok(ctx->model->rms_norm(ctx, s->M, s->D, AT(0), s->ldx, AT(1), 1e-5f, AT(0), s->ldx));
}
static void op_add_norm(ganq_context *ctx, const void *shape) {
    const rows_shape *s = shape;
    ck_ganq_ok(ctx->model->add_norm(ctx, s->M, s->D, AT(0), AT(2), AT(0), AT(1), 1e-5f, AT(3)));
}
static void op_add_then_norm(ganq_context *ctx, const void *shape) {
    const rows_shape *s = shape;
    ck_ganq_ok(ctx->model->add(ctx, s->M * s->D, AT(0), AT(2), AT(0)));
    ck_ganq_ok(ctx->model->rms_norm(ctx, s->M, s->D, AT(0), s->D, AT(1), 1e-5f, AT(3), s->D));
}
START_TEST(norms) {
    static const int64_t widths[] = {1, 7, 64, 100, 1000, 5000};
    for (int i = 0; i < 6; i++) {
        rows_shape s = {3, widths[i], widths[i] + 3, 0};
        fresh(s.M * s.ldx, 4, 1);
        fresh(s.D, 2, 2);
        fresh(s.M * s.ldx, 1, 3);
        fresh(s.M * s.D, 1, 4);
        compare(op_norm_in_place, &s, 0, 2e-6);
        s.ldx = s.D;
        compare(op_norm, &s, 2, 2e-6);
        compare(op_add_norm, &s, 3, 2e-6);
        compare(op_add_norm, &s, 0, 0);
        float *fused = run(gpu, op_add_norm, &s, 3), *apart = run(gpu, op_add_then_norm, &s, 3);
        ck_assert(!memcmp(fused, apart, (size_t)(s.M * s.D) * sizeof *fused));
        free(fused);
        free(apart);
        forget();
    }
}
END_TEST

static void op_layer_norm(ganq_context *ctx, const void *shape) {
    const rows_shape *s = shape;
    ck_ganq_ok(ctx->model->layer_norm(ctx, s->M, s->D, AT(0), AT(1), AT(2), 1e-5f, AT(3)));
}
static void op_layer_norm_in_place(ganq_context *ctx, const void *shape) {
    const rows_shape *s = shape;
    ck_ganq_ok(ctx->model->layer_norm(ctx, s->M, s->D, AT(0), AT(1), AT(2), 1e-5f, AT(0)));
}
START_TEST(layer_norms) {
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {2, 128}, {5, 768}, {1, 4099}, {2, 5120}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const rows_shape s = {.M = shapes[i][0], .D = shapes[i][1]};
        float *x = fresh(s.M * s.D, 1, 1);
        fresh(s.D, 1, 2);
        fresh(s.D, 1, 3);
        fresh(s.M * s.D, 1, 4);
        for (int64_t j = 0; j < s.M * s.D; j++) /* a mean far from 0 */
            x[j] += 3;
        compare(op_layer_norm, &s, 3, 1e-5);
        compare(op_layer_norm_in_place, &s, 0, 1e-5);
        forget();
    }
}
END_TEST

static void op_relu(ganq_context *ctx, const void *shape) {
    ck_ganq_ok(ctx->model->relu(ctx, *(const int64_t *)shape, AT(0)));
}
START_TEST(rectified) {
    for (int64_t count = 1; count < 3000; count = 3 * count + 2) {
        fresh(count, 1, 1);
        compare(op_relu, &count, 0, 0);
        forget();
    }
}
END_TEST

static void op_swiglu(ganq_context *ctx, const void *shape) {
    ck_ganq_ok(ctx->model->swiglu(ctx, *(const int64_t *)shape, AT(0), AT(1)));
}
static void op_embed(ganq_context *ctx, const void *shape) {
    const rows_shape *s = shape;
    ck_ganq_ok(ctx->model->embed(ctx, s->M, s->D, (const int32_t *)AT(0), AT(1), s->dtype, AT(2)));
}
START_TEST(elementwise) {
    const int64_t count = 1001;
    fresh(count, 20, 1);
    fresh(count, 2, 2);
    compare(op_swiglu, &count, 0, 1e-6);
    forget();
    for (int dtype = GANQ_DTYPE_F32; dtype <= GANQ_DTYPE_BF16; dtype++) {
        const rows_shape s = {5, 37, 0, dtype};
        int32_t *ids = (int32_t *)fresh(5, 1, 1);
        float *w = fresh(11 * 37, 1, 2);
        for (int i = 0; i < 5; i++)
            ids[i] = (7 * i + 10) % 11;
        uint16_t halves[11 * 37];
        if (dtype != GANQ_DTYPE_F32) {
            ganq__from_f32(halves, w, dtype, 11 * 37);
            memcpy(w, halves, sizeof halves);
        }
        fresh(5 * 37, 1, 3);
        compare(op_embed, &s, 2, 0);
        forget();
    }
}
END_TEST

/* Of equals the lowest, in any place; -1 for what cannot be sampled from. */
START_TEST(argmax) {
    static const int64_t counts[] = {1, 33, 1000, 1025, 5003};
    for (int i = 0; i < 5 * 6; i++) {
        const int64_t count = counts[i / 6], at = (count - 1) * (i % 3) / 2;
        float *x = malloc((size_t)count * sizeof *x);
        int32_t found, expected = (int32_t)at;
        void *there, *best;
        for (int64_t j = 0; j < count; j++)
            x[j] = (float)((j * 7919) % 1000) / 1000;
        x[at] = 2;
        x[count - 1] = 2; /* the same once more, or the same one */
        if (i % 6 == 3)
            x[count / 2] = NAN, expected = -1;
        if (i % 6 == 4)
            x[count / 2] = INFINITY, expected = -1;
        if (i % 6 == 5) {
            for (int64_t j = 0; j < count; j++)
                x[j] = -INFINITY;
            expected = -1;
        }
        ck_ganq_ok(gpu->memory->allocate(gpu, (size_t)count * sizeof *x, &there));
        ck_ganq_ok(gpu->memory->allocate(gpu, sizeof found, &best));
        ck_ganq_ok(gpu->memory->upload(gpu, there, x, (size_t)count * sizeof *x));
        ck_ganq_ok(gpu->model->argmax(gpu, count, there, best));
        ck_ganq_ok(gpu->memory->download(gpu, &found, best, sizeof found));
        ck_assert_int_eq(found, expected);
        gpu->memory->release(gpu, there);
        gpu->memory->release(gpu, best);
        free(x);
    }
}
END_TEST

typedef struct attention_shape {
    int M, position, window, heads, kv_heads, dim, capacity, normed, counted;
    int32_t cache_dtype; /* 0: F32 */
} attention_shape;

/* Arrays: 0 q, 1 k, 2 v, 3 keys, 4 values, 5 cosines, 6 sines, 7 q norm, 8 k norm, 9 counter, 10 out. */
static int32_t cache_dtype(const attention_shape *s) {
    return s->cache_dtype ? s->cache_dtype : GANQ_DTYPE_F32;
}
static ganq__heads heads_of(const attention_shape *s) {
    return (ganq__heads){
        .M = s->M,
        .position = s->position,
        .counter = s->counted ? (const int32_t *)AT(9) : NULL,
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .head_dim = s->dim,
        .q_norm = s->normed ? AT(7) : NULL,
        .k_norm = s->normed ? AT(8) : NULL,
        .eps = 1e-5f,
        .cosines = AT(5),
        .sines = AT(6),
        .q = AT(0),
        .k = AT(1),
        .v = AT(2),
        .keys = AT(3),
        .values = AT(4),
        .cache_dtype = cache_dtype(s),
        .capacity = s->capacity,
    };
}
static ganq__attention attention_of(const attention_shape *s) {
    return (ganq__attention){
        .M = s->M,
        .position = s->position,
        .window = s->window,
        .counter = s->counted ? (const int32_t *)AT(9) : NULL,
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .head_dim = s->dim,
        .scale = (float)(1 / sqrt(s->dim)),
        .q = AT(0),
        .keys = AT(3),
        .values = AT(4),
        .cache_dtype = cache_dtype(s),
        .capacity = s->capacity,
        .out = AT(10),
    };
}
static void op_heads(ganq_context *ctx, const void *shape) {
    const ganq__heads h = heads_of(shape);
    ck_ganq_ok(ctx->model->heads(ctx, &h));
}
static void op_attention(ganq_context *ctx, const void *shape) {
    const ganq__attention a = attention_of(shape);
    ck_ganq_ok(ctx->model->attention(ctx, &a));
}
static void op_apart(ganq_context *ctx, const void *shape) {
    op_heads(ctx, shape);
    op_attention(ctx, shape);
}
static void op_heads_attention(ganq_context *ctx, const void *shape) {
    const ganq__heads h = heads_of(shape);
    const ganq__attention a = attention_of(shape);
    ck_ganq_ok(ctx->model->heads_attention(ctx, &h, &a));
}
static void attention_arrays(const attention_shape *s) {
    const int q = s->heads * s->dim, kv = s->kv_heads * s->dim, half = s->dim / 2;
    fresh(s->M * q, 3, 1);
    fresh(s->M * kv, 3, 2);
    fresh(s->M * kv, 1, 3);
    fresh((int64_t)s->capacity * kv, 3, 4);
    fresh((int64_t)s->capacity * kv, 1, 5);
    arrays[3].dtype = arrays[4].dtype = cache_dtype(s);
    fresh((int64_t)s->capacity * half + 1, 1, 6);
    fresh((int64_t)s->capacity * half + 1, 1, 7);
    fresh(s->dim, 2, 8);
    fresh(s->dim, 2, 9);
    *(int32_t *)fresh(1, 1, 10) = s->position;
    fresh(s->M * q, 1, 11);
}
static const attention_shape attention_shapes[] = {
    {1, 0, 0, 1, 1, 2, 1, 0, 0},      {1, 5, 0, 4, 2, 6, 9, 1, 1},       {3, 126, 0, 4, 4, 8, 200, 0, 0},
    {1, 300, 0, 8, 1, 64, 301, 0, 1}, {2, 260, 130, 6, 2, 20, 300, 1, 0}, {1, 700, 33, 7, 1, 128, 800, 0, 1},
    {8, 3, 0, 9, 1, 12, 40, 0, 0},    {1, 130, 0, 2, 1, 256, 140, 0, 0},  {9, 0, 0, 4, 2, 6, 9, 0, 0},
    {70, 50, 0, 4, 2, 16, 120, 1, 0}, {40, 100, 17, 2, 2, 40, 150, 0, 0}, {33, 31, 1, 3, 1, 64, 64, 0, 0},
    {37, 0, 5, 2, 1, 136, 40, 0, 0},  {32, 96, 0, 1, 1, 128, 128, 0, 0},  {10, 7, 0, 1, 1, 256, 17, 0, 0},
    {1, 255, 0, 20, 1, 64, 256, 1, 1}, {1, 256, 40, 9, 3, 22, 300, 0, 0},
};
START_TEST(heads_and_attention) {
    attention_shape s = attention_shapes[_i / 2];
    s.cache_dtype = _i % 2 ? GANQ_DTYPE_F16 : GANQ_DTYPE_F32;
    attention_arrays(&s);
    arrays[2].host[0] = _i % 2 ? -1e6f : 1; /* beyond the range of F16 */
    compare(op_heads, &s, 0, 2e-6);
    compare(op_heads, &s, 3, _i % 2 ? 0x1p-10 : 2e-6); /* F16: neighbours, where roundings differ */
    compare(op_heads, &s, 4, 0);
    compare(op_attention, &s, 10, 4e-6);
    forget();
}
END_TEST

/* Both in one go: the bits of one after the other, in the cache, too. */
START_TEST(heads_with_attention) {
    attention_shape s = attention_shapes[_i / 2];
    s.cache_dtype = _i % 2 ? GANQ_DTYPE_F16 : GANQ_DTYPE_F32;
    attention_arrays(&s);
    for (int which = 3; which <= 10; which += which == 4 ? 6 : 1) {
        const size_t bytes = (size_t)(which == 10 ? s.M * s.heads * s.dim : s.capacity * s.kv_heads * s.dim) * sizeof(float);
        float *apart = run(gpu, op_apart, &s, which), *together = run(gpu, op_heads_attention, &s, which);
        ck_assert_msg(!memcmp(apart, together, bytes), "array %d: other bits", which);
        free(apart), free(together);
    }
    forget();
}
END_TEST

/* The place of the keys in memory beyond those seen does not matter, nor how far the grid reaches. */
START_TEST(attention_of_recorded_steps) {
    attention_shape s = {1, 200, 0, 4, 2, 16, 600, 0, 0};
    attention_arrays(&s);
    float *plain = run(gpu, op_attention, &s, 10);
    s.counted = 1;
    float *counted = run(gpu, op_attention, &s, 10);
    ck_assert(!memcmp(plain, counted, (size_t)(s.heads * s.dim) * sizeof *plain));
    free(plain);
    free(counted);
    forget();
}
END_TEST

START_TEST(too_large_heads) {
    const ganq__attention a = {.M = 1, .heads = 1, .kv_heads = 1, .head_dim = 260, .capacity = 1};
    ck_ganq_fails(gpu->model->attention(gpu, &a), GANQ_ERR_UNSUPPORTED, "260");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cuda_model_ops");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, gemm);
    tcase_add_test(tc, linear);
    tcase_add_test(tc, linear_rows_stand_alone);
    tcase_add_test(tc, syrk);
    tcase_add_test(tc, norms);
    tcase_add_test(tc, layer_norms);
    tcase_add_test(tc, rectified);
    tcase_add_test(tc, elementwise);
    tcase_add_test(tc, argmax);
    tcase_add_loop_test(tc, heads_and_attention, 0, 2 * sizeof attention_shapes / sizeof attention_shapes[0]);
    tcase_add_loop_test(tc, heads_with_attention, 0, 2 * sizeof attention_shapes / sizeof attention_shapes[0]);
    tcase_add_test(tc, attention_of_recorded_steps);
    tcase_add_test(tc, too_large_heads);
    suite_add_tcase(suite, tc);
    return test_run(suite, 0);
}
