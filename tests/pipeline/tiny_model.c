/* tiny_model.c - see tiny_model.h. */
#include "tiny_model.h"

#include <math.h>
#include <sys/stat.h>

#include "check_util.h"

enum { HEADS = 4, KV_HEADS = 2, HEAD_DIM = 10 };

static uint32_t random_state;

static float random_value(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / 8388608.0f - 1.0f; /* [-1, 1) */
}

typedef struct file {
    char header[1 << 16];
    size_t header_size, data_floats, capacity;
    float *data;
} file;

static void add(file *f, const tiny_model *m, const char *name, int rows, int cols, float offset) {
    size_t count = (size_t)rows * (size_t)(cols ? cols : 1), first = f->data_floats;
    f->data = realloc(f->data, (first + count) * sizeof *f->data);
    ck_assert_ptr_nonnull(f->data);
    float scale = m->scale != 0 ? m->scale : 0.2f;
    for (size_t i = 0; i < count; i++)
        f->data[first + i] = offset + scale * random_value();
    if (m->nan_tensor && !strcmp(m->nan_tensor, name))
        f->data[first] = NAN;
    f->data_floats += count;
    char shape[64];
    snprintf(shape, sizeof shape, cols ? "%d,%d" : "%d", rows, cols);
    f->header_size +=
        (size_t)snprintf(f->header + f->header_size, sizeof f->header - f->header_size,
                         "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                         f->header_size ? "," : "{", name, shape, 4 * first, 4 * f->data_floats);
}

static void add_linear(file *f, const tiny_model *m, int block, const char *name, int rows,
                       int cols) {
    char tensor[128];
    snprintf(tensor, sizeof tensor, "model.layers.%d.%s.weight", block, name);
    add(f, m, tensor, rows, cols, 0);
    if (m->biases) {
        snprintf(tensor, sizeof tensor, "model.layers.%d.%s.bias", block, name);
        add(f, m, tensor, rows, 0, 0);
    }
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *out = fopen(path, "wb");
    ck_assert_ptr_nonnull(out);
    fputs(text, out);
    ck_assert_int_eq(fclose(out), 0);
}

void tiny_model_write(const char *dir, const tiny_model *settings) {
    tiny_model m = *settings;
    if (!m.layers)
        m.layers = 2;
    random_state = 12345;
    file *f = calloc(1, sizeof *f);
    ck_assert_ptr_nonnull(f);
    add(f, &m, "model.embed_tokens.weight", TINY_VOCAB, TINY_HIDDEN, 0);
    for (int b = 0; b < m.layers; b++) {
        char norm[128];
        snprintf(norm, sizeof norm, "model.layers.%d.input_layernorm.weight", b);
        add(f, &m, norm, TINY_HIDDEN, 0, 1);
        add_linear(f, &m, b, "self_attn.q_proj", HEADS * HEAD_DIM, TINY_HIDDEN);
        add_linear(f, &m, b, "self_attn.k_proj", KV_HEADS * HEAD_DIM, TINY_HIDDEN);
        add_linear(f, &m, b, "self_attn.v_proj", KV_HEADS * HEAD_DIM, TINY_HIDDEN);
        add_linear(f, &m, b, "self_attn.o_proj", TINY_HIDDEN, HEADS * HEAD_DIM);
        snprintf(norm, sizeof norm, "model.layers.%d.post_attention_layernorm.weight", b);
        add(f, &m, norm, TINY_HIDDEN, 0, 1);
        add_linear(f, &m, b, "mlp.gate_proj", TINY_INTER, TINY_HIDDEN);
        add_linear(f, &m, b, "mlp.up_proj", TINY_INTER, TINY_HIDDEN);
        add_linear(f, &m, b, "mlp.down_proj", TINY_HIDDEN, TINY_INTER);
    }
    add(f, &m, "model.norm.weight", TINY_HIDDEN, 0, 1);
    if (m.untied)
        add(f, &m, "lm_head.weight", TINY_VOCAB, TINY_HIDDEN, 0);
    f->header_size +=
        (size_t)snprintf(f->header + f->header_size, sizeof f->header - f->header_size, "}");
    while (f->header_size % 8)
        f->header[f->header_size++] = ' ';

    ck_assert_int_eq(mkdir(dir, 0777), 0);
    char path[512], config[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *out = fopen(path, "wb");
    ck_assert_ptr_nonnull(out);
    uint64_t length = f->header_size;
    fwrite(&length, 8, 1, out); /* little-endian, as the machines this runs on */
    fwrite(f->header, 1, f->header_size, out);
    fwrite(f->data, sizeof *f->data, f->data_floats, out);
    ck_assert_int_eq(fclose(out), 0);
    free(f->data);
    free(f);
    snprintf(
        config, sizeof config,
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%d,"
        "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
        "\"num_key_value_heads\":%d,\"head_dim\":%d,\"vocab_size\":%d,\"max_position_embeddings\":%"
        "d,"
        "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"hidden_act\":\"silu\",\"attention_bias\":%"
        "s,"
        "\"mlp_bias\":%s,\"tie_word_embeddings\":%s,\"bos_token_id\":1,\"eos_token_id\":2,"
        "\"torch_dtype\":\"float32\",\"a_key_of_its_own\":{\"kept\":[1,2]}}\n",
        TINY_HIDDEN, TINY_INTER, m.layers, HEADS, KV_HEADS, HEAD_DIM, TINY_VOCAB,
        TINY_MAX_POSITIONS, m.biases ? "true" : "false", m.biases ? "true" : "false",
        m.untied ? "false" : "true");
    write_text(dir, "config.json", config);
    write_text(dir, "LICENSE", "do what you like\n");
    write_text(dir, "generation_config.json", "{\"eos_token_id\":2}\n");
    write_text(dir, "README.md", "stays behind\n");
}

ganq_corpus *tiny_corpus(int count, int length) {
    ganq_corpus *corpus = NULL;
    int32_t ids[TINY_MAX_POSITIONS];
    ck_assert_int_le(length, TINY_MAX_POSITIONS);
    random_state = 99;
    ck_ganq_ok(ganq_corpus_create(&corpus));
    for (int i = 0; i < count; i++) {
        for (int t = 0; t < length; t++)
            ids[t] = (int32_t)((random_value() + 1.0f) * 0.5f * (TINY_VOCAB - 1));
        ck_ganq_ok(ganq_corpus_add(corpus, ids, (size_t)length));
    }
    return corpus;
}
