/* config.h - config.json as a struct, and the model families as data. */
#ifndef GANQ_MODEL_CONFIG_H
#define GANQ_MODEL_CONFIG_H

#include <jansson.h>

#include "context.h"

/* The linears of a block in order of execution; there is no gate in a plain MLP. */
typedef enum ganq__role {
    GANQ__ROLE_Q = 0,
    GANQ__ROLE_K,
    GANQ__ROLE_V,
    GANQ__ROLE_O,
    GANQ__ROLE_GATE,
    GANQ__ROLE_UP,
    GANQ__ROLE_DOWN,
    GANQ__ROLE_COUNT
} ganq__role;

/* Where a family's linears have a bias. */
typedef enum ganq__bias_rule {
    GANQ__BIAS_NEVER = 0,
    GANQ__BIAS_QKV,   /* on q, k, v, whatever the configuration says (Qwen2)  */
    GANQ__BIAS_BY_KEY /* on all of them if attention_bias / mlp_bias is true  */
} ganq__bias_rule;

/* Which blocks look back over a sliding window only. */
typedef enum ganq__window_rule {
    GANQ__WINDOW_NEVER = 0,
    GANQ__WINDOW_ALL, /* all, if sliding_window is a number (Mistral)                             */
    GANQ__WINDOW_BY_LAYER /* layer_types, else use_sliding_window and max_window_layers (Qwen2,
                             Qwen3) */
} ganq__window_rule;

/* A family as data: RMSNorm, rotate-half RoPE and SwiGLU, unless it says otherwise. Names of modules
 * are printf templates with one %d for the block; their tensors end in ".weight" and ".bias". */
typedef struct ganq__family {
    const char *architecture;
    int layer_norm; /* LayerNorm with a bias in the place of RMSNorm                            */
    int plain_mlp;  /* down(relu(up(x)))                                                        */
    int opt_keys;   /* config.json has OPT's keys for biases and variants                       */
    const char *positions; /* a learned vector per position is added to the embedding, no RoPE */
    int first_position;    /* its row of position 0                                            */
    const char *intermediate_key, *activation_key, *activation; /* in config.json               */
    double norm_eps; /* where config.json has no key for it; 0: rms_norm_eps                    */
    int tied;        /* where config.json does not say                                          */
    ganq__bias_rule attention_bias, mlp_bias;
    ganq__window_rule window;
    int qk_norm; /* RMSNorm over each head of q and k, before RoPE */
    int head_dim; /* where config.json does not say; 0: hidden / heads */
    const char *linear_names[GANQ__ROLE_COUNT];
    const char *attention_norm, *mlp_norm, *q_norm, *k_norm;
    const char *embedding, *final_norm, *head;
} ganq__family;

typedef enum ganq__rope_kind {
    GANQ__ROPE_PLAIN = 0,
    GANQ__ROPE_LINEAR, /* positions divided by factor                             */
    GANQ__ROPE_LLAMA3, /* low frequencies divided by factor, smooth in the middle */
    GANQ__ROPE_YARN    /* the same over the index of a frequency (arXiv 2309.00071) */
} ganq__rope_kind;

typedef struct ganq__config {
    const ganq__family *family;
    int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_positions;
    double norm_eps;
    double rope_theta;
    ganq__rope_kind rope_kind;
    double rope_factor, rope_original_positions;
    /* Where what is divided begins and ends: LLAMA3, in wavelengths per original_positions; YARN, in
     * turns over them (beta_slow, beta_fast), rounded outwards where rope_whole. */
    double rope_low_factor, rope_high_factor;
    int rope_whole;
    double rope_attention; /* cosines and sines times this */
    int64_t *windows;   /* [layers] keys a query sees at most, itself included; 0: all. NULL: all
                           blocks 0 */
    int tied;           /* the head is the embedding */
    int attention_bias; /* q, k, v */
    int output_bias;    /* o */
    int mlp_bias;
    int32_t bos; /* -1: none */
    int32_t *eos;
    int32_t eos_count;
    json_t *json;            /* the file's root: read only, but for what loading the weights settles */
    const json_t *quantized; /* quantization_config.tensors in it; NULL: a dense checkpoint */
} ganq__config;

/* dir/config.json, and the token ids of dir/generation_config.json where there is one. UNSUPPORTED
 * names the architecture, activation, rope scaling or quantization method that is not known; FORMAT
 * names file, key, expected and found. */
ganq_status ganq__config_load(ganq_context *ctx, const char *dir, ganq__config *out);
void ganq__config_free(ganq__config *config); /* and zeroes it */

/* A block's linears in order of execution: how many, the j-th one's role, the place of a role (-1: a
 * plain MLP has no gate). */
int ganq__config_roles(const ganq__config *config);
ganq__role ganq__config_role(const ganq__config *config, int j);
int ganq__config_role_place(const ganq__config *config, ganq__role role);

/* [N,K] of a block's linear. */
void ganq__config_linear_shape(const ganq__config *config, ganq__role role, int64_t *N, int64_t *K);
int ganq__config_linear_has_bias(const ganq__config *config, ganq__role role);

#endif
