/* session.c - tokens in, logits out. Everything is allocated at creation: a step allocates nothing.
 */
#include "session.h"

#include <inttypes.h>
#include <string.h>

#include "alloc.h"
#include "dtype.h"
#include "memory.h"
#include "model_ops.h"

static const int64_t default_context = 4096;
/* Logits that go from a device to the process at once: 16 MiB. */
static const int64_t max_logits = 1 << 22;

/* The cache's numbers: F16 costs about 1e-4 of an attention's output, as much as fast products do.
 */
static int32_t kv_dtype(const ganq_context *ctx) {
    return ctx->options.numerics == GANQ_NUMERICS_EXACT ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16;
}

/* Bytes of the cache; context and sizes were checked against their limits, so that this is exact.
 */
static double kv_bytes(const ganq_context *ctx, const ganq__config *c, int64_t context) {
    return 2.0 * (double)ganq__dtype_size(kv_dtype(ctx)) * (double)c->layers * (double)c->kv_heads *
           (double)c->head_dim * (double)context;
}

static ganq_status choose_capacity(ganq_context *ctx, const ganq__config *c, int64_t max_context,
                                   int64_t *out) {
    if (max_context < 0 || max_context > c->max_positions)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "a context of %" PRId64 " tokens; the model's maximum is %" PRId64, max_context,
                  c->max_positions);
    if (!max_context)
        max_context = c->max_positions < default_context ? c->max_positions : default_context;
    if (max_context >= INT32_MAX)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "a context of %" PRId64 " tokens; at most %d are possible",
                  max_context, INT32_MAX - 1);
    const double bytes = kv_bytes(ctx, c, max_context);
    const double budget = (double)ctx->options.memory_budget_bytes;
    if (bytes > 9e18 || (budget > 0 && bytes > budget))
        GANQ_FAIL(GANQ_ERR_NO_MEMORY,
                  "a context of %" PRId64 " tokens needs %.0f bytes of keys and values%s",
                  max_context, bytes, bytes > 9e18 ? "" : ", more than the memory budget");
    *out = max_context;
    return GANQ_OK;
}

/* The logits of the process, and on devices those that are copied to them. */
static ganq_status allocate_logits(ganq_session *s, const ganq__config *c, int64_t tokens) {
    s->logits = ganq__malloc_aligned((size_t)c->vocab, sizeof *s->logits);
    if (!s->logits)
        return GANQ_ERR_NO_MEMORY;
    s->device_logits = s->logits;
    s->logit_rows = 1;
    if (ganq__memory_is_host(s->ctx))
        return GANQ_OK;
    s->device_logits = NULL;
    s->logit_rows = max_logits / c->vocab < 1 ? 1 : max_logits / c->vocab;
    if (s->logit_rows > tokens)
        s->logit_rows = tokens;
    if (s->ctx->model && s->ctx->model->argmax) {
        void *best;
        GANQ_TRY(ganq__memory_elements(s->ctx, 1, 1, GANQ_DTYPE_F32, &best));
        s->device_best = best;
    }
    return ganq__memory_floats(s->ctx, s->logit_rows, c->vocab, &s->device_logits);
}

static ganq_status allocate(ganq_session *s, const ganq__config *c) {
    const int64_t tokens = s->capacity < GANQ__CHUNK ? s->capacity : GANQ__CHUNK;
    GANQ_TRY(ganq__workspace_create(s->ctx, c, tokens, &s->workspace));
    GANQ_TRY(ganq__memory_floats(s->ctx, tokens, c->hidden, &s->h));
    GANQ_TRY(ganq__memory_floats(s->ctx, tokens, c->hidden, &s->normed));
    GANQ_TRY(allocate_logits(s, c, tokens));
    s->candidates = ganq__malloc((size_t)c->vocab, sizeof *s->candidates);
    s->kv = ganq__calloc((size_t)c->layers, sizeof *s->kv);
    s->staged_inputs = ganq__calloc((size_t)(1 + 2 * tokens), sizeof *s->staged_inputs);
    if (!s->candidates || !s->kv || !s->staged_inputs)
        return GANQ_ERR_NO_MEMORY;
    GANQ_TRY(ganq__memory_copy_of(s->ctx, s->staged_inputs,
                                  (size_t)(1 + 2 * tokens) * sizeof *s->inputs, (void **)&s->inputs));
    const ganq_status status =
        ganq__kv_create(s->ctx, c, s->capacity, kv_dtype(s->ctx), c->layers, s->kv);
    if (status != GANQ_OK) {
        ganq__fail_prefix("a context of %" PRId64 " tokens needs %.0f bytes of keys and values",
                          s->capacity, kv_bytes(s->ctx, c, s->capacity));
        return status;
    }
    /* Last: it is filled at once, for nothing when there is no room for the rest. */
    return ganq__rope_create(s->ctx, c, s->capacity, &s->rope);
}

ganq_status ganq__session_create(ganq_context *ctx, const ganq_model *model, int64_t max_context,
                                 ganq_session **out) {
    int64_t capacity;
    GANQ_TRY(choose_capacity(ctx, model->config, max_context, &capacity));
    ganq_session *session = ganq__calloc(1, sizeof *session);
    if (!session)
        return GANQ_ERR_NO_MEMORY;
    session->ctx = ganq__context_retain(ctx);
    session->model = ganq__model_retain(model);
    session->capacity = capacity;
    ganq_status status = ganq__model_place(ctx, model, &session->placed);
    if (status == GANQ_OK)
        status = allocate(session, model->config);
    if (status != GANQ_OK) {
        ganq__session_free(session);
        return status;
    }
    *out = session;
    return GANQ_OK;
}

void ganq__session_free(ganq_session *session) {
    if (!session)
        return;
    ganq_context *ctx = session->ctx;
    if (session->recording)
        ctx->model->step_forget(ctx, session->recording);
    if (session->kv)
        ganq__kv_free(session->kv);
    ganq__free(session->kv);
    ganq__free(session->candidates);
    if (session->device_logits != session->logits)
        ganq__memory_release(ctx, session->device_logits);
    ganq__memory_release(ctx, session->device_best);
    ganq__free(session->logits);
    ganq__memory_release(ctx, session->normed);
    ganq__memory_release(ctx, session->h);
    ganq__memory_release(ctx, session->inputs);
    ganq__free(session->staged_inputs);
    ganq__rope_free(&session->rope);
    ganq__workspace_free(&session->workspace);
    ganq__model_release(session->model);
    ganq__context_release(ctx);
    ganq__free(session);
}

/* Position, token ids and positions to where the operations read them. */
static ganq_status send_inputs(ganq_session *s, const int32_t *ids, int64_t M, int64_t position) {
    s->staged_inputs[0] = (int32_t)position;
    memcpy(s->staged_inputs + 1, ids, (size_t)M * sizeof *ids);
    if (s->placed->positions) {
        int32_t *const positions = s->staged_inputs + 1 + s->workspace.tokens;
        for (int64_t m = 0; m < M; m++)
            positions[m] = (int32_t)(position + m);
        GANQ_TRY(s->ctx->memory->upload(s->ctx, s->inputs + 1 + s->workspace.tokens, positions,
                                        (size_t)M * sizeof *positions));
    }
    return s->ctx->memory->upload(s->ctx, s->inputs, s->staged_inputs,
                                  (size_t)(1 + M) * sizeof *s->inputs);
}

/* One piece of tokens through all blocks; their keys and values land behind `position`. */
static ganq_status forward(ganq_session *s, int64_t M, int64_t position, const int32_t *counter) {
    const ganq_model *model = s->placed;
    const ganq__config *c = model->config;
    GANQ_TRY(s->ctx->model->embed(s->ctx, M, c->hidden, s->inputs + 1, model->embedding,
                                  model->embedding_dtype, s->h));
    if (model->positions) {
        float *const added = s->workspace.normed;
        GANQ_TRY(s->ctx->model->embed(s->ctx, M, c->hidden, s->inputs + 1 + s->workspace.tokens,
                                      model->positions, model->positions_dtype, added));
        GANQ_TRY(s->ctx->model->add(s->ctx, M * c->hidden, s->h, added, s->h));
    }
    for (int64_t i = 0; i < c->layers; i++) {
        const ganq__block_run run = {.rope = &s->rope,
                                     .kv = &s->kv[i],
                                     .workspace = &s->workspace,
                                     .position = position,
                                     .counter = counter,
                                     .pause = i + 1 < c->layers,
                                     .resume = i > 0};
        GANQ_TRY(ganq__block_forward(s->ctx, c, &model->blocks[i], &run, M, s->h));
    }
    return GANQ_OK;
}

static ganq_status check_room(const ganq_session *s, int64_t count) {
    if (count > s->capacity - s->length)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "%" PRId64 " tokens do not fit: the cache holds %" PRId64 " of %" PRId64, count,
                  s->length, s->capacity);
    return GANQ_OK;
}

ganq_status ganq__session_append(ganq_session *s, const int32_t *ids, int64_t count,
                                 ganq__hidden_fn visit, void *user) {
    if (count < 1)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "there are no tokens to append");
    GANQ_TRY(check_room(s, count));
    GANQ_TRY(ganq__model_check_ids(s->model, ids, count));
    for (int64_t first = 0; first < count; first += s->workspace.tokens) {
        const int64_t left = count - first;
        const int64_t M = left < s->workspace.tokens ? left : s->workspace.tokens;
        GANQ_TRY(send_inputs(s, ids + first, M, s->length + first));
        GANQ_TRY(forward(s, M, s->length + first, NULL));
        if (visit)
            GANQ_TRY(visit(user, first, M, s->h));
    }
    s->length += count;
    return GANQ_OK;
}

ganq_status ganq__session_fetch(ganq_session *s) {
    if (!s->logits_stale)
        return GANQ_OK;
    GANQ_TRY(s->ctx->memory->download(s->ctx, s->logits, s->device_logits,
                                      (size_t)s->model->config->vocab * sizeof *s->logits));
    s->logits_stale = 0;
    return GANQ_OK;
}

ganq_status ganq__session_logits(ganq_session *s, int64_t M, const float *h, float *logits) {
    const ganq__config *c = s->model->config;
    if (ganq__memory_is_host(s->ctx))
        return ganq__model_logits(s->ctx, s->placed, M, h, s->normed, logits);
    GANQ_TRY(ganq__session_fetch(s)); /* before device_logits are others */
    for (int64_t done = 0; done < M; done += s->logit_rows) {
        const int64_t rows = M - done < s->logit_rows ? M - done : s->logit_rows;
        GANQ_TRY(ganq__model_logits(s->ctx, s->placed, rows, h + done * c->hidden, s->normed,
                                    s->device_logits));
        GANQ_TRY(s->ctx->memory->download(s->ctx, logits + done * c->vocab, s->device_logits,
                                          (size_t)(rows * c->vocab) * sizeof *logits));
    }
    return GANQ_OK;
}

/* What a step computes, from the id in `inputs` to device_logits and device_best. */
static ganq_status compute_step(ganq_session *s) {
    GANQ_TRY(forward(s, 1, s->length, s->inputs));
    GANQ_TRY(ganq__model_logits(s->ctx, s->placed, 1, s->h, s->normed, s->device_logits));
    return s->device_best ? s->ctx->model->argmax(s->ctx, s->model->config->vocab, s->device_logits,
                                                  s->device_best)
                          : GANQ_OK;
}

/* The same, recorded or replayed where the backend does that. */
static ganq_status run_step(ganq_session *s) {
    const ganq__model_ops *ops = s->ctx->model;
    int replayed = 0, again = 0;
    if (!ops->step_begin)
        return compute_step(s);
    GANQ_TRY(ops->step_begin(s->ctx, &s->recording, s->length, &replayed));
    if (replayed)
        return GANQ_OK;
    GANQ_TRY(ops->step_end(s->ctx, &s->recording, compute_step(s), &again));
    return again ? compute_step(s) : GANQ_OK;
}

ganq_status ganq__session_step(ganq_session *s, int32_t id) {
    GANQ_TRY(check_room(s, 1));
    GANQ_TRY(ganq__model_check_ids(s->model, &id, 1));
    GANQ_TRY(send_inputs(s, &id, 1, s->length));
    GANQ_TRY(run_step(s));
    s->logits_stale = s->device_logits != s->logits;
    if (!s->device_best)
        GANQ_TRY(ganq__session_fetch(s));
    s->length++;
    s->has_logits = 1;
    return GANQ_OK;
}

typedef struct prefill_job {
    ganq_session *session;
    int64_t count;
    float *logits; /* of all tokens, or NULL */
} prefill_job;

static ganq_status piece_logits(void *user, int64_t first, int64_t M, const float *h) {
    const prefill_job *job = user;
    ganq_session *s = job->session;
    const ganq__config *c = s->model->config;
    if (job->logits)
        return ganq__session_logits(s, M, h, job->logits + first * c->vocab);
    if (first + M < job->count)
        return GANQ_OK;
    return ganq__session_logits(s, 1, h + (M - 1) * c->hidden, s->logits);
}

ganq_status ganq__session_prefill(ganq_session *session, const int32_t *ids, int64_t count,
                                  float *logits) {
    prefill_job job = {session, count, logits};
    if (count == 1 && !logits)
        return ganq__session_step(session, *ids);
    GANQ_TRY(ganq__session_append(session, ids, count, piece_logits, &job));
    const int64_t vocab = session->model->config->vocab;
    if (logits)
        memcpy(session->logits, logits + (count - 1) * vocab, (size_t)vocab * sizeof *logits);
    session->has_logits = 1;
    return GANQ_OK;
}

ganq_status ganq__session_truncate(ganq_session *session, int64_t length) {
    if (length < 0 || length > session->length)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "cannot keep %" PRId64 " tokens: the session holds %" PRId64, length,
                  session->length);
    if (length < session->length)
        session->has_logits = session->logits_stale = 0;
    session->length = length;
    return GANQ_OK;
}

ganq_status ganq__session_sample(ganq_session *session, const ganq_sampling *sampling,
                                 int32_t *id) {
    const ganq_sampling greedy = {.struct_size = sizeof greedy};
    if (!sampling)
        sampling = &greedy;
    GANQ_TRY(ganq__sampling_check(sampling));
    if (!session->has_logits)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "there are no logits: append a token first (truncating drops them)");
    if (session->logits_stale && session->device_best && sampling->temperature == 0) {
        int32_t best;
        GANQ_TRY(
            session->ctx->memory->download(session->ctx, &best, session->device_best, sizeof best));
        if (best >= 0) {
            *id = best;
            return GANQ_OK;
        }
    }
    GANQ_TRY(ganq__session_fetch(session));
    if (sampling->temperature > 0 && (!session->seeded || session->seed != sampling->seed)) {
        ganq__random_seed(&session->random, sampling->seed);
        session->seed = sampling->seed;
        session->seeded = 1;
    }
    return ganq__sample(sampling, session->logits, session->model->config->vocab,
                        session->candidates, &session->random, id);
}

static int is_stop(const ganq_generate_options *options, const ganq__config *c, int32_t id) {
    const int32_t *stop = options->stop ? options->stop : c->eos;
    const int64_t count = options->stop ? options->stop_count : c->eos_count;
    if (options->stop_count < 0)
        return 0;
    for (int64_t i = 0; i < count; i++)
        if (stop[i] == id)
            return 1;
    return 0;
}

ganq_status ganq__session_generate(ganq_session *session, const ganq_generate_options *options,
                                   ganq_token_fn callback, void *user, int64_t *generated) {
    int64_t count = 0;
    int stopped = 0;
    while (!stopped && count < options->max_tokens && session->length < session->capacity) {
        int32_t id;
        GANQ_TRY(ganq__session_sample(session, &options->sampling, &id));
        if (is_stop(options, session->model->config, id))
            break;
        stopped = callback ? callback(id, user) : 0;
        count++;
        /* also the last one: the session holds all that was handed out */
        GANQ_TRY(ganq__session_step(session, id));
    }
    if (generated)
        *generated = count;
    return GANQ_OK;
}
