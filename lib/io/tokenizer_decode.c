/* tokenizer_decode.c - ids to text, all at once or token by token. */
#include <string.h>

#include "tokenizer_parts.h"

/* What decoding carries from token to token. */
typedef struct progress {
    const ganq_tokenizer *tokenizer;
    uint32_t flags;
    int strip; /* leading characters that may still go; counts for the first ordinary token with
                  text */
} progress;

static progress start_decoding(const ganq_tokenizer *tokenizer, uint32_t flags) {
    return (progress){tokenizer, flags, tokenizer->strip_count};
}

/* Whether encoding puts a mark in front of a text's beginning alone: text behind a special token then
 * has none that decoding should take away. */
static int prepends_once(const ganq__splits *splits) {
    for (size_t i = 0; i < splits->count; i++)
        if (splits->items[i].kind == GANQ__SPLIT_METASPACE &&
            splits->items[i].scheme == GANQ__SCHEME_FIRST)
            return 1;
    return 0;
}

static ganq_status append_token(progress *p, int32_t id, ganq__buffer *out) {
    const ganq__vocab *vocab = &p->tokenizer->vocab;
    if (id < 0 || id >= vocab->size || !vocab->tokens[id].piece)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "token id %d is not in the vocabulary of %s (%d ids)", id,
                  p->tokenizer->path, vocab->size);
    const ganq__token *token = &vocab->tokens[id];
    if (token->special) {
        if (p->flags & GANQ_DECODE_SKIP_SPECIAL)
            return GANQ_OK;
        if (prepends_once(&p->tokenizer->splits))
            p->strip = 0;
        return ganq__buffer_append(out, token->text, token->text_size);
    }
    const char *text = token->text;
    size_t size = token->text_size, mark = strlen(p->tokenizer->strip);
    for (; p->strip > 0 && size >= mark && memcmp(text, p->tokenizer->strip, mark) == 0;
         p->strip--) {
        text += mark;
        size -= mark;
    }
    if (size)
        p->strip = 0;
    return ganq__buffer_append(out, text, size);
}

ganq_status ganq__tokenizer_decode(const ganq_tokenizer *tokenizer, const int32_t *ids,
                                   size_t count, uint32_t flags, char **text, size_t *length) {
    progress p = start_decoding(tokenizer, flags);
    ganq__buffer out = {0};
    ganq_status status = ganq__buffer_append(&out, "", 0);
    for (size_t i = 0; status == GANQ_OK && i < count; i++)
        status = append_token(&p, ids[i], &out);
    if (status != GANQ_OK) {
        ganq__buffer_free(&out);
        return status;
    }
    *text = out.data;
    *length = out.size;
    return GANQ_OK;
}

struct ganq_decoder {
    ganq_tokenizer *tokenizer;
    progress progress;
    ganq__buffer text; /* what was handed out by the last call, then what is held back */
    size_t handed_out;
};

ganq_status ganq__decoder_create(const ganq_tokenizer *tokenizer, uint32_t flags,
                                 ganq_decoder **out) {
    ganq_decoder *decoder = ganq__calloc(1, sizeof *decoder);
    if (!decoder)
        return GANQ_ERR_NO_MEMORY;
    ganq_status status = ganq__buffer_append(&decoder->text, "", 0);
    if (status != GANQ_OK) {
        ganq__free(decoder);
        return status;
    }
    /* The reference count is the only thing in a tokenizer that ever changes. */
    decoder->tokenizer = (ganq_tokenizer *)(uintptr_t)tokenizer;
    atomic_fetch_add(&decoder->tokenizer->references, 1);
    decoder->progress = start_decoding(tokenizer, flags);
    *out = decoder;
    return GANQ_OK;
}

static void drop_handed_out(ganq_decoder *decoder) {
    ganq__buffer *text = &decoder->text;
    text->size -= decoder->handed_out;
    memmove(text->data, text->data + decoder->handed_out, text->size + 1);
    decoder->handed_out = 0;
}

/* Bytes at the end that begin a character and do not finish it. */
static size_t unfinished(const char *text, size_t size) {
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        uint8_t byte = (uint8_t)text[size - back];
        if ((byte & 0xc0) == 0x80)
            continue;
        size_t needed = byte >= 0xf0 && byte <= 0xf4  ? 4
                        : byte >= 0xe0 && byte < 0xf0 ? 3
                        : byte >= 0xc2 && byte < 0xe0 ? 2
                                                      : 1;
        return needed > back ? back : 0;
    }
    return 0;
}

ganq_status ganq__decoder_push(ganq_decoder *decoder, int32_t id, const char **text,
                               size_t *length) {
    drop_handed_out(decoder);
    GANQ_TRY(append_token(&decoder->progress, id, &decoder->text));
    decoder->handed_out = decoder->text.size - unfinished(decoder->text.data, decoder->text.size);
    *text = decoder->text.data;
    *length = decoder->handed_out;
    return GANQ_OK;
}

ganq_status ganq__decoder_flush(ganq_decoder *decoder, const char **text, size_t *length) {
    drop_handed_out(decoder);
    decoder->handed_out = decoder->text.size;
    *text = decoder->text.data;
    *length = decoder->handed_out;
    return GANQ_OK;
}

void ganq__decoder_free(ganq_decoder *decoder) {
    if (!decoder)
        return;
    ganq__tokenizer_free(decoder->tokenizer);
    ganq__buffer_free(&decoder->text);
    ganq__free(decoder);
}
