/* tokenizer.c - the tokenizer object: encoding, decoding, special tokens, and which file is read how. */
#include "tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "file.h"
#include "json.h"

/* Tokenizer files are tens of megabytes at most. */
static const uint64_t MAX_FILE = (uint64_t)1 << 30;

/* ---- Encoding ---- */

typedef struct encoder {
    const ganq_tokenizer *tokenizer;
    ganq__matcher matcher;
    ganq__split_run run;
    ganq__buffer normalized[2], spelled;
    ganq__bpe_scratch scratch;
    int32_t *ids;
    size_t count, capacity;
    int special; /* special tokens are looked for in the text */
} encoder;

static ganq_status reserve_ids(encoder *e, size_t more) {
    if (more <= e->capacity - e->count)
        return GANQ_OK;
    size_t capacity = 2 * e->capacity + more + 16;
    int32_t *ids = ganq__realloc(e->ids, capacity, sizeof *ids);
    if (!ids)
        return GANQ_ERR_NO_MEMORY;
    e->ids = ids;
    e->capacity = capacity;
    return GANQ_OK;
}

static ganq_status push_id(encoder *e, int32_t id) {
    GANQ_TRY(reserve_ids(e, 1));
    e->ids[e->count++] = id;
    return GANQ_OK;
}

/* First symbols of a word. Without an unknown token, what has no symbol is dropped, as the reference does. */
static void first_symbols(encoder *e, const char *text, size_t size) {
    const ganq_tokenizer *t = e->tokenizer;
    int after_unknown = 0;
    for (size_t i = 0, length; i < size; i += length) {
        int32_t cp, id;
        length = 1;
        if (t->byte_level) {
            id = t->byte_id[(uint8_t)text[i]];
        } else {
            length = ganq__utf8_next(text + i, size - i, &cp);
            id = length ? ganq__vocab_find(&t->vocab, text + i, length) : -1;
            length = length ? length : 1;
            int bytes_known = t->byte_fallback;
            for (size_t b = 0; id < 0 && b < length; b++)
                bytes_known = bytes_known && t->byte_id[(uint8_t)text[i + b]] >= 0;
            if (id < 0 && bytes_known) {
                for (size_t b = 0; b < length; b++)
                    e->ids[e->count++] = t->byte_id[(uint8_t)text[i + b]];
                after_unknown = 0;
                continue;
            }
        }
        if (id < 0 && t->unk >= 0 && !(t->fuse_unk && after_unknown))
            e->ids[e->count++] = t->unk;
        else if (id >= 0)
            e->ids[e->count++] = id;
        after_unknown = id < 0;
    }
}

/* The id of a word that is a piece as a whole, or -1. */
static ganq_status whole_word(encoder *e, const char *text, size_t size, int32_t *id) {
    const ganq_tokenizer *t = e->tokenizer;
    *id = -1;
    if (!t->ignore_merges || size > t->vocab.longest)
        return GANQ_OK;
    if (!t->byte_level) {
        *id = ganq__vocab_find(&t->vocab, text, size);
        return GANQ_OK;
    }
    e->spelled.size = 0;
    for (size_t i = 0; i < size; i++) {
        char spelled[4];
        GANQ_TRY(ganq__buffer_append(&e->spelled, spelled, ganq__byte_spell((uint8_t)text[i], spelled)));
    }
    *id = ganq__vocab_find(&t->vocab, e->spelled.data, e->spelled.size);
    return GANQ_OK;
}

static ganq_status encode_word(void *user, const char *text, size_t size) {
    encoder *e = user;
    int32_t whole;
    GANQ_TRY(reserve_ids(e, size));
    GANQ_TRY(whole_word(e, text, size, &whole));
    if (whole >= 0)
        return push_id(e, whole);
    const size_t begin = e->count;
    first_symbols(e, text, size);
    size_t count = e->count - begin;
    GANQ_TRY(ganq__bpe_merge(&e->tokenizer->bpe, &e->scratch, e->ids + begin, &count));
    e->count = begin + count;
    return GANQ_OK;
}

/* The longest added token that stands at `at`, or NULL. */
static const ganq__added *find_added(const ganq__added_set *set, const char *text, size_t size, size_t at,
                                     int special) {
    const ganq__added *best = NULL;
    size_t low = set->first[(uint8_t)text[at]], high = set->first[(uint8_t)text[at] + 1];
    for (size_t depth = 1; low < high; depth++) {
        for (; low < high && set->items[low].size == depth; low++)
            if (special || !set->items[low].special)
                best = &set->items[low];
        if (at + depth >= size)
            break;
        const uint8_t c = (uint8_t)text[at + depth];
        for (size_t stop = high; low < stop;) { /* low: first item whose byte is not below c */
            size_t middle = low + (stop - low) / 2;
            if ((uint8_t)set->items[middle].content[depth] < c)
                low = middle + 1;
            else
                stop = middle;
        }
        for (size_t start = low; start < high;) { /* high: first item whose byte is above c */
            size_t middle = start + (high - start) / 2;
            if ((uint8_t)set->items[middle].content[depth] > c)
                high = middle;
            else
                start = middle + 1;
        }
    }
    return best;
}

static size_t char_before(const char *text, size_t at, int32_t *cp) {
    for (size_t length = 1; length <= 4 && length <= at; length++)
        if (((uint8_t)text[at - length] & 0xc0) != 0x80)
            return ganq__utf8_next(text + at - length, length, cp) == length ? length : 0;
    return 0;
}

/* Letters, marks, digits, connectors, joiners. */
static int is_word_char(int32_t cp) {
    switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return 1;
    default:
        return cp == 0x200c || cp == 0x200d;
    }
}

static int stands_alone(const char *text, size_t size, size_t begin, size_t end) {
    int32_t cp;
    if (char_before(text, begin, &cp) && is_word_char(cp))
        return 0;
    return !(end < size && ganq__utf8_next(text + end, size - end, &cp) && is_word_char(cp));
}

static ganq_status encode_stretch(encoder *e, int normalized, const char *text, size_t size, int first);

static ganq_status encode_gap(encoder *e, int normalized, const char *text, size_t size, int first) {
    if (size == 0)
        return GANQ_OK;
    if (normalized)
        return ganq__split_text(&e->run, text, size, first);
    GANQ_TRY(ganq__normalize(&e->tokenizer->norms, &e->matcher, text, size, e->normalized, &text, &size));
    return encode_stretch(e, 1, text, size, first);
}

/* Added tokens become their ids; what is between them goes on: raw text to the normalizers, normalized text to the
 * splits. */
static ganq_status encode_stretch(encoder *e, int normalized, const char *text, size_t size, int first) {
    const ganq__added_set *set = normalized ? &e->tokenizer->normalized_set : &e->tokenizer->raw_set;
    size_t done = 0;
    for (size_t at = 0; set->count && at < size;) {
        const ganq__added *hit = find_added(set, text, size, at, e->special);
        size_t begin = at, end = hit ? at + hit->size : at + 1, length;
        int32_t cp;
        at = end;
        if (!hit || (hit->single_word && !stands_alone(text, size, begin, end)))
            continue;
        while (hit->lstrip && begin > done && (length = char_before(text, begin, &cp)) != 0 && ganq__is_space(cp))
            begin -= length;
        while (hit->rstrip && end < size && (length = ganq__utf8_next(text + end, size - end, &cp)) != 0 &&
               ganq__is_space(cp))
            end += length;
        GANQ_TRY(encode_gap(e, normalized, text + done, begin - done, first && done == 0));
        GANQ_TRY(push_id(e, hit->id));
        done = at = end;
    }
    return encode_gap(e, normalized, text + done, size - done, first && done == 0);
}

ganq_status ganq__tokenizer_encode(const ganq_tokenizer *tokenizer, const char *text, size_t length,
                                   uint32_t flags, int32_t **ids, size_t *count) {
    if (length > INT32_MAX)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "a text of %zu bytes: at most %d at once", length, INT32_MAX);
    encoder e = {.tokenizer = tokenizer, .special = (flags & GANQ_ENCODE_SPECIAL) != 0};
    e.run = (ganq__split_run){
        .splits = &tokenizer->splits, .matcher = &e.matcher, .fn = encode_word, .user = &e};
    ganq_status status = ganq__matcher_create(&e.matcher);
    if (status == GANQ_OK && (flags & GANQ_ENCODE_BOS) && tokenizer->bos >= 0)
        status = push_id(&e, tokenizer->bos);
    if (status == GANQ_OK)
        status = encode_stretch(&e, 0, text, length, 1);
    ganq__matcher_free(&e.matcher);
    ganq__split_run_free(&e.run);
    ganq__buffer_free(&e.normalized[0]);
    ganq__buffer_free(&e.normalized[1]);
    ganq__buffer_free(&e.spelled);
    ganq__bpe_scratch_free(&e.scratch);
    if (status != GANQ_OK || e.count == 0) {
        ganq__free(e.ids);
        e.ids = NULL;
    }
    GANQ_TRY(status);
    *ids = e.ids;
    *count = e.count;
    return GANQ_OK;
}

/* ---- Decoding ---- */

/* What decoding carries from token to token. */
typedef struct progress {
    const ganq_tokenizer *tokenizer;
    uint32_t flags;
    int strip; /* leading characters that may still go; counts for the first ordinary token with text */
} progress;

static progress start_decoding(const ganq_tokenizer *tokenizer, uint32_t flags) {
    return (progress){tokenizer, flags, tokenizer->strip_count};
}

static ganq_status append_token(progress *p, int32_t id, ganq__buffer *out) {
    const ganq__vocab *vocab = &p->tokenizer->vocab;
    if (id < 0 || id >= vocab->size || !vocab->tokens[id].piece)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "token id %d is not in the vocabulary of %s (%d ids)", id,
                  p->tokenizer->path, vocab->size);
    const ganq__token *token = &vocab->tokens[id];
    if (token->special)
        return (p->flags & GANQ_DECODE_SKIP_SPECIAL) ? GANQ_OK
                                                     : ganq__buffer_append(out, token->text, token->text_size);
    const char *text = token->text;
    size_t size = token->text_size, mark = strlen(p->tokenizer->strip);
    for (; p->strip > 0 && size >= mark && memcmp(text, p->tokenizer->strip, mark) == 0; p->strip--) {
        text += mark;
        size -= mark;
    }
    if (size)
        p->strip = 0;
    return ganq__buffer_append(out, text, size);
}

ganq_status ganq__tokenizer_decode(const ganq_tokenizer *tokenizer, const int32_t *ids, size_t count, uint32_t flags,
                                   char **text, size_t *length) {
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

ganq_status ganq__decoder_create(const ganq_tokenizer *tokenizer, uint32_t flags, ganq_decoder **out) {
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
        size_t needed = byte >= 0xf0 && byte <= 0xf4 ? 4 : byte >= 0xe0 && byte < 0xf0 ? 3 : byte >= 0xc2 && byte < 0xe0 ? 2 : 1;
        return needed > back ? back : 0;
    }
    return 0;
}

ganq_status ganq__decoder_push(ganq_decoder *decoder, int32_t id, const char **text, size_t *length) {
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

/* ---- The vocabulary, seen from outside ---- */

int32_t ganq__tokenizer_vocab_size(const ganq_tokenizer *tokenizer) { return tokenizer->vocab.size; }
int32_t ganq__tokenizer_bos(const ganq_tokenizer *tokenizer) { return tokenizer->bos; }
int32_t ganq__tokenizer_eos(const ganq_tokenizer *tokenizer) { return tokenizer->eos; }

const char *ganq__tokenizer_piece(const ganq_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->vocab.size ? tokenizer->vocab.tokens[id].piece : NULL;
}

int32_t ganq__tokenizer_id(const ganq_tokenizer *tokenizer, const char *piece) {
    return ganq__vocab_find(&tokenizer->vocab, piece, strlen(piece));
}

/* ---- Building ---- */

ganq_status ganq__tokenizer_add(ganq_tokenizer *tokenizer, ganq__added added, const char *content, size_t size,
                                const char *what) {
    if (size == 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: added token %d is empty", what, added.id);
    if (ganq__vocab_find(&tokenizer->vocab, content, size) != added.id || added.id < 0)
        GANQ_TRY(ganq__vocab_add(&tokenizer->vocab, added.id, content, size, (size_t)tokenizer->vocab.count, what));
    ganq__token *token = &tokenizer->vocab.tokens[added.id];
    token->special = token->special || added.special;
    added.content = token->piece;
    added.size = size;
    size_t n = tokenizer->added_count;
    if ((n & (n - 1)) == 0) { /* room for the next power of two */
        ganq__added *list = ganq__realloc(tokenizer->added, n ? 2 * n : 1, sizeof *list);
        if (!list)
            return GANQ_ERR_NO_MEMORY;
        tokenizer->added = list;
    }
    tokenizer->added[tokenizer->added_count++] = added;
    return GANQ_OK;
}

ganq_status ganq__tokenizer_add_json(ganq_tokenizer *tokenizer, int64_t id, const json_t *object, const char *what) {
    const char *content;
    int special, normalized, lstrip, rstrip, single_word;
    GANQ_TRY(ganq__json_require(object, "content", what));
    GANQ_TRY(ganq__json_string(object, "content", what, "", &content));
    GANQ_TRY(ganq__json_bool(object, "special", what, 0, &special));
    GANQ_TRY(ganq__json_bool(object, "normalized", what, !special, &normalized));
    GANQ_TRY(ganq__json_bool(object, "lstrip", what, 0, &lstrip));
    GANQ_TRY(ganq__json_bool(object, "rstrip", what, 0, &rstrip));
    GANQ_TRY(ganq__json_bool(object, "single_word", what, 0, &single_word));
    if (id < 0 || id > INT32_MAX)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: added token \"%.80s\" has id %lld", what, content, (long long)id);
    ganq__added added = {.id = (int32_t)id,
                         .special = (uint8_t)special,
                         .normalized = (uint8_t)normalized,
                         .lstrip = (uint8_t)lstrip,
                         .rstrip = (uint8_t)rstrip,
                         .single_word = (uint8_t)single_word};
    return ganq__tokenizer_add(tokenizer, added, content, strlen(content), what);
}

/* For messages: at most 80 bytes of a piece. */
static int shown(size_t size) { return size < 80 ? (int)size : 80; }

ganq_status ganq__tokenizer_add_merge(ganq_tokenizer *tokenizer, const char *left, size_t left_size,
                                      const char *right, size_t right_size, size_t index, const char *what) {
    const ganq__vocab *vocab = &tokenizer->vocab;
    const size_t size = left_size + right_size;
    char room[256], *both = size <= sizeof room ? room : ganq__malloc(size, 1);
    if (!both)
        return GANQ_ERR_NO_MEMORY;
    memcpy(both, left, left_size);
    memcpy(both + left_size, right, right_size);
    int32_t left_id = ganq__vocab_find(vocab, left, left_size), right_id = ganq__vocab_find(vocab, right, right_size),
            merged = ganq__vocab_find(vocab, both, size);
    if (both != room)
        ganq__free(both);
    if (left_id < 0 || right_id < 0 || merged < 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: merge %zu of \"%.*s\" and \"%.*s\": the %s is not in the vocabulary", what,
                  index, shown(left_size), left, shown(right_size), right,
                  left_id < 0    ? "first"
                  : right_id < 0 ? "second"
                                 : "result");
    return ganq__bpe_add(&tokenizer->bpe, left_id, right_id, (uint32_t)index, merged);
}

ganq_status ganq__tokenizer_derive_merges(ganq_tokenizer *tokenizer, const uint32_t *ranks) {
    const ganq__vocab *vocab = &tokenizer->vocab;
    enum { LONGEST = 1024 }; /* the longest real pieces have 128 characters; the work grows with the square */
    for (int32_t id = 0; id < vocab->size; id++) {
        const ganq__token *token = &vocab->tokens[id];
        if (!token->piece || ranks[id] == UINT32_MAX)
            continue;
        if (token->piece_size > LONGEST)
            GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: token %d has %u bytes, expected at most %d", tokenizer->path, id,
                      token->piece_size, LONGEST);
        for (size_t cut = 1; cut < token->piece_size; cut++) {
            if (((uint8_t)token->piece[cut] & 0xc0) == 0x80)
                continue;
            int32_t left = ganq__vocab_find(vocab, token->piece, cut);
            if (left < 0 || ranks[left] == UINT32_MAX)
                continue;
            int32_t right = ganq__vocab_find(vocab, token->piece + cut, token->piece_size - cut);
            if (right < 0 || ranks[right] == UINT32_MAX)
                continue;
            GANQ_TRY(ganq__bpe_add(&tokenizer->bpe, left, right, ranks[id], id));
        }
    }
    return GANQ_OK;
}

/* ---- Finishing what a file has filled ---- */

static void find_byte_ids(ganq_tokenizer *t) {
    for (int byte = 0; byte < 256; byte++) {
        char spelled[8];
        size_t size = t->byte_level ? ganq__byte_spell((uint8_t)byte, spelled)
                                    : (size_t)snprintf(spelled, sizeof spelled, "<0x%02X>", byte);
        t->byte_id[byte] = ganq__vocab_find(&t->vocab, spelled, size);
    }
}

/* The first symbols that a piece begins and ends with; -1 where the character has none, so that the piece never forms. */
static void end_symbols(const ganq_tokenizer *t, const ganq__token *token, int32_t *first, int32_t *last) {
    int32_t cp;
    *first = *last = -1;
    if (token->piece_size == 0)
        return;
    size_t length = ganq__utf8_next(token->piece, token->piece_size, &cp);
    if (length)
        *first = ganq__vocab_find(&t->vocab, token->piece, length);
    length = char_before(token->piece, token->piece_size, &cp);
    if (length)
        *last = ganq__vocab_find(&t->vocab, token->piece + token->piece_size - length, length);
}

/* Where may a long word be cut without changing the outcome? A merge across a boundary between two first symbols x, y
 * joins a piece that ends with x and one that begins with y; boundaries that no merge can cross are cuts. That reasons
 * from spellings, so it is left alone where a symbol that is not its spelling (byte, unknown) takes part in merges. */
static ganq_status find_junctions(ganq_tokenizer *t) {
    t->bpe.cuts = 1;
    uint8_t *opaque = ganq__calloc((size_t)t->vocab.size + 1, 1);
    if (!opaque)
        return GANQ_ERR_NO_MEMORY;
    for (int byte = 0; byte < 256 && !t->byte_level; byte++)
        if (t->byte_id[byte] >= 0)
            opaque[t->byte_id[byte]] = 1;
    if (t->unk >= 0)
        opaque[t->unk] = 1;
    ganq_status status = GANQ_OK;
    for (size_t i = 0; status == GANQ_OK && i < t->bpe.pair_slots; i++) {
        const ganq__pair *pair = &t->bpe.pairs[i];
        if (pair->key == UINT64_MAX)
            continue;
        int32_t left = (int32_t)(pair->key >> 32), right = (int32_t)(pair->key & 0xffffffffu), unused, x, y;
        if (opaque[left] || opaque[right] || opaque[pair->merged])
            t->bpe.cuts = 0;
        end_symbols(t, &t->vocab.tokens[left], &unused, &x);
        end_symbols(t, &t->vocab.tokens[right], &y, &unused);
        if (x >= 0 && y >= 0)
            status = ganq__bpe_add_junction(&t->bpe, x, y);
    }
    ganq__free(opaque);
    return status;
}

static int compare_added(const void *a, const void *b) {
    const ganq__added *x = a, *y = b;
    int order = memcmp(x->content, y->content, x->size < y->size ? x->size : y->size);
    return order ? order : x->size != y->size ? (x->size < y->size ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

static ganq_status fill_added_set(ganq_tokenizer *t, int normalized, ganq__added_set *set) {
    GANQ_ALLOC(set->items, t->added_count);
    for (size_t i = 0; i < t->added_count; i++)
        if (t->added[i].normalized == normalized && t->added[i].size > 0)
            set->items[set->count++] = t->added[i];
    qsort(set->items, set->count, sizeof *set->items, compare_added);
    size_t i = 0;
    for (int byte = 0; byte <= 256; byte++) {
        while (i < set->count && (uint8_t)set->items[i].content[0] < byte)
            i++;
        set->first[byte] = (uint32_t)i;
    }
    return GANQ_OK;
}

/* Tokens that are looked for in normalized text are themselves normalized. */
static ganq_status normalize_added(ganq_tokenizer *t) {
    ganq__matcher matcher;
    ganq__buffer buffers[2] = {{0}, {0}};
    GANQ_TRY(ganq__matcher_create(&matcher));
    ganq_status status = GANQ_OK;
    for (size_t i = 0; status == GANQ_OK && i < t->added_count; i++) {
        ganq__added *added = &t->added[i];
        const char *content;
        size_t size;
        if (!added->normalized || added->as_is)
            continue;
        status = ganq__normalize(&t->norms, &matcher, added->content, added->size, buffers, &content, &size);
        if (status == GANQ_OK && !(added->content = ganq__vocab_keep(&t->vocab, content, size)))
            status = GANQ_ERR_NO_MEMORY;
        added->size = size;
    }
    ganq__matcher_free(&matcher);
    ganq__buffer_free(&buffers[0]);
    ganq__buffer_free(&buffers[1]);
    return status;
}

static ganq_status finish(ganq_tokenizer *t) {
    if (t->vocab.count == 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: the vocabulary is empty", t->path);
    find_byte_ids(t);
    GANQ_TRY(find_junctions(t));
    GANQ_TRY(normalize_added(t));
    GANQ_TRY(fill_added_set(t, 0, &t->raw_set));
    return fill_added_set(t, 1, &t->normalized_set);
}

/* ---- Files beside the tokenizer's ---- */

static ganq_status load_beside(const char *dir, const char *name, json_t **json, char **path) {
    *path = ganq__path_join(dir, name);
    if (!*path)
        return GANQ_ERR_NO_MEMORY;
    if (!ganq__path_exists(*path))
        return GANQ_OK;
    GANQ_TRY(ganq__json_load(*path, json));
    if (!json_is_object(*json))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: expected an object", *path);
    return GANQ_OK;
}

static ganq_status open_beside(const char *dir, ganq__beside *beside) {
    GANQ_TRY(load_beside(dir, "tokenizer_config.json", &beside->tokenizer, &beside->tokenizer_path));
    GANQ_TRY(load_beside(dir, "generation_config.json", &beside->generation, &beside->generation_path));
    return load_beside(dir, "config.json", &beside->model, &beside->model_path);
}

static void close_beside(ganq__beside *beside) {
    json_decref(beside->tokenizer);
    json_decref(beside->generation);
    json_decref(beside->model);
    ganq__free(beside->tokenizer_path);
    ganq__free(beside->generation_path);
    ganq__free(beside->model_path);
}

ganq__family ganq__beside_family(const ganq__beside *beside) {
    const char *name = json_string_value(json_object_get(beside->tokenizer, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(beside->model, "model_type"));
    name = name ? name : "";
    type = type ? type : "";
    if (strncmp(name, "Qwen2", 5) == 0)
        return GANQ__FAMILY_QWEN2;
    if (strcmp(type, "opt") == 0) /* its class is GPT2Tokenizer */
        return GANQ__FAMILY_OPT;
    if (strncmp(name, "GPT2", 4) == 0)
        return GANQ__FAMILY_GPT2;
    if (strncmp(type, "qwen2", 5) == 0 || strncmp(type, "qwen3", 5) == 0)
        return GANQ__FAMILY_QWEN2;
    if (strcmp(type, "llama") == 0)
        return GANQ__FAMILY_LLAMA3;
    return strncmp(type, "gpt", 3) == 0 ? GANQ__FAMILY_GPT2 : GANQ__FAMILY_UNKNOWN;
}

ganq_status ganq__beside_added(const ganq__beside *beside, ganq_tokenizer *tokenizer) {
    json_t *list = json_object_get(beside->tokenizer, "added_tokens_decoder"), *object;
    const char *key, *what = beside->tokenizer_path;
    if (!list)
        return GANQ_OK;
    if (!json_is_object(list))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"added_tokens_decoder\": expected an object", what);
    json_object_foreach(list, key, object) {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (*key == 0 || *end != 0)
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: \"added_tokens_decoder\": \"%.40s\" is not an id", what, key);
        GANQ_TRY(ganq__tokenizer_add_json(tokenizer, id, object, what));
    }
    return GANQ_OK;
}

/* "bos_token" of tokenizer_config.json: a piece, or an object with its content, or null for none. *found = 1 if it says
 * anything this vocabulary knows. */
static void id_from_tokenizer_config(const ganq__beside *beside, const ganq_tokenizer *t, const char *key,
                                     int32_t *id, int *found) {
    json_t *value = json_object_get(beside->tokenizer, key);
    if (json_is_object(value))
        value = json_object_get(value, "content");
    *found = json_is_null(value);
    if (*found)
        *id = -1;
    if (!json_is_string(value))
        return;
    int32_t named = ganq__vocab_find(&t->vocab, json_string_value(value), json_string_length(value));
    if (named >= 0) {
        *id = named;
        *found = 1;
    }
}

/* "bos_token_id": a number or a list of them, of which the first counts; -1 if there is none. */
static int32_t id_from_config(const json_t *config, const ganq_tokenizer *t, const char *key) {
    const json_t *value = json_object_get(config, key);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    return id >= 0 && id < t->vocab.size && t->vocab.tokens[id].piece ? (int32_t)id : -1;
}

/* BOS and EOS: tokenizer_config.json has the last word, then what the file itself says, then the two configs. */
static void settle_ends(const ganq__beside *beside, ganq_tokenizer *t) {
    int found;
    id_from_tokenizer_config(beside, t, "bos_token", &t->bos, &found);
    if (!found && t->bos < 0)
        t->bos = id_from_config(beside->generation, t, "bos_token_id");
    if (!found && t->bos < 0)
        t->bos = id_from_config(beside->model, t, "bos_token_id");
    id_from_tokenizer_config(beside, t, "eos_token", &t->eos, &found);
    if (t->eos < 0)
        t->eos = id_from_config(beside->generation, t, "eos_token_id");
    if (t->eos < 0)
        t->eos = id_from_config(beside->model, t, "eos_token_id");
}

/* ---- Loading ---- */

static int ends_with(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static ganq_status read_json_file(const char *dir, const char *data, size_t size, const ganq__beside *beside,
                                  ganq_tokenizer *t) {
    json_t *root = NULL;
    GANQ_TRY(ganq__json_parse(data, size, t->path, &root));
    ganq_status status;
    char *merges = NULL;
    if (json_is_object(json_object_get(root, "model"))) {
        status = ganq__tokenizer_read_json(root, t);
    } else if (!(merges = ganq__path_join(dir, "merges.txt"))) {
        status = GANQ_ERR_NO_MEMORY;
    } else {
        status = ganq__tokenizer_read_vocab(root, merges, beside, t);
    }
    ganq__free(merges);
    json_decref(root);
    return status;
}

static ganq_status read_file(const char *dir, const char *data, size_t size, const ganq__beside *beside,
                             ganq_tokenizer *t) {
    if (size == 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: the file is empty", t->path);
    if (ends_with(t->path, ".json") || data[0] == '{')
        return read_json_file(dir, data, size, beside, t);
    if (data[0] == 0x0a) /* field 1, a message: the first piece */
        return ganq__tokenizer_read_spm(data, size, beside, t);
    return ganq__tokenizer_read_tiktoken(data, size, beside, t);
}

/* path: a file. */
static ganq_status load_file(const char *path, ganq_tokenizer *t) {
    const char *slash = strrchr(path, '/');
    char *dir = slash ? ganq__strndup(path, slash == path ? 1 : (size_t)(slash - path)) : ganq__strdup("."),
         *data = NULL;
    size_t size = 0;
    ganq__beside beside = {0};
    ganq_status status = dir ? GANQ_OK : GANQ_ERR_NO_MEMORY;
    if (status == GANQ_OK && ends_with(path, "merges.txt"))
        t->path = ganq__path_join(dir, "vocab.json");
    else if (status == GANQ_OK)
        t->path = ganq__strdup(path);
    if (status == GANQ_OK && !t->path)
        status = GANQ_ERR_NO_MEMORY;
    if (status == GANQ_OK)
        status = ganq__file_read(t->path, MAX_FILE, &data, &size);
    if (status == GANQ_OK)
        status = open_beside(dir, &beside);
    if (status == GANQ_OK)
        status = read_file(dir, data, size, &beside, t);
    if (status == GANQ_OK)
        status = finish(t);
    if (status == GANQ_OK)
        settle_ends(&beside, t);
    close_beside(&beside);
    ganq__free(data);
    ganq__free(dir);
    return status;
}

static ganq_status load_dir(const char *dir, ganq_tokenizer *t) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = ganq__path_join(dir, names[i]);
        if (!path)
            return GANQ_ERR_NO_MEMORY;
        int exists = ganq__path_exists(path);
        ganq_status status = exists ? load_file(path, t) : GANQ_OK;
        ganq__free(path);
        if (exists)
            return status;
    }
    GANQ_FAIL(GANQ_ERR_NOT_FOUND, "%s: no tokenizer.json, tokenizer.model or vocab.json", dir);
}

ganq_status ganq__tokenizer_load(const char *path, ganq_tokenizer **out) {
    ganq_tokenizer *t = ganq__calloc(1, sizeof *t);
    if (!t)
        return GANQ_ERR_NO_MEMORY;
    atomic_init(&t->references, 1);
    t->unk = t->bos = t->eos = -1;
    ganq_status status = ganq__path_is_dir(path) ? load_dir(path, t) : load_file(path, t);
    if (status != GANQ_OK) {
        ganq__tokenizer_free(t);
        return status;
    }
    *out = t;
    return GANQ_OK;
}

void ganq__tokenizer_free(ganq_tokenizer *tokenizer) {
    if (!tokenizer || atomic_fetch_sub(&tokenizer->references, 1) > 1)
        return;
    ganq__free(tokenizer->path);
    ganq__vocab_free(&tokenizer->vocab);
    ganq__bpe_free(&tokenizer->bpe);
    ganq__norms_free(&tokenizer->norms);
    ganq__splits_free(&tokenizer->splits);
    ganq__free(tokenizer->added);
    ganq__free(tokenizer->raw_set.items);
    ganq__free(tokenizer->normalized_set.items);
    ganq__free(tokenizer);
}
