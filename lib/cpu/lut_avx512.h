/* lut_avx512.h - tables with AVX-512, for exact and fixed-point products. */
#ifndef GANQ_CPU_LUT_AVX512_H
#define GANQ_CPU_LUT_AVX512_H

#include <immintrin.h>

#include "layer.h"

#define INLINE static inline __attribute__((always_inline))

/* Row n's table in f32; fewer than 16 entries are repeated. */
INLINE __m512 load_entries(const ganq_layer *layer, int64_t n, const int bits) {
    if (layer->lut_dtype == GANQ_DTYPE_F16) {
        const uint16_t *t = (const uint16_t *)layer->lut + (n << bits);
        const __m256i halves =
            bits == 4   ? _mm256_loadu_si256((const __m256i *)t)
            : bits == 3 ? _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)t))
                        : _mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)t));
        return _mm512_cvtph_ps(halves);
    }
    const float *t = (const float *)layer->lut + (n << bits);
    return bits == 4   ? _mm512_loadu_ps(t)
           : bits == 3 ? _mm512_broadcast_f32x8(_mm256_loadu_ps(t))
                       : _mm512_broadcast_f32x4(_mm_loadu_ps(t));
}

#endif
