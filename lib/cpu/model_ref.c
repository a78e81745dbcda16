/* model_ref.c - norms, rotary positions, attention and SwiGLU in plain C: what the other files of
 * this family are checked against, and what runs on processors that none of them is for.
 *
 * Parallel items are whole tokens, or runs of elements of a fixed length, so that results do not
 * depend on the number of threads. */
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "dtype.h"
#include "half.h"
#include "model_ops.h"
#include "model_ref.h"

enum {
    TOKENS = 16,   /* per item of the norms and of RoPE           */
    RUN = 1 << 14, /* elements per item of elementwise operations */
    KEYS = 64      /* per step of the attention                   */
};

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static int64_t min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

typedef struct embed_job {
    int64_t M, D;
    const int32_t *ids;
    const char *weight;
    int32_t dtype;
    float *h;
} embed_job;

static void embed_item(void *user, int64_t item, int worker) {
    const embed_job *job = user;
    const size_t row_bytes = (size_t)job->D * ganq__dtype_size(job->dtype);
    (void)worker;
    for (int64_t m = item * TOKENS; m < min(job->M, (item + 1) * TOKENS); m++)
        ganq__to_f32(job->h + m * job->D, job->weight + (size_t)job->ids[m] * row_bytes, job->dtype,
                     job->D);
}

ganq_status ganq__model_embed__ref(ganq_context *ctx, int64_t M, int64_t D, const int32_t *ids,
                                   const void *weight, int32_t dtype, float *h) {
    embed_job job = {M, D, ids, weight, dtype, h};
    ganq__parallel_for(ctx->pool, ceil_div(M, TOKENS), embed_item, &job);
    return GANQ_OK;
}

/* x is the input, or with `added` the sum x + added, which is kept in `sum`. */
typedef struct norm_job {
    int64_t M, D, ldx, ldy;
    const float *x, *added;
    float *sum;
    const float *weight;
    float eps;
    float *y;
} norm_job;

static void norm_row(int64_t D, const float *x, const float *weight, float eps, float *y) {
    double squares = 0;
    for (int64_t d = 0; d < D; d++)
        squares += (double)x[d] * x[d];
    float scale = (float)(1 / sqrt(squares / (double)D + eps));
    for (int64_t d = 0; d < D; d++)
        y[d] = x[d] * scale * weight[d];
}

static void norm_item(void *user, int64_t item, int worker) {
    const norm_job *job = user;
    (void)worker;
    for (int64_t m = item * TOKENS; m < min(job->M, (item + 1) * TOKENS); m++) {
        const float *x = job->x + m * job->ldx;
        if (job->added) {
            float *sum = job->sum + m * job->D;
            for (int64_t d = 0; d < job->D; d++)
                sum[d] = x[d] + job->added[m * job->D + d];
            x = sum;
        }
        norm_row(job->D, x, job->weight, job->eps, job->y + m * job->ldy);
    }
}

static ganq_status rms_norm(ganq_context *ctx, int64_t M, int64_t D, const float *x, int64_t ldx,
                            const float *weight, float eps, float *y, int64_t ldy) {
    norm_job job = {M, D, ldx, ldy, x, NULL, NULL, weight, eps, y};
    ganq__parallel_for(ctx->pool, ceil_div(M, TOKENS), norm_item, &job);
    return GANQ_OK;
}

static ganq_status add_norm(ganq_context *ctx, int64_t M, int64_t D, const float *a, const float *b,
                            float *sum, const float *weight, float eps, float *y) {
    norm_job job = {M, D, D, D, a, b, sum, weight, eps, y};
    ganq__parallel_for(ctx->pool, ceil_div(M, TOKENS), norm_item, &job);
    return GANQ_OK;
}

typedef struct layer_norm_job {
    int64_t M, D;
    const float *x, *weight, *bias;
    float eps, *y;
} layer_norm_job;

static void layer_norm_item(void *user, int64_t item, int worker) {
    const layer_norm_job *job = user;
    const int64_t D = job->D;
    (void)worker;
    for (int64_t m = item * TOKENS; m < min(job->M, (item + 1) * TOKENS); m++) {
        const float *x = job->x + m * D;
        float *y = job->y + m * D;
        double sum = 0, squares = 0;
        for (int64_t d = 0; d < D; d++)
            sum += x[d];
        const double mean = sum / (double)D;
        for (int64_t d = 0; d < D; d++)
            squares += (x[d] - mean) * (x[d] - mean);
        const float middle = (float)mean,
                    scale = (float)(1 / sqrt(squares / (double)D + job->eps));
        for (int64_t d = 0; d < D; d++)
            y[d] = (x[d] - middle) * scale * job->weight[d] + job->bias[d];
    }
}

ganq_status ganq__model_layer_norm__ref(ganq_context *ctx, int64_t M, int64_t D, const float *x,
                                        const float *weight, const float *bias, float eps,
                                        float *y) {
    layer_norm_job job = {M, D, x, weight, bias, eps, y};
    ganq__parallel_for(ctx->pool, ceil_div(M, TOKENS), layer_norm_item, &job);
    return GANQ_OK;
}

typedef struct relu_job {
    int64_t count;
    float *x;
} relu_job;

static void relu_item(void *user, int64_t item, int worker) {
    const relu_job *job = user;
    (void)worker;
    for (int64_t i = item * RUN; i < min(job->count, (item + 1) * RUN); i++)
        job->x[i] = job->x[i] < 0 ? 0 : job->x[i];
}

ganq_status ganq__model_relu__ref(ganq_context *ctx, int64_t count, float *x) {
    relu_job job = {count, x};
    ganq__parallel_for(ctx->pool, ceil_div(count, RUN), relu_item, &job);
    return GANQ_OK;
}

/* Elements [at, at + count) of a cache. */
static void store(void *cache, int32_t dtype, int64_t at, const float *x, int64_t count) {
    const float largest = 65504; /* of F16; NaN and infinity stay */
    if (dtype == GANQ_DTYPE_F32)
        memcpy((float *)cache + at, x, (size_t)count * sizeof *x);
    else
        for (int64_t i = 0; i < count; i++)
            ((uint16_t *)cache)[at + i] = ganq__f32_to_f16(isinf(x[i])         ? x[i]
                                                           : x[i] > largest    ? largest
                                                           : x[i] < -largest ? -largest
                                                                             : x[i]);
}

static float load(const void *cache, int32_t dtype, int64_t at) {
    return dtype == GANQ_DTYPE_F32 ? ((const float *)cache)[at]
                                   : ganq__f16_to_f32(((const uint16_t *)cache)[at]);
}

/* One head [2*half] from x to y, which may be x. */
static void turn(int64_t half, const float *c, const float *s, const float *x, float *y) {
    for (int64_t d = 0; d < half; d++) {
        float low = x[d], high = x[half + d];
        y[d] = low * c[d] - high * s[d];
        y[half + d] = high * c[d] + low * s[d];
    }
}

static void heads_item(void *user, int64_t item, int worker) {
    const ganq__heads *a = user;
    const int64_t dim = a->head_dim, half = dim / 2;
    (void)worker;
    for (int64_t m = item * TOKENS; m < min(a->M, (item + 1) * TOKENS); m++) {
        const int64_t position = a->position + m;
        const float *c = a->cosines + position * half, *s = a->sines + position * half;
        for (int64_t head = 0; head < a->heads; head++) {
            float *q = a->q + (m * a->heads + head) * dim;
            if (a->q_norm)
                norm_row(dim, q, a->q_norm, a->eps, q);
            turn(half, c, s, q, q);
        }
        for (int64_t head = 0; head < a->kv_heads; head++) {
            const int64_t from = (m * a->kv_heads + head) * dim;
            const int64_t to = (head * a->capacity + position) * dim;
            if (a->k_norm)
                norm_row(dim, a->k + from, a->k_norm, a->eps, a->k + from);
            turn(half, c, s, a->k + from, a->k + from);
            store(a->keys, a->cache_dtype, to, a->k + from, dim);
            store(a->values, a->cache_dtype, to, a->v + from, dim);
        }
    }
}

static ganq_status heads(ganq_context *ctx, const ganq__heads *a) {
    ganq__heads job = *a;
    ganq__parallel_for(ctx->pool, ceil_div(a->M, TOKENS), heads_item, &job);
    return GANQ_OK;
}

/* One query of one head, softmax(scale q.K) V in one pass over the keys: whenever a step of keys
 * raises the maximum of the scores, what was summed so far is scaled down to it. */
static void attend_query(const ganq__attention *a, int64_t m, int64_t head) {
    const int64_t dim = a->head_dim, last = a->position + m;
    const int64_t first = a->window > 0 && last >= a->window ? last - a->window + 1 : 0;
    const int64_t offset = head / (a->heads / a->kv_heads) * a->capacity * dim;
    const float *q = a->q + (m * a->heads + head) * dim;
    float *out = a->out + (m * a->heads + head) * dim;
    float best = -INFINITY, total = 0;
    for (int64_t d = 0; d < dim; d++)
        out[d] = 0;
    for (int64_t start = first; start <= last; start += KEYS) {
        const int64_t count = min(KEYS, last - start + 1);
        const int64_t at = offset + start * dim;
        float scores[KEYS], step_best = best;
        for (int64_t j = 0; j < count; j++) {
            float dot = 0;
            for (int64_t d = 0; d < dim; d++)
                dot += q[d] * load(a->keys, a->cache_dtype, at + j * dim + d);
            scores[j] = dot * a->scale;
            step_best = fmaxf(step_best, scores[j]);
        }
        if (step_best > best) {
            float shrink = expf(best - step_best); /* 0 at the first step */
            total *= shrink;
            for (int64_t d = 0; d < dim; d++)
                out[d] *= shrink;
            best = step_best;
        }
        for (int64_t j = 0; j < count; j++) {
            float weight = expf(scores[j] - best);
            total += weight;
            for (int64_t d = 0; d < dim; d++)
                out[d] += weight * load(a->values, a->cache_dtype, at + j * dim + d);
        }
    }
    for (int64_t d = 0; d < dim; d++)
        out[d] /= total;
}

static void attention_item(void *user, int64_t item, int worker) {
    const ganq__attention *a = user;
    const int64_t head = item % a->heads, tile = item / a->heads;
    (void)worker;
    for (int64_t m = tile * TOKENS; m < min(a->M, (tile + 1) * TOKENS); m++)
        attend_query(a, m, head);
}

static ganq_status attention(ganq_context *ctx, const ganq__attention *a) {
    ganq__attention job = *a;
    ganq__parallel_for(ctx->pool, ceil_div(a->M, TOKENS) * a->heads, attention_item, &job);
    return GANQ_OK;
}

typedef struct run_job {
    int64_t count;
    const float *a, *b;
    float *y;
} run_job;

static void swiglu_item(void *user, int64_t item, int worker) {
    const run_job *job = user;
    (void)worker;
    for (int64_t i = item * RUN; i < min(job->count, (item + 1) * RUN); i++)
        job->y[i] = job->a[i] / (1 + expf(-job->a[i])) * job->b[i];
}

static ganq_status swiglu(ganq_context *ctx, int64_t count, float *gate, const float *up) {
    run_job job = {count, gate, up, gate};
    ganq__parallel_for(ctx->pool, ceil_div(count, RUN), swiglu_item, &job);
    return GANQ_OK;
}

static void add_item(void *user, int64_t item, int worker) {
    const run_job *job = user;
    (void)worker;
    for (int64_t i = item * RUN; i < min(job->count, (item + 1) * RUN); i++)
        job->y[i] = job->a[i] + job->b[i];
}

ganq_status ganq__model_add__ref(ganq_context *ctx, int64_t count, const float *a, const float *b,
                                 float *y) {
    run_job job = {count, a, b, y};
    ganq__parallel_for(ctx->pool, ceil_div(count, RUN), add_item, &job);
    return GANQ_OK;
}

const ganq__model_ops ganq__model_ops_ref = {
    .embed = ganq__model_embed__ref,
    .rms_norm = rms_norm,
    .add_norm = add_norm,
    .layer_norm = ganq__model_layer_norm__ref,
    .heads = heads,
    .attention = attention,
    .swiglu = swiglu,
    .relu = ganq__model_relu__ref,
    .add = ganq__model_add__ref,
};
