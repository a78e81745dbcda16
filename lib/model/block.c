/* block.c - one block: norm, attention, norm, MLP, each added to the residual stream.
 *
 *   h -> norm -> q,k,v -> (norm q,k), RoPE, cache -> attention -> o -> + h = r
 *   r -> norm -> gate,up -> silu(gate) * up -> down -> + r = the next h
 *   or  norm -> up -> relu -> down                                        */
#include "block.h"

#include <math.h>
#include <string.h>

#include "alloc.h"
#include "dtype.h"
#include "lut_ops.h"
#include "memory.h"
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

/* The index, not a whole number, at which a frequency turns so often over the original positions. */
static double yarn_index(const ganq__config *c, double turns) {
    const double pi = 3.14159265358979323846;
    return (double)c->head_dim * log(c->rope_original_positions / (turns * 2 * pi)) /
           (2 * log(c->rope_theta));
}

/* YaRN: frequencies that turn more than rope_high_factor times stay, those that turn less than
 * rope_low_factor times are divided by factor, linearly in the index in between. */
static double yarn_frequency(const ganq__config *c, int64_t i, double frequency) {
    double begin = yarn_index(c, c->rope_high_factor), end = yarn_index(c, c->rope_low_factor);
    if (c->rope_whole) {
        begin = floor(begin);
        end = ceil(end);
    }
    begin = fmax(begin, 0);
    end = fmin(end, (double)c->head_dim - 1);
    if (begin == end)
        end += 0.001;
    const double share = fmin(fmax(((double)i - begin) / (end - begin), 0), 1);
    return share * frequency / c->rope_factor + (1 - share) * frequency;
}

void ganq__rope_frequencies(const ganq__config *c, double *frequencies) {
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double frequency = pow(c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
        if (c->rope_kind == GANQ__ROPE_LINEAR)
            frequency /= c->rope_factor;
        else if (c->rope_kind == GANQ__ROPE_LLAMA3)
            frequency = llama3_frequency(c, frequency);
        else if (c->rope_kind == GANQ__ROPE_YARN)
            frequency = yarn_frequency(c, i, frequency);
        frequencies[i] = frequency;
    }
}

ganq_status ganq__rope_create(ganq_context *ctx, const ganq__config *c, int64_t positions,
                              ganq__rope *out) {
    ganq__rope rope = {.ctx = ctx, .positions = positions, .half = c->head_dim / 2};
    const size_t count = (size_t)positions * (size_t)rope.half;
    const int turns = !(c->family && c->family->positions); /* else all angles are 0 */
    float *cosines, *sines = NULL;
    double *frequencies = NULL;
    ganq_status status;
    GANQ_ALLOC_GOTO(free_tables, cosines, count);
    GANQ_ALLOC_GOTO(free_tables, sines, count);
    GANQ_ALLOC_GOTO(free_tables, frequencies, (size_t)rope.half);
    ganq__rope_frequencies(c, frequencies);
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < rope.half; i++) {
            double angle = turns ? (double)p * frequencies[i] : 0;
            cosines[p * rope.half + i] = (float)(c->rope_attention * cos(angle));
            sines[p * rope.half + i] = (float)(c->rope_attention * sin(angle));
        }
    GANQ_TRY_GOTO(free_tables, ganq__memory_copy_of(ctx, cosines, count * sizeof *cosines,
                                                    (void **)&rope.cosines));
    GANQ_TRY_GOTO(free_tables,
                  ganq__memory_copy_of(ctx, sines, count * sizeof *sines, (void **)&rope.sines));
    *out = rope;
free_tables:
    if (status != GANQ_OK)
        ganq__rope_free(&rope);
    ganq__free(frequencies);
    ganq__free(sines);
    ganq__free(cosines);
    return status;
}

void ganq__rope_free(ganq__rope *rope) {
    ganq__memory_release(rope->ctx, rope->cosines);
    ganq__memory_release(rope->ctx, rope->sines);
    memset(rope, 0, sizeof *rope);
}

ganq_status ganq__kv_create(ganq_context *ctx, const ganq__config *c, int64_t capacity,
                            int32_t dtype, int64_t blocks, ganq__kv *out) {
    const int64_t aligned = 128; /* elements of a start */
    const int64_t each = (c->kv_heads * c->head_dim * capacity + aligned - 1) / aligned * aligned;
    const size_t bytes = (size_t)each * ganq__dtype_size(dtype);
    void *memory;
    GANQ_TRY(ganq__memory_elements(ctx, 2 * blocks, each, dtype, &memory));
    for (int64_t i = 0; i < blocks; i++)
        out[i] = (ganq__kv){.ctx = ctx,
                            .capacity = capacity,
                            .dtype = dtype,
                            .keys = (char *)memory + (size_t)(2 * i) * bytes,
                            .values = (char *)memory + (size_t)(2 * i + 1) * bytes};
    out->memory = memory;
    return GANQ_OK;
}

void ganq__kv_free(ganq__kv *kv) {
    ganq__memory_release(kv->ctx, kv->memory);
    memset(kv, 0, sizeof *kv);
}

ganq_status ganq__workspace_create(ganq_context *ctx, const ganq__config *c, int64_t tokens,
                                   ganq__workspace *out) {
    ganq__workspace w = {.ctx = ctx, .tokens = tokens};
    const int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const struct {
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
        const ganq_status status = ganq__memory_floats(ctx, tokens, parts[i].width, parts[i].where);
        if (status != GANQ_OK) {
            ganq__workspace_free(&w);
            return status;
        }
    }
    *out = w;
    return GANQ_OK;
}

void ganq__workspace_free(ganq__workspace *w) {
    float *const parts[] = {w->normed, w->residual, w->q, w->k, w->v, w->attended, w->gate, w->up};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        ganq__memory_release(w->ctx, parts[i]);
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

/* x [M,K] from what it is made of, in workspace->normed or workspace->gate. */
static ganq_status make_input(const piece *p, int64_t K, const ganq__lut_input *input,
                              const float **x) {
    const ganq__model_ops *ops = p->ctx->model;
    const ganq__workspace *w = p->run->workspace;
    *x = input->kind == GANQ__LUT_PLAIN    ? input->a
         : input->kind == GANQ__LUT_NORMED ? w->normed
                                           : w->gate;
    if (input->kind == GANQ__LUT_SWIGLU)
        return ops->swiglu(p->ctx, p->M * K, w->gate, w->up);
    if (input->kind == GANQ__LUT_NORMED && input->bias) {
        const float *sum = input->b ? input->sum : input->a;
        if (input->b)
            GANQ_TRY(ops->add(p->ctx, p->M * K, input->a, input->b, input->sum));
        return ops->layer_norm(p->ctx, p->M, K, sum, input->weight, input->bias, input->eps,
                               w->normed);
    }
    if (input->kind == GANQ__LUT_NORMED && input->b)
        return ops->add_norm(p->ctx, p->M, K, input->a, input->b, input->sum, input->weight,
                             input->eps, w->normed);
    if (input->kind == GANQ__LUT_NORMED)
        return ops->rms_norm(p->ctx, p->M, K, input->a, K, input->weight, input->eps, w->normed, K);
    return GANQ_OK;
}

/* `count` linears from `first` on, which read the same input: made on the way where nobody is to
 * see it and the backend can, else before. *ends as in observe. */
static ganq_status apply(const piece *p, ganq__role first, int count, const ganq__lut_input *input,
                         float *const *ys, int *ends) {
    const ganq__linear *linears = &p->block->linears[first];
    const float *x;
    int taken = 0;
    *ends = 0;
    if (input->kind != GANQ__LUT_PLAIN && !input->bias && !p->run->observe && !p->run->stop)
        GANQ_TRY(ganq__linears_forward_input(p->ctx, count, linears, p->M, input, ys, &taken));
    if (taken)
        return GANQ_OK;
    GANQ_TRY(make_input(p, linears->K, input, &x));
    GANQ_TRY(observe(p, ganq__role_input(first), linears->K, x, ends));
    return *ends ? GANQ_OK : ganq__linears_forward(p->ctx, count, linears, p->M, x, ys);
}

/* From q, k, v to the attention's output in workspace->attended. */
static ganq_status attend(const piece *p) {
    const ganq__config *c = p->config;
    const ganq__workspace *w = p->run->workspace;
    const ganq__model_ops *ops = p->ctx->model;
    const ganq__heads heads = {
        .M = p->M,
        .position = p->position,
        .counter = p->run->counter,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .q_norm = p->block->q_norm,
        .k_norm = p->block->k_norm,
        .eps = (float)c->norm_eps,
        .cosines = p->run->rope->cosines,
        .sines = p->run->rope->sines,
        .q = w->q,
        .k = w->k,
        .v = w->v,
        .keys = p->run->kv->keys,
        .values = p->run->kv->values,
        .cache_dtype = p->run->kv->dtype,
        .capacity = p->run->kv->capacity,
    };
    const ganq__attention attention = {
        .M = p->M,
        .position = p->position,
        .window = p->block->window,
        .counter = p->run->counter,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .scale = (float)(1 / sqrt((double)c->head_dim)),
        .q = w->q,
        .keys = p->run->kv->keys,
        .values = p->run->kv->values,
        .cache_dtype = p->run->kv->dtype,
        .capacity = p->run->kv->capacity,
        .out = w->attended,
    };
    if (ops->heads_attention)
        return ops->heads_attention(p->ctx, &heads, &attention);
    GANQ_TRY(ops->heads(p->ctx, &heads));
    return ops->attention(p->ctx, &attention);
}

static ganq_status forward_piece(const piece *p) {
    const ganq__workspace *w = p->run->workspace;
    float *const qkv[] = {w->q, w->k, w->v}, *const gate_up[] = {w->gate, w->up};
    const float eps = (float)p->config->norm_eps;
    const ganq__lut_input attention = {.kind = GANQ__LUT_NORMED,
                                       .a = p->run->resume ? w->residual : p->h,
                                       .b = p->run->resume ? w->normed : NULL,
                                       .weight = p->block->attention_norm,
                                       .bias = p->block->attention_norm_bias,
                                       .eps = eps,
                                       .sum = p->h},
                          output = {.kind = GANQ__LUT_PLAIN, .a = w->attended},
                          mlp = {.kind = GANQ__LUT_NORMED,
                                 .a = p->h,
                                 .b = w->normed,
                                 .weight = p->block->mlp_norm,
                                 .bias = p->block->mlp_norm_bias,
                                 .eps = eps,
                                 .sum = w->residual},
                          down = {.kind = GANQ__LUT_SWIGLU, .a = w->gate, .b = w->up},
                          plain_down = {.kind = GANQ__LUT_PLAIN, .a = w->up};
    const int plain = p->config->family->plain_mlp;
    int ends;
    GANQ_TRY(apply(p, GANQ__ROLE_Q, 3, &attention, qkv, &ends));
    if (ends)
        return GANQ_OK;
    GANQ_TRY(attend(p));
    GANQ_TRY(apply(p, GANQ__ROLE_O, 1, &output, &w->normed, &ends));
    if (ends)
        return GANQ_OK;
    GANQ_TRY(plain ? apply(p, GANQ__ROLE_UP, 1, &mlp, &w->up, &ends)
                   : apply(p, GANQ__ROLE_GATE, 2, &mlp, gate_up, &ends));
    if (ends)
        return GANQ_OK;
    if (plain)
        GANQ_TRY(p->ctx->model->relu(p->ctx, p->M * p->config->intermediate, w->up));
    GANQ_TRY(apply(p, GANQ__ROLE_DOWN, 1, plain ? &plain_down : &down, &w->normed, &ends));
    if (ends || p->run->pause)
        return GANQ_OK;
    return p->ctx->model->add(p->ctx, p->M * p->config->hidden, w->residual, w->normed, p->h);
}

ganq_status ganq__block_forward(ganq_context *ctx, const ganq__config *config,
                                const ganq__block *block, const ganq__block_run *run, int64_t M,
                                float *h) {
    if (!ctx->model || !ctx->dense)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: running models is not supported on this device",
                  ctx->device_name);
    if ((run->pause || run->resume) && (M > run->workspace->tokens || run->stop))
        GANQ_FAIL(GANQ_ERR_INTERNAL, "a block cannot be left unfinished in pieces or with a stop");
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
