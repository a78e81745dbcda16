/* test_layer_api.c - ganq/layer.h through the shared library: layers in and out, products in all
 * types, refusals. */
#include <math.h>

#include "check_util.h"
#include "ganq/ganq.h"

enum { N = 19, K = 75, BITS = 4, L = 16, OUTLIERS = 3 };

/* What the three float types keep of a number: half a unit in the last place, relative. */
static double rounding(int32_t dtype) {
    return dtype == GANQ_DTYPE_F32 ? 0x1p-24 : dtype == GANQ_DTYPE_F16 ? 0x1p-11 : 0x1p-8;
}
/* f32 sums of K products, relative to the sum of their magnitudes. */
static const double sum_bound = 1e-6;

static const int32_t dtypes[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};

static size_t size_of(int32_t dtype) {
    return dtype == GANQ_DTYPE_F32 ? 4 : 2;
}

/* A value on a coarse grid, which every type holds exactly: i/16 with |i| <= 100. */
static void put(void *data, int32_t dtype, int64_t at, int i) {
    const float value = (float)i / 16;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t half = (uint16_t)(bits >> 16); /* bf16: the upper half, the lower is 0 */
    if (dtype == GANQ_DTYPE_F32) {
        memcpy((char *)data + 4 * at, &value, 4);
        return;
    }
    ck_assert_int_eq(bits & 0xffff, 0);
    if (dtype == GANQ_DTYPE_F16)
        half = value == 0
                   ? 0
                   : (uint16_t)((bits >> 16 & 0x8000) | (((bits >> 13) & 0x3ffff) - (112 << 10)));
    memcpy((char *)data + 2 * at, &half, 2);
}

static double get(const void *data, int32_t dtype, int64_t at) {
    if (dtype == GANQ_DTYPE_F32) {
        float value;
        memcpy(&value, (const char *)data + 4 * at, 4);
        return value;
    }
    uint16_t half;
    memcpy(&half, (const char *)data + 2 * at, 2);
    if (dtype == GANQ_DTYPE_BF16) {
        const uint32_t bits = (uint32_t)half << 16;
        float value;
        memcpy(&value, &bits, 4);
        return value;
    }
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const double magnitude =
        exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return half & 0x8000 ? -magnitude : magnitude;
}

static ganq_context *new_context(int threads, const char *isa) {
    ganq_context_options options = {.struct_size = sizeof options,
                                    .device = GANQ_DEVICE_CPU,
                                    .threads = threads,
                                    .numerics = GANQ_NUMERICS_EXACT};
    ganq_context *ctx = NULL;
    if (isa)
        setenv("GANQ_CPU_ISA", isa, 1);
    else
        unsetenv("GANQ_CPU_ISA");
    if (ganq_context_create(&options, &ctx) != GANQ_OK && isa && strcmp(isa, "ref") != 0)
        return NULL; /* this processor lacks it */
    ck_assert_ptr_nonnull(ctx);
    return ctx;
}

/* Codes, tables, outliers, bias as a caller has them. */
typedef struct source {
    uint8_t codes[N * K];
    float lut[N * L], bias[N], vals[OUTLIERS];
    int32_t rowptr[N + 1], cols[OUTLIERS];
} source;

static void fill(source *s) {
    for (int i = 0; i < N * K; i++)
        s->codes[i] = (uint8_t)((i * 37 + i / 7) % L);
    for (int n = 0; n < N; n++) {
        s->bias[n] = (float)(n - 9) / 4;
        s->rowptr[n + 1] = n < 2 ? 0 : n < 11 ? 2 : OUTLIERS;
        for (int e = 0; e < L; e++)
            s->lut[n * L + e] = (float)((e * 5 + n) % L - 8) / 64; /* a permutation: to be sorted */
    }
    s->rowptr[0] = 0;
    s->cols[0] = 3, s->cols[1] = K - 1, s->cols[2] = 0;
    s->vals[0] = 1.5f, s->vals[1] = -2, s->vals[2] = 0.25f;
}

static double weight(const source *s, int n, int k) {
    double w = s->lut[n * L + s->codes[n * K + k]];
    for (int32_t i = s->rowptr[n]; i < s->rowptr[n + 1]; i++)
        w += s->cols[i] == k ? s->vals[i] : 0;
    return w;
}

static ganq_layer *import(ganq_context *ctx, source *s) {
    const ganq_matrix codes = GANQ_MATRIX(GANQ_DTYPE_U8, N, K, s->codes),
                      lut = GANQ_MATRIX(GANQ_DTYPE_F32, N, L, s->lut);
    const ganq_matrix bias = GANQ_MATRIX(GANQ_DTYPE_F32, 1, N, s->bias);
    ganq_layer *layer = NULL;
    ck_ganq_ok(
        ganq_layer_import(ctx, BITS, &codes, &lut, &bias, s->rowptr, s->cols, s->vals, &layer));
    return layer;
}

static ganq_context *ctx;
static source src;
static ganq_layer *layer;

static void setup(void) {
    ctx = new_context(2, NULL);
    fill(&src);
    layer = import(ctx, &src);
}
static void teardown(void) {
    ganq_layer_free(layer);
    ganq_context_free(ctx);
}

START_TEST(products_in_all_types) {
    static const int64_t rows[] = {1, 5, 9, 300};
    const int64_t M = rows[_i % 4], ldx = K + 5, ldy = N + 2;
    const int32_t in = dtypes[_i / 4 % 3], out = dtypes[_i / 12 % 3];
    static const char *const isas[] = {"ref", "avx2", "avx512"};
    ganq_context *own = new_context(2, isas[_i / 36]);
    if (!own)
        return;
    char *x = calloc((size_t)(M * ldx), size_of(in)), *y = malloc((size_t)(M * ldy) * size_of(out));
    ck_assert(x && y);
    for (int64_t i = 0; i < M * ldx; i++)
        put(x, in, i, (int)(i * 31 % 201) - 100);
    memset(y, 0x5a, (size_t)(M * ldy) * size_of(out));
    ganq_matrix mx = GANQ_MATRIX(in, M, K, x), my = GANQ_MATRIX(out, M, N, y);
    mx.row_stride = ldx;
    my.row_stride = ldy;
    ck_ganq_ok(ganq_lut_gemm(own, layer, &mx, &my));
    for (int64_t m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            double exact = src.bias[n], all = fabs(exact);
            for (int k = 0; k < K; k++) {
                const double product = get(x, in, m * ldx + k) * weight(&src, n, k);
                exact += product;
                all += fabs(product);
            }
            const double error = fabs(get(y, out, m * ldy + n) - exact);
            ck_assert_msg(error <=
                              sum_bound * all + rounding(out) * (fabs(exact) + sum_bound * all),
                          "y[%d,%d]: %g off %g", (int)m, n, error, exact);
        }
        for (size_t i = 0; i < (size_t)(ldy - N) * size_of(out); i++)
            ck_assert_int_eq(y[((size_t)(m * ldy) + N) * size_of(out) + i], 0x5a);
    }
    free(x);
    free(y);
    ganq_context_free(own);
}
END_TEST

START_TEST(threads_do_not_change_a_bit) {
    enum { M = 33 };
    static float x[M * K], y[3][M * N];
    for (int i = 0; i < M * K; i++)
        x[i] = sinf((float)i);
    for (int t = 0; t < 3; t++) {
        ganq_context *own = new_context(t + 1, NULL);
        const ganq_matrix mx = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x);
        ganq_matrix my = GANQ_MATRIX(GANQ_DTYPE_F32, M, N, y[t]);
        ck_ganq_ok(ganq_lut_gemm(own, layer, &mx, &my));
        ganq_context_free(own);
        ck_assert_mem_eq(y[0], y[t], sizeof y[0]);
    }
}
END_TEST

START_TEST(dense_products) {
    const int32_t dtype = dtypes[_i];
    float w[N * K], x[2 * K], y[2 * (N + 1)];
    for (int i = 0; i < N * K; i++)
        put(w, dtype, i, i % 7 - 3);
    for (int i = 0; i < 2 * K; i++)
        x[i] = (float)(i % 5 - 2);
    const ganq_matrix mx = GANQ_MATRIX(GANQ_DTYPE_F32, 2, K, x);
    ganq_matrix weight = GANQ_MATRIX(dtype, N, K, w), my = GANQ_MATRIX(GANQ_DTYPE_F32, 2, N, y);
    my.row_stride = N + 1;
    ck_ganq_ok(ganq_dense_gemm(ctx, &weight, &mx, &my));
    for (int m = 0; m < 2; m++)
        for (int n = 0; n < N; n++) { /* on coarse grids: exact */
            float sum = 0;
            for (int k = 0; k < K; k++)
                sum += x[m * K + k] * (float)((n * K + k) % 7 - 3) / 16;
            ck_assert(y[m * (N + 1) + n] == sum);
        }
    ck_ganq_fails(ganq_dense_gemm(NULL, &weight, &mx, &my), GANQ_ERR_INVALID_ARG, "ctx is NULL");
    ck_ganq_fails(ganq_dense_gemm(ctx, NULL, &mx, &my), GANQ_ERR_INVALID_ARG, "weight is NULL");
    my.cols = N - 1;
    ck_ganq_fails(ganq_dense_gemm(ctx, &weight, &mx, &my), GANQ_ERR_INVALID_ARG, "y: shape");
    my.cols = N;
    weight.cols = K - 1;
    ck_ganq_fails(ganq_dense_gemm(ctx, &weight, &mx, &my), GANQ_ERR_INVALID_ARG, "x: shape");
    weight.cols = K, weight.rows = N - 1, weight.row_stride = K + 1, my.cols = N - 1;
    ck_ganq_fails(ganq_dense_gemm(ctx, &weight, &mx, &my), GANQ_ERR_UNSUPPORTED, "row_stride");
}
END_TEST

START_TEST(products_refuse_what_does_not_fit) {
    float x[2 * K] = {0}, y[2 * N];
    uint8_t bytes[2 * K] = {0};
    double wide[2 * K] = {0};
    const ganq_matrix good_x = GANQ_MATRIX(GANQ_DTYPE_F32, 2, K, x),
                      good_y = GANQ_MATRIX(GANQ_DTYPE_F32, 2, N, y);
    ganq_matrix mx = good_x, my = good_y;
    ck_ganq_ok(ganq_lut_gemm(ctx, layer, &mx, &my));
    ck_ganq_fails(ganq_lut_gemm(NULL, layer, &mx, &my), GANQ_ERR_INVALID_ARG, "ctx is NULL");
    ck_ganq_fails(ganq_lut_gemm(ctx, NULL, &mx, &my), GANQ_ERR_INVALID_ARG, "layer is NULL");
    ck_ganq_fails(ganq_lut_gemm(ctx, layer, NULL, &my), GANQ_ERR_INVALID_ARG, "x is NULL");
    ck_ganq_fails(ganq_lut_gemm(ctx, layer, &mx, NULL), GANQ_ERR_INVALID_ARG, "y is NULL");
#define REFUSED(matrix, change, code, word)                                                        \
    do {                                                                                           \
        mx = good_x, my = good_y;                                                                  \
        matrix.change;                                                                             \
        ck_ganq_fails(ganq_lut_gemm(ctx, layer, &mx, &my), code, word);                            \
    } while (0)
    REFUSED(mx, struct_size = 0, GANQ_ERR_INVALID_ARG, "struct_size");
    REFUSED(mx, cols = K - 1, GANQ_ERR_INVALID_ARG, "x: shape [2,74], expected [-1,75]");
    REFUSED(my, cols = N + 1, GANQ_ERR_INVALID_ARG, "y: shape");
    REFUSED(my, rows = 1, GANQ_ERR_INVALID_ARG, "y: shape");
    REFUSED(mx, rows = 0, GANQ_ERR_INVALID_ARG, "x: shape");
    REFUSED(mx, rows = -5, GANQ_ERR_INVALID_ARG, "x: shape");
    REFUSED(mx, row_stride = K - 1, GANQ_ERR_INVALID_ARG, "row_stride");
    REFUSED(my, row_stride = INT64_MAX / 2, GANQ_ERR_INVALID_ARG, "overflows");
    REFUSED(mx, dtype = 77, GANQ_ERR_INVALID_ARG, "type");
    REFUSED(mx, dtype = 0, GANQ_ERR_INVALID_ARG, "type");
    REFUSED(mx, device = 1, GANQ_ERR_UNSUPPORTED, "device");
    REFUSED(my, device = 1, GANQ_ERR_UNSUPPORTED, "device");
    REFUSED(my, data = NULL, GANQ_ERR_INVALID_ARG, "data");
    REFUSED(my, reserved = 1, GANQ_ERR_UNSUPPORTED, "reserved");
    REFUSED(my, data = x, GANQ_ERR_INVALID_ARG, "overlap");
    REFUSED(my, data = x + 2 * K - 1, GANQ_ERR_INVALID_ARG, "overlap");
    REFUSED(mx, data = y + 1, GANQ_ERR_INVALID_ARG, "overlap");
    mx = good_x, my = good_y, mx.dtype = GANQ_DTYPE_U8, mx.data = bytes;
    ck_ganq_fails(ganq_lut_gemm(ctx, layer, &mx, &my), GANQ_ERR_INVALID_ARG, "U8");
    mx.dtype = GANQ_DTYPE_F64, mx.data = wide;
    ck_ganq_fails(ganq_lut_gemm(ctx, layer, &mx, &my), GANQ_ERR_INVALID_ARG, "F64");
}
END_TEST

/* Columns of one buffer, side by side, are no overlap. */
START_TEST(x_and_y_may_share_rows_of_a_buffer) {
    enum { M = 3, STRIDE = K + N };
    static float both[M * STRIDE], y[M * N];
    for (int i = 0; i < M * STRIDE; i++)
        both[i] = cosf((float)i);
    ganq_matrix mx = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, both),
                my = GANQ_MATRIX(GANQ_DTYPE_F32, M, N, y);
    mx.row_stride = STRIDE;
    ck_ganq_ok(ganq_lut_gemm(ctx, layer, &mx, &my));
    my.data = both + K;
    my.row_stride = STRIDE;
    ck_ganq_ok(ganq_lut_gemm(ctx, layer, &mx, &my));
    for (int m = 0; m < M; m++)
        ck_assert_mem_eq(both + m * STRIDE + K, y + m * N, N * sizeof *y);
    my.data = both + K - 1;
    ck_ganq_fails(ganq_lut_gemm(ctx, layer, &mx, &my), GANQ_ERR_INVALID_ARG, "overlap");
}
END_TEST

START_TEST(a_layer_gives_back_what_was_put_in) {
    static uint8_t codes[N * (K + 1)];
    static float lut[N * L];
    ganq_matrix mc = GANQ_MATRIX(GANQ_DTYPE_U8, N, K, codes),
                ml = GANQ_MATRIX(GANQ_DTYPE_F32, N, L, lut);
    mc.row_stride = K + 1;
    ck_ganq_ok(ganq_layer_export(layer, &mc, &ml));
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++)
            ck_assert(lut[n * L + codes[n * (K + 1) + k]] == src.lut[n * L + src.codes[n * K + k]]);
    ck_ganq_ok(ganq_layer_export(layer, NULL, NULL));
    for (int d = 0; d < 3; d++) {
        static char w[N * K * 4];
        ganq_matrix mw = GANQ_MATRIX(dtypes[d], N, K, w);
        ck_ganq_ok(ganq_layer_dequantize(ctx, layer, &mw));
        for (int n = 0; n < N; n++)
            for (int k = 0; k < K; k++) {
                const double exact = weight(&src, n, k);
                ck_assert(fabs(get(w, dtypes[d], n * K + k) - exact) <=
                          rounding(dtypes[d]) * fabs(exact));
            }
    }
    ganq_layer_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_layer_get_info(layer, &info));
    ck_assert(info.bits == BITS && info.rows == N && info.cols == K && info.outliers == OUTLIERS &&
              info.has_bias == 1);
    ck_assert_int_eq(info.lut_dtype, GANQ_DTYPE_F16); /* the tables are exact in F16 */
    /* codes 3 groups x 4 words, tables F16, CSR with F16 values, F32 bias */
    const int64_t weights = N * (3 * 4 * 4 + L * 2) + 4 * (N + 1) + OUTLIERS * (4 + 2);
    ck_assert_int_eq(info.stored_bytes, weights + 4 * N);
    ck_assert(fabs(info.bits_per_weight - (double)weights * 8 / (N * K)) < 1e-12);
    ganq_layer_report report = {.struct_size = sizeof report};
    ck_ganq_ok(ganq_layer_get_report(layer, &report));
    ck_assert(report.step_count == 0 && strcmp(report.note, "") == 0);
}
END_TEST

/* Codes are held once, and tables as they are stored. */
START_TEST(memory_is_what_the_file_has) {
    enum { ROWS = 256, COLS = 1024 };
    static uint8_t many[ROWS * COLS];
    static float tables[ROWS * 16], x[COLS], y[ROWS];
    const int bits = _i + 2, entries = 1 << bits;
    ganq_layer *large;
    for (int i = 0; i < ROWS * COLS; i++)
        many[i] = (uint8_t)(i * 7 / 3 % entries);
    for (int i = 0; i < ROWS * entries; i++)
        tables[i] = (float)(i % entries);
    const ganq_matrix mc = GANQ_MATRIX(GANQ_DTYPE_U8, ROWS, COLS, many);
    const ganq_matrix ml = GANQ_MATRIX(GANQ_DTYPE_F32, ROWS, entries, tables);
    const ganq_matrix mx = GANQ_MATRIX(GANQ_DTYPE_F32, 1, COLS, x);
    ganq_matrix my = GANQ_MATRIX(GANQ_DTYPE_F32, 1, ROWS, y);
    ck_ganq_ok(ganq_layer_import(ctx, bits, &mc, &ml, NULL, NULL, NULL, NULL, &large));
    ck_ganq_ok(ganq_lut_gemm(ctx, large, &mx, &my));
    ganq_layer_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_layer_get_info(large, &info));
    ck_assert_int_ge(info.resident_bytes, info.stored_bytes);
    ck_assert_msg((double)info.resident_bytes <= 1.01 * (double)info.stored_bytes,
                  "%d bits: %lld bytes in memory, %lld in a file", bits,
                  (long long)info.resident_bytes, (long long)info.stored_bytes);
    ganq_layer_free(large);
}
END_TEST

START_TEST(a_saved_layer_multiplies_to_the_same_bits) {
    enum { M = 11 };
    static float x[M * K], before[M * N], after[M * N];
    char dir[256], path[300];
    ganq_layer *loaded = NULL;
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/layer.safetensors", dir);
    for (int i = 0; i < M * K; i++)
        x[i] = sinf((float)i * 0.3f);
    const ganq_matrix mx = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x);
    ganq_matrix my = GANQ_MATRIX(GANQ_DTYPE_F32, M, N, before);
    ck_ganq_ok(ganq_lut_gemm(ctx, layer, &mx, &my));
    ck_ganq_ok(ganq_layer_save(layer, path, "block.0.up"));
    for (int named = 0; named < 2; named++) {
        ck_ganq_ok(ganq_layer_load(ctx, path, named ? "block.0.up" : NULL, &loaded));
        my.data = after;
        ck_ganq_ok(ganq_lut_gemm(ctx, loaded, &mx, &my));
        ck_assert_mem_eq(before, after, sizeof before);
        ganq_layer_free(loaded);
    }
    loaded = NULL;
    ck_ganq_fails(ganq_layer_load(ctx, path, "block.1.up", &loaded), GANQ_ERR_NOT_FOUND,
                  "block.1.up.qweight");
    ck_ganq_fails(ganq_layer_load(ctx, dir, NULL, &loaded), GANQ_ERR_IO, dir);
    ck_ganq_fails(ganq_layer_load(NULL, path, NULL, &loaded), GANQ_ERR_INVALID_ARG, "ctx");
    ck_ganq_fails(ganq_layer_load(ctx, NULL, NULL, &loaded), GANQ_ERR_INVALID_ARG, "path");
    ck_ganq_fails(ganq_layer_load(ctx, path, NULL, NULL), GANQ_ERR_INVALID_ARG, "out");
    ck_assert_ptr_null(loaded);
    ck_ganq_fails(ganq_layer_save(layer, path, NULL), GANQ_ERR_INVALID_ARG, "name");
    ck_ganq_fails(ganq_layer_save(layer, path, ""), GANQ_ERR_INVALID_ARG, "name");
    ck_ganq_fails(ganq_layer_save(layer, NULL, "x"), GANQ_ERR_INVALID_ARG, "path");
    ck_ganq_fails(ganq_layer_save(layer, "", "x"), GANQ_ERR_INVALID_ARG, "path is empty");
    ck_ganq_fails(ganq_layer_save(NULL, path, "x"), GANQ_ERR_INVALID_ARG, "layer");
    ck_ganq_fails(ganq_layer_save(layer, "/no/such/dir/x.safetensors", "x"), GANQ_ERR_NOT_FOUND,
                  "/no/such/dir");
    remove(path);
    ck_assert_int_eq(remove(dir), 0);
}
END_TEST

START_TEST(imports_refuse_what_does_not_fit) {
    ganq_layer *out = NULL;
    source s;
    fill(&s);
    const ganq_matrix good_codes = GANQ_MATRIX(GANQ_DTYPE_U8, N, K, s.codes),
                      good_lut = GANQ_MATRIX(GANQ_DTYPE_F32, N, L, s.lut);
    ganq_matrix codes = good_codes, lut = good_lut,
                bias = GANQ_MATRIX(GANQ_DTYPE_F32, 1, N + 1, s.lut);
#define IMPORT(b, rowptr)                                                                          \
    ganq_layer_import(ctx, b, &codes, &lut, NULL, rowptr, s.cols, s.vals, &out)
    s.codes[5 * K + 7] = 16;
    ck_ganq_fails(IMPORT(4, s.rowptr), GANQ_ERR_INVALID_ARG, "row 5, column 7 is 16");
    fill(&s);
    s.lut[3 * L + 9] = NAN;
    ck_ganq_fails(IMPORT(4, s.rowptr), GANQ_ERR_INVALID_ARG, "lut[3,9]");
    fill(&s);
    ck_ganq_fails(IMPORT(4, NULL), GANQ_ERR_INVALID_ARG, "together");
    ck_ganq_fails(IMPORT(5, s.rowptr), GANQ_ERR_UNSUPPORTED, "5 bits");
    ck_ganq_fails(IMPORT(-1, s.rowptr), GANQ_ERR_UNSUPPORTED, "bits");
    ck_ganq_fails(IMPORT(3, s.rowptr), GANQ_ERR_INVALID_ARG, "lut: shape [19,16], expected [19,8]");
    codes.dtype = GANQ_DTYPE_F32;
    ck_ganq_fails(IMPORT(4, s.rowptr), GANQ_ERR_INVALID_ARG, "codes");
    codes = good_codes, lut.dtype = GANQ_DTYPE_U8;
    ck_ganq_fails(IMPORT(4, s.rowptr), GANQ_ERR_INVALID_ARG, "lut");
    lut = good_lut;
    ck_ganq_fails(ganq_layer_import(ctx, 4, &codes, &lut, &bias, NULL, NULL, NULL, &out),
                  GANQ_ERR_INVALID_ARG, "bias");
    ck_ganq_fails(ganq_layer_import(ctx, 4, NULL, &lut, NULL, NULL, NULL, NULL, &out),
                  GANQ_ERR_INVALID_ARG, "codes");
    ck_ganq_fails(ganq_layer_import(ctx, 4, &codes, NULL, NULL, NULL, NULL, NULL, &out),
                  GANQ_ERR_INVALID_ARG, "lut");
    ck_ganq_fails(ganq_layer_import(NULL, 4, &codes, &lut, NULL, NULL, NULL, NULL, &out),
                  GANQ_ERR_INVALID_ARG, "ctx");
    ck_ganq_fails(ganq_layer_import(ctx, 4, &codes, &lut, NULL, NULL, NULL, NULL, NULL),
                  GANQ_ERR_INVALID_ARG, "out");
    ck_assert_ptr_null(out);
    /* tables that F16 does not hold exactly are kept as they are */
    s.lut[0] = 0.1f;
    ck_ganq_ok(IMPORT(4, s.rowptr));
    ganq_layer_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_layer_get_info(out, &info));
    ck_assert_int_eq(info.lut_dtype, GANQ_DTYPE_F32);
    ganq_layer_free(out);
}
END_TEST

START_TEST(getters_refuse_what_does_not_fit) {
    ganq_layer_info info = {.struct_size = 0};
    ganq_layer_report report = {.struct_size = 0};
    float w[N * K];
    ganq_matrix m = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w);
    ck_ganq_fails(ganq_layer_get_info(layer, &info), GANQ_ERR_INVALID_ARG, "struct_size");
    ck_ganq_fails(ganq_layer_get_info(layer, NULL), GANQ_ERR_INVALID_ARG, "NULL");
    ck_ganq_fails(ganq_layer_get_info(NULL, &info), GANQ_ERR_INVALID_ARG, "layer");
    ck_ganq_fails(ganq_layer_get_report(layer, &report), GANQ_ERR_INVALID_ARG, "struct_size");
    ck_ganq_fails(ganq_layer_get_report(NULL, &report), GANQ_ERR_INVALID_ARG, "layer");
    ck_ganq_fails(ganq_layer_dequantize(ctx, layer, NULL), GANQ_ERR_INVALID_ARG, "out");
    ck_ganq_fails(ganq_layer_dequantize(NULL, layer, &m), GANQ_ERR_INVALID_ARG, "ctx");
    ck_ganq_fails(ganq_layer_dequantize(ctx, NULL, &m), GANQ_ERR_INVALID_ARG, "layer");
    m.rows = N - 1;
    ck_ganq_fails(ganq_layer_dequantize(ctx, layer, &m), GANQ_ERR_INVALID_ARG, "shape");
    ck_ganq_fails(ganq_layer_export(layer, NULL, &m), GANQ_ERR_INVALID_ARG, "lut: shape");
    ck_ganq_fails(ganq_layer_export(layer, &m, NULL), GANQ_ERR_INVALID_ARG, "codes");
    ck_ganq_fails(ganq_layer_export(NULL, NULL, NULL), GANQ_ERR_INVALID_ARG, "layer");
    /* an older caller's shorter struct gets its part */
    ganq_layer_info old = {.struct_size = offsetof(ganq_layer_info, outliers), .outliers = -5};
    ck_ganq_ok(ganq_layer_get_info(layer, &old));
    ck_assert(old.cols == K && old.outliers == -5);
    ganq_quantize_options options;
    memset(&options, 0xff, sizeof options);
    ganq_quantize_options_init(&options, sizeof options);
    ck_assert(options.struct_size == sizeof options && options.bits == 0 && options.reserved == 0);
    ganq_quantize_options_init(NULL, sizeof options);
    ganq_layer_free(NULL);
}
END_TEST

/* Quantizing: the report agrees with the objective of the layer as it stands, and with plain
 * arithmetic for H = I. */
START_TEST(quantized_layers_report_their_error) {
    static float w[N * K], back[N * K];
    float bias[N];
    for (int i = 0; i < N * K; i++)
        w[i] = sinf((float)i * 1.7f) * 0.1f;
    for (int n = 0; n < N; n++)
        bias[n] = (float)n;
    ganq_matrix mw = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w),
                mb = GANQ_MATRIX(GANQ_DTYPE_F32, 1, N, bias);
    ganq_matrix out = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, back);
    ganq_quantize_options options;
    ganq_layer *made = NULL;
    ganq_quantize_options_init(&options, sizeof options);
    options.recipe = GANQ_RECIPE_RTN;
    options.bits = 3;
    ck_ganq_ok(ganq_layer_quantize(ctx, &mw, NULL, &mb, &options, &made));
    ganq_layer_report report = {.struct_size = sizeof report};
    ganq_layer_info info = {.struct_size = sizeof info};
    double error, norm, plain_error = 0, plain_norm = 0;
    ck_ganq_ok(ganq_layer_get_report(made, &report));
    ck_ganq_ok(ganq_layer_get_info(made, &info));
    ck_ganq_ok(ganq_layer_objective(ctx, made, &mw, NULL, &error, &norm));
    ck_ganq_ok(ganq_layer_dequantize(ctx, made, &out));
    for (int i = 0; i < N * K; i++) {
        plain_error += pow((double)w[i] - back[i], 2);
        plain_norm += pow(w[i], 2);
    }
    ck_assert_double_eq_tol(error, plain_error, 1e-9 * plain_norm);
    ck_assert_double_eq_tol(norm, plain_norm, 1e-9 * plain_norm);
    ck_assert_double_eq_tol(report.error, error, 1e-9 * norm);
    ck_assert_double_eq_tol(report.norm, norm, 1e-9 * norm);
    ck_assert(error > 0 && error < 0.05 * norm);
    ck_assert(info.bits == 3 && info.has_bias == 1 && report.recipe == GANQ_RECIPE_RTN);
    ganq_layer_free(made);
    made = NULL;
    w[4 * K + 2] = INFINITY;
    ck_ganq_fails(ganq_layer_quantize(ctx, &mw, NULL, NULL, &options, &made), GANQ_ERR_NUMERIC,
                  "row 4");
    ck_ganq_fails(ganq_layer_objective(ctx, layer, &mw, NULL, &error, NULL), GANQ_ERR_NUMERIC,
                  "row 4, column 2");
    mb.cols = N - 1;
    ck_ganq_fails(ganq_layer_quantize(ctx, &mw, NULL, &mb, NULL, &made), GANQ_ERR_INVALID_ARG,
                  "bias");
    ck_ganq_fails(ganq_layer_quantize(ctx, NULL, NULL, NULL, NULL, &made), GANQ_ERR_INVALID_ARG,
                  "weight");
    ck_ganq_fails(ganq_layer_quantize(NULL, &mw, NULL, NULL, NULL, &made), GANQ_ERR_INVALID_ARG,
                  "ctx");
    ck_ganq_fails(ganq_layer_quantize(ctx, &mw, NULL, NULL, NULL, NULL), GANQ_ERR_INVALID_ARG,
                  "out");
    w[4 * K + 2] = 0;
    options.bits = 5;
    ck_ganq_fails(ganq_layer_quantize(ctx, &mw, NULL, NULL, &options, &made), GANQ_ERR_UNSUPPORTED,
                  "5");
    ganq_hessian *hessian;
    ck_ganq_ok(ganq_hessian_create(ctx, K + 1, &hessian));
    options.bits = 4;
    ck_ganq_fails(ganq_layer_quantize(ctx, &mw, hessian, NULL, &options, &made),
                  GANQ_ERR_INVALID_ARG, "Hessian");
    ck_ganq_fails(ganq_layer_objective(ctx, layer, &mw, hessian, &error, NULL),
                  GANQ_ERR_INVALID_ARG, "Hessian");
    ganq_hessian_free(hessian);
    ck_assert_ptr_null(made);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("layer api");
    TCase *tests = tcase_create("layer api");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, products_in_all_types, 0, 108);
    tcase_add_test(tests, threads_do_not_change_a_bit);
    tcase_add_loop_test(tests, dense_products, 0, 3);
    tcase_add_test(tests, products_refuse_what_does_not_fit);
    tcase_add_test(tests, x_and_y_may_share_rows_of_a_buffer);
    tcase_add_test(tests, a_layer_gives_back_what_was_put_in);
    tcase_add_loop_test(tests, memory_is_what_the_file_has, 0, 3);
    tcase_add_test(tests, a_saved_layer_multiplies_to_the_same_bits);
    tcase_add_test(tests, imports_refuse_what_does_not_fit);
    tcase_add_test(tests, getters_refuse_what_does_not_fit);
    tcase_add_test(tests, quantized_layers_report_their_error);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
