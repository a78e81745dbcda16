/* dense_avx2.c - the dense products' kernels for AVX2 + FMA + F16C; the frame is dense_blocked.c.
 *
 * Tile    6 rows x 16 columns of C in 12 registers; per k two loads of B, six broadcasts of A, 12
 *         FMAs. gcc 12 keeps the loop in 15 registers, without a spill (objdump -d).
 * Rows    For one row of X, W is transposed in registers on the way: lanes are rows of W, not
 *         values of k, so that a step gives the bits of the prefill.
 * Bound   two FMAs per cycle. One thread, Zen 4, rate relative to the AVX2 kernels of OpenBLAS
 *         0.3.21 in the same run: A B^T 0.91 to 0.98, A B 0.91 to 0.93, syrk 0.85 to 0.89 (it also
 *         fills the other triangle) at M = 384 and 512, N = K = 1024 and 2048; A B^T 1.1 at
 *         M = 64, 2.0 at M = 6, 2.4 at M = 1. */
#include "cpu.h"
#include "dense_blocked.h"
#include "dense_ops.h"

#include <immintrin.h>
#include <math.h>

#include "dtype.h"
#include "half.h"

enum { TILE_ROWS = 6, TILE_COLS = 16, BLOCK_K = GANQ__DENSE_BLOCK_K };

#define INLINE static inline __attribute__((always_inline))

/* What sums are added to: see ganq__dense_merge. */
INLINE __m256 merge_start(const ganq__dense_merge *merge, const float *c, int lane) {
    if (merge->beta != 0)
        return _mm256_mul_ps(_mm256_set1_ps(merge->beta), _mm256_loadu_ps(c + lane));
    return merge->bias ? _mm256_loadu_ps(merge->bias + lane) : _mm256_setzero_ps();
}

/* The same for `cols` columns, from sums in memory. */
static void merge_sums(const ganq__dense_merge *merge, int cols, const float *sums, float *c) {
    for (int j = 0; j < cols; j++) {
        float start = merge->beta != 0 ? merge->beta * c[j] : merge->bias ? merge->bias[j] : 0;
        c[j] = fmaf(merge->alpha, sums[j], start);
    }
}

/* C[rows, cols] of one tile. `rows` is a constant in every call. */
INLINE void multiply_tile(const int rows, int cols, int64_t kc, const float *a, const float *b,
                          int64_t b_stride, const ganq__dense_merge *merge, float *c, int64_t ldc) {
    __m256 sum[TILE_ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    /* C is wanted when the sums are done; its rows are too far apart for the hardware to guess. */
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        _mm_prefetch((const char *)(c + r * ldc), _MM_HINT_T0);
        _mm_prefetch((const char *)(c + r * ldc + cols - 1), _MM_HINT_T0);
    }
    for (int64_t k = 0; k < kc; k++) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m256 value = _mm256_broadcast_ss(a + r);
            sum[r][0] = _mm256_fmadd_ps(value, b0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(value, b1, sum[r][1]);
        }
        a += TILE_ROWS;
        b += b_stride;
    }
    if (cols == TILE_COLS) {
        __m256 alpha = _mm256_set1_ps(merge->alpha);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++, c += ldc) {
            _mm256_storeu_ps(c, _mm256_fmadd_ps(alpha, sum[r][0], merge_start(merge, c, 0)));
            _mm256_storeu_ps(c + 8, _mm256_fmadd_ps(alpha, sum[r][1], merge_start(merge, c, 8)));
        }
        return;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++, c += ldc) {
        float sums[TILE_COLS];
        _mm256_storeu_ps(sums, sum[r][0]);
        _mm256_storeu_ps(sums + 8, sum[r][1]);
        merge_sums(merge, cols, sums, c);
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

/* Up to sixteen rows of W, RAW_BYTES of each, as they are stored. Rows of W are often a multiple of
 * 4 KB apart, so that sixteen lines of a column do not fit into the eight ways of a first-level
 * cache; here they do not meet. Plain reading of sixteen rows in turns ran at 20 to 22 GB/s for
 * turns of 64 to 256 bytes, at 18 for 512 and 15 for 1024. */
enum { RAW_BYTES = 256, RAW_STRIDE = RAW_BYTES + 64 };
typedef struct raw_rows {
    _Alignas(64) char bytes[16][RAW_STRIDE];
} raw_rows;

/* `rows` rows, row_bytes apart, of `bytes` each; rows that are not there are zero. */
INLINE void copy_rows(raw_rows *raw, int64_t bytes, int rows, const char *w, int64_t row_bytes) {
    if (bytes == RAW_BYTES && rows == 16) {
        for (int r = 0; r < 16; r++)
#pragma GCC unroll 8
            for (int i = 0; i < RAW_BYTES; i += 32)
                _mm256_store_si256((__m256i *)(raw->bytes[r] + i),
                                   _mm256_loadu_si256((const __m256i *)(w + r * row_bytes + i)));
        return;
    }
    for (int r = 0; r < 16; r++)
        if (r < rows)
            memcpy(raw->bytes[r], w + r * row_bytes, (size_t)bytes);
        else
            memset(raw->bytes[r], 0, (size_t)bytes);
}

/* Four columns of eight rows of f32, RAW_STRIDE bytes apart, as four vectors of eight rows. */
INLINE void transpose_8x4(const char *w, __m256 out[4]) {
    __m256 pair[4]; /* rows r and r + 4 */
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
        pair[r] = _mm256_insertf128_ps(
            _mm256_castps128_ps256(_mm_load_ps((const float *)(w + r * RAW_STRIDE))),
            _mm_load_ps((const float *)(w + (r + 4) * RAW_STRIDE)), 1);
    __m256 t0 = _mm256_unpacklo_ps(pair[0], pair[1]), t1 = _mm256_unpackhi_ps(pair[0], pair[1]);
    __m256 t2 = _mm256_unpacklo_ps(pair[2], pair[3]), t3 = _mm256_unpackhi_ps(pair[2], pair[3]);
    out[0] = _mm256_shuffle_ps(t0, t2, 0x44);
    out[1] = _mm256_shuffle_ps(t0, t2, 0xee);
    out[2] = _mm256_shuffle_ps(t1, t3, 0x44);
    out[3] = _mm256_shuffle_ps(t1, t3, 0xee);
}

/* Eight columns of sixteen rows of 16-bit values, RAW_STRIDE bytes apart, as eight vectors of
 * sixteen rows. */
INLINE void transpose_16x8(const char *w, __m256i out[8]) {
    __m256i a[8], b[8]; /* rows r and r + 8 in the two halves: both are transposed alike */
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++)
        a[r] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_load_si128((const __m128i *)(w + r * RAW_STRIDE))),
            _mm_load_si128((const __m128i *)(w + (r + 8) * RAW_STRIDE)), 1);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* rows 2i and 2i+1: columns 0-3, columns 4-7 */
        b[2 * i] = _mm256_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) { /* rows 4i..4i+3: columns 2c and 2c+1 in a[4i+c] */
        a[4 * i] = _mm256_unpacklo_epi32(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm256_unpackhi_epi32(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm256_unpacklo_epi32(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm256_unpackhi_epi32(b[4 * i + 1], b[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        out[2 * c] = _mm256_unpacklo_epi64(a[c], a[c + 4]);
        out[2 * c + 1] = _mm256_unpackhi_epi64(a[c], a[c + 4]);
    }
}

INLINE __m256 widen(__m128i values, int32_t dtype) {
    if (dtype == GANQ_DTYPE_F16)
        return _mm256_cvtph_ps(values);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(values), 16));
}

static void to_f32(float *dst, const void *src, int32_t dtype, int64_t count) {
    int64_t i = 0;
    if (dtype == GANQ_DTYPE_F16)
        for (; i + 8 <= count; i += 8)
            _mm256_storeu_ps(dst + i,
                             widen(_mm_loadu_si128((const __m128i *)((const uint16_t *)src + i)),
                                   GANQ_DTYPE_F16));
    else if (dtype == GANQ_DTYPE_BF16)
        for (; i + 8 <= count; i += 8)
            _mm256_storeu_ps(dst + i,
                             widen(_mm_loadu_si128((const __m128i *)((const uint16_t *)src + i)),
                                   GANQ_DTYPE_BF16));
    if (i < count)
        ganq__to_f32(dst + i, (const char *)src + (size_t)i * ganq__dtype_size(dtype), dtype,
                     count - i);
}

/* NaN becomes the one NaN that half.h writes, sign kept. */
static __m128i narrow_f16(__m256 v) {
    __m256 sign = _mm256_and_ps(v, _mm256_set1_ps(-0.0f));
    __m256 quiet = _mm256_or_ps(sign, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)));
    v = _mm256_blendv_ps(v, quiet, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static __m128i narrow_bf16(__m256 v) {
    __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    rounded = _mm256_srli_epi32(rounded, 16);
    __m256i nan = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, nan, is_nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

static void from_f32(void *dst, const float *src, int32_t dtype, int64_t count) {
    int64_t i = 0;
    if (dtype == GANQ_DTYPE_F16)
        for (; i + 8 <= count; i += 8)
            _mm_storeu_si128((__m128i *)((uint16_t *)dst + i),
                             narrow_f16(_mm256_loadu_ps(src + i)));
    else if (dtype == GANQ_DTYPE_BF16)
        for (; i + 8 <= count; i += 8)
            _mm_storeu_si128((__m128i *)((uint16_t *)dst + i),
                             narrow_bf16(_mm256_loadu_ps(src + i)));
    if (i < count)
        ganq__from_f32((char *)dst + (size_t)i * ganq__dtype_size(dtype), src + i, dtype,
                       count - i);
}

/* What is done with column k of sixteen rows: stored in a panel, or multiplied by x[k] and added to
 * the rows' sums. */
typedef struct column_use {
    float *panel;
    const float *x; /* NULL: panel */
    __m256 sum[2];
} column_use;

INLINE void use_column(column_use *use, int64_t k, __m256 low, __m256 high) {
    if (use->x) {
        __m256 value = _mm256_broadcast_ss(use->x + k);
        use->sum[0] = _mm256_fmadd_ps(value, low, use->sum[0]);
        use->sum[1] = _mm256_fmadd_ps(value, high, use->sum[1]);
    } else {
        _mm256_store_ps(use->panel + k * TILE_COLS, low);
        _mm256_store_ps(use->panel + k * TILE_COLS + 8, high);
    }
}

/* Columns k..k+7 of a block, which are `from` + 0..7 of the raw rows. */
INLINE void use_columns_8(column_use *use, int64_t k, const raw_rows *raw, int64_t from,
                          int32_t dtype) {
    if (dtype == GANQ_DTYPE_F32) {
#pragma GCC unroll 2
        for (int half = 0; half < 8; half += 4) {
            __m256 low[4], high[4];
            transpose_8x4(raw->bytes[0] + 4 * (from + half), low);
            transpose_8x4(raw->bytes[8] + 4 * (from + half), high);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                use_column(use, k + half + j, low[j], high[j]);
        }
        return;
    }
    __m256i columns[8];
    transpose_16x8(raw->bytes[0] + 2 * from, columns);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        use_column(use, k + j, widen(_mm256_castsi256_si128(columns[j]), dtype),
                   widen(_mm256_extracti128_si256(columns[j], 1), dtype));
}

/* One column alone. */
INLINE void use_column_1(column_use *use, int64_t k, const raw_rows *raw, int64_t from,
                         int32_t dtype) {
    float column[16];
    for (int r = 0; r < 16; r++)
        ganq__to_f32(column + r, raw->bytes[r] + (size_t)from * ganq__dtype_size(dtype), dtype, 1);
    use_column(use, k, _mm256_loadu_ps(column), _mm256_loadu_ps(column + 8));
}

/* While a part of sixteen rows is worked on, asks for the part four parts further on, `bytes` of
 * each row's at a time. With K = 4096 and one row of X this gave 20 GB/s for f32 and 13 for f16,
 * without it 14 and 10 (plain reading: 24). */
INLINE void prefetch_rows(const char *w, int64_t position, int64_t row_bytes, int64_t bytes) {
    const char *from = w + 4 * RAW_BYTES + position * 16 / RAW_BYTES * row_bytes;
#pragma GCC unroll 8
    for (int64_t i = 0; i < bytes * 16 / 64; i++)
        _mm_prefetch(from + i / (RAW_BYTES / 64) * row_bytes + i % (RAW_BYTES / 64) * 64,
                     _MM_HINT_T1);
}

/* All kc columns, in order. */
INLINE void use_rows(column_use *use, int64_t kc, int rows, const char *w, int64_t row_bytes,
                     int32_t dtype) {
    const int64_t size = dtype == GANQ_DTYPE_F32 ? 4 : 2, step = RAW_BYTES / size;
    for (int64_t k0 = 0; k0 < kc; k0 += step) {
        int64_t count = kc - k0 < step ? kc - k0 : step, k = 0;
        raw_rows raw;
        copy_rows(&raw, count * size, rows, w + k0 * size, row_bytes);
        for (; k + 8 <= count; k += 8) {
            prefetch_rows(w + k0 * size, k * size, row_bytes, 8 * size);
            use_columns_8(use, k0 + k, &raw, k, dtype);
        }
        for (; k < count; k++)
            use_column_1(use, k0 + k, &raw, k, dtype);
    }
}

static void pack_rows(float *panel, int64_t kc, int rows, const char *w, int64_t row_bytes,
                      int32_t dtype) {
    column_use use = {.panel = panel};
    if (dtype == GANQ_DTYPE_F32)
        use_rows(&use, kc, rows, w, row_bytes, GANQ_DTYPE_F32);
    else if (dtype == GANQ_DTYPE_F16)
        use_rows(&use, kc, rows, w, row_bytes, GANQ_DTYPE_F16);
    else
        use_rows(&use, kc, rows, w, row_bytes, GANQ_DTYPE_BF16);
}

/* Sums of x times the rows: lanes are rows, so that each sum runs along k as in multiply_tile. */
static void stream_rows(float sums[16], const float *x, int64_t kc, int rows, const char *w,
                        int64_t row_bytes, int32_t dtype) {
    column_use use = {.x = x, .sum = {_mm256_setzero_ps(), _mm256_setzero_ps()}};
    if (dtype == GANQ_DTYPE_F32)
        use_rows(&use, kc, rows, w, row_bytes, GANQ_DTYPE_F32);
    else if (dtype == GANQ_DTYPE_F16)
        use_rows(&use, kc, rows, w, row_bytes, GANQ_DTYPE_F16);
    else
        use_rows(&use, kc, rows, w, row_bytes, GANQ_DTYPE_BF16);
    _mm256_storeu_ps(sums, use.sum[0]);
    _mm256_storeu_ps(sums + 8, use.sum[1]);
}

/* Row by row through all panels, so that each row of B is read in one run. */
static void pack_columns(float *panels, int64_t kc, int64_t cols, const float *b, int64_t ldb) {
    int64_t whole = cols / TILE_COLS * TILE_COLS, tail = cols - whole;
    for (int64_t k = 0; k < kc; k++, b += ldb) {
        float *to = panels + k * TILE_COLS;
        for (int64_t n = 0; n < whole; n += TILE_COLS, to += kc * TILE_COLS) {
            _mm256_store_ps(to, _mm256_loadu_ps(b + n));
            _mm256_store_ps(to + 8, _mm256_loadu_ps(b + n + 8));
        }
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
    int64_t row_bytes = ldb * (int64_t)ganq__dtype_size(dtype);
    for (int64_t n = 0; n < cols; n += TILE_COLS) {
        int rows = cols - n < TILE_COLS ? (int)(cols - n) : TILE_COLS;
        pack_rows(panels + n * kc, kc, rows, (const char *)b + n * row_bytes, row_bytes, dtype);
    }
}

static void stream(int64_t K, int cols, const float *x, const void *w, int64_t ldw, int32_t dtype,
                   const ganq__dense_merge *merge, float *y) {
    int64_t size = (int64_t)ganq__dtype_size(dtype), k = 0;
    ganq__dense_merge block = *merge;
    do {
        float sums[16];
        stream_rows(sums, x + k, K - k < BLOCK_K ? K - k : BLOCK_K, cols,
                    (const char *)w + k * size, ldw * size, dtype);
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
const ganq__dense_ops ganq__dense_ops_avx2 = {
    .gemm = gemm, .linear = linear, .syrk = syrk, .to_f32 = to_f32, .from_f32 = from_f32};
