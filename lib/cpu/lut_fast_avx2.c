/* lut_fast_avx2.c - the kernels of lut_fast.h with AVX2.
 *
 * Lookup   the 16 entries as two byte tables (low and high bytes) in registers; two vpshufb and two
 *          unpacks make 32 weights of 16 bits: columns 0..7 and 16..23 in one register, 8..15 and
 *          24..31 in another. X is converted into the same order. At 2 bits a nibble, two codes, is
 *          the index, with a table for its lower and one for its upper code.
 *          vpmaddwd multiplies and adds two products to a lane: in 256 columns a lane gets 32.
 * M small  R rows of W by M of X: four by one, two by two and four, one by six and eight; their
 *          integer sums are in registers and go to the f32 sums once per 256 columns.
 * M large  tiles of 6 rows of W by 16 tokens, 12 sums; a weight pair is broadcast.
 * Bound    docs/kernels.md. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "lut_avx2.h"
#include "lut_fast.h"

enum {
    GROUP = GANQ__GROUP,
    SEGMENT = GANQ__FAST_SEGMENT,
    PIECE = GANQ__FAST_PIECE,
    CHUNK = GANQ__FAST_CHUNK,
    LANES = 8,
    MAX_R = GANQ__FAST_MAX_R,
    MAX_M = GANQ__FAST_SMALL_M,
    TILE_N = 6,
    TILE_M = GANQ__LUT_PANEL
};

INLINE __m256i load_values(const int16_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE void store_values(int16_t *p, __m256i v) {
    _mm256_storeu_si256((__m256i *)p, v);
}

/* acc + w * x, two products to a lane. The barrier: gcc 12 would regroup the sums of a segment, all
 * products first, and put them on the stack. */
INLINE __m256i dot(__m256i acc, __m256i w, __m256i x) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w, x));
    __asm__("" : "+x"(acc));
    return acc;
}

/* ---- X to fixed point ---- */

INLINE __m256 absolute(__m256 v) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

INLINE float largest_of(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* A scale for the largest |x| and the largest sum of |x| / 1024 in a lane; *factor is its inverse.
 * `largest` as an integer: NaN is above infinity. */
INLINE float choose_scale(__m256i largest_bits, float sum, float *factor) {
    uint32_t all[8], bits = 0;
    float largest;
    _mm256_storeu_si256((__m256i *)all, largest_bits);
    for (int i = 0; i < 8; i++)
        bits = all[i] > bits ? all[i] : bits;
    memcpy(&largest, &bits, sizeof largest);
    *factor = 0;
    if (!(largest >= 0x1p-100f))
        return largest < 1 ? 0 : NAN;
    const float of_sum = sum * (1024.0f / GANQ__FAST_SUM), of_value = largest / GANQ__FAST_VALUE;
    const float scale = of_sum > of_value ? of_sum : of_value;
    if (!(scale < INFINITY))
        return NAN;
    *factor = 1 / scale;
    return scale;
}

/* 32 columns as integers: a[0] has 0..7 and 8..15, a[1] the others. */
INLINE void to_integers(const float *x, __m256 factor, __m256i a[2]) {
    __m256i v[4];
    for (int i = 0; i < 4; i++)
        v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), factor));
    for (int i = 0; i < 2; i++) /* packs works in halves: bring the quarters into order */
        a[i] = _mm256_permute4x64_epi64(_mm256_packs_epi32(v[2 * i], v[2 * i + 1]), 0xd8);
}

/* Columns 2i, 2i + 1 and 8 + 2i, 9 + 2i of each 32 are in lane i < 4, those 16 further in i + 4. */
static float convert(const float *x, int bits, int16_t *values) {
    (void)bits;
    __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256i largest = _mm256_setzero_si256();
    for (int k = 0; k < SEGMENT; k += 8) {
        const __m256 a = absolute(_mm256_loadu_ps(x + k));
        largest = _mm256_max_epu32(largest, _mm256_castps_si256(a));
        sums[k / 16 % 2] =
            _mm256_add_ps(sums[k / 16 % 2], _mm256_mul_ps(a, _mm256_set1_ps(0x1p-10f)));
    }
    float factor;
    const float scale =
        choose_scale(largest, largest_of(_mm256_hadd_ps(sums[0], sums[1])), &factor);
    for (int k = 0; k < SEGMENT; k += GROUP) {
        __m256i a[2];
        to_integers(x + k, _mm256_set1_ps(factor), a);
        store_values(values + k, _mm256_permute2x128_si256(a[0], a[1], 0x20));
        store_values(values + k + 16, _mm256_permute2x128_si256(a[0], a[1], 0x31));
    }
    return scale;
}

INLINE float sum_lanes(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static float convert_piece(const float *x, int16_t *values) {
    __m256 sum = _mm256_setzero_ps();
    __m256i largest = _mm256_setzero_si256();
    for (int k = 0; k < PIECE; k += 8) {
        const __m256 a = absolute(_mm256_loadu_ps(x + k));
        largest = _mm256_max_epu32(largest, _mm256_castps_si256(a));
        sum = _mm256_add_ps(sum, _mm256_mul_ps(a, _mm256_set1_ps(0x1p-10f)));
    }
    float factor;
    const float scale = choose_scale(largest, sum_lanes(sum), &factor);
    for (int k = 0; k < PIECE; k += GROUP) {
        __m256i a[2];
        to_integers(x + k, _mm256_set1_ps(factor), a);
        store_values(values + k, a[0]);
        store_values(values + k + 16, a[1]);
    }
    return scale;
}

/* ---- tables ---- */

static void make_table(const ganq_layer *layer, int64_t n, int second, ganq__fast_table *table) {
    const int bits = layer->bits;
    __m256 entries[2];
    load_entries(layer, n, bits, entries);
    const __m256 low = entries[0], high = entries[1];
    /* Tables ascend: the largest is one of the ends. */
    const float first = _mm256_cvtss_f32(low);
    const float last =
        _mm256_cvtss_f32(_mm256_permutevar8x32_ps(high, _mm256_set1_epi32(bits == 2 ? 3 : 7)));
    const float largest = fmaxf(fabsf(first), fabsf(last));
    const int usable = largest >= 0x1p-100f;
    const __m256 inverse = _mm256_set1_ps(usable ? GANQ__FIXED_TABLE / largest : 0);
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(low, inverse));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(high, inverse));
    table->scale = usable ? largest / GANQ__FIXED_TABLE : 0;
    if (second) {
        const __m256 scale = _mm256_set1_ps(table->scale);
        const __m256 finer =
            _mm256_mul_ps(inverse, _mm256_set1_ps(layer->wide[n] ? GANQ__FAST_RESIDUAL : 0));
        a = _mm256_cvtps_epi32(
            _mm256_mul_ps(_mm256_fnmadd_ps(_mm256_cvtepi32_ps(a), scale, low), finer));
        b = _mm256_cvtps_epi32(
            _mm256_mul_ps(_mm256_fnmadd_ps(_mm256_cvtepi32_ps(b), scale, high), finer));
        table->scale *= 1.0f / GANQ__FAST_RESIDUAL;
    }
    store_values(table->entries, _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8));
}

/* Low and high bytes of the entries; at 2 bits [1] is for the upper code of a nibble. */
typedef struct entries {
    __m256i low[2], high[2];
} entries;

INLINE entries load_table(const ganq__fast_table *from, const int bits) {
    const __m128i first = _mm_load_si128((const __m128i *)from->entries);
    const __m128i second = _mm_load_si128((const __m128i *)(from->entries + 8));
    const __m128i mask = _mm_set1_epi16(255);
    const __m128i low = _mm_packus_epi16(_mm_and_si128(first, mask), _mm_and_si128(second, mask));
    const __m128i high = _mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(second, 8));
    entries t = {.low[0] = _mm256_broadcastsi128_si256(low),
                 .high[0] = _mm256_broadcastsi128_si256(high)};
    if (bits == 2) {
        const __m256i upper = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3));
        t.low[1] = _mm256_shuffle_epi8(t.low[0], upper);
        t.high[1] = _mm256_shuffle_epi8(t.high[0], upper);
    }
    return t;
}

/* w[0]: columns 0..7 and 16..23 of the 32, w[1] the others. */
INLINE void look_up(__m256i index, const entries *t, const int which, __m256i w[2]) {
    const __m256i a = _mm256_shuffle_epi8(t->low[which], index);
    const __m256i b = _mm256_shuffle_epi8(t->high[which], index);
    w[0] = _mm256_unpacklo_epi8(a, b);
    w[1] = _mm256_unpackhi_epi8(a, b);
}

/* Slot s of a block. */
INLINE void slot_weights(const uint8_t *block, const entries *t, const int s, const int bits,
                         __m256i w[2]) {
    if (bits == 2)
        look_up(field(load32(block), s / 2 * 4, 15), t, s % 2, w);
    else
        look_up(slot_codes(block, s, bits), t, 0, w);
}

/* Group i of `columns` columns at p, less than a segment: what is left of whole blocks (not at 3
 * bits, where they are segments), then bit planes. */
INLINE void tail_weights(const uint8_t *p, int64_t columns, int64_t i, const entries *t,
                         const int bits, __m256i w[2]) {
    const int slots = block_slots(bits);
    __m256i codes;
    if (bits == 3 || i >= columns / (GROUP * slots) * slots)
        codes = group_codes(p + i * 4 * bits, bits);
    else
        codes = _mm256_and_si256(_mm256_srl_epi16(load32(p + i / slots * 32),
                                                  _mm_cvtsi32_si128((int)(i % slots) * bits)),
                                 _mm256_set1_epi8((char)((1 << bits) - 1)));
    look_up(codes, t, 0, w);
}

/* ---- M small ---- */

/* 32 columns: acc[r][m] += w[r] * x[m]. */
INLINE void multiply_32(__m256i (*w)[2], const int16_t *x, __m256i (*acc)[MAX_M], const int M,
                        const int R) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++)
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const __m256i v = load_values(x + m * SEGMENT + 16 * h);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                acc[r][m] = dot(acc[r][m], w[r][h], v);
        }
}

INLINE void close_segment(__m256i (*acc)[MAX_M], float *sums, const float *scales, const int M,
                          const int R) {
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
        const __m256 scale = _mm256_broadcast_ss(scales + m);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            float *sum = sums + (r * M + m) * LANES;
            _mm256_store_ps(
                sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][m]), scale, _mm256_load_ps(sum)));
        }
    }
}

INLINE void clear(__m256i (*acc)[MAX_M], const int M, const int R) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            acc[r][m] = _mm256_setzero_si256();
}

INLINE void multiply_rows(const ganq__fast_rows *rows, const int bits, const int M, const int R) {
    const int slots = block_slots(bits);
    const int64_t stride = rows->lanes_stride;
    const uint8_t *p = rows->lanes, *ahead = rows->ahead;
    const int16_t *x = rows->x;
    const float *scales = rows->scales;
    entries t[MAX_R];
    __m256i acc[MAX_R][MAX_M], w[MAX_R][2];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
        t[r] = load_table(rows->tables + r * rows->tables_stride, bits);
    if (rows->fresh)
        memset(rows->sums, 0, (size_t)(R * M * LANES) * sizeof *rows->sums);
    int64_t left = rows->columns;
    for (; left >= SEGMENT; left -= SEGMENT) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) /* never faults */
            for (int line = 0; line < SEGMENT / 8 * bits; line += 64)
                _mm_prefetch((const char *)ahead + r * rows->ahead_stride + line, _MM_HINT_T1);
        clear(acc, M, R);
#pragma GCC unroll 8
        for (int i = 0; i < SEGMENT / GROUP; i++) {
            const uint8_t *block = p + i / slots * (4 * bits * slots);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                slot_weights(block + r * stride, &t[r], i % slots, bits, w[r]);
            multiply_32(w, x + GROUP * i, acc, M, R);
        }
        close_segment(acc, rows->sums, scales, M, R);
        p += SEGMENT / 8 * bits;
        ahead += SEGMENT / 8 * bits;
        x += SEGMENT * M;
        scales += M;
    }
    if (left == 0)
        return;
    clear(acc, M, R);
    for (int64_t i = 0; GROUP * i < left; i++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            tail_weights(p + r * stride, left, i, &t[r], bits, w[r]);
        multiply_32(w, x + GROUP * i, acc, M, R);
    }
    close_segment(acc, rows->sums, scales, M, R);
}

#define ROWS(M, R)                                                                                 \
    static void rows_w2_m##M(const ganq__fast_rows *rows) {                                        \
        multiply_rows(rows, 2, M, R);                                                              \
    }                                                                                              \
    static void rows_w3_m##M(const ganq__fast_rows *rows) {                                        \
        multiply_rows(rows, 3, M, R);                                                              \
    }                                                                                              \
    static void rows_w4_m##M(const ganq__fast_rows *rows) {                                        \
        multiply_rows(rows, 4, M, R);                                                              \
    }
ROWS(1, 4)
ROWS(2, 2)
ROWS(4, 2)
ROWS(6, 1)
ROWS(8, 1)

/* Four vectors at a time; what is missing of four are zeros. */
static void reduce(const float *vectors, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += 4, vectors += 4 * LANES) {
        __m256 v[4];
        float four[4];
        for (int j = 0; j < 4; j++)
            v[j] = i + j < count ? _mm256_load_ps(vectors + j * LANES) : _mm256_setzero_ps();
        const __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
        _mm_storeu_ps(four, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
        memcpy(out + i, four, (size_t)(count - i < 4 ? count - i : 4) * sizeof *out);
    }
}

/* ---- M large ---- */

INLINE void store_row(int16_t *w, const __m256i v[2]) {
    store_values(w, _mm256_permute2x128_si256(v[0], v[1], 0x20));
    store_values(w + 16, _mm256_permute2x128_si256(v[0], v[1], 0x31));
}

INLINE void decode_row(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc,
                       const ganq__fast_table *from, int16_t *w, const int bits) {
    const int slots = block_slots(bits);
    const uint8_t *p = ganq__layer_lanes(layer, n) + k0 / GROUP * 4 * bits;
    const entries t = load_table(from, bits);
    __m256i v[2];
    for (int line = 0; line < CHUNK / 8 * bits; line += 64) /* of this row, for the next k0 */
        _mm_prefetch((const char *)p + CHUNK / 8 * bits + line, _MM_HINT_T0); /* never faults */
    if (kc == CHUNK) {
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK / GROUP; i++) {
            slot_weights(p + i / slots * (4 * bits * slots), &t, i % slots, bits, v);
            store_row(w + GROUP * i, v);
        }
        return;
    }
    for (int64_t i = 0; GROUP * i < kc; i++) {
        tail_weights(p, kc, i, &t, bits, v);
        store_row(w + GROUP * i, v);
    }
}

static void decode(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc,
                   const ganq__fast_table *table, int16_t *w) {
    if (layer->bits == 4)
        decode_row(layer, n, k0, kc, table, w, 4);
    else if (layer->bits == 3)
        decode_row(layer, n, k0, kc, table, w, 3);
    else
        decode_row(layer, n, k0, kc, table, w, 2);
}

/* By name, since arrays of sums in a loop end up in memory (gcc 12). */
#define EACH_ROW(f) f(0) f(1) f(2) f(3) f(4) f(5)
#define CLEAR_ROW(r) __m256i a##r = _mm256_setzero_si256(), b##r = a##r;
#define MULTIPLY_ROW(r)                                                                            \
    {                                                                                              \
        const __m256i pair = broadcast_pair(w + r * CHUNK);                                        \
        a##r = dot(a##r, pair, x0);                                                                \
        b##r = dot(b##r, pair, x1);                                                                \
    }
#define CLOSE_ROW(r)                                                                               \
    add_scaled(sums + r * TILE_M, a##r, scale0);                                                   \
    add_scaled(sums + r * TILE_M + LANES, b##r, scale1);

INLINE __m256i broadcast_pair(const int16_t *w) {
    int32_t pair;
    memcpy(&pair, w, sizeof pair);
    return _mm256_set1_epi32(pair);
}

INLINE void add_scaled(float *sums, __m256i acc, __m256 scale) {
    _mm256_store_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc), scale, _mm256_load_ps(sums)));
}

/* One tile, 64 columns. Not inlined: the sums would move to the stack for all pieces. */
__attribute__((noinline)) static void
multiply_piece(const int16_t *w, const int16_t *x, const float *scales, float factor, float *sums) {
    EACH_ROW(CLEAR_ROW)
    for (int k = 0; k < PIECE / 2; k++, x += 2 * TILE_M, w += 2) {
        const __m256i x0 = load_values(x), x1 = load_values(x + TILE_M);
        EACH_ROW(MULTIPLY_ROW)
    }
    const __m256 by = _mm256_set1_ps(factor);
    const __m256 scale0 = _mm256_mul_ps(_mm256_loadu_ps(scales), by);
    const __m256 scale1 = _mm256_mul_ps(_mm256_loadu_ps(scales + LANES), by);
    EACH_ROW(CLOSE_ROW)
}

static void multiply(int64_t pieces, const int16_t *w, int64_t panels, const int16_t *x,
                     const float *scales, float factor, float *sums) {
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t i = 0; i < pieces; i++)
            multiply_piece(w + i * PIECE, x + (panel * pieces + i) * PIECE * TILE_M,
                           scales + (i * panels + panel) * TILE_M, factor,
                           sums + panel * TILE_N * TILE_M);
}

static const ganq__fast_kernels kernels = {
    .lanes = LANES,
    .few = 24,
    .convert = convert,
    .convert_piece = convert_piece,
    .table = make_table,
    .R = {4, 2, 2, 1, 1},
    .rows = {{rows_w2_m1, rows_w3_m1, rows_w4_m1},
             {rows_w2_m2, rows_w3_m2, rows_w4_m2},
             {rows_w2_m4, rows_w3_m4, rows_w4_m4},
             {rows_w2_m6, rows_w3_m6, rows_w4_m6},
             {rows_w2_m8, rows_w3_m8, rows_w4_m8}},
    .reduce = reduce,
    .tile_rows = TILE_N,
    .item_tiles = 8,
    .decode = decode,
    .multiply = multiply,
};

ganq_status ganq__lut_fast_avx2(ganq_context *ctx, ganq__lut_product product) {
    return ganq__lut_fast(ctx, &kernels, product);
}
