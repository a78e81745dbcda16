/* corpus.c - token sequences: random windows as GPTQ's scripts draw them, documents from their
 * start, or one joined text. Ids from .ids files are taken as they are: no BOS is added and nothing
 * is put between documents. */
#include <inttypes.h>
#include <string.h>

#include "alloc.h"
#include "buffer.h"
#include "corpus.h"
#include "documents.h"
#include "random.h"
#include "tokenizer.h"

enum { DEFAULT_SAMPLES = 128, DEFAULT_LENGTH = 2048 };

typedef struct sequence {
    int32_t *ids;
    size_t count;
} sequence;

struct ganq_corpus {
    sequence *sequences;
    size_t count, capacity;
    int64_t tokens;
};

ganq_status ganq__corpus_create(ganq_corpus **out) {
    ganq_corpus *corpus = ganq__calloc(1, sizeof *corpus);
    if (!corpus)
        return GANQ_ERR_NO_MEMORY;
    *out = corpus;
    return GANQ_OK;
}

void ganq__corpus_free(ganq_corpus *corpus) {
    if (!corpus)
        return;
    for (size_t i = 0; i < corpus->count; i++)
        ganq__free(corpus->sequences[i].ids);
    ganq__free(corpus->sequences);
    ganq__free(corpus);
}

ganq_status ganq__corpus_add(ganq_corpus *corpus, const int32_t *ids, size_t count) {
    if (corpus->count == corpus->capacity) {
        size_t capacity = corpus->capacity ? 2 * corpus->capacity : 16;
        sequence *larger = ganq__realloc(corpus->sequences, capacity, sizeof *larger);
        if (!larger)
            return GANQ_ERR_NO_MEMORY;
        corpus->sequences = larger;
        corpus->capacity = capacity;
    }
    int32_t *copy;
    GANQ_ALLOC(copy, count);
    if (count)
        memcpy(copy, ids, count * sizeof *copy);
    corpus->sequences[corpus->count++] = (sequence){copy, count};
    corpus->tokens += (int64_t)count;
    return GANQ_OK;
}

int64_t ganq__corpus_count(const ganq_corpus *corpus) {
    return (int64_t)corpus->count;
}

int64_t ganq__corpus_tokens(const ganq_corpus *corpus) {
    return corpus->tokens;
}

const int32_t *ganq__corpus_get(const ganq_corpus *corpus, int64_t i, size_t *count) {
    if (i < 0 || (uint64_t)i >= corpus->count)
        return NULL;
    *count = corpus->sequences[i].count;
    return corpus->sequences[i].ids;
}

/* ---- reading a file ---- */

/* A document, tokenized when it is first drawn. */
typedef struct entry {
    char *text; /* NULL for ids from the file */
    size_t length;
    int32_t *ids; /* of a text: NULL before it is tried, and when it is too short for a window */
    size_t id_count;
    int tried;
} entry;

typedef struct loader {
    const ganq_tokenizer *tokenizer;
    const char *path;
    ganq_corpus_options options; /* defaults filled in */
    int64_t skipped;
    entry *entries; /* WINDOWS and JOINED hold all documents */
    size_t count, capacity;
    size_t untried, longest; /* documents not yet drawn; most tokens of one that was */
    ganq_corpus *corpus;     /* the result */
} loader;

static void loader_free(loader *l) {
    for (size_t i = 0; i < l->count; i++) {
        ganq__free(l->entries[i].text);
        ganq__free(l->entries[i].ids);
    }
    ganq__free(l->entries);
    ganq__corpus_free(l->corpus);
}

static ganq_status encode(const loader *l, const char *text, size_t length, int32_t **ids,
                          size_t *count) {
    if (!l->tokenizer)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "%s: a file of text needs a tokenizer (only .ids files do without)", l->path);
    ganq_status status =
        ganq__tokenizer_encode(l->tokenizer, text, length, GANQ_ENCODE_BOS, ids, count);
    if (status != GANQ_OK)
        ganq__fail_prefix("%s", l->path);
    return status;
}

/* Ids of a file must be ids of the tokenizer that comes with them. */
static ganq_status check_ids(const loader *l, const ganq__document *document) {
    if (!l->tokenizer)
        return GANQ_OK;
    int32_t size = ganq__tokenizer_vocab_size(l->tokenizer);
    for (size_t i = 0; i < document->id_count; i++)
        if (document->ids[i] >= size)
            GANQ_FAIL(GANQ_ERR_FORMAT,
                      "%s: token id %" PRId32 ", but the tokenizer has %" PRId32 " ids", l->path,
                      document->ids[i], size);
    return GANQ_OK;
}

/* DOCUMENTS: tokenizes, cuts, and keeps only that. */
static ganq_status take_document(void *user, const ganq__document *document, int *stop) {
    loader *l = user;
    if (l->skipped < l->options.skip) {
        l->skipped++;
        return GANQ_OK;
    }
    if (!document->length && !document->id_count)
        return GANQ_OK; /* BOS alone says nothing */
    int32_t *owned = NULL;
    const int32_t *ids = document->ids;
    size_t count = document->id_count;
    if (document->text)
        GANQ_TRY(encode(l, document->text, document->length, &owned, &count));
    else
        GANQ_TRY(check_ids(l, document));
    if ((uint64_t)count > (uint64_t)l->options.length)
        count = (size_t)l->options.length;
    ganq_status status = ganq__corpus_add(l->corpus, owned ? owned : ids, count);
    ganq__free(owned);
    *stop = l->options.samples >= 0 && ganq__corpus_count(l->corpus) >= l->options.samples;
    return status;
}

/* WINDOWS, JOINED: keeps the document for later. */
static ganq_status keep_document(void *user, const ganq__document *document, int *stop) {
    loader *l = user;
    (void)stop;
    if (l->skipped < l->options.skip) {
        l->skipped++;
        return GANQ_OK;
    }
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        entry *larger = ganq__realloc(l->entries, capacity, sizeof *larger);
        if (!larger)
            return GANQ_ERR_NO_MEMORY;
        l->entries = larger;
        l->capacity = capacity;
    }
    entry kept = {0};
    if (document->text) {
        kept.text = ganq__strndup(document->text, document->length);
        kept.length = document->length;
        if (!kept.text)
            return GANQ_ERR_NO_MEMORY;
    } else {
        GANQ_TRY(check_ids(l, document));
        GANQ_ALLOC(kept.ids, document->id_count);
        memcpy(kept.ids, document->ids, document->id_count * sizeof *kept.ids);
        kept.id_count = document->id_count;
    }
    l->entries[l->count++] = kept;
    return GANQ_OK;
}

/* All documents as one sequence; texts are joined by "\n\n" and tokenized at once. */
static ganq_status join(const loader *l, int32_t **ids, size_t *count) {
    int is_text = l->count && l->entries[0].text;
    ganq__buffer all = {0};
    ganq_status status;
    for (size_t i = 0; i < l->count; i++) {
        const entry *e = &l->entries[i];
        if (!is_text) {
            GANQ_TRY_GOTO(free_all,
                          ganq__buffer_append(&all, e->ids, e->id_count * sizeof *e->ids));
            continue;
        }
        GANQ_TRY_GOTO(free_all, ganq__buffer_append(&all, "\n\n", i ? 2 : 0));
        GANQ_TRY_GOTO(free_all, ganq__buffer_append(&all, e->text, e->length));
    }
    if (is_text) {
        GANQ_TRY_GOTO(free_all, encode(l, all.data, all.size, ids, count));
    } else {
        int32_t *copy = ganq__malloc(all.size, 1);
        status = copy ? GANQ_OK : GANQ_ERR_NO_MEMORY;
        if (copy) {
            if (all.size)
                memcpy(copy, all.data, all.size);
            *ids = copy;
            *count = all.size / sizeof *copy;
        }
    }
free_all:
    ganq__buffer_free(&all);
    return status;
}

static ganq_status fail_empty(const loader *l) {
    GANQ_FAIL(GANQ_ERR_INVALID_ARG,
              "%s: 0 tokens: no text is left after skipping %" PRId64 " documents", l->path,
              l->skipped);
}

static ganq_status take_joined(loader *l) {
    int32_t *ids = NULL;
    size_t count = 0;
    if (!l->count)
        return fail_empty(l);
    GANQ_TRY(join(l, &ids, &count));
    ganq_status status = count ? ganq__corpus_add(l->corpus, ids, count) : fail_empty(l);
    ganq__free(ids);
    return status;
}

/* ---- windows ---- */

/* A window that begins at random, as random.randint(0, count - length - 1). */
static ganq_status add_window(loader *l, ganq__random *random, const int32_t *ids, size_t count) {
    size_t length = (size_t)l->options.length;
    size_t start = (size_t)ganq__random_below(random, count - length);
    return ganq__corpus_add(l->corpus, ids + start, length);
}

/* Windows of the joined text: only their starts are drawn, as the scripts do for WikiText2. */
static ganq_status joined_windows(loader *l) {
    ganq__random random;
    int32_t *ids = NULL;
    size_t count = 0;
    GANQ_TRY(join(l, &ids, &count));
    ganq_status status = GANQ_OK;
    if (count <= (size_t)l->options.length) {
        ganq__fail("%s: %zu tokens, a window of %" PRId64 " needs at least %" PRId64, l->path,
                   count, l->options.length, l->options.length + 1);
        status = GANQ_ERR_INVALID_ARG;
    }
    ganq__random_seed(&random, l->options.seed);
    for (int64_t i = 0; status == GANQ_OK && i < l->options.samples; i++)
        status = add_window(l, &random, ids, count);
    ganq__free(ids);
    return status;
}

/* Tokenizes a document that is drawn for the first time. Its text stays, for joining; its ids where
 * a window fits. */
static ganq_status try_document(loader *l, entry *e) {
    if (e->tried)
        return GANQ_OK;
    if (e->text) {
        GANQ_TRY(encode(l, e->text, e->length, &e->ids, &e->id_count));
        if (e->id_count <= (size_t)l->options.length) {
            ganq__free(e->ids);
            e->ids = NULL;
        }
    }
    e->tried = 1;
    l->untried--;
    if (e->id_count > l->longest)
        l->longest = e->id_count;
    return GANQ_OK;
}

/* Windows of random documents, as the scripts do for C4: documents are drawn until one is longer
 * than a window. */
static ganq_status document_windows(loader *l) {
    const size_t length = (size_t)l->options.length;
    ganq__random random;
    ganq__random_seed(&random, l->options.seed);
    l->untried = l->count;
    for (int64_t i = 0; i < l->options.samples;) {
        entry *e = &l->entries[ganq__random_below(&random, l->count)];
        GANQ_TRY(try_document(l, e));
        if (e->id_count > length) {
            GANQ_TRY(add_window(l, &random, e->ids, e->id_count));
            i++;
        } else if (!l->untried && l->longest <= length) {
            return joined_windows(l);
        }
    }
    return GANQ_OK;
}

static ganq_status take_windows(loader *l) {
    if (!l->count)
        return fail_empty(l);
    return l->count == 1 ? joined_windows(l) : document_windows(l);
}

/* ---- loading ---- */

static ganq_status check_options(const ganq_corpus_options *theirs, ganq_corpus_options *ours) {
    *ours = *theirs;
    if (ours->mode < GANQ_SAMPLE_WINDOWS || ours->mode > GANQ_SAMPLE_JOINED)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "corpus options: mode %" PRId32 ", expected 0 to 2",
                  ours->mode);
    if (ours->length < 0 || ours->skip < 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "corpus options: length %" PRId64 " and skip %" PRId64
                  ", neither may be negative",
                  ours->length, ours->skip);
    if (ours->samples < 0 && ours->mode == GANQ_SAMPLE_WINDOWS)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "corpus options: \"all\" (samples %" PRId64 ") is no number of windows",
                  ours->samples);
    ours->samples = ours->samples ? ours->samples : DEFAULT_SAMPLES;
    ours->length = ours->length ? ours->length : DEFAULT_LENGTH;
    return GANQ_OK;
}

ganq_status ganq__corpus_load(const ganq_tokenizer *tokenizer, const char *path,
                              const ganq_corpus_options *options, ganq_corpus **out) {
    loader l = {.tokenizer = tokenizer, .path = path};
    GANQ_TRY(check_options(options, &l.options));
    const int by_document = l.options.mode == GANQ_SAMPLE_DOCUMENTS;
    GANQ_TRY(ganq__corpus_create(&l.corpus));
    ganq_status status;
    GANQ_TRY_GOTO(free_loader,
                  ganq__documents_read(path, by_document ? take_document : keep_document, &l));
    if (by_document)
        status = l.corpus->tokens ? GANQ_OK : fail_empty(&l);
    else
        status = l.options.mode == GANQ_SAMPLE_JOINED ? take_joined(&l) : take_windows(&l);
    if (status == GANQ_OK) {
        *out = l.corpus;
        l.corpus = NULL;
    }
free_loader:
    loader_free(&l);
    return status;
}
