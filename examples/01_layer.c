/* 01_layer.c - one layer: weights and calibration activations in, 4-bit codes and tables out, and a product with them.
 *   cc 01_layer.c $(pkg-config --cflags --libs ganq) -lm && ./a.out */
#include "example.h"

#include <math.h>

enum { N = 96, K = 160, TOKENS = 1000, M = 4 };

static float uniform(void) { return (float)rand() / (float)RAND_MAX - 0.5f; }

int main(void) {
    static float w[N * K], x[TOKENS * K], y[M * N];
    for (int i = 0; i < N * K; i++)
        w[i] = uniform() * uniform();
    for (int t = 0; t < TOKENS; t++) { /* neighbouring features are correlated, as in real layers */
        float previous = 0;
        for (int k = 0; k < K; k++)
            x[t * K + k] = previous = 0.8f * previous + uniform();
    }
    ganq_context *ctx;
    ganq_hessian *hessian;
    CHECK(ganq_context_create(NULL, &ctx));
    CHECK(ganq_hessian_create(ctx, K, &hessian));
    ganq_matrix activations = GANQ_MATRIX(GANQ_DTYPE_F32, TOKENS, K, x);
    CHECK(ganq_hessian_add(ctx, hessian, &activations));

    ganq_matrix weight = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w);
    for (int bits = 2; bits <= 4; bits++) {
        ganq_quantize_options options;
        ganq_quantize_options_init(&options, sizeof options);
        options.bits = bits;
        ganq_layer *layer;
        CHECK(ganq_layer_quantize(ctx, &weight, hessian, NULL, &options, &layer));
        ganq_layer_report report = {.struct_size = sizeof report};
        ganq_layer_info info = {.struct_size = sizeof info};
        CHECK(ganq_layer_get_report(layer, &report));
        CHECK(ganq_layer_get_info(layer, &info));

        /* The error of the layer's output, measured directly on a few tokens. */
        ganq_matrix in = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x), out = GANQ_MATRIX(GANQ_DTYPE_F32, M, N, y);
        CHECK(ganq_lut_gemm(ctx, layer, &in, &out));
        double error = 0, norm = 0;
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                double exact = 0;
                for (int k = 0; k < K; k++)
                    exact += (double)x[m * K + k] * w[n * K + k];
                error += (y[m * N + n] - exact) * (y[m * N + n] - exact);
                norm += exact * exact;
            }
        printf("%d bits, %.2f per weight with tables: E = %.2e on the calibration tokens, %.2e on %d of them\n", bits,
               info.bits_per_weight, report.error / report.norm, error / norm, M);
        ganq_layer_free(layer);
    }
    ganq_hessian_free(hessian);
    ganq_context_free(ctx);
    return 0;
}
