/* device.c - the solver's phases on a device with memory of its own (solver_device.h): what trials.c and finish.c do on
 * the CPU, many trials per call. A problem has `device` set when its context's device does that. */
#include <string.h>

#include "internal.h"
#include "solver_device.h"

static ganq_status pause_device(void *user) {
    ganq__problem *problem = user;
    return ganq__problem_pause(problem, 0) ? problem->status : GANQ_OK;
}

/* A phase that failed ends the layer, with the message in this thread. */
static void note(ganq__problem *problem, ganq_status status) {
    if (status != GANQ_OK) {
        problem->status = status;
        atomic_store(&problem->canceled, 1);
    }
}

ganq_status ganq__device_open(ganq__problem *problem) {
    const ganq__device_solver_ops *ops = problem->ctx->solver_device;
    ganq__device_factor factors[GANQ__FACTORS_MAX];
    if (!ops || problem->factor_count == 0)
        return GANQ_OK;
    for (int i = 0; i < problem->factor_count; i++)
        factors[i] = (ganq__device_factor){.lower = &problem->factors[i].lower,
                                           .inverse = problem->factors[i].inverse,
                                           .offset = problem->factors[i].offset,
                                           .columns = problem->factors[i].columns,
                                           .live_index = problem->factors[i].live_index};
    const ganq__device_problem description = {.N = problem->N,
                                              .K = problem->K,
                                              .live = problem->live,
                                              .ld = problem->ld,
                                              .levels = problem->levels,
                                              .w = problem->w,
                                              .hessian = &problem->hessian,
                                              .diagonals = problem->diagonals,
                                              .inverses = problem->inverses,
                                              .factor_count = problem->factor_count,
                                              .exact_factor = problem->exact_factor,
                                              .factors = factors};
    return ops->open(problem->ctx, &description, &problem->device);
}

void ganq__device_close(ganq__problem *problem) {
    if (problem->device)
        problem->ctx->solver_device->close(problem->ctx, problem->device);
    problem->device = NULL;
}

int64_t ganq__device_capacity(const ganq__problem *problem) {
    return problem->ctx->solver_device->capacity(problem->device);
}

/* The same trials in the device's words; trace: its first slot of this phase. NULL without memory. */
static ganq__device_trial *describe(ganq__problem *problem, const ganq__frame *frames,
                                    int64_t first_row, ganq__trial *const *trials, int64_t count,
                                    int slot) {
    ganq__device_trial *out = ganq__calloc((size_t)count, sizeof *out);
    for (int64_t i = 0; out && i < count; i++) {
        const ganq__frame *frame = &frames[trials[i]->row - first_row];
        out[i] = (ganq__device_trial){.row = trials[i]->row,
                                      .shift = frame->shift,
                                      .scale = frame->scale,
                                      .factor = trials[i]->factor,
                                      .outliers = trials[i]->outliers,
                                      .table = trials[i]->table,
                                      .best = trials[i]->best,
                                      .codes = trials[i]->codes,
                                      .error = trials[i]->error,
                                      .trace = trials[i]->trace + slot};
    }
    if (!out)
        note(problem, GANQ_ERR_NO_MEMORY);
    return out;
}

void ganq__device_alternate(ganq__problem *problem, const ganq__plan *plan,
                            const ganq__frame *frames, int64_t first_row, ganq__trial **trials,
                            int64_t count, int from, int to) {
    ganq__device_trial *described =
        describe(problem, frames, first_row, trials, count, ganq__slot_assign(from));
    if (!described)
        return;
    note(problem, problem->ctx->solver_device->alternate(
                      problem->ctx, problem->device, trials[0]->factor, plan->literal, to - from,
                      count, described, pause_device, problem));
    for (int64_t i = 0; i < count; i++) {
        trials[i]->table = described[i].table;
        trials[i]->best = described[i].best;
        trials[i]->error = described[i].error;
    }
    ganq__free(described);
}

/* Which columns are free, and their e: a batch of one trial, made of the device's vectors. */
static double set_outliers(void *user, int64_t outliers, const ganq__trial_table *table,
                              const float *w, float *e, float *g, uint8_t *codes) {
    ganq__problem *problem = user;
    ganq__trial_table tables[1] = {*table};
    ganq__batch batch = {.capacity = 1,
                         .ld = problem->ld,
                         .w = (float *)w,
                         .e = e,
                         .g = g,
                         .codes = codes,
                         .tables = tables};
    return outliers > 0 ? ganq__choose_outliers(problem, &batch, 0, outliers)
                        : ganq__fit_outliers(problem, &batch, 0);
}

void ganq__device_descend(ganq__problem *problem, const ganq__plan *plan, const ganq__frame *frames,
                          int64_t first_row, ganq__trial **trials, int64_t count) {
    ganq__device_trial *described =
        describe(problem, frames, first_row, trials, count, ganq__slot_descent(plan, 0));
    if (!described)
        return;
    note(problem, problem->ctx->solver_device->descend(
                      problem->ctx, problem->device, plan->rounds, plan->sweeps, count, described,
                      set_outliers, pause_device, problem));
    for (int64_t i = 0; i < count; i++) {
        trials[i]->best = described[i].best;
        trials[i]->error = described[i].error;
        trials[i]->factor = problem->exact_factor; /* whose places are the live numbers */
    }
    ganq__free(described);
}

static int64_t count_outliers(const ganq__problem *problem, const ganq__batch *batch, int64_t i) {
    int64_t count = 0;
    for (int64_t k = 0; k < problem->live; k++)
        count += !ganq__has_code(batch->codes[i * batch->ld + k]);
    return count;
}

void ganq__device_settle(ganq__problem *problem, ganq__batch *batch, const ganq__frame *frames,
                         int64_t first_row, int64_t count, int sweeps) {
    ganq__device_trial *described = ganq__calloc((size_t)count, sizeof *described);
    if (!described) {
        note(problem, GANQ_ERR_NO_MEMORY);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        described[i] = (ganq__device_trial){.row = first_row + i,
                                            .shift = frames[i].shift,
                                            .scale = frames[i].scale,
                                            .outliers = count_outliers(problem, batch, i),
                                            .table = batch->tables[i],
                                            .codes = batch->codes + i * batch->ld,
                                            .e = batch->e + i * batch->ld};
    note(problem, problem->ctx->solver_device->settle(problem->ctx, problem->device, sweeps, count, described,
                                                      set_outliers, pause_device, problem));
    ganq__free(described);
}

static void to_float(void *user, int64_t i, int worker) {
    const ganq__batch *batch = user;
    (void)worker;
    for (int64_t k = i * batch->ld; k < (i + 1) * batch->ld; k++)
        batch->e[k] = (float)batch->exact[k];
}

void ganq__device_energy(ganq__problem *problem, ganq__batch *batch, int64_t count) {
    ganq__parallel_for(problem->ctx->pool, count, to_float, batch);
    note(problem, problem->ctx->solver_device->energy(problem->ctx, problem->device, count,
                                                      batch->e, batch->energy));
    for (int64_t i = 0; i < count; i++)
        batch->energy[i] = ganq__nonnegative(batch->energy[i]);
}
