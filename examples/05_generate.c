/* 05_generate.c - text from a model, token by token.
 *   cc 05_generate.c $(pkg-config --cflags --libs ganq) && ./a.out [MODEL_DIR [PROMPT]] */
#include "example.h"

#include <string.h>

static int print_token(int32_t id, void *user) {
    const char *text;
    size_t length;
    if (ganq_decoder_push(user, id, &text, &length) != GANQ_OK)
        return 1;
    fwrite(text, 1, length, stdout);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv) {
    const char *dir = argc > 1 ? argv[1] : EXAMPLE_MODEL, *prompt = argc > 2 ? argv[2] : "Once upon a time";
    ganq_context *ctx;
    ganq_tokenizer *tokenizer;
    ganq_decoder *decoder;
    ganq_model *model;
    ganq_session *session;
    CHECK(ganq_context_create(NULL, &ctx));
    CHECK(ganq_model_load(ctx, dir, NULL, &model));
    CHECK(ganq_tokenizer_load(dir, &tokenizer));
    CHECK(ganq_decoder_create(tokenizer, GANQ_DECODE_SKIP_SPECIAL, &decoder));
    CHECK(ganq_session_create(ctx, model, 0, &session));

    int32_t *ids;
    size_t count;
    CHECK(ganq_tokenizer_encode(tokenizer, prompt, strlen(prompt), GANQ_ENCODE_BOS, &ids, &count));
    for (size_t i = 0; i < count; i++)
        print_token(ids[i], decoder);
    CHECK(ganq_session_prefill(session, ids, count));
    ganq_free(ids);

    ganq_generate_options options = {.struct_size = sizeof options, .max_tokens = 60};
    options.sampling = (ganq_sampling){.struct_size = sizeof(ganq_sampling), .temperature = 0.7f, .top_p = 0.9f, .seed = 1};
    int64_t generated;
    CHECK(ganq_session_generate(session, &options, print_token, decoder, &generated));
    printf("\n(%lld tokens)\n", (long long)generated);

    ganq_session_free(session);
    ganq_decoder_free(decoder);
    ganq_tokenizer_free(tokenizer);
    ganq_model_free(model);
    ganq_context_free(ctx);
    return 0;
}
