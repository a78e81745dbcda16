/* solver_ops.h - the solver's inner loops on a device.
 *
 * They work on a batch of trials. A trial is one row of W on one way through the solver: it has
 * weights, a table, codes, and vectors of length K, all stored row after row with the leading
 * dimension `ld` of the panels (the padding holds zeros). Symbols: e = w - w~, H = L L^T.
 *
 * A column without a code is an outlier, GANQ__EXACT or GANQ__FREE, and stays one: the S-step gives it its e, after
 * which e stays what it is.
 *
 * Contract of all of them: serial (the solver runs batches in parallel), and what comes out for a
 * trial depends on that trial and on the matrix alone, not on its place in the batch: row shards
 * and shuffled rows give the same bits. `scratch`: ganq__solver_scratch bytes. */
#ifndef GANQ_BACKEND_SOLVER_OPS_H
#define GANQ_BACKEND_SOLVER_OPS_H

#include <stdint.h>

enum {
    GANQ__PANEL = 16,  /* columns per panel: a panel's row is one cache line of floats            */
    GANQ__LEVELS = 16, /* table entries held for a row, whatever the bits; see ganq__trial_table */
    GANQ__EXACT = 255, /* in place of a code: an outlier that is as in W, e = 0                   */
    GANQ__FREE = 223   /* the same: an outlier whose value, any e, is what serves the error best  */
};
static inline int ganq__has_code(uint8_t code) {
    return code < GANQ__LEVELS;
}

/* A K x K matrix, cut into panels of 16 columns, each row of a panel contiguous: the S-step
 * multiplies by it, the table step and descent add up single rows of it. A lower triangular matrix
 * keeps rows u >= 16 p of panel p only. Columns beyond K are zero. */
typedef struct ganq__panels {
    int64_t K, ld;
    int triangular;
    float *data;
} ganq__panels;

/* K rounded up to whole panels, and one more where rows of vectors would lie a multiple of 1 KB
 * apart, in few sets of the caches: at K = 4096 the S-step of 96 trials took 1.7 times as long. */
static inline int64_t ganq__panel_ld(int64_t K) {
    const int64_t ld = (K + 15) / 16 * 16;
    return ld % 256 == 0 ? ld + 16 : ld;
}
/* Index in `data` of row 0 of panel p; when triangular it is not stored itself: row u >= 16 p lies
 * 16 u further. */
static inline int64_t ganq__panel_origin(const ganq__panels *m, int64_t p) {
    return m->triangular ? 16 * (p * m->ld - 8 * p * (p - 1)) - 256 * p : 16 * p * m->ld;
}
/* Number of floats in `data`. */
static inline int64_t ganq__panels_size(int64_t K, int triangular) {
    const int64_t ld = ganq__panel_ld(K), count = ld / 16;
    return triangular ? 16 * (count * ld - 8 * count * (count - 1)) : count * 16 * ld;
}

/* Bytes of working memory, aligned to 64, for operations on that many trials. */
static inline int64_t ganq__solver_scratch(int64_t ld, int64_t trials) {
    return trials * (8 * ((ld + 255) / 256 * 256) + 1024);
}

/* A table in ascending order. Entry s is the nearest one for middle[s-1] < x <= middle[s]; unused
 * middles are +inf and unused values repeat the last one. */
typedef struct ganq__trial_table {
    float value[GANQ__LEVELS], middle[GANQ__LEVELS];
} ganq__trial_table;

typedef struct ganq__solver_ops {
    /* S-step (paper, eq. 7-9), columns from the last to the first: c_k = sum_{u>k} e_u L_uk; q_k =
     * the entry nearest to w_k + c_k / L_kk; e_k = w_k - t[q_k], or -c_k / L_kk where the column is
     * free. inverse: 1 / L_kk [ld]. Writes codes, e and r = e L (r_k = c_k + e_k L_kk), each
     * [trials, ld]. */
    void (*assign)(const ganq__panels *factor, const float *inverse, int64_t trials, const float *w,
                   const ganq__trial_table *tables, uint8_t *codes, float *e, float *r,
                   void *scratch);
    /* For the table step, with S the one-hot codes, never materialised: U = S L by segmented sums
     * of L's rows, gram = U U^T = S L L^T S^T [trials,16,16] and, when r is not NULL, slope = U r^T
     * = S L L^T e^T [trials,16]. */
    void (*gram)(const ganq__panels *factor, int levels, int64_t trials, const uint8_t *codes,
                 const float *r, float *gram, float *slope, void *scratch);
    /* g = e M, [trials, ld]; M = H, or L. */
    void (*product)(const ganq__panels *m, int64_t trials, const float *e, float *g,
                    void *scratch);
    /* One sweep of coordinate descent: for each column in turn the entry nearest to w~_k + g_k /
     * H_kk. Keeps codes, e and g = e H up to date. diagonal: H_kk, inverse: 1 / H_kk, [ld].
     * change[trials] += change of e H e^T (never above zero); moves[trials] = codes changed. */
    void (*sweep)(const ganq__panels *hessian, const float *diagonal, const float *inverse,
                  int64_t trials, const float *w, const ganq__trial_table *tables, uint8_t *codes,
                  float *e, float *g, double *change, int64_t *moves);
    /* energy[trials] = e H e^T in float64, e [trials, ld]. */
    void (*energy)(const ganq__panels *hessian, int64_t trials, const double *e, double *energy,
                   void *scratch);
    /* c[rows,8] -= a[rows,depth] b[depth,8] in float64: the update of a blocked Cholesky
     * factorization. */
    void (*downdate)(int64_t rows, int64_t depth, const double *a, int64_t lda, const double *b,
                     double *c, int64_t ldc);
} ganq__solver_ops;

#endif
