/* test_corpus.c - token sequences from files: random windows, documents, joined text. */
#include "check_util.h"

#include "buffer.h"
#include "corpus.h"
#include "file.h"
#include "tokenizer.h"

static char dir[256];

static void make_dir(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
}
static void remove_dir(void) {
    ck_ganq_ok(ganq__remove_tree(dir));
}

static const char *write_file(const char *name, const char *text) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_ganq_ok(ganq__file_write(path, text, strlen(text)));
    return path;
}

/* Document d holds the ids 1000 d, 1000 d + 1, ... */
static const char *write_ids(const char *name, const int *lengths, int documents) {
    ganq__buffer text = {0};
    for (int d = 0; d < documents; d++)
        for (int i = 0; i < lengths[d]; i++)
            ck_ganq_ok(
                ganq__buffer_printf(&text, "%d%c", 1000 * d + i, i + 1 < lengths[d] ? ' ' : '\n'));
    const char *path = write_file(name, text.data);
    ganq__buffer_free(&text);
    return path;
}

static ganq_tokenizer *tokenizer; /* of the shipped model; loaded once */

static void load_tokenizer(void) {
    ck_ganq_ok(ganq__tokenizer_load(GANQ_SOURCE_DIR "/examples/data/tiny-llama", &tokenizer));
}
static void free_tokenizer(void) {
    ganq__tokenizer_free(tokenizer);
}

static ganq_corpus *load(const ganq_tokenizer *with, const char *path, int32_t mode,
                         int64_t samples, int64_t length, int64_t skip, uint64_t seed) {
    ganq_corpus *corpus = NULL;
    ganq_corpus_options options = {sizeof options, mode, samples, length, skip, seed};
    ck_ganq_ok(ganq__corpus_load(with, path, &options, &corpus));
    return corpus;
}

static void check_ids(const ganq_corpus *corpus, int64_t i, const int32_t *expected,
                      size_t expected_count) {
    size_t count;
    const int32_t *ids = ganq__corpus_get(corpus, i, &count);
    ck_assert_uint_eq(count, expected_count);
    ck_assert_mem_eq(ids, expected, count * sizeof *ids);
}

START_TEST(added_sequences) {
    ganq_corpus *corpus;
    size_t count = 7;
    ck_ganq_ok(ganq__corpus_create(&corpus));
    ck_assert_int_eq(ganq__corpus_count(corpus), 0);
    for (int i = 0; i < 40; i++)
        ck_ganq_ok(ganq__corpus_add(corpus, (int32_t[]){i, i + 1, i + 2}, 3));
    const int32_t *first = ganq__corpus_get(corpus, 0, &count);
    ck_ganq_ok(ganq__corpus_add(corpus, (int32_t[]){9}, 1));
    ck_assert_ptr_eq(first,
                     ganq__corpus_get(corpus, 0, &count)); /* sequences stay where they are */
    ck_assert_int_eq(ganq__corpus_count(corpus), 41);
    ck_assert_int_eq(ganq__corpus_tokens(corpus), 121);
    check_ids(corpus, 39, (int32_t[]){39, 40, 41}, 3);
    check_ids(corpus, 40, (int32_t[]){9}, 1);
    ck_assert_ptr_null(ganq__corpus_get(corpus, 41, &count));
    ck_assert_ptr_null(ganq__corpus_get(corpus, -1, &count));
    ganq__corpus_free(corpus);
    ganq__corpus_free(NULL);
}
END_TEST

static void check_windows(const ganq_corpus *corpus, const int *starts, int windows, int length) {
    ck_assert_int_eq(ganq__corpus_count(corpus), windows);
    for (int w = 0; w < windows; w++) {
        size_t count;
        const int32_t *ids = ganq__corpus_get(corpus, w, &count);
        ck_assert_uint_eq(count, (size_t)length);
        for (int i = 0; i < length; i++)
            ck_assert_int_eq(ids[i], starts[w] + i);
    }
}

/* The starts are Python's:
 *   random.seed(seed); for each window: i = randint(0, 4) until document i has more than 10 ids;
 * randint(0, len - 11) */
START_TEST(windows_are_those_of_the_scripts) {
    const char *path = write_ids("w.ids", (int[]){3, 40, 10, 25, 11}, 5);
    ganq_corpus *corpus = load(NULL, path, GANQ_SAMPLE_WINDOWS, 8, 10, 0, 0);
    check_windows(corpus, (int[]){3012, 3000, 4000, 3014, 3005, 4000, 4000, 1024}, 8, 10);
    ganq__corpus_free(corpus);
    corpus = load(NULL, path, GANQ_SAMPLE_WINDOWS, 8, 10, 0, 42);
    check_windows(corpus, (int[]){1007, 1023, 4000, 4000, 1007, 4000, 4000, 4000}, 8, 10);
    ganq__corpus_free(corpus);
    /* only the last document is left: its start alone is drawn */
    corpus = load(NULL, path, GANQ_SAMPLE_WINDOWS, 3, 10, 4, 5);
    check_windows(corpus, (int[]){4000, 4000, 4000}, 3, 10);
    ganq__corpus_free(corpus);
    /* one long document, as WikiText2: random.seed(1); randint(0, 1000 - 100 - 1), six times */
    path = write_ids("one.ids", (int[]){1000}, 1);
    corpus = load(NULL, path, GANQ_SAMPLE_WINDOWS, 6, 100, 0, 1);
    check_windows(corpus, (int[]){137, 582, 867, 821, 782, 64}, 6, 100);
    ganq__corpus_free(corpus);
    corpus = load(NULL, path, GANQ_SAMPLE_WINDOWS, 0, 7, 0, 0);
    ck_assert_int_eq(ganq__corpus_count(corpus), 128); /* the default */
    ganq__corpus_free(corpus);
}
END_TEST

/* No document is long enough: windows of all ids joined. random.seed(7); randint(0, 3), six times.
 */
START_TEST(windows_of_short_documents_joined) {
    static const int32_t joined[12] = {0,    1,    2,    1000, 1001, 1002,
                                       1003, 1004, 2000, 2001, 2002, 2003};
    static const int starts[6] = {2, 1, 3, 0, 0, 0};
    ganq_corpus *corpus =
        load(NULL, write_ids("s.ids", (int[]){3, 5, 4}, 3), GANQ_SAMPLE_WINDOWS, 6, 8, 0, 7);
    ck_assert_int_eq(ganq__corpus_count(corpus), 6);
    for (int w = 0; w < 6; w++)
        check_ids(corpus, w, joined + starts[w], 8);
    ganq__corpus_free(corpus);
}
END_TEST

START_TEST(documents_of_ids) {
    const char *path = write_ids("d.ids", (int[]){3, 12, 5, 4}, 4);
    ganq_corpus *corpus = load(NULL, path, GANQ_SAMPLE_DOCUMENTS, 2, 4, 1, 0);
    ck_assert_int_eq(ganq__corpus_count(corpus), 2);
    check_ids(corpus, 0, (int32_t[]){1000, 1001, 1002, 1003}, 4);
    check_ids(corpus, 1, (int32_t[]){2000, 2001, 2002, 2003}, 4);
    ganq__corpus_free(corpus);
    corpus = load(NULL, path, GANQ_SAMPLE_DOCUMENTS, -1, 0, 0, 0);
    ck_assert_int_eq(ganq__corpus_count(corpus), 4);
    ck_assert_int_eq(ganq__corpus_tokens(corpus), 24);
    ganq__corpus_free(corpus);
    corpus = load(NULL, path, GANQ_SAMPLE_DOCUMENTS, 100, 0, 0, 0); /* what is there */
    ck_assert_int_eq(ganq__corpus_count(corpus), 4);
    ganq__corpus_free(corpus);
    corpus = load(NULL, path, GANQ_SAMPLE_JOINED, 0, 2, 2, 0);
    check_ids(corpus, 0, (int32_t[]){2000, 2001, 2002, 2003, 2004, 3000, 3001, 3002, 3003}, 9);
    ganq__corpus_free(corpus);
}
END_TEST

START_TEST(refusals) {
    ganq_corpus *corpus = (ganq_corpus *)1;
    const char *path = write_ids("r.ids", (int[]){3, 5}, 2);
    static const struct {
        ganq_corpus_options options;
        ganq_status status;
        const char *words;
    } table[] = {
        {{0, GANQ_SAMPLE_WINDOWS, 4, 8, 0, 0},
         GANQ_ERR_INVALID_ARG,
         "r.ids: 8 tokens, a window of 8 needs at least 9"},
        {{0, GANQ_SAMPLE_WINDOWS, 4, 8, 2, 0}, GANQ_ERR_INVALID_ARG, "r.ids: 0 tokens"},
        {{0, GANQ_SAMPLE_DOCUMENTS, 4, 8, 2, 0},
         GANQ_ERR_INVALID_ARG,
         "after skipping 2 documents"},
        {{0, GANQ_SAMPLE_JOINED, 4, 8, 99, 0}, GANQ_ERR_INVALID_ARG, "after skipping 2 documents"},
        {{0, 3, 4, 8, 0, 0}, GANQ_ERR_INVALID_ARG, "mode 3"},
        {{0, -1, 4, 8, 0, 0}, GANQ_ERR_INVALID_ARG, "mode -1"},
        {{0, GANQ_SAMPLE_WINDOWS, -1, 8, 0, 0}, GANQ_ERR_INVALID_ARG, "no number of windows"},
        {{0, GANQ_SAMPLE_DOCUMENTS, 1, -8, 0, 0}, GANQ_ERR_INVALID_ARG, "length -8"},
        {{0, GANQ_SAMPLE_DOCUMENTS, 1, 8, -3, 0}, GANQ_ERR_INVALID_ARG, "skip -3"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_ganq_fails(ganq__corpus_load(NULL, path, &table[i].options, &corpus), table[i].status,
                      table[i].words);
    const ganq_corpus_options zeros = {0};
    path = write_file("t.txt", "text");
    ck_ganq_fails(ganq__corpus_load(NULL, path, &zeros, &corpus), GANQ_ERR_INVALID_ARG,
                  "t.txt: a file of text needs a tokenizer");
    ck_ganq_fails(ganq__corpus_load(tokenizer, path, &zeros, &corpus), GANQ_ERR_INVALID_ARG,
                  "a window of 2048 needs at least 2049");
    path = write_file("e.txt", "");
    ck_ganq_fails(ganq__corpus_load(tokenizer, path, &zeros, &corpus), GANQ_ERR_INVALID_ARG,
                  "e.txt: 0 tokens");
    path = write_file("big.ids", "1 2 3\n2 1000000\n");
    ck_ganq_fails(ganq__corpus_load(tokenizer, path, &zeros, &corpus), GANQ_ERR_FORMAT,
                  "big.ids: token id 1000000, but the tokenizer has");
    ck_ganq_fails(ganq__corpus_load(NULL, "/no/such.txt", &zeros, &corpus), GANQ_ERR_NOT_FOUND,
                  "/no/such.txt");
    ck_assert_ptr_eq(corpus, (void *)1);
}
END_TEST

START_TEST(documents_of_text) {
    const char *path = write_file(
        "a.jsonl", "\"Once upon a time\"\n\"\"\n{\"text\": \"there was a boat.\"}\n\"The end\"\n");
    ganq_corpus *corpus = load(tokenizer, path, GANQ_SAMPLE_DOCUMENTS, 2, 3, 0, 0);
    int32_t *ids;
    size_t count;
    ck_assert_int_eq(ganq__corpus_count(corpus), 2); /* the empty one is passed over */
    ck_ganq_ok(
        ganq__tokenizer_encode(tokenizer, "there was a boat.", 17, GANQ_ENCODE_BOS, &ids, &count));
    ck_assert_uint_gt(count, 3);
    ck_assert_int_eq(ids[0], ganq__tokenizer_bos(tokenizer));
    check_ids(corpus, 1, ids, 3);
    ganq__corpus_free(corpus);
    ganq__free(ids);

    corpus = load(tokenizer, path, GANQ_SAMPLE_JOINED, 0, 0, 2, 0);
    ck_ganq_ok(ganq__tokenizer_encode(tokenizer, "there was a boat.\n\nThe end", 26,
                                      GANQ_ENCODE_BOS, &ids, &count));
    ck_assert_int_eq(ganq__corpus_count(corpus), 1);
    check_ids(corpus, 0, ids, count);
    ganq__corpus_free(corpus);
    ganq__free(ids);
}
END_TEST

START_TEST(windows_of_text) {
    static const char text[] = "a boat and a goat and a coat and a moat and a stoat and a float";
    char file[512];
    int32_t *ids;
    size_t count;
    snprintf(file, sizeof file, "[\"short\", \"%s\"]", text);
    ganq_corpus *corpus =
        load(tokenizer, write_file("w.json", file), GANQ_SAMPLE_WINDOWS, 20, 8, 0, 3);
    ck_ganq_ok(
        ganq__tokenizer_encode(tokenizer, text, strlen(text), GANQ_ENCODE_BOS, &ids, &count));
    ck_assert_int_eq(ganq__corpus_count(corpus), 20);
    for (int64_t w = 0; w < 20; w++) {
        size_t got;
        const int32_t *window = ganq__corpus_get(corpus, w, &got);
        ck_assert_uint_eq(got, 8);
        ck_assert_ptr_nonnull(memmem(ids, count * sizeof *ids, window, 8 * sizeof *ids));
    }
    ganq__corpus_free(corpus);
    ganq__free(ids);
}
END_TEST

START_TEST(every_allocation_may_fail) {
    for (int32_t mode = 0; mode < 3; mode++)
        for (int ids = 0; ids < 2; ids++) {
            const char *path = ids ? write_ids("f.ids", (int[]){3, 5, 4}, 3)
                                   : write_file("f.jsonl", "\"a boat\"\n\"a goat and a coat\"\n");
            const ganq_corpus_options options = {sizeof options, mode, 2, 3 + ids * 5, 0, 0};
            for (int64_t n = 1, done = 0; !done; n++) {
                ganq_corpus *corpus = (ganq_corpus *)1;
                ganq__alloc_fail_after(n);
                ganq_status status = ganq__corpus_load(tokenizer, path, &options, &corpus);
                ganq__alloc_fail_after(0);
                done = status == GANQ_OK;
                if (done) {
                    ganq__corpus_free(corpus);
                } else {
                    ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
                    ck_assert_ptr_eq(corpus, (void *)1);
                }
                ck_assert_int_lt(n, 10000);
                ck_assert_int_ge(n, done ? 4 : 1);
            }
        }
}
END_TEST

START_TEST(stories) {
    const char *path = test_data("text/tinystories_1000.json");
    if (!path)
        return;
    ganq_corpus *corpus = load(tokenizer, path, GANQ_SAMPLE_DOCUMENTS, 20, 64, 500, 0);
    ck_assert_int_eq(ganq__corpus_count(corpus), 20);
    for (int64_t i = 0; i < 20; i++) {
        size_t count;
        ck_assert_int_eq(ganq__corpus_get(corpus, i, &count)[0], ganq__tokenizer_bos(tokenizer));
        ck_assert_uint_gt(count, 10);
    }
    ganq__corpus_free(corpus);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("corpus");
    TCase *tcase = tcase_create("corpus");
    tcase_set_timeout(tcase, 120);
    tcase_add_unchecked_fixture(tcase, load_tokenizer, free_tokenizer);
    tcase_add_checked_fixture(tcase, make_dir, remove_dir);
    tcase_add_test(tcase, added_sequences);
    tcase_add_test(tcase, windows_are_those_of_the_scripts);
    tcase_add_test(tcase, windows_of_short_documents_joined);
    tcase_add_test(tcase, documents_of_ids);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, documents_of_text);
    tcase_add_test(tcase, windows_of_text);
    tcase_add_test(tcase, every_allocation_may_fail);
    tcase_add_test(tcase, stories);
    suite_add_tcase(suite, tcase);
    return test_run(suite, !test_data("text/tinystories_1000.json"));
}
