/* lut_fast_neon.c - Y[M,N] = X[M,K] * W~[N,K]^T + bias in fixed point, for GANQ_NUMERICS_FAST, with
 * NEON (64-bit ARM).
 *
 * Numbers  A row's table as 16-bit integers with one f32 scale, a row of X as 16-bit integers with
 *          one f32 scale per 128 columns ("a segment"), both up to 16383. The sum over a segment is
 *          an exact integer; the sums beyond it are f64, outliers and bias f32. X is converted once
 *          per call. NaN and infinity make the scale of their segment NaN. A segment of X that has
 *          nothing above 2^-100 counts as zero. Rows whose table loses too much (layer.h: wide) are
 *          multiplied a second time, with a table of what the first one lacks.
 * Lookup   the table's low bytes and its high bytes, a register each; two tbl and two zips make
 *          sixteen 16-bit weights in column order, four smlal multiply and add them. Eight products
 *          of 16383 * 16383 stay below 2^31, so a lane is widened to 64 bits after eight.
 * M <= 4   weights stay in registers and meet every row of X; sixteen integer sums for four rows of
 *          W and one of X, two and two, or one and up to four.
 * M > 4    eight rows of W, 256 columns at a time, are decoded into 4 KB and meet all rows of X in
 *          tiles of four by two.
 * Order    Integer sums have none: an element's bits depend on its rows alone, not on M, threads or
 *          place. */
#include <math.h>
#include <string.h>

#include "lut_neon.h"

enum {
    GROUP = GANQ__GROUP,
    SEGMENT = 128,
    CHUNK = 256, /* two segments; whole blocks of codes at any number of bits */
    MAX_R = 4,
    SMALL_M = 4,
    LIMIT = GANQ__FIXED_TABLE,
    ITEM_ROWS = 8, /* rows of W per item */
    TOKENS = 128,  /* rows of X that are converted at a time */
    SERIAL_WORK = 1 << 15
};

typedef struct fast_job {
    ganq__lut_product p;
    int64_t padded;  /* K, rounded up to chunks */
    int16_t *values; /* [M, padded], zeros beyond K */
    float *scales;   /* [M, padded / SEGMENT] */
    int second;      /* with the second tables, onto y */
} fast_job;

/* ---- X to fixed point ---- */

INLINE int16x8_t to_fixed(float32x4_t low, float32x4_t high, float factor) {
    const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(low, factor)),
                    b = vcvtnq_s32_f32(vmulq_n_f32(high, factor));
    return vqmovn_high_s32(vqmovn_s32(a), b);
}

/* x [SEGMENT] to values; returns the scale. */
static float convert_segment(const float *x, int16_t *values) {
    uint32x4_t largest = vdupq_n_u32(0); /* as integers: NaN is above infinity */
    for (int i = 0; i < SEGMENT; i += 4)
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    const uint32_t bits = vmaxvq_u32(largest);
    float max;
    memcpy(&max, &bits, sizeof max);
    const int usable = max >= 0x1p-100f && max < INFINITY;
    if (!usable) {
        memset(values, 0, SEGMENT * sizeof *values);
        return max < 1 ? 0 : NAN;
    }
    for (int i = 0; i < SEGMENT; i += 8)
        vst1q_s16(values + i, to_fixed(vld1q_f32(x + i), vld1q_f32(x + i + 4), LIMIT / max));
    return max / LIMIT;
}

static void convert_row(void *user, int64_t m, int worker) {
    const fast_job *job = user;
    const int64_t K = job->p.layer->K;
    const float *x = job->p.x + m * job->p.ldx;
    int16_t *values = job->values + m * job->padded;
    float *scales = job->scales + m * (job->padded / SEGMENT);
    (void)worker;
    for (int64_t k = 0; k < job->padded; k += SEGMENT) {
        float end[SEGMENT] = {0};
        if (k + SEGMENT > K && k < K)
            memcpy(end, x + k, (size_t)(K - k) * sizeof *end);
        *scales++ = convert_segment(k + SEGMENT <= K ? x + k : end, values + k);
    }
}

/* ---- weights ---- */

typedef struct table {
    uint8x16_t low, high;
    float scale;
} table;

INLINE float largest_entry(const float32x4_t e[4]) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(vabsq_f32(e[0]), vabsq_f32(e[1])),
                                vmaxq_f32(vabsq_f32(e[2]), vabsq_f32(e[3]))));
}

/* Row n's table, or the second one: of what the integers of the first one lack. */
INLINE table load_table(const ganq_layer *layer, int64_t n, const int bits, int second) {
    float32x4_t e[4];
    load_entries(layer, n, bits, e);
    float max = largest_entry(e);
    if (second) {
        const float factor = LIMIT / max, scale = max / LIMIT;
        for (int i = 0; i < 4; i++)
            e[i] = vfmsq_n_f32(e[i], vrndnq_f32(vmulq_n_f32(e[i], factor)), scale);
        max = largest_entry(e);
    }
    const int usable = max >= 0x1p-100f;
    const float factor = usable ? LIMIT / max : 0;
    const uint8x16_t first = vreinterpretq_u8_s16(to_fixed(e[0], e[1], factor)),
                     last = vreinterpretq_u8_s16(to_fixed(e[2], e[3], factor));
    return (table){vuzp1q_u8(first, last), vuzp2q_u8(first, last), usable ? max / LIMIT : 0};
}

/* w[0]: columns 0..7 of the sixteen, w[1]: 8..15. */
INLINE void look_up(uint8x16_t codes, const table *t, int16x8_t w[2]) {
    const uint8x16_t low = vqtbl1q_u8(t->low, codes), high = vqtbl1q_u8(t->high, codes);
    w[0] = vreinterpretq_s16_u8(vzip1q_u8(low, high));
    w[1] = vreinterpretq_s16_u8(vzip2q_u8(low, high));
}

/* Groups of 32 columns of a row's last piece, fewer than CHUNK, that are in blocks; the rest are
 * bit planes. At 3 bits a block is a chunk. */
INLINE int64_t groups_in_blocks(int64_t columns, const int bits) {
    const int slots = block_slots(bits);
    return bits == 3 ? 0 : columns / (GROUP * slots) * slots;
}

/* Sixteen columns of group i of a row's last piece at p. */
INLINE uint8x16_t last_codes(const uint8_t *p, int64_t i, const int half, int64_t in_blocks,
                             const int bits) {
    if (i >= in_blocks)
        return group_codes(p + i * 4 * bits, half, bits);
    const int slots = block_slots(bits);
    const uint8x16_t bytes = vld1q_u8(p + i / slots * 32 + 16 * half);
    const int8x16_t shift = vdupq_n_s8((int8_t)(-(i % slots) * bits));
    return vshlq_u8(bytes, shift) & vdupq_n_u8((1 << bits) - 1);
}

/* ---- M <= 4 ---- */

/* Sixteen columns: sixteen lanes of integer sums. */
INLINE void multiply_16(const int16x8_t w[2], const int16_t *x, int64_t ldx, int32x4_t (*acc)[4],
                        const int M) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        const int16x8_t x0 = vld1q_s16(x + m * ldx), x1 = vld1q_s16(x + m * ldx + 8);
        acc[m][0] = vmlal_s16(acc[m][0], vget_low_s16(w[0]), vget_low_s16(x0));
        acc[m][1] = vmlal_high_s16(acc[m][1], w[0], x0);
        acc[m][2] = vmlal_s16(acc[m][2], vget_low_s16(w[1]), vget_low_s16(x1));
        acc[m][3] = vmlal_high_s16(acc[m][3], w[1], x1);
    }
}

/* The end of a segment: its sums with X's scale; the integer sums begin again. */
INLINE void close_segment(int32x4_t (*acc)[4], double *sums, const float *scales, int64_t lds,
                          const int M) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        int64x2_t wide = vpaddlq_s32(acc[m][0]);
        wide = vpadalq_s32(wide, acc[m][1]);
        wide = vpadalq_s32(wide, acc[m][2]);
        wide = vpadalq_s32(wide, acc[m][3]);
        sums[m] = fma((double)vaddvq_s64(wide), scales[m * lds], sums[m]);
        acc[m][0] = acc[m][1] = acc[m][2] = acc[m][3] = vdupq_n_s32(0);
    }
}

/* y[m,n] from row n's sum over the codes, or more of it. */
INLINE void finish(const fast_job *job, int64_t n, int64_t m, float sum) {
    float *y = job->p.y + m * job->p.ldy + n;
    *y = job->second ? *y + sum : ganq__lut_finish(&job->p, n, m, sum);
}

/* Rows [n, n + R) of W with M rows of X. */
INLINE void rows_small(const fast_job *job, int64_t n, const int bits, const int M, const int R) {
    const ganq_layer *layer = job->p.layer;
    const int slots = block_slots(bits);
    const int64_t K = layer->K, ldx = job->padded, lds = job->padded / SEGMENT;
    const int64_t row_bytes = layer->row_bytes;
    const uint8_t *p = ganq__layer_lanes(layer, n);
    const int16_t *x = job->values;
    const float *scales = job->scales;
    table t[MAX_R];
    int32x4_t acc[MAX_R][SMALL_M][4];
    int16x8_t w[2];
    double sums[MAX_R][SMALL_M] = {{0}};
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        t[r] = load_table(layer, n + r, bits, job->second);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
            acc[r][m][0] = acc[r][m][1] = acc[r][m][2] = acc[r][m][3] = vdupq_n_s32(0);
    }
    int64_t k = 0;
    for (; k + CHUNK <= K; k += CHUNK, p += CHUNK / 8 * bits, x += CHUNK, scales += 2)
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK / GROUP; i++) {
            const uint8_t *block = p + i / slots * (4 * bits * slots);
            for (int half = 0; half < 2; half++)
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    look_up(slot_codes(block + r * row_bytes + 16 * half, i % slots, bits), &t[r],
                            w);
                    multiply_16(w, x + GROUP * i + 16 * half, ldx, acc[r], M);
                }
            if (i % 4 == 3)
#pragma GCC unroll 4
                for (int r = 0; r < R; r++)
                    close_segment(acc[r], sums[r], scales + i / 4, lds, M);
        }
    const int64_t in_blocks = groups_in_blocks(K - k, bits), left = (K - k + GROUP - 1) / GROUP;
    for (int64_t i = 0; i < left; i++) {
        for (int half = 0; half < 2; half++)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                look_up(last_codes(p + r * row_bytes, i, half, in_blocks, bits), &t[r], w);
                multiply_16(w, x + GROUP * i + 16 * half, ldx, acc[r], M);
            }
        if (i % 4 == 3 || i == left - 1)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                close_segment(acc[r], sums[r], scales + i / 4, lds, M);
    }
    for (int r = 0; r < R; r++)
        for (int m = 0; m < M; m++)
            finish(job, n + r, m, (float)(t[r].scale * sums[r][m]));
}

typedef void (*rows_fn)(const fast_job *job, int64_t first, int64_t end);
#define ROWS(bits, M, R)                                                                           \
    static void rows_w##bits##_m##M(const fast_job *job, int64_t first, int64_t end) {             \
        for (; first + R <= end; first += R)                                                       \
            rows_small(job, first, bits, M, R);                                                    \
        for (; first < end; first++)                                                               \
            rows_small(job, first, bits, M, 1);                                                    \
    }
#define ROWS_M(bits)                                                                               \
    ROWS(bits, 1, 4)                                                                               \
    ROWS(bits, 2, 2)                                                                               \
    ROWS(bits, 3, 1)                                                                               \
    ROWS(bits, 4, 1)
ROWS_M(2)
ROWS_M(3)
ROWS_M(4)
/* [bits - 2][M - 1] */
static const rows_fn small_kernels[3][SMALL_M] = {{rows_w2_m1, rows_w2_m2, rows_w2_m3, rows_w2_m4},
                                                  {rows_w3_m1, rows_w3_m2, rows_w3_m3, rows_w3_m4},
                                                  {rows_w4_m1, rows_w4_m2, rows_w4_m3, rows_w4_m4}};

/* ---- M > 4 ---- */

/* Columns [k0, k0 + CHUNK) of row n into w; beyond K whatever the last codes are, which meets
 * zeros. Returns the table's scale. */
INLINE float decode_row(const fast_job *job, int64_t n, int64_t k0, int16_t *w, const int bits) {
    const ganq_layer *layer = job->p.layer;
    const int slots = block_slots(bits);
    const int64_t columns = layer->K - k0;
    const uint8_t *p = ganq__layer_lanes(layer, n) + k0 / GROUP * 4 * bits;
    const table t = load_table(layer, n, bits, job->second);
    int16x8_t v[2];
    if (columns >= CHUNK) {
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK / GROUP; i++)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++, w += 16) {
                const uint8_t *block = p + i / slots * (4 * bits * slots) + 16 * half;
                look_up(slot_codes(block, i % slots, bits), &t, v);
                vst1q_s16(w, v[0]);
                vst1q_s16(w + 8, v[1]);
            }
        return t.scale;
    }
    const int64_t in_blocks = groups_in_blocks(columns, bits), left = (columns + GROUP - 1) / GROUP;
    for (int64_t i = 0; i < left; i++)
        for (int half = 0; half < 2; half++, w += 16) {
            look_up(last_codes(p, i, half, in_blocks, bits), &t, v);
            vst1q_s16(w, v[0]);
            vst1q_s16(w + 8, v[1]);
        }
    return t.scale;
}

static float decode(const fast_job *job, int64_t n, int64_t k0, int16_t *w) {
    if (job->p.layer->bits == 4)
        return decode_row(job, n, k0, w, 4);
    if (job->p.layer->bits == 3)
        return decode_row(job, n, k0, w, 3);
    return decode_row(job, n, k0, w, 2);
}

/* One segment of four rows of W [4][CHUNK] and M of X: sums [4][TOKENS]. */
INLINE void multiply_tile(const int16_t *w, const int16_t *x, int64_t ldx, const float *scales,
                          int64_t lds, double *sums, const int M) {
    int64x2_t wide[MAX_R][2];
#pragma GCC unroll 4
    for (int r = 0; r < MAX_R; r++)
        wide[r][0] = wide[r][1] = vdupq_n_s64(0);
    for (int k0 = 0; k0 < SEGMENT; k0 += SEGMENT / 2) { /* eight products per lane */
        int32x4_t low[MAX_R][2], high[MAX_R][2];
#pragma GCC unroll 4
        for (int r = 0; r < MAX_R; r++)
#pragma GCC unroll 2
            for (int m = 0; m < M; m++)
                low[r][m] = high[r][m] = vdupq_n_s32(0);
        for (int k = k0; k < k0 + SEGMENT / 2; k += 8) {
            int16x8_t v[2];
#pragma GCC unroll 2
            for (int m = 0; m < M; m++)
                v[m] = vld1q_s16(x + m * ldx + k);
#pragma GCC unroll 4
            for (int r = 0; r < MAX_R; r++) {
                const int16x8_t weights = vld1q_s16(w + r * CHUNK + k);
#pragma GCC unroll 2
                for (int m = 0; m < M; m++) {
                    low[r][m] = vmlal_s16(low[r][m], vget_low_s16(weights), vget_low_s16(v[m]));
                    high[r][m] = vmlal_high_s16(high[r][m], weights, v[m]);
                }
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < MAX_R; r++)
#pragma GCC unroll 2
            for (int m = 0; m < M; m++)
                wide[r][m] = vpadalq_s32(vpadalq_s32(wide[r][m], low[r][m]), high[r][m]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < MAX_R; r++)
#pragma GCC unroll 2
        for (int m = 0; m < M; m++)
            sums[r * TOKENS + m] =
                fma((double)vaddvq_s64(wide[r][m]), scales[m * lds], sums[r * TOKENS + m]);
}

static void rows_large(const fast_job *job, int64_t first, int64_t end) {
    const int64_t K = job->p.layer->K, M = job->p.M, ldx = job->padded, lds = job->padded / SEGMENT;
    int16_t w[ITEM_ROWS][CHUNK] = {{0}}; /* rows beyond N are multiplied, too, but not kept */
    double sums[ITEM_ROWS][TOKENS] = {{0}};
    float scales[ITEM_ROWS] = {0};
    for (int64_t k0 = 0; k0 < K; k0 += CHUNK) {
        for (int64_t n = first; n < end; n++)
            scales[n - first] = decode(job, n, k0, w[n - first]);
        for (int64_t k = k0; k < K && k < k0 + CHUNK; k += SEGMENT)
            for (int64_t m = 0; m < M; m += 2)
                for (int64_t r = 0; r < end - first; r += MAX_R) {
                    const int16_t *x = job->values + m * ldx + k;
                    const float *of_x = job->scales + m * lds + k / SEGMENT;
                    if (m + 1 < M)
                        multiply_tile(&w[r][k - k0], x, ldx, of_x, lds, &sums[r][m], 2);
                    else
                        multiply_tile(&w[r][k - k0], x, ldx, of_x, lds, &sums[r][m], 1);
                }
    }
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = first; n < end; n++)
            finish(job, n, m, (float)(scales[n - first] * sums[n - first][m]));
}

static void multiply_rows(const fast_job *job, int64_t first, int64_t end) {
    if (job->p.M <= SMALL_M)
        small_kernels[job->p.layer->bits - 2][job->p.M - 1](job, first, end);
    else
        rows_large(job, first, end);
}

static void multiply_item(void *user, int64_t item, int worker) {
    const fast_job *job = user;
    const ganq_layer *layer = job->p.layer;
    const int64_t first = item * ITEM_ROWS;
    const int64_t end = first + ITEM_ROWS < layer->N ? first + ITEM_ROWS : layer->N;
    (void)worker;
    multiply_rows(job, first, end);
    fast_job again = *job;
    again.second = 1;
    for (int64_t n = first; n < end && layer->wide; n++)
        if (layer->wide[n])
            multiply_rows(&again, n, n + 1);
}

ganq_status ganq__lut_fast_neon(ganq_context *ctx, ganq__lut_product product) {
    const ganq_layer *layer = product.layer;
    const int64_t M = product.M, rows = M < TOKENS ? M : TOKENS;
    fast_job job = {.p = product, .padded = (layer->K + CHUNK - 1) / CHUNK * CHUNK};
    const double work = (double)M * (double)layer->N * (double)layer->K;
    ganq__pool *pool = work < SERIAL_WORK ? NULL : ctx->pool;
    const size_t values = (size_t)(rows * job.padded) * sizeof *job.values;
    const size_t scales = (size_t)(rows * (job.padded / SEGMENT)) * sizeof *job.scales;
    GANQ_TRY(ganq__context_workspace(ctx, values + scales, (void **)&job.values));
    job.scales = (float *)((char *)job.values + values);
    for (int64_t m = 0; m < M; m += TOKENS) {
        job.p.M = M - m < TOKENS ? M - m : TOKENS;
        ganq__parallel_for(job.p.M > 1 ? pool : NULL, job.p.M, convert_row, &job);
        ganq__parallel_for(pool, (layer->N + ITEM_ROWS - 1) / ITEM_ROWS, multiply_item, &job);
        job.p.x += TOKENS * job.p.ldx;
        job.p.y += TOKENS * job.p.ldy;
    }
    return GANQ_OK;
}
