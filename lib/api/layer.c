/* layer.c - ganq/layer.h. */
#include "ganq/layer.h"

#include <string.h>

#include "dense_ops.h"
#include "dtype.h"
#include "file.h"
#include "layer.h"
#include "layer_matrix.h"
#include "lut_gemm.h"
#include "lut_ops.h"

#define REQUIRE(pointer, function)                                                                 \
    do {                                                                                           \
        if (!(pointer))                                                                            \
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, function ": %s is NULL", #pointer);                    \
    } while (0)

void ganq_quantize_options_init(ganq_quantize_options *options, size_t size) {
    if (!options || size < sizeof options->struct_size)
        return;
    const uint32_t struct_size = (uint32_t)size;
    memset(options, 0, size);
    memcpy(options, &struct_size, sizeof struct_size);
}

/* bias may be NULL; then *ours is untouched and *given NULL. */
static ganq_status read_bias(ganq_matrix *ours, const ganq_matrix *bias, int64_t N,
                             const ganq_matrix **given, const char *what) {
    *given = NULL;
    if (!bias)
        return GANQ_OK;
    GANQ_TRY(ganq__matrix_read(ours, bias, GANQ__DTYPES_FLOAT, 1, N, what));
    *given = ours;
    return GANQ_OK;
}

ganq_status ganq_layer_quantize(ganq_context *ctx, const ganq_matrix *weight,
                                const ganq_hessian *hessian, const ganq_matrix *bias,
                                const ganq_quantize_options *options, ganq_layer **out) {
    ganq_matrix w, b;
    const ganq_matrix *given;
    ganq_quantize_options o;
    REQUIRE(ctx, "ganq_layer_quantize");
    REQUIRE(out, "ganq_layer_quantize");
    GANQ_TRY(
        ganq__matrix_read(&w, weight, GANQ__DTYPES_FLOAT, -1, -1, "ganq_layer_quantize: weight"));
    GANQ_TRY(read_bias(&b, bias, w.rows, &given, "ganq_layer_quantize: bias"));
    GANQ_TRY(ganq__options_read(&o, sizeof o, options, "ganq_quantize_options"));
    return ganq__layer_quantize_matrix(ctx, &w, hessian, given, &o, out);
}

ganq_status ganq_layer_get_report(const ganq_layer *layer, ganq_layer_report *report) {
    REQUIRE(layer, "ganq_layer_get_report");
    return ganq__struct_write(report, &layer->report, sizeof layer->report, "ganq_layer_report");
}

ganq_status ganq_layer_get_info(const ganq_layer *layer, ganq_layer_info *info) {
    REQUIRE(layer, "ganq_layer_get_info");
    const int64_t bias_bytes =
        layer->bias ? layer->N * (int64_t)ganq__dtype_size(layer->bias_dtype) : 0;
    const int64_t stored = ganq__layer_stored_bytes(layer);
    const ganq_layer_info ours = {
        .struct_size = sizeof ours,
        .bits = layer->bits,
        .rows = layer->N,
        .cols = layer->K,
        .outliers = layer->outlier_rowptr ? layer->outlier_rowptr[layer->N] : 0,
        .lut_dtype = layer->lut_dtype,
        .has_bias = layer->bias != NULL,
        .stored_bytes = stored,
        .resident_bytes = ganq__layer_resident_bytes(layer),
        .bits_per_weight =
            (double)(stored - bias_bytes) * 8 / ((double)layer->N * (double)layer->K),
    };
    return ganq__struct_write(info, &ours, sizeof ours, "ganq_layer_info");
}

ganq_status ganq_layer_dequantize(ganq_context *ctx, const ganq_layer *layer, ganq_matrix *out) {
    ganq_matrix m;
    REQUIRE(ctx, "ganq_layer_dequantize");
    REQUIRE(layer, "ganq_layer_dequantize");
    GANQ_TRY(ganq__matrix_read(&m, out, GANQ__DTYPES_FLOAT, layer->N, layer->K,
                               "ganq_layer_dequantize: out"));
    return ganq__layer_dequantize_matrix(ctx, layer, &m);
}

ganq_status ganq_layer_export(const ganq_layer *layer, ganq_matrix *codes, ganq_matrix *lut) {
    ganq_matrix c, t;
    REQUIRE(layer, "ganq_layer_export");
    if (codes)
        GANQ_TRY(ganq__matrix_read(&c, codes, GANQ__DTYPE_BIT(GANQ_DTYPE_U8), layer->N, layer->K,
                                   "ganq_layer_export: codes"));
    if (lut)
        GANQ_TRY(ganq__matrix_read(&t, lut, GANQ__DTYPE_BIT(GANQ_DTYPE_F32), layer->N, layer->L,
                                   "ganq_layer_export: lut"));
    return ganq__layer_export_matrix(layer, codes ? &c : NULL, lut ? &t : NULL);
}

ganq_status ganq_layer_objective(ganq_context *ctx, const ganq_layer *layer,
                                 const ganq_matrix *weight, const ganq_hessian *hessian,
                                 double *error, double *norm) {
    ganq_matrix w;
    REQUIRE(ctx, "ganq_layer_objective");
    REQUIRE(layer, "ganq_layer_objective");
    GANQ_TRY(ganq__matrix_read(&w, weight, GANQ__DTYPES_FLOAT, layer->N, layer->K,
                               "ganq_layer_objective: weight"));
    return ganq__layer_objective_matrix(ctx, layer, &w, hessian, error, norm);
}

ganq_status ganq_layer_import(ganq_context *ctx, int32_t bits, const ganq_matrix *codes,
                              const ganq_matrix *lut, const ganq_matrix *bias,
                              const int32_t *outlier_rowptr, const int32_t *outlier_cols,
                              const float *outlier_vals, ganq_layer **out) {
    ganq_matrix c, t, b;
    const ganq_matrix *given;
    REQUIRE(ctx, "ganq_layer_import");
    REQUIRE(out, "ganq_layer_import");
    if (bits < 2 || bits > 4)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "ganq_layer_import: %d bits; 2, 3 and 4 are supported",
                  (int)bits);
    GANQ_TRY(ganq__matrix_read(&c, codes, GANQ__DTYPE_BIT(GANQ_DTYPE_U8), -1, -1,
                               "ganq_layer_import: codes"));
    GANQ_TRY(ganq__matrix_read(&t, lut, GANQ__DTYPES_FLOAT, c.rows, (int64_t)1 << bits,
                               "ganq_layer_import: lut"));
    GANQ_TRY(read_bias(&b, bias, c.rows, &given, "ganq_layer_import: bias"));
    return ganq__layer_import_matrix(ctx, bits, &c, &t, given, outlier_rowptr, outlier_cols,
                                     outlier_vals, out);
}

ganq_status ganq_layer_save(const ganq_layer *layer, const char *path, const char *name) {
    REQUIRE(layer, "ganq_layer_save");
    REQUIRE(path, "ganq_layer_save");
    REQUIRE(name, "ganq_layer_save");
    GANQ_TRY(ganq__path_check(path, "ganq_layer_save: path"));
    if (!*name)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_layer_save: the name is empty");
    return ganq__layer_save(layer, path, name);
}

ganq_status ganq_layer_load(ganq_context *ctx, const char *path, const char *name,
                            ganq_layer **out) {
    REQUIRE(ctx, "ganq_layer_load");
    REQUIRE(path, "ganq_layer_load");
    REQUIRE(out, "ganq_layer_load");
    GANQ_TRY(ganq__path_check(path, "ganq_layer_load: path"));
    return ganq__layer_load(path, name, out);
}

void ganq_layer_free(ganq_layer *layer) {
    ganq__layer_release(layer);
}

ganq_status ganq_lut_gemm(ganq_context *ctx, const ganq_layer *layer, const ganq_matrix *x,
                          ganq_matrix *y) {
    ganq_matrix in, out;
    REQUIRE(ctx, "ganq_lut_gemm");
    REQUIRE(layer, "ganq_lut_gemm");
    GANQ_TRY(ganq__matrix_read(&in, x, GANQ__DTYPES_FLOAT, -1, layer->K, "ganq_lut_gemm: x"));
    GANQ_TRY(ganq__matrix_read(&out, y, GANQ__DTYPES_FLOAT, in.rows, layer->N, "ganq_lut_gemm: y"));
    return ganq__lut_gemm_matrix(ctx, layer, &in, &out);
}

ganq_status ganq_dense_gemm(ganq_context *ctx, const ganq_matrix *weight, const ganq_matrix *x,
                            ganq_matrix *y) {
    ganq_matrix w, in, out;
    REQUIRE(ctx, "ganq_dense_gemm");
    GANQ_TRY(ganq__matrix_read(&w, weight, GANQ__DTYPES_FLOAT, -1, -1, "ganq_dense_gemm: weight"));
    GANQ_TRY(ganq__matrix_read(&in, x, GANQ__DTYPE_BIT(GANQ_DTYPE_F32), -1, w.cols,
                               "ganq_dense_gemm: x"));
    GANQ_TRY(ganq__matrix_read(&out, y, GANQ__DTYPE_BIT(GANQ_DTYPE_F32), in.rows, w.rows,
                               "ganq_dense_gemm: y"));
    if (w.row_stride != w.cols)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "ganq_dense_gemm: weight: row_stride is %lld, expected %lld: rows side by side",
                  (long long)w.row_stride, (long long)w.cols);
    if ((uintptr_t)in.data % sizeof(float) || (uintptr_t)out.data % sizeof(float))
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "ganq_dense_gemm: x or y is not aligned to 4 bytes");
    return ctx->host_dense->linear(ctx, in.rows, w.rows, w.cols, in.data, in.row_stride, w.data,
                                   w.dtype, NULL, out.data, out.row_stride);
}

ganq_status ganq_layer_place(ganq_context *ctx, const ganq_layer *layer) {
    REQUIRE(ctx, "ganq_layer_place");
    REQUIRE(layer, "ganq_layer_place");
    return ganq__layer_ready(ctx, layer);
}

static ganq_status read_product(const ganq_context *ctx, const ganq_device_product *theirs,
                                ganq_device_product *ours, const char *what) {
    GANQ_TRY(ganq__options_read(ours, sizeof *ours, theirs, "ganq_device_product"));
    if (!ctx->lut || !ctx->lut->device_product)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: %s is no GPU", what, ctx->device_name);
    return GANQ_OK;
}

ganq_status ganq_lut_gemm_device_workspace(ganq_context *ctx, const ganq_device_product *product,
                                           int64_t *bytes) {
    ganq_device_product ours;
    REQUIRE(ctx, "ganq_lut_gemm_device_workspace");
    REQUIRE(product, "ganq_lut_gemm_device_workspace");
    REQUIRE(bytes, "ganq_lut_gemm_device_workspace");
    GANQ_TRY(read_product(ctx, product, &ours, "ganq_lut_gemm_device_workspace"));
    return ctx->lut->device_workspace(ctx, &ours, bytes);
}

ganq_status ganq_lut_gemm_device(ganq_context *ctx, const ganq_device_product *product) {
    ganq_device_product ours;
    REQUIRE(ctx, "ganq_lut_gemm_device");
    REQUIRE(product, "ganq_lut_gemm_device");
    GANQ_TRY(read_product(ctx, product, &ours, "ganq_lut_gemm_device"));
    return ctx->lut->device_product(ctx, &ours);
}

ganq_status ganq_lut_gemm_tune(ganq_context *ctx, const ganq_layer *layer, int64_t rows,
                               int32_t x_dtype, double *microseconds, double *untuned) {
    REQUIRE(ctx, "ganq_lut_gemm_tune");
    REQUIRE(layer, "ganq_lut_gemm_tune");
    REQUIRE(microseconds, "ganq_lut_gemm_tune");
    REQUIRE(untuned, "ganq_lut_gemm_tune");
    if (!ctx->lut || !ctx->lut->tune)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "ganq_lut_gemm_tune: %s is no GPU", ctx->device_name);
    if (rows < 1 || (x_dtype != GANQ_DTYPE_F32 && x_dtype != GANQ_DTYPE_F16 && x_dtype != GANQ_DTYPE_BF16))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_lut_gemm_tune: %lld rows of type %d, expected 1 or more of F32, F16 or BF16",
                  (long long)rows, (int)x_dtype);
    GANQ_TRY(ganq__layer_ready(ctx, layer));
    return ctx->lut->tune(ctx, layer, rows, x_dtype, microseconds, untuned);
}
