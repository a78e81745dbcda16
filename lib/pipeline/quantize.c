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
#include <string.h>

#include "alloc.h"
#include "dtype.h"
#include "quantize_layer.h"
#include "survey.h"
#include "walk.h"

static double total_work(const ganq__walk *w) {
    double sum = w->plan.target_bits > 0 ? ganq__survey_work(w) : 0;
    for (int64_t i = 0; i < w->model->linear_count; i++)
        if (w->plan.chosen[i])
            sum += ganq__walk_solve_work(w->plan.layer.recipe, ganq__model_linear(w->model, i));
    if (!w->plan.tokens)
        return sum;
    const int64_t blocks = w->model->config->layers;
    double factor = 1; /* from the first solved group on, the dense model's states walk along */
    for (int64_t b = 0; b < blocks; b++) {
        const ganq__block *block = &w->model->blocks[b];
        for (int i = 0; i < GANQ__INPUT_COUNT; i++)
            if (ganq__walk_group_is_chosen(w, block, (ganq__input)i)) {
                sum += factor * ganq__walk_pass_work(w, block, ganq__walk_input_width(block, (ganq__input)i));
                factor = w->plan.compensation > 0 ? 2 : 1;
            }
        if (b + 1 < blocks)
            sum += (w->plan.compensation > 0 ? 2 : 1) * ganq__walk_pass_work(w, block, 0);
    }
    return sum;
}

/* ---- solving ---- */

/* What the codes and tables are to come near: W, or W with what makes up for the error of its
 * inputs. */
static ganq_status target_weight(ganq__walk *w, const ganq__linear *linear, float **out) {
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

static ganq_status solve_linear(ganq__walk *w, ganq__block *block, ganq__role role) {
    ganq__linear *linear = &block->linears[role];
    const int64_t index = ganq__model_linear_index(w->model, block->index, role);
    ganq_layer *layer = NULL;
    float *weight = NULL;
    GANQ_TRY(ganq__walk_piece(w, GANQ_STAGE_QUANTIZE, linear->name, ganq__walk_solve_work(w->plan.layer.recipe, linear)));
    GANQ_TRY(target_weight(w, linear, &weight));
    int32_t bias_dtype =
        linear->bias_tensor ? ganq__st_to_dtype(linear->bias_tensor->dtype) : GANQ_DTYPE_F32;
    if (bias_dtype == GANQ_DTYPE_F64)
        bias_dtype = GANQ_DTYPE_F32;
    ganq_quantize_options options = w->plan.layer;
    options.bits = w->plan.bits[index];
    const ganq_status status = ganq__layer_quantize(
        w->ctx, linear->N, linear->K, weight, w->hessians[ganq__role_input(role)], linear->bias,
        bias_dtype, &options, &layer);
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

static ganq_status solve_group(ganq__walk *w, ganq__block *block, ganq__input input) {
    for (int role = 0; role < GANQ__ROLE_COUNT; role++)
        if (ganq__role_input((ganq__role)role) == input &&
            ganq__walk_is_chosen(w, block, (ganq__role)role))
            GANQ_TRY(solve_linear(w, block, (ganq__role)role));
    return GANQ_OK;
}

/* Every group behind the quantized ones before it; then the hidden states through the quantized
 * block, and the dense model's through the dense one. */
static ganq_status walk_block_propagating(ganq__walk *w, ganq__block *block, int is_last) {
    const ganq__block original = *block;
    for (int i = 0; i < GANQ__INPUT_COUNT; i++) {
        const ganq__input input = (ganq__input)i;
        const int64_t K = ganq__walk_input_width(block, input);
        const ganq__block *dense = w->dense_hidden && w->diverged ? &original : NULL;
        if (!ganq__walk_group_is_chosen(w, block, input))
            continue;
        GANQ_TRY(ganq__walk_open_hessian(w, block, input));
        if (dense)
            GANQ_TRY(ganq__compensation_open(K, w->workspace.tokens, &w->compensation));
        GANQ_TRY(ganq__walk_run(w, block, dense, i, ganq__walk_pass_work(w, block, K)));
        if (dense)
            GANQ_TRY(ganq__compensation_solve(w->ctx, &w->compensation, w->hessians[input],
                                              w->plan.compensation));
        GANQ_TRY(solve_group(w, block, input));
        ganq__walk_close_hessian(w, input);
        ganq__compensation_close(&w->compensation);
    }
    return is_last ? GANQ_OK
                   : ganq__walk_run(w, block, w->dense_hidden ? &original : NULL, -1,
                                   ganq__walk_pass_work(w, block, 0));
}

static ganq_status walk_block_dense(ganq__walk *w, ganq__block *block) {
    GANQ_TRY(ganq__walk_run_dense(w, block));
    for (int i = 0; i < GANQ__INPUT_COUNT; i++) {
        GANQ_TRY(solve_group(w, block, (ganq__input)i));
        ganq__walk_close_hessian(w, (ganq__input)i);
    }
    return GANQ_OK;
}

static ganq_status walk_block_uncalibrated(ganq__walk *w, ganq__block *block) {
    for (int i = 0; i < GANQ__INPUT_COUNT; i++)
        GANQ_TRY(solve_group(w, block, (ganq__input)i));
    return GANQ_OK;
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
static void warn_of_few_tokens(const ganq__walk *w) {
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

static ganq_status walk_blocks(ganq__walk *w) {
    for (int64_t b = 0; b < w->model->config->layers; b++) {
        const int is_last = b + 1 == w->model->config->layers;
        ganq__block block = w->model->blocks[b];
        if (!w->plan.tokens)
            GANQ_TRY(walk_block_uncalibrated(w, &block));
        else if (w->plan.propagate)
            GANQ_TRY(walk_block_propagating(w, &block, is_last));
        else
            GANQ_TRY(walk_block_dense(w, &block));
    }
    return GANQ_OK;
}

ganq_status ganq__model_quantize(ganq_context *ctx, const ganq_model *model,
                                 const ganq_corpus *corpus,
                                 const ganq_model_quantize_options *options, ganq_model **out) {
    ganq__walk w = {.ctx = ctx, .model = model, .corpus = corpus};
    ganq_status status;
    GANQ_TRY(ganq__walk_plan_make(model, corpus, options, &w.plan));
    ganq__progress_enter(ctx, GANQ_STAGE_QUANTIZE);
    GANQ_TRY_GOTO(close, check_budget(ctx, &w.plan.sums));
    GANQ_CALLOC_GOTO(close, w.layers, (size_t)model->linear_count);
    w.work_total = total_work(&w);
    warn_of_few_tokens(&w);
    if (w.plan.tokens)
        GANQ_TRY_GOTO(close, ganq__walk_open(&w));
    if (w.plan.target_bits > 0)
        GANQ_TRY_GOTO(close, ganq__survey(&w));
    GANQ_TRY_GOTO(close, walk_blocks(&w));
    GANQ_TRY_GOTO(close, ganq__model_derive(model, w.layers, out));
close:
    ganq__progress_leave(ctx);
    ganq__walk_close(&w);
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
