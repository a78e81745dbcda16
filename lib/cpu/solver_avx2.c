/* solver_avx2.c - the solver's inner loops for AVX2 + FMA.
 *
 * Layout: matrices in panels of 16 columns (solver_ops.h); one row of a panel is two registers.
 *
 * Products: 6 trials x 16 columns in 12 accumulators, 256 rows of a panel (16 KiB, L1) at a time.
 * Every sum runs over the rows in their order, whichever trials share the registers: a trial's bits
 * do not depend on its batch.
 *
 * S-step: inside a panel, column by column, all trials of the batch for one column before the next,
 * so that the chain search -> residual -> update of one trial hides behind the others.
 *
 * Tables: for U = S L a panel's rows are added to bins by code, 16 lines of L1; U U^T follows from
 * registers.
 *
 * Descent: 256 columns at a time; what changed there is applied to the other columns afterwards,
 * all changes of a trial per load of g. Eight columns that keep their code cost a few instructions.
 */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "solver_ops.h"

enum { CHUNK = 256, GROUP = 96 };

/* sum[rows][16] += e[rows][count] panel[count][16]; sums lie `ld` apart, as the rows of e do. */
static inline __attribute__((always_inline)) void
panel_rows(int rows, const float *panel, int64_t count, const float *e, float *sum, int64_t ld) {
    __m256 a[6][2];
    for (int i = 0; i < rows; i++) {
        a[i][0] = _mm256_loadu_ps(sum + i * ld);
        a[i][1] = _mm256_loadu_ps(sum + i * ld + 8);
    }
    for (int64_t u = 0; u < count; u++) {
        const __m256 b0 = _mm256_loadu_ps(panel + GANQ__PANEL * u);
        const __m256 b1 = _mm256_loadu_ps(panel + GANQ__PANEL * u + 8);
        for (int i = 0; i < rows; i++) {
            const __m256 x = _mm256_broadcast_ss(e + i * ld + u);
            a[i][0] = _mm256_fmadd_ps(x, b0, a[i][0]);
            a[i][1] = _mm256_fmadd_ps(x, b1, a[i][1]);
        }
    }
    for (int i = 0; i < rows; i++) {
        _mm256_storeu_ps(sum + i * ld, a[i][0]);
        _mm256_storeu_ps(sum + i * ld + 8, a[i][1]);
    }
}

/* The same for all trials; panel points at row `from`, e at column `from` of the first trial. */
static void panel_product(const float *panel, int64_t count, int64_t trials, const float *e,
                          float *sum, int64_t ld) {
    for (int64_t u = 0; u < count; u += CHUNK) {
        const int64_t part = count - u < CHUNK ? count - u : CHUNK;
        const float *rows = panel + GANQ__PANEL * u;
        int64_t i = 0;
        for (; i + 6 <= trials; i += 6)
            panel_rows(6, rows, part, e + i * ld + u, sum + i * ld, ld);
        for (; i + 2 <= trials; i += 2)
            panel_rows(2, rows, part, e + i * ld + u, sum + i * ld, ld);
        if (i < trials)
            panel_rows(1, rows, part, e + i * ld + u, sum + i * ld, ld);
    }
}

static inline int nearest(const ganq__trial_table *table, float x) {
    const __m256 v = _mm256_set1_ps(x);
    const __m256 low = _mm256_cmp_ps(v, _mm256_loadu_ps(table->middle), _CMP_GT_OQ);
    const __m256 high = _mm256_cmp_ps(v, _mm256_loadu_ps(table->middle + 8), _CMP_GT_OQ);
    return __builtin_popcount((unsigned)_mm256_movemask_ps(low) | (unsigned)_mm256_movemask_ps(high)
                                                                      << 8);
}

static void assign(const ganq__panels *factor, const float *inverse, int64_t trials, const float *w,
                   const ganq__trial_table *tables, uint8_t *codes, float *e, float *r) {
    const int64_t K = factor->K, ld = factor->ld;
    for (int64_t p = ld / GANQ__PANEL - 1; p >= 0; p--) {
        const int64_t begin = GANQ__PANEL * p;
        const int64_t end = begin + GANQ__PANEL < K ? begin + GANQ__PANEL : K;
        const float *panel = factor->data + ganq__panel_origin(factor, p);
        for (int64_t i = 0; i < trials; i++)
            memset(r + i * ld + begin, 0, GANQ__PANEL * sizeof *r);
        panel_product(panel + GANQ__PANEL * end, K - end, trials, e + end, r + begin, ld);
        for (int64_t k = end - 1; k >= begin; k--) {
            const __m256 l0 = _mm256_loadu_ps(panel + GANQ__PANEL * k);
            const __m256 l1 = _mm256_loadu_ps(panel + GANQ__PANEL * k + 8);
            for (int64_t i = 0; i < trials; i++) {
                float *c = r + i * ld + begin;
                const float x = w[i * ld + k];
                if (codes[i * ld + k] == GANQ__EXACT) {
                    e[i * ld + k] = 0;
                    continue;
                }
                const int s = nearest(&tables[i], x + r[i * ld + k] * inverse[k]);
                const float left = x - tables[i].value[s];
                codes[i * ld + k] = (uint8_t)s;
                e[i * ld + k] = left;
                const __m256 v = _mm256_set1_ps(left);
                _mm256_storeu_ps(c, _mm256_fmadd_ps(v, l0, _mm256_loadu_ps(c)));
                _mm256_storeu_ps(c + 8, _mm256_fmadd_ps(v, l1, _mm256_loadu_ps(c + 8)));
            }
        }
    }
}

/* Bins of sums: GANQ__EXACT, in its low five bits, falls outside of those that are read. */
enum { BINS = 32 };

/* u[s][16] = the sum of the panel's rows [from, to) with code s. With fewer than 16 levels,
 * neighboring rows go to different sets of bins, so that sums do not wait for each other. Bins in
 * memory beat sorting the columns by code: at the 10 to 30 rows per code of a small layer, half the
 * time of sorted sums went into mispredicted loop ends. */
static inline void sum_by_code(const float *panel, int levels, const uint8_t *codes, int64_t from,
                               int64_t to, float *u) {
    const int sets = GANQ__LEVELS / levels;
    memset(u, 0, BINS * GANQ__PANEL * sizeof *u);
    for (int64_t k = from; k < to; k++) {
        const int bin = (codes[k] & (BINS - 1)) ^ (int)(k & (sets - 1)) * levels;
        const float *row = panel + GANQ__PANEL * k;
        float *sum = u + GANQ__PANEL * bin;
        _mm256_store_ps(sum, _mm256_add_ps(_mm256_load_ps(sum), _mm256_loadu_ps(row)));
        _mm256_store_ps(sum + 8, _mm256_add_ps(_mm256_load_ps(sum + 8), _mm256_loadu_ps(row + 8)));
    }
    for (int s = levels; s < GANQ__LEVELS; s++) {
        float *sum = u + GANQ__PANEL * (s % levels), *part = u + GANQ__PANEL * s;
        for (int i = 0; i < GANQ__PANEL; i += 8)
            _mm256_store_ps(sum + i,
                            _mm256_add_ps(_mm256_load_ps(sum + i), _mm256_load_ps(part + i)));
        if (s < 8) /* read as a level that does not exist */
            memset(part, 0, GANQ__PANEL * sizeof *part);
    }
}

static inline void transpose8(const float *from, float *to) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(from + GANQ__PANEL * i);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + GANQ__PANEL * i, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + GANQ__PANEL * (i + 4), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

/* a += U U^T for one panel: rows [h, h + 4) of a, columns [8 from, 8 to). v[j][s] = U[s][j]. */
static inline __attribute__((always_inline)) void gram_rows(const float *v, int h, int from, int to,
                                                            float *a) {
    __m256 sum[4][2];
    for (int i = 0; i < 4; i++)
        for (int c = from; c < to; c++)
            sum[i][c] = _mm256_loadu_ps(a + GANQ__LEVELS * (h + i) + 8 * c);
    for (int j = 0; j < GANQ__PANEL; j++) {
        __m256 column[2];
        for (int c = from; c < to; c++)
            column[c] = _mm256_loadu_ps(v + GANQ__PANEL * j + 8 * c);
        for (int i = 0; i < 4; i++) {
            const __m256 x = _mm256_broadcast_ss(v + GANQ__PANEL * j + h + i);
            for (int c = from; c < to; c++)
                sum[i][c] = _mm256_fmadd_ps(x, column[c], sum[i][c]);
        }
    }
    for (int i = 0; i < 4; i++)
        for (int c = from; c < to; c++)
            _mm256_storeu_ps(a + GANQ__LEVELS * (h + i) + 8 * c, sum[i][c]);
}

static void gram(const ganq__panels *factor, int levels, int64_t trials, const uint8_t *codes,
                 const float *r, float *grams, float *slopes) {
    const int64_t K = factor->K, ld = factor->ld;
    memset(grams, 0, (size_t)trials * GANQ__LEVELS * GANQ__LEVELS * sizeof *grams);
    if (r)
        memset(slopes, 0, (size_t)trials * GANQ__LEVELS * sizeof *slopes);
    const int wide = levels > 8;
    for (int64_t p = 0; p < ld / GANQ__PANEL; p++) {
        const int64_t begin = GANQ__PANEL * p;
        const float *panel = factor->data + ganq__panel_origin(factor, p);
        for (int64_t i = 0; i < trials; i++) {
            float u[BINS * GANQ__PANEL] __attribute__((aligned(64)));
            float v[GANQ__LEVELS * GANQ__PANEL];
            sum_by_code(panel, levels, codes + i * ld, begin, K, u);
            float *a = grams + i * GANQ__LEVELS * GANQ__LEVELS;
            transpose8(u, v);
            transpose8(u + 8, v + 8 * GANQ__PANEL);
            if (wide) {
                transpose8(u + 8 * GANQ__PANEL, v + 8);
                transpose8(u + 8 * GANQ__PANEL + 8, v + 8 * GANQ__PANEL + 8);
                gram_rows(v, 0, 0, 2, a);
                gram_rows(v, 4, 0, 2, a);
                gram_rows(v, 8, 1, 2, a);
                gram_rows(v, 12, 1, 2, a);
            } else {
                gram_rows(v, 0, 0, 1, a);
                if (levels > 4)
                    gram_rows(v, 4, 0, 1, a);
            }
            if (r) {
                float *slope = slopes + i * GANQ__LEVELS;
                const float *ri = r + i * ld + begin;
                __m256 s0 = _mm256_loadu_ps(slope), s1 = _mm256_loadu_ps(slope + 8);
                for (int j = 0; j < GANQ__PANEL; j++) {
                    const __m256 x = _mm256_broadcast_ss(ri + j);
                    s0 = _mm256_fmadd_ps(x, _mm256_loadu_ps(v + GANQ__PANEL * j), s0);
                    if (wide)
                        s1 = _mm256_fmadd_ps(x, _mm256_loadu_ps(v + GANQ__PANEL * j + 8), s1);
                }
                _mm256_storeu_ps(slope, s0);
                _mm256_storeu_ps(slope + 8, s1);
            }
        }
    }
    for (int64_t i = 0; i < trials && wide; i++) { /* rows 8.. have their right half only */
        float *a = grams + i * GANQ__LEVELS * GANQ__LEVELS;
        for (int s = 8; s < GANQ__LEVELS; s++)
            for (int t = 0; t < 8; t++)
                a[GANQ__LEVELS * s + t] = a[GANQ__LEVELS * t + s];
    }
}

static void product(const ganq__panels *hessian, int64_t trials, const float *e, float *g) {
    const int64_t K = hessian->K, ld = hessian->ld;
    for (int64_t p = 0; p < ld / GANQ__PANEL; p++) {
        for (int64_t i = 0; i < trials; i++)
            memset(g + i * ld + GANQ__PANEL * p, 0, GANQ__PANEL * sizeof *g);
        panel_product(hessian->data + ganq__panel_origin(hessian, p), K, trials, e,
                      g + GANQ__PANEL * p, ld);
    }
}

/* A change of code in the block of columns at hand. */
typedef struct code_change {
    float step; /* of e */
    int32_t column;
} code_change;

/* Entries of a 16-entry table for eight codes. */
static inline __m256 lookup(__m256 low, __m256 high, __m256i codes) {
    const __m256 a = _mm256_permutevar8x32_ps(low, codes),
                 b = _mm256_permutevar8x32_ps(high, codes);
    return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}

/* The table of one trial in registers: value and the interval in which an entry stays the nearest.
 */
typedef struct trial_lookup {
    __m256 value[2], below[2], above[2];
} trial_lookup;
static inline trial_lookup load_lookup(const ganq__trial_table *table) {
    float below[GANQ__LEVELS];
    below[0] = -INFINITY;
    memcpy(below + 1, table->middle, (GANQ__LEVELS - 1) * sizeof *below);
    trial_lookup t;
    for (int i = 0; i < 2; i++) {
        t.value[i] = _mm256_loadu_ps(table->value + 8 * i);
        t.above[i] = _mm256_loadu_ps(table->middle + 8 * i);
        t.below[i] = _mm256_loadu_ps(below + 8 * i);
    }
    return t;
}

/* Which of eight columns want another code. */
static inline unsigned movers(const trial_lookup *t, const uint8_t *codes, const float *g,
                              const float *inverse) {
    const __m256i q = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)codes));
    const __m256 x = _mm256_add_ps(lookup(t->value[0], t->value[1], q),
                                   _mm256_mul_ps(_mm256_loadu_ps(g), _mm256_loadu_ps(inverse)));
    const __m256 up = _mm256_cmp_ps(x, lookup(t->above[0], t->above[1], q), _CMP_GT_OQ);
    const __m256 down = _mm256_cmp_ps(x, lookup(t->below[0], t->below[1], q), _CMP_LE_OQ);
    const __m256i exact = _mm256_cmpgt_epi32(q, _mm256_set1_epi32(GANQ__LEVELS - 1));
    return (unsigned)_mm256_movemask_ps(
        _mm256_andnot_ps(_mm256_castsi256_ps(exact), _mm256_or_ps(up, down)));
}

/* Descent over columns [from, to) of one trial; changes go to the g of these columns at once, and
 * to `changes`. */
static int sweep_block(const ganq__panels *hessian, const float *diagonal, const float *inverse,
                       int64_t from, int64_t to, const float *w, const ganq__trial_table *table,
                       uint8_t *codes, float *e, float *g, double *change, code_change *changes) {
    const trial_lookup t = load_lookup(table);
    const int64_t panel_begin = from / GANQ__PANEL;
    const int64_t panel_end = (to + GANQ__PANEL - 1) / GANQ__PANEL;
    int count = 0;
    for (int64_t k8 = from; k8 < to; k8 += 8) {
        unsigned open = to - k8 < 8 ? (1u << (to - k8)) - 1 : 0xffu;
        for (;;) {
            const unsigned wanting = movers(&t, codes + k8, g + k8, inverse + k8) & open;
            if (!wanting)
                break;
            const int bit = __builtin_ctz(wanting);
            const int64_t k = k8 + bit;
            open &= ~1u << bit; /* columns after this one */
            const int old = codes[k];
            const int new = nearest(table, table->value[old] + g[k] * inverse[k]);
            const float step = table->value[old] - table->value[new];
            const double gain = (double)step * (2.0 * g[k] + (double)step * diagonal[k]);
            if (!(gain < 0))
                continue;
            *change += gain;
            codes[k] = (uint8_t) new;
            e[k] = w[k] - table->value[new];
            changes[count++] = (code_change){step, (int32_t)k};
            const __m256 v = _mm256_set1_ps(step);
            for (int64_t p = panel_begin; p < panel_end; p++) {
                const float *row = hessian->data + ganq__panel_origin(hessian, p) + GANQ__PANEL * k;
                float *gp = g + GANQ__PANEL * p;
                _mm256_storeu_ps(gp, _mm256_fmadd_ps(v, _mm256_loadu_ps(row), _mm256_loadu_ps(gp)));
                _mm256_storeu_ps(
                    gp + 8, _mm256_fmadd_ps(v, _mm256_loadu_ps(row + 8), _mm256_loadu_ps(gp + 8)));
            }
        }
    }
    return count;
}

/* Applies a block's changes to one panel of g outside of it. */
static inline void apply_changes(const float *panel, const code_change *changes, int count,
                                 float *g) {
    __m256 a0 = _mm256_loadu_ps(g), a1 = _mm256_loadu_ps(g + 8);
    for (int i = 0; i < count; i++) {
        const float *row = panel + GANQ__PANEL * changes[i].column;
        const __m256 v = _mm256_broadcast_ss(&changes[i].step);
        a0 = _mm256_fmadd_ps(v, _mm256_loadu_ps(row), a0);
        a1 = _mm256_fmadd_ps(v, _mm256_loadu_ps(row + 8), a1);
    }
    _mm256_storeu_ps(g, a0);
    _mm256_storeu_ps(g + 8, a1);
}

static void sweep_group(const ganq__panels *hessian, const float *diagonal, const float *inverse,
                        int64_t trials, const float *w, const ganq__trial_table *tables,
                        uint8_t *codes, float *e, float *g, double *change, int64_t *moves) {
    const int64_t K = hessian->K, ld = hessian->ld;
    code_change changes[GROUP][CHUNK];
    int counts[GROUP];
    memset(moves, 0, (size_t)trials * sizeof *moves);
    for (int64_t from = 0; from < K; from += CHUNK) {
        const int64_t to = from + CHUNK < K ? from + CHUNK : K;
        for (int64_t i = 0; i < trials; i++) {
            counts[i] = sweep_block(hessian, diagonal, inverse, from, to, w + i * ld, &tables[i],
                                    codes + i * ld, e + i * ld, g + i * ld, &change[i], changes[i]);
            moves[i] += counts[i];
        }
        for (int64_t p = 0; p < ld / GANQ__PANEL; p++) {
            if (p >= from / GANQ__PANEL && GANQ__PANEL * p < to)
                continue;
            const float *panel = hessian->data + ganq__panel_origin(hessian, p);
            for (int64_t i = 0; i < trials; i++)
                if (counts[i] > 0)
                    apply_changes(panel, changes[i], counts[i], g + i * ld + GANQ__PANEL * p);
        }
    }
}

static void sweep(const ganq__panels *hessian, const float *diagonal, const float *inverse,
                  int64_t trials, const float *w, const ganq__trial_table *tables, uint8_t *codes,
                  float *e, float *g, double *change, int64_t *moves) {
    const int64_t ld = hessian->ld;
    for (int64_t i = 0; i < trials; i += GROUP)
        sweep_group(hessian, diagonal, inverse, trials - i < GROUP ? trials - i : GROUP, w + i * ld,
                    tables + i, codes + i * ld, e + i * ld, g + i * ld, change + i, moves + i);
}

/* total[rows][4 lanes] += sum_j e_j sum_u e_u H[u, j] over the 16 columns j of a panel. */
static inline __attribute__((always_inline)) void energy_rows(int rows, const float *panel,
                                                              int64_t K, const double *e,
                                                              const double *own, int64_t ld,
                                                              __m256d *total) {
    __m256d a[3][4];
    for (int i = 0; i < rows; i++)
        for (int c = 0; c < 4; c++)
            a[i][c] = _mm256_setzero_pd();
    for (int64_t u = 0; u < K; u++) {
        __m256d b[4];
        for (int c = 0; c < 4; c++)
            b[c] = _mm256_cvtps_pd(_mm_loadu_ps(panel + GANQ__PANEL * u + 4 * c));
        for (int i = 0; i < rows; i++) {
            const __m256d x = _mm256_broadcast_sd(e + i * ld + u);
            for (int c = 0; c < 4; c++)
                a[i][c] = _mm256_fmadd_pd(x, b[c], a[i][c]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int c = 0; c < 4; c++)
            total[i] = _mm256_fmadd_pd(_mm256_loadu_pd(own + i * ld + 4 * c), a[i][c], total[i]);
}

static double add_lanes(__m256d x) {
    double lanes[4];
    _mm256_storeu_pd(lanes, x);
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

static void energy(const ganq__panels *hessian, int64_t trials, const double *e, double *energies) {
    const int64_t K = hessian->K, ld = hessian->ld;
    __m256d totals[GROUP];
    for (int64_t first = 0; first < trials; first += GROUP) {
        const int64_t count = trials - first < GROUP ? trials - first : GROUP;
        const double *rows = e + first * ld;
        for (int64_t i = 0; i < count; i++)
            totals[i] = _mm256_setzero_pd();
        for (int64_t p = 0; p < ld / GANQ__PANEL; p++) {
            const float *panel = hessian->data + ganq__panel_origin(hessian, p);
            const double *own = rows + GANQ__PANEL * p;
            int64_t i = 0;
            for (; i + 3 <= count; i += 3)
                energy_rows(3, panel, K, rows + i * ld, own + i * ld, ld, totals + i);
            for (; i < count; i++)
                energy_rows(1, panel, K, rows + i * ld, own + i * ld, ld, totals + i);
        }
        for (int64_t i = 0; i < count; i++)
            energies[first + i] = add_lanes(totals[i]);
    }
}

static inline __attribute__((always_inline)) void downdate_rows(int rows, int64_t depth,
                                                                const double *a, int64_t lda,
                                                                const double *b, double *c,
                                                                int64_t ldc) {
    __m256d sum[6][2];
    for (int i = 0; i < rows; i++) {
        sum[i][0] = _mm256_loadu_pd(c + i * ldc);
        sum[i][1] = _mm256_loadu_pd(c + i * ldc + 4);
    }
    for (int64_t k = 0; k < depth; k++) {
        const __m256d b0 = _mm256_loadu_pd(b + 8 * k), b1 = _mm256_loadu_pd(b + 8 * k + 4);
        for (int i = 0; i < rows; i++) {
            const __m256d x = _mm256_broadcast_sd(a + i * lda + k);
            sum[i][0] = _mm256_fnmadd_pd(x, b0, sum[i][0]);
            sum[i][1] = _mm256_fnmadd_pd(x, b1, sum[i][1]);
        }
    }
    for (int i = 0; i < rows; i++) {
        _mm256_storeu_pd(c + i * ldc, sum[i][0]);
        _mm256_storeu_pd(c + i * ldc + 4, sum[i][1]);
    }
}

static void downdate(int64_t rows, int64_t depth, const double *a, int64_t lda, const double *b,
                     double *c, int64_t ldc) {
    for (int64_t k = 0; k < depth; k += CHUNK) {
        const int64_t part = depth - k < CHUNK ? depth - k : CHUNK;
        int64_t i = 0;
        for (; i + 6 <= rows; i += 6)
            downdate_rows(6, part, a + i * lda + k, lda, b + 8 * k, c + i * ldc, ldc);
        for (; i < rows; i++)
            downdate_rows(1, part, a + i * lda + k, lda, b + 8 * k, c + i * ldc, ldc);
    }
}

const ganq__solver_ops ganq__solver_ops_avx2 = {
    .assign = assign,
    .gram = gram,
    .product = product,
    .sweep = sweep,
    .energy = energy,
    .downdate = downdate,
};
