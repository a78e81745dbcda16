/* bpe.c - byte-pair encoding: a run of first symbols is merged, always the pair of lowest rank, the
 * leftmost of equal ones, until no pair has a merge.
 *
 * Short runs, nearly all of them, keep the ranks of their pairs in an array and look for the least.
 * Long runs (a text without splits, or one letter a million times) are first cut wherever no merge
 * can ever join the two neighbours; what is still long uses a linked list and a heap of candidates,
 * O(n log n). */
#include "tokenizer_parts.h"

#include <string.h>

enum { SHORT_RUN = 48 };
static const uint64_t EMPTY = UINT64_MAX;

static uint64_t pair_key(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t pair_hash(uint64_t key) {
    key *= 0x9e3779b97f4a7c15u;
    return (size_t)(key ^ key >> 32);
}

static size_t find_pair(const ganq__pair *pairs, size_t slots, uint64_t key) {
    size_t slot = pair_hash(key) & (slots - 1);
    while (pairs[slot].key != key && pairs[slot].key != EMPTY)
        slot = (slot + 1) & (slots - 1);
    return slot;
}

static size_t find_junction(const uint64_t *junctions, size_t slots, uint64_t key) {
    size_t slot = pair_hash(key) & (slots - 1);
    while (junctions[slot] != key && junctions[slot] != EMPTY)
        slot = (slot + 1) & (slots - 1);
    return slot;
}

ganq_status ganq__bpe_add(ganq__bpe *bpe, int32_t left, int32_t right, uint32_t rank,
                          int32_t merged) {
    if (bpe->pair_count * 2 + 2 > bpe->pair_slots) {
        size_t slots = bpe->pair_slots ? bpe->pair_slots * 2 : 1024;
        ganq__pair *pairs;
        GANQ_ALLOC(pairs, slots);
        for (size_t i = 0; i < slots; i++)
            pairs[i] = (ganq__pair){.key = EMPTY};
        for (size_t i = 0; i < bpe->pair_slots; i++)
            if (bpe->pairs[i].key != EMPTY)
                pairs[find_pair(pairs, slots, bpe->pairs[i].key)] = bpe->pairs[i];
        ganq__free(bpe->pairs);
        bpe->pairs = pairs;
        bpe->pair_slots = slots;
    }
    ganq__pair *pair = &bpe->pairs[find_pair(bpe->pairs, bpe->pair_slots, pair_key(left, right))];
    bpe->pair_count += pair->key == EMPTY;
    *pair = (ganq__pair){pair_key(left, right), rank, merged};
    return GANQ_OK;
}

ganq_status ganq__bpe_add_junction(ganq__bpe *bpe, int32_t left, int32_t right) {
    if (bpe->junction_count * 2 + 2 > bpe->junction_slots) {
        size_t slots = bpe->junction_slots ? bpe->junction_slots * 2 : 1024;
        uint64_t *junctions;
        GANQ_ALLOC(junctions, slots);
        memset(junctions, 0xff, slots * sizeof *junctions);
        for (size_t i = 0; i < bpe->junction_slots; i++)
            if (bpe->junctions[i] != EMPTY)
                junctions[find_junction(junctions, slots, bpe->junctions[i])] = bpe->junctions[i];
        ganq__free(bpe->junctions);
        bpe->junctions = junctions;
        bpe->junction_slots = slots;
    }
    uint64_t *junction =
        &bpe->junctions[find_junction(bpe->junctions, bpe->junction_slots, pair_key(left, right))];
    bpe->junction_count += *junction == EMPTY;
    *junction = pair_key(left, right);
    return GANQ_OK;
}

/* NULL: these two never merge. */
static const ganq__pair *lookup(const ganq__bpe *bpe, int32_t left, int32_t right) {
    const ganq__pair *pair =
        &bpe->pairs[find_pair(bpe->pairs, bpe->pair_slots, pair_key(left, right))];
    return pair->key == EMPTY ? NULL : pair;
}

static int may_join(const ganq__bpe *bpe, int32_t left, int32_t right) {
    return bpe->junction_slots && bpe->junctions[find_junction(bpe->junctions, bpe->junction_slots,
                                                               pair_key(left, right))] != EMPTY;
}

/* n in [2, SHORT_RUN]; returns what is left of n. */
static size_t merge_short(const ganq__bpe *bpe, int32_t *ids, size_t n) {
    static const ganq__pair none = {.rank = UINT32_MAX};
    const ganq__pair *pairs[SHORT_RUN]; /* pairs[i]: ids[i] with ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++) {
        const ganq__pair *pair = lookup(bpe, ids[i], ids[i + 1]);
        pairs[i] = pair ? pair : &none;
    }
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (pairs[i]->rank < pairs[best]->rank)
                best = i;
        if (n < 2 || pairs[best] == &none)
            return n;
        ids[best] = pairs[best]->merged;
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
        if (best + 1 < n) {
            memmove(pairs + best, pairs + best + 1, (n - best - 1) * sizeof *pairs);
            const ganq__pair *pair = lookup(bpe, ids[best], ids[best + 1]);
            pairs[best] = pair ? pair : &none;
        }
        if (best > 0) {
            const ganq__pair *pair = lookup(bpe, ids[best - 1], ids[best]);
            pairs[best - 1] = pair ? pair : &none;
        }
    }
}

/* A pair that could be merged when it was seen; stale once one of its two has changed. */
typedef struct ganq__candidate {
    uint32_t rank;
    int32_t at; /* index of the left symbol */
    int32_t merged;
} candidate;

static int before(const candidate *a, const candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void sift_down(candidate *heap, size_t size, size_t i) {
    candidate item = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= size)
            break;
        if (child + 1 < size && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &item))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = item;
}

static void push(candidate *heap, size_t *size, candidate item) {
    size_t i = (*size)++;
    for (; i > 0 && before(&item, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = item;
}

static ganq_status reserve(ganq__bpe_scratch *scratch, size_t n) {
    if (n <= scratch->capacity)
        return GANQ_OK;
    ganq__bpe_scratch_free(scratch);
    GANQ_ALLOC(scratch->prev, n);
    GANQ_ALLOC(scratch->next, n);
    /* n - 1 pairs at first; a merge takes one out and puts at most two in, and there are at most n
     * - 1 merges. */
    GANQ_ALLOC(scratch->heap, 2 * n);
    scratch->capacity = n;
    return GANQ_OK;
}

static ganq_status merge_long(const ganq__bpe *bpe, ganq__bpe_scratch *scratch, int32_t *ids,
                              size_t *count) {
    size_t n = *count, size = 0;
    GANQ_TRY(reserve(scratch, n));
    int32_t *prev = scratch->prev, *next = scratch->next;
    candidate *heap = scratch->heap;
    for (size_t i = 0; i < n; i++) {
        prev[i] = (int32_t)i - 1;
        next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        const ganq__pair *pair = i + 1 < n ? lookup(bpe, ids[i], ids[i + 1]) : NULL;
        if (pair)
            heap[size++] = (candidate){pair->rank, (int32_t)i, pair->merged};
    }
    for (size_t i = size / 2; i-- > 0;)
        sift_down(heap, size, i);
    while (size > 0) {
        candidate top = heap[0];
        heap[0] = heap[--size];
        if (size)
            sift_down(heap, size, 0);
        int32_t left = top.at, right = ids[left] < 0 ? -1 : next[left];
        if (right < 0)
            continue;
        const ganq__pair *pair = lookup(bpe, ids[left], ids[right]);
        if (!pair || pair->rank != top.rank || pair->merged != top.merged)
            continue;
        ids[left] = top.merged;
        ids[right] = -1; /* gone */
        next[left] = next[right];
        if (next[left] >= 0) {
            prev[next[left]] = left;
            pair = lookup(bpe, ids[left], ids[next[left]]);
            if (pair)
                push(heap, &size, (candidate){pair->rank, left, pair->merged});
        }
        if (prev[left] >= 0) {
            pair = lookup(bpe, ids[prev[left]], ids[left]);
            if (pair)
                push(heap, &size, (candidate){pair->rank, prev[left], pair->merged});
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0)
            ids[kept++] = ids[i];
    *count = kept;
    return GANQ_OK;
}

static ganq_status merge_run(const ganq__bpe *bpe, ganq__bpe_scratch *scratch, int32_t *ids,
                             size_t *count) {
    if (*count > SHORT_RUN)
        return merge_long(bpe, scratch, ids, count);
    if (*count > 1)
        *count = merge_short(bpe, ids, *count);
    return GANQ_OK;
}

ganq_status ganq__bpe_merge(const ganq__bpe *bpe, ganq__bpe_scratch *scratch, int32_t *ids,
                            size_t *count) {
    if (bpe->pair_count == 0)
        return GANQ_OK;
    if (*count <= SHORT_RUN || !bpe->cuts)
        return merge_run(bpe, scratch, ids, count);
    size_t n = *count, kept = 0;
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && may_join(bpe, ids[end - 1], ids[end]); end++)
            ;
        size_t run = end - begin;
        GANQ_TRY(merge_run(bpe, scratch, ids + begin, &run));
        memmove(ids + kept, ids + begin, run * sizeof *ids);
        kept += run;
    }
    *count = kept;
    return GANQ_OK;
}

void ganq__bpe_scratch_free(ganq__bpe_scratch *scratch) {
    ganq__free(scratch->prev);
    ganq__free(scratch->next);
    ganq__free(scratch->heap);
    *scratch = (ganq__bpe_scratch){0};
}

void ganq__bpe_free(ganq__bpe *bpe) {
    ganq__free(bpe->pairs);
    ganq__free(bpe->junctions);
}
