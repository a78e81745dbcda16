/* model.c - loading a checkpoint: weights found by role, checked against the configuration, and
 * used in place where their type allows. */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "dense_ops.h"
#include "dtype.h"
#include "json.h"
#include "lut_gemm.h"
#include "memory.h"
#include "model_ops.h"
#include "random_weights.h"

static const uint32_t float_tensors =
    1u << GANQ__ST_F64 | 1u << GANQ__ST_F32 | 1u << GANQ__ST_F16 | 1u << GANQ__ST_BF16;

/* What loading carries along. */
typedef struct loader {
    ganq_context *ctx;
    int verify;
    int random_bits; /* 0: from the files; else everything is made up, at 16 bits dense */
    uint64_t seed;
    ganq_model *model;
    ganq__store *store;
} loader;

/* Whether the linears of the blocks are random layers. */
static int makes_layers(const loader *l) {
    return l->random_bits && l->random_bits != GANQ__RANDOM_DENSE;
}

static void store_release(ganq__store *store) {
    if (!store || atomic_fetch_sub(&store->references, 1) > 1)
        return;
    for (int64_t i = 0; i < store->owned_count; i++)
        ganq__free(store->owned[i]);
    ganq__free(store->owned);
    ganq__free(store->others);
    ganq__tensors_free(store->tensors);
    ganq__config_free(&store->config);
    ganq__free(store->dir);
    ganq__free(store);
}

/* The store frees `memory`, at once when it fails. */
static ganq_status store_own(ganq__store *store, void *memory) {
    if (store->owned_count == store->owned_capacity) {
        int64_t capacity = store->owned_capacity ? 2 * store->owned_capacity : 64;
        void **owned = ganq__realloc(store->owned, (size_t)capacity, sizeof *owned);
        if (!owned) {
            ganq__free(memory);
            return GANQ_ERR_NO_MEMORY;
        }
        store->owned = owned;
        store->owned_capacity = capacity;
    }
    store->owned[store->owned_count++] = memory;
    return GANQ_OK;
}

/* A name from a template with at most one %d, owned by the store. */
static ganq_status make_name(ganq__store *store, const char *template, int block,
                             const char *suffix, const char **out) {
    const char *mark = strstr(template, "%d");
    char *name =
        mark ? ganq__format("%.*s%d%s%s", (int)(mark - template), template, block, mark + 2, suffix)
             : ganq__format("%s%s", template, suffix);
    if (!name)
        return GANQ_ERR_NO_MEMORY;
    GANQ_TRY(store_own(store, name));
    *out = name;
    return GANQ_OK;
}

/* A float tensor of that shape, its CRC checked where that was asked for. */
static ganq_status find_tensor(const loader *l, const char *name, int rank, const int64_t *shape,
                               const ganq__tensor **out) {
    if (l->random_bits) {
        ganq__tensor *made;
        void *data;
        GANQ_TRY(ganq__random_tensor(l->ctx->pool, name, rank, shape, l->seed, &made, &data));
        const ganq_status status = store_own(l->store, data);
        if (status != GANQ_OK) {
            ganq__free(made);
            return status;
        }
        *out = made;
        return store_own(l->store, made);
    }
    GANQ_TRY(ganq__tensors_require(l->store->tensors, name, float_tensors, rank, shape, out));
    return l->verify ? ganq__tensor_verify(*out) : GANQ_OK;
}

static ganq_status to_f32(const loader *l, const ganq__tensor *tensor, float **out) {
    GANQ_TRY(ganq__tensor_to_f32(tensor, out));
    return store_own(l->store, *out);
}

/* The tensor's data in place, or as f32 when it is F64. */
static ganq_status view(const loader *l, const ganq__tensor *tensor, const void **data,
                        int32_t *dtype) {
    *dtype = ganq__st_to_dtype(tensor->dtype);
    *data = tensor->data;
    if (*dtype != GANQ_DTYPE_F64)
        return GANQ_OK;
    float *converted;
    GANQ_TRY(to_f32(l, tensor, &converted));
    *dtype = GANQ_DTYPE_F32;
    *data = converted;
    return GANQ_OK;
}

static void keep_other(const loader *l, const ganq__tensor *tensor) {
    l->store->others[l->store->other_count++] = tensor;
}

static ganq_status load_vector(const loader *l, const char *template, int block,
                               const char *suffix, int64_t size, float **out) {
    const char *name;
    const ganq__tensor *tensor;
    GANQ_TRY(make_name(l->store, template, block, suffix, &name));
    GANQ_TRY(find_tensor(l, name, 1, &size, &tensor));
    GANQ_TRY(to_f32(l, tensor, out));
    keep_other(l, tensor);
    return GANQ_OK;
}

/* bias: NULL, or where a LayerNorm's goes. */
static ganq_status load_norm(const loader *l, const char *template, int block, int64_t size,
                             float **weight, float **bias) {
    GANQ_TRY(load_vector(l, template, block, ".weight", size, weight));
    return bias && l->store->config.family->layer_norm
               ? load_vector(l, template, block, ".bias", size, bias)
               : GANQ_OK;
}

/* quantization_config.tensors.<name>: {"N", "K", "bits"}. */
static ganq_status load_layer(const loader *l, const json_t *entry, ganq__linear *linear) {
    char where[512];
    int64_t N, K, bits;
    snprintf(where, sizeof where, "%s/config.json: quantization_config.tensors.%s", l->store->dir,
             linear->name);
    static const char *const keys[] = {"N", "K", "bits"};
    for (int i = 0; i < 3; i++)
        GANQ_TRY(ganq__json_require(entry, keys[i], where));
    GANQ_TRY(ganq__json_int(entry, "N", where, linear->N, linear->N, 0, &N));
    GANQ_TRY(ganq__json_int(entry, "K", where, linear->K, linear->K, 0, &K));
    GANQ_TRY(ganq__json_int(entry, "bits", where, 2, 4, 0, &bits));
    return ganq__layer_read(l->store->tensors, linear->name, N, K, (int)bits, &linear->layer);
}

static ganq_status load_linear(const loader *l, const char *template, int block, int has_bias,
                               ganq__linear *linear) {
    const char *weight_name, *bias_name;
    GANQ_TRY(make_name(l->store, template, block, "", &linear->name));
    const json_t *entry = json_object_get(l->store->config.quantized, linear->name);
    if (makes_layers(l) && linear->role != GANQ__ROLE_COUNT)
        return GANQ_OK; /* in make_layers */
    if (entry)
        return load_layer(l, entry, linear);
    const int64_t shape[2] = {linear->N, linear->K};
    GANQ_TRY(make_name(l->store, template, block, ".weight", &weight_name));
    GANQ_TRY(find_tensor(l, weight_name, 2, shape, &linear->weight_tensor));
    GANQ_TRY(view(l, linear->weight_tensor, &linear->weight, &linear->dtype));
    if (!has_bias)
        return GANQ_OK;
    GANQ_TRY(make_name(l->store, template, block, ".bias", &bias_name));
    GANQ_TRY(find_tensor(l, bias_name, 1, shape, &linear->bias_tensor));
    return to_f32(l, linear->bias_tensor, &linear->bias);
}

static ganq_status load_block(const loader *l, int index) {
    const ganq__config *c = &l->store->config;
    const ganq__family *family = c->family;
    ganq__block *block = &l->model->blocks[index];
    block->index = index;
    block->window = c->windows ? c->windows[index] : 0;
    GANQ_TRY(load_norm(l, family->attention_norm, index, c->hidden, &block->attention_norm,
                       &block->attention_norm_bias));
    if (family->qk_norm) {
        GANQ_TRY(load_norm(l, family->q_norm, index, c->head_dim, &block->q_norm, NULL));
        GANQ_TRY(load_norm(l, family->k_norm, index, c->head_dim, &block->k_norm, NULL));
    }
    GANQ_TRY(load_norm(l, family->mlp_norm, index, c->hidden, &block->mlp_norm,
                       &block->mlp_norm_bias));
    for (int i = 0; i < ganq__config_roles(c); i++) {
        const ganq__role role = ganq__config_role(c, i);
        ganq__linear *linear = &block->linears[role];
        linear->role = role;
        ganq__config_linear_shape(c, role, &linear->N, &linear->K);
        GANQ_TRY(load_linear(l, family->linear_names[role], index,
                             ganq__config_linear_has_bias(c, linear->role), linear));
    }
    return GANQ_OK;
}

static ganq_status load_embedding(const loader *l) {
    const ganq__config *c = &l->store->config;
    const int64_t first = c->family->first_position;
    const int64_t shape[2] = {c->vocab, c->hidden}, places[2] = {first + c->max_positions, c->hidden};
    ganq_model *model = l->model;
    const ganq__tensor *tensor;
    const char *name;
    GANQ_TRY(make_name(l->store, c->family->embedding, 0, ".weight", &name));
    GANQ_TRY(find_tensor(l, name, 2, shape, &tensor));
    GANQ_TRY(view(l, tensor, &model->embedding, &model->embedding_dtype));
    keep_other(l, tensor);
    if (!c->family->positions)
        return GANQ_OK;
    GANQ_TRY(make_name(l->store, c->family->positions, 0, ".weight", &name));
    GANQ_TRY(find_tensor(l, name, 2, places, &tensor));
    GANQ_TRY(view(l, tensor, &model->positions, &model->positions_dtype));
    model->positions = (const char *)model->positions +
                       (size_t)(first * c->hidden) * ganq__dtype_size(model->positions_dtype);
    keep_other(l, tensor);
    return GANQ_OK;
}

static int same_tensor(const ganq__tensor *a, const ganq__tensor *b) {
    return a && b && !a->fault && !b->fault && a->dtype == b->dtype &&
           a->size_bytes == b->size_bytes && !memcmp(a->data, b->data, (size_t)a->size_bytes);
}

/* A configuration that ties the head while the checkpoint has one of its own: tied where both are
 * equal, else what was trained is the head. The configuration then says so, for what is saved. */
static ganq_status settle_tie(const loader *l) {
    ganq__config *c = &l->store->config;
    const ganq__tensor *head, *embedding;
    const char *name, *embedding_name;
    if (!c->tied || l->random_bits)
        return GANQ_OK;
    if (!json_object_get(c->quantized, c->family->head)) {
        GANQ_TRY(make_name(l->store, c->family->head, 0, ".weight", &name));
        head = ganq__tensors_find(l->store->tensors, name);
        GANQ_TRY(make_name(l->store, c->family->embedding, 0, ".weight", &embedding_name));
        embedding = ganq__tensors_find(l->store->tensors, embedding_name);
        if (!head || same_tensor(head, embedding))
            return GANQ_OK;
        ganq__log(l->ctx, GANQ_LOG_WARNING,
                  "%s: config.json has tie_word_embeddings, but %s is not what %s is: they are not tied",
                  l->store->dir, name, embedding_name);
    }
    c->tied = 0;
    return json_object_set_new(c->json, "tie_word_embeddings", json_false()) ? GANQ_ERR_NO_MEMORY
                                                                            : GANQ_OK;
}

static ganq_status load_head(const loader *l) {
    const ganq__config *c = &l->store->config;
    ganq__linear *head = &l->model->head;
    *head = (ganq__linear){
        .name = c->family->head, .role = GANQ__ROLE_COUNT, .N = c->vocab, .K = c->hidden};
    GANQ_TRY(settle_tie(l));
    if (c->tied) {
        head->weight = l->model->embedding;
        head->dtype = l->model->embedding_dtype;
        return GANQ_OK;
    }
    GANQ_TRY(load_linear(l, c->family->head, 0, 0, head));
    if (head->weight_tensor)
        keep_other(l, head->weight_tensor);
    return GANQ_OK;
}

static int is_used(const loader *l, const ganq__tensor *tensor) {
    for (int64_t i = 0; i < l->store->other_count; i++)
        if (l->store->others[i] == tensor)
            return 1;
    for (int64_t i = 0; i < l->model->linear_count; i++) {
        const ganq__linear *linear = ganq__model_linear(l->model, i);
        if (linear->weight_tensor == tensor || linear->bias_tensor == tensor)
            return 1;
    }
    return 0;
}

/* Tensors of the checkpoint's blocks that no role reads change what the model computes, unless they
 * are the rotary tables of old exports. */
static void warn_of_unused(const loader *l) {
    const ganq__config *c = &l->store->config;
    const char *pattern = c->family->attention_norm, *first = NULL;
    const size_t prefix = (size_t)(strstr(pattern, "%d") - pattern);
    int64_t unused = 0;
    if (!l->store->tensors || c->quantized)
        return;
    for (int64_t i = 0; i < ganq__tensors_count(l->store->tensors); i++) {
        const ganq__tensor *tensor = ganq__tensors_at(l->store->tensors, i);
        if (strncmp(tensor->name, pattern, prefix) || strstr(tensor->name, "rotary_emb.inv_freq") ||
            is_used(l, tensor))
            continue;
        first = first ? first : tensor->name;
        unused++;
    }
    if (unused)
        ganq__log(l->ctx, GANQ_LOG_WARNING,
                  "%s: %" PRId64 " tensors of its blocks are not used by %s with this config.json, "
                  "first %s",
                  l->store->dir, unused, c->family->architecture, first);
}

static ganq_status load_weights(const loader *l) {
    const ganq__config *c = &l->store->config;
    ganq_model *model = l->model;
    /* embedding, positions, head, final norm and its bias, and up to four of norms in each block */
    l->store->others = ganq__calloc((size_t)(5 + 4 * c->layers), sizeof *l->store->others);
    model->blocks = ganq__calloc((size_t)c->layers, sizeof *model->blocks);
    if (!l->store->others || !model->blocks)
        return GANQ_ERR_NO_MEMORY;
    model->linear_count = c->layers * ganq__config_roles(c);
    GANQ_TRY(load_embedding(l));
    for (int64_t i = 0; i < c->layers; i++) {
        const double step = 1.0 / (double)c->layers;
        GANQ_TRY(ganq__progress_at(l->ctx, GANQ_STAGE_LOAD, l->store->dir,
                                   i * ganq__config_roles(c) + l->store->other_count, 0, (double)i * step,
                                   (double)(i + 1) * step));
        GANQ_TRY(load_block(l, (int)i));
    }
    GANQ_TRY(load_norm(l, c->family->final_norm, 0, c->hidden, &model->final_norm,
                       &model->final_norm_bias));
    GANQ_TRY(load_head(l));
    warn_of_unused(l);
    return GANQ_OK;
}

typedef struct random_job {
    const loader *loader;
    ganq_status *results; /* [linear_count] */
} random_job;

static void random_item(void *user, int64_t i, int worker) {
    const random_job *job = user;
    const loader *l = job->loader;
    ganq__linear *linear = (ganq__linear *)ganq__model_linear(l->model, i);
    (void)worker;
    job->results[i] = ganq__random_layer(
        linear->name, linear->N, linear->K, l->random_bits,
        ganq__config_linear_has_bias(l->model->config, linear->role), l->seed, &linear->layer);
}

/* The blocks' linears of a random model, on all threads. */
static ganq_status make_layers(const loader *l) {
    const int64_t count = l->model->linear_count;
    random_job job = {.loader = l};
    ganq_status status = GANQ_OK;
    GANQ_ALLOC(job.results, (size_t)count);
    ganq__parallel_for(l->ctx->pool, count, random_item, &job);
    for (int64_t i = 0; i < count && status == GANQ_OK; i++)
        status = job.results[i];
    ganq__free(job.results);
    if (status == GANQ_ERR_NO_MEMORY)
        ganq__fail("out of memory for random layers"); /* the worker's message is its thread's */
    return status;
}

/* `settings` has no model and store yet. */
static ganq_status load_model(const loader *settings, const char *dir, ganq_model **out) {
    loader l = *settings;
    ganq_status status = GANQ_ERR_NO_MEMORY;
    ganq_model *model = ganq__calloc(1, sizeof *model);
    ganq__store *store = model ? ganq__calloc(1, sizeof *store) : NULL;
    if (!store) {
        ganq__free(model);
        return status;
    }
    atomic_init(&model->references, 1);
    atomic_init(&store->references, 1);
    model->store = store;
    model->config = &store->config;
    l.model = model;
    l.store = store;
    ganq__progress_enter(l.ctx, GANQ_STAGE_LOAD);
    store->dir = ganq__strdup(dir);
    if (!store->dir)
        goto release_model;
    GANQ_TRY_GOTO(release_model, ganq__config_load(l.ctx, dir, &store->config));
    if (!l.random_bits)
        GANQ_TRY_GOTO(release_model, ganq__tensors_open_dir(dir, &store->tensors));
    GANQ_TRY_GOTO(release_model, load_weights(&l));
    if (makes_layers(&l))
        GANQ_TRY_GOTO(release_model, make_layers(&l));
    ganq__progress_leave(l.ctx);
    *out = model;
    return GANQ_OK;
release_model:
    ganq__progress_leave(l.ctx);
    ganq__model_release(model);
    return status;
}

ganq_status ganq__model_load(ganq_context *ctx, const char *dir, const ganq_model_options *options,
                             ganq_model **out) {
    const loader l = {.ctx = ctx, .verify = options && options->verify == GANQ_SWITCH_ON};
    return load_model(&l, dir, out);
}

ganq_status ganq__model_random(ganq_context *ctx, const char *dir, int bits, uint64_t seed,
                               ganq_model **out) {
    const loader l = {.ctx = ctx, .random_bits = bits, .seed = seed};
    return load_model(&l, dir, out);
}

ganq_model *ganq__model_retain(const ganq_model *model) {
    ganq_model *counted = (ganq_model *)model;
    atomic_fetch_add(&counted->references, 1);
    return counted;
}

void ganq__model_release(ganq_model *model) {
    if (!model || atomic_fetch_sub(&model->references, 1) > 1)
        return;
    ganq__detach_all(&model->attachments);
    for (int64_t i = 0; model->blocks && i < model->config->layers; i++)
        for (int j = 0; j < GANQ__ROLE_COUNT; j++)
            ganq__layer_release(model->blocks[i].linears[j].layer);
    ganq__layer_release(model->head.layer);
    ganq__free(model->blocks);
    store_release(model->store);
    ganq__free(model);
}

const ganq__linear *ganq__model_linear(const ganq_model *model, int64_t i) {
    const int roles = ganq__config_roles(model->config);
    const ganq__role role = ganq__config_role(model->config, (int)(i % roles));
    return &model->blocks[i / roles].linears[role];
}

int64_t ganq__model_linear_index(const ganq_model *model, int64_t block, ganq__role role) {
    const int place = ganq__config_role_place(model->config, role);
    return place < 0 ? -1 : block * ganq__config_roles(model->config) + place;
}

ganq_status ganq__model_derive(const ganq_model *model, ganq_layer *const *layers,
                               ganq_model **out) {
    for (int64_t i = 0; i < model->linear_count; i++) {
        const ganq__linear *linear = ganq__model_linear(model, i);
        if (layers[i] && (layers[i]->N != linear->N || layers[i]->K != linear->K))
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "%s: a layer of [%" PRId64 ",%" PRId64 "] in the place of [%" PRId64
                      ",%" PRId64 "]",
                      linear->name, layers[i]->N, layers[i]->K, linear->N, linear->K);
    }
    ganq_model *derived;
    ganq__block *blocks;
    GANQ_ALLOC(derived, 1);
    blocks = ganq__malloc((size_t)model->config->layers, sizeof *blocks);
    if (!blocks) {
        ganq__free(derived);
        return GANQ_ERR_NO_MEMORY;
    }
    memcpy(blocks, model->blocks, (size_t)model->config->layers * sizeof *blocks);
    memcpy(derived, model, sizeof *derived);
    derived->blocks = blocks;
    derived->attachments = (ganq__attachments){0};
    atomic_init(&derived->references, 1);
    atomic_fetch_add(&model->store->references, 1);
    if (derived->head.layer)
        ganq__layer_retain(derived->head.layer);
    for (int64_t i = 0; i < model->linear_count; i++) {
        ganq__linear *linear = (ganq__linear *)ganq__model_linear(derived, i);
        if (layers[i]) {
            linear->layer = layers[i];
            linear->weight = NULL;
            linear->bias = NULL;
        }
        if (linear->layer)
            ganq__layer_retain(linear->layer);
    }
    *out = derived;
    return GANQ_OK;
}

void ganq__linear_rows(const ganq__linear *linear, int64_t first, int64_t count, float *out) {
    if (linear->layer) {
        ganq__layer_dequantize_rows(linear->layer, first, count, out, linear->K);
        return;
    }
    const size_t offset = (size_t)(first * linear->K) * ganq__dtype_size(linear->dtype);
    ganq__to_f32(out, (const char *)linear->weight + offset, linear->dtype, count * linear->K);
}

ganq_status ganq__linear_forward(ganq_context *ctx, const ganq__linear *linear, int64_t M,
                                 const float *x, int64_t ldx, float *y, int64_t ldy) {
    if (linear->layer)
        return ganq__lut_gemm(ctx, linear->layer, M, x, ldx, y, ldy);
    return ctx->dense->linear(ctx, M, linear->N, linear->K, x, ldx, linear->weight, linear->dtype,
                              linear->bias, y, ldy);
}

/* Layers and strides for a product of all linears at once; 0 where one is not quantized. */
static int all_quantized(int count, const ganq__linear *linears, const ganq_layer **layers,
                         int64_t *ldys) {
    int quantized = 0;
    for (int i = 0; i < count; i++) {
        layers[i] = linears[i].layer;
        ldys[i] = linears[i].N;
        quantized += layers[i] != NULL;
    }
    return quantized == count;
}

ganq_status ganq__linears_forward(ganq_context *ctx, int count, const ganq__linear *linears,
                                  int64_t M, const float *x, float *const *ys) {
    const ganq_layer *layers[GANQ__LUT_MANY];
    int64_t ldys[GANQ__LUT_MANY];
    if (all_quantized(count, linears, layers, ldys))
        return ganq__lut_gemm_many(ctx, count, layers, M, x, linears[0].K, ys, ldys);
    for (int i = 0; i < count; i++)
        GANQ_TRY(ganq__linear_forward(ctx, &linears[i], M, x, linears[i].K, ys[i], ldys[i]));
    return GANQ_OK;
}

ganq_status ganq__linears_forward_input(ganq_context *ctx, int count, const ganq__linear *linears,
                                        int64_t M, const ganq__lut_input *input, float *const *ys,
                                        int *taken) {
    const ganq_layer *layers[GANQ__LUT_MANY];
    int64_t ldys[GANQ__LUT_MANY];
    *taken = 0;
    if (!all_quantized(count, linears, layers, ldys))
        return GANQ_OK;
    return ganq__lut_gemm_input(ctx, count, layers, M, input, ys, ldys, taken);
}

ganq_status ganq__model_check_ids(const ganq_model *model, const int32_t *ids, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= model->config->vocab)
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "token %" PRId64 " has id %" PRId32 "; the vocabulary is 0..%" PRId64, i,
                      ids[i], model->config->vocab - 1);
    return GANQ_OK;
}

ganq_status ganq__model_embed(const ganq_model *model, const int32_t *ids, int64_t count,
                              float *h) {
    const int64_t hidden = model->config->hidden;
    const size_t row_bytes = (size_t)hidden * ganq__dtype_size(model->embedding_dtype);
    GANQ_TRY(ganq__model_check_ids(model, ids, count));
    for (int64_t i = 0; i < count; i++)
        ganq__to_f32(h + i * hidden, (const char *)model->embedding + (size_t)ids[i] * row_bytes,
                     model->embedding_dtype, hidden);
    if (!model->positions)
        return GANQ_OK;
    if (count > model->config->max_positions)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%" PRId64 " tokens; the model has %" PRId64 " positions",
                  count, model->config->max_positions);
    float *row;
    GANQ_ALLOC(row, (size_t)hidden);
    for (int64_t i = 0; i < count; i++) {
        ganq__to_f32(row,
                     (const char *)model->positions +
                         (size_t)(i * hidden) * ganq__dtype_size(model->positions_dtype),
                     model->positions_dtype, hidden);
        for (int64_t d = 0; d < hidden; d++)
            h[i * hidden + d] += row[d];
    }
    ganq__free(row);
    return GANQ_OK;
}

ganq_status ganq__model_logits(ganq_context *ctx, const ganq_model *model, int64_t M,
                               const float *h, float *normed, float *logits) {
    const ganq__config *c = model->config;
    if (model->final_norm_bias)
        GANQ_TRY(ctx->model->layer_norm(ctx, M, c->hidden, h, model->final_norm,
                                        model->final_norm_bias, (float)c->norm_eps, normed));
    else
        GANQ_TRY(ctx->model->rms_norm(ctx, M, c->hidden, h, c->hidden, model->final_norm,
                                      (float)c->norm_eps, normed, c->hidden));
    return ganq__linear_forward(ctx, &model->head, M, normed, c->hidden, logits, c->vocab);
}
