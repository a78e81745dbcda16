/* plan.h - which linears are quantized, what that costs: decided before any work. */
#ifndef GANQ_PIPELINE_PLAN_H
#define GANQ_PIPELINE_PLAN_H

#include "block.h"
#include "ganq/model.h"
#include "model.h"

typedef struct ganq__walk_plan {
    ganq_quantize_options layer; /* with bits and recipe filled in */
    double target_bits;          /* 0: layer.bits everywhere */
    int propagate;
    float compensation; /* strength; above 0 the dense model's hidden states walk along,
                           compensate.h */
    uint8_t *chosen; /* [linear_count] 1: to be quantized */
    int32_t *bits;   /* [linear_count] of the chosen; with target_bits set by the survey */
    int64_t *bytes;  /* [linear_count] afterwards; 0: stays as it is; with target_bits as if all
                        were of that many */
    int64_t budget;  /* with target_bits: codes, tables and outliers of all chosen linears */
    int64_t sequences, tokens, longest; /* of the calibration; 0: none */
    ganq_quantize_plan sums;
} ganq__walk_plan;

/* Checks options and sequences. INVALID_ARG for a bad expression (with its position), when nothing
 * is left to quantize, without calibration for a recipe that needs it, for token ids outside the
 * vocabulary. */
ganq_status ganq__walk_plan_make(const ganq_model *model, const ganq_corpus *corpus,
                                 const ganq_model_quantize_options *options, ganq__walk_plan *out);
/* Codes, tables and outliers of a linear; between whole numbers of bits, the line between their
 * bytes. */
int64_t ganq__linear_code_bytes(const ganq__linear *linear, const ganq_quantize_options *options,
                                double bits);
/* Columns of the widest input of a block's linears. */
int64_t ganq__widest_input(const ganq__config *config);
void ganq__walk_plan_free(ganq__walk_plan *plan);

#endif
