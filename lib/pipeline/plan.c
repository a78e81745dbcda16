/* plan.c - choosing the linears and adding up bytes. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "plan.h"

#include <inttypes.h>
#include <math.h>
#include <pcre2.h>
#include <string.h>

#include "alloc.h"
#include "compensate.h"
#include "corpus.h"
#include "solver.h"
#include "survey.h"

/* docs/solver.md has the perplexities. */
static const float default_compensation = 0.5f;

/* Marks the dense linears whose name the expression does not match. */
static ganq_status choose(const ganq_model *model, const char *skip, uint8_t *chosen) {
    pcre2_code *code = NULL;
    pcre2_match_data *match = NULL;
    ganq_status status = GANQ_OK;
    if (skip) {
        int error;
        PCRE2_SIZE offset;
        code = pcre2_compile((PCRE2_SPTR)skip, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &offset,
                             NULL);
        if (!code) {
            PCRE2_UCHAR words[128] = "";
            pcre2_get_error_message(error, words, sizeof words);
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "skip: \"%s\" is no regular expression: %s at position %zu", skip,
                      (const char *)words, (size_t)offset);
        }
        match = pcre2_match_data_create_from_pattern(code, NULL);
        if (!match)
            GANQ_FAIL_GOTO(free_code, GANQ_ERR_NO_MEMORY,
                           "skip: no memory for the regular expression");
    }
    for (int64_t i = 0; i < model->linear_count; i++) {
        const ganq__linear *linear = ganq__model_linear(model, i);
        chosen[i] = linear->layer == NULL;
        if (!chosen[i] || !code)
            continue;
        const int found =
            pcre2_match(code, (PCRE2_SPTR)linear->name, strlen(linear->name), 0, 0, match, NULL);
        if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
            PCRE2_UCHAR words[128] = "";
            pcre2_get_error_message(found, words, sizeof words);
            GANQ_FAIL_GOTO(free_code, GANQ_ERR_INVALID_ARG, "skip: \"%s\" on \"%s\": %s", skip,
                           linear->name, (const char *)words);
        }
        chosen[i] = found < 0;
    }
free_code:
    pcre2_match_data_free(match);
    pcre2_code_free(code);
    return status;
}

static int64_t linear_bytes_before(const ganq__linear *linear) {
    if (linear->layer)
        return ganq__layer_stored_bytes(linear->layer);
    return (int64_t)(linear->weight_tensor->size_bytes +
                     (linear->bias_tensor ? linear->bias_tensor->size_bytes : 0));
}

/* docs/format.md: codes in bit planes, tables, outliers as CSR. */
static int64_t bytes_of_width(const ganq__linear *linear, const ganq_quantize_options *o,
                              int bits) {
    const int64_t outliers =
        (int64_t)llround((double)o->outlier_ratio * (double)linear->N * (double)linear->K);
    const int64_t entry = o->lut_dtype == GANQ_DTYPE_F32 ? 4 : 2;
    int64_t bytes = linear->N * ((linear->K + 31) / 32) * bits * 4;
    bytes += linear->N * ((int64_t)1 << bits) * entry;
    if (outliers)
        bytes += (linear->N + 1) * 4 + outliers * (4 + 2);
    return bytes;
}

int64_t ganq__linear_code_bytes(const ganq__linear *linear, const ganq_quantize_options *options,
                                double bits) {
    const int whole = (int)bits;
    const int64_t below = bytes_of_width(linear, options, whole);
    if (bits <= whole)
        return below;
    const int64_t above = bytes_of_width(linear, options, whole + 1);
    return below + (int64_t)((bits - whole) * (double)(above - below));
}

static void add_up(const ganq_model *model, ganq__walk_plan *p) {
    ganq_quantize_plan *sums = &p->sums;
    int64_t code_bytes = 0;
    for (int64_t i = 0; i < model->linear_count; i++) {
        const ganq__linear *linear = ganq__model_linear(model, i);
        const int64_t before = linear_bytes_before(linear);
        sums->bytes_before += before;
        if (!p->chosen[i]) {
            sums->skipped++;
            sums->bytes_after += before;
            continue;
        }
        p->bits[i] = p->layer.bits;
        p->bytes[i] = ganq__linear_code_bytes(linear, &p->layer,
                                              p->target_bits > 0 ? p->target_bits : p->layer.bits);
        code_bytes += p->bytes[i];
        if (linear->bias_tensor)
            p->bytes[i] += (int64_t)linear->bias_tensor->size_bytes;
        sums->linears++;
        sums->weights += linear->N * linear->K;
        sums->bytes_after += p->bytes[i];
    }
    p->budget = code_bytes;
    sums->bits_per_weight = sums->weights ? 8.0 * (double)code_bytes / (double)sums->weights : 0;
}

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int64_t ganq__widest_input(const ganq__config *c) {
    return max64(max64(c->hidden, c->intermediate), c->heads * c->head_dim);
}

/* What the walk holds at its peak: hidden states, one sequence's cache and workspace, the Hessians
 * of a block (of one input at a time with propagation), the solver's copies for the largest linear,
 * and the layers made so far. */
static void add_memory(const ganq_model *model, const ganq_corpus *corpus, ganq__walk_plan *p) {
    const ganq__config *c = model->config;
    int64_t hessians = 0, largest_hessian = 0, solver = 0, layers = 0;
    for (int64_t i = 0; i < model->linear_count; i++) {
        const ganq__linear *linear = ganq__model_linear(model, i);
        if (!p->chosen[i])
            continue;
        layers += p->bytes[i];
        /* W and its copy in the solver's order in f32, codes; factors and H in f32 and one of them
         * in f64 */
        const int64_t copies = linear->N * linear->K * (4 + 4 + 1);
        const int64_t factors =
            p->layer.recipe == GANQ_RECIPE_RTN ? 0 : linear->K * linear->K * (3 * 4 + 8);
        solver = max64(solver, copies + factors);
        largest_hessian = max64(largest_hessian, linear->K * linear->K * 4);
    }
    if (p->tokens) {
        const int64_t inputs[GANQ__INPUT_COUNT] = {c->hidden, c->heads * c->head_dim, c->hidden,
                                                   c->intermediate};
        for (int i = 0; i < GANQ__INPUT_COUNT; i++)
            hessians += inputs[i] * inputs[i] * 4;
        if (p->propagate && !(p->target_bits > 0)) /* the survey needs all of a block at once */
            hessians = largest_hessian;
        if (p->compensation > 0)
            hessians += ganq__compensation_bytes(ganq__widest_input(c)) +
                        p->longest * ganq__widest_input(c) * 4;
        const int64_t chunk = p->longest < GANQ__CHUNK ? p->longest : GANQ__CHUNK;
        const int64_t width = 2 * c->hidden + 2 * c->heads * c->head_dim +
                              2 * c->kv_heads * c->head_dim + 2 * c->intermediate;
        if (p->target_bits > 0)
            hessians += ganq__survey_bytes(model, corpus, p->sequences);
        p->sums.activation_bytes = p->tokens * c->hidden * 4 * (p->compensation > 0 ? 2 : 1);
        p->sums.memory_bytes = p->sums.activation_bytes +
                               p->longest * c->kv_heads * c->head_dim * 2 * 4 + chunk * width * 4 +
                               p->longest * c->head_dim * 4 + hessians;
    }
    p->sums.memory_bytes += solver + layers;
}

static ganq_status check_sequences(const ganq_model *model, const ganq_corpus *corpus,
                                   ganq__walk_plan *p) {
    p->sequences = corpus ? ganq__corpus_count(corpus) : 0;
    for (int64_t i = 0; i < p->sequences; i++) {
        size_t count;
        const int32_t *ids = ganq__corpus_get(corpus, i, &count);
        if (model->config->max_positions > 0 && (int64_t)count > model->config->max_positions)
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "calibration sequence %" PRId64
                      " has %zu tokens; the model sees at most %" PRId64,
                      i, count, model->config->max_positions);
        const ganq_status status = ganq__model_check_ids(model, ids, (int64_t)count);
        if (status != GANQ_OK) {
            ganq__fail_prefix("calibration sequence %" PRId64, i);
            return status;
        }
        p->tokens += (int64_t)count;
        p->longest = max64(p->longest, (int64_t)count);
    }
    if (corpus && !p->tokens)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "the calibration has no tokens");
    return GANQ_OK;
}

/* RTN and PAPER stay what they are elsewhere, unless asked. */
static ganq_status read_compensation(const ganq_model_quantize_options *o, ganq__walk_plan *p) {
    const int literal =
        p->layer.recipe == GANQ_RECIPE_RTN || p->layer.recipe == GANQ_RECIPE_PAPER;
    if (!(o->compensation <= 1))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_model_quantize_options: compensation is %g; at most 1 is possible",
                  (double)o->compensation);
    if (o->compensation > 0 && !p->propagate)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "ganq_model_quantize_options: compensation is for inputs "
                                        "through quantized layers, but propagate is off");
    if (o->compensation > 0)
        p->compensation = o->compensation;
    else if (o->compensation == 0 && p->propagate && !literal)
        p->compensation = default_compensation;
    return GANQ_OK;
}

static ganq_status read_options(const ganq_model_quantize_options *o, ganq__walk_plan *p) {
    if (o->propagate < GANQ_SWITCH_DEFAULT || o->propagate > GANQ_SWITCH_ON)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_model_quantize_options: propagate %d is none of ganq_switch",
                  (int)o->propagate);
    p->propagate = o->propagate != GANQ_SWITCH_OFF;
    p->target_bits = o->target_bits;
    if (!(o->target_bits == 0 || (o->target_bits >= 2 && o->target_bits <= 4)))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_model_quantize_options: target_bits is %g; 0 (none) or 2 to 4 are possible",
                  (double)o->target_bits);
    GANQ_TRY(ganq__solver_options(&p->layer, o->layer));
    if (p->layer.row_weights)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "ganq_quantize_options: row_weights are for a single layer, not for a model");
    p->layer.struct_size = sizeof p->layer;
    return read_compensation(o, p);
}

ganq_status ganq__walk_plan_make(const ganq_model *model, const ganq_corpus *corpus,
                                 const ganq_model_quantize_options *options, ganq__walk_plan *out) {
    ganq_status status;
    ganq__walk_plan p = {0};
    GANQ_TRY(read_options(options, &p));
    if (!corpus && p.layer.recipe != GANQ_RECIPE_RTN)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "calibration is NULL: only the recipe RTN needs none");
    if (!corpus && p.target_bits > 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "calibration is NULL: target_bits measures on it what each width costs");
    GANQ_CALLOC_GOTO(free_plan, p.chosen, (size_t)model->linear_count);
    GANQ_CALLOC_GOTO(free_plan, p.bits, (size_t)model->linear_count);
    GANQ_CALLOC_GOTO(free_plan, p.bytes, (size_t)model->linear_count);
    GANQ_TRY_GOTO(free_plan, choose(model, options->skip, p.chosen));
    GANQ_TRY_GOTO(free_plan, check_sequences(model, corpus, &p));
    if (!p.tokens)
        p.compensation = 0;
    add_up(model, &p);
    add_memory(model, corpus, &p);
    if (!p.sums.linears)
        GANQ_FAIL_GOTO(free_plan, GANQ_ERR_INVALID_ARG,
                       "nothing to quantize: each of the %" PRId64
                       " linears is quantized already or matches skip",
                       model->linear_count);
    *out = p;
    return GANQ_OK;
free_plan:
    ganq__walk_plan_free(&p);
    return status;
}

void ganq__walk_plan_free(ganq__walk_plan *plan) {
    ganq__free(plan->chosen);
    ganq__free(plan->bits);
    ganq__free(plan->bytes);
    *plan = (ganq__walk_plan){0};
}
