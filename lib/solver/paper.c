/* paper.c - GANQ as released with the paper (arXiv 2501.12956, algorithm 1), literally.
 *
 * Rows by median and IQR, the released start tables, H with the diagonal-dominance offset only
 * where float32 cannot factor it, K alternations, and the iterate with the least error of the whole
 * layer. So this recipe's rows depend on each other in one thing, which iterate is taken. Columns
 * keep their order. */
#include <math.h>
#include <string.h>

#include "internal.h"

typedef struct paper_state {
    ganq__result *result;
    int from, to;              /* iterations that alternate_rows makes      */
    ganq__frame *frames;       /* [N]                                   */
    ganq__trial_table *tables; /* [N] of the next S-step                */
    ganq__trial_table *found;  /* [N] of the last iteration             */
    uint8_t *codes;            /* [N, ld] of the last iteration, natural order of live columns */
    double *traces;            /* [N, slots]                            */
    ganq__trial *trials;       /* [workers, batch] of the rows at hand  */
    ganq__trial **list;
} paper_state;

/* Median and IQR of count values; the values are replaced by what they are in that frame. scratch
 * [2 count]. */
static ganq__frame normalise(int64_t count, float *values, double *scratch) {
    ganq__sort(count, values, scratch + count, scratch);
    const double iqr =
        ganq__quantile(scratch, count, .75) - ganq__quantile(scratch, count, .25) + 1e-8;
    const ganq__frame frame = {ganq__quantile(scratch, count, .5), 1 / iqr};
    for (int64_t k = 0; k < count; k++)
        values[k] = (float)(((double)values[k] - frame.shift) * frame.scale);
    return frame;
}

/* Frame and start table of a row; its outliers (GANQ*: the extremes) are left out of both. */
static void start_row(paper_state *state, int64_t n, float *values, double *scratch,
                      uint8_t *marks) {
    const ganq__result *result = state->result;
    const ganq__problem *problem = result->problem;
    const int64_t K = problem->K;
    double table[GANQ__LEVELS];
    const int64_t outliers = ganq__outlier_count(problem, n, result->plan->outlier_ratio);
    memset(marks, 0, (size_t)K);
    ganq__mark_extremes(K, problem->w + n * K, NULL, 0, outliers, GANQ__EXACT, scratch,
                        marks);
    int64_t left = 0;
    for (int64_t k = 0; k < K; k++)
        if (ganq__has_code(marks[k]))
            values[left++] = problem->w[n * K + k];
    state->frames[n] = normalise(left, values, scratch);
    ganq__start_table(&result->plan->starts[0], problem->levels, left, values, NULL, scratch,
                      table);
    ganq__table_set(&state->tables[n], problem->levels, table, NULL);
    ganq__table_close_duplicates(&state->tables[n], problem->levels);
    for (int64_t k = 0; k < problem->live; k++)
        state->codes[n * problem->ld + k] = marks[problem->factors[0].columns[k]];
}

static void start_rows(void *user, int64_t item, int worker) {
    paper_state *state = user;
    ganq__problem *problem = state->result->problem;
    const int64_t per_tile = ganq__tile_rows(problem->K), K = problem->K;
    if (ganq__problem_pause(problem, worker))
        return;
    double *scratch = ganq__malloc((size_t)(3 * K), sizeof *scratch);
    float *values = ganq__malloc((size_t)K, sizeof *values);
    uint8_t *marks = ganq__malloc((size_t)K, 1);
    if (scratch && values && marks)
        for (int64_t n = item * per_tile; n < (item + 1) * per_tile && n < problem->N; n++)
            start_row(state, n, values, scratch, marks);
    else
        ganq__tile_failed(problem);
    ganq__free(scratch);
    ganq__free(values);
    ganq__free(marks);
    atomic_fetch_add(&problem->tiles_done, 1);
}

static void alternate_rows(void *user, int64_t item, int worker) {
    paper_state *state = user;
    const ganq__result *result = state->result;
    ganq__problem *problem = result->problem;
    const int64_t most = result->batches[worker].capacity, first = item * most;
    const int64_t rows = problem->N - first < most ? problem->N - first : most;
    ganq__trial *trials = state->trials + worker * most, **list = state->list + worker * most;
    for (int64_t i = 0; i < rows; i++) {
        trials[i] = (ganq__trial){.row = first + i,
                                  .table = state->tables[first + i],
                                  .codes = state->codes + (first + i) * problem->ld,
                                  .error = INFINITY,
                                  .outliers = result->plan->outlier_ratio > 0,
                                  .trace = state->traces + (first + i) * result->slots};
        list[i] = &trials[i];
    }
    ganq__alternate(problem, result->plan, &result->batches[worker], state->frames + first, first,
                    list, rows, state->from, state->to, worker);
    for (int64_t i = 0; i < rows; i++) {
        state->tables[first + i] = trials[i].table;
        state->found[first + i] = trials[i].best;
    }
    atomic_fetch_add(&problem->tiles_done, 1);
}

/* The layer's error after a step, in units of W. */
static double layer_error(const paper_state *state, int slot) {
    const ganq__result *result = state->result;
    double sum = 0;
    for (int64_t n = 0; n < result->problem->N; n++) {
        const double scale = state->frames[n].scale;
        const double error = state->traces[n * result->slots + slot] / (scale * scale);
        result->trace[n * result->slots + slot] = error * result->problem->scale;
        sum += ganq__row_weight(result, n) * error;
    }
    return sum;
}

static void store_row(void *user, int64_t n, int worker) {
    const paper_state *state = user;
    ganq__result *result = state->result;
    const ganq__problem *problem = result->problem;
    uint8_t *codes = result->codes + n * problem->K;
    (void)worker;
    ganq__store_table(result, n, &state->found[n], &state->frames[n]);
    ganq__dead_codes(problem, n, result->lut + n * problem->levels, codes);
    for (int64_t k = 0; k < problem->live; k++)
        codes[problem->factors[0].columns[k]] = state->codes[n * problem->ld + k];
}

/* Iterations [from, to) of all rows. again: they were made before. */
static ganq_status alternate(paper_state *state, int from, int to, int again) {
    const ganq__result *result = state->result;
    const int64_t rows = result->batches[0].capacity;
    const double each = 0.85 / result->plan->alternations;
    state->from = from;
    state->to = to;
    return ganq__run_tiles(state->result, (result->problem->N + rows - 1) / rows, alternate_rows, state,
                           again ? 0.95 : 0.1 + each * from, again ? 0.95 : 0.1 + each * to);
}

/* The iterate with the least error. On the CPU one iteration at a time, and the rows of the best so far are kept. On a device
 * all of them for some rows, then the next rows: their codes stay there. What comes back is the last; if another was better,
 * the way to it is gone once more: docs/solver.md says how often. */
static ganq_status iterate(paper_state *state) {
    const ganq__problem *problem = state->result->problem;
    const int64_t N = problem->N;
    const int iterations = state->result->plan->alternations, at_once = problem->device ? iterations : 1;
    ganq__trial_table *begin;
    double best = INFINITY;
    ganq_status status = GANQ_OK;
    GANQ_ALLOC(begin, (size_t)N);
    memcpy(begin, state->tables, (size_t)N * sizeof *begin);
    for (int from = 0; from < iterations; from += at_once) {
        int which = -1;
        GANQ_TRY_GOTO(free_begin, alternate(state, from, from + at_once, 0));
        for (int i = from; i < from + at_once; i++) {
            layer_error(state, ganq__slot_assign(i));
            const double error = layer_error(state, ganq__slot_assign(i) + 1);
            if (error < best || i == 0) {
                best = error;
                which = i;
            }
        }
        if (which >= 0 && which + 1 < from + at_once) {
            memcpy(state->tables, begin, (size_t)N * sizeof *begin);
            GANQ_TRY_GOTO(free_begin, alternate(state, 0, which + 1, 1));
        }
        if (which >= 0)
            ganq__parallel_for(problem->ctx->pool, N, store_row, state);
    }
free_begin:
    ganq__free(begin);
    return status;
}

ganq_status ganq__solve_paper(ganq__result *result) {
    ganq__problem *problem = result->problem;
    const int64_t N = problem->N, per_tile = ganq__tile_rows(problem->K);
    paper_state state = {.result = result};
    ganq_status status = GANQ_OK;
    const double started = ganq__now();
    GANQ_ALLOC_GOTO(free_all, state.frames, (size_t)N);
    GANQ_ALLOC_GOTO(free_all, state.tables, (size_t)N);
    GANQ_ALLOC_GOTO(free_all, state.found, (size_t)N);
    GANQ_CALLOC_GOTO(free_all, state.codes, (size_t)(N * problem->ld));
    GANQ_CALLOC_GOTO(free_all, state.traces, (size_t)(N * result->slots));
    GANQ_TRY_GOTO(free_all, ganq__run_host_tiles(result, (N + per_tile - 1) / per_tile, start_rows,
                                                 &state, 0.05, 0.1));
    result->start_seconds = ganq__now() - started;
    const int64_t rows = result->batches[0].capacity;
    const int64_t workers = problem->device ? 1 : ganq__pool_threads(problem->ctx->pool);
    GANQ_ALLOC_GOTO(free_all, state.trials, (size_t)(workers * rows));
    GANQ_ALLOC_GOTO(free_all, state.list, (size_t)(workers * rows));
    GANQ_TRY_GOTO(free_all, iterate(&state));
free_all:
    ganq__free(state.frames);
    ganq__free(state.tables);
    ganq__free(state.found);
    ganq__free(state.codes);
    ganq__free(state.traces);
    ganq__free(state.trials);
    ganq__free(state.list);
    return status;
}
