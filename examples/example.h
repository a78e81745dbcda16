/* example.h - what the numbered examples share: stop with the library's message when a call fails. */
#ifndef GANQ_EXAMPLE_H
#define GANQ_EXAMPLE_H

#include <ganq/ganq.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        ganq_status check_status = (call);                                                         \
        if (check_status != GANQ_OK) {                                                             \
            fprintf(stderr, "%s: %s\n", ganq_status_string(check_status), ganq_last_error());      \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* The model and the texts that come with the sources; the examples are run from the top of the source tree. */
#define EXAMPLE_MODEL "examples/data/tiny-llama"
#define EXAMPLE_CALIBRATION "examples/data/text/calibration.jsonl"
#define EXAMPLE_EVALUATION "examples/data/text/evaluation.jsonl"

#endif
