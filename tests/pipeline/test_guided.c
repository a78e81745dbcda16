/* test_guided.c - row weights: they scale what is reported, and leave the codes alone. */
#include <math.h>

#include "check_util.h"
#include "ganq/ganq.h"

enum { N = 20, K = 48, M = 300 };
static float w[N * K], x[M * K];
static ganq_context *ctx;
static ganq_hessian *hessian;

static uint32_t state = 3;
static float noise(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 8388608.0f - 1.0f;
}

static void setup(void) {
    ck_ganq_ok(ganq_context_create(NULL, &ctx));
    ck_ganq_ok(ganq_hessian_create(ctx, K, &hessian));
    for (int i = 0; i < N * K; i++)
        w[i] = noise();
    for (int i = 0; i < M * K; i++)
        x[i] = noise();
    ganq_matrix m = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x);
    ck_ganq_ok(ganq_hessian_add(ctx, hessian, &m));
}

static void teardown(void) {
    ganq_hessian_free(hessian);
    ganq_context_free(ctx);
}

/* Rows [first, first + rows) of w, with weights or none. */
static ganq_layer *quantize(int first, int rows, int32_t recipe, const ganq_matrix *weights,
                            ganq_layer_report *report) {
    ganq_matrix part = GANQ_MATRIX(GANQ_DTYPE_F32, rows, K, w + first * K);
    ganq_quantize_options options = {
        .struct_size = sizeof options, .bits = 3, .recipe = recipe, .row_weights = weights};
    ganq_layer *layer = NULL;
    ck_ganq_ok(ganq_layer_quantize(ctx, &part, hessian, NULL, &options, &layer));
    *report = (ganq_layer_report){.struct_size = sizeof *report};
    ck_ganq_ok(ganq_layer_get_report(layer, report));
    return layer;
}

START_TEST(scale_the_report_and_not_the_codes) {
    static const int32_t recipes[] = {GANQ_RECIPE_DEFAULT, GANQ_RECIPE_RTN, GANQ_RECIPE_FAST};
    uint16_t halves[N]; /* 2^(n % 5) as f16 */
    for (int n = 0; n < N; n++)
        halves[n] = (uint16_t)((15 + n % 5) << 10);
    ganq_matrix weights = GANQ_MATRIX(GANQ_DTYPE_F16, 1, N, halves);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        ganq_layer_report plain, weighted, row;
        ganq_layer *a = quantize(0, N, recipes[i], NULL, &plain);
        ganq_layer *b = quantize(0, N, recipes[i], &weights, &weighted);
        uint8_t codes[2][N * K];
        ganq_matrix out[2] = {GANQ_MATRIX(GANQ_DTYPE_U8, N, K, codes[0]),
                              GANQ_MATRIX(GANQ_DTYPE_U8, N, K, codes[1])};
        ck_ganq_ok(ganq_layer_export(a, &out[0], NULL));
        ck_ganq_ok(ganq_layer_export(b, &out[1], NULL));
        ck_assert_mem_eq(codes[0], codes[1], sizeof codes[0]);
        double error = 0, norm = 0;
        for (int n = 0; n < N; n++) {
            ganq_layer_free(quantize(n, 1, recipes[i], NULL, &row));
            error += ldexp(row.error, n % 5);
            norm += ldexp(row.norm, n % 5);
        }
        ck_assert_double_eq_tol(weighted.error, error, 1e-9 * error);
        ck_assert_double_eq_tol(weighted.norm, norm, 1e-9 * norm);
        ck_assert_double_gt(weighted.error, 1.5 * plain.error);
        ck_assert_double_eq(weighted.steps[weighted.step_count - 1].error, weighted.error);
        ganq_layer_free(a);
        ganq_layer_free(b);
    }
}
END_TEST

/* With the weight on one row alone, the paper's best iterate is the best for that row. */
START_TEST(choose_the_papers_iterate) {
    for (int n = 0; n < N; n++) {
        float only[N] = {0};
        ganq_matrix weights = GANQ_MATRIX(GANQ_DTYPE_F32, 1, N, only);
        ganq_layer_report alone, weighted;
        only[n] = 1;
        ganq_layer_free(quantize(n, 1, GANQ_RECIPE_PAPER, NULL, &alone));
        ganq_layer_free(quantize(0, N, GANQ_RECIPE_PAPER, &weights, &weighted));
        ck_assert_double_eq_tol(weighted.error, alone.error, 1e-9 * alone.error);
    }
}
END_TEST

START_TEST(are_checked) {
    static const float bad[] = {-1, NAN, INFINITY};
    float values[N];
    ganq_matrix weight = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w);
    ganq_matrix weights = GANQ_MATRIX(GANQ_DTYPE_F32, 1, N, values);
    ganq_quantize_options options = {.struct_size = sizeof options, .row_weights = &weights};
    ganq_layer *layer = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (int n = 0; n < N; n++)
            values[n] = n == 7 ? bad[i] : 1;
        ck_ganq_fails(ganq_layer_quantize(ctx, &weight, hessian, NULL, &options, &layer),
                      GANQ_ERR_INVALID_ARG, "row 7");
    }
    weights.cols = N - 1;
    ck_ganq_fails(ganq_layer_quantize(ctx, &weight, hessian, NULL, &options, &layer),
                  GANQ_ERR_INVALID_ARG, "row_weights");
    ck_assert_ptr_null(layer);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("guided");
    TCase *tests = tcase_create("guided");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, scale_the_report_and_not_the_codes);
    tcase_add_test(tests, choose_the_papers_iterate);
    tcase_add_test(tests, are_checked);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
