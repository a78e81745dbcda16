/* ganq/session.h - running a model: KV cache, logits, sampling, generation, perplexity. */
#ifndef GANQ_SESSION_H
#define GANQ_SESSION_H

#include "ganq/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One sequence: tokens seen so far, as keys and values. Used by one thread at a time. */
typedef struct ganq_session ganq_session;

/* max_context: tokens the cache holds; 0: the model's maximum, capped at 4096. Keeps what it needs of ctx and
 * model alive. INVALID_ARG above the model's maximum, NO_MEMORY with the bytes asked for. */
GANQ_NODISCARD GANQ_API ganq_status ganq_session_create(ganq_context *ctx, const ganq_model *model,
                                                        int64_t max_context, ganq_session **out);
GANQ_API void ganq_session_free(ganq_session *session);

/* Appends `count` tokens at once. Afterwards the logits are those of the token that follows the last one.
 * INVALID_ARG for ids outside the vocabulary or when the cache is full; then nothing was appended. */
GANQ_NODISCARD GANQ_API ganq_status ganq_session_prefill(ganq_session *session, const int32_t *ids,
                                                         size_t count);
/* The same, and the logits of every position: logits [count, vocab_size] f32. */
GANQ_NODISCARD GANQ_API ganq_status ganq_session_prefill_logits(ganq_session *session,
                                                                const int32_t *ids, size_t count,
                                                                float *logits);
/* Appends one token. On a GPU it may return before the step is done; what then fails is reported by the call that
 * waits for it, the next sample or logits. */
GANQ_NODISCARD GANQ_API ganq_status ganq_session_step(ganq_session *session, int32_t id);
/* [vocab_size], after the last token appended; borrowed, valid until the next call. NULL before the first, and where
 * they cannot be had from a device (ganq_last_error). */
GANQ_API const float *ganq_session_logits(const ganq_session *session);
/* Tokens in the cache. */
GANQ_API int64_t ganq_session_length(const ganq_session *session);
/* Forgets all but the first `length` tokens (0: all). If that is fewer than there were, there are no logits until the
 * next token. */
GANQ_NODISCARD GANQ_API ganq_status ganq_session_truncate(ganq_session *session, int64_t length);

/* All zero: greedy. Order: temperature, top_k, top_p, min_p. */
typedef struct ganq_sampling {
    uint32_t struct_size;
    float temperature; /* 0: greedy                                                     */
    int32_t top_k;     /* keep the k most likely; 0: all                                */
    float top_p;       /* keep the smallest set of that probability; 0: all             */
    float min_p;       /* keep those at least that likely, relative to the best; 0: all */
    int32_t reserved;  /* 0                                                            */
    uint64_t seed;     /* equal seeds and equal logits give equal tokens               */
} ganq_sampling;

/* Draws the next token from the current logits; does not append it. sampling NULL: greedy. The session's random
 * state starts from the seed at the first draw and whenever the seed changes. */
GANQ_NODISCARD GANQ_API ganq_status ganq_session_sample(ganq_session *session,
                                                        const ganq_sampling *sampling, int32_t *id);

/* Called for each generated token, before the next one; non-zero ends generation without an error. */
typedef int (*ganq_token_fn)(int32_t id, void *user);

typedef struct ganq_generate_options {
    uint32_t struct_size;
    int32_t reserved;       /* 0                                                                       */
    int64_t max_tokens;     /* default 128                                                             */
    ganq_sampling sampling; /* struct_size inside may be 0 when all is default                         */
    const int32_t *stop;    /* stop tokens, not handed out; NULL: the model's end-of-sequence ids      */
    int64_t stop_count;     /* negative: none at all                                                   */
} ganq_generate_options;

/* Samples up to max_tokens tokens after what the session holds (at least one token), until a stop token, the
 * callback's wish or a full cache. Every token handed out is appended, so that a further call goes on from there.
 * *generated (may be NULL): tokens handed to the callback. */
GANQ_NODISCARD GANQ_API ganq_status ganq_session_generate(ganq_session *session,
                                                          const ganq_generate_options *options,
                                                          ganq_token_fn callback, void *user,
                                                          int64_t *generated);

typedef enum ganq_perplexity_protocol {
    GANQ_PERPLEXITY_GPTQ = 0,    /* all sequences concatenated, non-overlapping windows of `context` tokens, the
                                    rest dropped; exp of the mean over windows of the mean NLL of the context-1
                                    predicted tokens (GPTQ's and GANQ's tables)                              */
    GANQ_PERPLEXITY_DOCUMENT = 1 /* every sequence by itself, cut at `context`; exp of the mean NLL over all
                                    predicted tokens                                                         */
} ganq_perplexity_protocol;

typedef struct ganq_perplexity_options {
    uint32_t struct_size;
    int32_t protocol;   /* ganq_perplexity_protocol                                                  */
    int64_t context;    /* default 2048, or the model's maximum if that is less                      */
    int64_t max_tokens; /* DOCUMENT: stop after the first sequence that reaches that many predictions;
                           GPTQ: use at most that many tokens; 0: all                                */
} ganq_perplexity_options;

typedef struct ganq_perplexity_result {
    uint32_t struct_size;
    int32_t protocol;
    double perplexity;
    double nll;        /* mean, in nats                    */
    int64_t tokens;    /* predicted tokens                 */
    int64_t sequences; /* windows or documents             */
    int64_t context;   /* that was used                    */
    double seconds;
} ganq_perplexity_result;

/* Progress: stage EVALUATE. INVALID_ARG if there is not one window or one prediction. result->struct_size must be
 * set by the caller. */
GANQ_NODISCARD GANQ_API ganq_status ganq_model_perplexity(ganq_context *ctx, const ganq_model *model,
                                                          const ganq_corpus *corpus,
                                                          const ganq_perplexity_options *options,
                                                          ganq_perplexity_result *result);

#ifdef __cplusplus
}
#endif
#endif
