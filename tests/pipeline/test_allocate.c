/* test_allocate.c - the choice of bits against trying every choice. */
#include <math.h>

#include "allocate.h"
#include "check_util.h"

enum { MOST = 7 };

static uint32_t state = 7;
static int64_t number(int64_t below) {
    state = state * 1664525u + 1013904223u;
    return (int64_t)(state >> 8) % below;
}

static void draw(int count, int64_t step, ganq__choice *choices) {
    for (int i = 0; i < count; i++) {
        choices[i].bytes[0] = step * (1 + number(9));
        choices[i].bytes[1] = choices[i].bytes[0] + step * (1 + number(9));
        choices[i].bytes[2] = choices[i].bytes[1] + step * (1 + number(9));
        for (int width = 0; width < GANQ__WIDTHS; width++)
            choices[i].cost[width] = (double)number(1000) / (1 + width * width * width);
    }
}

/* The sums for one bits per linear; count numbers in base 3. */
static void add_up(int count, const ganq__choice *choices, const int32_t *bits, int64_t *bytes,
                   double *cost) {
    *bytes = 0;
    *cost = 0;
    for (int i = 0; i < count; i++) {
        *bytes += choices[i].bytes[bits[i] - GANQ__MIN_BITS];
        *cost += choices[i].cost[bits[i] - GANQ__MIN_BITS];
    }
}

static double least_cost(int count, const ganq__choice *choices, int64_t budget) {
    double least = INFINITY;
    int all = 1;
    for (int i = 0; i < count; i++)
        all *= GANQ__WIDTHS;
    for (int trial = 0; trial < all; trial++) {
        int32_t bits[MOST];
        int64_t bytes;
        double cost;
        for (int i = 0, rest = trial; i < count; i++, rest /= GANQ__WIDTHS)
            bits[i] = GANQ__MIN_BITS + rest % GANQ__WIDTHS;
        add_up(count, choices, bits, &bytes, &cost);
        if (bytes <= budget && cost < least)
            least = cost;
    }
    return least;
}

START_TEST(is_the_best_of_all) {
    for (int round = 0; round < 200; round++) {
        ganq__choice choices[MOST];
        int32_t bits[MOST];
        const int count = 1 + (int)number(MOST);
        const int64_t step = 1 + number(5000);
        int64_t low = 0, high = 0, bytes;
        double cost;
        draw(count, step, choices);
        for (int i = 0; i < count; i++) {
            low += choices[i].bytes[0];
            high += choices[i].bytes[2];
        }
        const int64_t budget = low + number(high - low + step);
        ck_ganq_ok(ganq__allocate(count, choices, budget, bits));
        add_up(count, choices, bits, &bytes, &cost);
        ck_assert_int_le(bytes, budget);
        ck_assert_double_eq_tol(cost, least_cost(count, choices, budget), 1e-9);
    }
}
END_TEST

/* Bytes without a common divisor, in gigabytes: counted in coarser units, and still within. */
START_TEST(large_odd_sizes) {
    enum { COUNT = 60 };
    ganq__choice choices[COUNT];
    int32_t bits[COUNT];
    int64_t low = 0, high = 0, bytes;
    double cost;
    draw(COUNT, 10000019, choices);
    for (int i = 0; i < COUNT; i++) {
        choices[i].bytes[1] += number(1000);
        choices[i].bytes[2] += number(1000);
        choices[i].cost[0] = (double)(choices[i].bytes[2] - choices[i].bytes[0]);
        choices[i].cost[1] = (double)(choices[i].bytes[2] - choices[i].bytes[1]);
        choices[i].cost[2] = 0;
        low += choices[i].bytes[0];
        high += choices[i].bytes[2];
    }
    const int64_t budget = (low + high) / 2;
    ck_ganq_ok(ganq__allocate(COUNT, choices, budget, bits));
    add_up(COUNT, choices, bits, &bytes, &cost);
    ck_assert_int_le(bytes, budget);
    /* cost is what is missing to the largest sizes: nearly all of the budget is used */
    ck_assert_double_le(cost, (double)(high - budget) + 0.01 * (double)(high - low));
}
END_TEST

START_TEST(a_budget_too_small_gives_two_bits) {
    ganq__choice choices[2] = {{{10, 20, 30}, {3, 2, 1}}, {{10, 20, 30}, {3, 2, 1}}};
    int32_t bits[2];
    ck_ganq_ok(ganq__allocate(2, choices, 5, bits));
    ck_assert_int_eq(bits[0], 2);
    ck_assert_int_eq(bits[1], 2);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("allocate");
    TCase *tests = tcase_create("allocate");
    tcase_add_test(tests, is_the_best_of_all);
    tcase_add_test(tests, large_odd_sizes);
    tcase_add_test(tests, a_budget_too_small_gives_two_bits);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
