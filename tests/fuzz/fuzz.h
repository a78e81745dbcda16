/* fuzz.h - what the fuzz targets share. A target is LLVMFuzzerTestOneInput, so that it links with
 * libFuzzer
 * (-fsanitize=fuzzer) as well as with fuzz_main.c, which runs it over a folder of seeds and over
 * mutations of them. */
#ifndef GANQ_TESTS_FUZZ_H
#define GANQ_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A scratch file with this name that holds the bytes; the path is valid until the next call. */
const char *fuzz_file(const char *name, const uint8_t *data, size_t size);
/* The folder of those files. */
const char *fuzz_dir(void);
/* Ends the process, loudly: the library broke a promise. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_broken(#condition, __FILE__, __LINE__))
void fuzz_broken(const char *condition, const char *file, int line);

#endif
