/* block.h - one transformer block's forward pass on a run of tokens, with a key/value cache and an
 * observer.
 *
 * How the pipeline uses it: ganq__model_embed fills h for each sequence; per block, a run with an
 * observer and `stop_after` set collects the inputs of the linears and leaves h alone; after
 * solving, a run without observer, on a copy of the ganq__block whose linears[role].layer were set,
 * moves h to the next block's input.
 *
 * All arrays here lie in the context's memory, the block's among them (ganq__block_place): on a
 * device host code neither reads nor writes them. What is created here remembers its context, which
 * must live longer. */
#ifndef GANQ_MODEL_BLOCK_H
#define GANQ_MODEL_BLOCK_H

#include "model.h"

/* The distinct inputs of a block's linears, in order of execution. */
typedef enum ganq__input {
    GANQ__INPUT_ATTENTION = 0, /* of q, k, v     [M, hidden]           */
    GANQ__INPUT_OUTPUT = 1,    /* of o           [M, heads * head_dim] */
    GANQ__INPUT_MLP = 2,       /* of gate, up    [M, hidden]           */
    GANQ__INPUT_DOWN = 3,      /* of down        [M, intermediate]     */
    GANQ__INPUT_COUNT = 4
} ganq__input;
ganq__input ganq__role_input(ganq__role role);

/* x [M,K], in the context's memory, before the linears that read it run; x is valid during the
 * call. An error ends the forward pass. */
typedef ganq_status (*ganq__observe_fn)(void *user, ganq__input input, int64_t M, int64_t K,
                                        const float *x, int64_t ldx);

/* cos and sin of position * frequency, times rope_attention, computed in float64: [positions,
 * head_dim/2] each. */
typedef struct ganq__rope {
    ganq_context *ctx;
    int64_t positions, half; /* half = head_dim / 2 */
    float *cosines, *sines;
} ganq__rope;
ganq_status ganq__rope_create(ganq_context *ctx, const ganq__config *config, int64_t positions,
                              ganq__rope *out);
void ganq__rope_free(ganq__rope *rope);
/* The half frequencies (radians per position), after scaling. */
void ganq__rope_frequencies(const ganq__config *config, double *frequencies);

/* Keys and values of one block: [kv_heads, capacity, head_dim] each, F32 or F16. */
typedef struct ganq__kv {
    ganq_context *ctx;
    int64_t capacity;
    int32_t dtype;
    void *keys, *values;
    void *memory; /* of all blocks, owned by the first */
} ganq__kv;
/* Of `blocks` blocks, out [blocks], in one piece of memory, for large pages. */
ganq_status ganq__kv_create(ganq_context *ctx, const ganq__config *config, int64_t capacity,
                            int32_t dtype, int64_t blocks, ganq__kv *out);
void ganq__kv_free(ganq__kv *kv); /* all of them; the first one is given */

/* Scratch for runs of up to `tokens` tokens at once; longer ones are cut into such pieces. */
typedef struct ganq__workspace {
    ganq_context *ctx;
    int64_t tokens;
    float *normed;    /* [tokens, hidden]             */
    float *residual;  /* [tokens, hidden]             */
    float *q;         /* [tokens, heads * head_dim]   */
    float *k, *v;     /* [tokens, kv_heads * head_dim] */
    float *attended;  /* [tokens, heads * head_dim]   */
    float *gate, *up; /* [tokens, intermediate]      */
} ganq__workspace;
enum { GANQ__CHUNK = 256 }; /* tokens at once where nothing else is known */
ganq_status ganq__workspace_create(ganq_context *ctx, const ganq__config *config, int64_t tokens,
                                   ganq__workspace *out);
void ganq__workspace_free(ganq__workspace *workspace);

typedef struct ganq__block_run {
    const ganq__rope *rope; /* covers position + M */
    ganq__kv *kv;           /* holds positions before `position`; the new ones are written */
    ganq__workspace *workspace;
    int64_t position; /* of the first token */
    const int32_t
        *counter; /* in a decode step: position again, in the context's memory; else NULL */
    ganq__observe_fn
        observe; /* NULL: none. Called once per piece of workspace->tokens tokens and input */
    void *user;
    /* In a row of blocks over at most workspace->tokens tokens, a block's last addition and the
     * next one's first norm are one operation. pause 1: that addition, workspace->residual +
     * workspace->normed = h, is left to the next block; resume 1: the block before has left it. */
    int pause, resume;
    int stop; /* 1: end once `stop_after` was observed; h is left as it was */
    ganq__input stop_after;
} ganq__block_run;

/* h [M, hidden]: the block's input, replaced by its output. The same bits for any number of threads
 * and any split into pieces. */
ganq_status ganq__block_forward(ganq_context *ctx, const ganq__config *config,
                                const ganq__block *block, const ganq__block_run *run, int64_t M,
                                float *h);

#endif
