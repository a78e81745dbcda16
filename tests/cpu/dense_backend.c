/* dense_backend.c - how the CPU backend picks its tables, and what it says about it. */
#include "dense_util.h"
#include "lut_ops.h"
#include "model_ops.h"
#include "solver_ops.h"

static ganq_status open_with(ganq_context *ctx, const char *isa) {
    memset(ctx, 0, sizeof *ctx);
    if (isa)
        setenv("GANQ_CPU_ISA", isa, 1);
    else
        unsetenv("GANQ_CPU_ISA");
    ganq_status status = ganq__cpu_backend.open(ctx);
    unsetenv("GANQ_CPU_ISA");
    return status;
}

START_TEST(every_family_has_a_table) {
    ganq_context best, empty, ref;
    ck_ganq_ok(open_with(&best, NULL));
    ck_assert(best.dense && best.lut && best.solver && best.model);
    ck_ganq_ok(open_with(&empty, ""));
    ck_assert_str_eq(empty.device_name, best.device_name);
    ck_ganq_ok(open_with(&ref, "ref"));
    ck_assert(ref.dense && ref.lut && ref.solver && ref.model);
    ck_assert_ptr_eq(ref.dense, &ganq__dense_ops_ref);
    ck_assert_str_eq(ref.device_name, "cpu (ref, 1 thread)");
}
END_TEST

START_TEST(names_with_threads) {
    ganq_context *ctx = open_context("ref", 3);
    ck_assert_str_eq(ctx->device_name, "cpu (ref, 3 threads)");
    close_context(ctx);
}
END_TEST

START_TEST(unknown_isa_is_refused) {
    ganq_context ctx;
    ck_ganq_fails(open_with(&ctx, "avx3"), GANQ_ERR_INVALID_ARG, "GANQ_CPU_ISA=avx3");
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "ref"));
    ck_assert_ptr_null(ctx.dense);
}
END_TEST

/* Without a name, the last of the sets that open. */
START_TEST(the_best_there_is_is_taken) {
    ganq_context best, last = {0};
    ck_ganq_ok(open_with(&best, NULL));
    for (int i = 0; i < ISAS; i++) {
        ganq_context named;
        const ganq_status status = open_with(&named, isas[i]);
        if (status == GANQ_OK)
            last = named;
        else
            ck_assert_int_eq(status, GANQ_ERR_INVALID_ARG);
    }
    ck_assert_str_eq(best.device_name, last.device_name);
    ck_assert_ptr_eq(best.dense, last.dense);
    ck_assert_ptr_eq(best.lut, last.lut);
}
END_TEST

/* A family without a table of its own comes from the set before. */
START_TEST(avx512_falls_back_to_avx2) {
    ganq_context avx2, avx512;
    if (open_with(&avx512, "avx512") != GANQ_OK)
        return;
    ck_ganq_ok(open_with(&avx2, "avx2"));
    ck_assert_ptr_eq(avx512.dense, avx2.dense);
    ck_assert_ptr_ne(avx512.lut, avx2.lut);
    ck_assert_ptr_eq(avx512.solver, avx2.solver);
    ck_assert_ptr_eq(avx512.model, avx2.model);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cpu_backend");
    TCase *tests = tcase_create("cpu_backend");
    tcase_add_test(tests, every_family_has_a_table);
    tcase_add_test(tests, names_with_threads);
    tcase_add_test(tests, unknown_isa_is_refused);
    tcase_add_test(tests, the_best_there_is_is_taken);
    tcase_add_test(tests, avx512_falls_back_to_avx2);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
