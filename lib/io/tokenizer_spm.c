/* tokenizer_spm.c - SentencePiece's tokenizer.model of the BPE kind: a protobuf message
 * (sentencepiece_model.proto) with the pieces, their scores and types, how the model was trained
 * and how text is normalized.
 *
 * SentencePiece merges the neighbours whose joined spelling is the piece of the highest score; the
 * merges are worked out at load. User-defined pieces are found in the normalized text before
 * anything is merged, control pieces only where special tokens are asked for. */
#include <string.h>

#include "half.h"
#include "tokenizer_parts.h"

static const char SPACE_MARK[] = "\xe2\x96\x81"; /* U+2581 stands for a space */

/* ---- Protobuf ---- */

typedef struct message {
    const uint8_t *at, *end;
    const char *path; /* for errors */
} message;

typedef struct field {
    uint32_t number, wire; /* wire 0: value; 1, 5: value holds the bits; 2: bytes, size */
    uint64_t value;
    const char *bytes;
    size_t size;
} field;

static ganq_status read_varint(message *m, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (m->at == m->end)
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: ends within a number", m->path);
        uint8_t byte = *m->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return GANQ_OK;
    }
    GANQ_FAIL(GANQ_ERR_FORMAT, "%s: a number of more than ten bytes", m->path);
}

/* The next field; the caller has checked that at < end. */
static ganq_status read_field(message *m, field *f) {
    uint64_t tag;
    GANQ_TRY(read_varint(m, &tag));
    *f = (field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: not a SentencePiece model: field number %llu", m->path,
                  (unsigned long long)(tag >> 3));
    const size_t left = (size_t)(m->end - m->at);
    switch (f->wire) {
    case 0:
        return read_varint(m, &f->value);
    case 1:
    case 5: {
        const size_t size = f->wire == 1 ? 8 : 4;
        if (left < size)
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: field %u ends outside the file", m->path, f->number);
        for (size_t i = 0; i < size; i++)
            f->value |= (uint64_t)m->at[i] << (8 * i);
        m->at += size;
        return GANQ_OK;
    }
    case 2: {
        uint64_t size;
        GANQ_TRY(read_varint(m, &size));
        if (size > (uint64_t)(m->end - m->at))
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: field %u has %llu bytes where %zu are left", m->path,
                      f->number, (unsigned long long)size, (size_t)(m->end - m->at));
        f->bytes = (const char *)m->at;
        f->size = (size_t)size;
        m->at += size;
        return GANQ_OK;
    }
    default:
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: not a SentencePiece model: wire type %u", m->path, f->wire);
    }
}

static message inside(const message *m, const field *f) {
    return (message){(const uint8_t *)f->bytes, (const uint8_t *)f->bytes + f->size, m->path};
}

/* ---- The model's parts ---- */

typedef enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER_DEFINED = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6
} piece_type;

typedef struct piece {
    const char *text;
    size_t size;
    float score;
    uint64_t type;
} piece;

typedef struct model {
    piece *pieces;
    size_t count, capacity;
    uint64_t model_type; /* 1 Unigram (also when absent), 2 BPE, 3 words, 4 characters */
    int suffix;          /* the space mark stands behind words */
    int byte_fallback;
    int64_t bos, eos;
    int dummy_prefix, squeeze, escape;
    const char *charsmap;
    size_t charsmap_size;
    int denormalizes;
} model;

static ganq_status read_piece(message m, piece *p) {
    field f;
    *p = (piece){.text = "", .type = PIECE_NORMAL};
    while (m.at < m.end) {
        GANQ_TRY(read_field(&m, &f));
        if (f.number == 1 && f.wire == 2) {
            p->text = f.bytes;
            p->size = f.size;
        } else if (f.number == 2 && f.wire == 5) {
            p->score = ganq__bits_to_f32((uint32_t)f.value);
        } else if (f.number == 3 && f.wire == 0) {
            p->type = f.value;
        }
    }
    return GANQ_OK;
}

static ganq_status read_trainer(message m, model *out) {
    field f;
    while (m.at < m.end) {
        GANQ_TRY(read_field(&m, &f));
        if (f.wire != 0)
            continue;
        if (f.number == 3)
            out->model_type = f.value;
        else if (f.number == 24)
            out->suffix = f.value != 0;
        else if (f.number == 35)
            out->byte_fallback = f.value != 0;
        else if (f.number == 41)
            out->bos = (int64_t)f.value;
        else if (f.number == 42)
            out->eos = (int64_t)f.value;
    }
    return GANQ_OK;
}

static ganq_status read_normalizer(message m, model *out) {
    field f;
    while (m.at < m.end) {
        GANQ_TRY(read_field(&m, &f));
        if (f.number == 2 && f.wire == 2) {
            out->charsmap = f.bytes;
            out->charsmap_size = f.size;
        } else if (f.wire == 0 && f.number == 3) {
            out->dummy_prefix = f.value != 0;
        } else if (f.wire == 0 && f.number == 4) {
            out->squeeze = f.value != 0;
        } else if (f.wire == 0 && f.number == 5) {
            out->escape = f.value != 0;
        }
    }
    return GANQ_OK;
}

static ganq_status read_denormalizer(message m, model *out) {
    field f;
    while (m.at < m.end) {
        GANQ_TRY(read_field(&m, &f));
        out->denormalizes = out->denormalizes || (f.number == 2 && f.wire == 2 && f.size > 0);
    }
    return GANQ_OK;
}

static ganq_status add_piece(message m, model *out) {
    if (out->count == out->capacity) {
        size_t capacity = 2 * out->capacity + 1024;
        piece *pieces = ganq__realloc(out->pieces, capacity, sizeof *pieces);
        if (!pieces)
            return GANQ_ERR_NO_MEMORY;
        out->pieces = pieces;
        out->capacity = capacity;
    }
    return read_piece(m, &out->pieces[out->count++]);
}

static ganq_status read_model(message m, model *out) {
    field f;
    while (m.at < m.end) {
        GANQ_TRY(read_field(&m, &f));
        if (f.wire != 2)
            continue;
        if (f.number == 1)
            GANQ_TRY(add_piece(inside(&m, &f), out));
        else if (f.number == 2)
            GANQ_TRY(read_trainer(inside(&m, &f), out));
        else if (f.number == 3)
            GANQ_TRY(read_normalizer(inside(&m, &f), out));
        else if (f.number == 5)
            GANQ_TRY(read_denormalizer(inside(&m, &f), out));
    }
    return GANQ_OK;
}

static ganq_status check_model(const model *m, const char *path) {
    if (m->count == 0 || m->count > INT32_MAX / 2)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: %zu pieces", path, m->count);
    if (m->model_type != 2)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED,
                  "%s: a SentencePiece model of type %llu (%s) is not supported, only 2 (BPE)",
                  path, (unsigned long long)m->model_type,
                  m->model_type == 1 ? "Unigram" : "not BPE");
    if (m->suffix)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: treat_whitespace_as_suffix is not supported", path);
    if (!m->escape)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: escape_whitespaces = false is not supported", path);
    if (m->denormalizes)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: a denormalizer is not supported", path);
    return m->charsmap_size ? ganq__charsmap_check(m->charsmap, m->charsmap_size, path) : GANQ_OK;
}

/* ---- Into the tokenizer ---- */

static int hex_value(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* What a piece decodes to: spaces for their marks, the byte of a byte piece. */
static ganq_status set_text(ganq_tokenizer *t, int32_t id, uint64_t type) {
    ganq__token *token = &t->vocab.tokens[id];
    if (type == PIECE_CONTROL || type == PIECE_UNKNOWN)
        return GANQ_OK;
    char *text = ganq__vocab_keep(&t->vocab, token->piece, token->piece_size);
    if (!text)
        return GANQ_ERR_NO_MEMORY;
    size_t size = 0;
    if (type == PIECE_BYTE) {
        int high = hex_value(token->piece[3]), low = hex_value(token->piece[4]);
        text[size++] = (char)(high * 16 + low);
    }
    for (size_t i = 0; type != PIECE_BYTE && i < token->piece_size;) {
        if (token->piece_size - i >= 3 && memcmp(token->piece + i, SPACE_MARK, 3) == 0) {
            text[size++] = ' ';
            i += 3;
        } else {
            text[size++] = token->piece[i++];
        }
    }
    token->text = text;
    token->text_size = (uint32_t)size;
    return GANQ_OK;
}

static ganq_status add_to_vocabulary(const model *m, size_t i, ganq_tokenizer *t) {
    const piece *p = &m->pieces[i];
    const int32_t id = (int32_t)i;
    if (p->size == 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: piece %zu is empty", t->path, i);
    if (memchr(p->text, 0, p->size))
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: piece %zu has a NUL in it", t->path, i);
    GANQ_TRY(ganq__vocab_add(&t->vocab, id, p->text, p->size, m->count, t->path));
    const char *spelled = t->vocab.tokens[id].piece;
    ganq__added added = {.id = id};
    switch (p->type) {
    case PIECE_NORMAL:
        break;
    case PIECE_UNKNOWN:
        if (t->unk >= 0)
            GANQ_FAIL(GANQ_ERR_FORMAT, "%s: pieces %d and %d are both of the unknown type", t->path,
                      t->unk, id);
        t->unk = id;
        added.special = 1;
        GANQ_TRY(ganq__tokenizer_add(t, added, spelled, p->size, t->path));
        break;
    case PIECE_CONTROL:
        added.special = 1;
        GANQ_TRY(ganq__tokenizer_add(t, added, spelled, p->size, t->path));
        break;
    case PIECE_USER_DEFINED:
        added.normalized = added.as_is = 1;
        GANQ_TRY(ganq__tokenizer_add(t, added, spelled, p->size, t->path));
        break;
    case PIECE_BYTE:
        if (p->size != 6 || memcmp(spelled, "<0x", 3) != 0 || spelled[5] != '>' ||
            hex_value(spelled[3]) < 0 || hex_value(spelled[4]) < 0)
            GANQ_FAIL(GANQ_ERR_FORMAT,
                      "%s: piece %d, \"%.40s\", is of the byte type: expected <0xHH>", t->path, id,
                      spelled);
        break;
    default:
        GANQ_FAIL(p->type == PIECE_UNUSED ? GANQ_ERR_UNSUPPORTED : GANQ_ERR_FORMAT,
                  "%s: piece %d, \"%.40s\", is of type %llu%s", t->path, id, spelled,
                  (unsigned long long)p->type,
                  p->type == PIECE_UNUSED ? " (unused), which is not supported" : "");
    }
    return set_text(t, id, p->type);
}

static int by_falling_score(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Ranks: 0 for the highest score; equal scores, equal ranks. */
static ganq_status add_merges(const model *m, ganq_tokenizer *t) {
    float *scores = NULL;
    uint32_t *ranks = NULL;
    size_t distinct = 0;
    ganq_status status;
    GANQ_CALLOC_GOTO(done, scores, m->count);
    GANQ_CALLOC_GOTO(done, ranks, m->count);
    for (size_t i = 0; i < m->count; i++) {
        scores[i] = m->pieces[i].score;
        if (scores[i] != scores[i])
            GANQ_FAIL_GOTO(done, GANQ_ERR_FORMAT, "%s: the score of piece %zu is not a number",
                           t->path, i);
    }
    qsort(scores, m->count, sizeof *scores, by_falling_score);
    for (size_t i = 0; i < m->count; i++)
        if (distinct == 0 || scores[i] != scores[distinct - 1])
            scores[distinct++] = scores[i];
    for (size_t i = 0; i < m->count; i++) {
        const float *rank =
            bsearch(&m->pieces[i].score, scores, distinct, sizeof *scores, by_falling_score);
        int merges = m->pieces[i].type == PIECE_NORMAL || m->pieces[i].type == PIECE_USER_DEFINED;
        ranks[i] = merges ? (uint32_t)(rank - scores) : UINT32_MAX;
    }
    status = ganq__tokenizer_derive_merges(t, ranks);
done:
    ganq__free(scores);
    ganq__free(ranks);
    return status;
}

static ganq_status add_norm(ganq_tokenizer *t, ganq__norm_kind kind, const char *content,
                            size_t size) {
    ganq__norm norm = {.kind = kind, .content_size = size};
    norm.content = ganq__strndup(content, size);
    if (!norm.content)
        return GANQ_ERR_NO_MEMORY;
    if (kind == GANQ__NORM_REPLACE) {
        ganq_status status = ganq__pattern_literal(" ", 1, &norm.pattern);
        if (status != GANQ_OK) {
            ganq__free(norm.content);
            return status;
        }
    }
    return ganq__norms_add(&t->norms, norm);
}

static ganq_status add_norms(const model *m, ganq_tokenizer *t) {
    if (m->charsmap_size)
        GANQ_TRY(add_norm(t, GANQ__NORM_CHARSMAP, m->charsmap, m->charsmap_size));
    /* A model without rules is meant to keep the text: llama2.c and the fast Llama tokenizers do
     * not squeeze spaces for it, whatever it says, and what they encode comes back unchanged. */
    if (m->squeeze && m->charsmap_size)
        GANQ_TRY(add_norm(t, GANQ__NORM_SQUEEZE, "", 0));
    if (m->dummy_prefix)
        GANQ_TRY(add_norm(t, GANQ__NORM_PREPEND, SPACE_MARK, 3));
    return add_norm(t, GANQ__NORM_REPLACE, SPACE_MARK, 3);
}

static ganq_status fill(const model *m, ganq_tokenizer *t) {
    for (size_t i = 0; i < m->count; i++)
        GANQ_TRY(add_to_vocabulary(m, i, t));
    GANQ_TRY(add_merges(m, t));
    GANQ_TRY(add_norms(m, t));
    t->byte_fallback = m->byte_fallback;
    t->fuse_unk = 1;
    t->bos = m->bos >= 0 && m->bos < (int64_t)m->count ? (int32_t)m->bos : -1;
    t->eos = m->eos >= 0 && m->eos < (int64_t)m->count ? (int32_t)m->eos : -1;
    if (m->dummy_prefix) {
        strcpy(t->strip, " ");
        t->strip_count = 1;
    }
    return GANQ_OK;
}

ganq_status ganq__tokenizer_read_spm(const char *data, size_t size, const ganq__beside *beside,
                                     ganq_tokenizer *tokenizer) {
    message m = {(const uint8_t *)data, (const uint8_t *)data + size, tokenizer->path};
    model read = {
        .model_type = 1, .bos = 1, .eos = 2, .dummy_prefix = 1, .squeeze = 1, .escape = 1};
    ganq_status status = read_model(m, &read);
    if (status == GANQ_OK)
        status = check_model(&read, tokenizer->path);
    if (status == GANQ_OK)
        status = fill(&read, tokenizer);
    if (status == GANQ_OK)
        status = ganq__beside_added(beside, tokenizer);
    tokenizer->adds_bos = ganq__beside_adds_bos(beside, 1);
    ganq__free(read.pieces);
    return status;
}
