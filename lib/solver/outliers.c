/* outliers.c - GANQ*: a few columns of every row kept beside the codes.
 *
 * The paper keeps them as they are in W, e = 0. But any value may be stored, so ours takes the one
 * that serves the error best: such columns make up for what the codes of others leave behind. With
 * E the outliers, e_E = -(e_F H_FE) H_EE^-1, or (e H)_E = 0.
 *
 * An outlier's effect goes two ways: its own residual is gone, and the table is free of it. The
 * first is known exactly (from e and g = e H); the second shows only when the row is solved without
 * it. So a row tries several sets: its extremes by some measures, and the set that grows from the
 * solution without outliers. The best error wins. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { FIT_STEPS = 64 };      /* of conjugate gradients, at most    */
#define FIT_REST 1e-10 /* of the squared residual: good enough */

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

void ganq__mark_largest(int64_t count, const double *scores, int64_t marks, uint8_t mark,
                        double *scratch, uint8_t *codes) {
    ranked *columns = (ranked *)scratch;
    if (marks == 0)
        return;
    for (int64_t k = 0; k < count; k++)
        columns[k] = (ranked){scores[k], k};
    qsort(columns, (size_t)count, sizeof *columns, compare_ranked);
    for (int64_t i = 0; i < marks && i < count; i++)
        codes[columns[i].column] = mark;
}

void ganq__mark_extremes(int64_t count, const float *x, const double *weights, double power,
                         int64_t marks, uint8_t mark, double *scratch, uint8_t *codes) {
    double *scores = scratch + 2 * count;
    if (marks == 0)
        return;
    ganq__sort(count, x, scratch, scores);
    const double median = ganq__quantile(scores, count, .5);
    for (int64_t k = 0; k < count; k++)
        scores[k] = fabs((double)x[k] - median) * (weights ? pow(weights[k], power) : 1);
    ganq__mark_largest(count, scores, marks, mark, scratch, codes);
}

/* What changing e_k by `step` does to e H e^T. */
static double effect(const ganq__problem *problem, const float *g, int64_t k, double step) {
    return step * (2.0 * (double)g[k] + step * (double)problem->diagonals[k]);
}

/* The best code for an outlier, and its effect. */
static int best_entry(const ganq__problem *problem, const ganq__trial_table *table, const float *w,
                      const float *e, const float *g, int64_t k, double *change) {
    int best = 0;
    *change = INFINITY;
    for (int s = 0; s < problem->levels; s++) {
        const double residual = (double)w[k] - (double)table->value[s];
        const double by = effect(problem, g, k, residual - (double)e[k]);
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

/* The residual that serves best, the others as they are. */
static float best_residual(const ganq__problem *problem, const float *e, const float *g,
                           int64_t k) {
    return e[k] - g[k] * problem->inverses[k];
}

/* The column whose change of state serves best: from code to outlier, or from outlier to its best
 * code. */
static int64_t best_to_free(const ganq__problem *problem, const uint8_t *codes, const float *g,
                            double *change) {
    int64_t best = -1;
    *change = INFINITY;
    for (int64_t k = 0; k < problem->live; k++) {
        if (!ganq__has_code(codes[k]))
            continue;
        const double by = -(double)g[k] * (double)g[k] * (double)problem->inverses[k];
        if (by < *change) {
            *change = by;
            best = k;
        }
    }
    return best;
}
static int64_t best_to_bind(const ganq__problem *problem, const ganq__trial_table *table,
                            const uint8_t *codes, const float *w, const float *e, const float *g,
                            double *change, int *code) {
    int64_t best = -1;
    *change = INFINITY;
    for (int64_t k = 0; k < problem->live; k++) {
        double by;
        if (ganq__has_code(codes[k]))
            continue;
        const int entry = best_entry(problem, table, w, e, g, k, &by);
        if (by < *change) {
            *change = by;
            *code = entry;
            best = k;
        }
    }
    return best;
}

/* A [count,count] = H at the columns. */
static void gather(const ganq__panels *hessian, const int32_t *columns, int64_t count, float *a) {
    for (int64_t j = 0; j < count; j++) {
        const int64_t p = columns[j] / GANQ__PANEL;
        const float *panel = hessian->data + ganq__panel_origin(hessian, p) + columns[j] % GANQ__PANEL;
        for (int64_t i = 0; i < count; i++)
            a[i * count + j] = panel[GANQ__PANEL * columns[i]];
    }
}

/* x [count] = A^-1 b by conjugate gradients, b is what remains of it in the end; A may be singular.
 * work [3 count]. */
static void solve_gathered(int64_t count, const float *a, double *b, double *x, double *work) {
    double *z = work, *direction = work + count, *product = work + 2 * count;
    double size = 0, first = 0;
    memset(x, 0, (size_t)count * sizeof *x);
    memset(direction, 0, (size_t)count * sizeof *direction);
    for (int step = 0; step <= FIT_STEPS; step++) {
        double rest = 0, curve = 0;
        for (int64_t i = 0; i < count; i++) {
            z[i] = b[i] / (double)a[i * count + i];
            rest += z[i] * b[i];
        }
        if (step == 0)
            first = rest;
        if (!(rest > FIT_REST * first) || step == FIT_STEPS)
            return;
        for (int64_t i = 0; i < count; i++)
            direction[i] = z[i] + (step > 0 ? rest / size * direction[i] : 0);
        size = rest;
        memset(product, 0, (size_t)count * sizeof *product);
        for (int64_t i = 0; i < count; i++)
            for (int64_t j = 0; j < count; j++)
                product[j] += direction[i] * (double)a[i * count + j];
        for (int64_t i = 0; i < count; i++)
            curve += direction[i] * product[i];
        if (!(curve > 0))
            return;
        for (int64_t i = 0; i < count; i++) {
            x[i] += rest / curve * direction[i];
            b[i] -= rest / curve * product[i];
        }
    }
}

/* The free columns, counted and, where there is room for them, listed. */
static int64_t list_free(const ganq__problem *problem, const uint8_t *codes, int32_t *columns) {
    int64_t count = 0;
    for (int64_t k = 0; k < problem->live; k++)
        if (codes[k] == GANQ__FREE) {
            if (columns)
                columns[count] = (int32_t)k;
            count++;
        }
    return count;
}

/* What serves is e (H + D) e^T, with the S-step's damping D: where inputs hardly differ, values
 * would go far for little. a [count,count], work [5 count]. */
static double fit(const ganq__problem *problem, int64_t count, const int32_t *columns, float *e,
                  float *g, float *a, double *work) {
    const double *offset = problem->factors[problem->exact_factor].offset;
    double *b = work, *x = work + count, change = 0;
    gather(&problem->hessian, columns, count, a);
    for (int64_t j = 0; j < count; j++) {
        const int64_t k = columns[j];
        a[j * count + j] += (float)offset[k];
        b[j] = -(double)g[k] - offset[k] * (double)e[k];
    }
    solve_gathered(count, a, b, x, work + 2 * count);
    for (int64_t j = 0; j < count; j++) { /* b is what remains: -(g + e D) - x (H + D) */
        const int64_t k = columns[j];
        change += x[j] * ((double)g[k] - b[j] - offset[k] * ((double)e[k] + x[j]));
    }
    for (int64_t j = 0; j < count; j++)
        set_residual(problem, e, g, columns[j], (float)((double)e[columns[j]] + x[j]));
    return change;
}

/* Of the columns listed, those whose values go too far get the farthest there is. Returns how many others stay listed. */
static int64_t hold_far(const ganq__problem *problem, int64_t count, int32_t *columns, const float *w,
                        float *e, float *g, double *change) {
    int64_t left = 0;
    for (int64_t j = 0; j < count; j++) {
        const int32_t k = columns[j];
        const float value = w[k] - e[k];
        if (fabsf(value) <= GANQ__FARTHEST) {
            columns[left++] = k;
            continue;
        }
        const float bound = w[k] - copysignf(GANQ__FARTHEST, value);
        *change += effect(problem, g, k, (double)bound - (double)e[k]);
        set_residual(problem, e, g, k, bound);
    }
    return left;
}

double ganq__fit_outliers(ganq__problem *problem, ganq__batch *batch, int64_t i) {
    const uint8_t *codes = batch->codes + i * batch->ld;
    const int64_t count = list_free(problem, codes, NULL);
    double change = 0;
    if (count == 0)
        return 0;
    int32_t *columns = ganq__malloc((size_t)count, sizeof *columns);
    float *a = ganq__malloc((size_t)(count * count), sizeof *a);
    double *work = ganq__malloc((size_t)(5 * count), sizeof *work);
    if (columns && a && work) {
        const float *w = batch->w + i * batch->ld;
        float *e = batch->e + i * batch->ld, *g = batch->g + i * batch->ld;
        int64_t left = list_free(problem, codes, columns), before;
        do { /* what would go too far stays at the bound, and the others make up for it */
            before = left;
            change += fit(problem, left, columns, e, g, a, work);
            left = hold_far(problem, before, columns, w, e, g, &change);
        } while (left < before && left > 0);
    } else {
        ganq__tile_failed(problem);
    }
    ganq__free(columns);
    ganq__free(a);
    ganq__free(work);
    return change;
}

double ganq__choose_outliers(ganq__problem *problem, ganq__batch *batch, int64_t i, int64_t count) {
    const ganq__trial_table *table = &batch->tables[i];
    const float *w = batch->w + i * batch->ld;
    float *e = batch->e + i * batch->ld, *g = batch->g + i * batch->ld;
    uint8_t *codes = batch->codes + i * batch->ld;
    int64_t outliers = 0;
    double total = 0, change = 0;
    int code = 0;
    for (int64_t k = 0; k < problem->live; k++)
        outliers += !ganq__has_code(codes[k]);
    for (; outliers < count; outliers++) {
        const int64_t k = best_to_free(problem, codes, g, &change);
        if (k < 0 || !(change < 0))
            break;
        total += change;
        codes[k] = GANQ__FREE;
        set_residual(problem, e, g, k, best_residual(problem, e, g, k));
    }
    total += ganq__fit_outliers(problem, batch, i);
    for (int64_t exchange = 0; exchange < 2 * count; exchange++) {
        double gain;
        const int64_t out = best_to_free(problem, codes, g, &gain);
        if (out < 0)
            break;
        const uint8_t old_code = codes[out];
        const float old_residual = e[out];
        codes[out] = GANQ__FREE;
        set_residual(problem, e, g, out, best_residual(problem, e, g, out));
        const int64_t in = best_to_bind(problem, table, codes, w, e, g, &change, &code);
        if (in == out || !(gain + change < -1e-9 * fabs(gain))) { /* no better: back */
            codes[out] = old_code;
            set_residual(problem, e, g, out, old_residual);
            break;
        }
        total += gain + change;
        codes[in] = (uint8_t)code;
        set_residual(problem, e, g, in, w[in] - table->value[code]);
    }
    return total + ganq__fit_outliers(problem, batch, i);
}

ganq_status ganq__collect_outliers(const ganq__result *result, ganq__solution *solution) {
    const ganq__problem *problem = result->problem;
    const int64_t N = problem->N, K = problem->K;
    int64_t total = 0;
    for (int64_t i = 0; i < N * K; i++)
        total += !ganq__has_code(result->codes[i]);
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
            if (ganq__has_code(*code))
                continue;
            solution->outlier_cols[count] = (int32_t)k;
            solution->outlier_vals[count++] = ganq__outlier(result, n, k, code);
        }
    }
    solution->outlier_rowptr[N] = count;
    return GANQ_OK;
}
