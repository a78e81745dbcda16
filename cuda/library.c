/* library.c - opening CUDA's own libraries. */
#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *open_in(const char *folder, const char *name) {
    char path[1024];
    const int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    return length > 0 && (size_t)length < sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

/* <site-packages>/nvidia/<folder>/lib, where this library is <site-packages>/<package>/.../libganq.so. */
static void *open_beside(const char *const *folders, const char *name) {
    Dl_info self;
    char base[768];
    if (!dladdr((const void *)&ganq__cuda_library, &self) || !self.dli_fname || strlen(self.dli_fname) >= sizeof base)
        return NULL;
    strcpy(base, self.dli_fname);
    for (int up = 0; up < 4; up++) {
        char *slash = strrchr(base, '/');
        if (!slash)
            return NULL;
        *slash = '\0';
        for (int f = 0; folders[f]; f++) {
            char folder[1000];
            snprintf(folder, sizeof folder, "%s/nvidia/%s/lib", base, folders[f]);
            void *handle = open_in(folder, name);
            if (handle)
                return handle;
        }
    }
    return NULL;
}

ganq_status ganq__cuda_library(const char *const *names, const char *const *folders, void **out) {
    const char *own = getenv("GANQ_CUDA_LIB_DIR");
    char reason[256] = "";
    for (int i = 0; names[i]; i++) {
        void *handle = own && *own ? open_in(own, names[i]) : NULL;
        if (!handle)
            handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!handle && !reason[0]) {
            const char *why = dlerror();
            snprintf(reason, sizeof reason, "%s", why ? why : "not found");
        }
        if (!handle)
            handle = open_in("/usr/local/cuda/lib64", names[i]);
        if (!handle)
            handle = open_beside(folders, names[i]);
        if (handle) {
            *out = handle;
            return GANQ_OK;
        }
    }
    GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s cannot be opened (%s); GANQ_CUDA_LIB_DIR may name its folder", names[0],
              reason);
}

ganq_status ganq__cuda_functions(const char *const *names, const char *const *folders, const ganq__cuda_symbol *symbols,
                                 size_t count, void *out, size_t size) {
    void *library = NULL, *found[32] = {NULL};
    if (count > sizeof found / sizeof *found || size > sizeof found)
        GANQ_FAIL(GANQ_ERR_INTERNAL, "%s: %zu functions of %zu bytes", names[0], count, size);
    GANQ_TRY(ganq__cuda_library(names, folders, &library));
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol)
            GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s has no %s", names[0], symbols[i].name);
        memcpy((char *)found + symbols[i].offset, &symbol, sizeof symbol);
    }
    memcpy(out, found, size);
    return GANQ_OK;
}
