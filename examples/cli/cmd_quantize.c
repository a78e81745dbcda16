/* cmd_quantize.c - `ganq quantize`: a checkpoint to a quantized directory, or the plan for it. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

typedef struct settings {
    cli_common common;
    int64_t bits, samples, length, skip_documents, seed, recipe, propagate, lut_dtype, sampling,
        iterations, shard;
    double outliers, damping, target_bits, compensation;
    const char *calibration, *keep_dense, *report;
    int force, dry_run;
    const char *paths[2]; /* MODEL OUT */
} settings;

static int read_settings(int argc, char **argv, settings *s) {
    const cli_option options[] = {
        {CLI_INT, 'b', "bits", &s->bits, "B", 2, 4, "bits per code: 2, 3 or 4"},
        {CLI_REAL, 0, "target-bits", &s->target_bits, "T", 2, 4,
         "instead of --bits: 2, 3 or 4 for each linear, chosen by what they cost the model's "
         "predictions, in the bytes that T bits everywhere would take"},
        {CLI_CHOICE, 0, "recipe", &s->recipe, CLI_RECIPES, 0, 0,
         "how codes and tables are found: rtn rounds and needs no text, paper is GANQ as "
         "published, fast and best trade time for error"},
        {CLI_REAL, 0, "outliers", &s->outliers, "R", 0, 0.1,
         "part of the weights kept beside the codes, such as 0.005"},
        {CLI_CHOICE, 0, "propagate", &s->propagate, "off|on", 0, 0,
         "on: each block is calibrated on inputs that went through the quantized blocks before it"},
        {CLI_REAL, 0, "compensate", &s->compensation, "C", 0, 1,
         "with --propagate on: how much of what a linear's inputs lost its weights make up for; 0: "
         "none; default: 0.5, for rtn and paper none"},
        {CLI_TEXT, 0, "keep-dense", &s->keep_dense, "REGEX", 0, 0,
         "linears whose name matches stay as they are, such as \"down_proj$\""},
        {CLI_INT, 0, "iterations", &s->iterations, "K", 1, 1000,
         "alternations of codes and tables; default: the recipe's"},
        {CLI_REAL, 0, "damping", &s->damping, "D", 0, 10, CLI_DAMPING_HELP},
        {CLI_CHOICE, 0, "lut-dtype", &s->lut_dtype, CLI_LUT_DTYPES, 0, 0,
         "type of the stored tables"},
        {CLI_HEADING, 0, "Calibration", NULL, NULL, 0, 0, NULL},
        {CLI_TEXT, 0, "calib", &s->calibration, "FILE", 0, 0,
         "text: .txt, .jsonl, .json, each maybe .gz, or token ids: .ids"},
        {CLI_CHOICE, 0, "sampling", &s->sampling, "windows|documents", 0, 0,
         "windows: random windows of L tokens; documents: the first N documents, each from its "
         "start with BOS, cut at L tokens"},
        {CLI_INT, 0, "nsamples", &s->samples, "N", 1, 1e7, "windows or documents"},
        {CLI_INT, 0, "seqlen", &s->length, "L", 2, 1e9,
         "tokens of each; default: the model's maximum, at most 2048"},
        {CLI_INT, 0, "skip", &s->skip_documents, "N", 0, 1e15,
         "drop the first N documents of the text"},
        {CLI_INT, 0, "seed", &s->seed, "S", 0, 9e18, "of the random windows"},
        {CLI_HEADING, 0, "Output", NULL, NULL, 0, 0, NULL},
        {CLI_FLAG, 'f', "force", &s->force, NULL, 0, 0,
         "replace OUT, a model's directory, if it is there, in one step at the end"},
        {CLI_TEXT, 0, "report", &s->report, "FILE", 0, 0,
         "write a JSON report: E of every layer, times, totals"},
        {CLI_FLAG, 0, "dry-run", &s->dry_run, NULL, 0, 0,
         "print layers, sizes and the memory estimate; write nothing (OUT may be left out)"},
        {CLI_BYTES, 0, "shard", &s->shard, "BYTES", 0, 0, "largest file of OUT; default: 5 GB"},
        CLI_COMMON_OPTIONS(s->common)};
    const cli_command command = {
        "quantize",
        "MODEL OUT [options]",
        "Quantizes the linear layers of a Hugging Face model directory, block by block, and writes "
        "a directory\n"
        "that `ganq perplexity`, `generate` and `export` read. OUT appears when everything is "
        "done.\n\n"
        "  ganq quantize Llama-3.2-1B out4 --bits 4 --calib c4-train.00000-of-01024.json.gz\n"
        "  ganq quantize tiny-llama out3 --bits 3 --calib text.jsonl --sampling documents --report "
        "r.json",
        options,
        1,
        2};
    int code = cli_parse(&command, argc, argv, s->paths);
    if (code != CLI_CONTINUE)
        return code;
    if (!s->paths[1] && !s->dry_run)
        return cli_usage("quantize: OUT is missing (ganq quantize --help)");
    if (!s->calibration && s->recipe != GANQ_RECIPE_RTN && !s->dry_run)
        return cli_usage("quantize: --calib FILE is needed for every recipe but rtn");
    code = cli_check_damping(s->damping, s->recipe);
    return code == CLI_OK ? CLI_CONTINUE : code;
}

/* `path` without slashes at its end. */
static void trimmed(const char *path, char *out, size_t size) {
    snprintf(out, size, "%s", path);
    for (size_t n = strlen(out); n > 1 && out[n - 1] == '/'; n--)
        out[n - 1] = 0;
}

/* Whether a resolved path is the directory or lies in it. */
static int lies_in(const char *path, const char *dir) {
    const size_t length = strcmp(dir, "/") ? strlen(dir) : 0;
    return !strncmp(path, dir, length) && (path[length] == '/' || !path[length]);
}

/* Whether there can be a new directory beside OUT, and whether it may take its place. */
static int check_directory(const settings *s) {
    char out[PATH_MAX], probe[PATH_MAX + 16];
    struct stat info;
    int entries = 0;
    trimmed(s->paths[1], out, sizeof out);
    DIR *dir = opendir(out);
    if (dir) {
        while (entries < 3 && readdir(dir))
            entries++;
        closedir(dir);
        if (entries > 2 && !s->force) { /* more than . and .. */
            cli_message("%s exists and is not empty; --force replaces it", out);
            return CLI_EXISTS;
        }
    } else if (lstat(out, &info) == 0) {
        cli_message("%s exists and is not a readable directory", out);
        return CLI_EXISTS;
    }
    char *real_out = realpath(out, NULL), *real_model = realpath(s->paths[0], NULL), *here = realpath(".", NULL);
    const int holds_model = real_out && real_model && strcmp(real_model, real_out) && lies_in(real_model, real_out);
    const int holds_caller = real_out && here && lies_in(here, real_out);
    char config[PATH_MAX + 16];
    snprintf(config, sizeof config, "%s/config.json", out);
    snprintf(probe, sizeof probe, "%s.probe-XXXXXX", real_out ? real_out : out);
    free(real_out);
    free(real_model);
    free(here);
    if (holds_model)
        return cli_usage("%s: cannot be replaced, %s is inside it", out, s->paths[0]);
    if (holds_caller)
        return cli_usage("%s: cannot be replaced, the current directory is in it", out);
    if (entries > 2 && stat(config, &info) != 0) {
        cli_message("%s is not empty and holds no config.json: only a model's directory is replaced", out);
        return CLI_EXISTS;
    }
    if (!mkdtemp(probe))
        return cli_cannot_create(out);
    rmdir(probe);
    return CLI_OK;
}

/* Where a file or directory is or would be, links followed, for free(); NULL where its directory is not there. */
static char *resolved(const char *path) {
    char *real = realpath(path, NULL), *out = NULL;
    if (real)
        return real;
    char name[PATH_MAX];
    trimmed(path, name, sizeof name);
    char *slash = strrchr(name, '/');
    if (slash)
        *slash = 0;
    char *parent = realpath(!slash ? "." : *name ? name : "/", NULL);
    if (parent && asprintf(&out, "%s/%s", strcmp(parent, "/") ? parent : "", slash ? slash + 1 : name) < 0)
        out = NULL;
    free(parent);
    return out;
}

/* OUT is replaced as a whole: the report can be neither that nor a part of it. */
static int check_report(const settings *s) {
    int code = cli_check_output(s->report, "--report", 1);
    if (code != CLI_OK)
        return code;
    char *out = resolved(s->paths[1]), *report = resolved(s->report);
    if (out && report && !strcmp(out, report))
        code = cli_usage("quantize: --report and OUT are the same");
    else if (out && report && lies_in(report, out))
        code = cli_usage("quantize: --report %s is inside OUT", s->report);
    free(out);
    free(report);
    return code;
}

/* What would only fail after the long work is tried before it. */
static int check_outputs(const settings *s) {
    int code = check_directory(s);
    return code != CLI_OK || !s->report ? code : check_report(s);
}

/* A name for config.json and the report, which are UTF-8. */
static const char *utf8_name(const char *name) {
    json_t *text = json_string(name);
    json_decref(text);
    return text ? name : "(a name that is not UTF-8)";
}

static int load_calibration(settings *s, const ganq_model_info *info, ganq_corpus **corpus,
                            char *description, size_t size) {
    if (s->length < 0) {
        s->length =
            info->max_positions > 0 && info->max_positions < 2048 ? info->max_positions : 2048;
    } else if (info->max_positions > 0 && s->length > info->max_positions) {
        return cli_usage("--seqlen %lld: the model sees at most %lld tokens", (long long)s->length,
                         (long long)info->max_positions);
    }
    if (!s->calibration)
        return CLI_OK;
    ganq_corpus_options options = {.struct_size = sizeof options,
                                   .mode = (int32_t)s->sampling,
                                   .samples = s->samples,
                                   .length = s->length,
                                   .skip = s->skip_documents,
                                   .seed = (uint64_t)s->seed};
    int code = cli_corpus_load(s->paths[0], s->calibration, &options, corpus);
    if (code != CLI_OK)
        return code;
    const char *base = strrchr(s->calibration, '/');
    base = utf8_name(base ? base + 1 : s->calibration);
    if (s->sampling == GANQ_SAMPLE_WINDOWS)
        snprintf(description, size, "%s: %lld windows of %lld tokens, seed %lld", base,
                 (long long)ganq_corpus_count(*corpus), (long long)s->length, (long long)s->seed);
    else
        snprintf(description, size, "%s: %lld documents from number %lld, cut at %lld, %lld tokens",
                 base, (long long)ganq_corpus_count(*corpus), (long long)s->skip_documents,
                 (long long)s->length, (long long)ganq_corpus_tokens(*corpus));
    size_t used = strlen(description);
    if (s->propagate) /* a fact about quality that the saved model should tell */
        snprintf(description + used, size - used, "; inputs through the quantized blocks");
    return CLI_OK;
}

static int print_plan(ganq_context *ctx, const ganq_model *model, const ganq_model_info *info,
                      const ganq_corpus *corpus, const ganq_model_quantize_options *options) {
    ganq_quantize_plan plan = {.struct_size = sizeof plan};
    int64_t *bytes = calloc((size_t)info->linears + 1, sizeof *bytes);
    if (!bytes) {
        cli_message("out of memory");
        return CLI_FAILURE;
    }
    ganq_status status = ganq_model_plan(ctx, model, corpus, options, &plan, bytes);
    if (status != GANQ_OK) {
        free(bytes);
        return cli_failed(status);
    }
    printf("%-44s %15s %12s %12s %8s\n", "linear", "N x K", "before", "after", "bits/w");
    for (int64_t i = 0; i < info->linears; i++) {
        ganq_linear_info linear = {.struct_size = sizeof linear};
        if (ganq_model_get_linear(model, i, &linear) != GANQ_OK)
            break;
        char shape[48];
        snprintf(shape, sizeof shape, "%lld x %lld", (long long)linear.rows,
                 (long long)linear.cols);
        double weights = (double)linear.rows * (double)linear.cols;
        double before = weights * linear.bits_per_weight / 8;
        if (bytes[i])
            printf("%-44s %15s %12s %12s %8.3f\n", linear.name, shape, cli_bytes(before),
                   cli_bytes((double)bytes[i]), 8 * (double)bytes[i] / weights);
        else
            printf("%-44s %15s %12s %12s\n", linear.name, shape, cli_bytes(before),
                   linear.bits ? "quantized" : "kept");
    }
    printf("\nlinears     %lld to quantize, %lld as they are\n", (long long)plan.linears,
           (long long)plan.skipped);
    printf("linears     %s -> %s, %.3f bits per weight where quantized\n",
           cli_bytes((double)plan.bytes_before), cli_bytes((double)plan.bytes_after),
           plan.bits_per_weight);
    printf("model       %s -> %s\n", cli_bytes((double)info->stored_bytes),
           cli_bytes((double)(info->stored_bytes - plan.bytes_before + plan.bytes_after)));
    printf("memory      %s beside the mapped model, %s of it hidden states%s\n",
           cli_bytes((double)plan.memory_bytes), cli_bytes((double)plan.activation_bytes),
           corpus ? "" : " (no --calib given)");
    printf("nothing was written\n");
    free(bytes);
    return CLI_OK;
}

/* An option that was given, or null: the recipe's own. */
static json_t *given(double value) {
    return value >= 0 ? json_real(value) : json_null();
}

/* Per-layer E, bits and seconds, with totals: E = sum of errors / sum of norms. */
static json_t *make_report(const ganq_context *ctx, const settings *s, const ganq_model *model,
                           const ganq_model_info *info, const ganq_corpus *corpus,
                           const char *description, double seconds) {
    json_t *layers = json_array();
    double error = 0, norm = 0;
    for (int64_t i = 0; i < info->linears; i++) {
        ganq_linear_info linear = {.struct_size = sizeof linear};
        if (ganq_model_get_linear(model, i, &linear) != GANQ_OK)
            break;
        json_t *layer = json_pack("{s:s, s:I, s:I, s:i, s:f}", "name", linear.name, "N",
                                  (json_int_t)linear.rows, "K", (json_int_t)linear.cols, "bits",
                                  linear.bits, "bits_per_weight", linear.bits_per_weight);
        if (linear.bits && linear.norm > 0) {
            json_t *measured =
                json_pack("{s:f, s:f, s:f, s:f, s:I}", "E", linear.error / linear.norm, "error",
                          linear.error, "norm", linear.norm, "seconds", linear.seconds, "tokens",
                          (json_int_t)linear.tokens);
            json_object_update(layer, measured);
            json_decref(measured);
            error += linear.error;
            norm += linear.norm;
        }
        json_array_append_new(layers, layer);
    }
    json_t *calibration = corpus ? json_pack("{s:s, s:I, s:I}", "text", description, "sequences",
                                             (json_int_t)ganq_corpus_count(corpus), "tokens",
                                             (json_int_t)ganq_corpus_tokens(corpus))
                                 : json_null();
    const int mixes = s->target_bits > 0;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:o, s:o, s:s, s:b, s:f, s:o, s:o, s:o, s:s, s:s?, s:o, s:o, "
        "s:{s:f, s:f, s:f, s:f, s:I, s:I, s:f}}",
        "version", ganq_version(), "numerics", cli_numerics(ctx), "model", utf8_name(s->paths[0]),
        "output", utf8_name(s->paths[1]), "bits", mixes ? json_null() : json_integer(s->bits),
        "target_bits", mixes ? json_real(s->target_bits) : json_null(), "recipe",
        cli_choice(CLI_RECIPES, s->recipe), "propagate", (int)s->propagate, "outliers", s->outliers,
        "compensate", given(s->compensation), "damping", given(s->damping), "iterations",
        s->iterations > 0 ? json_integer(s->iterations) : json_null(), "lut_dtype",
        cli_choice(CLI_LUT_DTYPES, s->lut_dtype), "keep_dense",
        s->keep_dense ? utf8_name(s->keep_dense) : NULL,
        "calibration", calibration, "layers", layers, "totals", "E", norm > 0 ? error / norm : 0.0,
        "error", error, "norm", norm, "bits_per_weight", info->bits_per_weight, "linear_bytes",
        (json_int_t)info->linear_bytes, "stored_bytes", (json_int_t)info->stored_bytes, "seconds",
        seconds);
}

static int quantize_and_save(ganq_context *ctx, const settings *s, const ganq_model *model,
                             const ganq_corpus *corpus, const char *description,
                             const ganq_model_quantize_options *options,
                             const ganq_model_info *before) {
    ganq_model *quantized = NULL;
    double started = cli_now();
    ganq_status status = ganq_model_quantize(ctx, model, corpus, options, &quantized);
    if (status != GANQ_OK)
        return cli_failed(status);
    ganq_save_options save = {.struct_size = sizeof save,
                              .force = s->force ? GANQ_SWITCH_ON : GANQ_SWITCH_DEFAULT,
                              .shard_bytes = s->shard > 0 ? s->shard : 0,
                              .calibration = *description ? description : NULL};
    ganq_model_info info = {.struct_size = sizeof info};
    json_t *report = NULL;
    status = ganq_model_save(ctx, quantized, s->paths[1], &save);
    if (status == GANQ_OK)
        status = ganq_model_get_info(quantized, &info);
    double seconds = cli_now() - started;
    if (status == GANQ_OK)
        report = make_report(ctx, s, quantized, &info, corpus, description, seconds);
    ganq_model_free(quantized);
    if (status != GANQ_OK)
        return cli_failed(status);

    cli_progress_clear();
    printf("%s: %lld linears, %s -> %s, %.3f bits per weight, E %.3e, %s\n", s->paths[1],
           (long long)info.linears_quantized, cli_bytes((double)before->linear_bytes),
           cli_bytes((double)info.linear_bytes), info.bits_per_weight,
           json_real_value(json_object_get(json_object_get(report, "totals"), "E")),
           cli_duration(seconds));
    if (s->report)
        return cli_write_json(s->report, report);
    json_decref(report);
    return CLI_OK;
}

static int run(ganq_context *ctx, settings *s) {
    ganq_model *model = NULL;
    ganq_corpus *corpus = NULL;
    ganq_model_info info = {.struct_size = sizeof info};
    char description[512] = "";
    ganq_status status = ganq_model_load(ctx, s->paths[0], NULL, &model);
    if (status == GANQ_OK)
        status = ganq_model_get_info(model, &info);
    int code = status == GANQ_OK
                   ? load_calibration(s, &info, &corpus, description, sizeof description)
                   : cli_failed(status);
    ganq_quantize_options layer;
    ganq_quantize_options_init(&layer, sizeof layer);
    layer.bits = (int32_t)s->bits;
    layer.recipe = (int32_t)s->recipe;
    layer.iterations = s->iterations > 0 ? (int32_t)s->iterations : 0;
    layer.damping = cli_fraction(s->damping);
    layer.outlier_ratio = (float)s->outliers;
    layer.lut_dtype = s->lut_dtype ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16;
    ganq_model_quantize_options options = {.struct_size = sizeof options,
                                           .propagate =
                                               s->propagate ? GANQ_SWITCH_ON : GANQ_SWITCH_OFF,
                                           .layer = &layer,
                                           .skip = s->keep_dense,
                                           .target_bits =
                                               s->target_bits > 0 ? (float)s->target_bits : 0,
                                           .compensation = cli_fraction(s->compensation)};
    if (code == CLI_OK)
        code = s->dry_run ? print_plan(ctx, model, &info, corpus, &options)
                          : quantize_and_save(ctx, s, model, corpus, description, &options, &info);
    ganq_corpus_free(corpus);
    ganq_model_free(model);
    return code;
}

int cmd_quantize(int argc, char **argv) {
    settings s = {.common = CLI_COMMON_DEFAULTS,
                  .bits = 4,
                  .samples = 128,
                  .propagate = 1,
                  .iterations = -1,
                  .shard = -1,
                  .damping = -1,
                  .target_bits = -1,
                  .compensation = -1,
                  .length = -1};
    int code = read_settings(argc, argv, &s);
    if (code != CLI_CONTINUE)
        return code;
    if (!s.dry_run && (code = check_outputs(&s)) != CLI_OK)
        return code;
    ganq_context *ctx = NULL;
    code = cli_context_create(&s.common, &ctx);
    if (code == CLI_OK)
        code = run(ctx, &s);
    ganq_context_free(ctx);
    return code;
}
