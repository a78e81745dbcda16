/* finish.c - the layer as it is stored: tables rounded to their type, codes settled for them, every
 * row measured in float64 and, where that is worse, replaced by round-to-nearest. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "half.h"
#include "internal.h"

static float stored(float value, int32_t dtype) {
    return dtype == GANQ_DTYPE_F16 ? ganq__f16_to_f32(ganq__f32_to_f16(value)) : value;
}

/* Whether F16 holds a row's table: every entry within 2^-10 of the table's largest magnitude. (An
 * entry near zero may lose more than that of itself: it is a matter of 2^-25, next to weights of
 * the largest entry's size.) */
static int f16_holds(const float *lut, int levels) {
    float largest = 0, worst = 0;
    for (int s = 0; s < levels; s++) {
        largest = fmaxf(largest, fabsf(lut[s]));
        worst = fmaxf(worst, fabsf(stored(lut[s], GANQ_DTYPE_F16) - lut[s]));
    }
    return worst <= largest * 0x1p-10f;
}

static int compare_columns(const void *a, const void *b) {
    const ganq__fitted *x = a, *y = b;
    return (x->column > y->column) - (x->column < y->column);
}

/* What an outlier stands for: its weight, or the value that was fitted. */
static float outlier_value(const ganq__result *result, int64_t n, int64_t k, uint8_t code) {
    const ganq__fitted key = {.column = (int32_t)k};
    if (code == GANQ__EXACT)
        return result->problem->w[n * result->problem->K + k];
    const ganq__fitted *found = bsearch(&key, result->fitted + n * result->per_row,
                                        (size_t)result->per_row, sizeof key, compare_columns);
    return found->value;
}

float ganq__outlier(const ganq__result *result, int64_t n, int64_t k, uint8_t *code) {
    const ganq__problem *problem = result->problem;
    const float *lut = result->lut + n * problem->levels, x = outlier_value(result, n, k, *code);
    *code = ganq__nearest_code(problem->levels, lut, x);
    const float added = x - lut[*code];
    return isfinite(added) ? stored(added, result->outlier_dtype) : copysignf(FLT_MAX, added);
}

/* e of a row as stored (by live number), float64. */
static void residuals(const ganq__result *result, int64_t n, double *e) {
    const ganq__problem *problem = result->problem;
    const float *w = problem->w + n * problem->K, *lut = result->lut + n * problem->levels;
    const uint8_t *codes = result->codes + n * problem->K;
    for (int64_t k = 0; k < problem->live; k++) {
        const int64_t column = problem->columns[k];
        uint8_t code = codes[column];
        const float added = ganq__has_code(code) ? 0 : ganq__outlier(result, n, column, &code);
        e[k] = (double)w[column] - (double)(lut[code] + added);
    }
}

/* A tile of rows on its way through this file. Its loops over rows run on all threads where a
 * device takes the tiles one after the other; inside a parallel loop over tiles they are serial. */
typedef struct finished_tile {
    ganq__result *result;
    ganq__batch *batch;
    int64_t first;
    ganq__frame frames[GANQ__DEVICE_BATCH];
    float luts[GANQ__DEVICE_BATCH][GANQ__LEVELS]; /* round-to-nearest's */
} finished_tile;

static void for_rows(finished_tile *t, int64_t rows, ganq__item_fn fn) {
    ganq__parallel_for(t->result->problem->ctx->pool, rows, fn, t);
}

/* Rounds the table of row i. */
static void round_table(void *user, int64_t i, int worker) {
    const finished_tile *t = user;
    const int levels = t->result->problem->levels;
    float *lut = t->result->lut + (t->first + i) * levels;
    (void)worker;
    for (int s = 0; s < levels; s++)
        lut[s] = stored(lut[s], t->result->lut_dtype);
}

/* Row i's codes to the nearest entries of its rounded table, but for outliers. */
static void nearest_codes(void *user, int64_t i, int worker) {
    const finished_tile *t = user;
    const ganq__problem *problem = t->result->problem;
    const int levels = problem->levels;
    const float *lut = t->result->lut + (t->first + i) * levels;
    const float *w = problem->w + (t->first + i) * problem->K;
    uint8_t *codes = t->result->codes + (t->first + i) * problem->K;
    (void)worker;
    for (int64_t k = 0; k < problem->K; k++)
        if (ganq__has_code(codes[k]))
            codes[k] = ganq__nearest_code(levels, lut, w[k]);
}

/* Row i into the batch, for coordinate descent with the rounded table. */
static void load_row(void *user, int64_t i, int worker) {
    finished_tile *t = user;
    const ganq__problem *problem = t->result->problem;
    const int64_t n = t->first + i, ld = problem->ld;
    const float *lut = t->result->lut + n * problem->levels;
    double values[GANQ__LEVELS];
    (void)worker;
    t->frames[i] = ganq__row_frame(problem, n);
    ganq__row_values(problem, n, &t->frames[i], problem->columns, t->batch->w + i * ld);
    for (int s = 0; s < problem->levels; s++)
        values[s] = lut[s] * t->frames[i].scale;
    ganq__table_set(&t->batch->tables[i], problem->levels, values, NULL);
    for (int64_t k = 0; k < problem->live; k++)
        t->batch->codes[i * ld + k] = t->result->codes[n * problem->K + problem->columns[k]];
}

/* Outliers of row i that are free: where e leaves them. */
static void store_fitted(const finished_tile *t, int64_t i) {
    const ganq__result *result = t->result;
    const ganq__problem *problem = result->problem;
    const int64_t n = t->first + i, at = i * problem->ld;
    if (result->per_row == 0)
        return;
    ganq__fitted *fitted = result->fitted + n * result->per_row;
    int64_t count = 0;
    for (int64_t k = 0; k < problem->live; k++) {
        if (t->batch->codes[at + k] != GANQ__FREE)
            continue;
        const double x = t->batch->w[at + k], value = x - (double)t->batch->e[at + k];
        fitted[count++] = (ganq__fitted){
            problem->columns[k],
            (float)((fabs(value) < 1.01 * (double)GANQ__FARTHEST ? value : x) / t->frames[i].scale)};
    }
    qsort(fitted, (size_t)count, sizeof *fitted, compare_columns);
    for (; count < result->per_row; count++)
        fitted[count].column = INT32_MAX;
}

static void store_row(void *user, int64_t i, int worker) {
    const finished_tile *t = user;
    const ganq__problem *problem = t->result->problem;
    uint8_t *codes = t->result->codes + (t->first + i) * problem->K;
    (void)worker;
    for (int64_t k = 0; k < problem->live; k++)
        codes[problem->columns[k]] = t->batch->codes[i * problem->ld + k];
    store_fitted(t, i);
}

/* Coordinate descent with the rounded table, and values for free outliers. */
static void settle_rows(finished_tile *t, int64_t rows, int sweeps, int worker) {
    ganq__problem *problem = t->result->problem;
    for_rows(t, rows, load_row);
    const double started = ganq__now();
    if (problem->device) {
        ganq__device_settle(problem, t->batch, t->frames, t->first, rows, sweeps);
        ganq__charge(&t->batch->costs, GANQ_COST_DESCENT, started, 0);
    } else
        ganq__settle(problem, t->batch, rows, sweeps, worker);
    for_rows(t, rows, store_row);
}

static void load_residuals(void *user, int64_t i, int worker) {
    const finished_tile *t = user;
    (void)worker;
    residuals(t->result, t->first + i, t->batch->exact + i * t->batch->ld);
}

static void load_weights(void *user, int64_t i, int worker) {
    const finished_tile *t = user;
    const ganq__problem *problem = t->result->problem;
    const float *w = problem->w + (t->first + i) * problem->K;
    (void)worker;
    for (int64_t k = 0; k < problem->live; k++)
        t->batch->exact[i * t->batch->ld + k] = w[problem->columns[k]];
}

/* Whether round-to-nearest, with the residuals in batch->exact, may serve one of the rows better
 * than what it has: decided in float32 through the factor, e (H + D) e^T = |e L|^2, which costs a
 * quarter of a measurement; what is near is measured. */
static int rtn_may_win(const ganq__result *result, ganq__batch *batch, int64_t first,
                       int64_t rows) {
    const ganq__problem *problem = result->problem;
    const ganq__factor *factor = &problem->factors[problem->exact_factor];
    const int64_t ld = batch->ld;
    for (int64_t i = 0; i < rows; i++) {
        const ganq__frame frame = ganq__row_frame(problem, first + i);
        for (int64_t k = 0; k < problem->live; k++)
            batch->e[i * ld + k] = (float)(batch->exact[i * ld + k] * frame.scale);
    }
    problem->ops->product(&factor->lower, rows, batch->e, batch->g, batch->scratch);
    for (int64_t i = 0; i < rows; i++) {
        const ganq__frame frame = ganq__row_frame(problem, first + i);
        double damped = 0, offset = 0;
        for (int64_t k = 0; k < problem->live; k++) {
            const double r = batch->g[i * ld + k], e = batch->e[i * ld + k];
            damped += r * r;
            offset += factor->offset[k] * e * e;
        }
        if (damped - offset - 1e-4 * damped <
            1.01 * result->errors[first + i] * frame.scale * frame.scale)
            return 1;
    }
    return 0;
}

/* Round-to-nearest's table of row i, and its residuals. */
static void round_row(void *user, int64_t i, int worker) {
    finished_tile *t = user;
    const ganq__problem *problem = t->result->problem;
    const int levels = problem->levels;
    const float *w = problem->w + (t->first + i) * problem->K;
    float *lut = t->luts[i];
    (void)worker;
    ganq__uniform_table(levels, problem->K, w, lut);
    for (int s = 0; s < levels; s++)
        lut[s] = stored(lut[s], t->result->lut_dtype);
    for (int64_t k = 0; k < problem->live; k++) {
        const float x = w[problem->columns[k]];
        t->batch->exact[i * t->batch->ld + k] =
            (double)x - (double)lut[ganq__nearest_code(levels, lut, x)];
    }
}

/* Puts round-to-nearest in place of rows that it serves better. */
static void compare_with_rtn(finished_tile *t, int64_t rows) {
    ganq__result *result = t->result;
    ganq__problem *problem = result->problem;
    const int levels = problem->levels;
    for_rows(t, rows, round_row);
    if (!problem->diagonal && !problem->device && !rtn_may_win(result, t->batch, t->first, rows))
        return;
    ganq__measure(problem, t->batch, rows);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t n = t->first + i;
        if (!(t->batch->energy[i] < result->errors[n]))
            continue;
        memcpy(result->lut + n * levels, t->luts[i], (size_t)levels * sizeof(float));
        ganq__nearest_codes(problem, n, t->luts[i], result->codes + n * problem->K);
        result->errors[n] = t->batch->energy[i];
    }
}

/* What of e (H + shrinkage diag(H)) e^T is not H's, for the e of row i in batch->exact. */
static double shrunk_part(const finished_tile *t, int64_t i) {
    const ganq__problem *problem = t->result->problem;
    const double *e = t->batch->exact + i * t->batch->ld;
    double sum = 0;
    for (int64_t k = 0; k < problem->live; k++)
        sum += problem->raised[k] * e[k] * e[k];
    return sum;
}

/* Errors are reported for H as it was given. */
static void subtract_shrinkage(void *user, int64_t i, int worker) {
    const finished_tile *t = user;
    ganq__result *result = t->result;
    double *error = &result->errors[t->first + i], *norm = &result->norms[t->first + i];
    load_residuals(user, i, worker);
    *error = ganq__nonnegative(*error - shrunk_part(t, i));
    load_weights(user, i, worker);
    *norm = ganq__nonnegative(*norm - shrunk_part(t, i));
}

/* Tables to their stored type, codes settled for them, the row measured; round-to-nearest where
 * that is better. */
static void finish_tile(void *user, int64_t item, int worker) {
    ganq__result *result = user;
    ganq__problem *problem = result->problem;
    ganq__batch *batch = &result->batches[worker];
    const int64_t most = batch->capacity, first = item * most;
    const int64_t rows = problem->N - first < most ? problem->N - first : most;
    finished_tile tile = {.result = result, .batch = batch, .first = first};
    if (ganq__problem_pause(problem, worker))
        return;
    for_rows(&tile, rows, round_table);
    const ganq__plan *plan = result->plan;
    if (plan->recipe == GANQ_RECIPE_RTN || (problem->diagonal && !plan->literal))
        for_rows(&tile, rows, nearest_codes);
    else if ((plan->settles || result->per_row > 0) && !problem->diagonal)
        settle_rows(&tile, rows, plan->settles ? 8 : 0, worker);
    const double started = ganq__now();
    for_rows(&tile, rows, load_residuals);
    ganq__measure(problem, batch, rows);
    memcpy(result->errors + first, batch->energy, (size_t)rows * sizeof(double));
    if (result->plan->rounds > 0)
        compare_with_rtn(&tile, rows);
    for_rows(&tile, rows, load_weights);
    ganq__measure(problem, batch, rows);
    memcpy(result->norms + first, batch->energy, (size_t)rows * sizeof(double));
    if (problem->shrinkage > 0)
        for_rows(&tile, rows, subtract_shrinkage);
    ganq__charge(&batch->costs, GANQ_COST_FINISH, started, 0);
    atomic_fetch_add(&problem->tiles_done, 1);
}

/* Whether F16 holds what is added to a row's outliers: within 2^-7 of the table's largest magnitude, a small part of the
 * distance of its entries. */
static int f16_holds_outliers(const ganq__result *result, int64_t n) {
    const ganq__problem *problem = result->problem;
    const float *lut = result->lut + n * problem->levels, *w = problem->w + n * problem->K;
    const uint8_t *codes = result->codes + n * problem->K;
    float largest = 0;
    for (int s = 0; s < problem->levels; s++)
        largest = fmaxf(largest, fabsf(lut[s]));
    for (int64_t k = 0; k < problem->K; k++)
        if (!ganq__has_code(codes[k])) {
            const float added = w[k] - lut[ganq__nearest_code(problem->levels, lut, w[k])];
            if (!(fabsf(stored(added, GANQ_DTYPE_F16) - added) <= largest * 0x1p-7f))
                return 0;
        }
    return 1;
}

ganq_status ganq__finish(ganq__result *result) {
    ganq__problem *problem = result->problem;
    for (int64_t n = 0; n < problem->N; n++)
        if (!f16_holds(result->lut + n * problem->levels, problem->levels))
            result->lut_dtype = GANQ_DTYPE_F32;
    for (int64_t n = 0; n < problem->N && result->plan->outlier_ratio > 0; n++)
        if (!f16_holds_outliers(result, n))
            result->outlier_dtype = GANQ_DTYPE_F32;
    const int64_t rows = result->batches[0].capacity;
    return ganq__run_tiles(result, (problem->N + rows - 1) / rows, finish_tile, result, 0.95, 1);
}
