/* layer_matrix.c - conversion between the caller's matrices and a layer, row by row. */
#include "layer_matrix.h"

#include <string.h>

#include "alloc.h"
#include "dense_ops.h"
#include "dtype.h"
#include "half.h"
#include "solver.h"

typedef struct row_job {
    ganq_context *ctx;
    const ganq_layer *layer;
    const ganq_matrix *from;
    ganq_matrix *to;
    int64_t first;
    float *floats;
} row_job;

static void row_to_floats(void *user, int64_t i, int worker) {
    const row_job *job = user;
    const ganq_matrix *m = job->from;
    (void)worker;
    job->ctx->host_dense->to_f32(job->floats + i * m->cols, ganq__matrix_row(m, job->first + i),
                            m->dtype, m->cols);
}

/* Rows [first, first + count) as f32, contiguous. */
static void to_floats(ganq_context *ctx, const ganq_matrix *m, int64_t first, int64_t count,
                      float *out) {
    row_job job = {.ctx = ctx, .from = m, .first = first, .floats = out};
    ganq__parallel_for(ctx->pool, count, row_to_floats, &job);
}

/* The whole matrix as new f32; a NULL matrix gives NULL. */
static ganq_status new_floats(ganq_context *ctx, const ganq_matrix *m, float **out) {
    *out = NULL;
    if (!m)
        return GANQ_OK;
    float *floats = ganq__malloc_aligned((size_t)m->rows, (size_t)m->cols * sizeof *floats);
    if (!floats)
        return GANQ_ERR_NO_MEMORY;
    to_floats(ctx, m, 0, m->rows, floats);
    *out = floats;
    return GANQ_OK;
}

ganq_status ganq__layer_quantize_matrix(ganq_context *ctx, const ganq_matrix *weight,
                                        const ganq_hessian *hessian, const ganq_matrix *bias,
                                        const ganq_quantize_options *options, ganq_layer **out) {
    /* f32 rows that lie one after the other are used where they are: W is a quarter of the memory. */
    const int in_place = weight->dtype == GANQ_DTYPE_F32 && weight->row_stride == weight->cols;
    float *w = NULL, *b = NULL;
    ganq_layer *layer = NULL;
    ganq_status status;
    ganq__progress_enter(ctx, GANQ_STAGE_QUANTIZE);
    GANQ_TRY_GOTO(leave, ganq__progress_at(ctx, GANQ_STAGE_QUANTIZE, "layer", 0, 1, 0, 1));
    GANQ_TRY_GOTO(leave, new_floats(ctx, in_place ? NULL : weight, &w));
    GANQ_TRY_GOTO(leave, new_floats(ctx, bias, &b));
    GANQ_TRY_GOTO(leave,
                  ganq__layer_quantize(ctx, weight->rows, weight->cols,
                                       in_place ? weight->data : w, hessian, b, bias ? bias->dtype : GANQ_DTYPE_F32, options, &layer));
    const ganq_layer_report *report = &layer->report;
    status = ganq__progress_layer_done(ctx, 1, report->norm > 0 ? report->error / report->norm : 0);
    if (status == GANQ_OK)
        *out = layer;
    else
        ganq__layer_release(layer);
leave:
    ganq__progress_leave(ctx);
    ganq__free(w);
    ganq__free(b);
    return status;
}

ganq_status ganq__layer_import_matrix(ganq_context *ctx, int bits, const ganq_matrix *codes,
                                      const ganq_matrix *lut, const ganq_matrix *bias,
                                      const int32_t *rowptr, const int32_t *cols, const float *vals,
                                      ganq_layer **out) {
    const int64_t N = codes->rows, K = codes->cols;
    float *tables = NULL, *b = NULL;
    uint8_t *copy = NULL;
    const uint8_t *contiguous = codes->data;
    int32_t lut_dtype = GANQ_DTYPE_F16;
    ganq_status status;
    GANQ_TRY_GOTO(free_copies, new_floats(ctx, lut, &tables));
    GANQ_TRY_GOTO(free_copies, new_floats(ctx, bias, &b));
    for (int64_t i = 0; i < lut->rows * lut->cols; i++)
        if (ganq__f16_to_f32(ganq__f32_to_f16(tables[i])) != tables[i])
            lut_dtype = GANQ_DTYPE_F32;
    if (codes->row_stride != K) {
        copy = ganq__malloc((size_t)N, (size_t)K);
        if (!copy) {
            status = GANQ_ERR_NO_MEMORY;
            goto free_copies;
        }
        for (int64_t n = 0; n < N; n++)
            memcpy(copy + n * K, ganq__matrix_row(codes, n), (size_t)K);
        contiguous = copy;
    }
    status = ganq__layer_create(bits, N, K, contiguous, tables, lut_dtype, rowptr, cols, vals, b,
                                bias ? bias->dtype : GANQ_DTYPE_F32, out);
free_copies:
    ganq__free(tables);
    ganq__free(b);
    ganq__free(copy);
    return status;
}

static void row_dequantize(void *user, int64_t n, int worker) {
    const row_job *job = user;
    const int64_t K = job->layer->K;
    float *w = job->floats + worker * K;
    ganq__layer_dequantize_rows(job->layer, n, 1, w, K);
    job->ctx->host_dense->from_f32(ganq__matrix_row_mut(job->to, n), w, job->to->dtype, K);
}

ganq_status ganq__layer_dequantize_matrix(ganq_context *ctx, const ganq_layer *layer,
                                          ganq_matrix *out) {
    row_job job = {.ctx = ctx, .layer = layer, .to = out};
    GANQ_TRY(ganq__layer_prepare(layer));
    job.floats = ganq__malloc_aligned((size_t)ganq__pool_threads(ctx->pool) * (size_t)layer->K,
                                      sizeof(float));
    if (!job.floats)
        return GANQ_ERR_NO_MEMORY;
    ganq__parallel_for(ctx->pool, layer->N, row_dequantize, &job);
    ganq__free(job.floats);
    return GANQ_OK;
}

ganq_status ganq__layer_export_matrix(const ganq_layer *layer, ganq_matrix *codes,
                                      ganq_matrix *lut) {
    GANQ_TRY(ganq__layer_prepare(layer));
    for (int64_t n = 0; codes && n < layer->N; n++)
        ganq__layer_codes_row(layer, n, ganq__matrix_row_mut(codes, n));
    for (int64_t n = 0; lut && n < layer->N; n++)
        ganq__layer_table(layer, n, ganq__matrix_row_mut(lut, n));
    return GANQ_OK;
}

ganq_status ganq__layer_objective_matrix(ganq_context *ctx, const ganq_layer *layer,
                                         const ganq_matrix *weight, const ganq_hessian *hessian,
                                         double *error, double *norm) {
    enum { ROWS = 256 };
    const int64_t N = layer->N, K = layer->K, piece = N < ROWS ? N : ROWS;
    double error_sum = 0, norm_sum = 0;
    ganq_status status;
    if (hessian && hessian->K != K)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "the Hessian is %lld x %lld, expected %lld x %lld, the layer's columns",
                  (long long)hessian->K, (long long)hessian->K, (long long)K, (long long)K);
    GANQ_TRY(ganq__layer_prepare(layer));
    float *w = ganq__malloc_aligned((size_t)(2 * piece), (size_t)K * sizeof *w);
    if (!w)
        return GANQ_ERR_NO_MEMORY;
    float *quantized = w + piece * K;
    for (int64_t n = 0; n < N; n += ROWS) {
        const int64_t rows = N - n < ROWS ? N - n : ROWS;
        double e, s;
        to_floats(ctx, weight, n, rows, w);
        const int64_t bad = ganq__find_nonfinite(w, rows * K);
        if (bad >= 0)
            GANQ_FAIL_GOTO(free_rows, GANQ_ERR_NUMERIC, "weight at row %lld, column %lld is %g",
                           (long long)(n + bad / K), (long long)(bad % K), (double)w[bad]);
        ganq__layer_dequantize_rows(layer, n, rows, quantized, K);
        GANQ_TRY_GOTO(free_rows, ganq__objective(ctx, rows, K, w, quantized,
                                                 hessian ? hessian->values : NULL, &e, &s));
        error_sum += e;
        norm_sum += s;
    }
    if (error)
        *error = error_sum;
    if (norm)
        *norm = norm_sum;
    status = GANQ_OK;
free_rows:
    ganq__free(w);
    return status;
}
