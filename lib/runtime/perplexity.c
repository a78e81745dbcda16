/* perplexity.c - a plan of windows first (joined tokens cut evenly, or documents), then one session
 * runs them all. */
#include "perplexity.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "corpus.h"
#include "session.h"

static const int64_t default_context = 2048;
/* Logits held at once: 16 MiB. */
static const int64_t max_logits = 1 << 22;

double ganq__negative_log_likelihood(const float *logits, int64_t count, int32_t target) {
    float highest = logits[0];
    double sum = 0;
    for (int64_t i = 1; i < count; i++)
        highest = fmaxf(highest, logits[i]);
    for (int64_t i = 0; i < count; i++)
        sum += exp((double)logits[i] - highest);
    return log(sum) - ((double)logits[target] - highest);
}

/* Tokens to be run at once, borrowed. */
typedef struct window {
    const int32_t *ids;
    int64_t count;
} window;

/* What is to be run. */
typedef struct window_plan {
    window *windows;
    int64_t count, predictions;
    int32_t *joined; /* GPTQ: all tokens; NULL otherwise */
} window_plan;

static void plan_free(window_plan *plan) {
    ganq__free(plan->windows);
    ganq__free(plan->joined);
}

static window sequence(const ganq_corpus *corpus, int64_t i) {
    size_t count = 0;
    const int32_t *ids = ganq__corpus_get(corpus, i, &count);
    return (window){ids, (int64_t)count};
}

/* All sequences joined, cut into windows of `context` tokens; the rest is dropped. */
static ganq_status plan_windows(const ganq_corpus *corpus, int64_t context, int64_t max_tokens,
                                window_plan *out) {
    const int64_t total = ganq__corpus_tokens(corpus);
    const int64_t used = max_tokens && max_tokens < total ? max_tokens : total;
    if (used < context)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "%" PRId64 " tokens do not fill one window of %" PRId64 "%s", used, context,
                  used < total ? " (max_tokens)" : "");
    window_plan p = {.count = used / context};
    p.joined = ganq__malloc((size_t)total, sizeof *p.joined);
    p.windows = ganq__malloc((size_t)p.count, sizeof *p.windows);
    if (!p.joined || !p.windows) {
        plan_free(&p);
        return GANQ_ERR_NO_MEMORY;
    }
    int64_t end = 0;
    for (int64_t i = 0; i < ganq__corpus_count(corpus); i++) {
        const window part = sequence(corpus, i);
        if (part.count)
            memcpy(p.joined + end, part.ids, (size_t)part.count * sizeof *p.joined);
        end += part.count;
    }
    for (int64_t i = 0; i < p.count; i++)
        p.windows[i] = (window){p.joined + i * context, context};
    p.predictions = p.count * (context - 1);
    *out = p;
    return GANQ_OK;
}

/* Every sequence of two tokens or more, cut at `context`, up to the first that reaches max_tokens
 * predictions. */
static ganq_status plan_documents(const ganq_corpus *corpus, int64_t context, int64_t max_tokens,
                                  window_plan *out) {
    const int64_t count = ganq__corpus_count(corpus);
    window_plan p = {0};
    p.windows = ganq__malloc((size_t)count, sizeof *p.windows);
    if (!p.windows)
        return GANQ_ERR_NO_MEMORY;
    for (int64_t i = 0; i < count && (!max_tokens || p.predictions < max_tokens); i++) {
        const window part = sequence(corpus, i);
        const int64_t length = part.count < context ? part.count : context;
        if (length < 2)
            continue;
        p.windows[p.count++] = (window){part.ids, length};
        p.predictions += length - 1;
    }
    if (!p.count) {
        plan_free(&p);
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "none of the %" PRId64 " sequences has the two tokens that a prediction takes",
                  count);
    }
    *out = p;
    return GANQ_OK;
}

/* One window being run. */
typedef struct evaluation {
    ganq_context *ctx;
    ganq_session *session;
    const window *window;
    int64_t rows;  /* of logits at once               */
    float *logits; /* [rows, vocab]                   */
    double *nll;   /* [rows]                          */
    int64_t first; /* token of the window that row 0 of logits predicts from */
    double sum;    /* over the window so far          */
} evaluation;

static void score_row(void *user, int64_t row, int worker) {
    const evaluation *e = user;
    const int64_t vocab = e->session->model->config->vocab;
    (void)worker;
    e->nll[row] = ganq__negative_log_likelihood(e->logits + row * vocab, vocab,
                                                e->window->ids[e->first + row + 1]);
}

static ganq_status score_piece(void *user, int64_t first, int64_t M, const float *h) {
    evaluation *e = user;
    ganq_session *s = e->session;
    for (int64_t done = 0; done < M; done += e->rows) {
        const int64_t rows = M - done < e->rows ? M - done : e->rows;
        GANQ_TRY(ganq__session_logits(s, rows, h + done * s->model->config->hidden, e->logits));
        e->first = first + done;
        ganq__parallel_for(e->ctx->pool, rows, score_row, e);
        for (int64_t i = 0; i < rows; i++)
            e->sum += e->nll[i];
        GANQ_TRY(ganq__progress_tick(e->ctx, (double)(first + done + rows) /
                                                 (double)(e->window->count - 1)));
    }
    return GANQ_OK;
}

/* The last token of a window is predicted only: it is checked, but not run. */
static ganq_status run_window(evaluation *e) {
    e->sum = 0;
    GANQ_TRY(ganq__session_truncate(e->session, 0));
    GANQ_TRY(ganq__model_check_ids(e->session->model, e->window->ids, e->window->count));
    GANQ_TRY(
        ganq__session_append(e->session, e->window->ids, e->window->count - 1, score_piece, e));
    if (isnan(e->sum))
        GANQ_FAIL(GANQ_ERR_NUMERIC, "the logits hold a NaN");
    return GANQ_OK;
}

static ganq_status run_plan(evaluation *e, const window_plan *plan, int32_t protocol, double *nll) {
    const char *unit = protocol == GANQ_PERPLEXITY_GPTQ ? "window" : "document";
    int64_t done = 0;
    double sum = 0;
    for (int64_t i = 0; i < plan->count; i++) {
        char name[48];
        const int64_t predictions = plan->windows[i].count - 1;
        snprintf(name, sizeof name, "%s %" PRId64, unit, i);
        e->window = &plan->windows[i];
        ganq_status status =
            ganq__progress_at(e->ctx, GANQ_STAGE_EVALUATE, name, done, plan->predictions,
                              (double)done / (double)plan->predictions,
                              (double)(done + predictions) / (double)plan->predictions);
        if (status == GANQ_OK) {
            status = run_window(e);
            if (status != GANQ_OK && status != GANQ_ERR_CANCELED)
                ganq__fail_prefix("perplexity, %s", name);
        }
        GANQ_TRY(status);
        done += predictions;
        sum += protocol == GANQ_PERPLEXITY_GPTQ ? e->sum / (double)predictions : e->sum;
    }
    *nll = sum / (double)(protocol == GANQ_PERPLEXITY_GPTQ ? plan->count : plan->predictions);
    return GANQ_OK;
}

static ganq_status run(ganq_context *ctx, const ganq_model *model, const window_plan *plan,
                       const ganq_perplexity_options *options, int64_t context, double *nll) {
    const int64_t vocab = model->config->vocab;
    ganq_status status;
    evaluation e = {.ctx = ctx};
    GANQ_TRY(ganq__session_create(ctx, model, context, &e.session));
    e.rows = max_logits / vocab < 1 ? 1 : max_logits / vocab;
    if (e.rows > e.session->workspace.tokens)
        e.rows = e.session->workspace.tokens;
    GANQ_ALLOC_GOTO(free_session, e.logits, (size_t)(e.rows * vocab));
    GANQ_ALLOC_GOTO(free_logits, e.nll, (size_t)e.rows);
    ganq__progress_enter(ctx, GANQ_STAGE_EVALUATE);
    status = run_plan(&e, plan, options->protocol, nll);
    ganq__progress_leave(ctx);
    ganq__free(e.nll);
free_logits:
    ganq__free(e.logits);
free_session:
    ganq__session_free(e.session);
    return status;
}

static ganq_status choose_context(const ganq_model *model, int64_t wanted, int64_t *out) {
    const int64_t most = model->config->max_positions;
    if (wanted < 0 || wanted == 1 || wanted > most)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "perplexity with a context of %" PRId64 " tokens; expected 2..%" PRId64
                  ", the model's maximum",
                  wanted, most);
    *out = wanted ? wanted : default_context < most ? default_context : most;
    return GANQ_OK;
}

ganq_status ganq__perplexity(ganq_context *ctx, const ganq_model *model, const ganq_corpus *corpus,
                             const ganq_perplexity_options *options,
                             ganq_perplexity_result *result) {
    const double started = ganq__now();
    const int32_t protocol = options->protocol;
    int64_t context;
    window_plan plan;
    double nll = 0;
    if (protocol != GANQ_PERPLEXITY_GPTQ && protocol != GANQ_PERPLEXITY_DOCUMENT)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "protocol %" PRId32 " is none of ganq_perplexity_protocol",
                  protocol);
    if (options->max_tokens < 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "max_tokens is %" PRId64, options->max_tokens);
    GANQ_TRY(choose_context(model, options->context, &context));
    GANQ_TRY((protocol == GANQ_PERPLEXITY_GPTQ ? plan_windows : plan_documents)(
        corpus, context, options->max_tokens, &plan));
    ganq_status status = run(ctx, model, &plan, options, context, &nll);
    if (status == GANQ_OK)
        *result = (ganq_perplexity_result){
            .struct_size = sizeof *result,
            .protocol = protocol,
            .perplexity = exp(nll),
            .nll = nll,
            .tokens = plan.predictions,
            .sequences = plan.count,
            .context = context,
            .seconds = ganq__now() - started,
        };
    plan_free(&plan);
    return status;
}
