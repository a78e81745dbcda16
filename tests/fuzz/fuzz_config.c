/* fuzz_config.c - any bytes as config.json: refused with the file's name, or a configuration whose
 * sizes can be used. */
#include "fuzz.h"

#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ganq_context ctx; /* reading logs through it and uses nothing else of it */
    ganq__config config;
    fuzz_file("config.json", data, size);
    ganq_status status = ganq__config_load(&ctx, fuzz_dir(), &config);
    if (status != GANQ_OK) {
        FUZZ_CHECK(status == GANQ_ERR_FORMAT || status == GANQ_ERR_UNSUPPORTED);
        FUZZ_CHECK(strstr(ganq_last_error(), "config.json"));
        return 0;
    }
    FUZZ_CHECK(config.family && config.layers > 0 && config.hidden > 0 && config.vocab > 0);
    FUZZ_CHECK(config.bos < config.vocab);
    for (int32_t i = 0; i < config.eos_count; i++)
        FUZZ_CHECK(config.eos[i] >= 0 && config.eos[i] < config.vocab);
    for (int role = 0; role < GANQ__ROLE_COUNT; role++) {
        int64_t N = 0, K = 0, elements;
        ganq__config_linear_shape(&config, (ganq__role)role, &N, &K);
        FUZZ_CHECK(N > 0 && K > 0 && !__builtin_mul_overflow(N, K, &elements));
        int bias = ganq__config_linear_has_bias(&config, (ganq__role)role);
        FUZZ_CHECK(bias == 0 || bias == 1);
    }
    ganq__config_free(&config);
    return 0;
}
