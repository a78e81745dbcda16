/* fuzz_tokenizer.c - any bytes as tokenizer.json, tokenizer.model, or vocab.json and merges.txt
 * with a NUL between them: refused with the file's name, or a tokenizer that encodes and decodes
 * without harm. */
#include "fuzz.h"

#include <stdio.h>
#include <string.h>

#include "tokenizer.h"

static void use(ganq_tokenizer *tokenizer) {
    static const char text[] =
        "the <tool> quick caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac <s> 2024\n\n  \xff\xc3 "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa he's A\xcc\x8a.";
    int32_t *ids = NULL;
    size_t count = 0, length, at = 0;
    char *decoded;
    const char *part;
    ganq_decoder *decoder;
    const uint32_t flags = GANQ_ENCODE_BOS | GANQ_ENCODE_SPECIAL;
    ganq_status status =
        ganq__tokenizer_encode(tokenizer, text, sizeof text - 1, flags, &ids, &count);
    FUZZ_CHECK(status == GANQ_OK ||
               status == GANQ_ERR_UNSUPPORTED); /* a regular expression beyond its limits */
    if (status == GANQ_OK) {
        FUZZ_CHECK(ganq__tokenizer_decode(tokenizer, ids, count, 0, &decoded, &length) == GANQ_OK);
        FUZZ_CHECK(ganq__decoder_create(tokenizer, 0, &decoder) == GANQ_OK);
        for (size_t i = 0, pushed; i <= count; i++, at += pushed) {
            FUZZ_CHECK((i < count ? ganq__decoder_push(decoder, ids[i], &part, &pushed)
                                  : ganq__decoder_flush(decoder, &part, &pushed)) == GANQ_OK);
            FUZZ_CHECK(at + pushed <= length && memcmp(part, decoded + at, pushed) == 0);
        }
        FUZZ_CHECK(at == length);
        ganq__decoder_free(decoder);
        ganq_free(decoded);
    }
    ganq_free(ids);
    int32_t bos = ganq__tokenizer_bos(tokenizer), eos = ganq__tokenizer_eos(tokenizer);
    FUZZ_CHECK(bos < ganq__tokenizer_vocab_size(tokenizer) &&
               eos < ganq__tokenizer_vocab_size(tokenizer));
    FUZZ_CHECK(bos < 0 || ganq__tokenizer_piece(tokenizer, bos));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char config[] =
        "{\"tokenizer_class\": \"GPT2Tokenizer\"}"; /* a rank file's family */
    const int json = size && data[0] == '{';
    const uint8_t *cut = json ? memchr(data, 0, size) : NULL;
    fuzz_file("tokenizer_config.json", (const uint8_t *)config, sizeof config - 1);
    if (cut)
        fuzz_file("merges.txt", cut + 1, size - (size_t)(cut - data) - 1);
    const char *path = cut ? fuzz_file("vocab.json", data, (size_t)(cut - data))
                           : fuzz_file(json ? "tokenizer.json" : "tokenizer.model", data, size);
    ganq_tokenizer *tokenizer = NULL;
    ganq_status status = ganq__tokenizer_load(path, &tokenizer);
    if (status == GANQ_OK) {
        use(tokenizer);
        ganq__tokenizer_free(tokenizer);
    } else {
        FUZZ_CHECK(!tokenizer && (status == GANQ_ERR_FORMAT || status == GANQ_ERR_UNSUPPORTED ||
                                  status == GANQ_ERR_NOT_FOUND));
        FUZZ_CHECK(strstr(ganq_last_error(), fuzz_dir()));
    }
    return 0;
}
