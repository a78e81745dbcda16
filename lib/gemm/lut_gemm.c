/* lut_gemm.c - the border of the product: other element types are converted here, in pieces of
 * rows. */
#include "lut_gemm.h"

#include "alloc.h"
#include "dense_ops.h"
#include "dtype.h"
#include "lut_ops.h"

/* Rows that are converted at a time: enough for the large-M kernels to run at their best, and it
 * bounds the workspace. */
enum { ROWS = 256 };

ganq_status ganq__lut_gemm(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                           int64_t ldx, float *y, int64_t ldy) {
    if (!ctx->lut || !ctx->lut->gemm)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s has no product with quantized layers",
                  ctx->device_name);
    GANQ_TRY(ganq__layer_prepare(layer));
    return ctx->lut->gemm(ctx, layer, M, x, ldx, y, ldy);
}

/* Bytes [0, size) of a matrix's rows and the distance between rows. */
typedef struct extent {
    uintptr_t begin, end;
    uint64_t row_bytes, stride_bytes;
} extent;

static extent extent_of(const ganq_matrix *m) {
    const uint64_t element = ganq__dtype_size(m->dtype);
    const uint64_t row = (uint64_t)m->cols * element, stride = (uint64_t)m->row_stride * element;
    const uintptr_t begin = (uintptr_t)m->data;
    return (extent){begin, begin + (uint64_t)(m->rows - 1) * stride + row, row, stride};
}

/* Column ranges of one buffer share no byte although the extents meet: equal strides, and side by
 * side in a row. */
static int side_by_side(const extent *low, const extent *high) {
    const uint64_t stride = low->stride_bytes,
                   offset = (high->begin - low->begin) % (stride ? stride : 1);
    return high->stride_bytes == stride && offset >= low->row_bytes &&
           offset + high->row_bytes <= stride;
}

static int overlap(const ganq_matrix *x, const ganq_matrix *y) {
    const extent a = extent_of(x), b = extent_of(y);
    if (a.end <= b.begin || b.end <= a.begin)
        return 0;
    return a.begin <= b.begin ? !side_by_side(&a, &b) : !side_by_side(&b, &a);
}

typedef struct convert_job {
    const ganq__dense_ops *dense;
    const ganq_matrix *from;
    ganq_matrix *to;
    int64_t first, stride; /* first row of the piece; floats from row to row of the workspace */
    float *floats;
} convert_job;

static void row_in(void *user, int64_t i, int worker) {
    const convert_job *job = user;
    (void)worker;
    job->dense->to_f32(job->floats + i * job->stride, ganq__matrix_row(job->from, job->first + i),
                       job->from->dtype, job->from->cols);
}

static void row_out(void *user, int64_t i, int worker) {
    const convert_job *job = user;
    (void)worker;
    job->dense->from_f32(ganq__matrix_row_mut(job->to, job->first + i),
                         job->floats + i * job->stride, job->to->dtype, job->to->cols);
}

/* f32 at an address that f32 may have: no need for a copy. */
static int is_plain(const ganq_matrix *m) {
    return m->dtype == GANQ_DTYPE_F32 && (uintptr_t)m->data % sizeof(float) == 0;
}

/* Rows [first, first + count), through the workspaces where there are any. */
static ganq_status multiply_rows(ganq_context *ctx, const ganq_layer *layer, const ganq_matrix *x,
                                 ganq_matrix *y, int64_t first, int64_t count, float *x32,
                                 float *y32) {
    const float *in = x32 ? x32 : (const float *)ganq__matrix_row(x, first);
    float *out = y32 ? y32 : (float *)ganq__matrix_row_mut(y, first);
    convert_job job = {ctx->host_dense, x, y, first, layer->K, x32};
    if (x32)
        ganq__parallel_for(ctx->pool, count, row_in, &job);
    GANQ_TRY(ganq__lut_gemm(ctx, layer, count, in, x32 ? layer->K : x->row_stride, out,
                            y32 ? layer->N : y->row_stride));
    job.stride = layer->N;
    job.floats = y32;
    if (y32)
        ganq__parallel_for(ctx->pool, count, row_out, &job);
    return GANQ_OK;
}

ganq_status ganq__lut_gemm_matrix(ganq_context *ctx, const ganq_layer *layer, const ganq_matrix *x,
                                  ganq_matrix *y) {
    const int64_t M = x->rows;
    const size_t rows = (size_t)(M < ROWS ? M : ROWS);
    float *x32 = NULL, *y32 = NULL;
    ganq_status status = GANQ_OK;
    if (overlap(x, y))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "x and y overlap in memory");
    if (is_plain(x) && is_plain(y))
        return ganq__lut_gemm(ctx, layer, M, x->data, x->row_stride, y->data, y->row_stride);
    if (!is_plain(x))
        GANQ_ALLOC_GOTO(free_workspace, x32, rows * (size_t)layer->K);
    if (!is_plain(y))
        GANQ_ALLOC_GOTO(free_workspace, y32, rows * (size_t)layer->N);
    for (int64_t first = 0; first < M; first += ROWS)
        GANQ_TRY_GOTO(free_workspace, multiply_rows(ctx, layer, x, y, first,
                                                    M - first < ROWS ? M - first : ROWS, x32, y32));
free_workspace:
    ganq__free(x32);
    ganq__free(y32);
    return status;
}
