/* outliers.c - GANQ*: a few columns of every row kept exact beside the codes.
 *
 * An exact column has e = 0. Its effect on the error goes two ways: its own residual is gone, and
 * the table is free of it. The first is known exactly (from e and g = e H); the second shows only
 * when the row is solved without it. So a row tries several sets: its extremes by two measures,
 * more of them than it may keep, solved and then thinned out by their effect; and the set that
 * grows from the solution without outliers. The best error wins. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

int64_t ganq__outlier_count(const ganq__problem *problem, int64_t row, double ratio) {
    const double fraction = (double)(ganq__row_hash(problem, row) >> 11) * 0x1p-53;
    const int64_t count = (int64_t)(ratio * (double)problem->K + fraction);
    if (ratio <= 0)
        return 0;
    return count < problem->live ? count : problem->live - 1;
}

typedef struct ranked {
    double score;
    int64_t column;
} ranked;
static int compare_ranked(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->column < y->column ? -1 : 1;
}

void ganq__mark_largest(int64_t count, const double *scores, int64_t marks, double *scratch,
                        uint8_t *codes) {
    ranked *columns = (ranked *)scratch;
    if (marks == 0)
        return;
    for (int64_t k = 0; k < count; k++)
        columns[k] = (ranked){scores[k], k};
    qsort(columns, (size_t)count, sizeof *columns, compare_ranked);
    for (int64_t i = 0; i < marks && i < count; i++)
        codes[columns[i].column] = GANQ__EXACT;
}

void ganq__mark_extremes(int64_t count, const float *x, const double *weights, double power,
                         int64_t marks, double *scratch, uint8_t *codes) {
    double *scores = scratch + 2 * count;
    if (marks == 0)
        return;
    ganq__sort(count, x, scratch, scores);
    const double median = ganq__quantile(scores, count, .5);
    for (int64_t k = 0; k < count; k++)
        scores[k] = fabs((double)x[k] - median) * (weights ? pow(weights[k], power) : 1);
    ganq__mark_largest(count, scores, marks, scratch, codes);
}

/* What changing e_k by `step` does to e H e^T. */
static double effect(const ganq__problem *problem, const float *g, int64_t k, double step) {
    return step * (2.0 * (double)g[k] + step * (double)problem->diagonals[k]);
}

/* The best code for a column that is exact, and its effect. */
static int best_entry(const ganq__problem *problem, const ganq__trial_table *table, const float *w,
                      const float *g, int64_t k, double *change) {
    int best = 0;
    *change = INFINITY;
    for (int s = 0; s < problem->levels; s++) {
        const double by = effect(problem, g, k, (double)w[k] - (double)table->value[s]);
        if (by < *change) {
            *change = by;
            best = s;
        }
    }
    return best;
}

/* e_k becomes `value`: g follows. */
static void set_residual(const ganq__problem *problem, float *e, float *g, int64_t k, float value) {
    const float step = value - e[k];
    const ganq__panels *hessian = &problem->hessian;
    e[k] = value;
    for (int64_t p = 0; p < problem->ld / GANQ__PANEL; p++) {
        const float *row = hessian->data + ganq__panel_origin(hessian, p) + GANQ__PANEL * k;
        for (int j = 0; j < GANQ__PANEL; j++)
            g[GANQ__PANEL * p + j] += step * row[j];
    }
}

/* The column whose change of state serves best: from code to exact, or from exact to its best code.
 */
static int64_t best_to_free(const ganq__problem *problem, const uint8_t *codes, const float *e,
                            const float *g, double *change) {
    int64_t best = -1;
    *change = INFINITY;
    for (int64_t k = 0; k < problem->live; k++) {
        if (codes[k] == GANQ__EXACT)
            continue;
        const double by = effect(problem, g, k, -(double)e[k]);
        if (by < *change) {
            *change = by;
            best = k;
        }
    }
    return best;
}
static int64_t best_to_bind(const ganq__problem *problem, const ganq__trial_table *table,
                            const uint8_t *codes, const float *w, const float *g, double *change,
                            int *code) {
    int64_t best = -1;
    *change = INFINITY;
    for (int64_t k = 0; k < problem->live; k++) {
        double by;
        if (codes[k] != GANQ__EXACT)
            continue;
        const int entry = best_entry(problem, table, w, g, k, &by);
        if (by < *change) {
            *change = by;
            *code = entry;
            best = k;
        }
    }
    return best;
}

double ganq__choose_outliers(const ganq__problem *problem, ganq__batch *batch, int64_t i,
                             int64_t count) {
    const ganq__trial_table *table = &batch->tables[i];
    const float *w = batch->w + i * batch->ld;
    float *e = batch->e + i * batch->ld, *g = batch->g + i * batch->ld;
    uint8_t *codes = batch->codes + i * batch->ld;
    int64_t exact = 0;
    double total = 0, change;
    int code = 0;
    for (int64_t k = 0; k < problem->live; k++)
        exact += codes[k] == GANQ__EXACT;
    for (; exact > count; exact--) {
        const int64_t k = best_to_bind(problem, table, codes, w, g, &change, &code);
        total += change;
        codes[k] = (uint8_t)code;
        set_residual(problem, e, g, k, w[k] - table->value[code]);
    }
    for (; exact < count; exact++) {
        const int64_t k = best_to_free(problem, codes, e, g, &change);
        if (k < 0 || !(change < 0))
            break;
        total += change;
        codes[k] = GANQ__EXACT;
        set_residual(problem, e, g, k, 0);
    }
    for (int64_t exchange = 0; exchange < 2 * count; exchange++) {
        double gain;
        const int64_t out = best_to_free(problem, codes, e, g, &gain);
        if (out < 0)
            break;
        const uint8_t old_code = codes[out];
        const float old_residual = e[out];
        codes[out] = GANQ__EXACT;
        set_residual(problem, e, g, out, 0);
        const int64_t in = best_to_bind(problem, table, codes, w, g, &change, &code);
        if (in == out || !(gain + change < -1e-9 * fabs(gain))) { /* no better: back */
            codes[out] = old_code;
            set_residual(problem, e, g, out, old_residual);
            break;
        }
        total += gain + change;
        codes[in] = (uint8_t)code;
        set_residual(problem, e, g, in, w[in] - table->value[code]);
    }
    return total;
}

ganq_status ganq__collect_outliers(const ganq__result *result, ganq__solution *solution) {
    const ganq__problem *problem = result->problem;
    const int64_t N = problem->N, K = problem->K;
    int64_t total = 0;
    for (int64_t i = 0; i < N * K; i++)
        total += result->codes[i] == GANQ__EXACT;
    if (total > INT32_MAX)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%lld outliers; a layer can keep %d", (long long)total,
                  INT32_MAX);
    GANQ_ALLOC(solution->outlier_rowptr, (size_t)N + 1);
    GANQ_ALLOC(solution->outlier_cols, (size_t)total);
    GANQ_ALLOC(solution->outlier_vals, (size_t)total);
    int32_t count = 0;
    for (int64_t n = 0; n < N; n++) {
        solution->outlier_rowptr[n] = count;
        for (int64_t k = 0; k < K; k++) {
            uint8_t *code = &result->codes[n * K + k];
            if (*code != GANQ__EXACT)
                continue;
            solution->outlier_cols[count] = (int32_t)k;
            solution->outlier_vals[count++] = ganq__outlier(result, n, k, code);
        }
    }
    solution->outlier_rowptr[N] = count;
    return GANQ_OK;
}
