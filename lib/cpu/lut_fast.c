/* lut_fast.c - products in fixed point: X to integers, items, workspace; see lut_fast.h. */
#include "lut_fast.h"

#include <stdatomic.h>
#include <string.h>

#include "dtype.h"

enum {
    SEGMENT = GANQ__FAST_SEGMENT,
    PIECE = GANQ__FAST_PIECE,
    CHUNK = GANQ__FAST_CHUNK,
    SMALL_M = GANQ__FAST_SMALL_M,
    PANEL = GANQ__LUT_PANEL,
    /* Rows of W per item, M small: few, so that threads end together, and for a kernel that takes
     * four an odd number apart: rows whose distance is a multiple of 4 KB (eight of 4096 columns)
     * share the sets of the first-level cache. */
    ITEM_ROWS = 12,
    /* Vectors of sums of an item; rows that do not fill a kernel have R places each. */
    ITEM_SUMS = (ITEM_ROWS + GANQ__FAST_MAX_R * (GANQ__FAST_MAX_R - 1)) * SMALL_M,
    X_SEGMENTS = 128, /* of all rows of X together, 64 KB: more costs more than to cut K */
    AHEAD = 8192,     /* bytes of codes that memory is asked for before they are used */
    TOKENS = 128,     /* M large: at a time */
    SERIAL_WORK = 1 << 15
};

typedef struct fast_job {
    const ganq__fast_kernels *kernels;
    ganq__lut_product p;
    int64_t padded;             /* K in whole segments (M small) or pieces (M large) */
    int width;                  /* M small: which kernels */
    int64_t rows;               /* M small: rows of X they take, M or more; the others are zeros */
    int64_t piece, piece_bytes; /* columns that the kernel takes at a time; of codes */
    int64_t ahead;  /* groups of rows between what is multiplied and what memory is asked for */
    int64_t panels; /* M large */
    int16_t *values;
    float *scales;
    float *sums; /* M large: [threads][item_tiles][panels][tile_rows][16] */
    int64_t sum_size;
} fast_job;

/* M small: up to 8 rows of X each. */
typedef struct fast_passes {
    fast_job pass[GANQ__FAST_MOST_FEW / SMALL_M];
    int64_t count, items, threads;
    /* Items that threads have taken. A cache line of its own: they read what is above. */
    _Alignas(64) atomic_llong taken;
} fast_passes;

static const int widths[GANQ__FAST_WIDTHS] = {1, 2, 4, 6, 8};

static int64_t minimum(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t round_up(int64_t a, int64_t b) {
    return (a + b - 1) / b * b;
}

/* Columns [k, k + count) of a row of X; those beyond K, in `buffer`, are zeros. */
static const float *columns_of(const ganq__lut_product *p, int64_t m, int64_t k, int64_t count,
                               float *buffer) {
    const float *x = p->x + m * p->ldx + k;
    const int64_t have = p->layer->K - k;
    if (have >= count)
        return x;
    memset(buffer, 0, (size_t)count * sizeof *buffer);
    memcpy(buffer, x, (size_t)have * sizeof *buffer);
    return buffer;
}

static int is_wide(const ganq_layer *layer, int64_t first, int64_t rows) {
    return layer->wide && memchr(layer->wide + first, 1, (size_t)rows) != NULL;
}

/* ---- M small ---- */

static void convert_row(void *user, int64_t index, int worker) {
    const fast_job *job = &((const fast_passes *)user)->pass[index / SMALL_M];
    const int64_t m = index % SMALL_M;
    float buffer[SEGMENT];
    (void)worker;
    for (int64_t s = 0; s < job->padded / SEGMENT; s++) {
        int16_t *values = job->values + (s * job->rows + m) * SEGMENT;
        float *scale = job->scales + s * job->rows + m;
        if (m < job->p.M) {
            const float *x = columns_of(&job->p, m, s * SEGMENT, SEGMENT, buffer);
            const int whole = x != buffer;
            *scale = job->kernels->convert(x, whole ? job->p.layer->bits : 0, values);
        } else {
            memset(values, 0, SEGMENT * sizeof *values);
            *scale = 0;
        }
    }
}

/* An item: rows of W, in groups of R for the kernel and pieces of K. The groups' order is that in
 * which the kernel takes them: all groups of a piece, then the next piece. */
typedef struct item_place {
    int64_t first, rows, apart, groups, pieces;
} item_place;

static item_place place_item(const fast_job *job, int64_t item) {
    const int64_t first = item * ITEM_ROWS;
    const int64_t rows = minimum(job->p.layer->N - first, ITEM_ROWS);
    const int64_t R = job->kernels->R[job->width], apart = rows / R;
    return (item_place){.first = first,
                        .rows = rows,
                        .apart = apart,
                        .groups = apart + rows % R,
                        .pieces = (job->p.layer->K + job->piece - 1) / job->piece};
}

/* A group and piece of an item; no item: after the last one. */
typedef struct group_place {
    const item_place *item;
    int64_t g, piece;
} group_place;

static void advance(group_place *at, const item_place *after) {
    if (++at->g < at->item->groups)
        return;
    at->g = 0;
    if (++at->piece < at->item->pieces)
        return;
    at->piece = 0;
    at->item = after;
}

/* The first row, within the item; what does not fill a group is the same row R times. */
static int64_t first_row(const fast_job *job, const group_place *at) {
    const int64_t apart = at->item->apart;
    return at->g < apart ? at->g : at->g - apart + job->kernels->R[job->width] * apart;
}

static const uint8_t *lanes_at(const fast_job *job, const group_place *at) {
    return ganq__layer_lanes(job->p.layer, at->item->first + first_row(job, at)) +
           at->piece * job->piece_bytes;
}

static int64_t lanes_stride(const fast_job *job, const group_place *at) {
    return at->g < at->item->apart ? at->item->apart * job->p.layer->row_bytes : 0;
}

/* An item with all of X into sums [groups][R][M][lanes]; the codes of later groups, and of the item
 * that this thread takes next (NULL: none), are asked for. */
static void sum_rows(const fast_job *job, const item_place *item, const item_place *next,
                     const ganq__fast_table *tables, float *sums) {
    const ganq_layer *layer = job->p.layer;
    const ganq__fast_kernels *kernels = job->kernels;
    const int64_t group_sums = kernels->R[job->width] * job->rows * kernels->lanes;
    group_place at = {item, 0, 0}, later = at;
    for (int64_t i = 0; i < job->ahead && later.item; i++)
        advance(&later, later.item == item ? next : NULL);
    while (at.item == item) {
        const int64_t k = at.piece * job->piece, row = first_row(job, &at);
        ganq__fast_rows part = {.lanes = lanes_at(job, &at),
                                .lanes_stride = lanes_stride(job, &at),
                                .columns = minimum(layer->K - k, job->piece),
                                .tables = tables + row,
                                .tables_stride = at.g < item->apart ? item->apart : 0,
                                .x = job->values + k * job->rows,
                                .scales = job->scales + k / SEGMENT * job->rows,
                                .fresh = at.piece == 0,
                                .sums = sums + at.g * group_sums};
        part.ahead = later.item ? lanes_at(job, &later) : part.lanes;
        part.ahead_stride = later.item ? lanes_stride(job, &later) : part.lanes_stride;
        kernels->rows[job->width][layer->bits - 2](&part);
        advance(&at, NULL);
        if (later.item)
            advance(&later, later.item == item ? next : NULL);
    }
}

/* y from row n's totals over its codes, or more of it. */
static void finish_row(const fast_job *job, int64_t n, float scale, const float *totals,
                       int second) {
    const ganq__lut_product *p = &job->p;
    float *y = p->y + n;
    if (second)
        for (int64_t m = 0; m < p->M; m++)
            y[m * p->ldy] += scale * totals[m];
    else if (p->layer->outlier_rowptr || p->layer->bias)
        for (int64_t m = 0; m < p->M; m++)
            y[m * p->ldy] = ganq__lut_finish(p, n, m, scale * totals[m]);
    else
        for (int64_t m = 0; m < p->M; m++)
            y[m * p->ldy] = scale * totals[m];
}

static void prefetch(const void *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)from + at, 0, 2);
}

static void prefetch_tables(const fast_job *job, const item_place *item) {
    const ganq_layer *layer = job->p.layer;
    const int64_t bytes = layer->L * (int64_t)ganq__dtype_size(layer->lut_dtype);
    prefetch((const char *)layer->lut + item->first * bytes, item->rows * bytes);
}

static void item_small(const fast_job *job, const item_place *item, const item_place *next) {
    const ganq_layer *layer = job->p.layer;
    const ganq__fast_kernels *kernels = job->kernels;
    const int64_t first = item->first, rows = item->rows, apart = item->apart;
    const int64_t R = kernels->R[job->width], vectors = item->groups * R * job->rows;
    ganq__fast_table tables[ITEM_ROWS];
    _Alignas(64) float sums[ITEM_SUMS * 16], totals[ITEM_SUMS];
    if (next)
        prefetch_tables(job, next);
    for (int second = 0; second <= is_wide(layer, first, rows); second++) {
        for (int64_t r = 0; r < rows; r++)
            kernels->table(layer, first + r, second, &tables[r]);
        sum_rows(job, item, next, tables, sums);
        kernels->reduce(sums, vectors, totals);
        for (int64_t g = 0; g < item->groups; g++) {
            const int64_t row = g < apart ? g : g - apart + R * apart;
            for (int64_t r = 0; r < (g < apart ? R : 1); r++)
                finish_row(job, first + row + r * apart, tables[row + r * apart].scale,
                           totals + (g * R + r) * job->rows, second);
        }
    }
}

/* Items [begin, end) that a thread takes at a time: a part of what is left, for taking costs 0.1 to
 * 0.3 us where the threads' cores have no cache in common. */
typedef struct item_range {
    int64_t begin, end;
} item_range;

static item_range take_items(fast_passes *all) {
    long long begin = atomic_load_explicit(&all->taken, memory_order_relaxed);
    for (;;) {
        const int64_t left = all->items - begin, part = left / (2 * all->threads);
        if (left <= 0)
            return (item_range){all->items, all->items};
        const int64_t end = begin + (part > 1 ? part : 1);
        if (atomic_compare_exchange_weak_explicit(&all->taken, &begin, end, memory_order_relaxed,
                                                  memory_order_relaxed))
            return (item_range){begin, end};
    }
}

/* A thread's items. It knows the next before it begins with one, to ask memory for it. Passes after
 * the first find an item's codes in the second-level cache. */
static void work_small(void *user, int64_t index, int worker) {
    fast_passes *all = user;
    item_range range = take_items(all);
    (void)index;
    (void)worker;
    if (range.begin == all->items)
        return;
    const item_place first = place_item(all->pass, range.begin);
    prefetch_tables(all->pass, &first);
    while (range.begin < all->items) {
        const int64_t begin = range.begin;
        if (++range.begin == range.end)
            range = take_items(all);
        for (int64_t i = 0; i < all->count; i++) {
            const fast_job *job = &all->pass[i];
            const item_place item = place_item(job, begin), next = place_item(job, range.begin);
            const int last = i + 1 == all->count && range.begin < all->items;
            item_small(job, &item, last ? &next : NULL);
        }
    }
}

/* The pass of rows of X from m on. */
static fast_job pass_from(const fast_job *job, int64_t m) {
    fast_job pass = *job;
    pass.p.M = minimum(job->p.M - m, SMALL_M);
    pass.p.x += m * job->p.ldx;
    pass.p.y += m * job->p.ldy;
    while (widths[pass.width] < pass.p.M)
        pass.width++;
    pass.rows = widths[pass.width];
    const int64_t segments = pass.padded / SEGMENT, most = X_SEGMENTS / pass.rows;
    const int64_t pieces = (segments + most - 1) / most;
    pass.piece = (segments + pieces - 1) / pieces * SEGMENT;
    pass.piece_bytes = ganq__planes_bytes(pass.piece, job->p.layer->bits);
    const int64_t group_bytes = job->kernels->R[pass.width] * pass.piece_bytes;
    pass.ahead = (AHEAD + group_bytes - 1) / group_bytes;
    return pass;
}

static ganq_status multiply_small(ganq_context *ctx, fast_job *job, ganq__pool *pool) {
    fast_passes all = {.threads = ganq__pool_threads(ctx->pool)};
    int64_t rows = 0;
    char *memory;
    job->padded = round_up(job->p.layer->K, SEGMENT);
    for (int64_t m = 0; m < job->p.M; m += SMALL_M) {
        all.pass[all.count] = pass_from(job, m);
        rows += all.pass[all.count++].rows;
    }
    const size_t values = (size_t)job->padded * sizeof *job->values;
    const size_t scales = (size_t)(job->padded / SEGMENT) * sizeof *job->scales;
    GANQ_TRY(ganq__context_workspace(ctx, (size_t)rows * (values + scales), (void **)&memory));
    char *after = memory + (size_t)rows * values;
    for (int64_t i = 0; i < all.count; i++) {
        all.pass[i].values = (int16_t *)memory;
        all.pass[i].scales = (float *)after;
        memory += (size_t)all.pass[i].rows * values;
        after += (size_t)all.pass[i].rows * scales;
    }
    ganq__parallel_for(rows > 1 ? pool : NULL, rows, convert_row, &all);
    all.items = (job->p.layer->N + ITEM_ROWS - 1) / ITEM_ROWS;
    ganq__parallel_for(pool, all.threads, work_small, &all);
    return GANQ_OK;
}

/* ---- M large ---- */

static int64_t chunk_columns(const fast_job *job, int64_t k0) {
    return minimum(job->padded - k0, CHUNK);
}

/* A token's columns into its panel: pairs of columns, 16 tokens apart. */
static void convert_token(void *user, int64_t m, int worker) {
    const fast_job *job = user;
    const int64_t panel = m / PANEL;
    float buffer[PIECE];
    int16_t values[PIECE];
    (void)worker;
    for (int64_t k = 0; k < job->padded; k += PIECE) {
        const int64_t chunk = k / CHUNK * CHUNK, kc = chunk_columns(job, chunk);
        int16_t *to =
            job->values + (chunk * job->panels + panel * kc + k - chunk) * PANEL + m % PANEL * 2;
        float *scale = job->scales + (k / PIECE * job->panels + panel) * PANEL + m % PANEL;
        if (m < job->p.M) {
            *scale = job->kernels->convert_piece(columns_of(&job->p, m, k, PIECE, buffer), values);
        } else {
            memset(values, 0, sizeof values);
            *scale = 0;
        }
        for (int64_t i = 0; i < PIECE; i += 2)
            memcpy(to + i * PANEL, values + i, 2 * sizeof *values);
    }
}

/* One tile, 256 columns: decoded with the given tables and multiplied with all panels. */
static void multiply_tile(const fast_job *job, int64_t first, int64_t rows, int64_t k0,
                          const ganq__fast_table *tables, int second, int16_t *w, float *sums) {
    const int64_t kc = chunk_columns(job, k0), columns = minimum(job->p.layer->K - k0, CHUNK);
    for (int64_t r = 0; r < rows; r++)
        job->kernels->decode(job->p.layer, first + r, k0, columns, &tables[r], w + r * CHUNK);
    job->kernels->multiply(kc / PIECE, w, job->panels, job->values + k0 * job->panels * PANEL,
                           job->scales + k0 / PIECE * job->panels * PANEL,
                           second ? 1.0f / GANQ__FAST_RESIDUAL : 1, sums);
}

static void finish_item(const fast_job *job, int64_t first, int64_t rows,
                        const ganq__fast_table *tables, const float *sums) {
    const int64_t tile_rows = job->kernels->tile_rows, tile_sums = job->panels * tile_rows * PANEL;
    for (int64_t m = 0; m < job->p.M; m++) {
        float *y = job->p.y + m * job->p.ldy + first;
        const float *of_token = sums + m / PANEL * tile_rows * PANEL + m % PANEL;
        for (int64_t r = 0; r < rows; r++)
            y[r] = ganq__lut_finish(
                &job->p, first + r, m,
                tables[r].scale * of_token[r / tile_rows * tile_sums + r % tile_rows * PANEL]);
    }
}

static void item_large(void *user, int64_t item, int worker) {
    const fast_job *job = user;
    const ganq__fast_kernels *kernels = job->kernels;
    const ganq_layer *layer = job->p.layer;
    const int64_t tile_rows = kernels->tile_rows, item_rows = tile_rows * kernels->item_tiles;
    const int64_t first = item * item_rows, rows = minimum(layer->N - first, item_rows);
    const int wide = is_wide(layer, first, rows);
    ganq__fast_table tables[2][GANQ__LUT_MAX_ITEM_ROWS];
    float *sums = job->sums + worker * job->sum_size;
    /* Rows beyond N are multiplied, too, but not kept. */
    _Alignas(64) int16_t w[GANQ__LUT_MAX_TILE_ROWS * CHUNK] = {0};
    for (int second = 0; second <= wide; second++)
        for (int64_t r = 0; r < rows; r++)
            kernels->table(layer, first + r, second, &tables[second][r]);
    memset(sums, 0, (size_t)job->sum_size * sizeof *sums);
    for (int64_t k0 = 0; k0 < layer->K; k0 += CHUNK)
        for (int64_t r0 = 0; r0 < rows; r0 += tile_rows) {
            const int64_t of_tile = minimum(rows - r0, tile_rows);
            for (int second = 0; second <= is_wide(layer, first + r0, of_tile); second++)
                multiply_tile(job, first + r0, of_tile, k0, &tables[second][r0], second, w,
                              sums + r0 * job->panels * PANEL);
        }
    finish_item(job, first, rows, tables[0], sums);
}

static ganq_status multiply_large(ganq_context *ctx, fast_job *job, ganq__pool *pool) {
    const ganq_layer *layer = job->p.layer;
    const int64_t M = job->p.M, item_rows = job->kernels->item_tiles * job->kernels->tile_rows;
    const int64_t tokens = round_up(minimum(M, TOKENS), PANEL);
    job->padded = round_up(layer->K, PIECE);
    job->sum_size = item_rows * tokens;
    const size_t sums = (size_t)(ganq__pool_threads(ctx->pool) * job->sum_size) * sizeof *job->sums;
    const size_t scales = (size_t)(tokens * job->padded / PIECE) * sizeof *job->scales;
    const size_t values = (size_t)(tokens * job->padded) * sizeof *job->values;
    GANQ_TRY(ganq__context_workspace(ctx, sums + scales + values, (void **)&job->sums));
    job->scales = (float *)((char *)job->sums + sums);
    job->values = (int16_t *)((char *)job->scales + scales);
    for (int64_t m = 0; m < M; m += TOKENS) {
        job->p.M = minimum(M - m, TOKENS);
        job->panels = (job->p.M + PANEL - 1) / PANEL;
        ganq__parallel_for(pool, job->panels * PANEL, convert_token, job);
        ganq__parallel_for(pool, (layer->N + item_rows - 1) / item_rows, item_large, job);
        job->p.x += TOKENS * job->p.ldx;
        job->p.y += TOKENS * job->p.ldy;
    }
    return GANQ_OK;
}

ganq_status ganq__lut_fast(ganq_context *ctx, const ganq__fast_kernels *kernels,
                           ganq__lut_product product) {
    const double work = (double)product.M * (double)product.layer->N * (double)product.layer->K;
    fast_job job = {.kernels = kernels, .p = product};
    ganq__pool *pool = work < SERIAL_WORK ? NULL : ctx->pool;
    return product.M <= kernels->few ? multiply_small(ctx, &job, pool)
                                     : multiply_large(ctx, &job, pool);
}
