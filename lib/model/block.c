/* block.c - one block: norm, attention, norm, MLP, each added to the residual stream.
 *
 *   h -> norm -> q,k,v -> (norm q,k) -> RoPE -> cache -> attention -> o -> + h = r
 *   r -> norm -> gate,up -> silu(gate) * up -> down -> + r = the next h */
#include "block.h"

#include <math.h>
#include <string.h>

#include "alloc.h"
#include "model_ops.h"

ganq__input ganq__role_input(ganq__role role) {
    if (role <= GANQ__ROLE_V)
        return GANQ__INPUT_ATTENTION;
    if (role == GANQ__ROLE_O)
        return GANQ__INPUT_OUTPUT;
    return role == GANQ__ROLE_DOWN ? GANQ__INPUT_DOWN : GANQ__INPUT_MLP;
}

/* Llama 3's scaling: wavelengths beyond original/low are divided by factor, those below
 * original/high stay, in between the two are mixed linearly in original/wavelength. */
static double llama3_frequency(const ganq__config *c, double frequency) {
    const double pi = 3.14159265358979323846;
    const double turns = c->rope_original_positions * frequency / (2 * pi);
    if (turns < c->rope_low_factor)
        return frequency / c->rope_factor;
    if (turns > c->rope_high_factor)
        return frequency;
    double share = (turns - c->rope_low_factor) / (c->rope_high_factor - c->rope_low_factor);
    return (1 - share) * frequency / c->rope_factor + share * frequency;
}

void ganq__rope_frequencies(const ganq__config *c, double *frequencies) {
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double frequency = pow(c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
        if (c->rope_kind == GANQ__ROPE_LINEAR)
            frequency /= c->rope_factor;
        else if (c->rope_kind == GANQ__ROPE_LLAMA3)
            frequency = llama3_frequency(c, frequency);
        frequencies[i] = frequency;
    }
}

ganq_status ganq__rope_create(const ganq__config *c, int64_t positions, ganq__rope *out) {
    ganq__rope rope = {.positions = positions, .half = c->head_dim / 2};
    const size_t count = (size_t)positions * (size_t)rope.half;
    double *frequencies = ganq__malloc((size_t)rope.half, sizeof *frequencies);
    rope.cosines = ganq__malloc_aligned(count, sizeof *rope.cosines);
    rope.sines = ganq__malloc_aligned(count, sizeof *rope.sines);
    if (!frequencies || !rope.cosines || !rope.sines) {
        ganq__free(frequencies);
        ganq__rope_free(&rope);
        return GANQ_ERR_NO_MEMORY;
    }
    ganq__rope_frequencies(c, frequencies);
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < rope.half; i++) {
            double angle = (double)p * frequencies[i];
            rope.cosines[p * rope.half + i] = (float)cos(angle);
            rope.sines[p * rope.half + i] = (float)sin(angle);
        }
    ganq__free(frequencies);
    *out = rope;
    return GANQ_OK;
}

void ganq__rope_free(ganq__rope *rope) {
    ganq__free(rope->cosines);
    ganq__free(rope->sines);
    memset(rope, 0, sizeof *rope);
}

ganq_status ganq__kv_create(const ganq__config *c, int64_t capacity, ganq__kv *out) {
    const size_t count = (size_t)c->kv_heads * (size_t)c->head_dim;
    ganq__kv kv = {.capacity = capacity};
    kv.keys = ganq__malloc_aligned((size_t)capacity, count * sizeof *kv.keys);
    kv.values = ganq__malloc_aligned((size_t)capacity, count * sizeof *kv.values);
    if (!kv.keys || !kv.values) {
        ganq__kv_free(&kv);
        return GANQ_ERR_NO_MEMORY;
    }
    *out = kv;
    return GANQ_OK;
}

void ganq__kv_free(ganq__kv *kv) {
    ganq__free(kv->keys);
    ganq__free(kv->values);
    memset(kv, 0, sizeof *kv);
}

ganq_status ganq__workspace_create(const ganq__config *c, int64_t tokens, ganq__workspace *out) {
    ganq__workspace w = {.tokens = tokens};
    const int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    struct {
        float **where;
        int64_t width;
    } parts[] = {{&w.normed, c->hidden},
                 {&w.residual, c->hidden},
                 {&w.q, q},
                 {&w.k, kv},
                 {&w.v, kv},
                 {&w.attended, q},
                 {&w.gate, c->intermediate},
                 {&w.up, c->intermediate}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        *parts[i].where =
            ganq__malloc_aligned((size_t)tokens, (size_t)parts[i].width * sizeof(float));
        if (!*parts[i].where) {
            ganq__workspace_free(&w);
            return GANQ_ERR_NO_MEMORY;
        }
    }
    *out = w;
    return GANQ_OK;
}

void ganq__workspace_free(ganq__workspace *w) {
    ganq__free(w->normed);
    ganq__free(w->residual);
    ganq__free(w->q);
    ganq__free(w->k);
    ganq__free(w->v);
    ganq__free(w->attended);
    ganq__free(w->gate);
    ganq__free(w->up);
    memset(w, 0, sizeof *w);
}

/* One piece of a run: at most workspace->tokens tokens. */
typedef struct piece {
    ganq_context *ctx;
    const ganq__config *config;
    const ganq__block *block;
    const ganq__block_run *run;
    int64_t M, position;
    float *h; /* [M, hidden] */
} piece;

/* Shows the input to the observer; *ends is set when the run was to go no further. */
static ganq_status observe(const piece *p, ganq__input input, int64_t K, const float *x,
                           int *ends) {
    if (p->run->observe)
        GANQ_TRY(p->run->observe(p->run->user, input, p->M, K, x, K));
    *ends = p->run->stop && p->run->stop_after == input;
    return GANQ_OK;
}

static ganq_status norm(const piece *p, int64_t rows, int64_t width, const float *x,
                        const float *weight, float *y) {
    return p->ctx->model->rms_norm(p->ctx, rows, width, x, width, weight,
                                   (float)p->config->norm_eps, y, width);
}

static ganq_status apply(const piece *p, ganq__role role, const float *x, float *y) {
    const ganq__linear *linear = &p->block->linears[role];
    return ganq__linear_forward(p->ctx, linear, p->M, x, linear->K, y, linear->N);
}

/* x [M, kv_heads, head_dim] to its places in the cache [kv_heads, capacity, head_dim]. */
static void store_rows(const piece *p, const float *x, float *cache) {
    const int64_t heads = p->config->kv_heads, dim = p->config->head_dim;
    for (int64_t head = 0; head < heads; head++) {
        float *rows = cache + (head * p->run->kv->capacity + p->position) * dim;
        for (int64_t m = 0; m < p->M; m++)
            memcpy(rows + m * dim, x + (m * heads + head) * dim, (size_t)dim * sizeof *x);
    }
}

/* From q, k, v to the attention's output in workspace->attended. */
static ganq_status attend(const piece *p) {
    const ganq__config *c = p->config;
    const ganq__workspace *w = p->run->workspace;
    const ganq__model_ops *ops = p->ctx->model;
    const ganq__rope *rope = p->run->rope;
    const int64_t dim = c->head_dim, q_width = c->heads * dim, k_width = c->kv_heads * dim;
    const float *cosines = rope->cosines + p->position * rope->half;
    const float *sines = rope->sines + p->position * rope->half;
    if (p->block->q_norm) {
        GANQ_TRY(norm(p, p->M * c->heads, dim, w->q, p->block->q_norm, w->q));
        GANQ_TRY(norm(p, p->M * c->kv_heads, dim, w->k, p->block->k_norm, w->k));
    }
    GANQ_TRY(ops->rope(p->ctx, p->M, c->heads, rope->half, cosines, sines, w->q, q_width));
    GANQ_TRY(ops->rope(p->ctx, p->M, c->kv_heads, rope->half, cosines, sines, w->k, k_width));
    store_rows(p, w->k, p->run->kv->keys);
    store_rows(p, w->v, p->run->kv->values);
    const ganq__attention attention = {
        .M = p->M,
        .position = p->position,
        .window = p->block->window,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = dim,
        .scale = (float)(1 / sqrt((double)dim)),
        .q = w->q,
        .keys = p->run->kv->keys,
        .values = p->run->kv->values,
        .capacity = p->run->kv->capacity,
        .out = w->attended,
    };
    return ops->attention(p->ctx, &attention);
}

static ganq_status forward_piece(const piece *p) {
    const ganq__config *c = p->config;
    const ganq__workspace *w = p->run->workspace;
    const ganq__model_ops *ops = p->ctx->model;
    const int64_t count = p->M * c->hidden;
    int ends;
    GANQ_TRY(norm(p, p->M, c->hidden, p->h, p->block->attention_norm, w->normed));
    GANQ_TRY(observe(p, GANQ__INPUT_ATTENTION, c->hidden, w->normed, &ends));
    if (ends)
        return GANQ_OK;
    GANQ_TRY(apply(p, GANQ__ROLE_Q, w->normed, w->q));
    GANQ_TRY(apply(p, GANQ__ROLE_K, w->normed, w->k));
    GANQ_TRY(apply(p, GANQ__ROLE_V, w->normed, w->v));
    GANQ_TRY(attend(p));
    GANQ_TRY(observe(p, GANQ__INPUT_OUTPUT, c->heads * c->head_dim, w->attended, &ends));
    if (ends)
        return GANQ_OK;
    GANQ_TRY(apply(p, GANQ__ROLE_O, w->attended, w->residual));
    GANQ_TRY(ops->add(p->ctx, count, p->h, w->residual, w->residual));

    GANQ_TRY(norm(p, p->M, c->hidden, w->residual, p->block->mlp_norm, w->normed));
    GANQ_TRY(observe(p, GANQ__INPUT_MLP, c->hidden, w->normed, &ends));
    if (ends)
        return GANQ_OK;
    GANQ_TRY(apply(p, GANQ__ROLE_GATE, w->normed, w->gate));
    GANQ_TRY(apply(p, GANQ__ROLE_UP, w->normed, w->up));
    GANQ_TRY(ops->swiglu(p->ctx, p->M * c->intermediate, w->gate, w->up));
    GANQ_TRY(observe(p, GANQ__INPUT_DOWN, c->intermediate, w->gate, &ends));
    if (ends)
        return GANQ_OK;
    GANQ_TRY(apply(p, GANQ__ROLE_DOWN, w->gate, w->normed));
    return ops->add(p->ctx, count, w->residual, w->normed, p->h);
}

ganq_status ganq__block_forward(ganq_context *ctx, const ganq__config *config,
                                const ganq__block *block, const ganq__block_run *run, int64_t M,
                                float *h) {
    if (!ctx->model || !ctx->dense)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: running models is not supported on this device",
                  ctx->device_name);
    for (int64_t done = 0; done < M; done += run->workspace->tokens) {
        const int64_t left = M - done;
        const piece p = {
            .ctx = ctx,
            .config = config,
            .block = block,
            .run = run,
            .M = left < run->workspace->tokens ? left : run->workspace->tokens,
            .position = run->position + done,
            .h = h + done * config->hidden,
        };
        GANQ_TRY(forward_piece(&p));
    }
    return GANQ_OK;
}
