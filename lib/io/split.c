/* split.c - cutting normalized text into the words that merges never cross. Words are handed on one
 * by one; the list of splits is walked by recursion, so that nothing is stored but the texts that a
 * split changes. */
#include "tokenizer_parts.h"

#include <string.h>

const char ganq__regex_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char ganq__regex_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                                 "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
/* Also that of OpenAI's cl100k, spelled differently there. */
const char ganq__regex_llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{"
                                  "N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                                  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

ganq_status ganq__splits_add(ganq__splits *splits, ganq__split item, const char *what) {
    if (splits->count == GANQ__MAX_SPLITS) {
        ganq__pattern_free(item.pattern);
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: more than %d splits", what, GANQ__MAX_SPLITS);
    }
    splits->items[splits->count++] = item;
    return GANQ_OK;
}

void ganq__splits_free(ganq__splits *splits) {
    for (size_t i = 0; i < splits->count; i++)
        ganq__pattern_free(splits->items[i].pattern);
    splits->count = 0;
}

static ganq_status run_from(ganq__split_run *run, size_t index, const char *text, size_t size,
                            int first);

/* Pieces of a text, match and gap by turns, joined as the behavior says. */
typedef struct joiner {
    ganq__split_run *run;
    size_t index; /* of the split */
    const char *text;
    int first;
    size_t begin, end; /* the piece not yet handed on; begin == end: none */
    int match;         /* whether that piece is, or ends in, a match */
} joiner;

static ganq_status flush(joiner *j) {
    size_t begin = j->begin, end = j->end;
    j->begin = j->end;
    if (begin == end)
        return GANQ_OK;
    return run_from(j->run, j->index + 1, j->text + begin, end - begin, j->first && begin == 0);
}

static ganq_status take(joiner *j, ganq__split_behavior behavior, size_t begin, size_t end,
                        int match) {
    int join = 0;
    switch (behavior) {
    case GANQ__SPLIT_WITH_PREVIOUS:
        join = match && !j->match;
        break;
    case GANQ__SPLIT_WITH_NEXT:
        join = !match && j->match;
        break;
    case GANQ__SPLIT_CONTIGUOUS:
        join = match == j->match;
        break;
    default:
        break;
    }
    if (!join || j->begin == j->end) {
        GANQ_TRY(flush(j));
        j->begin = begin;
    }
    j->end = behavior == GANQ__SPLIT_REMOVED && match ? j->begin : end;
    j->match = match;
    return GANQ_OK;
}

static ganq_status run_pattern(ganq__split_run *run, size_t index, const char *text, size_t size,
                               int first) {
    const ganq__split *split = &run->splits->items[index];
    joiner j = {.run = run, .index = index, .text = text, .first = first};
    ganq__search search;
    ganq__search_start(&search, text, size);
    size_t done = 0;
    while (done < size) {
        size_t begin, end;
        int found;
        GANQ_TRY(ganq__search_next(split->pattern, run->matcher, &search, &begin, &end, &found));
        if (!found)
            begin = end = size;
        if (begin > done)
            GANQ_TRY(take(&j, split->behavior, done, begin, split->invert));
        if (found)
            GANQ_TRY(take(&j, split->behavior, begin, end, !split->invert));
        done = end;
    }
    return flush(&j);
}

static ganq_status run_metaspace(ganq__split_run *run, size_t index, const char *text, size_t size,
                                 int first) {
    const ganq__split *split = &run->splits->items[index];
    const size_t mark = strlen(split->content);
    ganq__buffer *out = &run->buffers[index];
    out->size = 0;
    int marked =
        size > 0 && (text[0] == ' ' || (size >= mark && memcmp(text, split->content, mark) == 0));
    if (!marked &&
        (split->scheme == GANQ__SCHEME_ALWAYS || (split->scheme == GANQ__SCHEME_FIRST && first)))
        GANQ_TRY(ganq__buffer_append(out, split->content, mark));
    for (size_t i = 0; i < size;) {
        const char *space = memchr(text + i, ' ', size - i);
        size_t end = space ? (size_t)(space - text) : size;
        GANQ_TRY(ganq__buffer_append(out, text + i, end - i));
        if (space)
            GANQ_TRY(ganq__buffer_append(out, split->content, mark));
        i = end + 1;
    }
    return run_from(run, index + 1, out->data, out->size, first);
}

static ganq_status run_prefix_space(ganq__split_run *run, size_t index, const char *text,
                                    size_t size, int first) {
    if (size > 0 && text[0] == ' ')
        return run_from(run, index + 1, text, size, first);
    ganq__buffer *out = &run->buffers[index];
    out->size = 0;
    GANQ_TRY(ganq__buffer_append(out, " ", 1));
    GANQ_TRY(ganq__buffer_append(out, text, size));
    return run_from(run, index + 1, out->data, out->size, first);
}

static ganq_status run_from(ganq__split_run *run, size_t index, const char *text, size_t size,
                            int first) {
    if (index == run->splits->count)
        return run->fn(run->user, text, size);
    switch (run->splits->items[index].kind) {
    case GANQ__SPLIT_METASPACE:
        return run_metaspace(run, index, text, size, first);
    case GANQ__SPLIT_PREFIX_SPACE:
        return run_prefix_space(run, index, text, size, first);
    default:
        return run_pattern(run, index, text, size, first);
    }
}

ganq_status ganq__split_text(ganq__split_run *run, const char *text, size_t size, int first) {
    return size ? run_from(run, 0, text, size, first) : GANQ_OK;
}

void ganq__split_run_free(ganq__split_run *run) {
    for (size_t i = 0; i < GANQ__MAX_SPLITS; i++)
        ganq__buffer_free(&run->buffers[i]);
}
