/* finish.c - the layer as it is stored: tables rounded to their type, codes settled for them, every
 * row measured in float64 and, where that is worse, replaced by round-to-nearest. */
#include <math.h>
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

static int nearest_entry(const float *lut, int levels, float x) {
    int best = 0;
    for (int s = 1; s < levels; s++)
        if (fabsf(x - lut[s]) < fabsf(x - lut[best]))
            best = s;
    return best;
}

float ganq__outlier(const ganq__result *result, int64_t n, int64_t k, uint8_t *code) {
    const ganq__problem *problem = result->problem;
    const float *lut = result->lut + n * problem->levels, x = problem->w[n * problem->K + k];
    *code = (uint8_t)nearest_entry(lut, problem->levels, x);
    return stored(x - lut[*code], result->outlier_dtype);
}

/* e of a row as stored (by live number), float64. */
static void residuals(const ganq__result *result, int64_t n, double *e) {
    const ganq__problem *problem = result->problem;
    const float *w = problem->w + n * problem->K, *lut = result->lut + n * problem->levels;
    const uint8_t *codes = result->codes + n * problem->K;
    for (int64_t k = 0; k < problem->live; k++) {
        const int64_t column = problem->columns[k];
        uint8_t code = codes[column];
        const float added = code == GANQ__EXACT ? ganq__outlier(result, n, column, &code) : 0;
        e[k] = (double)w[column] - (double)(lut[code] + added);
    }
}

/* Coordinate descent with the rounded table. */
static void settle_rows(ganq__result *result, ganq__batch *batch, int64_t first, int64_t rows,
                        int worker) {
    ganq__problem *problem = result->problem;
    const int64_t ld = problem->ld;
    const int levels = problem->levels;
    ganq__frame frames[GANQ__DEVICE_BATCH];
    for (int64_t i = 0; i < rows; i++) {
        double values[GANQ__LEVELS];
        const float *lut = result->lut + (first + i) * levels;
        frames[i] = ganq__row_frame(problem, first + i);
        ganq__row_values(problem, first + i, &frames[i], problem->columns, batch->w + i * ld);
        for (int s = 0; s < levels; s++)
            values[s] = lut[s] * frames[i].scale;
        ganq__table_set(&batch->tables[i], levels, values, NULL);
        for (int64_t k = 0; k < problem->live; k++)
            batch->codes[i * ld + k] =
                result->codes[(first + i) * problem->K + problem->columns[k]];
    }
    if (problem->device)
        ganq__device_settle(problem, batch, frames, first, rows, 8);
    else
        ganq__settle(problem, batch, rows, 8, worker);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < problem->live; k++)
            result->codes[(first + i) * problem->K + problem->columns[k]] =
                batch->codes[i * ld + k];
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

/* Puts round-to-nearest in place of rows that it serves better. */
static void compare_with_rtn(ganq__result *result, ganq__batch *batch, int64_t first,
                             int64_t rows) {
    ganq__problem *problem = result->problem;
    const int levels = problem->levels;
    const int64_t K = problem->K;
    float luts[GANQ__DEVICE_BATCH][GANQ__LEVELS];
    for (int64_t i = 0; i < rows; i++) {
        const float *w = problem->w + (first + i) * K;
        ganq__uniform_table(levels, K, w, luts[i]);
        for (int s = 0; s < levels; s++)
            luts[i][s] = stored(luts[i][s], result->lut_dtype);
        for (int64_t k = 0; k < problem->live; k++) {
            const float x = w[problem->columns[k]];
            batch->exact[i * batch->ld + k] =
                (double)x - (double)luts[i][nearest_entry(luts[i], levels, x)];
        }
    }
    if (!problem->diagonal && !problem->device && !rtn_may_win(result, batch, first, rows))
        return;
    ganq__measure(problem, batch, rows);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t n = first + i;
        if (!(batch->energy[i] < result->errors[n]))
            continue;
        memcpy(result->lut + n * levels, luts[i], (size_t)levels * sizeof(float));
        ganq__nearest_codes(problem, n, luts[i], result->codes + n * K);
        result->errors[n] = batch->energy[i];
    }
}

/* Tables to their stored type, codes settled for them, the row measured; round-to-nearest where
 * that is better. */
static void finish_tile(void *user, int64_t item, int worker) {
    ganq__result *result = user;
    ganq__problem *problem = result->problem;
    const int64_t K = problem->K, ld = problem->ld;
    const int64_t most = result->batches[worker].capacity, first = item * most;
    const int64_t rows = problem->N - first < most ? problem->N - first : most;
    const int levels = problem->levels;
    ganq__batch *batch = &result->batches[worker];
    if (ganq__problem_pause(problem, worker))
        return;
    for (int64_t i = 0; i < rows * levels; i++)
        result->lut[first * levels + i] =
            stored(result->lut[first * levels + i], result->lut_dtype);
    const int ours = result->plan->rounds > 0;
    if (result->plan->settles && !problem->diagonal)
        settle_rows(result, batch, first, rows, worker);
    for (int64_t i = 0; i < rows; i++)
        residuals(result, first + i, batch->exact + i * ld);
    ganq__measure(problem, batch, rows);
    memcpy(result->errors + first, batch->energy, (size_t)rows * sizeof(double));
    if (ours)
        compare_with_rtn(result, batch, first, rows);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < problem->live; k++)
            batch->exact[i * ld + k] = problem->w[(first + i) * K + problem->columns[k]];
    ganq__measure(problem, batch, rows);
    memcpy(result->norms + first, batch->energy, (size_t)rows * sizeof(double));
    atomic_fetch_add(&problem->tiles_done, 1);
}

ganq_status ganq__finish(ganq__result *result) {
    ganq__problem *problem = result->problem;
    for (int64_t n = 0; n < problem->N; n++)
        if (!f16_holds(result->lut + n * problem->levels, problem->levels))
            result->lut_dtype = GANQ_DTYPE_F32;
    const int64_t rows = result->batches[0].capacity;
    return ganq__run_tiles(result, (problem->N + rows - 1) / rows, finish_tile, result, 0.95, 1);
}
