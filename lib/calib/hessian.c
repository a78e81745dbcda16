/* hessian.c - summing H = X^T X; a caller's own H. */
#include "hessian.h"

#include <float.h>
#include <math.h>

#include "alloc.h"
#include "dense_ops.h"
#include "dtype.h"
#include "half.h"
#include "memory.h"

/* Sums stay below: far enough from infinity for the rounding of f32 sums. No element of X^T X is larger than the largest
 * on its diagonal, and neither is a part of its sum. */
static const double largest_sum = FLT_MAX / 2;

enum {
    CONVERT_ROWS = 2048
}; /* a multiple of the blocks of tokens in which the kernels sum: same bits as f32 */

ganq_status ganq__hessian_create(int64_t K, ganq_hessian **out) {
    if (K < 1)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "a Hessian of dimension %lld: at least 1 is needed",
                  (long long)K);
    int64_t count;
    if (__builtin_mul_overflow(K, K, &count))
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "a Hessian of dimension %lld does not fit into memory",
                  (long long)K);
    ganq_hessian *hessian = ganq__calloc(1, sizeof *hessian);
    if (!hessian)
        return GANQ_ERR_NO_MEMORY;
    hessian->K = K;
    hessian->values = ganq__calloc((size_t)count, sizeof *hessian->values);
    if (!hessian->values) {
        ganq__free(hessian);
        return GANQ_ERR_NO_MEMORY;
    }
    *out = hessian;
    return GANQ_OK;
}

void ganq__hessian_free(ganq_hessian *hessian) {
    if (!hessian)
        return;
    ganq__free(hessian->values);
    ganq__free(hessian);
}

/* Raises *largest to the row's largest magnitude. As integers magnitudes have the same order, NaN and infinity on top. */
static ganq_status check_row(const float *values, int64_t row, int64_t cols, const char *what, float *largest) {
    int32_t most = (int32_t)ganq__f32_to_bits(*largest);
    for (int64_t k = 0; k < cols; k++) {
        const int32_t magnitude = (int32_t)(ganq__f32_to_bits(values[k]) & 0x7fffffffu);
        most = magnitude > most ? magnitude : most;
    }
    if (most >= 0x7f800000) {
        const int64_t column = ganq__find_nonfinite(values, cols);
        GANQ_FAIL(GANQ_ERR_NUMERIC, "%s: row %lld, column %lld is %s", what, (long long)row,
                  (long long)column, isnan(values[column]) ? "NaN" : "infinite");
    }
    *largest = ganq__bits_to_f32((uint32_t)most);
    return GANQ_OK;
}

/* The diagonal that H + x^T x will have, in float64. */
static ganq_status check_sums(const ganq_hessian *hessian, const ganq_matrix *x, const char *what) {
    const int64_t K = hessian->K;
    ganq_status status = GANQ_OK;
    float *row = NULL;
    double *sums = NULL;
    GANQ_ALLOC_GOTO(done, row, (size_t)K);
    GANQ_ALLOC_GOTO(done, sums, (size_t)K);
    for (int64_t k = 0; k < K; k++)
        sums[k] = hessian->values[k * K + k];
    for (int64_t r = 0; r < x->rows; r++) {
        ganq__to_f32(row, ganq__matrix_row(x, r), x->dtype, K);
        for (int64_t k = 0; k < K; k++)
            sums[k] += (double)row[k] * row[k];
    }
    for (int64_t k = 0; k < K; k++)
        if (sums[k] > largest_sum)
            GANQ_FAIL_GOTO(done, GANQ_ERR_NUMERIC, "%s: column %lld: the squares add up to %g, more than f32 can hold",
                           what, (long long)k, sums[k]);
done:
    ganq__free(row);
    ganq__free(sums);
    return status;
}

/* Whether H + x^T x, for an x with that largest magnitude, stays within f32. */
static ganq_status check_range(const ganq_hessian *hessian, const ganq_matrix *x, float largest, const char *what) {
    float diagonal = 0;
    for (int64_t k = 0; k < hessian->K; k++)
        diagonal = fmaxf(diagonal, hessian->values[k * hessian->K + k]);
    if (diagonal + (double)x->rows * largest * largest <= largest_sum) /* as good as always */
        return GANQ_OK;
    return check_sums(hessian, x, what);
}

static ganq_status check_device(const ganq_context *ctx) {
    if (!ctx->dense || !ctx->dense->syrk || !ctx->host_dense)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "Hessians cannot be summed on %s", ctx->device_name);
    return GANQ_OK;
}

/* H += X^T X, both in memory of the process, wherever it is computed. */
static ganq_status add_rows(ganq_context *ctx, int64_t M, int64_t K, const float *x, int64_t ldx,
                            float *h) {
    const size_t row = (size_t)K * sizeof *x, bytes = (size_t)K * row;
    void *rows = NULL, *sums = NULL;
    ganq_status status = GANQ_OK;
    if (ganq__memory_is_host(ctx))
        return ctx->dense->syrk(ctx, M, K, x, ldx, h);
    GANQ_TRY_GOTO(done, ctx->memory->allocate(ctx, (size_t)M * row, &rows));
    GANQ_TRY_GOTO(done, ganq__memory_copy_of(ctx, h, bytes, &sums));
    for (int64_t m = 0; m < M; m++) { /* one copy where the rows are contiguous */
        const int64_t count = ldx == K ? M : 1;
        GANQ_TRY_GOTO(done, ctx->memory->upload(ctx, (char *)rows + (size_t)m * row, x + m * ldx,
                                                (size_t)count * row));
        m += count - 1;
    }
    GANQ_TRY_GOTO(done, ctx->dense->syrk(ctx, M, K, rows, K, sums));
    GANQ_TRY_GOTO(done, ctx->memory->download(ctx, h, sums, bytes));
done:
    ganq__memory_release(ctx, rows);
    ganq__memory_release(ctx, sums);
    return status;
}

ganq_status ganq__hessian_add(ganq_context *ctx, ganq_hessian *hessian, int64_t M, const float *x,
                              int64_t ldx, const char *what) {
    const ganq_matrix rows = {
        .dtype = GANQ_DTYPE_F32, .rows = M, .cols = hessian->K, .row_stride = ldx, .data = (void *)(uintptr_t)x};
    float largest = 0;
    GANQ_TRY(check_device(ctx));
    for (int64_t r = 0; r < M; r++)
        GANQ_TRY(check_row(x + r * ldx, r, hessian->K, what, &largest));
    GANQ_TRY(check_range(hessian, &rows, largest, what));
    GANQ_TRY(add_rows(ctx, M, hessian->K, x, ldx, hessian->values));
    hessian->tokens += M;
    return GANQ_OK;
}

ganq_status ganq__hessian_add_matrix(ganq_context *ctx, ganq_hessian *hessian, const ganq_matrix *x,
                                     const char *what) {
    int64_t K = hessian->K, block = x->rows < CONVERT_ROWS ? x->rows : CONVERT_ROWS;
    if (x->dtype == GANQ_DTYPE_F32)
        return ganq__hessian_add(ctx, hessian, x->rows, x->data, x->row_stride, what);
    ganq_status status = GANQ_OK;
    float *rows, largest = 0;
    GANQ_TRY(check_device(ctx));
    GANQ_ALLOC_GOTO(done, rows, (size_t)(block * K));
    for (int64_t r = 0; r < x->rows; r++) {
        ctx->host_dense->to_f32(rows, ganq__matrix_row(x, r), x->dtype, K);
        GANQ_TRY_GOTO(done, check_row(rows, r, K, what, &largest));
    }
    GANQ_TRY_GOTO(done, check_range(hessian, x, largest, what));
    for (int64_t first = 0; first < x->rows; first += block) {
        int64_t count = x->rows - first < block ? x->rows - first : block;
        for (int64_t r = 0; r < count; r++)
            ctx->host_dense->to_f32(rows + r * K, ganq__matrix_row(x, first + r), x->dtype, K);
        GANQ_TRY_GOTO(done, add_rows(ctx, count, K, rows, K, hessian->values));
        hessian->tokens += count;
    }
done:
    ganq__free(rows);
    return status;
}

ganq_status ganq__hessian_merge(ganq_hessian *into, const ganq_hessian *from) {
    if (into->K != from->K)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "a Hessian of dimension %lld cannot be merged into one of dimension %lld",
                  (long long)from->K, (long long)into->K);
    for (int64_t i = 0; i < into->K * into->K; i++) { /* an imported H may be largest beside its diagonal */
        const double sum = (double)into->values[i] + from->values[i];
        if (fabs(sum) > largest_sum)
            GANQ_FAIL(GANQ_ERR_NUMERIC, "H: row %lld, column %lld would be %g, more than f32 can hold",
                      (long long)(i / into->K), (long long)(i % into->K), sum);
    }
    for (int64_t i = 0; i < into->K * into->K; i++)
        into->values[i] += from->values[i];
    into->tokens += from->tokens;
    return GANQ_OK;
}

static double element(const ganq_matrix *H, int64_t i, int64_t j) {
    const void *row = ganq__matrix_row(H, i);
    return H->dtype == GANQ_DTYPE_F64 ? ((const double *)row)[j] : ((const float *)row)[j];
}

static ganq_status check_value(double value, int64_t i, int64_t j) {
    if (!isfinite((float)value))
        GANQ_FAIL(GANQ_ERR_NUMERIC, "H: row %lld, column %lld is %s", (long long)i, (long long)j,
                  isnan(value)   ? "NaN"
                  : isinf(value) ? "infinite"
                                 : "too large for f32");
    return GANQ_OK;
}

static ganq_status check_diagonal(const ganq_matrix *H) {
    for (int64_t i = 0; i < H->rows; i++) {
        double value = element(H, i, i);
        GANQ_TRY(check_value(value, i, i));
        if (value < 0)
            GANQ_FAIL(GANQ_ERR_NUMERIC, "H: diagonal element %lld is %g; none may be negative",
                      (long long)i, value);
    }
    return GANQ_OK;
}

/* Row i up to the diagonal, and column i. */
static ganq_status import_row(const ganq_matrix *H, int64_t i, ganq_hessian *hessian) {
    for (int64_t j = 0; j <= i; j++) {
        double lower = element(H, i, j), upper = element(H, j, i);
        GANQ_TRY(check_value(lower, i, j));
        GANQ_TRY(check_value(upper, j, i));
        if (fabs(lower - upper) > 1e-3 * sqrt(element(H, i, i) * element(H, j, j)))
            GANQ_FAIL(
                GANQ_ERR_INVALID_ARG,
                "H is not symmetric: row %lld, column %lld is %g, row %lld, column %lld is %g",
                (long long)i, (long long)j, lower, (long long)j, (long long)i, upper);
        hessian->values[i * hessian->K + j] = hessian->values[j * hessian->K + i] =
            (float)(0.5 * (lower + upper));
    }
    return GANQ_OK;
}

ganq_status ganq__hessian_import(const ganq_matrix *H, int64_t tokens, ganq_hessian **out) {
    if (H->rows != H->cols)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "H: shape [%lld,%lld]; it must be square",
                  (long long)H->rows, (long long)H->cols);
    if (tokens < 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "H: %lld tokens", (long long)tokens);
    GANQ_TRY(check_diagonal(H));
    ganq_hessian *hessian;
    GANQ_TRY(ganq__hessian_create(H->rows, &hessian));
    for (int64_t i = 0; i < H->rows; i++) {
        ganq_status status = import_row(H, i, hessian);
        if (status != GANQ_OK) {
            ganq__hessian_free(hessian);
            return status;
        }
    }
    hessian->tokens = tokens;
    *out = hessian;
    return GANQ_OK;
}

void ganq__hessian_export(const ganq_hessian *hessian, ganq_matrix *H) {
    for (int64_t i = 0; i < hessian->K; i++) {
        const float *row = hessian->values + i * hessian->K;
        ganq__from_f32(ganq__matrix_row_mut(H, i), row, H->dtype, hessian->K);
    }
}
