/* corpus.c - ganq_corpus_*: argument checks, then lib/io/corpus.c. */
#include "corpus.h"

#include "file.h"

ganq_status ganq_corpus_create(ganq_corpus **out) {
    if (!out)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_corpus_create: out is NULL");
    return ganq__corpus_create(out);
}

ganq_status ganq_corpus_add(ganq_corpus *corpus, const int32_t *ids, size_t count) {
    if (!corpus)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_corpus_add: corpus is NULL");
    if (!ids || !count)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_corpus_add: %zu token ids%s; at least one is expected", count,
                  ids ? "" : " at NULL");
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0)
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_corpus_add: ids[%zu] is %d", i, (int)ids[i]);
    return ganq__corpus_add(corpus, ids, count);
}

ganq_status ganq_corpus_load(const ganq_tokenizer *tokenizer, const char *path,
                             const ganq_corpus_options *options, ganq_corpus **out) {
    ganq_corpus_options ours;
    if (!path || !out)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_corpus_load: %s is NULL", path ? "out" : "path");
    GANQ_TRY(ganq__path_check(path, "ganq_corpus_load: path"));
    GANQ_TRY(ganq__options_read(&ours, sizeof ours, options, "ganq_corpus_options"));
    return ganq__corpus_load(tokenizer, path, &ours, out);
}

int64_t ganq_corpus_count(const ganq_corpus *corpus) {
    return corpus ? ganq__corpus_count(corpus) : 0;
}

int64_t ganq_corpus_tokens(const ganq_corpus *corpus) {
    return corpus ? ganq__corpus_tokens(corpus) : 0;
}

const int32_t *ganq_corpus_get(const ganq_corpus *corpus, int64_t i, size_t *count) {
    size_t found = 0;
    const int32_t *ids = corpus ? ganq__corpus_get(corpus, i, &found) : NULL;
    if (count)
        *count = found;
    return ids;
}

void ganq_corpus_free(ganq_corpus *corpus) {
    ganq__corpus_free(corpus);
}
