/* model.c - what a transformer block does besides its linears, as operations of a context, and decode
 * steps that are recorded once and replayed as one CUDA graph.
 *
 * A recorded step reads its token and its position from the device's memory, so it serves for all
 * positions for which the attention's grid has room: up to the next power of two, at least 512. The
 * first step of such a range runs as it is, so that workspaces find their sizes; the second is
 * recorded; the others are one launch. */
#include "alloc.h"
#include "cuda.h"
#include "model_kernels.h"
#include "model_ops.h"

static ganq_status cuda_embed(ganq_context *ctx, int64_t M, int64_t D, const int32_t *ids,
                              const void *weight, int32_t dtype, float *h) {
    GANQ_CUDA_RUN(ctx, ganq__cuda_embed(ganq__cuda_queue_of(ctx), M, D, ids, weight, dtype, h));
    return GANQ_OK;
}

static ganq_status cuda_rms_norm(ganq_context *ctx, int64_t M, int64_t D, const float *x,
                                 int64_t ldx, const float *weight, float eps, float *y,
                                 int64_t ldy) {
    GANQ_CUDA_RUN(ctx, ganq__cuda_norm(ganq__cuda_queue_of(ctx), M, D, x, ldx, NULL, NULL, weight, eps, y, ldy));
    return GANQ_OK;
}

static ganq_status cuda_add_norm(ganq_context *ctx, int64_t M, int64_t D, const float *a,
                                 const float *b, float *sum, const float *weight, float eps,
                                 float *y) {
    GANQ_CUDA_RUN(ctx, ganq__cuda_norm(ganq__cuda_queue_of(ctx), M, D, a, D, b, sum, weight, eps, y, D));
    return GANQ_OK;
}

static ganq_status cuda_layer_norm(ganq_context *ctx, int64_t M, int64_t D, const float *x,
                                   const float *weight, const float *bias, float eps, float *y) {
    GANQ_CUDA_RUN(ctx, ganq__cuda_layer_norm(ganq__cuda_queue_of(ctx), M, D, x, weight, bias, eps, y));
    return GANQ_OK;
}

static ganq_status cuda_relu(ganq_context *ctx, int64_t count, float *x) {
    GANQ_CUDA_RUN(ctx, ganq__cuda_relu(ganq__cuda_queue_of(ctx), count, x));
    return GANQ_OK;
}

static ganq_status cuda_swiglu(ganq_context *ctx, int64_t count, float *gate, const float *up) {
    GANQ_CUDA_RUN(ctx, ganq__cuda_swiglu(ganq__cuda_queue_of(ctx), count, gate, up));
    return GANQ_OK;
}

static ganq_status cuda_add(ganq_context *ctx, int64_t count, const float *a, const float *b,
                            float *y) {
    GANQ_CUDA_RUN(ctx, ganq__cuda_add(ganq__cuda_queue_of(ctx), count, a, b, y));
    return GANQ_OK;
}

static ganq_status cuda_argmax(ganq_context *ctx, int64_t count, const float *x, int32_t *best) {
    GANQ_CUDA_RUN(ctx, ganq__cuda_argmax(ganq__cuda_queue_of(ctx), count, x, best));
    return GANQ_OK;
}

static ganq__cuda_heads_args heads_args(const ganq__heads *h) {
    return (ganq__cuda_heads_args){
        .M = (int32_t)h->M,
        .heads = (int32_t)h->heads,
        .kv_heads = (int32_t)h->kv_heads,
        .dim = (int32_t)h->head_dim,
        .position = h->position,
        .capacity = h->capacity,
        .counter = h->counter,
        .q_norm = h->q_norm,
        .k_norm = h->k_norm,
        .cosines = h->cosines,
        .sines = h->sines,
        .eps = h->eps,
        .q = h->q,
        .k = h->k,
        .v = h->v,
        .keys = h->keys,
        .values = h->values,
        .cache_dtype = h->cache_dtype,
    };
}

static ganq_status cuda_heads(ganq_context *ctx, const ganq__heads *h) {
    const ganq__cuda_heads_args args = heads_args(h);
    GANQ_CUDA_RUN(ctx, ganq__cuda_heads(ganq__cuda_queue_of(ctx), &args));
    return GANQ_OK;
}

/* The first position that a step recorded at this one cannot have. */
static int64_t limit_of(int64_t position) {
    int64_t limit = 512;
    while (limit <= position)
        limit *= 2;
    return limit;
}

/* heads: NULL, or what attention's kernel is to do before, for one token. */
static ganq_status attend(ganq_context *ctx, const ganq__attention *a, const ganq__heads *heads) {
    if (a->head_dim > GANQ__ATTENTION_MAX_DIM)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: heads of %d elements; at most %d are possible",
                  ctx->device_name, (int)a->head_dim, GANQ__ATTENTION_MAX_DIM);
    ganq__cuda_attention_args args = {
        .M = (int32_t)a->M,
        .heads = (int32_t)a->heads,
        .kv_heads = (int32_t)a->kv_heads,
        .dim = (int32_t)a->head_dim,
        .position = a->position,
        .window = a->window,
        .capacity = a->capacity,
        .counter = a->counter,
        .scale = a->scale,
        .q = a->q,
        .keys = a->keys,
        .values = a->values,
        .cache_dtype = a->cache_dtype,
        .out = a->out,
    };
    if (a->M > GANQ__ATTENTION_DECODE) {
        GANQ_CUDA_RUN(ctx, ganq__cuda_attention_prefill(ganq__cuda_queue_of(ctx), &args));
        return GANQ_OK;
    }
    const int64_t end = a->counter ? limit_of(a->position) : a->position + a->M;
    void *workspace;
    args.chunks = (int32_t)((end + GANQ__ATTENTION_CHUNK - 1) / GANQ__ATTENTION_CHUNK);
    const size_t pieces = (size_t)(a->M * a->heads) * (size_t)args.chunks;
    GANQ_TRY(ganq__cuda_workspace(ctx, GANQ__CUDA_ATTENTION,
                                  pieces * (size_t)(a->head_dim + 2) * sizeof(float), &workspace));
    args.extremes = workspace;
    args.partial = args.extremes + 2 * pieces;
    if (heads) {
        args.turns = 1;
        args.heads_args = heads_args(heads);
    }
    GANQ_CUDA_RUN(ctx, ganq__cuda_attention_decode(ganq__cuda_queue_of(ctx), &args));
    return GANQ_OK;
}

static ganq_status cuda_attention(ganq_context *ctx, const ganq__attention *a) {
    return attend(ctx, a, NULL);
}

static ganq_status cuda_heads_attention(ganq_context *ctx, const ganq__heads *heads, const ganq__attention *a) {
    if (a->M == 1 && ganq__cuda_of(ctx)->fuse)
        return attend(ctx, a, heads);
    GANQ_TRY(cuda_heads(ctx, heads));
    return attend(ctx, a, NULL);
}

/* A session's recorded step. */
typedef struct recording {
    cudaGraphExec_t step; /* NULL: none yet */
    int64_t limit;        /* of the positions it is for, or that were run to find their sizes */
    int64_t generation;   /* of the workspaces then */
    ganq__message before; /* the thread's when recording began */
} recording;

static void forget(ganq_context *ctx, recording *r) {
    int entered;
    if (r->step && ganq__cuda_enter(ctx, &entered) == GANQ_OK) {
        (void)cudaGraphExecDestroy(r->step);
        ganq__cuda_leave(entered);
    }
    r->step = NULL;
}

/* A step that cannot be recorded (another thread waited for the device meanwhile, or there is no memory for a graph) is
 * run, as is the next one: should that fail too, its error is the one that counts. */
static ganq_status run_instead(recording *r) {
    ganq__message_restore(&r->before);
    r->limit = 0;
    return GANQ_OK;
}

static ganq_status cuda_step_begin(ganq_context *ctx, void **slot, int64_t position,
                                   int *replayed) {
    const ganq__cuda *cuda = ganq__cuda_of(ctx);
    recording *r = *slot;
    const int64_t limit = limit_of(position);
    *replayed = 0;
    if (!r) {
        GANQ_ALLOC(r, 1);
        *r = (recording){0};
        *slot = r;
    }
    if (r->limit != limit || r->generation != cuda->generation) {
        forget(ctx, r);
        r->limit = limit;
        return GANQ_OK;
    }
    if (!r->step) {
        ganq__message_keep(&r->before);
        return ganq__cuda_record_begin(ctx) == GANQ_OK ? GANQ_OK : run_instead(r);
    }
    GANQ_CUDA_RUN(ctx, cudaGraphLaunch(r->step, cuda->stream));
    *replayed = 1;
    return GANQ_OK;
}

/* What was recorded becomes r->step, and goes to work for the first time. */
static ganq_status launch_recorded(ganq_context *ctx, recording *r, cudaGraph_t graph) {
    cudaGraphExec_t step = NULL;
    int entered;
    ganq_status status;
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    GANQ_CUDA_TRY_GOTO(leave, cudaGraphInstantiate(&step, graph, 0));
    GANQ_CUDA_TRY_GOTO(destroy, cudaGraphLaunch(step, ganq__cuda_of(ctx)->stream));
    r->step = step;
    goto leave;
destroy:
    (void)cudaGraphExecDestroy(step);
leave:
    ganq__cuda_leave(entered);
    return status;
}

/* Ends the recording, of which nothing has run yet; status: of the operations. */
static ganq_status end_recording(ganq_context *ctx, recording *r, ganq_status status) {
    cudaGraph_t graph;
    const ganq_status ended = ganq__cuda_record_end(ctx, &graph);
    status = status == GANQ_OK ? ended : status;
    if (status == GANQ_OK)
        status = launch_recorded(ctx, r, graph);
    if (graph)
        (void)cudaGraphDestroy(graph);
    return status;
}

static ganq_status cuda_step_end(ganq_context *ctx, void **slot, ganq_status status, int *again) {
    const ganq__cuda *cuda = ganq__cuda_of(ctx);
    recording *r = *slot;
    *again = 0;
    if (!cuda->recording) {
        r->generation = status == GANQ_OK ? cuda->generation : -1;
        return status;
    }
    if (end_recording(ctx, r, status) == GANQ_OK)
        return GANQ_OK;
    *again = 1;
    return run_instead(r);
}

static void cuda_step_forget(ganq_context *ctx, void *slot) {
    if (!slot)
        return;
    forget(ctx, slot);
    ganq__free(slot);
}

const ganq__model_ops ganq__model_ops_cuda = {
    .embed = cuda_embed,
    .rms_norm = cuda_rms_norm,
    .add_norm = cuda_add_norm,
    .layer_norm = cuda_layer_norm,
    .heads = cuda_heads,
    .attention = cuda_attention,
    .heads_attention = cuda_heads_attention,
    .swiglu = cuda_swiglu,
    .relu = cuda_relu,
    .add = cuda_add,
    .argmax = cuda_argmax,
    .step_begin = cuda_step_begin,
    .step_end = cuda_step_end,
    .step_forget = cuda_step_forget,
};
