/* save_config.h - config.json of what is written. */
#ifndef GANQ_PIPELINE_SAVE_CONFIG_H
#define GANQ_PIPELINE_SAVE_CONFIG_H

#include <jansson.h>

#include "model.h"

/* The source's config.json with a quantization_config for the model's quantized linears
 * (docs/format.md), without one where all are dense. calibration: one line, or NULL. A new
 * reference. */
ganq_status ganq__config_native(const ganq_model *model, const char *calibration, json_t **out);
/* The source's config.json for dense weights of that type. */
ganq_status ganq__config_dense(const ganq_model *model, ganq_dtype dtype, json_t **out);

#endif
