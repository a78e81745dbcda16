/* solver_device.h - the solver's steps on a device that has memory of its own: whole phases of many trials per call,
 * where solver_ops.h has the inner loops of a few trials on the CPU. The driver (lib/solver) is the same for both.
 *
 * All pointers are the process's own memory; what is needed on the device is copied there by the call. Words and units
 * are those of lib/solver: x = (w - shift) * scale, H scaled, live columns only, ld = live rounded up to 16, codes with
 * GANQ__EXACT or GANQ__FREE for outliers. Results are the same bits for any order and number of trials in a
 * call. */
#ifndef GANQ_BACKEND_SOLVER_DEVICE_H
#define GANQ_BACKEND_SOLVER_DEVICE_H

#include "context.h"
#include "solver_ops.h"

typedef struct ganq__device_factor {
    const ganq__panels *lower; /* L of H + D, in this factor's order of columns */
    const float *inverse;      /* 1 / L_kk, [ld]                                 */
    const double *offset;      /* D, [live]                                      */
    const int32_t *columns;    /* [live] column of W at each place               */
    const int32_t *live_index; /* [live] live number of each place               */
} ganq__device_factor;

typedef struct ganq__device_problem {
    int64_t N, K, live, ld;
    int levels;
    const float *w;               /* [N,K]                                          */
    const ganq__panels *hessian;  /* by live number                                 */
    const float *diagonals, *inverses; /* H_kk, 1 / H_kk, [ld]                      */
    int factor_count, exact_factor; /* the latter's gram, less D, is the table step's of descent; its places are the
                                       live numbers */
    const ganq__device_factor *factors;
} ganq__device_problem;

typedef struct ganq__device_trial {
    int64_t row;
    double shift, scale;
    int factor;     /* whose places `codes` has when descent begins                  */
    int64_t outliers; /* columns that end up free; 0: none                           */
    ganq__trial_table table; /* of the next S-step                                   */
    ganq__trial_table best;  /* with codes: the best seen                            */
    uint8_t *codes; /* [ld]                                                          */
    double error;   /* of the best                                                   */
    float *e;       /* [ld] where settle leaves the residuals of a trial with outliers */
    double *trace;  /* where a call writes the error after each of its steps         */
} ganq__device_trial;

/* Between two steps, from the calling thread; anything but OK ends the call with it. */
typedef ganq_status (*ganq__device_pause_fn)(void *user);

/* Which columns of a trial are free, `outliers` of them, and what their e is; 0: those that are, their e only. w, e, g
 * [ld] and codes by live number; changes codes, e and g, and returns the change of the error. From any of the context's
 * threads. */
typedef double (*ganq__device_outliers_fn)(void *user, int64_t outliers, const ganq__trial_table *table,
                                           const float *w, float *e, float *g, uint8_t *codes);

typedef struct ganq__device_solver_ops {
    /* Copies the problem to the device. NO_MEMORY names what was asked for and what there is. */
    ganq_status (*open)(ganq_context *ctx, const ganq__device_problem *problem, void **solver);
    void (*close)(ganq_context *ctx, void *solver);
    /* Trials that a call takes at most. */
    int64_t (*capacity)(const void *solver);
    /* `iterations` alternations of codes and tables (ganq__alternate in lib/solver) of trials on one factor. trace gets
     * two errors per iteration: after the codes, after the tables. literal: as the paper, and `best` is the last. */
    ganq_status (*alternate)(ganq_context *ctx, void *solver, int factor, int literal, int iterations, int64_t count,
                             ganq__device_trial *trials, ganq__device_pause_fn pause, void *user);
    /* Descent of trials from their best (ganq__descend): trace[0] after the first sweeps, then two per round. Codes
     * come back by live number, `error` measured again in float64 sums. */
    ganq_status (*descend)(ganq_context *ctx, void *solver, int rounds, int sweeps, int64_t count,
                           ganq__device_trial *trials, ganq__device_outliers_fn outliers, ganq__device_pause_fn pause,
                           void *user);
    /* Sweeps with `table` as it is, from codes by live number; free columns get their e before and after. */
    ganq_status (*settle)(ganq_context *ctx, void *solver, int sweeps, int64_t count, ganq__device_trial *trials,
                          ganq__device_outliers_fn outliers, ganq__device_pause_fn pause, void *user);
    /* e H e^T for e [count, ld] by live number; products in float32 over 16 columns, sums of those in float64. */
    ganq_status (*energy)(ganq_context *ctx, void *solver, int64_t count, const float *e, double *energies);
    /* L L^T = A [n, lda] in place, lower triangle, float64. *definite 0: A is not positive definite. NULL: the CPU
     * does it. */
    ganq_status (*cholesky)(ganq_context *ctx, int64_t n, double *a, int64_t lda, int *definite);
    /* Whether the lower triangle of A [n, n] can be factored in float32. NULL: the CPU looks. */
    ganq_status (*definite_f32)(ganq_context *ctx, int64_t n, const float *a, int *definite);
} ganq__device_solver_ops;

#endif
