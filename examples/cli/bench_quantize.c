/* bench_quantize.c - `ganq bench quantize`: the solver on random weights, and what bounds its stages.
 *
 * A stage's seconds are its share of the wall time: its thread-seconds over the threads. The S-step
 * and descent are products: their share is of the float32 matrix product's rate, ours or that of a
 * BLAS, whichever is higher. The table step reads every row of H's factor once per row of W: its
 * share is of the rate at which as many threads read a panel of the factor, 16 columns, which is
 * what they go over again and again. Both rates are measured in the same run. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "blas.h"
#include "cli.h"
#include "read_floor.h"

enum { ROWS = 2048 }; /* every addition to H goes through all of it, on a GPU over the bus and back */
enum { PRODUCT_TOKENS = 512, PRODUCTS = 5 };

/* H of activations whose neighbours are correlated (0.9) and whose channels differ in scale, 4 K
 * tokens. */
static ganq_status make_hessian(ganq_context *ctx, int64_t K, cli_random *random,
                                ganq_hessian **out) {
    float *x = calloc((size_t)(ROWS * K), sizeof *x);
    ganq_status status = x ? ganq_hessian_create(ctx, K, out) : GANQ_ERR_NO_MEMORY;
    for (int64_t done = 0; done < 4 * K && status == GANQ_OK; done += ROWS) {
        const int64_t count = 4 * K - done < ROWS ? 4 * K - done : ROWS;
        for (int64_t m = 0; m < count; m++) {
            double value = 0;
            for (int64_t k = 0; k < K; k++) {
                value = 0.9 * value + 0.436 * cli_random_normal(random);
                x[m * K + k] = (float)(value * (k % 61 == 0 ? 8.0 : 1.0));
            }
        }
        ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F32, count, K, x);
        status = cli_interrupted() ? GANQ_ERR_CANCELED : ganq_hessian_add(ctx, *out, &matrix);
    }
    free(x);
    return status;
}

/* Multiply-adds per second of Y = X W^T, the median of a few: with blas NULL, ours. */
static ganq_status product_rate(ganq_context *ctx, const cli_blas *blas, int64_t N, int64_t K,
                                float *w, float *x, float *y, double *rate) {
    const ganq_matrix weight = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w);
    const ganq_matrix input = GANQ_MATRIX(GANQ_DTYPE_F32, PRODUCT_TOKENS, K, x);
    ganq_matrix output = GANQ_MATRIX(GANQ_DTYPE_F32, PRODUCT_TOKENS, N, y);
    double times[PRODUCTS];
    for (int64_t i = 0; i < PRODUCT_TOKENS * K; i++)
        x[i] = (float)(i % 7 - 3);
    for (int i = -1; i < PRODUCTS; i++) { /* the first wakes the threads */
        const double started = cli_now();
        if (blas)
            blas->sgemm(101, 111, 112, PRODUCT_TOKENS, (int)N, (int)K, 1, x, (int)K, w, (int)K, 0,
                        y, (int)N);
        else {
            const ganq_status status = ganq_dense_gemm(ctx, &weight, &input, &output);
            if (status != GANQ_OK)
                return status;
        }
        if (i >= 0)
            times[i] = cli_now() - started;
    }
    *rate = (double)PRODUCT_TOKENS * (double)N * (double)K / cli_median(times, PRODUCTS);
    return GANQ_OK;
}

static double peak_bytes(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? 1024.0 * (double)usage.ru_maxrss : 0;
}

/* `work` per second and thread, all threads together, as a part of `rate`; null where there is no
 * work or no rate. */
static json_t *share(const ganq_cost *cost, int threads, double rate) {
    if (!(cost->work > 0) || !(rate > 0))
        return json_null();
    return json_real(cost->work / cost->seconds * threads / rate);
}

/* The stages of `report` beside the rates of the machine. */
static void add_stages(json_t *row, const ganq_layer_report *report, int threads, double product,
                       double read) {
    static const char *const names[] = {"",         "prepare_s", "starts_s", "assign_s",
                                        "tables_s", "descent_s", "finish_s"};
    double sum = 0;
    for (int64_t i = 0; i < report->cost_count; i++) {
        const ganq_cost *cost = &report->costs[i];
        if (cost->stage < 1 || cost->stage > GANQ_COST_FINISH)
            continue;
        json_object_set_new(row, names[cost->stage], json_real(cost->seconds / threads));
        sum += cost->seconds / threads;
    }
    json_object_set_new(row, "rest_s", json_real(report->seconds - sum));
    json_object_set_new(row, "product_gflops", json_real(2e-9 * product));
    json_object_set_new(row, "assign_share",
                        share(&report->costs[GANQ_COST_ASSIGN - 1], threads, product));
    json_object_set_new(row, "descent_share",
                        share(&report->costs[GANQ_COST_DESCENT - 1], threads, product));
    json_object_set_new(row, "read_gb_per_s", json_real(1e-9 * read));
    json_object_set_new(row, "tables_share",
                        share(&report->costs[GANQ_COST_TABLES - 1], threads, read));
}

typedef struct bench {
    const char *shape;
    int64_t N, K, bits, recipe, repeat;
    float *x, *w, *y;
    ganq_hessian *hessian;
    ganq_layer *layer;
} bench;

static ganq_status run(ganq_context *ctx, bench *b, const cli_blas *blas, json_t *rows) {
    const double N = (double)b->N, K = (double)b->K;
    const int threads = ganq_context_threads(ctx);
    ganq_matrix weight = GANQ_MATRIX(GANQ_DTYPE_F32, b->N, b->K, b->w);
    ganq_quantize_options quantize;
    ganq_quantize_options_init(&quantize, sizeof quantize);
    quantize.bits = (int32_t)b->bits;
    quantize.recipe = (int32_t)b->recipe;
    ganq_layer_report report = {.struct_size = sizeof report};
    cli_random random = {7};
    for (int64_t i = 0; i < b->N * b->K; i++)
        b->w[i] = (float)(0.02 * cli_random_normal(&random));
    ganq_status status = make_hessian(ctx, b->K, &random, &b->hessian);
    for (int64_t r = 0; r < b->repeat && status == GANQ_OK; r++) {
        ganq_layer_free(b->layer);
        b->layer = NULL;
        status = ganq_layer_quantize(ctx, &weight, b->hessian, NULL, &quantize, &b->layer);
    }
    if (status == GANQ_OK)
        status = ganq_layer_get_report(b->layer, &report);
    if (status != GANQ_OK)
        return status;
    const double peak = peak_bytes(), input = 4 * (N * K + K * K);
    double ours = 0, theirs = 0, read = 0;
    if (!strncmp(ganq_context_device_name(ctx), "cpu", 3)) { /* stages of a GPU are not told apart */
        status = product_rate(ctx, NULL, b->N, b->K, b->w, b->x, b->y, &ours);
        if (status == GANQ_OK && blas->sgemm)
            status = product_rate(ctx, blas, b->N, b->K, b->w, b->x, b->y, &theirs);
        if (status != GANQ_OK)
            return status;
        read = read_floor_cache_rate(threads, (size_t)b->K * 16 * sizeof(float));
    }
    cli_progress_clear();
    json_t *row = json_pack(
        "{s:s, s:I, s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "shape", b->shape, "bits",
        (json_int_t)b->bits, "numerics", cli_numerics(ctx), "recipe",
        cli_choice(CLI_RECIPES, b->recipe), "device", ganq_context_device_name(ctx), "threads",
        threads, "seconds", report.seconds, "weights_per_s", N * K / report.seconds, "ps_per_nk2",
        1e12 * report.seconds / (N * K * K), "E", report.error / report.norm, "peak_bytes", peak,
        "peak_over_inputs", peak / input);
    add_stages(row, &report, threads, theirs > ours ? theirs : ours, read);
    json_array_append_new(rows, row);
    return GANQ_OK;
}

int cmd_bench_quantize(int argc, char **argv) {
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *blas_path = "";
    int64_t format = CLI_FORMAT_MD;
    bench b = {.shape = "512x512", .bits = 4, .repeat = 1};
    const cli_option options[] = {
        {CLI_TEXT, 0, "shape", &b.shape, "NxK", 0, 0, "outputs x inputs of the layer"},
        {CLI_INT, 'b', "bits", &b.bits, "B", 2, 4, "bits per code"},
        {CLI_CHOICE, 0, "recipe", &b.recipe, CLI_RECIPES, 0, 0, "how codes and tables are found"},
        {CLI_INT, 'r', "repeat", &b.repeat, "R", 1, 100,
         "the last of R runs is shown; the first opens a GPU's libraries"},
        {CLI_TEXT, 0, "blas", &blas_path, "FILE", 0, 0,
         "products of a library, such as libopenblas.so.0, as the yardstick where they are faster"},
        {CLI_CHOICE, 'o', "format", &format, CLI_FORMATS, 0, 0, "of the output"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        "bench quantize",
        "[options]",
        "Times the solver on random weights and correlated activations, stage by stage. "
        "assign_share and\n"
        "descent_share are parts of the matrix product's rate (product_gflops), tables_share of the "
        "rate at which\n"
        "threads read a panel of H's factor (read_gb_per_s), all measured in the same run. "
        "ps_per_nk2 is the time\n"
        "per N K^2, peak_over_inputs the most memory over that of W and H in f32.",
        options,
        0,
        0};
    int code = cli_parse(&command, argc, argv, NULL);
    if (code != CLI_CONTINUE)
        return code;
    if (!cli_parse_shape(b.shape, &b.N, &b.K) || b.N > 1 << 20 || b.K > 1 << 16)
        return cli_usage("--shape: expected NxK such as 4096x4096, found \"%s\"", b.shape);
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;
    cli_blas blas = {0};
    json_t *rows = json_array();
    if (*blas_path)
        code = cli_blas_open(blas_path, ganq_context_threads(ctx), &blas);
    b.x = calloc((size_t)(PRODUCT_TOKENS * b.K), sizeof *b.x);
    b.w = calloc((size_t)(b.N * b.K), sizeof *b.w);
    b.y = calloc((size_t)(PRODUCT_TOKENS * b.N), sizeof *b.y);
    if (code == CLI_OK && (!b.x || !b.w || !b.y)) {
        cli_message("out of memory");
        code = CLI_FAILURE;
    }
    if (code == CLI_OK) {
        const ganq_status status = run(ctx, &b, &blas, rows);
        if (status != GANQ_OK)
            code = cli_failed(status);
    }
    if (code == CLI_OK)
        code = cli_print_rows(rows, format);
    else
        json_decref(rows);
    ganq_layer_free(b.layer);
    ganq_hessian_free(b.hessian);
    free(b.x);
    free(b.w);
    free(b.y);
    ganq_context_free(ctx);
    return code;
}
