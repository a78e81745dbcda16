/* test_layer.c - layers in memory: sorting, refusals, storage types of the tables, dequantization.
 */
#include <math.h>

#include "alloc.h"
#include "check_util.h"
#include "layer.h"

enum { N = 3, K = 37, L = 8, BITS = 3 };

typedef struct source {
    uint8_t codes[N * K];
    float lut[N * L];
    int32_t rowptr[N + 1], cols[4];
    float vals[4], bias[N];
} source;

static source make_source(void) {
    source s = {.rowptr = {0, 2, 2, 3},
                .cols = {0, 36, 5},
                .vals = {0.5f, -1.0f, 0.25f},
                .bias = {1, -2, 3}};
    for (int i = 0; i < N * K; i++)
        s.codes[i] = (uint8_t)(i * 5 % L);
    for (int i = 0; i < N * L; i++)
        s.lut[i] = (float)((i * 7 + 3) % 11) / 8 - 0.5f; /* not sorted, exact in F16 */
    return s;
}

static ganq_status create(const source *s, ganq_layer **out) {
    return ganq__layer_create(BITS, N, K, s->codes, s->lut, GANQ_DTYPE_F16, s->rowptr, s->cols,
                              s->vals, s->bias, GANQ_DTYPE_F32, out);
}

static float expected_weight(const source *s, int n, int k) {
    float w = s->lut[n * L + s->codes[n * K + k]];
    for (int32_t i = s->rowptr[n]; i < s->rowptr[n + 1]; i++)
        if (s->cols[i] == k)
            w += s->vals[i];
    return w;
}

START_TEST(tables_are_sorted_and_codes_follow) {
    const source s = make_source();
    ganq_layer *layer;
    float w[N * K];
    uint8_t codes[K];
    ck_ganq_ok(create(&s, &layer));
    ganq__layer_dequantize_rows(layer, 0, N, w, K);
    for (int n = 0; n < N; n++) {
        float table[L];
        ganq__layer_codes_row(layer, n, codes);
        ganq__layer_table(layer, n, table);
        for (int i = 1; i < L; i++)
            ck_assert(table[i - 1] <= table[i]);
        for (int k = 0; k < K; k++) {
            ck_assert(w[n * K + k] == expected_weight(&s, n, k));
            ck_assert(table[codes[k]] == s.lut[n * L + s.codes[n * K + k]]);
        }
    }
    ck_assert_int_eq(layer->lut_dtype, GANQ_DTYPE_F16);
    ck_assert_int_eq(layer->outlier_dtype, GANQ_DTYPE_F16);
    /* 2 groups x 3 words x 4 bytes + 8 F16, per row; CSR; F32 bias */
    ck_assert_int_eq(ganq__layer_stored_bytes(layer),
                     N * (24 + 16) + 4 * (N + 1) + 3 * (4 + 2) + 4 * N);
    ganq__layer_release(layer);
}
END_TEST

START_TEST(a_layer_lives_as_long_as_somebody_holds_it) {
    const source s = make_source();
    ganq_layer *layer;
    ck_ganq_ok(create(&s, &layer));
    ganq_layer *second = ganq__layer_retain(layer);
    ganq__layer_release(layer);
    float w[K];
    ganq__layer_dequantize_rows(second, 1, 1, w, K);
    ck_assert(w[0] == expected_weight(&s, 1, 0));
    ganq__layer_release(second);
    ganq__layer_release(NULL);
}
END_TEST

START_TEST(refusals_say_where) {
    ganq_layer *layer = NULL;
    source s = make_source();
    s.codes[1 * K + 35] = 8;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG,
                  "row 1, column 35 is 8, expected 0 to 7");
    s = make_source();
    s.codes[2 * K + 4] = 255;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "row 2, column 4 is 255");
    s = make_source();
    s.lut[2 * L + 3] = NAN;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "lut[2,3]");
    s = make_source();
    s.lut[5] = -INFINITY;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "lut[0,5]");
    s = make_source();
    s.bias[1] = INFINITY;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "bias[1]");
    s = make_source();
    s.rowptr[0] = 1;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "outlier_rowptr[0]");
    s = make_source();
    s.rowptr[2] = 1;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "outlier_rowptr[2] is 1 after 2");
    s = make_source();
    s.rowptr[3] = 1000;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "outlier_rowptr[3]");
    s = make_source();
    s.cols[1] = 0; /* again */
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG,
                  "outlier_cols[1] is 0 in row 0, expected 1 to 36");
    s = make_source();
    s.cols[1] = K;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "outlier_cols[1] is 37 in row 0");
    s = make_source();
    s.cols[2] = -1;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "outlier_cols[2] is -1 in row 2");
    s = make_source();
    s.vals[2] = NAN;
    ck_ganq_fails(create(&s, &layer), GANQ_ERR_INVALID_ARG, "outlier_vals[2] at row 2, column 5");
    s = make_source();
    ck_ganq_fails(ganq__layer_create(BITS, N, K, s.codes, s.lut, GANQ_DTYPE_F16, s.rowptr, s.cols,
                                     NULL, NULL, GANQ_DTYPE_F32, &layer),
                  GANQ_ERR_INVALID_ARG, "together");
    ck_ganq_fails(ganq__layer_create(5, N, K, s.codes, s.lut, GANQ_DTYPE_F16, NULL, NULL, NULL,
                                     NULL, GANQ_DTYPE_F32, &layer),
                  GANQ_ERR_UNSUPPORTED, "5 bits");
    ck_ganq_fails(ganq__layer_create(BITS, 0, K, s.codes, s.lut, GANQ_DTYPE_F16, NULL, NULL, NULL,
                                     NULL, GANQ_DTYPE_F32, &layer),
                  GANQ_ERR_INVALID_ARG, "0 x 37");
    ck_assert_ptr_null(layer);
}
END_TEST

/* One row of 2 bits with these entries. */
static ganq_layer *one_row(float a, float b, float c, float d, int32_t dtype) {
    const uint8_t codes[4] = {0, 1, 2, 3};
    const float lut[4] = {a, b, c, d};
    ganq_layer *layer;
    ck_ganq_ok(ganq__layer_create(2, 1, 4, codes, lut, dtype, NULL, NULL, NULL, NULL,
                                  GANQ_DTYPE_F32, &layer));
    return layer;
}

static float entry(const ganq_layer *layer, int s) {
    float table[4];
    ganq__layer_table(layer, 0, table);
    return table[s];
}

START_TEST(tables_become_f32_only_where_f16_cannot_hold_them) {
    ganq_layer *layer = one_row(-0.02f, -0.007f, 1e-6f, 0.0123f, GANQ_DTYPE_F16);
    ck_assert_int_eq(layer->lut_dtype,
                     GANQ_DTYPE_F16); /* the small entry does not matter beside the others */
    ck_assert(entry(layer, 0) != -0.02f && fabsf(entry(layer, 0) + 0.02f) < 0.02f * 0x1p-10f);
    ganq__layer_release(layer);
    layer = one_row(-0.02f, -0.007f, 1e-6f, 0.0123f, GANQ_DTYPE_F32);
    ck_assert_int_eq(layer->lut_dtype, GANQ_DTYPE_F32);
    ck_assert(entry(layer, 0) == -0.02f);
    ganq__layer_release(layer);
    layer = one_row(-1, 0, 1, 70000, GANQ_DTYPE_F16); /* beyond F16's largest */
    ck_assert_int_eq(layer->lut_dtype, GANQ_DTYPE_F32);
    ck_assert(entry(layer, 3) == 70000);
    ganq__layer_release(layer);
    layer = one_row(-3e-7f, 0, 1e-7f, 4e-7f,
                    GANQ_DTYPE_F16); /* all of the row is among F16's subnormals */
    ck_assert_int_eq(layer->lut_dtype, GANQ_DTYPE_F32);
    ganq__layer_release(layer);
    layer = one_row(0, 0, 0, 0, GANQ_DTYPE_F16);
    ck_assert_int_eq(layer->lut_dtype, GANQ_DTYPE_F16);
    ganq__layer_release(layer);
}
END_TEST

START_TEST(outliers_become_f32_where_f16_is_not_exact) {
    source s = make_source();
    ganq_layer *layer;
    s.vals[1] = 100000;
    ck_ganq_ok(create(&s, &layer));
    ck_assert_int_eq(layer->outlier_dtype, GANQ_DTYPE_F32);
    ganq__layer_release(layer);
}
END_TEST

START_TEST(reports_are_kept) {
    const source s = make_source();
    ganq_layer *layer;
    ganq_step steps[2] = {{GANQ_STEP_START, 0, 4.0}, {GANQ_STEP_TABLES, 1, 2.0}};
    ganq_layer_report report = {
        .struct_size = sizeof report, .error = 2, .norm = 8, .step_count = 2, .steps = steps};
    ck_ganq_ok(create(&s, &layer));
    ck_assert_str_eq(layer->report.note, "");
    ck_ganq_ok(ganq__layer_set_report(layer, &report));
    ck_assert_str_eq(layer->report.note, "");
    report.note = "offset added";
    ck_ganq_ok(ganq__layer_set_report(layer, &report));
    steps[1].error = 0;
    ck_assert(layer->report.steps[1].error == 2.0 && layer->report.steps != steps);
    ck_assert_str_eq(layer->report.note, "offset added");
    ganq__layer_release(layer);
}
END_TEST

START_TEST(every_failed_allocation_is_survived) {
    const source s = make_source();
    int64_t fail = 1;
    for (;; fail++) {
        ganq_layer *layer = NULL;
        ganq__alloc_fail_after(fail);
        const ganq_status status = create(&s, &layer);
        ganq__alloc_fail_after(0);
        if (status == GANQ_OK) {
            ganq__layer_release(layer);
            break;
        }
        ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
        ck_assert_ptr_null(layer);
    }
    ck_assert_int_gt(fail, 7);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("layer");
    TCase *tests = tcase_create("layer");
    tcase_add_test(tests, tables_are_sorted_and_codes_follow);
    tcase_add_test(tests, a_layer_lives_as_long_as_somebody_holds_it);
    tcase_add_test(tests, refusals_say_where);
    tcase_add_test(tests, tables_become_f32_only_where_f16_cannot_hold_them);
    tcase_add_test(tests, outliers_become_f32_where_f16_is_not_exact);
    tcase_add_test(tests, reports_are_kept);
    tcase_add_test(tests, every_failed_allocation_is_survived);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
