/* fake_cublaslt.c - the part of libcublasLt that the library takes; products are counted, not computed. */
#include "fake_libraries.h"

#include <stddef.h>
#include <string.h>

fake_cublaslt_state fake_cublaslt;

int cublasLtCreate(void **handle) { return *handle = &fake_cublaslt, 0; }
int cublasLtDestroy(void *handle) {
    (void)handle;
    if (fake_cublaslt.at_destroy)
        fake_cublaslt.at_destroy();
    return 0;
}
int cublasLtMatmulDescCreate(void **desc) { return *desc = &fake_cublaslt, 0; }
int cublasLtMatmulDescSetAttribute(void) { return 0; }
int cublasLtMatmulDescDestroy(void) { return 0; }
int cublasLtMatrixLayoutCreate(void **layout) { return *layout = &fake_cublaslt, 0; }
int cublasLtMatrixLayoutDestroy(void) { return 0; }
int cublasLtMatmulPreferenceCreate(void **preference) { return *preference = &fake_cublaslt, 0; }
int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value, size_t size) {
    (void)preference;
    if (attribute >= 5 && attribute <= 8 && size == sizeof(uint32_t))
        memcpy(&fake_cublaslt.alignments[attribute - 5], value, size);
    return 0;
}
int cublasLtMatmulPreferenceDestroy(void) { return 0; }
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,
                                   int requested, void *results, int *count) {
    (void)handle, (void)desc, (void)a, (void)b, (void)c, (void)d, (void)preference, (void)requested, (void)results;
    *count = !fake_cublaslt.refuse;
    return fake_cublaslt.refuse == 1 ? 15 : 0;
}
int cublasLtMatmul(void) { return fake_cublaslt.products++, 0; }
