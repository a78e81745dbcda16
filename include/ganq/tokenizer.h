/* ganq/tokenizer.h - text to token ids and back, and token sequences for calibration and evaluation. */
#ifndef GANQ_TOKENIZER_H
#define GANQ_TOKENIZER_H

#include "ganq/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Immutable once loaded; may be used from many threads. */
typedef struct ganq_tokenizer ganq_tokenizer;

/* path: a model directory (tokenizer.json, else tokenizer.model, else vocab.json + merges.txt) or one such
 * file. tokenizer.model may be SentencePiece BPE or a tiktoken rank file. tokenizer_config.json, config.json
 * and generation_config.json beside it supply special ids and, where the file does not say, the family's
 * split rule. NOT_FOUND if there is none; FORMAT names file and place; UNSUPPORTED for Unigram and WordPiece. */
GANQ_NODISCARD GANQ_API ganq_status ganq_tokenizer_load(const char *path, ganq_tokenizer **out);
GANQ_API void ganq_tokenizer_free(ganq_tokenizer *tokenizer);

typedef enum ganq_encode_flags {
    GANQ_ENCODE_BOS = 1,    /* begin as the tokenizer begins a text: with BOS where tokenizer.json's post-processor puts it,
                               where tokenizer.model is read (unless tokenizer_config.json has add_bos_token false), and for
                               OPT's vocab.json (others: add_bos_token true). GPT-2, Qwen and SmolLM begin without     */
    GANQ_ENCODE_SPECIAL = 2 /* "<|eot_id|>" in the text becomes that special token; otherwise plain text */
} ganq_encode_flags;
typedef enum ganq_decode_flags {
    GANQ_DECODE_SKIP_SPECIAL = 1 /* special tokens give no text */
} ganq_decode_flags;

/* text: `length` bytes, meant as UTF-8 (bytes that are not are kept by byte-level and byte-fallback
 * tokenizers). *ids: `*count` ids, freed by the caller with ganq_free; NULL when there are none. */
GANQ_NODISCARD GANQ_API ganq_status ganq_tokenizer_encode(const ganq_tokenizer *tokenizer,
                                                          const char *text, size_t length, uint32_t flags,
                                                          int32_t **ids, size_t *count);
/* *text: `*length` bytes and a closing NUL, freed by the caller with ganq_free. INVALID_ARG for an id
 * outside the vocabulary. */
GANQ_NODISCARD GANQ_API ganq_status ganq_tokenizer_decode(const ganq_tokenizer *tokenizer,
                                                          const int32_t *ids, size_t count, uint32_t flags,
                                                          char **text, size_t *length);

/* Decoding token by token: hands out only complete UTF-8 sequences. */
typedef struct ganq_decoder ganq_decoder;
GANQ_NODISCARD GANQ_API ganq_status ganq_decoder_create(const ganq_tokenizer *tokenizer, uint32_t flags,
                                                        ganq_decoder **out);
/* *text is borrowed until the next call on the decoder; may be empty. */
GANQ_NODISCARD GANQ_API ganq_status ganq_decoder_push(ganq_decoder *decoder, int32_t id,
                                                      const char **text, size_t *length);
/* What is left: bytes of an incomplete sequence. */
GANQ_NODISCARD GANQ_API ganq_status ganq_decoder_flush(ganq_decoder *decoder, const char **text,
                                                       size_t *length);
GANQ_API void ganq_decoder_free(ganq_decoder *decoder);

/* Number of ids (largest id + 1). */
GANQ_API int32_t ganq_tokenizer_vocab_size(const ganq_tokenizer *tokenizer);
/* -1 where the tokenizer has none. */
GANQ_API int32_t ganq_tokenizer_bos(const ganq_tokenizer *tokenizer);
GANQ_API int32_t ganq_tokenizer_eos(const ganq_tokenizer *tokenizer);
/* The piece as the vocabulary spells it, or NULL; borrowed. */
GANQ_API const char *ganq_tokenizer_piece(const ganq_tokenizer *tokenizer, int32_t id);
/* The id of a piece or special token as the vocabulary spells it, or -1. */
GANQ_API int32_t ganq_tokenizer_id(const ganq_tokenizer *tokenizer, const char *piece);

/* Token sequences: what calibration and evaluation read. */
typedef struct ganq_corpus ganq_corpus;

typedef enum ganq_sampling_mode {
    GANQ_SAMPLE_WINDOWS = 0,   /* `samples` random windows of `length` tokens (GPTQ's way): a random document of
                                  more than `length` tokens, a random start; if no document is that long, or
                                  there is one alone, starts in all documents joined. Python's random.Random(seed) is reproduced, so the same
                                  windows are drawn as by the papers' scripts                              */
    GANQ_SAMPLE_DOCUMENTS = 1, /* the first `samples` documents, encoded with BOS (above), cut at `length`   */
    GANQ_SAMPLE_JOINED = 2     /* one sequence: all documents joined by "\n\n", one tokenization with BOS */
} ganq_sampling_mode;

typedef struct ganq_corpus_options {
    uint32_t struct_size;
    int32_t mode;      /* ganq_sampling_mode; default WINDOWS                    */
    int64_t samples;   /* default 128; negative: all (DOCUMENTS)                 */
    int64_t length;    /* tokens per sequence; default 2048                      */
    int64_t skip;      /* documents to drop at the beginning; default 0          */
    uint64_t seed;     /* WINDOWS; default 0                                     */
} ganq_corpus_options;

GANQ_NODISCARD GANQ_API ganq_status ganq_corpus_create(ganq_corpus **out);
/* Appends one sequence of token ids (copied). */
GANQ_NODISCARD GANQ_API ganq_status ganq_corpus_add(ganq_corpus *corpus, const int32_t *ids,
                                                    size_t count);
/* Reads documents from a file: plain text (one document), .jsonl (a string or {"text": ...} per line), .json
 * (list of strings or of {"text": ...}; JSON lines are accepted, too), .ids (token ids in decimal, one document
 * per line, taken as they are: no BOS is added; tokenizer may be NULL), and .gz of each. Fewer documents than
 * `samples` are no error. FORMAT names file and line; INVALID_ARG if the text is too short for what was asked,
 * saying how many tokens there are. */
GANQ_NODISCARD GANQ_API ganq_status ganq_corpus_load(const ganq_tokenizer *tokenizer, const char *path,
                                                     const ganq_corpus_options *options,
                                                     ganq_corpus **out);
GANQ_API int64_t ganq_corpus_count(const ganq_corpus *corpus);
GANQ_API int64_t ganq_corpus_tokens(const ganq_corpus *corpus);
/* Sequence i, borrowed; *count tokens. NULL if i is out of range. */
GANQ_API const int32_t *ganq_corpus_get(const ganq_corpus *corpus, int64_t i, size_t *count);
GANQ_API void ganq_corpus_free(ganq_corpus *corpus);

#ifdef __cplusplus
}
#endif
#endif
