/* test_components.c - every component of tokenizer.json against ids of the `tokenizers` package
 * (make_golden.py), and the same for a SentencePiece model with rules. Needs no data. */
#include "golden.h"

static const json_t *variant_at(const json_t *golden, int i) {
    return json_array_get(json_object_get(golden, "variants"), (size_t)i);
}

START_TEST(component) {
    json_t *golden = golden_load("golden_components.json");
    const json_t *variant = variant_at(golden, _i), *cases = json_object_get(variant, "cases");
    const char *name = json_string_value(json_object_get(variant, "name"));
    json_t *root = variant_json(golden, variant);
    ganq_tokenizer *tokenizer;
    ck_ganq_ok(load_json(root, &tokenizer));
    ck_assert_int_eq(ganq__tokenizer_bos(tokenizer),
                     json_integer_value(json_object_get(variant, "bos")));
    ck_assert_uint_gt(json_array_size(cases), 8);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i), *plain = json_array_get(one, 1),
                     *special = json_array_get(one, 2), *decoded = json_array_get(one, 3),
                     *text = json_array_get(one, 0);
        check_ids(tokenizer, name, json_string_value(text), json_string_length(text), 0, plain);
        check_ids(tokenizer, name, json_string_value(text), json_string_length(text),
                  GANQ_ENCODE_SPECIAL, json_is_null(special) ? plain : special);
        decoded = json_is_null(decoded) ? text : decoded;
        /* Text that no token stands for comes back as U+FFFD there and as its bytes here. */
        if (json_is_true(json_object_get(variant, "same_text")) &&
            !strstr(json_string_value(decoded), "\xef\xbf\xbd"))
            check_decoded(tokenizer, name, json_string_value(text), json_string_length(text),
                          json_string_value(decoded), json_string_length(decoded));
    }
    ganq__tokenizer_free(tokenizer);
    json_decref(root);
    json_decref(golden);
}
END_TEST

/* Metaspace: the spaces that the text began with come back, all but the one that was put there. */
START_TEST(metaspace_keeps_leading_spaces) {
    json_t *golden = golden_load("golden_components.json");
    static const char text[] = "  two leading spaces, the  end ";
    int checked = 0;
    for (size_t i = 0; i < json_array_size(json_object_get(golden, "variants")); i++) {
        const json_t *variant = variant_at(golden, (int)i);
        const char *name = json_string_value(json_object_get(variant, "name"));
        if (strncmp(name, "metaspace", 9) != 0 || strstr(name, "never"))
            continue;
        json_t *root = variant_json(golden, variant);
        ganq_tokenizer *tokenizer;
        ck_ganq_ok(load_json(root, &tokenizer));
        /* A text that begins with a space gets none in front, so one of its own is stripped. */
        check_decoded(tokenizer, name, text, sizeof text - 1, text + 1, sizeof text - 2);
        check_decoded(tokenizer, name, text + 2, sizeof text - 3, text + 2, sizeof text - 3);
        ganq__tokenizer_free(tokenizer);
        json_decref(root);
        checked++;
    }
    ck_assert_int_gt(checked, 3);
    json_decref(golden);
}
END_TEST

/* What stands behind a special token comes back with its spaces: a mark was put in front of the text's beginning alone
 * ("first"), or of this piece, too ("always"). */
START_TEST(metaspace_behind_special_tokens) {
    static const char file[] =
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],"
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"%s\",\"split\":false},"
        "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"%s\",\"split\":false},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"\xe2\x96\x81\":1,\"a\":2},\"merges\":[]}}";
    static const char *const schemes[] = {"first", "always"}, *const texts[] = {"<s>  a a", "a<s>  a", "<s>a"};
    const char *scheme = schemes[_i];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        ganq_tokenizer *tokenizer;
        json_error_t error;
        char text[1024], *decoded;
        int32_t *ids;
        size_t count, length;
        snprintf(text, sizeof text, file, scheme, scheme);
        json_t *root = json_loads(text, 0, &error);
        ck_assert_msg(root != NULL, "%s", error.text);
        ck_ganq_ok(load_json(root, &tokenizer));
        ck_ganq_ok(ganq__tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), GANQ_ENCODE_SPECIAL, &ids, &count));
        ck_ganq_ok(ganq__tokenizer_decode(tokenizer, ids, count, 0, &decoded, &length));
        /* "always" puts no mark in front of a space, and takes one away at the first piece alone. */
        ck_assert_str_eq(decoded, _i == 1 && i == 0 ? "<s> a a" : texts[i]);
        ganq_free(decoded);
        ganq_free(ids);
        ganq__tokenizer_free(tokenizer);
        json_decref(root);
    }
}
END_TEST

/* BOS goes in front where tokenizer.json's post-processor puts it, whatever the configs say: ids of `transformers` 5.24. */
START_TEST(bos_by_rule) {
    static const char file[] = "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],\"post_processor\":%s,"
                               "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"a\":1},\"merges\":[]}}";
    static const char rule[] =
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
        "\"type_id\":0}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[0],\"tokens\":[\"<s>\"]}}}";
    static const char *const configs[] = {"{\"bos_token\":\"<s>\"}", "{\"bos_token\":\"<s>\",\"add_bos_token\":true}",
                                          "{\"bos_token\":\"<s>\",\"add_bos_token\":false}", "{\"bos_token\":null}", "{}"};
    const int has_rule = _i % 2;
    const char *config = configs[_i / 2];
    char dir[256], text[1024];
    ganq_tokenizer *tokenizer;
    int32_t *ids;
    size_t count;
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(text, sizeof text, file, has_rule ? rule : "null");
    write_text(dir, "tokenizer.json", text, strlen(text));
    write_text(dir, "tokenizer_config.json", config, strlen(config));
    write_text(dir, "config.json", "{\"bos_token_id\":0}", 18);
    ck_ganq_ok(ganq__tokenizer_load(dir, &tokenizer));
    ck_ganq_ok(ganq__tokenizer_encode(tokenizer, "a", 1, GANQ_ENCODE_BOS, &ids, &count));
    ck_assert_uint_eq(count, has_rule ? 2 : 1);
    ck_assert_int_eq(ids[0], has_rule ? 0 : 1);
    ck_assert_int_eq(ganq__tokenizer_bos(tokenizer), strstr(config, "null") ? -1 : 0); /* its id is another matter */
    ganq_free(ids);
    ganq__tokenizer_free(tokenizer);
    ck_ganq_ok(ganq__remove_tree(dir));
}
END_TEST

/* Files without such a rule: SentencePiece's begins with BOS, GPT-2's does not, unless add_bos_token says otherwise. */
START_TEST(bos_by_config) {
    static const struct {
        const char *config;
        int vocab, piece; /* ids in front: of vocab.json, of tokenizer.model */
    } cases[] = {{"{}", 0, 1}, {"{\"add_bos_token\":true}", 1, 1}, {"{\"add_bos_token\":false}", 0, 0}};
    static const char vocab[] = "{\"a\":0,\"<|endoftext|>\":1}";
    for (int file = 0; file < 2; file++) {
        char dir[256], *model;
        ganq_tokenizer *tokenizer;
        int32_t *ids;
        size_t count, size;
        snprintf(dir, sizeof dir, "%s", test_dir());
        if (file == 0) {
            write_text(dir, "vocab.json", vocab, sizeof vocab - 1);
            write_text(dir, "merges.txt", "", 0);
        } else {
            ck_ganq_ok(ganq__file_read(golden_path("sample_rules.model"), 1 << 24, &model, &size));
            write_text(dir, "tokenizer.model", model, size);
            ganq_free(model);
        }
        write_text(dir, "tokenizer_config.json", cases[_i].config, strlen(cases[_i].config));
        ck_ganq_ok(ganq__tokenizer_load(dir, &tokenizer));
        ck_ganq_ok(ganq__tokenizer_encode(tokenizer, "a", 1, GANQ_ENCODE_BOS, &ids, &count));
        ck_assert_int_ge(ganq__tokenizer_bos(tokenizer), 0);
        ck_assert_int_eq(count > 1 && ids[0] == ganq__tokenizer_bos(tokenizer), file ? cases[_i].piece : cases[_i].vocab);
        ganq_free(ids);
        ganq__tokenizer_free(tokenizer);
        ck_ganq_ok(ganq__remove_tree(dir));
    }
}
END_TEST

START_TEST(sentencepiece_rules) {
    json_t *cases = golden_load("sample_rules.json");
    ganq_tokenizer *tokenizer;
    ck_ganq_ok(ganq__tokenizer_load(golden_path("sample_rules.model"), &tokenizer));
    ck_assert_uint_gt(json_array_size(cases), 40);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i), *text = json_array_get(one, 0);
        check_ids(tokenizer, "sample_rules.model", json_string_value(text),
                  json_string_length(text), 0, json_array_get(one, 1));
    }
    ck_assert_int_eq(ganq__tokenizer_bos(tokenizer), 1);
    ck_assert_int_eq(ganq__tokenizer_eos(tokenizer), 2);
    ck_assert_str_eq(ganq__tokenizer_piece(tokenizer, 0), "<unk>");
    ck_assert_int_ge(ganq__tokenizer_id(tokenizer, "<tool>"), 3);
    ganq__tokenizer_free(tokenizer);
    json_decref(cases);
}
END_TEST

int main(void) {
    json_t *golden = json_load_file(golden_path("golden_components.json"), 0, NULL);
    int variants = (int)json_array_size(json_object_get(golden, "variants"));
    json_decref(golden);
    Suite *suite = suite_create("tokenizer components");
    TCase *all = tcase_create("golden");
    tcase_set_timeout(all, 120);
    tcase_add_loop_test(all, component, 0, variants ? variants : 1);
    tcase_add_test(all, metaspace_keeps_leading_spaces);
    tcase_add_loop_test(all, metaspace_behind_special_tokens, 0, 2);
    tcase_add_loop_test(all, bos_by_rule, 0, 10);
    tcase_add_loop_test(all, bos_by_config, 0, 3);
    tcase_add_test(all, sentencepiece_rules);
    suite_add_tcase(suite, all);
    return test_run(suite, 0);
}
