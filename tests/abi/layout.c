/* layout.c - the binary interface, pinned: sizes and offsets of every public struct on 64-bit targets, values of every
 * enumerator. A line here changes only together with GANQ_ABI_VERSION; new fields and enumerators are appended. */
#include <assert.h>
#include <stddef.h>

#include "ganq/ganq.h"

#define SIZE(type, bytes) static_assert(sizeof(type) == (bytes), "size of " #type)
#define FIELD(type, field, offset) static_assert(offsetof(type, field) == (offset), #type "." #field)
#define ENUM(name, value) static_assert((name) == (value), #name)

SIZE(ganq_matrix, 48);
FIELD(ganq_matrix, struct_size, 0);
FIELD(ganq_matrix, dtype, 4);
FIELD(ganq_matrix, rows, 8);
FIELD(ganq_matrix, cols, 16);
FIELD(ganq_matrix, row_stride, 24);
FIELD(ganq_matrix, device, 32);
FIELD(ganq_matrix, reserved, 36);
FIELD(ganq_matrix, data, 40);

SIZE(ganq_progress, 64);
FIELD(ganq_progress, struct_size, 0);
FIELD(ganq_progress, stage, 4);
FIELD(ganq_progress, name, 8);
FIELD(ganq_progress, done, 16);
FIELD(ganq_progress, total, 24);
FIELD(ganq_progress, fraction, 32);
FIELD(ganq_progress, seconds, 40);
FIELD(ganq_progress, seconds_left, 48);
FIELD(ganq_progress, error, 56);

SIZE(ganq_context_options, 64);
FIELD(ganq_context_options, struct_size, 0);
FIELD(ganq_context_options, device, 4);
FIELD(ganq_context_options, device_index, 8);
FIELD(ganq_context_options, threads, 12);
FIELD(ganq_context_options, numerics, 16);
FIELD(ganq_context_options, log_level, 20);
FIELD(ganq_context_options, memory_budget_bytes, 24);
FIELD(ganq_context_options, log, 32);
FIELD(ganq_context_options, log_user, 40);
FIELD(ganq_context_options, progress, 48);
FIELD(ganq_context_options, progress_user, 56);

SIZE(ganq_quantize_options, 40);
FIELD(ganq_quantize_options, struct_size, 0);
FIELD(ganq_quantize_options, bits, 4);
FIELD(ganq_quantize_options, recipe, 8);
FIELD(ganq_quantize_options, iterations, 12);
FIELD(ganq_quantize_options, damping, 16);
FIELD(ganq_quantize_options, outlier_ratio, 20);
FIELD(ganq_quantize_options, lut_dtype, 24);
FIELD(ganq_quantize_options, reserved, 28);
FIELD(ganq_quantize_options, row_weights, 32);

SIZE(ganq_step, 16);
FIELD(ganq_step, kind, 0);
FIELD(ganq_step, iteration, 4);
FIELD(ganq_step, error, 8);

SIZE(ganq_cost, 24);
FIELD(ganq_cost, stage, 0);
FIELD(ganq_cost, reserved, 4);
FIELD(ganq_cost, seconds, 8);
FIELD(ganq_cost, work, 16);

SIZE(ganq_layer_report, 88);
FIELD(ganq_layer_report, struct_size, 0);
FIELD(ganq_layer_report, recipe, 4);
FIELD(ganq_layer_report, error, 8);
FIELD(ganq_layer_report, norm, 16);
FIELD(ganq_layer_report, seconds, 24);
FIELD(ganq_layer_report, damping, 32);
FIELD(ganq_layer_report, tokens, 40);
FIELD(ganq_layer_report, step_count, 48);
FIELD(ganq_layer_report, steps, 56);
FIELD(ganq_layer_report, note, 64);
FIELD(ganq_layer_report, cost_count, 72);
FIELD(ganq_layer_report, costs, 80);

SIZE(ganq_layer_info, 64);
FIELD(ganq_layer_info, struct_size, 0);
FIELD(ganq_layer_info, bits, 4);
FIELD(ganq_layer_info, rows, 8);
FIELD(ganq_layer_info, cols, 16);
FIELD(ganq_layer_info, outliers, 24);
FIELD(ganq_layer_info, lut_dtype, 32);
FIELD(ganq_layer_info, has_bias, 36);
FIELD(ganq_layer_info, stored_bytes, 40);
FIELD(ganq_layer_info, resident_bytes, 48);
FIELD(ganq_layer_info, bits_per_weight, 56);

SIZE(ganq_device_product, 136);
FIELD(ganq_device_product, struct_size, 0);
FIELD(ganq_device_product, count, 4);
FIELD(ganq_device_product, layers, 8);
FIELD(ganq_device_product, rows, 32);
FIELD(ganq_device_product, x, 40);
FIELD(ganq_device_product, x_stride, 48);
FIELD(ganq_device_product, x_dtype, 56);
FIELD(ganq_device_product, y_dtype, 60);
FIELD(ganq_device_product, y, 64);
FIELD(ganq_device_product, y_strides, 88);
FIELD(ganq_device_product, workspace, 112);
FIELD(ganq_device_product, workspace_bytes, 120);
FIELD(ganq_device_product, stream, 128);

SIZE(ganq_model_options, 8);
FIELD(ganq_model_options, struct_size, 0);
FIELD(ganq_model_options, verify, 4);

SIZE(ganq_random_options, 16);
FIELD(ganq_random_options, struct_size, 0);
FIELD(ganq_random_options, bits, 4);
FIELD(ganq_random_options, seed, 8);

SIZE(ganq_model_info, 104);
FIELD(ganq_model_info, struct_size, 0);
FIELD(ganq_model_info, layers, 4);
FIELD(ganq_model_info, architecture, 8);
FIELD(ganq_model_info, hidden_size, 16);
FIELD(ganq_model_info, vocab_size, 24);
FIELD(ganq_model_info, max_positions, 32);
FIELD(ganq_model_info, parameters, 40);
FIELD(ganq_model_info, linears, 48);
FIELD(ganq_model_info, linears_quantized, 56);
FIELD(ganq_model_info, stored_bytes, 64);
FIELD(ganq_model_info, linear_bytes, 72);
FIELD(ganq_model_info, bits_per_weight, 80);
FIELD(ganq_model_info, bos, 88);
FIELD(ganq_model_info, eos_count, 92);
FIELD(ganq_model_info, eos, 96);

SIZE(ganq_linear_info, 72);
FIELD(ganq_linear_info, struct_size, 0);
FIELD(ganq_linear_info, bits, 4);
FIELD(ganq_linear_info, name, 8);
FIELD(ganq_linear_info, rows, 16);
FIELD(ganq_linear_info, cols, 24);
FIELD(ganq_linear_info, bits_per_weight, 32);
FIELD(ganq_linear_info, error, 40);
FIELD(ganq_linear_info, norm, 48);
FIELD(ganq_linear_info, seconds, 56);
FIELD(ganq_linear_info, tokens, 64);

SIZE(ganq_model_quantize_options, 32);
FIELD(ganq_model_quantize_options, struct_size, 0);
FIELD(ganq_model_quantize_options, propagate, 4);
FIELD(ganq_model_quantize_options, layer, 8);
FIELD(ganq_model_quantize_options, skip, 16);
FIELD(ganq_model_quantize_options, target_bits, 24);
FIELD(ganq_model_quantize_options, compensation, 28);

SIZE(ganq_quantize_plan, 72);
FIELD(ganq_quantize_plan, struct_size, 0);
FIELD(ganq_quantize_plan, reserved, 4);
FIELD(ganq_quantize_plan, linears, 8);
FIELD(ganq_quantize_plan, skipped, 16);
FIELD(ganq_quantize_plan, weights, 24);
FIELD(ganq_quantize_plan, bytes_before, 32);
FIELD(ganq_quantize_plan, bytes_after, 40);
FIELD(ganq_quantize_plan, bits_per_weight, 48);
FIELD(ganq_quantize_plan, memory_bytes, 56);
FIELD(ganq_quantize_plan, activation_bytes, 64);

SIZE(ganq_save_options, 24);
FIELD(ganq_save_options, struct_size, 0);
FIELD(ganq_save_options, force, 4);
FIELD(ganq_save_options, shard_bytes, 8);
FIELD(ganq_save_options, calibration, 16);

SIZE(ganq_sampling, 32);
FIELD(ganq_sampling, struct_size, 0);
FIELD(ganq_sampling, temperature, 4);
FIELD(ganq_sampling, top_k, 8);
FIELD(ganq_sampling, top_p, 12);
FIELD(ganq_sampling, min_p, 16);
FIELD(ganq_sampling, reserved, 20);
FIELD(ganq_sampling, seed, 24);

SIZE(ganq_generate_options, 64);
FIELD(ganq_generate_options, struct_size, 0);
FIELD(ganq_generate_options, reserved, 4);
FIELD(ganq_generate_options, max_tokens, 8);
FIELD(ganq_generate_options, sampling, 16);
FIELD(ganq_generate_options, stop, 48);
FIELD(ganq_generate_options, stop_count, 56);

SIZE(ganq_perplexity_options, 24);
FIELD(ganq_perplexity_options, struct_size, 0);
FIELD(ganq_perplexity_options, protocol, 4);
FIELD(ganq_perplexity_options, context, 8);
FIELD(ganq_perplexity_options, max_tokens, 16);

SIZE(ganq_perplexity_result, 56);
FIELD(ganq_perplexity_result, struct_size, 0);
FIELD(ganq_perplexity_result, protocol, 4);
FIELD(ganq_perplexity_result, perplexity, 8);
FIELD(ganq_perplexity_result, nll, 16);
FIELD(ganq_perplexity_result, tokens, 24);
FIELD(ganq_perplexity_result, sequences, 32);
FIELD(ganq_perplexity_result, context, 40);
FIELD(ganq_perplexity_result, seconds, 48);

SIZE(ganq_tensor_info, 112);
FIELD(ganq_tensor_info, struct_size, 0);
FIELD(ganq_tensor_info, dtype, 4);
FIELD(ganq_tensor_info, name, 8);
FIELD(ganq_tensor_info, dtype_name, 16);
FIELD(ganq_tensor_info, file, 24);
FIELD(ganq_tensor_info, rank, 32);
FIELD(ganq_tensor_info, has_crc, 36);
FIELD(ganq_tensor_info, shape, 40);
FIELD(ganq_tensor_info, size_bytes, 104);

SIZE(ganq_corpus_options, 40);
FIELD(ganq_corpus_options, struct_size, 0);
FIELD(ganq_corpus_options, mode, 4);
FIELD(ganq_corpus_options, samples, 8);
FIELD(ganq_corpus_options, length, 16);
FIELD(ganq_corpus_options, skip, 24);
FIELD(ganq_corpus_options, seed, 32);

ENUM(GANQ_OK, 0);
ENUM(GANQ_ERR_INVALID_ARG, 1);
ENUM(GANQ_ERR_NO_MEMORY, 2);
ENUM(GANQ_ERR_IO, 3);
ENUM(GANQ_ERR_FORMAT, 4);
ENUM(GANQ_ERR_UNSUPPORTED, 5);
ENUM(GANQ_ERR_NUMERIC, 6);
ENUM(GANQ_ERR_CANCELED, 7);
ENUM(GANQ_ERR_NO_DEVICE, 8);
ENUM(GANQ_ERR_DEVICE, 9);
ENUM(GANQ_ERR_NOT_FOUND, 10);
ENUM(GANQ_ERR_EXISTS, 11);
ENUM(GANQ_ERR_INTERNAL, 12);

ENUM(GANQ_DTYPE_F32, 1);
ENUM(GANQ_DTYPE_F16, 2);
ENUM(GANQ_DTYPE_BF16, 3);
ENUM(GANQ_DTYPE_F64, 4);
ENUM(GANQ_DTYPE_U8, 5);

ENUM(GANQ_SWITCH_DEFAULT, 0);
ENUM(GANQ_SWITCH_OFF, 1);
ENUM(GANQ_SWITCH_ON, 2);

ENUM(GANQ_DEVICE_AUTO, 0);
ENUM(GANQ_DEVICE_CPU, 1);
ENUM(GANQ_DEVICE_CUDA, 2);

ENUM(GANQ_NUMERICS_DEFAULT, 0);
ENUM(GANQ_NUMERICS_FAST, 1);
ENUM(GANQ_NUMERICS_EXACT, 2);

ENUM(GANQ_LOG_ERROR, 1);
ENUM(GANQ_LOG_WARNING, 2);
ENUM(GANQ_LOG_INFO, 3);
ENUM(GANQ_LOG_DEBUG, 4);

ENUM(GANQ_STAGE_LOAD, 1);
ENUM(GANQ_STAGE_CALIBRATE, 2);
ENUM(GANQ_STAGE_QUANTIZE, 3);
ENUM(GANQ_STAGE_SAVE, 4);
ENUM(GANQ_STAGE_EVALUATE, 5);

ENUM(GANQ_RECIPE_DEFAULT, 0);
ENUM(GANQ_RECIPE_RTN, 1);
ENUM(GANQ_RECIPE_PAPER, 2);
ENUM(GANQ_RECIPE_FAST, 3);
ENUM(GANQ_RECIPE_BEST, 4);

ENUM(GANQ_STEP_START, 1);
ENUM(GANQ_STEP_ASSIGN, 2);
ENUM(GANQ_STEP_TABLES, 3);
ENUM(GANQ_STEP_DESCENT, 4);
ENUM(GANQ_STEP_ROUND, 5);
ENUM(GANQ_STEP_OUTLIERS, 6);

ENUM(GANQ_PERPLEXITY_GPTQ, 0);
ENUM(GANQ_PERPLEXITY_DOCUMENT, 1);

ENUM(GANQ_ENCODE_BOS, 1);
ENUM(GANQ_ENCODE_SPECIAL, 2);

ENUM(GANQ_DECODE_SKIP_SPECIAL, 1);

ENUM(GANQ_SAMPLE_WINDOWS, 0);
ENUM(GANQ_SAMPLE_DOCUMENTS, 1);
ENUM(GANQ_SAMPLE_JOINED, 2);
