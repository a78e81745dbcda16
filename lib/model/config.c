/* config.c - the families, and config.json read into a struct with every field checked before
 * anything is allocated from it. */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "file.h"
#include "json.h"

/* Far above any model there is; sizes below these do not overflow when multiplied. */
static const int64_t max_layers = 1 << 14;
static const int64_t max_heads = 1 << 14;
static const int64_t max_width = 1 << 22;
static const int64_t max_vocab = 1 << 26;
static const int64_t max_positions = INT64_C(1) << 40;
static const int64_t default_window = 4096;

/* Llama's names, which the others took over. */
#define LLAMA_NAMES                                                                                \
    .linear_names = {"model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",       \
                     "model.layers.%d.self_attn.v_proj", "model.layers.%d.self_attn.o_proj",       \
                     "model.layers.%d.mlp.gate_proj",    "model.layers.%d.mlp.up_proj",            \
                     "model.layers.%d.mlp.down_proj"},                                             \
    .attention_norm = "model.layers.%d.input_layernorm",                                           \
    .mlp_norm = "model.layers.%d.post_attention_layernorm",                                        \
    .q_norm = "model.layers.%d.self_attn.q_norm",                                                  \
    .k_norm = "model.layers.%d.self_attn.k_norm", .embedding = "model.embed_tokens",               \
    .final_norm = "model.norm", .head = "lm_head", .intermediate_key = "intermediate_size",        \
    .activation_key = "hidden_act", .activation = "silu"

static const ganq__family families[] = {
    {
        .architecture = "LlamaForCausalLM",
        .attention_bias = GANQ__BIAS_BY_KEY,
        .mlp_bias = GANQ__BIAS_BY_KEY,
        LLAMA_NAMES,
    },
    {
        .architecture = "MistralForCausalLM",
        .window = GANQ__WINDOW_ALL,
        LLAMA_NAMES,
    },
    {
        .architecture = "Qwen2ForCausalLM",
        .attention_bias = GANQ__BIAS_QKV,
        .window = GANQ__WINDOW_BY_LAYER,
        LLAMA_NAMES,
    },
    {
        .architecture = "Qwen3ForCausalLM",
        .attention_bias = GANQ__BIAS_BY_KEY,
        .window = GANQ__WINDOW_BY_LAYER,
        .qk_norm = 1,
        .head_dim = 128,
        LLAMA_NAMES,
    },
    {
        .architecture = "OPTForCausalLM",
        .layer_norm = 1,
        .plain_mlp = 1,
        .opt_keys = 1,
        .positions = "model.decoder.embed_positions",
        .first_position = 2,
        .linear_names = {"model.decoder.layers.%d.self_attn.q_proj",
                         "model.decoder.layers.%d.self_attn.k_proj",
                         "model.decoder.layers.%d.self_attn.v_proj",
                         "model.decoder.layers.%d.self_attn.out_proj", NULL,
                         "model.decoder.layers.%d.fc1", "model.decoder.layers.%d.fc2"},
        .attention_norm = "model.decoder.layers.%d.self_attn_layer_norm",
        .mlp_norm = "model.decoder.layers.%d.final_layer_norm",
        .embedding = "model.decoder.embed_tokens",
        .final_norm = "model.decoder.final_layer_norm",
        .head = "lm_head",
        .intermediate_key = "ffn_dim",
        .activation_key = "activation_function",
        .activation = "relu",
        .norm_eps = 1e-5,
        .tied = 1,
    },
};
enum { FAMILIES = sizeof families / sizeof families[0] };

static ganq_status find_family(const json_t *root, const char *path, const ganq__family **out) {
    GANQ_TRY(ganq__json_require(root, "architectures", path));
    const json_t *list = json_object_get(root, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    if (!name)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"architectures\": expected a list with one name", path);
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(families[i].architecture, name)) {
            *out = &families[i];
            return GANQ_OK;
        }
    char known[256];
    size_t used = 0;
    for (int i = 0; i < FAMILIES; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                 families[i].architecture);
    GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: architecture \"%s\" is not supported (supported: %s)",
              path, name, known);
}

static ganq_status required_int(const json_t *root, const char *key, const char *path, int64_t high,
                                int64_t *out) {
    GANQ_TRY(ganq__json_require(root, key, path));
    return ganq__json_int(root, key, path, 1, high, 0, out);
}

/* A number in (low, high]; NAN as fallback makes the key required. */
static ganq_status number_in(const json_t *object, const char *key, const char *path, double low,
                             double high, double fallback, double *out) {
    if (isnan(fallback))
        GANQ_TRY(ganq__json_require(object, key, path));
    double value;
    GANQ_TRY(ganq__json_double(object, key, path, fallback, &value));
    if (!(value > low && value <= high))
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: \"%s\": expected a number above %g and at most %g, found %g", path, key, low,
                  high, value);
    *out = value;
    return GANQ_OK;
}

static ganq_status read_shape(const json_t *root, const char *path, ganq__config *c) {
    GANQ_TRY(required_int(root, "hidden_size", path, max_width, &c->hidden));
    GANQ_TRY(
        required_int(root, c->family->intermediate_key, path, max_width, &c->intermediate));
    GANQ_TRY(required_int(root, "num_hidden_layers", path, max_layers, &c->layers));
    GANQ_TRY(required_int(root, "num_attention_heads", path, max_heads, &c->heads));
    GANQ_TRY(required_int(root, "vocab_size", path, max_vocab, &c->vocab));
    GANQ_TRY(required_int(root, "max_position_embeddings", path, max_positions, &c->max_positions));
    GANQ_TRY(
        ganq__json_int(root, "num_key_value_heads", path, 1, c->heads, c->heads, &c->kv_heads));
    if (c->heads % c->kv_heads)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: \"num_key_value_heads\": expected a divisor of num_attention_heads = "
                  "%" PRId64 ", found %" PRId64,
                  path, c->heads, c->kv_heads);
    GANQ_TRY(ganq__json_int(root, "head_dim", path, 1, max_width / c->heads, 0, &c->head_dim));
    if (!c->head_dim)
        c->head_dim = c->family->head_dim;
    if (!c->head_dim && c->hidden % c->heads)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: \"hidden_size\": expected a multiple of num_attention_heads = %" PRId64
                  " where head_dim is not given, found %" PRId64,
                  path, c->heads, c->hidden);
    if (!c->head_dim)
        c->head_dim = c->hidden / c->heads;
    if (c->head_dim % 2)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: \"head_dim\": expected an even number (rotary positions turn pairs), found "
                  "%" PRId64,
                  path, c->head_dim);
    return GANQ_OK;
}

/* OPT: what all of its models but the one with 350M parameters have in common. */
static ganq_status read_opt_switches(const json_t *root, const char *path, ganq__config *c) {
    static const struct {
        const char *key;
        int value;
    } fixed[] = {{"do_layer_norm_before", 1},
                 {"layer_norm_elementwise_affine", 1},
                 {"_remove_final_layer_norm", 0}};
    int64_t width;
    int biases;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        int found;
        GANQ_TRY(ganq__json_bool(root, fixed[i].key, path, fixed[i].value, &found));
        if (found != fixed[i].value)
            GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: \"%s\": %s is not supported", path, fixed[i].key,
                      found ? "true" : "false");
    }
    GANQ_TRY(
        ganq__json_int(root, "word_embed_proj_dim", path, 1, max_width, c->hidden, &width));
    if (width != c->hidden)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "%s: \"word_embed_proj_dim\": %" PRId64
                  " is not supported (supported: hidden_size = %" PRId64 ")",
                  path, width, c->hidden);
    GANQ_TRY(ganq__json_bool(root, "enable_bias", path, 1, &biases));
    c->attention_bias = c->output_bias = c->mlp_bias = biases;
    return GANQ_OK;
}

static ganq_status read_switches(const json_t *root, const char *path, ganq__config *c) {
    const ganq__family *family = c->family;
    const char *activation;
    GANQ_TRY(
        ganq__json_string(root, family->activation_key, path, family->activation, &activation));
    if (strcmp(activation, family->activation) &&
        (strcmp(activation, "swish") || strcmp(family->activation, "silu")))
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: \"%s\": \"%s\" is not supported (supported: %s)",
                  path, family->activation_key, activation, family->activation);
    c->norm_eps = family->norm_eps;
    if (!family->norm_eps)
        GANQ_TRY(number_in(root, "rms_norm_eps", path, 0, 1, 1e-6, &c->norm_eps));
    GANQ_TRY(ganq__json_bool(root, "tie_word_embeddings", path, family->tied, &c->tied));
    if (family->opt_keys)
        return read_opt_switches(root, path, c);
    int attention = 0, mlp = 0;
    if (family->attention_bias == GANQ__BIAS_BY_KEY)
        GANQ_TRY(ganq__json_bool(root, "attention_bias", path, 0, &attention));
    if (family->mlp_bias == GANQ__BIAS_BY_KEY)
        GANQ_TRY(ganq__json_bool(root, "mlp_bias", path, 0, &mlp));
    c->attention_bias = attention || family->attention_bias == GANQ__BIAS_QKV;
    c->output_bias = attention;
    c->mlp_bias = mlp;
    return GANQ_OK;
}

static double yarn_scale(double factor, double by) {
    return factor > 1 ? 0.1 * by * log(factor) + 1 : 1;
}

/* Keys that are null are not there. The context grows to what the settings are made for. */
static ganq_status read_yarn(const json_t *rope, const char *path, ganq__config *c) {
    double by, all, attention;
    const double positions = (double)c->max_positions;
    c->rope_kind = GANQ__ROPE_YARN;
    GANQ_TRY(number_in(rope, "original_max_position_embeddings", path, 0, 1e12, positions,
                       &c->rope_original_positions));
    GANQ_TRY(number_in(rope, "factor", path, 0, 1e6, positions / c->rope_original_positions,
                       &c->rope_factor));
    GANQ_TRY(number_in(rope, "beta_slow", path, 0, 1e6, 1, &c->rope_low_factor));
    GANQ_TRY(number_in(rope, "beta_fast", path, 0, 1e6, 32, &c->rope_high_factor));
    GANQ_TRY(ganq__json_bool(rope, "truncate", path, 1, &c->rope_whole));
    GANQ_TRY(ganq__json_double(rope, "mscale", path, 0, &by));
    GANQ_TRY(ganq__json_double(rope, "mscale_all_dim", path, 0, &all));
    attention = by > 0 && all > 0 ? yarn_scale(c->rope_factor, by) / yarn_scale(c->rope_factor, all)
                                  : yarn_scale(c->rope_factor, 1);
    GANQ_TRY(number_in(rope, "attention_factor", path, 0, 1e6, attention, &c->rope_attention));
    if (c->rope_original_positions * c->rope_factor > positions)
        c->max_positions = (int64_t)fmin(c->rope_original_positions * c->rope_factor,
                                         (double)max_positions);
    return GANQ_OK;
}

/* What the scaling object says, for each type. */
static ganq_status read_rope_kind(const json_t *rope, const char *key, const char *path,
                                  ganq__config *c) {
    const char *kind;
    GANQ_TRY(ganq__json_string(rope, "type", path, "default", &kind));
    GANQ_TRY(ganq__json_string(rope, "rope_type", path, kind, &kind));
    if (!strcmp(kind, "default"))
        return GANQ_OK;
    /* The base of the dynamic type grows only beyond max_position_embeddings, where no session
     * goes. */
    if (!strcmp(kind, "dynamic"))
        return GANQ_OK;
    if (!strcmp(kind, "linear")) {
        c->rope_kind = GANQ__ROPE_LINEAR;
        return number_in(rope, "factor", path, 0, 1e6, NAN, &c->rope_factor);
    }
    if (!strcmp(kind, "llama3")) {
        c->rope_kind = GANQ__ROPE_LLAMA3;
        GANQ_TRY(number_in(rope, "factor", path, 0, 1e6, NAN, &c->rope_factor));
        GANQ_TRY(number_in(rope, "low_freq_factor", path, 0, 1e6, NAN, &c->rope_low_factor));
        GANQ_TRY(number_in(rope, "high_freq_factor", path, c->rope_low_factor, 1e6, NAN,
                           &c->rope_high_factor));
        return number_in(rope, "original_max_position_embeddings", path, 0, 1e12, NAN,
                         &c->rope_original_positions);
    }
    if (!strcmp(kind, "yarn"))
        return read_yarn(rope, path, c);
    GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
              "%s: \"%s\": type \"%s\" is not supported (supported: default, linear, dynamic, "
              "llama3, yarn)",
              path, key, kind);
}

/* rope_theta stands beside or inside the object of settings, which is called rope_scaling or, in
 * newer files, rope_parameters; its type is called rope_type or, in older files, type. */
static ganq_status read_rope(const json_t *root, const char *path, ganq__config *c) {
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    const int64_t positions = c->max_positions;
    double rotated;
    c->rope_kind = GANQ__ROPE_PLAIN;
    c->rope_factor = c->rope_attention = 1;
    if (c->family->positions)
        return GANQ_OK;
    GANQ_TRY(number_in(root, "rope_theta", path, 0, 1e15, 10000, &c->rope_theta));
    GANQ_TRY(number_in(root, "partial_rotary_factor", path, 0, 1, 1, &rotated));
    for (int i = 0; i < 2; i++) {
        const json_t *rope = json_object_get(root, names[i]);
        if (!rope || json_is_null(rope))
            continue;
        if (!json_is_object(rope))
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\": expected an object or null", path, names[i]);
        if (json_object_get(rope, "full_attention") || json_object_get(rope, "sliding_attention"))
            GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: \"%s\": settings per layer type are not supported",
                      path, names[i]);
        GANQ_TRY(number_in(rope, "rope_theta", path, 0, 1e15, c->rope_theta, &c->rope_theta));
        GANQ_TRY(number_in(rope, "partial_rotary_factor", path, 0, 1, rotated, &rotated));
        c->max_positions = positions;
        GANQ_TRY(read_rope_kind(rope, names[i], path, c));
    }
    if (rotated != 1)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "%s: \"partial_rotary_factor\": %g is not supported (supported: 1)", path,
                  rotated);
    return GANQ_OK;
}

/* Whether block i has the sliding window. */
static ganq_status has_window(const json_t *root, const char *path, const ganq__config *c,
                              int64_t first, int64_t i, int *out) {
    const json_t *types = json_object_get(root, "layer_types");
    if (!types || json_is_null(types)) {
        *out = i >= first;
        return GANQ_OK;
    }
    if (!json_is_array(types) || (int64_t)json_array_size(types) != c->layers)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"layer_types\": expected a list of %" PRId64 " names",
                  path, c->layers);
    const char *type = json_string_value(json_array_get(types, (size_t)i));
    if (!type || (strcmp(type, "full_attention") && strcmp(type, "sliding_attention")))
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "%s: \"layer_types\": %s at %" PRId64 " is not supported (supported: "
                  "full_attention, sliding_attention)",
                  path, type ? type : "something that is not a string", i);
    *out = !strcmp(type, "sliding_attention");
    return GANQ_OK;
}

static ganq_status read_windows(const json_t *root, const char *path, ganq__config *c) {
    int used = c->family->window == GANQ__WINDOW_ALL;
    int64_t window, first = 0;
    if (c->family->window == GANQ__WINDOW_NEVER)
        return GANQ_OK;
    if (c->family->window == GANQ__WINDOW_BY_LAYER) {
        GANQ_TRY(ganq__json_bool(root, "use_sliding_window", path, 0, &used));
        GANQ_TRY(ganq__json_int(root, "max_window_layers", path, 0, max_layers, 28, &first));
    }
    if (!used)
        return GANQ_OK;
    /* null: no window; not there: the default of these families */
    const int64_t otherwise = json_object_get(root, "sliding_window") ? 0 : default_window;
    GANQ_TRY(ganq__json_int(root, "sliding_window", path, 1, max_positions, otherwise, &window));
    if (!window || window >= c->max_positions)
        return GANQ_OK;
    c->windows = ganq__calloc((size_t)c->layers, sizeof *c->windows);
    if (!c->windows)
        return GANQ_ERR_NO_MEMORY;
    for (int64_t i = 0; i < c->layers; i++) {
        int limited;
        GANQ_TRY(has_window(root, path, c, first, i, &limited));
        c->windows[i] = limited ? window : 0;
    }
    return GANQ_OK;
}

/* A token id, or -1 for none: null, negative, or outside the vocabulary (then it is logged: such an
 * id cannot come up). */
static ganq_status check_id(ganq_context *ctx, const json_t *value, const char *key,
                            const char *path, int64_t vocab, int32_t *out) {
    if (value && !json_is_null(value) && !json_is_integer(value))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\": expected a token id", path, key);
    const int64_t id = json_is_integer(value) ? (int64_t)json_integer_value(value) : -1;
    if (id >= vocab)
        ganq__log(ctx, GANQ_LOG_WARNING,
                  "%s: \"%s\": %" PRId64 " is outside the vocabulary of %" PRId64 " and ignored",
                  path, key, id, vocab);
    *out = id >= 0 && id < vocab ? (int32_t)id : -1;
    return GANQ_OK;
}

/* bos_token_id and eos_token_id (an id or a list) of config.json or generation_config.json, where
 * they are present. */
static ganq_status read_ids(ganq_context *ctx, const json_t *root, const char *path,
                            ganq__config *c) {
    if (!json_is_object(root))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: expected an object", path);
    const json_t *bos = json_object_get(root, "bos_token_id");
    const json_t *eos = json_object_get(root, "eos_token_id");
    if (bos)
        GANQ_TRY(check_id(ctx, bos, "bos_token_id", path, c->vocab, &c->bos));
    if (!eos)
        return GANQ_OK;
    const size_t count = json_is_array(eos) ? json_array_size(eos) : 1;
    int32_t *ids, found = 0;
    GANQ_ALLOC(ids, count);
    ganq__free(c->eos);
    c->eos = ids;
    c->eos_count = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_is_array(eos) ? json_array_get(eos, i) : eos;
        GANQ_TRY(check_id(ctx, value, "eos_token_id", path, c->vocab, &ids[found]));
        found += ids[found] >= 0;
    }
    c->eos_count = found;
    return GANQ_OK;
}

/* quantization_config of a native directory. */
static ganq_status read_quantization(const json_t *root, const char *path, ganq__config *c) {
    const json_t *settings = json_object_get(root, "quantization_config");
    const char *method, *packing;
    int64_t version;
    if (!settings || json_is_null(settings))
        return GANQ_OK;
    GANQ_TRY(ganq__json_require(settings, "quant_method", path));
    GANQ_TRY(ganq__json_string(settings, "quant_method", path, "", &method));
    if (strcmp(method, "ganq"))
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "%s: \"quant_method\": \"%s\" is not supported (supported: ganq)", path, method);
    GANQ_TRY(ganq__json_require(settings, "format_version", path));
    GANQ_TRY(ganq__json_int(settings, "format_version", path, 1, INT32_MAX, 0, &version));
    if (version != 1)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "%s: \"format_version\": this library reads version 1, found %" PRId64, path,
                  version);
    GANQ_TRY(ganq__json_string(settings, "packing", path, "bitplane32", &packing));
    if (strcmp(packing, "bitplane32"))
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "%s: \"packing\": \"%s\" is not supported (supported: bitplane32)", path,
                  packing);
    GANQ_TRY(ganq__json_require(settings, "tensors", path));
    c->quantized = json_object_get(settings, "tensors");
    if (!json_is_object(c->quantized))
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: \"tensors\": expected an object of {\"N\", \"K\", \"bits\"} by name", path);
    return GANQ_OK;
}

static ganq_status read_generation_config(ganq_context *ctx, const char *dir, ganq__config *c) {
    json_t *root = NULL;
    char *path = ganq__path_join(dir, "generation_config.json");
    if (!path)
        return GANQ_ERR_NO_MEMORY;
    ganq_status status = GANQ_OK;
    if (ganq__path_exists(path)) {
        GANQ_TRY_GOTO(free_path, ganq__json_load(path, &root));
        status = read_ids(ctx, root, path, c);
        json_decref(root);
    }
free_path:
    ganq__free(path);
    return status;
}

static ganq_status read_all(ganq_context *ctx, const char *path, ganq__config *c) {
    GANQ_TRY(ganq__json_load(path, &c->json));
    GANQ_TRY(find_family(c->json, path, &c->family));
    GANQ_TRY(read_shape(c->json, path, c));
    GANQ_TRY(read_switches(c->json, path, c));
    GANQ_TRY(read_rope(c->json, path, c));
    GANQ_TRY(read_windows(c->json, path, c));
    GANQ_TRY(read_ids(ctx, c->json, path, c));
    return read_quantization(c->json, path, c);
}

ganq_status ganq__config_load(ganq_context *ctx, const char *dir, ganq__config *out) {
    ganq__config config = {.bos = -1};
    char *path = ganq__path_join(dir, "config.json");
    if (!path)
        return GANQ_ERR_NO_MEMORY;
    ganq_status status = read_all(ctx, path, &config);
    ganq__free(path);
    if (status == GANQ_OK)
        status = read_generation_config(ctx, dir, &config);
    if (status != GANQ_OK) {
        ganq__config_free(&config);
        return status;
    }
    *out = config;
    return GANQ_OK;
}

void ganq__config_free(ganq__config *config) {
    json_decref(config->json);
    ganq__free(config->eos);
    ganq__free(config->windows);
    memset(config, 0, sizeof *config);
}

int ganq__config_roles(const ganq__config *c) {
    return GANQ__ROLE_COUNT - c->family->plain_mlp;
}

ganq__role ganq__config_role(const ganq__config *c, int j) {
    return (ganq__role)(j + (c->family->plain_mlp && j >= GANQ__ROLE_GATE));
}

int ganq__config_role_place(const ganq__config *c, ganq__role role) {
    if (c->family->plain_mlp && role >= GANQ__ROLE_GATE)
        return role == GANQ__ROLE_GATE ? -1 : (int)role - 1;
    return (int)role;
}

void ganq__config_linear_shape(const ganq__config *c, ganq__role role, int64_t *N, int64_t *K) {
    const int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int64_t shapes[GANQ__ROLE_COUNT][2] = {
        [GANQ__ROLE_Q] = {q, c->hidden},
        [GANQ__ROLE_K] = {kv, c->hidden},
        [GANQ__ROLE_V] = {kv, c->hidden},
        [GANQ__ROLE_O] = {c->hidden, q},
        [GANQ__ROLE_GATE] = {c->intermediate, c->hidden},
        [GANQ__ROLE_UP] = {c->intermediate, c->hidden},
        [GANQ__ROLE_DOWN] = {c->hidden, c->intermediate},
    };
    *N = shapes[role][0];
    *K = shapes[role][1];
}

int ganq__config_linear_has_bias(const ganq__config *c, ganq__role role) {
    if (role <= GANQ__ROLE_V)
        return c->attention_bias;
    return role == GANQ__ROLE_O ? c->output_bias : c->mlp_bias;
}
