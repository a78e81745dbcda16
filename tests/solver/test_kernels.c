/* The inner loops of every instruction set against the reference's definition. */
#include "solver_util.h"

static const int64_t sizes[] = {1, 7, 16, 31, 64, 200, 256, 300, 530, 1100};
enum { TRIALS = 13 };

typedef struct inputs {
    int64_t K, ld;
    int levels;
    ganq__panels square, lower;
    float *inverse, *diagonal, *w, *g;
    ganq__trial_table tables[TRIALS];
    uint8_t *codes;
    double *exact;
} inputs;

static float *zeros(int64_t count) {
    float *x = aligned_alloc(64, (size_t)((count + 15) / 16 * 16) * sizeof(float));
    ck_assert_ptr_nonnull(x);
    memset(x, 0, (size_t)count * sizeof(float));
    return x;
}

static void *make_scratch(int64_t ld, int64_t trials) {
    return zeros(ganq__solver_scratch(ld, trials) / (int64_t)sizeof(float));
}

static inputs make_inputs(int64_t K, int levels) {
    inputs in = {.K = K, .ld = ganq__panel_ld(K), .levels = levels};
    uint32_t state = (uint32_t)K * 31 + (uint32_t)levels;
    in.square = (ganq__panels){K, in.ld, 0, zeros(ganq__panels_size(K, 0))};
    in.lower = (ganq__panels){K, in.ld, 1, zeros(ganq__panels_size(K, 1))};
    in.inverse = zeros(in.ld);
    in.diagonal = zeros(in.ld);
    in.w = zeros(TRIALS * in.ld);
    in.g = zeros(TRIALS * in.ld);
    in.codes = calloc(TRIALS * (size_t)in.ld, 1);
    in.exact = calloc(TRIALS * (size_t)in.ld, sizeof(double));
    for (int64_t u = 0; u < K; u++)
        for (int64_t j = 0; j <= u; j++) {
            const float x = random_float(&state) + (u == j ? 4 : 0);
            in.lower.data[ganq__panel_origin(&in.lower, j / 16) + 16 * u + j % 16] = x;
            in.square.data[ganq__panel_origin(&in.square, j / 16) + 16 * u + j % 16] = x;
            in.square.data[ganq__panel_origin(&in.square, u / 16) + 16 * j + u % 16] = x;
            if (u == j) {
                in.diagonal[u] = x;
                in.inverse[u] = 1 / x;
            }
        }
    for (int64_t i = 0; i < TRIALS; i++) {
        for (int s = 0; s < GANQ__LEVELS; s++) {
            const int t = s < levels ? s : levels - 1;
            in.tables[i].value[s] = (float)t / (float)levels - 0.5f + 0.01f * (float)(i * t % 5);
        }
        for (int s = 0; s < GANQ__LEVELS; s++)
            in.tables[i].middle[s] =
                s + 1 < levels ? (in.tables[i].value[s] + in.tables[i].value[s + 1]) / 2 : INFINITY;
        for (int64_t k = 0; k < K; k++) {
            in.w[i * in.ld + k] = random_float(&state);
            in.exact[i * in.ld + k] = random_float(&state);
            in.codes[i * in.ld + k] = i % 4 == 3 && k % 9 == 4   ? GANQ__EXACT
                                      : i % 4 == 3 && k % 9 == 7 ? GANQ__FREE
                                                                 : (uint8_t)((uint32_t)(k * 5 + i) % (uint32_t)levels);
        }
    }
    return in;
}
static void free_inputs(inputs *in) {
    free(in->square.data);
    free(in->lower.data);
    free(in->inverse);
    free(in->diagonal);
    free(in->w);
    free(in->g);
    free(in->codes);
    free(in->exact);
}

static void check_close(const float *a, const float *b, int64_t count, float scale) {
    for (int64_t i = 0; i < count; i++)
        ck_assert_msg(fabsf(a[i] - b[i]) <= 2e-6f * scale, "%lld: %g, expected %g", (long long)i,
                      (double)a[i], (double)b[i]);
}

static void check_ops(const ganq__solver_ops *ops, int64_t K, int levels) {
    inputs in = make_inputs(K, levels);
    const ganq__solver_ops *ref = &ganq__solver_ops_ref;
    const int64_t all = TRIALS * in.ld;
    const float scale = 8 * (float)(K + 4);
    float *e[2], *r[2], gram[2][TRIALS * 256], slope[2][TRIALS * 16];
    uint8_t *codes[2];
    double energy[2][TRIALS], change[2][TRIALS] = {{0}};
    int64_t moves[2][TRIALS];
    const ganq__solver_ops *both[2] = {ref, ops};
    void *scratch = make_scratch(in.ld, TRIALS);
    for (int o = 0; o < 2; o++) {
        e[o] = zeros(all);
        r[o] = zeros(all);
        codes[o] = malloc((size_t)all);
        memcpy(codes[o], in.codes, (size_t)all);
        both[o]->assign(&in.lower, in.inverse, TRIALS, in.w, in.tables, codes[o], e[o], r[o],
                        scratch);
        for (int64_t i = 0; i < all; i++)
            if (ganq__has_code(in.codes[i])) {
                ck_assert(ganq__has_code(codes[o][i]));
            } else {
                ck_assert_int_eq(codes[o][i], in.codes[i]);
                if (in.codes[i] == GANQ__EXACT)
                    ck_assert(e[o][i] == 0);
                else
                    ck_assert_float_le(fabsf(r[o][i]), 2e-6f * scale);
            }
    }
    /* Another rounding may flip a code that lies half-way; with these numbers none does. */
    ck_assert_mem_eq(codes[0], codes[1], (size_t)all);
    check_close(e[1], e[0], all, scale); /* as r, where a column is free */
    check_close(r[1], r[0], all, scale);
    for (int o = 0; o < 2; o++)
        both[o]->gram(&in.lower, levels, TRIALS, codes[0], r[0], gram[o], slope[o], scratch);
    for (int64_t i = 0; i < TRIALS; i++)
        for (int s = 0; s < levels; s++) {
            check_close(&gram[1][256 * i + 16 * s], &gram[0][256 * i + 16 * s], levels,
                        scale * scale);
            check_close(&slope[1][16 * i + s], &slope[0][16 * i + s], 1, scale * scale);
        }
    for (int o = 0; o < 2; o++) {
        both[o]->product(&in.square, TRIALS, e[0], r[o], scratch);
        both[o]->energy(&in.square, TRIALS, in.exact, energy[o], scratch);
    }
    check_close(r[1], r[0], all, scale);
    for (int i = 0; i < TRIALS; i++)
        ck_assert_double_le(fabs(energy[0][i] - energy[1][i]), 1e-12 * (double)(K * K + 4));
    for (int o = 0; o < 2; o++) {
        memcpy(codes[o], codes[0], (size_t)all);
        memcpy(e[o], e[0], (size_t)all * sizeof(float));
        both[o]->product(&in.square, TRIALS, e[o], r[o], scratch);
    }
    for (int o = 0; o < 2; o++)
        both[o]->sweep(&in.square, in.diagonal, in.inverse, TRIALS, in.w, in.tables, codes[o], e[o],
                       r[o], change[o], moves[o]);
    ck_assert_mem_eq(codes[0], codes[1], (size_t)all);
    check_close(r[1], r[0], all, scale);
    for (int i = 0; i < TRIALS; i++) {
        ck_assert_int_eq(moves[0][i], moves[1][i]);
        ck_assert_double_le(change[1][i], 0);
        ck_assert_double_le(fabs(change[0][i] - change[1][i]), 1e-4 * (1 + fabs(change[0][i])));
    }

    /* One trial alone gives the bits that it gives in a batch. */
    float *e1 = zeros(in.ld), *r1 = zeros(in.ld);
    uint8_t *codes1 = malloc((size_t)in.ld);
    for (int64_t i = 0; i < TRIALS; i += 4) {
        memcpy(codes[1], in.codes, (size_t)all);
        memcpy(codes1, in.codes + i * in.ld, (size_t)in.ld);
        ops->assign(&in.lower, in.inverse, TRIALS, in.w, in.tables, codes[1], e[1], r[1],
                    scratch);
        ops->assign(&in.lower, in.inverse, 1, in.w + i * in.ld, in.tables + i, codes1, e1, r1,
                    scratch);
        ck_assert_mem_eq(r1, r[1] + i * in.ld, (size_t)K * sizeof(float));
        ck_assert_mem_eq(codes1, codes[1] + i * in.ld, (size_t)K);
        ops->product(&in.square, TRIALS, e[1], r[1], scratch);
        ops->product(&in.square, 1, e1, r1, scratch);
        ck_assert_mem_eq(r1, r[1] + i * in.ld, (size_t)K * sizeof(float));
        ops->energy(&in.square, 1, in.exact + i * in.ld, &energy[0][i], scratch);
        ck_assert(energy[0][i] == energy[1][i]);
        double change1 = 0;
        int64_t moves1;
        change[1][i] = 0;
        ops->sweep(&in.square, in.diagonal, in.inverse, TRIALS, in.w, in.tables, codes[1], e[1],
                   r[1], change[1], moves[1]);
        ops->sweep(&in.square, in.diagonal, in.inverse, 1, in.w + i * in.ld, in.tables + i, codes1,
                   e1, r1, &change1, &moves1);
        ck_assert(change1 == change[1][i] && moves1 == moves[1][i]);
        ck_assert_mem_eq(r1, r[1] + i * in.ld, (size_t)K * sizeof(float));
    }
    free(scratch);
    free(e1);
    free(r1);
    free(codes1);
    for (int o = 0; o < 2; o++) {
        free(e[o]);
        free(r[o]);
        free(codes[o]);
    }
    free_inputs(&in);
}

static void check_downdate(const ganq__solver_ops *ops) {
    enum { ROWS = 11, DEPTH = 300, LDA = 304, LDC = 9 };
    static double a[ROWS * LDA], b[DEPTH * 8], c[2][ROWS * LDC];
    uint32_t state = 5;
    for (int i = 0; i < ROWS * LDA; i++)
        a[i] = random_float(&state);
    for (int i = 0; i < DEPTH * 8; i++)
        b[i] = random_float(&state);
    for (int i = 0; i < ROWS * LDC; i++)
        c[0][i] = c[1][i] = random_float(&state);
    ganq__solver_ops_ref.downdate(ROWS, DEPTH, a, LDA, b, c[0], LDC);
    ops->downdate(ROWS, DEPTH, a, LDA, b, c[1], LDC);
    for (int i = 0; i < ROWS * LDC; i++)
        ck_assert_double_le(fabs(c[0][i] - c[1][i]), 1e-12);
}

static const int all_levels[] = {4, 8, 16};
START_TEST(test_against_reference) {
    ganq_context *ctx = open_context(1);
    for (int l = 0; l < 3; l++)
        check_ops(ctx->solver, sizes[_i], all_levels[l]);
    check_downdate(ctx->solver);
    close_context(ctx);
}
END_TEST

/* S H S^T and S H e^T from the factor are those of H = L L^T itself. */
START_TEST(test_gram_identity) {
    const int64_t K = 75;
    inputs in = make_inputs(K, 8);
    static double h[75 * 75];
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j < K; j++) {
            h[i * K + j] = 0;
            for (int64_t u = 0; u <= i && u <= j; u++)
                h[i * K + j] +=
                    (double)in.lower.data[ganq__panel_origin(&in.lower, u / 16) + 16 * i + u % 16] *
                    (double)in.lower.data[ganq__panel_origin(&in.lower, u / 16) + 16 * j + u % 16];
        }
    float gram[256], slope[16], e[80] = {0}, r[80] = {0};
    uint8_t codes[80] = {0};
    ganq__solver_ops_ref.assign(&in.lower, in.inverse, 1, in.w, in.tables, codes, e, r, NULL);
    ganq__solver_ops_ref.gram(&in.lower, 8, 1, codes, r, gram, slope, NULL);
    double expected[8][8] = {{0}}, expected_slope[8] = {0};
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j < K; j++) {
            expected[codes[i]][codes[j]] += h[i * K + j];
            expected_slope[codes[i]] += h[i * K + j] * e[j];
        }
    for (int s = 0; s < 8; s++) {
        for (int t = 0; t < 8; t++)
            ck_assert_double_le(fabs(gram[16 * s + t] - expected[s][t]), 1e-3);
        ck_assert_double_le(fabs(slope[s] - expected_slope[s]), 1e-3);
    }
    free_inputs(&in);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("solver kernels");
    TCase *tests = tcase_create("kernels");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, test_against_reference, 0, sizeof sizes / sizeof sizes[0]);
    tcase_add_test(tests, test_gram_identity);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
