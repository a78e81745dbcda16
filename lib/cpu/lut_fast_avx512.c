/* lut_fast_avx512.c - the kernels of lut_fast.h with AVX-512 (F, BW, VL, VNNI).
 *
 * Lookup   vpermw looks up 32 weights by the lowest five bits of each index, in a table repeated to
 *          32 entries; the bits above a code do not matter. vpdpwssd multiplies them with 32 values
 *          of X and adds two products to a lane: in 256 columns a lane gets 16 columns.
 * Codes    M small: two bytes of lanes as a 16-bit number, shifted (segment_index); X's order
 *          follows. M large and rows' ends: bytes widened to 16 bits, columns in order.
 * M small  R rows of W by M of X: four by up to four, two by six or eight; their integer sums are
 * in registers and go to the f32 sums once per 256 columns. M large  tiles of 14 rows of W by 32
 * tokens, 28 sums; a weight pair is broadcast. Bound    docs/kernels.md. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "lut_avx512.h"
#include "lut_fast.h"

enum {
    GROUP = GANQ__GROUP,
    SEGMENT = GANQ__FAST_SEGMENT,
    PIECE = GANQ__FAST_PIECE,
    CHUNK = GANQ__FAST_CHUNK,
    LANES = 16,
    MAX_R = GANQ__FAST_MAX_R,
    MAX_M = GANQ__FAST_SMALL_M,
    TILE_N = 14,
    TILE_M = GANQ__LUT_PANEL
};

/* acc + w * x, two 16-bit products to a lane. As an instruction, where there is one: gcc 12 copies
 * and spills the sums around the intrinsic, and loads x anew for each use, while loads are what
 * there are most of. */
INLINE __m512i dot(__m512i acc, __m512i w, __m512i x) {
#if defined(__AVX512VNNI__)
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
    return acc;
#else
    return _mm512_dpwssd_epi32(acc, w, x);
#endif
}

/* ---- X to fixed point ---- */

/* A scale for the largest |x| and the largest sum of |x| / 1024 in a lane; *factor is its inverse.
 * largest_bits: as an integer NaN is above infinity. */
INLINE float choose_scale(uint32_t largest_bits, float sum, float *factor) {
    float largest;
    memcpy(&largest, &largest_bits, sizeof largest);
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

INLINE __m256i to_values(__m512 v, __m512 factor) {
    return _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(v, factor)));
}

/* M small, whole segments: vector q of X is what the weights that segment_index finds for q are
 * multiplied with: columns 2j + parity, j = 0..15, of group `low`, then of group `high`. */
typedef struct place {
    int low, high, parity;
} place;

INLINE place place_of(const int q, const int bits) {
    if (bits == 4)
        return (place){q / 4 * 4 + q % 2, q / 4 * 4 + 2 + q % 2, q / 2 % 2};
    if (bits == 2)
        return (place){q % 4, q % 4 + 4, q / 4};
    return q < 4 ? (place){q % 2, q % 2 + 2, q / 2} : (place){q / 2 * 2, q / 2 * 2 + 1, q % 2};
}

INLINE __m512 sum_neighbours(__m512 v) {
    return _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
}

/* The values to be multiplied with codes of `bits`, 0: in order, columns 2i, 2i + 1 of each 32 in
 * lane i. */
INLINE float convert_for(const float *x, int16_t *values, const int bits) {
    __m512 v[SEGMENT / 16], sums[4];
    __m512i largest = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        sums[i] = _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int i = 0; i < SEGMENT / 16; i++) {
        int high = 0; /* group i / 2 is in the upper eight lanes */
#pragma GCC unroll 8
        for (int q = 0; q < SEGMENT / GROUP; q++)
            high |= bits && place_of(q, bits).high == i / 2;
        v[i] = _mm512_loadu_ps(x + 16 * i);
        const __m512 magnitude = _mm512_abs_ps(v[i]);
        largest = _mm512_max_epu32(largest, _mm512_castps_si512(magnitude));
        sums[2 * high + i % 2] =
            _mm512_fmadd_ps(magnitude, _mm512_set1_ps(0x1p-10f), sums[2 * high + i % 2]);
    }
    __m512 most = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 pair = sum_neighbours(sums[i]);
        most =
            _mm512_max_ps(most, bits ? _mm512_add_ps(pair, _mm512_permute_ps(pair, 0x4e)) : pair);
    }
    float factor;
    const float scale =
        choose_scale(_mm512_reduce_max_epu32(largest), _mm512_reduce_max_ps(most), &factor);
    const __m512 by = _mm512_set1_ps(factor);
    __m512i groups[SEGMENT / GROUP];
#pragma GCC unroll 8
    for (int i = 0; i < SEGMENT / GROUP; i++)
        groups[i] = _mm512_inserti64x4(_mm512_castsi256_si512(to_values(v[2 * i], by)),
                                       to_values(v[2 * i + 1], by), 1);
    const __m512i even =
        _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26,
                         24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
#pragma GCC unroll 8
    for (int q = 0; q < SEGMENT / GROUP; q++) {
        const place from = place_of(q, bits);
        _mm512_storeu_si512(values + GROUP * q,
                            bits ? _mm512_permutex2var_epi16(groups[from.low],
                                                             from.parity ? odd : even,
                                                             groups[from.high])
                                 : groups[q]);
    }
    return scale;
}

static float convert(const float *x, int bits, int16_t *values) {
    return bits == 4   ? convert_for(x, values, 4)
           : bits == 3 ? convert_for(x, values, 3)
           : bits == 2 ? convert_for(x, values, 2)
                       : convert_for(x, values, 0);
}

static float convert_piece(const float *x, int16_t *values) {
    __m512 v[PIECE / 16], sum = _mm512_setzero_ps();
    __m512i largest = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < PIECE / 16; i++) {
        v[i] = _mm512_loadu_ps(x + 16 * i);
        const __m512 a = _mm512_abs_ps(v[i]);
        largest = _mm512_max_epu32(largest, _mm512_castps_si512(a));
        sum = _mm512_fmadd_ps(a, _mm512_set1_ps(0x1p-10f), sum);
    }
    float factor;
    const float scale =
        choose_scale(_mm512_reduce_max_epu32(largest), _mm512_reduce_add_ps(sum), &factor);
    const __m512 by = _mm512_set1_ps(factor);
#pragma GCC unroll 4
    for (int i = 0; i < PIECE / 16; i++)
        _mm256_storeu_si256((__m256i *)(values + 16 * i), to_values(v[i], by));
    return scale;
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

/* Slots of a block of codes. */
INLINE int block_slots(const int bits) {
    return bits == 4 ? 2 : bits == 2 ? 4 : 8;
}

/* Group i of `columns` columns at p, less than a segment: what is left of whole blocks (not at 3
 * bits, where they are segments), then bit planes. */
INLINE __m512i tail_index(const uint8_t *p, int64_t columns, int64_t i, const int bits) {
    const int slots = block_slots(bits);
    if (bits == 3 || i >= columns / (GROUP * slots) * slots)
        return group_index(p + i * 4 * bits, bits);
    const __m128i shift = _mm_cvtsi32_si128((int)(i % slots) * bits);
    return _mm512_and_si512(_mm512_srl_epi16(widen(p + i / slots * 32), shift),
                            _mm512_set1_epi16((short)((1 << bits) - 1)));
}

/* ---- tables ---- */

static void make_table(const ganq_layer *layer, int64_t n, int second, ganq__fast_table *table) {
    const int bits = layer->bits;
    const __m512 exact = load_entries(layer, n, bits);
    /* Tables ascend: the largest is one of the ends. */
    const float first = _mm_cvtss_f32(_mm512_castps512_ps128(exact));
    const float last = _mm_cvtss_f32(_mm_permute_ps(_mm512_extractf32x4_ps(exact, 3), 0xff));
    const float largest = fmaxf(fabsf(first), fabsf(last));
    const int usable = largest >= 0x1p-100f;
    const float inverse = usable ? GANQ__FIXED_TABLE / largest : 0;
    __m512i values = _mm512_cvtps_epi32(_mm512_mul_ps(exact, _mm512_set1_ps(inverse)));
    table->scale = usable ? largest / GANQ__FIXED_TABLE : 0;
    if (second) {
        const float finer = layer->wide[n] ? inverse * GANQ__FAST_RESIDUAL : 0;
        const __m512 lost =
            _mm512_fnmadd_ps(_mm512_cvtepi32_ps(values), _mm512_set1_ps(table->scale), exact);
        values = _mm512_cvtps_epi32(_mm512_mul_ps(lost, _mm512_set1_ps(finer)));
        table->scale *= 1.0f / GANQ__FAST_RESIDUAL;
    }
    _mm256_store_si256((__m256i *)table->entries, _mm512_cvtsepi32_epi16(values));
}

/* The entry for the lowest bits of an index; at 2 bits `upper` is that for bits 3..2. */
typedef struct entries {
    __m512i lowest, upper;
} entries;

INLINE entries load_table(const ganq__fast_table *from, const int bits) {
    entries t = {.lowest =
                     _mm512_broadcast_i64x4(_mm256_load_si256((const __m256i *)from->entries))};
    if (bits == 2) {
        const __m512i pairs =
            _mm512_set_epi64(0x0003000300030003, 0x0002000200020002, 0x0001000100010001, 0,
                             0x0003000300030003, 0x0002000200020002, 0x0001000100010001, 0);
        t.upper = _mm512_permutexvar_epi16(pairs, t.lowest);
    }
    return t;
}

INLINE __m512i slot_weights(const uint8_t *block, const entries *t, const int s, const int bits) {
    return _mm512_permutexvar_epi16(slot_index(block, s, bits),
                                    bits == 2 && s % 2 ? t->upper : t->lowest);
}

/* ---- M small ---- */

/* 256 codes of a row as they lie in memory. 3 bits: the first two of a block's three lines, and the
 * third one twice. */
typedef struct segment {
    __m512i first, second;
} segment;

INLINE segment load_segment(const uint8_t *p, const int bits) {
    segment codes = {.first = _mm512_loadu_si512(p)};
    if (bits == 4)
        codes.second = _mm512_loadu_si512(p + 64);
    if (bits == 3)
        codes.second = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(p + 64)));
    return codes;
}

/* Shifts 16-bit elements by `low` in the lower and `high` in the upper half. */
INLINE __m512i shift_halves(__m512i v, const int low, const int high) {
    return _mm512_srlv_epi16(
        v, _mm512_inserti64x4(_mm512_set1_epi16((short)low), _mm256_set1_epi16((short)high), 1));
}

/* Two bytes of lanes, as a 16-bit number, hold codes of two neighbouring columns: shifted, they are
 * an index without widening. 2 bits: `upper` tables are for the upper half of a nibble. */
INLINE __m512i segment_index(const segment *codes, const int q, const int bits, const int upper) {
    if (bits == 4)
        return _mm512_srli_epi16(q < 4 ? codes->first : codes->second, 4 * (unsigned)(q % 4));
    if (bits == 2)
        return _mm512_srli_epi16(codes->first, (unsigned)(q / 2 * 4 + (upper ? 0 : q % 2 * 2)));
    if (q < 4)
        return _mm512_srli_epi16(codes->first, (unsigned)(q / 2 * 8 + q % 2 * 3));
    const int odd = q % 2 * 8;
    if (q < 6)
        return shift_halves(codes->second, odd, odd + 3);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi16(6),
                                     _mm512_srli_epi16(codes->first, (unsigned)odd + 5),
                                     shift_halves(codes->second, odd + 6, odd + 7), 0xca);
}

/* 32 columns: acc[r][m] += w[r] * x[m], two products to a lane. */
INLINE void multiply_32(const __m512i w[MAX_R], const int16_t *x, __m512i (*acc)[MAX_M],
                        const int M, const int R) {
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
        const __m512i v = _mm512_loadu_si512(x + m * SEGMENT);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            acc[r][m] = dot(acc[r][m], w[r], v);
    }
}

INLINE void close_segment(__m512i (*acc)[MAX_M], __m512 (*sums)[MAX_M], const float *scales,
                          const int M, const int R) {
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
        const __m512 scale = _mm512_set1_ps(scales[m]);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            sums[r][m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][m]), scale, sums[r][m]);
    }
}

INLINE void store_sums(__m512 (*sums)[MAX_M], float *to, const int M, const int R) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            _mm512_store_ps(to + (r * M + m) * LANES, sums[r][m]);
}

INLINE void clear(__m512i (*acc)[MAX_M], const int M, const int R) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            acc[r][m] = _mm512_setzero_si512();
}

INLINE void multiply_rows(const ganq__fast_rows *rows, const int bits, const int M, const int R) {
    const int upper = bits == 2 && M <= 2; /* then shifts are dearer than registers */
    const int64_t stride = rows->lanes_stride;
    const uint8_t *p = rows->lanes, *ahead = rows->ahead;
    const int16_t *x = rows->x;
    const float *scales = rows->scales;
    entries t[MAX_R];
    __m512i acc[MAX_R][MAX_M], w[MAX_R];
    __m512 sums[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        t[r] = load_table(rows->tables + r * rows->tables_stride, bits);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            sums[r][m] = rows->fresh ? _mm512_setzero_ps()
                                     : _mm512_load_ps(rows->sums + (r * M + m) * LANES);
    }
    int64_t left = rows->columns;
    for (; left >= SEGMENT; left -= SEGMENT) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) /* never faults */
            for (int line = 0; line < SEGMENT / 8 * bits; line += 64)
                _mm_prefetch((const char *)ahead + r * rows->ahead_stride + line, _MM_HINT_T1);
        segment codes[MAX_R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            codes[r] = load_segment(p + r * stride, bits);
        clear(acc, M, R);
#pragma GCC unroll 8
        for (int i = 0; i < SEGMENT / GROUP; i++) {
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                w[r] = _mm512_permutexvar_epi16(segment_index(&codes[r], i, bits, upper),
                                                upper && i % 2 ? t[r].upper : t[r].lowest);
            multiply_32(w, x + GROUP * i, acc, M, R);
        }
        close_segment(acc, sums, scales, M, R);
        p += SEGMENT / 8 * bits;
        ahead += SEGMENT / 8 * bits;
        x += SEGMENT * M;
        scales += M;
    }
    if (left > 0) {
        clear(acc, M, R);
        for (int64_t i = 0; GROUP * i < left; i++) {
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                w[r] = _mm512_permutexvar_epi16(tail_index(p + r * stride, left, i, bits),
                                                t[r].lowest);
            multiply_32(w, x + GROUP * i, acc, M, R);
        }
        close_segment(acc, sums, scales, M, R);
    }
    store_sums(sums, rows->sums, M, R);
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
ROWS(2, 4)
ROWS(4, 4)
ROWS(6, 2)
ROWS(8, 2)

/* Four vectors at a time; what is missing of four are zeros. */
static void reduce(const float *vectors, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += 4, vectors += 4 * LANES) {
        __m512 v[4];
        for (int j = 0; j < 4; j++)
            v[j] = i + j < count ? _mm512_load_ps(vectors + j * LANES) : _mm512_setzero_ps();
        const __m512 a =
            _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
        const __m512 b =
            _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
        const __m512 c =
            _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
        const __m256 d = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
        const __m128 e = _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1));
        if (i + 4 <= count)
            _mm_storeu_ps(out + i, e);
        else
            _mm_mask_storeu_ps(out + i, (__mmask8)((1 << (count - i)) - 1), e);
    }
}

/* ---- M large ---- */

INLINE void decode_row(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc,
                       const ganq__fast_table *from, int16_t *w, const int bits) {
    const int slots = block_slots(bits);
    const uint8_t *p = ganq__layer_lanes(layer, n) + k0 / GROUP * 4 * bits;
    const entries t = load_table(from, bits);
    for (int line = 0; line < CHUNK / 8 * bits; line += 64) /* of this row, for the next k0 */
        _mm_prefetch((const char *)p + CHUNK / 8 * bits + line, _MM_HINT_T0); /* never faults */
    if (kc == CHUNK) {
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK / GROUP; i++)
            _mm512_storeu_si512(w + GROUP * i, slot_weights(p + i / slots * (4 * bits * slots), &t,
                                                            i % slots, bits));
        return;
    }
    for (int64_t i = 0; GROUP * i < kc; i++)
        _mm512_storeu_si512(w + GROUP * i,
                            _mm512_permutexvar_epi16(tail_index(p, kc, i, bits), t.lowest));
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
#define EACH_ROW(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13)
#define CLEAR_ROW(r) __m512i a##r = _mm512_setzero_si512(), b##r = a##r;
#define MULTIPLY_ROW(r)                                                                            \
    {                                                                                              \
        const __m512i pair = broadcast_pair(w + r * CHUNK);                                        \
        a##r = dot(a##r, pair, x0);                                                                \
        if (panels == 2)                                                                           \
            b##r = dot(b##r, pair, x1);                                                            \
    }
#define CLOSE_ROW(r)                                                                               \
    add_scaled(sums + r * TILE_M, a##r, scale0);                                                   \
    if (panels == 2)                                                                               \
        add_scaled(sums + (TILE_N + r) * TILE_M, b##r, scale1);

INLINE __m512i broadcast_pair(const int16_t *w) {
    int32_t pair;
    memcpy(&pair, w, sizeof pair);
    return _mm512_set1_epi32(pair);
}

INLINE void add_scaled(float *sums, __m512i acc, __m512 scale) {
    _mm512_store_ps(sums, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc), scale, _mm512_load_ps(sums)));
}

/* `panels` (1 or 2, a constant in every call) panels from x on, x_stride apart; of 64 columns. */
INLINE void multiply_panels(const int16_t *w, const int panels, const int16_t *x, int64_t x_stride,
                            const float *scales, __m512 factor, float *sums) {
    EACH_ROW(CLEAR_ROW)
    for (int k = 0; k < PIECE / 2; k++, x += 2 * TILE_M, w += 2) {
        const __m512i x0 = _mm512_loadu_si512(x);
        const __m512i x1 = panels == 2 ? _mm512_loadu_si512(x + x_stride) : x0;
        EACH_ROW(MULTIPLY_ROW)
    }
    const __m512 scale0 = _mm512_mul_ps(_mm512_loadu_ps(scales), factor);
    const __m512 scale1 =
        panels == 2 ? _mm512_mul_ps(_mm512_loadu_ps(scales + TILE_M), factor) : scale0;
    EACH_ROW(CLOSE_ROW)
}

/* Not inlined: the sums of a tile would move to the stack for all pieces. */
__attribute__((noinline)) static void multiply_two(const int16_t *w, const int16_t *x,
                                                   int64_t x_stride, const float *scales,
                                                   __m512 factor, float *sums) {
    multiply_panels(w, 2, x, x_stride, scales, factor, sums);
}

__attribute__((noinline)) static void
multiply_one(const int16_t *w, const int16_t *x, const float *scales, __m512 factor, float *sums) {
    multiply_panels(w, 1, x, 0, scales, factor, sums);
}

static void multiply(int64_t pieces, const int16_t *w, int64_t panels, const int16_t *x,
                     const float *scales, float factor, float *sums) {
    const int64_t x_stride = pieces * PIECE * TILE_M;
    const __m512 by = _mm512_set1_ps(factor);
    for (int64_t panel = 0; panel < panels; panel += 2) {
        const int16_t *from = x + panel * x_stride;
        float *to = sums + panel * TILE_N * TILE_M;
        for (int64_t i = 0; i < pieces; i++) {
            const float *s = scales + (i * panels + panel) * TILE_M;
            if (panel + 1 < panels)
                multiply_two(w + i * PIECE, from + i * PIECE * TILE_M, x_stride, s, by, to);
            else
                multiply_one(w + i * PIECE, from + i * PIECE * TILE_M, s, by, to);
        }
    }
}

static const ganq__fast_kernels kernels = {
    .lanes = LANES,
    .few = 32,
    .convert = convert,
    .convert_piece = convert_piece,
    .table = make_table,
    .R = {4, 4, 4, 2, 2},
    .rows = {{rows_w2_m1, rows_w3_m1, rows_w4_m1},
             {rows_w2_m2, rows_w3_m2, rows_w4_m2},
             {rows_w2_m4, rows_w3_m4, rows_w4_m4},
             {rows_w2_m6, rows_w3_m6, rows_w4_m6},
             {rows_w2_m8, rows_w3_m8, rows_w4_m8}},
    .reduce = reduce,
    .tile_rows = TILE_N,
    .item_tiles = 4,
    .decode = decode,
    .multiply = multiply,
};

ganq_status ganq__lut_fast_avx512(ganq_context *ctx, ganq__lut_product product) {
    return ganq__lut_fast(ctx, &kernels, product);
}
