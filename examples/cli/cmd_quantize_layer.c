/* cmd_quantize_layer.c - `ganq quantize-layer`: weights and Hessians from a safetensors file, and
 * the error that the stored codes and tables have. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

typedef struct settings {
    cli_common common;
    cli_list weights, hessians;
    int64_t bits, recipe, lut_dtype, iterations;
    double outliers, damping;
    const char *rows, *out, *path;
    int64_t first, end; /* --rows, end 0: all */
    int json;
} settings;

typedef struct result {
    double error, norm, seconds, bits_per_weight;
    int64_t N, K, outliers;
    char note[160];
} result;

static int read_settings(int argc, char **argv, settings *s) {
    const cli_option options[] = {
        {CLI_LIST, 0, "weight", &s->weights, "NAME", 0, 0, "tensor [N,K]: F64, F32, F16 or BF16"},
        {CLI_LIST, 0, "hessian", &s->hessians, "NAME", 0, 0,
         "tensor [K,K]: F64 or F32, of the weight in the same place; none at all: the identity"},
        {CLI_INT, 'b', "bits", &s->bits, "B", 2, 4, "bits per code: 2, 3 or 4"},
        {CLI_CHOICE, 0, "recipe", &s->recipe, CLI_RECIPES, 0, 0, "how codes and tables are found"},
        {CLI_TEXT, 0, "rows", &s->rows, "A:B", 0, 0, "only rows A to B-1 of each weight"},
        {CLI_REAL, 0, "outliers", &s->outliers, "R", 0, 0.1, "part of the weights kept beside the codes"},
        {CLI_INT, 0, "iterations", &s->iterations, "K", 1, 1000,
         "alternations; default: the recipe's"},
        {CLI_REAL, 0, "damping", &s->damping, "D", 0, 10, CLI_DAMPING_HELP},
        {CLI_CHOICE, 0, "lut-dtype", &s->lut_dtype, CLI_LUT_DTYPES, 0, 0,
         "type of the stored tables"},
        {CLI_TEXT, 'o', "out", &s->out, "FILE", 0, 0, "write the layer (of one --weight)"},
        {CLI_FLAG, 0, "json", &s->json, NULL, 0, 0,
         "print JSON: error = sum (w-w~) H (w-w~)^T and norm = sum w H w^T in float64 for the "
         "layer as stored, E = error/norm, seconds; per layer and in total"},
        CLI_COMMON_OPTIONS(s->common)};
    const cli_command command = {"quantize-layer",
                                 "FILE.safetensors --weight NAME --hessian NAME [options]",
                                 "Quantizes single layers. --weight and --hessian may be repeated, "
                                 "in the same order; the total E is\n"
                                 "the sum of errors over the sum of norms.\n\n"
                                 "  ganq quantize-layer layers.safetensors --weight "
                                 "layers.0.wq.weight --hessian layers.0.attn_in.H \\\n"
                                 "      --bits 3 --json",
                                 options,
                                 1,
                                 1};
    int code = cli_parse(&command, argc, argv, &s->path);
    if (code != CLI_CONTINUE)
        return code;
    if (!s->weights.count)
        return cli_usage("quantize-layer: --weight NAME is missing");
    if (s->hessians.count && s->hessians.count != s->weights.count)
        return cli_usage("quantize-layer: %zu --weight but %zu --hessian", s->weights.count,
                         s->hessians.count);
    if (s->out && s->weights.count > 1)
        return cli_usage("quantize-layer: --out takes one --weight");
    if (s->rows && !cli_parse_range(s->rows, &s->first, &s->end))
        return cli_usage("--rows: expected A:B with A < B, found \"%s\"", s->rows);
    if ((code = cli_check_damping(s->damping, s->recipe)) != CLI_OK)
        return code;
    if (s->out && (code = cli_check_output(s->out, "--out", 0)) != CLI_OK)
        return code;
    return CLI_CONTINUE;
}

/* Shape of a matrix by name; a vector counts as one row. */
static ganq_status find_matrix(const ganq_tensors *tensors, const char *path, const char *name,
                               int64_t *index, int64_t *rows, int64_t *cols) {
    ganq_tensor_info info = {.struct_size = sizeof info};
    *index = ganq_tensors_find(tensors, name);
    if (*index < 0) {
        cli_message("not found: %s has no tensor \"%s\"", path, name);
        return GANQ_ERR_NOT_FOUND;
    }
    ganq_status status = ganq_tensors_get(tensors, *index, &info);
    if (status != GANQ_OK) {
        cli_failed(status);
        return status;
    }
    if (info.rank != 2 || info.shape[0] < 1 || info.shape[1] < 1) {
        cli_message("%s: tensor \"%s\" has rank %d, expected a matrix", path, name, info.rank);
        return GANQ_ERR_FORMAT;
    }
    *rows = info.shape[0];
    *cols = info.shape[1];
    return GANQ_OK;
}

static int code_of(ganq_status status) {
    return status == GANQ_ERR_NOT_FOUND ? CLI_NOT_FOUND : CLI_FAILURE;
}

static int load_weight(const ganq_tensors *tensors, const settings *s, const char *name,
                       ganq_matrix *out) {
    int64_t index, rows, cols;
    ganq_status status = find_matrix(tensors, s->path, name, &index, &rows, &cols);
    if (status != GANQ_OK)
        return code_of(status);
    if (s->end > rows)
        return cli_usage("--rows %s: \"%s\" has %lld rows", s->rows, name, (long long)rows);
    int64_t count = s->end ? s->end - s->first : rows;
    ganq_matrix w =
        GANQ_MATRIX(GANQ_DTYPE_F32, count, cols, calloc((size_t)(count * cols), sizeof(float)));
    if (!w.data) {
        cli_message("out of memory: \"%s\"", name);
        return CLI_FAILURE;
    }
    status = ganq_tensors_read(tensors, index, s->first, &w);
    if (status != GANQ_OK) {
        free(w.data);
        return cli_failed(status);
    }
    *out = w;
    return CLI_OK;
}

static int load_hessian(ganq_context *ctx, const ganq_tensors *tensors, const settings *s,
                        const char *name, ganq_hessian **out) {
    int64_t index, rows, cols;
    ganq_status status = find_matrix(tensors, s->path, name, &index, &rows, &cols);
    if (status != GANQ_OK)
        return code_of(status);
    ganq_matrix h =
        GANQ_MATRIX(GANQ_DTYPE_F64, rows, cols, calloc((size_t)(rows * cols), sizeof(double)));
    if (!h.data) {
        cli_message("out of memory: \"%s\"", name);
        return CLI_FAILURE;
    }
    status = ganq_tensors_read(tensors, index, 0, &h);
    if (status == GANQ_OK)
        status = ganq_hessian_import(ctx, &h, 0, out);
    free(h.data);
    if (status != GANQ_OK) {
        int code = cli_failed(status);
        cli_message("that was the Hessian \"%s\" of %s", name, s->path);
        return code;
    }
    return CLI_OK;
}

static ganq_status save_layer(const settings *s, const ganq_layer *layer, const char *weight) {
    static const char tail[] = ".weight";
    size_t length = strlen(weight), cut = sizeof tail - 1;
    if (length > cut && !strcmp(weight + length - cut, tail))
        length -= cut;
    char *name = strndup(weight, length);
    ganq_status status = name ? ganq_layer_save(layer, s->out, name) : GANQ_ERR_NO_MEMORY;
    free(name);
    return status;
}

static int quantize_one(ganq_context *ctx, const ganq_tensors *tensors, const settings *s, size_t i,
                        result *r) {
    ganq_quantize_options options;
    ganq_matrix weight = {0};
    ganq_hessian *hessian = NULL;
    ganq_layer *layer = NULL;
    int code = load_weight(tensors, s, s->weights.items[i], &weight);
    if (code == CLI_OK && s->hessians.count)
        code = load_hessian(ctx, tensors, s, s->hessians.items[i], &hessian);
    if (code != CLI_OK)
        goto done;
    ganq_quantize_options_init(&options, sizeof options);
    options.bits = (int32_t)s->bits;
    options.recipe = (int32_t)s->recipe;
    options.iterations = s->iterations > 0 ? (int32_t)s->iterations : 0;
    options.damping = cli_fraction(s->damping);
    options.outlier_ratio = (float)s->outliers;
    options.lut_dtype = s->lut_dtype ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16;
    ganq_status status = ganq_layer_quantize(ctx, &weight, hessian, NULL, &options, &layer);
    if (status == GANQ_OK)
        status = ganq_layer_objective(ctx, layer, &weight, hessian, &r->error, &r->norm);
    ganq_layer_report report = {.struct_size = sizeof report};
    ganq_layer_info info = {.struct_size = sizeof info};
    if (status == GANQ_OK)
        status = ganq_layer_get_report(layer, &report);
    if (status == GANQ_OK)
        status = ganq_layer_get_info(layer, &info);
    if (status == GANQ_OK && s->out)
        status = save_layer(s, layer, s->weights.items[i]);
    if (status != GANQ_OK) {
        code = cli_failed(status);
        goto done;
    }
    r->seconds = report.seconds;
    r->N = info.rows;
    r->K = info.cols;
    r->outliers = info.outliers;
    r->bits_per_weight = info.bits_per_weight;
    snprintf(r->note, sizeof r->note, "%s", report.note ? report.note : "");
done:
    ganq_layer_free(layer);
    ganq_hessian_free(hessian);
    free(weight.data);
    return code;
}

static double relative(double error, double norm) {
    return norm > 0 ? error / norm : 0;
}

static int print_results(const settings *s, const result *results, const result *total) {
    if (!s->json) {
        printf("%-44s %13s %10s %8s %9s\n", "layer", "N x K", "E", "bits/w", "seconds");
        for (size_t i = 0; i < s->weights.count; i++) {
            const result *r = &results[i];
            char shape[48];
            snprintf(shape, sizeof shape, "%lld x %lld", (long long)r->N, (long long)r->K);
            printf("%-44s %13s %10.4e %8.3f %9.3f%s%s\n", s->weights.items[i], shape,
                   relative(r->error, r->norm), r->bits_per_weight, r->seconds,
                   *r->note ? "  " : "", r->note);
        }
        if (s->weights.count > 1)
            printf("%-44s %13s %10.4e %8s %9.3f\n", "total", "",
                   relative(total->error, total->norm), "", total->seconds);
        return CLI_OK;
    }
    json_t *layers = json_array();
    for (size_t i = 0; i < s->weights.count; i++) {
        const result *r = &results[i];
        json_array_append_new(
            layers, json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:s}", "name",
                              s->weights.items[i], "N", (json_int_t)r->N, "K", (json_int_t)r->K,
                              "error", r->error, "norm", r->norm, "E", relative(r->error, r->norm),
                              "seconds", r->seconds, "bits_per_weight", r->bits_per_weight,
                              "outliers", (json_int_t)r->outliers, "note", r->note));
    }
    return cli_print_json(json_pack("{s:f, s:f, s:f, s:f, s:i, s:s, s:o}", "error", total->error,
                                    "norm", total->norm, "E", relative(total->error, total->norm),
                                    "seconds", total->seconds, "bits", (int)s->bits, "recipe",
                                    cli_choice(CLI_RECIPES, s->recipe), "layers", layers));
}

int cmd_quantize_layer(int argc, char **argv) {
    settings s = {.common = CLI_COMMON_DEFAULTS, .bits = 4, .iterations = -1, .damping = -1};
    ganq_context *ctx = NULL;
    ganq_tensors *tensors = NULL;
    result *results = NULL, total = {0};
    int code = read_settings(argc, argv, &s);
    if (code == CLI_CONTINUE)
        code = cli_context_create(&s.common, &ctx);
    if (code != CLI_OK || !ctx) /* --help ends with OK and no context */
        goto done;
    ganq_status status = ganq_tensors_open(s.path, &tensors);
    if (status != GANQ_OK) {
        code = cli_failed(status);
        goto done;
    }
    results = calloc(s.weights.count, sizeof *results);
    if (!results) {
        cli_message("out of memory");
        code = CLI_FAILURE;
        goto done;
    }
    for (size_t i = 0; i < s.weights.count && code == CLI_OK; i++) {
        code = quantize_one(ctx, tensors, &s, i, &results[i]);
        total.error += results[i].error;
        total.norm += results[i].norm;
        total.seconds += results[i].seconds;
    }
    cli_progress_clear();
    if (code == CLI_OK)
        code = print_results(&s, results, &total);
done:
    free(results);
    ganq_tensors_free(tensors);
    ganq_context_free(ctx);
    cli_list_free(&s.weights);
    cli_list_free(&s.hessians);
    return code;
}
