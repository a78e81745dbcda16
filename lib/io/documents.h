/* documents.h - text files as documents, streamed: plain text, JSON lines, JSON lists, token ids,
 * each also gzipped. */
#ifndef GANQ_IO_DOCUMENTS_H
#define GANQ_IO_DOCUMENTS_H

#include "status.h"

typedef struct ganq__document {
    const char *text; /* `length` bytes; NULL in a file of token ids */
    size_t length;
    const int32_t *ids; /* `id_count` ids of an .ids file, else NULL */
    size_t id_count;
} ganq__document;

/* Called for each document, which is borrowed until the call returns. *stop = 1 ends the reading.
 */
typedef ganq_status (*ganq__document_fn)(void *user, const ganq__document *document, int *stop);

/* The format follows from the name, less a final ".gz":
 *   .jsonl   a JSON string or {"text": ...} per line; blank lines are skipped
 *   .json    a list of such values, or, when it does not begin with '[', as .jsonl (C4's shards are
 * named so) .ids     token ids in decimal, separated by blanks or commas, one document per line;
 * blank lines are skipped others   the whole file is one document (none when it is empty); any
 * bytes are accepted FORMAT names file and line (or the entry of a list). A ".gz" file that is no
 * gzip, or ends too early, is FORMAT. */
ganq_status ganq__documents_read(const char *path, ganq__document_fn fn, void *user);

#endif
