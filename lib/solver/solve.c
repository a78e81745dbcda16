/* solve.c - one layer from W and H to codes and tables: the driver. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "internal.h"

/* Small layers need several tiles to keep the threads busy; at large K a factor that is read from
 * memory should serve as many rows as go through the kernels together. */
int64_t ganq__tile_rows(int64_t K) {
    return K <= 768 ? 16 : GANQ__BATCH;
}

int ganq__problem_pause(ganq__problem *problem, int worker) {
    if (worker == 0 && !atomic_load_explicit(&problem->canceled, memory_order_relaxed)) {
        const double done = (double)atomic_load(&problem->tiles_done) / (double)problem->tiles;
        const ganq_status status = ganq__progress_tick(
            problem->ctx, problem->progress_from + (problem->progress_to - problem->progress_from) *
                                                       (done < 1 ? done : 1));
        if (status != GANQ_OK) {
            problem->status = status;
            atomic_store(&problem->canceled, 1);
        }
    }
    return atomic_load_explicit(&problem->canceled, memory_order_relaxed);
}

void ganq__tile_failed(ganq__problem *problem) {
    atomic_store(&problem->failed, 1);
    atomic_store(&problem->canceled, 1);
}

ganq__frame ganq__row_frame(const ganq__problem *problem, int64_t row) {
    double largest = 0;
    for (int64_t k = 0; k < problem->K; k++)
        largest = fmax(largest, fabs((double)problem->w[row * problem->K + k]));
    return (ganq__frame){0, largest > 0 ? ldexp(1, -ilogb(largest)) : 1};
}

uint64_t ganq__row_hash(const ganq__problem *problem, int64_t row) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a over the row's 32-bit words */
    const float *w = problem->w + row * problem->K;
    for (int64_t k = 0; k < problem->K; k++) {
        uint32_t bits;
        memcpy(&bits, &w[k], sizeof bits);
        hash = (hash ^ bits) * 1099511628211u;
    }
    hash ^= hash >> 32; /* the low bits of the product have seen least */
    return hash * 0x9e3779b97f4a7c15u;
}

uint8_t ganq__nearest_code(int levels, const float *lut, float x) {
    int best = 0;
    for (int s = 1; s < levels; s++)
        if (fabsf(x - lut[s]) < fabsf(x - lut[best]))
            best = s;
    return (uint8_t)best;
}

void ganq__nearest_codes(const ganq__problem *problem, int64_t row, const float *lut,
                         uint8_t *codes) {
    for (int64_t k = 0; k < problem->K; k++)
        codes[k] = ganq__nearest_code(problem->levels, lut, problem->w[row * problem->K + k]);
}

void ganq__dead_codes(const ganq__problem *problem, int64_t row, const float *lut, uint8_t *codes) {
    for (int64_t i = 0; i < problem->K - problem->live; i++) {
        const int64_t k = problem->dead[i];
        codes[k] = ganq__nearest_code(problem->levels, lut, problem->w[row * problem->K + k]);
    }
}

void ganq__store_table(ganq__result *result, int64_t row, const ganq__trial_table *table,
                       const ganq__frame *frame) {
    const int levels = result->problem->levels;
    for (int s = 0; s < levels; s++) {
        const double value = (double)table->value[s] / frame->scale + frame->shift;
        result->lut[row * levels + s] = value > FLT_MAX    ? FLT_MAX
                                        : value < -FLT_MAX ? -FLT_MAX
                                                           : (float)value;
    }
}

static ganq_status check_weights(int64_t N, int64_t K, const float *w) {
    for (int64_t n = 0; n < N; n++) {
        const int64_t k = ganq__find_nonfinite(w + n * K, K);
        if (k >= 0)
            GANQ_FAIL(GANQ_ERR_NUMERIC,
                      "the weights have a NaN or infinity at row %lld, column %lld", (long long)n,
                      (long long)k);
    }
    return GANQ_OK;
}

double ganq__row_weight(const ganq__result *result, int64_t row) {
    return result->row_weights ? (double)result->row_weights[row] : 1;
}

/* *out: NULL where none are given. */
static ganq_status read_row_weights(const ganq_matrix *given, int64_t N, float **out) {
    ganq_matrix m;
    if (!given)
        return GANQ_OK;
    GANQ_TRY(ganq__matrix_read(&m, given, GANQ__DTYPES_FLOAT, 1, N, "row_weights"));
    float *weights = ganq__malloc((size_t)N, sizeof *weights);
    if (!weights)
        return GANQ_ERR_NO_MEMORY;
    ganq__to_f32(weights, m.data, m.dtype, N);
    for (int64_t n = 0; n < N; n++)
        if (!(weights[n] >= 0) || isinf(weights[n])) {
            const double found = weights[n];
            ganq__free(weights);
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "row_weights: row %lld is %g; finite numbers from 0 on are possible",
                      (long long)n, found);
        }
    *out = weights;
    return GANQ_OK;
}

/* F16 where no difference of a table's entry and an outlier can overflow it. */
static int32_t outlier_dtype(int64_t count, const float *w) {
    float largest = 0;
    for (int64_t i = 0; i < count; i++)
        largest = fmaxf(largest, fabsf(w[i]));
    return 8 * largest < 65504 ? GANQ_DTYPE_F16 : GANQ_DTYPE_F32;
}

static ganq_status run_tiles(ganq__result *result, ganq__pool *pool, int64_t tiles,
                             ganq__item_fn fn, void *user, double from, double to) {
    ganq__problem *problem = result->problem;
    atomic_store(&problem->tiles_done, 0);
    problem->tiles = tiles;
    problem->progress_from = from;
    problem->progress_to = to;
    ganq__parallel_for(pool, tiles, fn, user);
    /* The message of a worker stays in its thread. */
    if (atomic_load(&problem->failed))
        GANQ_FAIL(GANQ_ERR_NO_MEMORY,
                  "out of memory for the working data of %lld rows of %lld weights",
                  (long long)ganq__tile_rows(problem->K), (long long)problem->K);
    return problem->status;
}

ganq_status ganq__run_tiles(ganq__result *result, int64_t tiles, ganq__item_fn fn, void *user,
                            double from, double to) {
    ganq__pool *pool = result->problem->device ? NULL : result->problem->ctx->pool;
    return run_tiles(result, pool, tiles, fn, user, from, to);
}

ganq_status ganq__run_host_tiles(ganq__result *result, int64_t tiles, ganq__item_fn fn, void *user,
                                 double from, double to) {
    return run_tiles(result, result->problem->ctx->pool, tiles, fn, user, from, to);
}

/* batches [count]: those of the threads, or on a device one that stands for all of them. */
static void write_costs(const ganq__result *result, int count, int threads, ganq__solution *out) {
    for (int stage = 1; stage <= GANQ_COST_FINISH; stage++) {
        ganq_cost *cost = &out->costs[stage - 1];
        const double together = stage == GANQ_COST_PREPARE  ? result->prepare_seconds
                                : stage == GANQ_COST_STARTS ? result->start_seconds
                                                            : 0;
        *cost = (ganq_cost){.stage = stage, .seconds = threads * together};
        for (int i = 0; i < count; i++) {
            cost->seconds += result->batches[i].costs.seconds[stage] * threads / count;
            cost->work += result->batches[i].costs.work[stage];
        }
    }
}

static ganq_status write_steps(const ganq__result *result, ganq__solution *out) {
    const ganq__plan *plan = result->plan;
    const int64_t N = result->problem->N;
    GANQ_ALLOC(out->steps, (size_t)result->slots + 1);
    int64_t count = 0;
    const int descends = result->problem->factor_count > 0 && plan->rounds > 0;
    for (int s = 1; s < result->slots && plan->start_count > 0; s++) {
        const int descent = s - 1 - 2 * plan->alternations;
        ganq_step step = {0};
        if (s == ganq__slot_outliers(plan)) {
            if (plan->literal || plan->outlier_ratio <= 0)
                continue;
            step.kind = GANQ_STEP_OUTLIERS;
        } else if (s == ganq__slot_search(plan)) {
            if (!descends || plan->generations == 0)
                continue;
            step.kind = GANQ_STEP_DESCENT;
            step.iteration = plan->rounds + 1;
        } else if (descent >= 0 ? !descends : result->problem->factor_count == 0) {
            continue;
        } else if (descent < 0) {
            step.kind = s % 2 ? GANQ_STEP_ASSIGN : GANQ_STEP_TABLES;
            step.iteration = (s - 1) / 2;
        } else {
            step.kind = s % 2 ? GANQ_STEP_DESCENT : GANQ_STEP_TABLES;
            step.iteration = (descent + 1) / 2;
        }
        for (int64_t n = 0; n < N; n++)
            step.error +=
                ganq__row_weight(result, n) * result->trace[n * result->slots + s];
        out->steps[count++] = step;
    }
    out->steps[count++] = (ganq_step){GANQ_STEP_ROUND, 0, out->error};
    out->step_count = count;
    return GANQ_OK;
}

#define MUCH_SHRINKAGE 0.25 /* fewer than 4 tokens per input */

/* What the caller should know about how the layer came out. */
static void write_note(const ganq__problem *problem, const ganq__plan *plan, ganq__solution *out) {
    char *note = out->note;
    size_t used = 0;
    const size_t size = sizeof out->note;
    if (plan->literal && problem->bits == 2)
        used += (size_t)snprintf(note, size,
                                 "start table for 2 bits is ours: quantiles 0, 1/3, 2/3, 1");
    if (problem->offset_added)
        used +=
            (size_t)snprintf(note + used, size - used, "%sdiagonal offset added", used ? "; " : "");
    if (problem->factor_count > 0 &&
        problem->factors[0].damping > 1.001 * plan->factors[0].damping && !plan->literal)
        used += (size_t)snprintf(note + used, size - used, "%sdamping raised from %g to %g",
                                 used ? "; " : "", plan->factors[0].damping,
                                 problem->factors[0].damping);
    if (problem->shrinkage >= MUCH_SHRINKAGE)
        used += (size_t)snprintf(note + used, size - used, "%sfew tokens: H shrunk to its diagonal by %g",
                                 used ? "; " : "", problem->shrinkage);
    if (problem->live < problem->K)
        snprintf(note + used, size - used, "%s%lld dead inputs", used ? "; " : "",
                 (long long)(problem->K - problem->live));
}

void ganq__solution_free(ganq__solution *solution) {
    ganq__free(solution->codes);
    ganq__free(solution->lut);
    ganq__free(solution->outlier_rowptr);
    ganq__free(solution->outlier_cols);
    ganq__free(solution->outlier_vals);
    ganq__free(solution->steps);
    memset(solution, 0, sizeof *solution);
}

ganq_status ganq__solve(ganq_context *ctx, int64_t N, int64_t K, const float *w, const float *h,
                        int64_t tokens, const ganq_quantize_options *options,
                        ganq__solution *out) {
    const double started = ganq__now();
    ganq_quantize_options o;
    GANQ_TRY(ganq__solver_options(&o, options));
    GANQ_TRY(check_weights(N, K, w));
    ganq__plan plan;
    ganq__solver_plan(&plan, &o, K);

    ganq__problem problem = {0};
    float *row_weights = NULL;
    ganq__solution solution = {.bits = o.bits, .N = N, .K = K, .recipe = o.recipe};
    ganq__result result = {.problem = &problem, .plan = &plan, .slots = ganq__slot_count(&plan)};
    int batches = ganq__pool_threads(ctx->pool);
    ganq_status status;
    GANQ_TRY_GOTO(close, read_row_weights(o.row_weights, N, &row_weights));
    result.row_weights = row_weights;
    GANQ_TRY_GOTO(close, ganq__problem_open(&problem, ctx, N, K, w, h, tokens, o.bits, &plan));
    const int no_effect = problem.live == 0;
    if (no_effect) { /* nothing in H: the weights alone decide */
        ganq__problem_close(&problem);
        GANQ_TRY_GOTO(close, ganq__problem_open(&problem, ctx, N, K, w, NULL, 0, o.bits, &plan));
    }
    GANQ_TRY_GOTO(close, ganq__device_open(&problem));
    result.prepare_seconds = ganq__now() - started;
    result.lut_dtype = o.lut_dtype;
    result.outlier_dtype = outlier_dtype(N * K, w);
    GANQ_ALLOC_GOTO(close, solution.codes, (size_t)(N * K));
    GANQ_ALLOC_GOTO(close, solution.lut, (size_t)(N << o.bits));
    if (o.outlier_ratio > 0 && o.recipe != GANQ_RECIPE_PAPER && o.recipe != GANQ_RECIPE_RTN) {
        result.per_row = (int64_t)(o.outlier_ratio * (double)K) + 1;
        GANQ_ALLOC_GOTO(close, result.fitted, (size_t)(N * result.per_row));
    }
    GANQ_CALLOC_GOTO(close, result.trace, (size_t)(N * result.slots));
    GANQ_ALLOC_GOTO(close, result.errors, (size_t)N);
    GANQ_ALLOC_GOTO(close, result.norms, (size_t)N);
    if (problem.device)
        batches = 1;
    GANQ_CALLOC_GOTO(close, result.batches, (size_t)batches);
    result.codes = solution.codes;
    result.lut = solution.lut;
    for (int i = 0; i < batches; i++)
        GANQ_TRY_GOTO(close, ganq__batch_create(&problem, problem.device ? GANQ__DEVICE_BATCH : GANQ__BATCH,
                                                &result.batches[i]));

    if (o.recipe == GANQ_RECIPE_PAPER)
        GANQ_TRY_GOTO(close, ganq__solve_paper(&result));
    else if (o.recipe == GANQ_RECIPE_RTN)
        GANQ_TRY_GOTO(close, ganq__solve_rtn(&result));
    else
        GANQ_TRY_GOTO(close, ganq__solve_paths(&result));
    GANQ_TRY_GOTO(close, ganq__finish(&result));
    solution.lut_dtype = result.lut_dtype;
    if (o.outlier_ratio > 0)
        GANQ_TRY_GOTO(close, ganq__collect_outliers(&result, &solution));
    for (int64_t n = 0; n < N && !no_effect; n++) {
        const double weight = problem.scale * ganq__row_weight(&result, n);
        solution.error += weight * result.errors[n];
        solution.norm += weight * result.norms[n];
    }
    solution.damping = problem.factor_count > 0 ? problem.factors[0].damping : 0;
    write_note(&problem, &plan, &solution);
    write_costs(&result, batches, ganq__pool_threads(ctx->pool), &solution);
    GANQ_TRY_GOTO(close, write_steps(&result, &solution));
    solution.seconds = ganq__now() - started;
    *out = solution;
    memset(&solution, 0, sizeof solution);
close:
    for (int i = 0; result.batches && i < batches; i++)
        ganq__batch_free(&result.batches[i]);
    ganq__device_close(&problem);
    ganq__free(result.batches);
    ganq__free(result.fitted);
    ganq__free(result.trace);
    ganq__free(result.errors);
    ganq__free(result.norms);
    ganq__free(row_weights);
    ganq__problem_close(&problem);
    ganq__solution_free(&solution);
    return status;
}
