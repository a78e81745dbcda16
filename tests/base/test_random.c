/* test_random.c - Python's random module, number by number. */
#include "check_util.h"

#include <zlib.h>

#include "random.h"
#include "random_golden.h"

START_TEST(integers_are_python_s) {
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        ganq__random random;
        unsigned long crc = crc32(0, NULL, 0);
        ganq__random_seed(&random, integers[i].seed);
        for (int k = 0; k < 1000; k++) {
            uint64_t value = ganq__random_below(&random, integers[i].n);
            ck_assert_uint_lt(value, integers[i].n);
            if (k < 3)
                ck_assert_uint_eq(value, integers[i].first[k]);
            crc = crc32(crc, (const unsigned char *)&value, sizeof value);
        }
        ck_assert_uint_eq(crc, integers[i].crc32);
    }
}
END_TEST

START_TEST(doubles_are_python_s) {
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) {
        ganq__random random;
        ganq__random_seed(&random, doubles[i].seed);
        for (int k = 0; k < 3; k++)
            ck_assert(ganq__random_double(&random) == doubles[i].first[k]);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("random");
    TCase *tcase = tcase_create("random");
    tcase_add_test(tcase, integers_are_python_s);
    tcase_add_test(tcase, doubles_are_python_s);
    suite_add_tcase(suite, tcase);
    return test_run(suite, 0);
}
