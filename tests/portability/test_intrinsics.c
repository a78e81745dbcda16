/* test_intrinsics.c - the intrinsics of simde/immintrin.h against the processor's, over random
 * bytes and random floats; skipped where the processor has no AVX-512. */
#include "check_util.h"
#include "intrinsics.h"

static unsigned state = 1;
static unsigned random_u32(void) { /* xorshift32 */
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

START_TEST(same_as_the_processors) {
    for (int round = 0; round < 2000; round++) {
        unsigned char in[128], expected[64] = {0}, found[64] = {0};
        for (int i = 0; i < 128; i += 4) {
            const unsigned word = random_u32();
            const float value = (float)(int)word / 65536;
            if (round % 2) /* floats around the limits of 16 bits, and a few far beyond */
                memcpy(in + i, &value, 4);
            else if (_i < 2 || (_i > 2 && _i != 11 && _i != 12)) /* no arithmetic: any bits */
                memcpy(in + i, &word, 4);
            else
                memset(in + i, (int)(word & 1), 4);
        }
        call_native(_i, in, expected);
        call_simde(_i, in, found);
        ck_assert_mem_eq(found, expected, sizeof found);
    }
}
END_TEST

int main(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) {
        puts("this processor has no AVX-512 to compare with");
        return GANQ_TEST_SKIPPED;
    }
    Suite *suite = suite_create("intrinsics");
    TCase *tests = tcase_create("intrinsics");
    tcase_add_loop_test(tests, same_as_the_processors, 0, INTRINSICS);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
