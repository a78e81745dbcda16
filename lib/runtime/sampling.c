/* sampling.c - the filters keep a prefix of the candidates in falling order; only as many as are
 * kept are ever brought into order (a heap), so that a large vocabulary costs one pass. */
#include "sampling.h"

#include <inttypes.h>
#include <math.h>

#include "status.h"

ganq_status ganq__sampling_check(const ganq_sampling *s) {
    if (!(s->temperature >= 0 && s->temperature <= 1e6f))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_sampling: temperature is %g, expected 0..1e6",
                  (double)s->temperature);
    if (s->top_k < 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_sampling: top_k is %" PRId32 ", expected 0 or more",
                  s->top_k);
    if (!(s->top_p >= 0 && s->top_p <= 1))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_sampling: top_p is %g, expected 0..1",
                  (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_sampling: min_p is %g, expected 0..1",
                  (double)s->min_p);
    if (s->reserved != 0)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "ganq_sampling: the reserved field must be 0");
    return GANQ_OK;
}

static ganq_status find_highest(const float *logits, int64_t count, int64_t *out) {
    int64_t highest = 0;
    for (int64_t i = 0; i < count; i++) {
        if (isnan(logits[i]) || logits[i] == INFINITY)
            GANQ_FAIL(GANQ_ERR_NUMERIC, "the logit of token %" PRId64 " is %g", i,
                      (double)logits[i]);
        if (logits[i] > logits[highest])
            highest = i;
    }
    if (logits[highest] == -INFINITY)
        GANQ_FAIL(GANQ_ERR_NUMERIC, "all logits are -infinity");
    *out = highest;
    return GANQ_OK;
}

/* More likely, and of equals the lower id: a total order, so that results do not depend on the way
 * they are sorted. */
static int before(const ganq__candidate *a, const ganq__candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

/* Lets heap[i] sink to its place in a heap whose root is before all others. */
static void sink(ganq__candidate *heap, int64_t count, int64_t i) {
    for (;;) {
        int64_t first = i;
        for (int64_t child = 2 * i + 1; child <= 2 * i + 2; child++)
            if (child < count && before(&heap[child], &heap[first]))
                first = child;
        if (first == i)
            return;
        const ganq__candidate moved = heap[i];
        heap[i] = heap[first];
        heap[first] = moved;
        i = first;
    }
}

/* Takes the root out of a heap at all[0..count) and leaves it at all[count - 1]. */
static void pop(ganq__candidate *all, int64_t count) {
    const ganq__candidate root = all[0];
    all[0] = all[count - 1];
    all[count - 1] = root;
    sink(all, count - 1, 0);
}

static double sum_weights(const ganq__candidate *from, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += from[i].weight;
    return sum;
}

/* Applies top_k and top_p: what is kept ends up at the end of `all`, the best one last; returns how
 * many. */
static int64_t keep_best(const ganq_sampling *s, ganq__candidate *all, int64_t count) {
    const int64_t limit = s->top_k > 0 && s->top_k < count ? s->top_k : count;
    const int by_mass = s->top_p > 0 && s->top_p < 1;
    if (limit == count && !by_mass)
        return count;
    int64_t kept = 0;
    double mass = 0, wanted = by_mass ? s->top_p * sum_weights(all, count) : INFINITY;
    for (int64_t i = count / 2 - 1; i >= 0; i--)
        sink(all, count, i);
    if (limit < count) {
        for (; kept < limit; kept++)
            pop(all, count - kept);
        if (!by_mass)
            return kept;
        /* top_p counts in the probability of what top_k has left */
        ganq__candidate *best = all + count - limit;
        wanted = s->top_p * sum_weights(best, limit);
        for (kept = 0; kept < limit && mass < wanted; kept++)
            mass += all[count - 1 - kept].weight;
        return kept;
    }
    for (; kept < limit && mass < wanted; kept++) {
        pop(all, count - kept);
        mass += all[count - 1 - kept].weight;
    }
    return kept;
}

ganq_status ganq__sample(const ganq_sampling *s, const float *logits, int64_t count,
                         ganq__candidate *scratch, ganq__random *random, int32_t *id) {
    int64_t highest;
    GANQ_TRY(find_highest(logits, count, &highest));
    if (s->temperature == 0) {
        *id = (int32_t)highest;
        return GANQ_OK;
    }
    for (int64_t i = 0; i < count; i++) {
        double below = (double)logits[i] - logits[highest];
        scratch[i] = (ganq__candidate){exp(below / s->temperature), logits[i], (int32_t)i};
    }
    const int64_t kept = keep_best(s, scratch, count);
    ganq__candidate *best = scratch + count - kept;
    int64_t left = 0;
    for (int64_t i = 0; i < kept; i++) /* the best has weight 1 */
        if (best[i].weight >= s->min_p)
            best[left++] = best[i];
    const double target = ganq__random_double(random) * sum_weights(best, left);
    double mass = 0;
    for (int64_t i = 0; i < left; i++) {
        mass += best[i].weight;
        if (mass > target) {
            *id = best[i].id;
            return GANQ_OK;
        }
    }
    *id = (int32_t)highest; /* not reached: target < the same sum in the same order */
    return GANQ_OK;
}
