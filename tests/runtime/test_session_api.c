/* test_session_api.c - the public calls of ganq/session.h on the shipped model: arguments that make
 * sense, and those that do not. */
#include "check_util.h"
#include "ganq/ganq.h"

static ganq_context *ctx;
static ganq_model *model;
static ganq_session *session;
static ganq_corpus *corpus;

static void setup(void) {
    static const int32_t ids[] = {0, 5, 6, 7, 8, 9, 10, 11};
    ck_ganq_ok(ganq_context_create(NULL, &ctx));
    ck_ganq_ok(ganq_model_load(ctx, GANQ_SOURCE_DIR "/examples/data/tiny-llama", NULL, &model));
    ck_ganq_ok(ganq_session_create(ctx, model, 64, &session));
    ck_ganq_ok(ganq_corpus_create(&corpus));
    ck_ganq_ok(ganq_corpus_add(corpus, ids, 8));
}
static void teardown(void) {
    ganq_corpus_free(corpus);
    ganq_session_free(session);
    ganq_model_free(model);
    ganq_context_free(ctx);
}

START_TEST(null_arguments) {
    const int32_t id = 1;
    int32_t out = -1;
    float logits[1];
    ganq_session *other = NULL;
    ganq_perplexity_result result = {.struct_size = sizeof result};
    const ganq_status wrong = GANQ_ERR_INVALID_ARG;
    ck_ganq_fails(ganq_session_create(NULL, model, 0, &other), wrong, "NULL");
    ck_ganq_fails(ganq_session_create(ctx, NULL, 0, &other), wrong, "NULL");
    ck_ganq_fails(ganq_session_create(ctx, model, 0, NULL), wrong, "NULL");
    ck_ganq_fails(ganq_session_prefill(NULL, &id, 1), wrong, "NULL");
    ck_ganq_fails(ganq_session_prefill(session, NULL, 1), wrong, "NULL");
    ck_ganq_fails(ganq_session_prefill_logits(session, &id, 1, NULL), wrong, "NULL");
    ck_ganq_fails(ganq_session_prefill_logits(NULL, &id, 1, logits), wrong, "NULL");
    ck_ganq_fails(ganq_session_step(NULL, 1), wrong, "NULL");
    ck_ganq_fails(ganq_session_truncate(NULL, 0), wrong, "NULL");
    ck_ganq_fails(ganq_session_sample(NULL, NULL, &out), wrong, "NULL");
    ck_ganq_fails(ganq_session_sample(session, NULL, NULL), wrong, "NULL");
    ck_ganq_fails(ganq_session_generate(NULL, NULL, NULL, NULL, NULL), wrong, "NULL");
    ck_ganq_fails(ganq_model_perplexity(NULL, model, corpus, NULL, &result), wrong, "NULL");
    ck_ganq_fails(ganq_model_perplexity(ctx, NULL, corpus, NULL, &result), wrong, "NULL");
    ck_ganq_fails(ganq_model_perplexity(ctx, model, NULL, NULL, &result), wrong, "NULL");
    ck_ganq_fails(ganq_model_perplexity(ctx, model, corpus, NULL, NULL), wrong, "NULL");
    ck_assert_ptr_null(ganq_session_logits(NULL));
    ck_assert_int_eq(ganq_session_length(NULL), 0);
    ganq_session_free(NULL);
    ck_assert_ptr_null(other);
}
END_TEST

START_TEST(struct_sizes_and_reserved_fields) {
    int32_t id = -1;
    int64_t generated = -1;
    ck_ganq_ok(ganq_session_step(session, 0));
    ganq_sampling sampling = {0};
    ck_ganq_fails(ganq_session_sample(session, &sampling, &id), GANQ_ERR_INVALID_ARG,
                  "struct_size");
    sampling.struct_size = sizeof sampling;
    sampling.reserved = 1;
    ck_ganq_fails(ganq_session_sample(session, &sampling, &id), GANQ_ERR_UNSUPPORTED, "reserved");
    /* a newer caller: what the library does not know must be zero */
    struct {
        ganq_sampling known;
        int64_t unknown;
    } newer = {{.struct_size = sizeof newer}, 0};
    ck_ganq_ok(ganq_session_sample(session, &newer.known, &id));
    newer.unknown = 1;
    ck_ganq_fails(ganq_session_sample(session, &newer.known, &id), GANQ_ERR_UNSUPPORTED,
                  "ganq_sampling");
    /* an older caller: what it does not know is the default */
    ganq_sampling older = {.struct_size = 8, .temperature = 0, .top_k = -5};
    ck_ganq_ok(ganq_session_sample(session, &older, &id));

    ganq_generate_options options = {0};
    ck_ganq_fails(ganq_session_generate(session, &options, NULL, NULL, &generated),
                  GANQ_ERR_INVALID_ARG, "struct_size");
    options.struct_size = sizeof options;
    options.max_tokens = -1;
    ck_ganq_fails(ganq_session_generate(session, &options, NULL, NULL, &generated),
                  GANQ_ERR_INVALID_ARG, "max_tokens");
    options.max_tokens = 2;
    options.stop_count = 1;
    ck_ganq_fails(ganq_session_generate(session, &options, NULL, NULL, &generated),
                  GANQ_ERR_INVALID_ARG, "stop");
    options.stop_count = 0;
    options.reserved = 1;
    ck_ganq_fails(ganq_session_generate(session, &options, NULL, NULL, &generated),
                  GANQ_ERR_UNSUPPORTED, "reserved");
    options.reserved = 0;
    options.sampling.struct_size = 7;
    ck_ganq_fails(ganq_session_generate(session, &options, NULL, NULL, &generated),
                  GANQ_ERR_INVALID_ARG, "sampling.struct_size");
    options.sampling.struct_size = 0;
    options.sampling.top_p = 2;
    ck_ganq_fails(ganq_session_generate(session, &options, NULL, NULL, &generated),
                  GANQ_ERR_INVALID_ARG, "top_p");
    ck_assert_int_eq(generated, -1);

    ganq_perplexity_result result = {0};
    const ganq_perplexity_options document = {.struct_size = sizeof document,
                                              .protocol = GANQ_PERPLEXITY_DOCUMENT};
    ck_ganq_fails(ganq_model_perplexity(ctx, model, corpus, &document, &result),
                  GANQ_ERR_INVALID_ARG, "struct_size");
    result.struct_size = 16; /* room for protocol and perplexity only */
    result.tokens = -3;
    ck_ganq_ok(ganq_model_perplexity(ctx, model, corpus, &document, &result));
    ck_assert_double_gt(result.perplexity, 1);
    ck_assert_int_eq(result.protocol, GANQ_PERPLEXITY_DOCUMENT);
    ck_assert_int_eq(result.struct_size, 16);
    ck_assert_int_eq(result.tokens, -3);
}
END_TEST

START_TEST(defaults) {
    ganq_session *longest;
    const int32_t ids[] = {0, 5, 6};
    int64_t generated = 0;
    ck_ganq_ok(ganq_session_create(ctx, model, 0, &longest));
    ck_assert_ptr_null(ganq_session_logits(longest));
    ck_ganq_ok(ganq_session_prefill(longest, ids, 3));
    ck_assert_int_eq(ganq_session_length(longest), 3);
    ck_assert_ptr_nonnull(ganq_session_logits(longest));
    const ganq_generate_options unstopped = {.struct_size = sizeof unstopped, .stop_count = -1};
    ck_ganq_ok(ganq_session_generate(longest, &unstopped, NULL, NULL, &generated));
    ck_assert_int_eq(generated, 128);
    ck_assert_int_eq(ganq_session_length(longest), 131);
    /* fails, and leaves what was there */
    ck_ganq_fails(ganq_session_step(longest, 2048), GANQ_ERR_INVALID_ARG, "2048");
    ck_assert_int_eq(ganq_session_length(longest), 131);
    ck_ganq_ok(ganq_session_truncate(longest, 1));
    ck_assert_ptr_null(ganq_session_logits(longest));
    ganq_session_free(longest);
    ck_ganq_fails(ganq_session_create(ctx, model, 513, &longest), GANQ_ERR_INVALID_ARG, "512");

    float logits[2][2048];
    ck_ganq_ok(ganq_session_prefill_logits(session, ids, 2, logits[0]));
    ck_assert_mem_eq(ganq_session_logits(session), logits[1], sizeof logits[1]);
    int32_t id = -1;
    ck_ganq_ok(ganq_session_sample(session, NULL, &id));
    for (int i = 0; i < 2048; i++)
        ck_assert_float_le(logits[1][i], logits[1][id]);
    ganq_perplexity_result result = {.struct_size = sizeof result};
    ck_ganq_fails(ganq_model_perplexity(ctx, model, corpus, NULL, &result), GANQ_ERR_INVALID_ARG,
                  "8 tokens do not fill one window of 512");
}
END_TEST

/* Handles outlive what they were made from. */
START_TEST(order_of_freeing) {
    ganq_context_free(ctx);
    ganq_model_free(model);
    ctx = NULL;
    model = NULL;
    ck_ganq_ok(ganq_session_step(session, 0));
    int64_t generated = 0;
    const ganq_generate_options options = {
        .struct_size = sizeof options, .max_tokens = 3, .stop_count = -1};
    ck_ganq_ok(ganq_session_generate(session, &options, NULL, NULL, &generated));
    ck_assert_int_eq(generated, 3);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("session_api");
    TCase *tests = tcase_create("session_api");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, null_arguments);
    tcase_add_test(tests, struct_sizes_and_reserved_fields);
    tcase_add_test(tests, defaults);
    tcase_add_test(tests, order_of_freeing);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
