/* common.c - context, signals, messages and small text helpers of the commands. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    if (interrupted)
        _exit(128 + number);
    interrupted = 1;
}

void cli_signals_install(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write, seen at the end */
    signal(SIGXFSZ, SIG_IGN); /* and so is the limit of a file's size */
}

int cli_interrupted(void) {
    return interrupted;
}

/* A message as a line of JSON. Names of files in it need not be UTF-8, as JSON is. */
static void print_json_message(const char *level, const char *message) {
    json_t *line = json_pack("{s:s, s:s}", "level", level, "message", message);
    char *ascii = line ? NULL : strdup(message);
    for (char *at = ascii; at && *at; at++)
        *at = *at & 0x80 ? '?' : *at;
    if (ascii)
        line = json_pack("{s:s, s:s}", "level", level, "message", ascii);
    free(ascii);
    if (line)
        json_dumpf(line, stderr, JSON_COMPACT);
    fputc('\n', stderr);
    json_decref(line);
}

static void message_list(const char *level, const char *format, va_list list) {
    char *text = NULL;
    cli_progress_clear();
    if (cli_progress_is_json() && vasprintf(&text, format, list) >= 0) {
        print_json_message(level, text);
        free(text);
        return;
    }
    fputs("ganq: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
}

void cli_message(const char *format, ...) {
    va_list list;
    va_start(list, format);
    message_list("error", format, list);
    va_end(list);
}

void cli_note(const char *format, ...) {
    va_list list;
    va_start(list, format);
    message_list("info", format, list);
    va_end(list);
}

int cli_usage(const char *format, ...) {
    va_list list;
    va_start(list, format);
    message_list("error", format, list);
    va_end(list);
    return CLI_USAGE;
}

int cli_failed(ganq_status status) {
    if (status == GANQ_ERR_CANCELED) {
        cli_message("interrupted; nothing was written");
        return CLI_INTERRUPTED;
    }
    const char *detail = ganq_last_error();
    cli_message("%s: %s", ganq_status_string(status), *detail ? detail : "no details");
    switch (status) {
    case GANQ_ERR_INVALID_ARG:
        return CLI_USAGE;
    case GANQ_ERR_NOT_FOUND:
    case GANQ_ERR_NO_DEVICE:
        return CLI_NOT_FOUND;
    case GANQ_ERR_EXISTS:
        return CLI_EXISTS;
    default:
        return CLI_FAILURE;
    }
}

static void on_log(ganq_log_level level, const char *message, void *user) {
    static const char *const names[] = {"", "error", "warning", "info", "debug"};
    (void)user;
    int known = level >= GANQ_LOG_ERROR && level <= GANQ_LOG_DEBUG;
    const char *name = known ? names[level] : "message";
    if (cli_progress_is_json())
        print_json_message(name, message);
    else
        cli_message("%s: %s", name, message);
}

int cli_context_create(const cli_common *common, ganq_context **ctx) {
    ganq_context_options options = {.struct_size = sizeof options};
    if (!cli_parse_device(common->device, &options.device, &options.device_index))
        return cli_usage("--device: expected auto, cpu or cuda:I, found \"%s\"", common->device);
    options.threads = (int32_t)common->threads;
    options.numerics = (int32_t)common->numerics;
    options.memory_budget_bytes = common->memory > 0 ? common->memory : 0;
    options.log = on_log;
    options.log_level = (int32_t)common->log + 1;
    cli_progress_install(&options);
    ganq_status status = ganq_context_create(&options, ctx);
    return status == GANQ_OK ? CLI_OK : cli_failed(status);
}

const char *cli_numerics(const ganq_context *ctx) {
    return ganq_context_numerics(ctx) == GANQ_NUMERICS_EXACT ? "exact" : "fast";
}

int cli_print_json(json_t *value) {
    int failed = !value || json_dumpf(value, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) != 0;
    json_decref(value);
    putchar('\n');
    if (failed)
        cli_message("cannot write JSON to standard output");
    return failed ? CLI_FAILURE : CLI_OK;
}

int cli_cannot_create(const char *path) {
    const int reason = errno;
    cli_message("%s: cannot create it: %s", path, strerror(reason));
    return reason == ENOENT ? CLI_NOT_FOUND : CLI_FAILURE;
}

int cli_check_output(const char *path, const char *option, int special_too) {
    struct stat info;
    char *probe = NULL;
    if (!*path)
        return cli_usage("%s: the name of the file is empty", option);
    const int exists = stat(path, &info) == 0;
    if (exists && S_ISDIR(info.st_mode)) {
        cli_message("%s: is a directory; %s needs a file", path, option);
        return CLI_EXISTS;
    }
    if (exists && !S_ISREG(info.st_mode)) {
        if (special_too)
            return CLI_OK;
        cli_message("%s: is a special file; %s needs a plain one", path, option);
        return CLI_EXISTS;
    }
    if (asprintf(&probe, "%s.probe-XXXXXX", path) < 0) {
        cli_message("out of memory");
        return CLI_FAILURE;
    }
    const int fd = mkstemp(probe);
    const int code = fd < 0 ? cli_cannot_create(path) : CLI_OK;
    if (fd >= 0) {
        close(fd);
        unlink(probe);
    }
    free(probe);
    return code;
}

/* Writes into what is there: a pipe or device, in whose place a rename would put a file. */
static int write_in_place(const char *path, const json_t *value) {
    errno = 0;
    return json_dump_file(value, path, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) == 0;
}

/* Under a name of its own beside `path`, then renamed. errno tells why it failed. */
static int write_beside(const char *path, const json_t *value) {
    const size_t length = strlen(path) + sizeof ".partial-XXXXXX";
    char *temporary = malloc(length);
    if (!temporary)
        return 0;
    snprintf(temporary, length, "%s.partial-XXXXXX", path);
    const int fd = mkstemp(temporary);
    const mode_t mask = umask(0); /* mkstemp gives 0600; the file is to be as fopen would make it */
    umask(mask);
    errno = fd < 0 ? errno : 0;
    int written = fd >= 0 && fchmod(fd, 0666 & ~mask) == 0 &&
                  json_dumpfd(value, fd, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) == 0;
    if (fd >= 0)
        written &= close(fd) == 0;
    written = written && rename(temporary, path) == 0;
    const int reason = errno;
    if (fd >= 0 && !written)
        unlink(temporary);
    free(temporary);
    errno = reason;
    return written;
}

int cli_write_json(const char *path, json_t *value) {
    struct stat info;
    const int in_place = stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    int written = 0;
    if (!value) {
        cli_message("%s: cannot write: the report is not valid JSON, or out of memory", path);
    } else {
        written = in_place ? write_in_place(path, value) : write_beside(path, value);
        if (!written)
            cli_message("%s: cannot write: %s", path, strerror(errno));
    }
    json_decref(value);
    return written ? CLI_OK : CLI_FAILURE;
}

/* A cell in words: a text as it is, anything else in `out`. */
static const char *format_cell(const json_t *value, char *out, size_t size) {
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_integer(value))
        snprintf(out, size, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(out, size, "%.4g", json_real_value(value));
    else if (json_is_boolean(value))
        snprintf(out, size, "%s", json_is_true(value) ? "yes" : "no");
    else
        snprintf(out, size, "-");
    return out;
}

/* As RFC 4180 has it. */
static void print_csv_cell(const char *text) {
    const int quoted = text[strcspn(text, ",\"\r\n")] != 0;
    if (quoted)
        putchar('"');
    for (; *text; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    if (quoted)
        putchar('"');
}

int cli_print_rows(json_t *rows, int64_t format) {
    if (format == CLI_FORMAT_JSON) {
        json_t *only = json_array_size(rows) == 1 ? json_array_get(rows, 0) : NULL;
        if (!only)
            return cli_print_json(rows);
        json_incref(only);
        json_decref(rows);
        return cli_print_json(only);
    }
    const char *separator = format == CLI_FORMAT_CSV ? "," : " | ";
    const char *edge = format == CLI_FORMAT_CSV ? "" : "|";
    size_t i;
    json_t *row, *value;
    const char *key;
    json_array_foreach(rows, i, row) {
        for (int line = i == 0 ? 0 : 2; line < 3; line++) { /* keys, rule, values */
            if (line == 1 && format == CLI_FORMAT_CSV)
                continue;
            int column = 0;
            json_object_foreach(row, key, value) {
                char number[64];
                const char *cell = line == 0 ? key : format_cell(value, number, sizeof number);
                if (line == 1)
                    fputs("|---", stdout);
                else
                    fputs(column ? separator : *edge ? "| " : "", stdout);
                if (line != 1 && format == CLI_FORMAT_CSV)
                    print_csv_cell(cell);
                else if (line != 1)
                    fputs(cell, stdout);
                column++;
            }
            printf("%s%s\n", line != 1 && *edge ? " " : "", edge);
        }
    }
    json_decref(rows);
    return CLI_OK;
}

double cli_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Texts that live long enough for one printf. */
static char *ring(void) {
    static char buffers[8][64];
    static unsigned next;
    return buffers[next++ % 8];
}

const char *cli_bytes(double bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    char *text = ring();
    int unit = 0;
    while (bytes >= 1000 && unit < 4) {
        bytes /= 1000;
        unit++;
    }
    snprintf(text, 64, unit ? "%.2f %s" : "%.0f %s", bytes, units[unit]);
    return text;
}

const char *cli_duration(double seconds) {
    char *text = ring();
    long total = (long)(seconds + 0.5);
    if (total >= 3600)
        snprintf(text, 64, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
    else
        snprintf(text, 64, "%ld:%02ld", total / 60, total % 60);
    return text;
}

const char *cli_choice(const char *choices, int64_t i) {
    char *text = ring();
    for (; i > 0; i--) {
        choices += strcspn(choices, "|");
        choices += *choices != 0;
    }
    snprintf(text, 64, "%.*s", (int)strcspn(choices, "|"), choices);
    return text;
}

static int ends_with(const char *text, const char *tail) {
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && !strcmp(text + n - m, tail);
}

int cli_corpus_load(const char *model_dir, const char *text, const ganq_corpus_options *options,
                    ganq_corpus **out) {
    ganq_tokenizer *tokenizer = NULL;
    ganq_status status = GANQ_OK;
    if (!ends_with(text, ".ids") && !ends_with(text, ".ids.gz")) /* these need none */
        status = ganq_tokenizer_load(model_dir, &tokenizer);
    if (status == GANQ_OK)
        status = ganq_corpus_load(tokenizer, text, options, out);
    ganq_tokenizer_free(tokenizer);
    return status == GANQ_OK ? CLI_OK : cli_failed(status);
}
