/* lut_gemm.c - products with quantized layers as operations of a context: placing a layer, choosing
 * kernels, cutting a call into launches. */
#include "lut_gemm.h"

#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "attachment.h"
#include "cublaslt.h"
#include "dtype.h"
#include "layer.h"
#include "lut_engine.h"
#include "lut_layout.h"
#include "memory_ops.h"

enum {
    ALIGN = 256,        /* of arrays in device memory */
    PIECE_GROUPS = 64,  /* groups of 16 rows that are packed and sent at a time */
    TILE_TOKENS = 2048, /* rows of X per round of the tile variant */
    FINISH_ROWS = 256,  /* rows of W per block of its last kernel */
    WGMMA_OUTLIER_COLUMNS = 64 /* of X per block, at most, with outliers */
};
/* Of W~ at a time, times the plan's row_tiles: most of an L2 cache of 50 or 72 MB. */
static const int64_t TILE_BYTES = 48 << 20;
static const size_t CUBLASLT_BYTES = (size_t)32 << 20; /* what its kernels for Hopper ask for */

static int64_t rounded(int64_t count, int64_t multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

/* ---- placing ---- */

typedef struct pack_job {
    const ganq_layer *layer;
    int64_t first, units; /* group of the piece */
    uint8_t *rows;        /* [workers, 16, columns] codes */
    int64_t columns;
    uint32_t *out; /* the piece */
} pack_job;

/* The words of one unit of a group for one lane. */
static void pack_lane(int bits, const uint8_t *rows, int64_t columns, int64_t unit, int lane,
                      uint32_t *stored) {
    for (int q = 0; q < ganq__unit_tiles(bits); q++) {
        const uint8_t *tile = rows + unit * ganq__unit_columns(bits) + q * GANQ__TILE_COLUMNS;
        uint32_t words[GANQ__TILE_WORDS] = {0};
        for (int j = 0; j < GANQ__TILE_WORDS; j++)
            for (int b = 0; b < 4; b++) {
                const uint8_t *code =
                    tile + ganq__pair_row(lane, b) * columns + ganq__pair_column(lane, j, b);
                words[j] |= (uint32_t)(code[0] | code[1] << bits) << 8 * b;
            }
        ganq__stored_words(bits, words, stored + q * ganq__tile_stored_words(bits));
    }
}

static void pack_group(void *user, int64_t i, int worker) {
    const pack_job *job = user;
    const ganq_layer *layer = job->layer;
    const int bits = layer->bits, vectors = ganq__unit_vectors(bits);
    const int64_t group = job->first + i;
    uint8_t *rows = job->rows + worker * GANQ__TILE_ROWS * job->columns;
    for (int64_t r = 0; r < GANQ__TILE_ROWS; r++) {
        uint8_t *row = rows + r * job->columns;
        const int64_t n = GANQ__TILE_ROWS * group + r;
        memset(row, 0, (size_t)job->columns);
        if (n < layer->N)
            ganq__layer_codes_row(layer, n, row);
    }
    for (int64_t unit = 0; unit < job->units; unit++)
        for (int lane = 0; lane < 32; lane++) {
            uint32_t stored[12];
            pack_lane(bits, rows, job->columns, unit, lane, stored);
            for (int v = 0; v < vectors; v++)
                memcpy(job->out + 4 * ganq__lut_vector(i, unit, job->units, bits, v, lane),
                       stored + 4 * v, 16);
        }
}

static ganq_status place_codes(ganq_context *ctx, const ganq_layer *layer, char *codes) {
    const int64_t groups = ganq__lut_groups(layer->N),
                  units = ganq__lut_units(layer->K, layer->bits);
    const int64_t group_bytes = ganq__lut_code_bytes(16, layer->K, layer->bits);
    const int64_t piece = groups < PIECE_GROUPS ? groups : PIECE_GROUPS;
    const size_t columns = (size_t)(units * ganq__unit_columns(layer->bits));
    pack_job job = {.layer = layer, .units = units, .columns = (int64_t)columns};
    ganq_status status = GANQ_OK;
    GANQ_ALLOC_GOTO(free_job, job.rows,
                    (size_t)(ganq__pool_threads(ctx->pool) * GANQ__TILE_ROWS) * columns);
    GANQ_ALLOC_GOTO(free_job, job.out, (size_t)(piece * group_bytes / 4));
    for (; job.first < groups; job.first += PIECE_GROUPS) {
        const int64_t count = groups - job.first < piece ? groups - job.first : piece;
        ganq__parallel_for(ctx->pool, count, pack_group, &job);
        GANQ_TRY_GOTO(free_job, ctx->memory->upload(ctx, codes + job.first * group_bytes, job.out,
                                                    (size_t)(count * group_bytes)));
    }
free_job:
    ganq__free(job.rows);
    ganq__free(job.out);
    return status;
}

/* Tables with the rows of the last group filled up with zeros. */
static ganq_status place_tables(ganq_context *ctx, const ganq_layer *layer, void *tables) {
    const size_t entry = ganq__dtype_size(layer->lut_dtype);
    const size_t used = (size_t)(layer->N * layer->L) * entry;
    const size_t all = (size_t)(16 * ganq__lut_groups(layer->N) * layer->L) * entry;
    char *padded = ganq__calloc(all, 1);
    if (!padded)
        return GANQ_ERR_NO_MEMORY;
    memcpy(padded, layer->lut, used);
    const ganq_status status = ctx->memory->upload(ctx, tables, padded, all);
    ganq__free(padded);
    return status;
}

/* Where the arrays of a layer lie in its piece of memory. */
typedef struct offsets {
    int64_t codes, tables, bias, rowptr, columns, values, end;
} offsets;

static offsets offsets_of(const ganq_layer *layer) {
    const int64_t outliers = layer->outlier_rowptr ? layer->outlier_rowptr[layer->N] : 0;
    const int64_t entry = layer->lut_dtype == GANQ_DTYPE_F32 ? 4 : 2;
    offsets o = {0};
    o.tables = rounded(ganq__lut_code_bytes(layer->N, layer->K, layer->bits), ALIGN);
    o.bias = o.tables + rounded(16 * ganq__lut_groups(layer->N) * layer->L * entry, ALIGN);
    o.rowptr = o.bias + (layer->bias ? rounded(4 * layer->N, ALIGN) : 0);
    o.columns = o.rowptr + (outliers ? rounded(4 * (layer->N + 1), ALIGN) : 0);
    o.values = o.columns + rounded(4 * outliers, ALIGN);
    o.end = o.values + rounded(4 * outliers, ALIGN);
    return o;
}

static int64_t lut_placed_bytes(const ganq_layer *layer) {
    return offsets_of(layer).end;
}

/* Small arrays may be on their way, and products read them from other streams. */
static ganq_status wait_for_stream(ganq_context *ctx) {
    GANQ_CUDA_RUN(ctx, cudaStreamSynchronize(ganq__cuda_of(ctx)->stream));
    return GANQ_OK;
}

static ganq_status lut_place(ganq_context *ctx, const ganq_layer *layer, void **out) {
    const offsets o = offsets_of(layer);
    const int64_t outliers = layer->outlier_rowptr ? layer->outlier_rowptr[layer->N] : 0;
    ganq__lut_placed *placed;
    ganq_status status;
    if (16 * ganq__lut_groups(layer->N) > INT32_MAX || rounded(layer->K, 256) > INT32_MAX)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "a layer of %lld x %lld on a GPU: at most 2^31 - 256 rows and columns",
                  (long long)layer->N, (long long)layer->K);
    placed = ganq__calloc(1, sizeof *placed);
    if (!placed)
        return GANQ_ERR_NO_MEMORY;
    placed->N = layer->N;
    placed->K = layer->K;
    placed->bits = layer->bits;
    placed->table_f32 = layer->lut_dtype == GANQ_DTYPE_F32;
    GANQ_TRY_GOTO(free_placed, ctx->memory->allocate(ctx, (size_t)o.end, &placed->memory));
    char *memory = placed->memory;
    GANQ_TRY_GOTO(release, place_codes(ctx, layer, memory + o.codes));
    GANQ_TRY_GOTO(release, place_tables(ctx, layer, memory + o.tables));
    placed->part = (ganq__lut_part){
        .codes = memory + o.codes, .tables = memory + o.tables, .N = (int32_t)layer->N};
    if (layer->bias) {
        GANQ_TRY_GOTO(release, ctx->memory->upload(ctx, memory + o.bias, layer->bias,
                                                   (size_t)(4 * layer->N)));
        placed->part.bias = (const float *)(memory + o.bias);
    }
    if (outliers) {
        GANQ_TRY_GOTO(release, ctx->memory->upload(ctx, memory + o.rowptr, layer->outlier_rowptr,
                                                   (size_t)(4 * (layer->N + 1))));
        GANQ_TRY_GOTO(release, ctx->memory->upload(ctx, memory + o.columns, layer->outlier_cols,
                                                   (size_t)(4 * outliers)));
        GANQ_TRY_GOTO(release, ctx->memory->upload(ctx, memory + o.values, layer->outlier_vals,
                                                   (size_t)(4 * outliers)));
        placed->part.rowptr = (const int32_t *)(memory + o.rowptr);
        placed->part.columns = (const int32_t *)(memory + o.columns);
        placed->part.values = (const float *)(memory + o.values);
    }
    GANQ_TRY_GOTO(release, wait_for_stream(ctx));
    *out = placed;
    return GANQ_OK;
release:
    ctx->memory->release(ctx, placed->memory);
free_placed:
    ganq__free(placed);
    return status;
}

static void lut_unplace(ganq_context *ctx, void *data) {
    ganq__lut_placed *placed = data;
    ctx->memory->release(ctx, placed->memory);
    ganq__free(placed);
}

/* ---- a call, cut into launches ---- */

/* Layers [first, first + count) of a call go into one launch, with one plan. */
typedef struct round_plan {
    int first, count;
    int64_t N;
    int parts;         /* columns per row of X: 2 with lower parts */
    int needs_columns; /* X is prepared */
    int converts;      /* the kernel does that itself */
    int vectors;       /* X may be read 16 bytes at a time */
    ganq__lut_plan plan;
    int64_t tokens;                                  /* rows of X per launch */
    int64_t column_ld;                               /* prepared X; K of an image */
    int32_t wide;                                    /* columns of a tile of the image; 0: no image */
    int64_t tile_rows;                               /* of W~ at a time, the tile variant's */
    size_t columns_bytes, scales_bytes, extra_bytes; /* of the workspace, one after the other */
} round_plan;

static int is_exact(const ganq_context *ctx) {
    return ctx->options.numerics == GANQ_NUMERICS_EXACT;
}

static ganq__lut_state *state_of(ganq_context *ctx) {
    return ganq__cuda_of(ctx)->lut;
}

/* Measured plans, once per context. A file that cannot be used is no reason to fail. */
static void read_settings(ganq_context *ctx, ganq__lut_state *state) {
    char path[4096];
    ganq__message before;
    if (state->settings_read)
        return;
    state->settings_read = 1;
    ganq__message_keep(&before);
    if (ganq__lut_tuning_path(path, sizeof path) == GANQ_OK &&
        ganq__lut_tuning_read(path, &state->tuning) != GANQ_OK)
        ganq__log(ctx, GANQ_LOG_WARNING, "measured plans are not used: %s", ganq_last_error());
    ganq__message_restore(&before);
}

static ganq_status ensure_state(ganq_context *ctx, ganq__lut_state **out) {
    ganq__cuda *cuda = ganq__cuda_of(ctx);
    if (!cuda->lut) {
        cuda->lut = ganq__calloc(1, sizeof *cuda->lut);
        if (!cuda->lut)
            return GANQ_ERR_NO_MEMORY;
    }
    read_settings(ctx, cuda->lut);
    *out = cuda->lut;
    return GANQ_OK;
}

/* The tensor-core kernel takes what cuBLASLt would have; why is the thread's message, which becomes that of before. */
static void give_up_cublaslt(ganq_context *ctx, ganq__lut_state *state, const ganq__message *before) {
    state->product = NULL;
    state->no_cublaslt = 1;
    ganq__log(ctx, GANQ_LOG_WARNING, "large products without cuBLASLt, more slowly: %s", ganq_last_error());
    ganq__message_restore(before);
}

/* cuBLASLt, opened once. */
static int has_cublaslt(ganq_context *ctx, ganq__lut_state *state) {
    ganq__message before;
    if (state->product || state->no_cublaslt)
        return state->product != NULL;
    ganq__message_keep(&before);
    if (ganq__cublaslt_open(ctx, &state->cublaslt) == GANQ_OK)
        state->product = ganq__cublaslt_product;
    else
        give_up_cublaslt(ctx, state, &before);
    return state->product != NULL;
}

void ganq__lut_close(ganq_context *ctx) {
    ganq__lut_state *state = state_of(ctx);
    if (!state)
        return;
    ganq__cublaslt_close(state->cublaslt);
    ganq__lut_tuning_free(&state->tuning);
    ganq__free(state);
    ganq__cuda_of(ctx)->lut = NULL;
}

static int x_vectors(const ganq__lut_call *call) {
    const int64_t per_vector = call->x_dtype == GANQ_DTYPE_F32 ? 4 : 8;
    const ganq__lut_input *in = &call->input; /* what is not there is aligned */
    return call->x && (uintptr_t)call->x % 16 == 0 && call->layers[0]->K % 8 == 0 &&
           (call->M == 1 || call->ldx % per_vector == 0) && (uintptr_t)in->b % 16 == 0 &&
           (uintptr_t)in->weight % 16 == 0 && (uintptr_t)in->sum % 16 == 0;
}

/* Layers from `first` on that can share a launch: same bits, same kind of table. */
static int launch_count(const ganq__lut_call *call, int first) {
    int count = 1;
    while (first + count < call->count &&
           call->layers[first + count]->bits == call->layers[first]->bits &&
           call->layers[first + count]->table_f32 == call->layers[first]->table_f32)
        count++;
    return count;
}

static int any_outliers(const ganq__lut_call *call, const round_plan *r) {
    for (int i = r->first; i < r->first + r->count; i++)
        if (call->layers[i]->part.rowptr)
            return 1;
    return 0;
}

static ganq__lut_shape shape_of(const ganq_context *ctx, const ganq__lut_call *call,
                                const round_plan *r) {
    const ganq__cuda *cuda = ganq__cuda_of(ctx);
    const ganq__lut_placed *layer = call->layers[r->first];
    return (ganq__lut_shape){
        .sm = cuda->sm,
        .multiprocessors = cuda->multiprocessors,
        .bits = layer->bits,
        .simt_only = layer->table_f32,
        .exact = is_exact(ctx),
        .needs_columns = r->needs_columns,
        .N = r->N,
        .K = layer->K,
        .M = call->M,
        .columns = r->parts * call->M,
    };
}

/* The launch that begins with layer `first`, without its plan. */
static round_plan round_of(const ganq_context *ctx, const ganq__lut_call *call, int first) {
    round_plan r = {.first = first, .count = launch_count(call, first), .vectors = x_vectors(call)};
    for (int i = first; i < first + r.count; i++)
        r.N += call->layers[i]->N;
    r.parts = call->x_dtype == GANQ_DTYPE_F32 && is_exact(ctx) ? 2 : 1;
    r.needs_columns = call->x_dtype != GANQ_DTYPE_F16 || !r.vectors;
    return r;
}

ganq_status ganq__lut_shape_of(ganq_context *ctx, const ganq__lut_call *call,
                               ganq__lut_shape *out) {
    ganq__lut_state *state;
    const round_plan r = round_of(ctx, call, 0);
    GANQ_TRY(ensure_state(ctx, &state));
    *out = shape_of(ctx, call, &r);
    return GANQ_OK;
}

static ganq__lut_plan choose_plan(ganq_context *ctx, ganq__lut_state *state,
                                  const ganq__lut_call *call, const round_plan *r) {
    ganq__lut_shape shape = shape_of(ctx, call, r);
    ganq__lut_plan plan = state->forced && ganq__lut_plan_fits(state->forced, &shape)
                              ? *state->forced
                              : ganq__lut_choose(&state->tuning, &shape);
    /* A tuned plan was measured without outliers; with many columns theirs would take longer than the products. */
    if (plan.variant == GANQ__LUT_WGMMA && 8 * plan.row_tiles > WGMMA_OUTLIER_COLUMNS && !state->forced && any_outliers(call, r))
        plan = ganq__lut_choose(NULL, &shape);
    /* W~ in f16 holds outliers to 2^-11 only. */
    if (plan.variant == GANQ__LUT_TILES &&
        ((is_exact(ctx) && any_outliers(call, r)) || !has_cublaslt(ctx, state))) {
        shape.columns = GANQ__LUT_MMA_COLUMNS;
        plan = ganq__lut_choose(NULL, &shape);
    }
    return plan;
}

/* Rows of W of a block, where one has a place for its sums. */
static int64_t block_rows_of(const ganq__lut_plan *plan) {
    return plan->variant == GANQ__LUT_WGMMA ? GANQ__LUT_WGMMA_ROWS : 16 * plan->row_tiles;
}

static int64_t split_bytes(const ganq__lut_call *call, const round_plan *r) {
    const int64_t rows = block_rows_of(&r->plan);
    int64_t all = 0;
    for (int i = r->first; i < r->first + r->count; i++)
        all += rounded(call->layers[i]->N, rows);
    return r->plan.splits * r->parts * r->tokens * all * 4;
}

static ganq_status plan_round(ganq_context *ctx, const ganq__lut_call *call, int first,
                              round_plan *r) {
    ganq__lut_state *state;
    const int64_t K = call->layers[first]->K;
    *r = round_of(ctx, call, first);
    GANQ_TRY(ensure_state(ctx, &state));
    r->plan = choose_plan(ctx, state, call, r);
    if (r->plan.variant == GANQ__LUT_SIMT) {
        r->parts = 1;
        r->needs_columns = 0;
    }
    if (r->needs_columns && r->plan.variant == GANQ__LUT_MMA && r->plan.row_tiles == 1 &&
        r->plan.splits == 1 && call->M <= GANQ__LUT_CONVERT_ROWS) {
        r->converts = 1;
        r->needs_columns = 0;
    }
    const int64_t most = r->plan.variant == GANQ__LUT_SIMT  ? GANQ__LUT_SIMT_ROWS
                         : r->plan.variant == GANQ__LUT_MMA ? GANQ__LUT_MMA_COLUMNS / r->parts
                                                            : TILE_TOKENS;
    r->tokens = call->M < most ? call->M : most;
    r->column_ld = rounded(K, 8);
    if (r->plan.variant == GANQ__LUT_WGMMA) {
        r->needs_columns = 1;
        r->wide = 8 * r->plan.row_tiles;
        r->column_ld = ganq__image_columns(K, call->layers[first]->bits);
    }
    if (r->needs_columns) {
        const int64_t columns = rounded(r->parts * r->tokens, r->wide ? r->wide : 1);
        r->columns_bytes = (size_t)rounded(columns * r->column_ld * 2, ALIGN);
        r->scales_bytes = (size_t)rounded(r->parts * r->tokens * 4, ALIGN);
    }
    if (r->plan.variant == GANQ__LUT_TILES) {
        const int64_t fit = TILE_BYTES * r->plan.row_tiles / (2 * r->column_ld);
        int64_t widest = 0;
        for (int i = first; i < first + r->count; i++)
            widest = call->layers[i]->N > widest ? call->layers[i]->N : widest;
        /* pieces of equal size */
        const int64_t pieces = fit < FINISH_ROWS ? widest : (widest + fit - 1) / fit;
        r->tile_rows = rounded((widest + pieces - 1) / pieces, FINISH_ROWS);
        r->extra_bytes = (size_t)rounded(r->tile_rows * r->column_ld * 2, ALIGN) +
                         (size_t)rounded(r->parts * r->tokens * r->tile_rows * 4, ALIGN) +
                         CUBLASLT_BYTES;
    } else if (r->plan.splits > 1) {
        r->extra_bytes = (size_t)rounded(split_bytes(call, r), ALIGN);
    }
    return GANQ_OK;
}

ganq_status ganq__lut_workspace_bytes(ganq_context *ctx, const ganq__lut_call *call,
                                      size_t *bytes) {
    round_plan r;
    *bytes = 0;
    for (int first = 0; first < call->count; first += r.count) {
        GANQ_TRY(plan_round(ctx, call, first, &r));
        const size_t needed = r.columns_bytes + r.scales_bytes + r.extra_bytes;
        *bytes = needed > *bytes ? needed : *bytes;
    }
    return GANQ_OK;
}

static const char *row_of(const void *data, int32_t dtype, int64_t row, int64_t ld) {
    return (const char *)data + row * ld * (dtype == GANQ_DTYPE_F32 ? 4 : 2);
}

/* Blocks of the tensor-core kernel that the GPU has room for at once. */
static int64_t slots_of(const ganq__cuda *cuda, const ganq__lut_args *args, const ganq__lut_plan *plan) {
    const ganq__lut_shared s = ganq__lut_mma_layout(args->bits, args->most_columns, args->K, plan);
    return (int64_t)cuda->multiprocessors *
           ganq__lut_mma_slots(args->bits, args->most_columns, plan, s.total,
                               ganq__lut_shared_bytes(cuda->sm) + 1024);
}

/* One launch of args, and the sum over its splits. */
static cudaError_t launch(const ganq__cuda *cuda, ganq__cuda_queue queue, ganq__lut_args *args,
                          const ganq__lut_plan *plan) {
    cudaError_t error;
    args->splits = plan->splits;
    switch (plan->variant) {
    case GANQ__LUT_SIMT:
        error = ganq__lut_launch_simt(queue, args, plan);
        break;
#if defined(GANQ_HAS_WGMMA)
    case GANQ__LUT_WGMMA:
        error = ganq__lut_launch_wgmma(queue, args, plan);
        break;
#endif
    default:
        error = ganq__lut_launch_mma(queue, args, plan, slots_of(cuda, args, plan));
    }
    if (error == cudaSuccess && plan->splits > 1)
        error = ganq__lut_launch_finish(queue, args, (int)block_rows_of(plan));
    return error;
}

/* Layer by layer: rows of W~ to f16, cuBLASLt, and the rest of the product. */
static ganq_status run_tiles(ganq_context *ctx, const ganq__lut_call *call, const round_plan *r,
                             ganq__lut_args *args, char *extra, ganq__cuda_queue queue) {
    char *const sums = extra + rounded(r->tile_rows * r->column_ld * 2, ALIGN);
    const ganq__lut_state *state = state_of(ctx);
    char *const library = sums + rounded(r->parts * r->tokens * r->tile_rows * 4, ALIGN);
    const int layers = args->parts;
    ganq__lut_part parts[GANQ__LUT_PARTS];
    memcpy(parts, args->part, sizeof parts);
    args->parts = 1;
    args->splits = 1;
    args->partial = (float *)sums;
    for (int i = 0; i < layers; i++) {
        /* Without bias, scale and lower parts the product is the result. */
        const int direct = !parts[i].bias && !args->scales && args->columns == args->M &&
                           args->y_dtype != GANQ_DTYPE_BF16 && (uintptr_t)parts[i].y % 16 == 0 &&
                           parts[i].ldy % 8 == 0;
        for (int64_t first = 0; first < parts[i].N; first += r->tile_rows) {
            const int64_t rows =
                parts[i].N - first < r->tile_rows ? parts[i].N - first : r->tile_rows;
            const int64_t ld = rounded(rows, FINISH_ROWS);
            ganq__lut_part tile = parts[i];
            char *y = (char *)(uintptr_t)row_of(parts[i].y, args->y_dtype, 1, first);
            GANQ_CUDA_TRY(ganq__lut_launch_dequantize(queue, &parts[i], args->bits,
                                                      args->table_f32, args->K, first, rows, extra,
                                                      r->column_ld));
            GANQ_TRY(state->product(state->cublaslt, call->stream, args->columns, rows, args->K,
                                    args->x, args->ldx, extra, r->column_ld, direct ? y : sums,
                                    direct ? args->y_dtype : GANQ_DTYPE_F32,
                                    direct ? parts[i].ldy : ld, library, CUBLASLT_BYTES));
            if (direct)
                continue;
            tile.y = y;
            tile.N = (int32_t)rows;
            tile.bias = tile.bias ? tile.bias + first : NULL;
            args->part[0] = tile;
            GANQ_CUDA_TRY(ganq__lut_launch_finish(queue, args, FINISH_ROWS));
        }
    }
    return GANQ_OK;
}

/* Of rows from m on. */
static ganq__lut_input input_from(const ganq__lut_call *call, int64_t m) {
    ganq__lut_input in = call->input;
    const int64_t before = m * call->layers[0]->K;
    in.a = in.a ? in.a + before : NULL;
    in.b = in.b ? in.b + before : NULL;
    in.sum = in.sum ? in.sum + before : NULL;
    return in;
}

/* Rows [m, m + count) of X with the layers of a round. */
static ganq_status run_launch(ganq_context *ctx, const ganq__lut_call *call, const round_plan *r,
                              int64_t m, int64_t count) {
    ganq__cuda_queue queue = ganq__cuda_queue_of(ctx);
    const ganq__lut_placed *layer = call->layers[r->first];
    char *const workspace = call->workspace, *const extra =
                                                 workspace + r->columns_bytes + r->scales_bytes;
    ganq__lut_args args = {
        .parts = r->count,
        .bits = layer->bits,
        .table_f32 = layer->table_f32,
        .K = (int32_t)layer->K,
        .x = row_of(call->x, call->x_dtype, m, call->ldx),
        .ldx = call->ldx,
        .x_dtype = call->x_dtype,
        .y_dtype = call->y_dtype,
        .x_vectors = r->vectors,
        .input = input_from(call, m),
        .M = (int32_t)count,
        .columns = (int32_t)(r->parts * count),
        .most_columns = (int32_t)(r->parts * r->tokens),
        .partial = (float *)extra,
        .convert = r->converts,
    };
    for (int i = 0; i < r->count; i++) {
        const int l = r->first + i;
        args.part[i] = call->layers[l]->part;
        args.part[i].y = (void *)(uintptr_t)row_of(call->y[l], call->y_dtype, m, call->ldy[l]);
        args.part[i].ldy = call->ldy[l];
    }
    if (r->needs_columns) {
        float *const scales = (float *)(workspace + r->columns_bytes);
        GANQ_CUDA_TRY(ganq__lut_launch_prepare(queue, &args, workspace, r->column_ld, r->wide, scales));
        args.input = (ganq__lut_input){.kind = GANQ__LUT_PLAIN};
        args.x = workspace;
        args.ldx = r->column_ld;
        if (!r->wide)
            args.K = (int32_t)r->column_ld; /* the rest of a group of 8 is zero */
        args.x_dtype = GANQ_DTYPE_F16;
        args.x_vectors = 1;
        args.scales = scales;
    }
    queue.stream = call->stream;
    if (r->plan.variant == GANQ__LUT_TILES)
        return run_tiles(ctx, call, r, &args, extra, queue);
    GANQ_CUDA_TRY(launch(ganq__cuda_of(ctx), queue, &args, &r->plan));
    return GANQ_OK;
}

static ganq_status run_round(ganq_context *ctx, const ganq__lut_call *call, const round_plan *r) {
    for (int64_t m = 0; m < call->M; m += r->tokens)
        GANQ_TRY(run_launch(ctx, call, r, m, call->M - m < r->tokens ? call->M - m : r->tokens));
    return GANQ_OK;
}

/* Tiles for which cuBLASLt has no kernel: what comes instead takes fewer rows of X at a time, and sums of less than
 * CUBLASLT_BYTES, so that the workspace is large enough. */
static ganq_status run_instead(ganq_context *ctx, const ganq__lut_call *call, round_plan *r,
                               const ganq__message *before) {
    give_up_cublaslt(ctx, state_of(ctx), before);
    GANQ_TRY(plan_round(ctx, call, r->first, r));
    return run_round(ctx, call, r);
}

ganq_status ganq__lut_run(ganq_context *ctx, const ganq__lut_call *call) {
    round_plan r;
    ganq__message before;
    ganq__message_keep(&before);
    for (int first = 0; first < call->count; first += r.count) {
        GANQ_TRY(plan_round(ctx, call, first, &r));
        ganq_status status = run_round(ctx, call, &r);
        if (status == GANQ_ERR_UNSUPPORTED && r.plan.variant == GANQ__LUT_TILES)
            status = run_instead(ctx, call, &r, &before);
        GANQ_TRY(status);
    }
    return GANQ_OK;
}

/* ---- operations ---- */

static ganq__lut_call call_of(ganq_context *ctx, int count, const ganq_layer *const *layers,
                              int64_t M, const float *x, int64_t ldx, float *const *ys,
                              const int64_t *ldys) {
    ganq__lut_call call = {
        .count = count,
        .M = M,
        .x = x,
        .ldx = ldx,
        .x_dtype = GANQ_DTYPE_F32,
        .y_dtype = GANQ_DTYPE_F32,
        .stream = ganq__cuda_of(ctx)->stream,
    };
    for (int i = 0; i < count; i++) {
        call.layers[i] = ganq__attachment_find(&layers[i]->attachments, ctx);
        call.y[i] = ys[i];
        call.ldy[i] = ldys[i];
    }
    return call;
}

/* With the context's own workspace. */
static ganq_status run_call(ganq_context *ctx, ganq__lut_call *call) {
    size_t bytes;
    int entered;
    GANQ_TRY(ganq__lut_workspace_bytes(ctx, call, &bytes));
    if (bytes)
        GANQ_TRY(ganq__cuda_workspace(ctx, GANQ__CUDA_LUT, bytes, &call->workspace));
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    const ganq_status status = ganq__lut_run(ctx, call);
    ganq__cuda_leave(entered);
    return status;
}

static ganq_status lut_gemm_many(ganq_context *ctx, int count, const ganq_layer *const *layers,
                                 int64_t M, const float *x, int64_t ldx, float *const *ys,
                                 const int64_t *ldys) {
    ganq__lut_call call = call_of(ctx, count, layers, M, x, ldx, ys, ldys);
    return run_call(ctx, &call);
}

/* All launches of the call read X through lut_input.cuh. SwiGLU is dear enough to be made once, by the kernel that prepares X. */
static ganq_status makes_input(ganq_context *ctx, const ganq__lut_call *call, int *out) {
    const int repeats = call->input.kind != GANQ__LUT_SWIGLU || ganq__cuda_of(ctx)->fuse == 2;
    round_plan r;
    *out = 1;
    for (int first = 0; first < call->count; first += r.count) {
        GANQ_TRY(plan_round(ctx, call, first, &r));
        *out &= r.needs_columns || (r.converts && repeats);
    }
    return GANQ_OK;
}

static ganq_status lut_gemm_input(ganq_context *ctx, int count, const ganq_layer *const *layers,
                                  int64_t M, const ganq__lut_input *input, float *const *ys,
                                  const int64_t *ldys, int *taken) {
    ganq__lut_call call = call_of(ctx, count, layers, M, input->a, layers[0]->K, ys, ldys);
    ganq__lut_state *state;
    *taken = 0;
    GANQ_TRY(ensure_state(ctx, &state));
    if (ganq__cuda_of(ctx)->fuse == 0)
        return GANQ_OK;
    call.input = *input;
    if (!input->b)
        call.input.sum = NULL;
    GANQ_TRY(makes_input(ctx, &call, taken));
    if (!*taken)
        return GANQ_OK;
    state->inputs_taken++;
    return run_call(ctx, &call);
}

static ganq_status lut_gemm(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                            int64_t ldx, float *y, int64_t ldy) {
    return lut_gemm_many(ctx, 1, &layer, M, x, ldx, &y, &ldy);
}

const ganq__lut_ops ganq__lut_ops_cuda = {
    .gemm = lut_gemm,
    .gemm_many = lut_gemm_many,
    .gemm_input = lut_gemm_input,
    .place = lut_place,
    .unplace = lut_unplace,
    .placed_bytes = lut_placed_bytes,
    .device_workspace = ganq__lut_device_workspace,
    .device_product = ganq__lut_device_product,
    .tune = ganq__lut_tune,
};
