/* cmd_generate.c - `ganq generate`: text from a prompt, written as it comes. */
#include <string.h>

#include "cli.h"

typedef struct stream {
    ganq_decoder *decoder;
    ganq_status status;
    double first_token; /* when it came */
} stream;

static ganq_status write_token(ganq_decoder *decoder, int32_t id, int shown) {
    const char *text;
    size_t length;
    ganq_status status = ganq_decoder_push(decoder, id, &text, &length);
    if (status == GANQ_OK && shown) {
        fwrite(text, 1, length, stdout);
        fflush(stdout);
    }
    return status;
}

static int on_token(int32_t id, void *user) {
    stream *out = user;
    if (!out->first_token)
        out->first_token = cli_now();
    out->status = write_token(out->decoder, id, 1);
    return out->status != GANQ_OK || cli_interrupted() || ferror(stdout);
}

int cmd_generate(int argc, char **argv) {
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *prompt = "", *path = NULL;
    int64_t count = 128, top_k = 0, seed = 0, context = 0;
    double temperature = 0, top_p = 0, min_p = 0;
    int special = 0, no_prompt = 0, ignore_eos = 0, statistics = 0;
    const cli_option options[] = {
        {CLI_TEXT, 'p', "prompt", &prompt, "TEXT", 0, 0, "begins the text, behind BOS where the tokenizer puts one; \"\": BOS alone"},
        {CLI_INT, 'n', "tokens", &count, "N", 1, 1e9, "most tokens to generate"},
        {CLI_REAL, 0, "temp", &temperature, "T", 0, 100,
         "temperature; 0: always the likeliest token"},
        {CLI_INT, 0, "top-k", &top_k, "K", 0, 1e9, "draw from the K likeliest; 0: all"},
        {CLI_REAL, 0, "top-p", &top_p, "P", 0, 1,
         "draw from the smallest set of that probability; 0: all"},
        {CLI_REAL, 0, "min-p", &min_p, "P", 0, 1,
         "drop those less likely than P times the likeliest; 0: none"},
        {CLI_INT, 0, "seed", &seed, "S", 0, 9e18, "of the draws: equal seeds give equal text"},
        {CLI_INT, 0, "ctx", &context, "L", 0, 1e9,
         "tokens of context; 0: the model's maximum, at most 4096"},
        {CLI_FLAG, 0, "special", &special, NULL, 0, 0,
         "special tokens spelled in the prompt count as such"},
        {CLI_FLAG, 0, "no-prompt", &no_prompt, NULL, 0, 0, "print what was generated only"},
        {CLI_FLAG, 0, "ignore-eos", &ignore_eos, NULL, 0, 0,
         "go on after an end-of-sequence token"},
        {CLI_FLAG, 0, "stats", &statistics, NULL, 0, 0, "tokens and speed on standard error"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        "generate",
        "MODEL [--prompt TEXT] [options]",
        "Continues a prompt until an end-of-sequence token, N tokens, or a full context.\n\n"
        "  ganq generate out4 --prompt \"Once upon a time\" -n 200 --temp 0.8 --top-p 0.95 --seed "
        "1",
        options,
        1,
        1};
    int code = cli_parse(&command, argc, argv, &path);
    if (code != CLI_CONTINUE)
        return code;
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;

    ganq_model *model = NULL;
    ganq_tokenizer *tokenizer = NULL;
    ganq_session *session = NULL;
    stream out = {0};
    int32_t *ids = NULL;
    size_t id_count = 0;
    uint32_t flags = GANQ_ENCODE_BOS | (special ? GANQ_ENCODE_SPECIAL : 0);
    int64_t generated = 0;
    double started = 0, prefilled = 0;
    ganq_status status = ganq_model_load(ctx, path, NULL, &model);
    if (status == GANQ_OK)
        status = ganq_tokenizer_load(path, &tokenizer);
    if (status == GANQ_OK)
        status = ganq_tokenizer_encode(tokenizer, prompt, strlen(prompt), flags, &ids, &id_count);
    const int32_t bos = ganq_tokenizer_bos(tokenizer);
    const int32_t *begin = ids;
    if (status == GANQ_OK && !id_count && bos >= 0) {
        begin = &bos;
        id_count = 1;
    } else if (status == GANQ_OK && !id_count) {
        code = cli_usage("generate: this tokenizer has no BOS, so --prompt must not be empty");
        goto done;
    }
    if (status == GANQ_OK)
        status = ganq_session_create(ctx, model, context, &session);
    if (status == GANQ_OK)
        status = ganq_decoder_create(tokenizer, GANQ_DECODE_SKIP_SPECIAL, &out.decoder);
    started = cli_now();
    if (status == GANQ_OK)
        status = ganq_session_prefill(session, begin, id_count);
    prefilled = cli_now();
    /* The prompt goes through the decoder, too: its tokens decide whether a space comes next. */
    for (size_t i = 0; i < id_count && status == GANQ_OK; i++)
        status = write_token(out.decoder, begin[i], !no_prompt);
    if (status == GANQ_OK) {
        ganq_generate_options generate = {.struct_size = sizeof generate,
                                          .max_tokens = count,
                                          .sampling = {.struct_size = sizeof generate.sampling,
                                                       .temperature = (float)temperature,
                                                       .top_k = (int32_t)top_k,
                                                       .top_p = cli_float(top_p),
                                                       .min_p = (float)min_p,
                                                       .seed = (uint64_t)seed},
                                          .stop_count = ignore_eos ? -1 : 0};
        status = ganq_session_generate(session, &generate, on_token, &out, &generated);
    }
    if (status == GANQ_OK)
        status = out.status;
    if (status == GANQ_OK) {
        const char *rest;
        size_t length;
        status = ganq_decoder_flush(out.decoder, &rest, &length);
        if (status == GANQ_OK)
            fwrite(rest, 1, length, stdout);
        putchar('\n');
    }
    if (status != GANQ_OK)
        code = cli_failed(status);
    else if (cli_interrupted())
        code = CLI_INTERRUPTED;
    if (status == GANQ_OK && statistics) {
        double decode = cli_now() - prefilled;
        cli_note("prompt %zu tokens, %.1f per second; generated %lld, %.1f per second", id_count,
                 (double)id_count / (prefilled - started), (long long)generated,
                 (double)generated / decode);
    }
done:
    ganq_decoder_free(out.decoder);
    ganq_session_free(session);
    ganq_free(ids);
    ganq_tokenizer_free(tokenizer);
    ganq_model_free(model);
    ganq_context_free(ctx);
    return code;
}
