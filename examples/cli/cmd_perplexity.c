/* cmd_perplexity.c - `ganq perplexity`: how well a model predicts a text, by a named protocol. */
#include "cli.h"

int cmd_perplexity(int argc, char **argv) {
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *text = NULL, *path = NULL;
    int64_t protocol = 0, context = -1, max_tokens = 0, skip = 0;
    int json = 0;
    const cli_option options[] = {
        {CLI_TEXT, 0, "text", &text, "FILE", 0, 0,
         "text: .txt, .jsonl, .json, each maybe .gz, or token ids: .ids"},
        {CLI_CHOICE, 0, "protocol", &protocol, "gptq|document", 0, 0,
         "gptq: all documents joined, windows of L tokens without overlap, mean over windows, as "
         "in the papers; document: every document by itself from BOS, cut at L, mean over tokens"},
        {CLI_INT, 0, "ctx", &context, "L", 2, 1e9,
         "window; default: 2048, or the model's maximum if less"},
        {CLI_INT, 0, "max-tokens", &max_tokens, "N", 0, 1e15,
         "document: stop after the document that reaches N predictions; gptq: use at most N "
         "tokens; 0: all"},
        {CLI_INT, 0, "skip", &skip, "N", 0, 1e15, "drop the first N documents"},
        {CLI_FLAG, 0, "json", &json, NULL, 0, 0,
         "print JSON: perplexity, tokens, protocol, nll, ..."},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        "perplexity",
        "MODEL --text FILE [options]",
        "Measures exp of the mean negative log likelihood of a text's tokens.\n\n"
        "  ganq perplexity out4 --text wikitext2.test.raw --ctx 2048",
        options,
        1,
        1};
    int code = cli_parse(&command, argc, argv, &path);
    if (code != CLI_CONTINUE)
        return code;
    if (!text)
        return cli_usage("perplexity: --text FILE is missing");
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;

    ganq_model *model = NULL;
    ganq_corpus *corpus = NULL;
    ganq_model_info info = {.struct_size = sizeof info};
    ganq_perplexity_result result = {.struct_size = sizeof result};
    ganq_status status = ganq_model_load(ctx, path, NULL, &model);
    if (status == GANQ_OK)
        status = ganq_model_get_info(model, &info);
    if (status != GANQ_OK) {
        code = cli_failed(status);
        goto done;
    }
    if (context < 0)
        context = info.max_positions > 0 && info.max_positions < 2048 ? info.max_positions : 2048;
    ganq_corpus_options corpus_options = {
        .struct_size = sizeof corpus_options,
        .mode = protocol == GANQ_PERPLEXITY_GPTQ ? GANQ_SAMPLE_JOINED : GANQ_SAMPLE_DOCUMENTS,
        .samples = -1,
        .length = context,
        .skip = skip};
    code = cli_corpus_load(path, text, &corpus_options, &corpus);
    if (code != CLI_OK)
        goto done;
    ganq_perplexity_options measure = {.struct_size = sizeof measure,
                                       .protocol = (int32_t)protocol,
                                       .context = context,
                                       .max_tokens = max_tokens};
    status = ganq_model_perplexity(ctx, model, corpus, &measure, &result);
    if (status != GANQ_OK) {
        code = cli_failed(status);
        goto done;
    }
    cli_progress_clear();
    const char *name = cli_choice("gptq|document", protocol);
    if (json)
        code = cli_print_json(json_pack(
            "{s:f, s:s, s:I, s:s, s:f, s:I, s:I, s:f}", "perplexity", result.perplexity, "numerics",
            cli_numerics(ctx), "tokens", (json_int_t)result.tokens, "protocol", name, "nll",
            result.nll, "sequences", (json_int_t)result.sequences, "ctx",
            (json_int_t)result.context, "seconds", result.seconds));
    else
        printf(
            "perplexity %.4f  (protocol %s, %lld predicted tokens in %lld %s, ctx %lld, %.1f s)\n",
            result.perplexity, name, (long long)result.tokens, (long long)result.sequences,
            protocol == GANQ_PERPLEXITY_GPTQ ? "windows" : "documents", (long long)result.context,
            result.seconds);
done:
    ganq_corpus_free(corpus);
    ganq_model_free(model);
    ganq_context_free(ctx);
    return code;
}
