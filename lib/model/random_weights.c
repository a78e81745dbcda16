/* random_weights.c - random values, fast: a large model has more weights than a good generator
 * makes in a minute. */
#include "random_weights.h"

#include <math.h>
#include <stdio.h>

#include "alloc.h"
#include "half.h"

/* splitmix64 */
static uint64_t next_bits(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The seed and the name (FNV-1a). */
static uint64_t state_of(const char *name, uint64_t seed) {
    uint64_t hash = 0xcbf29ce484222325u ^ seed;
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return hash;
}

/* Mean 0, deviation 1: the sum of four uniform numbers. */
static double next_normal(uint64_t *state) {
    const uint64_t bits = next_bits(state);
    const double sum = (double)(bits & 0xffff) + (double)(bits >> 16 & 0xffff) +
                       (double)(bits >> 32 & 0xffff) + (double)(bits >> 48);
    return (sum / 65536 - 2) * sqrt(3);
}

enum { FILL_VALUES = 1 << 16 }; /* per item of the parallel loop */

typedef struct fill_job {
    uint64_t state;
    double deviation; /* 0: ones */
    int64_t count;
    uint16_t *values;
} fill_job;

static void fill_item(void *user, int64_t item, int worker) {
    const fill_job *job = user;
    const int64_t first = FILL_VALUES * item, left = job->count - first;
    uint64_t state = job->state + 0xd1342543de82ef95u * (uint64_t)item;
    (void)worker;
    for (int64_t i = first; i < first + (left < FILL_VALUES ? left : FILL_VALUES); i++)
        job->values[i] = ganq__f32_to_f16(
            job->deviation > 0 ? (float)(job->deviation * next_normal(&state)) : 1);
}

ganq_status ganq__random_tensor(ganq__pool *pool, const char *name, int rank, const int64_t *shape,
                                uint64_t seed, ganq__tensor **tensor, void **data) {
    const int64_t count = rank == 1 ? shape[0] : shape[0] * shape[1];
    ganq__tensor *made = ganq__calloc(1, sizeof *made);
    uint16_t *values = made ? ganq__malloc_aligned((size_t)count, sizeof *values) : NULL;
    if (!values) {
        ganq__free(made);
        return GANQ_ERR_NO_MEMORY;
    }
    fill_job job = {.state = state_of(name, seed),
                    .deviation = rank == 1 ? 0 : 1 / sqrt((double)shape[1]),
                    .count = count,
                    .values = values};
    ganq__parallel_for(pool, (count + FILL_VALUES - 1) / FILL_VALUES, fill_item, &job);
    made->name = name;
    made->dtype = GANQ__ST_F16;
    snprintf(made->dtype_name, sizeof made->dtype_name, "F16");
    made->rank = rank;
    for (int i = 0; i < rank; i++)
        made->shape[i] = shape[i];
    made->count = count;
    made->size_bytes = (uint64_t)count * sizeof *values;
    made->data = values;
    *tensor = made;
    *data = values;
    return GANQ_OK;
}

ganq_status ganq__random_layer(const char *name, int64_t N, int64_t K, int bits, int has_bias,
                               uint64_t seed, ganq_layer **out) {
    const int64_t L = (int64_t)1 << bits, count = N * K;
    const double step = sqrt(12 / ((double)K * (double)(L * L - 1)));
    uint64_t state = state_of(name, seed);
    uint8_t *codes = NULL;
    float *lut = NULL, *bias = NULL;
    ganq_status status;
    GANQ_ALLOC_GOTO(free_parts, codes, (size_t)count);
    GANQ_ALLOC_GOTO(free_parts, lut, (size_t)(N * L));
    if (has_bias)
        GANQ_ALLOC_GOTO(free_parts, bias, (size_t)N);
    for (int64_t i = 0; i < count; i += 16) {
        const uint64_t word = next_bits(&state);
        for (int64_t j = 0; j < 16 && i + j < count; j++)
            codes[i + j] = (uint8_t)(word >> (4 * j) & (uint64_t)(L - 1));
    }
    for (int64_t n = 0; n < N; n++) /* even steps, each entry off by up to a quarter of one */
        for (int64_t s = 0; s < L; s++) {
            const double off = (double)(next_bits(&state) >> 48) / 131072 - 0.25;
            lut[n * L + s] = (float)(step * ((double)s - (double)(L - 1) / 2 + off));
        }
    for (int64_t n = 0; bias && n < N; n++)
        bias[n] = (float)(0.1 * next_normal(&state));
    status = ganq__layer_create(bits, N, K, codes, lut, GANQ_DTYPE_F16, NULL, NULL, NULL, bias,
                                GANQ_DTYPE_F32, out);
free_parts:
    ganq__free(bias);
    ganq__free(lut);
    ganq__free(codes);
    return status;
}
