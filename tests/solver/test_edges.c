/* Edge cases are the rule: every recipe and width over layers that a checkpoint may well hold. */
#include "solver_util.h"

typedef struct edge_case {
    const char *name;
    int64_t N, K, tokens;
    void (*change)(layer *l);
} edge_case;

static void keep(layer *l) {
    (void)l;
}
static void dead_inputs(layer *l) {
    for (int64_t d = 0; d < l->K; d += 3)
        for (int64_t k = 0; k < l->K; k++)
            l->h[d * l->K + k] = l->h[k * l->K + d] = 0;
}
static void one_live_input(layer *l) {
    for (int64_t i = 0; i < l->K * l->K; i++)
        if (i != 5 * l->K + 5)
            l->h[i] = 0;
}
static void zero_hessian(layer *l) {
    memset(l->h, 0, (size_t)(l->K * l->K) * sizeof(float));
}
static void diagonal_hessian(layer *l) {
    for (int64_t i = 0; i < l->K; i++)
        for (int64_t k = 0; k < l->K; k++)
            if (i != k)
                l->h[i * l->K + k] = 0;
}
static void constant_rows(layer *l) {
    for (int64_t n = 0; n < l->N; n++)
        for (int64_t k = 0; k < l->K; k++)
            l->w[n * l->K + k] = n % 2 ? 0 : 0.37f;
}
static void quarter_rows(layer *l) { /* each row constant */
    for (int64_t i = 0; i < l->N * l->K; i++)
        l->w[i] = (float)(i / l->K) * 0.25f - 0.5f;
}
static void few_values(layer *l) {
    for (int64_t i = 0; i < l->N * l->K; i++)
        l->w[i] = (float)(i * 7 % 3) * 0.5f - 0.25f;
}
static void duplicates(layer *l) {
    for (int64_t i = 0; i < l->N * l->K; i++)
        l->w[i] = roundf(l->w[i] * 40) / 40;
}
static void huge_outliers(layer *l) {
    for (int64_t n = 0; n < l->N; n++)
        l->w[n * l->K + n % l->K] = n % 2 ? 9e3f : -1e4f;
}
static void beyond_f16(layer *l) {
    l->w[0] = 3e6f;
}
static void tiny_weights(layer *l) {
    for (int64_t i = 0; i < l->N * l->K; i++)
        l->w[i] *= 1e-30f;
}
static void large_hessian(layer *l) {
    for (int64_t i = 0; i < l->K * l->K; i++)
        l->h[i] *= 1e28f;
}
static void small_hessian(layer *l) {
    for (int64_t i = 0; i < l->K * l->K; i++)
        l->h[i] *= 1e-28f;
}
static void massive_input(layer *l) { /* one input 10^4 times the others */
    for (int64_t k = 0; k < l->K; k++) {
        l->h[3 * l->K + k] *= 1e4f;
        l->h[k * l->K + 3] *= 1e4f;
    }
}
static void ill_conditioned(layer *l) { /* inputs of size 1e-4 to 1e4: H_kk over 16 decades */
    for (int64_t i = 0; i < l->K; i++)
        for (int64_t k = 0; k < l->K; k++)
            l->h[i * l->K + k] *=
                powf(10, (float)(i * 13 % l->K + k * 13 % l->K) * 8 / (float)l->K - 8);
}
static void equal_inputs(layer *l) {
    for (int64_t i = 0; i < l->K * l->K; i++)
        l->h[i] = 1;
}

static const edge_case cases[] = {
    {"plain", 17, 45, 200, keep},
    {"K = 1", 5, 1, 10, keep},
    {"N = 1", 1, 33, 100, keep},
    {"K = 16", 3, 16, 60, keep},
    {"K = 3, fewer columns than entries", 4, 3, 20, keep},
    {"rank 5 of 40", 12, 40, 5, keep},
    {"rank 1", 6, 30, 1, keep},
    {"rank 108 of 300", 4, 300, 108, keep},
    {"K over a chunk", 6, 300, 350, keep},
    {"dead inputs", 9, 40, 100, dead_inputs},
    {"one live input", 5, 20, 60, one_live_input},
    {"zero H", 9, 40, 100, zero_hessian},
    {"diagonal H", 9, 40, 100, diagonal_hessian},
    {"constant rows", 6, 40, 100, constant_rows},
    {"three values", 6, 40, 100, few_values},
    {"duplicates", 9, 64, 100, duplicates},
    {"huge outliers", 9, 40, 100, huge_outliers},
    {"a weight beyond F16", 4, 40, 100, beyond_f16},
    {"tiny weights", 6, 40, 100, tiny_weights},
    {"large H", 6, 40, 100, large_hessian},
    {"small H", 6, 40, 100, small_hessian},
    {"a massive input", 6, 40, 100, massive_input},
    {"ill-conditioned", 8, 64, 200, ill_conditioned},
    {"ill-conditioned, rank 24 of 64", 8, 64, 24, ill_conditioned},
    {"equal inputs", 6, 24, 10, equal_inputs},
};

START_TEST(test_edge) {
    const edge_case *c = &cases[_i];
    ganq_context *ctx = open_context(2);
    layer l = make_layer(c->N, c->K, c->tokens, (uint32_t)_i + 1);
    c->change(&l);
    for (int with_h = 0; with_h < 2; with_h++)
        for (int bits = 2; bits <= 4; bits++) {
            double rtn = 0;
            for (size_t r = 0; r < 5; r++) {
                ganq__solution s = solve(ctx, &l, with_h ? l.h : NULL, bits, all_recipes[r]);
                if (r == 0)
                    rtn = s.error;
                else if (all_recipes[r] != GANQ_RECIPE_PAPER)
                    ck_assert_msg(s.error <= rtn * (1 + 1e-12), "%s: %g, round-to-nearest has %g",
                                  c->name, s.error, rtn);
                ganq__solution_free(&s);
                ganq_quantize_options o = make_options(bits, all_recipes[r]);
                o.outlier_ratio = 0.05f;
                ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, with_h ? l.h : NULL, 0, &o, &s));
                check_solution(ctx, &l, with_h ? l.h : NULL, &s);
                if (r >= 2)
                    ck_assert_msg(s.error <= rtn * (1 + 1e-12),
                                  "%s, outliers: %g, round-to-nearest without has %g", c->name,
                                  s.error, rtn);
                ganq__solution_free(&s);
            }
        }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

/* Far fewer tokens than inputs, at a real layer's size. */
START_TEST(test_wide_low_rank) {
    ganq_context *ctx = open_context(2);
    layer l = make_layer(2, 1536, 550, 11);
    double rtn = 0;
    for (size_t r = 0; r < 5; r++) {
        ganq__solution s = solve(ctx, &l, l.h, 3, all_recipes[r]); /* checks it, in float64 */
        if (r == 0)
            rtn = s.error;
        ck_assert_double_le(s.error, rtn);
        ganq__solution_free(&s);
    }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

/* Rows that a table can hold exactly come out exact: the values here are F16 values. */
START_TEST(test_exact_rows) {
    static void (*const changes[])(layer * l) = {few_values, quarter_rows};
    ganq_context *ctx = open_context(1);
    for (int c = 0; c < 2; c++) {
        layer l = make_layer(6, 40, c ? 15 : 100, 2);
        changes[c](&l);
        for (int with_h = 0; with_h < 2; with_h++)
            for (int bits = 2; bits <= 4; bits++)
                for (size_t r = 2; r < 5; r++) { /* ours */
                    ganq__solution s = solve(ctx, &l, with_h ? l.h : NULL, bits, all_recipes[r]);
                    ck_assert_double_eq(s.error, 0);
                    ganq__solution_free(&s);
                }
        free_layer(&l);
    }
    close_context(ctx);
}
END_TEST

/* With a diagonal H, and for round-to-nearest with any, no code is farther from its weight than another entry would be: also
 * where the tables' rounding to F16 is coarse, weights far from 0. */
START_TEST(test_nearest_codes) {
    ganq_context *ctx = open_context(2);
    layer l = make_layer(12, 96, 200, 5);
    for (int64_t i = 0; i < l.N * l.K; i++)
        l.w[i] = 5 + 0.02f * l.w[i];
    for (int with_h = 0; with_h < 2; with_h++)
        for (size_t r = 0; r < 5; r++) {
            if (all_recipes[r] == GANQ_RECIPE_PAPER || (with_h && all_recipes[r] != GANQ_RECIPE_RTN))
                continue;
            ganq__solution s = solve(ctx, &l, with_h ? l.h : NULL, 4, all_recipes[r]);
            for (int64_t i = 0; i < l.N * l.K; i++) {
                const float *lut = s.lut + 16 * (i / l.K);
                for (int e = 0; e < 16; e++)
                    ck_assert(fabsf(l.w[i] - lut[s.codes[i]]) <= fabsf(l.w[i] - lut[e]));
            }
            ganq__solution_free(&s);
        }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

/* Outliers far beyond the table, and in rows too small for F16, keep what they are, or are fitted near it. */
START_TEST(test_outlier_types) {
    ganq_context *ctx = open_context(2);
    for (int tiny = 0; tiny < 2; tiny++)
        for (size_t r = 1; r < 5; r++) {
            layer l = make_layer(8, 64, 200, 6);
            for (int64_t i = 0; i < l.N * l.K; i++)
                l.w[i] *= tiny ? 1e-8f : 0.02f;
            for (int64_t n = 0; n < l.N; n++)
                l.w[n * l.K + 5] = tiny ? 3e-7f : 300.1f;
            ganq_quantize_options o = make_options(4, all_recipes[r]);
            o.outlier_ratio = 0.05f;
            const int is_fitted = o.recipe != GANQ_RECIPE_PAPER && o.recipe != GANQ_RECIPE_RTN;
            ganq__solution s = {0};
            ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
            check_solution(ctx, &l, l.h, &s);
            float *w = dequantize(&s);
            for (int64_t n = 0; n < l.N; n++) {
                float largest = 0;
                for (int e = 0; e < 16; e++)
                    largest = fmaxf(largest, fabsf(s.lut[16 * n + e]));
                for (int32_t i = s.outlier_rowptr[n]; i < s.outlier_rowptr[n + 1]; i++) {
                    const int64_t at = n * l.K + s.outlier_cols[i];
                    const float near = is_fitted ? 0.5f : 0x1p-7f;
                    ck_assert_msg(fabsf(w[at] - l.w[at]) <= near * largest + 2e-7f * fabsf(l.w[at]), "%.9g for %.9g", w[at], l.w[at]);
                }
                if (all_recipes[r] == GANQ_RECIPE_PAPER) /* takes out the extremes */
                    ck_assert(fabsf(w[n * l.K + 5] - l.w[n * l.K + 5]) <= 2e-7f * fabsf(l.w[n * l.K + 5]));
            }
            free(w);
            ganq__solution_free(&s);
            free_layer(&l);
        }
    close_context(ctx);
}
END_TEST

/* What is no number is not reported as no error. */
START_TEST(test_objective_of_nan) {
    ganq_context *ctx = open_context(1);
    static const float w[2] = {1, 1}, quantized[2] = {INFINITY, 1}, h[4] = {1, 0, 0, 1};
    double error, norm;
    ck_ganq_ok(ganq__objective(ctx, 1, 2, w, quantized, h, &error, &norm));
    ck_assert(!(error < INFINITY));
    ck_assert_double_eq(norm, 2);
    close_context(ctx);
}
END_TEST

/* The ends of float: an H whose scale is beyond it, weights next to its largest number. */
START_TEST(test_ends_of_float) {
    ganq_context *ctx = open_context(1);
    layer l = make_layer(6, 32, 10, 7);
    double E = 0;
    for (int i = 0; i < 2; i++) {
        for (int64_t j = 0; i && j < l.K * l.K; j++)
            l.h[j] = (float)(l.h[j] * 1e-41);
        ganq__solution s = {0};
        const ganq_quantize_options o = make_options(4, GANQ_RECIPE_FAST);
        ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
        if (i)
            ck_assert_double_le(s.error / s.norm, 2 * E + 1e-4);
        E = s.error / s.norm;
        ganq__solution_free(&s);
    }
    free_layer(&l);
    for (uint32_t seed = 0; seed < 40; seed++) {
        l = make_layer(4, 7, 1, seed);
        for (int64_t i = 0; i < l.N * l.K; i++)
            l.w[i] = l.w[i] > 0.5f ? 3.4e38f : l.w[i] < -0.5f ? -3.4e38f : l.w[i] > 0 ? 1 : 0;
        ganq__solution s = {0};
        const ganq_quantize_options o = make_options(2, GANQ_RECIPE_DEFAULT);
        ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
        for (int64_t i = 0; i < 4 * l.N; i++)
            ck_assert(isfinite(s.lut[i]));
        ganq__solution_free(&s);
        free_layer(&l);
    }
    l = make_layer(5, 64, 200, 8); /* an outlier at one end, the rest at the other */
    for (int64_t i = 0; i < l.N * l.K; i++)
        l.w[i] = i % l.K ? -3e38f * (1 - 0.1f * fabsf(sinf((float)i))) : 3.3e38f;
    for (size_t r = 0; r < 5; r++) {
        ganq_quantize_options o = make_options(2, all_recipes[r]);
        o.outlier_ratio = 0.02f;
        ganq__solution s = {0};
        ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
        for (int32_t i = 0; i < s.outlier_rowptr[l.N]; i++)
            ck_assert(isfinite(s.outlier_vals[i]));
        ganq__solution_free(&s);
    }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

START_TEST(test_table_types) {
    ganq_context *ctx = open_context(1);
    layer l = make_layer(4, 40, 100, 8);
    ganq__solution s = solve(ctx, &l, l.h, 4, GANQ_RECIPE_DEFAULT);
    ck_assert_int_eq(s.lut_dtype, GANQ_DTYPE_F16);
    ganq__solution_free(&s);
    beyond_f16(&l);
    for (size_t r = 0; r < 5; r++) {
        s = solve(ctx, &l, l.h, 4, all_recipes[r]);
        ck_assert_int_eq(s.lut_dtype, GANQ_DTYPE_F32);
        ganq__solution_free(&s);
    }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

/* Dead inputs have no effect, and their weights the nearest entries; the note counts them. */
START_TEST(test_dead_inputs) {
    ganq_context *ctx = open_context(1);
    layer l = make_layer(5, 30, 90, 12);
    dead_inputs(&l);
    ganq__solution a = solve(ctx, &l, l.h, 3, GANQ_RECIPE_DEFAULT);
    ck_assert_ptr_nonnull(strstr(a.note, "10 dead inputs"));
    for (int64_t n = 0; n < l.N; n++)
        for (int64_t k = 0; k < l.K; k += 3) {
            const float *lut = a.lut + 8 * n, x = l.w[n * l.K + k];
            for (int s = 0; s < 8; s++)
                ck_assert(fabsf(x - lut[a.codes[n * l.K + k]]) <= fabsf(x - lut[s]));
        }
    ganq__solution_free(&a);
    free_layer(&l);
    close_context(ctx);
}
END_TEST

START_TEST(test_bad_numbers) {
    ganq_context *ctx = open_context(1);
    layer l = make_layer(5, 12, 40, 3);
    ganq_quantize_options o = make_options(4, 0);
    ganq__solution s = {0};
    l.w[3 * 12 + 7] = NAN;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_NUMERIC,
                  "row 3, column 7");
    l.w[3 * 12 + 7] = -INFINITY;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, NULL, 0, &o, &s), GANQ_ERR_NUMERIC,
                  "row 3, column 7");
    l.w[3 * 12 + 7] = 0;
    l.h[2 * 12 + 5] = NAN;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_NUMERIC,
                  "row 2, column 5");
    l.h[2 * 12 + 5] = 0;
    l.h[4 * 12 + 4] = -1;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_NUMERIC, "diagonal at 4");
    l.h[4 * 12 + 4] = 0;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_NUMERIC, "diagonal at 4");
    ck_assert_ptr_null(s.codes);
    free_layer(&l);
    close_context(ctx);
}
END_TEST

/* No X^T X, but finite and with a positive diagonal: damping grows until it can be factored, and
 * the note says so. */
START_TEST(test_indefinite) {
    ganq_context *ctx = open_context(1);
    layer l = make_layer(5, 20, 40, 3);
    for (int64_t i = 0; i < 20; i++)
        for (int64_t k = 0; k < 20; k++)
            l.h[i * 20 + k] = i == k ? 1 : -0.5f;
    ganq_quantize_options o = make_options(4, 0);
    ganq__solution s = {0};
    ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
    ck_assert_double_ge(s.damping, 1);
    ck_assert_ptr_nonnull(strstr(s.note, "damping raised"));
    ganq__solution_free(&s);
    free_layer(&l);
    close_context(ctx);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("solver edges");
    TCase *tests = tcase_create("edges");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, test_edge, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tests, test_wide_low_rank);
    tcase_add_test(tests, test_exact_rows);
    tcase_add_test(tests, test_nearest_codes);
    tcase_add_test(tests, test_outlier_types);
    tcase_add_test(tests, test_objective_of_nan);
    tcase_add_test(tests, test_ends_of_float);
    tcase_add_test(tests, test_table_types);
    tcase_add_test(tests, test_dead_inputs);
    tcase_add_test(tests, test_bad_numbers);
    tcase_add_test(tests, test_indefinite);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
