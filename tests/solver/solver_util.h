/* solver_util.h - what the solver's tests share: contexts, synthetic layers, checks that hold for
 * every solution. */
#ifndef GANQ_TESTS_SOLVER_UTIL_H
#define GANQ_TESTS_SOLVER_UTIL_H

#include <math.h>

#include "safetensors.h"
#include "check_util.h"
#include "alloc.h"
#include "cpu.h"
#include "half.h"
#include "solver.h"
#include "solver_ops.h"

static inline ganq_context *open_context(int threads) {
    ganq_context *ctx = calloc(1, sizeof *ctx);
    ck_assert_ptr_nonnull(ctx);
    ctx->progress.name = "";
    ck_ganq_ok(ganq__pool_create(threads, &ctx->pool));
    ck_ganq_ok(ganq__cpu_backend.open(ctx));
    return ctx;
}
static inline void close_context(ganq_context *ctx) {
    ganq__pool_free(ctx->pool);
    free(ctx);
}

static inline float random_float(uint32_t *state) { /* [-1, 1), xorshift32 */
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return (float)(*state >> 8) / (1 << 23) - 1;
}

/* A layer with heavy-tailed weights and H = X^T X of `tokens` correlated inputs of different size.
 */
typedef struct layer {
    int64_t N, K;
    float *w, *h;
} layer;
static inline layer make_layer(int64_t N, int64_t K, int64_t tokens, uint32_t seed) {
    layer l = {N, K, malloc((size_t)(N * K) * sizeof(float)),
               calloc((size_t)(K * K), sizeof(float))};
    float *x = malloc((size_t)K * sizeof(float));
    ck_assert(l.w && l.h && x);
    uint32_t state = seed * 2654435761u + 1;
    for (int64_t i = 0; i < N * K; i++) {
        const float r = random_float(&state);
        l.w[i] = 0.05f * (r + 2 * r * r * r + 0.5f * random_float(&state));
    }
    for (int64_t t = 0; t < tokens; t++) {
        float last = 0;
        for (int64_t k = 0; k < K; k++) {
            last = 0.6f * last + random_float(&state);
            x[k] = last * (0.2f + (float)((k * 7) % 11) / 5) * (k % 29 == 3 ? 8 : 1);
        }
        for (int64_t i = 0; i < K; i++)
            for (int64_t j = 0; j < K; j++)
                l.h[i * K + j] += x[i] * x[j];
    }
    for (int64_t i = 0; i < K; i++) /* exactly symmetric */
        for (int64_t j = 0; j < i; j++)
            l.h[j * K + i] = l.h[i * K + j];
    free(x);
    return l;
}
static inline void free_layer(layer *l) {
    free(l->w);
    free(l->h);
}

static inline ganq_quantize_options make_options(int bits, int recipe) {
    return (ganq_quantize_options){
        .struct_size = sizeof(ganq_quantize_options), .bits = bits, .recipe = recipe};
}

static const int32_t all_recipes[] = {GANQ_RECIPE_RTN, GANQ_RECIPE_PAPER, GANQ_RECIPE_FAST,
                                      GANQ_RECIPE_DEFAULT, GANQ_RECIPE_BEST};

static inline float *dequantize(const ganq__solution *s) {
    float *w = malloc((size_t)(s->N * s->K) * sizeof(float));
    ck_assert_ptr_nonnull(w);
    for (int64_t n = 0; n < s->N; n++) {
        for (int64_t k = 0; k < s->K; k++)
            w[n * s->K + k] = s->lut[(n << s->bits) + s->codes[n * s->K + k]];
        for (int32_t i = s->outlier_rowptr ? s->outlier_rowptr[n] : 0;
             s->outlier_rowptr && i < s->outlier_rowptr[n + 1]; i++)
            w[n * s->K + s->outlier_cols[i]] += s->outlier_vals[i];
    }
    return w;
}

/* Codes in range, tables ascending and of their type, outliers in order, error and norm as
 * ganq__objective finds them. */
static inline void check_solution(ganq_context *ctx, const layer *l, const float *h,
                                  const ganq__solution *s) {
    for (int64_t i = 0; i < s->N * s->K; i++)
        ck_assert_int_lt(s->codes[i], 1 << s->bits);
    for (int64_t n = 0; n < s->N; n++)
        for (int i = 0; i < 1 << s->bits; i++) {
            const float *lut = s->lut + (n << s->bits);
            ck_assert(isfinite(lut[i]));
            ck_assert(i == 0 || lut[i] >= lut[i - 1]);
            if (s->lut_dtype == GANQ_DTYPE_F16)
                ck_assert(lut[i] == ganq__f16_to_f32(ganq__f32_to_f16(lut[i])));
        }
    for (int64_t n = 0; s->outlier_rowptr && n < s->N; n++)
        for (int32_t i = s->outlier_rowptr[n]; i < s->outlier_rowptr[n + 1]; i++) {
            ck_assert(i == s->outlier_rowptr[n] || s->outlier_cols[i] > s->outlier_cols[i - 1]);
            ck_assert(s->outlier_cols[i] >= 0 && s->outlier_cols[i] < s->K);
        }
    float *wq = dequantize(s);
    double error, norm;
    ck_ganq_ok(ganq__objective(ctx, l->N, l->K, l->w, wq, h, &error, &norm));
    ck_assert(isfinite(s->error) && isfinite(s->norm));
    ck_assert_double_le(fabs(error - s->error), 1e-9 * fabs(error) + 1e-13 * norm);
    ck_assert_double_le(fabs(norm - s->norm), 1e-12 * norm);
    ck_assert(s->step_count >= 1 && s->steps[s->step_count - 1].error == s->error);
    free(wq);
}

static inline ganq__solution solve(ganq_context *ctx, const layer *l, const float *h, int bits,
                                   int recipe) {
    ganq_quantize_options o = make_options(bits, recipe);
    ganq__solution s = {0};
    ck_ganq_ok(ganq__solve(ctx, l->N, l->K, l->w, h, 0, &o, &s));
    check_solution(ctx, l, h, &s);
    return s;
}

static inline void check_same_rows(const ganq__solution *a, int64_t row_a, const ganq__solution *b,
                                   int64_t row_b) {
    ck_assert_mem_eq(a->codes + row_a * a->K, b->codes + row_b * b->K, (size_t)a->K);
    ck_assert_mem_eq(a->lut + (row_a << a->bits), b->lut + (row_b << b->bits),
                     sizeof(float) << a->bits);
}

/* The first `rows` rows (0: all) of a weight and its Hessian, from a file of layers. */
static inline layer load_layer(const ganq__tensors *tensors, const char *weight, const char *hessian,
                        int64_t rows) {
    const ganq__tensor *w = ganq__tensors_find(tensors, weight),
                       *h = ganq__tensors_find(tensors, hessian);
    ck_assert_msg(w && h, "%s or %s is missing", weight, hessian);
    layer l = {rows > 0 && rows < w->shape[0] ? rows : w->shape[0], w->shape[1], NULL, NULL};
    ck_ganq_ok(ganq__tensor_to_f32(w, &l.w));
    ck_ganq_ok(ganq__tensor_to_f32(h, &l.h));
    return l;
}

static inline void drop_layer(layer *l) {
    ganq__free(l->w);
    ganq__free(l->h);
}

static inline void check_range(const char *what, double found, double low, double high) {
    ck_assert_msg(found >= low && found <= high, "%s: E is %.4e, expected %.4e to %.4e", what,
                  found, low, high);
}

#endif
