/* test_perplexity.c - both protocols against the definition, applied to float64 logits. */
#include <math.h>

#include "alloc.h"
#include "check_util.h"
#include "corpus.h"
#include "model/tiny.h"
#include "perplexity.h"

enum { VOCAB = 33, SEQUENCES = 5 };

static char dir[300];
static ganq_context *ctx;
static ganq_model *model;
static tiny t;
static int32_t ids[SEQUENCES][60];
/* one without a prediction among them */
static const int lengths[SEQUENCES] = {23, 1, 40, 60, 17};
static ganq_corpus *corpus;

/* Sequences [first, first + count). */
static ganq_corpus *make_corpus(int first, int count) {
    ganq_corpus *made;
    ck_ganq_ok(ganq__corpus_create(&made));
    for (int i = first; i < first + count; i++)
        ck_ganq_ok(ganq__corpus_add(made, ids[i], (size_t)lengths[i]));
    return made;
}

static void setup(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
    ctx = test_context(2, NULL);
    ctx->options.numerics = GANQ_NUMERICS_EXACT;
    t = tiny_default();
    tiny_fill(&t, 31);
    tiny_write(&t, dir);
    ck_ganq_ok(ganq__model_load(ctx, dir, NULL, &model));
    for (int i = 0; i < SEQUENCES; i++) {
        random_ids(ids[i], 60, VOCAB, 40 + (uint64_t)i);
    }
    corpus = make_corpus(0, SEQUENCES);
}
static void teardown(void) {
    ganq__corpus_free(corpus);
    ganq__model_release(model);
    tiny_free(&t);
    ganq__remove_tree(dir);
    ganq__context_release(ctx);
}

/* Sum of -log p of the tokens behind the first. */
static double negative_log_likelihood(const int32_t *window, int count) {
    double *logits = malloc((size_t)(count * VOCAB) * sizeof *logits), sum = 0;
    tiny_forward(&t, window, count, logits);
    for (int p = 0; p + 1 < count; p++) {
        double total = 0;
        for (int i = 0; i < VOCAB; i++)
            total += exp(logits[p * VOCAB + i]);
        sum += log(total) - logits[p * VOCAB + window[p + 1]];
    }
    free(logits);
    return sum;
}

static ganq_perplexity_result measure(int32_t protocol, int64_t context, int64_t max_tokens) {
    const ganq_perplexity_options options = {.struct_size = sizeof options,
                                             .protocol = protocol,
                                             .context = context,
                                             .max_tokens = max_tokens};
    ganq_perplexity_result result = {.struct_size = sizeof result};
    ck_ganq_ok(ganq__perplexity(ctx, model, corpus, &options, &result));
    ck_assert_int_eq(result.protocol, protocol);
    ck_assert_double_eq_tol(result.perplexity, exp(result.nll), 1e-9 * result.perplexity);
    return result;
}

START_TEST(documents) {
    /* all, cut at 30: 23, 30, 30 and 17 tokens */
    double sum = negative_log_likelihood(ids[0], 23) + negative_log_likelihood(ids[2], 30) +
                 negative_log_likelihood(ids[3], 30) + negative_log_likelihood(ids[4], 17);
    ganq_perplexity_result result = measure(GANQ_PERPLEXITY_DOCUMENT, 30, 0);
    ck_assert_int_eq(result.tokens, 22 + 29 + 29 + 16);
    ck_assert_int_eq(result.sequences, 4);
    ck_assert_int_eq(result.context, 30);
    ck_assert_double_eq_tol(result.nll, sum / 96, 1e-5);
    /* the document that reaches 23 predictions is the last */
    sum = negative_log_likelihood(ids[0], 23) + negative_log_likelihood(ids[2], 40);
    result = measure(GANQ_PERPLEXITY_DOCUMENT, 0, 23);
    ck_assert_int_eq(result.tokens, 22 + 39);
    ck_assert_int_eq(result.sequences, 2);
    ck_assert_int_eq(result.context, 96); /* 2048, but the model ends there */
    ck_assert_double_eq_tol(result.nll, sum / 61, 1e-5);
    result = measure(GANQ_PERPLEXITY_DOCUMENT, 0, 22);
    ck_assert_int_eq(result.sequences, 1);
}
END_TEST

START_TEST(windows) {
    int32_t joined[200];
    int total = 0;
    for (int i = 0; i < SEQUENCES; total += lengths[i++])
        memcpy(joined + total, ids[i], (size_t)lengths[i] * sizeof *joined);
    ck_assert_int_eq(total, 141);
    double mean = 0;
    for (int i = 0; i < 4; i++) /* 141 = 4 * 32 + 13 */
        mean += negative_log_likelihood(joined + 32 * i, 32) / 31 / 4;
    ganq_perplexity_result result = measure(GANQ_PERPLEXITY_GPTQ, 32, 0);
    ck_assert_int_eq(result.tokens, 4 * 31);
    ck_assert_int_eq(result.sequences, 4);
    ck_assert_double_eq_tol(result.nll, mean, 1e-5);
    mean = (negative_log_likelihood(joined, 32) + negative_log_likelihood(joined + 32, 32)) / 62;
    result = measure(GANQ_PERPLEXITY_GPTQ, 32, 95);
    ck_assert_int_eq(result.sequences, 2);
    ck_assert_double_eq_tol(result.nll, mean, 1e-5);
    /* threads leave every bit */
    ganq_context *many = test_context(3, NULL), *kept = ctx;
    many->options.numerics = GANQ_NUMERICS_EXACT;
    ctx = many;
    const double again = measure(GANQ_PERPLEXITY_GPTQ, 32, 95).nll;
    ctx = kept;
    ganq__context_release(many);
    ck_assert_mem_eq(&again, &result.nll, sizeof again);
}
END_TEST

START_TEST(log_likelihood) {
    const float even[4] = {1000, 1000, 1000, 1000}, steep[3] = {-1e30f, 50, 0};
    ck_assert_double_eq_tol(ganq__negative_log_likelihood(even, 4, 2), log(4), 1e-12);
    ck_assert_double_eq_tol(ganq__negative_log_likelihood(steep, 3, 1), 0, 1e-12);
    ck_assert_double_eq_tol(ganq__negative_log_likelihood(steep, 3, 2), 50, 1e-12);
}
END_TEST

START_TEST(refusals) {
    static const struct {
        ganq_perplexity_options options;
        int count;
        const char *word;
    } cases[] = {
        {{.protocol = 2}, SEQUENCES, "protocol 2"},
        {{.context = 97}, SEQUENCES, "97"},
        {{.context = 1}, SEQUENCES, "2..96"},
        {{.context = -1}, SEQUENCES, "-1"},
        {{.max_tokens = -1}, SEQUENCES, "max_tokens"},
        {{.context = 32, .max_tokens = 31}, SEQUENCES, "31 tokens"},
        {{.context = 32}, 1, "23 tokens"},
        {{.context = 32}, 0, "0 tokens"},
        {{.protocol = GANQ_PERPLEXITY_DOCUMENT}, 0, "none of the 0"},
    };
    ganq_perplexity_result result = {.tokens = -7};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ganq_corpus *part = make_corpus(0, cases[i].count);
        ck_ganq_fails(ganq__perplexity(ctx, model, part, &cases[i].options, &result),
                      GANQ_ERR_INVALID_ARG, cases[i].word);
        ganq__corpus_free(part);
    }
    ganq_corpus *one_token = make_corpus(1, 1);
    const ganq_perplexity_options options = {.protocol = GANQ_PERPLEXITY_DOCUMENT};
    ck_ganq_fails(ganq__perplexity(ctx, model, one_token, &options, &result), GANQ_ERR_INVALID_ARG,
                  "none of the 1");
    ganq__corpus_free(one_token);
    ganq__corpus_free(corpus);
    ids[2][39] = 33; /* the last one is predicted only, and checked all the same */
    corpus = make_corpus(0, SEQUENCES);
    ck_ganq_fails(ganq__perplexity(ctx, model, corpus, &options, &result), GANQ_ERR_INVALID_ARG,
                  "document 1");
    ck_assert_int_eq(result.tokens, -7);
}
END_TEST

static int calls, cancel_at;
static double last_fraction;
static int64_t last_total;

static int count_call(const ganq_progress *progress, void *user) {
    (void)user;
    calls++;
    ck_assert_int_eq(progress->stage, GANQ_STAGE_EVALUATE);
    ck_assert_double_ge(progress->fraction, last_fraction);
    last_fraction = progress->fraction;
    last_total = progress->total;
    return calls == cancel_at;
}

START_TEST(progress_and_cancel) {
    const ganq_perplexity_options options = {.protocol = GANQ_PERPLEXITY_DOCUMENT};
    ganq_perplexity_result result;
    ctx->options.progress = count_call;
    ck_ganq_ok(ganq__perplexity(ctx, model, corpus, &options, &result));
    ck_assert_int_ge(calls, 1);
    ck_assert_int_eq(last_total, 22 + 39 + 59 + 16);
    calls = 0;
    cancel_at = 1;
    last_fraction = 0;
    ck_ganq_fails(ganq__perplexity(ctx, model, corpus, &options, &result), GANQ_ERR_CANCELED,
                  "cancel");
    ck_assert_int_eq(ctx->progress.depth, 0);
}
END_TEST

START_TEST(failing_allocations) {
    const ganq_perplexity_options options = {.context = 32};
    ganq_perplexity_result result;
    /* one thread: a pool that cannot start its workers goes on without them */
    ganq__context_release(ctx);
    ctx = test_context(1, NULL);
    for (int64_t n = 1;; n++) {
        ck_assert_int_lt(n, 200);
        ganq__alloc_fail_after(n);
        ganq_status status = ganq__perplexity(ctx, model, corpus, &options, &result);
        const int reached = ganq__alloc_count() >= n;
        ganq__alloc_fail_after(0);
        if (!reached) {
            ck_ganq_ok(status);
            break;
        }
        ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("perplexity");
    TCase *tests = tcase_create("perplexity");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, documents);
    tcase_add_test(tests, windows);
    tcase_add_test(tests, log_likelihood);
    tcase_add_test(tests, refusals);
    tcase_add_test(tests, progress_and_cancel);
    tcase_add_test(tests, failing_allocations);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
