/* trials.c - batches of trials: working memory, and the alternation of codes and tables (paper,
 * algorithm 1).
 *
 * Everything goes through the factor H + D = L L^T (D: damping or offset). With r = e L, which the
 * S-step leaves behind, e (H + D) e^T = |r|^2: no large terms cancel, float32 sums are enough. The
 * table step is solved for the change of the table, (S (H+D) S^T) step = S (H+D) e^T, by which
 * |r|^2 falls by slope . step; t = (w H S^T)(S H S^T)^+ (eq. 6) is the same table without the
 * cancellation of w H S^T. The plain error is |r|^2 - sum_k D_k e_k^2. */
#include <math.h>
#include <string.h>

#include "internal.h"

ganq_status ganq__batch_create(const ganq__problem *problem, int64_t capacity, ganq__batch *batch) {
    const size_t n = (size_t)capacity, ld = (size_t)problem->ld;
    memset(batch, 0, sizeof *batch);
    batch->capacity = capacity;
    batch->ld = problem->ld;
    batch->w = ganq__malloc_aligned(n * ld, sizeof(float));
    batch->e = ganq__malloc_aligned(n * ld, sizeof(float));
    batch->g = ganq__malloc_aligned(n * ld, sizeof(float));
    batch->exact = ganq__malloc_aligned(n * ld, sizeof(double));
    batch->codes = ganq__malloc_aligned(n * ld, 1);
    batch->tables = ganq__malloc_aligned(n, sizeof *batch->tables);
    batch->gram = ganq__malloc_aligned(n * GANQ__LEVELS * GANQ__LEVELS, sizeof(float));
    batch->slope = ganq__malloc_aligned(n * GANQ__LEVELS, sizeof(float));
    batch->scratch = ganq__malloc_aligned((size_t)ganq__solver_scratch(problem->ld, capacity), 1);
    batch->energy = ganq__malloc_aligned(n, sizeof(double));
    batch->change = ganq__malloc_aligned(n, sizeof(double));
    batch->moves = ganq__malloc_aligned(n, sizeof(int64_t));
    if (!batch->w || !batch->e || !batch->g || !batch->exact || !batch->codes || !batch->tables ||
        !batch->gram || !batch->slope || !batch->scratch || !batch->energy || !batch->change || !batch->moves)
        return GANQ_ERR_NO_MEMORY;
    memset(batch->w, 0, n * ld * sizeof(float));
    memset(batch->e, 0, n * ld * sizeof(float));
    memset(batch->g, 0, n * ld * sizeof(float));
    memset(batch->exact, 0, n * ld * sizeof(double));
    memset(batch->codes, 0, n * ld);
    return GANQ_OK;
}

void ganq__batch_free(ganq__batch *batch) {
    ganq__free(batch->w);
    ganq__free(batch->e);
    ganq__free(batch->g);
    ganq__free(batch->exact);
    ganq__free(batch->codes);
    ganq__free(batch->tables);
    ganq__free(batch->gram);
    ganq__free(batch->slope);
    ganq__free(batch->scratch);
    ganq__free(batch->energy);
    ganq__free(batch->change);
    ganq__free(batch->moves);
}

void ganq__row_values(const ganq__problem *problem, int64_t row, const ganq__frame *frame,
                      const int32_t *columns, float *x) {
    const float *w = problem->w + row * problem->K;
    for (int64_t k = 0; k < problem->live; k++)
        x[k] = (float)(((double)w[columns[k]] - frame->shift) * frame->scale);
}

/* sum_k D_k e_k^2 and, where asked for, its parts: counts and sums of D by code. */
static double offset_error(const ganq__factor *factor, int64_t live, const float *e) {
    double sum = 0;
    for (int64_t k = 0; k < live; k++)
        sum += factor->offset[k] * (double)e[k] * (double)e[k];
    return sum;
}

static void keep(ganq__trial *trial, const ganq__trial_table *table, const uint8_t *codes,
                 int64_t live, double error) {
    trial->error = error;
    trial->best = *table;
    memcpy(trial->codes, codes, (size_t)live);
}

/* The table after a step. Codes are not renumbered when `place` says that entries changed places.
 */
static void move_table(ganq__trial_table *table, int levels, const double *step, uint8_t *place) {
    double values[GANQ__LEVELS];
    for (int s = 0; s < levels; s++)
        values[s] = (double)table->value[s] + step[s];
    ganq__table_set(table, levels, values, place);
}

static void renumber(uint8_t *codes, int64_t count, const uint8_t *place) {
    for (int64_t k = 0; k < count; k++)
        if (ganq__has_code(codes[k]))
            codes[k] = place[codes[k]];
}

static void count_codes(const uint8_t *codes, int64_t live, int64_t *count) {
    memset(count, 0, GANQ__LEVELS * sizeof *count);
    for (int64_t k = 0; k < live; k++)
        if (ganq__has_code(codes[k]))
            count[codes[k]]++;
}

/* e of the columns that have a code. */
static void subtract_table(const ganq__trial_table *table, const uint8_t *codes, int64_t live,
                           const float *w, float *e) {
    for (int64_t k = 0; k < live; k++)
        if (ganq__has_code(codes[k]))
            e[k] = w[k] - table->value[codes[k]];
}

void ganq__alternate(ganq__problem *problem, const ganq__plan *plan, ganq__batch *batch,
                     const ganq__frame *frames, int64_t first_row, ganq__trial **trials,
                     int64_t count, int from, int to, int worker) {
    const ganq__solver_ops *ops = problem->ops;
    const int64_t live = problem->live, ld = problem->ld;
    const int levels = problem->levels;
    const ganq__factor *factor = &problem->factors[trials[0]->factor];
    double started = ganq__now();
    if (problem->device) {
        ganq__device_alternate(problem, plan, frames, first_row, trials, count, from, to);
        ganq__charge(&batch->costs, GANQ_COST_ASSIGN, started, 0);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        ganq__row_values(problem, trials[i]->row, &frames[trials[i]->row - first_row],
                         factor->columns, batch->w + i * ld);
        batch->tables[i] = trials[i]->table;
        memset(batch->codes + i * ld, 0, (size_t)ld);
        for (int64_t k = 0; trials[i]->outliers > 0 && k < live; k++)
            if (!ganq__has_code(trials[i]->codes[k]))
                batch->codes[i * ld + k] = trials[i]->codes[k];
    }
    for (int iteration = from; iteration < to; iteration++) {
        if (ganq__problem_pause(problem, worker))
            return;
        ops->assign(&factor->lower, factor->inverse, count, batch->w, batch->tables, batch->codes,
                    batch->e, batch->g, batch->scratch);
        started = ganq__charge(&batch->costs, GANQ_COST_ASSIGN, started,
                               0.5 * (double)count * (double)live * (double)live);
        ops->gram(&factor->lower, levels, count, batch->codes, batch->g, batch->gram, batch->slope,
                  batch->scratch);
        for (int64_t i = 0; i < count; i++) {
            ganq__trial *trial = trials[i];
            uint8_t *codes = batch->codes + i * ld, place[GANQ__LEVELS];
            float *e = batch->e + i * ld, *r = batch->g + i * ld;
            double damped = 0;
            for (int64_t k = 0; k < live; k++)
                damped += (double)r[k] * (double)r[k];
            /* below 0 by rounding only: what is exact must not lose to that */
            double error = ganq__nonnegative(damped - offset_error(factor, live, e));
            trial->trace[ganq__slot_assign(iteration)] = error;
            if (error < trial->error && !plan->literal)
                keep(trial, &batch->tables[i], codes, live, error);

            static const double no_offset[GANQ__LEVELS];
            int64_t used[GANQ__LEVELS];
            double step[GANQ__LEVELS], slope[GANQ__LEVELS];
            count_codes(codes, live, used);
            for (int s = 0; s < levels; s++)
                slope[s] = batch->slope[i * GANQ__LEVELS + s];
            double fall = ganq__table_step(levels, batch->gram + i * GANQ__LEVELS * GANQ__LEVELS,
                                           no_offset, used, slope, step);
            if (fall > damped && !plan->literal) { /* lost in rounding: no step */
                memset(step, 0, sizeof step);
                fall = 0;
            }
            for (int s = 0; s < levels && plan->literal; s++)
                if (used[s] == 0) /* what the pseudo-inverse gives */
                    step[s] = -(double)batch->tables[i].value[s];
            move_table(&batch->tables[i], levels, step, place);
            if (plan->literal)
                ganq__table_close_duplicates(&batch->tables[i], levels);
            renumber(codes, live, place);
            subtract_table(&batch->tables[i], codes, live, batch->w + i * ld, e);
            error = ganq__nonnegative(damped - fall - offset_error(factor, live, e));
            trial->trace[ganq__slot_assign(iteration) + 1] = error;
            if (error < trial->error)
                keep(trial, &batch->tables[i], codes, live, error);
        }
        started = ganq__charge(&batch->costs, GANQ_COST_TABLES, started,
                               2.0 * (double)count * (double)live * (double)live);
    }
    for (int64_t i = 0; i < count; i++)
        trials[i]->table = batch->tables[i];
}

void ganq__measure(ganq__problem *problem, ganq__batch *batch, int64_t count) {
    if (problem->device) {
        ganq__device_energy(problem, batch, count);
        return;
    }
    if (!problem->diagonal) {
        problem->ops->energy(&problem->hessian, count, batch->exact, batch->energy,
                             batch->scratch);
        for (int64_t i = 0; i < count; i++)
            batch->energy[i] = ganq__nonnegative(batch->energy[i]);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        batch->energy[i] = 0;
        for (int64_t k = 0; k < problem->live; k++)
            batch->energy[i] += problem->diagonals[k] * batch->exact[i * batch->ld + k] *
                                batch->exact[i * batch->ld + k];
    }
}

/* The table step with the undamped H: gram = S L L^T S^T less the segmented sums of D, slope = S g.
 * A step that raises the error is not taken. Returns by how much the error changed. */
static double exact_table_step(const ganq__problem *problem, const ganq__factor *factor,
                               float *gram, const float *g, ganq__trial_table *table,
                               uint8_t *codes) {
    const int64_t live = problem->live;
    const int levels = problem->levels;
    int64_t used[GANQ__LEVELS];
    double slope[GANQ__LEVELS] = {0}, offset[GANQ__LEVELS] = {0}, step[GANQ__LEVELS];
    uint8_t place[GANQ__LEVELS];
    count_codes(codes, live, used);
    for (int64_t k = 0; k < live; k++) {
        if (!ganq__has_code(codes[k]))
            continue;
        slope[codes[k]] += g[k];
        offset[codes[k]] += factor->offset[k];
    }
    ganq__table_step(levels, gram, offset, used, slope, step);
    ganq__trial_table moved = *table;
    move_table(&moved, levels, step, place);
    double change = 0; /* of the quadratic, for the steps as float32 holds them */
    double taken[GANQ__LEVELS];
    for (int s = 0; s < levels; s++)
        taken[s] = (double)moved.value[place[s]] - (double)table->value[s];
    for (int s = 0; s < levels; s++) {
        if (used[s] == 0)
            continue;
        double row = 0;
        for (int t = 0; t < levels; t++)
            if (used[t] > 0)
                row += ((double)gram[GANQ__LEVELS * s + t] - (s == t ? offset[s] : 0)) * taken[t];
        change += taken[s] * (row - 2 * slope[s]);
    }
    if (!(change < 0))
        return 0;
    *table = moved;
    renumber(codes, live, place);
    return change;
}

/* Moves trial `from` of the batch to place `to`: finished trials leave the batch. */
static void move_trial(ganq__batch *batch, ganq__trial **trials, double *errors, int64_t to,
                       int64_t from) {
    const size_t ld = (size_t)batch->ld;
    if (to == from)
        return;
    memcpy(batch->w + (size_t)to * ld, batch->w + (size_t)from * ld, ld * sizeof(float));
    memcpy(batch->e + (size_t)to * ld, batch->e + (size_t)from * ld, ld * sizeof(float));
    memcpy(batch->g + (size_t)to * ld, batch->g + (size_t)from * ld, ld * sizeof(float));
    memcpy(batch->codes + (size_t)to * ld, batch->codes + (size_t)from * ld, ld);
    batch->tables[to] = batch->tables[from];
    batch->moves[to] = batch->moves[from];
    trials[to] = trials[from];
    errors[to] = errors[from];
}

/* The time of a gradient or a sweep of so many trials. */
static double charge_descent(const ganq__problem *problem, ganq__batch *batch, int64_t count,
                             double from) {
    return ganq__charge(&batch->costs, GANQ_COST_DESCENT, from,
                        (double)count * (double)problem->live * (double)problem->live);
}

/* Sweeps until a sweep changes no code, at most `sweeps`; batch->change gets the change of the
 * error, batch->moves the codes changed in all. */
static void descend_codes(ganq__problem *problem, ganq__batch *batch, int64_t count, int sweeps,
                          int worker) {
    int64_t moves[GANQ__BATCH];
    for (int64_t i = 0; i < count; i++) {
        batch->change[i] = 0;
        batch->moves[i] = 0;
    }
    for (int sweep = 0; sweep < sweeps; sweep++) {
        if (ganq__problem_pause(problem, worker))
            return;
        const double started = ganq__now();
        problem->ops->sweep(&problem->hessian, problem->diagonals, problem->inverses, count,
                            batch->w, batch->tables, batch->codes, batch->e, batch->g,
                            batch->change, moves);
        int64_t total = 0;
        for (int64_t i = 0; i < count; i++) {
            batch->moves[i] += moves[i];
            total += moves[i];
        }
        charge_descent(problem, batch, count, started);
        if (total == 0)
            return;
    }
}

/* e of trial i of the batch from its table and codes, as if outliers were exact. */
static void begin_residuals(const ganq__problem *problem, ganq__batch *batch, int64_t i) {
    float *e = batch->e + i * batch->ld;
    memset(e, 0, (size_t)batch->ld * sizeof *e);
    subtract_table(&batch->tables[i], batch->codes + i * batch->ld, problem->live,
                   batch->w + i * batch->ld, e);
}

void ganq__settle(ganq__problem *problem, ganq__batch *batch, int64_t count, int sweeps,
                  int worker) {
    const double started = ganq__now();
    for (int64_t i = 0; i < count; i++)
        begin_residuals(problem, batch, i);
    problem->ops->product(&problem->hessian, count, batch->e, batch->g, batch->scratch);
    for (int64_t i = 0; i < count; i++)
        ganq__fit_outliers(problem, batch, i);
    charge_descent(problem, batch, count, started);
    descend_codes(problem, batch, count, sweeps, worker);
    for (int64_t i = 0; i < count; i++)
        ganq__fit_outliers(problem, batch, i);
}

/* A trial's best into place i of the batch, by live number. */
static void load_best(const ganq__problem *problem, ganq__batch *batch, const ganq__trial *trial,
                      const ganq__frame *frame, int64_t i) {
    const ganq__factor *own = &problem->factors[trial->factor];
    const int64_t live = problem->live, ld = batch->ld;
    uint8_t *codes = batch->codes + i * ld;
    ganq__row_values(problem, trial->row, frame, problem->columns, batch->w + i * ld);
    batch->tables[i] = trial->best;
    memset(codes, 0, (size_t)ld);
    for (int64_t k = 0; k < live; k++)
        codes[own->live_index[k]] = trial->codes[k];
    begin_residuals(problem, batch, i);
}


/* batch->exact of trial i: what float32 loses in w - t is not in it. */
static void widen_residuals(const ganq__problem *problem, ganq__batch *batch, int64_t i) {
    const float *w = batch->w + i * batch->ld, *e = batch->e + i * batch->ld;
    const uint8_t *codes = batch->codes + i * batch->ld;
    double *exact = batch->exact + i * batch->ld;
    for (int64_t k = 0; k < problem->live; k++)
        exact[k] = ganq__has_code(codes[k])
                       ? (double)w[k] - (double)batch->tables[i].value[codes[k]]
                       : e[k];
}

/* e g^T, and the sum of its terms' magnitudes. */
static double dot(int64_t live, const float *e, const float *g, double *size) {
    double error = 0;
    *size = 0;
    for (int64_t k = 0; k < live; k++) {
        error += (double)e[k] * (double)g[k];
        *size += fabs((double)e[k] * (double)g[k]);
    }
    return error;
}

/* Whether e g^T agrees with the error that a table step promised. The step is solved from float32
 * sums: along a direction in which the inputs hardly vary it may be far off. */
static int step_holds(int64_t live, const float *e, const float *g, double before,
                      double promised) {
    double size;
    const double error = dot(live, e, g, &size);
    return fabs(error - promised) <= 0.02 * before + 2e-6 * size;
}

/* The undamped table step of all trials, with g for what they end up with. */
static void descend_tables(ganq__problem *problem, ganq__batch *batch, ganq__trial **trials,
                           int64_t count, double *errors) {
    const ganq__solver_ops *ops = problem->ops;
    const ganq__factor *factor = &problem->factors[problem->exact_factor];
    const int64_t live = problem->live, ld = problem->ld;
    double started = ganq__now();
    ops->gram(&factor->lower, problem->levels, count, batch->codes, NULL, batch->gram, NULL,
              batch->scratch);
    for (int64_t i = 0; i < count; i++) {
        batch->change[i] =
            exact_table_step(problem, factor, batch->gram + i * GANQ__LEVELS * GANQ__LEVELS,
                             batch->g + i * ld, &batch->tables[i], batch->codes + i * ld);
        subtract_table(&batch->tables[i], batch->codes + i * ld, live, batch->w + i * ld,
                       batch->e + i * ld);
    }
    started = ganq__charge(&batch->costs, GANQ_COST_TABLES, started,
                           2.0 * (double)count * (double)live * (double)live);
    ops->product(&problem->hessian, count, batch->e, batch->g, batch->scratch);
    for (int64_t i = 0; i < count; i++) {
        float *e = batch->e + i * ld, *g = batch->g + i * ld;
        if (step_holds(live, e, g, errors[i], errors[i] + batch->change[i])) {
            errors[i] += batch->change[i];
            continue;
        }
        batch->tables[i] = trials[i]->best; /* as the round before left it */
        memcpy(batch->codes + i * ld, trials[i]->codes, (size_t)live);
        subtract_table(&batch->tables[i], batch->codes + i * ld, live, batch->w + i * ld, e);
        ops->product(&problem->hessian, 1, e, g, batch->scratch);
    }
    charge_descent(problem, batch, count, started);
}

void ganq__descend(ganq__problem *problem, const ganq__plan *plan, ganq__batch *batch,
                   const ganq__frame *frames, int64_t first_row, ganq__trial **trials,
                   int64_t count, int worker) {
    const int64_t live = problem->live, ld = problem->ld;
    double errors[GANQ__BATCH];
    const double started = ganq__now();
    if (problem->device) {
        ganq__device_descend(problem, plan, frames, first_row, trials, count);
        ganq__charge(&batch->costs, GANQ_COST_DESCENT, started, 0);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        load_best(problem, batch, trials[i], &frames[trials[i]->row - first_row], i);
    problem->ops->product(&problem->hessian, count, batch->e, batch->g, batch->scratch);
    for (int64_t i = 0; i < count; i++) {
        double size;
        errors[i] = dot(live, batch->e + i * ld, batch->g + i * ld, &size);
        if (trials[i]->outliers > 0)
            errors[i] += ganq__fit_outliers(problem, batch, i);
    }
    charge_descent(problem, batch, count, started);
    for (int round = 0; round <= plan->rounds && count > 0; round++) {
        if (ganq__problem_pause(problem, worker))
            return;
        if (round > 0) {
            descend_tables(problem, batch, trials, count, errors);
            for (int64_t i = 0; i < count; i++)
                trials[i]->trace[ganq__slot_descent(plan, round) - 1] = errors[i];
        }
        descend_codes(problem, batch, count, plan->sweeps, worker);
        int64_t going = 0;
        for (int64_t i = 0; i < count; i++) {
            errors[i] += batch->change[i];
            ganq__trial *trial = trials[i];
            if (trial->outliers > 0 && round <= 2) {
                errors[i] += ganq__choose_outliers(problem, batch, i, trial->outliers);
                batch->moves[i] = 1; /* not at rest yet */
            }
            trial->trace[ganq__slot_descent(plan, round)] = errors[i];
            trial->factor = problem->exact_factor; /* whose places are the live numbers */
            keep(trial, &batch->tables[i], batch->codes + i * ld, live, errors[i]);
            if (batch->moves[i] == 0 && round > 0)
                continue;
            move_trial(batch, trials, errors, going++, i);
        }
        count = going;
    }
}

void ganq__measure_trials(ganq__problem *problem, ganq__batch *batch, const ganq__frame *frames,
                          int64_t first_row, ganq__trial **trials, int64_t count) {
    if (problem->device) /* descent has measured them */
        return;
    for (int64_t i = 0; i < count; i++)
        load_best(problem, batch, trials[i], &frames[trials[i]->row - first_row], i);
    if (count > 0 && trials[0]->outliers > 0) { /* then all have some */
        problem->ops->product(&problem->hessian, count, batch->e, batch->g, batch->scratch);
        for (int64_t i = 0; i < count; i++)
            ganq__fit_outliers(problem, batch, i);
    }
    for (int64_t i = 0; i < count; i++)
        widen_residuals(problem, batch, i);
    ganq__measure(problem, batch, count);
    for (int64_t i = 0; i < count; i++)
        trials[i]->error = batch->energy[i];
}
