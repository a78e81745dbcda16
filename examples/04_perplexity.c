/* 04_perplexity.c - perplexity of a model, dense or quantized, document by document.
 *   cc 04_perplexity.c $(pkg-config --cflags --libs ganq) && ./a.out [MODEL_DIR [TEXT]] */
#include "example.h"

int main(int argc, char **argv) {
    const char *dir = argc > 1 ? argv[1] : EXAMPLE_MODEL, *text = argc > 2 ? argv[2] : EXAMPLE_EVALUATION;
    ganq_context *ctx;
    ganq_tokenizer *tokenizer;
    ganq_model *model;
    ganq_corpus *documents;
    CHECK(ganq_context_create(NULL, &ctx));
    CHECK(ganq_model_load(ctx, dir, NULL, &model));
    CHECK(ganq_tokenizer_load(dir, &tokenizer));
    ganq_corpus_options sampling = {
        .struct_size = sizeof sampling, .mode = GANQ_SAMPLE_DOCUMENTS, .samples = -1, .length = 512};
    CHECK(ganq_corpus_load(tokenizer, text, &sampling, &documents));
    ganq_perplexity_options options = {
        .struct_size = sizeof options, .protocol = GANQ_PERPLEXITY_DOCUMENT, .context = 512, .max_tokens = 3000};
    ganq_perplexity_result result = {.struct_size = sizeof result};
    CHECK(ganq_model_perplexity(ctx, model, documents, &options, &result));
    printf("perplexity %.3f over %lld tokens of %lld documents (each by itself, at most %lld tokens)\n", result.perplexity,
           (long long)result.tokens, (long long)result.sequences, (long long)result.context);
    ganq_corpus_free(documents);
    ganq_tokenizer_free(tokenizer);
    ganq_model_free(model);
    ganq_context_free(ctx);
    return 0;
}
