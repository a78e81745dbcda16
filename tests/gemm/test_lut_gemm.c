/* test_lut_gemm.c - every kernel of ganq__lut_ops against a float64 product of the dequantized
 * layer. */
#include <math.h>
#include <pthread.h>

#include "alloc.h"
#include "check_util.h"
#include "context.h"
#include "cpu.h"
#include "dtype.h"
#include "layer.h"
#include "lut_gemm.h"
#include "lut_ops.h"
#include "pack/guard.h"

/* Error of an element, relative to the sum of |x| |w| over its K products, |w| = |table value| +
 * |outlier|: f32 sums over K <= 389. */
static const double bound = 1e-6;
/* Further error of an element in fixed point: each of its products by half a step of x and of w,
 * both at most 1 here. */
static double fast_bound(int64_t K) {
    return (double)K / 16383;
}

/* Instruction sets, and with "fast" those that have kernels in fixed point. */
static const char *const isas[] = {"ref", "avx2", "avx2 fast", "avx512", "avx512 fast", "neon", "neon fast"};
enum { ISAS = 7 };

static int is_fast(const char *isa) {
    return strstr(isa, " fast") != NULL;
}

/* NULL where this processor lacks the instruction set. */
static ganq_context *open_context(const char *isa, int threads) {
    ganq_context *ctx = calloc(1, sizeof *ctx);
    ck_assert_ptr_nonnull(ctx);
    ck_ganq_ok(ganq__pool_create(threads, &ctx->pool));
    char name[16];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(isa, " "), isa);
    setenv("GANQ_CPU_ISA", name, 1);
    ctx->options.numerics = is_fast(isa) ? GANQ_NUMERICS_FAST : GANQ_NUMERICS_DEFAULT;
    if (ganq__cpu_backend.open(ctx) == GANQ_OK)
        return ctx;
    ck_assert_str_ne(isa, "ref");
    ganq__pool_free(ctx->pool);
    free(ctx);
    return NULL;
}

static void close_context(ganq_context *ctx) {
    ganq__pool_free(ctx->pool);
    ganq__free(ctx->workspace);
    free(ctx);
}

static uint32_t random_state;
static uint32_t random_u32(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}
static float random_float(void) {
    return (float)random_u32() / (1 << 23) - 1;
}

static float *random_floats(int64_t count) {
    float *values = malloc((size_t)count * sizeof *values);
    ck_assert_ptr_nonnull(values);
    for (int64_t i = 0; i < count; i++)
        values[i] = random_float();
    return values;
}

static ganq_layer *random_layer(int bits, int64_t N, int64_t K, int f32_tables, int outliers,
                                int bias) {
    const int64_t L = (int64_t)1 << bits;
    uint8_t *codes = malloc((size_t)(N * K));
    float *lut = random_floats(N * L), *b = random_floats(N), *vals = random_floats(N * 4);
    int32_t *rowptr = calloc((size_t)N + 1, sizeof *rowptr),
            *cols = calloc((size_t)N * 4, sizeof *cols);
    ganq_layer *layer;
    ck_assert(codes && rowptr && cols);
    for (int64_t i = 0; i < N * K; i++)
        codes[i] = (uint8_t)(random_u32() % L);
    for (int64_t n = 0; n < N; n++) { /* first column, middle or where 256 columns meet, last */
        const int32_t middle = K > 256 ? 256 : (int32_t)(K / 2);
        const int32_t candidates[4] = {0, middle - 1, middle, (int32_t)K - 1};
        int32_t at = rowptr[n];
        for (int i = 0; i < 4 && n % 4 != 1; i++)
            if (candidates[i] >= 0 && (at == rowptr[n] || candidates[i] > cols[at - 1]))
                cols[at++] = candidates[i];
        rowptr[n + 1] = at;
    }
    ck_ganq_ok(ganq__layer_create(bits, N, K, codes, lut,
                                  f32_tables ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16,
                                  outliers ? rowptr : NULL, outliers ? cols : NULL,
                                  outliers ? vals : NULL, bias ? b : NULL, GANQ_DTYPE_F32, &layer));
    ck_assert_int_eq(layer->lut_dtype, f32_tables ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16);
    free(codes);
    free(lut);
    free(b);
    free(vals);
    free(rowptr);
    free(cols);
    return layer;
}

/* exact[m,n], and the sum of the magnitudes that go into it: a kernel may add x * table value and x
 * * outlier one after the other. */
static void exact_product(const ganq_layer *layer, int64_t M, const float *x, int64_t ldx,
                          double *exact, double *magnitude) {
    const int64_t N = layer->N, K = layer->K;
    float *w = malloc((size_t)(2 * K) * sizeof *w), *parts = w + K;
    ganq_layer bare = *layer;
    bare.outlier_rowptr = NULL;
    ck_assert_ptr_nonnull(w);
    for (int64_t n = 0; n < N; n++) {
        ganq__layer_dequantize_rows(layer, n, 1, w, K);
        ganq__layer_dequantize_rows(&bare, n, 1, parts, K);
        for (int64_t k = 0; k < K; k++)
            parts[k] = fabsf(parts[k]) + fabsf(w[k] - parts[k]);
        for (int64_t m = 0; m < M; m++) {
            double sum = layer->bias ? layer->bias[n] : 0, all = fabs(sum);
            for (int64_t k = 0; k < K; k++) {
                sum += (double)x[m * ldx + k] * w[k];
                all += fabs((double)x[m * ldx + k] * parts[k]);
            }
            exact[m * N + n] = sum;
            magnitude[m * N + n] = all;
        }
    }
    free(w);
}

static void compare(const ganq_layer *layer, int64_t M, const float *y, int64_t ldy,
                    const double *exact, const double *magnitude, const char *isa) {
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < layer->N; n++) {
            const double error = fabs(y[m * ldy + n] - exact[m * layer->N + n]);
            const double allowed =
                bound * magnitude[m * layer->N + n] + (is_fast(isa) ? fast_bound(layer->K) : 0);
            if (!(error <= allowed))
                ck_abort_msg(
                    "%s, %d bits, M %d, N %d, K %d: y[%d,%d] is %.9g, expected %.9g (+- %.3g)", isa,
                    layer->bits, (int)M, (int)layer->N, (int)layer->K, (int)m, (int)n,
                    (double)y[m * ldy + n], exact[m * layer->N + n], allowed);
        }
}

static const int64_t Ms[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33, 100, 130};
static const int64_t Ns[] = {1, 3, 8, 17, 64};
static const int64_t Ks[] = {1, 2, 31, 32, 33, 63, 64, 65, 100, 256, 259};
#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

/* Loop: bits x M; inside: N x K, four kinds of layers in turn, strided x and y. */
START_TEST(all_kernels_agree_with_float64) {
    const int bits = _i / COUNT(Ms) + 2;
    const int64_t M = Ms[_i % COUNT(Ms)];
    ganq_context *contexts[ISAS];
    for (int c = 0; c < ISAS; c++)
        contexts[c] = open_context(isas[c], 1);
    random_state = (uint32_t)_i;
    for (int shape = 0; shape < COUNT(Ns) * COUNT(Ks); shape++) {
        const int kind = (shape + _i) % 4;
        const int64_t N = Ns[shape % COUNT(Ns)], K = Ks[shape / COUNT(Ns)], ldx = K + kind,
                      ldy = N + 3 - kind;
        ganq_layer *layer = random_layer(bits, N, K, kind % 2, kind == 1 || kind == 2, kind >= 2);
        float *x = random_floats(M * ldx), *y = malloc((size_t)(M * ldy) * sizeof *y);
        double *exact = malloc((size_t)(2 * M * N) * sizeof *exact);
        ck_assert(y && exact);
        exact_product(layer, M, x, ldx, exact, exact + M * N);
        for (int c = 0; c < ISAS; c++) {
            if (!contexts[c])
                continue;
            for (int64_t i = 0; i < M * ldy; i++)
                y[i] = -77;
            ck_ganq_ok(contexts[c]->lut->gemm(contexts[c], layer, M, x, ldx, y, ldy));
            compare(layer, M, y, ldy, exact, exact + M * N, isas[c]);
            for (int64_t m = 0; m < M; m++)
                for (int64_t n = N; n < ldy; n++)
                    ck_assert(y[m * ldy + n] == -77);
        }
        free(x);
        free(y);
        free(exact);
        ganq__layer_release(layer);
    }
    for (int c = 0; c < ISAS; c++)
        if (contexts[c])
            close_context(contexts[c]);
}
END_TEST

START_TEST(threads_do_not_change_a_bit) {
    const int64_t M = _i % 3 == 0 ? 1 : _i % 3 == 1 ? 8 : 150, N = 203, K = 389;
    const char *isa = isas[_i / 3];
    random_state = 5;
    ganq_layer *layer = random_layer(3, N, K, 0, 1, 1);
    float *x = random_floats(M * K), *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        ganq_context *ctx = open_context(isa, threads);
        if (!ctx)
            break;
        float *y = malloc((size_t)(M * N) * sizeof *y);
        ck_assert_ptr_nonnull(y);
        ck_ganq_ok(ctx->lut->gemm(ctx, layer, M, x, K, y, N));
        if (first) {
            ck_assert_mem_eq(first, y, (size_t)(M * N) * sizeof *y);
            free(y);
        } else {
            first = y;
        }
        close_context(ctx);
    }
    free(first);
    free(x);
    ganq__layer_release(layer);
}
END_TEST

/* Moves count elements to the end of a page that nothing may be read behind. */
static void *guard(guarded *g, const void *data, size_t bytes) {
    *g = guard_new(bytes);
    memcpy(g->data, data, bytes);
    return g->data;
}

START_TEST(nothing_outside_is_touched) {
    static const int64_t rows[] = {1, 8, 9, 33};
    const int bits = _i % 3 + 2, f32_tables = _i / 3 % 2;
    const int64_t M = rows[_i / 6 % 4], N = 7;
    ganq_context *ctx = open_context(isas[_i / 24], 1);
    random_state = (uint32_t)_i;
    for (int i = 0; i < COUNT(Ks) && ctx; i++) {
        const int64_t K = Ks[i];
        ganq_layer *layer = random_layer(bits, N, K, f32_tables, 0, 1), guarded_layer;
        float *x = random_floats(M * K);
        double *exact = malloc((size_t)(2 * M * N) * sizeof *exact);
        ck_assert_ptr_nonnull(exact);
        exact_product(layer, M, x, K, exact, exact + M * N);
        guarded g[5];
        guarded_layer = *layer;
        atomic_init(&guarded_layer.lanes,
                    guard(&g[0], ganq__layer_lanes(layer, 0), (size_t)(N * layer->row_bytes)));
        guarded_layer.lut = guard(&g[1], layer->lut,
                                  (size_t)(N * layer->L) * ganq__dtype_size(layer->lut_dtype));
        guarded_layer.bias = guard(&g[2], layer->bias, (size_t)N * sizeof(float));
        const float *gx = guard(&g[3], x, (size_t)(M * K) * sizeof(float));
        g[4] = guard_new((size_t)(M * N) * sizeof(float));
        ck_ganq_ok(ctx->lut->gemm(ctx, &guarded_layer, M, gx, K, g[4].data, N));
        compare(layer, M, g[4].data, N, exact, exact + M * N, isas[_i / 24]);
        for (int j = 0; j < 5; j++)
            guard_free(&g[j]);
        free(x);
        free(exact);
        ganq__layer_release(layer);
    }
    if (ctx)
        close_context(ctx);
}
END_TEST

/* A NaN or infinity stays in its own row of y, in every column whose weight it meets. */
START_TEST(nan_and_infinity_propagate) {
    const int64_t N = 9, K = 70, M = _i % 2 ? 12 : 3;
    ganq_context *ctx = open_context(isas[_i / 2], 1);
    random_state = 3;
    ganq_layer *layer = random_layer(4, N, K, 0, 0, 1);
    float *x = random_floats(M * K), *y = malloc((size_t)(M * N) * sizeof *y);
    ck_assert_ptr_nonnull(y);
    x[1 * K + 69] = NAN;
    x[2 * K + 5] = INFINITY;
    if (ctx) {
        ck_ganq_ok(ctx->lut->gemm(ctx, layer, M, x, K, y, N));
        for (int64_t n = 0; n < N; n++) {
            ck_assert(isfinite(y[n]));
            ck_assert(isnan(y[1 * N + n]));
            ck_assert(!isfinite(y[2 * N + n]));
        }
        close_context(ctx);
    }
    free(x);
    free(y);
    ganq__layer_release(layer);
}
END_TEST

static float random_normal(void) { /* near enough */
    float sum = 0;
    for (int i = 0; i < 6; i++)
        sum += random_float();
    return sum / 1.41421356f;
}

static double distance(const float *y, const double *exact, int64_t count) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        error += (y[i] - exact[i]) * (y[i] - exact[i]);
        norm += exact[i] * exact[i];
    }
    return sqrt(error / norm);
}

/* Fixed point within 3e-4 of the result's norm, and not by being exact; a row of X has the bits
 * that it has alone, where M is large those that it has among 33. */
START_TEST(fast_is_close_enough) {
    static const int64_t rows[] = {1, 2, 3, 5, 8, 13, 24, 150};
    const int bits = _i % 3 + 2, spikes = _i / 3 % 2;
    const int64_t N = 37, K = 1000, M = rows[_i / 6], some = M > 24 ? 33 : 1;
    random_state = (uint32_t)_i;
    ganq_layer *layer = random_layer(bits, N, K, 0, 0, 0);
    float *x = random_floats(M * K), *y = malloc((size_t)(M * N) * sizeof *y), again[33 * 37];
    double *exact = malloc((size_t)(2 * M * N) * sizeof *exact);
    ck_assert(y && exact);
    for (int64_t i = 0; i < M * K; i++)
        x[i] = random_normal() * (spikes && i % 301 == 0 ? 100 : 1);
    exact_product(layer, M, x, K, exact, exact + M * N);
    for (int c = 0; c < ISAS; c++) {
        ganq_context *ctx = is_fast(isas[c]) ? open_context(isas[c], 2) : NULL;
        if (!ctx)
            continue;
        ck_ganq_ok(ctx->lut->gemm(ctx, layer, M, x, K, y, N));
        ck_assert_double_le(distance(y, exact, M * N), 3e-4);
        ck_assert_double_ge(distance(y, exact, M * N), 2e-6);
        for (int64_t m = 0; m + some <= M; m += 1 + M / 5) {
            ck_ganq_ok(ctx->lut->gemm(ctx, layer, some, x + m * K, K, again, N));
            ck_assert_mem_eq(again, y + m * N, (size_t)(some * N) * sizeof *again);
        }
        close_context(ctx);
    }
    free(x);
    free(y);
    free(exact);
    ganq__layer_release(layer);
}
END_TEST

/* Rows longer than what is multiplied with at a time, in each of the ways to cut them: ||Y - Y64|| is
 * within the promise of the numerics, and of one and of three threads come the same bits. */
START_TEST(long_rows) {
    static const int64_t shapes[][2] = {{1, 8192 + 300}, {2, 4096 + 517}, {8, 2500}, {20, 2500}};
    const int bits = _i % 3 + 2;
    const int64_t N = 101, M = shapes[_i / 3][0], K = shapes[_i / 3][1];
    random_state = (uint32_t)_i;
    ganq_layer *layer = random_layer(bits, N, K, 0, 1, 1);
    float *x = malloc((size_t)(M * K) * sizeof *x), *y = malloc((size_t)(2 * M * N) * sizeof *y);
    double *exact = malloc((size_t)(2 * M * N) * sizeof *exact);
    ck_assert(x && y && exact);
    for (int64_t i = 0; i < M * K; i++)
        x[i] = random_normal();
    exact_product(layer, M, x, K, exact, exact + M * N);
    for (int c = 0; c < ISAS; c++) {
        for (int t = 0; t < 2; t++) {
            ganq_context *ctx = open_context(isas[c], t ? 3 : 1);
            if (!ctx)
                break;
            ck_ganq_ok(ctx->lut->gemm(ctx, layer, M, x, K, y + t * M * N, N));
            ck_assert_msg(distance(y + t * M * N, exact, M * N) <= (is_fast(isas[c]) ? 3e-4 : 1e-6),
                          "%s: %g", isas[c], distance(y + t * M * N, exact, M * N));
            if (t)
                ck_assert_mem_eq(y, y + M * N, (size_t)(M * N) * sizeof *y);
            close_context(ctx);
        }
    }
    free(x);
    free(y);
    free(exact);
    ganq__layer_release(layer);
}
END_TEST

/* Rows with one entry a thousand times larger than the others, in one column or in none: each row of
 * W by itself is within 3e-4. Every third row is of the common kind. */
START_TEST(fast_holds_for_a_far_entry) {
    static const char *const names[] = {"avx2 fast", "avx512 fast", "neon fast"};
    static const int64_t rows[] = {6, 20, 40};
    const int bits = _i % 3 + 2, used = _i / 3 % 2;
    const int64_t N = 37, K = 1000, M = rows[_i / 6], L = (int64_t)1 << bits;
    uint8_t *codes = malloc((size_t)(N * K));
    float *lut = malloc((size_t)(N * L) * sizeof *lut), *x = malloc((size_t)(M * K) * sizeof *x);
    float *y = malloc((size_t)(M * N) * sizeof *y), column[40];
    double *exact = malloc((size_t)(2 * M * N) * sizeof *exact), of_column[40];
    ganq_layer *layer;
    ck_assert(codes && lut && x && y && exact);
    random_state = (uint32_t)_i;
    for (int64_t n = 0; n < N; n++) {
        for (int64_t s = 0; s < L; s++)
            lut[n * L + s] = (float)(s - L / 2) + 0.37f * random_float();
        if (n % 3)
            lut[n * L + L - 1] = 1000.0f * (float)L;
        for (int64_t k = 0; k < K; k++)
            codes[n * K + k] = (uint8_t)(random_u32() % (n % 3 ? L - 1 : L));
        if (n % 3 && used)
            codes[n * K + 600] = (uint8_t)(L - 1);
    }
    for (int64_t i = 0; i < M * K; i++)
        x[i] = random_normal();
    ck_ganq_ok(ganq__layer_create(bits, N, K, codes, lut, GANQ_DTYPE_F32, NULL, NULL, NULL, NULL,
                                  GANQ_DTYPE_F32, &layer));
    ck_assert_ptr_nonnull(layer->wide);
    for (int64_t n = 0; n < N; n++)
        ck_assert_int_eq(layer->wide[n], n % 3 && !used ? 1 : layer->wide[n]);
    exact_product(layer, M, x, K, exact, exact + M * N);
    for (int c = 0; c < COUNT(names); c++) {
        ganq_context *ctx = open_context(names[c], 2);
        if (!ctx)
            continue;
        ck_ganq_ok(ctx->lut->gemm(ctx, layer, M, x, K, y, N));
        for (int64_t n = 0; n < N; n++) {
            for (int64_t m = 0; m < M; m++) {
                column[m] = y[m * N + n];
                of_column[m] = exact[m * N + n];
            }
            ck_assert_double_le(distance(column, of_column, M), 3e-4);
        }
        ck_assert_double_le(distance(y, exact, M * N), 3e-4);
        close_context(ctx);
    }
    free(codes);
    free(lut);
    free(x);
    free(y);
    free(exact);
    ganq__layer_release(layer);
}
END_TEST

/* The workspace stays with the context: no allocation once it is large enough. */
START_TEST(repeated_products_do_not_allocate) {
    static const int64_t rows[] = {40, 8, 1, 33};
    ganq_context *ctx = open_context(isas[_i], 2);
    random_state = 1;
    ganq_layer *layer = random_layer(4, 100, 300, 0, 1, 1);
    float *x = random_floats(40 * 300), *y = random_floats(40 * 100);
    for (int i = 0; i < COUNT(rows) && ctx; i++) {
        ganq__alloc_fail_after(0);
        ck_ganq_ok(ctx->lut->gemm(ctx, layer, rows[i], x, 300, y, 100));
        if (i > 0)
            ck_assert_int_eq(ganq__alloc_count(), 0);
    }
    if (ctx)
        close_context(ctx);
    free(x);
    free(y);
    ganq__layer_release(layer);
}
END_TEST

/* ---- first use: the layer is still bit planes in a mapped file when eight threads multiply at
 * once ---- */

enum { THREADS = 8, FIRST_M = 2, FIRST_N = 4, FIRST_K = 300 };

typedef struct first_use {
    ganq_context *ctx;
    const ganq_layer *layer;
    pthread_barrier_t *barrier;
    const float *x;
    float y[FIRST_M * FIRST_N];
    ganq_status status;
} first_use;

static void *multiply_first(void *user) {
    first_use *u = user;
    pthread_barrier_wait(u->barrier);
    u->status = ganq__lut_gemm(u->ctx, u->layer, FIRST_M, u->x, FIRST_K, u->y, FIRST_N);
    return NULL;
}

START_TEST(eight_threads_may_be_first_at_once) {
    ganq__tensors *tensors;
    ganq_layer *layer;
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    first_use uses[THREADS];
    double exact[2 * FIRST_M * FIRST_N];
    float *x = random_floats(FIRST_M * FIRST_K);
    ck_ganq_ok(
        ganq__tensors_open_file(GANQ_SOURCE_DIR "/tests/pack/golden/layers.safetensors", &tensors));
    ck_ganq_ok(ganq__layer_read(tensors, "three", FIRST_N, FIRST_K, 3, &layer));
    ganq__tensors_free(tensors);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        uses[i] =
            (first_use){.ctx = open_context("ref", 1), .layer = layer, .barrier = &barrier, .x = x};
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, multiply_first, &uses[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    exact_product(layer, FIRST_M, x, FIRST_K, exact, exact + FIRST_M * FIRST_N);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(uses[i].status, GANQ_OK);
        compare(layer, FIRST_M, uses[i].y, FIRST_N, exact, exact + FIRST_M * FIRST_N, "ref");
        close_context(uses[i].ctx);
    }
    pthread_barrier_destroy(&barrier);
    ganq__layer_release(layer);
    free(x);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lut_gemm");
    TCase *tests = tcase_create("lut_gemm");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, all_kernels_agree_with_float64, 0, 3 * COUNT(Ms));
    tcase_add_loop_test(tests, threads_do_not_change_a_bit, 0, 3 * ISAS);
    tcase_add_loop_test(tests, nothing_outside_is_touched, 0, 24 * ISAS);
    tcase_add_loop_test(tests, long_rows, 0, 3 * 4);
    tcase_add_loop_test(tests, fast_is_close_enough, 0, 48);
    tcase_add_loop_test(tests, fast_holds_for_a_far_entry, 0, 18);
    tcase_add_loop_test(tests, repeated_products_do_not_allocate, 0, ISAS);
    tcase_add_test(tests, eight_threads_may_be_first_at_once);
    tcase_add_loop_test(tests, nan_and_infinity_propagate, 0, 2 * ISAS);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
