/* dense_products.c - gemm, linear and syrk of every instruction set against float64 loops, and
 * their promise of bits that depend neither on threads nor on the number or place of rows. */
#include <math.h>

#include "dense_util.h"
#include "half.h"

/* Error of a sum relative to the sum of its terms' absolute values. f32 sums of up to 5000 terms
 * stay well below; one term left out of 300 does not. */
static const double bound = 1e-6;

typedef struct shape {
    int64_t M, N, K;
} shape;

/* Sizes around the tiles (6 rows, 16 columns), the blocks of K (256), the blocks of rows (384), and
 * what is larger than one chunk (K > 4096; rows * K > 2^22). */
static const shape shapes[] = {{1, 1, 1},     {1, 7, 3},     {2, 16, 8},    {5, 17, 33},
                               {6, 16, 256},  {7, 15, 257},  {13, 64, 129}, {12, 33, 40},
                               {1, 100, 513}, {50, 70, 65},  {390, 19, 9},  {3, 5, 4500},
                               {5000, 3, 1},  {800, 2, 4097}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static const float untouched = 12345;

typedef struct gemm_case {
    shape s;
    int transposed;
    float alpha, beta;
    int64_t lda, ldb, ldc;
    float *a, *b, *c;
} gemm_case;

static gemm_case make_gemm(shape s, int transposed, float alpha, float beta) {
    gemm_case g = {.s = s, .transposed = transposed, .alpha = alpha, .beta = beta};
    g.lda = s.K + 3;
    g.ldb = (transposed ? s.K : s.N) + 5;
    g.ldc = s.N + 2;
    g.a = random_floats(s.M * g.lda);
    g.b = random_floats((transposed ? s.N : s.K) * g.ldb);
    g.c = random_floats(s.M * g.ldc);
    for (int64_t m = 0; m < s.M; m++)
        for (int64_t n = s.N; n < g.ldc; n++)
            g.c[m * g.ldc + n] = untouched;
    return g;
}

static void free_gemm(gemm_case *g) {
    free(g->a);
    free(g->b);
    free(g->c);
}

static void run_gemm(ganq_context *ctx, const gemm_case *g, float *c) {
    ck_ganq_ok(ctx->dense->gemm(ctx, g->s.M, g->s.N, g->s.K, g->alpha, g->a, g->lda, g->b, g->ldb,
                                g->transposed, g->beta, c, g->ldc));
}

static void check_gemm(const gemm_case *g, const float *c, const char *isa) {
    for (int64_t m = 0; m < g->s.M; m++)
        for (int64_t n = 0; n < g->ldc; n++) {
            float found = c[m * g->ldc + n];
            if (n >= g->s.N) {
                if (found != untouched)
                    ck_abort_msg("%s: wrote behind row %lld", isa, (long long)m);
                continue;
            }
            double sum = 0, size = 0;
            for (int64_t k = 0; k < g->s.K; k++) {
                double term = (double)g->a[m * g->lda + k] *
                              (g->transposed ? g->b[n * g->ldb + k] : g->b[k * g->ldb + n]);
                sum += term;
                size += fabs(term);
            }
            double start = g->beta == 0 ? 0 : (double)g->beta * g->c[m * g->ldc + n];
            double expected = g->alpha * sum + start,
                   allowed = bound * (fabs(g->alpha) * size + fabs(start));
            if (!(fabs(found - expected) <= allowed))
                ck_abort_msg(
                    "%s [%lld,%lld,%lld]%s alpha %g beta %g: C[%lld,%lld] is %.9g, expected %.9g",
                    isa, (long long)g->s.M, (long long)g->s.N, (long long)g->s.K,
                    g->transposed ? "^T" : "", (double)g->alpha, (double)g->beta, (long long)m,
                    (long long)n, (double)found, expected);
        }
}

START_TEST(gemm_matches_float64) {
    static const float factors[][2] = {{1, 0}, {1, 1}, {-1, 1}, {0.5f, -2}};
    for (int isa = 0; isa < ISAS; isa++) {
        ganq_context *ctx = open_context(isas[isa], 2);
        for (int i = 0; ctx && i < SHAPES * 4 * 2; i++) {
            const float *f = factors[i / 2 % 4];
            shape s = shapes[i / 8];
            if (s.M * s.N * s.K > 1000000 && i / 2 % 4 != 3)
                continue;
            gemm_case g = make_gemm(s, i % 2, f[0], f[1]);
            float *c = copy_floats(g.c, s.M * g.ldc);
            run_gemm(ctx, &g, c);
            check_gemm(&g, c, isas[isa]);
            free(c);
            free_gemm(&g);
        }
        if (ctx)
            close_context(ctx);
    }
}
END_TEST

START_TEST(gemm_beta_zero_ignores_nan_and_k_zero_scales) {
    for (int isa = 0; isa < ISAS; isa++) {
        ganq_context *ctx = open_context(isas[isa], 1);
        for (int64_t M = 1; ctx && M <= 8; M += 7)
            for (int transposed = 0; transposed < 2; transposed++) {
                gemm_case g = make_gemm((shape){M, 19, 5}, transposed, 1, 0);
                float *c = copy_floats(g.c, M * g.ldc);
                for (int64_t m = 0; m < M; m++)
                    for (int64_t n = 0; n < 19; n++)
                        c[m * g.ldc + n] = NAN;
                run_gemm(ctx, &g, c);
                check_gemm(&g, c, isas[isa]);
                g.s.K = 0;
                g.beta = 3;
                memcpy(c, g.c, (size_t)(M * g.ldc) * sizeof *c);
                run_gemm(ctx, &g, c);
                for (int64_t m = 0; m < M; m++)
                    for (int64_t n = 0; n < g.ldc; n++)
                        ck_assert(c[m * g.ldc + n] ==
                                  (n < 19 ? 3 * g.c[m * g.ldc + n] : untouched));
                g.beta = 0;
                run_gemm(ctx, &g, c);
                for (int64_t n = 0; n < 19; n++)
                    ck_assert(c[n] == 0);
                free(c);
                free_gemm(&g);
            }
        if (ctx)
            close_context(ctx);
    }
}
END_TEST

START_TEST(gemm_bits_do_not_depend_on_threads_or_rows) {
    for (int isa = 0; isa < ISAS; isa++)
        for (int i = 0; i < SHAPES * 2; i++) {
            shape s = shapes[i / 2];
            gemm_case g = make_gemm(s, i % 2, 0.75f, 1.5f);
            float *first = NULL;
            for (int threads = 1; threads <= 3; threads++) {
                ganq_context *ctx = open_context(isas[isa], threads);
                if (!ctx)
                    break;
                float *c = copy_floats(g.c, s.M * g.ldc);
                run_gemm(ctx, &g, c);
                if (first)
                    ck_assert_mem_eq(first, c, (size_t)(s.M * g.ldc) * sizeof *c);
                else
                    first = copy_floats(c, s.M * g.ldc);
                /* some rows alone, and a run of rows from an odd place */
                for (int64_t m = 0; threads == 2 && m < s.M; m += 1 + s.M / 4) {
                    gemm_case part = g;
                    part.a += m * g.lda;
                    for (part.s.M = 1; part.s.M <= s.M - m && part.s.M < 30; part.s.M += 7) {
                        memcpy(c, g.c + m * g.ldc, (size_t)(part.s.M * g.ldc) * sizeof *c);
                        run_gemm(ctx, &part, c);
                        ck_assert_mem_eq(first + m * g.ldc, c,
                                         (size_t)(part.s.M * g.ldc) * sizeof *c);
                    }
                }
                free(c);
                close_context(ctx);
            }
            free(first);
            free_gemm(&g);
        }
}
END_TEST

/* W as a file holds it: 1 byte off any alignment. */
static char *stored(const float *w, int64_t count, int32_t dtype) {
    char *bytes = malloc((size_t)count * 4 + 1);
    ck_assert_ptr_nonnull(bytes);
    for (int64_t i = 0; i < count; i++) {
        uint16_t half = dtype == GANQ_DTYPE_F16 ? ganq__f32_to_f16(w[i]) : ganq__f32_to_bf16(w[i]);
        if (dtype == GANQ_DTYPE_F32)
            memcpy(bytes + 1 + 4 * i, &w[i], 4);
        else
            memcpy(bytes + 1 + 2 * i, &half, 2);
    }
    return bytes;
}

static float value_of(const char *bytes, int64_t i, int32_t dtype) {
    uint16_t half;
    float value;
    if (dtype == GANQ_DTYPE_F32) {
        memcpy(&value, bytes + 4 * i, 4);
        return value;
    }
    memcpy(&half, bytes + 2 * i, 2);
    return dtype == GANQ_DTYPE_F16 ? ganq__f16_to_f32(half) : ganq__bf16_to_f32(half);
}

static void check_linear(ganq_context *ctx, shape s, int32_t dtype, int with_bias,
                         const char *isa) {
    int64_t ldx = s.K + 1, ldy = s.N + 3;
    float *x = random_floats(s.M * ldx), *w = random_floats(s.N * s.K), *bias = random_floats(s.N);
    float *y = random_floats(s.M * ldy), *one = random_floats(ldy);
    char *bytes = stored(w, s.N * s.K, dtype);
    for (int64_t m = 0; m < s.M; m++)
        for (int64_t n = 0; n < ldy; n++)
            y[m * ldy + n] = n < s.N ? NAN : untouched;
    ck_ganq_ok(ctx->dense->linear(ctx, s.M, s.N, s.K, x, ldx, bytes + 1, dtype,
                                  with_bias ? bias : NULL, y, ldy));
    for (int64_t m = 0; m < s.M; m++) {
        for (int64_t n = 0; n < s.N; n++) {
            double sum = with_bias ? bias[n] : 0, size = fabs(sum);
            for (int64_t k = 0; k < s.K; k++) {
                double term = (double)x[m * ldx + k] * value_of(bytes + 1, n * s.K + k, dtype);
                sum += term;
                size += fabs(term);
            }
            if (!(fabs(y[m * ldy + n] - sum) <= bound * size))
                ck_abort_msg("%s dtype %d [%lld,%lld,%lld]: Y[%lld,%lld] is %.9g, expected %.9g",
                             isa, dtype, (long long)s.M, (long long)s.N, (long long)s.K,
                             (long long)m, (long long)n, (double)y[m * ldy + n], sum);
        }
        for (int64_t n = s.N; n < ldy; n++)
            ck_assert(y[m * ldy + n] == untouched);
        if (m % (1 + s.M / 8) == 0) { /* a step gives the bits of the prefill */
            ck_ganq_ok(ctx->dense->linear(ctx, 1, s.N, s.K, x + m * ldx, ldx, bytes + 1, dtype,
                                          with_bias ? bias : NULL, one, ldy));
            ck_assert_mem_eq(one, y + m * ldy, (size_t)s.N * sizeof *one);
        }
    }
    free(x);
    free(w);
    free(bias);
    free(y);
    free(one);
    free(bytes);
}

START_TEST(linear_matches_float64_and_step_equals_prefill) {
    for (int isa = 0; isa < ISAS; isa++)
        for (int threads = 1; threads <= 3; threads += 2) {
            ganq_context *ctx = open_context(isas[isa], threads);
            if (!ctx)
                continue;
            for (int i = 0; i < SHAPES - 1; i++)
                for (int32_t dtype = GANQ_DTYPE_F32; dtype <= GANQ_DTYPE_BF16; dtype++)
                    check_linear(ctx, shapes[i], dtype, i % 2, isas[isa]);
            check_linear(ctx, (shape){100, 40, 300}, GANQ_DTYPE_F16, 1, isas[isa]);
            close_context(ctx);
        }
}
END_TEST

START_TEST(linear_bits_do_not_depend_on_threads) {
    for (int isa = 0; isa < ISAS; isa++)
        for (int64_t M = 1; M <= 40; M += 13) {
            int64_t N = 333, K = 600;
            float *x = random_floats(M * K), *w = random_floats(N * K);
            float *y1 = random_floats(M * N), *y = random_floats(M * N);
            for (int threads = 1; threads <= 3; threads++) {
                ganq_context *ctx = open_context(isas[isa], threads);
                if (!ctx)
                    continue;
                ck_ganq_ok(ctx->dense->linear(ctx, M, N, K, x, K, w, GANQ_DTYPE_F32, NULL,
                                              threads == 1 ? y1 : y, N));
                if (threads > 1)
                    ck_assert_mem_eq(y1, y, (size_t)(M * N) * sizeof *y);
                close_context(ctx);
            }
            free(x);
            free(w);
            free(y1);
            free(y);
        }
}
END_TEST

/* H of a symmetric start; M tokens in two calls of the given sizes. */
static float *sum_hessian(ganq_context *ctx, int64_t M, int64_t cut, int64_t K, const float *x,
                          int64_t ldx, const float *start) {
    float *h = copy_floats(start, K * K);
    if (cut)
        ck_ganq_ok(ctx->dense->syrk(ctx, cut, K, x, ldx, h));
    ck_ganq_ok(ctx->dense->syrk(ctx, M - cut, K, x + cut * ldx, ldx, h));
    return h;
}

START_TEST(syrk_matches_float64) {
    static const struct {
        int64_t M, K;
    } cases[] = {{1, 1},    {3, 7},    {2, 130}, {33, 17}, {256, 16},
                 {257, 65}, {40, 200}, {9, 401}, {4200, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t M = cases[i].M, K = cases[i].K, ldx = K + 2;
        float *x = random_floats(M * ldx), *start = random_floats(K * K);
        for (int64_t r = 0; r < K; r++)
            for (int64_t c = 0; c < r; c++)
                start[r * K + c] = start[c * K + r];
        for (int isa = 0; isa < ISAS; isa++) {
            float *first = NULL;
            for (int threads = 1; threads <= 3; threads++) {
                ganq_context *ctx = open_context(isas[isa], threads);
                if (!ctx)
                    break;
                float *h = sum_hessian(ctx, M, 0, K, x, ldx, start);
                if (first)
                    ck_assert_mem_eq(first, h, (size_t)(K * K) * sizeof *h);
                else
                    first = copy_floats(h, K * K);
                free(h);
                close_context(ctx);
            }
            for (int64_t r = 0; first && r < K; r++)
                for (int64_t c = 0; c < K; c++) {
                    double sum = start[r * K + c], size = fabs(sum);
                    for (int64_t m = 0; m < M; m++) {
                        double term = (double)x[m * ldx + r] * x[m * ldx + c];
                        sum += term;
                        size += fabs(term);
                    }
                    if (!(fabs(first[r * K + c] - sum) <= bound * size))
                        ck_abort_msg("%s [%lld,%lld]: H[%lld,%lld] is %.9g, expected %.9g",
                                     isas[isa], (long long)M, (long long)K, (long long)r,
                                     (long long)c, (double)first[r * K + c], sum);
                    if (memcmp(&first[r * K + c], &first[c * K + r], sizeof *first) != 0)
                        ck_abort_msg("%s [%lld,%lld]: H is not symmetric", isas[isa], (long long)M,
                                     (long long)K);
                }
            free(first);
        }
        free(x);
        free(start);
    }
}
END_TEST

/* Tokens are summed in blocks of 256, so that a cut there changes nothing. */
START_TEST(syrk_cut_at_a_block_gives_the_same_bits) {
    int64_t M = 600, K = 50;
    for (int isa = 0; isa < ISAS; isa++) {
        ganq_context *ctx = open_context(isas[isa], 2);
        if (!ctx)
            continue;
        float *x = random_floats(M * K), *start = calloc((size_t)(K * K), sizeof *start);
        ck_assert_ptr_nonnull(start);
        float *whole = sum_hessian(ctx, M, 0, K, x, K, start),
              *cut = sum_hessian(ctx, M, 512, K, x, K, start);
        ck_assert_mem_eq(whole, cut, (size_t)(K * K) * sizeof *cut);
        free(x);
        free(start);
        free(whole);
        free(cut);
        close_context(ctx);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dense_products");
    TCase *tests = tcase_create("dense_products");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, gemm_matches_float64);
    tcase_add_test(tests, gemm_beta_zero_ignores_nan_and_k_zero_scales);
    tcase_add_test(tests, gemm_bits_do_not_depend_on_threads_or_rows);
    tcase_add_test(tests, linear_matches_float64_and_step_equals_prefill);
    tcase_add_test(tests, linear_bits_do_not_depend_on_threads);
    tcase_add_test(tests, syrk_matches_float64);
    tcase_add_test(tests, syrk_cut_at_a_block_gives_the_same_bits);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
