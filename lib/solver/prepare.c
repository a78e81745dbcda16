/* prepare.c - what a layer's solver derives from H once: live columns, their order, H in panels,
 * damped factors. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "internal.h"

/* H[i,j] of the scaled, symmetric H, by columns of W; h NULL is the identity. */
static double entry(const float *h, int64_t K, double inverse_scale, int64_t i, int64_t j) {
    if (!h)
        return i == j;
    return 0.5 * inverse_scale * ((double)h[i * K + j] + (double)h[j * K + i]);
}

typedef struct row_check {
    int64_t K;
    const float *h;
    atomic_int bad;
} row_check;

/* Whether a row is wrong; `bad` then sends the caller to look for what and where. */
static void check_row(void *user, int64_t i, int worker) {
    row_check *check = user;
    const float *row = check->h + i * check->K;
    (void)worker;
    int bad = ganq__find_nonfinite(row, check->K) >= 0 || row[i] < 0;
    for (int64_t c = 0; c < check->K && row[i] == 0; c++)
        bad |= row[c] != 0;
    if (bad)
        atomic_store(&check->bad, 1);
}

static ganq_status check_hessian(ganq__pool *pool, int64_t K, const float *h) {
    row_check check = {.K = K, .h = h};
    ganq__parallel_for(pool, K, check_row, &check);
    for (int64_t i = 0; i < K && atomic_load(&check.bad); i++) {
        const int64_t j = ganq__find_nonfinite(h + i * K, K);
        if (j >= 0)
            GANQ_FAIL(GANQ_ERR_NUMERIC,
                      "the Hessian has a NaN or infinity at row %lld, column %lld", (long long)i,
                      (long long)j);
        if (h[i * K + i] < 0)
            GANQ_FAIL(GANQ_ERR_NUMERIC, "the Hessian has %g on its diagonal at %lld, expected >= 0",
                      (double)h[i * K + i], (long long)i);
        if (h[i * K + i] == 0)
            for (int64_t c = 0; c < K; c++)
                if (h[i * K + c] != 0)
                    GANQ_FAIL(
                        GANQ_ERR_NUMERIC,
                        "the Hessian has 0 on its diagonal at %lld but %g at column %lld: no X^T X",
                        (long long)i, (double)h[i * K + c], (long long)c);
    }
    return GANQ_OK;
}

typedef struct ranked_column {
    float diagonal;
    int32_t column;
} ranked_column;
static int compare_ranked(const void *a, const void *b) {
    const ranked_column *x = a, *y = b;
    if (x->diagonal != y->diagonal)
        return x->diagonal > y->diagonal ? 1 : -1;
    return x->column - y->column;
}

/* Live columns by H_kk, dead ones, and the scale. */
static ganq_status rank_columns(ganq__problem *problem, const float *h) {
    const int64_t K = problem->K;
    ranked_column *ranked;
    GANQ_ALLOC(ranked, (size_t)K);
    int64_t live = 0, dead = 0;
    double sum = 0;
    for (int64_t k = 0; k < K; k++) {
        const float diagonal = h ? h[k * K + k] : 1;
        if (diagonal > 0) {
            ranked[live++] = (ranked_column){diagonal, (int32_t)k};
            sum += diagonal;
        } else {
            problem->dead[dead++] = (int32_t)k;
        }
    }
    qsort(ranked, (size_t)live, sizeof *ranked, compare_ranked);
    for (int64_t k = 0; k < live; k++)
        problem->columns[k] = ranked[k].column;
    ganq__free(ranked);
    problem->live = live;
    problem->ld = ganq__panel_ld(live);
    problem->scale = live > 0 ? ldexp(1, ilogb(sum / (double)live)) : 1;
    return GANQ_OK;
}

/* Whether no live column is tied to another: then rows are one-dimensional k-means problems. */
static int is_diagonal(const ganq__problem *problem, const float *h) {
    for (int64_t i = 0; h && i < problem->K; i++)
        for (int64_t j = 0; j < problem->K; j++)
            if (i != j && h[i * problem->K + j] != 0)
                return 0;
    return 1;
}

static void fill_diagonal(ganq__problem *problem, const float *h) {
    for (int64_t k = 0; k < problem->live; k++) {
        const double given =
            entry(h, problem->K, 1 / problem->scale, problem->columns[k], problem->columns[k]);
        const double value = given * (1 + problem->shrinkage);
        problem->diagonals[k] = (float)value;
        problem->inverses[k] = (float)(1 / value);
        problem->raised[k] = (double)problem->diagonals[k] - (double)(float)given;
    }
}

enum { FILL_ROWS = 64 };
enum { ORDER_MOST = 8192 }; /* columns: the order of more is by H_kk, docs/solver.md */
#define ORDER_DAMPING 0.01 /* as that of most paths: the order hardly depends on it */

typedef struct hessian_source {
    const ganq__problem *problem;
    ganq__factor *factor;
    const float *h;
    double *lower;
} hessian_source;

/* Row u of the scaled H, as it is in h, across the panels. */
static void fill_rows(void *user, int64_t item, int worker) {
    const hessian_source *source = user;
    const ganq__problem *problem = source->problem;
    const double unit = 1 / problem->scale; /* a power of two, maybe beyond f32 */
    (void)worker;
    for (int64_t u = FILL_ROWS * item; u < FILL_ROWS * (item + 1) && u < problem->live; u++) {
        const float *row = source->h ? source->h + problem->columns[u] * problem->K : NULL;
        for (int64_t j = 0; j < problem->live; j++)
            problem->hessian.data[ganq__panel_origin(&problem->hessian, j / GANQ__PANEL) +
                                  GANQ__PANEL * u + j % GANQ__PANEL] =
                row ? (float)(row[problem->columns[j]] * unit) : (float)(j == u);
    }
}

/* Averages the two halves of what may not be quite symmetric, square by square of 16 x 16. */
static void average_panel(void *user, int64_t p, int worker) {
    const hessian_source *source = user;
    const ganq__panels *m = &source->problem->hessian;
    (void)worker;
    for (int64_t q = 0; q <= p; q++) {
        float *a = m->data + ganq__panel_origin(m, p) + GANQ__PANEL * GANQ__PANEL * q;
        float *b = m->data + ganq__panel_origin(m, q) + GANQ__PANEL * GANQ__PANEL * p;
        for (int i = 0; i < GANQ__PANEL; i++)
            for (int j = 0; j < GANQ__PANEL; j++) {
                const double sum = (double)a[GANQ__PANEL * i + j] + (double)b[GANQ__PANEL * j + i];
                a[GANQ__PANEL * i + j] = b[GANQ__PANEL * j + i] = (float)(0.5 * sum);
            }
    }
}

static void fill_hessian(ganq__problem *problem, const float *h) {
    hessian_source source = {.problem = problem, .h = h};
    ganq__parallel_for(problem->ctx->pool, (problem->live + FILL_ROWS - 1) / FILL_ROWS, fill_rows,
                       &source);
    ganq__parallel_for(problem->ctx->pool, (problem->live + GANQ__PANEL - 1) / GANQ__PANEL,
                       average_panel, &source);
    for (int64_t k = 0; k < problem->live; k++)
        problem->hessian.data[ganq__panel_origin(&problem->hessian, k / GANQ__PANEL) +
                              GANQ__PANEL * k + k % GANQ__PANEL] = problem->diagonals[k];
}

static ganq_status build_hessian(ganq__problem *problem, const float *h) {
    const int64_t size = ganq__panels_size(problem->live, 0);
    problem->hessian = (ganq__panels){.K = problem->live, .ld = problem->ld};
    problem->hessian.data = ganq__malloc_aligned((size_t)size, sizeof(float));
    if (!problem->hessian.data)
        return GANQ_ERR_NO_MEMORY;
    memset(problem->hessian.data, 0, (size_t)size * sizeof(float));
    fill_hessian(problem, h);
    return GANQ_OK;
}

/* Live columns by what is left of them (ganq__order_by_pivots). */
static ganq_status order_by_pivots(ganq__problem *problem, const float *h) {
    const int64_t live = problem->live;
    int32_t *order = ganq__malloc((size_t)live, sizeof *order);
    int32_t *columns = ganq__malloc((size_t)live, sizeof *columns);
    double mean = 0;
    ganq_status status = order && columns ? GANQ_OK : GANQ_ERR_NO_MEMORY;
    for (int64_t k = 0; k < live; k++)
        mean += problem->diagonals[k];
    mean /= (double)live;
    if (status == GANQ_OK)
        status = ganq__order_by_pivots(problem->ctx, &problem->hessian, ORDER_DAMPING * mean, order);
    if (status == GANQ_OK) {
        for (int64_t k = 0; k < live; k++)
            columns[k] = problem->columns[order[k]];
        memcpy(problem->columns, columns, (size_t)live * sizeof *columns);
        fill_diagonal(problem, h);
        fill_hessian(problem, h);
    }
    ganq__free(order);
    ganq__free(columns);
    return status;
}

/* The columns of a factor: by live number, or as they are in W. */
static int compare_by_column(const void *a, const void *b) {
    const int32_t *x = a, *y = b; /* pairs (column, live number) */
    return (x[0] > y[0]) - (x[0] < y[0]);
}
static ganq_status order_columns(const ganq__problem *problem, ganq__factor *factor) {
    const int64_t live = problem->live;
    int32_t(*pairs)[2];
    GANQ_ALLOC(pairs, (size_t)live);
    for (int64_t k = 0; k < live; k++) {
        pairs[k][0] = problem->columns[k];
        pairs[k][1] = (int32_t)k;
    }
    if (!factor->ordered)
        qsort(pairs, (size_t)live, sizeof *pairs, compare_by_column);
    for (int64_t k = 0; k < live; k++) {
        factor->columns[k] = pairs[k][0];
        factor->live_index[k] = pairs[k][1];
    }
    ganq__free(pairs);
    return GANQ_OK;
}

/* Rows of the lower triangle of H + diag(offset) in the factor's order. */
static void fill_lower(void *user, int64_t item, int worker) {
    const hessian_source *source = user;
    const ganq__problem *problem = source->problem;
    const ganq__factor *factor = source->factor;
    (void)worker;
    for (int64_t i = FILL_ROWS * item; i < FILL_ROWS * (item + 1) && i < problem->live; i++) {
        double *row = source->lower + i * problem->ld;
        const ganq__panels *m = &problem->hessian;
        const int64_t u = factor->live_index[i];
        for (int64_t j = 0; j <= i; j++) {
            const int64_t k = factor->live_index[j];
            row[j] = m->data[ganq__panel_origin(m, k / GANQ__PANEL) + GANQ__PANEL * u +
                             k % GANQ__PANEL];
        }
        row[i] += factor->offset[i];
    }
}

/* Panel p of L in float32. */
static void store_panel(void *user, int64_t p, int worker) {
    const hessian_source *source = user;
    ganq__panels *m = &source->factor->lower;
    float *panel = m->data + ganq__panel_origin(m, p);
    (void)worker;
    for (int64_t u = GANQ__PANEL * p; u < m->K; u++)
        for (int64_t j = GANQ__PANEL * p; j < GANQ__PANEL * (p + 1) && j <= u; j++)
            panel[GANQ__PANEL * u + j % GANQ__PANEL] = (float)source->lower[u * m->ld + j];
}

/* Whether the plain H, dead columns included, can be factored in float32; *result 1: it cannot. */
static ganq_status float32_fails(ganq__problem *problem, const float *h, int *result) {
    const int64_t K = problem->K;
    *result = problem->live < K;
    if (*result || !h)
        return GANQ_OK;
    int definite = 0;
    const ganq_status status = ganq__definite_f32(problem->ctx, K, h, &definite);
    *result = !definite;
    return status;
}

/* The paper's offset max(sum_j |H_ij| - 2 H_ii, 1e-8), in the order of the factor. A row of H is
 * added to its column: FILL_ROWS rows at a time, so that a line of the latter serves all. */
static void dominance_offset(void *user, int64_t item, int worker) {
    const hessian_source *source = user;
    const ganq__problem *problem = source->problem;
    const int64_t K = problem->K, from = FILL_ROWS * item;
    const int64_t to = from + FILL_ROWS < problem->live ? from + FILL_ROWS : problem->live;
    double sums[FILL_ROWS] = {0};
    (void)worker;
    for (int64_t j = 0; j < K; j++)
        for (int64_t i = from; i < to; i++)
            sums[i - from] += fabs(entry(source->h, K, 1, source->factor->columns[i], j));
    for (int64_t i = from; i < to; i++) {
        const int64_t row = source->factor->columns[i];
        source->factor->offset[i] =
            fmax(sums[i - from] - 2 * entry(source->h, K, 1, row, row), 1e-8) / problem->scale;
    }
}

static ganq_status build_factor(ganq__problem *problem, ganq__factor *factor, const float *h,
                                ganq__damping_kind kind, double progress) {
    const int64_t live = problem->live, ld = problem->ld;
    factor->columns = ganq__malloc((size_t)live, sizeof(int32_t));
    factor->live_index = ganq__malloc((size_t)live, sizeof(int32_t));
    factor->offset = ganq__calloc((size_t)live, sizeof(double));
    factor->inverse = ganq__calloc((size_t)ld, sizeof(float));
    const int64_t size = ganq__panels_size(live, 1);
    factor->lower = (ganq__panels){.K = live, .ld = ld, .triangular = 1};
    factor->lower.data = ganq__malloc_aligned((size_t)size, sizeof(float));
    if (!factor->columns || !factor->live_index || !factor->offset || !factor->inverse ||
        !factor->lower.data)
        return GANQ_ERR_NO_MEMORY;
    GANQ_TRY(order_columns(problem, factor));
    double mean = 0;
    for (int64_t k = 0; k < live; k++)
        mean += problem->diagonals[k];
    mean /= (double)live;
    if (kind == GANQ__DAMPING_PAPER) {
        int fails = 0;
        GANQ_TRY(float32_fails(problem, h, &fails));
        hessian_source source = {.problem = problem, .factor = factor, .h = h};
        if (fails)
            ganq__parallel_for(problem->ctx->pool, (live + FILL_ROWS - 1) / FILL_ROWS,
                               dominance_offset, &source);
        problem->offset_added = fails;
        factor->damping = 0;
    } else {
        for (int64_t k = 0; k < live; k++)
            factor->offset[k] = factor->damping * mean;
    }
    double *a = ganq__calloc((size_t)(ld * ld), sizeof *a);
    if (!a)
        return GANQ_ERR_NO_MEMORY;
    int definite = 0;
    ganq_status status = GANQ_OK;
    /* H may be far from what X^T X can be; enough on the diagonal always helps. */
    for (int attempt = 0; status == GANQ_OK && !definite && attempt < 60; attempt++) {
        if (attempt > 0) {
            const double grown = factor->damping > 0 ? factor->damping * 10 : 1e-6;
            for (int64_t k = 0; k < live; k++)
                factor->offset[k] += (grown - factor->damping) * mean;
            factor->damping = grown;
        }
        hessian_source source = {.problem = problem, .factor = factor, .lower = a};
        ganq__parallel_for(problem->ctx->pool, (live + FILL_ROWS - 1) / FILL_ROWS, fill_lower,
                           &source);
        status = ganq__cholesky(problem->ctx, problem->ops, live, a, ld, progress, &definite);
    }
    if (status == GANQ_OK && definite) {
        memset(factor->lower.data, 0, (size_t)size * sizeof(float));
        hessian_source source = {.problem = problem, .factor = factor, .lower = a};
        ganq__parallel_for(problem->ctx->pool, ld / GANQ__PANEL, store_panel, &source);
        int64_t bare = 0; /* columns that the ones before them explain to 99% */
        for (int64_t k = 0; k < live; k++) {
            const double pivot = a[k * ld + k];
            factor->inverse[k] = (float)(1 / pivot);
            bare += pivot * pivot < 0.01 * problem->diagonals[factor->live_index[k]];
        }
        factor->low_rank = 100 * bare > live;
    }
    ganq__free(a);
    if (status == GANQ_OK && !definite)
        GANQ_FAIL(GANQ_ERR_NUMERIC,
                  "the Hessian cannot be factored, whatever is added to its diagonal");
    return status;
}

static void free_factor(ganq__factor *factor) {
    ganq__free(factor->columns);
    ganq__free(factor->live_index);
    ganq__free(factor->offset);
    ganq__free(factor->inverse);
    ganq__free(factor->lower.data);
}

ganq_status ganq__problem_open(ganq__problem *problem, ganq_context *ctx, int64_t N, int64_t K,
                               const float *w, const float *h, int64_t tokens, int bits,
                               const ganq__plan *plan) {
    memset(problem, 0, sizeof *problem);
    problem->ctx = ctx;
    problem->ops = ctx->solver;
    problem->N = N;
    problem->K = K;
    problem->w = w;
    problem->bits = bits;
    problem->levels = 1 << bits;
    problem->columns = ganq__malloc((size_t)K, sizeof(int32_t));
    problem->dead = ganq__malloc((size_t)K, sizeof(int32_t));
    if (!problem->columns || !problem->dead)
        return GANQ_ERR_NO_MEMORY;
    if (h)
        GANQ_TRY(check_hessian(ctx->pool, K, h));
    GANQ_TRY(rank_columns(problem, h));
    if (problem->live == 0)
        return GANQ_OK;
    if (plan->shrinks && tokens > 0)
        problem->shrinkage = tokens > problem->live ? (double)problem->live / (double)tokens : 1;
    problem->diagonals = ganq__calloc((size_t)problem->ld, sizeof(float));
    problem->inverses = ganq__calloc((size_t)problem->ld, sizeof(float));
    problem->raised = ganq__calloc((size_t)problem->ld, sizeof(double));
    if (!problem->diagonals || !problem->inverses || !problem->raised)
        return GANQ_ERR_NO_MEMORY;
    fill_diagonal(problem, h);
    problem->diagonal = is_diagonal(problem, h);
    problem->exact_factor = -1;
    if (problem->diagonal && !plan->literal)
        return GANQ_OK;
    GANQ_TRY(build_hessian(problem, h));
    if (!plan->literal && K <= ORDER_MOST)
        GANQ_TRY(order_by_pivots(problem, h));
    for (int i = 0; i < plan->factor_count; i++) {
        const int number = problem->factor_count++;
        ganq__factor *factor = &problem->factors[number];
        factor->ordered = plan->factors[i].ordered;
        factor->damping = plan->factors[i].damping;
        GANQ_TRY(
            build_factor(problem, factor, h, plan->factors[i].kind, 0.05 * i / plan->factor_count));
        GANQ_TRY(ganq__progress_tick(ctx, 0.05 * (i + 1) / plan->factor_count));
        /* With fewer tokens than inputs, less damping lowers the error on these tokens tenfold and
         * raises it on others: docs/solver.md. */
        if (number > 0 && factor->low_rank && factor->damping < problem->factors[0].damping) {
            free_factor(factor);
            memset(factor, 0, sizeof *factor);
            problem->factor_count--;
            continue;
        }
        if (factor->ordered && (problem->exact_factor < 0 ||
                                factor->damping < problem->factors[problem->exact_factor].damping))
            problem->exact_factor = number;
    }
    return GANQ_OK;
}

void ganq__problem_close(ganq__problem *problem) {
    for (int i = 0; i < problem->factor_count; i++)
        free_factor(&problem->factors[i]);
    ganq__free(problem->columns);
    ganq__free(problem->dead);
    ganq__free(problem->hessian.data);
    ganq__free(problem->diagonals);
    ganq__free(problem->inverses);
    ganq__free(problem->raised);
}
