/* context.h - the seam's other half: a context holds the pool, the callbacks and one backend's operations. */
#ifndef GANQ_BACKEND_CONTEXT_H
#define GANQ_BACKEND_CONTEXT_H

#include <stdatomic.h>

#include "ganq/context.h"
#include "attachment.h"
#include "backend.h"
#include "status.h"
#include "threads.h"

/* What the progress callback is told; see the functions below. */
typedef struct ganq__progress_state {
    int depth; /* nested calls: only the outermost starts the clock */
    int32_t stage;
    const char *name;
    int64_t done, total;
    double from, to; /* the part of the whole call that ticks run through */
    double started, last_tick;
} ganq__progress_state;

struct ganq_context {
    atomic_int references;
    ganq_context_options options; /* defaults filled in (numerics: FAST or EXACT); callbacks cleared by ganq_context_free */
    ganq__pool *pool;
    const ganq__backend *backend;
    /* Operations of the device, chosen by backend->open; arrays lie in its memory. An operation left NULL is
     * UNSUPPORTED there. */
    const struct ganq__memory_ops *memory;
    const struct ganq__dense_ops *dense;
    const struct ganq__lut_ops *lut;
    const struct ganq__model_ops *model;
    /* Operations on memory of the process, on any device: the CPU's. */
    const struct ganq__dense_ops *host_dense;
    const struct ganq__solver_ops *solver;
    /* Whole phases of the solver on the device; NULL: `solver` does all. Takes memory of the process. */
    const struct ganq__device_solver_ops *solver_device;
    void *device_state;            /* of the backend */
    ganq__attachments attachments; /* what it made of layers and models; see attachment.h */
    char device_name[128];
    void *workspace; /* see ganq__context_workspace */
    size_t workspace_bytes;
    ganq__progress_state progress;
};

/* Handles that outlive the caller's reference keep the context (its pool) alive. */
ganq_context *ganq__context_retain(ganq_context *ctx);
void ganq__context_release(ganq_context *ctx); /* NULL is fine */

/* At least `bytes` bytes, 64-byte aligned, contents undefined, valid until the next call. For one operation's inner use;
 * grows only, and goes with the context: calls that repeat do not allocate. */
ganq_status ganq__context_workspace(ganq_context *ctx, size_t bytes, void **out);

void ganq__log(ganq_context *ctx, ganq_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Progress. A public call that takes long brackets its work with enter/leave; calls nest, the outermost owns the clock
 * and the fraction. It announces each piece with _at; the piece's own code only ticks. All from the calling thread. */
void ganq__progress_enter(ganq_context *ctx, ganq_stage stage);
void ganq__progress_leave(ganq_context *ctx);
/* The piece that begins now: `name` stays valid until the next _at; [from, to] is its part of the whole call. */
ganq_status ganq__progress_at(ganq_context *ctx, ganq_stage stage, const char *name, int64_t done,
                              int64_t total, double from, double to);
/* fraction in [0,1] of the current piece. Cheap (the callback is called at most every 50 ms); call it at least a few
 * times a second. CANCELED when the callback says so. */
ganq_status ganq__progress_tick(ganq_context *ctx, double fraction);
/* The current piece, a layer, is finished with relative error E. */
ganq_status ganq__progress_layer_done(ganq_context *ctx, int64_t done, double error);

#endif
