/* test_families.c - the real tokenizer files of $GANQ_TEST_DATA: known ids, round trips over the
 * texts, and llama2.c's algorithm over tok512.bin. GANQ_TEST_FULL=1: all of every text, not only
 * its first part. */
#include "golden.h"

#include <dirent.h>
#include <utf8proc.h>

enum { PART = 200000 };

static const char *const folders[] = {"tokenizers/gpt2",
                                      "tokenizers/opt",
                                      "tokenizers/qwen2.5",
                                      "tokenizers/llama2",
                                      "tokenizers/llama3",
                                      "tokenizers/llama2/tokenizer.model",
                                      "tokenizers/gpt2/gpt2.tiktoken",
                                      "models/stories260K"};
enum { FOLDERS = sizeof folders / sizeof *folders, FIVE = 5, QWEN = 2, STORIES = 7 };

/* Loaded once, before the tests fork. */
static ganq_tokenizer *loaded[FOLDERS];

static const char *data_path(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("GANQ_TEST_DATA"), name);
    return path;
}

static void load_all(void) {
    for (int i = 0; i < FOLDERS; i++)
        ck_ganq_ok(ganq__tokenizer_load(data_path(folders[i]), &loaded[i]));
}

static void free_all(void) {
    for (int i = 0; i < FOLDERS; i++)
        ganq__tokenizer_free(loaded[i]);
}

START_TEST(known_ids) {
    const ganq_tokenizer *tokenizer = loaded[_i];
    json_t *golden = golden_load("golden_families.json");
    const json_t *cases = json_object_get(golden, folders[_i]);
    ck_assert_uint_gt(json_array_size(cases), 20);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i), *text = json_array_get(one, 0),
                     *special = json_array_get(one, 2);
        check_ids(tokenizer, folders[_i], json_string_value(text), json_string_length(text), 0,
                  json_array_get(one, 1));
        if (json_array_size(one) > 2)
            check_ids(tokenizer, folders[_i], json_string_value(text), json_string_length(text),
                      GANQ_ENCODE_SPECIAL,
                      json_is_null(special) ? json_array_get(one, 1) : special);
    }
    json_decref(golden);
}
END_TEST

START_TEST(known_ends) {
    static const struct {
        const char *path;
        int32_t size, bos, eos, adds_bos;
    } known[FOLDERS] = {
        {"tokenizers/gpt2", 50257, 50256, 50256, 0},
        {"tokenizers/opt", 50265, 2, 2, 1},
        {"tokenizers/qwen2.5", 151665, -1, 151645, 0},
        {"tokenizers/llama2", 32000, 1, -1, 1}, /* tokenizer.json does not name the end */
        {"tokenizers/llama3", 128256, 128000, 128001, 1},
        {"tokenizers/llama2/tokenizer.model", 32000, 1, 2, 1},
        {"tokenizers/gpt2/gpt2.tiktoken", 50257, 50256, 50256, 0},
        {"models/stories260K", 512, 1, 2, 1}};
    const ganq_tokenizer *tokenizer = loaded[_i];
    ck_assert_str_eq(known[_i].path, folders[_i]);
    ck_assert_int_eq(ganq__tokenizer_vocab_size(tokenizer), known[_i].size);
    ck_assert_int_eq(ganq__tokenizer_bos(tokenizer), known[_i].bos);
    ck_assert_int_eq(ganq__tokenizer_eos(tokenizer), known[_i].eos);
    int32_t *ids;
    size_t count;
    ck_ganq_ok(ganq__tokenizer_encode(tokenizer, "a", 1, GANQ_ENCODE_BOS, &ids, &count));
    ck_assert_int_eq(count >= 1 && ids[0] == known[_i].bos, known[_i].adds_bos);
    ganq_free(ids);
    if (strcmp(known[_i].path, "tokenizers/llama3") == 0) {
        ck_assert_int_eq(ganq__tokenizer_id(tokenizer, "<|eot_id|>"), 128009);
        ck_assert_int_eq(ganq__tokenizer_id(tokenizer, "<|reserved_special_token_0|>"), 128002);
        ck_assert_int_eq(ganq__tokenizer_id(tokenizer, "<|reserved_special_token_250|>"), 128255);
    }
    if (strcmp(known[_i].path, "tokenizers/opt") == 0)
        ck_assert_int_eq(ganq__tokenizer_id(tokenizer, "<pad>"), 1);
}
END_TEST

/* The next text of the folder, cut at a character; NULL at the end. */
static char *next_text(DIR *dir, size_t *size) {
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char name[512], *text;
        snprintf(name, sizeof name, "text/%s", entry->d_name);
        if (entry->d_name[0] == '.' ||
            ganq__file_read(data_path(name), 1 << 30, &text, size) != GANQ_OK)
            continue;
        if (!getenv("GANQ_TEST_FULL") && *size > PART)
            for (*size = PART; ((unsigned char)text[*size] & 0xc0) == 0x80;)
                --*size;
        return text;
    }
    return NULL;
}

START_TEST(texts_come_back) {
    const ganq_tokenizer *tokenizer = loaded[_i];
    DIR *dir = opendir(data_path("text"));
    ck_assert_ptr_nonnull(dir);
    char *text;
    size_t size;
    int texts = 0;
    for (; (text = next_text(dir, &size)) != NULL; texts++) {
        utf8proc_uint8_t *nfc = NULL;
        utf8proc_ssize_t nfc_size = 0;
        if (_i == QWEN)
            nfc_size = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &nfc,
                                    UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        check_decoded(tokenizer, folders[_i], text, size, nfc ? (const char *)nfc : text,
                      nfc ? (size_t)nfc_size : size);
        free(nfc);
        ganq_free(text);
    }
    ck_assert_int_ge(texts, 10);
    closedir(dir);
}
END_TEST

/* Bytes that are no UTF-8 at all come back, too. */
START_TEST(any_bytes_come_back) {
    const ganq_tokenizer *tokenizer = loaded[_i];
    char bytes[4096];
    uint32_t state = 12345;
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < sizeof bytes; i++) {
            state = state * 1664525u + 1013904223u;
            bytes[i] = (char)(state >> 24);
            if (round == 1) /* lead and continuation bytes only */
                bytes[i] |= (char)0x80;
            if (round >= 2 && (state >> 16 & 7)) /* mostly letters */
                bytes[i] = (char)('a' + (state >> 24) % 26);
            else if (round == 3) /* bytes that no character has */
                bytes[i] |= (char)0xf8;
        }
        if (_i == QWEN && round < 3) /* bytes may form characters that NFC changes */
            continue;
        check_decoded(tokenizer, folders[_i], bytes, sizeof bytes, bytes, sizeof bytes);
    }
}
END_TEST

/* One word of 200 KB must not take quadratic time (which would be minutes), and stays exact. */
START_TEST(long_words) {
    enum { SIZE = 200000 };
    static const char *const alphabets[] = {"a", " ", "ab", "\n", "=", "aeiou rstlne"};
    char *text = malloc(SIZE);
    const ganq_tokenizer *tokenizer = loaded[_i];
    for (size_t a = 0; a < sizeof alphabets / sizeof *alphabets; a++) {
        for (size_t i = 0; i < SIZE; i++)
            text[i] = alphabets[a][i * i / 7 % strlen(alphabets[a])];
        check_decoded(tokenizer, folders[_i], text, SIZE, text, SIZE);
    }
    free(text);
}
END_TEST

/* ---- llama2.c ---- */

typedef struct tok_bin {
    char *data;
    const char *pieces[512];
    int sizes[512];
    float scores[512];
} tok_bin;

/* u32 length of the longest piece; per piece f32 score, i32 length, bytes. */
static void read_tok_bin(tok_bin *tok) {
    size_t size, at = 4;
    ck_ganq_ok(
        ganq__file_read(data_path("models/stories260K/tok512.bin"), 1 << 20, &tok->data, &size));
    for (int id = 0; id < 512; id++) {
        ck_assert_uint_le(at + 8, size);
        memcpy(&tok->scores[id], tok->data + at, 4);
        memcpy(&tok->sizes[id], tok->data + at + 4, 4);
        tok->pieces[id] = tok->data + at + 8;
        at += 8 + (size_t)tok->sizes[id];
    }
    ck_assert_uint_eq(at, size);
}

static int find_piece(const tok_bin *tok, const char *text, int size) {
    for (int id = 0; id < 512; id++)
        if (tok->sizes[id] == size && memcmp(tok->pieces[id], text, (size_t)size) == 0)
            return id;
    return -1;
}

/* A space in front; characters that are pieces, else bytes + 3; then, again and again, the
 * neighbours whose joined text is the piece of the best score, the leftmost of equals. Scans the
 * whole text for every merge, so it is given a line at a time. */
static int reference_encode(const tok_bin *tok, const char *text, int size, int *ids) {
    int n = 0;
    if (size > 0)
        ids[n++] = find_piece(tok, " ", 1);
    for (int i = 0, length; i < size; i += length) {
        for (length = 1;
             i + length < size && length < 4 && ((unsigned char)text[i + length] & 0xc0) == 0x80;)
            length++;
        int id = find_piece(tok, text + i, length);
        for (int b = 0; id < 0 && b < length; b++)
            ids[n++] = (unsigned char)text[i + b] + 3;
        if (id >= 0)
            ids[n++] = id;
    }
    for (;;) {
        float best = -1e10f;
        int where = -1, merged = -1;
        for (int i = 0; i + 1 < n; i++) {
            char both[256];
            int left = tok->sizes[ids[i]], right = tok->sizes[ids[i + 1]];
            memcpy(both, tok->pieces[ids[i]], (size_t)left);
            memcpy(both + left, tok->pieces[ids[i + 1]], (size_t)right);
            int id = find_piece(tok, both, left + right);
            if (id >= 0 && tok->scores[id] > best) {
                best = tok->scores[id];
                where = i;
                merged = id;
            }
        }
        if (where < 0)
            return n;
        ids[where] = merged;
        n--;
        memmove(ids + where + 1, ids + where + 2, (size_t)(n - where - 1) * sizeof *ids);
    }
}

START_TEST(same_as_llama2_c) {
    enum { LINE = 100, LINES = 12 };
    tok_bin tok;
    const ganq_tokenizer *tokenizer = loaded[STORIES];
    read_tok_bin(&tok);
    DIR *dir = opendir(data_path("text"));
    char *text;
    size_t size;
    int compared = 0;
    while ((text = next_text(dir, &size)) != NULL) {
        const size_t lines = getenv("GANQ_TEST_FULL") ? 400 : LINES, step = size / lines;
        for (size_t line = 0; line < lines; line++) {
            int expected[2 * LINE];
            size_t begin = line * step, end = begin + LINE < size ? begin + LINE : size, count = 0;
            while (begin < end && ((unsigned char)text[begin] & 0xc0) == 0x80)
                begin++;
            while (end < size && end > begin && ((unsigned char)text[end] & 0xc0) == 0x80)
                end--;
            int32_t *ids = NULL;
            int n = reference_encode(&tok, text + begin, (int)(end - begin), expected);
            ck_ganq_ok(
                ganq__tokenizer_encode(tokenizer, text + begin, end - begin, 0, &ids, &count));
            ck_assert_msg((int)count == n && memcmp(ids, expected, count * sizeof *ids) == 0,
                          "\"%.*s\": other ids than llama2.c's", (int)(end - begin), text + begin);
            ganq_free(ids);
            compared++;
        }
        ganq_free(text);
    }
    ck_assert_int_gt(compared, 100);
    closedir(dir);
    ganq_free(tok.data);
}
END_TEST

/* Two files of one tokenizer: the same ids over the texts. */
START_TEST(same_from_both_files) {
    static const int pairs[2][2] = {{3, 5}, {0, 6}};
    const ganq_tokenizer *both[2] = {loaded[pairs[_i][0]], loaded[pairs[_i][1]]};
    DIR *dir = opendir(data_path("text"));
    char *text;
    size_t size;
    while ((text = next_text(dir, &size)) != NULL) {
        int32_t *ids[2] = {NULL, NULL};
        size_t count[2];
        for (int i = 0; i < 2; i++)
            ck_ganq_ok(ganq__tokenizer_encode(both[i], text, size, 0, &ids[i], &count[i]));
        ck_assert_uint_eq(count[0], count[1]);
        ck_assert_mem_eq(ids[0], ids[1], count[0] * sizeof **ids);
        ganq_free(ids[0]);
        ganq_free(ids[1]);
        ganq_free(text);
    }
    closedir(dir);
}
END_TEST

int main(void) {
    if (!test_data("tokenizers/gpt2/vocab.json") || !test_data("models/stories260K/tok512.bin")) {
        printf("skipped: GANQ_TEST_DATA has no tokenizers\n");
        return GANQ_TEST_SKIPPED;
    }
    Suite *suite = suite_create("tokenizer families");
    TCase *all = tcase_create("families");
    tcase_set_timeout(all, 300);
    tcase_add_unchecked_fixture(all, load_all, free_all);
    tcase_add_loop_test(all, known_ids, 0, FOLDERS);
    tcase_add_loop_test(all, known_ends, 0, FOLDERS);
    tcase_add_loop_test(all, texts_come_back, 0, FIVE);
    tcase_add_loop_test(all, any_bytes_come_back, 0, FIVE);
    tcase_add_loop_test(all, long_words, 0, FIVE);
    tcase_add_test(all, same_as_llama2_c);
    tcase_add_loop_test(all, same_from_both_files, 0, 2);
    suite_add_tcase(suite, all);
    return test_run(suite, 0);
}
