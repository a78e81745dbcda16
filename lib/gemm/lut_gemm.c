/* lut_gemm.c - the border of the product: first use of layers; other element types are converted
 * here, and matrices carried to devices and back, in pieces of rows. */
#include "lut_gemm.h"

#include "alloc.h"
#include "dense_ops.h"
#include "dtype.h"
#include "memory.h"

/* Rows that are converted at a time: enough for the large-M kernels to run at their best, and it
 * bounds the workspace. */
enum { ROWS = 256 };

ganq_status ganq__layer_ready(ganq_context *ctx, const ganq_layer *layer) {
    ganq_layer *shared = (ganq_layer *)layer;
    void *placed;
    if (!ctx->lut || !ctx->lut->place)
        return ganq__layer_prepare(layer);
    if (ganq__attachment_find(&layer->attachments, ctx))
        return GANQ_OK;
    GANQ_TRY(ganq__layer_check(layer));
    GANQ_TRY(ctx->lut->place(ctx, layer, &placed));
    const ganq_status status = ganq__attach(&shared->attachments, ctx, placed, ctx->lut->unplace);
    if (status != GANQ_OK)
        ctx->lut->unplace(ctx, placed);
    return status;
}

void ganq__layer_unplace(ganq_context *ctx, const ganq_layer *layer) {
    ganq__detach(&((ganq_layer *)layer)->attachments, ctx);
}

ganq_status ganq__lut_gemm(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                           int64_t ldx, float *y, int64_t ldy) {
    if (!ctx->lut || !ctx->lut->gemm)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s has no product with quantized layers",
                  ctx->device_name);
    GANQ_TRY(ganq__layer_ready(ctx, layer));
    return ctx->lut->gemm(ctx, layer, M, x, ldx, y, ldy);
}

ganq_status ganq__lut_gemm_many(ganq_context *ctx, int count, const ganq_layer *const *layers,
                                int64_t M, const float *x, int64_t ldx, float *const *ys,
                                const int64_t *ldys) {
    if (!ctx->lut || !ctx->lut->gemm_many) {
        for (int i = 0; i < count; i++)
            GANQ_TRY(ganq__lut_gemm(ctx, layers[i], M, x, ldx, ys[i], ldys[i]));
        return GANQ_OK;
    }
    for (int i = 0; i < count; i++)
        GANQ_TRY(ganq__layer_ready(ctx, layers[i]));
    return ctx->lut->gemm_many(ctx, count, layers, M, x, ldx, ys, ldys);
}

ganq_status ganq__lut_gemm_input(ganq_context *ctx, int count, const ganq_layer *const *layers,
                                 int64_t M, const ganq__lut_input *input, float *const *ys,
                                 const int64_t *ldys, int *taken) {
    *taken = 0;
    if (!ctx->lut || !ctx->lut->gemm_input)
        return GANQ_OK;
    for (int i = 0; i < count; i++)
        GANQ_TRY(ganq__layer_ready(ctx, layers[i]));
    return ctx->lut->gemm_input(ctx, count, layers, M, input, ys, ldys, taken);
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

/* What a matrix goes through, NULL where it does not have to: floats in memory of the process, and
 * the same in a device's. */
typedef struct workspace {
    float *x32, *y32, *x_device, *y_device;
} workspace;

/* Rows [first, first + count), through the workspaces where there are any. */
static ganq_status multiply_rows(ganq_context *ctx, const ganq_layer *layer, const ganq_matrix *x,
                                 ganq_matrix *y, int64_t first, int64_t count, const workspace *w) {
    const float *in = w->x32 ? w->x32 : (const float *)ganq__matrix_row(x, first);
    float *out = w->y32 ? w->y32 : (float *)ganq__matrix_row_mut(y, first);
    convert_job job = {ctx->host_dense, x, y, first, layer->K, w->x32};
    if (w->x32)
        ganq__parallel_for(ctx->pool, count, row_in, &job);
    if (w->x_device) {
        const size_t x_bytes = (size_t)(count * layer->K) * sizeof(float);
        const size_t y_bytes = (size_t)(count * layer->N) * sizeof(float);
        GANQ_TRY(ctx->memory->upload(ctx, w->x_device, in, x_bytes));
        GANQ_TRY(ganq__lut_gemm(ctx, layer, count, w->x_device, layer->K, w->y_device, layer->N));
        GANQ_TRY(ctx->memory->download(ctx, out, w->y_device, y_bytes));
    } else {
        GANQ_TRY(ganq__lut_gemm(ctx, layer, count, in, w->x32 ? layer->K : x->row_stride, out,
                                w->y32 ? layer->N : y->row_stride));
    }
    job.stride = layer->N;
    job.floats = w->y32;
    if (w->y32)
        ganq__parallel_for(ctx->pool, count, row_out, &job);
    return GANQ_OK;
}

ganq_status ganq__lut_gemm_matrix(ganq_context *ctx, const ganq_layer *layer, const ganq_matrix *x,
                                  ganq_matrix *y) {
    const int64_t M = x->rows, rows = M < ROWS ? M : ROWS;
    const int is_host = ganq__memory_is_host(ctx);
    workspace w = {0};
    ganq_status status = GANQ_OK;
    if (overlap(x, y))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "x and y overlap in memory");
    if (is_host && is_plain(x) && is_plain(y))
        return ganq__lut_gemm(ctx, layer, M, x->data, x->row_stride, y->data, y->row_stride);
    if (!is_plain(x) || (!is_host && x->row_stride != layer->K))
        GANQ_ALLOC_GOTO(free_workspace, w.x32, (size_t)(rows * layer->K));
    if (!is_plain(y) || (!is_host && y->row_stride != layer->N))
        GANQ_ALLOC_GOTO(free_workspace, w.y32, (size_t)(rows * layer->N));
    if (!is_host) {
        GANQ_TRY_GOTO(free_workspace, ganq__memory_floats(ctx, rows, layer->K, &w.x_device));
        GANQ_TRY_GOTO(free_workspace, ganq__memory_floats(ctx, rows, layer->N, &w.y_device));
    }
    for (int64_t first = 0; first < M; first += ROWS)
        GANQ_TRY_GOTO(free_workspace, multiply_rows(ctx, layer, x, y, first,
                                                    M - first < ROWS ? M - first : ROWS, &w));
free_workspace:
    ganq__memory_release(ctx, w.x_device);
    ganq__memory_release(ctx, w.y_device);
    ganq__free(w.x32);
    ganq__free(w.y32);
    return status;
}
