/* perplexity.h - how well a model predicts token sequences, by the two protocols of ganq/session.h.
 */
#ifndef GANQ_RUNTIME_PERPLEXITY_H
#define GANQ_RUNTIME_PERPLEXITY_H

#include "ganq/session.h"
#include "model.h"

/* options: read; context 0 and max_tokens 0 are filled in here. */
ganq_status ganq__perplexity(ganq_context *ctx, const ganq_model *model, const ganq_corpus *corpus,
                             const ganq_perplexity_options *options,
                             ganq_perplexity_result *result);

/* -log softmax(logits)[target], summed in float64. */
double ganq__negative_log_likelihood(const float *logits, int64_t count, int32_t target);

#endif
