/* corpus.h - token sequences for calibration and evaluation. The public functions of
 * ganq/tokenizer.h are these after their argument checks; what each does is said there. */
#ifndef GANQ_IO_CORPUS_H
#define GANQ_IO_CORPUS_H

#include "ganq/tokenizer.h"
#include "status.h"

ganq_status ganq__corpus_create(ganq_corpus **out);
ganq_status ganq__corpus_add(ganq_corpus *corpus, const int32_t *ids, size_t count);
/* options: of this library's size; zeros are defaults. */
ganq_status ganq__corpus_load(const ganq_tokenizer *tokenizer, const char *path,
                              const ganq_corpus_options *options, ganq_corpus **out);
int64_t ganq__corpus_count(const ganq_corpus *corpus);
int64_t ganq__corpus_tokens(const ganq_corpus *corpus);
const int32_t *ganq__corpus_get(const ganq_corpus *corpus, int64_t i, size_t *count);
void ganq__corpus_free(ganq_corpus *corpus);

#endif
