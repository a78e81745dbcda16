/* lut_engine.c - the product in its engine form: the caller's addresses, workspace and stream. */
#include "lut_engine.h"

#include "attachment.h"
#include "dtype.h"
#include "layer.h"

enum { ALIGN = 256 };

static ganq_status check_rows(const void *data, int32_t dtype, int64_t cols, int64_t *stride,
                              const char *what) {
    if (!(dtype >= 0 && dtype < 32 && GANQ__DTYPES_FLOAT >> dtype & 1))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s has element type %d, expected F32, F16 or BF16", what,
                  (int)dtype);
    if ((uintptr_t)data % ganq__dtype_size(dtype))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s lies at %p, which is no address of %s", what, data,
                  ganq__dtype_name(dtype));
    if (!*stride)
        *stride = cols;
    if (*stride < cols)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s has rows %lld elements apart, expected %lld or more",
                  what, (long long)*stride, (long long)cols);
    return GANQ_OK;
}

/* Everything but y, workspace and stream. */
static ganq_status read_call(ganq_context *ctx, const ganq_device_product *p,
                             ganq__lut_call *call) {
    *call = (ganq__lut_call){.count = p->count,
                             .M = p->rows,
                             .x = p->x,
                             .ldx = p->x_stride,
                             .x_dtype = p->x_dtype,
                             .y_dtype = p->y_dtype};
    if (p->count < 1 || p->count > GANQ__LUT_PARTS)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "a product of %d layers, expected 1 to %d", (int)p->count,
                  GANQ__LUT_PARTS);
    if (p->rows < 1)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "a product with %lld rows of x, expected 1 or more",
                  (long long)p->rows);
    for (int i = 0; i < p->count; i++) {
        if (!p->layers[i])
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, "layers[%d] is NULL", i);
        call->layers[i] = ganq__attachment_find(&p->layers[i]->attachments, ctx);
        if (!call->layers[i])
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "layers[%d] is not in the memory of %s: ganq_layer_place puts it there", i,
                      ctx->device_name);
        if (call->layers[i]->K != call->layers[0]->K)
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "layers[%d] has %lld columns, expected %lld as layers[0] has", i,
                      (long long)call->layers[i]->K, (long long)call->layers[0]->K);
    }
    if (!p->x)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "x is NULL");
    return check_rows(p->x, p->x_dtype, call->layers[0]->K, &call->ldx, "x");
}

ganq_status ganq__lut_device_workspace(ganq_context *ctx, const ganq_device_product *product,
                                       int64_t *bytes) {
    ganq__lut_call call;
    size_t needed;
    GANQ_TRY(read_call(ctx, product, &call));
    GANQ_TRY(ganq__lut_workspace_bytes(ctx, &call, &needed));
    *bytes = (int64_t)needed;
    return GANQ_OK;
}

ganq_status ganq__lut_device_product(ganq_context *ctx, const ganq_device_product *product) {
    ganq__lut_call call;
    size_t needed;
    int entered;
    GANQ_TRY(read_call(ctx, product, &call));
    for (int i = 0; i < call.count; i++) {
        if (!product->y[i])
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, "y[%d] is NULL", i);
        call.y[i] = product->y[i];
        call.ldy[i] = product->y_strides[i];
        GANQ_TRY(check_rows(call.y[i], call.y_dtype, call.layers[i]->N, &call.ldy[i], "y"));
    }
    GANQ_TRY(ganq__lut_workspace_bytes(ctx, &call, &needed));
    if (product->workspace_bytes < (int64_t)needed || (needed && !product->workspace))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "a workspace of %lld bytes, expected %zu (ganq_lut_gemm_device_workspace)",
                  (long long)(product->workspace ? product->workspace_bytes : 0), needed);
    if ((uintptr_t)product->workspace % ALIGN)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "the workspace lies at %p, expected a multiple of %d",
                  product->workspace, ALIGN);
    call.workspace = product->workspace;
    call.stream = product->stream;
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    const ganq_status status = ganq__lut_run(ctx, &call);
    ganq__cuda_leave(entered);
    return status;
}
