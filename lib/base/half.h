/* half.h - IEEE half and bfloat16, one value at a time, round to nearest even. Vector forms are in lib/cpu. */
#ifndef GANQ_BASE_HALF_H
#define GANQ_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float ganq__bits_to_f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline uint32_t ganq__f32_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline float ganq__bf16_to_f32(uint16_t h) { return ganq__bits_to_f32((uint32_t)h << 16); }
static inline uint16_t ganq__f32_to_bf16(float value) {
    uint32_t bits = ganq__f32_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
static inline float ganq__f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) /* infinity, NaN */
        return ganq__bits_to_f32(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
    if (rest >= 0x400u)
        return ganq__bits_to_f32(sign | ((rest << 13) + 0x38000000u));
    /* zero and subnormal: rest * 2^-24 is exact in f32 */
    float magnitude = (float)rest * 5.9604644775390625e-8f;
    return ganq__bits_to_f32(sign | ganq__f32_to_bits(magnitude));
}
static inline uint16_t ganq__f32_to_f16(float value) {
    uint32_t bits = ganq__f32_to_bits(value), sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (rest >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (rest >= 0x38800000u) { /* normal in f16 */
        uint32_t rounded = rest + 0xfffu + ((rest >> 13) & 1u);
        return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
    }
    /* subnormal: adding 0.5 leaves value * 2^24, rounded to nearest even, in the low bits */
    float shifted = ganq__bits_to_f32(rest) + 0.5f;
    return (uint16_t)(sign | (ganq__f32_to_bits(shifted) - 0x3f000000u));
}

#endif
