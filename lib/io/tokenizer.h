/* tokenizer.h - text to token ids and back, inside the library. The public functions of
 * ganq/tokenizer.h are these after their argument checks; what each does is said there. */
#ifndef GANQ_IO_TOKENIZER_H
#define GANQ_IO_TOKENIZER_H

#include "ganq/tokenizer.h"
#include "status.h"

ganq_status ganq__tokenizer_load(const char *path, ganq_tokenizer **out);
void ganq__tokenizer_free(ganq_tokenizer *tokenizer);
ganq_status ganq__tokenizer_encode(const ganq_tokenizer *tokenizer, const char *text, size_t length,
                                   uint32_t flags, int32_t **ids, size_t *count);
ganq_status ganq__tokenizer_decode(const ganq_tokenizer *tokenizer, const int32_t *ids,
                                   size_t count, uint32_t flags, char **text, size_t *length);
ganq_status ganq__decoder_create(const ganq_tokenizer *tokenizer, uint32_t flags,
                                 ganq_decoder **out);
ganq_status ganq__decoder_push(ganq_decoder *decoder, int32_t id, const char **text,
                               size_t *length);
ganq_status ganq__decoder_flush(ganq_decoder *decoder, const char **text, size_t *length);
void ganq__decoder_free(ganq_decoder *decoder);
int32_t ganq__tokenizer_vocab_size(const ganq_tokenizer *tokenizer);
int32_t ganq__tokenizer_bos(const ganq_tokenizer *tokenizer);
int32_t ganq__tokenizer_eos(const ganq_tokenizer *tokenizer);
const char *ganq__tokenizer_piece(const ganq_tokenizer *tokenizer, int32_t id);
int32_t ganq__tokenizer_id(const ganq_tokenizer *tokenizer, const char *piece);

#endif
