/* library.h - CUDA's own libraries, opened on first use so that nothing depends on them at load. */
#ifndef GANQ_CUDA_LIBRARY_H
#define GANQ_CUDA_LIBRARY_H

#include "context.h"

/* The handle of the first of `names` (NULL-terminated, file names such as "libcublasLt.so.13") that opens, looked for
 * where the loader looks, in $GANQ_CUDA_LIB_DIR, in the toolkit's usual folder, and in the nvidia/<folder>/lib folders
 * (`folders`, NULL-terminated) of the Python packages beside which this library is installed. UNSUPPORTED names what
 * was looked for and why the last attempt failed. The handle stays open for good. */
ganq_status ganq__cuda_library(const char *const *names, const char *const *folders, void **out);

/* A function of a library, and where its address goes in a struct of function pointers. */
typedef struct ganq__cuda_symbol {
    const char *name;
    size_t offset;
} ganq__cuda_symbol;
/* The same, and its functions: `out`, of `size` bytes, is written only when all of them were found. */
ganq_status ganq__cuda_functions(const char *const *names, const char *const *folders, const ganq__cuda_symbol *symbols,
                                 size_t count, void *out, size_t size);

#endif
