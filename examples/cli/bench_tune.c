/* bench_tune.c - `ganq bench tune`: measures how the GPU at hand multiplies best with layers of
 * given shapes, and keeps it for all programs of this user. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* "1,8,64" into numbers from low to high; 0 after a message. */
static size_t read_list(const char *option, const char *text, int64_t low, int64_t high,
                        int64_t *out, size_t room) {
    size_t count = 0;
    while (*text && count < room) {
        char *end;
        const long long value = strtoll(text, &end, 10);
        if (end == text || value < low || value > high || (*end && *end != ',')) {
            cli_usage("--%s: expected numbers from %lld to %lld, found \"%s\"", option,
                      (long long)low, (long long)high, text);
            return 0;
        }
        out[count++] = value;
        text = *end ? end + 1 : end;
    }
    return count;
}

/* A layer of random codes; codes and tables repeat, which no kernel notices. */
static ganq_status make_layer(ganq_context *ctx, int64_t N, int64_t K, int bits, ganq_layer **out) {
    uint8_t *codes = malloc((size_t)(N * K));
    float *lut = malloc((size_t)(N << bits) * sizeof *lut);
    ganq_status status = GANQ_ERR_NO_MEMORY;
    cli_random random = {1};
    if (codes && lut) {
        for (int64_t i = 0; i < N * K; i++)
            codes[i] = (uint8_t)(cli_random_bits(&random) & ((1u << bits) - 1));
        for (int64_t i = 0; i < N << bits; i++)
            lut[i] = (float)(i % (1 << bits)) / 16 - 0.375f; /* f16 holds these: tables in f32 are another kernel's */
        status = ganq_layer_import(ctx, bits, &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_U8, N, K, codes),
                                   &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, N, 1 << bits, lut),
                                   NULL, NULL, NULL, NULL, out);
    } else {
        cli_message("out of memory: %lld x %lld", (long long)N, (long long)K);
    }
    free(codes);
    free(lut);
    return status;
}

static ganq_status tune_layer(ganq_context *ctx, const char *shape, const ganq_layer *layer,
                              int64_t bits, const int64_t *tokens, size_t count, int32_t dtype,
                              json_t *rows) {
    for (size_t i = 0; i < count; i++) {
        double tuned, untuned;
        const ganq_status status =
            ganq_lut_gemm_tune(ctx, layer, tokens[i], dtype, &tuned, &untuned);
        if (status != GANQ_OK)
            return status;
        json_array_append_new(rows,
                              json_pack("{s:s, s:I, s:I, s:s, s:s, s:f, s:f}", "shape", shape,
                                        "bits", (json_int_t)bits, "m", (json_int_t)tokens[i], "x",
                                        dtype == GANQ_DTYPE_F16   ? "f16"
                                        : dtype == GANQ_DTYPE_F32 ? "f32"
                                                                  : "bf16",
                                        "device", ganq_context_device_name(ctx), "us", tuned,
                                        "us_untuned", untuned));
    }
    return GANQ_OK;
}

int cmd_bench_tune(int argc, char **argv) {
    enum { MOST = 16 };
    cli_common common = CLI_COMMON_DEFAULTS;
    cli_list shapes = {0};
    const char *bits = "4,3", *tokens = "1,8,16";
    int64_t format = CLI_FORMAT_MD, type = 0, bit_counts[3], token_counts[MOST];
    const cli_option options[] = {
        {CLI_LIST, 0, "shape", &shapes, "NxK", 0, 0,
         "outputs x inputs of a layer; may be repeated. Default: 4096x4096"},
        {CLI_TEXT, 'b', "bits", &bits, "B", 0, 0, "bits per code; a list"},
        {CLI_TEXT, 'm', "m", &tokens, "M", 0, 0, "tokens at once; a list"},
        {CLI_CHOICE, 0, "x", &type, "f32|f16|bf16", 0, 0,
         "type of the activations; `ganq` itself computes with f32"},
        {CLI_CHOICE, 'o', "format", &format, CLI_FORMATS, 0, 0, "of the output"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        "bench tune",
        "[options]",
        "Measures how this GPU multiplies best with quantized layers of the given shapes, and "
        "keeps it in\n"
        "$GANQ_CACHE_DIR, $XDG_CACHE_HOME/ganq or ~/.cache/ganq for every program of this user.\n\n"
        "  ganq bench tune --device cuda:0 --shape 4096x4096 --shape 11008x4096 --shape 4096x11008",
        options,
        0,
        0};
    static const int32_t types[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};
    const char *standard = "4096x4096";
    ganq_context *ctx = NULL;
    json_t *rows = NULL;
    ganq_status status = GANQ_OK;
    int code = cli_parse(&command, argc, argv, NULL);
    if (code != CLI_CONTINUE)
        return code;
    const size_t bit_rows = read_list("bits", bits, 2, 4, bit_counts, 3);
    const size_t token_rows = bit_rows ? read_list("m", tokens, 1, 4096, token_counts, MOST) : 0;
    const size_t count = shapes.count ? shapes.count : 1;
    const char **items = shapes.count ? shapes.items : &standard;
    code = token_rows ? cli_context_create(&common, &ctx) : CLI_USAGE;
    if (code != CLI_OK)
        goto done;
    rows = json_array();
    for (size_t s = 0; s < count && status == GANQ_OK; s++) {
        int64_t N, K;
        if (!cli_parse_shape(items[s], &N, &K) || N > 1 << 20 || K > 1 << 20) {
            code = cli_usage("--shape: expected NxK such as 4096x4096, found \"%s\"", items[s]);
            goto done;
        }
        for (size_t b = 0; b < bit_rows && status == GANQ_OK; b++) {
            ganq_layer *layer = NULL;
            status = make_layer(ctx, N, K, (int)bit_counts[b], &layer);
            if (status == GANQ_OK)
                status = tune_layer(ctx, items[s], layer, bit_counts[b], token_counts, token_rows,
                                    types[type], rows);
            ganq_layer_free(layer);
        }
    }
    if (status != GANQ_OK) {
        code = cli_failed(status);
        goto done;
    }
    code = cli_print_rows(rows, format);
    rows = NULL;
done:
    json_decref(rows);
    cli_list_free(&shapes);
    ganq_context_free(ctx);
    return code;
}
