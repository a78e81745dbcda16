/* dense_neon.c - the dense products' kernels for NEON (64-bit ARM); the frame is dense_blocked.c.
 *
 * Tile    6 rows x 16 columns of C in 24 registers; per k four loads of B, six of A, 24 FMAs.
 * Rows    For one row of X, W is transposed in registers on the way: lanes are rows of W, not
 *         values of k, so that a step gives the bits of the prefill. */
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "dense_blocked.h"
#include "dense_ops.h"
#include "dtype.h"

enum { TILE_ROWS = 6, TILE_COLS = 16, BLOCK_K = GANQ__DENSE_BLOCK_K };

#define INLINE static inline __attribute__((always_inline))

/* ---- f16 and bf16 ---- */

INLINE float32x4_t widen_low(uint16x8_t values, int32_t dtype) {
    if (dtype == GANQ_DTYPE_F16)
        return vcvt_f32_f16(vget_low_f16(vreinterpretq_f16_u16(values)));
    return vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(values), 16));
}
INLINE float32x4_t widen_high(uint16x8_t values, int32_t dtype) {
    if (dtype == GANQ_DTYPE_F16)
        return vcvt_high_f32_f16(vreinterpretq_f16_u16(values));
    return vreinterpretq_f32_u32(vshll_high_n_u16(values, 16));
}

/* Any alignment. */
INLINE uint16x8_t load_8(const void *from) {
    return vreinterpretq_u16_u8(vld1q_u8(from));
}

INLINE int64_t widen_all(float *dst, const char *src, int32_t dtype, int64_t count) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const uint16x8_t values = load_8(src + 2 * i);
        vst1q_f32(dst + i, widen_low(values, dtype));
        vst1q_f32(dst + i + 4, widen_high(values, dtype));
    }
    return i;
}

static void to_f32(float *dst, const void *src, int32_t dtype, int64_t count) {
    int64_t i = 0;
    if (dtype == GANQ_DTYPE_F16)
        i = widen_all(dst, src, GANQ_DTYPE_F16, count);
    else if (dtype == GANQ_DTYPE_BF16)
        i = widen_all(dst, src, GANQ_DTYPE_BF16, count);
    if (i < count)
        ganq__to_f32(dst + i, (const char *)src + (size_t)i * ganq__dtype_size(dtype), dtype,
                     count - i);
}

/* NaN becomes the one NaN that half.h writes, sign kept. */
INLINE uint16x4_t narrow_f16(float32x4_t v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t quiet = (bits & vdupq_n_u32(0x80000000u)) | vdupq_n_u32(0x7fc00000u);
    v = vbslq_f32(vceqq_f32(v, v), v, vreinterpretq_f32_u32(quiet));
    return vreinterpret_u16_f16(vcvt_f16_f32(v));
}

INLINE uint16x4_t narrow_bf16(float32x4_t v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v), high = vshrq_n_u32(bits, 16);
    const uint32x4_t odd = high & vdupq_n_u32(1);
    const uint32x4_t rounded = vshrq_n_u32(bits + (odd + vdupq_n_u32(0x7fff)), 16);
    const uint32x4_t nan = high | vdupq_n_u32(0x40);
    return vmovn_u32(vbslq_u32(vceqq_f32(v, v), rounded, nan));
}

static void from_f32(void *dst, const float *src, int32_t dtype, int64_t count) {
    uint8_t *to = dst;
    int64_t i = 0;
    if (dtype == GANQ_DTYPE_F16)
        for (; i + 4 <= count; i += 4)
            vst1_u8(to + 2 * i, vreinterpret_u8_u16(narrow_f16(vld1q_f32(src + i))));
    else if (dtype == GANQ_DTYPE_BF16)
        for (; i + 4 <= count; i += 4)
            vst1_u8(to + 2 * i, vreinterpret_u8_u16(narrow_bf16(vld1q_f32(src + i))));
    if (i < count)
        ganq__from_f32(to + (size_t)i * ganq__dtype_size(dtype), src + i, dtype, count - i);
}

/* ---- products ---- */

/* What sums are added to: see ganq__dense_merge. */
INLINE float32x4_t merge_start(const ganq__dense_merge *merge, const float *c, int lane) {
    if (merge->beta != 0)
        return vmulq_n_f32(vld1q_f32(c + lane), merge->beta);
    return merge->bias ? vld1q_f32(merge->bias + lane) : vdupq_n_f32(0);
}

/* The same for `cols` columns, from sums in memory. */
static void merge_sums(const ganq__dense_merge *merge, int cols, const float *sums, float *c) {
    for (int j = 0; j < cols; j++) {
        const float start = merge->beta != 0 ? merge->beta * c[j]
                            : merge->bias    ? merge->bias[j]
                                             : 0;
        c[j] = fmaf(merge->alpha, sums[j], start);
    }
}

/* C[rows, cols] of one tile. `rows` is a constant in every call. */
INLINE void multiply_tile(const int rows, int cols, int64_t kc, const float *a, const float *b,
                          int64_t b_stride, const ganq__dense_merge *merge, float *c, int64_t ldc) {
    float32x4_t sum[TILE_ROWS][4];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            sum[r][i] = vdupq_n_f32(0);
    for (int64_t k = 0; k < kc; k++, a += TILE_ROWS, b += b_stride) {
        const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4), b2 = vld1q_f32(b + 8),
                          b3 = vld1q_f32(b + 12);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const float32x4_t value = vld1q_dup_f32(a + r);
            sum[r][0] = vfmaq_f32(sum[r][0], value, b0);
            sum[r][1] = vfmaq_f32(sum[r][1], value, b1);
            sum[r][2] = vfmaq_f32(sum[r][2], value, b2);
            sum[r][3] = vfmaq_f32(sum[r][3], value, b3);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++, c += ldc) {
        if (cols == TILE_COLS) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                vst1q_f32(c + 4 * i,
                          vfmaq_n_f32(merge_start(merge, c, 4 * i), sum[r][i], merge->alpha));
        } else {
            float sums[TILE_COLS];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                vst1q_f32(sums + 4 * i, sum[r][i]);
            merge_sums(merge, cols, sums, c);
        }
    }
}

static void multiply(int64_t rows, int cols, int64_t kc, const float *a, const float *b,
                     int64_t b_stride, const ganq__dense_merge *merge, float *c, int64_t ldc) {
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        multiply_tile(6, cols, kc, a, b, b_stride, merge, c, ldc);
        a += TILE_ROWS * kc;
        c += TILE_ROWS * ldc;
    }
    switch (rows) {
    case 5:
        multiply_tile(5, cols, kc, a, b, b_stride, merge, c, ldc);
        break;
    case 4:
        multiply_tile(4, cols, kc, a, b, b_stride, merge, c, ldc);
        break;
    case 3:
        multiply_tile(3, cols, kc, a, b, b_stride, merge, c, ldc);
        break;
    case 2:
        multiply_tile(2, cols, kc, a, b, b_stride, merge, c, ldc);
        break;
    case 1:
        multiply_tile(1, cols, kc, a, b, b_stride, merge, c, ldc);
        break;
    }
}

/* What is done with column k of sixteen rows: stored in a panel, or multiplied by x[k] and added to
 * the rows' sums. */
typedef struct column_use {
    float *panel;
    const float *x; /* NULL: panel */
    float32x4_t sum[4];
} column_use;

INLINE void use_column(column_use *use, int64_t k, const float32x4_t rows[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        if (use->x)
            use->sum[i] = vfmaq_f32(use->sum[i], vld1q_dup_f32(use->x + k), rows[i]);
        else
            vst1q_f32(use->panel + k * TILE_COLS + 4 * i, rows[i]);
}

/* Four values of a row of W. */
INLINE float32x4_t load_4(const char *w, int32_t dtype) {
    if (dtype == GANQ_DTYPE_F32)
        return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)w));
    const uint16x4_t values = vreinterpret_u16_u8(vld1_u8((const uint8_t *)w));
    return widen_low(vcombine_u16(values, values), dtype);
}

/* All kc columns, in order, of `rows` rows of W, row_bytes apart; rows that are not there are
 * zero. */
INLINE void use_rows(column_use *use, int64_t kc, const int rows, const char *w, int64_t row_bytes,
                     int32_t dtype) {
    const int64_t size = dtype == GANQ_DTYPE_F32 ? 4 : 2;
    int64_t k = 0;
    for (; k + 4 <= kc; k += 4) {
        float32x4_t columns[4][4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            float32x4_t row[4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++)
                row[r] = 4 * i + r < rows ? load_4(w + (4 * i + r) * row_bytes + k * size, dtype)
                                          : vdupq_n_f32(0);
            const float64x2_t ab0 = vreinterpretq_f64_f32(vtrn1q_f32(row[0], row[1])),
                              ab1 = vreinterpretq_f64_f32(vtrn2q_f32(row[0], row[1])),
                              cd0 = vreinterpretq_f64_f32(vtrn1q_f32(row[2], row[3])),
                              cd1 = vreinterpretq_f64_f32(vtrn2q_f32(row[2], row[3]));
            columns[0][i] = vreinterpretq_f32_f64(vtrn1q_f64(ab0, cd0));
            columns[1][i] = vreinterpretq_f32_f64(vtrn1q_f64(ab1, cd1));
            columns[2][i] = vreinterpretq_f32_f64(vtrn2q_f64(ab0, cd0));
            columns[3][i] = vreinterpretq_f32_f64(vtrn2q_f64(ab1, cd1));
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            use_column(use, k + j, columns[j]);
    }
    for (; k < kc; k++) {
        float column[16] = {0};
        for (int r = 0; r < rows; r++)
            ganq__to_f32(column + r, w + r * row_bytes + k * size, dtype, 1);
        const float32x4_t values[4] = {vld1q_f32(column), vld1q_f32(column + 4),
                                       vld1q_f32(column + 8), vld1q_f32(column + 12)};
        use_column(use, k, values);
    }
}

/* Constants where the loops are hot. */
INLINE void use_rows_of(column_use *use, int64_t kc, int rows, const char *w, int64_t row_bytes,
                        int32_t dtype) {
    if (rows < TILE_COLS)
        use_rows(use, kc, rows, w, row_bytes, dtype);
    else if (dtype == GANQ_DTYPE_F32)
        use_rows(use, kc, TILE_COLS, w, row_bytes, GANQ_DTYPE_F32);
    else if (dtype == GANQ_DTYPE_F16)
        use_rows(use, kc, TILE_COLS, w, row_bytes, GANQ_DTYPE_F16);
    else
        use_rows(use, kc, TILE_COLS, w, row_bytes, GANQ_DTYPE_BF16);
}

/* Row by row through all panels, so that each row of B is read in one run. */
static void pack_columns(float *panels, int64_t kc, int64_t cols, const float *b, int64_t ldb) {
    const int64_t whole = cols / TILE_COLS * TILE_COLS, tail = cols - whole;
    for (int64_t k = 0; k < kc; k++, b += ldb) {
        float *to = panels + k * TILE_COLS;
        for (int64_t n = 0; n < whole; n += TILE_COLS, to += kc * TILE_COLS)
            memcpy(to, b + n, TILE_COLS * sizeof *to);
        if (tail) {
            memset(to, 0, TILE_COLS * sizeof *to);
            memcpy(to, b + whole, (size_t)tail * sizeof *to);
        }
    }
}

static void pack_b(float *panels, int64_t kc, int64_t cols, const void *b, int64_t ldb,
                   int32_t dtype, int transposed) {
    if (!transposed) {
        pack_columns(panels, kc, cols, b, ldb);
        return;
    }
    const int64_t row_bytes = ldb * (int64_t)ganq__dtype_size(dtype);
    for (int64_t n = 0; n < cols; n += TILE_COLS) {
        const int rows = cols - n < TILE_COLS ? (int)(cols - n) : TILE_COLS;
        column_use use = {.panel = panels + n * kc};
        use_rows_of(&use, kc, rows, (const char *)b + n * row_bytes, row_bytes, dtype);
    }
}

static void stream(int64_t K, int cols, const float *x, const void *w, int64_t ldw, int32_t dtype,
                   const ganq__dense_merge *merge, float *y) {
    const int64_t size = (int64_t)ganq__dtype_size(dtype);
    ganq__dense_merge block = *merge;
    int64_t k = 0;
    do {
        const int64_t kc = K - k < BLOCK_K ? K - k : BLOCK_K;
        float sums[TILE_COLS];
        column_use use = {.x = x + k};
        for (int i = 0; i < 4; i++)
            use.sum[i] = vdupq_n_f32(0);
        use_rows_of(&use, kc, cols, (const char *)w + k * size, ldw * size, dtype);
        for (int i = 0; i < 4; i++)
            vst1q_f32(sums + 4 * i, use.sum[i]);
        merge_sums(&block, cols, sums, y);
        block.beta = 1;
        block.bias = NULL;
        k += BLOCK_K;
    } while (k < K);
}

static const ganq__dense_kernels kernels = {
    .tile_rows = TILE_ROWS,
    .tile_cols = TILE_COLS,
    .block_rows = 64 * TILE_ROWS,
    .pack_b = pack_b,
    .multiply = multiply,
    .stream = stream,
};

/* clang-format off */
static ganq_status gemm(ganq_context *ctx, int64_t M, int64_t N, int64_t K, float alpha,
                        const float *a, int64_t lda, const float *b, int64_t ldb, int b_transposed,
                        float beta, float *c, int64_t ldc) {
    const ganq__dense_product product = {
        .M = M, .N = N, .K = K,
        .a = a, .lda = lda,
        .b = b, .ldb = ldb, .b_dtype = GANQ_DTYPE_F32, .b_transposed = b_transposed,
        .alpha = alpha, .beta = beta,
        .c = c, .ldc = ldc,
    };
    return ganq__dense_multiply(ctx, &kernels, &product);
}

static ganq_status linear(ganq_context *ctx, int64_t M, int64_t N, int64_t K, const float *x,
                          int64_t ldx, const void *w, int32_t wdtype, const float *bias, float *y,
                          int64_t ldy) {
    const ganq__dense_product product = {
        .M = M, .N = N, .K = K,
        .a = x, .lda = ldx,
        .b = w, .ldb = K, .b_dtype = wdtype, .b_transposed = 1,
        .alpha = 1, .bias = bias,
        .c = y, .ldc = ldy,
    };
    return ganq__dense_multiply(ctx, &kernels, &product);
}

/* X^T X as a product: its rows and columns are X's columns, its sums run over tokens. */
static ganq_status syrk(ganq_context *ctx, int64_t M, int64_t K, const float *x, int64_t ldx,
                        float *h) {
    const ganq__dense_product product = {
        .M = K, .N = K, .K = M,
        .a = x, .lda = ldx, .a_transposed = 1,
        .b = x, .ldb = ldx, .b_dtype = GANQ_DTYPE_F32,
        .alpha = 1, .beta = 1,
        .c = h, .ldc = K, .upper = 1,
    };
    GANQ_TRY(ganq__dense_multiply(ctx, &kernels, &product));
    ganq__dense_mirror(ctx, K, h);
    return GANQ_OK;
}

/* clang-format on */
const ganq__dense_ops ganq__dense_ops_neon = {
    .gemm = gemm, .linear = linear, .syrk = syrk, .to_f32 = to_f32, .from_f32 = from_f32};
