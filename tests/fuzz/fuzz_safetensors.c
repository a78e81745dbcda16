/* fuzz_safetensors.c - any bytes as a safetensors file: it is refused, or all its tensors can be
 * read. */
#include "fuzz.h"

#include <string.h>

#include "alloc.h"
#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const int64_t any[GANQ__MAX_RANK] = {-1, -1, -1, -1, -1, -1, -1, -1};
    ganq__tensors *tensors = NULL;
    ganq_status status = ganq__tensors_open_file(fuzz_file("x.safetensors", data, size), &tensors);
    if (status != GANQ_OK) {
        FUZZ_CHECK(!tensors && status == GANQ_ERR_FORMAT);
        FUZZ_CHECK(strstr(ganq_last_error(), "x.safetensors: "));
        return 0;
    }
    uint64_t total = 0;
    for (int64_t i = 0; i < ganq__tensors_count(tensors); i++) {
        const ganq__tensor *tensor = ganq__tensors_at(tensors, i), *found = NULL;
        float *values = NULL;
        FUZZ_CHECK(ganq__tensors_find(tensors, tensor->name) == tensor);
        status = ganq__tensors_require(tensors, tensor->name, ~0u, tensor->rank, any, &found);
        FUZZ_CHECK((status == GANQ_OK) == (tensor->fault == NULL));
        if (status == GANQ_OK)
            FUZZ_CHECK((uint64_t)tensor->count * ganq__st_dtype_size(tensor->dtype) ==
                       tensor->size_bytes);
        status = ganq__tensor_verify(tensor); /* reads every byte that has a CRC */
        FUZZ_CHECK(status == GANQ_OK || status == GANQ_ERR_FORMAT);
        if (ganq__tensor_to_f32(tensor, &values) == GANQ_OK)
            ganq__free(values);
        total += tensor->size_bytes;
    }
    FUZZ_CHECK(total < size);
    ganq__tensors_free(tensors);
    return 0;
}
