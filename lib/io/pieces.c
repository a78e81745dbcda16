/* pieces.c - the vocabulary's strings by id and ids by string; UTF-8 and GPT-2's byte alphabet. */
#include "tokenizer_parts.h"

#include <string.h>

/* ---- UTF-8 ---- */

size_t ganq__utf8_next(const char *p, size_t n, int32_t *cp) {
    const uint8_t *b = (const uint8_t *)p;
    if (b[0] < 0x80) {
        *cp = b[0];
        return 1;
    }
    if (b[0] < 0xc2)
        return 0;
    if (n < 2 || (b[1] & 0xc0) != 0x80)
        return 0;
    if (b[0] < 0xe0) {
        *cp = (b[0] & 0x1f) << 6 | (b[1] & 0x3f);
        return 2;
    }
    if (n < 3 || (b[2] & 0xc0) != 0x80)
        return 0;
    if (b[0] < 0xf0) {
        int32_t value = (b[0] & 0x0f) << 12 | (b[1] & 0x3f) << 6 | (b[2] & 0x3f);
        if (value < 0x800 || (value >= 0xd800 && value < 0xe000))
            return 0;
        *cp = value;
        return 3;
    }
    if (n < 4 || b[0] > 0xf4 || (b[3] & 0xc0) != 0x80)
        return 0;
    int32_t value = (b[0] & 0x07) << 18 | (b[1] & 0x3f) << 12 | (b[2] & 0x3f) << 6 | (b[3] & 0x3f);
    if (value < 0x10000 || value > 0x10ffff)
        return 0;
    *cp = value;
    return 4;
}

size_t ganq__utf8_put(int32_t cp, char out[4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

size_t ganq__utf8_valid(const char *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        while (i + 8 <= n && (memcpy(&eight, p + i, 8), (eight & 0x8080808080808080u) == 0))
            i += 8;
        if (i == n)
            break;
        int32_t cp;
        size_t length = ganq__utf8_next(p + i, n - i, &cp);
        if (length == 0)
            break;
        i += length;
    }
    return i;
}

size_t ganq__utf8_before(const char *text, size_t at, int32_t *cp) {
    for (size_t length = 1; length <= 4 && length <= at; length++)
        if (((uint8_t)text[at - length] & 0xc0) != 0x80)
            return ganq__utf8_next(text + at - length, length, cp) == length ? length : 0;
    return 0;
}

int ganq__is_space(int32_t cp) {
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

/* ---- GPT-2's alphabet ---- */

/* Bytes that print stand for themselves; the others, in order, for U+0100, U+0101, ... */
static int stands_for_itself(int byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

size_t ganq__byte_spell(uint8_t byte, char out[4]) {
    int32_t cp = byte;
    if (!stands_for_itself(byte)) {
        cp = 256;
        for (int b = 0; b < byte; b++)
            cp += !stands_for_itself(b);
    }
    return ganq__utf8_put(cp, out);
}

/* The byte that a character stands for, or -1. */
static int byte_of(int32_t cp) {
    if (cp < 256)
        return stands_for_itself(cp) ? cp : -1;
    if (cp < 256 + 33) /* bytes 0 to 32 */
        return cp - 256;
    if (cp < 256 + 68) /* 127 to 160, then 173 */
        return cp == 256 + 67 ? 173 : cp - 256 - 33 + 127;
    return -1;
}

int ganq__byte_unspell(const char *piece, size_t size, ganq__buffer *bytes) {
    size_t before = bytes->size;
    for (size_t i = 0; i < size;) {
        int32_t cp;
        size_t length = ganq__utf8_next(piece + i, size - i, &cp);
        int byte = length ? byte_of(cp) : -1;
        if (byte < 0) {
            bytes->size = before;
            return 0;
        }
        char c = (char)byte;
        if (ganq__buffer_append(bytes, &c, 1) != GANQ_OK)
            return -1;
        i += length;
    }
    return 1;
}

/* ---- Vocabulary ---- */

/* Strings are kept in blocks that never move. */
typedef struct ganq__block {
    struct ganq__block *next;
    size_t size, used;
    char data[];
} block;

char *ganq__vocab_keep(ganq__vocab *vocab, const char *text, size_t size) {
    block *b = vocab->blocks;
    if (!b || b->size - b->used <= size) {
        size_t room = size < (1 << 16) ? (1 << 16) : size + 1;
        b = ganq__malloc(1, sizeof *b + room);
        if (!b)
            return NULL;
        b->size = room;
        b->used = 0;
        b->next = vocab->blocks;
        vocab->blocks = b;
    }
    char *copy = b->data + b->used;
    memcpy(copy, text, size);
    copy[size] = 0;
    b->used += size + 1;
    return copy;
}

static uint32_t hash_bytes(const char *text, size_t size) {
    uint64_t h = size * 0x9e3779b97f4a7c15u;
    while (size > 0) {
        uint64_t word = 0;
        size_t step = size < 8 ? size : 8;
        memcpy(&word, text, step);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        text += step;
        size -= step;
    }
    return (uint32_t)(h ^ h >> 29);
}

/* The slot that holds the piece, or the empty one where it belongs. */
static size_t find_slot(const ganq__vocab *vocab, const char *piece, size_t size, uint32_t hash) {
    size_t mask = vocab->slot_count - 1, slot = hash & mask;
    for (; vocab->slots[slot] >= 0; slot = (slot + 1) & mask) {
        const ganq__token *token = &vocab->tokens[vocab->slots[slot]];
        if (token->hash == hash && token->piece_size == size &&
            memcmp(token->piece, piece, size) == 0)
            break;
    }
    return slot;
}

static ganq_status grow_slots(ganq__vocab *vocab, size_t count) {
    int32_t *slots;
    GANQ_ALLOC(slots, count);
    memset(slots, 0xff, count * sizeof *slots);
    ganq__free(vocab->slots);
    vocab->slots = slots;
    vocab->slot_count = count;
    for (int32_t id = 0; id < vocab->size; id++) {
        const ganq__token *token = &vocab->tokens[id];
        if (token->piece)
            slots[find_slot(vocab, token->piece, token->piece_size, token->hash)] = id;
    }
    return GANQ_OK;
}

static ganq_status grow_tokens(ganq__vocab *vocab, int32_t size) {
    if (size <= vocab->capacity)
        return GANQ_OK;
    int32_t capacity = size + size / 2 + 64;
    ganq__token *tokens = ganq__realloc(vocab->tokens, (size_t)capacity, sizeof *tokens);
    if (!tokens)
        return GANQ_ERR_NO_MEMORY;
    memset(tokens + vocab->capacity, 0, (size_t)(capacity - vocab->capacity) * sizeof *tokens);
    vocab->tokens = tokens;
    vocab->capacity = capacity;
    return GANQ_OK;
}

ganq_status ganq__vocab_add(ganq__vocab *vocab, int64_t id, const char *piece, size_t size,
                            size_t expected, const char *what) {
    /* Real vocabularies have small gaps at most; a lying id must not become a huge table. */
    int64_t limit = 4 * (int64_t)expected + 65536;
    if (id < 0 || id >= limit || id > INT32_MAX / 2)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: token \"%.*s\" has id %lld in a vocabulary of %zu entries",
                  what, (int)(size < 80 ? size : 80), piece, (long long)id, expected);
    if (size > (1 << 24))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: token %lld has %zu bytes", what, (long long)id, size);
    if ((size_t)vocab->count * 2 + 2 > vocab->slot_count)
        GANQ_TRY(grow_slots(vocab, vocab->slot_count ? vocab->slot_count * 2 : 1024));
    GANQ_TRY(grow_tokens(vocab, (int32_t)id + 1));
    ganq__token *token = &vocab->tokens[id];
    if (token->piece)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: id %lld stands for \"%.80s\" and for \"%.*s\"", what,
                  (long long)id, token->piece, (int)(size < 80 ? size : 80), piece);
    uint32_t hash = hash_bytes(piece, size);
    size_t slot = find_slot(vocab, piece, size, hash);
    if (vocab->slots[slot] >= 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: token \"%.*s\" has the ids %d and %lld", what,
                  (int)(size < 80 ? size : 80), piece, vocab->slots[slot], (long long)id);
    const char *kept = ganq__vocab_keep(vocab, piece, size);
    if (!kept)
        return GANQ_ERR_NO_MEMORY;
    token->piece = token->text = kept;
    token->piece_size = token->text_size = (uint32_t)size;
    token->hash = hash;
    vocab->slots[slot] = (int32_t)id;
    vocab->count++;
    if ((int32_t)id >= vocab->size)
        vocab->size = (int32_t)id + 1;
    if (size > vocab->longest)
        vocab->longest = size;
    return GANQ_OK;
}

int32_t ganq__vocab_find(const ganq__vocab *vocab, const char *piece, size_t size) {
    if (size > vocab->longest || vocab->slot_count == 0)
        return -1;
    return vocab->slots[find_slot(vocab, piece, size, hash_bytes(piece, size))];
}

void ganq__vocab_free(ganq__vocab *vocab) {
    while (vocab->blocks) {
        block *next = vocab->blocks->next;
        ganq__free(vocab->blocks);
        vocab->blocks = next;
    }
    ganq__free(vocab->tokens);
    ganq__free(vocab->slots);
}
