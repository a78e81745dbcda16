/* place.c - a model's weights in the memory of a device.
 *
 * What lies in arrays (norms, dense weights, biases, the embedding) is copied as it is stored, each
 * block's arrays into one piece of memory; quantized layers are the business of the device's
 * product. */
#include <inttypes.h>
#include <string.h>

#include "alloc.h"
#include "dtype.h"
#include "lut_gemm.h"
#include "lut_ops.h"
#include "memory.h"
#include "model.h"

enum {
    ALIGNMENT = 256, /* of arrays inside a piece of memory: what devices like their rows to be */
    MAX_ARRAYS = 6 + 2 * GANQ__ROLE_COUNT
};

/* Arrays that go into one piece of memory. */
typedef struct parcel {
    int count;
    size_t bytes;
    struct {
        const void *from;
        size_t bytes, offset;
        const void **to;
    } arrays[MAX_ARRAYS];
} parcel;

/* to: where the array's new address is put, which has the old one now; NULL in it: no array. */
static void add(parcel *p, const void **to, int64_t count, size_t size) {
    if (!*to)
        return;
    const size_t bytes = (size_t)count * size;
    p->arrays[p->count].from = *to;
    p->arrays[p->count].bytes = bytes;
    p->arrays[p->count].offset = p->bytes;
    p->arrays[p->count].to = to;
    p->count++;
    p->bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void add_floats(parcel *p, float **to, int64_t count) {
    add(p, (const void **)to, count, sizeof **to);
}

static void add_linear(parcel *p, ganq__linear *linear) {
    add(p, &linear->weight, linear->N * linear->K, ganq__dtype_size(linear->dtype));
    add_floats(p, &linear->bias, linear->N);
}

static parcel block_parcel(const ganq__config *c, ganq__block *block) {
    parcel p = {0};
    add_floats(&p, &block->attention_norm, c->hidden);
    add_floats(&p, &block->mlp_norm, c->hidden);
    add_floats(&p, &block->attention_norm_bias, c->hidden);
    add_floats(&p, &block->mlp_norm_bias, c->hidden);
    add_floats(&p, &block->q_norm, c->head_dim);
    add_floats(&p, &block->k_norm, c->head_dim);
    for (int i = 0; i < GANQ__ROLE_COUNT; i++)
        add_linear(&p, &block->linears[i]);
    return p;
}

/* Embedding, learned positions, final norm and head; the head may be the embedding. */
static parcel outer_parcel(ganq_model *model) {
    const ganq__config *c = model->config;
    parcel p = {0};
    add(&p, &model->embedding, c->vocab * c->hidden, ganq__dtype_size(model->embedding_dtype));
    add(&p, &model->positions, c->max_positions * c->hidden,
        ganq__dtype_size(model->positions_dtype));
    add_floats(&p, &model->final_norm, c->hidden);
    add_floats(&p, &model->final_norm_bias, c->hidden);
    if (!c->tied)
        add_linear(&p, &model->head);
    return p;
}

static ganq_status send(ganq_context *ctx, const parcel *p, void **out) {
    void *memory;
    GANQ_TRY(ctx->memory->allocate(ctx, p->bytes, &memory));
    for (int i = 0; i < p->count; i++) {
        void *to = (char *)memory + p->arrays[i].offset;
        const ganq_status status =
            ctx->memory->upload(ctx, to, p->arrays[i].from, p->arrays[i].bytes);
        if (status != GANQ_OK) {
            ctx->memory->release(ctx, memory);
            return status;
        }
    }
    for (int i = 0; i < p->count; i++)
        *p->arrays[i].to = (char *)memory + p->arrays[i].offset;
    *out = memory;
    return GANQ_OK;
}

ganq_status ganq__block_place(ganq_context *ctx, const ganq__config *config,
                              const ganq__block *block, ganq__block *out) {
    ganq__block placed = *block;
    placed.memory = NULL;
    if (!ganq__memory_is_host(ctx)) {
        const parcel p = block_parcel(config, &placed);
        GANQ_TRY(send(ctx, &p, &placed.memory));
        for (int i = 0; i < GANQ__ROLE_COUNT; i++) {
            const ganq_layer *layer = placed.linears[i].layer;
            const ganq_status status = layer ? ganq__layer_ready(ctx, layer) : GANQ_OK;
            if (status != GANQ_OK) {
                ganq__fail_prefix("%s", placed.linears[i].name);
                ganq__block_unplace(ctx, &placed);
                return status;
            }
        }
    }
    *out = placed;
    return GANQ_OK;
}

void ganq__block_unplace(ganq_context *ctx, ganq__block *block) {
    if (ganq__memory_is_host(ctx))
        return;
    for (int i = 0; i < GANQ__ROLE_COUNT; i++)
        if (block->linears[i].layer)
            ganq__layer_unplace(ctx, block->linears[i].layer);
    ganq__memory_release(ctx, block->memory);
    block->memory = NULL;
}

/* ---- whole models ---- */

/* About the bytes that a model takes on a device. */
static int64_t placed_bytes(const ganq_context *ctx, const ganq_model *model) {
    ganq_model outer = *model;
    int64_t bytes = (int64_t)outer_parcel(&outer).bytes;
    for (int64_t i = 0; i < model->config->layers; i++) {
        ganq__block block = model->blocks[i];
        bytes += (int64_t)block_parcel(model->config, &block).bytes;
    }
    for (int64_t i = 0; i <= model->linear_count; i++) {
        const ganq_layer *layer =
            i < model->linear_count ? ganq__model_linear(model, i)->layer : model->head.layer;
        if (layer && ctx->lut && ctx->lut->placed_bytes)
            bytes += ctx->lut->placed_bytes(layer);
    }
    return bytes;
}

/* Attached to the model that it is a copy of, and so outlived by its layers and its store: it holds
 * no references. */
static void free_placed(ganq_context *ctx, void *data) {
    ganq_model *placed = data;
    for (int64_t i = 0; placed->blocks && i < placed->config->layers; i++)
        ganq__memory_release(ctx, placed->blocks[i].memory);
    ganq__memory_release(ctx, placed->memory);
    ganq__free(placed->blocks);
    ganq__free(placed);
}

static ganq_status place_weights(ganq_context *ctx, const ganq_model *model, ganq_model *placed) {
    const ganq__config *c = model->config;
    const int64_t needed = placed_bytes(ctx, model);
    const int64_t available = ctx->memory->available ? ctx->memory->available(ctx) : INT64_MAX;
    if (needed > available)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY,
                  "%s: the model's weights take %" PRId64 " bytes there, and %" PRId64
                  " are available",
                  ctx->device_name, needed, available);
    placed->blocks = ganq__calloc((size_t)c->layers, sizeof *placed->blocks);
    if (!placed->blocks)
        return GANQ_ERR_NO_MEMORY;
    for (int64_t i = 0; i < c->layers; i++)
        GANQ_TRY(ganq__block_place(ctx, c, &model->blocks[i], &placed->blocks[i]));
    const parcel outer = outer_parcel(placed);
    GANQ_TRY(send(ctx, &outer, &placed->memory));
    if (c->tied)
        placed->head.weight = placed->embedding;
    return placed->head.layer ? ganq__layer_ready(ctx, placed->head.layer) : GANQ_OK;
}

static ganq_status place_copy(ganq_context *ctx, ganq_model *model, const ganq_model **out) {
    ganq_model *placed;
    GANQ_ALLOC(placed, 1);
    memcpy(placed, model, sizeof *placed);
    placed->blocks = NULL;
    placed->memory = NULL;
    ganq_status status = place_weights(ctx, model, placed);
    if (status == GANQ_OK)
        status = ganq__attach(&model->attachments, ctx, placed, free_placed);
    if (status != GANQ_OK) {
        free_placed(ctx, placed);
        return status;
    }
    *out = placed;
    return GANQ_OK;
}

/* The layers of a model on a host, made ready on all threads; the first failure in order counts. */
typedef struct ready_job {
    ganq_context *ctx;
    const ganq_model *model;
    ganq_status *results; /* [linear_count + 1] */
} ready_job;

static const ganq__linear *linear_at(const ganq_model *model, int64_t i) {
    return i < model->linear_count ? ganq__model_linear(model, i) : &model->head;
}

static void ready_item(void *user, int64_t i, int worker) {
    const ready_job *job = user;
    const ganq_layer *layer = linear_at(job->model, i)->layer;
    (void)worker;
    job->results[i] = layer ? ganq__layer_ready(job->ctx, layer) : GANQ_OK;
}

static ganq_status ready_layers(ganq_context *ctx, const ganq_model *model) {
    const int64_t count = model->linear_count + 1;
    ready_job job = {.ctx = ctx, .model = model};
    GANQ_ALLOC(job.results, (size_t)count);
    ganq__parallel_for(ctx->pool, count, ready_item, &job);
    ganq_status status = GANQ_OK;
    /* once more in this thread, whose message it is to be */
    for (int64_t i = 0; i < count && status == GANQ_OK; i++)
        if (job.results[i] != GANQ_OK)
            status = ganq__layer_ready(ctx, linear_at(model, i)->layer);
    ganq__free(job.results);
    return status;
}

ganq_status ganq__model_place(ganq_context *ctx, const ganq_model *model, const ganq_model **out) {
    if (ganq__memory_is_host(ctx)) {
        GANQ_TRY(ready_layers(ctx, model));
        *out = model;
        return GANQ_OK;
    }
    const ganq_model *placed = ganq__attachment_find(&model->attachments, ctx);
    if (!placed)
        return place_copy(ctx, (ganq_model *)model, out);
    *out = placed;
    return GANQ_OK;
}
