/* immintrin.h - stands in for the compiler's: AVX2 and AVX-512 intrinsics in plain C, from SIMDe,
 * and those that its release 0.7.4 lacks, written here. test_intrinsics.c holds the latter against
 * the processor's own. */
#ifndef GANQ_TESTS_SIMDE_IMMINTRIN_H
#define GANQ_TESTS_SIMDE_IMMINTRIN_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wpointer-arith"
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#pragma GCC diagnostic pop

#include <stdint.h>
#include <string.h>

typedef simde__mmask8 __mmask8;
typedef simde__mmask16 __mmask16;
typedef simde__mmask32 __mmask32;

#define GANQ_SHIM static inline __attribute__((unused))

/* A vector as an array. */
typedef union ganq_lanes {
    simde__m512 ps;
    simde__m512i i;
    simde__m256 ps8[2];
    simde__m128 ps4[4];
    simde__m128i i4[4];
    float f[16];
    uint32_t u32[16];
    uint16_t u16[32];
} ganq_lanes;

GANQ_SHIM simde__m512i _mm512_cvtepu8_epi16(simde__m256i a) {
    uint8_t from[32];
    ganq_lanes to;
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 32; i++)
        to.u16[i] = from[i];
    return to.i;
}

GANQ_SHIM simde__m512i _mm512_cvtepu8_epi32(simde__m128i a) {
    uint8_t from[16];
    ganq_lanes to;
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 16; i++)
        to.u32[i] = from[i];
    return to.i;
}

GANQ_SHIM simde__m512i _mm512_cvtps_epi32(simde__m512 a) {
    ganq_lanes v = {.ps = a};
    for (int i = 0; i < 4; i++)
        v.i4[i] = simde_mm_cvtps_epi32(v.ps4[i]);
    return v.i;
}

GANQ_SHIM simde__m512 _mm512_cvtepi32_ps(simde__m512i a) {
    ganq_lanes v = {.i = a};
    for (int i = 0; i < 4; i++)
        v.ps4[i] = simde_mm_cvtepi32_ps(v.i4[i]);
    return v.ps;
}

GANQ_SHIM simde__m512 _mm512_cvtph_ps(simde__m256i a) {
    simde__m128i from[2];
    ganq_lanes to;
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 2; i++)
        to.ps8[i] = simde_mm256_cvtph_ps(from[i]);
    return to.ps;
}

/* Reads nothing where the mask is 0. */
GANQ_SHIM simde__m512 _mm512_maskz_loadu_ps(simde__mmask16 mask, const void *from) {
    ganq_lanes v;
    for (int i = 0; i < 16; i++) {
        v.f[i] = 0;
        if (mask >> i & 1)
            memcpy(&v.f[i], (const char *)from + 4 * i, 4);
    }
    return v.ps;
}

/* Writes nothing where the mask is 0. */
GANQ_SHIM void _mm_mask_storeu_ps(void *to, simde__mmask8 mask, simde__m128 a) {
    float v[4];
    memcpy(v, &a, sizeof v);
    for (int i = 0; i < 4; i++)
        if (mask >> i & 1)
            memcpy((char *)to + 4 * i, &v[i], 4);
}

GANQ_SHIM simde__m256 _mm512_extractf32x8_ps(simde__m512 a, const int imm) {
    const ganq_lanes v = {.ps = a};
    return v.ps8[imm & 1];
}

GANQ_SHIM simde__m512 _mm512_permute_ps(simde__m512 a, const int imm) {
    const ganq_lanes from = {.ps = a};
    ganq_lanes to;
    for (int i = 0; i < 16; i++)
        to.f[i] = from.f[i / 4 * 4 + (imm >> (i % 4 * 2) & 3)];
    return to.ps;
}

GANQ_SHIM simde__m512 _mm512_shuffle_f32x4(simde__m512 a, simde__m512 b, const int imm) {
    const ganq_lanes low = {.ps = a}, high = {.ps = b};
    ganq_lanes to;
    for (int i = 0; i < 4; i++)
        to.ps4[i] = (i < 2 ? low : high).ps4[imm >> (2 * i) & 3];
    return to.ps;
}

/* In gcc's order: halves, quarters, pairs, two. */
GANQ_SHIM float _mm512_reduce_add_ps(simde__m512 a) {
    ganq_lanes v = {.ps = a};
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            v.f[i] += v.f[i + half];
    return v.f[0];
}

GANQ_SHIM float _mm512_reduce_max_ps(simde__m512 a) {
    const ganq_lanes v = {.ps = a};
    float max = v.f[0];
    for (int i = 1; i < 16; i++)
        max = v.f[i] > max ? v.f[i] : max;
    return max;
}

GANQ_SHIM uint32_t _mm512_reduce_max_epu32(simde__m512i a) {
    const ganq_lanes v = {.i = a};
    uint32_t max = 0;
    for (int i = 0; i < 16; i++)
        max = v.u32[i] > max ? v.u32[i] : max;
    return max;
}

#endif
