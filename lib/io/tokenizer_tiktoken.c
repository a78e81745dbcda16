/* tokenizer_tiktoken.c - rank files: one token per line, its bytes in base64 and its rank, which is
 * its id and its priority. Two neighbours merge if their bytes together are a token. Special tokens
 * and the split rule are not in the file: tokenizer_config.json and config.json beside it give
 * them, else the number of ranks tells the family. */
#include <string.h>

#include "tokenizer_parts.h"

static int base64_value(char c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Appends the decoded bytes; *valid = 0 for anything that is not base64 of at least one byte. */
static ganq_status decode_base64(const char *text, size_t size, ganq__buffer *out, int *valid) {
    size_t padding = 0;
    while (padding < 2 && size > padding && text[size - 1 - padding] == '=')
        padding++;
    *valid = 0;
    if (size == 0 || size % 4 != 0)
        return GANQ_OK;
    uint32_t bits = 0;
    for (size_t i = 0; i < size; i++) {
        int value = i < size - padding ? base64_value(text[i]) : 0;
        if (value < 0)
            return GANQ_OK;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 != 3)
            continue;
        char bytes[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
        GANQ_TRY(ganq__buffer_append(out, bytes, i + 1 == size ? 3 - padding : 3));
    }
    *valid = 1;
    return GANQ_OK;
}

static ganq_status add_line(ganq_tokenizer *t, const char *line, size_t length, size_t number,
                            size_t expected, ganq__buffer bytes[2]) {
    const char *space = memchr(line, ' ', length);
    size_t encoded = space ? (size_t)(space - line) : 0, digits = length - encoded - 1;
    int valid;
    bytes[0].size = bytes[1].size = 0;
    GANQ_TRY(decode_base64(line, encoded, &bytes[0], &valid));
    int64_t rank = 0;
    for (size_t i = 0; valid && i < digits; i++) {
        valid = space[1 + i] >= '0' && space[1 + i] <= '9' && digits <= 9;
        rank = 10 * rank + (space[1 + i] - '0');
    }
    if (!valid || digits == 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: line %zu: expected base64 and a rank, found \"%.*s\"",
                  t->path, number, (int)(length < 80 ? length : 80), line);
    for (size_t i = 0; i < bytes[0].size; i++) {
        char spelled[4];
        GANQ_TRY(ganq__buffer_append(&bytes[1], spelled,
                                     ganq__byte_spell((uint8_t)bytes[0].data[i], spelled)));
    }
    ganq_status status =
        ganq__vocab_add(&t->vocab, rank, bytes[1].data, bytes[1].size, expected, t->path);
    if (status != GANQ_OK) {
        ganq__fail_prefix("line %zu", number);
        return status;
    }
    ganq__token *token = &t->vocab.tokens[rank];
    token->text_size = (uint32_t)bytes[0].size;
    token->text = ganq__vocab_keep(&t->vocab, bytes[0].data, bytes[0].size);
    return token->text ? GANQ_OK : GANQ_ERR_NO_MEMORY;
}

static ganq_status read_lines(const char *data, size_t size, ganq_tokenizer *t) {
    ganq__buffer bytes[2] = {{0}, {0}};
    ganq_status status = GANQ_OK;
    size_t number = 0, lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += data[i] == '\n';
    for (size_t begin = 0, end; status == GANQ_OK && begin < size; begin = end + 1) {
        const char *newline = memchr(data + begin, '\n', size - begin);
        end = newline ? (size_t)(newline - data) : size;
        size_t length = end - begin;
        if (length > 0 && data[begin + length - 1] == '\r')
            length--;
        number++;
        if (length > 0)
            status = add_line(t, data + begin, length, number, lines, bytes);
    }
    ganq__buffer_free(&bytes[0]);
    ganq__buffer_free(&bytes[1]);
    return status;
}

static ganq_status add_merges(ganq_tokenizer *t) {
    uint32_t *ranks;
    GANQ_ALLOC(ranks, (size_t)t->vocab.size);
    for (int32_t id = 0; id < t->vocab.size; id++)
        ranks[id] = (uint32_t)id;
    ganq_status status = ganq__tokenizer_derive_merges(t, ranks);
    ganq__free(ranks);
    return status;
}

/* ---- Families ---- */

static ganq_status add_special(ganq_tokenizer *t, int32_t id, const char *piece) {
    /* tokenizer_config.json has already named this id, perhaps differently: later releases gave
     * reserved ones a name */
    if (id < t->vocab.size && t->vocab.tokens[id].piece)
        return GANQ_OK;
    return ganq__tokenizer_add(t, (ganq__added){.id = id, .special = 1}, piece, strlen(piece),
                               t->path);
}

/* 256 special tokens behind the ranks; those that are not listed are reserved and counted. */
static ganq_status add_llama3(ganq_tokenizer *t, int32_t base) {
    static const struct {
        int32_t offset;
        const char *piece;
    } named[] = {{0, "<|begin_of_text|>"},
                 {1, "<|end_of_text|>"},
                 {6, "<|start_header_id|>"},
                 {7, "<|end_header_id|>"},
                 {9, "<|eot_id|>"}};
    int reserved = 0;
    for (int32_t offset = 0, next = 0; offset < 256; offset++) {
        char piece[48];
        if (next < (int32_t)(sizeof named / sizeof *named) && named[next].offset == offset)
            snprintf(piece, sizeof piece, "%s", named[next++].piece);
        else
            snprintf(piece, sizeof piece, "<|reserved_special_token_%d|>", reserved++);
        GANQ_TRY(add_special(t, base + offset, piece));
    }
    t->bos = base;
    t->eos = base + 1;
    t->adds_bos = 1;
    return GANQ_OK;
}

static ganq_status add_gpt2(ganq_tokenizer *t, int32_t base) {
    GANQ_TRY(add_special(t, base, "<|endoftext|>"));
    t->bos = t->eos = base;
    return GANQ_OK;
}

static ganq_status add_cl100k(ganq_tokenizer *t, int32_t base) {
    GANQ_TRY(add_special(t, base + 1, "<|endoftext|>"));
    GANQ_TRY(add_special(t, base + 2, "<|fim_prefix|>"));
    GANQ_TRY(add_special(t, base + 3, "<|fim_middle|>"));
    GANQ_TRY(add_special(t, base + 4, "<|fim_suffix|>"));
    GANQ_TRY(add_special(t, base + 20, "<|endofprompt|>"));
    t->eos = base + 1;
    return GANQ_OK;
}

static ganq_status add_qwen(ganq_tokenizer *t, int32_t base) {
    GANQ_TRY(add_special(t, base, "<|endoftext|>"));
    GANQ_TRY(add_special(t, base + 1, "<|im_start|>"));
    GANQ_TRY(add_special(t, base + 2, "<|im_end|>"));
    t->eos = base;
    return GANQ_OK;
}

static ganq_status add_family(const ganq__beside *beside, ganq_tokenizer *t) {
    static const struct {
        int32_t ranks;
        ganq__family family;
        const char *regex;
        ganq_status (*add)(ganq_tokenizer *, int32_t);
    } known[] = {{128000, GANQ__FAMILY_LLAMA3, ganq__regex_llama3, add_llama3},
                 {50256, GANQ__FAMILY_GPT2, ganq__regex_gpt2, add_gpt2},
                 {100256, GANQ__FAMILY_UNKNOWN, ganq__regex_llama3, add_cl100k},
                 {151643, GANQ__FAMILY_QWEN2, ganq__regex_qwen2, add_qwen}};
    const int32_t ranks = t->vocab.size;
    const ganq__family family = ganq__beside_family(beside);
    size_t i = 0;
    while (i < sizeof known / sizeof *known && known[i].ranks != ranks)
        i++;
    const int counted = i < sizeof known / sizeof *known;
    if (!counted)
        for (i = 0; i < sizeof known / sizeof *known && known[i].family != family; i++)
            ;
    if (i == sizeof known / sizeof *known || (!counted && family == GANQ__FAMILY_UNKNOWN))
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "%s: a rank file of %d tokens, and nothing beside it that tells the family and "
                  "so the split rule",
                  t->path, ranks);
    ganq__split words = {.kind = GANQ__SPLIT_PATTERN, .behavior = GANQ__SPLIT_ISOLATED};
    GANQ_TRY(ganq__pattern_regex(known[i].regex, t->path, &words.pattern));
    GANQ_TRY(ganq__splits_add(&t->splits, words, t->path));
    if (known[i].family == GANQ__FAMILY_QWEN2)
        GANQ_TRY(ganq__norms_add(&t->norms, (ganq__norm){.kind = GANQ__NORM_NFC}));
    GANQ_TRY(ganq__beside_added(beside, t));
    return known[i].add(t, ranks);
}

static ganq_status check_bytes(const ganq_tokenizer *t) {
    for (int byte = 0; byte < 256; byte++) {
        char spelled[4];
        if (ganq__vocab_find(&t->vocab, spelled, ganq__byte_spell((uint8_t)byte, spelled)) < 0)
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: no token for the byte 0x%02x", t->path, byte);
    }
    return GANQ_OK;
}

ganq_status ganq__tokenizer_read_tiktoken(const char *data, size_t size, const ganq__beside *beside,
                                          ganq_tokenizer *tokenizer) {
    GANQ_TRY(read_lines(data, size, tokenizer));
    GANQ_TRY(check_bytes(tokenizer));
    GANQ_TRY(add_merges(tokenizer));
    tokenizer->byte_level = 1;
    tokenizer->ignore_merges =
        1; /* a word that is a token is that token, whatever the merges would make of it */
    return add_family(beside, tokenizer);
}
