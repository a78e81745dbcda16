/* lut_gemm_neon.c - Y[M,N] = X[M,K] * W~[N,K]^T + bias with NEON (64-bit ARM); f32 weights and
 * sums.
 *
 * Layout   codes: lanes.h, lut_neon.h.
 * Lookup   tables as byte tables in registers: the entries' first bytes, their second ones, and so
 *          on; sixteen codes are looked up in each by one tbl, and zips put the bytes of an entry
 *          together. F16 tables: two tbl and two zips make sixteen halves in column order, fcvtl
 *          four vectors of weights. F32 tables: four tbl, eight zips. Both give the stored value
 *          exactly.
 * M <= 8   four rows of W and one of X at a time, or two and up to four: sixteen sums in registers.
 *          Weights meet every row of X before the next sixteen are decoded. More than four rows of
 *          X in two passes over 16 rows of W: a decoded weight costs less than the loads of X that
 *          a second row of W saves. An element has two sums of four lanes, whatever M.
 * M > 8    decoded panels (lut_blocked.h); a tile of 6 x 16 sums in 24 registers.
 * Tails    columns after the last block are bit planes; x beyond K is read from a zeroed copy of
 *          its last columns. Nothing outside the rows is touched. */
#include <string.h>

#include "cpu.h"
#include "lut_neon.h"
#include "lut_ops.h"

enum {
    GROUP = GANQ__GROUP,
    CHUNK = GANQ__LUT_CHUNK,
    SMALL_M = 8,
    MAX_M = 4,
    MAX_R = 4,
    CHAINS = 2,
    TILE_N = 6,
    TILE_M = GANQ__LUT_PANEL
};

/* ---- tables ---- */

/* Byte i of every entry of a row; two of them for F16. */
typedef struct table {
    uint8x16_t bytes[4];
} table;

INLINE table load_table(const ganq_layer *layer, int64_t n, const int bits, const int f32) {
    float32x4_t e[4];
    table t;
    load_entries(layer, n, bits, e);
    if (f32) {
        const uint16x8_t a = vreinterpretq_u16_f32(e[0]), b = vreinterpretq_u16_f32(e[1]),
                         c = vreinterpretq_u16_f32(e[2]), d = vreinterpretq_u16_f32(e[3]);
        const uint8x16_t low0 = vreinterpretq_u8_u16(vuzp1q_u16(a, b)),
                         low1 = vreinterpretq_u8_u16(vuzp1q_u16(c, d)),
                         high0 = vreinterpretq_u8_u16(vuzp2q_u16(a, b)),
                         high1 = vreinterpretq_u8_u16(vuzp2q_u16(c, d));
        t.bytes[0] = vuzp1q_u8(low0, low1);
        t.bytes[1] = vuzp2q_u8(low0, low1);
        t.bytes[2] = vuzp1q_u8(high0, high1);
        t.bytes[3] = vuzp2q_u8(high0, high1);
    } else {
        const uint8x16_t first = vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(e[0]), e[1]));
        const uint8x16_t second = vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(e[2]), e[3]));
        t.bytes[0] = vuzp1q_u8(first, second);
        t.bytes[1] = vuzp2q_u8(first, second);
        t.bytes[2] = t.bytes[3] = vdupq_n_u8(0);
    }
    return t;
}

/* w[i]: columns 4i..4i+3 of the 16. */
INLINE void look_up(uint8x16_t codes, const table *t, const int f32, float32x4_t w[4]) {
    const uint8x16_t a = vqtbl1q_u8(t->bytes[0], codes), b = vqtbl1q_u8(t->bytes[1], codes);
    const uint8x16_t ab0 = vzip1q_u8(a, b), ab1 = vzip2q_u8(a, b);
    if (f32) {
        const uint8x16_t c = vqtbl1q_u8(t->bytes[2], codes), d = vqtbl1q_u8(t->bytes[3], codes);
        const uint16x8_t low0 = vreinterpretq_u16_u8(ab0), low1 = vreinterpretq_u16_u8(ab1),
                         high0 = vreinterpretq_u16_u8(vzip1q_u8(c, d)),
                         high1 = vreinterpretq_u16_u8(vzip2q_u8(c, d));
        w[0] = vreinterpretq_f32_u16(vzip1q_u16(low0, high0));
        w[1] = vreinterpretq_f32_u16(vzip2q_u16(low0, high0));
        w[2] = vreinterpretq_f32_u16(vzip1q_u16(low1, high1));
        w[3] = vreinterpretq_f32_u16(vzip2q_u16(low1, high1));
    } else {
        const float16x8_t first = vreinterpretq_f16_u8(ab0), second = vreinterpretq_f16_u8(ab1);
        w[0] = vcvt_f32_f16(vget_low_f16(first));
        w[1] = vcvt_high_f32_f16(first);
        w[2] = vcvt_f32_f16(vget_low_f16(second));
        w[3] = vcvt_high_f32_f16(second);
    }
}

/* ---- M <= 8 ---- */

/* acc[m][i % CHAINS] += w[i] * x[m][4i..4i+3]. */
INLINE void multiply_16(const float32x4_t w[4], const float *x, int64_t ldx,
                        float32x4_t (*acc)[CHAINS], const int M) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            acc[m][i % CHAINS] =
                vfmaq_f32(acc[m][i % CHAINS], w[i], vld1q_f32(x + m * ldx + 4 * i));
}

/* Rows [n, n + R) of W; x_end [M][32] is x's last K % 32 columns and zeros. */
INLINE void rows_small(const ganq__lut_product *product, int64_t n, const float *x_end,
                       const int bits, const int f32, const int M, const int R) {
    const ganq_layer *layer = product->layer;
    const int slots = block_slots(bits);
    const int64_t K = layer->K, ldx = product->ldx, block = GROUP * slots;
    const int64_t row_bytes = layer->row_bytes;
    const uint8_t *p = ganq__layer_lanes(layer, n);
    table t[MAX_R];
    float32x4_t acc[MAX_R][MAX_M][CHAINS], w[4];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        t[r] = load_table(layer, n + r, bits, f32);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
            acc[r][m][0] = acc[r][m][1] = vdupq_n_f32(0);
    }
    int64_t k = 0;
    for (; k + block <= K; k += block, p += 4 * bits * slots)
        for (int half = 0; half < 2; half++)
#pragma GCC unroll 8
            for (int s = 0; s < slots; s++)
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    look_up(slot_codes(p + r * row_bytes + 16 * half, s, bits), &t[r], f32, w);
                    multiply_16(w, product->x + k + GROUP * s + 16 * half, ldx, acc[r], M);
                }
    for (; k < K; k += GROUP, p += 4 * bits) {
        const int whole = k + GROUP <= K;
        const float *x = whole ? product->x + k : x_end;
        for (int half = 0; half < 2; half++)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                look_up(group_codes(p + r * row_bytes, half, bits), &t[r], f32, w);
                multiply_16(w, x + 16 * half, whole ? ldx : GROUP, acc[r], M);
            }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
            product->y[m * product->ldy + n + r] = ganq__lut_finish(
                product, n + r, m, vaddvq_f32(vaddq_f32(acc[r][m][0], acc[r][m][1])));
}

typedef void (*rows_fn)(const ganq__lut_product *product, int64_t first, int64_t end,
                        const float *x_end);

#define ROWS(bits, f32, M, R)                                                                      \
    static void rows_w##bits##_##f32##_m##M(const ganq__lut_product *product, int64_t first,       \
                                            int64_t end, const float *x_end) {                     \
        for (; first + R <= end; first += R)                                                       \
            rows_small(product, first, x_end, bits, f32, M, R);                                    \
        for (; first < end; first++)                                                               \
            rows_small(product, first, x_end, bits, f32, M, 1);                                    \
    }
#define ROWS_M(bits, f32)                                                                          \
    ROWS(bits, f32, 1, 4)                                                                          \
    ROWS(bits, f32, 2, 2)                                                                          \
    ROWS(bits, f32, 3, 2)                                                                          \
    ROWS(bits, f32, 4, 2)
#define LIST_M(bits, f32)                                                                          \
    {                                                                                              \
        rows_w##bits##_##f32##_m1, rows_w##bits##_##f32##_m2, rows_w##bits##_##f32##_m3,           \
            rows_w##bits##_##f32##_m4                                                              \
    }
ROWS_M(2, 0)
ROWS_M(2, 1)
ROWS_M(3, 0)
ROWS_M(3, 1)
ROWS_M(4, 0)
ROWS_M(4, 1)
/* [bits - 2][tables are F32][M - 1] */
static const rows_fn small_kernels[3][2][MAX_M] = {
    {LIST_M(2, 0), LIST_M(2, 1)}, {LIST_M(3, 0), LIST_M(3, 1)}, {LIST_M(4, 0), LIST_M(4, 1)}};

/* One pass, or two of almost the same number of rows of X. */
static void small(const ganq__lut_product *product, int64_t first, int64_t end) {
    const ganq_layer *layer = product->layer;
    const rows_fn *of_m = small_kernels[layer->bits - 2][layer->lut_dtype == GANQ_DTYPE_F32];
    const int64_t tail = layer->K % GROUP, passes = (product->M + MAX_M - 1) / MAX_M;
    ganq__lut_product part = *product;
    for (int64_t pass = 0; pass < passes; pass++) {
        const int64_t done = product->M * pass / passes;
        float x_end[MAX_M * GROUP] = {0};
        part.M = product->M * (pass + 1) / passes - done;
        part.x = product->x + done * product->ldx;
        part.y = product->y + done * product->ldy;
        for (int64_t m = 0; m < part.M && tail; m++)
            memcpy(x_end + m * GROUP, part.x + m * part.ldx + layer->K - tail,
                   (size_t)tail * sizeof *x_end);
        of_m[part.M - 1](&part, first, end, x_end);
    }
}

/* ---- M > 8 ---- */

/* 4 x 4: from[r][c] to to[c * TILE_M + r]. */
INLINE void transpose_4(const float *from, int64_t ld, float *to) {
    const float32x4_t a = vld1q_f32(from), b = vld1q_f32(from + ld), c = vld1q_f32(from + 2 * ld),
                      d = vld1q_f32(from + 3 * ld);
    const float64x2_t ab0 = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), /* columns 0 and 2 */
        ab1 = vreinterpretq_f64_f32(vtrn2q_f32(a, b)),
                      cd0 = vreinterpretq_f64_f32(vtrn1q_f32(c, d)),
                      cd1 = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
    vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(ab0, cd0)));
    vst1q_f32(to + TILE_M, vreinterpretq_f32_f64(vtrn1q_f64(ab1, cd1)));
    vst1q_f32(to + 2 * TILE_M, vreinterpretq_f32_f64(vtrn2q_f64(ab0, cd0)));
    vst1q_f32(to + 3 * TILE_M, vreinterpretq_f32_f64(vtrn2q_f64(ab1, cd1)));
}

static void pack(float *panel, int64_t kc, int64_t rows, const float *x, int64_t ldx) {
    const int64_t whole = rows / 4 * 4, even = kc / 4 * 4;
    for (int64_t r = 0; r < whole; r += 4)
        for (int64_t k = 0; k < even; k += 4)
            transpose_4(x + r * ldx + k, ldx, panel + k * TILE_M + r);
    for (int64_t r = 0; r < TILE_M; r++)
        for (int64_t k = r < whole ? even : 0; k < kc; k++)
            panel[k * TILE_M + r] = r < rows ? x[r * ldx + k] : 0;
}

INLINE void store_16(const float32x4_t w[4], float *out) {
    for (int i = 0; i < 4; i++)
        vst1q_f32(out + 4 * i, w[i]);
}

/* See ganq__lut_kernels. */
INLINE void decode_row(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, float *out,
                       const int bits, const int f32) {
    const int slots = block_slots(bits);
    const int64_t block = GROUP * slots;
    const uint8_t *p = ganq__layer_lanes(layer, n) + k0 / GROUP * 4 * bits;
    const table t = load_table(layer, n, bits, f32);
    float32x4_t w[4];
    int64_t k = 0;
    for (; k + block <= kc; k += block, p += 4 * bits * slots)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++)
#pragma GCC unroll 8
            for (int s = 0; s < slots; s++) {
                look_up(slot_codes(p + 16 * half, s, bits), &t, f32, w);
                store_16(w, out + k + GROUP * s + 16 * half);
            }
    for (; k < kc; k += GROUP, p += 4 * bits)
        for (int half = 0; half < 2; half++) {
            look_up(group_codes(p, half, bits), &t, f32, w);
            store_16(w, out + k + 16 * half);
        }
}

typedef void (*decode_fn)(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, float *out);
#define DECODE(bits, f32)                                                                          \
    static void decode_w##bits##_##f32(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, \
                                       float *out) {                                               \
        decode_row(layer, n, k0, kc, out, bits, f32);                                              \
    }
DECODE(2, 0)
DECODE(2, 1)
DECODE(3, 0)
DECODE(3, 1)
DECODE(4, 0)
DECODE(4, 1)
/* [bits - 2][tables are F32] */
static const decode_fn decoders[3][2] = {
    {decode_w2_0, decode_w2_1}, {decode_w3_0, decode_w3_1}, {decode_w4_0, decode_w4_1}};

static void decode(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, float *w) {
    decoders[layer->bits - 2][layer->lut_dtype == GANQ_DTYPE_F32](layer, n, k0, kc, w);
}

/* sums [6][16] (+)= w [6][CHUNK], kc columns, times x [kc][16]. */
static void tile_6x16(int64_t kc, const float *w, const float *x, float *sums, int add) {
    float32x4_t acc[TILE_N][4];
#pragma GCC unroll 6
    for (int r = 0; r < TILE_N; r++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            acc[r][i] = vdupq_n_f32(0);
    for (int64_t k = 0; k < kc; k++, x += TILE_M) {
        const float32x4_t x0 = vld1q_f32(x), x1 = vld1q_f32(x + 4), x2 = vld1q_f32(x + 8),
                          x3 = vld1q_f32(x + 12);
#pragma GCC unroll 6
        for (int r = 0; r < TILE_N; r++) {
            const float32x4_t weight = vld1q_dup_f32(w + r * CHUNK + k);
            acc[r][0] = vfmaq_f32(acc[r][0], weight, x0);
            acc[r][1] = vfmaq_f32(acc[r][1], weight, x1);
            acc[r][2] = vfmaq_f32(acc[r][2], weight, x2);
            acc[r][3] = vfmaq_f32(acc[r][3], weight, x3);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < TILE_N; r++, sums += TILE_M)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            vst1q_f32(sums + 4 * i,
                      add ? vaddq_f32(vld1q_f32(sums + 4 * i), acc[r][i]) : acc[r][i]);
}

static void multiply(int64_t kc, const float *w, int64_t panels, const float *x, float *sums,
                     int add) {
    for (int64_t panel = 0; panel < panels; panel++)
        tile_6x16(kc, w, x + panel * kc * TILE_M, sums + panel * TILE_N * TILE_M, add);
}

static const ganq__lut_kernels kernels = {
    .small_m = SMALL_M,
    .tile_rows = TILE_N,
    .item_tiles = 8,
    .small = small,
    .pack = pack,
    .decode = decode,
    .multiply = multiply,
};

static ganq_status gemm(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                        int64_t ldx, float *y, int64_t ldy) {
    const ganq__lut_product product = {
        .layer = layer, .M = M, .ldx = ldx, .ldy = ldy, .x = x, .y = y};
    if (ctx->options.numerics == GANQ_NUMERICS_FAST)
        return ganq__lut_fast_neon(ctx, product);
    return ganq__lut_multiply(ctx, &kernels, product);
}

const ganq__lut_ops ganq__lut_ops_neon = {.gemm = gemm};
