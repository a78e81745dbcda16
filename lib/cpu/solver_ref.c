/* solver_ref.c - the solver's inner loops in plain C: the definition that faster ones are tested
 * against. */
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "solver_ops.h"

static int nearest(const ganq__trial_table *table, float x) {
    int s = 0;
    for (int i = 0; i < GANQ__LEVELS; i++)
        s += x > table->middle[i];
    return s;
}

/* Columns 16 p .. of the product: sum[16] = sum_{u in [from, to)} e_u M[u, panel]. */
static void panel_product(const float *panel, int64_t from, int64_t to, const float *e,
                          float *sum) {
    for (int64_t u = from; u < to; u++) {
        const float *row = panel + GANQ__PANEL * (u - from);
        for (int i = 0; i < GANQ__PANEL; i++)
            sum[i] += e[u] * row[i];
    }
}

static void assign(const ganq__panels *factor, const float *inverse, int64_t trials, const float *w,
                   const ganq__trial_table *tables, uint8_t *codes, float *e, float *r,
                   void *scratch) {
    (void)scratch;
    const int64_t K = factor->K, ld = factor->ld;
    for (int64_t p = ld / GANQ__PANEL - 1; p >= 0; p--) {
        const int64_t begin = GANQ__PANEL * p;
        const int64_t end = begin + GANQ__PANEL < K ? begin + GANQ__PANEL : K;
        const float *panel = factor->data + ganq__panel_origin(factor, p) + GANQ__PANEL * begin;
        for (int64_t i = 0; i < trials; i++) {
            const float *wi = w + i * ld;
            float *ei = e + i * ld, *ri = r + i * ld, c[GANQ__PANEL] = {0};
            panel_product(panel + GANQ__PANEL * (end - begin), end, K, ei, c);
            for (int64_t k = end - 1; k >= begin; k--) {
                const float *row = panel + GANQ__PANEL * (k - begin);
                const float wanted = c[k - begin] * inverse[k];
                if (ganq__has_code(codes[i * ld + k])) {
                    const int s = nearest(&tables[i], wi[k] + wanted);
                    codes[i * ld + k] = (uint8_t)s;
                    ei[k] = wi[k] - tables[i].value[s];
                } else {
                    ei[k] = codes[i * ld + k] == GANQ__FREE ? -wanted : 0;
                }
                for (int64_t j = 0; j <= k - begin; j++)
                    c[j] += ei[k] * row[j];
            }
            memcpy(ri + begin, c, sizeof c);
        }
    }
}

static void gram(const ganq__panels *factor, int levels, int64_t trials, const uint8_t *codes,
                 const float *r, float *grams, float *slopes, void *scratch) {
    (void)scratch;
    const int64_t K = factor->K, ld = factor->ld;
    for (int64_t i = 0; i < trials; i++) {
        float *a = grams + i * GANQ__LEVELS * GANQ__LEVELS;
        memset(a, 0, GANQ__LEVELS * GANQ__LEVELS * sizeof *a);
        if (r)
            memset(slopes + i * GANQ__LEVELS, 0, GANQ__LEVELS * sizeof *slopes);
        for (int64_t p = 0; p < ld / GANQ__PANEL; p++) {
            float u[GANQ__LEVELS][GANQ__PANEL] = {{0}};
            const float *panel = factor->data + ganq__panel_origin(factor, p);
            for (int64_t k = GANQ__PANEL * p; k < K; k++)
                for (int j = 0; j < GANQ__PANEL && ganq__has_code(codes[i * ld + k]); j++)
                    u[codes[i * ld + k]][j] += panel[GANQ__PANEL * k + j];
            for (int s = 0; s < levels; s++) {
                for (int t = 0; t < levels; t++)
                    for (int j = 0; j < GANQ__PANEL; j++)
                        a[GANQ__LEVELS * s + t] += u[s][j] * u[t][j];
                for (int j = 0; r && j < GANQ__PANEL; j++)
                    slopes[i * GANQ__LEVELS + s] += u[s][j] * r[i * ld + GANQ__PANEL * p + j];
            }
        }
    }
}

static void product(const ganq__panels *m, int64_t trials, const float *e, float *g,
                    void *scratch) {
    (void)scratch;
    const int64_t K = m->K, ld = m->ld;
    for (int64_t p = 0; p < ld / GANQ__PANEL; p++)
        for (int64_t i = 0; i < trials; i++) {
            const int64_t from = m->triangular ? GANQ__PANEL * p : 0;
            float *sum = g + i * ld + GANQ__PANEL * p;
            memset(sum, 0, GANQ__PANEL * sizeof *sum);
            panel_product(m->data + ganq__panel_origin(m, p) + GANQ__PANEL * from, from, K,
                          e + i * ld, sum);
        }
}

static void sweep(const ganq__panels *hessian, const float *diagonal, const float *inverse,
                  int64_t trials, const float *w, const ganq__trial_table *tables, uint8_t *codes,
                  float *e, float *g, double *change, int64_t *moves) {
    const int64_t K = hessian->K, ld = hessian->ld;
    for (int64_t i = 0; i < trials; i++) {
        const ganq__trial_table *table = &tables[i];
        float *gi = g + i * ld;
        moves[i] = 0;
        for (int64_t k = 0; k < K; k++) {
            const int old = codes[i * ld + k];
            if (!ganq__has_code((uint8_t)old))
                continue;
            const int new = nearest(table, table->value[old] + gi[k] * inverse[k]);
            if (new == old)
                continue;
            const float step = table->value[old] - table->value[new];
            const double gain = (double)step * (2.0 * gi[k] + (double)step * diagonal[k]);
            if (!(gain < 0))
                continue; /* a tie, or the table holds equal entries */
            change[i] += gain;
            moves[i]++;
            codes[i * ld + k] = (uint8_t) new;
            e[i * ld + k] = w[i * ld + k] - table->value[new];
            for (int64_t p = 0; p < ld / GANQ__PANEL; p++) {
                const float *row = hessian->data + ganq__panel_origin(hessian, p) + GANQ__PANEL * k;
                for (int j = 0; j < GANQ__PANEL; j++)
                    gi[GANQ__PANEL * p + j] += step * row[j];
            }
        }
    }
}

static void energy(const ganq__panels *hessian, int64_t trials, const double *e, double *energies,
                   void *scratch) {
    (void)scratch;
    const int64_t K = hessian->K, ld = hessian->ld;
    for (int64_t i = 0; i < trials; i++) {
        const double *ei = e + i * ld;
        energies[i] = 0;
        for (int64_t p = 0; p < ld / GANQ__PANEL; p++) {
            double sum[GANQ__PANEL] = {0};
            const float *panel = hessian->data + ganq__panel_origin(hessian, p);
            for (int64_t u = 0; u < K; u++)
                for (int j = 0; j < GANQ__PANEL; j++)
                    sum[j] += ei[u] * (double)panel[GANQ__PANEL * u + j];
            for (int j = 0; j < GANQ__PANEL; j++)
                energies[i] += ei[GANQ__PANEL * p + j] * sum[j];
        }
    }
}

static void downdate(int64_t rows, int64_t depth, const double *a, int64_t lda, const double *b,
                     double *c, int64_t ldc) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < depth; k++)
            for (int j = 0; j < 8; j++)
                c[i * ldc + j] -= a[i * lda + k] * b[8 * k + j];
}

const ganq__solver_ops ganq__solver_ops_ref = {
    .assign = assign,
    .gram = gram,
    .product = product,
    .sweep = sweep,
    .energy = energy,
    .downdate = downdate,
};
