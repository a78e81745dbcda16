/* save_config.c - config.json: the source's keys as they were, and what describes the weights now.
 */
#include "save_config.h"

#include "dtype.h"

static const char no_memory[] = "no memory for config.json";

static const char *recipe_name(int32_t recipe) {
    static const char *const names[] = {"default", "rtn", "paper", "fast", "best"};
    return recipe >= GANQ_RECIPE_DEFAULT && recipe <= GANQ_RECIPE_BEST ? names[recipe] : "unknown";
}

/* What the quantized linears have in common. */
typedef struct summary {
    int64_t count, by_bits[5], weights, outliers, tokens;
    int64_t code_bytes; /* codes, tables, outliers; no biases */
    int64_t wide_tables;
    int made_here; /* by the solver in this process, so that recipe and tokens are known */
    int32_t recipe;
} summary;

static void add_layer(summary *s, const ganq_layer *layer) {
    s->count++;
    s->by_bits[layer->bits]++;
    s->weights += layer->N * layer->K;
    s->outliers += layer->outlier_rowptr ? layer->outlier_rowptr[layer->N] : 0;
    s->code_bytes += ganq__layer_stored_bytes(layer) -
                     (layer->bias ? layer->N * (int64_t)ganq__dtype_size(layer->bias_dtype) : 0);
    s->wide_tables += layer->lut_dtype == GANQ_DTYPE_F32;
    if (layer->report.norm > 0) {
        s->made_here = 1;
        s->recipe = layer->report.recipe;
        if (layer->report.tokens > s->tokens)
            s->tokens = layer->report.tokens;
    }
}

static int64_t linear_total(const ganq_model *model) {
    return model->linear_count + 1;
}

/* The blocks' linears, then the head. */
static const ganq__linear *linear_at(const ganq_model *model, int64_t i) {
    return i < model->linear_count ? ganq__model_linear(model, i) : &model->head;
}

/* A new reference, or NULL without memory. */
static json_t *quantization_config(const ganq_model *model, const json_t *old,
                                   const char *calibration, const summary *s) {
    json_t *dense = json_array(), *tensors = json_object();
    int failed = !dense || !tensors, bits = 4;
    for (int b = 2; b <= 4; b++)
        if (s->by_bits[b] > s->by_bits[bits])
            bits = b;
    for (int64_t i = 0; i < linear_total(model); i++) {
        const ganq__linear *linear = linear_at(model, i);
        if (linear->layer)
            failed |=
                json_object_set_new(tensors, linear->name,
                                    json_pack("{s:I, s:I, s:i}", "N", (json_int_t)linear->N, "K",
                                              (json_int_t)linear->K, "bits", linear->layer->bits));
        else
            failed |= json_array_append_new(dense, json_string(linear->name));
    }
    json_t *outliers = json_pack("{s:f, s:I}", "ratio", (double)s->outliers / (double)s->weights,
                                 "count", (json_int_t)s->outliers);
    /* A model that was loaded in this format and saved again keeps its record. */
    json_t *record = json_incref(json_object_get(old, "calibration"));
    json_t *meta = json_deep_copy(json_object_get(old, "meta"));
    if (s->made_here || !record) {
        json_decref(record);
        record = s->tokens || calibration ? json_pack("{s:s?, s:I}", "text", calibration, "tokens",
                                                      (json_int_t)s->tokens)
                                          : json_null();
    }
    if (s->made_here || !json_is_object(meta)) {
        json_decref(meta);
        meta = json_pack("{s:[s+]}", "quantizer", "libganq:", ganq_version());
        if (meta && s->made_here)
            failed |= json_object_set_new(meta, "recipe", json_string(recipe_name(s->recipe)));
    }
    failed |= json_object_set_new(meta, "effective_bits",
                                  json_real(8.0 * (double)s->code_bytes / (double)s->weights));
    json_t *config = json_pack("{s:s, s:i, s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "quant_method",
                               "ganq", "format_version", 1, "bits", bits, "packing", "bitplane32",
                               "lut_dtype", s->wide_tables == s->count ? "float32" : "float16",
                               "outliers", outliers, "modules_to_not_convert", dense, "tensors",
                               tensors, "calibration", record, "meta", meta);
    if (failed) {
        json_decref(config);
        return NULL;
    }
    return config;
}

ganq_status ganq__config_native(const ganq_model *model, const char *calibration, json_t **out) {
    summary s = {0};
    for (int64_t i = 0; i < linear_total(model); i++)
        if (linear_at(model, i)->layer)
            add_layer(&s, linear_at(model, i)->layer);
    json_t *root = json_deep_copy(model->config->json);
    if (!root)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, no_memory);
    if (calibration) { /* json_pack would only say that something failed */
        json_t *text = json_string(calibration);
        json_decref(text);
        if (!text) {
            json_decref(root);
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_save_options: calibration is not UTF-8");
        }
    }
    if (!s.count) {
        json_object_del(root, "quantization_config");
    } else if (json_object_set_new(root, "quantization_config",
                                   quantization_config(model,
                                                       json_object_get(root, "quantization_config"),
                                                       calibration, &s)) != 0) {
        json_decref(root);
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, no_memory);
    }
    *out = root;
    return GANQ_OK;
}

ganq_status ganq__config_dense(const ganq_model *model, ganq_dtype dtype, json_t **out) {
    const char *name = dtype == GANQ_DTYPE_F16    ? "float16"
                       : dtype == GANQ_DTYPE_BF16 ? "bfloat16"
                                                  : "float32";
    json_t *root = json_deep_copy(model->config->json);
    if (!root)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, no_memory);
    json_object_del(root, "quantization_config");
    /* Newer files say "dtype" in the place of "torch_dtype". */
    const char *key = json_object_get(root, "dtype") ? "dtype" : "torch_dtype";
    if (json_object_set_new(root, key, json_string(name)) != 0) {
        json_decref(root);
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, no_memory);
    }
    *out = root;
    return GANQ_OK;
}
