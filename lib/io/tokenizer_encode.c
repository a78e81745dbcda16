/* tokenizer_encode.c - text to ids: added tokens, normalizers, splits, first symbols, merges. */
#include <string.h>
#include <utf8proc.h>

#include "tokenizer_parts.h"

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

/* First symbols of a word. Without an unknown token, what has no symbol is dropped, as the
 * reference does. */
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
            id = length ? ganq__tokenizer_symbol(t, text + i, length) : -1;
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
        *id = ganq__tokenizer_symbol(t, text, size);
        return GANQ_OK;
    }
    e->spelled.size = 0;
    for (size_t i = 0; i < size; i++) {
        char spelled[4];
        GANQ_TRY(
            ganq__buffer_append(&e->spelled, spelled, ganq__byte_spell((uint8_t)text[i], spelled)));
    }
    *id = ganq__tokenizer_symbol(t, e->spelled.data, e->spelled.size);
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
static const ganq__added *find_added(const ganq__added_set *set, const char *text, size_t size,
                                     size_t at, int special) {
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
    if (ganq__utf8_before(text, begin, &cp) && is_word_char(cp))
        return 0;
    return !(end < size && ganq__utf8_next(text + end, size - end, &cp) && is_word_char(cp));
}

static ganq_status encode_stretch(encoder *e, int normalized, const char *text, size_t size,
                                  int first);

static ganq_status encode_gap(encoder *e, int normalized, const char *text, size_t size,
                              int first) {
    if (size == 0)
        return GANQ_OK;
    if (normalized)
        return ganq__split_text(&e->run, text, size, first);
    GANQ_TRY(ganq__normalize(&e->tokenizer->norms, &e->matcher, text, size, e->normalized, &text,
                             &size));
    return encode_stretch(e, 1, text, size, first);
}

/* Added tokens become their ids; what is between them goes on: raw text to the normalizers,
 * normalized text to the splits. */
static ganq_status encode_stretch(encoder *e, int normalized, const char *text, size_t size,
                                  int first) {
    const ganq__added_set *set =
        normalized ? &e->tokenizer->normalized_set : &e->tokenizer->raw_set;
    size_t done = 0;
    for (size_t at = 0; set->count && at < size;) {
        const ganq__added *hit = find_added(set, text, size, at, e->special);
        size_t begin = at, end = hit ? at + hit->size : at + 1, length;
        int32_t cp;
        at = end;
        if (!hit || (hit->single_word && !stands_alone(text, size, begin, end)))
            continue;
        while (hit->lstrip && begin > done && (length = ganq__utf8_before(text, begin, &cp)) != 0 &&
               ganq__is_space(cp))
            begin -= length;
        while (hit->rstrip && end < size &&
               (length = ganq__utf8_next(text + end, size - end, &cp)) != 0 && ganq__is_space(cp))
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
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "a text of %zu bytes: at most %d at once", length,
                  INT32_MAX);
    encoder e = {.tokenizer = tokenizer, .special = (flags & GANQ_ENCODE_SPECIAL) != 0};
    e.run = (ganq__split_run){
        .splits = &tokenizer->splits, .matcher = &e.matcher, .fn = encode_word, .user = &e};
    ganq_status status = ganq__matcher_create(&e.matcher);
    if (status == GANQ_OK && (flags & GANQ_ENCODE_BOS) && tokenizer->prefix >= 0)
        status = push_id(&e, tokenizer->prefix);
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
