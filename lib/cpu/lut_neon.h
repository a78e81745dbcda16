/* lut_neon.h - codes in the in-memory layout (lanes.h) with NEON: what lut_gemm_neon.c and
 * lut_fast_neon.c share. A register holds the codes of sixteen neighbouring columns, one per byte:
 * half of a slot, or half of a group of bit planes. */
#ifndef GANQ_CPU_LUT_NEON_H
#define GANQ_CPU_LUT_NEON_H

#include <arm_neon.h>

#include "lut_blocked.h"

#define INLINE static inline __attribute__((always_inline))

/* Slots of a block; a slot is 32 columns in 4 * bits bytes. */
INLINE int block_slots(const int bits) {
    return bits == 4 ? 2 : bits == 2 ? 4 : 8;
}

/* Sixteen columns of slot s; `block` points 16 bytes further for the upper half of the slot. */
INLINE uint8x16_t slot_codes(const uint8_t *block, const int s, const int bits) {
    if (bits == 4)
        return s ? vld1q_u8(block) >> 4 : vld1q_u8(block) & 15;
    if (bits == 2)
        return s == 3 ? vld1q_u8(block) >> 6 : vld1q_u8(block) >> (2 * s) & 3;
    if (s < 6)
        return vld1q_u8(block + s / 2 * 32) >> (s % 2 * 3) & 7;
    const uint8x16_t upper = vld1q_u8(block + (s - 6) * 32) >> 5 & 6;
    const uint8x16_t lowest = s == 7 ? vld1q_u8(block + 64) >> 7 : vld1q_u8(block + 64) >> 6 & 1;
    return upper | lowest;
}

/* Columns 16 half .. 16 half + 15 of a group of bit planes. Byte i of the result wants bit i % 8 of
 * byte i / 8 of each plane's half word: the byte everywhere, that bit tested. */
INLINE uint8x16_t group_codes(const uint8_t *group, const int half, const int bits) {
    const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t codes = vdupq_n_u8(0);
    for (int b = 0; b < bits; b++) {
        const uint8_t *word = group + 4 * b + 2 * half;
        const uint8x16_t bytes = vcombine_u8(vdup_n_u8(word[0]), vdup_n_u8(word[1]));
        codes |= vtstq_u8(bytes, bit) & vdupq_n_u8((uint8_t)(1 << b));
    }
    return codes;
}

/* The 2^bits entries of a row, the rest zeros. */
INLINE void load_entries(const ganq_layer *layer, int64_t n, const int bits, float32x4_t out[4]) {
    const int f16 = layer->lut_dtype == GANQ_DTYPE_F16;
    const float *t = (const float *)layer->lut + (n << bits);
    const float16_t *h = (const float16_t *)layer->lut + (n << bits);
    for (int i = 0; i < 4; i++)
        out[i] = 4 * i >= 1 << bits ? vdupq_n_f32(0)
                 : f16              ? vcvt_f32_f16(vld1_f16(h + 4 * i))
                                    : vld1q_f32(t + 4 * i);
}

/* lut_fast_neon.c: the product in fixed point. */
ganq_status ganq__lut_fast_neon(ganq_context *ctx, ganq__lut_product product);

#endif
