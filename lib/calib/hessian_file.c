/* hessian_file.c - a Hessian as a safetensors file: one tensor "hessian", the token count in the
 * metadata. */
#include "hessian.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "alloc.h"
#include "safetensors.h"

static const char tensor_name[] = "hessian", tokens_key[] = "ganq.tokens";

ganq_status ganq__hessian_save(const ganq_hessian *hessian, const char *path) {
    const int64_t shape[2] = {hessian->K, hessian->K};
    char tokens[24];
    snprintf(tokens, sizeof tokens, "%" PRId64, hessian->tokens);
    ganq__st_writer *writer;
    ganq_status status;
    GANQ_TRY(ganq__st_writer_open(path, &writer));
    GANQ_TRY_GOTO(abort_write, ganq__st_writer_meta(writer, tokens_key, tokens));
    GANQ_TRY_GOTO(abort_write,
                  ganq__st_writer_declare(writer, tensor_name, GANQ__ST_F32, 2, shape));
    GANQ_TRY_GOTO(abort_write, ganq__st_writer_data(writer, hessian->values,
                                                    (size_t)(hessian->K * hessian->K) *
                                                        sizeof *hessian->values));
    return ganq__st_writer_commit(writer);
abort_write:
    ganq__st_writer_abort(writer);
    return status;
}

static ganq_status read_tokens(const ganq__tensors *tensors, const char *path, int64_t *out) {
    const char *text = ganq__tensors_meta(tensors, tokens_key);
    if (!text)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: the metadata lack \"%s\"", path, tokens_key);
    char *end;
    errno = 0;
    long long tokens = strtoll(text, &end, 10);
    if (end == text || *end || errno || tokens < 0)
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: metadata \"%s\" is \"%.40s\", expected a number of tokens",
                  path, tokens_key, text);
    *out = tokens;
    return GANQ_OK;
}

static ganq_status read_values(const ganq__tensors *tensors, const char *path, int64_t tokens,
                               ganq_hessian **out) {
    const int64_t any[2] = {-1, -1};
    const ganq__tensor *tensor;
    float *values;
    GANQ_TRY(ganq__tensors_require(tensors, tensor_name, 1u << GANQ__ST_F32, 2, any, &tensor));
    if (tensor->shape[0] != tensor->shape[1] || tensor->shape[0] < 1)
        GANQ_FAIL(GANQ_ERR_FORMAT,
                  "%s: tensor \"%s\" has shape [%" PRId64 ",%" PRId64 "], expected [K,K]", path,
                  tensor_name, tensor->shape[0], tensor->shape[1]);
    GANQ_TRY(ganq__tensor_verify(tensor));
    GANQ_TRY(
        ganq__tensor_to_f32(tensor, &values)); /* aligned, which the file's bytes need not be */
    ganq_matrix H = GANQ_MATRIX(GANQ_DTYPE_F32, tensor->shape[0], tensor->shape[1], values);
    H.row_stride = H.cols;
    ganq_status status = ganq__hessian_import(&H, tokens, out);
    if (status ==
        GANQ_ERR_INVALID_ARG) /* of the caller's matrix; in a file it is the file's fault */
        status = GANQ_ERR_FORMAT;
    if (status == GANQ_ERR_FORMAT || status == GANQ_ERR_NUMERIC)
        ganq__fail_prefix("%s", path);
    ganq__free(values);
    return status;
}

ganq_status ganq__hessian_load(const char *path, ganq_hessian **out) {
    ganq__tensors *tensors;
    int64_t tokens = 0;
    GANQ_TRY(ganq__tensors_open_file(path, &tensors));
    ganq_status status = read_tokens(tensors, path, &tokens);
    if (status == GANQ_OK)
        status = read_values(tensors, path, tokens, out);
    ganq__tensors_free(tensors);
    return status;
}
