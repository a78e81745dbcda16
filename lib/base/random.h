/* random.h - Python's random.Random(seed), so that calibration windows equal those of the papers' scripts. */
#ifndef GANQ_BASE_RANDOM_H
#define GANQ_BASE_RANDOM_H

#include <stdint.h>

/* MT19937. */
typedef struct ganq__random {
    uint32_t state[624];
    int index;
} ganq__random;

/* As random.seed(seed) with a non-negative int. */
void ganq__random_seed(ganq__random *random, uint64_t seed);
uint32_t ganq__random_u32(ganq__random *random);
/* As random.random(): [0,1) with 53 bits. */
double ganq__random_double(ganq__random *random);
/* As random.randint(0, n - 1); n >= 1. */
uint64_t ganq__random_below(ganq__random *random, uint64_t n);

#endif
