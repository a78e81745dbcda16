/* test_json.c - JSON files: what is refused, and in which words. */
#include "check_util.h"

#include "alloc.h"
#include "file.h"
#include "json.h"

static char dir[256];

static void make_dir(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
}
static void remove_dir(void) {
    ck_ganq_ok(ganq__remove_tree(dir));
}

static const char *in_dir(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static json_t *parse(const char *text) {
    json_t *value = NULL;
    ck_ganq_ok(ganq__json_parse(text, strlen(text), "t.json", &value));
    return value;
}

START_TEST(syntax_errors_name_the_place) {
    static const struct {
        const char *text, *words;
    } table[] = {
        {"", "t.json: line 1"},
        {"{\n\n \"a\": }", "t.json: line 3, column"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{} {}", "end of file expected"},
        {"{\"a\":1", "t.json: line 1"},
        {"[1,]", "t.json: line 1"},
        {"\"\xff\"", "byte 0xff"},
        {"\"\\u0000\"", "u0000"},
        {"[NaN]", "t.json: line 1"},
        {"[1e999]", "overflow"},
        {"nul", "t.json: line 1"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        json_t *value = (json_t *)1;
        ck_ganq_fails(ganq__json_parse(table[i].text, strlen(table[i].text), "t.json", &value),
                      GANQ_ERR_FORMAT, table[i].words);
        ck_assert_ptr_eq(value, (void *)1);
    }
    char deep[10000];
    memset(deep, '[', sizeof deep);
    json_t *value;
    ck_ganq_fails(ganq__json_parse(deep, sizeof deep, "t.json", &value), GANQ_ERR_FORMAT, "depth");
    ck_ganq_fails(ganq__json_parse_line("{]", 2, "t.jsonl", 17, &value), GANQ_ERR_FORMAT,
                  "t.jsonl: line 17, column");
}
END_TEST

START_TEST(accepted_variants) {
    json_t *value = parse("\xef\xbb\xbf {\"a\": 1} ");
    ck_assert_int_eq(json_integer_value(json_object_get(value, "a")), 1);
    json_decref(value);
    value = parse("\"text\"");
    ck_assert_str_eq(json_string_value(value), "text");
    json_decref(value);
    ck_ganq_ok(ganq__json_parse_line("\"a\\u0000b\"", 10, "t.jsonl", 1, &value));
    ck_assert_uint_eq(json_string_length(value), 3);
    json_decref(value);
}
END_TEST

/* transformers writes "model_max_length": 1000000000000000019884624838656 */
START_TEST(integers_of_any_length) {
    json_t *value = parse(
        "{\"a\\\"1\": \"12345678901234567890\", \"n\": 1000000000000000019884624838656,\n"
        " \"m\": [-99999999999999999999, 7, 12345678901234567890.5, 0.10000000000000000000001]}");
    ck_assert_str_eq(json_string_value(json_object_get(value, "a\"1")), "12345678901234567890");
    ck_assert(json_real_value(json_object_get(value, "n")) == 1e30);
    const json_t *list = json_object_get(value, "m");
    ck_assert(json_real_value(json_array_get(list, 0)) == -1e20);
    ck_assert_int_eq(json_integer_value(json_array_get(list, 1)), 7);
    ck_assert(json_real_value(json_array_get(list, 2)) == 12345678901234567890.5);
    ck_assert(json_real_value(json_array_get(list, 3)) == 0.1);
    json_decref(value);
}
END_TEST

START_TEST(fields) {
    json_t *o = parse("{\"i\": 7, \"r\": 0.5, \"s\": \"x\", \"t\": true, \"z\": null, \"l\": []}");
    int64_t i = -1;
    double d = -1;
    int b = -1;
    const char *s = "?";
    ck_ganq_ok(ganq__json_int(o, "i", "c.json", 0, 7, 3, &i));
    ck_assert_int_eq(i, 7);
    ck_ganq_ok(ganq__json_int(o, "none", "c.json", 0, 7, 99, &i)); /* a fallback may lie outside */
    ck_assert_int_eq(i, 99);
    ck_ganq_ok(ganq__json_int(o, "z", "c.json", 0, 7, 3, &i));
    ck_assert_int_eq(i, 3);
    ck_ganq_fails(ganq__json_int(o, "i", "c.json", 8, 9, 3, &i), GANQ_ERR_FORMAT,
                  "c.json: \"i\": expected an integer from 8 to 9, found 7");
    ck_ganq_fails(ganq__json_int(o, "r", "c.json", 0, 9, 3, &i), GANQ_ERR_FORMAT,
                  "c.json: \"r\": expected an integer, found a real number");
    ck_assert_int_eq(i, 3);
    ck_ganq_ok(ganq__json_double(o, "i", "c.json", 0, &d));
    ck_assert(d == 7);
    ck_ganq_ok(ganq__json_double(o, "none", "c.json", 0.25, &d));
    ck_assert(d == 0.25);
    ck_ganq_fails(ganq__json_double(o, "s", "c.json", 0, &d), GANQ_ERR_FORMAT,
                  "expected a number, found a string");
    ck_ganq_ok(ganq__json_bool(o, "t", "c.json", 0, &b));
    ck_assert_int_eq(b, 1);
    ck_ganq_ok(ganq__json_bool(o, "none", "c.json", 0, &b));
    ck_assert_int_eq(b, 0);
    ck_ganq_fails(ganq__json_bool(o, "l", "c.json", 0, &b), GANQ_ERR_FORMAT,
                  "expected true or false, found a list");
    ck_ganq_ok(ganq__json_string(o, "s", "c.json", NULL, &s));
    ck_assert_str_eq(s, "x");
    ck_ganq_ok(ganq__json_string(o, "none", "c.json", NULL, &s));
    ck_assert_ptr_null(s);
    ck_ganq_fails(ganq__json_string(o, "t", "c.json", NULL, &s), GANQ_ERR_FORMAT,
                  "expected a string, found true");
    ck_ganq_ok(ganq__json_require(o, "l", "c.json"));
    ck_ganq_fails(ganq__json_require(o, "none", "c.json"), GANQ_ERR_FORMAT,
                  "c.json: \"none\" is missing");
    ck_ganq_fails(ganq__json_require(o, "z", "c.json"), GANQ_ERR_FORMAT, "\"z\" is missing");
    ck_ganq_fails(ganq__json_int(json_object_get(o, "l"), "k", "c.json", 0, 1, 0, &i),
                  GANQ_ERR_FORMAT, "in an object, found a list");
    ck_ganq_fails(ganq__json_require(NULL, "k", "c.json"), GANQ_ERR_FORMAT,
                  "in an object, found nothing");
    json_decref(o);
}
END_TEST

START_TEST(files) {
    json_t *value = parse("{\"b\":[1,0.5],\"a\":\"\xc3\xa9\"}"), *again = NULL;
    char *text;
    size_t size;
    ck_ganq_ok(ganq__json_save(in_dir("a.json"), value));
    ck_ganq_ok(ganq__file_read(in_dir("a.json"), 1000, &text, &size));
    ck_assert_str_eq(text, "{\n  \"b\": [\n    1,\n    0.5\n  ],\n  \"a\": \"\xc3\xa9\"\n}\n");
    ganq__free(text);
    ck_ganq_ok(ganq__json_load(in_dir("a.json"), &again));
    ck_assert(json_equal(value, again));
    json_decref(again);
    ck_ganq_fails(ganq__json_load(in_dir("b.json"), &again), GANQ_ERR_NOT_FOUND, "b.json");
    ck_ganq_fails(ganq__json_load(dir, &again), GANQ_ERR_IO, dir);
    ck_ganq_fails(ganq__json_save(in_dir("no/a.json"), value), GANQ_ERR_NOT_FOUND, "no/a.json");
    ck_ganq_ok(ganq__file_write(in_dir("c.json"), "{\n\"a\" 1}", 8));
    ck_ganq_fails(ganq__json_load(in_dir("c.json"), &again), GANQ_ERR_FORMAT,
                  "c.json: line 2, column");
    for (int64_t n = 1, done = 0; !done; n++) {
        again = NULL;
        ganq__alloc_fail_after(n);
        ganq_status status = ganq__json_save(in_dir("d.json"), value);
        if (status == GANQ_OK)
            status = ganq__json_load(in_dir("d.json"), &again);
        done = ganq__alloc_count() < n;
        ganq__alloc_fail_after(0);
        json_decref(again);
        if (status != GANQ_OK) /* a directory's flush may fail silently */
            ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
        ck_assert(!done || (status == GANQ_OK && n > 2));
    }
    json_decref(value);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("json");
    TCase *tcase = tcase_create("json");
    tcase_add_checked_fixture(tcase, make_dir, remove_dir);
    tcase_add_test(tcase, syntax_errors_name_the_place);
    tcase_add_test(tcase, accepted_variants);
    tcase_add_test(tcase, integers_of_any_length);
    tcase_add_test(tcase, fields);
    tcase_add_test(tcase, files);
    suite_add_tcase(suite, tcase);
    return test_run(suite, 0);
}
