/* fake_device.h - a device with memory of its own, played by the CPU: its memory can be touched by
 * its operations only. Host code that dereferences it dies of a segmentation fault; operations that
 * are given other memory fail the test. */
#ifndef GANQ_TESTS_FAKE_DEVICE_H
#define GANQ_TESTS_FAKE_DEVICE_H

#include "context.h"

/* `bytes` of memory. Its operations are those of the CPU's kernels, to the bit; it has gemm_many,
 * places layers, and records decode steps and replays them. Freed with ganq__context_release, which
 * fails the test if anything was left in its memory. */
ganq_context *fake_device_context(int threads, size_t bytes);

typedef struct fake_device_state {
    int64_t arrays, layers; /* that live there now      */
    int64_t replays, steps; /* decode steps so far: replayed, and with their own operations */
    int64_t products;       /* calls of gemm_many so far */
} fake_device_state;
fake_device_state fake_device_look(const ganq_context *ctx);

#endif
