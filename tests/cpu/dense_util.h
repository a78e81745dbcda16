/* dense_util.h - what the tests of the dense products share: contexts per instruction set, random
 * numbers. */
#ifndef GANQ_TESTS_CPU_DENSE_UTIL_H
#define GANQ_TESTS_CPU_DENSE_UTIL_H

#include "check_util.h"
#include "context.h"
#include "cpu.h"
#include "dense_ops.h"

static const char *const isas[] = {"ref", "avx2", "avx512", "neon"};
enum { ISAS = 4 };

static inline void close_context(ganq_context *ctx) {
    ganq__pool_free(ctx->pool);
    free(ctx);
}

/* NULL where this processor lacks the instruction set. */
static inline ganq_context *open_context(const char *isa, int threads) {
    ganq_context *ctx = calloc(1, sizeof *ctx);
    ck_assert_ptr_nonnull(ctx);
    ck_ganq_ok(ganq__pool_create(threads, &ctx->pool));
    setenv("GANQ_CPU_ISA", isa, 1);
    ganq_status status = ganq__cpu_backend.open(ctx);
    unsetenv("GANQ_CPU_ISA");
    if (status == GANQ_OK)
        return ctx;
    ck_assert_str_ne(isa, "ref");
    close_context(ctx);
    return NULL;
}

static uint32_t random_state = 1;
static inline uint32_t random_u32(void) { /* xorshift32 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}
static inline float random_float(void) {
    return (float)(random_u32() >> 8) / (1 << 23) - 1;
}

static inline float *random_floats(int64_t count) {
    float *values = malloc((size_t)(count ? count : 1) * sizeof *values);
    ck_assert_ptr_nonnull(values);
    for (int64_t i = 0; i < count; i++)
        values[i] = random_float();
    return values;
}

static inline float *copy_floats(const float *from, int64_t count) {
    float *values = malloc((size_t)count * sizeof *values);
    ck_assert_ptr_nonnull(values);
    memcpy(values, from, (size_t)count * sizeof *values);
    return values;
}

#endif
