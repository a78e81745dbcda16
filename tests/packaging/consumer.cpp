// consumer.cpp - the same program as consumer.c, in C++11.
#include <ganq/ganq.h>

#include <cstdio>
#include <memory>
#include <vector>

int main() {
    const int64_t N = 8, K = 32, M = 2;
    std::vector<float> w(N * K), x(M * K), y(M * N);
    for (size_t i = 0; i < w.size(); i++)
        w[i] = float((i * 37) % 101) / 101.0f - 0.5f;
    for (size_t i = 0; i < x.size(); i++)
        x[i] = float((i * 53) % 17) / 17.0f;
    ganq_matrix weight = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w.data()), in = GANQ_MATRIX(GANQ_DTYPE_F32, M, K, x.data()),
                out = GANQ_MATRIX(GANQ_DTYPE_F32, M, N, y.data());
    ganq_quantize_options options;
    ganq_quantize_options_init(&options, sizeof options);
    options.recipe = GANQ_RECIPE_RTN;

    ganq_context *raw_ctx = nullptr;
    if (ganq_context_create(nullptr, &raw_ctx) != GANQ_OK)
        return std::fprintf(stderr, "%s\n", ganq_last_error()), 1;
    std::unique_ptr<ganq_context, void (*)(ganq_context *)> ctx(raw_ctx, ganq_context_free);
    ganq_layer *raw_layer = nullptr;
    if (ganq_layer_quantize(ctx.get(), &weight, nullptr, nullptr, &options, &raw_layer) != GANQ_OK)
        return std::fprintf(stderr, "%s\n", ganq_last_error()), 1;
    std::unique_ptr<ganq_layer, void (*)(ganq_layer *)> layer(raw_layer, ganq_layer_free);
    if (ganq_lut_gemm(ctx.get(), layer.get(), &in, &out) != GANQ_OK)
        return std::fprintf(stderr, "%s\n", ganq_last_error()), 1;
    double sum = 0;
    for (float value : y)
        sum += value;
    std::printf("libganq %s, abi %d, sum of y %.4f\n", ganq_version(), int(ganq_abi_version()), sum);
}
