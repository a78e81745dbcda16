/* tables.c - the table step's small systems: at most 16 unknowns, float64. */
#include <math.h>
#include <string.h>

#include "internal.h"

enum { L = GANQ__LEVELS };

void ganq__table_set(ganq__trial_table *table, int levels, const double *values, uint8_t *place) {
    int order[L];
    for (int s = 0; s < levels; s++) { /* insertion sort: stable, so that ties keep their order */
        int i = s;
        for (; i > 0 && values[order[i - 1]] > values[s]; i--)
            order[i] = order[i - 1];
        order[i] = s;
    }
    for (int s = 0; s < levels; s++) {
        table->value[s] = (float)values[order[s]];
        if (place)
            place[order[s]] = (uint8_t)s;
    }
    for (int s = levels; s < L; s++)
        table->value[s] = table->value[levels - 1];
    for (int s = 0; s < L; s++)
        table->middle[s] =
            s + 1 < levels ? 0.5f * (table->value[s] + table->value[s + 1]) : INFINITY;
}

void ganq__table_close_duplicates(ganq__trial_table *table, int levels) {
    for (int s = levels - 2; s >= 0; s--)
        if (table->value[s] == table->value[s + 1])
            table->middle[s] = table->middle[s + 1];
}

/* The gram matrix comes from float32 sums: what is smaller than this, relative to its diagonal, may
 * be rounding, and a step along it would be as large as it is meaningless (inputs of low rank do
 * that). */
#define NOISE 1e-5

/* a = C C^T in place (lower), n x n with stride L. Non-zero when a pivot is lost to rounding. */
static int cholesky(int n, double a[L][L]) {
    for (int c = 0; c < n; c++) {
        const double diagonal = a[c][c];
        for (int k = 0; k < c; k++)
            a[c][c] -= a[c][k] * a[c][k];
        if (!(a[c][c] > NOISE * diagonal))
            return 1;
        a[c][c] = sqrt(a[c][c]);
        const double inverse = 1 / a[c][c];
        for (int i = c + 1; i < n; i++) {
            for (int k = 0; k < c; k++)
                a[i][c] -= a[i][k] * a[c][k];
            a[i][c] *= inverse;
        }
    }
    return 0;
}

/* x = a^+ b through the eigenvalues of a (Jacobi rotations): for systems without a unique solution.
 * a is overwritten. */
static void solve_least_norm(int n, double a[L][L], const double *b, double *x) {
    double v[L][L] = {{0}};
    double scale = 0;
    for (int i = 0; i < n; i++) {
        v[i][i] = 1;
        scale = fmax(scale, fabs(a[i][i]));
    }
    for (int pass = 0; pass < 30; pass++) {
        double off = 0;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) {
                off = fmax(off, fabs(a[p][q]));
                if (fabs(a[p][q]) <= 1e-300)
                    continue;
                const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
                const double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
                const double c = 1 / sqrt(t * t + 1), s = t * c;
                for (int k = 0; k < n; k++) {
                    const double x0 = a[k][p], x1 = a[k][q];
                    a[k][p] = c * x0 - s * x1;
                    a[k][q] = s * x0 + c * x1;
                }
                for (int k = 0; k < n; k++) {
                    const double x0 = a[p][k], x1 = a[q][k];
                    a[p][k] = c * x0 - s * x1;
                    a[q][k] = s * x0 + c * x1;
                }
                for (int k = 0; k < n; k++) {
                    const double x0 = v[k][p], x1 = v[k][q];
                    v[k][p] = c * x0 - s * x1;
                    v[k][q] = s * x0 + c * x1;
                }
            }
        if (off <= 1e-15 * scale)
            break;
    }
    memset(x, 0, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++) {
        if (a[i][i] <= NOISE * scale)
            continue;
        double projection = 0;
        for (int k = 0; k < n; k++)
            projection += v[k][i] * b[k];
        for (int k = 0; k < n; k++)
            x[k] += v[k][i] * projection / a[i][i];
    }
}

double ganq__table_step(int levels, const float *gram, const double *offset, const int64_t *count,
                        const double *slope, double *step) {
    int used[L], n = 0;
    double a[L][L], b[L], x[L];
    for (int s = 0; s < levels; s++)
        if (count[s] > 0)
            used[n++] = s;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j <= i; j++)
            a[i][j] = gram[L * used[i] + used[j]];
        a[i][i] -= offset[used[i]];
        b[i] = slope[used[i]];
    }
    if (cholesky(n, a) == 0) {
        for (int i = 0; i < n; i++) {
            x[i] = b[i];
            for (int k = 0; k < i; k++)
                x[i] -= a[i][k] * x[k];
            x[i] /= a[i][i];
        }
        for (int i = n - 1; i >= 0; i--) {
            for (int k = i + 1; k < n; k++)
                x[i] -= a[k][i] * x[k];
            x[i] /= a[i][i];
        }
    } else {
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++)
                a[i][j] = a[j][i] = gram[L * used[i] + used[j]] - (i == j ? offset[used[i]] : 0);
        solve_least_norm(n, a, b, x);
    }
    double fall = 0;
    memset(step, 0, (size_t)levels * sizeof *step);
    for (int i = 0; i < n; i++) {
        step[used[i]] = x[i];
        fall += b[i] * x[i];
    }
    return fall;
}
