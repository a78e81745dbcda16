/* lut_gemm_avx512.c - Y[M,N] = X[M,K] * W~[N,K]^T + bias with AVX-512 (F, BW, DQ, VL); f32 weights
 * and sums.
 *
 * Layout   codes: lanes.h.
 * Lookup   vpermps looks up sixteen weights in a register of sixteen f32 and ignores all but the
 *          lowest four bits of each index. So sixteen bytes of codes, widened to 32 bits, are an
 *          index as they are: no mask. Tables of 8 and 4 entries are repeated: at 3 bits the fourth
 *          bit does not matter; at 2 bits a second table looks up the upper of two codes in a
 *          nibble, which saves its shift.
 * M small  four rows of W at a time and up to four of X, so that each X that is read meets four
 *          weights, each weight four X:
 *
 *              rows n..n+3   |16|16|16| ...     for m < M, r < 4:  acc[r][m] += w[r] * x[m]
 *
 *          More rows of X are done in passes over 16 rows of W, whose codes then come from the
 *          second-level cache.
 *
 * M large  decoded panels (lut_blocked.h); a tile of 14 x 32 sums in 28 registers, or 14 x 16.
 * Tails    columns after the last block are bit planes: sixteen bits of a plane are a mask register
 *          as they are. X is read under a mask. Nothing outside the rows is touched.
 * Bound    docs/kernels.md. */
#include <immintrin.h>
#include <string.h>

#include "cpu.h"
#include "lut_avx512.h"
#include "lut_blocked.h"
#include "lut_fast.h"
#include "lut_ops.h"

enum {
    GROUP = GANQ__GROUP,
    CHUNK = GANQ__LUT_CHUNK,
    MAX_R = 4, /* rows of W and of X in registers at once: 16 sums */
    MAX_M = 4,
    SMALL_M = 16,
    TILE_N = 14,
    TILE_M = GANQ__LUT_PANEL
};

/* ---- codes: sixteen columns, an index for vpermps ---- */

INLINE __m512i widen(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

/* Sixteen columns of slot s of a block, see lanes.h; p is the block's first byte for columns 0..15
 * of the slot, its 17th for columns 16..31. Bits above the code are left in where the tables ignore
 * them; at 2 bits an odd slot's code is the upper half of the nibble. */
INLINE __m512i slot_index(const uint8_t *p, const int s, const int bits) {
    if (bits == 4)
        return s ? _mm512_srli_epi32(widen(p), 4) : widen(p);
    if (bits == 2)
        return s >= 2 ? _mm512_srli_epi32(widen(p), 4) : widen(p);
    if (s < 6)
        return s % 2 ? _mm512_srli_epi32(widen(p + s / 2 * 32), 3) : widen(p + s / 2 * 32);
    const __m512i upper = _mm512_srli_epi32(widen(p + (s - 6) * 32), 5);
    const __m512i lowest = _mm512_srli_epi32(widen(p + 64), (unsigned)s);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(6), upper, lowest, 0xca); /* 6 ? : */
}

/* Columns 16 half .. 16 half + 15 of a group of bit planes. */
INLINE __m512i group_index(const uint8_t *group, const int half, const int bits) {
    __m512i index = _mm512_setzero_si512();
    for (int b = 0; b < bits; b++) {
        uint16_t plane;
        memcpy(&plane, group + 4 * b + 2 * half, sizeof plane);
        index = _mm512_mask_or_epi32(index, plane, index, _mm512_set1_epi32(1 << b));
    }
    return index;
}

/* ---- tables ---- */

/* Of one row: the entry for the lowest bits of an index; at 2 bits `upper` is that for bits 3..2.
 */
typedef struct table {
    __m512 lowest, upper;
} table;

INLINE table load_table(const ganq_layer *layer, int64_t n, const int bits) {
    const __m512 lowest = load_entries(layer, n, bits);
    if (bits > 2)
        return (table){.lowest = lowest};
    const __m512i pairs = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return (table){lowest, _mm512_permutexvar_ps(pairs, lowest)};
}

INLINE __m512 slot_weights(const uint8_t *p, const table *t, const int s, const int bits) {
    return _mm512_permutexvar_ps(slot_index(p, s, bits), bits == 2 && s % 2 ? t->upper : t->lowest);
}

/* Columns and slots of a block. */
INLINE int block_slots(const int bits) {
    return bits == 4 ? 2 : bits == 2 ? 4 : 8;
}

/* ---- M small ---- */

/* Sixteen columns of X under a mask, times those of R rows of W. */
INLINE void multiply_16(const __m512 w[MAX_R], const float *x, int64_t ldx, __mmask16 columns,
                        __m512 (*acc)[MAX_M], const int M, const int R) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        const __m512 v = _mm512_maskz_loadu_ps(columns, x + m * ldx);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            acc[r][m] = _mm512_fmadd_ps(w[r], v, acc[r][m]);
    }
}

static void finish(const ganq__lut_product *product, int64_t n, int M, int R,
                   float sums[MAX_R][MAX_M]) {
    for (int m = 0; m < M; m++)
        for (int r = 0; r < R; r++)
            product->y[m * product->ldy + n + r] = ganq__lut_finish(product, n + r, m, sums[r][m]);
}

/* Rows [n, n + R) of W. */
INLINE void rows_small(const ganq__lut_product *product, int64_t n, const int bits, const int M,
                       const int R) {
    const ganq_layer *layer = product->layer;
    const int slots = block_slots(bits);
    const int64_t K = layer->K, ldx = product->ldx, block = GROUP * slots;
    const int64_t row_bytes = layer->row_bytes;
    const uint8_t *p = ganq__layer_lanes(layer, n);
    table t[MAX_R];
    __m512 acc[MAX_R][MAX_M], w[MAX_R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        t[r] = load_table(layer, n + r, bits);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
            acc[r][m] = _mm512_setzero_ps();
    }
    const float *x = product->x;
    int64_t k = 0;
    for (; k + block <= K; k += block, p += 4 * bits * slots, x += block) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) /* the next rows; never faults */
            for (int line = 0; line < 4 * bits * slots; line += 64)
                _mm_prefetch((const char *)p + (R + r) * row_bytes + line, _MM_HINT_T1);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++)
#pragma GCC unroll 8
            for (int s = 0; s < slots; s++) {
                if (M > 2) /* widened codes are not worth registers: let them be loaded again */
                    __asm__("" : "+r"(p));
#pragma GCC unroll 4
                for (int r = 0; r < R; r++)
                    w[r] = slot_weights(p + r * row_bytes + 16 * half, &t[r], s, bits);
                multiply_16(w, x + GROUP * s + 16 * half, ldx, 0xffff, acc, M, R);
            }
    }
    for (; k < K; k += GROUP, p += 4 * bits, x += GROUP)
        for (int half = 0; half < 2; half++) {
            const int64_t rest = K - k - 16 * half;
            if (rest <= 0)
                break;
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                w[r] =
                    _mm512_permutexvar_ps(group_index(p + r * row_bytes, half, bits), t[r].lowest);
            multiply_16(w, x + 16 * half, ldx, (__mmask16)(rest < 16 ? (1 << rest) - 1 : 0xffff),
                        acc, M, R);
        }
    float sums[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
            sums[r][m] = _mm512_reduce_add_ps(acc[r][m]);
    finish(product, n, M, R, sums);
}

typedef void (*rows_fn)(const ganq__lut_product *product, int64_t first, int64_t end);
#define ROWS(bits, M)                                                                              \
    static void rows_w##bits##_m##M(const ganq__lut_product *product, int64_t first,               \
                                    int64_t end) {                                                 \
        for (; first + MAX_R <= end; first += MAX_R)                                               \
            rows_small(product, first, bits, M, MAX_R);                                            \
        for (; first < end; first++)                                                               \
            rows_small(product, first, bits, M, 1);                                                \
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
static const rows_fn small_kernels[3][MAX_M] = {{rows_w2_m1, rows_w2_m2, rows_w2_m3, rows_w2_m4},
                                                {rows_w3_m1, rows_w3_m2, rows_w3_m3, rows_w3_m4},
                                                {rows_w4_m1, rows_w4_m2, rows_w4_m3, rows_w4_m4}};

/* More than MAX_M rows of X in passes of almost the same number. */
static void small(const ganq__lut_product *product, int64_t first, int64_t end) {
    const int64_t passes = (product->M + MAX_M - 1) / MAX_M;
    ganq__lut_product part = *product;
    for (int64_t pass = 0; pass < passes; pass++) {
        const int64_t done = product->M * pass / passes;
        part.M = product->M * (pass + 1) / passes - done;
        part.x = product->x + done * product->ldx;
        part.y = product->y + done * product->ldy;
        small_kernels[product->layer->bits - 2][part.M - 1](&part, first, end);
    }
}

/* ---- M large ---- */

/* 16 x 16: from[r][c] to to[c * TILE_M + r]. */
INLINE void transpose_16(const float *from, int64_t ld, float *to) {
    __m512 r[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_ps(from + i * ld);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* r[i + j]: columns j, j + 4, j + 8, j + 12 of rows i..i+3 */
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512 a = _mm512_shuffle_f32x4(r[j], r[j + 4], 0x88), /* columns j, j + 8 */
            b = _mm512_shuffle_f32x4(r[j], r[j + 4], 0xdd),          /* columns j + 4, j + 12 */
            c = _mm512_shuffle_f32x4(r[j + 8], r[j + 12], 0x88),
                     d = _mm512_shuffle_f32x4(r[j + 8], r[j + 12], 0xdd);
        _mm512_store_ps(to + j * TILE_M, _mm512_shuffle_f32x4(a, c, 0x88));
        _mm512_store_ps(to + (j + 4) * TILE_M, _mm512_shuffle_f32x4(b, d, 0x88));
        _mm512_store_ps(to + (j + 8) * TILE_M, _mm512_shuffle_f32x4(a, c, 0xdd));
        _mm512_store_ps(to + (j + 12) * TILE_M, _mm512_shuffle_f32x4(b, d, 0xdd));
    }
}

static void pack(float *panel, int64_t kc, int64_t rows, const float *x, int64_t ldx) {
    const int64_t even = rows == TILE_M ? kc / 16 * 16 : 0;
    for (int64_t k = 0; k < even; k += 16)
        transpose_16(x + k, ldx, panel + k * TILE_M);
    for (int64_t r = 0; r < TILE_M; r++)
        for (int64_t k = even; k < kc; k++)
            panel[k * TILE_M + r] = r < rows ? x[r * ldx + k] : 0;
}

/* See ganq__lut_kernels. */
INLINE void decode_row(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, float *out,
                       const int bits) {
    const int slots = block_slots(bits);
    const int64_t block = GROUP * slots;
    const uint8_t *p = ganq__layer_lanes(layer, n) + k0 / GROUP * 4 * bits;
    const table t = load_table(layer, n, bits);
    int64_t k = 0;
    for (; k + block <= kc; k += block, p += 4 * bits * slots)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++)
#pragma GCC unroll 8
            for (int s = 0; s < slots; s++)
                _mm512_store_ps(out + k + GROUP * s + 16 * half,
                                slot_weights(p + 16 * half, &t, s, bits));
    for (int64_t line = 0; line < CHUNK / 8 * bits; line += 64) /* of this row, for the next k0 */
        _mm_prefetch((const char *)p + line, _MM_HINT_T0);      /* never faults */
    for (; k < kc; k += GROUP, p += 4 * bits)
        for (int half = 0; half < 2; half++)
            _mm512_store_ps(out + k + 16 * half,
                            _mm512_permutexvar_ps(group_index(p, half, bits), t.lowest));
}

static void decode(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, float *w) {
    if (layer->bits == 4)
        decode_row(layer, n, k0, kc, w, 4);
    else if (layer->bits == 3)
        decode_row(layer, n, k0, kc, w, 3);
    else
        decode_row(layer, n, k0, kc, w, 2);
}

/* `panels` (1 or 2, a constant in every call) panels from x on, x_stride apart. */
INLINE void multiply_tile(int64_t kc, const float *w, const int panels, const float *x,
                          int64_t x_stride, float *sums, int add) {
    __m512 acc[TILE_N][2];
#pragma GCC unroll 14
    for (int r = 0; r < TILE_N; r++)
        acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    for (int64_t k = 0; k < kc; k++, x += TILE_M, w++) {
        const __m512 x0 = _mm512_load_ps(x);
        const __m512 x1 = panels == 2 ? _mm512_load_ps(x + x_stride) : _mm512_setzero_ps();
#pragma GCC unroll 14
        for (int r = 0; r < TILE_N; r++) {
            const __m512 weight = _mm512_set1_ps(w[r * CHUNK]);
            acc[r][0] = _mm512_fmadd_ps(weight, x0, acc[r][0]);
            if (panels == 2)
                acc[r][1] = _mm512_fmadd_ps(weight, x1, acc[r][1]);
        }
    }
#pragma GCC unroll 2
    for (int h = 0; h < panels; h++)
#pragma GCC unroll 14
        for (int r = 0; r < TILE_N; r++) {
            float *to = sums + (h * TILE_N + r) * TILE_M;
            _mm512_store_ps(to, add ? _mm512_add_ps(_mm512_load_ps(to), acc[r][h]) : acc[r][h]);
        }
}

static void multiply(int64_t kc, const float *w, int64_t panels, const float *x, float *sums,
                     int add) {
    const int64_t x_stride = kc * TILE_M;
    for (; panels >= 2; panels -= 2, x += 2 * x_stride, sums += 2 * TILE_N * TILE_M)
        multiply_tile(kc, w, 2, x, x_stride, sums, add);
    if (panels)
        multiply_tile(kc, w, 1, x, x_stride, sums, add);
}

static const ganq__lut_kernels kernels = {
    .small_m = SMALL_M,
    .tile_rows = TILE_N,
    .item_tiles = 4,
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
        return ganq__lut_fast_avx512(ctx, product);
    return ganq__lut_multiply(ctx, &kernels, product);
}

const ganq__lut_ops ganq__lut_ops_avx512 = {.gemm = gemm};
