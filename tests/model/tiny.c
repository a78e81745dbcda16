/* tiny.c - see tiny.h. */
#include "tiny.h"

#include <check.h>
#include <math.h>
#include <stdarg.h>

#include "check_util.h"
#include "alloc.h"
#include "backend.h"
#include "cpu.h"
#include "half.h"
#include "random.h"

tiny tiny_default(void) {
    return (tiny){.architecture = "LlamaForCausalLM",
                  .hidden = 20,
                  .intermediate = 27,
                  .layers = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 6,
                  .vocab = 33,
                  .positions = 96,
                  .dtype = GANQ__ST_F32,
                  .extra = ""};
}

tiny tiny_opt(void) {
    tiny t = tiny_default();
    t.architecture = "OPTForCausalLM";
    t.opt = t.tied = t.qkv_bias = t.o_bias = t.mlp_bias = 1;
    t.kv_heads = t.heads;
    t.hidden = t.heads * t.head_dim;
    return t;
}

static double stored_value(double x, ganq__st_dtype dtype) {
    switch (dtype) {
    case GANQ__ST_F32:
        return (float)x;
    case GANQ__ST_F16:
        return ganq__f16_to_f32(ganq__f32_to_f16((float)x));
    case GANQ__ST_BF16:
        return ganq__bf16_to_f32(ganq__f32_to_bf16((float)x));
    default: /* F64: what the library converts to */
        return (float)x;
    }
}

/* Uniform in offset +- scale. */
static void add_tensor(tiny *t, ganq__random *random, int64_t rows, int64_t cols, double offset,
                       double scale, const char *format, ...) {
    ck_assert_int_lt(t->count, 128);
    tiny_tensor *tensor = &t->tensors[t->count++];
    va_list args;
    va_start(args, format);
    vsnprintf(tensor->name, sizeof tensor->name, format, args);
    va_end(args);
    tensor->rank = cols ? 2 : 1;
    tensor->shape[0] = rows;
    tensor->shape[1] = cols;
    const int64_t count = rows * (cols ? cols : 1);
    tensor->data = malloc((size_t)count * sizeof *tensor->data);
    for (int64_t i = 0; i < count; i++)
        tensor->data[i] =
            stored_value(offset + scale * (2 * ganq__random_double(random) - 1), t->dtype);
}

static void add_linear(tiny *t, ganq__random *random, int64_t N, int64_t K, int bias, int block,
                       const char *name) {
    add_tensor(t, random, N, K, 0, 3 / sqrt((double)K), "model.layers.%d.%s.weight", block, name);
    if (bias)
        add_tensor(t, random, N, 0, 0, 0.5, "model.layers.%d.%s.bias", block, name);
}

static void add_layer_norm(tiny *t, ganq__random *random, int block, const char *name) {
    char full[64];
    snprintf(full, sizeof full, name, block);
    add_tensor(t, random, t->hidden, 0, 1, 0.5, "model.decoder.%s.weight", full);
    add_tensor(t, random, t->hidden, 0, 0, 0.5, "model.decoder.%s.bias", full);
}

static void add_opt_linear(tiny *t, ganq__random *random, int64_t N, int64_t K, int block, const char *name) {
    add_tensor(t, random, N, K, 0, 3 / sqrt((double)K), "model.decoder.layers.%d.%s.weight", block, name);
    if (t->qkv_bias)
        add_tensor(t, random, N, 0, 0, 0.5, "model.decoder.layers.%d.%s.bias", block, name);
}

static void fill_opt(tiny *t, ganq__random *random) {
    const int D = t->hidden;
    add_tensor(t, random, t->vocab, D, 0, 1, "model.decoder.embed_tokens.weight");
    add_tensor(t, random, t->positions + 2, D, 0, 1, "model.decoder.embed_positions.weight");
    for (int i = 0; i < t->layers; i++) {
        add_layer_norm(t, random, i, "layers.%d.self_attn_layer_norm");
        add_layer_norm(t, random, i, "layers.%d.final_layer_norm");
        add_opt_linear(t, random, D, D, i, "self_attn.q_proj");
        add_opt_linear(t, random, D, D, i, "self_attn.k_proj");
        add_opt_linear(t, random, D, D, i, "self_attn.v_proj");
        add_opt_linear(t, random, D, D, i, "self_attn.out_proj");
        add_opt_linear(t, random, t->intermediate, D, i, "fc1");
        add_opt_linear(t, random, D, t->intermediate, i, "fc2");
    }
    add_layer_norm(t, random, 0, "final_layer_norm");
    if (!t->tied)
        add_tensor(t, random, t->vocab, D, 0, 1, "lm_head.weight");
}

void tiny_fill(tiny *t, uint64_t seed) {
    ganq__random random;
    ganq__random_seed(&random, seed);
    if (t->opt) {
        fill_opt(t, &random);
        return;
    }
    const int q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    add_tensor(t, &random, t->vocab, t->hidden, 0, 1, "model.embed_tokens.weight");
    for (int i = 0; i < t->layers; i++) {
        add_tensor(t, &random, t->hidden, 0, 1, 0.5, "model.layers.%d.input_layernorm.weight", i);
        add_tensor(t, &random, t->hidden, 0, 1, 0.5,
                   "model.layers.%d.post_attention_layernorm.weight", i);
        if (t->qk_norm) {
            add_tensor(t, &random, t->head_dim, 0, 1, 0.5,
                       "model.layers.%d.self_attn.q_norm.weight", i);
            add_tensor(t, &random, t->head_dim, 0, 1, 0.5,
                       "model.layers.%d.self_attn.k_norm.weight", i);
        }
        add_linear(t, &random, q, t->hidden, t->qkv_bias, i, "self_attn.q_proj");
        add_linear(t, &random, kv, t->hidden, t->qkv_bias, i, "self_attn.k_proj");
        add_linear(t, &random, kv, t->hidden, t->qkv_bias, i, "self_attn.v_proj");
        add_linear(t, &random, t->hidden, q, t->o_bias, i, "self_attn.o_proj");
        add_linear(t, &random, t->intermediate, t->hidden, t->mlp_bias, i, "mlp.gate_proj");
        add_linear(t, &random, t->intermediate, t->hidden, t->mlp_bias, i, "mlp.up_proj");
        add_linear(t, &random, t->hidden, t->intermediate, t->mlp_bias, i, "mlp.down_proj");
    }
    add_tensor(t, &random, t->hidden, 0, 1, 0.5, "model.norm.weight");
    if (!t->tied)
        add_tensor(t, &random, t->vocab, t->hidden, 0, 1, "lm_head.weight");
}

void tiny_free(tiny *t) {
    for (int i = 0; i < t->count; i++)
        free(t->tensors[i].data);
    t->count = 0;
}

tiny_tensor *tiny_find(tiny *t, const char *name) {
    for (int i = 0; i < t->count; i++)
        if (!strcmp(t->tensors[i].name, name))
            return &t->tensors[i];
    ck_abort_msg("no tensor %s", name);
    return NULL;
}

void tiny_config(const tiny *t, char *text, size_t size) {
    if (t->opt) {
        snprintf(text, size,
                 "{\"architectures\": [\"OPTForCausalLM\"], \"hidden_size\": %d, \"ffn_dim\": %d, \"num_hidden_layers\": %d, "
                 "\"num_attention_heads\": %d, \"vocab_size\": %d, \"max_position_embeddings\": %d, "
                 "\"word_embed_proj_dim\": %d, \"do_layer_norm_before\": true, \"activation_function\": \"relu\", "
                 "\"enable_bias\": %s, \"bos_token_id\": 2, \"eos_token_id\": 2%s%s}\n",
                 t->hidden, t->intermediate, t->layers, t->heads, t->vocab, t->positions, t->hidden,
                 t->qkv_bias ? "true" : "false", t->tied ? "" : ", \"tie_word_embeddings\": false", t->extra);
        return;
    }
    static const char *const ropes[] = {
        "", ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 3.0}",
        ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": "
        "1.0, "
        "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 40}",
        ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 3.0, \"beta_fast\": 4, "
        "\"truncate\": false, \"original_max_position_embeddings\": 40}"};
    snprintf(
        text, size,
        "{\"architectures\": [\"%s\"], \"hidden_size\": %d, \"intermediate_size\": %d, "
        "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
        "\"head_dim\": %d, \"vocab_size\": %d, \"max_position_embeddings\": %d, "
        "\"rms_norm_eps\": 1e-5, \"rope_theta\": 100.0, \"tie_word_embeddings\": %s, "
        "\"attention_bias\": %s, \"mlp_bias\": %s, \"bos_token_id\": 1, \"eos_token_id\": 2%s%s",
        t->architecture, t->hidden, t->intermediate, t->layers, t->heads, t->kv_heads, t->head_dim,
        t->vocab, t->positions, t->tied ? "true" : "false", t->o_bias ? "true" : "false",
        t->mlp_bias ? "true" : "false", ropes[t->rope], t->extra);
    size_t used = strlen(text);
    if (t->window)
        used += (size_t)snprintf(text + used, size - used, ", \"sliding_window\": %d", t->window);
    snprintf(text + used, size - used, "}\n");
}

/* One tensor's bytes in its stored type. */
static void write_data(ganq__st_writer *writer, const tiny_tensor *tensor, ganq__st_dtype dtype) {
    const int64_t count = tensor->shape[0] * (tensor->rank == 2 ? tensor->shape[1] : 1);
    for (int64_t i = 0; i < count; i++) {
        const float value = (float)tensor->data[i];
        const uint16_t half =
            dtype == GANQ__ST_F16 ? ganq__f32_to_f16(value) : ganq__f32_to_bf16(value);
        if (dtype == GANQ__ST_F64)
            ck_ganq_ok(ganq__st_writer_data(writer, &tensor->data[i], 8));
        else if (dtype == GANQ__ST_F32)
            ck_ganq_ok(ganq__st_writer_data(writer, &value, 4));
        else
            ck_ganq_ok(ganq__st_writer_data(writer, &half, 2));
    }
}

void tiny_write(const tiny *t, const char *dir) {
    char path[512], text[2048];
    ganq__st_writer *writer;
    tiny_config(t, text, sizeof text);
    snprintf(path, sizeof path, "%s/config.json", dir);
    ck_ganq_ok(ganq__file_write(path, text, strlen(text)));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ck_ganq_ok(ganq__st_writer_open(path, &writer));
    for (int i = 0; i < t->count; i++)
        ck_ganq_ok(ganq__st_writer_declare(writer, t->tensors[i].name, t->dtype, t->tensors[i].rank,
                                           t->tensors[i].shape));
    for (int i = 0; i < t->count; i++)
        write_data(writer, &t->tensors[i], t->dtype);
    ck_ganq_ok(ganq__st_writer_commit(writer));
}

/* The forward pass in float64. */

static const double *block_data(tiny *t, int block, const char *suffix) {
    char name[128];
    snprintf(name, sizeof name, "model.%slayers.%d.%s", t->opt ? "decoder." : "", block, suffix);
    return tiny_find(t, name)->data;
}

static void linear(tiny *t, int block, const char *name, int bias, const double *x, int N, int K,
                   double *y) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    const double *w = block_data(t, block, full);
    snprintf(full, sizeof full, "%s.bias", name);
    const double *b = bias ? block_data(t, block, full) : NULL;
    for (int n = 0; n < N; n++) {
        y[n] = b ? b[n] : 0;
        for (int k = 0; k < K; k++)
            y[n] += w[n * K + k] * x[k];
    }
}

static void norm(const double *x, const double *weight, int D, double *y) {
    double squares = 0;
    for (int d = 0; d < D; d++)
        squares += x[d] * x[d];
    for (int d = 0; d < D; d++)
        y[d] = x[d] / sqrt(squares / D + 1e-5) * weight[d];
}

/* As the configuration classes of transformers define it, in terms of wavelengths. */
static double inverse_frequency(const tiny *t, int i) {
    const double plain = 1 / pow(100.0, 2.0 * i / t->head_dim);
    if (t->rope == TINY_ROPE_LINEAR)
        return plain / 3;
    if (t->rope == TINY_ROPE_PLAIN)
        return plain;
    if (t->rope == TINY_ROPE_YARN) { /* index of 4 turns and of one over 40 positions */
        const double first = t->head_dim * log(40 / (4 * 2 * M_PI)) / (2 * log(100)),
                     last = t->head_dim * log(40 / (2 * M_PI)) / (2 * log(100));
        const double part = i <= first ? 0 : i >= last ? 1 : (i - first) / (last - first);
        return plain * (part / 3 + 1 - part);
    }
    const double factor = 8, low = 1, high = 4, original = 40, wavelength = 2 * M_PI / plain;
    if (wavelength > original / low)
        return plain / factor;
    if (wavelength < original / high)
        return plain;
    const double smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * plain / factor + smooth * plain;
}

static void rotate(const tiny *t, double *x, int heads, int position) {
    const int half = t->head_dim / 2;
    const double length = t->rope == TINY_ROPE_YARN ? 0.1 * log(3) + 1 : 1;
    for (int head = 0; head < heads; head++)
        for (int i = 0; i < half; i++) {
            double angle = position * inverse_frequency(t, i);
            double *low = x + head * t->head_dim + i, *high = low + half, a = *low, b = *high;
            *low = length * (a * cos(angle) - b * sin(angle));
            *high = length * (b * cos(angle) + a * sin(angle));
        }
}

static void attend(const tiny *t, const double *q, const double *keys, const double *values,
                   int position, double *out) {
    const int dim = t->head_dim, kv = t->kv_heads * dim;
    const int first = t->window && position >= t->window ? position - t->window + 1 : 0;
    double scores[256];
    for (int head = 0; head < t->heads; head++) {
        const int shared = head / (t->heads / t->kv_heads) * dim;
        double total = 0;
        for (int p = first; p <= position; p++) {
            double dot = 0;
            for (int d = 0; d < dim; d++)
                dot += q[head * dim + d] * keys[p * kv + shared + d];
            scores[p] = exp(dot / sqrt((double)dim));
            total += scores[p];
        }
        for (int d = 0; d < dim; d++) {
            double sum = 0;
            for (int p = first; p <= position; p++)
                sum += scores[p] / total * values[p * kv + shared + d];
            out[head * dim + d] = sum;
        }
    }
}

static void forward_block(tiny *t, int block, int count, double *h) {
    const int D = t->hidden, q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    double *keys = calloc((size_t)(count * kv), sizeof *keys);
    double *values = calloc((size_t)(count * kv), sizeof *values);
    double x[256], query[256], attended[256], gate[256], up[256];
    for (int p = 0; p < count; p++) {
        double *row = h + p * D;
        norm(row, block_data(t, block, "input_layernorm.weight"), D, x);
        linear(t, block, "self_attn.q_proj", t->qkv_bias, x, q, D, query);
        linear(t, block, "self_attn.k_proj", t->qkv_bias, x, kv, D, keys + p * kv);
        linear(t, block, "self_attn.v_proj", t->qkv_bias, x, kv, D, values + p * kv);
        if (t->qk_norm) {
            for (int i = 0; i < t->heads; i++)
                norm(query + i * t->head_dim, block_data(t, block, "self_attn.q_norm.weight"),
                     t->head_dim, query + i * t->head_dim);
            for (int i = 0; i < t->kv_heads; i++)
                norm(keys + p * kv + i * t->head_dim,
                     block_data(t, block, "self_attn.k_norm.weight"), t->head_dim,
                     keys + p * kv + i * t->head_dim);
        }
        rotate(t, query, t->heads, p);
        rotate(t, keys + p * kv, t->kv_heads, p);
        attend(t, query, keys, values, p, attended);
        linear(t, block, "self_attn.o_proj", t->o_bias, attended, D, q, x);
        for (int d = 0; d < D; d++)
            row[d] += x[d];
        norm(row, block_data(t, block, "post_attention_layernorm.weight"), D, x);
        linear(t, block, "mlp.gate_proj", t->mlp_bias, x, t->intermediate, D, gate);
        linear(t, block, "mlp.up_proj", t->mlp_bias, x, t->intermediate, D, up);
        for (int d = 0; d < t->intermediate; d++)
            gate[d] = gate[d] / (1 + exp(-gate[d])) * up[d];
        linear(t, block, "mlp.down_proj", t->mlp_bias, gate, D, t->intermediate, x);
        for (int d = 0; d < D; d++)
            row[d] += x[d];
    }
    free(keys);
    free(values);
}

static void layer_norm(const double *x, const double *weight, const double *bias, int D, double *y) {
    double mean = 0, squares = 0;
    for (int d = 0; d < D; d++)
        mean += x[d] / D;
    for (int d = 0; d < D; d++)
        squares += (x[d] - mean) * (x[d] - mean);
    for (int d = 0; d < D; d++)
        y[d] = (x[d] - mean) / sqrt(squares / D + 1e-5) * weight[d] + bias[d];
}

static void forward_opt_block(tiny *t, int block, int count, double *h) {
    const int D = t->hidden, bias = t->qkv_bias;
    double *keys = calloc((size_t)(count * D), sizeof *keys);
    double *values = calloc((size_t)(count * D), sizeof *values);
    double x[256], query[256], attended[256], inner[256];
    for (int p = 0; p < count; p++) {
        double *row = h + p * D;
        layer_norm(row, block_data(t, block, "self_attn_layer_norm.weight"),
                   block_data(t, block, "self_attn_layer_norm.bias"), D, x);
        linear(t, block, "self_attn.q_proj", bias, x, D, D, query);
        linear(t, block, "self_attn.k_proj", bias, x, D, D, keys + p * D);
        linear(t, block, "self_attn.v_proj", bias, x, D, D, values + p * D);
        attend(t, query, keys, values, p, attended);
        linear(t, block, "self_attn.out_proj", bias, attended, D, D, x);
        for (int d = 0; d < D; d++)
            row[d] += x[d];
        layer_norm(row, block_data(t, block, "final_layer_norm.weight"), block_data(t, block, "final_layer_norm.bias"), D,
                   x);
        linear(t, block, "fc1", bias, x, t->intermediate, D, inner);
        for (int d = 0; d < t->intermediate; d++)
            inner[d] = fmax(inner[d], 0);
        linear(t, block, "fc2", bias, inner, D, t->intermediate, x);
        for (int d = 0; d < D; d++)
            row[d] += x[d];
    }
    free(keys);
    free(values);
}

void tiny_forward(tiny *t, const int32_t *ids, int count, double *logits) {
    const int D = t->hidden;
    const double *embedding =
        tiny_find(t, t->opt ? "model.decoder.embed_tokens.weight" : "model.embed_tokens.weight")->data;
    const double *head = t->tied ? embedding : tiny_find(t, "lm_head.weight")->data;
    double *h = malloc((size_t)(count * D) * sizeof *h), x[256];
    for (int p = 0; p < count; p++)
        for (int d = 0; d < D; d++)
            h[p * D + d] = embedding[ids[p] * D + d] +
                           (t->opt ? tiny_find(t, "model.decoder.embed_positions.weight")->data[(p + 2) * D + d] : 0);
    for (int i = 0; i < t->layers; i++)
        (t->opt ? forward_opt_block : forward_block)(t, i, count, h);
    for (int p = 0; p < count; p++) {
        if (t->opt)
            layer_norm(h + p * D, tiny_find(t, "model.decoder.final_layer_norm.weight")->data,
                       tiny_find(t, "model.decoder.final_layer_norm.bias")->data, D, x);
        else
            norm(h + p * D, tiny_find(t, "model.norm.weight")->data, D, x);
        for (int n = 0; n < t->vocab; n++) {
            double sum = 0;
            for (int d = 0; d < D; d++)
                sum += head[n * D + d] * x[d];
            logits[p * t->vocab + n] = sum;
        }
    }
    free(h);
}

/* A layer with random codes and tables, its values put into the tiny model's tensor. */
static ganq_layer *random_layer(tiny *t, const ganq__linear *replaced, int bits, uint64_t seed) {
    ganq__random random;
    ganq__random_seed(&random, seed);
    const int64_t N = replaced->N, K = replaced->K;
    const int L = 1 << bits;
    uint8_t *codes = malloc((size_t)(N * K));
    float *lut = malloc((size_t)(N * L) * sizeof *lut);
    for (int64_t i = 0; i < N * K; i++)
        codes[i] = (uint8_t)ganq__random_below(&random, (uint64_t)L);
    for (int64_t i = 0; i < N * L; i++) /* exact in f16 */
        lut[i] = (float)((double)ganq__random_below(&random, 1001) / 1024 - 0.5);
    ganq_layer *layer;
    ck_ganq_ok(ganq__layer_create(bits, N, K, codes, lut, GANQ_DTYPE_F16, NULL, NULL, NULL,
                                  replaced->bias, GANQ_DTYPE_F32, &layer));
    char name[128];
    snprintf(name, sizeof name, "%s.weight", replaced->name);
    double *w = tiny_find(t, name)->data;
    for (int64_t i = 0; i < N * K; i++)
        w[i] = lut[i / K * L + codes[i]];
    free(codes);
    free(lut);
    return layer;
}

ganq_model *tiny_quantized(ganq_context *ctx, tiny *t, const char *dir) {
    ganq_model *dense, *quantized;
    ganq_layer *layers[64] = {0};
    tiny_write(t, dir);
    ck_ganq_ok(ganq__model_load(ctx, dir, NULL, &dense));
    for (int64_t i = 0; i < dense->linear_count; i++)
        if (t->all_quantized || ganq__model_linear(dense, i)->role != GANQ__ROLE_UP)
            layers[i] =
                random_layer(t, ganq__model_linear(dense, i), 2 + (int)(i % 3), 50 + (uint64_t)i);
    ck_ganq_ok(ganq__model_derive(dense, layers, &quantized));
    ganq__model_release(dense); /* the derived one holds what it shares */
    for (int i = 0; i < 64; i++)
        ganq__layer_release(layers[i]);
    return quantized;
}

ganq_context *test_context(int threads, const char *isa) {
    ganq_context *ctx = ganq__calloc(1, sizeof *ctx);
    atomic_init(&ctx->references, 1);
    ctx->options.log_level = GANQ_LOG_WARNING;
    ctx->progress.name = "";
    ck_ganq_ok(ganq__pool_create(threads, &ctx->pool));
    ctx->backend = &ganq__cpu_backend;
    const char *set = getenv("GANQ_CPU_ISA");
    char *kept = set ? strdup(set) : NULL; /* setenv may move it */
    if (isa)
        setenv("GANQ_CPU_ISA", isa, 1);
    ck_ganq_ok(ganq__cpu_backend.open(ctx));
    if (isa && kept)
        setenv("GANQ_CPU_ISA", kept, 1);
    else if (isa)
        unsetenv("GANQ_CPU_ISA");
    free(kept);
    return ctx;
}

void random_ids(int32_t *ids, int count, int vocab, uint64_t seed) {
    ganq__random random;
    ganq__random_seed(&random, seed);
    for (int i = 0; i < count; i++)
        ids[i] = (int32_t)ganq__random_below(&random, (uint64_t)vocab);
}

double largest_difference(const float *a, const double *b, int64_t count, double *range) {
    double worst = 0, low = b[0], high = b[0];
    for (int64_t i = 0; i < count; i++) {
        if (!(fabs(a[i] - b[i]) <= worst))
            worst = fabs(a[i] - b[i]);
        low = fmin(low, b[i]);
        high = fmax(high, b[i]);
    }
    *range = high - low;
    return worst;
}
