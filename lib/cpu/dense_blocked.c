/* dense_blocked.c - cutting a dense product into blocks and spreading them over threads; see
 * dense_blocked.h.
 *
 * A is taken in chunks of rows and of K. All threads pack a chunk; then the items are worked off:
 *
 *              N: groups of column panels
 *            +----+----+----+----+         item = a block of rows of the chunk x a group of panels
 *    M:      |item|    |    |    |           for each block of K:
 *    blocks  +----+----+----+----+             pack the group's part of B    -> second-level cache
 *    of rows |    |    |    |    |             for each panel                -> first-level cache
 *            +----+----+----+----+               multiply all row tiles of A <- second-level cache
 *
 * An item packs its part of B itself, so B is packed once per block of rows, which is little beside
 * block_rows multiply-adds per element; there are two barriers per chunk; and with few rows B is
 * read from memory once. */
#include "dense_blocked.h"

#include <string.h>

#include "alloc.h"
#include "dtype.h"

enum {
    BLOCK_K = GANQ__DENSE_BLOCK_K,
    /* A packed chunk is at most this many floats, 16 MB, and this many columns, whole blocks. */
    CHUNK_FLOATS = 1 << 22,
    CHUNK_K = 16 * BLOCK_K,
    /* Panels of B that are packed together: from a row-major B, a line of 64 bytes per row and
     * panel alone would be one cache miss, maybe one TLB miss, per 16 values. Together they take a
     * part of the second-level cache. */
    GROUP_PANELS = 4,
    /* Tiles of rows of A that are packed together, for the same reason where A is transposed. */
    GROUP_TILES = 16,
    /* Multiply-adds that an item should have at least, beside which handing it out is cheap. */
    ITEM_WORK = 1 << 15,
    MIRROR_TILE = 64
};

typedef struct dense_job {
    const ganq__dense_kernels *kernels;
    const ganq__dense_product *p;
    int64_t row0, rows;     /* the chunk */
    int64_t k_first, k_end; /* the chunk */
    int64_t row_blocks;     /* in the chunk, of almost the same size */
    int64_t block_rows;
    int64_t group_cols; /* columns of C per item */
    float *a;           /* the packed chunk: for each block of K [rows padded to whole tiles][kc] */
    float *b;           /* per worker: a packed group [panel][kc][tile_cols] */
    int64_t b_size;     /* floats per worker */
} dense_job;

static int64_t minimum(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t maximum(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static int64_t round_up(int64_t a, int64_t b) {
    return divide_up(a, b) * b;
}

/* Where the chunk's rows from `row` on, a multiple of tile_rows, are packed for the K block at k0. */
static float *packed_rows(const dense_job *job, int64_t k0, int64_t row) {
    int64_t kc = minimum(job->k_end - k0, BLOCK_K);
    return job->a + (k0 - job->k_first) * round_up(job->rows, job->kernels->tile_rows) + row * kc;
}

/* GROUP_TILES tiles of rows. The rows that fill up the last tile are not written: the kernels do
 * not read them. */
static void pack_rows(void *user, int64_t group, int worker) {
    const dense_job *job = user;
    const ganq__dense_product *p = job->p;
    int64_t tile_rows = job->kernels->tile_rows, first = group * GROUP_TILES * tile_rows;
    int64_t end = minimum(job->rows, first + GROUP_TILES * tile_rows);
    (void)worker;
    for (int64_t k0 = job->k_first; k0 < job->k_end; k0 += BLOCK_K) {
        int64_t kc = minimum(job->k_end - k0, BLOCK_K);
        if (p->a_transposed)
            for (int64_t k = 0; k < kc; k++) {
                const float *a = p->a + (k0 + k) * p->lda + job->row0;
                for (int64_t row = first; row < end; row += tile_rows)
                    memcpy(packed_rows(job, k0, row) + k * tile_rows, a + row,
                           (size_t)minimum(tile_rows, end - row) * sizeof *a);
            }
        else
            for (int64_t row = first; row < end; row++) {
                const float *a = p->a + (job->row0 + row) * p->lda + k0;
                float *packed = packed_rows(job, k0, row / tile_rows * tile_rows) + row % tile_rows;
                for (int64_t k = 0; k < kc; k++)
                    packed[k * tile_rows] = a[k];
            }
    }
}

static const void *address_of_b(const ganq__dense_product *p, int64_t k, int64_t n) {
    int64_t element = p->b_transposed ? n * p->ldb + k : k * p->ldb + n;
    return (const char *)p->b + (size_t)element * ganq__dtype_size(p->b_dtype);
}

static void multiply_item(void *user, int64_t item, int worker) {
    const dense_job *job = user;
    const ganq__dense_product *p = job->p;
    const ganq__dense_kernels *kernels = job->kernels;
    int64_t tile_cols = kernels->tile_cols;
    int64_t n0 = item / job->row_blocks * job->group_cols;
    int64_t n_end = minimum(p->N, n0 + job->group_cols);
    int64_t row = item % job->row_blocks * job->block_rows;
    int64_t rows = minimum(job->rows - row, job->block_rows);
    float *packed = job->b + worker * job->b_size;
    ganq__dense_merge merge = {.alpha = p->alpha, .beta = job->k_first == 0 ? p->beta : 1};
    if (p->upper && job->row0 + row >= n_end)
        return;
    /* every element of a row-major B is used by one tile only: not worth packing */
    int in_place = !p->b_transposed && rows <= kernels->tile_rows;
    int64_t k0 = job->k_first;
    do { /* once for K = 0: C = beta C + bias */
        int64_t kc = minimum(job->k_end - k0, BLOCK_K);
        if (!in_place)
            kernels->pack_b(packed, kc, n_end - n0, address_of_b(p, k0, n0), p->ldb, p->b_dtype,
                            p->b_transposed);
        for (int64_t n = n0; n < n_end; n += tile_cols) {
            int cols = (int)minimum(n_end - n, tile_cols);
            const float *b = packed + (n - n0) * kc;
            int64_t b_stride = tile_cols, wanted = rows;
            if (in_place && cols == tile_cols) {
                b = address_of_b(p, k0, n);
                b_stride = p->ldb;
            } else if (in_place) {
                kernels->pack_b(packed, kc, cols, address_of_b(p, k0, n), p->ldb, p->b_dtype, 0);
                b = packed;
            }
            if (p->upper) /* down to the tile that holds the last column's diagonal element */
                wanted = minimum(rows, round_up(n + cols - job->row0 - row, kernels->tile_rows));
            merge.bias = p->bias && k0 == 0 ? p->bias + n : NULL;
            if (wanted > 0)
                kernels->multiply(wanted, cols, kc, packed_rows(job, k0, row), b, b_stride, &merge,
                                  p->c + (job->row0 + row) * p->ldc + n, p->ldc);
        }
        merge.beta = 1;
        k0 += BLOCK_K;
    } while (k0 < job->k_end);
}

/* One row by a transposed B: every element of B is used once, so nothing is packed. */
static void stream_item(void *user, int64_t item, int worker) {
    const dense_job *job = user;
    const ganq__dense_product *p = job->p;
    int64_t n = item * job->group_cols, n_end = minimum(p->N, n + job->group_cols);
    (void)worker;
    for (; n < n_end; n += job->kernels->tile_cols) {
        int cols = (int)minimum(n_end - n, job->kernels->tile_cols);
        ganq__dense_merge merge = {p->alpha, p->beta, p->bias ? p->bias + n : NULL};
        job->kernels->stream(p->K, cols, p->a, address_of_b(p, 0, n), p->ldb, p->b_dtype, &merge,
                             p->c + n);
    }
}

static void run_items(ganq_context *ctx, dense_job *job, ganq__item_fn fn) {
    int64_t items = divide_up(job->p->N, job->group_cols) * job->row_blocks;
    ganq__parallel_for(items > 1 ? ctx->pool : NULL, items, fn, job);
}

ganq_status ganq__dense_multiply(ganq_context *ctx, const ganq__dense_kernels *kernels,
                                 const ganq__dense_product *p) {
    if (p->M <= 0 || p->N <= 0)
        return GANQ_OK;
    dense_job job = {.kernels = kernels, .p = p};
    int64_t K = maximum(1, p->K);
    int64_t panel_work = K * kernels->tile_cols * minimum(p->M, kernels->block_rows);
    int64_t panels = divide_up(ITEM_WORK, panel_work);
    if (p->M == 1 && p->b_transposed) {
        job.row_blocks = 1;
        job.group_cols = panels * kernels->tile_cols;
        run_items(ctx, &job, stream_item);
        return GANQ_OK;
    }

    ganq_status status = GANQ_OK;
    if (panels > GROUP_PANELS || !p->b_transposed)
        panels = GROUP_PANELS;
    job.group_cols = panels * kernels->tile_cols;
    job.b_size = job.group_cols * minimum(K, BLOCK_K);
    GANQ_ALLOC_GOTO(done, job.b, (size_t)(job.b_size * ganq__pool_threads(ctx->pool)));
    int64_t chunk_k = minimum(K, CHUNK_K);
    int64_t chunk_rows = CHUNK_FLOATS / chunk_k / kernels->block_rows * kernels->block_rows;
    chunk_rows = minimum(chunk_rows, round_up(p->M, kernels->tile_rows));
    GANQ_ALLOC_GOTO(done, job.a, (size_t)(chunk_rows * chunk_k));
    for (; job.row0 < p->M; job.row0 += chunk_rows) {
        job.rows = minimum(p->M - job.row0, chunk_rows);
        int64_t blocks = divide_up(job.rows, kernels->block_rows);
        job.block_rows = round_up(divide_up(job.rows, blocks), kernels->tile_rows);
        job.row_blocks = divide_up(job.rows, job.block_rows);
        int64_t groups = divide_up(job.rows, GROUP_TILES * kernels->tile_rows);
        job.k_first = 0;
        do {
            job.k_end = minimum(p->K, job.k_first + chunk_k);
            ganq__parallel_for(groups > 1 ? ctx->pool : NULL, groups, pack_rows, &job);
            run_items(ctx, &job, multiply_item);
            job.k_first = job.k_end;
        } while (job.k_first < p->K);
    }
done:
    ganq__free(job.a);
    ganq__free(job.b);
    return status;
}

typedef struct mirror_job {
    int64_t K, tiles;
    float *h;
} mirror_job;

/* A row of tiles below the diagonal, each read row by row into a small array and written row by
 * row: going down a column of h itself would put all its lines into the same few sets of the cache
 * where K is a power of two. */
static void mirror_rows(void *user, int64_t item, int worker) {
    const mirror_job *job = user;
    int64_t K = job->K, first = (job->tiles - 1 - item) * MIRROR_TILE; /* the longest first */
    int64_t height = minimum(K - first, MIRROR_TILE);
    float tile[MIRROR_TILE][MIRROR_TILE];
    (void)worker;
    for (int64_t column = 0; column <= first; column += MIRROR_TILE) {
        int64_t width = minimum(K - column, MIRROR_TILE);
        for (int64_t j = 0; j < width; j++)
            memcpy(tile[j], job->h + (column + j) * K + first, (size_t)height * sizeof tile[j][0]);
        for (int64_t i = 0; i < height; i++) {
            int64_t end = minimum(width, first + i - column);
            float *to = job->h + (first + i) * K + column;
            for (int64_t j = 0; j < end; j++)
                to[j] = tile[j][i];
        }
    }
}

void ganq__dense_mirror(ganq_context *ctx, int64_t K, float *h) {
    mirror_job job = {K, divide_up(K, MIRROR_TILE), h};
    ganq__parallel_for(ctx->pool, job.tiles, mirror_rows, &job);
}
