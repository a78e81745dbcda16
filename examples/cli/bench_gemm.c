/* bench_gemm.c - `ganq bench gemm`: Y = X W~^T from cold memory, beside a plain read of as many
 * bytes.
 *
 * The product of few tokens is bound by reading the packed codes, so the yardstick is a summing
 * read of the same number of bytes by the same number of threads, in the same run: read_floor_share
 * = its time / the product's time; 1 is the speed of memory. Both rotate over enough copies that
 * the last-level cache holds none of them when its turn comes. */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { MAX_COPIES = 512, MAX_RUNS = 2000, MIN_RUNS = 7, SAMPLE_ROWS = 32 };

/* ---- the floor: threads that sum their part of a buffer
 * ------------------------------------------------------- */

typedef struct reader reader;
typedef struct worker {
    reader *owner;
    int index;
    pthread_t thread;
} worker;
struct reader {
    int threads;
    const uint64_t *data;
    size_t words;
    atomic_long generation; /* counts the reads asked for; negative: end                         */
    atomic_int waiting; /* workers that have not finished the current read                       */
    _Atomic uint64_t sum; /* keeps the loads alive */
    worker *workers;
};

static void read_part(reader *r, int index) {
    size_t begin = r->words * (size_t)index / (size_t)r->threads;
    size_t end = r->words * (size_t)(index + 1) / (size_t)r->threads;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    size_t i = begin;
    for (; i + 4 <= end; i += 4) {
        a += r->data[i];
        b += r->data[i + 1];
        c += r->data[i + 2];
        d += r->data[i + 3];
    }
    for (; i < end; i++)
        a += r->data[i];
    atomic_fetch_add(&r->sum, a + b + c + d);
}

static void *reader_main(void *user) {
    worker *self = user;
    reader *r = self->owner;
    for (long seen = 0;;) {
        long now;
        while ((now = atomic_load(&r->generation)) == seen)
            sched_yield();
        if (now < 0)
            return NULL;
        seen = now;
        read_part(r, self->index);
        atomic_fetch_sub(&r->waiting, 1);
    }
}

static void reader_close(reader *r) {
    atomic_store(&r->generation, -1);
    for (int i = 1; i < r->threads; i++)
        pthread_join(r->workers[i].thread, NULL);
    free(r->workers);
}

static int reader_open(reader *r, int threads) {
    memset(r, 0, sizeof *r);
    r->threads = 1;
    r->workers = calloc((size_t)threads, sizeof *r->workers);
    if (!r->workers)
        return 0;
    for (int i = 1; i < threads; i++) {
        r->workers[i].owner = r;
        r->workers[i].index = i;
        if (pthread_create(&r->workers[i].thread, NULL, reader_main, &r->workers[i]) != 0) {
            reader_close(r);
            return 0;
        }
        r->threads = i + 1;
    }
    return 1;
}

static double timed_read(reader *r, const void *data, size_t bytes) {
    double started = cli_now();
    r->data = data;
    r->words = bytes / sizeof *r->data;
    atomic_store(&r->waiting, r->threads - 1);
    atomic_fetch_add(&r->generation, 1);
    read_part(r, 0);
    while (atomic_load(&r->waiting) > 0)
        sched_yield();
    return cli_now() - started;
}

/* ---- one shape
 * ------------------------------------------------------------------------------------------------
 */

typedef struct bench {
    int64_t N, K, M;
    int bits, copies;
    double seconds; /* to spend on each of the two timings */
    uint8_t *codes; /* [N,K], the same for every copy */
    float *lut;     /* [N,L] */
    float *x, *y;   /* [M,K], [M,N] */
    ganq_layer **layers;
    uint64_t *pages; /* copies x code_bytes: what the floor reads */
    size_t code_bytes;
} bench;

static size_t cache_bytes(void) {
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return cache > 0 ? (size_t)cache : (size_t)32 << 20;
}

/* What the copies should add up to. Virtual machines report the cache of the whole host, which is
 * not theirs: hence a limit, so that making the layers does not take longer than timing them. */
static size_t rotation_bytes(void) {
    const size_t least = (size_t)96 << 20, most = (size_t)256 << 20, wanted = 3 * cache_bytes();
    return wanted < least ? least : wanted > most ? most : wanted;
}

static void bench_close(bench *b) {
    for (int i = 0; b->layers && i < b->copies; i++)
        ganq_layer_free(b->layers[i]);
    free(b->layers);
    free(b->codes);
    free(b->lut);
    free(b->x);
    free(b->y);
    free(b->pages);
}

static ganq_status bench_open(ganq_context *ctx, bench *b) {
    int64_t L = (int64_t)1 << b->bits;
    b->code_bytes = (size_t)(b->N * ((b->K + 31) / 32) * 4 * b->bits);
    size_t copies = rotation_bytes() / b->code_bytes + 1;
    b->copies = copies > MAX_COPIES ? MAX_COPIES : copies < 2 ? 2 : (int)copies;
    b->layers = calloc((size_t)b->copies, sizeof(ganq_layer *));
    b->codes = malloc((size_t)(b->N * b->K));
    b->lut = malloc((size_t)(b->N * L) * sizeof(float));
    b->x = malloc((size_t)(b->M * b->K) * sizeof(float));
    b->y = malloc((size_t)(b->M * b->N) * sizeof(float));
    b->pages = malloc(b->code_bytes * (size_t)b->copies + 64);
    if (!b->layers || !b->codes || !b->lut || !b->x || !b->y || !b->pages) {
        cli_message("out of memory for %lld x %lld", (long long)b->N, (long long)b->K);
        return GANQ_ERR_NO_MEMORY;
    }
    cli_random random = {42};
    for (int64_t i = 0; i < b->N * b->K; i++)
        b->codes[i] = (uint8_t)(cli_random_bits(&random) & (uint64_t)(L - 1));
    /* Ascending, and exact in F16: steps of 2^-10 around zero. */
    for (int64_t n = 0; n < b->N; n++)
        for (int64_t s = 0; s < L; s++)
            b->lut[n * L + s] =
                (float)((s - L / 2) * 48 + (int64_t)(cli_random_bits(&random) % 40)) / 1024.0f;
    for (int64_t i = 0; i < b->M * b->K; i++)
        b->x[i] = (float)cli_random_normal(&random);
    for (size_t i = 0; i < b->code_bytes * (size_t)b->copies / sizeof *b->pages; i++)
        b->pages[i] = i;
    ganq_matrix codes = GANQ_MATRIX(GANQ_DTYPE_U8, b->N, b->K, b->codes);
    ganq_matrix lut = GANQ_MATRIX(GANQ_DTYPE_F32, b->N, L, b->lut);
    for (int i = 0; i < b->copies; i++) {
        ganq_status status =
            ganq_layer_import(ctx, b->bits, &codes, &lut, NULL, NULL, NULL, NULL, &b->layers[i]);
        if (status != GANQ_OK || cli_interrupted())
            return status != GANQ_OK ? status : GANQ_ERR_CANCELED;
    }
    return GANQ_OK;
}

/* ||Y - Y64|| / ||Y64|| over a sample of output rows, Y64 in float64. */
static double relative_error(const bench *b) {
    int64_t L = (int64_t)1 << b->bits, step = b->N > SAMPLE_ROWS ? b->N / SAMPLE_ROWS : 1;
    double difference = 0, norm = 0;
    for (int64_t n = 0; n < b->N; n += step) {
        for (int64_t m = 0; m < b->M; m++) {
            double sum = 0;
            for (int64_t k = 0; k < b->K; k++)
                sum += (double)b->x[m * b->K + k] * (double)b->lut[n * L + b->codes[n * b->K + k]];
            double off = (double)b->y[m * b->N + n] - sum;
            difference += off * off;
            norm += sum * sum;
        }
    }
    return norm > 0 ? sqrt(difference / norm) : 0;
}

static ganq_status bench_run(ganq_context *ctx, bench *b, json_t *rows) {
    static double products[MAX_RUNS], reads[MAX_RUNS];
    size_t runs = 0, read_runs = 0;
    ganq_matrix x = GANQ_MATRIX(GANQ_DTYPE_F32, b->M, b->K, b->x);
    ganq_matrix y = GANQ_MATRIX(GANQ_DTYPE_F32, b->M, b->N, b->y);
    ganq_layer_info info = {.struct_size = sizeof info};
    ganq_status status = ganq_layer_get_info(b->layers[0], &info);
    for (int i = 0; i < b->copies && status == GANQ_OK;
         i++) /* the first use makes the compute layout */
        status = ganq_lut_gemm(ctx, b->layers[i], &x, &y);
    if (status != GANQ_OK)
        return status;
    double error = relative_error(b);
    for (double end = cli_now() + b->seconds;
         runs < MIN_RUNS || (runs < MAX_RUNS && cli_now() < end); runs++) {
        double started = cli_now();
        status = ganq_lut_gemm(ctx, b->layers[runs % (size_t)b->copies], &x, &y);
        products[runs] = cli_now() - started;
        if (status != GANQ_OK || cli_interrupted())
            return status != GANQ_OK ? status : GANQ_ERR_CANCELED;
    }
    reader floor;
    if (!reader_open(&floor, ganq_context_threads(ctx))) {
        cli_message("cannot start threads");
        return GANQ_ERR_NO_MEMORY;
    }
    for (double end = cli_now() + b->seconds;
         read_runs < MIN_RUNS || (read_runs < MAX_RUNS && cli_now() < end); read_runs++) {
        const char *page = (const char *)b->pages + (read_runs % (size_t)b->copies) * b->code_bytes;
        reads[read_runs] = timed_read(&floor, page, b->code_bytes);
    }
    reader_close(&floor);
    double t = cli_median(products, runs), t_read = cli_median(reads, read_runs);
    char shape[48];
    snprintf(shape, sizeof shape, "%lldx%lld", (long long)b->N, (long long)b->K);
    json_array_append_new(
        rows, json_pack("{s:s, s:i, s:I, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:b}",
                        "shape", shape, "bits", b->bits, "m", (json_int_t)b->M, "threads",
                        ganq_context_threads(ctx), "device", ganq_context_device_name(ctx), "ms",
                        1e3 * t, "gb_per_s", 1e-9 * (double)info.stored_bytes / t, "read_gb_per_s",
                        1e-9 * (double)b->code_bytes / t_read, "read_floor_share", t_read / t,
                        "gflops", 2e-9 * (double)b->M * (double)b->N * (double)b->K / t,
                        "rel_error", error, "copies", b->copies, "cold",
                        b->code_bytes * (size_t)b->copies >= 2 * cache_bytes()));
    return GANQ_OK;
}

/* The next number of "1,8,64"; 0 at the end, -1 when it is none. */
static int64_t next_number(const char **list, int64_t low, int64_t high) {
    if (!**list)
        return 0;
    char *end;
    long long value = strtoll(*list, &end, 10);
    if (end == *list || (*end && *end != ',') || value < low || value > high)
        return -1;
    *list = *end ? end + 1 : end;
    return value;
}

int cmd_bench_gemm(int argc, char **argv) {
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *shape = "4096x4096", *bits = "4", *tokens = "1";
    int64_t format = CLI_FORMAT_MD;
    double seconds = 0.5;
    const cli_option options[] = {
        {CLI_TEXT, 0, "shape", &shape, "NxK", 0, 0, "outputs x inputs of the layer"},
        {CLI_TEXT, 'b', "bits", &bits, "B", 0, 0,
         "bits per code; a list such as 2,3,4 gives a row each"},
        {CLI_TEXT, 'm', "m", &tokens, "M", 0, 0,
         "tokens at once; a list such as 1,8,64 gives a row each"},
        {CLI_REAL, 0, "seconds", &seconds, "S", 0, 3600,
         "time for each measurement; the median is shown"},
        {CLI_CHOICE, 'o', "format", &format, CLI_FORMATS, 0, 0,
         "of the output; json: an object, or an array when a list was given"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {"bench gemm",
                                 "[options]",
                                 "Times Y = X W~^T of layers with random codes in cold memory. "
                                 "gb_per_s counts codes and tables,\n"
                                 "read_floor_share compares with a summing read of as many bytes "
                                 "by as many threads (1: the speed of\n"
                                 "memory), rel_error with float64 on a sample of rows.\n\n"
                                 "  ganq bench gemm --shape 4096x4096 --bits 2,3,4 --m 1,8,64",
                                 options,
                                 0,
                                 0};
    bench b = {0};
    int code = cli_parse(&command, argc, argv, NULL);
    if (code != CLI_CONTINUE)
        return code;
    if (!cli_parse_shape(shape, &b.N, &b.K) || b.N > 1 << 20 || b.K > 1 << 20)
        return cli_usage("--shape: expected NxK such as 4096x4096, found \"%s\"", shape);
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;
    json_t *rows = json_array();
    for (const char *bits_left = bits; code == CLI_OK && *bits_left;) {
        int64_t bit_count = next_number(&bits_left, 2, 4);
        for (const char *tokens_left = tokens; code == CLI_OK && *tokens_left;) {
            bench one = {.N = b.N,
                         .K = b.K,
                         .M = next_number(&tokens_left, 1, 1 << 20),
                         .bits = (int)bit_count,
                         .seconds = seconds};
            if (bit_count < 0 || one.M < 0) {
                code = cli_usage("--%s: expected %s, found \"%s\"", bit_count < 0 ? "bits" : "m",
                                 bit_count < 0 ? "2, 3 or 4" : "numbers",
                                 bit_count < 0 ? bits : tokens);
                break;
            }
            ganq_status status = bench_open(ctx, &one);
            if (status == GANQ_OK)
                status = bench_run(ctx, &one, rows);
            bench_close(&one);
            if (status != GANQ_OK)
                code = cli_failed(status);
        }
    }
    if (code == CLI_OK && json_array_size(rows) == 0)
        code = cli_usage("bench gemm: --bits and --m must not be empty");
    if (code == CLI_OK)
        code = cli_print_rows(rows, format);
    else
        json_decref(rows);
    ganq_context_free(ctx);
    return code;
}
