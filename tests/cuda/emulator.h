/* emulator.h - what a test can set and ask of the emulated device. The environment variables in
 * brackets set the same at start, for programs that know nothing of the emulator. */
#ifndef GANQ_EMULATOR_H
#define GANQ_EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 1; 0 where tests/gpu/device.c stands in, which runs the same tests on a real GPU: there the functions below
 * do nothing, and counts are all zero. */
int emulator_present(void);

/* The machine: version 0 is no driver; the compute capability is major * 10 + minor; memory in
 * bytes per device. Defaults: driver 13000, 2 devices, 89, 8 GiB.
 * [GANQ_EMULATOR_DRIVER, GANQ_EMULATOR_DEVICES, GANQ_EMULATOR_SM, GANQ_EMULATOR_MEMORY] */
typedef struct emulator_machine {
    int driver, devices, sm;
    size_t memory;
    int code;             /* compute capability that the kernels were compiled for: 0, sm; -1, none that runs here */
    int no_pools;         /* no memory pools, and no allocation in a stream's order */
    int host_page_tables; /* pageable memory is read when a copy runs, not when it is asked for */
} emulator_machine;
void emulator_set_machine(const emulator_machine *machine); /* NULL: the defaults */

/* The order in which blocks, and the threads of a block, run as far as barriers allow: 0 ascending,
 * 1 descending. Results must not differ. [GANQ_EMULATOR_ORDER] */
void emulator_set_order(int order);

/* The n-th allocation of device memory from now fails (1: the next), and the one after it, which may be
 * a second try; 0: none. */
void emulator_fail_allocation(int64_t n);

/* The next call of this name ("cudaGraphInstantiate") fails with the error. */
void emulator_fail_call(const char *name, int error);
/* f(user) runs once, when the next call of this name has ended: as another thread might come in between. */
void emulator_interrupt(const char *name, void (*f)(void *user), void *user);

/* Contexts that there are on a device; a new one of the caller's own, current from now on; the thread's current one
 * or NULL. */
int emulator_contexts(int device);
void *emulator_make_context(int device);
void *emulator_current_context(void);

/* Totals since the program began, and device memory held now. */
typedef struct emulator_counts {
    int64_t launches, graph_launches, allocations, copies_to_host, synchronizations;
    size_t bytes_held;
    int api_calls; /* any call at all */
} emulator_counts;
void emulator_read_counts(emulator_counts *out);

#ifdef __cplusplus
}
#endif
#endif
