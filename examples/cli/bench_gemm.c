/* bench_gemm.c - `ganq bench gemm`: Y = X W~^T from cold memory, beside a plain read of as many
 * bytes, dense weights, and any CBLAS library.
 *
 * The product of few tokens is bound by reading the packed codes, so the yardstick is a summing
 * read of the same number of bytes by the same number of threads, in the same run: read_floor_share
 * = its time / the product's time; 1 is the speed of memory. Products and reads take turns, and
 * both rotate over enough copies that the last-level cache holds none of them when its turn comes.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blas.h"
#include "cli.h"
#include "read_floor.h"

enum { MAX_COPIES = 1024, MAX_RUNS = 4000, MIN_RUNS = 7, TURNS = 4, SAMPLE_ROWS = 32 };

/* What is multiplied with. */
typedef enum weights { CODES, F32, F16, BLAS } weights;

typedef struct bench {
    int64_t N, K, M; /* M: of the row that is measured */
    weights weights;
    int bits; /* of a weight */
    int copies;
    double seconds; /* to spend on the products and on the reads of a row */
    uint8_t *codes; /* [N,K], the same for every copy */
    float *lut;     /* [N,L] */
    float *x, *y;   /* [most M,K], [most M,N] */
    ganq_layer **layers;
    char *data; /* copies x bytes: dense weights, and what the floor reads */
    size_t bytes;
    cli_blas blas;
} bench;

/* Of the last level that the first processor sees. A virtual machine's sysconf may tell that of the
 * whole host, which is not its own. */
static size_t cache_bytes(void) {
    size_t most = 0;
    for (int i = 0; i < 8; i++) {
        char path[80], unit = 0;
        unsigned long size;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *file = fopen(path, "r");
        if (!file)
            break;
        if (fscanf(file, "%lu%c", &size, &unit) == 2) {
            size *= unit == 'M' ? 1 << 20 : unit == 'K' ? 1 << 10 : 1;
            most = size > most ? size : most;
        }
        fclose(file);
    }
    const long told = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return most > 0 ? most : told > 0 ? (size_t)told : (size_t)32 << 20;
}

static void bench_close(bench *b) {
    for (int i = 0; b->layers && i < b->copies; i++)
        ganq_layer_free(b->layers[i]);
    free(b->layers);
    free(b->codes);
    free(b->lut);
    free(b->x);
    free(b->y);
    free(b->data);
}

static ganq_status make_layers(ganq_context *ctx, bench *b, cli_random *random) {
    const int64_t L = (int64_t)1 << b->bits;
    b->layers = calloc((size_t)b->copies, sizeof(ganq_layer *));
    b->codes = read_floor_allocate((size_t)(b->N * b->K));
    b->lut = read_floor_allocate((size_t)(b->N * L) * sizeof(float));
    if (!b->layers || !b->codes || !b->lut)
        return GANQ_ERR_NO_MEMORY;
    for (int64_t i = 0; i < b->N * b->K; i++)
        b->codes[i] = (uint8_t)(cli_random_bits(random) & (uint64_t)(L - 1));
    /* Ascending, and exact in F16: steps of 2^-10 around zero. */
    for (int64_t n = 0; n < b->N; n++)
        for (int64_t s = 0; s < L; s++)
            b->lut[n * L + s] =
                (float)((s - L / 2) * 48 + (int64_t)(cli_random_bits(random) % 40)) / 1024.0f;
    ganq_matrix codes = GANQ_MATRIX(GANQ_DTYPE_U8, b->N, b->K, b->codes);
    ganq_matrix lut = GANQ_MATRIX(GANQ_DTYPE_F32, b->N, L, b->lut);
    for (int i = 0; i < b->copies; i++) {
        const ganq_status status =
            ganq_layer_import(ctx, b->bits, &codes, &lut, NULL, NULL, NULL, NULL, &b->layers[i]);
        if (status != GANQ_OK || cli_interrupted())
            return status != GANQ_OK ? status : GANQ_ERR_CANCELED;
    }
    return GANQ_OK;
}

/* Copies, for up to most_tokens tokens. */
static ganq_status bench_open(ganq_context *ctx, bench *b, int64_t most_tokens) {
    /* Twice what two processors' caches hold that are not one cache, and again as much: the order
     * of the copies repeats, and caches do not forget strictly in order. */
    const size_t rotation = 8 * cache_bytes(), least = (size_t)256 << 20;
    b->bytes = b->weights == CODES ? (size_t)(b->N * ((b->K + 31) / 32) * 4 * b->bits)
                                   : (size_t)(b->N * b->K) * (size_t)(b->bits / 8);
    const size_t copies = (rotation > least ? rotation : least) / b->bytes + 1;
    b->copies = copies > MAX_COPIES ? MAX_COPIES : copies < 2 ? 2 : (int)copies;
    b->x = read_floor_allocate((size_t)(most_tokens * b->K) * sizeof(float));
    b->y = read_floor_allocate((size_t)(most_tokens * b->N) * sizeof(float));
    b->data = read_floor_allocate(b->bytes * (size_t)b->copies + 64);
    if (!b->x || !b->y || !b->data)
        return GANQ_ERR_NO_MEMORY;
    cli_random random = {42};
    for (int64_t i = 0; i < most_tokens * b->K; i++)
        b->x[i] = (float)cli_random_normal(&random);
    /* Dense: small numbers in either type (0x2c00 is 2^-4 in F16); for the floor any will do. */
    for (size_t i = 0; i < b->bytes * (size_t)b->copies / 4; i++) {
        const uint64_t r = cli_random_bits(&random);
        const float value = (float)((int)(r & 255) - 128) / 1024.0f;
        const uint32_t halves = (uint32_t)(r & 0x83ff83ff) | 0x2c002c00;
        memcpy(b->data + 4 * i, b->weights == F16 ? (const void *)&halves : &value, 4);
    }
    return b->weights == CODES ? make_layers(ctx, b, &random) : GANQ_OK;
}

static ganq_status multiply(ganq_context *ctx, const bench *b, size_t copy) {
    const ganq_matrix x = GANQ_MATRIX(GANQ_DTYPE_F32, b->M, b->K, b->x);
    ganq_matrix y = GANQ_MATRIX(GANQ_DTYPE_F32, b->M, b->N, b->y);
    if (b->weights == CODES)
        return ganq_lut_gemm(ctx, b->layers[copy], &x, &y);
    char *data = b->data + copy * b->bytes;
    if (b->weights == BLAS) {
        b->blas.sgemm(101, 111, 112, (int)b->M, (int)b->N, (int)b->K, 1, b->x, (int)b->K,
                 (const float *)(void *)data, (int)b->K, 0, b->y, (int)b->N);
        return GANQ_OK;
    }
    const ganq_matrix weight =
        GANQ_MATRIX(b->weights == F32 ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16, b->N, b->K, data);
    return ganq_dense_gemm(ctx, &weight, &x, &y);
}

static double half_to_double(uint16_t half) { /* normal numbers, which is what there is */
    return ldexp((half & 0x3ff) + 1024, (half >> 10 & 31) - 25) * (half & 0x8000 ? -1 : 1);
}

static double weight_at(const bench *b, int64_t i) {
    uint16_t half;
    float value;
    if (b->weights == CODES)
        return (double)b->lut[(i / b->K << b->bits) + b->codes[i]];
    if (b->weights == F16) {
        memcpy(&half, b->data + 2 * i, sizeof half);
        return half_to_double(half);
    }
    memcpy(&value, b->data + 4 * i, sizeof value);
    return (double)value;
}

/* ||Y - Y64|| / ||Y64|| over a sample of output rows, Y64 in float64, with the first copy. */
static double relative_error(const bench *b) {
    const int64_t step = b->N > SAMPLE_ROWS ? b->N / SAMPLE_ROWS : 1;
    double difference = 0, norm = 0;
    for (int64_t n = 0; n < b->N; n += step) {
        for (int64_t m = 0; m < b->M; m++) {
            double sum = 0;
            for (int64_t k = 0; k < b->K; k++)
                sum += (double)b->x[m * b->K + k] * weight_at(b, n * b->K + k);
            double off = (double)b->y[m * b->N + n] - sum;
            difference += off * off;
            norm += sum * sum;
        }
    }
    return norm > 0 ? sqrt(difference / norm) : 0;
}

static ganq_status time_products(ganq_context *ctx, const bench *b, double seconds, double *times,
                                 size_t *runs) {
    const size_t least = *runs + MIN_RUNS;
    for (double end = cli_now() + seconds; *runs < least || (*runs < MAX_RUNS && cli_now() < end);
         ++*runs) {
        const double started = cli_now();
        const ganq_status status = multiply(ctx, b, *runs % (size_t)b->copies);
        times[*runs] = cli_now() - started;
        if (status != GANQ_OK || cli_interrupted())
            return status != GANQ_OK ? status : GANQ_ERR_CANCELED;
    }
    return GANQ_OK;
}

static ganq_status time_reads(ganq_context *ctx, const bench *b, double seconds, double *times,
                              size_t *runs) {
    const size_t least = *runs + MIN_RUNS;
    read_floor *floor = read_floor_open(ganq_context_threads(ctx));
    if (!floor)
        return GANQ_ERR_NO_MEMORY;
    for (double end = cli_now() + seconds; *runs < least || (*runs < MAX_RUNS && cli_now() < end);
         ++*runs)
        times[*runs] =
            read_floor_time(floor, b->data + *runs % (size_t)b->copies * b->bytes, b->bytes);
    read_floor_close(floor);
    return GANQ_OK;
}

/* One row of the result, for b->M tokens. */
static ganq_status bench_run(ganq_context *ctx, const bench *b, json_t *rows) {
    static const char *const names[] = {"codes", "f32", "f16"};
    static double products[MAX_RUNS + MIN_RUNS], reads[MAX_RUNS + MIN_RUNS];
    size_t runs = 0, read_runs = 0;
    double stored = (double)b->bytes;
    ganq_status status = GANQ_OK;
    if (b->weights == CODES) {
        ganq_layer_info info = {.struct_size = sizeof info};
        status = ganq_layer_get_info(b->layers[0], &info);
        stored = (double)info.stored_bytes;
    }
    if (status == GANQ_OK) /* also wakes the threads */
        status = multiply(ctx, b, 0);
    if (status != GANQ_OK)
        return status;
    const double error = relative_error(b);
    for (int turn = 0; turn < TURNS && status == GANQ_OK; turn++) {
        status = time_products(ctx, b, b->seconds / TURNS, products, &runs);
        if (status == GANQ_OK)
            status = time_reads(ctx, b, b->seconds / TURNS, reads, &read_runs);
    }
    if (status != GANQ_OK)
        return status;
    const double t = cli_median(products, runs), t_read = cli_median(reads, read_runs);
    char shape[48];
    snprintf(shape, sizeof shape, "%lldx%lld", (long long)b->N, (long long)b->K);
    json_array_append_new(
        rows,
        json_pack("{s:s, s:s, s:s, s:i, s:I, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:b}",
                  "weights", b->weights == BLAS ? b->blas.name : names[b->weights], "numerics",
                  b->weights == CODES ? cli_numerics(ctx) : "exact", "shape", shape, "bits",
                  b->bits, "m", (json_int_t)b->M, "threads", ganq_context_threads(ctx), "device",
                  ganq_context_device_name(ctx), "ms", 1e3 * t, "gb_per_s", 1e-9 * stored / t,
                  "read_gb_per_s", 1e-9 * (double)b->bytes / t_read, "read_floor_share", t_read / t,
                  "gflops", 2e-9 * (double)b->M * (double)b->N * (double)b->K / t, "rel_error",
                  error, "copies", b->copies, "cold",
                  b->bytes * (size_t)b->copies >= 2 * cache_bytes()));
    return GANQ_OK;
}

/* The next number of "1,8,64"; -1 when it is none. */
static int64_t next_number(const char **list, int64_t low, int64_t high) {
    char *end;
    long long value = strtoll(*list, &end, 10);
    if (end == *list || (*end && *end != ',') || value < low || value > high)
        return -1;
    *list = *end ? end + 1 : end;
    return value;
}

/* The numbers of a list, at most `capacity`; 0 when it is wrong, after a message. */
static size_t read_numbers(const char *option, const char *list, int64_t low, int64_t high,
                           int64_t *numbers, size_t capacity) {
    size_t count = 0;
    for (const char *left = list; *left; count++) {
        const int64_t value = count < capacity ? next_number(&left, low, high) : -1;
        if (value < 0) {
            cli_usage("--%s: expected up to %zu numbers of %lld to %lld, found \"%s\"", option,
                      capacity, (long long)low, (long long)high, list);
            return 0;
        }
        numbers[count] = value;
    }
    if (count == 0)
        cli_usage("bench gemm: --bits and --m must not be empty");
    return count;
}

/* A row for each number of tokens. */
static ganq_status bench_tokens(ganq_context *ctx, bench b, const int64_t *tokens, size_t count,
                                json_t *rows) {
    int64_t most = 1;
    for (size_t i = 0; i < count; i++)
        most = tokens[i] > most ? tokens[i] : most;
    ganq_status status = bench_open(ctx, &b, most);
    for (size_t i = 0; i < count && status == GANQ_OK; i++) {
        b.M = tokens[i];
        status = bench_run(ctx, &b, rows);
    }
    bench_close(&b);
    return status;
}

int cmd_bench_gemm(int argc, char **argv) {
    enum { MOST = 16 };
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *shape = "4096x4096", *bits = "4", *tokens = "1", *blas = "";
    int64_t format = CLI_FORMAT_MD, bit_counts[3], token_counts[MOST];
    double seconds = 0.5;
    int dense = 0;
    const cli_option options[] = {
        {CLI_TEXT, 0, "shape", &shape, "NxK", 0, 0, "outputs x inputs of the layer"},
        {CLI_TEXT, 'b', "bits", &bits, "B", 0, 0,
         "bits per code; a list such as 2,3,4 gives a row each"},
        {CLI_TEXT, 'm', "m", &tokens, "M", 0, 0,
         "tokens at once; a list such as 1,8,64 gives a row each"},
        {CLI_FLAG, 0, "dense", &dense, NULL, 0, 0, "also with dense weights, f32 and F16"},
        {CLI_TEXT, 0, "blas", &blas, "FILE", 0, 0,
         "also with f32 weights and cblas_sgemm of a library, such as libopenblas.so.0"},
        {CLI_REAL, 0, "seconds", &seconds, "S", 0, 3600,
         "time for each measurement; the median is shown"},
        {CLI_CHOICE, 'o', "format", &format, CLI_FORMATS, 0, 0,
         "of the output; json: an object, or an array when a list was given"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        "bench gemm",
        "[options]",
        "Times Y = X W~^T of layers with random codes in cold memory. "
        "gb_per_s counts codes and tables,\n"
        "read_floor_share compares with a summing read of as many bytes "
        "by as many threads (1: the speed of\n"
        "memory), rel_error with float64 on a sample of rows.\n\n"
        "  ganq bench gemm --shape 4096x4096 --bits 2,3,4 --m 1,8,64 --dense",
        options,
        0,
        0};
    bench b = {.bits = 0};
    int code = cli_parse(&command, argc, argv, NULL);
    if (code != CLI_CONTINUE)
        return code;
    if (!cli_parse_shape(shape, &b.N, &b.K) || b.N > 1 << 20 || b.K > 1 << 20)
        return cli_usage("--shape: expected NxK such as 4096x4096, found \"%s\"", shape);
    const size_t bit_rows = read_numbers("bits", bits, 2, 4, bit_counts, 3);
    const size_t token_rows =
        bit_rows ? read_numbers("m", tokens, 1, 1 << 20, token_counts, MOST) : 0;
    if (!token_rows)
        return CLI_USAGE;
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;
    b.seconds = seconds;
    if (*blas)
        code = cli_blas_open(blas, ganq_context_threads(ctx), &b.blas);
    json_t *rows = json_array();
    ganq_status status = GANQ_OK;
    for (size_t i = 0; i < bit_rows && code == CLI_OK && status == GANQ_OK; i++) {
        b.bits = (int)bit_counts[i];
        status = bench_tokens(ctx, b, token_counts, token_rows, rows);
    }
    for (int i = 0; i < 3 && code == CLI_OK && status == GANQ_OK; i++) {
        b.weights = i == 0 ? F32 : i == 1 ? F16 : BLAS;
        b.bits = b.weights == F16 ? 16 : 32;
        if (b.weights == BLAS ? *blas : dense)
            status = bench_tokens(ctx, b, token_counts, token_rows, rows);
    }
    if (code == CLI_OK && status != GANQ_OK)
        code = cli_failed(status);
    if (code == CLI_OK)
        code = cli_print_rows(rows, format);
    else
        json_decref(rows);
    ganq_context_free(ctx);
    return code;
}
