/* compensate.c - cross moment, triangular solves, correction. */
#include "compensate.h"

#include <stdatomic.h>
#include <string.h>

#include "alloc.h"
#include "dense_ops.h"
#include "dtype.h"
#include "solver.h"

/* Right sides that are solved together: 16 doubles, two cache lines for each number of the factor.
 */
enum { TILE = 16, ALIGNED = 8, ROWS_PER_LOOK = 128 };

static const double damping = 0.01; /* of the mean diagonal */

ganq_status ganq__compensation_open(int64_t K, int64_t chunk, ganq__compensation *out) {
    ganq__compensation c = {.K = K, .chunk = chunk};
    c.cross = ganq__calloc((size_t)(K * K), sizeof *c.cross);
    c.transposed = ganq__malloc_aligned((size_t)(K * chunk), sizeof *c.transposed);
    if (!c.cross || !c.transposed) {
        ganq__compensation_close(&c);
        return GANQ_ERR_NO_MEMORY;
    }
    *out = c;
    return GANQ_OK;
}

void ganq__compensation_close(ganq__compensation *c) {
    ganq__free(c->cross);
    ganq__free(c->transposed);
    *c = (ganq__compensation){0};
}

int64_t ganq__compensation_bytes(int64_t K) {
    return K * K * (4 + 8);
}

/* Rows of a product, each of so many multiply-adds, between two looks at the progress callback:
 * about 0.1 s of one core. */
static int64_t piece_rows(int64_t row_work) {
    const int64_t rows = (int64_t)4e9 / row_work / TILE * TILE;
    return rows > TILE ? rows : TILE;
}

ganq_status ganq__compensation_add(ganq_context *ctx, ganq__compensation *c, int64_t M,
                                   const float *x, int64_t ldx, const float *z, int64_t ldz,
                                   const char *what, double progress) {
    for (int64_t m = 0; m < M; m++) {
        const int64_t bad = ganq__find_nonfinite(x + m * ldx, c->K);
        if (bad >= 0)
            GANQ_FAIL(GANQ_ERR_NUMERIC,
                      "%s in the dense model: row %lld, column %lld is not finite", what,
                      (long long)m, (long long)bad);
        for (int64_t k = 0; k < c->K; k++)
            c->transposed[k * M + m] = x[m * ldx + k] - z[m * ldz + k];
    }
    const int64_t K = c->K, piece = piece_rows(K * M);
    for (int64_t k = 0; k < K; k += piece) {
        GANQ_TRY(ctx->host_dense->gemm(ctx, K - k < piece ? K - k : piece, K, M, 1,
                                       c->transposed + k * M, M, z, ldz, 0, 1, c->cross + k * K,
                                       K));
        GANQ_TRY(ganq__progress_tick(ctx, progress));
    }
    return GANQ_OK;
}

/* ---- cross (H + damping)^-1 ---- */

typedef struct solve {
    int64_t K, ld;
    const double *lower; /* [K, ld] */
    double *scratch;     /* [threads][K][TILE] */
    float *cross;
    float strength;
    ganq_context *ctx;
    atomic_int status; /* a ganq_status: not GANQ_OK once canceled */
} solve;

/* Whether to go on; the calling thread, worker 0, asks the progress callback. */
static int goes_on(solve *s, int worker, int64_t row) {
    if (worker == 0 && row % ROWS_PER_LOOK == 0) {
        const ganq_status status = ganq__progress_tick(s->ctx, 1);
        if (status != GANQ_OK)
            atomic_store(&s->status, (int)status);
    }
    return atomic_load_explicit(&s->status, memory_order_relaxed) == GANQ_OK;
}

/* TILE rows of cross: t L^T = c, then t' L = t, for all of them at once. */
static void solve_tile(void *user, int64_t tile, int worker) {
    solve *s = user;
    const int64_t first = tile * TILE, count = s->K - first < TILE ? s->K - first : TILE;
    double *v = s->scratch + (size_t)worker * (size_t)s->K * TILE;
    for (int64_t k = 0; k < s->K; k++)
        for (int64_t r = 0; r < TILE; r++)
            v[k * TILE + r] = r < count ? s->cross[(first + r) * s->K + k] : 0;
    for (int64_t i = 0; i < s->K; i++) {
        if (!goes_on(s, worker, i))
            return;
        const double *row = s->lower + i * s->ld;
        double sum[TILE];
        memcpy(sum, v + i * TILE, sizeof sum);
        for (int64_t k = 0; k < i; k++)
            for (int r = 0; r < TILE; r++)
                sum[r] -= row[k] * v[k * TILE + r];
        for (int r = 0; r < TILE; r++)
            v[i * TILE + r] = sum[r] / row[i];
    }
    for (int64_t i = s->K - 1; i >= 0; i--) {
        if (!goes_on(s, worker, i))
            return;
        const double *row = s->lower + i * s->ld;
        double value[TILE];
        for (int r = 0; r < TILE; r++)
            v[i * TILE + r] = value[r] = v[i * TILE + r] / row[i];
        for (int64_t k = 0; k < i; k++)
            for (int r = 0; r < TILE; r++)
                v[k * TILE + r] -= row[k] * value[r];
    }
    for (int64_t r = 0; r < count; r++)
        for (int64_t k = 0; k < s->K; k++)
            s->cross[(first + r) * s->K + k] = s->strength * (float)v[k * TILE + r];
}

/* The lower factor of H + fraction * mean(diag H), in rows of ld. */
static ganq_status factor(ganq_context *ctx, const ganq_hessian *hessian, double fraction,
                          int64_t ld, double *lower, int *definite) {
    const int64_t K = hessian->K;
    double mean = 0;
    for (int64_t k = 0; k < K; k++)
        mean += (double)hessian->values[k * K + k] / (double)K;
    *definite = 0;
    if (!(mean > 0))
        return GANQ_OK;
    memset(lower, 0, (size_t)(ld * ld) * sizeof *lower);
    for (int64_t i = 0; i < K; i++) {
        for (int64_t k = 0; k <= i; k++)
            lower[i * ld + k] = hessian->values[i * K + k];
        lower[i * ld + i] += fraction * mean;
    }
    return ganq__cholesky(ctx, ctx->solver, K, lower, ld, 1, definite);
}

ganq_status ganq__compensation_solve(ganq_context *ctx, ganq__compensation *c,
                                     const ganq_hessian *hessian, float strength) {
    const int64_t ld = (c->K + ALIGNED - 1) / ALIGNED * ALIGNED;
    ganq_status status;
    double *lower = NULL;
    solve s = {.K = c->K, .ld = ld, .cross = c->cross, .strength = strength, .ctx = ctx};
    int definite = 0;
    GANQ_ALLOC_GOTO(free_all, lower, (size_t)(ld * ld));
    GANQ_ALLOC_GOTO(free_all, s.scratch, (size_t)(ganq__pool_threads(ctx->pool) * c->K * TILE));
    s.lower = lower;
    for (double fraction = damping; !definite && fraction <= 1; fraction *= 10)
        GANQ_TRY_GOTO(free_all, factor(ctx, hessian, fraction, ld, lower, &definite));
    if (definite)
        ganq__parallel_for(ctx->pool, (c->K + TILE - 1) / TILE, solve_tile, &s);
    else
        memset(c->cross, 0, (size_t)(c->K * c->K) * sizeof *c->cross);
    status = (ganq_status)atomic_load(&s.status);
free_all:
    ganq__free(lower);
    ganq__free(s.scratch);
    return status;
}

ganq_status ganq__compensation_apply(ganq_context *ctx, const ganq__compensation *c, int64_t N,
                                     const float *w, float *out) {
    memcpy(out, w, (size_t)(N * c->K) * sizeof *out);
    const int64_t K = c->K, piece = piece_rows(K * K);
    for (int64_t n = 0; n < N; n += piece) {
        GANQ_TRY(ctx->host_dense->gemm(ctx, N - n < piece ? N - n : piece, K, K, 1, w + n * K, K,
                                       c->cross, K, 0, 1, out + n * K, K));
        GANQ_TRY(ganq__progress_tick(ctx, 0));
    }
    return GANQ_OK;
}
