/* plan.h - which linears are quantized, what that costs: decided before any work. */
#ifndef GANQ_PIPELINE_PLAN_H
#define GANQ_PIPELINE_PLAN_H

#include "block.h"
#include "ganq/model.h"
#include "model.h"

typedef struct ganq__walk_plan {
    ganq_quantize_options layer; /* with bits and recipe filled in */
    int propagate;
    int compensate;  /* the dense model's hidden states walk along, see compensate.h */
    uint8_t *chosen; /* [linear_count] 1: to be quantized */
    int64_t *bytes;  /* [linear_count] afterwards; 0: stays as it is */
    int64_t sequences, tokens, longest; /* of the calibration; 0: none */
    ganq_quantize_plan sums;
} ganq__walk_plan;

/* Checks options and sequences. INVALID_ARG for a bad expression (with its position), when nothing
 * is left to quantize, without calibration for a recipe that needs it, for token ids outside the
 * vocabulary. */
ganq_status ganq__walk_plan_make(const ganq_model *model, const ganq_corpus *corpus,
                                 const ganq_model_quantize_options *options, ganq__walk_plan *out);
/* Columns of the widest input of a block's linears. */
int64_t ganq__widest_input(const ganq__config *config);
void ganq__walk_plan_free(ganq__walk_plan *plan);

#endif
