/* hessian.h - H = X^T X [K,K] in f32 and the token count. */
#ifndef GANQ_CALIB_HESSIAN_H
#define GANQ_CALIB_HESSIAN_H

#include "context.h"
#include "ganq/hessian.h"

struct ganq_hessian {
    int64_t K, tokens;
    float *values; /* [K,K], both triangles equal */
};

ganq_status ganq__hessian_create(int64_t K, ganq_hessian **out);
void ganq__hessian_free(ganq_hessian *hessian); /* NULL is fine */
/* x [M,K] f32 of the library's own (activations of a block). `what` names them in the message on
 * NaN or infinity. */
ganq_status ganq__hessian_add(ganq_context *ctx, ganq_hessian *hessian, int64_t M, const float *x,
                              int64_t ldx, const char *what);
/* x as ganq__matrix_read gave it: f32, f16 or bf16, K columns. 16-bit values are converted some
 * thousand rows at a time; if memory fails on the way, rows and tokens so far are in H. */
ganq_status ganq__hessian_add_matrix(ganq_context *ctx, ganq_hessian *hessian, const ganq_matrix *x,
                                     const char *what);
ganq_status ganq__hessian_merge(ganq_hessian *into, const ganq_hessian *from);
/* H [K,K] f32 or f64, checked as include/ganq/hessian.h says. The two halves of an almost symmetric
 * H are averaged. */
ganq_status ganq__hessian_import(const ganq_matrix *H, int64_t tokens, ganq_hessian **out);
/* To f32 or f64 [K,K]. */
void ganq__hessian_export(const ganq_hessian *hessian, ganq_matrix *H);
ganq_status ganq__hessian_save(const ganq_hessian *hessian, const char *path);
ganq_status ganq__hessian_load(const char *path, ganq_hessian **out);

#endif
