/* test_compensate.c - the corrected weights against their definition in float64. */
#include <math.h>

#include "check_util.h"
#include "compensate.h"
#include "ganq/ganq.h"

enum { M = 300, K = 37, N = 5, CHUNK = 64 };
static float x[M * K], z[M * K], w[N * K], moved[N * K];
static ganq_context *ctx;
static ganq_hessian *hessian;

static uint32_t state = 1;
static float noise(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 8388608.0f - 1.0f;
}

/* z is x through a linear map near the identity, and a little noise. */
static void setup(void) {
    ck_ganq_ok(ganq_context_create(NULL, &ctx));
    ck_ganq_ok(ganq__hessian_create(K, &hessian));
    for (int i = 0; i < M * K; i++)
        x[i] = noise();
    for (int m = 0; m < M; m++)
        for (int k = 0; k < K; k++)
            z[m * K + k] = 0.9f * x[m * K + k] + 0.2f * x[m * K + (k + 1) % K] + 0.01f * noise();
    for (int i = 0; i < N * K; i++)
        w[i] = noise();
}

static void teardown(void) {
    ganq__hessian_free(hessian);
    ganq_context_free(ctx);
}

static void correct(const float *dense) {
    ganq__compensation c;
    ck_ganq_ok(ganq__compensation_open(K, CHUNK, &c));
    for (int first = 0; first < M; first += CHUNK) {
        int count = M - first < CHUNK ? M - first : CHUNK;
        ck_ganq_ok(ganq__hessian_add(ctx, hessian, count, z + first * K, K, "z"));
        ck_ganq_ok(
            ganq__compensation_add(ctx, &c, count, dense + first * K, K, z + first * K, K, "z", 0));
    }
    ck_ganq_ok(ganq__compensation_solve(ctx, &c, hessian, 0.75f));
    ck_ganq_ok(ganq__compensation_apply(ctx, &c, N, w, moved));
    ganq__compensation_close(&c);
}

/* || x w^T - z v^T ||^2 over all rows of w and v */
static double output_error(const float *v) {
    double sum = 0;
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            double d = 0;
            for (int k = 0; k < K; k++)
                d += (double)x[m * K + k] * w[n * K + k] - (double)z[m * K + k] * v[n * K + k];
            sum += d * d;
        }
    return sum;
}

START_TEST(nears_the_dense_outputs) {
    correct(x);
    /* Three quarters of the way to a nearly exact fit leave about a sixteenth of the error. */
    double before = output_error(w), after = output_error(moved);
    ck_assert_double_lt(after, 0.12 * before);
    ck_assert_double_gt(after, 0);
}
END_TEST

START_TEST(equal_inputs_change_nothing) {
    correct(z);
    ck_assert_mem_eq(moved, w, sizeof w);
}
END_TEST

START_TEST(dead_inputs_change_nothing) {
    memset(z, 0, sizeof z);
    correct(x);
    ck_assert_mem_eq(moved, w, sizeof w);
}
END_TEST

START_TEST(names_a_nan) {
    ganq__compensation c;
    ck_ganq_ok(ganq__compensation_open(K, CHUNK, &c));
    x[3 * K + 5] = NAN;
    ck_ganq_fails(ganq__compensation_add(ctx, &c, CHUNK, x, K, z, K, "the inputs", 0),
                  GANQ_ERR_NUMERIC, "row 3, column 5");
    ganq__compensation_close(&c);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("compensate");
    TCase *tests = tcase_create("compensate");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, nears_the_dense_outputs);
    tcase_add_test(tests, equal_inputs_change_nothing);
    tcase_add_test(tests, dead_inputs_change_nothing);
    tcase_add_test(tests, names_a_nan);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
