/* walk.c - states, passes and Hessians of a walk over the blocks. */
#include "walk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"

/* ---- progress: each piece's share of the whole is an estimate of its multiply-adds ---- */

double ganq__walk_solve_work(int32_t recipe, const ganq__linear *linear) {
    /* Passes over N K^2, roughly, by recipe; only the time estimate depends on them. */
    static const double passes[] = {
        [GANQ_RECIPE_DEFAULT] = 60, [GANQ_RECIPE_RTN] = 1,    [GANQ_RECIPE_PAPER] = 12,
        [GANQ_RECIPE_FAST] = 20,    [GANQ_RECIPE_BEST] = 150,
    };
    return passes[recipe] * (double)linear->N * (double)linear->K * (double)linear->K;
}

static double block_weights(const ganq__block *block) {
    double sum = 0;
    for (int i = 0; i < GANQ__ROLE_COUNT; i++)
        sum += (double)block->linears[i].N * (double)block->linears[i].K;
    return sum;
}

double ganq__walk_pass_work(const ganq__walk *w, const ganq__block *block, int64_t K) {
    return (double)w->plan.tokens * (block_weights(block) + (double)K * (double)K);
}

ganq_status ganq__walk_piece(ganq__walk *w, ganq_stage stage, const char *name, double work) {
    const double from = w->work_done / w->work_total;
    w->work_done += work;
    double to = w->work_done / w->work_total;
    return ganq__progress_at(w->ctx, stage, name, w->done, w->plan.sums.linears,
                             from > 1 ? 1 : from, to > 1 ? 1 : to);
}

int ganq__walk_is_chosen(const ganq__walk *w, const ganq__block *block, ganq__role role) {
    const int64_t index = ganq__model_linear_index(w->model, block->index, role);
    return index >= 0 && w->plan.chosen[index];
}

int ganq__walk_group_is_chosen(const ganq__walk *w, const ganq__block *block, ganq__input input) {
    for (int role = 0; role < GANQ__ROLE_COUNT; role++)
        if (ganq__role_input((ganq__role)role) == input &&
            ganq__walk_is_chosen(w, block, (ganq__role)role))
            return 1;
    return 0;
}

int64_t ganq__walk_input_width(const ganq__block *block, ganq__input input) {
    for (int role = 0; role < GANQ__ROLE_COUNT; role++)
        if (ganq__role_input((ganq__role)role) == input && block->linears[role].K)
            return block->linears[role].K;
    return 0;
}

/* ---- observing ---- */

static ganq_status observe(void *user, ganq__input input, int64_t M, int64_t K, const float *x,
                           int64_t ldx) {
    ganq__walk *w = user;
    const double progress = (double)w->pass_tokens / (double)w->plan.tokens;
    GANQ_TRY(ganq__progress_tick(w->ctx, progress));
    if (w->hessians[input]) {
        char what[256];
        snprintf(what, sizeof what, "the inputs of %s", w->readers[input]);
        GANQ_TRY(ganq__hessian_add(w->ctx, w->hessians[input], M, x, ldx, what));
        if (w->compensation.K) {
            GANQ_TRY(ganq__compensation_add(w->ctx, &w->compensation, M,
                                            w->dense_inputs + w->dense_rows * K, K, x, ldx, what,
                                            progress));
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
    ganq__walk *w = user;
    if (w->hessians[input]) {
        for (int64_t m = 0; m < M; m++)
            memcpy(w->dense_inputs + (w->dense_rows + m) * K, x + m * ldx, (size_t)K * sizeof *x);
        w->dense_rows += M;
    }
    return ganq__progress_tick(w->ctx, (double)w->pass_tokens / (double)w->plan.tokens);
}

static ganq_status run_sequence(ganq__walk *w, const ganq__block *block, int last,
                                ganq__observe_fn fn, int64_t count, float *hidden) {
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

ganq_status ganq__walk_run(ganq__walk *w, const ganq__block *block, const ganq__block *dense,
                           int last, double work) {
    snprintf(w->block_name, sizeof w->block_name, "block %d", block->index);
    GANQ_TRY(ganq__walk_piece(w, GANQ_STAGE_CALIBRATE, w->block_name, dense ? 2 * work : work));
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

ganq_status ganq__walk_open_hessian(ganq__walk *w, const ganq__block *block, ganq__input input) {
    for (int role = GANQ__ROLE_COUNT - 1; role >= 0; role--)
        if (ganq__role_input((ganq__role)role) == input &&
            ganq__walk_is_chosen(w, block, (ganq__role)role))
            w->readers[input] = block->linears[role].name;
    return ganq__hessian_create(ganq__walk_input_width(block, input), &w->hessians[input]);
}

void ganq__walk_close_hessian(ganq__walk *w, ganq__input input) {
    ganq__hessian_free(w->hessians[input]);
    w->hessians[input] = NULL;
}

/* The last input that a chosen linear of the block reads; -1: none is chosen. */
static int last_input(const ganq__walk *w, const ganq__block *block) {
    int last = -1;
    for (int i = 0; i < GANQ__INPUT_COUNT; i++)
        if (ganq__walk_group_is_chosen(w, block, (ganq__input)i))
            last = i;
    return last;
}

double ganq__walk_dense_work(const ganq__walk *w, const ganq__block *block) {
    const int is_last = block->index + 1 == w->model->config->layers;
    double work = is_last ? 0 : ganq__walk_pass_work(w, block, 0);
    for (int i = 0; i < GANQ__INPUT_COUNT; i++)
        if (ganq__walk_group_is_chosen(w, block, (ganq__input)i))
            work += ganq__walk_pass_work(w, block, ganq__walk_input_width(block, (ganq__input)i));
    return work;
}

ganq_status ganq__walk_run_dense(ganq__walk *w, const ganq__block *block) {
    const int is_last = block->index + 1 == w->model->config->layers;
    const int last = last_input(w, block);
    for (int i = 0; i <= last; i++)
        if (ganq__walk_group_is_chosen(w, block, (ganq__input)i))
            GANQ_TRY(ganq__walk_open_hessian(w, block, (ganq__input)i));
    if (last < 0 && is_last)
        return GANQ_OK;
    return ganq__walk_run(w, block, NULL, is_last ? last : -1, ganq__walk_dense_work(w, block));
}

/* ---- states ---- */

ganq_status ganq__walk_rewind(ganq__walk *w) {
    int64_t first = 0;
    for (int64_t i = 0; i < w->plan.sequences; i++) {
        size_t count;
        const int32_t *ids = ganq__corpus_get(w->corpus, i, &count);
        GANQ_TRY(ganq__model_embed(w->model, ids, (int64_t)count,
                                   w->hidden + first * w->model->config->hidden));
        first += (int64_t)count;
    }
    return GANQ_OK;
}

ganq_status ganq__walk_open(ganq__walk *w) {
    const ganq__config *c = w->model->config;
    const int64_t chunk = w->plan.longest < GANQ__CHUNK ? w->plan.longest : GANQ__CHUNK;
    ganq_status status;
    GANQ_ALLOC_GOTO(failed, w->hidden, (size_t)(w->plan.tokens * c->hidden));
    GANQ_TRY(ganq__rope_create(w->ctx, c, w->plan.longest, &w->rope));
    GANQ_TRY(ganq__kv_create(w->ctx, c, w->plan.longest, GANQ_DTYPE_F32, 1, &w->kv));
    GANQ_TRY(ganq__workspace_create(w->ctx, c, chunk, &w->workspace));
    GANQ_TRY(ganq__walk_rewind(w));
    if (w->plan.compensation > 0) {
        const size_t count = (size_t)(w->plan.tokens * c->hidden);
        GANQ_ALLOC_GOTO(failed, w->dense_hidden, count);
        memcpy(w->dense_hidden, w->hidden, count * sizeof *w->hidden);
        GANQ_ALLOC_GOTO(failed, w->dense_inputs, (size_t)(w->plan.longest * ganq__widest_input(c)));
    }
    return GANQ_OK;
failed:
    return status;
}

void ganq__walk_close(ganq__walk *w) {
    for (int i = 0; i < GANQ__INPUT_COUNT; i++)
        ganq__walk_close_hessian(w, (ganq__input)i);
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
