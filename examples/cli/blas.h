/* blas.h - a CBLAS library, loaded at run time to compare with. */
#ifndef GANQ_CLI_BLAS_H
#define GANQ_CLI_BLAS_H

typedef struct cli_blas {
    const char *name; /* of the file, without its folders */
    /* cblas_sgemm(101 row-major, 111 plain, 112 transposed, M, N, K, 1, X, ldx, W, ldw, 0, Y, ldy) */
    void (*sgemm)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                  const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
    /* cblas_ssyrk(101 row-major, 121 upper, 112 transposed, K, M, 1, X, ldx, 1, H, ldh) */
    void (*ssyrk)(int order, int half, int transpose, int n, int k, float alpha, const float *a,
                  int lda, float beta, float *c, int ldc);
} cli_blas;

/* With as many threads where it is OpenBLAS. CLI_OK, or an exit code after a message. */
int cli_blas_open(const char *path, int threads, cli_blas *blas);

#endif
