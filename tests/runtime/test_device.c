/* test_device.c - models on a device with memory of its own: the bits of the CPU, nothing
 * dereferenced outside its operations, nothing left behind in any order of ends. */
#include <math.h>

#include "alloc.h"
#include "backend/fake_device.h"
#include "block.h"
#include "check_util.h"
#include "corpus.h"
#include "lut_gemm.h"
#include "memory.h"
#include "model/tiny.h"
#include "perplexity.h"
#include "session.h"

enum { COUNT = 300, VOCAB = 33, MEGABYTE = 1 << 20 };

static char dir[300];
static ganq_context *cpu, *device;
static tiny t;
static int32_t ids[COUNT];

static void setup(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
    cpu = test_context(2, NULL);
    device = fake_device_context(2, 16 * MEGABYTE);
    t = tiny_default();
    t.positions = 400;
    t.layers = 2;
    random_ids(ids, COUNT, VOCAB, 1);
}
static void teardown(void) {
    tiny_free(&t);
    ganq__remove_tree(dir);
    ganq__context_release(cpu);
    ganq__context_release(device);
}

/* 0: dense, 1: quantized, 2: quantized with biases, head norms, a window and a tied head. 3: OPT. */
enum { KINDS = 4 };
static ganq_model *make_model(int kind) {
    ganq_model *model;
    if (kind == 2) {
        t.architecture = "Qwen3ForCausalLM";
        t.qk_norm = 1;
        t.tied = 1;
    }
    if (kind == 3) {
        t = tiny_opt();
        t.positions = 400;
    }
    tiny_fill(&t, 21);
    if (kind)
        return tiny_quantized(cpu, &t, dir);
    tiny_write(&t, dir);
    ck_ganq_ok(ganq__model_load(cpu, dir, NULL, &model));
    return model;
}

/* logits [COUNT, VOCAB]: 150 tokens at once, ten one by one, the rest at once. */
static float *run_session(ganq_context *ctx, const ganq_model *model) {
    ganq_session *session;
    float *logits = malloc(COUNT * VOCAB * sizeof *logits);
    ck_ganq_ok(ganq__session_create(ctx, model, COUNT, &session));
    ck_ganq_ok(ganq__session_prefill(session, ids, 150, logits));
    for (int i = 150; i < 160; i++) {
        ck_ganq_ok(ganq__session_step(session, ids[i]));
        memcpy(logits + i * VOCAB, session->logits, VOCAB * sizeof *logits);
    }
    ck_ganq_ok(ganq__session_prefill(session, ids + 160, COUNT - 160, logits + 160 * VOCAB));
    ganq__session_free(session);
    return logits;
}

START_TEST(the_bits_of_the_cpu) {
    ganq_model *model = make_model(_i);
    float *expected = run_session(cpu, model), *found = run_session(device, model);
    ck_assert_mem_eq(found, expected, COUNT * VOCAB * sizeof *found);
    const fake_device_state state = fake_device_look(device);
    ck_assert_int_eq(state.replays, 4); /* 152, 154, 156, 158; 150 was recorded */
    ck_assert_int_eq(state.steps, 6);
    ck_assert(_i ? state.products > 0 : state.products == 0);
    ck_assert_int_eq(state.layers, _i == 3 ? 10 : _i ? 12 : 0); /* up_proj stays dense */
    free(expected);
    free(found);
    ganq__model_release(model);
    ck_assert_int_eq(fake_device_look(device).arrays, 0);
    ck_assert_int_eq(fake_device_look(device).layers, 0);
}
END_TEST

START_TEST(generating) {
    ganq_model *model = make_model(1);
    int32_t texts[2][20];
    for (int i = 0; i < 2; i++) {
        ganq_session *session;
        ck_ganq_ok(ganq__session_create(i ? device : cpu, model, 60, &session));
        ck_ganq_ok(ganq__session_prefill(session, ids, 30, NULL));
        const ganq_sampling sampling = {
            .struct_size = sizeof sampling, .temperature = 1.5f, .top_k = 12, .seed = 3};
        for (int j = 0; j < 20; j++) {
            ck_ganq_ok(ganq__session_sample(session, &sampling, &texts[i][j]));
            ck_ganq_ok(ganq__session_step(session, texts[i][j]));
        }
        ganq__session_free(session);
    }
    ck_assert_mem_eq(texts[0], texts[1], sizeof texts[0]);
    ganq__model_release(model);
}
END_TEST

START_TEST(perplexity) {
    ganq_model *model = make_model(_i);
    ganq_corpus *corpus;
    ganq_perplexity_result results[2];
    const ganq_perplexity_options options = {.struct_size = sizeof options, .context = 290};
    ck_ganq_ok(ganq__corpus_create(&corpus));
    ck_ganq_ok(ganq__corpus_add(corpus, ids, COUNT));
    for (int i = 0; i < 2; i++)
        ck_ganq_ok(ganq__perplexity(i ? device : cpu, model, corpus, &options, &results[i]));
    ck_assert(results[0].nll == results[1].nll);
    ganq__corpus_free(corpus);
    ganq__model_release(model);
}
END_TEST

/* One copy serves all sessions of a context; it ends with the model, or with the context. */
START_TEST(placed_once) {
    ganq_model *model = make_model(1);
    ganq_session *a, *b;
    const ganq_model *first, *second;
    ck_ganq_ok(ganq__model_place(device, model, &first));
    const int64_t arrays = fake_device_look(device).arrays;
    ck_assert_int_eq(arrays, 3); /* two blocks and the rest */
    ck_ganq_ok(ganq__model_place(device, model, &second));
    ck_assert_ptr_eq(first, second);
    ck_ganq_ok(ganq__session_create(device, model, 20, &a));
    ck_ganq_ok(ganq__session_create(device, model, 20, &b));
    ganq__session_free(a);
    ganq__session_free(b);
    ck_assert_int_eq(fake_device_look(device).arrays, arrays);
    ck_assert_int_eq(fake_device_look(device).layers, 12);

    /* another context of the same kind has its own, and takes it along */
    ganq_context *another = fake_device_context(1, 16 * MEGABYTE);
    ck_ganq_ok(ganq__model_place(another, model, &second));
    ck_assert_ptr_ne(first, second);
    ganq__context_release(another);
    ck_assert_int_eq(fake_device_look(device).layers, 12);

    /* the session keeps model and context */
    another = fake_device_context(1, 16 * MEGABYTE);
    ck_ganq_ok(ganq__session_create(another, model, 20, &a));
    ganq__context_release(another);
    ganq__model_release(model);
    ck_ganq_ok(ganq__session_prefill(a, ids, 5, NULL));
    ganq__session_free(a);
    ck_assert_int_eq(fake_device_look(device).layers, 0);
    ck_assert_int_eq(fake_device_look(device).arrays, 0);
}
END_TEST

/* The pipeline's way: one block at a time, a linear replaced on the way. */
START_TEST(one_block_at_a_time) {
    ganq_model *model = make_model(0);
    const ganq__config *c = model->config;
    enum { TOKENS = 20 };
    float h[2][TOKENS * 20];
    int64_t layer_count = 0;
    ganq_layer *layer;
    uint8_t codes[24 * 20];
    float lut[24 * 4];
    for (int i = 0; i < 24 * 20; i++)
        codes[i] = (uint8_t)(ids[i % COUNT] % 4);
    for (int i = 0; i < 24 * 4; i++)
        lut[i] = (float)ids[i] / 64;
    const ganq__linear *q = ganq__model_linear(model, 0);
    ck_ganq_ok(ganq__layer_create(2, q->N, q->K, codes, lut, GANQ_DTYPE_F16, NULL, NULL, NULL, NULL,
                                  GANQ_DTYPE_F32, &layer));
    for (int i = 0; i < 2; i++) {
        ganq_context *ctx = i ? device : cpu;
        ganq__rope rope;
        ganq__kv kv;
        ganq__workspace workspace;
        float *on_device;
        ck_ganq_ok(ganq__rope_create(ctx, c, TOKENS, &rope));
        ck_ganq_ok(ganq__kv_create(ctx, c, TOKENS, GANQ_DTYPE_F32, 1, &kv));
        ck_ganq_ok(ganq__workspace_create(ctx, c, 8, &workspace));
        ck_ganq_ok(ganq__memory_floats(ctx, TOKENS, c->hidden, &on_device));
        ck_ganq_ok(ganq__model_embed(model, ids, TOKENS, h[i]));
        const int64_t arrays = i ? fake_device_look(device).arrays : 0;
        for (int64_t b = 0; b < c->layers; b++) {
            ganq__block block;
            ck_ganq_ok(ganq__block_place(ctx, c, &model->blocks[b], &block));
            const ganq__block_run run = {.rope = &rope, .kv = &kv, .workspace = &workspace};
            const size_t bytes = sizeof h[i];
            ck_ganq_ok(ctx->memory->upload(ctx, on_device, h[i], bytes));
            block.linears[GANQ__ROLE_Q].layer = layer;
            ck_ganq_ok(ganq__block_forward(ctx, c, &block, &run, TOKENS, on_device));
            ck_ganq_ok(ctx->memory->download(ctx, h[i], on_device, bytes));
            layer_count += i ? fake_device_look(device).layers : 0;
            ganq__block_unplace(ctx, &block);
        }
        if (i) {
            ck_assert_int_eq(layer_count, 2); /* one in each block */
            ck_assert_int_eq(fake_device_look(device).layers, 0);
            ck_assert_int_eq(fake_device_look(device).arrays, arrays);
        }
        ganq__memory_release(ctx, on_device);
        ganq__workspace_free(&workspace);
        ganq__kv_free(&kv);
        ganq__rope_free(&rope);
    }
    ck_assert_mem_eq(h[0], h[1], sizeof h[0]);
    ganq__layer_release(layer);
    ganq__model_release(model);
}
END_TEST

/* Matrices of the caller go to the device and back. */
START_TEST(public_product) {
    ganq_model *model = make_model(1);
    const ganq_layer *layer = ganq__model_linear(model, 0)->layer;
    const int M = 270, N = (int)layer->N, K = (int)layer->K;
    float *x = malloc((size_t)(M * (K + 3)) * sizeof *x);
    uint16_t *half = malloc((size_t)(M * K) * sizeof *half);
    float *y[2];
    for (int i = 0; i < M * (K + 3); i++)
        x[i] = (float)(ids[i % COUNT] - 16) / 8;
    for (int i = 0; i < M * K; i++)
        half[i] = (uint16_t)(0x3f80 + ids[i % COUNT]); /* bf16 */
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < 2; i++) {
            y[i] = calloc((size_t)(M * (N + 2)), sizeof *y[i]);
            ganq_matrix in = kind == 2 ? (ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_BF16, M, K, half)
                                       : (ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x);
            ganq_matrix out = GANQ_MATRIX(GANQ_DTYPE_F32, M, N, y[i]);
            in.row_stride = kind == 1 ? K + 3 : K;
            out.row_stride = kind == 1 ? N + 2 : N;
            ck_ganq_ok(ganq__lut_gemm_matrix(i ? device : cpu, layer, &in, &out));
        }
        /* the CPU takes all rows at once where the device takes 256 */
        for (int i = 0; i < M * (N + 2); i++)
            ck_assert_float_eq_tol(y[0][i], y[1][i], 1e-4f);
        free(y[0]);
        free(y[1]);
    }
    free(x);
    free(half);
    ganq__model_release(model);
}
END_TEST

START_TEST(too_large) {
    ganq_model *model = make_model(1);
    ganq_session *session = NULL;
    ganq_context *small = fake_device_context(1, 4096);
    ck_ganq_fails(ganq__session_create(small, model, 20, &session), GANQ_ERR_NO_MEMORY,
                  "fake device: the model's weights take");
    ck_assert_ptr_null(session);
    ganq__context_release(small);
    /* room for the weights, not for the rest; and each failure of the process's own memory */
    small = fake_device_context(1, 40 * 4096);
    ck_ganq_fails(ganq__session_create(small, model, 400, &session), GANQ_ERR_NO_MEMORY, "device");
    ck_assert_ptr_null(session);
    ganq__context_release(small);
    for (int64_t n = 1;; n++) {
        ganq_context *fresh = fake_device_context(1, 16 * MEGABYTE);
        ck_assert_int_lt(n, 400);
        ganq__alloc_fail_after(n);
        const ganq_status status = ganq__session_create(fresh, model, 20, &session);
        const int reached = ganq__alloc_count() >= n;
        ganq__alloc_fail_after(0);
        if (status == GANQ_OK)
            ganq__session_free(session);
        ck_assert_int_eq(status, reached ? GANQ_ERR_NO_MEMORY : GANQ_OK);
        ganq__context_release(fresh);
        if (!reached)
            break;
    }
    ganq__model_release(model);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("device");
    TCase *tests = tcase_create("device");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, the_bits_of_the_cpu, 0, KINDS);
    tcase_add_test(tests, generating);
    tcase_add_loop_test(tests, perplexity, 0, KINDS);
    tcase_add_test(tests, placed_once);
    tcase_add_test(tests, one_block_at_a_time);
    tcase_add_test(tests, public_product);
    tcase_add_test(tests, too_large);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
