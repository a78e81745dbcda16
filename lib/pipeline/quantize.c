/* quantize.c - the walk over the blocks.
 *
 * Hidden states of all calibration sequences are kept; a block reads them and moves them on. With
 * propagation the linears of a block are solved input by input (q k v, then o, then gate up, then
 * down), and each group is observed behind the quantized groups before it, so that every linear is
 * fitted to the inputs it will see; the dense model's hidden states walk along, so that a linear
 * can make up for the error of its inputs (compensate.h; not for RTN and PAPER, which stay what
 * they are elsewhere). Without, a block is observed once, dense, and moves the hidden states on in
 * the same pass. */
#include "quantize.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "compensate.h"
#include "corpus.h"
#include "dtype.h"
#include "plan.h"
#include "quantize_layer.h"

typedef struct walk {
    ganq_context *ctx;
    const ganq_model *model;
    const ganq_corpus *corpus;
    ganq__walk_plan plan;
    ganq_layer **layers;             /* [linear_count] what was made */
    float *hidden;                   /* [tokens, hidden], sequence after sequence */
    float *dense_hidden;             /* the same in the dense model; NULL: no compensation */
    float *dense_inputs;             /* [longest, K] of one sequence's linear input there */
    int64_t dense_rows;              /* of them filled, and then read */
    int diverged;                    /* something was quantized, so that the two differ */
    ganq__compensation compensation; /* of the group at hand; K 0: none */
    ganq__rope rope;
    ganq__kv kv; /* of one sequence */
    ganq__workspace workspace;
    ganq_hessian *hessians[GANQ__INPUT_COUNT];
    const char *readers[GANQ__INPUT_COUNT]; /* the first linear of the block that reads each input,
                                               for messages */
    int64_t done;                           /* finished linears */
    double work_done, work_total;           /* estimated multiply-adds */
    char block_name[32];
    int64_t pass_tokens; /* seen by the pass so far */
} walk;

/* ---- progress: each piece's share of the whole is an estimate of its multiply-adds ---- */

static double solve_work(const walk *w, const ganq__linear *linear) {
    /* Passes over N K^2, roughly, by recipe; only the time estimate depends on them. */
    static const double passes[] = {
        [GANQ_RECIPE_DEFAULT] = 60, [GANQ_RECIPE_RTN] = 1,    [GANQ_RECIPE_PAPER] = 12,
        [GANQ_RECIPE_FAST] = 20,    [GANQ_RECIPE_BEST] = 150,
    };
    return passes[w->plan.layer.recipe] * (double)linear->N * (double)linear->K * (double)linear->K;
}

static double block_weights(const ganq__block *block) {
    double sum = 0;
    for (int i = 0; i < GANQ__ROLE_COUNT; i++)
        sum += (double)block->linears[i].N * (double)block->linears[i].K;
    return sum;
}

/* One pass over all sequences, and the Hessian of one input of K columns (0: none). */
static double pass_work(const walk *w, const ganq__block *block, int64_t K) {
    return (double)w->plan.tokens * (block_weights(block) + (double)K * (double)K);
}

/* Announces a piece of that much work. */
static ganq_status begin_piece(walk *w, ganq_stage stage, const char *name, double work) {
    const double from = w->work_done / w->work_total;
    w->work_done += work;
    double to = w->work_done / w->work_total;
    return ganq__progress_at(w->ctx, stage, name, w->done, w->plan.sums.linears,
                             from > 1 ? 1 : from, to > 1 ? 1 : to);
}

static int group_is_chosen(const walk *w, const ganq__block *block, ganq__input input) {
    for (int role = 0; role < GANQ__ROLE_COUNT; role++)
        if (ganq__role_input((ganq__role)role) == input &&
            w->plan.chosen[block->index * GANQ__ROLE_COUNT + role])
            return 1;
    return 0;
}

static int64_t input_width(const ganq__block *block, ganq__input input) {
    for (int role = 0; role < GANQ__ROLE_COUNT; role++)
        if (ganq__role_input((ganq__role)role) == input)
            return block->linears[role].K;
    return 0;
}

static double total_work(const walk *w) {
    double sum = 0;
    for (int64_t i = 0; i < w->model->linear_count; i++)
        if (w->plan.chosen[i])
            sum += solve_work(w, ganq__model_linear(w->model, i));
    if (!w->plan.tokens)
        return sum;
    const int64_t blocks = w->model->config->layers;
    double factor = 1; /* from the first solved group on, the dense model's states walk along */
    for (int64_t b = 0; b < blocks; b++) {
        const ganq__block *block = &w->model->blocks[b];
        for (int i = 0; i < GANQ__INPUT_COUNT; i++)
            if (group_is_chosen(w, block, (ganq__input)i)) {
                sum += factor * pass_work(w, block, input_width(block, (ganq__input)i));
                factor = w->plan.compensate ? 2 : 1;
            }
        if (b + 1 < blocks)
            sum += (w->plan.compensate ? 2 : 1) * pass_work(w, block, 0);
    }
    return sum;
}

/* ---- observing ---- */

static ganq_status observe(void *user, ganq__input input, int64_t M, int64_t K, const float *x,
                           int64_t ldx) {
    walk *w = user;
    if (w->hessians[input]) {
        char what[256];
        snprintf(what, sizeof what, "the inputs of %s", w->readers[input]);
        GANQ_TRY(ganq__hessian_add(w->ctx, w->hessians[input], M, x, ldx, what));
        if (w->compensation.K) {
            GANQ_TRY(ganq__compensation_add(w->ctx, &w->compensation, M,
                                            w->dense_inputs + w->dense_rows * K, K, x, ldx, what));
            w->dense_rows += M;
        }
    }
    if (input == GANQ__INPUT_ATTENTION)
        w->pass_tokens += M;
    return ganq__progress_tick(w->ctx, (double)w->pass_tokens / (double)w->plan.tokens);
}

/* Keeps the inputs of the group at hand, and of no other. */
static ganq_status observe_dense(void *user, ganq__input input, int64_t M, int64_t K,
                                 const float *x, int64_t ldx) {
    walk *w = user;
    if (w->hessians[input]) {
        for (int64_t m = 0; m < M; m++)
            memcpy(w->dense_inputs + (w->dense_rows + m) * K, x + m * ldx, (size_t)K * sizeof *x);
        w->dense_rows += M;
    }
    return ganq__progress_tick(w->ctx, (double)w->pass_tokens / (double)w->plan.tokens);
}

static ganq_status run_sequence(walk *w, const ganq__block *block, int last, ganq__observe_fn fn,
                                int64_t count, float *hidden) {
    const ganq__block_run run = {
        .rope = &w->rope,
        .kv = &w->kv,
        .workspace = &w->workspace,
        .observe = fn,
        .user = w,
        .stop = last >= 0,
        .stop_after = last >= 0 ? (ganq__input)last : GANQ__INPUT_DOWN,
    };
    w->dense_rows = 0;
    return ganq__block_forward(w->ctx, w->model->config, block, &run, count, hidden);
}

/* Runs every sequence through the block; last < 0: to its end, so that the hidden states move on.
 * `dense`: the block as it was, through which the dense model's hidden states go first; NULL: they
 * stay. */
static ganq_status run_sequences(walk *w, const ganq__block *block, const ganq__block *dense,
                                 int last, double work) {
    snprintf(w->block_name, sizeof w->block_name, "block %d", block->index);
    GANQ_TRY(begin_piece(w, GANQ_STAGE_CALIBRATE, w->block_name, dense ? 2 * work : work));
    w->pass_tokens = 0;
    int64_t first = 0;
    for (int64_t i = 0; i < w->plan.sequences; i++) {
        size_t count;
        ganq__corpus_get(w->corpus, i, &count);
        if (!count)
            continue;
        const int64_t offset = first * w->model->config->hidden;
        ganq_status status = GANQ_OK;
        if (dense)
            status = run_sequence(w, dense, last, observe_dense, (int64_t)count,
                                  w->dense_hidden + offset);
        if (status == GANQ_OK)
            status = run_sequence(w, block, last, observe, (int64_t)count, w->hidden + offset);
        if (status != GANQ_OK) {
            if (status == GANQ_ERR_NUMERIC)
                ganq__fail_prefix("calibration sequence %" PRId64, i);
            return status;
        }
        first += (int64_t)count;
    }
    return GANQ_OK;
}

static ganq_status open_hessian(walk *w, const ganq__block *block, ganq__input input) {
    for (int role = GANQ__ROLE_COUNT - 1; role >= 0; role--)
        if (ganq__role_input((ganq__role)role) == input &&
            w->plan.chosen[block->index * GANQ__ROLE_COUNT + role])
            w->readers[input] = block->linears[role].name;
    return ganq__hessian_create(input_width(block, input), &w->hessians[input]);
}

static void close_hessian(walk *w, ganq__input input) {
    ganq__hessian_free(w->hessians[input]);
    w->hessians[input] = NULL;
}

/* ---- solving ---- */

/* What the codes and tables are to come near: W, or W with what makes up for the error of its
 * inputs. */
static ganq_status target_weight(walk *w, const ganq__linear *linear, float **out) {
    const size_t count = (size_t)(linear->N * linear->K);
    ganq_status status = GANQ_ERR_NO_MEMORY;
    float *weight = ganq__malloc_aligned(count, sizeof *weight), *moved = NULL;
    if (!weight)
        return status;
    ganq__linear_rows(linear, 0, linear->N, weight);
    /* A NaN in W is left to the solver, which names its place. */
    if (!w->compensation.K || ganq__find_nonfinite(weight, (int64_t)count) >= 0) {
        *out = weight;
        return GANQ_OK;
    }
    moved = ganq__malloc_aligned(count, sizeof *moved);
    if (moved)
        status = ganq__compensation_apply(w->ctx, &w->compensation, linear->N, weight, moved);
    ganq__free(weight);
    if (status != GANQ_OK) {
        ganq__free(moved);
        return status;
    }
    *out = moved;
    return GANQ_OK;
}

static ganq_status solve_linear(walk *w, ganq__block *block, ganq__role role) {
    ganq__linear *linear = &block->linears[role];
    const int64_t index = block->index * GANQ__ROLE_COUNT + role;
    ganq_layer *layer = NULL;
    float *weight = NULL;
    GANQ_TRY(begin_piece(w, GANQ_STAGE_QUANTIZE, linear->name, solve_work(w, linear)));
    GANQ_TRY(target_weight(w, linear, &weight));
    int32_t bias_dtype =
        linear->bias_tensor ? ganq__st_to_dtype(linear->bias_tensor->dtype) : GANQ_DTYPE_F32;
    if (bias_dtype == GANQ_DTYPE_F64)
        bias_dtype = GANQ_DTYPE_F32;
    const ganq_status status = ganq__layer_quantize(
        w->ctx, linear->N, linear->K, weight, w->hessians[ganq__role_input(role)], linear->bias,
        bias_dtype, &w->plan.layer, &layer);
    ganq__free(weight);
    if (status != GANQ_OK) {
        if (status != GANQ_ERR_CANCELED)
            ganq__fail_prefix("%s", linear->name);
        return status;
    }
    w->layers[index] = layer;
    w->diverged = 1;
    linear->layer = layer; /* in this walk's copy of the block */
    const double norm = layer->report.norm;
    return ganq__progress_layer_done(w->ctx, ++w->done, norm > 0 ? layer->report.error / norm : 0);
}

static ganq_status solve_group(walk *w, ganq__block *block, ganq__input input) {
    for (int role = 0; role < GANQ__ROLE_COUNT; role++)
        if (ganq__role_input((ganq__role)role) == input &&
            w->plan.chosen[block->index * GANQ__ROLE_COUNT + role])
            GANQ_TRY(solve_linear(w, block, (ganq__role)role));
    return GANQ_OK;
}

/* Every group behind the quantized ones before it; then the hidden states through the quantized
 * block, and the dense model's through the dense one. */
static ganq_status walk_block_propagating(walk *w, ganq__block *block, int is_last) {
    const ganq__block original = *block;
    for (int i = 0; i < GANQ__INPUT_COUNT; i++) {
        const ganq__input input = (ganq__input)i;
        const int64_t K = input_width(block, input);
        const ganq__block *dense = w->dense_hidden && w->diverged ? &original : NULL;
        if (!group_is_chosen(w, block, input))
            continue;
        GANQ_TRY(open_hessian(w, block, input));
        if (dense)
            GANQ_TRY(ganq__compensation_open(K, w->workspace.tokens, &w->compensation));
        GANQ_TRY(run_sequences(w, block, dense, i, pass_work(w, block, K)));
        if (dense)
            GANQ_TRY(ganq__compensation_solve(w->ctx, &w->compensation, w->hessians[input]));
        GANQ_TRY(solve_group(w, block, input));
        close_hessian(w, input);
        ganq__compensation_close(&w->compensation);
    }
    return is_last ? GANQ_OK
                   : run_sequences(w, block, w->dense_hidden ? &original : NULL, -1,
                                   pass_work(w, block, 0));
}

/* All groups of the dense block in one pass, which moves the hidden states on, too. */
static ganq_status walk_block_dense(walk *w, ganq__block *block, int is_last) {
    double work = 0;
    int last = -1;
    for (int i = 0; i < GANQ__INPUT_COUNT; i++) {
        if (!group_is_chosen(w, block, (ganq__input)i))
            continue;
        GANQ_TRY(open_hessian(w, block, (ganq__input)i));
        work += pass_work(w, block, input_width(block, (ganq__input)i));
        last = i;
    }
    if (last >= 0 || !is_last)
        GANQ_TRY(run_sequences(w, block, NULL, is_last ? last : -1,
                               work + (is_last ? 0 : pass_work(w, block, 0))));
    for (int i = 0; i < GANQ__INPUT_COUNT; i++) {
        GANQ_TRY(solve_group(w, block, (ganq__input)i));
        close_hessian(w, (ganq__input)i);
    }
    return GANQ_OK;
}

static ganq_status walk_block_uncalibrated(walk *w, ganq__block *block) {
    for (int i = 0; i < GANQ__INPUT_COUNT; i++)
        GANQ_TRY(solve_group(w, block, (ganq__input)i));
    return GANQ_OK;
}

/* ---- the walk ---- */

static ganq_status open_states(walk *w) {
    const ganq__config *c = w->model->config;
    const int64_t chunk = w->plan.longest < GANQ__CHUNK ? w->plan.longest : GANQ__CHUNK;
    ganq_status status;
    GANQ_ALLOC_GOTO(failed, w->hidden, (size_t)(w->plan.tokens * c->hidden));
    GANQ_TRY(ganq__rope_create(c, w->plan.longest, &w->rope));
    GANQ_TRY(ganq__kv_create(c, w->plan.longest, &w->kv));
    GANQ_TRY(ganq__workspace_create(c, chunk, &w->workspace));
    int64_t first = 0;
    for (int64_t i = 0; i < w->plan.sequences; i++) {
        size_t count;
        const int32_t *ids = ganq__corpus_get(w->corpus, i, &count);
        GANQ_TRY(ganq__model_embed(w->model, ids, (int64_t)count, w->hidden + first * c->hidden));
        first += (int64_t)count;
    }
    if (w->plan.compensate) {
        const size_t count = (size_t)(w->plan.tokens * c->hidden);
        GANQ_ALLOC_GOTO(failed, w->dense_hidden, count);
        memcpy(w->dense_hidden, w->hidden, count * sizeof *w->hidden);
        GANQ_ALLOC_GOTO(failed, w->dense_inputs, (size_t)(w->plan.longest * ganq__widest_input(c)));
    }
    return GANQ_OK;
failed:
    return status;
}

static void close_walk(walk *w) {
    for (int i = 0; i < GANQ__INPUT_COUNT; i++)
        close_hessian(w, (ganq__input)i);
    for (int64_t i = 0; w->layers && i < w->model->linear_count; i++)
        ganq__layer_release(w->layers[i]);
    ganq__free(w->layers);
    ganq__workspace_free(&w->workspace);
    ganq__kv_free(&w->kv);
    ganq__rope_free(&w->rope);
    ganq__compensation_close(&w->compensation);
    ganq__free(w->dense_inputs);
    ganq__free(w->dense_hidden);
    ganq__free(w->hidden);
    ganq__walk_plan_free(&w->plan);
}

static ganq_status check_budget(const ganq_context *ctx, const ganq_quantize_plan *sums) {
    const int64_t budget = ctx->options.memory_budget_bytes;
    if (budget > 0 && sums->memory_bytes > budget)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY,
                  "quantizing needs about %" PRId64 " bytes beside the mapped model, %" PRId64
                  " of them hidden states; the budget is %" PRId64,
                  sums->memory_bytes, sums->activation_bytes, budget);
    return GANQ_OK;
}

/* H of fewer tokens than columns leaves directions without any weight. */
static void warn_of_few_tokens(const walk *w) {
    int64_t widest = 0;
    for (int64_t i = 0; i < w->model->linear_count; i++)
        if (w->plan.chosen[i] && ganq__model_linear(w->model, i)->K > widest)
            widest = ganq__model_linear(w->model, i)->K;
    if (w->plan.tokens && w->plan.tokens < widest && w->plan.layer.recipe != GANQ_RECIPE_RTN)
        ganq__log(w->ctx, GANQ_LOG_WARNING,
                  "the calibration has %" PRId64 " tokens, fewer than the %" PRId64
                  " inputs of the widest linear; more text gives a better model",
                  w->plan.tokens, widest);
}

static ganq_status walk_blocks(walk *w) {
    for (int64_t b = 0; b < w->model->config->layers; b++) {
        const int is_last = b + 1 == w->model->config->layers;
        ganq__block block = w->model->blocks[b];
        if (!w->plan.tokens)
            GANQ_TRY(walk_block_uncalibrated(w, &block));
        else if (w->plan.propagate)
            GANQ_TRY(walk_block_propagating(w, &block, is_last));
        else
            GANQ_TRY(walk_block_dense(w, &block, is_last));
    }
    return GANQ_OK;
}

ganq_status ganq__model_quantize(ganq_context *ctx, const ganq_model *model,
                                 const ganq_corpus *corpus,
                                 const ganq_model_quantize_options *options, ganq_model **out) {
    walk w = {.ctx = ctx, .model = model, .corpus = corpus};
    ganq_status status;
    GANQ_TRY(ganq__walk_plan_make(model, corpus, options, &w.plan));
    ganq__progress_enter(ctx, GANQ_STAGE_QUANTIZE);
    GANQ_TRY_GOTO(close, check_budget(ctx, &w.plan.sums));
    GANQ_CALLOC_GOTO(close, w.layers, (size_t)model->linear_count);
    w.work_total = total_work(&w);
    warn_of_few_tokens(&w);
    if (w.plan.tokens)
        GANQ_TRY_GOTO(close, open_states(&w));
    GANQ_TRY_GOTO(close, walk_blocks(&w));
    GANQ_TRY_GOTO(close, ganq__model_derive(model, w.layers, out));
close:
    ganq__progress_leave(ctx);
    close_walk(&w);
    return status;
}

ganq_status ganq__model_plan(const ganq_model *model, const ganq_corpus *corpus,
                             const ganq_model_quantize_options *options, ganq_quantize_plan *plan,
                             int64_t *linear_bytes) {
    ganq__walk_plan p;
    GANQ_TRY(ganq__walk_plan_make(model, corpus, options, &p));
    *plan = p.sums;
    if (linear_bytes)
        memcpy(linear_bytes, p.bytes, (size_t)model->linear_count * sizeof *linear_bytes);
    ganq__walk_plan_free(&p);
    return GANQ_OK;
}
