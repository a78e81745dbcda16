/* dense_convert.c - the tables' f16 and bf16 conversions against lib/base/half.h, bit by bit. */
#include <math.h>

#include "dense_util.h"
#include "half.h"

static int is_nan_bits(uint32_t bits) {
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

START_TEST(every_half_to_f32) {
    static uint16_t halves[65536 + 1];
    static float values[65536];
    for (int i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (int isa = 0; isa < ISAS; isa++) {
        ganq_context *ctx = open_context(isas[isa], 1);
        for (int32_t dtype = GANQ_DTYPE_F16; ctx && dtype <= GANQ_DTYPE_BF16; dtype++) {
            ctx->dense->to_f32(values, halves, dtype, 65536);
            for (int i = 0; i < 65536; i++) {
                uint32_t expected =
                    ganq__f32_to_bits(dtype == GANQ_DTYPE_F16 ? ganq__f16_to_f32((uint16_t)i)
                                                              : ganq__bf16_to_f32((uint16_t)i));
                uint32_t found = ganq__f32_to_bits(values[i]);
                /* the processor may set a NaN's quiet bit */
                if (is_nan_bits(expected) ? !is_nan_bits(found) : found != expected)
                    ck_abort_msg("%s dtype %d: %04x gives %08x, expected %08x", isas[isa], dtype, i,
                                 found, expected);
            }
        }
        if (ctx)
            close_context(ctx);
    }
}
END_TEST

/* Bit patterns: all signs and exponents with the mantissas near each rounding decision, then random
 * ones. */
static uint32_t pattern(int i) {
    static const uint32_t mantissas[] = {0,        1,        0x0fff,   0x1000,   0x1001,   0x1fff,
                                         0x2000,   0x3000,   0x3001,   0x7fff,   0x8000,   0x8001,
                                         0x18000,  0x17fff,  0x400000, 0x7fe000, 0x7fefff, 0x7ff000,
                                         0x7fffff, 0x7f8000, 0x7f7fff};
    enum { MANTISSAS = sizeof mantissas / sizeof *mantissas };
    if (i < 512 * MANTISSAS)
        return (uint32_t)(i / MANTISSAS) << 23 | mantissas[i % MANTISSAS];
    return random_u32();
}

START_TEST(floats_to_half) {
    enum { COUNT = 200003 };
    float *values = malloc(COUNT * sizeof *values);
    uint16_t *halves = malloc(COUNT * sizeof *halves);
    ck_assert(values && halves);
    for (int i = 0; i < COUNT; i++)
        values[i] = ganq__bits_to_f32(pattern(i));
    for (int isa = 0; isa < ISAS; isa++) {
        ganq_context *ctx = open_context(isas[isa], 1);
        for (int32_t dtype = GANQ_DTYPE_F16; ctx && dtype <= GANQ_DTYPE_BF16; dtype++) {
            ctx->dense->from_f32(halves, values, dtype, COUNT);
            for (int i = 0; i < COUNT; i++) {
                uint16_t expected = dtype == GANQ_DTYPE_F16 ? ganq__f32_to_f16(values[i])
                                                            : ganq__f32_to_bf16(values[i]);
                if (halves[i] != expected)
                    ck_abort_msg("%s dtype %d: %08x gives %04x, expected %04x", isas[isa], dtype,
                                 ganq__f32_to_bits(values[i]), halves[i], expected);
            }
        }
        if (ctx)
            close_context(ctx);
    }
    free(values);
    free(halves);
}
END_TEST

START_TEST(any_count_and_alignment) {
    for (int isa = 0; isa < ISAS; isa++) {
        ganq_context *ctx = open_context(isas[isa], 1);
        for (int32_t dtype = GANQ_DTYPE_F32; ctx && dtype <= GANQ_DTYPE_BF16; dtype++)
            for (int count = 0; count <= 40; count++) {
                size_t size = dtype == GANQ_DTYPE_F32 ? 4 : 2;
                float values[41], back[41];
                char bytes[41 * 4 + 2];
                for (int i = 0; i < 41; i++) {
                    values[i] = (float)(i - 20) / 8; /* exact in every type */
                    back[i] = -1;
                }
                memset(bytes, 0x5a, sizeof bytes);
                ctx->dense->from_f32(bytes + 1, values, dtype, count);
                ck_assert_int_eq(bytes[0], 0x5a);
                ck_assert_int_eq(bytes[1 + size * (size_t)count], 0x5a);
                ctx->dense->to_f32(back, bytes + 1, dtype, count);
                for (int i = 0; i < 41; i++)
                    ck_assert(back[i] == (i < count ? values[i] : -1));
            }
        if (ctx)
            close_context(ctx);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dense_convert");
    TCase *tests = tcase_create("dense_convert");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, every_half_to_f32);
    tcase_add_test(tests, floats_to_half);
    tcase_add_test(tests, any_count_and_alignment);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
