/* ganq/model.h - whole models: load, quantize block by block, save, export. */
#ifndef GANQ_MODEL_H
#define GANQ_MODEL_H

#include "ganq/layer.h"
#include "ganq/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Weights of a decoder-only language model, dense or quantized. Immutable: may be read by many sessions. */
typedef struct ganq_model ganq_model;

typedef struct ganq_model_options {
    uint32_t struct_size;
    int32_t verify; /* ganq_switch; ON checks the CRC-32 of dense tensors too, at load; default OFF */
} ganq_model_options;

/* dir: a Hugging Face directory: config.json and model.safetensors, or shards with
 * model.safetensors.index.json; dense, or written by ganq_model_save. Files are mapped, not read.
 * UNSUPPORTED names an architecture that is not known, FORMAT and NOT_FOUND name file, tensor, expected and
 * found shape. */
GANQ_NODISCARD GANQ_API ganq_status ganq_model_load(ganq_context *ctx, const char *dir,
                                                    const ganq_model_options *options, ganq_model **out);
GANQ_API void ganq_model_free(ganq_model *model);

typedef struct ganq_random_options {
    uint32_t struct_size;
    int32_t bits;  /* of the linears inside the blocks: 2, 3, 4, or 16, dense F16; default 4 */
    uint64_t seed; /* equal seeds give equal weights                         */
} ganq_random_options;

/* A model with random weights, made in memory, of the shape that dir/config.json describes: for measuring speed and
 * memory without a checkpoint. The linears inside the blocks are quantized layers (but for 16 bits), embedding and head are
 * F16. Text from it means nothing. Errors as ganq_model_load's, for the configuration alone. */
GANQ_NODISCARD GANQ_API ganq_status ganq_model_random(ganq_context *ctx, const char *dir,
                                                      const ganq_random_options *options,
                                                      ganq_model **out);

typedef struct ganq_model_info {
    uint32_t struct_size;
    int32_t layers;           /* transformer blocks                                              */
    const char *architecture; /* "LlamaForCausalLM"; borrowed from the model                     */
    int64_t hidden_size;
    int64_t vocab_size;
    int64_t max_positions;
    int64_t parameters;
    int64_t linears;          /* linear layers inside the blocks: what is quantized              */
    int64_t linears_quantized;
    int64_t stored_bytes;     /* of all tensors, as they are held                                */
    int64_t linear_bytes;     /* of the linears inside the blocks                                */
    double bits_per_weight;   /* of the linears inside the blocks                                */
    int32_t bos;              /* token ids from the configuration; -1: none                      */
    int32_t eos_count;
    const int32_t *eos;       /* borrowed */
} ganq_model_info;
GANQ_NODISCARD GANQ_API ganq_status ganq_model_get_info(const ganq_model *model, ganq_model_info *info);

/* One linear inside a block, in order of execution. */
typedef struct ganq_linear_info {
    uint32_t struct_size;
    int32_t bits;           /* 0: dense                                                          */
    const char *name;       /* "model.layers.0.self_attn.q_proj"; borrowed from the model        */
    int64_t rows;           /* N */
    int64_t cols;           /* K */
    double bits_per_weight; /* 32, 16 for dense ones                                             */
    double error;           /* as in ganq_layer_report; 0 when not made by this handle. With propagation:
                               of the moved weights                                              */
    double norm;            /* error / norm = E; 0 when not known                                */
    double seconds;         /* of the solver */
    int64_t tokens;         /* calibration tokens seen */
} ganq_linear_info;
GANQ_NODISCARD GANQ_API ganq_status ganq_model_get_linear(const ganq_model *model, int64_t i,
                                                          ganq_linear_info *info);
/* The quantized layer of linear i, borrowed from the model; NULL while it is dense or out of range. */
GANQ_API const ganq_layer *ganq_model_layer(const ganq_model *model, int64_t i);

typedef struct ganq_model_quantize_options {
    uint32_t struct_size;
    int32_t propagate;                  /* ganq_switch; ON (default): each linear sees inputs that went
                                           through the quantized ones before it; OFF: all see the dense
                                           model's inputs                                               */
    const ganq_quantize_options *layer; /* for every linear; NULL: defaults                            */
    const char *skip;                   /* regular expression (PCRE2): linears whose name it matches stay
                                           dense; NULL: none                                           */
    float target_bits;                  /* 2 to 4, in the place of the bits of `layer`: each linear gets 2,
                                           3 or 4 bits, by what they are measured to cost the model's
                                           predictions; codes and tables together take at most the bytes
                                           that target_bits everywhere would (3.5: halfway between those
                                           of 3 and 4), tables being of the type asked for: where rows
                                           need F32 it is more. Needs calibration. Default 0: no mixing         */
    float compensation;                 /* with propagate, up to 1: how much of what a linear's inputs lost
                                           its target makes up for: the dense model's outputs count, as
                                           far as they are linear in those inputs. Default 0.5, for the
                                           recipes RTN and PAPER none; negative: none                   */
} ganq_model_quantize_options;

/* Quantizes the linears of every block; embeddings, norms and the head stay as they are and are shared with
 * `model`, which is unchanged and may be freed. calibration: sequences of token ids (ganq_corpus), may be
 * NULL for GANQ_RECIPE_RTN only. Progress: stage CALIBRATE and QUANTIZE. NUMERIC names the linear whose
 * inputs or weights hold a NaN. */
GANQ_NODISCARD GANQ_API ganq_status ganq_model_quantize(ganq_context *ctx, const ganq_model *model,
                                                        const ganq_corpus *calibration,
                                                        const ganq_model_quantize_options *options,
                                                        ganq_model **out);

/* What ganq_model_quantize would do, without doing it. */
typedef struct ganq_quantize_plan {
    uint32_t struct_size;
    int32_t reserved;
    int64_t linears;         /* to be quantized                                                     */
    int64_t skipped;         /* left dense: `skip` matches, or quantized already                    */
    int64_t weights;         /* N*K summed over those to be quantized                               */
    int64_t bytes_before;    /* of all linears of the blocks                                        */
    int64_t bytes_after;     /* the same; codes, tables, outliers, biases                           */
    double bits_per_weight;  /* codes, tables, outliers of those to be quantized                    */
    int64_t memory_bytes;    /* the most the call plans to hold beside the mapped model: what is
                                compared with the context's memory_budget_bytes                     */
    int64_t activation_bytes;/* part of it: hidden states of all sequences                          */
} ganq_quantize_plan;
/* plan->struct_size must be set by the caller. linear_bytes: NULL, or room for one number per linear of the
 * blocks: its bytes afterwards, 0 where it stays as it is. Fails as ganq_model_quantize does for bad options. */
GANQ_NODISCARD GANQ_API ganq_status ganq_model_plan(ganq_context *ctx, const ganq_model *model,
                                                    const ganq_corpus *calibration,
                                                    const ganq_model_quantize_options *options,
                                                    ganq_quantize_plan *plan, int64_t *linear_bytes);

typedef struct ganq_save_options {
    uint32_t struct_size;
    int32_t force;              /* ganq_switch; ON replaces a model's directory (one with a config.json), atomically;
                                   default OFF. Any other directory that is not empty is GANQ_ERR_EXISTS; one
                                   that holds the current directory INVALID_ARG                               */
    int64_t shard_bytes;        /* largest file; default 5 GB                                                 */
    const char *calibration;    /* one line on the calibration data for config.json; NULL: none               */
} ganq_save_options;

/* Writes the native directory (docs/format.md): config.json with quantization_config, model*.safetensors,
 * tokenizer files copied from the source. Everything is written beside `dir` and renamed at the end. */
GANQ_NODISCARD GANQ_API ganq_status ganq_model_save(ganq_context *ctx, const ganq_model *model,
                                                    const char *dir, const ganq_save_options *options);
/* Writes a dense Hugging Face directory that any engine reads; dtype F32, F16 or BF16. */
GANQ_NODISCARD GANQ_API ganq_status ganq_model_export_dense(ganq_context *ctx, const ganq_model *model,
                                                            const char *dir, ganq_dtype dtype,
                                                            const ganq_save_options *options);

#ifdef __cplusplus
}
#endif
#endif
