/* cusolver.c - Cholesky factorization by cuSOLVER's dense LAPACK interface. The few declarations that are needed stand
 * here, so that building needs no cuSOLVER. */
#include "cusolver.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "cuda.h"
#include "library.h"
#include "memory_ops.h"

/* As cusolverDn.h has them; a handle is a pointer, 0 is success, 1 is CUBLAS_FILL_MODE_UPPER. */
typedef void *solver_handle;
enum { FILL_UPPER = 1 };
typedef struct functions {
    int (*create)(solver_handle *handle);
    int (*destroy)(solver_handle handle);
    int (*set_stream)(solver_handle handle, cudaStream_t stream);
    int (*buffer_size)(solver_handle handle, int fill, int n, void *a, int lda, int *count);
    int (*potrf)(solver_handle handle, int fill, int n, void *a, int lda, void *work, int count, int *info);
    int (*buffer_size_f32)(solver_handle handle, int fill, int n, void *a, int lda, int *count);
    int (*potrf_f32)(solver_handle handle, int fill, int n, void *a, int lda, void *work, int count, int *info);
} functions;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static functions loaded;
static int is_loaded;

static ganq_status load(void) {
    static const char *const names[] = {CUDART_VERSION >= 13000 ? "libcusolver.so.12" : "libcusolver.so.11", NULL};
    static const char *const folders[] = {"cu13", "cusolver", NULL};
    static const ganq__cuda_symbol symbols[] = {
        {"cusolverDnCreate", offsetof(functions, create)},
        {"cusolverDnDestroy", offsetof(functions, destroy)},
        {"cusolverDnSetStream", offsetof(functions, set_stream)},
        {"cusolverDnDpotrf_bufferSize", offsetof(functions, buffer_size)},
        {"cusolverDnDpotrf", offsetof(functions, potrf)},
        {"cusolverDnSpotrf_bufferSize", offsetof(functions, buffer_size_f32)},
        {"cusolverDnSpotrf", offsetof(functions, potrf_f32)},
    };
    GANQ_TRY(ganq__cuda_functions(names, folders, symbols, sizeof symbols / sizeof symbols[0], &loaded,
                                  sizeof loaded));
    is_loaded = 1;
    return GANQ_OK;
}

static ganq_status library_status(int error, const char *what) {
    if (error != 0)
        GANQ_FAIL(GANQ_ERR_DEVICE, "%s: cuSOLVER's status %d", what, error);
    return GANQ_OK;
}

/* Row-major and lower is column-major and upper: the same memory. size: of an element, 8 or 4. */
static ganq_status factor(ganq_context *ctx, solver_handle handle, size_t size, int n, void *a, int lda, int *info) {
    const int single = size == sizeof(float);
    int count = 0;
    void *work = NULL;
    GANQ_TRY(library_status(loaded.set_stream(handle, ganq__cuda_of(ctx)->stream), "cusolverDnSetStream"));
    GANQ_TRY(library_status((single ? loaded.buffer_size_f32 : loaded.buffer_size)(handle, FILL_UPPER, n, a, lda, &count),
                            "the workspace of cuSOLVER's potrf"));
    const size_t info_at = ((size_t)count * size + 15) / 16 * 16;
    GANQ_TRY(ctx->memory->allocate(ctx, info_at + 16, &work));
    int *device_info = (int *)((char *)work + info_at);
    ganq_status status = library_status(
        (single ? loaded.potrf_f32 : loaded.potrf)(handle, FILL_UPPER, n, a, lda, work, count, device_info), "cuSOLVER's potrf");
    if (status == GANQ_OK)
        status = ctx->memory->download(ctx, info, device_info, sizeof *info);
    ctx->memory->release(ctx, work);
    return status;
}

/* A [n, lda] on the device and factored; back to `out` unless that is NULL. */
static ganq_status run(ganq_context *ctx, size_t size, int64_t n, const void *a, int64_t lda, void *out, int *definite) {
    const size_t bytes = (size_t)(n * lda) * size;
    solver_handle handle = NULL;
    void *matrix = NULL;
    int entered, info = 0;
    ganq_status status = GANQ_OK;
    pthread_mutex_lock(&guard);
    if (!is_loaded)
        status = load();
    pthread_mutex_unlock(&guard);
    GANQ_TRY(status);
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    const int error = loaded.create(&handle);
    if (error != 0) /* a library that does not run here is as good as none */
        GANQ_FAIL_GOTO(done, GANQ_ERR_UNSUPPORTED, "cusolverDnCreate: cuSOLVER's status %d", error);
    GANQ_TRY_GOTO(done, ctx->memory->allocate(ctx, bytes, &matrix));
    GANQ_TRY_GOTO(done, ctx->memory->upload(ctx, matrix, a, bytes));
    GANQ_TRY_GOTO(done, factor(ctx, handle, size, (int)n, matrix, (int)lda, &info));
    if (info < 0)
        GANQ_FAIL_GOTO(done, GANQ_ERR_INTERNAL, "cuSOLVER's potrf: its argument %d is wrong", -info);
    if (out && info == 0)
        GANQ_TRY_GOTO(done, ctx->memory->download(ctx, out, matrix, bytes));
    *definite = info == 0;
done:
    ctx->memory->release(ctx, matrix);
    if (handle)
        (void)loaded.destroy(handle);
    ganq__cuda_leave(entered);
    return status;
}

ganq_status ganq__cusolver_cholesky(ganq_context *ctx, int64_t n, double *a, int64_t lda, int *definite) {
    return run(ctx, sizeof *a, n, a, lda, a, definite);
}

ganq_status ganq__cusolver_definite_f32(ganq_context *ctx, int64_t n, const float *a, int *definite) {
    return run(ctx, sizeof *a, n, a, n, NULL, definite);
}
