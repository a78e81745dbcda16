/* tokenizer_json.c - Hugging Face's tokenizer.json: a BPE model and the components around it. What
 * a component means is what the `tokenizers` package does with it; components it has and this file
 * does not know are UNSUPPORTED. Truncation and padding are the caller's business and not read. */
#include <string.h>

#include "json.h"
#include "tokenizer_parts.h"

/* ---- Reading components ---- */

static ganq_status get_type(const json_t *object, const char *what, const char **type) {
    GANQ_TRY(ganq__json_require(object, "type", what));
    return ganq__json_string(object, "type", what, "", type);
}

static ganq_status get_text(const json_t *object, const char *key, const char *what,
                            const char **text, size_t *size) {
    GANQ_TRY(ganq__json_require(object, key, what));
    GANQ_TRY(ganq__json_string(object, key, what, "", text));
    *size = strlen(*text);
    return GANQ_OK;
}

/* {"String": s} or {"Regex": r}. */
static ganq_status get_pattern(const json_t *object, const char *what, ganq__pattern **out) {
    const json_t *pattern = json_object_get(object, "pattern");
    const char *text;
    size_t size;
    if (json_object_get(pattern, "Regex")) {
        GANQ_TRY(get_text(pattern, "Regex", what, &text, &size));
        return ganq__pattern_regex(text, what, out);
    }
    if (!json_is_object(pattern))
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: \"pattern\": expected an object with \"String\" or \"Regex\"", what);
    GANQ_TRY(get_text(pattern, "String", what, &text, &size));
    return ganq__pattern_literal(text, size, out);
}

/* The members of a Sequence, under the key that each kind of component uses. */
static ganq_status get_list(const json_t *object, const char *key, const char *what,
                            const json_t **list) {
    *list = json_object_get(object, key);
    if (!json_is_array(*list))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"%s\": expected a list", what, key);
    return GANQ_OK;
}

/* Sequences may be nested; deeper than this nobody nests them, and recursion stays bounded. */
enum { MAX_DEPTH = 8 };

static ganq_status check_depth(int depth, const char *what) {
    if (depth > MAX_DEPTH)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: sequences nested more than %d deep", what, MAX_DEPTH);
    return GANQ_OK;
}

/* ---- Normalizers ---- */

static ganq_status add_replace(const json_t *object, const char *what, ganq__norms *norms) {
    const char *content;
    ganq__norm norm = {.kind = GANQ__NORM_REPLACE};
    GANQ_TRY(get_text(object, "content", what, &content, &norm.content_size));
    GANQ_TRY(get_pattern(object, what, &norm.pattern));
    norm.content = ganq__strndup(content, norm.content_size);
    if (!norm.content) {
        ganq__pattern_free(norm.pattern);
        return GANQ_ERR_NO_MEMORY;
    }
    return ganq__norms_add(norms, norm);
}

static ganq_status add_prepend(const json_t *object, const char *what, ganq__norms *norms) {
    const char *content;
    ganq__norm norm = {.kind = GANQ__NORM_PREPEND};
    GANQ_TRY(get_text(object, "prepend", what, &content, &norm.content_size));
    norm.content = ganq__strndup(content, norm.content_size);
    return norm.content ? ganq__norms_add(norms, norm) : GANQ_ERR_NO_MEMORY;
}

static ganq_status read_normalizer(const json_t *object, const char *what, int depth,
                                   ganq__norms *norms) {
    static const struct {
        const char *type;
        ganq__norm_kind kind;
    } simple[] = {{"NFC", GANQ__NORM_NFC},
                  {"NFD", GANQ__NORM_NFD},
                  {"NFKC", GANQ__NORM_NFKC},
                  {"NFKD", GANQ__NORM_NFKD},
                  {"Lowercase", GANQ__NORM_LOWER}};
    const char *type;
    if (!object || json_is_null(object))
        return GANQ_OK;
    GANQ_TRY(check_depth(depth, what));
    GANQ_TRY(get_type(object, what, &type));
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (strcmp(type, simple[i].type) == 0)
            return ganq__norms_add(norms, (ganq__norm){.kind = simple[i].kind});
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        GANQ_TRY(get_list(object, "normalizers", what, &list));
        for (size_t i = 0; i < json_array_size(list); i++)
            GANQ_TRY(read_normalizer(json_array_get(list, i), what, depth + 1, norms));
        return GANQ_OK;
    }
    if (strcmp(type, "Prepend") == 0)
        return add_prepend(object, what, norms);
    if (strcmp(type, "Replace") == 0)
        return add_replace(object, what, norms);
    if (strcmp(type, "Strip") == 0) {
        ganq__norm norm = {.kind = GANQ__NORM_STRIP};
        GANQ_TRY(ganq__json_bool(object, "strip_left", what, 1, &norm.left));
        GANQ_TRY(ganq__json_bool(object, "strip_right", what, 1, &norm.right));
        return ganq__norms_add(norms, norm);
    }
    GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s \"%s\" is not supported", what, type);
}

/* ---- Pre-tokenizers ---- */

static ganq_status get_behavior(const json_t *object, const char *what,
                                ganq__split_behavior *behavior) {
    static const char *const names[] = {
        "", "Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name;
    GANQ_TRY(ganq__json_string(object, "behavior", what, "Isolated", &name));
    for (int i = GANQ__SPLIT_ISOLATED; i <= GANQ__SPLIT_CONTIGUOUS; i++)
        if (strcmp(name, names[i]) == 0) {
            *behavior = (ganq__split_behavior)i;
            return GANQ_OK;
        }
    GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"behavior\": \"%s\" is unknown", what, name);
}

static ganq_status add_regex(ganq__splits *splits, const char *regex, ganq__split_behavior behavior,
                             const char *what) {
    ganq__split split = {.kind = GANQ__SPLIT_PATTERN, .behavior = behavior};
    GANQ_TRY(ganq__pattern_regex(regex, what, &split.pattern));
    return ganq__splits_add(splits, split, what);
}

/* prepend_scheme, or the add_prefix_space of older files. */
static ganq_status get_scheme(const json_t *object, const char *what, ganq__scheme *scheme) {
    const char *name;
    int prefix;
    GANQ_TRY(ganq__json_bool(object, "add_prefix_space", what, 1, &prefix));
    GANQ_TRY(ganq__json_string(object, "prepend_scheme", what, prefix ? "always" : "never", &name));
    if (strcmp(name, "always") == 0)
        *scheme = GANQ__SCHEME_ALWAYS;
    else if (strcmp(name, "first") == 0)
        *scheme = GANQ__SCHEME_FIRST;
    else if (strcmp(name, "never") == 0)
        *scheme = GANQ__SCHEME_NEVER;
    else
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"prepend_scheme\": \"%s\" is unknown", what, name);
    return GANQ_OK;
}

static ganq_status get_replacement(const json_t *object, const char *what, char replacement[8]) {
    const char *text;
    int32_t cp;
    GANQ_TRY(ganq__json_string(object, "replacement", what, "\xe2\x96\x81", &text));
    size_t size = strlen(text);
    if (size == 0 || ganq__utf8_next(text, size, &cp) != size)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"replacement\": expected one character, found \"%.40s\"",
                  what, text);
    memcpy(replacement, text, size + 1);
    return GANQ_OK;
}

static ganq_status add_metaspace(const json_t *object, const char *what, ganq__splits *splits) {
    ganq__split marks = {.kind = GANQ__SPLIT_METASPACE},
                words = {.kind = GANQ__SPLIT_PATTERN, .behavior = GANQ__SPLIT_WITH_NEXT};
    int split;
    GANQ_TRY(get_scheme(object, what, &marks.scheme));
    GANQ_TRY(get_replacement(object, what, marks.content));
    GANQ_TRY(ganq__json_bool(object, "split", what, 1, &split));
    GANQ_TRY(ganq__splits_add(splits, marks, what));
    if (!split)
        return GANQ_OK;
    GANQ_TRY(ganq__pattern_literal(marks.content, strlen(marks.content), &words.pattern));
    return ganq__splits_add(splits, words, what);
}

static ganq_status read_pre_tokenizer(const json_t *object, const char *what, int depth,
                                      ganq_tokenizer *t) {
    const char *type;
    ganq__split split = {.kind = GANQ__SPLIT_PATTERN, .behavior = GANQ__SPLIT_ISOLATED};
    if (!object || json_is_null(object))
        return GANQ_OK;
    GANQ_TRY(check_depth(depth, what));
    GANQ_TRY(get_type(object, what, &type));
    if (t->byte_level)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s \"%s\" after \"ByteLevel\" is not supported", what,
                  type);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        GANQ_TRY(get_list(object, "pretokenizers", what, &list));
        for (size_t i = 0; i < json_array_size(list); i++)
            GANQ_TRY(read_pre_tokenizer(json_array_get(list, i), what, depth + 1, t));
        return GANQ_OK;
    }
    if (strcmp(type, "ByteLevel") == 0) {
        int prefix, regex;
        GANQ_TRY(ganq__json_bool(object, "add_prefix_space", what, 1, &prefix));
        GANQ_TRY(ganq__json_bool(object, "use_regex", what, 1, &regex));
        t->byte_level = 1;
        if (prefix)
            GANQ_TRY(ganq__splits_add(&t->splits, (ganq__split){.kind = GANQ__SPLIT_PREFIX_SPACE},
                                      what));
        return regex ? add_regex(&t->splits, ganq__regex_gpt2, GANQ__SPLIT_ISOLATED, what)
                     : GANQ_OK;
    }
    if (strcmp(type, "Split") == 0) {
        GANQ_TRY(get_behavior(object, what, &split.behavior));
        GANQ_TRY(ganq__json_bool(object, "invert", what, 0, &split.invert));
        GANQ_TRY(get_pattern(object, what, &split.pattern));
        return ganq__splits_add(&t->splits, split, what);
    }
    if (strcmp(type, "Metaspace") == 0)
        return add_metaspace(object, what, &t->splits);
    if (strcmp(type, "Digits") == 0) {
        int individual;
        GANQ_TRY(ganq__json_bool(object, "individual_digits", what, 0, &individual));
        return add_regex(&t->splits, "\\p{N}",
                         individual ? GANQ__SPLIT_ISOLATED : GANQ__SPLIT_CONTIGUOUS, what);
    }
    if (strcmp(type, "Punctuation") == 0) {
        GANQ_TRY(get_behavior(object, what, &split.behavior));
        return add_regex(&t->splits, "[!-/:-@\\[-`{-~\\p{P}]", split.behavior, what);
    }
    if (strcmp(type, "Whitespace") == 0) {
        split.invert = 1;
        split.behavior = GANQ__SPLIT_REMOVED;
        GANQ_TRY(ganq__pattern_regex("[\\w\\x{200c}\\x{200d}]+|[^\\w\\s\\x{200c}\\x{200d}]+", what,
                                     &split.pattern));
        return ganq__splits_add(&t->splits, split, what);
    }
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_regex(&t->splits, "\\s", GANQ__SPLIT_REMOVED, what);
    GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s \"%s\" is not supported", what, type);
}

/* ---- Decoders ----
 * A decoder is brought down to the bytes of each token plus what is stripped from the beginning of
 * the whole. */

typedef struct decoding {
    int byte_level, byte_fallback, fused;
    ganq__norms steps; /* for each piece, before Fuse */
} decoding;

static ganq_status add_metaspace_decoder(const json_t *object, const char *what, decoding *d,
                                         ganq_tokenizer *t) {
    char mark[8];
    ganq__scheme scheme;
    ganq__norm norm = {.kind = GANQ__NORM_REPLACE, .content_size = 1};
    GANQ_TRY(get_scheme(object, what, &scheme));
    GANQ_TRY(get_replacement(object, what, mark));
    GANQ_TRY(ganq__pattern_literal(mark, strlen(mark), &norm.pattern));
    norm.content = ganq__strdup(" ");
    if (!norm.content) {
        ganq__pattern_free(norm.pattern);
        return GANQ_ERR_NO_MEMORY;
    }
    /* The reference drops every mark of the first token, which loses the text's own spaces; one is
     * what was added. */
    strcpy(t->strip, " ");
    t->strip_count = scheme != GANQ__SCHEME_NEVER;
    return ganq__norms_add(&d->steps, norm);
}

static ganq_status add_strip_decoder(const json_t *object, const char *what, const decoding *d,
                                     ganq_tokenizer *t) {
    const char *content;
    size_t size;
    int32_t cp;
    int64_t start, stop;
    GANQ_TRY(get_text(object, "content", what, &content, &size));
    GANQ_TRY(ganq__json_int(object, "start", what, 0, 1 << 20, 0, &start));
    GANQ_TRY(ganq__json_int(object, "stop", what, 0, 1 << 20, 0, &stop));
    if (size == 0 || ganq__utf8_next(content, size, &cp) != size)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s \"Strip\": \"content\": expected one character, found \"%.40s\"", what,
                  content);
    if (!d->fused || stop != 0)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s \"Strip\" %s is not supported", what,
                  d->fused ? "at the end of the text" : "of every token");
    memcpy(t->strip, content, size + 1);
    t->strip_count = (int)start;
    return GANQ_OK;
}

static ganq_status read_decoder(const json_t *object, const char *what, int depth, decoding *d,
                                ganq_tokenizer *t) {
    const char *type;
    GANQ_TRY(check_depth(depth, what));
    GANQ_TRY(get_type(object, what, &type));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        GANQ_TRY(get_list(object, "decoders", what, &list));
        for (size_t i = 0; i < json_array_size(list); i++)
            GANQ_TRY(read_decoder(json_array_get(list, i), what, depth + 1, d, t));
        return GANQ_OK;
    }
    if (strcmp(type, "Fuse") == 0) {
        d->fused = 1;
        return GANQ_OK;
    }
    if (strcmp(type, "Strip") == 0)
        return add_strip_decoder(object, what, d, t);
    if (strcmp(type, "ByteLevel") != 0 && strcmp(type, "ByteFallback") != 0 &&
        strcmp(type, "Replace") != 0 && strcmp(type, "Metaspace") != 0)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s \"%s\" is not supported", what, type);
    if (d->fused || d->byte_level)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s \"%s\" after \"%s\" is not supported", what, type,
                  d->fused ? "Fuse" : "ByteLevel");
    if (strcmp(type, "Metaspace") == 0)
        return add_metaspace_decoder(object, what, d, t);
    if (strcmp(type, "Replace") == 0)
        return add_replace(object, what, &d->steps);
    d->byte_level = d->byte_level || strcmp(type, "ByteLevel") == 0;
    d->byte_fallback = d->byte_fallback || strcmp(type, "ByteFallback") == 0;
    return GANQ_OK;
}

/* "<0x41>": the byte, or -1. */
static int byte_token(const ganq__token *token) {
    static const char digits[] = "0123456789ABCDEF0123456789abcdef";
    const char *piece = token->piece;
    if (token->piece_size != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>')
        return -1;
    const char *high = strchr(digits, piece[3]), *low = strchr(digits, piece[4]);
    return high && low && piece[3] && piece[4]
               ? (int)((high - digits) % 16 * 16 + (low - digits) % 16)
               : -1;
}

static ganq_status decode_piece(const decoding *d, ganq__matcher *matcher, const ganq__token *token,
                                ganq__buffer buffers[3], const char **text, size_t *size) {
    const int byte = d->byte_fallback ? byte_token(token) : -1;
    buffers[2].size = 0;
    if (byte >= 0) {
        char c = (char)byte;
        GANQ_TRY(ganq__buffer_append(&buffers[2], &c, 1));
        *text = buffers[2].data;
        *size = 1;
        return GANQ_OK;
    }
    GANQ_TRY(
        ganq__normalize(&d->steps, matcher, token->piece, token->piece_size, buffers, text, size));
    int spelled = d->byte_level ? ganq__byte_unspell(*text, *size, &buffers[2]) : 0;
    if (spelled < 0)
        return GANQ_ERR_NO_MEMORY;
    if (spelled) {
        *text = buffers[2].data ? buffers[2].data : "";
        *size = buffers[2].size;
    }
    return GANQ_OK;
}

/* Works out the bytes of every token. Added tokens of a byte-level tokenizer are plain text, not
 * spelled bytes. */
static ganq_status fill_texts(const decoding *d, ganq_tokenizer *t) {
    ganq__matcher matcher;
    ganq__buffer buffers[3] = {{0}, {0}, {0}};
    GANQ_TRY(ganq__matcher_create(&matcher));
    ganq_status status = GANQ_OK;
    for (int32_t id = 0; status == GANQ_OK && id < t->vocab.size; id++) {
        ganq__token *token = &t->vocab.tokens[id];
        const char *text;
        size_t size;
        if (!token->piece)
            continue;
        status = decode_piece(d, &matcher, token, buffers, &text, &size);
        if (status != GANQ_OK ||
            (size == token->piece_size && memcmp(text, token->piece, size) == 0))
            continue;
        token->text_size = (uint32_t)size;
        if (!(token->text = ganq__vocab_keep(&t->vocab, text, size)))
            status = GANQ_ERR_NO_MEMORY;
    }
    for (size_t i = 0; d->byte_level && i < t->added_count; i++) {
        ganq__token *token = &t->vocab.tokens[t->added[i].id];
        token->text = token->piece;
        token->text_size = token->piece_size;
    }
    ganq__matcher_free(&matcher);
    for (int i = 0; i < 3; i++)
        ganq__buffer_free(&buffers[i]);
    return status;
}

/* ---- Post-processors: only what they put in front ---- */

static ganq_status template_bos(const json_t *object, const char *what, ganq_tokenizer *t) {
    const json_t *list;
    GANQ_TRY(get_list(object, "single", what, &list));
    const json_t *first = json_object_get(json_array_get(list, 0), "SpecialToken");
    const char *name = json_string_value(json_object_get(first, "id"));
    if (!name)
        return GANQ_OK;
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(object, "special_tokens"), name), "ids");
    const json_t *id = json_array_get(ids, 0);
    json_int_t bos = json_is_integer(id) ? json_integer_value(id)
                                         : ganq__vocab_find(&t->vocab, name, strlen(name));
    if (bos < 0 || bos >= t->vocab.size || !t->vocab.tokens[bos].piece)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s \"TemplateProcessing\": \"%.80s\" is not in the vocabulary",
                  what, name);
    t->bos = t->prefix = (int32_t)bos;
    return GANQ_OK;
}

static ganq_status read_post_processor(const json_t *object, const char *what, int depth,
                                       ganq_tokenizer *t) {
    const char *type;
    if (!object || json_is_null(object))
        return GANQ_OK;
    GANQ_TRY(check_depth(depth, what));
    GANQ_TRY(get_type(object, what, &type));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        GANQ_TRY(get_list(object, "processors", what, &list));
        for (size_t i = 0; i < json_array_size(list); i++)
            GANQ_TRY(read_post_processor(json_array_get(list, i), what, depth + 1, t));
        return GANQ_OK;
    }
    if (strcmp(type, "TemplateProcessing") == 0)
        return template_bos(object, what, t);
    if (strcmp(type, "RobertaProcessing") == 0) {
        const char *cls = json_string_value(json_array_get(json_object_get(object, "cls"), 0));
        t->bos = t->prefix = cls ? ganq__vocab_find(&t->vocab, cls, strlen(cls)) : -1;
        if (t->bos < 0)
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s \"RobertaProcessing\": \"cls\" is not in the vocabulary",
                      what);
        return GANQ_OK;
    }
    if (strcmp(type, "ByteLevel") == 0)
        return GANQ_OK;
    GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s \"%s\" is not supported", what, type);
}

/* ---- Model ---- */

static ganq_status read_vocabulary(const json_t *model, const char *what, ganq_tokenizer *t) {
    const json_t *vocab = json_object_get(model, "vocab");
    const char *piece;
    const json_t *id;
    if (!json_is_object(vocab))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"vocab\": expected an object", what);
    const size_t count = json_object_size(vocab);
    json_object_foreach((json_t *)(uintptr_t)vocab, piece, id) {
        if (!json_is_integer(id))
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"vocab\": the id of \"%.80s\" is not an integer", what,
                      piece);
        GANQ_TRY(
            ganq__vocab_add(&t->vocab, json_integer_value(id), piece, strlen(piece), count, what));
    }
    return GANQ_OK;
}

/* "a b" or ["a", "b"]. */
static ganq_status read_merge(const json_t *merge, size_t index, const char *what,
                              ganq_tokenizer *t) {
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' '))
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: merge %zu, \"%.80s\": expected two pieces", what, index,
                      text);
        return ganq__tokenizer_add_merge(t, text, (size_t)(space - text), space + 1,
                                         strlen(space + 1), index, what);
    }
    const char *left = json_string_value(json_array_get(merge, 0)),
               *right = json_string_value(json_array_get(merge, 1));
    if (!left || !right || json_array_size(merge) != 2)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: merge %zu: expected two pieces", what, index);
    return ganq__tokenizer_add_merge(t, left, strlen(left), right, strlen(right), index, what);
}

static ganq_status refuse_affix(const json_t *model, const char *key, const char *what) {
    const char *text;
    GANQ_TRY(ganq__json_string(model, key, what, "", &text));
    if (*text)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: \"%s\" \"%.40s\" is not supported", what, key, text);
    return GANQ_OK;
}

static ganq_status read_model(const json_t *model, const char *path, const char *what,
                              ganq_tokenizer *t) {
    const char *type, *unk;
    double dropout;
    GANQ_TRY(ganq__json_string(model, "type", what,
                               json_object_get(model, "merges") ? "BPE" : "unknown", &type));
    if (strcmp(type, "BPE") != 0)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: model \"%s\" is not supported, only \"BPE\"", path,
                  type);
    GANQ_TRY(refuse_affix(model, "continuing_subword_prefix", what));
    GANQ_TRY(refuse_affix(model, "end_of_word_suffix", what));
    GANQ_TRY(ganq__json_double(model, "dropout", what, 0, &dropout));
    if (dropout != 0)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: \"dropout\" %g is not supported", what, dropout);
    GANQ_TRY(ganq__json_bool(model, "byte_fallback", what, 0, &t->byte_fallback));
    GANQ_TRY(ganq__json_bool(model, "fuse_unk", what, 0, &t->fuse_unk));
    GANQ_TRY(ganq__json_bool(model, "ignore_merges", what, 0, &t->ignore_merges));
    GANQ_TRY(ganq__json_string(model, "unk_token", what, NULL, &unk));
    GANQ_TRY(read_vocabulary(model, what, t));
    const json_t *merges;
    GANQ_TRY(get_list(model, "merges", what, &merges));
    for (size_t i = 0; i < json_array_size(merges); i++)
        GANQ_TRY(read_merge(json_array_get(merges, i), i, what, t));
    t->unk = unk ? ganq__vocab_find(&t->vocab, unk, strlen(unk)) : -1;
    if (unk && t->unk < 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"unk_token\" \"%.80s\" is not in the vocabulary", what,
                  unk);
    return GANQ_OK;
}

static ganq_status read_added_tokens(const json_t *root, const char *what, ganq_tokenizer *t) {
    const json_t *list = json_object_get(root, "added_tokens");
    if (!list || json_is_null(list))
        return GANQ_OK;
    GANQ_TRY(get_list(root, "added_tokens", what, &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        int64_t id;
        GANQ_TRY(ganq__json_require(object, "id", what));
        GANQ_TRY(ganq__json_int(object, "id", what, 0, INT32_MAX, 0, &id));
        GANQ_TRY(ganq__tokenizer_add_json(t, id, object, what));
    }
    return GANQ_OK;
}

/* "file: component", the way messages name the place. */
typedef struct places {
    char *model, *added, *normalizer, *pre_tokenizer, *decoder, *post_processor;
} places;

static ganq_status read_parts(const json_t *root, const char *path, const places *at,
                              ganq_tokenizer *t) {
    decoding d = {0};
    GANQ_TRY(read_model(json_object_get(root, "model"), path, at->model, t));
    GANQ_TRY(read_added_tokens(root, at->added, t));
    GANQ_TRY(read_normalizer(json_object_get(root, "normalizer"), at->normalizer, 0, &t->norms));
    GANQ_TRY(read_pre_tokenizer(json_object_get(root, "pre_tokenizer"), at->pre_tokenizer, 0, t));
    GANQ_TRY(
        read_post_processor(json_object_get(root, "post_processor"), at->post_processor, 0, t));
    const json_t *decoder = json_object_get(root, "decoder");
    ganq_status status = GANQ_OK;
    if (!decoder ||
        json_is_null(
            decoder)) /* the reference puts spaces between tokens then, which undoes nothing */
        d.byte_level = t->byte_level;
    else
        status = read_decoder(decoder, at->decoder, 0, &d, t);
    if (status == GANQ_OK)
        status = fill_texts(&d, t);
    ganq__norms_free(&d.steps);
    return status;
}

ganq_status ganq__tokenizer_read_json(const json_t *root, ganq_tokenizer *tokenizer) {
    const char *path = tokenizer->path;
    places at = {ganq__format("%s: model", path),      ganq__format("%s: added_tokens", path),
                 ganq__format("%s: normalizer", path), ganq__format("%s: pre_tokenizer", path),
                 ganq__format("%s: decoder", path),    ganq__format("%s: post_processor", path)};
    ganq_status status = GANQ_ERR_NO_MEMORY;
    if (at.model && at.added && at.normalizer && at.pre_tokenizer && at.decoder &&
        at.post_processor)
        status = read_parts(root, path, &at, tokenizer);
    ganq__free(at.model);
    ganq__free(at.added);
    ganq__free(at.normalizer);
    ganq__free(at.pre_tokenizer);
    ganq__free(at.decoder);
    ganq__free(at.post_processor);
    return status;
}
