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
    tcase_add_test(all, sentencepiece_rules);
    suite_add_tcase(suite, all);
    return test_run(suite, 0);
}
