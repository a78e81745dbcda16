/* quantize.h - a whole model, block by block: observe the inputs of the linears, solve, go on. */
#ifndef GANQ_PIPELINE_QUANTIZE_H
#define GANQ_PIPELINE_QUANTIZE_H

#include "ganq/model.h"
#include "model.h"

/* corpus: NULL or sequences of token ids; options: read, not NULL; layer options inside checked by
 * the solver. */
ganq_status ganq__model_quantize(ganq_context *ctx, const ganq_model *model,
                                 const ganq_corpus *corpus,
                                 const ganq_model_quantize_options *options, ganq_model **out);
/* What ganq__model_quantize would do. linear_bytes: NULL, or [linear_count]. */
ganq_status ganq__model_plan(const ganq_model *model, const ganq_corpus *corpus,
                             const ganq_model_quantize_options *options, ganq_quantize_plan *plan,
                             int64_t *linear_bytes);

#endif
