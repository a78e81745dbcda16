/* fuzz_file.c - the library reads files by name: scratch files for the targets, removed at exit. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

static char dir[64];

static void remove_dir(void) {
    (void)!ganq__remove_tree(dir);
}

const char *fuzz_dir(void) {
    if (!*dir) {
        /* in memory where the system has such a place */
        snprintf(dir, sizeof dir, "%s/ganq-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
        FUZZ_CHECK(mkdtemp(dir));
        atexit(remove_dir);
    }
    return dir;
}

const char *fuzz_file(const char *name, const uint8_t *data, size_t size) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
    FILE *file = fopen(path, "wb");
    FUZZ_CHECK(file && fwrite(data, 1, size, file) == size);
    FUZZ_CHECK(!fclose(file));
    return path;
}

void fuzz_broken(const char *condition, const char *file, int line) {
    fprintf(stderr, "%s:%d: broken: %s\n", file, line, condition);
    abort();
}
