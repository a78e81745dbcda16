/* tiles.c - our recipes: in a tile of rows every path of every row is tried for a while, the best
 * go on, the best of those are refined by coordinate descent. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef struct tile {
    ganq__result *result;
    ganq__problem *problem;
    const ganq__plan *plan;
    ganq__batch *batch;
    int worker;
    int64_t first_row, rows, paths;
    int64_t capacity; /* trials that a phase takes at once              */
    int lanes;        /* threads in loops over rows: 1, all on a device */
    ganq__frame *frames; /* [rows]                                        */
    ganq__trial *trials; /* [rows, paths], each row's best first          */
    ganq__trial **list;  /* [rows * paths]                                */
    uint8_t *codes;      /* [rows * paths, ld]                            */
    double *traces;      /* [rows * paths, slots]                         */
    float *values;       /* [lanes, K]                                    */
    double *weights, *scratch; /* [lanes, K], [lanes, 4 K]                */
    int64_t ranked;            /* trials per row that rank_row sorts                     */
    int generation, *needs;    /* of the search; alternations of each copy      */
} tile;

static void tile_free(tile *t) {
    ganq__free(t->frames);
    ganq__free(t->trials);
    ganq__free(t->list);
    ganq__free(t->codes);
    ganq__free(t->traces);
    ganq__free(t->values);
    ganq__free(t->weights);
    ganq__free(t->scratch);
}

static int tile_create(tile *t, int slots) {
    const size_t count = (size_t)(t->rows * t->paths), K = (size_t)t->problem->K;
    t->frames = ganq__malloc((size_t)t->rows, sizeof *t->frames);
    t->trials = ganq__calloc(count, sizeof *t->trials);
    t->list = ganq__malloc(count, sizeof *t->list);
    t->codes = ganq__calloc(count * (size_t)t->problem->ld, 1);
    t->traces = ganq__malloc(count * (size_t)slots, sizeof *t->traces);
    t->values = ganq__malloc((size_t)t->lanes * K, sizeof *t->values);
    t->weights = ganq__malloc((size_t)t->lanes * K, sizeof *t->weights);
    t->scratch = ganq__malloc((size_t)t->lanes * 4 * K, sizeof *t->scratch);
    if (!t->frames || !t->trials || !t->list || !t->codes || !t->traces || !t->values ||
        !t->weights || !t->scratch)
        return 0;
    for (size_t i = 0; i < count; i++) {
        t->trials[i].codes = t->codes + i * (size_t)t->problem->ld;
        t->trials[i].trace = t->traces + i * (size_t)slots;
        for (int s = 0; s < slots; s++)
            t->trials[i].trace[s] = NAN;
    }
    return 1;
}

/* fn(tile, i, lane) for the tile's rows. Where a device solves its trials, all threads take part;
 * elsewhere they have tiles of their own. */
static void for_rows(tile *t, ganq__item_fn fn) {
    if (t->lanes > 1)
        ganq__parallel_for(t->problem->ctx->pool, t->rows, fn, t);
    for (int64_t i = 0; i < t->rows && t->lanes == 1; i++)
        fn(t, i, 0);
}

/* L_kk^2 by live number, or H_kk where that is all there is: what the square of a column's residual
 * costs where the columns before it make up for it as far as they can. */
static void pivots(const ganq__problem *problem, int factor, double *costs) {
    const ganq__factor *of = problem->diagonal ? NULL : &problem->factors[factor];
    for (int64_t k = 0; k < problem->live; k++) {
        if (!of)
            costs[k] = problem->diagonals[k];
        else
            costs[of->live_index[k]] = 1 / ((double)of->inverse[k] * (double)of->inverse[k]);
    }
}

/* Start tables of one row, from its live columns, into its trials. */
static void start_row(void *user, int64_t i, int lane) {
    tile *t = user;
    const ganq__problem *problem = t->problem;
    const ganq__plan *plan = t->plan;
    const int64_t row = t->first_row + i, count = problem->live;
    float *row_values = t->values + lane * problem->K;
    double *weights = t->weights + lane * problem->K, *scratch = t->scratch + 4 * lane * problem->K;
    t->frames[i] = ganq__row_frame(problem, row);
    ganq__row_values(problem, row, &t->frames[i], problem->columns, row_values);
    const ganq__start best = {GANQ__START_KMEANS, 1}; /* the solution itself, if H is diagonal */
    const int factors = problem->diagonal ? 1 : problem->factor_count;
    for (int f = 0; f < factors; f++) {
        pivots(problem, f, weights);
        for (int s = 0; s < (problem->diagonal ? 1 : plan->start_count); s++) {
            double values[GANQ__LEVELS];
            ganq__start_table(problem->diagonal ? &best : &plan->starts[s], problem->levels, count,
                              row_values, weights, scratch, values);
            ganq__trial *trial = &t->trials[i * t->paths + s * factors + f];
            trial->open = 1;
            trial->row = row;
            trial->start = s;
            trial->factor = f;
            trial->error = INFINITY;
            ganq__table_set(&trial->table, problem->levels, values, NULL);
            trial->best = trial->table;
        }
    }
}

static int compare_trials(const void *a, const void *b) {
    const ganq__trial *x = a, *y = b;
    if (x->error != y->error)
        return x->error < y->error ? -1 : 1;
    return x->start != y->start ? x->start - y->start : x->factor - y->factor;
}

static void rank_row(void *user, int64_t i, int lane) {
    const tile *t = user;
    ganq__trial *trials = &t->trials[i * t->paths];
    (void)lane;
    if (trials[0].open)
        qsort(trials, (size_t)t->ranked, sizeof *trials, compare_trials);
}

/* The open trials among the first `count` of every row, best first. */
static void rank_trials(tile *t, int64_t count) {
    t->ranked = count;
    for_rows(t, rank_row);
}

/* The same, and only the best `kept` of `count` trials stay open, with the first path (start 0,
 * factor 0) behind them wherever it ranks. Returns how many go on at most. */
static int64_t select_trials(tile *t, int64_t count, int64_t kept) {
    rank_trials(t, count);
    if (kept >= count)
        return count;
    for (int64_t i = 0; i < t->rows; i++) {
        ganq__trial *trials = &t->trials[i * t->paths];
        for (int64_t p = kept; p < count; p++) {
            if (trials[p].start == 0 && trials[p].factor == 0) {
                const ganq__trial first = trials[p];
                trials[p] = trials[kept];
                trials[kept] = first;
            }
        }
        for (int64_t p = kept; p < count; p++)
            if (trials[p].start != 0 || trials[p].factor != 0) {
                trials[p].open = 0;
                trials[p].error = INFINITY;
            }
    }
    return kept + 1;
}

/* Open trials among [begin, end) of every row into t->list; factor negative: of all factors. */
static int64_t list_trials(tile *t, int64_t begin, int64_t end, int factor) {
    int64_t listed = 0;
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t p = begin; p < end; p++) {
            ganq__trial *trial = &t->trials[i * t->paths + p];
            if (trial->open && (factor < 0 || trial->factor == factor))
                t->list[listed++] = trial;
        }
    return listed;
}

static void alternate_tile(tile *t, int64_t begin, int64_t end, int from, int to) {
    for (int f = 0; f < t->problem->factor_count; f++) {
        const int64_t listed = list_trials(t, begin, end, f), capacity = t->capacity;
        for (int64_t i = 0; i < listed; i += capacity)
            ganq__alternate(t->problem, t->plan, t->batch, t->frames, t->first_row, t->list + i,
                            listed - i < capacity ? listed - i : capacity, from, to, t->worker);
    }
}

/* Descent, and then, where solutions are compared, the exact error: what ranks them must not have
 * drifted. */
static void descend_tile(tile *t, int64_t begin, int64_t end) {
    const int64_t listed = list_trials(t, begin, end, -1), capacity = t->capacity;
    for (int64_t i = 0; i < listed; i += capacity)
        ganq__descend(t->problem, t->plan, t->batch, t->frames, t->first_row, t->list + i,
                      listed - i < capacity ? listed - i : capacity, t->worker);
    if (t->paths == 1)
        return;
    list_trials(t, begin, end, -1); /* descent drops from the list what comes to rest */
    for (int64_t i = 0; i < listed; i += capacity)
        ganq__measure_trials(t->problem, t->batch, t->frames, t->first_row, t->list + i,
                             listed - i < capacity ? listed - i : capacity);
}

/* ---- search ---- */

/* Changed copies of each row's best, settled again, one generation after the other; the best of all
 * stays first. Copies that go through alternations use the factors in turn. */
static void mutate_row(void *user, int64_t i, int lane) {
    const tile *t = user;
    const ganq__problem *problem = t->problem;
    ganq__trial *trials = &t->trials[i * t->paths];
    const uint64_t seed = ganq__row_hash(problem, trials[0].row) + (uint64_t)t->generation;
    (void)lane;
    trials[0].open = 1;
    for (int p = 1; p < t->paths; p++)
        trials[p].open = 0;
    for (int p = 1; p <= t->plan->offspring; p++) {
        const int needs = ganq__mutate(problem, &trials[0], seed, p - 1, &trials[p]);
        trials[p].open = 1;
        trials[p].start = p;
        trials[p].error = INFINITY;
        trials[p].factor =
            needs > 0 ? (p + t->generation) % problem->factor_count : problem->exact_factor;
        if (i == 0) /* it depends on the variant alone */
            t->needs[p] = needs;
    }
}

static void search_tile(tile *t) {
    const int offspring = t->plan->offspring;
    int needs[GANQ__OFFSPRING_MAX + 1] = {0};
    t->needs = needs;
    for (t->generation = 0; t->generation < t->plan->generations; t->generation++) {
        for_rows(t, mutate_row);
        for (int p = 1; p <= offspring; p++)
            if (needs[p] > 0)
                alternate_tile(t, p, p + 1, 0, needs[p]);
        descend_tile(t, 1, offspring + 1);
        for (int64_t i = 0; i < t->rows; i++)
            for (int p = 0; p <= offspring; p++)
                t->trials[i * t->paths + p].start = p;
        rank_trials(t, offspring + 1);
    }
}

/* ---- outliers ---- */

/* A fresh start for a trial: extremes free, those with the largest |x - median| L_kk^(2 power), and
 * the table from the other columns. */
static void start_without(tile *t, int64_t i, int lane, ganq__trial *trial, double power) {
    const ganq__problem *problem = t->problem;
    float *row_values = t->values + lane * problem->K;
    double *weights = t->weights + lane * problem->K, *scratch = t->scratch + 4 * lane * problem->K;
    const ganq__start start = {GANQ__START_KMEANS, 1};
    double values[GANQ__LEVELS];
    ganq__row_values(problem, trial->row, &t->frames[i], problem->columns, row_values);
    pivots(problem, problem->exact_factor, weights);
    memset(trial->codes, 0, (size_t)problem->live);
    ganq__mark_extremes(problem->live, row_values, weights, power, trial->outliers, GANQ__FREE,
                        scratch, trial->codes);
    int64_t left = 0;
    for (int64_t k = 0; k < problem->live; k++)
        if (ganq__has_code(trial->codes[k])) {
            row_values[left] = row_values[k];
            weights[left++] = weights[k];
        }
    ganq__start_table(&start, problem->levels, left, row_values, weights, scratch, values);
    ganq__table_set(&trial->table, problem->levels, values, NULL);
}

/* With a diagonal H, a table decides everything: nearest codes, and the largest residuals exact. */
static void settle_diagonal(tile *t, int64_t i, int lane, ganq__trial *trial) {
    const ganq__problem *problem = t->problem;
    float *row_values = t->values + lane * problem->K;
    double *effects = t->weights + lane * problem->K, *scratch = t->scratch + 4 * lane * problem->K;
    trial->best = trial->table;
    trial->error = 0;
    ganq__row_values(problem, trial->row, &t->frames[i], problem->columns, row_values);
    for (int64_t k = 0; k < problem->live; k++) {
        int best = 0;
        for (int s = 1; s < problem->levels; s++)
            if (fabsf(row_values[k] - trial->best.value[s]) <
                fabsf(row_values[k] - trial->best.value[best]))
                best = s;
        const double e = (double)row_values[k] - (double)trial->best.value[best];
        trial->codes[k] = (uint8_t)best;
        effects[k] = e * e * (double)problem->diagonals[k];
    }
    ganq__mark_largest(problem->live, effects, trial->outliers, GANQ__EXACT, scratch, trial->codes);
    for (int64_t k = 0; k < problem->live; k++)
        trial->error += ganq__has_code(trial->codes[k]) ? effects[k] : 0;
}

static void start_outliers(void *user, int64_t i, int lane) {
    tile *t = user;
    const ganq__problem *problem = t->problem;
    ganq__trial *trials = &t->trials[i * t->paths];
    const int64_t count = ganq__outlier_count(problem, trials[0].row, t->plan->outlier_ratio);
    const int64_t tried = 1 + t->plan->outlier_starts;
    for (int64_t p = 0; p < t->paths; p++)
        trials[p].open = p < tried && count > 0;
    for (int64_t p = 0; p < tried && count > 0; p++) {
        trials[p].outliers = count;
        trials[p].row = trials[0].row;
        trials[p].factor = problem->exact_factor; /* its places are the live numbers */
        if (p > 0) {
            trials[p].start = (int)p;
            trials[p].error = INFINITY;
            start_without(t, i, lane, &trials[p], 0.25 * (double)(p - 1));
        }
        if (problem->diagonal)
            settle_diagonal(t, i, lane, &trials[p]);
    }
}

/* The row's winner and fresh starts, each with its outliers in the end; codes by live number. The
 * winner's error only falls, so outliers never make a row worse. */
static void solve_outliers(tile *t) {
    const int64_t trials = 1 + t->plan->outlier_starts;
    for_rows(t, start_outliers);
    if (!t->problem->diagonal) {
        alternate_tile(t, 1, trials, 0, t->plan->alternations);
        descend_tile(t, 0, trials);
    }
    rank_trials(t, trials);
}

/* The errors along the way of row i's winner, in units of W and H; where it had come to rest, the
 * last one. Descent adds up its changes in float64; so that its last error is the exact one, all of
 * its errors are shifted by what had been lost on the way. */
static void store_trace(void *user, int64_t i, int lane) {
    const tile *t = user;
    ganq__result *result = t->result;
    const ganq__trial *trial = &t->trials[i * t->paths];
    const double unit = t->problem->scale / (t->frames[i].scale * t->frames[i].scale);
    const int descent = ganq__slot_descent(t->plan, 0);
    double *trace = result->trace + (t->first_row + i) * result->slots, last = 0;
    (void)lane;
    for (int s = 1; s < result->slots; s++) {
        if (!isnan(trial->trace[s]))
            last = trial->trace[s];
        trace[s] = last * unit;
    }
    for (int s = descent; s < result->slots; s++)
        trace[s] += (trial->error - last) * unit;
}

/* The error of row i's winner as it is now. */
static void store_error(const tile *t, int64_t i, int slot) {
    const ganq__trial *trial = &t->trials[i * t->paths];
    const double scale = t->frames[i].scale;
    for (int s = slot; s < t->result->slots; s++)
        t->result->trace[(t->first_row + i) * t->result->slots + s] =
            trial->error * t->problem->scale / (scale * scale);
}

/* The winner of row i: its table in units of W, its codes by column. */
static void store_row(void *user, int64_t i, int lane) {
    const tile *t = user;
    ganq__result *result = t->result;
    const ganq__problem *problem = t->problem;
    const ganq__trial *trial = &t->trials[i * t->paths];
    const int64_t row = t->first_row + i;
    uint8_t *codes = result->codes + row * problem->K;
    (void)lane;
    ganq__store_table(result, row, &trial->best, &t->frames[i]);
    ganq__dead_codes(problem, row, result->lut + row * problem->levels, codes);
    for (int64_t k = 0; k < problem->live; k++)
        codes[problem->columns[k]] = trial->codes[k];
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Trials that a row has at most. */
static int64_t path_count(const ganq__problem *problem, const ganq__plan *plan) {
    const int64_t paths = plan->start_count * (problem->diagonal ? 1 : problem->factor_count);
    return most(paths, 1 + most(plan->outlier_starts, plan->offspring));
}

/* On a device a tile is as many rows as one call takes. */
static int64_t tile_rows(const ganq__problem *problem, const ganq__plan *plan) {
    if (!problem->device)
        return ganq__tile_rows(problem->K);
    return most(1, ganq__device_capacity(problem) / path_count(problem, plan));
}

static void solve_tile(void *user, int64_t item, int worker) {
    ganq__result *result = user;
    ganq__problem *problem = result->problem;
    const ganq__plan *plan = result->plan;
    const int64_t per_tile = tile_rows(problem, plan), first = item * per_tile;
    const int64_t paths = plan->start_count * (problem->diagonal ? 1 : problem->factor_count);
    tile t = {.result = result,
              .problem = problem,
              .plan = plan,
              .batch = &result->batches[worker],
              .worker = worker,
              .first_row = first,
              .rows = problem->N - first < per_tile ? problem->N - first : per_tile,
              .paths = path_count(problem, plan),
              .capacity = problem->device ? ganq__device_capacity(problem)
                                          : result->batches[worker].capacity,
              .lanes = problem->device ? ganq__pool_threads(problem->ctx->pool) : 1};
    if (ganq__problem_pause(problem, worker))
        return;
    if (!tile_create(&t, result->slots)) {
        ganq__tile_failed(problem);
        tile_free(&t);
        return;
    }
    const double started = ganq__now();
    for_rows(&t, start_row);
    ganq__charge(&t.batch->costs, GANQ_COST_STARTS, started, 0);
    if (problem->diagonal) {
        for (int64_t i = 0; i < t.rows; i++)
            settle_diagonal(&t, i, 0, &t.trials[i * t.paths]);
    } else {
        int64_t count = paths;
        alternate_tile(&t, 0, count, 0, plan->probe);
        if (plan->alternations > plan->probe) {
            count = select_trials(&t, count, plan->kept);
            alternate_tile(&t, 0, count, plan->probe, plan->alternations);
        }
        count = select_trials(&t, count, plan->finalists);
        descend_tile(&t, 0, count);
        rank_trials(&t, count);
    }
    for_rows(&t, store_trace);
    if (!problem->diagonal && plan->generations > 0) {
        search_tile(&t);
        for (int64_t i = 0; i < t.rows; i++)
            store_error(&t, i, ganq__slot_search(plan));
    }
    if (plan->outlier_ratio > 0)
        solve_outliers(&t);
    for (int64_t i = 0; i < t.rows && plan->outlier_ratio > 0; i++)
        store_error(&t, i, ganq__slot_outliers(plan));
    if (!atomic_load(&problem->canceled))
        for_rows(&t, store_row);
    tile_free(&t);
    atomic_fetch_add(&problem->tiles_done, 1);
}

ganq_status ganq__solve_paths(ganq__result *result) {
    const int64_t rows = tile_rows(result->problem, result->plan);
    return ganq__run_tiles(result, (result->problem->N + rows - 1) / rows, solve_tile, result, 0.05,
                           0.95);
}
