/* test_hessian.c - the calibration floor from inside: same bits for every type and thread count,
 * lack of memory. */
#include <math.h>
#include <unistd.h>

#include "alloc.h"
#include "cpu/dense_util.h"
#include "dtype.h"
#include "hessian.h"

static ganq_hessian *sum_of(ganq_context *ctx, const ganq_matrix *x) {
    ganq_hessian *h;
    ck_ganq_ok(ganq__hessian_create(x->cols, &h));
    ck_ganq_ok(ganq__hessian_add_matrix(ctx, h, x, "x"));
    return h;
}

static void check_same(const ganq_hessian *a, const ganq_hessian *b) {
    ck_assert_int_eq(a->tokens, b->tokens);
    ck_assert_mem_eq(a->values, b->values, (size_t)(a->K * a->K) * sizeof *a->values);
}

/* 16-bit rows are converted 2048 at a time, f32 rows are not: both sum alike. */
START_TEST(types_and_threads_give_the_same_bits) {
    enum { M = 2100, K = 19, STRIDE = 23 };
    float *exact = malloc(M * STRIDE * sizeof *exact);
    uint16_t *half = malloc(M * STRIDE * sizeof *half);
    ck_assert(exact && half);
    for (int i = 0; i < M * STRIDE; i++)
        exact[i] = (float)((int)(random_u32() >> 25) - 64) / 16; /* exact in f16 and bf16 */
    ganq_matrix x = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, exact);
    x.row_stride = STRIDE;
    for (int isa = 0; isa < ISAS; isa++) {
        ganq_hessian *first = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            ganq_context *ctx = open_context(isas[isa], threads);
            if (!ctx)
                break;
            ganq_hessian *h = sum_of(ctx, &x);
            ck_assert_int_eq(h->tokens, M);
            if (!first)
                first = sum_of(ctx, &x);
            check_same(first, h);
            ganq__hessian_free(h);
            for (int32_t dtype = GANQ_DTYPE_F16; dtype <= GANQ_DTYPE_BF16; dtype++) {
                ganq_matrix narrow = x;
                narrow.dtype = dtype;
                narrow.data = half;
                ganq__from_f32(half, exact, dtype, M * STRIDE);
                h = sum_of(ctx, &narrow);
                check_same(first, h);
                ganq__hessian_free(h);
            }
            close_context(ctx);
        }
        ganq__hessian_free(first);
    }
    free(exact);
    free(half);
}
END_TEST

START_TEST(nonfinite_rows_are_named) {
    enum { M = 5, K = 300 };
    ganq_context *ctx = open_context("ref", 1);
    float *x = random_floats(M * K);
    ganq_hessian *h;
    ck_ganq_ok(ganq__hessian_create(K, &h));
    ck_ganq_ok(ganq__hessian_add(ctx, h, M, x, K, "input of q_proj"));
    float *before = copy_floats(h->values, K * K);
    x[3 * K + 299] = NAN;
    ck_ganq_fails(ganq__hessian_add(ctx, h, M, x, K, "input of q_proj"), GANQ_ERR_NUMERIC,
                  "input of q_proj: row 3, column 299 is NaN");
    x[2 * K + 7] = -INFINITY;
    ck_ganq_fails(ganq__hessian_add(ctx, h, M, x, K, "input of q_proj"), GANQ_ERR_NUMERIC,
                  "row 2, column 7 is infinite");
    ck_assert_mem_eq(before, h->values, K * K * sizeof *before);
    ck_assert_int_eq(h->tokens, M);
    /* no rows: nothing happens */
    ck_ganq_ok(ganq__hessian_add(ctx, h, 0, x, K, "x"));
    ck_assert_mem_eq(before, h->values, K * K * sizeof *before);
    ganq__hessian_free(h);
    free(before);
    free(x);
    close_context(ctx);
}
END_TEST

/* Every allocation fails once: the call says NO_MEMORY, nothing leaks (the sanitized build sees
 * that), and H is whole. */
START_TEST(lack_of_memory) {
    enum { M = 40, K = 21 };
    char path[300];
    uint16_t x[M * K];
    for (int i = 0; i < M * K; i++)
        x[i] = 0x3c00; /* 1 in f16 */
    ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F16, M, K, x);
    matrix.row_stride = K;
    const char *dir = test_dir();
    snprintf(path, sizeof path, "%s/h.safetensors", dir);
    for (int isa = 0; isa < ISAS; isa++) {
        ganq_context *ctx = open_context(isas[isa], 2);
        if (!ctx)
            continue;
        int64_t failing = 0, made = 0;
        while (made >= failing) {
            ganq_hessian *h = NULL, *loaded = NULL;
            ganq__alloc_fail_after(++failing);
            ganq_status status = ganq__hessian_create(K, &h);
            if (status == GANQ_OK)
                status = ganq__hessian_add_matrix(ctx, h, &matrix, "x");
            if (h)
                ck_assert(h->values[0] == (float)h->tokens &&
                          h->values[K * K - 1] == (float)h->tokens);
            if (status == GANQ_OK)
                status = ganq__hessian_save(h, path);
            if (status == GANQ_OK)
                status = ganq__hessian_load(path, &loaded);
            made = ganq__alloc_count();
            ganq__alloc_fail_after(0);
            /* OK: none failed, or the pool went without a worker */
            ck_assert_msg(status == GANQ_OK || status == GANQ_ERR_NO_MEMORY, "allocation %lld: %s",
                          (long long)failing, ganq_last_error());
            if (status == GANQ_OK)
                check_same(h, loaded);
            ganq__hessian_free(h);
            ganq__hessian_free(loaded);
        }
        ck_assert_int_gt(failing, 10);
        close_context(ctx);
    }
    remove(path);
    rmdir(dir);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("calib_hessian");
    TCase *tests = tcase_create("calib_hessian");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, types_and_threads_give_the_same_bits);
    tcase_add_test(tests, nonfinite_rows_are_named);
    tcase_add_test(tests, lack_of_memory);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
