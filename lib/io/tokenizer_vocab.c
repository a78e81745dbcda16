/* tokenizer_vocab.c - vocab.json with merges.txt: GPT-2's files, used by OPT and Qwen as well.
 * Neither says how text is split nor which tokens are special; tokenizer_config.json and
 * config.json beside them do, else the vocabulary itself tells OPT from GPT-2. */
#include <string.h>

#include "file.h"
#include "json.h"
#include "tokenizer_parts.h"

static ganq_status read_vocabulary(const json_t *vocab, const char *path, ganq_tokenizer *t) {
    const char *piece;
    const json_t *id;
    if (!json_is_object(vocab))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: expected an object of tokens and ids", path);
    const size_t count = json_object_size(vocab);
    json_object_foreach((json_t *)(uintptr_t)vocab, piece, id) {
        if (!json_is_integer(id))
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: the id of \"%.80s\" is not an integer", path, piece);
        GANQ_TRY(
            ganq__vocab_add(&t->vocab, json_integer_value(id), piece, strlen(piece), count, path));
    }
    return GANQ_OK;
}

/* One merge per line, the two pieces apart by a space; the first line may give a version. */
static ganq_status read_merges(const char *text, size_t size, const char *path, ganq_tokenizer *t) {
    size_t line_number = 0, rank = 0;
    for (size_t begin = 0, end; begin < size; begin = end + 1) {
        const char *line = text + begin, *newline = memchr(line, '\n', size - begin);
        end = newline ? (size_t)(newline - text) : size;
        size_t length = end - begin;
        line_number++;
        if (length > 0 && line[length - 1] == '\r')
            length--;
        if (length == 0 || (line_number == 1 && length >= 8 && memcmp(line, "#version", 8) == 0))
            continue;
        const char *space = memchr(line, ' ', length);
        size_t left = space ? (size_t)(space - line) : 0, right = length - left - 1;
        if (left == 0 || right == 0 || memchr(space + 1, ' ', right))
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: line %zu: expected two pieces, found \"%.*s\"", path,
                      line_number, (int)(length < 80 ? length : 80), line);
        GANQ_TRY(ganq__tokenizer_add_merge(t, line, left, space + 1, right, rank++, path));
    }
    return GANQ_OK;
}

static ganq_status add_special(ganq_tokenizer *t, const char *piece, const char *path) {
    int32_t id = ganq__vocab_find(&t->vocab, piece, strlen(piece));
    ganq__added added = {.id = id, .special = 1};
    return id < 0 ? GANQ_OK : ganq__tokenizer_add(t, added, piece, strlen(piece), path);
}

/* Special tokens that the vocabulary holds and no config names. OPT begins and ends with </s>; its
 * vocabulary is that of RoBERTa, an encoder, which is not run here. */
static ganq_status add_specials(ganq__family family, const char *path, const ganq__beside *beside,
                                ganq_tokenizer *t) {
    static const char *const opt[] = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"};
    t->adds_bos = ganq__beside_adds_bos(beside, family == GANQ__FAMILY_OPT);
    if (family == GANQ__FAMILY_OPT) {
        for (size_t i = 0; i < sizeof opt / sizeof *opt; i++)
            GANQ_TRY(add_special(t, opt[i], path));
        t->bos = t->eos = ganq__vocab_find(&t->vocab, "</s>", 4);
        return GANQ_OK;
    }
    GANQ_TRY(add_special(t, "<|endoftext|>", path));
    t->eos = ganq__vocab_find(&t->vocab, "<|endoftext|>", 13);
    t->bos = family == GANQ__FAMILY_GPT2 ? t->eos : -1;
    return GANQ_OK;
}

static ganq__family family_of(const ganq__beside *beside, const ganq_tokenizer *t) {
    ganq__family family = ganq__beside_family(beside);
    if (family != GANQ__FAMILY_UNKNOWN)
        return family;
    int like_opt =
        ganq__vocab_find(&t->vocab, "</s>", 4) == 2 && ganq__vocab_find(&t->vocab, "<pad>", 5) == 1;
    return like_opt ? GANQ__FAMILY_OPT : GANQ__FAMILY_GPT2;
}

static ganq_status add_splits(ganq__family family, const ganq__beside *beside, ganq_tokenizer *t) {
    const char *regex = family == GANQ__FAMILY_QWEN2 ? ganq__regex_qwen2 : ganq__regex_gpt2;
    ganq__split words = {.kind = GANQ__SPLIT_PATTERN, .behavior = GANQ__SPLIT_ISOLATED};
    int prefix = 0;
    if (beside->tokenizer)
        GANQ_TRY(ganq__json_bool(beside->tokenizer, "add_prefix_space", beside->tokenizer_path, 0,
                                 &prefix));
    if (prefix)
        GANQ_TRY(
            ganq__splits_add(&t->splits, (ganq__split){.kind = GANQ__SPLIT_PREFIX_SPACE}, t->path));
    GANQ_TRY(ganq__pattern_regex(regex, t->path, &words.pattern));
    return ganq__splits_add(&t->splits, words, t->path);
}

static ganq_status fill_texts(ganq_tokenizer *t) {
    ganq__buffer bytes = {0};
    ganq_status status = GANQ_OK;
    for (int32_t id = 0; status == GANQ_OK && id < t->vocab.size; id++) {
        ganq__token *token = &t->vocab.tokens[id];
        bytes.size = 0;
        int spelled =
            token->piece ? ganq__byte_unspell(token->piece, token->piece_size, &bytes) : 0;
        if (spelled < 0)
            status = GANQ_ERR_NO_MEMORY;
        if (spelled <= 0 || (bytes.size == token->piece_size))
            continue; /* nothing to do where every character stands for itself */
        token->text_size = (uint32_t)bytes.size;
        if (!(token->text = ganq__vocab_keep(&t->vocab, bytes.data, bytes.size)))
            status = GANQ_ERR_NO_MEMORY;
    }
    ganq__buffer_free(&bytes);
    return status;
}

ganq_status ganq__tokenizer_read_vocab(const json_t *vocab, const char *merges_path,
                                       const ganq__beside *beside, ganq_tokenizer *tokenizer) {
    char *merges;
    size_t size;
    GANQ_TRY(read_vocabulary(vocab, tokenizer->path, tokenizer));
    GANQ_TRY(ganq__file_read(merges_path, (uint64_t)1 << 30, &merges, &size));
    ganq_status status = read_merges(merges, size, merges_path, tokenizer);
    ganq__free(merges);
    GANQ_TRY(status);
    GANQ_TRY(fill_texts(tokenizer)); /* before the added tokens, which are not spelled */
    ganq__family family = family_of(beside, tokenizer);
    tokenizer->byte_level = 1;
    if (family == GANQ__FAMILY_QWEN2)
        GANQ_TRY(ganq__norms_add(&tokenizer->norms, (ganq__norm){.kind = GANQ__NORM_NFC}));
    GANQ_TRY(add_splits(family, beside, tokenizer));
    GANQ_TRY(ganq__beside_added(beside, tokenizer));
    return add_specials(family, tokenizer->path, beside, tokenizer);
}
