/* test_session.c - prefill, step, truncate, generate: the same logits on every way, and what is
 * refused. */
#include <math.h>

#include "alloc.h"
#include "check_util.h"
#include "model/tiny.h"
#include "session.h"

static char dir[300];
static ganq_context *ctx;
static tiny t;

static void setup(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
    ctx = test_context(2, NULL);
    t = tiny_default();
    t.positions = 400;
    tiny_fill(&t, 21);
}
static void teardown(void) {
    tiny_free(&t);
    ganq__remove_tree(dir);
    ganq__context_release(ctx);
}

/* quantized: with layers, else dense. */
static ganq_model *make_model(int quantized) {
    ganq_model *model;
    if (quantized)
        return tiny_quantized(ctx, &t, dir);
    tiny_write(&t, dir);
    ck_ganq_ok(ganq__model_load(ctx, dir, NULL, &model));
    return model;
}

enum { COUNT = 300, VOCAB = 33 }; /* more than one piece of GANQ__CHUNK tokens */

/* logits [COUNT, VOCAB] of a new session; `pieces` tokens per call. */
static float *run_session(ganq_context *c, const ganq_model *model, const int32_t *ids,
                          int pieces) {
    ganq_session *session;
    float *logits = malloc(COUNT * VOCAB * sizeof *logits);
    ck_ganq_ok(ganq__session_create(c, model, COUNT, &session));
    for (int done = 0; done < COUNT; done += pieces) {
        const int count = COUNT - done < pieces ? COUNT - done : pieces;
        ck_ganq_ok(ganq__session_prefill(session, ids + done, count, logits + done * VOCAB));
        ck_assert_int_eq(session->length, done + count);
        ck_assert_mem_eq(session->logits, logits + (done + count - 1) * VOCAB,
                         VOCAB * sizeof *logits);
    }
    ganq__session_free(session);
    return logits;
}

/* In exact numerics; test_numerics.c has fast. Parameter 0: dense, 1: quantized. */
START_TEST(prefill_equals_steps) {
    ctx->options.numerics = GANQ_NUMERICS_EXACT;
    ganq_model *model = make_model(_i);
    int32_t ids[COUNT];
    random_ids(ids, COUNT, VOCAB, 1);
    double *expected = malloc(COUNT * VOCAB * sizeof *expected), range;
    tiny_forward(&t, ids, COUNT > 250 ? 250 : COUNT, expected); /* the check's arrays end at 256 */
    float *whole = run_session(ctx, model, ids, COUNT);
    double worst = largest_difference(whole, expected, 250 * VOCAB, &range);
    ck_assert_msg(worst <= 1e-4 * range, "prefill differs by %g of %g", worst, range);
    double *whole64 = malloc(COUNT * VOCAB * sizeof *whole64);
    for (int i = 0; i < COUNT * VOCAB; i++)
        whole64[i] = whole[i];
    static const int pieces[] = {1, 7, 256};
    for (int i = 0; i < 3; i++) {
        float *parts = run_session(ctx, model, ids, pieces[i]);
        worst = largest_difference(parts, whole64, COUNT * VOCAB, &range);
        ck_assert_msg(worst <= 1e-4 * range, "pieces of %d differ by %g of %g", pieces[i], worst,
                      range);
        free(parts);
    }
    /* threads: every bit, whole and step by step */
    ganq_context *one = test_context(1, NULL), *three = test_context(3, NULL);
    for (int i = 0; i < 2; i++) {
        const int size = i ? 1 : COUNT;
        float *a = run_session(one, model, ids, size), *b = run_session(three, model, ids, size);
        ck_assert_mem_eq(a, b, COUNT * VOCAB * sizeof *a);
        free(a);
        free(b);
    }
    ganq__context_release(one);
    ganq__context_release(three);
    free(whole);
    free(whole64);
    free(expected);
    ganq__model_release(model);
}
END_TEST

START_TEST(truncating) {
    ganq_model *model = make_model(0);
    ganq_session *session, *fresh;
    int32_t ids[60], other[60];
    random_ids(ids, 60, VOCAB, 2);
    random_ids(other, 60, VOCAB, 3);
    memcpy(other, ids, 20 * sizeof *ids);
    ck_ganq_ok(ganq__session_create(ctx, model, 64, &session));
    ck_ganq_ok(ganq__session_create(ctx, model, 64, &fresh));
    ck_ganq_ok(ganq__session_prefill(session, ids, 60, NULL));
    ck_ganq_fails(ganq__session_truncate(session, 61), GANQ_ERR_INVALID_ARG, "holds 60");
    ck_ganq_fails(ganq__session_truncate(session, -1), GANQ_ERR_INVALID_ARG, "-1");
    ck_ganq_ok(ganq__session_truncate(session, 60));
    ck_assert_int_eq(session->has_logits, 1);
    ck_ganq_ok(ganq__session_truncate(session, 20));
    ck_assert_int_eq(session->length, 20);
    ck_assert_int_eq(session->has_logits, 0);
    int32_t id;
    ck_ganq_fails(ganq__session_sample(session, NULL, &id), GANQ_ERR_INVALID_ARG, "no logits");
    ck_ganq_ok(ganq__session_prefill(session, other + 20, 40, NULL));
    ck_ganq_ok(ganq__session_prefill(fresh, other, 60, NULL));
    ck_assert_mem_eq(session->logits, fresh->logits, VOCAB * sizeof(float));
    ck_ganq_ok(ganq__session_truncate(session, 0));
    ck_ganq_ok(ganq__session_prefill(session, ids, 1, NULL));
    ck_assert_int_eq(session->length, 1);
    ganq__session_free(session);
    ganq__session_free(fresh);
    ganq__session_free(NULL);
    ganq__model_release(model);
}
END_TEST

START_TEST(refusals_leave_the_session) {
    ganq_model *model = make_model(0);
    ganq_session *session = NULL;
    ck_ganq_fails(ganq__session_create(ctx, model, 401, &session), GANQ_ERR_INVALID_ARG, "400");
    ck_ganq_fails(ganq__session_create(ctx, model, -1, &session), GANQ_ERR_INVALID_ARG, "-1");
    ck_assert_ptr_null(session);
    ctx->options.memory_budget_bytes = 1000;
    ck_ganq_fails(ganq__session_create(ctx, model, 100, &session), GANQ_ERR_NO_MEMORY, "budget");
    ctx->options.memory_budget_bytes = 0;
    ck_ganq_ok(ganq__session_create(ctx, model, 0, &session));
    ck_assert_int_eq(session->capacity, 400);
    ganq__session_free(session);

    int32_t ids[10] = {1, 2, 3, 4, 5, 6, 7, 33, 0, -5}, id;
    float before[VOCAB];
    ck_ganq_ok(ganq__session_create(ctx, model, 10, &session));
    ck_ganq_fails(ganq__session_sample(session, NULL, &id), GANQ_ERR_INVALID_ARG, "no logits");
    ck_ganq_ok(ganq__session_prefill(session, ids, 7, NULL));
    memcpy(before, session->logits, sizeof before);
    ck_ganq_fails(ganq__session_prefill(session, ids + 7, 1, NULL), GANQ_ERR_INVALID_ARG, "33");
    ck_ganq_fails(ganq__session_prefill(session, ids + 8, 2, NULL), GANQ_ERR_INVALID_ARG, "-5");
    ck_ganq_fails(ganq__session_prefill(session, ids, 4, NULL), GANQ_ERR_INVALID_ARG,
                  "holds 7 of 10");
    ck_ganq_fails(ganq__session_prefill(session, ids, 0, NULL), GANQ_ERR_INVALID_ARG, "no tokens");
    ck_assert_int_eq(session->length, 7);
    ck_assert_mem_eq(before, session->logits, sizeof before);
    ck_ganq_ok(ganq__session_prefill(session, ids, 3, NULL));
    ck_ganq_fails(ganq__session_prefill(session, ids, 1, NULL), GANQ_ERR_INVALID_ARG, "holds 10");
    ganq__session_free(session);
    ganq__model_release(model);
}
END_TEST

/* The session holds on to what it needs, and a step takes no memory. Parameter 0: dense; 1, 2: with
 * layers, in exact and in fast numerics. */
START_TEST(references_and_steps_without_allocation) {
    ganq_context *own = test_context(2, NULL);
    ganq_model *model = make_model(_i > 0);
    own->options.numerics = _i == 2 ? GANQ_NUMERICS_FAST : GANQ_NUMERICS_EXACT;
    ganq_session *session;
    ck_ganq_ok(ganq__session_create(own, model, 50, &session));
    ganq__context_release(own);
    ganq__model_release(model);
    const int32_t ids[] = {1, 2, 3};
    const ganq_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1, .top_k = 5};
    int32_t id;
    ck_ganq_ok(ganq__session_prefill(session, ids, 3, NULL));
    ck_ganq_ok(ganq__session_prefill(session, ids, 1, NULL));
    ganq__alloc_fail_after(1);
    ck_ganq_ok(ganq__session_prefill(session, ids, 1, NULL));
    ck_ganq_ok(ganq__session_sample(session, &sampling, &id));
    ck_assert_int_eq(ganq__alloc_count(), 0);
    ganq__alloc_fail_after(0);
    ganq__session_free(session);
}
END_TEST

START_TEST(failing_allocations) {
    ganq_model *model = make_model(0);
    for (int64_t n = 1;; n++) {
        ganq_session *session = NULL;
        ck_assert_int_lt(n, 200);
        ganq__alloc_fail_after(n);
        ganq_status status = ganq__session_create(ctx, model, 20, &session);
        const int reached = ganq__alloc_count() >= n;
        ganq__alloc_fail_after(0);
        if (!reached) {
            ck_ganq_ok(status);
            ganq__session_free(session);
            break;
        }
        ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
        ck_assert_ptr_null(session);
    }
    ganq__model_release(model);
}
END_TEST

/* What a callback was handed; stops after `limit`. */
typedef struct handed {
    int32_t ids[128];
    int count, limit;
} handed;

static int take(int32_t id, void *user) {
    handed *h = user;
    h->ids[h->count++] = id;
    return h->count == h->limit;
}

START_TEST(generating) {
    ganq_model *model = make_model(0);
    ganq_session *session;
    const int32_t prompt[] = {1, 5, 9};
    int32_t expected[12];
    ck_ganq_ok(ganq__session_create(ctx, model, 40, &session));
    ck_ganq_ok(ganq__session_prefill(session, prompt, 3, NULL));
    for (int i = 0; i < 12; i++) { /* greedy by hand */
        expected[i] = 0;
        for (int j = 1; j < VOCAB; j++)
            if (session->logits[j] > session->logits[expected[i]])
                expected[i] = j;
        ck_ganq_ok(ganq__session_prefill(session, &expected[i], 1, NULL));
    }
    ganq_generate_options options = {
        .struct_size = sizeof options, .max_tokens = 12, .stop_count = -1};
    handed got = {.limit = -1};
    int64_t generated = -1;
    ck_ganq_ok(ganq__session_truncate(session, 0));
    ck_ganq_fails(ganq__session_generate(session, &options, take, &got, &generated),
                  GANQ_ERR_INVALID_ARG, "no logits");
    ck_ganq_ok(ganq__session_prefill(session, prompt, 3, NULL));
    ck_ganq_ok(ganq__session_generate(session, &options, take, &got, &generated));
    ck_assert_int_eq(generated, 12);
    ck_assert_mem_eq(got.ids, expected, sizeof expected);
    ck_assert_int_eq(session->length, 15);

    /* the first time the fifth token comes up ends it, unheard */
    int first = 0;
    while (expected[first] != expected[4])
        first++;
    options.stop = &expected[4];
    options.stop_count = 1;
    got = (handed){.limit = -1};
    ck_ganq_ok(ganq__session_truncate(session, 0));
    ck_ganq_ok(ganq__session_prefill(session, prompt, 3, NULL));
    ck_ganq_ok(ganq__session_generate(session, &options, take, &got, &generated));
    ck_assert_int_eq(generated, first);
    ck_assert_int_eq(got.count, first);

    /* the callback's wish, and going on from there */
    options.stop = NULL;
    options.stop_count = -1;
    got = (handed){.limit = 5};
    ck_ganq_ok(ganq__session_truncate(session, 0));
    ck_ganq_ok(ganq__session_prefill(session, prompt, 3, NULL));
    ck_ganq_ok(ganq__session_generate(session, &options, take, &got, &generated));
    ck_assert_int_eq(generated, 5);
    options.max_tokens = 7;
    ck_ganq_ok(ganq__session_generate(session, &options, take, &got, &generated));
    ck_assert_int_eq(generated, 7);
    ck_assert_mem_eq(got.ids, expected, sizeof expected);

    /* a full cache ends it; no callback is fine */
    options.max_tokens = 1000;
    ck_ganq_ok(ganq__session_generate(session, &options, NULL, NULL, &generated));
    ck_assert_int_eq(generated, 40 - 15);
    ck_ganq_ok(ganq__session_generate(session, &options, NULL, NULL, NULL));
    ck_assert_int_eq(session->length, 40);

    /* equal seeds, equal tokens; another seed, others */
    options.sampling = (ganq_sampling){.struct_size = sizeof options.sampling, .temperature = 2};
    options.max_tokens = 30;
    handed draws[3];
    for (int i = 0; i < 3; i++) {
        options.sampling.seed = i < 2 ? 7 : 8;
        draws[i] = (handed){.limit = -1};
        ganq_session *another;
        ck_ganq_ok(ganq__session_create(ctx, model, 40, &another));
        ck_ganq_ok(ganq__session_prefill(another, prompt, 3, NULL));
        ck_ganq_ok(ganq__session_generate(another, &options, take, &draws[i], NULL));
        ganq__session_free(another);
    }
    ck_assert_mem_eq(&draws[0], &draws[1], sizeof draws[0]);
    ck_assert_mem_ne(draws[0].ids, draws[2].ids, sizeof draws[0].ids);

    /* the model's own end of sequence, id 2: logits that make it win */
    ck_ganq_ok(ganq__session_truncate(session, 3));
    ck_ganq_ok(ganq__session_prefill(session, prompt, 1, NULL));
    session->logits[2] = 1e6f;
    options = (ganq_generate_options){.struct_size = sizeof options, .max_tokens = 5};
    ck_ganq_ok(ganq__session_generate(session, &options, NULL, NULL, &generated));
    ck_assert_int_eq(generated, 0);
    ganq__session_free(session);
    ganq__model_release(model);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("session");
    TCase *tests = tcase_create("session");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, prefill_equals_steps, 0, 2);
    tcase_add_test(tests, truncating);
    tcase_add_test(tests, refusals_leave_the_session);
    tcase_add_loop_test(tests, references_and_steps_without_allocation, 0, 3);
    tcase_add_test(tests, failing_allocations);
    tcase_add_test(tests, generating);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
