/* test_lifetimes.c - what the headers promise about handles: they outlive the context they were
 * made with, models and layers serve many threads at once, results do not depend on the context,
 * failed calls touch nothing; and what ganq_context_create refuses. */
#include <pthread.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_util.h"
#include "../pipeline/tiny_model.h"

enum { TOKENS = 12, THREADS = 4 };

static const int32_t prompt[TOKENS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
static char root[300], source[400], target[400];
static ganq_context *ctx;
static ganq_model *model; /* quantized and loaded: its layers are unread until their first use */

static ganq_context *make_context(int threads) {
    ganq_context *made = NULL;
    ganq_context_options options = {.struct_size = sizeof options, .threads = threads};
    ck_ganq_ok(ganq_context_create(&options, &made));
    return made;
}

static ganq_model *load(ganq_context *with, const char *dir) {
    ganq_model *loaded = NULL;
    ck_ganq_ok(ganq_model_load(with, dir, NULL, &loaded));
    return loaded;
}

static void setup(void) {
    ganq_model *dense, *quantized = NULL;
    ganq_quantize_options layer = {
        .struct_size = sizeof layer, .bits = 3, .recipe = GANQ_RECIPE_RTN};
    ganq_model_quantize_options options = {.struct_size = sizeof options, .layer = &layer};
    snprintf(root, sizeof root, "%s", test_dir());
    snprintf(source, sizeof source, "%s/source", root);
    snprintf(target, sizeof target, "%s/target", root);
    tiny_model_write(source, &(tiny_model){.biases = 1});
    ctx = make_context(2);
    dense = load(ctx, source);
    ck_ganq_ok(ganq_model_quantize(ctx, dense, NULL, &options, &quantized));
    ck_ganq_ok(ganq_model_save(ctx, quantized, target, NULL));
    ganq_model_free(quantized);
    ganq_model_free(dense);
    model = load(ctx, target);
}

static void teardown(void) {
    char command[400];
    ganq_model_free(model);
    ganq_context_free(ctx);
    snprintf(command, sizeof command, "rm -r '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

static ganq_session *open_session(ganq_context *with, const ganq_model *of) {
    ganq_session *session = NULL;
    ck_ganq_ok(ganq_session_create(with, of, 0, &session));
    return session;
}

/* Of every position of the prompt; the status of the first call that fails. */
static ganq_status logits_of(ganq_session *session, float *logits) {
    return ganq_session_prefill_logits(session, prompt, TOKENS, logits);
}

START_TEST(a_context_may_be_freed_first) {
    static float expected[TOKENS * TINY_VOCAB], found[TOKENS * TINY_VOCAB];
    ganq_context *other = make_context(3);
    ganq_session *session = open_session(other, model), *reference = open_session(ctx, model);
    ck_ganq_ok(logits_of(reference, expected));
    ganq_session_free(reference);
    ganq_context_free(other);
    ganq_model_free(model); /* the session keeps what it needs of it, too */
    ck_ganq_ok(logits_of(session, found));
    ck_assert_mem_eq(found, expected, sizeof found);
    ganq_session_free(session);

    /* Models, layers and Hessians go on with another context. */
    other = make_context(1);
    ganq_model *kept = load(other, target);
    ganq_hessian *hessian = NULL;
    ganq_layer *layer = NULL;
    float w[6] = {1, 2, 3, 4, 5, 6}, y[2];
    const ganq_matrix x = GANQ_MATRIX(GANQ_DTYPE_F32, 2, 3, w);
    ck_ganq_ok(ganq_hessian_create(other, 3, &hessian));
    ck_ganq_ok(ganq_layer_quantize(other, &x, NULL, NULL, NULL, &layer));
    ganq_context_free(other);
    ck_ganq_ok(ganq_hessian_add(ctx, hessian, &x));
    ck_assert_int_eq(ganq_hessian_tokens(hessian), 2);
    const ganq_matrix row = GANQ_MATRIX(GANQ_DTYPE_F32, 1, 3, w);
    ganq_matrix product = GANQ_MATRIX(GANQ_DTYPE_F32, 1, 2, y);
    ck_ganq_ok(ganq_lut_gemm(ctx, layer, &row, &product));
    ck_assert_float_eq_tol(y[0], 14, 0.05f);
    session = open_session(ctx, kept);
    ganq_model_free(kept);
    ck_ganq_ok(logits_of(session, found));
    ck_assert_mem_eq(found, expected, sizeof found);
    ganq_session_free(session);
    ganq_layer_free(layer);
    ganq_hessian_free(hessian);
    model = NULL;
}
END_TEST

START_TEST(a_layer_is_borrowed_from_the_model) {
    ganq_linear_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_model_get_linear(model, 0, &info));
    const ganq_layer *layer = ganq_model_layer(model, 0);
    ganq_layer_info of_layer = {.struct_size = sizeof of_layer};
    ck_ganq_ok(ganq_layer_get_info(layer, &of_layer));
    ck_assert_int_eq(of_layer.rows, info.rows);
    ck_assert_int_eq(of_layer.cols, info.cols);
    ck_assert_ptr_null(ganq_model_layer(model, -1));
    ck_assert_ptr_null(ganq_model_layer(model, 2 * TINY_LINEARS));
    ck_assert_ptr_null(ganq_model_layer(NULL, 0));
}
END_TEST

/* ---- many threads ---- */

typedef struct job {
    int threads;
    const ganq_layer *layer;
    int64_t N;
    ganq_status status;
    int empty_message; /* of this thread before its first failure, and whose its first failure was
                        */
    int own_message;
    float logits[TOKENS * TINY_VOCAB];
    float y[TINY_INTER];
} job;

/* No Check assertions here: they belong to the main thread. */
static void *work(void *user) {
    job *j = user;
    ganq_context *mine = NULL;
    ganq_session *session = NULL;
    float x[TINY_HIDDEN];
    ganq_context_options options = {.struct_size = sizeof options, .threads = j->threads};
    for (int k = 0; k < TINY_HIDDEN; k++)
        x[k] = (float)(k % 7) - 3;
    const ganq_matrix in = GANQ_MATRIX(GANQ_DTYPE_F32, 1, TINY_HIDDEN, x);
    ganq_matrix out = GANQ_MATRIX(GANQ_DTYPE_F32, 1, j->N, j->y);
    j->empty_message = !*ganq_last_error();
    j->own_message = ganq_context_create(NULL, NULL) == GANQ_ERR_INVALID_ARG &&
                     strstr(ganq_last_error(), "out is NULL") != NULL;
    j->status = ganq_context_create(&options, &mine);
    if (j->status == GANQ_OK)
        j->status = ganq_lut_gemm(mine, j->layer, &in, &out);
    if (j->status == GANQ_OK)
        j->status = ganq_session_create(mine, model, 0, &session);
    ganq_context_free(mine);
    if (j->status == GANQ_OK)
        j->status = logits_of(session, j->logits);
    ganq_session_free(session);
    return NULL;
}

START_TEST(threads_share_a_model_and_a_layer) {
    static job jobs[THREADS];
    pthread_t threads[THREADS];
    ganq_layer_info info = {.struct_size = sizeof info};
    const ganq_layer *layer = ganq_model_layer(model, 0);
    ck_ganq_ok(ganq_layer_get_info(layer, &info));
    for (int t = 0; t < THREADS;
         t++) { /* nobody has used the model: its layers are prepared in the race */
        jobs[t] = (job){.threads = t % 3 + 1, .layer = layer, .N = info.rows};
        ck_assert_int_eq(pthread_create(&threads[t], NULL, work, &jobs[t]), 0);
    }
    for (int t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_join(threads[t], NULL), 0);
    for (int t = 0; t < THREADS; t++) {
        ck_assert_int_eq(jobs[t].status, GANQ_OK);
        ck_assert(jobs[t].empty_message && jobs[t].own_message);
        ck_assert_mem_eq(jobs[t].logits, jobs[0].logits, sizeof jobs[t].logits);
        ck_assert_mem_eq(jobs[t].y, jobs[0].y, sizeof jobs[t].y);
    }
}
END_TEST

#ifndef __SANITIZE_THREAD__ /* it refuses to start threads in the child of a process with threads */
START_TEST(a_process_may_fork) {
    static float expected[TOKENS * TINY_VOCAB], found[TOKENS * TINY_VOCAB];
    ganq_session *session = open_session(ctx, model); /* its pool runs in this process */
    int status = -1;
    ck_ganq_ok(logits_of(session, expected));
    ck_ganq_ok(ganq_session_truncate(session, 0));
    const pid_t child = fork();
    if (child == 0)
        _exit(logits_of(session, found) != GANQ_OK || memcmp(found, expected, sizeof found) != 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_ganq_ok(logits_of(session, found)); /* and the parent goes on */
    ck_assert_mem_eq(found, expected, sizeof found);
    ganq_session_free(session);
}
END_TEST
#endif

/* ---- contexts ---- */

#define REFUSED(field_and_value, code, word)                                                       \
    do {                                                                                           \
        ganq_context_options o = {.struct_size = sizeof o};                                        \
        ganq_context *made = (ganq_context *)1;                                                    \
        o.field_and_value;                                                                         \
        ck_ganq_fails(ganq_context_create(&o, &made), code, word);                                 \
        ck_assert_ptr_eq(made, (void *)1); /* outputs only on success */                           \
    } while (0)

START_TEST(contexts_refuse) {
    REFUSED(struct_size = 0, GANQ_ERR_INVALID_ARG, "struct_size is 0");
    REFUSED(struct_size = 3, GANQ_ERR_INVALID_ARG, "struct_size is 3");
    REFUSED(struct_size = UINT32_MAX, GANQ_ERR_INVALID_ARG, "ganq_context_options");
    REFUSED(device = -1, GANQ_ERR_INVALID_ARG, "device -1");
    REFUSED(device = 3, GANQ_ERR_INVALID_ARG, "device 3");
    REFUSED(device_index = -1, GANQ_ERR_INVALID_ARG, "device_index");
    REFUSED(threads = -1, GANQ_ERR_INVALID_ARG, "threads is -1");
    REFUSED(threads = 4097, GANQ_ERR_INVALID_ARG, "threads is 4097");
    REFUSED(numerics = 3, GANQ_ERR_INVALID_ARG, "numerics 3");
    REFUSED(log_level = 5, GANQ_ERR_INVALID_ARG, "log_level 5");
    REFUSED(memory_budget_bytes = -1, GANQ_ERR_INVALID_ARG, "memory_budget_bytes");
    ck_ganq_fails(ganq_context_create(NULL, NULL), GANQ_ERR_INVALID_ARG, "out is NULL");
    ganq_context_free(NULL);
    ck_assert_int_eq(ganq_context_threads(NULL), 0);
    ck_assert_int_eq(ganq_context_numerics(NULL), 0);
    ck_assert_str_eq(ganq_context_device_name(NULL), "");
}
END_TEST

START_TEST(older_and_newer_callers) {
    ganq_context *made = NULL;
    struct {
        ganq_context_options known;
        int64_t unknown;
    } newer = {.known = {.struct_size = sizeof newer, .threads = 2}};
    ck_ganq_ok(ganq_context_create(&newer.known, &made));
    ck_assert_int_eq(ganq_context_threads(made), 2);
    ganq_context_free(made);
    newer.unknown = 1;
    made = NULL;
    ck_ganq_fails(ganq_context_create(&newer.known, &made), GANQ_ERR_UNSUPPORTED, "knows only");
    ck_assert_ptr_null(made);
    /* What lies behind an older caller's struct is not read. */
    ganq_context_options older = {.struct_size = offsetof(ganq_context_options, threads),
                                  .threads = -7};
    ck_ganq_ok(ganq_context_create(&older, &made));
    ck_assert_int_ge(ganq_context_threads(made), 1);
    ganq_context_free(made);

    ganq_model_info info = {.struct_size = offsetof(ganq_model_info, vocab_size), .vocab_size = -5};
    ck_ganq_ok(ganq_model_get_info(model, &info));
    ck_assert_int_eq(info.hidden_size, TINY_HIDDEN);
    ck_assert_int_eq(info.vocab_size, -5);
    info.struct_size = 0;
    ck_ganq_fails(ganq_model_get_info(model, &info), GANQ_ERR_INVALID_ARG, "struct_size");
    ck_ganq_fails(ganq_model_get_info(model, NULL), GANQ_ERR_INVALID_ARG, "NULL");
}
END_TEST

START_TEST(unknown_kernels_are_refused) {
    ganq_context *made = NULL;
    ck_assert_int_eq(setenv("GANQ_CPU_ISA", "nonsense", 1), 0);
    ck_ganq_fails(ganq_context_create(NULL, &made), GANQ_ERR_INVALID_ARG, "nonsense");
    ck_assert_int_eq(setenv("GANQ_CPU_ISA", "ref", 1), 0);
    ck_ganq_ok(ganq_context_create(NULL, &made));
    ck_assert_ptr_nonnull(strstr(ganq_context_device_name(made), "ref"));
    ganq_context_free(made);
    ck_assert_int_eq(unsetenv("GANQ_CPU_ISA"), 0);
}
END_TEST

START_TEST(numerics_come_from_options_or_environment) {
    static const struct {
        const char *word;
        int32_t option, expected;
    } cases[] = {{NULL, 0, GANQ_NUMERICS_FAST},
                 {"", 0, GANQ_NUMERICS_FAST},
                 {"fast", 0, GANQ_NUMERICS_FAST},
                 {"exact", 0, GANQ_NUMERICS_EXACT},
                 {"exact", GANQ_NUMERICS_FAST, GANQ_NUMERICS_FAST},
                 {NULL, GANQ_NUMERICS_EXACT, GANQ_NUMERICS_EXACT},
                 {"fast", GANQ_NUMERICS_EXACT, GANQ_NUMERICS_EXACT}};
    ganq_context *made = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const ganq_context_options o = {.struct_size = sizeof o, .numerics = cases[i].option};
        ck_assert_int_eq(cases[i].word ? setenv("GANQ_NUMERICS", cases[i].word, 1)
                                       : unsetenv("GANQ_NUMERICS"),
                         0);
        ck_ganq_ok(ganq_context_create(&o, &made));
        ck_assert_int_eq(ganq_context_numerics(made), cases[i].expected);
        ganq_context_free(made);
    }
    made = NULL;
    ck_assert_int_eq(setenv("GANQ_NUMERICS", "quick", 1), 0);
    ck_ganq_fails(ganq_context_create(NULL, &made), GANQ_ERR_INVALID_ARG, "GANQ_NUMERICS=quick");
    ck_assert_ptr_null(made);
    ck_assert_int_eq(unsetenv("GANQ_NUMERICS"), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lifetimes");
    TCase *tests = tcase_create("lifetimes");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_context_may_be_freed_first);
    tcase_add_test(tests, a_layer_is_borrowed_from_the_model);
    tcase_add_test(tests, threads_share_a_model_and_a_layer);
#ifndef __SANITIZE_THREAD__
    tcase_add_test(tests, a_process_may_fork);
#endif
    tcase_add_test(tests, contexts_refuse);
    tcase_add_test(tests, older_and_newer_callers);
    tcase_add_test(tests, unknown_kernels_are_refused);
    tcase_add_test(tests, numerics_come_from_options_or_environment);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
