/* test_ops.c - norms, RoPE, attention and SwiGLU of each instruction set against float64, over odd
 * sizes; rotary frequencies against values worked out elsewhere. */
#include <math.h>

#include "alloc.h"
#include "block.h"
#include "check_util.h"
#include "dtype.h"
#include "model_ops.h"
#include "random.h"
#include "tiny.h"

static const char *const isas[] = {"ref", "avx2"};

/* NULL when this processor lacks the instruction set. */
static ganq_context *open_isa(int i, int threads) {
    if (i == 1 && !__builtin_cpu_supports("avx2"))
        return NULL;
    return test_context(threads, isas[i]);
}

/* Without a system call unless it fails, unlike the checks of the framework. */
static void check_close(double found, double expected, double tolerance) {
    if (!(fabs(found - expected) <= tolerance))
        ck_abort_msg("found %.9g, expected %.9g within %g", found, expected, tolerance);
}

static float *random_floats(int64_t count, double scale, uint64_t seed) {
    ganq__random random;
    float *values = malloc((size_t)count * sizeof *values);
    ganq__random_seed(&random, seed);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(scale * (2 * ganq__random_double(&random) - 1));
    return values;
}

START_TEST(rms_norm) {
    static const int widths[] = {1, 7, 8, 17, 64, 100};
    ganq_context *ctx = open_isa(_i, 2);
    if (!ctx)
        return;
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const int M = 19, D = widths[w], ldx = D + 3;
        float *x = random_floats(M * ldx, 4, 1), *weight = random_floats(D, 2, 2);
        float *y = random_floats(M * D, 1, 3);
        ck_ganq_ok(ctx->model->rms_norm(ctx, M, D, x, ldx, weight, 1e-3f, y, D));
        for (int m = 0; m < M; m++) {
            double squares = 0;
            for (int d = 0; d < D; d++)
                squares += (double)x[m * ldx + d] * x[m * ldx + d];
            for (int d = 0; d < D; d++) {
                double expected = x[m * ldx + d] / sqrt(squares / D + 1e-3f) * weight[d];
                check_close(y[m * D + d], expected, 2e-6 * (1 + fabs(expected)));
            }
        }
        free(x);
        free(weight);
        free(y);
    }
    ganq__context_release(ctx);
}
END_TEST

static const int32_t cache_dtypes[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16};

static void *random_cache(int64_t count, double scale, uint64_t seed, int32_t dtype) {
    float *values = random_floats(count, scale, seed);
    void *cache = malloc((size_t)count * ganq__dtype_size(dtype));
    ganq__from_f32(cache, values, dtype, count);
    free(values);
    return cache;
}

/* RMSNorm of one head and its turn by the angles of a position, in float64. */
static void prepare64(const float *x, const float *weight, int half, int position, double *out) {
    double squares = 0, normed[64];
    for (int d = 0; d < 2 * half; d++)
        squares += (double)x[d] * x[d];
    for (int d = 0; d < 2 * half; d++)
        normed[d] = weight ? x[d] / sqrt(squares / (2 * half) + 1e-3f) * weight[d] : x[d];
    for (int d = 0; d < half; d++) {
        const double angle = (position * half + d) * 0.3;
        out[d] = normed[d] * cos(angle) - normed[half + d] * sin(angle);
        out[half + d] = normed[half + d] * cos(angle) + normed[d] * sin(angle);
    }
}

START_TEST(turned_heads) {
    static const struct {
        int M, position, heads, kv_heads, half, normed;
    } cases[] = {
        {21, 0, 3, 3, 5, 0}, {1, 30, 4, 2, 8, 1}, {17, 4, 2, 1, 19, 1}, {40, 9, 1, 1, 4, 0}};
    ganq_context *ctx = open_isa(_i / 2, 2);
    const int32_t dtype = cache_dtypes[_i % 2];
    const int64_t size = (int64_t)ganq__dtype_size(dtype);
    if (!ctx)
        return;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int M = cases[i].M, half = cases[i].half, dim = 2 * half, capacity = 50;
        const int heads = cases[i].heads, kv_heads = cases[i].kv_heads;
        float *q = random_floats(M * heads * dim, 1, 4),
              *k = random_floats(M * kv_heads * dim, 1, 5);
        float *v = random_floats(M * kv_heads * dim, 1, 6), *weight = random_floats(dim, 1, 7);
        float *q_before = random_floats(M * heads * dim, 1, 4);
        float *k_before = random_floats(M * kv_heads * dim, 1, 5);
        char *keys = random_cache(kv_heads * capacity * dim, 1, 8, dtype);
        char *values = random_cache(kv_heads * capacity * dim, 1, 9, dtype);
        char *keys_before = random_cache(kv_heads * capacity * dim, 1, 8, dtype);
        float *cosines = malloc((size_t)(capacity * half) * sizeof *cosines);
        float *sines = malloc((size_t)(capacity * half) * sizeof *sines);
        double expected[64];
        for (int j = 0; j < capacity * half; j++) {
            cosines[j] = (float)cos(j * 0.3);
            sines[j] = (float)sin(j * 0.3);
        }
        const ganq__heads a = {.M = M,
                               .position = cases[i].position,
                               .heads = heads,
                               .kv_heads = kv_heads,
                               .head_dim = dim,
                               .q_norm = cases[i].normed ? weight : NULL,
                               .k_norm = cases[i].normed ? weight : NULL,
                               .eps = 1e-3f,
                               .cosines = cosines,
                               .sines = sines,
                               .q = q,
                               .k = k,
                               .v = v,
                               .keys = keys,
                               .values = values,
                               .cache_dtype = dtype,
                               .capacity = capacity};
        if (dtype == GANQ_DTYPE_F16) { /* beyond its range */
            v[0] = 1e6f;
            v[dim - 1] = -1e6f;
            v[1] = INFINITY;
            v[dim - 2] = -INFINITY;
        }
        ck_ganq_ok(ctx->model->heads(ctx, &a));
        for (int m = 0; m < M; m++) {
            const int position = cases[i].position + m;
            for (int head = 0; head < heads; head++) {
                const int at = (m * heads + head) * dim;
                prepare64(q_before + at, a.q_norm, half, position, expected);
                for (int d = 0; d < dim; d++)
                    check_close(q[at + d], expected[d], 3e-6);
            }
            for (int head = 0; head < kv_heads; head++) {
                const int at = (m * kv_heads + head) * dim;
                const int to = (head * capacity + position) * dim;
                float row[64], limited[64];
                prepare64(k_before + at, a.k_norm, half, position, expected);
                ganq__to_f32(row, keys + to * size, dtype, dim);
                for (int d = 0; d < dim; d++) {
                    const double rounding =
                        dtype == GANQ_DTYPE_F32 ? 0 : fabs(expected[d]) * 0x1p-11;
                    check_close(row[d], expected[d], 3e-6 + rounding);
                    limited[d] = dtype == GANQ_DTYPE_F32 || isinf(v[at + d])
                                     ? v[at + d]
                                     : fminf(fmaxf(v[at + d], -65504), 65504);
                }
                char stored[64 * sizeof(float)];
                ganq__from_f32(stored, limited, dtype, dim);
                ck_assert_mem_eq(values + to * size, stored, (size_t)(dim * size));
            }
        }
        /* the rest of the cache is as it was */
        for (int head = 0; head < kv_heads; head++)
            for (int p = 0; p < capacity; p++)
                if (p < cases[i].position || p >= cases[i].position + M)
                    ck_assert_mem_eq(keys + (head * capacity + p) * dim * size,
                                     keys_before + (head * capacity + p) * dim * size,
                                     (size_t)(dim * size));
        void *const all[] = {q,    k,      v,           weight,  q_before, k_before,
                             keys, values, keys_before, cosines, sines};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
            free(all[j]);
    }
    ganq__context_release(ctx);
}
END_TEST

/* Rows of a table in each type, at an address that is no multiple of its elements. */
START_TEST(embed) {
    ganq_context *ctx = open_isa(_i, 2);
    if (!ctx)
        return;
    enum { ROWS = 9, D = 13, M = 40 };
    static const int32_t types[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};
    static char table[ROWS * D * 4 + 1];
    int32_t ids[M];
    float *values = random_floats(ROWS * D, 1, 20), h[M * D];
    for (int i = 0; i < ROWS * D; i++) /* exact in each type */
        values[i] = (float)(i % 64) / 64;
    random_ids(ids, M, ROWS, 21);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        ganq__from_f32(table + 1, values, types[i], ROWS * D);
        ck_ganq_ok(ctx->model->embed(ctx, M, D, ids, table + 1, types[i], h));
        for (int m = 0; m < M; m++)
            ck_assert_mem_eq(h + m * D, values + ids[m] * D, D * sizeof *h);
    }
    free(values);
    ganq__context_release(ctx);
}
END_TEST

/* The bits of the two operations it stands for, in place as well. */
START_TEST(add_norm) {
    ganq_context *ctx = open_isa(_i, 2);
    if (!ctx)
        return;
    static const int widths[] = {1, 7, 64, 100};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const int M = 35, D = widths[w];
        const size_t bytes = (size_t)(M * D) * sizeof(float);
        float *a = random_floats(M * D, 1, 1), *b = random_floats(M * D, 1, 2);
        float *weight = random_floats(D, 1, 3), *sum = random_floats(M * D, 1, 4);
        float *y = random_floats(M * D, 1, 5), *normed = random_floats(M * D, 1, 6);
        ck_ganq_ok(ctx->model->add(ctx, M * D, a, b, sum));
        ck_ganq_ok(ctx->model->rms_norm(ctx, M, D, sum, D, weight, 1e-3f, normed, D));
        memcpy(y, b, bytes); /* y in b's place, sum in a's */
        float *c = random_floats(M * D, 1, 1);
        ck_ganq_ok(ctx->model->add_norm(ctx, M, D, c, y, c, weight, 1e-3f, y));
        ck_assert_mem_eq(c, sum, bytes);
        ck_assert_mem_eq(y, normed, bytes);
        free(c);
        ck_ganq_ok(ctx->model->add_norm(ctx, M, D, a, b, b, weight, 1e-3f, y));
        ck_assert_mem_eq(b, sum, bytes);
        ck_assert_mem_eq(y, normed, bytes);
        float *const all[] = {a, b, weight, sum, y, normed};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
            free(all[j]);
    }
    ganq__context_release(ctx);
}
END_TEST

/* In place as well; a mean far from 0. */
START_TEST(layer_norm) {
    ganq_context *ctx = open_isa(_i, 2);
    if (!ctx)
        return;
    static const int widths[] = {1, 7, 64, 100};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const int M = 35, D = widths[w];
        float *x = random_floats(M * D, 1, 1), *weight = random_floats(D, 1, 2), *bias = random_floats(D, 1, 3);
        float *y = random_floats(M * D, 1, 4);
        for (int i = 0; i < M * D; i++)
            x[i] += 5;
        ck_ganq_ok(ctx->model->layer_norm(ctx, M, D, x, weight, bias, 1e-3f, y));
        for (int m = 0; m < M; m++) {
            double mean = 0, squares = 0;
            for (int d = 0; d < D; d++)
                mean += (double)x[m * D + d] / D;
            for (int d = 0; d < D; d++)
                squares += (x[m * D + d] - mean) * (x[m * D + d] - mean);
            for (int d = 0; d < D; d++)
                check_close(y[m * D + d], (x[m * D + d] - mean) / sqrt(squares / D + 1e-3) * weight[d] + bias[d], 1e-5);
        }
        ck_ganq_ok(ctx->model->layer_norm(ctx, M, D, x, weight, bias, 1e-3f, x));
        ck_assert_mem_eq(x, y, (size_t)(M * D) * sizeof *x);
        free(x);
        free(y);
        free(weight);
        free(bias);
    }
    ganq__context_release(ctx);
}
END_TEST

START_TEST(relu) {
    ganq_context *ctx = open_isa(_i, 2);
    if (!ctx)
        return;
    const int count = 40003;
    float *x = random_floats(count, 1, 1), *before = random_floats(count, 1, 1);
    x[0] = NAN;
    ck_ganq_ok(ctx->model->relu(ctx, count, x));
    ck_assert_float_nan(x[0]);
    for (int i = 1; i < count; i++)
        ck_assert_float_eq(x[i], before[i] > 0 ? before[i] : 0);
    free(x);
    free(before);
    ganq__context_release(ctx);
}
END_TEST

/* softmax(scale q.K) V of one query in float64 */
static void attend64(const ganq__attention *a, const float *keys, const float *values, int64_t m,
                     int64_t head, double *out) {
    const int64_t dim = a->head_dim, last = a->position + m;
    const int64_t first = a->window && last >= a->window ? last - a->window + 1 : 0;
    const int64_t offset = head / (a->heads / a->kv_heads) * a->capacity * dim;
    double total = 0;
    for (int64_t d = 0; d < dim; d++)
        out[d] = 0;
    for (int64_t p = first; p <= last; p++) {
        double dot = 0;
        for (int64_t d = 0; d < dim; d++)
            dot += (double)a->q[(m * a->heads + head) * dim + d] * keys[offset + p * dim + d];
        const double weight = exp(dot * a->scale);
        total += weight;
        for (int64_t d = 0; d < dim; d++)
            out[d] += weight * values[offset + p * dim + d];
    }
    for (int64_t d = 0; d < dim; d++)
        out[d] /= total;
}

START_TEST(attention) {
    static const struct {
        int M, position, window, heads, kv_heads, dim;
    } cases[] = {{1, 0, 0, 4, 2, 8},     {1, 63, 0, 2, 2, 64},   {1, 150, 0, 3, 1, 20},
                 {37, 0, 0, 4, 2, 12},   {130, 70, 0, 2, 1, 72}, {40, 100, 33, 4, 4, 6},
                 {129, 0, 64, 2, 1, 16}, {17, 3, 1, 2, 1, 8},    {1, 190, 0, 16, 2, 64},
                 {1, 199, 70, 8, 1, 40}, {20, 150, 0, 2, 1, 136}};
    ganq_context *ctx = open_isa(_i / 2, 2);
    const int32_t dtype = cache_dtypes[_i % 2];
    if (!ctx)
        return;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int capacity = 210, dim = cases[i].dim, width = cases[i].heads * dim;
        float *q = random_floats(cases[i].M * width, 3, 5);
        const int64_t count = cases[i].kv_heads * capacity * dim;
        void *keys = random_cache(count, 3, 6, dtype), *values = random_cache(count, 1, 7, dtype);
        float *wide_keys = malloc((size_t)count * sizeof(float));
        float *wide_values = malloc((size_t)count * sizeof(float));
        ganq__to_f32(wide_keys, keys, dtype, count);
        ganq__to_f32(wide_values, values, dtype, count);
        float *out = random_floats(cases[i].M * width, 1, 8);
        float *single = random_floats(width, 1, 8);
        double expected[136];
        ganq__attention a = {.M = cases[i].M,
                             .position = cases[i].position,
                             .window = cases[i].window,
                             .heads = cases[i].heads,
                             .kv_heads = cases[i].kv_heads,
                             .head_dim = dim,
                             .scale = (float)(1 / sqrt(dim)),
                             .q = q,
                             .keys = keys,
                             .values = values,
                             .cache_dtype = dtype,
                             .capacity = capacity,
                             .out = out};
        ck_ganq_ok(ctx->model->attention(ctx, &a));
        for (int m = 0; m < cases[i].M; m++)
            for (int head = 0; head < cases[i].heads; head++) {
                attend64(&a, wide_keys, wide_values, m, head, expected);
                for (int d = 0; d < dim; d++)
                    check_close(out[m * width + head * dim + d], expected[d], 2e-6);
            }
        /* the last query alone gives the same bits */
        ganq__attention last = a;
        last.M = 1;
        last.position = a.position + a.M - 1;
        last.q = q + (a.M - 1) * width;
        last.out = single;
        ck_ganq_ok(ctx->model->attention(ctx, &last));
        ck_assert_mem_eq(single, out + (a.M - 1) * width, (size_t)width * sizeof *out);
        free(q);
        free(keys);
        free(values);
        free(wide_keys);
        free(wide_values);
        free(out);
        free(single);
    }
    ganq__context_release(ctx);
}
END_TEST

START_TEST(swiglu_and_add) {
    ganq_context *ctx = open_isa(_i, 2);
    if (!ctx)
        return;
    const int count = 40003;
    float *gate = random_floats(count, 30, 9), *up = random_floats(count, 2, 10);
    float *before = random_floats(count, 30, 9), *sum = random_floats(count, 1, 11);
    before[0] = gate[0] = -200;
    before[1] = gate[1] = 200;
    before[2] = gate[2] = 0;
    before[3] = gate[3] = NAN;
    ck_ganq_ok(ctx->model->add(ctx, count, gate, up, sum));
    ck_ganq_ok(ctx->model->swiglu(ctx, count, gate, up));
    ck_assert_float_nan(gate[3]);
    for (int i = 0; i < count; i++) {
        if (i == 3)
            continue;
        double expected = before[i] / (1 + exp(-before[i])) * up[i];
        check_close(gate[i], expected, 1e-30 + 1e-6 * fabs(expected));
        check_close(sum[i], before[i] + up[i], 0);
    }
    /* the last, odd element alone gives the same bits */
    float last = before[count - 1];
    ck_ganq_ok(ctx->model->swiglu(ctx, 1, &last, up + count - 1));
    ck_assert_mem_eq(&last, gate + count - 1, sizeof last);
    free(gate);
    free(up);
    free(before);
    free(sum);
    ganq__context_release(ctx);
}
END_TEST

/* Llama 3.1: theta 5e5, head_dim 128, factor 8, original 8192. Expected frequencies: index 0 and 20
 * are short waves and stay, 63 and 50 are long ones and are divided by 8; in between the formula
 * with wavelengths. Worked out with Python's decimal arithmetic from the model's published
 * definition. */
START_TEST(llama3_frequencies) {
    ganq__config c = {.head_dim = 128,
                      .rope_theta = 500000,
                      .rope_kind = GANQ__ROPE_LLAMA3,
                      .rope_factor = 8,
                      .rope_low_factor = 1,
                      .rope_high_factor = 4,
                      .rope_original_positions = 8192};
    static const struct {
        int index;
        double frequency;
    } expected[] = {
        {0, 1.00000000000000000e+00},  {20, 1.65604400809944464e-02}, {28, 3.21144599475259090e-03},
        {29, 2.16657076350335867e-03}, {31, 8.56751412919632077e-04}, {33, 3.12693750384065116e-04},
        {35, 9.55621235396468327e-05}, {36, 7.78465527393244983e-05}, {50, 4.41153467455840417e-06},
        {63, 3.06892598891451108e-07},
    };
    double frequencies[64];
    ganq__rope_frequencies(&c, frequencies);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        check_close(frequencies[expected[i].index] / expected[i].frequency, 1, 1e-12);
}
END_TEST

/* theta 1e6, head_dim 128, original 32768: factor 4 with the defaults (Qwen2.5 beyond 32768 positions); and factor 10
 * between 20 and 2 turns, not rounded. In Python's float64 from the paper's definition; `transformers` 5.24, in float32,
 * differs by 1.5e-7 at most. */
START_TEST(yarn_frequencies) {
    static const int indices[] = {0, 15, 20, 23, 24, 30, 33, 36, 40, 41, 50, 63};
    static const double expected[2][12] = {
        {1.00000000000000000e+00, 3.92418975848453574e-02, 1.33352143216332406e-02, 6.97830584859866331e-03,
         5.37532149079010188e-03, 1.06436098124700193e-03, 4.50323575513769214e-04, 1.79841155873954208e-04,
         4.44569852509730674e-05, 3.58253142559240685e-05, 5.13381256614286559e-06, 3.10234440187929882e-07},
        {1.00000000000000000e+00, 3.92418975848453574e-02, 1.33352143216332406e-02, 6.97830584859866331e-03,
         5.62341325190349097e-03, 9.90736467679644234e-04, 3.14472712642304103e-04, 5.78213646868459895e-05,
         1.77827941003892256e-05, 1.43301257023696271e-05, 2.05352502645714607e-06, 1.24093776075171958e-07}};
    for (int set = 0; set < 2; set++) {
        const ganq__config c = {.head_dim = 128,
                                .rope_theta = 1e6,
                                .rope_kind = GANQ__ROPE_YARN,
                                .rope_factor = set ? 10 : 4,
                                .rope_low_factor = set ? 2 : 1,
                                .rope_high_factor = set ? 20 : 32,
                                .rope_whole = !set,
                                .rope_original_positions = 32768};
        double frequencies[64];
        ganq__rope_frequencies(&c, frequencies);
        for (size_t i = 0; i < sizeof indices / sizeof *indices; i++)
            check_close(frequencies[indices[i]] / expected[set][i], 1, 1e-12);
    }
}
END_TEST

START_TEST(rope_tables) {
    ganq__config c = {.head_dim = 6,
                      .rope_theta = 100,
                      .rope_kind = GANQ__ROPE_LINEAR,
                      .rope_factor = 4,
                      .rope_attention = 1.5};
    ganq__rope tables;
    ganq_context *ctx = test_context(1, NULL);
    ck_ganq_ok(ganq__rope_create(ctx, &c, 50, &tables));
    ck_assert_int_eq(tables.half, 3);
    for (int p = 0; p < 50; p++)
        for (int i = 0; i < 3; i++) {
            double angle = p / 4.0 / pow(100, i / 3.0);
            check_close(tables.cosines[p * 3 + i], 1.5 * cos(angle), 2e-7);
            check_close(tables.sines[p * 3 + i], 1.5 * sin(angle), 2e-7);
        }
    ganq__rope_free(&tables);
    ganq__context_release(ctx);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("model_ops");
    TCase *tests = tcase_create("model_ops");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, rms_norm, 0, 2);
    tcase_add_loop_test(tests, embed, 0, 2);
    tcase_add_loop_test(tests, add_norm, 0, 2);
    tcase_add_loop_test(tests, layer_norm, 0, 2);
    tcase_add_loop_test(tests, relu, 0, 2);
    tcase_add_loop_test(tests, turned_heads, 0, 4);
    tcase_add_loop_test(tests, attention, 0, 4);
    tcase_add_loop_test(tests, swiglu_and_add, 0, 2);
    tcase_add_test(tests, llama3_frequencies);
    tcase_add_test(tests, yarn_frequencies);
    tcase_add_test(tests, rope_tables);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
