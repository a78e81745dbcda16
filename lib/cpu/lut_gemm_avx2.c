/* lut_gemm_avx2.c - Y[M,N] = X[M,K] * W~[N,K]^T + bias with AVX2, FMA, F16C; f32 weights and sums.
 *
 * Layout   codes: lanes.h, lut_avx2.h.
 * Lookup   F16 tables: the 16 entries as two byte tables (low and high bytes) in registers; two
 *          vpshufb and two unpacks make 32 halves, vcvtph2ps four vectors of weights in column
 *          order. F32 tables: vpermps, and for 4 bits a blend of two. Both give the stored value
 *          exactly.
 * M <= 8   rows of W one by one; weights stay in registers and meet every row of X before the next
 *          32 are decoded:
 *
 *              row n   |block|block| ... |block|tail|       for m < M:  acc[m] += w * x[m]
 *
 * M > 8    decoded panels (lut_blocked.h); a tile of 6 x 16 sums in 12 registers.
 * Tails    columns after the last block are bit planes and are expanded by groups of 32; x beyond K
 *          is read from a zeroed copy of its last columns. Nothing outside the rows is touched.
 * Bound    docs/kernels.md.
 * Tried    M <= 8 with K cut so that X stays in the first-level cache for 16 rows of W: M = 8 took
 *          6.4 for 5.6 ms (4096 x 4096, one thread, EPYC Zen 3); the codes are then read in short
 *          runs, and a table is set up for each. */
#include <immintrin.h>
#include <string.h>

#include "cpu.h"
#include "lut_blocked.h"
#include "lut_avx2.h"
#include "lut_fast.h"
#include "lut_ops.h"

enum {
    GROUP = GANQ__GROUP,
    CHUNK = GANQ__LUT_CHUNK,
    SMALL_M = 8,
    TILE_N = 6,
    TILE_M = GANQ__LUT_PANEL
};

/* ---- tables ---- */

/* Of one row: F16 in a = low bytes, b = high bytes, both in each half; F32 in a
 * = entries 0..7, b = entries 8..15. */
typedef struct table {
    __m256i a, b;
} table;

INLINE table load_table(const ganq_layer *layer, int64_t n, const int bits, const int f32) {
    if (f32) {
        __m256 entries[2];
        load_entries(layer, n, bits, entries);
        return (table){_mm256_castps_si256(entries[0]), _mm256_castps_si256(entries[1])};
    }
    const __m128i *t = (const __m128i *)((const uint16_t *)layer->lut + (n << bits));
    /* codes do not reach entries that are not there */
    const __m128i low = bits == 2 ? _mm_loadl_epi64(t) : _mm_loadu_si128(t);
    const __m128i high = bits == 4 ? _mm_loadu_si128(t + 1) : low;
    const __m128i mask = _mm_set1_epi16(255);
    const __m128i low_bytes = _mm_packus_epi16(_mm_and_si128(low, mask), _mm_and_si128(high, mask));
    const __m128i high_bytes = _mm_packus_epi16(_mm_srli_epi16(low, 8), _mm_srli_epi16(high, 8));
    return (table){_mm256_broadcastsi128_si256(low_bytes), _mm256_broadcastsi128_si256(high_bytes)};
}

INLINE __m256 look_up_eight(__m128i codes, const table *t, const int bits) {
    const __m256i index = _mm256_cvtepu8_epi32(codes);
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_castsi256_ps(t->a), index);
    if (bits < 4)
        return low;
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_castsi256_ps(t->b), index);
    return _mm256_blendv_ps(low, high,
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28))); /* bit 3 chooses */
}

/* w[i]: columns 8i..8i+7 of the 32. */
INLINE void look_up(__m256i codes, const table *t, const int bits, const int f32, __m256 w[4]) {
    if (f32) {
        const __m128i low = _mm256_castsi256_si128(codes),
                      high = _mm256_extracti128_si256(codes, 1);
        w[0] = look_up_eight(low, t, bits);
        w[1] = look_up_eight(_mm_srli_si128(low, 8), t, bits);
        w[2] = look_up_eight(high, t, bits);
        w[3] = look_up_eight(_mm_srli_si128(high, 8), t, bits);
    } else {
        const __m256i a = _mm256_shuffle_epi8(t->a, codes), b = _mm256_shuffle_epi8(t->b, codes);
        const __m256i even = _mm256_unpacklo_epi8(a, b), odd = _mm256_unpackhi_epi8(a, b);
        w[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(even));
        w[1] = _mm256_cvtph_ps(_mm256_castsi256_si128(odd));
        w[2] = _mm256_cvtph_ps(_mm256_extracti128_si256(even, 1));
        w[3] = _mm256_cvtph_ps(_mm256_extracti128_si256(odd, 1));
    }
}

/* ---- M <= 8 ---- */

INLINE float sum_lanes(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* acc[m][i % chains] += w[i] * x[m][8i..8i+7]; several chains where there are
 * few rows, to hide the FMA's latency. */
INLINE void multiply_32(const __m256 w[4], const float *x, int64_t ldx, __m256 (*acc)[4],
                        const int M, const int chains) {
    for (int i = 0; i < 4; i++)
        for (int m = 0; m < M; m++)
            acc[m][i % chains] =
                _mm256_fmadd_ps(w[i], _mm256_loadu_ps(x + m * ldx + 8 * i), acc[m][i % chains]);
}

/* y[m][n] from the sums of row n. */
INLINE void finish_row(const ganq__lut_product *p, int64_t n, __m256 (*acc)[4], const int M,
                       const int chains) {
    for (int m = 0; m < M; m++) {
        for (int c = 1; c < chains; c++)
            acc[m][0] = _mm256_add_ps(acc[m][0], acc[m][c]);
        p->y[m * p->ldy + n] = ganq__lut_finish(p, n, m, sum_lanes(acc[m][0]));
    }
}

/* Rows [first, end) of W; x_end [M][32] is x's last K % 32 columns and zeros.
 */
INLINE void rows_small(const ganq__lut_product *product, int64_t first, int64_t end,
                       const float *x_end, const int bits, const int f32, const int M) {
    const ganq_layer *layer = product->layer;
    const int64_t K = layer->K, ldx = product->ldx, block = bits == 4 ? 64 : bits == 2 ? 128 : 256;
    const int slots = bits == 4 ? 2 : bits == 2 ? 4 : 8, chains = M == 1 ? 4 : M <= 4 ? 2 : 1;
    for (int64_t n = first; n < end; n++) {
        const uint8_t *p = ganq__layer_lanes(layer, n);
        const table t = load_table(layer, n, bits, f32);
        __m256 acc[SMALL_M][4], w[4];
        for (int m = 0; m < M; m++)
            for (int c = 0; c < chains; c++)
                acc[m][c] = _mm256_setzero_ps();
        int64_t k = 0;
        for (; k + block <= K; k += block, p += 4 * bits * slots)
#pragma GCC unroll 8
            for (int s = 0; s < slots; s++) {
                look_up(slot_codes(p, s, bits), &t, bits, f32, w);
                multiply_32(w, product->x + k + GROUP * s, ldx, acc, M, chains);
            }
        for (; k < K; k += GROUP, p += 4 * bits) {
            const int whole = k + GROUP <= K;
            look_up(group_codes(p, bits), &t, bits, f32, w);
            multiply_32(w, whole ? product->x + k : x_end, whole ? ldx : GROUP, acc, M, chains);
        }
        finish_row(product, n, acc, M, chains);
    }
}

typedef void (*rows_fn)(const ganq__lut_product *product, int64_t first, int64_t end,
                        const float *x_end);

#define ROWS(bits, f32, M)                                                                         \
    static void rows_w##bits##_##f32##_m##M(const ganq__lut_product *product, int64_t first,       \
                                            int64_t end, const float *x_end) {                     \
        rows_small(product, first, end, x_end, bits, f32, M);                                      \
    }
#define ROWS_M(bits, f32)                                                                          \
    ROWS(bits, f32, 1)                                                                             \
    ROWS(bits, f32, 2)                                                                             \
    ROWS(bits, f32, 3)                                                                             \
    ROWS(bits, f32, 4)                                                                             \
    ROWS(bits, f32, 5)                                                                             \
    ROWS(bits, f32, 6)                                                                             \
    ROWS(bits, f32, 7)                                                                             \
    ROWS(bits, f32, 8)
#define LIST_M(bits, f32)                                                                          \
    {                                                                                              \
        rows_w##bits##_##f32##_m1, rows_w##bits##_##f32##_m2, rows_w##bits##_##f32##_m3,           \
            rows_w##bits##_##f32##_m4, rows_w##bits##_##f32##_m5, rows_w##bits##_##f32##_m6,       \
            rows_w##bits##_##f32##_m7, rows_w##bits##_##f32##_m8                                   \
    }
ROWS_M(2, 0)
ROWS_M(2, 1)
ROWS_M(3, 0)
ROWS_M(3, 1)
ROWS_M(4, 0)
ROWS_M(4, 1)
/* [bits - 2][tables are F32][M - 1] */
static const rows_fn small_kernels[3][2][SMALL_M] = {
    {LIST_M(2, 0), LIST_M(2, 1)}, {LIST_M(3, 0), LIST_M(3, 1)}, {LIST_M(4, 0), LIST_M(4, 1)}};

static void small(const ganq__lut_product *product, int64_t first, int64_t end) {
    const ganq_layer *layer = product->layer;
    const int64_t tail = layer->K % GROUP;
    float x_end[SMALL_M * GROUP] = {0};
    for (int64_t m = 0; m < product->M && tail; m++)
        memcpy(x_end + m * GROUP, product->x + m * product->ldx + layer->K - tail,
               (size_t)tail * sizeof *x_end);
    small_kernels[layer->bits - 2][layer->lut_dtype == GANQ_DTYPE_F32][product->M - 1](
        product, first, end, x_end);
}

/* ---- M > 8 ---- */

/* 8 x 8: from[r][c] to to[c * TILE_M + r]. */
INLINE void transpose_8(const float *from, int64_t ld, float *to) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(from + i * ld);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * TILE_M, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * TILE_M, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

static void pack(float *panel, int64_t kc, int64_t rows, const float *x, int64_t ldx) {
    const int64_t whole = rows / 8 * 8, even = kc / 8 * 8;
    for (int64_t r = 0; r < whole; r += 8)
        for (int64_t k = 0; k < even; k += 8)
            transpose_8(x + r * ldx + k, ldx, panel + k * TILE_M + r);
    for (int64_t r = 0; r < TILE_M; r++)
        for (int64_t k = r < whole ? even : 0; k < kc; k++)
            panel[k * TILE_M + r] = r < rows ? x[r * ldx + k] : 0;
}

INLINE void store_32(const __m256 w[4], float *out) {
    for (int i = 0; i < 4; i++)
        _mm256_store_ps(out + 8 * i, w[i]);
}

/* See ganq__lut_kernels. */
INLINE void decode_row(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, float *out,
                       const int bits, const int f32) {
    const int64_t block = bits == 4 ? 64 : bits == 2 ? 128 : 256;
    const int slots = bits == 4 ? 2 : bits == 2 ? 4 : 8;
    const uint8_t *p = ganq__layer_lanes(layer, n) + k0 / GROUP * 4 * bits;
    const table t = load_table(layer, n, bits, f32);
    __m256 w[4];
    int64_t k = 0;
    for (; k + block <= kc; k += block, p += 4 * bits * slots)
#pragma GCC unroll 8
        for (int s = 0; s < slots; s++) {
            look_up(slot_codes(p, s, bits), &t, bits, f32, w);
            store_32(w, out + k + GROUP * s);
        }
    for (int64_t line = 0; line < CHUNK / 8 * bits;
         line += 64) /* of this row, for the next k0; never faults */
        _mm_prefetch((const char *)p + line, _MM_HINT_T0);
    for (; k < kc; k += GROUP, p += 4 * bits) {
        look_up(group_codes(p, bits), &t, bits, f32, w);
        store_32(w, out + k);
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
    __m256 acc[TILE_N][2];
#pragma GCC unroll 6
    for (int r = 0; r < TILE_N; r++)
        acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int64_t k = 0; k < kc; k++, x += TILE_M) {
        const __m256 x0 = _mm256_load_ps(x), x1 = _mm256_load_ps(x + 8);
#pragma GCC unroll 6
        for (int r = 0; r < TILE_N; r++) {
            const __m256 weight = _mm256_broadcast_ss(w + r * CHUNK + k);
            acc[r][0] = _mm256_fmadd_ps(weight, x0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(weight, x1, acc[r][1]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < TILE_N; r++, sums += TILE_M)
        for (int h = 0; h < 2; h++)
            _mm256_store_ps(sums + 8 * h,
                            add ? _mm256_add_ps(_mm256_load_ps(sums + 8 * h), acc[r][h])
                                : acc[r][h]);
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
        return ganq__lut_fast_avx2(ctx, product);
    return ganq__lut_multiply(ctx, &kernels, product);
}

const ganq__lut_ops ganq__lut_ops_avx2 = {.gemm = gemm};
