/* objective.c - the layer's error in float64, from W and W~ as they are. */
#include <math.h>
#include <string.h>

#include "internal.h"

enum { ROWS = 8 };

typedef struct objective {
    int64_t N, K;
    const float *w, *w_quantized, *h;
    double *sums;           /* [threads][2][ROWS][K]: e H and w H */
    double *errors, *norms; /* [N] */
} objective;

static void add_row(double *sum, double x, const float *h, int64_t K) {
    for (int64_t j = 0; j < K; j++)
        sum[j] += x * (double)h[j];
}

static void measure_rows(void *user, int64_t item, int worker) {
    const objective *o = user;
    const int64_t K = o->K, from = ROWS * item, to = from + ROWS < o->N ? from + ROWS : o->N;
    double *error_sums = o->sums + (int64_t)worker * 2 * ROWS * K,
           *norm_sums = error_sums + ROWS * K;
    if (o->h) {
        memset(error_sums, 0, (size_t)(2 * ROWS * K) * sizeof *error_sums);
        for (int64_t k = 0; k < K; k++)
            for (int64_t n = from; n < to; n++) {
                const double x = o->w[n * K + k];
                add_row(error_sums + (n - from) * K, x - (double)o->w_quantized[n * K + k],
                        o->h + k * K, K);
                add_row(norm_sums + (n - from) * K, x, o->h + k * K, K);
            }
    }
    for (int64_t n = from; n < to; n++) {
        double error = 0, norm = 0;
        for (int64_t k = 0; k < K; k++) {
            const double x = o->w[n * K + k], e = x - (double)o->w_quantized[n * K + k];
            error += e * (o->h ? error_sums[(n - from) * K + k] : e);
            norm += x * (o->h ? norm_sums[(n - from) * K + k] : x);
        }
        o->errors[n] = ganq__nonnegative(error);
        o->norms[n] = ganq__nonnegative(norm);
    }
}

ganq_status ganq__objective(ganq_context *ctx, int64_t N, int64_t K, const float *w,
                            const float *w_quantized, const float *h, double *error, double *norm) {
    ganq_status status = GANQ_OK;
    objective o = {N, K, w, w_quantized, h, NULL, NULL, NULL};
    const int64_t threads = ganq__pool_threads(ctx->pool);
    GANQ_ALLOC_GOTO(free_all, o.sums, h ? (size_t)(threads * 2 * ROWS * K) : 1);
    GANQ_ALLOC_GOTO(free_all, o.errors, (size_t)N);
    GANQ_ALLOC_GOTO(free_all, o.norms, (size_t)N);
    ganq__parallel_for(ctx->pool, (N + ROWS - 1) / ROWS, measure_rows, &o);
    *error = *norm = 0;
    for (int64_t n = 0; n < N; n++) { /* in this order whatever the threads did */
        *error += o.errors[n];
        *norm += o.norms[n];
    }
free_all:
    ganq__free(o.sums);
    ganq__free(o.errors);
    ganq__free(o.norms);
    return status;
}
