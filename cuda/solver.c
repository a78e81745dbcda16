/* solver.c - the solver on a GPU: phases of many trials as sequences of kernels in the context's stream. The host
 * decides between phases only, on a few numbers per trial. */
#include <string.h>

#include "alloc.h"
#include "cuda.h"
#include "cusolver.h"
#include "memory_ops.h"
#include "solver_device.h"
#include "solver_kernels.h"

static const int64_t batch_bytes = (int64_t)1 << 30; /* what the vectors of a batch may take */
enum { MOST_TRIALS = 8192, OWNED_MAX = 64, OUTLIER_PLACES = 128 };

typedef struct solver {
    int exact_factor, factor_count;
    int64_t trace_capacity; /* doubles in batch.traces */
    ganq__cuda_batch batch;
    ganq__cuda_factor factors[GANQ__FACTORS_ON_DEVICE];
    int *places, *lost_places; /* on the device */
    /* the host's side of a call, [capacity] */
    ganq__batch_row *rows;
    uint8_t *codes; /* [capacity, ld] */
    int *listed;    /* what `places` holds */
    void *owned[OWNED_MAX]; /* device memory */
    int owned_count;
} solver;

#define LAUNCH(ctx, call) GANQ_TRY(ganq__cuda_status((call), #call))

static cudaStream_t stream_of(const ganq_context *ctx) {
    return ganq__cuda_of(ctx)->stream;
}

/* ---- memory ---- */

static ganq_status take(ganq_context *ctx, solver *s, void *out, int64_t count, size_t size) {
    void *memory = NULL;
    GANQ_TRY(ctx->memory->allocate(ctx, (size_t)(count > 0 ? count : 1) * size, &memory));
    s->owned[s->owned_count++] = memory;
    memcpy(out, &memory, sizeof memory);
    return GANQ_OK;
}
/* pointer = count elements of device memory that go with the solver. */
#define TAKE(pointer, count) GANQ_TRY(take(ctx, s, &(pointer), (count), sizeof *(pointer)))

static ganq_status give(ganq_context *ctx, solver *s, void *out, const void *data, int64_t count, size_t size) {
    GANQ_TRY(take(ctx, s, out, count, size));
    void *memory;
    memcpy(&memory, out, sizeof memory);
    return ctx->memory->upload(ctx, memory, data, (size_t)count * size);
}
/* The same, filled from the process's memory. */
#define GIVE(pointer, data, count) GANQ_TRY(give(ctx, s, &(pointer), (data), (count), sizeof *(pointer)))
#define SEND(to, from, count) ctx->memory->upload(ctx, (to), (from), (size_t)(count) * sizeof *(to))
#define FETCH(to, from, count) ctx->memory->download(ctx, (to), (from), (size_t)(count) * sizeof *(to))

typedef struct panel_strip {
    const ganq__panels *m;
    int64_t first; /* row */
    float *rows;
} panel_strip;

/* Row first + i across the panels. */
static void gather_row(void *user, int64_t i, int worker) {
    const panel_strip *strip = user;
    const ganq__panels *m = strip->m;
    const int64_t u = strip->first + i;
    (void)worker;
    for (int64_t p = 0; p < m->ld / GANQ__PANEL; p++) {
        float *row = strip->rows + i * m->ld + GANQ__PANEL * p;
        /* rows above a triangular panel are not stored, rows beyond K are zero */
        if (u < m->K && (!m->triangular || u >= GANQ__PANEL * p))
            memcpy(row, m->data + ganq__panel_origin(m, p) + GANQ__PANEL * u, GANQ__PANEL * sizeof *row);
        else
            memset(row, 0, GANQ__PANEL * sizeof *row);
    }
}

/* Panels of 16 columns to [ld, ld] row-major on the device, some rows at a time. */
static ganq_status send_panels(ganq_context *ctx, const ganq__panels *m, float *to) {
    const int64_t ld = m->ld, most = ld < 256 ? ld : 256;
    panel_strip strip = {.m = m};
    ganq_status status = GANQ_OK;
    GANQ_ALLOC(strip.rows, (size_t)(most * ld));
    for (; strip.first < ld; strip.first += most) {
        const int64_t count = ld - strip.first < most ? ld - strip.first : most;
        ganq__parallel_for(ctx->pool, count, gather_row, &strip);
        GANQ_TRY_GOTO(done, SEND(to + strip.first * ld, strip.rows, count * ld));
    }
done:
    ganq__free(strip.rows);
    return status;
}

static void solver_close(ganq_context *ctx, void *state) {
    solver *s = state;
    if (!s)
        return;
    for (int i = 0; i < s->owned_count; i++)
        ctx->memory->release(ctx, s->owned[i]);
    ctx->memory->release(ctx, s->batch.traces);
    ganq__free(s->rows);
    ganq__free(s->codes);
    ganq__free(s->listed);
    ganq__free(s);
}

static ganq_status open_problem(ganq_context *ctx, const ganq__device_problem *problem, solver *s) {
    const int64_t live = problem->live, ld = problem->ld;
    ganq__cuda_batch *b = &s->batch;
    const int32_t *indices[GANQ__FACTORS_ON_DEVICE];
    GIVE(b->weights, problem->w, problem->N * problem->K);
    TAKE(b->hessian, ld * ld);
    GANQ_TRY(send_panels(ctx, problem->hessian, b->hessian));
    GIVE(b->diagonals, problem->diagonals, ld);
    GIVE(b->inverses, problem->inverses, ld);
    for (int f = 0; f < problem->factor_count; f++) {
        const ganq__device_factor *from = &problem->factors[f];
        ganq__cuda_factor *to = &s->factors[f];
        TAKE(to->lower, ld * ld);
        GANQ_TRY(send_panels(ctx, from->lower, to->lower));
        GIVE(to->inverse, from->inverse, ld);
        GIVE(to->offset, from->offset, live);
        GIVE(to->columns, from->columns, live);
        GIVE(to->live_index, from->live_index, live);
        indices[f] = to->live_index;
    }
    GIVE(b->live_indices, indices, problem->factor_count);
    return GANQ_OK;
}

static ganq_status open_batch(ganq_context *ctx, solver *s) {
    ganq__cuda_batch *b = &s->batch;
    const int64_t n = b->capacity, vectors = n * b->ld;
    TAKE(b->w, vectors);
    TAKE(b->e, vectors);
    TAKE(b->g, vectors);
    TAKE(b->codes, vectors);
    TAKE(b->best, vectors);
    TAKE(b->delta, n * GANQ__SWEEP_COLUMNS);
    TAKE(b->rows, n);
    TAKE(b->lists, n * b->chunks * GANQ__SORT_SLOTS);
    TAKE(b->ends, n * b->chunks * GANQ__LEVELS);
    TAKE(b->gram, n * GANQ__GRAM_PARTS * GANQ__GRAM_SUMS);
    TAKE(b->sums, n * 2 * GANQ__LEVELS);
    TAKE(b->used, n);
    TAKE(b->parts, n * b->energy_parts);
    TAKE(b->energies, n);
    TAKE(b->row_numbers, n);
    TAKE(b->frames, 2 * n);
    TAKE(b->trial_factors, n);
    TAKE(s->places, n);
    TAKE(s->lost_places, n);
    GANQ_ALLOC(s->rows, (size_t)n);
    GANQ_ALLOC(s->codes, (size_t)vectors);
    GANQ_ALLOC(s->listed, (size_t)n);
    return GANQ_OK;
}

static ganq_status open_inside(ganq_context *ctx, const ganq__device_problem *problem, void **out) {
    solver *s = ganq__calloc(1, sizeof *s);
    if (!s)
        return GANQ_ERR_NO_MEMORY;
    ganq__cuda_batch *b = &s->batch;
    s->factor_count = problem->factor_count;
    s->exact_factor = problem->exact_factor;
    b->K = problem->K;
    b->live = problem->live;
    b->ld = problem->ld;
    b->levels = problem->levels;
    b->chunks = (int)((problem->live + GANQ__SORT_COLUMNS - 1) / GANQ__SORT_COLUMNS);
    b->energy_parts = (int)((problem->ld + GANQ__ENERGY_COLUMNS - 1) / GANQ__ENERGY_COLUMNS);
    const int64_t each = 15 * b->ld + 2 * b->chunks * (GANQ__SORT_SLOTS + GANQ__LEVELS) +
                         4 * (GANQ__GRAM_PARTS * GANQ__GRAM_SUMS + GANQ__SWEEP_COLUMNS) + 1024;
    const int64_t fits = batch_bytes / each, paths = 16 * problem->N; /* the most that a recipe has */
    b->capacity = fits < 128 ? 128 : fits > MOST_TRIALS ? MOST_TRIALS : fits;
    b->capacity = b->capacity > paths ? paths : b->capacity;
    ganq_status status = open_problem(ctx, problem, s);
    if (status == GANQ_OK)
        status = open_batch(ctx, s);
    if (status != GANQ_OK) {
        solver_close(ctx, s);
        return status;
    }
    *out = s;
    return GANQ_OK;
}

static int64_t solver_capacity(const void *state) {
    return ((const solver *)state)->batch.capacity;
}

/* ---- trials to the device and back ---- */

/* The places in s->listed. */
static ganq_status send_places(ganq_context *ctx, solver *s, int count) {
    return SEND(s->places, s->listed, count);
}

/* The places 0 .. count-1. */
static ganq_status list_all(ganq_context *ctx, solver *s, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        s->listed[i] = (int)i;
    return send_places(ctx, s, (int)count);
}

static ganq_status reserve_traces(ganq_context *ctx, solver *s, int64_t count) {
    ganq__cuda_batch *b = &s->batch;
    if (count <= s->trace_capacity)
        return GANQ_OK;
    void *memory = NULL;
    ctx->memory->release(ctx, b->traces);
    b->traces = NULL;
    s->trace_capacity = 0;
    GANQ_TRY(ctx->memory->allocate(ctx, (size_t)count * sizeof *b->traces, &memory));
    b->traces = memory;
    s->trace_capacity = count;
    return GANQ_OK;
}

static ganq_status send_rows(ganq_context *ctx, solver *s, int64_t count, const ganq__device_trial *trials) {
    ganq__cuda_batch *b = &s->batch;
    ganq_status status = GANQ_OK;
    int64_t *numbers = NULL;
    double *frames = NULL;
    int *factors = NULL;
    GANQ_ALLOC_GOTO(done, numbers, (size_t)count);
    GANQ_ALLOC_GOTO(done, frames, (size_t)(2 * count));
    GANQ_ALLOC_GOTO(done, factors, (size_t)count);
    for (int64_t i = 0; i < count; i++) {
        numbers[i] = trials[i].row;
        frames[2 * i] = trials[i].shift;
        frames[2 * i + 1] = trials[i].scale;
        factors[i] = trials[i].factor;
    }
    GANQ_TRY_GOTO(done, SEND(b->row_numbers, numbers, count));
    GANQ_TRY_GOTO(done, SEND(b->frames, frames, 2 * count));
    GANQ_TRY_GOTO(done, SEND(b->trial_factors, factors, count));
done:
    ganq__free(numbers);
    ganq__free(frames);
    ganq__free(factors);
    return status;
}

typedef struct code_copy {
    solver *s;
    ganq__device_trial *trials;
    int back; /* from the solver's codes to the trials', else the other way */
} code_copy;

static void copy_codes(void *user, int64_t i, int worker) {
    const code_copy *copy = user;
    const int64_t ld = copy->s->batch.ld;
    uint8_t *here = copy->s->codes + i * ld, *there = copy->trials[i].codes;
    (void)worker;
    memcpy(copy->back ? there : here, copy->back ? here : there, (size_t)ld);
}

/* Trials to places 0 .. count-1: tables, codes, w at `columns` of W; e = 0. `stride` trace slots each. */
static ganq_status load_trials(ganq_context *ctx, solver *s, int64_t count, ganq__device_trial *trials,
                               const int32_t *columns, int stride) {
    ganq__cuda_batch *b = &s->batch;
    const int64_t ld = b->ld;
    code_copy copy = {s, trials, 0};
    memset(s->rows, 0, (size_t)count * sizeof *s->rows);
    for (int64_t i = 0; i < count; i++) {
        s->rows[i].table = trials[i].table;
        s->rows[i].best = trials[i].best;
        s->rows[i].error = trials[i].error;
    }
    ganq__parallel_for(ctx->pool, count, copy_codes, &copy);
    b->trace_stride = stride;
    GANQ_TRY(reserve_traces(ctx, s, stride * count));
    GANQ_TRY(send_rows(ctx, s, count, trials));
    GANQ_TRY(list_all(ctx, s, count));
    GANQ_TRY(SEND(b->rows, s->rows, count));
    GANQ_TRY(SEND(b->codes, s->codes, count * ld));
    GANQ_CUDA_TRY(cudaMemsetAsync(b->e, 0, (size_t)(count * ld) * sizeof *b->e, stream_of(ctx)));
    LAUNCH(ctx, ganq__cuda_load_rows(stream_of(ctx), b, (int)count, columns));
    return GANQ_OK;
}

/* Tables, errors, `codes` and traces back to the trials. */
static ganq_status store_trials(ganq_context *ctx, solver *s, int64_t count, ganq__device_trial *trials,
                                const uint8_t *codes) {
    const ganq__cuda_batch *b = &s->batch;
    const int64_t stride = b->trace_stride;
    code_copy copy = {s, trials, 1};
    double *traces = NULL;
    ganq_status status = GANQ_OK;
    GANQ_TRY_GOTO(done, FETCH(s->rows, b->rows, count));
    GANQ_TRY_GOTO(done, ctx->memory->download(ctx, s->codes, codes, (size_t)(count * b->ld)));
    if (stride > 0) {
        GANQ_ALLOC_GOTO(done, traces, (size_t)(count * stride));
        GANQ_TRY_GOTO(done, FETCH(traces, b->traces, count * stride));
    }
    for (int64_t i = 0; i < count; i++) {
        trials[i].table = s->rows[i].table;
        trials[i].best = s->rows[i].best;
        trials[i].error = s->rows[i].error;
        if (stride > 0)
            memcpy(trials[i].trace, traces + i * stride, (size_t)stride * sizeof *traces);
    }
    ganq__parallel_for(ctx->pool, count, copy_codes, &copy);
done:
    ganq__free(traces);
    return status;
}

/* ---- alternation ---- */

static ganq_status alternate_once(ganq_context *ctx, solver *s, const ganq__cuda_factor *factor, int literal,
                                  int iteration, int count) {
    const cudaStream_t stream = stream_of(ctx);
    const ganq__cuda_batch *b = &s->batch;
    LAUNCH(ctx, ganq__cuda_assign(stream, b, factor, s->places, count));
    LAUNCH(ctx, ganq__cuda_sum_trials(stream, b, factor, s->places, count));
    if (literal) /* the paper looks at the error after the tables only */
        LAUNCH(ctx, ganq__cuda_trace(stream, b, 2 * iteration, s->places, count));
    else
        LAUNCH(ctx, ganq__cuda_keep_best(stream, b, 0, 2 * iteration, s->places, count));
    LAUNCH(ctx, ganq__cuda_step_tables(stream, b, factor, literal, s->places, count));
    LAUNCH(ctx, ganq__cuda_keep_best(stream, b, literal, 2 * iteration + 1, s->places, count));
    GANQ_CUDA_TRY(cudaStreamSynchronize(stream)); /* so that a pause is never far behind */
    return GANQ_OK;
}

static ganq_status alternate_inside(ganq_context *ctx, void *state, int factor, int literal, int iterations,
                             int64_t count, ganq__device_trial *trials, ganq__device_pause_fn pause, void *user) {
    solver *s = state;
    const ganq__cuda_batch *b = &s->batch;
    GANQ_TRY(load_trials(ctx, s, count, trials, s->factors[factor].columns, 2 * iterations));
    GANQ_TRY(ctx->memory->copy(ctx, b->best, b->codes, (size_t)(count * b->ld)));
    for (int iteration = 0; iteration < iterations; iteration++) {
        GANQ_TRY(pause(user));
        GANQ_TRY(alternate_once(ctx, s, &s->factors[factor], literal, iteration, (int)count));
    }
    return store_trials(ctx, s, count, trials, b->best);
}

/* ---- descent ---- */

/* Sweeps of the `count` places listed, until each changes no code, at most `sweeps`. Afterwards s->rows is up to date
 * and the list as it was. */
static ganq_status sweep_listed(ganq_context *ctx, solver *s, int count, int sweeps, ganq__device_pause_fn pause,
                                void *user) {
    const cudaStream_t stream = stream_of(ctx);
    const ganq__cuda_batch *b = &s->batch;
    int *all, going = count;
    ganq_status status = GANQ_OK;
    GANQ_ALLOC(all, (size_t)(count > 0 ? count : 1));
    memcpy(all, s->listed, (size_t)count * sizeof *all);
    for (int turn = 0; turn < sweeps && going > 0; turn++) {
        GANQ_TRY_GOTO(done, pause(user));
        GANQ_CUDA_TRY_GOTO(done, ganq__cuda_sweep(stream, b, turn == 0, s->places, going));
        GANQ_TRY_GOTO(done, FETCH(s->rows, b->rows, b->capacity));
        int left = 0;
        for (int i = 0; i < going; i++)
            if (s->rows[s->listed[i]].moves > 0)
                s->listed[left++] = s->listed[i];
        going = left;
        GANQ_TRY_GOTO(done, send_places(ctx, s, going));
    }
    memcpy(s->listed, all, (size_t)count * sizeof *all);
    GANQ_TRY_GOTO(done, send_places(ctx, s, count));
    GANQ_CUDA_TRY_GOTO(done, ganq__cuda_end_sweeps(stream, b, s->places, count));
    GANQ_TRY_GOTO(done, FETCH(s->rows, b->rows, b->capacity));
done:
    ganq__free(all);
    return status;
}

/* The undamped table step of the places listed, with g for what they end up with. */
static ganq_status descend_tables(ganq_context *ctx, solver *s, int count, int slot) {
    const cudaStream_t stream = stream_of(ctx);
    const ganq__cuda_batch *b = &s->batch;
    LAUNCH(ctx, ganq__cuda_descend_tables(stream, b, &s->factors[s->exact_factor], s->places, count));
    LAUNCH(ctx, ganq__cuda_gradients(stream, b, s->places, count));
    LAUNCH(ctx, ganq__cuda_check_tables(stream, b, s->places, count));
    LAUNCH(ctx, ganq__cuda_trace(stream, b, slot, s->places, count));
    GANQ_TRY(FETCH(s->rows, b->rows, b->capacity));
    int *lost, lost_count = 0;
    GANQ_ALLOC(lost, (size_t)count);
    for (int i = 0; i < count; i++)
        if (s->rows[s->listed[i]].lost)
            lost[lost_count++] = s->listed[i];
    const ganq_status status = lost_count > 0 ? SEND(s->lost_places, lost, lost_count) : GANQ_OK;
    ganq__free(lost);
    GANQ_TRY(status);
    if (lost_count > 0)
        LAUNCH(ctx, ganq__cuda_gradients(stream, b, s->lost_places, lost_count));
    return GANQ_OK;
}

/* Places [low, low + OUTLIER_PLACES) on the host: vectors [OUTLIER_PLACES, ld] of each kind. */
typedef struct outlier_piece {
    solver *s;
    const ganq__device_trial *trials;
    ganq__device_outliers_fn outliers;
    void *user;
    int choose;        /* which columns are free; 0: their e only */
    const int *places; /* of those that are asked */
    int64_t low;
    float *w, *e, *g;
    uint8_t *codes;
} outlier_piece;

static void set_one(void *user, int64_t i, int worker) {
    const outlier_piece *piece = user;
    const int64_t place = piece->places[i], ld = piece->s->batch.ld, at = (place - piece->low) * ld;
    const ganq__device_trial *trial = &piece->trials[place];
    ganq__batch_row *row = &piece->s->rows[place];
    (void)worker;
    if (trial->outliers <= 0)
        return;
    row->current += piece->outliers(piece->user, piece->choose ? trial->outliers : 0, &row->table, piece->w + at,
                                    piece->e + at, piece->g + at, piece->codes + at);
    row->all_moves = 1; /* not at rest yet */
    if (trial->e)
        memcpy(trial->e, piece->e + at, (size_t)ld * sizeof *trial->e);
}

/* Outliers are the host's, a matter of choosing and of small systems: some places at a time, by all threads. */
static ganq_status set_outliers(ganq_context *ctx, solver *s, int choose, int count, const ganq__device_trial *trials,
                                ganq__device_outliers_fn outliers, void *user) {
    const ganq__cuda_batch *b = &s->batch;
    const int64_t ld = b->ld, most = OUTLIER_PLACES * ld;
    outlier_piece piece = {.s = s, .trials = trials, .outliers = outliers, .user = user, .choose = choose};
    ganq_status status = GANQ_OK;
    int asked = 0;
    for (int i = 0; i < count; i++)
        asked += trials[s->listed[i]].outliers > 0;
    if (asked == 0)
        return GANQ_OK;
    GANQ_TRY(FETCH(s->rows, b->rows, b->capacity));
    GANQ_ALLOC_GOTO(done, piece.w, (size_t)most);
    GANQ_ALLOC_GOTO(done, piece.e, (size_t)most);
    GANQ_ALLOC_GOTO(done, piece.g, (size_t)most);
    GANQ_ALLOC_GOTO(done, piece.codes, (size_t)most);
    for (int first = 0, n; first < count; first += n) {
        const int64_t low = piece.low = s->listed[first]; /* the list ascends */
        for (n = 1; first + n < count && s->listed[first + n] < low + OUTLIER_PLACES; n++)
            continue;
        const int64_t span = s->listed[first + n - 1] + 1 - low;
        piece.places = s->listed + first;
        GANQ_TRY_GOTO(done, FETCH(piece.w, b->w + low * ld, span * ld));
        GANQ_TRY_GOTO(done, FETCH(piece.e, b->e + low * ld, span * ld));
        GANQ_TRY_GOTO(done, FETCH(piece.g, b->g + low * ld, span * ld));
        GANQ_TRY_GOTO(done, FETCH(piece.codes, b->codes + low * ld, span * ld));
        ganq__parallel_for(ctx->pool, n, set_one, &piece);
        GANQ_TRY_GOTO(done, SEND(b->e + low * ld, piece.e, span * ld));
        GANQ_TRY_GOTO(done, SEND(b->g + low * ld, piece.g, span * ld));
        GANQ_TRY_GOTO(done, SEND(b->codes + low * ld, piece.codes, span * ld));
        GANQ_TRY_GOTO(done, SEND(b->rows + low, s->rows + low, span));
    }
done:
    ganq__free(piece.w);
    ganq__free(piece.e);
    ganq__free(piece.g);
    ganq__free(piece.codes);
    return status;
}

/* The trials' best codes by live number, with e, g and the exact error. */
static ganq_status begin_descent(ganq_context *ctx, solver *s, int count) {
    const cudaStream_t stream = stream_of(ctx);
    const ganq__cuda_batch *b = &s->batch;
    /* bytes 0xff are a NaN: no step was taken */
    GANQ_CUDA_TRY(cudaMemsetAsync(b->traces, 0xff, (size_t)(count * b->trace_stride) * sizeof(double), stream));
    LAUNCH(ctx, ganq__cuda_renumber(stream, b, count));
    GANQ_TRY(ctx->memory->copy(ctx, b->codes, b->best, (size_t)(count * b->ld)));
    LAUNCH(ctx, ganq__cuda_subtract(stream, b, s->places, count));
    LAUNCH(ctx, ganq__cuda_energies(stream, b, s->places, count));
    LAUNCH(ctx, ganq__cuda_take_energies(stream, b, s->places, count));
    LAUNCH(ctx, ganq__cuda_gradients(stream, b, s->places, count));
    return GANQ_OK;
}

static ganq_status descend_inside(ganq_context *ctx, void *state, int rounds, int sweeps, int64_t trial_count,
                           ganq__device_trial *trials, ganq__device_outliers_fn outliers,
                           ganq__device_pause_fn pause, void *user) {
    solver *s = state;
    const ganq__cuda_batch *b = &s->batch;
    int count = (int)trial_count;
    for (int64_t i = 0; i < trial_count; i++)
        trials[i].table = trials[i].best;
    GANQ_TRY(load_trials(ctx, s, trial_count, trials, s->factors[s->exact_factor].columns, 1 + 2 * rounds));
    GANQ_TRY(begin_descent(ctx, s, count));
    GANQ_TRY(set_outliers(ctx, s, 0, count, trials, outliers, user));
    for (int round = 0; round <= rounds && count > 0; round++) {
        GANQ_TRY(pause(user));
        if (round > 0)
            GANQ_TRY(descend_tables(ctx, s, count, 2 * round - 1));
        GANQ_TRY(sweep_listed(ctx, s, count, sweeps, pause, user));
        if (round <= 2)
            GANQ_TRY(set_outliers(ctx, s, 1, count, trials, outliers, user));
        LAUNCH(ctx, ganq__cuda_keep_best(stream_of(ctx), b, 1, 2 * round, s->places, count));
        int going = 0;
        for (int i = 0; i < count; i++)
            if (s->rows[s->listed[i]].all_moves > 0 || round == 0)
                s->listed[going++] = s->listed[i];
        count = going;
        GANQ_TRY(send_places(ctx, s, count));
    }
    GANQ_TRY(list_all(ctx, s, trial_count)); /* what ranks solutions must not have drifted */
    LAUNCH(ctx, ganq__cuda_energies(stream_of(ctx), b, s->places, (int)trial_count));
    LAUNCH(ctx, ganq__cuda_take_energies(stream_of(ctx), b, s->places, (int)trial_count));
    return store_trials(ctx, s, trial_count, trials, b->best);
}

static ganq_status settle_inside(ganq_context *ctx, void *state, int sweeps, int64_t count, ganq__device_trial *trials,
                          ganq__device_outliers_fn outliers, ganq__device_pause_fn pause, void *user) {
    solver *s = state;
    const ganq__cuda_batch *b = &s->batch;
    GANQ_TRY(load_trials(ctx, s, count, trials, s->factors[s->exact_factor].columns, 0));
    LAUNCH(ctx, ganq__cuda_subtract(stream_of(ctx), b, s->places, (int)count));
    LAUNCH(ctx, ganq__cuda_gradients(stream_of(ctx), b, s->places, (int)count));
    GANQ_TRY(set_outliers(ctx, s, 0, (int)count, trials, outliers, user));
    GANQ_TRY(sweep_listed(ctx, s, (int)count, sweeps, pause, user));
    GANQ_TRY(set_outliers(ctx, s, 0, (int)count, trials, outliers, user));
    return store_trials(ctx, s, count, trials, b->codes);
}

static ganq_status energy_inside(ganq_context *ctx, void *state, int64_t count, const float *e, double *energies) {
    solver *s = state;
    const ganq__cuda_batch *b = &s->batch;
    GANQ_TRY(list_all(ctx, s, count));
    GANQ_TRY(SEND(b->e, e, count * b->ld));
    LAUNCH(ctx, ganq__cuda_energies(stream_of(ctx), b, s->places, (int)count));
    return FETCH(energies, b->energies, count);
}

/* ---- the calls: with the context's device current ---- */

#define INSIDE(call)                                                                                           \
    do {                                                                                                       \
        int entered_;                                                                                          \
        GANQ_TRY(ganq__cuda_enter(ctx, &entered_));                                                            \
        const ganq_status inside_ = (call);                                                                    \
        ganq__cuda_leave(entered_);                                                                            \
        return inside_;                                                                                        \
    } while (0)

static ganq_status solver_open(ganq_context *ctx, const ganq__device_problem *problem, void **out) {
    INSIDE(open_inside(ctx, problem, out));
}
static ganq_status alternate(ganq_context *ctx, void *state, int factor, int literal, int iterations,
                             int64_t count, ganq__device_trial *trials, ganq__device_pause_fn pause, void *user) {
    INSIDE(alternate_inside(ctx, state, factor, literal, iterations, count, trials, pause, user));
}
static ganq_status descend(ganq_context *ctx, void *state, int rounds, int sweeps, int64_t count,
                           ganq__device_trial *trials, ganq__device_outliers_fn outliers,
                           ganq__device_pause_fn pause, void *user) {
    INSIDE(descend_inside(ctx, state, rounds, sweeps, count, trials, outliers, pause, user));
}
static ganq_status settle(ganq_context *ctx, void *state, int sweeps, int64_t count, ganq__device_trial *trials,
                          ganq__device_outliers_fn outliers, ganq__device_pause_fn pause, void *user) {
    INSIDE(settle_inside(ctx, state, sweeps, count, trials, outliers, pause, user));
}
static ganq_status energy(ganq_context *ctx, void *state, int64_t count, const float *e, double *energies) {
    INSIDE(energy_inside(ctx, state, count, e, energies));
}
const ganq__device_solver_ops ganq__device_solver_ops_cuda = {
    .open = solver_open,
    .close = solver_close,
    .capacity = solver_capacity,
    .alternate = alternate,
    .descend = descend,
    .settle = settle,
    .energy = energy,
    .cholesky = ganq__cusolver_cholesky,
    .definite_f32 = ganq__cusolver_definite_f32,
};
