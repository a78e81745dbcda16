/* tokenizer_build.c - what the readers of the file formats share: added tokens, merges, and the
 * tables that are worked out once a file has been read. */
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "tokenizer_parts.h"

ganq_status ganq__tokenizer_add(ganq_tokenizer *tokenizer, ganq__added added, const char *content,
                                size_t size, const char *what) {
    if (size == 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: added token %d is empty", what, added.id);
    const int known =
        added.id >= 0 && ganq__vocab_find(&tokenizer->vocab, content, size) == added.id;
    if (!known)
        GANQ_TRY(ganq__vocab_add(&tokenizer->vocab, added.id, content, size,
                                 (size_t)tokenizer->vocab.count, what));
    ganq__token *token = &tokenizer->vocab.tokens[added.id];
    token->outside = token->outside || !known;
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

ganq_status ganq__tokenizer_add_json(ganq_tokenizer *tokenizer, int64_t id, const json_t *object,
                                     const char *what) {
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
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: added token \"%.80s\" has id %lld", what, content,
                  (long long)id);
    ganq__added added = {.id = (int32_t)id,
                         .special = (uint8_t)special,
                         .normalized = (uint8_t)normalized,
                         .lstrip = (uint8_t)lstrip,
                         .rstrip = (uint8_t)rstrip,
                         .single_word = (uint8_t)single_word};
    return ganq__tokenizer_add(tokenizer, added, content, strlen(content), what);
}

/* For messages: at most 80 bytes of a piece. */
static int shown(size_t size) {
    return size < 80 ? (int)size : 80;
}

ganq_status ganq__tokenizer_add_merge(ganq_tokenizer *tokenizer, const char *left, size_t left_size,
                                      const char *right, size_t right_size, size_t index,
                                      const char *what) {
    const ganq__vocab *vocab = &tokenizer->vocab;
    const size_t size = left_size + right_size;
    char room[256], *both = size <= sizeof room ? room : ganq__malloc(size, 1);
    if (!both)
        return GANQ_ERR_NO_MEMORY;
    memcpy(both, left, left_size);
    memcpy(both + left_size, right, right_size);
    int32_t left_id = ganq__vocab_find(vocab, left, left_size),
            right_id = ganq__vocab_find(vocab, right, right_size),
            merged = ganq__vocab_find(vocab, both, size);
    if (both != room)
        ganq__free(both);
    if (left_id < 0 || right_id < 0 || merged < 0)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: merge %zu of \"%.*s\" and \"%.*s\": the %s is not in the vocabulary", what,
                  index, shown(left_size), left, shown(right_size), right,
                  left_id < 0    ? "first"
                  : right_id < 0 ? "second"
                                 : "result");
    return ganq__bpe_add(&tokenizer->bpe, left_id, right_id, (uint32_t)index, merged);
}

ganq_status ganq__tokenizer_derive_merges(ganq_tokenizer *tokenizer, const uint32_t *ranks) {
    const ganq__vocab *vocab = &tokenizer->vocab;
    /* The longest real pieces have 128 characters; the work grows with the square. */
    enum { LONGEST = 1024 };
    for (int32_t id = 0; id < vocab->size; id++) {
        const ganq__token *token = &vocab->tokens[id];
        if (!token->piece || ranks[id] == UINT32_MAX)
            continue;
        if (token->piece_size > LONGEST)
            GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: token %d has %u bytes, expected at most %d",
                      tokenizer->path, id, token->piece_size, LONGEST);
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

int32_t ganq__tokenizer_symbol(const ganq_tokenizer *tokenizer, const char *piece, size_t size) {
    int32_t id = ganq__vocab_find(&tokenizer->vocab, piece, size);
    return id >= 0 && tokenizer->vocab.tokens[id].outside ? -1 : id;
}

static void find_byte_ids(ganq_tokenizer *t) {
    for (int byte = 0; byte < 256; byte++) {
        char spelled[8];
        size_t size = t->byte_level ? ganq__byte_spell((uint8_t)byte, spelled)
                                    : (size_t)snprintf(spelled, sizeof spelled, "<0x%02X>", byte);
        t->byte_id[byte] = ganq__tokenizer_symbol(t, spelled, size);
    }
}

/* The first symbols that a piece begins and ends with; -1 where the character has none, so that the
 * piece never forms. */
static void end_symbols(const ganq_tokenizer *t, const ganq__token *token, int32_t *first,
                        int32_t *last) {
    int32_t cp;
    *first = *last = -1;
    if (token->piece_size == 0)
        return;
    size_t length = ganq__utf8_next(token->piece, token->piece_size, &cp);
    if (length)
        *first = ganq__tokenizer_symbol(t, token->piece, length);
    length = ganq__utf8_before(token->piece, token->piece_size, &cp);
    if (length)
        *last = ganq__tokenizer_symbol(t, token->piece + token->piece_size - length, length);
}

/* Where may a long word be cut without changing the outcome? A merge across a boundary between two
 * first symbols x, y joins a piece that ends with x and one that begins with y; boundaries that no
 * merge can cross are cuts. That reasons from spellings, so it is left alone where a symbol that is
 * not its spelling (byte, unknown) takes part in merges. */
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
        int32_t left = (int32_t)(pair->key >> 32), right = (int32_t)(pair->key & 0xffffffffu),
                unused, x, y;
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
    return order                ? order
           : x->size != y->size ? (x->size < y->size ? -1 : 1)
                                : (x->id > y->id) - (x->id < y->id);
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
        status = ganq__normalize(&t->norms, &matcher, added->content, added->size, buffers,
                                 &content, &size);
        if (status == GANQ_OK && !(added->content = ganq__vocab_keep(&t->vocab, content, size)))
            status = GANQ_ERR_NO_MEMORY;
        added->size = size;
    }
    ganq__matcher_free(&matcher);
    ganq__buffer_free(&buffers[0]);
    ganq__buffer_free(&buffers[1]);
    return status;
}

ganq_status ganq__tokenizer_finish(ganq_tokenizer *t) {
    if (t->vocab.count == 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: the vocabulary is empty", t->path);
    find_byte_ids(t);
    GANQ_TRY(find_junctions(t));
    GANQ_TRY(normalize_added(t));
    GANQ_TRY(fill_added_set(t, 0, &t->raw_set));
    return fill_added_set(t, 1, &t->normalized_set);
}
