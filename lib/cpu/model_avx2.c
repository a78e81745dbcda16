/* model_avx2.c - norms, RoPE, attention and SwiGLU in f32 with AVX2 and FMA; the rest is the
 * reference's.
 *
 * Work       items: 16 tokens (norms, RoPE), a head of 16 queries or some heads of one query
 *            (attention), 16384 elements (SwiGLU)
 * Attention  keys in steps that end at multiples of 64: the scores of a step stay in L1, and the
 *            queries or heads of an item read a step of keys and values from L1 or L2. The steps of
 *            a query depend on its position alone, so that prefill and single steps sum in the
 *            same order.
 * Limits     any head_dim and D; what does not fill a vector is done element by element */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "model_ops.h"
#include "model_ref.h"

enum {
    TOKENS = 16,   /* per item of the norms, queries per item of the attention */
    RUN = 1 << 14, /* elements per item of SwiGLU, a multiple of 8             */
    KEYS = 64      /* per step of the attention                                */
};

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static int64_t min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static inline float sum_of(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

static inline float max_of(__m256 v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/* e^x = 2^n e^r with n the nearest integer to x/ln 2 and a polynomial of degree 6 in |r| <= ln2/2;
 * relative error below 2e-7. Below -87.3 it is 0, above 88 it stays finite; NaN stays NaN. */
static inline __m256 exp8(__m256 x) {
    const __m256 lowest = _mm256_set1_ps(-87.3f);
    const __m256 keep = _mm256_cmp_ps(x, lowest, _CMP_NLT_UQ);
    x = _mm256_max_ps(lowest, _mm256_min_ps(_mm256_set1_ps(88.0f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* ln 2 in two parts, the first with few enough bits that n times it is exact */
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 720);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    return _mm256_and_ps(_mm256_mul_ps(p, power), keep);
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

static void add_row(int64_t D, const float *a, const float *b, float *sum) {
    int64_t d = 0;
    for (; d + 8 <= D; d += 8)
        _mm256_storeu_ps(sum + d, _mm256_add_ps(_mm256_loadu_ps(a + d), _mm256_loadu_ps(b + d)));
    for (; d < D; d++)
        sum[d] = a[d] + b[d];
}

static void norm_row(int64_t D, const float *x, const float *weight, float eps, float *y) {
    __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    int64_t d = 0;
    for (; d + 16 <= D; d += 16) {
        __m256 a = _mm256_loadu_ps(x + d), b = _mm256_loadu_ps(x + d + 8);
        even = _mm256_fmadd_ps(a, a, even);
        odd = _mm256_fmadd_ps(b, b, odd);
    }
    float squares = sum_of(_mm256_add_ps(even, odd));
    for (; d < D; d++)
        squares += x[d] * x[d];
    const float scale = 1 / sqrtf(squares / (float)D + eps);
    const __m256 scales = _mm256_set1_ps(scale);
    for (d = 0; d + 8 <= D; d += 8) {
        __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + d), scales);
        _mm256_storeu_ps(y + d, _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + d)));
    }
    for (; d < D; d++)
        y[d] = x[d] * scale * weight[d];
}

static void norm_item(void *user, int64_t item, int worker) {
    const norm_job *job = user;
    (void)worker;
    for (int64_t m = item * TOKENS; m < min(job->M, (item + 1) * TOKENS); m++) {
        const float *x = job->x + m * job->ldx;
        if (job->added) {
            float *sum = job->sum + m * job->D;
            add_row(job->D, x, job->added + m * job->D, sum);
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

/* One head [2*half] from x to y, which may be x. Products and sums are rounded apart, so that the
 * rest is the same arithmetic. */
static void turn(int64_t half, const float *c, const float *s, const float *x, float *y) {
    int64_t d = 0;
    for (; d + 8 <= half; d += 8) {
        const __m256 low = _mm256_loadu_ps(x + d), high = _mm256_loadu_ps(x + half + d);
        const __m256 cosine = _mm256_loadu_ps(c + d), sine = _mm256_loadu_ps(s + d);
        _mm256_storeu_ps(y + d,
                         _mm256_sub_ps(_mm256_mul_ps(low, cosine), _mm256_mul_ps(high, sine)));
        _mm256_storeu_ps(y + half + d,
                         _mm256_add_ps(_mm256_mul_ps(high, cosine), _mm256_mul_ps(low, sine)));
    }
    for (; d < half; d++) {
        const float low = x[d], high = x[half + d];
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
            turn(half, c, s, a->k + from, a->keys + to);
            memcpy(a->values + to, a->v + from, (size_t)dim * sizeof *a->v);
        }
    }
}

static ganq_status heads(ganq_context *ctx, const ganq__heads *a) {
    ganq__heads job = *a;
    ganq__parallel_for(ctx->pool, ceil_div(a->M, TOKENS), heads_item, &job);
    return GANQ_OK;
}

/* scores[0..7] = q . keys[j], eight keys side by side to keep both FMA pipes busy. */
static inline void dot_8_keys(const float *q, const float *keys, int64_t dim, float *scores) {
    __m256 sum[8];
    int64_t d = 0;
    for (int j = 0; j < 8; j++)
        sum[j] = _mm256_setzero_ps();
    for (; d + 8 <= dim; d += 8) {
        const __m256 part = _mm256_loadu_ps(q + d);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            sum[j] = _mm256_fmadd_ps(part, _mm256_loadu_ps(keys + j * dim + d), sum[j]);
    }
    const __m256 low =
        _mm256_hadd_ps(_mm256_hadd_ps(sum[0], sum[1]), _mm256_hadd_ps(sum[2], sum[3]));
    const __m256 high =
        _mm256_hadd_ps(_mm256_hadd_ps(sum[4], sum[5]), _mm256_hadd_ps(sum[6], sum[7]));
    /* low: keys 0..3 of dimensions 0..3 in its first half, of 4..7 in its second */
    _mm256_storeu_ps(scores, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                                           _mm256_permute2f128_ps(low, high, 0x31)));
    for (; d < dim; d++)
        for (int j = 0; j < 8; j++)
            scores[j] += q[d] * keys[j * dim + d];
}

static inline float dot_key(const float *q, const float *key, int64_t dim) {
    __m256 sum = _mm256_setzero_ps();
    int64_t d = 0;
    for (; d + 8 <= dim; d += 8)
        sum = _mm256_fmadd_ps(_mm256_loadu_ps(q + d), _mm256_loadu_ps(key + d), sum);
    float dot = sum_of(sum);
    for (; d < dim; d++)
        dot += q[d] * key[d];
    return dot;
}

/* out[0 .. 8 vectors) = shrink * out + weights . values; vectors is a constant at each call. */
static inline void add_values(const float *weights, const float *values, int64_t count, int64_t dim,
                              float shrink, int vectors, float *out) {
    __m256 sum[8];
    for (int i = 0; i < vectors; i++)
        sum[i] = _mm256_mul_ps(_mm256_loadu_ps(out + 8 * i), _mm256_set1_ps(shrink));
    for (int64_t j = 0; j < count; j++) {
        const __m256 weight = _mm256_set1_ps(weights[j]);
#pragma GCC unroll 8
        for (int i = 0; i < vectors; i++)
            sum[i] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(values + j * dim + 8 * i), sum[i]);
    }
    for (int i = 0; i < vectors; i++)
        _mm256_storeu_ps(out + 8 * i, sum[i]);
}

/* The running softmax of one query. */
typedef struct softmax {
    float best, total;
} softmax;

/* One step of at most KEYS keys: out and total are relative to e^best, which may grow. */
static void attend_step(const float *q, const float *keys, const float *values, int64_t count,
                        int64_t dim, float scale, softmax *state, float *out) {
    float scores[KEYS];
    const int64_t padded = (count + 7) & ~INT64_C(7);
    int64_t j = 0, d = 0;
    for (; j + 8 <= count; j += 8)
        dot_8_keys(q, keys + j * dim, dim, scores + j);
    for (; j < count; j++)
        scores[j] = dot_key(q, keys + j * dim, dim);
    for (; j < padded; j++)
        scores[j] = -INFINITY;

    __m256 highest = _mm256_set1_ps(-INFINITY);
    for (j = 0; j < padded; j += 8) {
        __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(scores + j), _mm256_set1_ps(scale));
        highest = _mm256_max_ps(highest, scaled);
        _mm256_storeu_ps(scores + j, scaled);
    }
    const float best = fmaxf(state->best, max_of(highest));
    const float shrink = expf(state->best - best); /* 0 at the first step */
    __m256 total = _mm256_setzero_ps();
    for (j = 0; j < padded; j += 8) {
        __m256 weight = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + j), _mm256_set1_ps(best)));
        total = _mm256_add_ps(total, weight);
        _mm256_storeu_ps(scores + j, weight);
    }
    state->best = best;
    state->total = state->total * shrink + sum_of(total);

    for (; d + 64 <= dim; d += 64)
        add_values(scores, values + d, count, dim, shrink, 8, out + d);
    for (; d + 8 <= dim; d += 8)
        add_values(scores, values + d, count, dim, shrink, 1, out + d);
    for (; d < dim; d++) {
        out[d] *= shrink;
        for (j = 0; j < count; j++)
            out[d] += scores[j] * values[j * dim + d];
    }
}

/* Position of the first key that the query at `position` sees. */
static int64_t first_key(const ganq__attention *a, int64_t position) {
    return a->window > 0 ? max(0, position - a->window + 1) : 0;
}

typedef struct attention_job {
    ganq__attention a;
    int64_t together; /* heads of an item, which share keys and values */
} attention_job;

static void attention_item(void *user, int64_t item, int worker) {
    const attention_job *job = user;
    const ganq__attention *a = &job->a;
    const int64_t dim = a->head_dim, stride = a->heads * dim, parts = a->heads / job->together;
    const int64_t first = item % parts * job->together, last = first + job->together;
    const int64_t begin = item / parts * TOKENS, end = min(a->M, begin + TOKENS);
    const int64_t offset = first / (a->heads / a->kv_heads) * a->capacity * dim;
    const float *keys = a->keys + offset, *values = a->values + offset;
    softmax states[TOKENS];
    (void)worker;
    for (int64_t i = 0; i < (end - begin) * job->together; i++)
        states[i] = (softmax){-INFINITY, 0};
    for (int64_t m = begin; m < end; m++)
        memset(a->out + m * stride + first * dim, 0,
               (size_t)(job->together * dim) * sizeof *a->out);
    for (int64_t start = first_key(a, a->position + begin) / KEYS * KEYS; start < a->position + end;
         start += KEYS)
        for (int64_t m = begin; m < end; m++) {
            const int64_t position = a->position + m;
            const int64_t from = max(start, first_key(a, position));
            const int64_t count = min(start + KEYS, position + 1) - from;
            for (int64_t head = first; head < last && count > 0; head++)
                attend_step(a->q + m * stride + head * dim, keys + from * dim, values + from * dim,
                            count, dim, a->scale,
                            &states[(m - begin) * job->together + head - first],
                            a->out + m * stride + head * dim);
        }
    for (int64_t m = begin; m < end; m++)
        for (int64_t head = first; head < last; head++)
            for (int64_t d = 0; d < dim; d++)
                a->out[m * stride + head * dim + d] /=
                    states[(m - begin) * job->together + head - first].total;
}

/* The queries of an item share keys and values in L1; where there is one query, the heads of a
 * group do, so that memory and L2 give each key once (tinyllama-1.1b, 4 bits, context 1900: 25.8
 * instead of 30.6 ms per token). As many as leave each thread an item. */
static int64_t heads_together(const ganq_context *ctx, const ganq__attention *a) {
    int64_t together = a->M > 1 ? 1 : a->heads / a->kv_heads;
    while (together > TOKENS ||
           (together % 2 == 0 && a->heads / together < ganq__pool_threads(ctx->pool)))
        together = together % 2 == 0 ? together / 2 : 1;
    return together;
}

static ganq_status attention(ganq_context *ctx, const ganq__attention *a) {
    attention_job job = {*a, heads_together(ctx, a)};
    ganq__parallel_for(ctx->pool, ceil_div(a->M, TOKENS) * (a->heads / job.together),
                       attention_item, &job);
    return GANQ_OK;
}

typedef struct swiglu_job {
    int64_t count;
    float *gate;
    const float *up;
} swiglu_job;

static inline __m256 swiglu8(__m256 gate, __m256 up) {
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 power = exp8(_mm256_sub_ps(_mm256_setzero_ps(), gate));
    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(one, power)), up);
}

static void swiglu_item(void *user, int64_t item, int worker) {
    const swiglu_job *job = user;
    const int64_t end = min(job->count, (item + 1) * RUN);
    int64_t i = item * RUN;
    (void)worker;
    for (; i + 8 <= end; i += 8)
        _mm256_storeu_ps(job->gate + i,
                         swiglu8(_mm256_loadu_ps(job->gate + i), _mm256_loadu_ps(job->up + i)));
    if (i == end)
        return;
    /* The rest through the same arithmetic: whether an element is in it depends on M. */
    float gate[8] = {0}, up[8] = {0};
    for (int64_t j = i; j < end; j++) {
        gate[j - i] = job->gate[j];
        up[j - i] = job->up[j];
    }
    _mm256_storeu_ps(gate, swiglu8(_mm256_loadu_ps(gate), _mm256_loadu_ps(up)));
    for (int64_t j = i; j < end; j++)
        job->gate[j] = gate[j - i];
}

static ganq_status swiglu(ganq_context *ctx, int64_t count, float *gate, const float *up) {
    swiglu_job job = {count, gate, up};
    ganq__parallel_for(ctx->pool, ceil_div(count, RUN), swiglu_item, &job);
    return GANQ_OK;
}

const ganq__model_ops ganq__model_ops_avx2 = {
    .embed = ganq__model_embed__ref,
    .rms_norm = rms_norm,
    .add_norm = add_norm,
    .heads = heads,
    .attention = attention,
    .swiglu = swiglu,
    .add = ganq__model_add__ref,
};
