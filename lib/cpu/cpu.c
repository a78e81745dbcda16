/* cpu.c - the CPU as a backend: probes the processor and picks a table per family of operations.
 * Compiled without any ISA flags, so that it runs everywhere. */
#include "cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "memory_ops.h"

typedef struct cpu_isa {
    const char *name;
    int (*available)(void);
    const struct ganq__dense_ops *dense;
    const struct ganq__lut_ops *lut;
    const struct ganq__solver_ops *solver;
    const struct ganq__model_ops *model;
} cpu_isa;

static ganq_status cpu_allocate(ganq_context *ctx, size_t bytes, void **out) {
    (void)ctx;
    *out = ganq__malloc_aligned(bytes, 1);
    return *out ? GANQ_OK : GANQ_ERR_NO_MEMORY;
}

static void cpu_release(ganq_context *ctx, void *memory) {
    (void)ctx;
    ganq__free(memory);
}

static ganq_status cpu_copy(ganq_context *ctx, void *to, const void *from, size_t bytes) {
    (void)ctx;
    memcpy(to, from, bytes);
    return GANQ_OK;
}

static const struct ganq__memory_ops cpu_memory = {.is_host = 1,
                                                   .allocate = cpu_allocate,
                                                   .release = cpu_release,
                                                   .upload = cpu_copy,
                                                   .download = cpu_copy,
                                                   .copy = cpu_copy};

static int always(void) {
    return 1;
}

#if defined(__x86_64__)
static int has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

/* Zen 4, Ice Lake and later (VNNI); AVX2 with it, for the families that have no table here. */
static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

/* From the plainest to the best; a family that a row leaves out comes from the rows before it. */
static const cpu_isa isas[] = {
    {
        .name = "ref",
        .available = always,
        .dense = &ganq__dense_ops_ref,
        .lut = &ganq__lut_ops_ref,
        .solver = &ganq__solver_ops_ref,
        .model = &ganq__model_ops_ref,
    },
#if defined(__x86_64__)
    {
        .name = "avx2",
        .available = has_avx2,
        .dense = &ganq__dense_ops_avx2,
        .lut = &ganq__lut_ops_avx2,
        .solver = &ganq__solver_ops_avx2,
        .model = &ganq__model_ops_avx2,
    },
    {
        .name = "avx512",
        .available = has_avx512,
        .lut = &ganq__lut_ops_avx512,
    },
#elif defined(__aarch64__)
    {
        .name = "neon",
        .available = always,
        .dense = &ganq__dense_ops_neon,
        .lut = &ganq__lut_ops_neon,
    },
#endif
};
enum { ISAS = sizeof isas / sizeof isas[0] };

/* The words "ref, avx2, avx512": of all rows, or of those that this processor can run. */
static const char *list_isas(char *text, size_t size, int available_only) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < ISAS; i++)
        if (!available_only || isas[i].available())
            used +=
                (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", isas[i].name);
    return text;
}

/* The row that GANQ_CPU_ISA names, else the best this processor can run. */
static ganq_status choose_isa(int *out) {
    const char *wanted = getenv("GANQ_CPU_ISA");
    char names[64];
    if (!wanted || !*wanted) {
        for (int i = 0; i < ISAS; i++)
            if (isas[i].available())
                *out = i;
        return GANQ_OK;
    }
    for (int i = 0; i < ISAS; i++) {
        if (strcmp(wanted, isas[i].name) != 0)
            continue;
        if (!isas[i].available())
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, "GANQ_CPU_ISA=%s: this processor lacks it (it has: %s)",
                      wanted, list_isas(names, sizeof names, 1));
        *out = i;
        return GANQ_OK;
    }
    GANQ_FAIL(GANQ_ERR_INVALID_ARG, "GANQ_CPU_ISA=%s is unknown (known: %s)", wanted,
              list_isas(names, sizeof names, 0));
}

static ganq_status cpu_open(ganq_context *ctx) {
    int chosen = 0;
    GANQ_TRY(choose_isa(&chosen));
    ctx->memory = &cpu_memory;
    for (int i = 0; i <= chosen; i++) {
        if (isas[i].dense)
            ctx->dense = isas[i].dense;
        if (isas[i].lut)
            ctx->lut = isas[i].lut;
        if (isas[i].solver)
            ctx->solver = isas[i].solver;
        if (isas[i].model)
            ctx->model = isas[i].model;
    }
    ctx->host_dense = ctx->dense;
    int threads = ganq__pool_threads(ctx->pool);
    snprintf(ctx->device_name, sizeof ctx->device_name, "cpu (%s, %d thread%s)", isas[chosen].name,
             threads, threads == 1 ? "" : "s");
    return GANQ_OK;
}

/* The tables are constant and there is no device state. */
static void cpu_close(ganq_context *ctx) {
    (void)ctx;
}

const ganq__backend ganq__cpu_backend = {
    .name = "cpu", .kind = GANQ_DEVICE_CPU, .open = cpu_open, .close = cpu_close};
