/* cli.h - what the commands of `ganq` share: options, context, progress, messages, exit codes.
 * The command uses the library's public interface only. */
#ifndef GANQ_CLI_H
#define GANQ_CLI_H

#include <jansson.h>
#include <stdio.h>

#include "ganq/ganq.h"

/* Exit codes; EXIT_CODES_HELP in options.c is their text in --help. */
enum {
    CLI_CONTINUE = -1, /* not an exit code: options were read, go on */
    CLI_OK = 0,
    CLI_FAILURE = 1,
    CLI_USAGE = 2,
    CLI_NOT_FOUND = 3,
    CLI_EXISTS = 4,
    CLI_INTERRUPTED = 130
};

/* ---- options
 * -------------------------------------------------------------------------------------------------
 */

typedef struct cli_list {
    const char **items;
    size_t count;
} cli_list;

typedef enum cli_kind {
    CLI_END = 0,
    CLI_HEADING, /* a line in --help                                                             */
    CLI_FLAG,    /* int *: 1 when given                                                          */
    CLI_TEXT,    /* const char **                                                                */
    CLI_LIST,    /* cli_list *: may be repeated                                                  */
    CLI_INT,     /* int64_t *                                                                    */
    CLI_REAL,    /* double *                                                                     */
    CLI_BYTES,   /* int64_t *: "512M", "8G" (powers of 1024)                                     */
    CLI_CHOICE   /* int64_t *: the index of the word in `argument`, which is "one|two|three"     */
} cli_kind;

/* One line of a command's table. The value a variable has before parsing is the default that --help
 * shows; an empty text, NULL and a negative number show none. */
typedef struct cli_option {
    cli_kind kind;
    char letter; /* 0: none */
    const char *name;
    void *value;
    const char *argument; /* what --help calls the value */
    double low, high;     /* INT, REAL */
    const char *help;
} cli_option;

typedef struct cli_command {
    const char *name;     /* "bench gemm" */
    const char *synopsis; /* after the name: "MODEL OUT [options]" */
    const char *text;     /* what it does, and an example */
    const cli_option *options;
    int min_arguments, max_arguments;
} cli_command;

/* Reads argv[1..argc), options and arguments in any order. arguments: room for max_arguments, NULL
 * where not given. CLI_CONTINUE, or an exit code after a message or --help. */
int cli_parse(const cli_command *command, int argc, char **argv, const char **arguments);
void cli_list_free(cli_list *list);
/* "4096x4096"; 1 when it is one. */
int cli_parse_shape(const char *text, int64_t *N, int64_t *K);
/* --damping where the recipe does not look at it is a mistake: CLI_USAGE. damping < 0: not given. */
int cli_check_damping(double damping, int64_t recipe);
/* A small number stays one: 0 often means something else to the library. */
float cli_float(double value);
/* For options whose 0 means none, and < 0 not given, to what the library calls so: < 0 and 0. */
float cli_fraction(double value);
/* "128:256", rows [first, end). */
int cli_parse_range(const char *text, int64_t *first, int64_t *end);
/* "auto", "cpu", "cuda:1". */
int cli_parse_device(const char *text, int32_t *kind, int32_t *index);

/* The options every command takes. */
typedef struct cli_common {
    const char *device;
    int64_t threads, numerics, progress, memory, log;
} cli_common;
/* clang-format off */
#define CLI_COMMON_DEFAULTS {"auto", 0, 0, 0, -1, 1} /* log: warnings */
#define CLI_COMMON_OPTIONS(common)                                                                 \
    {CLI_HEADING, 0, "Where and how", NULL, NULL, 0, 0, NULL},                                     \
    {CLI_TEXT, 0, "device", &(common).device, "auto|cpu|cuda:I", 0, 0,                             \
     "device to compute on; auto: the best there is"},                                             \
    {CLI_INT, 't', "threads", &(common).threads, "T", 0, 4096,                                     \
     "CPU threads; 0: all CPUs this process may use. Results do not depend on it"},                \
    {CLI_CHOICE, 0, "numerics", &(common).numerics, "default|fast|exact", 0, 0,                    \
     "arithmetic of quantized products: fast is fixed point, exact fp32; "                         \
     "default: $GANQ_NUMERICS, else fast"},                                                        \
    {CLI_BYTES, 0, "memory", &(common).memory, "BYTES", 0, 0,                                      \
     "most memory to plan for, such as 800M or 8G; fails early when it is not enough"},            \
    {CLI_CHOICE, 0, "progress", &(common).progress, "auto|plain|json|none", 0, 0,                  \
     "on standard error. auto: one redrawn line on a terminal, else plain; plain: a line per "     \
     "finished step; json: a JSON object per line, messages (level, message), too"},               \
    {CLI_CHOICE, 0, "log", &(common).log, "error|warning|info|debug", 0, 0,                        \
     "least severe message that is shown"},                                                        \
    {CLI_END, 0, NULL, NULL, NULL, 0, 0, NULL}
/* clang-format on */

/* ---- context, messages
 * --------------------------------------------------------------------------------------- */

/* Ctrl-C and SIGTERM ask running calls to stop; a second one ends the process at once. */
void cli_signals_install(void);
int cli_interrupted(void);

/* A context with the common options, messages and progress on standard error. An exit code on
 * failure. */
int cli_context_create(const cli_common *common, ganq_context **ctx);
/* "fast" or "exact". */
const char *cli_numerics(const ganq_context *ctx);
/* "ganq: <message>" on standard error; {"level": "error", "message": ...} with --progress json. */
void cli_message(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same where nothing went wrong: its level is "info". */
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A message, and CLI_USAGE. */
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The library's last error in words, and the exit code for it. */
int cli_failed(ganq_status status);

/* Compact JSON with a newline on standard output; takes the reference. */
int cli_print_json(json_t *value);
/* Tries a path for an output file before the long work: CLI_OK, or an exit code after a message. `option` names it there;
 * special_too: a pipe or device will do. */
int cli_check_output(const char *path, const char *option, int special_too);
/* errno's reason why `path` cannot be created, and the exit code for it. */
int cli_cannot_create(const char *path);
/* To a file, atomically; takes the reference. */
int cli_write_json(const char *path, json_t *value);
/* Rows that are objects with the same keys, as a table or as JSON (one object when there is one
 * row); takes the reference. */
enum { CLI_FORMAT_MD, CLI_FORMAT_CSV, CLI_FORMAT_JSON };
#define CLI_FORMATS "md|csv|json"
int cli_print_rows(json_t *rows, int64_t format);
double cli_now(void);
/* "1.5 MB", "812 B": in a static ring of buffers. */
const char *cli_bytes(double bytes);
/* "0:42", "1:02:03" */
const char *cli_duration(double seconds);
/* The word at index i of "one|two|three", in a static ring of buffers. */
const char *cli_choice(const char *choices, int64_t i);

/* Tokenizer of a model directory and sequences from a text file. */
int cli_corpus_load(const char *model_dir, const char *text, const ganq_corpus_options *options,
                    ganq_corpus **out);

/* ---- progress
 * ------------------------------------------------------------------------------------------------
 */

enum { CLI_PROGRESS_AUTO, CLI_PROGRESS_PLAIN, CLI_PROGRESS_JSON, CLI_PROGRESS_NONE };
/* Messages and progress take this form from here on. */
void cli_progress_mode(int64_t mode);
void cli_progress_install(ganq_context_options *options);
int cli_progress_is_json(void);
/* Removes the redrawn line, so that other text can be written. */
void cli_progress_clear(void);

/* ---- commands: argv[0] is the command's name
 * ----------------------------------------------------------------- */

int cmd_quantize(int argc, char **argv);
int cmd_quantize_layer(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_bench_gemm(int argc, char **argv);   /* bench_gemm.c */
int cmd_bench_decode(int argc, char **argv); /* bench_decode.c */
int cmd_bench_quantize(int argc, char **argv); /* bench_quantize.c */
int cmd_bench_hessian(int argc, char **argv);  /* bench_hessian.c */
int cmd_bench_tune(int argc, char **argv);   /* bench_tune.c */

/* Reproducible numbers for benchmarks. */
typedef struct cli_random {
    uint64_t state;
} cli_random;
uint64_t cli_random_bits(cli_random *random);
double cli_random_normal(cli_random *random); /* mean 0, deviation 1, nearly normal */
/* Sorts. */
double cli_median(double *values, size_t count);

#define CLI_RECIPES "default|rtn|paper|fast|best"
#define CLI_LUT_DTYPES "f16|f32"
#define CLI_DAMPING_HELP                                                                           \
    "added to diag(H), as a part of its mean; 0: none; default: the recipe's, and more for few "     \
    "tokens; not for rtn and paper"

#endif
