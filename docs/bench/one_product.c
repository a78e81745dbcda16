/* one_product.c - BITS as its argument: a few products of one token with one layer, 256 x 4096, on
 * one thread; for instructions.sh. The layer's codes and tables are of no importance. */
#include <stdio.h>
#include <stdlib.h>

#include "ganq/ganq.h"

enum { N = 256, K = 4096, PRODUCTS = 5 };

int main(int argc, char **argv) {
    static uint8_t codes[N * K];
    static float lut[N * 16], x[K], y[N];
    const int bits = argc > 1 ? atoi(argv[1]) : 4, L = 1 << bits;
    ganq_context_options options = {.struct_size = sizeof options, .threads = 1};
    ganq_context *ctx;
    ganq_layer *layer;
    for (int i = 0; i < N * K; i++)
        codes[i] = (uint8_t)(i % 7 % L);
    for (int i = 0; i < N * L; i++)
        lut[i] = (float)(i % L);
    for (int i = 0; i < K; i++)
        x[i] = (float)(i % 5);
    const ganq_matrix c = GANQ_MATRIX(GANQ_DTYPE_U8, N, K, codes);
    const ganq_matrix t = GANQ_MATRIX(GANQ_DTYPE_F32, N, L, lut);
    const ganq_matrix in = GANQ_MATRIX(GANQ_DTYPE_F32, 1, K, x);
    ganq_matrix out = GANQ_MATRIX(GANQ_DTYPE_F32, 1, N, y);
    int failed = ganq_context_create(&options, &ctx) != GANQ_OK ||
                 ganq_layer_import(ctx, bits, &c, &t, NULL, NULL, NULL, NULL, &layer) != GANQ_OK;
    for (int i = 0; i < PRODUCTS && !failed; i++)
        failed = ganq_lut_gemm(ctx, layer, &in, &out) != GANQ_OK;
    if (failed)
        fprintf(stderr, "%s\n", ganq_last_error());
    return failed;
}
