/* json.h - JSON files through Jansson, with messages that name the file, the line and the key. */
#ifndef GANQ_IO_JSON_H
#define GANQ_IO_JSON_H

#include <jansson.h>

#include "status.h"

/* Duplicate keys are an error. FORMAT with file, line, column. */
ganq_status ganq__json_parse(const char *text, size_t size, const char *what, json_t **out);
/* One line of a file of JSON lines: `line` (from 1) is for the message, and strings may hold
 * U+0000. */
ganq_status ganq__json_parse_line(const char *text, size_t size, const char *what, int64_t line,
                                  json_t **out);
ganq_status ganq__json_load(const char *path, json_t **out);
/* Pretty-printed, ends with a newline, atomic. */
ganq_status ganq__json_save(const char *path, const json_t *value);

/* Reading an object's fields; `what` (a path) is for messages. A missing or null key gives the
 * fallback; a wrong type or a value outside [low, high] is FORMAT with file, key, expected, found.
 */
ganq_status ganq__json_int(const json_t *object, const char *key, const char *what, int64_t low,
                           int64_t high, int64_t fallback, int64_t *out);
ganq_status ganq__json_double(const json_t *object, const char *key, const char *what,
                              double fallback, double *out);
ganq_status ganq__json_bool(const json_t *object, const char *key, const char *what, int fallback,
                            int *out);
/* Borrowed; fallback may be NULL. */
ganq_status ganq__json_string(const json_t *object, const char *key, const char *what,
                              const char *fallback, const char **out);
/* FORMAT "missing" when the key is not there. */
ganq_status ganq__json_require(const json_t *object, const char *key, const char *what);

#endif
