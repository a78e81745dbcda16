/* allocate.h - bits per linear within a budget of bytes. */
#ifndef GANQ_PIPELINE_ALLOCATE_H
#define GANQ_PIPELINE_ALLOCATE_H

#include "status.h"

enum { GANQ__MIN_BITS = 2, GANQ__WIDTHS = 3 }; /* 2, 3, 4 */

/* One linear: its bytes and what it costs the model at each width. */
typedef struct ganq__choice {
    int64_t bytes[GANQ__WIDTHS]; /* rising */
    double cost[GANQ__WIDTHS];   /* finite, not negative; the unit does not matter */
} ganq__choice;

/* bits[i] in 2..4 with the least sum of costs among those whose bytes add up to at most `budget`.
 * Exact where the bytes have a common divisor that is not below 2^-16 of the range, else the bytes
 * are rounded up to that. The budget holds 2 bits of all, or that is what comes out. */
ganq_status ganq__allocate(int64_t count, const ganq__choice *choices, int64_t budget,
                           int32_t *bits);

#endif
