/* test_numerics.c - what ganq/context.h promises of the two numerics in a whole model: `fast`
 * against `exact`, and prefill against single steps, on the shipped model in 4, 3 and 2 bits. */
#include <math.h>

#include "check_util.h"
#include "ganq/ganq.h"

#define DATA GANQ_SOURCE_DIR "/examples/data/"

enum { COUNT = 100 };

/* Where there are kernels for `fast`. */
static const char *const isas[] = {"avx2", "avx512"};
enum { ISAS = 2, BITS = 3 };

/* NULL where the processor lacks the instruction set. */
static ganq_context *open_context(const char *isa, int32_t numerics) {
    const ganq_context_options options = {.struct_size = sizeof options,
                                          .device = GANQ_DEVICE_CPU,
                                          .threads = 2,
                                          .numerics = numerics};
    ganq_context *ctx = NULL;
    ck_assert_int_eq(setenv("GANQ_CPU_ISA", isa, 1), 0);
    const ganq_status status = ganq_context_create(&options, &ctx);
    ck_assert(status == GANQ_OK || status == GANQ_ERR_INVALID_ARG);
    ck_assert_int_eq(unsetenv("GANQ_CPU_ISA"), 0);
    return ctx;
}

/* The shipped model, rounded to nearest. */
static ganq_model *open_model(ganq_context *ctx, int bits) {
    ganq_model *dense, *model;
    ganq_quantize_options layer;
    ganq_quantize_options_init(&layer, sizeof layer);
    layer.bits = (uint32_t)bits;
    layer.recipe = GANQ_RECIPE_RTN;
    const ganq_model_quantize_options options = {.struct_size = sizeof options, .layer = &layer};
    ck_ganq_ok(ganq_model_load(ctx, DATA "tiny-llama", NULL, &dense));
    ck_ganq_ok(ganq_model_quantize(ctx, dense, NULL, &options, &model));
    ganq_model_free(dense);
    return model;
}

static ganq_corpus *open_corpus(void) {
    const ganq_corpus_options options = {
        .struct_size = sizeof options, .mode = GANQ_SAMPLE_JOINED, .samples = -1, .length = COUNT};
    ganq_tokenizer *tokenizer;
    ganq_corpus *corpus;
    ck_ganq_ok(ganq_tokenizer_load(DATA "tiny-llama", &tokenizer));
    ck_ganq_ok(ganq_corpus_load(tokenizer, DATA "text/evaluation.jsonl", &options, &corpus));
    ganq_tokenizer_free(tokenizer);
    return corpus;
}

/* [COUNT, vocab]: `steps` of the last tokens one by one, the others at once. */
static float *run(ganq_context *ctx, const ganq_model *model, const int32_t *ids, int64_t vocab,
                  int steps) {
    float *logits = malloc((size_t)(COUNT * vocab) * sizeof *logits);
    ganq_session *session;
    ck_ganq_ok(ganq_session_create(ctx, model, COUNT, &session));
    if (steps < COUNT)
        ck_ganq_ok(ganq_session_prefill_logits(session, ids, (size_t)(COUNT - steps), logits));
    for (int i = COUNT - steps; i < COUNT; i++) {
        ck_ganq_ok(ganq_session_step(session, ids[i]));
        memcpy(logits + i * vocab, ganq_session_logits(session), (size_t)vocab * sizeof *logits);
    }
    ganq_session_free(session);
    return logits;
}

/* Largest difference relative to the range of b. */
static double distance(const float *a, const float *b, int64_t count) {
    double worst = 0, low = b[0], high = b[0];
    for (int64_t i = 0; i < count; i++) {
        if (!(fabs((double)a[i] - b[i]) <= worst))
            worst = fabs((double)a[i] - b[i]);
        low = fmin(low, b[i]);
        high = fmax(high, b[i]);
    }
    return worst / (high - low);
}

static double perplexity(ganq_context *ctx, const ganq_model *model, const ganq_corpus *corpus) {
    const ganq_perplexity_options options = {
        .struct_size = sizeof options, .context = COUNT, .max_tokens = 4 * COUNT};
    ganq_perplexity_result result = {.struct_size = sizeof result};
    ck_ganq_ok(ganq_model_perplexity(ctx, model, corpus, &options, &result));
    return result.perplexity;
}

/* Parameter: instruction set and bits. */
START_TEST(fast_against_exact) {
    ganq_context *exact = open_context(isas[_i / BITS], GANQ_NUMERICS_EXACT);
    ganq_context *fast = open_context(isas[_i / BITS], GANQ_NUMERICS_FAST);
    if (!exact)
        return;
    ganq_model *model = open_model(exact, 2 + _i % BITS);
    ganq_corpus *corpus = open_corpus();
    ganq_model_info info = {.struct_size = sizeof info};
    size_t count;
    const int32_t *ids = ganq_corpus_get(corpus, 0, &count);
    ck_ganq_ok(ganq_model_get_info(model, &info));
    ck_assert_uint_ge(count, COUNT);
    const int64_t vocab = info.vocab_size, values = COUNT * vocab;
    float *prefill = run(exact, model, ids, vocab, 0),
          *steps = run(exact, model, ids, vocab, COUNT);
    float *fast_prefill = run(fast, model, ids, vocab, 0);
    float *fast_steps = run(fast, model, ids, vocab, COUNT);
    const double of_steps = distance(steps, prefill, values);
    const double of_fast = distance(fast_prefill, prefill, values);
    const double of_fast_steps = distance(fast_steps, fast_prefill, values);
    ck_assert_msg(of_steps <= 1e-5, "exact, steps against prefill: %g", of_steps);
    ck_assert_msg(of_fast <= 3e-3, "fast against exact: %g", of_fast);
    ck_assert_msg(of_fast_steps <= 3e-3, "fast, steps against prefill: %g", of_fast_steps);
    const double p = perplexity(exact, model, corpus), q = perplexity(fast, model, corpus);
    ck_assert_msg(fabs(q / p - 1) <= 1e-3, "perplexity %g in fast, %g in exact", q, p);
    free(prefill);
    free(steps);
    free(fast_prefill);
    free(fast_steps);
    ganq_corpus_free(corpus);
    ganq_model_free(model);
    ganq_context_free(exact);
    ganq_context_free(fast);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("numerics");
    TCase *tests = tcase_create("numerics");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, fast_against_exact, 0, ISAS * BITS);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
