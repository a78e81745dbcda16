/* session.c - the public calls of ganq/session.h. */
#include "ganq/session.h"

#include <inttypes.h>

#include "perplexity.h"
#include "session.h"

ganq_status ganq_session_create(ganq_context *ctx, const ganq_model *model, int64_t max_context,
                                ganq_session **out) {
    if (!ctx || !model || !out)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_session_create: ctx, model or out is NULL");
    return ganq__session_create(ctx, model, max_context, out);
}

void ganq_session_free(ganq_session *session) {
    ganq__session_free(session);
}

static ganq_status prefill(const char *call, ganq_session *session, const int32_t *ids,
                           size_t count, float *logits) {
    if (!session || !ids)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: session or ids is NULL", call);
    if (count > INT64_MAX)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: count is %zu", call, count);
    return ganq__session_prefill(session, ids, (int64_t)count, logits);
}

ganq_status ganq_session_prefill(ganq_session *session, const int32_t *ids, size_t count) {
    return prefill("ganq_session_prefill", session, ids, count, NULL);
}

ganq_status ganq_session_prefill_logits(ganq_session *session, const int32_t *ids, size_t count,
                                        float *logits) {
    if (!logits)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_session_prefill_logits: logits is NULL");
    return prefill("ganq_session_prefill_logits", session, ids, count, logits);
}

ganq_status ganq_session_step(ganq_session *session, int32_t id) {
    return prefill("ganq_session_step", session, &id, 1, NULL);
}

const float *ganq_session_logits(const ganq_session *session) {
    if (!session || !session->has_logits ||
        ganq__session_fetch((ganq_session *)(uintptr_t)session) != GANQ_OK)
        return NULL;
    return session->logits;
}

int64_t ganq_session_length(const ganq_session *session) {
    return session ? session->length : 0;
}

ganq_status ganq_session_truncate(ganq_session *session, int64_t length) {
    if (!session)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_session_truncate: session is NULL");
    return ganq__session_truncate(session, length);
}

ganq_status ganq_session_sample(ganq_session *session, const ganq_sampling *sampling, int32_t *id) {
    ganq_sampling ours;
    if (!session || !id)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_session_sample: session or id is NULL");
    GANQ_TRY(ganq__options_read(&ours, sizeof ours, sampling, "ganq_sampling"));
    return ganq__session_sample(session, &ours, id);
}

ganq_status ganq_session_generate(ganq_session *session, const ganq_generate_options *options,
                                  ganq_token_fn callback, void *user, int64_t *generated) {
    static const int64_t default_tokens = 128;
    ganq_generate_options ours;
    if (!session)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_session_generate: session is NULL");
    GANQ_TRY(ganq__options_read(&ours, sizeof ours, options, "ganq_generate_options"));
    if (ours.reserved != 0)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "ganq_generate_options: the reserved field must be 0");
    if (ours.sampling.struct_size && ours.sampling.struct_size != sizeof ours.sampling)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_generate_options: sampling.struct_size is %" PRIu32 ", expected 0 or %zu",
                  ours.sampling.struct_size, sizeof ours.sampling);
    if (ours.max_tokens < 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_generate_options: max_tokens is %" PRId64,
                  ours.max_tokens);
    if (!ours.max_tokens)
        ours.max_tokens = default_tokens;
    if (!ours.stop && ours.stop_count > 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_generate_options: stop is NULL and stop_count is %" PRId64,
                  ours.stop_count);
    return ganq__session_generate(session, &ours, callback, user, generated);
}

ganq_status ganq_model_perplexity(ganq_context *ctx, const ganq_model *model,
                                  const ganq_corpus *corpus, const ganq_perplexity_options *options,
                                  ganq_perplexity_result *result) {
    ganq_perplexity_options ours;
    ganq_perplexity_result measured;
    if (!ctx || !model || !corpus || !result)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_model_perplexity: ctx, model, corpus or result is NULL");
    if (!result->struct_size)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_perplexity_result: struct_size is 0");
    GANQ_TRY(ganq__options_read(&ours, sizeof ours, options, "ganq_perplexity_options"));
    GANQ_TRY(ganq__perplexity(ctx, model, corpus, &ours, &measured));
    return ganq__struct_write(result, &measured, sizeof measured, "ganq_perplexity_result");
}
