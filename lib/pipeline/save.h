/* save.h - a model to a directory: native (docs/format.md) or dense. */
#ifndef GANQ_PIPELINE_SAVE_H
#define GANQ_PIPELINE_SAVE_H

#include "ganq/model.h"
#include "model.h"

/* options: read, not NULL. */
ganq_status ganq__model_save(ganq_context *ctx, const ganq_model *model, const char *dir,
                             const ganq_save_options *options);
ganq_status ganq__model_export_dense(ganq_context *ctx, const ganq_model *model, const char *dir,
                                     ganq_dtype dtype, const ganq_save_options *options);

#endif
