/* hessian.c - ganq_hessian_*: argument checks, then lib/calib. */
#include "hessian.h"

#include "dtype.h"
#include "file.h"

#define REQUIRE(pointer, function)                                                                 \
    do {                                                                                           \
        if (!(pointer))                                                                            \
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, function ": %s is NULL", #pointer);                    \
    } while (0)

#define DTYPES_WIDE (GANQ__DTYPE_BIT(GANQ_DTYPE_F32) | GANQ__DTYPE_BIT(GANQ_DTYPE_F64))

ganq_status ganq_hessian_create(ganq_context *ctx, int64_t K, ganq_hessian **out) {
    REQUIRE(ctx, "ganq_hessian_create");
    REQUIRE(out, "ganq_hessian_create");
    return ganq__hessian_create(K, out);
}

ganq_status ganq_hessian_add(ganq_context *ctx, ganq_hessian *hessian, const ganq_matrix *x) {
    ganq_matrix ours;
    REQUIRE(ctx, "ganq_hessian_add");
    REQUIRE(hessian, "ganq_hessian_add");
    GANQ_TRY(
        ganq__matrix_read(&ours, x, GANQ__DTYPES_FLOAT, -1, hessian->K, "ganq_hessian_add: x"));
    return ganq__hessian_add_matrix(ctx, hessian, &ours, "ganq_hessian_add: x");
}

ganq_status ganq_hessian_merge(ganq_hessian *into, const ganq_hessian *from) {
    REQUIRE(into, "ganq_hessian_merge");
    REQUIRE(from, "ganq_hessian_merge");
    return ganq__hessian_merge(into, from);
}

ganq_status ganq_hessian_import(ganq_context *ctx, const ganq_matrix *H, int64_t tokens,
                                ganq_hessian **out) {
    ganq_matrix ours;
    REQUIRE(ctx, "ganq_hessian_import");
    REQUIRE(out, "ganq_hessian_import");
    GANQ_TRY(ganq__matrix_read(&ours, H, DTYPES_WIDE, -1, -1, "ganq_hessian_import: H"));
    return ganq__hessian_import(&ours, tokens, out);
}

ganq_status ganq_hessian_export(const ganq_hessian *hessian, ganq_matrix *H) {
    ganq_matrix ours;
    REQUIRE(hessian, "ganq_hessian_export");
    GANQ_TRY(
        ganq__matrix_read(&ours, H, DTYPES_WIDE, hessian->K, hessian->K, "ganq_hessian_export: H"));
    ganq__hessian_export(hessian, &ours);
    return GANQ_OK;
}

int64_t ganq_hessian_dim(const ganq_hessian *hessian) {
    return hessian ? hessian->K : 0;
}

int64_t ganq_hessian_tokens(const ganq_hessian *hessian) {
    return hessian ? hessian->tokens : 0;
}

ganq_status ganq_hessian_save(const ganq_hessian *hessian, const char *path) {
    REQUIRE(hessian, "ganq_hessian_save");
    REQUIRE(path, "ganq_hessian_save");
    GANQ_TRY(ganq__path_check(path, "ganq_hessian_save: path"));
    return ganq__hessian_save(hessian, path);
}

ganq_status ganq_hessian_load(ganq_context *ctx, const char *path, ganq_hessian **out) {
    REQUIRE(ctx, "ganq_hessian_load");
    REQUIRE(path, "ganq_hessian_load");
    REQUIRE(out, "ganq_hessian_load");
    GANQ_TRY(ganq__path_check(path, "ganq_hessian_load: path"));
    return ganq__hessian_load(path, out);
}

void ganq_hessian_free(ganq_hessian *hessian) {
    ganq__hessian_free(hessian);
}
