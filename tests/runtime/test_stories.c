/* test_stories.c - a real model through the public calls: perplexity and greedy text of
 * stories260K. Needs $GANQ_TEST_DATA. */
#include "check_util.h"
#include "ganq/ganq.h"

static char model_dir[4096], text_path[4096];

typedef struct loaded {
    ganq_context *ctx;
    ganq_model *model;
    ganq_tokenizer *tokenizer;
} loaded;

static loaded load(int threads) {
    loaded l;
    ganq_context_options options = {.struct_size = sizeof options, .threads = threads};
    ck_ganq_ok(ganq_context_create(&options, &l.ctx));
    ck_ganq_ok(ganq_model_load(l.ctx, model_dir, NULL, &l.model));
    ck_ganq_ok(ganq_tokenizer_load(model_dir, &l.tokenizer));
    return l;
}

static void unload(loaded *l) {
    ganq_tokenizer_free(l->tokenizer);
    ganq_model_free(l->model);
    ganq_context_free(l->ctx);
}

/* 3.751: float64 NumPy, BOS and text of document 0 onwards, at most 512 tokens each, until 8,000
 * predictions. */
START_TEST(perplexity_of_documents) {
    loaded l = load(2);
    const ganq_corpus_options corpus_options = {.struct_size = sizeof corpus_options,
                                                .mode = GANQ_SAMPLE_DOCUMENTS,
                                                .samples = -1,
                                                .length = 512};
    const ganq_perplexity_options options = {.struct_size = sizeof options,
                                             .protocol = GANQ_PERPLEXITY_DOCUMENT,
                                             .context = 512,
                                             .max_tokens = 8000};
    ganq_corpus *corpus;
    ganq_perplexity_result result = {.struct_size = sizeof result};
    ck_ganq_ok(ganq_corpus_load(l.tokenizer, text_path, &corpus_options, &corpus));
    ck_ganq_ok(ganq_model_perplexity(l.ctx, l.model, corpus, &options, &result));
    ck_assert_msg(result.perplexity > 3.749 && result.perplexity < 3.753, "perplexity %.5f",
                  result.perplexity);
    ck_assert_int_ge(result.tokens, 8000);
    ck_assert_int_lt(result.tokens, 8512);
    /* another number of threads, the same bits */
    loaded one = load(1);
    ganq_perplexity_result again = {.struct_size = sizeof again};
    ck_ganq_ok(ganq_model_perplexity(one.ctx, one.model, corpus, &options, &again));
    ck_assert_mem_eq(&again.nll, &result.nll, sizeof result.nll);
    ganq_corpus_free(corpus);
    unload(&one);
    unload(&l);
}
END_TEST

typedef struct story {
    ganq_decoder *decoder;
    char text[1024];
} story;

static int add_piece(int32_t id, void *user) {
    story *s = user;
    const char *text;
    size_t length;
    ck_ganq_ok(ganq_decoder_push(s->decoder, id, &text, &length));
    strncat(s->text, text, length);
    return 0;
}

START_TEST(greedy_story) {
    static const char expected[] = "Once upon a time, there was a little girl named Lily.";
    loaded l = load(2);
    ganq_session *session;
    story s = {.text = ""};
    const int32_t bos = ganq_tokenizer_bos(l.tokenizer);
    ck_assert_int_eq(bos, 1);
    ck_ganq_ok(ganq_decoder_create(l.tokenizer, GANQ_DECODE_SKIP_SPECIAL, &s.decoder));
    ck_ganq_ok(ganq_session_create(l.ctx, l.model, 0, &session));
    ck_ganq_ok(ganq_session_step(session, bos));
    const ganq_generate_options options = {.struct_size = sizeof options, .max_tokens = 60};
    int64_t generated = 0;
    ck_ganq_ok(ganq_session_generate(session, &options, add_piece, &s, &generated));
    ck_assert_int_eq(generated, 60);
    const char *text = s.text[0] == ' ' ? s.text + 1 : s.text;
    ck_assert_msg(!strncmp(text, expected, strlen(expected)), "\"%s\"", text);
    ganq_session_free(session);
    ganq_decoder_free(s.decoder);
    unload(&l);
}
END_TEST

int main(void) {
    const char *config = test_data("models/stories260K/config.json");
    if (!config)
        return GANQ_TEST_SKIPPED;
    snprintf(model_dir, sizeof model_dir, "%s", config);
    *strrchr(model_dir, '/') = '\0';
    const char *text = test_data("text/tinystories_1000.json");
    if (!text)
        return GANQ_TEST_SKIPPED;
    snprintf(text_path, sizeof text_path, "%s", text);
    Suite *suite = suite_create("stories");
    TCase *tests = tcase_create("stories");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, perplexity_of_documents);
    tcase_add_test(tests, greedy_story);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
