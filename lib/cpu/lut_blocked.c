/* lut_blocked.c - cutting a product with a quantized layer into items and spreading them over
 * threads; see lut_blocked.h. */
#include "lut_blocked.h"

enum {
    CHUNK = GANQ__LUT_CHUNK,
    PANEL = GANQ__LUT_PANEL,
    SMALL_ROWS = 16, /* rows of W per item, M small */
    TOKENS = 128,
    /* Multiply-adds below which waking other threads takes longer than the work. */
    SERIAL_WORK = 1 << 15
};

typedef struct lut_job {
    const ganq__lut_kernels *kernels;
    ganq__lut_product p;
    /* M large */
    int64_t panels;
    float *packed;    /* [K/256][panels][256][16], the last block shorter */
    float *sums;      /* [threads][item_tiles][panels][tile_rows][16] */
    int64_t sum_size; /* floats per thread */
} lut_job;

static int64_t minimum(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void item_small(void *user, int64_t item, int worker) {
    const lut_job *job = user;
    const int64_t first = item * SMALL_ROWS;
    (void)worker;
    job->kernels->small(&job->p, first, minimum(job->p.layer->N, first + SMALL_ROWS));
}

/* Where the panel's columns from k on (a multiple of CHUNK) are packed. */
static float *packed_panel(const lut_job *job, int64_t panel, int64_t k) {
    return job->packed + (k * job->panels + panel * minimum(job->p.layer->K - k, CHUNK)) * PANEL;
}

static void pack_panel(void *user, int64_t panel, int worker) {
    const lut_job *job = user;
    const int64_t K = job->p.layer->K;
    (void)worker;
    for (int64_t k = 0; k < K; k += CHUNK)
        job->kernels->pack(packed_panel(job, panel, k), minimum(K - k, CHUNK),
                           minimum(job->p.M - panel * PANEL, PANEL),
                           job->p.x + panel * PANEL * job->p.ldx + k, job->p.ldx);
}

/* The outliers of row n in [k0, k0 + kc) onto its decoded weights; *at is the first that is not yet
 * used. */
static void add_outliers(const ganq_layer *layer, int64_t n, int64_t k0, int64_t kc, float *w,
                         int32_t *at) {
    for (; *at < layer->outlier_rowptr[n + 1] && layer->outlier_cols[*at] < k0 + kc; ++*at)
        w[layer->outlier_cols[*at] - k0] += layer->outlier_vals[*at];
}

static void item_large(void *user, int64_t item, int worker) {
    const lut_job *job = user;
    const ganq_layer *layer = job->p.layer;
    const int64_t K = layer->K, tile_rows = job->kernels->tile_rows;
    const int64_t tile_sums = job->panels * tile_rows * PANEL;
    const int64_t first = item * job->kernels->item_tiles * tile_rows;
    const int64_t rows = minimum(layer->N - first, job->kernels->item_tiles * tile_rows);
    float *sums = job->sums + worker * job->sum_size;
    _Alignas(64) float w[GANQ__LUT_MAX_TILE_ROWS][CHUNK] = {
        {0}}; /* rows beyond N are multiplied, too, but not kept */
    int32_t outlier[GANQ__LUT_MAX_ITEM_ROWS];
    for (int64_t r = 0; r < rows && layer->outlier_rowptr; r++)
        outlier[r] = layer->outlier_rowptr[first + r];

    for (int64_t k0 = 0; k0 < K; k0 += CHUNK) {
        const int64_t kc = minimum(K - k0, CHUNK);
        for (int64_t r0 = 0; r0 < rows; r0 += tile_rows) {
            for (int64_t r = r0; r < minimum(rows, r0 + tile_rows); r++) {
                job->kernels->decode(layer, first + r, k0, kc, w[r - r0]);
                if (layer->outlier_rowptr)
                    add_outliers(layer, first + r, k0, kc, w[r - r0], &outlier[r]);
            }
            job->kernels->multiply(kc, w[0], job->panels, packed_panel(job, 0, k0),
                                   sums + r0 / tile_rows * tile_sums, k0 > 0);
        }
    }

    for (int64_t m = 0; m < job->p.M; m++) {
        float *y = job->p.y + m * job->p.ldy + first;
        const float *of_token = sums + m / PANEL * tile_rows * PANEL + m % PANEL;
        for (int64_t r = 0; r < rows; r++) {
            const float sum = of_token[r / tile_rows * tile_sums + r % tile_rows * PANEL];
            y[r] = layer->bias ? sum + layer->bias[first + r] : sum;
        }
    }
}

static ganq_status multiply_large(ganq_context *ctx, lut_job *job, ganq__pool *pool) {
    const ganq_layer *layer = job->p.layer;
    const int64_t M = job->p.M, item_rows = job->kernels->item_tiles * job->kernels->tile_rows;
    const int64_t panels = (minimum(M, TOKENS) + PANEL - 1) / PANEL;
    job->sum_size = item_rows * panels * PANEL;
    const int64_t sums = ganq__pool_threads(ctx->pool) * job->sum_size;
    GANQ_TRY(ganq__context_workspace(
        ctx, (size_t)(sums + panels * PANEL * layer->K) * sizeof *job->sums, (void **)&job->sums));
    job->packed = job->sums + sums;
    for (int64_t m = 0; m < M; m += TOKENS) {
        job->p.M = minimum(M - m, TOKENS);
        job->panels = (job->p.M + PANEL - 1) / PANEL;
        ganq__parallel_for(pool, job->panels, pack_panel, job);
        ganq__parallel_for(pool, (layer->N + item_rows - 1) / item_rows, item_large, job);
        job->p.x += TOKENS * job->p.ldx;
        job->p.y += TOKENS * job->p.ldy;
    }
    return GANQ_OK;
}

ganq_status ganq__lut_multiply(ganq_context *ctx, const ganq__lut_kernels *kernels,
                               ganq__lut_product product) {
    const int64_t N = product.layer->N;
    const double work = (double)product.M * (double)N * (double)product.layer->K;
    lut_job job = {.kernels = kernels, .p = product};
    ganq__pool *pool = work < SERIAL_WORK ? NULL : ctx->pool;
    if (product.M > kernels->small_m)
        return multiply_large(ctx, &job, pool);
    ganq__parallel_for(pool, (N + SMALL_ROWS - 1) / SMALL_ROWS, item_small, &job);
    return GANQ_OK;
}
