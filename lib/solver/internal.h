/* internal.h - what the files of the solver share.
 *
 * Words. A layer's problem: W, H and what is derived from H once. A path: one start table and one
 * factor (an order of the columns and a damping). A trial: one row on one path. Rows are solved in
 * tiles, tiles in parallel, trials of a tile in batches; nothing that is computed for a row depends
 * on the other rows of its tile, so row shards and shuffled rows give the same bits.
 *
 * Units. H is divided by a power of two near its mean diagonal, rows are shifted and scaled
 * (ganq__frame), so that float32 neither overflows nor underflows; errors are scaled back where
 * they leave the solver. Columns with H_kk = 0 are dead: they have no effect and take no part;
 * "live" columns are numbered 0 .. live-1 in the order that ganq__order_by_pivots gives them (by
 * H_kk where there are many, and for the paper's recipe, which takes them as they are in W), and the
 * S-step begins at the last. */
#ifndef GANQ_SOLVER_INTERNAL_H
#define GANQ_SOLVER_INTERNAL_H

#include <stdatomic.h>

#include "alloc.h"
#include "solver.h"
#include "solver_ops.h"

enum { GANQ__FACTORS_MAX = 4, GANQ__STARTS_MAX = 4, GANQ__OFFSPRING_MAX = 6 };
enum { GANQ__BATCH = 96 };          /* trials that go through the kernels together   */
enum { GANQ__DEVICE_BATCH = 1024 }; /* rows that are finished together on a device    */

/* ---- options.c: a recipe's effort, a function of K and bits alone ---- */

typedef enum ganq__start_kind {
    GANQ__START_PIECEWISE = 1, /* the paper's piecewise linear table                    */
    GANQ__START_KMEANS = 2     /* exact one-dimensional k-means, weights L_kk^(2 power) */
} ganq__start_kind;

typedef struct ganq__start {
    ganq__start_kind kind;
    double power;
} ganq__start;

typedef enum ganq__damping_kind {
    GANQ__DAMPING_MEAN = 1, /* a fraction of the mean diagonal on every column */
    GANQ__DAMPING_PAPER =
        2 /* nothing; the diagonal-dominance offset where float32 Cholesky fails     */
} ganq__damping_kind;

typedef struct ganq__plan {
    int32_t recipe;
    int start_count;
    ganq__start starts[GANQ__STARTS_MAX];
    int factor_count;
    struct {
        ganq__damping_kind kind;
        int ordered; /* columns by live number; 0: as they are in W */
        double damping;
    } factors[GANQ__FACTORS_MAX];
    int probe; /* alternations of every path                                          */
    int kept;  /* best paths of a row that go on to `alternations` in all, the first path besides */
    int alternations;
    int finalists;   /* best of those that coordinate descent refines, the first path besides */
    int rounds;      /* of [tables, sweeps], at most; a row stops when nothing changes      */
    int sweeps;      /* per round, at most                                                  */
    int settles;     /* codes descend once more for the rounded table                       */
    int generations; /* of the search around the best solution                              */
    int offspring;   /* changed copies of it per generation                                 */
    double outlier_ratio;
    int outlier_starts; /* fresh starts of a row with its extremes left out; 0: no outliers   */
    int shrinks; /* H of few tokens towards its diagonal                                    */
    int literal; /* as the paper: median and IQR, unused entries become 0               */
} ganq__plan;

void ganq__solver_plan(ganq__plan *plan, const ganq_quantize_options *options, int64_t K);

/* ---- prepare.c: what is derived from H once per layer ---- */

typedef struct ganq__factor {
    int ordered;
    double damping;      /* fraction of the mean diagonal; may have escalated             */
    int low_rank;        /* many pivots are hardly more than the damping                  */
    int32_t *columns;    /* [live] column of W at each place                              */
    int32_t *live_index; /* [live] live number of each place                              */
    ganq__panels lower;  /* L of H + diag(offset), in this order                          */
    float *inverse;      /* 1 / L_kk, [ld]                                                */
    double *offset;      /* [live] what was added to H_kk (in units of the scaled H)      */
} ganq__factor;

typedef struct ganq__problem {
    ganq_context *ctx;
    const ganq__solver_ops *ops;
    int64_t N, K;
    const float *w;
    int bits, levels;
    int64_t live, ld; /* live columns; rounded up to 16                                */
    int32_t *columns; /* [live] column of W of each live column                        */
    int32_t *dead;    /* [K - live] the others                                         */
    double scale;     /* H = scale * hessian; a power of two                           */
    double shrinkage; /* what is minimized is H + shrinkage * diag(H), hessian and diagonals are that */
    int diagonal;     /* H has no entry off its diagonal (NULL is the identity)        */
    ganq__panels hessian;
    float *diagonals, *inverses; /* H_kk and 1 / H_kk of the scaled H, [ld]               */
    double *raised;              /* what of H_kk is shrinkage, [ld]                       */
    int factor_count;
    ganq__factor factors[GANQ__FACTORS_MAX];
    int exact_factor; /* the ordered factor with the least offset: its gram, less the offset, is the
                         table step's */
    int offset_added; /* the paper's diagonal offset was needed                        */
    void *device; /* NULL: the CPU's kernels do the work; see device.c                   */
    /* progress */
    atomic_int canceled;
    atomic_llong tiles_done;
    int64_t tiles;
    double progress_from, progress_to;
    ganq_status status; /* of the first failure, set by the calling thread or under `failed` */
    atomic_int failed;
} ganq__problem;

/* h NULL: the identity. */
ganq_status ganq__problem_open(ganq__problem *problem, ganq_context *ctx, int64_t N, int64_t K,
                               const float *w, const float *h, int64_t tokens, int bits,
                               const ganq__plan *plan);
void ganq__problem_close(ganq__problem *problem);
/* Between two steps of a tile, from any worker (the calling thread is worker 0, and ticks).
 * Non-zero: stop. */
int ganq__problem_pause(ganq__problem *problem, int worker);

/* ---- start.c: start tables ---- */

/* values, weights [count]; table ascending, [levels]. scratch [4 count]. */
void ganq__start_table(const ganq__start *start, int levels, int64_t count, const float *values,
                       const double *weights, double *scratch, double *table);
/* sorted [count] = values, ascending. scratch [count]. */
void ganq__sort(int64_t count, const float *values, double *scratch, double *sorted);
/* numpy.quantile: linear interpolation in sorted values. */
double ganq__quantile(const double *sorted, int64_t count, double q);

/* ---- tables.c: small symmetric systems ---- */

/* Sorts values ascending, fills the padding and the middles. place[s], if not NULL: where entry s
 * went. */
void ganq__table_set(ganq__trial_table *table, int levels, const double *values, uint8_t *place);
/* Of equal entries only the first is ever nearest, as with argmin. Without this, values below it
 * take the first and values above it the last: two entries that the table step can then tell apart.
 */
void ganq__table_close_duplicates(ganq__trial_table *table, int levels);
/* step = (gram - diag(offset))^+ slope over the entries with count > 0, others 0; levels <= 16.
 * gram has stride 16. Returns slope . step, by how much the quadratic falls. */
double ganq__table_step(int levels, const float *gram, const double *offset, const int64_t *count,
                        const double *slope, double *step);

/* ---- factor.c: Cholesky ---- */

/* order [h->K]: each time the column, or some of them at once, that is left with the least of its
 * H_kk + offset when those before it have explained what they can. The last columns, at which the
 * S-step begins, then have as much of their own as any order gives them, and L_kk differ least: the
 * sum of L_kk^2, by which the error grows with the distances of the table's entries, is small. (So
 * are columns sorted for lattice decoding, as which arXiv 2507.18553 describes the S-step.) */
ganq_status ganq__order_by_pivots(ganq_context *ctx, const ganq__panels *h, double offset,
                                  int32_t *order);

/* Whether a [n,n] can be factored in float32, which decides on the paper's offset. */
ganq_status ganq__definite_f32(ganq_context *ctx, int64_t n, const float *a, int *definite);

/* ---- what the stages take ---- */

typedef struct ganq__costs {
    double seconds[GANQ_COST_FINISH + 1], work[GANQ_COST_FINISH + 1]; /* by ganq_cost_stage */
} ganq__costs;
/* The time since `from` goes to a stage. Returns now, where the next one begins. */
static inline double ganq__charge(ganq__costs *costs, int stage, double from, double work) {
    const double now = ganq__now();
    costs->seconds[stage] += now - from;
    costs->work[stage] += work;
    return now;
}

/* ---- trials.c: batches of trials ---- */

/* How a row is seen by its trials: x = (w - shift) * scale. */
typedef struct ganq__frame {
    double shift, scale;
} ganq__frame;

/* One row on one path. */
typedef struct ganq__trial {
    int64_t row;
    int factor;
    int start;
    int open;                /* takes part in the next steps                                 */
    int64_t outliers;        /* columns that end up free                                     */
    ganq__trial_table table; /* of the next step                                            */
    ganq__trial_table best;  /* with `codes`: the best seen, in the row's frame            */
    uint8_t *codes;          /* [ld], at the factor's places; by live number once descended  */
    double error;            /* of the best: e H e^T for the scaled H, in the row's frame    */
    double *trace;           /* error after each step, in slots; see ganq__slot              */
} ganq__trial;

/* Working memory of one worker: a batch of at most `capacity` trials. */
typedef struct ganq__batch {
    int64_t capacity, ld;
    float *w, *e, *g; /* [capacity, ld]                     */
    double *exact;    /* [capacity, ld]                     */
    uint8_t *codes;   /* [capacity, ld]                     */
    ganq__trial_table *tables;
    float *gram, *slope; /* [capacity, 16, 16], [capacity, 16] */
    void *scratch;       /* of the operations */
    double *energy, *change;
    int64_t *moves;
    ganq__costs costs; /* of this worker; on a device: of all threads as one */
} ganq__batch;
/* ganq__batch_free after a failure, too. */
ganq_status ganq__batch_create(const ganq__problem *problem, int64_t capacity, ganq__batch *batch);
void ganq__batch_free(ganq__batch *batch);

/* x of one row at the given columns. */
void ganq__row_values(const ganq__problem *problem, int64_t row, const ganq__frame *frame,
                      const int32_t *columns, float *x);

/* Slots of a trial's trace: START, then ASSIGN and TABLES of each alternation, then DESCENT, then
 * TABLES and DESCENT of each round, then DESCENT for the search, then OUTLIERS. */
static inline int ganq__slot_assign(int iteration) {
    return 1 + 2 * iteration;
}
static inline int ganq__slot_descent(const ganq__plan *plan, int round) {
    return 1 + 2 * plan->alternations + 2 * round;
}
static inline int ganq__slot_search(const ganq__plan *plan) {
    return 2 + 2 * plan->alternations + 2 * plan->rounds;
}
static inline int ganq__slot_outliers(const ganq__plan *plan) {
    return 3 + 2 * plan->alternations + 2 * plan->rounds;
}
static inline int ganq__slot_count(const ganq__plan *plan) {
    return 4 + 2 * plan->alternations + 2 * plan->rounds;
}

/* Alternations [from, to) of trials that share a factor, the best iterate kept; count <= capacity.
 * frames: of the rows, indexed by row - first_row. Stops early when the problem is canceled. */
void ganq__alternate(ganq__problem *problem, const ganq__plan *plan, ganq__batch *batch,
                     const ganq__frame *frames, int64_t first_row, ganq__trial **trials,
                     int64_t count, int from, int to, int worker);
/* trial->error = the exact error of its best, in float64. */
void ganq__measure_trials(ganq__problem *problem, ganq__batch *batch, const ganq__frame *frames,
                          int64_t first_row, ganq__trial **trials, int64_t count);
/* Coordinate descent and undamped tables until nothing changes; afterwards codes are by live
 * number. */
void ganq__descend(ganq__problem *problem, const ganq__plan *plan, ganq__batch *batch,
                   const ganq__frame *frames, int64_t first_row, ganq__trial **trials,
                   int64_t count, int worker);
/* batch->energy = e H e^T, in float64, for the e [count, live] in batch->exact and the scaled H. */
void ganq__measure(ganq__problem *problem, ganq__batch *batch, int64_t count);
/* With batch->w, tables and codes set: sweeps until one changes no code. Fills e and g. */
void ganq__settle(ganq__problem *problem, ganq__batch *batch, int64_t count, int sweeps,
                  int worker);

/* ---- search.c: changed copies of a solution ---- */

/* Makes `trial` a changed copy of `parent` (codes by live number), variant 0, 1, ...: another table
 * for the S-step, or other codes for descent; returns how many alternations it needs before
 * descent. */
int ganq__mutate(const ganq__problem *problem, const ganq__trial *parent, uint64_t seed,
                 int variant, ganq__trial *trial);

/* ---- outliers.c: columns kept beside the codes ---- */

/* How far out a value may be, in a row's frame, where its largest weight is 1 to 2: the type of the
 * outliers is chosen for that. */
#define GANQ__FARTHEST 4.0f

/* How many of a row. The fraction is rounded up or down by a hash of the row's values, so that
 * layers with few columns keep the ratio on the average although rows know nothing of each other.
 */
int64_t ganq__outlier_count(const ganq__problem *problem, int64_t row, double ratio);
/* Marks the `marks` columns with the largest scores in codes, with `mark`. scratch [2 count]. */
void ganq__mark_largest(int64_t count, const double *scores, int64_t marks, uint8_t mark,
                        double *scratch, uint8_t *codes);
/* The same with |x - median| * weight^power for scores; weights NULL: all 1. scratch [3 count]. */
void ganq__mark_extremes(int64_t count, const float *x, const double *weights, double power,
                         int64_t marks, uint8_t mark, double *scratch, uint8_t *codes);
/* Trial i of the batch, with e and g at hand: makes columns free until `count` are, each time the
 * one that serves the error best; then exchanges while that lowers the error. Returns the change of
 * the error. */
double ganq__choose_outliers(ganq__problem *problem, ganq__batch *batch, int64_t i, int64_t count);
/* Gives the free columns of trial i the values that serve the error best; keeps e and g up to date.
 * Returns the change of the error. */
double ganq__fit_outliers(ganq__problem *problem, ganq__batch *batch, int64_t i);

/* ---- device.c: the same on a device that has memory of its own ---- */

/* Sets problem->device where the context's device has a solver. */
ganq_status ganq__device_open(ganq__problem *problem);
void ganq__device_close(ganq__problem *problem);
/* Trials per call, at most. */
int64_t ganq__device_capacity(const ganq__problem *problem);
/* As ganq__alternate, ganq__descend with ganq__measure_trials, ganq__settle (batch: tables, codes of rows first_row ..),
 * ganq__measure (batch: exact). A failure ends the problem with its status. */
void ganq__device_alternate(ganq__problem *problem, const ganq__plan *plan,
                            const ganq__frame *frames, int64_t first_row, ganq__trial **trials,
                            int64_t count, int from, int to);
void ganq__device_descend(ganq__problem *problem, const ganq__plan *plan, const ganq__frame *frames,
                          int64_t first_row, ganq__trial **trials, int64_t count);
void ganq__device_settle(ganq__problem *problem, ganq__batch *batch, const ganq__frame *frames,
                         int64_t first_row, int64_t count, int sweeps);
void ganq__device_energy(ganq__problem *problem, ganq__batch *batch, int64_t count);

/* ---- solve.c, tiles.c, paper.c, rtn.c, finish.c: the layer ---- */

/* A free outlier's value in units of W. */
typedef struct ganq__fitted {
    int32_t column;
    float value;
} ganq__fitted;

/* What a layer's rows leave behind; every array is indexed by row. */
typedef struct ganq__result {
    ganq__problem *problem;
    const ganq__plan *plan;
    int32_t lut_dtype, outlier_dtype;
    uint8_t *codes; /* [N,K] by column of W; GANQ__EXACT, GANQ__FREE: an outlier */
    ganq__fitted *fitted; /* [N,per_row], by column: the free ones */
    int64_t per_row;
    float *lut;     /* [N,levels]; not rounded before finish.c       */
    int slots;
    double *trace;          /* [N,slots] errors in units of W and H          */
    const float *row_weights; /* [N] of the layer's sums; NULL: 1 */
    double *errors, *norms; /* of the scaled H                             */
    ganq__batch *batches;   /* [threads]                                     */
    double prepare_seconds, start_seconds; /* of what all threads do together */
} ganq__result;

/* Rows per tile; nothing of a row depends on it. */
int64_t ganq__tile_rows(int64_t K);
/* fn over tiles 0 .. tiles-1, progress from .. to of the layer: in parallel, or one after the other where a device does
 * the work of each. */
ganq_status ganq__run_tiles(ganq__result *result, int64_t tiles, ganq__item_fn fn, void *user,
                            double from, double to);
/* The same for tiles that no device takes part in: always in parallel. */
ganq_status ganq__run_host_tiles(ganq__result *result, int64_t tiles, ganq__item_fn fn, void *user,
                                 double from, double to);
/* A worker ran out of memory: all stop. */
void ganq__tile_failed(ganq__problem *problem);
/* What is random for a row comes from its values: neither its place nor its neighbors matter. */
uint64_t ganq__row_hash(const ganq__problem *problem, int64_t row);
/* Ours: only the row's exponent is taken away. */
ganq__frame ganq__row_frame(const ganq__problem *problem, int64_t row);
/* The value that is added to the nearest entry (*code) for column k of row n to be what the outlier
 * stands for, as it is stored. */
float ganq__outlier(const ganq__result *result, int64_t n, int64_t k, uint8_t *code);
/* How much the row counts in sums over the layer. */
double ganq__row_weight(const ganq__result *result, int64_t row);
/* The entry nearest to x, of equally near ones the lowest. */
uint8_t ganq__nearest_code(int levels, const float *lut, float x);
/* Nearest entries for the dead columns of a row, and for all of it, by column of W. */
void ganq__dead_codes(const ganq__problem *problem, int64_t row, const float *lut, uint8_t *codes);
void ganq__nearest_codes(const ganq__problem *problem, int64_t row, const float *lut,
                         uint8_t *codes);
/* The table of row `row` in units of W. */
void ganq__store_table(ganq__result *result, int64_t row, const ganq__trial_table *table,
                       const ganq__frame *frame);

/* Fill codes, lut and trace: ours, all rows independent; the paper's, whose best iterate is that of
 * the whole layer; round-to-nearest. */
ganq_status ganq__solve_paths(ganq__result *result);
ganq_status ganq__solve_paper(ganq__result *result);
ganq_status ganq__solve_rtn(ganq__result *result);
/* The evenly spaced table of count values. */
void ganq__uniform_table(int levels, int64_t count, const float *w, float *lut);
/* An energy that is below 0 by rounding only, as that of an H of low rank may be; NaN stays. */
static inline double ganq__nonnegative(double energy) {
    return energy < 0 ? 0 : energy;
}

/* Rounds tables to lut_dtype, settles codes, measures; round-to-nearest where it is better. */
ganq_status ganq__finish(ganq__result *result);
/* Takes the outliers out of the codes: solution gets CSR and valid codes. */
ganq_status ganq__collect_outliers(const ganq__result *result, ganq__solution *solution);

#endif
