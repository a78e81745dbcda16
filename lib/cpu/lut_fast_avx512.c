/* lut_fast_avx512.c - Y[M,N] = X[M,K] * W~[N,K]^T + bias in fixed point, for GANQ_NUMERICS_FAST,
 * with AVX-512 (F, BW, VL, VNNI).
 *
 * Numbers  A row's table as 16-bit integers with one f32 scale, a row of X as 16-bit integers with
 *          one f32 scale per 128 columns, both up to 16383: the eight products that meet in a
 *          32-bit lane over 128 columns stay below 2^31. Sums beyond 128 columns, outliers and
 *          bias are f32. X is converted once per call. NaN and infinity make the scale of their
 *          128 columns NaN. 128 columns of X that have nothing above 2^-100 count as zero.
 * Lookup   vpermw looks up 32 weights by the lowest five bits of each index, in a table repeated to
 *          32 entries; otherwise as in lut_gemm_avx512.c. vpdpwssd multiplies and adds them.
 * Rows     Four of W and up to four of X at a time: sixteen integer sums in registers; the f32
 *          sums, wanted once per 128 columns, are on the stack where they do not fit. More rows of
 *          X in passes over 16 rows of W, whose codes then come from the second-level cache.
 * Order    An element's sum depends on K alone: not on M, threads or place.
 * Bound    docs/kernels.md. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "alloc.h"
#include "cpu.h"
#include "lanes.h"
#include "layer.h"
#include "lut_blocked.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    GROUP = GANQ__GROUP,
    SEGMENT = 128, /* columns of X with one scale */
    CHUNK = 256,   /* two segments; whole blocks of codes at any number of bits */
    MAX_R = 4,
    MAX_M = 4,
    LIMIT = 16383,
    ITEM_ROWS = 16, /* rows of W per item */
    TOKENS = 128,   /* rows of X that are converted at a time */
    SERIAL_WORK = 1 << 15
};

typedef struct fast_job {
    ganq__lut_product p;
    int64_t padded;  /* K, rounded up to segments */
    int16_t *values; /* [M, padded], zeros beyond K */
    float *scales;   /* [M, padded / SEGMENT] */
} fast_job;

/* ---- X to fixed point ---- */

static void convert_row(void *user, int64_t m, int worker) {
    const fast_job *job = user;
    const int64_t K = job->p.layer->K;
    const float *x = job->p.x + m * job->p.ldx;
    int16_t *values = job->values + m * job->padded;
    float *scales = job->scales + m * (job->padded / SEGMENT);
    (void)worker;
    for (int64_t k = 0; k < K; k += SEGMENT) {
        __m512 v[SEGMENT / 16];
        __m512i largest = _mm512_setzero_si512(); /* as integers: NaN is above infinity */
#pragma GCC unroll 8
        for (int i = 0; i < SEGMENT / 16; i++) {
            const int64_t rest = K - k - 16 * i;
            const int lanes = rest >= 16 ? 0xffff : rest > 0 ? (1 << rest) - 1 : 0;
            v[i] = _mm512_maskz_loadu_ps((__mmask16)lanes, x + k + 16 * i);
            largest = _mm512_max_epu32(largest, _mm512_castps_si512(_mm512_abs_ps(v[i])));
        }
        const uint32_t bits = _mm512_reduce_max_epu32(largest);
        float max;
        memcpy(&max, &bits, sizeof max);
        const int usable = max >= 0x1p-100f && max < INFINITY;
        *scales++ = usable ? max / LIMIT : max < 1 ? 0 : NAN;
        const __m512 factor = _mm512_set1_ps(usable ? LIMIT / max : 0);
#pragma GCC unroll 8
        for (int i = 0; i < SEGMENT / 16; i++)
            _mm256_storeu_si256(
                (__m256i *)(values + k + 16 * i),
                _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(v[i], factor))));
    }
}

/* ---- codes: 32 columns, an index for vpermw ---- */

INLINE __m512i widen(const uint8_t *p) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p));
}

/* Slot s of a block, see lanes.h. Bits above the code are left in where the tables ignore them; at
 * 2 bits an odd slot's code is the upper half of the nibble. */
INLINE __m512i slot_index(const uint8_t *block, const int s, const int bits) {
    if (bits == 4)
        return s ? _mm512_srli_epi16(widen(block), 4) : widen(block);
    if (bits == 2)
        return s >= 2 ? _mm512_srli_epi16(widen(block), 4) : widen(block);
    if (s < 6)
        return s % 2 ? _mm512_srli_epi16(widen(block + s / 2 * 32), 3) : widen(block + s / 2 * 32);
    const __m512i upper = _mm512_srli_epi16(widen(block + (s - 6) * 32), 5);
    const __m512i lowest = _mm512_srli_epi16(widen(block + 64), (unsigned)s);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi16(6), upper, lowest, 0xca); /* 6 ? : */
}

/* A group of bit planes. */
INLINE __m512i group_index(const uint8_t *group, const int bits) {
    __m512i index = _mm512_setzero_si512();
    for (int b = 0; b < bits; b++) {
        uint32_t plane;
        memcpy(&plane, group + 4 * b, sizeof plane);
        const __m512i bit = _mm512_set1_epi16((short)(1 << b));
        index = _mm512_or_si512(index, _mm512_maskz_mov_epi16(plane, bit));
    }
    return index;
}

/* Of one row: the entry for the lowest bits of an index; at 2 bits `upper` is that for bits 3..2.
 */
typedef struct table {
    __m512i lowest, upper;
    float scale;
} table;

INLINE table load_table(const ganq_layer *layer, int64_t n, const int bits) {
    const float *t = layer->lut + (n << bits);
    const __m512 entries = bits == 4   ? _mm512_loadu_ps(t)
                           : bits == 3 ? _mm512_castps256_ps512(_mm256_loadu_ps(t))
                                       : _mm512_castps128_ps512(_mm_loadu_ps(t));
    const __m512i all =
        _mm512_and_si512(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32((1 << bits) - 1));
    const __m512 repeated = _mm512_permutexvar_ps(all, entries);
    const float max = _mm512_reduce_max_ps(_mm512_abs_ps(repeated));
    const int usable = max >= 0x1p-100f;
    const __m512 scaled = _mm512_mul_ps(repeated, _mm512_set1_ps(usable ? LIMIT / max : 0));
    const __m256i half = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(scaled));
    table result = {.lowest = _mm512_broadcast_i64x4(half), .scale = usable ? max / LIMIT : 0};
    if (bits == 2) {
        const __m512i pairs =
            _mm512_set_epi64(0x0003000300030003, 0x0002000200020002, 0x0001000100010001, 0,
                             0x0003000300030003, 0x0002000200020002, 0x0001000100010001, 0);
        result.upper = _mm512_permutexvar_epi16(pairs, result.lowest);
    }
    return result;
}

/* ---- products ---- */

/* 32 columns: acc[r][m] += w[r] * x[m], two products to a lane. */
INLINE void multiply_32(const __m512i w[MAX_R], const int16_t *x, int64_t ldx,
                        __m512i (*acc)[MAX_M], const int M, const int R) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        const __m512i v = _mm512_loadu_si512(x + m * ldx);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            acc[r][m] = _mm512_dpwssd_epi32(acc[r][m], w[r], v);
    }
}

/* The end of a segment: its sums in f32 with X's scale; the integer sums begin again. */
INLINE void close_segment(__m512i (*acc)[MAX_M], __m512 (*sums)[MAX_M], const float *scales,
                          int64_t lds, const int M, const int R) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        const __m512 scale = _mm512_set1_ps(scales[m * lds]);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            sums[r][m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][m]), scale, sums[r][m]);
            acc[r][m] = _mm512_setzero_si512();
        }
    }
}

static void finish(const ganq__lut_product *p, int64_t n, int M, int R, float sums[MAX_R][MAX_M]) {
    for (int m = 0; m < M; m++)
        for (int r = 0; r < R; r++)
            p->y[m * p->ldy + n + r] = ganq__lut_finish(p, n + r, m, sums[r][m]);
}

/* Rows [n, n + R) of W with M rows of X. */
INLINE void rows_fast(const fast_job *job, int64_t n, const int bits, const int M, const int R) {
    const ganq_layer *layer = job->p.layer;
    const int slots = bits == 4 ? 2 : bits == 2 ? 4 : 8;
    const int64_t K = layer->K, ldx = job->padded, lds = job->padded / SEGMENT;
    const int64_t row_bytes = layer->row_bytes;
    const uint8_t *p = ganq__layer_lanes(layer, n);
    const int16_t *x = job->values;
    const float *scales = job->scales;
    table t[MAX_R];
    __m512i acc[MAX_R][MAX_M], w[MAX_R];
    __m512 sums[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        t[r] = load_table(layer, n + r, bits);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
            acc[r][m] = _mm512_setzero_si512();
            sums[r][m] = _mm512_setzero_ps();
        }
    }
    int64_t k = 0;
    for (; k + CHUNK <= K; k += CHUNK, p += CHUNK / 8 * bits, x += CHUNK, scales += 2) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) /* the next rows; never faults */
            for (int line = 0; line < CHUNK / 8 * bits; line += 64)
                _mm_prefetch((const char *)p + (R + r) * row_bytes + line, _MM_HINT_T1);
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK / GROUP; i++) {
            const uint8_t *block = p + i / slots * (4 * bits * slots);
            const int s = i % slots;
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                w[r] = _mm512_permutexvar_epi16(slot_index(block + r * row_bytes, s, bits),
                                                bits == 2 && s % 2 ? t[r].upper : t[r].lowest);
            multiply_32(w, x + GROUP * i, ldx, acc, M, R);
            if (i % 4 == 3)
                close_segment(acc, sums, scales + i / 4, lds, M, R);
        }
    }
    /* Less than a chunk: what is left of whole blocks (not at 3 bits, where they are chunks), then
     * bit planes. */
    const int64_t in_blocks = bits == 3 ? 0 : (K - k) / (GROUP * slots) * slots;
    const int64_t left = (K - k + GROUP - 1) / GROUP;
    for (int64_t i = 0; i < left; i++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const uint8_t *from = p + r * row_bytes;
            __m512i index;
            if (i < in_blocks)
                index =
                    _mm512_and_si512(_mm512_srl_epi16(widen(from + i / slots * 32),
                                                      _mm_cvtsi32_si128((int)(i % slots) * bits)),
                                     _mm512_set1_epi16((1 << bits) - 1));
            else
                index = group_index(from + i * 4 * bits, bits);
            w[r] = _mm512_permutexvar_epi16(index, t[r].lowest);
        }
        multiply_32(w, x + GROUP * i, ldx, acc, M, R);
        if (i % 4 == 3 || i == left - 1)
            close_segment(acc, sums, scales + i / 4, lds, M, R);
    }
    float totals[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
            totals[r][m] = t[r].scale * _mm512_reduce_add_ps(sums[r][m]);
    finish(&job->p, n, M, R, totals);
}

typedef void (*rows_fn)(const fast_job *job, int64_t first, int64_t end);
#define ROWS(bits, M)                                                                              \
    static void rows_w##bits##_m##M(const fast_job *job, int64_t first, int64_t end) {             \
        for (; first + MAX_R <= end; first += MAX_R)                                               \
            rows_fast(job, first, bits, M, MAX_R);                                                 \
        for (; first < end; first++)                                                               \
            rows_fast(job, first, bits, M, 1);                                                     \
    }
#define ROWS_M(bits)                                                                               \
    ROWS(bits, 1)                                                                                  \
    ROWS(bits, 2)                                                                                  \
    ROWS(bits, 3)                                                                                  \
    ROWS(bits, 4)
ROWS_M(2)
ROWS_M(3)
ROWS_M(4)
/* [bits - 2][M - 1] */
static const rows_fn kernels[3][MAX_M] = {{rows_w2_m1, rows_w2_m2, rows_w2_m3, rows_w2_m4},
                                          {rows_w3_m1, rows_w3_m2, rows_w3_m3, rows_w3_m4},
                                          {rows_w4_m1, rows_w4_m2, rows_w4_m3, rows_w4_m4}};

/* All rows of X in passes of almost the same number. */
static void multiply_item(void *user, int64_t item, int worker) {
    const fast_job *job = user;
    const ganq__lut_product *p = &job->p;
    const int64_t first = item * ITEM_ROWS, passes = (p->M + MAX_M - 1) / MAX_M;
    const int64_t end = first + ITEM_ROWS < p->layer->N ? first + ITEM_ROWS : p->layer->N;
    (void)worker;
    for (int64_t pass = 0; pass < passes; pass++) {
        const int64_t done = p->M * pass / passes;
        fast_job part = *job;
        part.p.M = p->M * (pass + 1) / passes - done;
        part.p.x = p->x + done * p->ldx;
        part.p.y = p->y + done * p->ldy;
        part.values = job->values + done * job->padded;
        part.scales = job->scales + done * (job->padded / SEGMENT);
        kernels[p->layer->bits - 2][part.p.M - 1](&part, first, end);
    }
}

ganq_status ganq__lut_fast_avx512(ganq_context *ctx, ganq__lut_product product) {
    const ganq_layer *layer = product.layer;
    const int64_t M = product.M, rows = M < TOKENS ? M : TOKENS;
    fast_job job = {.p = product, .padded = (layer->K + SEGMENT - 1) / SEGMENT * SEGMENT};
    const double work = (double)M * (double)layer->N * (double)layer->K;
    ganq__pool *pool = work < SERIAL_WORK ? NULL : ctx->pool;
    ganq_status status = GANQ_OK;
    GANQ_ALLOC_GOTO(done, job.values, (size_t)(rows * job.padded));
    GANQ_ALLOC_GOTO(done, job.scales, (size_t)(rows * (job.padded / SEGMENT)));
    for (int64_t m = 0; m < M; m += TOKENS) {
        job.p.M = M - m < TOKENS ? M - m : TOKENS;
        ganq__parallel_for(job.p.M > 1 ? pool : NULL, job.p.M, convert_row, &job);
        ganq__parallel_for(pool, (layer->N + ITEM_ROWS - 1) / ITEM_ROWS, multiply_item, &job);
        job.p.x += TOKENS * job.p.ldx;
        job.p.y += TOKENS * job.p.ldy;
    }
done:
    ganq__free(job.values);
    ganq__free(job.scales);
    return status;
}
