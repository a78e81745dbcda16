/* consumer.c - a downstream program in C: quantizes a small matrix, multiplies, prints what must be equal everywhere. */
#include <ganq/ganq.h>
#include <stdio.h>

enum { N = 8, K = 32, M = 2 };

int main(void) {
    static float w[N * K], x[M * K], y[M * N];
    ganq_context *ctx = NULL;
    ganq_layer *layer = NULL;
    ganq_quantize_options options;
    ganq_matrix weight = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w), in = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x),
                out = GANQ_MATRIX(GANQ_DTYPE_F32, M, N, y);
    double sum = 0;
    int i;
    for (i = 0; i < N * K; i++)
        w[i] = (float)((i * 37) % 101) / 101.0f - 0.5f;
    for (i = 0; i < M * K; i++)
        x[i] = (float)((i * 53) % 17) / 17.0f;
    ganq_quantize_options_init(&options, sizeof options);
    options.recipe = GANQ_RECIPE_RTN;
    if (ganq_context_create(NULL, &ctx) != GANQ_OK ||
        ganq_layer_quantize(ctx, &weight, NULL, NULL, &options, &layer) != GANQ_OK ||
        ganq_lut_gemm(ctx, layer, &in, &out) != GANQ_OK) {
        fprintf(stderr, "%s\n", ganq_last_error());
        return 1;
    }
    for (i = 0; i < M * N; i++)
        sum += y[i];
    printf("libganq %s, abi %d, sum of y %.4f\n", ganq_version(), (int)ganq_abi_version(), sum);
    ganq_layer_free(layer);
    ganq_context_free(ctx);
    return 0;
}
