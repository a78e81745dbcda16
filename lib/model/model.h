/* model.h - the weights of a decoder-only model, by role: dense ones in the mapped files, quantized
 * ones as layers.
 *
 * A ganq_model is immutable and counted. Models made from it (quantization) share its store: maps,
 * names, norms. */
#ifndef GANQ_MODEL_MODEL_H
#define GANQ_MODEL_MODEL_H

#include <stdatomic.h>

#include "config.h"
#include "context.h"
#include "ganq/model.h"
#include "layer.h"
#include "lut_ops.h"
#include "safetensors.h"

/* Y = X W^T + bias with W [N,K], dense or quantized. Everything in it is borrowed from the model,
 * so that a copy by value with another `layer` is a valid linear, too. */
typedef struct ganq__linear {
    const char *name; /* "model.layers.0.self_attn.q_proj" */
    ganq__role role;  /* GANQ__ROLE_COUNT for the head     */
    int64_t N, K;
    ganq_layer *layer;  /* quantized, with its bias inside; NULL: dense                     */
    const void *weight; /* dense [N,K], contiguous, any alignment; NULL when quantized       */
    int32_t dtype;      /* F32 (also for F64 in the file, converted), F16, BF16             */
    float *bias;        /* dense [N] or NULL                                                */
    const ganq__tensor *weight_tensor; /* as stored in the source file; NULL when quantized there */
    const ganq__tensor *bias_tensor;
} ganq__linear;

typedef struct ganq__block {
    int index;
    int64_t window; /* keys a query sees at most, itself included; 0: all                  */
    float *attention_norm, *mlp_norm; /* [hidden]                                           */
    float *attention_norm_bias, *mlp_norm_bias; /* of LayerNorms; else NULL                 */
    float *q_norm, *k_norm;           /* [head_dim] or NULL                                 */
    ganq__linear linears[GANQ__ROLE_COUNT]; /* by role; one that is not there has K = 0     */
    void
        *memory; /* of a device, where the arrays above lie; NULL: they are borrowed from a model */
} ganq__block;

/* What all models made from one checkpoint share. */
typedef struct ganq__store {
    atomic_int references;
    char *dir;
    ganq__config config;
    ganq__tensors *tensors;
    /* tensors outside the linears of the blocks that the model uses, in order of use: embedding,
     * norms, final norm, head: what a saved model keeps as it is */
    const ganq__tensor **others;
    int64_t other_count;
    void **owned; /* names, converted weights, norms, biases */
    int64_t owned_count, owned_capacity;
} ganq__store;

struct ganq_model {
    atomic_int references;
    ganq__store *store;
    const ganq__config *config; /* in the store */
    const void *embedding;      /* [vocab, hidden] */
    int32_t embedding_dtype;
    const void *positions; /* learned ones: of position 0 on, [max_positions, hidden]; else NULL */
    int32_t positions_dtype;
    float *final_norm, *final_norm_bias; /* the bias NULL for RMSNorm */
    ganq__linear head; /* the embedding again when tied */
    ganq__block *blocks;
    int64_t linear_count; /* inside the blocks */
    void *memory; /* of a device: embedding, final norm and head in a placed model; else NULL */
    ganq__attachments attachments; /* the placed models */
};

ganq_status ganq__model_load(ganq_context *ctx, const char *dir, const ganq_model_options *options,
                             ganq_model **out);
enum { GANQ__RANDOM_DENSE = 16 };
/* bits 2, 3, 4, or GANQ__RANDOM_DENSE. */
ganq_status ganq__model_random(ganq_context *ctx, const char *dir, int bits, uint64_t seed,
                               ganq_model **out);
ganq_model *ganq__model_retain(const ganq_model *model);
void ganq__model_release(ganq_model *model); /* NULL is fine */

/* Linear i of the blocks in order of execution, i in [0, linear_count), and the way back (-1: the
 * block has no such linear). */
const ganq__linear *ganq__model_linear(const ganq_model *model, int64_t i);
int64_t ganq__model_linear_index(const ganq_model *model, int64_t block, ganq__role role);

/* A new model: layers[i], where not NULL, in the place of linear i (retained; shapes are checked);
 * all else is shared. */
ganq_status ganq__model_derive(const ganq_model *model, ganq_layer *const *layers,
                               ganq_model **out);

/* The model as the operations of a context take it. On hosts the model itself, its layers made
 * ready; on devices a copy, made at the first call, whose norms, embedding, dense weights and
 * biases lie in the device's memory and whose layers have their copies there. *out is borrowed: it
 * stays as long as both the model and the context live. NO_MEMORY names the bytes needed and those
 * there are. */
ganq_status ganq__model_place(ganq_context *ctx, const ganq_model *model, const ganq_model **out);

/* The same for a single block, of models larger than the device. On hosts *out is a plain copy.
 * *out must be unplaced; its linears' `layer` may be set in between, `weight` and `bias` stay. */
ganq_status ganq__block_place(ganq_context *ctx, const ganq__config *config,
                              const ganq__block *block, ganq__block *out);
/* Also gives up the copies of its layers in this context. */
void ganq__block_unplace(ganq_context *ctx, ganq__block *block);

/* Rows [first, first+count) of W (W~ when quantized) to out [count,K] f32; of a model in
 * memory of the process. */
void ganq__linear_rows(const ganq__linear *linear, int64_t first, int64_t count, float *out);

/* y [M,N] = x [M,K] W^T + bias. Here and below arrays lie in the context's memory, and linear or
 * model are placed there. */
ganq_status ganq__linear_forward(ganq_context *ctx, const ganq__linear *linear, int64_t M,
                                 const float *x, int64_t ldx, float *y, int64_t ldy);

/* ys[i] [M, linears[i].N]: up to GANQ__LUT_MANY linears of the same K with the same input, in one
 * product where all are quantized. */
ganq_status ganq__linears_forward(ganq_context *ctx, int count, const ganq__linear *linears,
                                  int64_t M, const float *x, float *const *ys);
/* The same with an input that is made on the way; *taken 0: that is not possible, nothing was done. */
ganq_status ganq__linears_forward_input(ganq_context *ctx, int count, const ganq__linear *linears,
                                        int64_t M, const ganq__lut_input *input,
                                        float *const *ys, int *taken);

/* In memory of the process: h [count, hidden] f32 = rows of the embedding, with those of positions 0 .. count - 1 where they
 * are learned. INVALID_ARG names
 * position and id of one outside the vocabulary. */
ganq_status ganq__model_embed(const ganq_model *model, const int32_t *ids, int64_t count, float *h);
/* The check of ganq__model_embed alone. */
ganq_status ganq__model_check_ids(const ganq_model *model, const int32_t *ids, int64_t count);

/* logits [M, vocab] from hidden states after the last block; normed [M, hidden] is scratch and may
 * be h itself. */
ganq_status ganq__model_logits(ganq_context *ctx, const ganq_model *model, int64_t M,
                               const float *h, float *normed, float *logits);

#endif
