/* test_model.c - checkpoints of every family and type against a float64 forward pass; observers;
 * models with quantized linears, made in memory and read from a native directory; bad checkpoints.
 */
#include <math.h>
#include <unistd.h>

#include "alloc.h"
#include "block.h"
#include "check_util.h"
#include "dtype.h"
#include "model.h"
#include "random.h"
#include "tiny.h"

static char dir[300];
static ganq_context *ctx;

static void setup(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
    ctx = test_context(2, NULL);
}
static void teardown(void) {
    ganq__remove_tree(dir);
    ganq__context_release(ctx);
}

static const char *file_in_dir(const char *name) {
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static ganq_model *write_and_load(const tiny *t) {
    ganq_model *model;
    tiny_write(t, dir);
    ck_ganq_ok(ganq__model_load(ctx, dir, NULL, &model));
    return model;
}

/* Embedding, all blocks in pieces of `tokens`, logits. */
static void run_model(ganq_context *c, const ganq_model *model, const int32_t *ids, int count,
                      int tokens, float *logits) {
    const int64_t hidden = model->config->hidden;
    ganq__rope rope;
    ganq__workspace workspace;
    float *h = malloc((size_t)(count * hidden) * sizeof *h);
    ck_ganq_ok(ganq__rope_create(c, model->config, count, &rope));
    ck_ganq_ok(ganq__workspace_create(c, model->config, tokens, &workspace));
    ck_ganq_ok(ganq__model_embed(model, ids, count, h));
    for (int64_t i = 0; i < model->config->layers; i++) {
        ganq__kv kv;
        ck_ganq_ok(ganq__kv_create(c, model->config, count, GANQ_DTYPE_F32, 1, &kv));
        ganq__block_run run = {.rope = &rope, .kv = &kv, .workspace = &workspace};
        ck_ganq_ok(ganq__block_forward(c, model->config, &model->blocks[i], &run, count, h));
        ganq__kv_free(&kv);
    }
    ck_ganq_ok(ganq__model_logits(c, model, count, h, h, logits));
    ganq__rope_free(&rope);
    ganq__workspace_free(&workspace);
    free(h);
}

/* tiny_default with some fields changed. */
static tiny variant(int i) {
    tiny t = tiny_default();
    switch (i) {
    case 0:
        break;
    case 1:
        t.tied = 1;
        t.dtype = GANQ__ST_F16;
        break;
    case 2: /* every head its own keys */
        t.kv_heads = 4;
        t.dtype = GANQ__ST_BF16;
        break;
    case 3: /* one for all */
        t.kv_heads = 1;
        t.dtype = GANQ__ST_F64;
        t.tied = 1;
        break;
    case 4:
        t.qkv_bias = t.o_bias = t.mlp_bias = 1;
        break;
    case 5:
        t.architecture = "Qwen2ForCausalLM";
        t.qkv_bias = 1;
        t.dtype = GANQ__ST_F64;
        break;
    case 6: /* head_dim unlike hidden / heads */
        t.architecture = "Qwen3ForCausalLM";
        t.qk_norm = 1;
        t.head_dim = 10;
        break;
    case 7:
        t.rope = TINY_ROPE_LLAMA3;
        t.head_dim = 8;
        break;
    case 8:
        t.rope = TINY_ROPE_LINEAR;
        break;
    case 9:
        t.architecture = "MistralForCausalLM";
        t.window = 11;
        break;
    case 10: /* the newer spelling */
        t.extra = ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 100.0}";
        break;
    case 11:
        t.rope = TINY_ROPE_YARN;
        t.head_dim = 8;
        break;
    case 12:
        t = tiny_opt();
        break;
    case 13:
        t = tiny_opt();
        t.tied = t.qkv_bias = 0;
        t.dtype = GANQ__ST_F16;
        break;
    default:
        ck_abort_msg("no variant %d", i);
    }
    return t;
}
enum { VARIANTS = 14, TOKENS = 50 };

START_TEST(logits_of_every_family) {
    tiny t = variant(_i);
    tiny_fill(&t, 100 + (uint64_t)_i);
    ganq_model *model = write_and_load(&t);
    int32_t ids[TOKENS];
    random_ids(ids, TOKENS, t.vocab, 5);
    const int64_t count = TOKENS * t.vocab;
    double *expected = malloc((size_t)count * sizeof *expected), range;
    float *logits = malloc((size_t)count * sizeof *logits);
    float *again = malloc((size_t)count * sizeof *again);
    tiny_forward(&t, ids, TOKENS, expected);
    run_model(ctx, model, ids, TOKENS, TOKENS, logits);
    double worst = largest_difference(logits, expected, count, &range);
    ck_assert_msg(worst <= 1e-5 * range, "differs by %g in a range of %g", worst, range);
    /* pieces and threads leave every bit */
    ganq_context *one = test_context(1, NULL);
    run_model(one, model, ids, TOKENS, 7, again);
    ck_assert_mem_eq(logits, again, (size_t)count * sizeof *logits);
    ganq__context_release(one);
    /* other kernels, nearly */
    ganq_context *reference = test_context(2, "ref");
    run_model(reference, model, ids, TOKENS, TOKENS, again);
    worst = largest_difference(again, expected, count, &range);
    ck_assert_msg(worst <= 1e-5 * range, "ref differs by %g in a range of %g", worst, range);
    ganq__context_release(reference);
    free(expected);
    free(logits);
    free(again);
    ganq__model_release(model);
    tiny_free(&t);
}
END_TEST

static char warnings[1000];
static void keep_warning(ganq_log_level level, const char *message, void *user) {
    (void)user;
    if (level == GANQ_LOG_WARNING)
        snprintf(warnings + strlen(warnings), sizeof warnings - strlen(warnings), "%s\n", message);
}

/* config.json ties the head, and the checkpoint has one: another than the embedding is used, the same one is not. */
START_TEST(tied_with_a_head) {
    tiny t = variant(0);
    tiny_fill(&t, 12);
    const int same = _i;
    const size_t count = (size_t)(t.vocab * t.hidden);
    tiny_tensor *head = tiny_find(&t, "lm_head.weight");
    if (same)
        memcpy(head->data, tiny_find(&t, "model.embed_tokens.weight")->data, count * sizeof *head->data);
    t.tied = 1;
    warnings[0] = 0;
    ctx->options.log = keep_warning;
    ganq_model *model = write_and_load(&t);
    ck_assert_int_eq(model->config->tied, same);
    ck_assert_int_eq(model->head.weight == model->embedding, same);
    ck_assert_int_eq(strstr(warnings, "not tied") != NULL, !same);
    ck_assert_int_eq(json_is_true(json_object_get(model->config->json, "tie_word_embeddings")), same);
    double *expected = malloc((size_t)t.vocab * TOKENS * sizeof *expected), range;
    float *logits = malloc((size_t)t.vocab * TOKENS * sizeof *logits);
    int32_t ids[TOKENS];
    random_ids(ids, TOKENS, t.vocab, 5);
    t.tied = 0;
    tiny_forward(&t, ids, TOKENS, expected);
    run_model(ctx, model, ids, TOKENS, TOKENS, logits);
    const double worst = largest_difference(logits, expected, (int64_t)t.vocab * TOKENS, &range);
    ck_assert_msg(worst <= 1e-5 * range, "differs by %g in a range of %g", worst, range);
    free(expected);
    free(logits);
    ganq__model_release(model);
    tiny_free(&t);
}
END_TEST

/* Tensors of a block that the configuration has no place for are said to be left out. */
START_TEST(unused_tensors) {
    tiny t = variant(4);
    tiny_fill(&t, 13);
    warnings[0] = 0;
    ctx->options.log = keep_warning;
    ganq_model *model = write_and_load(&t);
    ck_assert_str_eq(warnings, "");
    ganq__model_release(model);
    t.o_bias = 0; /* attention_bias in config.json */
    model = write_and_load(&t);
    ck_assert_msg(strstr(warnings, "8 tensors") && strstr(warnings, "self_attn") && strstr(warnings, ".bias"), "%s",
                  warnings);
    ganq__model_release(model);
    tiny_free(&t);
}
END_TEST

START_TEST(linears_in_order) {
    tiny t = variant(4);
    tiny_fill(&t, 1);
    ganq_model *model = write_and_load(&t);
    static const char *const names[] = {
        "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj",
        "model.layers.1.self_attn.v_proj", "model.layers.1.self_attn.o_proj",
        "model.layers.1.mlp.gate_proj",    "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj"};
    ck_assert_int_eq(model->linear_count, 14);
    for (int i = 0; i < 7; i++) {
        const ganq__linear *linear = ganq__model_linear(model, 7 + i);
        ck_assert_str_eq(linear->name, names[i]);
        ck_assert_int_eq(linear->role, i);
        ck_assert_ptr_nonnull(linear->bias);
        char name[96];
        snprintf(name, sizeof name, "%s.weight", names[i]);
        const double *w = tiny_find(&t, name)->data;
        float rows[2 * 64];
        ganq__linear_rows(linear, 3, 2, rows);
        for (int64_t k = 0; k < 2 * linear->K; k++)
            ck_assert_double_eq(rows[k], w[3 * linear->K + k]);
    }
    /* what a saved model keeps besides: embedding, 2 norms per block, final norm, head */
    ck_assert_int_eq(model->store->other_count, 1 + 2 * 2 + 1 + 1);
    ck_assert_str_eq(model->store->others[0]->name, "model.embed_tokens.weight");
    ck_assert_str_eq(model->store->others[6]->name, "lm_head.weight");
    ganq__model_release(model);
    tiny_free(&t);
}
END_TEST

/* What an observer saw. */
typedef struct seen {
    int64_t calls[GANQ__INPUT_COUNT], tokens[GANQ__INPUT_COUNT], K[GANQ__INPUT_COUNT];
    float *x[GANQ__INPUT_COUNT]; /* [tokens, K] */
} seen;

static ganq_status see(void *user, ganq__input input, int64_t M, int64_t K, const float *x,
                       int64_t ldx) {
    seen *s = user;
    s->calls[input]++;
    s->K[input] = K;
    s->x[input] = realloc(s->x[input], (size_t)((s->tokens[input] + M) * K) * sizeof(float));
    for (int64_t m = 0; m < M; m++)
        memcpy(s->x[input] + (s->tokens[input] + m) * K, x + m * ldx, (size_t)K * sizeof(float));
    s->tokens[input] += M;
    return GANQ_OK;
}

static ganq_status refuse(void *user, ganq__input input, int64_t M, int64_t K, const float *x,
                          int64_t ldx) {
    (void)user, (void)input, (void)M, (void)K, (void)x, (void)ldx;
    GANQ_FAIL(GANQ_ERR_NUMERIC, "seen enough");
}

START_TEST(observers) {
    tiny t = variant(0);
    tiny_fill(&t, 2);
    ganq_model *model = write_and_load(&t);
    const ganq__config *c = model->config;
    enum { COUNT = 20 };
    int32_t ids[COUNT];
    float h[COUNT * 20], before[COUNT * 20];
    ganq__rope rope;
    ganq__workspace workspace;
    ganq__kv kv;
    random_ids(ids, COUNT, t.vocab, 3);
    ck_ganq_ok(ganq__rope_create(ctx, c, COUNT, &rope));
    ck_ganq_ok(ganq__workspace_create(ctx, c, 8, &workspace));
    ck_ganq_ok(ganq__kv_create(ctx, c, COUNT, GANQ_DTYPE_F32, 1, &kv));
    ck_ganq_ok(ganq__model_embed(model, ids, COUNT, before));
    static const int64_t widths[] = {20, 24, 20, 27};
    for (int stop = 0; stop < GANQ__INPUT_COUNT; stop++) {
        seen s = {{0}};
        ganq__block_run run = {.rope = &rope,
                               .kv = &kv,
                               .workspace = &workspace,
                               .observe = see,
                               .user = &s,
                               .stop = 1,
                               .stop_after = (ganq__input)stop};
        memcpy(h, before, sizeof h);
        ck_ganq_ok(ganq__block_forward(ctx, c, &model->blocks[0], &run, COUNT, h));
        ck_assert_mem_eq(h, before, sizeof h);
        for (int i = 0; i < GANQ__INPUT_COUNT; i++) {
            ck_assert_int_eq(s.calls[i], i <= stop ? 3 : 0); /* 20 tokens by 8 */
            ck_assert_int_eq(s.tokens[i], i <= stop ? COUNT : 0);
            if (i <= stop)
                ck_assert_int_eq(s.K[i], widths[i]);
            free(s.x[i]);
        }
    }
    /* the block's output follows from what the observer saw: h + o(attended) + down(gated) */
    seen s = {{0}};
    ganq__block_run run = {
        .rope = &rope, .kv = &kv, .workspace = &workspace, .observe = see, .user = &s};
    ck_ganq_ok(ganq__block_forward(ctx, c, &model->blocks[0], &run, COUNT, h));
    float o[COUNT * 20], down[COUNT * 20];
    ck_ganq_ok(ganq__linear_forward(ctx, &model->blocks[0].linears[GANQ__ROLE_O], COUNT,
                                    s.x[GANQ__INPUT_OUTPUT], 24, o, 20));
    ck_ganq_ok(ganq__linear_forward(ctx, &model->blocks[0].linears[GANQ__ROLE_DOWN], COUNT,
                                    s.x[GANQ__INPUT_DOWN], 27, down, 20));
    for (int i = 0; i < COUNT * 20; i++)
        ck_assert_float_eq(h[i], before[i] + o[i] + down[i]);
    for (int i = 0; i < GANQ__INPUT_COUNT; i++)
        free(s.x[i]);
    for (int role = 0; role < GANQ__ROLE_COUNT; role++)
        ck_assert_int_eq(widths[ganq__role_input((ganq__role)role)],
                         model->blocks[0].linears[role].K);
    run.observe = refuse;
    ck_ganq_fails(ganq__block_forward(ctx, c, &model->blocks[0], &run, COUNT, h), GANQ_ERR_NUMERIC,
                  "seen enough");
    ganq__rope_free(&rope);
    ganq__workspace_free(&workspace);
    ganq__kv_free(&kv);
    ganq__model_release(model);
    tiny_free(&t);
}
END_TEST

/* The native directory of a model with layers: config.json with its list, tensors. */
static void write_native(const tiny *t, const ganq_model *model, const char *entry_format) {
    char text[8192];
    size_t used = (size_t)snprintf(
        text, sizeof text,
        "%s, \"quantization_config\": {\"quant_method\": \"ganq\", \"format_version\": 1, "
        "\"packing\": \"bitplane32\", \"tensors\": {",
        t->extra);
    const char *comma = "";
    for (int64_t i = 0; i < model->linear_count; i++) {
        const ganq__linear *linear = ganq__model_linear(model, i);
        if (!linear->layer)
            continue;
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%s\"%s\": ", comma, linear->name);
        used += (size_t)snprintf(text + used, sizeof text - used, entry_format, (int)linear->N,
                                 (int)linear->K, linear->layer->bits);
        comma = ", ";
    }
    snprintf(text + used, sizeof text - used, "}}");
    tiny native = *t;
    native.extra = text;
    char config[10240];
    tiny_config(&native, config, sizeof config);
    ck_ganq_ok(ganq__file_write(file_in_dir("config.json"), config, strlen(config)));

    ganq__st_writer *writer;
    ck_ganq_ok(ganq__st_writer_open(file_in_dir("model.safetensors"), &writer));
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < model->linear_count; i++) {
            const ganq__linear *linear = ganq__model_linear(model, i);
            const ganq__tensor *tensors[] = {linear->weight_tensor, linear->bias_tensor};
            if (linear->layer && pass == 0)
                ck_ganq_ok(ganq__layer_declare(linear->layer, linear->name, writer));
            else if (linear->layer)
                ck_ganq_ok(ganq__layer_write(linear->layer, writer));
            for (int j = 0; j < 2 && !linear->layer; j++)
                if (tensors[j] && pass == 0)
                    ck_ganq_ok(ganq__st_writer_declare(writer, tensors[j]->name, tensors[j]->dtype,
                                                       tensors[j]->rank, tensors[j]->shape));
                else if (tensors[j])
                    ck_ganq_ok(ganq__st_writer_data(writer, tensors[j]->data,
                                                    (size_t)tensors[j]->size_bytes));
        }
        for (int64_t i = 0; i < model->store->other_count; i++) {
            const ganq__tensor *other = model->store->others[i];
            if (pass == 0)
                ck_ganq_ok(ganq__st_writer_declare(writer, other->name, other->dtype, other->rank,
                                                   other->shape));
            else
                ck_ganq_ok(ganq__st_writer_data(writer, other->data, (size_t)other->size_bytes));
        }
    }
    ck_ganq_ok(ganq__st_writer_commit(writer));
}

START_TEST(quantized_in_memory_and_on_disk) {
    tiny t = variant(4);
    tiny_fill(&t, 6);
    ganq_model *quantized = tiny_quantized(ctx, &t, dir), *loaded;
    enum { COUNT = 12 };
    int32_t ids[COUNT];
    double expected[COUNT * 33], range;
    float logits[COUNT * 33], again[COUNT * 33], rows[64];
    random_ids(ids, COUNT, t.vocab, 8);
    tiny_forward(&t, ids, COUNT, expected);
    run_model(ctx, quantized, ids, COUNT, COUNT, logits);
    double worst = largest_difference(logits, expected, COUNT * 33, &range);
    ck_assert_msg(worst <= 1e-4 * range, "differs by %g in a range of %g", worst, range);

    const ganq__linear *q = ganq__model_linear(quantized, 0);
    ck_assert_ptr_null(q->weight);
    ck_assert_int_eq(q->layer->bits, 2);
    ganq__linear_rows(q, 5, 1, rows);
    const double *w = tiny_find(&t, "model.layers.0.self_attn.q_proj.weight")->data;
    for (int k = 0; k < 20; k++)
        ck_assert_double_eq(rows[k], w[5 * 20 + k]);
    ck_assert_ptr_null(ganq__model_linear(quantized, GANQ__ROLE_UP)->layer);

    write_native(&t, quantized, "{\"N\": %d, \"K\": %d, \"bits\": %d}");
    ck_ganq_ok(ganq__model_load(ctx, dir, NULL, &loaded));
    ck_assert_int_eq(ganq__model_linear(loaded, 1)->layer->bits, 3);
    run_model(ctx, loaded, ids, COUNT, COUNT, again);
    ck_assert_mem_eq(logits, again, sizeof logits);
    ganq__model_release(loaded);

    static const struct {
        const char *entry;
        ganq_status status;
        const char *word;
    } bad_entries[] = {
        {"{\"N\": %d, \"K\": %d}", GANQ_ERR_FORMAT, "bits"},
        {"{\"N\": 1%d, \"K\": %d, \"bits\": %d}", GANQ_ERR_FORMAT, "\"N\""},
        {"{\"N\": %d, \"K\": %d, \"bits\": 1%d}", GANQ_ERR_FORMAT, "bits"},
        {"[%d, %d, %d]", GANQ_ERR_FORMAT, "q_proj"},
    };
    for (size_t i = 0; i < sizeof bad_entries / sizeof bad_entries[0]; i++) {
        write_native(&t, quantized, bad_entries[i].entry);
        ck_ganq_fails(ganq__model_load(ctx, dir, NULL, &loaded), bad_entries[i].status,
                      bad_entries[i].word);
        ck_assert_ptr_nonnull(strstr(ganq_last_error(), "config.json"));
    }
    /* a layer of the wrong shape */
    ganq_layer *wrong[64] = {0};
    wrong[GANQ__ROLE_DOWN] = quantized->blocks[0].linears[GANQ__ROLE_Q].layer;
    ck_ganq_fails(ganq__model_derive(quantized, wrong, &loaded), GANQ_ERR_INVALID_ARG, "down_proj");
    ganq__model_release(quantized);
    tiny_free(&t);
}
END_TEST

START_TEST(missing_and_misshapen_tensors) {
    static const struct {
        const char *tensor, *renamed;
    } missing[] = {
        {"model.embed_tokens.weight", "embed_tokens.weight"},
        {"model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.w"},
        {"model.layers.1.mlp.up_proj.bias", "model.layers.2.mlp.up_proj.bias"},
        {"model.layers.0.input_layernorm.weight", "model.layers.0.layernorm.weight"},
        {"model.norm.weight", "norm.weight"},
        {"lm_head.weight", "head.weight"},
    };
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        tiny t = variant(4);
        ganq_model *model = NULL;
        tiny_fill(&t, 1);
        snprintf(tiny_find(&t, missing[i].tensor)->name, 96, "%s", missing[i].renamed);
        tiny_write(&t, dir);
        ck_ganq_fails(ganq__model_load(ctx, dir, NULL, &model), GANQ_ERR_NOT_FOUND,
                      missing[i].tensor);
        ck_assert_ptr_null(model);
        tiny_free(&t);
    }
    static const char *const turned[] = {"model.embed_tokens.weight", "lm_head.weight",
                                         "model.layers.0.self_attn.k_proj.weight"};
    for (size_t i = 0; i < sizeof turned / sizeof turned[0]; i++) {
        tiny t = variant(0);
        ganq_model *model = NULL;
        tiny_fill(&t, 1);
        tiny_tensor *tensor = tiny_find(&t, turned[i]);
        const int64_t rows = tensor->shape[0];
        tensor->shape[0] = tensor->shape[1];
        tensor->shape[1] = rows;
        tiny_write(&t, dir);
        ck_ganq_fails(ganq__model_load(ctx, dir, NULL, &model), GANQ_ERR_FORMAT, turned[i]);
        ck_assert_ptr_nonnull(strstr(ganq_last_error(), "model.safetensors"));
        tiny_free(&t);
    }
    tiny t = variant(0);
    ganq_model *model = NULL;
    tiny_fill(&t, 1);
    t.dtype = GANQ__ST_I16;
    tiny_write(&t, dir);
    ck_ganq_fails(ganq__model_load(ctx, dir, NULL, &model), GANQ_ERR_FORMAT, "I16");
    /* a tensor that nobody reads does no harm */
    t.dtype = GANQ__ST_F32;
    tiny_tensor *extra = &t.tensors[t.count++];
    *extra = (tiny_tensor){.name = "model.rotary_emb.inv_freq", .rank = 1, .shape = {3}};
    extra->data = calloc(3, sizeof *extra->data);
    tiny_write(&t, dir);
    ck_ganq_ok(ganq__model_load(ctx, dir, NULL, &model));
    ganq__model_release(model);
    /* no weights at all, no directory */
    ck_assert_int_eq(unlink(file_in_dir("model.safetensors")), 0);
    ck_ganq_fails(ganq__model_load(ctx, dir, NULL, &model), GANQ_ERR_NOT_FOUND,
                  "model.safetensors");
    ck_ganq_fails(ganq__model_load(ctx, "/nonexistent/model", NULL, &model), GANQ_ERR_NOT_FOUND,
                  "/nonexistent/model");
    tiny_free(&t);
}
END_TEST

START_TEST(damaged_bytes) {
    tiny t = variant(0);
    ganq_model *model = NULL;
    tiny_fill(&t, 1);
    tiny_write(&t, dir);
    const ganq_model_options verify = {.struct_size = sizeof verify, .verify = GANQ_SWITCH_ON};
    ck_ganq_ok(ganq__model_load(ctx, dir, &verify, &model));
    ganq__model_release(model);
    FILE *file = fopen(file_in_dir("model.safetensors"), "r+b");
    ck_assert_ptr_nonnull(file);
    fseek(file, -3, SEEK_END); /* in the last tensor, the head */
    int byte = fgetc(file);
    fseek(file, -3, SEEK_END);
    fputc(byte ^ 1, file);
    fclose(file);
    ck_ganq_ok(ganq__model_load(ctx, dir, NULL, &model));
    ganq__model_release(model);
    ck_ganq_fails(ganq__model_load(ctx, dir, &verify, &model), GANQ_ERR_FORMAT, "lm_head.weight");
    ck_assert_int_eq(truncate(file_in_dir("model.safetensors"), 4000), 0);
    ck_ganq_fails(ganq__model_load(ctx, dir, NULL, &model), GANQ_ERR_FORMAT, "model.safetensors");
    tiny_free(&t);
}
END_TEST

static int refuse_to_go_on(const ganq_progress *progress, void *user) {
    ck_assert_int_eq(progress->stage, GANQ_STAGE_LOAD);
    ++*(int *)user;
    return 1;
}

START_TEST(canceled_load) {
    tiny t = variant(0);
    ganq_model *model = NULL;
    int calls = 0;
    tiny_fill(&t, 1);
    tiny_write(&t, dir);
    ctx->options.progress = refuse_to_go_on;
    ctx->options.progress_user = &calls;
    ck_ganq_fails(ganq__model_load(ctx, dir, NULL, &model), GANQ_ERR_CANCELED, "cancel");
    ck_assert_int_eq(calls, 1);
    ck_assert_ptr_null(model);
    tiny_free(&t);
}
END_TEST

START_TEST(ids_outside_the_vocabulary) {
    tiny t = variant(0);
    tiny_fill(&t, 1);
    ganq_model *model = write_and_load(&t);
    const int32_t ids[] = {0, 32, 33}, negative[] = {-1};
    float h[3 * 20];
    ck_ganq_ok(ganq__model_embed(model, ids, 2, h));
    ck_ganq_fails(ganq__model_embed(model, ids, 3, h), GANQ_ERR_INVALID_ARG, "token 2 has id 33");
    ck_ganq_fails(ganq__model_embed(model, negative, 1, h), GANQ_ERR_INVALID_ARG, "-1");
    ganq__model_release(model);
    tiny_free(&t);
}
END_TEST

/* Every allocation of a load and of a derived model fails once: NO_MEMORY, and nothing leaks (the
 * sanitizers watch). */
START_TEST(failing_allocations) {
    tiny t = variant(5); /* F64: converted weights, too */
    tiny_fill(&t, 1);
    ganq_model *quantized = tiny_quantized(ctx, &t, dir), *model;
    write_native(&t, quantized, "{\"N\": %d, \"K\": %d, \"bits\": %d}");
    for (int64_t n = 1;; n++) {
        ck_assert_int_lt(n, 5000);
        ganq__alloc_fail_after(n);
        model = NULL;
        ganq_status status = ganq__model_load(ctx, dir, NULL, &model);
        const int reached = ganq__alloc_count() >= n;
        ganq__alloc_fail_after(0);
        if (!reached) {
            ck_ganq_ok(status);
            break;
        }
        ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
        ck_assert_ptr_null(model);
    }
    ganq_layer *none[64] = {0};
    ganq_model *derived = NULL;
    for (int64_t n = 1; n <= 2; n++) {
        ganq__alloc_fail_after(n);
        ck_assert_int_eq(ganq__model_derive(model, none, &derived), GANQ_ERR_NO_MEMORY);
    }
    ganq__alloc_fail_after(0);
    ck_ganq_ok(ganq__model_derive(model, none, &derived));
    ganq__model_release(model);
    ganq__model_release(derived);
    ganq__model_release(quantized);
    ganq__model_release(NULL);
    tiny_free(&t);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("model");
    TCase *tests = tcase_create("model");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, logits_of_every_family, 0, VARIANTS);
    tcase_add_loop_test(tests, tied_with_a_head, 0, 2);
    tcase_add_test(tests, unused_tensors);
    tcase_add_test(tests, linears_in_order);
    tcase_add_test(tests, observers);
    tcase_add_test(tests, quantized_in_memory_and_on_disk);
    tcase_add_test(tests, missing_and_misshapen_tensors);
    tcase_add_test(tests, damaged_bytes);
    tcase_add_test(tests, canceled_load);
    tcase_add_test(tests, ids_outside_the_vocabulary);
    tcase_add_test(tests, failing_allocations);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
