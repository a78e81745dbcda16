/* test_dtype.c - half precision conversions, bit by bit, and the checks of a caller's matrix. */
#include "check_util.h"

#include <math.h>

#include "dtype.h"
#include "half.h"

START_TEST(f16_to_f32_and_back) {
    for (uint32_t h = 0; h < 65536; h++) {
        float value = ganq__f16_to_f32((uint16_t)h);
        uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
        double expected = exponent == 31 ? (fraction ? NAN : INFINITY)
                          : exponent     ? ldexp(1024.0 + fraction, (int)exponent - 25)
                                         : ldexp(fraction, -24);
        if (isnan(expected)) {
            ck_assert(isnan(value));
            ck_assert(isnan(ganq__f16_to_f32(ganq__f32_to_f16(value))));
            continue;
        }
        ck_assert(value == (float)(h & 0x8000 ? -expected : expected));
        ck_assert_uint_eq(ganq__f32_to_f16(value), h); /* -0 included */
    }
}
END_TEST

START_TEST(bf16_to_f32_and_back) {
    for (uint32_t h = 0; h < 65536; h++) {
        float value = ganq__bf16_to_f32((uint16_t)h);
        ck_assert_uint_eq(ganq__f32_to_bits(value), h << 16);
        if (isnan(value))
            ck_assert(isnan(ganq__bf16_to_f32(ganq__f32_to_bf16(value))));
        else
            ck_assert_uint_eq(ganq__f32_to_bf16(value), h);
    }
}
END_TEST

/* Of the two neighbours the nearer one; of two equally near ones the even one. `next` is the
 * value's neighbour away from zero in the short type, `here` the one towards zero. */
static void check_rounding(float value, uint16_t got, uint16_t here, double here_value,
                           double next_value) {
    double low = fabs(value) - here_value, high = next_value - fabs(value);
    uint16_t expected = low < high || (low == high && !(here & 1)) ? here : (uint16_t)(here + 1);
    ck_assert_msg(got == expected, "%a: found %04x, expected %04x", (double)value, got, expected);
}

START_TEST(rounding_to_nearest_even) {
    /* every short value, and where it is halfway to the next, a little less, a little more */
    for (uint16_t h = 0; h < 0x7bff; h++) {
        double here = ganq__f16_to_f32(h), next = ganq__f16_to_f32((uint16_t)(h + 1));
        float half = (float)((here + next) / 2);
        const float values[4] = {(float)here, nextafterf(half, 0), half,
                                 nextafterf(half, INFINITY)};
        for (int i = 0; i < 4; i++)
            check_rounding(values[i], ganq__f32_to_f16(values[i]), h, here, next);
        ck_assert_uint_eq(ganq__f32_to_f16(-half), ganq__f32_to_f16(half) | 0x8000);
    }
    for (uint16_t h = 0; h < 0x7f7f; h++) {
        double here = ganq__bf16_to_f32(h), next = ganq__bf16_to_f32((uint16_t)(h + 1));
        float half = (float)((here + next) / 2);
        const float values[4] = {(float)here, nextafterf(half, 0), half,
                                 nextafterf(half, INFINITY)};
        for (int i = 0; i < 4; i++)
            check_rounding(values[i], ganq__f32_to_bf16(values[i]), h, here, next);
    }
    ck_assert_uint_eq(ganq__f32_to_f16(65519.996f), 0x7bff);
    ck_assert_uint_eq(ganq__f32_to_f16(65520.0f), 0x7c00);
    ck_assert_uint_eq(ganq__f32_to_f16(-INFINITY), 0xfc00);
    ck_assert_uint_eq(ganq__f32_to_f16(1e-30f), 0);
    ck_assert_uint_eq(ganq__f32_to_f16(0x1p-25f), 0);
    ck_assert_uint_eq(ganq__f32_to_f16(0x1.000002p-25f), 1);
    ck_assert_uint_eq(ganq__f32_to_bf16(3.4028235e38f), 0x7f80);
}
END_TEST

START_TEST(arrays) {
    enum { COUNT = 5 };
    const float values[COUNT] = {1, -2.5f, 0.33333334f, 65504, -0.0f};
    const int32_t dtypes[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16, GANQ_DTYPE_F64};
    for (int i = 0; i < 4; i++) {
        unsigned char bytes[1 + 8 * COUNT];
        float back[COUNT];
        ganq__from_f32(bytes + 1, values, dtypes[i], COUNT); /* unaligned */
        ganq__to_f32(back, bytes + 1, dtypes[i], COUNT);
        for (int k = 0; k < COUNT; k++) {
            float expected =
                dtypes[i] == GANQ_DTYPE_F16    ? ganq__f16_to_f32(ganq__f32_to_f16(values[k]))
                : dtypes[i] == GANQ_DTYPE_BF16 ? ganq__bf16_to_f32(ganq__f32_to_bf16(values[k]))
                                               : values[k];
            ck_assert_uint_eq(ganq__f32_to_bits(back[k]), ganq__f32_to_bits(expected));
        }
    }
    ck_assert_uint_eq(ganq__dtype_size(GANQ_DTYPE_BF16), 2);
    ck_assert_uint_eq(ganq__dtype_size(0), 0);
    ck_assert_uint_eq(ganq__dtype_size(99), 0);
    ck_assert_str_eq(ganq__dtype_name(GANQ_DTYPE_F64), "F64");
    ck_assert_str_eq(ganq__dtype_name(-1), "unknown");
}
END_TEST

START_TEST(nonfinite_values_are_found) {
    enum { COUNT = 1000 };
    static float values[COUNT];
    for (int i = 0; i < COUNT; i++)
        values[i] = i % 2 ? 3.4028235e38f : -1e-45f;
    ck_assert_int_eq(ganq__find_nonfinite(values, COUNT), -1);
    ck_assert_int_eq(ganq__find_nonfinite(values, 0), -1);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int b = 0; b < 3; b++)
        for (int i = 0; i < COUNT; i += 37) {
            float old = values[i];
            values[i] = bad[b];
            ck_assert_int_eq(ganq__find_nonfinite(values, COUNT), i);
            ck_assert_int_eq(ganq__find_nonfinite(values, i), -1);
            values[i] = old;
        }
}
END_TEST

START_TEST(matrices_of_callers) {
    float data[12];
    ganq_matrix ours, good = GANQ_MATRIX(GANQ_DTYPE_F32, 3, 4, data);
    ck_ganq_ok(ganq__matrix_read(&ours, &good, GANQ__DTYPES_FLOAT, 3, -1, "x"));
    ck_assert_int_eq(ours.row_stride, 4);
    ck_assert_ptr_eq(ganq__matrix_row(&ours, 2), data + 8);
    ck_assert_ptr_eq(ganq__matrix_row_mut(&ours, 1), data + 4);
    ck_ganq_fails(ganq__matrix_read(&ours, NULL, GANQ__DTYPES_FLOAT, -1, -1, "x"),
                  GANQ_ERR_INVALID_ARG, "x is NULL");
    ck_ganq_fails(ganq__matrix_read(&ours, &good, GANQ__DTYPES_FLOAT, 2, -1, "x"),
                  GANQ_ERR_INVALID_ARG, "[3,4], expected [2,-1]");
    ck_ganq_fails(ganq__matrix_read(&ours, &good, GANQ__DTYPES_FLOAT, -1, 5, "x"),
                  GANQ_ERR_INVALID_ARG, "expected");
    ck_ganq_fails(ganq__matrix_read(&ours, &good, GANQ__DTYPE_BIT(GANQ_DTYPE_U8), -1, -1, "x"),
                  GANQ_ERR_INVALID_ARG, "F32");
#define WITH(field, value, status, words)                                                          \
    do {                                                                                           \
        ganq_matrix bad = good;                                                                    \
        bad.field = (value);                                                                       \
        ck_ganq_fails(ganq__matrix_read(&ours, &bad, GANQ__DTYPES_FLOAT, -1, -1, "x"), status,     \
                      words);                                                                      \
    } while (0)
    WITH(struct_size, 0, GANQ_ERR_INVALID_ARG, "struct_size");
    WITH(dtype, 0, GANQ_ERR_INVALID_ARG, "x: element type");
    WITH(dtype, -7, GANQ_ERR_INVALID_ARG, "x: element type");
    WITH(dtype, 33, GANQ_ERR_INVALID_ARG, "x: element type");
    WITH(dtype, GANQ_DTYPE_F64, GANQ_ERR_INVALID_ARG, "F64");
    WITH(rows, 0, GANQ_ERR_INVALID_ARG, "at least 1");
    WITH(cols, -1, GANQ_ERR_INVALID_ARG, "at least 1");
    WITH(row_stride, 3, GANQ_ERR_INVALID_ARG, "row_stride 3");
    WITH(row_stride, -4, GANQ_ERR_INVALID_ARG, "row_stride -4");
    WITH(row_stride, INT64_MAX, GANQ_ERR_INVALID_ARG, "address space");
    WITH(rows, INT64_MAX / 8, GANQ_ERR_INVALID_ARG, "address space");
    WITH(device, 1, GANQ_ERR_UNSUPPORTED, "device 1");
    WITH(reserved, 1, GANQ_ERR_UNSUPPORTED, "reserved");
    WITH(data, NULL, GANQ_ERR_INVALID_ARG, "data is NULL");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dtype");
    TCase *tcase = tcase_create("dtype");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, f16_to_f32_and_back);
    tcase_add_test(tcase, bf16_to_f32_and_back);
    tcase_add_test(tcase, rounding_to_nearest_even);
    tcase_add_test(tcase, arrays);
    tcase_add_test(tcase, nonfinite_values_are_found);
    tcase_add_test(tcase, matrices_of_callers);
    suite_add_tcase(suite, tcase);
    return test_run(suite, 0);
}
