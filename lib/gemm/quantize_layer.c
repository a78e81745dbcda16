/* quantize_layer.c - weights and Hessian to a layer with its report. */
#include "quantize_layer.h"

#include "solver.h"

ganq_status ganq__layer_quantize(ganq_context *ctx, int64_t N, int64_t K, const float *w,
                                 const ganq_hessian *hessian, const float *bias, int32_t bias_dtype,
                                 const ganq_quantize_options *options, ganq_layer **out) {
    const ganq_quantize_options defaults = {.struct_size = sizeof defaults};
    ganq__solution s = {0};
    ganq_layer *layer = NULL;
    ganq_status status;
    if (hessian && hessian->K != K)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "the Hessian is %lld x %lld, expected %lld x %lld, the weight's columns",
                  (long long)hessian->K, (long long)hessian->K, (long long)K, (long long)K);
    GANQ_TRY(ganq__solve(ctx, N, K, w, hessian ? hessian->values : NULL, hessian ? hessian->tokens : 0,
                         options ? options : &defaults, &s));
    GANQ_TRY_GOTO(free_solution,
                  ganq__layer_create(s.bits, N, K, s.codes, s.lut, s.lut_dtype, s.outlier_rowptr,
                                     s.outlier_cols, s.outlier_vals, bias, bias_dtype, &layer));
    const ganq_layer_report report = {
        .struct_size = sizeof report,
        .recipe = s.recipe,
        .error = s.error,
        .norm = s.norm,
        .seconds = s.seconds,
        .damping = s.damping,
        .tokens = hessian ? hessian->tokens : 0,
        .step_count = s.step_count,
        .steps = s.steps,
        .note = s.note,
        .cost_count = GANQ_COST_FINISH,
        .costs = s.costs,
    };
    GANQ_TRY_GOTO(release_layer, ganq__layer_set_report(layer, &report));
    *out = layer;
    goto free_solution;
release_layer:
    ganq__layer_release(layer);
free_solution:
    ganq__solution_free(&s);
    return status;
}
