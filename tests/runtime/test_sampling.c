/* test_sampling.c - greedy, each filter and their order on handmade logits, the distribution drawn.
 */
#include <math.h>

#include "check_util.h"
#include "sampling.h"

enum { COUNT = 8, DRAWS = 40000 };
/* Probabilities .30 .20 .16 .12 .10 .06 .04 .02 at shuffled ids. */
static const double probability[COUNT] = {.10, .20, .02, .30, .04, .16, .12, .06};

static void make_logits(float *logits) {
    for (int i = 0; i < COUNT; i++)
        logits[i] = (float)(log(probability[i]) + 3);
}

/* Counts of DRAWS draws. */
static void draw(const ganq_sampling *sampling, int *counts) {
    float logits[COUNT];
    ganq__candidate scratch[COUNT];
    ganq__random random;
    make_logits(logits);
    ganq__random_seed(&random, 11);
    ck_ganq_ok(ganq__sampling_check(sampling));
    memset(counts, 0, COUNT * sizeof *counts);
    for (int i = 0; i < DRAWS; i++) {
        int32_t id = -1; /* a check costs a system call: not on every draw */
        if (ganq__sample(sampling, logits, COUNT, scratch, &random, &id) != GANQ_OK || id < 0 ||
            id >= COUNT)
            ck_abort_msg("draw %d gave id %d", i, (int)id);
        counts[id]++;
    }
}

/* Draws follow `expected` (sums to 1) within five standard deviations; 0 is never drawn. */
static void check_draws(const ganq_sampling *sampling, const double *expected) {
    int counts[COUNT];
    draw(sampling, counts);
    for (int i = 0; i < COUNT; i++) {
        const double mean = DRAWS * expected[i], deviation = sqrt(mean * (1 - expected[i]));
        ck_assert_msg(fabs(counts[i] - mean) <= 5 * deviation, "id %d: %d draws, expected %g", i,
                      counts[i], mean);
    }
}

/* probability^(1/temperature) of those at least `least` likely, scaled to 1. */
static void expected_above(double least, double temperature, double *expected) {
    double total = 0;
    for (int i = 0; i < COUNT; i++) {
        expected[i] = probability[i] >= least ? pow(probability[i], 1 / temperature) : 0;
        total += expected[i];
    }
    for (int i = 0; i < COUNT; i++)
        expected[i] /= total;
}

START_TEST(greedy) {
    const ganq_sampling sampling = {.struct_size = sizeof sampling, .top_k = 3, .top_p = 0.5f};
    float logits[COUNT];
    int32_t id;
    make_logits(logits);
    ck_ganq_ok(ganq__sample(&sampling, logits, COUNT, NULL, NULL, &id));
    ck_assert_int_eq(id, 3);
    logits[6] = logits[5] = 100; /* the first of equals */
    ck_ganq_ok(ganq__sample(&sampling, logits, COUNT, NULL, NULL, &id));
    ck_assert_int_eq(id, 5);
}
END_TEST

START_TEST(filters) {
    /* `least`: probability of the last one kept */
    static const struct {
        ganq_sampling sampling;
        double least;
    } cases[] = {
        {{.temperature = 1}, 0},
        {{.temperature = 2}, 0},
        {{.temperature = 0.5f}, 0},
        {{.temperature = 1, .top_k = 3}, .16},
        {{.temperature = 1, .top_k = 1}, .30},
        {{.temperature = 1, .top_k = 8}, 0},
        {{.temperature = 1, .top_k = 1000}, 0},
        {{.temperature = 1, .top_p = 0.55f}, .16}, /* .30 + .20 < .55                     */
        {{.temperature = 1, .top_p = 0.45f}, .20},
        {{.temperature = 1, .top_p = 0.001f}, .30}, /* never empty                         */
        {{.temperature = 1, .top_p = 1}, 0},
        {{.temperature = 1, .min_p = 0.39f}, .12}, /* .30 * .39 = .117                    */
        {{.temperature = 1, .min_p = 1}, .30},
        {{.temperature = 2, .min_p = 0.6f}, .12}, /* after temperature: sqrt(.12/.30) = .63 */
        {{.temperature = 1, .top_k = 3, .top_p = 0.74f}, .20}, /* of .66: .50/.66 = .76      */
        {{.temperature = 1, .top_k = 6, .top_p = 0.95f, .min_p = 0.45f}, .16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double expected[COUNT];
        ganq_sampling sampling = cases[i].sampling;
        sampling.struct_size = sizeof sampling;
        expected_above(cases[i].least - 1e-9, sampling.temperature, expected);
        check_draws(&sampling, expected);
    }
}
END_TEST

/* Equal logits: the lower ids are kept, each as likely as the other. */
START_TEST(ties) {
    const ganq_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1, .top_k = 2};
    const float logits[5] = {1, 2, 2, 2, 1};
    int counts[5] = {0};
    ganq__candidate scratch[5];
    ganq__random random;
    ganq__random_seed(&random, 3);
    for (int i = 0; i < 4000; i++) {
        int32_t id = 0;
        if (ganq__sample(&sampling, logits, 5, scratch, &random, &id) == GANQ_OK)
            counts[id]++;
    }
    ck_assert_int_eq(counts[1] + counts[2], 4000);
    ck_assert_int_gt(counts[1], 1800);
    ck_assert_int_gt(counts[2], 1800);
}
END_TEST

START_TEST(seeds) {
    const ganq_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1};
    float logits[COUNT];
    ganq__candidate scratch[COUNT];
    int32_t drawn[3][50];
    make_logits(logits);
    for (int i = 0; i < 3; i++) {
        ganq__random random;
        ganq__random_seed(&random, i < 2 ? 5 : 6);
        for (int j = 0; j < 50; j++)
            ck_ganq_ok(ganq__sample(&sampling, logits, COUNT, scratch, &random, &drawn[i][j]));
    }
    ck_assert_mem_eq(drawn[0], drawn[1], sizeof drawn[0]);
    ck_assert_mem_ne(drawn[0], drawn[2], sizeof drawn[0]);
}
END_TEST

START_TEST(extreme_logits) {
    ganq_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1e-3f};
    ganq__candidate scratch[3];
    ganq__random random;
    int32_t id = -1;
    ganq__random_seed(&random, 1);
    const float steep[3] = {-3e38f, 3e38f, -INFINITY};
    ck_ganq_ok(ganq__sample(&sampling, steep, 3, scratch, &random, &id));
    ck_assert_int_eq(id, 1);
    const float nan[3] = {1, NAN, 2}, infinite[3] = {1, 2, INFINITY};
    const float nothing[3] = {-INFINITY, -INFINITY, -INFINITY};
    id = -1;
    ck_ganq_fails(ganq__sample(&sampling, nan, 3, scratch, &random, &id), GANQ_ERR_NUMERIC,
                  "token 1");
    ck_ganq_fails(ganq__sample(&sampling, infinite, 3, scratch, &random, &id), GANQ_ERR_NUMERIC,
                  "token 2");
    sampling.temperature = 0;
    ck_ganq_fails(ganq__sample(&sampling, nothing, 3, scratch, &random, &id), GANQ_ERR_NUMERIC,
                  "all");
    ck_assert_int_eq(id, -1);
}
END_TEST

START_TEST(refused_settings) {
    static const struct {
        ganq_sampling sampling;
        const char *word;
    } cases[] = {
        {{.temperature = -1}, "temperature"},
        {{.temperature = NAN}, "temperature"},
        {{.temperature = INFINITY}, "temperature"},
        {{.top_k = -1}, "top_k"},
        {{.top_p = 1.5f}, "top_p"},
        {{.top_p = -0.1f}, "top_p"},
        {{.min_p = 2}, "min_p"},
        {{.min_p = NAN}, "min_p"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_ganq_fails(ganq__sampling_check(&cases[i].sampling), GANQ_ERR_INVALID_ARG,
                      cases[i].word);
    const ganq_sampling reserved = {.reserved = 1};
    ck_ganq_fails(ganq__sampling_check(&reserved), GANQ_ERR_UNSUPPORTED, "reserved");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sampling");
    TCase *tests = tcase_create("sampling");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, greedy);
    tcase_add_test(tests, filters);
    tcase_add_test(tests, ties);
    tcase_add_test(tests, seeds);
    tcase_add_test(tests, extreme_logits);
    tcase_add_test(tests, refused_settings);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
