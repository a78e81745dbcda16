/* dense_ref.c - dense products in plain C: what the other files of this family are checked against,
 * and what runs on processors that none of them is for.
 *
 * Each output element is one sum over k, in order, started at zero; only then do alpha, beta, bias
 * or the old H come in. */
#include "cpu.h"
#include "dense_blocked.h"
#include "dense_ops.h"
#include "dtype.h"

/* Columns of the output that are summed side by side. */
enum { TILE = 64 };

static int64_t tile_width(int64_t n, int64_t N) {
    return N - n < TILE ? N - n : TILE;
}

typedef struct gemm_job {
    int64_t N, K, lda, ldb, ldc;
    float alpha, beta;
    const float *a, *b;
    int b_transposed;
    float *c;
} gemm_job;

static void gemm_row(void *user, int64_t m, int worker) {
    const gemm_job *job = user;
    const float *a = job->a + m * job->lda;
    float *c = job->c + m * job->ldc;
    (void)worker;
    for (int64_t n = 0; n < job->N; n += TILE) {
        int64_t width = tile_width(n, job->N);
        float sum[TILE] = {0};
        if (job->b_transposed)
            for (int64_t j = 0; j < width; j++)
                for (int64_t k = 0; k < job->K; k++)
                    sum[j] += a[k] * job->b[(n + j) * job->ldb + k];
        else
            for (int64_t k = 0; k < job->K; k++)
                for (int64_t j = 0; j < width; j++)
                    sum[j] += a[k] * job->b[k * job->ldb + n + j];
        for (int64_t j = 0; j < width; j++)
            c[n + j] =
                job->beta == 0 ? job->alpha * sum[j] : job->beta * c[n + j] + job->alpha * sum[j];
    }
}

static ganq_status gemm(ganq_context *ctx, int64_t M, int64_t N, int64_t K, float alpha,
                        const float *a, int64_t lda, const float *b, int64_t ldb, int b_transposed,
                        float beta, float *c, int64_t ldc) {
    gemm_job job = {N, K, lda, ldb, ldc, alpha, beta, a, b, b_transposed, c};
    ganq__parallel_for(ctx->pool, M, gemm_row, &job);
    return GANQ_OK;
}

typedef struct linear_job {
    int64_t M, N, K, ldx, ldy;
    const float *x;
    const char *w;
    int32_t wdtype;
    const float *bias;
    float *y;
} linear_job;

/* Output feature n for all tokens, so that each row of W is read once. */
static void linear_column(void *user, int64_t n, int worker) {
    const linear_job *job = user;
    size_t size = ganq__dtype_size(job->wdtype);
    const char *row = job->w + (size_t)(n * job->K) * size;
    (void)worker;
    for (int64_t m = 0; m < job->M; m += TILE) {
        int64_t width = tile_width(m, job->M);
        float sum[TILE] = {0};
        for (int64_t k0 = 0; k0 < job->K; k0 += TILE) {
            int64_t length = tile_width(k0, job->K);
            float w[TILE];
            ganq__to_f32(w, row + (size_t)k0 * size, job->wdtype, length);
            for (int64_t j = 0; j < width; j++)
                for (int64_t k = 0; k < length; k++)
                    sum[j] += job->x[(m + j) * job->ldx + k0 + k] * w[k];
        }
        for (int64_t j = 0; j < width; j++)
            job->y[(m + j) * job->ldy + n] = sum[j] + (job->bias ? job->bias[n] : 0);
    }
}

static ganq_status linear(ganq_context *ctx, int64_t M, int64_t N, int64_t K, const float *x,
                          int64_t ldx, const void *w, int32_t wdtype, const float *bias, float *y,
                          int64_t ldy) {
    linear_job job = {M, N, K, ldx, ldy, x, w, wdtype, bias, y};
    ganq__parallel_for(ctx->pool, N, linear_column, &job);
    return GANQ_OK;
}

typedef struct syrk_job {
    int64_t M, K, ldx;
    const float *x;
    float *h;
} syrk_job;

/* Row i of the upper triangle, and column i of the lower one: nobody else writes either. Blocks of
 * tokens are summed by themselves, which keeps the error of long calibrations small. */
static void syrk_row(void *user, int64_t i, int worker) {
    const syrk_job *job = user;
    float *h = job->h + i * job->K;
    (void)worker;
    for (int64_t k = i; k < job->K; k += TILE) {
        int64_t width = tile_width(k, job->K);
        for (int64_t m0 = 0; m0 < job->M; m0 += GANQ__DENSE_BLOCK_K) {
            int64_t end = m0 + GANQ__DENSE_BLOCK_K < job->M ? m0 + GANQ__DENSE_BLOCK_K : job->M;
            float sum[TILE] = {0};
            for (int64_t m = m0; m < end; m++)
                for (int64_t j = 0; j < width; j++)
                    sum[j] += job->x[m * job->ldx + i] * job->x[m * job->ldx + k + j];
            for (int64_t j = 0; j < width; j++)
                h[k + j] += sum[j];
        }
        for (int64_t j = 0; j < width; j++)
            job->h[(k + j) * job->K + i] = h[k + j];
    }
}

static ganq_status syrk(ganq_context *ctx, int64_t M, int64_t K, const float *x, int64_t ldx,
                        float *h) {
    syrk_job job = {M, K, ldx, x, h};
    ganq__parallel_for(ctx->pool, K, syrk_row, &job);
    return GANQ_OK;
}

const ganq__dense_ops ganq__dense_ops_ref = {.gemm = gemm,
                                             .linear = linear,
                                             .syrk = syrk,
                                             .to_f32 = ganq__to_f32,
                                             .from_f32 = ganq__from_f32};
