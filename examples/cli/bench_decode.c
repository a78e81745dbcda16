/* bench_decode.c - `ganq bench decode`: tokens per second of a model, from a directory or with
 * random weights of a known shape, beside a plain read of as many bytes as its weights have.
 *
 * A step of one token reads every weight once, but for the embedding, of which it reads a row:
 * read_floor_share = the time of a summing read of those bytes by as many threads / the step's
 * time; 1 is the speed of memory. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "read_floor.h"

enum {
    MAX_REPEATS = 100,
    STEPS_PER_READ = 8,
    READ_BYTES = 256 << 20 /* of one read; more than a cache, less than a step of a large model */
};

typedef struct settings {
    cli_common common;
    const char *path, *shape;
    int64_t bits, prompt, context, tokens, repeats, format;
} settings;

/* ---- shapes
 * ------------------------------------------------------------------------------------------------
 */

static const struct {
    const char *name, *config;
} shapes[] = {
    {"llama2-7b",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 4096, "
     "\"intermediate_size\": 11008, \"num_hidden_layers\": 32, "
     "\"num_attention_heads\": 32, \"num_key_value_heads\": 32, \"vocab_size\": 32000, "
     "\"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-5, "
     "\"hidden_act\": \"silu\", \"tie_word_embeddings\": false}"},
    {"tinyllama-1.1b", "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 2048, "
                       "\"intermediate_size\": 5632, \"num_hidden_layers\": 22, "
                       "\"num_attention_heads\": 32, \"num_key_value_heads\": 4, "
                       "\"vocab_size\": 32000, \"max_position_embeddings\": 2048, "
                       "\"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\", "
                       "\"tie_word_embeddings\": false}"},
    {"llama3-8b", "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 4096, "
                  "\"intermediate_size\": 14336, \"num_hidden_layers\": 32, "
                  "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, "
                  "\"vocab_size\": 128256, \"max_position_embeddings\": 8192, "
                  "\"rope_theta\": 500000.0, \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\", "
                  "\"tie_word_embeddings\": false}"},
    {"opt-6.7b", "{\"architectures\": [\"OPTForCausalLM\"], \"hidden_size\": 4096, "
                 "\"ffn_dim\": 16384, \"num_hidden_layers\": 32, \"num_attention_heads\": 32, "
                 "\"vocab_size\": 50272, \"max_position_embeddings\": 2048}"},
};
#define SHAPE_NAMES "llama2-7b|tinyllama-1.1b|llama3-8b|opt-6.7b"

static const char *shape_config(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (!strcmp(name, shapes[i].name))
            return shapes[i].config;
    return NULL;
}

/* A model of that shape, by way of a directory that holds a config.json for as long as it is read.
 */
static ganq_status make_model(ganq_context *ctx, const char *config, int64_t bits,
                              ganq_model **model) {
    const ganq_random_options options = {.struct_size = sizeof options, .bits = (int32_t)bits};
    const char *root = getenv("TMPDIR");
    char dir[4096], path[4200];
    snprintf(dir, sizeof dir, "%s/ganq-bench-XXXXXX", root && *root ? root : "/tmp");
    if (!mkdtemp(dir)) {
        cli_message("%s: cannot make a temporary directory", dir);
        return GANQ_ERR_IO;
    }
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *file = fopen(path, "w");
    int failed = !file || fputs(config, file) < 0;
    failed |= file && fclose(file) != 0;
    if (failed)
        cli_message("%s: cannot be written", path);
    ganq_status status = failed ? GANQ_ERR_IO : ganq_model_random(ctx, dir, &options, model);
    unlink(path);
    rmdir(dir);
    return status;
}

/* ---- times
 * ------------------------------------------------------------------------------------------------
 */

/* Medians of all of them are shown. */
typedef struct samples {
    read_floor *floor; /* NULL: not a CPU */
    uint64_t *pages;   /* what it reads */
    size_t pages_bytes;
    double prefills[MAX_REPEATS];
    double *steps, *reads; /* [repeats * tokens] */
    size_t prefill_count, step_count, read_count;
} samples;

/* Brings the session to `context` tokens: what it holds, cut or filled up with the prompt again. */
static ganq_status go_to_context(ganq_session *session, const int32_t *prompt, int64_t count,
                                 int64_t context) {
    int64_t length = ganq_session_length(session);
    ganq_status status = GANQ_OK;
    while (status == GANQ_OK && length < context) {
        int64_t more = context - length < count ? context - length : count;
        status = ganq_session_prefill(session, prompt, (size_t)more);
        length += more;
    }
    /* One less and a step: truncating drops the logits. */
    if (status == GANQ_OK && length > context)
        status = ganq_session_truncate(session, context - 1);
    if (status == GANQ_OK && length > context)
        status = ganq_session_step(session, prompt[0]);
    return status;
}

/* Prefill, then single steps; memory's speed changes from second to second where machines are
 * shared, so the reads stand between the steps. */
static ganq_status time_run(const settings *s, ganq_session *session, const int32_t *prompt,
                            int64_t tokens, samples *t) {
    ganq_status status = ganq_session_truncate(session, 0);
    double started = cli_now();
    int32_t id = 0;
    if (status == GANQ_OK)
        status = ganq_session_prefill(session, prompt, (size_t)s->prompt);
    if (status == GANQ_OK) /* waits for it */
        status = ganq_session_sample(session, NULL, &id);
    t->prefills[t->prefill_count++] = cli_now() - started;
    if (status == GANQ_OK)
        status = go_to_context(session, prompt, s->prompt, s->context);
    if (status == GANQ_OK)
        status = ganq_session_sample(session, NULL, &id);
    for (int64_t i = 0; i < tokens && status == GANQ_OK; i++) {
        started = cli_now();
        status = ganq_session_step(session, id);
        if (status == GANQ_OK)
            status = ganq_session_sample(session, NULL, &id);
        t->steps[t->step_count++] = cli_now() - started;
        if (status == GANQ_OK && cli_interrupted())
            status = GANQ_ERR_CANCELED;
        if (t->floor && i % STEPS_PER_READ == 0)
            t->reads[t->read_count++] = read_floor_time(t->floor, t->pages, t->pages_bytes);
    }
    return status;
}

/* Bytes that a step reads: everything but an embedding that is not the head as well. A dense head is as large as the
 * embedding; a model that has both has their parameters twice beside its blocks' linears. */
static int64_t step_bytes(const ganq_model *model, const ganq_model_info *info) {
    const int64_t others = info->stored_bytes - info->linear_bytes;
    int64_t parameters = info->parameters;
    for (int64_t i = 0; i < info->linears; i++) {
        ganq_linear_info linear = {.struct_size = sizeof linear};
        if (ganq_model_get_linear(model, i, &linear) == GANQ_OK)
            parameters -= linear.rows * linear.cols;
    }
    const int has_both = parameters >= 2 * info->vocab_size * info->hidden_size;
    return info->linear_bytes + (has_both ? others / 2 : others);
}

static int samples_open(samples *t, const settings *s, ganq_context *ctx) {
    const size_t count = (size_t)(s->repeats * s->tokens);
    memset(t, 0, sizeof *t);
    t->steps = malloc(count * sizeof *t->steps);
    t->reads = malloc(count * sizeof *t->reads);
    t->pages_bytes = READ_BYTES;
    t->pages = read_floor_allocate(t->pages_bytes);
    if (!t->steps || !t->reads || !t->pages) {
        cli_message("out of memory");
        return CLI_FAILURE;
    }
    for (size_t i = 0; i < t->pages_bytes / sizeof *t->pages; i++)
        t->pages[i] = i;
    if (!strncmp(ganq_context_device_name(ctx), "cpu", 3) &&
        !(t->floor = read_floor_open(ganq_context_threads(ctx))))
        return CLI_FAILURE;
    return CLI_OK;
}

static void samples_close(samples *t) {
    read_floor_close(t->floor);
    free(t->steps);
    free(t->reads);
    free(t->pages);
}

static json_t *make_row(ganq_context *ctx, const settings *s, const ganq_model_info *info,
                        int64_t bytes, double ready, samples *t) {
    const double prefill = cli_median(t->prefills, t->prefill_count);
    const double step = cli_median(t->steps, t->step_count);
    json_t *row =
        json_pack("{s:s, s:s, s:f, s:s, s:i, s:f, s:I, s:f, s:I, s:I, s:f, s:f, s:f, s:f}", "model",
                  s->shape ? s->shape : s->path, "numerics", cli_numerics(ctx), "bits_per_weight",
                  info->bits_per_weight, "device", ganq_context_device_name(ctx), "threads",
                  ganq_context_threads(ctx), "session_s", ready, "prefill_tokens",
                  (json_int_t)s->prompt, "prefill_tokens_per_s", (double)s->prompt / prefill,
                  "decode_context", (json_int_t)s->context, "decode_tokens", (json_int_t)s->tokens,
                  "decode_tokens_per_s", 1 / step, "ms_per_token", 1e3 * step, "weights_gb",
                  1e-9 * (double)bytes, "gb_per_s", 1e-9 * (double)bytes / step);
    if (t->floor) {
        const double speed = (double)t->pages_bytes / cli_median(t->reads, t->read_count);
        json_object_set_new(row, "read_gb_per_s", json_real(1e-9 * speed));
        json_object_set_new(row, "read_floor_share", json_real((double)bytes / speed / step));
    }
    return row;
}

static int measure(ganq_context *ctx, const settings *s, const ganq_model *model, samples *t) {
    ganq_session *session = NULL;
    ganq_model_info info = {.struct_size = sizeof info};
    ganq_status status = ganq_model_get_info(model, &info);
    int32_t *prompt = malloc((size_t)s->prompt * sizeof *prompt);
    if (!prompt) {
        cli_message("out of memory");
        return CLI_FAILURE;
    }
    cli_random random = {1};
    for (int64_t i = 0; status == GANQ_OK && i < s->prompt; i++)
        prompt[i] = (int32_t)(cli_random_bits(&random) % (uint64_t)info.vocab_size);
    const int64_t most = s->prompt > s->context ? s->prompt : s->context;
    double started = cli_now();
    if (status == GANQ_OK)
        status = ganq_session_create(ctx, model, most + s->tokens, &session);
    const double ready = cli_now() - started;
    if (status == GANQ_OK) /* what is made or read at first use */
        status = time_run(s, session, prompt, 1, t);
    t->prefill_count = t->step_count = t->read_count = 0;
    for (int64_t r = 0; r < s->repeats && status == GANQ_OK; r++)
        status = time_run(s, session, prompt, s->tokens, t);
    free(prompt);
    ganq_session_free(session);
    if (status != GANQ_OK)
        return cli_failed(status);
    json_t *rows = json_array();
    json_array_append_new(rows, make_row(ctx, s, &info, step_bytes(model, &info), ready, t));
    return cli_print_rows(rows, s->format);
}

int cmd_bench_decode(int argc, char **argv) {
    settings s = {.common = CLI_COMMON_DEFAULTS,
                  .bits = 4,
                  .prompt = 512,
                  .context = -1,
                  .tokens = 128,
                  .repeats = 3,
                  .format = CLI_FORMAT_MD};
    const cli_option options[] = {
        {CLI_TEXT, 0, "shape", &s.shape, SHAPE_NAMES, 0, 0,
         "instead of MODEL: random weights of this shape, made in memory"},
        {CLI_INT, 'b', "bits", &s.bits, "B", 2, 16, "of random weights: 2, 3, 4, or 16, dense F16"},
        {CLI_INT, 0, "prompt-tokens", &s.prompt, "P", 1, 1e6, "tokens of the prefill"},
        {CLI_INT, 0, "context", &s.context, "C", 1, 1e6,
         "tokens in the cache before the first step; default: 128, or as many as the model has "
         "room "
         "for"},
        {CLI_INT, 'n', "tokens", &s.tokens, "N", 1, 1e6, "steps"},
        {CLI_INT, 'r', "repeat", &s.repeats, "R", 1, MAX_REPEATS, "the median of R runs is shown"},
        {CLI_CHOICE, 'o', "format", &s.format, CLI_FORMATS, 0, 0, "of the output"},
        CLI_COMMON_OPTIONS(s.common)};
    const cli_command command = {
        "bench decode",
        "[MODEL] [options]",
        "Tokens per second of a model: the prefill of P tokens, and N single steps after C "
        "tokens.\n"
        "gb_per_s counts the weights that a step reads; read_floor_share compares with a summing "
        "read of as\n"
        "many bytes by as many threads in the same run (1: the speed of memory).\n\n"
        "  ganq bench decode --shape llama2-7b --bits 4\n"
        "  ganq bench decode out4 --prompt-tokens 128 -n 64",
        options,
        0,
        1};
    int code = cli_parse(&command, argc, argv, &s.path);
    if (code != CLI_CONTINUE)
        return code;
    if (!s.path == !s.shape)
        return cli_usage("bench decode: a MODEL or --shape is needed, one of the two");
    const char *config = s.shape ? shape_config(s.shape) : NULL;
    if (s.shape && !config)
        return cli_usage("--shape: expected " SHAPE_NAMES ", found \"%s\"", s.shape);
    ganq_context *ctx = NULL;
    code = cli_context_create(&s.common, &ctx);
    if (code != CLI_OK)
        return code;
    ganq_model *model = NULL;
    samples t = {0};
    ganq_model_info info = {.struct_size = sizeof info};
    ganq_status status = config ? make_model(ctx, config, s.bits, &model)
                                : ganq_model_load(ctx, s.path, NULL, &model);
    cli_progress_clear();
    if (status == GANQ_OK)
        status = ganq_model_get_info(model, &info);
    if (s.context < 0) {
        s.context = info.max_positions - s.tokens < 128 ? info.max_positions - s.tokens : 128;
        s.context = s.context < 1 ? 1 : s.context;
    }
    if (status == GANQ_OK)
        code = samples_open(&t, &s, ctx);
    if (status != GANQ_OK)
        code = cli_failed(status);
    else if (code == CLI_OK)
        code = measure(ctx, &s, model, &t);
    samples_close(&t);
    ganq_model_free(model);
    ganq_context_free(ctx);
    return code;
}
