/* bench_lut.c - products with quantized layers on the GPU at hand: each kernel in a graph of 32
 * launches over copies that no cache holds, beside the bandwidth of a copy and cuBLASLt with f16
 * weights in the same run. JSON on standard output; 77 without a device.
 *
 *   bench_lut [all|once] [bits=4,3] [m=1,8] [NxK ...]     default: 28672x8192 and 4096x4096
 *
 * all: not the chosen plan alone, but every plan worth measuring. once: no times; the chosen plan of 1, 8 and 16
 * tokens runs twice, outside a graph, for a profiler to look at. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cublaslt.h"
#include "ganq/ganq.h"
#include "lut_gemm.h"
#include "memory_ops.h"

enum { LAUNCHES = 32, REPLAYS = 9, MOST_COPIES = 64, SKIPPED = 77 };
static const size_t CUBLASLT_BYTES = (size_t)32 << 20;

#define NEED(call)                                                                                 \
    do {                                                                                           \
        if ((call) != GANQ_OK) {                                                                   \
            fprintf(stderr, "bench_lut: %s: %s\n", #call, ganq_last_error());                      \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define NEED_CUDA(call) NEED(ganq__cuda_status((call), #call))

/* What is launched LAUNCHES times. */
typedef struct job {
    ganq_context *ctx;
    int copies;
    void *copy[MOST_COPIES]; /* layers, or f16 weights */
    ganq__lut_call call;
    /* copies of memory and cuBLASLt */
    void *handle, *to;
    size_t bytes;
    int64_t N, K;
} job;

static ganq_status run_lut(job *j, int i) {
    j->call.layers[0] = j->copy[i % j->copies];
    return ganq__lut_run(j->ctx, &j->call);
}
static ganq_status run_f16(job *j, int i) {
    return ganq__cublaslt_product(j->handle, j->call.stream, j->call.M, j->N, j->K, j->call.x, j->K,
                                  j->copy[i % j->copies], j->K, j->call.y[0], GANQ_DTYPE_F16, j->N,
                                  j->call.workspace, CUBLASLT_BYTES);
}
static ganq_status run_copy(job *j, int i) {
    (void)i;
    return ganq__cuda_status(
        cudaMemcpyAsync(j->to, j->copy[0], j->bytes, cudaMemcpyDeviceToDevice, j->call.stream),
        "cudaMemcpyAsync");
}

/* Microseconds of one launch: the fastest replay of the graph. */
static double time_job(job *j, ganq_status (*run)(job *, int)) {
    cudaGraph_t graph;
    cudaGraphExec_t step;
    cudaEvent_t start, stop;
    float best = 0;
    NEED(run(j, 0));
    NEED(ganq__cuda_record_begin(j->ctx));
    for (int i = 0; i < LAUNCHES; i++)
        NEED(run(j, i));
    NEED(ganq__cuda_record_end(j->ctx, &graph));
    NEED_CUDA(cudaGraphInstantiate(&step, graph, 0));
    NEED_CUDA(cudaEventCreate(&start));
    NEED_CUDA(cudaEventCreate(&stop));
    for (int i = 0; i <= REPLAYS; i++) {
        float milliseconds;
        NEED_CUDA(cudaEventRecord(start, j->call.stream));
        NEED_CUDA(cudaGraphLaunch(step, j->call.stream));
        NEED_CUDA(cudaEventRecord(stop, j->call.stream));
        NEED_CUDA(cudaEventSynchronize(stop));
        NEED_CUDA(cudaEventElapsedTime(&milliseconds, start, stop));
        best = i == 1 || (i > 1 && milliseconds < best) ? milliseconds : best;
    }
    (void)cudaGraphExecDestroy(step), (void)cudaGraphDestroy(graph);
    (void)cudaEventDestroy(start), (void)cudaEventDestroy(stop);
    return 1e3 * (double)best / LAUNCHES;
}

/* Filled with random numbers: f16 from 0.03 to 0.12 of either sign, and as f32 finite, too. */
static void *device_bytes(ganq_context *ctx, size_t bytes) {
    enum { HOST_BYTES = 4 << 20 };
    const cudaStream_t stream = ganq__cuda_of(ctx)->stream;
    const size_t first = bytes < HOST_BYTES ? bytes : HOST_BYTES;
    uint16_t *host = malloc(HOST_BYTES);
    char *memory;
    uint64_t state = bytes;
    void *allocated;
    if (!host)
        exit(1);
    for (size_t i = 0; i < HOST_BYTES / sizeof *host; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        host[i] = (uint16_t)(0x2800 + (state >> 40 & 0x87ff));
    }
    NEED(ctx->memory->allocate(ctx, bytes, &allocated));
    memory = allocated;
    NEED(ctx->memory->upload(ctx, memory, host, first));
    for (size_t done = first; done < bytes; done += done)
        NEED_CUDA(cudaMemcpyAsync(memory + done, memory, bytes - done < done ? bytes - done : done,
                                  cudaMemcpyDeviceToDevice, stream));
    free(host);
    return memory;
}

/* Bytes per microsecond, read and written. */
static double copy_bandwidth(ganq_context *ctx) {
    job j = {.ctx = ctx,
             .bytes = (size_t)1 << 29,
             .copies = 1,
             .call.stream = ganq__cuda_of(ctx)->stream};
    j.copy[0] = device_bytes(ctx, j.bytes);
    j.to = device_bytes(ctx, j.bytes);
    double us = time_job(&j, run_copy);
    /* The driver copies differently outside graphs: the faster of both is the memory's speed. */
    cudaEvent_t start, stop;
    float milliseconds;
    NEED_CUDA(cudaEventCreate(&start));
    NEED_CUDA(cudaEventCreate(&stop));
    NEED_CUDA(cudaEventRecord(start, j.call.stream));
    for (int i = 0; i < LAUNCHES; i++)
        NEED(run_copy(&j, i));
    NEED_CUDA(cudaEventRecord(stop, j.call.stream));
    NEED_CUDA(cudaEventSynchronize(stop));
    NEED_CUDA(cudaEventElapsedTime(&milliseconds, start, stop));
    (void)cudaEventDestroy(start), (void)cudaEventDestroy(stop);
    if (1e3 * (double)milliseconds / LAUNCHES < us)
        us = 1e3 * (double)milliseconds / LAUNCHES;
    ctx->memory->release(ctx, j.copy[0]);
    ctx->memory->release(ctx, j.to);
    return 2 * (double)j.bytes / us;
}

static ganq_layer *random_layer(ganq_context *ctx, int64_t N, int64_t K, int bits) {
    uint8_t *codes = malloc((size_t)(N * K));
    float *lut = malloc((size_t)(N << bits) * sizeof *lut);
    uint64_t state = 1;
    ganq_layer *layer;
    if (!codes || !lut)
        exit(1);
    for (int64_t i = 0; i < N * K; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        codes[i] = (uint8_t)(state >> 60 & ((1u << bits) - 1));
    }
    for (int64_t i = 0; i < N << bits; i++)
        lut[i] = ((float)(i % (1 << bits)) + 0.5f) / (float)(1 << bits) - 0.5f;
    NEED(ganq_layer_import(ctx, bits, &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_U8, N, K, codes),
                           &(ganq_matrix)GANQ_MATRIX(GANQ_DTYPE_F32, N, 1 << bits, lut), NULL, NULL,
                           NULL, NULL, &layer));
    free(codes), free(lut);
    return layer;
}

static int copies_for(ganq_context *ctx, int64_t bytes) {
    int l2 = 0;
    NEED_CUDA(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, ganq__cuda_of(ctx)->device));
    const int64_t count = 3 * (int64_t)l2 / bytes + 2;
    return count < LAUNCHES ? (int)count : LAUNCHES;
}

typedef enum mode { CHOSEN, ALL, ONCE } mode;
static const char *wanted_bits = "4,3,2", *wanted_tokens = ""; /* lists; "": all */

/* Whether a list of numbers has this one. */
static int in_list(const char *list, int64_t number) {
    for (const char *p = list; *p;) {
        char *end;
        if (strtol(p, &end, 10) == number)
            return 1;
        p = *end ? end + 1 : end;
    }
    return !*list;
}

typedef struct shape {
    int64_t N, K;
    double f16_us[32]; /* by place in `tokens`; 0: no cuBLASLt */
} shape;
static const int64_t tokens[] = {1, 2, 4, 8, 16, 32, 512, 2048};
enum {
    TOKENS = sizeof tokens / sizeof *tokens,
    FEW_TOKENS = 32 /* up to here every plan is measured; beyond, what writes W~ out and the chosen one */
};
static const int32_t types[] = {GANQ_DTYPE_F16, GANQ_DTYPE_F32}; /* of X and Y */
static const char *const type_names[] = {"f16", "f32"};

static void bench_f16(ganq_context *ctx, shape *s) {
    const int64_t bytes = 2 * s->N * s->K;
    job j = {.ctx = ctx,
             .copies = copies_for(ctx, bytes),
             .N = s->N,
             .K = s->K,
             .call.stream = ganq__cuda_of(ctx)->stream};
    if (ganq__cublaslt_open(ctx, &j.handle) != GANQ_OK) {
        fprintf(stderr, "bench_lut: without cuBLASLt: %s\n", ganq_last_error());
        return;
    }
    for (int i = 0; i < j.copies; i++)
        j.copy[i] = device_bytes(ctx, (size_t)bytes);
    void *x = device_bytes(ctx, (size_t)(tokens[TOKENS - 1] * s->K) * 2);
    j.call.x = x;
    j.call.y[0] = device_bytes(ctx, (size_t)(tokens[TOKENS - 1] * s->N) * 2);
    j.call.workspace = device_bytes(ctx, CUBLASLT_BYTES);
    for (int t = 0; t < TOKENS; t++) {
        j.call.M = tokens[t];
        s->f16_us[t] = time_job(&j, run_f16);
    }
    for (int i = 0; i < j.copies; i++)
        ctx->memory->release(ctx, j.copy[i]);
    ctx->memory->release(ctx, x);
    ctx->memory->release(ctx, j.call.y[0]);
    ctx->memory->release(ctx, j.call.workspace);
    NEED_CUDA(cudaStreamSynchronize(j.call.stream));
    ganq__cublaslt_close(j.handle);
}

/* One number of tokens in one type: the built-in plan, then the others, in which a stage more or less shows. */
static void bench_tokens(job *j, const shape *s, int bits, int type, int t, double bandwidth, mode which,
                         json_t *rows) {
    ganq_context *ctx = j->ctx;
    ganq__lut_plan plans[GANQ__LUT_CANDIDATES];
    ganq__lut_shape what;
    size_t bytes;
    const int64_t M = tokens[t];
    j->call.M = M;
    j->call.x_dtype = j->call.y_dtype = types[type];
    j->call.layers[0] = j->copy[0];
    NEED(ganq__lut_shape_of(ctx, &j->call, &what));
    const int count = ganq__lut_candidates(&what, plans, GANQ__LUT_CANDIDATES);
    for (int p = 0; p < count; p++) {
        if (p > 0 && (which != ALL || (M > FEW_TOKENS && plans[p].variant < GANQ__LUT_TILES)))
            continue;
        ganq__cuda_of(ctx)->lut->forced = &plans[p];
        NEED(ganq__lut_workspace_bytes(ctx, &j->call, &bytes));
        j->call.workspace = NULL;
        if (bytes)
            NEED(ganq__cuda_workspace(ctx, GANQ__CUDA_LUT, bytes, &j->call.workspace));
        if (which == ONCE) {
            for (int i = 0; i < 2; i++)
                NEED(run_lut(j, i));
            NEED_CUDA(cudaStreamSynchronize(j->call.stream));
            continue;
        }
        const double us = time_job(j, run_lut), size = type ? 4 : 2;
        const double moved = (double)s->N * (double)s->K * bits / 8 + (double)(s->N << bits) * 2 +
                             (double)M * (double)(s->N + s->K) * size;
        json_array_append_new(
            rows, json_pack("{s:I,s:I,s:i,s:I,s:s,s:b,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:f,s:f}", "N",
                            (json_int_t)s->N, "K", (json_int_t)s->K, "bits", bits, "m", (json_int_t)M, "x",
                            type_names[type], "built_in", p == 0, "variant", plans[p].variant, "warps",
                            plans[p].warps, "row_tiles", plans[p].row_tiles, "copies", plans[p].copies, "splits",
                            plans[p].splits, "ahead", plans[p].ahead, "us", us, "share_of_copy", moved / us / bandwidth, "f16_us",
                            s->f16_us[t], "times_f16", s->f16_us[t] / us));
    }
    ganq__cuda_of(ctx)->lut->forced = NULL;
}

static void bench_bits(ganq_context *ctx, const shape *s, int bits, double bandwidth, mode which, json_t *rows) {
    ganq_layer *layer = random_layer(ctx, s->N, s->K, bits);
    job j = {.ctx = ctx,
             .copies = which == ONCE ? 1 : copies_for(ctx, ganq__lut_ops_cuda.placed_bytes(layer)),
             .N = s->N,
             .K = s->K};
    j.call = (ganq__lut_call){
        .count = 1, .ldx = s->K, .ldy = {s->N}, .stream = ganq__cuda_of(ctx)->stream};
    for (int i = 0; i < j.copies; i++)
        NEED(ganq__lut_ops_cuda.place(ctx, layer, &j.copy[i]));
    void *x = device_bytes(ctx, (size_t)(tokens[TOKENS - 1] * s->K) * 4);
    j.call.x = x;
    j.call.y[0] = device_bytes(ctx, (size_t)(tokens[TOKENS - 1] * s->N) * 4);
    for (int type = 0; type < 2; type++)
        for (int t = 0; t < TOKENS; t++)
            if (in_list(wanted_tokens, tokens[t]))
                bench_tokens(&j, s, bits, type, t, bandwidth, which, rows);
    for (int i = 0; i < j.copies; i++)
        ganq__lut_ops_cuda.unplace(ctx, j.copy[i]);
    ctx->memory->release(ctx, x);
    ctx->memory->release(ctx, j.call.y[0]);
    ganq_layer_free(layer);
}

int main(int argc, char **argv) {
    const ganq_context_options options = {.struct_size = sizeof options,
                                          .device = GANQ_DEVICE_CUDA};
    shape shapes[16] = {{.N = 28672, .K = 8192}, {.N = 4096, .K = 4096}};
    int count = 2, driver = 0, runtime = 0;
    ganq_context *ctx;
    const ganq_status status = ganq_context_create(&options, &ctx);
    if (status == GANQ_ERR_NO_DEVICE) {
        fprintf(stderr, "bench_lut: skipped: %s\n", ganq_last_error());
        return SKIPPED;
    }
    NEED(status);
    mode which = CHOSEN;
    int first = 1;
    if (argc > 1 && (!strcmp(argv[1], "all") || !strcmp(argv[1], "once"))) {
        which = !strcmp(argv[1], "all") ? ALL : ONCE;
        wanted_tokens = which == ONCE ? "1,8,16" : "";
        first = 2;
    }
    for (; first < argc; first++)
        if (!strncmp(argv[first], "bits=", 5))
            wanted_bits = argv[first] + 5;
        else if (!strncmp(argv[first], "m=", 2))
            wanted_tokens = argv[first] + 2;
        else
            break;
    for (int i = first; i < argc && i - first < 16; i++) {
        long long N, K;
        if (sscanf(argv[i], "%lldx%lld", &N, &K) != 2 || N < 1 || K < 8 || K % 8) {
            fprintf(stderr, "bench_lut: %s: expected all, once, or NxK with K a multiple of 8\n", argv[i]);
            return 2;
        }
        shapes[i - first] = (shape){.N = N, .K = K};
        count = i - first + 1;
    }
    const double bandwidth = copy_bandwidth(ctx);
    json_t *rows = json_array();
    for (int i = 0; i < count; i++) {
        if (which != ONCE)
            bench_f16(ctx, &shapes[i]);
        for (int bits = 4; bits >= 2; bits--)
            if (in_list(wanted_bits, bits))
                bench_bits(ctx, &shapes[i], bits, bandwidth, which, rows);
    }
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    json_t *out =
        json_pack("{s:s,s:s,s:i,s:i,s:f,s:i,s:o}", "bench", "lut", "device",
                  ganq_context_device_name(ctx), "driver", driver, "runtime", runtime,
                  "copy_gb_per_s", bandwidth / 1e3, "launches_per_graph", LAUNCHES, "rows", rows);
    json_dumpf(out, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(5));
    putchar('\n');
    json_decref(out);
    ganq_context_free(ctx);
    return 0;
}
