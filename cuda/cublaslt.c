/* cublaslt.c - products of f16 matrices by cuBLASLt. The few declarations that are needed stand
 * here, so that building needs no cuBLASLt. */
#include "cublaslt.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "library.h"

/* As cublasLt.h and library_types.h have them; handles and descriptors are pointers, 0 is success.
 */
enum {
    R_32F = 0,
    R_16F = 2,
    COMPUTE_32F = 68,
    DESC_TRANSA = 3,
    PREFERENCE_WORKSPACE = 1,
    PREFERENCE_ALIGNMENT_A = 5, /* uint32_t bytes; B, C and D follow */
    OP_T = 1,
    NOT_SUPPORTED = 15 /* of statuses: no kernel for this product */
};
typedef struct algorithm {
    uint64_t data[8];
} algorithm;
typedef struct heuristic {
    algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} heuristic;
typedef struct functions {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*desc_create)(void **desc, int compute, int scale_type);
    int (*desc_set)(void *desc, int attribute, const void *value, size_t size);
    int (*desc_destroy)(void *desc);
    int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
    int (*layout_destroy)(void *layout);
    int (*preference_create)(void **preference);
    int (*preference_set)(void *preference, int attribute, const void *value, size_t size);
    int (*preference_destroy)(void *preference);
    int (*choose)(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,
                  int requested, heuristic *results, int *count);
    int (*matmul)(void *handle, void *desc, const void *alpha, const void *a, void *a_layout,
                  const void *b, void *b_layout, const void *beta, const void *c, void *c_layout,
                  void *d, void *d_layout, const algorithm *algorithm, void *workspace,
                  size_t bytes, cudaStream_t stream);
} functions;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static functions loaded;
static int is_loaded;

static ganq_status load(void) {
    static const char *const names[] = {
        CUDART_VERSION >= 13000 ? "libcublasLt.so.13" : "libcublasLt.so.12", NULL};
    static const char *const folders[] = {"cu13", "cublas", NULL};
    static const ganq__cuda_symbol symbols[] = {
        {"cublasLtCreate", offsetof(functions, create)},
        {"cublasLtDestroy", offsetof(functions, destroy)},
        {"cublasLtMatmulDescCreate", offsetof(functions, desc_create)},
        {"cublasLtMatmulDescSetAttribute", offsetof(functions, desc_set)},
        {"cublasLtMatmulDescDestroy", offsetof(functions, desc_destroy)},
        {"cublasLtMatrixLayoutCreate", offsetof(functions, layout_create)},
        {"cublasLtMatrixLayoutDestroy", offsetof(functions, layout_destroy)},
        {"cublasLtMatmulPreferenceCreate", offsetof(functions, preference_create)},
        {"cublasLtMatmulPreferenceSetAttribute", offsetof(functions, preference_set)},
        {"cublasLtMatmulPreferenceDestroy", offsetof(functions, preference_destroy)},
        {"cublasLtMatmulAlgoGetHeuristic", offsetof(functions, choose)},
        {"cublasLtMatmul", offsetof(functions, matmul)},
    };
    GANQ_TRY(ganq__cuda_functions(names, folders, symbols, sizeof symbols / sizeof symbols[0], &loaded,
                                  sizeof loaded));
    is_loaded = 1;
    return GANQ_OK;
}

static ganq_status library_status(int error, const char *what) {
    if (error != 0)
        GANQ_FAIL(GANQ_ERR_DEVICE, "%s: cuBLASLt's status %d", what, error);
    return GANQ_OK;
}

ganq_status ganq__cublaslt_open(ganq_context *ctx, void **handle) {
    ganq_status status = GANQ_OK;
    int entered;
    pthread_mutex_lock(&guard);
    if (!is_loaded)
        status = load();
    pthread_mutex_unlock(&guard);
    GANQ_TRY(status);
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    status = library_status(loaded.create(handle), "cublasLtCreate");
    ganq__cuda_leave(entered);
    return status;
}

void ganq__cublaslt_close(void *handle) {
    if (handle)
        (void)loaded.destroy(handle);
}

/* A row-major matrix [rows, ld] is a column-major one [ld, rows], transposed: C^T [N,M] = W [K,N]^T
 * X^T [K,M]. */
typedef struct problem {
    void *desc, *w, *x, *c, *preference;
} problem;

static void close_problem(problem *p) {
    if (p->preference)
        (void)loaded.preference_destroy(p->preference);
    if (p->c)
        (void)loaded.layout_destroy(p->c);
    if (p->x)
        (void)loaded.layout_destroy(p->x);
    if (p->w)
        (void)loaded.layout_destroy(p->w);
    if (p->desc)
        (void)loaded.desc_destroy(p->desc);
}

/* The largest power of two, of those that kernels can want. */
static uint32_t alignment_of(const void *address) {
    const uint32_t bits = (uint32_t)((uintptr_t)address & 255) | 256;
    return bits & -bits;
}

/* What kernels may take: they are chosen for addresses that are multiples of 256 where nothing is said. */
static ganq_status set_preference(void *preference, const void *w, const void *x, const void *c, size_t bytes) {
    const uint32_t alignments[] = {alignment_of(w), alignment_of(x), alignment_of(c), alignment_of(c)};
    GANQ_TRY(library_status(loaded.preference_set(preference, PREFERENCE_WORKSPACE, &bytes, sizeof bytes),
                            "cublasLtMatmulPreferenceSetAttribute"));
    for (int i = 0; i < 4; i++)
        GANQ_TRY(library_status(loaded.preference_set(preference, PREFERENCE_ALIGNMENT_A + i, &alignments[i],
                                                      sizeof alignments[i]),
                                "cublasLtMatmulPreferenceSetAttribute"));
    return GANQ_OK;
}

ganq_status ganq__cublaslt_product(void *handle, cudaStream_t stream, int64_t M, int64_t N,
                                   int64_t K, const void *x, int64_t ldx, const void *w,
                                   int64_t ldw, void *c, int32_t dtype, int64_t ldc,
                                   void *workspace, size_t bytes) {
    const int type = dtype == GANQ_DTYPE_F16 ? R_16F : R_32F, transposed = OP_T;
    const uint64_t m = (uint64_t)M, n = (uint64_t)N, k = (uint64_t)K;
    const float one = 1, zero = 0;
    problem p = {0};
    heuristic best;
    int count = 0;
    ganq_status status;
    GANQ_TRY_GOTO(close, library_status(loaded.desc_create(&p.desc, COMPUTE_32F, R_32F),
                                        "cublasLtMatmulDescCreate"));
    GANQ_TRY_GOTO(
        close, library_status(loaded.desc_set(p.desc, DESC_TRANSA, &transposed, sizeof transposed),
                              "cublasLtMatmulDescSetAttribute"));
    GANQ_TRY_GOTO(close, library_status(loaded.layout_create(&p.w, R_16F, k, n, ldw),
                                        "cublasLtMatrixLayoutCreate"));
    GANQ_TRY_GOTO(close, library_status(loaded.layout_create(&p.x, R_16F, k, m, ldx),
                                        "cublasLtMatrixLayoutCreate"));
    GANQ_TRY_GOTO(close, library_status(loaded.layout_create(&p.c, type, n, m, ldc),
                                        "cublasLtMatrixLayoutCreate"));
    GANQ_TRY_GOTO(close, library_status(loaded.preference_create(&p.preference),
                                        "cublasLtMatmulPreferenceCreate"));
    GANQ_TRY_GOTO(close, set_preference(p.preference, w, x, c, bytes));
    const int error =
        loaded.choose(handle, p.desc, p.w, p.x, p.c, p.c, p.preference, 1, &best, &count);
    if (error != NOT_SUPPORTED)
        GANQ_TRY_GOTO(close, library_status(error, "cublasLtMatmulAlgoGetHeuristic"));
    if (error == NOT_SUPPORTED || count < 1)
        GANQ_FAIL_GOTO(close, GANQ_ERR_UNSUPPORTED,
                       "cuBLASLt has no product for %lld x %lld x %lld in f16", (long long)M,
                       (long long)N, (long long)K);
    status = library_status(loaded.matmul(handle, p.desc, &one, w, p.w, x, p.x, &zero, c, p.c, c,
                                          p.c, &best.algorithm, workspace, bytes, stream),
                            "cublasLtMatmul");
close:
    close_problem(&p);
    return status;
}
