/* test_planes.c - bit planes and lanes: the definition bit by bit, round trips, padding, no
 * over-read. */
#include "check_util.h"
#include "lanes.h"
#include "pack/guard.h"
#include "planes.h"

static const int64_t lengths[] = {1,   7,   31,  32,  33,  63,  64,  65,
                                  127, 128, 129, 255, 256, 257, 511, 600};
enum { LENGTHS = sizeof lengths / sizeof lengths[0], MOST = 600 };

static void fill_codes(uint8_t *codes, int64_t count, int bits, uint32_t seed) {
    for (int64_t k = 0; k < count; k++) {
        seed = seed * 1664525u + 1013904223u;
        codes[k] = (uint8_t)(seed >> 24 & ((1u << bits) - 1));
    }
}

/* Bit b of the code of column k, as docs/format.md says it. */
static int stored_bit(const uint8_t *planes, int bits, int64_t k, int b) {
    const int64_t word = k / 32 * bits + b;
    uint32_t value = 0;
    for (int i = 3; i >= 0; i--)
        value = value << 8 | planes[4 * word + i];
    return value >> (k % 32) & 1;
}

START_TEST(planes_follow_the_definition) {
    const int bits = _i / LENGTHS + 2;
    const int64_t K = lengths[_i % LENGTHS], bytes = ganq__planes_bytes(K, bits);
    uint8_t codes[MOST], back[MOST];
    fill_codes(codes, K, bits, 7u + (uint32_t)_i);
    guarded from = guard_new((size_t)K), planes = guard_new((size_t)bytes);
    memcpy(from.data, codes, (size_t)K);
    ganq__planes_pack(from.data, K, bits, planes.data);
    for (int64_t k = 0; k < (K + 31) / 32 * 32; k++)
        for (int b = 0; b < bits; b++)
            ck_assert_int_eq(stored_bit(planes.data, bits, k, b), k < K ? codes[k] >> b & 1 : 0);
    ganq__planes_unpack(planes.data, K, bits, back);
    ck_assert_mem_eq(back, codes, (size_t)K);
    guard_free(&from);
    guard_free(&planes);
}
END_TEST

START_TEST(every_padding_bit_is_found) {
    const int bits = _i / LENGTHS + 2;
    const int64_t K = lengths[_i % LENGTHS], bytes = ganq__planes_bytes(K, bits);
    uint8_t codes[MOST], planes[MOST];
    fill_codes(codes, K, bits, 99u);
    memset(codes + K - 1, (1 << bits) - 1, 1);
    ganq__planes_pack(codes, K, bits, planes);
    ck_assert_int_eq(ganq__planes_find_padding(planes, K, bits), -1);
    for (int64_t k = K; k < (K + 31) / 32 * 32; k++)
        for (int b = 0; b < bits; b++) {
            const int64_t at = (k / 32 * bits + b) * 4 + k % 32 / 8;
            ck_assert_int_lt(at, bytes);
            planes[at] = (uint8_t)(planes[at] | 1 << k % 8);
            ck_assert_int_eq(ganq__planes_find_padding(planes, K, bits), k);
            planes[at] = (uint8_t)(planes[at] & ~(1 << k % 8));
        }
}
END_TEST

START_TEST(lanes_go_there_and_back_in_the_same_space) {
    const int bits = _i / LENGTHS + 2;
    const int64_t K = lengths[_i % LENGTHS], bytes = ganq__planes_bytes(K, bits);
    uint8_t codes[MOST], back[MOST];
    fill_codes(codes, K, bits, 1234u + (uint32_t)_i);
    guarded lanes = guard_new((size_t)bytes);
    ganq__lanes_pack(codes, K, bits, lanes.data);
    ganq__lanes_unpack(lanes.data, K, bits, back);
    ck_assert_mem_eq(back, codes, (size_t)K);
    /* chunk by chunk, as kernels and dequantization do */
    memset(back, 0xff, sizeof back);
    for (int64_t k = 0; k < K; k += GANQ__LANES_CHUNK) {
        const int64_t count = K - k < GANQ__LANES_CHUNK ? K - k : GANQ__LANES_CHUNK;
        ganq__lanes_unpack((uint8_t *)lanes.data + ganq__planes_bytes(k, bits), count, bits,
                           back + k);
    }
    ck_assert_mem_eq(back, codes, (size_t)K);
    guard_free(&lanes);
}
END_TEST

/* The drawing in lanes.h, for one block of each kind. */
START_TEST(lanes_follow_the_drawing) {
    uint8_t c[256], lanes[128];
    fill_codes(c, 64, 4, 5);
    ganq__lanes_pack(c, 64, 4, lanes);
    for (int i = 0; i < 32; i++)
        ck_assert_int_eq(lanes[i], c[i] | c[32 + i] << 4);
    fill_codes(c, 128, 2, 6);
    ganq__lanes_pack(c, 128, 2, lanes);
    for (int i = 0; i < 32; i++)
        ck_assert_int_eq(lanes[i], c[i] | c[32 + i] << 2 | c[64 + i] << 4 | c[96 + i] << 6);
    fill_codes(c, 256, 3, 7);
    ganq__lanes_pack(c, 256, 3, lanes);
    for (int i = 0; i < 32; i++) {
        ck_assert_int_eq(lanes[i], c[i] | c[32 + i] << 3 | (c[192 + i] >> 1) << 6);
        ck_assert_int_eq(lanes[32 + i], c[64 + i] | c[96 + i] << 3 | (c[224 + i] >> 1) << 6);
        ck_assert_int_eq(lanes[64 + i], c[128 + i] | c[160 + i] << 3 | (c[192 + i] & 1) << 6 |
                                            (c[224 + i] & 1) << 7);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("planes");
    TCase *tests = tcase_create("planes");
    tcase_add_loop_test(tests, planes_follow_the_definition, 0, 3 * LENGTHS);
    tcase_add_loop_test(tests, every_padding_bit_is_found, 0, 3 * LENGTHS);
    tcase_add_loop_test(tests, lanes_go_there_and_back_in_the_same_space, 0, 3 * LENGTHS);
    tcase_add_test(tests, lanes_follow_the_drawing);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
