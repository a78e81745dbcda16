/* bench_hessian.c - `ganq bench hessian`: H += X^T X for each type of X, against ssyrk of a BLAS. The
 * sums take turns, so that all of them see the same machine; medians are shown. */
#include <stdlib.h>
#include <string.h>

#include "blas.h"
#include "cli.h"

enum { TYPES = 3, BLAS = TYPES, SUMS, TURNS = 7 };

static const struct {
    const char *name;
    int32_t dtype;
    size_t size;
} types[TYPES] = {
    {"f32", GANQ_DTYPE_F32, 4}, {"f16", GANQ_DTYPE_F16, 2}, {"bf16", GANQ_DTYPE_BF16, 2}};

/* Numbers of size 2^-4 in any of the types. */
static void fill(void *data, int32_t dtype, int64_t count, cli_random *random) {
    for (int64_t i = 0; i < count; i++) {
        const uint64_t bits = cli_random_bits(random);
        const float value = (float)((int)(bits & 255) - 128) / 1024.0f;
        const uint16_t half = (uint16_t)(dtype == GANQ_DTYPE_F16 ? (bits & 0x83ff) | 0x2c00
                                                                 : (bits & 0x807f) | 0x3d80);
        if (dtype == GANQ_DTYPE_F32)
            ((float *)data)[i] = value;
        else
            ((uint16_t *)data)[i] = half;
    }
}

typedef struct bench {
    int64_t K, tokens;
    void *x[TYPES];
    float *sums; /* the BLAS's H */
    ganq_hessian *hessian;
    cli_blas blas;
    double times[SUMS][TURNS];
} bench;

static ganq_status run(ganq_context *ctx, bench *b) {
    cli_random random = {42};
    ganq_status status = ganq_hessian_create(ctx, b->K, &b->hessian);
    for (int t = 0; t < TYPES; t++)
        fill(b->x[t], types[t].dtype, b->tokens * b->K, &random);
    for (int turn = -1; turn < TURNS && status == GANQ_OK; turn++) /* the first wakes the threads */
        for (int s = 0; s < SUMS && status == GANQ_OK; s++) {
            const double started = cli_now();
            if (s < TYPES) {
                const ganq_matrix x = GANQ_MATRIX(types[s].dtype, b->tokens, b->K, b->x[s]);
                status = ganq_hessian_add(ctx, b->hessian, &x);
            } else if (b->blas.ssyrk) {
                b->blas.ssyrk(101, 121, 112, (int)b->K, (int)b->tokens, 1, b->x[0], (int)b->K, 1,
                              b->sums, (int)b->K);
            }
            if (turn >= 0)
                b->times[s][turn] = cli_now() - started;
            if (status == GANQ_OK && cli_interrupted())
                status = GANQ_ERR_CANCELED;
        }
    return status;
}

static json_t *make_rows(ganq_context *ctx, bench *b) {
    json_t *rows = json_array();
    double seconds[SUMS];
    for (int s = 0; s < SUMS; s++)
        seconds[s] = cli_median(b->times[s], TURNS);
    for (int s = 0; s < (b->blas.ssyrk ? SUMS : TYPES); s++) {
        json_t *row = json_pack(
            "{s:s, s:s, s:s, s:i, s:I, s:I, s:f, s:f, s:f}", "x", s < TYPES ? types[s].name : "f32",
            "by", s < TYPES ? "ganq" : b->blas.name, "device", ganq_context_device_name(ctx),
            "threads", ganq_context_threads(ctx), "K", (json_int_t)b->K, "tokens",
            (json_int_t)b->tokens, "ms", 1e3 * seconds[s], "gflops",
            1e-9 * (double)b->tokens * (double)b->K * (double)(b->K + 1) / seconds[s], "time_over_f32",
            seconds[s] / seconds[0]);
        json_object_set_new(row, "share_of_blas",
                            b->blas.ssyrk ? json_real(seconds[BLAS] / seconds[s]) : json_null());
        json_array_append_new(rows, row);
    }
    return rows;
}

int cmd_bench_hessian(int argc, char **argv) {
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *blas_path = "";
    int64_t format = CLI_FORMAT_MD;
    bench b = {.K = 1024, .tokens = 2048};
    const cli_option options[] = {
        {CLI_INT, 'k', "inputs", &b.K, "K", 1, 1 << 16, "dimension of H"},
        {CLI_INT, 'm', "tokens", &b.tokens, "M", 1, 1 << 20, "rows of X that are added at once"},
        {CLI_TEXT, 0, "blas", &blas_path, "FILE", 0, 0,
         "also cblas_ssyrk of a library, such as libopenblas.so.0, which sums half of H"},
        {CLI_CHOICE, 'o', "format", &format, CLI_FORMATS, 0, 0, "of the output"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {"bench hessian",
                                 "[options]",
                                 "Times H += X^T X for X in f32, f16 and bf16.\n\n"
                                 "  ganq bench hessian --inputs 4096 --blas libopenblas.so.0",
                                 options,
                                 0,
                                 0};
    int code = cli_parse(&command, argc, argv, NULL);
    if (code != CLI_CONTINUE)
        return code;
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;
    if (*blas_path)
        code = cli_blas_open(blas_path, ganq_context_threads(ctx), &b.blas);
    int complete = (b.sums = calloc((size_t)(b.K * b.K), sizeof *b.sums)) != NULL;
    for (int t = 0; t < TYPES; t++)
        complete &= (b.x[t] = calloc((size_t)(b.tokens * b.K), types[t].size)) != NULL;
    if (code == CLI_OK && !complete) {
        cli_message("out of memory");
        code = CLI_FAILURE;
    }
    if (code == CLI_OK) {
        const ganq_status status = run(ctx, &b);
        code = status != GANQ_OK ? cli_failed(status) : cli_print_rows(make_rows(ctx, &b), format);
    }
    for (int t = 0; t < TYPES; t++)
        free(b.x[t]);
    free(b.sums);
    ganq_hessian_free(b.hessian);
    ganq_context_free(ctx);
    return code;
}
