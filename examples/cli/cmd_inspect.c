/* cmd_inspect.c - `ganq inspect`: a model directory or a safetensors file, their checksums and layers. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

typedef struct settings {
    cli_common common;
    const char *path;
    int verify, json, tensors, layers;
} settings;

static int exists(const char *dir, const char *name) {
    char path[4096];
    struct stat info;
    return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path && stat(path, &info) == 0;
}

static void format_shape(const ganq_tensor_info *info, char *out, size_t size) {
    size_t used = (size_t)snprintf(out, size, "[");
    for (int d = 0; d < info->rank && d < 8 && used < size; d++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", d ? "," : "",
                                 (long long)info->shape[d]);
    if (used < size)
        snprintf(out + used, size - used, "]");
}

/* Checks every tensor that has a checksum. */
static int verify(const ganq_tensors *tensors, int64_t *checked, int64_t *without) {
    *checked = *without = 0;
    for (int64_t i = 0; i < ganq_tensors_count(tensors); i++) {
        ganq_tensor_info info = {.struct_size = sizeof info};
        ganq_status status = ganq_tensors_get(tensors, i, &info);
        if (status == GANQ_OK && info.has_crc)
            status = ganq_tensors_verify(tensors, i);
        if (status != GANQ_OK)
            return cli_failed(status);
        if (cli_interrupted())
            return CLI_INTERRUPTED;
        *(info.has_crc ? checked : without) += 1;
    }
    return CLI_OK;
}

/* Reads the codes of every quantized layer of a model; the rest of it is checked when a model is loaded. A layer that was
 * read stays in memory, so the model is opened anew when it has come to MOST bytes. */
static int verify_model(ganq_context *ctx, const char *path, int64_t *layers) {
    enum { MOST = 1 << 30 };
    ganq_model *model = NULL;
    ganq_model_info info = {.struct_size = sizeof info};
    int64_t held = 0;
    ganq_status status = ganq_model_load(ctx, path, NULL, &model);
    if (status == GANQ_OK)
        status = ganq_model_get_info(model, &info);
    for (int64_t i = 0; status == GANQ_OK && i < info.linears && !cli_interrupted(); i++) {
        ganq_layer_info layer = {.struct_size = sizeof layer};
        if (held > MOST) {
            ganq_model_free(model);
            model = NULL;
            held = 0;
            status = ganq_model_load(ctx, path, NULL, &model);
        }
        if (status != GANQ_OK || !ganq_model_layer(model, i))
            continue;
        status = ganq_layer_export(ganq_model_layer(model, i), NULL, NULL);
        if (status == GANQ_OK)
            status = ganq_layer_get_info(ganq_model_layer(model, i), &layer);
        held += layer.stored_bytes;
        ++*layers;
    }
    ganq_model_free(model);
    return status != GANQ_OK ? cli_failed(status) : cli_interrupted() ? CLI_INTERRUPTED : CLI_OK;
}

/* The name of the layer whose codes tensor i is, for free(); NULL when it is something else, such as another format's codes
 * of that name. */
static char *layer_of(const ganq_tensors *tensors, const ganq_tensor_info *tensor) {
    static const char tail[] = ".qweight";
    const size_t length = strlen(tensor->name), cut = sizeof tail - 1;
    char *key = NULL, *lut = NULL, *name = NULL;
    if (length <= cut || strcmp(tensor->name + length - cut, tail) != 0)
        return NULL;
    const int stem = (int)(length - cut);
    if (asprintf(&key, "ganq.%.*s", stem, tensor->name) < 0)
        key = NULL;
    if (asprintf(&lut, "%.*s.lut", stem, tensor->name) < 0)
        lut = NULL;
    if (key && lut && (ganq_tensors_meta(tensors, key) || ganq_tensors_find(tensors, lut) >= 0))
        name = strndup(tensor->name, length - cut);
    free(key);
    free(lut);
    return name;
}

/* Loads every layer of a file of layers. A directory must be a model's: what else says how large its layers are? */
static int verify_layers(ganq_context *ctx, const settings *s, const ganq_tensors *tensors, int64_t *layers) {
    struct stat info;
    const int is_file = stat(s->path, &info) == 0 && !S_ISDIR(info.st_mode);
    ganq_status status = GANQ_OK;
    for (int64_t i = 0; i < ganq_tensors_count(tensors) && status == GANQ_OK; i++) {
        ganq_tensor_info tensor = {.struct_size = sizeof tensor};
        ganq_layer *layer = NULL;
        char *name = NULL;
        if (cli_interrupted())
            return CLI_INTERRUPTED;
        status = ganq_tensors_get(tensors, i, &tensor);
        if (status == GANQ_OK)
            name = layer_of(tensors, &tensor);
        if (name && !is_file) {
            cli_message("%s: holds the layer %s but no config.json, so it cannot be checked", s->path, name);
            free(name);
            return CLI_NOT_FOUND;
        }
        if (name)
            status = ganq_layer_load(ctx, s->path, name, &layer);
        *layers += layer != NULL;
        ganq_layer_free(layer);
        free(name);
    }
    return status == GANQ_OK ? CLI_OK : cli_failed(status);
}

static void print_tensors(const ganq_tensors *tensors, json_t *list) {
    if (!list)
        printf("%-56s %-5s %-18s %12s  crc\n", "tensor", "type", "shape", "bytes");
    for (int64_t i = 0; i < ganq_tensors_count(tensors); i++) {
        ganq_tensor_info info = {.struct_size = sizeof info};
        if (ganq_tensors_get(tensors, i, &info) != GANQ_OK)
            continue;
        if (list) {
            json_t *shape = json_array();
            for (int d = 0; d < info.rank && d < 8; d++)
                json_array_append_new(shape, json_integer(info.shape[d]));
            json_array_append_new(list,
                                  json_pack("{s:s, s:s, s:o, s:I, s:b}", "name", info.name, "dtype",
                                            info.dtype_name, "shape", shape, "bytes",
                                            (json_int_t)info.size_bytes, "crc", info.has_crc));
        } else {
            char shape[128];
            format_shape(&info, shape, sizeof shape);
            printf("%-56s %-5s %-18s %12lld  %s\n", info.name, info.dtype_name, shape,
                   (long long)info.size_bytes, info.has_crc ? "yes" : "no");
        }
    }
}

static void print_layers(const ganq_model *model, int64_t linears, json_t *list) {
    if (!list)
        printf("\n%-44s %15s %6s %8s\n", "linear", "N x K", "bits", "bits/w");
    for (int64_t i = 0; i < linears; i++) {
        ganq_linear_info info = {.struct_size = sizeof info};
        if (ganq_model_get_linear(model, i, &info) != GANQ_OK)
            continue;
        if (list) {
            json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:i, s:f}", "name", info.name,
                                                  "N", (json_int_t)info.rows, "K",
                                                  (json_int_t)info.cols, "bits", info.bits,
                                                  "bits_per_weight", info.bits_per_weight));
        } else {
            char shape[48], bits[16] = "dense";
            snprintf(shape, sizeof shape, "%lld x %lld", (long long)info.rows,
                     (long long)info.cols);
            if (info.bits)
                snprintf(bits, sizeof bits, "%d", info.bits);
            printf("%-44s %15s %6s %8.3f\n", info.name, shape, bits, info.bits_per_weight);
        }
    }
}

static int inspect_model(ganq_context *ctx, const settings *s, json_t *out) {
    ganq_model *model = NULL;
    ganq_model_info info = {.struct_size = sizeof info};
    ganq_status status = ganq_model_load(ctx, s->path, NULL, &model);
    if (status == GANQ_OK)
        status = ganq_model_get_info(model, &info);
    if (status != GANQ_OK) {
        ganq_model_free(model);
        return cli_failed(status);
    }
    cli_progress_clear();
    if (s->json) {
        json_t *fields = json_pack(
            "{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "architecture",
            info.architecture, "layers", info.layers, "hidden_size", (json_int_t)info.hidden_size,
            "vocab_size", (json_int_t)info.vocab_size, "max_positions",
            (json_int_t)info.max_positions, "parameters", (json_int_t)info.parameters, "linears",
            (json_int_t)info.linears, "linears_quantized", (json_int_t)info.linears_quantized,
            "stored_bytes", (json_int_t)info.stored_bytes, "linear_bytes",
            (json_int_t)info.linear_bytes, "bits_per_weight", info.bits_per_weight);
        json_object_update(out, fields);
        json_decref(fields);
    } else {
        printf("architecture     %s\n", info.architecture);
        printf("blocks           %d, hidden %lld, vocabulary %lld, context %lld\n", info.layers,
               (long long)info.hidden_size, (long long)info.vocab_size,
               (long long)info.max_positions);
        printf("parameters       %lld\n", (long long)info.parameters);
        printf("linears          %lld, %lld of them quantized\n", (long long)info.linears,
               (long long)info.linears_quantized);
        printf("bytes            %s, %s of it linears, %.3f bits per weight\n",
               cli_bytes((double)info.stored_bytes), cli_bytes((double)info.linear_bytes),
               info.bits_per_weight);
    }
    if (s->layers) {
        json_t *list = s->json ? json_array() : NULL;
        print_layers(model, info.linears, list);
        if (list)
            json_object_set_new(out, "linear_layers", list);
    }
    ganq_model_free(model);
    return CLI_OK;
}

static int run(ganq_context *ctx, const settings *s, json_t *out) {
    int is_model = exists(s->path, "config.json");
    int code = is_model ? inspect_model(ctx, s, out) : CLI_OK;
    if (code != CLI_OK || (is_model && !s->tensors && !s->verify))
        return code;
    ganq_tensors *tensors = NULL;
    ganq_status status = ganq_tensors_open(s->path, &tensors);
    if (status != GANQ_OK)
        return cli_failed(status);
    if (!is_model || s->tensors) {
        json_t *list = s->json ? json_array() : NULL;
        print_tensors(tensors, list);
        if (list)
            json_object_set_new(out, "tensors", list);
    }
    if (s->verify) {
        int64_t checked, without, layers = 0;
        code = verify(tensors, &checked, &without);
        if (code == CLI_OK)
            code = is_model ? verify_model(ctx, s->path, &layers)
                            : verify_layers(ctx, s, tensors, &layers);
        cli_progress_clear();
        if (code == CLI_OK && s->json)
            json_object_set_new(out, "verified",
                                json_pack("{s:I, s:I, s:I}", "checked", (json_int_t)checked,
                                          "without_crc", (json_int_t)without, "layers",
                                          (json_int_t)layers));
        else if (code == CLI_OK)
            printf("verified         %lld tensors match their CRC-32, %lld have none; %lld quantized "
                   "layers are well-formed\n",
                   (long long)checked, (long long)without, (long long)layers);
    }
    ganq_tensors_free(tensors);
    return code;
}

int cmd_inspect(int argc, char **argv) {
    settings s = {.common = CLI_COMMON_DEFAULTS};
    const cli_option options[] = {
        {CLI_FLAG, 0, "verify", &s.verify, NULL, 0, 0,
         "check the CRC-32 of every tensor that has one, and all of every quantized layer"},
        {CLI_FLAG, 0, "layers", &s.layers, NULL, 0, 0, "list the linear layers of a model"},
        {CLI_FLAG, 0, "tensors", &s.tensors, NULL, 0, 0,
         "list the tensors of a model directory, too"},
        {CLI_FLAG, 0, "json", &s.json, NULL, 0, 0, "print JSON"},
        CLI_COMMON_OPTIONS(s.common)};
    const cli_command command = {"inspect",
                                 "PATH [options]",
                                 "Shows what a model directory or a safetensors file holds.\n\n"
                                 "  ganq inspect out4 --verify",
                                 options,
                                 1,
                                 1};
    int code = cli_parse(&command, argc, argv, &s.path);
    if (code != CLI_CONTINUE)
        return code;
    ganq_context *ctx = NULL;
    code = cli_context_create(&s.common, &ctx);
    if (code != CLI_OK)
        return code;
    json_t *out = s.json ? json_object() : NULL;
    code = run(ctx, &s, out);
    if (s.json && code == CLI_OK)
        code = cli_print_json(out);
    else
        json_decref(out);
    ganq_context_free(ctx);
    return code;
}
