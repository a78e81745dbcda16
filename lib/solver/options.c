/* options.c - the recipes as data: what a recipe does is a function of K and bits alone, never of
 * N, time or threads. */
#include <math.h>

#include "internal.h"

ganq_status ganq__solver_options(ganq_quantize_options *ours, const ganq_quantize_options *theirs) {
    GANQ_TRY(ganq__options_read(ours, sizeof *ours, theirs, "ganq_quantize_options"));
    if (ours->bits == 0)
        ours->bits = 4;
    if (ours->bits < 2 || ours->bits > 4)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "bits is %d; 2, 3 and 4 are possible", ours->bits);
    if (ours->recipe < GANQ_RECIPE_DEFAULT || ours->recipe > GANQ_RECIPE_BEST)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "recipe is %d; 0 to %d are known", ours->recipe,
                  GANQ_RECIPE_BEST);
    if (ours->iterations < 0 || ours->iterations > 1000)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "iterations is %d; 0 (the recipe's) to 1000 are possible",
                  ours->iterations);
    if (!isfinite(ours->damping) || ours->damping > 1000)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "damping is %g; a fraction of the mean diagonal up to 1000 is possible",
                  (double)ours->damping);
    if (!(ours->outlier_ratio >= 0 && ours->outlier_ratio <= 0.1f))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "outlier_ratio is %g; 0 to 0.1 are possible",
                  (double)ours->outlier_ratio);
    if (ours->lut_dtype == 0)
        ours->lut_dtype = GANQ_DTYPE_F16;
    if (ours->lut_dtype != GANQ_DTYPE_F16 && ours->lut_dtype != GANQ_DTYPE_F32)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "lut_dtype is %d; F16 (%d) and F32 (%d) are possible",
                  ours->lut_dtype, GANQ_DTYPE_F16, GANQ_DTYPE_F32);
    if (ours->reserved != 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_quantize_options.reserved is %d, expected 0",
                  ours->reserved);
    return GANQ_OK;
}

static void plan_paper(ganq__plan *plan) {
    plan->starts[plan->start_count++] = (ganq__start){GANQ__START_PIECEWISE, 0};
    plan->factors[0].kind = GANQ__DAMPING_PAPER;
    plan->factor_count = 1;
    plan->probe = plan->alternations = 10;
    plan->kept = plan->finalists = 1;
    plan->literal = 1;
}

static void add_factor(ganq__plan *plan, int ordered, double damping) {
    plan->factors[plan->factor_count].kind = GANQ__DAMPING_MEAN;
    plan->factors[plan->factor_count].ordered = ordered;
    plan->factors[plan->factor_count++].damping = damping;
}

static void add_start(ganq__plan *plan, ganq__start_kind kind, double power) {
    plan->starts[plan->start_count++] = (ganq__start){kind, power};
}

/* The first path, k-means with weights L_kk^2 on the ordered factor with 1% damping, is in all
 * three recipes and always among the finalists: FAST is it alone, so that DEFAULT is never worse
 * than FAST, nor BEST than DEFAULT. The bounds on K keep a layer's time near N K^2 times a
 * constant: docs/solver.md has the table. */
static void plan_ours(ganq__plan *plan, int64_t K) {
    const int fast = plan->recipe == GANQ_RECIPE_FAST, best = plan->recipe == GANQ_RECIPE_BEST;
    add_start(plan, GANQ__START_KMEANS, 1);
    add_factor(plan, 1, 0.01);
    plan->probe = plan->alternations = 10;
    plan->kept = plan->finalists = 1;
    plan->rounds = 8;
    plan->sweeps = 4;
    plan->settles = 1;
    if (K > 2048) { /* what is left out is worth 2% of E, and half of the time */
        plan->probe = plan->alternations = fast ? 3 : 8;
        plan->rounds = fast ? 1 : 4;
        plan->settles = !fast;
    }
    if (fast)
        return;
    if (K <= 1024) {
        add_start(plan, GANQ__START_KMEANS, 1.5);
        add_start(plan, GANQ__START_KMEANS, 0.5);
        add_start(plan, GANQ__START_PIECEWISE, 0);
        add_factor(plan, 0, 0.01);
        add_factor(plan, 1, 0.0001);
        add_factor(plan, 0, 0.0001);
        plan->probe = 3;
        plan->kept = 4;
        plan->finalists = 2;
    } else if (K <= 2048) {
        add_start(plan, GANQ__START_KMEANS, 0.5);
        add_factor(plan, 1, 0.0001);
        plan->probe = 3;
        plan->kept = 2;
        plan->finalists = 2;
    } else {
        add_start(plan, GANQ__START_KMEANS, 0.5);
        plan->probe = 2;
    }
    if (best) {
        plan->offspring = 6;
        plan->generations = K <= 128 ? 16 : K <= 512 ? 10 : K <= 1024 ? 6 : K <= 2048 ? 4 : 2;
    }
}

void ganq__solver_plan(ganq__plan *plan, const ganq_quantize_options *options, int64_t K) {
    *plan = (ganq__plan){.recipe = options->recipe};
    if (options->recipe == GANQ_RECIPE_PAPER)
        plan_paper(plan);
    else if (options->recipe != GANQ_RECIPE_RTN)
        plan_ours(plan, K);
    plan->outlier_ratio = options->outlier_ratio;
    plan->shrinks = plan->rounds > 0 && options->damping == 0;
    if (options->outlier_ratio > 0 && plan->rounds > 0)
        plan->outlier_starts = options->recipe == GANQ_RECIPE_FAST || K > 2048 ? 2 : 3;
    if (options->iterations > 0 && plan->alternations > 0) {
        plan->alternations = options->iterations;
        if (plan->probe > plan->alternations || plan->kept == 0)
            plan->probe = plan->alternations;
    }
    if (options->damping != 0 && plan->factor_count > 0 && !plan->literal) {
        plan->factor_count = 0;
        add_factor(plan, 1, options->damping > 0 ? options->damping : 0);
    }
}
