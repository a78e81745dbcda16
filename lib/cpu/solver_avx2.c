/* solver_avx2.c - the solver's inner loops (solver_rows.h) for AVX2 + FMA: a row of a panel is two
 * registers. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "solver_ops.h"

typedef struct row {
    __m256 v[2];
} row;
static inline row row_load(const float *p) {
    return (row){{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}};
}
static inline void row_store(float *p, row a) {
    _mm256_storeu_ps(p, a.v[0]);
    _mm256_storeu_ps(p + 8, a.v[1]);
}
static inline row row_zero(void) {
    return (row){{_mm256_setzero_ps(), _mm256_setzero_ps()}};
}
static inline row row_add(row a, row b) {
    return (row){{_mm256_add_ps(a.v[0], b.v[0]), _mm256_add_ps(a.v[1], b.v[1])}};
}
static inline row row_fma(float x, row a, row sum) {
    const __m256 v = _mm256_set1_ps(x);
    return (row){{_mm256_fmadd_ps(v, a.v[0], sum.v[0]), _mm256_fmadd_ps(v, a.v[1], sum.v[1])}};
}

typedef struct wide {
    __m256d v[4];
} wide;
static inline wide wide_load(const double *p) {
    return (wide){{_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8),
                   _mm256_loadu_pd(p + 12)}};
}
static inline void wide_store(double *p, wide a) {
    for (int i = 0; i < 4; i++)
        _mm256_storeu_pd(p + 4 * i, a.v[i]);
}
static inline wide wide_fma(double x, wide a, wide sum) {
    const __m256d v = _mm256_set1_pd(x);
    return (wide){{_mm256_fmadd_pd(v, a.v[0], sum.v[0]), _mm256_fmadd_pd(v, a.v[1], sum.v[1]),
                   _mm256_fmadd_pd(v, a.v[2], sum.v[2]), _mm256_fmadd_pd(v, a.v[3], sum.v[3])}};
}
static inline wide wide_of_row(float part, const float *p) {
    const __m128 v = _mm_set1_ps(part);
    return (wide){{_mm256_cvtps_pd(_mm_mul_ps(v, _mm_loadu_ps(p))),
                   _mm256_cvtps_pd(_mm_mul_ps(v, _mm_loadu_ps(p + 4))),
                   _mm256_cvtps_pd(_mm_mul_ps(v, _mm_loadu_ps(p + 8))),
                   _mm256_cvtps_pd(_mm_mul_ps(v, _mm_loadu_ps(p + 12)))}};
}

typedef struct strip {
    __m256d v[2];
} strip;
static inline strip strip_load(const double *p) {
    return (strip){{_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}};
}
static inline void strip_store(double *p, strip a) {
    _mm256_storeu_pd(p, a.v[0]);
    _mm256_storeu_pd(p + 4, a.v[1]);
}
static inline strip strip_minus(double x, strip a, strip sum) {
    const __m256d v = _mm256_set1_pd(x);
    return (strip){
        {_mm256_fnmadd_pd(v, a.v[0], sum.v[0]), _mm256_fnmadd_pd(v, a.v[1], sum.v[1])}};
}

enum { TILE = 6, HALF = 2, WIDE_TILE = 3, STRIP_TILE = 6 };

static inline int nearest(const ganq__trial_table *table, float x) {
    const __m256 v = _mm256_set1_ps(x);
    const __m256 low = _mm256_cmp_ps(v, _mm256_loadu_ps(table->middle), _CMP_GT_OQ);
    const __m256 high = _mm256_cmp_ps(v, _mm256_loadu_ps(table->middle + 8), _CMP_GT_OQ);
    return __builtin_popcount((unsigned)_mm256_movemask_ps(low) | (unsigned)_mm256_movemask_ps(high)
                                                                      << 8);
}

/* A table, and the interval in which each entry stays the nearest. */
typedef struct table_lookup {
    __m256 value[2], below[2], above[2];
} table_lookup;
static inline table_lookup load_lookup(const ganq__trial_table *table) {
    float below[GANQ__LEVELS];
    below[0] = -INFINITY;
    memcpy(below + 1, table->middle, (GANQ__LEVELS - 1) * sizeof *below);
    table_lookup t;
    for (int i = 0; i < 2; i++) {
        t.value[i] = _mm256_loadu_ps(table->value + 8 * i);
        t.above[i] = _mm256_loadu_ps(table->middle + 8 * i);
        t.below[i] = _mm256_loadu_ps(below + 8 * i);
    }
    return t;
}

/* Entries of a 16-entry table for eight codes. */
static inline __m256 look_up(const __m256 table[2], __m256i codes) {
    const __m256 a = _mm256_permutevar8x32_ps(table[0], codes);
    const __m256 b = _mm256_permutevar8x32_ps(table[1], codes);
    return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}

/* Which of eight columns want another code. */
enum { LANES = 8 };
static inline unsigned movers(const table_lookup *t, const uint8_t *codes, const float *g,
                              const float *inverse) {
    const __m256i q = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)codes));
    const __m256 x = _mm256_add_ps(look_up(t->value, q),
                                   _mm256_mul_ps(_mm256_loadu_ps(g), _mm256_loadu_ps(inverse)));
    const __m256 up = _mm256_cmp_ps(x, look_up(t->above, q), _CMP_GT_OQ);
    const __m256 down = _mm256_cmp_ps(x, look_up(t->below, q), _CMP_LE_OQ);
    const __m256i exact = _mm256_cmpgt_epi32(q, _mm256_set1_epi32(GANQ__LEVELS - 1));
    return (unsigned)_mm256_movemask_ps(
        _mm256_andnot_ps(_mm256_castsi256_ps(exact), _mm256_or_ps(up, down)));
}

/* to[j][i] = from[i][j], 8 x 8 out of 16 x 16 */
static inline void transpose8(const float *from, float *to) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(from + 16 * i);
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
        _mm256_storeu_ps(to + 16 * i, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + 16 * (i + 4), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

/* Rows [h, h + 4) of gram, columns [8 from, 8 to). v[j][s] = U[s][j]. */
static inline __attribute__((always_inline)) void gram_rows(const float *v, int h, int from, int to,
                                                            float *gram) {
    __m256 sum[4][2];
    for (int i = 0; i < 4; i++)
        for (int c = from; c < to; c++)
            sum[i][c] = _mm256_loadu_ps(gram + 16 * (h + i) + 8 * c);
    for (int j = 0; j < 16; j++) {
        __m256 column[2];
        for (int c = from; c < to; c++)
            column[c] = _mm256_loadu_ps(v + 16 * j + 8 * c);
        for (int i = 0; i < 4; i++) {
            const __m256 x = _mm256_broadcast_ss(v + 16 * j + h + i);
            for (int c = from; c < to; c++)
                sum[i][c] = _mm256_fmadd_ps(x, column[c], sum[i][c]);
        }
    }
    for (int i = 0; i < 4; i++)
        for (int c = from; c < to; c++)
            _mm256_storeu_ps(gram + 16 * (h + i) + 8 * c, sum[i][c]);
}

/* gram += U U^T, upper half, and slope += U r^T for the 16 columns of a panel, U = bins. Of rows 8
 * on, only the right half is above the diagonal. */
static inline void gram_panel(int levels, const float *bins, const float *r, float *gram,
                              float *slope) {
    float v[16 * 16] __attribute__((aligned(64)));
    const int all = levels > 8;
    transpose8(bins, v);
    transpose8(bins + 8, v + 8 * 16);
    if (all) {
        transpose8(bins + 8 * 16, v + 8);
        transpose8(bins + 8 * 16 + 8, v + 8 * 16 + 8);
        gram_rows(v, 0, 0, 2, gram);
        gram_rows(v, 4, 0, 2, gram);
        gram_rows(v, 8, 1, 2, gram);
        gram_rows(v, 12, 1, 2, gram);
    } else {
        gram_rows(v, 0, 0, 1, gram);
        if (levels > 4)
            gram_rows(v, 4, 0, 1, gram);
    }
    if (r) {
        __m256 s0 = _mm256_loadu_ps(slope), s1 = _mm256_loadu_ps(slope + 8);
        for (int j = 0; j < 16; j++) {
            const __m256 x = _mm256_broadcast_ss(r + j);
            s0 = _mm256_fmadd_ps(x, _mm256_loadu_ps(v + 16 * j), s0);
            if (all)
                s1 = _mm256_fmadd_ps(x, _mm256_loadu_ps(v + 16 * j + 8), s1);
        }
        _mm256_storeu_ps(slope, s0);
        _mm256_storeu_ps(slope + 8, s1);
    }
}

#include "solver_rows.h"

const ganq__solver_ops ganq__solver_ops_avx2 = {
    .assign = assign,
    .gram = gram,
    .product = product,
    .sweep = sweep,
    .energy = energy,
    .downdate = downdate,
};
