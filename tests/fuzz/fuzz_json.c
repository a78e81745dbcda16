/* fuzz_json.c - any bytes as JSON: refused with a place, or a value whose fields can be asked for.
 */
#include "fuzz.h"

#include <string.h>

#include "json.h"

static void ask_for_fields(const json_t *object) {
    const char *key, *text;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        int64_t integer;
        double real;
        int truth;
        int taken = ganq__json_int(object, key, "x.json", -100, 100, 0, &integer) == GANQ_OK;
        FUZZ_CHECK(!taken || (integer >= -100 && integer <= 100));
        taken += ganq__json_double(object, key, "x.json", 0, &real) == GANQ_OK;
        taken += ganq__json_bool(object, key, "x.json", 0, &truth) == GANQ_OK;
        taken += ganq__json_string(object, key, "x.json", "", &text) == GANQ_OK;
        FUZZ_CHECK(taken <= 2 || json_is_null(value)); /* an integer is a number */
        FUZZ_CHECK((ganq__json_require(object, key, "x.json") == GANQ_OK) == !json_is_null(value));
        ask_for_fields(value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *value = NULL;
    for (int64_t line = 0; line < 2; line++) {
        ganq_status status =
            ganq__json_parse_line((const char *)data, size, "x.json", line, &value);
        if (status == GANQ_OK) {
            ask_for_fields(value);
            json_decref(value);
        } else {
            FUZZ_CHECK(status == GANQ_ERR_FORMAT && strstr(ganq_last_error(), "x.json: line "));
        }
    }
    return 0;
}
