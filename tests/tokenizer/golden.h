/* golden.h - what the tokenizer suites share: the golden files beside it, tokenizers written to a
 * folder, comparing. */
#ifndef GANQ_TESTS_TOKENIZER_GOLDEN_H
#define GANQ_TESTS_TOKENIZER_GOLDEN_H

#include <jansson.h>

#include "check_util.h"
#include "file.h"
#include "json.h"
#include "tokenizer.h"

/* $GANQ_SOURCE_DIR/tests/tokenizer/<name>; static buffer. */
static inline const char *golden_path(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/tests/tokenizer/%s", GANQ_SOURCE_DIR, name);
    return path;
}

static inline json_t *golden_load(const char *name) {
    json_t *json;
    ck_ganq_ok(ganq__json_load(golden_path(name), &json));
    return json;
}

/* Writes text as dir/name. */
static inline void write_text(const char *dir, const char *name, const char *text, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    ck_assert(file && fwrite(text, 1, size, file) == size);
    ck_assert_int_eq(fclose(file), 0);
}

/* The tokenizer of a tokenizer.json made from `root`. */
static inline ganq_status load_json(const json_t *root, ganq_tokenizer **out) {
    char *text = json_dumps(root, JSON_COMPACT), dir[256];
    ck_assert_ptr_nonnull(text);
    snprintf(dir, sizeof dir, "%s", test_dir());
    write_text(dir, "tokenizer.json", text, strlen(text));
    free(text);
    ganq_status status = ganq__tokenizer_load(dir, out);
    ck_ganq_ok(ganq__remove_tree(dir));
    return status;
}

/* tokenizer.json of a variant in golden_components.json. */
static inline json_t *variant_json(const json_t *golden, const json_t *variant) {
    static const char *const parts[] = {"added_tokens", "normalizer", "pre_tokenizer",
                                        "post_processor", "decoder"};
    json_t *root = json_object(),
           *model = json_copy(json_object_get(json_object_get(golden, "bases"),
                                              json_string_value(json_object_get(variant, "base"))));
    ck_assert_int_eq(json_object_update(model, json_object_get(variant, "model")), 0);
    ck_assert_int_eq(json_object_set_new(root, "model", model), 0);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        ck_assert_int_eq(json_object_set(root, parts[i], json_object_get(variant, parts[i])), 0);
    return root;
}

static inline void check_ids(const ganq_tokenizer *tokenizer, const char *name, const char *text,
                             size_t size, uint32_t flags, const json_t *expected) {
    int32_t *ids = NULL;
    size_t count = 0;
    ck_ganq_ok(ganq__tokenizer_encode(tokenizer, text, size, flags, &ids, &count));
    const size_t wanted = json_array_size(expected);
    for (size_t i = 0; i < count && i < wanted; i++) {
        int id = (int)json_integer_value(json_array_get(expected, i));
        if (ids[i] != id)
            ck_abort_msg("%s, flags %u: \"%s\": id %zu is %d, expected %d", name, flags, text, i,
                         ids[i], id);
    }
    ck_assert_msg(count == wanted, "%s, flags %u: \"%s\": %zu ids, expected %zu", name, flags, text,
                  count, wanted);
    ganq_free(ids);
}

/* decode(encode(text)) must be `expected`; and the same pushed token by token. */
static inline void check_decoded(const ganq_tokenizer *tokenizer, const char *name,
                                 const char *text, size_t size, const char *expected,
                                 size_t expected_size) {
    int32_t *ids = NULL;
    size_t count = 0, length = 0, at = 0;
    char *decoded = NULL;
    const char *part = NULL;
    ganq_decoder *decoder;
    ck_ganq_ok(ganq__tokenizer_encode(tokenizer, text, size, 0, &ids, &count));
    ck_ganq_ok(ganq__tokenizer_decode(tokenizer, ids, count, 0, &decoded, &length));
    for (size_t i = 0; i < length && i < expected_size; i++)
        if (decoded[i] != expected[i]) /* every assertion that Check sees costs it a write */
            ck_abort_msg("%s: decoded text differs at byte %zu: \"%.40s\", expected \"%.40s\"",
                         name, i, decoded + i, expected + i);
    ck_assert_msg(length == expected_size, "%s: %zu bytes decoded, expected %zu", name, length,
                  expected_size);
    ck_ganq_ok(ganq__decoder_create(tokenizer, 0, &decoder));
    for (size_t i = 0; i <= count; i++, at += length) {
        ganq_status status = i < count ? ganq__decoder_push(decoder, ids[i], &part, &length)
                                       : ganq__decoder_flush(decoder, &part, &length);
        if (status != GANQ_OK || at + length > expected_size ||
            memcmp(part, expected + at, length) != 0)
            ck_abort_msg("%s: pushed text differs at byte %zu: \"%.*s\"", name, at, (int)length,
                         part);
    }
    ck_assert_uint_eq(at, expected_size);
    ganq__decoder_free(decoder);
    ganq_free(decoded);
    ganq_free(ids);
}

#endif
