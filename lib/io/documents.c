/* documents.c - text files as documents. Bytes come through zlib, which reads plain files as well.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "buffer.h"
#include "documents.h"
#include "json.h"

enum { CHUNK = 1 << 17 };
/* One line, one plain text, one JSON list: what is held in memory at once. */
static const size_t max_unit_bytes = (size_t)1 << 31;

/* ---- bytes ---- */

typedef struct source {
    const char *path;
    gzFile stream;
    int must_be_gzip;
    char *chunk;
    size_t begin, end; /* of the chunk's unread bytes */
    int64_t line;      /* lines read so far */
} source;

static void source_close(source *in) {
    if (in->stream)
        gzclose_r(in->stream);
    ganq__free(in->chunk);
    memset(in, 0, sizeof *in);
}

static ganq_status source_open(source *in, const char *path, int must_be_gzip) {
    struct stat info;
    *in = (source){.path = path, .must_be_gzip = must_be_gzip};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        GANQ_FAIL(errno == ENOENT || errno == ENOTDIR ? GANQ_ERR_NOT_FOUND : GANQ_ERR_IO,
                  "%s: cannot open: %s", path, strerror(errno));
    if (!fstat(fd, &info) && S_ISDIR(info.st_mode)) {
        close(fd);
        GANQ_FAIL(GANQ_ERR_IO, "%s: is a directory, not a file", path);
    }
    in->chunk = ganq__malloc(CHUNK, 1);
    if (!in->chunk) {
        close(fd);
        return GANQ_ERR_NO_MEMORY;
    }
    in->stream = gzdopen(fd, "rb");
    if (!in->stream) {
        close(fd);
        source_close(in);
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "%s: no memory to read it", path);
    }
    return GANQ_OK;
}

/* Refills the chunk when it is empty; it stays empty at the end of the file. */
static ganq_status source_fill(source *in) {
    if (in->begin < in->end)
        return GANQ_OK;
    int got = gzread(in->stream, in->chunk, CHUNK);
    int error = Z_OK;
    const char *words = gzerror(in->stream, &error);
    if (error == Z_MEM_ERROR)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "%s: no memory to read it", in->path);
    if (error == Z_ERRNO)
        GANQ_FAIL(GANQ_ERR_IO, "%s: cannot read: %s", in->path, strerror(errno));
    if (error == Z_BUF_ERROR)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: the gzip data end too early", in->path);
    if (got < 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: damaged gzip data: %s", in->path, words);
    if (in->must_be_gzip && gzdirect(in->stream))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: expected gzip data, found something else", in->path);
    in->begin = 0;
    in->end = (size_t)got;
    return GANQ_OK;
}

static ganq_status append(const source *in, ganq__buffer *out, const char *data, size_t size) {
    if (size > max_unit_bytes - out->size)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: a document of more than %zu bytes (line %" PRId64 ")",
                  in->path, max_unit_bytes, in->line + 1);
    return ganq__buffer_append(out, data, size);
}

/* The next line without its end; *more = 0 when there is none. */
static ganq_status read_line(source *in, ganq__buffer *line, int *more) {
    line->size = 0;
    for (int started = 0;; started = 1) {
        GANQ_TRY(source_fill(in));
        if (in->begin == in->end) {
            in->line += started;
            *more = started;
            return GANQ_OK;
        }
        const char *start = in->chunk + in->begin;
        const char *newline = memchr(start, '\n', in->end - in->begin);
        size_t size = newline ? (size_t)(newline - start) : in->end - in->begin;
        GANQ_TRY(append(in, line, start, size));
        in->begin += size + (newline != NULL);
        if (newline) {
            in->line++;
            *more = 1;
            return GANQ_OK;
        }
    }
}

static ganq_status read_rest(source *in, ganq__buffer *all) {
    for (;;) {
        GANQ_TRY(source_fill(in));
        if (in->begin == in->end)
            return GANQ_OK;
        GANQ_TRY(append(in, all, in->chunk + in->begin, in->end - in->begin));
        in->begin = in->end;
    }
}

static int is_blank(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (!isspace((unsigned char)text[i]))
            return 0;
    return 1;
}

/* ---- formats ---- */

/* A string, or an object with the string "text"; NULL for anything else. */
static const json_t *text_of(const json_t *value) {
    if (json_is_object(value))
        value = json_object_get(value, "text");
    return json_is_string(value) ? value : NULL;
}

static ganq_status hand_out(const json_t *text, ganq__document_fn fn, void *user, int *stop) {
    const ganq__document document = {.text = json_string_value(text),
                                     .length = json_string_length(text)};
    return fn(user, &document, stop);
}

static ganq_status read_json_line(source *in, const ganq__buffer *line, ganq__document_fn fn,
                                  void *user, int *stop) {
    json_t *value;
    GANQ_TRY(ganq__json_parse_line(line->data, line->size, in->path, in->line, &value));
    const json_t *text = text_of(value);
    ganq_status status = GANQ_ERR_FORMAT;
    if (text)
        status = hand_out(text, fn, user, stop);
    else
        ganq__fail("%s: line %" PRId64 ": expected a string or an object with a string \"text\"",
                   in->path, in->line);
    json_decref(value);
    return status;
}

static ganq_status read_id_line(source *in, const ganq__buffer *line, ganq__document_fn fn,
                                void *user, int *stop) {
    /* an id and its separator take two bytes at least */
    int32_t *ids = ganq__malloc(line->size / 2 + 1, sizeof *ids);
    if (!ids)
        return GANQ_ERR_NO_MEMORY;
    size_t count = 0;
    for (const char *at = line->data, *end = at + line->size; at < end;) {
        if (isspace((unsigned char)*at) || *at == ',') {
            at++;
            continue;
        }
        int64_t id = 0;
        const char *digit = at;
        for (; digit < end && isdigit((unsigned char)*digit) && id <= INT32_MAX; digit++)
            id = id * 10 + (*digit - '0');
        if (id > INT32_MAX || (digit < end && !isspace((unsigned char)*digit) && *digit != ',')) {
            ganq__fail("%s: line %" PRId64 ", column %td: expected a token id, found \"%.*s\"",
                       in->path, in->line, at - line->data + 1,
                       (int)(end - at < 16 ? end - at : 16), at);
            ganq__free(ids);
            return GANQ_ERR_FORMAT;
        }
        ids[count++] = (int32_t)id;
        at = digit;
    }
    const ganq__document document = {.ids = ids, .id_count = count};
    ganq_status status = fn(user, &document, stop);
    ganq__free(ids);
    return status;
}

typedef ganq_status (*line_fn)(source *in, const ganq__buffer *line, ganq__document_fn fn,
                               void *user, int *stop);

static ganq_status read_lines(source *in, line_fn read, ganq__document_fn fn, void *user) {
    ganq__buffer line = {0};
    ganq_status status;
    int more = 1, stop = 0;
    while (!stop) {
        GANQ_TRY_GOTO(free_line, read_line(in, &line, &more));
        if (!more)
            break;
        if (!is_blank(line.data, line.size))
            GANQ_TRY_GOTO(free_line, read(in, &line, fn, user, &stop));
    }
    status = GANQ_OK;
free_line:
    ganq__buffer_free(&line);
    return status;
}

static ganq_status read_list(source *in, ganq__document_fn fn, void *user) {
    ganq__buffer all = {0};
    json_t *list = NULL;
    ganq_status status;
    int stop = 0;
    GANQ_TRY_GOTO(free_all, read_rest(in, &all));
    GANQ_TRY_GOTO(free_all, ganq__json_parse_line(all.data, all.size, in->path, 1, &list));
    for (size_t i = 0; !stop && i < json_array_size(list); i++) {
        const json_t *text = text_of(json_array_get(list, i));
        if (!text)
            GANQ_FAIL_GOTO(free_all, GANQ_ERR_FORMAT,
                           "%s: entry %zu: expected a string or an object with a string \"text\"",
                           in->path, i);
        GANQ_TRY_GOTO(free_all, hand_out(text, fn, user, &stop));
    }
free_all:
    json_decref(list);
    ganq__buffer_free(&all);
    return status;
}

static ganq_status read_json(source *in, ganq__document_fn fn, void *user) {
    size_t i;
    GANQ_TRY(source_fill(in));
    for (i = in->begin; i < in->end; i++)
        if (!strchr(" \t\r\n\xef\xbb\xbf", in->chunk[i])) /* white space, byte order mark */
            break;
    if (i < in->end && in->chunk[i] == '[')
        return read_list(in, fn, user);
    return read_lines(in, read_json_line, fn, user);
}

static ganq_status read_plain(source *in, ganq__document_fn fn, void *user) {
    ganq__buffer all = {0};
    int stop = 0;
    ganq_status status = read_rest(in, &all);
    if (status == GANQ_OK && all.size) {
        const ganq__document document = {.text = all.data, .length = all.size};
        status = fn(user, &document, &stop);
    }
    ganq__buffer_free(&all);
    return status;
}

/* Does the name, of which `length` characters count, end so? */
static int ends_in(const char *name, size_t length, const char *ending) {
    size_t size = strlen(ending);
    return length >= size && !strncasecmp(name + length - size, ending, size);
}

ganq_status ganq__documents_read(const char *path, ganq__document_fn fn, void *user) {
    source in;
    size_t length = strlen(path);
    int gzip = ends_in(path, length, ".gz");
    length -= gzip ? 3 : 0;
    GANQ_TRY(source_open(&in, path, gzip));
    ganq_status status;
    if (ends_in(path, length, ".jsonl"))
        status = read_lines(&in, read_json_line, fn, user);
    else if (ends_in(path, length, ".json"))
        status = read_json(&in, fn, user);
    else if (ends_in(path, length, ".ids"))
        status = read_lines(&in, read_id_line, fn, user);
    else
        status = read_plain(&in, fn, user);
    source_close(&in);
    return status;
}
