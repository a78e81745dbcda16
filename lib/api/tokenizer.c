/* tokenizer.c - the public tokenizer calls. */
#include "ganq/tokenizer.h"

#include "file.h"
#include "status.h"
#include "tokenizer.h"

static ganq_status check_flags(uint32_t flags, uint32_t known, const char *what) {
    if (flags & ~known)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: unknown flags 0x%x", what, flags & ~known);
    return GANQ_OK;
}

ganq_status ganq_tokenizer_load(const char *path, ganq_tokenizer **out) {
    if (!path || !out)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_tokenizer_load: path or out is NULL");
    GANQ_TRY(ganq__path_check(path, "ganq_tokenizer_load: path"));
    return ganq__tokenizer_load(path, out);
}

void ganq_tokenizer_free(ganq_tokenizer *tokenizer) {
    ganq__tokenizer_free(tokenizer);
}

ganq_status ganq_tokenizer_encode(const ganq_tokenizer *tokenizer, const char *text, size_t length,
                                  uint32_t flags, int32_t **ids, size_t *count) {
    if (!tokenizer || (!text && length) || !ids || !count)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_tokenizer_encode: tokenizer, text, ids or count is NULL");
    GANQ_TRY(check_flags(flags, GANQ_ENCODE_BOS | GANQ_ENCODE_SPECIAL, "ganq_tokenizer_encode"));
    return ganq__tokenizer_encode(tokenizer, text ? text : "", length, flags, ids, count);
}

ganq_status ganq_tokenizer_decode(const ganq_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                  uint32_t flags, char **text, size_t *length) {
    if (!tokenizer || (!ids && count) || !text || !length)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_tokenizer_decode: tokenizer, ids, text or length is NULL");
    GANQ_TRY(check_flags(flags, GANQ_DECODE_SKIP_SPECIAL, "ganq_tokenizer_decode"));
    return ganq__tokenizer_decode(tokenizer, ids, count, flags, text, length);
}

ganq_status ganq_decoder_create(const ganq_tokenizer *tokenizer, uint32_t flags,
                                ganq_decoder **out) {
    if (!tokenizer || !out)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_decoder_create: tokenizer or out is NULL");
    GANQ_TRY(check_flags(flags, GANQ_DECODE_SKIP_SPECIAL, "ganq_decoder_create"));
    return ganq__decoder_create(tokenizer, flags, out);
}

ganq_status ganq_decoder_push(ganq_decoder *decoder, int32_t id, const char **text,
                              size_t *length) {
    if (!decoder || !text || !length)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_decoder_push: decoder, text or length is NULL");
    return ganq__decoder_push(decoder, id, text, length);
}

ganq_status ganq_decoder_flush(ganq_decoder *decoder, const char **text, size_t *length) {
    if (!decoder || !text || !length)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_decoder_flush: decoder, text or length is NULL");
    return ganq__decoder_flush(decoder, text, length);
}

void ganq_decoder_free(ganq_decoder *decoder) {
    ganq__decoder_free(decoder);
}

int32_t ganq_tokenizer_vocab_size(const ganq_tokenizer *tokenizer) {
    return tokenizer ? ganq__tokenizer_vocab_size(tokenizer) : 0;
}

int32_t ganq_tokenizer_bos(const ganq_tokenizer *tokenizer) {
    return tokenizer ? ganq__tokenizer_bos(tokenizer) : -1;
}

int32_t ganq_tokenizer_eos(const ganq_tokenizer *tokenizer) {
    return tokenizer ? ganq__tokenizer_eos(tokenizer) : -1;
}

const char *ganq_tokenizer_piece(const ganq_tokenizer *tokenizer, int32_t id) {
    return tokenizer ? ganq__tokenizer_piece(tokenizer, id) : NULL;
}

int32_t ganq_tokenizer_id(const ganq_tokenizer *tokenizer, const char *piece) {
    return tokenizer && piece ? ganq__tokenizer_id(tokenizer, piece) : -1;
}
