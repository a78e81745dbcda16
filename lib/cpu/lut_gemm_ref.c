/* lut_gemm_ref.c - the definition of the product with a quantized layer, in plain C.
 *
 *     W~[n,k] = lut[n, code[n,k]]  (+ outlier[n,k])     a row: K codes, one table of L entries
 *     y[m,n]  = bias[n] + sum over k of x[m,k] * W~[n,k]
 *
 * Read it as it stands: for every output feature n, look up its K weights once, then take the dot
 * product with each of the M rows of activations. W~ is in f32, as ganq_layer_dequantize gives it;
 * products of two f32 are exact in f64, the sum runs in f64 over k = 0, 1, ..., K-1, and only the
 * result is rounded to f32. The fast kernels differ from this by the rounding of f32 sums alone;
 * the tests hold each of them against it.
 *
 * One item of the parallel loop is one n: its weights are looked up once, by one thread, whatever
 * the number of threads. */
#include "cpu.h"
#include "layer.h"
#include "lut_ops.h"

typedef struct lut_job {
    const ganq_layer *layer;
    int64_t M, ldx, ldy;
    const float *x;
    float *y;
    float *weights; /* [threads, K] */
} lut_job;

static void output_feature(void *user, int64_t n, int worker) {
    const lut_job *job = user;
    const ganq_layer *layer = job->layer;
    float *w = job->weights + worker * layer->K;
    ganq__layer_dequantize_rows(layer, n, 1, w, layer->K);
    for (int64_t m = 0; m < job->M; m++) {
        const float *x = job->x + m * job->ldx;
        double sum = 0;
        for (int64_t k = 0; k < layer->K; k++)
            sum += (double)x[k] * w[k];
        if (layer->bias)
            sum += layer->bias[n];
        job->y[m * job->ldy + n] = (float)sum;
    }
}

static ganq_status gemm(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                        int64_t ldx, float *y, int64_t ldy) {
    lut_job job = {layer, M, ldx, ldy, x, y, NULL};
    const size_t weights = (size_t)ganq__pool_threads(ctx->pool) * (size_t)layer->K;
    GANQ_TRY(ganq__context_workspace(ctx, weights * sizeof(float), (void **)&job.weights));
    ganq__parallel_for(ctx->pool, layer->N, output_feature, &job);
    return GANQ_OK;
}

const ganq__lut_ops ganq__lut_ops_ref = {.gemm = gemm};
