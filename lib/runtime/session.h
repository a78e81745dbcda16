/* session.h - one sequence of tokens: key/value cache, logits, sampling state.
 *
 * "device" below is the context's memory (memory_ops.h), which on hosts is the process's. */
#ifndef GANQ_RUNTIME_SESSION_H
#define GANQ_RUNTIME_SESSION_H

#include "block.h"
#include "ganq/session.h"
#include "model.h"
#include "sampling.h"

struct ganq_session {
    ganq_context *ctx; /* retained, like the model */
    ganq_model *model;
    const ganq_model *placed; /* the model in the context's memory, borrowed */
    int64_t capacity, length;
    ganq__kv *kv; /* [layers] */
    ganq__rope rope;
    ganq__workspace workspace;
    int32_t *inputs;        /* device [1 + 2 workspace.tokens]: position, token ids, the positions of those where
                               they are learned                                                   */
    int32_t *staged_inputs; /* the same on their way there                                        */
    float *h;               /* device [workspace.tokens, hidden]                                  */
    float *normed;          /* the same: hidden states after the final norm                       */
    int64_t logit_rows;     /* of the next                                                        */
    float *device_logits;   /* device [logit_rows, vocab]; `logits` itself on hosts               */
    float *logits;          /* [vocab], memory of the process                                     */
    int32_t *device_best;   /* device: the id with the highest logit of a step; NULL: not known   */
    int logits_stale;       /* 1: `logits` are still in device_logits: see session_fetch          */
    void *recording;        /* of the backend: see step_begin in model_ops.h                      */
    int has_logits;
    ganq__candidate *candidates; /* [vocab] */
    ganq__random random;
    uint64_t seed;
    int seeded;
};

/* max_context 0: the model's maximum, at most 4096. */
ganq_status ganq__session_create(ganq_context *ctx, const ganq_model *model, int64_t max_context,
                                 ganq_session **out);
void ganq__session_free(ganq_session *session);

/* Brings the logits of the last step, which may still be on the device, into session->logits. */
ganq_status ganq__session_fetch(ganq_session *session);

/* logits [M, vocab], in memory of the process, from device hidden states after the last block, h
 * [M, hidden] with M <= workspace.tokens. */
ganq_status ganq__session_logits(ganq_session *session, int64_t M, const float *h, float *logits);

/* Appends tokens in pieces of workspace.tokens; after each piece `visit` (may be NULL) gets the
 * hidden states after the last block, device h [M, hidden], of the tokens [first, first + M) of
 * this call. When anything fails nothing was appended. Does not touch the logits. */
typedef ganq_status (*ganq__hidden_fn)(void *user, int64_t first, int64_t M, const float *h);
ganq_status ganq__session_append(ganq_session *session, const int32_t *ids, int64_t count,
                                 ganq__hidden_fn visit, void *user);

/* Appends one token; ganq__session_fetch gives the logits after it. Allocates nothing. On a device
 * it may return before the step is done: what fails there is reported by what waits for it. */
ganq_status ganq__session_step(ganq_session *session, int32_t id);
/* logits NULL: only those after the last token, in session->logits; else [count, vocab] as well. */
ganq_status ganq__session_prefill(ganq_session *session, const int32_t *ids, int64_t count,
                                  float *logits);
ganq_status ganq__session_truncate(ganq_session *session, int64_t length);
ganq_status ganq__session_sample(ganq_session *session, const ganq_sampling *sampling, int32_t *id);
/* options with defaults filled in and checked. */
ganq_status ganq__session_generate(ganq_session *session, const ganq_generate_options *options,
                                   ganq_token_fn callback, void *user, int64_t *generated);

#endif
