/* The solver's figures on layers of the project's own model (layers.safetensors, made by make_fixture.py): real weights and
 * Hessians without any outside data. Bounds are 4% around (paper) or above (ours) what was measured. */
#include "solver_util.h"

START_TEST(test_fixture) {
    static const struct {
        const char *weight, *hessian;
        double paper[3], ours[3]; /* 2, 3 and 4 bits */
    } layers[] = {
        {"q_proj.weight", "q_proj.H", {1.4044e-2, 3.4388e-3, 7.977e-4}, {8.811e-3, 2.071e-3, 4.527e-4}},
        {"o_proj.weight", "o_proj.H", {1.7680e-2, 4.3797e-3, 8.233e-4}, {8.754e-3, 1.753e-3, 3.413e-4}},
    };
    ganq__tensors *tensors;
    ck_ganq_ok(ganq__tensors_open_file(GANQ_SOURCE_DIR "/tests/solver/layers.safetensors", &tensors));
    ganq_context *ctx = open_context(2);
    for (int i = 0; i < 2; i++) {
        layer l = load_layer(tensors, layers[i].weight, layers[i].hessian, 0);
        for (int bits = 2; bits <= 4; bits++) {
            const double paper = layers[i].paper[bits - 2];
            ganq__solution s = solve(ctx, &l, l.h, bits, GANQ_RECIPE_PAPER);
            check_range(layers[i].weight, s.error / s.norm, 0.96 * paper, 1.04 * paper);
            ganq__solution_free(&s);
            s = solve(ctx, &l, l.h, bits, GANQ_RECIPE_DEFAULT);
            check_range(layers[i].weight, s.error / s.norm, 0, 1.04 * layers[i].ours[bits - 2]);
            ganq__solution_free(&s);
        }
        drop_layer(&l);
    }
    close_context(ctx);
    ganq__tensors_free(tensors);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("solver fixture");
    TCase *tests = tcase_create("fixture");
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, test_fixture);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
