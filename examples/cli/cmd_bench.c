/* cmd_bench.c - `ganq bench decode` and `ganq bench quantize`; `bench gemm` is in bench_gemm.c. */
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

/* ---- decode
 * --------------------------------------------------------------------------------------------------
 */

enum { MAX_REPEATS = 100 };

static ganq_status time_decode(ganq_session *session, const int32_t *prompt, int64_t prompt_count,
                               int64_t count, double *prefill, double *decode) {
    ganq_status status = ganq_session_truncate(session, 0);
    double started = cli_now();
    if (status == GANQ_OK)
        status = ganq_session_prefill(session, prompt, (size_t)prompt_count);
    *prefill = cli_now() - started;
    started = cli_now();
    for (int64_t i = 0; i < count && status == GANQ_OK; i++) {
        int32_t id;
        status = ganq_session_sample(session, NULL, &id);
        if (status == GANQ_OK)
            status = ganq_session_step(session, id);
        if (status == GANQ_OK && cli_interrupted())
            status = GANQ_ERR_CANCELED;
    }
    *decode = cli_now() - started;
    return status;
}

static int bench_decode(int argc, char **argv) {
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *path = NULL;
    int64_t prompt_count = 128, count = 64, repeats = 3, format = CLI_FORMAT_MD;
    const cli_option options[] = {
        {CLI_INT, 0, "prompt-tokens", &prompt_count, "P", 1, 1e6, "tokens of the prefill"},
        {CLI_INT, 'n', "tokens", &count, "N", 1, 1e6, "tokens to decode"},
        {CLI_INT, 'r', "repeat", &repeats, "R", 1, MAX_REPEATS, "the median of R runs is shown"},
        {CLI_CHOICE, 'o', "format", &format, CLI_FORMATS, 0, 0, "of the output"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        "bench decode",
        "MODEL [options]",
        "Tokens per second of a model: prefill of P tokens, then N single steps.",
        options,
        1,
        1};
    int code = cli_parse(&command, argc, argv, &path);
    if (code != CLI_CONTINUE)
        return code;
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;
    ganq_model *model = NULL;
    ganq_session *session = NULL;
    double prefill[MAX_REPEATS], decode[MAX_REPEATS], warm_prefill, warm_decode;
    ganq_model_info info = {.struct_size = sizeof info};
    int32_t *prompt = calloc((size_t)prompt_count, sizeof *prompt);
    ganq_status status = ganq_model_load(ctx, path, NULL, &model);
    if (status == GANQ_OK)
        status = ganq_model_get_info(model, &info);
    if (status == GANQ_OK)
        status = ganq_session_create(ctx, model, prompt_count + count, &session);
    cli_random random = {1};
    for (int64_t i = 0; prompt && status == GANQ_OK && i < prompt_count; i++)
        prompt[i] = (int32_t)(cli_random_bits(&random) % (uint64_t)info.vocab_size);
    if (!prompt) {
        cli_message("out of memory");
        code = CLI_FAILURE;
        goto done;
    }
    if (status == GANQ_OK) /* pages and compute layouts are made by the first run */
        status = time_decode(session, prompt, prompt_count, 1, &warm_prefill, &warm_decode);
    for (int64_t r = 0; r < repeats && status == GANQ_OK; r++)
        status = time_decode(session, prompt, prompt_count, count, &prefill[r], &decode[r]);
    if (status != GANQ_OK) {
        code = cli_failed(status);
        goto done;
    }
    double p = cli_median(prefill, (size_t)repeats), d = cli_median(decode, (size_t)repeats);
    json_t *rows = json_array();
    json_array_append_new(
        rows,
        json_pack("{s:s, s:f, s:s, s:i, s:I, s:f, s:I, s:f, s:f, s:f}", "model", path,
                  "bits_per_weight", info.bits_per_weight, "device", ganq_context_device_name(ctx),
                  "threads", ganq_context_threads(ctx), "prefill_tokens", (json_int_t)prompt_count,
                  "prefill_tokens_per_s", (double)prompt_count / p, "decode_tokens",
                  (json_int_t)count, "decode_tokens_per_s", (double)count / d, "ms_per_token",
                  1e3 * d / (double)count, "gb_per_s",
                  1e-9 * (double)info.stored_bytes * (double)count / d));
    code = cli_print_rows(rows, format);
done:
    free(prompt);
    ganq_session_free(session);
    ganq_model_free(model);
    ganq_context_free(ctx);
    return code;
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
        for (int64_t m = 0; m < rows; m++) {
            double value = 0;
            for (int64_t k = 0; k < K; k++) {
                value = 0.9 * value + 0.436 * cli_random_normal(random);
                x[m * K + k] = (float)(value * (k % 61 == 0 ? 8.0 : 1.0));
            }
        }
        ganq_matrix matrix = GANQ_MATRIX(GANQ_DTYPE_F32, rows, K, x);
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
    enum { ROWS = 64 };
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
        rows, json_pack("{s:s, s:I, s:s, s:s, s:i, s:f, s:f, s:f}", "shape", shape, "bits",
                        (json_int_t)bits, "recipe", cli_choice(CLI_RECIPES, recipe), "device",
                        ganq_context_device_name(ctx), "threads", ganq_context_threads(ctx),
                        "seconds", report.seconds, "weights_per_s",
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
        return bench_decode(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "quantize"))
        return bench_quantize(argc - 1, argv + 1);
    int help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    fprintf(help ? stdout : stderr,
            "usage: ganq bench gemm|decode|quantize [options]\n\n"
            "  gemm      Y = X W~^T of random layers against the speed of reading their codes\n"
            "  decode    tokens per second of a model\n"
            "  quantize  the solver on random weights\n\n"
            "Each has --help.\n");
    return help ? CLI_OK : CLI_USAGE;
}
