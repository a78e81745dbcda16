/* test_api_corpus.c - ganq_corpus_* as a program sees them: sane and insane arguments. */
#include "check_util.h"

#include <unistd.h>

#include "ganq/ganq.h"

static char dir[256];

static void make_dir(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
}

static const char *ids_file(void) {
    static char path[300];
    snprintf(path, sizeof path, "%s/a.ids", dir);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs("1 2 3 4\n5 6 7 8 9\n", file);
    fclose(file);
    return path;
}

static void remove_dir(void) {
    unlink(ids_file());
    rmdir(dir);
}

START_TEST(built_by_hand) {
    ganq_corpus *corpus = NULL;
    size_t count = 99;
    ck_ganq_fails(ganq_corpus_create(NULL), GANQ_ERR_INVALID_ARG, "out is NULL");
    ck_ganq_ok(ganq_corpus_create(&corpus));
    ck_ganq_ok(ganq_corpus_add(corpus, (int32_t[]){3, 1, 2}, 3));
    ck_ganq_fails(ganq_corpus_add(NULL, (int32_t[]){1}, 1), GANQ_ERR_INVALID_ARG, "corpus is NULL");
    ck_ganq_fails(ganq_corpus_add(corpus, NULL, 1), GANQ_ERR_INVALID_ARG, "at NULL");
    ck_ganq_fails(ganq_corpus_add(corpus, (int32_t[]){1}, 0), GANQ_ERR_INVALID_ARG, "0 token ids");
    ck_ganq_fails(ganq_corpus_add(corpus, (int32_t[]){1, -5}, 2), GANQ_ERR_INVALID_ARG,
                  "ids[1] is -5");
    ck_assert_int_eq(ganq_corpus_count(corpus), 1);
    ck_assert_int_eq(ganq_corpus_tokens(corpus), 3);
    ck_assert_mem_eq(ganq_corpus_get(corpus, 0, &count), ((int32_t[]){3, 1, 2}), 12);
    ck_assert_uint_eq(count, 3);
    ck_assert_ptr_nonnull(ganq_corpus_get(corpus, 0, NULL));
    ck_assert_ptr_null(ganq_corpus_get(corpus, 1, &count));
    ck_assert_ptr_null(ganq_corpus_get(corpus, -1, &count));
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(ganq_corpus_count(NULL), 0);
    ck_assert_int_eq(ganq_corpus_tokens(NULL), 0);
    ck_assert_ptr_null(ganq_corpus_get(NULL, 0, &count));
    ganq_corpus_free(corpus);
    ganq_corpus_free(NULL);
}
END_TEST

START_TEST(loaded) {
    const char *path = ids_file();
    ganq_corpus *corpus = NULL;
    ganq_corpus_options options = {
        .struct_size = sizeof options, .mode = GANQ_SAMPLE_DOCUMENTS, .skip = 1};
    ck_ganq_ok(ganq_corpus_load(NULL, path, &options, &corpus));
    ck_assert_int_eq(ganq_corpus_count(corpus), 1);
    ck_assert_int_eq(ganq_corpus_tokens(corpus), 5);
    ganq_corpus_free(corpus);

    /* an older caller whose struct ends after `mode` */
    options.struct_size = offsetof(ganq_corpus_options, samples);
    ck_ganq_ok(ganq_corpus_load(NULL, path, &options, &corpus));
    ck_assert_int_eq(ganq_corpus_count(corpus), 2);
    ganq_corpus_free(corpus);

    corpus = NULL;
    options.struct_size = 0;
    ck_ganq_fails(ganq_corpus_load(NULL, path, &options, &corpus), GANQ_ERR_INVALID_ARG,
                  "ganq_corpus_options");
    options.struct_size = sizeof options;
    options.mode = 7;
    ck_ganq_fails(ganq_corpus_load(NULL, path, &options, &corpus), GANQ_ERR_INVALID_ARG, "mode 7");
    ck_ganq_fails(ganq_corpus_load(NULL, NULL, NULL, &corpus), GANQ_ERR_INVALID_ARG,
                  "path is NULL");
    ck_ganq_fails(ganq_corpus_load(NULL, "", NULL, &corpus), GANQ_ERR_INVALID_ARG, "path is empty");
    ck_ganq_fails(ganq_corpus_load(NULL, path, NULL, NULL), GANQ_ERR_INVALID_ARG, "out is NULL");
    /* all defaults: windows of 2048 */
    ck_ganq_fails(ganq_corpus_load(NULL, path, NULL, &corpus), GANQ_ERR_INVALID_ARG,
                  "9 tokens, a window of 2048");
    ck_assert_ptr_null(corpus);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("api_corpus");
    TCase *tcase = tcase_create("corpus");
    tcase_add_checked_fixture(tcase, make_dir, remove_dir);
    tcase_add_test(tcase, built_by_hand);
    tcase_add_test(tcase, loaded);
    suite_add_tcase(suite, tcase);
    return test_run(suite, 0);
}
