/* survey.c - the dense walk that measures, and the choice. */
#include "survey.h"

#include <math.h>
#include <string.h>

#include "alloc.h"
#include "allocate.h"
#include "quantize_layer.h"

/* The sample: beginnings of the first sequences. Its divergences settle to some percent, and
 * neighbouring choices of bits differ by less. */
enum { SAMPLE_LENGTH = 128, SAMPLE_TOKENS = 2048 };
/* Logits held at once, of each of the two models: 16 MiB. */
static const int64_t max_logits = 1 << 22;

typedef struct survey {
    ganq__walk *walk;
    ganq__choice *choices;     /* of the chosen linears, in order */
    int64_t *indices;          /* which they are                  */
    int32_t *bits;             /* what comes out for them         */
    int64_t count;             /* so far                          */
    int64_t sequences, tokens; /* of the sample                   */
    int64_t rows;              /* whose logits are held at once   */
    float *start;              /* [tokens, hidden] what enters the block at hand */
    float *end;                /* [tokens, hidden] what leaves the last one      */
    float *trial;              /* the same, behind one quantized linear          */
    float *normed;             /* [rows, hidden] scratch                         */
    float *expected, *found;   /* [rows, vocab] logits                           */
    double *divergences;       /* [rows] */
} survey;

/* ---- the sample ---- */

static int64_t sample_length(size_t count) {
    return count < SAMPLE_LENGTH ? (int64_t)count : SAMPLE_LENGTH;
}

/* The sequences it takes, and their tokens. */
static int64_t sample_size(const ganq_corpus *corpus, int64_t sequences, int64_t *tokens) {
    int64_t i = 0;
    *tokens = 0;
    for (; i < sequences && *tokens < SAMPLE_TOKENS; i++) {
        size_t count;
        ganq__corpus_get(corpus, i, &count);
        *tokens += sample_length(count);
    }
    return i;
}

/* The sample's part of the walk's hidden states. */
static void copy_sample(const survey *s, float *to) {
    const ganq__walk *w = s->walk;
    const int64_t width = w->model->config->hidden;
    const float *from = w->hidden;
    for (int64_t i = 0; i < s->sequences; i++) {
        size_t count;
        ganq__corpus_get(w->corpus, i, &count);
        const int64_t values = sample_length(count) * width;
        memcpy(to, from, (size_t)values * sizeof *to);
        to += values;
        from += (int64_t)count * width;
    }
}

/* The sample's states through `block` (in the place of the model's own) and all blocks behind it.
 */
static ganq_status run_sample(const survey *s, const ganq__block *block, float *states) {
    ganq__walk *w = s->walk;
    const int64_t layers = w->model->config->layers, first = block->index;
    const ganq__block_run run = {.rope = &w->rope, .kv = &w->kv, .workspace = &w->workspace};
    for (int64_t b = first; b < layers; b++) {
        float *rows = states;
        for (int64_t i = 0; i < s->sequences; i++) {
            size_t count;
            ganq__corpus_get(w->corpus, i, &count);
            const int64_t length = sample_length(count);
            GANQ_TRY(ganq__block_forward(w->ctx, w->model->config,
                                         b == first ? block : &w->model->blocks[b], &run, length,
                                         rows));
            rows += length * w->model->config->hidden;
            GANQ_TRY(ganq__progress_tick(w->ctx,
                                         (double)((b - first) * s->sequences + i + 1) /
                                             (double)((layers - first + 1) * s->sequences)));
        }
    }
    return GANQ_OK;
}

/* ---- how far the predictions are from the dense model's ---- */

/* log of the sum of exp(x). */
static double log_sum(const float *x, int64_t count) {
    float highest = x[0];
    double sum = 0;
    for (int64_t i = 1; i < count; i++)
        highest = fmaxf(highest, x[i]);
    for (int64_t i = 0; i < count; i++)
        sum += exp((double)x[i] - highest);
    return log(sum) + highest;
}

static void diverge_row(void *user, int64_t row, int worker) {
    const survey *s = user;
    (void)worker;
    const int64_t vocab = s->walk->model->config->vocab;
    const float *p = s->expected + row * vocab, *q = s->found + row * vocab;
    const double p_sum = log_sum(p, vocab), q_sum = log_sum(q, vocab);
    double sum = 0;
    for (int64_t i = 0; i < vocab; i++) {
        const double log_p = p[i] - p_sum;
        sum += exp(log_p) * (log_p - (q[i] - q_sum));
    }
    s->divergences[row] = sum;
}

/* The mean over the sample's tokens of sum p log(p / q), q from the states in `trial`. */
static ganq_status divergence(survey *s, const char *name, double *out) {
    ganq__walk *w = s->walk;
    const int64_t width = w->model->config->hidden;
    double sum = 0;
    for (int64_t first = 0; first < s->tokens; first += s->rows) {
        const int64_t rows = s->tokens - first < s->rows ? s->tokens - first : s->rows;
        GANQ_TRY(ganq__model_logits(w->ctx, w->model, rows, s->end + first * width, s->normed,
                                    s->expected));
        GANQ_TRY(ganq__model_logits(w->ctx, w->model, rows, s->trial + first * width, s->normed,
                                    s->found));
        ganq__parallel_for(w->ctx->pool, rows, diverge_row, s);
        for (int64_t r = 0; r < rows; r++)
            sum += s->divergences[r];
        GANQ_TRY(ganq__progress_tick(w->ctx, 1));
    }
    if (!isfinite(sum))
        GANQ_FAIL(GANQ_ERR_NUMERIC,
                  "the model's predictions with %s quantized are not finite numbers", name);
    *out = sum > 0 ? sum / (double)s->tokens : 0; /* below 0 by rounding only */
    return GANQ_OK;
}

static double sample_work(const ganq_model *model, int64_t tokens, int64_t first_block) {
    double weights = (double)model->config->vocab * (double)model->config->hidden * 2;
    for (int64_t i = ganq__model_linear_index(model, first_block, GANQ__ROLE_Q); i < model->linear_count; i++) {
        const ganq__linear *linear = ganq__model_linear(model, i);
        weights += (double)linear->N * (double)linear->K;
    }
    return weights * (double)tokens;
}

/* What the quantized linear costs. */
static ganq_status try_layer(survey *s, const ganq__block *dense, ganq__role role,
                             ganq_layer *layer, double *cost) {
    ganq__walk *w = s->walk;
    ganq__block block = *dense;
    block.linears[role].layer = layer;
    GANQ_TRY(ganq__walk_piece(w, GANQ_STAGE_CALIBRATE, dense->linears[role].name,
                              sample_work(w->model, s->tokens, dense->index)));
    memcpy(s->trial, s->start,
           (size_t)(s->tokens * w->model->config->hidden) * sizeof *s->trial);
    GANQ_TRY(run_sample(s, &block, s->trial));
    return divergence(s, dense->linears[role].name, cost);
}

/* ---- the linears ---- */

static int32_t survey_recipe(int32_t recipe) {
    return recipe == GANQ_RECIPE_DEFAULT || recipe == GANQ_RECIPE_BEST ? GANQ_RECIPE_FAST : recipe;
}

/* One width of one linear: its error, and, at 3 bits, what that costs. */
static ganq_status measure_width(survey *s, const ganq__block *block, ganq__role role,
                                 const float *weight, int width, double *error, double *cost) {
    ganq__walk *w = s->walk;
    const ganq__linear *linear = &block->linears[role];
    ganq_quantize_options options = w->plan.layer;
    ganq_layer *layer = NULL;
    options.recipe = survey_recipe(options.recipe);
    options.bits = GANQ__MIN_BITS + width;
    GANQ_TRY(ganq__walk_piece(w, GANQ_STAGE_CALIBRATE, linear->name,
                              ganq__walk_solve_work(options.recipe, linear)));
    ganq_status status = ganq__layer_quantize(w->ctx, linear->N, linear->K, weight,
                                              w->hessians[ganq__role_input(role)], linear->bias,
                                              GANQ_DTYPE_F32, &options, &layer);
    if (status != GANQ_OK) {
        if (status != GANQ_ERR_CANCELED)
            ganq__fail_prefix("%s", linear->name);
        return status;
    }
    *error = layer->report.error;
    if (options.bits == 3)
        status = try_layer(s, block, role, layer, cost);
    ganq__layer_release(layer);
    return status;
}

static ganq_status measure_linear(survey *s, const ganq__block *block, ganq__role role) {
    const ganq__linear *linear = &block->linears[role];
    ganq__choice *choice = &s->choices[s->count];
    double errors[GANQ__WIDTHS], cost = 0;
    ganq_status status = GANQ_OK;
    float *weight;
    GANQ_ALLOC_GOTO(free_weight, weight, (size_t)(linear->N * linear->K));
    ganq__linear_rows(linear, 0, linear->N, weight);
    for (int width = 0; width < GANQ__WIDTHS; width++)
        GANQ_TRY_GOTO(free_weight,
                      measure_width(s, block, role, weight, width, &errors[width], &cost));
    for (int width = 0; width < GANQ__WIDTHS; width++) {
        choice->bytes[width] =
            ganq__linear_code_bytes(linear, &s->walk->plan.layer, GANQ__MIN_BITS + width);
        /* Exact at 3 bits: then its error at 2 bits, as it is, decides against 2 bits. */
        choice->cost[width] =
            errors[1] > 0 ? cost * (errors[width] / errors[1]) : errors[width];
    }
    s->indices[s->count++] = ganq__model_linear_index(s->walk->model, block->index, role);
free_weight:
    ganq__free(weight);
    return status;
}

static ganq_status measure_block(survey *s, const ganq__block *block) {
    ganq__walk *w = s->walk;
    copy_sample(s, s->start);
    GANQ_TRY(ganq__walk_run_dense(w, block));
    for (int role = 0; role < GANQ__ROLE_COUNT; role++)
        if (ganq__walk_is_chosen(w, block, (ganq__role)role))
            GANQ_TRY(measure_linear(s, block, (ganq__role)role));
    for (int i = 0; i < GANQ__INPUT_COUNT; i++)
        ganq__walk_close_hessian(w, (ganq__input)i);
    return GANQ_OK;
}

/* ---- all of it ---- */

static int64_t logit_rows(int64_t vocab, int64_t tokens) {
    const int64_t rows = vocab < max_logits ? max_logits / vocab : 1;
    return rows < tokens ? rows : tokens;
}

static ganq_status open_survey(survey *s) {
    const ganq__walk *w = s->walk;
    const int64_t hidden = w->model->config->hidden, vocab = w->model->config->vocab;
    const size_t linears = (size_t)w->plan.sums.linears;
    ganq_status status = GANQ_OK;
    s->sequences = sample_size(w->corpus, w->plan.sequences, &s->tokens);
    s->rows = logit_rows(vocab, s->tokens);
    GANQ_ALLOC_GOTO(failed, s->choices, linears);
    GANQ_ALLOC_GOTO(failed, s->indices, linears);
    GANQ_ALLOC_GOTO(failed, s->bits, linears);
    GANQ_ALLOC_GOTO(failed, s->start, (size_t)(s->tokens * hidden));
    GANQ_ALLOC_GOTO(failed, s->end, (size_t)(s->tokens * hidden));
    GANQ_ALLOC_GOTO(failed, s->trial, (size_t)(s->tokens * hidden));
    GANQ_ALLOC_GOTO(failed, s->normed, (size_t)(s->rows * hidden));
    GANQ_ALLOC_GOTO(failed, s->expected, (size_t)(s->rows * vocab));
    GANQ_ALLOC_GOTO(failed, s->found, (size_t)(s->rows * vocab));
    GANQ_ALLOC_GOTO(failed, s->divergences, (size_t)s->rows);
failed:
    return status;
}

static void close_survey(survey *s) {
    void *arrays[] = {s->choices, s->indices, s->bits,     s->start, s->end,
                      s->trial,   s->normed,  s->expected, s->found, s->divergences};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ganq__free(arrays[i]);
}

ganq_status ganq__survey(ganq__walk *w) {
    survey s = {.walk = w};
    ganq_status status;
    GANQ_TRY_GOTO(close, open_survey(&s));
    GANQ_TRY_GOTO(close, ganq__walk_piece(w, GANQ_STAGE_CALIBRATE, "dense predictions",
                                          sample_work(w->model, s.tokens, 0)));
    copy_sample(&s, s.end);
    GANQ_TRY_GOTO(close, run_sample(&s, &w->model->blocks[0], s.end));
    for (int64_t b = 0; b < w->model->config->layers; b++)
        GANQ_TRY_GOTO(close, measure_block(&s, &w->model->blocks[b]));
    GANQ_TRY_GOTO(close, ganq__allocate(s.count, s.choices, w->plan.budget, s.bits));
    for (int64_t i = 0; i < s.count; i++)
        w->plan.bits[s.indices[i]] = s.bits[i];
    GANQ_TRY_GOTO(close, ganq__walk_rewind(w));
close:
    close_survey(&s);
    return status;
}

double ganq__survey_work(const ganq__walk *w) {
    const int32_t recipe = survey_recipe(w->plan.layer.recipe);
    int64_t tokens;
    sample_size(w->corpus, w->plan.sequences, &tokens);
    double sum = sample_work(w->model, tokens, 0);
    for (int64_t i = 0; i < w->model->linear_count; i++)
        if (w->plan.chosen[i])
            sum += GANQ__WIDTHS * ganq__walk_solve_work(recipe, ganq__model_linear(w->model, i)) +
                   sample_work(w->model, tokens, i / ganq__config_roles(w->model->config));
    for (int64_t b = 0; b < w->model->config->layers; b++)
        sum += ganq__walk_dense_work(w, &w->model->blocks[b]);
    return sum;
}

int64_t ganq__survey_bytes(const ganq_model *model, const ganq_corpus *corpus,
                           int64_t sequences) {
    const int64_t hidden = model->config->hidden, vocab = model->config->vocab;
    int64_t tokens;
    sample_size(corpus, sequences, &tokens);
    return 3 * tokens * hidden * 4 + logit_rows(vocab, tokens) * (hidden + 2 * vocab) * 4;
}
