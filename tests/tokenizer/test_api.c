/* test_api.c - the public tokenizer calls of the shared library: what they give, what they refuse,
 * from several threads. */
#include <pthread.h>

#include "check_util.h"
#include "ganq/ganq.h"

static ganq_tokenizer *load_sample(void) {
    ganq_tokenizer *tokenizer;
    ck_ganq_ok(
        ganq_tokenizer_load(GANQ_SOURCE_DIR "/tests/tokenizer/sample_rules.model", &tokenizer));
    return tokenizer;
}

START_TEST(encode_and_decode) {
    static const char text[] = "hello there, the quick fox";
    ganq_tokenizer *tokenizer = load_sample();
    int32_t *plain, *ids;
    char *decoded;
    size_t plain_count, count, length;
    ck_assert_int_eq(ganq_tokenizer_bos(tokenizer), 1);
    ck_assert_int_eq(ganq_tokenizer_eos(tokenizer), 2);
    ck_ganq_ok(ganq_tokenizer_encode(tokenizer, text, strlen(text), 0, &plain, &plain_count));
    ck_ganq_ok(ganq_tokenizer_encode(tokenizer, text, strlen(text), GANQ_ENCODE_BOS, &ids, &count));
    ck_assert_uint_eq(count, plain_count + 1);
    ck_assert_int_eq(ids[0], 1);
    ck_assert_mem_eq(ids + 1, plain, plain_count * sizeof *ids);
    ck_ganq_ok(
        ganq_tokenizer_decode(tokenizer, ids, count, GANQ_DECODE_SKIP_SPECIAL, &decoded, &length));
    ck_assert_str_eq(decoded, text);
    ck_assert_uint_eq(length, strlen(text));
    ganq_free(decoded);
    ck_ganq_ok(ganq_tokenizer_decode(tokenizer, ids, count, 0, &decoded, &length));
    ck_assert_str_eq(decoded, "<s>hello there, the quick fox");
    for (size_t i = 0; i < count; i++)
        ck_assert_int_eq(ganq_tokenizer_id(tokenizer, ganq_tokenizer_piece(tokenizer, ids[i])),
                         ids[i]);
    ganq_free(decoded);
    ganq_free(plain);
    ganq_free(ids);
    ganq_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(special_tokens_in_text) {
    ganq_tokenizer *tokenizer = load_sample();
    int32_t *ids;
    size_t count;
    ck_ganq_ok(ganq_tokenizer_encode(tokenizer, "</s>", 4, GANQ_ENCODE_SPECIAL, &ids, &count));
    ck_assert(count == 1 && ids[0] == 2);
    ganq_free(ids);
    ck_ganq_ok(ganq_tokenizer_encode(tokenizer, "</s>", 4, 0, &ids, &count));
    ck_assert_uint_gt(count, 2);
    ganq_free(ids);
    ganq_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(nothing_gives_nothing) {
    ganq_tokenizer *tokenizer = load_sample();
    int32_t dummy, *ids = &dummy;
    char *text;
    size_t count = 7, length = 7;
    ck_ganq_ok(ganq_tokenizer_encode(tokenizer, NULL, 0, 0, &ids, &count));
    ck_assert_ptr_null(ids);
    ck_assert_uint_eq(count, 0);
    ck_ganq_ok(ganq_tokenizer_decode(tokenizer, NULL, 0, 0, &text, &length));
    ck_assert_str_eq(text, "");
    ck_assert_uint_eq(length, 0);
    ganq_free(text);
    ganq_tokenizer_free(tokenizer);
}
END_TEST

/* A character of several byte tokens comes out whole, with the token that completes it. */
START_TEST(decoder_holds_back) {
    ganq_tokenizer *tokenizer = load_sample();
    static const char *const pieces[] = {"<0xF0>", "<0x9F>", "<0x98>", "<0x80>",
                                         "<0xE6>", "<0x41>", "<0xC3>"};
    static const size_t lengths[] = {0, 0, 0, 4, 0, 2, 0};
    ganq_decoder *decoder;
    const char *text;
    size_t length;
    ck_ganq_ok(ganq_decoder_create(tokenizer, 0, &decoder));
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        ck_ganq_ok(
            ganq_decoder_push(decoder, ganq_tokenizer_id(tokenizer, pieces[i]), &text, &length));
        ck_assert_uint_eq(length, lengths[i]);
        if (i == 3)
            ck_assert_mem_eq(text, "\xf0\x9f\x98\x80", 4);
        if (i == 5) /* a beginning that the next byte does not continue is given out as it is */
            ck_assert_mem_eq(text, "\xe6\x41", 2);
    }
    ck_ganq_ok(ganq_decoder_flush(decoder, &text, &length));
    ck_assert_uint_eq(length, 1);
    ck_assert_mem_eq(text, "\xc3", 1);
    ck_ganq_ok(ganq_decoder_flush(decoder, &text, &length));
    ck_assert_uint_eq(length, 0);
    ganq_decoder_free(decoder);
    ganq_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(insane_arguments) {
    ganq_tokenizer *tokenizer = load_sample(), *none = NULL;
    ganq_decoder *decoder, *no_decoder = NULL;
    int32_t *ids = NULL, id = 5;
    char *text = NULL;
    const char *part;
    size_t count = 0;
    ck_ganq_ok(ganq_decoder_create(tokenizer, 0, &decoder));
    ck_ganq_fails(ganq_tokenizer_load(NULL, &none), GANQ_ERR_INVALID_ARG, "NULL");
    ck_ganq_fails(ganq_tokenizer_load("x", NULL), GANQ_ERR_INVALID_ARG, "NULL");
    ck_ganq_fails(ganq_tokenizer_load("/nonexistent", &none), GANQ_ERR_NOT_FOUND, "/nonexistent");
    ck_ganq_fails(ganq_tokenizer_encode(NULL, "a", 1, 0, &ids, &count), GANQ_ERR_INVALID_ARG,
                  "NULL");
    ck_ganq_fails(ganq_tokenizer_encode(tokenizer, NULL, 1, 0, &ids, &count), GANQ_ERR_INVALID_ARG,
                  "NULL");
    ck_ganq_fails(ganq_tokenizer_encode(tokenizer, "a", 1, 0, NULL, &count), GANQ_ERR_INVALID_ARG,
                  "NULL");
    ck_ganq_fails(ganq_tokenizer_encode(tokenizer, "a", 1, 0, &ids, NULL), GANQ_ERR_INVALID_ARG,
                  "NULL");
    ck_ganq_fails(ganq_tokenizer_encode(tokenizer, "a", 1, 4, &ids, &count), GANQ_ERR_INVALID_ARG,
                  "flags");
    ck_ganq_fails(ganq_tokenizer_encode(tokenizer, "a", SIZE_MAX, 0, &ids, &count),
                  GANQ_ERR_INVALID_ARG, "at most");
    ck_ganq_fails(ganq_tokenizer_decode(NULL, &id, 1, 0, &text, &count), GANQ_ERR_INVALID_ARG,
                  "NULL");
    ck_ganq_fails(ganq_tokenizer_decode(tokenizer, NULL, 1, 0, &text, &count), GANQ_ERR_INVALID_ARG,
                  "NULL");
    ck_ganq_fails(ganq_tokenizer_decode(tokenizer, &id, 1, 0, NULL, &count), GANQ_ERR_INVALID_ARG,
                  "NULL");
    ck_ganq_fails(ganq_tokenizer_decode(tokenizer, &id, 1, 2, &text, &count), GANQ_ERR_INVALID_ARG,
                  "flags");
    id = 1 << 20;
    ck_ganq_fails(ganq_tokenizer_decode(tokenizer, &id, 1, 0, &text, &count), GANQ_ERR_INVALID_ARG,
                  "1048576");
    ck_ganq_fails(ganq_decoder_create(NULL, 0, &no_decoder), GANQ_ERR_INVALID_ARG, "NULL");
    ck_ganq_fails(ganq_decoder_create(tokenizer, 8, &no_decoder), GANQ_ERR_INVALID_ARG, "flags");
    ck_ganq_fails(ganq_decoder_push(NULL, 1, &part, &count), GANQ_ERR_INVALID_ARG, "NULL");
    ck_ganq_fails(ganq_decoder_push(decoder, 1, NULL, &count), GANQ_ERR_INVALID_ARG, "NULL");
    ck_ganq_fails(ganq_decoder_flush(decoder, &part, NULL), GANQ_ERR_INVALID_ARG, "NULL");
    ck_assert(!none && !no_decoder && !ids && !text);
    ck_assert_int_eq(ganq_tokenizer_vocab_size(NULL), 0);
    ck_assert_int_eq(ganq_tokenizer_bos(NULL), -1);
    ck_assert_int_eq(ganq_tokenizer_eos(NULL), -1);
    ck_assert_ptr_null(ganq_tokenizer_piece(NULL, 0));
    ck_assert_ptr_null(ganq_tokenizer_piece(tokenizer, -1));
    ck_assert_int_eq(ganq_tokenizer_id(tokenizer, NULL), -1);
    ck_assert_int_eq(ganq_tokenizer_id(tokenizer, "no such piece"), -1);
    ganq_decoder_free(decoder);
    ganq_decoder_free(NULL);
    ganq_tokenizer_free(tokenizer);
    ganq_tokenizer_free(NULL);
}
END_TEST

typedef struct job {
    const ganq_tokenizer *tokenizer;
    int failures;
} job;

static void *encode_often(void *user) {
    job *j = user;
    static const char text[] = "the lazy dog and the other dogs there; it cost 1,234.50 euros";
    for (int i = 0; i < 200; i++) {
        int32_t *ids = NULL;
        size_t count = 0, length = 0;
        char *decoded = NULL;
        if (ganq_tokenizer_encode(j->tokenizer, text, strlen(text), 0, &ids, &count) != GANQ_OK ||
            ganq_tokenizer_decode(j->tokenizer, ids, count, 0, &decoded, &length) != GANQ_OK ||
            strcmp(decoded, text))
            j->failures++;
        ganq_free(decoded);
        ganq_free(ids);
    }
    return NULL;
}

START_TEST(many_threads) {
    enum { THREADS = 4 };
    ganq_tokenizer *tokenizer = load_sample();
    pthread_t threads[THREADS];
    job jobs[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job){tokenizer, 0};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, encode_often, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(jobs[i].failures, 0);
    }
    ganq_tokenizer_free(tokenizer);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tokenizer api");
    TCase *all = tcase_create("calls");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, encode_and_decode);
    tcase_add_test(all, special_tokens_in_text);
    tcase_add_test(all, nothing_gives_nothing);
    tcase_add_test(all, decoder_holds_back);
    tcase_add_test(all, insane_arguments);
    tcase_add_test(all, many_threads);
    suite_add_tcase(suite, all);
    return test_run(suite, 0);
}
