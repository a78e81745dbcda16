/* sampling.h - from logits to a token: greedy, or a draw after temperature, top-k, top-p, min-p. */
#ifndef GANQ_RUNTIME_SAMPLING_H
#define GANQ_RUNTIME_SAMPLING_H

#include "ganq/session.h"
#include "random.h"

/* A token that may still be drawn. weight = e^((logit - highest) / temperature). */
typedef struct ganq__candidate {
    double weight;
    float logit;
    int32_t id;
} ganq__candidate;

/* INVALID_ARG names the field that makes no sense. */
ganq_status ganq__sampling_check(const ganq_sampling *sampling);

/* sampling is checked; scratch [count]. Greedy takes the lowest id of equal logits and no random
 * number; a draw takes one. NUMERIC names the first logit that is NaN or +infinity. */
ganq_status ganq__sample(const ganq_sampling *sampling, const float *logits, int64_t count,
                         ganq__candidate *scratch, ganq__random *random, int32_t *id);

#endif
