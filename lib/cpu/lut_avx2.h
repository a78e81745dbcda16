/* lut_avx2.h - tables, and codes out of lanes (lanes.h), with AVX2: a 32-byte load, a shift and a
 * mask give the codes of 32 neighbouring columns, one per byte. */
#ifndef GANQ_CPU_LUT_AVX2_H
#define GANQ_CPU_LUT_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "layer.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256i load32(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Row n's entries 0..7 and 8..15 in f32; fewer than 16 are repeated. */
INLINE void load_entries(const ganq_layer *layer, int64_t n, const int bits, __m256 out[2]) {
    if (layer->lut_dtype == GANQ_DTYPE_F16) {
        const __m128i *t = (const __m128i *)((const uint16_t *)layer->lut + (n << bits));
        const __m128i first = bits == 2 ? _mm_loadl_epi64(t) : _mm_loadu_si128(t);
        out[0] = _mm256_cvtph_ps(bits == 2 ? _mm_unpacklo_epi64(first, first) : first);
        out[1] = bits == 4 ? _mm256_cvtph_ps(_mm_loadu_si128(t + 1)) : out[0];
    } else {
        const float *t = (const float *)layer->lut + (n << bits);
        out[0] = bits == 2 ? _mm256_broadcast_ps((const __m128 *)t) : _mm256_loadu_ps(t);
        out[1] = bits == 4 ? _mm256_loadu_ps(t + 8) : out[0];
    }
}

/* (v >> shift) & mask in every byte; mask has no bit that a neighbour's would
 * reach. */
INLINE __m256i field(__m256i v, int shift, int mask) {
    return _mm256_and_si256(shift ? _mm256_srli_epi16(v, shift) : v, _mm256_set1_epi8((char)mask));
}

/* Slot s of a block, see lanes.h. */
INLINE __m256i slot_codes(const uint8_t *block, const int s, const int bits) {
    if (bits == 4)
        return field(load32(block), 4 * s, 15);
    if (bits == 2)
        return field(load32(block), 2 * s, 3);
    if (s < 6)
        return field(load32(block + s / 2 * 32), s % 2 * 3, 7);
    const __m256i upper = field(load32(block + (s - 6) * 32), 5, 6);
    return _mm256_or_si256(upper, field(load32(block + 64), s, 1));
}

/* A group of bit planes. Byte i of the result wants bit i % 8 of byte i / 8 of
 * each word: the word everywhere, its bytes spread, that bit tested. */
INLINE __m256i group_codes(const uint8_t *group, const int bits) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
    __m256i codes = _mm256_setzero_si256();
    for (int b = 0; b < bits; b++) {
        int32_t word;
        memcpy(&word, group + 4 * b, sizeof word);
        const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(word), spread);
        const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
        codes = _mm256_or_si256(codes, _mm256_and_si256(set, _mm256_set1_epi8((char)(1 << b))));
    }
    return codes;
}

/* Slots of a block of codes. */
INLINE int block_slots(const int bits) {
    return bits == 4 ? 2 : bits == 2 ? 4 : 8;
}

#endif
