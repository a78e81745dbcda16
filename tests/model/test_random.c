/* test_random.c - models with random weights: whole models in everything but their sense. */
#include <math.h>
#include <unistd.h>

#include "check_util.h"
#include "ganq/ganq.h"

#define SHAPE GANQ_SOURCE_DIR "/examples/data/tiny-llama"

static ganq_context *ctx;

static void setup(void) {
    const ganq_context_options options = {
        .struct_size = sizeof options, .threads = 2, .numerics = GANQ_NUMERICS_EXACT};
    ck_ganq_ok(ganq_context_create(&options, &ctx));
}
static void teardown(void) {
    ganq_context_free(ctx);
}

static ganq_model *make(int bits, uint64_t seed) {
    const ganq_random_options options = {.struct_size = sizeof options, .bits = bits, .seed = seed};
    ganq_model *model;
    ck_ganq_ok(ganq_model_random(ctx, SHAPE, &options, &model));
    return model;
}

static float *logits_of(const ganq_model *model, int64_t vocab) {
    static const int32_t ids[] = {1, 7, 30, 2};
    ganq_session *session;
    float *logits = malloc((size_t)(4 * vocab) * sizeof *logits);
    ck_ganq_ok(ganq_session_create(ctx, model, 8, &session));
    ck_ganq_ok(ganq_session_prefill_logits(session, ids, 4, logits));
    for (int64_t i = 0; i < 4 * vocab; i++)
        ck_assert(isfinite(logits[i]));
    ganq_session_free(session);
    return logits;
}

START_TEST(is_a_model) {
    ganq_model *dense, *model = make(_i, 1), *again = make(_i, 1), *other = make(_i, 2), *read;
    ganq_model_info shape = {.struct_size = sizeof shape}, info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_model_load(ctx, SHAPE, NULL, &dense));
    ck_ganq_ok(ganq_model_get_info(dense, &shape));
    ck_ganq_ok(ganq_model_get_info(model, &info));
    ck_assert_int_eq(info.linears, shape.linears);
    ck_assert_int_eq(info.linears_quantized, shape.linears);
    ck_assert_int_eq(info.parameters, shape.parameters);
    ck_assert(info.bits_per_weight > _i && info.bits_per_weight < _i + 2);
    ganq_linear_info linear = {.struct_size = sizeof linear};
    ck_ganq_ok(ganq_model_get_linear(model, 0, &linear));
    ck_assert_int_eq(linear.bits, _i);

    const size_t bytes = (size_t)(4 * info.vocab_size) * sizeof(float);
    float *a = logits_of(model, info.vocab_size), *b = logits_of(again, info.vocab_size);
    float *c = logits_of(other, info.vocab_size);
    ck_assert_mem_eq(a, b, bytes);
    ck_assert_mem_ne(a, c, bytes);

    /* on disk it is like any other */
    char dir[300], command[400];
    snprintf(dir, sizeof dir, "%s", test_dir());
    const ganq_save_options save = {.struct_size = sizeof save};
    ck_ganq_ok(ganq_model_save(ctx, model, dir, &save));
    ck_ganq_ok(ganq_model_load(ctx, dir, NULL, &read));
    float *d = logits_of(read, info.vocab_size);
    ck_assert_mem_eq(a, d, bytes);
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    ck_assert_int_eq(system(command), 0);

    float *const all[] = {a, b, c, d};
    ganq_model *const models[] = {dense, model, again, other, read};
    for (int i = 0; i < 4; i++)
        free(all[i]);
    for (int i = 0; i < 5; i++)
        ganq_model_free(models[i]);
}
END_TEST

START_TEST(dense) {
    ganq_model *model = make(16, 1), *again = make(16, 1);
    ganq_model_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_model_get_info(model, &info));
    ck_assert_int_eq(info.linears_quantized, 0);
    ck_assert_double_eq(info.bits_per_weight, 16);
    const size_t bytes = (size_t)(4 * info.vocab_size) * sizeof(float);
    float *a = logits_of(model, info.vocab_size), *b = logits_of(again, info.vocab_size);
    ck_assert_mem_eq(a, b, bytes);
    free(a), free(b);
    ganq_model_free(model);
    ganq_model_free(again);
}
END_TEST

START_TEST(refusals) {
    ganq_random_options options = {.struct_size = sizeof options, .bits = 5};
    ganq_model *model = NULL;
    ck_ganq_fails(ganq_model_random(ctx, SHAPE, &options, &model), GANQ_ERR_INVALID_ARG, "5 bits");
    options.bits = -1;
    ck_ganq_fails(ganq_model_random(ctx, SHAPE, &options, &model), GANQ_ERR_INVALID_ARG, "-1 bits");
    options.struct_size = 0;
    ck_ganq_fails(ganq_model_random(ctx, SHAPE, &options, &model), GANQ_ERR_INVALID_ARG,
                  "struct_size");
    ck_ganq_fails(ganq_model_random(NULL, SHAPE, NULL, &model), GANQ_ERR_INVALID_ARG, "ctx");
    ck_ganq_fails(ganq_model_random(ctx, NULL, NULL, &model), GANQ_ERR_INVALID_ARG, "dir");
    ck_ganq_fails(ganq_model_random(ctx, SHAPE, NULL, NULL), GANQ_ERR_INVALID_ARG, "out");
    ck_ganq_fails(ganq_model_random(ctx, "/nowhere", NULL, &model), GANQ_ERR_NOT_FOUND, "/nowhere");
    ck_assert_ptr_null(model);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("random");
    TCase *tests = tcase_create("random");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, is_a_model, 2, 5);
    tcase_add_test(tests, dense);
    tcase_add_test(tests, refusals);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
