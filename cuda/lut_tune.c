/* lut_tune.c - measuring plans: each in a graph over copies of the layer that together are larger
 * than the L2 cache, so that codes come from memory, as in a model. */
#include "lut_engine.h"

#include "alloc.h"
#include "attachment.h"
#include "layer.h"
#include "memory_ops.h"

enum { MOST_COPIES = 64, REPLAYS = 7 };

typedef struct tuning_job {
    ganq_context *ctx;
    ganq__lut_call call;
    ganq__lut_placed *copies[MOST_COPIES]; /* the first is the layer's own */
    int count;
    void *x, *y;
    cudaEvent_t start, stop;
} tuning_job;

/* The products of all copies with the forced plan, in the context's stream. */
static ganq_status run_all(tuning_job *job) {
    for (int i = 0; i < job->count; i++) {
        job->call.layers[0] = job->copies[i];
        GANQ_TRY(ganq__lut_run(job->ctx, &job->call));
    }
    return GANQ_OK;
}

static ganq_status time_graph(tuning_job *job, cudaGraphExec_t graph, double *microseconds) {
    float best = 0;
    for (int i = 0; i <= REPLAYS; i++) {
        float milliseconds;
        GANQ_CUDA_TRY(cudaEventRecord(job->start, job->call.stream));
        GANQ_CUDA_TRY(cudaGraphLaunch(graph, job->call.stream));
        GANQ_CUDA_TRY(cudaEventRecord(job->stop, job->call.stream));
        GANQ_CUDA_TRY(cudaEventSynchronize(job->stop));
        GANQ_CUDA_TRY(cudaEventElapsedTime(&milliseconds, job->start, job->stop));
        if (i == 1 || (i > 1 && milliseconds < best)) /* the first warms up */
            best = milliseconds;
    }
    *microseconds = 1e3 * (double)best / job->count;
    return GANQ_OK;
}

/* Of one product with the plan. */
static ganq_status measure(tuning_job *job, const ganq__lut_plan *plan, double *microseconds) {
    ganq_context *ctx = job->ctx;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t step = NULL;
    size_t bytes;
    ganq_status status;
    ganq__cuda_of(ctx)->lut->forced = plan;
    GANQ_TRY(ganq__lut_workspace_bytes(ctx, &job->call, &bytes));
    if (bytes)
        GANQ_TRY(ganq__cuda_workspace(ctx, GANQ__CUDA_LUT, bytes, &job->call.workspace));
    GANQ_TRY(run_all(job)); /* not in a capture: kernels are loaded here */
    GANQ_TRY(ganq__cuda_record_begin(ctx));
    status = run_all(job);
    const ganq_status ended = ganq__cuda_record_end(ctx, &graph);
    if (status == GANQ_OK)
        status = ended;
    if (status == GANQ_OK)
        status = ganq__cuda_status(cudaGraphInstantiate(&step, graph, 0), "cudaGraphInstantiate");
    if (status == GANQ_OK)
        status = time_graph(job, step, microseconds);
    if (step)
        (void)cudaGraphExecDestroy(step);
    if (graph)
        (void)cudaGraphDestroy(graph);
    return status;
}

static ganq_status keep(ganq_context *ctx, const ganq__lut_tuned *row) {
    char path[4096];
    ganq__message before;
    int anew;
    ganq__message_keep(&before);
    GANQ_TRY(ganq__lut_tuning_set(&ganq__cuda_of(ctx)->lut->tuning, row));
    GANQ_TRY(ganq__lut_tuning_path(path, sizeof path));
    GANQ_TRY(ganq__lut_tuning_keep(path, row, &anew));
    if (anew) {
        ganq__log(ctx, GANQ_LOG_WARNING, "measured plans are written anew: %s", ganq_last_error());
        ganq__message_restore(&before);
    }
    return GANQ_OK;
}

static ganq_status prepare(tuning_job *job, const ganq_layer *layer, int64_t rows) {
    ganq_context *ctx = job->ctx;
    const int64_t bytes = ganq__lut_ops_cuda.placed_bytes(layer);
    int l2 = 0;
    GANQ_CUDA_TRY(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, ganq__cuda_of(ctx)->device));
    while (job->count < MOST_COPIES && job->count * bytes < 3 * (int64_t)l2) {
        GANQ_TRY(ganq__lut_ops_cuda.place(ctx, layer, (void **)&job->copies[job->count]));
        job->count++;
    }
    GANQ_TRY(ctx->memory->allocate(ctx, (size_t)(rows * layer->K) * 4, &job->x));
    GANQ_TRY(ctx->memory->allocate(ctx, (size_t)(rows * layer->N) * 4, &job->y));
    /* 1.06 in f16, 0.0115 in f32 and bf16 */
    GANQ_CUDA_TRY(
        cudaMemsetAsync(job->x, 0x3c, (size_t)(rows * layer->K) * 4, ganq__cuda_of(ctx)->stream));
    GANQ_CUDA_TRY(cudaEventCreate(&job->start));
    GANQ_CUDA_TRY(cudaEventCreate(&job->stop));
    job->call = (ganq__lut_call){.count = 1,
                                 .layers = {job->copies[0]},
                                 .M = rows,
                                 .x = job->x,
                                 .ldx = layer->K,
                                 .x_dtype = job->call.x_dtype,
                                 .y_dtype = job->call.x_dtype,
                                 .y = {job->y},
                                 .ldy = {layer->N},
                                 .stream = ganq__cuda_of(ctx)->stream};
    return GANQ_OK;
}

static void finish(tuning_job *job) {
    for (int i = 1; i < job->count; i++)
        ganq__lut_ops_cuda.unplace(job->ctx, job->copies[i]);
    job->ctx->memory->release(job->ctx, job->x);
    job->ctx->memory->release(job->ctx, job->y);
    if (job->start)
        (void)cudaEventDestroy(job->start);
    if (job->stop)
        (void)cudaEventDestroy(job->stop);
}

ganq_status ganq__lut_tune(ganq_context *ctx, const ganq_layer *layer, int64_t rows,
                           int32_t x_dtype, double *microseconds, double *untuned) {
    tuning_job job = {.ctx = ctx, .call = {.x_dtype = x_dtype}, .count = 1};
    ganq__lut_plan plans[GANQ__LUT_CANDIDATES];
    ganq__lut_shape shape;
    ganq__lut_tuned best = {0};
    double first = 0;
    int entered;
    ganq_status status;
    GANQ_TRY(ganq__cuda_enter(ctx, &entered));
    job.copies[0] = ganq__attachment_find(&layer->attachments, ctx);
    GANQ_TRY_GOTO(finish, prepare(&job, layer, rows));
    GANQ_TRY_GOTO(finish, ganq__lut_shape_of(ctx, &job.call, &shape));
    ganq__lut_state *state = ganq__cuda_of(ctx)->lut;
    const int count = ganq__lut_candidates(&shape, plans, GANQ__LUT_CANDIDATES);
    for (int i = 0; i < count; i++) {
        double us = 0;
        status = measure(&job, &plans[i], &us);
        state->forced = NULL;
        if (status != GANQ_OK)
            goto finish;
        if (i == 0)
            first = us;
        if (i == 0 || us < best.microseconds)
            best = (ganq__lut_tuned){.sm = shape.sm,
                                     .multiprocessors = shape.multiprocessors,
                                     .bits = shape.bits,
                                     .columns = (int32_t)ganq__lut_class(shape.columns),
                                     .N = shape.N,
                                     .K = shape.K,
                                     .plan = plans[i],
                                     .microseconds = us};
    }
    ganq__cuda_of(ctx)->generation++; /* recorded steps have the old plan */
    *microseconds = best.microseconds;
    *untuned = first;
    if (!shape.simt_only) /* layers with tables in f32 have one kernel, and must not decide for the others */
        status = keep(ctx, &best);
finish:
    finish(&job);
    ganq__cuda_leave(entered);
    return status;
}
