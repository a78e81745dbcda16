/* test_session.c - whole models on the (emulated) GPU: logits, text and perplexity as on the CPU; decode
 * steps recorded once and replayed; nothing left behind. */
#include <cuda_runtime_api.h>
#include <math.h>
#include <pthread.h>

#include "alloc.h"
#include "check_util.h"
#include "context.h"
#include "corpus.h"
#include "emulator.h"
#include "ganq/ganq.h"
#include "lut_gemm.h"
#include "memory.h"
#include "model/tiny.h"
#include "perplexity.h"
#include "session.h"

enum { COUNT = 200, VOCAB = 33 };

/* Logits on the GPU against the CPU's, part of their range: fp32 sums in another order. */
static const double bound = 2e-5;
/* With fast numerics, where inputs are rounded to f16. */
static const double fast_bound = 1e-2;

static char dir[300];
static ganq_context *cpu, *gpu;
static tiny t;
static int32_t ids[COUNT];

static void setup(void) {
    ganq_context_options options = {
        .struct_size = sizeof options, .device = GANQ_DEVICE_CPU, .threads = 2, .numerics = GANQ_NUMERICS_EXACT};
    snprintf(dir, sizeof dir, "%s", test_dir());
    ck_ganq_ok(ganq_context_create(&options, &cpu));
    options.device = GANQ_DEVICE_CUDA;
    ck_ganq_ok(ganq_context_create(&options, &gpu));
    t = tiny_default();
    t.positions = 1200;
    t.layers = 2;
    random_ids(ids, COUNT, VOCAB, 1);
}
static void teardown(void) {
    emulator_counts counts;
    tiny_free(&t);
    ganq__remove_tree(dir);
    ganq_context_free(cpu);
    ganq_context_free(gpu);
    emulator_read_counts(&counts);
    ck_assert_uint_eq(counts.bytes_held, 0);
}

/* 0: dense f32, 1: dense bf16 with biases, 2: quantized, 3: quantized with biases, head norms, a window and a tied head. 4, 5: OPT,
 * dense f16 and quantized. */
enum { KINDS = 6 };
static ganq_model *make_model(int kind) {
    ganq_model *model;
    if (kind >= 4) {
        t = tiny_opt();
        t.positions = 1200;
    }
    if (kind == 4)
        t.dtype = GANQ__ST_F16;
    if (kind == 1) {
        t.dtype = GANQ__ST_BF16;
        t.architecture = "Qwen2ForCausalLM";
        t.qkv_bias = 1;
    }
    if (kind == 3) {
        t.architecture = "Qwen3ForCausalLM";
        t.qk_norm = 1;
        t.tied = 1;
    }
    tiny_fill(&t, 21);
    if (kind >= 2 && kind != 4)
        return tiny_quantized(cpu, &t, dir);
    tiny_write(&t, dir);
    ck_ganq_ok(ganq__model_load(cpu, dir, NULL, &model));
    return model;
}

static const float *logits_of(ganq_session *session) {
    ck_ganq_ok(ganq__session_fetch(session));
    return session->logits;
}

/* logits [COUNT, VOCAB]: 100 tokens at once, ten one by one, the rest at once. */
static float *run_session(ganq_context *ctx, const ganq_model *model) {
    ganq_session *session;
    float *logits = malloc(COUNT * VOCAB * sizeof *logits);
    ck_ganq_ok(ganq__session_create(ctx, model, COUNT, &session));
    ck_ganq_ok(ganq__session_prefill(session, ids, 100, logits));
    for (int i = 100; i < 110; i++) {
        ck_ganq_ok(ganq__session_step(session, ids[i]));
        memcpy(logits + i * VOCAB, logits_of(session), VOCAB * sizeof *logits);
    }
    ck_ganq_ok(ganq__session_prefill(session, ids + 110, COUNT - 110, logits + 110 * VOCAB));
    ganq__session_free(session);
    return logits;
}

static double difference(const float *found, const float *expected) {
    double largest = 0, low = INFINITY, high = -INFINITY;
    for (int i = 0; i < COUNT * VOCAB; i++) {
        if (!(fabs((double)found[i] - expected[i]) <= largest))
            largest = fabs((double)found[i] - expected[i]);
        low = fmin(low, expected[i]);
        high = fmax(high, expected[i]);
    }
    return largest / (high - low);
}

START_TEST(logits) {
    emulator_counts before, after;
    ganq_model *model = make_model(_i);
    float *expected = run_session(cpu, model);
    emulator_read_counts(&before);
    float *found = run_session(gpu, model);
    emulator_read_counts(&after);
    const double d = difference(found, expected);
    ck_assert_msg(d <= bound, "%.3g of the range", d);
    /* of ten steps the first runs as it is, the second is recorded */
    if (emulator_present())
        ck_assert_int_eq(after.graph_launches - before.graph_launches, 9);
    emulator_set_order(1);
    float *reversed = run_session(gpu, model);
    emulator_set_order(0);
    ck_assert_mem_eq(found, reversed, COUNT * VOCAB * sizeof *found);
    free(expected);
    free(found);
    free(reversed);
    ganq__model_release(model);
}
END_TEST

/* Norms and SwiGLU on the way into the products, and as kernels of their own: logits alike, fewer kernels, the same bits
 * whether a step is replayed or not. On an architecture on which steps multiply on tensor cores. */
START_TEST(inputs_on_the_way) {
    const emulator_machine machine = {.driver = 13000, .devices = 1, .sm = 90, .memory = (size_t)8 << 30};
    const int is_fast = _i % 2, all = _i / 2; /* else gate is quantized and up is not: their norm stays a kernel */
    t.all_quantized = all;
    ganq_model *model = make_model(2 + all);
    const int64_t expected = (all ? 3 : 2) * t.layers;
    float *found[2];
    int64_t launches[2], taken[2];
    emulator_set_machine(&machine);
    for (int fused = 0; fused < 2; fused++) {
        const ganq_context_options options = {.struct_size = sizeof options,
                                              .device = GANQ_DEVICE_CUDA,
                                              .numerics = is_fast ? GANQ_NUMERICS_FAST : GANQ_NUMERICS_EXACT};
        emulator_counts before, after;
        ganq_context *ctx;
        ganq_session *session;
        setenv("GANQ_CUDA_FUSE", fused ? "all" : "0", 1);
        ck_ganq_ok(ganq_context_create(&options, &ctx));
        ganq__lut_state *state = ganq__cuda_of(ctx)->lut = ganq__calloc(1, sizeof *state);
        state->no_cublaslt = emulator_present(); /* it knows nothing of emulated memory */
        found[fused] = run_session(ctx, model);
        emulator_set_order(1);
        float *reversed = run_session(ctx, model);
        emulator_set_order(0);
        ck_assert_mem_eq(found[fused], reversed, COUNT * VOCAB * sizeof *reversed);
        free(reversed);
        /* the first step is not recorded, the third a replay; at the same position */
        ck_ganq_ok(ganq__session_create(ctx, model, COUNT, &session));
        taken[fused] = ganq__cuda_of(ctx)->lut->inputs_taken;
        emulator_read_counts(&before);
        ck_ganq_ok(ganq__session_step(session, ids[0]));
        emulator_read_counts(&after);
        taken[fused] = ganq__cuda_of(ctx)->lut->inputs_taken - taken[fused];
        launches[fused] = after.launches - before.launches;
        float first[VOCAB];
        memcpy(first, logits_of(session), sizeof first);
        for (int i = 0; i < 2; i++) {
            ck_ganq_ok(ganq__session_truncate(session, 0));
            ck_ganq_ok(ganq__session_step(session, ids[0]));
            ck_assert_mem_eq(first, logits_of(session), sizeof first);
        }
        ganq__session_free(session);
        ganq_context_free(ctx);
    }
    unsetenv("GANQ_CUDA_FUSE");
    emulator_set_machine(NULL);
    float *exact = run_session(cpu, model);
    const double apart = difference(found[0], exact), fused = difference(found[1], exact);
    ck_assert_msg(apart <= (is_fast ? fast_bound : bound), "%.3g of the range", apart);
    ck_assert_msg(fused <= (is_fast ? fast_bound : bound), "%.3g of the range with inputs on the way", fused);
    free(exact);
    if (emulator_present()) { /* a kernel less for each, and for the heads of each block */
        ck_assert_int_eq(taken[0], 0);
        ck_assert_int_eq(taken[1], expected);
        ck_assert_int_eq(launches[0] - launches[1], expected + t.layers);
    }
    free(found[0]);
    free(found[1]);
    ganq__model_release(model);
}
END_TEST

/* Across the ranges of positions for which steps are recorded, and after going back. */
START_TEST(long_steps) {
    ganq_model *model = make_model(0);
    ganq_session *sessions[2];
    emulator_counts before, after;
    emulator_read_counts(&before);
    for (int i = 0; i < 2; i++)
        ck_ganq_ok(ganq__session_create(i ? gpu : cpu, model, 1100, &sessions[i]));
    for (int start = 505; start < 1100; start += 515) {
        for (int i = 0; i < 2; i++) {
            ganq_session *s = sessions[i];
            while (s->length < start)
                ck_ganq_ok(ganq__session_prefill(s, ids, start - s->length < COUNT ? start - s->length : COUNT, NULL));
        }
        for (int step = 0; step < 12; step++) {
            double largest = 0;
            for (int i = 0; i < 2; i++)
                ck_ganq_ok(ganq__session_step(sessions[i], ids[step]));
            int32_t best[2];
            for (int i = 0; i < 2; i++)
                ck_ganq_ok(ganq__session_sample(sessions[i], NULL, &best[i]));
            if (step % 2) /* greedy sampling leaves the logits where they are */
                ck_assert_int_eq(sessions[1]->logits_stale, 1);
            const float *expected = logits_of(sessions[0]), *found = logits_of(sessions[1]);
            for (int j = 0; j < VOCAB; j++)
                largest = fmax(largest, fabs((double)expected[j] - found[j]));
            for (int j = 0; j < VOCAB; j++)
                ck_assert(found[j] <= found[best[1]] && (j >= best[1] || found[j] < found[best[1]]));
            ck_ganq_ok(ganq__session_sample(sessions[1], NULL, &best[0])); /* on the host */
            ck_assert_int_eq(best[0], best[1]);
            ck_assert_msg(largest < 1e-3, "step %d after %d: %.3g", step, start, largest);
        }
    }
    emulator_read_counts(&after);
    /* 7 steps below 512, then 5; 4 below 1024, then 8; a step of each range is not recorded, and going
     * on in a range costs nothing */
    if (emulator_present())
        ck_assert_int_eq(after.graph_launches - before.graph_launches, 6 + 4 + 4 + 7);
    for (int i = 0; i < 2; i++) {
        ck_ganq_ok(ganq__session_truncate(sessions[i], 100));
        ck_ganq_ok(ganq__session_step(sessions[i], ids[0]));
    }
    const float *expected = logits_of(sessions[0]), *found = logits_of(sessions[1]);
    for (int j = 0; j < VOCAB; j++)
        ck_assert(fabs((double)expected[j] - found[j]) < 1e-3);
    ganq__session_free(sessions[0]);
    ganq__session_free(sessions[1]);
    ganq__model_release(model);
}
END_TEST

/* Two sessions of one context in turns, and a layer given up while the other's step is recorded. */
START_TEST(two_sessions) {
    ganq_model *model = make_model(0);
    ganq_session *a, *b, *alone;
    ck_ganq_ok(ganq__session_create(gpu, model, 300, &a));
    ck_ganq_ok(ganq__session_create(gpu, model, 300, &b));
    ck_ganq_ok(ganq__session_create(gpu, model, 300, &alone));
    ck_ganq_ok(ganq__session_prefill(b, ids, 20, NULL));
    for (int i = 0; i < 6; i++) {
        ck_ganq_ok(ganq__session_step(a, ids[i]));
        ck_ganq_ok(ganq__session_step(b, ids[20 + i]));
        if (i == 3) /* grows a workspace under both recordings */
            ck_ganq_ok(ganq__session_prefill(a, ids + 30, 8, NULL));
    }
    ck_ganq_ok(ganq__session_prefill(alone, ids, 20, NULL));
    for (int i = 0; i < 6; i++)
        ck_ganq_ok(ganq__session_step(alone, ids[20 + i]));
    ck_assert_mem_eq(logits_of(alone), logits_of(b), VOCAB * sizeof(float));
    ganq__session_free(a);
    ganq__session_free(b);
    ganq__session_free(alone);
    ganq__model_release(model);
}
END_TEST

static void *wait_for_device(void *unused) {
    (void)unused;
    (void)cudaDeviceSynchronize();
    return NULL;
}
static void wait_in_another_thread(void *unused) {
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, wait_for_device, unused), 0);
    pthread_join(thread, NULL);
}

/* Steps that cannot be recorded, each in its own way, are run: the same logits, and the error of before. */
static void disturb(int step) {
    if (step == 2)
        emulator_interrupt("cudaStreamBeginCapture", wait_in_another_thread, NULL);
    if (step == 4)
        emulator_fail_call("cudaGraphInstantiate", cudaErrorMemoryAllocation);
    if (step == 6)
        emulator_fail_call("cudaGraphLaunch", cudaErrorMemoryAllocation);
    if (step == 8)
        emulator_fail_call("cudaStreamBeginCapture", cudaErrorMemoryAllocation);
}
START_TEST(steps_that_cannot_be_recorded) {
    ganq_model *model = make_model(2);
    ganq_session *calm, *disturbed;
    emulator_counts before, after;
    ck_ganq_ok(ganq__session_create(gpu, model, 300, &calm));
    ck_ganq_ok(ganq__session_create(gpu, model, 300, &disturbed));
    for (int i = 0; i < 20; i++)
        ck_ganq_ok(ganq__session_step(calm, ids[i]));
    ganq__fail("before");
    emulator_read_counts(&before);
    for (int i = 0; i < 20; i++) {
        disturb(i + 1);
        ck_ganq_ok(ganq__session_step(disturbed, ids[i]));
    }
    emulator_read_counts(&after);
    ck_assert_mem_eq(logits_of(calm), logits_of(disturbed), VOCAB * sizeof(float));
    ck_assert_str_eq(ganq_last_error(), "before");
    if (emulator_present()) /* after a step that could not be recorded one is run, and the next recorded */
        ck_assert_int_eq(after.graph_launches - before.graph_launches, 11);
    ganq__session_free(calm);
    ganq__session_free(disturbed);
    ganq__model_release(model);
}
END_TEST

START_TEST(text_and_perplexity) {
    ganq_model *model = make_model(_i);
    int32_t texts[2][20];
    ganq_corpus *corpus;
    ganq_perplexity_result results[2];
    const ganq_perplexity_options options = {.struct_size = sizeof options, .context = 90};
    const ganq_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1.5f, .top_k = 12, .seed = 3};
    ck_ganq_ok(ganq__corpus_create(&corpus));
    ck_ganq_ok(ganq__corpus_add(corpus, ids, COUNT));
    for (int i = 0; i < 2; i++) {
        ganq_session *session;
        ganq_context *ctx = i ? gpu : cpu;
        ck_ganq_ok(ganq__session_create(ctx, model, 60, &session));
        ck_ganq_ok(ganq__session_prefill(session, ids, 30, NULL));
        for (int j = 0; j < 20; j++) {
            ck_ganq_ok(ganq__session_sample(session, &sampling, &texts[i][j]));
            ck_ganq_ok(ganq__session_step(session, texts[i][j]));
        }
        ganq__session_free(session);
        ck_ganq_ok(ganq__perplexity(ctx, model, corpus, &options, &results[i]));
    }
    ck_assert_mem_eq(texts[0], texts[1], sizeof texts[0]);
    ck_assert(fabs(results[1].nll / results[0].nll - 1) < 1e-5);
    ganq__corpus_free(corpus);
    ganq__model_release(model);
}
END_TEST

/* Every allocation of device memory fails once: an error in words, nothing lost, and the next try works. */
START_TEST(allocations_fail) {
    ganq_model *model = make_model(0);
    for (int n = 1;; n++) {
        ganq_context *ctx;
        ganq_session *session = NULL;
        ganq_context_options options = {.struct_size = sizeof options, .device = GANQ_DEVICE_CUDA};
        ck_ganq_ok(ganq_context_create(&options, &ctx));
        emulator_fail_allocation(n);
        ganq_status status = ganq__session_create(ctx, model, 100, &session);
        for (int i = 0; i < 3 && status == GANQ_OK; i++)
            status = ganq__session_step(session, ids[i]);
        emulator_fail_allocation(0);
        if (status != GANQ_OK)
            ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
        if (session && status != GANQ_OK)
            ck_ganq_ok(ganq__session_step(session, ids[3]));
        ganq__session_free(session);
        ganq_context_free(ctx);
        if (status == GANQ_OK) {
            ck_assert(n > 5 || !emulator_present());
            break;
        }
    }
    ganq__model_release(model);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cuda_session");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, logits, 0, KINDS);
    tcase_add_loop_test(tc, inputs_on_the_way, 0, 4);
    tcase_add_test(tc, long_steps);
    tcase_add_test(tc, two_sessions);
    tcase_add_test(tc, steps_that_cannot_be_recorded);
    tcase_add_loop_test(tc, text_and_perplexity, 0, KINDS);
    tcase_add_test(tc, allocations_fail);
    suite_add_tcase(suite, tc);
    return test_run(suite, 0);
}
