/* blas.c - a CBLAS library, loaded at run time to compare with. */
#include "blas.h"

#include <dlfcn.h>
#include <string.h>

#include "cli.h"

int cli_blas_open(const char *path, int threads, cli_blas *blas) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return cli_usage("--blas: %s", dlerror());
    void *sgemm = dlsym(library, "cblas_sgemm"), *ssyrk = dlsym(library, "cblas_ssyrk");
    void *set_threads = dlsym(library, "openblas_set_num_threads");
    void (*set)(int);
    if (!sgemm || !ssyrk)
        return cli_usage("--blas: %s has no cblas_sgemm or no cblas_ssyrk", path);
    memcpy(&blas->sgemm, &sgemm, sizeof sgemm);
    memcpy(&blas->ssyrk, &ssyrk, sizeof ssyrk);
    memcpy(&set, &set_threads, sizeof set);
    if (set_threads)
        set(threads);
    blas->name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    return CLI_OK;
}
