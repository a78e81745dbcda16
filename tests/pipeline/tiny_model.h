/* tiny_model.h - a Llama-shaped checkpoint with random weights, written by hand: small enough to
 * quantize in milliseconds, odd enough (K not a multiple of 32, grouped heads, biases) to meet the
 * edges. */
#ifndef GANQ_TESTS_TINY_MODEL_H
#define GANQ_TESTS_TINY_MODEL_H

#include "ganq/ganq.h"

typedef struct tiny_model {
    int layers;             /* default 2                                             */
    int biases;             /* attention_bias and mlp_bias                           */
    int untied;             /* a head of its own                                     */
    const char *nan_tensor; /* the first value of this tensor is a NaN        */
    float scale;            /* of the weights; default 0.2                           */
} tiny_model;

enum {
    TINY_HIDDEN = 40,
    TINY_INTER = 72,
    TINY_VOCAB = 64,
    TINY_LINEARS = 7,
    TINY_MAX_POSITIONS = 64
};

/* Makes the directory with config.json, model.safetensors (F32), and two companion files. */
void tiny_model_write(const char *dir, const tiny_model *settings);
/* `count` sequences of `length` random ids. */
ganq_corpus *tiny_corpus(int count, int length);

#endif
