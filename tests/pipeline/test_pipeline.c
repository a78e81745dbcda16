/* test_pipeline.c - quantize, save, load, export on a model of random weights; what goes wrong
 * leaves nothing behind. */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"
#include "check_util.h"
#include "file.h"
#include "tiny_model.h"

enum { PROBE = 20 }; /* tokens whose logits are compared */

static char root[300], source[400], target[400];
static ganq_context *ctx;
static ganq_model *model;
static ganq_corpus *corpus;

/* Progress that cancels at its n-th call; 0: never. */
static int64_t progress_calls, cancel_at;
static double last_fraction, worst_step_back;
static int on_progress(const ganq_progress *p, void *user) {
    (void)user;
    progress_calls++;
    if (p->fraction < last_fraction && last_fraction - p->fraction > worst_step_back)
        worst_step_back = last_fraction - p->fraction;
    last_fraction = p->fraction;
    return cancel_at && progress_calls >= cancel_at;
}

static ganq_context *make_context(int threads) {
    ganq_context *made = NULL;
    ganq_context_options options = {.struct_size = sizeof options,
                                    .threads = threads,
                                    .numerics = GANQ_NUMERICS_EXACT,
                                    .progress = on_progress};
    ck_ganq_ok(ganq_context_create(&options, &made));
    return made;
}

static void open_model(const tiny_model *settings) {
    snprintf(root, sizeof root, "%s", test_dir());
    snprintf(source, sizeof source, "%s/source", root);
    snprintf(target, sizeof target, "%s/target", root);
    progress_calls = cancel_at = 0;
    last_fraction = worst_step_back = 0;
    tiny_model_write(source, settings);
    ctx = make_context(2);
    corpus = tiny_corpus(8, 48);
    ck_ganq_ok(ganq_model_load(ctx, source, NULL, &model));
}

static void close_model(void) {
    ganq_model_free(model);
    ganq_corpus_free(corpus);
    ganq_context_free(ctx);
    ck_ganq_ok(ganq__remove_tree(root));
}

static void setup(void) {
    open_model(&(tiny_model){0});
}
static void setup_biases(void) {
    open_model(&(tiny_model){.biases = 1, .untied = 1});
}

/* FAST: the edges of the walk do not depend on the effort. */
static ganq_model *quantize(int bits, float outliers, ganq_switch propagate) {
    ganq_quantize_options layer = {.struct_size = sizeof layer,
                                   .bits = bits,
                                   .recipe = GANQ_RECIPE_FAST,
                                   .outlier_ratio = outliers};
    ganq_model_quantize_options options = {
        .struct_size = sizeof options, .propagate = propagate, .layer = &layer};
    ganq_model *quantized = NULL;
    ck_ganq_ok(ganq_model_quantize(ctx, model, corpus, &options, &quantized));
    return quantized;
}

static ganq_model *quantize_mixed(double target_bits, ganq_switch propagate) {
    ganq_quantize_options layer = {.struct_size = sizeof layer, .recipe = GANQ_RECIPE_FAST};
    ganq_model_quantize_options options = {.struct_size = sizeof options,
                                           .propagate = propagate,
                                           .layer = &layer,
                                           .target_bits = (float)target_bits};
    ganq_model *quantized = NULL;
    ck_ganq_ok(ganq_model_quantize(ctx, model, corpus, &options, &quantized));
    return quantized;
}

static float *logits_of(const ganq_model *of) {
    ganq_session *session = NULL;
    int32_t ids[PROBE];
    float *logits = calloc(PROBE * TINY_VOCAB, sizeof *logits);
    for (int i = 0; i < PROBE; i++)
        ids[i] = (i * 17 + 3) % TINY_VOCAB;
    ck_ganq_ok(ganq_session_create(ctx, of, 0, &session));
    ck_ganq_ok(ganq_session_prefill_logits(session, ids, PROBE, logits));
    ganq_session_free(session);
    return logits;
}

static void assert_same_logits(const ganq_model *a, const ganq_model *b) {
    float *x = logits_of(a), *y = logits_of(b);
    ck_assert_mem_eq(x, y, PROBE * TINY_VOCAB * sizeof *x);
    free(x);
    free(y);
}

/* The largest difference over the largest value. */
static double logit_distance(const ganq_model *a, const ganq_model *b) {
    float *x = logits_of(a), *y = logits_of(b);
    double most = 0, range = 0;
    for (int i = 0; i < PROBE * TINY_VOCAB; i++) {
        most = fmax(most, fabs((double)x[i] - (double)y[i]));
        range = fmax(range, fabs((double)x[i]));
    }
    free(x);
    free(y);
    return most / range;
}

static int entries(const char *dir) {
    DIR *d = opendir(dir);
    int count = 0;
    ck_assert_ptr_nonnull(d);
    while (readdir(d))
        count++;
    closedir(d);
    return count - 2;
}

static void assert_nothing_left(void) {
    ck_assert_int_eq(entries(root), 1); /* the source */
}

static char *read_text(const char *dir, const char *name) {
    char path[600], *text = NULL;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_ganq_ok(ganq__file_read(path, 1 << 20, &text, &size));
    return text;
}

static void flip_byte(const char *dir, const char *name, long from_end) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, -from_end, SEEK_END), 0);
    int byte = fgetc(file);
    ck_assert_int_eq(fseek(file, -from_end, SEEK_END), 0);
    fputc(byte ^ 0x10, file);
    ck_assert_int_eq(fclose(file), 0);
}

/* ---- round trips ---- */

static void round_trip(int bits, float outliers, const ganq_save_options *options) {
    ganq_model *quantized = quantize(bits, outliers, GANQ_SWITCH_DEFAULT), *loaded = NULL;
    ganq_model_info made = {.struct_size = sizeof made}, read = {.struct_size = sizeof read};
    ck_ganq_ok(ganq_model_save(ctx, quantized, target, options));
    ck_ganq_ok(ganq_model_load(
        ctx, target, &(ganq_model_options){sizeof(ganq_model_options), GANQ_SWITCH_ON}, &loaded));
    ck_ganq_ok(ganq_model_get_info(quantized, &made));
    ck_ganq_ok(ganq_model_get_info(loaded, &read));
    ck_assert_int_eq(made.linears_quantized, 2 * TINY_LINEARS);
    ck_assert_int_eq(read.linears_quantized, made.linears_quantized);
    ck_assert_int_eq(read.stored_bytes, made.stored_bytes);
    ck_assert_int_eq(read.linear_bytes, made.linear_bytes);
    ck_assert_int_eq(read.parameters, made.parameters);
    ck_assert_double_eq(read.bits_per_weight, made.bits_per_weight);
    assert_same_logits(quantized, loaded);
    ganq_model_free(loaded);
    ganq_model_free(quantized);
    ck_assert_int_eq(entries(root), 2);
}

START_TEST(saves_and_loads) {
    round_trip(4, 0, NULL);
    char *config = read_text(target, "config.json");
    static const char *const words[] = {"\"a_key_of_its_own\"",
                                        "\"quant_method\": \"ganq\"",
                                        "\"format_version\": 1",
                                        "\"packing\": \"bitplane32\"",
                                        "\"torch_dtype\": \"float32\"",
                                        "\"modules_to_not_convert\"",
                                        "\"lm_head\"",
                                        "model.layers.1.mlp.down_proj",
                                        "libganq:0.1.0",
                                        "\"recipe\": \"fast\"",
                                        "\"effective_bits\""};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        ck_assert_msg(strstr(config, words[i]) != NULL, "config.json lacks %s:\n%s", words[i],
                      config);
    ganq__free(config);
    ganq__free(read_text(target, "LICENSE"));
    ganq__free(read_text(target, "generation_config.json"));
    char readme[600];
    snprintf(readme, sizeof readme, "%s/README.md", target);
    ck_assert_int_eq(ganq__path_exists(readme), 0);
}
END_TEST

START_TEST(saves_outliers_and_other_widths) {
    ganq_save_options force = {.struct_size = sizeof force, .force = GANQ_SWITCH_ON};
    round_trip(3, 0.02f, &force);
    round_trip(2, 0, &force);
}
END_TEST

START_TEST(saves_biases_and_a_head) {
    round_trip(4, 0, NULL);
}
END_TEST

START_TEST(saves_shards) {
    ganq_save_options options = {
        .struct_size = sizeof options, .shard_bytes = 3000, .calibration = "random ids"};
    round_trip(4, 0.01f, &options);
    char *index = read_text(target, "model.safetensors.index.json");
    ck_assert_ptr_nonnull(strstr(index, "model-00002-of-"));
    ck_assert_ptr_nonnull(strstr(index, ".outlier_cols\": \"model-000"));
    ganq__free(index);
    char *config = read_text(target, "config.json");
    ck_assert_ptr_nonnull(strstr(config, "random ids"));
    ganq__free(config);
}
END_TEST

START_TEST(saved_again_keeps_its_record) {
    ganq_model *quantized = quantize(3, 0, GANQ_SWITCH_OFF), *loaded = NULL;
    ganq_save_options options = {.struct_size = sizeof options,
                                 .calibration = "where it came from"};
    char again[500];
    snprintf(again, sizeof again, "%s/again", root);
    ck_ganq_ok(ganq_model_save(ctx, quantized, target, &options));
    ck_ganq_ok(ganq_model_load(ctx, target, NULL, &loaded));
    ck_ganq_ok(ganq_model_save(ctx, loaded, again, NULL));
    char *first = read_text(target, "config.json"), *second = read_text(again, "config.json");
    ck_assert_str_eq(first, second);
    ganq__free(first);
    ganq__free(second);
    ganq_model_free(loaded);
    ganq_model_free(quantized);
}
END_TEST

START_TEST(finds_damaged_codes_and_dense_tensors) {
    ganq_model *quantized = quantize(4, 0, GANQ_SWITCH_OFF), *loaded = NULL;
    ganq_save_options force = {.struct_size = sizeof force, .force = GANQ_SWITCH_ON};
    ganq_model_options verify = {.struct_size = sizeof verify, .verify = GANQ_SWITCH_ON};
    char again[500];
    snprintf(again, sizeof again, "%s/again", root);
    ck_ganq_ok(ganq_model_save(ctx, quantized, target, &force));
    /* The last bytes of the file are the table of the last linear; before it are its codes. */
    flip_byte(target, "model.safetensors", TINY_HIDDEN * 16 * 2 + 60);
    ck_ganq_ok(ganq_model_load(ctx, target, NULL, &loaded));
    ck_ganq_fails(ganq_model_save(ctx, loaded, again, NULL), GANQ_ERR_FORMAT, "down_proj.qweight");
    ck_ganq_fails(ganq_model_export_dense(ctx, loaded, again, GANQ_DTYPE_F16, NULL),
                  GANQ_ERR_FORMAT, "down_proj.qweight");
    ganq_model_free(loaded);
    loaded = NULL;
    ck_assert_int_eq(entries(root), 2);
    ck_ganq_ok(ganq_model_save(ctx, quantized, target, &force));
    struct stat info;
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", target);
    ck_assert_int_eq(stat(path, &info), 0);
    /* The first tensor of the file is the embedding. */
    ganq_tensors *tensors = NULL;
    int64_t data_bytes = 0;
    ck_ganq_ok(ganq_tensors_open(path, &tensors));
    for (int64_t i = 0; i < ganq_tensors_count(tensors); i++) {
        ganq_tensor_info tensor = {.struct_size = sizeof tensor};
        ck_ganq_ok(ganq_tensors_get(tensors, i, &tensor));
        ck_assert_int_eq(tensor.has_crc, 1);
        data_bytes += tensor.size_bytes;
    }
    ganq_tensors_free(tensors);
    flip_byte(target, "model.safetensors", data_bytes - 100);
    ck_ganq_fails(ganq_model_load(ctx, target, &verify, &loaded), GANQ_ERR_FORMAT, "embed_tokens");
    ck_ganq_ok(ganq_model_load(ctx, target, NULL, &loaded));
    ck_ganq_fails(ganq_model_save(ctx, loaded, again, NULL), GANQ_ERR_FORMAT, "embed_tokens");
    ganq_model_free(loaded);
    ganq_model_free(quantized);
    ck_assert_int_eq(entries(root), 2);
}
END_TEST

START_TEST(exports_dense) {
    static const ganq_dtype dtypes[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};
    static const char *const words[] = {"\"float32\"", "\"float16\"", "\"bfloat16\""};
    static const double bounds[] = {1e-5, 5e-3, 5e-2};
    ganq_save_options force = {.struct_size = sizeof force, .force = GANQ_SWITCH_ON};
    ganq_model *quantized = quantize(4, 0.01f, GANQ_SWITCH_OFF);
    for (int i = 0; i < 3; i++) {
        ganq_model *dense = NULL;
        ganq_model_info info = {.struct_size = sizeof info};
        ck_ganq_ok(ganq_model_export_dense(ctx, quantized, target, dtypes[i], &force));
        ck_ganq_ok(ganq_model_load(ctx, target, NULL, &dense));
        ck_ganq_ok(ganq_model_get_info(dense, &info));
        ck_assert_int_eq(info.linears_quantized, 0);
        ck_assert_double_eq(info.bits_per_weight, i ? 16 : 32);
        ck_assert_double_lt(logit_distance(quantized, dense), bounds[i]);
        char *config = read_text(target, "config.json");
        ck_assert_ptr_null(strstr(config, "quantization_config"));
        ck_assert_ptr_nonnull(strstr(config, words[i]));
        ganq__free(config);
        ganq_model_free(dense);
    }
    ck_ganq_fails(ganq_model_export_dense(ctx, quantized, target, GANQ_DTYPE_U8, &force),
                  GANQ_ERR_INVALID_ARG, "U8");
    ganq_model_free(quantized);
}
END_TEST

START_TEST(export_refuses_overflow) {
    open_model(&(tiny_model){.scale = 1e6f});
    ck_ganq_fails(ganq_model_export_dense(ctx, model, target, GANQ_DTYPE_F16, NULL),
                  GANQ_ERR_NUMERIC, "embed_tokens");
    assert_nothing_left();
    ck_ganq_ok(ganq_model_export_dense(ctx, model, target, GANQ_DTYPE_BF16, NULL));
    close_model();
}
END_TEST

/* ---- where it is written ---- */

START_TEST(existing_directories) {
    ganq_save_options force = {.struct_size = sizeof force, .force = GANQ_SWITCH_ON};
    char inner[500], file[500];
    snprintf(inner, sizeof inner, "%s/no/such", root);
    snprintf(file, sizeof file, "%s/file", root);
    ck_ganq_fails(ganq_model_save(ctx, model, inner, NULL), GANQ_ERR_NOT_FOUND, "no/such");
    ck_ganq_fails(ganq_model_save(ctx, model, "", NULL), GANQ_ERR_INVALID_ARG, "empty");
    ganq_model *none = NULL;
    ck_ganq_fails(ganq_model_load(ctx, "", NULL, &none), GANQ_ERR_INVALID_ARG, "dir: the path is empty");
    ck_ganq_fails(ganq_model_save(ctx, model, root, NULL), GANQ_ERR_EXISTS, root);
    ck_ganq_fails(ganq_model_save(ctx, model, root, &force), GANQ_ERR_INVALID_ARG, "inside");
    ck_ganq_ok(ganq__make_dir(target));
    ck_ganq_ok(ganq_model_save(ctx, model, target, NULL)); /* empty: fine */
    ck_ganq_fails(ganq_model_save(ctx, model, target, NULL), GANQ_ERR_EXISTS, "not empty");
    ck_ganq_ok(ganq__file_write(file, "x", 1));
    ck_ganq_fails(ganq_model_save(ctx, model, file, &force), GANQ_ERR_EXISTS, "not a directory");
    char stray[600];
    snprintf(stray, sizeof stray, "%s/stray", target);
    ck_ganq_ok(ganq__file_write(stray, "x", 1));
    ck_ganq_ok(ganq_model_save(ctx, model, target, &force));
    ck_assert_int_eq(ganq__path_exists(stray), 0);
    ck_assert_int_eq(entries(root), 3);
    /* what is no model stays, and so does what the caller stands in */
    char other[500], precious[600], here[4096];
    snprintf(other, sizeof other, "%s/other", root);
    snprintf(precious, sizeof precious, "%s/precious", other);
    ck_ganq_ok(ganq__make_dir(other));
    ck_ganq_ok(ganq__file_write(precious, "x", 1));
    ck_ganq_fails(ganq_model_save(ctx, model, other, &force), GANQ_ERR_EXISTS, "no config.json");
    ck_assert_int_eq(ganq__path_exists(precious), 1);
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    ck_assert_int_eq(chdir(target), 0);
    ck_ganq_fails(ganq_model_save(ctx, model, ".", &force), GANQ_ERR_INVALID_ARG, "the same");
    ck_ganq_ok(ganq__make_dir("inner"));
    ck_assert_int_eq(chdir("inner"), 0);
    ck_ganq_fails(ganq_model_save(ctx, model, ".", NULL), GANQ_ERR_INVALID_ARG, "the same"); /* though it is empty */
    ck_ganq_fails(ganq_model_save(ctx, model, "..", &force), GANQ_ERR_INVALID_ARG, "inside it");
    ck_assert_int_eq(chdir(here), 0);
    ck_assert_int_eq(entries(root), 4);
}
END_TEST

START_TEST(over_its_own_source) {
    ganq_save_options force = {.struct_size = sizeof force, .force = GANQ_SWITCH_ON};
    ganq_model *quantized = quantize(4, 0, GANQ_SWITCH_OFF), *loaded = NULL;
    float *before = logits_of(model);
    ck_ganq_ok(ganq_model_save(ctx, quantized, source, &force));
    float *after = logits_of(model); /* its files are gone, its maps are not */
    ck_assert_mem_eq(before, after, PROBE * TINY_VOCAB * sizeof *before);
    ck_ganq_ok(ganq_model_load(ctx, source, NULL, &loaded));
    assert_same_logits(quantized, loaded);
    ganq__free(read_text(source, "LICENSE"));
    free(before);
    free(after);
    ganq_model_free(loaded);
    ganq_model_free(quantized);
    assert_nothing_left();
}
END_TEST

START_TEST(source_is_gone) {
    ck_ganq_ok(ganq__remove_tree(source));
    ck_ganq_fails(ganq_model_save(ctx, model, target, NULL), GANQ_ERR_NOT_FOUND, source);
    ck_assert_int_eq(entries(root), 0);
}
END_TEST

START_TEST(disk_full) {
    /* Files may not grow beyond a limit: what a full disk looks like to write(). */
    struct rlimit old, small;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    small = old;
    for (rlim_t limit = 0; limit <= 40000; limit += 8000) {
        small.rlim_cur = limit;
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
        ganq_status status = ganq_model_save(ctx, model, target, NULL);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
        ck_assert_int_eq(status, GANQ_ERR_IO);
        ck_assert_ptr_nonnull(strstr(ganq_last_error(), "cannot write"));
        assert_nothing_left();
    }
    signal(SIGXFSZ, handler);
}
END_TEST

/* ---- cancel, memory ---- */

START_TEST(cancel_at_every_call) {
    ganq_quantize_options layer = {
        .struct_size = sizeof layer, .bits = 2, .recipe = GANQ_RECIPE_FAST};
    ganq_model_quantize_options options = {.struct_size = sizeof options, .layer = &layer};
    ganq_model *quantized = NULL;
    int64_t n = 1;
    for (;; n++) {
        progress_calls = 0;
        cancel_at = n;
        ganq_status status = ganq_model_quantize(ctx, model, corpus, &options, &quantized);
        if (status == GANQ_OK)
            break;
        ck_assert_int_eq(status, GANQ_ERR_CANCELED);
        ck_assert_ptr_null(quantized);
    }
    ck_assert_int_gt(n, 2 * TINY_LINEARS); /* at least one call for every layer */
    for (n = 1;; n++) {
        progress_calls = 0;
        cancel_at = n;
        ganq_status status = ganq_model_save(ctx, quantized, target, NULL);
        if (status == GANQ_OK)
            break;
        ck_assert_int_eq(status, GANQ_ERR_CANCELED);
        assert_nothing_left();
    }
    ck_assert_int_gt(n, 2 * TINY_LINEARS);
    ganq_model_free(quantized);
}
END_TEST

START_TEST(cancel_while_choosing_bits) {
    ganq_quantize_options layer = {.struct_size = sizeof layer, .recipe = GANQ_RECIPE_FAST};
    ganq_model_quantize_options options = {
        .struct_size = sizeof options, .layer = &layer, .target_bits = 2.5f};
    ganq_model *quantized = NULL;
    int64_t n = 1;
    for (;; n += 7) {
        progress_calls = 0;
        cancel_at = n;
        ganq_status status = ganq_model_quantize(ctx, model, corpus, &options, &quantized);
        if (status == GANQ_OK)
            break;
        ck_assert_int_eq(status, GANQ_ERR_CANCELED);
        ck_assert_ptr_null(quantized);
    }
    ck_assert_int_gt(n, 6 * TINY_LINEARS);
    ganq_model_free(quantized);
}
END_TEST

START_TEST(progress_never_goes_back) {
    last_fraction = worst_step_back = 0; /* loading had its own */
    ganq_model_free(quantize(2, 0, GANQ_SWITCH_OFF));
    ck_assert_double_le(worst_step_back, 0);
    ck_assert_double_ge(last_fraction, 0.99);
    last_fraction = 0;
    ganq_model_free(quantize(2, 0, GANQ_SWITCH_ON));
    ck_assert_double_le(worst_step_back, 0);
    ck_assert_double_ge(last_fraction, 0.99);
    last_fraction = 0;
    ganq_model_free(quantize_mixed(3, GANQ_SWITCH_ON));
    ck_assert_double_le(worst_step_back, 0);
    ck_assert_double_ge(last_fraction, 0.99);
}
END_TEST

/* Every one takes minutes where threads are watched, and this test is about memory. */
#ifdef __SANITIZE_THREAD__
enum { ALLOCATION_STEP = 17 };
#else
enum { ALLOCATION_STEP = 1 };
#endif

START_TEST(every_allocation_may_fail) {
    ganq_quantize_options layer = {
        .struct_size = sizeof layer, .bits = 2, .recipe = GANQ_RECIPE_RTN};
    ganq_model_quantize_options options = {.struct_size = sizeof options, .layer = &layer};
    ganq_model *quantized = NULL;
    int64_t n = 0, made;
    do {
        ganq_model_free(
            quantized); /* of a failure that had a way around, as in starting the pool */
        quantized = NULL;
        ganq__alloc_fail_after(n += ALLOCATION_STEP);
        ganq_status status = ganq_model_quantize(ctx, model, corpus, &options, &quantized);
        made = ganq__alloc_count();
        ganq__alloc_fail_after(0);
        ck_assert_msg(status == GANQ_ERR_NO_MEMORY || status == GANQ_OK, "allocation %d: %s",
                      (int)n, ganq_last_error());
        ck_assert((status == GANQ_OK) == (quantized != NULL));
    } while (made >= n);
    ck_assert_ptr_nonnull(quantized); /* the last round was not disturbed */
    ck_assert_int_gt(n, 50);
    ganq_model *mixed = NULL;
    options.target_bits = 3;
    n = 0;
    do {
        ganq_model_free(mixed);
        mixed = NULL;
        ganq__alloc_fail_after(n += 31 * ALLOCATION_STEP);
        ganq_status status = ganq_model_quantize(ctx, model, corpus, &options, &mixed);
        made = ganq__alloc_count();
        ganq__alloc_fail_after(0);
        ck_assert_msg(status == GANQ_ERR_NO_MEMORY || status == GANQ_OK, "allocation %d: %s",
                      (int)n, ganq_last_error());
        ck_assert((status == GANQ_OK) == (mixed != NULL));
    } while (made >= n);
    ganq_model_free(mixed);
    n = 0;
    do {
        ganq__alloc_fail_after(n += ALLOCATION_STEP);
        ganq_status status = ganq_model_save(ctx, quantized, target, NULL);
        made = ganq__alloc_count();
        ganq__alloc_fail_after(0);
        ck_assert_msg(status == (made >= n ? GANQ_ERR_NO_MEMORY : GANQ_OK), "allocation %d: %s",
                      (int)n, ganq_last_error());
        if (status != GANQ_OK)
            assert_nothing_left();
    } while (made >= n);
    ck_assert_int_eq(entries(root), 2);
    ck_assert_int_gt(n, 50);
    ganq_model_free(quantized);
}
END_TEST

START_TEST(memory_budget) {
    ganq_context *poor = NULL;
    ganq_model *quantized = NULL;
    ganq_context_options options = {.struct_size = sizeof options, .memory_budget_bytes = 50000};
    ck_ganq_ok(ganq_context_create(&options, &poor));
    ck_ganq_fails(ganq_model_quantize(poor, model, corpus, NULL, &quantized), GANQ_ERR_NO_MEMORY,
                  "50000");
    ganq_context_free(poor);
}
END_TEST

/* ---- what is quantized ---- */

START_TEST(threads_do_not_matter) {
    ganq_model *models[3];
    ganq_context *mine = ctx;
    for (int t = 0; t < 3; t++) {
        ctx = make_context(t + 1);
        models[t] = quantize(3, 0.01f, GANQ_SWITCH_ON);
        ganq_context_free(ctx);
    }
    ctx = mine;
    for (int64_t i = 0; i < 2 * TINY_LINEARS; i++) {
        ganq_linear_info first = {.struct_size = sizeof first},
                         other = {.struct_size = sizeof other};
        ck_ganq_ok(ganq_model_get_linear(models[0], i, &first));
        uint8_t codes[3][TINY_INTER * TINY_INTER];
        float luts[3][TINY_INTER * 8];
        for (int t = 0; t < 3; t++) {
            ganq_matrix c = GANQ_MATRIX(GANQ_DTYPE_U8, first.rows, first.cols, codes[t]);
            ganq_matrix l = GANQ_MATRIX(GANQ_DTYPE_F32, first.rows, 8, luts[t]);
            ck_ganq_ok(ganq_layer_export(ganq_model_layer(models[t], i), &c, &l));
            ck_ganq_ok(ganq_model_get_linear(models[t], i, &other));
            ck_assert_double_eq(other.error, first.error);
            ck_assert_mem_eq(codes[t], codes[0], (size_t)(first.rows * first.cols));
            ck_assert_mem_eq(luts[t], luts[0], (size_t)first.rows * 8 * sizeof(float));
        }
    }
    for (int t = 0; t < 3; t++)
        ganq_model_free(models[t]);
}
END_TEST

static double relative_error(const ganq_model *of, int64_t i) {
    ganq_linear_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_model_get_linear(of, i, &info));
    ck_assert_double_gt(info.norm, 0);
    ck_assert_int_eq(info.tokens, 8 * 48);
    return info.error / info.norm;
}

START_TEST(propagation_changes_later_inputs_only) {
    ganq_model *off = quantize(2, 0, GANQ_SWITCH_OFF), *on = quantize(2, 0, GANQ_SWITCH_ON);
    for (int64_t i = 0; i < 3; i++) /* q, k, v of the first block see the same either way */
        ck_assert_double_eq(relative_error(off, i), relative_error(on, i));
    int different = 0;
    for (int64_t i = TINY_LINEARS; i < 2 * TINY_LINEARS; i++)
        different += relative_error(off, i) != relative_error(on, i);
    ck_assert_int_eq(different, TINY_LINEARS);
    ck_assert_double_lt(logit_distance(model, on), 1.0);
    ganq_model_free(off);
    ganq_model_free(on);
}
END_TEST

START_TEST(nearest_needs_no_calibration) {
    ganq_quantize_options layer = {
        .struct_size = sizeof layer, .bits = 4, .recipe = GANQ_RECIPE_RTN};
    ganq_model_quantize_options options = {.struct_size = sizeof options, .layer = &layer};
    ganq_model *quantized = NULL, *again = NULL;
    ck_ganq_ok(ganq_model_quantize(ctx, model, NULL, &options, &quantized));
    ck_assert_double_lt(logit_distance(model, quantized), 0.5);
    ck_assert_double_gt(logit_distance(model, quantized), 0);
    ck_ganq_fails(ganq_model_quantize(ctx, quantized, NULL, &options, &again), GANQ_ERR_INVALID_ARG,
                  "quantized already");
    layer.recipe = GANQ_RECIPE_DEFAULT;
    ck_ganq_fails(ganq_model_quantize(ctx, model, NULL, &options, &again), GANQ_ERR_INVALID_ARG,
                  "calibration");
    ganq_model_free(quantized);
    quantized = NULL;
    layer.bits = 5;
    ck_ganq_fails(ganq_model_quantize(ctx, model, corpus, &options, &quantized),
                  GANQ_ERR_UNSUPPORTED, "5");
    ck_assert_ptr_null(quantized);
}
END_TEST

START_TEST(skips_by_expression) {
    ganq_quantize_options layer = {
        .struct_size = sizeof layer, .bits = 3, .recipe = GANQ_RECIPE_FAST};
    ganq_model_quantize_options options = {
        .struct_size = sizeof options, .layer = &layer, .skip = "(down|k)_proj$|layers\\.1\\.mlp"};
    ganq_model *quantized = NULL, *loaded = NULL;
    ganq_quantize_plan plan = {.struct_size = sizeof plan};
    ganq_model_info info = {.struct_size = sizeof info};
    int64_t bytes[2 * TINY_LINEARS];
    ck_ganq_ok(ganq_model_plan(ctx, model, corpus, &options, &plan, bytes));
    ck_ganq_ok(ganq_model_quantize(ctx, model, corpus, &options, &quantized));
    ck_ganq_ok(ganq_model_get_info(quantized, &info));
    ck_assert_int_eq(plan.linears, 8);
    ck_assert_int_eq(plan.skipped, 6);
    ck_assert_int_eq(plan.bytes_after, info.linear_bytes);
    ck_assert_int_gt(plan.memory_bytes, plan.activation_bytes);
    ck_assert_int_eq(plan.activation_bytes, 2 * 8 * 48 * TINY_HIDDEN * 4);
    for (int64_t i = 0; i < 2 * TINY_LINEARS; i++) {
        ganq_linear_info linear = {.struct_size = sizeof linear};
        ck_ganq_ok(ganq_model_get_linear(quantized, i, &linear));
        int kept = strstr(linear.name, "down_proj") || strstr(linear.name, "k_proj") ||
                   strstr(linear.name, "layers.1.mlp");
        ck_assert_int_eq(linear.bits, kept ? 0 : 3);
        ck_assert_int_eq(ganq_model_layer(quantized, i) == NULL, kept);
        ck_assert_int_eq(bytes[i] == 0, kept);
    }
    ck_ganq_ok(ganq_model_save(ctx, quantized, target, NULL));
    ck_ganq_ok(ganq_model_load(ctx, target, NULL, &loaded));
    assert_same_logits(quantized, loaded);
    ganq_model_free(loaded);
    ganq_model_free(quantized);
    quantized = NULL;
    options.skip = "proj(";
    ck_ganq_fails(ganq_model_quantize(ctx, model, corpus, &options, &quantized),
                  GANQ_ERR_INVALID_ARG, "position 5");
    options.skip = ".";
    ck_ganq_fails(ganq_model_quantize(ctx, model, corpus, &options, &quantized),
                  GANQ_ERR_INVALID_ARG, "nothing to quantize");
}
END_TEST

static int64_t linear_bytes(const ganq_model *of) {
    ganq_model_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_model_get_info(of, &info));
    return info.linear_bytes;
}

static int bits_of(const ganq_model *of, int64_t i) {
    ganq_linear_info info = {.struct_size = sizeof info};
    ck_ganq_ok(ganq_model_get_linear(of, i, &info));
    return info.bits;
}

START_TEST(mixes_bits_within_the_budget) {
    int64_t uniform[3];
    for (int bits = 2; bits <= 4; bits++) {
        ganq_model *made = quantize(bits, 0, GANQ_SWITCH_OFF);
        uniform[bits - 2] = linear_bytes(made);
        ganq_model_free(made);
    }
    for (double target_bits = 2; target_bits <= 4; target_bits += 0.5) {
        ganq_model *made = quantize_mixed(target_bits, GANQ_SWITCH_OFF);
        int seen[5] = {0};
        for (int64_t i = 0; i < 2 * TINY_LINEARS; i++)
            seen[bits_of(made, i)]++;
        const int below = (int)target_bits - 2, above = (int)(target_bits + 0.5) - 2;
        const int64_t budget = (uniform[below] + uniform[above]) / 2;
        ck_assert_int_le(linear_bytes(made), budget);
        ck_assert_int_gt(linear_bytes(made), budget - budget / 20);
        ck_assert_int_eq(seen[2] + seen[3] + seen[4], 2 * TINY_LINEARS);
        if (target_bits == 2 || target_bits == 4)
            ck_assert_int_eq(seen[(int)target_bits], 2 * TINY_LINEARS);
        else
            ck_assert_int_lt(seen[(int)target_bits], 2 * TINY_LINEARS);
        ganq_model_free(made);
    }
}
END_TEST

START_TEST(saves_mixed_bits) {
    ganq_model *made = quantize_mixed(2.5, GANQ_SWITCH_ON), *loaded = NULL;
    ck_ganq_ok(ganq_model_save(ctx, made, target, NULL));
    ck_ganq_ok(ganq_model_load(ctx, target, NULL, &loaded));
    for (int64_t i = 0; i < 2 * TINY_LINEARS; i++)
        ck_assert_int_eq(bits_of(loaded, i), bits_of(made, i));
    assert_same_logits(made, loaded);
    ganq_model_free(loaded);
    ganq_model_free(made);
}
END_TEST

START_TEST(mixed_bits_whatever_the_threads) {
    ganq_model *first = quantize_mixed(2.5, GANQ_SWITCH_ON), *second;
    ganq_context *mine = ctx;
    ctx = make_context(3);
    second = quantize_mixed(2.5, GANQ_SWITCH_ON);
    ganq_context_free(ctx);
    ctx = mine;
    for (int64_t i = 0; i < 2 * TINY_LINEARS; i++)
        ck_assert_int_eq(bits_of(first, i), bits_of(second, i));
    assert_same_logits(first, second);
    ganq_model_free(first);
    ganq_model_free(second);
}
END_TEST

START_TEST(target_bits_and_compensation_are_checked) {
    static const float bits[] = {1.9f, 4.1f, -3, NAN};
    ganq_quantize_options rtn = {.struct_size = sizeof rtn, .recipe = GANQ_RECIPE_RTN};
    ganq_model_quantize_options options = {.struct_size = sizeof options};
    ganq_model *quantized = NULL;
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        options.target_bits = bits[i];
        ck_ganq_fails(ganq_model_quantize(ctx, model, corpus, &options, &quantized),
                      GANQ_ERR_INVALID_ARG, "target_bits");
    }
    options.target_bits = 3;
    options.layer = &rtn;
    ck_ganq_fails(ganq_model_quantize(ctx, model, NULL, &options, &quantized),
                  GANQ_ERR_INVALID_ARG, "target_bits");
    options.target_bits = 0;
    options.layer = NULL;
    options.compensation = 1.5f;
    ck_ganq_fails(ganq_model_quantize(ctx, model, corpus, &options, &quantized),
                  GANQ_ERR_INVALID_ARG, "compensation");
    options.compensation = 0.5f;
    options.propagate = GANQ_SWITCH_OFF;
    ck_ganq_fails(ganq_model_quantize(ctx, model, corpus, &options, &quantized),
                  GANQ_ERR_INVALID_ARG, "propagate is off");
    ck_assert_ptr_null(quantized);
}
END_TEST

/* With it, without it, and at another strength: three different models; the plan knows its memory.
 */
START_TEST(compensation_is_an_option) {
    static const float strengths[] = {0, -1, 0.75f, 0.5f};
    ganq_quantize_options layer = {
        .struct_size = sizeof layer, .bits = 2, .recipe = GANQ_RECIPE_FAST};
    ganq_model *models[4];
    ganq_quantize_plan plans[4];
    for (int i = 0; i < 4; i++) {
        ganq_model_quantize_options options = {
            .struct_size = sizeof options, .layer = &layer, .compensation = strengths[i]};
        plans[i] = (ganq_quantize_plan){.struct_size = sizeof plans[i]};
        ck_ganq_ok(ganq_model_quantize(ctx, model, corpus, &options, &models[i]));
        ck_ganq_ok(ganq_model_plan(ctx, model, corpus, &options, &plans[i], NULL));
    }
    assert_same_logits(models[0], models[3]);
    ck_assert_double_gt(logit_distance(models[0], models[1]), 0);
    ck_assert_double_gt(logit_distance(models[0], models[2]), 0);
    ck_assert_double_gt(logit_distance(models[1], models[2]), 0);
    ck_assert_int_eq(plans[0].activation_bytes, 2 * plans[1].activation_bytes);
    for (int i = 0; i < 4; i++)
        ganq_model_free(models[i]);
}
END_TEST

START_TEST(plan_matches_outliers_and_biases) {
    ganq_quantize_options layer = {
        .struct_size = sizeof layer, .bits = 4, .recipe = GANQ_RECIPE_RTN};
    ganq_model_quantize_options options = {.struct_size = sizeof options, .layer = &layer};
    ganq_quantize_plan plan = {.struct_size = sizeof plan};
    ganq_model *quantized = NULL;
    ganq_model_info before = {.struct_size = sizeof before}, after = {.struct_size = sizeof after};
    ck_ganq_ok(ganq_model_plan(ctx, model, NULL, &options, &plan, NULL));
    ck_ganq_ok(ganq_model_quantize(ctx, model, NULL, &options, &quantized));
    ck_ganq_ok(ganq_model_get_info(model, &before));
    ck_ganq_ok(ganq_model_get_info(quantized, &after));
    ck_assert_int_eq(plan.bytes_before, before.linear_bytes);
    ck_assert_int_eq(plan.bytes_after, after.linear_bytes);
    ck_assert_double_eq_tol(plan.bits_per_weight, after.bits_per_weight, 1e-9);
    ganq_model_free(quantized);
}
END_TEST

/* ---- bad input ---- */

static void fails_on(const char *tensor, const char *word) {
    open_model(&(tiny_model){.nan_tensor = tensor});
    ganq_model *quantized = NULL;
    ck_ganq_fails(ganq_model_quantize(ctx, model, corpus, NULL, &quantized), GANQ_ERR_NUMERIC,
                  word);
    ck_assert_ptr_null(quantized);
    close_model();
}

START_TEST(names_the_linear_with_a_nan) {
    fails_on("model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj");
    fails_on("model.layers.0.post_attention_layernorm.weight",
             "the inputs of model.layers.0.mlp.gate_proj");
}
END_TEST

START_TEST(bad_sequences) {
    ganq_model *quantized = NULL;
    ganq_corpus *bad = NULL;
    int32_t ids[TINY_MAX_POSITIONS + 1] = {1, 2, TINY_VOCAB};
    ck_ganq_ok(ganq_corpus_create(&bad));
    ck_ganq_fails(ganq_model_quantize(ctx, model, bad, NULL, &quantized), GANQ_ERR_INVALID_ARG,
                  "no tokens");
    ck_ganq_ok(ganq_corpus_add(bad, ids, 2));
    ck_ganq_ok(ganq_corpus_add(bad, ids, 3));
    ck_ganq_fails(ganq_model_quantize(ctx, model, bad, NULL, &quantized), GANQ_ERR_INVALID_ARG,
                  "sequence 1");
    ganq_corpus_free(bad);
    bad = NULL;
    ids[2] = 3;
    ck_ganq_ok(ganq_corpus_create(&bad));
    ck_ganq_ok(ganq_corpus_add(bad, ids, TINY_MAX_POSITIONS + 1));
    ck_ganq_fails(ganq_model_quantize(ctx, model, bad, NULL, &quantized), GANQ_ERR_INVALID_ARG,
                  "65 tokens");
    ganq_corpus_free(bad);
    ck_assert_ptr_null(quantized);
}
END_TEST

START_TEST(null_arguments) {
    ganq_model *quantized = NULL;
    ganq_quantize_plan plan = {.struct_size = 0};
    ck_ganq_fails(ganq_model_quantize(NULL, model, corpus, NULL, &quantized), GANQ_ERR_INVALID_ARG,
                  "ctx");
    ck_ganq_fails(ganq_model_quantize(ctx, NULL, corpus, NULL, &quantized), GANQ_ERR_INVALID_ARG,
                  "model");
    ck_ganq_fails(ganq_model_quantize(ctx, model, corpus, NULL, NULL), GANQ_ERR_INVALID_ARG, "out");
    ck_ganq_fails(ganq_model_save(ctx, model, NULL, NULL), GANQ_ERR_INVALID_ARG, "dir");
    ck_ganq_fails(ganq_model_plan(ctx, model, corpus, NULL, &plan, NULL), GANQ_ERR_INVALID_ARG,
                  "struct_size");
    ck_ganq_fails(ganq_model_get_linear(model, 2 * TINY_LINEARS, NULL), GANQ_ERR_INVALID_ARG, "14");
    ck_assert_ptr_null(ganq_model_layer(model, 0));
    ck_assert_ptr_null(ganq_model_layer(NULL, 0));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pipeline");
    TCase *plain = tcase_create("plain"), *biases = tcase_create("biases"),
          *bare = tcase_create("bare");
    tcase_add_checked_fixture(plain, setup, close_model);
    tcase_add_checked_fixture(biases, setup_biases, close_model);
    tcase_set_timeout(plain, 300);
    tcase_set_timeout(bare, 300);
    tcase_add_test(plain, saves_and_loads);
    tcase_add_test(plain, saves_outliers_and_other_widths);
    tcase_add_test(plain, saves_shards);
    tcase_add_test(plain, saved_again_keeps_its_record);
    tcase_add_test(plain, finds_damaged_codes_and_dense_tensors);
    tcase_add_test(plain, exports_dense);
    tcase_add_test(plain, existing_directories);
    tcase_add_test(plain, over_its_own_source);
    tcase_add_test(plain, source_is_gone);
    tcase_add_test(plain, disk_full);
    tcase_add_test(plain, cancel_at_every_call);
    tcase_add_test(plain, cancel_while_choosing_bits);
    tcase_add_test(plain, progress_never_goes_back);
    tcase_add_test(plain, every_allocation_may_fail);
    tcase_add_test(plain, memory_budget);
    tcase_add_test(plain, threads_do_not_matter);
    tcase_add_test(plain, propagation_changes_later_inputs_only);
    tcase_add_test(plain, nearest_needs_no_calibration);
    tcase_add_test(plain, skips_by_expression);
    tcase_add_test(plain, mixes_bits_within_the_budget);
    tcase_add_test(plain, saves_mixed_bits);
    tcase_add_test(plain, mixed_bits_whatever_the_threads);
    tcase_add_test(plain, target_bits_and_compensation_are_checked);
    tcase_add_test(plain, compensation_is_an_option);
    tcase_add_test(plain, bad_sequences);
    tcase_add_test(plain, null_arguments);
    tcase_add_test(biases, saves_biases_and_a_head);
    tcase_add_test(biases, exports_dense);
    tcase_add_test(biases, plan_matches_outliers_and_biases);
    tcase_add_test(bare, export_refuses_overflow);
    tcase_add_test(bare, names_the_linear_with_a_nan);
    suite_add_tcase(suite, plain);
    suite_add_tcase(suite, biases);
    suite_add_tcase(suite, bare);
    return test_run(suite, 0);
}
