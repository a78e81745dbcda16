/* What holds for every solution: independence of threads, shards and row order; a monotone descent;
 * better recipes that are better; outliers that help; progress and cancellation. */
#include "solver_util.h"

START_TEST(test_threads_and_rows) {
    ganq_context *one = open_context(1), *two = open_context(2), *three = open_context(3);
    layer l = make_layer(75, 83, 200, 1);
    for (size_t r = 0; r < 5; r++) {
        ganq_quantize_options o = make_options(3, all_recipes[r]);
        o.outlier_ratio = 0.01f;
        ganq__solution a = {0}, b = {0}, c = {0};
        ck_ganq_ok(ganq__solve(one, l.N, l.K, l.w, l.h, 0, &o, &a));
        ck_ganq_ok(ganq__solve(two, l.N, l.K, l.w, l.h, 0, &o, &b));
        ck_ganq_ok(ganq__solve(three, l.N, l.K, l.w, l.h, 0, &o, &c));
        check_solution(one, &l, l.h, &a);
        for (int64_t n = 0; n < l.N; n++) {
            check_same_rows(&a, n, &b, n);
            check_same_rows(&a, n, &c, n);
        }
        ck_assert(a.error == b.error && a.error == c.error && a.norm == b.norm);
        ck_assert_int_eq(a.step_count, b.step_count);
        for (int64_t i = 0; i < a.step_count; i++)
            ck_assert(a.steps[i].error == b.steps[i].error);
        ganq__solution_free(&b);
        ganq__solution_free(&c);

        /* Rows in another order, and a shard in the middle. PAPER takes the whole layer's best
         * iterate. */
        if (all_recipes[r] != GANQ_RECIPE_PAPER) {
            float *shuffled = malloc((size_t)(l.N * l.K) * sizeof(float));
            for (int64_t n = 0; n < l.N; n++)
                memcpy(shuffled + n * l.K, l.w + (n * 22 % l.N) * l.K, (size_t)l.K * sizeof(float));
            ck_ganq_ok(ganq__solve(two, l.N, l.K, shuffled, l.h, 0, &o, &b));
            ck_ganq_ok(ganq__solve(two, 14, l.K, l.w + 41 * l.K, l.h, 0, &o, &c));
            for (int64_t n = 0; n < l.N; n++)
                check_same_rows(&b, n, &a, n * 22 % l.N);
            for (int64_t n = 0; n < 14; n++)
                check_same_rows(&c, n, &a, 41 + n);
            ganq__solution_free(&b);
            ganq__solution_free(&c);
            free(shuffled);
        }
        ganq__solution_free(&a);
    }
    free_layer(&l);
    close_context(one);
    close_context(two);
    close_context(three);
}
END_TEST

/* Shards cut at multiples of the public row tile, where tiles are as tall as a batch (K > 768). */
START_TEST(test_shards) {
    enum { ROWS = 2 * GANQ_ROW_TILE };
    ganq_context *one = open_context(1), *two = open_context(2);
    layer l = make_layer(5 * GANQ_ROW_TILE + 3, 780, 800, 7);
    ganq_quantize_options o = make_options(4, GANQ_RECIPE_DEFAULT);
    ganq__solution whole = {0}, shard = {0};
    ck_ganq_ok(ganq__solve(two, l.N, l.K, l.w, l.h, 0, &o, &whole));
    for (int64_t first = 0; first < l.N; first += ROWS) {
        const int64_t rows = l.N - first < ROWS ? l.N - first : ROWS;
        ck_ganq_ok(ganq__solve(first % (2 * ROWS) ? one : two, rows, l.K, l.w + first * l.K, l.h, 0, &o,
                               &shard));
        for (int64_t n = 0; n < rows; n++)
            check_same_rows(&shard, n, &whole, first + n);
        ganq__solution_free(&shard);
    }
    ganq__solution_free(&whole);
    free_layer(&l);
    close_context(one);
    close_context(two);
}
END_TEST

/* The steps of ours: START aside, alternations, then a descent that never rises and ends where the
 * layer is. */
START_TEST(test_monotone) {
    ganq_context *ctx = open_context(2);
    for (uint32_t seed = 1; seed <= 3; seed++) {
        layer l = make_layer(20, 70, seed == 3 ? 40 : 300, seed);
        for (size_t r = 2; r < 5; r++)
            for (int bits = 2; bits <= 4; bits++) {
                ganq__solution s = solve(ctx, &l, l.h, bits, all_recipes[r]);
                double last = INFINITY;
                int descents = 0, assigns = 0;
                for (int64_t i = 0; i < s.step_count; i++) {
                    const ganq_step *step = &s.steps[i];
                    assigns += step->kind == GANQ_STEP_ASSIGN;
                    if (step->kind == GANQ_STEP_DESCENT)
                        descents++;
                    if (descents > 0 && step->kind != GANQ_STEP_ROUND) {
                        ck_assert_double_le(step->error, last);
                        last = step->error;
                    }
                }
                ck_assert_int_ge(assigns, 10);
                ck_assert_int_ge(descents, 2);
                /* the running error is the true one, and F16 tables cost little */
                ck_assert_double_le(fabs(s.error - last), 0.02 * s.error);
                ganq__solution_free(&s);
            }
        free_layer(&l);
    }
    close_context(ctx);
}
END_TEST

/* With tables in F32 the last descent step and the layer as stored differ by rounding only. */
START_TEST(test_running_error) {
    ganq_context *ctx = open_context(2);
    layer l = make_layer(30, 130, 400, 5);
    for (size_t r = 2; r < 5; r++) {
        ganq_quantize_options o = make_options(4, all_recipes[r]);
        o.lut_dtype = GANQ_DTYPE_F32;
        ganq__solution s = {0};
        ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
        check_solution(ctx, &l, l.h, &s);
        ck_assert_int_eq(s.lut_dtype, GANQ_DTYPE_F32);
        ck_assert_double_le(s.error, s.steps[s.step_count - 2].error * (1 + 1e-5));
        ck_assert_double_ge(s.error, s.steps[s.step_count - 2].error * 0.999);
        ganq__solution_free(&s);
    }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

START_TEST(test_recipes_rank) {
    ganq_context *ctx = open_context(2);
    for (uint32_t seed = 1; seed <= 2; seed++)
        for (int bits = 2; bits <= 4; bits++) {
            layer l = make_layer(24, 96, seed == 1 ? 500 : 60, seed);
            double e[5];
            for (size_t r = 0; r < 5; r++) {
                ganq__solution s = solve(ctx, &l, l.h, bits, all_recipes[r]);
                e[r] = s.error / s.norm;
                ganq__solution_free(&s);
            }
            ck_assert_double_lt(e[1], e[0]); /* paper < rtn */
            ck_assert_double_lt(e[2], e[1]); /* fast < paper */
            ck_assert_double_le(e[3], e[2]);
            ck_assert_double_le(e[4], e[3]);
            free_layer(&l);
        }
    close_context(ctx);
}
END_TEST

START_TEST(test_outliers) {
    ganq_context *ctx = open_context(2);
    layer l = make_layer(64, 100, 300, 9);
    for (size_t r = 0; r < 5; r++)
        for (int with_h = 0; with_h < 2; with_h++) {
            const float *h = with_h ? l.h : NULL;
            double last = INFINITY;
            for (int step = 0; step <= 3; step++) {
                ganq_quantize_options o = make_options(3, all_recipes[r]);
                o.outlier_ratio = 0.004f * (float)step;
                ganq__solution s = {0};
                ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, h, 0, &o, &s));
                check_solution(ctx, &l, h, &s);
                ck_assert((s.outlier_rowptr != NULL) == (step > 0));
                if (step > 0) { /* near the ratio, and never more than one above it in a row */
                    const double expected = o.outlier_ratio * (double)(l.N * l.K);
                    ck_assert_double_le(fabs(s.outlier_rowptr[l.N] - expected), 0.4 * expected);
                    for (int64_t n = 0; n < l.N; n++)
                        ck_assert_int_le(s.outlier_rowptr[n + 1] - s.outlier_rowptr[n],
                                         (int)(o.outlier_ratio * (float)l.K) + 1);
                    for (int32_t i = 0; i < s.outlier_rowptr[l.N]; i++)
                        ck_assert(s.outlier_vals[i] ==
                                  ganq__f16_to_f32(ganq__f32_to_f16(s.outlier_vals[i])));
                }
                if (all_recipes[r] != GANQ_RECIPE_PAPER) /* whose alternation is no descent */
                    ck_assert_double_le(s.error, last);
                last = s.error;
                ganq__solution_free(&s);
            }
        }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

/* The error of one row, and e H. */
static double row_error(const layer *l, const double *e, double *g) {
    double error = 0;
    for (int64_t k = 0; k < l->K; k++) {
        g[k] = 0;
        for (int64_t j = 0; j < l->K; j++)
            g[k] += e[j] * (double)l->h[j * l->K + k];
        error += g[k] * e[k];
    }
    return error;
}

/* Ours gives outliers the values that serve best: hardly any others are better, and the weights are worse. With few
 * tokens H is of low rank, and the values stay near the weights. */
START_TEST(test_outliers_are_fitted) {
    const int64_t tokens = _i ? 60 : 400;
    ganq_context *ctx = open_context(2);
    layer l = make_layer(16, 100, tokens, 5);
    for (size_t r = 0; r < 5; r++) {
        ganq_quantize_options o = make_options(3, all_recipes[r]);
        o.outlier_ratio = 0.08f;
        if (o.recipe == GANQ_RECIPE_PAPER || o.recipe == GANQ_RECIPE_RTN)
            continue;
        ganq__solution s = {0};
        ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
        float *w = dequantize(&s);
        double e[100], g[100], stored = 0, best = 0, exact = 0;
        for (int64_t n = 0; n < l.N; n++) {
            for (int64_t k = 0; k < l.K; k++)
                e[k] = (double)l.w[n * l.K + k] - (double)w[n * l.K + k];
            stored += row_error(&l, e, g);
            for (int sweep = 0; sweep < 300; sweep++)
                for (int32_t i = s.outlier_rowptr[n]; i < s.outlier_rowptr[n + 1]; i++) {
                    const int64_t k = s.outlier_cols[i];
                    double gradient = 0;
                    for (int64_t j = 0; j < l.K; j++)
                        gradient += e[j] * (double)l.h[j * l.K + k];
                    e[k] -= gradient / (double)l.h[k * l.K + k];
                }
            best += row_error(&l, e, g);
            for (int32_t i = s.outlier_rowptr[n]; i < s.outlier_rowptr[n + 1]; i++)
                e[s.outlier_cols[i]] = 0;
            exact += row_error(&l, e, g);
            for (int32_t i = s.outlier_rowptr[n]; i < s.outlier_rowptr[n + 1]; i++)
                ck_assert_float_le(fabsf(w[n * l.K + s.outlier_cols[i]]), 16);
        }
        printf("recipe %d, %lld tokens: error %g, with the best values %g, with the weights %g\n", o.recipe,
               (long long)tokens, stored, best, exact);
        ck_assert_double_le(fabs(stored - s.error), 1e-4 * stored);
        ck_assert_double_le(stored, (_i ? 1.08 : 1.02) * best); /* damping is 1% where H is of low rank */
        ck_assert_double_ge(exact, 1.02 * stored);
        free(w);
        ganq__solution_free(&s);
    }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

/* What is known of few tokens is less than their H says: shrunk, it serves other tokens better, and the error that is
 * reported is still that of H. A damping that is asked for is all there is, and the paper's recipes are literal. */
START_TEST(test_few_tokens) {
    ganq_context *ctx = open_context(2);
    layer few = make_layer(24, 100, 60, 5), many = make_layer(24, 100, 4000, 5);
    for (size_t r = 0; r < 5; r++) {
        double held_out[2][2], norm;
        for (int is_damped = 0; is_damped < 2; is_damped++)
            for (int known = 0; known < 2; known++) {
                ganq_quantize_options o = make_options(3, all_recipes[r]);
                o.damping = is_damped ? 0.02f : 0;
                ganq__solution s = {0};
                ck_ganq_ok(ganq__solve(ctx, few.N, few.K, few.w, few.h, known ? 60 : 0, &o, &s));
                check_solution(ctx, &few, few.h, &s);
                float *w = dequantize(&s);
                ck_ganq_ok(ganq__objective(ctx, many.N, many.K, few.w, w, many.h, &held_out[is_damped][known], &norm));
                ck_assert_int_eq(strstr(s.note, "few tokens") != NULL,
                                 known && !is_damped && o.recipe != GANQ_RECIPE_PAPER && o.recipe != GANQ_RECIPE_RTN);
                free(w);
                ganq__solution_free(&s);
            }
        printf("recipe %d: on other tokens %g as it is, %g shrunk\n", all_recipes[r], held_out[0][0] / norm,
               held_out[0][1] / norm);
        ck_assert_double_eq(held_out[1][0], held_out[1][1]);
        if (all_recipes[r] == GANQ_RECIPE_PAPER || all_recipes[r] == GANQ_RECIPE_RTN)
            ck_assert_double_eq(held_out[0][0], held_out[0][1]);
        else
            ck_assert_double_le(held_out[0][1], 0.8 * held_out[0][0]);
    }
    free_layer(&few);
    free_layer(&many);
    close_context(ctx);
}
END_TEST

/* The options that change the work. */
START_TEST(test_options) {
    ganq_context *ctx = open_context(1);
    layer l = make_layer(10, 40, 100, 3);
    ganq_quantize_options o = make_options(0, 0);
    ganq__solution s = {0};
    ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, NULL, &s));
    ck_assert_int_eq(s.bits, 4);
    ck_assert_int_eq(s.recipe, GANQ_RECIPE_DEFAULT);
    ck_assert_double_eq(s.damping, 0.01);
    ganq__solution_free(&s);
    o.iterations = 3;
    o.damping = 0.5f;
    o.recipe = GANQ_RECIPE_FAST;
    ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
    int assigns = 0;
    for (int64_t i = 0; i < s.step_count; i++)
        assigns += s.steps[i].kind == GANQ_STEP_ASSIGN;
    ck_assert_int_eq(assigns, 3);
    ck_assert_double_eq(s.damping, 0.5);
    ganq__solution_free(&s);
    o.damping = -1; /* none */
    ck_ganq_ok(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s));
    ck_assert_double_eq(s.damping, 0);
    ganq__solution_free(&s);

    o = make_options(5, 0);
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_UNSUPPORTED, "bits is 5");
    o = make_options(4, 9);
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_INVALID_ARG,
                  "recipe is 9");
    o = make_options(4, 0);
    o.outlier_ratio = 0.2f;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_INVALID_ARG,
                  "outlier_ratio");
    o = make_options(4, 0);
    o.damping = NAN;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_INVALID_ARG, "damping");
    o = make_options(4, 0);
    o.lut_dtype = GANQ_DTYPE_BF16;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_INVALID_ARG, "lut_dtype");
    o = make_options(4, 0);
    o.iterations = -1;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_INVALID_ARG, "iterations");
    o = make_options(4, 0);
    o.struct_size = 0;
    ck_ganq_fails(ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s), GANQ_ERR_INVALID_ARG, "size");
    ck_assert_ptr_null(s.codes); /* outputs only after success */
    free_layer(&l);
    close_context(ctx);
}
END_TEST

/* Every stage that a recipe goes through has its time and its work; together no more than the call
 * took. */
START_TEST(test_costs) {
    ganq_context *ctx = open_context(2);
    layer l = make_layer(64, 100, 300, 9);
    for (size_t r = 0; r < 5; r++) {
        ganq__solution s = solve(ctx, &l, l.h, 4, all_recipes[r]);
        const int ours = r >= 2, alternates = r >= 1;
        double sum = 0;
        for (int i = 0; i < GANQ_COST_FINISH; i++) {
            ck_assert_int_eq(s.costs[i].stage, i + 1);
            ck_assert_double_ge(s.costs[i].seconds, 0);
            sum += s.costs[i].seconds;
        }
        ck_assert_double_le(sum, 2 * s.seconds);
        ck_assert_double_gt(s.costs[GANQ_COST_PREPARE - 1].seconds, 0);
        ck_assert_double_gt(s.costs[GANQ_COST_FINISH - 1].seconds, 0);
        ck_assert((s.costs[GANQ_COST_STARTS - 1].seconds > 0) == alternates);
        ck_assert_int_eq(s.costs[GANQ_COST_DESCENT - 1].work > 0, ours);
        /* at least ten alternations of every row */
        const double least = alternates ? 10.0 * 64 * 100 * 100 : 0;
        ck_assert_double_ge(s.costs[GANQ_COST_ASSIGN - 1].work, least / 2);
        ck_assert_double_ge(s.costs[GANQ_COST_TABLES - 1].work, 2 * least);
        if (r == 1) {
            ck_assert_double_eq(s.costs[GANQ_COST_ASSIGN - 1].work, least / 2);
            ck_assert_double_eq(s.costs[GANQ_COST_TABLES - 1].work, 2 * least);
        }
        ganq__solution_free(&s);
    }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

typedef struct watcher {
    int calls, cancel_at;
    double last;
} watcher;
static int watch(const ganq_progress *progress, void *user) {
    watcher *w = user;
    ck_assert_double_ge(progress->fraction, w->last);
    ck_assert_double_le(progress->fraction, 1);
    w->last = progress->fraction;
    return ++w->calls == w->cancel_at;
}

START_TEST(test_progress_and_cancel) {
    layer l = make_layer(256, 128, 200, 4);
    for (int threads = 1; threads <= 2; threads++)
        for (int cancel_at = 0; cancel_at <= 3; cancel_at++) {
            ganq_context *ctx = open_context(threads);
            watcher w = {0, cancel_at, 0};
            ctx->options.progress = watch;
            ctx->options.progress_user = &w;
            ganq__progress_enter(ctx, GANQ_STAGE_QUANTIZE);
            ganq_quantize_options o = make_options(4, GANQ_RECIPE_BEST);
            ganq__solution s = {0};
            const ganq_status status = ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s);
            ganq__progress_leave(ctx);
            if (w.cancel_at > 0 && w.calls >= w.cancel_at) {
                ck_assert_int_eq(status, GANQ_ERR_CANCELED);
                ck_assert_int_eq(w.calls, w.cancel_at);
                ck_assert_ptr_null(s.codes);
            } else {
                ck_ganq_ok(status);
                ck_assert_int_ge(w.calls, 1);
            }
            ganq__solution_free(&s);
            close_context(ctx);
        }
    free_layer(&l);
}
END_TEST

START_TEST(test_no_memory) {
    ganq_context *ctx = open_context(2);
    layer l = make_layer(20, 16, 60, 6);
    for (size_t r = 0; r < 5; r += 2) {
        ganq_quantize_options o = make_options(2, all_recipes[r]);
        o.outlier_ratio = 0.05f;
        int64_t failed = 0;
        for (int64_t n = 1;; n++) {
            ganq__solution s = {0};
            ganq__alloc_fail_after(n);
            const ganq_status status = ganq__solve(ctx, l.N, l.K, l.w, l.h, 0, &o, &s);
            const int64_t made = ganq__alloc_count();
            ganq__alloc_fail_after(0);
            if (status == GANQ_OK) {
                ganq__solution_free(&s);
                if (made < n)
                    break;
                continue; /* the pool may do with fewer workers */
            }
            ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
            ck_assert_ptr_null(s.codes);
            failed++;
        }
        ck_assert_int_ge(failed, 10);
    }
    free_layer(&l);
    close_context(ctx);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("solver properties");
    TCase *tests = tcase_create("properties");
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, test_threads_and_rows);
    tcase_add_test(tests, test_shards);
    tcase_add_test(tests, test_monotone);
    tcase_add_test(tests, test_running_error);
    tcase_add_test(tests, test_recipes_rank);
    tcase_add_test(tests, test_outliers);
    tcase_add_loop_test(tests, test_outliers_are_fitted, 0, 2);
    tcase_add_test(tests, test_few_tokens);
    tcase_add_test(tests, test_options);
    tcase_add_test(tests, test_costs);
    tcase_add_test(tests, test_progress_and_cancel);
    tcase_add_test(tests, test_no_memory);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
