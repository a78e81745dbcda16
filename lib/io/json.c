/* json.c - JSON files through Jansson: every message names the file, the line or the key, what was
 * expected and found. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "file.h"
#include "json.h"

/* Largest JSON file that is read; tokenizer.json files reach tens of megabytes. */
static const uint64_t max_file_bytes = UINT64_C(1) << 30;

static const char *type_name(const json_t *value) {
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}

/* Python writes integers of any length (model_max_length is often 10^30), Jansson has 64 bits:
 * integers of 19 digits and more get an exponent, so that they are read as real numbers. */
static ganq_status spell_long_integers_as_reals(const char *text, size_t size, ganq__buffer *out) {
    size_t copied = 0;
    int in_string = 0;
    for (size_t i = 0; i < size;) {
        if (in_string) {
            if (text[i] == '"')
                in_string = 0;
            i += text[i] == '\\' && i + 1 < size ? 2 : 1;
            continue;
        }
        if (text[i] == '"')
            in_string = 1;
        size_t digits = 0;
        while (i + digits < size && text[i + digits] >= '0' && text[i + digits] <= '9')
            digits++;
        i += digits ? digits : 1;
        int is_real = i < size && (text[i] == '.' || text[i] == 'e' || text[i] == 'E');
        if (digits >= 19 && !is_real) {
            GANQ_TRY(ganq__buffer_append(out, text + copied, i - copied));
            GANQ_TRY(ganq__buffer_append(out, "e0", 2));
            copied = i;
        }
    }
    return ganq__buffer_append(out, text + copied, size - copied);
}

ganq_status ganq__json_parse_line(const char *text, size_t size, const char *what, int64_t line,
                                  json_t **out) {
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | (line ? JSON_ALLOW_NUL : 0);
    json_error_t error;
    if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) { /* byte order mark */
        text += 3;
        size -= 3;
    }
    json_t *value = json_loadb(text, size, flags, &error);
    if (!value && json_error_code(&error) == json_error_numeric_overflow) {
        ganq__buffer respelled = {0};
        ganq_status status = spell_long_integers_as_reals(text, size, &respelled);
        if (status == GANQ_OK)
            value = json_loadb(respelled.data, respelled.size, flags, &error);
        ganq__buffer_free(&respelled);
        GANQ_TRY(status);
    }
    if (!value && json_error_code(&error) == json_error_out_of_memory)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "%s: no memory for %zu bytes of JSON", what, size);
    if (!value)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: line %" PRId64 ", column %d: %s", what,
                  (line ? line - 1 : 0) + error.line, error.column, error.text);
    *out = value;
    return GANQ_OK;
}

ganq_status ganq__json_parse(const char *text, size_t size, const char *what, json_t **out) {
    return ganq__json_parse_line(text, size, what, 0, out);
}

ganq_status ganq__json_load(const char *path, json_t **out) {
    char *text;
    size_t size;
    GANQ_TRY(ganq__file_read(path, max_file_bytes, &text, &size));
    ganq_status status = ganq__json_parse(text, size, path, out);
    ganq__free(text);
    return status;
}

ganq_status ganq__json_save(const char *path, const json_t *value) {
    ganq__buffer text = {0};
    char *dump = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (!dump)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "%s: the JSON value cannot be written as text", path);
    ganq_status status = ganq__buffer_printf(&text, "%s\n", dump);
    free(dump);
    if (status == GANQ_OK)
        status = ganq__file_write(path, text.data, text.size);
    ganq__buffer_free(&text);
    return status;
}

/* *value NULL when the key is missing or null. */
static ganq_status get(const json_t *object, const char *key, const char *what,
                       const json_t **value) {
    if (!json_is_object(object))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\" is looked for in an object, found %s", what, key,
                  type_name(object));
    const json_t *found = json_object_get(object, key);
    *value = json_is_null(found) ? NULL : found;
    return GANQ_OK;
}

ganq_status ganq__json_int(const json_t *object, const char *key, const char *what, int64_t low,
                           int64_t high, int64_t fallback, int64_t *out) {
    const json_t *value;
    GANQ_TRY(get(object, key, what, &value));
    if (value && !json_is_integer(value))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\": expected an integer, found %s", what, key,
                  type_name(value));
    int64_t number = value ? (int64_t)json_integer_value(value) : fallback;
    if (value && (number < low || number > high))
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: \"%s\": expected an integer from %" PRId64 " to %" PRId64 ", found %" PRId64,
                  what, key, low, high, number);
    *out = number;
    return GANQ_OK;
}

ganq_status ganq__json_double(const json_t *object, const char *key, const char *what,
                              double fallback, double *out) {
    const json_t *value;
    GANQ_TRY(get(object, key, what, &value));
    if (value && !json_is_number(value))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\": expected a number, found %s", what, key,
                  type_name(value));
    *out = value ? json_number_value(value) : fallback;
    return GANQ_OK;
}

ganq_status ganq__json_bool(const json_t *object, const char *key, const char *what, int fallback,
                            int *out) {
    const json_t *value;
    GANQ_TRY(get(object, key, what, &value));
    if (value && !json_is_boolean(value))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\": expected true or false, found %s", what, key,
                  type_name(value));
    *out = value ? json_is_true(value) : fallback;
    return GANQ_OK;
}

ganq_status ganq__json_string(const json_t *object, const char *key, const char *what,
                              const char *fallback, const char **out) {
    const json_t *value;
    GANQ_TRY(get(object, key, what, &value));
    if (value && !json_is_string(value))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\": expected a string, found %s", what, key,
                  type_name(value));
    *out = value ? json_string_value(value) : fallback;
    return GANQ_OK;
}

ganq_status ganq__json_require(const json_t *object, const char *key, const char *what) {
    const json_t *value;
    GANQ_TRY(get(object, key, what, &value));
    if (!value)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\" is missing", what, key);
    return GANQ_OK;
}
