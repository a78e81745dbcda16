/* random_weights.h - tensors and layers with random values, for models whose speed is to be
 * measured. */
#ifndef GANQ_MODEL_RANDOM_WEIGHTS_H
#define GANQ_MODEL_RANDOM_WEIGHTS_H

#include "layer.h"
#include "threads.h"

/* The same name and seed give the same values, for any number of threads of the pool. rank 1: ones;
 * rank 2, [N,K]: about normal with the deviation 1 / sqrt(K). F16. *tensor borrows the name and data,
 * *data holds its values; both are freed with ganq__free. */
ganq_status ganq__random_tensor(ganq__pool *pool, const char *name, int rank, const int64_t *shape, uint64_t seed,
                                ganq__tensor **tensor, void **data);
/* Codes of equal frequency, tables about as spread as those weights. */
ganq_status ganq__random_layer(const char *name, int64_t N, int64_t K, int bits, int has_bias,
                               uint64_t seed, ganq_layer **out);

#endif
