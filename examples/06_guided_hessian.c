/* 06_guided_hessian.c - quantize for the loss, not for the layer's output: a Hessian weighted by gradients, made by the
 * caller. A token t whose output matters much to the loss has a large gradient there, and counts g_t = |dLoss/dy_t|^2 times:
 * H = X^T diag(g) X. Rows whose gradients are large count more in the sum, by their row weights; rows are independent, so
 * that these change what is reported and not the codes.
 *   cc 06_guided_hessian.c $(pkg-config --cflags --libs ganq) -lm && ./a.out */
#include "example.h"

#include <math.h>

enum { N = 48, K = 64, TOKENS = 2000 };

static float uniform(void) { return (float)rand() / (float)RAND_MAX - 0.5f; }

static float x[TOKENS * K], gradients[TOKENS * N], w[N * K], row_weights[N];
static double plain[K * K], guided[K * K];

/* Activations, weights and gradients as a training framework would deliver them: one token in eight decides the loss. */
static void make_data(void) {
    for (int i = 0; i < N * K; i++)
        w[i] = uniform();
    for (int t = 0; t < TOKENS; t++) {
        const float matters = t % 8 == 0 ? 4.0f : 0.25f;
        float previous = 0;
        for (int k = 0; k < K; k++) /* those tokens also use other features */
            x[t * K + k] = previous = 0.7f * previous + uniform() * (t % 8 == (k < K / 2 ? 0 : 1) ? 4.0f : 1.0f);
        for (int n = 0; n < N; n++)
            gradients[t * N + n] = matters * uniform() * (n < N / 4 ? 2.0f : 1.0f);
    }
}

/* H = X^T X, H_guided = X^T diag(g) X, and the mean squared gradient of each row. */
static void add_up(void) {
    for (int t = 0; t < TOKENS; t++) {
        double g = 0;
        for (int n = 0; n < N; n++) {
            const float square = gradients[t * N + n] * gradients[t * N + n];
            g += square / N;
            row_weights[n] += square / TOKENS;
        }
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++) {
                const double product = (double)x[t * K + i] * x[t * K + j];
                plain[i * K + j] += product;
                guided[i * K + j] += g * product;
            }
    }
}

int main(void) {
    make_data();
    add_up();
    ganq_context *ctx;
    ganq_hessian *hessians[2];
    ganq_matrix weight = GANQ_MATRIX(GANQ_DTYPE_F32, N, K, w);
    ganq_matrix rows = GANQ_MATRIX(GANQ_DTYPE_F32, 1, N, row_weights);
    ganq_matrix matrices[2] = {GANQ_MATRIX(GANQ_DTYPE_F64, K, K, plain), GANQ_MATRIX(GANQ_DTYPE_F64, K, K, guided)};
    CHECK(ganq_context_create(NULL, &ctx));
    for (int i = 0; i < 2; i++)
        CHECK(ganq_hessian_import(ctx, &matrices[i], TOKENS, &hessians[i]));

    double E[2][2]; /* [made with H, H_guided][measured with them] */
    for (int made = 0; made < 2; made++) {
        ganq_quantize_options options;
        ganq_quantize_options_init(&options, sizeof options);
        options.bits = 3;
        options.row_weights = &rows;
        ganq_layer *layer;
        CHECK(ganq_layer_quantize(ctx, &weight, hessians[made], NULL, &options, &layer));
        for (int measured = 0; measured < 2; measured++) {
            double error, norm;
            CHECK(ganq_layer_objective(ctx, layer, &weight, hessians[measured], &error, &norm));
            E[made][measured] = error / norm;
        }
        ganq_layer_report report = {.struct_size = sizeof report};
        CHECK(ganq_layer_get_report(layer, &report));
        printf("made with %s: E %.3e of all tokens alike, %.3e by their gradients (rows weighted: %.3e)\n",
               made ? "X^T diag(g) X" : "X^T X        ", E[made][0], E[made][1], report.error / report.norm);
        ganq_layer_free(layer);
    }
    for (int i = 0; i < 2; i++)
        ganq_hessian_free(hessians[i]);
    ganq_context_free(ctx);
    return !(E[1][1] < E[0][1] && E[0][0] < E[1][0]); /* each is best by its own measure */
}
