/* solver_kernels.h - the solver's steps on the device, for solver.c. Each call puts its kernels into a stream and returns
 * why it could not. Words and units: lib/solver; contract of the whole: lib/backend/solver_device.h.
 *
 * A batch holds trials at places 0 .. capacity-1; vectors of place i begin at i * ld. `places` lists those that take
 * part: trials at rest leave the list, their data stay where they are. Matrices are row-major [ld, ld], zero beyond
 * `live`; a factor is zero above its diagonal. Padding columns of e and g hold zeros. */
#ifndef GANQ_CUDA_SOLVER_KERNELS_H
#define GANQ_CUDA_SOLVER_KERNELS_H

#include <cuda_runtime_api.h>

#include "solver_ops.h"

enum {
    GANQ__FACTORS_ON_DEVICE = 8,
    GANQ__SWEEP_COLUMNS = 256, /* whose effect on all other columns is one product                  */
    GANQ__SORT_COLUMNS = 256,  /* sorted by code together for the table step                        */
    GANQ__SORT_SLOTS = 304,    /* their sorted lists, each padded to a multiple of four             */
    GANQ__GRAM_PARTS = 8,      /* parts in which the table step sums                                */
    GANQ__GRAM_SUMS = 152,     /* 136 pairs of entries and 16 slopes                                */
    GANQ__ENERGY_COLUMNS = 64, /* per part of an energy                                             */
    GANQ__PRODUCT_DEPTH = 16   /* a product's depth is a multiple of it                             */
};

/* What a batch holds of one trial besides its vectors. */
typedef struct ganq__batch_row {
    ganq__trial_table table, best;
    double error;   /* of the best                          */
    double current; /* as things are now                    */
    double damped;  /* |r|^2                                */
    double fall;    /* of the table step                    */
    double change;  /* of the sweeps                        */
    int moves;      /* of the last sweep                    */
    int all_moves;  /* of a round's sweeps                  */
    int lost;       /* its table step did not hold          */
    uint8_t place[GANQ__LEVELS]; /* where the table step's sorting put the entries */
} ganq__batch_row;

typedef struct ganq__cuda_factor {
    float *lower;   /* [ld, ld] */
    float *inverse; /* [ld]     */
    double *offset; /* [live]   */
    int32_t *columns, *live_index; /* [live] */
} ganq__cuda_factor;

/* Everything on the device. */
typedef struct ganq__cuda_batch {
    int64_t K, live, ld, capacity;
    int levels, chunks, energy_parts; /* chunks of GANQ__SORT_COLUMNS in live */
    const float *weights;             /* W [N,K]                              */
    float *hessian, *diagonals, *inverses;
    float *w, *e, *g;     /* [capacity, ld]; g is r in the S-step             */
    float *delta;         /* [capacity, GANQ__SWEEP_COLUMNS] changes of e     */
    uint8_t *codes, *best; /* [capacity, ld]                                  */
    ganq__batch_row *rows;
    uint16_t *lists, *ends; /* [capacity, chunks, GANQ__SORT_SLOTS | 16]      */
    float *gram;            /* [GANQ__GRAM_PARTS, count, GANQ__GRAM_SUMS]     */
    double *sums;           /* [capacity, 2, 16]: S g and S D                 */
    unsigned *used;         /* [capacity] bit s: entry s has a column         */
    double *parts;          /* [energy_parts, count]                          */
    double *energies;       /* [capacity], by position in the list            */
    double *traces;         /* [capacity, trace_stride]                       */
    int trace_stride;
    int64_t *row_numbers; /* [capacity] of W                                  */
    double *frames;       /* [capacity, 2] shift, scale                       */
    int *trial_factors;   /* [capacity]                                       */
    const int32_t **live_indices; /* [factors]                                */
} ganq__cuda_batch;

#ifdef __cplusplus
extern "C" {
#endif

/* w of places 0 .. count-1, at `columns` of W. */
cudaError_t ganq__cuda_load_rows(cudaStream_t stream, const ganq__cuda_batch *b, int count, const int32_t *columns);
/* best = codes, moved from the places of each trial's factor to live numbers; places 0 .. count-1. */
cudaError_t ganq__cuda_renumber(cudaStream_t stream, const ganq__cuda_batch *b, int count);
/* e = w - table[code]. */
cudaError_t ganq__cuda_subtract(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count);
/* S-step: r = 0, then codes, e and r, the last column first (paper, eq. 7-9). */
cudaError_t ganq__cuda_assign(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                              const int *places, int count);
/* The alternation's sums after the S-step: gram, slopes, |r|^2 and the error as it is now. */
cudaError_t ganq__cuda_sum_trials(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                                  const int *places, int count);
/* The alternation's table step (eq. 6), with codes, e and the current error following. */
cudaError_t ganq__cuda_step_tables(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                                   int literal, const int *places, int count);
/* traces[.., slot] = the current error; where it is less than the best's, or always, it becomes the best. */
cudaError_t ganq__cuda_keep_best(cudaStream_t stream, const ganq__cuda_batch *b, int always, int slot,
                                 const int *places, int count);
cudaError_t ganq__cuda_trace(cudaStream_t stream, const ganq__cuda_batch *b, int slot, const int *places, int count);
/* energies = e H e^T: products in float32 over 16 columns, sums of those in float64. */
cudaError_t ganq__cuda_energies(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count);
/* The current and the best's error = energies. */
cudaError_t ganq__cuda_take_energies(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count);
/* g = e H. */
cudaError_t ganq__cuda_gradients(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count);
/* The undamped table step of descent: tables, codes, e. Afterwards g is to be made anew and the step checked. */
cudaError_t ganq__cuda_descend_tables(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                                      const int *places, int count);
/* Whether e g^T agrees with what the step promised; if not (`lost`), table, codes and e are the best's again. */
cudaError_t ganq__cuda_check_tables(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count);
/* One sweep of coordinate descent; first: of a round. Brings codes, e, g, change and moves up to date. */
cudaError_t ganq__cuda_sweep(cudaStream_t stream, const ganq__cuda_batch *b, int first, const int *places, int count);
/* After a round's sweeps: the current error. */
cudaError_t ganq__cuda_end_sweeps(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count);

#ifdef __cplusplus
}
#endif
#endif
