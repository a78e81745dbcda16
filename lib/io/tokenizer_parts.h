/* tokenizer_parts.h - what the tokenizer's own files share: the loaded object, the steps of
 * encoding.
 *
 * Every kind of file is brought into one shape, so that there is one encoder and one decoder:
 *   text -> added tokens of the raw text -> normalizers -> added tokens of the normalized text
 *        -> splits into words
 *        -> first symbols (bytes, or characters, with bytes where a character is unknown)
 *        -> merges by rank -> ids
 *   ids  -> the bytes of each token, worked out at load -> one leading dummy space removed
 *
 * Byte-level vocabularies (GPT-2's and its descendants', tiktoken rank files) spell every byte as
 * one printable character. Text is never spelled that way here: a byte goes straight to its id. */
#ifndef GANQ_IO_TOKENIZER_PARTS_H
#define GANQ_IO_TOKENIZER_PARTS_H

#include <jansson.h>
#include <stdatomic.h>

#include "buffer.h"
#include "tokenizer.h"

/* ---- UTF-8 ---- */

/* Bytes of the character at p (n >= 1 bytes are there) and its code point; 0 if it is not valid
 * UTF-8. */
size_t ganq__utf8_next(const char *p, size_t n, int32_t *cp);
/* The same for the character that ends at text + at. */
size_t ganq__utf8_before(const char *text, size_t at, int32_t *cp);
/* Writes 1 to 4 bytes. */
size_t ganq__utf8_put(int32_t cp, char out[4]);
/* Length of the longest valid prefix. */
size_t ganq__utf8_valid(const char *p, size_t n);
/* Unicode's White_Space. */
int ganq__is_space(int32_t cp);

/* ---- Vocabulary: pieces by id and ids by piece ---- */

typedef struct ganq__token {
    const char *piece; /* as the vocabulary spells it, NUL behind it; NULL: a hole, no such id */
    const char *text;  /* the bytes it decodes to */
    uint32_t piece_size, text_size, hash;
    uint8_t special;
    uint8_t outside; /* an added token that the model itself does not have: never the outcome of
                        merges */
} ganq__token;

typedef struct ganq__vocab {
    ganq__token *tokens;
    int32_t size, capacity; /* size = largest id + 1 */
    int32_t count;          /* ids in use */
    int32_t *slots;         /* open addressing: id, or -1 */
    size_t slot_count;
    struct ganq__block *blocks; /* the strings */
    size_t longest;             /* bytes of the longest piece */
} ganq__vocab;

/* FORMAT, with `what` in front, for an id or a piece that is taken and for an id far beyond
 * `expected` entries. */
ganq_status ganq__vocab_add(ganq__vocab *vocab, int64_t id, const char *piece, size_t size,
                            size_t expected, const char *what);
int32_t ganq__vocab_find(const ganq__vocab *vocab, const char *piece,
                         size_t size); /* -1: not there */
/* A copy that lives as long as the vocabulary, NUL behind it; NULL on lack of memory. */
char *ganq__vocab_keep(ganq__vocab *vocab, const char *text, size_t size);
void ganq__vocab_free(ganq__vocab *vocab);

/* ---- GPT-2's alphabet: one printable character per byte ---- */

size_t ganq__byte_spell(uint8_t byte, char out[4]);
/* Appends the bytes that a piece stands for; 0 (and nothing appended) if it has another character;
 * -1: no memory. */
int ganq__byte_unspell(const char *piece, size_t size, ganq__buffer *bytes);

/* ---- Merges ---- */

typedef struct ganq__pair {
    uint64_t key; /* left << 32 | right; all ones: empty */
    uint32_t rank;
    int32_t merged;
} ganq__pair;

typedef struct ganq__bpe {
    ganq__pair *pairs; /* open addressing */
    size_t pair_slots, pair_count;
    uint64_t
        *junctions; /* open addressing: pairs of first symbols between which some merge can join */
    size_t junction_slots, junction_count;
    int cuts; /* words may be cut where a pair of first symbols is not in `junctions` */
} ganq__bpe;

typedef struct ganq__bpe_scratch {
    int32_t *prev, *next;
    struct ganq__candidate *heap;
    size_t capacity;
} ganq__bpe_scratch;

/* Lower ranks first; a pair given twice keeps the later rank. */
ganq_status ganq__bpe_add(ganq__bpe *bpe, int32_t left, int32_t right, uint32_t rank,
                          int32_t merged);
ganq_status ganq__bpe_add_junction(ganq__bpe *bpe, int32_t left, int32_t right);
/* Merges ids[0..*count) in place: always the pair of lowest rank, the leftmost of equal ones. */
ganq_status ganq__bpe_merge(const ganq__bpe *bpe, ganq__bpe_scratch *scratch, int32_t *ids,
                            size_t *count);
void ganq__bpe_scratch_free(ganq__bpe_scratch *scratch);
void ganq__bpe_free(ganq__bpe *bpe);

/* ---- Patterns: a literal or a regular expression ---- */

typedef struct ganq__pattern ganq__pattern;
/* What searching needs besides the pattern; one per encoding call. */
typedef struct ganq__matcher {
    struct pcre2_real_match_data_8 *data;
    struct pcre2_real_match_context_8 *context;
} ganq__matcher;
typedef struct ganq__search {
    const char *text;
    size_t size, from;             /* where the next search starts */
    size_t valid_begin, valid_end; /* the run of valid UTF-8 being searched */
    size_t last_end;               /* of the last match, or SIZE_MAX */
} ganq__search;

ganq_status ganq__pattern_literal(const char *text, size_t size, ganq__pattern **out);
/* Oniguruma's dialect, as far as tokenizer files use it; UNSUPPORTED, with `what` in front, for the
 * rest. */
ganq_status ganq__pattern_regex(const char *regex, const char *what, ganq__pattern **out);
void ganq__pattern_free(ganq__pattern *pattern);
ganq_status ganq__matcher_create(ganq__matcher *matcher);
void ganq__matcher_free(ganq__matcher *matcher);
void ganq__search_start(ganq__search *search, const char *text, size_t size);
/* The next match in *begin, *end (equal for an empty one); *found = 0 at the end. Bytes that are
 * not UTF-8 match no regular expression. */
ganq_status ganq__search_next(const ganq__pattern *pattern, ganq__matcher *matcher,
                              ganq__search *search, size_t *begin, size_t *end, int *found);

/* ---- Normalizers ---- */

typedef enum ganq__norm_kind {
    GANQ__NORM_PREPEND = 1, /* content, to a text that is not empty */
    GANQ__NORM_REPLACE,     /* pattern by content */
    GANQ__NORM_NFC,
    GANQ__NORM_NFD,
    GANQ__NORM_NFKC,
    GANQ__NORM_NFKD,
    GANQ__NORM_STRIP, /* white space: left, right */
    GANQ__NORM_LOWER,
    GANQ__NORM_CHARSMAP, /* SentencePiece's compiled rules, in content */
    GANQ__NORM_SQUEEZE   /* SentencePiece's remove_extra_whitespaces: none at the ends, one between
                            words */
} ganq__norm_kind;

typedef struct ganq__norm {
    ganq__norm_kind kind;
    ganq__pattern *pattern;
    char *content;
    size_t content_size;
    int left, right;
} ganq__norm;

typedef struct ganq__norms {
    ganq__norm *items;
    size_t count;
} ganq__norms;

/* Takes over item's pattern and content, also on failure. */
ganq_status ganq__norms_add(ganq__norms *norms, ganq__norm item);
/* FORMAT if the compiled rules cannot be what they say. */
ganq_status ganq__charsmap_check(const char *blob, size_t size, const char *what);
/* *out is text itself or memory of `buffers`. */
ganq_status ganq__normalize(const ganq__norms *norms, ganq__matcher *matcher, const char *text,
                            size_t size, ganq__buffer buffers[2], const char **out,
                            size_t *out_size);
void ganq__norms_free(ganq__norms *norms);

/* ---- Splits ---- */

typedef enum ganq__split_kind {
    GANQ__SPLIT_PATTERN = 1,
    GANQ__SPLIT_PREFIX_SPACE, /* puts a space in front of a text that does not begin with one */
    GANQ__SPLIT_METASPACE     /* spaces become `content`; put in front by `scheme` */
} ganq__split_kind;
/* What becomes of a match (with invert: of what lies between matches). */
typedef enum ganq__split_behavior {
    GANQ__SPLIT_ISOLATED = 1,
    GANQ__SPLIT_REMOVED,
    GANQ__SPLIT_WITH_PREVIOUS,
    GANQ__SPLIT_WITH_NEXT,
    GANQ__SPLIT_CONTIGUOUS
} ganq__split_behavior;
typedef enum ganq__scheme {
    GANQ__SCHEME_NEVER = 0,
    GANQ__SCHEME_FIRST,
    GANQ__SCHEME_ALWAYS
} ganq__scheme;

typedef struct ganq__split {
    ganq__split_kind kind;
    ganq__pattern *pattern;
    ganq__split_behavior behavior;
    int invert;
    ganq__scheme scheme;
    char content[8];
} ganq__split;

enum { GANQ__MAX_SPLITS = 32 };
typedef struct ganq__splits {
    ganq__split items[GANQ__MAX_SPLITS];
    size_t count;
} ganq__splits;

typedef ganq_status (*ganq__word_fn)(void *user, const char *text, size_t size);
typedef struct ganq__split_run {
    const ganq__splits *splits;
    ganq__matcher *matcher;
    ganq__buffer buffers[GANQ__MAX_SPLITS];
    ganq__word_fn fn;
    void *user;
} ganq__split_run;

/* Takes over item's pattern, also on failure. */
ganq_status ganq__splits_add(ganq__splits *splits, ganq__split item, const char *what);
/* Hands every word of the text to run->fn. first: the text stands at the beginning of what the
 * caller encodes. */
ganq_status ganq__split_text(ganq__split_run *run, const char *text, size_t size, int first);
void ganq__split_run_free(ganq__split_run *run);
void ganq__splits_free(ganq__splits *splits);

/* How text is split in families whose files do not say. */
extern const char ganq__regex_gpt2[], ganq__regex_qwen2[], ganq__regex_llama3[];

/* ---- Added tokens ---- */

typedef struct ganq__added {
    int32_t id;
    const char *content; /* what is looked for: normalized where `normalized` is set */
    size_t size;
    uint8_t special, normalized, lstrip, rstrip, single_word;
    uint8_t as_is; /* content is already what normalized text has */
} ganq__added;

/* Sorted by content, so that a position is matched by narrowing a range. */
typedef struct ganq__added_set {
    ganq__added *items;
    size_t count;
    uint32_t first[257]; /* items whose first byte is b: [first[b], first[b+1]) */
} ganq__added_set;

/* ---- The object ---- */

struct ganq_tokenizer {
    atomic_int references;
    char *path; /* of the file, for messages */
    ganq__vocab vocab;
    ganq__bpe bpe;
    int byte_level;    /* first symbols are bytes; else characters */
    int byte_fallback; /* a character that is not in the vocabulary becomes its bytes */
    int fuse_unk, ignore_merges;
    int32_t unk; /* -1: what has no symbol is dropped */
    int32_t byte_id[256];
    ganq__norms norms;
    ganq__splits splits;
    ganq__added *added; /* as loaded */
    size_t added_count;
    ganq__added_set raw_set, normalized_set;
    int32_t bos, eos;
    int32_t prefix; /* what encoding with BOS puts in front; -1: nothing */
    int adds_bos;   /* of files that have no rule for that: it is BOS   */
    char strip[8];   /* character removed from the beginning of decoded text */
    int strip_count; /* at most so often */
};

/* ---- Loading ---- */

typedef enum ganq__family {
    GANQ__FAMILY_UNKNOWN = 0,
    GANQ__FAMILY_GPT2,
    GANQ__FAMILY_OPT,
    GANQ__FAMILY_QWEN2,
    GANQ__FAMILY_LLAMA3
} ganq__family;

/* tokenizer_config.json, generation_config.json and config.json beside the file; NULL where absent.
 */
typedef struct ganq__beside {
    json_t *tokenizer, *generation, *model;
    char *tokenizer_path, *generation_path, *model_path;
} ganq__beside;

/* By tokenizer_class, then by model_type. */
ganq__family ganq__beside_family(const ganq__beside *beside);
/* tokenizer_config.json's add_bos_token, or what holds without it. */
int ganq__beside_adds_bos(const ganq__beside *beside, int otherwise);
/* tokenizer_config.json's added_tokens_decoder, if there is one. */
ganq_status ganq__beside_added(const ganq__beside *beside, ganq_tokenizer *tokenizer);

/* Each fills a new tokenizer, whose path is set; bos, eos and prefix are what the file itself says (-1:
 * nothing). */
ganq_status ganq__tokenizer_read_json(const json_t *root, ganq_tokenizer *tokenizer);
ganq_status ganq__tokenizer_read_vocab(const json_t *vocab, const char *merges_path,
                                       const ganq__beside *beside, ganq_tokenizer *tokenizer);
ganq_status ganq__tokenizer_read_spm(const char *data, size_t size, const ganq__beside *beside,
                                     ganq_tokenizer *tokenizer);
ganq_status ganq__tokenizer_read_tiktoken(const char *data, size_t size, const ganq__beside *beside,
                                          ganq_tokenizer *tokenizer);

/* A token outside the vocabulary proper; its piece is put there unless it is there with the same
 * id. */
ganq_status ganq__tokenizer_add(ganq_tokenizer *tokenizer, ganq__added added, const char *content,
                                size_t size, const char *what);
/* An added token of a JSON object with content, special, normalized, lstrip, rstrip, single_word.
 */
ganq_status ganq__tokenizer_add_json(ganq_tokenizer *tokenizer, int64_t id, const json_t *object,
                                     const char *what);
/* Merges of a vocabulary that lists none: every way to cut a piece in two pieces. ranks: per id,
 * UINT32_MAX for pieces that take no part. */
ganq_status ganq__tokenizer_derive_merges(ganq_tokenizer *tokenizer, const uint32_t *ranks);
/* A merge given as two pieces; `index` for messages. */
ganq_status ganq__tokenizer_add_merge(ganq_tokenizer *tokenizer, const char *left, size_t left_size,
                                      const char *right, size_t right_size, size_t index,
                                      const char *what);

/* The id of a piece of the model proper, or -1. */
int32_t ganq__tokenizer_symbol(const ganq_tokenizer *tokenizer, const char *piece, size_t size);
/* The last step: byte ids, cuts, added tokens sorted. */
ganq_status ganq__tokenizer_finish(ganq_tokenizer *tokenizer);

#endif
