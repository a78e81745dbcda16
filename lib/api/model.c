/* model.c - the public functions of ganq/model.h. */
#include "ganq/model.h"

#include <string.h>

#include "dtype.h"
#include "file.h"
#include "model.h"
#include "quantize.h"
#include "save.h"

#define REQUIRE(pointer, function)                                                                 \
    do {                                                                                           \
        if (!(pointer))                                                                            \
            GANQ_FAIL(GANQ_ERR_INVALID_ARG, function ": %s is NULL", #pointer);                    \
    } while (0)

ganq_status ganq_model_load(ganq_context *ctx, const char *dir, const ganq_model_options *options,
                            ganq_model **out) {
    ganq_model_options o;
    REQUIRE(ctx, "ganq_model_load");
    REQUIRE(dir, "ganq_model_load");
    REQUIRE(out, "ganq_model_load");
    GANQ_TRY(ganq__path_check(dir, "ganq_model_load: dir"));
    GANQ_TRY(ganq__options_read(&o, sizeof o, options, "ganq_model_options"));
    if (o.verify < GANQ_SWITCH_DEFAULT || o.verify > GANQ_SWITCH_ON)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_model_options: verify %d is none of ganq_switch",
                  (int)o.verify);
    return ganq__model_load(ctx, dir, &o, out);
}

ganq_status ganq_model_random(ganq_context *ctx, const char *dir,
                              const ganq_random_options *options, ganq_model **out) {
    ganq_random_options o;
    REQUIRE(ctx, "ganq_model_random");
    REQUIRE(dir, "ganq_model_random");
    REQUIRE(out, "ganq_model_random");
    GANQ_TRY(ganq__path_check(dir, "ganq_model_random: dir"));
    GANQ_TRY(ganq__options_read(&o, sizeof o, options, "ganq_random_options"));
    if (o.bits != 0 && o.bits != GANQ__RANDOM_DENSE && (o.bits < 2 || o.bits > 4))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_random_options: %d bits; 2, 3, 4 and 16 are possible",
                  (int)o.bits);
    return ganq__model_random(ctx, dir, o.bits ? o.bits : 4, o.seed, out);
}

void ganq_model_free(ganq_model *model) {
    ganq__model_release(model);
}

/* Codes, tables and outliers; weights alone of a dense linear. */
static int64_t weight_bytes(const ganq__linear *linear) {
    if (!linear->layer)
        return (int64_t)linear->weight_tensor->size_bytes;
    const ganq_layer *layer = linear->layer;
    return ganq__layer_stored_bytes(layer) -
           (layer->bias ? layer->N * (int64_t)ganq__dtype_size(layer->bias_dtype) : 0);
}

static int64_t linear_bytes(const ganq__linear *linear) {
    if (linear->layer)
        return ganq__layer_stored_bytes(linear->layer);
    return weight_bytes(linear) +
           (linear->bias_tensor ? (int64_t)linear->bias_tensor->size_bytes : 0);
}

static int64_t parameters(const ganq__linear *linear) {
    const int has_bias = linear->layer ? linear->layer->bias != NULL : linear->bias != NULL;
    return linear->N * linear->K + (has_bias ? linear->N : 0);
}

ganq_status ganq_model_get_info(const ganq_model *model, ganq_model_info *info) {
    REQUIRE(model, "ganq_model_get_info");
    const ganq__config *c = model->config;
    int64_t weights = 0, bytes = 0;
    ganq_model_info ours = {
        .layers = (int32_t)c->layers,
        .architecture = c->family->architecture,
        .hidden_size = c->hidden,
        .vocab_size = c->vocab,
        .max_positions = c->max_positions,
        .linears = model->linear_count,
        .bos = c->bos,
        .eos_count = c->eos_count,
        .eos = c->eos,
    };
    for (int64_t i = 0; i < model->linear_count; i++) {
        const ganq__linear *linear = ganq__model_linear(model, i);
        ours.linears_quantized += linear->layer != NULL;
        ours.linear_bytes += linear_bytes(linear);
        ours.parameters += parameters(linear);
        weights += linear->N * linear->K;
        bytes += weight_bytes(linear);
    }
    ours.stored_bytes = ours.linear_bytes;
    for (int64_t i = 0; i < model->store->other_count; i++) {
        ours.stored_bytes += (int64_t)model->store->others[i]->size_bytes;
        ours.parameters += model->store->others[i]->count;
    }
    if (model->head.layer) { /* a dense head is one of the others */
        ours.stored_bytes += linear_bytes(&model->head);
        ours.parameters += parameters(&model->head);
    }
    ours.bits_per_weight = weights ? 8.0 * (double)bytes / (double)weights : 0;
    return ganq__struct_write(info, &ours, sizeof ours, "ganq_model_info");
}

ganq_status ganq_model_get_linear(const ganq_model *model, int64_t i, ganq_linear_info *info) {
    REQUIRE(model, "ganq_model_get_linear");
    if (i < 0 || i >= model->linear_count)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_model_get_linear: linear %lld of %lld", (long long)i,
                  (long long)model->linear_count);
    const ganq__linear *linear = ganq__model_linear(model, i);
    const ganq_layer *layer = linear->layer;
    const ganq_linear_info ours = {
        .bits = layer ? layer->bits : 0,
        .name = linear->name,
        .rows = linear->N,
        .cols = linear->K,
        .bits_per_weight =
            8.0 * (double)weight_bytes(linear) / ((double)linear->N * (double)linear->K),
        .error = layer ? layer->report.error : 0,
        .norm = layer ? layer->report.norm : 0,
        .seconds = layer ? layer->report.seconds : 0,
        .tokens = layer ? layer->report.tokens : 0,
    };
    return ganq__struct_write(info, &ours, sizeof ours, "ganq_linear_info");
}

const ganq_layer *ganq_model_layer(const ganq_model *model, int64_t i) {
    return model && i >= 0 && i < model->linear_count ? ganq__model_linear(model, i)->layer : NULL;
}

ganq_status ganq_model_quantize(ganq_context *ctx, const ganq_model *model,
                                const ganq_corpus *calibration,
                                const ganq_model_quantize_options *options, ganq_model **out) {
    ganq_model_quantize_options o;
    REQUIRE(ctx, "ganq_model_quantize");
    REQUIRE(model, "ganq_model_quantize");
    REQUIRE(out, "ganq_model_quantize");
    GANQ_TRY(ganq__options_read(&o, sizeof o, options, "ganq_model_quantize_options"));
    return ganq__model_quantize(ctx, model, calibration, &o, out);
}

ganq_status ganq_model_plan(ganq_context *ctx, const ganq_model *model,
                            const ganq_corpus *calibration,
                            const ganq_model_quantize_options *options, ganq_quantize_plan *plan,
                            int64_t *linear_bytes_out) {
    ganq_model_quantize_options o;
    ganq_quantize_plan ours = {0};
    REQUIRE(ctx, "ganq_model_plan");
    REQUIRE(model, "ganq_model_plan");
    REQUIRE(plan, "ganq_model_plan");
    GANQ_TRY(ganq__options_read(&o, sizeof o, options, "ganq_model_quantize_options"));
    GANQ_TRY(ganq__model_plan(model, calibration, &o, &ours, linear_bytes_out));
    return ganq__struct_write(plan, &ours, sizeof ours, "ganq_quantize_plan");
}

static ganq_status read_save_options(ganq_save_options *ours, const ganq_save_options *theirs) {
    return ganq__options_read(ours, sizeof *ours, theirs, "ganq_save_options");
}

ganq_status ganq_model_save(ganq_context *ctx, const ganq_model *model, const char *dir,
                            const ganq_save_options *options) {
    ganq_save_options o;
    REQUIRE(ctx, "ganq_model_save");
    REQUIRE(model, "ganq_model_save");
    REQUIRE(dir, "ganq_model_save");
    GANQ_TRY(ganq__path_check(dir, "ganq_model_save: dir"));
    GANQ_TRY(read_save_options(&o, options));
    return ganq__model_save(ctx, model, dir, &o);
}

ganq_status ganq_model_export_dense(ganq_context *ctx, const ganq_model *model, const char *dir,
                                    ganq_dtype dtype, const ganq_save_options *options) {
    ganq_save_options o;
    REQUIRE(ctx, "ganq_model_export_dense");
    REQUIRE(model, "ganq_model_export_dense");
    REQUIRE(dir, "ganq_model_export_dense");
    GANQ_TRY(ganq__path_check(dir, "ganq_model_export_dense: dir"));
    GANQ_TRY(read_save_options(&o, options));
    return ganq__model_export_dense(ctx, model, dir, dtype, &o);
}
