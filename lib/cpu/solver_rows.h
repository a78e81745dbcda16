/* solver_rows.h - the solver's inner loops for vectors, written over one row of a panel, 16 floats.
 * The file that includes it has an instruction set's flags and says what lies in registers:
 *
 *   row, row_*      16 floats: load, store, add, zero, and fma with one broadcast float
 *   wide, wide_*    16 doubles: load, store, fma, and a row times a float as doubles
 *   strip, strip_*  8 doubles: load, store, sum - x a
 *   TILE, HALF      trials whose sums are in registers together, and a smaller number for the rest
 *   WIDE_TILE, STRIP_TILE  the same for doubles
 *   nearest, load_lookup, movers (LANES columns), gram_panel
 *
 * Cache     A panel is worked through in chunks of 256 rows (16 KiB, half of the first-level
 *           cache), each for all trials of a group before the next: a chunk comes from memory once
 *           per group. Vectors of trials are packed tile by tile, [k][trial], so that the products
 *           read them in one run.
 * Products  sum[trial][16] += e[trial][u] M[u][16]: TILE broadcasts per row of the panel. Every sum
 *           runs over u in order, whichever trials share the registers: a trial's bits do not
 *           depend on its batch.
 * S-step    Inside a panel, column by column, all trials of the group for one column before the
 *           next, so that the chain search -> residual -> update of one trial hides behind the
 *           others.
 * Tables    U = S L: the rows of a chunk are sorted by code once, four rows of a code are added in
 *           registers and then to its bin: five loads and a store for four rows, no branch that
 *           depends on codes. Bound by the loads of the first-level cache.
 * Descent   256 columns at a time; what changed there is applied to the other columns afterwards,
 *           all changes of a trial per load of g. Columns that keep their code cost a few
 *           instructions per vector. */
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "solver_ops.h"

#define INLINE static inline __attribute__((always_inline))

enum { PANEL = GANQ__PANEL, CHUNK = 256, GROUP = 96 };

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ---- products ---- */

/* Trials of the tile that begins where `left` trials are left. */
INLINE int tile_width(int64_t left) {
    return left >= TILE ? TILE : left >= HALF ? HALF : 1;
}

/* Vectors v [trials, ld], columns [from, to), to tiles: packed[i ld + width k + trial of the tile]
 * for the tile that begins at trial i. */
static void pack(int64_t trials, const float *v, int64_t ld, int64_t from, int64_t to,
                 float *packed) {
    for (int64_t i = 0, width; i < trials; i += width) {
        width = tile_width(trials - i);
        float *tile = packed + i * ld;
        for (int64_t j = 0; j < width; j++)
            for (int64_t k = from; k < to; k++)
                tile[width * k + j] = v[(i + j) * ld + k];
    }
}

/* sum[width][16] += e[count][width]^T panel[count][16] */
INLINE void multiply_tile(const int width, const float *panel, int64_t count, const float *e,
                          float (*sum)[PANEL]) {
    row a[TILE];
#pragma GCC unroll 32
    for (int i = 0; i < width; i++)
        a[i] = row_load(sum[i]);
    for (int64_t u = 0; u < count; u++) {
        const row b = row_load(panel + PANEL * u);
#pragma GCC unroll 32
        for (int i = 0; i < width; i++)
            a[i] = row_fma(e[width * u + i], b, a[i]);
    }
#pragma GCC unroll 32
    for (int i = 0; i < width; i++)
        row_store(sum[i], a[i]);
}

/* sum[trials][16] = rows [from, to) of the panel times these columns of the packed vectors. */
static void multiply_panel(const float *panel, int64_t from, int64_t to, int64_t trials,
                           const float *packed, int64_t ld, float (*sum)[PANEL]) {
    memset(sum, 0, (size_t)trials * sizeof *sum);
    for (int64_t u = from; u < to; u += CHUNK) {
        const int64_t count = smaller(CHUNK, to - u);
        const float *rows = panel + PANEL * u;
        int64_t i = 0;
        for (; i + TILE <= trials; i += TILE)
            multiply_tile(TILE, rows, count, packed + i * ld + TILE * u, sum + i);
        for (; i + HALF <= trials; i += HALF)
            multiply_tile(HALF, rows, count, packed + i * ld + HALF * u, sum + i);
        for (; i < trials; i++)
            multiply_tile(1, rows, count, packed + i * ld + u, sum + i);
    }
}

static void product_group(const ganq__panels *m, int64_t trials, const float *e, float *g,
                          float *packed) {
    const int64_t K = m->K, ld = m->ld;
    float sum[GROUP][PANEL] __attribute__((aligned(64)));
    pack(trials, e, ld, 0, K, packed);
    for (int64_t p = 0; p < ld / PANEL; p++) {
        const int64_t from = m->triangular ? smaller(PANEL * p, K) : 0;
        multiply_panel(m->data + ganq__panel_origin(m, p), from, K, trials, packed, ld, sum);
        for (int64_t i = 0; i < trials; i++)
            memcpy(g + i * ld + PANEL * p, sum[i], sizeof sum[i]);
    }
}

static void product(const ganq__panels *m, int64_t trials, const float *e, float *g,
                    void *scratch) {
    for (int64_t i = 0; i < trials; i += GROUP)
        product_group(m, smaller(GROUP, trials - i), e + i * m->ld, g + i * m->ld, scratch);
}

/* ---- S-step ---- */

/* The columns of one panel, for all trials of a group, compact: strides of ld would all fall into
 * the same few sets of the cache. */
typedef struct assign_panel {
    float w[GROUP][PANEL], e[GROUP][PANEL], c[GROUP][PANEL];
    uint8_t codes[GROUP][PANEL];
} __attribute__((aligned(64))) assign_panel;

/* Columns [0, width) of the panel from the last to the first; rows: the panel's square on the
 * diagonal. */
static void search_panel(assign_panel *a, int64_t trials, int width, const float *rows,
                         const float *inverse, const ganq__trial_table *tables) {
    for (int k = width - 1; k >= 0; k--) {
        const row factor = row_load(rows + PANEL * k);
        for (int64_t i = 0; i < trials; i++) {
            const float x = a->w[i][k], wanted = a->c[i][k] * inverse[k];
            float left;
            if (ganq__has_code(a->codes[i][k])) {
                const int s = nearest(&tables[i], x + wanted);
                left = x - tables[i].value[s];
                a->codes[i][k] = (uint8_t)s;
            } else {
                left = a->codes[i][k] == GANQ__FREE ? -wanted : 0;
            }
            a->e[i][k] = left;
            row_store(a->c[i], row_fma(left, factor, row_load(a->c[i])));
        }
    }
}

static void assign_group(const ganq__panels *factor, const float *inverse, int64_t trials,
                         const float *w, const ganq__trial_table *tables, uint8_t *codes, float *e,
                         float *r, float *packed) {
    const int64_t K = factor->K, ld = factor->ld;
    assign_panel a;
    for (int64_t p = (K - 1) / PANEL; p >= 0; p--) {
        const int64_t begin = PANEL * p, end = smaller(begin + PANEL, K);
        const size_t width = (size_t)(end - begin);
        const float *panel = factor->data + ganq__panel_origin(factor, p);
        for (int64_t i = 0; i < trials; i++) {
            memcpy(a.w[i], w + i * ld + begin, sizeof a.w[i]);
            memcpy(a.codes[i], codes + i * ld + begin, sizeof a.codes[i]);
        }
        multiply_panel(panel, end, K, trials, packed, ld, a.c);
        search_panel(&a, trials, (int)width, panel + PANEL * begin, inverse + begin, tables);
        for (int64_t i = 0; i < trials; i++) {
            memcpy(e + i * ld + begin, a.e[i], width * sizeof(float));
            memcpy(r + i * ld + begin, a.c[i], width * sizeof(float));
            memcpy(codes + i * ld + begin, a.codes[i], width);
        }
        pack(trials, e, ld, begin, end, packed);
    }
}

static void assign(const ganq__panels *factor, const float *inverse, int64_t trials, const float *w,
                   const ganq__trial_table *tables, uint8_t *codes, float *e, float *r,
                   void *scratch) {
    const int64_t ld = factor->ld;
    for (int64_t i = 0; i < trials; i += GROUP)
        assign_group(factor, inverse, smaller(GROUP, trials - i), w + i * ld, tables + i,
                     codes + i * ld, e + i * ld, r + i * ld, scratch);
}

/* ---- tables ---- */

enum {
    LEVELS = GANQ__LEVELS,
    SORT = 4,                          /* rows that are added before they go to a bin */
    OFFSETS = CHUNK + LEVELS * (SORT - 1), /* rows of a chunk, those of each code filled up to SORT */
    ZERO_ROW = CHUNK                   /* what they are filled up with */
};

/* The rows of a chunk by code. */
typedef struct sorted_rows {
    uint16_t offset[OFFSETS + SORT]; /* in bytes from the chunk's first row */
    uint8_t code[OFFSETS / SORT + 16]; /* of each SORT rows; the last 16 are written, not read */
    int32_t groups;
} __attribute__((aligned(64))) sorted_rows;

/* Columns without a code, 31 in its low five bits, are in no group. */
static void sort_rows(int levels, const uint8_t *codes, int64_t count, sorted_rows *sorted) {
    int place[32] = {0}, at = 0;
    for (int64_t k = 0; k < count; k++)
        place[codes[k] & 31]++;
    for (int s = 0; s < levels; s++) {
        const int rows = place[s], groups = (rows + SORT - 1) / SORT;
        for (int g = 0; g < groups; g += 16)
            memset(sorted->code + at / SORT + g, s, 16);
        for (int i = 0; i < SORT; i++) /* those that rows take are written again below */
            sorted->offset[at + rows + i] = ZERO_ROW * PANEL * sizeof(float);
        place[s] = at;
        at += SORT * groups;
    }
    sorted->groups = at / SORT;
    for (int64_t k = 0; k < count; k++)
        if (codes[k] < LEVELS)
            sorted->offset[place[codes[k]]++] = (uint16_t)(k * PANEL * (int64_t)sizeof(float));
}

/* bins[code][16] += the rows of that code. */
INLINE void add_sorted(const float *chunk, const sorted_rows *sorted, float *bins) {
    const char *base = (const char *)chunk;
    const uint16_t *offset = sorted->offset;
    for (int g = 0; g < sorted->groups; g++, offset += SORT) {
        float *bin = bins + PANEL * sorted->code[g];
        const row a = row_add(row_load((const float *)(base + offset[0])),
                              row_load((const float *)(base + offset[1])));
        const row b = row_add(row_load((const float *)(base + offset[2])),
                              row_load((const float *)(base + offset[3])));
        row_store(bin, row_add(row_load(bin), row_add(a, b)));
    }
}

/* Rows per chunk: with few columns the part of a chunk above the diagonal counts. */
static int64_t chunk_rows(int64_t K) {
    return K <= 1024 ? CHUNK / 2 : CHUNK;
}

/* Working memory of a group: bins of each trial, then the sorted rows [chunk][trial]. */
static void gram_group(const ganq__panels *factor, int levels, int64_t trials, const uint8_t *codes,
                       const float *r, float *grams, float *slopes, void *scratch) {
    const int64_t K = factor->K, ld = factor->ld, rows = chunk_rows(K);
    float chunk[(CHUNK + 1) * PANEL] __attribute__((aligned(64)));
    float(*bins)[LEVELS * PANEL] = scratch;
    sorted_rows *sorted = (sorted_rows *)(bins + trials);
    memset(chunk + PANEL * ZERO_ROW, 0, PANEL * sizeof *chunk);
    for (int64_t c = 0; c * rows < K; c++)
        for (int64_t i = 0; i < trials; i++)
            sort_rows(levels, codes + i * ld + c * rows, smaller(rows, K - c * rows),
                      &sorted[c * trials + i]);
    for (int64_t p = 0; p < (K + PANEL - 1) / PANEL; p++) {
        const float *panel = factor->data + ganq__panel_origin(factor, p);
        memset(bins, 0, (size_t)trials * sizeof *bins);
        for (int64_t c = PANEL * p / rows; c * rows < K; c++) {
            const int64_t end = smaller(K, (c + 1) * rows);
            int64_t from = c * rows;
            for (; from < PANEL * p; from++) /* above the diagonal */
                row_store(chunk + PANEL * (from - c * rows), row_zero());
            memcpy(chunk + PANEL * (from - c * rows), panel + PANEL * from,
                   (size_t)(end - from) * PANEL * sizeof *chunk);
            for (int64_t i = 0; i < trials; i++)
                add_sorted(chunk, &sorted[c * trials + i], bins[i]);
        }
        for (int64_t i = 0; i < trials; i++)
            gram_panel(levels, bins[i], r ? r + i * ld + PANEL * p : NULL,
                       grams + i * LEVELS * LEVELS, slopes + (r ? i * LEVELS : 0));
    }
}

static void gram(const ganq__panels *factor, int levels, int64_t trials, const uint8_t *codes,
                 const float *r, float *grams, float *slopes, void *scratch) {
    const int64_t ld = factor->ld;
    memset(grams, 0, (size_t)trials * LEVELS * LEVELS * sizeof *grams);
    if (r)
        memset(slopes, 0, (size_t)trials * LEVELS * sizeof *slopes);
    for (int64_t i = 0; i < trials; i += GROUP)
        gram_group(factor, levels, smaller(GROUP, trials - i), codes + i * ld,
                   r ? r + i * ld : NULL, grams + i * LEVELS * LEVELS,
                   r ? slopes + i * LEVELS : NULL, scratch);
    for (int64_t i = 0; i < trials; i++) { /* gram_panel fills the upper half */
        float *a = grams + i * LEVELS * LEVELS;
        for (int s = 0; s < LEVELS; s++)
            for (int t = 0; t < s; t++)
                a[LEVELS * s + t] = a[LEVELS * t + s];
    }
}

/* ---- descent ---- */

/* A change of code in the block of columns at hand. */
typedef struct code_change {
    float step; /* of e */
    int32_t column;
} code_change;

/* g += step times row k of H, panels [begin, end) */
INLINE void apply_change(const ganq__panels *hessian, int64_t begin, int64_t end, int64_t k,
                         float step, float *g) {
    for (int64_t p = begin; p < end; p++) {
        const float *rows = hessian->data + ganq__panel_origin(hessian, p);
        float *gp = g + PANEL * p;
        row_store(gp, row_fma(step, row_load(rows + PANEL * k), row_load(gp)));
    }
}

/* Descent over columns [from, to) of one trial; changes go to the g of these columns at once, and
 * to `changes`. */
static int sweep_block(const ganq__panels *hessian, const float *diagonal, const float *inverse,
                       int64_t from, int64_t to, const float *w, const ganq__trial_table *table,
                       uint8_t *codes, float *e, float *g, double *change, code_change *changes) {
    const table_lookup lookup = load_lookup(table);
    const int64_t begin = from / PANEL, end = (to + PANEL - 1) / PANEL;
    int count = 0;
    for (int64_t first = from; first < to; first += LANES) {
        unsigned open = (unsigned)((1ull << smaller(LANES, to - first)) - 1);
        for (;;) {
            const unsigned wanting =
                movers(&lookup, codes + first, g + first, inverse + first) & open;
            if (!wanting)
                break;
            const int bit = __builtin_ctz(wanting);
            const int64_t k = first + bit;
            open &= (unsigned)(~1ull << bit); /* columns after this one */
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
            apply_change(hessian, begin, end, k, step, g);
        }
    }
    return count;
}

/* A block's changes of one trial to one panel of g outside of it. */
INLINE void apply_changes(const float *panel, const code_change *changes, int count, float *g) {
    row a = row_load(g);
    for (int i = 0; i < count; i++)
        a = row_fma(changes[i].step, row_load(panel + PANEL * changes[i].column), a);
    row_store(g, a);
}

static void sweep_group(const ganq__panels *hessian, const float *diagonal, const float *inverse,
                        int64_t trials, const float *w, const ganq__trial_table *tables,
                        uint8_t *codes, float *e, float *g, double *change, int64_t *moves) {
    const int64_t K = hessian->K, ld = hessian->ld;
    code_change changes[GROUP][CHUNK];
    int counts[GROUP];
    memset(moves, 0, (size_t)trials * sizeof *moves);
    for (int64_t from = 0; from < K; from += CHUNK) {
        const int64_t to = smaller(from + CHUNK, K);
        for (int64_t i = 0; i < trials; i++) {
            counts[i] = sweep_block(hessian, diagonal, inverse, from, to, w + i * ld, &tables[i],
                                    codes + i * ld, e + i * ld, g + i * ld, &change[i], changes[i]);
            moves[i] += counts[i];
        }
        for (int64_t p = 0; p < ld / PANEL; p++) {
            if (p >= from / PANEL && PANEL * p < to)
                continue;
            const float *panel = hessian->data + ganq__panel_origin(hessian, p);
            for (int64_t i = 0; i < trials; i++)
                if (counts[i] > 0)
                    apply_changes(panel, changes[i], counts[i], g + i * ld + PANEL * p);
        }
    }
}

static void sweep(const ganq__panels *hessian, const float *diagonal, const float *inverse,
                  int64_t trials, const float *w, const ganq__trial_table *tables, uint8_t *codes,
                  float *e, float *g, double *change, int64_t *moves) {
    const int64_t ld = hessian->ld;
    for (int64_t i = 0; i < trials; i += GROUP)
        sweep_group(hessian, diagonal, inverse, smaller(GROUP, trials - i), w + i * ld, tables + i,
                    codes + i * ld, e + i * ld, g + i * ld, change + i, moves + i);
}

/* ---- float64 ---- */

enum { WIDE_CHUNK = 128 }; /* rows of a panel, as doubles, in half of the first-level cache */

/* As pack, in tiles of WIDE_TILE and 1. */
static void pack_wide(int64_t trials, const double *v, int64_t ld, int64_t K, double *packed) {
    for (int64_t i = 0, width; i < trials; i += width) {
        width = trials - i >= WIDE_TILE ? WIDE_TILE : 1;
        for (int64_t j = 0; j < width; j++)
            for (int64_t k = 0; k < K; k++)
                packed[i * ld + width * k + j] = v[(i + j) * ld + k];
    }
}

INLINE void multiply_wide(const int width, const double *rows, int64_t count, const double *e,
                          double (*sum)[PANEL]) {
    wide a[WIDE_TILE];
#pragma GCC unroll 16
    for (int i = 0; i < width; i++)
        a[i] = wide_load(sum[i]);
    for (int64_t u = 0; u < count; u++) {
        const wide b = wide_load(rows + PANEL * u);
#pragma GCC unroll 16
        for (int i = 0; i < width; i++)
            a[i] = wide_fma(e[width * u + i], b, a[i]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < width; i++)
        wide_store(sum[i], a[i]);
}

/* H is symmetric: what is below a panel's square on the diagonal counts twice, so the square is
 * halved. */
static void energy_group(const ganq__panels *hessian, int64_t trials, const double *e,
                         double *energies, double *packed) {
    const int64_t K = hessian->K, ld = hessian->ld;
    double sum[GROUP][PANEL] __attribute__((aligned(64)));
    double rows[WIDE_CHUNK * PANEL] __attribute__((aligned(64)));
    pack_wide(trials, e, ld, K, packed);
    for (int64_t i = 0; i < trials; i++)
        energies[i] = 0;
    for (int64_t p = 0; p < (K + PANEL - 1) / PANEL; p++) {
        const float *panel = hessian->data + ganq__panel_origin(hessian, p);
        memset(sum, 0, (size_t)trials * sizeof *sum);
        for (int64_t from = PANEL * p; from < K; from += WIDE_CHUNK) {
            const int64_t count = smaller(WIDE_CHUNK, K - from);
            for (int64_t u = 0; u < count; u++)
                wide_store(rows + PANEL * u,
                           wide_of_row(from + u < PANEL * (p + 1) ? 0.5f : 1,
                                       panel + PANEL * (from + u)));
            int64_t i = 0;
            for (; i + WIDE_TILE <= trials; i += WIDE_TILE)
                multiply_wide(WIDE_TILE, rows, count, packed + i * ld + WIDE_TILE * from, sum + i);
            for (; i < trials; i++)
                multiply_wide(1, rows, count, packed + i * ld + from, sum + i);
        }
        for (int64_t i = 0; i < trials; i++)
            for (int64_t j = 0; j < PANEL; j++)
                energies[i] += 2 * e[i * ld + PANEL * p + j] * sum[i][j];
    }
}

static void energy(const ganq__panels *hessian, int64_t trials, const double *e, double *energies,
                   void *scratch) {
    for (int64_t i = 0; i < trials; i += GROUP)
        energy_group(hessian, smaller(GROUP, trials - i), e + i * hessian->ld, energies + i,
                     scratch);
}

/* c[width rows][8] -= a[width rows][count] b[count][8] */
INLINE void downdate_tile(const int width, int64_t count, const double *a, int64_t lda,
                          const double *b, double *c, int64_t ldc) {
    strip sum[STRIP_TILE];
#pragma GCC unroll 16
    for (int i = 0; i < width; i++)
        sum[i] = strip_load(c + i * ldc);
    for (int64_t k = 0; k < count; k++) {
        const strip x = strip_load(b + 8 * k);
#pragma GCC unroll 16
        for (int i = 0; i < width; i++)
            sum[i] = strip_minus(a[i * lda + k], x, sum[i]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < width; i++)
        strip_store(c + i * ldc, sum[i]);
}

static void downdate(int64_t rows, int64_t depth, const double *a, int64_t lda, const double *b,
                     double *c, int64_t ldc) {
    for (int64_t k = 0; k < depth; k += CHUNK) {
        const int64_t count = smaller(CHUNK, depth - k);
        int64_t i = 0;
        for (; i + STRIP_TILE <= rows; i += STRIP_TILE)
            downdate_tile(STRIP_TILE, count, a + i * lda + k, lda, b + 8 * k, c + i * ldc, ldc);
        for (; i < rows; i++)
            downdate_tile(1, count, a + i * lda + k, lda, b + 8 * k, c + i * ldc, ldc);
    }
}
