/* fuzz_documents.c - any bytes as a text file. The first byte chooses the format by its name. */
#include "fuzz.h"

#include <string.h>

#include "corpus.h"
#include "documents.h"

static ganq_status look(void *user, const ganq__document *document, int *stop) {
    unsigned *sum = user;
    (void)stop;
    for (size_t i = 0; i < document->length; i++)
        *sum += (unsigned char)document->text[i];
    for (size_t i = 0; i < document->id_count; i++)
        FUZZ_CHECK(document->ids[i] >= 0);
    return GANQ_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"x.txt",    "x.jsonl",    "x.json",    "x.ids",
                                        "x.txt.gz", "x.jsonl.gz", "x.json.gz", "x.ids.gz"};
    if (!size)
        return 0;
    const char *name = names[data[0] % 8], *path = fuzz_file(name, data + 1, size - 1);
    unsigned sum = 0;
    ganq_status status = ganq__documents_read(path, look, &sum);
    FUZZ_CHECK(status == GANQ_OK || status == GANQ_ERR_FORMAT);
    FUZZ_CHECK(status == GANQ_OK || strstr(ganq_last_error(), name));
    if (!strstr(name, ".ids"))
        return 0;
    for (int32_t mode = GANQ_SAMPLE_WINDOWS; mode <= GANQ_SAMPLE_JOINED; mode++) {
        const ganq_corpus_options options = {sizeof options, mode, 3, 4, 0, data[0]};
        ganq_corpus *corpus = NULL;
        if (ganq__corpus_load(NULL, path, &options, &corpus) == GANQ_OK)
            FUZZ_CHECK(ganq__corpus_count(corpus) > 0 && ganq__corpus_tokens(corpus) > 0);
        ganq__corpus_free(corpus);
    }
    return 0;
}
