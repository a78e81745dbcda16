/* allocate.c - a knapsack with one choice per linear, by dynamic programming over the bytes. */
#include "allocate.h"

#include <string.h>

#include "alloc.h"

static const int64_t max_units = 1 << 16;

static int64_t divisor(int64_t a, int64_t b) {
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Bytes above the narrowest width, in units. */
static int64_t extra(const ganq__choice *choice, int width, int64_t unit) {
    return (choice->bytes[width] - choice->bytes[0] + unit - 1) / unit;
}

/* In what the bytes above 2 bits everywhere are counted. */
static int64_t choose_unit(int64_t count, const ganq__choice *choices, int64_t spare) {
    int64_t unit = 0;
    for (int64_t i = 0; i < count; i++)
        for (int width = 1; width < GANQ__WIDTHS; width++)
            unit = divisor(unit, choices[i].bytes[width] - choices[i].bytes[0]);
    const int64_t coarsest = spare / max_units + 1;
    return unit > coarsest ? unit : coarsest;
}

/* best[u]: the least cost of the linears so far with at most u units; took[i][u]: the width of
 * linear i there. In place from the largest u down, since a width never frees units. */
static void add_linear(const ganq__choice *choice, int64_t units, int64_t unit, double *best,
                       uint8_t *took) {
    for (int64_t u = units; u >= 0; u--) {
        double least = best[u] + choice->cost[0];
        took[u] = 0;
        for (int width = 1; width < GANQ__WIDTHS; width++) {
            const int64_t used = extra(choice, width, unit);
            if (used <= u && best[u - used] + choice->cost[width] < least) {
                least = best[u - used] + choice->cost[width];
                took[u] = (uint8_t)width;
            }
        }
        best[u] = least;
    }
}

ganq_status ganq__allocate(int64_t count, const ganq__choice *choices, int64_t budget,
                           int32_t *bits) {
    double *best = NULL;
    uint8_t *took = NULL;
    ganq_status status = GANQ_OK;
    int64_t spare = budget;
    for (int64_t i = 0; i < count; i++)
        spare -= choices[i].bytes[0];
    if (spare < 0)
        spare = 0;
    const int64_t unit = choose_unit(count, choices, spare), units = spare / unit;
    GANQ_CALLOC_GOTO(free_all, best, (size_t)units + 1);
    GANQ_ALLOC_GOTO(free_all, took, (size_t)(count * (units + 1)));
    for (int64_t i = 0; i < count; i++)
        add_linear(&choices[i], units, unit, best, took + i * (units + 1));
    for (int64_t i = count - 1, u = units; i >= 0; i--) {
        const int width = took[i * (units + 1) + u];
        bits[i] = GANQ__MIN_BITS + width;
        u -= extra(&choices[i], width, unit);
    }
free_all:
    ganq__free(best);
    ganq__free(took);
    return status;
}
