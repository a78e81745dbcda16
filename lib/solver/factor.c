/* factor.c - Cholesky factorization, left-looking in block columns of 64; rows below a block column
 * in parallel. A row's sums run over the columns in their order whatever the tile, so the bits do
 * not depend on the threads. */
#include <math.h>
#include <string.h>

#include "dense_ops.h"
#include "internal.h"
#include "solver_device.h"

enum { BLOCK = 64, ROWS = 64, STRIP = 8, MOST_AT_ONCE = 256 };
enum { DEVICE_LEAST = 512 }; /* columns from which a device is worth the way there */

typedef struct block_column {
    const ganq__solver_ops *ops;
    double *a;
    int64_t n, lda, begin, width;
    const double *strips; /* rows of the block column, [width / 8][begin][8] */
    const double *upper;  /* factored diagonal block, transposed [BLOCK][BLOCK] */
} block_column;

/* a[row, block] -= a[row, :begin] a[block, :begin]^T for a tile of rows, the diagonal block's
 * included. */
static void update_rows(void *user, int64_t item, int worker) {
    const block_column *b = user;
    (void)worker;
    const int64_t from = b->begin + ROWS * item, to = from + ROWS < b->n ? from + ROWS : b->n;
    for (int64_t s = 0; s < b->width / STRIP; s++)
        b->ops->downdate(to - from, b->begin, b->a + from * b->lda, b->lda,
                         b->strips + s * b->begin * STRIP,
                         b->a + from * b->lda + b->begin + s * STRIP, b->lda);
}

/* x L^T = a for a tile of rows below the diagonal block. */
static void solve_rows(void *user, int64_t item, int worker) {
    const block_column *b = user;
    (void)worker;
    const int64_t first = b->begin + b->width, from = first + ROWS * item;
    const int64_t to = from + ROWS < b->n ? from + ROWS : b->n;
    for (int64_t i = from; i < to; i++) {
        double *x = b->a + i * b->lda + b->begin;
        for (int64_t c = 0; c < b->width; c++) {
            const double *row = b->upper + c * BLOCK;
            const double value = x[c] / row[c];
            x[c] = value;
            for (int64_t d = c + 1; d < b->width; d++)
                x[d] -= value * row[d];
        }
    }
}

/* The diagonal block, serially. upper gets its transposed factor. */
static int factor_block(double *a, int64_t lda, int64_t width, double *upper) {
    for (int64_t c = 0; c < width; c++) {
        double *row = upper + c * BLOCK;
        for (int64_t d = c; d < width; d++)
            row[d] = a[d * lda + c];
    }
    for (int64_t c = 0; c < width; c++) {
        double *row = upper + c * BLOCK;
        if (!(row[c] > 0) || !isfinite(row[c]))
            return 1;
        const double root = sqrt(row[c]);
        for (int64_t d = c; d < width; d++)
            row[d] /= root;
        row[c] = root;
        for (int64_t i = c + 1; i < width; i++)
            for (int64_t d = i; d < width; d++)
                upper[i * BLOCK + d] -= row[i] * row[d];
    }
    for (int64_t c = 0; c < width; c++)
        for (int64_t d = c; d < width; d++)
            a[d * lda + c] = upper[c * BLOCK + d];
    return 0;
}

ganq_status ganq__cholesky(ganq_context *ctx, const ganq__solver_ops *ops, int64_t n, double *a,
                           int64_t lda, double progress, int *definite) {
    ganq_status status = GANQ_OK;
    double *strips = NULL, *upper = NULL;
    if (ctx->solver_device && ctx->solver_device->cholesky && n >= DEVICE_LEAST) {
        status = ctx->solver_device->cholesky(ctx, n, a, lda, definite);
        if (status != GANQ_ERR_UNSUPPORTED)
            return status;
        ganq__log(ctx, GANQ_LOG_WARNING, "the Hessian is factored on the CPU: %s", ganq_last_error());
        status = GANQ_OK;
    }
    GANQ_ALLOC_GOTO(free_all, strips, (size_t)(BLOCK * (n + 1)));
    GANQ_ALLOC_GOTO(free_all, upper, BLOCK * BLOCK);
    *definite = 1;
    for (int64_t begin = 0; begin < n && *definite; begin += BLOCK) {
        GANQ_TRY_GOTO(free_all, ganq__progress_tick(ctx, progress));
        const int64_t width = n - begin < BLOCK ? n - begin : BLOCK;
        const int64_t padded = (width + STRIP - 1) / STRIP * STRIP;
        for (int64_t c = 0; c < padded; c++)
            for (int64_t k = 0; k < begin; k++)
                strips[(c / STRIP * begin + k) * STRIP + c % STRIP] =
                    c < width ? a[(begin + c) * lda + k] : 0;
        block_column b = {ops, a, n, lda, begin, padded, strips, upper};
        if (begin > 0)
            ganq__parallel_for(ctx->pool, (n - begin + ROWS - 1) / ROWS, update_rows, &b);
        *definite = factor_block(a + begin * lda + begin, lda, width, upper) == 0;
        b.width = width;
        if (*definite && begin + width < n)
            ganq__parallel_for(ctx->pool, (n - begin - width + ROWS - 1) / ROWS, solve_rows, &b);
    }
free_all:
    ganq__free(strips);
    ganq__free(upper);
    return status;
}

/* The same in float32. The diagonal block serially; upper gets its transposed factor. */
static int factor_block_f32(float *a, int64_t lda, int64_t width, float *upper) {
    for (int64_t c = 0; c < width; c++)
        for (int64_t d = c; d < width; d++)
            upper[c * BLOCK + d] = a[d * lda + c];
    for (int64_t c = 0; c < width; c++) {
        float *row = upper + c * BLOCK;
        if (!(row[c] > 0) || !isfinite(row[c]))
            return 1;
        const float root = sqrtf(row[c]);
        for (int64_t d = c + 1; d < width; d++)
            row[d] /= root;
        row[c] = root;
        for (int64_t i = c + 1; i < width; i++)
            for (int64_t d = i; d < width; d++)
                upper[i * BLOCK + d] -= row[i] * row[d];
    }
    for (int64_t c = 0; c < width; c++)
        for (int64_t d = c; d < width; d++)
            a[d * lda + c] = upper[c * BLOCK + d];
    return 0;
}

typedef struct block_column_f32 {
    float *a, *upper;
    int64_t n, begin, width;
} block_column_f32;

static void solve_rows_f32(void *user, int64_t item, int worker) {
    const block_column_f32 *b = user;
    (void)worker;
    const int64_t from = b->begin + b->width + ROWS * item;
    const int64_t to = from + ROWS < b->n ? from + ROWS : b->n;
    for (int64_t i = from; i < to; i++) {
        float *x = b->a + i * b->n + b->begin;
        for (int64_t c = 0; c < b->width; c++) {
            const float *row = b->upper + c * BLOCK;
            const float value = x[c] / row[c];
            x[c] = value;
            for (int64_t d = c + 1; d < b->width; d++)
                x[d] -= value * row[d];
        }
    }
}

/* L L^T = A in float32 as far as it goes. */
static ganq_status cholesky_f32(ganq_context *ctx, int64_t n, float *a, int *definite) {
    float upper[BLOCK * BLOCK];
    *definite = 1;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        GANQ_TRY(ganq__progress_tick(ctx, 0));
        const int64_t width = n - begin < BLOCK ? n - begin : BLOCK;
        if (begin > 0)
            GANQ_TRY(ctx->host_dense->gemm(ctx, n - begin, width, begin, -1, a + begin * n, n,
                                      a + begin * n, n, 1, 1, a + begin * n + begin, n));
        block_column_f32 b = {a, upper, n, begin, width};
        if (factor_block_f32(a + begin * n + begin, n, width, upper) != 0) {
            *definite = 0;
            return GANQ_OK;
        }
        ganq__parallel_for(ctx->pool, (n - begin - width + ROWS - 1) / ROWS, solve_rows_f32, &b);
    }
    return GANQ_OK;
}

/* ---- the order of columns ---- */

/* The factor of H, in the order found so far: columns before `begin` are placed, the next `width` are being placed. */
typedef struct ordering {
    const ganq__panels *h;
    int32_t *order; /* [n] */
    float *left;    /* [n] of each diagonal entry, after the columns before */
    float *l;       /* [n, n] */
    float *packed;  /* [n, width] */
    double offset;
    int64_t n, begin, width;
} ordering;

static void swap_rows(ordering *o, int64_t i, int64_t j) {
    const int32_t column = o->order[i];
    const float left = o->left[i];
    o->order[i] = o->order[j];
    o->order[j] = column;
    o->left[i] = o->left[j];
    o->left[j] = left;
    for (int64_t k = 0; k < o->begin; k++) {
        const float x = o->l[i * o->n + k];
        o->l[i * o->n + k] = o->l[j * o->n + k];
        o->l[j * o->n + k] = x;
    }
}

/* The `width` columns with the least left go next. */
static void place_least(ordering *o) {
    for (int64_t c = o->begin; c < o->begin + o->width; c++) {
        int64_t least = c;
        for (int64_t i = c + 1; i < o->n; i++)
            if (o->left[i] < o->left[least])
                least = i;
        if (least != c)
            swap_rows(o, c, least);
    }
}

/* The columns being placed, as they are in H: first all their entries, which lie together by the symmetry of H, then
 * in the order of the rows. */
static void pack_columns(void *user, int64_t panel, int worker) {
    const ordering *o = user;
    const float *rows = o->h->data + ganq__panel_origin(o->h, panel);
    const int64_t first = GANQ__PANEL * panel, most = o->n - first < GANQ__PANEL ? o->n - first : GANQ__PANEL;
    (void)worker;
    for (int64_t c = 0; c < o->width; c++) {
        const float *row = rows + GANQ__PANEL * o->order[o->begin + c];
        for (int64_t j = 0; j < most; j++)
            o->packed[(first + j) * o->width + c] = row[j];
    }
}

static void fill_columns(void *user, int64_t item, int worker) {
    const ordering *o = user;
    (void)worker;
    for (int64_t i = o->begin + ROWS * item; i < o->begin + ROWS * (item + 1) && i < o->n; i++) {
        memcpy(o->l + i * o->n + o->begin, o->packed + o->order[i] * o->width, (size_t)o->width * sizeof *o->l);
        if (i < o->begin + o->width)
            o->l[i * o->n + i] += (float)o->offset;
    }
}

static void subtract_squares(void *user, int64_t item, int worker) {
    const ordering *o = user;
    (void)worker;
    const int64_t first = o->begin + o->width + ROWS * item;
    for (int64_t i = first; i < first + ROWS && i < o->n; i++)
        for (int64_t c = o->begin; c < o->begin + o->width; c++)
            o->left[i] -= o->l[i * o->n + c] * o->l[i * o->n + c];
}

/* How many columns are placed at once: the more, the fewer times all that came before is read again. */
static int64_t columns_at_once(int64_t n) {
    const int64_t few = n / 64 / STRIP * STRIP, many = n / 32 / BLOCK * BLOCK;
    return many >= 2 * BLOCK ? (many < MOST_AT_ONCE ? many : MOST_AT_ONCE)
           : few > BLOCK     ? BLOCK
           : few > STRIP     ? few
                             : STRIP;
}

/* Columns [to, to + width) of the rows from `first` on, less what columns [from, to) explain. */
static ganq_status subtract_columns(ganq_context *ctx, const ordering *o, int64_t first, int64_t from,
                                    int64_t to, int64_t width) {
    float *const a = o->l + first * o->n + from;
    return to > from ? ctx->host_dense->gemm(ctx, o->n - first, width, to - from, -1, a, o->n, a + (to - first) * o->n,
                                             o->n, 1, 1, o->l + first * o->n + to, o->n)
                     : GANQ_OK;
}

/* Factors the columns that were placed, block by block. *fails: float32 cannot. */
static ganq_status factor_columns(ganq_context *ctx, const ordering *o, int *fails) {
    const int64_t n = o->n, end = o->begin + o->width;
    float upper[BLOCK * BLOCK];
    *fails = 0;
    for (int64_t begin = o->begin; begin < end; begin += BLOCK) {
        const int64_t width = end - begin < BLOCK ? end - begin : BLOCK;
        GANQ_TRY(subtract_columns(ctx, o, begin, o->begin, begin, width));
        if (factor_block_f32(o->l + begin * n + begin, n, width, upper) != 0) {
            *fails = 1;
            return GANQ_OK;
        }
        block_column_f32 b = {o->l, upper, n, begin, width};
        ganq__parallel_for(ctx->pool, (n - begin - width + ROWS - 1) / ROWS, solve_rows_f32, &b);
    }
    return GANQ_OK;
}

/* Places some columns after the others, as long as float32 can factor them. */
static ganq_status place_columns(ganq_context *ctx, ordering *o) {
    const int64_t n = o->n, most = columns_at_once(n);
    for (int fails = 0; o->begin < n && !fails; o->begin += o->width) {
        GANQ_TRY(ganq__progress_tick(ctx, 0));
        const int64_t tiles = (n - o->begin + ROWS - 1) / ROWS;
        o->width = n - o->begin < most ? n - o->begin : most;
        place_least(o);
        ganq__parallel_for(ctx->pool, (n + GANQ__PANEL - 1) / GANQ__PANEL, pack_columns, o);
        ganq__parallel_for(ctx->pool, tiles, fill_columns, o);
        GANQ_TRY(subtract_columns(ctx, o, o->begin, 0, o->begin, o->width));
        GANQ_TRY(factor_columns(ctx, o, &fails));
        if (!fails)
            ganq__parallel_for(ctx->pool, tiles, subtract_squares, o);
    }
    return GANQ_OK;
}

ganq_status ganq__order_by_pivots(ganq_context *ctx, const ganq__panels *h, double offset,
                                  int32_t *order) {
    ordering o = {.h = h, .order = order, .offset = offset, .n = h->K};
    ganq_status status = GANQ_OK;
    GANQ_ALLOC_GOTO(done, o.left, (size_t)o.n);
    GANQ_ALLOC_GOTO(done, o.l, (size_t)(o.n * o.n));
    GANQ_ALLOC_GOTO(done, o.packed, (size_t)(o.n * columns_at_once(o.n)));
    for (int64_t k = 0; k < o.n; k++) {
        order[k] = (int32_t)k;
        o.left[k] = h->data[ganq__panel_origin(h, k / GANQ__PANEL) + GANQ__PANEL * k + k % GANQ__PANEL] +
                    (float)offset;
    }
    status = place_columns(ctx, &o);
done:
    ganq__free(o.left);
    ganq__free(o.l);
    ganq__free(o.packed);
    return status;
}

ganq_status ganq__definite_f32(ganq_context *ctx, int64_t n, const float *a, int *definite) {
    if (ctx->solver_device && ctx->solver_device->definite_f32 && n >= DEVICE_LEAST) {
        const ganq_status status = ctx->solver_device->definite_f32(ctx, n, a, definite);
        if (status != GANQ_ERR_UNSUPPORTED)
            return status;
        ganq__log(ctx, GANQ_LOG_WARNING, "the Hessian is factored on the CPU: %s", ganq_last_error());
    }
    float *copy;
    GANQ_ALLOC(copy, (size_t)(n * n));
    memcpy(copy, a, (size_t)(n * n) * sizeof *copy);
    const ganq_status status = cholesky_f32(ctx, n, copy, definite);
    ganq__free(copy);
    return status;
}
