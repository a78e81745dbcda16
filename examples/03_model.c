/* 03_model.c - a whole model: load a Hugging Face checkpoint, quantize it on calibration text, save it.
 *   cc 03_model.c $(pkg-config --cflags --libs ganq) && ./a.out [MODEL_DIR [TEXT [OUT_DIR]]] */
#include "example.h"

static int show(const ganq_progress *p, void *user) {
    (void)user;
    if (p->stage == GANQ_STAGE_QUANTIZE && p->error >= 0)
        printf("%3.0f%%  %-44s E = %.2e\n", 100 * p->fraction, p->name, p->error);
    return 0; /* anything else cancels */
}

int main(int argc, char **argv) {
    const char *dir = argc > 1 ? argv[1] : EXAMPLE_MODEL, *text = argc > 2 ? argv[2] : EXAMPLE_CALIBRATION;
    ganq_context_options context = {.struct_size = sizeof context, .progress = show};
    ganq_context *ctx;
    ganq_tokenizer *tokenizer;
    ganq_model *dense, *quantized;
    ganq_corpus *calibration;
    CHECK(ganq_context_create(&context, &ctx));
    CHECK(ganq_model_load(ctx, dir, NULL, &dense));
    CHECK(ganq_tokenizer_load(dir, &tokenizer));
    ganq_corpus_options sampling = {.struct_size = sizeof sampling, .samples = 8, .length = 256};
    CHECK(ganq_corpus_load(tokenizer, text, &sampling, &calibration));

    ganq_quantize_options layer;
    ganq_quantize_options_init(&layer, sizeof layer);
    layer.bits = 4;
    layer.recipe = GANQ_RECIPE_FAST;
    ganq_model_quantize_options options = {.struct_size = sizeof options, .layer = &layer};
    CHECK(ganq_model_quantize(ctx, dense, calibration, &options, &quantized));
    if (argc > 3)
        CHECK(ganq_model_save(ctx, quantized, argv[3], NULL));

    ganq_model_info before = {.struct_size = sizeof before}, after = {.struct_size = sizeof after};
    CHECK(ganq_model_get_info(dense, &before));
    CHECK(ganq_model_get_info(quantized, &after));
    printf("%s: linears from %.1f to %.2f bits per weight, %lld to %lld bytes\n", before.architecture,
           before.bits_per_weight, after.bits_per_weight, (long long)before.linear_bytes, (long long)after.linear_bytes);
    ganq_corpus_free(calibration);
    ganq_tokenizer_free(tokenizer);
    ganq_model_free(quantized);
    ganq_model_free(dense);
    ganq_context_free(ctx);
    return 0;
}
