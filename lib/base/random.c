/* random.c - MT19937 with Python's seeding and integer draws (CPython's random module documents both: init_by_array over
 * the 32-bit words of the seed, and rejection sampling over getrandbits). */
#include "random.h"

enum { N = 624, M = 397 };

static void init_genrand(ganq__random *random, uint32_t seed) {
    random->state[0] = seed;
    for (int i = 1; i < N; i++) {
        const uint32_t previous = random->state[i - 1];
        random->state[i] = 1812433253u * (previous ^ (previous >> 30)) + (uint32_t)i;
    }
    random->index = N;
}

void ganq__random_seed(ganq__random *random, uint64_t seed) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const int length = key[1] ? 2 : 1;
    uint32_t *s = random->state;
    init_genrand(random, 19650218u);
    int i = 1, j = 0;
    for (int k = N; k > 0; k--) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525u)) + key[j] + (uint32_t)j;
        if (++i >= N) {
            s[0] = s[N - 1];
            i = 1;
        }
        if (++j >= length)
            j = 0;
    }
    for (int k = N - 1; k > 0; k--) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941u)) - (uint32_t)i;
        if (++i >= N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
}

static uint32_t twist(uint32_t high, uint32_t low) {
    const uint32_t y = (high & 0x80000000u) | (low & 0x7fffffffu);
    return (y >> 1) ^ ((low & 1u) ? 0x9908b0dfu : 0u);
}

uint32_t ganq__random_u32(ganq__random *random) {
    uint32_t *s = random->state;
    if (random->index >= N) {
        for (int k = 0; k < N; k++)
            s[k] = s[(k + M) % N] ^ twist(s[k], s[(k + 1) % N]);
        random->index = 0;
    }
    uint32_t y = s[random->index++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

double ganq__random_double(ganq__random *random) {
    const uint32_t a = ganq__random_u32(random) >> 5, b = ganq__random_u32(random) >> 6;
    return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}

uint64_t ganq__random_below(ganq__random *random, uint64_t n) {
    const int bits = 64 - __builtin_clzll(n); /* Python: n.bit_length() */
    uint64_t value;
    do {
        if (bits <= 32) {
            value = ganq__random_u32(random) >> (32 - bits);
        } else { /* least significant word first */
            value = ganq__random_u32(random);
            value |= (uint64_t)(ganq__random_u32(random) >> (64 - bits)) << 32;
        }
    } while (value >= n);
    return value;
}
