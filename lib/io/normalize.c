/* normalize.c - what a tokenizer does to text before it is split: prefixes, replacements, Unicode
 * forms. Bytes that are not UTF-8 pass unchanged. */
#include "tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

ganq_status ganq__norms_add(ganq__norms *norms, ganq__norm item) {
    ganq__norm *items = ganq__realloc(norms->items, norms->count + 1, sizeof *items);
    if (!items) {
        ganq__pattern_free(item.pattern);
        ganq__free(item.content);
        return GANQ_ERR_NO_MEMORY;
    }
    norms->items = items;
    items[norms->count++] = item;
    return GANQ_OK;
}

void ganq__norms_free(ganq__norms *norms) {
    for (size_t i = 0; i < norms->count; i++) {
        ganq__pattern_free(norms->items[i].pattern);
        ganq__free(norms->items[i].content);
    }
    ganq__free(norms->items);
    *norms = (ganq__norms){0};
}

/* ---- Unicode forms ---- */

static int is_ascii(char c) {
    return (unsigned char)c < 0x80;
}

static ganq_status put_form(ganq__norm_kind kind, const char *text, size_t size,
                            ganq__buffer *out) {
    int options = UTF8PROC_STABLE;
    options |=
        kind == GANQ__NORM_NFC || kind == GANQ__NORM_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (kind == GANQ__NORM_NFKC || kind == GANQ__NORM_NFKD)
        options |= UTF8PROC_COMPAT;
    utf8proc_uint8_t *mapped;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size,
                                           &mapped, (utf8proc_option_t)options);
    if (length == UTF8PROC_ERROR_NOMEM)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "out of memory for normalizing %zu bytes", size);
    if (length < 0)
        GANQ_FAIL(GANQ_ERR_INTERNAL, "normalizing %zu bytes: %s", size, utf8proc_errmsg(length));
    ganq_status status = ganq__buffer_append(out, mapped, (size_t)length);
    free(mapped);
    return status;
}

/* An ASCII character followed by another one (or by the end) stays what it is and separates what is
 * around it. Only the stretches between such characters go through the tables: a few percent of
 * most texts. */
static ganq_status normalize_form(ganq__norm_kind kind, const char *text, size_t size,
                                  ganq__buffer *out) {
    size_t i = 0;
    while (i < size) {
        size_t begin = i;
        while (i < size && is_ascii(text[i]) && (i + 1 == size || is_ascii(text[i + 1])))
            i++;
        GANQ_TRY(ganq__buffer_append(out, text + begin, i - begin));
        begin = i;
        while (i < size && !(is_ascii(text[i]) && (i + 1 == size || is_ascii(text[i + 1])))) {
            int32_t cp;
            size_t length = ganq__utf8_next(text + i, size - i, &cp);
            if (!length)
                break;
            i += length;
        }
        if (i > begin)
            GANQ_TRY(put_form(kind, text + begin, i - begin, out));
        else if (i < size) { /* not UTF-8 */
            GANQ_TRY(ganq__buffer_append(out, text + i, 1));
            i++;
        }
    }
    return GANQ_OK;
}

static ganq_status lower(const char *text, size_t size, ganq__buffer *out) {
    for (size_t i = 0; i < size;) {
        int32_t cp;
        char spelled[4];
        size_t length = ganq__utf8_next(text + i, size - i, &cp), spelled_length;
        if (!length) {
            GANQ_TRY(ganq__buffer_append(out, text + i, 1));
            i++;
            continue;
        }
        i += length;
        if (cp == 0x130) { /* the one capital with two lower-case code points: i and a dot above */
            GANQ_TRY(ganq__buffer_append(out, "i\xcc\x87", 3));
            continue;
        }
        spelled_length = ganq__utf8_put(utf8proc_tolower(cp), spelled);
        GANQ_TRY(ganq__buffer_append(out, spelled, spelled_length));
    }
    return GANQ_OK;
}

/* ---- White space ---- */

static void strip(const ganq__norm *norm, const char **text, size_t *size) {
    int32_t cp;
    while (norm->left && *size > 0) {
        size_t length = ganq__utf8_next(*text, *size, &cp);
        if (!length || !ganq__is_space(cp))
            break;
        *text += length;
        *size -= length;
    }
    while (norm->right && *size > 0) {
        size_t begin = *size - 1;
        while (begin > 0 && *size - begin < 4 && ((unsigned char)(*text)[begin] & 0xc0) == 0x80)
            begin--;
        size_t length = ganq__utf8_next(*text + begin, *size - begin, &cp);
        if (length != *size - begin || !ganq__is_space(cp))
            break;
        *size = begin;
    }
}

static ganq_status squeeze(const char *text, size_t size, ganq__buffer *out) {
    while (size > 0 && text[size - 1] == ' ')
        size--;
    for (size_t i = 0; i < size; i++)
        if (text[i] != ' ' || (out->size > 0 && out->data[out->size - 1] != ' '))
            GANQ_TRY(ganq__buffer_append(out, text + i, 1));
    return GANQ_OK;
}

/* ---- SentencePiece's compiled rules ----
 * u32 size of a trie in bytes; the trie, a double array of u32 units; strings, each closed by a
 * NUL. The value of a key is the offset of its string. A unit has: bit 8, the node has a value, in
 * the low 31 bits of the unit at its offset; bits 0..7 and 31, its label; bits 10.. its offset,
 * times 256 if bit 9 is set. */

static uint32_t read_u32(const char *p) {
    const uint8_t *b = (const uint8_t *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

ganq_status ganq__charsmap_check(const char *blob, size_t size, const char *what) {
    if (size < 8)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: normalization rules of %zu bytes", what, size);
    size_t trie = read_u32(blob);
    if (trie == 0 || trie % 4 || trie > size - 4)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: normalization rules: a trie of %zu bytes in %zu", what,
                  trie, size);
    if (trie < size - 4 && blob[size - 1] != 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: normalization rules: the last string is not closed", what);
    return GANQ_OK;
}

static uint32_t unit_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & 0x200u) >> 6);
}

/* Length of the longest key that text begins with, 0 if there is none; *replacement is its string.
 */
static size_t longest_rule(const char *blob, size_t blob_size, const char *text, size_t size,
                           const char **replacement) {
    const size_t trie = read_u32(blob), units = trie / 4, strings = blob_size - 4 - trie;
    size_t longest = 0, node = unit_offset(read_u32(blob + 4));
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)text[i];
        node ^= c;
        if (c == 0 || node >= units)
            break;
        uint32_t unit = read_u32(blob + 4 + 4 * node);
        if ((unit & 0x800000ffu) != c)
            break;
        node ^= unit_offset(unit);
        if (!(unit & 0x100u))
            continue;
        if (node >= units)
            break;
        size_t value = read_u32(blob + 4 + 4 * node) & 0x7fffffffu;
        if (value >= strings)
            break;
        longest = i + 1;
        *replacement = blob + 4 + trie + value;
    }
    return longest;
}

static ganq_status apply_charsmap(const ganq__norm *norm, const char *text, size_t size,
                                  ganq__buffer *out) {
    for (size_t i = 0; i < size;) {
        const char *replacement = NULL;
        size_t length =
            longest_rule(norm->content, norm->content_size, text + i, size - i, &replacement);
        if (length) {
            GANQ_TRY(ganq__buffer_append(out, replacement, strlen(replacement)));
        } else {
            int32_t cp;
            length = ganq__utf8_next(text + i, size - i, &cp);
            length = length ? length : 1;
            GANQ_TRY(ganq__buffer_append(out, text + i, length));
        }
        i += length;
    }
    return GANQ_OK;
}

/* ---- All of them ---- */

static ganq_status replace(const ganq__norm *norm, ganq__matcher *matcher, const char *text,
                           size_t size, ganq__buffer *out) {
    ganq__search search;
    ganq__search_start(&search, text, size);
    for (size_t done = 0;;) {
        size_t begin, end;
        int found;
        GANQ_TRY(ganq__search_next(norm->pattern, matcher, &search, &begin, &end, &found));
        if (!found)
            return ganq__buffer_append(out, text + done, size - done);
        GANQ_TRY(ganq__buffer_append(out, text + done, begin - done));
        GANQ_TRY(ganq__buffer_append(out, norm->content, norm->content_size));
        done = end;
    }
}

static ganq_status apply(const ganq__norm *norm, ganq__matcher *matcher, const char *text,
                         size_t size, ganq__buffer *out) {
    switch (norm->kind) {
    case GANQ__NORM_PREPEND:
        if (size)
            GANQ_TRY(ganq__buffer_append(out, norm->content, norm->content_size));
        return ganq__buffer_append(out, text, size);
    case GANQ__NORM_REPLACE:
        return replace(norm, matcher, text, size, out);
    case GANQ__NORM_STRIP:
        strip(norm, &text, &size);
        return ganq__buffer_append(out, text, size);
    case GANQ__NORM_LOWER:
        return lower(text, size, out);
    case GANQ__NORM_CHARSMAP:
        return apply_charsmap(norm, text, size, out);
    case GANQ__NORM_SQUEEZE:
        return squeeze(text, size, out);
    default:
        return normalize_form(norm->kind, text, size, out);
    }
}

ganq_status ganq__normalize(const ganq__norms *norms, ganq__matcher *matcher, const char *text,
                            size_t size, ganq__buffer buffers[2], const char **out,
                            size_t *out_size) {
    for (size_t i = 0; i < norms->count; i++) {
        ganq__buffer *buffer = &buffers[i % 2];
        buffer->size = 0;
        GANQ_TRY(apply(&norms->items[i], matcher, text, size, buffer));
        text = buffer->size ? buffer->data : "";
        size = buffer->size;
    }
    *out = text;
    *out_size = size;
    return GANQ_OK;
}
