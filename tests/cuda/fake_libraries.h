/* fake_libraries.h - libcublasLt and libcusolver as fake_cublaslt.c and fake_cusolver.c stand in for them: what they were
 * asked for, and what a test wants of them. */
#ifndef GANQ_FAKE_LIBRARIES_H
#define GANQ_FAKE_LIBRARIES_H

#include <stdint.h>

typedef struct fake_cublaslt_state {
    int refuse;             /* there is no kernel for any product: 1, says the status; 2, says the count */
    uint32_t alignments[4]; /* of A, B, C and D, as last said */
    int products;
    void (*at_destroy)(void);
} fake_cublaslt_state;
extern fake_cublaslt_state fake_cublaslt;

typedef struct fake_cusolver_state {
    void (*factor)(int *info); /* info: in the device's memory */
} fake_cusolver_state;
extern fake_cusolver_state fake_cusolver;

#endif
