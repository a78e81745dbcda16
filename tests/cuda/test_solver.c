/* test_solver.c - the solver's phases on the (emulated) GPU against the CPU's, trial by trial. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "check_util.h"
#include "internal.h"
#include "emulator.h"
#include "solver_device.h"

typedef struct layer {
    int64_t N, K, tokens;
    float *w, *h;
} layer;

static uint64_t next_bits(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static double next_normal(uint64_t *state) {
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (double)(next_bits(state) >> 11) * 0x1p-53;
    return sum - 6;
}

/* Correlated inputs of different scales; input 3 is dead where dead is set. */
static layer make_layer(int64_t N, int64_t K, int64_t tokens, int dead) {
    layer l = {N, K, tokens, calloc((size_t)(N * K), sizeof(float)), calloc((size_t)(K * K), sizeof(float))};
    uint64_t random = 5;
    float *x = calloc((size_t)K, sizeof *x);
    for (int64_t i = 0; i < N * K; i++)
        l.w[i] = (float)(0.02 * next_normal(&random));
    for (int64_t t = 0; t < tokens; t++) {
        double value = 0;
        for (int64_t k = 0; k < K; k++) {
            value = 0.9 * value + 0.436 * next_normal(&random);
            x[k] = dead && k == 3 ? 0 : (float)(value * (k % 17 == 0 ? 8 : 1));
        }
        for (int64_t i = 0; i < K; i++)
            for (int64_t j = 0; j < K; j++)
                l.h[i * K + j] += x[i] * x[j];
    }
    free(x);
    return l;
}

static void free_layer(layer *l) {
    free(l->w);
    free(l->h);
}

static ganq_context *open_context(int32_t device) {
    ganq_context_options options = {.struct_size = sizeof options, .device = device, .threads = 2};
    ganq_context *ctx = NULL;
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    return ctx;
}


static ganq__solution solve_on(int32_t device, const layer *l, int bits, int32_t recipe, float outliers) {
    ganq_quantize_options options;
    ganq_quantize_options_init(&options, sizeof options);
    options.bits = bits;
    options.recipe = recipe;
    options.outlier_ratio = outliers;
    ganq_context *ctx = open_context(device);
    ganq__solution solution;
    ck_ganq_ok(ganq__solve(ctx, l->N, l->K, l->w, l->h, 0, &options, &solution));
    ganq_context_free(ctx);
    return solution;
}

/* E on the GPU within 1% of the CPU's, for every recipe. */
static void check_layer(const layer *l, int bits, int32_t recipe, float outliers) {
    ganq__solution cpu = solve_on(GANQ_DEVICE_CPU, l, bits, recipe, outliers);
    ganq__solution gpu = solve_on(GANQ_DEVICE_CUDA, l, bits, recipe, outliers);
    printf("bits %d recipe %d outliers %g: E %.9g on the CPU, %.9g on the GPU\n", bits, recipe,
           (double)outliers, cpu.error / cpu.norm, gpu.error / gpu.norm);
    ck_assert_msg(fabs(gpu.error - cpu.error) <= 0.01 * cpu.error, "%d bits, recipe %d: %g, on the CPU %g",
                  bits, recipe, gpu.error, cpu.error);
    ganq__solution_free(&cpu);
    ganq__solution_free(&gpu);
}

START_TEST(test_recipes) {
    layer l = make_layer(6, 90, 400, 1);
    for (int bits = 2; bits <= (_i == GANQ_RECIPE_BEST ? 2 : 4); bits++)
        check_layer(&l, bits, (int32_t)_i, 0);
    free_layer(&l);
}
END_TEST

/* The paper takes the iterate with the least error of the layer, which need not be the last. */
START_TEST(test_paper_iterates) {
    int early = 0;
    for (int i = 0; i < 12; i++) {
        layer l = make_layer(2 + i % 3, 40 + 10 * i, 60 + 40 * i, i % 2);
        ganq__solution solutions[2];
        for (int device = 0; device < 2; device++) {
            ganq_quantize_options options;
            ganq_quantize_options_init(&options, sizeof options);
            options.bits = 2 + i % 3;
            options.recipe = GANQ_RECIPE_PAPER;
            options.iterations = 4 + i;
            options.outlier_ratio = i % 4 == 3 ? 0.02f : 0;
            ganq_context *ctx = open_context(device ? GANQ_DEVICE_CUDA : GANQ_DEVICE_CPU);
            ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &options, &solutions[device]));
            ganq_context_free(ctx);
        }
        const ganq__solution *cpu = &solutions[0], *gpu = &solutions[1];
        int least = -1, last = -1;
        ck_assert_int_eq(cpu->step_count, gpu->step_count);
        for (int s = 0; s < gpu->step_count; s++) {
            ck_assert_int_eq(cpu->steps[s].kind, gpu->steps[s].kind);
            if (gpu->steps[s].kind != GANQ_STEP_TABLES)
                continue;
            last = s;
            if (least < 0 || gpu->steps[s].error < gpu->steps[least].error)
                least = s;
        }
        early += least != last;
        ck_assert_msg(fabs(gpu->error - cpu->error) <= 0.01 * cpu->error, "case %d: %g, on the CPU %g", i, gpu->error, cpu->error);
        ck_assert_msg(fabs(gpu->error - gpu->steps[least].error) <= 0.01 * gpu->error, "case %d: %g, its least step %g", i,
                      gpu->error, gpu->steps[least].error);
        for (int device = 0; device < 2; device++)
            ganq__solution_free(&solutions[device]);
        free_layer(&l);
    }
    printf("%d of 12 layers had their least error before the last iteration\n", early);
    ck_assert_int_gt(early, 0);
    ck_assert_int_lt(early, 12);
}
END_TEST

START_TEST(test_outliers) {
    layer l = make_layer(6, 100, 500, 0);
    check_layer(&l, 3, GANQ_RECIPE_FAST, 0.02f);
    free_layer(&l);
    l = make_layer(132, 40, 200, 0); /* more rows than are looked at together */
    check_layer(&l, 3, GANQ_RECIPE_FAST, 0.05f);
    free_layer(&l);
}
END_TEST

/* Nothing in a run depends on the one before. */
START_TEST(test_same_bits) {
    layer l = make_layer(9, 70, 300, 0);
    ganq__solution a = solve_on(GANQ_DEVICE_CUDA, &l, 3, GANQ_RECIPE_DEFAULT, 0);
    emulator_set_order(1); /* blocks and threads run the other way round */
    ganq__solution b = solve_on(GANQ_DEVICE_CUDA, &l, 3, GANQ_RECIPE_DEFAULT, 0);
    emulator_set_order(0);
    ck_assert_double_eq(a.error, b.error);
    ck_assert_mem_eq(a.codes, b.codes, (size_t)(l.N * l.K));
    /* rows are independent: the last ones alone come out the same */
    const layer last = {4, l.K, l.tokens, l.w + 5 * l.K, l.h};
    ganq__solution c = solve_on(GANQ_DEVICE_CUDA, &last, 3, GANQ_RECIPE_DEFAULT, 0);
    ck_assert_mem_eq(a.codes + 5 * l.K, c.codes, (size_t)(4 * l.K));
    ganq__solution_free(&a);
    ganq__solution_free(&b);
    ganq__solution_free(&c);
    free_layer(&l);
}
END_TEST

/* More than one outer block of columns. */
START_TEST(test_wide) {
    layer l = make_layer(3, 530, 700, 0);
    check_layer(&l, 4, GANQ_RECIPE_FAST, 0);
    free_layer(&l);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cuda_solver");
    TCase *tcase = tcase_create("solver");
    tcase_set_timeout(tcase, 600);
    tcase_add_loop_test(tcase, test_recipes, GANQ_RECIPE_DEFAULT, GANQ_RECIPE_BEST + 1);
    tcase_add_test(tcase, test_paper_iterates);
    tcase_add_test(tcase, test_outliers);
    tcase_add_test(tcase, test_same_bits);
    tcase_add_test(tcase, test_wide);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
