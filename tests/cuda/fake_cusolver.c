/* fake_cusolver.c - the part of libcusolver that the library takes; a test says what came of a factorization. */
#include "fake_libraries.h"

fake_cusolver_state fake_cusolver;

int cusolverDnCreate(void **handle) { return *handle = &fake_cusolver, 0; }
int cusolverDnDestroy(void) { return 0; }
int cusolverDnSetStream(void) { return 0; }
static int size(int *count) { return *count = 16, 0; }
int cusolverDnDpotrf_bufferSize(void *handle, int fill, int n, void *a, int lda, int *count) {
    return (void)handle, (void)fill, (void)n, (void)a, (void)lda, size(count);
}
int cusolverDnSpotrf_bufferSize(void *handle, int fill, int n, void *a, int lda, int *count) {
    return (void)handle, (void)fill, (void)n, (void)a, (void)lda, size(count);
}
static int factor(int *info) { return fake_cusolver.factor(info), 0; }
int cusolverDnDpotrf(void *handle, int fill, int n, void *a, int lda, void *work, int count, int *info) {
    return (void)handle, (void)fill, (void)n, (void)a, (void)lda, (void)work, (void)count, factor(info);
}
int cusolverDnSpotrf(void *handle, int fill, int n, void *a, int lda, void *work, int count, int *info) {
    return (void)handle, (void)fill, (void)n, (void)a, (void)lda, (void)work, (void)count, factor(info);
}
