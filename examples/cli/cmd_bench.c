/* cmd_bench.c - `ganq bench quantize`; `bench gemm` and `bench decode` are in files of their own.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* splitmix64 */
uint64_t cli_random_bits(cli_random *random) {
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Sum of four uniform 16-bit numbers. */
double cli_random_normal(cli_random *random) {
    uint64_t bits = cli_random_bits(random);
    double sum = (double)(bits & 0xffff) + (double)(bits >> 16 & 0xffff) +
                 (double)(bits >> 32 & 0xffff) + (double)(bits >> 48);
    return (sum / 65536.0 - 2.0) * sqrt(3.0);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cli_median(double *values, size_t count) {
    qsort(values, count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

/* ---- quantize
 * ------------------------------------------------------------------------------------------------
 */

/* H of activations whose neighbours are correlated (0.9) and whose channels differ in scale, 4 K
 * tokens. */
static ganq_status make_hessian(ganq_context *ctx, int64_t K, cli_random *random, float *x,
                                int64_t rows, ganq_hessian **out) {
    ganq_status status = ganq_hessian_create(ctx, K, out);
    for (int64_t done = 0; done < 4 * K && status == GANQ_OK; done += rows) {
        const int64_t count = 4 * K - done < rows ? 4 * K - done : rows;
        for (int64_t m = 0; m < count; m++) {
            double value = 0;
            for (int64_t k = 0; k < K; k++) {
                value = 0.9 * value + 0.436 * cli_random_normal(random);
                x[m * K + k] = (float)(value * (k % 61 == 0 ? 8.0 : 1.0));
            }
        }
        ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F32, count, K, x);
        status = ganq_hessian_add(ctx, *out, &matrix);
    }
    return status;
}

static int bench_quantize(int argc, char **argv) {
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *shape = "512x512";
    int64_t bits = 4, recipe = 0, format = CLI_FORMAT_MD, N, K;
    const cli_option options[] = {
        {CLI_TEXT, 0, "shape", &shape, "NxK", 0, 0, "outputs x inputs of the layer"},
        {CLI_INT, 'b', "bits", &bits, "B", 2, 4, "bits per code"},
        {CLI_CHOICE, 0, "recipe", &recipe, CLI_RECIPES, 0, 0, "how codes and tables are found"},
        {CLI_CHOICE, 'o', "format", &format, CLI_FORMATS, 0, 0, "of the output"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {"bench quantize",
                                 "[options]",
                                 "Times the solver on random weights and correlated activations.",
                                 options,
                                 0,
                                 0};
    int code = cli_parse(&command, argc, argv, NULL);
    if (code != CLI_CONTINUE)
        return code;
    if (!cli_parse_shape(shape, &N, &K) || N > 1 << 20 || K > 1 << 16)
        return cli_usage("--shape: expected NxK such as 4096x4096, found \"%s\"", shape);
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;
    enum { ROWS = 2048 }; /* every addition goes through all of H, on a GPU over the bus and back */
    ganq_hessian *hessian = NULL;
    ganq_layer *layer = NULL;
    cli_random random = {7};
    float *x = calloc((size_t)(ROWS * K), sizeof *x), *w = calloc((size_t)(N * K), sizeof *w);
    if (!x || !w) {
        cli_message("out of memory");
        code = CLI_FAILURE;
        goto done;
    }
    for (int64_t i = 0; i < N * K; i++)
        w[i] = (float)(0.02 * cli_random_normal(&random));
    ganq_matrix weight = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w);
    ganq_quantize_options quantize;
    ganq_quantize_options_init(&quantize, sizeof quantize);
    quantize.bits = (int32_t)bits;
    quantize.recipe = (int32_t)recipe;
    ganq_layer_report report = {.struct_size = sizeof report};
    ganq_status status = make_hessian(ctx, K, &random, x, ROWS, &hessian);
    if (status == GANQ_OK)
        status = ganq_layer_quantize(ctx, &weight, hessian, NULL, &quantize, &layer);
    if (status == GANQ_OK)
        status = ganq_layer_get_report(layer, &report);
    if (status != GANQ_OK) {
        code = cli_failed(status);
        goto done;
    }
    cli_progress_clear();
    json_t *rows = json_array();
    json_array_append_new(
        rows,
        json_pack("{s:s, s:I, s:s, s:s, s:s, s:i, s:f, s:f, s:f}", "shape", shape, "bits",
                  (json_int_t)bits, "numerics", cli_numerics(ctx), "recipe",
                  cli_choice(CLI_RECIPES, recipe), "device", ganq_context_device_name(ctx),
                  "threads", ganq_context_threads(ctx), "seconds", report.seconds, "weights_per_s",
                  (double)(N * K) / report.seconds, "E", report.error / report.norm));
    code = cli_print_rows(rows, format);
done:
    ganq_layer_free(layer);
    ganq_hessian_free(hessian);
    free(x);
    free(w);
    ganq_context_free(ctx);
    return code;
}

int cmd_bench(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "gemm"))
        return cmd_bench_gemm(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "decode"))
        return cmd_bench_decode(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "tune"))
        return cmd_bench_tune(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "quantize"))
        return bench_quantize(argc - 1, argv + 1);
    int help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    fprintf(help ? stdout : stderr,
            "usage: ganq bench gemm|decode|quantize|tune [options]\n\n"
            "  gemm      Y = X W~^T of random layers against the speed of reading their codes\n"
            "  decode    tokens per second of a model, or of a shape with random weights\n"
            "  quantize  the solver on random weights\n"
            "  tune      finds and keeps the best kernels of a GPU for layers of given shapes\n\n"
            "Each has --help.\n");
    return help ? CLI_OK : CLI_USAGE;
}
