/* tiny.h - small random checkpoints written to disk, and their forward pass in float64, written
 * plainly and apart from the library. */
#ifndef GANQ_TESTS_TINY_H
#define GANQ_TESTS_TINY_H

#include "context.h"
#include "model.h"
#include "safetensors.h"

typedef enum tiny_rope { TINY_ROPE_PLAIN, TINY_ROPE_LINEAR, TINY_ROPE_LLAMA3, TINY_ROPE_YARN } tiny_rope;

typedef struct tiny_tensor {
    char name[96];
    int rank;
    int64_t shape[2];
    double *data; /* values that the stored type holds exactly */
} tiny_tensor;

typedef struct tiny {
    const char *architecture;
    int hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, positions;
    int tied, qkv_bias, o_bias, mlp_bias, qk_norm, window;
    int opt; /* OPT: LayerNorm, learned positions, ReLU; all biases or none (qkv_bias) */
    int all_quantized; /* tiny_quantized: up_proj, too */
    tiny_rope rope;
    ganq__st_dtype dtype;
    const char *extra; /* more of config.json, each ", \"key\": value" */
    tiny_tensor tensors[128];
    int count;
} tiny;

/* GQA 4/2, two blocks, odd sizes; fields may be changed before tiny_fill. */
tiny tiny_default(void);
/* The same as OPT. */
tiny tiny_opt(void);
/* Random weights, the same for the same seed. */
void tiny_fill(tiny *t, uint64_t seed);
void tiny_free(tiny *t);
tiny_tensor *tiny_find(tiny *t, const char *name);
void tiny_config(const tiny *t, char *text, size_t size);
/* config.json and model.safetensors into an existing directory. */
void tiny_write(const tiny *t, const char *dir);
/* logits [count, vocab] */
void tiny_forward(tiny *t, const int32_t *ids, int count, double *logits);

/* Writes t, loads it and replaces all linears but up_proj by layers of 2, 3 and 4 bits with random
 * codes and tables; their values are put into t. */
ganq_model *tiny_quantized(ganq_context *ctx, tiny *t, const char *dir);

/* A context on the CPU with the kernels of `isa` (NULL: as the environment says). Freed with
 * ganq__context_release. */
ganq_context *test_context(int threads, const char *isa);
/* ids[i] in [0, vocab) */
void random_ids(int32_t *ids, int count, int vocab, uint64_t seed);
/* Largest |a - b| over count values, and the range max b - min b. */
double largest_difference(const float *a, const double *b, int64_t count, double *range);

#endif
