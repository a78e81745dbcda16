/* test_bad_files.c - files that are broken or ask for what is not there: the status and the words
 * that say where. And what a good small file does with every allocation failing in turn. */
#include "alloc.h"
#include "golden.h"

/* ---- tokenizer.json ---- */

static const char good_json[] =
    "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}],"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"c\":3},\"merges\":[\"a "
    "b\"]}}";

typedef struct edit {
    const char *find, *replacement; /* in good_json */
    ganq_status status;
    const char *words;
} edit;

static const edit edits[] = {
    {"\"BPE\"", "\"Unigram\"", GANQ_ERR_UNSUPPORTED, "tokenizer.json: model \"Unigram\""},
    {"\"BPE\"", "\"WordPiece\"", GANQ_ERR_UNSUPPORTED, "WordPiece"},
    {"\"BPE\"", "7", GANQ_ERR_FORMAT, "\"type\""},
    {"\"a b\"", "\"a x\"", GANQ_ERR_FORMAT, "the second is not in the vocabulary"},
    {"\"a b\"", "\"x a\"", GANQ_ERR_FORMAT, "the first is not in the vocabulary"},
    {"\"a b\"", "\"b a\"", GANQ_ERR_FORMAT, "the result is not in the vocabulary"},
    {"\"a b\"", "\"ab\"", GANQ_ERR_FORMAT, "expected two pieces"},
    {"\"a b\"", "\"a b c\"", GANQ_ERR_FORMAT, "expected two pieces"},
    {"\"a b\"", "[\"a\",\"b\",\"c\"]", GANQ_ERR_FORMAT, "merge 0"},
    {"\"a b\"", "[\"a\",5]", GANQ_ERR_FORMAT, "merge 0"},
    {"[\"a b\"]", "7", GANQ_ERR_FORMAT, "\"merges\""},
    {"\"c\":3", "\"c\":2", GANQ_ERR_FORMAT, "id 2 stands for"},
    {"\"c\":3", "\"c\":-1", GANQ_ERR_FORMAT, "has id -1"},
    {"\"c\":3", "\"c\":2000000000", GANQ_ERR_FORMAT, "has id 2000000000"},
    {"\"c\":3", "\"c\":\"x\"", GANQ_ERR_FORMAT, "is not an integer"},
    {"\"c\":3", "\"a\":3", GANQ_ERR_FORMAT, "duplicate"},
    {"\"id\":4", "\"id\":3", GANQ_ERR_FORMAT, "id 3 stands for"},
    {"\"content\":\"<s>\"", "\"content\":\"a\"", GANQ_ERR_FORMAT, "\"a\""},
    {"\"content\":\"<s>\"", "\"content\":\"\"", GANQ_ERR_FORMAT, "is empty"},
    {"\"content\":\"<s>\",", "", GANQ_ERR_FORMAT, "\"content\" is missing"},
    {"\"special\":true", "\"special\":1", GANQ_ERR_FORMAT, "\"special\""},
    {"\"model\":{", "\"normalizer\":{\"type\":\"Precompiled\"},\"model\":{", GANQ_ERR_UNSUPPORTED,
     "tokenizer.json: normalizer \"Precompiled\""},
    {"\"model\":{", "\"normalizer\":{},\"model\":{", GANQ_ERR_FORMAT, "\"type\" is missing"},
    {"\"model\":{", "\"normalizer\":[],\"model\":{", GANQ_ERR_FORMAT, "normalizer"},
    {"\"model\":{", "\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"},\"model\":{",
     GANQ_ERR_FORMAT, "\"pattern\""},
    {"\"model\":{", "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{",
     GANQ_ERR_UNSUPPORTED, "pre_tokenizer \"BertPreTokenizer\""},
    {"\"model\":{",
     "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}},\"model\":{",
     GANQ_ERR_UNSUPPORTED, "regular expression \"(\""},
    {"\"model\":{",
     "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"}},\"model\":{",
     GANQ_ERR_UNSUPPORTED, "&&"},
    {"\"model\":{",
     "\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Odd\",\"pattern\":{\"String\":\"x\"}},"
     "\"model\":{",
     GANQ_ERR_FORMAT, "\"Odd\" is unknown"},
    {"\"model\":{",
     "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{"
     "\"type\":\"Digits\"}]},"
     "\"model\":{",
     GANQ_ERR_UNSUPPORTED, "\"Digits\" after \"ByteLevel\""},
    {"\"model\":{", "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"xy\"},\"model\":{",
     GANQ_ERR_FORMAT, "\"replacement\""},
    {"\"model\":{",
     "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"often\"},\"model\":{",
     GANQ_ERR_FORMAT, "often"},
    {"\"model\":{", "\"decoder\":{\"type\":\"WordPiece\"},\"model\":{", GANQ_ERR_UNSUPPORTED,
     "decoder \"WordPiece\""},
    {"\"model\":{", "\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":1},\"model\":{",
     GANQ_ERR_UNSUPPORTED, "of every token"},
    {"\"model\":{",
     "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
     "\"ByteFallback\"}]},\"model\":{",
     GANQ_ERR_UNSUPPORTED, "after \"Fuse\""},
    {"\"model\":{", "\"post_processor\":{\"type\":\"BertProcessing\"},\"model\":{",
     GANQ_ERR_UNSUPPORTED, "post_processor \"BertProcessing\""},
    {"\"model\":{",
     "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<"
     "x>\"}}]},\"model\":{",
     GANQ_ERR_FORMAT, "\"<x>\" is not in the vocabulary"},
    {"\"type\":\"BPE\"", "\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\"",
     GANQ_ERR_UNSUPPORTED, "##"},
    {"\"type\":\"BPE\"", "\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\"", GANQ_ERR_UNSUPPORTED,
     "</w>"},
    {"\"type\":\"BPE\"", "\"type\":\"BPE\",\"dropout\":0.1", GANQ_ERR_UNSUPPORTED, "dropout"},
    {"\"type\":\"BPE\"", "\"type\":\"BPE\",\"unk_token\":\"?\"", GANQ_ERR_FORMAT, "\"unk_token\""},
    {"\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"c\":3}", "\"vocab\":[]", GANQ_ERR_FORMAT, "\"vocab\""},
};

static ganq_status load_text(const char *name, const void *text, size_t size,
                             ganq_tokenizer **out) {
    char dir[256], path[512];
    snprintf(dir, sizeof dir, "%s", test_dir());
    write_text(dir, name, text, size);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ganq_status status = ganq__tokenizer_load(path, out);
    ck_ganq_ok(ganq__remove_tree(dir));
    return status;
}

START_TEST(edited_json) {
    const edit *e = &edits[_i];
    char text[4096];
    const char *at = strstr(good_json, e->find);
    ganq_tokenizer *tokenizer = NULL;
    ck_assert_ptr_nonnull(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good_json), good_json, e->replacement,
             at + strlen(e->find));
    ck_ganq_fails(load_text("tokenizer.json", text, strlen(text), &tokenizer), e->status, e->words);
    ck_assert_ptr_null(tokenizer);
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "tokenizer.json"));
}
END_TEST

START_TEST(cut_json) {
    ganq_tokenizer *tokenizer = NULL;
    ck_ganq_ok(load_text("tokenizer.json", good_json, sizeof good_json - 1, &tokenizer));
    ck_assert_int_eq(ganq__tokenizer_vocab_size(tokenizer), 5);
    ganq__tokenizer_free(tokenizer);
    for (size_t size = 0; size + 1 < sizeof good_json; size += 7)
        ck_ganq_fails(load_text("tokenizer.json", good_json, size, &tokenizer), GANQ_ERR_FORMAT,
                      "tokenizer.json");
}
END_TEST

/* ---- SentencePiece ---- */

static void read_sample(char **data, size_t *size) {
    ck_ganq_ok(ganq__file_read(golden_path("sample_rules.model"), 1 << 20, data, size));
}

START_TEST(cut_sentencepiece) {
    char *data;
    size_t size, refused = 0, tried = 0;
    read_sample(&data, &size);
    /* A cut at a field's end leaves a smaller model, of the wrong type as a rule: never a crash,
     * mostly an error. */
    for (size_t cut = 1; cut < size; cut += 13, tried++) {
        ganq_tokenizer *tokenizer = NULL;
        ganq_status status = load_text("tokenizer.model", data, cut, &tokenizer);
        ck_assert(status == GANQ_OK || status == GANQ_ERR_FORMAT || status == GANQ_ERR_UNSUPPORTED);
        ck_assert(status == GANQ_OK || strstr(ganq_last_error(), "tokenizer.model"));
        refused += status != GANQ_OK;
        ganq__tokenizer_free(tokenizer);
    }
    ck_assert_uint_gt(refused, tried * 9 / 10);
    ganq_free(data);
}
END_TEST

START_TEST(lying_sentencepiece) {
    static const struct {
        const char *bytes;
        size_t size;
        ganq_status status;
        const char *words;
    } files[] = {
        {"\x0a\xff\xff\xff\xff\x0f", 6, GANQ_ERR_FORMAT, "4294967295 bytes where 0 are left"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, GANQ_ERR_FORMAT,
         "bytes where 0 are left"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, GANQ_ERR_FORMAT,
         "more than ten bytes"},
        {"\x0a\x80", 2, GANQ_ERR_FORMAT, "ends within a number"},
        {"\x0a\x02\x0a\x05", 4, GANQ_ERR_FORMAT, "5 bytes where 0 are left"},
        {"\x0a\x02\x0e\x05", 4, GANQ_ERR_FORMAT, "wire type 6"},
        {"\x0a\x02\x15\x05", 4, GANQ_ERR_FORMAT, "ends outside the file"},
        {"\x0a\x03\x0a\x01\x61", 5, GANQ_ERR_UNSUPPORTED, "Unigram"},
        {"\x0a\x03\x0a\x01\x61\x12\x02\x18\x03", 9, GANQ_ERR_UNSUPPORTED, "type 3"},
        {"\x0a\x03\x0a\x01\x61\x0a\x03\x0a\x01\x61\x12\x02\x18\x02", 14, GANQ_ERR_FORMAT,
         "has the ids 0 and 1"},
        {"\x0a\x05\x0a\x01\x61\x18\x09\x12\x02\x18\x02", 11, GANQ_ERR_FORMAT, "of type 9"},
        {"\x0a\x05\x0a\x01\x61\x18\x05\x12\x02\x18\x02", 11, GANQ_ERR_UNSUPPORTED, "unused"},
        {"\x0a\x05\x0a\x01\x61\x18\x06\x12\x02\x18\x02", 11, GANQ_ERR_FORMAT, "<0xHH>"},
        {"\x0a\x08\x0a\x01\x61\x15\x00\x00\xc0\x7f\x12\x02\x18\x02", 14, GANQ_ERR_FORMAT,
         "not a number"},
        {"\x0a\x02\x0a\x00\x12\x02\x18\x02", 8, GANQ_ERR_FORMAT, "is empty"},
        {"\x0a\x03\x0a\x01\x61\x12\x02\x18\x02\x1a\x03\x12\x01\x41", 14, GANQ_ERR_FORMAT,
         "normalization rules"},
        {"\x0a\x03\x0a\x01\x61\x12\x02\x18\x02\x1a\x0a\x12\x08\xff\xff\xff\xff\0\0\0\0", 21,
         GANQ_ERR_FORMAT, "a trie of 4294967295 bytes"},
        {"\x0a\x03\x0a\x01\x61\x12\x05\x18\x02\xc0\x01\x01", 12, GANQ_ERR_UNSUPPORTED,
         "treat_whitespace_as_suffix"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        ganq_tokenizer *tokenizer = NULL;
        ck_ganq_fails(load_text("tokenizer.model", files[i].bytes, files[i].size, &tokenizer),
                      files[i].status, files[i].words);
    }
}
END_TEST

/* ---- Rank files ---- */

static char *rank_file(size_t *size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc(8192);
    *size = 0;
    for (int byte = 0; byte < 256; byte++)
        *size += (size_t)sprintf(text + *size, "%c%c== %d\n", digits[byte >> 2],
                                 digits[(byte & 3) << 4], byte);
    *size += (size_t)sprintf(text + *size, "YWI= 256\nYWJj 257\n"); /* ab, abc */
    return text;
}

START_TEST(rank_files) {
    static const struct {
        const char *find, *replacement;
        ganq_status status;
        const char *words;
    } broken[] = {
        {"YWI= 256", "Y*I= 256", GANQ_ERR_FORMAT, "line 257"},
        {"YWI= 256", "YWI 256", GANQ_ERR_FORMAT, "expected base64 and a rank"},
        {"YWI= 256", "YWI=256", GANQ_ERR_FORMAT, "expected base64 and a rank"},
        {"YWI= 256", "YWI= ", GANQ_ERR_FORMAT, "expected base64 and a rank"},
        {"YWI= 256", "YWI= 25x", GANQ_ERR_FORMAT, "expected base64 and a rank"},
        {"YWI= 256", "YWI= 99999999999999999999", GANQ_ERR_FORMAT, "expected base64 and a rank"},
        {"YWI= 256", "YWI= 999999999", GANQ_ERR_FORMAT, "has id 999999999"},
        {"YWI= 256", "YWI= 255", GANQ_ERR_FORMAT, "id 255 stands for"},
        {"YWI= 256", "YWJj 256", GANQ_ERR_FORMAT, "has the ids 256 and 257"},
        {"YWI= 256", "==== 256", GANQ_ERR_FORMAT, "expected base64 and a rank"},
        {"AA== 0\n", "", GANQ_ERR_FORMAT, "no token for the byte 0x00"},
    };
    size_t size;
    char *text = rank_file(&size), edited[8192];
    ganq_tokenizer *tokenizer = NULL;
    ck_ganq_fails(load_text("tokenizer.model", text, size, &tokenizer), GANQ_ERR_UNSUPPORTED,
                  "258 tokens");
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const char *at = strstr(text, broken[i].find);
        int length = snprintf(edited, sizeof edited, "%.*s%s%s", (int)(at - text), text,
                              broken[i].replacement, at + strlen(broken[i].find));
        ck_ganq_fails(load_text("tokenizer.model", edited, (size_t)length, &tokenizer),
                      broken[i].status, broken[i].words);
    }
    free(text);
}
END_TEST

/* The family from the config beside the file; special tokens by their id there. */
START_TEST(rank_file_with_config) {
    static const char config[] =
        "{\"tokenizer_class\":\"GPT2Tokenizer\",\"bos_token\":null,\"eos_token\":\"<end>\","
        "\"added_tokens_decoder\":{\"258\":{\"content\":\"<end>\",\"special\":true}}}";
    char dir[256];
    size_t size, count;
    char *text = rank_file(&size);
    int32_t *ids;
    ganq_tokenizer *tokenizer;
    snprintf(dir, sizeof dir, "%s", test_dir());
    write_text(dir, "tokenizer.model", text, size);
    write_text(dir, "tokenizer_config.json", config, sizeof config - 1);
    ck_ganq_ok(ganq__tokenizer_load(dir, &tokenizer));
    ck_assert_int_eq(ganq__tokenizer_vocab_size(tokenizer), 259);
    ck_assert_int_eq(ganq__tokenizer_bos(tokenizer), -1);
    ck_assert_int_eq(ganq__tokenizer_eos(tokenizer), 258);
    ck_ganq_ok(
        ganq__tokenizer_encode(tokenizer, "abcab<end>", 10, GANQ_ENCODE_SPECIAL, &ids, &count));
    ck_assert_uint_eq(count, 3);
    ck_assert(ids[0] == 257 && ids[1] == 256 && ids[2] == 258);
    ganq_free(ids);
    ganq__tokenizer_free(tokenizer);
    write_text(dir, "tokenizer_config.json", "[1]", 3);
    ck_ganq_fails(ganq__tokenizer_load(dir, &tokenizer), GANQ_ERR_FORMAT, "tokenizer_config.json");
    write_text(dir, "tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{}}}", 34);
    ck_ganq_fails(ganq__tokenizer_load(dir, &tokenizer), GANQ_ERR_FORMAT, "tokenizer_config.json");
    ck_ganq_ok(ganq__remove_tree(dir));
    free(text);
}
END_TEST

/* ---- vocab.json and merges.txt ---- */

START_TEST(merges_files) {
    static const struct {
        const char *merges;
        ganq_status status;
        const char *words;
    } files[] = {{"#version: 0.2\na b\n\n", GANQ_OK, ""},
                 {"a b\r\n", GANQ_OK, ""},
                 {"", GANQ_OK, ""},
                 {"a x\n", GANQ_ERR_FORMAT, "merges.txt: merge 0"},
                 {"a b\nab\n", GANQ_ERR_FORMAT, "merges.txt: line 2"},
                 {"a b c\n", GANQ_ERR_FORMAT, "line 1"},
                 {" b\n", GANQ_ERR_FORMAT, "line 1"}};
    static const char vocab[] = "{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}";
    char dir[256];
    ganq_tokenizer *tokenizer;
    snprintf(dir, sizeof dir, "%s", test_dir());
    ck_ganq_fails(ganq__tokenizer_load(dir, &tokenizer), GANQ_ERR_NOT_FOUND, "no tokenizer.json");
    write_text(dir, "vocab.json", vocab, sizeof vocab - 1);
    ck_ganq_fails(ganq__tokenizer_load(dir, &tokenizer), GANQ_ERR_NOT_FOUND, "merges.txt");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        write_text(dir, "merges.txt", files[i].merges, strlen(files[i].merges));
        if (files[i].status != GANQ_OK) {
            ck_ganq_fails(ganq__tokenizer_load(dir, &tokenizer), files[i].status, files[i].words);
            continue;
        }
        ck_ganq_ok(ganq__tokenizer_load(dir, &tokenizer));
        ck_assert_int_eq(ganq__tokenizer_bos(tokenizer), 3);
        ganq__tokenizer_free(tokenizer);
    }
    write_text(dir, "vocab.json", "{\"a\":0,\"b\":0}", 13);
    ck_ganq_fails(ganq__tokenizer_load(dir, &tokenizer), GANQ_ERR_FORMAT, "vocab.json");
    write_text(dir, "vocab.json", "{}", 2);
    ck_ganq_fails(ganq__tokenizer_load(dir, &tokenizer), GANQ_ERR_FORMAT, "");
    ck_ganq_ok(ganq__remove_tree(dir));
    ck_ganq_fails(ganq__tokenizer_load("/nonexistent/tokenizer.json", &tokenizer),
                  GANQ_ERR_NOT_FOUND, "/nonexistent");
}
END_TEST

/* ---- Calls ---- */

START_TEST(ids_outside_the_vocabulary) {
    ganq_tokenizer *tokenizer;
    static const int32_t ids[] = {0, -1, 5, INT32_MAX, INT32_MIN};
    char *text;
    const char *part;
    size_t length;
    ganq_decoder *decoder;
    ck_ganq_ok(load_text("tokenizer.json", good_json, sizeof good_json - 1, &tokenizer));
    ck_ganq_ok(ganq__decoder_create(tokenizer, 0, &decoder));
    for (int i = 1; i < 5; i++) {
        int32_t pair[] = {ids[0], ids[i]};
        ck_ganq_fails(ganq__tokenizer_decode(tokenizer, pair, 2, 0, &text, &length),
                      GANQ_ERR_INVALID_ARG, "(5 ids)");
        ck_ganq_fails(ganq__decoder_push(decoder, ids[i], &part, &length), GANQ_ERR_INVALID_ARG,
                      "(5 ids)");
        ck_assert_ptr_null(ganq__tokenizer_piece(tokenizer, ids[i]));
    }
    /* A decoder that refused an id goes on; it holds what it needs of a tokenizer that was freed.
     */
    ganq__tokenizer_free(tokenizer);
    ck_ganq_ok(ganq__decoder_push(decoder, 2, &part, &length));
    ck_assert_uint_eq(length, 2);
    ck_assert_mem_eq(part, "ab", 2);
    ganq__decoder_free(decoder);
    ganq__decoder_free(NULL);
    ganq__tokenizer_free(NULL);
}
END_TEST

/* An expression that takes exponential time ends with an error. */
START_TEST(hostile_regex) {
    char text[4096];
    const char *at = strstr(good_json, "\"model\":{");
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good_json), good_json,
             "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+|aa)+$b\"},"
             "\"behavior\":\"Isolated\"},",
             at);
    ganq_tokenizer *tokenizer;
    int32_t *ids = NULL;
    size_t count;
    ck_ganq_ok(load_text("tokenizer.json", text, strlen(text), &tokenizer));
    memset(text, 'a', 2000);
    text[2000] = 'b';
    ck_ganq_fails(ganq__tokenizer_encode(tokenizer, text, 2001, 0, &ids, &count),
                  GANQ_ERR_UNSUPPORTED, "too many steps");
    ck_assert_ptr_null(ids);
    ganq__tokenizer_free(tokenizer);
}
END_TEST

/* Every allocation fails once: NO_MEMORY, no leak (a sanitizer sees it), nothing half done. */
static ganq_status whole_cycle(const char *path) {
    static const char text[] = "the quick <tool> brown \xf0\x9f\x98\x80 fox, caf\xc3\xa9 2024\n\n  "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    ganq_tokenizer *tokenizer;
    int32_t *ids = NULL;
    size_t count, length;
    char *decoded = NULL;
    ganq_decoder *decoder = NULL;
    const char *part;
    ganq_status status = ganq__tokenizer_load(path, &tokenizer);
    if (status != GANQ_OK)
        return status;
    status =
        ganq__tokenizer_encode(tokenizer, text, sizeof text - 1, GANQ_ENCODE_BOS, &ids, &count);
    if (status == GANQ_OK)
        status = ganq__tokenizer_decode(tokenizer, ids, count, 0, &decoded, &length);
    if (status == GANQ_OK)
        status = ganq__decoder_create(tokenizer, 0, &decoder);
    for (size_t i = 0; status == GANQ_OK && i < count; i++)
        status = ganq__decoder_push(decoder, ids[i], &part, &length);
    ganq__decoder_free(decoder);
    ganq_free(decoded);
    ganq_free(ids);
    ganq__tokenizer_free(tokenizer);
    return status;
}

static void sweep(const char *path) {
    ganq__alloc_fail_after(0);
    ck_ganq_ok(whole_cycle(path));
    int64_t allocations = ganq__alloc_count();
    ck_assert_int_gt(allocations, 20);
    for (int64_t n = 1; n <= allocations; n++) {
        ganq__alloc_fail_after(n);
        ganq_status status = whole_cycle(path);
        ganq__alloc_fail_after(0);
        if (status != GANQ_ERR_NO_MEMORY)
            ck_abort_msg("%s: allocation %d of %d failed: %s", path, (int)n, (int)allocations,
                         ganq_status_string(status));
    }
}

START_TEST(allocations_fail) {
    json_t *golden = golden_load("golden_components.json");
    static const char *const names[] = {
        "llama 2", "template", "replace regex", "metaspace always True", "NFC", "added"};
    char dir[256], path[512];
    snprintf(dir, sizeof dir, "%s", test_dir());
    for (size_t v = 0; v < json_array_size(json_object_get(golden, "variants")); v++) {
        const json_t *variant = json_array_get(json_object_get(golden, "variants"), v);
        const char *name = json_string_value(json_object_get(variant, "name"));
        int wanted = 0;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            wanted = wanted || strcmp(names[i], name) == 0;
        if (!wanted)
            continue;
        json_t *root = variant_json(golden, variant);
        char *text = json_dumps(root, JSON_COMPACT);
        write_text(dir, "tokenizer.json", text, strlen(text));
        snprintf(path, sizeof path, "%s/tokenizer.json", dir);
        sweep(path);
        free(text);
        json_decref(root);
    }
    sweep(golden_path("sample_rules.model"));
    size_t size;
    char *ranks = rank_file(&size);
    write_text(dir, "tokenizer.model", ranks, size);
    write_text(dir, "tokenizer_config.json", "{\"tokenizer_class\":\"Qwen2Tokenizer\"}", 36);
    snprintf(path, sizeof path, "%s/tokenizer.model", dir);
    sweep(path);
    free(ranks);
    ck_ganq_ok(ganq__remove_tree(dir));
    json_decref(golden);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tokenizer bad files");
    TCase *all = tcase_create("bad");
    tcase_set_timeout(all, 300);
    tcase_add_loop_test(all, edited_json, 0, sizeof edits / sizeof *edits);
    tcase_add_test(all, cut_json);
    tcase_add_test(all, cut_sentencepiece);
    tcase_add_test(all, lying_sentencepiece);
    tcase_add_test(all, rank_files);
    tcase_add_test(all, rank_file_with_config);
    tcase_add_test(all, merges_files);
    tcase_add_test(all, ids_outside_the_vocabulary);
    tcase_add_test(all, hostile_regex);
    tcase_add_test(all, allocations_fail);
    suite_add_tcase(suite, all);
    return test_run(suite, 0);
}
